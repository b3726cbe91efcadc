"""The exact inner solver of CascadeVAE against independent references: brute force and scipy on expanded slots."""

from __future__ import annotations

import importlib.util
import itertools
import os
import resource
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from distk.plugins.vae_family.cascadevae import solver as mcf
from distk.plugins.vae_family.cascadevae.solver_bench import bench

PAIR_COSTS = (0.0, 1e-4, 1e-3, 0.05, 10.0)
KINDS = (1e-4, 1e-2, 0.5, 10.0, 100.0, "equal", "dominating")  # numbers are spreads in nats

cuda = [pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]
has_triton = importlib.util.find_spec("triton") is not None
needs_triton = pytest.mark.skipif(not has_triton, reason="triton is not installed")


def random_cost(n: int, classes: int, kind: float | str) -> Tensor:
    """[n, S] float32, nats, on an offset like that of a reconstruction cost."""
    if kind == "equal":
        return torch.full((n, classes), 123.456)
    if kind == "dominating":
        cost = 0.3 * torch.rand(n, classes)
        cost[:, torch.randint(classes, ())] -= 1.0
        return cost
    return 50.0 * torch.rand(n, 1) + kind * torch.rand(n, classes)


def slots(cost: Tensor, pair_cost: float) -> np.ndarray:
    """Section 4.2 of the sheet in plain numpy: an optimal class vector of the problem on the 1e-4 nat grid."""
    units = np.rint(cost.double().numpy() * 1e4)
    n, classes = units.shape
    columns = [units[:, k] + round(1e4 * pair_cost) * r for k in range(classes) for r in range(n)]
    return linear_sum_assignment(np.stack(columns, 1))[1] // n


def grid_value(cost: Tensor, labels: Tensor | np.ndarray, pair_cost: float) -> int:
    """F in units of 1e-4 nat by plain Python integers."""
    labels = np.asarray(labels)
    units = np.rint(cost.double().numpy() * 1e4)
    counts = [int((labels == k).sum()) for k in range(cost.shape[1])]
    chosen = sum(int(units[i, k]) for i, k in enumerate(labels))
    return chosen + round(1e4 * pair_cost) * sum(c * (c - 1) // 2 for c in counts)


def brute_force(cost: Tensor, price: Callable[[np.ndarray], float]) -> float:
    """min over every one-hot matrix d [n, S] of sum cost * d + price(d), in float64."""
    n, classes = cost.shape
    table = cost.double().numpy()
    matrices = (np.eye(classes)[list(labels)] for labels in itertools.product(range(classes), repeat=n))
    return min(float((table * d).sum() + price(d)) for d in matrices)


# --------------------------------------------------------------------------------- against brute force


@pytest.mark.parametrize("ordered", [True, False])
def test_pair_cost_is_twice_lambda_for_ordered_pairs_and_lambda_for_unordered(ordered: bool) -> None:
    for _ in range(12):
        n, classes = int(torch.randint(2, 6, ())), int(torch.randint(2, 4, ()))
        weight = int(torch.randint(0, 2000, ())) * 1e-4
        cost = (1e4 * torch.rand(n, classes)).round().double() / 1e4

        def literal(d: np.ndarray, weight: float = weight) -> float:
            pairs = [(i, j) for i in range(len(d)) for j in range(len(d)) if (i != j if ordered else i < j)]
            return weight * sum(float(d[i] @ d[j]) for i, j in pairs)

        pair_cost = 2 * weight if ordered else weight
        best = brute_force(cost, literal)
        for solver in ("torch", "scipy"):
            found = mcf.assign(cost, pair_cost, solver)
            assert float(mcf.objective(cost, found, pair_cost)) == pytest.approx(best, abs=1e-9)
        assert grid_value(cost, slots(cost, pair_cost), pair_cost) == round(1e4 * best)


def test_float_optimum_is_met_within_the_rounding_bound() -> None:
    for _ in range(60):
        n, classes = int(torch.randint(1, 7, ())), int(torch.randint(1, 5, ()))
        pair_cost = float(torch.rand(())) * 10 ** float(torch.randint(-2, 2, ())) + 1e-4
        cost = random_cost(n, classes, 10 ** float(torch.randint(-4, 3, ())))
        best = brute_force(cost, lambda d, c=pair_cost: c * float((d.sum(0) * (d.sum(0) - 1)).sum()) / 2)
        excess = float(mcf.objective(cost, mcf.assign(cost, pair_cost), pair_cost)) - best
        assert -1e-9 <= excess <= mcf.rounding_bound(n, pair_cost) + 1e-9


# ----------------------------------------------------------------------------------- against the slots


@pytest.mark.parametrize("classes", [1, 2, 3, 10, 16])
@pytest.mark.parametrize("n", [1, 2, 7, 64, 256])
def test_every_solver_equals_the_slots_reference(n: int, classes: int) -> None:
    cases = list(itertools.product(PAIR_COSTS, KINDS))
    if n * classes > 1024:  # the reference takes up to 0.2 s here
        cases = [cases[i] for i in torch.randperm(len(cases))[:14]]
    for pair_cost, kind in cases:
        cost = random_cost(n, classes, kind)
        best = grid_value(cost, slots(cost, pair_cost), pair_cost)
        scipy = mcf.assign(cost, pair_cost, "scipy")
        early = mcf.solve(cost, pair_cost, "torch", early_exit=True)
        fixed = mcf.solve(cost, pair_cost, "torch", early_exit=False, iterations=int(early.exchanges))
        assert grid_value(cost, scipy, pair_cost) == best, (pair_cost, kind)
        assert grid_value(cost, early.assignment, pair_cost) == best, (pair_cost, kind)
        assert int(mcf.grid_objective(cost, early.assignment, pair_cost)) == best
        assert torch.equal(fixed.assignment, early.assignment)
        assert torch.equal(fixed.exchanges, early.exchanges)
        assert bool(fixed.converged)
        assert bool(early.converged)


def test_argmin_is_the_ablation_and_optimal_only_without_a_pair_cost() -> None:
    cost = random_cost(64, 3, 0.05)
    cost[:, 0] -= 0.1  # all want class 0, and with a pair cost they must not all have it
    assert torch.equal(mcf.assign(cost, 1.0, "argmin"), cost.argmin(-1))
    assert not bool(mcf.solve(cost, 1.0, "argmin").converged)
    assert bool(mcf.solve((1e4 * cost).round() / 1e4, 0.0, "argmin").converged)


def test_batches_are_solved_problem_by_problem() -> None:
    cost = torch.stack([random_cost(30, 5, kind) for kind in (1e-3, 0.05, "equal", 1.0)]).view(2, 2, 30, 5)
    whole = mcf.solve(cost, 0.01, early_exit=True)
    assert whole.assignment.shape == (2, 2, 30)
    assert whole.converged.shape == whole.exchanges.shape == (2, 2)
    for row, column in itertools.product(range(2), range(2)):
        alone = mcf.solve(cost[row, column], 0.01, early_exit=False, iterations=30)
        assert torch.equal(alone.assignment, whole.assignment[row, column])
        assert int(alone.exchanges) == int(whole.exchanges[row, column])


# ------------------------------------------------------------------------------ the loop and its parts


def test_any_start_needs_at_most_n_exchanges_and_argmin_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    n, classes, pair_cost = 24, 4, 0.002
    cost = torch.stack([random_cost(n, classes, kind) for kind in (1e-4, 1e-2, 0.1, "equal", "dominating")])
    best = [grid_value(c, slots(c, pair_cost), pair_cost) for c in cost]

    def under_prices(start: Tensor) -> Callable[..., Tensor]:
        return lambda scaled, step, stop_early: (scaled + step * start).argmin(1)

    starts = {"argmin": torch.zeros(1, classes, 1, dtype=torch.int64)}
    starts |= {
        "random": torch.randint(-3 * n, 3 * n, (5, classes, 1)),
        "one class": torch.zeros(5, classes, 1).long(),
    }
    starts["one class"][:, 0] = -10_000
    for name, start in starts.items():
        monkeypatch.setattr(mcf, "_price_start", under_prices(start))
        enough = n - -(-n // classes) if name == "argmin" else n
        found = mcf.solve(cost, pair_cost, early_exit=False, iterations=enough)
        values = [grid_value(c, labels, pair_cost) for c, labels in zip(cost, found.assignment, strict=True)]
        assert bool(found.converged.all()), name
        assert values == best, name


def test_converged_says_when_the_fixed_loop_was_too_short() -> None:
    cost = torch.stack([random_cost(64, 10, 1e-3) for _ in range(8)])
    needed = mcf.solve(cost, 1e-3, early_exit=True).exchanges
    for length in range(int(needed.max()) + 1):
        found = mcf.solve(cost, 1e-3, early_exit=False, iterations=length)
        assert torch.equal(found.converged, needed <= length)
        assert torch.equal(found.exchanges, needed.clamp(max=length))


def _only_the_direct_move(labels: Tensor, graph: mcf._Residual) -> Tensor:
    classes = graph.arc.shape[1]
    item = graph.item.flatten(1).gather(1, graph.best[:, None])
    moved = labels.scatter(1, item, (graph.best % classes)[:, None])
    return torch.where(graph.gain[:, None] < 0, moved, labels)


def _stops_one_step_early(cost: Tensor, step: int, labels: Tensor) -> mcf._Residual:
    graph = RESIDUAL(cost, step, labels)
    return graph._replace(gain=graph.gain + step)


RESIDUAL = mcf._residual
MUTATIONS = {
    "no exchange": ("_exchange", lambda labels, graph: labels),
    "only the direct move": ("_exchange", _only_the_direct_move),
    "no shortest paths": ("_closure", lambda distance: distance),
    "marginal off by one": ("_residual", _stops_one_step_early),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_broken_exchange_step_is_noticed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cost = torch.stack([random_cost(64, 10, 0.05) for _ in range(20)])
    best = [grid_value(c, slots(c, 1e-3), 1e-3) for c in cost]

    def values() -> list[int]:
        found = mcf.assign(cost, 1e-3, "torch", early_exit=False)
        return [grid_value(c, labels, 1e-3) for c, labels in zip(cost, found, strict=True)]

    monkeypatch.setattr(mcf, "_price_start", lambda scaled, step, stop_early: scaled.argmin(1))
    assert values() == best
    monkeypatch.setattr(mcf, *MUTATIONS[name])
    assert values() != best


class NoHostRead(TorchDispatchMode):
    """Raises on the operators through which a tensor's contents reach Python or decide a shape."""

    BANNED = (
        "_local_scalar_dense",
        "item",
        "is_nonzero",
        "nonzero",
        "equal",
        "masked_select",
        "bincount",
        "unique",
    )

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.name().removeprefix("aten::").split(".")[0]
        masked = name in ("index", "index_put_", "index_put") and any(
            index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1]
        )
        if name.startswith(self.BANNED) or masked:
            raise AssertionError(f"host read: {func.name()}")
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("classes", [1, 2, 3, 10])
def test_the_fixed_loop_reads_nothing_back(classes: int) -> None:
    cost = random_cost(64, classes, 0.05)
    with NoHostRead():
        found = mcf.solve(cost, 1e-3, "torch", early_exit=False)
        mcf.assign(cost, 1e-3, "torch", early_exit=False)
        mcf.objective(cost, found.assignment, 1e-3)
        mcf.grid_objective(cost, found.assignment, 1e-3)
    if classes > 1:
        with pytest.raises(AssertionError, match="host read"), NoHostRead():
            mcf.solve(cost, 1e-3, "torch", early_exit=True)


# ---------------------------------------------------------------------------------- inputs at the edge


@pytest.mark.parametrize("solver", ["torch", "scipy", "argmin"])
def test_non_finite_costs_neither_hang_nor_raise(solver: mcf.Solver) -> None:
    for value in (float("nan"), float("inf"), float("-inf"), 3e38):
        for where in ((slice(None), slice(None)), (3, slice(None)), (3, 1), (slice(None), 0)):
            cost = random_cost(16, 4, 1.0)
            cost[where] = value
            for early_exit in (True, False):
                found = mcf.assign(cost, 0.01, solver, early_exit=early_exit)
                assert found.dtype == torch.int64
                assert found.min() >= 0
                assert found.max() < 4


def test_one_infinite_class_is_never_chosen() -> None:
    cost = random_cost(64, 3, 0.1)
    cost[:, 1] = float("inf")
    found = mcf.assign(cost, 1.0)
    rest = mcf.assign(cost[:, [0, 2]], 1.0)
    assert not (found == 1).any()
    assert mcf.objective(cost, found, 1.0) == mcf.objective(cost[:, [0, 2]], rest, 1.0)


def test_large_problems_keep_inside_int64() -> None:
    """The whole of dSprites in one batch gives up tie-breaking before it would overflow, and says when it must."""
    cost = torch.rand(200_000, 2)
    for pair_cost in (1e-3, 1e4):
        integers, step = mcf._integer_costs(cost[None], mcf.pair_units(pair_cost))
        assert int(integers.min()) >= 0
        assert 4 * int(integers.max()) < mcf.FAR // 2
        assert step * len(cost) < mcf.FAR // 2
    counts = mcf.assign(cost, 1e4).bincount(minlength=2)
    assert counts.tolist() == [100_000, 100_000]
    with pytest.raises(ValueError, match="overflow"):
        mcf.assign(cost, 1e12)


def test_costs_are_left_as_they_were() -> None:
    for n, dtype in itertools.product((1, 5), (torch.float32, torch.float64)):
        cost = torch.rand(n, 3, dtype=dtype)
        before = cost.clone()
        for solver in ("torch", "scipy", "argmin"):
            mcf.assign(cost, 0.1, solver)
            assert torch.equal(cost, before)


def test_dtypes_and_empty_batches() -> None:
    cost = torch.randint(0, 50, (20, 3)) / 2
    expected = mcf.assign(cost, 0.5)
    for dtype in (torch.float64, torch.bfloat16, torch.float16):
        assert torch.equal(mcf.assign(cost.to(dtype), 0.5), expected)
    assert torch.equal(mcf.assign(cost.requires_grad_(), 0.5), expected)
    assert torch.equal(mcf.assign(cost.detach().T.contiguous().T, 0.5), expected)
    assert mcf.assign(torch.rand(0, 3), 0.5).shape == (0,)
    assert mcf.solve(torch.rand(0, 5, 3), 0.5).converged.shape == (0,)


def test_unusable_arguments_are_named() -> None:
    cost = torch.rand(4, 2)
    for pair_cost, message in ((-1.0, "positive"), (float("nan"), "positive"), (2e-5, "grid")):
        with pytest.raises(ValueError, match=message):
            mcf.assign(cost, pair_cost)
    for wrong in (torch.zeros(4, 2, dtype=torch.int64), torch.rand(4), torch.rand(4, 0)):
        with pytest.raises(ValueError, match="cost must"):
            mcf.assign(wrong, 0.1)
    with pytest.raises(ValueError, match="unknown solver"):
        mcf.assign(cost, 0.1, "simplex")
    error, message = (ValueError, "needs CUDA") if has_triton else (ImportError, "pip install triton")
    with pytest.raises(error, match=message):
        mcf.assign(cost, 0.1, "triton")


def test_bench_rows_agree_on_the_objective() -> None:
    rows = bench(16, 3, 0.05, 1e-2, repeats=3, device="cpu")
    exact = [row for row in rows if row["solver"] != "argmin"]
    assert len({row["grid_objective"] for row in exact}) == 1
    assert len(rows) == 4
    assert rows[-1]["grid_objective"] > exact[0]["grid_objective"]
    assert all(row["median_ms"] > 0 and row["unconverged"] == 0 for row in exact)
    assert rows[0]["exchanges_max"] == rows[1]["exchanges_max"]
    assert rows[-1]["exchanges_max"] is None


# ------------------------------------------------------------------------------------- triton and CUDA

INTERPRETED = """
import torch
from distk.plugins.vae_family.cascadevae import solver as mcf
torch.manual_seed({seed})
for n, classes, spread, pair_cost in ((1, 2, 1, 0.1), (7, 3, 0.01, 1e-3), (33, 5, 1e-3, 1e-3), (20, 3, 1, 0)):
    cost = spread * torch.rand(2, n, classes)
    ours, kernel = (mcf.solve(cost, pair_cost, solver) for solver in ("torch", "triton"))
    assert all(torch.equal(a, b) for a, b in zip(ours, kernel)), (n, classes, spread, pair_cost)
"""
MANY = """
import torch
from distk.plugins.vae_family.cascadevae import solver as mcf
from distk.plugins.vae_family.cascadevae import solver_many
torch.manual_seed({seed})
for n, classes, slope, pair_cost in ((1, 65, 0, 0.1), (40, 70, 1, 0.05), (24, 100, 0, 1e-3), (20, 3, 1, 0.01)):
    cost = torch.rand(2, n, classes) + slope * torch.linspace(0, 1, classes)
    labels, converged, exchanges = solver_many.solve(*mcf._integer_costs(cost, mcf.pair_units(pair_cost)))
    best = mcf.solve(cost, pair_cost, "scipy").assignment
    values = [mcf.grid_objective(cost, found, pair_cost) for found in (labels, best)]
    assert bool(converged.all()) and torch.equal(*values), (n, classes, slope, pair_cost)
    assert int(exchanges.min()) > 0 or not slope
"""


@needs_triton
@pytest.mark.parametrize("program", [INTERPRETED, MANY], ids=["few classes", "many classes"])
def test_triton_kernels_in_the_interpreter_are_exact(program: str, seed: int) -> None:
    """The kernels' arithmetic without a GPU; the interpreter must be chosen before triton is imported."""
    roots = os.pathsep.join(sys.path)
    environment = os.environ | {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": roots}
    command = [sys.executable, "-c", program.format(seed=seed)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("solver", [pytest.param("triton", marks=[*cuda, needs_triton])])
@pytest.mark.parametrize("classes", [1, 2, 3, 10, 16])
@pytest.mark.parametrize("n", [1, 2, 7, 64, 256])
def test_triton_equals_the_slots_reference(n: int, classes: int, solver: mcf.Solver) -> None:
    for pair_cost in PAIR_COSTS:
        cost = torch.stack([random_cost(n, classes, kind) for kind in KINDS])
        found = mcf.solve(cost.cuda(), pair_cost, solver)
        assert bool(found.converged.all())
        few = range(len(KINDS)) if n * classes <= 1024 else torch.randperm(len(KINDS))[:2].tolist()
        for i in few:
            best = grid_value(cost[i], slots(cost[i], pair_cost), pair_cost)
            assert grid_value(cost[i], found.assignment[i].cpu(), pair_cost) == best, (pair_cost, KINDS[i])


@pytest.mark.cuda
@needs_triton
@pytest.mark.parametrize(("n", "classes"), [(1, 65), (64, 100), (64, 1024), (100, 4096), (700, 200)])
def test_many_classes_on_cuda_equal_the_host(n: int, classes: int) -> None:
    """Costs alike for all classes, and with a slope over them, so that classes crowd."""
    for pair_cost, slope in itertools.product((0.0, 1e-3, 0.05, 1.0), (0.0, 1.0)):
        cost = torch.rand(3, n, classes) + slope * torch.linspace(0, 1, classes)
        found = mcf.solve(cost.cuda(), pair_cost)
        best = mcf.solve(cost, pair_cost).assignment
        assert bool(found.converged.all())
        values = [mcf.grid_objective(cost, labels, pair_cost) for labels in (found.assignment.cpu(), best)]
        assert torch.equal(*values), (pair_cost, slope)


def test_a_solver_that_reads_from_the_device_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda_device, cpu = torch.device("cuda"), torch.device("cpu")
    assert mcf.reads_because("torch", 3, cpu) == mcf.reads_because("argmin", 3, cuda_device) == ""
    assert "solved by torch" in mcf.reads_because("torch", 3, cuda_device)
    monkeypatch.setattr(mcf.importlib.util, "find_spec", lambda name: None)
    assert "for lack of the package triton" in mcf.reads_because("auto", 3, cuda_device)


@pytest.mark.cuda
def test_without_triton_a_step_on_cuda_is_eager_and_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    from distk.device import Ranks
    from distk.settings import resolve
    from distk.training.beginning import build

    real = importlib.util.find_spec
    monkeypatch.setattr(mcf.importlib.util, "find_spec", lambda name: None if name == "triton" else real(name))
    options = {"model": {"warmup": 0, "relieve_every": 1}, "train": {"device": "cuda"}}
    trainer = build(resolve("cascadevae", preset="demo", options=options), torch.device("cuda"), Ranks())
    assert "for lack of the package triton" in trainer.eager_because
    for _ in range(3):
        trainer.step()
    trainer.check_health()


@pytest.mark.parametrize(
    ("solver", "classes"),
    [
        pytest.param("torch", 3, marks=cuda),
        pytest.param("triton", 3, marks=[*cuda, needs_triton]),
        pytest.param("triton", 100, marks=[*cuda, needs_triton]),
    ],
)
def test_a_captured_graph_follows_new_costs(solver: mcf.Solver, classes: int) -> None:
    static = random_cost(64, classes, 0.05).cuda()
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        mcf.solve(static, 1e-3, solver)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = mcf.solve(static, 1e-3, solver)
    for kind in KINDS:
        cost = random_cost(64, classes, kind)
        static.copy_(cost)
        graph.replay()
        best = grid_value(cost, slots(cost, 1e-3), 1e-3)
        assert bool(captured.converged)
        assert grid_value(cost, captured.assignment.cpu(), 1e-3) == best


@pytest.mark.parametrize(("n", "classes", "pair_cost"), [(20, 6, 0.3), (30, 30, 0.05), (12, 40, 1.0), (40, 3, 0.001)])
def test_the_solver_for_many_classes_finds_what_scipy_finds(seed, monkeypatch, n, classes, pair_cost) -> None:
    monkeypatch.setattr(mcf, "DENSE", 0)
    cost = torch.rand(3, n, classes, generator=torch.Generator().manual_seed(seed))
    found, reference = mcf.solve(cost, pair_cost), mcf.solve(cost, pair_cost, "scipy")
    assert found.converged.all()
    ours, theirs = (mcf.grid_objective(cost, one.assignment, pair_cost) for one in (found, reference))
    assert torch.equal(ours, theirs)
    with pytest.raises(ValueError, match="too many for a step"):
        mcf.solve(cost, pair_cost, early_exit=False)


@pytest.mark.parametrize("slope", [0.0, 1.0])
@pytest.mark.parametrize(("n", "classes"), [(7, 17), (64, 40), (400, 17), (20, 200), (3, 1024)])
def test_what_the_cpu_takes_for_many_classes_is_optimal_and_does_not_hang_on_the_way(seed, n, classes, slope) -> None:
    """Also where one class is everybody's, so that it starts under prices (400 items in 17 classes)."""
    generator = torch.Generator().manual_seed(seed)
    cost = 0.3 * torch.rand(2, n, classes, generator=generator) + slope * torch.linspace(0, 1, classes)
    found, reference = mcf.solve(cost, 0.05), mcf.solve(cost, 0.05, "scipy")
    assert found.converged.all()
    ours, theirs = (mcf.grid_objective(cost, one.assignment, 0.05) for one in (found, reference))
    assert torch.equal(ours, theirs)


def test_few_and_many_classes_take_their_own_way(monkeypatch) -> None:
    """The border is a matter of speed only."""
    cost, taken = torch.rand(30, mcf.FEW + 1), []
    sparing = mcf._sparing
    monkeypatch.setattr(mcf, "_sparing", lambda *given: taken.append(given) or sparing(*given))
    mcf.solve(cost[:, :-1], 0.05)
    assert not taken
    mcf.solve(cost, 0.05, early_exit=False)  # reads nothing, as on CUDA
    assert not taken
    found = mcf.solve(cost, 0.05)
    assert len(taken) == 1
    monkeypatch.setattr(mcf, "FEW", 1000)
    assert torch.equal(found.assignment, mcf.solve(cost, 0.05).assignment)


@pytest.mark.slow
def test_a_thousand_items_and_classes_fit_into_memory(seed) -> None:
    """At a price above every cost each class gets one item: an ordinary assignment, which scipy solves in O(n S)."""
    cost = torch.rand(1024, 1024, generator=torch.Generator().manual_seed(seed))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = mcf.solve(cost, 2.0)
    # KiB: a graph of n S S moves would take 8 GiB, that of S S arcs takes 8 MiB an array
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 20
    assert bool(found.converged)
    units = (cost.double() * mcf.UNITS_PER_NAT).round()
    rows, columns = linear_sum_assignment(units.numpy())
    assert int(mcf.grid_objective(cost, found.assignment, 2.0)) == int(units[rows, columns].sum())
