"""The loop: one step is the method's objectives in order; the rest is logging, checkpoints and stopping cleanly.

Nothing in a step reads a value back to the host. Losses and logged terms are summed on the device and read every
`log_every` steps. On CUDA a step is captured as a graph, once per (phase, active objectives, bucket).
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from distk.config import option
from distk.console import warn
from distk.data import Dataset, Source
from distk.device import Ranks, seeded, set_precision
from distk.errors import DistkError, UsageError
from distk.method import Method, Objective, Step

WARMUP = 3
"""Eager steps before a step is captured: optimizers and libraries allocate their state in them."""


@dataclass(frozen=True)
class TrainConfig:
    """Settings of the trainer."""

    steps: int = option(10_000, "training steps", min=0)
    batch: int = option(64, "items per batch", min=1)
    seed: int = option(0, "seed of initialisation, batches and noise", min=0, max=2**62)
    device: str = option("auto", "auto, cpu, cuda or cuda:N")
    precision: Literal["fp32", "tf32", "bf16"] = option("fp32", "arithmetic of the networks")
    log_every: int = option(100, "steps between rows of log.jsonl", min=1)
    checkpoint_every: int = option(0, "steps between checkpoints; 0 means ten over the run", min=0)
    eval: tuple[str, ...] = option((), "metrics to score while training, comma-separated or repeated")
    eval_every: int = option(0, "steps between scorings; 0 means at the end only", min=0)
    keep: str = option("", "best:METRIC keeps best.safetensors by that metric")
    capture: Literal["auto", "on", "off"] = option("auto", "capture the step as a CUDA graph")
    on_nonfinite: Literal["stop", "skip"] = option("stop", "what a non-finite loss does; skip reads every loss back")


class NonFinite(DistkError):
    """A loss stopped being a finite number."""


class Trainer:
    """A model in training. `step()` trains one step; `state()` and `load_state()` make it resumable.

    index: steps taken so far (host). generator: the run's generator on the device.
    """

    def __init__(self, model: Method, dataset: Dataset, config: TrainConfig, ranks: Ranks | None = None) -> None:
        self.model, self.dataset, self.config = model, dataset, config
        self.ranks = ranks or Ranks()
        self.device = dataset.device
        self.generator = seeded(config.seed, self.device)
        self.autocast = set_precision(config.precision)
        if config.batch % self.ranks.world:
            raise UsageError(f"--batch {config.batch} cannot be split over {self.ranks.world} processes.")
        self.index = 0
        self.stages = _stages(model.objectives())
        self.objectives = [objective for stage in self.stages for objective in stage]
        self.optimizers = {o.name: o.optimizer(list(o.parameters)) for o in self.objectives if o.optimizer is not None}
        self.counter = torch.zeros((), dtype=torch.long, device=self.device)
        self.sums: dict[str, Tensor] = {}
        self.first_bad = {o.name: torch.full((), -1, dtype=torch.long, device=self.device) for o in self.objectives}
        self._schedule: dict[str, Tensor] = {}
        self._scheduled: dict[str, Any] = {}
        self._graphs: dict[Hashable, torch.cuda.CUDAGraph] = {}
        self._seen: dict[Hashable, int] = {}
        self.eager_because = self._why_eager()

    # One step

    def step(self) -> None:
        """Train one step."""
        model, index = self.model, self.index
        model.before_step(index, self.optimizers)
        self._set_schedule(model.schedule(index))
        active = tuple(o.name for o in self.objectives if o.active(index))
        key = (model.phase(index), active, self.dataset.bucket(index, self.config.seed))
        if self.eager_because:
            self._step(key)
        else:
            self._captured(key)
        self.index += 1

    def _step(self, key: tuple[Hashable, tuple[str, ...], Hashable]) -> None:
        phase, active, bucket = key
        share = self.config.batch // self.ranks.world
        source = Source(
            self.dataset, share, self.generator, rank=self.ranks.rank, world=self.ranks.world, bucket=bucket
        )
        step = Step(
            index=self.counter,
            schedule=self._schedule,
            phase=phase,
            generator=self.generator,
            log=self._log,
            rows=(self.ranks.rank, self.ranks.world),
        )
        # An objective with fresh batches draws its own; the shared batch is drawn only if somebody reads it.
        if any(o.name in active and not o.fresh_batch for o in self.objectives):
            step.batch = self.model.collect(source)
        for stage in self.stages:
            taking = [o for o in stage if o.name in active]
            for _ in range(taking[0].updates if taking else 0):
                if taking[0].fresh_batch:
                    step.batch = self.model.collect(source)
                self._update(taking, step)
        self.counter.add_(1)

    def _update(self, stage: list[Objective], step: Step) -> None:
        for parameter in itertools.chain.from_iterable(o.parameters for o in stage):
            parameter.grad = None
        healthy = True
        for i, objective in enumerate(stage):
            with torch.autocast(self.device.type, self.autocast or torch.bfloat16, enabled=self.autocast is not None):
                loss = objective.loss(step)
            healthy = self._watch(objective.name, loss) and healthy
            loss.backward(inputs=list(objective.parameters), retain_graph=i + 1 < len(stage))
        if not healthy:
            return
        for objective in stage:
            self.ranks.average(objective.parameters)
            if objective.clip is not None:
                nn.utils.clip_grad_norm_(objective.parameters, objective.clip, error_if_nonfinite=False)
        for objective in stage:
            if objective.optimizer is not None:
                self.optimizers[objective.name].step()
            if objective.after is not None:
                with torch.no_grad():
                    objective.after()

    def _watch(self, name: str, loss: Tensor) -> bool:
        """Log a loss and remember, on the device, the first step in which it was not finite."""
        value = loss.detach().float()
        self._log(name, value)
        if self.config.on_nonfinite == "skip":
            finite = bool(value.isfinite())
            if not finite:
                warn(f"step {self.index}: objective '{name}' is not finite; its update is skipped")
                self.sums.pop(name)
            return finite
        first = self.first_bad[name]
        first.copy_(torch.where((first < 0) & ~value.isfinite(), self.counter, first))
        return True

    def _log(self, name: str, value: Tensor) -> None:
        value = value.detach().float().flatten()
        if name not in self.sums:
            self.sums[name] = torch.zeros(len(value) + 1, device=self.device)
        self.sums[name][:-1].add_(value)
        self.sums[name][-1].add_(1)

    def _set_schedule(self, values: dict[str, Any]) -> None:
        for name, value in values.items():
            if name in self._scheduled and self._scheduled[name] == value:
                continue
            self._scheduled[name] = value
            tensor = torch.as_tensor(value, dtype=torch.float32)
            if name not in self._schedule:
                self._schedule[name] = tensor.to(self.device, copy=True)
            self._schedule[name].copy_(tensor)
            if name == "lr" or name.startswith("lr/"):
                self._set_rate(name[3:], float(tensor))

    def _set_rate(self, objective: str, rate: float) -> None:
        for name, optimizer in self.optimizers.items():
            for group in optimizer.param_groups if objective in ("", name) else []:
                if isinstance(group["lr"], Tensor):
                    group["lr"].fill_(rate)
                else:
                    group["lr"] = rate

    # CUDA graphs

    def _why_eager(self) -> str:
        """An empty string where steps are captured, else the reason why they are not."""
        wanted = self.config.capture
        reason = ""
        if self.device.type != "cuda":
            reason = "the device is not CUDA"
        elif wanted == "off":
            reason = "--capture off"
        elif self.model.capturable is not True:
            reason = self.model.capturable or f"method {type(self.model).__name__} opts out"
        elif self.ranks.world > 1:
            reason = "several processes train together"
        elif self.config.on_nonfinite == "skip":
            reason = "--on-nonfinite skip reads every loss"
        if wanted == "on" and reason:
            raise UsageError(f"--capture on: the step cannot be captured because {reason}.")
        return reason

    def _captured(self, key: tuple[Hashable, tuple[str, ...], Hashable]) -> None:
        graph = self._graphs.get(key)
        if graph is None and self._seen.get(key, 0) < WARMUP:
            self._seen[key] = self._seen.get(key, 0) + 1
            side = torch.cuda.Stream(self.device)
            side.wait_stream(torch.cuda.current_stream(self.device))
            with torch.cuda.stream(side):
                self._step(key)
            torch.cuda.current_stream(self.device).wait_stream(side)
            return
        if graph is None:
            graph = torch.cuda.CUDAGraph()
            graph.register_generator_state(self.generator)
            with torch.cuda.graph(graph):
                self._step(key)
            self._graphs[key] = graph
        graph.replay()

    # Reading back

    def drain(self) -> dict[str, float]:
        """Means of everything logged since the last call; the only place where a run reads its losses.

        Raises NonFinite naming the step and objective if a loss was not finite.
        """
        self.check_health()
        if not self.sums:
            return {}
        read = torch.cat(list(self.sums.values())).cpu().split([len(total) for total in self.sums.values()])
        values: dict[str, float] = {}
        for name, total in zip(self.sums, read, strict=True):
            *means, count = total.tolist()
            if count and len(means) == 1:
                values[name] = means[0] / count
            elif count:
                values |= {f"{name}/{i + 1}": mean / count for i, mean in enumerate(means)}
        for total in self.sums.values():
            total.zero_()
        return values

    def check_health(self) -> None:
        """Raise NonFinite if any loss so far was not finite."""
        read = torch.stack(list(self.first_bad.values())).cpu().tolist()
        for name, first in sorted(zip(self.first_bad, read, strict=True), key=lambda pair: pair[1]):
            if first >= 0:
                raise NonFinite(
                    f"objective '{name}' became non-finite at step {first}: lower the learning rate. "
                    "The last good checkpoint is kept."
                )

    # Resuming

    def state(self) -> dict[str, Tensor]:
        """Everything beside the model that the next step depends on, as named host tensors."""
        state = {
            "step": torch.tensor(self.index),
            "generator": self.generator.get_state(),
            "global_rng": torch.get_rng_state(),
        }
        if self.device.type == "cuda":
            state["cuda_rng"] = torch.cuda.get_rng_state(self.device)
        for name, total in self.sums.items():
            state[f"log/{name}"] = total
        for name, optimizer in self.optimizers.items():
            for i, slots in optimizer.state_dict()["state"].items():
                for slot, value in slots.items():
                    if isinstance(value, Tensor):
                        state[f"optim/{name}/{i}/{slot}"] = value
        state |= {f"method/{name}": value for name, value in self.model.training_state().items()}
        return {name: value.detach().to("cpu", copy=True) for name, value in state.items()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Inverse of `state`.

        Raises DistkError when the state does not belong to this method and settings.
        """
        try:
            self.index = int(state["step"])
            self.counter.fill_(self.index)
            self.generator.set_state(state["generator"])
            torch.set_rng_state(state["global_rng"])
            if self.device.type == "cuda" and "cuda_rng" in state:
                torch.cuda.set_rng_state(state["cuda_rng"], self.device)
            self.sums = {name[4:]: value.to(self.device) for name, value in state.items() if name.startswith("log/")}
            for name, optimizer in self.optimizers.items():
                _load_optimizer(optimizer, _under(state, f"optim/{name}/"))
            self.model.load_training_state({k: v.to(self.device) for k, v in _under(state, "method/").items()})
        except (KeyError, RuntimeError, ValueError, TypeError) as error:
            raise DistkError(f"the training state does not fit this run ({type(error).__name__}: {error}).") from error


def _under(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name[len(prefix) :]: value for name, value in state.items() if name.startswith(prefix)}


def _load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Tensor]) -> None:
    current = optimizer.state_dict()
    slots: dict[int, dict[str, Tensor]] = {}
    for name, value in state.items():
        i, _, slot = name.partition("/")
        slots.setdefault(int(i), {})[slot] = value
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for i, found in slots.items():
        for slot, value in found.items():
            if value.dim() and value.shape != parameters[i].shape and "exp" in slot:
                raise ValueError(f"{slot} of parameter {i} has shape {tuple(value.shape)}")
    optimizer.load_state_dict({"state": slots, "param_groups": current["param_groups"]})


def _stages(objectives: Iterable[Objective]) -> list[list[Objective]]:
    """Group consecutive objectives of one stage, and check that a stage's step is well defined."""
    stages: list[list[Objective]] = []
    names: set[str] = set()
    for objective in objectives:
        if objective.name in names:
            raise ValueError(f"two objectives are called '{objective.name}'")
        names.add(objective.name)
        if objective.stage is not None and stages and stages[-1][0].stage == objective.stage:
            stages[-1].append(objective)
        else:
            stages.append([objective])
    for stage in stages:
        stepping = [p for o in stage if o.optimizer is not None for p in o.parameters]
        if len(set(map(id, stepping))) < len(stepping):
            raise ValueError(f"in stage '{stage[0].stage}' two optimizers step one parameter")
        if any(id(p) not in set(map(id, stepping)) for o in stage for p in o.parameters):
            raise ValueError(f"in stage '{stage[0].stage}' no optimizer steps some parameter of '{stage[-1].name}'")
        if len({(o.updates, o.fresh_batch) for o in stage}) > 1:
            raise ValueError(f"the objectives of stage '{stage[0].stage}' differ in updates or fresh_batch")
    return stages
