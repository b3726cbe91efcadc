"""Several processes that train together: the result of one process, agreed stops, and no hang when one of them dies."""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from distk import Dataset, DataSpec, Latent, LatentSpace, Method, Objective, checkpoint, sgd
from distk.data import Files
from distk.device import Ranks, join_ranks
from distk.run import Run
from distk.settings import TrainConfig, resolve
from distk.training import loop
from distk.training.trainer import NonFinite, Trainer

_spec = importlib.util.spec_from_file_location("soak", Path(__file__).parents[3] / "benchmarks" / "soak.py")
soak = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(soak)

# Up to the end of warm-up nothing couples the items of a batch, so its split over processes cannot matter.
SMALL = [
    *("cascadevae", "--z", "2", "--hidden", "8", "--warmup", "1000000", "--relieve-every", "20", "--size", "32"),
    *("--scales", "5", "--orientations", "1", "--positions", "6", "--batch", "8", "--log-every", "3"),
    *("--device", "cpu", "--seed", "4"),
]


@pytest.fixture(scope="module", autouse=True)
def warm() -> None:
    soak.warm()


def world(n: int) -> list[dict[str, str]]:
    """What torchrun sets in the environment of n processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": str(n), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "DISTK_RANK_TIMEOUT": "120"}
    return [{**shared, "RANK": str(i), "LOCAL_RANK": str(i)} for i in range(n)]


def together(arguments: list[str], folder: Path, n: int = 2) -> list:
    """`distk` in n processes, as torchrun starts it."""
    return [soak.Process(arguments, folder, **environment) for environment in world(n)]


def on_ranks(function: Callable[[Ranks], None], folder: Path, n: int = 2) -> list[str]:
    """Call a function in n processes that have joined; what each of them printed. It fails where one of them fails."""

    def prepare() -> None:
        function(join_ranks(torch.device("cpu")))
        raise SystemExit(0)

    processes = [soak.Process([], folder, prepare, **environment) for environment in world(n)]
    codes = [process.wait(120) for process in processes]
    said = [process.said() for process in processes]
    assert codes == [0] * n, said
    return said


def test_two_processes_give_the_result_of_one(tmp_path) -> None:
    train = ["train", *SMALL, "--steps", "9", "--out"]
    processes = together([*train, "two"], tmp_path)
    assert [p.wait(200) for p in processes] == [0, 0], [p.said() for p in processes]
    assert soak.Process([*train, "one"], tmp_path).wait(200) == 0
    one, two = (load_file(tmp_path / name / "checkpoint.safetensors") for name in ("one", "two"))
    assert set(one) == set(two)
    for name, value in one.items():
        if name.startswith("model/") and value.is_floating_point():
            assert (value - two[name]).abs().max() <= 1e-5, name
    assert torch.equal(one["train/generator"], two["train/generator"]), "both draw the same global batch"
    rows = [Run(tmp_path / name, {}).log for name in ("one", "two")]
    assert len(rows[0]) == len(rows[1]) == 3
    for a, b in zip(*rows, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-5), "the log shows the mean over the whole batch"
    own = [line for line in processes[1].said().splitlines() if not line.startswith("[Gloo]")]  # torch 2.9's own words
    assert own == [], "only the first process prints"


def test_a_signal_to_one_process_stops_all_after_the_same_step(tmp_path) -> None:
    train = ["train", *SMALL, "--steps", "100000", "--checkpoint-every", "2", "--out", "r"]
    processes = together(train, tmp_path)
    _until(lambda: _step_of(tmp_path / "r/checkpoint.safetensors") >= 2, processes)  # both are in their loops
    os.kill(processes[1].pid, signal.SIGTERM)
    assert [p.wait(120) for p in processes] == [143, 143], [p.said() for p in processes]
    said = " ".join(processes[0].said().split())
    assert "Continue with: torchrun --nproc-per-node 2 -m distk resume r" in said
    step = checkpoint.read_header(tmp_path / "r/checkpoint.safetensors").step
    processes = together(["resume", "r", "--steps", str(step + 2)], tmp_path)
    assert [p.wait(120) for p in processes] == [0, 0], [p.said() for p in processes]
    assert checkpoint.read_header(tmp_path / "r/checkpoint.safetensors").step == step + 2


@pytest.mark.parametrize("dying", [0, 1])
def test_a_process_that_dies_ends_the_run_with_a_message(tmp_path, dying) -> None:
    train = ["train", *SMALL, "--steps", "100000", "--checkpoint-every", "2", "--out", "r"]
    processes = together(train, tmp_path)
    _until(lambda: (tmp_path / "r/checkpoint.safetensors").exists(), processes)
    processes[dying].kill()
    began = time.monotonic()
    assert processes[1 - dying].wait(60) == 1
    assert time.monotonic() - began < 60
    said = " ".join(processes[1 - dying].said().split())
    assert f"process {1 - dying} lost another process of this run" in said
    assert "unexpected" not in said
    checkpoint.load(tmp_path / "r/checkpoint.safetensors")


def test_a_batch_that_cannot_be_split_is_refused(tmp_path) -> None:
    processes = together(["train", *SMALL, "--batch", "9", "--steps", "2", "--out", "r"], tmp_path)
    assert [p.wait(120) for p in processes] == [2, 2]
    assert "--batch 9 cannot be split over 2 processes" in processes[0].said()


def _step_of(path: Path) -> int:
    """-1 without a checkpoint."""
    return checkpoint.read_header(path).step if path.exists() else -1


def _until(condition: Callable[[], bool], processes: list) -> None:
    deadline = time.monotonic() + 200
    while not condition():
        assert all(p.poll() is None for p in processes), [p.said() for p in processes]
        assert time.monotonic() < deadline
        time.sleep(0.01)


# The trainer under several ranks


class Numbers(Dataset):
    def __init__(self) -> None:
        super().__init__(None, torch.device("cpu"), Files("n", None, ""))
        self.name, self.origin, self.spec = "numbers", "test", DataSpec("vector", (1,))

    def __len__(self) -> int:
        return 100

    def batch(self, rows):
        return {"x": rows[:, None].float()}


class Toy(Method):
    latents = LatentSpace.of(Latent("z", "continuous", 1))

    def __init__(self, loss) -> None:
        super().__init__(None, DataSpec("vector", (1,)))
        self.a, self.norm, self.loss = nn.Parameter(torch.tensor(1.0)), nn.BatchNorm1d(1), loss

    def objectives(self):
        return [Objective("l", lambda step: self.loss(self, step), [self.a], sgd(0.25))]


def toy(ranks: Ranks, loss, **options) -> Trainer:
    return Trainer(Toy(loss), Numbers(), TrainConfig(batch=8, device="cpu", **options), ranks)


def test_ranks_agree_on_losses_statistics_and_health(tmp_path) -> None:
    def all_of_it(ranks: Ranks) -> None:
        def normalised(m, step):
            return m.a * m.norm(step.batch["x"]).square().mean() + m.a * step.batch["x"].mean()

        trainer = toy(ranks, normalised)
        trainer.step()
        whole = toy(Ranks(), lambda m, step: m.a * step.batch["x"].mean())
        drawn = whole.dataset.sample(8, whole.generator)["x"]
        mean = float(drawn.mean())
        assert abs(trainer.model.norm.running_mean.item() - 0.1 * mean) < 1e-4, "statistics of the whole batch"
        assert trainer.drain()["l"] == pytest.approx(mean + 1, rel=1e-3), "the logged loss is that of the whole batch"

        # A loss that is bad on the last rank only: every rank refuses to go on, and the first refuses to save.
        trainer = toy(ranks, lambda m, step: m.a / (ranks.rank != 1 or int(step.index) != 2))
        for _ in range(3):
            trainer.step()
        with pytest.raises(NonFinite, match="step 2"):
            trainer.check_health()

        # Skipped on every rank when it is bad on one of them.
        bad = lambda m, step: m.a * (torch.nan if ranks.rank == 1 and int(step.index) == 1 else 1)  # noqa: E731
        trainer = toy(ranks, bad, on_nonfinite="skip")
        for _ in range(3):
            trainer.step()
        assert trainer.model.a.item() == 0.5
        assert ranks.largest(7 * ranks.rank) == 7

    on_ranks(all_of_it, tmp_path)


def test_methods_with_a_state_of_their_own_train_in_one_process() -> None:
    model = Toy(lambda m, step: m.a)
    model.training_state = lambda: {"worlds": torch.zeros(3)}
    with pytest.raises(Exception, match="train it in one process"):
        Trainer(model, Numbers(), TrainConfig(batch=8, device="cpu"), Ranks(0, 2))


@pytest.mark.slow
def test_torchrun_itself(tmp_path) -> None:
    """The real launcher, with a process that is killed: torchrun ends, and so does the run."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "distk"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    train = ["train", *SMALL, "--steps", "6", "--out", "r"]
    done = subprocess.run([*launch, *train], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    assert checkpoint.read_header(tmp_path / "r/checkpoint.safetensors").step == 6
    settings = resolve("cascadevae", file=tmp_path / "r/config.toml")
    loop.train(settings, tmp_path / "one", quiet=True)
    one, two = (load_file(tmp_path / name / "checkpoint.safetensors") for name in ("one", "r"))
    assert all(bool(((one[k] - two[k]).abs() <= 1e-5).all()) for k in one if k.startswith("model/"))
