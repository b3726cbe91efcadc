"""The exchange solver for many classes as one Triton kernel: one program per problem, one launch, no host read.

`solver_triton` holds a problem on chip, up to 64 classes. Here costs are read from memory as they are needed, and
nothing of size S S is kept: the cheapest way into each class is found from the items (Bellman-Ford from all classes at
once, class s at the price of what it saves by losing a member), as `solver._spared` does it. So there may be as many
classes as one program can hold prices of.

Labels and prices lie in memory, since a program cannot index a register tile by a computed position; a barrier stands
between writing them and reading them.
"""

from __future__ import annotations

import os

import torch
import triton
import triton.language as tl
from torch import Tensor

from distk.console import counted

MOST_CLASSES = 1 << 12
"""Prices that one program holds."""
TILE = 1 << 13
"""Costs that are looked at together, int64."""
FAR = 1 << 61  # as in `solver`


@triton.jit
def _cheapest_ways(
    cost,
    labels_ptr,
    paid_ptr,
    last,
    N: tl.constexpr,
    S: tl.constexpr,
    BLOCK_S: tl.constexpr,
    ROWS: tl.constexpr,
    FAR: tl.constexpr,
):
    """What the cheapest way into each class costs, and the item that makes its last move, or -1: [BLOCK_S] each.

    cost [N, S] int64 in memory; last: what the last member of each class costs. Every move costs 1 more, for the hop.
    """
    k = tl.arange(0, BLOCK_S)
    r = tl.arange(0, ROWS)
    paid = tl.where(k < S, -last, FAR)
    before = tl.full([BLOCK_S], -1, tl.int32)
    changed = tl.full([], 1, tl.int32)
    rounds = tl.full([], 0, tl.int32)
    while (changed > 0) & (rounds < S):  # a path has S - 1 hops at most; the bound only keeps a fault from hanging
        tl.store(paid_ptr + k, paid, mask=k < S)
        tl.debug_barrier()
        reached = tl.full([BLOCK_S], FAR, tl.int64)
        mover = tl.full([BLOCK_S], -1, tl.int32)
        for start in range(0, N, ROWS):
            i = start + r
            label = tl.load(labels_ptr + i, mask=i < N, other=0)
            own = tl.load(cost + i.to(tl.int64) * S + label, mask=i < N, other=0)
            begun = tl.load(paid_ptr + label, mask=i < N, other=FAR) - own + 1
            inside = (i < N)[:, None] & (k < S)[None, :]
            rows = tl.load(cost + i.to(tl.int64)[:, None] * S + k[None, :], mask=inside, other=FAR)
            ways = tl.where(inside, rows + begun[:, None], FAR)
            least = tl.min(ways, axis=0)
            first = tl.min(tl.where(ways == least[None, :], i[:, None], N), axis=0)
            mover = tl.where(least < reached, first, mover)
            reached = tl.minimum(reached, least)
        shorter = reached < paid
        before = tl.where(shorter, mover, before)
        paid = tl.where(shorter, reached, paid)
        changed = tl.max(shorter.to(tl.int32), axis=0)
        rounds += 1
        tl.debug_barrier()  # all have read what is written next
    return paid, before


@triton.jit
def _many_kernel(
    cost_ptr,
    labels_ptr,
    paid_ptr,
    gain_ptr,
    exchanges_ptr,
    STEP: tl.constexpr,
    N: tl.constexpr,
    S: tl.constexpr,
    BLOCK_S: tl.constexpr,
    ROWS: tl.constexpr,
    FAR: tl.constexpr,
):
    """cost [R, N, S] int64, labels [R, N] of the start -> labels, last gain [R], exchanges [R], all int64; paid [R, S]
    is for notes."""
    problem = tl.program_id(0).to(tl.int64)
    cost = cost_ptr + problem * (N * S)
    labels = labels_ptr + problem * N
    paid_notes = paid_ptr + problem * S
    k = tl.arange(0, BLOCK_S)
    step = tl.full([], STEP, tl.int64)

    members = tl.zeros([BLOCK_S], tl.int64)
    for i in range(N):
        members += (k == tl.load(labels + i)).to(tl.int64)
    gain = tl.full([], -1, tl.int64)
    exchanges = tl.full([], 0, tl.int64)
    going = tl.full([], 1, tl.int32)
    while going > 0:
        last = members * step
        paid, before = _cheapest_ways(cost, labels, paid_notes, last, N, S, BLOCK_S, ROWS, FAR)
        gains = tl.where(k < S, paid + last + step, FAR)
        gain = tl.min(gains, axis=0)
        going = ((gain < 0) & (exchanges < N)).to(
            tl.int32
        )  # N always suffice; the bound only keeps a fault from hanging
        if going > 0:
            here = tl.min(tl.where(gains == gain, k, BLOCK_S), axis=0)
            members += (k == here).to(tl.int64)
            item = tl.sum(tl.where(k == here, before, 0), axis=0)
            while item >= 0:
                left = tl.load(labels + item).to(tl.int32)
                tl.debug_barrier()  # all have read the label that is written next
                tl.store(labels + item, here.to(tl.int64))
                here = left
                item = tl.sum(tl.where(k == here, before, 0), axis=0)
            members -= (k == here).to(tl.int64)
            exchanges += 1
            tl.debug_barrier()
    tl.store(gain_ptr + problem, gain)
    tl.store(exchanges_ptr + problem, exchanges)


def fits(classes: int) -> bool:
    """Whether a problem of S classes fits one program; of items there may be any number."""
    return classes <= MOST_CLASSES


def solve(cost: Tensor, step: int) -> tuple[Tensor, Tensor, Tensor]:
    """Solves a batch of integer problems as `solver` prepares them.

    Args: cost [R, S, n] int64 on CUDA, S >= 2, tie-broken and scaled; step, the scaled pair cost.
    Returns: labels [R, n] int64, converged [R] bool, exchanges [R] int64.
    Raises: ValueError for too many classes, or for a CPU tensor (Triton's interpreter takes one).
    """
    problems, classes, n = cost.shape
    if not cost.is_cuda and os.environ.get("TRITON_INTERPRET") != "1":
        raise ValueError(f"the triton solver needs CUDA tensors, found {cost.device}: use --solver torch")
    if not fits(classes):
        raise ValueError(
            f"{counted(classes, 'class', 'classes')} are too many for the triton solver: {MOST_CLASSES} at most"
        )
    block = max(triton.next_power_of_2(classes), 16)
    labels = cost.argmin(1)
    gain = torch.empty(problems, dtype=torch.int64, device=cost.device)
    exchanges = torch.empty_like(gain)
    with torch.cuda.device_of(cost):  # triton launches on the current device
        _many_kernel[(problems,)](
            cost.mT.contiguous(),
            labels,
            cost.new_empty(problems, classes),
            gain,
            exchanges,
            STEP=step,
            N=n,
            S=classes,
            BLOCK_S=block,
            ROWS=max(1, TILE // block),
            FAR=FAR,
            num_warps=16,
        )
    return labels, gain >= 0, exchanges
