"""`teapots`: a teapot from any side in any colour, and the combinations of both that training never shows.

The pictures of the paper were rendered by somebody else's program and are read where the user has them; without files a
teapot of signed distances is rendered on the device, with the same factors, ranges and gap.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from distk import DataSpec, DistkError, FactorDataset, Files, UsageError, option
from distk.arrays import open_npy, open_npz
from distk.console import counted, progress
from distk.kept import kept
from distk.pictures import plain
from distk.plugins.gan_family.infogan.teapot import render

BINS = 10
"""Of each factor, for scores that ask for discrete ones."""
HIGHEST = (2 * math.pi, math.pi / 2, 1.0, 1.0, 1.0)
"""Upper ends of the factors' ranges, which begin at 0: radians, radians, and shares of full colour."""
SLACK = 1e-3
"""By which factors in a file may exceed their range."""
MARGIN, ABOVE = 0.15, math.pi / 4
SHARES = (0.8, 0.1)
"""Of all rows, in their order: training, validation; the rest is the test."""
MANY_RAYS = 1 << 22
"""Rays from which rendered pictures are kept on disk: seconds of one core."""
LARGEST = 1 << 12
"""Pixels along the side of a picture in a file."""


@dataclass(frozen=True)
class Config:
    """What is rendered. Of files, only `size` and `gap` matter."""

    items: int = option(32_768, "pictures", paper="200,000", min=20, max=10_000_000)
    poses: int = option(
        4096, "different poses among them, each in several colours; 0: every picture its own", paper="0", min=0
    )
    size: int = option(32, "height and width in pixels; of files, their own or a whole part of it", min=8, max=512)
    supersample: int = option(1, "k averages k x k rays per pixel", min=1, max=8)
    background: float = option(0.0, "brightness of the background, 0 to 1", min=0, max=1)
    gap: Literal["none", "paper"] = option(
        "none", "paper: red teapots from above are kept out of all splits and make the split `gap`", paper="paper"
    )


class Teapots(FactorDataset[Config]):
    """Factors azimuth, elevation (radians), red, green, blue: independent and uniform. `truth` gives them.

    Splits by the order of the rows: `train` 80, `validation` 10, `test` 10 per cent, all pictures of a pose in one of
    them; with `gap="paper"` the rows of the gap are in none of these but in `gap`, of all splits together.
    """

    reads = "teapots.npz with images uint8 [N, 64, 64, 3] and gts [N, 5], or images/im0.jpeg, ... and gts.npy"
    factor_names = ("azimuth", "elevation", "red", "green", "blue")
    factor_sizes = (BINS,) * 5
    real_values: Tensor
    factor_kinds = ("circular", "continuous", "continuous", "continuous", "continuous")

    def __init__(self, config: Config, device: torch.device, files: Files) -> None:
        super().__init__(config, device, files)
        self.copies = 1
        self.images: Tensor | None = None
        found = read(files)
        if found is not None:
            path, images, self.real_values = found
            self.images, size = _sized(images, config.size, path).to(device), config.size
            self.origin = f"{counted(len(images), 'picture')} read from {path}"
            if images.shape[-1] != size:
                self.origin += f", averaged from {images.shape[-1]}x{images.shape[-1]} to {size}x{size}"
        else:
            self.real_values, size = self._drawn(), config.size
        self.real_values = self.real_values.to(device)
        self.spec = DataSpec("image", (3, size, size))
        highest = torch.tensor(HIGHEST, dtype=torch.float64, device=device)
        self.table = (self.real_values / highest * BINS).long().clamp_(0, BINS - 1)
        self.parts = self._divide()

    def _drawn(self) -> Tensor:
        """The factors of all rows, float64 `[N, 5]`. Rows of one pose follow each other."""
        c = self.config
        poses = min(c.poses or c.items, c.items)
        self.copies = math.ceil(c.items / poses)
        # Drawn on the host in float64: the same on every device, and the same poses whatever their number of colours.
        angles = _uniform(poses, 2, 0) * torch.tensor(HIGHEST[:2], dtype=torch.float64)
        colours = _uniform(c.items, 3, 1)
        repeated = (
            f"{counted(poses, 'pose')}, each in {counted(self.copies, 'colour')}"
            if self.copies > 1
            else "each in a pose of its own"
        )
        self.origin = (
            f"{counted(c.items, 'picture')} of a teapot of signed distances, rendered on the device: {repeated}"
        )
        return torch.cat([angles[torch.arange(c.items) // self.copies], colours], 1)

    @functools.cached_property
    def light(self) -> tuple[Tensor, Tensor]:
        """Shade and coverage of the poses, float16 `[poses, size, size]` each: rendered when the first picture is asked
        for, which takes an hour for the largest set on a CPU. There, the pictures of large sets are kept for the next
        start."""
        poses = self.real_values[:: self.copies, :2]
        shape = (2, len(poses), *self.spec.shape[1:])
        fill = functools.partial(_render, poses, self.config.size, self.config.supersample)
        if self.device.type != "cpu" or math.prod(shape) * self.config.supersample**2 < MANY_RAYS:
            made = torch.empty(shape, dtype=torch.float16, device=self.device)
            fill(made)
        else:
            told = {"poses": len(poses), "size": self.config.size, "rays": self.config.supersample**2, "shape": 1}
            made = torch.from_numpy(
                kept(f"teapots {sorted(told.items())}", told, shape, np.float16, lambda a: fill(torch.from_numpy(a)))
            )
        return made[0], made[1]

    def _divide(self) -> dict[str, Tensor]:
        """Rows of each split. Raises UsageError where one of them has none."""
        n, rows = len(self), torch.arange(len(self), device=self.device)
        first = int(SHARES[0] * n) // self.copies * self.copies
        second = int(sum(SHARES) * n) // self.copies * self.copies
        parts = {"train": rows[:first], "validation": rows[first:second], "test": rows[second:]}
        if self.config.gap == "paper":
            away = in_gap(self.real_values)
            parts = {name: part[~away[part]] for name, part in parts.items()}
            parts["gap"] = rows[away]
        for name, part in parts.items():
            if not len(part):
                raise UsageError(
                    f"of {counted(n, 'teapot')} none falls into the split '{name}': take more --items or --poses."
                )
        return parts

    def __len__(self) -> int:
        return len(self.real_values)

    def truth(self, rows: Tensor) -> Tensor:
        """Azimuth and elevation in radians, and colour, float64 `[n, 5]`: the angle as it is, as in the paper."""
        return self.real_values[rows]

    def batch(self, rows: Tensor) -> dict[str, Tensor]:
        """`x` float32 `[n, 3, size, size]` in [0, 1], in whole steps of 1 / 255; `factors` int64 `[n, 5]`, ten bins."""
        if self.images is not None:
            x = self.images.index_select(0, rows).float()
        else:
            # Light and colour only multiply.
            colour = self.real_values[rows, 2:].float()[:, :, None, None]
            pose = rows // self.copies
            shade, cover = self.light
            x = shade[pose].float()[:, None] * colour
            if self.config.background:
                x = x + (1 - cover[pose].float()[:, None]) * self.config.background
            x = (x * 255).round()
        return {"x": x / 255, "factors": self.factors(rows)}

    def export(self, path: Path) -> None:
        """Write the npz of the published set: images uint8 `[N, size, size, 3]` and gts float64 `[N, 5]`.

        Piece by piece, beside the target and then in its place. Raises DistkError where that cannot be written.
        """
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        rows = torch.arange(len(self), device=self.device)
        try:
            with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
                with archive.open("images.npy", "w", force_zip64=True) as member, progress("writing", len(self)) as at:
                    shape = (len(self), *self.spec.shape[1:], 3)
                    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
                    np.lib.format.write_array_header_1_0(member, header)
                    for part in rows.split(2048):
                        x = (self.batch(part)["x"] * 255).round().to(torch.uint8)
                        member.write(x.permute(0, 2, 3, 1).contiguous().cpu().numpy().tobytes())
                        at(len(part))
                with archive.open("gts.npy", "w") as member:
                    np.lib.format.write_array(member, self.real_values.cpu().numpy())
            os.replace(temporary, path)
        except OSError as error:
            raise DistkError(f"cannot write '{path}': {error.strerror or error}.") from error
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink()


def _render(poses: Tensor, size: int, supersample: int, into: Tensor) -> None:
    """Angles float64 `[n, 2]` -> shade and coverage, written into `[2, n, size, size]`."""
    with progress("rendering teapots", len(poses)) as advance:
        for part in torch.arange(len(poses)).split(1024):
            azimuth, elevation = poses[part.to(poses.device)].unbind(1)
            into[0, part[0] : part[-1] + 1], into[1, part[0] : part[-1] + 1] = render(
                azimuth, elevation, size, supersample
            )
            advance(len(part))


def _uniform(rows: int, columns: int, seed: int) -> Tensor:
    """float64 `[rows, columns]` in [0, 1), on the host."""
    return torch.rand(rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def in_gap(truth: Tensor) -> Tensor:
    """Factors float64 `[n, 5]` -> bool `[n]`: red exceeds green and blue by more than 0.15, seen from above pi / 4.

    Of independent uniform factors this has probability 0.85^3 / 6 (appendix A.1).
    """
    _, elevation, red, green, blue = truth.unbind(1)
    return (red > green + MARGIN) & (red > blue + MARGIN) & (elevation > ABOVE)


# The published pictures


def read(files: Files) -> tuple[Path, Tensor, Tensor] | None:
    """The user's pictures: where they lie, uint8 `[N, 3, h, w]`, factors float64 `[N, 5]`; None where there are none.

    Raises DistkError for files that do not hold what they should.
    """
    path = files.find("teapots.npz", "gts.npy")
    if path is None:
        return None
    if path.name == "gts.npy":
        images, truth = _folder(path)
    else:
        with open_npz(path, "images uint8 [N, 64, 64, 3] and gts [N, 5]") as file:
            images, truth = file.read("images"), file.read("gts")
    sound = images.dtype == np.uint8 and images.ndim == 4 and images.shape[3] == 3
    sound = sound and 0 < images.shape[1] == images.shape[2] <= LARGEST
    if not sound or truth.ndim != 2 or truth.shape[1] != 5 or truth.dtype.kind not in "fiu":
        raise DistkError(
            f"'{path}' holds images {images.dtype} {images.shape} and gts {truth.dtype} {truth.shape}; expected uint8 "
            "(N, 64, 64, 3) and numbers (N, 5)."
        )
    if len(images) != len(truth):
        raise DistkError(f"'{path}' holds images {images.shape} and gts {truth.shape}: not one row for each picture.")
    truth = truth.astype(np.float64)
    inside = (truth >= -SLACK) & (truth <= np.array(HIGHEST) + SLACK)
    if not inside.all():
        row, column = (int(i) for i in np.argwhere(~inside)[0])
        raise DistkError(
            f"'{path}': {Teapots.factor_names[column]} of picture {row} is {truth[row, column]:g}, expected 0 to "
            f"{HIGHEST[column]:.6g} (angles are in radians)."
        )
    return path, torch.from_numpy(images).permute(0, 3, 1, 2), torch.from_numpy(truth)


def _folder(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Pictures images/im0.jpeg, im1.jpeg, ... beside gts.npy, as many as it has rows."""
    truth = np.array(open_npy(path))
    if truth.ndim != 2 or not len(truth):
        raise DistkError(f"'{path}' holds {truth.dtype} {truth.shape}, expected numbers (N, 5).")
    names = [path.parent / "images" / f"im{i}.jpeg" for i in range(len(truth))]
    for name in (names[0], names[-1]):
        if not name.is_file():
            raise DistkError(f"'{path}' has {counted(len(truth), 'row')}, but there is no '{name}'.")
    if (beyond := path.parent / "images" / f"im{len(truth)}.jpeg").is_file():
        raise DistkError(f"'{path}' has {counted(len(truth), 'row')}, but there is a '{beyond}'.")
    images: np.ndarray | None = None
    for i, picture in enumerate(_pictures(names)):
        if images is None:
            images = np.empty((len(names), *picture.shape), np.uint8)
        if picture.shape != images.shape[1:]:
            raise DistkError(f"'{names[i]}' has shape {picture.shape}, '{names[0]}' {images.shape[1:]}.")
        images[i] = picture
    assert images is not None
    return images, truth


def _pictures(names: list[Path]) -> Iterator[np.ndarray]:
    """uint8 `[h, w, 3]` each. Raises DistkError naming a file that is no sound picture."""
    with progress("reading teapots", len(names)) as advance:
        for picture in plain(((name, str(name)) for name in names), "RGB", ("JPEG",), LARGEST):
            yield picture
            advance(1)


def _sized(images: Tensor, size: int, path: Path) -> Tensor:
    """uint8 `[N, 3, s, s]` -> `[N, 3, size, size]`, means of k x k pixels. Raises UsageError for no whole k."""
    side = images.shape[-1]
    if side == size:
        return images.contiguous()
    if side % size:
        raise UsageError(f"'{path}' has pictures of {side}x{side}: set --size {side}, or a whole part of it.")
    parts = [F.avg_pool2d(part.float(), side // size).round().to(torch.uint8) for part in images.split(4096)]
    return torch.cat(parts)
