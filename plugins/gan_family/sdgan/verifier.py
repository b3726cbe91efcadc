"""The verifier: an embedding of images in which one identity lies close together, trained on training identities.

It stands for the FaceNet that judged the paper's faces. A file of it holds `features.*` (four convolutions 3/2, each
with batch normalisation, of width, 2 width, 4 width, 8 width channels) and `project.*` (a linear layer on their mean).
Any trained encoder may stand in its place.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distk import Dataset, DistkError, Method, UsageError, can, one_hot, seeded
from distk.checkpoint import read_header
from distk.device import initialised
from distk.models import open_model
from distk.networkfile import NetworkFile
from distk.nn import down, fit_classifier
from distk.plugins.gan_family.sdgan.tuples import Identities, identities

COMMAND = "distk sdgan verifier-train"
SCALE, MARGIN = 30.0, 0.2
"""Of the cosines that the softmax over identities sees (Wang et al. 2018)."""
Embed = Callable[[Tensor], Tensor]
"""Images `[n, c, s, s]` in [0, 1] -> unit vectors `[n, d]`."""


@dataclass(frozen=True)
class VerifierInfo:
    """What a verifier's file says about itself. shape: of an image, (c, s, s). identities: how many trained it."""

    shape: tuple[int, ...]
    width: int = 64
    size: int = 128
    identities: int = 0
    data: str = ""


class Verifier(nn.Module):
    """Images `[n, c, s, s]` in [0, 1] -> unit vectors `[n, size]`."""

    def __init__(self, info: VerifierInfo) -> None:
        super().__init__()
        self.info = info
        if len(info.shape) != 3 or min(info.shape[1:]) < 8:
            raise ValueError(f"a verifier reads images of at least 8x8 pixels, not of shape {tuple(info.shape)}")
        widths = [info.shape[0], *(info.width << i for i in range(4))]
        self.features = nn.Sequential(*_halving(widths))
        self.project = nn.Linear(widths[-1], info.size)

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(self.project(self.features(2 * x - 1).mean((2, 3))))


def _halving(widths: list[int]) -> list[nn.Module]:
    """Convolutions 3/2 with batch normalisation and ReLU; the smallest maps, of odd sides, round up."""
    return down(widths, 3, norm=nn.BatchNorm2d, norm_first=True)


class Cosines(nn.Module):
    """Images -> the cosines of their vectors to a direction of each identity, `[n, identities]`."""

    def __init__(self, verifier: Verifier, number: int) -> None:
        super().__init__()
        self.verifier, self.directions = verifier, nn.Parameter(torch.randn(number, verifier.info.size))

    def forward(self, x: Tensor) -> Tensor:
        return self.verifier(x) @ F.normalize(self.directions).T


def cosine_loss(cosines: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of scaled cosines `[n, identities]`, the right one made harder by the margin; mean, nats."""
    return F.cross_entropy(SCALE * (cosines - MARGIN * one_hot(target, cosines.shape[1])), target)


def jittered(x: Tensor, generator: torch.Generator, flip: bool) -> Tensor:
    """Images `[n, c, s, s]` in [0, 1], each moved by up to a sixteenth of the side, its brightness, contrast and
    saturation changed by up to a fifth, and with `flip` half of them mirrored."""
    n, channels, height, width = x.shape
    reach = max(1, height // 16)
    rand = torch.rand(n, 6, generator=generator, device=x.device)
    ahead = ((rand[:, :2] * (2 * reach + 1)).long() - reach).clamp(-reach, reach)
    rows = (torch.arange(height, device=x.device) + ahead[:, :1]).clamp(0, height - 1)
    columns = (torch.arange(width, device=x.device) + ahead[:, 1:]).clamp(0, width - 1)
    if flip:
        columns = torch.where(rand[:, 2:3] < 0.5, columns.flip(1), columns)
    x = x.gather(2, rows[:, None, :, None].expand(-1, channels, -1, width))
    x = x.gather(3, columns[:, None, None, :].expand(-1, channels, height, -1))
    light, contrast, colour = (0.8 + 0.4 * rand[:, 3:]).view(n, 3, 1, 1, 1).unbind(1)
    grey = x.mean(1, keepdim=True)
    x = light * (grey + colour * (x - grey))
    return (0.5 + contrast * (x - 0.5)).clamp(0, 1)


def train_verifier(
    dataset: Dataset,
    steps: int,
    *,
    batch: int = 64,
    width: int = 64,
    size: int = 128,
    lr: float = 1e-3,
    flip: bool = False,
    seed: int = 0,
) -> Verifier:
    """Train a verifier on the identities of the training split; it ends in eval mode on the data's device.

    Raises UsageError for data without labels or with a single training identity.
    """
    known = identities(dataset, "train")
    if len(known) < 2:
        raise UsageError(f"data set '{dataset.name}' has a single training identity: a verifier needs two or more.")
    info = VerifierInfo(tuple(dataset.spec.shape), width, size, len(known), dataset.name)
    with initialised(seed, dataset.device):
        net = Cosines(Verifier(info), len(known)).to(dataset.device)
    generator = seeded(seed, dataset.device)

    def draw() -> tuple[Tensor, Tensor]:
        who = torch.randint(len(known), (batch,), generator=generator, device=dataset.device)
        x = unit(dataset, dataset.batch(known.of(who, 1, generator)[:, 0])["x"])
        return jittered(x, generator, flip), who

    fit_classifier(net, draw, steps, lr, "training the verifier", cosine_loss)
    return net.verifier.eval()


def unit(dataset: Dataset, x: Tensor) -> Tensor:
    """Images in the data's range -> whole 255ths of [0, 1], as pictures in files have them."""
    low, high = dataset.spec.range
    return ((x - low) / (high - low) * 255).round().clamp(0, 255) / 255


def steps_for(known: Identities, epochs: float, batch: int) -> int:
    """Steps in which every image is seen `epochs` times on average."""
    return max(1, round(epochs * int(known.count.sum()) / batch))


class Encoded(nn.Module):
    """A trained model with an encoder as a verifier: images `[n, c, s, s]` in [0, 1] -> its continuous codes, as unit
    vectors. So a network of another kind serves, too, once a method of a plugin wraps it."""

    def __init__(self, model: Method) -> None:
        super().__init__()
        self.model = model
        self.names = [group.name for group in model.latents.encoded if group.kind == "continuous"]

    def forward(self, x: Tensor) -> Tensor:
        low, high = self.model.spec.range
        code = self.model.encode(x * (high - low) + low)
        return F.normalize(torch.cat([code[name].flatten(1) for name in self.names], 1))


def load_verifier(path: Path, shape: tuple[int, ...], device: torch.device) -> Verifier | Encoded:
    """Read a verifier of images of this shape, in eval mode: its own file, or a checkpoint or run folder of a method
    with an encoder.

    Raises UsageError for a missing file or one of other images, DistkError for one that holds no verifier.
    """
    if path.is_dir() or _is_checkpoint(path):
        return _encoder_of(path / "checkpoint.safetensors" if path.is_dir() else path, shape, device)
    verifier = FILE.load(path, device)
    if verifier.info.shape != tuple(shape):
        raise UsageError(
            f"verifier '{path}' reads images of shape {verifier.info.shape}, these have {tuple(shape)}: train one on "
            f"the same data with `{COMMAND}`."
        )
    if not all(bool(value.isfinite().all()) for value in verifier.state_dict().values()):
        raise DistkError(f"verifier '{path}' holds numbers that are not finite.")
    return verifier


def _is_checkpoint(path: Path) -> bool:
    try:
        read_header(path)
    except DistkError:
        return False
    return True


def _encoder_of(path: Path, shape: tuple[int, ...], device: torch.device) -> Encoded:
    model, header = open_model(path, str(device))
    found = Encoded(model)
    if not can(model, "encode") or not found.names or tuple(model.spec.shape) != tuple(shape):
        raise UsageError(
            f"'{path}' ({header.method}, items {list(model.spec.shape)}) does not encode images {list(shape)} into "
            "numbers, so it is no verifier of them."
        )
    return found.eval()


def _parsed(values: Any) -> VerifierInfo | None:
    shape = tuple(int(n) for n in values["shape"])
    width, size, number = (int(values[name]) for name in ("width", "size", "identities"))
    sound = len(shape) == 3 and all(0 < n <= 4096 for n in (*shape, width, size)) and min(shape[1:]) >= 8
    return VerifierInfo(shape, width, size, number, str(values["data"])) if sound else None


FILE = NetworkFile("verifier", "distk-verifier", COMMAND, _parsed, Verifier)
"""How verifiers are kept."""


@torch.no_grad()
def embedded(embed: Embed, x: Tensor, batch: int = 500) -> Tensor:
    """Unit vectors float64 `[n, d]` of images `[n, c, s, s]` in [0, 1]."""
    return torch.cat([F.normalize(embed(part).double()) for part in x.split(batch)])
