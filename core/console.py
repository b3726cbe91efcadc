"""Everything that distk prints: results on stdout, words about the work on stderr."""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from distk.errors import DistkError

out = Console(soft_wrap=True, highlight=False, markup=False, emoji=False)
"""Results. What is printed is text: no brackets of a path or a name are read as markup."""
err = Console(stderr=True, highlight=False, soft_wrap=True, markup=False, emoji=False)
"""Progress, notices and errors."""
_warned: set[str] = set()


def _tell(text: Text) -> None:
    """Words on stderr. That they cannot be written, as on a full disk, ends no work."""
    with contextlib.suppress(OSError):
        err.print(text)


def note(message: str) -> None:
    """A line about what is going on, on stderr."""
    _tell(Text(clean(message), style="dim"))


def warn(message: str) -> None:
    """A warning on stderr."""
    _tell(Text.assemble(("warning: ", "yellow"), clean(message)))


def note_once(message: str) -> None:
    """`note`, but the same message only once in a process."""
    if message not in _warned:
        _warned.add(message)
        note(message)


def warn_once(message: str) -> None:
    """`warn`, but the same message only once in a process."""
    if message not in _warned:
        _warned.add(message)
        warn(message)


def error(message: str) -> None:
    """The one sentence that a failed command leaves, on stderr."""
    _tell(Text.assemble(("error: ", "bold red"), clean(message)))


@contextmanager
def _results() -> Iterator[None]:
    """Around what is printed on stdout. Raises DistkError where that cannot be written, as on a full disk."""
    try:
        yield
    except BrokenPipeError:  # the reader went away: see `cli`
        raise
    except OSError as error:
        with contextlib.suppress(OSError, ValueError):  # what is left must not fail again when the process ends
            os.dup2(os.open(os.devnull, os.O_WRONLY), out.file.fileno())
        raise DistkError(f"the results cannot be printed: {error.strerror or error}.") from error


def say(text: object = "", style: str = "", to: Console | None = None) -> None:
    """A line, or several, of results on stdout or another console: no markup, and nothing that rewrites a terminal."""
    where = to or out
    encoding = getattr(where.file, "encoding", None) or "utf-8"
    line = clean(str(text)).encode(encoding, "replace").decode(encoding)
    with _results():
        if style:
            where.print(Text(line, style=style))
        else:
            where.file.write(line + "\n")
            where.file.flush()


def clean(text: str) -> str:
    """Text that may come from a stranger's file, without control characters that could rewrite the terminal."""
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in str(text))


def number(value: Any) -> str:
    """A number as tables show it: four significant digits, `-` for undefined."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def counted(n: int, what: str, several: str = "") -> str:
    """`1 picture`, `1,200 pictures`. several: a plural that is not made by an s."""
    return f"{n:,} {what if n == 1 else several or what + 's'}"


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], to: Console | None = None) -> None:
    """Print a table on stdout, or on another console; numbers are right-aligned and shortened."""
    made = Table(title=title or None, title_justify="left", header_style="bold", box=None, pad_edge=False)
    for i, column in enumerate(columns):
        numeric = bool(rows) and all(isinstance(row[i], (int, float, type(None))) for row in rows)
        made.add_column(Text(clean(column)), justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        made.add_row(*(Text(clean(number(cell))) for cell in row))
    with _results():
        (to or out).print(made, soft_wrap=False)


def fitting(columns: Sequence[str], rows: Sequence[Sequence[Any]], least: int) -> list[int]:
    """Which columns of a table stand beside each other without a line break: the first `least`, and of the others, in
    their order, those for which there is room."""
    kept, left = list[int](), out.width + 2
    for i, column in enumerate(columns):
        width = 2 + max([len(clean(column)), *(len(clean(number(row[i]))) for row in rows)])
        if i < least or width <= left:
            kept.append(i)
            left -= width
    return kept


def listing(rows: Sequence[tuple[str, str]]) -> None:
    """Print words, indented, each with text that wraps beside it."""
    made = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    made.add_column(no_wrap=True)
    made.add_column(overflow="fold")
    for word, text in rows:
        made.add_row(Text(f"  {clean(word)}"), Text(clean(text)))
    with _results():
        out.print(made, soft_wrap=False)


def lines(rows: Sequence[tuple[str, str]]) -> None:
    """Print words, indented, each with one line of text, which a terminal cuts at its width."""
    width = max((len(clean(word)) for word, _ in rows), default=0)
    made = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    made.add_column(no_wrap=True, min_width=width + 2)
    made.add_column(no_wrap=True, overflow="ellipsis")
    if not out.is_terminal:
        say("\n".join(f"  {clean(word):<{width}}  {clean(text)}".rstrip() for word, text in rows))
        return
    for word, text in rows:
        made.add_row(Text(f"  {clean(word)}"), Text(clean(text)))
    with _results():
        out.print(made, soft_wrap=False)


def emit_json(value: Any) -> None:
    """Print strict JSON on stdout: NaN and infinities become null, and what could rewrite the terminal is escaped."""
    unicode = (getattr(out.file, "encoding", None) or "utf-8").lower().startswith("utf")
    text = json.dumps(jsonable(value), indent=2, ensure_ascii=not unicode, allow_nan=False)
    text = "".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text)
    with _results():
        out.file.write(text + "\n")
        out.file.flush()


def jsonable(value: Any) -> Any:
    """Plain JSON values: arrays become lists, undefined numbers null."""
    if isinstance(value, Mapping):
        return {str(k): jsonable(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [jsonable(v) for v in value]
    if hasattr(value, "tolist"):
        return jsonable(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f}/s" if speed >= 10 else f"{speed:.2f}/s", style="cyan")


@contextmanager
def progress(what: str, total: int, done: int = 0, quiet: bool = False) -> Iterator[Any]:
    """A progress bar on stderr with rate and time left; yields `advance(n, note="")`.

    Where stderr is no terminal nothing is drawn, so that logs stay readable.
    """
    if quiet or not err.is_terminal:
        yield lambda n=1, note="": None
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", style="dim", markup=False),
    )
    with Progress(*columns, console=err, transient=True) as bar:
        task = bar.add_task(what, total=total, completed=done, note="")

        def advance(n: int = 1, note: str | None = None) -> None:
            fields: dict[str, Any] = {} if note is None else {"note": note}
            bar.update(task, advance=n, **fields)

        yield advance
