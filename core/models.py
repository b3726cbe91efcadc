"""Opening a trained model and the data that it was trained on: looking at a model imports no trainer."""

from __future__ import annotations

from pathlib import Path

import torch

from distk import checkpoint
from distk.data import Dataset, DataSpec, open_dataset
from distk.device import choose_device
from distk.errors import DistkError, UsageError
from distk.method import Method


def open_model(path: Path, device: str = "auto") -> tuple[Method, checkpoint.Header]:
    """A trained model in eval mode, with `model.dataset()` to open the data that it was trained on."""
    model, header = checkpoint.load(path, choose_device(device))
    target = model.device
    model.opens = lambda: trained_data(header, target)
    return model, header


def trained_data(header: checkpoint.Header, device: torch.device, folder: str | None = None) -> Dataset:
    """The data set that a checkpoint was trained on, opened again, and read as the model reads (see `data.Files`).

    Raises UsageError when its settings or folder no longer fit.
    """
    data = header.data
    try:
        spec, where = DataSpec.from_dict(data["spec"]), folder or data.get("folder")
        if folder is None and where and not Path(where).expanduser().exists():
            raise UsageError(
                f"the data that the model was trained on are no longer at '{where}': say with --data-dir where they "
                "are, or name others with --data."
            )
        dataset = open_dataset(data["name"], dict(data["options"]), device=device, folder=where, model=spec)
        if share := header.train.get("validation"):
            dataset.keep_back(float(share))
        return dataset
    except (KeyError, TypeError) as error:
        raise DistkError(f"the checkpoint does not say which data it was trained on ({error}).") from error
