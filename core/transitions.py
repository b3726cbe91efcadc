"""What is done to a world and what becomes of it: actions, and data of kind `transition`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from distk.config import C
from distk.console import counted
from distk.data import Dataset, DataSpec
from distk.errors import UsageError

MOST = 1 << 16
"""Choices, or numbers, of an action."""


@dataclass(frozen=True)
class Actions:
    """What may be done in an environment, kept in `DataSpec.extra` of kinds `environment` and `transition`.

    Discrete: one of `count` choices, int64 `[n]`. Continuous: numbers, float32 `[n, size]`, each within its `low` and
    `high`. names: of the choices or of the numbers. Raises ValueError for bounds that are no finite intervals.
    """

    names: tuple[str, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not 0 < len(self.names) <= MOST:
            raise ValueError(f"there must be 1 to {MOST:,} actions, not {len(self.names):,}")
        if self.low or self.high:
            sound = len(self.low) == len(self.high) == len(self.names)
            if not sound or not all(a < b and math.isfinite(b - a) for a, b in zip(self.low, self.high, strict=True)):
                raise ValueError("continuous actions need a finite low below a finite high for each of their names")

    @property
    def continuous(self) -> bool:
        """Whether an action is numbers; else it is a choice."""
        return bool(self.low)

    @property
    def count(self) -> int:
        """Number of choices. Raises ValueError for continuous actions."""
        if self.continuous:
            raise ValueError("continuous actions cannot be counted")
        return len(self.names)

    @property
    def size(self) -> int:
        """How many numbers describe an action to a network: those of a continuous one, or the one-hot of a choice."""
        return len(self.names)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """`n` actions drawn uniformly, on the generator's device: float32 `[n, size]` or int64 `[n]`."""
        device = generator.device
        if not self.continuous:
            return torch.randint(self.count, (n,), generator=generator, device=device)
        low, high = (torch.tensor(v, device=device) for v in (self.low, self.high))
        return low + (high - low) * torch.rand(n, self.size, generator=generator, device=device)

    def as_input(self, u: Tensor) -> Tensor:
        """Actions as a network reads them, float32 `[n, size]`: continuous ones scaled to [-1, 1], choices one-hot."""
        if not self.continuous:
            return torch.nn.functional.one_hot(u, self.count).float()
        low, high = (u.new_tensor(v) for v in (self.low, self.high))
        return (u - low) / (high - low) * 2 - 1

    def problem(self, u: Tensor, n: int) -> str:
        """What is wrong with `n` actions, or an empty string. Reads values, so it is no part of a training step."""
        shape, kind = ((n, self.size), torch.float32) if self.continuous else ((n,), torch.int64)
        if tuple(u.shape) != shape or u.dtype != kind:
            return f"actions are {u.dtype} {list(u.shape)}; expected {kind} {list(shape)}"
        if self.continuous:
            low, high = (u.new_tensor(v) for v in (self.low, self.high))
            inside = bool(((u >= low) & (u <= high)).all())
            return "" if inside else f"actions lie outside {list(self.low)} to {list(self.high)}, or are not finite"
        return "" if bool(((u >= 0) & (u < self.count)).all()) else f"actions lie outside 0..{self.count - 1}"

    def to_extra(self) -> dict[str, Any]:
        """The entries of `DataSpec.extra`: `action_names`, and `actions` (their number) or `action_low` and `_high`."""
        if self.continuous:
            return {"action_names": list(self.names), "action_low": list(self.low), "action_high": list(self.high)}
        return {"action_names": list(self.names), "actions": len(self.names)}

    @classmethod
    def of(cls, spec: DataSpec) -> Actions:
        """The actions that a data description names. Raises UsageError where it names none, or none that make sense."""
        extra = spec.extra
        try:
            if "action_low" in extra:
                low, high = (tuple(float(v) for v in extra[key]) for key in ("action_low", "action_high"))
                return cls(tuple(map(str, extra.get("action_names") or range(len(low)))), low, high)
            count = extra["actions"]
            if not isinstance(count, int) or isinstance(count, bool) or not 0 < count <= MOST:
                raise ValueError(f"{count!r} is not a number of actions")
            names = tuple(map(str, extra.get("action_names") or range(count)))
            if len(names) != count:
                raise ValueError(f"{counted(count, 'action')} have {counted(len(names), 'name')}")
            return cls(names)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise UsageError(
                f"the data description of kind '{spec.kind}' does not name its actions: {error}."
            ) from error


class TransitionDataset(Dataset[C]):
    """Rows are transitions: something seen, what was done, and what was seen next. `spec.kind` is `transition`.

    `spec.shape` is that of one observation; `spec.extra` holds the actions (`Actions.to_extra`). Where the world behind
    the data can be stepped, a subclass defines `state`, `step` and `render`, and `batch` follows from them; recorded
    transitions define `batch` alone and leave `can_step` False.

    u: all rows' actions, float32 `[N, size]` or int64 `[N]`, on the device.
    """

    u: Tensor
    can_step: bool = True

    def __len__(self) -> int:
        return len(self.u)

    @property
    def actions(self) -> Actions:
        """What may be done."""
        return Actions.of(self.spec)

    def state(self, rows: Tensor) -> Tensor:
        """Rows int64 `[n]` -> states before the action, `[n, ...]`."""
        raise NotImplementedError

    def step(self, state: Tensor, u: Tensor) -> Tensor:
        """States and actions -> states after them; any state, any number of times."""
        raise NotImplementedError

    def render(self, state: Tensor) -> Tensor:
        """States -> observations float32 `[n, *spec.shape]`."""
        raise NotImplementedError

    def batch(self, rows: Tensor) -> dict[str, Tensor]:
        """`x` and `x_next` float32 `[n, *spec.shape]`, `u` float32 `[n, size]` or int64 `[n]`, and the states behind
        them, `state` and `state_next` `[n, ...]`."""
        before, u = self.state(rows), self.u[rows]
        after = self.step(before, u)
        return {"x": self.render(before), "u": u, "x_next": self.render(after), "state": before, "state_next": after}
