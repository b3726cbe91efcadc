"""The judge: a small classifier of the data's own classes, trained by the tool, that scores of generated images ask.

Scores by two judges must not be compared, so each has a fingerprint of its weights, and figures refuse to mix them.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from distk import Dataset, UsageError, seeded
from distk.console import counted, note, progress, warn
from distk.device import initialised
from distk.metric import chosen_rows
from distk.networkfile import NetworkFile
from distk.nn import fit_classifier

BATCH = 256
TESTED = 10_000
"""Images at most by which a judge is tested, and that stand for the real ones beside a score: a grid of factors has
hundreds of thousands, which took a processor longer than the judge's training."""
SOUND = 0.8
"""Test accuracy below which a judge is warned about."""


@dataclass(frozen=True)
class JudgeInfo:
    """What a judge's file says about itself.

    shape: of an image. classes: how many. width: channels of the first convolution. steps: of its training. data: what
    it was trained on. accuracy: share of the test images that it names rightly. temperature: by which its logits are
    divided, so that its confidence on held-out images is right on average.
    """

    shape: tuple[int, ...]
    classes: int
    width: int
    steps: int
    data: str
    accuracy: float = 0.0
    temperature: float = 1.0


class Judge(nn.Module):
    """Images `[n, c, h, w]` in [0, 1] -> logits `[n, classes]`.

    3x3 convolutions of width, width, pool, 2 width, 2 width, pool, 4 width channels, batch normalisation and leaky ReLU
    0.1 after each; the mean over places, `[n, 4 width]`, are the features; a linear layer.
    """

    temperature: Tensor

    def __init__(self, info: JudgeInfo) -> None:
        super().__init__()
        self.info = info
        layers: list[nn.Module] = []
        fan_in = info.shape[0]
        for channels, pool in ((1, False), (1, True), (2, False), (2, True), (4, False)):
            fan_out = channels * info.width
            layers += [nn.Conv2d(fan_in, fan_out, 3, padding=1, bias=False), nn.BatchNorm2d(fan_out), nn.LeakyReLU(0.1)]
            layers += [nn.MaxPool2d(2)] if pool else []
            fan_in = fan_out
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(fan_in, info.classes)
        self.register_buffer("temperature", torch.ones(()))

    def features(self, x: Tensor) -> Tensor:
        """Images -> `[n, 4 width]`."""
        return self.body(x).mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))

    @torch.no_grad()
    def seen(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Calibrated class probabilities, and features, float64 `[n, ...]`; in batches, in eval mode."""
        self.eval()
        parts = [self.features(part) for part in x.split(BATCH)]
        features = torch.cat(parts)
        logits = self.head(features) / self.temperature
        return logits.double().softmax(1), features.double()

    @property
    def fingerprint(self) -> str:
        """Twelve hexadecimal digits of the SHA-256 of all weights."""
        state = {name: value.detach().cpu().contiguous() for name, value in sorted(self.state_dict().items())}
        return hashlib.sha256(to_bytes(state)).hexdigest()[:12]


def check_data(dataset: Dataset) -> Dataset:
    """A data set of labelled images. Raises UsageError for any other."""
    if dataset.spec.kind != "image" or len(dataset.spec.classes) < 2:
        raise UsageError(
            f"a judge needs images with labels of several classes; data set '{dataset.name}' has none: take one that "
            "has, such as shapes32, or cifar10 with its files."
        )
    return dataset


def train_judge(dataset: Dataset, steps: int, width: int, batch: int = 128, seed: int = 0) -> Judge:
    """Train a judge on nine tenths of the train split, fit its temperature on the rest, and test it.

    Raises UsageError for data without labels.
    """
    data = check_data(dataset)
    rows = data.rows_of("train")
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed)).to(rows.device)
    held, rest = rows[order[: max(1, len(rows) // 10)]], rows[order[max(1, len(rows) // 10) :]]
    info = JudgeInfo(tuple(data.spec.shape), len(data.spec.classes), width, steps, data.name)
    with initialised(seed, data.device):
        judge = Judge(info).to(data.device)
    generator = seeded(seed, data.device)

    def draw() -> tuple[Tensor, Tensor]:
        chosen = rest[torch.randint(len(rest), (batch,), generator=generator, device=data.device)]
        part = data.batch(chosen)
        return in_unit(data, part["x"]), part["label"]

    fit_classifier(judge, draw, steps, 2e-3, "training the judge")
    judge.temperature.copy_(_temperature(*_logits(judge, data, held[:5000])))
    judge.info = JudgeInfo(
        **{**asdict(info), "accuracy": _accuracy(judge, data), "temperature": float(judge.temperature)}
    )
    return judge


def in_unit(dataset: Dataset, x: Tensor) -> Tensor:
    """Images in the data's range -> [0, 1]."""
    low, high = dataset.spec.range
    return (x - low) / (high - low)


@torch.no_grad()
def _logits(judge: Judge, data: Dataset, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Logits `[n, classes]` and labels `[n]` of rows, in eval mode."""
    judge.eval()
    found = [data.batch(part) for part in rows.split(BATCH)]
    return torch.cat([judge(in_unit(data, part["x"])) for part in found]), torch.cat([part["label"] for part in found])


def _temperature(logits: Tensor, label: Tensor) -> Tensor:
    """The temperature between 1/8 and 8 with the smallest cross-entropy on held-out images (Guo et al. 2017)."""
    tried = torch.logspace(-3, 3, 241, base=2, device=logits.device)
    loss = torch.stack([F.cross_entropy(logits / t, label) for t in tried])
    return tried[loss.argmin()]


def _accuracy(judge: Judge, data: Dataset) -> float:
    """Share of the test split that is named rightly, of `TESTED` images of it where it has more."""
    rows = chosen_rows(data, "test", TESTED, seed=0)
    right = torch.zeros((), device=data.device)
    with progress("testing the judge", len(rows)) as advance:
        for part in rows.split(2048):
            logits, label = _logits(judge, data, part)
            right += (logits.argmax(1) == label).sum()
            advance(len(part))
    return float(right) / len(rows)


def _parsed(values: Any) -> JudgeInfo | None:
    shape = tuple(int(n) for n in values["shape"])
    counts = (int(values["classes"]), int(values["width"]), int(values["steps"]))
    info = JudgeInfo(shape, *counts, str(values["data"]), float(values["accuracy"]), float(values["temperature"]))
    sound = len(shape) == 3 and all(0 < n <= 4096 for n in (*shape, info.classes, info.width))
    return info if sound else None


FILE = NetworkFile("judge", "distk-image-judge", "distk ldf judge --data NAME --out FILE", _parsed, Judge)
"""How judges are kept."""


_trained: dict[tuple, Judge] = {}


def judge_for(dataset: Dataset, file: str, steps: int, width: int) -> Judge:
    """The judge of a file, or one trained once per process for this data set; says its fingerprint and accuracy.

    Raises UsageError for data without labels, and for a file whose judge reads other images or names other classes.
    """
    data = check_data(dataset)
    key = (file, data.name, data.origin, str(data.config), data.device, steps, width)
    if key in _trained:
        return _trained[key]
    if not file:  # minutes on a processor, before a score that may be one of many
        keep = f"`distk ldf judge --data {data.name} --out FILE` keeps one for judge=FILE"
        less = f"`--set judge_steps=N` trains less, {keep}"
        note(f"training a judge on '{data.name}': {counted(steps, 'step')}; {less}")
    judge = FILE.load(Path(file), data.device) if file else train_judge(data, steps, width)
    expected = (tuple(data.spec.shape), len(data.spec.classes))
    if (judge.info.shape, judge.info.classes) != expected:
        raise UsageError(
            f"judge '{file}' names {counted(judge.info.classes, 'class', 'classes')} of images {judge.info.shape}, data"
            f" set '{data.name}' has {expected[1]} of {expected[0]}; train one with `distk ldf judge --data {data.name}"
            " --out FILE`."
        )
    told = f"judge {judge.fingerprint}: right on {judge.info.accuracy:.1%} of the test images"
    (note if judge.info.accuracy >= SOUND else warn)(told)
    _trained[key] = judge
    return judge
