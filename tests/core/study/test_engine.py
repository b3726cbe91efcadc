"""A study from the first step to the report: done is not done again, stopped goes on, killed loses nothing."""

from __future__ import annotations

import contextlib
import csv
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from distk import DistkError, UsageError
from distk.study import engine, job, store
from distk.study.plan import Plan, plan
from distk.study.protocol import StudyFailed
from distk.study.report import report
from distk.study.status import status

from .conftest import STEPS, TINY


def made(recipe: Path, out: Path, **given) -> Plan:
    return plan(str(recipe), out=out, device="cpu", **given)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The tiny study, run: (plan, rows)."""
    folder = tmp_path_factory.mktemp("study")
    (folder / "tiny.toml").write_text(TINY)
    ready = made(folder / "tiny.toml", folder / "out")
    return ready, engine.run(ready, quiet=True)


def test_every_run_is_an_ordinary_run_folder_and_a_row(done) -> None:
    ready, rows = done
    assert [(r["variant"], r["seed"]) for r in rows] == [(v.label, s) for v in ready.variants for s in (0, 1)]
    assert len({r["covstats.cvr"] for r in rows}) == 4
    with (ready.out / "results.csv").open() as file:
        read = list(csv.DictReader(file))
    assert [float(r["covstats.mapc"]) for r in read] == [r["covstats.mapc"] for r in rows]
    for variant in ("free", "covreg-linear-lr=0.01"):
        folder = ready.out / "runs" / variant / "s1"
        assert (folder / "checkpoint.safetensors").exists()
        assert (folder / "config.toml").exists()
        assert job.step_of(folder) == 40


def test_the_figures_are_those_of_train_and_eval(done, tmp_path) -> None:
    from distk.evaluation import evaluate
    from distk.models import open_model
    from distk.training.loop import train

    ready, rows = done
    run = train(ready.settings(ready.variants[1], 1), tmp_path / "alone", quiet=True)
    found = evaluate(open_model(run.checkpoint, "cpu")[0], ["covstats"], seed=1)["metrics"]["covstats"]
    assert rows[3]["covstats.cvr"] == pytest.approx(found["cvr"], rel=1e-6)


def test_what_is_done_is_not_done_again_and_more_seeds_join(done, tiny, monkeypatch) -> None:
    ready, rows = done
    before = {p: p.stat().st_mtime_ns for p in ready.out.rglob("*.safetensors")}
    monkeypatch.setattr("distk.study.local.Local.submit", lambda *_: pytest.fail("a job that is done was submitted"))
    assert engine.run(ready, quiet=True) == rows
    fewer = made(tiny, ready.out, seeds="1")
    assert engine.run(fewer, quiet=True) == rows, "rows of seeds that are not asked for stay"
    assert {p: p.stat().st_mtime_ns for p in ready.out.rglob("*.safetensors")} == before


def test_other_settings_and_other_studies_in_the_same_folder_are_refused(done, tiny, tmp_path) -> None:
    ready, _ = done
    before = (ready.out / "study.json").read_bytes()
    with pytest.raises(
        UsageError, match=r"holds 'free' with train.steps = 40, and 41 is asked for: give another --out"
    ):
        engine.run(made(tiny, ready.out, sets=["train.steps=41"]), quiet=True)
    other = tmp_path / "other.toml"
    other.write_text(TINY)
    with pytest.raises(UsageError, match="holds study 'tiny', not 'other'"):
        engine.run(made(other, ready.out), quiet=True)
    assert (ready.out / "study.json").read_bytes() == before
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match="holds something else than a study"):
        engine.run(made(tiny, taken), quiet=True)
    with pytest.raises(UsageError, match="is a file, not a folder"):
        engine.run(made(tiny, taken / "thesis.txt"), quiet=True)
    assert [p.name for p in taken.iterdir()] == ["thesis.txt"]


def test_two_processes_never_share_a_folder(tiny, tmp_path) -> None:
    ready = made(tiny, tmp_path / "out")
    with store.claimed(ready), pytest.raises(DistkError, match="another process is running the study"):
        engine.run(ready, quiet=True)


def test_a_column_that_comes_later_is_scored_without_training(done, tmp_path, instant) -> None:
    ready, rows = done
    import shutil

    copy = shutil.copytree(ready.out, tmp_path / "copy")
    more = tmp_path / "tiny.toml"
    more.write_text(TINY.replace('"covstats.mapc"]', '"covstats.mapc", "covstats.trace"]'))
    columns = engine.run(made(more, copy), engine="instant", quiet=True)
    assert [r["covstats.cvr"] for r in columns] == [r["covstats.cvr"] for r in rows]
    assert all(r["covstats.trace"] > 0 for r in columns)


def test_a_run_that_fails_is_named_and_the_others_go_on(tmp_path, instant) -> None:
    recipe = tmp_path / "f.toml"
    recipe.write_text(
        TINY.partition("[published")[0].replace("lr = [0.01]", "lr = [0.01, 1e30]").replace("seeds = 2", "seeds = 1")
    )
    ready = made(recipe, tmp_path / "out")
    with pytest.raises(StudyFailed) as caught:
        engine.run(ready, engine="instant", quiet=True)
    message = str(caught.value)
    assert message.startswith("1 of 3 runs failed. covreg-linear lr=1e+30, seed 0: ")
    assert "lower the learning rate" in message
    assert caught.value.exit_code == 1
    told = status(ready.out)
    assert told["counts"] == {"done": 2, "failed": 1}
    assert "lower the learning rate" in next(r["reason"] for r in told["runs"] if r["state"] == "failed")
    assert len(report(ready.out).rows) == 2


def test_a_metric_that_fails_leaves_its_cell_empty_and_says_why(tmp_path, instant) -> None:
    recipe = tmp_path / "e.toml"
    text = (
        TINY.partition("[published")[0]
        .replace('"covstats.mapc"', '"clsacc.hungarian"')
        .replace("seeds = 2", "seeds = 1")
    )
    recipe.write_text(text)
    ready = made(recipe, tmp_path / "out")
    rows = engine.run(ready, engine="instant", quiet=True)
    assert [r["clsacc.hungarian"] for r in rows] == [None, None]
    assert (ready.out / "results.csv").read_text().splitlines()[1].endswith(",")
    lines = report(ready.out).lines
    assert {(n.column, n.n, n.sd) for n in lines} == {("covstats.cvr", 1, None)}
    with store.claimed(ready) as held:
        told = engine.reasons(ready, held)
    assert len(told) == 1  # one reason, whatever number of variants
    variants = "; ".join(v.label for v in ready.variants)
    assert told[0].startswith(f"clsacc.hungarian is empty for {variants}: ")


def test_the_selected_state_and_the_last_are_both_in_the_table(tmp_path, instant) -> None:
    recipe = tmp_path / "s.toml"
    select = '[select]\nby = "covstats.cvr"\nevery = 10\n[options.covstats]\nlayer = "code"\n[train]'
    recipe.write_text(TINY.replace("[train]", select, 1).replace("seeds = 2", "seeds = 1"))
    ready = made(recipe, tmp_path / "out")
    assert ready.settings(ready.variants[0], 0).train.keep == "best:covstats:layer=code"
    rows = engine.run(ready, engine="instant", quiet=True)
    folder = ready.out / "runs" / "free" / "s0"
    assert (folder / "best.safetensors").exists()
    assert set(rows[0]) == {
        "variant",
        "seed",
        *(c for m in ("cvr", "mapc") for c in (f"covstats.{m}", f"covstats.{m} (last)")),
    }
    # The selected state is the best of the four that were looked at, the last among them, in the metric's direction.
    from distk.registry import registry

    higher = registry().find("metric", "covstats").load().higher_is_better
    best, last = rows[0]["covstats.cvr"], rows[0]["covstats.cvr (last)"]
    assert best >= last - 1e-9 if higher else best <= last + 1e-9
    heads = [line.column for line in report(ready.out).lines]
    assert heads.count("covstats.cvr (last)") == 2


def test_another_engine_gives_the_same_figures(done, tiny, tmp_path, instant) -> None:
    _, rows = done
    ready = made(tiny, tmp_path / "out", seeds="1")
    found = engine.run(ready, engine="instant", quiet=True)
    assert found == [r for r in rows if r["seed"] == 0]
    with pytest.raises(UsageError, match=r"unknown engine 'instnt'. Did you mean 'instant'"):
        engine.run(ready, engine="instnt", quiet=True)


# Stopping and killing: `long` takes long enough to be met in the middle


def begin(recipe: Path, out: Path, jobs: int = 1) -> subprocess.Popen:
    command = [sys.executable, "-m", "distk", "study", "run", str(recipe), "--out", str(out), "--device", "cpu"]
    command += ["--scale", "long", "--jobs", str(jobs)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def family(pid: int) -> list[int]:
    """A process and all that descend from it."""
    children = []
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            children += family(int(line))
    return [pid, *children]


def kill_all(process: subprocess.Popen) -> None:
    for pid in family(process.pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.communicate()


def steps_of(out: Path) -> list[int]:
    found = []
    for path in out.glob("runs/*/*/checkpoint.safetensors"):
        with contextlib.suppress(DistkError):
            found.append(job.step_of(path.parent) or 0)
    return found


def meet(out: Path, process: subprocess.Popen, beyond: int) -> None:
    """Wait until all runs together are beyond so many steps."""
    end = time.monotonic() + 300
    while sum(steps_of(out)) <= beyond:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.02)


def finish(process: subprocess.Popen) -> None:
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors


@pytest.fixture
def undisturbed(tiny, tmp_path, instant) -> bytes:
    """results.csv of the long study, made in this process and never disturbed."""
    ready = made(tiny, tmp_path / "undisturbed", scale="long")
    engine.run(ready, engine="instant", quiet=True)
    return (ready.out / "results.csv").read_bytes()


def test_killed_and_finished_is_undisturbed(undisturbed, tiny, tmp_path) -> None:
    out = tmp_path / "out"
    process = begin(tiny, out, jobs=2)
    meet(out, process, 100)
    kill_all(process)
    assert 100 < sum(steps_of(out)) < 4 * STEPS, "it was not met in the middle"
    finish(begin(tiny, out, jobs=2))
    assert (out / "results.csv").read_bytes() == undisturbed


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_every_run_and_the_same_command_goes_on(undisturbed, tiny, tmp_path, number) -> None:
    out = tmp_path / "out"
    process = begin(tiny, out, jobs=2)
    meet(out, process, 50)
    process.send_signal(number)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 128 + number, errors
    assert "stopped; everything is saved. Give the same command again to go on" in " ".join(errors.split())
    assert 50 < sum(steps_of(out)) < 4 * STEPS
    finish(begin(tiny, out, jobs=2))
    assert (out / "results.csv").read_bytes() == undisturbed


@pytest.mark.slow
def test_killed_five_times_at_random_moments_and_finished_is_undisturbed(undisturbed, tiny, tmp_path, seed) -> None:
    out, chance = tmp_path / "out", random.Random(seed)
    for _ in range(5):
        process = begin(tiny, out, jobs=2)
        target = sum(steps_of(out)) + chance.randrange(1, 4 * STEPS // 6)
        if target < 4 * STEPS:
            meet(out, process, target)
        time.sleep(chance.uniform(0, 1))
        kill_all(process)
    finish(begin(tiny, out, jobs=2))
    assert (out / "results.csv").read_bytes() == undisturbed
