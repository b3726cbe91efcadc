"""One run in an MLflow store."""

from __future__ import annotations

import fcntl
import logging
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# Read when mlflow is imported: it would count its use at an address of its makers.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

from mlflow.entities import Metric, Param, RunTag
from mlflow.tracking import MlflowClient

from distk import Run
from distk.files import own_file
from distk.version import __version__

EXPERIMENT = "distk"
"""Where runs stand without `MLFLOW_EXPERIMENT_NAME`."""
PLACE = "distk.folder"
"""The tag by which a run that is taken up again is found."""
STATUS = {"finished": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}
LONGEST = 6000
"""Characters of a setting that MLflow keeps."""
AT_ONCE = 100
"""Settings that MLflow takes in one call."""
UNFIT = re.compile(r"[^\w.\- /:]")
"""What the name of a metric may not have in MLflow."""


class Writer:
    """Metrics, settings, pictures and checkpoints of a run as MLflow shows them.

    A resumed run goes on in the run that it had there. What MLflow has of a metric cannot be taken back, so rows of
    steps that a killed process already sent are not sent again; they are the same.
    """

    def __init__(self, run: Run, step: int) -> None:
        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.WARNING)
        self.run = run
        self.sent: dict[Path, int] = {}
        with _alone():
            self.client = MlflowClient(tracking_uri=os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{_beside()}")
            experiment = self._experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT)
        place = str(run.path.resolve())
        held = [] if not step else self.client.search_runs([experiment], f"tags.`{PLACE}` = '{_quoted(place)}'")
        if held:
            self.id = held[0].info.run_id
            self.done = self._last_step(held[0].data.metrics)
            self.client.update_run(self.id, status="RUNNING")
        else:
            tags = {PLACE: place, "distk.version": __version__, "distk.method": str(run.config.get("method", ""))}
            self.id = self.client.create_run(experiment, tags=tags, run_name=str(run.path)).info.run_id
            self.done = -1
            self._settings(run.config)
        self._send(run.path / "config.toml")

    def _experiment(self, name: str) -> str:
        held = self.client.get_experiment_by_name(name)
        return str(held.experiment_id if held is not None else self.client.create_experiment(name))

    def _last_step(self, metrics: Mapping[str, float]) -> int:
        """The last step of which the store has a row; -1 for none."""
        return max((m.step for name in metrics for m in self.client.get_metric_history(self.id, name)), default=-1)

    def _settings(self, config: Mapping[str, Any]) -> None:
        """Every setting as `train.steps`, `model.z`."""
        flat = {"method": config.get("method", "")}
        for section, values in config.items():
            if isinstance(values, Mapping):
                flat |= {f"{section}.{name}": value for name, value in values.items()}
        params = [Param(UNFIT.sub("_", name), str(value)[:LONGEST]) for name, value in flat.items()]
        for first in range(0, len(params), AT_ONCE):
            self.client.log_batch(self.id, params=params[first : first + AT_ONCE])

    def row(self, step: int, values: Mapping[str, Any]) -> None:
        """The numbers of one row of log.jsonl."""
        if step <= self.done:
            return
        self.done, now = step, int(time.time() * 1000)
        numbers = {k: v for k, v in values.items() if isinstance(v, (int, float)) and not isinstance(v, bool)}
        self.client.log_batch(self.id, [Metric(UNFIT.sub("_", k), float(v), now, step) for k, v in numbers.items()])

    def checkpoint(self, path: Path) -> None:
        """The checkpoint that was just written, in place of the one before it, and the pictures since then."""
        self._send(path, "checkpoints")
        self._pictures()

    def _pictures(self) -> None:
        for path in sorted((self.run.path / "samples").glob("*")):
            if path.suffix in (".png", ".gif", ".txt"):
                self._send(path, "samples")

    def _send(self, path: Path, folder: str | None = None) -> None:
        """A file of the run folder, unless it is a link, or was sent as it is."""
        if path.is_file() and not path.is_symlink() and self.sent.get(path) != (changed := path.stat().st_mtime_ns):
            self.client.log_artifact(self.id, str(path), folder)
            self.sent[path] = changed

    def close(self, outcome: str) -> None:
        """The last pictures, and how the run ended."""
        self._pictures()
        self.client.log_batch(self.id, tags=[RunTag("distk.outcome", outcome)])
        self.client.set_terminated(self.id, STATUS.get(outcome, "FAILED"))


def _beside() -> Path:
    return Path.cwd() / "mlflow.db"


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace("'", "\\'")


@contextmanager
def _alone() -> Iterator[None]:
    """Runs of several seeds start at one time in processes of their own: one of them makes the store."""
    if os.environ.get("MLFLOW_TRACKING_URI"):
        yield
        return
    with open(_beside(), "ab", opener=own_file) as held:  # SQLite's own locks are of another kind
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
