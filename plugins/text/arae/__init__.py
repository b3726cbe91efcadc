"""ARAE: an adversarially regularised autoencoder for rewriting sentences (Zhao et al. 2017)."""

from distk.papers import Paper

paper = Paper(__name__, cite="Zhao et al. 2017", tags=("text", "adversarial", "labels"))
paper.method(
    "arae",
    "method:ARAE",
    "rewrites sentences: an adversary removes the label from the code, one decoder per label puts another in",
    aliases=("arae-transfer",),
)
paper.study(
    "arae",
    "studies/table1.toml",
    "Table 1: transfer, BLEU and both perplexities, by the weight of the adversary",
)
