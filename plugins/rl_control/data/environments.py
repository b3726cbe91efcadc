"""Environments as data sets: many states step and render at once, as tensors on the device.

An environment is a data set of kind "environment" with, beside `batch`, the protocol `TensorEnv`. Where all states can
be listed (`frames` and `next_rows` are tables) a state IS its row, and stepping and rendering are look-ups.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from distk import Dataset, DataSpec, FactorDataset, Files, option
from distk.config import C
from distk.console import counted
from distk.errors import UsageError


class TensorEnv(Protocol):
    """What a method needs of an environment. `spec.extra`: its actions, as `distk.transitions.Actions` writes and reads
    them, branching (see `step`), cell.

    A state is one tensor `[n, ...]`, so that it can be repeated, gathered and stored.
    """

    def reset(self, n: int, generator: torch.Generator) -> Tensor:
        """`n` start states."""

    def step(self, state: Tensor, action: Tensor) -> Tensor:
        """States after the actions, int64 `[n]` or float32 `[n, k]` on the device.

        With `branching` any state may be stepped, any number of times.
        """

    def render(self, state: Tensor) -> Tensor:
        """Pictures float32 `[n, *spec.shape]` in [0, 1]."""


def permitted(env: Dataset, state: Tensor) -> Tensor:
    """Which of A discrete actions may be taken, bool `[n, A]`: all, unless the environment has `permitted(state)`."""
    if hasattr(env, "permitted"):
        return env.permitted(state)
    return torch.ones(len(state), env.spec.extra["actions"], dtype=torch.bool, device=env.device)


def starts(env: Dataset, n: int, generator: torch.Generator, rank: int = 0, world: int = 1) -> Tensor:
    """Start states for one of `world` devices. Where the states can be listed, each occurs equally often (+- 1)."""
    if table(env) is None:
        return env.reset(n * world, generator)[rank * n : (rank + 1) * n]  # type: ignore[attr-defined]
    order = torch.rand(len(env), generator=generator, device=env.device).argsort()
    return order[torch.arange(rank * n, (rank + 1) * n, device=env.device) % len(env)]


def table(env: Dataset) -> Tensor | None:
    """All frames `[S, *spec.shape]` of an environment whose states are rows, else None."""
    return getattr(env, "frames", None)


class TableEnv(FactorDataset[C]):
    """Environment whose subclass fills either the tables (`frames`, `next_rows`) or only `examples`.

    frames: float32 `[S, c, h, w]` of all S states; next_rows: int64 `[S, A]`. A state is then a row.
    examples: without tables, states `[S, D]` that `batch` serves.
    """

    frames: Tensor | None = None
    next_rows: Tensor | None = None
    examples: Tensor
    only_changes = False
    """Whether actions that leave the state as it is are forbidden."""

    def __len__(self) -> int:
        return len(self.frames) if self.frames is not None else len(self.examples)

    @property
    def is_grid(self) -> bool:
        return self.table is None and self.frames is not None

    def reset(self, n: int, generator: torch.Generator) -> Tensor:
        """Uniform over all states."""
        assert self.frames is not None
        return torch.randint(len(self.frames), (n,), generator=generator, device=self.device)

    def step(self, state: Tensor, action: Tensor) -> Tensor:
        return self.advance(state, action) if self.next_rows is None else self.next_rows[state, action]

    def render(self, state: Tensor) -> Tensor:
        return self.draw(state) if self.frames is None else self.frames[state]

    def permitted(self, state: Tensor) -> Tensor:
        """bool `[n, A]`."""
        actions = self.spec.extra["actions"]
        if not self.only_changes:
            return torch.ones(len(state), actions, dtype=torch.bool, device=self.device)
        choices = torch.arange(actions, device=self.device).repeat(len(state))
        before = state.repeat_interleave(actions, 0)
        changed = self.step(before, choices) != before
        changed = changed.flatten(1).any(1) if changed.dim() > 1 else changed
        return changed.view(-1, actions)

    def facts(self, state: Tensor) -> Tensor:
        """The factors behind states: int64 `[n, K]`."""
        return self.factors(state) if self.frames is not None else state[:, : len(self.factor_names)]

    def batch(self, rows: Tensor) -> dict[str, Tensor]:
        """`x` float32 `[n, c, h, w]` and `factors` int64 `[n, K]` of listed or example states."""
        state = rows if self.frames is not None else self.examples[rows]
        return {"x": self.render(state), "factors": self.factors(rows)}

    def advance(self, state: Tensor, action: Tensor) -> Tensor:
        """The rules: state vectors int64 `[n, D]` and actions `[n]` -> state vectors."""
        raise NotImplementedError

    def draw(self, state: Tensor) -> Tensor:
        """State vectors int64 `[n, D]` -> pictures."""
        raise NotImplementedError


DOWN, LEFT, RIGHT, UP, DIAGONAL, STAY = (1, 0), (0, -1), (0, 1), (-1, 0), (1, -1), (0, 0)
"""Moves (rows down, columns right); `up` is towards the top of the picture, unlike MazeBase's +y."""
ACTIONS: dict[str, tuple[tuple[str, tuple[int, int]], ...]] = {
    "basic4": (("down", DOWN), ("left", LEFT), ("right", RIGHT), ("up", UP)),
    "redundant6": (
        ("down", DOWN),
        ("left", LEFT),
        ("right", RIGHT),
        ("up", UP),
        ("up2", UP),
        ("down-left", DIAGONAL),
    ),
    "toggle6": (("up", UP), ("left", LEFT), ("pass", STAY), ("right", RIGHT), ("toggle", STAY), ("down", DOWN)),
}
BLOCK = (1.0, 0.5, 0.0)
AGENT = (1.0, 0.0, 0.0)
EXAMPLES = 1024
TRIES = 16
TABLE_LIMIT = 1 << 26
"""Pixel values in a table of all frames; 256 MiB."""


@dataclass(frozen=True)
class MazeConfig:
    """The maze. Without a value, grid, actions, blocks and switches follow the variant."""

    variant: Literal["moves", "switches"] = option(
        "moves", "moves: 6x6, one block (4.1); switches: 4x4, three switches, toggle action (4.2, B.3)"
    )
    grid: int | None = option(None, "cells per side", paper="6; 4", min=2, max=32)
    actions: Literal["basic4", "redundant6", "toggle6"] | None = option(
        None, "the action set; redundant6 has a second up and down-left", paper="redundant6; toggle6"
    )
    blocks: int | None = option(None, "cells that nobody can enter", paper="1; 0 (code)", min=0)
    switches: int | None = option(None, "number of switches", paper="0; 3", min=0, max=16)
    switch_states: int = option(2, "states of each switch", paper="2", min=2, max=16)
    layout: Literal["fixed", "random"] = option("fixed", "one layout, or another one for every episode")
    layout_seed: int = option(0, "which fixed layout", min=0)
    permissible: bool | None = option(
        None, "forbid actions that change nothing; default: unless there is a toggle action", paper="yes in 4.1"
    )
    size: int = option(64, "height and width of the picture in pixels", paper="64", min=4, max=512)

    def __post_init__(self) -> None:
        plain = self.variant == "moves"
        fill = {
            "grid": 6 if plain else 4,
            "actions": "redundant6" if plain else "toggle6",
            "blocks": 1 if plain else 0,
            "switches": 0 if plain else 3,
        }
        for name, value in fill.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        if self.permissible is None:
            object.__setattr__(self, "permissible", self.actions != "toggle6")
        assert self.grid is not None
        assert self.blocks is not None
        assert self.switches is not None  # all filled above
        free = self.grid**2 - self.blocks
        if free < 2:
            raise ValueError(
                f"beside {counted(self.blocks, 'block')} there is room for {max(free, 0)} of "
                f"{counted(self.grid**2, 'cell')} that are free; 2 are needed"
            )
        if self.switches > free:
            raise ValueError(
                f"{counted(self.switches, 'switch', 'switches')} cannot fit on {counted(free, 'free cell')}"
            )
        if self.size < 2 * self.grid:
            raise ValueError(
                f"{counted(self.size, 'pixel')} cannot show {counted(self.grid, 'cell')}; 2 per cell are needed"
            )


class Maze(TableEnv[MazeConfig]):
    """An agent (red disc) in a grid with orange blocks and green switches, after MazeBase.

    A state vector is int64 `[2 + Ns + G*G + Ns]`: row and column, switch states, block map, cell of each switch. With a
    fixed layout and few states a state is a row instead.
    """

    def __init__(self, config: MazeConfig, device: torch.device, files: Files) -> None:
        super().__init__(config, device, files)
        assert config.grid is not None
        assert config.actions is not None  # filled by the configuration itself
        self.g, self.ns, self.levels = config.grid, config.switches or 0, config.switch_states
        names = tuple(name for name, _ in ACTIONS[config.actions])
        self.moves = torch.tensor([move for _, move in ACTIONS[config.actions]], device=device)
        self.toggle = names.index("toggle") if "toggle" in names else -1
        self.only_changes = bool(config.permissible)
        self.cell = config.size // self.g
        self._disc = self._agent_mask()
        self._orange = torch.tensor(BLOCK, device=device)
        self._red = torch.tensor(AGENT, device=device).view(1, 3, 1, 1)
        extra = {"actions": len(names), "action_names": list(names), "branching": True, "cell": self.cell}
        self.spec = DataSpec("environment", (3, config.size, config.size), extra=extra)
        self.factor_names = ("row", "column", *(f"switch{i + 1}" for i in range(self.ns)))
        self.factor_sizes = (self.g, self.g, *(self.levels,) * self.ns)
        self.factor_kinds = ("ordinal",) * 2 + ("categorical",) * self.ns
        self.origin = f"{config.layout} {self.g}x{self.g} maze, simulated on the device"
        if config.layout == "fixed":
            self.layout = self._layouts(1, torch.Generator().manual_seed(config.layout_seed), "cpu").to(device)
            self._list_states()
        else:
            self.examples = self.reset(EXAMPLES, torch.Generator(device).manual_seed(config.layout_seed))
            self.table = self.examples[:, : 2 + self.ns]

    # Layouts

    def reset(self, n: int, generator: torch.Generator) -> Tensor:
        """Uniform start states; with random layouts each with its own blocks and switches."""
        if self.frames is not None:
            return super().reset(n, generator)
        if self.config.layout == "fixed":
            return self.examples[torch.randint(len(self.examples), (n,), generator=generator, device=self.device)]
        layout = self._layouts(n, generator, self.device)
        noise = torch.rand(n, self.g**2, generator=generator, device=self.device)
        cell = (noise * (layout[:, : self.g**2] == 0)).argmax(1)
        shape = (n, self.ns)
        switch = torch.randint(self.levels, shape, generator=generator, device=self.device)
        return torch.cat([(cell // self.g)[:, None], (cell % self.g)[:, None], switch, layout], 1)

    def _layouts(self, n: int, generator: torch.Generator, device: Any) -> Tensor:
        """int64 `[n, G*G + Ns]`: block map, and the cell of each switch, on distinct free cells.

        The free cells are connected: of 16 candidates the first such one is taken, else no block is set.
        """
        cells = self.g**2
        assert self.config.blocks is not None  # filled by the configuration itself
        rank = torch.rand(n, TRIES, cells, generator=generator, device=device).argsort(-1).argsort(-1)
        blocks = rank < self.config.blocks
        sound = self._connected(blocks.view(-1, self.g, self.g)).view(n, TRIES)
        first = sound.long().argmax(1)
        chosen = blocks[torch.arange(n, device=device), first] & sound.any(1, keepdim=True)
        order = torch.rand(n, cells, generator=generator, device=device) + chosen * 2.0
        return torch.cat([chosen.long(), order.argsort(1)[:, : self.ns]], 1)

    def _connected(self, blocks: Tensor) -> Tensor:
        """Block maps bool `[n, G, G]` -> whether one can walk between any two free cells, bool `[n]`.

        A flood from the first free cell needs at most G*G dilations.
        """
        free = ~blocks
        start = free.flatten(1).long().argmax(1, keepdim=True)
        reached = torch.zeros_like(free.flatten(1)).scatter(1, start, True).view_as(free)
        for _ in range(self.g**2):
            padded = F.pad(reached, (1, 1, 1, 1))
            near = padded[:, :-2, 1:-1] | padded[:, 2:, 1:-1] | padded[:, 1:-1, :-2] | padded[:, 1:-1, 2:]
            reached = (reached | near) & free
        return (reached == free).flatten(1).all(1)

    def _list_states(self) -> None:
        """All states of the fixed layout, and, where they are few, the tables of frames and of successors."""
        free = (self.layout[0, : self.g**2] == 0).nonzero()[:, 0].tolist()
        switches = itertools.product(range(self.levels), repeat=self.ns)
        count = len(free) * self.levels**self.ns
        if count > 1 << 20:
            raise UsageError(f"a maze with {counted(count, 'state')} is too large; use fewer switches.")
        vectors = [(c // self.g, c % self.g, *s) for s in switches for c in free]
        self.table = torch.tensor(vectors, device=self.device)
        states = torch.cat([self.table, self.layout.expand(count, -1)], 1)
        if count * 3 * self.config.size**2 > TABLE_LIMIT:
            self.examples = states
            return
        rows = torch.full((int(self._key(states).amax()) + 1,), -1, device=self.device)
        rows[self._key(states)] = torch.arange(count, device=self.device)
        actions = self.spec.extra["actions"]
        choices = torch.arange(actions, device=self.device).repeat(count)
        after = self.advance(states.repeat_interleave(actions, 0), choices)
        frames = torch.cat([self.draw(part) for part in states.split(1024)])
        self.next_rows, self.frames = rows[self._key(after)].view(count, actions), frames

    def _key(self, states: Tensor) -> Tensor:
        weights = torch.tensor([self.levels**i for i in range(self.ns)], device=self.device, dtype=torch.long)
        switches = (states[:, 2 : 2 + self.ns] * weights).sum(1)
        return (states[:, 0] * self.g + states[:, 1]) * self.levels**self.ns + switches

    # Rules

    def advance(self, state: Tensor, action: Tensor) -> Tensor:
        """A move to a free cell happens (a diagonal one too if its target is free); toggling advances the switch."""
        position = state[:, :2]
        target = position + self.moves[action]
        inside = ((target >= 0) & (target < self.g)).all(1)
        target = target.clamp(0, self.g - 1)
        blocks = state[:, 2 + self.ns : 2 + self.ns + self.g**2]
        cell = target[:, :1] * self.g + target[:, 1:]
        goes = inside & (blocks.gather(1, cell)[:, 0] == 0)
        moved = torch.where(goes[:, None], target, position)
        switch = state[:, 2 : 2 + self.ns]
        here = state[:, 2 + self.ns + self.g**2 :] == position[:, :1] * self.g + position[:, 1:]
        toggled = torch.where(here & (action == self.toggle)[:, None], (switch + 1) % self.levels, switch)
        return torch.cat([moved, toggled, state[:, 2 + self.ns :]], 1)

    # Pictures

    def _agent_mask(self) -> Tensor:
        """Disc of radius 0.35 cell inside one cell, float `[cell, cell]`."""
        centre = torch.arange(self.cell, device=self.device) + 0.5 - self.cell / 2
        inside = centre[:, None] ** 2 + centre[None, :] ** 2 <= (0.35 * self.cell) ** 2
        # In cells of two pixels no pixel centre lies inside: fill the cell instead of hiding the agent.
        return (inside if bool(inside.any()) else torch.ones_like(inside)).float()

    def draw(self, state: Tensor) -> Tensor:
        """float32 `[n, 3, size, size]`: white ground, blocks, switches in shades of green, the agent on top."""
        n, cells = len(state), self.g**2
        blocks = state[:, 2 + self.ns : 2 + self.ns + cells, None] == 1
        colour = torch.where(blocks, self._orange, torch.ones_like(self._orange))
        shade = 1 - 0.6 * state[:, 2 : 2 + self.ns].float() / (self.levels - 1)
        green = torch.stack([torch.zeros_like(shade), shade, torch.zeros_like(shade)], -1)
        places = state[:, 2 + self.ns + cells :, None].expand(-1, -1, 3)
        colour = colour.scatter(1, places, green)
        ground = self._enlarge(colour.view(n, self.g, self.g, 3).permute(0, 3, 1, 2))
        where = state[:, :1] * self.g + state[:, 1:2]
        spot = torch.zeros(n, cells, device=self.device).scatter(1, where, 1.0).view(n, 1, self.g, self.g)
        disc = self._enlarge(spot) * self._disc.repeat(self.g, self.g)
        picture = ground * (1 - disc) + self._red * disc
        left = (self.config.size - self.g * self.cell) // 2
        right = self.config.size - self.g * self.cell - left
        return F.pad(picture, (left, right, left, right), value=1.0)

    def _enlarge(self, grid: Tensor) -> Tensor:
        return grid.repeat_interleave(self.cell, 2).repeat_interleave(self.cell, 3)
