"""Linear support vector machines on one code alone: exact, and after one sort independent of the number of rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from .blocks import GPU, MOST, row_numbers, spans


class Ordered(NamedTuple):
    """Codes that were sorted once for machines on each alone: values float64 [D, n], rising; order int64 [D, n]; prefix
    sums [2, D, n+1] of the values and of their squares."""

    x: Tensor
    order: Tensor
    sums: Tensor

    @staticmethod
    def of(codes: Tensor) -> Ordered:
        """codes [n, D]."""
        x, order = codes.T.double().contiguous().sort(1)
        return Ordered(x, order, _prefix(x))

    @staticmethod
    def together(codes: Tensor, count: int) -> Iterator[slice]:
        """Which of `count` columns of codes [n, D] are sorted together: for each one holds 13 times as much."""
        held = GPU if codes.device.type != "cpu" else min(codes.numel(), 8 * MOST)
        return spans(count, 13 * len(codes), held)


class _Hinge(NamedTuple):
    """Sorted codes, and the same rows class by class: places int [D, n] = class * n + place among all, rising; sums
    [2, D, n+1], prefix sums of values and squares over them; first [S+1]: where each class begins there."""

    every: Ordered
    places: Tensor
    sums: Tensor
    first: Tensor
    targets: Tensor  # the class of each machine, [P]
    weights: tuple[Tensor, Tensor]  # of positives and negatives, [P]
    c: float

    @staticmethod
    def of(every: Ordered, y: Tensor, targets: Tensor, weights: tuple[Tensor, Tensor], c: float) -> _Hinge:
        n = every.x.shape[1]
        counts = torch.bincount(y)
        first = torch.nn.functional.pad(counts.cumsum(0), (1, 0))
        label = y[every.order]
        within = label.argsort(dim=1, stable=True)
        places = label.mul_(n).gather(1, within).add_(within)
        places = places.to(row_numbers(len(counts) * n + n))
        return _Hinge(every, places, _prefix(every.x.gather(1, within)), first, targets, weights, c)

    def active(self, w: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """Moments (1, x, x^2) [3, D, P] of the positives with wx + b < 1 and of the negatives with wx + b > -1."""
        rising, n = w >= 0, self.every.x.shape[1]
        start, end = (self.first[self.targets + i].expand_as(w).contiguous() for i in (0, 1))

        def between(sums: Tensor, low: Tensor, high: Tensor) -> Tensor:
            moments = (sums.gather(2, high.expand(2, *w.shape)) - sums.gather(2, low.expand(2, *w.shape))).unbind()
            return torch.stack([(high - low).double(), *moments])

        def below(level: Tensor, complement: bool) -> tuple[Tensor, Tensor]:
            threshold = torch.nan_to_num(level / w.abs(), nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)
            at = torch.searchsorted(self.every.x, torch.where(rising, threshold, -threshold))
            own = torch.searchsorted(self.places, (self.targets * n + at).to(self.places.dtype))
            before = rising if not complement else ~rising
            zero = torch.zeros_like(at)
            mine = between(self.sums, torch.where(before, start, own), torch.where(before, own, end))
            both = between(self.every.sums, torch.where(before, zero, at), torch.where(before, at, zero + n))
            return mine, both

        mine, _ = below(1 - b, complement=False)
        other, both = below(-1 - b, complement=True)
        return mine, both - other

    def objective(self, w: Tensor, b: Tensor, moments: tuple[Tensor, Tensor]) -> Tensor:
        total = 0.5 * (w * w + b * b)
        for sign, s, (m0, m1, m2) in zip((1.0, -1.0), self.weights, moments, strict=True):
            square = w * w * m2 + 2 * w * b * m1 + b * b * m0
            total = total + self.c * s * (m0 - 2 * sign * (w * m1 + b * m0) + square)
        return total

    def newton(self, w: Tensor, b: Tensor, moments: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Newton direction (dw, db) on the present active set, and the directional derivative along it."""
        (p0, p1, p2), (q0, q1, q2) = moments
        sp, sn = (2 * self.c * s for s in self.weights)
        h11, h12, h22 = 1 + sp * p2 + sn * q2, sp * p1 + sn * q1, 1 + sp * p0 + sn * q0
        r1, r2 = sp * p1 - sn * q1, sp * p0 - sn * q0
        g1, g2 = h11 * w + h12 * b - r1, h12 * w + h22 * b - r2
        det = h11 * h22 - h12 * h12
        dw, db = -(h22 * g1 - h12 * g2) / det, -(h11 * g2 - h12 * g1) / det
        return dw, db, g1 * dw + g2 * db


def squared_hinge_1d(x: Tensor, y: Tensor, classes: int, c: float = 0.01) -> tuple[Tensor, Tensor]:
    """One-vs-rest linear SVMs on every single code: weights and biases [D, P], P = classes (1 if classes ==
    2).

    Minimises 1/2 (w^2 + b^2) + c * sum_i s_i max(0, 1 - t_i (w x_i + b))^2 per code and class, the objective
    of scikit-learn's LinearSVC(class_weight='balanced'): the bias is regularised; s_i = n/(S n_c) for
    positives and 1 for negatives, except for S = 2, one problem with both classes weighted n/(2 n_c). x: [n, D], y:
    int64 [n], every class present. The active rows of a 1-D problem are a half-line, so
    after one sort a Newton step costs a binary search in prefix sums: exact, and independent of n.
    """
    found = [hinge_machines(Ordered.of(x[:, at]), y, classes, c) for at in Ordered.together(x, x.shape[1])]
    weight, bias = zip(*found, strict=True)
    return torch.cat(weight), torch.cat(bias)


def hinge_machines(codes: Ordered, y: Tensor, classes: int, c: float = 0.01) -> tuple[Tensor, Tensor]:
    """`squared_hinge_1d` of codes that are sorted."""
    counts = torch.bincount(y, minlength=classes).double()
    balanced = len(y) / (classes * counts)
    targets = torch.tensor([1], device=y.device) if classes == 2 else torch.arange(classes, device=y.device)
    negative = balanced[:1] if classes == 2 else torch.ones_like(balanced)
    return _solve_hinge(_Hinge.of(codes, y, targets, (balanced[targets], negative), c))


def _prefix(values: Tensor) -> Tensor:
    """Prefix sums [2, D, n+1] of values [D, n] and of their squares."""
    sums = values.new_zeros(2, len(values), values.shape[1] + 1)
    torch.cumsum(values, 1, out=sums[0, :, 1:])
    torch.cumsum(values.square(), 1, out=sums[1, :, 1:])
    return sums


def _solve_hinge(problem: _Hinge, iterations: int = 100) -> tuple[Tensor, Tensor]:
    """Damped Newton; finitely many active sets, so it ends exactly at the minimum (Keerthi & DeCoste
    2005).
    """
    w = problem.sums.new_zeros(len(problem.places), len(problem.targets))
    b = torch.zeros_like(w)
    moments = problem.active(w, b)
    value = problem.objective(w, b, moments)
    for _ in range(iterations):
        dw, db, slope = problem.newton(w, b, moments)
        t = torch.ones_like(w)
        for _ in range(40):
            trial_w, trial_b = w + t * dw, b + t * db
            moments = problem.active(trial_w, trial_b)
            trial = problem.objective(trial_w, trial_b, moments)
            worse = trial > value + 1e-4 * t * slope + 1e-13 * value.abs()
            if not bool(worse.any()):
                break
            t = torch.where(worse, t / 2, t)
        w, b, value = trial_w, trial_b, trial
        if bool(((t * dw).abs() + (t * db).abs() <= 1e-12 * (w.abs() + b.abs()) + 1e-300).all()):
            break
    return w, b
