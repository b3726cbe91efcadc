"""A study's folder: what was asked for, the runs, the results.

study.json     the settings of every variant, the seeds, the scale
recipe.toml    the recipe as it was when the study last ran
results.csv    a row per run
summary.csv    mean, standard deviation, runs, best and the published figure, a row per variant and column
runs/VARIANT/sSEED/   ordinary run folders, each with job.json and scores.json
"""

from __future__ import annotations

import contextlib
import csv
import fcntl
import io
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from distk.errors import DistkError, UsageError
from distk.files import own_file, read_text, write_atomic
from distk.study.plan import Plan, differences, folders
from distk.study.protocol import Row
from distk.study.recipe import Column
from distk.study.tables import rows_as_csv

FORMAT = 1
FILE = "study.json"
LOOK = 0.3
"""Seconds after which a lock is tried once more: `distk study status` holds it for a moment."""


@dataclass
class Store:
    """A study's folder as study.json describes it. variants: label -> sections. folders: label -> name below runs/.

    registered: the study whose runner and judge serve it, or empty. conditions: label -> in what the variant differs
    from those that ran with it (`plan.differences`).
    """

    out: Path
    study: str
    registered: str = ""
    scale: str = ""
    sets: list[str] = field(default_factory=list)
    seeds: list[int] = field(default_factory=list)
    variants: dict[str, Any] = field(default_factory=dict)
    folders: dict[str, str] = field(default_factory=dict)
    conditions: dict[str, Any] = field(default_factory=dict)

    def run_folder(self, label: str, seed: int) -> Path:
        """Where one run lies."""
        return self.out / "runs" / self.folders[label] / f"s{seed}"

    @property
    def results(self) -> Path:
        """The table of all runs."""
        return self.out / "results.csv"

    def save(self, recipe: str) -> None:
        """Write study.json and recipe.toml."""
        kept = {k: v for k, v in vars(self).items() if k != "out"}
        write_atomic(self.out / FILE, (json.dumps({"format": FORMAT, **kept}, indent=1) + "\n").encode())
        write_atomic(self.out / "recipe.toml", recipe.encode())


def load(out: Path) -> Store:
    """The study of a folder. Raises DistkError for a folder without one, or a damaged study.json."""
    file = out / FILE
    if not file.is_file():
        raise DistkError(f"'{out}' holds no study: `distk study run NAME --out {out}` makes one.")
    try:
        found = json.loads(read_text(file))
        if found.pop("format") != FORMAT:
            raise ValueError("another format")
        store = Store(out, **found)
        texts = [store.study, store.registered, store.scale, *store.sets, *store.folders.values(), *store.folders]
        sound = all(isinstance(t, str) for t in texts) and all(type(s) is int for s in store.seeds)
        inside = all("/" not in name and name not in ("", ".", "..") for name in store.folders.values())
        lines = all(isinstance(line, dict) and "variant" in line for line in store.conditions.values())
        if not (sound and inside and lines and isinstance(store.variants, dict)):
            raise ValueError("wrong values")
        if set(store.folders) != set(store.variants):
            raise ValueError("wrong values")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DistkError(f"'{file}' is damaged ({type(error).__name__}: {error}).") from error
    return store


@contextlib.contextmanager
def claimed(made: Plan) -> Iterator[Store]:
    """The study's folder, made or taken up again, and held until the end.

    Raises UsageError where it holds something else, another study, or this one under other settings, and DistkError
    where another process works in it.
    """
    out = made.out
    sound(made)
    lock = _lock(out)
    try:
        store = _agreed(made, load(out) if (out / FILE).exists() else None)
        store.save(made.recipe.text)
        yield store
    finally:
        lock.close()


def sound(made: Plan) -> None:
    """Raise UsageError where the folder of a study is a file or holds something else."""
    out = made.out
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out '{out}' is a file, not a folder.")
    taken = out.is_dir() and not (out / FILE).exists() and any(p.name != ".lock" for p in out.iterdir())
    if taken:
        raise UsageError(f"'{out}' holds something else than a study: give another --out.")


def _lock(out: Path) -> IO[str]:
    try:
        out.mkdir(parents=True, exist_ok=True)
        held = open(out / ".lock", "a", opener=own_file)  # noqa: SIM115 (held until the study ends)
        try:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(LOOK)
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            held.close()
            raise
    except BlockingIOError:
        raise DistkError(f"another process is running the study in '{out}'.") from None
    except OSError as error:
        raise DistkError(f"cannot write to '{out}': {error.strerror or error}; choose another --out.") from error
    return held


def _agreed(made: Plan, before: Store | None) -> Store:
    """What the folder holds from now on; variants and seeds of earlier calls stay."""
    recipe = made.recipe
    registered = made.entry.name if made.entry is not None else ""
    wanted = json.loads(json.dumps({v.label: made.sections(v) for v in made.variants}))
    if before is None:
        before = Store(made.out, recipe.name)
    elif before.study != recipe.name:
        raise UsageError(f"'{made.out}' holds study '{before.study}', not '{recipe.name}': give another --out.")
    for label, sections in wanted.items():
        _same(made.out, label, before.variants.get(label, sections), sections)
    variants = {**wanted, **{k: v for k, v in before.variants.items() if k not in wanted}}
    named = folders(list({**before.folders, **dict.fromkeys(wanted)}))
    return Store(
        made.out,
        recipe.name,
        registered,
        recipe.scale,
        list(recipe.sets),
        sorted({*before.seeds, *made.seeds}),
        variants,
        {label: before.folders.get(label, named[label]) for label in variants},
        {**before.conditions, **{line["variant"]: line for line in json.loads(json.dumps(differences(made)))}},
    )


def _same(out: Path, label: str, held: Any, asked: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise UsageError unless a variant was run with these settings before."""
    for section in {**held, **asked}:
        before, now = held.get(section, {}), asked.get(section, {})
        for key in sorted({*before, *now}):
            if before.get(key) != now.get(key):
                raise UsageError(
                    f"'{out}' holds '{label}' with {section}.{key} = {_shown(before.get(key))}, and "
                    f"{_shown(now.get(key))} is asked for: give another --out."
                )


def _shown(value: Any) -> str:
    return "nothing" if value is None else json.dumps(value)


# Rows


def write_rows(path: Path, rows: Sequence[Row], columns: Sequence[str]) -> None:
    """results.csv: variant, seed, these columns, and what else the rows have; an undefined number is an empty cell."""
    extra = dict.fromkeys(k for row in rows for k in row)
    header = list(dict.fromkeys(["variant", "seed", *columns, *extra]))
    write_atomic(path, rows_as_csv([{k: _cell(row.get(k)) for k in header} for row in rows], header))


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return float(value)
    undefined = value is None or (isinstance(value, float) and not math.isfinite(value))
    return "" if undefined else value


def read_rows(path: Path) -> list[Row]:
    """The rows of results.csv, numbers as numbers; empty without the file. Raises DistkError for a damaged one."""
    if not path.exists():
        return []
    try:
        lines = list(csv.DictReader(io.StringIO(read_text(path))))
        return [{k: _value(k, v) for k, v in line.items() if v != ""} for line in lines]
    except (OSError, ValueError, TypeError, AttributeError, csv.Error) as error:
        raise DistkError(f"'{path}' is no table of results ({type(error).__name__}).") from error


def _value(key: str, text: str) -> Any:
    if key == "seed":
        return int(text)
    try:
        return text if key == "variant" else float(text)
    except ValueError:
        return text


def column_names(columns: Sequence[Column], selects: bool) -> list[str]:
    """The headings that are filled: with [select] each also as of the last step."""
    filled = [c.name for c in columns if c.ours]
    return [name for c in filled for name in ((c, f"{c} (last)") if selects else (c,))]
