"""pairs: items of any data set with a full grid of factors, with a partner that differs in a few of them.

What weakly supervised and temporal methods learn from: Ada-GVAE (Locatello et al. 2020) and GroupVAE take pairs that
differ in k factors at random, SlowVAE (Klindt et al. 2021) pairs that differ a little.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

import torch
from torch import Tensor

from distk import FactorDataset, Files, UsageError, option
from distk.console import counted
from distk.data import Split


@dataclass(frozen=True)
class Config:
    """Which data, and how a partner differs."""

    of: str = option("dsprites", "data set whose items are paired; it must hold every combination of its factors")
    k: int = option(
        1, "factors in which a partner differs; 0: of each pair a number drawn from 1 to all but one", min=0
    )
    near: bool = option(False, "a factor that differs is one step away, up or down, instead of anywhere")


class Pairs(FactorDataset[Config]):
    """Rows, items and factors are those of the data set `of`. `sample` adds the partners.

    A batch that is drawn holds also `x2` `[n, *spec.shape]`, `factors2` int64 `[n, K]` and `differs` bool `[n, K]`.
    Factors with one value never differ. Partners may lie in another split than their items.
    """

    gives = ("x2", "factors2", "differs")
    reads = "the files of the data set that is paired"

    def __init__(self, config: Config, device: torch.device, files: Files) -> None:
        super().__init__(config, device, files)
        inner = files.open(config.of, device=device)
        if not isinstance(inner, FactorDataset) or not inner.is_grid:
            raise UsageError(f"--of {config.of}: pairs need every combination of known factors, as in dsprites.")
        self.inner, self.spec = inner, inner.spec
        self.factor_names, self.factor_sizes = inner.factor_names, inner.factor_sizes
        self.factor_kinds, self.parts = inner.factor_kinds, inner.parts
        self.varying = sum(size > 1 for size in self.factor_sizes)
        if max(1, config.k) >= self.varying:  # a pair differs in one at least
            raise UsageError(
                f"--k {config.k}: '{inner.name}' has {counted(self.varying, 'factor')} that vary, and one must stay."
            )
        self.origin = f"pairs of {inner.name} ({inner.origin})"
        self._moves = torch.tensor([float(size > 1) for size in self.factor_sizes], device=device)
        self._count = torch.tensor(self.factor_sizes, device=device)
        self._turns = torch.tensor([kind == "circular" for kind in self.factor_kinds], device=device)

    def __len__(self) -> int:
        return len(self.inner)

    def batch(self, rows: Tensor) -> dict[str, Tensor]:
        """Items of `of`, without partners."""
        return self.inner.items(rows)

    def sample(
        self, n: int, generator: torch.Generator, split: Split = "train", bucket: Hashable = None
    ) -> dict[str, Tensor]:
        """`n` items of a split and their partners; see the class."""
        rows = self.sample_rows(n, generator, split)
        item = self.batch(rows)
        differs = self._differing(n, generator)
        factors = self.factors(rows)
        other = torch.where(differs, self._elsewhere(factors, generator), factors)
        return {**item, "x2": self.inner.batch(self.index(other))["x"], "factors2": other, "differs": differs}

    def _differing(self, n: int, generator: torch.Generator) -> Tensor:
        """Which factors differ, bool `[n, K]`: k of those that vary, every choice alike."""
        uniform = torch.rand(n, len(self.factor_sizes), generator=generator, device=self.device)
        place = (uniform * self._moves - (1 - self._moves)).argsort(1, descending=True).argsort(1)
        if self.config.k:
            return place < self.config.k
        drawn = torch.rand(n, 1, generator=generator, device=self.device)
        return place < 1 + (drawn * (self.varying - 1)).long().clamp_(max=self.varying - 2)

    def _elsewhere(self, factors: Tensor, generator: torch.Generator) -> Tensor:
        """Another value of every factor, `[n, K]`: any other, all alike, or with `near` the next one up or down, at an
        end of a factor that does not turn the only one that there is."""
        uniform = torch.rand(factors.shape, generator=generator, device=self.device)
        if not self.config.near:
            others = (self._count - 1).clamp_min(1)
            return (factors + 1 + (uniform * others).long().minimum(others - 1)) % self._count
        step = torch.where(uniform < 0.5, -1, 1)
        inside = (factors + step >= 0) & (factors + step < self._count)
        step = torch.where(self._turns | inside, step, -step)
        return (factors + step) % self._count
