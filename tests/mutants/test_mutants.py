"""Every error of `run.py` is one that can be tried: its text stands once, its tests are there."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from distk.registry import registry


@pytest.fixture(scope="module")
def run(program_file) -> Any:
    return program_file(Path(__file__).with_name("run.py"), "mutants_run")


def test_the_text_of_each_stands_once_and_changes(run) -> None:
    wrong = []
    for mutant in run.mutants():
        text = (run.ROOT / mutant.file).read_text(encoding="utf-8")
        if text.count(mutant.old) != 1 or mutant.old == mutant.new:
            wrong.append(f"{mutant.name}: stands {text.count(mutant.old)} times in {mutant.file}: {mutant.old!r}")
    assert wrong == [], "mend the text of these in tests/mutants/*.toml"


def test_what_is_changed_is_still_python(run) -> None:
    for mutant in run.mutants():
        if mutant.file.endswith(".py"):
            text = (run.ROOT / mutant.file).read_text(encoding="utf-8").replace(mutant.old, mutant.new)
            compile(text, mutant.name, "exec")


def test_each_has_a_name_a_kind_and_tests(run) -> None:
    every = run.mutants()
    assert [name for name, n in Counter(m.name for m in every).items() if n > 1] == []
    assert {m.kind for m in every} <= set(run.KINDS)
    lacking = [(m.name, t) for m in every for t in m.tests if not (run.ROOT / t).exists()]
    assert lacking == []
    assert all(m.tests for m in every)


def test_every_paper_with_a_method_has_at_least_four(run) -> None:
    folders = {
        entry.path.partition(":")[0].split(".")[-2]  # distk.plugins.FAMILY.PAPER.method
        for entry in registry().entries("method")
        if entry.distribution == "distk"
    }
    counts = Counter(m.file.split("/")[2] for m in run.mutants() if m.file.startswith("plugins/"))
    few = sorted(f for f in folders if counts[f] < 4)
    assert few == [], "write errors for these into tests/mutants/*.toml"


def test_a_word_names_areas_groups_kinds_and_single_ones(run) -> None:
    every = run.mutants()
    assert {m.name.split("/")[0] for m in run.chosen(["vae"], every)} == {"vae"}
    assert {m.group for m in run.chosen(["icm"], every)} == {"gan/icm"}
    assert {m.kind for m in run.chosen(["leak"], every)} == {"leak"}
    assert [m.name for m in run.chosen(["vae/dipvae/0"], every)] == ["vae/dipvae/0"]
    with pytest.raises(SystemExit, match="'vea' names no mutant"):
        run.chosen(["vea"], every)


EXAMPLE = """
def double(x):
    return 2 * x
"""
TEST = """
from small import double

def test_double():
    assert double(3) == 6

def test_that_fails_anyway():
    assert False

def test_of_a_file():
    import os
    assert os.path.exists("here")
"""


def test_what_is_noticed_what_survives_and_what_cannot_be_tried(run, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "small.py").write_text(EXAMPLE)
    (tmp_path / "test_it.py").write_text(TEST)
    (tmp_path / "here").touch()

    def tried(old: str, new: str, only: str) -> dict[str, Any]:
        return run.tried(tmp_path, run.Mutant("a/b/0", "sign", "src/small.py", old, new, ("test_it.py",), only))

    assert tried("2 * x", "3 * x", "double")["by"] == "test_it.py::test_double"
    assert tried("2 * x", "x + x", "double")["outcome"] == "survived"
    assert "stands 0 times" in tried("4 * x", "x", "double")["why"]
    assert "no test ran" in tried("2 * x", "3 * x", "nothing_of_this_name")["why"]
    assert (tmp_path / "src" / "small.py").read_text() == EXAMPLE
    monkeypatch.setattr(run, "LIMIT", 0.5)
    slow = "2 * x + __import__('time').sleep(20)"
    assert "took more than" in tried("2 * x", slow, "double")["why"]
    monkeypatch.setattr(run, "LIMIT", 60)
    both = ["test_it.py::test_double", "test_it.py::test_that_fails_anyway"]
    assert run.unsound(tmp_path, both) == {both[1]}


def test_parts_hold_each_once_and_their_results_join(run, tmp_path, monkeypatch) -> None:
    every = run.mutants()
    ours = every[:7]
    assert run.part("2/3") == (2, 3)
    for wrong in ("0/3", "4/3", "3", "a/b", "-1/2"):
        with pytest.raises(argparse.ArgumentTypeError, match="is no part"):
            run.part(wrong)
    monkeypatch.setattr(run, "RESULTS", tmp_path / "all.json")
    monkeypatch.setattr(run, "mutants", lambda: ours)
    tried: list[str] = []

    def outcomes(mine: Any, every: Any, results: Path) -> dict[str, dict[str, Any]]:
        tried.extend(m.name for m in mine)
        return {m.name: {"digest": m.digest, "kind": m.kind, "outcome": "killed", "by": "t"} for m in mine}

    monkeypatch.setattr(run, "try_all", outcomes)
    files = [tmp_path / "new" / f"{n}.json" for n in (1, 2, 3)]
    for n, file in enumerate(files, 1):
        assert called(run, monkeypatch, "--part", f"{n}/3", "--results", file) == 0
    assert sorted(tried) == sorted(m.name for m in ours)
    assert run.known(ours, run.RESULTS) == {}
    assert called(run, monkeypatch, "--join", *files) == 0
    assert list(run.known(ours, run.RESULTS)) == [m.name for m in ours]
    assert called(run, monkeypatch, "--left", "--results", files[0]) == 0
    assert len(tried) == len(ours), "nothing is left"


def called(run: Any, monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    monkeypatch.setattr(sys, "argv", ["run.py", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        run.main()
    return int(ended.value.code or 0)
