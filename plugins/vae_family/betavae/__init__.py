"""VAE, beta-VAE and the beta-VAE of controlled capacity (Burgess et al. 2018)."""

from distk.papers import Paper

paper = Paper(__name__, cite="Burgess et al. 2018")
paper.method(
    "vae",
    "method:VAE",
    "Gaussian variational autoencoder: reconstruction + KL",
    cite="Kingma & Welling 2014",
    tags=("vae", "unsupervised"),
)
paper.method(
    "betavae",
    "method:BetaVAE",
    "charges the KL beta times",
    cite="Higgins et al. 2017",
    tags=("vae", "unsupervised"),
    aliases=("beta-vae",),
)
paper.method(
    "annealedvae",
    "method:AnnealedVAE",
    "holds the KL at a capacity that grows over training",
    tags=("vae", "unsupervised"),
    aliases=("betavae-capacity", "betab"),
)
paper.method(
    "factorgen",
    "factorgen:FactorGen",
    "a decoder fed with the true factors through noisy channels: which factor is worth its nats first?",
    tags=("generator", "supervised"),
)
paper.metric(
    "capacity-order",
    "metrics:CapacityOrder",
    "on which true factors a growing capacity is spent, and when (factorgen)",
)
paper.command(
    "capacity",
    "commands:capacity",
    "Draw where a growing capacity went: KL of each factor or latent against C.",
    was="capacity",
)
paper.study(
    "burgess",
    "studies/burgess.toml",
    "latents in use on blobs and coloured dSprites, and where a growing capacity goes",
    cite="Burgess et al. 2018",
)
