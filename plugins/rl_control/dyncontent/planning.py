"""Planning in the latent space: iLQR from pictures, once or after every move, and what came of it in truth.

Everything runs as one batch on the device: N problems, each from M sequences of actions, N M = P rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from distk.errors import UsageError
from distk.latents import Code
from distk.plugins.rl_control.dyncontent.networks import Local
from distk.plugins.rl_control.dyncontent.solver import Problem, Solution, solve
from distk.transitions import Actions

NEAR = 2.0
"""Distance to the goal, pixels, within which it counts as reached."""
UNIFORM, EXTREME = 3, 3
"""First sequences of actions: uniform ones, and such that stay in one corner of what is allowed."""
WINDOW = 10
HORIZON = 40


class Steerable(Protocol):
    """What is planned with: `method.LocallyLinear`."""

    actions: Actions

    def encode(self, x: Tensor) -> Code:
        """Pictures -> a code with the group `dynamics`, `[n, z]`."""

    def local(self, z: Tensor, u: Tensor) -> Local:
        """The linear map around codes `[n, z]` and actions in [-1, 1], `[n, m]`."""

    def natural(self, u: Tensor) -> Tensor:
        """Actions in [-1, 1] -> in the data's units."""


@dataclass(frozen=True)
class Settings:
    """How iLQR is used. state, action: weights Q = state I of the code and R = action I of the action in [-1, 1]."""

    window: int = WINDOW
    iterations: int = 4
    state: float = 10.0
    action: float = 1.0
    exact: bool = True
    """Derivatives of the whole transition; else its outputs A and B, as the locally linear reading has it."""


def problem_of(model: Steerable, goal: Tensor, settings: Settings) -> Problem:
    """iLQR's problem in a model's latent space: goals `[P, z]`, actions scaled to [-1, 1].

    Raises UsageError for weights that are not positive.
    """
    if not settings.state > 0 or not settings.action > 0:
        raise UsageError(
            f"the weights of state and action must be positive, not {settings.state:g} and {settings.action:g}."
        )

    def step(z: Tensor, u: Tensor) -> Tensor:
        return model.local(z, u).forward(z, u)

    def linear(z: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        if not settings.exact:
            local = model.local(z, u)
            return local.matrix, local.b

        return torch.func.vmap(torch.func.jacfwd(step, argnums=(0, 1)))(z, u)

    eye = torch.eye(goal.shape[1], device=goal.device)
    small = torch.eye(model.actions.size, device=goal.device)
    return Problem(step, linear, goal, settings.state * eye, settings.action * small, reach=1.0)


def first_sequences(n: int, length: int, size: int, generator: torch.Generator) -> Tensor:
    """Actions `[n, 6, length, size]` in [-1, 1]: three uniform at every step, three in one corner throughout."""
    device = generator.device
    uniform = torch.rand(n, UNIFORM, length, size, generator=generator, device=device) * 2 - 1
    corners = torch.rand(n, EXTREME, 1, size, generator=generator, device=device).round() * 2 - 1
    return torch.cat([uniform, corners.expand(-1, -1, length, -1)], 1)


@torch.no_grad()
def best_sequence(model: Steerable, z: Tensor, goal: Tensor, u: Tensor, settings: Settings) -> tuple[Tensor, Tensor]:
    """Codes z, goal `[n, k]`, first sequences `[n, M, L, m]` -> the cheapest after iLQR `[n, L, m]`, its cost `[n]`."""
    n, m = u.shape[:2]
    problem = problem_of(model, goal.repeat_interleave(m, 0), settings)
    found: Solution = solve(problem, z.repeat_interleave(m, 0), u.flatten(0, 1), settings.iterations)
    cost, which = found.cost.view(n, m).min(1)
    rows = torch.arange(n, device=u.device)
    return found.u.view_as(u)[rows, which], cost


def open_loop(
    model: Steerable, start: Tensor, goal: Tensor, horizon: int, settings: Settings, generator: torch.Generator
) -> Tensor:
    """One solution over the whole horizon: pictures `[n, *shape]` -> actions `[n, horizon, m]`, the data's units."""
    z, aim = (model.encode(x)["dynamics"] for x in (start, goal))
    u = first_sequences(len(z), horizon, model.actions.size, generator)
    return model.natural(best_sequence(model, z, aim, u, settings)[0])


class World(Protocol):
    """What a plan is carried out in: `data.Planar`."""

    device: torch.device

    def render(self, state: Tensor) -> Tensor:
        """States `[n, 3]` -> pictures."""

    def step(self, state: Tensor, u: Tensor) -> Tensor:
        """States after actions `[n, 2]`."""

    def disturbed(self, state: Tensor, noise: Tensor) -> Tensor:
        """States after noise `[n, 2]`."""


@dataclass
class Drive:
    """N plans carried out over T moves.

    states: places `[N, T + 1, 2]`, pixels. actions `[N, T, 2]`, pixels, as applied. goal `[N, 2]`. frames:
    pictures seen, `[N, T + 1, *shape]`, or None where they were not kept.
    """

    states: Tensor
    actions: Tensor
    goal: Tensor
    frames: Tensor | None = None

    @property
    def away(self) -> Tensor:
        """Distance to the goal at every time, pixels, `[N, T + 1]`."""
        return (self.states - self.goal[:, None]).norm(dim=-1)

    @property
    def cost(self) -> Tensor:
        """Planning loss (equation 7) with Q = R = I, `[N]`: sum over the states in which an action was taken, the start
        among them, of squared distance and squared action, in units of half the picture (our reading of the units)."""
        scale = 20.0
        distance = ((self.states[:, :-1] - self.goal[:, None]) / scale).square().sum((1, 2))
        return distance + (self.actions / scale).square().sum((1, 2))

    @property
    def success(self) -> Tensor:
        """Whether the goal is reached by the last move and not left again, bool `[N]`."""
        return (self.away[:, -2:] <= NEAR).all(1)

    @property
    def goal_fraction(self) -> Tensor:
        """Share of the states that lie near the goal, `[N]` (what PCC-pytorch reports as success)."""
        return (self.away <= NEAR).float().mean(1)


@torch.no_grad()
def drive(
    model: Steerable,
    world: World,
    start: Tensor,
    goal: Tensor,
    horizon: int,
    settings: Settings,
    generator: torch.Generator,
    *,
    noise: float = 0.0,
    replan: bool = True,
    keep_frames: bool = False,
) -> Drive:
    """Steer from states start `[N, 3]` to goals `[N, 3]` by what is seen.

    replan: plan `settings.window` moves ahead anew after every move, from the last plan moved on by one, among others;
    else carry out one plan of the whole horizon. noise: standard deviation of the world's noise, pixels.
    Raises UsageError for a horizon below 1.
    """
    if horizon < 1:
        raise UsageError(f"--horizon {horizon}: a plan has at least one move.")
    aim = model.encode(world.render(goal))["dynamics"]
    n, size, state, seen = len(start), model.actions.size, start, world.render(start)
    fixed = None if replan else open_loop(model, seen, world.render(goal), horizon, settings, generator)
    states, actions, frames, last = [start], [], [seen], None
    for t in range(horizon):
        if fixed is None:
            u = first_sequences(n, settings.window, size, generator)
            if last is not None:
                u[:, 0] = torch.cat([last[:, 1:], last[:, -1:]], 1)
            last, _ = best_sequence(model, model.encode(seen)["dynamics"], aim, u, settings)
            move = model.natural(last[:, 0])
        else:
            move = fixed[:, t]
        state = world.step(state, move)
        if noise:
            drawn = torch.randn(n, 2, generator=generator, device=state.device)
            state = world.disturbed(state, noise * drawn)
        seen = world.render(state)
        states.append(state)
        actions.append(move)
        frames += [seen] if keep_frames else []
    return Drive(
        torch.stack(states, 1)[..., :2],
        torch.stack(actions, 1),
        goal[:, :2],
        torch.stack(frames, 1) if keep_frames else None,
    )


def straight(start: Tensor, goal: Tensor, horizon: int, reach: float) -> Drive:
    """The run that moves at full speed along each axis until it is there, past any obstacle: what a plan costs at
    least, up to the cost of actions. Places `[N, 2]`."""
    states, actions = [start], []
    for _ in range(horizon):
        actions.append((goal - states[-1]).clamp(-reach, reach))
        states.append(states[-1] + actions[-1])
    return Drive(torch.stack(states, 1), torch.stack(actions, 1), goal)
