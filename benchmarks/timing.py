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
    """The step as one would write it without a toolkit. Objectives of a stage that train the same parameters share one
    backward pass over the sum of their losses; others take each the gradients of its own parameters, since their losses
    have no business in those of the others. On a CPU it goes through the run's phases, schedules and shapes of batches
    as the trainer does; on a GPU, where it is captured once, it stays in the first step's."""
    model, generator, seed = trainer.model, trainer.generator, trainer.config.seed
    moving, at = generator.device.type == "cpu", 0
    objectives = trainer.objectives
    steppers = {id(o): o.optimizer(list(o.parameters)) for o in objectives if o.optimizer is not None}
    named = {o.name: steppers[id(o)] for o in objectives if id(o) in steppers}
    parameters = list(model.parameters())
    index = torch.zeros((), dtype=torch.long, device=generator.device)
    values: dict[str, torch.Tensor] = {}
    known: dict[str, Any] = {}

    def follow() -> None:
        """What the run's schedule says of this step."""
        for name, value in model.schedule(at).items():
            if name not in known or not torch.equal(torch.as_tensor(known[name]), torch.as_tensor(value)):
                known[name] = value
                values[name] = torch.as_tensor(value, dtype=torch.float32).to(generator.device)

    def loss_of(objective: Objective, made: Step) -> torch.Tensor:
        with torch.autocast(generator.device.type, torch.bfloat16, enabled=trainer.autocast is not None):
            loss = objective.loss(made)
            return loss if trainer.penalties is None else trainer.penalties.added(loss, objective.name, made)

    def step() -> None:
        nonlocal at
        model.before_step(at, named)
        follow()
        made = Step(
            index=index,
            schedule=values,
            phase=model.phase(at),
            generator=generator,
            log=lambda name, value: None,
            draw=trainer._draw,
        )
        source = Source(trainer.dataset, trainer.config.batch, generator, bucket=trainer.dataset.bucket(at, seed))
        stages = [active for stage in trainer.stages if (active := [o for o in stage if o.active(at)])]
        made.batch = {} if all(stage[0].fresh_batch for stage in stages) else model.collect(source)
        for stage in stages:
            for _ in range(stage[0].updates):
                if stage[0].fresh_batch:
                    made.batch = trainer._fresh(source, stage[0].name)
                for parameter in parameters:
                    parameter.grad = None
                if alike(stage):
                    torch.stack([loss_of(o, made) for o in stage]).sum().backward()
                else:
                    for one in stage:
                        loss_of(one, made).backward(inputs=list(one.parameters), retain_graph=one is not stage[-1])
                for one in stage:
                    if one.optimizer is None:
                        continue
                    if one.clip is not None:
                        torch.nn.utils.clip_grad_norm_(one.parameters, one.clip)
                    steppers[id(one)].step()
                    if one.after is not None:
                        with torch.no_grad():
                            one.after()
        if moving:
            at += 1
            index.add_(1)

    return step


def alike(stage: list[Objective]) -> bool:
    """Whether the objectives of a stage train the same parameters."""
    return len({frozenset(map(id, one.parameters)) for one in stage}) == 1


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
