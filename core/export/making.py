"""Making a file of a part, and holding it against the model."""

from __future__ import annotations

import json
from dataclasses import dataclass

import torch

from distk.checkpoint import Header
from distk.errors import DistkError, UsageError
from distk.export.formats import FORMATS, quiet
from distk.export.parts import Material, What, as_tuple, part_of, steady
from distk.method import Method

SIZES = (1, 2, 7)
"""Items of the batches that a file is checked with."""
CLOSE = 1e-4
"""Largest difference from the model, relative to the largest number that it gives, at least 1: float32 sums in another
order are about 1e-6 apart, a wrong layer is far off."""


@dataclass(frozen=True)
class Exported:
    """A file that was checked. difference: the largest from the model, relative as in `CLOSE`; 0 for whole numbers.
    batches: sizes that were tried."""

    content: bytes
    inputs: dict[str, list[int]]
    outputs: dict[str, list[int]]
    difference: float
    batches: tuple[int, ...]


def export(model: Method, header: Header, what: What, form: str, batch: int | None = None, seed: int = 0) -> Exported:
    """The encoder or the decoder of a model, on the CPU in eval mode, as the bytes of a file.

    form: a name in `FORMATS`. batch: the only size of a batch that the file takes; None for any.
    Raises UsageError where the model has no such part, DistkError, saying why, where it cannot be exported or the file
    does not give what the model gives.
    """
    name = header.method
    material = part_of(model, what, name)
    words = f"the {what} of method '{name}' cannot be exported as {form}"
    try:
        steady(material)
        with quiet():
            content = FORMATS[form].write(material, _about(material, header, what, batch), batch)
    except UsageError:
        raise
    except DistkError as error:
        raise DistkError(f"{words}: {error}") from error
    except Exception as error:  # exporters raise whatever they trip over
        raise DistkError(f"{words}: {_reason(error)}") from error
    sizes = (batch,) if batch else SIZES
    try:
        with quiet():
            difference = max(_difference(material, form, content, n, seed + n) for n in sizes)
    except Exception as error:
        hint = "" if batch else "; --batch N makes a file for batches of N items"
        raise DistkError(f"{words}: the file does not run ({_reason(error)}){hint}.") from error
    if not difference <= CLOSE:
        raise DistkError(f"{words}: the file gives other results than the model (by {difference:.2g}, relative).")
    shapes = material.inputs(1, seed)
    with torch.no_grad():
        made = as_tuple(material.part(*shapes))
    part = material.part
    return Exported(
        content,
        {name: list(x.shape[1:]) for name, x in zip(part.inputs, shapes, strict=True)},
        {name: list(x.shape[1:]) for name, x in zip(part.outputs, made, strict=True)},
        difference,
        sizes,
    )


def _difference(material: Material, form: str, content: bytes, n: int, seed: int) -> float:
    """The largest difference between file and model over one random batch; infinite for another shape or type."""
    given = material.inputs(n, seed)
    with torch.no_grad():
        expected = as_tuple(material.part(*given))
        made = FORMATS[form].open(content)(given)
    worst = 0.0
    for a, b in zip(expected, made, strict=True):
        if a.shape != b.shape or a.is_floating_point() != b.is_floating_point():
            return float("inf")
        if not a.is_floating_point():
            worst = max(worst, 0.0 if torch.equal(a.long(), b.long()) else float("inf"))
            continue
        apart = (a.double() - b.double()).abs().max() / a.double().abs().max().clamp_min(1.0)
        worst = max(worst, float("inf") if bool(apart.isnan()) else float(apart))
    return worst


def _about(material: Material, header: Header, what: What, batch: int | None) -> str:
    """What a file says about itself, JSON."""
    spec, part = material.model.spec, material.part
    told = {
        "method": header.method,
        "step": header.step,
        "what": what,
        "inputs": part.inputs,
        "outputs": part.outputs,
        "latents": material.model.latents.to_list(),
        "data": {"kind": spec.kind, "shape": spec.shape, "range": spec.range},
        "batch": batch,
        "version": header.version,
    }
    return json.dumps(told)


def _reason(error: BaseException) -> str:
    """The innermost reason that an exporter gives, in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__
