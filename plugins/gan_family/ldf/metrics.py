"""Scores of generated images by a judge that the tool trains: classifier-score and frechet.

The classifier score is the formula of the Inception Score (Salimans et al. 2016) with another classifier: the two are
not comparable, nor are classifier scores by different judges.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from distk import CodeTable, Dataset, Method, Metric, UsageError, can, option, seeded
from distk.console import counted, progress
from distk.meaning import count, higher, lower, neither
from distk.method import eval_mode
from distk.metric import chosen_rows
from distk.plugins.gan_family.ldf.judge import TESTED, Judge, in_unit, judge_for

TINY = 1e-300


def score_of(p: Tensor) -> float:
    """exp(mean KL(p(y|x) || p(y))), p(y) the mean of p(y|x); p float64 `[n, classes]`. Between 1 and their number."""
    p = p.double()
    marginal = p.mean(0)
    return float((p * ((p + TINY).log() - (marginal + TINY).log())).sum(1).mean().exp())


def scores_of(p: Tensor, parts: int) -> tuple[float, float]:
    """Mean and standard deviation (of n, as is customary) of the score over consecutive parts of the rows."""
    found = torch.tensor([score_of(part) for part in p.tensor_split(parts)], dtype=torch.float64)
    return float(found.mean()), float(found.std(correction=0))


def frechet(a: Tensor, b: Tensor) -> float:
    """|m_a - m_b|^2 + trace(C_a + C_b - 2 (C_a C_b)^(1/2)) of two sets of features `[n, d]`, `[m, d]`, in float64.

    The trace of the root is the sum of the roots of the eigenvalues of C_a^(1/2) C_b C_a^(1/2), which has those of the
    product and is symmetric.
    """
    (mean_a, cov_a), (mean_b, cov_b) = ((f.double().mean(0), torch.cov(f.double().T)) for f in (a, b))
    values, vectors = torch.linalg.eigh(cov_a)
    root = vectors * values.clamp_min(0).sqrt() @ vectors.T
    shared = torch.linalg.eigvalsh(root @ cov_b @ root).clamp_min(0).sqrt().sum()
    distance = (mean_a - mean_b).square().sum() + cov_a.trace() + cov_b.trace() - 2 * shared
    return float(distance.clamp_min(0))


@dataclass(frozen=True)
class Config:
    """Which judge, and how many images it is shown."""

    judge: str = option("", "file of a judge (`distk ldf judge`); without it one is trained", place=True)
    judge_steps: int = option(4000, "steps of 128 images that a judge is trained for", min=1)
    judge_width: int = option(64, "channels of a judge's first convolution", min=1, max=1024)
    samples: int = option(50_000, "generated images", paper="50000", min=20, max=10_000_000)
    parts: int = option(10, "parts over which a score's mean and deviation are taken", paper="10", min=1, max=1000)


def opened(table: CodeTable) -> tuple[Method, Dataset]:
    """Model and data of a table. Raises UsageError for codes from a file, and for a model that draws nothing."""
    if table.model is None or table.dataset is None:
        raise UsageError("this score looks at generated items, so it needs a checkpoint rather than a file of codes.")
    if not can(table.model, "sample"):
        raise UsageError(f"method {type(table.model).__name__} draws no items, so there is nothing to score.")
    return table.model, table.dataset


@torch.no_grad()
def judged_samples(judge: Judge, model: Method, dataset: Dataset, n: int, seed: int) -> tuple[Tensor, Tensor]:
    """What a judge sees in `n` draws of the model, in eval mode: probabilities and features, float64 `[n, ...]`."""
    generator, found = seeded(seed, dataset.device), []
    with eval_mode(model), progress("judging draws", n) as advance:
        for start in range(0, n, 500):
            x = model.sample(min(500, n - start), generator)
            found.append(judge.seen(in_unit(dataset, x).clamp(0, 1)))
            advance(len(x))
    return torch.cat([p for p, _ in found]), torch.cat([f for _, f in found])


@torch.no_grad()
def judged_items(judge: Judge, dataset: Dataset, split: str, n: int | None, seed: int) -> tuple[Tensor, Tensor]:
    """The same of real images: at most `n` of a split, in random order."""
    rows = chosen_rows(dataset, split, n, seed)
    rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed)).to(rows.device)]
    found = [judge.seen(in_unit(dataset, dataset.batch(part)["x"])) for part in rows.split(500)]
    return torch.cat([p for p, _ in found]), torch.cat([f for _, f in found])


class ClassifierScore(Metric[Config]):
    """score: mean over parts of exp(mean KL(p(y|x) || p(y))), what the judge sees in draws; score_sd over the parts.

    real: of test images (at most 10,000 of them), whole, an upper reference. noise: of uniform noise, a lower one.
    classifier_accuracy: of the judge on the test images; `judge`, its fingerprint, says which scores may be compared.
    """

    headline = "score"
    measures = "items made and bounds"
    numbers = {
        "score": higher(1, source="Salimans et al. 2016", form="with our classifier; not the Inception Score"),
        "score_sd": neither(0, what="over parts"),
        "real": neither(1, what="of test images, an upper reference"),
        "noise": neither(1, what="of uniform noise, a lower one"),
        "classifier_accuracy": neither(0, 1, what="of the judge"),
        "samples": count("images"),
    }
    needs_model = True
    needs_codes = False

    @torch.no_grad()
    def compute(self, table: CodeTable, seed: int) -> Mapping[str, Any]:
        """Raises UsageError for data without labels."""
        model, dataset = opened(table)
        config = self.config
        if config.samples < 2 * config.parts:
            raise UsageError(
                f"{counted(config.samples, 'sample')} are too few for {counted(config.parts, 'part')} of two or more."
            )
        judge = judge_for(dataset, config.judge, config.judge_steps, config.judge_width)
        score, spread = scores_of(judged_samples(judge, model, dataset, config.samples, seed)[0], config.parts)
        generator = seeded(seed, dataset.device)
        noise = torch.rand(1000, *dataset.spec.shape, generator=generator, device=dataset.device)
        return {
            "score": score,
            "score_sd": spread,
            "real": score_of(judged_items(judge, dataset, "test", TESTED, seed)[0]),
            "noise": score_of(judge.seen(noise)[0]),
            "classifier_accuracy": judge.info.accuracy,
            "samples": config.samples,
            "judge": judge.fingerprint,
        }


class Frechet(Metric[Config]):
    """distance: between Gaussians fitted to the judge's features of draws and of test images; 0 is perfect.

    halves: the same between two random halves of the test images, what is left for a perfect model.
    """

    headline = "distance"
    measures = "items made and bounds"
    numbers = {
        "distance": lower(0, source="Heusel et al. 2017, eq. 6", form="with our classifier; not the FID"),
        "halves": neither(0, what="between halves of the test images"),
        "samples": count("images"),
    }
    needs_model = True
    needs_codes = False

    @torch.no_grad()
    def compute(self, table: CodeTable, seed: int) -> Mapping[str, Any]:
        """Raises UsageError for data without labels, and for fewer draws or test images than features."""
        model, dataset = opened(table)
        config = self.config
        judge = judge_for(dataset, config.judge, config.judge_steps, config.judge_width)
        real = judged_items(judge, dataset, "test", TESTED, seed)[1]
        if min(config.samples, len(real) // 2) <= real.shape[1]:
            raise UsageError(
                f"{counted(config.samples, 'draw')} and {counted(len(real), 'test image')} are too few for"
                f" {counted(real.shape[1], 'feature')}: take a narrower judge (judge-width) or more."
            )
        made = judged_samples(judge, model, dataset, config.samples, seed)[1]
        return {
            "distance": frechet(made, real),
            "halves": frechet(*real.tensor_split(2)),
            "samples": config.samples,
            "judge": judge.fingerprint,
        }
