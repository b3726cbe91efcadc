"""What `distk eval` writes: where, of what, and what becomes of earlier scores."""

from __future__ import annotations

import contextlib
import glob
import hashlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from distk import console, look
from distk.commands.shared import UNFIT, OnRows
from distk.files import write_atomic
from distk.metric import Picture, contents
from distk.results import arrays_path, digest, measured, stale, write


def target_of(on: OnRows, codes: Path | None, split: str, several: bool) -> Path | None:
    """The JSON file of a split's result; several: whether there are more, so that `--out` names the first part."""
    if codes is not None:
        return on.out
    if on.out is None:
        parts = [on.path.stem, on.other_data(), split if split != "all" or several else ""]
        return on.path.with_name(".".join([*filter(None, parts), "eval", "json"]))
    return on.out.with_name(f"{on.out.stem}.{split}{on.out.suffix}") if several else on.out


def subject_of(on: OnRows, codes: Path | None) -> dict[str, Any]:
    """Whose codes are scored: a model at a step, with its settings and what tells its weights apart, or a file."""
    if codes is not None:
        return {"source": codes.name, "weights": hashlib.sha256(codes.read_bytes()).hexdigest()[:16]}
    told = {"method": on.header.method, "model": dict(on.header.config), "seed_of_run": on.header.seed}
    return {**told, "step": on.header.step, "weights": digest(on.model.state_dict())}


def written(
    target: Path, result: dict[str, Any], subject: dict[str, Any], drawn: dict[str, Picture], both: bool
) -> dict[str, Any]:
    """Write JSON, arrays and pictures, and remove pictures of the same metrics that are no longer drawn."""
    stem = arrays_path(target).name.removesuffix(".safetensors")
    files = dict(_contents(stem, drawn, both))
    if files:
        result = {**result, "provenance": {**result["provenance"], "pictures": list(files)}}
    result, whole = write(target, result, measured(result["provenance"], **subject))
    for name, content in files.items():
        write_atomic(target.with_name(name), content)
    _remove_old(
        target, stem, [UNFIT.sub("-", n) for n, values in result["metrics"].items() if "error" not in values], files
    )
    console.note(f"written: {target}" + (f" and {console.counted(len(files), 'picture')} beside it" if files else ""))
    _tell_of_others(whole, result)
    return result


def _remove_old(target: Path, stem: str, metrics: list[str], files: Collection[str]) -> None:
    """Remove pictures of earlier scores of these metrics."""
    for path in target.parent.glob(f"{glob.escape(stem)}.*"):
        ours = path.suffix in look.FORMS and any(path.name.startswith(f"{stem}.{name}.") for name in metrics)
        if ours and path.name not in files:
            with contextlib.suppress(OSError):
                path.unlink()


def _tell_of_others(whole: dict[str, Any], result: dict[str, Any]) -> None:
    """Say which other scores the file holds, which of them are of other weights, and what failed now but not before."""
    weights = result["provenance"]["weights"]
    others = {n: v for n, v in whole["metrics"].items() if n not in result["metrics"] and "error" not in v}
    old = {name: values for name, values in others.items() if stale(values, weights)}
    if current := others.keys() - old.keys():
        console.note(f"the file also holds: {', '.join(sorted(current))}")
    for name, values in old.items():
        step = values.get("measured", {}).get("step")
        when = f"of step {step:,}" if isinstance(step, int) else "of an unknown step"
        console.warn(f"the file also holds {name} {when}, which is stale: the weights are others now.")
    for name, values in result["metrics"].items():
        if "error" in values and "error" not in whole["metrics"].get(name, values):
            console.note(f"the earlier score of {name} stays in the file")


def _contents(stem: str, drawn: dict[str, Picture], both: bool) -> Iterator[tuple[str, bytes]]:
    for name, picture in drawn.items():
        suffixes = [look.chosen().suffix or ".png", *([".svg"] if both else [])]
        for suffix in dict.fromkeys(suffixes):
            yield f"{stem}.{name}{suffix}", contents(picture, suffix)
