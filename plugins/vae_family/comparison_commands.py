"""`distk study discrete`, `study factorvae` and `study dip`: methods and settings side by side, over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from distk.errors import UsageError

if TYPE_CHECKING:
    from distk.plugins.vae_family.comparison import Plan, Variant

Out = Annotated[Path | None, typer.Option("--out", "-o", help="Folder of all runs; default: runs/study-NAME.")]
Seeds = Annotated[int, typer.Option(help="Seeds 0 to N-1 of each.", min=1, max=1000)]
Data = Annotated[str | None, typer.Option(help="Data set for all; default: that of the first method's preset.")]
Preset = Annotated[str, typer.Option(help="demo, paper, or none for the methods' defaults.")]
Steps = Annotated[int | None, typer.Option(help="Training steps of each; default: the preset's.", min=1)]
Config = Annotated[
    Path | None,
    typer.Option(help="TOML file with [data] and [train] for all and [model.METHOD]; or discrete-small, ours."),
]
Column = Annotated[list[str] | None, typer.Option("--column", help="METRIC.KEY, as `distk eval` names it; repeatable.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]

TABLE = ("factorvae.eval", "clsacc.hungarian", "reconstruction.nll_image")


def discrete(
    methods: Annotated[str, typer.Option(help="Comma-separated.")] = "cascadevae,jointvae,factorvae,betavae",
    seeds: Seeds = 3,
    data: Data = None,
    preset: Preset = "demo",
    steps: Steps = None,
    config: Config = None,
    protocol: Annotated[
        str, typer.Option(help="Of the FactorVAE score: cascadevae counts a discrete code.")
    ] = "cascadevae",
    column: Column = None,
    out: Out = None,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Train several methods with several seeds on one data set: mean, standard deviation and best of each score.

    The table of Jeong & Song (2019). A run that is finished is not trained again, so the command can be repeated.

    Example: distk study discrete --seeds 3 --config discrete-small
    """
    from distk.plugins.vae_family.comparison import Variant

    given = _config(config)
    variants = [Variant(name, name, given.get("model", {}).get(name, {})) for name in _words(methods, "methods")]
    columns = column or list(TABLE)
    plan = _plan("discrete", variants, seeds, columns, out, preset, data, given, steps, device, {"protocol": protocol})
    _carry_out(plan, json)


def factorvae(
    gammas: Annotated[str, typer.Option(help="Weights of the total correlation.")] = "10,35,100",
    betas: Annotated[str, typer.Option(help="Weights of the KL term, for beta-VAE.")] = "1,4,8",
    seeds: Seeds = 3,
    data: Data = None,
    preset: Preset = "demo",
    steps: Steps = None,
    config: Config = None,
    out: Out = None,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Disentanglement against reconstruction for FactorVAE's gamma and beta-VAE's beta (Kim & Mnih, Figure 3).

    Example: distk study factorvae --gammas 10,35 --betas 1,4 --seeds 2
    """
    variants = [*_sweep("factorvae", "gamma", gammas), *_sweep("betavae", "beta", betas)]
    columns = ["reconstruction.nll_image", "betavae.eval", "factorvae.eval"]
    plan = _plan("factorvae", variants, seeds, columns, out, preset, data, _config(config), steps, device, {})
    _carry_out(plan, json, ("reconstruction.nll_image", "factorvae.eval"))


def dip(
    lambdas: Annotated[str, typer.Option(help="Weights of the off-diagonal covariance, for DIP-VAE.")] = "1,5,20",
    betas: Annotated[str, typer.Option(help="Weights of the KL term, for beta-VAE.")] = "1,4,16",
    seeds: Seeds = 3,
    data: Data = None,
    preset: Preset = "demo",
    steps: Steps = None,
    config: Config = None,
    out: Out = None,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """The beta-VAE score against reconstruction per pixel for DIP-VAE and beta-VAE (Kumar et al., Figure 1).

    Example: distk study dip --lambdas 1,10 --betas 1,4 --seeds 2
    """
    variants = [*_sweep("dipvae", "lambda_od", lambdas), *_sweep("betavae", "beta", betas)]
    columns = ["reconstruction.mse_pixel", "betavae.eval", "factorvae.eval"]
    plan = _plan("dip", variants, seeds, columns, out, preset, data, _config(config), steps, device, {})
    _carry_out(plan, json, ("reconstruction.mse_pixel", "betavae.eval"))


def _words(text: str, option: str) -> list[str]:
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words or len(set(words)) < len(words):
        raise UsageError(f"--{option} '{text}' must be names or numbers separated by commas, each once.")
    return words


def _sweep(method: str, option: str, values: str) -> list[Variant]:
    from distk.plugins.vae_family.comparison import Variant

    found = []
    for word in _words(values, option):
        try:
            found.append(Variant(f"{method}-{word}", method, {option: float(word)}))
        except ValueError as error:
            raise UsageError(f"'{word}' is no number for {option} of {method}.") from error
    return found


def _config(path: Path | None) -> dict[str, Any]:
    """Sections data, train, model.<method> of the user's file, or of a recipe of ours by its name."""
    from distk.config import read_toml

    recipes = {recipe.stem: recipe for recipe in Path(__file__).with_name("studies").glob("*.toml")}
    if path is not None and not path.exists():
        path = recipes.get(str(path), path)
    given = read_toml(path) if path is not None else {}
    if surplus := sorted(set(given) - {"data", "train", "model"}):
        raise UsageError(f"'{path}' has a section [{surplus[0]}]; expected [data], [train] and [model.METHOD].")
    return given


def _plan(
    name: str,
    variants: Sequence[Variant],
    seeds: int,
    columns: Sequence[str],
    out: Path | None,
    preset: str,
    data: str | None,
    given: dict[str, Any],
    steps: int | None,
    device: str,
    options: dict[str, Any],
) -> Plan:
    from distk.plugins.vae_family.comparison import Plan, check_columns

    check_columns(columns)
    section = {**given.get("data", {}), **({"name": data} if data else {})} or None
    if section and "name" not in section:
        raise UsageError("the section [data] of the config file needs the name of the data set.")
    train = {**given.get("train", {}), **({"steps": steps} if steps else {}), "device": device}
    plan = Plan(
        variants,
        range(seeds),
        columns,
        out or Path("runs") / f"study-{name}",
        preset=None if preset == "none" else preset,
        data=section,
        train=train,
        options=options,
    )
    for variant in variants:  # a wrong value shows before the first run is trained
        plan.settings(variant, 0)
    return plan


def _carry_out(plan: Plan, json: bool, axes: tuple[str, str] | None = None) -> None:
    from distk import console
    from distk.plugins.vae_family import comparison

    rows = comparison.run(plan)
    picture = plan.out / "results.png"
    comparison.draw(plan, rows, picture)
    if axes is not None:
        comparison.scatter(plan, rows, *axes, plan.out / "tradeoff.png")
    lines = comparison.summary(plan, rows)
    if json:
        keys = ("mean", "std", "best")
        told = [
            {k: dict(zip(keys, v, strict=True)) if isinstance(v, tuple) else v for k, v in n.items()} for n in lines
        ]
        console.emit_json({"out": str(plan.out), "summary": told, "runs": rows})
        return
    cells = [[_cell(line[column]) for column in plan.columns] for line in lines]
    rows_of_table = [(n["variant"], n["runs"], *c) for n, c in zip(lines, cells, strict=True)]
    console.table("mean (standard deviation) best", ("", "runs", *plan.columns), rows_of_table)
    pictures = f"{picture.name} and tradeoff.png" if axes is not None else picture.name
    console.note(f"runs, results.csv, summary.csv, {pictures} are in {plan.out}")


def _cell(found: tuple[float, float, float] | None) -> str:
    """Mean, standard deviation and best of a column; the mean alone for a single run."""
    if found is None:
        return "-"
    mean, spread, best = found
    return f"{mean:.4g} ({spread:.2g}) {best:.4g}" if spread == spread else f"{mean:.4g}"
