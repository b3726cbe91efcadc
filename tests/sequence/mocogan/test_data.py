"""shape-motion: the recipe, and that it is the recipe of the released clips."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from distk import UsageError, open_dataset
from distk.plugins.sequence.mocogan.data import HALF_WIDTHS, SIDES, ShapeMotion, curves, drawn_factors

AREAS = {47: (0, 0), 79: (0, 1), 111: (0, 2), 151: (0, 3), 64: (1, 0), 100: (1, 1), 144: (1, 2), 196: (1, 3)}
"""Pixels of a shape -> shape (0 circle, 1 square) and number of its size, counted in the released files."""


def shapes(**values: object) -> ShapeMotion:
    made = open_dataset("shape-motion", {"clips": 40, "test_clips": 10, **values})
    assert isinstance(made, ShapeMotion)
    return made


def by_hand(factors: list[int], x: int, y: int) -> np.ndarray:
    """One frame, pixel by pixel, uint8 `[64, 64, 3]`."""
    frame = np.zeros((64, 64, 3), np.uint8)
    side = SIDES[factors[1]]
    for row in range(side):
        for column in range(side):
            away = abs(row - (side // 2 - 1))
            widths = HALF_WIDTHS[factors[1]]
            inside = away < len(widths) and abs(column - (side // 2 - 1)) <= widths[away]
            if factors[0] == 1 or inside:
                frame[y + row, x + column] = factors[3:6]
    return frame


def test_frames_are_those_drawn_pixel_by_pixel(seed: int) -> None:
    data = shapes(data_seed=seed)
    rows = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))[:12]
    batch = data.batch(rows)
    pixels = (batch["x"] * 255).round().to(torch.uint8).permute(0, 1, 3, 4, 2).numpy()
    for i, row in enumerate(rows.tolist()):
        clip, start = divmod(row, data.windows)
        for k in (0, 9, 15):
            x, y = data.corner[clip, start + 2 * k].tolist()
            assert (pixels[i, k] == by_hand(batch["factors"][i].tolist(), x, y)).all()


def test_areas_are_the_released_ones() -> None:
    data = shapes(clips=250, frames=2, every=20)
    batch = data.batch(torch.arange(0, len(data), data.windows))
    visible = batch["factors"][:, 3:6].sum(1) > 0
    area = (batch["x"].amax(2) > 0).flatten(2).sum(2)[visible]
    assert bool((area == area[:, :1]).all())
    seen = {(int(a[0]), (int(f[0]), int(f[1]))) for a, f in zip(area, batch["factors"][visible], strict=True)}
    assert seen == set(AREAS.items())


@pytest.mark.parametrize("direction", ["released", "paper"])
def test_ten_thousand_curves_stay_inside_and_end_where_they_should(direction: str, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    factors = drawn_factors(10_000, draw)
    corner = curves(factors, draw, direction == "paper")
    limit = 62 - torch.tensor(SIDES)[factors[:, 1]]
    assert bool((corner >= 1).all())
    assert bool((corner <= limit[:, None, None]).all())
    rows, moving = torch.arange(10_000), 1 - factors[:, 2]
    first, last = corner[rows, 0], corner[rows, -1]
    begin, end = (limit, torch.ones_like(limit)) if direction == "released" else (torch.ones_like(limit), limit)
    assert torch.equal(first[rows, moving], begin)
    assert torch.equal(last[rows, moving], end)
    line = factors[:, 6] + 1
    assert torch.equal(first[rows, 1 - moving], line)
    assert torch.equal(last[rows, 1 - moving], line)
    assert bool((line <= limit).all())
    for column, values in ((0, 2), (1, 4), (2, 2), (3, 256)):
        counts = factors[:, column].bincount(minlength=values).float()
        assert len(counts) == values
        assert bool(((counts - 10_000 / values).abs() < 6 * (10_000 / values) ** 0.5).all())


def test_positions_are_the_bezier_curve_by_de_casteljau(seed: int) -> None:
    factors = drawn_factors(200, torch.Generator().manual_seed(seed))
    corner = curves(factors, torch.Generator().manual_seed(seed + 1))
    limit = 62 - np.array(SIDES)[factors[:, 1].numpy()]
    inner = torch.rand(2, 200, 3, generator=torch.Generator().manual_seed(seed + 1), dtype=torch.float64).numpy()
    for i in range(200):
        for which, place in enumerate((1 - int(factors[i, 2]), int(factors[i, 2]))):
            points = 1 + np.floor(inner[which, i] * limit[i])
            line = float(factors[i, 6]) + 1
            ends = (float(limit[i]), 1.0) if which == 0 else (line, line)
            for k, u in enumerate(np.linspace(0, 1, 32)):
                path = np.array([ends[0], *points, ends[1]])
                while len(path) > 1:
                    path = (1 - u) * path[:-1] + u * path[1:]
                exact = path[0]
                assert int(corner[i, k, place]) == np.floor(exact + 1e-9) or abs(exact - round(exact)) < 1e-8


def test_windows_and_splits_are_by_clip() -> None:
    data = shapes()
    assert data.windows == 2
    assert len(data) == 100
    train, test = (data.rows(part) for part in ("train", "test"))
    assert train is not None
    assert test is not None
    assert set((train // 2).tolist()) == set(range(40))
    assert set((test // 2).tolist()) == set(range(40, 50))
    whole = shapes(every=1, frames=32).batch(torch.tensor([3, 45]))["x"]
    for row, part in ((0, 6), (1, 90)):
        for start in (0, 1):
            assert torch.equal(data.batch(torch.tensor([part + start]))["x"][0], whole[row, start::2])
    assert torch.equal(data.batch(train)["label"], data.factors(train)[:, 2])
    assert shapes(data_seed=1).batch(train)["x"].ne(data.batch(train)["x"]).any()


def test_single_frames_come_from_every_position(seed: int) -> None:
    data, count = shapes(clips=1, size=16), 3200
    frames = data.sample_frames(count, torch.Generator().manual_seed(seed))
    assert frames.shape == (count, 3, 16, 16)
    whole = shapes(clips=1, every=1, frames=32, size=16).batch(torch.tensor([0]))["x"][0]
    same = (frames[:, None] == whole).flatten(2).all(2)  # a shape that rests looks the same at several positions
    assert bool(same.any(1).all())
    expected = count / 32 * (whole[:, None] == whole).flatten(2).all(2).sum(1)
    assert bool(((same.sum(0) - expected).abs() < 6 * expected.sqrt()).all())


def test_small_frames_are_averages_and_the_papers_direction_is_the_mirror() -> None:
    rows = torch.arange(20)
    full, small = shapes().batch(rows)["x"], shapes(size=16).batch(rows)["x"]
    averaged = full.unflatten(4, (16, 4)).unflatten(3, (16, 4)).mean((4, 6))
    assert torch.allclose(small, averaged, atol=1e-6)
    plain, mirrored = shapes(), shapes(direction="paper")
    assert mirrored.spec.classes == ("top to bottom", "left to right")
    factors = plain.factors(rows)
    limit = 62 - torch.tensor(SIDES)[factors[:, 1]]
    for clip in range(10):
        moving = int(1 - factors[2 * clip, 2])
        a, b = plain.corner[clip].long(), mirrored.corner[clip].long()
        assert torch.equal(a[:, 1 - moving], b[:, 1 - moving])
        assert torch.equal(a[:, moving], limit[2 * clip] + 1 - b[:, moving])


def test_more_frames_than_positions_are_refused() -> None:
    with pytest.raises(UsageError, match=r"17 frames, every 2. position, need 33 positions"):
        shapes(frames=17)


# The released clips


def corners(videos: np.ndarray, factors: Tensor) -> Tensor:
    """Corners of the shapes' boxes, from where pixels are lit; a circle's box begins before its first pixel."""
    lit = videos.max(-1) > 0
    x, y = lit.any(2).argmax(-1), lit.any(3).argmax(-1)
    corner = torch.from_numpy(np.stack([x, y], 2))
    for k, widths in enumerate(HALF_WIDTHS):
        middle = SIDES[k] // 2 - 1
        first = middle - len(widths) + 1
        chosen = (factors[:, 0] == 0) & (factors[:, 1] == k)
        corner[chosen] -= torch.tensor([max(0, middle - widths[0]), max(0, first)])
    return corner


def test_the_renderer_gives_the_released_clips_bit_for_bit(real, seed: int) -> None:
    with np.load(real("mocogan_shapes/shapes.npz")) as file:
        videos, motion = (file[name][seed % 8 :: 8] for name in ("videos", "motion"))
    area = (videos.max(-1) > 0).sum((2, 3))
    kinds = torch.tensor([AREAS[int(a.max())] for a in area])
    colour = torch.from_numpy(videos.max((1, 2, 3)).astype(np.int64))
    factors = torch.cat([kinds, torch.from_numpy(motion.astype(np.int64))[:, None], colour, kinds[:, :1] * 0], 1)
    corner, data = corners(videos, factors), shapes()
    made = (data._render(factors, corner) * 255).round().to(torch.uint8)
    assert (made.permute(0, 1, 3, 4, 2).numpy() == videos).all()
    rows, moving = torch.arange(len(videos)), 1 - factors[:, 2]
    limit = 62 - torch.tensor(SIDES)[factors[:, 1]]
    assert torch.equal(corner[rows, 0, moving], limit)
    assert bool((corner[rows, -1, moving] == 1).all())
    assert torch.equal(corner[rows, 0, 1 - moving], corner[rows, -1, 1 - moving])
    assert bool((corner >= 1).all())
    assert bool((corner <= limit[:, None, None]).all())
    # Curves of ours travel as the released ones do: mean length of a step, in pixels.
    ours = curves(drawn_factors(5000, draw := torch.Generator().manual_seed(0)), draw).double()
    steps = [(c[:, 1:] - c[:, :-1]).double().norm(dim=2).mean(1) for c in (ours, corner)]
    error = (steps[0].var() / len(steps[0]) + steps[1].var() / len(steps[1])).sqrt()
    assert abs(float(steps[0].mean() - steps[1].mean())) < 5 * float(error)


def test_the_released_files_are_read_as_strips_and_as_arrays(real, tmp_path: Path) -> None:
    data = open_dataset("clips", {"every": 2}, folder=real("mocogan_shapes/shapes.npz"))
    assert data.spec.shape == (16, 3, 64, 64)
    assert len(data) == 1200
    assert data.spec.classes == ("0", "1")
    frames = data.sample_frames(16, torch.Generator().manual_seed(0))  # type: ignore[attr-defined]
    assert frames.shape == (16, 3, 64, 64)
    unequal = open_dataset("clips", {"every": 2, "size": 32}, folder=real("weizmann_sample/actions.npz"))
    assert unequal.spec.shape == (16, 3, 32, 32)
    assert len({int(n) for n in unequal.lengths}) > 3  # type: ignore[attr-defined]
    for motion in ("0", "1"):
        (tmp_path / motion).mkdir()
    rng = np.random.default_rng(0)
    for i, length in enumerate((31, 32, 40)):
        strip = rng.integers(0, 256, (64, 64 * length, 4), dtype=np.uint8)
        Image.fromarray(strip).save(tmp_path / str(i % 2) / f"{i:08d}.png")
    strips = open_dataset("video-strips", {"every": 2}, folder=tmp_path)
    assert strips.spec.classes == ("0", "1")
    assert strips.lengths.tolist() == [40, 32]  # type: ignore[attr-defined]
