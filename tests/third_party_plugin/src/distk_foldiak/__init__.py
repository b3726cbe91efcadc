"""Bars that are independently on or off (Földiák 1990), and a linear code for them. Nothing here imports torch."""

import hashlib
from pathlib import Path

import typer

from distk import hookimpl

DISTK_CONTRACT = 1


@hookimpl
def distk_register_methods(register) -> None:
    register(
        "tied-linear", "distk_foldiak.method:TiedLinear", "a linear autoencoder with tied weights", tags=("linear",)
    )


@hookimpl
def distk_register_datasets(register) -> None:
    register(
        "foldiak",
        "distk_foldiak.dataset:Foldiak",
        "bars that are independently on or off",
        paper="Földiák 1990",
        tags=("image", "factors"),
        aliases=("independent-bars",),
    )


@hookimpl
def distk_register_metrics(register) -> None:
    register("best-r2", "distk_foldiak.metric:BestR2", "how much of each factor one code explains")


@hookimpl
def distk_register_studies(register) -> None:
    register("bars", "distk_foldiak:studies/bars.toml", "how many codes the bars need", paper="Földiák 1990")


@hookimpl
def distk_register_commands(app: typer.Typer) -> None:
    from distk_foldiak import commands

    app.command("filters")(commands.filters)


@hookimpl
def distk_checkpoint_saved(path: Path) -> None:
    """A checksum beside every checkpoint, in the form that `sha256sum -c` reads."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    path.with_name(f"{path.name}.sha256").write_text(f"{digest}  {path.name}\n")
