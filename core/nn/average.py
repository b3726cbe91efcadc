"""A moving average of a network's weights, which many methods decode, encode or compare with."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn


class Average(nn.Module):
    """A copy of a module whose tensors follow it: average <- decay * average + (1 - decay) * module, at each `update`.

    Call `update` in `Objective.after`. The copy's parameters take no gradient, and are part of a checkpoint like any
    others. Tensors that are no floating-point numbers, such as counters, are copied.

    module: what is followed; the average begins as a copy of it, and it stays where it is in the method.
    decay: in [0, 1), the share of the average that stays. Raises ValueError for another one.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        super().__init__()
        if not 0 <= decay < 1:
            raise ValueError(f"the decay of an average is in [0, 1), not {decay:g}")
        self.decay = decay
        self.average = copy.deepcopy(module).requires_grad_(False)
        self._followed = (module,)  # in a tuple: it is not a part of this module

    @torch.no_grad()
    def update(self) -> None:
        """Move towards the module that is followed."""
        held, now = self.average.state_dict(), self._followed[0].state_dict()
        once = {name for name, _ in (*self.average.named_parameters(), *self.average.named_buffers())}
        held = {name: value for name, value in held.items() if name in once}  # tied weights have several names
        floats = [name for name, value in held.items() if value.is_floating_point()]
        torch._foreach_lerp_([held[n] for n in floats], [now[n] for n in floats], 1 - self.decay)
        for name in held.keys() - set(floats):
            held[name].copy_(now[name])

    def forward(self, *arguments: Any, **named: Any) -> Tensor:
        """What the average makes of its arguments, as the module itself would."""
        return self.average(*arguments, **named)
