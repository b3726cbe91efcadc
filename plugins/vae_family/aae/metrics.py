"""`prior-mmd`: how far the distribution of the codes is from the standard normal prior.

Adversarial autoencoders have no KL to report; this is what their critic is there for. Serves every method.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from distk import CodeTable, Metric, UsageError, option
from distk.meaning import higher, lower, neither


@dataclass(frozen=True)
class Config:
    """Settings of the distance to the prior."""

    samples: int = option(2000, "codes that are compared with the prior", min=10, max=20_000)
    code: Literal["sample", "mean"] = option("sample", "draws from the posterior, where there is one; or its means")
    bandwidth: float | None = option(
        None, "of the kernel exp(-d^2 / 2 h^2); default: the median distance of two prior samples", above=0
    )


class PriorMMD(Metric[Config]):
    """Squared maximum mean discrepancy of the continuous codes to N(0, I), their moments, and a probe of the class.

    mmd2: unbiased estimate (Gretton et al. 2012) with the prior's expectations in closed form, so that only the codes
    are sampled; 0 in expectation for a match, and then of either sign. mean, std, skewness, excess_kurtosis `[D]`;
    covariance2: sum of the squared covariances of different dimensions. class_probe: accuracy, on the second half of
    the codes, of a logistic regression of the label on the first half; class_chance: of the most frequent class.
    """

    headline = "mmd2"
    measures = "dependence among codes, no labels"
    numbers = {
        "mmd2": lower(chance=None, source="Gretton et al. 2012, eq. 3", form="unbiased, either sign"),
        "covariance2": lower(0, what="squared covariances of different dimensions"),
        "class_probe": higher(0, 1, what="accuracy of a logistic regression of the label"),
        "class_chance": neither(0, 1, what="share of the commonest label"),
        "bandwidth": neither(0),
    }

    def compute(self, table: CodeTable, seed: int) -> Mapping[str, Any]:
        config: Config = self.config
        keep = [d for d, kind in enumerate(table.kinds) if kind != "categorical"]
        if not keep:
            raise UsageError("this representation has only discrete codes, which have no normal prior.")
        rows = torch.randperm(len(table), generator=torch.Generator().manual_seed(seed))[: config.samples]
        if len(rows) < 3:
            raise UsageError(f"at least 3 codes are needed, and there are {len(rows)}.")
        rows = rows.to(table.codes.device)
        z = table.codes[rows][:, keep].double()
        std = table.std if config.code == "sample" else None
        if std is not None:
            noise = torch.randn(z.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
            z = z + std[rows][:, keep].double().nan_to_num(0.0) * noise.to(z.device)
        width = config.bandwidth or median_distance(len(keep))
        result: dict[str, Any] = {"mmd2": mmd2_to_prior(z, width), **moments(z)}
        found, reasons = class_probe(table, rows, z)
        result |= {**found, "code_names": [table.names[d] for d in keep], "bandwidth": width}
        result["estimator"] = (
            f"{len(z)} {'posterior draws' if std is not None else 'codes'}, Gaussian kernel of width {width:.3g}"
        )
        return {**result, "reasons": reasons} if reasons else result


def median_distance(dimensions: int) -> float:
    """Median distance of two independent samples of N(0, I): their squared distance is 2 chi^2 distributed."""
    from scipy.stats import chi2

    return float((2 * chi2.ppf(0.5, dimensions)) ** 0.5)


def mmd2_to_prior(z: Tensor, width: float) -> float:
    """Unbiased MMD^2 of codes float64 `[n, D]` to N(0, I) under k(a, b) = exp(-|a - b|^2 / (2 width^2)).

    E k(z, p) and E k(p, p') over the prior are Gaussian integrals: (h / (h + 1))^(D/2) exp(-|z|^2 / (2 (h + 1))) and
    (h / (h + 2))^(D/2) with h = width^2.
    """
    n, d = z.shape
    h = width**2
    pairs = z.new_zeros(())
    for part in z.split(max(1, (1 << 22) // n)):  # the whole kernel matrix would need n^2 numbers at a time
        pairs += torch.exp(-torch.cdist(part, z).square() / (2 * h)).sum()
    within = (pairs - n) / (n * (n - 1))
    across = (h / (h + 1)) ** (d / 2) * torch.exp(-z.square().sum(1) / (2 * (h + 1))).mean()
    return float(within - 2 * across + (h / (h + 2)) ** (d / 2))


def moments(z: Tensor) -> dict[str, Any]:
    """Of codes float64 `[n, D]`: mean, std, skewness and excess kurtosis of each, and the covariances between them.

    Dimensions that do not vary have no skewness and no kurtosis: NaN.
    """
    centred = z - z.mean(0)
    covariance = centred.T @ centred / (len(z) - 1)
    std = covariance.diagonal().sqrt()
    unit = centred / z.var(0, correction=0).sqrt()
    return {
        "covariance2": float((covariance - covariance.diag().diag()).square().sum()),
        "mean": z.mean(0).cpu().numpy(),
        "std": std.cpu().numpy(),
        "skewness": unit.pow(3).mean(0).cpu().numpy(),
        "excess_kurtosis": (unit.pow(4).mean(0) - 3).cpu().numpy(),
    }


def class_probe(table: CodeTable, rows: Tensor, z: Tensor) -> tuple[dict[str, float], dict[str, str]]:
    """(`class_probe` and `class_chance`, reasons): how well codes `[n, D]` of these rows tell their label."""
    labels = _labels(table, rows)
    half = len(z) // 2
    if labels is None:
        return {}, {"class_probe": "the data have no categorical factor and no label"}
    truth = labels.cpu().numpy()
    if len(set(truth[:half].tolist())) < 2:
        return {}, {"class_probe": "all codes are of one class"}
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    scaled = StandardScaler().fit(z[:half].cpu().numpy()).transform(z.cpu().numpy())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a probe that did not quite converge is a probe all the same
        probe = LogisticRegression(max_iter=1000).fit(scaled[:half], truth[:half])
    _, counts = torch.as_tensor(truth[half:]).unique(return_counts=True)
    chance = float(counts.max() / counts.sum())
    return {"class_probe": float(probe.score(scaled[half:], truth[half:])), "class_chance": chance}, {}


def _labels(table: CodeTable, rows: Tensor) -> Tensor | None:
    """The first categorical factor of these rows of the table, or the data's label; int64 `[n]`."""
    if table.factors is not None:
        for k, kind in enumerate(table.factor_kinds):
            if kind == "categorical":
                return table.factors[rows.to(table.factors.device), k].long()
    if table.dataset is None or table.rows is None:
        return None
    batches = [table.dataset.batch(part) for part in table.rows[rows].split(512)]
    return torch.cat([batch["label"] for batch in batches]) if "label" in batches[0] else None
