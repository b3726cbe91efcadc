"""dSprites (Matthey et al. 2017): white shapes on black, one image per combination of five factors.

Geometry of the renderer: fitted to real frames of the data set; on the 258 real frames that were at hand 48 of
1,056,768 pixels differ (`tests/datasets/test_dsprites.py`). Pixel (row r, column c) is centred at (c + 0.5, r + 0.5)
on a 64x64 canvas, y downwards, no anti-aliasing.
"""

from __future__ import annotations

import math
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from distk import DataSpec, DistkError, FactorDataset, Files, UsageError, option
from distk.console import counted, note, progress
from distk.data import permuted_split

NPZ = "dsprites_ndarray_co1sh3sc6or40x32y32_64x64.npz"
SHAPES = ("square", "ellipse", "heart")
GRID = (3, 6, 40, 32, 32)
CANVAS = 64
_SQUARE, _ELLIPSE = 9.598, (12.765, 7.215)
_TABLE = 4096


def _heart_table(device: torch.device) -> Tensor:
    """Radius of the heart over the pseudo-angle q = v / (|u| + |v|) from -1 (cleft) to 1 (tip), float32 `[4097]`.

    q grows monotonically with the angle and costs one division where the angle itself costs an arc tangent.
    """
    t = np.linspace(0, math.pi, 20001)
    x = 9.6016 * np.sin(t) ** 3
    y = -0.6623 * (13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)) - 1.442
    q = y / (np.abs(x) + np.abs(y))
    order = np.argsort(q)
    radius = np.interp(np.linspace(-1, 1, _TABLE + 1), q[order], np.hypot(x, y)[order])
    return torch.tensor(radius, dtype=torch.float32, device=device)


class Renderer:
    """Draws sprites on the device: factor values -> float32 `[n, 1, size, size]` of zeros and ones."""

    def __init__(self, size: int, device: torch.device) -> None:
        centre = (torch.arange(size, device=device, dtype=torch.float32) + 0.5) * (CANVAS / size)
        self.x, self.y = centre.view(1, 1, -1), centre.view(1, -1, 1)
        self.heart = _heart_table(device)

    def __call__(self, shape: Tensor, scale: Tensor, angle: Tensor, px: Tensor, py: Tensor) -> Tensor:
        """All float32 `[n]`: shape 0, 1, 2; scale in (0, 1]; angle in radians, counter-clockwise; position 0 to 1."""
        dx = self.x - (16 + 32 * px).view(-1, 1, 1)
        dy = self.y - (16 + 32 * py).view(-1, 1, 1)
        cos, sin = (angle.cos() / scale).view(-1, 1, 1), (angle.sin() / scale).view(-1, 1, 1)
        u, v = dx * cos - dy * sin, dx * sin + dy * cos
        side, height = u.abs(), v.abs()
        square = torch.maximum(side, height) <= _SQUARE
        ellipse = (u / _ELLIPSE[0]) ** 2 + (v / _ELLIPSE[1]) ** 2 <= 1
        place = (v / (side + height).clamp_min(1e-6) + 1) * (_TABLE / 2)
        low = place.long().clamp_(0, _TABLE - 1)
        heart = torch.hypot(u, v) <= torch.lerp(self.heart[low], self.heart[low + 1], place - low)
        kind = shape.view(-1, 1, 1)
        inside = torch.where(kind == 0, square, torch.where(kind == 1, ellipse, heart))
        return inside.float().unsqueeze(1)


@dataclass(frozen=True)
class Config:
    """Which part of the grid, and how large the pictures are."""

    size: Literal[64, 32] = option(64, "height and width in pixels")
    scales: tuple[int, ...] = option(
        (0, 1, 2, 3, 4, 5), "which of the six scales (0 = half size, 5 = full)", min=0, max=5
    )
    orientations: int = option(40, "values of orientation, from 0 to a full turn; 1 means upright", min=1, max=360)
    positions: int = option(32, "values of each coordinate of the position", min=2, max=64)
    holdout: float = option(0.0, "share of the images, drawn once for all, that only the split `test` holds", min=0)

    def __post_init__(self) -> None:
        if self.holdout >= 1:
            raise ValueError(f"holdout {self.holdout} leaves nothing to train on; it must be below 1")
        if not self.scales or len(set(self.scales)) != len(self.scales):
            raise ValueError("scales must name at least one scale, each once")


class DSprites(FactorDataset[Config]):
    """Factors shape 3, scale 6, orientation 40, posX 32, posY 32 (colour has one value and is dropped).

    The orientations are the official grid 0..2 pi INCLUSIVE, so that the first and the last give the same image.
    """

    reads = NPZ
    factor_names = ("shape", "scale", "orientation", "posX", "posY")
    factor_kinds = ("categorical", "ordinal", "circular", "ordinal", "ordinal")

    def __init__(self, config: Config, device: torch.device, files: Files) -> None:
        super().__init__(config, device, files)
        self.factor_sizes = (3, len(config.scales), config.orientations, config.positions, config.positions)
        self.spec = DataSpec("image", (1, config.size, config.size), classes=SHAPES)
        self._values = [
            torch.arange(3, device=device, dtype=torch.float32),
            torch.tensor([0.5 + 0.1 * s for s in config.scales], device=device),
            torch.linspace(0, 2 * math.pi, config.orientations, device=device),
            torch.linspace(0, 1, config.positions, device=device),
            torch.linspace(0, 1, config.positions, device=device),
        ]
        self.renderer = Renderer(config.size, device)
        self.parts = permuted_split(len(self), config.holdout, 0, device) if config.holdout else {}
        self.packed: Tensor | None = None
        self._bits = torch.arange(7, -1, -1, device=device, dtype=torch.uint8)
        path = files.find(NPZ, f"*/{NPZ}") if files.required else files.find(NPZ)
        if path is not None:
            self._use_file(path)
        else:
            self.origin = "rendered on the device from the published geometry (no file)"
            if device.type == "cuda" or len(self) * config.size**2 <= 1 << 26:
                self.packed = self._render_all()

    def _use_file(self, path: Path) -> None:
        config: Config = self.config
        official = config.size == 64 and config.orientations in (1, 40) and config.positions == 32
        if not official:
            raise UsageError(
                f"the file '{path.name}' holds 64x64 images of 40 orientations and 32 positions; "
                "leave size, orientations and positions at their defaults or do without --data-dir."
            )
        self.origin = f"read from {path}"
        kept = torch.cartesian_prod(*(torch.arange(s) for s in (3, 6, config.orientations, 32, 32)))
        kept = kept[torch.isin(kept[:, 1], torch.tensor(config.scales))]
        strides = torch.tensor([245760, 40960, 1024, 32, 1])
        self.packed = read_packed(path)[(kept * strides).sum(1)].to(self.device)
        # The rows of the file ascend with the scale; ours follow the order in which the scales were named.
        if list(config.scales) != sorted(config.scales):
            raise UsageError("with a file, name the scales in ascending order.")

    def _render_all(self) -> Tensor:
        rows = torch.arange(len(self), device=self.device)
        parts = []
        with progress("rendering", len(self)) as advance:
            for part in rows.split(8192):
                parts.append(pack(self._render(part)))
                advance(len(part))
        return torch.cat(parts)

    def _render(self, rows: Tensor) -> Tensor:
        factors = self.factors(rows)
        return self.renderer(*(values[factors[:, k]] for k, values in enumerate(self._values)))

    def batch(self, rows: Tensor) -> dict[str, Tensor]:
        """`x` float32 `[n, 1, size, size]` of 0 and 1, `label` int64 `[n]` the shape, `factors` int64 `[n, 5]`."""
        if self.packed is None:
            x = self._render(rows)
        else:
            x = ((self.packed.index_select(0, rows).unsqueeze(-1) >> self._bits) & 1).float().view(-1, *self.spec.shape)
        factors = self.factors(rows)
        return {"x": x, "label": factors[:, 0], "factors": factors}

    def export(self, path: Path) -> None:
        """Write the official npz layout (without the pickled `metadata`): imgs, latents_values, latents_classes.

        The members are written piece by piece, so that the three gigabytes of the full grid never lie in memory.
        """
        rows = torch.arange(len(self), device=self.device)
        classes = torch.cat([torch.zeros_like(rows)[:, None], self.factors(rows)], 1)
        values = torch.stack(
            [torch.ones(len(self), device=self.device)] + [v[classes[:, k + 1]] for k, v in enumerate(self._values)], 1
        )
        values[:, 1] += 1  # the official values of shape are 1, 2, 3
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, progress("writing", len(self)) as advance:
            with archive.open("imgs.npy", "w", force_zip64=True) as member:
                header = {"descr": "|u1", "fortran_order": False, "shape": (len(self), *self.spec.shape[1:])}
                np.lib.format.write_array_header_1_0(member, header)
                for part in rows.split(4096):
                    member.write(self.batch(part)["x"].to(torch.uint8).cpu().numpy().tobytes())
                    advance(len(part))
            for name, array in (("latents_values", values.double()), ("latents_classes", classes)):
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, array.cpu().numpy())

    def compare(self, path: Path) -> list[dict[str, Any]]:
        """Hold the renderer against an official npz: per shape, share of identical images and mean IoU."""
        theirs = read_packed(path)
        ours = DSprites(Config(), self.device, Files("dsprites", None, ""))
        found = []
        for k, shape in enumerate(SHAPES):
            same = overlap = 0.0
            rows = torch.arange(k * 245760, (k + 1) * 245760)
            with progress(f"comparing {shape}", len(rows)) as advance:
                for part in rows.split(8192):
                    a = ours.batch(part.to(self.device))["x"].flatten(1).bool()
                    b = unpack(theirs[part].to(self.device), CANVAS**2).bool()
                    same += float((a == b).all(1).sum())
                    overlap += float(((a & b).sum(1) / (a | b).sum(1).clamp_min(1)).sum())
                    advance(len(part))
            found.append({"shape": shape, "identical": same / len(rows), "mean_iou": overlap / len(rows)})
        return found


def pack(images: Tensor) -> Tensor:
    """Zeros and ones `[n, ...]` -> uint8 `[n, pixels / 8]`, first pixel in the highest bit."""
    bits = images.flatten(1).to(torch.uint8).view(len(images), -1, 8)
    weights = torch.tensor([128, 64, 32, 16, 8, 4, 2, 1], dtype=torch.uint8, device=images.device)
    return (bits * weights).sum(-1, dtype=torch.uint8)


def unpack(packed: Tensor, pixels: int) -> Tensor:
    """Inverse of `pack`: uint8 `[n, pixels]` of zeros and ones."""
    bits = torch.arange(7, -1, -1, device=packed.device, dtype=torch.uint8)
    return ((packed.unsqueeze(-1) >> bits) & 1).view(len(packed), pixels)


def read_packed(path: Path) -> Tensor:
    """The images of an official npz as packed bits, uint8 `[737280, 512]`; the pickled member is never touched.

    Raises DistkError for other keys, shapes or values, or a damaged archive.
    """
    expected = "expected imgs uint8 (737280, 64, 64)"
    try:
        with zipfile.ZipFile(path) as archive:
            if "imgs.npy" not in archive.namelist():
                raise DistkError(f"'{path}': {expected}, found the members {', '.join(archive.namelist())[:200]}.")
            with archive.open("imgs.npy") as member:
                return _stream(path, member, expected)
    except DistkError:
        raise
    except Exception as error:  # zipfile, zlib, numpy and the tokenizer that reads headers raise each their own
        reason = " ".join(str(error).split())[:200]
        raise DistkError(f"'{path}' is not a valid npz file ({reason}); {expected}.") from error


def _stream(path: Path, member: Any, expected: str) -> Tensor:
    np.lib.format.read_magic(member)
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(member)
    if shape != (737280, 64, 64) or dtype != np.uint8 or fortran:
        raise DistkError(f"'{path}': {expected}, found {dtype} {shape}.")
    packed = np.empty((shape[0], 512), dtype=np.uint8)
    scaled, chunk = False, 4096
    with progress("reading dSprites", shape[0]) as advance:
        for start in range(0, shape[0], chunk):
            raw = member.read(chunk * 4096)
            if len(raw) != chunk * 4096:
                raise DistkError(f"'{path}' ends after {start} of {counted(shape[0], 'image')}.")
            images = np.frombuffer(raw, np.uint8).reshape(chunk, 4096)
            top = int(images.max())
            if top not in (0, 1, 255) or (top == 255 and bool(((images != 0) & (images != 255)).any())):
                raise DistkError(f"'{path}': imgs must hold 0 and 1, found the value {top}.")
            scaled = scaled or top == 255
            packed[start : start + chunk] = np.packbits(images != 0, axis=1)
            advance(chunk)
    if scaled:
        note(f"{path.name}: pixels are 0 and 255 instead of 0 and 1; rescaled")
    return torch.from_numpy(packed)
