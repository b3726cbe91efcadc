"""The planar system, shown in two shapes, and the user's own observations with and without actions.

A data set of two sets has the rows of both. Set X: transitions. Set Y: frames of another look, as transitions in which
nothing is done and nothing happens. Splits: `train` and `test` are X, `y` and `y-test` are Y.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from distk import DataSpec, Files, UsageError, option, permuted_split
from distk.arrays import open_npz
from distk.config import C
from distk.console import counted
from distk.data import Dataset
from distk.errors import DistkError
from distk.plugins.rl_control.data.transitions import read
from distk.transitions import Actions, TransitionDataset

SIZE = 40
OBSTACLES = ((20.5, 5.5), (20.5, 13.5), (20.5, 27.5), (20.5, 35.5), (10.5, 20.5), (30.5, 20.5))
"""Centres (row, column) in pixels, as in PCC-pytorch (VinAI Research); the papers show the picture only."""
HALF = 1.5
"""Half the width of the agent, pixels."""
LOW, HIGH = HALF, SIZE - HALF
REACH = 3.0
"""Largest move along each axis, pixels."""
LOOSE = 0.1
"""How far a move of a `grid` transition may be from a whole number of pixels."""
TRIES = 64
SETS = ("x", "y")


@functools.cache
def centres(device: torch.device) -> Tensor:
    """Of the obstacles, `[6, 2]`. Kept, since a captured step cannot copy from the host."""
    return torch.tensor(OBSTACLES, device=device)


def valid(place: Tensor) -> Tensor:
    """Places `[..., 2]` -> bool `[...]`: inside the picture, no obstacle's centre in the closed box of the agent."""
    blocked = ((place.unsqueeze(-2) - centres(place.device)).abs() <= HALF).all(-1).any(-1)
    return ~blocked & ((place >= LOW) & (place <= HIGH)).all(-1)


def moved(place: Tensor, u: Tensor) -> Tensor:
    """Places `[..., 2]` after moves u (pixels, cut to +-3); who would leave the picture stands at its rim, and who
    would run into an obstacle stays."""
    after = (place + u.clamp(-REACH, REACH)).clamp(LOW, HIGH)
    return torch.where(valid(after).unsqueeze(-1), after, place)


def background(device: torch.device) -> Tensor:
    """The obstacles, bool `[40, 40]`: discs of 21 pixels."""
    at = torch.arange(SIZE, device=device)
    middle = centres(device).floor()
    squared = (at[None, :, None] - middle[:, 0, None, None]) ** 2 + (at[None, None, :] - middle[:, 1, None, None]) ** 2
    return (squared <= 5).any(0)


def drawn(place: Tensor, second: Tensor) -> Tensor:
    """The agent at places `[n, 2]`: a square of 3x3 pixels, or where `second` a diamond of 13; bool `[n, 40, 40]`."""
    at = torch.arange(SIZE, device=place.device)
    centre = (place + 0.5).floor()
    rows = (at - centre[:, :1]).abs()[:, :, None]
    columns = (at - centre[:, 1:]).abs()[:, None, :]
    return torch.where(second[:, None, None], rows + columns <= 2, torch.maximum(rows, columns) <= 1)


def integer_states(device: torch.device) -> Tensor:
    """All valid whole-numbered places, float32 `[1273, 2]`."""
    line = torch.arange(SIZE, dtype=torch.float32, device=device)
    places = torch.cartesian_prod(line, line)
    return places[valid(places)]


def nearest_valid(place: Tensor) -> Tensor:
    """The whole-numbered valid place nearest to one place `[2]`."""
    places = integer_states(place.device)
    return places[(places - place).square().sum(1).argmin()]


def checked_place(place: Tensor, option_name: str) -> Tensor:
    """A place `[2]` in which the agent can be. Raises UsageError, naming the nearest such place, for another."""
    if bool(valid(place)):
        return place
    near = nearest_valid(place)
    inside = bool(((place >= LOW) & (place <= HIGH)).all())
    why = "is in an obstacle" if inside else f"lies outside {LOW:g} to {HIGH:g}"
    raise UsageError(
        f"{option_name} {place[0]:g},{place[1]:g} {why}; the nearest place for the agent is {near[0]:g},{near[1]:g}."
    )


class TwoSets(TransitionDataset[C]):
    """Transitions of set X and frames of set Y, found by their rows.

    partner: int64 `[rows]`, for each row of set Y the row of X that shows the same state; -1 where there is none.
    """

    partner: Tensor
    paired: bool

    def second(self, rows: Tensor) -> Tensor:
        """Whether rows are of set Y, bool `[n]`."""
        raise NotImplementedError


def second_set(dataset: Dataset) -> TwoSets:
    """The data set, if it has two sets. Raises UsageError where it has one."""
    if not isinstance(dataset, TwoSets):
        raise UsageError(
            f"data set '{dataset.name}' has one set of frames; dyncontent needs a second one that shows the same "
            "states in another look: --data planar, or your own as --data observations. For one set there is rce."
        )
    return dataset


# The planar system


@dataclass(frozen=True)
class PlanarConfig:
    """How much is drawn, and how."""

    count: int = option(8000, "transitions of set X for training", paper="8000", min=2, max=10_000_000)
    second: int = option(2000, "frames of set Y for training, without actions", paper="2000", min=2, max=10_000_000)
    held_out: int = option(1000, "further transitions of each set for the test splits", min=2, max=1_000_000)
    sampling: Literal["grid", "free"] = option(
        "grid",
        "grid: whole-numbered places and moves, none blocked (as PCC-pytorch); free: any, blocked moves too",
    )
    noise: float = option(0.0, "standard deviation of the noise after a move, pixels", paper="0", min=0, max=40)
    data_seed: int = option(0, "seed of states, moves and noise", min=0, max=2**31)


class Planar(TwoSets[PlanarConfig]):
    """40x40 pictures, 1 agent and obstacles, 0 ground. X shows the agent as a square, Y as a diamond.

    A state is float32 `[n, 3]`: row and column in pixels, and the set (0 or 1). An action `[n, 2]` is a move in pixels.
    Frames of Y for training show the states of some frames of X; their partners are known, their actions not.
    """

    def __init__(self, config: PlanarConfig, device: torch.device, files: Files) -> None:
        super().__init__(config, device, files)
        generator = torch.Generator(device).manual_seed(config.data_seed)
        n, m, k = config.count, config.second, config.held_out
        places, u = self.draw(n, generator, config.sampling)
        pair = torch.randint(n, (m,), generator=generator, device=device)
        tests, test_u = self.draw(k, generator, config.sampling)
        which = torch.tensor([0.0, 1.0, 0.0, 1.0], device=device).repeat_interleave(
            torch.tensor([n, m, k, k], device=device)
        )
        self.states = torch.cat([torch.cat([places, places[pair], tests, tests]), which[:, None]], 1)
        self.u = torch.cat([u, torch.zeros(m, 2, device=device), test_u, test_u])
        self.noise = config.noise * torch.randn(len(self.u), 2, generator=generator, device=device)
        self.noise[n : n + m] = 0
        self.noise[n + m + k :] = self.noise[n + m : n + m + k]
        self.partner = torch.full((len(self.u),), -1, device=device)
        self.partner[n : n + m] = pair
        self.partner[n + m + k :] = torch.arange(n + m, n + m + k, device=device)
        self.paired = True
        self.background = background(device)
        ends = torch.arange(len(self.u), device=device).split([n, m, k, k])
        self.parts = dict(zip(("train", "y", "test", "y-test"), ends, strict=True))
        actions = Actions(("down", "right"), (-REACH,) * 2, (REACH,) * 2)
        self.can_step = not config.noise
        self.spec = DataSpec("transition", (1, SIZE, SIZE), classes=SETS, extra={**actions.to_extra(), "paired": True})
        self.origin = (
            f"drawn on the device: {counted(n, 'transition')} of X, {counted(m, 'frame')} of Y,"
            f" {config.sampling} states"
        )

    def draw(self, n: int, generator: torch.Generator, sampling: str) -> tuple[Tensor, Tensor]:
        """`n` places `[n, 2]` and moves `[n, 2]`, pixels.

        grid: all valid whole-numbered places in turn, in a random order; moves within 0.1 of whole numbers, uniform
        among those that nothing blocks. free: uniform places and moves.
        """
        device = generator.device

        def uniform(*shape: int) -> Tensor:
            return torch.rand(*shape, generator=generator, device=device)

        if sampling == "free":
            candidates = LOW + (HIGH - LOW) * uniform(n, TRIES, 2)
            return first_of(candidates, valid(candidates)), REACH * (2 * uniform(n, 2) - 1)
        places = integer_states(device)
        order = torch.randperm(len(places), generator=generator, device=device)
        place = places[order[torch.arange(n, device=device) % len(order)]]
        # Within +-3 the numbers near a whole one are 7 intervals, of which the outer two are half as long.
        along = uniform(n, TRIES, 2) * 12 * LOOSE - 6 * LOOSE
        whole = (along / (2 * LOOSE)).round()
        moves = whole + along - whole * 2 * LOOSE
        moves[:, -1] = 0  # which nothing blocks, should all others be blocked
        return place, first_of(moves, valid(place[:, None] + moves))

    def second(self, rows: Tensor) -> Tensor:
        return self.states[rows, 2] > 0

    def state(self, rows: Tensor) -> Tensor:
        return self.states[rows]

    def step(self, state: Tensor, u: Tensor) -> Tensor:
        """States after the moves, without noise."""
        return torch.cat([moved(state[:, :2], u), state[:, 2:]], 1)

    def disturbed(self, state: Tensor, noise: Tensor) -> Tensor:
        """States moved by the noise `[n, 2]`, kept inside the picture; obstacles do not stop it."""
        return torch.cat([(state[:, :2] + noise).clamp(LOW, HIGH), state[:, 2:]], 1)

    def render(self, state: Tensor) -> Tensor:
        agent = drawn(state[:, :2], state[:, 2] > 0)
        return (agent | self.background).float().unsqueeze(1)

    def batch(self, rows: Tensor) -> dict[str, Tensor]:
        """As `TransitionDataset.batch`, and `label`: 0 for set X, 1 for set Y."""
        before, u = self.state(rows), self.u[rows]
        after = self.disturbed(self.step(before, u), self.noise[rows])
        return {
            "x": self.render(before),
            "u": u,
            "x_next": self.render(after),
            "state": before,
            "state_next": after,
            "label": before[:, 2].long(),
        }


def first_of(candidates: Tensor, good: Tensor) -> Tensor:
    """Candidates `[n, tries, d]` and which are good, bool `[n, tries]` -> the first good one of each row, `[n, d]`."""
    chosen = good.long().argmax(1)
    return candidates.gather(1, chosen[:, None, None].expand(-1, 1, candidates.shape[2])).squeeze(1)


# The user's own


HOLDS = (
    "x and x_next uint8 [n, height, width] or [n, height, width, 1 or 3], u numbers [n, k], y uint8 [m, ...] of x's "
    "form, and for pairs y_pair, whole numbers [m]: the row of x that shows the state of each y"
)


@dataclass(frozen=True)
class ObservationsConfig:
    """What is kept for testing."""

    test: float = option(0.1, "share of the transitions kept for the test splits", above=0, max=0.9)
    data_seed: int = option(0, "seed of that choice", min=0, max=2**31)


class Observations(TwoSets[ObservationsConfig]):
    """Recorded transitions and frames of another look, kept as bytes on the device.

    A frame of Y is held out with its partner, so that no training step sees a picture of the test splits.
    """

    reads = f"an npz with {HOLDS}"
    can_step = False

    def __init__(self, config: ObservationsConfig, device: torch.device, files: Files) -> None:
        super().__init__(config, device, files)
        path = files.find("observations.npz", "*.npz")
        if path is None:
            raise UsageError(f"'observations' reads {HOLDS}, from an npz: add --data-dir FILE.")
        x, x_next, u = read(path)
        y, pair = read_second(path, x.shape)
        if u.ndim == 1:
            raise DistkError(f"'{path}': 'u' holds choices; dynamics that are linear in u need numbers [n, k].")
        n, m = len(x), len(y)
        low, high = u.min(0), u.max(0)
        if not (low < high).all():
            raise DistkError(f"'{path}': number {int((low >= high).argmax())} of 'u' is the same in every transition.")
        nothing = np.broadcast_to(np.clip(np.zeros(u.shape[1], np.float32), low, high), (m, u.shape[1]))
        before, after = np.concatenate([x, y]), np.concatenate([x_next, y])
        self.pictures = torch.from_numpy(np.stack([before, after], 1)).to(device)
        self.u = torch.from_numpy(np.concatenate([u, nothing])).to(device)
        self.partner = torch.full((n + m,), -1, device=device)
        self.paired, self.first = pair is not None, n
        if pair is not None:
            self.partner[n:] = torch.from_numpy(pair).to(device)
        self.parts = self._split(path, n, m)
        actions = Actions(tuple(f"u{k + 1}" for k in range(u.shape[1])), tuple(low.tolist()), tuple(high.tolist()))
        extra = {**actions.to_extra(), "paired": self.paired}
        self.spec = DataSpec("transition", tuple(x.shape[1:]), classes=SETS, extra=extra)
        self.origin = (
            f"{counted(n, 'transition')} and {m:,} {'paired ' if self.paired else ''}frames without actions from {path}"
        )

    def _split(self, path: Path, n: int, m: int) -> dict[str, Tensor]:
        parts = permuted_split(n, self.config.test, self.config.data_seed, self.device)
        if not self.paired:
            if m < 2:
                raise DistkError(f"'{path}' holds one frame in 'y'; two or more are needed.")
            y = permuted_split(m, self.config.test, self.config.data_seed, self.device)
            return {**parts, "y": y["train"] + n, "y-test": y["test"] + n}
        mine = torch.isin(self.partner[n:], parts["test"])
        y_rows = torch.arange(n, n + m, device=self.device)
        if bool(mine.all()) or not bool(mine.any()):
            raise DistkError(
                f"'{path}': the partners of all frames of 'y' fall into one split; take another --data-seed or --test."
            )
        return {**parts, "y": y_rows[~mine], "y-test": y_rows[mine]}

    def second(self, rows: Tensor) -> Tensor:
        return rows >= self.first

    def batch(self, rows: Tensor) -> dict[str, Tensor]:
        """`x`, `x_next` and `u` as of any transitions, and `label`: 0 for set X, 1 for set Y."""
        x, x_next = (self.pictures[rows].float() / 255).unbind(1)
        return {"x": x, "u": self.u[rows], "x_next": x_next, "label": self.second(rows).long()}


def read_second(path: Path, like: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray | None]:
    """`y` uint8 `[m, c, h, w]` and `y_pair` int64 `[m]` (None where the file has none) of an npz.

    like: shape of x, `[n, c, h, w]`. Raises DistkError for members that do not fit.
    """
    with open_npz(path, HOLDS) as file:
        shape, kind = file.header("y")
        asked = (like[2:], (*like[2:], like[1])) if like[1] == 1 else ((*like[2:], like[1]),)
        if kind != np.uint8 or shape[1:] not in asked or not shape[0]:
            raise DistkError(
                f"'{path}': 'y' must be uint8 frames of the form of 'x', {asked[0]}; found {kind} {shape}."
            )
        y = file.read("y")
        pair = None
        if "y_pair" in file.names:
            shape, kind = file.header("y_pair")
            if shape != (len(y),) or kind.kind not in "iu":
                raise DistkError(f"'{path}': 'y_pair' must be {len(y)} whole numbers; found {kind} {shape}.")
            pair = file.read("y_pair").astype(np.int64)
            if not 0 <= int(pair.min()) <= int(pair.max()) < like[0]:
                raise DistkError(f"'{path}': 'y_pair' must name rows of 'x', 0 to {like[0] - 1}.")
    return (y[:, None] if y.ndim == 3 else y.transpose(0, 3, 1, 2)), pair
