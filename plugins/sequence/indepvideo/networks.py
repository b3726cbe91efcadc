"""Networks of indepvideo: frame encoder and decoder, the transitions of all factors at once, and the combination.

Frames are folded into the batch for every convolution; only the transition and the combination, which need the state
before, walk through time.
"""

from __future__ import annotations

import itertools
import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distk import DataSpec
from distk.nn import down, up

SMALLEST = 4
"""Side of the last feature map."""


def _leaky() -> nn.Module:
    return nn.LeakyReLU(0.01)


def halvings(spec: DataSpec) -> int:
    """How many layers of stride 2 bring a frame's side to 4. Raises ValueError for frames of another shape."""
    *_, height, width = spec.shape
    layers = round(math.log2(height / SMALLEST))
    if height != width or layers < 2 or height != SMALLEST << layers:
        raise ValueError(f"frames must be squares of side 16, 32, 64 or 128, not {height}x{width}")
    return layers


def frame_encoder(spec: DataSpec, channels: int, features: int) -> nn.Sequential:
    """Frames `[n, c, s, s]` -> features `[n, features]`: the DCGAN discriminator of Appendix A.

    Convolutions 4/2/1 from `channels`, doubled at each, down to 4x4, all with batch norm; then one of 4/1/0.
    """
    widths = [spec.shape[1], *(channels << i for i in range(halvings(spec)))]
    layers = down(widths, activation=_leaky, norm=nn.BatchNorm2d, norm_first=True, bias=True)
    return nn.Sequential(*layers, nn.Conv2d(widths[-1], features, SMALLEST), _leaky(), nn.Flatten())


def frame_decoder(spec: DataSpec, channels: int, code: int) -> nn.Sequential:
    """States `[n, code]` -> means of the pixels, in [0, 1], `[n, c, s, s]`: the DCGAN generator of Appendix A.

    Appendix A ends every layer in a ReLU; on the last one it would leave nothing to fit but the positive half of an
    unbounded mean, so there a sigmoid stands, as in the authors' program.
    """
    widths = [channels << i for i in reversed(range(halvings(spec)))]
    return nn.Sequential(
        nn.Linear(code, code),
        nn.ReLU(),
        nn.Unflatten(1, (code, 1, 1)),
        nn.ConvTranspose2d(code, widths[0], SMALLEST),
        nn.BatchNorm2d(widths[0]),
        nn.ReLU(),
        *up([*widths, spec.shape[1]], norm=nn.BatchNorm2d, bias=True),
        nn.Sigmoid(),
    )


def moments(head: Tensor) -> tuple[Tensor, Tensor]:
    """`[..., 2d]` -> mean and log variance `[..., d]`; half precision becomes float32, for KL and exp."""
    head = head.float() if head.dtype in (torch.bfloat16, torch.float16) else head
    mean, logvar = head.chunk(2, -1)
    return mean, logvar


class Transitions(nn.Module):
    """p(z_t^i | z_{t-1}^i) of k factors of d dimensions: k networks that share nothing, computed side by side.

    Each is `layers` linear layers with SELU between them, `hidden` wide: d -> hidden -> ... -> mean and log variance.
    With memory 2 a network reads z_{t-2}^i and z_{t-1}^i. One factor that is the whole state is the entangled model.
    limit: largest absolute log variance; 0 leaves it free.
    """

    def __init__(self, factors: int, size: int, memory: int, layers: int, hidden: int, limit: float = 0.0) -> None:
        super().__init__()
        self.factors, self.size, self.memory, self.limit = factors, size, memory, limit
        widths = [memory * size, *[hidden] * (layers - 1), 2 * size]
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for fan_in, fan_out in itertools.pairwise(widths):
            edge = 1 / math.sqrt(fan_in)  # where nn.Linear starts
            self.weights.append(nn.Parameter(torch.empty(factors, fan_in, fan_out).uniform_(-edge, edge)))
            self.biases.append(nn.Parameter(torch.empty(factors, 1, fan_out).uniform_(-edge, edge)))

    def forward(self, past: Tensor) -> tuple[Tensor, Tensor]:
        """The last `memory` states, the oldest first, `[b, memory, k * d]` -> mean and log variance of the next.

        Returns float32 `[b, k * d]` each.
        """
        x = past.unflatten(2, (self.factors, self.size)).permute(2, 0, 1, 3).flatten(2)
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = torch.baddbmm(bias, F.selu(x) if i else x, weight)
        mean, logvar = (half.transpose(0, 1).flatten(1) for half in moments(x))
        return mean, logvar.clamp(-self.limit, self.limit) if self.limit else logvar


class Combination(nn.Module):
    """q(z_t | frame, prediction): what a frame shows and what the transition foretells -> mean and log variance.

    paper: each of frame, predicted mean and predicted log variance through a linear layer of its own, then one over
    all three (Appendix A). raw: the prediction enters that last one as it is, as in the authors' program. Appendix A
    puts a leaky ReLU behind every layer; the two heads have none, for means and log variances have both signs.
    """

    def __init__(self, features: int, code: int, hidden: int, form: Literal["paper", "raw"]) -> None:
        super().__init__()
        self.raw = form == "raw"
        self.from_frame = nn.Linear(features, hidden)
        if not self.raw:
            self.from_mean, self.from_logvar = nn.Linear(code, hidden), nn.Linear(code, hidden)
        self.joint = nn.Linear(hidden + 2 * (code if self.raw else hidden), hidden)
        self.head = nn.Linear(hidden, 2 * code)

    def frame(self, features: Tensor) -> Tensor:
        """What a frame says, for all frames at once: `[..., features]` -> `[..., hidden]`."""
        return F.leaky_relu(self.from_frame(features))

    def forward(self, frame: Tensor, mean: Tensor, logvar: Tensor) -> tuple[Tensor, Tensor]:
        """`frame` `[b, hidden]`, prediction `[b, code]` each -> mean and log variance, float32 `[b, code]`."""
        if not self.raw:
            mean, logvar = F.leaky_relu(self.from_mean(mean)), F.leaky_relu(self.from_logvar(logvar))
        return moments(self.head(F.leaky_relu(self.joint(torch.cat([frame, mean, logvar], -1)))))
