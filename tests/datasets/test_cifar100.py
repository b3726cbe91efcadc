"""cifar100 from files of the published form, which the test writes; the pickled form is refused."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from distk import DistkError, UsageError
from distk.data import open_dataset
from distk.plugins.datasets import cifar10, cifar100
from distk.testing import check_dataset


def test_the_published_numbers() -> None:
    assert cifar100.FORM.record == 3074
    assert (len(cifar100.CLASSES), len(cifar100.GROUPS)) == (100, 20)
    assert cifar100.CLASSES[0] == "apple"
    assert cifar100.CLASSES[99] == "worm"
    assert (cifar100.GROUPS[0], cifar100.GROUPS[19]) == ("aquatic_mammals", "vehicles_2")
    for names in (cifar100.CLASSES, cifar100.GROUPS):
        assert list(names) == sorted(set(names))


def records(n: int, draw: np.random.Generator) -> np.ndarray:
    found = draw.integers(0, 256, (n, 3074), dtype=np.uint8)
    found[:, 0], found[:, 1] = draw.integers(0, 20, n), draw.integers(0, 100, n)
    return found


@pytest.fixture
def made(tmp_path: Path, seed: int) -> tuple[Path, np.ndarray]:
    draw = np.random.default_rng(seed)
    folder = tmp_path / "cifar-100-binary"
    folder.mkdir()
    train, test = records(7, draw), records(4, draw)
    (folder / "train.bin").write_bytes(train.tobytes())
    (folder / "test.bin.gz").write_bytes(gzip.compress(test.tobytes()))
    return tmp_path, np.concatenate([train, test])


def test_it_is_read_as_it_is_written(made: tuple[Path, np.ndarray]) -> None:
    folder, written = made
    packed = folder / "packed" / cifar100.FORM.archive
    packed.parent.mkdir()
    with tarfile.open(packed, "w:gz") as archive:
        for name, part in (("test.bin", written[7:]), ("train.bin", written[:7])):
            member = tarfile.TarInfo(f"cifar-100-binary/{name}")
            member.size = part.nbytes
            archive.addfile(member, io.BytesIO(part.tobytes()))
    for where in (folder, folder / "cifar-100-binary", packed.parent, packed):
        for at, wanted in enumerate(("coarse", "fine")):
            data = open_dataset("cifar100", {"labels": wanted}, folder=where)
            batch = data.batch(torch.arange(11))
            assert batch["label"].tolist() == written[:, at].tolist()
            assert np.array_equal((batch["x"] * 255).round().numpy(), written[:, 2:].reshape(11, 3, 32, 32))
            assert (len(data.rows("train")), len(data.rows("test"))) == (7, 4)
            assert len(data.spec.classes) == (20, 100)[at]
    check_dataset("cifar100", folder)


def test_faults(made: tuple[Path, np.ndarray]) -> None:
    folder, written = made
    path = folder / "cifar-100-binary" / "train.bin"
    for at, value, said in ((0, 20, "0 to 19"), (1, 100, "0 to 99")):
        bad = written[:7].copy()
        bad[3, at] = value
        path.write_bytes(bad.tobytes())
        with pytest.raises(DistkError, match=f"has the label {value}; CIFAR-100 has {said}"):
            open_dataset("cifar100", folder=folder)
    path.write_bytes(written[:7].tobytes()[:-1])
    with pytest.raises(DistkError, match=r"train.bin has 21,517 bytes"):
        open_dataset("cifar100", folder=folder)
    path.unlink()
    with pytest.raises(DistkError, match=r"holds test.bin only; CIFAR-100 needs train.bin"):
        open_dataset("cifar100", folder=folder)
    with pytest.raises(UsageError, match="--data-dir FOLDER"):
        open_dataset("cifar100")


@pytest.mark.parametrize(("name", "form"), [("cifar10", cifar10.FORM), ("cifar100", cifar100.FORM)])
def test_pickles_are_refused_with_what_to_do(name: str, form, tmp_path: Path) -> None:
    stem = form.archive.removesuffix("-binary.tar.gz")
    archive, folder = tmp_path / f"{stem}-python.tar.gz", tmp_path / ("x" if name == "cifar10" else f"{stem}-python")
    archive.touch()
    folder.mkdir()
    for file in ("data_batch_1", "train", "meta"):
        (folder / file).write_bytes(b"\x80\x02cos\nsystem\n.")
    for place in (tmp_path, archive, folder):
        with pytest.raises(UsageError, match=rf"does not read pickles; use {form.archive}.*npz.*--data arrays"):
            open_dataset(name, folder=place)
