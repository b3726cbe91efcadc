"""Independent causal mechanisms by competition of experts (Parascandolo et al. 2018)."""

from distk.papers import Paper

paper = Paper(__name__, cite="Parascandolo et al. 2018", tags=("gan", "unsupervised"))
paper.method(
    "icm", "method:ICM", "experts compete for transformed images until each undoes one mechanism", aliases=("experts",)
)
paper.metric(
    "icm",
    "metrics:ICMScore",
    "how far each expert of an icm model undoes one mechanism, and a classifier's accuracy on what they restore",
    tags=("gan", "model"),
)
paper.command(
    "experts",
    "commands:experts",
    "List the experts: what each wins, and which mechanism it undoes.",
    was="experts list",
)
paper.command(
    "apply",
    "commands:apply",
    "Put images through one expert, or each through the one that wins it.",
    was="experts apply",
)
paper.command("grid", "commands:grid", "Draw what every expert makes of the same images.", was="experts grid")
paper.command("drop", "assembly:drop", "Take experts out of a model.", was="experts drop")
paper.command("export", "assembly:export", "Write one expert as a file of its own.", was="experts export")
paper.command("add", "assembly:add_", "Put an exported expert into a model.", was="experts add")
paper.study(
    "icm",
    "studies/experts.toml",
    "how often every mechanism finds an expert of its own, and what the experts restore",
)
