"""Independent causal mechanisms by competition of experts (Parascandolo et al., ICML 2018, arXiv 1712.00961).

Samples of a reference distribution, and an unlabelled mixture of transformed ones. Every image of the mixture goes to
all experts; the one whose output the discriminator takes most readily for a reference image wins it and is trained on
it, so that each expert comes to undo one mechanism.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from distk import (
    Code,
    Dataset,
    DataSpec,
    Latent,
    LatentSpace,
    Method,
    Objective,
    Source,
    Step,
    UsageError,
    adam,
    one_hot,
    option,
)
from distk.console import counted
from distk.nn import call_fake, call_real
from distk.plugins.gan_family.icm.mechanisms import Mixture, parse
from distk.plugins.gan_family.icm.networks import Autoencoder, Discriminator, Experts, expert_adam, start

SPLIT_SEED = 0
"""Which images are transformed and which are reference is one fixed random halving, whatever the run's seed."""


@dataclass(frozen=True)
class Config:
    """Hyperparameters. Training takes `identity-iters` steps of pre-training, then competes for the rest of `steps`."""

    experts: int | None = option(
        None, "number of experts; default: one per mechanism", paper="10 (also 16, 6)", min=1, max=4096
    )
    mechanisms: tuple[str, ...] = option(
        ("paper10",), "mechanisms of the mixture: paper10, lemmon11, right:2, invert, noise:0.5, ...", paper="paper10"
    )
    identity_iters: int = option(200, "steps of pre-training to the identity; 0 is the ablation", paper="200", min=0)
    identity_stop: float = option(
        0.002, "pre-training ends early when every expert's squared error is below; 0 = never", min=0
    )
    lr: float = option(1e-3, "learning rate of Adam, for experts and discriminator", paper="1e-3", above=0)
    width: int = option(32, "filters per layer of an expert", paper="32 (also 64, 128)", min=1, max=4096)
    depth: int = option(
        5, "convolutions of an expert; it can undo shifts up to as many pixels", paper="5", min=2, max=64
    )
    hidden: int = option(1024, "width of the discriminator's last hidden layer", paper="1024", min=1, max=65536)
    objective: Literal["gan", "ae"] = option(
        "gan", "what scores an output: a discriminator, or an autoencoder trained on the reference", paper="gan"
    )
    ae_code: int = option(32, "width of the autoencoder's code, for --objective ae", min=1, max=4096)
    score_reuse: bool = option(
        False, "choose winners by the scores from before the discriminator's update: cheaper", paper="unclear"
    )
    winner_norm: Literal["batch", "wins"] = option(
        "batch", "a winner's loss is divided by the batch size, or by its number of wins", paper="batch"
    )
    competition: bool = option(True, "only the winner learns; --no-competition trains every expert on everything")
    train_critic: bool = option(True, "--no-train-critic leaves the discriminator as it starts (ablation)")
    replicas: int = option(
        1, "whole systems trained side by side on the same batches, from different initialisations", min=1, max=1024
    )
    first_replica: int = option(0, "number of the first replica; trains replica K of a larger run alone", min=0)
    convolution: Literal["auto", "grouped", "gemm"] = option("auto", "how the experts' convolutions are computed")

    def __post_init__(self) -> None:
        names = parse(self.mechanisms)
        for mechanism in names:
            if mechanism.reach > self.depth:
                raise ValueError(
                    f"mechanism '{mechanism.name}' shifts by more than {counted(self.depth, 'pixel')}, which is as far"
                    f" as an expert of {self.depth} convolutions sees; raise --depth"
                )

    @property
    def number(self) -> int:
        """Experts of one replica, its default resolved."""
        return self.experts or len(parse(self.mechanisms))


class ICM(Method[Config]):
    """S replicas of N competing experts and a critic. Code: `expert`, which expert wins an image (of replica `shown`).

    shown: the replica that `encode`, `sample` and `restore` speak of.
    """

    data = "digits28"
    train_defaults: ClassVar[Mapping[str, Any]] = {"steps": 2200, "batch": 32}
    presets: ClassVar[Mapping[str, Any]] = {
        "demo": {
            "model": {
                "mechanisms": ["right:2", "up:2", "invert", "noise"],
                "width": 12,
                "hidden": 256,
                "identity_iters": 150,
            },
            "data": {"name": "digits28", "size": 16, "margin": 3, "augment": False},
            "train": {"steps": 750, "log_every": 50},
        },
        "paper": {"data": {"name": "mnist"}, "train": {"steps": 2200, "log_every": 50}},
    }
    instead: Mapping[str, str] = {
        "traverse": "distk icm grid",
        "reconstruct": "distk icm apply",
        "swap": "distk icm apply",
    }
    pending: Tensor

    def __init__(self, config: Config, data: DataSpec) -> None:
        super().__init__(config, data)
        if tuple(data.range) != (0.0, 1.0):
            raise ValueError(f"mechanisms are defined on pixels in [0, 1], these lie in {list(data.range)}")
        channels, height, width = data.shape
        if min(height, width) < 8:
            raise ValueError(f"the discriminator takes images of at least 8x8 pixels, not {height}x{width}")
        self.number, self.replicas, self.shown = config.number, config.replicas, 0
        self.latents = LatentSpace.of(Latent("expert", "categorical", self.number))
        self.mixture = Mixture(parse(config.mechanisms))
        self.experts = Experts(self.replicas * self.number, channels, config.width, config.depth, config.convolution)
        if config.objective == "gan":
            self.critic: Discriminator | Autoencoder = Discriminator(self.replicas, data.shape, config.hidden)
        else:
            self.critic = Autoencoder(self.replicas, data.shape, config.hidden, config.ae_code)
        # 1 while an expert is still to become the identity; 0 once it has, or for one that came trained.
        self.register_buffer("pending", torch.ones(self.replicas * self.number))
        self._initialise(config)

    def _initialise(self, config: Config) -> None:
        """Replica r starts from a seed of its own, the same one whichever other replicas train beside it."""
        if self.pending.is_meta:  # a checkpoint's header being tried for size
            return
        base = int(torch.randint(2**48, (), device="cpu"))
        for r in range(self.replicas):
            generator = torch.Generator("cpu").manual_seed(base + config.first_replica + r)
            start(self.experts.fans(), slice(r * self.number, (r + 1) * self.number), generator)
            start(self.critic.fans(), slice(r, r + 1), generator)

    # What a step reads

    def collect(self, source: Source, objective: str = "") -> dict[str, Tensor]:
        """`x`: reference images; `moved`: the mixture, images of the other half under mechanisms drawn afresh.

        Also `original`, the images under `moved`, and `mechanism`, int64: training does not read them.
        All replicas read the same batch.
        """
        data = source.dataset
        draw: dict[str, Any] = {"generator": source.generator, "device": data.device}
        total, mine = source.batch * source.world, slice(source.rank * source.batch, (source.rank + 1) * source.batch)
        reference, transformed = self.halves(data, source.batch)
        rows = [half[torch.randint(len(half), (total,), **draw)][mine] for half in (reference, transformed)]
        x, original = data.batch(torch.cat(rows))["x"].split(source.batch)
        which = torch.randint(len(self.mixture), (total,), **draw)[mine]
        noise = torch.randn(total, *original.shape[1:], **draw)[mine]
        return {"x": x, "moved": self.mixture(original, which, noise), "original": original, "mechanism": which}

    def halves(self, data: Dataset, batch: int = 1) -> tuple[Tensor, Tensor]:
        """Rows of the training images that serve as reference, and of those that are only seen transformed.

        Raises UsageError for data too small to be halved.
        """
        cached = self.__dict__.get("_halves")
        if cached is None or cached[0] is not data:
            rows = data.rows_of("train")
            if len(rows) < 2 * batch:
                raise UsageError(
                    f"data set '{data.name}' has {len(rows)} training images; half of them are the reference, so a "
                    f"batch of {batch} needs at least {2 * batch}."
                )
            order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(SPLIT_SEED)).to(data.device)
            cached = self.__dict__["_halves"] = (data, rows[order[len(rows) // 2 :]], rows[order[: len(rows) // 2]])
        return cached[1], cached[2]

    # Objectives

    def objectives(self) -> list[Objective]:
        c = self.config
        made = []
        if c.identity_iters:
            experts = list(self.experts.parameters())
            made.append(Objective("identity", self.identity, experts, expert_adam(c.lr), window=(0, c.identity_iters)))
        if c.train_critic and c.objective == "ae":
            made.append(Objective("autoencoder", self.autoencode, self.critic.parameters(), adam(c.lr)))
        elif c.train_critic:
            made.append(
                Objective(
                    "discriminator",
                    self.discriminate,
                    self.critic.parameters(),
                    adam(c.lr),
                    window=(c.identity_iters, None),
                )
            )
        made.append(
            Objective(
                "experts", self.compete, self.experts.parameters(), expert_adam(c.lr), window=(c.identity_iters, None)
            )
        )
        return made

    def identity(self, step: Step) -> Tensor:
        """Sum over experts of the mean squared difference between output and input, on transformed images.

        An expert whose replica's experts are all below `identity_stop` has no gradient any more.
        """
        moved = step.batch["moved"]
        error = (self.experts(moved) - moved.unsqueeze(1)).pow(2).mean((0, 2, 3, 4))
        step.log("identity_mse", error.mean())
        with torch.no_grad():
            waiting = (error > self.config.identity_stop) & (self.pending > 0)
            unfinished = waiting.view(self.replicas, -1).any(1, keepdim=True).expand(-1, self.number).flatten()
            self.pending.mul_(unfinished)
        return (error * self.pending).sum()

    def autoencode(self, step: Step) -> Tensor:
        """Mean squared error on reference images, summed over replicas."""
        x = step.batch["x"]
        return -self.critic(x.unsqueeze(1).expand(-1, self.replicas, -1, -1, -1)).mean(0).sum()

    def discriminate(self, step: Step) -> Tensor:
        """L_D = -[mean log D(x) + 1/N sum_j mean log(1 - D(E_j(x')))], nats, summed over replicas (Algorithm 1, 5)."""
        x = step.batch["x"].unsqueeze(1).expand(-1, self.replicas, -1, -1, -1)
        outputs = step.memo["outputs"] = self.experts(step.batch["moved"])
        scores = self.critic(torch.cat([x, self._by_replica(outputs.detach())]))
        real, fake = scores[: len(x)], scores[len(x) :]
        step.log("score_reference", real.mean())
        if self.config.score_reuse:
            step.memo["winner"] = fake.detach().view(len(x), self.number, -1).argmax(1)
        return (call_real(real).mean(0) + call_fake(fake).mean(0)).sum()

    def compete(self, step: Step) -> Tensor:
        """L_E = -mean log D(E_j*(x')) of the winner j* by the updated D (Algorithm 1, 6), summed over replicas.

        The gradient of the maximum is that of the winner alone, so only the winners' outputs are scored with one.
        """
        outputs = step.memo.get("outputs")
        if outputs is None:
            outputs = self.experts(step.batch["moved"])
        if not self.config.competition:
            return self._loss(self.critic(self._by_replica(outputs))).mean(0).sum()
        winner = step.memo.get("winner")
        if winner is None:
            with torch.no_grad():
                winner = self.scores(outputs.detach()).argmax(2)
        chose = one_hot(winner, self.number)
        wins = chose.sum(0)
        if self.replicas * self.number <= 32:
            step.log("share", wins / len(winner))
        step.log("winning_experts", (wins > 0).float().sum(1).mean())
        loss = self._loss(self.critic(self._winners(outputs, winner)))
        if self.config.winner_norm == "batch":
            return loss.mean(0).sum()
        return (loss * (chose / wins.clamp_min(1)).sum(2)).sum()

    def _loss(self, scores: Tensor) -> Tensor:
        return call_real(scores) if self.config.objective == "gan" else -scores

    def _by_replica(self, outputs: Tensor) -> Tensor:
        """Outputs `[n, S * N, c, h, w]` -> `[n * N, S, c, h, w]`, as the critics take them."""
        return outputs.unflatten(1, (self.replicas, self.number)).transpose(1, 2).flatten(0, 1)

    def _winners(self, outputs: Tensor, winner: Tensor) -> Tensor:
        """Outputs `[n, S * N, c, h, w]` and winners `[n, S]` -> the winners' outputs `[n, S, c, h, w]`."""
        place = winner[:, :, None, None, None, None].expand(-1, -1, 1, *outputs.shape[2:])
        return outputs.unflatten(1, (self.replicas, self.number)).gather(2, place).squeeze(2)

    # The trained model

    def scores(self, outputs: Tensor) -> Tensor:
        """Outputs `[n, S * N, c, h, w]` -> the critics' scores `[n, S, N]`; the largest wins."""
        return self.critic(self._by_replica(outputs)).view(len(outputs), self.number, -1).transpose(1, 2)

    def restore(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Images `[n, c, h, w]` of the trained size -> the winners' outputs `[n, S, c, h, w]`, the winners `[n, S]`.

        Call in eval mode: a batch of one mechanism has statistics that training never saw.
        """
        outputs = self.experts(x)
        winner = self.scores(outputs).argmax(2)
        return self._winners(outputs, winner), winner

    def expert(self, index: int) -> Experts:
        """One expert of the shown replica as a network of its own: `[n, c, h, w]` of any size -> `[n, 1, c, h, w]`.

        Raises UsageError for a number that no expert has.
        """
        if not 0 <= index < self.number:
            raise UsageError(f"there is no expert {index}; the model has the experts 0 to {self.number - 1}.")
        return self.experts.subset([self.shown * self.number + index])

    def encode(self, x: Tensor) -> Code:
        return {"expert": one_hot(self.restore(x)[1][:, self.shown], self.number)}

    def sample(self, n: int, generator: torch.Generator, **given: int) -> Tensor:
        """Figure 3: `n` transformed test images `[n, c, 2 h, w]`, each above what its winner makes of it."""
        if given:
            raise UsageError(f"a model of method 'icm' has no group or label to hold: {', '.join(given)}.")
        data: Dataset = self.dataset()
        x = data.sample(n, generator, "test")["x"]
        which = torch.randint(len(self.mixture), (n,), generator=generator, device=x.device)
        moved = self.mixture(x, which, torch.randn(x.shape, generator=generator, device=x.device))
        return torch.cat([moved, self.restore(moved)[0][:, self.shown]], 2)
