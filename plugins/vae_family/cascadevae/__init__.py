"""CascadeVAE: information cascading and exact discrete inference (Jeong & Song 2019)."""

from distk.papers import Paper

paper = Paper(__name__, cite="Jeong & Song 2019", tags=("vae",))
paper.method(
    "cascadevae",
    "method:CascadeVAE",
    "relieves KL weights one dimension at a time and solves for a discrete code exactly by min-cost flow",
    tags=("discrete", "unsupervised"),
    aliases=("cascade", "cascade-vae"),
)
paper.method(
    "cascadevae-c", "method:CascadeVAEContinuous", "cascadevae without the discrete code", tags=("unsupervised",)
)
paper.command(
    "assign",
    "commands:assign",
    "Give every image its discrete class, and hold the classes against the labels.",
    was="assign",
)
paper.command("mcf", "commands:mcf", "Compare the exact solvers of the discrete code on random costs.", was="mcf bench")
paper.study(
    "discrete",
    "studies/discrete.toml",
    "methods with and without a discrete code: FactorVAE score, classes found, reconstruction",
    judge="study:judge",
)
