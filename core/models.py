"""Opening a trained model and the data that it was trained on: looking at a model imports no trainer."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from distk import checkpoint, places
from distk.config import flag
from distk.data import Dataset, DataSpec, open_dataset
from distk.device import choose_device
from distk.errors import DistkError, UsageError
from distk.files import expanded
from distk.method import Method
from distk.registry import registry


def open_model(path: Path, device: str = "auto") -> tuple[Method, checkpoint.Header]:
    """A trained model in eval mode, with `model.dataset()` to open the data that it was trained on."""
    model, header = checkpoint.load(path, choose_device(device))
    model.opens = ItsData(model, header)
    return model, header


class ItsData:
    """Opens the data that a model was trained on, where the model is now. No closure: users may pickle a model."""

    def __init__(self, model: Method, header: checkpoint.Header) -> None:
        self.model, self.header = model, header

    def __call__(self) -> Dataset:
        return trained_data(self.header, self.model.device)


def trained_data(header: checkpoint.Header, device: torch.device, folder: str | None = None) -> Dataset:
    """The data set that a checkpoint was trained on, opened again, and read as the model reads (see `data.Files`).

    Raises UsageError when its settings or folder no longer fit.
    """
    data = header.data
    try:
        spec, name, options = DataSpec.from_dict(data["spec"]), data["name"], dict(data["options"])
        share = float(header.train.get("validation") or 0)
        if not 0 <= share < 1:
            raise ValueError(f"{share:g} of its rows are kept back")
    except (KeyError, TypeError, ValueError) as error:
        raise DistkError(f"the checkpoint does not say which data it was trained on ({error}).") from error
    check_places(header, "the checkpoint", folder)
    if folder is None and data.get("folder") and not os.path.exists(expanded(data["folder"])):
        raise UsageError(
            f"the data that the model was trained on are no longer at '{data['folder']}': say with --data-dir where "
            "they are, or name others with --data."
        )
    dataset = open_dataset(name, options, device=device, folder=folder or data.get("folder") or None, model=spec)
    if share:
        dataset.keep_back(share)
    return dataset


def check_places(header: checkpoint.Header, source: str, folder: str | Path | None = None) -> None:
    """Raise UsageError where the header names a folder or a file for the data that the user never named.

    source: the file, for the message. folder: what the user names instead of the header's.
    """
    data = header.data
    base = data["name"].partition(":")[0]
    cls = registry().find("dataset", base).load()
    if folder is None and data.get("folder"):
        places.check(data["folder"], source, f"distk data {base} --data-dir")
    variant = data["name"].partition(":")[2]  # which may be a place, too, as of `hf:FOLDER`
    values = {**data.get("options", {}), **({"variant": variant} if variant else {})}
    for setting, place in places.settings(cls.Config, values):
        places.check(place, source, f"distk data {base} {flag(setting)}")
