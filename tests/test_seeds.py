"""A random test says what it was seeded with, and the same seed gives the same draws."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parent

EXAMPLE = """
import random
import numpy as np
import pytest
import torch

@pytest.fixture(scope="module")
def made():
    return torch.rand(2).tolist()

def test_that_draws(made, seed, generator, rng):
    drawn = [torch.rand(2, generator=generator).tolist(), rng.random(2).tolist(), torch.rand(2).tolist()]
    drawn += [np.random.rand(2).tolist(), random.random(), made]
    raise AssertionError(f"seed={seed} drawn={drawn}")

def test_of_nothing():
    assert True
"""


OWN = """
import numpy as np
import pytest
import torch

def pytest_generate_tests(metafunc):
    if "which" in metafunc.fixturenames:
        metafunc.parametrize("which", ["own", "torch", "numpy", "random"])  # by a hook: stands before the seed

def test_some(which):
    import random
    np.random.default_rng(3).random()
    torch.Generator().manual_seed(3)
    if which != "own":
        {"torch": torch.rand, "numpy": np.random.rand, "random": lambda n: random.random()}[which](1)
"""


def run(folder: Path, *arguments: str, own: str = "", **environment: str) -> str:
    shutil.copy(TESTS / "conftest.py", folder)
    (folder / "test_own.py").write_text(own)
    (folder / "test_example.py").write_text(EXAMPLE)
    (folder / "pyproject.toml").write_text('[tool.pytest.ini_options]\nmarkers = ["random", "cuda"]\n')
    env = {k: v for k, v in os.environ.items() if k != "DISTK_TEST_SEED"} | environment
    line = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(line, cwd=folder, env=env, capture_output=True, text=True, check=False).stdout


def test_what_a_failure_tells_repeats_it(tmp_path: Path) -> None:
    first = run(tmp_path, DISTK_TEST_SEED="any")
    told = re.search(r"DISTK_TEST_SEED=(\d+)  test_example.py::test_that_draws", first)
    assert told is not None, first
    again, other = run(tmp_path, DISTK_TEST_SEED=told[1]), run(tmp_path, DISTK_TEST_SEED=str(int(told[1]) ^ 1))
    drawn = [re.search(r"AssertionError: seed=\d+ (drawn=.*)", text) for text in (first, again, other)]
    assert all(drawn)
    texts = [found[1] for found in drawn if found is not None]
    assert texts[0] == texts[1]
    numbers = [ast.literal_eval(text.removeprefix("drawn=")) for text in texts]
    assert all(a != b for a, b in zip(numbers[0], numbers[2], strict=True)), "each draw follows the seed"


def test_several_seeds_at_once_and_random_tests_alone(tmp_path: Path) -> None:
    text = run(tmp_path, "-m", "random", "--seeds", "5:8")
    assert [f"seed={n} " in text for n in (4, 5, 6, 7, 8)] == [False, True, True, True, False]
    assert "3 failed, 1 deselected" in text
    assert "DISTK_TEST_SEED=7  test_example.py::test_that_draws[seed7]" in text


def test_a_long_test_gets_one_seed_and_what_came_is_told(tmp_path: Path) -> None:
    text = run(tmp_path, "--seeds", "5:8", "--brisk", "0", "--told", "told.txt", "-k", "draws or torch", own=OWN)
    assert "1 failed, 1 passed, 4 skipped" in text
    lines = [line.split() for line in (tmp_path / "told.txt").read_text().splitlines()]
    rows = [(words[0], words[-1]) for words in lines if len(words) > 3 and words[3].startswith("test_example.py::")]
    assert rows == [("failed", "5"), ("skipped", "6"), ("skipped", "7")]
    assert "AssertionError: seed=5" in (tmp_path / "told.txt").read_text()


def test_what_has_passed_is_left_out_of_the_rest(tmp_path: Path) -> None:
    kept = ("--seeds", "0:2", "--told", "told.txt")
    assert "1 passed, 2 failed" in run(tmp_path, *kept).replace("2 failed, 1 passed", "1 passed, 2 failed")
    again = run(tmp_path, *kept, "--rest")
    assert "2 failed, 1 deselected" in again, "what failed is tried again, what passed is not"
    told = (tmp_path / "told.txt").read_text()
    (tmp_path / "told.txt").write_text(told.replace("failed call", "passed call"))
    assert "3 deselected" in run(tmp_path, *kept, "--rest")


def test_what_draws_nothing_from_its_seed_takes_one(tmp_path: Path) -> None:
    """A test whose numbers come of seeds that it says itself would be the same test twenty times."""
    kept = ("-m", "random", "--seeds", "0:3", "--told", "told.txt", "-k", "some")
    assert "10 passed, 2 skipped" in run(tmp_path, *kept, own=OWN)
    told = (tmp_path / "told.txt").read_text()
    assert re.findall(r"undrawn setup \S+ test_own.py::test_some\[(\S+?)\]", told) == ["own-seed1", "own-seed2"]
    assert "16 deselected" in run(tmp_path, *kept, "--rest", own=OWN), "nothing of it is left to do"


def test_seeds_that_were_passed_are_counted(tmp_path: Path, program_file) -> None:
    kept = ("-m", "random", "--seeds", "0:3", "--told", "told.txt")
    run(tmp_path, *kept, own=OWN)
    told = program_file(TESTS / "told.py", "told")
    found = told.outcomes((tmp_path / "told.txt").read_text())
    assert found["test_example.py::test_that_draws[]"] == dict.fromkeys(range(3), "failed")
    assert found["test_own.py::test_some[own-]"] == {0: "passed", 1: "undrawn", 2: "undrawn"}
    counted = {"tests": 5, "every seed": 3, "no draw": 1, "skipped": 0, "some seeds": 0, "failed": 1, "runs": 10}
    assert told.counts(found) == counted
    with (tmp_path / "told.txt").open("a") as file:
        file.writelines(f"passed call 0.01s test_example.py::test_that_draws[seed{n}] {n}\n" for n in range(3))
    mended = told.counts(told.outcomes((tmp_path / "told.txt").read_text()))
    assert (mended["failed"], mended["every seed"], mended["runs"]) == (0, 4, 13)


UNSEEDED = re.compile(
    r"default_rng\(\)|urandom|SystemRandom|secrets\.|torch\.seed\(|random\.seed\(\)|Random\(\)|uuid4|def seed\(\)"
)


def test_no_test_draws_what_no_seed_repeats() -> None:
    from_here = (TESTS / "conftest.py", Path(__file__))  # where the seeds come from
    texts = {p: p.read_text(encoding="utf-8") for p in TESTS.rglob("*.py") if p not in from_here}
    found = [f"{path.relative_to(TESTS)}: {m[0]}" for path, text in texts.items() for m in UNSEEDED.finditer(text)]
    assert found == [], "take the fixture seed, generator or rng, or one of the global generators"


def test_without_a_word_every_run_has_the_same_seeds(tmp_path: Path) -> None:
    """And tests of other names others; `any` takes fresh ones."""
    runs = [run(tmp_path), run(tmp_path), run(tmp_path, DISTK_TEST_SEED="any")]
    seeds = [re.findall(r"AssertionError: seed=(\d+)", text)[0] for text in runs]
    assert seeds[0] == seeds[1] != seeds[2]
