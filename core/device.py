"""Device choice, seeds, determinism, precision, and the `torch.distributed` context."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from distk.errors import DistkError, UsageError


def choose_device(name: str = "auto") -> torch.device:
    """`auto` (CUDA where there is one), `cpu`, `cuda`, `cuda:1`, `mps` -> device.

    Raises UsageError for an unknown or absent device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"--device '{name}' is no device; use auto, cpu, cuda or cuda:N.") from None
    if device.type == "cuda":
        count = torch.cuda.device_count()
        if not torch.cuda.is_available() or (device.index or 0) >= count:
            raise UsageError(f"--device {name}: this machine shows {count} CUDA device(s); use --device cpu.")
    elif device.type not in ("cpu", "mps"):
        raise UsageError(f"--device '{name}' is not supported; use auto, cpu or cuda.")
    return device


def describe(device: torch.device) -> str:
    """A device in words, for the console and for results: "cpu (8 threads)", "cuda:0 (NVIDIA H200)"."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return f"{device} ({torch.get_num_threads()} threads)"


def seeded(seed: int, device: torch.device) -> torch.Generator:
    """A generator on `device`; the global generators are left alone."""
    return torch.Generator(device=device).manual_seed(seed)


@contextlib.contextmanager
def initialised(seed: int, device: torch.device) -> Iterator[None]:
    """Within it, module construction draws from `seed`; afterwards the global generators are as they were."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


_static = False


def static_shapes_only(device: torch.device) -> bool:
    """Whether code that runs now may not read values back to the host: on CUDA, and under `no_host_reads`.

    A method with a faster path for the host (an early exit) asks this before it takes that path.
    """
    return _static or device.type != "cpu"


@contextlib.contextmanager
def no_host_reads() -> Iterator[None]:
    """Within it `static_shapes_only` is true on every device, so that what CUDA would run is tested on the CPU."""
    global _static
    before, _static = _static, True
    try:
        yield
    finally:
        _static = before


def set_precision(name: str) -> torch.dtype | None:
    """`fp32`, `tf32` or `bf16`; returns the autocast dtype or None.

    tf32 concerns the matrix units' float32 mode on CUDA; bf16 is autocast, parameters stay float32.
    """
    torch.set_float32_matmul_precision("high" if name in ("tf32", "bf16") else "highest")
    torch.backends.cudnn.allow_tf32 = name in ("tf32", "bf16")
    return torch.bfloat16 if name == "bf16" else None


@dataclass(frozen=True)
class Ranks:
    """This process's place among those that train together."""

    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes files and prints."""
        return self.rank == 0

    def average(self, parameters: Iterable[nn.Parameter]) -> None:
        """Average the gradients of `parameters` over all ranks, in one flat buffer."""
        if self.world == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([g.flatten() for g in gradients])
        self.average_tensor(flat)
        for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def average_tensor(self, value: Tensor) -> Tensor:
        """Average a tensor over all ranks in place."""
        if self.world > 1:
            torch.distributed.all_reduce(value)
            value.div_(self.world)
        return value


def join_ranks(device: torch.device) -> Ranks:
    """Join the process group that `torchrun` set up through the environment; a lone process joins nothing."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        return Ranks()
    if not torch.distributed.is_initialized():
        import datetime

        try:
            torch.distributed.init_process_group(
                "nccl" if device.type == "cuda" else "gloo", timeout=datetime.timedelta(minutes=5)
            )
        except (RuntimeError, ValueError) as error:
            raise DistkError(f"the processes of this run could not find each other: {error}.") from error
    return Ranks(torch.distributed.get_rank(), world)
