"""The optimizers against their formulas in numpy, with settings that nobody has by default: none can be lost."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from distk.optimizers import OptimizerFactory, adam, adamw, rmsprop, sgd

STEPS = 5


def moved(make: OptimizerFactory, start: list[np.ndarray], gradients: list[list[np.ndarray]]) -> list[np.ndarray]:
    """Parameters after steps with these gradients."""
    parameters = [nn.Parameter(torch.tensor(value)) for value in start]
    optimizer = make(parameters)
    for step in gradients:
        for parameter, gradient in zip(parameters, step, strict=True):
            parameter.grad = torch.tensor(gradient)
        optimizer.step()
    return [p.detach().numpy() for p in parameters]


@pytest.fixture
def case(rng: np.random.Generator) -> tuple[list[np.ndarray], list[list[np.ndarray]]]:
    """A matrix and a vector, and their gradients in each step."""
    shapes = ((3, 2), (4,))
    return [rng.standard_normal(s) for s in shapes], [[rng.standard_normal(s) for s in shapes] for _ in range(STEPS)]


def adam_by_hand(x, gradients, lr, betas, eps, l2=0.0, decoupled=0.0):
    """Kingma & Ba 2015, algorithm 1; l2 joins the gradient, decoupled does not (Loshchilov & Hutter 2019)."""
    x, m, v = x.copy(), 0.0, 0.0
    for t, gradient in enumerate(gradients, 1):
        g = gradient + l2 * x
        x = x * (1 - lr * decoupled)
        m, v = betas[0] * m + (1 - betas[0]) * g, betas[1] * v + (1 - betas[1]) * g**2
        x = x - lr * (m / (1 - betas[0] ** t)) / (np.sqrt(v / (1 - betas[1] ** t)) + eps)
    return x


@pytest.mark.parametrize(("decay", "weights"), [(0.0, 0.0), (0.3, 0.0), (0.0, 0.4), (0.3, 0.4)])
def test_adam(case, decay: float, weights: float) -> None:
    start, gradients = case
    found = moved(adam(0.05, (0.6, 0.7), 0.2, weight_l2=weights, weight_decay=decay), start, gradients)
    for i, l2 in enumerate((decay + weights, decay)):  # the matrix is a weight, the vector a bias
        wanted = adam_by_hand(start[i], [g[i] for g in gradients], 0.05, (0.6, 0.7), 0.2, l2)
        np.testing.assert_allclose(found[i], wanted, rtol=1e-12)


def test_adamw_leaves_out_what_it_is_told_to(case) -> None:
    start, gradients = case

    def make(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        return adamw(0.05, (0.6, 0.7), 0.2, decay=0.9, no_decay=[parameters[1]])(parameters)

    found = moved(make, start, gradients)
    for i, decoupled in enumerate((0.9, 0.0)):
        wanted = adam_by_hand(start[i], [g[i] for g in gradients], 0.05, (0.6, 0.7), 0.2, decoupled=decoupled)
        np.testing.assert_allclose(found[i], wanted, rtol=1e-12)


def test_sgd_with_momentum(case) -> None:
    start, gradients = case
    found = moved(sgd(0.05, momentum=0.7), start, gradients)
    for i, x in enumerate(start):
        velocity = 0.0
        for gradient in gradients:
            velocity = 0.7 * velocity + gradient[i]
            x = x - 0.05 * velocity
        np.testing.assert_allclose(found[i], x, rtol=1e-12)


def test_rmsprop(case) -> None:
    start, gradients = case
    found = moved(rmsprop(0.05, alpha=0.6, eps=0.2), start, gradients)
    for i, x in enumerate(start):
        square = 0.0
        for gradient in gradients:
            square = 0.6 * square + 0.4 * gradient[i] ** 2
            x = x - 0.05 * gradient[i] / (np.sqrt(square) + 0.2)
        np.testing.assert_allclose(found[i], x, rtol=1e-12)
