"""Penalty: a term on the activations of a coding layer, added to the objective of any method.

Every method with a continuous code has the layer `code`: all continuous groups, posterior means where it has a
posterior, flattened and side by side; each group is a layer under its own name. Such a layer costs one more pass of
the encoder per step. A method avoids it by declaring the layer in `Method.taps` and handing it over in its loss, where
it is computed anyway: `step.tap("code", mean)`; the same way it offers layers that are no part of its code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from distk.config import C, Configured, assignments, from_dict, hints
from distk.data import Dataset
from distk.device import Ranks, seeded
from distk.errors import UsageError, nearest, unknown
from distk.method import Method, Objective, Step, can
from distk.registry import registry

if TYPE_CHECKING:
    from distk.settings import TrainConfig

CODE = "code"


class Penalty(Configured[C]):
    """A term on activations. Subclasses define `value`, and may set the default of `weight`.

    A subclass names its settings as `class Mine(Penalty[Config])`.

    name: as it is registered. weight: its factor. layers: the layers that it acts on. The trainer sets all three.
    """

    name: str = ""
    weight: float = 1.0
    layers: tuple[str, ...] = (CODE,)

    def __init__(self, config: C) -> None:
        self.config = config

    def value(self, activations: Mapping[str, Tensor]) -> Tensor:
        """The penalty, without its weight, of those of `layers` that one objective computed.

        activations: layer -> float32 `[n, ...]`, of the whole batch also where several devices share it.
        Returns a scalar to minimise; tensor code on one device as in a loss, without host reads.
        """
        raise NotImplementedError

    def check(self, layer: str, batch: int, units: int | None, whole: bool) -> None:
        """Called for each layer before training: raise UsageError, or warn.

        batch: examples per step. units: of the layer, per example, where known. whole: a batch is all the data.
        """


def layers_of(model: Method, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The layers that a method has through its encoder: each continuous group `[n, *group.shape]`, and `code` `[n, p]`.

    batch: as for `encode_batch`. Raises UsageError for a method without a continuous code.
    """
    names = _continuous(model)
    found: Mapping[str, Tensor] = {}
    if can(model, "posterior"):
        found = {name: mean for name, (mean, _) in model.posterior_batch(batch).items()}
    if not set(names) <= set(found):
        found = model.encode_batch(batch)
    layers = {name: found[name] for name in names}
    return {CODE: torch.cat([layers[name].flatten(1) for name in names], 1), **layers}


def _continuous(model: Method) -> list[str]:
    """Names of the continuous groups. Raises UsageError where there is none, or no encoder."""
    names = [group.name for group in model.latents if group.kind != "categorical"]
    if not names or not (can(model, "encode") or can(model, "posterior")):
        lacks = "no continuous code" if not names else "no encoder"
        raise UsageError(f"method {type(model).__name__} has {lacks}, so there is no layer for a penalty.")
    return names


# From settings to penalties


def build_penalties(config: TrainConfig) -> list[Penalty]:
    """The penalties of `--penalty`, without those of weight 0.

    Raises UsageError for an unknown name or setting, a weight below 0, and settings without a penalty.
    """
    settings = {"weight": config.penalty_weight, "layer": config.penalty_layer, "option": config.penalty_option}
    given = [name for name, value in settings.items() if value not in (None, ())]
    if given and not config.penalty:
        raise UsageError(f"--penalty-{given[0]} is about a penalty, but none is named: add --penalty NAME.")
    made = [_build(text, config) for text in config.penalty]
    _share_out(made, config.penalty_option)
    return [penalty for penalty in made if penalty.weight]


def _build(text: str, config: TrainConfig) -> Penalty:
    """NAME, NAME:WEIGHT, either with @LAYER or @LAYER+LAYER after it."""
    rest, _, layers = text.partition("@")
    name, colon, weight = rest.partition(":")
    entry = registry().find("penalty", name)
    cls = entry.load()
    penalty: Penalty = cls(cls.Config())
    penalty.name = entry.name
    penalty.layers = tuple(layers.split("+")) if layers else config.penalty_layer or cls.layers
    if colon:
        try:
            penalty.weight = float(weight)
        except ValueError:
            raise UsageError(f"--penalty '{text}' is not understood; write NAME:WEIGHT, as {entry.name}:0.1.") from None
    elif config.penalty_weight is not None:
        penalty.weight = config.penalty_weight
    if not 0 <= penalty.weight < float("inf"):
        raise UsageError(f"--penalty '{text}': the weight {penalty.weight:g} is not a finite number of at least 0.")
    return penalty


def _share_out(penalties: list[Penalty], options: Sequence[str]) -> None:
    """Give each of the options `key=value` to the penalties that have it, `penalty.key=value` to that one."""
    chosen: list[dict[str, Any]] = [{} for _ in penalties]
    sections = assignments(options, sections=[p.name for p in penalties], option="--penalty-option")
    for section, key, value in ((s, k, v) for s, values in sections.items() for k, v in values.items()):
        takers = [i for i, p in enumerate(penalties) if section in ("", p.name) and key in hints(p.Config)]
        if not takers:
            known = {k for p in penalties for k in hints(p.Config)}
            have = f"they have {', '.join(sorted(known))}" if known else "they have none"
            names = ", ".join(p.name for p in penalties)
            raise UsageError(f"--penalty-option: '{key}' is not a setting of {names}; {have}.{nearest(key, known)}")
        for i in takers:
            chosen[i][key] = value
    for penalty, values in zip(penalties, chosen, strict=True):
        penalty.config = from_dict(penalty.Config, values, f"penalty '{penalty.name}'")


# In training


def attach(
    model: Method, dataset: Dataset, config: TrainConfig, objectives: Sequence[Objective], ranks: Ranks
) -> Attached | None:
    """The penalties of a run, bound to its model; None where there are none.

    Raises UsageError for a layer that the method does not have, and for data that a penalty cannot work on.
    """
    penalties = build_penalties(config)
    if not penalties:
        return None
    wanted = dict.fromkeys(layer for penalty in penalties for layer in penalty.layers)
    encoded = tuple(layer for layer in wanted if layer not in model.taps)
    sizes = {group.name: len(group.columns) for group in model.latents if group.kind != "categorical"}
    units = {CODE: sum(sizes.values()), **sizes}
    for layer in encoded:
        if layer not in units:
            raise unknown(f"layer of method {type(model).__name__}", layer, {*units, *model.taps})
    owner = _owner(model, dataset, objectives, encoded) if encoded else ""
    rows = dataset.rows("train")
    whole = config.batch >= (len(dataset) if rows is None else len(rows))
    for penalty in penalties:
        for layer in penalty.layers:
            penalty.check(layer, config.batch, units.get(layer), whole)
    return Attached(model, penalties, encoded, owner, ranks)


@dataclass
class Attached:
    """Penalties bound to a model in training.

    encoded: the layers that take a pass of the encoder, in the objective called `owner`.
    """

    model: Method
    penalties: list[Penalty]
    encoded: tuple[str, ...]
    owner: str
    ranks: Ranks

    def added(self, loss: Tensor, objective: str, step: Step) -> Tensor:
        """The loss of an objective plus the weighted penalties on the layers that are its own; logs `penalty/<name>`.

        A declared layer belongs to the first objective of a step that hands it over.
        """
        layers = self._layers(objective, step)
        with torch.autocast(loss.device.type, enabled=False):
            for penalty in self.penalties:
                mine = {layer: layers[layer] for layer in penalty.layers if layer in layers}
                if mine:
                    value = penalty.value(mine)
                    step.log(f"penalty/{self._label(penalty)}", value)
                    loss = loss + penalty.weight * value
        return loss

    def _layers(self, objective: str, step: Step) -> dict[str, Tensor]:
        claims = step.memo.setdefault("penalty/claims", {})
        handed, step.taps = step.taps, {}
        layers = {layer: h for layer, h in handed.items() if claims.setdefault(layer, objective) == objective}
        if objective == self.owner:
            found = layers_of(self.model, step.batch)
            layers |= {layer: found[layer] for layer in self.encoded}
        wanted = {layer for penalty in self.penalties for layer in penalty.layers}
        return {layer: self._whole(h.float()) for layer, h in layers.items() if layer in wanted}

    def _whole(self, h: Tensor) -> Tensor:
        """Activations `[n, ...]` of this rank -> those of all ranks, in the order of the global batch.

        The gradient reaches this rank's rows only, `world` times as large: averaged over ranks that is the gradient
        of the penalty of the global batch, which is not the mean of the penalties of its parts.
        """
        world, rank, n = self.ranks.world, self.ranks.rank, len(h)
        if world == 1:
            return h
        everyone = h.new_zeros(world * n, *h.shape[1:])
        everyone[rank * n : (rank + 1) * n] = h.detach()
        parts = list((self.ranks.average_tensor(everyone) * world).split(n))
        parts[rank] = h.detach() + world * (h - h.detach())
        return torch.cat(parts)

    def _label(self, penalty: Penalty) -> str:
        alone = sum(other.name == penalty.name for other in self.penalties) == 1
        return penalty.name if alone else f"{penalty.name}@{'+'.join(penalty.layers)}"

    def told(self) -> list[str]:
        """A line about each penalty, for the console."""
        lines = []
        for penalty in self.penalties:
            more = "" if set(penalty.layers) <= set(self.model.taps) else "; one more pass of the encoder per step"
            lines.append(f"penalty {penalty.name}: weight {penalty.weight:g} on {', '.join(penalty.layers)}{more}")
        return lines


def _owner(model: Method, dataset: Dataset, objectives: Sequence[Objective], layers: Sequence[str]) -> str:
    """The objective that trains what lies before `layers`: of those active in every step, the first with most of it.

    One forward and backward pass of two items, of which nothing stays behind.
    """
    before = [(buffer, buffer.clone()) for buffer in model.buffers()]
    devices = [dataset.device] if dataset.device.type == "cuda" else []
    parameters = [p for p in model.parameters() if p.requires_grad]
    _continuous(model)
    with torch.random.fork_rng(devices=devices), torch.enable_grad():
        try:
            found = layers_of(model, dataset.sample(2, seeded(0, dataset.device), bucket=dataset.bucket(0, 0)))
        except (NotImplementedError, KeyError):
            raise UsageError(f"data set '{dataset.name}' has no items to encode, so no penalty on them.") from None
        total = sum(found[layer].float().sum() for layer in layers)
        if not isinstance(total, Tensor) or not total.requires_grad:
            raise UsageError(f"no gradient reaches the encoder of {type(model).__name__}, so no penalty can act.")
        gradients = torch.autograd.grad(total, parameters, allow_unused=True)
    for buffer, value in before:
        buffer.copy_(value)
    used = {id(p) for p, g in zip(parameters, gradients, strict=True) if g is not None}
    always = [o for o in objectives if o.window is None and o.every == 1] or list(objectives)
    counts = [sum(id(p) in used for p in o.parameters) for o in always]
    if not any(counts):
        raise UsageError(f"no objective of {type(model).__name__} trains its encoder, so no penalty can act.")
    return always[counts.index(max(counts))].name
