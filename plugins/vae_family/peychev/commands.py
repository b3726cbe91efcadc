"""`distk study beta shapes`, `mnist` and `summary`: the experiments of Peychev et al. (2017)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_origin

import typer

from distk.config import assignments
from distk.errors import UsageError

if TYPE_CHECKING:
    from distk.plugins.vae_family.peychev.study import Grid, Setting
    from distk.plugins.vae_family.peychev.study_data import Data

beta = typer.Typer(no_args_is_help=True, help="How beta affects disentanglement and classification (Peychev et al.).")

MODELS, DATA, TRAINING = "Models", "Data", "Training"
Betas = Annotated[str | None, typer.Option(help="FIRST:LAST:STEP or a list.", rich_help_panel=MODELS)]
Variants = Annotated[str | None, typer.Option(help="Of fc, conv, fc-dn, conv-dn (denoising).", rich_help_panel=MODELS)]
Models = Annotated[
    int | None, typer.Option(help="Per beta, seeds 0, 1, ... (paper: 5).", min=1, rich_help_panel=MODELS)
]
Parallel = Annotated[
    int,
    typer.Option(help="Models trained side by side, as one stacked program.", min=1, max=1024, rich_help_panel=MODELS),
]
Set = Annotated[
    list[str] | None, typer.Option("--set", help="A setting of the data set: NAME=VALUE.", rich_help_panel=DATA)
]
DataDir = Annotated[Path | None, typer.Option(help="Folder of the data set's files.", rich_help_panel=DATA)]
Hidden = Annotated[
    int | None, typer.Option(help="Width of the full layers; default: by size.", min=1, rich_help_panel=TRAINING)
]
Batch = Annotated[
    int | None,
    typer.Option(help="Images per update; the last, smaller one is dropped (1000).", min=1, rich_help_panel=TRAINING),
]
Epochs = Annotated[int | None, typer.Option(help="At most so many (500).", min=1, rich_help_panel=TRAINING)]
Patience = Annotated[
    int | None,
    typer.Option(help="Epochs in a row without improvement before a model stops (5).", min=0, rich_help_panel=TRAINING),
]
Rate = Annotated[
    float | None, typer.Option(help="Learning rate of Adam (0.001).", min=1e-8, max=1, rich_help_panel=TRAINING)
]
Momentum = Annotated[
    float | None,
    typer.Option(
        help="Of the running averages of batch normalisation (0.001).", min=1e-6, max=1, rich_help_panel=TRAINING
    ),
]
Out = Annotated[Path | None, typer.Option("--out", "-o", help="The study's folder; default: runs/beta-KIND.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with a study that was begun.")]
Force = Annotated[bool, typer.Option("--force", help="Resume even with other settings.")]
Quick = Annotated[bool, typer.Option("--quick", help="Few models on reduced data: minutes on two cores.")]
KeepModels = Annotated[bool, typer.Option(help="Write a checkpoint per model.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]

QUICK_SHAPES: dict[str, Any] = {
    "data_options": {"size": 16, "shapes": ["square", "triangle"], "scales": [0, 5], "rotations": 30},
    "hidden": 128,
    "bn_momentum": 0.01,
    "batch": 128,
    "lr_beta0": 1e-3,
    "epochs": 4,
    "pairs": 6000,
}
QUICK_MNIST: dict[str, Any] = {
    "data": "digits-aug",
    "data_options": {"copies": 4, "test_copies": 2},
    "hidden": 128,
    "bn_momentum": 0.01,
    "batch": 128,
    "epochs": 12,
    "svm_max": 20_000,
}


@beta.command()
def shapes(
    variants: Variants = None,
    betas: Betas = None,
    models: Models = None,
    parallel_models: Parallel = 1,
    renderer: Annotated[str | None, typer.Option(help="analytic or pillow.", rich_help_panel=DATA)] = None,
    set_: Set = None,
    hidden: Hidden = None,
    batch: Batch = None,
    epochs: Epochs = None,
    patience: Patience = None,
    lr: Rate = None,
    lr_beta0: Annotated[
        float | None,
        typer.Option(
            help="Learning rate at beta 0 (0.00003, as published).", min=1e-8, max=1, rich_help_panel=TRAINING
        ),
    ] = None,
    bn_momentum: Momentum = None,
    pairs: Annotated[int | None, typer.Option(help="Pairs of the score (50,000).", min=20, max=10_000_000)] = None,
    out: Out = None,
    resume: Resume = False,
    force: Force = False,
    quick: Quick = False,
    keep_models: KeepModels = True,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Fig. 1: disentanglement of 2D shapes against beta, for four autoencoders.

    Writes results.csv (a row per model), fig1.csv, fig1.png and a checkpoint per model.

    Example: distk study beta shapes --quick --parallel-models 6
    """
    data_options = {**assignments(set_ or []).get("", {}), **({"renderer": renderer} if renderer else {})}
    named = {"hidden": hidden, "batch": batch, "epochs": epochs, "patience": patience, "lr": lr, "pairs": pairs}
    named |= {"lr_beta0": lr_beta0, "bn_momentum": bn_momentum}
    values = {"kind": "shapes", "data": "shapes2d", "z": 10, "lr_beta0": 3e-5, **(QUICK_SHAPES if quick else {})}
    setting = _setting(values, named, data_options)
    asked = ("0,1,4", 2, "fc,conv,fc-dn,conv-dn") if quick else ("0:5:0.2", 5, "fc,conv,fc-dn,conv-dn")
    grid = _grid(asked, betas, models, variants, "1", parallel_models)
    if grid.betas[0] < 1e-3 and setting.lr_beta0 != setting.lr:
        from distk.console import note

        note(
            f"beta 0 trains with learning rate {setting.lr_beta0:g} instead of {setting.lr:g}, as published: the first "
            f"point of the figure differs from the others in both. --lr-beta0 {setting.lr:g} removes that."
        )
    _go(setting, grid, out, device, json, {"resume": resume, "force": force}, keep_models, 1)


@beta.command()
def mnist(
    variants: Variants = None,
    betas: Betas = None,
    fractions: Annotated[str | None, typer.Option(help="Of the training images.", rich_help_panel=MODELS)] = None,
    models: Models = None,
    parallel_models: Parallel = 1,
    data: Annotated[
        str | None, typer.Option(help="mnist, digits-aug or another with labels.", rich_help_panel=DATA)
    ] = None,
    data_dir: DataDir = None,
    set_: Set = None,
    hidden: Hidden = None,
    batch: Batch = None,
    epochs: Epochs = None,
    patience: Patience = None,
    lr: Rate = None,
    bn_momentum: Momentum = None,
    codes: Annotated[str, typer.Option(help="The SVM's codes: sample (as published), mean or both.")] = "sample",
    svm_max: Annotated[
        int | None, typer.Option(help="The SVM learns from at most so many images; 0: all.", min=0)
    ] = None,
    workers: Annotated[int, typer.Option(help="SVMs at a time.", min=1, max=1024)] = 1,
    out: Out = None,
    resume: Resume = False,
    force: Force = False,
    quick: Quick = False,
    keep_models: KeepModels = True,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Fig. 2: accuracy of an SVM on MNIST's codes against beta, for several fractions of the data.

    Writes results.csv (a row per model), fig2.csv, fig2.png and a checkpoint per model.

    Example: distk study beta mnist --data digits-aug --quick
    """
    if codes not in ("sample", "mean", "both"):
        raise UsageError(f"--codes '{codes}' is none of sample, mean and both.")
    named = {"hidden": hidden, "batch": batch, "epochs": epochs, "patience": patience, "lr": lr, "svm_max": svm_max}
    named |= {"bn_momentum": bn_momentum, "data": data, "folder": str(data_dir) if data_dir else None, "codes": codes}
    values = {"kind": "mnist", "data": "mnist", "z": 16, **(QUICK_MNIST if quick else {})}
    if data not in (None, values["data"]):
        values.pop("data_options", None)
    setting = _setting(values, {**named, "lr_beta0": lr}, assignments(set_ or []).get("", {}))
    asked = ("0,0.1,1,4", 2, "fc,conv") if quick else ("0:4:0.1", 5, "fc,conv")
    parts = fractions or ("0.1,1" if quick else "0.1,0.2,0.3,0.4,0.6,0.8,1")
    grid = _grid(asked, betas, models, variants, parts, parallel_models)
    _go(setting, grid, out, device, json, {"resume": resume, "force": force}, keep_models, workers)


@beta.command()
def summary(
    folder: Annotated[Path, typer.Argument(help="A study's folder.")],
    json: Json = False,
) -> None:
    """Draw a study's figures again from its results.csv, print its table, and hold it against the paper's claims.

    Example: distk study beta summary runs/beta-shapes
    """
    _report(folder, json)


def _setting(values: dict[str, Any], named: dict[str, Any], data_options: dict[str, Any]) -> Setting:
    from distk.config import from_dict, hints, to_dict
    from distk.options import given
    from distk.plugins.vae_family.peychev.study import Setting
    from distk.registry import registry

    values = {**values, **{key: value for key, value in named.items() if value is not None}}
    config = registry().find("dataset", values["data"].partition(":")[0]).load().Config
    typed = {
        name: [value] if name in hints(config) and get_origin(hints(config)[name]) is tuple else value
        for name, value in data_options.items()
    }
    chosen = {**values.pop("data_options", {}), **typed, **given(config, typed)}
    checked = to_dict(from_dict(config, chosen, f"data set '{values['data']}'"))
    return Setting(**values, data_options={key: checked[key] for key in chosen})


def _grid(
    asked: tuple[str, int, str], betas: str | None, models: int | None, variants: str | None, parts: str, parallel: int
) -> Grid:
    from distk.console import note
    from distk.plugins.vae_family.peychev.study import Grid, parse_fractions, parse_range, parse_variants

    count = asked[1] if models is None else models
    if count == 1:
        note("one model per beta: the figures have no error bars")
    names = parse_variants(asked[2] if variants is None else variants)
    chosen = parse_range(asked[0] if betas is None else betas)
    return Grid(names, chosen, count, parse_fractions(parts), parallel)


def _data(setting: Setting, device: str) -> Data:
    from distk.console import note
    from distk.data import open_dataset
    from distk.device import choose_device
    from distk.plugins.vae_family.peychev.study_data import MNIST_FILES, split

    dataset = open_dataset(setting.data, setting.data_options, device=choose_device(device), folder=setting.folder)
    if getattr(dataset, "stand_in", None) is not None:
        raise UsageError(
            f"no MNIST files found: name the folder of {MNIST_FILES} with --data-dir, or take --data digits-aug."
        )
    if dataset.spec.kind != "image" or (setting.kind == "mnist" and not dataset.spec.classes):
        raise UsageError(f"data set '{dataset.name}' has no labelled images.")
    note(f"data {dataset.name}: {dataset.origin}")
    return split(dataset, setting.data_options)


def _go(
    setting: Setting,
    grid: Grid,
    out: Path | None,
    device: str,
    json: bool,
    how: dict[str, bool],
    keep: bool,
    workers: int,
) -> None:
    """Open the data and the folder, train what is not there, draw, report."""
    from distk.console import note
    from distk.plugins.vae_family.peychev.study import Folder, groups, run
    from distk.plugins.vae_family.peychev.study_data import subset

    data = _data(setting, device)
    for fraction in grid.fractions:
        subset(data, fraction, 0)  # one that leaves a class without examples is refused before a folder is made
    path = out or Path("runs") / f"beta-{setting.kind}"
    folder = Folder(path, setting, grid, data.hash)
    folder.open(**how)
    every = groups(grid, setting)
    note(f"{sum(map(len, every))} models in {len(every)} groups, in {path}")
    run(folder, data, workers, keep)
    _report(path, json)


def _report(path: Path, json: bool) -> None:
    from distk import console
    from distk.plugins.vae_family.peychev import figures

    found = figures.summary(path)
    if found["excluded"]:
        console.note(f"{found['excluded']} of {found['models']} models diverged (status nan) and are not in the means")
    if json:
        console.emit_json({**found, "files": [str(file) for file in found["files"]]})
        return
    if not found["rows"]:
        raise UsageError(f"'{path}' has no results yet; add --resume to its command.")
    console.table("", *_narrow(found["rows"]))
    claims = [(c["claim"], c["measured"], "yes" if c["holds"] else "no") for c in found["claims"]]
    if claims:
        console.table("what the paper's figures are said to show", ("claim", "measured", "holds here"), claims)
    for file in found["files"]:
        console.out.print(str(file))


def _narrow(rows: list[dict[str, Any]]) -> tuple[list[str], list[list[Any]]]:
    """Columns and cells of the aggregates for a terminal; fig1.csv or fig2.csv has the rest."""
    keys = [key for key in ("variant", "fraction", "beta", "codes") if key in rows[0]]
    spread = ["" if row["sd"] == "" else f" ± {row['sd']:.3f}" for row in rows]
    cells = [
        [*(row[key] for key in keys), f"{row['mean']:.3f}{sd}", row["models"], row["recon"], row["kl"]]
        for row, sd in zip(rows, spread, strict=True)
    ]
    return [*keys, "accuracy", "models", "recon", "kl"], cells
