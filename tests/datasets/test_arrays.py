"""Items of one file of arrays."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from distk import DistkError, FactorDataset, UsageError
from distk.arrays import Npz
from distk.data import open_dataset
from distk.device import seeded
from distk.evaluation import evaluate

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
        ({"a": IMAGES, "b": IMAGES}, "holds a and b: name the items"),
        ({"a": np.arange(60)}, "no array 'images' but a"),
        ({"images": IMAGES.astype(np.int64) * 2}, "whose range nobody states"),
        ({"images": np.zeros((60, 8, 8, 5), np.uint8)}, "1 to 4 channels"),
        ({"images": np.zeros((60, 1, 5000), np.uint8)}, "at most 4096 pixels"),
        ({"images": IMAGES / 51}, "floats must lie from 0 to 1"),
        ({"images": np.where(np.arange(60) == 7, np.nan, 0.5)[:, None, None] * np.ones((60, 8, 8))}, "in row 7"),
        ({"vectors": np.where(np.arange(60) == 8, np.inf, 0.5)[:, None] * np.ones((60, 3))}, "in row 8"),
        ({"vectors": np.full((60, 3), 1e300)}, "32 bits cannot hold"),
        ({"images": IMAGES[:0]}, "expected numbers"),
        ({"images": IMAGES, "vectors": TRUTH}, "holds images and vectors: name the items"),
        ({"images": IMAGES, "factors": TRUTH[:50]}, "expected numbers for 60 items"),
        ({"images": IMAGES, "labels": np.arange(60), "classes": np.array(["a"])}, "must hold 60 words"),
        ({"images": IMAGES, "factors": TRUTH * np.nan}, "not finite"),
        ({"images": IMAGES, "factors": TRUTH, "factor_names": np.array(["a"])}, "must hold 2 words"),
        ({"images": IMAGES, "factors": TRUTH, "factor_names": np.array(["a", "a"])}, "two factors of one name"),
        ({"images": IMAGES, "factors": TRUTH, "factor_kinds": np.array(["big", "small"])}, "the kind 'big'"),
        ({"images": IMAGES, "label": TRUTH[:, 1]}, "a whole number from 0"),
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
    for name, match in (("a.npz", "is not a valid npz file"), ("b.npy", "is not a valid npy file")):
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
        with pytest.raises(DistkError, match=r"cannot be|is not a valid np[yz] file"):
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


# Numbers of every kind

EVERYTHING = torch.arange(60)


@pytest.mark.parametrize("form", ["npy", "npz", "h5"])
@pytest.mark.parametrize("where", ["device", "host"])
def test_16_bits_are_kept(tmp_path: Path, form: str, where: Any, generator: torch.Generator) -> None:
    deep = torch.randint(65536, (60, 8, 8, 3), generator=generator).numpy().astype(np.uint16)
    deep[0, 0, 0] = 0, 65535, 32768
    data = open_dataset("arrays", folder=written(tmp_path, form, images=deep), where=where)
    expected = torch.from_numpy(deep.astype(np.int32)).permute(0, 3, 1, 2) / 65535
    assert torch.equal(data.batch(EVERYTHING)["x"], expected)
    assert any("16 bits" in sentence for sentence in data.told)


@pytest.mark.parametrize(
    ("kept", "images", "said"),
    [
        (IMAGES, IMAGES.astype(np.float32), "taken for 0 to 255"),
        (IMAGES, IMAGES.astype(np.int64), "whole numbers from 0 to 255 as int64"),
        (IMAGES, (IMAGES / 127.5 - 1).astype(np.float32), "from -1 to 1"),
        (IMAGES, IMAGES.astype(np.float64) / 255, "floats from 0 to 1"),
        (IMAGES, np.clip(IMAGES + 0.25, 0, 255), "taken for 0 to 255 and rounded"),
        ((IMAGES > 99) * 255, IMAGES > 99, "yes and no"),
        ((IMAGES > 99) * 255, (IMAGES > 99).astype(np.int32), "black and white"),
    ],
)
def test_numbers_are_told_apart_and_it_is_said(tmp_path: Path, kept: np.ndarray, images: np.ndarray, said: str) -> None:
    data = open_dataset("arrays", folder=written(tmp_path, "npz", images=images))
    expected = torch.from_numpy(np.ascontiguousarray(kept.astype(np.uint8).transpose(0, 3, 1, 2))) / 255
    assert torch.equal(data.batch(EVERYTHING)["x"], expected)
    assert any(said in sentence for sentence in data.told)


@pytest.mark.parametrize("channels", [2, 4])
@pytest.mark.parametrize("last", [True, False])
def test_two_and_four_channels_and_sides_apart(tmp_path: Path, channels: int, last: bool) -> None:
    images = np.arange(60 * channels * 6 * 9, dtype=np.uint32).astype(np.uint8).reshape(60, channels, 6, 9)
    held = np.ascontiguousarray(images.transpose(0, 2, 3, 1)) if last else images
    data = open_dataset("arrays", folder=written(tmp_path, "npz", images=held))
    assert data.spec.shape == (channels, 6, 9)
    assert torch.equal(data.batch(EVERYTHING)["x"], torch.from_numpy(images) / 255)


@pytest.mark.parametrize("form", ["npy", "npz", "h5"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16])
def test_vectors(tmp_path: Path, form: str, dtype: Any) -> None:
    values = np.linspace(-7, 5, 180).reshape(60, 3).astype(dtype)
    data = open_dataset("arrays", folder=written(tmp_path, form, **{"images" if form == "npy" else "vectors": values}))
    assert (data.spec.kind, data.spec.shape, data.spec.range) == ("vector", (3,), (-7.0, 5.0))
    assert torch.equal(data.batch(EVERYTHING)["x"], torch.from_numpy(values.astype(np.float32)))
    assert any("float32" in sentence for sentence in data.told) == (dtype == np.float64)


@pytest.mark.parametrize("layout", ["last", "first", "grey"])
def test_clips(tmp_path: Path, layout: str) -> None:
    clips = np.random.default_rng(1).integers(0, 256, (20, 5, 3, 6, 9), dtype=np.uint8)
    held = {"last": clips.transpose(0, 1, 3, 4, 2), "first": clips, "grey": clips[:, :, 0]}[layout]
    data = open_dataset("arrays", folder=written(tmp_path, "npz", clips=held, labels=np.arange(20) % 3))
    expected = clips[:, :, :1] if layout == "grey" else clips
    assert (data.spec.kind, data.spec.shape) == ("video", expected.shape[1:])
    assert torch.equal(data.batch(torch.arange(20))["x"], torch.from_numpy(expected) / 255)


def test_labels_and_factors_in_words(tmp_path: Path) -> None:
    kind = np.array(["dog", "cat", "emu"])[np.arange(60) % 3]
    factors = np.stack([kind, np.array(["up", "down"])[np.arange(60) % 2]], 1)
    data = open_dataset("arrays", folder=written(tmp_path, "npz", images=IMAGES, labels=kind, factors=factors))
    assert data.spec.classes == ("cat", "dog", "emu")
    assert data.batch(torch.arange(3))["label"].tolist() == [1, 0, 2]
    assert (data.factor_sizes, data.factor_kinds) == ((3, 2), ("categorical", "categorical"))
    assert data.factors(torch.arange(2)).tolist() == [[1, 1], [0, 0]]
    named = np.array(["ann", "bob"])
    data = open_dataset(
        "arrays", folder=written(tmp_path, "npz", images=IMAGES, label=np.arange(60) % 2, classes=named)
    )
    assert data.spec.classes == ("ann", "bob")


def test_what_is_not_read_is_said_and_any_name_will_do(tmp_path: Path) -> None:
    data = open_dataset("arrays", folder=written(tmp_path, "npz", x_train=IMAGES, weights=np.ones(60)))
    assert len(data) == 60
    assert data.told == (f"not read in '{tmp_path / 'data.npz'}': weights",)
    both = written(tmp_path, "npz", a=IMAGES, b=IMAGES[:30])
    assert len(open_dataset("arrays", {"images": "b"}, folder=both)) == 30


def test_a_folder_of_npy_files_holds_an_array_in_each(tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", IMAGES)
    np.save(tmp_path / "labels.npy", np.arange(60) % 4)
    data = open_dataset("arrays", folder=tmp_path)
    assert torch.equal(data.batch(EVERYTHING)["label"], EVERYTHING % 4)
    assert torch.equal(data.batch(EVERYTHING)["x"], torch.from_numpy(IMAGES.transpose(0, 3, 1, 2).copy()) / 255)


def test_a_model_of_vectors_reads_others_in_its_own_range(tmp_path: Path) -> None:
    import distk

    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    mine = written(tmp_path / "a", "npz", vectors=np.linspace(0, 1, 180).reshape(60, 3))
    other = written(tmp_path / "b", "npz", vectors=np.linspace(-1, 3, 180).reshape(60, 3))
    own = open_dataset("arrays", folder=mine)
    data = open_dataset("arrays", folder=other, model=own.spec)
    assert data.spec.range == own.spec.range == (0.0, 1.0)
    assert any("beyond the 0 to 1" in sentence for sentence in data.told)
    assert distk.DataSpec.from_dict(own.spec.to_dict()).range == (0.0, 1.0)
