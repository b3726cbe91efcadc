"""Abstract visual reasoning on frozen codes: which panel completes the matrix (van Steenkiste et al. 2019)?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from distk.console import counted

from . import checks
from .checks import Array, Result
from .sampling import GridSampler
from .sentences import Sentence, Unfit
from .solvers import Standardised

ANSWERS, PANELS, LOOKS = 6, 8, 10
"""Answers to choose from, panels that are shown, and how often the network is tested while it learns."""
SIDE = 3
BY_HEART = 10_000
"""Items below which what is learnt of single ones shows: noise on 1,296 rows comes to .27 where chance is 1/6."""


class Problems(NamedTuple):
    """Matrices of three rows and three columns as factor values, int64: context [B, 8, K] (the ninth is missing),
    answers [B, 6, K], right int64 [B], active bool [B, K]: the factors that are constant within each row."""

    context: Tensor
    answers: Tensor
    right: Tensor
    active: Tensor


def reasoning(
    codes: Array,
    sizes: Sequence[int] | None = None,
    *,
    factors: Array | None = None,
    seed: int = 0,
    steps: int = 1500,
    batch: int = 32,
    hidden: int = 64,
    lr: float = 3e-3,
    values: int = 6,
    answers: str = "easy",
    tests: int = 2000,
) -> Result:
    """Accuracy of a relational network on matrices whose panels are codes [n, D] (van Steenkiste et al. 2019).

    A problem: 3 x 3 panels, of which one to three factors keep their value within each row; the others vary freely. Of
    six answers one keeps the rule. The network (a Wild Relation Network, Barrett et al. 2018: one small network on
    every ordered pair of panels with their places, the mean, a second network to a score) sees codes alone, which stay
    as they are. sizes: the codes are a full grid, row-major; or factors [n, K]: any rows among which every combination
    of the (coarsened) values occurs. A factor of more than `values` values is coarsened to as many, evenly spaced.
    answers: 'easy' (other values at random, wrong in at least one active factor; what the published program draws) or
    'hard' (right but for one active factor). Trained for `steps` batches of fresh problems, tested on `tests` others.
    Keys: accuracy (after all steps), accuracy_mean (over the ten equally spaced looks: who learns sooner has more),
    curve [10], problems (how many it learnt from). In [0, 1], chance 1/6, higher is better.
    """
    checks.one_of(answers, ("easy", "hard"), "answers")
    read = Standardised.of(checks.matrix(codes, "codes", own=True))
    x = torch.cat([part.float() for part in read.blocks()])
    book = _Book(x, sizes, factors, values)
    generator = torch.Generator().manual_seed(seed)
    network = Relations(x.shape[1], hidden, generator).to(x.device)
    optimizer = torch.optim.Adam(network.parameters(), lr=lr)
    held = draw(book.sizes, tests, answers, torch.Generator().manual_seed(seed + 1))
    looks = {round(steps * (i + 1) / LOOKS) for i in range(LOOKS)}
    curve = []
    for step in range(1, steps + 1):
        problems = draw(book.sizes, batch, answers, generator)
        optimizer.zero_grad()
        shown, choice = book.codes(problems.context), book.codes(problems.answers)
        cross_entropy(network(shown, choice), problems.right.to(x.device)).backward()
        optimizer.step()
        if step in looks:
            curve.append(_accuracy(network, book, held))
    found = torch.tensor(curve, dtype=torch.float64)
    result: Result = {
        "accuracy": curve[-1],
        "accuracy_mean": float(found.mean()),
        "curve": checks.array(found),
        "problems": float(steps * batch),
    }
    items = math.prod(book.sizes)
    if items < BY_HEART:
        told = f"{items} combinations of values alone: a network may learn them by heart, those of noise too"
        book.reasons["accuracy"] = Sentence.joined([book.reasons.get("accuracy", ""), told])
    return checks.finish(result, book.reasons)


@torch.no_grad()
def _accuracy(network: Relations, book: _Book, problems: Problems) -> float:
    hits = []
    for rows in torch.arange(len(problems.right)).split(256):
        scores = network(book.codes(problems.context[rows]), book.codes(problems.answers[rows]))
        hits.append(scores.argmax(1).cpu() == problems.right[rows])
    return float(torch.cat(hits).double().mean())


class _Book:
    """Codes by factor values: `codes(values int64 [..., K'])` -> float32 [..., D]; K' factors that vary, `sizes` values
    each."""

    def __init__(self, x: Tensor, sizes: Sequence[int] | None, factors: Array | None, values: int) -> None:
        self.x, self.reasons = x, {}
        if sizes is not None:
            sampler = GridSampler(sizes)
            if sampler.rows != len(x):
                raise ValueError(
                    f"a grid of sizes {list(sizes)} has {counted(sampler.rows, 'row')}, but codes {len(x)}"
                )
            full, kept, self.reasons = [int(n) for n in sampler.sizes], sampler.kept, sampler.reasons
            row, strides = None, sampler.strides
        elif factors is not None:
            labels = checks.discrete(checks.paired(x, factors)[1].cpu(), min_per_value=1)
            full, kept, self.reasons = labels.sizes, list(range(len(labels.sizes))), labels.explain("accuracy")
            row, strides = labels, torch.ones(0)
        else:
            raise ValueError("needs sizes (of a full grid) or factors")
        if len(kept) < 2:
            raise ValueError("reasoning is about two factors or more: here one alone varies")
        self.sizes = [min(full[k], values) for k in kept]
        levels = [torch.arange(q) * full[k] // q for q, k in zip(self.sizes, kept, strict=True)]
        if row is None:
            self.row = sum(
                (
                    (level * strides[k]).view(-1, *[1] * (len(kept) - i - 1))
                    for i, (level, k) in enumerate(zip(levels, kept, strict=True))
                ),
                torch.zeros(self.sizes, dtype=torch.int64),
            )
        else:
            self.row = _first_rows(row.index, levels, self.sizes)

    def codes(self, values: Tensor) -> Tensor:
        return self.x[self.row[values.unbind(-1)].to(self.x.device)]


def _first_rows(index: Tensor, levels: list[Tensor], sizes: list[int]) -> Tensor:
    """A row for every combination of the coarsened values, int64 [*sizes]. Raises Unfit where one does not occur."""
    total = 1
    for size in sizes:
        total *= size
    if total > 4 * len(index):
        raise Unfit("{} combinations of values, of which {} rows hold a part", _Count(total), _Count(len(index)))
    place = torch.zeros(len(index), dtype=torch.int64)
    usable = torch.ones(len(index), dtype=torch.bool)
    for k, level in enumerate(levels):
        at = torch.searchsorted(level, index[:, k].contiguous()).clamp_(max=len(level) - 1)
        usable &= level[at] == index[:, k]
        place = place * len(level) + at
    rows = usable.nonzero()[:, 0].flip(0)  # the first row of each combination stays
    found = torch.full((total,), -1, dtype=torch.int64)
    found[place[rows]] = rows
    missing = int((found < 0).sum())
    if missing:
        raise Unfit("{} of {} combinations of values occur in no row", _Count(missing), _Count(total))
    return found.view(sizes)


class _Count:
    """A number in a sentence: the same to everybody."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __str__(self) -> str:
        return str(self.number)

    def named(self, names: object) -> str:
        return str(self.number)


def draw(sizes: Sequence[int], count: int, kind: str, generator: torch.Generator) -> Problems:
    """`count` problems over factors of these numbers of values, one to three of them active."""
    k, size = len(sizes), torch.tensor(sizes)

    def uniform(*shape: int) -> Tensor:
        return (torch.rand(*shape, k, generator=generator, dtype=torch.float64) * size).long().minimum(size - 1)

    wanted = torch.randint(min(3, k), (count,), generator=generator) + 1
    active = torch.rand(count, k, generator=generator).argsort(1).argsort(1) < wanted[:, None]
    free = _free(uniform, count)
    steady = uniform(count, SIDE, 1).expand(-1, -1, SIDE, -1)
    matrix = torch.where(active[:, None, None], steady, free).flatten(1, 2)
    right = torch.randint(ANSWERS, (count,), generator=generator)
    answers = _wrong(uniform, active, matrix[:, -1], kind, size, generator)
    answers[torch.arange(count), right] = matrix[:, -1]
    return Problems(matrix[:, :-1], answers, right, active)


def _free(uniform: object, count: int) -> Tensor:
    """Values [B, 3, 3, K] of factors without a rule: their first two rows are neither both constant nor both all
    different, so that nothing suggests one."""
    assert callable(uniform)
    free = uniform(count, SIDE, SIDE)
    for _ in range(100):
        first = free[:, : SIDE - 1]
        constant = (first == first[:, :, :1]).all(2).all(1)
        different = (first[:, :, [0, 0, 1]] != first[:, :, [1, 2, 2]]).all(2).all(1)
        again = constant | different
        if not bool(again.any()):
            break
        free = torch.where(again[:, None, None], uniform(count, SIDE, SIDE), free)
    return free


def _wrong(
    uniform: object, active: Tensor, solution: Tensor, kind: str, size: Tensor, generator: torch.Generator
) -> Tensor:
    """Answers [B, 6, K] that break the rule: at least one active factor has another value than the row's."""
    assert callable(uniform)
    found = uniform(len(active), ANSWERS)
    if kind == "hard":
        chance = torch.rand(len(active), ANSWERS, active.shape[1], generator=generator)
        one = chance.masked_fill(~active[:, None], -1).argmax(2, keepdim=True)
        found = torch.where(active[:, None], solution[:, None], found)
        own, many = found.gather(2, one), size[one]
        shift = 1 + (torch.rand(own.shape, generator=generator, dtype=torch.float64) * (many - 1)).long()
        return found.scatter(2, one, (own + shift.minimum(many - 1)) % many)
    while True:
        fits = ((found == solution[:, None]) | ~active[:, None]).all(2, keepdim=True)
        if not bool(fits.any()):
            return found
        found = torch.where(fits, uniform(len(active), ANSWERS), found)


class Relations(nn.Module):
    """The relational network: context [B, 8, D] and answers [B, 6, D] -> a score of each answer [B, 6].

    An answer's score is f(mean over ordered pairs (i, j) of the nine panels of g(panel_i, panel_j)), each panel with
    its place as indicators. Pairs within the context are the same for all answers and are computed once.
    """

    def __init__(self, width: int, hidden: int, generator: torch.Generator) -> None:
        super().__init__()
        self.first, self.second = (nn.utils.skip_init(nn.Linear, width + PANELS + 1, hidden) for _ in range(2))
        self.edge, self.graph = (nn.utils.skip_init(nn.Linear, hidden, hidden) for _ in range(2))
        self.out = nn.utils.skip_init(nn.Linear, hidden, 1)
        with torch.no_grad():
            for layer in (self.first, self.second, self.edge, self.graph, self.out):
                drawn = torch.randn(layer.weight.shape, generator=generator)
                layer.weight.copy_(drawn / layer.in_features**0.5)
                layer.bias.zero_()

    def forward(self, context: Tensor, answers: Tensor) -> Tensor:
        place = torch.eye(PANELS + 1, dtype=context.dtype, device=context.device)
        shown = torch.cat([context, place[:PANELS].expand(len(context), -1, -1)], 2)
        choice = torch.cat([answers, place[PANELS:].expand(len(answers), answers.shape[1], -1)], 2)
        a, b = self.first(shown), self.second(shown)  # [B, 8, H]
        c, d = self.first(choice), self.second(choice)  # [B, 6, H]
        within = self._pairs(a[:, :, None] + b[:, None]).sum((1, 2))
        across = self._pairs(a[:, None] + d[:, :, None]).sum(2) + self._pairs(c[:, :, None] + b[:, None]).sum(2)
        total = within[:, None] + across + self._pairs(c + d)
        return self.out(self.graph(total / (PANELS + 1) ** 2).relu())[:, :, 0]

    def _pairs(self, summed: Tensor) -> Tensor:
        return self.edge(summed.relu()).relu()
