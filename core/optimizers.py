"""Optimizers that a captured step can hold: learning rate and step count live on the device under CUDA.

Each function is a factory: it takes settings and gives what `Objective.optimizer` wants, a function from parameters to
a `torch.optim.Optimizer`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

OptimizerFactory = Callable[[list[nn.Parameter]], torch.optim.Optimizer]


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
        return torch.optim.Adam(
            groups, lr=rate, betas=betas, eps=eps, weight_decay=weight_decay, fused=True, capturable=cuda
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
        return torch.optim.AdamW(
            [group for group in groups if group["params"]], lr=rate, betas=betas, eps=eps, fused=True, capturable=cuda
        )

    return build


def sgd(lr: float, momentum: float = 0.0) -> OptimizerFactory:
    """Factory of plain stochastic gradient descent, its learning rate on the device under CUDA."""

    def build(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        cuda = parameters[0].is_cuda
        rate: Any = torch.tensor(lr, device=parameters[0].device) if cuda else lr
        # torch's foreach form reads a learning rate on the device back to the host, which no capture survives.
        return torch.optim.SGD(parameters, lr=rate, momentum=momentum, foreach=not cuda, fused=cuda)

    return build


def rmsprop(lr: float, alpha: float = 0.99, eps: float = 1e-8) -> OptimizerFactory:
    """Factory of RMSprop, capturable on CUDA."""

    def build(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        cuda = parameters[0].is_cuda
        rate: Any = torch.tensor(lr, device=parameters[0].device) if cuda else lr
        return torch.optim.RMSprop(parameters, lr=rate, alpha=alpha, eps=eps, capturable=cuda, foreach=True)

    return build
