"""The exchange solver as one Triton kernel: one program per problem, one launch, no host read.

The whole cost tile stays on chip and the exchange loop runs in the kernel until nothing gains. Steps, integers and
tie rules are those of the torch code (`solver` explains why they are exact), so that both give the same
assignment. Two things are done differently because a program has no cheap sort and S is small: the price of a class
is found by bisection, and shortest paths by Floyd-Warshall.

A program cannot index a register tile by a computed position; "row r of x" is written as a masked sum.
Loops, not 3-d tiles, run over the classes: [S, S, n] would not fit.
"""

from __future__ import annotations

import os

import torch
import triton
import triton.language as tl
from torch import Tensor

from distk.console import counted

LARGEST_TILE = 1 << 14  # int64 entries of [S, n] padded to powers of two: half the registers of an SM
FAR = 1 << 61  # as in `solver`: two of them still fit int64


@triton.jit
def _cheapest(total, N: tl.constexpr, BLOCK_S: tl.constexpr, BLOCK_N: tl.constexpr):
    """First cheapest class of each item: total [BLOCK_S, BLOCK_N] int64 -> [BLOCK_N] int32, -1 for padding items."""
    k = tl.arange(0, BLOCK_S)
    lowest = tl.min(total, axis=0)
    labels = tl.min(tl.where(total == lowest[None, :], k[:, None], BLOCK_S), axis=0)
    return tl.where(tl.arange(0, BLOCK_N) < N, labels, -1)


@triton.jit
def _prices(
    cost,
    step,
    N: tl.constexpr,
    S: tl.constexpr,
    BLOCK_S: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BITS: tl.constexpr,
    SWEEPS: tl.constexpr,
    FAR: tl.constexpr,
):
    """Class prices [BLOCK_S] int64 by coordinate ascent of the dual.

    The price of class b is the smallest p >= 0 at which the items that would pay more than p, m of them, have
    marginals up to p: (m - 1) step <= p. That holds at p = (N - 1) step, and from the first such p onwards.
    """
    k = tl.arange(0, BLOCK_S)
    i = tl.arange(0, BLOCK_N)
    price = tl.zeros([BLOCK_S], tl.int64) + step * (N // S)
    for turn in range(SWEEPS * S):
        mine = k == turn % S
        others = tl.min(tl.where(mine[:, None], FAR, cost + price[:, None]), axis=0)
        wish = others - tl.sum(tl.where(mine[:, None], cost, 0), axis=0)
        wish = tl.where(i < N, wish, -FAR)
        low = tl.full([], 0, tl.int64)
        high = step * (N - 1)
        for _ in range(BITS):
            middle = (low + high) >> 1
            wanting = tl.sum((wish > middle).to(tl.int64), axis=0)
            enough = (wanting - 1) * step <= middle
            low = tl.where(enough, low, middle + 1)
            high = tl.where(enough, middle, high)
        price = tl.where(mine, high, price)
    return price


@triton.jit
def _arcs(
    cost,
    labels,
    step,
    S: tl.constexpr,
    BLOCK_S: tl.constexpr,
    BLOCK_N: tl.constexpr,
    FAR: tl.constexpr,
):
    """Residual arcs of labels: cheapest move s -> t plus 1 for the hop [BLOCK_S, BLOCK_S] int64, the item that makes
    it (int32), and the marginal cost n_k step of each class [BLOCK_S] int64."""
    k = tl.arange(0, BLOCK_S)
    i = tl.arange(0, BLOCK_N)
    own = tl.sum(tl.where(k[:, None] == labels[None, :], cost, 0), axis=0)
    moves = cost - own[None, :]
    arc = tl.full([BLOCK_S, BLOCK_S], FAR, tl.int64)
    item = tl.full([BLOCK_S, BLOCK_S], -1, tl.int32)
    marginal = tl.zeros([BLOCK_S], tl.int64)
    for s in range(S):
        member = labels == s
        from_s = tl.where(member[None, :], moves, FAR)
        cheapest = tl.min(from_s, axis=1)
        mover = tl.min(tl.where(from_s == cheapest[:, None], i[None, :], BLOCK_N), axis=1)
        row = (k == s)[:, None] & (k < S)[None, :]
        arc = tl.where(row, cheapest[None, :] + 1, arc)
        item = tl.where(row, mover[None, :], item)
        marginal = tl.where(k == s, tl.sum(member.to(tl.int64), axis=0) * step, marginal)
    return arc, item, marginal


@triton.jit
def _best_exchange(
    cost,
    labels,
    step,
    S: tl.constexpr,
    BLOCK_S: tl.constexpr,
    BLOCK_N: tl.constexpr,
    FAR: tl.constexpr,
):
    """Gain of the best exchange (int64, negative if F falls) and the labels [BLOCK_N] after it.
    The labels mean nothing where the gain is not negative."""
    k = tl.arange(0, BLOCK_S)
    i = tl.arange(0, BLOCK_N)
    arc, item, marginal = _arcs(cost, labels, step, S, BLOCK_S, BLOCK_N, FAR)
    distance = tl.where(k[:, None] == k[None, :], 0, arc)
    for via in range(S):
        onwards = tl.sum(tl.where((k == via)[:, None], distance, 0), axis=0)
        towards = tl.sum(tl.where((k == via)[None, :], distance, 0), axis=1)
        distance = tl.minimum(distance, towards[:, None] + onwards[None, :])

    gains = distance + marginal[None, :] - marginal[:, None] + step
    gain = tl.min(tl.min(gains, axis=1), axis=0)
    code = tl.where(gains == gain, k[:, None] * BLOCK_S + k[None, :], BLOCK_S * BLOCK_S)
    first = tl.min(tl.min(code, axis=1), axis=0)
    here = first // BLOCK_S
    target = first % BLOCK_S

    rest = tl.sum(tl.where((k == target)[None, :], distance, 0), axis=1)
    after = labels
    for _ in range(S - 1):
        ahead = tl.sum(tl.where((k == here)[:, None], arc, 0), axis=0) + rest
        shortest = tl.min(ahead, axis=0)
        following = tl.min(tl.where(ahead == shortest, k, BLOCK_S), axis=0)
        taken = (k == here)[:, None] & (k == following)[None, :]
        mover = tl.sum(tl.sum(tl.where(taken, item, 0), axis=1), axis=0)
        after = tl.where((i == mover) & (here != target), following, after)
        here = tl.where(here != target, following, here)
    return gain, after


@triton.jit
def _exchange_kernel(
    cost_ptr,
    labels_ptr,
    gain_ptr,
    exchanges_ptr,
    STEP: tl.constexpr,
    N: tl.constexpr,
    S: tl.constexpr,
    BLOCK_S: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BITS: tl.constexpr,
    SWEEPS: tl.constexpr,
    FAR: tl.constexpr,
):
    """cost [R, S, N] int64 -> labels [R, N], last gain [R], exchanges [R], all int64; program r solves problem r."""
    problem = tl.program_id(0).to(tl.int64)
    k = tl.arange(0, BLOCK_S)
    i = tl.arange(0, BLOCK_N)
    inside = (k < S)[:, None] & (i < N)[None, :]
    cost = tl.load(cost_ptr + problem * (S * N) + k[:, None] * N + i[None, :], mask=inside, other=FAR)
    step = tl.full([], STEP, tl.int64)

    labels = _cheapest(cost, N, BLOCK_S, BLOCK_N)
    gain, after = _best_exchange(cost, labels, step, S, BLOCK_S, BLOCK_N, FAR)
    if gain < 0:
        price = _prices(cost, step, N, S, BLOCK_S, BLOCK_N, BITS, SWEEPS, FAR)
        labels = _cheapest(cost + price[:, None], N, BLOCK_S, BLOCK_N)
        gain, after = _best_exchange(cost, labels, step, S, BLOCK_S, BLOCK_N, FAR)
    exchanges = tl.full([], 0, tl.int64)
    while (gain < 0) & (exchanges < N):  # N always suffice; the bound only keeps a fault from hanging
        labels = after
        exchanges += 1
        gain, after = _best_exchange(cost, labels, step, S, BLOCK_S, BLOCK_N, FAR)

    tl.store(labels_ptr + problem * N + i, labels.to(tl.int64), mask=i < N)
    tl.store(gain_ptr + problem, gain)
    tl.store(exchanges_ptr + problem, exchanges)


def fits(n: int, classes: int) -> bool:
    """Whether a problem of n items and S classes fits one program."""
    block_s, block_n = _blocks(n, classes)
    return block_s * block_n <= LARGEST_TILE and block_s <= 64


def solve(cost: Tensor, step: int, sweeps: int) -> tuple[Tensor, Tensor, Tensor]:
    """Solves a batch of integer problems as `solver` prepares them.

    Args: cost [R, S, n] int64 contiguous on CUDA, S >= 2, tie-broken and scaled; step, the scaled pair cost;
        sweeps of the price start.
    Returns: labels [R, n] int64, converged [R] bool, exchanges [R] int64.
    Raises: ValueError if a problem does not fit one program, or for a CPU tensor (Triton's interpreter takes one).
    """
    problems, classes, n = cost.shape
    if not cost.is_cuda and os.environ.get("TRITON_INTERPRET") != "1":
        raise ValueError(f"the triton solver needs CUDA tensors, found {cost.device}: use --solver torch")
    if not fits(n, classes):
        raise ValueError(
            f"{counted(n, 'item')} in {counted(classes, 'class', 'classes')} do not fit the triton solver: use --solver"
            " torch"
        )
    block_s, block_n = _blocks(n, classes)
    labels = torch.empty(problems, n, dtype=torch.int64, device=cost.device)
    gain = torch.empty(problems, dtype=torch.int64, device=cost.device)
    exchanges = torch.empty_like(gain)
    with torch.cuda.device_of(cost):  # triton launches on the current device
        _exchange_kernel[(problems,)](
            cost.contiguous(),
            labels,
            gain,
            exchanges,
            STEP=step,
            N=n,
            S=classes,
            BLOCK_S=block_s,
            BLOCK_N=block_n,
            BITS=(step * (n - 1)).bit_length(),
            SWEEPS=sweeps,
            FAR=FAR,
            num_warps=min(max(block_s * block_n // 512, 1), 16),
        )
    return labels, gain >= 0, exchanges


def _blocks(n: int, classes: int) -> tuple[int, int]:
    return max(triton.next_power_of_2(classes), 4), max(triton.next_power_of_2(n), 16)
