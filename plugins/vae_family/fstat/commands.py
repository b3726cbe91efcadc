"""`distk embed` and `distk study fstat`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from distk.commands.arguments import Checkpoint, DataDir, DataName, Device, Json, Out, Seed
from distk.errors import DistkError, UsageError
from distk.study.tables import as_csv

if TYPE_CHECKING:
    from distk import CodeTable
    from distk.plugins.vae_family.fstat.study import Cell

Numbers = Annotated[str, typer.Option("--ks", help="Numbers of neighbours of Recall@k, comma-separated.")]


def embed(
    checkpoint: Checkpoint = None,
    data: DataName = None,
    data_dir: DataDir = None,
    split: Annotated[str, typer.Option(help="all, train or test.")] = "all",
    rows: Annotated[int | None, typer.Option(help="At most so many items, drawn once; default: all.", min=1)] = None,
    out: Out = None,
    score: Annotated[
        bool,
        typer.Option("--score", help="Also Recall@k of the labels and the best dimension of every attribute value."),
    ] = False,
    ks: Numbers = "1,5,10,20",
    seed: Seed = 0,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Embed a data set: the codes of a trained model, with the labels and factors of the items.

    Writes embedding.safetensors with `z` [N, K] float32 and, where the data have them, `label` [N] and `factors` [N, F]
    int64; with --score also its .auc.csv. Works for every method that encodes.

    Example: distk embed runs/my-run --split test --score
    """
    import json as plain

    from safetensors.torch import save

    from distk import console, encode_table
    from distk.commands import shared
    from distk.files import write_atomic
    from distk.plugins.vae_family.fstat.batches import label_of

    numbers = _numbers(ks)
    if split not in ("all", "train", "test"):
        raise UsageError(f"--split '{split}' is none of all, train, test.")
    path, model, header = shared.opened(checkpoint, device)
    shared.require(model, header, "embed", "encode")
    dataset = shared.its_data(model, header, data, data_dir)
    target = shared.beside(path, out, "embedding.safetensors")
    table = encode_table(model, dataset, rows=rows, split=split, seed=seed)  # type: ignore[arg-type]
    assert table.rows is not None
    tensors = {"z": table.codes.float()}
    try:
        tensors["label"] = label_of(dataset, table.rows)
    except UsageError:
        console.note(f"data set '{dataset.name}' has no label")
    if table.factors is not None:
        tensors["factors"] = table.factors
    meta = {"code_names": plain.dumps(table.names), "factor_names": plain.dumps(list(table.factor_names))}
    write_atomic(target, save({k: v.cpu().contiguous() for k, v in tensors.items()}, metadata=meta))
    found = _scored(table, numbers, getattr(model, "distance", "l2"), target, "label" in tensors) if score else {}
    if json:
        shapes = {name: list(tensor.shape) for name, tensor in tensors.items()}
        console.emit_json({"file": str(target), "tensors": shapes, **found})
        return
    if score:
        _show_recall([("", found["recall"])])
        _show_auc(found["auc"])
    console.out.print(str(target))


def _scored(table: CodeTable, ks: list[int], distance: str, target: Path, labelled: bool) -> dict[str, Any]:
    from distk import console
    from distk.files import write_atomic
    from distk.plugins.vae_family.fstat import study as study

    found: dict[str, Any] = {"distance": distance, "recall": {}}
    if labelled:
        found["recall"] = study.recall(table, ks, distance)
    areas, left_out = study.best_dimensions(table)
    for reason in left_out:
        console.note(reason)
    file = target.with_suffix(".auc.csv")
    write_atomic(file, as_csv(("attribute", "value", "best_dim", "auc"), areas))
    return {**found, "auc": areas, "auc_file": str(file)}


def _show_recall(rows: list[tuple[str, dict[int, float]]]) -> None:
    from distk import console

    if rows and rows[0][1]:
        console.table("", ["", *(f"recall@{k}" for k in rows[0][1])], [(name, *found.values()) for name, found in rows])


def _show_auc(areas: list[tuple[str, float, str, float]]) -> None:
    import statistics

    from distk import console
    from distk.plugins.vae_family.fstat.study import histogram

    values = [area for *_, area in areas]
    console.table("", ["attribute", "value", "best dimension", "AUC"], areas)
    middle = f"mean {statistics.fmean(values):.3f}, median {statistics.median(values):.3f}"
    console.note(f"AUC of the best dimension: {middle}, above 0.95: {sum(v > 0.95 for v in values) / len(values):.0%}")
    for line in histogram(values):
        console.out.print(line, markup=False)


def study_fstat(
    data: Annotated[str, typer.Option(help="Labelled data set.")] = "sprites",
    data_dir: DataDir = None,
    losses: Annotated[str, typer.Option(help="Losses to compare, comma-separated.")] = "fstat,triplet,histloss",
    folds: Annotated[int, typer.Option(help="Folds over the identities.", min=2, max=20)] = 5,
    only: Annotated[int | None, typer.Option(help="Only the first so many folds.", min=1)] = None,
    steps: Annotated[int, typer.Option(help="Most steps of a run.", min=1)] = 30_000,
    every: Annotated[int, typer.Option(help="Steps between validations.", min=1)] = 250,
    patience: Annotated[int, typer.Option(help="Validations without a better one before a run stops.", min=1)] = 20,
    ks: Numbers = "1,5,10,20",
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

    numbers = _numbers(ks)
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
    from distk.plugins.vae_family.fstat.study import histogram

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


def _numbers(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise UsageError(f"--ks '{text}' is no list of positive whole numbers such as 1,5,10,20.")
    return sorted({int(part) for part in parts})


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
