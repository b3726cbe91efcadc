"""MoCoGAN: motion and content decomposed GAN for video (Tulyakov et al. 2017, 2018)."""

from distk.papers import Paper

paper = Paper(__name__, cite="Tulyakov et al. 2017", tags=("gan", "video", "unsupervised"))
paper.method(
    "mocogan",
    "method:MoCoGAN",
    "a GAN of clips: one content code per clip, motion codes from a recurrent network",
    aliases=("moco-gan",),
)
paper.method(
    "vgan",
    "vgan:VGAN",
    "mocogan's baseline: a clip is one point, foreground and background in two streams",
    cite="Vondrick et al. 2016",
)
paper.dataset(
    "shape-motion",
    "data:ShapeMotion",
    "coloured circles and squares that cross the frame on random curves, drawn on the device",
    tags=("video", "factors", "labels"),
)
paper.metric(
    "acd",
    "metrics:ContentDistance",
    "how much a clip's content changes from frame to frame, on a scale of 0 to 255; always with whether it moves",
    tags=("clips",),
)
paper.metric(
    "motion-class",
    "metrics:MotionClass",
    "does the motion code say in which direction a shape moves, whatever the content",
    tags=("clips",),
)
paper.command("grid", "commands:grid", "Draw clips: a row per motion, a column per content.")
paper.study("mocogan", "studies/mocogan.toml", "content distance of mocogan and vgan, and what each critic does")
