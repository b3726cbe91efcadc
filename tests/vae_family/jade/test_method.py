"""JADE's terms against independent computations, its networks' shapes, and what the classifier may read."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Bernoulli, Categorical, Normal, kl_divergence

from distk import DataSpec, UsageError
from distk.method import Step
from distk.nn import kl_between
from distk.plugins.vae_family.jade.method import Classifier, Config, Jade, JadePaired, JadeSingle, cosine

CLASSES = list("0123456789")
SPEC = DataSpec(
    "image",
    (3, 32, 32),
    classes=tuple(CLASSES),
    extra={"secondary": [1, 28, 28], "primary_classes": CLASSES, "secondary_classes": CLASSES, "names": ["a", "b"]},
)
SMALL = {"width": 0.125, "hidden": 16}


def model(kind: type = Jade, **settings) -> Jade:
    return kind(kind.Config(**{**SMALL, **settings}), SPEC)


def batch(n: int, generator: torch.Generator) -> dict[str, Tensor]:
    label = torch.randint(10, (n,), generator=generator)
    x, y = (torch.rand(n, *shape, generator=generator) for shape in ((3, 32, 32), (1, 28, 28)))
    return {"x": x, "y": y, "label": label, "y_label": label}


def step(made: Jade, items: dict[str, Tensor], index: int = 0, seed: int = 0) -> tuple[Step, dict[str, Tensor]]:
    """A Step on these items, and the dict that it logs into."""
    logged: dict[str, Tensor] = {}
    schedule = {key: torch.tensor(float(value)) for key, value in made.schedule(index).items()}
    taken = Step(
        index=torch.tensor(index),
        schedule=schedule,
        phase=None,
        generator=torch.Generator().manual_seed(seed),
        log=logged.__setitem__,
    )
    taken.batch = items
    return taken, logged


# The matching term


def test_matching_is_the_kl_of_the_posteriors(generator: torch.Generator) -> None:
    mean_q, mean_p = (3 * torch.randn(2, 7, 10, generator=generator, dtype=torch.float64)).unbind()
    logvar_q, logvar_p = (14 * torch.rand(2, 7, 10, generator=generator, dtype=torch.float64) - 8).unbind()
    q, p = (Normal(m, (v / 2).exp()) for m, v in ((mean_q, logvar_q), (mean_p, logvar_p)))
    torch.testing.assert_close(
        kl_between(mean_q, logvar_q, mean_p, logvar_p), kl_divergence(q, p), rtol=1e-9, atol=1e-9
    )
    pair = ([mean_q, mean_p], [logvar_q, logvar_p])
    forward, reverse = (kl_divergence(a, b).sum(1).mean() for a, b in ((q, p), (p, q)))
    for name, expected in (("forward", forward), ("reverse", reverse), ("symmetric", (forward + reverse) / 2)):
        torch.testing.assert_close(model(match=name).matching(*pair), expected, rtol=1e-9, atol=1e-9)


def test_matching_vanishes_for_equal_posteriors_and_pulls_at_both(generator: torch.Generator) -> None:
    mean, logvar = torch.randn(2, 5, 10, generator=generator).unbind()
    assert float(kl_between(mean, logvar, mean, logvar).abs().max()) < 1e-6
    made, items = model(), batch(4, generator)
    content = [[part[:, :10] for part in made.infer(items[name])] for name in ("x", "y")]
    made.matching(*map(list, zip(*content, strict=True))).backward()
    for net in (made.encoder_x, made.encoder_y):
        grad = net[-1].weight.grad
        halves = [grad[:10], grad[10:20], grad[20:30], grad[30:]]  # mean of content, style, log variance of them
        assert [bool(half.abs().sum() > 0) for half in halves] == [True, False, True, False]


# The objective


def test_the_objective_is_the_sum_of_its_terms(generator: torch.Generator) -> None:
    made = model(dropout=0.0, alpha_cls=37.0, match_weight=2.5, kl_warmup=0.5, horizon=100, logvar_init=-1.0)
    items = batch(6, generator)
    taken, logged = step(made, items, index=20, seed=4)
    loss = made.joint(taken)
    noise = torch.Generator().manual_seed(4)
    expected, content = 0.0, []
    for name, decoder in (("x", made.decoder_x), ("y", made.decoder_y)):
        mean, logvar = made.infer(items[name])
        q = Normal(mean, (logvar / 2).exp())
        z = q.mean + q.stddev * torch.randn(mean.shape, generator=noise)
        expected -= Bernoulli(logits=decoder(z), validate_args=False).log_prob(items[name]).flatten(1).sum(1).mean()
        expected += 0.4 * kl_divergence(q, Normal(0.0, 1.0)).sum(1).mean()  # step 20 of a warm-up of 50
        expected -= 37 * Categorical(logits=made.classifier(z[:, :10])).log_prob(items["label"]).mean()
        content.append(Normal(q.mean[:, :10], q.stddev[:, :10]))
    expected += 0.4 * 2.5 * kl_divergence(*content).sum(1).mean()
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-3)
    assert {"reconstruction_x", "reconstruction_y", "classification_x", "classification_y", "matching"} <= set(logged)


def test_without_warmup_the_terms_have_full_weight_at_once() -> None:
    assert model(kl_warmup=0.0).schedule(0)["kl_weight"] == 1.0
    weights = [model(kl_warmup=0.5, horizon=1000).schedule(step)["kl_weight"] for step in (0, 250, 500, 900)]
    assert weights == [0.0, 0.5, 1.0, 1.0]
    rates = [cosine(step, 100, 1e-3, 1e-5) for step in (0, 50, 100, 500)]
    assert rates == pytest.approx([1e-3, (1e-3 + 1e-5) / 2, 1e-5, 1e-5])


def test_the_baselines_lose_what_they_should(generator: torch.Generator) -> None:
    items = batch(5, generator)
    items["y_label"] = torch.randint(10, (5,), generator=generator)
    paired, single = model(JadePaired, dropout=0.0), model(JadeSingle, dropout=0.0)
    expected = F.cross_entropy(paired.classifier(paired.encoder_x(items["x"])), items["label"])
    expected += F.cross_entropy(paired.classifier(paired.encoder_y(items["y"])), items["y_label"])
    torch.testing.assert_close(paired.loss(step(paired, items)[0]), expected)
    expected = F.cross_entropy(single.classifier(single.encoder_x(items["x"])), items["label"])
    torch.testing.assert_close(single.loss(step(single, items)[0]), expected)
    assert not hasattr(single, "encoder_y")
    with pytest.raises(UsageError, match="primary only"):
        single.encode(items["y"])


def test_dropout_keeps_the_expectation_and_drops_its_share(generator: torch.Generator) -> None:
    seen: list[Tensor] = []
    classify = Classifier(10, 400, 10, 0.3)
    classify.last.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    content = torch.randn(500, 10, generator=generator)
    taken, _ = step(model(), {})
    classify(content, taken)
    classify(content)
    dropped, whole = (hidden > 0 for hidden in seen)
    # Of the units that fire without dropout's zeros, 70 % stay: the layers before move which fire, but not their share.
    assert float(dropped.float().mean() / whole.float().mean()) == pytest.approx(0.7, abs=0.07)
    torch.testing.assert_close(classify(content), classify(content))
    # What stays is scaled up, so that a layer's mean over masks is the layer without them.
    one = Classifier(10, 400, 10, 0.3)
    masks, (taken, _) = torch.Generator().manual_seed(3), step(model(), {}, seed=3)
    hidden = content[:5]
    for layer in one.layers:
        hidden = F.relu(layer(hidden))
        hidden = hidden * (torch.rand(hidden.shape, generator=masks) >= 0.3) / 0.7
    torch.testing.assert_close(one(content[:5], taken), one.last(hidden))


# Networks


def test_shapes_of_every_layer() -> None:
    made = Jade(Config(), SPEC)
    found: dict[str, list[tuple[int, ...]]] = {}

    def watch(net: torch.nn.Sequential, x: Tensor) -> list[tuple[int, ...]]:
        shapes = []
        for layer in net:
            x = layer(x)
            if not isinstance(layer, torch.nn.ReLU):
                shapes.append(tuple(x.shape[1:]))
        return shapes

    with torch.no_grad():
        found["x"] = watch(made.encoder_x, torch.rand(1, 3, 32, 32))
        found["y"] = watch(made.encoder_y, torch.rand(1, 1, 28, 28))
        found["dx"] = watch(made.decoder_x.body, torch.rand(1, 20))
        found["dy"] = watch(made.decoder_y.body, torch.rand(1, 20))
        code = made.encode(torch.rand(2, 1, 28, 28))
        assert made.decode(code).shape == (2, 3, 32, 32)
        assert made.decode_secondary(code).shape == (2, 1, 28, 28)
    assert found["x"] == [
        *[(64, 32, 32), (64, 16, 16), (96, 16, 16), (96, 8, 8), (64, 8, 8), (64, 4, 4), (8, 4, 4), (128,), (40,)]
    ]
    assert found["y"] == [
        *[(32, 28, 28), (32, 14, 14), (32, 14, 14), (32, 7, 7), (16, 7, 7), (16, 4, 4), (256,), (40,)]
    ]
    assert found["dx"] == [
        *[(128,), (8, 4, 4), (64, 4, 4), (64, 8, 8), (96, 8, 8), (96, 16, 16), (64, 16, 16), (64, 32, 32), (3, 32, 32)]
    ]
    assert found["dy"] == [
        *[(256,), (16, 4, 4), (16, 8, 8), (32, 8, 8), (32, 16, 16), (32, 16, 16), (32, 32, 32), (1, 32, 32)]
    ]
    hidden = [tuple(layer.weight.shape) for layer in made.classifier.layers]
    assert hidden == [(500, 10), (500, 500), (500, 500)]
    assert JadePaired(JadePaired.Config(), SPEC).encoder_y[-1].out_features == 10


def test_the_log_variance_starts_at_its_bias_and_stays_within_limits(generator: torch.Generator) -> None:
    made = model(logvar_init=-4.0)
    with torch.no_grad():
        for net in (made.encoder_x, made.encoder_y):
            assert net[-1].bias[20:].tolist() == [-4.0] * 20
            net[-1].bias[20:] = torch.tensor([1e4, -1e4] * 10)
        for name in ("x", "y"):
            _, logvar = made.infer(batch(3, generator)[name])
            assert torch.equal(logvar, torch.tensor([6.0, -8.0] * 10).expand(3, -1))


def test_the_classifier_reads_content_only(generator: torch.Generator) -> None:
    made, items = model(), batch(4, generator)
    for name in ("x", "y"):
        before, code = made.classify(items[name]), made.encode(items[name])
        with torch.no_grad():  # style dims of mean and log variance are moved far away
            net = made.encoder_x if name == "x" else made.encoder_y
            net[-1].bias[10:20] += 1e3
            net[-1].bias[20:] += torch.randn(20, generator=generator)
        assert torch.equal(made.classify(items[name]), before)
        assert torch.equal(made.encode(items[name])["content"], code["content"])
        assert not torch.equal(made.encode(items[name])["style"], code["style"])


def test_a_class_is_drawn_with_its_mean_content(generator: torch.Generator) -> None:
    made, means = model(), {}
    for _ in range(3):
        items = batch(64, generator)
        made.joint(step(made, items)[0])
        for name in ("x", "y"):
            content = made.encode(items[name])["content"].detach()
            for c in range(10):
                if bool((items["label"] == c).any()):
                    means.setdefault((name, c), []).append(content[items["label"] == c].mean(0))
    for (name, c), parts in means.items():  # the first hundred batches count alike
        held = made.class_content["xy".index(name), c]
        torch.testing.assert_close(held, torch.stack(parts).mean(0), rtol=1e-4, atol=1e-5)
    codes = made.drawn(5, torch.Generator().manual_seed(1), 3, "y")
    assert torch.equal(codes["content"], made.class_content[1, 3].expand(5, -1))
    prior = made.prior(5, torch.Generator().manual_seed(1))
    assert torch.equal(codes["style"], prior["style"])
    same = made.decode({"content": made.class_content[0, 3].expand(5, -1), "style": prior["style"]})
    assert torch.equal(made.sample(5, torch.Generator().manual_seed(1), label=3), same)


# What does not fit


def test_data_that_does_not_fit() -> None:
    with pytest.raises(ValueError, match="class-pairs"):
        Jade(Config(), DataSpec("image", (3, 32, 32)))
    with pytest.raises(ValueError, match=r"primary's images are 1x32x32, and 3x32x32 is needed: --resize"):
        Jade(Config(), dataclasses.replace(SPEC, shape=(1, 32, 32)))
    with pytest.raises(ValueError, match="secondary's images are 3x32x32"):
        Jade(Config(), dataclasses.replace(SPEC, extra={**SPEC.extra, "secondary": [3, 32, 32]}))
    lacking = dataclasses.replace(SPEC, extra={**SPEC.extra, "secondary_classes": CLASSES[1:]})
    said = r"primary has classes \{0, 1.*secondary has classes \{1, 2.*class 0 has no counterpart"
    with pytest.raises(ValueError, match=said):
        Jade(Config(), lacking)
    JadePaired(JadePaired.Config(), lacking)  # warns only
