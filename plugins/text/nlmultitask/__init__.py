"""Natural language multitasking: sentence autoencoders with decoders of other tasks (Brunner et al. 2018)."""

from distk.papers import Paper

paper = Paper(__name__, cite="Brunner et al. 2018", tags=("text", "autoencoder", "multitask"))
paper.method(
    "nlmultitask",
    "method:NlMultitask",
    "one code per sentence from which decoders write it again, its translations and its tags",
    aliases=("multitask-ae",),
)
paper.dataset(
    "standin-trilingual",
    "data:StandinTrilingual",
    "sentences of a grammar in English, German and French, with tags: short, quick or full",
    tags=("sentence", "columns"),
)
paper.dataset(
    "europarl",
    "data:Europarl",
    "speeches in the European Parliament in English, German and French",
    cite="Koehn 2005",
    tags=("sentence", "columns"),
)
paper.metric("perplexity", "metrics:Perplexity", "of each decoder of nlmultitask, per character or tag", tags=("text",))
paper.metric(
    "syntax-clustering",
    "metrics:SyntaxClustering",
    "do codes of sentences cluster by their syntax: errors of K-means over 14 kinds of sentences",
    tags=("text",),
)
paper.metric(
    "sentence-interpolation",
    "metrics:SentenceInterpolation",
    "between two sentences, are there words and sentences",
    tags=("text",),
)
paper.metric(
    "sentence-arithmetic",
    "metrics:SentenceArithmetic",
    "does the difference of two sentences change a third in the same way",
    tags=("text",),
)
paper.command("translate", "commands:translate", "What a decoder makes of a sentence.")
paper.command("interpolate", "commands:interpolate", "What lies between two sentences.")
paper.command("arithmetic", "commands:arithmetic", "What the difference of two sentences makes of a third.")
paper.command("syntax-clusters", "commands:syntax_clusters", "Do codes of sentences cluster by syntax.")
paper.study(
    "multitask", "studies/multitask.toml", "do decoders of other tasks untangle the syntax of a sentence's code"
)
