"""The family's subcommands."""

import typer


def add(app: typer.Typer) -> None:
    """Register."""
