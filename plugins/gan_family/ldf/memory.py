"""How much a training step keeps for the way back, by the number of frames: both levels against a GAN over all."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from distk import Dataset, DataSpec, Files
from distk.config import NoConfig
from distk.device import Ranks, initialised
from distk.method import Method
from distk.plugins.gan_family.ldf.joint import JointConfig, JointGAN
from distk.plugins.gan_family.ldf.method import LDF, Config
from distk.plugins.gan_family.ldf.shared import Shared
from distk.settings import TrainConfig
from distk.training.trainer import Trainer


class Tally:
    """Bytes of the storages that a graph keeps for its way back, each counted once."""

    def __init__(self, ignored: Iterable[Tensor]) -> None:
        self.bytes = 0
        self._seen = {t.untyped_storage().data_ptr() for t in ignored}
        # What is counted is held, so that its place in memory is not given to the next tensor, which then would be
        # taken for it.
        self._held: list[Tensor] = []

    def add(self, tensor: Tensor) -> Tensor:
        """Count a saved tensor; returns it as it is."""
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._seen:
            self._seen.add(storage.data_ptr())
            self._held.append(tensor)
            self.bytes += storage.nbytes()
        return tensor


@contextmanager
def tallied(ignored: Iterable[Tensor]) -> Iterator[Tally]:
    """Counts what autograd saves within, without the storages of `ignored` tensors such as parameters."""
    tally = Tally(ignored)
    with torch.autograd.graph.saved_tensors_hooks(tally.add, lambda tensor: tensor):
        yield tally


class Noise(Dataset[NoConfig]):
    """A few clips of random pixels, of any number of frames."""

    def __init__(self, clips: int, shape: tuple[int, ...], device: torch.device) -> None:
        super().__init__(NoConfig(), device, Files("noise", None, ""))
        self.spec, self.name, self.origin = DataSpec("video", shape), "noise", "random pixels"
        generator = torch.Generator().manual_seed(0)
        self.clips = torch.randint(256, (clips, *shape), generator=generator, dtype=torch.uint8).to(device)

    def __len__(self) -> int:
        return len(self.clips)

    def batch(self, rows: Tensor) -> dict[str, Tensor]:
        return {"x": self.clips.index_select(0, rows).float() / 255}


@dataclass(frozen=True)
class Usage:
    """A training step's memory. saved: bytes kept for the way back, without parameters. peak: bytes on a CUDA device
    beyond what lies there before the step, parameters and moments; None elsewhere. parameters: values it trains."""

    saved: int
    peak: int | None
    parameters: int


def one_step(trainer: Trainer) -> Usage:
    """Train a step and measure it."""
    model, cuda = trainer.model, trainer.device.type == "cuda"
    before = 0
    if cuda:
        torch.cuda.synchronize(trainer.device)
        torch.cuda.reset_peak_memory_stats(trainer.device)
        before = torch.cuda.memory_allocated(trainer.device)
    with tallied([*model.parameters(), *model.buffers()]) as tally:
        trainer.step()
    peak = torch.cuda.max_memory_allocated(trainer.device) - before if cuda else None
    active = [o for o in trainer.objectives if o.active(trainer.index - 1)]
    return Usage(tally.bytes, peak, sum(p.numel() for o in active for p in o.parameters))


def _trainer(kind: type[Method], config: Any, data: Noise, batch: int) -> Trainer:
    with initialised(0, data.device):
        model = kind(config, data.spec).to(data.device)
    model.opens = lambda: data
    settings = TrainConfig(batch=batch, steps=4, capture="off", device=str(data.device))
    return Trainer(model.train(), data, settings, Ranks())


def usage(
    frames: int, side: int, clips: int, pieces: int, sizes: Shared, match: bool, device: torch.device
) -> dict[str, Usage]:
    """A step of `joint` and `top` on `clips` clips, and of `bottom` on `pieces` frames, all of side x side pixels.

    match: whether the joint GAN becomes as large as both levels, which themselves grow with the frames; else its
    width is that of the pieces' networks. Moments are made before the measured step.
    """
    data = Noise(clips, (frames, 3, side, side), device)
    shared = {f.name: getattr(sizes, f.name) for f in dataclasses.fields(Shared)}
    levels = Config(**shared, bottom_steps=2)
    joint = _trainer(JointGAN, JointConfig(**shared, joint_width=None if match else sizes.width), data, clips)
    bottom, top = (_trainer(LDF, levels, data, n) for n in (pieces, clips))
    joint.step()
    bottom.step()
    for _ in range(3):
        top.step()
    return {"joint": one_step(joint), "bottom": one_step(bottom), "top": one_step(top)}
