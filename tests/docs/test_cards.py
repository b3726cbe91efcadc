"""Figures on the pages are those of the files that commands wrote: each excerpt of `cards.toml`, number by number."""

from __future__ import annotations

import csv
import json
import re
import statistics
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
HELD: dict[str, Any] = tomllib.loads(Path(__file__).with_name("cards.toml").read_text(encoding="utf-8"))
FIGURES = [
    (page["page"], page["file"], text, values.split("; ")) for page in HELD["on"] for text, values in page["figures"]
]
NUMBER = re.compile(r"(?<![\w.])(?<!\d[eE][-+])[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+)?(?<=\d)(?!\w)")
STATISTICS: dict[str, Callable[[Sequence[float]], float]] = {
    "mean": statistics.fmean,
    "sd": statistics.stdev,
    "least": min,
    "most": max,
    "sum": sum,
    "n": len,
}


def numbers(text: str) -> list[tuple[float, float]]:
    """The numbers of a text, each with the largest error of its rounding: half a unit of its last digit, which in whole
    thousands is the last one that is no zero."""
    found = []
    for match in NUMBER.finditer(text):
        digits = match[0].replace(",", "")
        zeros = len(digits) - len(digits.rstrip("0")) if "," in match[0] and "." not in digits else 0
        found.append((float(digits), 0.5 * 10.0 ** (zeros - len(digits.partition(".")[2])) * (1 + 1e-9)))
    return found


def values(file: Path, wanted: str) -> list[float]:
    """`VARIANT:COLUMN STATISTIC ...` of a CSV of runs, or `a/b/c` of JSON; then perhaps `+TERM` and `*FACTOR`.

    A statistic that is a number takes the run of that seed. VARIANT may be `*`: all rows. A column whose name ends in a
    number stands in double quotes.
    """
    wanted, _, factor = wanted.partition(" *")
    times = float(factor or 1)
    if file.suffix == ".json":
        wanted, _, term = wanted.partition(" +")
        held = json.loads(file.read_text(encoding="utf-8"))
        for key in wanted.strip().split("/"):
            held = held[int(key)] if isinstance(held, list) else held[key]
        return [times * (float(held) + float(term or 0))]
    if '"' in wanted:
        variant, column, rest = wanted.split('"')
        variant, told = variant.removesuffix(":"), rest.split()
    else:
        where, *told = wanted.rsplit(" ", wanted.count(" ") - where_ends(wanted))
        variant, _, column = where.partition(":")
    with file.open(encoding="utf-8", newline="") as rows:
        kept = [row for row in csv.DictReader(rows) if variant in ("*", row["variant"])]
    every = [(int(row["seed"]), float(row[column])) for row in kept if row[column]]
    assert every, f"{file.name} has no '{column}' of '{variant}'"
    runs, of_seed = [value for _, value in every], dict(every)
    return [times * (of_seed[int(one)] if one.isdecimal() else STATISTICS[one](runs)) for one in told]


def where_ends(wanted: str) -> int:
    """How many of the spaces belong to the names of variant and column."""
    words = wanted.split(" ")
    while words[-1] in STATISTICS or words[-1].isdecimal():
        words.pop()
    return len(words) - 1


@pytest.mark.parametrize(("page", "file", "text", "wanted"), FIGURES, ids=[f"{p}:{t[:50]}" for p, _, t, _ in FIGURES])
def test_a_figure_is_that_of_the_file(page: str, file: str, text: str, wanted: list[str]) -> None:
    told = " ".join((ROOT / page).read_text(encoding="utf-8").split())
    assert told.count(" ".join(text.split())) == 1, f"{page} does not say once: {text}"
    shown = numbers(text)
    ours = [value for one in wanted for value in values(ROOT / file, one)]
    assert len(shown) == len(ours), (shown, ours)
    wrong = [(a, b) for (a, error), b in zip(shown, ours, strict=True) if abs(a - b) > error]
    assert not wrong, f"{page} and {file} differ (page, file): {wrong}"


def test_every_file_of_results_that_a_card_names_is_held_or_said_why_not() -> None:
    """A card's figures are the measured ones; other pages may name a file for what they do not quote."""
    pages = [ROOT / "README.md", *sorted((ROOT / "docs" / "methods").glob("*.md"))]
    named = {
        (str(page.relative_to(ROOT)), match[0])
        for page in pages
        for match in re.finditer(r"results/[\w.-]+\.(?:csv|json)", page.read_text(encoding="utf-8"))
    }
    held = {(page, file) for page, file, _, _ in FIGURES}
    free = {(page, file): why for page, file, why in HELD["free"]}
    assert sorted(named - held - free.keys()) == [], "add its figures to cards.toml, or say there why it has none"
    assert sorted(free.keys() - named) == []
    assert all(len(why) > 20 for why in free.values())


def test_a_number_and_the_error_of_its_rounding() -> None:
    text = "`x1` 4.93 (0.07) against -.5, 2,900 and 30% of 3 in v2; 1e-3"
    assert [value for value, _ in numbers(text)] == [4.93, 0.07, -0.5, 2900, 30, 3]
    assert [error for _, error in numbers("4.93 12 .5 2,900 120")] == pytest.approx([0.005, 0.5, 0.05, 50, 0.5])


def test_a_wrong_figure_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text("variant,seed,a b\nx y,0,1.0\nx y,1,2.0\nz,0,5.0\n")
    assert values(tmp_path / "r.csv", "x y:a b mean sd 1") == pytest.approx([1.5, 0.5**0.5, 2.0])
    assert values(tmp_path / "r.csv", "*:a b most n *100") == [500, 300]
    (tmp_path / "r.json").write_text('{"a": [{"b": 0.25}]}')
    assert values(tmp_path / "r.json", "a/0/b *100") == [25]
    assert values(tmp_path / "r.json", "a/0/b +1 *2") == [2.5]
