"""Latent traversals: one latent at a time moves, the rest of the code stays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from distk.data import Dataset
from distk.errors import unknown
from distk.latents import Code, Latent, one_hot
from distk.method import Method, can
from distk.metric import encode_table


@dataclass
class Row:
    """One row of a traversal: its label, and the items for each value, `[columns, *item]`."""

    label: str
    items: Tensor
    block: str = ""


@dataclass
class Traversal:
    """Input, reconstruction and rows; `values` are what a continuous latent runs through, one per column.

    input: the item that the walk starts at, None where it starts at a draw from the prior. reconstruction: where it
    starts, decoded.
    """

    input: Tensor | None
    reconstruction: Tensor
    rows: list[Row]
    values: list[float]


def order_by_kl(model: Method, dataset: Dataset, items: int = 1000, seed: int = 0) -> dict[str, float]:
    """Column name -> mean KL in nats over at most `items` items, most informative first; empty without a posterior."""
    if not can(model, "posterior"):
        return {}
    table = encode_table(model, dataset, rows=items, seed=seed)
    assert table.kl is not None
    pairs = [(n, float(v)) for n, v in zip(table.names, table.kl.tolist(), strict=True) if v == v]
    return dict(sorted(pairs, key=lambda pair: -pair[1]))


@torch.no_grad()
def start_of(model: Method, x: Tensor | None, seed: int = 0) -> Code:
    """The code `[1, ...]` of all groups that a walk starts at: of one item `[1, *spec.shape]`, with what `encode` does
    not give drawn from `seed`; without an item a draw from the prior."""
    if x is not None:
        return model.filled(model.encode(x), seed)
    device = next(model.parameters()).device
    return model.prior(1, torch.Generator(device=device).manual_seed(seed))


@torch.no_grad()
def traverse(
    model: Method,
    x: Tensor | None,
    kl: dict[str, float],
    columns: int,
    span: tuple[float, float] | None,
    top: int | None,
    seed: int = 0,
) -> Traversal:
    """Traverse every latent that is walked from one code; the rest of the code, noise included, stays along all rows.

    x: one item `[1, *spec.shape]`, or None to start at a draw from the prior. kl: as from `order_by_kl`. columns:
    values per row. span: lowest and highest value of continuous latents, None takes each group's own. top: only so
    many continuous latents. seed: of what is drawn.
    A categorical code gives one block of rows per class (Jeong & Song 2019).
    """
    base = start_of(model, x, seed)
    reconstruction = model.decode(base)
    shape = x.shape[1:] if x is not None else reconstruction.shape[1:]
    walked = [group for group in model.latents if group.walked]
    continuous = [(group, i) for group in walked if group.kind == "continuous" for i in range(group.size)]
    continuous.sort(key=lambda pair: -_nats(kl, *pair))
    continuous = continuous[:top]
    categorical = [group for group in walked if group.kind == "categorical"]
    low, high = span if span is not None else (model.latents.groups[0].low, model.latents.groups[0].high)
    rows: list[Row] = []
    blocks: Sequence[tuple[str, Code]] = [("", base)]
    if categorical:
        first = categorical[0]
        blocks = [(f"{first.name}={k}", {**base, first.name: _class(first, k, base)}) for k in range(first.size)]
    for name, code in blocks:
        for group, i in continuous:
            lowest, highest = (low, high) if span is not None else (group.low, group.high)
            values = torch.linspace(lowest, highest, columns, device=code[group.name].device)
            moved = {key: value.expand(columns, *value.shape[1:]).clone() for key, value in code.items()}
            _move(moved[group.name][..., i], values.view(-1, *[1] * (moved[group.name].dim() - 2)), group)
            label = f"{group.name}{i + 1}" + (f"  KL {_nats(kl, group, i):.2f}" if kl else "")
            rows.append(Row(label, model.decode(moved).view(columns, *shape), name))
    for group in categorical[1:] if continuous else categorical:
        codes = [{**base, group.name: _class(group, k, base)} for k in range(group.size)]
        items = torch.cat([model.decode(code) for code in codes]).view(group.size, *shape)
        rows.append(Row(f"{group.name} 0..{group.size - 1}", _pad(items, columns)))
    shown = torch.linspace(low, high, columns).tolist()
    return Traversal(None if x is None else x[0], reconstruction.view(1, *shape)[0], rows, shown)


@torch.no_grad()
def strips_of(model: Method, code: Code, latent: str, columns: int, given: Mapping[str, int] | None = None) -> Tensor:
    """A strip per item of a code: items `[n, columns, ...]` that differ along a strip in one latent alone.

    code: of all groups, n items. latent: a dimension such as `z1`, which runs from its group's low to its high, or a
    categorical group, which shows every class. given: categorical group -> class of all items.
    Raises UsageError for a latent that is not there.
    """
    n = len(next(iter(code.values())))
    code = {**code, **{name: _class(model.latents[name], k, code) for name, k in (given or {}).items()}}
    places = {f"{g.name}{i + 1}": (g, i) for g in model.latents if g.kind == "continuous" for i in range(g.size)}
    classes = {g.name: g for g in model.latents if g.kind == "categorical"}
    if latent in classes:
        codes = [{**code, latent: _class(classes[latent], k, code)} for k in range(classes[latent].size)]
    elif latent in places:
        group, i = places[latent]
        codes = []
        for value in torch.linspace(group.low, group.high, columns).tolist():
            moved = code[group.name].clone()
            _move(moved[..., i], torch.tensor(value, device=moved.device), group)
            codes.append({**code, group.name: moved})
    else:
        raise unknown("latent", latent, [*places, *classes])
    items = torch.stack([model.decode(each) for each in codes], 1)
    return items.view(n, len(codes), *items.shape[2:])


def _move(place: Tensor, value: Tensor, group: Latent) -> None:
    """Put a value in the place of a dimension, in place; of a shifted group add it."""
    if group.shifted:
        place.add_(value)
    else:
        place.copy_(value.expand_as(place))


def _nats(kl: dict[str, float], group: Latent, i: int) -> float:
    """KL of one dimension; summed over the time steps of a group that has them."""
    if group.steps:
        return sum(kl.get(f"{group.name}[{t}]{i + 1}", 0.0) for t in range(group.steps))
    return kl.get(f"{group.name}{i + 1}", 0.0)


def _class(group: Latent, k: int, base: Code) -> Tensor:
    like = base[group.name]
    return one_hot(torch.full(like.shape[:-1], k, device=like.device), group.size)


def _pad(items: Tensor, columns: int) -> Tensor:
    """Items `[n, ...]` -> `[columns, ...]`, with zeros behind or cut off."""
    filled = items.new_zeros(columns, *items.shape[1:])
    filled[: min(len(items), columns)] = items[:columns]
    return filled
