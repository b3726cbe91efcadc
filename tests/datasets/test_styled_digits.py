"""styled-digits: counts, split by writer, looks; class-pairs: partners of one class, labels, sets that do not fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import io

from distk import UsageError, open_dataset
from distk.plugins.datasets.styled_digits import WRITERS, _colours, _place

SMALL = {"test": 200, "secondary_size": 300}


def styled(**options):
    return open_dataset("styled-digits", {"train": 100, "test": 200, **options})


def pairs(**options):
    return open_dataset("class-pairs", {**SMALL, **options})


def test_classes_are_even_and_writers_apart() -> None:
    data = styled()
    for split, each in (("train", 10), ("test", 20)):
        rows = data.rows(split)
        assert torch.bincount(data.batch(rows)["label"]).tolist() == [each] * 10
    assert int(data.which[data.rows("train")].max()) < WRITERS <= int(data.which[data.rows("test")].min())


def test_images_are_the_same_everywhere_and_differ_from_each_other() -> None:
    first, second = styled(), styled()
    assert torch.equal(first.images, second.images)
    assert len(first.images.flatten(1).unique(dim=0)) == len(first)
    again = styled(difficulty="easy")
    assert torch.equal(again.which, first.which)
    assert not torch.equal(again.images, first.images)


def test_contrast(seed: int) -> None:
    drawn = torch.rand(500, 32, 2, 3, generator=torch.Generator().manual_seed(seed))
    for least in (0.25, 0.5):
        front, back = _colours(drawn, least)
        contrast = (front - back).abs().mean((1, 2, 3))
        # Of 32 candidates none reaches 0.5 once in 1e2 images (it then takes the best), 0.25 practically always.
        assert int((contrast < least).sum()) <= (0 if least == 0.25 else 100)
        chosen = (drawn[:, :, 0] - drawn[:, :, 1]).abs().mean(2)
        best = chosen.max(1).values
        assert torch.allclose(contrast[best < least], best[best < least])


def test_the_glyph_goes_where_it_is_sent() -> None:
    dot = torch.zeros(4, 1, 24, 24)
    dot[:, :, 8:16, 8:16] = 1
    zero, one = torch.zeros(4), torch.ones(4)
    shift = torch.tensor([[0.0, 0.0], [0.25, 0.0], [0.0, -0.25], [-0.25, 0.25]])
    image = _place(dot, zero, one, zero, shift)
    axis = torch.linspace(-1, 1, 32) * 31 / 32
    mass = image.sum((1, 2, 3))
    across = (image * axis).sum((1, 2, 3)) / mass
    down = (image * axis[:, None]).sum((1, 2, 3)) / mass
    assert torch.allclose(torch.stack([across, down], 1), shift, atol=1e-3)
    half = _place(dot, zero, 2 * one, zero, torch.zeros(4, 2))
    assert torch.allclose(half.sum((1, 2, 3)) * 4, mass[0].expand(4), rtol=0.05)  # the frame shows twice as much


def test_a_pair_shares_its_class(generator: torch.Generator) -> None:
    data = pairs()
    for split in ("train", "test"):
        item = data.sample(500, generator, split, data.bucket(0, 3))
        assert torch.equal(item["label"], item["y_label"])
        assert item["x"].shape == (500, 3, 32, 32)
        assert item["y"].shape == (500, 1, 28, 28)
    item = pairs(matched=False).sample(500, generator, "train", 0)
    agree = float((item["label"] == item["y_label"]).float().mean())
    assert agree < 0.25  # chance is 0.1, and 0.25 more than 10 standard deviations away


def test_partners_are_of_their_split_and_every_one_is_drawn(generator: torch.Generator) -> None:
    data = pairs(secondary_size=40)
    rows = data.secondary_rows("train")
    assert len(rows) == 40
    held = {tuple(x.flatten().tolist()) for x in data.secondary_batch(rows)["x"]}
    seen = {tuple(y.flatten().tolist()) for y in data.sample(4000, generator, "train", 0)["y"]}
    assert seen == held  # 4,000 draws miss one of a class's few with a probability below 1e-20


def test_the_secondary_is_not_made_of_what_the_primary_is_made_of() -> None:
    data = pairs()
    assert not set(data.primary.which.tolist()) & set(data.secondary.which[data.secondary_rows("train")].tolist())


def test_labels_are_drawn_with_the_runs_seed() -> None:
    data = pairs(labels_per_class=7, val_per_class=2)
    first, again, other = data.labelled(1), data.labelled(1), data.labelled(2)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.bincount(data.batch(first)["label"]).tolist() == [5] * 10
    assert torch.bincount(data.batch(data.rows("validation"))["label"]).tolist() == [2] * 10
    assert not set(data.rows("validation").tolist()) & (
        set(first.tolist()) | set(other.tolist()) | set(data.rows("test").tolist())
    )
    assert data.bucket(10, 1) == 1
    assert pairs(draw=5).bucket(10, 1) == 5
    only = data.sample(400, torch.Generator().manual_seed(0), "train", 1)["x"]
    held = {tuple(x.flatten().tolist()) for x in data.batch(first)["x"]}
    assert {tuple(x.flatten().tolist()) for x in only} <= held


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"labels_per_class": 101}, r"--labels-per-class 101: class '0' of 'styled-digits' has only 100"),
        ({"labels_per_class": 0}, "labels-per-class"),
        ({"labels_per_class": 5, "val_per_class": 5}, "leaves nothing"),
        ({"primary": "svhn"}, r"train_32x32\.mat.*--primary styled-digits"),
        ({"secondary": "mnist"}, r"train-images-idx3-ubyte.*--secondary digits28"),
        ({"primary": "digits28", "difficulty": "easy"}, "difficulty"),
        ({"primary": "vector-clips"}, "with classes are needed"),
        ({"primary": "class-pairs"}, "two data sets itself"),
        ({"primary": "nothing-of-the-kind"}, "nothing-of-the-kind"),
    ],
)
def test_what_does_not_fit(options: dict, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISTK_DATA", raising=False)
    with pytest.raises(UsageError, match=said):
        pairs(**options)


def svhn_file(folder: Path, per_class: int, without: int | None = None) -> None:
    labels = np.array([c for c in range(10) for _ in range(per_class) if c != without], np.uint8)
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3, len(labels)), dtype=np.uint8)
    for name in ("train_32x32.mat", "test_32x32.mat"):
        io.savemat(folder / name, {"X": pixels, "y": np.where(labels == 0, 10, labels)[:, None].astype(np.uint8)})


def test_files_of_both_in_one_folder_and_a_missing_class(tmp_path: Path) -> None:
    (tmp_path / "svhn").mkdir()
    svhn_file(tmp_path / "svhn", 12, without=0)
    data = open_dataset("class-pairs", {**SMALL, "primary": "svhn", "labels_per_class": 9}, folder=tmp_path)
    assert data.spec.extra["primary_classes"] == list("123456789")
    assert data.spec.extra["secondary_classes"] == list("0123456789")
    assert len(data.labelled(0)) == 81


def test_resize_is_asked_for(generator: torch.Generator) -> None:
    options = {"primary": "digits", "secondary": "digits28", "labels_per_class": 20}
    data = pairs(**options)
    assert data.spec.shape == (1, 32, 32)
    data = pairs(**options, resize=True)
    x = data.sample(8, generator, "train", 0)["x"]
    assert data.spec.shape == x.shape[1:] == (3, 32, 32)
    small = data.primary.batch(data.rows("test")[:4])["x"]
    assert torch.allclose(data.batch(data.rows("test")[:4])["x"], small.expand(-1, 3, -1, -1))
    turned = pairs(primary="styled-digits", secondary="styled-digits", resize=True, secondary_size=0)
    y = turned.secondary_batch(torch.arange(4))["x"]
    grey = turned.secondary.batch(torch.arange(4))["x"].mean(1, keepdim=True)
    assert torch.allclose(y, F.interpolate(grey, size=28, mode="bilinear", antialias=True), atol=1e-5)
