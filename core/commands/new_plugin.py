"""`distk new-plugin`."""

from __future__ import annotations

import importlib.util
import keyword
import re
from pathlib import Path
from typing import Annotated

import typer

from distk import console
from distk.commands import plugin_template
from distk.commands.arguments import Json
from distk.errors import DistkError, UsageError
from distk.files import write_atomic
from distk.registry import registry


def new_plugin(
    name: Annotated[str, typer.Argument(help="Name of the plugin: lower case, words joined by dashes.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder of the project; default: ./NAME.", show_default=False)
    ] = None,
    json: Json = False,
) -> None:
    """Write a plugin of its own distribution: a method, a data set, a metric, a command and their tests.

    Example: distk new-plugin acme

    Then `pip install -e acme` makes it known, and `distk check --plugin acme` tries all that it brings.
    """
    _usable(name)
    folder = out if out is not None else Path(name)
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise UsageError(f"'{folder}' exists already: name another folder with --out.")
    made = plugin_template.files(name)
    for path, content in made.items():
        target = folder / path
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DistkError(f"cannot create '{target.parent}': {error.strerror or error}.") from error
        write_atomic(target, content.encode())
    if json:
        console.emit_json({"folder": str(folder), "files": list(made)})
        return
    for path in made:
        console.say(folder / path)
    console.note(f"next: pip install -e {folder} && distk check --plugin {name} && distk train {name}-vae")


def _usable(name: str) -> None:
    """Raises UsageError for a name that is no package name, or one that something else already has."""
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name) or len(name) > 50:
        raise UsageError(
            f"'{name}' is not a valid plugin name: use lower-case letters and digits, words joined by dashes."
        )
    package = name.replace("-", "_")
    if keyword.iskeyword(package):
        raise UsageError(f"'{name}' is a word of the Python language: choose another name.")
    if name in registry().plugins:
        raise UsageError(f"there is a {registry().plugins[name]} already: choose another name.")
    if importlib.util.find_spec(package) is not None:
        raise UsageError(f"there is a Python package '{package}' already: choose another name.")
