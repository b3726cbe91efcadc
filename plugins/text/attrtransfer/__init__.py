"""Text attribute transfer with a collaborative classifier and content losses (Melnyk et al. 2017)."""

from distk.papers import Paper

paper = Paper(__name__, cite="Melnyk et al. 2017", tags=("text", "labels"))
paper.method(
    "attrtransfer",
    "method:AttrTransfer",
    "rewrites sentences with attention: nouns are kept, a classifier helps, what was rewritten must lead back",
    aliases=("melnyk",),
)
paper.command("attention", "commands:attention", "Show where each word of a rewritten sentence looked.")
paper.study("attrtransfer", "studies/attrtransfer.toml", "which losses turn the label, and which keep the content")
