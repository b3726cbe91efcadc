"""What a run logs: sums on the device, and the first step in which a loss was not finite.

A step notes its values and its losses as they come and settles them once, at its end: one concatenation, one addition,
and four small operations for all losses together, where an addition and a check for every value would be a fifth of
the kernels of a small network's step. Nothing is read back before somebody asks.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from distk.device import Ranks

Slots = tuple[tuple[str, int], ...]
"""(name, length) of each value in the order in which a step notes them; a name may come several times."""

NEVER = torch.iinfo(torch.int64).max
_KEY = re.compile(r"(\d{1,6})/(\d{1,6})/(.+)", re.DOTALL)


class Ledger:
    """Means and health of a run's steps. model: whose parameters and buffers may be logged and change afterwards.

    Steps that note the same names in the same order share their sums, a float32 `[n + 1]`: the values end to end, and
    last the number of steps. Such tensors are made once and stay where they are, since captured steps write to them.
    """

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        self.device = device
        self._changing = {id(tensor) for tensor in (*model.parameters(), *model.buffers())}
        self._noted: list[tuple[str, Tensor]] = []
        self._losses: list[tuple[str, Tensor]] = []
        self._sums: dict[Slots, Tensor] = {}
        self._first: dict[tuple[str, ...], Tensor] = {}
        self._one = torch.ones(1, device=device)
        self._never = torch.tensor(NEVER, device=device)

    # During a step

    def begin(self) -> None:
        """Forget what a step noted that broke off."""
        self._noted.clear()
        self._losses.clear()

    def note(self, name: str, value: Tensor) -> None:
        """Add a scalar or a vector to the means of this name."""
        own = value.detach()
        # A view, a parameter or a buffer may hold something else by the end of the step.
        if value._is_view() or id(value) in self._changing:
            own = own.clone()
        self._noted.append((name, own.reshape(-1) if own.dtype == torch.float32 else own.reshape(-1).float()))

    def note_copy(self, name: str, value: Tensor) -> None:
        """As `note`, out of a compiled loss, in which nobody can ask what a tensor is a view of."""
        self._noted.append((name, value.detach().reshape(-1).float().clone()))

    def watch(self, name: str, loss: Tensor) -> None:
        """Hold a loss, a float32 scalar without a gradient, to being finite."""
        self._losses.append((name, loss.reshape(1)))

    def mark(self) -> int:
        """Where the notes stand, for `strike`."""
        return len(self._noted)

    def strike(self, mark: int) -> None:
        """Take back what was noted since."""
        del self._noted[mark:]

    def settle(self, step: Tensor) -> None:
        """Add what the step noted to the sums. step: its index, int64 on the device."""
        names = tuple(name for name, _ in self._losses)
        slots = tuple((name, len(value)) for name, value in self._noted)
        if not names and not slots:
            return
        if slots and slots not in self._sums:
            self._sums[slots] = torch.zeros(sum(length for _, length in slots) + 1, device=self.device)
        if names and names not in self._first:
            self._first[names] = torch.full((len(names),), NEVER, dtype=torch.int64, device=self.device)
        flat = torch.cat([*(v for _, v in self._losses), *(v for _, v in self._noted), self._one])
        if slots:
            self._sums[slots].add_(flat[len(names) :])
        if names:
            # |x| < inf is false for infinities and for NaN; torch's own isfinite takes four operations for it.
            finite = flat[: len(names)].abs() < torch.inf
            first = self._first[names]
            torch.minimum(first, torch.where(finite, self._never, step), out=first)
        self.begin()

    # Reading back

    def read(self, ranks: Ranks) -> dict[str, float]:
        """Means of everything noted since the last call, in the order in which names first came."""
        means: dict[str, float] = {}
        for name, (*sums, count) in self._together(ranks).items():
            single = len(sums) == 1
            means |= {name if single else f"{name}/{i + 1}": value / count for i, value in enumerate(sums)}
        for total in self._sums.values():
            total.zero_()
        return means

    def totals(self) -> dict[str, Tensor]:
        """Sums and number of values since the last `read`: name -> float32 `[length + 1]`."""
        return {name: torch.tensor(values) for name, values in self._together(Ranks()).items()}

    def _together(self, ranks: Ranks) -> dict[str, list[float]]:
        """The sums of a name over all orders in which it was noted, and how often it was; of two lengths the last."""
        if not self._sums:
            return {}
        flat = ranks.average_tensor(torch.cat(list(self._sums.values())))
        found: dict[str, list[float]] = {}
        for slots, part in zip(self._sums, flat.cpu().split([len(t) for t in self._sums.values()]), strict=True):
            *values, count = part.tolist()
            rest = iter(values)
            for name, length in slots if count else ():
                own = [*itertools.islice(rest, length), count]
                held = found.get(name, [])
                found[name] = [a + b for a, b in zip(held, own, strict=True)] if len(held) == len(own) else own
        return found

    def bad(self, ranks: Ranks) -> dict[str, int]:
        """The first step in which a loss was not finite, by its name, on any rank; empty where all were."""
        if not self._first:
            return {}
        first = torch.cat(list(self._first.values()))
        read = (ranks.smallest(first) if ranks.world > 1 else first).cpu().tolist()
        found: dict[str, int] = {}
        for name, step in zip(itertools.chain.from_iterable(self._first), read, strict=True):
            if step != NEVER:
                found[name] = min(step, found.get(name, step))
        return found

    # Resuming

    def state(self) -> dict[str, Tensor]:
        """The sums as `order/place/name` -> float32 `[length + 1]`: those of a value, and the number of steps."""
        found = {}
        for i, (slots, total) in enumerate(self._sums.items()):
            *parts, count = total.split([*(length for _, length in slots), 1])
            for j, ((name, _), part) in enumerate(zip(slots, parts, strict=True)):
                found[f"{i}/{j}/{name}"] = torch.cat([part, count])
        return found

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Inverse of `state`. A key without numbers, as older checkpoints have them, is a sum of its own."""
        self.begin()
        self._sums.clear()
        orders: dict[tuple[str, str], list[tuple[int, str, Tensor]]] = {}
        for key, value in state.items():
            found = _KEY.fullmatch(key)
            order, place, name = found.groups() if found else ("", "0", key)
            orders.setdefault((order, "" if found else name), []).append((int(place), name, value.to(self.device)))
        for parts in orders.values():
            parts.sort(key=lambda part: part[0])
            slots = tuple((name, len(value) - 1) for _, name, value in parts)
            self._sums[slots] = torch.cat([*(value[:-1] for _, _, value in parts), parts[0][2][-1:]])
