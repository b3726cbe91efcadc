"""The run folder: config.toml, log.jsonl, samples/, checkpoint.safetensors, best.safetensors."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from distk.config import in_utf8
from distk.console import counted, jsonable, warn
from distk.errors import DistkError, UsageError, near
from distk.files import own_file, own_folder, read_text, sweep, write_atomic

RUNS = Path("runs")


class Run:
    """A run and its folder; wherever a path of a run is taken, a `Run` is, too.

    path: the folder. config: the sections method, model, data, train as plain values.
    """

    def __init__(self, path: Path, config: dict[str, Any]) -> None:
        self.path, self.config = path, config
        self._lock: IO[str] | None = None
        self._log: IO[str] | None = None
        self.started = time.monotonic()

    def __fspath__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        return f"Run('{self.path}', {self.config['method']})" if "method" in self.config else f"Run('{self.path}')"

    @property
    def checkpoint(self) -> Path:
        """The newest checkpoint of this run."""
        return self.path / "checkpoint.safetensors"

    @property
    def best(self) -> Path:
        """The best checkpoint by the metric of `--keep`, where one was asked for."""
        return self.path / "best.safetensors"

    @property
    def log(self) -> list[dict[str, Any]]:
        """The rows of log.jsonl, without a last one that a killed process left half written.

        Raises DistkError where that is no file of rows.
        """
        try:
            return self._sound_rows()
        except OSError as error:
            raise DistkError(f"cannot read '{self.path / 'log.jsonl'}': {error.strerror or error}.") from error

    def lock(self) -> None:
        """Create the folder and hold a lock, so that two processes cannot write one run.

        Raises DistkError when the folder cannot be written or another process is using it.
        """
        if self._lock is not None:
            return
        try:
            own_folder(self.path / "samples")
            held = open(self.path / ".lock", "a", opener=own_file)  # noqa: SIM115 (held until close())
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                held.close()
                raise
        except BlockingIOError:
            raise DistkError(f"run folder '{self.path}' is in use by another process.") from None
        except OSError as error:
            raise DistkError(
                f"cannot write to run folder '{self.path}': {error.strerror or error}; choose another --out."
            ) from error
        self._lock = held
        sweep(self.path, ("checkpoint.safetensors", "best.safetensors", "log.jsonl", "config.toml"))
        sweep(self.path / "samples", ("*",))

    def open(self, resume_at: int | None = None) -> None:
        """Lock the folder and open its log.

        resume_at: drop log rows of later steps, which a killed run may have left.
        Raises DistkError as `lock`, and UsageError when a new run finds that the folder holds one.
        """
        self.lock()
        try:
            if resume_at is None:
                _refuse_taken(self.path)  # under the lock: another process may have come first
            else:
                kept = [row for row in self._sound_rows() if row["step"] <= resume_at]
                text = "".join(json.dumps(jsonable(row), allow_nan=False) + "\n" for row in kept)
                write_atomic(self.path / "log.jsonl", text.encode())
            self._log = self._open_log()
        except UsageError:
            self.close()
            raise
        except OSError as error:
            self.close()
            raise DistkError(f"cannot write to run folder '{self.path}': {error.strerror or error}.") from error

    def _open_log(self) -> IO[str]:
        return open(self.path / "log.jsonl", "a", encoding="utf-8", opener=own_file)

    def _sound_rows(self) -> list[dict[str, Any]]:
        rows = []
        with contextlib.suppress(FileNotFoundError):
            for line in read_text(self.path / "log.jsonl").splitlines():
                with contextlib.suppress(ValueError, RecursionError):  # a killed process may have cut off the last one
                    rows.append(json.loads(line))
        return [row for row in rows if isinstance(row, dict) and isinstance(row.get("step"), int)]

    def write_row(self, step: int, values: dict[str, Any]) -> None:
        """Append one row to log.jsonl. Raises DistkError when the disk is full."""
        assert self._log is not None
        row = jsonable({"step": step, "seconds": round(time.monotonic() - self.started, 3), **values})
        try:
            if not os.fstat(self._log.fileno()).st_nlink:
                warn(
                    f"'{self.path / 'log.jsonl'}' was removed while this run writes it: a new one begins at step {step}"
                )
                self._log = self._open_log()
            self._log.write(json.dumps(row, allow_nan=False) + "\n")
            self._log.flush()
        except OSError as error:
            raise DistkError(f"cannot write '{self.path / 'log.jsonl'}': {error.strerror or error}.") from error

    @property
    def is_open(self) -> bool:
        """Whether the folder is locked and its log open."""
        return self._lock is not None and self._log is not None and not self._log.closed

    def reopen(self) -> None:
        """Lock the folder again and go on with its log, after somebody closed it. Raises DistkError as `lock`."""
        self.close()
        self.lock()
        try:
            self._log = self._open_log()
        except OSError as error:
            raise DistkError(f"cannot write to run folder '{self.path}': {error.strerror or error}.") from error

    def close(self) -> None:
        """Release the folder."""
        for file in (self._log, self._lock):
            if file is not None:
                with contextlib.suppress(OSError):
                    file.close()
        self._log = self._lock = None


def new_folder(method: str, seed: int, out: Path | None) -> Path:
    """`out`, or `runs/<method>-<date>-<time>-s<seed>`, with a number appended while it exists.

    Raises UsageError when `out` already holds a run.
    """
    if out is not None:
        in_utf8(str(out), "--out")
        _refuse_taken(out)
        if out.exists() and not out.is_dir():
            raise UsageError(f"--out '{out}' is a file, not a folder.")
        return out
    base = RUNS / f"{method}-{datetime.now():%Y%m%d-%H%M%S}-s{seed}"
    path, n = base, 1
    while path.exists():
        n += 1
        path = base.with_name(f"{base.name}-{n}")
    return path


def _refuse_taken(out: Path) -> None:
    """Raise UsageError if a folder holds a run. One that was killed before its first checkpoint logged nothing and may
    be started again in its folder."""
    log = out / "log.jsonl"
    if (out / "checkpoint.safetensors").exists() or (log.exists() and log.stat().st_size):
        raise UsageError(f"'{out}' already holds a run: continue it with `distk resume {out}` or choose another --out.")


def find_checkpoint(given: Path | None) -> Path:
    """The checkpoint that a command works on: a file, a run folder's, or without an argument the newest run's.

    Raises DistkError when there is none.
    """
    if given is not None:
        if given.is_dir():
            return _in_folder(given)
        if not given.exists():
            around = [path.name for path in given.parent.iterdir()] if given.parent.is_dir() else []
            close = near(given.name, around)
            meant = f" Did you mean '{given.with_name(close)}'?" if close else ""
            raise DistkError(f"checkpoint '{given}' does not exist.{meant}")
        return given
    found = sorted(RUNS.glob("*/checkpoint.safetensors"), key=lambda p: (p.stat().st_mtime_ns, str(p)))
    if not found:
        raise UsageError(
            f"no checkpoint was named and there is no run in '{RUNS}{os.sep}': train one with `distk train`."
        )
    return found[-1]


def _in_folder(folder: Path, whole: bool = True) -> Path:
    """The checkpoint of a run folder, the only one of any other, or that of a snapshot as the Hugging Face hub keeps
    them (`refs/main` names one of `snapshots/`, looked for where `whole`). Raises DistkError where there is none, or
    more than one."""
    if (inner := folder / "checkpoint.safetensors").exists():
        return inner
    if whole and (kept := folder / "snapshots").is_dir():
        held = sorted(path.name for path in kept.iterdir() if path.is_dir())
        named = held if len(held) == 1 else []
        with contextlib.suppress(OSError, UnicodeDecodeError):
            with open(folder / "refs" / "main", encoding="utf-8") as file:
                main = file.read(300).strip()
            named = [name for name in held if name == main]
        if named:
            return _in_folder(kept / named[0], whole=False)
        raise DistkError(
            f"'{folder}' holds no snapshot, or several and no 'refs/main' that names one: name a folder in '{kept}'."
        )
    found = sorted(path for path in folder.glob("*.safetensors") if path.is_file())
    if len(found) == 1:
        return found[0]
    if found:
        raise DistkError(
            f"folder '{folder}' holds {counted(len(found), 'checkpoint')}, {found[0].name} the first: name one of them."
        )
    again = f": start it again with --config {folder / 'config.toml'}"
    hint = again if (folder / "config.toml").exists() else ""
    if below := sorted(folder.glob("*/checkpoint.safetensors"), key=lambda path: path.stat().st_mtime):
        hint = f", but {len(below):,} of its folders do: name one, such as '{below[-1].parent}'"
    raise DistkError(f"folder '{folder}' holds no checkpoint.safetensors{hint}.")
