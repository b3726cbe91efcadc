"""The loop: one step is the method's objectives in order; the rest is logging, checkpoints and stopping cleanly.

Nothing in a step reads a value back to the host. Losses and logged terms are summed on the device and read every
`log_every` steps. On CUDA a step is captured as a graph, once per (phase, active objectives, bucket).
"""

from __future__ import annotations

import contextlib
import inspect
import itertools
from collections.abc import Callable, Hashable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from distk.console import counted, warn
from distk.data import Dataset
from distk.device import Ranks, add_in_order, seeded, set_precision, stream
from distk.errors import DistkError, UsageError
from distk.method import Method, Objective, Step
from distk.penalty import attach
from distk.settings import TrainConfig
from distk.source import Source
from distk.stored import Clock
from distk.training.capture import Captured
from distk.training.compiled import compiled, drawer, explained
from distk.training.ledger import Ledger
from distk.training.resume_state import collect, restore
from distk.training.soundness import unsound_item


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
        self.generator = seeded(stream(config.seed, "training"), self.device)
        self.autocast = set_precision(config.precision)
        if config.deterministic and self.device.type == "cuda":
            add_in_order()
        if config.batch % self.ranks.world:
            raise UsageError(
                f"--batch {config.batch} cannot be split over {counted(self.ranks.world, 'process', 'processes')}."
            )
        if model.closed_form and config.steps:
            raise UsageError(
                f"method {type(model).__name__} is fitted in closed form, before any step: train it with --steps 0."
            )
        self.index = 0
        model.run_steps = config.steps
        self.stages = _stages(model.objectives())
        self.objectives = [objective for stage in self.stages for objective in stage]
        self.optimizers = {o.name: o.optimizer(list(o.parameters)) for o in self.objectives if o.optimizer is not None}
        self._per_objective = "objective" in inspect.signature(model.collect).parameters
        self.penalties = attach(model, dataset, config, self.objectives, self.ranks)
        self.counter = torch.zeros((), dtype=torch.long, device=self.device)
        self.ledger = Ledger(model, self.device)
        self._schedule: dict[str, Tensor] = {}
        self._scheduled: dict[str, Any] = {}
        self._draw: Callable[[bool, tuple[int, ...], int], Tensor] | None = None
        self._explained: Callable[[str], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext
        if config.compile:
            self._compile()
        self.eager_because = self._why_eager()
        self._captured = None if self.eager_because else Captured(self._step, self.generator, self.device)
        if self.ranks.world > 1 and model.training_state():
            raise UsageError(
                f"method {type(model).__name__} keeps a state of its own beside its parameters, which several "
                "processes cannot share: train it in one process."
            )

    def initialise(self) -> None:
        """What a fresh run does once, before its first step; see `Method.initialise`."""
        self.model.initialise(Source(self.dataset, self.config.batch, self.generator))

    # One step

    def step(self) -> None:
        """Train one step."""
        model, index = self.model, self.index
        model.before_step(index, self.optimizers)
        self._set_schedule(model.schedule(index))
        active = tuple(o.name for o in self.objectives if o.active(index))
        key = (model.phase(index), active, self.dataset.bucket(index, self.config.seed))
        (self._captured or self._step)(key)
        self.index += 1

    def _step(self, key: tuple[Hashable, tuple[str, ...], Hashable]) -> None:
        phase, active, bucket = key
        self.ledger.begin()
        share = self.config.batch // self.ranks.world
        source = Source(
            self.dataset,
            share,
            self.generator,
            rank=self.ranks.rank,
            world=self.ranks.world,
            bucket=bucket,
            clock=Clock(self.config.seed, self.counter, self.index if self._captured is None else None),
        )
        step = Step(
            index=self.counter,
            schedule=self._schedule,
            phase=phase,
            generator=self.generator,
            log=self.ledger.note if self._draw is None else self.ledger.note_copy,
            rows=(self.ranks.rank, self.ranks.world),
            draw=self._draw,
        )
        # An objective with fresh batches draws its own; the shared batch is drawn only if somebody reads it.
        if any(o.name in active and not o.fresh_batch for o in self.objectives):
            step.batch = self.model.collect(source)
        for stage in self.stages:
            taking = [o for o in stage if o.name in active]
            for _ in range(taking[0].updates if taking else 0):
                if taking[0].fresh_batch:
                    step.batch = self._fresh(source, taking[0].name)
                self._update(taking, step)
        self.ledger.settle(self.counter)
        self.counter.add_(1)
        self._average_statistics()

    def _fresh(self, source: Source, objective: str) -> dict[str, Tensor]:
        """The batch that one objective draws for itself; a method may take no notice of which one it is."""
        return self.model.collect(source, objective) if self._per_objective else self.model.collect(source)

    def _average_statistics(self) -> None:
        """Batch normalisation's running statistics as of the whole batch; each rank saw its share of it."""
        if self.ranks.world == 1:
            return
        layers = [m for m in self.model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        statistics = [b for m in layers for b in (m.running_mean, m.running_var) if b is not None]
        if statistics:
            self.ranks.average_together(statistics)

    def _update(self, stage: list[Objective], step: Step) -> None:
        skip = self.config.on_nonfinite == "skip"
        before = [(buffer, buffer.clone()) for buffer in self.model.buffers()] if skip else []
        mark = self.ledger.mark()
        for parameter in itertools.chain.from_iterable(o.parameters for o in stage):
            parameter.grad = None
        losses = []
        for i, objective in enumerate(stage):
            with self._precision():
                loss = total = objective.loss(step)
                if self.penalties is not None:
                    total = self.penalties.added(loss, objective.name, step)
            losses.append(total.detach().float())
            self.ledger.note(objective.name, loss)  # without its penalties
            if not skip:
                self.ledger.watch(objective.name, losses[-1])
            with self._explained(objective.name):
                total.backward(inputs=list(objective.parameters), retain_graph=i + 1 < len(stage))
        if skip and not self._sound(stage, losses, before):
            self.ledger.strike(mark)
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

    def _precision(self) -> contextlib.AbstractContextManager[Any]:
        """The context of a loss: autocast where a precision asks for it, or where somebody else's has to be kept out.
        Without either it is left away: entering and leaving it takes as long as a small operation."""
        kind = self.device.type
        if self.autocast is None and not torch.is_autocast_enabled(kind):
            return contextlib.nullcontext()
        return torch.autocast(kind, self.autocast or torch.bfloat16, enabled=self.autocast is not None)

    def _sound(self, stage: list[Objective], losses: list[Tensor], before: list[tuple[Tensor, Tensor]]) -> bool:
        """Whether losses and gradients of a stage are finite on every rank; if not, nothing of its update stays."""
        gradients = [p.grad for o in stage for p in o.parameters if p.grad is not None]
        bad = [o.name for o, loss in zip(stage, losses, strict=True) if not bool(loss.isfinite())]
        finite = not bad and bool(torch.stack([g.isfinite().all() for g in gradients]).all())
        if self.ranks.largest(int(not finite)) == 0:
            return True
        for buffer, value in before:
            buffer.copy_(value)
        what = f"objective '{bad[0]}' is" if bad else f"the gradient of '{stage[0].name}' is"
        warn(f"step {self.index}: {what} not finite; its update is skipped")
        return False

    def _set_schedule(self, values: dict[str, Any]) -> None:
        for name, value in values.items():
            tensor = torch.as_tensor(value, dtype=torch.float32)
            if name in self._scheduled and torch.equal(self._scheduled[name], tensor):
                continue
            self._scheduled[name] = tensor.clone()
            if name not in self._schedule:
                self._schedule[name] = tensor.to(self.device, copy=True)
            elif tensor.dim() == 0:
                self._schedule[name].fill_(float(tensor))
            else:
                # From pinned memory the host need not wait for the steps that are still queued.
                held = tensor.pin_memory() if self.device.type == "cuda" else tensor
                self._schedule[name].copy_(held, non_blocking=True)
            if name == "lr" or name.startswith("lr/"):
                self._set_rate(name[3:], float(tensor))

    def _set_rate(self, objective: str, rate: float) -> None:
        for name, optimizer in self.optimizers.items():
            for group in optimizer.param_groups if objective in ("", name) else []:
                if isinstance(group["lr"], Tensor):
                    group["lr"].fill_(rate)
                else:
                    group["lr"] = rate

    # The compiler, and CUDA graphs

    def _compile(self) -> None:
        """Let every loss go through torch's compiler, with what draws random numbers in it."""
        for objective in (o for o in self.objectives if o.compiles):
            objective.loss = compiled(objective.loss, objective.name)
        self._draw, self._explained = drawer(self.generator), explained

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
        elif self.dataset.eager_because:
            reason = self.dataset.eager_because
        elif self.ranks.world > 1:
            reason = "several processes train together"
        elif self.config.on_nonfinite == "skip":
            reason = "--on-nonfinite skip reads every loss"
        if wanted == "on" and reason:
            raise UsageError(f"--capture on: the step cannot be captured because {reason}.")
        return reason

    # Reading back

    def drain(self) -> dict[str, float]:
        """Means of everything logged since the last call; the only place where a run reads its losses.

        Raises NonFinite naming the step and objective if a loss was not finite.
        """
        self.check_health()
        return self.ledger.read(self.ranks)

    @property
    def sums(self) -> dict[str, Tensor]:
        """Sums and number of values logged since the last `drain`, by name, float32 `[length + 1]` on the host."""
        return self.ledger.totals()

    def check_health(self) -> None:
        """Raise NonFinite if any loss so far was not finite, on any rank."""
        found = self.ledger.bad(self.ranks)
        for name, first in sorted(found.items(), key=lambda pair: pair[1]):
            raise NonFinite(
                f"objective '{name}' became non-finite at step {first}: {self._cure()}. "
                "The last good checkpoint is kept."
            )

    def _cure(self) -> str:
        """What to do about a loss that is no number: a wrong item is named before the learning rate is blamed."""
        problem = unsound_item(self.dataset)
        return f"{problem} in data set '{self.dataset.name}'" if problem else "lower the learning rate"

    def check_parameters(self) -> None:
        """Raise NonFinite if a parameter is no longer finite: a finite loss can have a gradient that is not."""
        named = [(name, p.detach()) for name, p in self.model.named_parameters() if p.is_floating_point()]
        sound = torch.stack([p.isfinite().all() for _, p in named]).cpu().tolist() if named else []
        losses = " and the ".join(o.name for o in self.objectives)
        for (name, _), finite in zip(named, sound, strict=True):
            if not finite:
                raise NonFinite(
                    f"parameter '{name}' is not finite after step {self.index - 1}, although the {losses} before it "
                    f"was finite: {self._cure()}. The last good checkpoint is kept."
                )

    # Resuming

    def state(self) -> dict[str, Tensor]:
        """Everything beside the model that the next step depends on, as named host tensors."""
        return collect(self)

    def load_state(self, found: dict[str, Tensor]) -> None:
        """Inverse of `state`.

        Raises DistkError when the state does not belong to this method and settings.
        """
        restore(self, found)
        if self._captured is not None:
            self._captured.forget()


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
