"""The objective's bounds, its gradient estimators and its building blocks against independent computations."""

import itertools
import math
import types

import pytest
import torch

from distk import DataSpec, Step, open_dataset, seeded
from distk.device import Ranks
from distk.plugins.rl_control.icf import selectivity as s
from distk.plugins.rl_control.icf.discrete import Config as DiscreteConfig
from distk.plugins.rl_control.icf.discrete import ICFDiscrete, share
from distk.plugins.rl_control.icf.method import ICF, Config
from distk.plugins.rl_control.icf.networks import bil, blur_matrix, output_map
from distk.settings import resolve
from distk.source import Source
from distk.training.beginning import build


@pytest.fixture
def g(generator):
    return generator


def rand(g, *shape):
    return torch.randn(*shape, generator=g, dtype=torch.float64)


def information(p, effect):
    """I(i; effect) with i uniform, p [P, n], effect [P]: plain loops."""
    n = p.shape[1]
    effects = sorted(set(effect))
    q = [[sum(float(p[a, i]) for a in range(len(effect)) if effect[a] == e) for e in effects] for i in range(n)]
    mean = [sum(row[e] for row in q) / n for e in range(len(effects))]
    return sum(v / n * math.log(v / mean[e]) for row in q for e, v in enumerate(row) if v > 0), len(effects)


@pytest.mark.parametrize("kernel", ["gauss", "inner"])
@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0])
def test_selectivity_is_bounded_by_information(g, kernel, scale):
    """R_i <= log n; S <= I(phi; h' | h) <= log(number of distinct effects), also where actions share an effect."""
    effect = [0, 1, 2, 2, 3, 0]
    n, k = 7, 3
    places = scale * rand(g, 4, k)
    dh = torch.stack([places[e] for e in effect])[None]
    phi = scale * rand(g, 1, n, k)
    log_p = (3 * rand(g, 1, 6, n)).log_softmax(1)
    reward = s.contrast(s.log_kernel(dh, phi, kernel, 0.5))
    assert float(reward.max()) <= math.log(n) + 1e-12
    bound, effects = information(log_p[0].exp(), effect)
    gained = float(s.exact_objective(reward, log_p))
    assert gained <= bound + 1e-9
    assert bound <= math.log(effects) + 1e-9


def test_log_kernel_by_hand(g):
    dh, phi = rand(g, 2, 3, 4), rand(g, 2, 5, 4)
    gauss, inner = s.log_kernel(dh, phi, "gauss", 0.7), s.log_kernel(dh, phi, "inner")
    for e, a, i in itertools.product(range(2), range(3), range(5)):
        d, f = dh[e, a].tolist(), phi[e, i].tolist()
        expected = -sum((x - y) ** 2 for x, y in zip(d, f, strict=True)) / (2 * 0.49)
        assert float(gauss[e, a, i]) == pytest.approx(expected, rel=1e-9)
        dot = sum(x * y for x, y in zip(d, f, strict=True))
        assert float(inner[e, a, i]) == pytest.approx(math.log(1e-3 + max(0.0, dot)), rel=1e-9)
    reward = s.contrast(gauss)
    mean = gauss[1, 2].exp().mean().log()
    assert torch.allclose(reward[1, 2], gauss[1, 2] - mean)


def hand_made(copies):
    """h = (x, y), phi = +-e_x, +-e_y with matching policies; `copies` of the action up."""
    unit = torch.tensor([[1.0, 0], [-1, 0], [0, 1], [0, -1]], dtype=torch.float64)
    dh = torch.cat([unit, unit[3:].expand(copies, 2)])[None]
    p = torch.zeros(1, 4 + copies, 4, dtype=torch.float64)
    for i in range(3):
        p[0, i, i] = 1
    p[0, 3:, 3] = 1 / (1 + copies)
    return s.exact_objective(s.contrast(s.log_kernel(dh, unit[None], "gauss", 0.1)), p.log())


def test_hand_made_factors_reach_log_4_and_a_redundant_action_changes_nothing():
    assert float(hand_made(0)) == pytest.approx(math.log(4), abs=1e-9)
    assert float(hand_made(1)) == pytest.approx(float(hand_made(0)), abs=1e-12)
    # The published sigma = sqrt(2) cannot tell the four apart: this is why a smaller one is the default.
    unit = torch.tensor([[[1.0, 0], [-1, 0], [0, 1], [0, -1]]])
    loose = s.contrast(s.log_kernel(unit, unit, "gauss", math.sqrt(2)))
    assert float(loose[0].diagonal().mean()) < 0.6


def small_problem(g, n=4, actions=3, k=2):
    """An encoder matrix, factors and policies as parameters, and the frames of one state and its successors."""
    frames = rand(g, 1 + actions, 5)
    parameters = [rand(g, 5, k).requires_grad_(), rand(g, n, k).requires_grad_(), rand(g, n, actions).requires_grad_()]

    def terms(action=None):
        encoder, phi, logits = parameters
        h = frames @ encoder
        dh = (h[1:] - h[0])[None]
        reward = s.contrast(s.log_kernel(dh, phi[None], "gauss", 1.0))
        log_pi = logits.log_softmax(-1)
        if action is None:
            return reward, log_pi.t()[None]
        return reward[0][action], log_pi.t()[action]

    return parameters, terms


def flat(loss, parameters):
    return torch.cat([p.flatten() for p in torch.autograd.grad(loss, parameters)])


@pytest.mark.parametrize(("weights", "explore"), [("balance", 0.1), ("balance", 0.0), ("normalised", 0.0)])
def test_reinforce_has_the_gradient_of_all_actions(g, weights, explore):
    """Expectation over the behaviour: exactly, by enumeration, and over 2e5 samples within 5 standard errors."""
    parameters, terms = small_problem(g)
    reward, log_p = terms()
    exact = flat(s.exact_objective(reward, log_p), parameters)
    pi = log_p[0].exp().t().detach()
    mu = s.explored(pi.log(), torch.ones(1, 3, dtype=torch.bool), explore).double()
    value = rand(g, 4)

    def estimate(action):
        r, lp = terms(action)
        log_mu = mu.t()[action].log() if weights == "balance" else None
        w = s.importance_weights(lp.detach(), log_mu)
        return s.reinforce_objective(r, lp, value.expand_as(r), w, torch.ones(len(r), dtype=torch.float64))

    each = torch.stack([flat(estimate(torch.tensor([a])), parameters) for a in range(3)])
    behaviour = mu.mean(0)
    assert torch.allclose(behaviour @ each, exact, atol=1e-10)

    count = 200_000
    action = torch.multinomial(behaviour, count, replacement=True, generator=g)
    found = flat(estimate(action), parameters)
    spread = (behaviour @ (each - behaviour @ each) ** 2).sqrt() / count**0.5
    assert bool(((found - exact).abs() <= 5 * spread + 1e-9).all())


def test_published_weights_are_biased_by_exploration(g):
    """Why `balance` exists: normalised weights with exploration do not reproduce the on-policy gradient."""
    log_p = (2 * rand(g, 1, 3, 4)).log_softmax(1)
    pi = log_p[0].exp()
    mu = 0.9 * pi.mean(1) + 0.1 / 3
    f = rand(g, 3, 4)
    w = torch.stack([s.importance_weights(log_p[0, a], None) for a in range(3)])
    assert torch.allclose(w.sum(1), torch.ones(3, dtype=torch.float64))
    on_policy = (pi * f).sum(0).mean()
    assert torch.allclose((pi.mean(1)[:, None] * w * f).sum(), on_policy)
    assert abs(float((mu[:, None] * w * f).sum() - on_policy)) > 1e-6
    log_mu = (0.9 * pi + 0.1 / 3).log()
    balanced = torch.stack([s.importance_weights(log_p[0, a], log_mu[a]) for a in range(3)])
    assert torch.allclose((mu[:, None] * balanced * f).sum(), on_policy)


def test_baseline_ignores_invalid_transitions(g):
    reward, value, log_p = rand(g, 6, 4), rand(g, 6, 4), rand(g, 6, 4)
    w, valid = s.importance_weights(log_p, None), torch.tensor([1, 0, 1, 1, 0, 1.0])
    kept = valid.bool()
    ones = torch.ones(4)
    for function in (
        lambda i, v: s.baseline_loss(value[i], reward[i], w[i], v),
        lambda i, v: s.reinforce_objective(reward[i], log_p[i], value[i], w[i], v),
    ):
        assert torch.allclose(function(slice(None), valid), function(kept, ones))


def test_masked_actions_are_never_taken_and_have_finite_gradients(g):
    logits = rand(g, 50, 4).float().requires_grad_()
    mask = torch.rand(50, 4, generator=g) < 0.6
    mask[:, 0] = True
    log_pi = s.log_policy(logits, mask)
    s.entropy(log_pi).sum().backward()
    assert bool(logits.grad.isfinite().all())
    mixed = s.explored(log_pi.detach(), mask, 0.3)
    assert torch.allclose(mixed.sum(-1), torch.ones(50))
    assert float(mixed[~mask].abs().sum()) == 0
    for _ in range(20):
        action = s.choose(mixed, torch.rand(50, 4, generator=g))
        assert bool(mask.gather(1, action[:, None]).all())


def test_choose_draws_from_the_distribution(g):
    p = torch.tensor([0.5, 0.3, 0.2, 0.0])
    action = s.choose(p.expand(100_000, 4), torch.rand(100_000, 4, generator=g))
    assert torch.allclose(action.bincount(minlength=4) / 1e5, p, atol=0.008)


@pytest.mark.parametrize("which", [0, 1])
def test_bil_with_one_input_constant_still_depends_on_the_other(g, which):
    """The plain outer product vanishes where one input is 0."""
    zero, a, b = torch.zeros(1, 3), rand(g, 1, 3).float(), rand(g, 1, 3).float()
    one, two = (bil(zero, a), bil(zero, b)) if which else (bil(a, zero), bil(b, zero))
    assert one.shape == (1, 16)
    assert not torch.allclose(one, two)
    expected = [x * y for x in [*a[0].tolist(), 1] for y in [*b[0].tolist(), 1]]
    assert bil(a, b)[0].tolist() == pytest.approx(expected, rel=1e-6)


def test_output_maps(g):
    p = rand(g, 5, 7, 4)
    assert float(output_map(p, "hypercube").abs().max()) < 1
    assert torch.allclose(output_map(p, "hypersphere").norm(dim=-1), torch.ones(5, 7, dtype=torch.float64))
    simplex = output_map(p, "simplex")
    assert torch.allclose(simplex.sum(-1), torch.ones(5, 7, dtype=torch.float64))
    signed = output_map(p, "simplex-tanh")
    assert signed.shape == (5, 7, 3)
    assert torch.allclose(signed.sum(-1), p[..., 3].tanh())


def test_whitening_removes_covariance_and_is_tracked(g):
    head = s.Whitening(3)
    f = (rand(g, 400, 3) @ torch.tril(rand(g, 3, 3).clamp(-1, 1) + 2).double()).float() + 5
    for _ in range(3):
        h = head(f)
    assert torch.allclose(torch.cov(h.t(), correction=0), torch.eye(3), atol=0.02)
    head.eval()
    assert torch.allclose(head(f), h, atol=1e-4)
    assert torch.allclose(head(f[:2]), h[:2], atol=1e-4)


def test_blur_matrix_against_scipy(g):
    from scipy.ndimage import gaussian_filter1d

    line = torch.zeros(41, dtype=torch.float64)
    line[20] = 1
    expected = gaussian_filter1d(line.numpy(), 2.0, truncate=8)
    assert (blur_matrix(41, 2.0).double() @ line).numpy() == pytest.approx(expected, abs=1e-6)
    assert torch.allclose(blur_matrix(9, 3.0).sum(1), torch.ones(9))


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_all_sequences_against_a_loop(g, steps):
    """Sequence probabilities, rewards and S of the tree equal a recursive walk, in evaluation mode."""
    env = open_dataset("maze", {"grid": 3, "size": 9, "actions": "basic4", "blocks": 1})
    config = Config(steps_per_policy=steps, encoder="mlp", factors=5, k=2, kernel="gauss", sigma="0.5")
    model = ICF(config, env.spec).eval()
    rows = torch.tensor([0, 3])
    batch = s.branch(env, rows, steps)
    with torch.no_grad():
        h = model.encoder(env.frames)
        phi = model.draw_factors(h[rows], 5, g)
        every = model.encoder(batch["x"])
        log_p = model.sequences(every, every[batch["node0"][:, 0]], phi, batch)[0]
        reward = model.reward(h[rows], every[batch[f"node{steps}"]], phi)
        total = 0.0
        for e, row in enumerate(rows.tolist()):
            for p, sequence in enumerate(itertools.product(range(4), repeat=steps)):
                now, probability = row, torch.ones(5)
                for action in sequence:
                    mask = env.permitted(torch.tensor([now]))
                    pi = model.policies(h[[now]], h[[row]], phi[[e]], mask)[0]
                    probability = probability * pi[:, action]
                    now = int(env.next_rows[now, action])
                assert torch.allclose(log_p[e, p].exp(), probability, atol=1e-5)
                distance = (h[now] - h[row] - phi[e]).pow(2).sum(1)
                kernel = (-distance / (2 * 0.25)).exp()
                r = (kernel / kernel.mean()).log()
                keep = probability > 1e-6
                assert torch.allclose(reward[e, p][keep], r[keep], atol=2e-3)
                total += float((probability * r).nan_to_num(0)[keep].sum()) / 10
        assert float(s.exact_objective(reward, log_p)) == pytest.approx(total, abs=1e-3)


def test_discrete_share_by_hand(g):
    dh = rand(g, 3, 4)
    found, either = share(dh, "signed", 1e-4), share(dh, "undirected", 1e-4)
    for i in range(3):
        total = 1e-4 + sum(abs(v) for v in dh[i].tolist())
        assert found[i].tolist() == pytest.approx([v / total for v in dh[i].tolist()])
        assert either[i].tolist() == pytest.approx([abs(v) / total for v in dh[i].tolist()])


def test_discrete_objective_is_the_sum_over_policies(g, seed):
    from distk import Source

    env = open_dataset("maze", {"grid": 3, "size": 9, "actions": "basic4"})
    model = ICFDiscrete(DiscreteConfig(k=3, encoder="mlp"), env.spec)
    batch = model.collect(Source(env, 4, seeded(seed, env.device)))
    step = Step(index=torch.zeros(()), schedule={}, phase=None, generator=g, log=lambda name, value: None)
    step.batch = batch
    loss = float(model.selectivity(step).detach())
    expected = 0.0
    with torch.no_grad():
        f = model.encoder(env.frames)
        for row in batch["node0"][:, 0].tolist():
            mask = env.permitted(torch.tensor([row]))
            pi = model.policies(f[[row]], f[[row]], torch.zeros(1, 3, 3), mask)[0]
            for k, a in itertools.product(range(3), range(4)):
                after = f[int(env.next_rows[row, a])] - f[row]
                expected += float(pi[k, a] * after[k] / (1e-4 + after.abs().sum())) / 4
    assert loss == pytest.approx(-expected, abs=1e-5)


@pytest.mark.parametrize("size", [32, 48, 64])
def test_convolutional_nets_take_their_pictures(size):
    from distk.plugins.rl_control.icf.networks import Decoder, Encoder, form_for

    spec = DataSpec("environment", (3, size, size), extra={"actions": 2})
    assert form_for(spec, None) == "conv"
    x = torch.rand(4, 3, size, size)
    for whiten in (True, False):
        h = Encoder(spec, 2, "conv", 0, whiten, 2.0)(x)
        assert h.shape == (4, 2)
        assert Decoder(spec, 2, "conv", 0)(h).shape == x.shape
    assert form_for(DataSpec("environment", (3, 15, 15)), None) == "mlp"


@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_centred_features_do_not_feel_a_common_shift(g, scale):
    """net(x) - net(mean picture): a change of the last bias moves no feature."""
    from distk.plugins.rl_control.icf.networks import Encoder

    spec = DataSpec("environment", (1, 8, 8), extra={"actions": 2})
    encoder = Encoder(spec, 2, "mlp", 16, True, 0.0)
    x = scale * torch.rand(50, 1, 8, 8, generator=g)
    before = encoder.front(x)
    with torch.no_grad():
        encoder.front.net[-1].bias += 7
    assert torch.allclose(encoder.front(x), before, atol=1e-4)
    assert torch.allclose(encoder.front.pixels(x).mean(0), torch.tensor(10.0).expand(1, 8, 8), atol=1e-3)


def test_relative_sigma_follows_the_median(g):
    """sigma_scale * median |h' - h| at first, then the mean of that and itself; unmoved transitions do not count."""
    env = open_dataset("maze", {"grid": 3, "size": 9})
    model = ICF(Config(encoder="mlp", factors=4), env.spec)
    lengths = torch.rand(6, generator=g) + 0.5
    change = torch.stack([lengths, torch.zeros(6)], 1)[None]
    change = torch.cat([change, torch.zeros(1, 6, 2)], 1)

    def watch(index, phase):
        step = Step(index=torch.tensor(index), schedule={}, phase=phase, generator=g, log=lambda name, value: None)
        model.watch(step, change)
        return float(model.sigma)

    first = 0.6 * float(lengths.median())
    assert watch(0, True) == pytest.approx(first, rel=1e-5)
    change = 3 * change
    assert watch(1, False) == pytest.approx(first, rel=1e-5)
    assert watch(500, True) == pytest.approx(2 * first, rel=1e-5)
    change = 0 * change
    assert watch(1000, True) == pytest.approx(2 * first, rel=1e-5)


def test_effective_modes_by_hand():
    """Four pure policies over four effects, one of them reached by two actions: I = log 4."""
    from distk.plugins.rl_control.icf.metrics import Atlas, information

    p = torch.zeros(1, 5, 4)
    p[0, [0, 1, 2], [0, 1, 2]] = 1
    p[0, 3:, 3] = 0.5
    effect = torch.tensor([[0, 1, 2, 3, 3]])
    none = torch.empty(0)
    allowed = torch.tensor([[True, True, True, False, True]])
    nats, possible = information(Atlas({}, none, none, effect, allowed, none, none, none, none, p))
    assert float(nats) == pytest.approx(math.log(4), abs=1e-6)
    assert possible.tolist() == [4]


@pytest.mark.parametrize("even", [1.0, 0.4])
def test_evenness_is_the_variance_of_an_action_over_states(g, even):
    """By a loop over actions, of the transitions that moved something and were allowed; a map that is even costs 0."""
    model = Bare(even)
    h0, last = rand(g, 5, 2), rand(g, 5, 3, 2)
    last[1, 0] = h0[1]  # nothing moved
    mask = torch.ones(5, 1, 3, dtype=torch.bool)
    mask[2, 0, 1] = False
    step = types.SimpleNamespace(batch={"mask0": mask}, log=lambda name, value: None)
    model.made = types.SimpleNamespace(h0=h0, last=last)
    expected = 0.0
    for action in range(3):
        rows = [e for e in range(5) if (e, action) not in ((1, 0), (2, 1))]
        change = torch.stack([last[e, action] - h0[e] for e in rows])
        expected += float(change.var(0, correction=0).sum()) / 3
    assert float(ICF.evenness(model, step)) == pytest.approx(even * expected, rel=1e-5)
    model.made.last = h0[:, None] + rand(g, 1, 3, 2)
    assert float(ICF.evenness(model, step)) < 1e-9


class Bare:
    """What `ICF.evenness` reads of a model."""

    def __init__(self, even):
        self.config, self.made = types.SimpleNamespace(even=even), None

    def rollout(self, step):
        return self.made


def test_evenness_serves_all_actions_of_one_step_and_trains_the_encoder_alone():
    maze = {"grid": 4, "size": 12}

    def objectives(**model):
        options = {
            "model": {"encoder": "mlp", "factors": 8, **model},
            "data": maze,
            "train": {"batch": 15, "device": "cpu"},
        }
        return {o.name: o for o in build(resolve("icf", options=options), torch.device("cpu"), Ranks()).objectives}

    assert "even" not in objectives()
    made = objectives(even=1.0)
    encoder = {id(p) for p in made["autoencoder"].parameters}
    assert {id(p) for p in made["even"].parameters} == encoder
    for without in ({"even": 0.0}, {"estimator": "reinforce"}, {"steps_per_policy": 2}, {"recipe": "paper"}):
        assert "even" not in objectives(**{"even": 1.0, **without})


def test_the_baseline_learns_from_rewards_that_it_does_not_teach(g):
    reward, value = rand(g, 6, 4).requires_grad_(), rand(g, 6, 4).requires_grad_()
    loss = s.baseline_loss(value, reward, torch.ones(6, 4) / 4, torch.ones(6))
    to_value, to_reward = torch.autograd.grad(loss, (value, reward), allow_unused=True)
    assert to_reward is None
    assert torch.allclose(to_value, 2 * (value - reward).detach() / 24)


def test_whitening_tracks_the_mean_of_its_first_batches_and_then_a_quarter_of_each(g):
    head = s.Whitening(2)
    batches = [rand(g, 50, 2).float() + 3 * i for i in range(6)]
    for f in batches:
        head(f)
    mean = torch.stack([f.mean(0) for f in batches[:4]]).mean(0)
    covariance = torch.stack([torch.cov(f.T, correction=0) for f in batches[:4]]).mean(0)
    for f in batches[4:]:
        mean = mean + (f.mean(0) - mean) / 4
        covariance = covariance + (torch.cov(f.T, correction=0) - covariance) / 4
    assert torch.allclose(head.mean, mean, atol=1e-4)
    assert torch.allclose(head.covariance, covariance, atol=1e-4)


def trained(**model):
    options = {
        "model": {"encoder": "mlp", "factors": 8, **model},
        "data": {"grid": 4, "size": 12},
        "train": {"batch": 15, "device": "cpu"},
    }
    return build(resolve("icf", options=options), torch.device("cpu"), Ranks())


def test_entropy_is_a_bonus_whose_weight_falls():
    made = trained(entropy=0.3, entropy_end=0.1, entropy_steps=100)
    weights = [made.model.schedule(step)["entropy"] for step in (0, 50, 100, 1000)]
    assert weights == pytest.approx([0.3, 0.2, 0.1, 0.1])
    (bonus,) = (o for o in made.objectives if o.name == "entropy")
    step = types.SimpleNamespace(
        schedule={"entropy": torch.tensor(0.3)}, memo={"rollout": types.SimpleNamespace(entropy=torch.tensor(0.7))}
    )
    assert float(bonus.loss(step)) == pytest.approx(-0.21)


def test_acting_leaves_what_the_networks_track_alone():
    made = trained(estimator="reinforce")
    before = {name: value.clone() for name, value in made.model.named_buffers()}
    assert any("seen" in name for name in before)
    made.model.collect(Source(made.dataset, 15, made.generator))
    assert made.model.training
    assert all(torch.equal(value, before[name]) for name, value in made.model.named_buffers())


def test_the_foretold_code_is_held_against_one_that_stands_still(g):
    model = trained(steps_per_policy=2, mb_grad="all").model
    h0, last = rand(g, 3, 8).float().requires_grad_(), rand(g, 3, 4, 8).float().requires_grad_()
    phi, log_p = rand(g, 3, 5, 8).float(), torch.zeros(3, 4, 5)
    made = types.SimpleNamespace(h0=h0, last=last, phi=phi, log_p=log_p, weights=None, valid=None)
    loss = model.model_based(types.SimpleNamespace(memo={"rollout": made}))
    to_start, to_end = torch.autograd.grad(loss, (h0, last), allow_unused=True)
    assert to_end is None
    assert float(to_start.abs().sum()) > 0
