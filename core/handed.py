"""What a program hands to a loaded model is held against what the model was built for, and what it gets back carries no
gradient unless it asks for one."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from distk.errors import UsageError, WrongType, nearest
from distk.latents import Code
from distk.method import Method, can

SLACK = 1e-5
"""Share of its span by which a value may leave the range, as rounding makes it."""
WORDS = ("encode", "decode", "sample", "prior", "posterior", "bound", "predict", "plan", "interpolate")
"""What a program calls on a trained model."""
_within: ContextVar[bool] = ContextVar("within", default=False)
"""Whether a call of a program is under way: what a model calls of itself then is neither checked nor changed."""


if TYPE_CHECKING:

    class Trained(Method[Any]):
        """A model as `load` gives it: type checkers see here what its methods take beside what `Method` says."""

        def encode(self, x: Tensor, *, grad: bool = False) -> Code: ...

        def decode(self, code: Code, *, grad: bool = False) -> Tensor: ...

        def posterior(self, x: Tensor, *, grad: bool = False) -> dict[str, tuple[Tensor, Tensor]]: ...

        def prior(
            self,
            n: int,
            generator: torch.Generator | int | None = None,
            *,
            seed: int | None = None,
            grad: bool = False,
            **given: Any,
        ) -> Code: ...

        def sample(  # type: ignore[override]  # what a group is called is never `grad`
            self,
            n: int,
            generator: torch.Generator | int | None = None,
            *,
            seed: int | None = None,
            grad: bool = False,
            **given: Any,
        ) -> Tensor: ...

else:
    Trained = Method


def hold_to_spec(model: Method) -> None:
    """Make what a program calls on this one model check what it is given, and run without gradients."""
    problems: dict[str, Callable[[Method, Any], str]] = {"encode": items_problem, "decode": code_problem}
    for name in WORDS:
        served = name in ("prior", "interpolate") or can(model, name)
        if served and not (name in ("encode", "posterior") and getattr(type(model), name) is getattr(Method, name)):
            setattr(model, name, Handed(model, name, problems.get(name)))


@contextmanager
def as_it_is() -> Iterator[None]:
    """Within, loaded models are used by distk itself: neither checked nor kept from gradients."""
    token = _within.set(True)
    try:
        yield
    finally:
        _within.reset(token)


class Shape(str):
    """A problem of another shape: some models take more than one, so that it counts only where the model fails."""


class Handed:
    """One method of one model as a program calls it: checked, and without gradients unless `grad=True`.

    What draws takes a generator, a whole number as its seed, `seed=`, or nothing: then `torch.manual_seed` decides.
    An object of a module rather than a closure, so that a copy of the model, or one that was pickled, is its own.
    """

    def __init__(self, model: Method, name: str, problem: Callable[[Method, Any], str] | None = None) -> None:
        self.model, self.name, self.problem = model, name, problem
        self.__doc__ = getattr(type(model), name).__doc__

    def __call__(self, *given: Any, grad: bool = False, **named: Any) -> Any:
        function = getattr(type(self.model), self.name)
        if _within.get():
            return function(self.model, *given, **named)
        given, named = self._drawing(function, given, named)
        told = self.problem(self.model, given[0]) if self.problem is not None and given else ""
        if told and not isinstance(told, Shape):
            raise _error(self.name, told)
        token = _within.set(True)
        try:
            with torch.set_grad_enabled(grad and torch.is_grad_enabled()):
                return function(self.model, *given, **named)
        except (RuntimeError, ValueError, IndexError) as error:
            if told:
                raise _error(self.name, told) from error
            raise
        finally:
            _within.reset(token)

    def __repr__(self) -> str:
        return f"<{type(self.model).__name__}.{self.name} of a trained model>"

    @property
    def __signature__(self) -> inspect.Signature:
        own = inspect.signature(getattr(type(self.model), self.name))
        held = [p for p in own.parameters.values() if p.name != "self"]
        grad = inspect.Parameter("grad", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=bool)
        place = next((i for i, p in enumerate(held) if p.kind is p.VAR_KEYWORD), len(held))
        return own.replace(parameters=[*held[:place], grad, *held[place:]])

    def _drawing(self, function: Any, given: tuple[Any, ...], named: dict[str, Any]) -> tuple[tuple, dict]:
        """The arguments, with a generator on the model's device where the method takes one."""
        names = list(inspect.signature(function).parameters)[1:]
        if "generator" not in names:
            return given, named
        place, named = names.index("generator"), dict(named)
        seed = named.pop("seed", None) if "seed" not in names else None
        held = given[place] if len(given) > place else named.pop("generator", None)
        if held is not None and seed is not None:
            raise WrongType(f"{self.name}: give a generator or a seed, not both.")
        behind = dict(zip(names[place + 1 :], given[place + 1 :], strict=False))
        drawn = generator_of(self.name, held if held is not None else seed, self.model.device)
        return given[:place], {**behind, **named, "generator": drawn}


def generator_of(name: str, given: Any, device: torch.device) -> torch.Generator:
    """A generator on a device, of a generator there, a whole number as seed, or None, which draws a seed from torch.

    Raises WrongType, which says what `name` takes, for anything else.
    """
    if isinstance(given, torch.Generator):
        if given.device.type != device.type:
            told = f"the generator is on {given.device}, the model on {device}: torch.Generator('{device}') makes one."
            raise UsageError(f"{name}: {told}")
        return given
    if given is None:
        given = int(torch.randint(1 << 62, ()))
    if isinstance(given, bool) or not isinstance(given, int):
        raise WrongType(f"{name}: takes a torch.Generator or a whole number as seed, not {type(given).__name__}.")
    return torch.Generator(device=device).manual_seed(given)


def _error(name: str, told: str) -> UsageError:
    """The error of a problem: of a wrong type a TypeError, too."""
    return WrongType(f"{name}: {told}.") if isinstance(told, Type) else UsageError(f"{name}: {told}.")


class Type(str):
    """A problem of another type than the model takes."""


def items_problem(model: Method, x: Any) -> str:
    """Why these are no items of the model's data, in words; empty where they are."""
    spec = model.spec
    wanted = ", ".join(map(str, spec.shape))
    if not isinstance(x, Tensor):
        hint = ": torch.as_tensor(x, dtype=torch.float32) makes one" if hasattr(x, "__array__") else ""
        return Type(f"items are a tensor [n, {wanted}], not {type(x).__name__}{hint}")
    if tuple(x.shape) == tuple(spec.shape):
        return f"this is one item {list(x.shape)}, the model takes [n, {wanted}]: x[None] is a batch of one"
    if tuple(x.shape[1:]) != tuple(spec.shape):
        told = f"items have the shape {list(x.shape)}, the model takes [n, {wanted}]"
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
        hint = f": {{'{next(iter(groups))}': code}} makes one" if isinstance(code, Tensor) and len(groups) == 1 else ""
        return Type(f"a code is a dict of {', '.join(groups)}, not {type(code).__name__}{hint}")
    for name, value in code.items():
        if name not in groups:
            return f"there is no group '{name}' in the code.{nearest(str(name), groups)}".rstrip(".")
        shape = groups[name].shape
        if not isinstance(value, Tensor) or tuple(value.shape[1:]) != tuple(shape):
            found = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
            told = f"'{name}' is {found}, the model takes [n, {', '.join(map(str, shape))}]"
            return Shape(told) if isinstance(value, Tensor) else Type(told)
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
