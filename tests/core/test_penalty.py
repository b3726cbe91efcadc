"""Penalties on a coding layer: what they add to which objective, their settings, ranks, resuming, conformance."""

from __future__ import annotations

import importlib.util
import re
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import distk
from distk import Dataset, DataSpec, Latent, LatentSpace, Method, Objective, Penalty, UsageError, sgd
from distk.config import option, to_toml
from distk.data import Files
from distk.device import Ranks, no_host_reads, seeded, stream
from distk.penalty import build_penalties, layers_of
from distk.registry import registry
from distk.run import Run
from distk.settings import TrainConfig, resolve
from distk.testing import NoHostReads, check_penalty, method_checks, penalty_checks
from distk.testing.reads import unwatched
from distk.training import loop
from distk.training.beginning import build
from distk.training.trainer import NonFinite, Trainer


class Points(Dataset):
    """Twelve fixed points in five dimensions."""

    def __init__(self) -> None:
        super().__init__(None, torch.device("cpu"), Files("points", None, ""))
        self.name, self.origin, self.spec = "points", "test", DataSpec("vector", (5,))
        self.x = torch.randn(12, 5, generator=torch.Generator().manual_seed(0))

    def __len__(self) -> int:
        return len(self.x)

    def batch(self, rows):
        return {"x": self.x[rows]}


@dataclass(frozen=True)
class Config:
    lr: float = option(0.1, "rate")


class Coder(Method):
    """A linear autoencoder, without layers that it hands over."""

    Config = Config
    latents = LatentSpace.of(Latent("a", "continuous", 2), Latent("b", "continuous", 1))

    def __init__(self) -> None:
        super().__init__(Config(), DataSpec("vector", (5,)))
        torch.manual_seed(3)
        self.encoder, self.decoder, self.critic = nn.Linear(5, 3), nn.Linear(3, 5), nn.Linear(3, 1)

    def objectives(self):
        both = [*self.encoder.parameters(), *self.decoder.parameters()]
        return [Objective("mse", self.loss, both, sgd(self.config.lr))]

    def loss(self, step):
        code = self.encoder(step.batch["x"])
        if self.taps:
            step.tap("code", code)
        return (self.decoder(code) - step.batch["x"]).square().mean()

    def encode(self, x):
        a, b = self.encoder(x).split([2, 1], 1)
        return {"a": a, "b": b}


class Handing(Coder):
    """The same, handing its code over."""

    taps = ("code",)


def trainer(model: Method, ranks: Ranks | None = None, **settings) -> Trainer:
    return Trainer(model, Points(), TrainConfig(**{"batch": 8, "device": "cpu", **settings}), ranks)


def covariance_term(code: torch.Tensor) -> torch.Tensor:
    return torch.cov(code.T).abs().sum() / code.shape[1] ** 2


@pytest.mark.parametrize("method", [Coder, Handing])
def test_the_weighted_value_is_added_to_the_loss(method, monkeypatch) -> None:
    t = trainer(method(), penalty=("covreg:0.7",))
    twin, batches = Coder(), []
    collect = t.model.collect
    monkeypatch.setattr(t.model, "collect", lambda source: batches.append(collect(source)) or batches[-1])
    t.step()
    x = batches[0]["x"]
    code = twin.encoder(x)
    error, term = (twin.decoder(code) - x).square().mean(), covariance_term(code)
    (error + 0.7 * term).backward()
    for name, p in twin.named_parameters():
        if p.grad is not None:
            assert torch.allclose(t.model.get_parameter(name), p - 0.1 * p.grad, atol=1e-6), name
    logged = t.drain()
    assert logged["mse"] == pytest.approx(error.item()), "the error is logged without the penalty"
    assert logged["penalty/covreg"] == pytest.approx(term.item()), "the penalty is logged without its weight"


def test_weight_0_is_as_no_penalty_and_costs_nothing() -> None:
    without, zero = trainer(Coder()), trainer(Coder(), penalty=("covreg",), penalty_weight=0.0)
    assert without.penalties is None
    assert zero.penalties is None
    for t in (without, zero):
        for _ in range(3):
            t.step()
    for a, b in zip(without.model.parameters(), zero.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_the_encoder_pass_leaves_the_build_as_it_was() -> None:
    """Looking for the objective that trains the encoder moves no statistics and no random state."""

    class Normalised(Coder):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = nn.Sequential(nn.Linear(5, 3), nn.BatchNorm1d(3), nn.Dropout(0.5))

    model = Normalised()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    t = trainer(model, penalty=("covreg",))
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(t.generator.get_state(), seeded(stream(0, "training"), t.device).get_state())
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(p.grad is None for p in model.parameters())


class Adversarial(Coder):
    """A critic first, then what trains encoder and decoder, then the encoder against the critic; a rare one too."""

    def objectives(self):
        encoder = list(self.encoder.parameters())
        critic = Objective("critic", lambda s: self.critic(self.code(s)).mean(), self.critic.parameters(), sgd(0.1))
        rare = Objective("rare", lambda s: 0 * self.code(s).sum(), encoder, sgd(0.1), window=(5, None))
        rebuild = super().objectives()
        adversary = Objective("adversary", lambda s: self.critic(self.code(s)).mean(), encoder, sgd(0.1))
        return [rare, critic, *rebuild, adversary]

    def code(self, step):
        code = self.encoder(step.batch["x"])
        if self.taps:
            step.tap("code", code)
        return code


def test_the_first_objective_that_trains_the_encoder_takes_it() -> None:
    assert trainer(Adversarial(), penalty=("covreg",)).penalties.owner == "mse"


def test_the_first_objective_that_hands_a_layer_over_takes_it(monkeypatch) -> None:
    class Late(Adversarial):
        taps = ("code",)

        def objectives(self):
            return super().objectives()[2:]  # reconstruction and adversary hand the code over, both

    t = trainer(Late(), penalty=("covreg",))
    calls = []
    monkeypatch.setattr(t.penalties.penalties[0], "value", lambda given: calls.append(given) or covariance(given))
    before = t.model.encoder.weight.detach().clone()
    t.step()
    assert [list(given) for given in calls] == [["code"]], "once per step, for one objective"
    assert not torch.equal(t.model.encoder.weight, before)


def covariance(given):
    return torch.stack([covariance_term(h) for h in given.values()]).sum()


def test_layers_of_a_method() -> None:
    model, x = Coder(), torch.randn(4, 5)
    found = layers_of(model, {"x": x})
    assert set(found) == {"code", "a", "b"}
    assert torch.equal(found["code"], model.encoder(x))
    t = trainer(model, penalty=("covreg:1@a",))
    t.step()
    assert t.penalties.told() == ["penalty covreg: weight 1 on a; one more pass of the encoder per step"]


def test_several_penalties_and_their_names_in_the_log() -> None:
    t = trainer(Coder(), penalty=("covreg:0.1@a", "covreg:0.2@code", "l1act:0.3"))
    t.step()
    assert {k for k in t.drain() if k.startswith("penalty/")} == {
        "penalty/covreg@a",
        "penalty/covreg@code",
        "penalty/l1act",
    }


def test_a_penalty_that_is_not_finite_stops_the_run(monkeypatch) -> None:
    t = trainer(Handing(), penalty=("covreg",))
    monkeypatch.setattr(t.penalties.penalties[0], "value", lambda given: given["code"].sum() * torch.nan)
    t.step()
    with pytest.raises(NonFinite, match="'mse' became non-finite at step 0"):
        t.check_health()


def test_under_bf16_the_penalty_sees_float32(monkeypatch) -> None:
    for method in (Coder, Handing):
        t = trainer(method(), penalty=("covreg",), precision="bf16")
        seen = []

        def value(given, seen=seen):
            product = given["code"] @ given["code"].T  # would be bfloat16 under autocast
            seen.append((given["code"].dtype, product.dtype))
            return product.mean()

        monkeypatch.setattr(t.penalties.penalties[0], "value", value)
        t.step()
        assert seen == [(torch.float32, torch.float32)]


# Settings


def made(**settings) -> list[Penalty]:
    return build_penalties(TrainConfig(**settings))


def test_the_forms_of_an_option() -> None:
    (one,) = made(penalty=("lsigma:0.3",))
    assert (one.name, one.weight, one.layers) == ("covreg", 0.3, ("code",))
    (two,) = made(penalty=("covreg",), penalty_weight=0.5, penalty_layer=("h1", "h2"))
    assert (two.weight, two.layers) == (0.5, ("h1", "h2"))
    a, b = made(penalty=("covreg:2@x+y", "l1act"), penalty_weight=0.5, penalty_option=("diag=drop", "channels=true"))
    assert (a.weight, a.layers, b.weight, b.layers) == (2.0, ("x", "y"), 0.5, ("code",))
    assert a.config.diag == "drop"
    assert a.config.channels is True
    assert made(penalty=("covreg",))[0].weight == 0.08
    assert made() == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"penalty": ("covregg",)}, "unknown penalty 'covregg'. Did you mean 'covreg'"),
        ({"penalty": ("covreg:-1",)}, "the weight -1 is not a finite number of at least 0"),
        ({"penalty": ("covreg:inf",)}, "the weight inf is not a finite number"),
        ({"penalty": ("covreg:nan",)}, "the weight nan is not a finite number"),
        ({"penalty": ("covreg:x",)}, "write NAME:WEIGHT, as covreg:0.1"),
        ({"penalty_weight": 0.1}, "--penalty-weight is about a penalty, but none is named"),
        ({"penalty_option": ("diag=drop",)}, "--penalty-option is about a penalty, but none is named"),
        ({"penalty": ("covreg",), "penalty_option": ("diag",)}, "write NAME=VALUE"),
        ({"penalty": ("covreg",), "penalty_option": ("diagg=drop",)}, "'diagg' is not a setting of covreg; they have"),
        ({"penalty": ("l1act",), "penalty_option": ("diag=drop",)}, "'diag' is not a setting of l1act; they have none"),
        ({"penalty": ("covreg",), "penalty_option": ("diag=some",)}, "'some' is none of keep, drop"),
        ({"penalty": ("covreg@nowhere",)}, "unknown layer 'nowhere' of method Coder. Available: a, b, code"),
        ({"penalty": ("covreg",), "batch": 1}, r"covreg needs at least 2 examples per batch \(got 1\)"),
    ],
)
def test_what_is_refused(settings, message) -> None:
    with pytest.raises(UsageError, match=message):
        trainer(Coder(), **settings)


def test_a_negative_weight_option_is_refused_with_the_settings() -> None:
    with pytest.raises(UsageError, match="below the smallest allowed value 0"):
        resolve("cascadevae", options={"train": {"penalty": "covreg", "penalty_weight": -1}})


def test_methods_without_a_layer_are_refused() -> None:
    class Classes(Coder):
        latents = LatentSpace.of(Latent("d", "categorical", 3))

    class Blind(Coder):
        encode = Method.encode

    class Detached(Coder):
        def encode(self, x):
            return {"a": x[:, :2], "b": x[:, 2:3]}

    for model, message in (
        (Classes(), "Classes has no continuous code"),
        (Blind(), "Blind has no encoder"),
        (Detached(), "no gradient reaches the encoder of Detached"),
    ):
        with pytest.raises(UsageError, match=message):
            trainer(model, penalty=("covreg",))


def test_small_batches_are_warned_about(capsys) -> None:
    trainer(Coder(), penalty=("covreg",), batch=5)
    assert "3 units of 'code' from batches of 5 come out too large; use --batch 6" in " ".join(
        capsys.readouterr().err.split()
    )


# With real methods: TOML, header, resume, Python, command line

SMALL = {
    "model": {"z": 2, "hidden": 8},
    "data": {"size": 32, "scales": [5], "orientations": 1, "positions": 6},
    "train": {"batch": 8, "device": "cpu", "seed": 4, "penalty": "covreg:0.5,l1act", "penalty_weight": 0.25},
}


def small(steps: int):
    return resolve("cascadevae-c", options={**SMALL, "train": {**SMALL["train"], "steps": steps}})


def test_settings_survive_toml(tmp_path) -> None:
    settings = small(4)
    file = tmp_path / "c.toml"
    file.write_text(to_toml(settings.to_dict(), {"method": "cascadevae-c"}))
    assert tomllib.loads(file.read_text())["train"]["penalty"] == ["covreg:0.5", "l1act"]
    assert resolve("cascadevae-c", file=file).train == settings.train


def test_a_resumed_run_goes_on_with_its_penalties(tmp_path) -> None:
    loop.train(small(6), tmp_path / "whole", quiet=True)
    loop.train(small(3), tmp_path / "part", quiet=True)
    run = loop.resume(tmp_path / "part", 6, quiet=True)
    one, two = (load_file(tmp_path / name / "checkpoint.safetensors") for name in ("whole", "part"))
    assert all(torch.equal(value, two[name]) for name, value in one.items())
    assert {"penalty/covreg", "penalty/l1act"} <= set(run.log[-1])
    assert tomllib.loads((tmp_path / "part/config.toml").read_text())["train"]["penalty_weight"] == 0.25


def test_from_python(tmp_path) -> None:
    data = {f"data_{k}" if k == "size" else k: v for k, v in SMALL["data"].items()}
    run = distk.train(
        "cascadevae-c", z=2, hidden=8, batch=8, steps=2, out=tmp_path / "r", penalty="covreg:0.1", quiet=True, **data
    )
    assert "penalty/covreg" in run.log[-1]


@pytest.mark.parametrize("name", ["cascadevae", "arae", "dsvae"])
def test_unlike_methods_take_a_penalty(name) -> None:
    takes_a_penalty(name)


WHY_NOT = ("has no continuous code", "has no encoder", "no items", "no gradient reaches the encoder")


@pytest.mark.slow
@pytest.mark.parametrize("name", [e.name for e in registry().entries("method") if e.distribution == "distk"])
def test_every_method_takes_a_penalty_or_says_why_not(name) -> None:
    reason = ""
    try:
        takes_a_penalty(name)
    except UsageError as error:
        reason = str(error)
    assert not reason or any(words in reason for words in WHY_NOT)


def takes_a_penalty(name: str) -> None:
    """A few steps with a penalty change the encoder otherwise than without it, and read nothing back."""
    cls = registry().find("method", name).load()
    preset = "demo" if "demo" in cls.presets else None
    trained = {}
    for weight in (0.0, 50.0):
        options = {"batch": 8, "device": "cpu", "penalty": "l1act", "penalty_weight": weight, "penalty_layer": "code"}
        t = build(resolve(name, preset=preset, options={"train": options}), torch.device("cpu"), Ranks())
        for optimizer in t.optimizers.values():
            unwatched(optimizer)
        if t.penalties is not None and t.penalties.owner:  # an objective's, perhaps after a phase of others
            owner = next(o for o in t.objectives if o.name == t.penalties.owner)
            t.index = next(i for i in range(100_000) if owner.active(i))
        t.step()
        if t.penalties is not None and t.model.capturable is True:
            active = tuple(o.name for o in t.objectives if o.active(t.index))
            t.model.before_step(t.index, t.optimizers)
            t._set_schedule(t.model.schedule(t.index))
            with no_host_reads(), NoHostReads():
                t._step((t.model.phase(t.index), active, t.dataset.bucket(t.index, 0)))
            assert t.drain()["penalty/l1act"] > 0
        trained[weight] = t.model.state_dict()
    assert any(not torch.equal(trained[0.0][k], trained[50.0][k]) for k in trained[0.0])


# Several ranks


def _test_ranks():
    spec = importlib.util.spec_from_file_location("ranks_helpers", Path(__file__).parent / "training" / "test_ranks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_two_ranks_penalise_the_global_batch(tmp_path) -> None:
    helpers = _test_ranks()
    helpers.soak.warm()

    def compare(ranks: Ranks) -> None:
        for method in (Coder, Handing):
            shared = trainer(method(), ranks, penalty=("covreg:2",))
            alone = trainer(method(), penalty=("covreg:2",))
            for _ in range(3):
                shared.step()
                alone.step()
            for a, b in zip(shared.model.parameters(), alone.model.parameters(), strict=True):
                assert torch.allclose(a, b, atol=1e-5), (a - b).abs().max()
            assert abs(shared.drain()["penalty/covreg"] - alone.drain()["penalty/covreg"]) < 1e-5

    helpers.on_ranks(compare, tmp_path)


@pytest.mark.cuda
def test_a_captured_step_equals_an_eager_one() -> None:
    runs = []
    for capture in ("on", "off"):
        options = {**SMALL, "train": {**SMALL["train"], "device": "cuda", "capture": capture}}
        t = build(resolve("cascadevae-c", options=options), torch.device("cuda"), Ranks())
        for _ in range(8):
            t.step()
        runs.append(t.model.state_dict())
    for name, value in runs[0].items():
        assert torch.allclose(value, runs[1][name], atol=1e-5), name


# Conformance


def test_registered_penalties_conform() -> None:
    for entry in registry().entries("penalty"):
        check_penalty(entry.name)


def test_the_checks_catch_a_careless_penalty(monkeypatch) -> None:
    from distk.plugins.vae_family.covreg.penalty import ActivationPenalty

    monkeypatch.setattr(
        ActivationPenalty, "value", lambda self, given: sum(h.abs().mean() for h in given.values()).item()
    )
    failed = {check.name for check in penalty_checks("l1act") if check.problem}
    assert {"its value is one finite number", "it reads nothing back to the host"} <= failed


def test_the_checks_catch_a_layer_that_nobody_hands_over(monkeypatch) -> None:
    cls = registry().find("method", "covreg-linear").load()
    monkeypatch.setattr(cls, "taps", ("code", "elsewhere"))
    failed = {check.name: check.problem for check in method_checks("covreg-linear") if check.problem}
    assert "`taps` declares elsewhere" in failed.pop("the losses hand over the layers that the method declares")
    assert not failed


def test_the_log_of_a_run_shows_the_penalty(tmp_path) -> None:
    run = loop.train(small(2), tmp_path / "r", quiet=True)
    assert Run(run.path, {}).log[-1]["penalty/covreg"] >= 0


def test_the_documented_penalty_works(tmp_path) -> None:
    text = (Path(__file__).parents[2] / "docs/plugins.md").read_text(encoding="utf-8")
    (code,) = (block for block in re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S) if "distk.Penalty" in block)
    path = tmp_path / "acme_penalty.py"
    path.write_text(code)
    spec = importlib.util.spec_from_file_location("acme_penalty", path)
    sys.modules["acme_penalty"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    h = torch.randn(6, 3)
    assert float(module.Sparse(module.Config(power=2)).value({"code": h})) == pytest.approx(float((h**2).mean()))
