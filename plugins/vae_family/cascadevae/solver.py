"""The inner problem of CascadeVAE, solved exactly: one class per item, with a price on crowded classes.

Jeong & Song, "Learning Discrete and Continuous Factors of Data via Alternating Disentanglement" (ICML 2019)
choose the discrete codes of a batch by min-cost flow. With n_k the members of class k, this module minimises

    F(a) = sum_i cost[i, a_i] + L sum_k n_k (n_k - 1) / 2          (nats)

over all class vectors a. L is `pair_cost`; the paper's lambda' is L / 2 if its sum over i != j counts ordered
pairs and L if it counts unordered ones. The k-th member of a class costs L (k - 1) at the margin, so F is a flow
with unit arcs class -> sink of cost 0, L, 2L, ... (the network of the authors' released code).

How it is solved, in integers throughout (1 unit = 1e-4 nat, the authors' grid):

1. quantise, subtract each row's minimum, clip (`_integer_costs` says why the clip loses nothing), break ties;
2. start from argmin; where that is not optimal, from argmin under class prices found by coordinate ascent of the
   concave dual. For any prices, argmin(cost + price) is a cheapest assignment *for its own class counts*;
3. while an exchange (class s loses a member, class t gains one, items shifting along a shortest path s -> t)
   lowers F, make the best one. Shortest paths keep the assignment cheapest for its counts, and every residual
   cycle through the sink is one exchange, so "no exchange gains" means "no negative cycle": optimal. F as a
   function of the counts is M-convex and the steepest exchange is taken, so at most n exchanges are made.

The same tensor code runs with an early exit (CPU), or as a fixed number of masked exchanges with static shapes and
without host reads (CUDA graphs); both give the same assignment. `solver_triton` does it in one launch. For more than
`FEW` classes the CPU looks for the cheapest paths only (`_sparing`), and CUDA, where a problem does not fit
`solver_triton`, in one launch (`solver_many`): another assignment can come of that only where several are optimal.
"""

from __future__ import annotations

import importlib.util
import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from distk.console import counted

Solver = Literal["auto", "torch", "triton", "scipy", "argmin"]

UNITS_PER_NAT = 10_000
SWEEPS = 3  # price sweeps over the classes; more of them replace few exchanges
FAR = 1 << 61  # "no such arc": two of them still fit int64, and no real path comes near one
CROWDED = 16  # items a class from which on a start under prices saves more exchanges than it costs
DENSE = 1 << 24  # entries n S S up to which the residual graph is built at once, and all paths are kept
FEW = 16  # classes up to which that is the faster way on a CPU, measured with benchmarks/solver.py
_LARGEST = 1 << 59  # bound on every real path length and gain, so that FAR minus a path stays far


class Solution(NamedTuple):
    """What a solver found. Leading dimensions are those of the cost.

    assignment: [..., n] int64, the class of each item.
    converged: [...] bool, true where the assignment is proven optimal on the 1e-4 nat grid.
    exchanges: [...] int64, the number of exchanges after the start (0 for scipy and argmin, which make none).
    """

    assignment: Tensor
    converged: Tensor
    exchanges: Tensor


def assign(
    cost: Tensor,
    pair_cost: float,
    solver: Solver = "auto",
    *,
    early_exit: bool | None = None,
) -> Tensor:
    """The optimal class of every item: `solve` with as many iterations as guarantee the optimum.

    Args: as `solve`. Returns: [..., n] int64. Raises: as `solve`.
    """
    _check(cost)
    return solve(cost, pair_cost, solver, iterations=cost.shape[-2], early_exit=early_exit).assignment


@torch.no_grad()
def solve(
    cost: Tensor,
    pair_cost: float,
    solver: Solver = "auto",
    *,
    iterations: int | None = None,
    early_exit: bool | None = None,
) -> Solution:
    """Minimises F over the class vectors of every problem in a batch.

    Args:
        cost: [..., n, S] floating, nats. A row that holds NaN or -inf counts as indifferent between its classes;
            +inf is never chosen beside a finite entry. None of them hangs or raises: report the non-finite loss
            where the cost was made.
        pair_cost: L >= 0, nats; rounded to the grid (half to even).
        solver: "auto" is triton on CUDA where it is installed, up to 4,096 classes, else torch.
            "scipy" is the host reference, "argmin" the ablation that ignores L.
        iterations: length of the fixed loop (torch without early exit). None is `default_iterations(n)`, which may
            fall short (`converged` tells); n never does.
        early_exit: torch only. True reads the gains on the host and stops when done; False never reads and runs
            all iterations. None is True on CPU and False elsewhere (a whole data set on CUDA: pass True).

    Returns: Solution. F of the assignment is within `rounding_bound` of the float optimum.

    Raises: ValueError for shapes, dtypes or a pair_cost that cannot be used; ImportError if triton is asked for
        and missing.
    """
    _check(cost)
    step = pair_units(pair_cost)
    n, classes = cost.shape[-2:]
    name = automatic(classes, cost.device) if solver == "auto" else solver
    batch = cost.shape[:-2]
    flat = cost.detach().reshape(math.prod(batch), n, classes)
    if cost.numel() == 0 or classes == 1:
        none = torch.zeros(flat.shape[0], dtype=torch.int64, device=cost.device)
        found = Solution(none[:, None].expand(-1, n).clone(), none == 0, none)
    elif name == "scipy":
        found = _solve_scipy(flat, step)
    elif name == "argmin":
        labels = flat.argmin(-1)
        graph = _residual(*_integer_costs(flat, step, break_ties=False), labels)
        found = Solution(labels, graph.gain >= 0, torch.zeros_like(graph.gain))
    elif name == "triton":
        if importlib.util.find_spec("triton") is None:
            raise ImportError("the triton solver needs the package triton: pip install triton, or use torch")
        from distk.plugins.vae_family.cascadevae import solver_many, solver_triton

        problem = _integer_costs(flat, step)
        if solver_triton.fits(n, classes):
            found = Solution(*solver_triton.solve(*problem, sweeps=SWEEPS))
        else:
            found = Solution(*solver_many.solve(*problem))
    elif name == "torch":
        quick = cost.device.type == "cpu" if early_exit is None else early_exit
        length = default_iterations(n) if iterations is None else iterations
        problem = _integer_costs(flat, step)
        if n * classes * classes > DENSE or (quick and classes > FEW and cost.device.type == "cpu"):
            found = _sparing(*problem, quick)
        else:
            found = _early_exit(*problem) if quick else _fixed(*problem, length)
    else:
        raise ValueError(f"unknown solver {solver!r}: use auto, torch, triton, scipy or argmin")
    return Solution(found[0].view(*batch, n), found[1].view(batch), found[2].view(batch))


def objective(cost: Tensor, assignment: Tensor, pair_cost: float) -> Tensor:
    """F(a) in nats, without rounding. cost [..., n, S] floating, assignment [..., n] int64 -> [...] float64."""
    chosen = cost.double().gather(-1, assignment.unsqueeze(-1)).squeeze(-1).sum(-1)
    return chosen + pair_cost * _pairs(assignment, cost.shape[-1]).double()


def grid_objective(cost: Tensor, assignment: Tensor, pair_cost: float) -> Tensor:
    """F(a) on the grid that the solvers minimise on, in units of 1e-4 nat. Shapes as `objective` -> [...] int64."""
    chosen = cost.gather(-1, assignment.unsqueeze(-1)).squeeze(-1)
    units = (chosen.double() * UNITS_PER_NAT).round().long().sum(-1)
    return units + pair_units(pair_cost) * _pairs(assignment, cost.shape[-1])


def rounding_bound(n: int, pair_cost: float) -> float:
    """By how much F of a grid optimum can exceed the float optimum, nats: both assignments are misjudged by at most
    half a unit per item, and their pair counts differ by at most n (n - 1) / 2."""
    off_grid = abs(pair_cost - pair_units(pair_cost) / UNITS_PER_NAT)
    return n / UNITS_PER_NAT + off_grid * n * (n - 1) / 2


def default_iterations(n: int) -> int:
    """Length of the fixed loop for n items: n // 4, or 8 if that is more; never above n, which always suffices."""
    return min(n, max(8, n // 4))


def pair_units(pair_cost: float) -> int:
    """L on the grid. Raises ValueError for a negative or non-finite L, and for one that would silently vanish."""
    if not 0 <= pair_cost < float("inf"):
        raise ValueError(f"pair_cost must be zero or a positive number of nats, found {pair_cost}")
    units = round(pair_cost * UNITS_PER_NAT)
    if units == 0 and pair_cost > 0:
        raise ValueError(f"pair_cost {pair_cost} is below the grid of 1e-4 nat: use 0, or 1e-4 and more")
    return units


def _check(cost: Tensor) -> None:
    if cost.dim() < 2 or not cost.is_floating_point():
        raise ValueError(f"cost must be floating [..., n, S], found {cost.dtype} {list(cost.shape)}")
    if cost.shape[-1] < 1:
        raise ValueError("cost must have at least one class")


def automatic(classes: int, device: torch.device) -> Solver:
    if device.type != "cuda" or importlib.util.find_spec("triton") is None:
        return "torch"
    from distk.plugins.vae_family.cascadevae import solver_many

    return "triton" if solver_many.fits(classes) else "torch"


def reads_because(solver: str, classes: int, device: torch.device) -> str:
    """Why solving reads from the device, where it is better that it does; else an empty string.

    Without Triton a loop that never reads makes as many exchanges as could be needed, 3,000 small operations for 64
    items, where a few are; asking after each whether another one gains stops after those.
    """
    name = automatic(classes, device) if solver == "auto" else solver
    if device.type != "cuda" or name not in ("torch", "scipy"):
        return ""
    missing = ", for lack of the package triton" if importlib.util.find_spec("triton") is None else ""
    return f"the inner problem is solved by {name}{missing}, which asks after each exchange whether another one gains"


def _pairs(assignment: Tensor, classes: int) -> Tensor:
    """Unordered pairs of items that share a class: [..., n] -> [...] int64."""
    labels = torch.arange(classes, device=assignment.device)
    counts = (assignment.unsqueeze(-1) == labels).sum(-2)
    return (counts * (counts - 1) // 2).sum(-1)


# ------------------------------------------------------------------------------------- integer problem


def _integer_costs(cost: Tensor, step: int, break_ties: bool = True) -> tuple[Tensor, int]:
    """The tie-broken integer problem: cost [R, n, S] nats, step = L in units -> ([R, S, n] int64, scaled step).

    Clip: an item in class k whose excess over its row minimum is above step (n - 1) gains by moving to that
    minimum, since no marginal exceeds step (n - 1). So no optimum uses such an entry, before or after clipping
    all of them to step n + 1, and both problems have the same optima.
    Ties: integers are multiplied by 256 n and a fixed number in [0, 255] is added to every entry. All n of them
    together stay below one unit, so each optimum of the new problem is one of the old; near-tied batches then
    need far fewer exchanges. The further factor S makes room to count hops (see `_residual`).
    """
    n, classes = cost.shape[1:]
    bound = step * n + 1
    longest = (classes + 2) * classes * (bound + 1)  # a path, or a gain, in scaled units
    if longest > _LARGEST or bound > 1 << 53:
        nats = step / UNITS_PER_NAT
        raise ValueError(f"{counted(n, 'item')} with a pair cost of {nats} nats overflow the 64-bit solver")
    ties = 256 * n if break_ties and 256 * n * longest <= _LARGEST else 1  # only a speed-up
    units = cost.mT.double().mul(UNITS_PER_NAT).contiguous().round_()  # mul_ could write to the input
    excess = units.sub_(units.amin(1, keepdim=True)).nan_to_num_(nan=bound).clamp_(max=bound).long()
    if ties > 1:
        table = torch.arange(classes * n, device=cost.device).square_()  # squared: class gaps differ by item
        table = table.mul_(40503).bitwise_right_shift_(8).bitwise_and_(255).view(classes, n)
        excess.mul_(ties).add_(table)
    return excess.mul_(classes), step * ties * classes


# --------------------------------------------------------------------------------- start and exchanges


def _price_start(cost: Tensor, step: int, stop_early: bool) -> Tensor:
    """Assignment [R, n] under prices from exact coordinate ascent of the dual; cost [R, S, n].

    With the other prices fixed, wish_i = (cheapest other class) - cost_i is the most that item i pays for class b.
    The smallest optimal price is where the wishes, sorted downwards, cross the marginals 0, step, 2 step, ...:
    max over j of min(wish_(j), step (j - 1)), and at least 0. All prices start at the marginal of a balanced
    assignment: from 0, near-tied batches would need about n (1 - 1/S) exchanges.
    """
    rows, classes, n = cost.shape
    price = cost.new_full((rows, classes, 1), step * (n // classes))
    marginals = torch.arange(n, device=cost.device).mul_(step)
    for _ in range(SWEEPS):
        before = price.clone() if stop_early else price
        for b in range(classes):
            others = cost + price
            others[:, b] = FAR
            wish = (others.amin(1) - cost[:, b]).sort(-1, descending=True).values
            price[:, b, 0] = torch.minimum(wish, marginals).amax(-1).clamp_(min=0)
        if stop_early and torch.equal(before, price):
            break
    return (cost + price).argmin(1)


class _Residual(NamedTuple):
    """Class-level residual graph of an assignment, and its best exchange.

    arc: [R, S, S] int64, arc[s, t] = cheapest move of one item from s to t, plus 1 for the hop.
    item: [R, S, S] int64, the item that makes that move.
    distance: [R, S, S] int64, shortest path lengths over the arcs.
    gain: [R] int64, change of F (scaled units plus hops) by the best exchange; negative if and only if F falls.
    best: [R] int64, that exchange as s * S + t.
    """

    arc: Tensor
    item: Tensor
    distance: Tensor
    gain: Tensor
    best: Tensor


def _residual(cost: Tensor, step: int, labels: Tensor) -> _Residual:
    """Builds the residual graph of labels [R, n] for cost [R, S, n].

    All costs are multiples of S and a shortest path has at most S - 1 hops, so counting one per hop changes no
    comparison between different lengths. It makes every cycle positive: ties between paths go to the fewest hops,
    and following next hops cannot run in circles. (s, s) is never chosen: its gain is step times max(n_s, 1) or 0.
    """
    classes = torch.arange(cost.shape[1], device=cost.device)
    member = labels[:, None, :] == classes[:, None]
    moves = cost - cost.gather(1, labels[:, None, :])
    arc, item = torch.where(member[:, :, None, :], moves[:, None], FAR).min(-1)
    arc += 1
    distance = _closure(arc.masked_fill(classes[:, None] == classes, 0))
    last = member.sum(-1) * step  # the marginal of one more member; one step less for the present last one
    gain, best = (distance + (last[:, None, :] - last[:, :, None] + step)).flatten(1).min(1)
    return _Residual(arc, item, distance, gain, best)


def _closure(distance: Tensor) -> Tensor:
    """All-pairs shortest paths of [R, S, S] with zero diagonal, by min-plus squaring (S - 1 hops at most)."""
    for _ in range(max(distance.shape[1] - 2, 0).bit_length()):
        distance = (distance[:, :, :, None] + distance[:, None]).amin(2)
    return distance


def _exchange(labels: Tensor, graph: _Residual) -> Tensor:
    """Makes the best exchange where it gains: labels [R, n] -> [R, n]. Masks only, no scatter: the order of writes
    cannot matter."""
    _rows, classes, _ = graph.arc.shape
    n = labels.shape[1]
    ids = torch.arange(max(classes, n), device=labels.device)
    target = (graph.best % classes)[:, None]
    here = torch.where(graph.gain[:, None] < 0, (graph.best // classes)[:, None], target)
    rest = graph.distance.gather(2, target[:, :, None].expand(-1, classes, -1))  # [R, S, 1], left to t
    following = (graph.arc + rest.mT).argmin(-1)  # [R, S], the next class towards t
    following = torch.where(ids[:classes] == target, target, following)
    path = [here]
    for _ in range(classes - 2):
        path.append(following.gather(1, path[-1]))
    leaves = (torch.cat(path, 1)[:, :, None] == ids[:classes]).any(1) & (ids[:classes] != target)
    mover = graph.item.gather(2, following[:, :, None])[:, :, 0].masked_fill(~leaves, -1)
    return torch.where(mover.gather(1, labels) == ids[:n], following.gather(1, labels), labels)


def _early_exit(cost: Tensor, step: int) -> Solution:
    """Stops as soon as no problem of the batch gains; terminates because the integer F falls with every pass."""
    labels = cost.argmin(1)
    graph = _residual(cost, step, labels)
    exchanges = torch.zeros_like(graph.gain)
    if (graph.gain < 0).any():
        labels = torch.where(graph.gain[:, None] < 0, _price_start(cost, step, stop_early=True), labels)
        graph = _residual(cost, step, labels)
        while (improves := graph.gain < 0).any():
            labels = _exchange(labels, graph)
            exchanges += improves
            graph = _residual(cost, step, labels)
    return Solution(labels, graph.gain >= 0, exchanges)


def _sparing(cost: Tensor, step: int, quick: bool) -> Solution:
    """As `_early_exit`, one problem after the other, in memory O(n S): for many classes.

    Arcs are gathered item by item, out of classes with members only, and of all paths only the cheapest into each
    class are looked for (Bellman-Ford from all classes at once, class s at the price of what it saves by losing a
    member).
    Raises ValueError where the host must not be asked.
    """
    if not quick:
        raise ValueError(
            f"{counted(cost.shape[2], 'item')} and {counted(cost.shape[1], 'class', 'classes')} are too many for a step"
            " that never reads from the device: train on the CPU, or with fewer classes"
        )
    found = [_spared(one, step) for one in cost.split(1)]
    return Solution(*(torch.cat(parts) for parts in zip(*found, strict=True)))


def _spared(cost: Tensor, step: int) -> Solution:
    """`_sparing` for one problem, cost [1, S, n]."""
    labels, exchanges, (classes, n) = cost.argmin(1), 0, cost.shape[1:]
    priced = n < CROWDED * classes  # a start under prices is dear where there are many classes
    while True:
        left, arc, item = _arcs(cost[0], labels[0])
        last = torch.bincount(labels[0], minlength=arc.shape[1]) * step
        paid, before = -last, torch.full_like(last, -1)
        while True:
            reached, source = (paid[left, None] + arc).min(0)
            shorter = reached < paid
            if not bool(shorter.any()):
                break
            paid, before = torch.where(shorter, reached, paid), torch.where(shorter, source, before)
        gain, target = (paid + last + step).min(0)
        if bool(gain >= 0) or exchanges > n:
            done = gain >= 0
            return Solution(labels, done.view(1), torch.full_like(done.view(1), exchanges, dtype=torch.int64))
        if not priced:
            labels, priced = _price_start(cost, step, stop_early=True), True
            continue
        t = int(target)
        while (s := int(before[t])) >= 0:
            labels[0, item[s, t]] = t
            t = int(left[s])
        exchanges += 1


def _arcs(cost: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The m <= n classes that have members, and `arc` and `item` of `_Residual` out of them, for one problem: cost
    [S, n], labels [n] -> [m], [m, S], [m, S] int64."""
    classes, n = cost.shape
    left, owner = labels.unique(return_inverse=True)
    moves, owner = cost - cost.gather(0, labels[None]), owner.expand(classes, n)
    arc = cost.new_full((classes, len(left)), FAR).scatter_reduce_(1, owner, moves, "amin")
    cheapest = moves == arc.gather(1, owner)
    places = torch.where(cheapest, torch.arange(n, device=cost.device), n)
    item = places.new_full((classes, len(left)), n).scatter_reduce_(1, owner, places, "amin")
    return left, arc.T + 1, item.T


def _fixed(cost: Tensor, step: int, iterations: int) -> Solution:
    """The same route with static shapes and no host read; done problems are masked."""
    labels = cost.argmin(1)
    graph = _residual(cost, step, labels)
    labels = torch.where(graph.gain[:, None] < 0, _price_start(cost, step, stop_early=False), labels)
    graph = _residual(cost, step, labels)
    exchanges = torch.zeros_like(graph.gain)
    for _ in range(iterations):
        labels = _exchange(labels, graph)
        exchanges += graph.gain < 0
        graph = _residual(cost, step, labels)
    return Solution(labels, graph.gain >= 0, exchanges)


def _solve_scipy(cost: Tensor, step: int) -> Solution:
    """Host reference: class k becomes n slots that cost 0, step, 2 step, ... more; a linear assignment over the
    n S slots is then the flow. Unclipped and not tie-broken; float64 is exact below 2^53 units."""
    from scipy.optimize import linear_sum_assignment

    n = cost.shape[1]
    units = (cost.double().cpu() * UNITS_PER_NAT).round()
    far = max(1 << 40, step * n + 1)
    excess = (units - units.amin(2, keepdim=True)).nan_to_num(nan=step * n + 1, posinf=far).clamp(max=far)
    slots = excess[:, :, :, None] + step * torch.arange(n, dtype=torch.float64)
    columns = [linear_sum_assignment(problem.flatten(1).numpy())[1] for problem in slots]
    labels = torch.stack([torch.from_numpy(column) // n for column in columns]).to(cost.device)
    return Solution(labels, torch.ones_like(labels[:, 0], dtype=torch.bool), torch.zeros_like(labels[:, 0]))
