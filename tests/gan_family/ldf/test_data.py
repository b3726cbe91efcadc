"""Clips of the maze game, drawn, cut and read; coloured shapes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import distk
from distk import DistkError, UsageError
from distk.data import open_dataset
from distk.plugins.gan_family.ldf.data import Pacman, moving
from distk.plugins.gan_family.ldf.maze import (
    ACTORS,
    COLUMNS,
    FRAMES,
    FRIGHT,
    GHOSTS,
    ROWS,
    SIDE,
    STEPS,
    TILE,
    Painter,
    Scenes,
    corners,
    grounds,
    layouts,
    motion,
    play,
)
from distk.plugins.gan_family.ldf.shapes32 import CLASSES, draw

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def drawn() -> Pacman:
    made = open_dataset("pacman", {"clips": 300, "held_out": 60})
    assert isinstance(made, Pacman)
    return made


# The simulation


def test_mazes_are_mirrored_connected_and_different() -> None:
    mazes = np.array(layouts())
    assert mazes.shape == (4, ROWS, COLUMNS)
    assert np.array_equal(mazes, mazes[:, :, ::-1])
    assert len({maze.tobytes() for maze in mazes}) == 4
    for maze in mazes:
        assert not maze[[0, -1]].any()
        assert not maze[:, [0, -1]].any()
        start = tuple(np.argwhere(maze)[0])
        reached, ends = {start}, [start]
        while ends:
            r, c = ends.pop()
            for dy, dx in STEPS:
                to = (r + dy, c + dx)
                if maze[to] and to not in reached:
                    reached.add(to)
                    ends.append(to)
        assert len(reached) == maze.sum(), "a part of the maze cannot be reached"


def test_grounds_show_the_walls() -> None:
    ground, maze = grounds(CPU), np.array(layouts())
    for k in range(4):
        for r, c in ((0, 0), (5, 3), (10, 9), (15, 12)):
            tile = ground[k, :, r * TILE : (r + 1) * TILE, c * TILE : (c + 1) * TILE]
            rim, middle = tile[:, 0, 0], tile[:, 4, 4]
            assert bool((rim == middle).all()) == bool(maze[k, r, c])


def test_actors_walk_as_they_must(generator: torch.Generator) -> None:
    scenes = play(1500, generator)
    free = torch.tensor(layouts())
    steps = scenes.position[:, 1:] - scenes.position[:, :-1]
    speed = torch.where(scenes.kind == FRIGHT, 0.5, 1.0)
    assert torch.equal(steps.abs().sum(3), speed[:, None].expand(-1, FRAMES - 1, -1)), "one axis, the actor's speed"
    # Whoever is between two middles is in a corridor of both, and its direction is where it goes.
    tile = (scenes.position / TILE).floor().long()
    assert bool(free[scenes.maze[:, None, None], tile[..., 0], tile[..., 1]].all())
    moves = torch.tensor(STEPS)[scenes.direction]
    along = (steps * moves[:, :-1]).sum(3)
    assert torch.equal(along, speed[:, None].expand(-1, FRAMES - 1, -1))
    off = (scenes.position - (tile * TILE + TILE // 2)) * (1 - moves.abs())
    assert not bool(off.any()), "an actor left the middle of its corridor"
    frightened = (scenes.kind[:, 1:] == FRIGHT).float().mean()
    assert abs(float(frightened) - 0.15) < 5 * (0.15 * 0.85 / 6000) ** 0.5
    assert bool((scenes.kind[:, 0] == len(GHOSTS) + 1).all())


def test_back_only_out_of_dead_ends_and_mostly_straight(generator: torch.Generator) -> None:
    scenes = play(6000, generator)
    free = torch.tensor(layouts())
    before, after = scenes.direction[:, :-1], scenes.direction[:, 1:]
    tile = (scenes.position[:, 1:] / TILE).floor().long()
    arrived = (scenes.position[:, 1:] == tile * TILE + TILE // 2).all(3)
    open_ways = torch.stack(
        [free[scenes.maze[:, None, None], tile[..., 0] + dy, tile[..., 1] + dx] for dy, dx in STEPS], 3
    )
    back = (before + 2) % 4
    turned = arrived & (after == back)
    assert bool(turned.any())
    assert bool((open_ways.sum(3)[turned] == 1).all()), "an actor turned back where it could go on"
    assert bool(open_ways.gather(3, after[..., None])[..., 0][arrived].all()), "an actor walks into a wall"
    ahead = open_ways.gather(3, before[..., None])[..., 0]
    crossing = arrived & ahead & (open_ways.sum(3) == 3)  # straight, back and one way aside
    share = float((after == before)[crossing].float().mean())
    assert abs(share - 0.85) < 5 * (0.85 * 0.15 / int(crossing.sum())) ** 0.5  # 0.7 + 0.3 / 2


# Drawing


def test_a_crop_is_a_part_of_the_larger_picture(generator: torch.Generator) -> None:
    """Two crops of one scene agree where they overlap."""
    scenes, painter = play(60, generator), Painter(CPU)
    corner = torch.stack([torch.randint(0, n, (60,), generator=generator) for n in (120, 112)], 1)
    a, b = painter.paint(scenes, corner), painter.paint(scenes, corner + torch.tensor([7, 5]))
    assert torch.allclose(a[..., 7:, 5:], b[..., :-7, :-5], atol=1e-6)
    assert a.shape == (60, FRAMES, 3, SIDE, SIDE)


def test_what_does_not_move_is_the_ground_or_a_dot(generator: torch.Generator) -> None:
    scenes, painter = play(200, generator), Painter(CPU)
    scenes.dots[:] = False
    corner = corners(scenes, generator)
    clips, ground = painter.paint(scenes, corner), grounds(CPU)
    side = torch.arange(SIDE)
    y, x = corner[:, 0, None] + side, corner[:, 1, None] + side
    still = ground[scenes.maze[:, None, None], :, y[:, :, None], x[:, None, :]].permute(0, 3, 1, 2)
    centre = scenes.position - corner[:, None, None]
    far = torch.ones(200, FRAMES, SIDE, SIDE, dtype=torch.bool)
    for a in range(ACTORS):
        dy = (side + 0.5 - centre[:, :, a, 0, None]).abs()
        dx = (side + 0.5 - centre[:, :, a, 1, None]).abs()
        far &= ~((dy <= 5)[..., :, None] & (dx <= 5)[..., None, :])
    apart = (clips - still[:, None]).abs().amax(2)
    assert not bool((apart * far).any())
    # At the very middle of pacman, who comes over all ghosts, is his colour, unless his mouth is open there.
    inside = ((centre[:, :, 0] >= 4) & (centre[:, :, 0] < 28)).all(2)
    at = (centre[:, :, 0].long() - 2 * torch.tensor(STEPS)[scenes.direction[:, :, 0]]).clamp(0, 31)  # behind it
    n, t = torch.nonzero(inside, as_tuple=True)
    colour = clips[n, t, :, at[n, t, 0], at[n, t, 1]]
    assert float((colour - torch.tensor([210, 164, 74]) / 255).abs().max()) < 0.02


def test_dots_go_when_pacman_reaches_them() -> None:
    corridor = torch.tensor(layouts())[0]
    row = next(r for r in range(1, ROWS, 2) if bool(corridor[r, 1:4].all()))
    time = torch.arange(FRAMES)
    where = torch.stack([torch.full((FRAMES,), row * TILE + 4), 2 * TILE - 3 + time], 1).float()
    away = torch.tensor([ROWS * TILE - 4.0, COLUMNS * TILE - 4.0])
    position = torch.stack([where, *[away.expand(FRAMES, 2)] * (ACTORS - 1)], 1)[None]
    dots = torch.zeros(1, ROWS, COLUMNS, dtype=torch.bool)
    dots[0, row, 1:4] = True
    kind = torch.tensor([[len(GHOSTS) + 1, 0, 1, 2, 3]])
    zero = torch.zeros(1, ACTORS, dtype=torch.long)
    scenes = Scenes(torch.zeros(1, dtype=torch.long), dots, kind, zero, position, zero[:, None].expand(-1, FRAMES, -1))
    corner = torch.tensor([[max(0, row * TILE - 12), 0]])
    at = torch.arange(SIDE)
    dot = Painter(CPU)._dots(scenes, corner[:, :1] + at, corner[:, 1:] + at)[0]
    y = row * TILE + 4 - int(corner[0, 0])
    for tile, present in ((1, [False] * 5), (2, [True] * 5), (3, [True] * 5)):
        # He starts 3 pixels before the middle between tiles 1 and 2: tile 1's dot is within 3 pixels at once.
        x = tile * TILE + 4
        gone = ((where[:, 1] - x).abs() <= 3).cumsum(0) > 0
        assert dot[:, y, x].tolist() == (~gone).tolist(), (tile, present)
        assert dot[:, y - 1 : y + 1, x - 1 : x + 1].flatten(1).all(1).tolist() == (~gone).tolist()


def test_motion_is_coopers_sum(generator: torch.Generator) -> None:
    clips = torch.rand(3, 5, 3, 6, 6, generator=generator)
    wide = (2 * clips - 1).numpy().astype(np.float64)
    for i in range(3):
        total = 0.0
        for t in range(4):
            total += np.sum(np.square(wide[i, t + 1] - wide[i, t]))
        assert float(motion(clips)[i]) == pytest.approx(total, rel=1e-5)


def test_crops_are_redrawn_until_they_move(generator: torch.Generator) -> None:
    """A clip by hand: whose crop moves by more than the threshold is known, the number of its tries is counted."""
    tries = torch.zeros(400, dtype=torch.long)

    def cut(which: Tensor) -> Tensor:
        tries[which] += 1
        clips = torch.zeros(len(which), 2, 1, 1, 1)
        clips[:, 1, 0, 0, 0] = torch.where(tries[which] >= 4, 0.6, 0.4)  # motion 1.44 and 0.64
        return clips

    made = moving(cut, 400, 1.0, generator)
    assert set(tries.tolist()) == {1, 4}
    assert abs(float((tries == 4).float().mean()) - 0.95) < 5 * (0.95 * 0.05 / 400) ** 0.5
    assert torch.equal(made[:, 1].flatten(), torch.where(tries == 4, 153, 102).to(torch.uint8))
    with pytest.raises(UsageError, match=r"no clip moves by more than --min-motion 2; the liveliest by 1.44"):
        moving(cut, 5, 2.0, generator)


def test_the_drawn_data_set(drawn: Pacman) -> None:
    assert len(drawn) == 360
    assert drawn.rows_of("train").tolist() == list(range(300))
    assert drawn.rows_of("test").tolist() == list(range(300, 360))
    assert drawn.scenes is not None
    assert drawn.corner is not None
    again = Painter(CPU).paint(drawn.scenes, drawn.corner)
    assert float((again - drawn.batch(torch.arange(360))["x"]).abs().max()) <= 0.5 / 255 + 1e-6
    moved = motion(drawn.batch(torch.arange(360))["x"])
    assert float((moved > 95).float().mean()) > 0.9
    other = open_dataset("pacman", {"clips": 20, "held_out": 5, "clip_seed": 1})
    assert not torch.equal(other.batch(torch.arange(5))["x"], drawn.batch(torch.arange(5))["x"])
    same = open_dataset("pacman", {"clips": 300, "held_out": 60})
    assert torch.equal(same.batch(torch.arange(360))["x"], drawn.batch(torch.arange(360))["x"])


# Files


def episode(folder: Path, frames: int, seed: int, size: tuple[int, int] = (40, 50), still: bool = False) -> np.ndarray:
    """An episode of random frames on disk, uint8 `[t, h, w, 3]`; names sort otherwise as text than in time."""
    folder.mkdir(parents=True)
    draw = np.random.default_rng(seed)
    made = draw.integers(0, 256, (frames, *size, 3), np.uint8)
    if still:
        made[:] = made[:1]
    for t, frame in enumerate(made):
        Image.fromarray(frame).save(folder / f"{t}.png")
    return made


def test_clips_are_cut_from_episodes(tmp_path: Path) -> None:
    held = {
        part: [episode(tmp_path / "Ms_Pacman" / part / f"ep{i}", 12, 10 * k + i) for i in range(2)]
        for k, part in enumerate(("Train", "Test"))
    }
    data = open_dataset("pacman", {"clips": 12, "held_out": 6}, folder=tmp_path)
    assert len(data) == 18
    x = (data.batch(torch.arange(18))["x"] * 255).round().to(torch.uint8).numpy().transpose(0, 1, 3, 4, 2)
    found = set()
    for i, clip in enumerate(x):
        part = "Train" if i < 12 else "Test"
        spots = [
            (e, t, r, c)
            for e, frames in enumerate(held[part])
            for t in range(8)
            for r in range(9)
            for c in range(19)
            if np.array_equal(frames[t, r, c], clip[0, 0, 0])
            and np.array_equal(frames[t : t + 5, r : r + 32, c : c + 32], clip)
        ]
        assert len(spots) == 1, f"clip {i} is not five consecutive frames of one crop of '{part}'"
        found.add(spots[0])
    assert len(found) > 12
    assert {spot[0] for spot in found} == {0, 1}


def test_episodes_without_a_test_folder_are_divided(tmp_path: Path) -> None:
    for i in range(11):
        episode(tmp_path / "Train" / f"ep{i}", 6, i)
    data = open_dataset("pacman", {"clips": 20, "held_out": 10}, folder=tmp_path)
    assert "10 episodes and 1 for the test" in data.origin
    assert len(data.rows_of("test")) == 10


def test_episodes_that_do_not_serve(tmp_path: Path) -> None:
    episode(tmp_path / "a" / "Train" / "one", 6, 0)
    with pytest.raises(UsageError, match="needs a folder of PNG frames per episode"):
        open_dataset("pacman", {"clips": 5, "held_out": 2}, folder=tmp_path / "a")
    for name in ("Train", "Test"):
        episode(tmp_path / "b" / name / "one", 4, 0)
        episode(tmp_path / "c" / name / "one", 6, 0, still=True)
        episode(tmp_path / "d" / name / "one", 6, 0, size=(30, 40))
    with pytest.raises(UsageError, match="has 4 frames of 50x40 pixels; a clip needs 5"):
        open_dataset("pacman", {"clips": 5, "held_out": 2}, folder=tmp_path / "b")
    with pytest.raises(UsageError, match="no clip moves by more than --min-motion 100"):
        open_dataset("pacman", {"clips": 5, "held_out": 2}, folder=tmp_path / "c")
    with pytest.raises(UsageError, match="40x30 pixels"):
        open_dataset("pacman", {"clips": 5, "held_out": 2}, folder=tmp_path / "d")
    with pytest.raises(UsageError, match="found none of"):
        open_dataset("pacman", {}, folder=tmp_path)


def cut_clip(path: Path, seed: int, **changed: object) -> np.ndarray:
    """One clip as Cooper's code stores it; float in [-1, 1], `[32, 32, 15]`."""
    made = np.random.default_rng(seed).uniform(-1, 1, (32, 32, 15))
    np.savez_compressed(path, **{"arr_0": made, **changed})  # type: ignore[arg-type]
    return made


def test_clips_that_were_cut_before(tmp_path: Path) -> None:
    made = [cut_clip(tmp_path / f"{i}.npz", i) for i in range(30)]
    data = open_dataset("pacman", {"clips": 100, "held_out": 10}, folder=tmp_path)
    assert (len(data.rows_of("train")), len(data.rows_of("test"))) == (27, 3)
    x = data.batch(torch.arange(30))["x"].double().numpy()
    frames = np.stack([[c[:, :, 3 * t : 3 * t + 3].transpose(2, 0, 1) for t in range(5)] for c in made])
    apart = np.abs(2 * x[:, None] - 1 - frames[None]).reshape(30, 30, -1).max(2)
    assert apart.min(1).max() <= 1 / 255 + 1e-6
    assert sorted(apart.argmin(1)) == list(range(30))
    assert apart.argmin(1).tolist() != list(range(30)), "the clips were not shuffled"
    few = open_dataset("pacman", {"clips": 5, "held_out": 4}, folder=tmp_path)
    assert (len(few.rows_of("train")), len(few.rows_of("test"))) == (5, 4)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"arr_0": np.zeros((32, 32, 12))}, "expected arr_0 of 32 x 32 x 15"),
        ({"arr_0": np.zeros((32, 32, 15), np.uint8)}, "expected arr_0 of 32 x 32 x 15"),
        ({"arr_0": np.full((32, 32, 15), 1.5)}, "values outside"),
        ({"arr_0": np.full((32, 32, 15), np.nan)}, "values outside"),
    ],
)
def test_cut_clips_of_another_kind(changed: dict[str, np.ndarray], said: str, tmp_path: Path) -> None:
    cut_clip(tmp_path / "0.npz", 0)
    cut_clip(tmp_path / "1.npz", 1, **changed)
    with pytest.raises(DistkError, match=said):
        open_dataset("pacman", {}, folder=tmp_path)
    (tmp_path / "1.npz").write_bytes(b"no archive")
    with pytest.raises(DistkError, match="not a valid npz file"):
        open_dataset("pacman", {}, folder=tmp_path)
    (tmp_path / "1.npz").unlink()
    with pytest.raises(UsageError, match="holds 1 clip"):
        open_dataset("pacman", {}, folder=tmp_path)


# Coloured shapes


def test_shapes_of_every_class(generator: torch.Generator) -> None:
    n = 300
    x = draw(torch.arange(10).repeat_interleave(n), generator)
    assert x.shape == (10 * n, 3, 32, 32)
    assert float(x.min()) >= 0
    assert float(x.max()) <= 1
    # What is brighter than any ground can be is the shape's ink: stripes leave about half of it.
    ink = (x.amax(1) > 0.52).flatten(1).double().sum(1).view(2, 5, n)
    mean, error = ink.mean(2), ink.std(2) / n**0.5
    assert bool((mean[1] < 0.75 * mean[0]).all())
    # Areas against the formulas, as shares of size^2. The threshold lies within the antialiased pixel of the
    # edge, on its outer side: an edge stands out by no less than 0 and no more than half a pixel.
    sizes = np.linspace(6, 10, 1001)
    areas = [np.pi, 4 * 0.85**2, 3 * 3**0.5 / 4, np.pi * (1 - (1 - 0.44) ** 2), 4 * (2 / 3 - 1 / 9)]
    edges = [2 * np.pi, 8 * 0.85, 3 * 3**0.5, 2 * np.pi * (2 - 0.44), 8.0]
    for i, (area, edge) in enumerate(zip(areas, edges, strict=True)):
        exact, rim = area * float((sizes**2).mean()), 0.5 * edge * float(sizes.mean())
        assert exact - 5 * error[0, i] < mean[0, i] < exact + rim + 5 * error[0, i]


def test_shapes32_as_a_data_set() -> None:
    data = distk.dataset("shapes32", device="cpu", images=500, held_out=100)
    assert data.spec.classes == CLASSES
    assert len(CLASSES) == 10
    assert len(data.rows_of("test")) == 100
    batch = data.batch(torch.arange(600))
    assert sorted(batch["label"].unique().tolist()) == list(range(10))
    assert torch.equal(batch["label"], data.label)
