"""A maze game in motion, simulated and drawn on the device: the offline stand-in for screenshots of Ms. Pac-Man.

All clips at once: the actors' states are tensors that move by gathers, and every actor is a small stamp from a table,
drawn once with soft edges. Lengths are pixels, y downwards; a tile has 8. Colours are close to the game's.
"""

from __future__ import annotations

import functools
import math
import random
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from distk.nn import shapes

ROWS, COLUMNS, TILE = 21, 20, 8
HEIGHT, WIDTH = ROWS * TILE, COLUMNS * TILE
FRAMES, SIDE, ACTORS = 5, 32, 5
"""Frames and sides of a clip; the actors are pacman and four ghosts."""
RIGHT, DOWN, LEFT, UP = range(4)
STEPS = ((0, 1), (1, 0), (0, -1), (-1, 0))
"""(down, right) of each direction."""
GROUND = (0, 28, 136)
WALLS = ((228, 111, 111), (84, 184, 153), (198, 108, 58), (181, 83, 40))
PACMAN = (210, 164, 74)
GHOSTS = ((200, 72, 72), (198, 89, 179), (84, 184, 153), (180, 122, 48))
FRIGHTENED, EYES = (66, 114, 194), (255, 255, 255)
RADIUS = 3.5
MOUTH = (0, 20, 40, 20)
"""Half the angle of pacman's open mouth, degrees, in four frames that repeat."""
STAMP, REACH = 11, 5
"""Pixels of a stamp, and those before the pixel in which the actor's centre lies."""
FRIGHT = 4
"""Place of the frightened ghost in the table of stamps, behind the four colours."""


def layout(seed: int) -> list[list[bool]]:
    """Which tiles of a maze are corridor, rows of columns.

    The left half is a random tree of passages between odd tiles, the right one its mirror; two passages join them, and
    three of ten dead ends are opened.
    """
    draw = random.Random(seed)
    rows, columns = range(1, ROWS, 2), range(1, COLUMNS // 2 - 2, 2)
    free = {(1, 1)}
    path = [(1, 1)]
    while path:
        r, c = path[-1]
        ways = [
            (r + 2 * dy, c + 2 * dx)
            for dy, dx in STEPS
            if r + 2 * dy in rows and c + 2 * dx in columns and (r + 2 * dy, c + 2 * dx) not in free
        ]
        if not ways:
            path.pop()
            continue
        to = draw.choice(ways)
        free |= {to, ((r + to[0]) // 2, (c + to[1]) // 2)}
        path.append(to)
    for r, c in [(r, c) for r in rows for c in columns]:
        walls = [
            (r + dy, c + dx)
            for dy, dx in STEPS
            if r + 2 * dy in rows and c + 2 * dx in columns and (r + dy, c + dx) not in free
        ]
        open_ways = sum((r + dy, c + dx) in free for dy, dx in STEPS)
        if open_ways == 1 and walls and draw.random() < 0.3:
            free.add(draw.choice(walls))
    for r in draw.sample(list(rows), 2):
        free |= {(r, COLUMNS // 2 - 2), (r, COLUMNS // 2 - 1)}
    free |= {(r, COLUMNS - 1 - c) for r, c in free}
    return [[(r, c) in free for c in range(COLUMNS)] for r in range(ROWS)]


@functools.cache
def layouts() -> tuple[tuple[tuple[bool, ...], ...], ...]:
    """The four mazes, always the same."""
    return tuple(tuple(map(tuple, layout(seed))) for seed in range(len(WALLS)))


def grounds(device: torch.device) -> Tensor:
    """The mazes without dots and actors, float `[4, 3, HEIGHT, WIDTH]` in [0, 1]; a wall leaves its tile's rim free."""
    free = torch.tensor(layouts(), device=device)
    within = torch.arange(TILE, device=device)
    inner = (within > 0) & (within < TILE - 1)
    wall = (~free)[:, :, None, :, None] & inner[:, None, None] & inner
    wall = wall.reshape(len(WALLS), 1, HEIGHT, WIDTH)
    colours = torch.tensor(WALLS, device=device)[:, :, None, None] / 255
    return torch.where(wall, colours, torch.tensor(GROUND, device=device)[:, None, None] / 255)


def stamps(device: torch.device) -> Tensor:
    """Every look of an actor, float `[kinds, 4 directions, 4 phases, 2, 2, 4, 11, 11]`: red, green and blue times
    coverage, then coverage. kinds: ghosts of four colours, a frightened one, pacman. The two axes of 2 say whether the
    centre lies half a pixel further down, and right."""
    half = torch.tensor([0.0, 0.5], device=device)
    near = torch.arange(STAMP, device=device) - REACH + 0.5
    y = (near - half[:, None])[:, None, :, None]  # [2, 1, 11, 1]
    x = (near - half[:, None])[None, :, None, :]  # [1, 2, 1, 11]

    def over(picture: Tensor, cover: Tensor, colour: tuple[int, ...]) -> Tensor:
        ink = torch.tensor((*colour, 255), device=device)[:, None, None] / 255
        return picture * (1 - cover.unsqueeze(2)) + ink * cover.unsqueeze(2)

    blank = torch.zeros(2, 2, 4, STAMP, STAMP, device=device)
    kinds = []
    for colour in (*GHOSTS, FRIGHTENED):
        ways = []
        for dy, dx in STEPS:
            head = torch.maximum(shapes.ball((x, y), (0.0, 0.0), RADIUS), y)
            body = torch.minimum(head, shapes.box((x, y), (0.0, 1.5), (RADIUS, 2.0)))
            made = over(blank, shapes.coverage(body), colour)
            for side in (-1.5, 1.5):
                made = over(made, shapes.coverage(shapes.ball((x, y), (side + dx, dy - 0.5), 1.0)), EYES)
            ways.append(made.expand(len(MOUTH), *made.shape))
        kinds.append(torch.stack(ways))
    ways = []
    for dy, dx in STEPS:
        disc = shapes.ball((x, y), (0.0, 0.0), RADIUS)
        along, across = x * dx + y * dy, (x * dy - y * dx).abs()
        phases = []
        for degrees in MOUTH:
            angle = math.radians(degrees)
            wedge = across * math.cos(angle) - along * math.sin(angle)  # negative within the open mouth
            inside = torch.maximum(disc, -wedge) if degrees else disc
            phases.append(over(blank, shapes.coverage(inside), PACMAN))
        ways.append(torch.stack(phases))
    kinds.append(torch.stack(ways))
    return torch.stack(kinds)


@dataclass
class Scenes:
    """What happens in `n` clips, whole mazes.

    maze: int64 `[n]`. dots: bool `[n, ROWS, COLUMNS]`, which lie there at first. kind, phase: int64 `[n, ACTORS]`, of
    the table of stamps, phase that of the first frame. position: float `[n, FRAMES, ACTORS, 2]`, centres (y, x), whole
    or half pixels. direction: int64 `[n, FRAMES, ACTORS]`. Pacman comes first.
    """

    maze: Tensor
    dots: Tensor
    kind: Tensor
    phase: Tensor
    position: Tensor
    direction: Tensor

    def __getitem__(self, rows: Tensor) -> Scenes:
        return Scenes(*(value[rows] for value in vars(self).values()))


def play(n: int, generator: torch.Generator) -> Scenes:
    """`n` clips of five frames: actors start anywhere in a corridor and walk.

    At the middle of a tile an actor goes straight with probability 0.7 where it can, else along any open way but back;
    back only out of a dead end. Pacman and ghosts walk a pixel per frame, frightened ghosts (3 of 20) half of one.
    """
    device = generator.device
    free = torch.tensor(layouts(), device=device)
    moves = torch.tensor(STEPS, device=device)
    around = torch.nn.functional.pad(free, (1, 1, 1, 1))
    open_ways = torch.stack(
        [around[:, 1 + dy : 1 + dy + ROWS, 1 + dx : 1 + dx + COLUMNS] for dy, dx in STEPS], -1
    )  # [mazes, rows, columns, 4]

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, device=device)

    maze = torch.randint(len(WALLS), (n,), generator=generator, device=device)
    place = (uniform(n, ACTORS, ROWS * COLUMNS) * free[maze].flatten(1)[:, None]).argmax(2)
    tile = torch.stack([place // COLUMNS, place % COLUMNS], 2)

    def turned(ways: Tensor, direction: Tensor) -> Tensor:
        """Directions after the middle of a tile with these open ways, bool `[n, ACTORS, 4]`."""
        back = (torch.arange(4, device=device) - direction[..., None]) % 4 == 2
        score = uniform(n, ACTORS, 4) + 2 * (ways & ~back) + (ways & back) * 1.0
        on = ways.gather(2, direction[..., None])[..., 0] & (uniform(n, ACTORS) < 0.7)
        return torch.where(on, direction, score.argmax(2))

    ways = open_ways[maze[:, None], tile[..., 0], tile[..., 1]]
    direction = (uniform(n, ACTORS, 4) * ways).argmax(2)
    fright = uniform(n, ACTORS) < 0.15
    colour = torch.arange(ACTORS, device=device) - 1
    kind = torch.where(fright, FRIGHT, colour.expand(n, -1))
    kind[:, 0] = len(GHOSTS) + 1
    speed = torch.where(kind == FRIGHT, 0.5, 1.0)
    offset = (uniform(n, ACTORS) * TILE).floor()
    position, directions = [], []
    for frame in range(FRAMES):
        if frame:
            offset = offset + speed
            arrived = offset >= TILE
            tile = torch.where(arrived[..., None], tile + moves[direction], tile)
            ways = open_ways[maze[:, None], tile[..., 0], tile[..., 1]]
            direction = torch.where(arrived, turned(ways, direction), direction)
            offset = torch.where(arrived, offset - TILE, offset)
        position.append(tile * TILE + TILE // 2 + moves[direction] * offset[..., None])
        directions.append(direction)
    dots = free[maze] & (uniform(n, ROWS, COLUMNS) < 0.6)
    phase = torch.randint(len(MOUTH), (n, ACTORS), generator=generator, device=device)
    return Scenes(maze, dots, kind, phase, torch.stack(position, 1), torch.stack(directions, 1))


def corners(scenes: Scenes, generator: torch.Generator) -> Tensor:
    """Upper left corners (y, x) of a crop of every clip, int64 `[n, 2]`: with probability 0.9 its middle lies within 12
    pixels of an actor in the middle frame, else anywhere."""
    n, device = len(scenes.maze), scenes.maze.device
    draw: dict[str, Any] = {"generator": generator, "device": device}
    which = torch.randint(ACTORS, (n,), **draw)
    centre = scenes.position[torch.arange(n, device=device), FRAMES // 2, which]
    near = centre.floor() + torch.randint(-12, 13, (n, 2), **draw) - SIDE // 2
    most = torch.tensor([HEIGHT - SIDE, WIDTH - SIDE], device=device)
    anywhere = (torch.rand(n, 2, **draw) * (most + 1)).floor()
    chosen = torch.where(torch.rand(n, 1, **draw) < 0.9, near, anywhere)
    return chosen.long().clamp_min(0).minimum(most)


class Painter:
    """Draws crops of scenes. Everything that does not change is made once, on the device."""

    def __init__(self, device: torch.device) -> None:
        self.ground, self.stamps = grounds(device).permute(0, 2, 3, 1).contiguous(), stamps(device)
        self.side = torch.arange(SIDE, device=device)
        self.inks = torch.tensor(WALLS, device=device) / 255
        self.near = torch.arange(STAMP, device=device)

    def paint(self, scenes: Scenes, corner: Tensor) -> Tensor:
        """Crops at the corners int64 `[n, 2]` -> clips float `[n, FRAMES, 3, SIDE, SIDE]` in [0, 1]."""
        n, pixels = len(corner), SIDE * SIDE
        y, x = (corner[:, i, None] + self.side for i in (0, 1))  # [n, SIDE]
        still = self.ground[scenes.maze[:, None, None], y[:, :, None], x[:, None, :]].permute(0, 3, 1, 2)
        dot = self._dots(scenes, y, x)
        # One cell more than pixels, which takes what lies outside the crop.
        canvas = corner.new_zeros(n, FRAMES, 3, pixels + 1, dtype=torch.float32)
        inks = self.inks[scenes.maze][:, None, :, None, None]
        canvas[..., :pixels] = torch.where(dot[:, :, None], inks, still[:, None]).flatten(3)
        for actor in reversed(range(ACTORS)):
            self._stamp(canvas.flatten(0, 1), scenes, corner, actor)
        return canvas[..., :pixels].unflatten(3, (SIDE, SIDE)).clamp(0, 1)

    def _dots(self, scenes: Scenes, y: Tensor, x: Tensor) -> Tensor:
        """Where dots lie in every frame, bool `[n, FRAMES, SIDE, SIDE]`; one is gone once pacman has reached it."""
        rows, columns = y // TILE, x // TILE
        clip = torch.arange(len(y), device=y.device)[:, None, None]
        lies = scenes.dots[clip, rows[:, :, None], columns[:, None, :]]
        middle = [(v % TILE == TILE // 2 - 1) | (v % TILE == TILE // 2) for v in (y, x)]
        lies = lies & middle[0][:, :, None] & middle[1][:, None, :]
        pacman = scenes.position[:, :, 0]  # [n, FRAMES, 2]
        far = [(t * TILE + TILE // 2)[:, None] - pacman[:, :, i, None] for i, t in ((0, rows), (1, columns))]
        reached = (far[0].abs() <= 3)[..., :, None] & (far[1].abs() <= 3)[..., None, :]
        return lies[:, None] & (reached.cumsum(1) == 0)

    def _stamp(self, canvas: Tensor, scenes: Scenes, corner: Tensor, actor: int) -> None:
        """Put one actor into all frames of a canvas `[n * FRAMES, 3, SIDE * SIDE + 1]`, in place."""
        centre = scenes.position[:, :, actor]
        whole = centre.floor()
        half = (centre - whole > 0).long()
        phase = (scenes.phase[:, actor, None] + torch.arange(FRAMES, device=corner.device)) % len(MOUTH)
        kind = scenes.kind[:, actor, None].expand(-1, FRAMES)
        look = self.stamps[kind, scenes.direction[:, :, actor], phase, half[..., 0], half[..., 1]].flatten(0, 1)
        at = (whole.long() - REACH - corner[:, None]).flatten(0, 1)
        y, x = at[:, :1] + self.near, at[:, 1:] + self.near
        inside = ((y >= 0) & (y < SIDE))[:, :, None] & ((x >= 0) & (x < SIDE))[:, None]
        place = torch.where(inside, y[:, :, None] * SIDE + x[:, None], SIDE * SIDE)
        place = place.flatten(1)[:, None].expand(-1, 3, -1)
        cover = look[:, 3:].flatten(2)
        canvas.scatter_(2, place, canvas.gather(2, place) * (1 - cover) + look[:, :3].flatten(2))


def motion(clips: Tensor) -> Tensor:
    """Sum over the pairs of consecutive frames of squared differences of all values in [-1, 1], `[n]` (Cooper 2017).

    clips: float `[n, t, c, h, w]` in [0, 1].
    """
    return 4 * (clips[:, 1:] - clips[:, :-1]).square().flatten(1).sum(1)
