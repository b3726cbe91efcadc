"""The grid world with two digits (Thomas et al. 2018, B.1): first odd, second even, four moves each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from distk import DataSpec, Files, open_dataset, option
from distk.data import Dataset
from distk.errors import UsageError
from distk.plugins.rl_control.data.environments import EXAMPLES, TABLE_LIMIT, TableEnv

IDX = "*images-idx3-ubyte*"
DIGIT, STRIDE, MARGIN = 14, 6, 4
"""Pixels: size of a digit, distance of two positions, and what a 6x6 grid leaves around (48 = 5 * 6 + 14 + 4)."""
MOVES = ((1, 0), (0, -1), (0, 1), (-1, 0))
NAMES = ("down", "left", "right", "up")


@dataclass(frozen=True)
class Config:
    """The grid and its digits."""

    positions: int = option(6, "positions per axis", paper="6", min=2, max=16)
    digits: Literal["fixed", "episode"] = option("fixed", "one pair of digits, or a new pair in every episode")
    digit_seed: int = option(0, "which pair is drawn when the digits are fixed", min=0)


class MnistGrid(TableEnv[Config]):
    """Two digits of 14x14 pixels on positions 6 pixels apart; where they overlap the brighter pixel wins.

    A state vector is int64 `[6]`: row and column of the odd digit, of the even digit, and the picture of each. With
    fixed digits a state is a row of the grid of positions (the last coordinate fastest). Actions 0-3 move the odd
    digit down, left, right, up, actions 4-7 the even one; a move over the border does nothing.
    """

    reads = "MNIST idx files (train-images-idx3-ubyte and train-labels-idx1-ubyte, also gzipped)"
    factor_names = ("row1", "column1", "row2", "column2")
    factor_kinds = ("ordinal",) * 4

    def __init__(self, config: Config, device: torch.device, files: Files) -> None:
        super().__init__(config, device, files)
        self.p = config.positions
        self._moves = torch.tensor(MOVES, device=device)
        self.size = (self.p - 1) * STRIDE + DIGIT + MARGIN
        self.factor_sizes = (self.p,) * 4
        names = [f"{name}{digit}" for digit in (1, 2) for name in NAMES]
        extra = {"actions": 8, "action_names": names, "branching": True, "cell": STRIDE}
        self.spec = DataSpec("environment", (1, self.size, self.size), extra=extra)
        source, self.origin = _digits(files, device)
        self.stand_in = None if source.name == "mnist" else source
        self.odd, self.even = _parities(source)
        # Rows of one matrix per position, so that a digit is placed by gathering rows instead of by writing pixels.
        place = (
            torch.arange(self.size, device=device)
            - (MARGIN // 2 + STRIDE * torch.arange(self.p, device=device))[:, None]
        )
        self._offset = torch.where((place >= 0) & (place < DIGIT), place, DIGIT)
        generator = torch.Generator(device).manual_seed(config.digit_seed)
        self.pair = self._draw_pair(1, generator)
        if config.digits == "fixed" and self.p**4 * self.size**2 <= TABLE_LIMIT:
            positions = self.factors(torch.arange(self.p**4, device=device))
            states = torch.cat([positions, self.pair.expand(len(positions), -1)], 1)
            after = self.advance(states.repeat_interleave(8, 0), torch.arange(8, device=device).repeat(len(states)))
            self.next_rows = (after[:, :4] * self.strides).sum(1).view(-1, 8)
            self.frames = torch.cat([self.draw(part) for part in states.split(1024)])
        else:
            self.examples = self.reset(EXAMPLES, generator)
            self.table = self.examples[:, :4]

    def _draw_pair(self, n: int, generator: torch.Generator) -> Tensor:
        odd = torch.randint(len(self.odd), (n,), generator=generator, device=self.device)
        even = torch.randint(len(self.even), (n,), generator=generator, device=self.device)
        return torch.stack([odd, even], 1)

    def reset(self, n: int, generator: torch.Generator) -> Tensor:
        """Uniform positions; with `digits = episode` a new pair of digits for each."""
        if self.frames is not None:
            return super().reset(n, generator)
        positions = torch.randint(self.p, (n, 4), generator=generator, device=self.device)
        pair = self.pair.expand(n, -1) if self.config.digits == "fixed" else self._draw_pair(n, generator)
        return torch.cat([positions, pair], 1)

    def advance(self, state: Tensor, action: Tensor) -> Tensor:
        """One digit moves by one position, unless it stands at that border."""
        move = self._moves[action % 4]
        first = (action < 4)[:, None]
        zero = torch.zeros_like(move)
        change = torch.cat([torch.where(first, move, zero), torch.where(first, zero, move)], 1)
        return torch.cat([(state[:, :4] + change).clamp(0, self.p - 1), state[:, 4:]], 1)

    def draw(self, state: Tensor) -> Tensor:
        """float32 `[n, 1, size, size]`."""
        odd = self._place(self.odd[state[:, 4]], state[:, 0], state[:, 1])
        return torch.maximum(odd, self._place(self.even[state[:, 5]], state[:, 2], state[:, 3])).unsqueeze(1)

    def _place(self, digit: Tensor, row: Tensor, column: Tensor) -> Tensor:
        """Digits `[n, 14, 14]` on empty canvases `[n, size, size]`."""
        padded = F.pad(digit, (0, 1, 0, 1))  # index 14 is empty
        rows = padded.gather(1, self._offset[row][:, :, None].expand(-1, -1, DIGIT + 1))
        return rows.gather(2, self._offset[column][:, None, :].expand(-1, self.size, -1))


def _digits(files: Files, device: torch.device) -> tuple[Dataset, str]:
    """MNIST where the user has its files, else the digits that scikit-learn carries, and a sentence about which."""
    path = files.find(f"mnist/{IDX}", IDX)
    if path is not None:
        mnist = open_dataset("mnist", device=device, folder=path.parent)
        return mnist, f"MNIST digits ({mnist.origin}), simulated on the device"
    digits = open_dataset("digits", {"size": 8}, device=device)
    return digits, "scikit-learn's handwritten digits, simulated on the device"


def _parities(source: Dataset) -> tuple[Tensor, Tensor]:
    """Up to 5,000 odd and even digits as float32 `[n, 14, 14]`.

    Raises UsageError for data without both.
    """
    rows = torch.arange(min(len(source), 10_000), device=source.device)
    batch = source.batch(rows)
    if "label" not in batch:
        raise UsageError("the digits for 'mnistgrid' have no labels; it needs odd and even digits.")
    x = batch["x"][:, :1]
    x = F.interpolate(x, size=(DIGIT, DIGIT), mode="bilinear", antialias=True, align_corners=False).clamp(0, 1)
    odd = batch["label"] % 2 == 1
    if not bool(odd.any()) or bool(odd.all()):
        raise UsageError("the digits for 'mnistgrid' must hold odd and even ones; these labels have one parity only.")
    return x[odd, 0], x[~odd, 0]
