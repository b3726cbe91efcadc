"""What a model says comes next, beside what does come."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from distk.console import counted
from distk.data import Dataset
from distk.errors import UsageError


@dataclass(frozen=True)
class Predicted:
    """Predictions for n items.

    before: what the model was shown, `[n, k, *item]`. made, truth: what it says follows and what does, `[n, s, *item]`.
    """

    before: Tensor
    made: Tensor
    truth: Tensor

    @property
    def errors(self) -> Tensor:
        """Mean squared error of each step over items and their entries, float `[s]`."""
        return _per_step(self.made - self.truth)

    @property
    def still(self) -> Tensor:
        """The same where nothing changes after the last item that was shown, float `[s]`."""
        return _per_step(self.before[:, -1:] - self.truth)


def _per_step(difference: Tensor) -> Tensor:
    return difference.double().pow(2).transpose(0, 1).flatten(1).mean(1)


Predict = Callable[[Tensor, int, torch.Generator], Tensor]
"""`Method.predict`: clips `[n, k, *item]`, a number of steps s, a generator -> `[n, s, *item]`."""


def continued(
    predict: Predict,
    dataset: Dataset,
    n: int,
    generator: torch.Generator,
    split: str,
    past: int | None,
    steps: int | None,
) -> Predicted:
    """The end of `n` clips of a split from their beginning.

    past: frames that are shown, by default half of a clip. steps: frames that are predicted, by default the others.
    Raises UsageError for items that are no clips, more items than there are, and clips that are too short.
    """
    shape = dataset.spec.shape
    frames = shape[0] if len(shape) in (2, 4) else 0
    if frames < 2:
        raise UsageError(f"data set '{dataset.name}' has no clips whose end could be predicted.")
    past = max(1, frames // 2) if past is None else past
    steps = frames - past if steps is None else steps
    if past < 1 or steps < 1 or past + steps > frames:
        raise UsageError(f"--past {past} and --steps {steps} do not fit into the {counted(frames, 'frame')} of a clip.")
    rows = dataset.rows_of(split)
    if n > len(rows):
        raise UsageError(f"--n {n} is more than the {counted(len(rows), 'item')} of the {split} split.")
    drawn = torch.randperm(len(rows), generator=generator, device=generator.device)[:n].to(rows.device)
    clips = dataset.batch(rows[drawn])["x"]
    before, truth = clips[:, :past], clips[:, past : past + steps]
    return Predicted(before, predict(before, steps, generator), truth)
