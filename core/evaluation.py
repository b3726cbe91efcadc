"""Runs metrics over one table of codes; a metric that fails becomes a row with its reason, the others are kept."""

from __future__ import annotations

import contextlib
import hashlib
import platform
import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes

from distk.checkpoint import write_atomic
from distk.config import from_dict, hints, to_dict
from distk.data import Dataset, Split
from distk.errors import DistkError, UsageError
from distk.method import Method
from distk.metric import CodeTable, Metric, encode_table
from distk.registry import registry


def build_metric(name: str, options: Mapping[str, Any] | None = None) -> tuple[str, Metric]:
    """A registered metric by name or alias, with those of `options` that its Config has: (name, metric)."""
    entry = registry().find("metric", name)
    cls = entry.load()
    known = {key: value for key, value in (options or {}).items() if key in hints(cls.Config)}
    return entry.name, cls(from_dict(cls.Config, known, f"metric '{entry.name}'"))


def expand(names: Iterable[str]) -> list[str]:
    """Metric names with `all` replaced by every registered one; each once, in order."""
    every = [entry.name for entry in registry().entries("metric")]
    found = [n for name in names for n in (every if name == "all" else [registry().find("metric", name).name])]
    return list(dict.fromkeys(found))


def score(table: CodeTable, name: str, options: Mapping[str, Any], seed: int, repeats: int | None) -> dict[str, Any]:
    """One metric's result: its keys, averaged over repeats, with `<key>_std` and `repeats` where there are several.

    Arrays are those of the first repeat. A failure gives {"error": reason}.
    """
    try:
        name, metric = build_metric(name, options)
        if metric.needs_model and table.model is None:
            raise UsageError(f"metric '{name}' looks at items, so it needs a checkpoint rather than a file of codes.")
        runs = [dict(metric.compute(table, seed + i)) for i in range(repeats or metric.repeats)]
    except (DistkError, ValueError, ArithmeticError, np.linalg.LinAlgError, MemoryError, ImportError) as error:
        return {"error": str(error) or type(error).__name__}
    except RuntimeError as error:  # out of memory, a shape that a metric did not expect
        return {"error": f"{type(error).__name__}: {str(error).splitlines()[0]}"}
    result = dict(runs[0])
    if len(runs) > 1:
        for key in [k for k, v in result.items() if isinstance(v, float)]:
            values = [run[key] for run in runs]
            result[key] = statistics.fmean(values)
            result[f"{key}_std"] = statistics.stdev(values) if all(np.isfinite(values)) else float("nan")
        result["repeats"] = len(runs)
    result["settings"] = to_dict(metric.config)
    return result


def evaluate(
    model: Method | CodeTable,
    metrics: Iterable[str],
    *,
    data: Dataset | None = None,
    split: Split = "all",
    rows: int | None = None,
    seed: int = 0,
    repeats: int | None = None,
    cache: Path | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Score a model, or a table of codes: {"metrics": {name: {key: value}}, "provenance": {...}}.

    data: what to encode; by default the data set that the model was trained on. rows: at most so many items.
    repeats: seeds per metric; None takes each metric's own number. cache: file for the table of codes.
    options: settings of the metrics (`protocol="cascadevae"`), each given to those metrics that have it.
    Raises UsageError for an unknown metric or an option that none of the metrics has.
    """
    names = expand([metrics] if isinstance(metrics, str) else metrics)
    known = {key for name in names for key in _settings_of(name)}
    for key in options:
        if key not in known:
            raise UsageError(f"none of the metrics {', '.join(names)} has the setting '{key}'.")
    if isinstance(model, CodeTable):
        table = model
    else:
        data = data if data is not None else model.__dict__["dataset"]()
        coded = any(registry().find("metric", name).load().needs_codes for name in names)
        table = _cached_table(model, data, split, rows, seed, cache) if coded else _uncoded_table(model, data)
    results = {name: score(table, name, options, seed, repeats) for name in names}
    return {"metrics": results, "provenance": provenance(table, seed)}


def _settings_of(name: str) -> set[str]:
    """Names of a metric's settings; none for a metric that cannot be imported, which fails alone later on."""
    try:
        return set(hints(registry().find("metric", name).load().Config))
    except DistkError:
        return set()


def provenance(table: CodeTable, seed: int) -> dict[str, Any]:
    """What a figure depends on besides the model: data, rows, seed, versions, device."""
    import sklearn

    import distk

    return {
        "data": getattr(table.dataset, "name", "") or table.source,
        "origin": getattr(table.dataset, "origin", ""),
        "data_settings": to_dict(table.dataset.config) if table.dataset is not None else {},
        "rows": len(table),
        "grid": table.grid,
        "code": table.extra.get("code", "mean"),
        "seed": seed,
        "device": str(table.codes.device),
        "versions": {
            "distk": distk.__version__,
            "torch": torch.__version__,
            "numpy": np.__version__,
            "scikit-learn": sklearn.__version__,
            "python": platform.python_version(),
        },
    }


def _uncoded_table(model: Method, data: Dataset) -> CodeTable:
    """A table without rows, for metrics that read only model and data."""
    codes = torch.zeros(0, len(model.latents.columns), device=data.device)
    names, kinds = model.latents.columns, model.latents.column_kinds
    return CodeTable(codes, names, kinds, model=model, dataset=data, source=f"data set '{data.name}'")


def _cached_table(
    model: Method, data: Dataset, split: Split, rows: int | None, seed: int, cache: Path | None
) -> CodeTable:
    """The table of codes, read from `cache` when it was made by this very model on these very rows."""
    if cache is None:
        return encode_table(model, data, rows=rows, split=split, seed=seed)
    mark = hashlib.sha256(f"{data.name} {data.origin} {to_dict(data.config)} {split} {rows} {seed}".encode())
    for name, value in sorted(model.state_dict().items()):
        mark.update(name.encode() + value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    digest = mark.hexdigest()
    try:
        with safe_open(cache, framework="pt") as file:
            if (file.metadata() or {}).get("digest") == digest:
                return _from_cache(model, data, file)
    except (OSError, SafetensorError):
        pass  # no cache yet, or a damaged one: it is only a cache
    table = encode_table(model, data, rows=rows, split=split, seed=seed)
    tensors = {"codes": table.codes, "rows": table.rows, "std": table.std, "kl": table.kl, "factors": table.factors}
    host = {k: v.cpu().contiguous() for k, v in tensors.items() if v is not None}
    meta = {"digest": digest, "grid": str(int(table.grid))}
    with contextlib.suppress(DistkError):  # a read-only folder costs the next evaluation an encoding pass, no more
        write_atomic(cache, to_bytes(host, metadata=meta))
    return table


def _from_cache(model: Method, data: Dataset, file: Any) -> CodeTable:
    held = {name: file.get_tensor(name).to(data.device) for name in file.keys()}
    return CodeTable(
        held["codes"],
        model.latents.columns,
        model.latents.column_kinds,
        held.get("factors"),
        getattr(data, "factor_names", ()),
        getattr(data, "factor_sizes", ()),
        getattr(data, "factor_kinds", ()),
        file.metadata()["grid"] == "1",
        held.get("std"),
        held.get("kl"),
        model,
        data,
        held["rows"],
        f"data set '{data.name}'",
    )


def table_from_arrays(path: Path) -> CodeTable:
    """A table from an npz with `codes` [n, D] and optionally `factors` [n, K], `factor_names`, `code_names`.

    Raises DistkError for a file that is no npz, holds pickled members, or lacks `codes`.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {
                name: file[name] for name in file.files if name in ("codes", "factors", "factor_names", "code_names")
            }
    except (OSError, ValueError, EOFError, KeyError) as error:
        raise DistkError(f"cannot read codes from '{path}': {error}.") from error
    except Exception as error:  # zipfile and zlib raise a family of their own for damaged archives
        raise DistkError(f"'{path}' is no sound npz file ({type(error).__name__}).") from error
    if "codes" not in arrays or arrays["codes"].ndim != 2 or arrays["codes"].dtype.kind not in "fiu":
        raise DistkError(f"'{path}' must hold a numeric array 'codes' of shape [n, D].")
    codes = torch.from_numpy(arrays["codes"].astype(np.float64))
    if not bool(codes.isfinite().all()):
        first = int((~codes.isfinite()).any(0).nonzero()[0, 0])
        raise DistkError(f"column {first} of 'codes' in '{path}' has values that are not finite.")
    names = [str(n) for n in arrays.get("code_names", [f"c{i + 1}" for i in range(codes.shape[1])])]
    table = CodeTable(codes, names, ["continuous"] * codes.shape[1], source=f"'{path}'")
    if "factors" in arrays:
        factors = arrays["factors"]
        if factors.ndim != 2 or len(factors) != len(codes) or factors.dtype.kind not in "fiu":
            raise DistkError(f"'factors' in '{path}' has shape {factors.shape}; expected [{len(codes)}, K] numbers.")
        table.factors = torch.from_numpy(factors.astype(np.float64 if factors.dtype.kind == "f" else np.int64))
        given = arrays.get("factor_names", [f"f{i + 1}" for i in range(factors.shape[1])])
        table.factor_names = tuple(str(n) for n in given)
        table.factor_sizes = tuple(len(np.unique(factors[:, k])) for k in range(factors.shape[1]))
        table.factor_kinds = ("ordinal",) * factors.shape[1]
    return table
