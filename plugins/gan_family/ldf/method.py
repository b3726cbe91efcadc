"""Locally disentangled factors (anonymous ICLR 2018 submission).

Two levels. Below, one adversarially learned encoder and decoder serves every piece of an item: a cell of an image, a
frame of a clip. Above, a generator makes the codes of all pieces of one item at once. Each level has a discriminator of
its own, none sees all pixels, and no gradient crosses from one level to the other.
"""

from __future__ import annotations

import copy
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from distk import (
    Code,
    Dataset,
    DataSpec,
    Latent,
    LatentSpace,
    Objective,
    Source,
    Step,
    adam,
    option,
)
from distk.console import counted, progress
from distk.method import eval_mode
from distk.nn import call_fake, call_real, reparameterise
from distk.plugins.gan_family.ldf.networks import (
    Decoder,
    Encoder,
    PieceCritic,
    TopCritic,
    TopGenerator,
    as_buffers,
    joined,
    parted,
    plan_of,
    regulariser,
)
from distk.plugins.gan_family.ldf.shared import Shared, Whole, annealed, drawn_below, pieces_of

CACHE = 1 << 30
"""Bytes that the stored codes of the training items may take; beyond, items are encoded for every batch."""


@dataclass(frozen=True)
class Config(Shared):
    """Settings of `ldf`."""

    schedule: Literal["pretrain", "scratch"] = option(
        "pretrain", "the lower level first and then the upper one, or both from the start", paper="both are shown"
    )
    bottom_steps: int = option(2000, "with --schedule pretrain: so many of the steps train the lower level", min=1)
    recon: Literal["shortcut", "latent", "none"] = option(
        "shortcut", "what is reconstructed through: the last hidden layer, or the code", paper="shortcut"
    )
    lambda_r: float = option(10.0, "weight of the reconstruction", min=0)
    cycle: bool = option(True, "the decoder's hidden layer learns to be the encoder's; --no-cycle leaves that out")
    lambda_z: float = option(1.0, "weight of that", min=0)
    d_maxout: bool = option(False, "discriminator of pieces with maxout and dropout throughout, as Dumoulin et al.")
    ema: float = option(
        0.999, "with --schedule scratch: decay of the encoder that the upper level follows", min=0, max=1
    )


class LDF(Whole[Config]):
    """Codes: `piece0` ... `piece{k-1}`, one per piece, and `top`, from which the generator makes all of them.

    pieces: k. shape: of one piece, (channels, height, width).
    """

    slow: nn.Module
    slow_steps: Tensor

    presets: ClassVar[Mapping[str, Any]] = {
        "demo": {
            "model": {"width": 0.25, "top_hidden": 256, "z": 16, "z0": 32, "bottom_steps": 600, "lr": 3e-4},
            "data": {"name": "pacman", "clips": 1000, "held_out": 200},
            "train": {"steps": 1200, "batch": 64, "log_every": 50},
        },
        # 8 epochs of 50,000 images, as Figure 3, after as many steps of the lower level
        "cifar": {
            "model": {"bottom_steps": 4000},
            "data": {"name": "cifar10"},
            "train": {"steps": 8000, "batch": 100},
        },
        # 20,000 clips; 10 epochs of the lower level, 100 of the upper one, which is some thirty times cheaper
        "pacman": {
            "model": {"bottom_steps": 10000},
            "data": {"name": "pacman"},
            "train": {"steps": 30000, "batch": 100},
        },
    }

    def __init__(self, config: Config, data: DataSpec) -> None:
        super().__init__(config, data)
        self.pieces, self.shape = pieces_of(data, config.grid)
        plan = plan_of(self.shape, config.arch)
        self.encoder = Encoder(self.shape, config.z, plan, config.width)
        self.decoder = Decoder(self.shape, config.z, plan, config.width)
        self.critic = PieceCritic(self.shape, config.z, plan, config.width, config.dropout, config.d_maxout)
        self.top = TopGenerator(config.z0, config.top_hidden, self.pieces, config.z)
        self.top_critic = TopCritic(config.top_hidden, self.pieces, config.z)
        if config.schedule == "scratch":
            # What the upper level learns moves with the encoder, so it follows a slow average of it.
            self.slow = as_buffers(copy.deepcopy(self.encoder))
            self.register_buffer("slow_steps", torch.zeros((), dtype=torch.long))
        names = [f"piece{i}" for i in range(self.pieces)]
        self.latents = LatentSpace.of(
            *(Latent(name, "continuous", config.z) for name in names),
            Latent("top", "continuous", config.z0, encoded=False, walked=False),
        )

    # What a step reads

    @property
    def split_at(self) -> int:
        """First step of the upper level."""
        return self.config.bottom_steps if self.config.schedule == "pretrain" else 0

    def phase(self, step: int) -> Hashable:
        """Whether the lower level is done, and codes need be drawn only from what is stored."""
        return self.config.schedule == "pretrain" and step >= self.split_at

    def schedule(self, step: int) -> dict[str, float]:
        below = self.split_at or self.run_steps
        return {
            "gamma/bottom": annealed(self.config, step, below),
            "gamma/top": annealed(self.config, step - self.split_at, self.run_steps - self.split_at),
        }

    def collect(self, source: Source, objective: str = "") -> dict[str, Tensor]:
        """For the lower level `pieces` `[batch, c, h, w]` in [0, 1], of items drawn anew; for the upper one items `x`,
        or `mean` and `logvar` `[batch, k, z]` of their codes, where these are stored."""
        if objective == "ali-critic":
            return {"pieces": self._pieces(source)}
        stored = self.__dict__.get("_stored")
        if stored is None:
            return {"x": self._drawn(source)}
        rows = drawn_below(source, len(stored))
        mean, logvar = stored[rows].chunk(2, 2)
        return {"mean": mean, "logvar": logvar}

    def _pieces(self, source: Source) -> Tensor:
        """A piece of each of `batch` items; of items with many pieces several, so that fewer items need be made."""
        each = -(-self.pieces // 8)
        n = -(-source.batch // each)
        x = parted(self._seen(source.sample(n)["x"]), self.config.grid)
        rank = torch.rand(n * source.world, self.pieces, generator=source.generator, device=x.device).argsort(1)
        chosen = rank[source.rank * n : (source.rank + 1) * n, :each]
        place = chosen.reshape(n, each, 1, 1, 1).expand(-1, -1, *self.shape)
        return x.gather(1, place).flatten(0, 1)[: source.batch]

    def before_step(self, step: int, optimizers: Mapping[str, torch.optim.Optimizer]) -> None:
        """Once the lower level is done, encode all items that may be seen whole, and keep mean and log variance."""
        if "_chosen" in self.__dict__ and (not self.phase(step) or "_stored" in self.__dict__):
            return
        data = self.dataset()
        rows = self.whole_rows(data)  # before the first step, so that too few items are noticed at once
        if not self.phase(step):
            return
        if len(rows) * self.pieces * 2 * self.config.z * 4 <= CACHE:
            self.__dict__["_stored"] = self._encode_all(data, rows)

    @torch.no_grad()
    def _encode_all(self, data: Dataset, rows: Tensor) -> Tensor:
        """Mean and log variance of the codes of these rows, `[rows, k, 2 z]`."""
        found = []
        with eval_mode(self), progress("encoding pieces", len(rows)) as advance:
            for part in rows.split(max(1, 4096 // self.pieces)):
                found.append(torch.cat(self._gaussian(data.batch(part)["x"]), 2))
                advance(len(part))
        return torch.cat(found)

    # Objectives

    def objectives(self) -> list[Objective]:
        config, at = self.config, self.split_at
        rate = adam(config.lr, (config.beta1, 0.999))
        below, above = ((0, at), (at, None)) if at else (None, None)
        makers = [*self.encoder.parameters(), *self.decoder.parameters()]
        follow = self._follow if config.schedule == "scratch" else None
        return [
            Objective(
                "ali-critic",
                self.tell_pairs,
                self.critic.parameters(),
                rate,
                "bottom",
                fresh_batch=True,
                window=below,
                compiles=False,
            ),
            Objective(
                "ali-generator", self.fool_pairs, makers, rate, "bottom", fresh_batch=True, window=below, after=follow
            ),
            Objective(
                "top-critic",
                self.tell_codes,
                self.top_critic.parameters(),
                rate,
                "top",
                fresh_batch=True,
                window=above,
                compiles=False,
            ),
            Objective(
                "top-generator", self.fool_codes, self.top.parameters(), rate, "top", fresh_batch=True, window=above
            ),
        ]

    def tell_pairs(self, step: Step) -> Tensor:
        """L_D = mean -log D(x, q(z|x)) + mean -log(1 - D(G(z), z)) + gamma/2 Omega, nats.

        Keeps in the step's memo what the other player needs, so that both see the same draws.
        """
        x = step.batch["pieces"]
        n = len(x)
        hidden, mean, logvar = self.encoder(x)
        code = reparameterise(mean, (logvar / 2).exp(), step.randn(*mean.shape))
        z = step.randn(n, self.config.z)
        # One pass of the decoder for what is made of noise and for the reconstruction, so that both meet the same
        # batch statistics; likewise for its first layer.
        first = self.decoder.first(torch.cat([z, mean]))
        through = hidden if self.config.recon == "shortcut" else self.decoder.first(code)
        made, again = self.decoder.tail(torch.cat([first[:n], through])).split(n)
        step.memo.update(x=x, hidden=hidden, code=code, z=z, made=made, again=again, first=first[n:])
        pixels, codes = (torch.cat(pair).detach().requires_grad_() for pair in ((x, made), (code, z)))
        score = self.critic(pixels, codes)
        step.log("spread", (logvar / 2).exp().mean())
        cost = step.schedule["gamma/bottom"] / 2 * regulariser(score, n, pixels, codes)
        return call_real(score[:n]).mean() + call_fake(score[n:]).mean() + cost

    def fool_pairs(self, step: Step) -> Tensor:
        """L_EG = mean -log(1 - D(x, q(z|x))) + mean -log D(G(z), z) + lambda_r L_short + lambda_z L_cycle.

        The labels are swapped rather than the sign of the critic's loss, so that gradients do not vanish. L_short: mean
        squared error per pixel of the reconstruction through the encoder's last hidden layer. L_cycle: mean squared
        difference, per unit, of the decoder's hidden layer at the posterior mean from that layer, which is held still.
        """
        config, memo = self.config, step.memo
        n = len(memo["x"])
        score = self.critic(torch.cat([memo["x"], memo["made"]]), torch.cat([memo["code"], memo["z"]]))
        loss = call_fake(score[:n]).mean() + call_real(score[n:]).mean()
        if config.recon != "none":
            error = (memo["x"] - memo["again"]).square().mean()
            step.log("reconstruction", error)
            loss = loss + config.lambda_r * error
        if config.cycle:
            apart = (memo["first"] - memo["hidden"].detach()).square().mean()
            step.log("cycle", apart)
            loss = loss + config.lambda_z * apart
        return loss

    def _follow(self) -> None:
        """Move the slow encoder towards the encoder; faster in the first steps, when that is still far off."""
        self.slow_steps.add_(1)
        n = self.slow_steps.float()
        keep = torch.minimum((1 + n) / (10 + n), torch.full_like(n, self.config.ema))
        for (name, slow), value in zip(self.slow.named_buffers(), self._encoder_values(), strict=True):
            if slow.is_floating_point() and not name.endswith(("running_mean", "running_var")):
                slow.copy_(torch.lerp(value, slow, keep))
            else:
                slow.copy_(value)

    def _encoder_values(self) -> list[Tensor]:
        """The encoder's parameters and buffers in the order of the slow encoder's buffers."""
        values = {**dict(self.encoder.named_parameters()), **dict(self.encoder.named_buffers())}
        return [values[name].detach() for name, _ in self.slow.named_buffers()]

    def tell_codes(self, step: Step) -> Tensor:
        """L_D = mean -log D(codes of an item) + mean -log(1 - D(made codes)) + gamma/2 Omega, nats."""
        real = self._codes(step)
        n = len(real)
        made = step.memo["made codes"] = self.top(step.randn(n, self.config.z0))
        codes = torch.cat([real, made]).detach().requires_grad_()
        score = self.top_critic(codes)
        cost = step.schedule["gamma/top"] / 2 * regulariser(score, n, codes)
        return call_real(score[:n]).mean() + call_fake(score[n:]).mean() + cost

    @torch.no_grad()
    def _codes(self, step: Step) -> Tensor:
        """Codes `[n, k, z]` of the batch's items, drawn from their posteriors."""
        if "mean" in step.batch:
            mean, logvar = step.batch["mean"], step.batch["logvar"]
        else:
            network = self.slow if self.config.schedule == "scratch" else self.encoder
            with eval_mode(network):
                mean, logvar = self._gaussian(step.batch["x"], network)
        return reparameterise(mean, (logvar / 2).exp(), step.randn(*mean.shape))

    def fool_codes(self, step: Step) -> Tensor:
        """L_G = mean -log D(made codes), nats."""
        return call_real(self.top_critic(step.memo["made codes"])).mean()

    # The trained model

    def _gaussian(self, x: Tensor, network: nn.Module | None = None) -> tuple[Tensor, Tensor]:
        """Items -> mean and log variance of their pieces' codes, `[n, k, z]` each."""
        pieces = parted(self._seen(x), self.config.grid)
        _, mean, logvar = (self.encoder if network is None else network)(pieces.flatten(0, 1))
        return mean.unflatten(0, pieces.shape[:2]), logvar.unflatten(0, pieces.shape[:2])

    def _assembled(self, pieces: Tensor) -> Tensor:
        """Pieces `[n * k, c, h, w]` -> items in the data's range."""
        pieces = pieces.unflatten(0, (-1, self.pieces))
        return self._shown(joined(pieces, self.spec.kind, self.config.grid))

    def posterior(self, x: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        mean, logvar = self._gaussian(x)
        pairs = zip(mean.unbind(1), (logvar / 2).exp().unbind(1), strict=True)
        return {f"piece{i}": pair for i, pair in enumerate(pairs)}

    def encode(self, x: Tensor) -> Code:
        return {f"piece{i}": mean for i, mean in enumerate(self._gaussian(x)[0].unbind(1))}

    def decode(self, code: Code) -> Tensor:
        """Takes the pieces' codes where they are given, else makes them from `top`."""
        named = [code.get(f"piece{i}") for i in range(self.pieces)]
        given = [value for value in named if value is not None]
        if not given:
            return self._assembled(self.decoder(self.top(code["top"]).flatten(0, 1)))
        if len(given) < self.pieces:
            raise ValueError(f"the code has {len(given)} of the {counted(self.pieces, 'piece')}")
        return self._assembled(self.decoder(torch.stack(given, 1).flatten(0, 1)))

    def changed(self, code: Code, group: str) -> Code:
        """All pieces follow from `top`."""
        return {"top": code["top"]} if group == "top" else code

    def prior(self, n: int, generator: torch.Generator) -> Code:
        """`top` from N(0, 1), and the pieces' codes that the generator makes of it."""
        z0 = torch.randn(n, self.config.z0, generator=generator, device=generator.device)
        return {**{f"piece{i}": code for i, code in enumerate(self.top(z0).unbind(1))}, "top": z0}

    def interpolate(self, a: Code, b: Code, share: Tensor) -> Code:
        """Between two draws along `top`, from which all pieces follow; between items each piece straight."""
        if "top" in a and "top" in b and not torch.equal(a["top"], b["top"]):
            return self.latents.between({"top": a["top"]}, {"top": b["top"]}, share)
        return self.latents.between(a, b, share)

    def shortcut(self, x: Tensor) -> Tensor:
        """Items -> what the decoder makes of the encoder's last hidden layer, around the code."""
        pieces = parted(self._seen(x), self.config.grid).flatten(0, 1)
        return self._assembled(self.decoder.tail(self.encoder(pieces)[0]))

    def loose_pieces(self, n: int, generator: torch.Generator) -> Tensor:
        """`n` pieces `[n, c, h, w]` of the lower level alone, from its prior N(0, 1)."""
        z = torch.randn(n, self.config.z, generator=generator, device=generator.device)
        return self._shown(self.decoder(z))
