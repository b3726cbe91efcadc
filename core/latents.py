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

from distk.console import counted
from distk.errors import UsageError, unknown

Code = dict[str, Tensor]

PRIORS = {"continuous": ("normal", "uniform", "none"), "ordinal": ("levels",), "categorical": ("categorical",)}
"""The priors that a group of each kind can have, its default first."""


@dataclass(frozen=True)
class Latent:
    """One group: `kind` continuous, ordinal or categorical, `size` dimensions or classes, `steps` > 0 for one per time
    step.

    An ordinal group is continuous but for its dimensions taking a few values each, in order, which the method learns
    and gives in `Method.walk`.

    low, high: what a traversal walks through for a continuous group.
    prior: what `Method.prior` draws: "normal" (standard normal, the default of a continuous group), "uniform" (over
        low..high), "categorical" (every class alike, the default and only prior of a categorical group), "levels" (each
        dimension's values alike, the default and only prior of an ordinal group), "none" (no prior is known: the method
        overrides `prior` or draws nothing, and a traversal runs through the middle 90 % of the data's codes).
    encoded: False for a group that `encode` does not give, such as a generator's noise; `decode` gets it drawn.
    scored: whether the group is part of the table of codes; one that is not encoded never is.
    walked: whether a traversal moves it; noise that only varies what nobody asks about stays where it is.
    shifted: whether a traversal adds its values to the group's own, so that a path through time keeps its form,
        instead of putting them in their place.
    Raises ValueError for another kind or prior.
    """

    name: str
    kind: Literal["continuous", "ordinal", "categorical"]
    size: int
    steps: int = 0
    low: float = -2.0
    high: float = 2.0
    prior: str = ""
    encoded: bool = True
    scored: bool = True
    walked: bool = True
    shifted: bool = False

    def __post_init__(self) -> None:
        possible = {
            "continuous": ("normal", "uniform", "none"),
            "ordinal": ("levels",),
            "categorical": ("categorical",),
        }
        if self.kind not in possible:
            raise ValueError(f"latent group '{self.name}' is of kind {self.kind!r}; kinds are {', '.join(possible)}")
        priors = possible[self.kind]
        if self.prior not in ("", *priors):
            raise ValueError(f"latent group '{self.name}' has prior {self.prior!r}; it can be {' or '.join(priors)}")
        object.__setattr__(self, "prior", self.prior or priors[0])
        object.__setattr__(self, "scored", self.scored and self.encoded)

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
    def encoded(self) -> tuple[Latent, ...]:
        """The groups that `encode` gives."""
        return tuple(group for group in self if group.encoded)

    @property
    def scored(self) -> tuple[Latent, ...]:
        """The groups that a table of codes holds."""
        return tuple(group for group in self if group.scored)

    @property
    def columns(self) -> list[str]:
        """Names of the columns of `flatten`: `z1 ... z6, d`."""
        return [name for group in self.scored for name in group.columns]

    @property
    def column_kinds(self) -> list[str]:
        """Kind of each column of `flatten`."""
        return [group.kind for group in self.scored for _ in group.columns]

    def flatten(self, code: Code) -> Tensor:
        """Code -> float `[batch, columns]` of the scored groups; a categorical group becomes one column with its
        most probable class."""
        parts = []
        for group in self.scored:
            value = code[group.name]
            if group.kind == "categorical":
                value = value.argmax(-1, keepdim=True).to(torch.get_default_dtype())
            parts.append(value.flatten(1))
        return torch.cat([part.float() for part in parts], dim=1)

    def unflatten(self, table: Tensor) -> Code:
        """Rows of a table `[n, columns]` -> a code of the scored groups, the inverse of `flatten`: a class's column
        becomes one-hot. Raises ValueError for another number of columns."""
        if table.dim() != 2 or table.shape[1] != len(self.columns):
            raise ValueError(
                f"a table of shape {tuple(table.shape)} has not the {counted(len(self.columns), 'column')} of the code"
            )
        code, place = {}, 0
        for group in self.scored:
            width = len(group.columns)
            part = table[:, place : place + width]
            place += width
            if group.kind == "categorical":
                part = one_hot(part.long().view(-1, group.steps) if group.steps else part[:, 0].long(), group.size)
            code[group.name] = part.reshape(len(table), *group.shape)
        return code

    def check(self, code: Code, batch: int, whole: bool = False) -> None:
        """Hold a code against this space: what `encode` gives, or with `whole` all groups.

        Raises ValueError naming the group for a missing, surplus or misshapen group.
        """
        groups = tuple(self) if whole else self.encoded
        names = [group.name for group in groups]
        if sorted(code) != sorted(names):
            raise ValueError(f"the code has groups {sorted(code)}, the latent space {sorted(names)}")
        for group in groups:
            expected = (batch, *group.shape)
            if tuple(code[group.name].shape) != expected:
                raise ValueError(f"group '{group.name}' has shape {tuple(code[group.name].shape)}, expected {expected}")

    def swap(self, a: Code, b: Code, group: str) -> tuple[Code, Code]:
        """Exchange one group between two codes; the others stay."""
        self[group]
        return {**a, group: b[group]}, {**b, group: a[group]}

    def between(self, a: Code, b: Code, share: Tensor) -> Code:
        """Straight lines from code a to code b, both of n items: share `[s]` -> a code of `s * n` items, share by
        share. A class changes halfway."""
        code = {}
        for group in self:
            if group.name not in a:
                continue
            weight = share.view(-1, *[1] * a[group.name].dim())
            if group.kind == "categorical":
                weight = (weight >= 0.5).float()
            code[group.name] = ((1 - weight) * a[group.name] + weight * b[group.name]).flatten(0, 1)
        return code

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
