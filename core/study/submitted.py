"""What was handed to an engine: OUT/engine.json, by which another process, or another machine, finds the jobs again."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distk.config import assignments, from_dict, to_dict
from distk.errors import DistkError, UsageError
from distk.files import own_file, read_text, write_atomic
from distk.registry import registry
from distk.study.protocol import Engine, Site

FORMAT = 1
FILE, REQUEST, LOCK = "engine.json", "cancel", ".lock"
SECTION = "engine"


def settings_of(sets: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """`--set` without the texts that begin with `engine.`, and those as settings of the engine."""
    own = [text for text in sets if text.partition("=")[0].strip().startswith(f"{SECTION}.")]
    return [text for text in sets if text not in own], assignments(own, SECTION).get(SECTION, {})


def engine(name: str, settings: Mapping[str, Any], site: Site) -> Engine:
    """An engine by its name, with its settings. Raises UsageError for settings that it does not have, and whatever the
    engine says where its jobs could never run."""
    entry = registry().find("engine", name)
    cls: type[Engine] = entry.load()
    return cls(from_dict(cls.Config, settings, f"engine '{entry.name}'"), site)


@dataclass
class Submitted:
    """The jobs of a study that an engine has. jobs: folder below the study's -> what the engine calls it. changed:
    seconds since 1970. host, pid: the process that watches over them."""

    out: Path
    engine: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    device: str = "auto"
    jobs: dict[str, str] = field(default_factory=dict)
    host: str = ""
    pid: int = 0
    changed: float = 0.0

    def folders(self) -> dict[Path, str]:
        """Folder -> what the engine calls its job."""
        return {self.out.absolute() / folder: name for folder, name in self.jobs.items()}

    def again(self) -> Engine:
        """The engine that has these jobs. Raises DistkError where it cannot be asked from here."""
        return engine(self.engine, self.settings, Site(self.out.absolute(), None, self.device))

    def add(self, named: Mapping[Path, str]) -> None:
        """Write down what was submitted."""
        self.jobs |= {str(folder.relative_to(self.out.absolute())): name for folder, name in named.items()}
        self.save()

    def drop(self, folders: Iterable[Path]) -> None:
        """Strike out what ended."""
        for folder in folders:
            self.jobs.pop(str(folder.relative_to(self.out.absolute())), None)
        self.save()

    def save(self) -> None:
        """Write the file; remove it where no job is left."""
        path = self.out / FILE
        if not self.jobs:
            path.unlink(missing_ok=True)
            return
        self.host, self.pid, self.changed = socket.gethostname(), os.getpid(), round(time.time(), 1)
        kept = {k: v for k, v in vars(self).items() if k != "out"}
        write_atomic(path, (json.dumps({"format": FORMAT, **kept}, indent=1) + "\n").encode())


def begun(out: Path, name: str, made: Engine) -> Submitted:
    """An empty list of jobs for an engine."""
    return Submitted(out, registry().find("engine", name).name, to_dict(made.config), made.site.device)


def load(out: Path) -> Submitted:
    """What was handed to an engine and was not seen to end; empty without the file. Raises DistkError for a damaged
    one."""
    path = out / FILE
    if not path.exists():
        return Submitted(out)
    try:
        told = json.loads(read_text(path))
        if told.pop("format") != FORMAT:
            raise ValueError("another format")
        found = Submitted(out, **told)
        texts = [found.engine, found.device, found.host, *found.jobs.items()]
        if not isinstance(found.settings, dict) or not all(isinstance(t, (str, tuple)) for t in texts):
            raise ValueError("wrong values")
        for folder, job in found.jobs.items():
            parts = Path(folder).parts
            if Path(folder).is_absolute() or ".." in parts or parts[:1] != ("runs",) or not isinstance(job, str):
                raise ValueError("wrong values")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DistkError(f"'{path}' is damaged ({type(error).__name__}): remove it.") from error
    return found


def none_elsewhere(held: Submitted, name: str) -> None:
    """Raise UsageError where another engine than this one still has jobs of the study."""
    if not held.jobs or held.engine == registry().find("engine", name).name:
        return
    cls: type[Engine] = registry().find("engine", held.engine).load()
    if not cls.outlives:
        return
    where = f"'{held.out}' has jobs with the engine '{held.engine}'"
    try:
        before = held.again()
    except DistkError as error:
        raise UsageError(
            f"{where}, which cannot be asked ({error}) Remove '{held.out / FILE}' if it is gone."
        ) from error
    try:
        left = len(before.found(held.folders()))
    finally:
        before.close()
    if left:
        raise UsageError(f"{where}: {left} wait or run there. `distk study cancel {held.out}` ends them.")


def watched(out: Path) -> bool:
    """Whether a process, here or on another machine, is running the study of this folder."""
    try:
        with open(out / LOCK, opener=own_file) as held:
            fcntl.flock(held, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
