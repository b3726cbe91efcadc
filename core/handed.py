"""What a program hands to a loaded model is held against what the model was built for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from distk.errors import UsageError, nearest
from distk.latents import Code
from distk.method import Method, can

SLACK = 1e-5
"""Share of its span by which a value may leave the range, as rounding makes it."""


def hold_to_spec(model: Method) -> None:
    """Make `encode` and `decode` of this one model check what they are given."""
    if type(model).encode is not Method.encode:
        setattr(model, "encode", _checked(model, "encode", items_problem))  # noqa: B010 (mypy: a method)
    if can(model, "decode"):
        setattr(model, "decode", _checked(model, "decode", code_problem))  # noqa: B010


class Shape(str):
    """A problem of another shape: some models take more than one, so that it counts only where the model fails."""


def _checked(model: Method, name: str, problem: Callable[[Method, Any], str]) -> Callable[..., Any]:
    def call(given: Any, *rest: Any, **named: Any) -> Any:
        told = problem(model, given)
        if told and not isinstance(told, Shape):
            raise UsageError(f"{name}: {told}.")
        try:
            return getattr(type(model), name)(model, given, *rest, **named)
        except (RuntimeError, ValueError, IndexError) as error:
            if told:
                raise UsageError(f"{name}: {told}.") from error
            raise

    return call


def items_problem(model: Method, x: Any) -> str:
    """Why these are no items of the model's data, in words; empty where they are."""
    spec = model.spec
    if not isinstance(x, Tensor):
        return f"items are a tensor [n, {', '.join(map(str, spec.shape))}], not {type(x).__name__}"
    if tuple(x.shape[1:]) != tuple(spec.shape):
        told = f"items have the shape {list(x.shape)}, the model takes [n, {', '.join(map(str, spec.shape))}]"
        return Shape(told) if x.dim() == len(spec.shape) + 1 else told
    if x.device != model.device:
        return f"items are on {x.device}, the model on {model.device}"
    if spec.kind not in ("image", "video", "vector"):
        return ""
    if not x.is_floating_point():
        return f"items are {x.dtype}, the model takes floats from {spec.range[0]:g} to {spec.range[1]:g}"
    return _values_problem(x, spec.range if spec.kind != "vector" else None, "item")


def code_problem(model: Method, code: Code | Any) -> str:
    """Why this is no code of the model, in words; empty where it is."""
    groups = {group.name: group for group in model.latents}
    if not isinstance(code, Mapping):
        return f"a code is a dict of {', '.join(groups)}, not {type(code).__name__}"
    for name, value in code.items():
        if name not in groups:
            return f"there is no group '{name}' in the code.{nearest(str(name), groups)}".rstrip(".")
        shape = groups[name].shape
        if not isinstance(value, Tensor) or tuple(value.shape[1:]) != tuple(shape):
            found = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
            told = f"'{name}' is {found}, the model takes [n, {', '.join(map(str, shape))}]"
            return Shape(told) if isinstance(value, Tensor) else told
        if value.device != model.device:
            return f"'{name}' is on {value.device}, the model on {model.device}"
        if told := _values_problem(value, None, f"row of '{name}',"):
            return told
    if len({len(value) for value in code.values()}) > 1:
        return f"groups have {', '.join(str(len(v)) for v in code.values())} rows, which must be as many for each"
    return ""


def _values_problem(x: Tensor, span: tuple[float, float] | None, what: str) -> str:
    flat = x.detach().flatten(1)
    finite = torch.isfinite(flat).all(1)
    if not bool(finite.all()):
        return f"{what} {int(finite.long().argmin())} holds values that are not finite"
    if span is None or not flat.numel():
        return ""
    low, high = float(flat.min()), float(flat.max())
    slack = SLACK * (span[1] - span[0])
    if low < span[0] - slack or high > span[1] + slack:
        return f"items hold values from {low:.4g} to {high:.4g}, the model takes {span[0]:g} to {span[1]:g}"
    return ""
