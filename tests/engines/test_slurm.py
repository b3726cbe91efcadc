"""Studies on a real Slurm of one node: the same figures whatever happens, and mistakes in a sentence each."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from distk import DistkError, UsageError
from distk.plugins.engines.slurm import Config, Slurm
from distk.study import engine
from distk.study import status as states
from distk.study.plan import plan
from distk.study.protocol import Site

from .conftest import OneNode, below, kill, until

pytestmark = pytest.mark.slow
QUICK = "watch=0.5"


def test_an_array_gives_the_same_table_and_leaves_nothing(slurm, studies, undisturbed) -> None:
    study = studies("slurm", QUICK, "together=2", scale="small").begin()
    said = study.end()
    assert "2 jobs of Slurm" in said
    assert study.results == undisturbed("small")
    assert study.attempts() == [[0]] * 4
    assert study.states() == {"done": 4}
    assert not (study.out / "jobs").exists()
    assert not (study.out / "engine.json").exists()
    assert not list(study.out.rglob("working.json"))
    log = states.log_of(study.out, "free/s1").read_text()
    assert re.search(r"free/s1 is done at step 40 on \S+, process \d+, job \d+_0\n", log)


def test_preempted_and_queued_again(slurm: OneNode, studies, undisturbed) -> None:
    study = studies("slurm", QUICK, "partition=low").begin()
    study.meet(400, runs=2)
    slurm.told("sbatch", "-p", "high", "--exclusive", "-o", "/dev/null", "--wrap", "sleep 8")
    until(lambda: not slurm.told("squeue", "-h", "-t", "R,CG", "-p", "low"))
    assert study.states() == {"queued": 4}
    until(lambda: slurm.now() or not slurm.told("squeue", "-h", "-p", "high"))
    slurm.soon(study)
    study.end()
    assert study.results == undisturbed("paper")
    again = [steps for steps in study.attempts() if len(steps) > 1]
    assert len(again) == 2
    assert all(steps[1] >= 400 for steps in again), "begun anew instead of taken up"
    assert len({name for name in slurm.arrays() if name}) >= 2


def test_a_node_is_lost_and_comes_back(slurm: OneNode, studies, undisturbed) -> None:
    study = studies("slurm", QUICK).begin()
    study.meet(400, runs=2)
    slurm.lose_the_node()
    assert study.states() == {"queued": 4}
    slurm.script("node")
    slurm.soon(study)
    study.end()
    assert study.results == undisturbed("paper")
    again = [steps for steps in study.attempts() if len(steps) > 1]
    assert len(again) == 2
    assert all(steps[1] >= 400 for steps in again)


def test_the_head_is_killed_and_started_again(slurm: OneNode, studies, undisturbed) -> None:
    before = slurm.arrays()
    study = studies("slurm", QUICK).begin()
    study.meet(400)
    study.kill()
    told = study.status()
    assert told["engine"] == "slurm"
    assert not told["watched"]
    assert told["counts"].get("running", 0) >= 1
    assert sum(told["counts"].values()) == 4
    running = next(run for run in told["runs"] if run["state"] == "running")
    assert running["job"].partition("_")[0] in slurm.arrays() - before
    assert running["where"]
    said = study.begin().end()
    assert "in the queue already, from an earlier call" in said
    assert study.results == undisturbed("paper")
    assert study.attempts() == [[0]] * 4, "a run was done twice, or from its beginning"
    assert len(slurm.arrays() - before) == 1, "something was submitted again"


def test_near_its_time_limit_a_run_saves_and_is_queued_again(slurm: OneNode, studies, undisturbed) -> None:
    study = studies("slurm", QUICK).begin()
    study.meet(400)
    told = study.status()["runs"]
    name = next(run["job"] for run in told if run["state"] == "running" and (run["step"] or 0) >= 400)
    # What Slurm sends before the limit. It may complain of a job that leaves the node while it is told.
    subprocess.run(["scancel", "--signal=USR2", name], capture_output=True)
    until(lambda: f"{name}|PENDING" in slurm.told("squeue", "-h", "-r", "-o", "%i|%T"), 60)
    slurm.soon(study)
    study.end()
    assert study.results == undisturbed("paper")
    again = [steps for steps in study.attempts() if len(steps) > 1]
    assert len(again) == 1
    assert again[0][1] >= 400


def test_cancelled_from_elsewhere_and_gone_on_with(slurm: OneNode, studies, undisturbed) -> None:
    study = studies("slurm", QUICK).begin()
    study.meet(400)
    told = states.cancel(study.out)
    assert told["asked"] >= 2
    assert told["left"] == 0
    assert "everything is saved" in " ".join(study.end(128 + signal.SIGTERM).split())
    assert not slurm.told("squeue", "-h")
    # Again, with nobody who watches.
    study.begin().meet(2000)
    study.kill()
    told = states.cancel(study.out)
    assert told["ended"] == told["asked"] >= 2
    assert not slurm.told("squeue", "-h")
    assert set(study.states()) <= {"stopped", "not begun", "done"}
    study.begin().end()
    assert study.results == undisturbed("paper")
    assert sum(len(steps) > 1 for steps in study.attempts()) >= 1


def test_a_job_that_somebody_cancels_or_kills(slurm: OneNode, studies, undisturbed) -> None:
    study = studies("slurm", QUICK).begin()
    study.meet(400, runs=2)
    running = [run for run in study.status()["runs"] if run["state"] == "running"]
    slurm.told("scancel", running[0]["job"])
    step = next(
        p for p in slurm.told("pgrep", "-f", f"distk.study.job .*{Path(running[1]['folder']).parent.name}/s1").split()
    )
    kill([int(step)])
    said = study.end(1)
    assert f"job {running[0]['job']} was cancelled" in " ".join(said.split())
    assert "it is begun again" in " ".join(said.split())
    assert study.states() == {"failed": 1, "done": 3}
    study.begin().end()
    assert study.results == undisturbed("paper")


def test_a_folder_that_the_node_does_not_see(slurm: OneNode, studies) -> None:
    hidden = Path("/tmp") / f"hidden-{time.time_ns()}"
    hidden.mkdir()
    try:
        kill(below(slurm.node()))
        blind = f"mount -t tmpfs none {hidden} && exec slurmd"
        if subprocess.run(["unshare", "-m", "bash", "-c", blind], capture_output=True).returncode:
            slurm.script("node")
            pytest.skip("no file system can be hidden from a process here")
        slurm.script("node") if not slurm.told("sinfo", "-h", "-o", "%T") else None
        study = studies("slurm", QUICK, out=hidden / "out", scale="small").begin()
        said = " ".join(study.end(1).split())
        assert "4 of 4 runs failed" in said
        assert f"without a trace in '{hidden}/out': --out must lie on a file system that all nodes see." in said
        assert study.states() == {"failed": 4}
    finally:
        kill(below(slurm.node()))
        slurm.script("node")
        shutil.rmtree(hidden)


def test_mistakes_are_a_sentence_each_and_nothing_is_written(slurm: OneNode, recipe, tmp_path) -> None:
    made = plan(str(recipe), out=tmp_path / "out", scale="small", device="cpu")

    def refused(**settings: str) -> str:
        with pytest.raises(UsageError) as caught:
            engine.run(made, engine="slurm", settings=settings, quiet=True)
        assert not made.out.exists()
        return str(caught.value)

    told = refused(partition="lowe")
    assert told == "unknown partition 'lowe' of this Slurm. Did you mean 'low'? Available: high, low."
    assert refused(tine="3") == "engine 'slurm' has no setting 'tine'. Did you mean 'time'?"
    assert refused(time="0") == "engine 'slurm', 'time': 0 is below the smallest allowed value 1."
    assert refused(sbatch="-x") == "engine 'slurm', 'sbatch': write --KEY=VALUE, not '-x'."
    with pytest.raises(DistkError, match=r"^Slurm refuses the jobs: sbatch: error: .*[^.]\.$"):
        engine.run(made, engine="slurm", settings={"gpus": "3"}, quiet=True)


def test_a_controller_that_does_not_answer(slurm: OneNode, tmp_path, monkeypatch) -> None:
    silent = tmp_path / "slurm.conf"
    text = (slurm.folder / "slurm.conf").read_text()
    silent.write_text("".join(f"{line}\n" for line in text.splitlines() if "SlurmctldPort" not in line))
    monkeypatch.setenv("SLURM_CONF", str(silent))
    with pytest.raises(DistkError, match=r"^Slurm does not answer: .*Ask again when `sinfo` does\.$"):
        Slurm(Config(), Site(tmp_path))


def test_no_slurm_here(tmp_path, monkeypatch) -> None:
    pytest.importorskip("submitit", reason="submitit (extra slurm) is not installed")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DistkError, match=r"no Slurm on this machine \(sbatch is not found\): run the study on a login"):
        Slurm(Config(), Site(tmp_path))
    with pytest.raises(UsageError, match="no partition 'low' with cluster=local"):
        Slurm(Config(cluster="local", partition="low"), Site(tmp_path))
