"""Generators of frames and of scenes, and critics of images and of clips (DCGAN's shape in two and three dimensions).

Every network halves or doubles the frame's sides `halvings` times; what is left, side / 2^halvings, is the size of
the first or last kernel. Pixels lie in [-1, 1]. No convolution has a bias.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor, nn

from distk.console import counted
from distk.nn import up

Randn = Callable[..., Tensor]
"""`randn(rows, *shape)` draws standard normal noise; `Step.randn` is one."""


def first_side(side: int, halvings: int) -> int:
    """Side of the smallest map. Raises ValueError where frames cannot be halved so often."""
    if side % (1 << halvings):
        raise ValueError(
            f"frames of {side}x{side} pixels cannot be halved {counted(halvings, 'time')}: "
            f"the side must be a multiple of {1 << halvings} (or lower --halvings)"
        )
    return side >> halvings


def _widths(width: int, halvings: int) -> list[int]:
    return [width << i for i in range(halvings)]


class FrameGenerator(nn.Module):
    """G_I: codes `[n, code]` -> frames `[n, channels, side, side]` in [-1, 1].

    At side 64 and width 64: 4x4 maps of 512 channels, then 256, 128, 64 and the pixels.
    """

    def __init__(self, code: int, channels: int, side: int, width: int, halvings: int) -> None:
        super().__init__()
        widths = _widths(width, halvings)[::-1]
        start = nn.ConvTranspose2d(code, widths[0], first_side(side, halvings), bias=False)
        layers = up([*widths, channels], norm=nn.BatchNorm2d, bias=False)
        self.layers = nn.Sequential(start, nn.BatchNorm2d(widths[0]), nn.ReLU(), *layers, nn.Tanh())

    def forward(self, code: Tensor) -> Tensor:
        pixels: Tensor = self.layers(code[:, :, None, None])
        return pixels


class SceneGenerator(nn.Module):
    """VGAN's generator: codes `[n, code]` -> clips `[n, t, channels, side, side]` in [-1, 1], and the mask
    `[n, t, 1, side, side]` in [0, 1] of what is foreground.

    A stream of three dimensions makes foreground and mask, one of two dimensions a background that stands still;
    the clip is mask * foreground + (1 - mask) * background (Vondrick et al. 2016, eq. 2).
    """

    def __init__(self, code: int, channels: int, frames: int, side: int, width: int, halvings: int) -> None:
        super().__init__()
        if frames % (1 << halvings):
            raise ValueError(
                f"vgan doubles the length of its clips {counted(halvings, 'time')}, so their frames must be a multiple"
                f" of {1 << halvings}, not {frames}"
            )
        widths = _widths(width, halvings)[::-1]
        edge = first_side(side, halvings)
        layers: list[nn.Module] = [
            nn.ConvTranspose3d(code, widths[0], (frames >> halvings, edge, edge), bias=False),
            nn.BatchNorm3d(widths[0]),
            nn.ReLU(),
        ]
        for fan_in, fan_out in itertools.pairwise(widths):
            layers += [nn.ConvTranspose3d(fan_in, fan_out, 4, 2, 1, bias=False), nn.BatchNorm3d(fan_out), nn.ReLU()]
        self.foreground = nn.Sequential(*layers, nn.ConvTranspose3d(widths[-1], channels + 1, 4, 2, 1, bias=False))
        self.background = FrameGenerator(code, channels, side, width, halvings)

    def forward(self, code: Tensor) -> tuple[Tensor, Tensor]:
        moving = self.foreground(code[:, :, None, None, None])
        pixels, mask = moving[:, :-1].tanh(), moving[:, -1:].sigmoid()
        clips = mask * pixels + (1 - mask) * self.background(code).unsqueeze(2)
        return clips.transpose(1, 2), mask.transpose(1, 2)


class Critic(nn.Module):
    """Strided convolutions of kernel 4 with LeakyReLU 0.2 and, but for the first, batch norm; then logits.

    net: `nn.Conv2d` or `nn.Conv3d`. stride, padding: of the strided layers. head: kernel of a last convolution over
    what is left, one logit per item; None makes the last strided layer give the logits, one per patch.
    outputs: logits per place, the first of which says "real". sigma: standard deviation of the noise that is added
    before every convolution but a head (instance noise).
    """

    def __init__(
        self,
        net: type[nn.Conv2d] | type[nn.Conv3d],
        channels: int,
        width: int,
        halvings: int,
        stride: tuple[int, ...],
        padding: tuple[int, ...],
        head: tuple[int, ...] | None,
        outputs: int = 1,
        sigma: float = 0.0,
    ) -> None:
        super().__init__()
        norm = nn.BatchNorm2d if net is nn.Conv2d else nn.BatchNorm3d
        widths = _widths(width, halvings if head is not None else halvings - 1)
        self.sigma, self.patches = sigma, head is None
        self.stages = nn.ModuleList()
        for i, (fan_in, fan_out) in enumerate(itertools.pairwise([channels, *widths])):
            layers: list[nn.Module] = [net(fan_in, fan_out, 4, stride, padding, bias=False)]  # type: ignore[arg-type]
            layers += [norm(fan_out)] if i else []
            self.stages.append(nn.Sequential(*layers, nn.LeakyReLU(0.2)))
        last = [channels, *widths][-1]
        self.head = (
            net(last, outputs, 4, stride, padding, bias=False)  # type: ignore[arg-type]
            if head is None
            else net(last, outputs, head, bias=False)  # type: ignore[arg-type]
        )

    def forward(self, x: Tensor, randn: Randn | None = None) -> Tensor:
        """x `[n, channels, ...]` in [-1, 1] -> logits float32 `[n, outputs, ...]`. randn: source of the noise, or None
        for none."""
        for stage in self.stages:
            x = stage(self._noisy(x, randn))
        x = self._noisy(x, randn) if self.patches else x
        logits: Tensor = self.head(x)
        return logits.float()

    def _noisy(self, x: Tensor, randn: Randn | None) -> Tensor:
        return x if randn is None or not self.sigma else x + self.sigma * randn(len(x), *x.shape[1:])


def image_critic(kind: str, channels: int, side: int, width: int, halvings: int, sigma: float) -> Critic:
    """D_I: frames `[n, channels, side, side]` -> `[n, 1, 1, 1]` for `image`, `[n, 1, 4, 4]` at side 64 for `patch`."""
    edge = first_side(side, halvings)
    head = (edge, edge) if kind == "image" else None
    return Critic(nn.Conv2d, channels, width, halvings, (2, 2), (1, 1), head, sigma=sigma)


def video_critic(
    kind: str, channels: int, frames: int, side: int, width: int, halvings: int, classes: int, sigma: float
) -> Critic:
    """D_V: clips `[n, channels, t, side, side]` -> `[n, 1 + classes, 1, 1, 1]` for `video`, `[n, 1, t - 12, 4, 4]` at
    side 64 for `patch`. A layer halves the sides and takes three frames, so that t - 3 * halvings must be left.

    Raises ValueError for clips that are too short.
    """
    left, edge = frames - 3 * halvings, first_side(side, halvings)
    if left < 1:
        raise ValueError(
            f"the video discriminator takes clips of at least {counted(3 * halvings + 1, 'frame')} with --halvings"
            f" {halvings}, not {frames}"
        )
    head = (left, edge, edge) if kind == "video" else None
    return Critic(nn.Conv3d, channels, width, halvings, (1, 2, 2), (0, 1, 1), head, 1 + classes, sigma)


def scene_critic(channels: int, frames: int, side: int, width: int, halvings: int) -> Critic:
    """VGAN's: clips `[n, channels, t, side, side]` -> `[n, 1, 1, 1, 1]`; time is halved with the sides."""
    edge = first_side(side, halvings)
    return Critic(nn.Conv3d, channels, width, halvings, (2,) * 3, (1,) * 3, (frames >> halvings, edge, edge))


def dcgan_start(module: nn.Module) -> None:
    """Convolutions N(0, 0.02), batch norms' weights N(1, 0.02) and biases 0, in place (Radford et al. 2016)."""
    for layer in module.modules():
        if isinstance(layer, nn.modules.conv._ConvNd):
            nn.init.normal_(layer.weight, 0.0, 0.02)
        elif isinstance(layer, nn.modules.batchnorm._BatchNorm):
            nn.init.normal_(layer.weight, 1.0, 0.02)
            nn.init.zeros_(layer.bias)


def as_volume(clips: Tensor) -> Tensor:
    """Clips `[n, t, c, h, w]` -> `[n, c, t, h, w]`, as three-dimensional convolutions take them; contiguous."""
    return clips.transpose(1, 2).contiguous(memory_format=torch.contiguous_format)
