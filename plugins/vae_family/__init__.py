"""Variational autoencoders, and what learns a code beside them. A table of contents: nothing here imports torch."""

from distk.hookspecs import Register, RegisterCommand, RegisterPaper, hookimpl

PAPERS = (
    "aae",
    "betatcvae",
    "betavae",
    "cascadevae",
    "covreg",
    "dipvae",
    "factorvae",
    "fstat",
    "jade",
    "jointvae",
    "mvae",
    "peychev",
)

_STUDIES = (
    ("discrete", "comparison_commands:discrete", "Methods with and without a discrete code (Jeong & Song 2019)."),
    ("factorvae", "comparison_commands:factorvae", "Disentanglement against reconstruction (Kim & Mnih 2018)."),
    ("dip", "comparison_commands:dip", "The beta-VAE score against reconstruction (Kumar et al. 2018)."),
    ("jade", "jade.study:study", "Test errors with few labels (arXiv 1711.09163)."),
    ("fstat", "fstat.commands:study_fstat", "Retrieval by the F-statistic loss (Ridgeway & Mozer 2017)."),
    ("covreg", "covreg.commands:covreg", "Covariance of codes under a penalty (Kageback & Mogren 2016)."),
    ("beta", "peychev.commands:beta", "How beta affects disentanglement (Peychev et al. 2017)."),
)
"""Experiments with a command of their own."""


@hookimpl
def distk_register_papers(register: RegisterPaper) -> None:
    for paper in PAPERS:
        register(f"{__name__}.{paper}")


@hookimpl
def distk_register_metrics(register: Register) -> None:
    register(
        "vae-bound",
        f"{__name__}.metrics:VaeBound",
        "reconstruction in nats and its floor, KL per latent, bits per dimension, active latents",
        tags=("vae",),
    )


@hookimpl
def distk_register_commands(register: RegisterCommand) -> None:
    for name, path, summary in _STUDIES:
        register(name, f"{__name__}.{path}", summary, group="study")
