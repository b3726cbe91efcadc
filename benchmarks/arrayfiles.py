"""Sound files of arrays of every kind, as `fuzz.py` damages them: MATLAB, HDF5, npy, npz, CIFAR's archive."""

from __future__ import annotations

import functools
import io
import random
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from distk.data import Files

Change = Callable[[bytes, random.Random], bytes]
Kind = tuple[str, bytes, Callable[[Path], Any], str, Change]
"""Name, content, what reads it, its file's name, what damages it."""


def kinds(mutate: Change, hostile: Change) -> Iterator[Kind]:
    """mutate: any damage. hostile: damage to the members of an npz."""

    def four(content: bytes, rng: random.Random) -> bytes:
        return four_bytes(content, rng) if rng.random() < 0.5 else mutate(content, rng)

    def members(content: bytes, rng: random.Random) -> bytes:
        return hostile(content, rng) if rng.random() < 0.5 else mutate(content, rng)

    yield from _matlab(four)
    yield from _hdf5(four)
    yield from _arrays(four, members)
    yield _cifar(mutate)


def four_bytes(content: bytes, rng: random.Random) -> bytes:
    """Four bytes changed anywhere behind the first 128: what compiled readers of arrays stumble over."""
    data = bytearray(content)
    for _ in range(4):
        data[rng.randrange(128, len(data))] = rng.randrange(256)
    return bytes(data)


def _matlab(change: Change) -> Iterator[Kind]:
    from scipy.io import savemat

    from distk.plugins.datasets.sprites import read_splits
    from distk.plugins.datasets.svhn import read_mat

    x = np.random.default_rng(0).integers(0, 256, (32, 32, 3, 3), dtype=np.uint8)
    for name, packed in (("mat", False), ("mat packed", True)):
        made = io.BytesIO()
        savemat(made, {"X": x, "y": np.array([[1], [10], [3]], np.uint8)}, do_compression=packed)
        yield (name, made.getvalue(), read_mat, "train_32x32.mat", change)
    made = io.BytesIO()
    savemat(made, {f"{part}idx": np.arange(1, 5)[None] + at for at, part in enumerate(("train", "val", "test"))})
    yield ("mat splits", made.getvalue(), read_splits, "sprites_splits.mat", change)


def _arrays_of(path: Path) -> None:
    from distk.plugins.datasets.arrays import Arrays

    dataset = Arrays(Arrays.Config(), torch.device("cpu"), Files("arrays", path, Arrays.reads))
    dataset.batch(torch.arange(len(dataset)))


def _hdf5(change: Change) -> Iterator[Kind]:
    try:
        import h5py
    except ImportError:
        return
    from distk.plugins.datasets.sprites import read_characters

    rng, made = np.random.default_rng(0), io.BytesIO()
    with h5py.File(made, "w") as file:
        file.create_dataset("images", data=rng.integers(0, 256, (12, 8, 8), dtype=np.uint8), chunks=(4, 8, 8))
        file.create_dataset("label", data=np.arange(12) % 3)
        file.create_dataset("factors", data=rng.integers(0, 3, (12, 2)), compression="gzip")
        file.create_dataset("split", data=np.array([b"train"] * 9 + [b"test"] * 3, dtype=object))
    yield ("h5", made.getvalue(), _arrays_of, "images.h5", change)
    made = io.BytesIO()
    with h5py.File(made, "w") as file:
        cells = file.create_dataset("sprites", (1, 2), h5py.ref_dtype)
        for k in range(2):
            cells[0, k] = file.create_dataset(f"#refs#/{k}", data=rng.random((2, 60 * 60 * 3)), compression="gzip").ref
        file.create_dataset("labels", data=np.ones((1, 7)))
    yield ("h5 cells", made.getvalue(), lambda path: read_characters([path]), "sprites_1.mat", change)


def _arrays(change: Change, members: Change) -> Iterator[Kind]:
    rng, made = np.random.default_rng(0), io.BytesIO()
    images = rng.integers(0, 256, (12, 8, 8), dtype=np.uint8)
    np.save(made, images)
    yield ("arrays npy", made.getvalue(), _arrays_of, "images.npy", change)
    made = io.BytesIO()
    split = np.array(["train"] * 9 + ["test"] * 3)
    np.savez_compressed(made, images=images, label=np.arange(12) % 3, factors=rng.random((12, 2)), split=split)

    yield ("arrays npz", made.getvalue(), _arrays_of, "images.npz", members)


def _cifar(change: Change) -> Kind:
    from distk.plugins.datasets.cifar10 import FORM
    from distk.plugins.datasets.cifar_binary import read_archive

    made, body = io.BytesIO(), bytes(range(256)) * 13
    with tarfile.open(fileobj=made, mode="w:gz") as archive:
        entry = tarfile.TarInfo(f"cifar-10-batches-bin/{FORM.train[0]}")
        entry.size = FORM.record
        archive.addfile(entry, io.BytesIO(body[: FORM.record]))
    return ("cifar tar", made.getvalue(), functools.partial(read_archive, FORM), FORM.archive, change)
