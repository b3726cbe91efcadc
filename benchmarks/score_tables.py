"""Tables of codes whose worth is known, for the benchmarks of scores."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from distk import CodeTable

SIZES = (2, 3, 6, 8, 10, 7)
KINDS = ("perfect", "rotated", "overcomplete", "dependent", "noise")
VALUES = 6
"""Values of each factor of the tables whose time and memory is measured."""


def tables(seed: int = 0) -> dict[str, CodeTable]:
    """The five codes, as tables that every score takes."""
    generator = torch.Generator().manual_seed(seed)
    grid = torch.cartesian_prod(*[torch.arange(size) for size in SIZES])
    unit = _standard(grid)
    k = len(SIZES)

    def noise(rows: int, width: int) -> Tensor:
        return torch.randn(rows, width, generator=generator, dtype=torch.float64)

    rotation = torch.linalg.qr(noise(k, k)).Q
    copies = torch.cat([unit, -2 * unit, unit**3 / 3], 1)
    made = {
        "perfect": unit + 0.01 * noise(len(grid), k),
        "rotated": unit @ rotation + 0.01 * noise(len(grid), k),
        "overcomplete": torch.cat([copies + 0.01 * noise(len(grid), 3 * k), noise(len(grid), 3)], 1),
        "noise": noise(len(grid), k),
    }
    found = {name: table(codes, grid, True) for name, codes in made.items()}
    # The second factor follows the first, the fourth the third, with some freedom.
    rows = torch.stack([torch.randint(size, (15_000,), generator=generator) for size in SIZES], 1)
    free = torch.rand(15_000, generator=generator)
    rows[:, 1] = torch.where(free < 0.6, rows[:, 0] * 2, rows[:, 1])
    rows[:, 3] = torch.where(free < 0.5, rows[:, 2] + 1, rows[:, 3])
    found["dependent"] = table(_standard(rows) + 0.01 * noise(15_000, k), rows, False)
    return {name: found[name] for name in KINDS}


def grouped(kind: str, seed: int = 0) -> CodeTable:
    """One discrete code of 6 classes and slots of 200 pictures with 3 objects and a background: the classes themselves
    ("perfect"), under other names ("rotated"), each parted into three at random ("overcomplete"), classes of which half
    the rows are one ("dependent"), and drawn at random ("noise")."""
    generator = torch.Generator().manual_seed(seed)

    def drawn(sizes: tuple[int, ...], count: int) -> tuple[Tensor, Tensor]:
        truth = torch.randint(count, sizes, generator=generator)
        if kind == "dependent":
            truth = torch.where(torch.rand(sizes, generator=generator) < 0.5, 1, truth)
        made = {
            "rotated": torch.randperm(count, generator=generator)[truth],
            "overcomplete": 3 * truth + torch.randint(3, sizes, generator=generator),
            "noise": torch.randint(count, sizes, generator=generator),
        }
        return truth, made.get(kind, truth)

    label, index = drawn((10_000,), 6)
    objects, slots = drawn((200, 16, 16), 4)
    return CodeTable(
        index[:, None].double(),
        ["d"],
        ["categorical"],
        label[:, None],
        ("label",),
        (6,),
        ("categorical",),
        source="these codes",
        extra={"slots": slots, "objects": objects},
    )


def _standard(factors: Tensor) -> Tensor:
    values = factors.double()
    return (values - values.mean(0)) / values.std(0)


def table(codes: Tensor, factors: Tensor, grid: bool) -> CodeTable:
    """Codes [n, D] with deviations of 0.1 and ordered factors [n, K], of which every value occurs."""
    d, sizes = codes.shape[1], tuple(int(n) + 1 for n in factors.amax(0))
    names = tuple(f"f{i + 1}" for i in range(factors.shape[1]))
    return CodeTable(
        codes,
        [f"c{i + 1}" for i in range(d)],
        ["continuous"] * d,
        factors,
        names,
        sizes,
        ("ordinal",) * len(names),
        grid=grid,
        std=torch.full((1, 1), 0.1, dtype=codes.dtype, device=codes.device).expand(codes.shape),
        source="these codes",
    )


def noisy(rows: int, width: int, factors: int, values: int = VALUES, device: str = "cpu") -> CodeTable:
    """Independent factors [rows, factors] and codes float64 [rows, width]: a noisy copy of each factor, then noise.

    Column by column, so that making it takes little more memory than it has.
    """
    generator = torch.Generator().manual_seed(0)
    truth = torch.empty(rows, factors, dtype=torch.int64)
    codes = torch.empty(rows, width, dtype=torch.float64)
    for d in range(width):
        column = 0.5 * torch.randn(rows, generator=generator, dtype=torch.float64)
        if d < factors:
            truth[:, d] = torch.randint(values, (rows,), generator=generator)
            column += _standard(truth[:, d, None])[:, 0]
        codes[:, d] = column
    return table(codes.to(device), truth.to(device), False)


def priced(name: str, rows: int, width: int, factors: int, device: str = "cpu") -> CodeTable:
    """The table on which a score's time and memory is measured: `noisy`, but attributes of two values for `tad`; class
    indices with a tenth of them drawn anew for `clsacc` and `ari`; rows of every combination of factors of ten values
    for `reasoning`, as many factors as `rows` has zeros; pictures of 16 x 16 pixels in four slots for `fg-ari`."""
    made = noisy(rows, width, factors, 2 if name == "tad" else VALUES, device)
    generator = torch.Generator().manual_seed(1)
    if name in ("clsacc", "ari"):
        index = made.needs_factors()[:, torch.arange(width) % factors].double()
        drawn = torch.randint(VALUES, index.shape, generator=generator).to(index)
        codes = torch.where((torch.rand(index.shape, generator=generator) < 0.1).to(device), drawn, index)
        kinds = ("categorical",) * factors
        return replace(made, codes=codes, kinds=["categorical"] * width, factor_kinds=kinds)
    if name == "reasoning":
        digits = len(str(rows)) - 1
        grid = torch.cartesian_prod(*[torch.arange(10)] * digits).to(device)
        codes = made.codes[: len(grid)].clone()
        codes[:, :digits] += _standard(grid)
        return table(codes, grid, True)
    if name == "fg-ari":
        objects = torch.randint(4, (rows, 16, 16), generator=generator)
        other = torch.randint(4, objects.shape, generator=generator)
        slots = torch.where(torch.rand(objects.shape, generator=generator) < 0.1, other, objects)
        return replace(made, extra={"slots": slots.to(device), "objects": objects.to(device)})
    return made
