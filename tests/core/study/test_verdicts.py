"""The table of verdicts in docs/studies.md says what the files in results/ say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from distk.study.claims import FAILS, HOLDS

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def verdicts(program_file) -> Any:
    return program_file(ROOT / "benchmarks" / "verdicts.py", "verdicts")


def test_the_page_is_made_from_the_files(verdicts) -> None:
    text = verdicts.PAGE.read_text(encoding="utf-8")
    held = text.partition(verdicts.FROM)[2].partition(verdicts.TO)[0].strip()
    assert held == verdicts.page(verdicts.told()).strip(), "run: python benchmarks/verdicts.py --write"


def test_every_file_of_a_study_is_read_and_its_claims_are_those_of_the_recipe(verdicts) -> None:
    found = verdicts.told()
    assert {one.file for one in found} == set((ROOT / "results").glob("study-*.csv"))
    for one in found:
        assert one.scale in ("small", "medium", "gpu", "paper"), one.file
        assert one.runs >= one.seeds > 0
        assert one.count(HOLDS) + one.count(FAILS) <= len(one.verdicts)


def test_other_figures_give_other_verdicts(verdicts, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "results").mkdir()
    for which, score in (("a", 0.9), ("b", 0.1)):
        lines = ["variant,seed,clsacc.hungarian"]
        for seed in range(3):
            lines += [f"cascadevae,{seed},{score}", f"jointvae,{seed},0.5"]
        (tmp_path / "results" / f"study-discrete-small-{which}.csv").write_text("\n".join(lines) + "\n")
    monkeypatch.setattr(verdicts, "HERE", tmp_path)
    higher, lower = verdicts.told()
    text = "at this size cascadevae finds the classes more often than jointvae"
    for one, verdict in ((higher, HOLDS), (lower, FAILS)):
        assert [v.verdict for claim, v in one.verdicts if claim.text == text] == [verdict]
        assert (one.study, one.scale, one.runs, one.seeds) == ("discrete", "small", 6, 3)
