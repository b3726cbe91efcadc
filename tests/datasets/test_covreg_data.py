"""dimred, xor, deadleaves and the binary version of CIFAR-10."""

from __future__ import annotations

import gzip
import io
import shutil
import tarfile

import numpy as np
import pytest
import torch

from distk import DistkError, UsageError, open_dataset
from distk.device import no_host_reads
from distk.plugins.datasets import cifar10
from distk.plugins.datasets.deadleaves import normal, uniforms
from distk.testing import NoHostReads, check_dataset


@pytest.mark.parametrize("name", ["dimred", "xor", "deadleaves", "cifar10"])
def test_they_conform(name, monkeypatch) -> None:
    monkeypatch.delenv("DISTK_DATA", raising=False)
    check_dataset(name)


def test_dimred_lies_in_a_subspace_of_independent_factors(seed) -> None:
    data = open_dataset("dimred", {"items": 20_000, "projection": seed})
    batch = data.batch(torch.arange(len(data)))
    assert torch.allclose(batch["x"], batch["z"] @ data.omega.T)
    assert int(torch.linalg.matrix_rank(batch["x"][:100].double(), rtol=1e-5)) == 4
    sd = batch["z"].std(0)
    assert bool(((sd > 0.48) & (sd < 2.05)).all())
    off = torch.corrcoef(batch["z"].T) - torch.eye(4)
    assert float(off.abs().max()) < 6 / 30_000**0.5
    assert len(data.rows("train")) == 20_000
    assert len(data.rows("test")) == 10_000
    other = open_dataset("dimred", {"items": 20_000, "projection": seed + 1})
    assert not torch.equal(other.omega, data.omega)
    with pytest.raises(UsageError, match="11 factors cannot fit into 10 dimensions"):
        open_dataset("dimred", {"factors": 11})


def test_xor_is_exclusive_or() -> None:
    batch = open_dataset("xor").batch(torch.arange(4))
    for (a, b), label in zip(batch["x"].tolist(), batch["label"].tolist(), strict=True):
        assert label == int(a) ^ int(b)


def test_hashed_numbers_are_uniform_and_independent() -> None:
    """The rows are fixed, and so the outcome is."""
    found = uniforms(torch.arange(2000), 50).double()
    assert float(found.min()) > 0
    assert float(found.max()) < 1
    counts = torch.histc(found, 20, 0, 1)
    chi2 = float(((counts - 5000) ** 2 / 5000).sum())
    assert chi2 < 43.8  # the 0.1 % point of 19 degrees of freedom
    flat = found.flatten()
    for lag in (1, 50, 51):  # neighbours in a row, and in a column
        assert abs(float(torch.corrcoef(torch.stack([flat[:-lag], flat[lag:]]))[0, 1])) < 4 / 100_000**0.5
    drawn = normal(uniforms(torch.arange(2000), 50)).double()
    assert drawn.shape == (2000, 25)
    assert abs(float(drawn.mean())) < 4 / 50_000**0.5
    assert float(drawn.std()) == pytest.approx(1, abs=0.02)


def test_splitmix_is_the_published_generator() -> None:
    """Outputs of SplitMix64 from the seed 0 (Steele, Lea & Flood 2014): the first numbers of row 0, 23 bits each."""
    published = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    expected = [((z >> 41) + 0.5) / 2**23 for z in published]
    assert uniforms(torch.tensor([0]), 3)[0].tolist() == pytest.approx(expected, abs=1e-7)


def test_dead_leaves_do_not_depend_on_their_batch_and_look_natural() -> None:
    data = open_dataset("deadleaves", {"train": 400, "test": 100})
    x = data.batch(torch.arange(200))["x"]
    assert torch.equal(data.batch(torch.tensor([7, 199]))["x"], x[[7, 199]])
    assert not torch.equal(x[0], x[1])
    with no_host_reads(), NoHostReads():
        anew = data.batch(torch.arange(3))["x"]
    assert torch.equal(anew, x[:3]), "drawn anew as it was remembered"
    centred = x - x.mean((0, 2, 3), keepdim=True)
    near, far = (float((centred[..., k:] * centred[..., :-k]).mean() / centred.square().mean()) for k in (1, 8))
    # Neighbouring pixels are nearly equal, distant ones are not; measured 0.91 and 0.50 (the images are fixed).
    assert near > 0.88
    assert 0.35 < far < 0.65
    # Colours are mostly grey: red and blue go together; measured 0.93.
    pairs = torch.corrcoef(torch.stack([x[:, 0].flatten(), x[:, 2].flatten()]))
    assert float(pairs[0, 1]) > 0.8
    larger = open_dataset("deadleaves", {"size": 64}).batch(torch.arange(2))["x"]
    smaller = torch.nn.functional.avg_pool2d(larger, 2)
    assert float((smaller - x[:2]).abs().mean()) < 0.05, "the same picture at twice the size"


# CIFAR-10


def records(n: int, seed: int = 0) -> np.ndarray:
    """`n` records as in the files: a label, then 3,072 values."""
    draw = np.random.default_rng(seed)
    return np.concatenate([draw.integers(0, 10, (n, 1)), draw.integers(0, 256, (n, 3072))], 1).astype(np.uint8)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of small batches, one gzipped; `folder.written` holds what was written."""
    monkeypatch.delenv("DISTK_DATA", raising=False)
    inner = tmp_path / "cifar-10-batches-bin"
    inner.mkdir()
    for i, n in ((1, 5), (2, 3)):
        (inner / f"data_batch_{i}.bin").write_bytes(records(n, i).tobytes())
    (inner / "test_batch.bin.gz").write_bytes(gzip.compress(records(4, 9).tobytes()))
    return tmp_path


def test_cifar_is_read_as_it_is_written(folder) -> None:
    for where in (folder, folder / "cifar-10-batches-bin"):
        data = open_dataset("cifar10", folder=where)
        written = np.concatenate([records(5, 1), records(3, 2), records(4, 9)])
        batch = data.batch(torch.arange(12))
        assert batch["label"].tolist() == written[:, 0].tolist()
        assert np.array_equal((batch["x"] * 255).round().numpy(), written[:, 1:].reshape(12, 3, 32, 32))
        assert (len(data.rows("train")), len(data.rows("test"))) == (8, 4)
        assert "12 images read from" in data.origin
        assert data.origin.endswith("a part of the data set")


def test_the_archive_is_read_where_it_lies(folder, tmp_path) -> None:
    path = tmp_path / "archive" / cifar10.FORM.archive
    path.parent.mkdir()
    with tarfile.open(path, "w:gz") as archive:
        for name, content in (
            ("../../outside.txt", b"no"),
            ("cifar-10-batches-bin/data_batch_2.bin", records(3, 2).tobytes()),
            ("cifar-10-batches-bin/data_batch_1.bin", records(5, 1).tobytes()),
            ("cifar-10-batches-bin/test_batch.bin", records(4, 9).tobytes()),
        ):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    there, here = open_dataset("cifar10", folder=path.parent), open_dataset("cifar10", folder=folder)
    rows = torch.arange(12)
    assert torch.equal(there.batch(rows)["x"], here.batch(rows)["x"])
    assert torch.equal(there.batch(rows)["label"], here.batch(rows)["label"])
    assert not (tmp_path.parent / "outside.txt").exists()
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DistkError, match="cannot read"):
        open_dataset("cifar10", folder=path.parent)
    with tarfile.open(path, "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("readme.txt"))
    with pytest.raises(DistkError, match=r"holds no data_batch_1\.bin"):
        open_dataset("cifar10", folder=path.parent)


def test_files_of_a_wrong_size_are_named(folder) -> None:
    inner = folder / "cifar-10-batches-bin"
    with (inner / "data_batch_3.bin").open("wb") as file:
        file.truncate(30_000_000)
    with pytest.raises(DistkError, match=r"data_batch_3.bin has 30,000,000 bytes, expected 30,730,000"):
        open_dataset("cifar10", folder=folder)
    with (inner / "data_batch_3.bin").open("wb") as file:
        file.truncate(cifar10.FORM.most + cifar10.FORM.record)
    with pytest.raises(DistkError, match=r"has 30,733,073 bytes, expected 30,730,000"):
        open_dataset("cifar10", folder=folder)
    (inner / "data_batch_3.bin").write_bytes(b"")
    with pytest.raises(DistkError, match=r"data_batch_3.bin has 0 bytes"):
        open_dataset("cifar10", folder=folder)
    (inner / "data_batch_3.bin").unlink()
    (inner / "data_batch_3.bin.gz").write_bytes(gzip.compress(bytes(cifar10.FORM.most + 5000)))
    with pytest.raises(DistkError, match=r"data_batch_3.bin has more than 30,730,000 bytes"):
        open_dataset("cifar10", folder=folder)
    (inner / "data_batch_3.bin.gz").write_bytes(gzip.compress(records(3).tobytes())[:-20])
    with pytest.raises(DistkError, match="cannot read"):
        open_dataset("cifar10", folder=folder)


def test_other_faults_of_cifar(folder) -> None:
    inner = folder / "cifar-10-batches-bin"
    bad = records(2)
    bad[1, 0] = 10
    (inner / "data_batch_4.bin").write_bytes(bad.tobytes())
    with pytest.raises(DistkError, match="has the label 10; CIFAR-10 has 0 to 9"):
        open_dataset("cifar10", folder=folder)
    for path in inner.glob("data_batch_*"):
        path.unlink()
    with pytest.raises(DistkError, match=r"holds test_batch.bin only"):
        open_dataset("cifar10", folder=folder)
    shutil.rmtree(inner)
    with pytest.raises(UsageError, match="found none of"):
        open_dataset("cifar10", folder=folder)
    (folder / "cifar-10-python.tar.gz").touch()
    with pytest.raises(UsageError, match=r"distk does not read pickles; use cifar-10-binary.tar.gz"):
        open_dataset("cifar10", folder=folder)
    with pytest.raises(UsageError, match="does not read pickles"):
        open_dataset("cifar10", folder=folder / "cifar-10-python.tar.gz")


def test_without_files_dead_leaves_stand_in(monkeypatch, capsys) -> None:
    monkeypatch.delenv("DISTK_DATA", raising=False)
    data = open_dataset("cifar10")
    assert "stand-in deadleaves" in data.origin
    rows = torch.tensor([3, 50_001])
    assert torch.equal(data.batch(rows)["x"], open_dataset("deadleaves").batch(rows)["x"])


def test_real_images(real) -> None:
    """The first labels of the official first batch."""
    path = real("cifar10/cifar-10-batches-bin/data_batch_1.bin.gz")
    data = open_dataset("cifar10", folder=path.parent)
    assert data.batch(torch.arange(10))["label"].tolist() == [6, 9, 9, 4, 1, 1, 2, 7, 8, 3]
    x = data.batch(torch.arange(500))["x"]
    near = (x[..., 1:] - x[..., :-1]).abs().mean()
    assert float(near) < 0.06, "neighbouring pixels are alike, so that rows and channels are read in their order"
