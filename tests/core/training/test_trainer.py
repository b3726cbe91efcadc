"""The loop: order, stages, cadence, fresh batches, health, state."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import nn

from distk import Dataset, DataSpec, Latent, LatentSpace, Method, Objective, UsageError, adam, checkpoint, sgd, train
from distk.config import option
from distk.data import Files
from distk.registry import registry
from distk.settings import TrainConfig
from distk.training import loop
from distk.training.trainer import NonFinite, Trainer


class Numbers(Dataset):
    """Item i is the number i."""

    def __init__(self) -> None:
        super().__init__(None, torch.device("cpu"), Files("n", None, ""))
        self.name, self.origin, self.spec = "numbers", "test", DataSpec("vector", (1,))

    def __len__(self) -> int:
        return 1000

    def batch(self, rows):
        return {"x": rows[:, None].float()}


@dataclass(frozen=True)
class Config:
    lr: float = option(0.1, "rate")


class Toy(Method):
    """Two parameters; the objectives are given by the test."""

    Config = Config
    latents = LatentSpace.of(Latent("z", "continuous", 1))

    def __init__(self, make) -> None:
        super().__init__(Config(), DataSpec("vector", (1,)))
        self.a, self.b = nn.Parameter(torch.tensor(1.0)), nn.Parameter(torch.tensor(1.0))
        self.seen: list = []
        self.make = make

    def objectives(self):
        return self.make(self)


def trainer(make, **settings) -> Trainer:
    return Trainer(Toy(make), Numbers(), TrainConfig(**{"batch": 4, "device": "cpu", **settings}))


def test_a_step_is_the_objectives_in_order_with_their_cadence() -> None:
    def make(m):
        def loss(name, parameter):
            def of(step):
                m.seen.append(name)
                return parameter * 0.0

            return of

        return [
            Objective("one", loss("one", m.a), [m.a], sgd(0.1)),
            Objective("three", loss("three", m.b), [m.b], sgd(0.1), updates=3),
            Objective("rare", loss("rare", m.a), [m.a], sgd(0.1), every=2),
            Objective("early", loss("early", m.a), [m.a], sgd(0.1), window=(0, 1)),
            Objective("late", loss("late", m.a), [m.a], sgd(0.1), window=(1, None)),
        ]

    t = trainer(make)
    t.step()
    assert t.model.seen == ["one", "three", "three", "three", "rare", "early"]
    t.model.seen.clear()
    t.step()
    assert t.model.seen == ["one", "three", "three", "three", "late"]


def test_fresh_batches_and_the_shared_one() -> None:
    def make(m):
        def keep(step):
            m.seen.append(step.batch["x"].clone())
            return m.a * 0.0

        shared = [Objective(n, keep, [m.a], sgd(0.1)) for n in ("first", "second")]
        return [*shared, Objective("fresh", keep, [m.a], sgd(0.1), updates=2, fresh_batch=True)]

    t = trainer(make)
    t.step()
    one, two, three, four = t.model.seen
    assert torch.equal(one, two)
    assert not torch.equal(one, three)
    assert not torch.equal(three, four)


def test_objectives_of_a_stage_see_parameters_from_before_any_of_them_stepped() -> None:
    def game(stage):
        return lambda m: [
            Objective("a", lambda s: m.a * m.b.detach(), [m.a], sgd(1.0), stage=stage),
            Objective("b", lambda s: -m.b * m.a.detach(), [m.b], sgd(1.0), stage=stage),
        ]

    together, apart = trainer(game("game")), trainer(game(None))
    together.step()
    apart.step()
    assert (together.model.a.item(), together.model.b.item()) == (0.0, 2.0)
    assert (apart.model.a.item(), apart.model.b.item()) == (0.0, 1.0)


def test_within_a_stage_a_loss_moves_its_own_parameters_alone() -> None:
    """Each loss is one of both parameters, and neither side holds the other's still."""
    t = trainer(
        lambda m: [
            Objective("a", lambda s: 2 * m.a + 3 * m.b, [m.a], sgd(1.0), stage="game"),
            Objective("b", lambda s: 5 * m.a + 7 * m.b, [m.b], sgd(1.0), stage="game"),
        ]
    )
    t.step()
    assert (t.model.a.item(), t.model.b.item()) == (1.0 - 2.0, 1.0 - 7.0)


def test_without_an_optimizer_a_gradient_joins_its_stage() -> None:
    t = trainer(
        lambda m: [
            Objective("main", lambda s: m.a + m.b, [m.a, m.b], sgd(1.0), stage="s"),
            Objective("extra", lambda s: 2 * m.a, [m.a], stage="s"),
        ]
    )
    t.step()
    assert (t.model.a.item(), t.model.b.item()) == (-2.0, 0.0)


def test_only_the_objectives_parameters_move_and_after_is_called() -> None:
    def make(m):
        def clamp() -> None:
            m.a.clamp_(-0.5, 0.5)

        return [Objective("a", lambda s: -(m.a * m.b), [m.a], sgd(1.0), after=clamp)]

    t = trainer(make)
    t.step()
    assert (t.model.a.item(), t.model.b.item()) == (0.5, 1.0)


def test_clipping_bounds_the_gradient() -> None:
    t = trainer(lambda m: [Objective("a", lambda s: 100 * m.a, [m.a], sgd(1.0), clip=0.25)])
    t.step()
    assert t.model.a.item() == pytest.approx(0.75, abs=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda m: [Objective("a", lambda s: m.a, [m.a], sgd(1))] * 2, "two objectives"),
        (
            lambda m: [
                Objective("a", lambda s: m.a, [m.a], sgd(1), stage="s"),
                Objective("b", lambda s: m.a, [m.a], sgd(1), stage="s"),
            ],
            "two optimizers",
        ),
        (
            lambda m: [
                Objective("a", lambda s: m.a, [m.a], sgd(1), stage="s"),
                Objective("b", lambda s: m.b, [m.b], stage="s"),
            ],
            "no optimizer steps",
        ),
        (lambda m: [Objective("a", lambda s: m.a, [m.a])], "neither an optimizer"),
        (lambda m: [Objective("a", lambda s: m.a, [], sgd(1))], "no parameters"),
    ],
)
def test_ill_defined_steps_are_refused(make, message) -> None:
    with pytest.raises(ValueError, match=message):
        trainer(make)


def test_logged_means_vectors_and_schedules() -> None:
    def make(m):
        def loss(step):
            step.log("index", step.index)
            step.log("pair", torch.stack([step.schedule["w"], -step.schedule["w"]]))
            return m.a * 0 + 7

        return [Objective("l", loss, [m.a], sgd(0.1))]

    t = trainer(make)
    t.model.schedule = lambda step: {"w": float(step), "lr": 0.5 + step}
    for _ in range(4):
        t.step()
    assert t.drain() == {"l": 7.0, "index": 1.5, "pair/1": 1.5, "pair/2": -1.5}
    assert t.drain() == {}
    assert t.optimizers["l"].param_groups[0]["lr"] == 3.5


def test_a_non_finite_loss_names_step_and_objective() -> None:
    def make(m):
        return [
            Objective("fine", lambda s: m.b, [m.b], sgd(0.1)),
            Objective("bad", lambda s: m.a / (s.index < 3), [m.a], sgd(0.1)),
        ]

    t = trainer(make)
    for _ in range(6):
        t.step()
    with pytest.raises(NonFinite, match="'bad' became non-finite at step 3"):
        t.drain()


def test_skipping_leaves_the_parameters_alone() -> None:
    t = trainer(lambda m: [Objective("bad", lambda s: m.a / (s.index != 1), [m.a], sgd(0.25))], on_nonfinite="skip")
    values = []
    for _ in range(3):
        t.step()
        values.append(t.model.a.item())
    assert values == [0.75, 0.75, 0.5]
    t.drain()


def test_weight_l2_is_half_the_square_on_matrices_only() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(3, 2)
    twin = nn.Linear(3, 2)
    twin.load_state_dict(layer.state_dict())
    ours = adam(0.1, weight_l2=0.3)(list(layer.parameters()))
    theirs = torch.optim.Adam(twin.parameters(), lr=0.1)
    x = torch.randn(5, 3)
    for _ in range(4):
        for model, optimizer, extra in ((layer, ours, 0.0), (twin, theirs, 0.15)):
            optimizer.zero_grad()
            (model(x).square().mean() + extra * model.weight.square().sum()).backward()
            optimizer.step()
    assert torch.allclose(layer.weight, twin.weight, atol=1e-6)
    assert torch.allclose(layer.bias, twin.bias, atol=1e-6)


@pytest.mark.parametrize("weight_l2", [0.0, 0.2])
def test_weight_decay_enters_the_gradient_of_every_parameter(generator, weight_l2: float) -> None:
    """Against Adam by hand in float64, the decay in the gradient before the moments (decoupled, it would be AdamW)."""
    layer = nn.Linear(3, 2).double()
    lr, (beta1, beta2), eps, decay = 0.05, (0.6, 0.9), 1e-6, 0.3
    optimizer = adam(lr, (beta1, beta2), eps, weight_l2=weight_l2, weight_decay=decay)(list(layer.parameters()))
    x = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    p = [value.detach().clone() for value in layer.parameters()]
    m, v = [torch.zeros_like(value) for value in p], [torch.zeros_like(value) for value in p]
    for t in range(1, 6):
        optimizer.zero_grad()
        layer(x).sin().sum().backward()
        slope = (x @ p[0].T + p[1]).cos()
        gradients = [slope.T @ x + (decay + weight_l2) * p[0], slope.sum(0) + decay * p[1]]
        for k, gradient in enumerate(gradients):
            m[k] = beta1 * m[k] + (1 - beta1) * gradient
            v[k] = beta2 * v[k] + (1 - beta2) * gradient**2
            p[k] = p[k] - lr * (m[k] / (1 - beta1**t)) / ((v[k] / (1 - beta2**t)).sqrt() + eps)
        optimizer.step()
    for ours, byhand in zip(layer.parameters(), p, strict=True):
        torch.testing.assert_close(ours.detach(), byhand, rtol=1e-10, atol=1e-12)


def test_batches_do_not_depend_on_the_global_generator() -> None:
    def make(m):
        return [Objective("l", lambda s: (m.a * s.batch["x"] * s.randn(4, 1)).mean(), [m.a], sgd(1e-4))]

    results = []
    for noise in (1, 2):
        torch.manual_seed(noise)
        t = trainer(make)
        t.step()
        torch.randn(noise)
        t.step()
        results.append(t.model.a.item())
    assert results[0] == results[1]


def test_scores_while_training_take_settings(tmp_path) -> None:
    from distk.settings import resolve
    from distk.training.loop import train

    def settings(*given: str):
        sections = {"train": {"steps": 2, "batch": 4, "device": "cpu", "eval": ["covstats"], "eval_option": given}}
        return resolve("covreg-linear", options={**sections, "data": {"name": "dimred", "items": 32}})

    values = [
        train(settings(*given), tmp_path / str(i), quiet=True).log[-1].get("covstats/tdv")
        for i, given in enumerate([(), ("covstats.d=1",), ("covstats.d=10",)])
    ]
    assert values[0] is None
    assert 0 < values[1] < values[2] == pytest.approx(1.0), "the share of variance in the d largest units"
    for wrong, said in (
        ("covstats", "is not understood"),
        ("mig.bins=3", "none of the metrics"),
        ("covstats.e=1", "'e'"),
    ):
        with pytest.raises(UsageError, match=said):
            train(settings(wrong), tmp_path / "wrong", quiet=True)
    assert not (tmp_path / "wrong").exists()


def test_what_is_minimised_is_not_called_a_bound() -> None:
    """`elbo` is the bound on log p(x), which a score gives: no objective has its name, in any method."""
    named: dict[str, list[str]] = {}
    for entry in registry().entries("method"):
        source = inspect.getsource(inspect.getmodule(entry.load()) or entry.load())
        named[entry.name] = re.findall(r"Objective\(\s*f?\"([^\"]*)\"", source)
    wrong = {name: names for name, names in named.items() if any("elbo" in n or "bound" in n for n in names)}
    assert not wrong
    assert sum(map(bool, named.values())) > 20


def test_a_run_from_before_goes_on_under_the_new_name(tmp_path: Path) -> None:
    """Its optimizer and its sums are those of the objective that is called loss now."""
    made = train("betavae", data="blobs", positions=8, steps=3, batch=4, device="cpu", out=tmp_path / "r", quiet=True)
    state = checkpoint.load_training(made.checkpoint)
    old = {n.replace("optim/loss/", "optim/elbo/").replace("log/loss", "log/elbo"): v for n, v in state.items()}
    assert old.keys() != state.keys()
    model, header = checkpoint.load(made.checkpoint)
    checkpoint.save(made.checkpoint, model, header, old)
    resumed = loop.resume(made.path, steps=6, quiet=True)
    straight = train(
        "betavae", data="blobs", positions=8, steps=6, batch=4, device="cpu", out=tmp_path / "s", quiet=True
    )
    again, whole = (checkpoint.tensors(run.checkpoint) for run in (resumed, straight))
    assert all(torch.equal(again[name], value) for name, value in whole.items())


def test_a_run_that_is_taken_up_counts_on() -> None:
    def make(m):
        def loss(step):
            m.seen.append(int(step.index))
            return m.a * 0.0

        return [Objective("a", loss, [m.a], sgd(0.1))]

    first, then = trainer(make), trainer(make)
    for _ in range(3):
        first.step()
    then.load_state(first.state())
    then.step()
    assert (first.model.seen, then.model.seen, then.index) == ([0, 1, 2], [3], 4)


def test_a_run_is_taken_up_on_another_kind_of_device(capsys) -> None:
    """The state of CUDA's generator fits none on the CPU: numbers are drawn anew, from the seed and the step, and it
    is said."""

    def make(m):
        return [Objective("a", lambda step: m.a * 0.0, [m.a], sgd(0.1))]

    state = trainer(make).state()
    drawn = []
    for step in (1, 1, 2):
        again = trainer(make)
        again.load_state({**state, "generator": torch.zeros(16, dtype=torch.uint8), "step": torch.tensor(step)})
        assert "on cpu go on steps that were taken on another kind of device" in capsys.readouterr().err
        drawn.append(torch.rand(3, generator=again.generator))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    trainer(make).load_state(state)
    assert not capsys.readouterr().err
