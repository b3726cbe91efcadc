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
