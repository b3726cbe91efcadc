"""Shards in HDF5: the same grasps as from npz, and what of such files is refused."""

import sys

import numpy as np
import pytest
import torch

from distk.data import open_dataset
from distk.errors import DistkError, UsageError
from distk.plugins.rl_control.grasping import shards
from distk.plugins.rl_control.grasping.data import Config, made

h5py = pytest.importorskip("h5py", reason="h5py is not installed: pip install 'distk[hdf5]'")


@pytest.fixture(scope="module")
def recorded(tiny):
    return made(Config(**tiny), torch.device("cpu"))


@pytest.fixture
def folder(recorded, tmp_path):
    """The tiny grasps as files, three scenes a shard, the first two of them HDF5, the second compressed."""
    shards.write(tmp_path / "grasps", recorded, per_shard=3)
    for number, packed in ((0, None), (1, "gzip")):
        path = tmp_path / "grasps" / f"shard-{number:05d}.npz"
        with np.load(path) as held, h5py.File(path.with_suffix(".h5"), "w") as file:
            for name in held.files:
                file.create_dataset(name, data=held[name], compression=packed)
        path.unlink()
    return tmp_path / "grasps"


def test_they_hold_the_same(recorded, folder):
    assert sorted(p.name for p in folder.glob("shard*")) == ["shard-00000.h5", "shard-00001.h5", "shard-00002.npz"]
    back = shards.read(folder / "meta.json")
    for mine, theirs in ((recorded.scenes, back.scenes), (recorded.grasps, back.grasps)):
        assert set(mine) == set(theirs)
        for name in mine:
            assert torch.equal(mine[name].double(), theirs[name].double()), name


def test_one_shard_in_both_forms(folder):
    (folder / "shard-00002.h5").write_bytes((folder / "shard-00001.h5").read_bytes())
    with pytest.raises(DistkError, match=r"holds both 'shard-00002\.h5' and 'shard-00002\.npz'"):
        shards.read(folder / "meta.json")


def test_without_the_package(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(UsageError, match=r"needs the package h5py: pip install 'distk\[hdf5\]'"):
        shards.read(folder / "meta.json")


def replaced(file, name, change):
    held = file[name][()]
    del file[name]
    change(file, name, held)


def elsewhere(file, name, held):
    """A link into another file."""
    with h5py.File(f"{file.filename}.other", "w") as other:
        other.create_dataset(name, data=held)
    file[name] = h5py.ExternalLink(f"{file.filename}.other", name)


def raw(file, name, held):
    """Bytes of any other file, such as a password's."""
    held.tofile(f"{file.filename}.raw")
    file.create_dataset(name, held.shape, held.dtype, external=[(f"{file.filename}.raw", 0, h5py.h5f.UNLIMITED)])


def virtual(file, name, held):
    layout = h5py.VirtualLayout(held.shape, held.dtype)
    layout[...] = h5py.VirtualSource(f"{file.filename}.other", name, held.shape)
    file.create_virtual_dataset(name, layout)


def endless(file, name, held):
    """A petabyte of zeros that were never written."""
    file.create_dataset(name, (1 << 40, *held.shape[1:]), held.dtype, chunks=True)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (elsewhere, "'depth' lies in another file, which is not read|lacks 'depth'"),
        (raw, "'depth' lies in another file, which is not read"),
        (virtual, "'depth' lies in another file, which is not read"),
        (endless, "'depth' is float32 .*, which cannot be in this file or is not read"),
        (lambda f, n, h: f.create_dataset(n, data=[b"a", b"b"]), "'depth' is .*, which cannot be in this file"),
        (lambda f, n, h: f.create_dataset(n, data=h5py.Empty("f4")), "'depth' is float32 None"),
        (lambda f, n, h: f.create_group(n), "lacks 'depth'"),
        (lambda f, n, h: None, "lacks 'depth'; expected meta.json"),
        (lambda f, n, h: f.create_dataset(n, data=h[..., 1:]), "'depth' has shape .* expected .* with W = 32"),
        (lambda f, n, h: f.create_dataset(n, data=h * 1000), "looks like millimetres"),
    ],
)
def test_bad_arrays(folder, change, said):
    with h5py.File(folder / "shard-00000.h5", "r+") as file:
        replaced(file, "depth", change)
    with pytest.raises(DistkError, match=said) as refused:
        open_dataset("grasps", {}, folder=folder)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("keep", [0, 7, 900, -3])
def test_damaged_files(folder, keep):
    path = folder / "shard-00000.h5"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DistkError, match="is not a valid HDF5 file"):
        open_dataset("grasps", {}, folder=folder)
