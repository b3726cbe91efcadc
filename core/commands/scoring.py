"""What `distk eval` does: scores of a trained model or of a file of codes, written, drawn and shown."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from distk import console
from distk.asked import Asked, asked
from distk.cachedcodes import codes_cache
from distk.codefile import table_from_arrays
from distk.commands.scorefiles import subject_of, target_of, written
from distk.commands.scoretable import show
from distk.commands.shared import UNFIT, OnRows, require, titled, written_to
from distk.device import choose_device
from distk.errors import DistkError, UsageError
from distk.evaluation import check_options, own_words
from distk.evaluation import evaluate as score
from distk.metric import CodeTable, Picture
from distk.registry import registry
from distk.results import read


@dataclass(frozen=True)
class File:
    """A file of codes; factors: names of their columns, or a file of them. columns: names of the codes, or None."""

    path: Path
    factors: str | None
    columns: str | None


def run(
    on: OnRows,
    texts: list[str],
    own: dict[str, Any],
    settings: dict[str, Any],
    *,
    file: File | None,
    rows: int | None,
    fit: str | None,
    plots: bool | None,
    strict: bool,
) -> None:
    """Score, write, draw and show. texts: metrics as they were typed; own: settings of theirs; settings: for all."""
    wanted = asked(texts)
    if taken := sorted(own_words() & own.keys()):
        told = f"for a metric's setting of that name write --set METRIC.{taken[0]}=VALUE."
        raise UsageError(f"'{taken[0]}' is an option of `distk eval` itself, --{taken[0]}; {told}")
    check_options(list(dict.fromkeys(one.metric for one in wanted)), own)
    settings = {**settings, **own}
    codes = None if file is None else file.path
    if on.out is not None:
        on.out = written_to(on.out, f"{codes.stem if codes is not None else 'checkpoint'}.eval.json")
    if file is None:
        results = _of_model(on, rows, fit, wanted, texts, settings)
    else:
        if fit is not None:
            raise UsageError("--fit names a split to encode; rows to test on stand in the file as codes_test.")
        results = {on.split: score(_table(on, file, rows), texts, seed=on.seed, **settings)}
    path = codes if codes is not None else on.path
    subject = subject_of(on, codes)
    drawn: dict[str, dict[str, Picture]] = {}
    unwritten: DistkError | None = None
    for split, result in results.items():
        subject_words = _subject(on, codes, split, result)
        drawn[split] = {} if plots is False else _drawn(result["metrics"], subject_words)
        result["provenance"] = {**subject, **result["provenance"]}
        named = {"checkpoint": str(path), **result}
        try:
            target = target_of(on, codes, split, len(results) > 1)
            scored = any("error" not in values for values in result["metrics"].values())
            if target is not None and (scored or target.exists()):  # a file of nothing but reasons helps nobody
                named = written(target, named, subject, drawn[split], both=bool(plots))
        except DistkError as error:  # the figures are shown all the same
            unwritten = error
        results[split] = named
    if on.json:
        console.emit_json(results[on.split] if len(results) == 1 else {"checkpoint": str(path), "splits": results})
    else:
        show(results, drawn if plots else {}, every="all" in texts)
    if unwritten is not None:
        raise unwritten
    _exit_code([values for result in results.values() for values in result["metrics"].values()], strict)


def _table(on: OnRows, file: File, rows: int | None) -> CodeTable:
    """The table of a file of codes."""
    if on.checkpoint is not None:
        raise UsageError("give a checkpoint or --codes, not both.")
    if on.data or on.data_dir or rows or on.split != "all":
        raise UsageError("--data, --data-dir, --split and --rows choose what to encode; --codes is encoded already.")
    if on.out is not None:
        read(on.out)
    columns = None if file.columns is None else [file.columns]
    return table_from_arrays(file.path, choose_device(on.device), columns=columns, factors=file.factors)


def _of_model(
    on: OnRows, rows: int | None, fit: str | None, wanted: list[Asked], texts: list[str], settings: dict[str, Any]
) -> dict[str, dict[str, Any]]:
    """Scores of a trained model by split, a split's table of codes cached. All splits are looked up first."""
    on.open()
    if all(_reads_codes(one.metric) for one in wanted):
        require(on.model, on.header, "eval", "encode")
    data = on.dataset()
    splits = list(dict.fromkeys(on.split.split(",")))
    for split in [*splits, *([fit] if fit is not None else []), *(one.split for one in wanted if one.split)]:
        data.rows(split)
    for split in splits:  # a file of something else is noticed before the work
        if (target := target_of(on, None, split, len(splits) > 1)) is not None:
            read(target)
    results = {}
    for split in splits:
        own = f"-{split}" if len(splits) > 1 else ""
        cache = codes_cache(on.path, own)
        results[split] = score(
            on.model, texts, data=data, split=split, fit=fit, rows=rows, seed=on.seed, cache=cache, **settings
        )
    return results


def _reads_codes(name: str) -> bool:
    cls = registry().loaded("metric", name)
    return cls is None or bool(cls.needs_codes)  # what cannot be loaded will be a row with its reason


def _subject(on: OnRows, codes: Path | None, split: str, result: dict[str, Any]) -> str:
    """What pictures of these scores say of what was scored."""
    if codes is not None:
        return f"codes of {codes.name}"
    told_of = result["provenance"]
    return titled(on.header, f"{told_of.get('data')}, {split} split" if split != "all" else str(told_of.get("data")))


def _drawn(results: dict[str, Any], subject: str) -> dict[str, Picture]:
    """The pictures of all metrics, by "metric.picture"."""
    drawn: dict[str, Picture] = {}
    for name, values in results.items():
        if "error" not in values:
            pictures = (
                registry().find("metric", values.get("metric", name)).load().pictures({**values, "subject": subject})
            )
            drawn |= {f"{UNFIT.sub('-', name)}.{key}": picture for key, picture in pictures.items()}
    return drawn


def _exit_code(results: list[dict[str, Any]], strict: bool) -> None:
    failed = ["error" in values for values in results]
    if any(failed) and (strict or all(failed)):
        raise typer.Exit(1)
