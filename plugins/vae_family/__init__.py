"""Variational autoencoders. A table of contents: nothing here imports torch."""

import typer

from distk.hookspecs import Register, hookimpl

_AT = "distk.plugins.vae_family."


@hookimpl
def distk_register_methods(register: Register) -> None:
    register(
        "cascadevae",
        _AT + "cascadevae:CascadeVAE",
        "relieves KL weights one dimension at a time and solves for a discrete code exactly by min-cost flow",
        paper="Jeong & Song 2019",
        tags=("vae", "discrete", "unsupervised"),
        aliases=("cascade", "cascade-vae"),
    )
    register(
        "cascadevae-c",
        _AT + "cascadevae:CascadeVAEContinuous",
        "cascadevae without the discrete code",
        paper="Jeong & Song 2019",
        tags=("vae", "unsupervised"),
    )


@hookimpl
def distk_register_commands(app: typer.Typer) -> None:
    from distk.plugins.vae_family import commands

    commands.add(app)
