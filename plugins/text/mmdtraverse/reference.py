"""The paper's problem as it is printed, one sentence after the other: scipy's BFGS over the coefficients of V."""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from distk.plugins.text.mmdtraverse.solver import Moved, Witness


def move_by_scipy(f: Witness, z: Tensor, weight: Tensor | float, gtol: float = 1e-9) -> Moved:
    """z* = z + V d by BFGS over d, V = [T, S, z]. z: `[B, h]`. weight: lambda, a number or `[B]`. For a few rows."""
    weights = torch.as_tensor(weight, dtype=torch.float64).expand(len(z))
    moves, iterations = [], []
    for i in range(len(z)):
        u, n = _one(f, z, i, float(weights[i]), gtol)
        moves.append(u)
        iterations.append(n)
    whole = torch.from_numpy(np.stack(moves)).to(z)
    return Moved(whole, f(z), f(z + whole), torch.tensor(iterations, device=z.device))


def _one(f: Witness, z: Tensor, row: int, weight: float, gtol: float) -> tuple[np.ndarray, int]:
    """The move of a row `[h]`, and how many iterations it took."""
    share = f.weights[row].double().cpu().numpy()
    points = f.points.double().cpu().numpy()[share != 0]
    share, sigma, at = share[share != 0], float(f.sigma[row]), z[row].double().cpu().numpy()
    span = np.concatenate([points, at[None]]).T  # [h, m + n + 1]

    def objective(d: np.ndarray) -> tuple[float, np.ndarray]:
        u = span @ d
        apart = points - (at + u)
        kernel = share * np.exp(-(apart**2).sum(1) / (2 * sigma))
        slope = kernel @ apart / sigma + 2 * weight * u
        return float(kernel.sum() + weight * u @ u), span.T @ slope

    found = minimize(objective, np.zeros(span.shape[1]), jac=True, method="BFGS", options={"gtol": gtol})
    return span @ found.x, int(found.nit)
