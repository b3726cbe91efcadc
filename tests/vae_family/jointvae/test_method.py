"""JointVAE: the two channels' rates, the Gumbel-softmax and the capacities against independent computations."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from scipy.stats import chisquare
from torch import Tensor

from distk import DataSpec, UsageError
from distk.device import Ranks, seeded
from distk.method import Step
from distk.nn import relaxed_one_hot
from distk.plugins.vae_family.jointvae.method import JointVAE, capacity, entropy, kl_to_uniform
from distk.settings import resolve
from distk.training.beginning import build
from distk.training.trainer import Trainer

SPEC = DataSpec("image", (1, 64, 64))


def trainer(**model: Any) -> Trainer:
    options = {
        "model": {"arch": "mlp", **model},
        "data": {"name": "digits", "size": 8},
        "train": {"batch": 16, "device": "cpu"},
    }
    return build(resolve("jointvae", options=options), torch.device("cpu"), Ranks())


def step_of(t: Trainer, x: Tensor, seed: int, logged: dict[str, Tensor] | None = None) -> Step:
    t._set_schedule(t.model.schedule(t.index))
    made = Step(
        index=t.counter,
        schedule=t._schedule,
        phase=None,
        generator=seeded(seed, t.device),
        log=lambda name, value: (logged if logged is not None else {}).__setitem__(name, value.detach()),
    )
    made.batch = {"x": x}
    return made


# Rates


def test_rate_of_a_categorical_against_torch(generator: torch.Generator) -> None:
    logits = 3 * torch.randn(50, 7, generator=generator, dtype=torch.float64)
    q = torch.distributions.Categorical(logits=logits)
    p = torch.distributions.Categorical(logits=torch.zeros(7, dtype=torch.float64))
    expected = torch.distributions.kl_divergence(q, p)
    assert torch.allclose(kl_to_uniform(logits.log_softmax(1)), expected, atol=1e-12)
    assert float(entropy(q.probs[0])) == pytest.approx(float(q.entropy()[0]), abs=1e-12)


@pytest.mark.parametrize("size", [2, 3, 10])
def test_rate_is_zero_for_uniform_and_log_size_for_certain(size: int) -> None:
    flat = torch.zeros(4, size, dtype=torch.float64).log_softmax(1)
    assert torch.allclose(kl_to_uniform(flat), torch.zeros(4, dtype=torch.float64), atol=1e-15)
    certain = (200.0 * torch.eye(size, dtype=torch.float64)).log_softmax(1)
    assert torch.allclose(kl_to_uniform(certain), torch.full((size,), math.log(size), dtype=torch.float64))
    assert float(entropy(torch.eye(size, dtype=torch.float64)[0])) == 0


def test_gradient_of_the_rate_against_finite_differences(generator: torch.Generator) -> None:
    logits = torch.randn(5, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda value: kl_to_uniform(value.log_softmax(1)), (logits,))


# Gumbel-softmax


def test_the_largest_entry_is_a_sample_of_the_categorical() -> None:
    alpha = torch.tensor([0.5, 0.3, 0.15, 0.05], dtype=torch.float64)
    uniform = torch.rand(100_000, 4, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    drawn = relaxed_one_hot(alpha.log().expand(100_000, 4), 0.67, uniform)
    counts = drawn.argmax(1).bincount(minlength=4).numpy()
    assert chisquare(counts, alpha.numpy() * 100_000).pvalue > 0.001


def test_temperature_goes_from_one_hot_to_uniform() -> None:
    draw = torch.Generator().manual_seed(3)
    log_alpha = torch.randn(2000, 5, generator=draw, dtype=torch.float64).log_softmax(1)
    uniform = torch.rand(2000, 5, generator=draw, dtype=torch.float64)
    cold, hot = relaxed_one_hot(log_alpha, 0.01, uniform), relaxed_one_hot(log_alpha, 100.0, uniform)
    assert torch.allclose(cold.sum(1), torch.ones(2000, dtype=torch.float64))
    # Two of five Gumbel variables are closer than 0.05 (a ratio of e^5) in a few rows of a hundred.
    assert float((cold.amax(1) > 0.99).double().mean()) > 0.9
    assert float((hot - 0.2).abs().mean()) < 0.01
    assert float((relaxed_one_hot(log_alpha, 1e4, uniform) - 0.2).abs().max()) < 0.001


def test_noise_of_exactly_zero_is_finite() -> None:
    made = relaxed_one_hot(torch.full((1, 3), -math.log(3)), 0.67, torch.zeros(1, 3))
    assert torch.allclose(made, torch.full((1, 3), 1 / 3))
    assert bool(relaxed_one_hot(torch.tensor([[0.0, -200.0]]), 0.67, torch.tensor([[0.999, 0.0]])).isfinite().all())


def test_reparameterised_gradient_against_central_differences(generator: torch.Generator) -> None:
    """Common random numbers: the mean of f over the same noise, moved by h in each logit."""
    logits = torch.randn(4, generator=generator, dtype=torch.float64, requires_grad=True)
    uniform = torch.rand(500, 4, generator=generator, dtype=torch.float64).clamp(1e-9, 1 - 1e-9)
    weight = torch.randn(4, generator=generator, dtype=torch.float64)

    def f(value: Tensor) -> Tensor:
        return (relaxed_one_hot(value.log_softmax(0).expand(500, 4), 0.67, uniform) @ weight).square().mean()

    (slope,) = torch.autograd.grad(f(logits), logits)
    for k in range(4):
        h = 1e-5 * torch.eye(4, dtype=torch.float64)[k]
        expected = (f(logits.detach() + h) - f(logits.detach() - h)) / 2e-5
        assert float(slope[k]) == pytest.approx(float(expected), abs=1e-6)


# Capacities


def test_capacities_of_the_published_setting() -> None:
    settings = resolve("jointvae")
    model = settings.method(settings.model, SPEC)
    at = {t: model.schedule(t - 1) for t in (1, 150_000, 299_621, 299_622, 300_000, 10**6)}
    assert at[1]["c_cont"] == pytest.approx(40 / 300_000)
    assert at[1]["c_disc"] == pytest.approx(1.1 / 300_000)
    assert (at[150_000]["c_cont"], at[150_000]["c_disc"]) == pytest.approx((20.0, 0.55))
    assert at[300_000] == at[10**6] == {"c_cont": 40.0, "c_disc": math.log(3)}
    assert at[299_621]["c_disc"] < math.log(3) == at[299_622]["c_disc"]
    assert capacity((2.0, 6.0, 8.0, 1.0), 4) == 4.0


def test_the_clamp_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    trainer(disc=(3, 2), c_disc=(0, 9.5, 10, 1))
    assert f"clamped to {math.log(6):.4f}" in capsys.readouterr().err
    trainer()  # 1.1 is the published rounding of ln 3
    assert "clamped" not in capsys.readouterr().err


# One step


def test_loss_against_a_plain_computation(seed: int) -> None:
    """float64, torch.distributions for both rates, the reconstruction by plain cross-entropy, the same noise."""
    setting = {"z": 3, "disc": (4, 2), "c_cont": (1, 9, 10, 7.0), "c_disc": (0.5, 1.5, 10, 11.0), "temperature": 0.4}
    t = trainer(**setting)
    x = t.dataset.sample(16, seeded(seed, t.device))["x"]
    logged: dict[str, Tensor] = {}
    loss = t.model.joint(step_of(t, x, seed, logged))

    model, x = t.model.double(), x.double()
    noise = seeded(seed, t.device)
    eps = torch.randn(16, 3, generator=noise).double()
    uniform = [torch.rand(16, size, generator=noise).double() for size in (4, 2)]
    out = model.encoder(x)
    q = torch.distributions.Normal(out[:, :3], (0.5 * out[:, 3:6]).exp())
    kl = torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, 1.0)).mean(0)
    parts, rates = [], []
    for logits, u in zip(out[:, 6:].split([4, 2], 1), uniform, strict=True):
        alpha = logits.softmax(1)
        rates.append((alpha * (alpha * alpha.shape[1]).log()).sum(1).mean())
        parts.append(((alpha.log() - (-(1 - u).log()).log()) / 0.4).softmax(1))
    made = model.decoder(torch.cat([q.mean + q.stddev * eps, *parts], 1)).sigmoid()
    reconstruction = -(x * made.log() + (1 - x) * (1 - made).log()).sum((1, 2, 3)).mean()
    wanted = 1 + 8 * 0.1, 0.5 + 0.1
    expected = reconstruction + 7 * abs(kl.sum() - wanted[0]) + 11 * abs(sum(rates) - wanted[1])
    assert float(loss) == pytest.approx(float(expected), rel=1e-4)
    assert float(logged["kl"].sum()) == pytest.approx(float(kl.sum()), rel=1e-4)
    assert logged["kl_disc"].tolist() == pytest.approx([float(r) for r in rates], abs=1e-5)


@pytest.mark.parametrize(("wanted", "sign"), [(0.0, 1.0), (50.0, -1.0)])
def test_the_distance_pulls_towards_the_capacity(seed: int, wanted: float, sign: float) -> None:
    """Below C the gradient of gamma |KL - C| is -gamma times that of KL, above it +gamma."""
    t = trainer(c_cont=(wanted, wanted, 1, 5.0), c_disc=(0, 0, 1, 0.0))
    x = t.dataset.sample(16, seeded(seed, t.device))["x"]
    parameters = list(t.model.encoder.parameters())

    def gradient(model: JointVAE, weight: float) -> Tensor:
        object.__setattr__(model.config, "c_cont", (wanted, wanted, 1.0, weight))
        loss = model.joint(step_of(t, x, seed))
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)])

    pull = gradient(t.model, 5.0) - gradient(t.model, 0.0)
    mean, logvar, _ = t.model.heads(x)
    rate = 0.5 * (mean.square() + logvar.exp() - logvar - 1).sum(1).mean()
    slopes = torch.autograd.grad(rate, parameters, allow_unused=True)
    slope = torch.cat(
        [(g if g is not None else torch.zeros_like(p)).flatten() for g, p in zip(slopes, parameters, strict=True)]
    )
    assert torch.allclose(pull, sign * 5 * slope, atol=1e-3, rtol=1e-3)


def test_channels_are_summed_or_averaged(seed: int) -> None:
    colour = DataSpec("image", (3, 32, 32))
    both = [resolve("jointvae", options={"model": {"bce": bce}}) for bce in ("sum", "channel-mean")]
    draw = torch.Generator().manual_seed(seed)
    out, x = torch.randn(4, 3, 32, 32, generator=draw), torch.rand(4, 3, 32, 32, generator=draw)
    summed, averaged = (s.method(s.model, colour).nll(out, x) for s in both)
    assert torch.allclose(summed, 3 * averaged)


# Networks and codes


def test_sizes_of_the_published_networks() -> None:
    settings = resolve("jointvae", options={"model": {"z": 10, "disc": (10, 2)}})
    model = settings.method(settings.model, SPEC)
    first = next(m for m in model.decoder.modules() if isinstance(m, torch.nn.Linear))
    assert first.in_features == 10 + 10 + 2
    convolutions = 32 * 17 + 32 * (32 * 16 + 1) + 64 * (32 * 16 + 1) + 64 * (64 * 16 + 1)
    assert sum(p.numel() for p in model.encoder.parameters()) == convolutions + 256 * 1025 + (20 + 12) * 257
    assert [(g.name, g.kind, g.size) for g in model.latents] == [
        ("z", "continuous", 10),
        ("c1", "categorical", 10),
        ("c2", "categorical", 2),
    ]


def test_codes_are_means_and_most_probable_classes(seed: int) -> None:
    t = trainer(z=2, disc=(5, 3))
    x = t.dataset.sample(9, seeded(seed, t.device))["x"]
    code = t.model.encode(x)
    out = t.model.encoder(x)
    assert torch.equal(code["z"], out[:, :2])
    assert torch.equal(code["c1"].argmax(1), out[:, 4:9].argmax(1))
    assert torch.equal(code["c2"].argmax(1), t.model.heads(x)[2][1].argmax(1))
    assert torch.equal(code["c1"].sum(1), torch.ones(9))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"disc": ()}, "this is the method annealedvae"),
        ({"disc": (1,)}, "a categorical with 1 value carries nothing"),
        ({"disc": (3, 0)}, "below the smallest allowed value 1"),
        ({"c_cont": (0, 5)}, "c-cont 0,5: four numbers LOW,HIGH,STEPS,WEIGHT are needed, not 2"),
        ({"c_cont": (5, 4, 100, 1)}, "the last capacity is below the first"),
        ({"c_disc": (0, 1, 0, 1)}, "at least 1 step"),
        ({"temperature": 0.0}, "must be above 0"),
    ],
)
def test_settings_out_of_range(model: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        resolve("jointvae", options={"model": model})


# Command line


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from distk.training.loop import train

    options = {
        "model": {"arch": "mlp", "z": 2, "disc": (3, 2)},
        "data": {"name": "dsprites", "size": 32, "scales": [5], "orientations": 1, "positions": 4},
        "train": {"steps": 3, "batch": 8, "device": "cpu"},
    }
    return train(resolve("jointvae", options=options), tmp_path_factory.mktemp("jointvae") / "run", quiet=True).path


def distk(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """stdout of a command of the program."""
    from distk.cli import build as program

    program().main(args=[str(a) for a in arguments], standalone_mode=False)
    return capsys.readouterr().out


def test_embed_gives_the_classes_of_every_variable(run: Path, tmp_path: Path, capsys: Any) -> None:
    from distk.models import open_model

    out = tmp_path / "e.safetensors"
    held = json.loads(distk(capsys, "embed", run, "--out", out, "--json"))["classes"]
    assert [len(held[name]["counts"]) for name in ("c1", "c2")] == [3, 2]
    model, _ = open_model(run / "checkpoint.safetensors", "cpu")
    data = model.dataset()
    batch = data.batch(torch.arange(48))
    with torch.no_grad():
        posterior = model.heads(batch["x"])[2]
    with safe_open(out, "pt") as file:
        for name, log_alpha in zip(("c1", "c2"), posterior, strict=True):
            classes = file.get_tensor(f"class.{name}")
            assert torch.equal(classes, log_alpha.argmax(1))
            for k, row in enumerate(held[name]["contingency"]):
                assert row == [int(((classes == k) & (batch["label"] == j)).sum()) for j in range(3)]
    assert held["c1"]["labels"] == ["square", "ellipse", "heart"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("cascadevae", "assign"), "method 'jointvae'; this command serves cascadevae"),
        (("sample", "--class", "1"), "--class needs --group, one of: c1, c2"),
    ],
)
def test_commands_say_which_variable_they_need(run: Path, capsys: Any, arguments: Any, message: str) -> None:
    cut = 2 if arguments[0] == "cascadevae" else 1
    with pytest.raises(UsageError, match=message):
        distk(capsys, *arguments[:cut], run, *arguments[cut:])


def test_accuracy_wants_to_know_which_variable(run: Path) -> None:
    from distk.evaluation import evaluate
    from distk.models import open_model

    model, _ = open_model(run / "checkpoint.safetensors", "cpu")
    said = evaluate(model, ["clsacc"])["metrics"]["clsacc"]
    assert said["error"] == "there are several discrete codes, c1, c2: choose one with --disc-index 1."
    scored = evaluate(model, ["clsacc"], disc_index=2)["metrics"]["clsacc"]
    assert 0 < scored["hungarian"] <= 1
    assert "the discrete codes are c1, c2" in evaluate(model, ["clsacc"], disc_index=3)["metrics"]["clsacc"]["error"]


def test_sample_and_traverse_know_the_classes(run: Path, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "s.png"
    assert "s.png" in distk(capsys, "sample", run, "-n", 4, "--class", 1, "--group", "c2", "--out", out)
    rows = json.loads(distk(capsys, "traverse", run, "--out", tmp_path / "t.png", "--no-gif", "--json"))["rows"]
    assert [row.split()[0] for row in rows[:-1]] == ["c1=0"] * 2 + ["c1=1"] * 2 + ["c1=2"] * 2
    assert rows[-1] == "c2 0..1"
