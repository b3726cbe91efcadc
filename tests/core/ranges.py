"""The ends of what settings may be, and `distk` called at such an end in a process of its own."""

from __future__ import annotations

import contextlib
import dataclasses
import faulthandler
import json
import os
import resource
import signal
import sys
import tempfile
import time
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from distk.config import flag, hints, split_optional

sys.path.insert(0, str(Path(__file__).parent))
from tiny_runs import FAULTS, called

LIMIT = 60
"""Seconds of processor time that a call may take."""
LARGE = 6
"""The same where as much as possible is asked for, which may well take longer: it is ended then. What is refused, or
cannot be held in memory, shows before."""
MEMORY = 4 << 30
"""Bytes that a call may take beside what the tests hold already."""
MANY = 10**9
"""What is tried where a number has no upper end."""


@dataclasses.dataclass(frozen=True)
class End:
    """One end of a setting: its name in Python, its option, the value as it is typed. large: it is the upper one, which
    may well ask for more than a minute."""

    name: str
    option: str
    value: str
    large: bool = False

    @property
    def words(self) -> list[str]:
        """As the command line takes it."""
        return [self.option] if not self.value else [f"{self.option}={self.value}"]

    @property
    def text(self) -> str:
        """As `--set NAME=VALUE` takes it."""
        if self.value:
            return self.value
        return "false" if self.option.startswith("--no-") else "true"


def ends(config: type, defaults: dict[str, Any] | None = None) -> Iterator[End]:
    """Of every setting: each choice, or the smallest and the largest value that its declaration allows.

    Of a list, each member stands at the end. An exclusive bound is approached to a millionth, or by one.
    """
    for field in dataclasses.fields(config):
        kind, _ = split_optional(hints(config)[field.name])
        default = (defaults or {}).get(field.name, field.default)
        option = flag(field.name)
        if kind is bool:
            yield End(field.name, option, "")
            yield End(field.name, flag(f"no_{field.name}"), "")
        elif typing.get_origin(kind) is Literal:
            yield from (End(field.name, option, str(choice)) for choice in typing.get_args(kind))
        else:
            many = typing.get_origin(kind) is tuple
            number = typing.get_args(kind)[0] if many else kind
            if number in (int, float):
                count = max(1, len(default)) if many and default else 1
                for i, value in enumerate(reversed(edges(field.metadata, number))):
                    yield End(field.name, option, ",".join([value] * count), large=not i)


def edges(declared: typing.Mapping[str, Any], number: type) -> list[str]:
    """The smallest and the largest number of a declaration (`option`, or a range of click), as they are typed."""
    low, above, high = declared.get("min"), declared.get("above"), declared.get("max")
    if above is not None:
        low = above + 1 if number is int else above + 1e-6
    found = [low, MANY if high is None else high]
    return [repr(number(value)) for value in found if value is not None]


def fault(program: Any, words: Sequence[str], large: bool = False) -> str:
    """What is wrong with `distk WORDS`: nothing where it works, or says in a sentence why not.

    large: what is asked for may take long; it is ended then.
    """
    code, told = apart(program, words, LARGE if large else LIMIT)
    if code is None and large:
        return ""
    told = " ".join(told.split())
    if code == 0 or (code in (1, 2) and "error: " in told and not FAULTS.search(told)):
        return ""
    ended = f"took more than {LIMIT} s" if code is None else f"ended with {code}"
    return f"distk {' '.join(words)}: {ended}: {told[-500:]}"


def apart(program: Any, words: Sequence[str], limit: int) -> tuple[int | None, str]:
    """`distk WORDS` in a fork of this process: its exit code (None where it took more than `limit` seconds) and
    words."""
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer.json"
        child = os.fork()
        if not child:
            _child(program, list(words), answer, limit)
        code = _wait(child, limit)
        if answer.exists() and code == 0:
            code, told = json.loads(answer.read_text(encoding="utf-8"))
            return code, told
        return (None if code is None else code or -1), ""


def _child(program: Any, words: list[str], answer: Path, limit: int) -> None:
    """Never returns."""
    try:
        os.setpgid(0, 0)
        faulthandler.disable()
        for number in (1, 2):
            os.dup2(os.open(os.devnull, os.O_WRONLY), number)
        held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY, held + MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        used = int(time.process_time())
        resource.setrlimit(resource.RLIMIT_CPU, (used + limit, used + limit + 1))
        code, out, err = called(program, words)
        answer.write_text(json.dumps([code, out + err]), encoding="utf-8")
        os._exit(0)
    except BaseException as error:  # what the program let through
        answer.write_text(json.dumps([3, f"{type(error).__name__}: {error}"]), encoding="utf-8")
        os._exit(0)


def _wait(child: int, limit: int) -> int | None:
    until, done, status = time.monotonic() + 10 * limit, 0, 0  # what waits for nothing takes no processor time
    while not done and time.monotonic() < until:
        done, status = os.waitpid(child, os.WNOHANG)
        time.sleep(0.01)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child, signal.SIGKILL)
    if not done:
        os.waitpid(child, 0)
        return None
    code = os.waitstatus_to_exitcode(status)
    return None if code == -signal.SIGXCPU else code


def numbers(command: Any) -> list[tuple[str, dict[str, float | None]]]:
    """The options of a built command that take a number: how each is called, and its `min` and `max`, None where open.

    A newer typer keeps the kind of a parameter in a description of its own, an older one in click's types.
    """
    found = []
    for parameter in command.params:
        described, kind = getattr(parameter, "type_descriptor", None), getattr(parameter, "type", None)
        number = (
            described.annotation in (int, float)
            if described is not None
            else str(getattr(kind, "name", "")).split()[:1] in (["integer"], ["float"])
        )
        if number and not parameter.is_flag and parameter.opts[0].startswith("-"):
            holder = parameter if described is not None else kind
            found.append((parameter.opts[0], {side: getattr(holder, side, None) for side in ("min", "max")}))
    return found


def command_at(program: Any, words: Sequence[str]) -> Any:
    """The built command at these words after `distk`."""
    for word in words:
        program = program.resolve_command(program.make_context("distk", [], resilient_parsing=True), [word])[1]
    return program
