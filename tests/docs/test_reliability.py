"""docs/reliability.md: every promise of its tables names a test, and what it names is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")


def rows() -> list[list[str]]:
    """The rows of the tables whose last column is `Held by`."""
    found: list[list[str]] = []
    within = False
    for line in PAGE.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")] if line.startswith("|") else []
        within = bool(cells) and (within or cells[-1] == "Held by")
        if within and cells[-1] != "Held by" and set(cells[-1]) != {"-"}:
            found.append(cells)
    return found


def test_every_promise_names_its_test() -> None:
    assert len(rows()) >= 19
    without = [row[0] for row in rows() if not re.search(r"`tests/[\w/]+\.py::test_\w+`", row[-1])]
    assert not without


def test_what_is_named_is_there() -> None:
    named = re.findall(r"`((?:tests|benchmarks|results|core)/[\w/.-]+?)(?:::(test_\w+))?`", PAGE)
    assert len(named) > 25
    for file, test in named:
        path = ROOT / file
        assert path.exists(), file
        if test:
            functions = {
                node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)
            }
            assert test in functions, f"{file} has no {test}"
