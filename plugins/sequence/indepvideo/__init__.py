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
paper.metric(
    "cross-mi",
    "metrics:CrossMi",
    "information of a factor's next state with its own and with another's state, in bits, beside its ceiling",
    tags=("clips",),
)
paper.metric(
    "specificity",
    "metrics:Specificity",
    "does each factor move one object and leave the other alone",
    tags=("clips",),
)
paper.metric(
    "source-alignment",
    "metrics:SourceAlignment",
    "is each true source in one factor and in no other, for data that know their sources",
    cite="",
    tags=("clips",),
)
paper.command("independent", "commands:independent", "Draw what each factor does while all others are frozen.")
paper.command("correlation", "commands:correlation", "Draw how units correlate across one step.")
paper.study("independence", "studies/independence.toml", "Table 2 and Figure 2, factored against entangled")
