"""The table of codes that metrics read: made by a model, or kept since this very model made it of these very rows."""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor

from distk.config import to_dict
from distk.console import note
from distk.data import Dataset, Split
from distk.errors import DistkError
from distk.files import own_file, write_atomic
from distk.kept import cache_folder
from distk.method import Method
from distk.metric import CodeTable, chosen_rows, encode_table
from distk.version import __version__

CODES_KEPT = 30 * 86400
"""Seconds after which codes in the cache folder are removed."""


def uncoded_table(model: Method, data: Dataset, split: Split, rows: int | None, seed: int) -> CodeTable:
    """A table without codes, for metrics that read only model and data; its rows are those that were asked for, or None
    where it is all of them."""
    codes = torch.zeros(0, len(model.latents.columns), device=data.device)
    names, kinds = model.latents.columns, model.latents.column_kinds
    asked = None if split == "all" and rows is None else chosen_rows(data, split, rows, seed)
    return CodeTable(codes, names, kinds, model=model, dataset=data, rows=asked, source=f"data set '{data.name}'")


def cached_table(
    model: Method, data: Dataset, split: Split, rows: int | None, seed: int, cache: Path | None
) -> CodeTable:
    """The table of codes, read from `cache` when it was made by this very model on these very rows."""
    if cache is None:
        return encode_table(model, data, rows=rows, split=split, seed=seed)
    digest = _fingerprint(model, data, split, rows, seed)
    try:
        os.close(own_file(cache))  # no link, no pipe
        with safe_open(cache, framework="pt") as file:
            meta = file.metadata() or {}
            if meta.get("digest") == digest:
                held = {name: file.get_tensor(name) for name in file.keys()}
                if meta.get("contents") == contents(held) and _possible(model, data, held):
                    note("codes: from the cache, as this model encoded these rows before")
                    return _from_cache(model, data, held, meta["grid"] == "1")
    except (OSError, SafetensorError, KeyError):
        pass  # no cache yet, or a damaged one: it is only a cache
    table = encode_table(model, data, rows=rows, split=split, seed=seed)
    tensors = {"codes": table.codes, "rows": table.rows, "std": table.std, "kl": table.kl, "factors": table.factors}
    host = {k: v.cpu().contiguous() for k, v in tensors.items() if v is not None}
    meta = {"digest": digest, "grid": str(int(table.grid)), "contents": contents(host)}
    with contextlib.suppress(DistkError, OSError):  # a read-only folder costs the next one an encoding pass, no more
        cache.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(cache, to_bytes(host, metadata=meta))
    return table


def codes_cache(checkpoint: Path, part: str = "") -> Path:
    """Where the codes of a checkpoint are kept: in the user's cache folder, since whoever made a run folder could put
    codes of their own into it. part: tells a split from others. Files that were not written for a month are removed."""
    folder = cache_folder() / "codes"
    with contextlib.suppress(OSError):
        for old in folder.glob("*.safetensors"):
            if time.time() - old.lstat().st_mtime > CODES_KEPT:
                old.unlink()
    place = os.fsencode(os.path.abspath(checkpoint)) + b"\0" + part.encode()
    return folder / f"{hashlib.sha256(place).hexdigest()[:24]}.safetensors"


def _possible(model: Method, data: Dataset, held: Mapping[str, Tensor]) -> bool:
    """Whether tensors can be a table of this model's codes of rows of these data."""
    codes, rows, d = held["codes"], held["rows"], len(model.latents.columns)
    sound = codes.dim() == 2 and codes.shape[1] == d and rows.dtype == torch.int64 and rows.shape == codes.shape[:1]
    return sound and (not len(rows) or 0 <= int(rows.min()) <= int(rows.max()) < len(data))


def _fingerprint(model: Method, data: Dataset, split: Split, rows: int | None, seed: int) -> str:
    """What a table of codes depends on: the program, the model and its parameters, the data and a few of its items."""
    told = (
        *(__version__, str(torch.__version__), data.device.type, type(model).__qualname__, to_dict(model.config)),
        *(data.name, data.origin, to_dict(data.config), len(data), split, rows, seed),
    )
    mark = hashlib.sha256(repr(told).encode())
    for name, value in sorted(model.state_dict().items()):
        mark.update(name.encode() + _bytes(value))
    some = torch.linspace(0, len(data) - 1, min(16, len(data)), dtype=torch.float64).long().to(data.device)
    mark.update(_bytes(data.batch(some)["x"]))
    return mark.hexdigest()


def contents(tensors: Mapping[str, Tensor]) -> str:
    """A digest of tensors by name, kind, shape and bytes: a table changed after it was kept is not believed."""
    mark = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        mark.update(f"{name} {value.dtype} {tuple(value.shape)}".encode() + _bytes(value))
    return mark.hexdigest()


def _bytes(value: Tensor) -> bytes:
    return value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()


def _from_cache(model: Method, data: Dataset, held: dict[str, Tensor], grid: bool) -> CodeTable:
    held = {name: value.to(data.device) for name, value in held.items()}
    return CodeTable(
        held["codes"],
        model.latents.columns,
        model.latents.column_kinds,
        held.get("factors"),
        getattr(data, "factor_names", ()),
        getattr(data, "factor_sizes", ()),
        getattr(data, "factor_kinds", ()),
        grid,
        held.get("std"),
        held.get("kl"),
        model,
        data,
        held["rows"],
        f"data set '{data.name}'",
    )
