"""CIFAR-10 in its binary version (Krizhevsky 2009).

`cifar-10-binary.tar.gz`, or its folder `cifar-10-batches-bin`: `data_batch_1.bin` to `data_batch_5.bin` and
`test_batch.bin`, each 10,000 records of 3,073 bytes: a label 0..9, then 1,024 red, 1,024 green and 1,024 blue values,
row by row. Single files may be gzipped, and may hold fewer whole records (part of the data); others may be missing.
"""

from __future__ import annotations

import gzip
import re
import tarfile
import zlib
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import torch
from torch import Tensor

from distk import Dataset, DataSpec, DistkError, Files, UsageError, open_dataset, permuted_split
from distk.console import warn_once

RECORD, WHOLE = 3073, 30_730_000
"""Bytes of an image with its label, and of a file of 10,000 of them."""
ARCHIVE, FOLDER = "cifar-10-binary.tar.gz", "cifar-10-batches-bin"
NAMES = tuple(f"data_batch_{i}.bin" for i in range(1, 6))
TEST = "test_batch.bin"
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
PICKLES = ("cifar-10-python.tar.gz", "cifar-10-batches-py", "data_batch_[1-5]")


class Cifar10(Dataset):
    """Colour photographs 32x32 with labels. Without its files the stand-in `deadleaves` takes its place, unlabelled."""

    reads = f"{ARCHIVE}, or {FOLDER}/data_batch_1.bin to data_batch_5.bin and test_batch.bin, plain or .gz"
    stand_in: Dataset | None = None

    def __init__(self, config: Any, device: torch.device, files: Files) -> None:
        super().__init__(config, device, files)
        found = _find(files)
        if found is None:
            self.stand_in = made = open_dataset("deadleaves", device=device)
            self.spec, self.parts = made.spec, made.parts
            self.origin = f"no CIFAR-10 files found: stand-in deadleaves, {made.origin}"
            warn_once(
                f"no CIFAR-10 files found, so '{files.name}' is the stand-in deadleaves; name them with --data-dir."
            )
            return
        parts = _read_archive(found) if found.name == ARCHIVE else _read_folder(found)
        train = [parts[name] for name in NAMES if name in parts]
        if not train:
            raise DistkError(f"'{found}' holds {TEST} only; CIFAR-10 needs data_batch_1.bin to data_batch_5.bin.")
        cut = sum(map(len, train))
        records = np.concatenate([*train, *([parts[TEST]] if TEST in parts else [])])
        if int(records[:, 0].max()) > 9:
            raise DistkError(f"'{found}' has the label {records[:, 0].max()}; CIFAR-10 has 0 to 9.")
        self.images = torch.from_numpy(records[:, 1:].reshape(-1, 3, 32, 32).copy()).to(device)
        self.label = torch.from_numpy(records[:, 0].astype(np.int64)).to(device)
        self.spec = DataSpec("image", (3, 32, 32), classes=CLASSES)
        part = "" if len(records) == 60_000 else ", a part of the data set"
        self.origin = f"{len(records):,} images read from {found}{part}"
        everything = torch.arange(len(records), device=device)
        split = {"train": everything[:cut], "test": everything[cut:]}
        self.parts = split if cut < len(records) else permuted_split(cut, 0.1, 0, device)

    def __len__(self) -> int:
        return len(self.stand_in) if self.stand_in is not None else len(self.images)

    def batch(self, rows: Tensor) -> dict[str, Tensor]:
        """`x` float32 `[n, 3, 32, 32]` in [0, 1], `label` int64 `[n]` (not for the stand-in)."""
        if self.stand_in is not None:
            return self.stand_in.batch(rows)
        return {"x": self.images[rows].float() / 255, "label": self.label[rows]}


def _find(files: Files) -> Path | None:
    """The archive, or the folder that holds the batches. Raises UsageError for the version that is a set of pickles."""
    names = [f"{place}{name}{end}" for place in (f"{FOLDER}/", "") for name in (*NAMES, TEST) for end in ("", ".gz")]
    try:
        found = files.find(ARCHIVE, *names)
    except UsageError:
        pickled = any(sorted(folder.glob(name)) for folder in files.folders for name in PICKLES if folder.is_dir())
        if pickled or any(re.fullmatch(r"cifar-10-python.*", folder.name) for folder in files.folders):
            raise UsageError(f"distk does not read pickles; use {ARCHIVE}.") from None
        raise
    return found if found is None or found.name == ARCHIVE else found.parent


def _read_folder(folder: Path) -> dict[str, np.ndarray]:
    """Name -> uint8 `[n, 3073]` of every batch that is there, plain or gzipped."""
    parts = {}
    for name in (*NAMES, TEST):
        plain, zipped = folder / name, folder / f"{name}.gz"
        path = plain if plain.is_file() else zipped
        if not path.is_file():
            continue
        try:
            if path is plain and plain.stat().st_size > WHOLE:  # before anything is read
                raise _wrong(name, plain.stat().st_size)
            with gzip.open(path) if path is zipped else path.open("rb") as file:
                parts[name] = _records(name, cast(IO[bytes], file))
        except (OSError, EOFError, zlib.error) as error:
            raise DistkError(f"cannot read '{path}': {error}.") from error
    return parts


def _read_archive(path: Path) -> dict[str, np.ndarray]:
    """The batches of the archive, read where they lie; nothing is unpacked."""
    parts = {}
    try:
        with tarfile.open(path, "r|gz") as archive:
            for member in archive:
                name = Path(member.name).name
                if name not in (*NAMES, TEST) or not member.isfile() or name in parts:
                    continue
                if member.size > WHOLE:
                    raise _wrong(name, member.size)
                file = archive.extractfile(member)
                assert file is not None  # a regular file
                parts[name] = _records(name, file)
    except DistkError:
        raise
    except Exception as error:  # tarfile answers a damaged archive with errors of every kind
        raise DistkError(f"cannot read '{path}': {error}.") from error
    if not parts:
        raise DistkError(f"'{path}' holds no data_batch_1.bin: it is not {ARCHIVE} as it is distributed.")
    return parts


def _records(name: str, file: IO[bytes]) -> np.ndarray:
    content = file.read(WHOLE + 1)
    if not content or len(content) % RECORD or len(content) > WHOLE:
        raise _wrong(name, len(content))
    return np.frombuffer(content, np.uint8).reshape(-1, RECORD)


def _wrong(name: str, size: int) -> DistkError:
    more = f"more than {WHOLE:,}" if size == WHOLE + 1 else f"{size:,}"
    return DistkError(f"{name} has {more} bytes, expected {WHOLE:,}.")
