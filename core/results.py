"""Files of results: scores of `distk eval` merged by metric, each with what was measured, never erased by a failure."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor

from distk.console import jsonable
from distk.errors import DistkError, UsageError
from distk.files import own_file, read_text, write_atomic
from distk.version import __version__

SMALL = 1024
"""Arrays of at most so many numbers stand in the JSON as lists; larger ones are only in the file of arrays."""
LARGEST = 64 << 20
"""Bytes of JSON that we agree to read."""
_PARTS: dict[str, type] = {"metrics": dict, "failed": dict, "earlier": list}
SUBJECT = ("method", "seed_of_run", "source", "data", "data_settings")
"""What two results must share for both to stand in a file as results of now; the others of a file are earlier ones."""


def digest(tensors: Mapping[str, Tensor]) -> str:
    """16 hexadecimal digits that tell tensors apart by their names, dtypes, shapes and values."""
    mark = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        mark.update(f"{name} {value.dtype} {tuple(value.shape)} ".encode())
        mark.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return mark.hexdigest()[:16]


def measured(provenance: Mapping[str, Any], **subject: Any) -> dict[str, Any]:
    """What the scores of one command are of: the subject (a model with its weights, or a file), the data, and when."""
    keys = ("data", "data_settings", "split", "fit", "rows", "device")
    found = {key: provenance[key] for key in keys if key in provenance}
    return {**subject, **found, "distk": __version__, "at": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"}


def read(path: Path) -> dict[str, Any]:
    """What a file of results holds, empty where there is none: `metrics`, `failed`, `earlier`, `provenance`.

    Raises UsageError for a file that holds something else, which is not to be overwritten.
    """
    other = UsageError(f"'{path}' is there and holds no scores: name another file with --out, or move it away.")
    try:
        if path.stat().st_size > LARGEST:
            raise other
        found = json.loads(read_text(path))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise DistkError(f"cannot read '{path}': {error.strerror or error}.") from error
    except (ValueError, RecursionError):
        raise other from None
    parts = [found.get(key, kind()) for key, kind in _PARTS.items()] if isinstance(found, dict) else [None]
    for part, kind in zip(parts, _PARTS.values(), strict=False):
        members = list(part.values()) if isinstance(part, dict) else part
        if not isinstance(part, kind) or not all(isinstance(values, dict) for values in members or ()):
            raise other
    if "metrics" not in found:
        raise other
    return dict(found)


def stale(values: Mapping[str, Any], weights: str) -> bool:
    """Whether a result was measured on other weights than these, as far as it says; one that does not say is stale."""
    of = values.get("measured")
    return not isinstance(of, dict) or of.get("weights") != weights


def merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Results of now over those of a file. Each metric's newest success stands under `metrics`; a failure never takes
    its place but stands under `failed`; what was measured otherwise (settings, weights, data, rows) under `earlier`."""
    metrics: dict[str, Any] = {}
    failed, earlier = dict(old.get("failed", {})), list(old.get("earlier", ()))
    results: list[dict[str, Any]] = list(new["metrics"].values())
    now = results[0].get("measured") if results else None
    for name, values in old.get("metrics", {}).items():
        if _subject(values.get("measured")) == _subject(now) or "measured" not in values:
            metrics[name] = values
        elif "error" not in values:
            earlier.append(_numbers(name, values))
    for name, values in new["metrics"].items():
        before = metrics.get(name, {"error": ""})
        if "error" in values and "error" not in before:
            failed[name] = values
            continue
        failed.pop(name, None)
        if "error" not in before and _way(before) != _way(values):
            earlier.append(_numbers(name, before))
        metrics[name] = values
    return {
        **new,
        "metrics": metrics,
        **({"failed": failed} if failed else {}),
        **({"earlier": earlier} if earlier else {}),
    }


def _subject(of: Any) -> list[Any]:
    return [of.get(key) if isinstance(of, dict) else None for key in SUBJECT]


def _way(values: Mapping[str, Any]) -> dict[str, Any]:
    """How a result came about, without when."""
    of = values.get("measured")
    own = {k: v for k, v in of.items() if k not in ("at", "distk", "device")} if isinstance(of, dict) else {}
    return {"settings": values.get("settings"), "seeds": values.get("seeds"), **own}


def _numbers(name: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """A result without its arrays."""
    told = ("settings", "seeds", "measured")
    return {"metric": name, **{k: v for k, v in values.items() if not isinstance(v, (list, dict)) or k in told}}


def write(path: Path, result: dict[str, Any], of: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Merge a result into the JSON at `path`, and its arrays into `arrays_path(path)`. of: what was `measured`.

    Returns what was written for this result alone (small arrays as lists, larger ones as their shape and name in the
    file of arrays), and the whole file. Tensors there are called `<metric>/<key>`; the header repeats the names of
    codes and factors and the provenance.
    Raises DistkError when a file cannot be written, UsageError as `read`.
    """
    old = read(path)
    tensors: dict[str, Tensor] = {}
    plain: dict[str, Any] = {}
    for name, values in result["metrics"].items():
        plain[name] = {}
        for key, value in values.items():
            if isinstance(value, (np.ndarray, Tensor)):
                array = torch.as_tensor(value).detach().cpu().contiguous()
                tensors[f"{name}/{key}"] = array
                value = array if array.numel() <= SMALL else {"shape": list(array.shape), "stored": f"{name}/{key}"}
            plain[name][key] = value
    result = jsonable({**result, "metrics": plain})
    told = {name: {**v, "measured": {**of, "split": v.get("split", of.get("split"))}} for name, v in plain.items()}
    whole = merged(old, jsonable({**result, "metrics": told}))
    arrays = arrays_path(path)
    new = {name for name, values in result["metrics"].items() if "error" not in values}
    if tensors:
        kept = {k: v for k, v in _arrays(arrays) if k.rpartition("/")[0] in whole["metrics"].keys() - new}
        names = {n: {k: v[k] for k in ("code_names", "factor_names") if k in v} for n, v in whole["metrics"].items()}
        meta = {key: json.dumps(value) for key, value in (("names", names), ("of", result["provenance"]))}
        write_atomic(arrays, to_bytes({**kept, **tensors}, metadata=meta))
    for each in (result, whole) if tensors else ():
        each["provenance"] = {**each["provenance"], "arrays": arrays.name}
    write_atomic(path, (json.dumps(whole, indent=2, allow_nan=False) + "\n").encode())
    return result, whole


def _arrays(path: Path) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a file of arrays; none where there is no sound one."""
    with contextlib.suppress(OSError, SafetensorError):
        os.close(own_file(path))  # no link, no pipe
        with safe_open(path, framework="pt") as file:
            for name in file.keys():
                yield name, file.get_tensor(name)


def arrays_path(path: Path) -> Path:
    """Where the arrays of the results in `path` are kept. Its `.eval` keeps it apart from any checkpoint."""
    return path.with_name(f"{path.name.removesuffix('.json').removesuffix('.eval')}.eval.safetensors")


def beside(checkpoint: Path) -> list[Path]:
    """The files of results that `distk eval` has written beside a checkpoint, of all data and splits."""
    stem = checkpoint.stem
    named = (p for p in checkpoint.parent.iterdir() if p.name.endswith(".eval.json"))
    return sorted(p for p in named if p.name == f"{stem}.eval.json" or p.name.startswith(f"{stem}."))
