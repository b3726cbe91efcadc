"""`distk outside report`."""

import typer

from distk.commands.arguments import Checkpoint, Json
from distk.console import emit_json
from distk.models import open_model
from distk.run import find_checkpoint


def report(checkpoint: Checkpoint = None, json: Json = False) -> None:
    """Say how many numbers a model holds.

    Example: distk outside report runs/my-run
    """
    model, header = open_model(find_checkpoint(checkpoint), "cpu")
    count = sum(value.numel() for value in model.state_dict().values())
    if json:
        emit_json({"method": header.method, "numbers": count})
    else:
        typer.echo(f"{header.method}: {count:,} numbers")
