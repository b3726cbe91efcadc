"""Runs in forks of one process: what they give, how they end, and what becomes of them when a process is killed."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from distk import checkpoint
from distk.training import forks

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks are used on Linux only")
TINY = ["--data", "blobs", "--batch", "4", "--log-every", "1", "--device", "cpu", "--size", "32", "--positions", "6"]


@pytest.fixture(scope="module")
def server() -> Iterator[forks.Server]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "1000"}
    made = forks.begun(environment, ["distk.training.loop", "distk.plugins.vae_family.betavae.method"])
    assert made is not None
    yield made
    made.close()


def until(true: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def begin(server: forks.Server, folder: Path, *arguments: str) -> tuple[forks.Run, Path]:
    said = folder / "said.txt"
    said.touch()
    return server.begin(list(arguments), said), said


def test_a_run_in_a_fork_ends_as_a_program_does(server: forks.Server, tmp_path: Path) -> None:
    assert len(os.listdir(f"/proc/{server.process.pid}/task")) == 1
    run, said = begin(server, tmp_path, "train", "betavae", "--steps", "2", "--out", str(tmp_path / "r"), *TINY)
    run.wait()
    assert run.returncode == 0, said.read_text()
    assert checkpoint.read_header(tmp_path / "r/checkpoint.safetensors").step == 2
    wrong, said = begin(server, tmp_path, "train", "betavae", "--steps", "-1")
    wrong.wait()
    assert wrong.returncode == 2
    assert "-1 is below the smallest" in said.read_text()
    assert "Traceback" not in said.read_text()


def test_several_run_at_once_and_a_signal_reaches_one(server: forks.Server, tmp_path: Path) -> None:
    long = ["train", "betavae", "--steps", "1000000", *TINY]
    folders = [tmp_path / name for name in ("a", "b")]
    runs = []
    for folder in folders:
        folder.mkdir()
        runs.append(begin(server, folder, *long, "--out", str(folder / "r"))[0])
    until(
        lambda: all((folder / "r/log.jsonl").exists() and (folder / "r/log.jsonl").stat().st_size for folder in folders)
    )
    runs[0].send_signal(signal.SIGTERM)
    until(lambda: runs[0].poll() is not None)
    assert runs[0].returncode == 128 + signal.SIGTERM
    assert "resume" in (folders[0] / "said.txt").read_text()
    assert runs[1].poll() is None
    runs[1].kill()
    until(lambda: runs[1].poll() is not None)
    assert runs[1].returncode == -signal.SIGKILL


def test_runs_save_and_stop_when_their_server_is_killed(tmp_path: Path) -> None:
    made = forks.begun({**os.environ, "OMP_NUM_THREADS": "1"}, ["distk.training.loop"])
    assert made is not None
    run, said = begin(made, tmp_path, "train", "betavae", "--steps", "1000000", "--out", str(tmp_path / "r"), *TINY)
    log = tmp_path / "r/log.jsonl"
    until(lambda: log.exists() and log.stat().st_size)
    made.process.kill()
    until(lambda: "everything is saved" in said.read_text())
    assert run.poll() is not None
    with pytest.raises(BrokenPipeError):
        begin(made, tmp_path, "list")
    made.close()
    assert checkpoint.read_header(tmp_path / "r/checkpoint.safetensors").step > 0


def test_a_process_with_threads_of_its_own_does_not_fork(tmp_path: Path) -> None:
    (tmp_path / "threaded.py").write_text(
        "import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    assert forks.begun(environment, ["threaded"]) is None
    assert forks.begun(environment, ["no_such_module_at_all"]) is None
