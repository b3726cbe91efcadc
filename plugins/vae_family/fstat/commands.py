"""`distk study fstat`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from distk.commands.arguments import DataDir, Device, Json, Seed
from distk.commands.embed import Neighbours
from distk.embedding import histogram, neighbours
from distk.errors import DistkError, UsageError
from distk.study.tables import as_csv

if TYPE_CHECKING:
    from distk.plugins.vae_family.fstat.study import Cell


def study_fstat(
    data: Annotated[str, typer.Option(help="Labelled data set.")] = "sprites",
    data_dir: DataDir = None,
    losses: Annotated[str, typer.Option(help="Losses to compare, comma-separated.")] = "fstat,triplet,histloss",
    folds: Annotated[int, typer.Option(help="Folds over the identities.", min=2, max=20)] = 5,
    only: Annotated[int | None, typer.Option(help="Only the first so many folds.", min=1)] = None,
    steps: Annotated[int, typer.Option(help="Most steps of a run.", min=1)] = 30_000,
    every: Annotated[int, typer.Option(help="Steps between validations.", min=1)] = 250,
    patience: Annotated[int, typer.Option(help="Validations without a better one before a run stops.", min=1)] = 20,
    ks: Neighbours = "1,5,10,20",
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="Setting of the losses or the data, repeatable: d=2, label=factors, size=30."),
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the results.")] = Path("study-fstat"),
    seed: Seed = 0,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Compare losses on unseen identities: Recall@k, and how well single dimensions tell attributes (Fig. 3).

    Each run, one per loss and fold, stops early by Recall@1 on a fifth of its training identities. Writes study.json,
    recall.csv, auc.csv and auc.png after every run, for as many runs as are done.

    Example: distk study fstat --data puppets --set size=30 --steps 2000 --folds 5
    """
    from distk import console, open_dataset
    from distk.console import progress
    from distk.device import choose_device, describe
    from distk.plugins.vae_family.fstat import study as study

    numbers = neighbours(ks)
    values = {**_values(set_ or []), "steps": steps, "seed": seed}
    settings = study.settings_of([name.strip() for name in losses.split(",") if name.strip()], data, values)
    if not settings:
        raise UsageError("--losses names no loss.")
    folder = str(data_dir) if data_dir is not None else None
    dataset = open_dataset(data, settings[0].data_options, device=choose_device(device), folder=folder)
    console.note(f"data {dataset.name}: {dataset.origin}; on {describe(dataset.device)}")
    parts = study.folds_of(dataset, folds, seed)[:only]
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DistkError(f"cannot make the folder '{out}': {error.strerror or error}.") from error
    told = {"data": dataset.name, "origin": dataset.origin, "device": describe(dataset.device)}
    told |= {"steps": steps, "seed": seed, "set": values}
    cells: list[Cell] = []
    with progress("training", steps * len(parts) * len(settings)) as advance:
        for fold, part in enumerate(parts):
            for one in settings:
                cell = study.train_cell(one, study.view(dataset, part), fold, numbers, every, patience, advance)[0]
                cells.append(cell)
                _note(cell)
                _write(out, cells, numbers, told)
    found = study.summary(cells, numbers)
    if json:
        console.emit_json({"folder": str(out), "summary": found})
        return
    _show_study(found, cells, numbers)
    console.out.print(str(out))


def _note(cell: Cell) -> None:
    from distk import console

    k, hit = next(iter(cell.recall.items()))
    done = f"fold {cell.fold}, {cell.loss}: step {cell.step} of {cell.stopped}"
    console.note(f"{done}, validation recall@1 {cell.valid:.3f}, test recall@{k} {hit:.3f}")


def _write(out: Path, cells: list[Cell], ks: list[int], told: dict[str, Any]) -> None:
    import json
    from dataclasses import asdict

    from distk.console import jsonable
    from distk.files import write_atomic
    from distk.plugins.vae_family.fstat import study as study

    result = {**told, "summary": study.summary(cells, ks), "runs": [asdict(cell) for cell in cells]}
    write_atomic(out / "study.json", (json.dumps(jsonable(result), indent=1) + "\n").encode())
    hits = [(c.loss, c.fold, c.step, *(c.recall[k] for k in ks)) for c in cells]
    write_atomic(out / "recall.csv", as_csv(("loss", "fold", "step", *(f"recall@{k}" for k in ks)), hits))
    areas = [(c.loss, c.fold, *row) for c in cells for row in c.auc]
    write_atomic(out / "auc.csv", as_csv(("loss", "fold", "attribute", "value", "best_dim", "auc"), areas))
    write_atomic(out / "auc.png", study.figure(cells))


def _show_study(found: list[dict[str, Any]], cells: list[Cell], ks: list[int]) -> None:
    from distk import console

    count = found[0]["folds"]

    def shown(row: dict[str, Any], k: int) -> str:
        spread = f" +- {row[f'recall@{k}_se']:.3f}" if count > 1 else ""
        return f"{row[f'recall@{k}']:.3f}{spread}"

    title = f"mean and standard error over {count} folds" if count > 1 else "one fold"
    rows = [(row["loss"], *(shown(row, k) for k in ks)) for row in found]
    console.table(title, ["loss", *(f"recall@{k}" for k in ks)], rows)
    columns = ["loss", "AUC mean", "median", "above 0.95", "median per fold"]
    areas = [
        (
            r["loss"],
            r["auc_mean"],
            r["auc_median"],
            r["auc_above_0.95"],
            " ".join(f"{m:.3f}" for m in r["auc_median_per_fold"]),
        )
        for r in found
    ]
    console.table("best dimension of every attribute value, whole data set", columns, areas)
    for row in found:
        console.out.print(f"\n{row['loss']}", markup=False)
        for line in histogram([area for cell in cells if cell.loss == row["loss"] for *_, area in cell.auc]):
            console.out.print(line, markup=False)


def _values(pairs: list[str]) -> dict[str, Any]:
    """NAME=VALUE pairs, numbers and truth values read as such."""
    found: dict[str, Any] = {}
    for pair in pairs:
        name, sign, text = pair.partition("=")
        if not sign:
            raise UsageError(f"--set '{pair}' is not understood; write NAME=VALUE.")
        value: Any = {"true": True, "false": False}.get(text, text)
        for kind in (int, float):
            if isinstance(value, str):
                try:
                    value = kind(text)
                except ValueError:
                    continue
        found[name.replace("-", "_")] = value
    return found
