"""What `import distk` offers to a program: the same words as the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from distk.data import Dataset, open_dataset
from distk.device import choose_device
from distk.handed import hold_to_spec
from distk.method import Method
from distk.models import open_model
from distk.registry import registry
from distk.run import Run, find_checkpoint
from distk.settings import resolve, split_options
from distk.training import loop


def train(
    method: str,
    *,
    preset: str | None = None,
    config: str | Path | None = None,
    out: str | Path | None = None,
    quiet: bool = False,
    **options: Any,
) -> Run:
    """Train a method and return its run (`run.path`, `run.checkpoint`, `run.log`).

    method: a name of `distk list methods`. preset: for example "demo" or "paper". config: a TOML file.
    out: the run folder. options: any option of `distk train METHOD --help`, with underscores (`steps=1000, seed=1,
    data="dsprites", beta_h=4.0, penalty="covreg:0.08"`). Raises UsageError for unknown names and values out of range.
    """
    cls = registry().find("method", method).load()
    data = registry().find("dataset", str(options.get("data", cls.data)).partition(":")[0]).load()
    sections = split_options(cls, data, options)
    settings = resolve(method, preset=preset, file=Path(config) if config else None, options=sections)
    return loop.train(settings, Path(out) if out else None, quiet)


def load(path: str | Path | None = None, device: str = "auto") -> Method:
    """A trained model in eval mode: `model.encode(x)`, `model.decode(code)`, `model.sample(n, generator)`.

    path: a checkpoint or a run folder; without it the newest run under ./runs. `model.dataset()` opens its data.
    Raises DistkError for a missing or damaged file. `encode` and `decode` raise UsageError for what is not of the
    model's shape, range or device, or not finite.
    """
    model = open_model(find_checkpoint(Path(path) if path is not None else None), device)[0]
    hold_to_spec(model)
    return model


def dataset(name: str, *, device: str = "auto", data_dir: str | Path | None = None, **options: Any) -> Dataset:
    """A data set on a device: `data.sample(n, generator)`, and for factor data `data.observe(factors)`.

    data_dir: the user's files; without it DISTK_DATA is looked at, then the built-in form is used.
    options: settings of the data set. Raises UsageError for unknown names and values out of range.
    """
    return open_dataset(name, options, device=choose_device(device), folder=data_dir)
