"""The metric `video-validity`: does the ground stay, does pacman walk, and is it more than the training clips again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from distk import CodeTable, Metric, UsageError, option, seeded
from distk.console import progress
from distk.meaning import count, higher, neither
from distk.method import eval_mode
from distk.metric import chosen_rows
from distk.plugins.gan_family.ldf.data import Pacman
from distk.plugins.gan_family.ldf.maze import GHOSTS, PACMAN, REACH, stamps
from distk.plugins.gan_family.ldf.metrics import opened
from distk.plugins.gan_family.ldf.shared import Whole

STILL = 4 / 255
"""Largest standard deviation over time, averaged over channels and the ground's pixels, of a ground that stays."""
ACTING = 0.25
"""A pixel whose brightest and darkest moment differ by more, in some channel, is touched by an actor."""
MARGIN = 2
"""Pixels around these that are left out, too: an actor's soft rim."""
CROWD = 0.6
"""Actors take no more of a clip; where more changes than this, it is the ground."""
COLOUR = 0.2
"""Distance in RGB, each 0..1, at which a colour is no longer pacman's."""
FIT = 0.35
"""Largest squared difference from the best of pacman's looks, as a share of that look, for him to be seen."""


@dataclass(frozen=True)
class Config:
    """How much is looked at."""

    clips: int = option(500, "clips drawn from the model", min=2, max=1_000_000)
    known: int = option(256, "training clips, and as many test clips, to find the nearest of", min=2, max=1_000_000)


def acting(clips: Tensor) -> Tensor:
    """Pixels that actors touch in some frame, bool `[n, h, w]`. clips: `[n, t, 3, h, w]` in [0, 1]."""
    span = (clips.amax(1) - clips.amin(1)).amax(1)
    return F.max_pool2d((span > ACTING).float()[:, None], 2 * MARGIN + 1, 1, MARGIN)[:, 0] > 0


def background(clips: Tensor) -> Tensor:
    """Whether the ground stays, bool `[n]`: over the pixels that no actor touches, the mean of their standard deviation
    over time is below 4/255, and these are at least two fifths of the picture."""
    free = ~acting(clips)
    spread = clips.std(1, correction=0).mean(1)
    mean = (spread * free).flatten(1).sum(1) / free.flatten(1).sum(1).clamp_min(1)
    return (mean < STILL) & (free.flatten(1).float().mean(1) >= 1 - CROWD)


def pacman_at(clips: Tensor) -> tuple[Tensor, Tensor]:
    """Where pacman is in every frame: the corner (y, x) between pixels at his centre, int64 `[n, t, 2]`, and whether he
    is there at all, bool `[n, t]`. He is looked for where he would lie wholly within the picture.

    What is of his colour is held against his 16 looks (four directions, four phases of the mouth) at every place; the
    least squared difference is he.
    """
    looks = stamps(clips.device)[len(GHOSTS) + 1, :, :, 0, 0, 3].flatten(0, 1)  # coverage, [16, 11, 11]
    ink = torch.tensor(PACMAN, device=clips.device)[:, None, None] / 255
    like = (1 - (clips - ink).square().sum(2).sqrt() / COLOUR).clamp_min(0).flatten(0, 1)[:, None]
    power = F.conv2d(like.square(), torch.ones_like(looks[:1, None]))
    size = looks.flatten(1).square().sum(1)[:, None, None]
    differs = (power - 2 * F.conv2d(like, looks[:, None]) + size) / size
    least, at = differs.amin(1).flatten(1).min(1)
    across = differs.shape[-1]
    centre = torch.stack([at // across, at % across], 1) + REACH
    return centre.unflatten(0, clips.shape[:2]), (least < FIT).unflatten(0, clips.shape[:2])


def walks(clips: Tensor) -> tuple[Tensor, Tensor]:
    """Whether pacman is seen in the middle frame, so far inside that he must be in all, and whether he then moves by
    nothing or by one pixel along an axis from each frame to the next; bool `[n]` each."""
    centre, seen = pacman_at(clips)
    middle = clips.shape[1] // 2
    inner = (centre[:, middle] >= REACH + middle) & (centre[:, middle] <= clips.shape[-1] - REACH - 1 - middle)
    shown = seen[:, middle] & inner.all(1)
    steps = (centre[:, 1:] - centre[:, :-1]).abs().sum(2)
    return shown, shown & seen.all(1) & (steps <= 1).all(1)


def nearest(clips: Tensor, known: Tensor) -> Tensor:
    """Distance of each clip `[n, ...]` to the nearest of the known ones `[m, ...]`: root of the mean squared difference
    of all values, `[n]`."""
    a, b = clips.flatten(1).double(), known.flatten(1).double()
    return torch.cat([torch.cdist(part, b).amin(1) for part in a.split(256)]) / a.shape[1] ** 0.5


class VideoValidity(Metric[Config]):
    """background: share of drawn clips whose ground stays. motion: of those that show pacman, the share in which he
    walks as he must; pacman: the share that show him. memorised: mean distance of draws to the nearest training clip
    that the model saw whole, divided by that of test clips; far below 1 the model repeats what it learnt.

    real_background, real_motion, real_pacman: the same of test clips, where the rules may err, too.
    """

    headline = "background"
    numbers = {
        "background": higher(0, 1, what="share of clips whose ground stays"),
        "motion": higher(0, 1, what="share in which pacman walks as he must"),
        "pacman": higher(0, 1, what="share that show him"),
        "memorised": neither(0, what="distance to training clips over that of test clips; far below 1: repeated"),
        "real_*": neither(0, 1, what="the same of test clips"),
        "clips": count("clips"),
    }
    needs_model = True
    needs_codes = False

    @torch.no_grad()
    def compute(self, table: CodeTable, seed: int) -> Mapping[str, Any]:
        """Raises UsageError for other data than drawn clips of `pacman`, whose looks are known."""
        model, dataset = opened(table)
        if not isinstance(dataset, Pacman) or dataset.scenes is None:
            raise UsageError(
                f"this score knows the looks of the drawn clips of 'pacman' alone, not those of '{dataset.name}'."
            )
        generator, n = seeded(seed, dataset.device), self.config.clips
        with eval_mode(model), progress("drawing clips", n) as advance:
            parts = []
            for start in range(0, n, 250):
                parts.append(model.sample(min(250, n - start), generator).clamp(0, 1))
                advance(len(parts[-1]))
        made = torch.cat(parts)
        test = dataset.batch(chosen_rows(dataset, "test", n, seed))["x"]
        rows = model.whole_rows(dataset) if isinstance(model, Whole) else dataset.rows_of("train")
        known = dataset.batch(rows[: self.config.known])["x"]
        result: dict[str, Any] = {"clips": n, **_looked_at(made)}
        result |= {f"real_{key}": value for key, value in _looked_at(test).items()}
        result["memorised"] = float(nearest(made, known).mean() / nearest(test, known).mean())
        if result["motion"] != result["motion"]:
            result["reasons"] = {"motion": "no drawn clip shows pacman"}
        return result


def _looked_at(clips: Tensor) -> dict[str, float]:
    shown, right = walks(clips)
    count = float(shown.sum())
    return {
        "background": float(background(clips).float().mean()),
        "motion": float(right.sum()) / count if count else float("nan"),
        "pacman": count / len(clips),
    }
