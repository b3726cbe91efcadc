"""Sentiment changed by moving a sentence's code between two clouds, by MMD (Larsson et al. 2017)."""

from distk.papers import Paper

paper = Paper(__name__, cite="Larsson et al. 2017", tags=("text", "labels"))
paper.method(
    "mmdtraverse",
    "method:MMDTraverse",
    "a code of a sentence is moved to the cloud of another label under a budget, and written out again",
    aliases=("mmd",),
)
paper.metric("mmd", "metrics:Moves", "moved codes: does the label turn, does the topic stay, what comes back exactly")
paper.command("move", "commands:move", "Move sentences to another label, and show every stage.")
paper.command("plot-codes", "commands:plot_codes", "Draw codes by label and topic, and moved ones among them.")
paper.study("mmdtraverse", "studies/mmdtraverse.toml", "what each loss does for codes that are to be moved")
