"""Sizes are held against the memory that there is before anything is allocated."""

from __future__ import annotations

import gzip
import io
import resource
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

import distk
from distk import codefile, memory
from distk.arrays import open_npz
from distk.codefile import LARGEST
from distk.errors import DistkError, UsageError
from distk.plugins.datasets.mnist_like import read_idx


def bomb(path: Path, name: str, shape: tuple[int, ...], dtype: str = "<f4") -> Path:
    """An npz of zeros: a thousandth of what it holds."""
    head = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open(f"{name}.npy", "w") as member:
        member.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head)
        left = int(np.prod(shape)) * np.dtype(dtype).itemsize
        while left:
            piece = min(left, 1 << 24)
            member.write(bytes(piece))
            left -= piece
    return path


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def test_what_there_is_lies_within_what_the_machine_has() -> None:
    assert 1 << 26 < memory.available() < 1 << 50


def test_what_cannot_be_afforded_is_said_with_both_figures(monkeypatch) -> None:
    monkeypatch.setattr(memory, "available", lambda: 3_000_000_000)
    memory.afford(2_999_999_999, "this")
    with pytest.raises(DistkError, match=r"^this takes about 3\.0 GB of memory, and 3\.0 GB are free\.$"):
        memory.afford(3_000_000_001, "this")
    with pytest.raises(UsageError, match=r"are free: take less\.$"):
        memory.afford(3_000_000_001, "this", "take less")


def test_codes_that_unpack_into_hundreds_of_millions_are_refused_unread(tmp_path, monkeypatch) -> None:
    assert LARGEST * 8 < 1 << 32
    monkeypatch.setattr(codefile, "LARGEST", 1 << 24)
    path = bomb(tmp_path / "bomb.npz", "codes", ((1 << 24) + 1, 1), "|u1")
    assert path.stat().st_size < 1 << 16
    before = peak()
    with pytest.raises(DistkError, match="holds 16,777,217 numbers when unpacked; at most 16,777,216 are read"):
        codefile.table_from_arrays(path)
    assert peak() - before < 8 << 20
    monkeypatch.setattr(memory, "available", lambda: 1 << 28)
    path = bomb(tmp_path / "half.npz", "codes", (1 << 24, 1), "|u1")
    with pytest.raises(DistkError, match=r"16,777,216 numbers when unpacked, takes about 0\.5 GB .*0\.3 GB are free"):
        codefile.table_from_arrays(path)
    assert peak() - before < 8 << 20


def test_arrays_and_pictures_are_held_to_the_same(tmp_path, monkeypatch) -> None:
    path = bomb(tmp_path / "x.npz", "x", (1 << 24,), "|u1")
    packed = tmp_path / "train-images-idx3-ubyte.gz"
    made = io.BytesIO()
    with gzip.GzipFile(fileobj=made, mode="wb") as file:
        file.write(b"\0\0\x08\x03" + struct.pack(">III", 1 << 10, 1 << 7, 1 << 7))
        file.write(bytes(1 << 24))
    packed.write_bytes(made.getvalue())
    monkeypatch.setattr(memory, "SMALL", 0)
    monkeypatch.setattr(memory, "available", lambda: 1 << 24)
    before = peak()
    with open_npz(path) as file, pytest.raises(DistkError, match="16,777,216 bytes when unpacked, takes about"):
        file.read("x")
    with pytest.raises(DistkError, match="16,777,216 bytes when unpacked, takes about"):
        read_idx(packed, 3)
    assert peak() - before < 8 << 20


def test_a_batch_that_no_memory_holds_is_refused(monkeypatch, distk_command) -> None:
    """In the beginning of a run, and where one is taken up, as both are built by the same function."""
    small = ("--z", 2, "--size", 32, "--scales", 5, "--orientations", 1, "--positions", 6, "--device", "cpu")
    monkeypatch.setattr(memory, "available", lambda: 1 << 33)
    before = peak()
    code, _, said = distk_command("train", "betavae", *small, "--batch", 1 << 20)
    assert code == 2
    assert "a batch of 1,048,576 items of [1, 32, 32] takes about 12.9 GB" in said.replace("\n", " ")
    assert "use a smaller --batch" in said
    assert peak() - before < 256 << 20


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError("Unable to allocate 12.0 GiB for an array"), "not enough memory: use a smaller --batch"),
        (
            RuntimeError(
                "[enforce fail at alloc_cpu.cpp:127] data. DefaultCPUAllocator: can't allocate memory: you tried"
            ),
            "not enough memory",
        ),
        (RuntimeError("CUDA out of memory. Tried to allocate"), "the device is out of memory"),
    ],
)
def test_whoever_says_that_there_is_no_memory_it_is_one_sentence(monkeypatch, distk_command, error, words) -> None:
    from distk.commands import listing

    def fails(*a: object, **k: object) -> None:
        raise error

    monkeypatch.setattr(listing, "registry", fails)
    code, _, said = distk_command("list", "methods")
    assert code == 1
    assert words in said
    assert "unexpected" not in said
    from distk.evaluation import NO_MEMORY, score

    monkeypatch.setattr("distk.evaluation.build_metric", fails)
    assert score(None, "mig", {}, 0, 1) == {"error": NO_MEMORY}


def test_a_library_that_panics_for_want_of_memory_leaves_a_sentence(monkeypatch, distk_command) -> None:
    """safetensors, written in Rust, raises what is no Exception where Python has no memory for its bytes."""
    from distk.commands import listing

    class PanicException(BaseException):
        pass

    def fails(*a: object, **k: object) -> None:
        raise PanicException("PyObject pointer is null")

    monkeypatch.setattr(listing, "registry", fails)
    code, _, said = distk_command("list", "methods")
    assert code == 1
    assert said.startswith("error: a library gave up (PyObject pointer is null), most likely for want of memory")
    monkeypatch.setattr(listing, "registry", lambda: (_ for _ in ()).throw(GeneratorExit))
    with pytest.raises(GeneratorExit):
        distk_command("list", "methods")


def test_a_network_that_cannot_be_trained_here_is_refused_before_its_first_step(monkeypatch, tmp_path) -> None:
    free = 300 << 20  # its gradients and moments take half a gigabyte
    monkeypatch.setattr(memory, "available", lambda: free)
    options = {"data": "blobs", "z": 2, "batch": 4, "warmup": 0, "device": "cpu", "quiet": True}
    with pytest.raises(UsageError, match=r"^training 4\d,\d{3},\d{3} parameters takes about 0\.5 GB of memory, and 0"):
        distk.train("cascadevae", steps=1, hidden=20000, out=tmp_path / "large", **options)
    assert distk.train("cascadevae", steps=1, hidden=40, out=tmp_path / "small", **options).path.is_dir()
