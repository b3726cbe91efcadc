"""Optimizers that a captured step can hold: learning rate and step count live on the device under CUDA.

Each function is a factory: it takes settings and gives what `Objective.optimizer` wants, a function from parameters to
a `torch.optim.Optimizer`.
"""

from __future__ import annotations

import functools
import inspect
import sys
import types
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch
from torch import nn

OptimizerFactory = Callable[[list[nn.Parameter]], torch.optim.Optimizer]
Made = TypeVar("Made", bound=torch.optim.Optimizer)

_COMPILER = "torch._dynamo"
"""torch's compiler, 820 modules and 1.4 s, which its optimizers import at their first use to keep it away from them."""


def light(build: Callable[..., Made], *arguments: Any, **settings: Any) -> Made:
    """`build(*arguments, **settings)`, an optimizer that does not import torch's compiler; its steps give the same
    numbers.

    Once something else has imported the compiler, everything is as torch has it. What is done here hangs on private
    names: under a torch that has others, an optimizer is made as ever.
    """
    if _COMPILER not in sys.modules:
        for name in ("add_param_group", "state_dict", "load_state_dict", "zero_grad"):
            _unwatched(getattr(torch.optim.Optimizer, name, None))
    made = build(*arguments, **settings)
    if _COMPILER not in sys.modules:
        _step_alone(made)
    return made


def _unwatched(wrapper: Any) -> None:
    """Give a function that torch keeps its compiler away from (torch._compile._disable_dynamo) the form that torch
    would make of it at its first call; ours looks first whether the compiler is there."""
    function = getattr(wrapper, "__wrapped__", None)
    if function is None or hasattr(function, "__dynamo_disable"):
        return

    @functools.wraps(function)
    def call(*arguments: Any, **named: Any) -> Any:
        if _COMPILER in sys.modules:
            del function.__dynamo_disable  # torch makes its own one now
            return wrapper(*arguments, **named)
        return function(*arguments, **named)

    function.__dynamo_disable = call


def _step_alone(optimizer: torch.optim.Optimizer) -> None:
    """Let an optimizer take its steps without the wrapper that imports the compiler, `_use_grad_for_differentiable`.

    Hooks and the profiler's mark stay: they are in the wrapper outside that one, which torch offers by itself.
    """
    kind = type(optimizer)
    outer, plain = kind.step, inspect.unwrap(kind.step)
    named = getattr(plain, "__globals__", {}).get("_use_grad_for_differentiable")
    if not kind.__module__.startswith("torch.optim.") or named is None or "differentiable" not in optimizer.defaults:
        return

    @torch.optim.Optimizer.profile_hook_step
    @functools.wraps(plain)
    def alone(self: torch.optim.Optimizer, *arguments: Any, **settings: Any) -> Any:
        with torch.set_grad_enabled(self.defaults["differentiable"]):
            return plain(self, *arguments, **settings)

    @functools.wraps(plain)
    def step(self: torch.optim.Optimizer, *arguments: Any, **settings: Any) -> Any:
        return (outer if _COMPILER in sys.modules else alone)(self, *arguments, **settings)

    # A bound method, as torch's schedulers expect one.
    optimizer.step = types.MethodType(step, optimizer)  # type: ignore[method-assign]


def adam(
    lr: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_l2: float = 0.0,
    weight_decay: float = 0.0,
) -> OptimizerFactory:
    """Factory of an Adam that can be captured on CUDA (learning rate and step count on the device) and is fused.

    weight_decay: adds the gradient of weight_decay / 2 * sum p^2 over all parameters, before Adam's moments (the L2 of
    `torch.optim.Adam`, not AdamW's). weight_l2: the same over weights alone (not biases and other vectors), on top.
    """

    def build(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        cuda = parameters[0].is_cuda
        rate: Any = torch.tensor(lr, device=parameters[0].device) if cuda else lr
        weights = [p for p in parameters if p.dim() > 1]
        others = [p for p in parameters if p.dim() <= 1]
        decayed: dict[str, Any] = {"params": weights, "weight_decay": weight_decay + weight_l2}
        groups: list[dict[str, Any]] = [decayed, {"params": others}]
        groups = [group for group in groups if group["params"]] if weight_l2 else [{"params": parameters}]
        return light(
            torch.optim.Adam,
            groups,
            lr=rate,
            betas=betas,
            eps=eps,
            weight_decay=weight_decay,
            fused=True,
            capturable=cuda,
        )

    return build


def adamw(
    lr: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    decay: float = 0.01,
    no_decay: Iterable[nn.Parameter] = (),
) -> OptimizerFactory:
    """Factory of an AdamW (Loshchilov & Hutter 2019), capturable on CUDA and fused as `adam`'s.

    decay: each step also multiplies a parameter by 1 - lr * decay, apart from Adam's moments. no_decay: parameters that
    are left out of it, such as a codebook, biases or scales of normalisation.
    """
    kept = {id(parameter) for parameter in no_decay}

    def build(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        cuda = parameters[0].is_cuda
        rate: Any = torch.tensor(lr, device=parameters[0].device) if cuda else lr
        groups = [
            {"params": [p for p in parameters if id(p) not in kept], "weight_decay": decay},
            {"params": [p for p in parameters if id(p) in kept], "weight_decay": 0.0},
        ]
        return light(
            torch.optim.AdamW,
            [group for group in groups if group["params"]],
            lr=rate,
            betas=betas,
            eps=eps,
            fused=True,
            capturable=cuda,
        )

    return build


def sgd(lr: float, momentum: float = 0.0) -> OptimizerFactory:
    """Factory of plain stochastic gradient descent, its learning rate on the device under CUDA."""

    def build(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        cuda = parameters[0].is_cuda
        rate: Any = torch.tensor(lr, device=parameters[0].device) if cuda else lr
        # torch's foreach form reads a learning rate on the device back to the host, which no capture survives.
        return light(torch.optim.SGD, parameters, lr=rate, momentum=momentum, foreach=not cuda, fused=cuda)

    return build


def rmsprop(lr: float, alpha: float = 0.99, eps: float = 1e-8) -> OptimizerFactory:
    """Factory of RMSprop, capturable on CUDA."""

    def build(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        cuda = parameters[0].is_cuda
        rate: Any = torch.tensor(lr, device=parameters[0].device) if cuda else lr
        return light(torch.optim.RMSprop, parameters, lr=rate, alpha=alpha, eps=eps, capturable=cuda, foreach=True)

    return build
