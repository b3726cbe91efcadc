"""Device choice, seeds, determinism, precision, and the `torch.distributed` context."""

from __future__ import annotations

import atexit
import contextlib
import datetime
import hashlib
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from distk.console import counted
from distk.errors import DistkError, UsageError


class LostRank(DistkError):
    """Another process of a run that several train together died or went silent."""


def choose_device(name: str = "auto") -> torch.device:
    """`auto` (CUDA where there is one), `cpu`, `cuda`, `cuda:1`, `mps` -> device.

    Raises UsageError for an unknown or absent device.
    """
    # Under torchrun every process of a machine takes the GPU of its local rank.
    local = os.environ.get("LOCAL_RANK", "") if int(os.environ.get("WORLD_SIZE", "1")) > 1 else ""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and local.isdigit():
        name = f"cuda:{local}"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"--device '{name}' is not a device; use auto, cpu, cuda or cuda:N.") from None
    if device.type == "cuda":
        count = torch.cuda.device_count()
        if not torch.cuda.is_available() or (device.index or 0) >= count:
            raise UsageError(f"--device {name}: this machine shows {count} CUDA device(s); use --device cpu.")
    elif device.type == "mps" and not torch.backends.mps.is_available():
        raise UsageError(f"--device {name}: this machine shows no Apple GPU; use --device cpu.")
    elif device.type not in ("cpu", "mps"):
        raise UsageError(f"--device '{name}' is not supported; use auto, cpu or cuda.")
    return device


def describe(device: torch.device) -> str:
    """A device in words, for the console and for results: "cpu (8 threads)", "cuda:0 (NVIDIA H200)"."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return f"{device} ({counted(torch.get_num_threads(), 'thread')})"


def seeded(seed: int, device: torch.device) -> torch.Generator:
    """A generator on `device`; the global generators are left alone."""
    return torch.Generator(device=device).manual_seed(seed)


def stream(seed: int, name: str) -> int:
    """The seed of one of a run's streams of random numbers, in [0, 2^63).

    A run's weights, its noise and batches, and the layers that draw for themselves each have a stream of their own
    (`weights`, `training`, `layers`); data sets and scores are seeded by plain numbers. Generators that are seeded with
    one number give the same numbers, so that without names a first weight would be the first draw of the data.
    """
    return int.from_bytes(hashlib.blake2b(f"{name} {seed}".encode(), digest_size=8).digest()) >> 1


@contextlib.contextmanager
def initialised(seed: int, device: torch.device) -> Iterator[None]:
    """Within it, module construction draws from the stream `weights` of `seed`; afterwards the global generators are as
    they were."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(stream(seed, "weights"))
        yield


@contextlib.contextmanager
def own_randomness(states: dict[str, Any], device: torch.device) -> Iterator[None]:
    """Within it the global generators are those of `states`, which it updates: one dict per replica in a process.

    On CUDA the state is exchanged as an object rather than copied, so that a captured graph keeps the one that it was
    captured with (torch.Generator.graphsafe_set_state).
    """
    outer = torch.get_rng_state()
    torch.set_rng_state(states["host"])
    default: Any = None
    if device.type == "cuda":
        index = device.index if device.index is not None else torch.cuda.current_device()
        default = torch.cuda.default_generators[index]
        before = default.graphsafe_get_state()
        default.graphsafe_set_state(states["cuda"])
    try:
        yield
    finally:
        states["host"] = torch.get_rng_state()
        torch.set_rng_state(outer)
        if default is not None:
            default.graphsafe_set_state(before)


def randomness(device: torch.device) -> dict[str, Any]:
    """The global generators as they are now, for `own_randomness`."""
    states: dict[str, Any] = {"host": torch.get_rng_state()}
    if device.type == "cuda":
        torch.cuda.init()
        index = device.index if device.index is not None else torch.cuda.current_device()
        states["cuda"] = torch.cuda.default_generators[index].clone_state()
    return states


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
    with warnings.catch_warnings():  # torch 2.9 announces other settings, which later versions do without
        warnings.filterwarnings("ignore", message=".*TF32", category=UserWarning)
        torch.set_float32_matmul_precision("high" if name in ("tf32", "bf16") else "highest")
        torch.backends.cudnn.allow_tf32 = name in ("tf32", "bf16")
    return torch.bfloat16 if name == "bf16" else None


def add_in_order() -> None:
    """From here on the kernels of this process add in a fixed order on CUDA; torch warns of one that cannot.

    Atomic additions end in another order each time, which moves the last digit of a gradient; on the CPU there are
    none.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what cuBLAS asks for where several streams work
    torch.backends.cudnn.deterministic = True
    torch.use_deterministic_algorithms(True, warn_only=True)
    setattr(torch.utils.deterministic, "fill_uninitialized_memory", False)  # noqa: B010  # its types do not know it


def channels_last(model: nn.Module) -> None:
    """Lay the weights of 2-D convolutions out channels last, in place, and so all that comes out of them.

    Matrix units want that order; without it they turn every picture around before and after. Values stay the same,
    sums are taken in another order.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last)


@dataclass(frozen=True)
class Ranks:
    """This process's place among those that train together. Every method is collective: all ranks call it or none.

    control: the group for host values (gloo), which on CUDA is another one than that of the gradients (nccl).
    """

    rank: int = 0
    world: int = 1
    control: Any = None

    @property
    def first(self) -> bool:
        """Whether this process writes files and prints."""
        return self.rank == 0

    def average(self, parameters: Iterable[nn.Parameter]) -> None:
        """Average the gradients of `parameters` over all ranks, in one flat buffer.

        Raises LostRank when another process of the run is gone.
        """
        gradients = [p.grad for p in parameters if p.grad is not None] if self.world > 1 else []
        if gradients:
            self.average_together(gradients)

    def average_together(self, tensors: Sequence[Tensor]) -> None:
        """Average several tensors over all ranks in place, with one reduction."""
        flat = self.average_tensor(torch.cat([t.flatten() for t in tensors]))
        for tensor, part in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
            tensor.copy_(part.view_as(tensor))

    def average_tensor(self, value: Tensor) -> Tensor:
        """Average a tensor over all ranks in place."""
        if self.world > 1:
            self._reduce(value, torch.distributed.ReduceOp.SUM, None)
            value.div_(self.world)
        return value

    def smallest(self, value: Tensor) -> Tensor:
        """The elementwise smallest over all ranks, in place."""
        self._reduce(value, torch.distributed.ReduceOp.MIN, None)
        return value

    def largest(self, value: int) -> int:
        """The largest of the ranks' values; also the point where all of them meet."""
        if self.world == 1:
            return value
        tensor = torch.tensor(value)
        self._reduce(tensor, torch.distributed.ReduceOp.MAX, self.control)
        return int(tensor)

    def _reduce(self, value: Tensor, operation: Any, group: Any) -> None:
        try:
            torch.distributed.all_reduce(value, operation, group=group)
        except (RuntimeError, ValueError) as error:
            reason = str(error).strip().splitlines()[0][:120] if str(error).strip() else type(error).__name__
            raise LostRank(
                f"process {self.rank} lost another process of this run ({reason}): "
                "the last checkpoint is kept, continue from it with `distk resume`."
            ) from error


RANK_TIMEOUT = 1800
"""Seconds that a process waits for the others. A process that dies is noticed at once, through its closed connection;
this is for one that hangs, and must outlast the evaluations that the first process makes while the others wait."""


def join_ranks(device: torch.device) -> Ranks:
    """Join the process group that `torchrun` set up through the environment; a lone process joins nothing.

    Raises DistkError when the processes do not find each other.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        return Ranks()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    timeout = datetime.timedelta(seconds=int(os.environ.get("DISTK_RANK_TIMEOUT", RANK_TIMEOUT)))
    if not torch.distributed.is_initialized():
        try:
            backend = "nccl" if device.type == "cuda" else "gloo"
            torch.distributed.init_process_group(backend, timeout=timeout)
        except (RuntimeError, ValueError) as error:
            raise DistkError(f"the processes of this run could not find each other: {error}.") from error
        atexit.register(_leave)
    control = torch.distributed.new_group(backend="gloo", timeout=timeout) if device.type == "cuda" else None
    return Ranks(torch.distributed.get_rank(), world, control)


def _leave() -> None:
    if torch.distributed.is_initialized():
        with contextlib.suppress(RuntimeError, ValueError):
            torch.distributed.destroy_process_group()
