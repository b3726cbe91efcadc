"""Every run below a folder, fast: what each run says is kept, and read again only where its files changed.

The index is one JSON file in the cache folder (`$DISTK_CACHE`, see `distk.kept`). It is only a cache: a missing or a
damaged one costs a reading of every run, and where it cannot be written nothing is lost but that time.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distk.errors import DistkError
from distk.files import read_bytes, write_atomic
from distk.kept import cache_folder
from distk.laboratory.records import CHECKPOINT, CONFIG, FILES, JOB, LOG, Record, read, require, state_of
from distk.registry import registry
from distk.version import __version__

FORMAT = 1
DEEPEST = 12
"""Levels below the folder that are looked through."""
Mark = list[Any]
"""Sizes and times of a run's files."""


@dataclass(frozen=True)
class Runs:
    """The runs below a folder, the newest first. headlines: metric -> the key that stands for it in tables."""

    folder: Path
    records: list[Record]
    headlines: Mapping[str, str]


def runs_below(folder: Path) -> Runs:
    """Every run below a folder, each with its state as it is now.

    A run folder is one with a checkpoint, with the job of a study, or with a configuration and a log. Links to folders
    are not followed. Raises DistkError for a folder that is not there.
    """
    require(folder)
    root = folder.resolve()
    file = cache_folder() / f"runs-{hashlib.sha256(str(root).encode('utf-8', 'surrogateescape')).hexdigest()[:24]}.json"
    kept = _kept(file)
    before, runs, records = kept["runs"], dict[str, Any](), list[Record]()
    for name, mark in _found(root):
        held = before.get(name)
        record = _rebuilt(folder / name, held[1]) if held is not None and held[0] == mark else None
        if record is None:
            record = read(folder / name)
            held = [mark, {k: v for k, v in vars(record).items() if k != "path"}]
        runs[name] = held
        records.append(record if record.state == "finished" else dataclasses.replace(record, state=state_of(record)))
    headlines = headlines_of({score.partition(".")[0] for r in records for score in r.scores}, kept["headlines"])
    if runs != before or headlines != kept["headlines"]:
        content = {"format": FORMAT, "version": __version__, "headlines": headlines, "runs": runs}
        with contextlib.suppress(OSError, DistkError):  # without it the next listing takes longer, no more
            file.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(file, json.dumps(content, separators=(",", ":")).encode())
    return Runs(folder, sorted(records, key=lambda r: (-r.changed, str(r.path))), headlines)


def headlines_of(metrics: set[str], known: Mapping[str, str] = {}) -> dict[str, str]:
    """Metric -> its headline, of those that are registered; `known` saves importing what was asked before."""
    registered = {entry.name: entry for entry in registry().entries("metric")}
    found = {name: known[name] for name in sorted(metrics) if name in known and name in registered}
    for name in sorted(metrics & set(registered) - set(found)):
        with contextlib.suppress(DistkError):  # a metric that cannot be imported has no headline to show
            found[name] = str(registered[name].load().headline)
    return found


def folders_below(folder: Path) -> list[Path]:
    """The run folders below a folder, itself among them, in the order of their names."""
    return [folder / name for name, _ in _found(folder)]


def _found(root: Path) -> Iterator[tuple[str, Mark]]:
    """(name below root, mark) of every run folder."""
    waiting: list[tuple[str, int]] = [(str(root), 0)]
    while waiting:
        path, depth = waiting.pop()
        files: dict[str, Any] = {}
        below: list[str] = []
        try:
            with os.scandir(path) as entries:
                for entry in entries:
                    if entry.name in FILES and entry.is_file(follow_symlinks=False):
                        files[entry.name] = entry.stat()
                    elif depth < DEEPEST and not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False):
                        below.append(entry.path)
        except OSError:  # a folder that went away, or that may not be looked into
            continue
        if CHECKPOINT in files or JOB in files or (CONFIG in files and LOG in files):
            mark = [part for name in FILES if name in files for part in (files[name].st_size, files[name].st_mtime_ns)]
            yield os.path.relpath(path, root), [",".join(name for name in FILES if name in files), *mark]
        else:
            waiting += [(each, depth + 1) for each in sorted(below, reverse=True)]


def _kept(file: Path) -> dict[str, Any]:
    """What the index holds; empty where it is of another version or damaged."""
    try:
        found = json.loads(read_bytes(file))
        if (found["format"], found["version"]) == (FORMAT, __version__) and isinstance(found["runs"], dict):
            return {"runs": found["runs"], "headlines": dict(found["headlines"])}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass
    return {"runs": {}, "headlines": {}}


def _rebuilt(path: Path, values: Any) -> Record | None:
    try:
        return Record(path, **values)
    except TypeError:
        return None


def as_columns(records: Sequence[Record]) -> list[str]:
    """The metrics that these runs were scored by, in the order of their names."""
    return sorted({score.partition(".")[0] for record in records for score in record.scores})
