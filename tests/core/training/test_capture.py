"""Captured steps against eager ones, on a real GPU: weights, optimizers, random numbers and logs must agree."""

from __future__ import annotations

import dataclasses
import gc

import pytest
import torch
from torch import nn

from distk import Dataset, DataSpec, Latent, LatentSpace, Method, Objective, adam, rmsprop, sgd
from distk.data import Files
from distk.device import Ranks
from distk.errors import DistkError, UsageError
from distk.settings import TrainConfig, resolve
from distk.training.beginning import build
from distk.training.capture import WARMUP, Captured
from distk.training.trainer import Trainer

STEPS = 12
PHASE = 4 * WARMUP
"""The first step of the second phase: both sets of active objectives were captured in the first one by then."""


class Numbers(Dataset):
    def __init__(self, device: str) -> None:
        super().__init__(None, torch.device(device), Files("n", None, ""))
        self.name, self.origin, self.spec = "numbers", "test", DataSpec("vector", (4,))

    def __len__(self) -> int:
        return 1000

    def batch(self, rows):
        return {"x": torch.stack([rows / 1000, (rows / 1000) ** 2, -rows / 1000, rows % 7 / 7], 1).float()}


class Game(Method):
    """What makes a step hard to capture: two objectives, dropout, noise, phases, schedules, batch statistics."""

    latents = LatentSpace.of(Latent("z", "continuous", 1))

    def __init__(self, optimizer) -> None:
        super().__init__(None, DataSpec("vector", (4,)))
        self.one = nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.Dropout(0.3), nn.Linear(16, 4))
        self.two = nn.Linear(4, 1)
        self.optimizer = optimizer

    def objectives(self):
        return [
            Objective("one", self.first, self.one.parameters(), self.optimizer, clip=1.0),
            Objective("two", self.second, self.two.parameters(), self.optimizer, every=2, updates=2, fresh_batch=True),
        ]

    def first(self, step):
        x = step.batch["x"]
        noise = step.randn(*x.shape) * step.schedule["noise"]
        step.memo["made"] = self.one(x + noise)
        step.log("spread", step.memo["made"].std(0))
        return (step.memo["made"] - x).square().mean() + (0.1 * self.two(step.memo["made"]).mean() if step.phase else 0)

    def second(self, step):
        return self.two(step.batch["x"]).square().mean()

    def phase(self, step):
        return step >= PHASE

    def schedule(self, step):
        return {"noise": 0.1 / (1 + step), "lr": 0.01 / (1 + step), "weights": [float(step), 1.0]}


def made(capture: str, optimizer=None, device: str = "cuda", **options) -> Trainer:
    torch.manual_seed(0)
    model = Game(optimizer or adam(0.01)).to(device)
    torch.manual_seed(1)
    return Trainer(model, Numbers(device), TrainConfig(batch=16, device=device, capture=capture, **options))


@pytest.mark.cuda
@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
@pytest.mark.parametrize("optimizer", [adam(0.01), rmsprop(0.01), sgd(0.01, 0.9)], ids=["adam", "rmsprop", "sgd"])
def test_captured_equals_eager(optimizer, precision) -> None:
    eager, captured = (made(mode, optimizer, precision=precision) for mode in ("off", "on"))
    assert (eager.eager_because, captured.eager_because) == ("--capture off", "")
    rows = []
    for trainer in (eager, captured):
        torch.manual_seed(2)
        for _ in range(STEPS * 3):
            trainer.step()
        rows.append(trainer.drain())
    assert captured._captured is not None
    assert len(captured._captured.graphs) == 4, "one graph per phase and set of active objectives"
    for (name, a), b in zip(eager.model.state_dict().items(), captured.model.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5, msg=name)
    assert torch.equal(eager.generator.get_state(), captured.generator.get_state()), "the same numbers were drawn"
    assert rows[0] == pytest.approx(rows[1], rel=1e-3, abs=1e-5)
    assert int(captured.counter) == STEPS * 3


@pytest.mark.cuda
def test_a_captured_run_resumes_as_if_it_had_not_stopped() -> None:
    straight, stopped = made("on"), made("on")
    torch.manual_seed(2)
    for _ in range(2 * STEPS):
        straight.step()
    torch.manual_seed(2)
    for _ in range(STEPS):
        stopped.step()
    weights, state = {k: v.clone() for k, v in stopped.model.state_dict().items()}, stopped.state()
    again = made("on")
    again.model.load_state_dict(weights)
    again.load_state(state)
    for _ in range(STEPS):
        again.step()
    for (name, a), b in zip(straight.model.state_dict().items(), again.model.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.cuda
def test_a_run_goes_on_on_another_kind_of_device() -> None:
    for before, after in (("cpu", "cuda"), ("cuda", "cpu")):
        first, then = made("auto", device=before), made("auto", device=after)
        for _ in range(3):
            first.step()
        then.model.load_state_dict(first.model.state_dict())
        then.load_state(first.state())
        for _ in range(STEPS):
            then.step()
        assert (then.index, int(then.counter)) == (3 + STEPS, 3 + STEPS)
        then.drain()


@pytest.mark.cuda
def test_a_step_that_reads_back_is_refused_with_a_way_out() -> None:
    trainer = made("on")
    trainer.objectives[0].loss = lambda step: trainer.model.first(step) * float(step.batch["x"].sum())
    for _ in range(2 * WARMUP):  # two sets of active objectives, each warmed up eagerly
        trainer.step()
    with pytest.raises(DistkError, match=r"could not be captured as a CUDA graph .* train with --capture off"):
        trainer.step()


class Wide(Game):
    """Activations of megabytes, and a graph for each of eight phases."""

    def __init__(self, optimizer) -> None:
        super().__init__(optimizer)
        self.one = nn.Sequential(nn.Linear(4, 4096), nn.ReLU(), nn.Linear(4096, 4096), nn.ReLU(), nn.Linear(4096, 4))

    def phase(self, step):
        return step // (WARMUP + 1)


@pytest.mark.cuda
def test_graphs_of_a_run_share_their_memory() -> None:
    """Eight graphs reserve little more than one; each with a pool of its own would take eight times as much."""
    reserved = []
    for phases in (1, 8):
        gc.collect()
        torch.cuda.empty_cache()
        torch.manual_seed(0)
        trainer = Trainer(Wide(sgd(1e-6)).to("cuda"), Numbers("cuda"), TrainConfig(batch=1024, device="cuda"))
        trainer.objectives[1].every = 1  # one set of objectives, so that a phase is a graph
        before = torch.cuda.memory_reserved()
        for _ in range(phases * (WARMUP + 1)):
            trainer.step()
        trainer.check_health()
        torch.cuda.synchronize()
        assert trainer._captured is not None
        assert len(trainer._captured.graphs) == phases
        gc.collect()
        torch.cuda.empty_cache()  # what eager steps left behind
        reserved.append(torch.cuda.memory_reserved() - before)
        del trainer
    assert 0 < reserved[1] < 2 * reserved[0], reserved


@pytest.mark.cuda
def test_graphs_that_share_memory_do_not_disturb_each_other() -> None:
    """Phases that come again and again, so that each graph is replayed after the others wrote to the shared memory."""
    eager, captured = made("off"), made("on")
    for trainer in (eager, captured):
        trainer.model.phase = lambda step: step % 5 == 0
        torch.manual_seed(2)
        for _ in range(8 * STEPS):
            trainer.step()
    assert captured._captured is not None
    assert len(captured._captured.graphs) == 4
    for (name, a), b in zip(eager.model.state_dict().items(), captured.model.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4, msg=name)
    captured._captured.forget()  # as resuming does: their memory goes back, and new graphs are made
    for _ in range(8 * STEPS):
        captured.step()
    captured.check_health()
    assert len(captured._captured.graphs) == 4


@pytest.mark.cuda
@pytest.mark.parametrize("method", ["betavae", "factorvae", "cascadevae"])
def test_a_compiled_step_is_captured_and_learns_the_same(method) -> None:
    """Draws come from the run's generator as without the compiler, so that only rounding differs."""
    options = {"train": {"device": "cuda", "capture": "on"}}
    runs = []
    for wanted in (False, True):
        train = {**options["train"], "compile": wanted}
        settings = resolve(method, preset="demo", options={"train": train})
        trainer = build(settings, torch.device("cuda"), Ranks())
        for _ in range(WARMUP + 3):
            trainer.step()
        assert trainer._captured is not None
        assert trainer._captured.graphs
        runs.append((trainer.drain(), trainer.generator.get_state()))
    (plain, state), (fast, again) = runs
    assert torch.equal(state, again)
    assert plain.keys() == fast.keys()
    for name, value in plain.items():
        assert fast[name] == pytest.approx(value, rel=1e-2, abs=1e-2), name


@pytest.mark.cuda
def test_replicas_on_streams_are_the_runs_trained_alone(tmp_path) -> None:
    from safetensors.torch import load_file

    from distk.settings import resolve
    from distk.training import loop, replicas

    options = {
        "model": {"z": 2, "hidden": 8, "warmup": 4, "relieve_every": 2},
        "data": {"size": 32, "scales": [5], "orientations": 1, "positions": 6},
        "train": {"batch": 8, "device": "cuda", "steps": 20, "deterministic": True},
    }
    many = [resolve("cascadevae", options={**options, "train": {**options["train"], "seed": s}}) for s in range(3)]
    runs = replicas.side_by_side(many, [tmp_path / f"s{s}" for s in range(3)], torch.device("cuda"), quiet=True)
    for one, run in zip(many, runs, strict=True):
        alone = loop.train(one, tmp_path / f"alone{one.train.seed}", quiet=True)
        a, b = load_file(alone.checkpoint), load_file(run.checkpoint)
        for name, value in a.items():
            torch.testing.assert_close(value, b[name], rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.cuda
def test_the_profile_of_a_captured_step() -> None:
    from distk.settings import resolve
    from distk.training.profile import profile

    found = profile(resolve("cascadevae", preset="demo", options={"train": {"device": "cuda"}}))
    assert found["captured_step_ms"] < found["step_ms"]
    assert {"loss", "backward", "optimizer"} <= {row["name"] for row in found["parts"]}


# Without a GPU


def test_reasons_to_run_eagerly() -> None:
    assert made("auto", device="cpu").eager_because == "the device is not CUDA"
    with pytest.raises(UsageError, match="--capture on: the step cannot be captured because the device is not CUDA"):
        made("on", device="cpu")


def test_a_key_is_warmed_up_before_it_is_captured_and_then_replayed(monkeypatch) -> None:
    """The order of things, with a stand-in for torch's graph: every call is one real step."""
    calls: list[tuple[str, object]] = []
    captured = Captured(lambda key: calls.append(("step", key)), torch.Generator(), torch.device("cpu"))

    class Graph:
        def replay(self) -> None:
            calls.append(("replay", None))

    monkeypatch.setattr(torch.cuda, "device", lambda device: torch.no_grad())
    monkeypatch.setattr(captured, "_warm", lambda key: captured.step(key))
    monkeypatch.setattr(captured, "_capture", lambda key: Graph())
    for _ in range(WARMUP + 2):
        captured("a")
    captured("b")
    assert calls == [("step", "a")] * WARMUP + [("replay", None)] * 2 + [("step", "b")]
    captured.forget()
    captured("a")
    assert calls[-1] == ("step", "a")


def test_the_settings_of_the_trainer_are_bounded() -> None:
    fields = {field.name: field.metadata for field in dataclasses.fields(TrainConfig)}
    assert fields["batch"]["max"] == 1 << 20, "a stranger's checkpoint may not ask for any batch"
