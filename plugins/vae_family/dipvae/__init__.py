"""DIP-VAE: disentangled inferred priors (Kumar et al. 2018)."""

from distk.papers import Paper

paper = Paper(__name__, cite="Kumar et al. 2018", tags=("vae", "unsupervised"))
paper.method(
    "dipvae",
    "method:DIPVAE",
    "drives the covariance of the inferred prior to the identity and leaves the rate alone",
    aliases=("dip-vae", "dipvae-i"),
)
paper.method(
    "dipvae-ii",
    "method:DIPVAEII",
    "dipvae on the covariance of sampled codes instead of that of the means",
    aliases=("dip-vae-ii",),
)
paper.study(
    "dip",
    "studies/dip.toml",
    "the beta-VAE score against reconstruction, over DIP-VAE's lambda_od and beta-VAE's beta",
    judge="judge:judge",
)
paper.study(
    "dip-celeba",
    "studies/celeba.toml",
    "the same on CelebA's 40 attributes; needs its files",
)
