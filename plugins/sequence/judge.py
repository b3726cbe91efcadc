"""The judge: a classifier of clips that says which motion and which attributes it sees (C-DSVAE's classifier).

It is trained on real clips and then shown generated ones, by the metric `disagreement`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from distk import Dataset, FactorDataset, UsageError, seeded
from distk.console import progress
from distk.device import initialised
from distk.networkfile import NetworkFile
from distk.nn import cross_entropies, down, fit_classifier
from distk.plugins.sequence.networks import last_states

REQUIRED = 0.99
"""Test accuracy that every head must have before the judge's word counts."""
COMMAND = "distk dsvae judge --data {data} --out judge.safetensors"


@dataclass(frozen=True)
class JudgeInfo:
    """What a judge's file says about itself.

    heads: factor name -> number of classes, in the data set's order. shape: of a clip, (t, c, h, w). width: channels
    of the first convolution. accuracy: of each head on the test split. data: what it was trained on.
    """

    heads: dict[str, int]
    shape: tuple[int, ...]
    width: int = 64
    accuracy: dict[str, float] = field(default_factory=dict)
    data: str = ""
    steps: int = 0


class Judge(nn.Module):
    """Clips `[b, t, c, s, s]` in [0, 1] -> logits of every head.

    Convolutions 4/2/1 of width, 2 width, ... (at most 8 width) down to 4x4, then 4/1/0 to 2 width with Tanh; biLSTM of
    4 width; per head Linear, ReLU, Linear. At width 64 and 64x64 frames: 64-128-256-512-128, 256, 512-256-classes.
    """

    def __init__(self, info: JudgeInfo) -> None:
        super().__init__()
        self.info = info
        _, channels, height, side = info.shape
        if height != side or side not in (8, 16, 32, 64, 128):
            raise ValueError(f"the judge reads square frames of 8, 16, 32, 64 or 128 pixels, not {height}x{side}")
        halvings, last = (side // 4).bit_length() - 1, 2 * info.width
        widths = [channels, *(info.width * min(1 << i, 8) for i in range(halvings))]
        layers = down(widths, activation=lambda: nn.LeakyReLU(0.2), norm=nn.BatchNorm2d, norm_first=True)
        layers += [nn.Conv2d(widths[-1], last, 4, 1, 0, bias=False), nn.BatchNorm2d(last), nn.Tanh(), nn.Flatten()]
        self.frames = nn.Sequential(*layers)
        self.lstm = nn.LSTM(last, 4 * info.width, batch_first=True, bidirectional=True)
        hidden = 8 * info.width
        self.heads = nn.ModuleDict(
            {
                name: nn.Sequential(nn.Linear(hidden, hidden // 2), nn.ReLU(), nn.Linear(hidden // 2, classes))
                for name, classes in info.heads.items()
            }
        )

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        v = self.frames(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        state = last_states(self.lstm, v)
        return {name: head(state) for name, head in self.heads.items()}

    @torch.no_grad()
    def probabilities(self, x: Tensor, batch: int = 256) -> dict[str, Tensor]:
        """Class probabilities of each head, float64 `[n, classes]`, in eval mode."""
        self.eval()
        parts = [self(part) for part in x.split(batch)]
        return {name: torch.cat([p[name] for p in parts]).double().softmax(-1) for name in self.info.heads}


def check_data(dataset: Dataset) -> FactorDataset:
    """A data set of labelled clips. Raises UsageError for any other."""
    if not isinstance(dataset, FactorDataset) or dataset.spec.kind != "video":
        raise UsageError(f"a judge needs video with labelled factors; '{dataset.name}' is not that.")
    return dataset


def train_judge(
    dataset: Dataset, steps: int = 2000, batch: int = 64, lr: float = 1e-3, width: int = 64, seed: int = 0
) -> Judge:
    """Train a judge on the train split, with a clean gradient at each step, and measure it in eval mode on the test.

    Raises UsageError for data without labelled factors.
    """
    data = check_data(dataset)
    heads = dict(zip(data.factor_names, data.factor_sizes, strict=True))
    info = JudgeInfo(heads, tuple(data.spec.shape), width, data=data.name, steps=steps)
    with initialised(seed, data.device):
        judge = Judge(info).to(data.device)
    generator = seeded(seed, data.device)

    def draw() -> tuple[Tensor, Tensor]:
        part = data.sample(batch, generator, "train")
        return part["x"], part["factors"]

    fit_classifier(judge, draw, steps, lr, "training the judge", cross_entropies)
    judge.info = JudgeInfo(**{**asdict(info), "accuracy": accuracy(judge, data)})
    return judge


def accuracy(judge: Judge, data: FactorDataset, split: str = "test") -> dict[str, float]:
    """Share of a split's clips that each head names rightly."""
    rows = data.rows_of(split)
    right = torch.zeros(len(judge.info.heads), dtype=torch.long, device=data.device)
    with progress("testing the judge", len(rows)) as advance:
        for part in rows.split(256):
            seen = judge.probabilities(data.batch(part)["x"])
            right += torch.stack([(p.argmax(1) == data.factors(part)[:, k]).sum() for k, p in enumerate(seen.values())])
            advance(len(part))
    return dict(zip(judge.info.heads, (right.double() / len(rows)).tolist(), strict=True))


def _parsed(values: Any) -> JudgeInfo | None:
    heads = {str(name): int(size) for name, size in values["heads"].items()}
    shape = tuple(int(n) for n in values["shape"])
    share = {name: float(values["accuracy"][name]) for name in heads}
    info = JudgeInfo(heads, shape, int(values["width"]), share, str(values["data"]), int(values["steps"]))
    sound = len(shape) == 4 and all(0 < n <= 4096 for n in (*shape, *heads.values(), info.width))
    return info if sound and heads and not any("." in name for name in heads) else None


FILE = NetworkFile("judge", "distk-judge", COMMAND.format(data="NAME"), _parsed, Judge)
"""How judges are kept."""


def fitting_judge(path: str, dataset: Dataset) -> Judge:
    """The judge at `path`, held against a data set.

    Raises UsageError without a path, for class sizes or frames other than the data's, or when some head was right on
    less than 99% of real test clips.
    """
    command = f"train one with `{COMMAND.format(data=dataset.name)}`"
    if not path:
        raise UsageError(f"this score needs a judge (`--set judge=FILE`); {command}.")
    data = check_data(dataset)
    judge = FILE.load(Path(path), data.device)
    heads = dict(zip(data.factor_names, data.factor_sizes, strict=True))
    if judge.info.heads != heads or judge.info.shape != tuple(data.spec.shape):
        raise UsageError(
            f"judge '{path}' names {judge.info.heads} in clips {judge.info.shape}, data set '{data.name}' has {heads} "
            f"in {tuple(data.spec.shape)}; {command}."
        )
    weak = {name: round(value, 4) for name, value in judge.info.accuracy.items() if value < REQUIRED}
    if weak:
        raise UsageError(
            f"judge '{path}' is right too seldom ({weak}, required {REQUIRED}): {command} and more --steps."
        )
    return judge
