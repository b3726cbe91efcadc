"""What verification is measured by: areas under curves, thresholds, intervals, and how alike images are."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Of the scales of MS-SSIM, finest first (Wang, Simoncelli & Bovik 2003); fewer scales share the rest evenly."""
WINDOW, SIGMA, C1, C2 = 11, 1.5, 0.01**2, 0.03**2


def area(matched: Tensor, unmatched: Tensor) -> float:
    """P(d < d') + 0.5 P(d = d') for distances d of matched pairs `[n]`, d' of unmatched ones `[m]`: the area under the
    curve, 1 where every matched pair is closer than every unmatched one."""
    ordered = unmatched.double().sort().values
    below = torch.searchsorted(ordered, matched.double(), side="left")
    upto = torch.searchsorted(ordered, matched.double(), side="right")
    return float((len(ordered) - 0.5 * (below + upto).double()).mean() / len(ordered))


def threshold(matched: Tensor, unmatched: Tensor) -> float:
    """The tau for which calling a pair matched where its distance is at most tau is right most often, each side having
    half of the weight: the lowest of the best among the middles between neighbouring distances and both ends."""
    distance = torch.cat([matched, unmatched]).double()
    weight = torch.cat(
        [torch.full((len(side),), 0.5 / len(side), dtype=torch.float64) for side in (matched, unmatched)]
    ).to(distance.device)
    gain = torch.cat([weight[: len(matched)], -weight[len(matched) :]])
    ordered, place = distance.sort()
    # After the i-th distance: matched pairs accepted so far, and unmatched ones not yet.
    right = torch.cat([gain.new_zeros(1), gain[place].cumsum(0)]) + 0.5
    cuts = torch.cat([ordered[:1] - 1, (ordered[1:] + ordered[:-1]) / 2, ordered[-1:] + 1])
    real = torch.cat([ordered.new_ones(1), (ordered[1:] > ordered[:-1]).double(), ordered.new_ones(1)])
    best = torch.where(real > 0, right, -1.0)
    # Sums in another order differ in the last digits, and equal ones must not.
    return float(cuts[(best >= best.max() - 1e-12).double().argmax()])


def accuracy(matched: Tensor, unmatched: Tensor, tau: float) -> float:
    """Share of pairs that are called rightly, both sides having the same weight."""
    return 0.5 * float((matched <= tau).double().mean() + (unmatched > tau).double().mean())


def false_accepts(unmatched: Tensor, tau: float) -> float:
    """Share of unmatched pairs that are called matched."""
    return float((unmatched <= tau).double().mean())


def intervals(matched: Tensor, unmatched: Tensor, tau: float, seed: int, draws: int = 500) -> dict[str, Tensor]:
    """95 per cent bootstrap intervals `[2]` of `auc`, `accuracy` and `far`, pairs of either side drawn anew."""
    draw = torch.Generator().manual_seed(seed)
    near, far = matched.double().cpu().sort().values, unmatched.double().cpu().sort().values
    found = torch.empty(draws, 3, dtype=torch.float64)
    for i in range(draws):
        a, b = (torch.randint(len(side), (len(side),), generator=draw).sort().values for side in (near, far))
        one, other = near[a], far[b]  # sorted, since their places are
        below, upto = (torch.searchsorted(other, one, side=side) for side in ("left", "right"))
        found[i, 0] = 1 - 0.5 * (below + upto).double().mean() / len(other)
        found[i, 1], found[i, 2] = accuracy(one, other, tau), false_accepts(other, tau)
    low, high = found.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64), dim=0)
    return {name: torch.stack([low[i], high[i]]) for i, name in enumerate(("auc", "accuracy", "far"))}


def ms_ssim(a: Tensor, b: Tensor) -> Tensor:
    """Structural similarity over scales of images `[n, c, h, w]` in [0, 1], pair by pair, `[n]`; 1 for equal ones.

    At every scale contrast and structure are compared in Gaussian windows of 11 pixels (sigma 1.5) that lie inside the
    image, brightness at the coarsest one; channels are averaged, negative values count as 0. Scales halve by averages
    of 2x2 as long as a window fits, five at most; a window is as wide as the image where that is smaller.
    """
    scales = 1 + min(len(WEIGHTS) - 1, max(0, int(math.log2(max(1.0, min(a.shape[2:]) / WINDOW)))))
    weights = [w / sum(WEIGHTS[:scales]) for w in WEIGHTS[:scales]]
    total = torch.ones(len(a), dtype=a.dtype, device=a.device)
    for scale, weight in enumerate(weights):
        full, structure = _ssim(a, b)
        value = full if scale == scales - 1 else structure
        total = total * value.clamp_min(0) ** weight
        a, b = F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)
    return total


def _ssim(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Mean over places and channels of similarity, and of its part of contrast and structure, `[n]` each."""
    size, channels = min(WINDOW, *a.shape[2:]), a.shape[1]
    at = torch.arange(size, dtype=a.dtype, device=a.device) - (size - 1) / 2
    window = (-at.square() / (2 * SIGMA**2)).exp()
    window = (window / window.sum()).expand(5 * channels, 1, 1, size)
    stacked = torch.cat([a, b, a * a, b * b, a * b], 1)
    blurred = F.conv2d(F.conv2d(stacked, window, groups=5 * channels), window.transpose(2, 3), groups=5 * channels)
    mean_a, mean_b, aa, bb, ab = blurred.split(channels, 1)
    structure = (2 * (ab - mean_a * mean_b) + C2) / (aa - mean_a.square() + bb - mean_b.square() + C2)
    light = (2 * mean_a * mean_b + C1) / (mean_a.square() + mean_b.square() + C1)
    return (light * structure).mean((1, 2, 3)), structure.mean((1, 2, 3))


def explained(values: Tensor) -> tuple[Tensor, Tensor]:
    """Of values `[rows, columns, d]`, the shares of their variance between rows, and between columns, `[d]` each.

    Both are eta squared of a two-way table without interaction: what is left over is interaction. 0 where nothing
    varies. Random values give about 1 / columns for rows and 1 / rows for columns.
    """
    values = values.double()
    centred = values - values.mean((0, 1))
    total = centred.square().mean((0, 1))
    sound = total > 1e-12
    shares = [centred.mean(axis).square().mean(0) / torch.where(sound, total, 1.0) for axis in (1, 0)]
    return torch.where(sound, shares[0], 0.0), torch.where(sound, shares[1], 0.0)
