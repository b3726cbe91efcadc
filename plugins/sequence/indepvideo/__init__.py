"""Video in factors that evolve independently (Whitney & Fergus 2017)."""

from distk.papers import Paper

paper = Paper(__name__, cite="Whitney & Fergus 2017", tags=("vae", "video", "unsupervised"))
paper.method(
    "indepvideo",
    "method:IndepVideo",
    "a video VAE whose factors are foretold each from its own past alone, so that they become objects",
    aliases=("independent-prediction", "factored-video"),
)
paper.dataset(
    "moving-mnist-rg",
    "digits:MovingDigits",
    "a red and a green handwritten digit that bounce, each on a path of its own; MNIST's files or its stand-in",
    cite="Srivastava et al. 2015",
    tags=("video",),
)
paper.dataset(
    "street",
    "street:Street",
    "a street from above: your own video of a fixed camera, or cars and pedestrians drawn on the device",
    tags=("video",),
)
paper.dataset(
    "bouncing-squares",
    "data:BouncingSquares",
    "a red and a green square that bounce, 16x16: for tests that take minutes",
    cite="",
    tags=("video",),
)
paper.dataset(
    "two-oscillators",
    "data:TwoOscillators",
    "clips of 8 numbers: two oscillators, mixed at random, that only their motion tells apart",
    cite="",
    tags=("clips",),
)
