"""`--compile`: the losses of a run through torch's compiler, which makes one kernel of many small operations.

What is compiled is each objective's loss, with its networks and its backward pass; optimizers and the trainer stay as
they are, and the compiled step is captured like any other. Random numbers come from the run's generator through an
operation that the compiler calls and does not look into (`drawer`): it would break the loss in two at each draw. Sums
and products are taken in another order than without it, and draws that nothing uses are left out, so that a run is
another one, as with another precision; the same run again gives the same numbers.

The compiler itself takes a second and a half to import, and is imported when a run asks for it.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from distk.errors import DistkError
from distk.kept import cache_folder

VARIANTS = 256
"""Versions of one piece of code that are kept: runs side by side and phases have their own ones."""

_GENERATORS: dict[int, torch.Generator] = {}
_NUMBERS = itertools.count()


@torch.library.custom_op("distk::drawn", mutates_args=())
def drawn(normal: bool, shape: Sequence[int], generator: int, turn: int, device: torch.device) -> Tensor:
    """Standard normal, or uniform on [0, 1), float32 `shape`. generator: a number that `drawer` gave out; turn: which
    draw of the step it is, so that no two calls are taken for one."""
    draw = torch.randn if normal else torch.rand
    return draw(*shape, generator=_GENERATORS[generator], device=device)


@drawn.register_fake
def _(normal: bool, shape: Sequence[int], generator: int, turn: int, device: torch.device) -> Tensor:
    return torch.empty(*shape, device=device)


def drawer(generator: torch.Generator) -> Callable[[bool, tuple[int, ...], int], Tensor]:
    """`draw(normal, shape, turn)` from a generator, as an operation that can stand in a compiled loss."""
    number = next(_NUMBERS)
    _GENERATORS[number] = generator
    device = generator.device

    def draw(normal: bool, shape: tuple[int, ...], turn: int) -> Tensor:
        made: Tensor = drawn(normal, shape, number, turn, device)
        return made

    return draw


def compiled(loss: Callable[[Any], Tensor], name: str) -> Callable[[Any], Tensor]:
    """An objective's loss through the compiler; it is compiled in the first step that calls it.

    The returned function raises DistkError, with a way out, for a loss that cannot be compiled.
    """
    _settle()
    fast = torch.compile(loss, dynamic=False)

    @functools.wraps(loss)
    def call(step: Any) -> Tensor:
        # Draws are numbered from here: the compiler would make another version for each number that a loss begins with.
        step.draws = 0
        with explained(name):
            return fast(step)

    return call


@contextlib.contextmanager
def explained(name: str) -> Iterator[None]:
    """Within it an error of the compiler is a sentence about the objective."""
    try:
        yield
    except (RuntimeError, NotImplementedError) as error:  # the compiler's own are RuntimeErrors, too
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise DistkError(
            f"objective '{name}' could not be compiled ({lines[0][:200] if lines else type(error).__name__}): "
            "train without --compile."
        ) from error


def _settle() -> None:
    """What torch's compiler has to know. Names that another torch does not have are left alone."""
    import torch._dynamo
    import torch._functorch.config

    # Compiled code is kept for the next run, in a folder of the user's own instead of one that all users share.
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_folder() / "compiled"))
    # The gradients of a stage are taken one after the other from one graph.
    with contextlib.suppress(AttributeError):
        torch._functorch.config.donated_buffer = False
    for limit in ("recompile_limit", "accumulated_recompile_limit"):
        with contextlib.suppress(AttributeError):
            setattr(torch._dynamo.config, limit, max(VARIANTS, getattr(torch._dynamo.config, limit)))
