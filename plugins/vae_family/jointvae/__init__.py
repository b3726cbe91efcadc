"""JointVAE: continuous and discrete codes from one encoder (Dupont 2018)."""

from distk.papers import Paper

paper = Paper(__name__, cite="Dupont 2018", tags=("vae", "discrete", "unsupervised"))
paper.method(
    "jointvae",
    "method:JointVAE",
    "continuous and discrete codes from one encoder by Gumbel-softmax, each rate pulled to a growing capacity",
    aliases=("joint-vae",),
)
