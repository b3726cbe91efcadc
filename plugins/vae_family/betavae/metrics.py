"""The metric `capacity-order`: which of the true factors a growing capacity is spent on, and when."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from distk import CodeTable, Metric, UsageError, option
from distk.data import names_of
from distk.meaning import lower, neither
from distk.plugins.vae_family.betavae.factorgen import FactorGen


@dataclass(frozen=True)
class Config:
    """Where the curve is read."""

    at: float = option(5.0, "capacity in nats at which KLs are read", paper="5", min=0)
    first: tuple[str, ...] = option(("posX", "posY"), "factors that are said to open first")
    threshold: float = option(0.1, "KL in nats above which a channel is open", min=0)


class CapacityOrder(Metric[Config]):
    """The KL of every factor's channel in nats, as `factorgen` kept it while the capacity C grew.

    `kl_FACTOR`: at C = `at`. `others`: of all factors but `first`, together. `uneven`: largest less smallest KL of
    `first`, as a share of their sum. `opened_FACTOR`: the C from which on its KL stays above the threshold, and the
    largest C of the run for one that is shut to the end. `opened_first`: the last of `first`. `least`: the smallest KL
    of a factor at the end.
    """

    headline = "others"
    measures = "items made and bounds"
    numbers = {
        "others": lower(0, unit="nats", what="KL at C = at of the factors not named first"),
        "uneven": lower(0, 1, what="how unequally the factors named first share, at C = at"),
        "least": neither(0, unit="nats", what="smallest KL of a factor at the end"),
        "opened_*": neither(0, unit="nats", what="capacity from which on a factor's channel is open"),
        "kl_*": neither(0, unit="nats", what="KL of a factor's channel at C = at"),
    }
    needs_model = True
    needs_codes = False

    def compute(self, table: CodeTable, seed: int) -> Mapping[str, Any]:
        """Raises UsageError for a model that is no factorgen, or whose capacity never grew to `at`."""
        model, config = table.model, self.config
        if not isinstance(model, FactorGen):
            raise UsageError("metric 'capacity-order' reads what `factorgen` keeps while its capacity grows.")
        names = list(model.factor_names)
        missing = [name for name in config.first if name not in names]
        if missing or len(config.first) < 1:
            raise UsageError(f"first: the factors of these data are {names_of(names)}, not {names_of(missing)}.")
        reached = [i for i, row in enumerate(model.curve.tolist()) if min(row) > -0.5]
        kl = [dict(zip(names, model.curve[i].tolist(), strict=True)) for i in reached]
        capacity = [model.capacities[i] for i in reached]
        at = next((i for i, c in enumerate(capacity) if c >= config.at - 1e-9), None)
        if at is None:
            top = capacity[-1] if capacity else 0.0
            raise UsageError(f"this run's capacity grew to {top:g} nats, so nothing is known at {config.at:g}.")
        opened = {name: _opened([row[name] for row in kl], capacity, config.threshold) for name in names}
        first = [kl[at][name] for name in config.first]
        return {
            "others": math.fsum(value for name, value in kl[at].items() if name not in config.first),
            "uneven": (max(first) - min(first)) / max(math.fsum(first), 1e-12),
            "least": min(kl[-1].values()),
            "opened_first": max(opened[name] for name in config.first),
            **{f"opened_{name}": value for name, value in opened.items()},
            **{f"kl_{name}": value for name, value in kl[at].items()},
        }


def _opened(kl: list[float], capacity: list[float], threshold: float) -> float:
    """The capacity from which on a channel's KL stays above the threshold; the last one where it does not.

    In the first steps all channels share the capacity, before those that help little close again: that does not count.
    """
    shut = [i for i, value in enumerate(kl) if value <= threshold]
    first = shut[-1] + 1 if shut else 0
    return capacity[min(first, len(capacity) - 1)]
