"""What the next training step depends on beside the model: written into a checkpoint, and taken back from one.

A checkpoint may come from a stranger, so everything is checked before it is used: names, shapes, and the bytes of the
random generators, whose position torch itself does not hold against their length.
"""

from __future__ import annotations

import inspect
import struct
from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from distk.console import counted, note
from distk.device import stream
from distk.errors import DistkError
from distk.method import Method
from distk.optimizers import light
from distk.settings import TrainConfig
from distk.training.ledger import Ledger


class InTraining(Protocol):
    """What of a trainer the next step depends on."""

    model: Method
    device: torch.device
    generator: torch.Generator
    config: TrainConfig
    index: int
    counter: Tensor
    ledger: Ledger
    optimizers: dict[str, torch.optim.Optimizer]


_GENERATORS = ("generator", "global_rng", "cuda_rng")


def collect(trainer: InTraining) -> dict[str, Tensor]:
    """The training state as named host tensors."""
    state = {
        "step": torch.tensor(trainer.index),
        "generator": trainer.generator.get_state(),
        "global_rng": torch.get_rng_state(),
    }
    if trainer.device.type == "cuda":
        state["cuda_rng"] = torch.cuda.get_rng_state(trainer.device)
    for name, total in trainer.ledger.state().items():
        state[f"log/{name}"] = total
    for name, optimizer in trainer.optimizers.items():
        for i, slots in optimizer.state_dict()["state"].items():
            for slot, value in slots.items():
                if isinstance(value, Tensor):
                    state[f"optim/{name}/{i}/{slot}"] = value
    state |= {f"method/{name}": value for name, value in trainer.model.training_state().items()}
    state["count"] = torch.tensor(len(state))
    return {name: value.detach().to("cpu", copy=True) for name, value in state.items()}


def restore(trainer: InTraining, state: Mapping[str, Tensor]) -> None:
    """Inverse of `collect`. Raises DistkError when the state does not belong to this method and settings."""
    state = _renamed(trainer, state)
    try:
        _check(trainer, state)
        trainer.index = int(state["step"])
        trainer.counter.fill_(trainer.index)
        _go_on_drawing(trainer, state["generator"])
        torch.set_rng_state(state["global_rng"])
        if trainer.device.type == "cuda" and "cuda_rng" in state:
            torch.cuda.set_rng_state(state["cuda_rng"], trainer.device)
        trainer.ledger.load_state(_under(state, "log/"))
        for name, optimizer in trainer.optimizers.items():
            _load_optimizer(optimizer, _under(state, f"optim/{name}/"))
        method = {name: value.to(trainer.device) for name, value in _under(state, "method/").items()}
        trainer.model.load_training_state(method)
    except DistkError:
        raise
    except Exception as error:  # a method's own state may fail in its own way
        reason = str(error).strip().splitlines()[0] if str(error).strip() else ""
        raise DistkError(f"the training state does not fit this run ({type(error).__name__}: {reason}).") from error


def _go_on_drawing(trainer: InTraining, state: Tensor) -> None:
    """Draw on from where the run was. The generator of another kind of device draws other numbers: there it begins
    anew, from the run's seed and the step, and that is said."""
    if len(state) == len(trainer.generator.get_state()):
        trainer.generator.set_state(state)
        return
    kind = trainer.device.type
    trainer.generator.manual_seed(stream(trainer.config.seed, f"training on {kind} from step {trainer.index}"))
    note(f"on {kind} go on steps that were taken on another kind of device: random numbers are others from here on")


def _renamed(trainer: InTraining, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """The state of a run that began when the loss that is minimised was called as the bound that it is not."""
    if "loss" not in trainer.optimizers:
        return state
    for old in ("elbo+dip", "elbo"):
        if old not in trainer.optimizers and any(name.startswith(f"optim/{old}/") for name in state):
            prefixes = {f"optim/{old}/": "optim/loss/", f"log/{old}": "log/loss"}
            return {_moved(name, prefixes): value for name, value in state.items()}
    return state


def _moved(name: str, prefixes: Mapping[str, str]) -> str:
    found = next((old for old in prefixes if name == old or (old.endswith("/") and name.startswith(old))), None)
    return name if found is None else prefixes[found] + name[len(found) :]


def _check(trainer: InTraining, state: Mapping[str, Tensor]) -> None:
    if "count" in state and int(state["count"]) != len(state) - 1:
        raise ValueError(f"{counted(len(state) - 1, 'tensor')} of {int(state['count'])} can be read")
    step = state["step"]
    if step.dtype != torch.int64 or step.dim() or not 0 <= int(step) < 1 << 62:
        raise ValueError("the step is not a count")
    owners = tuple(f"optim/{name}/" for name in trainer.optimizers)
    for name, value in state.items():
        if name in _GENERATORS:
            _check_generator(name, value)
        elif name.startswith("log/"):
            if value.dim() != 1 or value.dtype != torch.float32 or not 2 <= len(value) < 1 << 20:
                raise ValueError(f"'{name}' is not a sum of logged values")
        elif name not in ("step", "count") and not name.startswith((*owners, "method/")):
            raise ValueError(f"'{name}' is nothing that this run keeps")


def _check_generator(name: str, value: Tensor) -> None:
    """torch checks the size and the ranges of a CPU generator's state, but a position that together with the numbers
    still left runs past its 624 words would be read beyond its end."""
    if value.dtype != torch.uint8 or value.dim() != 1 or len(value) not in (16, 5056):
        raise ValueError(f"'{name}' is not a state of a random generator")
    if len(value) == 5056:
        left, _, following = struct.unpack("<iiQ", bytes(value[8:24].tolist()))
        if not (1 <= left <= 624 and following <= 624 and left + following <= 625):
            raise ValueError(f"'{name}' is a damaged state of a random generator")


def _under(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name[len(prefix) :]: value for name, value in state.items() if name.startswith(prefix)}


def _load_optimizer(optimizer: torch.optim.Optimizer, state: Mapping[str, Tensor]) -> None:
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    slots: dict[int, dict[str, Tensor]] = {}
    for name, value in state.items():
        number, _, slot = name.partition("/")
        slots.setdefault(int(number), {})[slot] = value
    expected = _slots(optimizer)
    for i, found in slots.items():
        if not 0 <= i < len(parameters):
            raise ValueError(f"parameter {i} of an optimizer is none of its {len(parameters)}")
        if expected is None:  # an optimizer of somebody's own keeps what it likes
            continue
        if set(found) != expected:
            raise ValueError(f"the optimizer keeps {', '.join(sorted(expected))}, found {', '.join(sorted(found))}")
        for slot, value in found.items():
            if value.shape != (() if slot == "step" else parameters[i].shape):
                raise ValueError(f"'{slot}' of parameter {i} has shape {tuple(value.shape)}")
            if value.dim():  # in the parameter's order of memory, which a fused step takes for granted
                found[slot] = torch.empty_like(parameters[i], dtype=value.dtype).copy_(value)
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": slots, "param_groups": groups})


def _slots(optimizer: torch.optim.Optimizer) -> set[str] | None:
    """The tensors that one of torch's own optimizers keeps for each parameter, found by letting it take one step."""
    kind = type(optimizer)
    if not kind.__module__.startswith("torch.optim"):
        return None
    known = inspect.signature(kind.__init__).parameters
    device = optimizer.param_groups[0]["params"][0].device
    probe = nn.Parameter(torch.zeros(2, device=device))
    probe.grad = torch.ones_like(probe)
    # A learning rate on the device is one tensor for all: the probe gets its own.
    settings: dict[str, Any] = {
        k: v.clone() if isinstance(v, Tensor) else v for k, v in optimizer.defaults.items() if k in known
    }
    twin = light(kind, [probe], **settings)
    twin.step()
    return {slot for slot, value in twin.state[probe].items() if isinstance(value, Tensor)}
