"""Signed distances against the distance to points on the outline, by brute force, in float64."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from distk.nn import shapes

GAP = 3e-4
"""Most by which the distance to points on an outline exceeds that to the outline: half of their spacing."""


def points(generator: torch.Generator, dimensions: int, n: int = 300) -> list[Tensor]:
    return list(3 * torch.rand(dimensions, n, generator=generator, dtype=torch.float64) - 1.5)


def to_outline(p: list[Tensor], outline: Tensor) -> Tensor:
    """Distance of each point to the nearest of the points `[m, d]` on an outline."""
    return torch.cdist(torch.stack(p, 1), outline, compute_mode="donot_use_mm_for_euclid_dist").amin(
        1
    )  # to the last bit


def segment(a: tuple[float, ...], b: tuple[float, ...], m: int = 4000) -> Tensor:
    along = torch.linspace(0, 1, m, dtype=torch.float64)[:, None]
    return torch.tensor(a, dtype=torch.float64) * (1 - along) + torch.tensor(b, dtype=torch.float64) * along


def polygon(*corners: tuple[float, float]) -> Tensor:
    return torch.cat([segment(a, b) for a, b in zip(corners, (*corners[1:], corners[0]), strict=True)])


def test_a_ball_is_exact_in_any_dimension(generator) -> None:
    for centre in ((0.2, -0.1), (0.2, -0.1, 0.3)):
        p = points(generator, len(centre))
        far = sum((x - c) ** 2 for x, c in zip(p, centre, strict=True)).sqrt()
        torch.testing.assert_close(shapes.ball(p, centre, 0.7), far - 0.7)


def test_a_rectangle_is_exact(generator) -> None:
    p = points(generator, 2)
    x0, x1, y0, y1 = 0.1 - 0.8, 0.1 + 0.8, -0.2 - 0.5, -0.2 + 0.5
    inside = (p[0] > x0) & (p[0] < x1) & (p[1] > y0) & (p[1] < y1)
    brute = to_outline(p, polygon((x0, y0), (x1, y0), (x1, y1), (x0, y1)))
    ours = shapes.box(p, (0.1, -0.2), (0.8, 0.5))
    torch.testing.assert_close(ours, torch.where(inside, -brute, brute), rtol=0, atol=GAP)


def test_rounded_corners_are_the_smaller_box_grown(generator) -> None:
    """All within `corner` of the smaller box; deep inside it the distance to the outline is the larger one's."""
    for half in ((0.8, 0.5), (0.8, 0.5, 0.6)):
        p, none = points(generator, len(half)), [0.0] * len(half)
        ours = shapes.box(p, none, half, 0.2)
        torch.testing.assert_close(ours, shapes.box(p, none, [h - 0.2 for h in half]) - 0.2)
    corner = [torch.tensor([1.0], dtype=torch.float64), torch.tensor([1.0], dtype=torch.float64)]
    assert float(shapes.box(corner, (0, 0), (1, 1), 0.5)) == pytest.approx(0.5 * math.sqrt(2) - 0.5)


def test_a_capsule_is_the_distance_to_its_segment(generator) -> None:
    for a, b in (((-0.5, 0.2), (0.7, -0.4)), ((-0.5, 0.2, 0.1), (0.7, -0.4, 0.5))):
        p = points(generator, len(a))
        brute = to_outline(p, segment(a, b)) - 0.3
        torch.testing.assert_close(shapes.capsule(p, a, b, 0.3), brute, rtol=0, atol=GAP)
    same = shapes.capsule(p, a, a, 0.3)
    torch.testing.assert_close(same, shapes.ball(p, a, 0.3), msg="a segment without length is a ball")


def test_a_tapered_capsule_has_its_radius_at_either_end(generator) -> None:
    p, a, b = points(generator, 3), (-0.5, 0.2, 0.1), (0.7, -0.4, 0.5)
    ours = shapes.capsule(p, a, b, 0.2, 0.1)
    along = segment(a, b)
    radius = torch.linspace(0.2, 0.1, len(along), dtype=torch.float64)
    brute = (torch.cdist(torch.stack(p, 1), along) - radius).amin(1)  # balls along the segment
    slope = 0.1 / (torch.tensor(b) - torch.tensor(a)).norm()
    far = float(torch.stack(p).norm(dim=0).max()) + 1
    # The nearest ball lies up to slope * distance along from the foot; second order in the taper.
    assert float((ours - brute).abs().max()) < far * float(slope) ** 2
    assert bool((ours >= brute - 1e-6).all())


@pytest.mark.parametrize("radii", [(0.9, 0.5), (0.9, 0.5, 0.7)])
def test_an_ellipsoid_is_right_at_its_outline(generator, radii: tuple[float, ...]) -> None:
    direction = torch.randn(200, len(radii), generator=generator, dtype=torch.float64)
    surface = direction / direction.norm(dim=1, keepdim=True) * torch.tensor(radii, dtype=torch.float64)
    p = [x.requires_grad_() for x in surface.clone().unbind(1)]
    none = [0.0] * len(radii)
    distance = shapes.ellipsoid(p, none, radii)
    assert float(distance.detach().abs().max()) < 1e-12
    slope = torch.stack(torch.autograd.grad(distance.sum(), p)).square().sum(0)
    torch.testing.assert_close(slope, torch.ones_like(slope))
    near = [x.detach() * 1.02 for x in p]
    assert bool((shapes.ellipsoid(near, none, radii) > 0).all())
    middle = [torch.zeros(1, dtype=torch.float64) for _ in radii]
    assert -max(radii) <= float(shapes.ellipsoid(middle, none, radii)) <= -min(radii)


def test_an_ellipsoid_of_equal_radii_is_a_ball(generator) -> None:
    p = points(generator, 3)
    torch.testing.assert_close(shapes.ellipsoid(p, (0, 0, 0), (0.6,) * 3), shapes.ball(p, (0, 0, 0), 0.6))


def test_a_triangle_is_exact_inside(generator) -> None:
    p = points(generator, 2, 2000)
    half = math.sqrt(3) / 2
    outline = polygon((0.0, -1.0), (half, 0.5), (-half, 0.5))
    ours, brute = shapes.triangle(p, (0, 0), 1.0), to_outline(p, outline)
    inside = (p[1] < 0.5) & (half * p[0].abs() - p[1] / 2 < 0.5)
    assert torch.equal(ours < 0, inside)
    torch.testing.assert_close(-ours[inside], brute[inside], rtol=0, atol=GAP)
    assert bool((ours[~inside] <= brute[~inside] + 1e-14).all()), "outside it never claims more than there is"


def test_a_heart_changes_sign_on_its_curve_and_measures_near_it(generator) -> None:
    t = torch.linspace(-math.pi, math.pi, 40_001, dtype=torch.float64)
    # Along each direction the one radius r with (r^2 - 1)^3 = r^5 cos^2 sin^3, by bisection.
    low, high = torch.zeros_like(t), torch.full_like(t, 2.0)
    for _ in range(60):
        r = (low + high) / 2
        outside = (r**2 - 1) ** 3 > r**5 * t.cos() ** 2 * t.sin() ** 3
        low, high = torch.where(outside, low, r), torch.where(outside, r, high)
    curve = torch.stack([r * t.cos(), r * t.sin()], 1)
    pick = torch.randint(len(curve), (400,), generator=generator)
    step = 0.005 * torch.randn(400, 2, generator=generator, dtype=torch.float64)
    p = list((curve[pick] + step).unbind(1))
    ours, brute = shapes.heart(p), to_outline(p, curve)
    inside = (p[0] ** 2 + p[1] ** 2 - 1) ** 3 < p[0] ** 2 * p[1] ** 3
    clear = brute > 1e-3
    assert torch.equal(ours[clear] < 0, inside[clear])
    ratio = (ours.abs() / brute)[clear & (p[0].abs() > 0.1)]  # not at its two corners, the cleft and the tip
    assert bool(((ratio > 0.8) & (ratio < 1.25)).all()), ratio.aminmax()


def area(distance: Callable[[list[Tensor]], Tensor], size: int = 256) -> float:
    """Area by coverage on pixels over [-1.5, 1.5]^2."""
    centre = (torch.arange(size, dtype=torch.float64) + 0.5) * (3 / size) - 1.5
    return float(shapes.coverage(distance([centre, centre[:, None]]) * (size / 3)).sum() * (3 / size) ** 2)


def test_coverage_adds_up_to_the_area() -> None:
    assert area(lambda p: shapes.ball(p, (0, 0), 1.0)) == pytest.approx(math.pi, rel=1e-3)
    assert area(lambda p: shapes.box(p, (0.1, 0), (0.7, 0.4))) == pytest.approx(4 * 0.7 * 0.4, rel=2e-3)
    assert area(lambda p: shapes.ellipsoid(p, (0, 0), (1.2, 0.5))) == pytest.approx(math.pi * 0.6, rel=2e-3)
    assert area(lambda p: shapes.triangle(p, (0, 0), 1.0)) == pytest.approx(3 * math.sqrt(3) / 4, rel=2e-3)
    assert area(lambda p: shapes.capsule(p, (-0.5, 0), (0.5, 0), 0.3)) == pytest.approx(0.6 + math.pi * 0.09, rel=2e-3)
    assert shapes.coverage(torch.tensor([-2.0, 0.0, 0.25, 2.0])).tolist() == [1.0, 0.5, 0.25, 0.0]


def test_numbers_may_differ_from_picture_to_picture(generator) -> None:
    centre = torch.arange(8.0, dtype=torch.float64)
    p = (centre, centre[:, None])
    value = torch.rand(5, 5, generator=generator, dtype=torch.float64).view(5, 5, 1, 1) * 4 + 1
    batch = [
        shapes.box(p, (value[0], value[1]), (value[2], value[3])),
        shapes.ellipsoid(p, (value[0], value[1]), (value[2], value[3])),
        shapes.capsule(p, (value[0], value[1]), (value[2], value[3]), value[4]),
    ]
    for i in range(5):
        a, b, c, d, e = value[:, i, 0, 0].tolist()
        torch.testing.assert_close(batch[0][i], shapes.box(p, (a, b), (c, d)))
        torch.testing.assert_close(batch[1][i], shapes.ellipsoid(p, (a, b), (c, d)))
        torch.testing.assert_close(batch[2][i], shapes.capsule(p, (a, b), (c, d), e))
