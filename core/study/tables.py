"""Tables and figures that the family's commands and studies write, as bytes for `write_atomic`."""

from __future__ import annotations

import csv
import io
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from distk import look
from distk.files import write_atomic


def as_csv(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> bytes:
    """A table as CSV."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    return text.getvalue().encode()


def rows_as_csv(rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None) -> bytes:
    """Rows as CSV, of which only `columns` are written; default: those of the first row."""
    header = list(columns or rows[0])
    return as_csv(header, ([row.get(key, "") for key in header] for row in rows))


def windowless(rows: int, columns: int, width: float, height: float, **settings: Any) -> tuple[Any, Any]:
    """A matplotlib figure that no window shows, and its axes `[rows, columns]`; inches per panel.

    Words are `look.POINTS` high unless they say otherwise, so that a figure of `look.COLUMN` inches can be read in a
    column. settings: of matplotlib's `Figure.subplots`.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(columns * width, rows * height), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    with rc_context({"font.size": look.POINTS, "axes.titlesize": look.POINTS, "axes.linewidth": 0.6}):
        return figure, figure.subplots(rows, columns, squeeze=False, **settings)


LARGEST = 8
"""Points of the largest words in a figure that is as wide as a column."""
DPI = 300
"""Dots per inch of a figure where `--dpi` does not say."""
FIGURES = look.FORMS
"""Suffixes of the files that a matplotlib figure can be."""


def write_figure(path: Path, figure: Any, dpi: int = DPI) -> Path:
    """Write a matplotlib figure, atomically, in the form that `--format` says, else in that of the suffix; the file."""
    path = path.with_name(look.formed(path.name))
    write_atomic(path, as_figure(figure, path.suffix, dpi))
    return path


def as_figure(figure: Any, suffix: str, dpi: int = DPI, title: str = "") -> bytes:
    """A matplotlib figure in one of the forms of `FIGURES`, without a date: the same figure is the same file.

    Words of one that is as wide as a column are no larger than `LARGEST`. dpi: where `--dpi` does not say. title: above
    all. Words of an SVG stay words, those of a PDF are of a font that can be edited.
    """
    from matplotlib import rc_context
    from matplotlib.text import Text

    if title:
        figure.suptitle(textwrap.fill(title, int(18 * figure.get_figwidth())), fontsize=LARGEST)
    for word in figure.findobj(Text) if figure.get_figwidth() < 1.2 * look.COLUMN else ():
        word.set_fontsize(min(word.get_fontsize(), LARGEST))
    held = io.BytesIO()
    dated = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
    form = suffix.lower().removeprefix(".")
    with rc_context({"svg.fonttype": "none", "pdf.fonttype": 42, "svg.hashsalt": "distk"}):
        figure.savefig(held, format=form, dpi=look.chosen().dpi or dpi, metadata=dated.get(suffix.lower()))
    return held.getvalue()
