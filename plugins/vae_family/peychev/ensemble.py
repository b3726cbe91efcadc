"""Many small autoencoders trained side by side: their parameters stacked, one program for all (torch.func).

Members share the networks' shapes, the learning rate and the number of batches per epoch; each has its own weights,
beta, batches, noise, batch normalisation and early stopping. A member draws from a generator of its own, so that what
it draws does not depend on who trains beside it.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from distk import Dataset, seeded
from distk.device import stream
from distk.optimizers import light
from distk.plugins.vae_family.peychev.method import NO_KL, PeychevVAE, salt_and_pepper

CHUNK = 4096
"""Images per member that validation looks at together."""
BATCHES = 50
"""Training batches from which the averages of a finished member are taken."""


@dataclass(frozen=True)
class Plan:
    """How the members are trained. epochs: at most. patience: epochs without improvement in a row, one more stops."""

    batch: int = 1000
    lr: float = 1e-3
    epochs: int = 500
    patience: int = 5


@dataclass
class Outcome:
    """What became of a member.

    model: with the weights of its best epoch, in eval mode. reconstruction, kl: on the validation images at that epoch,
    nats. epochs: trained. seconds: of the whole group until this member was done. sound: no loss was non-finite.
    """

    model: PeychevVAE
    reconstruction: float
    kl: float
    epochs: int
    seconds: float
    sound: bool


@dataclass
class Member:
    """One model to train: its initial state, its rows of the data, and the seed of what it draws."""

    model: PeychevVAE
    rows: Tensor
    seed: int
    beta: float = field(init=False)

    def __post_init__(self) -> None:
        self.beta = self.model.config.beta


class Ensemble:
    """Members in training. `epoch()` trains one epoch; `train()` trains until all have stopped.

    Row m of every stacked tensor belongs to the m-th member that is still training; those that have stopped are taken
    out between epochs. Nothing is read back to the host within an epoch, and one small vector after it.
    """

    def __init__(self, members: Sequence[Member], dataset: Dataset, validation: Tensor, plan: Plan) -> None:
        self.dataset, self.plan, self.validation = dataset, plan, validation
        self.members = list(members)
        device = dataset.device
        self.generators = [seeded(stream(member.seed, "training"), device) for member in members]
        self.rows = torch.stack([member.rows for member in members])
        self.batch = min(plan.batch, self.rows.shape[1])
        parameters, buffers = stack_module_state([member.model for member in members])
        self.parameters = {name: nn.Parameter(value.detach().clone()) for name, value in parameters.items()}
        self.buffers = {name: value.detach().clone() for name, value in buffers.items()}
        self.optimizer = self._adam(self.parameters)
        self.beta = torch.tensor([m.beta if m.beta >= NO_KL else 0.0 for m in members], device=device)
        self.best = torch.full((len(members),), torch.inf, device=device)
        self.worse = torch.zeros(len(members), dtype=torch.long, device=device)
        self.terms = torch.full((2, len(members)), torch.nan, device=device)
        self.kept = {name: value.detach().clone() for name, value in self._state().items()}
        skeleton = copy.deepcopy(members[0].model).to("meta")
        self._train, self._eval = skeleton.train(), copy.deepcopy(skeleton).eval()
        # One draw for all members and epochs, so that only the weights move the validation loss.
        z = members[0].model.config.z
        self.noise = torch.randn(len(validation), z, generator=seeded(0, device), device=device)
        self.active = list(range(len(members)))
        self.epochs = 0

    def _adam(self, parameters: dict[str, nn.Parameter]) -> torch.optim.Adam:
        """Adam works element by element: on stacked parameters it is each member's own."""
        return light(torch.optim.Adam, parameters.values(), lr=self.plan.lr, fused=True)

    def _state(self) -> dict[str, Tensor]:
        return {**{name: value.detach() for name, value in self.parameters.items()}, **self.buffers}

    # One epoch

    def epoch(self) -> None:
        """Every member sees its own images once, in its own order; the last, incomplete batch is dropped."""
        count = self.rows.shape[1]
        order = torch.stack([torch.randperm(count, generator=g, device=g.device) for g in self.generators])
        shuffled = self.rows.gather(1, order)
        for start in range(0, count - self.batch + 1, self.batch):
            self._step(shuffled[:, start : start + self.batch])
        self.epochs += 1
        self._judge()

    def _step(self, rows: Tensor) -> None:
        """One update of every member on its rows `[members, batch]`."""
        config = self.members[0].model.config
        x = self.dataset.batch(rows.flatten())["x"].unflatten(0, rows.shape)
        seen = x
        if config.denoise:
            draw = torch.stack([torch.rand(x.shape[1:], generator=g, device=g.device) for g in self.generators])
            corrupted = round(config.noise_portion * x.shape[1])
            seen = vmap(lambda image, u: salt_and_pepper(image, u, config.noise_amount, corrupted))(x, draw)
        noise = torch.stack([torch.randn(x.shape[1], config.z, generator=g, device=g.device) for g in self.generators])
        reconstruction, kl = self._run(self._train, seen, x, noise)
        self.optimizer.zero_grad(set_to_none=True)
        # The sum's gradient is, in each member's row, that member's own.
        (reconstruction + self.beta * kl).sum().backward()
        self.optimizer.step()

    def _run(self, skeleton: nn.Module, seen: Tensor, clean: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Both terms of the bound of every member, `[members]` each. Batch statistics are updated in place."""

        def one(
            parameters: Mapping[str, Tensor], buffers: Mapping[str, Tensor], *batch: Tensor
        ) -> tuple[Tensor, Tensor]:
            return functional_call(skeleton, (dict(parameters), dict(buffers)), batch)

        if len(self.active) == 1:  # plain matrix products are faster than stacks of one
            parameters, buffers = (
                {name: value[0] for name, value in state.items()} for state in (self.parameters, self.buffers)
            )
            terms = one(parameters, buffers, seen[0], clean[0], noise[0])
            return terms[0].unsqueeze(0), terms[1].unsqueeze(0)
        return vmap(one)(self.parameters, self.buffers, seen, clean, noise)

    @torch.no_grad()
    def _judge(self) -> None:
        """Validation loss on clean images, normalised by their own statistics; keeps each member's best state.

        The running averages of momentum 0.001 take some 3,000 updates to settle: judged by them a model would look
        untrained, and stop. Only validation rows are read, and nothing is learned from them.
        """
        terms, buffers = torch.zeros_like(self.terms), self.buffers
        parts = -(-len(self.validation) // CHUNK)  # of equal size: a batch of one has no statistics
        for part in torch.arange(len(self.validation), device=self.beta.device).tensor_split(parts):
            self.buffers = {name: value.clone() for name, value in buffers.items()}
            x = self.dataset.batch(self.validation[part])["x"].expand(len(self.active), *[-1] * len(self._shape))
            noise = self.noise[part].expand(len(self.active), -1, -1)
            skeleton = self._train if len(part) > 1 else self._eval
            terms += torch.stack(self._run(skeleton, x, x, noise)) * (len(part) / len(self.validation))
        self.buffers = buffers
        loss = terms[0] + self.beta * terms[1]
        better = loss < self.best
        self.best = torch.where(better, loss, self.best)
        self.terms = torch.where(better, terms, self.terms)
        self.worse = torch.where(better, 0, self.worse + 1)
        # A member whose loss is no number never improves again: it stops now, with its last good state.
        self.worse = torch.where(loss.isfinite(), self.worse, self.plan.patience + 1)
        self.finite = loss.isfinite()
        for name, value in self._state().items():
            self.kept[name] = torch.where(better.view(-1, *[1] * (value.dim() - 1)), value, self.kept[name])

    @property
    def _shape(self) -> tuple[int, ...]:
        return (0, *self.dataset.spec.shape)

    # All epochs

    def train(self, watch: Callable[[int, int], None] | None = None) -> Iterator[tuple[int, Outcome]]:
        """Train until all have stopped, yielding (member, outcome) as they do.

        watch: called after each epoch with its number and how many members are left; may raise to stop.
        """
        began = time.monotonic()
        while self.active:
            self.epoch()
            stop = (self.worse > self.plan.patience) | (self.epochs >= self.plan.epochs)
            read = torch.stack([stop.float(), self.finite.float(), *self.terms]).cpu().tolist()
            done = [m for m, flag in enumerate(read[0]) if flag]
            for m in done:
                model = self._taken(m)
                seconds = time.monotonic() - began
                yield self.active[m], Outcome(model, read[2][m], read[3][m], self.epochs, seconds, bool(read[1][m]))
            if done:
                self._shrink([m for m, flag in enumerate(read[0]) if not flag])
            if watch is not None:
                watch(self.epochs, len(self.active))

    def _taken(self, m: int) -> PeychevVAE:
        """The m-th member's model with its best state, its averages settled."""
        member = self.members[self.active[m]]
        member.model.load_state_dict({name: value[m] for name, value in self.kept.items()})
        if bool(self.finite[m]):
            settle(member.model, self.dataset, member.rows, self.batch)
        return member.model.eval()

    def _shrink(self, left: list[int]) -> None:
        """Go on with these members only: their rows of everything, of the optimizer's moments too."""
        if not left:
            self.active = []
            return
        rows = torch.tensor(left, device=self.beta.device)
        slots = [self.optimizer.state[p] for p in self.parameters.values()]
        self.parameters = {name: nn.Parameter(p.detach()[rows]) for name, p in self.parameters.items()}
        self.optimizer = self._adam(self.parameters)
        for parameter, found in zip(self.parameters.values(), slots, strict=True):
            self.optimizer.state[parameter] = {k: v[rows] if v.dim() else v for k, v in found.items()}
        self.buffers = {name: value[rows] for name, value in self.buffers.items()}
        self.kept = {name: value[rows] for name, value in self.kept.items()}
        self.rows, self.beta, self.best = self.rows[rows], self.beta[rows], self.best[rows]
        self.worse, self.terms, self.finite = self.worse[rows], self.terms[:, rows], self.finite[rows]
        self.generators = [self.generators[m] for m in left]
        self.active = [self.active[m] for m in left]


@torch.no_grad()
def settle(model: PeychevVAE, dataset: Dataset, rows: Tensor, batch: int) -> None:
    """Set batch normalisation's running averages to the mean of those of clean training batches, at most 50 of them.

    After few updates the averages still hold what they began with, 0 and 1, and earlier weights; codes are read with
    them. Whatever the training, the averages afterwards belong to these weights.
    """
    norms = [layer for layer in model.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    momentum = [layer.momentum for layer in norms]
    for layer in norms:
        layer.reset_running_stats()
        layer.momentum = None  # the plain mean
    model.train()
    for part in rows[: len(rows) // batch * batch].split(batch)[:BATCHES]:
        x = dataset.batch(part)["x"]
        model(x, x, torch.zeros(len(x), model.config.z, device=x.device, dtype=x.dtype))
    for layer, value in zip(norms, momentum, strict=True):
        layer.momentum = value
