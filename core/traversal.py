"""Latent traversals: one latent at a time moves, the rest of the code stays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from distk.data import Dataset
from distk.errors import UsageError, unknown
from distk.latents import Code, Latent, one_hot
from distk.method import Method, can
from distk.metric import encode_table


@dataclass
class Row:
    """One row of a traversal: its label, and the items for each value, `[columns, *item]`, with zeros behind where
    there are fewer `values`; those are empty for classes."""

    label: str
    items: Tensor
    block: str = ""
    values: list[float] = field(default_factory=list)


@dataclass
class Traversal:
    """Input, reconstruction and rows of `columns` items.

    input: the item that the walk starts at, None where it starts at a draw from the prior. reconstruction: where it
    starts, decoded.
    """

    input: Tensor | None
    reconstruction: Tensor
    rows: list[Row]
    columns: int

    @property
    def values(self) -> list[float]:
        """What the first latent that is no class runs through."""
        return next((row.values for row in self.rows if row.values), [])


@dataclass(frozen=True)
class Known:
    """What is known of each column of the codes of some data, by its name.

    kl: mean KL to the prior in nats, where there is a posterior. spread: standard deviation. middle: what 90 % of the
    codes lie in, (low, high).
    """

    kl: dict[str, float] = field(default_factory=dict)
    spread: dict[str, float] = field(default_factory=dict)
    middle: dict[str, tuple[float, float]] = field(default_factory=dict)

    def rank(self, group: Latent, i: int) -> float:
        """How much one dimension says: its KL, or where there is none its spread; over time steps, their sum."""
        held = self.kl or self.spread
        return sum(held.get(name, 0.0) for name in _columns(group, i))


def known_of(model: Method, dataset: Dataset, items: int = 1000, seed: int = 0) -> Known:
    """The codes of at most `items` items, most informative first; nothing without an encoder."""
    if not can(model, "encode"):
        return Known()
    table = encode_table(model, dataset, rows=items, seed=seed)
    kl = [] if table.kl is None else [(n, v) for n, v in zip(table.names, table.kl.tolist(), strict=True) if v == v]
    codes = table.codes.double()
    low, high = torch.quantile(codes, torch.tensor([0.05, 0.95], dtype=codes.dtype, device=codes.device), dim=0)
    spread = zip(table.names, codes.std(0, correction=0).tolist(), strict=True)
    middle = zip(table.names, zip(low.tolist(), high.tolist(), strict=True), strict=True)
    return Known(dict(sorted(kl, key=lambda pair: -pair[1])), dict(spread), dict(middle))


def values_of(
    model: Method, group: Latent, i: int, columns: int, span: tuple[float, float] | None, known: Known
) -> Tensor:
    """What one dimension of a group runs through, float `[m]` on the model's device.

    In order: what `Method.walk` gives, of an ordinal group always; `span`; the middle of the data's codes for a group
    without a prior; the group's low to its high.
    """
    device = next(iter(model.state_dict().values())).device
    given = model.walk(group, columns) if span is None or group.kind == "ordinal" else None
    if given is not None:
        values = given.to(device) if given.dim() == 1 else given[i].to(device)
        # Of more values than there are columns some of them, evenly, with both ends.
        few = torch.linspace(0, len(values) - 1, columns, device=device).round().long()
        return values if len(values) <= columns else values[few]
    if group.kind == "ordinal":
        raise UsageError(f"method {type(model).__name__} does not say in `walk` which values '{group.name}' takes.")
    low, high = span or (group.low, group.high)
    if span is None and group.prior == "none":
        held = [known.middle[name] for name in _columns(group, i) if name in known.middle]
        if held:
            low, high = min(pair[0] for pair in held), max(pair[1] for pair in held)
    return torch.linspace(low, high, columns, device=device)


@torch.no_grad()
def start_of(model: Method, batch: Mapping[str, Tensor] | None, seed: int = 0) -> Code:
    """The code `[1, ...]` of all groups that a walk starts at: of a batch of one item, with what `encode` does not give
    drawn from `seed`; without an item a draw from the prior."""
    if batch is not None:
        return model.filled(model.encode_batch(batch), seed)
    device = model.device
    return model.prior(1, torch.Generator(device=device).manual_seed(seed))


@torch.no_grad()
def traverse(
    model: Method,
    batch: Mapping[str, Tensor] | None,
    columns: int,
    *,
    known: Known = Known(),
    span: tuple[float, float] | None = None,
    top: int | None = None,
    seed: int = 0,
) -> Traversal:
    """Traverse every latent that is walked from one code; the rest of the code, noise included, stays along all rows.

    batch: of one item, or None to start at a draw from the prior. columns: values per row, where the method gives no
    values of its own. known: what orders the rows. span: lowest and highest value of continuous latents, None takes
    each group's own. top: only so many continuous latents. seed: of what is drawn.
    A categorical code gives one block of rows per class (Jeong & Song 2019).
    """
    base = start_of(model, batch, seed)
    reconstruction = model.decode(base)
    x = None if batch is None else batch["x"]
    shape = x.shape[1:] if x is not None else reconstruction.shape[1:]
    walked = [group for group in model.latents if group.walked]
    numeric = [(group, i) for group in walked if group.kind != "categorical" for i in range(group.size)]
    numeric.sort(key=lambda pair: -known.rank(*pair))
    numeric = numeric[:top]
    categorical = [group for group in walked if group.kind == "categorical"]
    rows: list[Row] = []
    blocks: Sequence[tuple[str, Code]] = [("", base)]
    if categorical:
        first = categorical[0]
        blocks = [(f"{first.name}={k}", {**base, first.name: class_of(first, k, base)}) for k in range(first.size)]
    for name, code in blocks:
        for group, i in numeric:
            values = values_of(model, group, i, columns, span, known)
            moved = {key: value.expand(len(values), *value.shape[1:]).clone() for key, value in code.items()}
            move(moved[group.name][..., i], values.view(-1, *[1] * (moved[group.name].dim() - 2)), group)
            label = f"{group.name}{i + 1}" + (f"  KL {known.rank(group, i):.2f}" if known.kl else "")
            rows.append(Row(label, _pad(model.decode(moved).view(len(values), *shape), columns), name, values.tolist()))
    for group in categorical[1:] if numeric else categorical:
        for lowest in range(0, group.size, columns):  # as many rows as it takes to show every class
            classes = range(lowest, min(lowest + columns, group.size))
            codes = [{**base, group.name: class_of(group, k, base)} for k in classes]
            items = torch.cat([model.decode(code) for code in codes]).view(len(classes), *shape)
            rows.append(Row(f"{group.name} {classes[0]}..{classes[-1]}", _pad(items, columns)))
    return Traversal(None if x is None else x[0], reconstruction.view(1, *shape)[0], rows, columns)


@torch.no_grad()
def strips_of(model: Method, code: Code, latent: str, columns: int, given: Mapping[str, int] | None = None) -> Tensor:
    """A strip per item of a code: items `[n, columns, ...]` that differ along a strip in one latent alone.

    code: of all groups, n items. latent: a dimension such as `z1`, which runs through its own values or from its
    group's low to its high, or a categorical group, which shows every class. given: categorical group -> class of
    all items.
    Raises UsageError for a latent that is not there.
    """
    n = len(next(iter(code.values())))
    code = {**code, **{name: class_of(model.latents[name], k, code) for name, k in (given or {}).items()}}
    places = {f"{g.name}{i + 1}": (g, i) for g in model.latents if g.kind != "categorical" for i in range(g.size)}
    classes = {g.name: g for g in model.latents if g.kind == "categorical"}
    if latent in classes:
        group = classes[latent]
        codes = [{**code, latent: class_of(group, k, code)} for k in range(group.size)]
    elif latent in places:
        group, i = places[latent]
        codes = []
        for value in values_of(model, group, i, columns, None, Known()).tolist():
            moved = code[group.name].clone()
            move(moved[..., i], torch.tensor(value, device=moved.device), group)
            codes.append({**code, group.name: moved})
    else:
        raise unknown("latent", latent, [*places, *classes])
    items = torch.stack([model.decode(model.changed(each, group.name)) for each in codes], 1)
    return items.view(n, len(codes), *items.shape[2:])


def _columns(group: Latent, i: int) -> list[str]:
    """Names of the columns of one dimension, one for each time step."""
    return [f"{group.name}[{t}]{i + 1}" for t in range(group.steps)] if group.steps else [f"{group.name}{i + 1}"]


def move(place: Tensor, value: Tensor, group: Latent) -> None:
    """Put a value in the place of a dimension, in place; of a shifted group add it."""
    if group.shifted:
        place.add_(value)
    else:
        place.copy_(value.expand_as(place))


def class_of(group: Latent, k: int, base: Code) -> Tensor:
    """Class k of a categorical group, for every item of a code, at every time step."""
    like = base[group.name]
    return one_hot(torch.full(like.shape[:-1], k, device=like.device), group.size)


def _pad(items: Tensor, columns: int) -> Tensor:
    """Items `[n, ...]`, n at most `columns` -> `[columns, ...]`, with zeros behind."""
    filled = items.new_zeros(columns, *items.shape[1:])
    filled[: len(items)] = items
    return filled
