"""Tables of a report as values, and as Markdown or LaTeX."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from distk.console import clean
from distk.laboratory.compare import Comparison
from distk.study.report import Line, Report, ours, printed

LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{c: f"\\{c}" for c in "&%$#_"},
    "±": r"$\pm$",
    "<": r"$<$",
    ">": r"$>$",
    "|": r"$|$",
}


@dataclass(frozen=True)
class Table:
    """Text in rows. numeric: columns of numbers, which do not break."""

    title: str
    header: list[str]
    rows: list[list[str]]
    numeric: frozenset[int] = field(default_factory=frozenset)


def columns_of(made: Report) -> list[Table]:
    """A table for each column of a study: ours with its interval beside the published figure."""
    found = []
    for column in dict.fromkeys(line.column for line in made.lines):
        lines = [line for line in made.lines if line.column == column]
        unit = next((line.unit for line in lines if line.unit), "")
        rows = [_row(line) for line in lines]
        keep = [i for i in range(6) if i < 3 or any(row[i] for row in rows)]
        header = ["", "ours: mean [interval] (sd)", "n", "best", "published", "where"]
        title = f"{column}, {unit}" if unit else column
        cells = [[row[i] for i in keep] for row in rows]
        found.append(Table(title, [header[i] for i in keep], cells, frozenset({1, 2})))
    return found


def _row(line: Line) -> list[str]:
    best = "" if line.best is None else f"{line.best:.4g}"
    return [line.variant, ours(line), str(line.n), best, printed(line), line.where]


def whole(made: Report) -> Table:
    """A study in one table, as papers print it: a row per variant, and of each column ours and the published figure."""
    columns = list(dict.fromkeys(line.column for line in made.lines))
    cells = {(line.variant, line.column): line for line in made.lines}
    quoted = [c for c in columns if any(printed(line) for line in made.lines if line.column == c)]
    header = ["", *(head for c in columns for head in ([c, f"{c}, published"] if c in quoted else [c]))]
    rows = []
    for variant in dict.fromkeys(line.variant for line in made.lines):
        row = [variant]
        for column in columns:
            line = cells.get((variant, column))
            row.append("" if line is None else ours(line))
            row += [] if column not in quoted else ["" if line is None else printed(line)]
        rows.append(row)
    return Table(made.recipe.title, header, rows, frozenset(range(1, len(header))))


def scores_of(made: Comparison) -> Table:
    """Scores, a row per number and a column per group; with the difference where there are two groups."""
    header = ["", *(group.label for group in made.groups), *(["difference"] if made.differences else [])]
    rows = []
    for name, figures in made.scores.items():
        row = [name, *("" if f is None else f"{f}, n = {f.n}" if f.n > 1 else str(f) for f in figures)]
        rows.append(row + ([str(made.differences.get(name, ""))] if made.differences else []))
    return Table("Scores", header, rows, frozenset(range(1, len(header))))


def settings_of(made: Comparison) -> Table:
    """Settings that differ, a row per setting and a column per group."""
    header = ["", *(group.label for group in made.groups)]
    rows = [[name, *("" if v is None else str(v) for v in values)] for name, values in made.settings.items()]
    return Table("Settings that differ", header, rows)


def markdown(tables: Sequence[Table]) -> str:
    """Tables in Markdown, each below its title."""
    return "\n".join(_markdown(table) for table in tables)


def _markdown(table: Table) -> str:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(re.sub(r"([\\|`*_<\[\]])", r"\\\1", _plain(cell)) for cell in cells) + " |"

    rule = "|" + "|".join("---:" if i in table.numeric else "---" for i in range(len(table.header))) + "|"
    return "\n".join([f"### {_plain(table.title)}", "", line(table.header), rule, *map(line, table.rows), ""])


def latex(tables: Sequence[Table]) -> str:
    r"""Tables in LaTeX; they need \usepackage{booktabs}."""
    return "\n".join(["% needs \\usepackage{booktabs}", *(_latex(table) for table in tables)]) + "\n"


def _latex(table: Table) -> str:
    def line(cells: Sequence[str]) -> str:
        return "    " + " & ".join(escaped(cell) for cell in cells) + r" \\"

    kinds = "".join("r" if i in table.numeric else "l" for i in range(len(table.header)))
    body = [line(table.header), "    \\midrule", *map(line, table.rows)]
    inside = [f"  \\begin{{tabular}}{{{kinds}}}", "    \\toprule", *body, "    \\bottomrule", "  \\end{tabular}"]
    return "\n".join(
        ["\\begin{table}", "  \\centering", f"  \\caption{{{escaped(table.title)}}}", *inside, "\\end{table}"]
    )


def escaped(text: Any) -> str:
    """Text as LaTeX prints it."""
    return "".join(LATEX.get(c, c) for c in _plain(text))


def _plain(text: Any) -> str:
    return " ".join(clean(str(text)).split())
