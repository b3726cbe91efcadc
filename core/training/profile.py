"""Where a training step's time goes, and the floor that it is compared with: `distk train METHOD --profile`.

The steps are profiled eagerly, so that each operation has a name; on CUDA the captured step is timed beside them. The
floor is what this machine could not go below with the same operations: their multiply-adds over the measured rate of a
large matrix product, or the bytes that they read and write over the measured bandwidth of a large copy, whichever takes
longer. Operations small enough to stay in a cache can beat the second, which is why both are shown.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, record_function
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from distk import console
from distk.device import Ranks, choose_device, describe
from distk.settings import Settings
from distk.training.beginning import build
from distk.training.trainer import Trainer

WARM, STEPS, SHOWN = 5, 20, 12
_LABEL = "distk: "


def profile(settings: Settings, steps: int = STEPS) -> dict[str, Any]:
    """Times of a step in milliseconds, by part and by operation, and its floor; plain values for JSON.

    Builds the run as `train` would, from its first step on, and keeps nothing of it.
    """
    device = choose_device(settings.train.device)
    train = dataclasses.replace(settings.train, capture="off", eval=(), keep="")
    trainer = build(dataclasses.replace(settings, train=train), device, Ranks())
    for _ in range(WARM):
        trainer.step()
    eager = _milliseconds(trainer.step, steps, device)
    found: dict[str, Any] = {
        "method": settings.entry.name,
        "data": trainer.dataset.name,
        "device": describe(device),
        "precision": train.precision,
        "batch": train.batch,
        "steps": steps,
        "step_ms": eager,
    }
    if device.type == "cuda":
        captured = build(settings, device, Ranks())
        if not captured.eager_because:
            for _ in range(WARM):
                captured.step()
            found["captured_step_ms"] = _milliseconds(captured.step, steps, device)
    found["floor"] = floor(trainer)
    best = found.get("captured_step_ms", eager)
    found["floor"]["times_floor"] = best / max(found["floor"]["floor_ms"], 1e-9)
    found |= _traced(trainer, steps, eager)
    return found


def _milliseconds(step: Callable[[], None], steps: int, device: torch.device) -> float:
    """Median over rounds of the time of a step, the device's queue drained around each round."""
    rounds = []
    for _ in range(5):
        _wait(device)
        began = time.perf_counter()
        for _ in range(max(1, steps // 5)):
            step()
        _wait(device)
        rounds.append(1000 * (time.perf_counter() - began) / max(1, steps // 5))
    return statistics.median(rounds)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


# Parts and operations


def _traced(trainer: Trainer, steps: int, eager: float) -> dict[str, Any]:
    _label(trainer)
    cuda = trainer.device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    with torch.profiler.profile(activities=activities) as tracer:
        began = time.perf_counter()
        for _ in range(steps):
            trainer.step()
        _wait(trainer.device)
        whole = 1000 * (time.perf_counter() - began) / steps
    parts: dict[str, float] = {}
    operations = []
    for event in tracer.key_averages():
        total = (event.device_time_total if cuda else event.cpu_time_total) / 1000 / steps
        own = (event.self_device_time_total if cuda else event.self_cpu_time_total) / 1000 / steps
        part = _part(event.key)
        if part:
            parts[part] = parts.get(part, 0.0) + total
        elif event.key.startswith("aten::") and own > 0:
            operations.append({"name": event.key[6:], "calls": event.count / steps, "ms": own, "share": own / whole})
    rows = [{"name": name, "ms": ms, "share": ms / whole} for name, ms in parts.items()]
    rest = max(0.0, whole - sum(parts.values()))
    rows.append({"name": "between them, and idle" if cuda else "between them", "ms": rest, "share": rest / whole})
    operations.sort(key=lambda row: -row["ms"])
    return {"traced_step_ms": whole, "tracing_costs": whole / eager - 1, "parts": rows, "operations": operations}


def _part(key: str) -> str:
    """The part of the step that a profiler's event stands for, or an empty string."""
    if key.startswith(_LABEL):
        return key.removeprefix(_LABEL)
    if key.startswith("autograd::engine::evaluate_function"):
        return "backward"
    return "optimizer" if key.startswith("Optimizer.step#") else ""


def _label(trainer: Trainer) -> None:
    """Give names to the batch and to every loss; backward passes and optimizers have their own."""

    def named(function: Callable[..., Any], name: str) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            with record_function(_LABEL + name):
                return function(*arguments)

        return call

    trainer.model.__dict__["collect"] = named(trainer.model.collect, "batch")
    for objective in trainer.objectives:
        objective.loss = named(objective.loss, "loss" if objective.name == "loss" else f"loss {objective.name}")


# The floor


class _Traffic(TorchDispatchMode):
    """Counts the bytes that operations read and write, each tensor once per operation; views move none."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        returned = [r.alias_info for r in func._schema.returns]
        if not (returned and all(alias is not None and not alias.is_write for alias in returned)):
            tensors = [t for t in tree_leaves((args, kwargs, made)) if isinstance(t, Tensor)]
            self.bytes += sum(t.numel() * t.element_size() for t in tensors)
        return made


def floor(trainer: Trainer) -> dict[str, float]:
    """Multiply-adds and bytes of one (real) step, the machine's rates, and the times that follow, in milliseconds."""
    with FlopCounterMode(display=False) as counter:
        trainer.step()
    with _Traffic() as traffic:
        trainer.step()
    work = counter.get_total_flops() / 2
    rate, width = matrix_rate(trainer.device, trainer.autocast or torch.float32), bandwidth(trainer.device)
    arithmetic, memory = 1000 * work / rate, 1000 * traffic.bytes / width
    return {
        "multiply_adds": work,
        "bytes": float(traffic.bytes),
        "multiply_adds_per_second": rate,
        "bytes_per_second": width,
        "arithmetic_ms": arithmetic,
        "memory_ms": memory,
        "floor_ms": max(arithmetic, memory),
    }


def matrix_rate(device: torch.device, dtype: torch.dtype = torch.float32) -> float:
    """Multiply-adds per second of a matrix product large enough to fill the device, the best of five."""
    n = 8192 if device.type == "cuda" else 1024
    a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
    return n**3 / _best(lambda: torch.mm(a, b), device)


def bandwidth(device: torch.device) -> float:
    """Bytes per second, read and written, of a copy far larger than any cache, the best of five."""
    n = 1 << (30 if device.type == "cuda" else 27)
    source, target = (torch.zeros(n, dtype=torch.uint8, device=device) for _ in range(2))
    return 2 * n / _best(lambda: target.copy_(source), device)


def _best(function: Callable[[], Any], device: torch.device) -> float:
    function()
    times = []
    for _ in range(5):
        _wait(device)
        began = time.perf_counter()
        function()
        _wait(device)
        times.append(time.perf_counter() - began)
    return min(times)


def show(found: dict[str, Any]) -> None:
    """Print the result of `profile` as tables."""
    number, under = console.number, found["floor"]
    captured = found.get("captured_step_ms")
    title = f"{found['method']} on {found['device']}, batch {found['batch']}: {number(found['step_ms'])} ms a step"
    title += f", {number(captured)} ms captured" if captured else ""
    columns = ("share", "ms")
    console.say(title)
    rows: list[tuple[Any, ...]] = [(row["name"], f"{row['share']:.0%}", row["ms"]) for row in found["parts"]]
    console.table("", ("part", *columns), rows)
    rows = [(row["name"], row["calls"], f"{row['share']:.0%}", row["ms"]) for row in found["operations"][:SHOWN]]
    console.say("\nThe operations that take most:")
    console.table("", ("operation", "calls", *columns), rows)
    rows = [
        (
            "multiply-adds",
            f"{under['multiply_adds'] / 1e9:.3g} G",
            f"{under['multiply_adds_per_second'] / 1e9:.3g} G/s",
            under["arithmetic_ms"],
        ),
        (
            "bytes moved",
            f"{under['bytes'] / 1e6:.3g} MB",
            f"{under['bytes_per_second'] / 1e9:.3g} GB/s",
            under["memory_ms"],
        ),
    ]
    console.say(f"\nfloor {number(under['floor_ms'])} ms; the step takes {number(under['times_floor'])} times as long")
    console.table("", ("what", "per step", "this machine", "ms"), rows)
