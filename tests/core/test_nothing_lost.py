"""A run that is killed, stopped, or cannot write: the last good checkpoint stays, and resuming changes nothing."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import random
import resource
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from distk import Dataset, DataSpec, Latent, LatentSpace, Method, Objective, checkpoint, sgd
from distk.data import Files
from distk.device import Ranks
from distk.errors import DistkError, UsageError
from distk.run import Run
from distk.settings import TrainConfig, resolve
from distk.training import beginning, loop
from distk.training.trainer import NonFinite, Trainer

_spec = importlib.util.spec_from_file_location("soak", Path(__file__).parents[2] / "benchmarks" / "soak.py")
soak = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(soak)

SMALL = {
    "model": {"z": 2, "hidden": 8, "warmup": 4, "relieve_every": 2},
    "data": {"size": 32, "scales": [5], "orientations": 1, "positions": 6},
    "train": {"batch": 8, "device": "cpu", "log_every": 3},
}


@pytest.fixture(scope="module", autouse=True)
def warm() -> None:
    soak.warm()


def settings(**train):
    return resolve("cascadevae", options={**SMALL, "train": {**SMALL["train"], **train}})


def started(out: Path, **train) -> loop.Session:
    return loop.start(settings(**train), out, torch.device("cpu"), Ranks())


def run_to(session: loop.Session, step: int) -> None:
    """Take steps up to this one, then be asked to stop."""
    with loop.running(session, quiet=True):
        for _ in loop.steps(session):
            if session.trainer.index == step:
                session.stop.signal = signal.SIGTERM


# Killed and stopped


def test_killed_at_random_moments_a_run_ends_as_if_it_had_not_been(tmp_path, seed) -> None:
    train = ["train", *soak.SMALL, "--steps", "24", "--seed", str(seed), "--out"]
    draw = random.Random(seed)
    for go in range(5):  # on a quick machine a run may end before it is killed
        killed = tmp_path / f"killed-{go}"
        if soak.kill_and_resume(killed, [*train, str(killed)], 3, 2, draw)["kills"]:
            break
    else:
        pytest.fail("every run ended before it was killed")
    assert soak.Process([*train, str(tmp_path / "alone")], tmp_path).wait(300) == 0
    assert soak.differences(tmp_path / "alone", killed) == []
    assert not list(killed.glob(".*.tmp")), "what a killed process was writing is cleared away"


@pytest.mark.parametrize("stop", [1, 5, 6])
def test_stopped_anywhere_log_and_every_tensor_are_those_of_an_unbroken_run(tmp_path, stop) -> None:
    run_to(started(tmp_path / "stopped", steps=9), stop)
    assert checkpoint.read_header(tmp_path / "stopped/checkpoint.safetensors").step == stop
    torch.manual_seed(12345)  # another process's global generator
    loop.resume(tmp_path / "stopped", quiet=True)
    loop.train(settings(steps=9), tmp_path / "alone", quiet=True)
    assert soak.differences(tmp_path / "alone", tmp_path / "stopped") == []


def test_sigterm_saves_and_says_how_to_go_on_and_a_second_signal_stops_at_once(tmp_path) -> None:
    train = ["train", *soak.SMALL, "--steps", "100000", "--log-every", "100000", "--out", "r"]
    process = soak.Process(train, tmp_path)
    soak.after_writes(process, tmp_path / "r/checkpoint.safetensors", 2, random.Random(0))
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait(120) == 143, process.said()
    step = checkpoint.read_header(tmp_path / "r/checkpoint.safetensors").step
    assert f"stopped at step {step}; everything is saved. Continue with: distk resume r" in process.said()
    assert "a second Ctrl-C stops at once" in process.said()
    process = soak.Process(["resume", "r"], tmp_path)
    soak.after_writes(process, tmp_path / "r/checkpoint.safetensors", 1, random.Random(0))
    os.kill(process.pid, signal.SIGSTOP)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCONT):  # both are pending when it wakes
        os.kill(process.pid, number)
    assert process.wait(120) in (-signal.SIGTERM, -signal.SIGINT)
    checkpoint.load(tmp_path / "r/checkpoint.safetensors")


def test_killed_before_the_first_checkpoint_a_folder_can_be_used_again(tmp_path) -> None:
    run = Run(tmp_path / "r", {})
    run.open()
    run.close()
    (tmp_path / "r/.checkpoint.safetensors.x1234567.tmp").write_bytes(b"half")
    loop.train(settings(steps=1), tmp_path / "r", quiet=True)
    assert not list((tmp_path / "r").glob(".*.tmp"))
    with pytest.raises(UsageError, match="already holds a run"):
        loop.train(settings(steps=1), tmp_path / "r", quiet=True)
    with pytest.raises(UsageError, match="already holds a run"):  # another process came first
        Run(tmp_path / "r", {}).open()


def test_a_log_cut_off_in_the_middle_of_a_line_is_read_and_mended(tmp_path) -> None:
    loop.train(settings(steps=6), tmp_path, quiet=True)
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 9, "elbo": NaN}\n{"step": 7, "el')
    assert [row["step"] for row in Run(tmp_path, {}).log] == [3, 6, 9]
    loop.resume(tmp_path, steps=9, quiet=True)
    assert [row["step"] for row in Run(tmp_path, {}).log] == [3, 6, 9]
    assert Run(tmp_path, {}).log[-1]["loss"] > 0


def test_only_the_newest_checkpoint_of_a_run_is_continued(tmp_path) -> None:
    loop.train(settings(steps=2), tmp_path, quiet=True)
    shutil.copy(tmp_path / "checkpoint.safetensors", tmp_path / "best.safetensors")
    with pytest.raises(UsageError, match="not the newest checkpoint"):
        loop.resume(tmp_path / "best.safetensors", steps=4)
    assert checkpoint.read_header(tmp_path / "checkpoint.safetensors").step == 2


# Nowhere to write


def unchanged(path: Path, process: soak.Process, message: str) -> None:
    """The process fails with one sentence; the checkpoint is byte for byte what it was, and nothing lies beside it."""
    before = path.read_bytes()
    assert process.wait(120) == 1, process.said()
    said = " ".join(process.said().split())
    assert message in said
    assert "Traceback" not in said
    assert "unexpected" not in said
    assert path.read_bytes() == before
    assert not list(path.parent.glob(".*.tmp"))
    checkpoint.load(path)


def test_a_file_size_limit_leaves_the_last_checkpoint(tmp_path) -> None:
    loop.train(settings(steps=2), tmp_path / "r", quiet=True)
    small = (tmp_path / "r/checkpoint.safetensors").stat().st_size // 2
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (small, small))  # noqa: E731
    process = soak.Process(["resume", "r", "--steps", "4"], tmp_path, limit)
    unchanged(tmp_path / "r/checkpoint.safetensors", process, "File too large. What was there before is untouched.")


@pytest.fixture
def disk(tmp_path) -> Iterator[Path]:
    """A file system of four megabytes with a run of two steps in it."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.system(f"mount -t tmpfs -o size=4m tmpfs {folder} 2>/dev/null"):
        pytest.skip("this user may not mount a file system")
    try:
        loop.train(settings(steps=2), folder / "r", quiet=True)
        yield folder
    finally:
        os.system(f"umount {folder}")


def test_a_full_disk_leaves_the_last_checkpoint(disk, tmp_path) -> None:
    with contextlib.suppress(OSError), (disk / "filler").open("wb") as file:
        while True:
            file.write(bytes(1 << 16))
            file.flush()
    process = soak.Process(["resume", str(disk / "r"), "--steps", "4"], tmp_path)
    unchanged(disk / "r/checkpoint.safetensors", process, "No space left on device")


def test_a_read_only_folder_leaves_the_last_checkpoint(disk, tmp_path) -> None:
    assert os.system(f"mount -o remount,ro {disk}") == 0
    process = soak.Process(["resume", str(disk / "r"), "--steps", "4"], tmp_path)
    unchanged(disk / "r/checkpoint.safetensors", process, "Read-only file system; choose another --out.")
    process = soak.Process(["train", *soak.SMALL, "--out", str(disk / "new")], tmp_path)
    assert process.wait(120) == 1
    assert "cannot write to run folder" in process.said()


def test_links_in_a_strangers_run_folder_lead_no_write_outside(tmp_path) -> None:
    mine = tmp_path / "mine.txt"
    mine.write_text("dear diary")
    loop.train(settings(steps=1), tmp_path / "r", quiet=True)
    for name in (".lock", "log.jsonl", "checkpoint.safetensors.link"):
        (tmp_path / "r" / name).unlink(missing_ok=True)
        (tmp_path / "r" / name).symlink_to(mine)
        if name in (".lock", "log.jsonl"):
            with pytest.raises(DistkError, match=r"cannot write to run folder .* no regular file"):
                loop.resume(tmp_path / "r", steps=2, quiet=True)
            (tmp_path / "r" / name).unlink()
        else:
            loop.resume(tmp_path / "r", steps=2, quiet=True)
    assert mine.read_text() == "dear diary"


# Not finite


def test_a_non_finite_loss_never_overwrites_a_good_checkpoint(tmp_path) -> None:
    session = started(tmp_path, steps=30, checkpoint_every=4)
    trainer = session.trainer
    loss = trainer.objectives[0].loss
    trainer.objectives[0].loss = lambda step: loss(step) / (trainer.index != 7)
    with pytest.raises(NonFinite, match="objective 'loss' became non-finite at step 7"):
        run_to(session, 30)
    model, header = checkpoint.load(tmp_path / "checkpoint.safetensors")
    assert header.step == 4
    assert all(bool(p.isfinite().all()) for p in model.parameters())


def test_a_non_finite_gradient_of_a_finite_loss_is_noticed_before_the_checkpoint(tmp_path) -> None:
    session = started(tmp_path, steps=30, checkpoint_every=4)
    trainer = session.trainer
    loss = trainer.objectives[0].loss
    weight = trainer.objectives[0].parameters[0]

    def poisoned(step):
        # The square root's slope at 0 is infinite, times 0 is nan; its value is 0.
        return loss(step) + ((weight * 0).abs().sum().sqrt() if trainer.index == 7 else 0)

    trainer.objectives[0].loss = poisoned
    with pytest.raises(
        NonFinite, match=r"parameter '.*' is not finite after step 7, although the loss before it was finite"
    ):
        run_to(session, 30)
    assert checkpoint.read_header(tmp_path / "checkpoint.safetensors").step == 4


class Numbers(Dataset):
    def __init__(self) -> None:
        super().__init__(None, torch.device("cpu"), Files("n", None, ""))
        self.name, self.origin, self.spec = "numbers", "test", DataSpec("vector", (1,))

    def __len__(self) -> int:
        return 100

    def batch(self, rows):
        return {"x": rows[:, None].float()}


class Toy(Method):
    """A weight, batch statistics, and a loss given by the test."""

    latents = LatentSpace.of(Latent("z", "continuous", 1))

    def __init__(self, loss) -> None:
        super().__init__(None, DataSpec("vector", (1,)))
        self.a, self.norm, self.loss = nn.Parameter(torch.tensor(1.0)), nn.BatchNorm1d(1), loss

    def objectives(self):
        return [Objective("l", lambda step: self.loss(self, step), [self.a], sgd(0.25))]


@pytest.mark.parametrize("poison", ["loss", "gradient"])
def test_skipping_leaves_no_trace_of_a_bad_step(poison) -> None:
    def loss(m, step):
        bad = int(step.index) == 1
        x = step.batch["x"] * (torch.nan if bad and poison == "loss" else 1)
        step.log("mean", m.norm(x).mean())
        slope = (m.a * 0).abs().sqrt() if bad and poison == "gradient" else 0.0
        return m.a + slope + 0 * m.norm(x).sum()

    trainer = Trainer(Toy(loss), Numbers(), TrainConfig(batch=4, device="cpu", on_nonfinite="skip"))
    seen = []
    for _ in range(3):
        trainer.step()
        seen.append((trainer.model.a.item(), trainer.model.norm.running_mean.item()))
    assert [a for a, _ in seen] == [0.75, 0.75, 0.5]
    assert seen[0][1] == seen[1][1] != seen[2][1], "batch statistics are put back"
    row = trainer.drain()
    assert row["l"] == pytest.approx((1.0 + 0.75) / 2)
    assert all(value == value for value in row.values()), row
    trainer.check_parameters()


def test_schedules_may_be_tensors_and_follow_their_values() -> None:
    trainer = Trainer(Toy(lambda m, step: (m.a * step.schedule["w"]).sum()), Numbers(), TrainConfig(batch=4))
    trainer.model.schedule = lambda step: {"w": torch.tensor([float(step), 1.0]), "lr": 1.0}
    values = []
    for _ in range(3):
        trainer.step()
        values.append(trainer.model.a.item())
    assert values == [0.0, -2.0, -5.0]


# A damaged training state


def test_training_states_that_do_not_fit_are_refused(tmp_path) -> None:
    loop.train(settings(steps=3), tmp_path, quiet=True)
    good = checkpoint.load_training(tmp_path / "checkpoint.safetensors")
    trainer = beginning.build(settings(), torch.device("cpu"), Ranks())
    moment = next(k for k in good if k.endswith("exp_avg") and good[k].dim() > 1)
    beyond = good["generator"].clone()
    beyond[8:12] = torch.tensor(list((600).to_bytes(4, "little")), dtype=torch.uint8)
    beyond[16:24] = torch.tensor(list((600).to_bytes(8, "little")), dtype=torch.uint8)
    for change in (
        {"step": torch.tensor(-1)},
        {"step": torch.tensor(2.5)},
        {"step": torch.tensor([1, 2])},
        {"generator": beyond},
        {"generator": torch.zeros(5056, dtype=torch.uint8)},
        {"global_rng": good["global_rng"][:100]},
        {moment: good[moment].flatten()},
        {moment: None},
        {moment + "x": good[moment]},
        {"optim/loss/999/exp_avg": good[moment]},
        {"optim/loss/word/exp_avg": good[moment]},
        {"optim/other/0/exp_avg": good[moment]},
        {"log/loss": torch.zeros(2, 2)},
        {"surplus": torch.zeros(1)},
    ):
        state = {k: v for k, v in {**good, **change}.items() if v is not None}
        state["count"] = torch.tensor(len(state) - 1)
        with pytest.raises(DistkError, match="does not fit this run"):
            trainer.load_state(state)
    with pytest.raises(DistkError, match="can be read"):
        trainer.load_state({k: v for k, v in good.items() if not k.startswith("log/")})
    trainer.load_state(good)
    trainer.step()


def test_the_clock_of_this_file() -> None:
    """Waiting for a process has an end."""
    process = soak.Process([], Path(tempfile.mkdtemp()), lambda: time.sleep(30))
    with pytest.raises(TimeoutError):
        process.wait(0.1)
    assert process.poll() == -signal.SIGKILL
