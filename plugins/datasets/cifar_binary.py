"""The files of CIFAR-10 and CIFAR-100 in their binary version: records of labels and 3,072 values of an image.

An image is 1,024 red, 1,024 green and 1,024 blue values, row by row. The archive is read where it lies; single files
may be gzipped, and may hold fewer whole records (part of the data). The versions for Python are pickles, which can
run any program when they are read: they are refused.
"""

from __future__ import annotations

import gzip
import re
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

import numpy as np

from distk import DistkError, Files, UsageError

PIXELS = 3072


@dataclass(frozen=True)
class Form:
    """title: of the set. archive, folder: their official names. train, test: names of the files. labels: bytes before
    each image. whole: records of a whole file of training data. pickles: patterns of the version that is refused."""

    title: str
    archive: str
    folder: str
    train: tuple[str, ...]
    test: str
    labels: int
    whole: int
    pickles: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Of all files."""
        return (*self.train, self.test)

    @property
    def record(self) -> int:
        """Bytes of an image with its labels."""
        return self.labels + PIXELS

    @property
    def most(self) -> int:
        """Bytes of a whole file."""
        return self.record * self.whole

    @property
    def reads(self) -> str:
        """What the user may have, for messages."""
        last = f" to {self.train[-1]}" if len(self.train) > 1 else ""
        return f"{self.archive}, or {self.folder}/{self.train[0]}{last} and {self.test}, plain or .gz"

    @property
    def refusal(self) -> str:
        """Why pickles are not read, and what to do."""
        return (
            f"distk does not read pickles; use {self.archive}, the binary version of the same images, or turn a file "
            "that you trust into an npz, which docs/data/field.md shows, and read it with --data arrays."
        )


def find(form: Form, files: Files) -> Path | None:
    """The archive, or the folder that holds the files. Raises UsageError for the version that is a set of pickles."""
    names = [f"{place}{name}{end}" for place in (f"{form.folder}/", "") for name in form.names for end in ("", ".gz")]
    try:
        found = files.find(form.archive, *names)
    except UsageError:
        if any(_pickled(form, folder) for folder in files.folders):
            raise UsageError(form.refusal) from None
        raise
    return found if found is None or found.name == form.archive else found.parent


def _pickled(form: Form, place: Path) -> bool:
    if place.is_dir() and any(sorted(place.glob(name)) for name in form.pickles):
        return True
    known = any(place.match(name) for name in form.pickles)
    return known or bool(re.fullmatch(rf"{form.archive.removesuffix('-binary.tar.gz')}-python.*", place.name))


def read(form: Form, place: Path) -> dict[str, np.ndarray]:
    """Name -> uint8 `[n, record]` of every file that is there. Raises DistkError for damage and other sizes."""
    parts = read_archive(form, place) if place.name == form.archive else _read_folder(form, place)
    if not any(name in parts for name in form.train):
        last = f" to {form.train[-1]}" if len(form.train) > 1 else ""
        raise DistkError(f"'{place}' holds {form.test} only; {form.title} needs {form.train[0]}{last}.")
    return parts


def _read_folder(form: Form, folder: Path) -> dict[str, np.ndarray]:
    parts = {}
    for name in form.names:
        plain, zipped = folder / name, folder / f"{name}.gz"
        path = plain if plain.is_file() else zipped
        if not path.is_file():
            continue
        try:
            if path is plain and plain.stat().st_size > form.most:  # before anything is read
                raise _wrong(form, name, plain.stat().st_size)
            with gzip.open(path) if path is zipped else path.open("rb") as file:
                parts[name] = _records(form, name, cast(IO[bytes], file))
        except (OSError, EOFError, zlib.error) as error:
            raise DistkError(f"cannot read '{path}': {error}.") from error
    return parts


def read_archive(form: Form, path: Path) -> dict[str, np.ndarray]:
    """The files of the archive, read where they lie; nothing is unpacked."""
    parts = {}
    try:
        with tarfile.open(path, "r|gz") as archive:
            for member in archive:
                name = Path(member.name).name
                if name not in form.names or not member.isfile() or name in parts:
                    continue
                if member.size > form.most:
                    raise _wrong(form, name, member.size)
                file = archive.extractfile(member)
                assert file is not None  # a regular file
                parts[name] = _records(form, name, file)
    except DistkError:
        raise
    except Exception as error:  # tarfile answers a damaged archive with errors of every kind
        raise DistkError(f"cannot read '{path}': {error}.") from error
    if not parts:
        raise DistkError(f"'{path}' holds no {form.train[0]}: it is not {form.archive} as it is distributed.")
    return parts


def _records(form: Form, name: str, file: IO[bytes]) -> np.ndarray:
    content = file.read(form.most + 1)
    if not content or len(content) % form.record or len(content) > form.most:
        raise _wrong(form, name, len(content))
    return np.frombuffer(content, np.uint8).reshape(-1, form.record)


def _wrong(form: Form, name: str, size: int) -> DistkError:
    more = f"more than {form.most:,}" if size == form.most + 1 else f"{size:,}"
    return DistkError(f"{name} has {more} bytes, expected {form.most:,}.")


def labels(form: Form, place: Path, records: np.ndarray, at: int, classes: int) -> np.ndarray:
    """One of the labels of each record, int64 `[n]`. Raises DistkError for one that is none of so many classes."""
    found = records[:, at].astype(np.int64)
    if found.max() >= classes:
        raise DistkError(f"'{place}' has the label {found.max()}; {form.title} has 0 to {classes - 1}.")
    return found
