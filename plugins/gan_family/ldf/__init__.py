"""LDF: generative models with locally disentangled latent factors, level by level (anonymous 2018)."""

from distk.papers import Paper

paper = Paper(__name__, cite="anonymous ICLR 2018 submission", tags=("gan", "unsupervised"))
paper.method(
    "ldf",
    "method:LDF",
    "a shared adversarial autoencoder of patches or frames, and a GAN over their codes: no gradient crosses levels",
    aliases=("locally-disentangled-factors",),
)
paper.method(
    "joint-gan", "joint:JointGAN", "the baseline: a GAN that sees all pixels or frames at once, as large as ldf"
)
paper.dataset(
    "pacman",
    "data:Pacman",
    "clips of a maze game, 5 frames of 32x32: screenshots, cut clips, or drawn on the device",
    cite="Cooper 2017",
    tags=("video",),
)
paper.dataset(
    "shapes32",
    "shapes32:Shapes32",
    "plain and striped shapes of five forms in random colours, 32x32, drawn on the device: ten classes",
    tags=("image", "labels"),
)
paper.metric(
    "classifier-score",
    "metrics:ClassifierScore",
    "exp(mean KL(p(y|x) || p(y))) of a classifier trained by the tool, on generated images; not the Inception Score",
    cite="Salimans et al. 2016",
    tags=("gan", "model", "labels"),
)
paper.metric(
    "frechet",
    "metrics:Frechet",
    "Frechet distance between that classifier's features of generated and of test images",
    cite="Heusel et al. 2017",
    tags=("gan", "model", "labels"),
)
paper.metric(
    "video-validity",
    "validity:VideoValidity",
    "share of generated clips of pacman whose ground stays and whose pacman walks; are training clips repeated",
    tags=("gan", "model", "video"),
)
paper.command("race", "race:race", "Scores over training time: level by level against a GAN over all pixels.")
paper.command("memory", "commands:memory", "Bytes that a training step keeps, by the number of frames.")
paper.command("shortcut", "commands:shortcut", "Draw items, through their codes, and around them.")
paper.command("pieces", "commands:pieces", "Draw patches or frames from the lower level alone.")
paper.command("judge", "commands:judge", "Train the classifier that the scores of images ask.")
paper.study(
    "ldf-race",
    "studies/race.toml",
    "Figure 3: scores of images over training time, level by level against all pixels",
    runner="study:race",
)
paper.study(
    "ldf-clock",
    "studies/clock.toml",
    "Figure 7: clips after 21 minutes, level by level against all frames",
    runner="study:race",
)
paper.study("ldf-clips", "studies/clips.toml", "Figures 4 and 6: clips learnt from 256 whole clips, and from all")
paper.study(
    "ldf-memory",
    "studies/memory.toml",
    "section 1: memory of a training step by the number of frames",
    runner="study:memory",
)
