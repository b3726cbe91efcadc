"""Items of any kind as plain values that a page can show."""

from __future__ import annotations

import base64
import io
import math
from typing import Any

import torch
from torch import Tensor

from distk import images
from distk.commands.shared import SECONDS, scaled
from distk.console import clean, jsonable
from distk.method import Method
from distk.video.writers import as_bytes, gif

FRAMES = 8
"""Frames of a clip that stand beside each other under it."""
NUMBERS = 4096
"""Numbers of one item that are sent; more could not be told apart on a page."""


def shown(model: Method, items: Tensor, still: bool = False) -> dict[str, Any]:
    """One item as the model makes it, `[1, ...]` in the data's range.

    still: of a clip one frame, without its film.
    Gives `kind` and what belongs to it: a `picture` has `data`, a PNG as data URI; a `clip` has `data`, an endless GIF,
    and `strip`, some of its frames as a PNG; a `text` has `text`; `numbers` have `rows`, each a list of floats (a
    vector has one, a clip of vectors one per dimension over time), `low` and `high`.
    """
    if model.spec.kind == "sentence":
        return {"kind": "text", "text": clean(model.text(items)[0])}
    items = _shaped(model, items)
    if items.dim() == 5:
        frames = _coloured(scaled(model, items)[0])
        if still:
            return {"kind": "picture", **_png(frames[len(frames) // 2])}
        chosen = torch.linspace(0, len(frames) - 1, min(FRAMES, len(frames))).round().long()
        film = gif(as_bytes(frames), 1 / SECONDS)
        size = {"width": frames.shape[-1], "height": frames.shape[-2]}
        strip = _png(images.grid(frames[chosen], len(chosen)))["data"]
        return {"kind": "clip", "data": _uri(film, "image/gif"), "strip": strip, "frames": len(frames), **size}
    if items.dim() == 4:
        return {"kind": "picture", **_png(_coloured(scaled(model, items))[0])}
    values = items[0].detach().float().cpu()
    rows = values.T if values.dim() == 2 else values.flatten()[None]
    rows = rows[:, :NUMBERS][: max(1, NUMBERS // max(1, rows.shape[1]))]
    finite = rows[rows.isfinite()]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    return {"kind": "numbers", "rows": jsonable(rows.tolist()), "low": min(low, 0.0), "high": max(high, 0.0)}


def _shaped(model: Method, items: Tensor) -> Tensor:
    """Items that a decoder gives flat, in the shape of the data's."""
    shape = model.spec.shape
    return items.view(-1, *shape) if items.dim() == 2 and items.shape[1] == math.prod(shape) else items


def _coloured(pictures: Tensor) -> Tensor:
    """Pictures `[n, c, h, w]` in [0, 1] -> RGB `[n, 3, h, w]` on the host; other channels than grey or colour lie side
    by side. What is not finite is black."""
    pictures = pictures.detach().float().nan_to_num(0.0, 1.0, 0.0)
    if pictures.shape[1] not in (1, 3, 4):
        pictures = torch.cat(list(pictures.split(1, 1)), -1)
    return images.as_rgb(pictures)


def _png(picture: Tensor) -> dict[str, Any]:
    """A picture `[3, h, w]` in [0, 1] as a PNG, with its size in pixels."""
    held = io.BytesIO()
    images.to_pil(picture).save(held, format="PNG")
    return {"data": _uri(held.getvalue(), "image/png"), "width": picture.shape[-1], "height": picture.shape[-2]}


def _uri(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
