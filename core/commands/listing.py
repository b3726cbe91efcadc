"""`distk list` and `distk plugins`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from distk import console
from distk.commandline import collect_apps
from distk.commands.arguments import Json
from distk.errors import DistkError, UsageError, unknown
from distk.meaning import Number
from distk.papers import KINDS
from distk.registered import Registration
from distk.registry import PLURALS, registry


def list_(
    what: Annotated[
        str | None, typer.Argument(help="methods, datasets, metrics, penalties, studies or engines; default: all.")
    ] = None,
    tag: Annotated[str | None, typer.Option(help="Only entries with this tag.")] = None,
    numbers: Annotated[
        bool, typer.Option("--numbers", help="What each number of the metrics means, best direction and chance first.")
    ] = False,
    long: Annotated[bool, typer.Option("--long", "-l", help="Also the paper, the tags and the plugin.")] = False,
    json: Json = False,
) -> None:
    """List methods, data sets, metrics, penalties, studies and engines of all plugins.

    Example: distk list methods --tag vae
    Example: distk list datasets --long
    Example: distk list metrics --numbers
    """
    plural = {plural: kind for kind, plural in PLURALS.items()}
    if what is not None and what not in plural and what not in KINDS:
        raise unknown("list", what, plural)
    kinds = [plural.get(what, what)] if what else list(KINDS)
    if numbers:
        if what not in (None, "metric", "metrics"):
            raise UsageError("--numbers belongs to metrics: write distk list metrics --numbers.")
        _numbers([e for e in registry().entries("metric") if tag is None or tag in e.tags], json)
        return
    chosen = {kind: [e for e in registry().entries(kind) if tag is None or tag in e.tags] for kind in kinds}
    if json:
        keys = ("name", "summary", "paper", "tags", "aliases", "plugin", "distribution", "version")
        console.emit_json({k: [{key: getattr(e, key) for key in keys} for e in v] for k, v in chosen.items()})
        return
    for kind, entries in chosen.items():
        if not entries and not what:
            continue
        if long:
            rows = [
                (
                    e.name,
                    e.summary,
                    e.paper,
                    ", ".join(e.tags),
                    e.plugin if e.distribution == "distk" else e.distribution,
                )
                for e in entries
            ]
            console.table(PLURALS[kind], ("name", "what", "paper", "tags", "from"), rows)
        else:
            console.say(PLURALS[kind], "bold")
            console.lines([(e.name, e.summary) for e in entries])
        console.say()
    if not long:
        console.note("more on each: distk list --long; on one: distk train METHOD --help, distk data NAME")


def _numbers(entries: Sequence[Registration], json: bool) -> None:
    """Every number of every metric that can be imported, the headline of each first."""
    told: dict[str, dict[str, Number]] = {}
    for entry in entries:
        try:
            cls = entry.load()
        except DistkError as error:
            console.warn(str(error))
            continue
        first = cls.meaning(cls.headline)
        told[entry.name] = {cls.headline: first, **{k: n for k, n in cls.numbers.items() if k != cls.headline}}
    if json:
        console.emit_json({name: {key: n.plain() for key, n in held.items()} for name, held in told.items()})
        return
    rows = [
        (name, key, n.better, n.range, n.unit, "" if n.chance is None else n.chance, n.source)
        for name, held in told.items()
        for key, n in held.items()
    ]
    console.table("", ("metric", "number", "better", "range", "unit", "chance", "source"), rows)


ORDER = ("paper", *KINDS, "command", "logger", "hook")
"""Kinds in the order in which `distk plugins` shows them; any other comes after."""


def plugins(json: Json = False) -> None:
    """List the plugins that were found, what each brings by name, and what is wrong with those that are not in use.

    Example: distk plugins
    """
    collect_apps(warn=False)
    found = list(registry().plugins.values())
    if json:
        console.emit_json({"plugins": [vars(plugin) for plugin in found], "problems": registry().problems})
        return
    for plugin in found:
        console.say(f"{plugin.name}  {plugin.distribution} {plugin.version}", "bold")
        kinds = [*(k for k in ORDER if k in plugin.provides), *(k for k in plugin.provides if k not in ORDER)]
        rows = [(PLURALS.get(kind, f"{kind}s"), ", ".join(plugin.provides[kind])) for kind in kinds]
        if plugin.error:
            rows = [("not in use", plugin.error)]
        if rows:
            console.listing(rows)
    for problem in registry().problems:
        console.warn(problem)


def studies(json: Json = False) -> None:
    """List the studies of all plugins.

    Example: distk study list
    """
    entries = registry().entries("study")
    if json:
        keys = ("name", "summary", "paper", "path", "runner", "plugin", "distribution", "version")
        console.emit_json({"studies": [{key: getattr(e, key) for key in keys} for e in entries]})
    elif entries:
        console.table("", ("name", "what", "paper", "from"), [(e.name, e.summary, e.paper, e.plugin) for e in entries])
    else:
        console.note("no plugin brings a study")
