"""Deep embeddings with the F-statistic loss, and its rivals (Ridgeway & Mozer 2017)."""

from distk.papers import Paper

paper = Paper(__name__, cite="Ridgeway & Mozer 2017", tags=("embedding", "supervised"))
paper.method(
    "fstat",
    "method:FStat",
    "an embedding from class labels that separates every pair of classes on a few dimensions, by an F statistic",
    aliases=("f-statistic",),
)
paper.method("triplet", "method:Triplet", "fstat's rival: triplet loss")
paper.method("histloss", "method:Histogram", "fstat's rival: histogram loss on the unit sphere", aliases=("histogram",))
paper.method(
    "bindev",
    "method:BinomialDeviance",
    "fstat's rival: binomial deviance on the unit sphere",
    aliases=("binomial-deviance",),
)
paper.study(
    "fstat",
    "studies/fstat.toml",
    "losses of embeddings over folds of unseen identities: Recall@k, and attributes on single dimensions",
    runner="study:losses",
    judge="judge:judge",
)
