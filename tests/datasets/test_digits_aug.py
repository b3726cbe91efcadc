"""digits-aug: split by source, and bent as it says."""

from __future__ import annotations

import torch

from distk import open_dataset


def test_sources_do_not_cross_the_splits() -> None:
    data = open_dataset("digits-aug")
    train, test, validation = (data.rows(part) for part in ("train", "test", "validation"))
    assert (len(train), len(test), len(validation)) == (1437 * 20, 360 * 4, 120 * 20)
    sources = {part: set(data.which[rows].tolist()) for part, rows in (("train", train), ("test", test))}
    assert not sources["train"] & sources["test"]
    assert bool(torch.isin(validation, train).all())
    rest = train[~torch.isin(train, validation)]
    assert not set(data.which[rest].tolist()) & set(data.which[validation].tolist())
    assert data.rows("all") is None


def test_copies_show_their_original(generator: torch.Generator) -> None:
    """Undoing a copy's own map gives back its original, up to the blur of two interpolations."""
    data = open_dataset("digits-aug", {"copies": 3})
    rows = data.sample_rows(64, generator, "train")
    x = data.batch(rows)["x"]
    assert x.shape == (64, 1, 28, 28)
    assert 0 <= float(x.min()) <= float(x.max()) <= 1
    whole = torch.cat([data.affine[rows], torch.tensor([[[0.0, 0.0, 1.0]]]).expand(64, 1, 3)], 1)
    back = torch.nn.functional.affine_grid(torch.linalg.inv(whole)[:, :2], [64, 1, 28, 28], align_corners=False)
    undone = torch.nn.functional.grid_sample(x, back, align_corners=False)
    original = data.originals[data.which[rows]]
    error = (undone - original).abs().mean((1, 2, 3))
    # 0.01 to 0.03 on average; ink that a copy lost at the border cannot come back. Another copy's original: 0.2.
    assert float(error.mean()) < 0.06
    assert float((undone - original.roll(1, 0)).abs().mean()) > 2 * float(error.mean())


def test_maps_stay_within_their_limits() -> None:
    data = open_dataset("digits-aug")
    linear = torch.linalg.inv(data.affine[:, :, :2])
    scale = linear.det().sqrt()
    assert 0.85 <= float(scale.min()) < 0.86
    assert 1.14 < float(scale.max()) <= 1.1501
    angle = torch.atan2(linear[:, 1, 0], linear[:, 0, 0]).rad2deg()
    assert 9.9 < float(angle.abs().max()) <= 10.001
    shift = -(linear @ data.affine[:, :, 2:]).squeeze(2) * 14
    assert 1.99 < float(shift.abs().max()) <= 2.0001
