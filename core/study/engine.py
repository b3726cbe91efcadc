"""The engine: a plan becomes jobs, jobs become rows, rows become a report."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distk.console import counted, note, progress
from distk.errors import DistkError, UsageError
from distk.evaluation import metric_settings
from distk.study import job, store, submitted
from distk.study.plan import Plan
from distk.study.protocol import Engine, Row, Site, StudyFailed, StudyRun
from distk.study.recipe import Variant
from distk.study.store import Store
from distk.study.watch import Watch, asked
from distk.training.signals import Interrupted, Stop, stopping

WRITE_EVERY = 2.0
"""Seconds of a runner's rows that a kill may cost."""


def run(
    made: Plan,
    *,
    engine: str = "local",
    settings: Mapping[str, Any] | None = None,
    jobs: int | None = None,
    quiet: bool = False,
) -> list[Row]:
    """Bring a study to its end and write results.csv; returns its rows, those of earlier calls among them.

    settings: of the engine. Raises UsageError before anything is written where the folder holds something else, or
    where the engine's jobs could never run; StudyFailed after the others are done where jobs failed; Interrupted after
    everything is saved where the study was asked to stop.
    """
    if made.runner is None:
        store.sound(made)
        where = submitted.engine(engine, settings or {}, Site(made.out.absolute(), jobs, made.device))
    else:
        where = _here(made, engine, settings)
    with contextlib.closing(where), store.claimed(made) as held:
        stop = Stop()
        (made.out / submitted.REQUEST).unlink(missing_ok=True)
        try:
            with stopping(stop):
                failed: dict[str, str] = {}
                if made.runner is not None:
                    _run_runner(made, held, stop, quiet)
                else:
                    failed = _run_jobs(made, held, engine, where, stop, quiet)
        finally:
            rows = collect(made, held)
            store.write_rows(held.results, rows, store.column_names(made.recipe.columns, bool(made.recipe.select)))
        if stop.signal:
            words = "everything is saved. Give the same command again to go on"
            raise Interrupted(f"stopped; {words}: {counted(len(rows), 'run')} of '{made.out}' are done.", stop.signal)
        if failed:
            raise StudyFailed(_told(failed, len(made.variants) * len(made.seeds)))
        return rows


def _told(failed: Mapping[str, str], total: int) -> str:
    """What failed and why, each reason once."""
    why: dict[str, list[str]] = {}
    for what, reason in failed.items():
        why.setdefault(reason.rstrip("."), []).append(what)
    runs = {
        reason: f"{each[0]} and {len(each) - 1} more" if len(each) > 3 else ", ".join(each)
        for reason, each in why.items()
    }
    return (
        f"{len(failed)} of {counted(total, 'run')} failed."
        f" {'; '.join(f'{whose}: {reason}' for reason, whose in runs.items())}."
    )


# Jobs


def job_of(made: Plan, variant: Variant, seed: int) -> job.Job:
    """What is to be done for one run."""
    settings = made.settings(variant, seed)
    return job.Job(settings.entry.name, settings.to_dict(), rounds(made), bool(made.recipe.select))


def rounds(made: Plan) -> list[dict[str, dict[str, Any]]]:
    """The scores of a run in rounds, in each of which a metric has one set of settings."""
    found: list[dict[str, dict[str, Any]]] = []
    for column in made.recipe.columns:
        if not column.ours:
            continue
        name, options = metric_settings(column.metric, made.options(column))
        if any(each.get(name) == options for each in found):
            continue
        free = next((each for each in found if name not in each), None)
        if free is None:
            found.append({name: options})
        else:
            free[name] = options
    return found


def _run_jobs(made: Plan, held: Store, name: str, engine: Engine, stop: Stop, quiet: bool) -> dict[str, str]:
    """Have an engine do what is not done; what failed, with its reason."""
    record = submitted.load(held.out)
    submitted.none_elsewhere(record, name)
    fresh = submitted.begun(held.out, name, engine)
    fresh.jobs = record.jobs if record.engine == fresh.engine else {}
    watch = Watch(engine, fresh, stop, quiet)
    for variant in made.variants:
        for seed in made.seeds:
            folder, wanted = held.run_folder(variant.label, seed).absolute(), job_of(made, variant, seed)
            wanted.write(folder)
            if job.done(folder, wanted) is None:
                watch.todo[folder], watch.last[folder] = f"{variant.label}, seed {seed}", wanted.steps
    return watch.run(len(made.variants) * len(made.seeds))


# Runners


def _here(made: Plan, engine: str, settings: Mapping[str, Any] | None) -> Engine:
    """The engine for a runner, which yields its rows in this process. Raises UsageError for any but `local`."""
    found = submitted.engine(engine, settings or {}, Site(made.out.absolute(), None, "cpu"))
    if not found.here:
        found.close()
        raise UsageError(
            f"study '{made.recipe.name}' makes its rows in one process on this machine: leave --engine {engine} away."
        )
    return found


def _run_runner(made: Plan, held: Store, stop: Stop, quiet: bool) -> None:
    """Take a runner's rows as they come."""
    rows = {(row["variant"], row["seed"]): row for row in store.read_rows(held.results)}
    labels = [v.label for v in made.variants]
    study = StudyRun(
        variants=made.variants,
        seeds=made.seeds,
        settings={v.label: made.runner_settings(v) for v in made.variants},
        done=frozenset(rows),
        out=held.out,
        device=made.device,
        stop=stop,
        resolve=made.settings,
        data=made.recipe.data,
        train=made.recipe.train,
    )
    if not quiet:
        note(f"{len(study.todo())} of {counted(len(labels) * len(made.seeds), 'row')} to do")
    names = [c.name for c in made.recipe.columns]
    written = time.monotonic()
    try:
        with progress("rows", len(study.todo()), 0, quiet) as advance:
            for row in made.runner(study):
                if labels and row.get("variant") not in labels:
                    raise DistkError(
                        f"the runner '{made.recipe.runner}' gave a row of '{row.get('variant')}', no variant."
                    )
                rows.setdefault((row["variant"], row["seed"]), row)
                advance(1)
                if time.monotonic() - written > WRITE_EVERY:
                    store.write_rows(held.results, list(rows.values()), names)
                    written = time.monotonic()
                asked(made.out, stop)
                if stop.signal:
                    break
    finally:
        store.write_rows(held.results, list(rows.values()), names)


# Rows


def collect(made: Plan, held: Store) -> list[Row]:
    """All rows of a study's folder, in the order of its variants and seeds."""
    if made.runner is not None:
        order = list(held.variants)
        rows = store.read_rows(held.results)
        return sorted(
            rows, key=lambda r: (order.index(r["variant"]) if r["variant"] in order else len(order), r["seed"])
        )
    return [
        row
        for label in held.variants
        for seed in held.seeds
        if (row := row_of(made, held.run_folder(label, seed), label, seed)) is not None
    ]


def row_of(made: Plan, folder: Path, label: str, seed: int) -> Row | None:
    """The row of one run, None where it is not done."""
    if not (folder / job.FILE).exists():
        return None
    scores = job.done(folder, job.read(folder))
    if scores is None:
        return None
    row: Row = {"variant": label, "seed": seed}
    selects = bool(made.recipe.select)
    for column in made.recipe.columns:
        if not column.ours:
            continue
        name, options = metric_settings(column.metric, made.options(column))
        for state, heading in (("selected" if selects else "last", column.name), ("last", f"{column.name} (last)")):
            result: Mapping[str, Any] = scores.get(state, {}).get(job.mark(name, options), {})
            value = result.get(column.key)
            if heading == column.name or selects:
                row[heading] = None if value is None else value * column.times
    return row


def reasons(made: Plan, held: Store) -> list[str]:
    """Why cells are empty, a sentence for each reason that variants have in common."""
    empty: dict[str, dict[str, list[str]]] = {}  # reason -> variant -> columns
    for label in held.variants if made.runner is None else ():
        for seed in held.seeds:
            folder = held.run_folder(label, seed)
            scores = job.done(folder, job.read(folder)) if (folder / job.FILE).exists() else None
            for column in made.recipe.columns:
                if scores is None or not column.ours:
                    continue
                name, options = metric_settings(column.metric, made.options(column))
                state = "selected" if made.recipe.select else "last"
                result = scores.get(state, {}).get(job.mark(name, options), {})
                if result.get(column.key) is None:
                    why = (
                        result.get("error")
                        or result.get("reasons", {}).get(column.key)
                        or "the metric gives no such number"
                    )
                    columns = empty.setdefault(str(why).rstrip("."), {}).setdefault(label, [])
                    if column.name not in columns:
                        columns.append(column.name)
    return [f"{what}: {why}." for why, cells in empty.items() for what in _cells(cells)]


def _cells(empty: Mapping[str, list[str]]) -> list[str]:
    """Variants with the columns that are empty for them, those with the same columns together."""
    alike: dict[tuple[str, ...], list[str]] = {}
    for label, columns in empty.items():
        alike.setdefault(tuple(columns), []).append(label)
    return [
        f"{', '.join(columns)} {'is' if len(columns) == 1 else 'are'} empty for {'; '.join(labels)}"
        for columns, labels in alike.items()
    ]
