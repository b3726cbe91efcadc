"""Adversarial methods. A table of contents: nothing here imports torch."""

import typer

from distk.hookspecs import Register, hookimpl

_AT = "distk.plugins.gan_family."


@hookimpl
def distk_register_methods(register: Register) -> None:
    register(
        "icm",
        _AT + "icm:ICM",
        "experts compete for transformed images until each undoes one mechanism",
        paper="Parascandolo et al. 2018",
        tags=("gan", "unsupervised"),
        aliases=("experts",),
    )


@hookimpl
def distk_register_metrics(register: Register) -> None:
    register(
        "icm",
        _AT + "icm_metric:ICMScore",
        "how far each expert of an icm model undoes one mechanism, and a classifier's accuracy on what they restore",
        paper="Parascandolo et al. 2018",
        tags=("gan", "model"),
    )


@hookimpl
def distk_register_commands(app: typer.Typer) -> None:
    from distk.plugins.gan_family import commands

    commands.add(app)
