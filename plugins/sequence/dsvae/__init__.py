"""The disentangled sequential autoencoder (Li & Mandt 2018; Das & Dandi)."""

from distk.papers import Paper

paper = Paper(__name__, cite="Li & Mandt 2018; Das & Dandi", tags=("vae", "video", "unsupervised"))
paper.method(
    "dsvae",
    "method:DSVAE",
    "a sequence VAE with one static code per clip and one code per frame",
    aliases=("disentangled-sequential-autoencoder", "dsa"),
)
paper.command("transfer-clips", "commands:transfer_clips", "Exchange the motion of two clips.", was="transfer-clips")
paper.command(
    "similarity",
    "commands:similarity",
    "Cosine similarity of f and of the whole z over pairs of clips.",
    was="similarity",
)
paper.command(
    "generate",
    "commands:generate",
    "Draw new clips, with the appearance or the motion of a given clip kept.",
    was="generate",
)
paper.command(
    "judge", "commands:judge_train", "Train the classifier that the metric `disagreement` asks.", was="judge train"
)
paper.study(
    "dsvae",
    "studies/clips.toml",
    "cosines of the two codes over pairs of clips, and exchanged motion (section III)",
)
