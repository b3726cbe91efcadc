"""DSVAE's mathematics against independent computations, with fresh random inputs each time."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence

from distk import DataSpec
from distk.errors import UsageError
from distk.nn import kl_between, log_normal
from distk.plugins.sequence.dsvae import networks
from distk.plugins.sequence.dsvae.method import DSVAE, Config

ALL = networks.POSTERIORS
VECTOR = DataSpec("vector-clip", (4, 5), (-6.0, 6.0))


def small(spec: DataSpec = VECTOR, **settings: object) -> DSVAE:
    """A small model in float64 and eval mode."""
    values = {"f_dim": 3, "z_dim": 2, "hidden": 6, "frame_dim": 7, "channels": 4, **settings}
    return DSVAE(Config(**values), spec).double().eval()  # type: ignore[arg-type]


def noise(model: DSVAE, b: int, t: int) -> tuple[Tensor, Tensor]:
    return (
        torch.randn(b, model.config.f_dim, dtype=torch.float64),
        torch.randn(b, t, model.config.z_dim, dtype=torch.float64),
    )


def test_kl_equals_torch_distributions_and_monte_carlo() -> None:
    m, s, n, u = torch.randn(4, 5, dtype=torch.float64)
    q, p = Normal(m, (0.5 * s).exp()), Normal(n, (0.5 * u).exp())
    ours = kl_between(m, s, n, u)
    torch.testing.assert_close(ours, kl_divergence(q, p))
    draws = q.sample((200_000,))
    estimate = log_normal(draws, m, s) - log_normal(draws, n, u)
    error = estimate.std(0) / math.sqrt(len(estimate))
    assert ((estimate.mean(0) - ours).abs() < 6 * error).all()
    torch.testing.assert_close(log_normal(draws[0], m, s), q.log_prob(draws[0]))


def test_teacher_forced_prior_equals_a_loop_over_cells() -> None:
    prior = networks.LearnedPrior(3, 8).double()
    z = torch.randn(4, 6, 3, dtype=torch.float64)
    mean, logvar = prior(z)
    cell = nn.LSTMCell(3, 8).double()
    cell.load_state_dict({k.removesuffix("_l0"): v for k, v in prior.lstm.state_dict().items()})
    h = c = torch.zeros(4, 8, dtype=torch.float64)
    before = torch.zeros(4, 3, dtype=torch.float64)
    for t in range(6):
        h, c = cell(before, (h, c))
        out = h @ prior.head.weight.T + prior.head.bias
        torch.testing.assert_close(torch.cat([mean[:, t], logvar[:, t]], 1), out, atol=1e-10, rtol=0)
        before = z[:, t]


def test_ancestral_samples_have_the_density_that_teacher_forcing_gives_them() -> None:
    prior = networks.LearnedPrior(3, 8).double()
    eps = torch.randn(5, 7, 3, dtype=torch.float64)
    z = prior.rollout(eps)
    mean, logvar = prior(z)
    torch.testing.assert_close((z - mean) / (0.5 * logvar).exp(), eps, atol=1e-9, rtol=0)
    # Change of variables: log p(z) = log N(eps) - sum log std.
    by_variables = (Normal(0.0, 1.0).log_prob(eps) - 0.5 * logvar).sum((1, 2))
    torch.testing.assert_close(log_normal(z, mean, logvar).sum((1, 2)), by_variables)


@pytest.mark.parametrize("form", ["factorized-ar", "full-ar"])
def test_autoregressive_posterior_equals_an_rnn_cell_fed_with_its_own_samples(form: str) -> None:
    model = small(posterior=form)
    q = model.q_z
    v, f = torch.randn(3, 4, 7, dtype=torch.float64), torch.randn(3, 3, dtype=torch.float64)
    eps = torch.randn(3, 4, 2, dtype=torch.float64)
    mean, logvar, z = q(v, f, eps)
    x = v if form == "factorized-ar" else q.lstm(torch.cat([v, f[:, None].repeat(1, 4, 1)], 2))[0]
    cell = nn.RNNCell(x.shape[2] + 2, 6).double()
    with torch.no_grad():
        cell.weight_ih.copy_(torch.cat([q.from_input.weight, q.from_z.weight], 1))
        cell.weight_hh.copy_(q.from_state.weight)
        cell.bias_ih.copy_(q.from_input.bias)
        cell.bias_hh.zero_()
    state, before = torch.zeros(3, 6, dtype=torch.float64), torch.zeros(3, 2, dtype=torch.float64)
    for t in range(4):
        state = cell(torch.cat([x[:, t], before], 1), state)
        m, s = q.head(state).chunk(2, 1)
        before = m + (0.5 * s).exp() * eps[:, t]
        for ours, theirs in ((mean[:, t], m), (logvar[:, t], s), (z[:, t], before)):
            torch.testing.assert_close(ours, theirs, atol=1e-10, rtol=0)


@pytest.mark.parametrize("form", ALL)
def test_z_statistics_depend_on_f_only_in_the_full_posteriors(form: str) -> None:
    model = small(posterior=form)
    v = torch.randn(3, 4, 7, dtype=torch.float64)
    f, g = torch.randn(2, 3, 3, dtype=torch.float64)
    eps = torch.randn(3, 4, 2, dtype=torch.float64)
    one, two = model.q_z(v, f, eps), model.q_z(v, g, eps)
    same = [torch.equal(a, b) for a, b in zip(one, two, strict=True)]
    assert same == [not form.startswith("full")] * 3


@pytest.mark.parametrize("form", ALL)
def test_which_frames_z_depends_on(form: str) -> None:
    """z_2 sees: all frames (full, factorized-rnn, full-ar), frames up to its own (factorized-ar), its own alone."""
    model = small(posterior=form)
    v = torch.randn(1, 4, 7, dtype=torch.float64, requires_grad=True)
    mean, _, _ = model.q_z(v, torch.randn(1, 3, dtype=torch.float64), torch.randn(1, 4, 2, dtype=torch.float64))
    mean[:, 2].sum().backward()
    seen = (v.grad[0].abs().sum(1) > 0).tolist()
    expected = {"factorized": [False, False, True, False], "factorized-ar": [True, True, True, False]}
    assert seen == expected.get(form, [True] * 4)


def test_static_posterior_reads_the_state_of_each_half_that_has_seen_the_whole_clip() -> None:
    lstm = nn.LSTM(7, 6, batch_first=True, bidirectional=True).double()
    v = torch.randn(3, 4, 7, dtype=torch.float64)
    out, _ = lstm(v)
    expected = torch.cat([out[:, -1, :6], out[:, 0, 6:]], 1)
    torch.testing.assert_close(networks.last_states(lstm, v), expected)


@pytest.mark.parametrize("prior", ["standard", "learned"])
@pytest.mark.parametrize("form", ALL)
def test_bound_term_by_term(form: str, prior: str) -> None:
    """The loss and log_weight against torch.distributions, from the draw's own moments."""
    model = small(posterior=form, prior=prior, sigma2=0.3)
    x = torch.randn(6, 4, 5, dtype=torch.float64)
    eps_f, eps_z = noise(model, 6, 4)
    t = model.terms(x, eps_f, eps_z)
    torch.testing.assert_close(t.q_z, model.q_z(model.features(x), t.f, eps_z)[:2])  # of the f that was drawn
    normal = [Normal(m, (0.5 * s).exp()) for m, s in (t.q_f, t.q_z, t.p_z)]
    frames = torch.cat([t.z, t.f[:, None].expand(-1, 4, -1)], 2)
    likelihood = Normal(model.decoder(frames.reshape(24, 5)).view(6, 4, 5), math.sqrt(0.3)).log_prob(x).sum((1, 2))
    torch.testing.assert_close(model.log_likelihood(t.squares, 4), likelihood)
    zero = Normal(torch.zeros_like(t.f), 1.0)
    torch.testing.assert_close(t.kl_f, kl_divergence(normal[0], zero))
    torch.testing.assert_close(t.kl_z, kl_divergence(normal[1], normal[2]))
    weight = likelihood + (zero.log_prob(t.f) - normal[0].log_prob(t.f)).sum(1)
    weight = weight + (normal[2].log_prob(t.z) - normal[1].log_prob(t.z)).sum((1, 2))
    torch.testing.assert_close(model.log_weight(x, eps_f, eps_z), weight)


def test_one_frame_gives_the_ordinary_vae_bound() -> None:
    model = small(prior="standard")
    x = torch.randn(5, 1, 5, dtype=torch.float64)
    t = model.terms(x, *noise(model, 5, 1))
    both = torch.cat([t.f, t.z[:, 0]], 1)
    mean = torch.cat([t.q_f[0], t.q_z[0][:, 0]], 1)
    std = (0.5 * torch.cat([t.q_f[1], t.q_z[1][:, 0]], 1)).exp()
    code = torch.cat([both[:, 3:], both[:, :3]], 1)
    decoded = Independent(Normal(model.decoder(code), math.sqrt(0.5)), 1)
    prior = Independent(Normal(torch.zeros_like(mean), 1.0), 1)
    expected = decoded.log_prob(x[:, 0]) - kl_divergence(Independent(Normal(mean, std), 1), prior)
    ours = model.log_likelihood(t.squares, 1) - t.kl_f.sum(1) - t.kl_z.sum((1, 2))
    torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize("form", ["full", "factorized-ar"])
def test_importance_sampling_reaches_the_closed_form_marginal_of_a_linear_model(form: str) -> None:
    spec = DataSpec("vector-clip", (2, 3), (-6.0, 6.0))
    model = small(spec, posterior=form, f_dim=1, z_dim=1, prior="standard", sigma2=2.0)
    model.decoder = nn.Linear(2, 3).double()  # weights within 0.7: the draws cover the true posterior
    x = torch.randn(4, 2, 3, dtype=torch.float64)
    # x = (W_z z_1 + W_f f + b, W_z z_2 + W_f f + b) + noise, so log p(x) is that of one Gaussian over 6 numbers.
    w_z, w_f = model.decoder.weight.split(1, 1)
    design = torch.cat([torch.block_diag(w_z, w_z), w_f.repeat(2, 1)], 1).detach()
    covariance = design @ design.T + 2.0 * torch.eye(6, dtype=torch.float64)
    marginal = MultivariateNormal(model.decoder.bias.detach().repeat(2), covariance).log_prob(x.flatten(1))
    draws = 10_000
    with torch.no_grad():
        many = x.repeat_interleave(draws, 0)
        weights = model.log_weight(many, *noise(model, len(many), 2)).view(4, draws)
    estimate = weights.logsumexp(1) - math.log(draws)
    relative = (weights - estimate[:, None]).exp().std(1) / math.sqrt(draws)
    assert (relative < 0.1).all()
    assert ((estimate - marginal).abs() < 6 * relative + 1e-3).all()
    elbo, error = weights.mean(1), weights.std(1) / math.sqrt(draws)
    assert (elbo - 5 * error < marginal).all()
    assert (estimate >= elbo).all()


def test_loss_weights_its_terms_and_warms_up() -> None:
    from distk import seeded
    from distk.method import Step

    model = small(sigma2=0.2, beta_f=3.0, beta_z=0.5, kl_warmup=10).float()
    assert [model.schedule(s)["kl"] for s in (0, 5, 10, 99)] == [0.0, 0.5, 1.0, 1.0]
    x, logged = torch.randn(8, 4, 5), {}
    step = Step(
        index=torch.tensor(0), schedule={"kl": torch.tensor(0.5)}, phase=None,
        generator=seeded(3, torch.device("cpu")), log=logged.__setitem__,
    )  # fmt: skip
    step.batch = {"x": x}
    loss = model.elbo(step)
    again = seeded(3, torch.device("cpu"))
    eps = torch.randn(8, 3, generator=again), torch.randn(8, 4, 2, generator=again)
    t = model.terms(x, *eps)
    expected = (t.squares / 0.4).mean() + 0.5 * (3 * t.kl_f.sum(1) + 0.5 * t.kl_z.sum((1, 2))).mean()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(logged["mse"], t.squares.mean() / 20)


def test_layer_sizes_are_those_of_the_papers() -> None:
    spec = DataSpec("video", (8, 3, 64, 64))
    with torch.device("meta"):
        text = DSVAE(Config(), spec)
        first = DSVAE(Config(**DSVAE.presets["li-mandt"]["model"]), spec)

    def linear(net):
        return [(m.in_features, m.out_features) for m in net if isinstance(m, nn.Linear)]

    assert linear(text.encoder) == [(4096, 1024)]
    assert linear(text.decoder) == [(96, 4096)]
    assert linear(first.encoder) == [(16384, 4096), (4096, 2048)]
    assert linear(first.decoder) == [(288, 4096), (4096, 16384)]
    assert (text.q_f.lstm.hidden_size, first.q_f.lstm.hidden_size) == (256, 512)
    assert isinstance(first.p_z, networks.LearnedPrior)
    assert isinstance(text.p_z, networks.StandardPrior)
    for model, convolutions in ((text, 4), (first, 4)):
        for net in (model.encoder, model.decoder):
            assert sum(isinstance(m, nn.Conv2d | nn.ConvTranspose2d) for m in net) == convolutions
        assert isinstance(model.decoder[-1], nn.Tanh)
        assert isinstance(model.decoder[-2], nn.ConvTranspose2d)


@pytest.mark.parametrize("form", ALL)
@pytest.mark.parametrize("arch", ["das-dandi", "li-mandt"])
def test_clips_keep_their_shape_and_range_and_any_length_decodes(arch: str, form: str) -> None:
    spec = DataSpec("video", (3, 3, 32, 32))
    model = small(spec, arch=arch, posterior=form, prior="learned", dropout=0.2).float()
    x = torch.rand(2, 3, 3, 32, 32)
    code = model.encode(x)
    model.latents.check(code, 2)
    again = model.decode(code)
    assert again.shape == x.shape
    assert again.min() >= 0
    assert again.max() <= 1
    assert model.posterior(x)["z"][1].min() > 0
    longer = model.prior(2, torch.Generator().manual_seed(0), frames=11)
    assert model.decode(longer).shape == (2, 11, 3, 32, 32)
    torch.testing.assert_close(model.to_model(torch.tensor([0.0, 0.5, 1.0])), torch.tensor([-1.0, 0.0, 1.0]))
    model.train().terms(x, torch.randn(2, 3), torch.randn(2, 3, 2)).squares.sum().backward()
    unused = {n for n, p in model.named_parameters() if p.grad is None}
    assert all(n.startswith("p_z") for n in unused)


def test_what_the_model_refuses() -> None:
    def build(shape: tuple[int, ...], kind: str = "video", **settings: object) -> None:
        DSVAE(Config(**settings), DataSpec(kind, shape))  # type: ignore[arg-type]

    with pytest.raises(ValueError, match="at least 2 frames"):
        build((1, 3, 64, 64))
    with pytest.raises(ValueError, match="divisible by 16, not 40x40"):
        build((8, 3, 40, 40), channels=4)
    build((8, 3, 40, 40), arch="li-mandt", channels=4, frame_dim=8)
    with pytest.raises(ValueError, match="divisible by 8, not 36x36"):
        build((8, 3, 36, 36), arch="li-mandt")
    with pytest.raises(ValueError, match="use --arch mlp"):
        build((8, 12), kind="vector-clip", arch="das-dandi")
    with pytest.raises(ValueError, match="use --arch das-dandi"):
        build((8, 3, 64, 64), arch="mlp")
    with pytest.raises(ValueError, match="below 1"):
        Config(dropout=1.0)
    from distk.config import from_dict

    with pytest.raises(UsageError, match="sigma2"):
        from_dict(Config, {"sigma2": 0.0}, "x")


def test_other_length_than_trained_is_read_with_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    model = small()
    assert model.encode(torch.randn(2, 9, 5, dtype=torch.float64))["z"].shape == (2, 9, 2)
    assert "trained on clips of 4 frames and now reads 9" in capsys.readouterr().err
