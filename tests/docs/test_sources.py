"""Where the figures of a card come from: a file that is held, or a test, a command and its setting."""

from __future__ import annotations

import csv
import re
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from distk.registry import registry
from distk.study.plan import plan

sys.path.insert(0, str(Path(__file__).parent))
from test_cards import FIGURES, HELD, ROOT

CARDS = sorted(p for p in (ROOT / "docs" / "methods").glob("*.md") if p.name != "README.md")
MEASURED = ("Measured", "Figures", "On Yelp", "Which memory", "Models side by side")
FIGURE = re.compile(r"(?<![\w.-])\d*\.\d+|\d+(?:\.\d+)?\s?%")
"""A number that looks measured: it has decimals, or is a percentage."""
FEW = 5
"""So many of them may stand in a section that measures nothing: values of options, of the paper."""
QUOTED = {
    ("indepvideo.md", "Commands and scores"): "constants of the scores, computed in closed form",
    ("jade.md", "Scores"): "the paper's table",
}


def sections(card: Path) -> Iterator[tuple[str, str, int]]:
    """(heading, text, figures that no file holds and that are no program's output) of each section of a card."""
    text = card.read_text(encoding="utf-8")
    for page, _, excerpt, _ in FIGURES:
        if page == str(card.relative_to(ROOT)):
            text = re.sub(r"\s+".join(map(re.escape, excerpt.split())), "", text, count=1)
    for part in re.split(r"(?m)^#+ (?=.)(?<!### )", text)[1:]:
        heading, _, body = part.partition("\n")
        yield heading, body, len(FIGURE.findall(re.sub(r"```.*?```", "", body, flags=re.DOTALL)))


def sources(text: str) -> list[str]:
    """The paragraphs that say where figures come from, each on one line."""
    return [" ".join(m[0].split()) for m in re.finditer(r"(?ms)^\*\*Sources\.\*\*.*?(?=\n\s*\n|\Z)", text)]


def missing(card: Path) -> list[str]:
    """The sections of a card that show figures and do not say whence."""
    return [
        heading
        for heading, body, free in sections(card)
        if (free > FEW or (free and heading in MEASURED)) and (card.name, heading) not in QUOTED and not sources(body)
    ]


def wrong(told: str) -> list[str]:
    """What a paragraph of sources names and there is not: tests, files, presets, studies, scores."""
    every = {k: {e.name for e in registry().entries(k)} for k in ("method", "metric", "study")}
    bad = []
    for path, function in re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", told):
        file = ROOT / path
        if not file.exists() or (function and f"def {function}(" not in file.read_text(encoding="utf-8")):
            bad.append(f"{path}::{function}")
    bad += [f for f in re.findall(r"results/[\w.-]+\.(?:csv|json)", told) if not (ROOT / f).exists()]
    for name in re.findall(r"distk study run ([\w./-]+)", told):
        there = (ROOT / name).exists() if name.endswith(".toml") else name in every["study"]
        bad += [] if there else [f"study {name}"]
    bad += [f"score {name}" for name in re.findall(r"--metric ([\w-]+)", told) if name not in every["metric"]]
    for method, preset in re.findall(r"distk train ([\w-]+)(?: --data [\w-]+)?(?: --preset ([\w-]+))?", told):
        known = method in every["method"] and (not preset or preset in registry().find("method", method).load().presets)
        bad += [] if known else [f"distk train {method} --preset {preset}"]
    return bad


@pytest.mark.parametrize("card", CARDS, ids=lambda path: path.stem)
def test_figures_say_where_they_come_from(card: Path) -> None:
    assert missing(card) == [], "add a paragraph that begins **Sources.**"
    told = sources(card.read_text(encoding="utf-8"))
    assert told, "a card says where its figures come from"
    assert [bad for one in told for bad in wrong(one)] == []
    assert all(
        re.search(r"`(tests/|distk |python )|commands? |file that is named|files that are named", one) for one in told
    )


def test_a_source_that_is_not_there_is_noticed(tmp_path: Path) -> None:
    text = "**Sources.** `tests/no/such.py`, `tests/docs/test_sources.py::test_no_such`,\n"
    text += "`distk train betavae --preset no`, `distk study run no-such`, results/no.csv, --metric no-such,\n"
    text += "`distk study run benchmarks/cards/no.toml`, `distk study run benchmarks/cards/bounds.toml`,\n"
    text += "`distk train betavae --preset demo`.\n\nMore."
    assert wrong(sources(text)[0]) == [
        *("tests/no/such.py::", "tests/docs/test_sources.py::test_no_such", "results/no.csv", "study no-such"),
        *("study benchmarks/cards/no.toml", "score no-such", "distk train betavae --preset no"),
    ]


def test_figures_without_a_source_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    text = Path(CARDS[0]).read_text(encoding="utf-8").replace("**Sources.**", "")
    monkeypatch.setattr(Path, "read_text", lambda self, **_: text)
    assert "Measured" in missing(CARDS[0])


@pytest.mark.parametrize("recipe", sorted((ROOT / "benchmarks" / "cards").glob("*.toml")), ids=lambda path: path.stem)
def test_the_runs_of_a_card_are_those_of_its_recipe(recipe: Path) -> None:
    """The file that the recipe's command wrote has every variant and seed that it would run, and its columns."""
    with (ROOT / "results" / f"cards-{recipe.stem}-cpu.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    made = plan(str(recipe))
    labels = list(dict.fromkeys(variant.label for variant in made.recipe.variants))
    assert [(row["variant"], int(row["seed"])) for row in rows] == [(name, s) for name in labels for s in made.seeds]
    assert list(rows[0])[2:] == [column.name for column in made.recipe.columns]
    assert f"{zlib.crc32(recipe.read_bytes()):08x}" == HELD["run"][recipe.stem], "run the changed recipe anew"
