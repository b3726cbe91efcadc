"""Runs in MLflow: `distk train METHOD --log mlflow`, then `mlflow ui`.

A plugin like any other, living from the run's events alone. Without `--log mlflow` it does nothing, and nothing here
imports torch or mlflow before it is asked for. Where the runs go is MLflow's own setting, `MLFLOW_TRACKING_URI`;
without it a file `mlflow.db` in the working folder, so that nothing leaves the machine.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distk.errors import UsageError
from distk.hookspecs import hookimpl

if TYPE_CHECKING:
    from distk.plugins.mlflow.writer import Writer
    from distk.run import Run

_open: dict[Path, Writer] = {}
"""Writers of the runs under way; several seeds may train side by side."""


def _missing() -> str:
    """The first package that is needed and not installed; empty where all are."""
    store = os.environ.get("MLFLOW_TRACKING_URI", "sqlite:")
    needed = ("mlflow", "sqlalchemy", "alembic") if store.startswith("sqlite:") else ("mlflow",)
    return next((name for name in needed if importlib.util.find_spec(name) is None), "")


def _asked(config: dict[str, Any]) -> bool:
    return "mlflow" in config["train"].get("log", ())


@hookimpl
def distk_run_requested(config: dict[str, Any]) -> None:
    if _asked(config) and (name := _missing()):
        raise UsageError(f"--log mlflow needs the package {name}: pip install 'distk[mlflow]'.")


@hookimpl
def distk_run_started(run: Run, step: int) -> None:
    if _asked(run.config) and not _missing():
        from distk.plugins.mlflow.writer import Writer

        _open[run.path] = Writer(run, step)


@hookimpl
def distk_run_logged(run: Run, step: int, values: dict[str, float]) -> None:
    if run.path in _open:
        _open[run.path].row(step, values)


@hookimpl
def distk_checkpoint_saved(run: Run, path: Path, step: int) -> None:
    if run.path in _open:
        _open[run.path].checkpoint(path)


@hookimpl
def distk_run_ended(run: Run, outcome: str) -> None:
    if run.path in _open:
        _open.pop(run.path).close(outcome)
