"""How long a study takes: measured steps before it begins, and what is left while it runs."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from distk.study import checks, timing
from distk.study.plan import plan
from distk.study.timing import Expected, Left, in_words


class Sleepy:
    """A trainer whose step takes this long, and fails where it is negative."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.steps = seconds, 0

    def step(self) -> None:
        self.steps += 1
        time.sleep(self.seconds)  # of a negative number: ValueError


def test_steps_are_timed_and_few() -> None:
    found = Expected()
    quick, slow = Sleepy(0.004), Sleepy(0.3)
    found.measure("quick", "a", quick)  # type: ignore[arg-type]
    found.measure("slow", "b", slow)  # type: ignore[arg-type]
    found.measure("broken", "c", Sleepy(-1))  # type: ignore[arg-type]
    assert found.variants.keys() == {"quick", "slow"}
    assert found.variants["quick"] >= 0.004  # sleeping takes no less, and on a busy machine more
    assert found.variants["slow"] >= 0.3
    assert (quick.steps <= timing.STEPS + 1, slow.steps) == (True, 2)
    assert found.spent >= 0.6


def test_a_study_of_many_variants_is_not_timed_for_ever() -> None:
    found = Expected({"a beta=1": 2.0, "a beta=2": 4.0}, {"a": [2.0, 4.0]}, spent=timing.ALL)
    never = Sleepy(-1)
    found.measure("a beta=3", "a", never)  # type: ignore[arg-type]
    found.measure("b", "b", never)  # type: ignore[arg-type]
    assert never.steps == 0
    assert found.variants == {"a beta=1": 2.0, "a beta=2": 4.0, "a beta=3": 3.0}


def test_the_total_is_that_of_all_runs_and_no_less_than_the_longest() -> None:
    found = Expected({"a": 0.5, "b": 0.1})
    assert found.total({"a": 100, "b": 200}, 3, 1) == pytest.approx(3 * (50 + 20))
    assert found.total({"a": 100, "b": 200}, 3, 2) == pytest.approx(3 * (50 + 20) / 2)
    assert found.total({"a": 100, "b": 200}, 3, 64) == pytest.approx(50)
    assert found.total({"a": 100, "c": 1}, 3, 2) is None
    assert found.total({}, 3, 2) is None


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        *((0.2, "1 s"), (89, "89 s"), (91, "2 min"), (89 * 60, "89 min"), (100 * 60, "1 h 40 min")),
        *((7200, "2 h"), (48 * 3600, "2 days"), (52 * 3600 + 1860, "2 days 5 h")),
    ],
)
def test_lengths_of_time_in_words(seconds: float, words: str) -> None:
    assert in_words(seconds) == words


def test_what_is_left_follows_the_logs_and_the_runs_that_ended(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in "abc"]
    for folder in folders:
        folder.mkdir()
    left = Left(dict.fromkeys(folders, 100), {folders[0]: 40})
    assert (left.total, left.count, left.seconds()) == (300, 40, None)
    (folders[1] / "log.jsonl").write_text('{"step": 10}\n{"step": 30}\n{"step": 5')
    assert left.look(folders, left.began + timing.LOOK / 2) == 0
    assert left.look(folders, left.began + 10) == 30
    assert left.look(folders, left.began + 20) == 0
    # 30 steps in 20 s, and 230 are left.
    assert left.seconds(left.began + 20) == pytest.approx(230 * 20 / 30)
    assert left.ended(folders[1]) == 70
    assert left.ended(folders[1]) == 0
    assert left.ended(folders[0]) == 60
    assert left.seconds(left.began + 26) == pytest.approx(100 * 26 / 160)
    (folders[2] / "log.jsonl").write_text('{"step": 1000}\n')  # of an earlier, longer run
    assert left.look(folders, left.began + 40) == 100
    assert left.seconds(left.began + 40) == 0


def test_a_preview_measures_every_variant_only_when_asked(tiny: Path) -> None:
    made = plan(str(tiny), device="cpu")
    assert checks.preview(made).expected.variants == {}
    found = checks.preview(made, timed=True)
    assert set(found.expected.variants) == set(found.sizes) == {"free", "covreg-linear lr=0.01"}
    assert all(0 < seconds < 5 for seconds in found.expected.variants.values())


def test_show_and_run_say_how_long(distk_command, tiny: Path, instant) -> None:
    code, out, errors = distk_command("study", "show", tiny, "--device", "cpu")
    assert code == 0, errors
    assert "of training" in out
    assert "by a few steps timed just now" in out
    code, out, _ = distk_command("study", "show", tiny, "--device", "cpu", "--json")
    assert json.loads(out)["seconds"] > 0
    code, out, errors = distk_command("study", "run", tiny, "--engine", "instant", "--device", "cpu", "--seeds", "2")
    assert code == 0, errors
    assert "by a few steps timed just now" in errors
    told = [line for line in errors.splitlines() if " is done (" in line]
    assert len(told) == 4
    assert all("; about " in line and line.endswith(" left") for line in told[:3]), told
    assert told[3].endswith("(4 of 4)")
