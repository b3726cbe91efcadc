"""beta-TCVAE: isolating sources of disentanglement (Chen et al. 2018)."""

from distk.papers import Paper

paper = Paper(__name__, cite="Chen et al. 2018", tags=("vae", "unsupervised"))
paper.method(
    "betatcvae",
    "method:BetaTCVAE",
    "charges beta for the total correlation alone, estimated from the batch",
    aliases=("tcvae", "beta-tcvae"),
)
