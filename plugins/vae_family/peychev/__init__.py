"""The effects of enforcing disentanglement on VAEs (Peychev et al. 2017)."""

from distk.papers import Paper

paper = Paper(__name__, cite="Peychev et al. 2017", tags=("vae", "unsupervised"))
paper.method("peychev-fc", "method:PeychevFC", "fully connected beta-VAE of the study `distk study beta`; --denoise")
paper.method("peychev-conv", "method:PeychevConv", "convolutional beta-VAE of the study `distk study beta`; --denoise")
