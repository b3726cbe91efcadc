"""What a study does with an engine: lost jobs, jobs that went on without it, requests to stop, what others are told."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

from distk import DistkError, UsageError, option
from distk.study import engine, job, signs, store, submitted
from distk.study import status as states
from distk.study.plan import plan
from distk.study.protocol import Ended, Engine, Site, StudyFailed
from distk.training.signals import Interrupted


@dataclass(frozen=True)
class Config:
    losses: int = option(0, "times that every job is lost before it ends well", min=0)
    further: bool = option(False, "a lost job got further")
    silent: bool = option(False, "nothing is ever heard of a job")
    error: str = option("", "every job fails so")


class Fragile(Engine[Config]):
    """An engine whose jobs outlive it, in a list of the class, and are lost as often as its settings say."""

    outlives = True
    queue: ClassVar[dict[str, Path]] = {}
    lost: ClassVar[dict[Path, int]] = {}
    submitted: ClassVar[list[Path]] = []
    cancelled: ClassVar[list[int]] = []

    def __init__(self, config: Config, site: Site) -> None:
        super().__init__(config, site)
        if site.device == "nowhere":
            raise DistkError("the queue does not answer.")
        self.mine: dict[str, Path] = {}
        self.stopped = False

    def submit(self, folders: Sequence[Path]) -> Mapping[Path, str]:
        named = {folder: f"job{len(self.submitted) + i}" for i, folder in enumerate(folders)}
        self.submitted.extend(folders)
        self.queue.update({name: folder for folder, name in named.items()})
        self.mine |= {name: folder for folder, name in named.items()}
        return named

    def found(self, jobs: Mapping[Path, str]) -> Mapping[Path, str]:
        here = {folder: name for folder, name in jobs.items() if self.queue.get(name) == folder}
        self.mine |= {name: folder for folder, name in here.items()}
        return dict.fromkeys(here, "others come first")

    def poll(self) -> list[Ended]:
        if not self.mine or (self.config.silent and not self.stopped):
            return []
        name = next(iter(self.mine))
        folder = self.mine.pop(name)
        del self.queue[name]
        if self.stopped or self.config.error:
            return [Ended(folder, self.config.error or "it never began")]
        if self.lost.get(folder, 0) < self.config.losses:
            self.lost[folder] = self.lost.get(folder, 0) + 1
            if self.config.further:
                (folder / "scores.json").write_text("{}")
                os.utime(folder / "scores.json", (self.lost[folder], self.lost[folder]))
            return [Ended(folder, "the machine is gone.", lost=True)]
        job.carry_out([folder])
        return [Ended(folder)]

    def cancel(self, number: int) -> None:
        self.cancelled.append(number)
        self.stopped = True


@pytest.fixture
def fragile(plugged):
    """The engine of that name, with nothing in its queue."""
    Fragile.queue.clear(), Fragile.lost.clear(), Fragile.submitted.clear(), Fragile.cancelled.clear()
    plugged(
        "fragile",
        {"Fragile": Fragile},
        distk_register_engines=lambda register: register("fragile", "plugged_fragile:Fragile", "falls apart"),
    )
    return Fragile


@pytest.fixture
def made(tiny, tmp_path):
    return plan(str(tiny), out=tmp_path / "out", device="cpu", seeds="1")


def go(made, **settings: object):
    return engine.run(made, engine="fragile", settings=settings, quiet=True)


def test_a_lost_job_is_begun_again_three_times_and_then_fails(made, fragile, capsys) -> None:
    rows = go(made, losses="3")
    assert len(rows) == 2
    assert len(fragile.submitted) == 2 * 4
    assert capsys.readouterr().err.count("the machine is gone; it is begun again") == 6
    assert not (made.out / submitted.FILE).exists()


def test_one_that_never_gets_further_fails_with_its_reason(made, fragile) -> None:
    with pytest.raises(StudyFailed) as caught:
        go(made, losses="99")
    assert str(caught.value) == "2 of 2 runs failed. free, seed 0, covreg-linear lr=0.01, seed 0: the machine is gone."
    assert len(fragile.submitted) == 2 * 4
    told = states.status(made.out)
    assert told["counts"] == {"failed": 2}
    assert {run["reason"] for run in told["runs"]} == {"the machine is gone."}


def test_one_that_gets_further_is_begun_again_for_ever(made, fragile) -> None:
    assert len(go(made, losses="9", further=True)) == 2
    assert len(fragile.submitted) == 2 * 10


def test_a_job_that_is_begun_again_stays_in_the_list(made, fragile) -> None:
    folder = (made.out / "runs" / "free" / "s0").absolute()
    folder.mkdir(parents=True)
    held = submitted.Submitted(made.out, "fragile")
    watch = engine.Watch(Fragile(Config(), Site(made.out.absolute())), held, engine.Stop(), True)
    watch.todo, watch.last, watch.waiting = {folder: "free, seed 0"}, {folder: 40}, {folder}
    watch.submit([folder])
    assert submitted.load(made.out).jobs == {"runs/free/s0": "job0"}
    assert watch.ended(Ended(folder, "gone", lost=True)) == 0
    watch.submit(watch.lost)
    watch.lost = []
    watch.strike_out()
    assert submitted.load(made.out).jobs == {"runs/free/s0": "job1"}, "a killed head would submit it once more"
    watch.ended(Ended(folder))
    watch.strike_out()
    assert not (made.out / submitted.FILE).exists()


def test_many_failures_of_one_kind_are_one_sentence(tiny, tmp_path, fragile) -> None:
    many = plan(str(tiny), out=tmp_path / "out", device="cpu", seeds="4")
    with pytest.raises(StudyFailed, match=r"^8 of 8 runs failed\. free, seed 0 and 7 more: no licence\.$"):
        go(many, error="no licence.")


def test_jobs_that_went_on_are_taken_up_and_nothing_is_submitted_twice(made, fragile, monkeypatch) -> None:
    monkeypatch.setattr(submitted, "watched", lambda out: False)

    def killed(*_) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("distk.study.watch.Watch.look", killed)
    with pytest.raises(KeyboardInterrupt):
        go(made, silent=True)
    assert len(fragile.queue) == 2
    told = states.status(made.out)
    assert (told["engine"], told["watched"], told["counts"]) == ("fragile", False, {"queued": 2})
    assert {run["reason"] for run in told["runs"]} == {"others come first"}
    assert {run["job"] for run in told["runs"]} == {"job0", "job1"}
    monkeypatch.undo()
    assert len(go(made)) == 2
    assert len(fragile.submitted) == 2
    assert states.status(made.out)["counts"] == {"done": 2}


def test_another_engine_leaves_them_alone(made, fragile) -> None:
    held = submitted.Submitted(made.out, "fragile", {}, "cpu")
    with store.claimed(made) as kept:
        folder = kept.run_folder("free", 0).absolute()
    fragile.queue["job7"] = folder
    held.add({folder: "job7"})
    with pytest.raises(
        UsageError, match=r"has jobs with the engine 'fragile': 1 wait or run there\. `distk study cancel"
    ):
        engine.run(made, quiet=True)
    told = states.cancel(made.out)
    assert (told["asked"], told["ended"], told["left"]) == (1, 1, 0)
    assert fragile.cancelled == [15]
    assert len(engine.run(made, quiet=True)) == 2


def test_where_the_queue_cannot_be_asked(made, fragile) -> None:
    engine.job_of(made, made.variants[0], 0)
    with store.claimed(made) as kept:
        folder = kept.run_folder("free", 0).absolute()
        engine.job_of(made, made.variants[0], 0).write(folder)
    held = submitted.Submitted(made.out, "fragile", {}, "nowhere")
    held.add({folder: "job7"})
    run = states.status(made.out)["runs"][0]
    assert run["state"] == "queued"
    assert run["reason"].endswith("the queue cannot be asked from here: the queue does not answer.")
    with pytest.raises(DistkError, match="does not answer"):
        states.cancel(made.out)
    with pytest.raises(UsageError, match=r"cannot be asked \(the queue does not answer\.\) Remove '.*engine.json'"):
        engine.run(made, quiet=True)


def test_a_request_stops_the_process_that_runs_it(made, fragile) -> None:
    begun = made.out / submitted.REQUEST
    looked = engine.Watch.look

    def ask(self) -> None:
        begun.write_bytes(b"")
        looked(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine.Watch, "look", ask)
        with pytest.raises(Interrupted, match="everything is saved") as caught:
            go(made, silent=True)
    assert caught.value.exit_code == 128 + 15
    assert not begun.exists()
    assert fragile.cancelled[0] == 15
    assert states.status(made.out)["counts"] == {"not begun": 2}


def test_long_queues_say_so(made, fragile, monkeypatch, capsys) -> None:
    monkeypatch.setattr("distk.study.watch.SAID", (0.0, 0.0))
    monkeypatch.setattr(Fragile, "waits", lambda self: {"others come first": 2})
    polled = Fragile.poll
    began = time.monotonic()
    monkeypatch.setattr(Fragile, "poll", lambda self: polled(self) if time.monotonic() - began > 2 else [])
    engine.run(made, engine="fragile")
    assert "2 jobs waiting in the queue, after" in capsys.readouterr().err


@pytest.mark.parametrize(
    "damage",
    [
        "{",
        '{"format": 2}',
        '{"format": 1, "engine": "fragile", "jobs": {"/etc": "1"}}',
        '{"format": 1, "engine": "fragile", "jobs": {"runs/../../x": "1"}}',
        '{"format": 1, "engine": "fragile", "jobs": {"runs/a/s0": 1}}',
        '{"format": 1, "engine": "fragile", "settings": 3}',
        '{"format": 1, "else": 3}',
    ],
)
def test_a_damaged_list_of_jobs_is_a_sentence(tmp_path, damage) -> None:
    (tmp_path / submitted.FILE).write_text(damage)
    with pytest.raises(DistkError, match=r"engine.json' is damaged .*: remove it\."):
        submitted.load(tmp_path)


def test_settings_of_the_engine_are_those_that_begin_with_its_word() -> None:
    rest, own = submitted.settings_of(["engine.gpus=0.25", "train.steps=3", "engine.address=a:1", "model.engine.x=1"])
    assert rest == ["train.steps=3", "model.engine.x=1"]
    assert own == {"gpus": "0.25", "address": "a:1"}
    with pytest.raises(UsageError, match=r"^engine 'local' has no setting 'gpus'"):
        submitted.engine("local", {"gpus": "1"}, Site(Path("x")))


# Signs of life


def test_a_sign_is_fresh_while_its_process_is_at_it(tmp_path) -> None:
    assert signs.sign(tmp_path) is None
    with signs.working([tmp_path]):
        found = signs.sign(tmp_path)
        assert found is not None
        assert (found.host, found.pid, found.fresh) == (socket.gethostname(), os.getpid(), True)
        old = time.time() - signs.SILENT - 1
        os.utime(tmp_path / signs.FILE, (old, old))
        assert not signs.sign(tmp_path).fresh
    assert signs.sign(tmp_path) is None


def test_a_sign_is_given_again_and_again(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(signs, "BEAT", 0.02)
    with signs.working([tmp_path]):
        os.utime(tmp_path / signs.FILE, (1, 1))
        end = time.monotonic() + 20
        while (tmp_path / signs.FILE).stat().st_mtime < 2:
            assert time.monotonic() < end
            time.sleep(0.02)


def test_a_killed_process_of_this_machine_counts_for_nothing_at_once(tmp_path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    told = {"host": socket.gethostname(), "pid": gone.pid, "job": "", "since": 1.0}
    (tmp_path / signs.FILE).write_text(json.dumps(told))
    assert not signs.sign(tmp_path).fresh
    (tmp_path / signs.FILE).write_text(json.dumps({**told, "host": "another"}))
    assert signs.sign(tmp_path).fresh


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"host": "a", "pid": "x", "job": "", "since": 0}', '{"pid": 1e400}'])
def test_what_is_no_sign_is_none(tmp_path, text) -> None:
    (tmp_path / signs.FILE).write_text(text)
    assert signs.sign(tmp_path) is None


# The words of the command line


def test_cancel_and_logs_as_text_and_as_json(distk_command, made, instant) -> None:
    engine.run(made, engine="instant", quiet=True)
    code, out, _ = distk_command("study", "cancel", made.out, "--json")
    assert (code, json.loads(out)["asked"]) == (0, 0)
    _, _, errors = distk_command("study", "cancel", made.out)
    assert "waits or runs" in errors
    code, _, errors = distk_command("study", "logs", made.out, "free/s0")
    assert code == 1
    assert "has no log: no job has begun there." in " ".join(errors.split())
    (made.out / "runs/free/s0/job.log").write_text("one\ntwo\x1b[2J\n")
    code, out, _ = distk_command("study", "logs", made.out, "runs/free/s0", "--lines", "1")
    assert code == 0
    assert out.startswith("two")
    assert "\x1b" not in out
    code, out, _ = distk_command("study", "logs", made.out, "free/s0", "--json")
    assert json.loads(out)["lines"][0] == "one"
    for wrong in ("free/s9", "fee/s0", "free", "../x/s0"):
        code, _, errors = distk_command("study", "logs", made.out, wrong)
        assert code == 2
        assert "unknown run '" in errors


def test_a_study_with_a_runner_stays_here(tiny, tmp_path, plugged, fragile) -> None:
    def rows(study):
        yield from ({"variant": v.label, "seed": s, "x": 1.0} for v, s in study.todo())

    (tmp_path / "r.toml").write_text('columns = ["x"]\nrunner = "rows"\nseeds = 1\n')
    plugged(
        "rows",
        {"rows": rows},
        distk_register_studies=lambda register: register(
            "rows", "plugged_rows:r.toml", "rows", runner="plugged_rows:rows"
        ),
    )
    own = plan(str(tmp_path / "r.toml"), out=tmp_path / "out")
    with pytest.raises(UsageError, match="makes its rows in one process on this machine: leave --engine fragile away"):
        engine.run(own, engine="fragile", quiet=True)
