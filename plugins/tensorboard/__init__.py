"""Runs in TensorBoard: `distk train METHOD --log tensorboard`, then `tensorboard --logdir runs`.

A plugin like any other, living from the run's events alone. Without `--log tensorboard` it does nothing, and nothing
here imports torch or tensorboard before it is asked for.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distk.errors import UsageError
from distk.hookspecs import hookimpl

if TYPE_CHECKING:
    from distk.plugins.tensorboard.writer import Writer
    from distk.run import Run

_open: dict[Path, Writer] = {}
"""Writers of the runs under way; several seeds may train side by side."""


def _installed() -> bool:
    return importlib.util.find_spec("tensorboard") is not None


def _asked(config: dict[str, Any]) -> bool:
    return "tensorboard" in config["train"].get("log", ())


@hookimpl
def distk_run_requested(config: dict[str, Any]) -> None:
    if _asked(config) and not _installed():
        raise UsageError("--log tensorboard needs the package tensorboard: pip install 'distk[tensorboard]'.")


@hookimpl
def distk_run_started(run: Run) -> None:
    if _asked(run.config) and _installed():
        from distk.plugins.tensorboard.writer import Writer

        _open[run.path] = Writer(run)


@hookimpl
def distk_run_logged(run: Run, step: int, values: dict[str, float]) -> None:
    if run.path in _open:
        _open[run.path].row(step, values)


@hookimpl
def distk_checkpoint_saved(run: Run, step: int) -> None:
    if run.path in _open:
        _open[run.path].flush()


@hookimpl
def distk_run_ended(run: Run, outcome: str) -> None:
    if run.path in _open:
        _open.pop(run.path).close(outcome)
