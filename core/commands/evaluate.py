"""`distk eval`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from distk.commands.shared import Checkpoint, DataDir, DataName, Device, Json, Out, Seed, its_data, opened, require
from distk.errors import DistkError, UsageError


def add(app: typer.Typer) -> None:
    """Register `eval`."""
    app.command("eval")(evaluate)


def evaluate(
    checkpoint: Checkpoint = None,
    metric: Annotated[
        list[str] | None, typer.Option("--metric", "-m", help="Metric, repeatable; `all` for every one.")
    ] = None,
    codes: Annotated[
        Path | None, typer.Option(help="Score an npz with `codes` [n, D] and `factors` [n, K] instead.")
    ] = None,
    data: DataName = None,
    data_dir: DataDir = None,
    split: Annotated[str, typer.Option(help="all, train or test.")] = "all",
    rows: Annotated[int | None, typer.Option(help="Encode at most so many items; default: all.", min=1)] = None,
    repeats: Annotated[
        int | None, typer.Option(help="Seeds per metric; default: 1, or 5 for sampled scores.", min=1)
    ] = None,
    protocol: Annotated[
        str | None, typer.Option(help="Variant of the metric, for example dlib, cascadevae, paper.")
    ] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Another setting of the metric: NAME=VALUE.")] = None,
    seed: Seed = 0,
    device: Device = "auto",
    out: Out = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 1 if any metric fails, not only if all do.")
    ] = False,
    json: Json = False,
) -> None:
    """Measure a trained model, or anybody's codes, with one pass of encoding.

    Example: distk eval runs/my-run --metric dci --metric factorvae
    """
    from distk import console
    from distk.checkpoint import write_atomic
    from distk.evaluation import evaluate as score
    from distk.evaluation import expand, table_from_arrays

    names = expand(metric or [])
    if not names:
        raise UsageError("name at least one --metric; `distk list metrics` shows them.")
    if split not in ("all", "train", "test"):
        raise UsageError(f"--split '{split}' is none of all, train, test.")
    settings = _settings(protocol, set_ or [])
    if codes is not None:
        if checkpoint is not None:
            raise UsageError("give a checkpoint or --codes, not both.")
        path, result = codes, score(table_from_arrays(codes), names, seed=seed, repeats=repeats, **settings)
    else:
        path, model, header = opened(checkpoint, device)
        require(model, header, "eval", "encode")
        dataset = its_data(model, header, data, data_dir)
        cache = path.with_name(f".{path.stem}.codes.safetensors")
        result = score(
            model, names, data=dataset, split=split, rows=rows, seed=seed, repeats=repeats, cache=cache, **settings
        )
    result = {"checkpoint": str(path), **result}
    text = __import__("json").dumps(console.jsonable(result), indent=2, allow_nan=False) + "\n"
    target = out or path.with_name(f"{path.stem}.eval.json")
    if out is not None or codes is None:
        try:
            write_atomic(target, text.encode())
        except DistkError as error:
            console.warn(str(error))
    if json:
        console.emit_json(result)
    else:
        _print(result)
    _exit_code(result["metrics"], strict)


def _settings(protocol: str | None, pairs: list[str]) -> dict[str, Any]:
    settings: dict[str, Any] = {} if protocol is None else {"protocol": protocol}
    for pair in pairs:
        name, found, value = pair.partition("=")
        if not found:
            raise UsageError(f"--set '{pair}' is not understood; write NAME=VALUE.")
        settings[name.replace("-", "_")] = {"true": True, "false": False}.get(value, value)
    return settings


def _print(result: dict[str, Any]) -> None:
    from distk import console

    rows: list[tuple[Any, ...]] = []
    notes = []
    for name, values in result["metrics"].items():
        if "error" in values:
            notes.append(f"{name}: {values['error']}")
            continue
        numbers = {k: v for k, v in values.items() if isinstance(v, (int, float)) and not k.endswith("_std")}
        spread = {k: values.get(f"{k}_std") for k in numbers}
        rows += [(name, k, float(v), spread[k], values.get("repeats", 1)) for k, v in numbers.items() if k != "repeats"]
        notes += [f"{name}, {key}: {reason}" for key, reason in values.get("reasons", {}).items()]
    if rows:
        several = any(row[4] > 1 for row in rows)
        columns = ("metric", "key", "value", "std", "seeds") if several else ("metric", "key", "value")
        console.table("", columns, [row[: len(columns)] for row in rows])
    say = console.note if rows else console.error
    for line in dict.fromkeys(notes):
        say(line)


def _exit_code(results: dict[str, Any], strict: bool) -> None:
    failed = [name for name, values in results.items() if "error" in values]
    if failed and (strict or len(failed) == len(results)):
        raise typer.Exit(1)
