"""What is exported: the encoder or the decoder of a model as a module from tensors to tensors, each with a name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from distk.errors import DistkError, UsageError
from distk.method import Method, can

What = Literal["encoder", "decoder"]
SEED = 20_260
"""Of the items and codes that a part is traced with; checks draw others."""


class Part(nn.Module):
    """One half of a model. inputs, outputs: names of its tensors, whose first axis is the batch."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def __init__(self, model: Method) -> None:
        super().__init__()
        self.model = model


class Encoder(Part):
    """`x` and whatever else of a batch the code depends on -> every group that is encoded, in the latents' order."""

    def __init__(self, model: Method, reads: tuple[str, ...]) -> None:
        super().__init__(model)
        self.inputs = reads
        self.outputs = tuple(group.name for group in model.latents.encoded)

    def forward(self, *given: Tensor) -> tuple[Tensor, ...]:
        code = self.model.encode_batch(dict(zip(self.inputs, given, strict=True)))
        return tuple(code[name] for name in self.outputs)


class Decoder(Part):
    """Every group of the code, noise too, in the latents' order -> `x`, items in the data's range."""

    def __init__(self, model: Method) -> None:
        super().__init__(model)
        self.inputs = tuple(group.name for group in model.latents)
        self.outputs = ("x",)

    def forward(self, *given: Tensor) -> Tensor:
        return self.model.decode(dict(zip(self.inputs, given, strict=True)))


class _Noted(Mapping[str, Tensor]):
    """A batch that notes which of its entries are asked for."""

    def __init__(self, batch: Mapping[str, Tensor]) -> None:
        self.batch, self.asked = batch, dict[str, None]()

    def __getitem__(self, name: str) -> Tensor:
        self.asked[name] = None
        return self.batch[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.batch)

    def __len__(self) -> int:
        return len(self.batch)


@dataclass
class Material:
    """Inputs of a part, as many as are asked for."""

    model: Method
    part: Part
    drawn: bool
    """Whether items of the data are taken; otherwise they are drawn in the data's range."""

    def inputs(self, n: int, seed: int) -> tuple[Tensor, ...]:
        """Random inputs of n items, in the order of `part.inputs`."""
        generator = torch.Generator().manual_seed(seed)
        if isinstance(self.part, Decoder):
            return tuple(code_of(self.model, n, generator)[name] for name in self.part.inputs)
        batch = batch_of(self.model, n, generator, self.drawn)
        return tuple(batch[name] for name in self.part.inputs)


def part_of(model: Method, what: What, name: str) -> Material:
    """The part and its inputs. name: of the method, for messages. Raises UsageError where the model has none."""
    generator = torch.Generator().manual_seed(SEED)
    if what == "decoder":
        if not can(model, "decode"):
            raise UsageError(f"method '{name}' has no decoder.")
        return Material(model, Decoder(model), False)
    if not can(model, "encode"):
        raise UsageError(f"method '{name}' has no encoder.")
    drawn = model.spec.kind not in ("image", "video", "vector", "vector-clip", "sentence", "environment")
    batch = _Noted(batch_of(model, 2, generator, drawn))
    try:
        with torch.no_grad():
            model.encode_batch(batch)
    except KeyError:  # it needs more than `x`, which only data have
        batch, drawn = _Noted(batch_of(model, 2, generator, True)), True
        with torch.no_grad():
            model.encode_batch(batch)
    return Material(model, Encoder(model, tuple(batch.asked)), drawn)


def batch_of(model: Method, n: int, generator: torch.Generator, drawn: bool) -> dict[str, Tensor]:
    """n items at random: drawn from the model's data, or uniform over the data's range (of sentences, ids)."""
    if drawn:
        data = model.dataset()
        rows = torch.randint(len(data), (n,), generator=generator).to(data.device)
        return {name: value for name, value in data.items(rows).items() if isinstance(value, Tensor)}
    low, high = model.spec.range
    shape = (n, *model.spec.shape)
    if model.spec.kind == "sentence":
        return {"x": torch.randint(int(low) + 1, int(high) + 1, shape, generator=generator)}
    if model.spec.kind in ("vector", "vector-clip"):
        return {"x": torch.randn(shape, generator=generator)}
    return {"x": low + (high - low) * torch.rand(shape, generator=generator)}


def code_of(model: Method, n: int, generator: torch.Generator) -> dict[str, Tensor]:
    """n codes of all groups from the prior; what has no prior is normal."""
    try:
        return model.prior(n, generator)
    except UsageError:
        return {group.name: torch.randn(n, *group.shape, generator=generator) for group in model.latents}


def steady(material: Material) -> None:
    """Raise DistkError for a part that draws at random: a file of it could not be held against it."""
    given = material.inputs(2, SEED)
    with torch.no_grad():
        first, again = (as_tuple(material.part(*given)) for _ in range(2))
    if not all(torch.equal(a, b) for a, b in zip(first, again, strict=True)):
        raise DistkError("it gives another result each time, since it draws at random")


def as_tuple(made: Any) -> tuple[Tensor, ...]:
    """What a part gives, as a tuple."""
    return made if isinstance(made, tuple) else (made,)
