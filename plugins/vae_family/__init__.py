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
    ("jade", "jade.study:study", "Test errors with few labels (arXiv 1711.09163)."),
    ("fstat", "fstat.commands:study_fstat", "Retrieval by the F-statistic loss (Ridgeway & Mozer 2017)."),
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
