"""Moving codes from one cloud to another by the witness function of the maximum mean discrepancy.

With k(x, x') = exp(-|x - x'|^2 / (2 sigma)), where sigma is a variance, and two sets of codes S and T:

    f*(w) = 1/m sum_i k(s_i, w) - 1/n sum_j k(t_j, w)                      (Larsson et al. 2017, equation 2)
    z*    = z + V d,  d = arg min f*(z + V d) + lambda |V d|^2,  V = [T, S, z]       (section 3.2)

f* is large at the source and small at the target. The objective depends on d only through u = V d, and its gradient
in u,

    (1 / sigma) (1/m sum_i k(s_i, w) (s_i - w) - 1/n sum_j k(t_j, w) (t_j - w)) + 2 lambda u,    w = z + u,

lies in the span of V whenever u does. L-BFGS from u = 0, whose first scaling is a number, never leaves that span: so it
minimises over u, for all sentences at once, and solves the same problem without V and its bad condition.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from distk import UsageError
from distk.solvers import lbfgs


class Witness(NamedTuple):
    """f* of B sentences, each with its own sets.

    points: codes of all sets `[p, h]`. weights: `[B, p]`, 1/m where a point is of the row's source, -1/n where it is of
    its target, 0 elsewhere. sigma: variance of the kernel `[B]`.
    """

    points: Tensor
    weights: Tensor
    sigma: Tensor

    def __call__(self, w: Tensor) -> Tensor:
        """Codes `[B, h]` -> f* `[B]`, in -1..1."""
        return (self.weights * (-distances(w, self.points) / (2 * self.sigma[:, None])).exp()).sum(1)


class Moved(NamedTuple):
    """Of B codes. u: the moves `[B, h]`. before, after: f*(z) and f*(z + u) `[B]`. iterations: of each row, `[B]`."""

    u: Tensor
    before: Tensor
    after: Tensor
    iterations: Tensor


def witness(points: Tensor, source: Tensor, target: Tensor, sigma: Tensor | float) -> Witness:
    """f* of B rows. points: `[p, h]`. source, target: bool `[B, p]`, which points are of each row's sets; a set without
    any has no part in f*. sigma: `[B]`, or one for all.

    Raises UsageError for codes that are not finite, and a variance that is not a positive number.
    """
    sigma = torch.as_tensor(sigma, dtype=points.dtype, device=points.device).expand(len(source))
    if not bool((sigma.isfinite() & (sigma > 0)).all()):
        raise UsageError("the kernel's variance sigma must be a positive number.")
    if not bool(points.isfinite().all()):
        raise UsageError("the codes of the examples are not finite: this model's training has failed.")
    share = [of.to(points.dtype) / of.sum(1, keepdim=True).clamp_min(1) for of in (source, target)]
    return Witness(points, share[0] - share[1], sigma)


def distances(a: Tensor, b: Tensor) -> Tensor:
    """Squared distances `[A, B]` of rows `[A, h]` and `[B, h]`."""
    return (a.square().sum(1)[:, None] + b.square().sum(1) - 2 * a @ b.T).clamp_min(0)


def bandwidth(points: Tensor) -> Tensor:
    """Half the median squared distance of two different rows of `[p, h]`: k = 1/e at a median pair; a number.

    Raises UsageError where more than half of the pairs are of one point.
    """
    found = torch.pdist(points).square().median() / 2
    if not bool(found > 0):
        raise UsageError(
            "most codes of the examples are one and the same point, so that no width of the kernel follows from them: "
            "give --sigma, or train the model for longer."
        )
    return found


def move(
    f: Witness, z: Tensor, weight: Tensor | float, start: Tensor | None = None, tol: float = 1e-8, steps: int = 500
) -> Moved:
    """A local minimum of f*(z + u) + lambda |u|^2 of every row, downhill from `start`.

    z: `[B, h]`. weight: lambda, a number or `[B]`. start: moves to begin from, default 0. tol: of the gradient's
    length, codes measured in units of sqrt(sigma / (1 + 2 lambda sigma)).
    Raises UsageError for codes that are not finite, and for a negative lambda.
    """
    weight = torch.as_tensor(weight, dtype=z.dtype, device=z.device).expand(len(z))
    if not bool((weight.isfinite() & (weight >= 0)).all()):
        raise UsageError("lambda must be 0 or a positive number.")
    if not bool(z.isfinite().all()):
        raise UsageError("a code is not finite, so it cannot be moved.")
    # A scalar change of units keeps moves in the span; in these no curvature is above 2, whatever sigma and lambda are.
    unit = (f.sigma / (1 + 2 * weight * f.sigma)).sqrt()[:, None]
    cost = weight * unit[:, 0].square()

    def objective(v: Tensor) -> Tensor:
        return f(z + unit * v) + cost * v.square().sum(1)

    first = torch.zeros_like(z) if start is None else start / unit
    found = lbfgs(objective, first, tol=tol, iterations=steps)
    u = unit * found.x
    return Moved(u, f(z), f(z + u), found.iterations)
