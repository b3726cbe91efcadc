"""What a code consists of: named groups of latent dimensions.

A code is a dict from group name to tensor. A continuous group of size m is float `[batch, m]` (the posterior mean where
the method has a posterior); a categorical group of size S is float `[batch, S]`, one-hot or probabilities. A group with
`steps` has a value per time step: `[batch, steps, size]`. Traversal, swapping, interpolation and metrics work from
the LatentSpace alone, so that they serve every method.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from distk.errors import UsageError, unknown

Code = dict[str, Tensor]


@dataclass(frozen=True)
class Latent:
    """One group: `kind` continuous or categorical, `size` dimensions or classes, `steps` > 0 for one per time step.

    low, high: what a traversal walks through for a continuous group.
    """

    name: str
    kind: Literal["continuous", "categorical"]
    size: int
    steps: int = 0
    low: float = -2.0
    high: float = 2.0

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one item's value: `(size,)` or `(steps, size)`."""
        return (self.steps, self.size) if self.steps else (self.size,)

    @property
    def columns(self) -> list[str]:
        """Names of the columns that this group fills in a table of codes (see `LatentSpace.columns`)."""
        places = [f"{self.name}[{t}]" for t in range(self.steps)] if self.steps else [self.name]
        if self.kind == "categorical":
            return places
        return [f"{place}{i + 1}" for place in places for i in range(self.size)]


@dataclass(frozen=True)
class LatentSpace:
    """Ordered groups of a code."""

    groups: tuple[Latent, ...]

    @classmethod
    def of(cls, *groups: Latent) -> LatentSpace:
        """A space of the given groups; names must differ.

        Raises ValueError for a repeated name.
        """
        if len({group.name for group in groups}) != len(groups):
            raise ValueError("two latent groups have one name")
        return cls(tuple(groups))

    def __iter__(self) -> Iterator[Latent]:
        return iter(self.groups)

    def __getitem__(self, name: str) -> Latent:
        for group in self.groups:
            if group.name == name:
                return group
        raise unknown("latent group", name, [group.name for group in self.groups])

    @property
    def columns(self) -> list[str]:
        """Names of the columns of `flatten`: `z1 ... z6, d`."""
        return [name for group in self for name in group.columns]

    @property
    def column_kinds(self) -> list[str]:
        """Kind of each column of `flatten`."""
        return [group.kind for group in self for _ in group.columns]

    def flatten(self, code: Code) -> Tensor:
        """Code -> float `[batch, columns]`; a categorical group becomes one column with its most probable class."""
        parts = []
        for group in self:
            value = code[group.name]
            if group.kind == "categorical":
                value = value.argmax(-1, keepdim=True).to(torch.get_default_dtype())
            parts.append(value.flatten(1))
        return torch.cat([part.float() for part in parts], dim=1)

    def check(self, code: Code, batch: int) -> None:
        """Hold a code against this space.

        Raises ValueError naming the group for a missing, surplus or misshapen group.
        """
        names = [group.name for group in self]
        if sorted(code) != sorted(names):
            raise ValueError(f"the code has groups {sorted(code)}, the latent space {sorted(names)}")
        for group in self:
            expected = (batch, *group.shape)
            if tuple(code[group.name].shape) != expected:
                raise ValueError(f"group '{group.name}' has shape {tuple(code[group.name].shape)}, expected {expected}")

    def swap(self, a: Code, b: Code, group: str) -> tuple[Code, Code]:
        """Exchange one group between two codes; the others stay."""
        self[group]
        return {**a, group: b[group]}, {**b, group: a[group]}

    def to_list(self) -> list[dict[str, Any]]:
        """Plain values for the checkpoint header."""
        return [asdict(group) for group in self]

    @classmethod
    def from_list(cls, groups: list[dict[str, Any]]) -> LatentSpace:
        """Inverse of `to_list`. Raises UsageError for entries that are no latent groups."""
        try:
            return cls.of(*(Latent(**group) for group in groups))
        except (TypeError, ValueError) as error:
            raise UsageError(f"the list of latent groups is damaged: {error}.") from error


def one_hot(index: Tensor, classes: int) -> Tensor:
    """Class indices `[...]` int64 -> float `[..., classes]`, without reading values back to the host."""
    return (index.unsqueeze(-1) == torch.arange(classes, device=index.device)).float()
