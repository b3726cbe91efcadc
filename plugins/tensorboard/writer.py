"""One run's event file, written beside its `log.jsonl`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from distk import Run
from distk.config import to_toml


class Writer:
    """Scalars and settings of a run as TensorBoard shows them.

    The file lies in the run folder itself, so that `tensorboard --logdir runs` names each run as its folder.
    """

    def __init__(self, run: Run) -> None:
        rows = run.log
        # A resumed run: what a killed process wrote after its last checkpoint is not to be shown beside the new rows.
        self.step = int(rows[-1]["step"]) if rows else 0
        purge = self.step + 1 if rows else None
        self.events = SummaryWriter(log_dir=str(run.path), purge_step=purge)
        sections = {name: values for name, values in run.config.items() if isinstance(values, dict)}
        settings = to_toml(sections, {"method": run.config["method"]})
        self.events.add_text("settings", "".join(f"    {line}\n" for line in settings.splitlines()), self.step)

    def row(self, step: int, values: Mapping[str, Any]) -> None:
        """The numbers of one row of log.jsonl; `kl/1`, `kl/2` become one group."""
        self.step = step
        for name, value in values.items():
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                self.events.add_scalar(name, value, step)

    def flush(self) -> None:
        """Bring everything to the disk, as the checkpoint that was just saved is."""
        self.events.flush()

    def close(self, outcome: str) -> None:
        """Write how the run ended, and close the file."""
        self.events.add_text("outcome", outcome, self.step)
        self.events.close()
