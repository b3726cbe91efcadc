"""Method, Objective and Step: what a paper's algorithm is written in.

The trainer owns zero_grad, backward, clipping and the optimizer step; a method says what is minimised, over which
parameters, how often and in which order. Everything in `loss` is tensor code on one device: no `.item()`, no
`bool(tensor)`, static shapes.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from distk.config import C, Configured
from distk.errors import UsageError, WrongType
from distk.latents import Code, Latent, LatentSpace, one_hot
from distk.optimizers import OptimizerFactory

if TYPE_CHECKING:
    from distk.data import Dataset, DataSpec
    from distk.source import Source


class Step:
    """What an objective's loss may read.

    batch: dict of tensors, `x` and whatever else the data set gives, `[batch, ...]`.
    index: int64 scalar tensor, the step counted from 0.
    schedule: the values of `Method.schedule`, as float32 tensors on the device.
    phase: the value of `Method.phase` (a host value; a captured step is captured once per phase).
    memo: a dict that lives for one step, through which one objective hands tensors to the next.
    generator: the run's random generator on the device.
    draws: how often a compiled loss has drawn from it.
    """

    def __init__(
        self,
        *,
        index: Tensor,
        schedule: Mapping[str, Tensor],
        phase: Hashable,
        generator: torch.Generator,
        log: Callable[[str, Tensor], None],
        rows: tuple[int, int] = (0, 1),
        draw: Callable[[bool, tuple[int, ...], int], Tensor] | None = None,
    ) -> None:
        self.batch: dict[str, Any] = {}
        self.index = index
        self.schedule = schedule
        self.phase = phase
        self.generator = generator
        self.memo: dict[str, Any] = {}
        self.taps: dict[str, Tensor] = {}
        self._log = log
        self._rank, self._world = rows
        self._draw, self.draws = draw, 0

    def log(self, name: str, value: Tensor) -> None:
        """Add a scalar, or a vector `[k]` shown as `name/1 ... name/k`, to the means of the next log row."""
        self._log(name, value)

    def tap(self, layer: str, activations: Tensor) -> None:
        """Hand over a layer's activations `[n, ...]`, which this loss has computed, for penalties to act on.

        layer: one of `Method.taps`; `code` stands for the code, the posterior mean where there is a posterior.
        """
        self.taps[layer] = activations

    def randn(self, rows: int, *shape: int) -> Tensor:
        """Standard normal `[rows, *shape]`. Over several devices, this rank's rows of one global draw."""
        return self._mine(torch.randn, rows, shape)

    def rand(self, rows: int, *shape: int) -> Tensor:
        """Uniform on [0, 1) `[rows, *shape]`. Over several devices, this rank's rows of one global draw."""
        return self._mine(torch.rand, rows, shape)

    def randint(self, high: int, rows: int, *shape: int) -> Tensor:
        """Uniform integers 0..high-1, int64 `[rows, *shape]`; ranks as in `randn`."""
        return (self.rand(rows, *shape) * high).long().clamp_(max=high - 1)

    def _mine(self, draw: Callable[..., Tensor], rows: int, shape: tuple[int, ...]) -> Tensor:
        if self._draw is not None:  # in a compiled loss
            self.draws += 1
            full = self._draw(draw is torch.randn, (rows * self._world, *shape), self.draws)
        else:
            full = draw(rows * self._world, *shape, generator=self.generator, device=self.generator.device)
        return full if self._world == 1 else full[self._rank * rows : (self._rank + 1) * rows]


@dataclass
class Objective:
    """One loss, the parameters that it changes, and its place in the step.

    name: appears in the log as the loss's name.
    loss: called with the Step, returns a scalar tensor to minimise.
    parameters: only these receive gradients from this loss.
    optimizer: a factory such as `adam(1e-4)`. None only within a `stage`: the gradient is added to that of the
        stage's other objectives and their optimizers take the step.
    stage: consecutive objectives of one stage take all their gradients before any of them steps.
    updates: how many times per step, each with a step of its own.
    every: only in steps whose index is a multiple of this.
    fresh_batch: draw a new batch for each update.
    window: (first, last + 1) step in which it is active; None as last means for ever.
    clip: largest gradient norm over this objective's parameters.
    after: called after the optimizer's step, for example to clamp weights.
    compiles: whether `--compile` may give the loss to torch's compiler, which takes neither gradients of gradients nor
        a loss that writes to what the stage has read.
    """

    name: str
    loss: Callable[[Step], Tensor]
    parameters: Iterable[nn.Parameter]
    optimizer: OptimizerFactory | None = None
    stage: str | None = None
    updates: int = 1
    every: int = 1
    fresh_batch: bool = False
    window: tuple[int, int | None] | None = None
    clip: float | None = None
    after: Callable[[], None] | None = None
    compiles: bool = True

    def __post_init__(self) -> None:
        self.parameters = list(self.parameters)
        if not self.parameters:
            raise ValueError(f"objective '{self.name}' has no parameters")
        if self.optimizer is None and self.stage is None:
            raise ValueError(f"objective '{self.name}' has neither an optimizer nor a stage")

    def active(self, step: int) -> bool:
        """Whether this objective takes part in the step of this index."""
        first, last = self.window or (0, None)
        return step % self.every == 0 and step >= first and (last is None or step < last)


class Method(nn.Module, Configured[C]):
    """A trainable model: networks, objectives, and what it can do once trained.

    A subclass names its settings, a frozen dataclass, as `class Mine(Method[Config])`; it sets `latents`, and may set
    `presets`, `train_defaults` and `data` (the default data set). `__init__` must build every tensor that a checkpoint
    holds from (config, data) alone.
    """

    data: ClassVar[str] = ""
    kinds: ClassVar[tuple[str, ...]] = ("image",)
    """The kinds of data (`DataSpec.kind`) that this method takes."""
    presets: ClassVar[Mapping[str, Mapping[str, Mapping[str, Any]]]] = {}
    """Preset name -> {"model": {...}, "data": {...}, "train": {...}}."""
    train_defaults: ClassVar[Mapping[str, Any]] = {}
    """This method's own defaults of the trainer's options, such as {"steps": 2000, "batch": 64}."""
    data_defaults: ClassVar[Mapping[str, Any]] = {}
    """This method's own defaults of settings that a data set may have, such as {"exact_lengths": True}."""
    capturable: bool | str = True
    """False or a reason, when the step cannot be captured as a CUDA graph."""
    reads: ClassVar[tuple[str, ...]] = ("x",)
    """Entries of a training batch that the losses read, held against the data set before a run folder is made."""
    least_batch: int = 1
    """Items of the smallest batch (each process's, of several) that a step can be taken from; held against `--batch`
    before a run folder is made. 2 where statistics are over the batch, or items are held against each other."""
    closed_form: ClassVar[bool] = False
    """Whether `initialise` fits the whole model, as in principal components: no objectives, and a run of 0 steps."""
    conditions: Mapping[str, int] = {}
    """What `sample` takes beside the groups of the code -> how many classes it has, as {"label": 10}."""
    taps: ClassVar[tuple[str, ...]] = ()
    """Layers that the losses hand over with `step.tap`, so that a penalty on them needs no pass of its own."""
    instead: Mapping[str, str] = {}
    """Generic command that makes no sense here -> the command to use, for the message."""
    own_commands: ClassVar[Mapping[str, str]] = {}
    """Generic command -> the command that does its work for this method, as {"transfer": "text rewrite"}."""
    any_length: ClassVar[bool] = False
    """Whether clips of another length than trained can be drawn: `sample` and `prior` take `frames`."""
    unscored: Mapping[str, str] = {}
    """Metric that makes no sense here -> why, for the message."""
    latents: LatentSpace
    run_steps: int = 0
    """Steps that this run is to take, set by the trainer, for schedules that end with it; 0 outside training."""
    opens: Callable[[], Dataset] | None = None
    """What `dataset()` calls, set where a model is trained or loaded."""

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        if isinstance(cls.__dict__.get("training"), Mapping):
            raise UsageError(
                f"{cls.__module__}.{cls.__qualname__} sets 'training', which torch keeps for train and eval mode: "
                "call it 'train_defaults'."
            )

    def __init__(self, config: C, data: DataSpec) -> None:
        super().__init__()
        self.config = config
        self.spec = data

    def dataset(self) -> Dataset:
        """The data that this model is or was trained on; a loaded model opens it anew.

        Raises UsageError for a model that was neither trained nor loaded here.
        """
        if self.opens is None:
            raise UsageError(
                f"this {type(self).__name__} comes from no run, so no data set is known that belongs to it."
            )
        return self.opens()

    def accepts(self, dataset: Dataset) -> None:
        """Called with the data set of a run before anything is written: raise UsageError for what cannot be learned
        from, such as data that are no full grid of factors."""

    def initialise(self, source: Source) -> None:
        """Called once on a fresh run before its first step, never when a run is taken up again: set parameters from
        data (a codebook by k-means, scales of a normalisation) or fit them in closed form.

        source: draws whole batches, on every rank the same; `source.dataset` is there, too. Parameters are changed in
        place, since the optimizers hold them. It runs on the host, with gradients on and in train mode.
        """

    def objectives(self) -> list[Objective]:
        """The training step, in order. Called once, when the trainer is built; none for a method of `closed_form`."""
        if self.closed_form:
            return []
        raise NotImplementedError(f"{type(self).__name__} has no objectives")

    def schedule(self, step: int) -> dict[str, Any]:
        """Values that change over training, as floats, lists or host tensors. Keys `lr` and `lr/<objective>` set
        learning rates. Same keys and shapes at every step."""
        return {}

    def phase(self, step: int) -> Hashable:
        """A host value on which the step's control flow may branch (`step.phase`)."""
        return None

    def before_step(self, step: int, optimizers: Mapping[str, torch.optim.Optimizer]) -> None:
        """Called on the host before a step, outside any captured graph; for rare events such as resetting moments."""

    def collect(self, source: Source, objective: str = "") -> dict[str, Tensor]:
        """The batch of a step. Override to gather experience with a policy, or to draw different data per objective.

        objective: of an objective with `fresh_batch` its name (of a stage, its first one's), so that one update can
        draw frames and the next clips; "" for the batch that the other objectives share.
        """
        return source.sample()

    def training_state(self) -> dict[str, Tensor]:
        """Tensors beside the parameters and buffers that a resumed run needs (environment states, counters)."""
        return {}

    def load_training_state(self, state: dict[str, Tensor]) -> None:
        """Inverse of `training_state`."""

    # What a trained model can do. A method overrides what it serves; generic commands ask `can(method, name)`.

    def encode(self, x: Tensor) -> Code:
        """Items `[batch, *spec.shape]` -> code (posterior means, class probabilities)."""
        raise NotImplementedError

    def forward(self, *items: Any, **more: Any) -> Any:
        """A model is no single function: raises WrongType, which names what it can do."""
        able = [f"model.{what}(...)" for what in ("encode", "decode", "sample", "rewrite") if can(self, what)]
        raise WrongType(f"{type(self).__name__} is not called itself: use {', '.join(able) or 'its own methods'}.")

    def encode_batch(self, batch: Mapping[str, Tensor]) -> Code:
        """As `encode`, of a whole batch: for codes that depend on more than `x`, such as a label, an action or a
        partner. What encodes items of a data set calls this one, with what `Dataset.items` gives."""
        return self.encode(batch["x"])

    def decode(self, code: Code) -> Tensor:
        """Code -> items `[batch, *spec.shape]` in the data's range."""
        raise NotImplementedError

    def sample(self, n: int, generator: torch.Generator, **given: int) -> Tensor:
        """`n` items drawn from the model: the prior decoded, unless overridden.

        given: categorical group, or one of `conditions` (for a method that overrides this) -> class that all of them
        shall have; `frames`, for a method of `any_length`: frames of each clip, which `prior` then takes, too.
        """
        length = {"frames": given.pop("frames")} if "frames" in given else {}
        draw: Any = self.prior  # of a method of any length it takes the length
        code: Code = draw(n, generator, **length)
        for name, index in given.items():
            classes = self.latents[name].size
            if not 0 <= index < classes:
                raise UsageError(f"group '{name}' has the classes 0 to {classes - 1}, not {index}.")
            code[name] = one_hot(torch.full((n,), index, device=generator.device), classes)
        return self.decode(code)

    def filled(self, code: Code, seed: int = 0) -> Code:
        """A code with the groups that it lacks drawn from the prior: the same draw for every item, so that nothing
        but the code differs between them. `decode` of a method with groups that are not encoded begins with this."""
        lacking = [group for group in self.latents if group.name not in code]
        if not lacking:
            return code
        like = next(iter(code.values()))
        generator = torch.Generator(device=like.device).manual_seed(seed)
        if self.drawable:
            draw = self.prior(1, generator)
        else:  # what the code holds has no prior, and needs none
            draw = {group.name: self._from_prior(group, 1, generator) for group in lacking}
        return {
            group.name: code[group.name] if group.name in code else draw[group.name].expand(len(like), *group.shape)
            for group in self.latents
        }

    def changed(self, code: Code, group: str) -> Code:
        """A code in which `group` was moved or exchanged, as `decode` is to take it. A method that makes some groups of
        others leaves those out that follow from `group`, so that they are made anew."""
        return code

    def bound(self, x: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """The evidence bound of each item, from one draw of its posterior: `elbo` float `[n]` in nats, and the terms
        that it is made of, `[n]` or `[n, k]`. log p(x) is at least the mean of `elbo` over draws; a beta is no part
        of it. `log_weight` `[n]`, where given, is log p(x, z) - log q(z|x) of the draw, for importance sampling."""
        raise NotImplementedError

    def predict(self, x: Tensor, steps: int, generator: torch.Generator) -> Tensor:
        """Clips or states `[n, t, *item]` -> the `steps` items that follow, `[n, steps, *item]`."""
        raise NotImplementedError

    def plan(self, start: Tensor, goal: Tensor, horizon: int, generator: torch.Generator) -> Tensor:
        """Items start, goal `[n, *spec.shape]` -> actions `[n, horizon, ...]` that lead from one towards the other."""
        raise NotImplementedError

    def interpolate(self, a: Code, b: Code, share: Tensor) -> Code:
        """Codes on the way from a to b, each of n items: share `[s]` in 0..1 -> a code of `s * n` items, of one share
        after the other. Straight lines; of a class the nearer end's, unless overridden."""
        return self.latents.between(a, b, share)

    def posterior(self, x: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """Items -> for each continuous group with a Gaussian posterior: (mean, standard deviation)."""
        raise NotImplementedError

    def posterior_batch(self, batch: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
        """As `posterior`, of a whole batch; see `encode_batch`."""
        return self.posterior(batch["x"])

    def walk(self, group: Latent, columns: int) -> Tensor | None:
        """The values that a traversal runs through: `[columns]` for all dimensions of a group, or a row for each,
        `[size, m]`, of as many values m as there are. None: from the group's low to its high.

        An ordinal group gives its values here, since they are learned.
        """
        return None

    def text(self, items: Tensor) -> list[str]:
        """Items of a sentence method (token ids `[n, T]`) as readable lines."""
        raise NotImplementedError

    def tokens(self, sentences: list[str]) -> Tensor:
        """Lines as items of a sentence method, token ids `[n, T]`: the inverse of `text`."""
        raise NotImplementedError

    def rewrite(self, sentences: list[str], to: int, **settings: Any) -> list[str]:
        """Sentences with another label (index `to` of `spec.classes`), one for one, the rest kept."""
        raise NotImplementedError

    @property
    def device(self) -> torch.device:
        """Where the model's tensors are."""
        return next(itertools.chain(self.parameters(), self.buffers())).device

    @property
    def drawable(self) -> bool:
        """Whether `prior` can draw every group."""
        return all(group.prior != "none" for group in self.latents) or can(self, "prior")

    def prior(self, n: int, generator: torch.Generator) -> Code:
        """`n` codes from the prior, all groups, each as its `Latent.prior` says unless overridden."""
        return {group.name: self._from_prior(group, n, generator) for group in self.latents}

    def _from_prior(self, group: Latent, n: int, generator: torch.Generator) -> Tensor:
        shape, device = (n, *group.shape), generator.device
        if group.prior == "none":
            raise UsageError(f"nothing can be drawn from {type(self).__name__}: its code '{group.name}' has no prior.")
        if group.prior == "normal":
            return torch.randn(shape, generator=generator, device=device)
        if group.prior == "levels":
            return self._levels(group, n, generator)
        unit = torch.rand(shape, generator=generator, device=device)
        if group.prior == "uniform":
            return group.low + (group.high - group.low) * unit
        gumbel = -unit.log().neg().log()
        return (gumbel == gumbel.amax(-1, keepdim=True)).float()

    def _levels(self, group: Latent, n: int, generator: torch.Generator) -> Tensor:
        """Each dimension's values from `walk`, all alike, float `[n, *group.shape]`."""
        values = self.walk(group, 0)
        if values is None:
            raise UsageError(f"method {type(self).__name__} does not say in `walk` which values '{group.name}' takes.")
        values = values.expand(group.size, values.shape[-1]).to(generator.device)
        unit = torch.rand((n, *group.shape), generator=generator, device=generator.device)
        index = (unit * values.shape[-1]).long().clamp_(max=values.shape[-1] - 1)
        return values.gather(1, index.flatten(0, -2).T).T.reshape(index.shape)


def can(method: Method | type[Method], name: str) -> bool:
    """Whether a method has the capability `name`: a method's name such as "encode", "decode", "sample"."""
    cls = method if isinstance(method, type) else type(method)
    if name == "sample" and can(cls, "decode"):
        return True
    if name in ("encode", "posterior") and can(cls, f"{name}_batch"):
        return True
    return getattr(cls, name) is not getattr(Method, name)


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Within, every module of the model is in eval mode; afterwards each is in the mode that it was in."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
