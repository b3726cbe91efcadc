"""`distk transfer`."""

import typer


def add(app: typer.Typer) -> None:
    """Register `transfer`."""
