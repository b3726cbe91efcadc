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
