"""JADE: joint autoencoders for disentanglement (arXiv 1711.09163, 2017)."""

from distk.papers import Paper

paper = Paper(__name__, cite="arXiv 1711.09163, 2017")
paper.method(
    "jade",
    "method:Jade",
    "two data sets of the same classes: VAEs split content from style, one classifier reads the content of both",
    tags=("vae", "labels", "pairs"),
)
paper.method(
    "jade-single",
    "method:JadeSingle",
    "jade's baseline: a classifier of the primary data set alone",
    tags=("classifier", "labels"),
)
paper.method(
    "jade-paired",
    "method:JadePaired",
    "jade's baseline: two encoders under one classifier, without autoencoders",
    tags=("classifier", "labels", "pairs"),
)
paper.metric(
    "error", "metrics:ClassificationError", "share of test images that a classifier gets wrong", tags=("labels",)
)
paper.metric(
    "validation-error",
    "metrics:ValidationError",
    "error on the labels that --val-per-class kept back, to choose a model by",
    cite="",
    tags=("labels",),
)
paper.metric(
    "content-style-variance",
    "metrics:ContentStyleVariance",
    "how much codes vary within a class: content should, against style, hardly",
    tags=("labels",),
)
paper.command("transfer", "commands:transfer", "Draw the content of images in the style of others.")
paper.command("traverse", "commands:traverse", "Draw what each latent of content or style does.")
paper.command("sample", "commands:sample", "Draw new items from either decoder.")
paper.command("variance", "commands:variance", "How much content and style vary within a class.")
paper.study("jade", "studies/jade.toml", "errors where labels are few: one data set, two, and content told from style")
