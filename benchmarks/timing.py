"""What benchmarks of steps share: wall time, and the step of a method without a toolkit around it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

from distk.method import Objective, Step
from distk.source import Source
from distk.training.trainer import Trainer


def bare_loop(trainer: Trainer) -> Callable[[], None]:
    """The step as one would write it without a toolkit: consecutive objectives of a stage share one backward pass where
    they train the same parameters, and take each its own gradients where they are players against each other. What is
    active in the first step is trained."""
    model, generator = trainer.model, trainer.generator
    stages: list[list[Objective]] = []
    for one in (o for o in model.objectives() if o.active(0)):
        joined = stages and one.stage is not None and stages[-1][0].stage == one.stage
        stages[-1].append(one) if joined else stages.append([one])
    steppers = {id(o): o.optimizer(list(o.parameters)) for stage in stages for o in stage if o.optimizer is not None}
    parameters = list(model.parameters())
    source = Source(trainer.dataset, trainer.config.batch, generator, bucket=trainer.dataset.bucket(0, 0))
    index = torch.zeros((), dtype=torch.long, device=generator.device)
    values = {
        name: torch.as_tensor(value, dtype=torch.float32).to(generator.device)
        for name, value in model.schedule(0).items()
    }

    def loss_of(objective: Objective, made: Step) -> torch.Tensor:
        with torch.autocast(generator.device.type, torch.bfloat16, enabled=trainer.autocast is not None):
            return objective.loss(made)

    def step() -> None:
        model.before_step(0, {})
        made = Step(
            index=index,
            schedule=values,
            phase=model.phase(0),
            generator=generator,
            log=lambda name, value: None,
            draw=trainer._draw,
        )
        made.batch = {} if all(stage[0].fresh_batch for stage in stages) else model.collect(source)
        for stage in stages:
            for _ in range(stage[0].updates):
                if stage[0].fresh_batch:
                    made.batch = trainer._fresh(source, stage[0].name)
                for parameter in parameters:
                    parameter.grad = None
                if against(stage):
                    losses = [loss_of(o, made) for o in stage]
                    for one, loss in zip(stage, losses, strict=True):
                        own = list(one.parameters)
                        given = torch.autograd.grad(loss, own, retain_graph=one is not stage[-1], allow_unused=True)
                        for parameter, gradient in zip(own, given, strict=True):
                            parameter.grad = gradient
                else:
                    torch.stack([loss_of(o, made) for o in stage]).sum().backward(retain_graph=True)
                for one in stage:
                    if one.optimizer is None:
                        continue
                    if one.clip is not None:
                        torch.nn.utils.clip_grad_norm_(one.parameters, one.clip)
                    steppers[id(one)].step()
                    if one.after is not None:
                        one.after()

    return step


def against(stage: list[Objective]) -> bool:
    """Whether the objectives of a stage train parameters apart from each other's."""
    named = [{id(p) for p in one.parameters} for one in stage]
    return all(not first & other for i, first in enumerate(named) for other in named[:i])


def graphed(step: Callable[[], object], trainer: Trainer) -> Callable[[], object]:
    """The step as a CUDA graph, after eager ones on a side stream; on a CPU the step itself."""
    if trainer.device.type != "cuda":
        return step
    side = torch.cuda.Stream(trainer.device)
    side.wait_stream(torch.cuda.current_stream(trainer.device))
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream(trainer.device).wait_stream(side)
    graph: Any = torch.cuda.CUDAGraph()
    graph.register_generator_state(trainer.generator)
    with torch.cuda.graph(graph, stream=side):
        step()
    return graph.replay


def kernels(step: Callable[[], object]) -> int:
    """Kernels of one step on CUDA, those of a replayed graph, too; copies and fillings are not counted."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as traced:
        step()
        torch.cuda.synchronize()
    on_device = [e for e in traced.events() if e.device_type == torch.autograd.DeviceType.CUDA]
    return sum(not e.name.startswith(("Memcpy", "Memset")) for e in on_device)


def busy_seconds(work: Callable[[], object], times: int, device: torch.device) -> float:
    """As `seconds`; on a CPU the time that this process itself was at work, whatever else ran."""
    if device.type != "cpu":
        return seconds(work, times, device)
    began = time.process_time()
    for _ in range(times):
        work()
    return time.process_time() - began


def seconds(work: Callable[[], object], times: int, device: torch.device) -> float:
    """Wall seconds of so many calls, the device's queue drained at both ends."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(times):
        work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began
