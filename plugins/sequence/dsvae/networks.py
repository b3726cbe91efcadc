"""Networks of DSVAE: frame encoders and decoders, the posteriors of f and z, and the prior of z.

Frames are folded into the batch for every convolution; time is left to `nn.LSTM` and `nn.RNN`. LReLU has slope 0.2,
batch norm starts at weight 1 and bias 0, and a convolution or linear layer before a batch norm has no bias.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from distk import DataSpec
from distk.nn import reparameterise, up
from distk.plugins.sequence.networks import last_states

POSTERIORS = ("full", "factorized", "factorized-rnn", "factorized-ar", "full-ar")


def _act() -> nn.Module:
    return nn.LeakyReLU(0.2, inplace=True)


def _linear(fan_in: int, fan_out: int) -> list[nn.Module]:
    return [nn.Linear(fan_in, fan_out, bias=False), nn.BatchNorm1d(fan_out), _act()]


def reduction(arch: str) -> int:
    """How many times smaller the convolutions make an image side: 16 or 8."""
    return 16 if arch == "das-dandi" else 8


def _last_side(arch: str, spec: DataSpec) -> int:
    """Side of the smallest feature map. Raises ValueError for images that the architecture does not take."""
    *_, height, width = spec.shape
    if height != width or height % reduction(arch):
        raise ValueError(
            f"--arch {arch} takes square frames with a side divisible by {reduction(arch)}, not {height}x{width}"
        )
    return height // reduction(arch)


def frame_encoder(arch: str, spec: DataSpec, channels: int, out: int, dropout: float) -> nn.Sequential:
    """Frames `[n, c, s, s]` (or `[n, d]` for mlp) -> features `[n, out]`.

    das-dandi: four convolutions 4/2/1 and one linear layer. li-mandt: convolutions 5/1/2 and three of 5/2/2, linear
    layers to 2 * out and out. mlp: one linear layer. Raises ValueError for frames of another size.
    """
    if arch == "mlp":
        return nn.Sequential(nn.Linear(spec.shape[-1], out), _act())
    side = _last_side(arch, spec)
    drop = [nn.Dropout2d(dropout)] if dropout else []
    layers: list[nn.Module] = []
    if arch == "das-dandi":
        layers += [nn.Conv2d(spec.shape[1], channels, 4, 2, 1), _act(), *drop]
        kernel, padding = 4, 1
    else:
        layers += [nn.Conv2d(spec.shape[1], channels, 5, 1, 2, bias=False), nn.BatchNorm2d(channels), _act(), *drop]
        kernel, padding = 5, 2
    for _ in range(3):
        layers += [nn.Conv2d(channels, channels, kernel, 2, padding, bias=False), nn.BatchNorm2d(channels), _act()]
        layers += drop
    flat = channels * side * side
    heads = _linear(flat, out) if arch == "das-dandi" else [*_linear(flat, 2 * out), *_linear(2 * out, out)]
    return nn.Sequential(*layers, nn.Flatten(), *heads)


def frame_decoder(arch: str, spec: DataSpec, channels: int, code: int, features: int) -> nn.Sequential:
    """Codes `[n, code]` = [z_t, f] -> frames in [-1, 1] `[n, c, s, s]` (mlp: unbounded `[n, d]`).

    features: as the encoder's output; the hidden layer of mlp and li-mandt has 2 * features units.
    """
    if arch == "mlp":
        return nn.Sequential(nn.Linear(code, 2 * features), _act(), nn.Linear(2 * features, spec.shape[-1]))
    side = _last_side(arch, spec)
    flat = channels * side * side
    layers: list[nn.Module] = []
    if arch == "das-dandi":
        layers += _linear(code, flat)
    else:
        layers += [nn.Linear(code, 2 * features), _act(), nn.Linear(2 * features, flat), _act()]
    layers.append(nn.Unflatten(1, (channels, side, side)))
    if arch == "das-dandi":
        layers += up([*[channels] * 4, spec.shape[1]], activation=_act, norm=nn.BatchNorm2d)
    else:
        layers += up([channels] * 4, 5, activation=_act, norm=nn.BatchNorm2d, output=False)
        layers.append(nn.ConvTranspose2d(channels, spec.shape[1], 5, 1, 2))
    return nn.Sequential(*layers, nn.Tanh())


def moments(head: Tensor) -> tuple[Tensor, Tensor]:
    """`[..., 2k]` -> mean and log variance `[..., k]`; bfloat16 becomes float32, in which KL and exp are taken."""
    head = head.float() if head.dtype in (torch.bfloat16, torch.float16) else head
    mean, logvar = head.chunk(2, -1)
    return mean, logvar


class StaticPosterior(nn.Module):
    """q(f | x): biLSTM over frame features -> Linear mean and log variance, without activation on either."""

    def __init__(self, features: int, hidden: int, size: int, dropout: float) -> None:
        super().__init__()
        self.lstm = nn.LSTM(features, hidden, batch_first=True, bidirectional=True)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(2 * hidden, 2 * size)

    def forward(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """Features `[b, t, v]` -> mean and log variance, float32 `[b, size]`."""
        return moments(self.head(self.dropout(last_states(self.lstm, v))))


class DynamicPosterior(nn.Module):
    """q(z_{1:T} | ...): five factorisations, chosen by `form`.

    full: [v_t, f] -> biLSTM -> RNN. factorized: v_t alone. factorized-rnn: as full without f. These three give all
    z_t at once. factorized-ar and full-ar feed the sampled z_{t-1} into an RNN cell and walk through time.
    """

    def __init__(self, form: str, features: int, hidden: int, f: int, size: int, dropout: float) -> None:
        super().__init__()
        self.form, self.size = form, size
        self.uses_f = form in ("full", "full-ar")
        self.recurrent = form.endswith("-ar")
        width = features + (f if self.uses_f else 0)
        self.lstm: nn.LSTM | None = None
        if form in ("full", "factorized-rnn", "full-ar"):
            self.lstm = nn.LSTM(width, hidden, batch_first=True, bidirectional=True)
            width = 2 * hidden
        self.from_input: nn.Module
        if self.recurrent:
            self.from_input = nn.Linear(width, hidden)
            self.from_z = nn.Linear(size, hidden, bias=False)
            self.from_state = nn.Linear(hidden, hidden, bias=False)
        elif form == "factorized":
            self.from_input = nn.Sequential(nn.Linear(width, hidden), _act())
        else:
            self.from_input = nn.RNN(width, hidden, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(hidden, 2 * size)

    def forward(self, v: Tensor, f: Tensor, noise: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Features `[b, t, v]`, code f `[b, f]`, standard normal noise `[b, t, size]` (None: no noise, z = mean).

        Returns mean, log variance and sample of every z_t, float32 `[b, t, size]`.
        """
        if self.uses_f:
            v = torch.cat([v, f.to(v.dtype).unsqueeze(1).expand(-1, v.shape[1], -1)], 2)
        if self.lstm is not None:
            v = self.lstm(v)[0]
        if self.recurrent:
            return self._walk(self.from_input(v), noise)
        hidden = self.from_input(v)
        hidden = hidden[0] if isinstance(hidden, tuple) else hidden
        mean, logvar = moments(self.head(self.dropout(hidden)))
        return mean, logvar, mean if noise is None else reparameterise(mean, (0.5 * logvar).exp(), noise)

    def _walk(self, projected: Tensor, noise: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """The part of the recurrence that depends on z; what depends on x was projected for all t in one product."""
        state = projected.new_zeros(projected.shape[0], projected.shape[2])
        z = projected.new_zeros(projected.shape[0], self.size)
        means, logvars, samples = [], [], []
        for t in range(projected.shape[1]):
            state = torch.tanh(projected[:, t] + self.from_z(z) + self.from_state(state))
            mean, logvar = moments(self.head(self.dropout(state)))
            z = mean if noise is None else reparameterise(mean, (0.5 * logvar).exp(), noise[:, t])
            means.append(mean)
            logvars.append(logvar)
            samples.append(z)
        return torch.stack(means, 1), torch.stack(logvars, 1), torch.stack(samples, 1)


class StandardPrior(nn.Module):
    """p(z_t) = N(0, I), independent over time."""

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Samples `[b, t, size]` -> mean and log variance of each z_t given the ones before it: zeros."""
        zero = torch.zeros_like(z)
        return zero, zero

    def rollout(self, noise: Tensor, past: Tensor | None = None) -> Tensor:
        """Standard normal noise `[b, t, size]` -> samples of the prior, whatever came before."""
        return noise


class LearnedPrior(nn.Module):
    """p(z_t | z_{<t}): LSTM over the previous samples, z_0 = 0 and state 0, linear mean and log variance."""

    def __init__(self, size: int, hidden: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(size, hidden, batch_first=True)
        self.head = nn.Linear(hidden, 2 * size)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Teacher-forced: the moments of z_t after the LSTM has read the samples z_1 .. z_{t-1} given here.

        z: `[b, t, size]`. Returns mean and log variance, float32 `[b, t, size]`.
        """
        before = torch.cat([torch.zeros_like(z[:, :1]), z[:, :-1]], 1)
        return moments(self.head(self.lstm(before)[0]))

    def rollout(self, noise: Tensor, past: Tensor | None = None) -> Tensor:
        """Ancestral sampling: standard normal noise `[b, t, size]` -> z_1 .. z_t, each fed back.

        past: z `[b, k, size]` that came before; the samples are then z_{k+1} .. z_{k+t}.
        """
        z, state, samples = torch.zeros_like(noise[:, 0]), None, []
        if past is not None:
            before = torch.cat([torch.zeros_like(past[:, :1]), past[:, :-1]], 1)
            z, (_, state) = past[:, -1], self.lstm(before)
        for t in range(noise.shape[1]):
            hidden, state = self.lstm(z.unsqueeze(1), state)
            mean, logvar = moments(self.head(hidden[:, 0]))
            z = reparameterise(mean, (0.5 * logvar).exp(), noise[:, t])
            samples.append(z)
        return torch.stack(samples, 1)
