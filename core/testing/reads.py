"""Catching what a training step must not do: read a value back to the host, or make a shape depend on values."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

_CORE = Path(__file__).resolve().parents[1]
_TORCH = Path(torch.__file__).resolve().parent
_BY_WORD = {
    "one_hot": "`distk.one_hot` reads nothing",
    "observe": "`dataset.batch(dataset.index(factors))` reads nothing",
    ".item": "keep it a tensor, and log it with `step.log`",
    "float(": "keep it a tensor, and log it with `step.log`",
    "bool(": "`torch.where` chooses without looking",
    "if ": "`torch.where` chooses without looking",
    "repeat_interleave": "give `output_size`, or use `expand` or an index",
}
"""What a line of code holds -> what to write instead."""
_BY_READ = {
    "mask": "multiply by the mask, or use `torch.where`",
    "nonzero": "multiply by the mask, or use `torch.where`",
    "masked_select": "multiply by the mask, or use `torch.where`",
    "equal": "compare with `==` and keep the result a tensor",
}
"""What was called -> what to write instead."""


def _line() -> traceback.FrameSummary | None:
    """The line of a method or a data set that is being run: the innermost one outside torch and this core."""
    for frame in reversed(traceback.extract_stack()):
        path = Path(frame.filename).resolve()
        inside = path.is_relative_to(_CORE) and not path.is_relative_to(_CORE / "plugins")
        if path.exists() and not inside and not path.is_relative_to(_TORCH):
            return frame
    return None


def culprit() -> str:
    """Where it happens, as `method.py:41`, and the line itself."""
    frame = _line()
    return f"{Path(frame.filename).name}:{frame.lineno} (`{frame.line}`)" if frame is not None else "the step"


def cure(read: str) -> str:
    """What to write instead, as the end of a sentence; empty where nobody knows."""
    frame = _line()
    words = [text for word, text in _BY_WORD.items() if frame is not None and word in (frame.line or "")]
    known = words[:1] or [text for name, text in _BY_READ.items() if name == read]
    return f": {known[0]}" if known else ""


_READS = {
    "_local_scalar_dense",
    "is_nonzero",
    "item",
    "nonzero",
    "masked_select",
    "unique",
    "_unique2",
    "unique_dim",
    "equal",
    "repeat_interleave",
}


class HostRead(AssertionError):
    """A step read a value back to the host, or made a shape depend on values."""


class _NoCopies(TorchFunctionMode):
    """Catches what reads a tensor on the CPU without dispatching an operation."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (Tensor.tolist, Tensor.numpy, Tensor.__array__):
            name = func.__name__
            raise HostRead(f"{culprit()} calls {name}, which reads values back to the host{cure(name)}")
        return func(*args, **(kwargs or {}))


class NoHostReads(TorchDispatchMode):
    """Raises HostRead for operations that would make CUDA wait or whose shapes depend on values. Works on the CPU."""

    def __enter__(self) -> NoHostReads:
        self._copies = _NoCopies()
        self._copies.__enter__()
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._copies.__exit__(*error)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        by_tensor = name == "repeat_interleave" and func._overloadname == "Tensor"
        masked = name in ("index", "index_put", "index_put_") and any(
            isinstance(i, Tensor) and i.dtype in (torch.bool, torch.uint8) for i in args[1] if i is not None
        )
        if (name in _READS and name != "repeat_interleave") or by_tensor or masked:
            what = "an index by a mask" if masked else name
            raise HostRead(
                f"{culprit()} calls {what}, which reads values back to the host or has a shape that depends on "
                f"them{cure('mask' if masked else name)}"
            )
        return func(*args, **(kwargs or {}))


def scalars_read(work: Callable[[], object]) -> int:
    """How many numbers `work` reads back to the host. Some gradients read only where no dispatch mode looks on, so that
    the profiler has to count."""
    with _no_stderr(), profile(activities=[ProfilerActivity.CPU]) as profiled:
        work()
    return sum(event.count for event in profiled.key_averages() if event.key == "aten::_local_scalar_dense")


@contextmanager
def _no_stderr() -> Iterator[None]:
    """Within it the process's standard error leads nowhere: torch's profiler announces itself there, past Python."""
    sys.stderr.flush()
    held, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(held, 2)
        os.close(held)
        os.close(nowhere)


def unwatched(optimizer: torch.optim.Optimizer) -> None:
    """Let an optimizer's step pass a NoHostReads mode: torch's own CPU kernels read their step counters, the
    capturable ones that CUDA uses do not."""
    inner = optimizer.step

    def step(*arguments: Any, **named: Any) -> Any:
        with _lifted():
            return inner(*arguments, **named)

    optimizer.step = step  # type: ignore[method-assign]


@contextmanager
def _lifted() -> Iterator[None]:
    with _disable_current_modes():
        yield
