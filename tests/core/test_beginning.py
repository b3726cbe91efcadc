"""How a run begins: what a method reads and accepts, what it sets before the first step, tensors of other runs."""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import distk
from distk import (
    Code,
    Dataset,
    DataSpec,
    Latent,
    LatentSpace,
    Method,
    NoConfig,
    Objective,
    Source,
    UsageError,
    adamw,
    checkpoint,
    option,
)
from distk.device import Ranks
from distk.hookspecs import hookimpl
from distk.nn import Average
from distk.registry import registry
from distk.settings import resolve
from distk.testing import method_checks
from distk.training.beginning import build
from distk.training.loop import resume

ITEMS = torch.randn(200, 5, generator=torch.Generator().manual_seed(3)) @ torch.diag(
    torch.tensor([3.0, 2, 1, 0.5, 0.1])
)


class Vectors(Dataset[NoConfig]):
    """200 vectors of five numbers."""

    def __init__(self, config: NoConfig, device: torch.device, files: Any) -> None:
        super().__init__(config, device, files)
        self.spec, self.origin = DataSpec("vector", (5,), (-20.0, 20.0)), "made here"

    def __len__(self) -> int:
        return 200

    def batch(self, rows: Tensor) -> dict[str, Tensor]:
        return {"x": ITEMS[rows]}


class Couples(Vectors):
    """The same with a partner."""

    gives = ("x2",)

    def sample(self, n: int, generator: torch.Generator, split: str = "train", bucket: Any = None) -> dict[str, Tensor]:
        return {**super().sample(n, generator, split), "x2": super().sample(n, generator, split)["x"]}


@dataclass(frozen=True)
class Settings:
    """Settings."""

    k: int = option(2, "components", min=1, max=5)


class Fitted(Method[Settings]):
    """Principal components, in closed form."""

    data, kinds, closed_form = "begin-vectors", ("vector",), True

    def __init__(self, config: Settings, data: DataSpec) -> None:
        super().__init__(config, data)
        self.latents = LatentSpace.of(Latent("z", "continuous", config.k, prior="none"))
        self.register_buffer("mean", torch.zeros(data.shape))
        self.register_buffer("axes", torch.zeros(config.k, *data.shape))

    def initialise(self, source: Source) -> None:
        x = source.dataset.batch(source.dataset.rows_of("train"))["x"]
        self.mean.copy_(x.mean(0))
        self.axes.copy_(torch.linalg.svd(x - x.mean(0), full_matrices=False).Vh[: self.config.k])

    def encode(self, x: Tensor) -> Code:
        return {"z": (x - self.mean) @ self.axes.T}

    def decode(self, code: Code) -> Tensor:
        return code["z"] @ self.axes + self.mean


class Walker(Method[Settings]):
    """A linear autoencoder that counts how often it was initialised, and keeps an average of its decoder."""

    data, kinds = "begin-vectors", ("vector",)
    train_defaults = {"steps": 4, "batch": 8, "log_every": 2}
    least_batch = 2  # scales are deviations over a batch

    def __init__(self, config: Settings, data: DataSpec) -> None:
        super().__init__(config, data)
        self.latents = LatentSpace.of(Latent("z", "continuous", config.k))
        self.encoder, self.decoder = nn.Linear(5, config.k), nn.Linear(config.k, 5)
        self.average = Average(self.decoder, 0.5)
        self.register_buffer("begun", torch.zeros(()))
        self.register_buffer("scale", torch.ones(5))

    def initialise(self, source: Source) -> None:
        self.begun += 1
        self.scale.copy_(source.sample()["x"].std(0))

    def objectives(self) -> list[Objective]:
        parameters = [*self.encoder.parameters(), *self.decoder.parameters()]
        make = adamw(0.01, decay=0.5, no_decay=self.decoder.parameters())
        return [Objective("error", self.error, parameters, make, after=self.average.update)]

    def error(self, step: Any) -> Tensor:
        x = step.batch["x"] / self.scale
        return (self.decoder(self.encoder(x)) - x).pow(2).sum(1).mean()

    def encode(self, x: Tensor) -> Code:
        return {"z": self.encoder(x / self.scale)}

    def decode(self, code: Code) -> Tensor:
        return self.average(code["z"]) * self.scale


class Apart(Walker):
    """Gives every process the whole batch's first rows, stops at bf16, reads a number, and says nothing of batches."""

    least_batch = 1

    def collect(self, source: Source, objective: str = "") -> dict[str, Tensor]:
        rows = source.dataset.sample_rows(source.batch * source.world, source.generator)
        return source.dataset.batch(rows[:: source.world])

    def error(self, step: Any) -> Tensor:
        loss = super().error(step)
        if torch.is_autocast_enabled("cpu"):
            return loss / 0
        step.memo["seen"] = loss.detach().item()
        return loss

    def walk(self, group: Latent, columns: int) -> Tensor | None:
        return torch.full((columns,), torch.nan)


class Paired(Walker):
    """Reads a partner, and no vectors of another length than five."""

    reads = ("x", "x2")

    def accepts(self, dataset: Dataset) -> None:
        if getattr(dataset, "refused", False):
            raise UsageError("these vectors are refused.")


METHODS = {"begin-fitted": Fitted, "begin-walker": Walker, "begin-paired": Paired, "begin-apart": Apart}


@pytest.fixture(autouse=True)
def plugged(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    made = types.ModuleType("plugged_beginning")

    @hookimpl
    def distk_register_methods(register: Any) -> None:
        for name, cls in METHODS.items():
            register(name, f"{__name__}:{cls.__name__}", "a test's")

    @hookimpl
    def distk_register_datasets(register: Any) -> None:
        register("begin-vectors", f"{__name__}:Vectors", "a test's")
        register("begin-couples", f"{__name__}:Couples", "a test's")

    made.distk_register_methods, made.distk_register_datasets = distk_register_methods, distk_register_datasets
    monkeypatch.setitem(sys.modules, made.__name__, made)
    registry().add("beginning", made.__name__, "dist-beginning", "1.0")
    yield
    registry()._forget(registry().plugins.pop("beginning"))


def held(path: Path) -> dict[str, Tensor]:
    return checkpoint.tensors(path / "checkpoint.safetensors")


def test_a_closed_form_is_fitted_saved_scored_and_looked_into(tmp_path: Path, capsys: Any) -> None:
    run = distk.train("begin-fitted", out=tmp_path / "r", device="cpu", eval=("active-units",), quiet=True)
    components = held(run.path)["axes"].double()
    values, vectors = np.linalg.eigh(np.cov(ITEMS.double().numpy().T))
    for k in range(2):
        assert abs(vectors[:, -1 - k] @ components[k].numpy()) == pytest.approx(1, abs=1e-5)
    assert values[-1] > values[-2]
    rows = [json.loads(line) for line in (run.path / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [0], "a run without steps is scored, once"
    assert "error" not in str(rows)
    model = distk.load(run.checkpoint)
    with pytest.raises(UsageError, match="no prior"):
        model.sample(3, torch.Generator())
    failed = [check for check in method_checks("begin-fitted") if check.problem]
    assert not failed, failed
    with pytest.raises(UsageError, match="--steps 0"):
        distk.train("begin-fitted", out=tmp_path / "s", steps=5, device="cpu", quiet=True)
    assert not (tmp_path / "s").exists()


def test_initialise_runs_once_and_never_on_resume(tmp_path: Path) -> None:
    straight = distk.train("begin-walker", out=tmp_path / "a", device="cpu", quiet=True)
    stopped = distk.train("begin-walker", out=tmp_path / "b", steps=2, device="cpu", quiet=True)
    resume(stopped.path, steps=4, quiet=True)
    first, second = held(straight.path), held(stopped.path)
    assert first["begun"] == 1
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["scale"], torch.ones(5))
    failed = [check for check in method_checks("begin-walker") if check.problem]
    assert not failed, failed


def test_a_run_begins_with_another_checkpoint_where_tensors_agree(tmp_path: Path, capsys: Any) -> None:
    old = distk.train("begin-walker", out=tmp_path / "a", device="cpu", quiet=True)
    begin = {"init_from": str(old.checkpoint), "steps": 0, "device": "cpu", "quiet": True}
    new = distk.train("begin-walker", out=tmp_path / "b", **begin)
    assert all(torch.equal(value, held(new.path)[name]) for name, value in held(old.path).items())
    other = distk.train("begin-walker", out=tmp_path / "c", k=3, **begin)
    assert torch.equal(held(other.path)["decoder.bias"], held(old.path)["decoder.bias"])
    assert held(other.path)["decoder.weight"].shape == (5, 3)
    said = capsys.readouterr().err
    assert "decoder.weight" in said
    fitted = distk.train("begin-fitted", out=tmp_path / "d", device="cpu", quiet=True)
    with pytest.raises(UsageError, match="none of its 2 tensors"):
        distk.train("begin-walker", out=tmp_path / "e", device="cpu", init_from=str(fitted.checkpoint), quiet=True)
    assert not (tmp_path / "e").exists()


def test_what_a_method_lacks_in_a_batch_is_said_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"reads x2, which 'begin-vectors' does not give .*begin-couples"):
        distk.train("begin-paired", out=tmp_path / "r", device="cpu", quiet=True)
    assert not (tmp_path / "r").exists()
    Couples.refused = True
    try:
        with pytest.raises(UsageError, match="are refused"):
            distk.train("begin-paired", out=tmp_path / "r", data="begin-couples", device="cpu", quiet=True)
    finally:
        del Couples.refused
    assert not (tmp_path / "r").exists()
    distk.train("begin-paired", out=tmp_path / "r", data="begin-couples", device="cpu", quiet=True)


def test_a_batch_that_is_too_small_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'begin-walker' learns from batches of 2 items or more: use --batch 2"):
        distk.train("begin-walker", out=tmp_path / "r", batch=1, device="cpu", quiet=True)
    assert not (tmp_path / "r").exists()
    settings = resolve("begin-walker", options={"train": {"batch": 3, "device": "cpu"}})
    with pytest.raises(UsageError, match="batches of 4 items or more over 2 processes: use --batch 4"):
        build(settings, torch.device("cpu"), Ranks(0, 2))
    distk.train("begin-walker", out=tmp_path / "r", batch=2, device="cpu", quiet=True)


def test_each_rank_draws_its_rows_of_what_a_method_makes() -> None:
    data = resolve("begin-walker")
    dataset = distk.dataset(data.data)

    def make(rows: int, generator: torch.Generator) -> dict[str, Tensor]:
        return {"x": torch.rand(rows, 3, generator=generator)}

    whole = Source(dataset, 8, torch.Generator().manual_seed(5)).draw(make)["x"]
    parts = [Source(dataset, 4, torch.Generator().manual_seed(5), rank=r, world=2).draw(make)["x"] for r in (0, 1)]
    assert torch.equal(whole, torch.cat(parts))


def test_decay_touches_what_it_shall_and_is_apart_from_the_moments() -> None:
    a, b = nn.Parameter(torch.tensor([2.0])), nn.Parameter(torch.tensor([2.0]))
    optimizer = adamw(0.1, decay=0.5, no_decay=[b])([a, b])
    a.grad, b.grad = torch.zeros(1), torch.zeros(1)
    optimizer.step()
    assert a.item() == pytest.approx(2.0 * (1 - 0.1 * 0.5))
    assert b.item() == 2.0


def test_an_average_follows(generator: torch.Generator) -> None:
    network = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    average = Average(network, 0.9)
    expected = network[0].weight.detach().double().clone()
    for _ in range(5):
        with torch.no_grad():
            network[0].weight.add_(torch.randn(2, 3, generator=generator))
        network(torch.randn(4, 3, generator=generator))
        average.update()
        expected = 0.9 * expected + 0.1 * network[0].weight.detach().double()
    assert torch.allclose(average.average[0].weight.double(), expected, atol=1e-6)
    assert average.average[1].num_batches_tracked == 5
    assert not any(parameter.requires_grad for parameter in average.parameters())
    assert set(average.state_dict()) == {f"average.{name}" for name in network.state_dict()}
    x = torch.randn(4, 3, generator=generator)
    assert torch.equal(average.eval()(x), average.average.eval()(x))
    with pytest.raises(ValueError, match="0, 1"):
        Average(network, 1.0)


def test_an_average_of_tied_weights_moves_once() -> None:
    network = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
    network[1].weight = network[0].weight
    average = Average(network, 0.9)
    before = network[0].weight.detach().clone()
    with torch.no_grad():
        network[0].weight.add_(1.0)
    average.update()
    assert torch.allclose(average.average[0].weight, before + 0.1)


@pytest.mark.filterwarnings("ignore:std")  # of one item, which is what is wrong
def test_the_checks_find_what_is_wrong_and_name_the_line_and_the_cure() -> None:
    problems = {check.name: check.problem for check in method_checks("begin-apart") if check.problem}
    assert set(problems) == {
        "the step reads nothing back to the host",
        "a step in bf16 gives finite losses",
        "the smallest batch is trained on, a smaller one refused",
        "two ranks together draw the batch of one",
        "every latent can be walked",
        "its page can be made, or it says why not",  # whose sliders would stand at NaN
    }
    assert "set `least_batch`" in problems["the smallest batch is trained on, a smaller one refused"]
    read = problems["the step reads nothing back to the host"]
    line = next(i for i, text in enumerate(Path(__file__).read_text().splitlines(), 1) if "detach().item()" in text)
    assert f"test_beginning.py:{line}" in read
    assert "step.log" in read
    assert "source.draw" in problems["two ranks together draw the batch of one"]
    assert "NaN" in problems["every latent can be walked"]


def test_what_keep_can_never_keep_is_refused_before_a_folder_is_made(tmp_path: Path) -> None:
    """Without factors, without classes, without an encoder, and with settings of the metric: nothing is trained."""
    tiny = {"steps": 1, "batch": 4, "device": "cpu", "quiet": True}
    cases = (
        ("betavae", {"data": "deadleaves"}, "mig", "has no ground-truth factors"),
        ("betavae", {"data": "digits"}, "factorvae", "'label' is the only factor"),
        ("betavae", {"data": "blobs", "positions": 4}, "clsacc", "no discrete code"),
        ("betavae", {"data": "blobs", "positions": 4}, "icm", "scores models of method 'icm'"),
        ("factorgen", {"data": "blobs", "positions": 4}, "mig", "has no encoder"),
    )
    for method, options, metric, why in cases:
        with pytest.raises(UsageError, match=f"--keep best:{metric} would never keep anything: .*{why}"):
            distk.train(method, out=tmp_path / "r", keep=f"best:{metric}", **options, **tiny)
        assert not (tmp_path / "r").exists()


def test_what_keep_may_keep_later_is_not_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A metric that fails on values of the untrained code, or that asks for more items than the first try has."""
    from distk.plugins.metrics.structure import ActiveUnits

    asked: list[int] = []

    def compute(self: Any, table: Any, seed: int) -> dict[str, float]:
        asked.append(len(table))
        if len(asked) == 1:
            raise UsageError("too few items for this score.")
        if len(asked) == 2:
            raise UsageError("z1 does not vary.") from ValueError("z1 does not vary")
        return {ActiveUnits.headline: 1.0}

    monkeypatch.setattr(ActiveUnits, "compute", compute)
    tiny = {"steps": 1, "batch": 4, "device": "cpu", "quiet": True}
    run = distk.train("betavae", data="blobs", positions=9, out=tmp_path / "r", keep="best:active-units", **tiny)
    assert asked == [64, 81, 81]
    assert run.best.exists()


@pytest.mark.parametrize("device", ["mps", "xpu", "meta", "cuda:99", "nonsense"])
def test_a_device_that_is_not_there_is_one_sentence(device: str) -> None:
    if device == "mps" and torch.backends.mps.is_available():
        pytest.skip("this machine has an Apple GPU")
    with pytest.raises(UsageError, match="cpu"):
        distk.choose_device(device)


def test_scores_of_factors_encode_nothing_where_there_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every score that compares codes with factors says so before the encoder has read a single picture."""
    from distk import evaluation

    tiny = {"steps": 1, "batch": 4, "device": "cpu", "quiet": True}
    run = distk.train("betavae", data="deadleaves", data_train=64, data_test=8, out=tmp_path / "r", **tiny)
    model = distk.load(run.path)
    found = [entry for entry in registry().entries("metric") if entry.load().labelled]
    assert len(found) > 20
    monkeypatch.setattr(evaluation, "encode_table", lambda *_, **__: pytest.fail("something was encoded"))
    names = [entry.name for entry in found]
    for name, result in distk.evaluate(model, names, on_error="row")["metrics"].items():
        assert "error" in result, name
        assert "has no ground-truth factors" in result["error"] or "metric" in result["error"], (name, result)
