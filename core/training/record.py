"""`record.jsonl` of a run folder: a row for each time that the run was started, taken up again, or ended.

It says by which command, where, when, on what, and at which commit of the working folder's repository.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import shlex
import socket
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from distk.console import jsonable, warn_once
from distk.files import own_file, read_text
from distk.version import __version__

RECORD = "record.jsonl"
COMMAND = "DISTK_COMMAND"
"""What a process that runs for another one is told of the command that the user typed."""
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_REF = re.compile(r"refs/[\w./+@-]+")


def write(folder: Path, event: str, step: int, **values: Any) -> None:
    """Append a row. A folder that cannot be written costs the record, not the run."""
    row = {"event": event, "step": step, "at": now(), **values}
    try:
        with open(folder / RECORD, "a", encoding="utf-8", opener=own_file) as file:
            file.write(json.dumps(jsonable(row), allow_nan=False) + "\n")
    except OSError as error:
        warn_once(f"cannot write '{folder / RECORD}': {error.strerror or error}; the run goes on")


def read(folder: Path) -> list[dict[str, Any]]:
    """The rows of a run folder, oldest first, without what is damaged; empty where there are none."""
    rows: list[dict[str, Any]] = []
    with contextlib.suppress(OSError):
        for line in read_text(folder / RECORD).splitlines():
            with contextlib.suppress(ValueError, RecursionError):
                if isinstance(row := json.loads(line), dict):
                    rows.append(row)
    return rows


def circumstances(device: str) -> dict[str, Any]:
    """Command line, working folder, host, versions and commit of this process. device: in words."""
    versions = {"distk": __version__, "torch": str(torch.__version__), "python": platform.python_version()}
    told: dict[str, Any] = {"command": command(), "host": socket.gethostname(), "process": os.getpid()}
    with contextlib.suppress(OSError):
        told["working_folder"] = os.getcwd()
        if found := commit(Path.cwd()):
            told["commit"] = found
    return {**told, "device": device, "threads": torch.get_num_threads(), "versions": versions}


def command() -> str:
    """The command line of the user, as it can be typed again."""
    if given := os.environ.get(COMMAND):
        return given
    first = sys.argv[0] if sys.argv and sys.argv[0] else "python"
    name = os.path.basename(first)
    start = ["python", "-m", "distk"] if name == "__main__.py" else [name if name == "distk" else first]
    return shlex.join([*start, *sys.argv[1:]])


def commit(folder: Path) -> str:
    """The commit that the repository around a folder stands at, empty where there is none.

    Git's own files are read instead of running git, which would run what a stranger's repository tells it to.
    """
    for place in (folder, *folder.parents):
        held = place / ".git"
        with contextlib.suppress(OSError, UnicodeError):
            if held.is_file():  # a worktree: "gitdir: PATH"
                held = (place / held.read_text()[:4096].partition("gitdir:")[2].strip()).resolve()
            if held.is_dir():
                return _head(held)
    return ""


def _head(git: Path) -> str:
    head = (git / "HEAD").read_text()[:4096].strip()
    if _COMMIT.fullmatch(head):
        return head
    ref = head.removeprefix("ref:").strip()
    if not _REF.fullmatch(ref) or ".." in ref:
        return ""
    shared = git / "commondir"
    roots = [git, *([(git / shared.read_text()[:4096].strip()).resolve()] if shared.is_file() else [])]
    for root in roots:
        with contextlib.suppress(OSError):
            if _COMMIT.fullmatch(found := (root / ref).read_text()[:100].strip()):
                return found
    for root in roots:
        with contextlib.suppress(OSError):
            for line in (root / "packed-refs").read_text()[: 1 << 24].splitlines():
                found, _, name = line.partition(" ")
                if name == ref and _COMMIT.fullmatch(found):
                    return found
    return ""


def now() -> str:
    """The time here, with its distance from UTC, to the second."""
    return datetime.now().astimezone().isoformat(timespec="seconds")
