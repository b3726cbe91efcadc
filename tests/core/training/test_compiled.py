"""`--compile` on the CPU: the same numbers but for rounding, and errors that say a way out."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from distk import Dataset, DataSpec, Latent, LatentSpace, Method, Objective, adam
from distk.data import Files
from distk.device import Ranks
from distk.errors import DistkError
from distk.registry import registry
from distk.settings import TrainConfig, resolve
from distk.training.beginning import build
from distk.training.trainer import Trainer

torch_compiles = pytest.mark.skipif(sys.platform == "win32", reason="torch's compiler wants a C++ compiler")


class Numbers(Dataset):
    def __init__(self) -> None:
        super().__init__(None, torch.device("cpu"), Files("n", None, ""))
        self.name, self.origin, self.spec = "numbers", "test", DataSpec("vector", (4,))

    def __len__(self) -> int:
        return 1000

    def batch(self, rows):
        return {"x": torch.stack([rows, rows**2 / 1000, -rows, rows % 7], 1).float() / 1000}


class Two(Method):
    """Two objectives of one stage over shared tensors, draws of both kinds, logs of a vector and a parameter."""

    latents = LatentSpace.of(Latent("z", "continuous", 1))

    def __init__(self) -> None:
        super().__init__(None, DataSpec("vector", (4,)))
        self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 1)

    def objectives(self):
        return [
            Objective("one", self.first, self.one.parameters(), adam(0.01), stage="both"),
            Objective("two", self.second, self.two.parameters(), adam(0.01), stage="both"),
        ]

    def first(self, step):
        x = step.batch["x"] + 0.1 * step.randn(*step.batch["x"].shape) * step.schedule["noise"]
        step.memo["made"] = self.one(x)
        step.log("spread", step.memo["made"].std(0))
        step.log("bias", self.one.bias)
        return (step.memo["made"] - x).square().mean() + 0.1 * self.two(step.memo["made"]).mean()

    def second(self, step):
        keep = (step.rand(len(step.batch["x"]), 4) < 0.5).float() + step.rand(len(step.batch["x"]), 4)
        return self.two(step.memo["made"].detach() * keep).square().mean()

    def phase(self, step):
        return step >= 3

    def schedule(self, step):
        return {"noise": 1.0 / (1 + step)}


def trained(model: Method, compiled: bool, steps: int = 6) -> Trainer:
    trainer = Trainer(model, Numbers(), TrainConfig(batch=16, device="cpu", compile=compiled))
    for _ in range(steps):
        trainer.step()
    return trainer


def made(compiled: bool) -> Trainer:
    torch.manual_seed(0)
    return trained(Two(), compiled)


@pytest.fixture
def no_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything of the compiler but the making of kernels, which takes half a minute on a CPU."""
    real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda loss, **given: real(loss, backend="aot_eager", **given))


def test_a_compiled_run_differs_by_rounding_alone(no_kernels) -> None:
    plain, fast = made(False), made(True)
    assert torch.equal(plain.generator.get_state(), fast.generator.get_state()), "the same numbers were drawn"
    for (name, a), b in zip(plain.model.state_dict().items(), fast.model.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6, msg=name)
    expected, found = plain.drain(), fast.drain()
    assert list(expected) == list(found)
    assert expected == pytest.approx(found, rel=1e-4, abs=1e-6)


def test_a_loss_is_compiled_in_one_piece(no_kernels) -> None:
    from torch._dynamo.utils import counters

    counters.clear()
    made(True)
    assert not counters["graph_break"], dict(counters["graph_break"])
    # Two objectives and two phases, and once more where a second step finds gradients.
    assert 2 <= counters["stats"]["unique_graphs"] <= 8


def test_an_objective_that_is_updated_again_and_again_is_compiled_once(no_kernels) -> None:
    from torch._dynamo.utils import counters

    class Often(Two):
        def objectives(self):
            one, two = super().objectives()
            return [one, Objective("two", self.alone, self.two.parameters(), two.optimizer, updates=5)]

        def alone(self, step):
            return self.two(step.rand(len(step.batch["x"]), 4)).square().mean()

        def phase(self, step):
            return 0

    graphs = []
    for steps in (2, 6):
        counters.clear()
        torch._dynamo.reset()
        torch.manual_seed(0)
        trained(Often(), True, steps)
        graphs.append(counters["stats"]["unique_graphs"])
    assert graphs[0] == graphs[1] <= 4, graphs


def test_the_same_run_again_gives_the_same_numbers(no_kernels) -> None:
    first, second = made(True), made(True)
    for a, b in zip(first.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_loss_that_cannot_be_compiled_is_named_with_a_way_out(no_kernels) -> None:
    class Twice(Two):
        def first(self, step):
            x = step.batch["x"].clone().requires_grad_()
            (slope,) = torch.autograd.grad(self.two(torch.tanh(self.one(x))).sum(), x, create_graph=True)
            return slope.square().sum()

    torch.manual_seed(0)
    with pytest.raises(DistkError, match=r"^objective 'one' could not be compiled \(.* train without --compile\.$"):
        trained(Twice(), True, 1)


def test_an_objective_may_stay_out(no_kernels) -> None:
    class Apart(Two):
        def objectives(self):
            one, two = super().objectives()
            return [Objective("one", self.slope, self.one.parameters(), one.optimizer, compiles=False), two]

        def slope(self, step):
            x = step.batch["x"].clone().requires_grad_()
            step.memo["made"] = self.one(x)
            (slope,) = torch.autograd.grad(self.two(torch.tanh(step.memo["made"])).sum(), x, create_graph=True)
            return slope.square().sum()

    states = []
    for compiled in (False, True):
        torch.manual_seed(0)
        states.append(trained(Apart(), compiled).model.state_dict())
    for name, value in states[0].items():
        torch.testing.assert_close(value, states[1][name], rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("method", [e.name for e in registry().entries("method") if not e.load().closed_form])
def test_every_method_compiles_or_says_which_loss_does_not(method: str, no_kernels) -> None:
    """Two steps of its demo: the same random numbers, and losses that differ by rounding alone."""
    from torch._dynamo import reset

    preset = "demo" if "demo" in registry().find("method", method).load().presets else None
    runs = []
    for compiled in (False, True):
        reset()
        options = {"train": {"device": "cpu", "compile": compiled}}
        trainer = build(resolve(method, preset=preset, options=options), torch.device("cpu"), Ranks())
        trainer.initialise()
        torch.manual_seed(3)
        for _ in range(2):
            trainer.step()
        runs.append((trainer.drain(), trainer.generator.get_state()))
    assert torch.equal(runs[0][1], runs[1][1])
    assert runs[0][0] == pytest.approx(runs[1][0], rel=1e-3, abs=1e-4)


@torch_compiles
@pytest.mark.slow
def test_the_command_line_compiles(tmp_path: Path) -> None:
    command = ["train", "betavae", "--preset", "demo", "--steps", "3", "--device", "cpu", "--compile", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "distk", *command, "--out", str(tmp_path / "run")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)
