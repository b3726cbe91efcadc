"""`distk list` and `distk plugins`."""

from __future__ import annotations

from typing import Annotated

import typer

from distk.commands.arguments import Json
from distk.errors import unknown
from distk.registry import KINDS, registry

PLURALS = {
    "method": "methods",
    "dataset": "datasets",
    "metric": "metrics",
    "penalty": "penalties",
    "study": "studies",
    "engine": "engines",
}


def list_(
    what: Annotated[
        str | None, typer.Argument(help="methods, datasets, metrics, penalties, studies or engines; default: all.")
    ] = None,
    tag: Annotated[str | None, typer.Option(help="Only entries with this tag.")] = None,
    json: Json = False,
) -> None:
    """List methods, data sets, metrics, penalties, studies and engines of all plugins.

    Example: distk list methods --tag vae
    """
    from distk import console

    plural = {plural: kind for kind, plural in PLURALS.items()}
    if what is not None and what not in plural and what not in KINDS:
        raise unknown("list", what, plural)
    kinds = [plural.get(what, what)] if what else list(KINDS)
    chosen = {kind: [e for e in registry().entries(kind) if tag is None or tag in e.tags] for kind in kinds}
    if json:
        keys = ("name", "summary", "paper", "tags", "aliases", "plugin", "distribution", "version")
        console.emit_json({k: [{key: getattr(e, key) for key in keys} for e in v] for k, v in chosen.items()})
        return
    for kind, entries in chosen.items():
        if entries or what:
            rows = [
                (e.name, e.summary, e.paper, e.plugin if e.distribution == "distk" else e.distribution) for e in entries
            ]
            console.table(PLURALS[kind], ("name", "what", "paper", "from"), rows)
            console.out.print()


def plugins(json: Json = False) -> None:
    """List the plugins that were found, what they provide, and what is wrong with those that are not in use.

    Example: distk plugins
    """
    from distk import console

    found = list(registry().plugins.values())
    if json:
        console.emit_json({"plugins": [vars(p) for p in found], "problems": registry().problems})
        return
    rows = []
    for plugin in found:
        provides = "; ".join(
            f"{len(n)} {k if len(n) == 1 else PLURALS.get(k, k + 's')}" for k, n in plugin.provides.items()
        )
        rows.append((plugin.name, f"{plugin.distribution} {plugin.version}", plugin.error or provides or "commands"))
    console.table("", ("plugin", "distribution", "provides"), rows)
    for problem in registry().problems:
        console.warn(problem)
