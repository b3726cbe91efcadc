"""The dSprites renderer against real frames and against geometry, and the loader of the official file."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest
import torch

from distk import DistkError, UsageError, open_dataset
from distk.plugins.datasets.dsprites import NPZ, pack, read_packed, unpack

UPRIGHT = {"orientations": 1}


def test_against_the_real_frames(real) -> None:
    """At most 0.5 differing pixels per image on average and 6 in any (specification); measured: 48 in 258 images."""
    with np.load(real("dsprites/dsprites_real_frames_258.npz"), allow_pickle=False) as file:
        images, classes = torch.from_numpy(file["imgs"]), torch.from_numpy(file["latents_classes"])
    data = open_dataset("dsprites")
    wrong = (data.observe(classes[:, 1:])[:, 0] != images).flatten(1).sum(1)
    assert float(wrong.float().mean()) <= 0.5
    assert int(wrong.max()) <= 6
    shape = classes[:, 1]
    assert int(wrong[shape == 0].sum()) == 0, "squares are exact"


def test_areas_and_symmetries() -> None:
    data = open_dataset("dsprites", {"orientations": 5})  # 0, 90, 180, 270, 360 degrees
    shapes = torch.arange(3)
    centre = torch.full((3,), 0)  # position 0 is (16, 16), the corner of four pixels

    def at(turn: int) -> torch.Tensor:
        x = data.observe(torch.stack([shapes, torch.full((3,), 5), torch.full((3,), turn), centre, centre], 1))
        return x[:, 0]

    upright = at(0)
    assert upright.sum((1, 2)).tolist() == pytest.approx([400, 289, 224], abs=3)
    assert (upright != at(4)).sum((1, 2)).max() <= 1, "a full turn is the same image"
    for turn in (1, 2, 3):
        assert (upright[0] != at(turn)[0]).sum() <= 1, "a square repeats after a quarter turn"
    # The sprite's axis lies at x = 16 + 32 * 16 / 31, so the heart mirrors about it only if drawn at the middle.
    middle = open_dataset("dsprites", {"positions": 3, **UPRIGHT}).observe([[2, 5, 0, 1, 1]])[0, 0]
    assert torch.equal(middle, middle.flip(1))
    assert not torch.equal(middle, middle.flip(0))
    assert int(middle[:32].sum()) != int(middle[32:].sum())


def test_against_a_slow_float64_renderer(generator) -> None:
    """Pixel by pixel in float64 with arc tangents, written independently of the device code."""
    data = open_dataset("dsprites")
    factors = data.sample_factors(60, generator)
    made = data.observe(factors)[:, 0].numpy()
    t = np.linspace(0, np.pi, 100_001)
    hx, hy = (
        9.6016 * np.sin(t) ** 3,
        -0.6623 * (13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)) - 1.442,
    )
    angle, radius = np.arctan2(hx, hy), np.hypot(hx, hy)
    order = np.argsort(angle)
    rows, columns = np.mgrid[0:64, 0:64] + 0.5
    for image, (shape, scale, turn, px, py) in zip(made, factors.tolist(), strict=True):
        s, o = 0.5 + 0.1 * scale, 2 * np.pi * turn / 39
        dx, dy = columns - 16 - 32 * px / 31, rows - 16 - 32 * py / 31
        u, v = (dx * np.cos(o) - dy * np.sin(o)) / s, (dx * np.sin(o) + dy * np.cos(o)) / s
        inside = [
            np.maximum(abs(u), abs(v)) <= 9.598,
            (u / 12.765) ** 2 + (v / 7.215) ** 2 <= 1,
            np.hypot(u, v) <= np.interp(np.arctan2(abs(u), v), angle[order], radius[order]),
        ][shape]
        assert (inside != image.astype(bool)).sum() <= 1


def test_prerendered_equals_rendered(generator) -> None:
    data = open_dataset("dsprites", {"size": 32, "scales": (5,), "orientations": 4, "positions": 5})
    assert data.packed is not None
    rows = torch.randperm(len(data), generator=generator)[:50]
    assert torch.equal(data.batch(rows)["x"], data._render(rows))


def test_pack_and_unpack(generator) -> None:
    images = (torch.rand(5, 1, 8, 16, generator=generator) > 0.5).float()
    assert torch.equal(unpack(pack(images), 128).float(), images.flatten(1))
    assert np.array_equal(pack(images).numpy(), np.packbits(images.flatten(1).numpy().astype(np.uint8), axis=1))


def test_factor_settings_are_checked() -> None:
    with pytest.raises(UsageError, match="'scales': 6 is above"):
        open_dataset("dsprites", {"scales": (6,)})
    with pytest.raises(UsageError, match="each once"):
        open_dataset("dsprites", {"scales": (1, 1)})
    with pytest.raises(UsageError, match="'size': '48' is none of 64, 32"):
        open_dataset("dsprites", {"size": 48})
    with pytest.raises(UsageError, match=r"shape 0\.\.2"):
        open_dataset("dsprites", {"size": 32, **UPRIGHT}).observe(torch.tensor([[3, 0, 0, 0, 0]]))


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"other": np.zeros(3)}, "found the members other.npy"),
        ({"imgs": np.zeros((10, 64, 64), np.uint8)}, r"found uint8 \(10, 64, 64\)"),
        ({"imgs": np.zeros((10, 64, 64), np.float32)}, "found float32"),
    ],
)
def test_other_npz_files_are_refused(tmp_path, members, message) -> None:
    np.savez(tmp_path / NPZ, **members)
    with pytest.raises(DistkError, match=message):
        open_dataset("dsprites", folder=tmp_path)


def test_damaged_archives_are_refused(tmp_path) -> None:
    (tmp_path / NPZ).write_bytes(b"PK\x03\x04 nonsense")
    with pytest.raises(DistkError, match="not a valid npz"):
        open_dataset("dsprites", folder=tmp_path)
    # A header that promises all images, with only a few behind it.
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "|u1", "fortran_order": False, "shape": (737280, 64, 64)})
    with zipfile.ZipFile(tmp_path / NPZ, "w") as archive:
        archive.writestr("imgs.npy", buffer.getvalue() + bytes(4096 * 5))
    with pytest.raises(DistkError, match="ends after 0 of 737,280"):
        open_dataset("dsprites", folder=tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="found none of"):
        open_dataset("dsprites", folder=tmp_path / "empty")


def test_export_is_the_official_layout(tmp_path) -> None:
    data = open_dataset("dsprites", {"scales": (5,), "orientations": 1, "positions": 4})
    data.export(tmp_path / "out.npz")
    with np.load(tmp_path / "out.npz", allow_pickle=False) as file:
        images, classes, values = file["imgs"], file["latents_classes"], file["latents_values"]
    assert images.dtype == np.uint8
    assert images.shape == (48, 64, 64)
    assert classes.dtype == np.int64
    assert np.array_equal(classes[:, 1:], data.grid().numpy())
    assert values.dtype == np.float64
    assert set(values[:, 1]) == {1, 2, 3}
    assert np.array_equal(images, data.batch(torch.arange(48))["x"][:, 0].numpy())


@pytest.mark.slow
def test_the_whole_official_file(real) -> None:
    """737,280 images of the re-rendered archive: read without its pickled member, compared with ours."""
    path = real(f"dsprites/rerendered/{NPZ}")
    data = open_dataset("dsprites", {"scales": (0, 5)}, folder=path.parent)
    assert len(data) == 737280 // 3
    assert "read from" in data.origin
    ours = open_dataset("dsprites", {"scales": (0, 5)})
    rows = torch.randint(len(data), (2000,), generator=torch.Generator().manual_seed(0))
    assert (data.batch(rows)["x"] != ours.batch(rows)["x"]).flatten(1).sum(1).max() <= 6
    with np.load(path, allow_pickle=False) as file:
        picked = file["imgs"][[0, 12345, 737279]]
    assert np.array_equal(unpack(read_packed(path)[[0, 12345, 737279]], 4096).view(3, 64, 64).numpy(), picked)


def test_held_out_images_are_not_trained_on() -> None:
    options = {"size": 32, "scales": (5,), "orientations": 1, "positions": 8}
    data = open_dataset("dsprites", {**options, "holdout": 0.25}, device="cpu")
    train, test = data.rows("train"), data.rows("test")
    assert sorted([*train.tolist(), *test.tolist()]) == list(range(192))
    assert len(test) == 48
    drawn = data.sample_rows(2000, torch.Generator().manual_seed(0), "train")
    assert set(drawn.tolist()) == set(train.tolist())
    assert data.rows("all") is None
    with pytest.raises(UsageError, match="holdout"):
        open_dataset("dsprites", {**options, "holdout": 1.0}, device="cpu")


def test_the_label_is_the_shape(generator: torch.Generator) -> None:
    data = open_dataset("dsprites", device=torch.device("cpu"))
    batch = data.batch(torch.randint(len(data), (64,), generator=generator))
    assert torch.equal(batch["label"], batch["factors"][:, data.factor_names.index("shape")])
    assert len(set(batch["label"].tolist())) > 1
