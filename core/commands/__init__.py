"""The generic commands, one file each, registered through the same hook that plugins use.

Nothing here or at the top of the files beside imports torch, so that `distk --help` stays instant.
"""

import importlib

import typer

from distk.hookspecs import hookimpl

_FILES = (
    "train",
    "evaluate",
    "traverse",
    "reconstruct",
    "sample",
    "swap",
    "transfer",
    "info",
    "listing",
    "data",
    "check",
    "new_plugin",
)


@hookimpl
def distk_register_commands(app: typer.Typer) -> None:
    for name in _FILES:
        importlib.import_module(f"distk.commands.{name}").add(app)
