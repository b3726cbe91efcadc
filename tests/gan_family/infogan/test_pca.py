"""pca against a singular value decomposition, and as a run of no steps."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from distk import Dataset, DataSpec, Files, Source, UsageError
from distk.config import from_dict
from distk.plugins.gan_family.infogan.pca import PCA, principal_axes

CPU = torch.device("cpu")


class Vectors(Dataset):
    """Given rows; the first so many are the training split."""

    def __init__(self, x: Tensor, train: int) -> None:
        super().__init__(None, CPU, Files("vectors", None, ""))
        self.x, self.spec = x, DataSpec("vector", tuple(x.shape[1:]))
        self.name, self.origin = "vectors", "drawn for a test"
        self.parts = {"train": torch.arange(train), "test": torch.arange(train, len(x))}

    def __len__(self) -> int:
        return len(self.x)

    def batch(self, rows: Tensor) -> dict[str, Tensor]:
        return {"x": self.x[rows]}


def rows(n: int, width: int, generator: torch.Generator) -> Tensor:
    """Correlated rows whose variances fall slowly, far from the origin."""
    mix = torch.linalg.qr(torch.randn(width, width, generator=generator))[0]
    scale = 3 * torch.arange(1, width + 1).float().rsqrt()
    return torch.randn(n, width, generator=generator) * scale @ mix + 5


def fitted(data: Vectors, components: int, **settings: Any) -> PCA:
    model = PCA(
        from_dict(PCA.Config, {"components": components, "standardise": False, **settings}, "the test"), data.spec
    )
    model.initialise(Source(data, 8, torch.Generator().manual_seed(0)))
    return model


def test_axes_are_those_of_the_singular_values(generator: torch.Generator) -> None:
    x = rows(300, 80, generator)
    x = x - x.mean(0)
    axes, variance = principal_axes(x, 5, generator)
    _, singular, right = np.linalg.svd(x.double().numpy(), full_matrices=False)
    np.testing.assert_allclose(variance, singular[:5] ** 2 / 300, rtol=1e-4)
    np.testing.assert_allclose(axes @ axes.T, np.eye(5), atol=1e-6)
    agreement = np.abs((axes.numpy() * right[:5]).sum(1))
    # A relative error of e in a variance turns its axis by about sqrt(e / gap); neighbours lie some per cent apart.
    np.testing.assert_allclose(agreement, 1, atol=2e-2)
    # The space of all is settled far better than an axis within it.
    shares = np.linalg.svd(axes.numpy() @ right[:21].T)[1]
    np.testing.assert_allclose(shares, 1, atol=1e-3)
    assert bool((axes.gather(1, axes.abs().argmax(1, keepdim=True)) > 0).all())


def test_code_is_white_and_reads_the_training_split_only(generator: torch.Generator) -> None:
    x = rows(500, 12, generator)
    x[400:] += 100  # another world, that must not be seen
    model = fitted(Vectors(x, 400), 4)
    torch.testing.assert_close(model.mean.data, x[:400].mean(0), atol=1e-4, rtol=1e-4)
    code = model.encode(x[:400])["c"]
    np.testing.assert_allclose(code.mean(0), 0, atol=1e-3)
    np.testing.assert_allclose(np.cov(code.numpy().T, bias=True), np.eye(4), atol=2e-3)
    centred = x[:400] - x[:400].mean(0)
    values = np.linalg.eigvalsh(np.cov(centred.numpy().T, bias=True))[::-1]
    assert float(model.explained) == pytest.approx(values[:4].sum() / values.sum(), rel=1e-3)


def test_decoding_is_the_projection(generator: torch.Generator) -> None:
    x = rows(200, 10, generator)
    model = fitted(Vectors(x, 200), 3)
    again = model.decode(model.encode(x))
    centred = (x - x.mean(0)).double().numpy()
    _, _, right = np.linalg.svd(centred, full_matrices=False)
    best = centred @ right[:3].T @ right[:3]
    left, least = ((x.numpy() - again.numpy()) ** 2).sum(), ((centred - best) ** 2).sum()
    assert left == pytest.approx(least, rel=1e-3)  # no projection on three axes leaves less
    torch.testing.assert_close(model.encode(again)["c"], model.encode(x)["c"], atol=1e-3, rtol=1e-3)
    whole = fitted(Vectors(x, 200), 10)
    torch.testing.assert_close(whole.decode(whole.encode(x)), x, atol=1e-3, rtol=1e-3)


def test_standardised_pixels_count_alike(generator: torch.Generator) -> None:
    x = rows(300, 9, generator)
    loud = x * torch.tensor([100.0, 1, 1, 1, 1, 1, 1, 1, 0])  # one number far larger, one that never changes
    model, plain = fitted(Vectors(loud, 300), 3, standardise=True), fitted(Vectors(loud, 300), 3)
    standard = (loud - loud.mean(0)).double().numpy()
    standard = standard / np.where(standard.std(0) > 0, standard.std(0), 1)
    _, singular, right = np.linalg.svd(standard, full_matrices=False)
    best = standard @ right[:3].T @ right[:3]
    again = (model.decode(model.encode(loud)) - loud.mean(0)).double().numpy()
    again = again / np.where(loud.numpy().std(0) > 0, loud.numpy().std(0), 1)
    assert ((standard - again) ** 2).sum() == pytest.approx(((standard - best) ** 2).sum(), rel=1e-3)
    assert float(model.explained) == pytest.approx((singular[:3] ** 2).sum() / (singular**2).sum(), rel=1e-3)
    assert float(plain.explained) > 0.99
    assert abs(float(plain.axes[0, 0])) > 0.99


def test_too_few_items_or_numbers(generator: torch.Generator) -> None:
    x = rows(20, 10, generator)
    with pytest.raises(UsageError, match="6 components cannot come from 5 training items"):
        fitted(Vectors(x, 5), 6)
    with pytest.raises(UsageError, match="6 components cannot come from 3 training items"):
        fitted(Vectors(x, 20), 6, fit_items=3)
    with pytest.raises(ValueError, match="at most as many components"):
        fitted(Vectors(x, 20), 11)


def test_a_run_of_no_steps_is_scored_like_any_other(distk_command: Any) -> None:
    small = ("--items", 600, "--poses", 150, "--size", 16, "--gap", "paper")
    code, _, err = distk_command("train", "pca", *small, "--components", 4, "--out", "p")
    assert code == 0, err
    code, out, _ = distk_command("eval", "p", "-m", "dci-gap", "--json")
    told = json.loads(out)["metrics"]["dci-gap"]
    assert code == 0
    # Lighting and colour are linear in the picture, the azimuth is not.
    assert told["nrmse_test.azimuth"] > 0.8
    assert told["nrmse_test.blue"] < 0.5
    assert told["nrmse_gap.elevation"] > 1.3 * told["nrmse_test.elevation"]
    for command in ("traverse", "reconstruct", "sample"):
        code, _, err = distk_command(command, "p", "--out", f"{command}.png")
        assert code == 0, err
    code, _, err = distk_command("train", "pca", *small, "--steps", 5)
    assert code == 2
    assert "--steps 0" in err
