"""How well a method continues clips."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from distk import CodeTable, Metric, UsageError, can, option, seeded
from distk.meaning import count, higher, lower, neither
from distk.prediction import continued


@dataclass(frozen=True)
class PredictionConfig:
    """What is shown, and what is predicted."""

    items: int = option(256, "at most so many clips of the test split, drawn without replacement", min=1, max=1 << 24)
    past: int = option(0, "frames that are shown; 0: half of a clip", min=0)
    steps: int = option(0, "frames that are predicted; 0: the others", min=0)


class Prediction(Metric[PredictionConfig]):
    """Squared error of `Method.predict` against the true end of clips, and against saying that nothing changes.

    gain: 1 - squared_error / still; 1 is a perfect prediction, 0 no better than the last frame, below 0 worse.
    squared_error, still: means over clips, frames and their entries, on the data's scale; `error_per_step`,
    `still_per_step` `[steps]`.
    """

    headline = "gain"
    measures = "items made and bounds"
    numbers = {
        "gain": higher(None, 1, chance=0.0, what="1 - error over that of frames that stay"),
        "squared_error": lower(0),
        "still": neither(0, what="squared error of frames that stay as they are"),
        "items": count("clips"),
    }
    needs_model = True
    needs_codes = False

    @torch.no_grad()
    def compute(self, table: CodeTable, seed: int) -> Mapping[str, Any]:
        """Raises UsageError for a model that does not predict, and for data without clips."""
        model, dataset, config = table.model, table.dataset, self.config
        if model is None or dataset is None or not can(model, "predict"):
            raise UsageError("metric 'prediction' scores methods that predict what follows; this one does not.")
        rows = dataset.rows("test")
        n = min(config.items, len(dataset) if rows is None else len(rows))
        generator = seeded(seed, dataset.device)
        made = continued(model.predict, dataset, n, generator, "test", config.past or None, config.steps or None)
        error, still = float(made.errors.mean()), float(made.still.mean())
        result: dict[str, Any] = {
            "gain": 1 - error / still if still else float("nan"),
            "squared_error": error,
            "still": still,
            "items": n,
        }
        if not still:
            result["reasons"] = {"gain": "nothing changes in these clips"}
        return {**result, "error_per_step": made.errors.cpu().numpy(), "still_per_step": made.still.cpu().numpy()}
