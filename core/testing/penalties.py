"""Conformance of penalties."""

from __future__ import annotations

import torch
from torch import Tensor

from distk.device import no_host_reads
from distk.errors import DistkError
from distk.penalty import Penalty
from distk.testing.data import Check, demand, documented, loaded, named_apart, run
from distk.testing.reads import NoHostReads


def penalty_checks(name: str) -> list[Check]:
    """All checks of a penalty, on random activations of a layer of units and of a layer of feature maps."""
    try:
        cls = loaded("penalty", name, Penalty)
    except DistkError as error:
        return [Check("it can be imported", str(error))]
    if (apart := named_apart(cls.Config)).problem:
        return [apart]
    draw = torch.Generator().manual_seed(0)
    layers = {"units": torch.randn(32, 5, generator=draw), "maps": torch.randn(32, 3, 4, 4, generator=draw)}

    def value(**given: Tensor) -> Tensor:
        return cls(cls.Config()).value(given)

    def scalar() -> None:
        for layer, h in layers.items():
            found = value(**{layer: h})
            assert found.shape == (), f"the value has shape {tuple(found.shape)}"
            assert bool(found.isfinite()), "the value is not finite"
        assert value(**layers).shape == (), "two layers do not give one value"

    def gradient() -> None:
        for layer, h in layers.items():
            h = h.clone().requires_grad_()
            (found,) = torch.autograd.grad(value(**{layer: h}), h, allow_unused=True)
            assert found is not None, "no gradient reaches the activations"
            assert bool(found.isfinite().all()), "the gradient is not finite"

    def reads() -> None:
        with no_host_reads(), NoHostReads():
            h = layers["units"].clone().requires_grad_()
            value(units=h).backward()

    def repeatable() -> None:
        assert torch.equal(value(**layers), value(**layers)), "the same activations give two values"

    checks = run(
        {
            "every option is documented": lambda: documented(cls.Config),
            "its value is one finite number": scalar,
            "its gradient reaches the activations": gradient,
            "it reads nothing back to the host": reads,
            "the same activations give the same value": repeatable,
        }
    )
    return [apart, *checks]


def check_penalty(name: str) -> None:
    """`penalty_checks`, raising AssertionError that names every check that failed."""
    demand(penalty_checks(name), f"penalty '{name}'")
