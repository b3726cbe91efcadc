"""A study that takes seconds: linear autoencoders on 64 drawn items."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from distk import DistkError
from distk.config import NoConfig
from distk.hookspecs import hookimpl
from distk.registry import registry
from distk.study import job
from distk.study.protocol import Ended, Engine, Site

TINY = """
title = "Covariance of a linear code"
source = "Nobody 2026"
columns = ["covstats.cvr", "covstats.mapc"]
seeds = 2
[data]
name = "dimred"
items = 64
[train]
steps = 40
batch = 16
checkpoint_every = 20
[[variants]]
label = "free"
method = "covreg-linear"
[[variants]]
method = "covreg-linear"
grid = { lr = [0.01] }
[scale.long]
train = { steps = 400, checkpoint_every = 100 }
[published."free"]
"covstats.cvr" = "0.5 (0.1)"
where = "Table 9"
[[claims]]
text = "the learning rate matters"
better = "covreg-linear lr=0.01"
than = "free"
column = "covstats.cvr"
direction = "lower"
[[claims]]
text = "the code is beautiful"
untested = "the paper shows a picture"
"""

STEPS = 400
"""Of scale long."""


class Instant(Engine[NoConfig]):
    """An engine that does jobs in this process, last come, first served."""

    here = True

    def __init__(self, config: NoConfig, site: Site) -> None:
        super().__init__(config, site)
        self.folders: list[Path] = []

    def submit(self, folders: Sequence[Path]) -> dict[Path, str]:
        self.folders += folders
        return dict.fromkeys(folders, "")

    def poll(self) -> list[Ended]:
        folder = self.folders.pop()
        try:
            job.carry_out([folder])
        except DistkError as error:
            return [Ended(folder, str(error))]
        return [Ended(folder)]

    def cancel(self, number: int) -> None:
        self.folders.clear()

    def close(self) -> None:
        pass


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """The recipe as a file."""
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    return path


@pytest.fixture
def plugged():
    """`plugged(name, contents, **hooks)`: a plugin module in the running program, gone after the test."""
    names = []

    def plug(name: str, contents: dict[str, Any], **hooks: Callable[..., None]) -> None:
        module = types.ModuleType(f"plugged_{name}")
        for key, value in {**contents, **{k: hookimpl(v) for k, v in hooks.items()}}.items():
            setattr(module, key, value)
        sys.modules[module.__name__] = module
        registry().add(name, module.__name__, f"dist-{name}", "1.0")
        assert not registry().plugins[name].error, registry().plugins[name].error
        names.append(name)

    yield plug
    for name in names:
        registry()._forget(registry().plugins.pop(name))
        del sys.modules[f"plugged_{name}"]


@pytest.fixture
def instant(plugged) -> None:
    """The engine of that name."""
    plugged(
        "instant",
        {"Instant": Instant},
        distk_register_engines=lambda register: register("instant", "plugged_instant:Instant", "in this process"),
    )
