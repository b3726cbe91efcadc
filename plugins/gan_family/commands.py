"""The family's subcommands."""

import typer

from distk.plugins.gan_family import icm_commands


def add(app: typer.Typer) -> None:
    """Register every method's own commands."""
    icm_commands.add(app)
