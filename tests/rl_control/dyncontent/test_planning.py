"""Plans with a model that is right, costs and success against hand computation, and the scores on known arrays."""

import types

import numpy as np
import pytest
import torch
from torch.distributions import Bernoulli

from distk.data import open_dataset
from distk.errors import UsageError
from distk.plugins.rl_control.dyncontent import planning
from distk.plugins.rl_control.dyncontent.data import integer_states
from distk.plugins.rl_control.dyncontent.metrics import (
    foretold_nll,
    readout,
    starts_and_goals,
    told_apart,
    topology,
)
from distk.plugins.rl_control.dyncontent.networks import Local
from distk.plugins.rl_control.dyncontent.planning import Drive, Settings, drive, first_sequences, straight


class Knows:
    """A model that reads the true place from the picture, and whose transition is the true one without obstacles."""

    def __init__(self, world):
        self.world, self.actions = world, types.SimpleNamespace(size=2)

    def encode(self, x):
        agent = (x[:, 0] - self.world.background.float()).clamp_min(0)
        at = torch.arange(40.0)
        mass = agent.sum((1, 2)).clamp_min(1)
        place = torch.stack([(agent.sum(2) * at).sum(1) / mass, (agent.sum(1) * at).sum(1) / mass], 1)
        return {"dynamics": place / 10}

    def local(self, z, u):
        zero = torch.zeros_like(z)
        return Local(zero, zero, (0.3 * torch.eye(2)).expand(*z.shape, 2), zero)

    def natural(self, u):
        return 3 * u


@pytest.fixture(scope="module")
def world():
    return open_dataset("planar", {"count": 20, "second": 20, "held_out": 20})


@pytest.mark.parametrize("replan", [True, False])
@pytest.mark.parametrize("which", [0, 1])
def test_a_model_that_is_right_drives_along_the_edge_of_the_world(world, generator, which, replan):
    """Past no obstacle: along the first rows of the picture, at nearly the cost of the straight run."""
    start = torch.tensor([[4.0, 4.0, which], [4.0, 20.0, which]])
    goal = torch.tensor([[4.0, 36.0, which], [4.0, 36.0, which]])
    run = drive(Knows(world), world, start, goal, 25, Settings(action=0.01), generator, replan=replan, keep_frames=True)
    assert run.success.tolist() == [True, True]
    assert run.states.shape == (2, 26, 2)
    assert run.frames.shape == (2, 26, 1, 40, 40)
    assert torch.equal(run.frames[1, 3], world.render(torch.cat([run.states[1, 3:4], goal[:1, 2:]], 1))[0])
    least = straight(start[:, :2], goal[:, :2], 25, 3.0).cost
    assert bool((run.cost > 0.9 * least).all())
    assert bool((run.cost < 1.25 * least).all())
    again = drive(
        Knows(world), world, start, goal, 25, Settings(action=0.01), torch.Generator().manual_seed(1), noise=2.0
    )
    assert not torch.equal(again.states, run.states)


def test_the_straight_run_costs_what_the_paper_prints(generator):
    """From (5,5) to (37,37): 21.3; on average over starts in [3,7]^2 21.4 (sd 1.5), the printed figure of X."""
    one = straight(torch.tensor([[5.0, 5.0]]), torch.tensor([[37.0, 37.0]]), 40, 3.0)
    assert abs(float(one.cost) - 21.3) < 0.05
    start, goal = starts_and_goals(20_000, ((37.0, 37.0),), 0, generator)
    cost = straight(start[:, :2], goal[:, :2], 40, 3.0).cost
    assert abs(float(cost.mean()) - 21.4) < 0.1
    assert abs(float(cost.std()) - 1.5) < 0.1
    # By hand: moves of 3 along both axes; the start counts, the state after the last move does not.
    away = np.maximum(32 - 3 * np.arange(40), 0) / 20
    moves = np.concatenate([np.full(10, 3.0), [2.0], np.zeros(29)]) / 20
    assert abs(float(one.cost) - 2 * float((away**2).sum() + (moves**2).sum())) < 1e-4


def test_success_is_to_arrive_and_to_stay():
    goal = torch.zeros(4, 2)
    there, near, far = [0.0, 0.0], [1.2, 1.6], [1.3, 1.6]
    states = torch.tensor([[far, there, there], [far, there, far], [near, near, near], [there, far, near]])
    run = Drive(states, torch.zeros(4, 2, 2), goal)
    assert run.success.tolist() == [True, False, True, False]
    assert torch.allclose(run.goal_fraction, torch.tensor([2 / 3, 1 / 3, 1.0, 2 / 3]))
    assert torch.allclose(run.away[2], torch.full((3,), 2.0))


def test_first_sequences(generator):
    u = first_sequences(500, 7, 2, generator)
    assert u.shape == (500, 6, 7, 2)
    assert float(u.abs().max()) <= 1
    assert bool((u[:, 3:].abs() == 1).all())
    assert torch.equal(u[:, 3:, :1].expand(-1, -1, 7, -1), u[:, 3:])
    assert abs(float(u[:, :3].std()) - 3**-0.5) < 0.02
    assert abs(float(u[:, 3:].mean())) < 0.1


def test_many_plans_are_those_of_one(world):
    """Rows of a batch do not look at each other: two starts among fifty come out as they do alone."""
    model, settings = Knows(world), Settings(window=5, iterations=2)
    generator = torch.Generator().manual_seed(0)
    z, goal = torch.rand(50, 2, generator=generator) * 4, torch.rand(50, 2, generator=generator) * 4
    u = first_sequences(50, 5, 2, generator)
    together, cost = planning.best_sequence(model, z, goal, u, settings)
    for i in (0, 49):
        alone, single = planning.best_sequence(model, z[i : i + 1], goal[i : i + 1], u[i : i + 1], settings)
        assert torch.allclose(alone[0], together[i], atol=1e-5)
        assert torch.allclose(single[0], cost[i], rtol=1e-5)


def test_impossible_plans_are_refused(world, generator):
    state = torch.tensor([[4.0, 4.0, 0.0]])
    with pytest.raises(UsageError, match="--horizon 0: a plan has at least one move"):
        drive(Knows(world), world, state, state, 0, Settings(), generator)
    with pytest.raises(UsageError, match="weights of state and action must be positive, not -1 and 1"):
        drive(Knows(world), world, state, state, 2, Settings(state=-1.0), generator)


# Scores


def test_scores_of_known_maps(generator):
    place = integer_states(torch.device("cpu"))
    order = torch.randperm(len(place), generator=generator)
    fit, test = order[:600], order[600:]
    turned = place @ torch.tensor([[0.6, -0.8], [0.8, 0.6]]) * 0.1 + 3
    assert readout(turned, place, fit, test) > 1 - 1e-9
    bent = torch.stack([place[:, 0] ** 2, place[:, 1]], 1)
    assert 0.9 < readout(bent, place, fit, test) < 0.9999
    noise = torch.randn(len(place), 2, generator=generator)
    assert abs(readout(noise, place, fit, test)) < 0.05
    folded = torch.stack([(place[:, 0] - 20).abs(), place[:, 1]], 1)
    assert abs(readout(folded, place, fit, test) - 0.5) < 0.1
    assert topology(turned, place) > 0.99
    assert topology(folded + 1e-3 * noise, place) < 0.95
    # Of eight random others about 8 * 3.7 / 1272 are neighbours.
    assert topology(noise, place) < 0.02
    assert told_apart(turned, turned, fit, test) == pytest.approx(0.5, abs=1e-9)
    assert told_apart(noise, noise + 20, fit, test) == 1.0
    assert told_apart(noise, torch.randn(len(place), 2, generator=generator), fit, test) < 0.6


@torch.no_grad()
def test_prediction_is_read_off_the_true_next_frame(world, generator):
    """With the content of the present frame and the code moved by u; against torch.distributions."""
    rows = torch.arange(5)
    batch = world.batch(rows)
    weights = torch.randn(4, 1600, generator=generator)

    class Model:
        def encode(self, x):
            flat = x.flatten(1)
            return {"dynamics": flat[:, :2] + flat.sum(1, keepdim=True) / 100, "content": flat[:, 300:302]}

        def foretell(self, code, u):
            return {**code, "dynamics": code["dynamics"] + u}

        def logits(self, code):
            return torch.cat([code["dynamics"], code["content"]], 1) @ weights

    code = Model().encode(batch["x"])
    made = torch.cat([code["dynamics"] + batch["u"], code["content"]], 1) @ weights
    expected = -Bernoulli(logits=made).log_prob(batch["x_next"].flatten(1)).sum(1)
    assert torch.allclose(foretold_nll(Model(), batch["x"], batch["u"], batch["x_next"]), expected, rtol=1e-5)
