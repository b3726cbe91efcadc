"""`distk study jade`: Table 1 of JADE, three methods by several seeds, with the test errors on both data sets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from distk.commands.arguments import Device, Json
from distk.errors import UsageError

if TYPE_CHECKING:
    from distk.settings import Settings

METHODS = ("jade-single", "jade-paired", "jade")
PAPER = (
    ("VAE M1+M2 (Kingma 2014)", "36.02 +- 0.10", "-", "saw all of SVHN unlabelled: not comparable"),
    ("Siddharth et al. 2017", "28.71 +- 2.38", "-", "saw all of SVHN unlabelled: not comparable"),
    ("jade-single", "32.31 +- 1.56", "-", ""),
    ("jade-paired", "30.17 +- 2.77", "0.82 +- 0.05", ""),
    ("jade", "29.08 +- 0.92", "0.72 +- 0.03", ""),
)
"""Table 1: error on SVHN with 1,000 labels and on MNIST, %, mean and standard deviation of three runs."""
ENOUGH = 10
"""Runs below which the difference of two methods is not worth a claim: the paper's own lies within one deviation."""


def study(
    runs: Annotated[int, typer.Option(help="Seeds per method.", min=1, max=1000)] = 3,
    method: Annotated[list[str] | None, typer.Option(help="Only this method; repeatable.")] = None,
    primary: Annotated[str | None, typer.Option(help="Data set with few labels, such as svhn.")] = None,
    secondary: Annotated[str | None, typer.Option(help="Data set with many, such as mnist.")] = None,
    labels_per_class: Annotated[int | None, typer.Option(help="Labels of the primary per class.", min=1)] = None,
    difficulty: Annotated[str | None, typer.Option(help="full or easy, of styled-digits.")] = None,
    steps: Annotated[int | None, typer.Option(help="Training steps of each run.", min=1)] = None,
    batch: Annotated[int | None, typer.Option(help="Pairs per step.", min=1)] = None,
    preset: Annotated[str | None, typer.Option(help="demo or paper.")] = None,
    seed: Annotated[int, typer.Option(help="First seed.", min=0)] = 0,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder of the runs; finished ones are not repeated.")
    ] = Path("runs/jade-study"),
    data_dir: Annotated[Path | None, typer.Option(help="Folder of both data sets' files.")] = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Train jade and its baselines over several seeds and print their test errors (Table 1).

    Interrupted, it goes on where it stopped. Writes table.json into the folder.

    Example: distk study jade --runs 3 --primary svhn --secondary mnist --data-dir DIR
    """
    from distk import console
    from distk.evaluation import evaluate
    from distk.files import write_atomic
    from distk.models import open_model

    methods = tuple(method or METHODS)
    if unknown := [name for name in methods if name not in METHODS]:
        raise UsageError(f"--method '{unknown[0]}' is none of {', '.join(METHODS)}.")
    data = {
        "primary": primary,
        "secondary": secondary,
        "labels_per_class": labels_per_class,
        "difficulty": difficulty,
        "dir": None if data_dir is None else str(data_dir),
    }
    data = {key: value for key, value in data.items() if value is not None}
    train = {key: value for key, value in (("steps", steps), ("batch", batch)) if value is not None}
    plan = [
        (name, s, _settings(name, preset, data, {**train, "seed": s, "device": device}))
        for s in range(seed, seed + runs)
        for name in methods
    ]
    found: dict[str, list[dict[str, float]]] = {name: [] for name in methods}
    for i, (name, s, settings) in enumerate(plan):
        folder = out / f"{name}-s{s}"
        console.note(f"run {i + 1} of {len(plan)}: {name}, seed {s}, in {folder}")
        _trained(settings, folder)
        model, _ = open_model(folder / "checkpoint.safetensors", device)
        scored = evaluate(model, ["error"])["metrics"]["error"]
        if "images" not in scored:
            raise UsageError(f"'{folder}' could not be scored: {scored.get('error')}")
        found[name].append(scored)
    result = {"runs": runs, "seeds": [seed, seed + runs], "settings": plan[0][2].to_dict(), **summary(found)}
    text = json.dumps(console.jsonable(result), indent=2, allow_nan=False)
    write_atomic(out / "table.json", f"{text}\n".encode())
    if as_json:
        console.emit_json(result)
    else:
        _show(result, plan[0][2].data_options)


def _settings(method: str, preset: str | None, data: dict[str, Any], train: dict[str, Any]) -> Settings:
    """Settings of one run."""
    from distk.settings import resolve

    return resolve(method, preset=preset, options={"data": {"name": "class-pairs", **data}, "train": train})


def _trained(settings: Settings, folder: Path) -> None:
    """Train the run in `folder`, or what is left of it.

    Raises UsageError when the folder holds a run of other settings.
    """
    from distk import checkpoint
    from distk.config import to_dict
    from distk.training.loop import resume, train

    file = folder / "checkpoint.safetensors"
    if not file.exists():
        train(settings, folder)
        return
    header = checkpoint.read_header(file)
    held = (header.method, header.config, header.data.get("options"), header.train.get("batch"), header.seed)
    asked = (settings.entry.name, to_dict(settings.model), settings.data_options, settings.train.batch)
    if held != (*asked, settings.train.seed) or header.train.get("steps") != settings.train.steps:
        raise UsageError(f"'{folder}' holds a run of other settings: name another --out.")
    if header.step < settings.train.steps:
        resume(folder)


def summary(found: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """Errors of each method and run -> mean and standard deviation, and jade against each other method.

    p: of the paired t-test over seeds, two-sided.
    """
    import numpy as np
    from scipy.stats import ttest_rel

    methods: dict[str, dict[str, Any]] = {}
    for name, runs in found.items():
        methods[name] = {}
        for key in ("error_primary", "error_secondary"):
            values = [float(run[key]) for run in runs]
            deviation = float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")
            methods[name][key] = {"mean": float(np.mean(values)), "std": deviation, "values": values}
    differences = {}
    for name in found:
        if name == "jade" or "jade" not in found:
            continue
        ours, theirs = (methods[m]["error_primary"]["values"] for m in ("jade", name))
        p = float(ttest_rel(ours, theirs).pvalue) if len(ours) > 1 else float("nan")
        differences[name] = {"jade_minus": float(np.mean(ours) - np.mean(theirs)), "p": p}
    return {"methods": methods, "differences": differences}


def _show(result: dict[str, Any], data: dict[str, Any]) -> None:
    from distk import console

    def shown(value: dict[str, Any]) -> str:
        if value["mean"] != value["mean"]:
            return "-"
        spread = "" if value["std"] != value["std"] else f" +- {100 * value['std']:.2f}"
        return f"{100 * value['mean']:.2f}{spread}"

    names = [data.get("primary", "styled-digits"), data.get("secondary", "digits28")]
    rows = [(m, shown(v["error_primary"]), shown(v["error_secondary"])) for m, v in result["methods"].items()]
    columns = ("method", f"{names[0]} error, %", f"{names[1]} error, %")
    console.table(f"{result['runs']} runs, last iterates", columns, rows)
    if names == ["svhn", "mnist"]:
        console.out.print("")
        console.table("the paper's Table 1, 3 runs", ("method", "svhn error, %", "mnist error, %", "note"), PAPER)
    for name, value in result["differences"].items():
        p = "" if value["p"] != value["p"] else f", paired t-test p = {value['p']:.3f}"
        few = f"; {ENOUGH} runs or more are needed to claim a difference" if result["runs"] < ENOUGH else ""
        console.note(f"jade - {name}: {100 * value['jade_minus']:+.2f} points{p}{few}")
