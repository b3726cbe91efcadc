"""The engine `slurm` with submitit's own processes: the same code but for the commands of the queue."""

from __future__ import annotations

import os
import signal
import time

import pytest

from distk.plugins.engines.queues import Entry, LocalQueue, SlurmQueue, named
from distk.plugins.engines.slurm import Config, Slurm, _flags, _words
from distk.study import job, signs
from distk.study import status as states
from distk.study.protocol import Site

from .conftest import kill

submitit = pytest.importorskip("submitit", reason="submitit (extra slurm) is not installed")
LOCAL = ("cluster=local", "watch=0.3")


@pytest.mark.slow
def test_the_head_is_killed_a_job_is_killed_and_the_table_is_the_same(studies, undisturbed) -> None:
    study = studies("slurm", *LOCAL, "together=2").begin()
    study.meet(400)
    study.kill()
    told = study.status()
    assert told["counts"].get("running", 0) >= 2
    assert not told["watched"]
    beyond = next(p for p in study.out.glob("runs/*/*/checkpoint.safetensors") if (job.step_of(p.parent) or 0) >= 400)
    kill([signs.sign(beyond.parent).pid])
    study.begin().end()
    assert study.results == undisturbed("paper")
    again = [steps for steps in study.attempts() if len(steps) > 1]
    assert len(again) >= 1
    assert again[0][-1] >= 400


@pytest.mark.slow
def test_cancelled_without_a_head(studies) -> None:
    study = studies("slurm", *LOCAL, "together=4").begin()
    study.meet(400)
    study.kill()
    told = states.cancel(study.out)
    assert told["asked"] == told["ended"] >= 1
    assert "stopped" in study.states()
    assert "running" not in study.states()
    log = "".join(path.read_text() for path in study.out.glob("runs/*/*/job.log"))
    assert "stops at step" in log, "it was killed, and saved nothing"


def test_settings_become_those_of_sbatch(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(SlurmQueue, "check", lambda self, partition: None)
    config = Config(partition="gpu", memory=0.5, cpus=3, time=7, setup="module load x", sbatch="--nice=3 --exclusive")
    found = Slurm(config, Site(tmp_path, 5, "cuda"))._parameters()
    assert found == {
        "timeout_min": 7,
        "gpus_per_node": 1,
        "name": found["name"],
        "cpus_per_task": 3,
        "mem_gb": 0.5,
        "slurm_partition": "gpu",
        "slurm_setup": ["module load x"],
        "slurm_array_parallelism": 5,
        "slurm_signal_delay_s": 90,
        "slurm_additional_parameters": {"requeue": True, "nice": "3", "exclusive": True},
    }
    assert _flags("") == {}
    assert _words("x\nsbatch: error: Batch job submission failed: No.\n") == (
        "sbatch: error: Batch job submission failed: No"
    )


def test_a_slurm_that_answers_in_these_words(tmp_path, monkeypatch) -> None:
    """What `squeue` prints, from a Slurm 22.05: states, reasons, nodes, and jobs of others."""
    queue = SlurmQueue(tmp_path)
    said = "7_0|PENDING|Priority|\n7_1|RUNNING|None|n1\n8_1|RUNNING|None|n2\n"
    said += "7_2|CANCELLED|None|n3\n7_3|PENDING|BeginTime|\n"
    monkeypatch.setattr(queue, "_told", lambda command: said)
    found = queue.look({"7_0", "7_1", "7_2", "7_3"})
    assert found == {
        "7_0": Entry("PENDING", "Priority"),
        "7_1": Entry("RUNNING", "", "n1"),
        "7_2": Entry("CANCELLED", "", "n3"),
        "7_3": Entry("PENDING", "BeginTime"),
    }
    assert [found[name].open for name in sorted(found)] == [True, True, False, True]


def test_a_job_that_runs_is_asked_once_and_ended_after_a_minute(tmp_path, monkeypatch) -> None:
    queue, calls, now = SlurmQueue(tmp_path), [], [100.0]
    monkeypatch.setattr(queue, "_told", lambda command: calls.append(list(command)))
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    jobs = {"7_0": Entry("PENDING"), "7_1": Entry("RUNNING")}
    queue.cancel(jobs)
    assert calls == [["scancel", "--state=PENDING", "7_0"], ["scancel", "--signal=TERM", "7_1"]]
    calls.clear()
    now[0] += 30
    queue.cancel({"7_1": Entry("RUNNING")})
    assert calls == []
    now[0] += 31
    queue.cancel({"7_1": Entry("RUNNING")})
    assert calls == [["scancel", "7_1"]]


@pytest.mark.parametrize("name", ["", "0", "7;ls", "-1", "7_", "a", "7_0_1", "7 8", "99999999999"])
def test_names_of_a_strangers_file_that_are_no_jobs(name) -> None:
    assert not named(name)
    assert named("7")
    assert named("7_12")


def test_no_process_of_somebody_else_is_touched(tmp_path) -> None:
    queue = LocalQueue(tmp_path)
    assert queue.look({str(os.getpid()), "1"}) == {}
    assert signal.getsignal(signal.SIGTERM) is not None
