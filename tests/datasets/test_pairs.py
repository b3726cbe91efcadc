"""Pairs that differ in a few factors, and images of one file."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from distk import DistkError, FactorDataset, UsageError
from distk.arrays import Npz
from distk.data import open_dataset
from distk.device import seeded
from distk.evaluation import evaluate


def drawn(seed: int, n: int = 4000, **options: Any) -> tuple[Any, dict[str, torch.Tensor]]:
    data = open_dataset("pairs", {"of": "blobs", **options})
    return data, data.sample(n, seeded(seed, data.device))


def test_partners_differ_in_k_factors_and_are_what_their_factors_say(seed: int) -> None:
    data = open_dataset("pairs", {"of": "dsprites", "k": 2})
    batch = data.sample(500, seeded(seed, data.device))
    differs = batch["factors"] != batch["factors2"]
    assert torch.equal(differs, batch["differs"])
    assert (differs.sum(1) == 2).all()
    assert torch.equal(batch["x2"], data.inner.observe(batch["factors2"]))
    assert torch.equal(batch["x"], data.inner.observe(batch["factors"]))
    counts = differs.sum(0).numpy()
    assert stats.chisquare(counts).pvalue > 1e-6, "every factor alike"
    # Any other value, all alike: orientation has 40.
    moved = batch["factors"][:, 2][differs[:, 2]] - batch["factors2"][:, 2][differs[:, 2]]
    assert len(moved.remainder(40).unique()) > 20


def test_the_number_may_be_drawn_and_steps_be_small(seed: int) -> None:
    data = open_dataset("pairs", {"of": "dsprites", "k": 0, "near": True})
    batch = data.sample(6000, seeded(seed, data.device))
    count = torch.bincount(batch["differs"].sum(1), minlength=6).numpy()
    assert count[0] == count[5] == 0
    assert stats.chisquare(count[1:5]).pvalue > 1e-6
    away = (batch["factors2"] - batch["factors"]).abs()
    sizes = torch.tensor(data.factor_sizes)
    circular = torch.tensor([kind == "circular" for kind in data.factor_kinds])
    around = torch.where(circular, torch.minimum(away, sizes - away), away)
    assert torch.equal(around, batch["differs"].long())
    # What turns goes both ways over its end; what does not goes back from it.
    for k, turns in enumerate(circular.tolist()):
        at_zero = (batch["factors"][:, k] == 0) & batch["differs"][:, k]
        reached = set(batch["factors2"][at_zero, k].tolist())
        assert reached == ({1, int(sizes[k]) - 1} if turns else {1})


def test_it_is_scored_as_what_it_is_made_of_and_refuses_what_is_no_grid() -> None:
    data, batch = drawn(0, k=1)
    assert isinstance(data, FactorDataset)
    assert data.is_grid
    assert batch["x2"].shape == batch["x"].shape
    with pytest.raises(UsageError, match="one must stay"):
        drawn(0, k=2)
    with pytest.raises(UsageError, match="every combination"):
        open_dataset("pairs", {"of": "digits"})
    with pytest.raises(UsageError, match="made of itself"):
        open_dataset("pairs", {"of": "pairs"})


# Images of one file

IMAGES = np.random.default_rng(0).integers(0, 256, (60, 8, 8, 3), dtype=np.uint8)
TRUTH = np.stack([np.arange(60) % 3, np.linspace(-1, 1, 60) ** 3], 1)


def written(folder: Path, form: str, **members: Any) -> Path:
    path = folder / f"data.{form}"
    if form == "npy":
        np.save(path, members["images"])
    elif form == "npz":
        np.savez_compressed(path, **members)
    else:
        h5py = pytest.importorskip("h5py")
        with h5py.File(path, "w") as file:
            for name, value in members.items():
                file[name] = value.tolist() if value.dtype.kind == "U" else value
    return path


@pytest.mark.parametrize("form", ["npy", "npz", "h5"])
@pytest.mark.parametrize("layout", ["last", "first", "grey"])
@pytest.mark.parametrize("where", ["device", "host"])
def test_every_form_gives_the_same_images(tmp_path: Path, form: str, layout: str, where: Any) -> None:
    images = {"last": IMAGES, "first": IMAGES.transpose(0, 3, 1, 2), "grey": IMAGES[..., 0]}[layout]
    data = open_dataset("arrays", folder=written(tmp_path, form, images=images), where=where)
    rows = torch.tensor([5, 59, 0])
    expected = IMAGES[[5, 59, 0]].transpose(0, 3, 1, 2)[:, : 1 if layout == "grey" else 3]
    assert torch.equal(data.batch(rows)["x"], torch.from_numpy(expected.copy()) / 255)
    assert data.spec.shape == (1 if layout == "grey" else 3, 8, 8)
    assert sorted(torch.cat([data.rows("train"), data.rows("test")]).tolist()) == list(range(60))
    assert data.pixels.on_host == (where == "host")


@pytest.mark.parametrize("form", ["npz", "h5"])
def test_factors_labels_and_splits_of_the_file(tmp_path: Path, form: str) -> None:
    members = {
        "images": IMAGES.astype(np.float32) / 255,
        "label": np.arange(60) % 4,
        "factors": TRUTH,
        "factor_names": np.array(["shape", "pose"]),
        "split": np.array(["train", "val", "test"])[np.arange(60) % 3],
    }
    data = open_dataset("arrays", folder=written(tmp_path, form, **members))
    assert isinstance(data, FactorDataset)
    assert torch.equal(data.batch(torch.arange(60))["x"], torch.from_numpy(IMAGES.transpose(0, 3, 1, 2).copy()) / 255)
    assert data.splits == ("train", "val", "test")
    assert data.rows("val").tolist() == list(range(1, 60, 3))
    assert (data.factor_names, data.factor_kinds) == (("shape", "pose"), ("ordinal", "continuous"))
    assert data.factor_sizes == (3, 60)
    assert torch.equal(data.truth(torch.arange(60)), torch.from_numpy(TRUTH))
    assert data.factors(torch.arange(60))[:, 1].tolist() == list(range(60)), "ranks of increasing values"
    assert data.batch(torch.tensor([5]))["label"].tolist() == [1]
    assert data.sample(3, seeded(0, data.device))["factors"].dtype == torch.int64


def test_real_factors_of_a_file_are_scored(tmp_path: Path) -> None:
    """A model whose code is one pixel, and images whose pixel is a real factor."""
    import distk

    draw = np.random.default_rng(1)
    truth = np.stack([draw.integers(0, 4, 2000), draw.random(2000)], 1)
    images = np.zeros((2000, 8, 8), np.uint8)
    images[:, 0, 0], images[:, 7, 7] = truth[:, 0] * 60, np.rint(truth[:, 1] * 255)
    path = written(tmp_path, "npz", images=images, factors=truth)
    data = open_dataset("arrays", folder=path)

    class Corners(distk.Method):
        Config = distk.NoConfig
        latents = distk.LatentSpace.of(distk.Latent("z", "continuous", 2))

        def encode(self, x: torch.Tensor) -> distk.Code:
            return {"z": torch.stack([x[:, 0, 0, 0], x[:, 0, 7, 7]], 1)}

    found = evaluate(Corners(distk.NoConfig(), data.spec), ["mig", "sap", "dci", "explicitness"], data=data)["metrics"]
    assert found["mig"]["mig"] > 0.9
    assert found["dci"]["disentanglement"] > 0.98
    assert found["sap"]["score_matrix"][1, 1] > 0.999
    assert "is continuous" in found["explicitness"]["reasons"]["factor 'f2'"]


@pytest.mark.parametrize(
    ("members", "match"),
    [
        ({"pictures": IMAGES}, "no array 'images' but pictures"),
        ({"images": IMAGES.astype(np.int64)}, "expected bytes"),
        ({"images": IMAGES[..., :2]}, "expected bytes"),
        ({"images": IMAGES.astype(np.float64)}, "floats must lie from 0 to 1"),
        ({"images": IMAGES[:0]}, "expected bytes"),
        ({"images": IMAGES, "factors": TRUTH[:50]}, "expected numbers for 60 images"),
        ({"images": IMAGES, "factors": TRUTH * np.nan}, "not finite"),
        ({"images": IMAGES, "factors": TRUTH, "factor_names": np.array(["a"])}, "must hold 2 words"),
        ({"images": IMAGES, "factors": TRUTH, "factor_names": np.array(["a", "a"])}, "two factors of one name"),
        ({"images": IMAGES, "factors": TRUTH, "factor_kinds": np.array(["big", "small"])}, "the kind 'big'"),
        ({"images": IMAGES, "label": TRUTH[:, 1]}, "whole number from 0"),
        ({"images": IMAGES, "split": np.array(["test"] * 60)}, "it needs 'train'"),
        ({"images": IMAGES, "split": np.arange(60)}, "must hold 60 words"),
        ({"images": np.array([{}], dtype=object)}, "is not read"),
    ],
)
def test_files_that_do_not_fit(tmp_path: Path, members: dict[str, Any], match: str) -> None:
    with pytest.raises((UsageError, DistkError), match=match):
        open_dataset("arrays", folder=written(tmp_path, "npz", **members))


def test_places_that_do_not_fit(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="needs a file"):
        open_dataset("arrays")
    with pytest.raises(UsageError, match="found none"):
        open_dataset("arrays", folder=tmp_path)
    for name in ("a.npz", "b.npy"):
        (tmp_path / name).write_bytes(b"nothing")
    with pytest.raises(UsageError, match=r"found a.npz, b.npy"):
        open_dataset("arrays", folder=tmp_path)
    for name, match in (("a.npz", "is not a valid npz file"), ("b.npy", "cannot be read")):
        with pytest.raises(DistkError, match=match):
            open_dataset("arrays", folder=tmp_path / name)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.npz")
    for place in (tmp_path, tmp_path / "a.npz"):
        with pytest.raises(UsageError, match="must be or hold one file"):
            open_dataset("arrays", folder=place)


def test_npz_files_that_claim_what_they_do_not_hold(tmp_path: Path) -> None:
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "|u1", "fortran_order": False, "shape": (1 << 22, 4096, 4096)})
    members = {"huge": head.getvalue() + bytes(100), "no_array": b"hello"}
    for name, content in members.items():
        with zipfile.ZipFile(tmp_path / f"{name}.npz", "w") as archive:
            archive.writestr("images.npy", content)
    np.save(tmp_path / "a.npy", IMAGES)
    (tmp_path / "a.npy").rename(tmp_path / "alone.npz")
    np.savez(tmp_path / "packed.npz", images=IMAGES)
    (tmp_path / "packed.npz").rename(tmp_path / "packed.npy")
    for name in ("huge.npz", "no_array.npz", "alone.npz", "packed.npy"):
        with pytest.raises(DistkError, match=r"cannot be|is not a valid npz file"):
            open_dataset("arrays", folder=tmp_path / name)


def test_hdf5_reads_no_other_file(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    (tmp_path / "secret").write_bytes(bytes(60 * 64))
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["images"] = IMAGES
    with h5py.File(tmp_path / "raw.h5", "w") as file:
        file.create_dataset("images", (60, 8, 8), "u1", external=[(str(tmp_path / "secret"), 0, 60 * 64)])
    with h5py.File(tmp_path / "linked.h5", "w") as file:
        file["images"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "images")
    with h5py.File(tmp_path / "huge.h5", "w") as file:
        file.create_dataset("images", (1 << 30, 64, 64), "u1", chunks=(1, 64, 64))
    with h5py.File(tmp_path / "group.h5", "w") as file:
        file.create_group("images")
    for name, match in (
        ("raw", "another file"),
        ("linked", "another file"),
        ("huge", "cannot be"),
        ("group", "no arr"),
    ):
        with pytest.raises(DistkError, match=match):
            open_dataset("arrays", folder=tmp_path / f"{name}.h5")


def test_packed_images_are_unpacked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTK_CACHE", str(tmp_path / "cache"))
    read: list[str] = []
    for way in ("parts", "read"):
        inner = getattr(Npz, way)
        monkeypatch.setattr(
            Npz, way, lambda self, name, *most, inner=inner: read.append(name) or inner(self, name, *most)
        )
    for images in (IMAGES, np.asfortranarray(IMAGES)):
        path = written(tmp_path, "npz", images=images, label=np.arange(60) % 4)
        read.clear()
        for _ in range(2):
            data = open_dataset("arrays", folder=path)
            assert torch.equal(data.pixels.items, torch.from_numpy(IMAGES))
        assert read.count("images") == 1
