"""Adversarial autoencoders, alone (AAE) and with a class that the decoder is told (AAE-S) (Makhzani et al. 2015)."""

from distk.papers import Paper

paper = Paper(__name__, cite="Makhzani et al. 2015", tags=("autoencoder", "adversarial"))
paper.method("aae", "method:AAE", "autoencoder whose codes a critic pulls to the normal prior", tags=("unsupervised",))
paper.method(
    "aae-s",
    "method:AAES",
    "adversarial autoencoder whose decoder is told the class: how well do the other factors separate then?",
    tags=("discrete", "supervised"),
    aliases=("aaes", "aae_s"),
)
paper.metric(
    "prior-mmd",
    "metrics:PriorMMD",
    "how far the codes are from the standard normal prior: MMD, moments, and how well they tell the class",
    cite="Gretton et al. 2012",
)
