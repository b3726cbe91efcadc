"""HDF5 files are read in a process of their own, which may die."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest

from distk.errors import DistkError
from distk.plugins.datasets import hdf5
from distk.plugins.datasets.hdf5 import open_hdf5

h5py = pytest.importorskip("h5py", reason="the package h5py (distk[hdf5]) is not installed")


@pytest.fixture
def path(tmp_path, seed) -> Path:
    rng = np.random.default_rng(seed)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["numbers"] = rng.normal(size=(7, 3, 2))
        file["packed"] = np.zeros((5, 4), "<u2")
        file.create_dataset("big", data=rng.integers(0, 256, (40, 1000), dtype=np.uint8), compression="gzip")
        file["one"] = np.float32(3.5)
        file["words"] = np.array([b"x", "yé".encode(), b"\xff"], dtype=object)
        file.create_group("group")
    return tmp_path / "a.h5"


def test_arrays_are_those_of_h5py(path, monkeypatch) -> None:
    monkeypatch.setattr(hdf5, "AT_ONCE", 3000)  # several requests
    with open_hdf5(path) as held, h5py.File(path, "r") as true:
        assert sorted(held) == sorted(true)
        for name in ("numbers", "packed", "big", "one"):
            assert held[name].shape == true[name].shape
            assert held[name].dtype == true[name].dtype
            assert np.array_equal(np.asarray(held[name]), true[name][()])
        assert np.array_equal(held["big"][3:17], true["big"][3:17])
        assert held["big"][5:5].shape == (0, 1000)
        assert held["words"].words() == ["x", "yé", "�"]
        with pytest.raises(DistkError, match=r"'group' in '.*a\.h5' is no array"):
            held["group"]
        with pytest.raises(DistkError, match="not read as numbers"):
            held["words"][()]
        assert held.get("absent") is None


@pytest.mark.parametrize("kind", ["dies", "hangs", "lies", "talks"])
def test_whatever_a_file_does_to_its_reader_is_an_error_about_the_file(path, tmp_path, monkeypatch, kind) -> None:
    """A reader that is killed, silent, or answers nonsense, as a damaged file may make it; the next file is read."""
    body = {
        "dies": "import os; os.kill(os.getpid(), 11)",
        "hangs": "import time; time.sleep(60)",
        "lies": "import sys; [print('{\"bytes\": 3}', flush=True) for _ in sys.stdin]",
        "talks": "import sys; [print('[[[', flush=True) for _ in sys.stdin]",
    }[kind]
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "reader.py").write_text(body)
    real = hdf5.subprocess.Popen
    monkeypatch.setattr(hdf5, "PATIENCE", 0.5)
    began = time.monotonic()
    with monkeypatch.context() as patch:
        patch.setattr(
            hdf5.subprocess, "Popen", lambda command, **k: real([command[0], str(tmp_path / "bad" / "reader.py")], **k)
        )
        hdf5._process.end()
        with pytest.raises(DistkError, match=r"a\.h5' is damaged|a\.h5' is not described"), open_hdf5(path) as held:
            held["numbers"]
        assert time.monotonic() - began < 10
    hdf5._process.end()
    monkeypatch.setattr(hdf5, "PATIENCE", 30.0)
    with open_hdf5(path) as held:
        assert held["one"][()] == 3.5


def test_the_reader_ends_with_who_asked(path) -> None:
    pid = os.fork()
    if pid == 0:
        try:
            with open_hdf5(path) as held:
                held["one"]
            (path.parent / "pid").write_text(str(hdf5._process._held.pid))
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    reader = int((path.parent / "pid").read_text())
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{reader}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return
        if state == "Z":
            return
        time.sleep(0.02)
    raise AssertionError("the reader is still there")


def peak(pid: int) -> int:
    """Bytes of address space that a process had at most."""
    told = Path(f"/proc/{pid}/status")
    if not told.exists():
        pytest.skip("this system does not tell what memory a process had")
    return int(next(line for line in told.read_text().splitlines() if line.startswith("VmPeak")).split()[1]) << 10


def test_a_damaged_length_of_a_word_takes_no_gigabytes(tmp_path: Path) -> None:
    """A word's length in the array, and in the heap to which it points, become 3.5 GiB; the file has 5 kB."""
    path = tmp_path / "words.h5"
    with h5py.File(path, "w") as file:
        file["split"] = np.array([b"train" * 20, b"test"], dtype=object)
        file["numbers"] = np.arange(12.0)
    sound = path.read_bytes()
    places = [i for i in range(len(sound) - 4) if sound[i : i + 4] == (100).to_bytes(4, "little")]
    assert len(places) == 2
    for chosen in (places[:1], places[1:], places):
        damaged = bytearray(sound)
        for at in chosen:
            damaged[at : at + 4] = (0xE0000000).to_bytes(4, "little")
        path.write_bytes(damaged)
        hdf5._process.end()
        with open_hdf5(path) as held:
            reader = hdf5._process._held.pid
            before = peak(reader)
            with pytest.raises(DistkError, match="cannot be read"):
                held["split"].words()
            assert peak(reader) - before < 1 << 30
            assert held["numbers"][()].tolist() == list(range(12)), "the reader is still there"


def test_what_a_large_file_needs_it_gets(tmp_path: Path) -> None:
    """A stored piece of 300 MB, unpacked as a whole; and a hundred thousand words."""
    path = tmp_path / "large.h5"
    with h5py.File(path, "w") as file:
        shape = (100, 1000, 3000)
        file.create_dataset("one", shape, "u1", chunks=shape, compression="gzip", compression_opts=1)
        file["one"][:1] = 7
        file["words"] = np.array([f"word number {i}".encode() for i in range(100_000)], dtype=object)
    hdf5._process.end()
    with open_hdf5(path) as held:
        assert held["one"][0:2].mean(axis=(1, 2)).tolist() == [7, 0]
        assert held["words"].words()[-1] == "word number 99999"
