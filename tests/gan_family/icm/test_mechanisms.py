"""The transformations of icm against independent computations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from distk.plugins.gan_family.icm.mechanisms import DIRECTIONS, SETS, Mixture, parse, shift


def under(name: str, x: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
    noise = torch.randn(x.shape, generator=generator)
    return Mixture(parse([name]))(x, torch.zeros(len(x), dtype=torch.long), noise)


@pytest.mark.parametrize("name", list(DIRECTIONS))
def test_a_lit_pixel_moves_by_exactly_the_shift(name: str, generator: torch.Generator) -> None:
    dx, dy = (4 * d for d in DIRECTIONS[name])
    row, column = (int(v) for v in torch.randint(5, 23, (2,), generator=generator))
    x = torch.zeros(1, 1, 28, 28)
    x[0, 0, row, column] = 0.7
    expected = torch.zeros(1, 1, 28, 28)
    expected[0, 0, row + dy, column + dx] = 0.7
    assert torch.equal(under(name, x), expected)


def test_shift_fills_with_background_and_loses_what_leaves(generator: torch.Generator) -> None:
    x = torch.rand(5, 2, 9, 7, generator=generator)
    dx, dy = torch.tensor([3, -2, 0, 7, -1]), torch.tensor([-1, 4, 0, 0, -9])
    made = shift(x, dx, dy).numpy()
    expected = np.zeros_like(made)
    for i in range(5):
        for r in range(9):
            for c in range(7):
                source = r - int(dy[i]), c - int(dx[i])
                if 0 <= source[0] < 9 and 0 <= source[1] < 7:
                    expected[i, :, r, c] = x[i, :, source[0], source[1]].numpy()
    assert (made == expected).all()


def test_inverting_twice_is_the_identity(generator: torch.Generator) -> None:
    x = torch.randint(0, 256, (4, 1, 8, 8), generator=generator).float() / 256  # exact in binary
    assert torch.equal(under("invert", under("invert", x)), x)
    assert torch.equal(under("invert", x), 1 - x)


def test_noise_before_the_clamp_has_the_named_deviation(generator: torch.Generator) -> None:
    x = torch.full((200, 1, 28, 28), 0.5)
    added = under("noise:0.05", x, generator) - x  # ten deviations from the clamp
    n = added.numel()
    assert abs(float(added.mean())) < 5 * 0.05 / n**0.5
    assert abs(float(added.std()) - 0.05) < 5 * 0.05 / (2 * n) ** 0.5


def test_clamped_noise_on_background_has_the_closed_form_energy(generator: torch.Generator) -> None:
    inner = integrate.quad(lambda y: y * y * stats.norm.pdf(y, scale=0.5), 0, 1)[0]
    closed = inner + stats.norm.sf(1, scale=0.5)
    assert closed == pytest.approx(0.115067, abs=1e-6)
    y = under("noise", torch.zeros(400, 1, 28, 28), generator)
    deviation = float(y.pow(2).std()) / y.numel() ** 0.5
    assert abs(float(y.pow(2).mean()) - closed) < 5 * deviation
    assert float(y.min()) == 0
    assert float(y.max()) == 1


def test_a_quarter_turn_is_exact_up_to_rounding(generator: torch.Generator) -> None:
    x = torch.rand(3, 1, 12, 12, generator=generator)
    made = under("rotate:90", x)
    assert torch.allclose(made, torch.rot90(x, -1, (2, 3)), atol=1e-5) or torch.allclose(
        made, torch.rot90(x, 1, (2, 3)), atol=1e-5
    )


def test_stretching_widens_along_one_axis_only() -> None:
    x = torch.zeros(1, 1, 28, 28)
    x[0, 0, 10:18, 10:18] = 1
    wide, tall = under("stretch-x:1.75", x)[0, 0], under("compress-y:1.75", x)[0, 0]
    assert (wide[14] > 0.5).sum() == 14
    assert (wide[:, 14] > 0.5).sum() == 8
    assert (tall[14] > 0.5).sum() == 8
    assert 4 <= (tall[:, 14] > 0.5).sum() <= 5


def test_in_a_mixture_each_image_gets_its_own_mechanism_alone(generator: torch.Generator) -> None:
    names = ["right:2", "invert", "noise:0.3", "rotate:45", "identity"]
    mixture = Mixture(parse(names))
    x, noise = (torch.rand(40, 1, 16, 16, generator=generator) for _ in range(2))
    which = torch.randint(5, (40,), generator=generator)
    mixed = mixture(x, which, noise)
    for k, name in enumerate(names):
        chosen = which == k
        alone = Mixture(parse([name]))(x[chosen], torch.zeros(int(chosen.sum()), dtype=torch.long), noise[chosen])
        assert torch.equal(mixed[chosen], alone)
    assert torch.equal(mixed[which == 4], x[which == 4])
    assert not mixture.state_dict()


def test_sets_and_names() -> None:
    paper = parse(["paper10"])
    assert len(paper) == 10
    assert sorted((m.dx, m.dy) for m in paper if m.reach) == sorted(
        (4 * a, 4 * b) for a in (-1, 0, 1) for b in (-1, 0, 1) if (a, b) != (0, 0)
    )
    assert [m.noise for m in paper if m.noise] == [0.5]
    assert len(parse(["lemmon11"])) == len(SETS["lemmon11"]) == 11
    for bad, said in {
        "rihgt:2": "Did you mean 'right'",
        "right:1.5": "whole number",
        "right:inf": "whole number",
        "right:x": "no number",
        "noise:0": "above 0",
        "noise:nan": "above 0",
        "invert:2": "takes no amount",
        "stretch-x:0.5": "above 1",
        "rotate:0": "between 0 and 360",
    }.items():
        with pytest.raises(ValueError, match=said):
            parse([bad])
    with pytest.raises(ValueError, match="named twice"):
        parse(["right", "right:4"])
    with pytest.raises(ValueError, match="names none"):
        parse([])


def test_no_image_is_a_batch_too() -> None:
    mixture = Mixture(parse(["right:2", "rotate:45"]))
    none = torch.zeros(0, 1, 16, 16)
    assert mixture(none, torch.zeros(0, dtype=torch.long), none).shape == none.shape
