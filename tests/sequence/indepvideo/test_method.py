"""indepvideo's mathematics against independent computations, with fresh random inputs each time."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from distk import DataSpec, seeded
from distk.config import from_dict
from distk.errors import UsageError
from distk.method import Step
from distk.nn import kl_between
from distk.plugins.sequence.indepvideo.method import DECAY_EVERY, SPAN, Config, IndepVideo
from distk.plugins.sequence.indepvideo.networks import Transitions

VECTOR = DataSpec("vector-clip", (4, 5), (-6.0, 6.0))
FORMS = [("factored", 1), ("factored", 2), ("entangled", 1), ("entangled", 2)]


def small(spec: DataSpec = VECTOR, **settings: Any) -> IndepVideo:
    """A small model in float64 and eval mode."""
    values = {"latents": 2, "latent_dim": 3, "trans_hidden": 6, "trans_layers": 3, "channels": 2, "features": 4}
    return IndepVideo(Config(**{**values, **settings}), spec).double().eval()


@pytest.fixture(autouse=True)
def fresh(seed: int) -> None:
    torch.manual_seed(seed)


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def test_kl_of_two_gaussians_equals_a_million_draws() -> None:
    m, s, n, u = normal(4, 3)
    q, p = Normal(m, (0.5 * s).exp()), Normal(n, (0.5 * u).exp())
    draws = q.sample((1_000_000,))
    ratio = q.log_prob(draws) - p.log_prob(draws)
    assert ((ratio.mean(0) - kl_between(m, s, n, u)).abs() < 6 * ratio.std(0) / 1000).all()


# ------------------------------------------------------------------------------------- transitions


@pytest.mark.parametrize("memory", [1, 2])
def test_transitions_equal_separate_networks_of_each_factor(memory: int) -> None:
    transitions = Transitions(3, 4, memory, 4, 7).double()
    past = normal(5, memory, 12)
    mean, logvar = transitions(past)
    for i in range(3):
        x = torch.cat([past[:, m, 4 * i : 4 * i + 4] for m in range(memory)], 1)
        for layer, (weight, bias) in enumerate(zip(transitions.weights, transitions.biases, strict=True)):
            linear = nn.Linear(*weight.shape[1:]).double()
            linear.weight.data, linear.bias.data = weight[i].T, bias[i, 0]
            x = linear(nn.SELU()(x) if layer else x)
        torch.testing.assert_close(torch.cat([mean[:, 4 * i :][:, :4], logvar[:, 4 * i :][:, :4]], 1), x)


def test_transitions_start_like_linear_layers_of_torch() -> None:
    """Uniform within 1 / sqrt(fan_in): 20,000 weights reach within 1% of the edge and have the variance edge^2 / 3."""
    transitions = Transitions(4, 50, 1, 2, 100)
    weight, edge = transitions.weights[0], 1 / math.sqrt(50)
    assert float(weight.detach().abs().max()) <= edge
    assert float(weight.detach().abs().max()) > 0.99 * edge
    assert abs(float(weight.detach().var()) * 3 / edge**2 - 1) < 0.05  # sd of a sample variance: 0.9 / sqrt(20000)
    assert not torch.equal(weight[0], weight[1])


@pytest.mark.parametrize(("form", "memory"), FORMS)
def test_a_factors_future_depends_on_its_own_past_alone(form: str, memory: int) -> None:
    model = small(transition=form, markov=memory)
    past = normal(1, memory, 6)
    for output in range(2):
        of = torch.autograd.functional.jacobian(lambda p, o=output: model.transitions(p)[o][0], past)[:, 0]
        blocks = of.view(2, 3, memory, 2, 3).abs().amax((1, 4))  # [factor, memory, factor before]
        for i in range(2):
            for j in range(2):
                reads = (blocks[i, :, j] > 0).tolist()
                assert reads == [form == "entangled" or i == j] * memory


def test_log_variances_of_transitions_are_limited_on_request() -> None:
    transitions, past = Transitions(1, 2, 1, 1, 4, limit=0.5).double(), 100 * normal(50, 1, 2)
    _, logvar = transitions(past)
    transitions.limit = 0.0
    _, free = transitions(past)
    assert float(free.detach().abs().max()) > 0.5
    torch.testing.assert_close(logvar, free.clamp(-0.5, 0.5))


# ------------------------------------------------------------------------------------------ filter


@pytest.mark.parametrize("combine", ["paper", "raw"])
@pytest.mark.parametrize(("form", "memory"), FORMS)
def test_the_filter_step_by_step(form: str, memory: int, combine: str) -> None:
    """Every state's posterior from the frame and the prediction of the sampled states before it, layer by layer."""
    model = small(transition=form, markov=memory, combine=combine)
    x, noise = normal(3, 4, 5), normal(3, 4, 6)
    path = model.infer(x, noise)
    c = model.combination

    def leaky(layer: nn.Linear, value: Tensor) -> Tensor:
        out = value @ layer.weight.T + layer.bias
        return torch.where(out > 0, out, 0.01 * out)

    before = [torch.zeros(3, 6, dtype=torch.float64)] * 2
    for t in range(4):
        mean = logvar = torch.zeros(3, 6, dtype=torch.float64)
        if t:
            mean, logvar = model.transitions(torch.stack(before[-memory:], 1))
        torch.testing.assert_close(path.p[0][:, t], mean)
        torch.testing.assert_close(path.p[1][:, t], logvar)
        told = [mean, logvar] if combine == "raw" else [leaky(c.from_mean, mean), leaky(c.from_logvar, logvar)]
        hidden = leaky(c.joint, torch.cat([leaky(c.from_frame, x[:, t]), *told], 1))
        out = hidden @ c.head.weight.T + c.head.bias
        torch.testing.assert_close(torch.cat([path.q[0][:, t], path.q[1][:, t]], 1), out)
        before.append(out[:, :6] + (out[:, 6:] / 2).exp() * noise[:, t])
        torch.testing.assert_close(path.z[:, t], before[-1])


def test_the_filter_sees_no_later_frame() -> None:
    model = small()
    x = normal(1, 4, 5).requires_grad_()
    model.infer(x, normal(1, 4, 6)).q[0][:, 2].sum().backward()
    assert x.grad is not None
    # The path from earlier frames leads through the detached prediction, so that no gradient shows it.
    assert (x.grad[0].abs().sum(1) > 0).tolist() == [False, False, True, False]
    other = x.detach().clone()
    other[:, 0] += 1
    assert not torch.equal(model.infer(other, None).q[0][:, 2], model.infer(x, None).q[0][:, 2])


@pytest.mark.parametrize(("form", "memory"), FORMS)
def test_transitions_learn_from_the_kl_alone(form: str, memory: int) -> None:
    model = small(transition=form, markov=memory)
    x, noise = normal(3, 4, 5), normal(3, 4, 6)
    squares, kl, _ = model.terms(x, noise)

    def slopes(loss: Tensor) -> list[float]:
        found = torch.autograd.grad(loss, list(model.transitions.parameters()), allow_unused=True, retain_graph=True)
        return [0.0 if g is None else float(g.abs().max()) for g in found]

    assert set(slopes(squares.sum())) == {0.0}
    assert set(slopes(kl[:, 0].sum())) == {0.0}
    assert min(slopes(kl[:, 1].sum())) > 0


def test_a_sampled_state_is_moved_by_how_well_it_foretells_the_next() -> None:
    """The gradient of KL_2 in z_1 is that of the prior's moments with q held fast, and is not lost."""
    model = small()
    x, noise = normal(3, 2, 5), normal(3, 2, 6).requires_grad_()
    _, kl, path = model.terms(x, noise)
    (found,) = torch.autograd.grad(kl[:, 1].sum(), noise, retain_graph=True)
    z = path.z[:, :1].detach().requires_grad_()
    q = [value[:, 1].detach() for value in path.q]
    (by_state,) = torch.autograd.grad(kl_between(*q, *model.transitions(z)).sum(), z)
    torch.testing.assert_close(found[:, 0], by_state[:, 0] * (0.5 * path.q[1][:, 0]).exp().detach())
    assert float(found[:, 0].abs().max()) > 0


# ------------------------------------------------------------------------------------------- bound


@pytest.mark.parametrize(("form", "memory"), FORMS)
def test_bound_term_by_term(form: str, memory: int) -> None:
    model = small(transition=form, markov=memory, sigma2=0.3)
    x = normal(6, 4, 5)
    made = model.bound(x, torch.Generator().manual_seed(3))
    noise = torch.randn(6, 4, 6, generator=torch.Generator().manual_seed(3))
    path = model.infer(x, noise)
    q, p = (Normal(m, (0.5 * s).exp()) for m, s in (path.q, path.p))
    seen = F.linear(path.z, model.decoder.weight, model.decoder.bias)
    likelihood = Normal(seen, math.sqrt(0.3)).log_prob(x).sum(2)
    kl = kl_divergence(q, p).sum(2)
    torch.testing.assert_close(made["log_likelihood"], likelihood.sum(1))
    torch.testing.assert_close(made["nll_per_frame"], -likelihood.mean(1))
    torch.testing.assert_close(made["kl"], kl.sum(1))
    torch.testing.assert_close(made["kl_first"], kl[:, 0])
    torch.testing.assert_close(made["kl_next"], kl[:, 1:].mean(1))
    torch.testing.assert_close(made["elbo"], likelihood.sum(1) - kl.sum(1))
    torch.testing.assert_close(made["elbo_per_frame"], (likelihood - kl).mean(1))
    torch.testing.assert_close(made["mse"], (x - seen).pow(2).mean((1, 2)))
    torch.testing.assert_close(made["kl_by_dimension"], kl_divergence(q, p).sum(1))
    weight = likelihood.sum(1) + (p.log_prob(path.z) - q.log_prob(path.z)).sum((1, 2))
    torch.testing.assert_close(made["log_weight"], weight)


def step_of(model: IndepVideo, x: Tensor, kl: float, logged: dict[str, Tensor]) -> Step:
    step = Step(
        index=torch.tensor(0), schedule={"kl": torch.tensor(kl)}, phase=None,
        generator=seeded(3, torch.device("cpu")), log=logged.__setitem__,
    )  # fmt: skip
    step.batch = {"x": x}
    return step


def test_the_loss_is_the_bound_per_frame_with_its_kl_weighted() -> None:
    model, x = small().float(), torch.randn(8, 4, 5)
    logged: dict[str, Tensor] = {}
    parts = model.bound(x, torch.Generator().manual_seed(3))
    for weight in (1.0, 0.25):
        loss = model.elbo(step_of(model, x, weight, logged))
        expected = parts["nll_per_frame"].mean() + weight * parts["kl"].mean() / 4
        torch.testing.assert_close(loss, expected.float(), rtol=1e-5, atol=1e-4)
    for name in ("mse", "kl_first", "kl_next"):
        torch.testing.assert_close(logged[name], parts[name].mean().float(), rtol=1e-5, atol=1e-5)


def test_constants_of_the_published_bounds() -> None:
    """-D/2 log(2 pi sigma2) of 3x64x64 pixels, and what two unseen digits of 88 units of squared ink each cost."""
    spec = DataSpec("video", (5, 3, 64, 64))
    with torch.device("meta"):
        digits, street = IndepVideo(Config(), spec), IndepVideo(Config(sigma2=0.05), spec)
    nothing = torch.zeros((), dtype=torch.float64)
    assert float(-digits.nll(nothing)) == pytest.approx(-2774.5, abs=0.05)
    assert float(-street.nll(nothing)) == pytest.approx(7113.9, abs=0.05)
    assert float(-digits.nll(nothing + 176)) == pytest.approx(-3126.5, abs=0.05)


class Exact(nn.Module):
    """q(z_t | z_{t-1}, x_t) = p(z_t | z_{t-1}, x_t) for frames that are the state plus noise, elementwise."""

    def __init__(self, sigma2: float) -> None:
        super().__init__()
        self.sigma2 = sigma2

    def frame(self, features: Tensor) -> Tensor:
        return features

    def forward(self, frame: Tensor, mean: Tensor, logvar: Tensor) -> tuple[Tensor, Tensor]:
        variance = 1 / ((-logvar).exp() + 1 / self.sigma2)
        return variance * (mean * (-logvar).exp() + frame / self.sigma2), variance.log()


def linear_model(frames: int, exact: bool, memory: int = 1) -> tuple[IndepVideo, MultivariateNormal]:
    """A model with linear transitions and frames = state + noise, and the density of its clips `[frames * 4]`."""
    settings = {"latent_dim": 2, "trans_layers": 1, "sigma2": 0.4, "markov": memory}
    model = small(DataSpec("vector-clip", (max(frames, 2), 4), (-6.0, 6.0)), **settings)
    eye = torch.eye(4, dtype=torch.float64)
    with torch.no_grad():
        model.decoder.weight.copy_(eye)  # type: ignore[union-attr]
        model.decoder.bias.zero_()  # type: ignore[union-attr]
        model.transitions.weights[0][..., 2:] = 0  # variances do not depend on the state
    if exact:
        model.combination = Exact(0.4)  # type: ignore[assignment]
    weight, bias = model.transitions.weights[0].detach(), model.transitions.biases[0].detach()
    step = [torch.block_diag(*(w[2 * m : 2 * m + 2, :2].T for w in weight)) for m in range(memory)]
    drift, variance = bias[:, 0, :2].flatten(), bias[:, 0, 2:].exp().flatten()
    # z = L noise + mean, over all steps: built by running the recursion on symbolic columns.
    rows, means = [torch.cat([eye, *[0 * eye] * (frames - 1)], 1)], [0 * drift]
    for t in range(1, frames):
        own = torch.zeros(4, 4 * frames, dtype=torch.float64)
        own[:, 4 * t : 4 * t + 4] = variance.sqrt().diag()
        last = [(step[-1], -1), (step[0], -2)][: memory if t > 1 else 1]
        rows.append(own + sum(a @ rows[k] for a, k in last))
        means.append(drift + sum(a @ means[k] for a, k in last))
    spread = torch.cat(rows)
    return model, MultivariateNormal(torch.cat(means), spread @ spread.T + 0.4 * torch.eye(4 * frames).double())


@pytest.mark.parametrize("memory", [1, 2])
def test_the_bound_lies_below_the_likelihood_of_a_linear_gaussian_model(memory: int) -> None:
    """Its mean over draws never exceeds the exact log p(x), whatever q is, and importance weights reach it."""
    model, density = linear_model(3, exact=True, memory=memory)
    x = density.sample((4,)).view(4, 3, 4)
    draws = 20_000
    with torch.no_grad():
        weights = model.bound(x.repeat_interleave(draws, 0), torch.Generator().manual_seed(1))
    for q_exact in (True, False):
        if not q_exact:
            other, _ = linear_model(3, exact=False, memory=memory)
            other.transitions.load_state_dict(model.transitions.state_dict())
            with torch.no_grad():
                weights = other.bound(x.repeat_interleave(draws, 0), torch.Generator().manual_seed(1))
        elbo = weights["elbo"].view(4, draws)
        error = elbo.std(1) / math.sqrt(draws)
        assert (elbo.mean(1) - 5 * error < density.log_prob(x.flatten(1))).all()
        if q_exact:
            log_w = weights["log_weight"].view(4, draws)
            estimate = log_w.logsumexp(1) - math.log(draws)
            relative = (log_w - estimate[:, None]).exp().std(1) / math.sqrt(draws)
            assert (relative < 0.05).all()
            assert ((estimate - density.log_prob(x.flatten(1))).abs() < 6 * relative + 1e-3).all()


def test_the_bound_of_one_frame_with_the_exact_posterior_is_the_likelihood() -> None:
    model, density = linear_model(1, exact=True)
    x = density.sample((5,)).view(5, 1, 4)
    with torch.no_grad():
        weights = torch.stack([model.bound(x, torch.Generator().manual_seed(i))["log_weight"] for i in range(3)])
    torch.testing.assert_close(weights, density.log_prob(x.flatten(1)).expand(3, 5), atol=1e-5, rtol=0)


# --------------------------------------------------------------------------------- the trained model


@pytest.mark.parametrize(("form", "memory"), FORMS)
def test_rollouts_have_the_density_that_the_filter_charges_for(form: str, memory: int) -> None:
    model = small(transition=form, markov=memory)
    noise = normal(5, 7, 6)
    first = normal(5, 1, 6)
    z = torch.cat([first, model.rollout(first, noise)], 1)
    zero = torch.zeros(5, 1, 6, dtype=torch.float64)
    padded = torch.cat([zero, z], 1)
    for t in range(7):
        past = padded[:, t + 2 - memory : t + 2]
        mean, logvar = model.transitions(past)
        torch.testing.assert_close((z[:, t + 1] - mean) / (0.5 * logvar).exp(), noise[:, t])
    # From two known states the second alone counts with memory 1, both with memory 2.
    other = z[:, :2].clone()
    other[:, 0] += 1
    same = torch.equal(model.rollout(z[:, :2], noise), model.rollout(other, noise))
    assert same == (memory == 1)


def test_prediction_goes_on_from_the_filtered_state() -> None:
    model = small(markov=2)
    x = normal(3, 4, 5)
    made = model.predict(x, 5, seeded(0, torch.device("cpu")))
    noise = torch.randn(3, 5, 6, generator=seeded(0, torch.device("cpu")))
    expected = model.render(model.rollout(model.state(model.encode(x)), noise))
    torch.testing.assert_close(made, expected)
    assert made.shape == (3, 5, 5)


def test_means_and_draws_of_the_code() -> None:
    model, x = small(), normal(3, 4, 5)
    code, posterior = model.encode(x), model.posterior(x)
    model.latents.check(code, 3)
    path = model.infer(x, None)
    torch.testing.assert_close(path.z, path.q[0])
    torch.testing.assert_close(model.state(code), path.q[0])
    for name, (mean, std) in posterior.items():
        torch.testing.assert_close(mean, code[name])
        torch.testing.assert_close(std, model.split((0.5 * path.q[1]).exp())[name])
    drawn = model.state(model.paths(x, torch.Generator().manual_seed(2)))
    noise = torch.randn(3, 4, 6, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(drawn, model.infer(x, noise).z)
    torch.testing.assert_close(model.decode(code), model.render(model.state(code)))


def test_samples_start_at_the_standard_normal() -> None:
    model = small(latent_dim=2).float()
    z = model.state(model.prior(20_000, torch.Generator().manual_seed(0), frames=3)).detach()
    assert z.shape == (20_000, 3, 4)
    assert float(z[:, 0].mean(0).abs().max()) < 6 / math.sqrt(20_000)
    assert float((z[:, 0].var(0) - 1).abs().max()) < 6 * math.sqrt(2 / 20_000)
    with torch.no_grad():
        mean, logvar = model.transitions(z[:, :1])
    standardised = (z[:, 1] - mean) / (0.5 * logvar).exp()
    assert float((standardised.var(0) - 1).abs().max()) < 6 * math.sqrt(2 / 20_000)
    assert model.state(model.prior(2, torch.Generator(), frames=1)).shape == (2, 1, 4)


@pytest.mark.parametrize("source", ["posterior", "prior", "prior-mean", "interpolate"])
@pytest.mark.parametrize(("form", "memory"), FORMS)
def test_one_part_moves_and_all_others_are_frozen(source: str, form: str, memory: int) -> None:
    model = small(DataSpec("vector-clip", (5, 6), (-6.0, 6.0)), transition=form, markov=memory)
    model.render = lambda z: z  # type: ignore[method-assign]
    x = normal(3, 5, 6)
    parts = [torch.tensor([0, 4, 2]), torch.tensor([1, 3, 5])]
    made = model.independent(x, parts, torch.Generator().manual_seed(5), source)  # type: ignore[arg-type]
    draw = torch.Generator().manual_seed(5)
    noise = torch.randn(3, 5, 6, generator=draw)
    z = model.infer(x, noise).z
    assert made.shape == (3, 3, 4, 6)
    torch.testing.assert_close(made[:, 0], z[:, 1:])
    later = torch.randn(3, 3, 6, generator=draw).double() if source.startswith("prior") else None
    for row, units in enumerate(parts, 1):
        others = parts[2 - row]
        torch.testing.assert_close(made[:, row][..., others], z[:, 1:2, others].expand(-1, 4, -1))
        moved = made[:, row][..., units]
        if source == "posterior":
            torch.testing.assert_close(moved, z[:, 1:, units])
        elif source == "interpolate":
            step = moved - z[:, 1:2, units]
            place = torch.tensor([-SPAN, -SPAN / 3, SPAN / 3, SPAN]).double()
            way = step[0, -1] / SPAN
            torch.testing.assert_close(step, (place[:, None] * way).expand(3, 4, 3), atol=1e-5, rtol=1e-5)
            assert float(way.detach().norm()) == pytest.approx(1, abs=1e-5)
        else:
            assert later is not None
            noise = later if source == "prior" else 0 * later
            torch.testing.assert_close(moved, torch.cat([z[:, 1:2], model.rollout(z[:, :2], noise)], 1)[..., units])


def test_a_factor_of_the_factored_model_moves_alone_as_it_moves_with_the_others() -> None:
    """What its transition makes of it does not depend on whether the others are frozen."""
    model = small()
    model.render = lambda z: z  # type: ignore[method-assign]
    x = normal(2, 4, 5)
    one = model.independent(x, [torch.arange(3)], torch.Generator().manual_seed(1), "prior-mean")[:, 1]
    past = one[:, :1]
    for t in range(1, 3):
        past = model.transitions(past[:, -1:])[0].unsqueeze(1)
        torch.testing.assert_close(one[:, t, :3], past[:, 0, :3])
        past = torch.cat([past[..., :3], one[:, t : t + 1, 3:]], 2)


# ------------------------------------------------------------------------------ settings and shapes


def test_schedules() -> None:
    model = small(kl_warmup=10, kl_weight=0.5, lr=1e-3, lr_decay=0.985)
    assert [model.schedule(s)["kl"] for s in (0, 5, 10, 99)] == [0.0, 0.25, 0.5, 0.5]
    assert [model.schedule(s)["lr"] for s in (0, DECAY_EVERY - 1)] == [1e-3, 1e-3]
    assert model.schedule(2 * DECAY_EVERY)["lr"] == pytest.approx(1e-3 * 0.985**2)
    assert small().schedule(0)["kl"] == 1.0


def test_layer_sizes_are_those_of_the_paper() -> None:
    """Appendix A, and section 3 for the numbers of factors and the variances."""
    spec = DataSpec("video", (5, 3, 64, 64))
    with torch.device("meta"):
        model, street = IndepVideo(Config(), spec), IndepVideo(Config(**IndepVideo.presets["street"]["model"]), spec)
        entangled = IndepVideo(Config(transition="entangled"), spec)
        reference = IndepVideo(Config(**IndepVideo.presets["reference"]["model"]), spec)

    def convolutions(net: nn.Module) -> list[tuple[int, ...]]:
        kinds = nn.Conv2d | nn.ConvTranspose2d
        return [
            (m.in_channels, m.out_channels, *m.kernel_size[:1], *m.stride[:1], int(m.padding[0]))
            for m in net.modules()
            if isinstance(m, kinds)
        ]

    assert convolutions(model.encoder) == [
        (3, 64, 4, 2, 1), (64, 128, 4, 2, 1), (128, 256, 4, 2, 1), (256, 512, 4, 2, 1), (512, 32, 4, 1, 0),
    ]  # fmt: skip
    assert convolutions(model.decoder) == [
        (50, 512, 4, 1, 0), (512, 256, 4, 2, 1), (256, 128, 4, 2, 1), (128, 64, 4, 2, 1), (64, 3, 4, 2, 1),
    ]  # fmt: skip
    for net in (model.encoder, model.decoder):
        norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
        assert len(norms) == 4
        assert {(m.eps, m.momentum, m.affine) for m in norms} == {(1e-5, 0.1, True)}
    assert isinstance(model.decoder[-1], nn.Sigmoid)  # type: ignore[index]
    sizes = [(25, 128), (128, 128), (128, 128), (128, 128), (128, 50)]
    assert [tuple(w.shape) for w in model.transitions.weights] == [(2, *size) for size in sizes]
    assert [tuple(w.shape) for w in street.transitions.weights] == [(8, *size) for size in sizes]
    whole = [(50, 128), (128, 128), (128, 128), (128, 128), (128, 100)]
    assert [tuple(w.shape) for w in entangled.transitions.weights] == [(1, *size) for size in whole]
    assert tuple(reference.transitions.weights[0].shape) == (2, 50, 128)
    assert len(reference.transitions.weights) == 6
    c = model.combination
    linear = [(m.in_features, m.out_features) for m in (c.from_frame, c.from_mean, c.from_logvar, c.joint, c.head)]
    assert linear == [(32, 50), (50, 50), (50, 50), (150, 50), (50, 100)]
    assert (model.config.sigma2, street.config.sigma2, model.config.lr) == (0.25, 0.05, 3e-4)
    assert [g.name for g in street.latents] == [f"factor{i}" for i in range(8)]
    assert [(g.name, g.size) for g in entangled.latents] == [("state", 50)]


def test_an_entangled_model_differs_in_its_transition_alone() -> None:
    names = [
        {name: p.shape for name, p in small(transition=form).named_parameters() if "transitions" not in name}
        for form in ("factored", "entangled")
    ]
    assert names[0] == names[1]


@pytest.mark.parametrize("side", [16, 32, 64])
def test_clips_keep_their_shape_and_range_and_any_length_decodes(side: int) -> None:
    model = small(DataSpec("video", (3, 3, side, side))).float()
    x = torch.rand(2, 3, 3, side, side)
    again = model.decode(model.encode(x))
    assert again.shape == x.shape
    assert again.min() >= 0
    assert again.max() <= 1
    assert model.sample(2, torch.Generator().manual_seed(0), frames=11).shape == (2, 11, 3, side, side)
    assert model.predict(x[:, :2], 4, torch.Generator()).shape == (2, 4, 3, side, side)
    model.train()
    squares, kl, _ = model.terms(x, torch.randn(2, 3, 6))
    (squares.sum() + kl.sum()).backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("combine", ["paper", "raw"])
def test_states_and_kl_stay_in_float32_under_autocast(combine: str) -> None:
    model = small(DataSpec("video", (3, 3, 16, 16)), combine=combine, markov=2).float()
    x, noise = torch.rand(2, 3, 3, 16, 16), torch.randn(2, 3, 6)
    squares, kl, path = model.terms(x, noise)
    with torch.autocast("cpu", torch.bfloat16):
        rough, kl_rough, path_rough = model.terms(x, noise)
    for value in (rough, kl_rough, path_rough.z, *path_rough.q, *path_rough.p):
        assert value.dtype == torch.float32
    torch.testing.assert_close(rough, squares, rtol=0.05, atol=0.05)  # bfloat16 keeps 8 bits
    torch.testing.assert_close(kl_rough, kl, rtol=0.1, atol=0.05)
    assert path.z.dtype == torch.float32


def test_what_the_model_refuses() -> None:
    def build(shape: tuple[int, ...], kind: str = "video", span: tuple[float, float] = (0.0, 1.0)) -> None:
        IndepVideo(Config(channels=2), DataSpec(kind, shape, span))

    with pytest.raises(ValueError, match="at least 2 frames"):
        build((1, 3, 64, 64))
    for height, width in ((40, 40), (64, 32), (8, 8)):
        with pytest.raises(ValueError, match=f"not {height}x{width}"):
            build((5, 3, height, width))
    with pytest.raises(ValueError, match=r"not in \[-1.0, 1.0\]"):
        build((5, 3, 64, 64), span=(-1.0, 1.0))
    build((5, 12), "vector-clip", (-6.0, 6.0))
    with pytest.raises(UsageError, match="sigma2"):
        from_dict(Config, {"sigma2": 0.0}, "x")
    with pytest.raises(ValueError, match="2 frames are too short"):
        small().independent(normal(1, 2, 5), [torch.arange(3)], torch.Generator())


def test_other_length_than_trained_is_read_with_a_warning(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distk.console._warned", set())  # another test of this process may have heard it already
    model = small()
    assert model.encode(normal(2, 9, 5))["factor0"].shape == (2, 9, 3)
    assert "trained on clips of 4 frames and now reads 9" in capsys.readouterr().err
