"""Studies on a real Ray cluster of this machine: the same figures whatever happens."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from distk import DistkError, UsageError
from distk.study import engine, submitted
from distk.study import status as states
from distk.study.plan import plan
from distk.study.protocol import Site

from .conftest import below, kill, until

pytestmark = pytest.mark.slow
ray = pytest.importorskip("ray", reason="ray (extra ray) is not installed")
CALLED = "ray::in_worker"


@pytest.fixture
def cluster(tmp_path_factory) -> Iterator[str]:
    """A cluster of two cores that stands on its own, as on other machines; its address."""
    code = (
        "import ray, sys, time\n"
        "told = ray.init(num_cpus=2, object_store_memory=200 << 20, include_dashboard=False, log_to_driver=False)\n"
        "print(told.address_info['gcs_address'], flush=True)\n"
        "sys.stdin.read()\n"
    )
    process = subprocess.Popen(
        ["env", "RAY_worker_niceness=0", sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    address = process.stdout.readline().strip()
    assert re.fullmatch(r"[\d.]+:\d+", address), address
    yield address
    process.communicate("")


def workers(pid: int) -> list[int]:
    """The workers below a process that are at a job."""
    found = []
    for each in below(pid):
        with open(f"/proc/{each}/cmdline", "rb") as file:
            if CALLED.encode() in file.read():
                found.append(each)
    return found


def test_a_worker_is_killed_and_the_table_is_the_same(studies, undisturbed) -> None:
    study = studies("ray").begin()
    study.meet(400, runs=2)
    kill(workers(study.process.pid)[:1])
    said = " ".join(study.end().split())
    assert "its worker is gone" in said
    assert "it is begun again" in said
    assert study.results == undisturbed("paper")
    again = [steps for steps in study.attempts() if len(steps) > 1]
    assert len(again) == 1
    assert again[0][1] >= 400, "begun anew instead of taken up"


def test_the_head_is_killed_and_started_again(studies, undisturbed, cluster, monkeypatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")  # a cluster that `ray.init` has started asks for one
    study = studies("ray", f"address={cluster}").begin()
    study.meet(400)
    assert study.states().get("running", 0) >= 1
    study.kill()
    until(lambda: "running" not in study.states(), 120)
    assert set(study.states()) <= {"stopped", "not begun", "done", "not scored"}
    study.begin().end()
    assert study.results == undisturbed("paper")
    assert any(len(steps) > 1 and steps[1] >= 400 for steps in study.attempts())


def test_cancelled_from_elsewhere(studies) -> None:
    study = studies("ray", "together=2").begin()
    study.meet(400)
    told = states.cancel(study.out)
    assert told["asked"] >= 1
    assert told["left"] == 0
    assert "everything is saved" in " ".join(study.end(128 + signal.SIGTERM).split())
    log = "".join(path.read_text() for path in study.out.glob("runs/*/*/job.log"))
    assert re.search(r"stops at step [1-9]\d* on", log)


def test_mistakes_are_a_sentence_each_and_nothing_is_written(recipe, tmp_path) -> None:
    made = plan(str(recipe), out=tmp_path / "out", scale="small", device="cpu")

    def refused(error: type[DistkError], **settings: str) -> str:
        with pytest.raises(error) as caught:
            engine.run(made, engine="ray", settings=settings, quiet=True)
        assert not made.out.exists()
        return str(caught.value)

    told = refused(DistkError, address="127.0.0.1:9")
    assert told == "the Ray cluster at '127.0.0.1:9' does not answer: Connection refused."
    told = refused(UsageError, address="somewhere:port")
    assert told == "engine 'ray': 'somewhere:port' is no address; write HOST:PORT, as `ray start` prints it, or auto."
    assert "a run asks for 1 cores and 0.5 GPUs, and no machine of the Ray cluster has more" in refused(
        UsageError, gpus="0.5"
    )
    assert not ray.is_initialized()


def test_a_folder_that_another_machine_does_not_see(tmp_path) -> None:
    found = submitted.engine("ray", {}, Site(tmp_path, 1))
    try:
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL, "ray put a handler of its own in place"
        found.submit([tmp_path / "runs" / "nowhere" / "s0"])
        ended = []
        until(lambda: ended.extend(found.poll()) or ended)
    finally:
        found.close()
    assert not ended[0].lost
    assert re.fullmatch(
        r"the machine '.+' does not see '.+/s0': --out must lie on .* all machines .* see", ended[0].error
    )
