"""Video in factors that evolve independently (Whitney & Fergus 2017)."""

from distk.papers import Paper

paper = Paper(__name__, cite="Whitney & Fergus 2017", tags=("vae", "video", "unsupervised"))
paper.method(
    "indepvideo",
    "method:IndepVideo",
    "a video VAE whose factors are foretold each from its own past alone, so that they become objects",
    aliases=("independent-prediction", "factored-video"),
)
