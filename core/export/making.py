"""Making a file of a part, and holding it against the model."""

from __future__ import annotations

import json
from dataclasses import dataclass

import torch

from distk.checkpoint import Header
from distk.errors import DistkError, UsageError
from distk.export.formats import FORMATS, Way, quiet
from distk.export.parts import Material, What, as_tuple, part_of, steady
from distk.method import Method

SIZES = (1, 2, 7)
"""Items of the batches that a file is checked with."""
CLOSE = 1e-4
"""Largest difference from the model, relative to the largest number that it gives, at least 1: float32 sums in another
order are about 1e-6 apart, a wrong layer is far off."""

BRANCHES = "its program branches on what it computes"
"""Begins the reason where Python asks for a value on the way."""
ONE_SIZE = "its program is made for one batch size"
IDLE = "the file does not run"
"""Begin the reasons that a fixed batch size may cure."""


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
    sizes = (batch,) if batch else SIZES
    failures: list[str] = []
    for way in FORMATS[form].ways:
        try:
            content, difference = _made(way, material, form, _about(material, header, what, batch), batch, seed)
            break
        except UsageError:
            raise
        except DistkError as error:
            failures.append(str(error))
    else:
        sizes_matter = not batch and any(words in told for words in (ONE_SIZE, IDLE) for told in failures)
        hint = "; --batch N makes a file for batches of N items, which may be possible" if sizes_matter else ""
        raise DistkError(f"the {what} of method '{name}' cannot be exported as {form}: {failures[0]}{hint}.")
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


def _made(way: Way, material: Material, form: str, about: str, batch: int | None, seed: int) -> tuple[bytes, float]:
    """A file and its largest difference from the model. Raises DistkError, with the reason alone, where there is none
    that is right."""
    steady(material)
    try:
        with quiet():
            content = way(material, about, batch)
    except DistkError:
        raise
    except Exception as error:  # exporters raise whatever they trip over
        raise DistkError(_reason(error)) from error
    try:
        with quiet():
            difference = max(_difference(material, form, content, n, seed + n) for n in ((batch,) if batch else SIZES))
    except Exception as error:
        raise DistkError(f"{IDLE} ({_reason(error)})") from error
    if not difference <= CLOSE:
        told = (
            "it gives items of another shape or type"
            if difference == float("inf")
            else f"by {difference:.2g}, relative"
        )
        raise DistkError(f"the file gives other results than the model ({told})")
    return content, difference


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
    while error.__cause__ is not None and "data-dependent" not in str(error):
        error = error.__cause__
    text = str(error)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if "data-dependent" in text:
        return f"{BRANCHES}: an `if` of a tensor, or a loop that ends when all sentences have ended"
    if "Constraints violated" in text:
        return f"{ONE_SIZE}, as `len` of a tensor makes it"
    told = lines[-1] if "TorchScript interpreter" in text else lines[0] if lines else ""
    return f"{type(error).__name__}: {told[:300]}".rstrip(".: ")
