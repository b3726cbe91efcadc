"""icm's networks, optimizer and losses against independent computations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distk import Dataset, DataSpec, Files, UsageError
from distk.config import from_dict
from distk.device import initialised
from distk.plugins.gan_family.icm.mechanisms import shift
from distk.plugins.gan_family.icm.method import ICM, Config
from distk.plugins.gan_family.icm.metrics import best_shift, observe, specialisation
from distk.plugins.gan_family.icm.networks import Autoencoder, Discriminator, ExpertAdam, Experts, stacked_conv, start
from distk.settings import TrainConfig
from distk.testing import method_checks
from distk.training.trainer import Trainer

CPU = torch.device("cpu")
SPEC = DataSpec("image", (1, 16, 16))
FOUR = ("right:2", "up:2", "invert", "noise")


class Blobs(Dataset):
    """Random smooth images, enough to train a few steps on."""

    def __init__(self, n: int = 200, spec: DataSpec = SPEC) -> None:
        super().__init__(None, CPU, Files("blobs", None, ""))
        rough = torch.rand(n, spec.shape[0], 4, 4, generator=torch.Generator().manual_seed(5))
        self.x = F.interpolate(rough, spec.shape[1:], mode="bilinear")
        self.spec, self.name, self.origin = spec, "blobs", "drawn for a test"

    def __len__(self) -> int:
        return len(self.x)

    def batch(self, rows: Tensor) -> dict[str, Tensor]:
        return {"x": self.x[rows]}


def make(seed: int, **settings: Any) -> ICM:
    values = {"mechanisms": FOUR, "width": 6, "hidden": 24, "identity_iters": 0, **settings}
    with initialised(seed, CPU):
        return ICM(from_dict(Config, values, "the test"), SPEC)


def trainer(model: ICM, seed: int = 0, batch: int = 8) -> Trainer:
    data = Blobs()
    data.x = data.x.to(model.pending.dtype)
    return Trainer(model.train(), data, TrainConfig(batch=batch, seed=seed, device="cpu"))


def as_module(stack: Experts, j: int) -> nn.Sequential:
    """One expert as ordinary torch modules with the same parameters."""
    channels, width, depth = stack.shape
    layers: list[nn.Module] = []
    for i in range(depth):
        fan_in, fan_out = (channels if i == 0 else width), (channels if i == depth - 1 else width)
        conv = nn.Conv2d(fan_in, fan_out, 3, padding=1)
        conv.weight.data, conv.bias.data = stack.weight[i].data[j].clone(), stack.bias[i].data[j].clone()
        layers.append(conv)
        if i < depth - 1:
            norm = nn.BatchNorm2d(width)
            norm.weight.data, norm.bias.data = stack.scale[i].data[j].clone(), stack.offset[i].data[j].clone()
            layers += [norm, nn.ELU()]
    return nn.Sequential(*layers, nn.Sigmoid())


@pytest.mark.parametrize("how", ["grouped", "gemm"])
@pytest.mark.parametrize("channels", [1, 3])
def test_stacked_experts_are_separate_networks(how: str, channels: int, generator: torch.Generator) -> None:
    stack = Experts(3, channels, 7, 5, how)
    start(stack.fans(), slice(0, 3), generator)
    for tensor in [*stack.scale, *stack.offset]:
        tensor.data.add_(torch.randn(tensor.shape, generator=generator) * 0.2)
    stack.double()
    singles = [as_module(stack, j).double() for j in range(3)]
    x = torch.rand(5, channels, 11, 13, generator=generator).double()
    weight = torch.randn(5, 3, channels, 11, 13, generator=generator).double()
    together, apart = stack(x), torch.stack([s(x) for s in singles], 1)
    assert torch.allclose(together, apart, atol=1e-5)
    (together * weight).sum().backward()
    (apart * weight).sum().backward()
    for j, single in enumerate(singles):
        convs = [m for m in single if isinstance(m, nn.Conv2d)]
        norms = [m for m in single if isinstance(m, nn.BatchNorm2d)]
        for i, conv in enumerate(convs):
            assert torch.allclose(stack.weight[i].grad[j], conv.weight.grad, atol=1e-5, rtol=1e-4)
            assert torch.allclose(stack.bias[i].grad[j], conv.bias.grad, atol=1e-5, rtol=1e-4)
        for i, norm in enumerate(norms):
            assert torch.allclose(stack.scale[i].grad[j], norm.weight.grad, atol=1e-5, rtol=1e-4)
            assert torch.allclose(getattr(stack, f"mean{i}")[j], norm.running_mean, atol=1e-6)
            assert torch.allclose(getattr(stack, f"variance{i}")[j], norm.running_var, atol=1e-6)
    stack.eval()
    chosen = stack.subset([2, 0])
    for place, j in enumerate((2, 0)):
        assert torch.allclose(chosen(x)[:, place], singles[j].eval()(x), atol=1e-5)


def test_sizes_are_those_of_the_paper() -> None:
    model = ICM(Config(), DataSpec("image", (1, 28, 28)))
    assert sum(p.numel() for p in model.critic.parameters()) == 665_985
    one = sum(p.numel() for p in model.experts.parameters()) // 10
    running = sum(b.numel() for b in model.experts.buffers()) // 10
    assert (one, running) == (28_609, 256)  # 28,865 counts the running statistics as well


def test_stacked_discriminators_are_separate_networks(generator: torch.Generator) -> None:
    stack = Discriminator(3, (2, 16, 24), 20)
    for s in range(3):
        start(stack.fans(), slice(s, s + 1), generator)
    x = torch.rand(4, 3, 2, 16, 24, generator=generator)
    made = stack(x)
    for s in range(3):
        h = x[:, s]
        for i in range(7):
            h = F.elu(F.conv2d(h, stack.weight[i][s], stack.bias[i][s], padding=1))
            h = F.avg_pool2d(h, 2) if i in (2, 4, 6) else h
        h = F.elu(F.linear(h.flatten(1), stack.head.weight[0][s].t(), stack.head.bias[0][s, 0]))
        score = F.linear(h, stack.head.weight[1][s].t(), stack.head.bias[1][s, 0])[:, 0]
        assert torch.allclose(made[:, s], score, atol=1e-5)
    auto = Autoencoder(2, (2, 16, 24), 10, 3)
    for s in range(2):
        start(auto.fans(), slice(s, s + 1), generator)
    y = torch.rand(4, 2, 2, 16, 24, generator=generator)
    rebuilt = auto.body(y.flatten(2)).sigmoid()
    assert torch.allclose(auto(y), -((rebuilt - y.flatten(2)) ** 2).mean(2))
    assert torch.allclose(auto(torch.stack([y[:, 0], y[:, 0]], 1))[:, 0], auto(y)[:, 0], atol=1e-6)


def test_both_forms_of_the_convolution_agree(generator: torch.Generator) -> None:
    x, weight, bias = (
        torch.randn(*shape, generator=generator) for shape in [(3, 4 * 5, 6, 7), (4, 2, 5, 3, 3), (4, 2)]
    )
    a, b = (stacked_conv(x, weight, bias, how) for how in ("grouped", "gemm"))
    assert a.shape == (3, 8, 6, 7)
    assert torch.allclose(a, b, atol=1e-4)


def test_start_is_pytorchs_default_distribution(generator: torch.Generator) -> None:
    stack = Experts(40, 1, 16, 3)
    start(stack.fans(), slice(0, 40), generator)
    usual = nn.Conv2d(16, 16, 3)
    bound = float(usual.weight.detach().abs().max())
    assert float(stack.weight[1].detach().abs().max()) == pytest.approx(bound, rel=0.02)
    assert float(stack.weight[1].detach().std()) == pytest.approx(bound / 3**0.5, rel=0.02)
    assert len({float(w) for w in stack.weight[0].data[:, 0, 0, 0, 0]}) == 40


# The optimizer


def test_expert_adam_is_adam_where_the_expert_always_wins(generator: torch.Generator) -> None:
    p = nn.Parameter(torch.randn(3, 4, 2, generator=generator))
    q = nn.Parameter(p.detach().clone())
    ours, theirs = ExpertAdam([p], 0.01), torch.optim.Adam([q], 0.01)
    for _ in range(30):
        p.grad = torch.randn(3, 4, 2, generator=generator)
        q.grad = p.grad.clone()
        ours.step()
        theirs.step()
    assert torch.allclose(p, q, atol=1e-6)


def test_expert_adam_skips_the_steps_that_an_expert_lost(generator: torch.Generator) -> None:
    """Each row equals an Adam that only ever saw the steps which that row won."""
    p, r = (nn.Parameter(torch.randn(4, *shape, generator=generator)) for shape in [(3,), (2, 2)])
    alone = [[nn.Parameter(t.detach()[j].clone()) for t in (p, r)] for j in range(4)]
    theirs = [torch.optim.Adam(pair, 0.02) for pair in alone]
    ours = ExpertAdam([p, r], 0.02)
    for _ in range(25):
        won = torch.rand(4, generator=generator) < 0.4
        before = (p.detach().clone(), r.detach().clone())
        for tensor in (p, r):
            grad = torch.randn(tensor.shape, generator=generator)
            tensor.grad = grad * won.view(-1, *[1] * (grad.dim() - 1))
        r.grad[won, 0] = 0  # a winner with some zero gradients moves all the same
        for j in torch.where(won)[0].tolist():
            for single, tensor in zip(alone[j], (p, r), strict=True):
                single.grad = tensor.grad[j].clone()
            theirs[j].step()
        ours.step()
        assert torch.equal(p[~won], before[0][~won])
        assert torch.equal(r[~won], before[1][~won])
    rounding = 25 * 4 * torch.finfo(torch.float32).eps  # of 25 sums of numbers below 4; a wrong step is 0.02
    for j in range(4):
        assert torch.allclose(p[j], alone[j][0], atol=rounding)
        assert torch.allclose(r[j], alone[j][1], atol=rounding)


# One step


def test_a_loser_is_bit_identical_after_a_step_and_a_winner_is_not(seed: int) -> None:
    model = make(seed, experts=6)
    run = trainer(model, seed, batch=3)
    for _ in range(4):  # at most three of six experts can win
        before = {n: p.detach().clone() for n, p in model.experts.named_parameters()}
        run.drain()
        run.step()
        won = run.sums["share"][:-1] > 0
        assert 0 < int(won.sum()) <= 3
        moved = torch.stack([(p != before[n]).flatten(1).any(1) for n, p in model.experts.named_parameters()])
        assert not bool(moved[:, ~won].any())
        assert bool(moved[:, won].any(0).all())


def losses(model: ICM, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, Any]:
    """L_D and L_E as the objectives give them, at unchanged parameters."""
    from distk import Step

    step = Step(
        index=torch.tensor(0), schedule={}, phase=None, generator=torch.Generator(), log=lambda name, value: None
    )
    step.batch = batch
    return model.discriminate(step), model.compete(step), step


def a_batch(generator: torch.Generator, n: int = 6) -> dict[str, Tensor]:
    return {name: torch.rand(n, 1, 16, 16, generator=generator) for name in ("x", "moved")}


@pytest.mark.parametrize("reuse", [False, True])
def test_the_winner_is_the_updated_critics_unless_told_otherwise(
    reuse: bool, seed: int, generator: torch.Generator
) -> None:
    """Algorithm 1, 5 and 6: between both losses the critic is turned round, so that every winner changes."""
    from distk import Step

    model, batch, logged = make(seed, score_reuse=reuse), a_batch(generator, 12), {}
    step = Step(index=torch.tensor(0), schedule={}, phase=None, generator=torch.Generator(), log=logged.__setitem__)
    step.batch = batch
    model.discriminate(step)
    with torch.no_grad():
        scores = model.scores(model.experts(batch["moved"]))
        model.critic.head.weight[-1].neg_()
        model.critic.head.bias[-1].neg_()
    model.compete(step)
    winner = (scores if reuse else -scores).argmax(2)
    shares = torch.bincount(winner.flatten(), minlength=4) / 12
    assert torch.allclose(logged["share"].flatten().float(), shares)
    assert not torch.equal(winner, (-scores if reuse else scores).argmax(2))


def test_the_score_looks_at_test_images_alone(seed: int) -> None:
    model, data = make(seed).eval(), Blobs()
    data.parts = {"train": torch.arange(150), "test": torch.arange(150, 200)}
    seen = []
    read = data.batch
    data.batch = lambda rows: seen.append(rows) or read(rows)  # type: ignore[method-assign, func-returns-value]
    with torch.no_grad():
        observe(model, data, 40, 0, None)
    rows = torch.cat(seen)
    assert len(rows) == 40
    assert int(rows.min()) >= 150


def test_with_one_expert_the_losses_are_those_of_a_plain_gan(seed: int, generator: torch.Generator) -> None:
    model, batch = make(seed, experts=1), a_batch(generator)
    l_d, l_e, _ = losses(model, batch)
    fake = model.experts(batch["moved"])
    real, made = model.critic(batch["x"].unsqueeze(1)), model.critic(fake)
    plain = F.binary_cross_entropy_with_logits(real, torch.ones_like(real))
    plain = plain + F.binary_cross_entropy_with_logits(made, torch.zeros_like(made))
    assert float(l_d.detach()) == pytest.approx(float(plain.detach()), abs=1e-5)
    fooled = F.binary_cross_entropy_with_logits(made, torch.ones_like(made))
    assert float(l_e.detach()) == pytest.approx(float(fooled.detach()), abs=1e-5)


@pytest.mark.parametrize("settings", [{}, {"score_reuse": True}, {"winner_norm": "wins"}, {"objective": "ae"}])
def test_the_experts_gradient_is_that_of_the_maximum(
    settings: dict[str, Any], seed: int, generator: torch.Generator
) -> None:
    """Against autograd through max_j over the whole graph, in which losers take part."""
    model = make(seed, **settings).double()
    batch = {name: value.double() for name, value in a_batch(generator, 12).items()}
    parameters = list(model.experts.parameters())
    if settings.get("objective") == "ae":
        from distk import Step

        step = Step(
            index=torch.tensor(0), schedule={}, phase=None, generator=torch.Generator(), log=lambda name, value: None
        )
        step.batch = batch
        loss = model.compete(step)
    else:
        loss = losses(model, batch)[1]
    ours = torch.autograd.grad(loss, parameters)
    outputs = model.experts(batch["moved"])
    scores = torch.stack([model.critic(outputs[:, j : j + 1])[:, 0] for j in range(4)], 1)
    best, winner = scores.max(1)
    each = -best if settings.get("objective") == "ae" else -F.logsigmoid(best)
    counts = torch.bincount(winner, minlength=4).double()
    weight = 1 / counts[winner] if settings.get("winner_norm") == "wins" else torch.full((12,), 1 / 12).double()
    theirs = torch.autograd.grad((each * weight).sum(), parameters)
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a, b, atol=1e-9, rtol=1e-5)
    lost = counts == 0
    assert all(bool((g[lost] == 0).all()) for g in ours)


def test_the_winners_do_not_depend_on_the_order_of_the_experts(seed: int, generator: torch.Generator) -> None:
    model = make(seed, experts=5).double().eval()
    x = torch.rand(30, 1, 16, 16, generator=generator).double()
    restored, winner = model.restore(x)
    order = torch.randperm(5, generator=generator)
    model.experts = model.experts.subset(order.tolist())
    again, winner_again = model.restore(x)
    assert torch.equal(order[winner_again[:, 0]], winner[:, 0])
    assert torch.allclose(restored, again, atol=1e-6)


@pytest.mark.parametrize("settings", [{}, {"objective": "ae"}])
def test_a_replica_equals_the_run_trained_alone(settings: dict[str, Any], seed: int) -> None:
    """Same batches: replica 1 of three, and a run of it alone."""
    together = make(seed, replicas=3, identity_iters=2, **settings).double()
    alone = make(seed, first_replica=1, identity_iters=2, **settings).double()
    assert torch.equal(together.experts.weight[0][4:8], alone.experts.weight[0])
    for model in (together, alone):
        run = trainer(model, seed)
        for _ in range(5):
            run.step()
    for name, value in alone.experts.state_dict().items():
        assert torch.allclose(together.experts.state_dict()[name][4:8], value, atol=1e-7), name
    for name, value in alone.critic.state_dict().items():
        assert torch.allclose(together.critic.state_dict()[name][1:2], value, atol=1e-7), name


def test_halves_share_no_image_and_batches_keep_to_them(generator: torch.Generator) -> None:
    from distk import Source

    model, data = make(0), Blobs(101)
    reference, transformed = model.halves(data)
    assert sorted(torch.cat([reference, transformed]).tolist()) == list(range(101))
    assert (len(reference), len(transformed)) == (51, 50)
    batch = model.collect(Source(data, 40, generator))
    same = (batch["original"][:, None] == data.x[transformed][None]).flatten(2).all(2)
    assert bool(same.any(1).all())
    assert bool((batch["x"][:, None] == data.x[reference][None]).flatten(2).all(2).any(1).all())
    assert set(batch["mechanism"].tolist()) <= {0, 1, 2, 3}
    right = batch["mechanism"] == 0
    two = torch.full((int(right.sum()),), 2)
    assert torch.equal(batch["moved"][right], shift(batch["original"][right], two, 0 * two))


def test_ranks_split_one_global_batch(seed: int) -> None:
    from distk import Source

    model, data = make(0), Blobs()
    whole = model.collect(Source(data, 8, torch.Generator().manual_seed(seed)))
    for rank in range(2):
        part = model.collect(Source(data, 4, torch.Generator().manual_seed(seed), rank=rank, world=2))
        for name, value in part.items():
            assert torch.equal(value, whole[name][4 * rank : 4 * rank + 4])


def test_pre_training_stops_once_every_expert_is_good_enough(seed: int) -> None:
    model = make(seed, identity_iters=6, identity_stop=100.0)
    run = trainer(model, seed)
    before = {n: p.detach().clone() for n, p in model.experts.named_parameters()}
    run.step()
    run.step()
    assert bool((model.pending == 0).all())
    assert all(torch.equal(p, before[n]) for n, p in model.experts.named_parameters())
    model = make(seed, identity_iters=6, identity_stop=0.0)
    run = trainer(model, seed)
    first = model.experts.weight[0].detach().clone()
    run.step()
    assert bool((model.pending == 1).all())
    assert bool((model.experts.weight[0] != first).flatten(1).any(1).all())


# Scores


def test_specialisation_against_counting(generator: torch.Generator) -> None:
    mechanism = torch.arange(600) % 3
    winner = torch.randint(4, (600, 2), generator=generator)
    winner[:, 1] = torch.tensor([2, 0, 3])[mechanism]
    told = specialisation(winner, mechanism, 3, 4)
    for s in range(2):
        for k in range(3):
            for j in range(4):
                wins = int(((mechanism == k) & (winner[:, s] == j)).sum())
                assert told["win_matrix"][s, k, j] == pytest.approx(wins / 200)
    assert told["expert_of"][1].tolist() == [2, 0, 3]
    assert told["one_to_one"] == 0.5
    assert told["purities"][1] == 1
    assert told["nmi"] == pytest.approx(0.5, abs=0.05)
    few = specialisation(torch.zeros(600, 1, dtype=torch.long), mechanism, 3, 1)
    assert sorted(few["expert_of"][0].tolist()) == [-1, -1, 0]
    assert (few["purity"], few["winners"], few["one_to_one"]) == (1.0, 1.0, 0.0)


def test_best_shift_finds_the_shift(generator: torch.Generator) -> None:
    x = F.pad(torch.rand(20, 1, 8, 8, generator=generator), (6, 6, 6, 6))
    dx, dy = (int(v) for v in torch.randint(-4, 5, (2,), generator=generator))
    offset = [torch.full((20,), d) for d in (dx, dy)]
    assert best_shift(x, shift(x, *offset), 5) == (dx, dy)


# Contract


@pytest.mark.parametrize(
    "model",
    [{"identity_iters": 2, "replicas": 2}, {"identity_iters": 0, "objective": "ae", "score_reuse": True}],
)
def test_conformance_beyond_the_preset(model: dict[str, Any]) -> None:
    failed = [f"{c.name}: {c.problem}" for c in method_checks("icm", model={**model, "width": 4}) if c.problem]
    assert not failed


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"mechanisms": "rihgt"}, "unknown mechanism"),
        ({"experts": 0}, "below the smallest"),
        ({"mechanisms": "right:6"}, "raise --depth"),
        ({"mechanisms": "right:3", "depth": 2}, "raise --depth"),
        ({"mechanisms": "invert,invert"}, "named twice"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        from_dict(Config, settings, "the test")


def test_data_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        ICM(Config(), DataSpec("image", (1, 28, 28), (-1.0, 1.0)))
    with pytest.raises(ValueError, match="at least 8x8"):
        ICM(Config(mechanisms=FOUR), DataSpec("image", (1, 7, 28)))
    ICM(Config(mechanisms=FOUR), DataSpec("image", (3, 8, 11)))
    with pytest.raises(UsageError, match="at least 34"):
        make(0).halves(Blobs(33), 17)


def test_experts_take_images_of_any_size(seed: int, generator: torch.Generator) -> None:
    model = make(seed).eval()
    x = torch.rand(2, 1, 37, 50, generator=generator)
    assert model.expert(3)(x).shape == (2, 1, 1, 37, 50)
    for wrong in (-1, 4):
        with pytest.raises(UsageError, match="0 to 3"):
            model.expert(wrong)
    x = torch.rand(4, 1, 16, 16, generator=generator)
    assert np.allclose(model.encode(x)["expert"].sum(1), 1)
