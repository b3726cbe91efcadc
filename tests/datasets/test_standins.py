"""digits28 and strokes28, the offline stand-ins."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from distk import UsageError, open_dataset
from distk.plugins.datasets.strokes28 import render


@pytest.fixture(scope="module")
def digits():
    return open_dataset("digits28")


def test_digits28_has_mnists_numbers_and_no_twins(digits) -> None:
    assert (len(digits), digits.spec.shape) == (70_000, (1, 28, 28))
    train, test = digits.rows("train"), digits.rows("test")
    assert (len(train), len(test)) == (60_000, 10_000)
    assert int(digits.which[train].max()) < 1197 <= int(digits.which[test].min())
    target = torch.tensor(load_digits().target)
    assert torch.equal(digits.label, target[digits.which])


def test_ink_keeps_out_of_the_margin_so_that_shifts_lose_nothing(digits, generator: torch.Generator) -> None:
    x = digits.sample(3000, generator, "all")["x"]
    border = x.clone()
    border[:, :, 5:23, 5:23] = 0
    assert float(border.abs().max()) == 0
    assert bool((x.amax((1, 2, 3)) > 0.5).all())
    small = open_dataset("digits28", {"size": 16, "margin": 3, "augment": False})
    assert len(small) == 1797
    y = small.batch(torch.arange(1797))["x"].clone()
    y[:, :, 3:13, 3:13] = 0
    assert float(y.abs().max()) == 0
    with pytest.raises(UsageError, match="no room"):
        open_dataset("digits28", {"size": 16, "margin": 6})


def test_digits28_is_the_same_every_time_and_bent_each_time(digits, generator: torch.Generator) -> None:
    rows = digits.sample_rows(50, generator)
    assert torch.equal(open_dataset("digits28").batch(rows)["x"], digits.batch(rows)["x"])
    twins = digits.batch(torch.tensor([7, 7 + 1197, 7 + 2 * 1197]))
    assert len(set(twins["label"].tolist())) == 1
    assert not torch.equal(twins["x"][0], twins["x"][1])


def test_digits28_shows_its_originals(digits) -> None:
    """Shrunk back to 8x8 around its ink, an unbent image correlates with the original it was made from."""
    plain = open_dataset("digits28", {"augment": False})
    raw = load_digits().images
    x = plain.batch(torch.arange(100))["x"][:, 0].numpy()
    scores = []
    for i in range(100):
        rows, columns = np.where(x[i] > 0.2)
        ink = torch.tensor(x[i, rows.min() : rows.max() + 1, columns.min() : columns.max() + 1])
        r, c = np.where(raw[i] > 2)
        original = torch.tensor(raw[i, r.min() : r.max() + 1, c.min() : c.max() + 1], dtype=torch.float32)
        same = torch.nn.functional.adaptive_avg_pool2d(ink[None], original.shape)[0]
        scores.append(np.corrcoef(same.flatten(), original.flatten())[0, 1])
    assert np.mean(scores) > 0.85


def test_strokes28(generator: torch.Generator) -> None:
    data = open_dataset("strokes28", {"characters": 30, "instances": 6})
    assert len(data) == 180
    assert data.label.bincount().tolist() == [6] * 30
    x = data.batch(torch.arange(180))["x"]
    # Control points in [5.2, 22.8], plus the pen: pixels 3 and 24 on both axes stay empty.
    outside = x.clone()
    outside[:, :, 4:24, 4:24] = 0
    assert float(outside.abs().max()) == 0
    assert bool((x.amax((1, 2, 3)) > 0.7).all())
    apart = torch.cdist(x.flatten(1), x.flatten(1))
    same = data.label[:, None] == data.label[None]
    assert float(apart[same & (apart > 0)].mean()) < float(apart[~same].mean())


def test_a_straight_stroke_is_the_pens_profile() -> None:
    """A horizontal line through pixel centres: ink = 1 - smoothstep(distance / 1.3), and nothing of undrawn strokes."""
    line = torch.tensor([[8.5, 14.5], [14.5, 14.5], [20.5, 14.5]])
    unused = torch.tensor([[3.0, 3.0], [4.0, 4.0], [5.0, 5.0]])
    x = render(torch.stack([line, unused])[None], torch.tensor([1]), 28)[0, 0]
    u = 1 / 1.3
    assert float(x[14, 14]) > 0.93
    assert float(x[13, 14]) == pytest.approx(1 - u * u * (3 - 2 * u), abs=0.03)
    assert float(x[12, 14]) == 0
    assert float(x[:10].sum()) == 0
