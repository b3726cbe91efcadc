"""The multi-entity VAE (Nash et al. 2017)."""

from distk.papers import Paper

paper = Paper(__name__, cite="Nash et al. 2017", tags=("vae",))
paper.method(
    "mvae",
    "method:MVAE",
    "multi-entity VAE: the code is a set of objects, found in one shot where the KL is largest",
    tags=("objects", "unsupervised"),
    aliases=("multi-entity-vae",),
)
paper.method(
    "mvae-baseline",
    "method:MVAEBaseline",
    "mvae's encoder and decoder around one code of 60 dimensions",
    tags=("unsupervised",),
)
paper.metric(
    "mvae-elbo",
    "metrics:Bound",
    "the bound of mvae and mvae-baseline on test scenes, and the floor of its reconstruction term, nats",
    tags=("objects", "model"),
)
paper.metric(
    "object-count",
    "metrics:ObjectCount",
    "how often the number of cells with a KL above a threshold is the number of objects",
    tags=("objects", "model"),
)
paper.metric(
    "slot-factors",
    "slots:SlotFactors",
    "what the code of an object tells of the sprite that it draws: R2, accuracy of the shape, dci",
    cite="",
    tags=("objects", "model"),
)
paper.metric(
    "entity-exchange",
    "slots:EntityExchange",
    "error of scenes with an exchanged object against the true ones, relative to plain reconstruction",
    cite="",
    tags=("objects", "model"),
)
paper.command(
    "build",
    "commands:build",
    "Decode scenes from their 1, 2, ... objects with the largest KL, and measure what each adds.",
    was="build",
)
paper.command(
    "klmap",
    "commands:klmap",
    "Show where the objects are: input, KL of every cell, the cells that are kept.",
    was="klmap",
)
paper.command("count", "commands:count", "Count objects as the cells with a KL above a threshold.", was="count")
paper.command("swap", "commands:swap", "Exchange an object between scenes.", was="objects swap")
paper.command("traverse", "commands:traverse", "Vary the code of one object of a scene.", was="objects traverse")
paper.study("counting", "studies/counting.toml", "objects counted by the KL map, and exchanged between scenes")
