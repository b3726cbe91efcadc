"""FactorVAE: disentangling by factorising (Kim & Mnih 2018)."""

from distk.papers import Paper

paper = Paper(__name__, cite="Kim & Mnih 2018", tags=("vae", "unsupervised"))
paper.method(
    "factorvae",
    "method:FactorVAE",
    "penalises the total correlation of the code, estimated by a critic that sees permuted codes",
    aliases=("factor-vae", "fvae"),
)
paper.metric(
    "tc",
    "metrics:TotalCorrelation",
    "total correlation of sampled codes: Gaussian, of the mixture of posteriors, minibatch-weighted, by the critic",
    aliases=("total-correlation",),
)
paper.study(
    "factorvae",
    "studies/factorvae.toml",
    "disentanglement against reconstruction, over FactorVAE's gamma and beta-VAE's beta",
    judge="judge:judge",
)
