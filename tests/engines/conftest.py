"""A study that takes seconds a run, what it gives undisturbed, and the clusters that run it."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from distk.study import engine, job
from distk.study import status as states
from distk.study.plan import plan

RECIPE = """
columns = ["covstats.cvr", "covstats.mapc"]
seeds = 2
[data]
name = "dimred"
items = 64
[train]
steps = 8000
batch = 32
checkpoint_every = 400
log_every = 400
[[variants]]
label = "free"
method = "covreg-linear"
[[variants]]
label = "fast"
method = "covreg-linear"
model = { lr = 0.01 }
[scale.small]
train = { steps = 40, checkpoint_every = 20 }
"""
SCRIPT = Path(__file__).with_name("one_node_slurm.sh")
PATIENCE = 400
LAST = 8000


@pytest.fixture(scope="session")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study as a file: runs of a few seconds at scale paper, of a moment at scale small."""
    path = tmp_path_factory.mktemp("recipe") / "lines.toml"
    path.write_text(RECIPE)
    return path


@pytest.fixture(scope="session")
def undisturbed(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], bytes]:
    """`undisturbed(scale)`: results.csv as the engine `local` makes it when nothing happens."""
    made: dict[str, bytes] = {}

    def csv(scale: str) -> bytes:
        if scale not in made:
            out = tmp_path_factory.mktemp("undisturbed") / "out"
            engine.run(plan(str(recipe), out=out, scale=scale, device="cpu"), jobs=1, quiet=True)
            made[scale] = (out / "results.csv").read_bytes()
        return made[scale]

    return csv


@pytest.fixture
def studies(recipe: Path, tmp_path: Path) -> Iterator[Callable[..., Study]]:
    """`studies("slurm", "watch=1", scale="small")`: the study with an engine and its settings, in its own folder."""
    made: list[Study] = []

    def make(engine: str, *sets: str, out: Path = tmp_path / "out", scale: str = "paper") -> Study:
        made.append(Study(recipe, out, engine, *sets, scale=scale))
        return made[-1]

    yield make
    for each in made:
        if each.process is not None and each.process.poll() is None:
            each.kill()


class Study:
    """A study that a process of its own runs, which may be killed."""

    def __init__(self, recipe: Path, out: Path, engine: str, *sets: str, scale: str = "paper") -> None:
        self.out, self.engine = out, engine
        self.words = ["study", "run", str(recipe), "--out", str(out), "--engine", engine, "--scale", scale]
        self.words += ["--device", "cpu", *(word for each in sets for word in ("--set", f"engine.{each}"))]
        self.process: subprocess.Popen[str] | None = None

    def begin(self) -> Study:
        """Start the process, or start it again."""
        command = [sys.executable, "-m", "distk", *self.words]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        return self

    def kill(self) -> None:
        """The process of the study is gone, from one moment to the next."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate()

    def end(self, code: int = 0) -> str:
        """Wait for the end; what it said."""
        assert self.process is not None
        said, _ = self.process.communicate(timeout=PATIENCE)
        assert self.process.returncode == code, said
        return said

    def status(self) -> dict[str, Any]:
        """What another process, here that of the test, is told of this study."""
        return states.status(self.out)

    def states(self) -> dict[str, int]:
        """How many runs are in which state."""
        return self.status()["counts"]

    def meet(self, steps: int, runs: int = 1) -> None:
        """Wait until so many runs are beyond so many steps, and not at their end."""

        def met() -> bool:
            assert self.process is None or self.process.poll() is None, self.end()
            found = [job.step_of(p.parent) or 0 for p in self.out.glob("runs/*/*/checkpoint.safetensors")]
            assert sum(step >= LAST for step in found) < 4, "it was not met in the middle"
            return sum(steps <= step < LAST for step in found) >= runs

        until(met)

    def attempts(self) -> list[list[int]]:
        """For each run the steps at which its jobs began. Each is done once, and nothing begins after that."""
        found = []
        for log in sorted(self.out.glob("runs/*/*/job.log")):
            lines = re.findall(r"(begins|is done|stops|fails) at step (\d+) on", log.read_text())
            assert [what for what, _ in lines].count("is done") == 1, log.read_text()
            assert lines[-1][0] == "is done", log.read_text()
            found.append([int(step) for what, step in lines if what == "begins"])
        return found

    @property
    def results(self) -> bytes:
        """results.csv."""
        return (self.out / "results.csv").read_bytes()


def until(met: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Wait until something is so."""
    end = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.2)


def kill(pids: list[int]) -> None:
    """End processes as a machine does that loses its power."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def below(pid: int) -> list[int]:
    """A process and all that descend from it."""
    found = []
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            found += below(int(line))
    return [pid, *found]


class OneNode:
    """A Slurm of one node; see one_node_slurm.sh."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def script(self, what: str) -> None:
        """Call the script."""
        subprocess.run(["bash", SCRIPT, what, self.folder], check=True, capture_output=True, text=True)

    def told(self, *command: str) -> str:
        """What a command of Slurm prints."""
        environment = {**os.environ, "SLURM_CONF": str(self.folder / "slurm.conf")}
        return subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout

    def arrays(self) -> set[str]:
        """The job arrays that it knows, ended ones among them."""
        return {line.partition("_")[0] for line in self.told("squeue", "-h", "-r", "-t", "all", "-o", "%i").split()}

    def now(self) -> None:
        """Let jobs that were queued again begin at once; else Slurm waits two minutes."""
        for line in self.told("squeue", "-h", "-r", "-t", "PD", "-o", "%i|%r").splitlines():
            name, _, reason = line.partition("|")
            if reason == "BeginTime":
                subprocess.run(["scontrol", "update", f"jobid={name}", "StartTime=now"], capture_output=True)

    def soon(self, study: Study) -> None:
        """Wait for the end of a study, and let nothing else do so."""
        assert study.process is not None
        until(lambda: self.now() or study.process.poll() is not None)

    def node(self) -> int:
        """The process of the node."""
        return int((self.folder / "node.pid").read_text())

    def lose_the_node(self) -> None:
        """The node with everything on it is gone."""
        daemon = self.node()
        steps = self.told("pgrep", "-f", "slurmstepd: \\[").split()
        kill([daemon, *(pid for step in steps for pid in below(int(step)))])
        until(lambda: re.search(r"down", self.told("sinfo", "-h", "-o", "%T")), 120)


@pytest.fixture(scope="session")
def one_node() -> Iterator[OneNode]:
    """A Slurm of this machine alone, until the session ends."""
    pytest.importorskip("submitit", reason="submitit (extra slurm) is not installed")
    missing = [name for name in ("slurmctld", "slurmd", "munged", "sbatch") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"no Slurm on this machine ({missing[0]} is missing): apt-get install slurm-wlm munge")
    found = OneNode(Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp")))
    try:
        found.script("start")
        yield found
    finally:
        found.script("stop")
        shutil.rmtree(found.folder, ignore_errors=True)


@pytest.fixture
def slurm(one_node: OneNode, monkeypatch: pytest.MonkeyPatch) -> Iterator[OneNode]:
    """That Slurm, for the commands of this test; what the test leaves in its queue is cancelled."""
    monkeypatch.setenv("SLURM_CONF", str(one_node.folder / "slurm.conf"))
    yield one_node
    one_node.told("scancel", "--me")
    one_node.told("scancel", "--me", "--signal=KILL")
    until(lambda: not one_node.told("squeue", "-h"), 60)
