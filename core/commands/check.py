"""`distk check`: the conformance checks of `distk.testing` on anything that a plugin registered."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from distk import console
from distk.commands.arguments import Json
from distk.config import assignments
from distk.errors import DistkError, UsageError, unknown
from distk.registered import Registration, canonical
from distk.registry import registry

if TYPE_CHECKING:
    from distk.metric import CodeTable
    from distk.testing import Check

KINDS = ("method", "dataset", "metric", "penalty")


def check(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[METHOD|DATASET|METRIC|PENALTY]...", help="Registered names.")
    ] = None,
    plugin: Annotated[
        str | None, typer.Option(help="Everything that this plugin or distribution registered.", show_default=False)
    ] = None,
    kind: Annotated[
        str | None, typer.Option(help="Only this kind (method, dataset, metric, penalty), where a name is several.")
    ] = None,
    data: Annotated[
        str | None, typer.Option("--data", help="Data set to train a method on; default: the method's own.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="A setting of the method, NAME=VALUE, or of its data, data.NAME=VALUE."),
    ] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Folder of a data set's own files.")] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Checkpoint or run to score, for a metric that needs a certain model.")
    ] = None,
    rows: Annotated[int, typer.Option(help="Items of --checkpoint's data to encode.", min=1)] = 256,
    steps: Annotated[int, typer.Option(help="Steps of a method's checks.", min=2)] = 3,
    batch: Annotated[int, typer.Option(help="Batch size of a method's checks.", min=1)] = 8,
    json: Json = False,
) -> None:
    """Run the conformance checks on methods, data sets, metrics, penalties. Exit code 1 if one fails or none was made.

    Example: distk check cascadevae dsprites mig
    """
    entries = _named(names or [], plugin, kind)
    table = _table(checkpoint, rows)
    settings = assignments(set_ or [], "model", ["data"])
    made_checks: list[tuple[Registration, str, Check]] = []
    for entry, name in entries:
        console.note(f"{entry.kind} {name}, {entry.owner}")
        for made in _checks(entry, name, data, settings, data_dir, table, steps, batch):
            made_checks.append((entry, name, made))
    failed = sum(bool(made.problem) for *_, made in made_checks)
    skipped = sum(bool(made.skipped) for *_, made in made_checks)
    passed = len(made_checks) - failed - skipped
    if json:
        checks = [
            {
                "kind": entry.kind,
                "name": name,
                "plugin": entry.plugin,
                "distribution": entry.distribution,
                "check": made.name,
                "result": "failed" if made.problem else "skipped" if made.skipped else "passed",
                "reason": made.problem or made.skipped,
            }
            for entry, name, made in made_checks
        ]
        console.emit_json({"checks": checks, "passed": passed, "failed": failed, "skipped": skipped})
    else:
        shown = [(entry.kind, name, made.name, _result(made)) for entry, name, made in made_checks]
        console.table("", ("kind", "name", "check", "result"), shown)
        console.note(f"{passed} passed, {failed} failed, {skipped} skipped")
    if failed or not passed:
        raise typer.Exit(1)


def _result(made: Check) -> str:
    return made.problem or (f"skipped: {made.skipped}" if made.skipped else "passed")


def _named(names: list[str], plugin: str | None, kind: str | None) -> list[tuple[Registration, str]]:
    """What is to be checked, each with the name it was called by (`data:variant`)."""
    if kind is not None and kind not in KINDS:
        raise unknown("kind", kind, KINDS)
    if bool(names) == (plugin is not None):
        raise UsageError("name methods, data sets, metrics or penalties to check, or a plugin with --plugin.")
    kinds = [kind] if kind else list(KINDS)
    if plugin is not None:
        return _of_plugin(plugin, kinds)
    found = []
    for name in names:
        here = [k for k in kinds if _claimed(k, name.partition(":")[0] if k == "dataset" else name)]
        if not here:
            known = {n for k in kinds for e in registry().entries(k) for n in (e.name, *e.aliases)}
            raise unknown(" or ".join(kinds), name, known)
        for k in here:
            entry = registry().find(k, name.partition(":")[0] if k == "dataset" else name)
            found.append((entry, name if k == "dataset" else entry.name))
    return found


def _claimed(kind: str, name: str) -> bool:
    return any(name in (entry.name, *entry.aliases) for entry in registry().entries(kind))


def _of_plugin(plugin: str, kinds: list[str]) -> list[tuple[Registration, str]]:
    """Everything of one plugin. Raises DistkError for one that is unknown, not in use, or registers nothing."""
    wanted = canonical(plugin)
    plugins = [p for p in registry().plugins.values() if wanted in (canonical(p.name), canonical(p.distribution))]
    if not plugins:
        raise unknown("plugin", plugin, registry().plugins)
    for chosen in plugins:
        if chosen.error:
            raise DistkError(f"{chosen} is not in use: {chosen.error}.")
    names = {p.name for p in plugins}
    found = [(entry, entry.name) for k in kinds for entry in registry().entries(k) if entry.plugin in names]
    if not found:
        raise DistkError(f"{plugins[0]} registers no {', '.join(kinds)}.")
    return found


def _table(checkpoint: Path | None, rows: int) -> CodeTable | None:
    """Codes of a trained model, for the metrics."""
    if checkpoint is None:
        return None
    from distk.models import open_model
    from distk.run import find_checkpoint
    from distk.testing import model_table

    model, _ = open_model(find_checkpoint(checkpoint))
    return model_table(model, model.dataset(), rows)


def _checks(
    entry: Registration,
    name: str,
    data: str | None,
    settings: dict[str, dict[str, Any]],
    data_dir: Path | None,
    table: CodeTable | None,
    steps: int,
    batch: int,
) -> list[Check]:
    from distk import testing

    if entry.kind == "dataset":
        return testing.dataset_checks(name, data_dir)
    if entry.kind == "metric":
        return testing.metric_checks(name, table)
    if entry.kind == "penalty":
        return testing.penalty_checks(name)
    folder = {"dir": str(data_dir)} if data_dir is not None else {}
    chosen = {**({"name": data} if data is not None else {}), **folder, **settings.get("data", {})}
    return testing.method_checks(name, steps, batch, model=settings.get("model", {}), data=chosen)
