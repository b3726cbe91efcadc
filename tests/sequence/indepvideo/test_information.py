"""Information across one step against scipy's trees, closed forms and the authors' protocol's known values."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree
from scipy.special import digamma
from scipy.stats import pearsonr
from torch import Tensor

from distk.plugins.metrics import functional
from distk.plugins.sequence.indepvideo import information


def by_trees(x: np.ndarray, y: np.ndarray, k: int) -> float:
    """Kraskov's first estimator with scipy's trees, nats; strictly nearer means within the next smaller number."""
    joint = np.concatenate([x, y], 1)
    radius = cKDTree(joint).query(joint, k + 1, p=np.inf)[0][:, -1]
    counts = [cKDTree(v).query_ball_point(v, np.nextafter(radius, 0), p=np.inf, return_length=True) for v in (x, y)]
    return digamma(k) + digamma(len(x)) - np.mean(sum(digamma(c) for c in counts))


@pytest.fixture
def states(generator: torch.Generator) -> list[Tensor]:
    """Three parts at t and at t + 1, of 1, 3 and 2 units, with some dependence and very different scales."""
    now = torch.randn(500, 6, generator=generator, dtype=torch.float64)
    then = 0.8 * now + 0.6 * torch.randn(500, 6, generator=generator, dtype=torch.float64)
    then[:, 2] += now[:, 4]
    scale = torch.tensor([1, 50, 0.2, 1, 3, 0.01], dtype=torch.float64)
    return [*(now * scale).split([1, 3, 2], 1), *(then * scale).split([1, 3, 2], 1)]


@pytest.mark.parametrize("k", [1, 3, 7])
def test_information_equals_that_of_trees(states: list[Tensor], k: int) -> None:
    now, then = states[:3], states[3:]
    found = information.mutual_information(now, then, k)
    for i in range(3):
        for j in range(3):
            assert float(found[i, j]) == pytest.approx(by_trees(now[j].numpy(), then[i].numpy(), k), abs=1e-9)


def test_rows_in_parts_give_the_same(states: list[Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    whole = information.mutual_information(states[:3], states[3:])
    monkeypatch.setattr(information, "CHUNK", 1700)  # three rows at a time
    torch.testing.assert_close(information.mutual_information(states[:3], states[3:]), whole)


def test_coordinates_count_as_they_are_unlike_in_the_score_ksg(states: list[Tensor]) -> None:
    x, y = states[1], states[4]
    raw = float(information.mutual_information([x], [y]))
    level = [(v - v.mean(0)) / v.std(0, correction=0) for v in (x, y)]
    assert float(information.mutual_information(level[:1], level[1:])) == pytest.approx(functional.ksg(x, y), abs=1e-9)
    assert abs(raw - functional.ksg(x, y)) > 0.05


def gaussians(n: int, d: int, rho: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    x = torch.randn(n, d, generator=generator, dtype=torch.float64)
    return x, rho * x + math.sqrt(1 - rho**2) * torch.randn(n, d, generator=generator, dtype=torch.float64)


def test_one_dimension_is_estimated_well(generator: torch.Generator) -> None:
    x, y = gaussians(1000, 1, 0.9, generator)
    bits = float(information.mutual_information([x], [y])) / math.log(2)
    assert bits == pytest.approx(-0.5 * math.log2(1 - 0.81), abs=0.15)  # 1.198
    x, y = gaussians(1000, 1, 0.0, generator)
    assert abs(float(information.mutual_information([x], [y]))) < 0.12


@pytest.mark.parametrize(("rho", "bits"), [(0.6, 1.19), (0.9, 3.74), (0.99, 6.55)])
def test_twenty_five_dimensions_saturate_far_below_the_truth(
    rho: float, bits: float, generator: torch.Generator
) -> None:
    """1,000 pairs of 25 numbers: the estimate is a small part of the true 8.05, 29.95, 70.6 bits, and repeatable."""
    x, y = gaussians(1000, 25, rho, generator)
    found = float(information.mutual_information([x], [y])) / math.log(2)
    assert found == pytest.approx(bits, abs=0.3)
    assert found < information.ceiling(1000, 3) / math.log(2) < -12.5 * math.log2(1 - rho**2) + 1


def test_a_state_that_is_known_exactly_scores_the_ceiling(generator: torch.Generator) -> None:
    x = torch.randn(1000, 4, generator=generator)
    found = float(information.mutual_information([x], [x]))
    assert found == pytest.approx(information.ceiling(1000, 3), abs=1e-9)
    assert information.ceiling(1000, 3) / math.log(2) == pytest.approx(8.634, abs=5e-4)


def test_what_cannot_be_estimated_is_refused(generator: torch.Generator) -> None:
    x = torch.randn(40, 2, generator=generator)
    still = torch.ones(40, 2)
    with pytest.raises(ValueError, match="neighbour 3 can be measured over 4 pairs: at least 5"):
        information.mutual_information([x[:4]], [x[:4]])
    with pytest.raises(ValueError, match=r"100% of the 40 pairs coincide.*\(part 1 at t, part 1 at t \+ 1\)"):
        information.mutual_information([x, still], [x, still])
    twice = torch.cat([x[:10].repeat(4, 1)])
    with pytest.raises(ValueError, match="100% of the 40 pairs coincide"):
        information.mutual_information([twice], [twice])
    # A part that does not vary tells nothing of one that does.
    assert float(information.mutual_information([still], [x])) == pytest.approx(0, abs=0.15)


def test_same_and_cross_of_a_table(generator: torch.Generator) -> None:
    table = torch.rand(3, 3, generator=generator, dtype=torch.float64)
    t = table.tolist()
    same, cross = information.same_and_cross(table)
    assert same == pytest.approx((t[0][0] + t[1][1] + t[2][2]) / 3)
    assert cross == pytest.approx((t[0][1] + t[0][2] + t[1][0] + t[1][2] + t[2][0] + t[2][1]) / 6)
    # Later state (row) of the part with the higher number, earlier state (column) of the lower one.
    assert information.same_and_cross(table, "upper")[1] == pytest.approx((t[1][0] + t[2][0] + t[2][1]) / 3)
    assert math.isnan(information.same_and_cross(table[:1, :1])[1])


def test_partitions_cut_all_units_into_equal_parts(generator: torch.Generator) -> None:
    found = list(information.partitions(12, 3, 5, generator))
    assert len(found) == 5
    for parts in found:
        assert [len(part) for part in parts] == [4, 4, 4]
        assert torch.cat(parts).sort().values.tolist() == list(range(12))
    assert len({tuple(torch.cat(parts).tolist()) for parts in found}) == 5
    for size, parts in ((12, 5), (12, 1)):
        with pytest.raises(ValueError, match=f"12 units cannot be cut into {parts}"):
            list(information.partitions(size, parts, 1, generator))


def test_correlations_equal_scipys_and_a_still_unit_has_none(generator: torch.Generator) -> None:
    now = torch.randn(200, 3, generator=generator) + 5
    then = now.roll(1, 1) + 0.5 * torch.randn(200, 3, generator=generator)
    found = information.correlation(now, then)
    for i in range(3):
        for j in range(3):
            assert float(found[i, j]) == pytest.approx(pearsonr(now[:, i].double(), then[:, j].double())[0], abs=1e-9)
    now[:, 1] = 0.3
    assert information.correlation(now, then)[1].tolist() == [0, 0, 0]


def test_blocks_of_a_matrix(generator: torch.Generator) -> None:
    matrix = torch.rand(5, 5, generator=generator, dtype=torch.float64) - 0.5
    parts = [torch.tensor([0, 3]), torch.tensor([1, 2, 4])]
    group = [0, 1, 1, 0, 1]
    inside = [abs(float(matrix[i, j])) for i in range(5) for j in range(5) if group[i] == group[j]]
    outside = [abs(float(matrix[i, j])) for i in range(5) for j in range(5) if group[i] != group[j]]
    ratio, mean = information.blocks(matrix, parts)
    assert ratio == pytest.approx(np.mean(inside) / np.mean(outside))
    assert mean == pytest.approx(float(matrix.abs().mean()))
    assert math.isnan(information.blocks(matrix, [torch.arange(5)])[0])


def test_explained_variance_and_the_best_matching(generator: torch.Generator) -> None:
    code = torch.randn(300, 3, generator=generator, dtype=torch.float64)
    source = code[:, :2] @ torch.rand(2, 2, generator=generator, dtype=torch.float64) + 4
    assert information.explained(code, source) == pytest.approx(1, abs=1e-12)
    noise = torch.randn(300, 2, generator=generator, dtype=torch.float64)
    design = np.column_stack([code.numpy(), np.ones(300)])
    left = noise.numpy() - design @ np.linalg.lstsq(design, noise.numpy(), rcond=None)[0]
    expected = 1 - (left**2).sum() / ((noise - noise.mean(0)) ** 2).sum()
    assert information.explained(code, noise) == pytest.approx(float(expected), abs=1e-9)
    table = torch.tensor([[0.1, 0.9], [0.8, 0.3]], dtype=torch.float64)
    assert information.alignment(table) == pytest.approx((0.65, 0.85, 0.2))
    assert information.alignment(torch.tensor([[0.9, 0.4], [0.1, 0.7]]).double()) == pytest.approx((0.55, 0.8, 0.25))
