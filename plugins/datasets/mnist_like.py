"""MNIST and the data sets that come in its file format: IDX images and labels, plain or gzipped.

IDX: bytes 0 0, a type byte (8 = uint8), the number of dimensions, one big-endian uint32 per dimension, the values in
row-major order. The counts in the header are taken at their word, whatever the official size, but only after they were
held against the size of the file.
"""

from __future__ import annotations

import gzip
import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import TypeVar

from distk import Dataset, DataSpec, DistkError, Files, UsageError, option, permuted_split
from distk.console import counted, warn_once
from distk.memory import afford
from distk.plugins.datasets.digits28 import Config as DigitsConfig
from distk.plugins.datasets.digits28 import Digits28

LARGEST = 1 << 31
"""Bytes of values that a file may hold; EMNIST's largest part has 547 million."""
DEFLATE = 1040
"""No deflate stream grows by more than this factor when unpacked."""


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """An IDX file of unsigned bytes, plain or gzipped -> uint8 array of so many dimensions.

    Raises DistkError for another format, a header that does not fit the file's size, or damaged compression.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as raw:
            zipped = raw.read(2) == b"\x1f\x8b"
        with gzip.open(path) if zipped else path.open("rb") as file:
            head = file.read(4 + 4 * dimensions)
            if len(head) < 4 + 4 * dimensions or head[:2] != b"\0\0" or head[2] != 8 or head[3] != dimensions:
                raise DistkError(
                    f"'{path}' is not an IDX file of {dimensions}-dimensional bytes (first bytes {head[:4].hex(' ')})."
                )
            shape = tuple(int(n) for n in np.frombuffer(head, ">u4", offset=4))
            expected = math.prod(shape)
            room = size * DEFLATE if zipped else size - len(head)
            if expected > min(room, LARGEST) or expected == 0 or (not zipped and expected != room):
                raise DistkError(
                    f"the header of '{path}' promises {' x '.join(map(str, shape))} values, which does not fit its "
                    f"{counted(size, 'byte')}: the file is cut off or damaged."
                )
            afford(4 * expected, f"'{path}', {counted(expected, 'byte')} when unpacked,")
            values = file.read(expected + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DistkError(f"cannot read '{path}': {error}.") from error
    if len(values) != expected:
        more = "more" if len(values) > expected else "fewer"
        raise DistkError(f"'{path}' holds {more} values than the {expected:,} that its header promises.")
    return np.frombuffer(values, np.uint8).reshape(shape)


@dataclass(frozen=True)
class Config:
    """How large the pictures are."""

    size: Literal[28, 32] = option(28, "height and width in pixels")
    fit: Literal["border", "scale"] = option("border", "how 28 pixels become 32: an empty border, or scaled (bilinear)")


@dataclass(frozen=True)
class EmnistConfig(Config):
    """Which part of EMNIST."""

    variant: Literal["balanced", "letters", "digits", "mnist", "byclass", "bymerge"] = option(
        "balanced", "which of EMNIST's parts"
    )


Idx = TypeVar("Idx", bound=Config, default=Config)


class IdxImages(Dataset[Idx]):
    """Grey images with labels from a pair of IDX files, and the test pair if there is one (else a tenth is kept back).

    stems: names of (training, test) files before `-images-idx3-ubyte`. transposed: the file exchanges rows and columns.
    """

    stems: ClassVar[tuple[str, str]] = ("train", "t10k")
    own_names: ClassVar[bool] = False
    """Whether the file names differ from MNIST's, so that a shared folder cannot confuse them."""
    transposed: ClassVar[bool] = False
    classes: ClassVar[tuple[str, ...]] = tuple("0123456789")
    reads = "train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-..., plain or .gz"

    def __init__(self, config: Idx, device: torch.device, files: Files) -> None:
        super().__init__(config, device, files)
        if not files.required and not self.own_names:
            files.folders = files.folders[:-1]  # $DISTK_DATA itself may hold some other set under the same names
        stem, test_stem = self._stems()
        found = find(files, stem, "images", 3)
        if found is None:
            self._without_files(files)
            return
        images, labels = self._pair(files, stem, found)
        held = None if stem == test_stem else _quietly(files, test_stem)
        cut = len(images)
        if held is not None:
            test_images, test_labels = self._pair(files, test_stem, held)
            if test_images.shape[1:] != images.shape[1:]:
                raise DistkError(f"'{held}' has images of {test_images.shape[1:]}, '{found}' of {images.shape[1:]}.")
            images, labels = np.concatenate([images, test_images]), np.concatenate([labels, test_labels])
        self._keep(images, labels)
        self.origin = f"{counted(len(images), 'image')} read from {found.parent}"
        everything = torch.arange(len(images), device=device)
        split = {"train": everything[:cut], "test": everything[cut:]}
        self.parts = split if cut < len(images) else permuted_split(cut, 0.1, 0, device) if cut > 1 else {}

    def _stems(self) -> tuple[str, str]:
        return self.stems

    def _class_names(self) -> tuple[str, ...]:
        return self.classes

    def _without_files(self, files: Files) -> None:
        raise UsageError(f"data set '{files.name}' needs its files: add --data-dir DIR with {self.reads}.")

    def _pair(self, files: Files, stem: str, path: Path) -> tuple[np.ndarray, np.ndarray]:
        images = read_idx(path, 3)
        if max(images.shape[1:]) > 1024:
            raise DistkError(f"'{path}' has images of {images.shape[1:]}; at most 1024x1024 are read.")
        beside = find(Files(files.name, path.parent, self.reads), stem, "labels", 1)
        assert beside is not None  # a named folder that lacks it has raised
        labels = read_idx(beside, 1)
        if len(labels) != len(images):
            raise DistkError(
                f"'{beside}' has {counted(len(labels), 'label')} for the {counted(len(images), 'image')} of '{path}'."
            )
        return (images.transpose(0, 2, 1) if self.transposed else images), labels

    def _keep(self, images: np.ndarray, labels: np.ndarray) -> None:
        names = self._class_names()
        first = 1 if len(names) == 26 else 0
        label = torch.from_numpy(labels.astype(np.int64)) - first
        if int(label.min()) < 0 or int(label.max()) >= len(names):
            raise DistkError(
                f"labels run from {labels.min()} to {labels.max()}, but there are"
                f" {counted(len(names), 'class', 'classes')} from {first}."
            )
        x = torch.from_numpy(images.copy()).unsqueeze(1)
        height, width = x.shape[2:]
        size = self.config.size
        if max(height, width) > size:
            raise DistkError(f"the images are {height}x{width} pixels, more than size {size}.")
        top, left = (size - height) // 2, (size - width) // 2
        if self.config.fit == "scale":  # within a byte of what PIL's bilinear filter gives
            x = F.interpolate(x.float(), (size, size), mode="bilinear", antialias=True).round().to(torch.uint8)
        else:
            x = F.pad(x, (left, size - width - left, top, size - height - top))
        self.images, self.label = x.to(self.device), label.to(self.device)
        self.spec = DataSpec("image", (1, size, size), classes=names)

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, rows: Tensor) -> dict[str, Tensor]:
        """`x` float32 `[n, 1, size, size]` in [0, 1], `label` int64 `[n]`."""
        return {"x": self.images.index_select(0, rows).float() / 255, "label": self.label[rows]}


def find(files: Files, stem: str, what: str, dimensions: int) -> Path | None:
    """The IDX file of `what` ("images", "labels"), as `Files.find`; also in torchvision's folder `raw`."""
    name = f"{stem}-{what}-idx{dimensions}-ubyte"
    names = [name, f"{name}.gz", f"{stem}-{what}.idx{dimensions}-ubyte", f"{stem}-{what}.idx{dimensions}-ubyte.gz"]
    return files.find(*names, *(f"raw/{n}" for n in names))


def _quietly(files: Files, stem: str) -> Path | None:
    """The images of `stem`, or None, also where the user named a folder."""
    try:
        return find(files, stem, "images", 3)
    except UsageError:
        return None


class Mnist(IdxImages):
    """MNIST (LeCun, Cortes & Burges). Without its files the stand-in `digits28` takes its place."""

    own_names = True
    stand_in: Digits28 | None = None

    def _without_files(self, files: Files) -> None:
        size = self.config.size
        margin = 5 + (size - 28) // 2 if self.config.fit == "border" else round(5 * size / 28)
        made = Digits28(DigitsConfig(size=size, margin=margin), self.device, files)
        self.stand_in, self.spec, self.parts = made, made.spec, made.parts
        self.origin = f"no MNIST files found: stand-in digits28, {made.origin}"
        warn_once(f"no MNIST files found, so '{files.name}' is the stand-in digits28; name them with --data-dir.")

    def __len__(self) -> int:
        return len(self.stand_in or self.images)

    def batch(self, rows: Tensor) -> dict[str, Tensor]:
        return self.stand_in.batch(rows) if self.stand_in is not None else super().batch(rows)


class FashionMnist(IdxImages):
    """Fashion-MNIST (Xiao et al. 2017): ten kinds of clothes."""

    classes = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")


class Kmnist(IdxImages):
    """KMNIST (Clanuwat et al. 2018): ten cursive Japanese characters."""

    classes = ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")


class Emnist(IdxImages[EmnistConfig]):
    """EMNIST (Cohen et al. 2017): digits and letters, stored with rows and columns exchanged."""

    own_names = True
    transposed = True
    reads = "emnist-<variant>-train-images-idx3-ubyte and so on, plain or .gz"

    def _stems(self) -> tuple[str, str]:
        return f"emnist-{self.config.variant}-train", f"emnist-{self.config.variant}-test"

    def _class_names(self) -> tuple[str, ...]:
        digits, upper = "0123456789", "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
        merged = digits + upper + "abdefghnqrt"
        names = {"letters": upper, "digits": digits, "mnist": digits, "byclass": digits + upper + upper.lower()}
        return tuple(names.get(self.config.variant, merged))


class NotMnist(IdxImages):
    """notMNIST (Bulatov 2011) in MNIST's format: the letters A to J in many typefaces."""

    classes = tuple("ABCDEFGHIJ")
    reads = "notmnist-images-idx3-ubyte or train-images-idx3-ubyte, with labels, plain or .gz"

    def _stems(self) -> tuple[str, str]:
        return self._found

    def __init__(self, config: Config, device: torch.device, files: Files) -> None:
        # One file named after the set, as in a sample of it, or MNIST's four names.
        self._found = ("notmnist", "notmnist") if _quietly(files, "notmnist") else ("train", "t10k")
        self.own_names = self._found[0] == "notmnist"  # type: ignore[misc]
        super().__init__(config, device, files)
