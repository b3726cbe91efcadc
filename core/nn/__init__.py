"""Blocks and formulas that any method may use, by subject. `docs/pieces.md` lists them with shapes and reductions."""

from distk.nn.adversarial import (
    GAMES,
    Game,
    call_fake,
    call_real,
    gradient_penalty,
    interpolated,
    roth_penalty,
    squared_slope,
)
from distk.nn.average import Average
from distk.nn.canvas import Canvas, canvas
from distk.nn.classify import cross_entropies, fit_classifier
from distk.nn.gaussian import (
    gaussian_kl,
    gaussian_kl_between,
    kl_between,
    kl_to_prior,
    log_normal,
    reparameterise,
)
from distk.nn.likelihood import bernoulli_nll, gaussian_nll
from distk.nn.relaxed import relaxed_decode, relaxed_one_hot
from distk.nn.stacks import down, he_truncated_, mlp, up

__all__ = [
    "GAMES",
    "Average",
    "Canvas",
    "Game",
    "bernoulli_nll",
    "call_fake",
    "call_real",
    "canvas",
    "cross_entropies",
    "down",
    "fit_classifier",
    "gaussian_kl",
    "gaussian_kl_between",
    "gaussian_nll",
    "gradient_penalty",
    "he_truncated_",
    "interpolated",
    "kl_between",
    "kl_to_prior",
    "log_normal",
    "mlp",
    "relaxed_decode",
    "relaxed_one_hot",
    "reparameterise",
    "roth_penalty",
    "squared_slope",
    "up",
]
