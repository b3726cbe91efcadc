"""Pictures of a model in training: `samples/step-<n>.png`, so that progress can be looked at without a command."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from distk import images
from distk.console import warn_once
from distk.data import Dataset
from distk.device import seeded
from distk.files import BEGUN, own_folder
from distk.method import Method, can, eval_mode
from distk.training.trainer import Trainer

COLUMNS = 8


def picture(folder: Path, step: int) -> Path:
    """Where the picture of a step lies."""
    return folder / f"step-{step:07d}.png"


def cut_off(folder: Path, step: int) -> bool:
    """Whether a kill came between the checkpoint of a step and its picture, of a run that draws pictures."""
    try:
        names = [entry.name for entry in folder.iterdir()]
    except OSError:  # without the folder there are no pictures
        return False
    drawn = [name for name in names if name.endswith(".png") and not name.startswith(".")]
    return any(BEGUN.fullmatch(name) for name in names) or bool(drawn and not picture(folder, step).exists())


def draw_missed(trainer: Trainer, folder: Path) -> None:
    """Draw the picture of the step at which a run is taken up, where it is not there."""
    if trainer.ranks.first and not picture(folder, trainer.index).exists():
        snapshot(trainer.model, trainer.dataset, folder, trainer.index)


def snapshot(model: Method, dataset: Dataset, folder: Path, step: int) -> Path | None:
    """Items above their reconstructions, and samples below, as one PNG; the same items and noise at every step.

    Returns None for data that have no picture. Draws from generators of its own and leaves the model's mode as it was;
    a method whose picture fails is warned about once, because a run must not end for it.
    """
    if dataset.spec.kind not in ("image", "video") or len(dataset.spec.shape) not in (3, 4):
        return None
    devices = [dataset.device] if dataset.device.type == "cuda" else []
    path = picture(folder, step)
    try:
        own_folder(folder)  # it may have been removed, or be a link
        with torch.no_grad(), eval_mode(model), torch.random.fork_rng(devices=devices):
            rows = _rows(model, dataset)
            if not rows:
                return None
            low, high = dataset.spec.range
            sheet = images.enlarge((torch.cat(rows) - low) / (high - low))
            images.save_png(path, images.grid(sheet, COLUMNS))
    except Exception as error:  # any fault of a method's decoder
        told = f"{type(error).__name__}: {error}".replace(
            path.name, "step-*.png"
        )  # else each step's is another warning
        warn_once(f"no picture for samples/: {told}")
        return None
    return path


def _rows(model: Method, dataset: Dataset) -> list[Tensor]:
    """Rows of `COLUMNS` images each; of a clip its middle frame."""
    rows = []
    if can(model, "encode") and can(model, "decode"):
        batch = dataset.sample(COLUMNS, seeded(0, dataset.device), "test")
        rows += [batch["x"], model.decode(model.encode_batch(batch)).view_as(batch["x"])]
    if can(model, "sample") and model.drawable:
        drawn = model.sample(2 * COLUMNS, seeded(0, dataset.device))
        if drawn.shape[1:] == dataset.spec.shape:
            rows.append(drawn)
    if dataset.spec.kind == "video":
        return [row[:, row.shape[1] // 2] for row in rows]
    return rows
