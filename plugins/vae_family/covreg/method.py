"""The small networks of covreg's experiments (Kageback & Mogren 2016): covreg-linear, covreg-xor, covreg-conv.

They are trained like every method, and their penalty is an ordinary one: `--penalty-weight 0` is the paper's baseline,
`--penalty l1act` its comparison. What the paper does not say (decoder, activations, learning rates) is chosen here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distk import Code, DataSpec, Latent, LatentSpace, Method, Objective, Source, Step, adam, option
from distk.config import C


class FullBatch(Method[C]):
    """A method whose batch, where `--batch` reaches the number of training items, is each of them once, in order."""

    def collect(self, source: Source, objective: str = "") -> dict[str, Tensor]:
        data = source.dataset
        rows = data.rows_of(source.split)
        if source.batch * source.world < len(rows):
            return source.sample()
        share = -(-len(rows) // source.world)
        # Equal shares for all devices; where they do not come out even, the first items are there twice.
        rows = torch.cat([rows, rows[: share * source.world - len(rows)]])
        return data.batch(rows[source.rank * share : (source.rank + 1) * share])


class Affine(nn.Linear):
    """A linear layer that also works with stacked parameters: weight `[M, out, in]` maps `[M, n, in]`."""

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight.mT + self.bias.unsqueeze(-2)


# Linear


class LinearNet(nn.Module):
    """x `[n, dims]` -> (reconstruction `[n, dims]`, {"code": `[n, p]`}); two linear layers with biases."""

    def __init__(self, dims: int, code: int) -> None:
        super().__init__()
        self.encoder, self.decoder = Affine(dims, code), Affine(code, dims)

    def forward(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        h = self.encoder(x)
        return self.decoder(h), {"code": h}


@dataclass(frozen=True)
class LinearConfig:
    """Hyperparameters of covreg-linear."""

    code: int = option(10, "units of the coding layer", paper="10", min=1, max=4096)
    lr: float = option(1e-3, "learning rate of Adam", paper="1e-3", above=0)


class CovregLinear(FullBatch[LinearConfig]):
    """Linear autoencoder with squared error. Code: `code`, the coding layer."""

    data = "dimred"
    kinds = ("vector",)
    taps = ("code",)
    train_defaults: ClassVar[Mapping[str, Any]] = {
        "steps": 10_000,
        "batch": 10_000,
        "log_every": 500,
        "penalty": ("covreg",),
        "penalty_weight": 0.1,
    }
    presets: ClassVar[Mapping[str, Any]] = {
        "demo": {"data": {"name": "dimred", "items": 1000}, "train": {"steps": 5000, "batch": 1000}},
        "paper": {"train": {"steps": 10_000, "batch": 10_000}},
    }

    def __init__(self, config: LinearConfig, data: DataSpec) -> None:
        super().__init__(config, data)
        if len(data.shape) != 1:
            raise ValueError(f"it takes plain vectors, not items of shape {tuple(data.shape)}")
        self.latents = LatentSpace.of(Latent("code", "continuous", config.code))
        self.net = LinearNet(data.shape[0], config.code)

    def objectives(self) -> list[Objective]:
        return [Objective("mse", self.mse, self.parameters(), adam(self.config.lr))]

    def mse(self, step: Step) -> Tensor:
        """Squared error, mean over the batch and the dimensions."""
        output, layers = self.net(step.batch["x"])
        step.tap("code", layers["code"])
        return F.mse_loss(output, step.batch["x"])

    def encode(self, x: Tensor) -> Code:
        return {"code": self.net.encoder(x)}

    def decode(self, code: Code) -> Tensor:
        return self.net.decoder(code["code"])


# XOR


class XorNet(nn.Module):
    """x `[n, dims]` -> (logit `[n]`, {"hidden1", "hidden2": `[n, width]`}); all units sigmoid, weights from N(0, 1)."""

    def __init__(self, dims: int, width: int = 4) -> None:
        super().__init__()
        self.first, self.second, self.last = Affine(dims, width), Affine(width, width), Affine(width, 1)
        for layer in (self.first, self.second, self.last):
            nn.init.normal_(layer.weight)
            nn.init.normal_(layer.bias)

    def forward(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        one = self.first(x).sigmoid()
        two = self.second(one).sigmoid()
        return self.last(two).squeeze(-1), {"hidden1": one, "hidden2": two}


@dataclass(frozen=True)
class XorConfig:
    """Hyperparameters of covreg-xor."""

    width: int = option(4, "units of each hidden layer", paper="4", min=1, max=4096)
    loss: Literal["bce", "mse"] = option("bce", "cross-entropy, or squared error of the output unit")
    lr: float = option(1e-2, "learning rate of Adam", above=0)


class CovregXor(FullBatch[XorConfig]):
    """A 2-4-4-1 classifier. Code: `hidden1` and `hidden2`, its hidden layers; it decodes nothing."""

    data = "xor"
    kinds = ("vector",)
    taps = ("hidden1", "hidden2")
    train_defaults: ClassVar[Mapping[str, Any]] = {
        "steps": 8000,
        "batch": 4,
        "log_every": 500,
        "penalty": ("covreg",),
        "penalty_weight": 0.2,
        "penalty_layer": ("hidden1", "hidden2"),
    }
    presets: ClassVar[Mapping[str, Any]] = {"paper": {"train": {"steps": 8000}}}

    def __init__(self, config: XorConfig, data: DataSpec) -> None:
        super().__init__(config, data)
        if len(data.shape) != 1 or len(data.classes) != 2:
            raise ValueError("it takes plain vectors of two classes, as xor has them")
        self.latents = LatentSpace.of(*(Latent(name, "continuous", config.width) for name in self.taps))
        self.net = XorNet(data.shape[0], config.width)

    def objectives(self) -> list[Objective]:
        return [Objective(self.config.loss, self.error, self.parameters(), adam(self.config.lr))]

    def error(self, step: Step) -> Tensor:
        """Cross-entropy in nats, or squared error, mean over the batch."""
        logit, layers = self.net(step.batch["x"])
        for name, h in layers.items():
            step.tap(name, h)
        target = step.batch["label"].to(logit.dtype)
        step.log("solved", ((logit > 0) == (target > 0.5)).float().mean())
        if self.config.loss == "mse":
            return F.mse_loss(logit.sigmoid(), target)
        return F.binary_cross_entropy_with_logits(logit, target)

    def encode(self, x: Tensor) -> Code:
        return self.net(x)[1]


# Convolutional


class ConvNet(nn.Module):
    """Images on [-1, 1] `[n, c, s, s]` -> (reconstruction, {"code": `[n, p]`}). At 32x32 in colour 493,580 parameters.

    5x5 convolutions of 6 and 16 maps with 2x2 max pooling and ReLU, 120 units, a linear code; 136 units, tanh.
    """

    def __init__(self, shape: tuple[int, ...], code: int) -> None:
        super().__init__()
        channels, height, width = shape
        places = [((side - 4) // 2 - 4) // 2 for side in (height, width)]
        self.encoder = nn.Sequential(
            *(nn.Conv2d(channels, 6, 5), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Flatten(), nn.Linear(16 * places[0] * places[1], 120), nn.ReLU(), nn.Linear(120, code)),
        )
        pixels = channels * height * width
        self.decoder = nn.Sequential(
            nn.Linear(code, 136), nn.ReLU(), nn.Linear(136, pixels), nn.Tanh(), nn.Unflatten(1, shape)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        h = self.encoder(x)
        return self.decoder(h), {"code": h}


@dataclass(frozen=True)
class ConvConfig:
    """Hyperparameters of covreg-conv."""

    code: int = option(84, "units of the coding layer", paper="84", min=1, max=4096)
    lr: float = option(1e-3, "learning rate of Adam", paper="1e-3", above=0)


class CovregConv(Method[ConvConfig]):
    """Convolutional autoencoder with squared error on pixels in [-1, 1]. Code: `code`, the coding layer."""

    data = "cifar10"
    taps = ("code",)
    train_defaults: ClassVar[Mapping[str, Any]] = {
        "steps": 45_000,
        "batch": 100,
        "penalty": ("covreg",),
        "penalty_weight": 0.08,
    }
    presets: ClassVar[Mapping[str, Any]] = {
        "demo": {"data": {"name": "deadleaves", "train": 2000, "test": 500}, "train": {"steps": 300, "log_every": 50}},
        # Section 3.4: 5,000 of 50,000 images set aside, early stopping; the patience of ten epochs is ours.
        "paper": {
            "train": {
                "steps": 45_000,
                "batch": 100,
                "validation": 0.1,
                "keep": "best:reconstruction",
                "eval_every": 450,
                "patience": 10,
            }
        },
    }

    def __init__(self, config: ConvConfig, data: DataSpec) -> None:
        super().__init__(config, data)
        if len(data.shape) != 3 or min(data.shape[1:]) < 16:
            raise ValueError(f"it takes images of at least 16x16 pixels, not items of shape {tuple(data.shape)}")
        self.latents = LatentSpace.of(Latent("code", "continuous", config.code))
        self.net = ConvNet(data.shape, config.code)

    def objectives(self) -> list[Objective]:
        return [Objective("mse", self.mse, self.parameters(), adam(self.config.lr))]

    def mse(self, step: Step) -> Tensor:
        """Squared error on [-1, 1], mean over the batch and all values."""
        x = to_signed(step.batch["x"], self.spec.range)
        output, layers = self.net(x)
        step.tap("code", layers["code"])
        return F.mse_loss(output, x)

    def encode(self, x: Tensor) -> Code:
        return {"code": self.net.encoder(to_signed(x, self.spec.range))}

    def decode(self, code: Code) -> Tensor:
        low, high = self.spec.range
        return (self.net.decoder(code["code"]) + 1) * ((high - low) / 2) + low


def to_signed(x: Tensor, span: tuple[float, float]) -> Tensor:
    """Values in `span` -> [-1, 1]."""
    low, high = span
    return (x - low) * (2 / (high - low)) - 1
