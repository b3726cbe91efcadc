"""skewed: any data set with a full grid of factors, of which training sees some combinations more often than others.

The harder settings of the literature since 2021: two factors that are correlated in training (Träuble et al. 2021),
combinations that training never shows (Montero et al. 2021), values that are rare. Scores see the full grid as ever, so
that they say what a model learnt of combinations that were rare or absent.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from distk import FactorDataset, Files, UsageError, option
from distk.console import counted
from distk.data import Split
from distk.errors import unknown


@dataclass(frozen=True)
class Config:
    """Which data, and what training sees of them. Several entries of a setting are separated by semicolons."""

    of: str = option("dsprites", "data set; it must hold every combination of its factors")
    correlate: str = option(
        "", "two factors and the width of the line on which their values lie: scale,posX:0.2 (wide as 1, narrow as 0.1)"
    )
    without: str = option(
        "",
        "combinations that training never sees: shape=heart,posX=16-31 (numbers, ranges, names of classes)",
    )
    weights: str = option("", "how often each value of a factor is seen, against the others: shape:5,1,1")


class Skewed(FactorDataset[Config]):
    """Rows, items and factors are those of the data set `of`. What is never drawn for training is the split `test`;
    where `of` has splits of its own they stay, and what is never drawn of its `train` is the split `unseen`.

    A combination is drawn in proportion to its weight: for each `correlate` A,B:s times exp(-(a - b)^2 / 2 s^2), a and
    b the places of the two values between 0 and 1; for each of `weights` times that of its value; 0 for a combination
    under `without`.
    """

    reads = "the files of the data set that is drawn from"

    def __init__(self, config: Config, device: torch.device, files: Files) -> None:
        super().__init__(config, device, files)
        inner = files.open(config.of, device=device)
        if not isinstance(inner, FactorDataset) or not inner.is_grid:
            raise UsageError(f"--of {config.of}: every combination of known factors is needed, as in dsprites.")
        self.inner, self.spec = inner, inner.spec
        self.factor_names, self.factor_sizes = inner.factor_names, inner.factor_sizes
        self.factor_kinds = inner.factor_kinds
        weight, told = self._weights(config)
        rows = inner.rows_of("train")
        seen = weight[rows] > 0
        if not bool(seen.any()):
            raise UsageError(f"nothing of '{inner.name}' is left to train on.")
        self.cumulated = torch.zeros_like(weight).index_copy_(0, rows, weight[rows]).cumsum(0)
        self.parts = {**inner.parts}
        if not bool(seen.all()):
            name = "unseen" if inner.parts else "test"  # the rows of a published test set stay alone
            self.parts |= {"train": rows[seen], name: rows[~seen]}
            share = float((~seen).double().mean())
            told.append(f"{share:.1%} of the combinations are never seen in training: '{name}'")
        self.origin = f"{inner.name} ({inner.origin}); {'; '.join(told) or 'every combination alike'}"

    def __len__(self) -> int:
        return len(self.inner)

    def batch(self, rows: Tensor) -> dict[str, Tensor]:
        """Items of `of`."""
        return self.inner.items(rows)

    def sample_rows(self, n: int, generator: torch.Generator, split: Split = "all") -> Tensor:
        """Rows of `train` by their weight, those of other splits uniformly; with replacement, int64 `[n]`."""
        if split != "train":
            return super().sample_rows(n, generator, split)
        uniform = torch.rand(n, generator=generator, device=self.device, dtype=torch.float64)
        place = torch.searchsorted(self.cumulated, uniform * self.cumulated[-1], right=True)
        # `right` passes over rows of weight 0; a draw that rounding lifts to the very end takes the last row of some.
        last = torch.searchsorted(self.cumulated, self.cumulated[-1:])
        return torch.minimum(place, last)

    def _weights(self, config: Config) -> tuple[Tensor, list[str]]:
        """Weight of every row, float64 `[N]`, and what it comes to."""
        grid = self.inner.grid()
        weight, told = torch.ones(len(grid), dtype=torch.float64, device=self.device), []
        for entry in _entries(config.weights):
            k, text = self._factor(entry.partition(":")[0], "weights"), entry.partition(":")[2]
            values = self._numbers(text, "weights", entry)
            if len(values) != self.factor_sizes[k] or min(values) < 0:
                size = self.factor_sizes[k]
                raise UsageError(
                    f"--weights '{entry}': factor '{self.factor_names[k]}' needs {counted(size, 'number')} from 0."
                )
            weight *= torch.tensor(values, dtype=torch.float64, device=self.device)[grid[:, k]]
            told.append(f"values of {self.factor_names[k]} in the proportion {text.strip()}")
        pairs = []
        for entry in _entries(config.correlate):
            names, _, text = entry.partition(":")
            both = [self._factor(name, "correlate") for name in names.split(",")]
            width = self._numbers(text, "correlate", entry)
            if len(set(both)) != 2 or len(width) != 1 or width[0] <= 0 or min(self.factor_sizes[k] for k in both) < 2:
                raise UsageError(
                    f"--correlate '{entry}': write two factors that vary and a width, as in scale,posX:0.2."
                )
            a, b = (grid[:, k].double() / (self.factor_sizes[k] - 1) for k in both)
            weight *= (-((a - b) ** 2) / (2 * width[0] ** 2)).exp()
            pairs.append(both)
        for entry in _entries(config.without):
            mask = torch.ones(len(grid), dtype=torch.bool, device=self.device)
            for part in entry.split(","):
                name, _, text = part.partition("=")
                k = self._factor(name, "without")
                low, high = self._levels(k, text.strip(), entry)
                mask &= (grid[:, k] >= low) & (grid[:, k] <= high)
            weight = weight.masked_fill(mask, 0.0)
        for first, second in pairs:  # with all that was asked for
            names = f"{self.factor_names[first]} and {self.factor_names[second]}"
            found = _correlation(grid[:, first], grid[:, second], weight)
            told.append(f"{names} are correlated in training by {found:.2f}")
        return weight, told

    def _factor(self, name: str, setting: str) -> int:
        if name.strip() not in self.factor_names:
            raise unknown(f"factor of '{self.inner.name}' in --{setting}", name.strip(), self.factor_names)
        return self.factor_names.index(name.strip())

    def _numbers(self, text: str, setting: str, entry: str) -> list[float]:
        try:
            return [float(value) for value in text.split(",")]
        except ValueError:
            raise UsageError(f"--{setting} '{entry}': '{text.strip()}' is no number or list of numbers.") from None

    def _levels(self, k: int, text: str, entry: str) -> tuple[int, int]:
        """First and last value that a text names: a number, a range, or the name of a class."""
        size, name = self.factor_sizes[k], self.factor_names[k]
        classes = self.spec.classes if self.factor_kinds[k] == "categorical" and len(self.spec.classes) == size else ()
        if text in classes:
            return classes.index(text), classes.index(text)
        low, _, high = text.partition("-")
        if low.isdecimal() and (high or low).isdecimal() and int(low) <= int(high or low) < size:
            return int(low), int(high or low)
        named = f" or one of {', '.join(classes)}" if classes else ""
        raise UsageError(
            f"--without '{entry}': '{text}' is no value of '{name}'; write 0 to {size - 1}, a range as 0-1{named}."
        )


def _entries(text: str) -> list[str]:
    return [entry.strip() for entry in text.split(";") if entry.strip()]


def _correlation(a: Tensor, b: Tensor, weight: Tensor) -> float:
    """Pearson's correlation of two columns under weights."""
    share = weight / weight.sum()
    a, b = (x.double() - (share * x).sum() for x in (a, b))
    spread = ((share * a * a).sum() * (share * b * b).sum()).sqrt()
    return float((share * a * b).sum() / spread) if float(spread) > 0 else float("nan")
