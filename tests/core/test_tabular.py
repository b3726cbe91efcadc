"""Tables of others as chunks of columns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from distk import tabular
from distk.errors import DistkError
from distk.tabular import SUFFIXES, chunks, floats, mostly_numbers
from distk.tree import opened


def read(path: Path) -> tuple[list[str], list[list[object]], list[str]]:
    told: list[str] = []
    with opened(path, SUFFIXES) as tree:
        found = list(chunks(tree.entries[0], path.name, told))
    names = found[0][0]
    return names, [[cell for _, columns in found for cell in columns[k]] for k in range(len(names))], told


@pytest.mark.parametrize(("mark", "ending"), [(",", "csv"), (";", "csv"), ("\t", "csv"), ("\t", "tsv")])
def test_marks_quotes_and_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mark: str, ending: str) -> None:
    monkeypatch.setattr(tabular, "CHUNK", 3)
    path = tmp_path / f"a.{ending}"
    lines = [
        mark.join(["a", f'"one{mark} two"', "x y"]),
        *[mark.join([str(i), f'"{i}{mark}{i}"', "w"]) for i in range(8)],
    ]
    path.write_text("\ufeff" + "\r\n".join(lines) + "\r\n\r\n", encoding="utf-8", newline="")
    names, columns, told = read(path)
    assert names == ["a", f"one{mark} two", "x y"]
    assert columns[0] == [str(i) for i in range(8)]
    assert columns[1] == [f"{i}{mark}{i}" for i in range(8)]
    assert told == []


def test_a_table_without_names(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("1,2\n3,4\n")
    names, columns, told = read(path)
    assert (names, columns) == (["c1", "c2"], [["1", "3"], ["2", "4"]])
    assert told == ["'a.csv' names no columns: they are c1 to c2"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"a,b\n1,2\n1,2,3\n", "row 2 of 'a.csv' has 3 cells, its first line 2"),
        (b"a,b\n", "has no rows"),
        (b"", "has no columns"),
        (b"a,b\n\xff\xfe,2\n", "cannot be read as a table"),
        (b'a,b\n"1,2\n', "cannot be read as a table"),
    ],
)
def test_faults(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    with pytest.raises(DistkError, match=said):
        read(path)


def test_numbers() -> None:
    assert np.array_equal(floats(["1", "x", "2.5"]), [1, np.nan, 2.5], equal_nan=True)
    assert mostly_numbers(["1", "2", "x"])
    assert not mostly_numbers(["1", "x", "y"])
