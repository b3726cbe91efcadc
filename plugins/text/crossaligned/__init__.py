"""The cross-aligned autoencoder: sentences aligned by their populations (Shen et al. 2017)."""

from distk.papers import Paper

paper = Paper(__name__, cite="Shen et al. 2017", tags=("text", "autoencoder", "adversarial", "labels"))
paper.method(
    "crossaligned",
    "method:CrossAligned",
    "rewrites sentences of two labels: hidden states of transferred text must look like those of real text",
    aliases=("cross-ae",),
)
paper.study(
    "text-transfer", "studies/text-transfer.toml", "sentences rewritten by crossaligned and its rivals, six scores"
)
