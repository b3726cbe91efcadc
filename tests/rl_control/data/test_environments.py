"""The batched environments against plain Python loops, their pictures, and bad input."""

import pytest
import torch

from distk import UsageError, open_dataset
from distk.plugins.rl_control.data.environments import ACTIONS, starts

MOVE = {
    "down": (1, 0),
    "left": (0, -1),
    "right": (0, 1),
    "up": (-1, 0),
    "up2": (-1, 0),
    "down-left": (1, -1),
    "pass": (0, 0),
    "toggle": (0, 0),
}
LAYOUTS = [
    {"grid": 5, "size": 15},
    {"variant": "switches"},
    {"grid": 4, "blocks": 4, "switches": 2, "switch_states": 3, "actions": "toggle6", "layout_seed": 5},
    {"grid": 4, "blocks": 5, "switches": 3, "actions": "toggle6", "layout": "random"},
    {"grid": 6, "blocks": 8, "actions": "basic4", "layout": "random"},
]


def vector(env, state):
    """A state of any maze as a state vector."""
    if env.frames is None:
        return state
    return torch.cat([env.table[state], env.layout.expand(len(state), -1)], 1)


class PlainMaze:
    """One maze in plain Python."""

    def __init__(self, env, vector):
        g, ns = env.g, env.ns
        self.g, self.levels, self.names = g, env.levels, [name for name, _ in ACTIONS[env.config.actions]]
        self.place = (vector[0], vector[1])
        self.switch = list(vector[2 : 2 + ns])
        blocks = vector[2 + ns : 2 + ns + g * g]
        self.blocks = {(i // g, i % g) for i in range(g * g) if blocks[i]}
        self.at = [(c // g, c % g) for c in vector[2 + ns + g * g :]]

    def step(self, action):
        name = self.names[action]
        if name == "toggle":
            for i, place in enumerate(self.at):
                if place == self.place:
                    self.switch[i] = (self.switch[i] + 1) % self.levels
        row, column = self.place[0] + MOVE[name][0], self.place[1] + MOVE[name][1]
        if 0 <= row < self.g and 0 <= column < self.g and (row, column) not in self.blocks:
            self.place = (row, column)

    def cells(self):
        """Colour under the agent, cell by cell."""
        found = {}
        for row in range(self.g):
            for column in range(self.g):
                found[row, column] = (1, 0.5, 0) if (row, column) in self.blocks else (1, 1, 1)
        for place, value in zip(self.at, self.switch, strict=True):
            found[place] = (0, 1 - 0.6 * value / (self.levels - 1), 0)
        return found


@pytest.mark.parametrize("options", LAYOUTS)
def test_maze_equals_a_plain_loop(options, generator):
    env = open_dataset("maze", options)
    state = starts(env, 16, generator)
    plain = [PlainMaze(env, v) for v in vector(env, state).tolist()]
    for step in range(1000):
        action = torch.randint(env.spec.extra["actions"], (16,), generator=generator)
        state = env.step(state, action)
        for maze, a in zip(plain, action.tolist(), strict=True):
            maze.step(a)
        if step % 50 == 0 or step > 990:
            found = vector(env, state)[:, : 2 + env.ns].tolist()
            assert found == [[*maze.place, *maze.switch] for maze in plain]
    pictures = env.render(state)
    for maze, picture in zip(plain, pictures, strict=True):
        margin = (env.config.size - env.g * env.cell) // 2
        for (row, column), colour in maze.cells().items():
            top, left = margin + row * env.cell, margin + column * env.cell
            corner, middle = picture[:, top, left], picture[:, top + env.cell // 2, left + env.cell // 2]
            assert corner.tolist() == pytest.approx(colour, abs=1e-6)
            expected = (1, 0, 0) if (row, column) == maze.place else colour
            assert middle.tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("options", LAYOUTS)
def test_maze_masks_and_layouts(options, generator):
    env = open_dataset("maze", options)
    state = starts(env, 40, generator)
    vectors, mask = vector(env, state), env.permitted(state)
    for v, allowed in zip(vectors.tolist(), mask.tolist(), strict=True):
        assert len(PlainMaze(env, v).blocks) in (0, env.config.blocks)
        assert len(set(PlainMaze(env, v).at)) == env.ns
        assert not PlainMaze(env, v).blocks & {*PlainMaze(env, v).at, (v[0], v[1])}
        for a, permitted in enumerate(allowed):
            maze = PlainMaze(env, v)
            maze.step(a)
            assert permitted == (not env.config.permissible or [*maze.place, *maze.switch] != v[: 2 + env.ns])


@pytest.mark.parametrize("options", LAYOUTS[:3])
def test_every_state_is_drawn_differently(options):
    env = open_dataset("maze", options)
    free = env.g**2 - env.config.blocks
    assert len(env) == free * env.levels**env.ns
    assert len(torch.unique(env.frames.flatten(1), dim=0)) == len(env)
    batch = env.batch(torch.arange(len(env)))
    assert batch["x"].shape == (len(env), *env.spec.shape)
    assert batch["factors"].tolist() == env.table.tolist()
    assert bool((batch["x"] >= 0).all() & (batch["x"] <= 1).all())


def test_connected_layouts(generator):
    """Every free cell of every random layout can be reached from every other one."""
    env = open_dataset("maze", {"grid": 5, "blocks": 9, "layout": "random"})
    maps = env.reset(64, generator)[:, 2:27].view(64, 5, 5)
    kept = 0
    for blocks in maps.tolist():
        free = {(r, c) for r in range(5) for c in range(5) if not blocks[r][c]}
        seen, todo = set(), [min(free)]
        while todo:
            r, c = todo.pop()
            if (r, c) in free and (r, c) not in seen:
                seen.add((r, c))
                todo += [(r + 1, c), (r - 1, c), (r, c + 1), (r, c - 1)]
        assert seen == free
        kept += len(free) == 16
    assert kept > 32


def test_starts_cover_all_states_evenly(generator):
    env = open_dataset("maze", {"grid": 4, "size": 8})
    counts = starts(env, 40, generator).bincount(minlength=15)
    assert counts.min() >= 2
    assert counts.max() <= 3
    again = torch.Generator().manual_seed(3), torch.Generator().manual_seed(3), torch.Generator().manual_seed(3)
    whole = starts(env, 40, again[0])
    halves = [starts(env, 20, again[1 + rank], rank, 2) for rank in range(2)]
    assert torch.equal(torch.cat(halves), whole)


@pytest.mark.parametrize("digits", ["fixed", "episode"])
def test_mnistgrid_equals_a_plain_loop(digits, generator):
    env = open_dataset("mnistgrid", {"digits": digits, "positions": 3})
    state = starts(env, 16, generator)
    full = state if env.frames is None else torch.cat([env.factors(state), env.pair.expand(16, -1)], 1)
    plain = full.tolist()
    moves = [MOVE[name] for name in ("down", "left", "right", "up")]
    for _ in range(1000):
        action = torch.randint(8, (16,), generator=generator)
        state = env.step(state, action)
        for place, a in zip(plain, action.tolist(), strict=True):
            for axis in (0, 1):
                at = 2 * (a // 4) + axis
                place[at] = min(max(place[at] + moves[a % 4][axis], 0), 2)
    found = state if env.frames is None else torch.cat([env.factors(state), env.pair.expand(16, -1)], 1)
    assert found.tolist() == plain
    for place, picture in zip(plain, env.render(state), strict=True):
        canvas = torch.zeros_like(picture)
        for digit, (row, column) in ((env.odd[place[4]], place[:2]), (env.even[place[5]], place[2:4])):
            top, left = 2 + 6 * row, 2 + 6 * column
            part = canvas[0, top : top + 14, left : left + 14]
            canvas[0, top : top + 14, left : left + 14] = torch.maximum(part, digit)
        assert torch.equal(canvas, picture)


def test_mnistgrid_states_differ_and_default_size():
    env = open_dataset("mnistgrid", {})
    assert env.spec.shape == (1, 48, 48)
    assert len(env) == 1296
    assert len(torch.unique(env.frames.flatten(1), dim=0)) == 1296


def test_mnistgrid_reads_mnist(real):
    folder = real("mnist/train-images-idx3-ubyte.gz").parent
    for env in (
        open_dataset("mnistgrid", {"positions": 2}),
        open_dataset("mnistgrid", {"positions": 2}, folder=folder),
    ):
        assert "MNIST" in env.origin
        assert len(env.odd) + len(env.even) == 10_000
        assert 0.1 < float(env.odd.mean()) < 0.3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"grid": 1}, "below the smallest allowed value 2"),
        ({"grid": 2, "blocks": 3}, "cells that are free"),
        ({"grid": 2, "blocks": 1, "switches": 4}, "4 switches cannot fit on 3 free cells"),
        ({"grid": 20, "size": 30}, "pixels cannot show"),
        ({"actions": "jump"}, "none of basic4"),
        ({"grid": 6, "switches": 16}, "too large"),
    ],
)
def test_bad_mazes(options, message):
    with pytest.raises(UsageError, match=message):
        open_dataset("maze", options)


def test_digits_of_one_parity(monkeypatch):
    from distk.plugins.rl_control.data import mnistgrid

    class OneParity:
        device = torch.device("cpu")

        def __len__(self):
            return 6

        def batch(self, rows):
            return {"x": torch.rand(6, 1, 8, 8), "label": torch.tensor([0, 2, 4, 6, 8, 0])}

    with pytest.raises(UsageError, match="one parity only"):
        mnistgrid._parities(OneParity())
