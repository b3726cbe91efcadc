"""The effects of enforcing disentanglement on VAEs (Peychev et al. 2017)."""

from distk.papers import Paper

paper = Paper(__name__, cite="Peychev et al. 2017", tags=("vae", "unsupervised"))
paper.method("peychev-fc", "method:PeychevFC", "fully connected beta-VAE of the studies beta-shapes, beta-mnist")
paper.method("peychev-conv", "method:PeychevConv", "convolutional beta-VAE of the studies beta-shapes, beta-mnist")
paper.study(
    "beta-shapes",
    "studies/beta-shapes.toml",
    "how disentangled the codes of 2D shapes are, against beta (Figure 1)",
    runner="study:shapes",
    judge="judge:judge",
)
paper.study(
    "beta-mnist",
    "studies/beta-mnist.toml",
    "how well an SVM reads digits from the codes, against beta (Figure 2)",
    runner="study:mnist",
    judge="judge:judge",
)
