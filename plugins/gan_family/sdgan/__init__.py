"""Semantically decomposed GANs: what an identity is, and what one picture of it is (Donahue et al. 2017)."""

from distk.papers import Paper

paper = Paper(__name__, cite="Donahue et al. 2017", tags=("gan", "labels"))
paper.method(
    "sddcgan",
    "method:SDDCGAN",
    "pictures of one identity that differ, from a DCGAN whose discriminator judges pairs",
    aliases=("sd-dcgan",),
)
paper.method(
    "sdbegan",
    "method:SDBEGAN",
    "the same from a BEGAN, whose discriminator is an autoencoder of pairs",
    aliases=("sd-began",),
)
paper.method("dcgan", "method:DCGAN", "sddcgan's counterpart: single images, no identities", cite="Radford et al. 2016")
paper.method(
    "began", "method:BEGAN", "sdbegan's counterpart: single images, no identities", cite="Berthelot et al. 2017"
)
paper.metric(
    "verification",
    "metrics:Verification",
    "whether a verifier takes made pairs of one identity for one, and how much they differ; beside real pairs",
    tags=("gan", "model"),
)
paper.metric(
    "leakage",
    "metrics:Leakage",
    "which code the traits of made images follow, as a regressor of real images' traits reads them",
    cite="",
    tags=("gan", "model"),
)
paper.command("grid", "commands:grid", "Draw identities, one per row, in observations, one per column.")
paper.command("interpolate", "commands:interpolate", "Draw the way between two codes, identity and observation apart.")
paper.command("invert", "commands:invert_", "Find the codes of given images, one identity for all of a subject.")
paper.command("verifier-train", "commands:verifier_train", "Train the verifier that the score `verification` asks.")
paper.study("sdgan", "studies/sdgan.toml", "Table 1: verification of generated pairs, and what each code changes")
