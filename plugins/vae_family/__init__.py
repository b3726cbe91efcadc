"""Variational autoencoders, and what learns a code beside them. A table of contents: nothing here imports torch."""

from distk.hookspecs import Register, RegisterPaper, hookimpl

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
