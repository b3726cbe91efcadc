"""What a run keeps of the identity of its data, and what has changed when it is taken up again."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch

from distk.data import Dataset

PROBED = 256
"""Items that go into the digest, spread evenly."""
BYTES = 1 << 24
"""Bytes of items that go into it at most."""


def identity(dataset: Dataset) -> dict[str, Any]:
    """Plain values: `items` and `splits` (name -> count), and `digest`, a fingerprint of the rows of the splits, of all
    labels and factors and, where items are held whole, of some that are spread evenly over them.

    It is the same on every device, and on the host.
    """
    digest = hashlib.sha256()
    tables = {"label": getattr(dataset, "label", None), "factors": getattr(dataset, "table", None), **dataset.parts}
    for name, held in sorted(tables.items()):
        if isinstance(held, torch.Tensor) and not held.is_floating_point():
            digest.update(f"{name} {tuple(held.shape)}\n".encode())
            digest.update(held.long().cpu().numpy().tobytes())
    for stored in dataset.stored:
        items = stored.items
        count = min(PROBED, len(items), max(1, BYTES // max(1, items[:1].nbytes)))
        rows = torch.linspace(0, len(items) - 1, count, dtype=torch.float64).long().to(items.device)
        digest.update(f"items {tuple(items.shape)} {items.dtype}\n".encode())
        digest.update(items[rows].cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return {
        "items": len(dataset),
        "splits": {name: len(rows) for name, rows in dataset.parts.items()},
        "digest": digest.hexdigest()[:16],
    }


def changes(before: Any, now: Mapping[str, Any]) -> list[str]:
    """What differs, in words; nothing where a checkpoint knows nothing of its data's identity."""
    if not isinstance(before, Mapping):
        return []
    found = []
    if before.get("items") != now["items"]:
        found.append(f"{_shown(before.get('items'))} items then, {now['items']:,} now")
    splits = before.get("splits")
    held = splits if isinstance(splits, Mapping) else {}
    for name in dict.fromkeys([*map(str, held), *now["splits"]]):
        one, other = held.get(name), now["splits"].get(name)
        if one != other:
            found.append(f"split {name[:40]}: {_shown(one)} then, {_shown(other)} now")
    if not found and before.get("digest") != now["digest"]:
        found.append("as many items, but items, labels or splits are others")
    return found


def _shown(count: Any) -> str:
    return f"{count:,}" if isinstance(count, int) else "none"
