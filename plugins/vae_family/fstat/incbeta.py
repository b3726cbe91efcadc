"""ln I_x(1/2, b), the log of the regularised incomplete beta function, in the logit of x, with its derivatives.

With b = nu / 2 it is the log of the cumulative distribution of F(1, nu). Working in r = ln(x / (1 - x)) keeps both
ends: neither x nor 1 - x is ever formed by a subtraction, both tails keep their relative precision, and the gradient
never divides by a probability that underflowed.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

STAGES = {torch.float32: 12, torch.float64: 24}
"""Stages of the continued fraction: enough for the rounding of the type up to b = 50 (1e-9 at b = 500 in float64)."""
TINY = -1e-30
"""No tail is larger than exp of this, so that the log of the other tail stays finite in float32."""


def log_beta_half(b: Tensor) -> Tensor:
    """ln B(1/2, b) = lgamma(1/2) + lgamma(b) - lgamma(b + 1/2), float64 shaped like b (float32 on MPS, which has none).

    In float32 the difference of the two lgammas loses two digits from b = 100 on.
    """
    b = b.float() if b.device.type == "mps" else b.double()
    return torch.lgamma(b.new_full((), 0.5)) + torch.lgamma(b) - torch.lgamma(b + 0.5)


def log_tails(r: Tensor, b: Tensor, log_beta: Tensor | None = None, stages: int | None = None) -> tuple[Tensor, Tensor]:
    """ln P and ln Q with P = I_x(1/2, b), Q = 1 - P, x = sigmoid(r); nats, shaped like r and b broadcast.

    r: float32 or float64, differentiable twice and more. b: positive, a constant to autograd. log_beta: ln B(1/2, b)
    where it is at hand. stages: of the continued fraction, by default `STAGES`.
    d ln P / d r lies in (0, 1/2]: it tends to 1/2 as x -> 0 and falls like (1 - x)^b as x -> 1.
    """
    log_beta = log_beta_half(b) if log_beta is None else log_beta
    r, b, log_beta = torch.broadcast_tensors(r, b.to(r.dtype), log_beta.to(r.dtype))
    return _LogTails.apply(r, b, log_beta, STAGES.get(r.dtype, 12) if stages is None else stages)


def _log_kernel(r: Tensor, b: Tensor, log_beta: Tensor) -> Tensor:
    """ln of dP/dr = x^(1/2) (1 - x)^b / B(1/2, b)."""
    return 0.5 * logsigmoid(r) + b * logsigmoid(-r) - log_beta


class _LogTails(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, r: Tensor, b: Tensor, log_beta: Tensor, stages: int) -> tuple[Tensor, Tensor]:
        x, y = r.sigmoid(), (-r).sigmoid()
        # The fraction converges fast for the tail on the near side of the mean (Numerical Recipes' rule, a = 1/2).
        swap = x > 1.5 / (2.5 + b)
        half = torch.full_like(b, 0.5)
        a, other, z = torch.where(swap, b, half), torch.where(swap, half, b), torch.where(swap, y, x)
        direct = _log_kernel(r, b, log_beta) + _fraction(a, other, z, stages).log() - a.log()
        direct = direct.clamp_max(TINY)
        rest = _log_one_minus_exp(direct)
        log_p, log_q = torch.where(swap, rest, direct), torch.where(swap, direct, rest)
        ctx.save_for_backward(r, b, log_beta, log_p, log_q)
        return log_p, log_q

    @staticmethod
    def backward(ctx: Any, grad_p: Tensor, grad_q: Tensor) -> tuple[Tensor, None, None, None]:
        """d ln P / d r = exp(ln kernel - ln P), and the same with the other sign for ln Q.

        Written in differentiable operations; the outputs are saved ones, so that their own dependence on r is followed.
        """
        r, b, log_beta, log_p, log_q = ctx.saved_tensors
        kernel = _log_kernel(r, b, log_beta)
        slope_p = (kernel - log_p).exp().clamp_max(0.5)
        return grad_p * slope_p - grad_q * (kernel - log_q).exp(), None, None, None


def _fraction(a: Tensor, b: Tensor, x: Tensor, stages: int) -> Tensor:
    """Continued fraction of I_x(a, b) a B(a, b) / (x^a (1-x)^b), from the last stage up: no exit depends on values."""
    m = torch.arange(1, stages + 1, device=x.device, dtype=x.dtype).view(-1, *[1] * x.dim())
    even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
    odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
    f = torch.ones_like(x)
    for e, o in zip(even.flip(0).unbind(0), odd.flip(0).unbind(0), strict=True):
        f = 1 + e / (1 + o / f)
    return 1 / (1 - (a + b) * x / (a + 1) / f)


def _log_one_minus_exp(t: Tensor) -> Tensor:
    """ln(1 - e^t) for t < 0 without cancellation on either side of -ln 2."""
    return torch.where(t > -0.6931471805599453, (-torch.expm1(t)).log(), torch.log1p(-t.exp()))
