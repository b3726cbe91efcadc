"""The point mass against scipy's integrator, its pictures, and its walls."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

import distk
from distk import open_dataset
from distk.errors import UsageError
from distk.testing import NoHostReads
from distk.transitions import Actions


def world(**options: object):
    return open_dataset("pointmass", options)


@pytest.mark.parametrize(
    "mechanics",
    [
        {"damping": 0.0},
        {"damping": 0.8},
        {"spring": 3.0, "damping": 0.2},  # swings
        {"spring": 1.0, "damping": 2.0},  # critical: both rates are one
        {"spring": 1.0, "damping": 9.0, "dt": 0.4},  # creeps
    ],
)
def test_a_step_is_what_an_integrator_computes(mechanics, seed) -> None:
    env = world(**mechanics)
    config, rng = env.config, np.random.default_rng(seed)
    state = torch.tensor(rng.uniform(-0.5, 0.5, (20, 4)), dtype=torch.float32)
    force = torch.tensor(rng.uniform(-2, 2, (20, 2)), dtype=torch.float32)
    after = env.step(state, force).double().numpy()
    for begin, u, end in zip(state.double().numpy(), force.double().numpy(), after, strict=True):

        def slope(_: float, s: np.ndarray, u: np.ndarray = u) -> np.ndarray:
            return np.concatenate([s[2:], -config.spring * s[:2] - config.damping * s[2:] + u])

        expected = solve_ivp(slope, (0, config.dt), begin, rtol=1e-10, atol=1e-12).y[:, -1]
        assert np.abs(expected[:2]).max() < 1
        assert np.allclose(end, expected, atol=5e-6)  # float32: a few units in the last place of numbers near 1


def test_many_short_steps_are_one_long_one(seed, generator) -> None:
    short, long = world(dt=0.05, spring=2.0), world(dt=0.2, spring=2.0)
    state, force = torch.rand(50, 4, generator=generator) - 0.5, torch.rand(50, 2, generator=generator)
    one = state
    for _ in range(4):
        one = short.step(one, force)
    assert torch.allclose(one, long.step(state, force), atol=1e-5)


def test_walls_stop_what_leaves() -> None:
    env = world(damping=0.0)
    state = torch.tensor([[0.95, 0.0, 3.0, 0.5], [0.0, -0.99, 0.5, -2.0], [0.0, 0.0, 1.0, 1.0]])
    after = env.step(state, torch.zeros(3, 2))
    assert after[0].tolist() == pytest.approx([1.0, 0.05, 0.0, 0.5])
    assert after[1].tolist() == pytest.approx([0.05, -1.0, 0.5, 0.0])
    assert after[2].tolist() == pytest.approx([0.1, 0.1, 1.0, 1.0])
    too_much = env.step(state, torch.full((3, 2), 50.0))
    assert torch.equal(too_much, env.step(state, torch.full((3, 2), env.config.force)))


def test_the_picture_shows_place_and_velocity() -> None:
    env = world(size=64)
    x = env.render(torch.tensor([[0.5, -0.25, 0.4, 0.8]]))[0]
    place = (torch.arange(64) + 0.5) / 32 - 1

    def centre(channel: torch.Tensor) -> list[float]:
        return [float((channel.sum(k) * place).sum() / channel.sum()) for k in (0, 1)]

    assert centre(x[0]) == pytest.approx([0.5, -0.25], abs=0.005)
    assert centre(x[1]) == pytest.approx([0.5 - 0.1, -0.25 - 0.2], abs=0.005)
    area = np.pi * (0.12 * 32) ** 2
    assert float(x[0].sum()) == pytest.approx(area, rel=0.05)
    assert float(x[2].sum()) == 0


def test_stepping_reads_nothing_back(generator) -> None:
    env = world()
    actions = Actions.of(env.spec)
    with NoHostReads():
        state = env.step(env.reset(16, generator), actions.sample(16, generator))
        env.render(state)
    assert (actions.continuous, actions.size, actions.names) == (True, 2, ("right", "down"))
    with pytest.raises(UsageError, match="two Discrete actions"):
        distk.train("icf", steps=1, data="pointmass", device="cpu")
