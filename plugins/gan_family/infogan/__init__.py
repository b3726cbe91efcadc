"""InfoGAN as an encoder, measured by disentanglement, completeness, informativeness (Eastwood & Williams 2017)."""

from distk.papers import Paper

paper = Paper(__name__, cite="Eastwood & Williams 2017", tags=("unsupervised",))
paper.method(
    "infogan",
    "method:InfoGAN",
    "a generator whose codes can be read from its images, with the losses of improved Wasserstein GAN",
    tags=("gan",),
)
paper.method(
    "infogan-mnist",
    "method:InfoGANMnist",
    "the first InfoGAN: a class and two continuous codes, with the losses of the first GAN",
    cite="Chen et al. 2016",
    tags=("gan",),
)
paper.method(
    "pca",
    "pca:PCA",
    "principal components as a code, fitted in closed form: the baseline of Tables 1 and 2",
    tags=("linear",),
)
paper.dataset(
    "teapots",
    "data:Teapots",
    "a teapot from any side in any colour, with a gap of unseen combinations: the published files, or rendered",
    cite="Eastwood & Williams 2017",
    tags=("image", "factors"),
)
paper.metric(
    "infogan",
    "metrics:InfoGANScore",
    "how well an infogan model reads its codes from its own images",
    tags=("gan", "model"),
)
paper.metric(
    "dci-gap",
    "metrics:GapDci",
    "dci by lasso or forests fitted on training rows, and their errors on the test and on unseen combinations",
)
paper.command("grid", "commands:grid", "Draw what a code changes, over several draws of everything else.")
paper.command("hinton", "commands:hinton", "Draw which code holds which factor, as a Hinton diagram.")
paper.study(
    "teapots",
    "studies/tables.toml",
    "Tables 1 and 2: what lasso and forests read from the codes of InfoGAN and PCA, in and out of the gap",
)
