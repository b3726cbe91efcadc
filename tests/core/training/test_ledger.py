"""What a run logs: means as of adding one by one, the first bad step, and few operations for both."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from distk.device import Ranks
from distk.registry import registry
from distk.settings import resolve
from distk.training.beginning import build
from distk.training.ledger import Ledger

CPU = torch.device("cpu")


class Counted(TorchDispatchMode):
    """Counts the operations that are kernels on a GPU: all but views and what only asks."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        views = [r.alias_info for r in func._schema.returns]
        if not (views and all(alias is not None and not alias.is_write for alias in views)):
            self.names.append(func.overloadpacket.__name__)
        return made


def ledger() -> Ledger:
    return Ledger(nn.Linear(2, 2), CPU)


def step(held: Ledger, index: int, values: list[tuple[str, Tensor]], losses: Sequence[tuple[str, Tensor]] = ()) -> None:
    held.begin()
    for name, value in values:
        held.note(name, value)
    for name, value in losses:
        held.watch(name, value)
    held.settle(torch.tensor(index))


def noted(seed: int, steps: int) -> list[list[tuple[str, Tensor]]]:
    """Values of steps of two kinds: a scalar and a vector, or the scalar three times and another one."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    both = [("loss", draw()), ("kl", draw(3))], [("loss", draw()), ("loss", draw()), ("loss", draw()), ("gap", draw())]
    return [[(name, draw(*value.shape)) for name, value in both[i % 3 == 0]] for i in range(steps)]


def test_means_are_those_of_adding_one_by_one(seed: int) -> None:
    held, found = ledger(), {}
    for i, values in enumerate(noted(seed, 40)):
        step(held, i, values)
        for name, value in values:
            found.setdefault(name, []).append(value.double())
    expected = {name: torch.stack(all_of).mean(0) for name, all_of in found.items()}
    sums = held.totals()
    assert {name: float(total[-1]) for name, total in sums.items()} == {n: len(v) for n, v in found.items()}
    means = held.read(Ranks())
    assert set(means) == {"loss", "kl/1", "kl/2", "kl/3", "gap"}
    # float32 sums of 40 numbers of size 1: 40 roundings of about 1e-7 of a sum of at most some tens.
    assert means["loss"] == pytest.approx(float(expected["loss"]), abs=1e-5)
    assert [means[f"kl/{i + 1}"] for i in range(3)] == pytest.approx(expected["kl"].tolist(), abs=1e-5)
    assert held.read(Ranks()) == {}


def test_a_name_that_comes_once_in_steps_of_one_kind_has_the_very_float32_sum(seed: int) -> None:
    held, total = ledger(), torch.zeros(())
    values = torch.randn(20, generator=torch.Generator().manual_seed(seed))
    for i, value in enumerate(values):
        step(held, i, [("kl", value)])
        total += value
    assert held.read(Ranks()) == {"kl": float(total) / 20}


def test_what_changes_after_it_was_noted_is_logged_as_it_was() -> None:
    layer = nn.BatchNorm1d(2)
    held, vector = Ledger(layer, CPU), torch.tensor([1.0, 2.0])
    held.begin()
    held.note("weight", layer.weight)
    held.note("mean", layer.running_mean)
    held.note("part", vector[1])
    with torch.no_grad():
        layer.weight.fill_(9)
        layer.running_mean.fill_(9)
        vector.fill_(9)
    held.settle(torch.tensor(0))
    assert held.read(Ranks()) == {"weight/1": 1.0, "weight/2": 1.0, "mean/1": 0.0, "mean/2": 0.0, "part": 2.0}


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_the_first_step_in_which_a_loss_is_not_finite_is_kept(wrong: float) -> None:
    held, one = ledger(), torch.ones(())
    step(held, 0, [("a", one)], [("a", one), ("b", one)])
    assert held.bad(Ranks()) == {}
    step(held, 1, [("a", one)], [("b", torch.tensor(wrong))])
    step(held, 2, [("a", one)], [("a", one), ("b", torch.tensor(wrong))])
    assert held.bad(Ranks()) == {"b": 1}
    step(held, 3, [], [("a", torch.tensor(wrong)), ("a", one)])
    assert held.bad(Ranks()) == {"b": 1, "a": 3}


def test_what_is_struck_or_broken_off_does_not_count() -> None:
    held, one = ledger(), torch.ones(())
    held.begin()
    held.note("a", one)
    mark = held.mark()
    held.note("a", 5 * one)
    held.strike(mark)
    held.settle(torch.tensor(0))
    held.note("a", 7 * one)  # of a step that raises
    step(held, 1, [("a", 3 * one)])
    assert held.read(Ranks()) == {"a": 2.0}


def test_taking_up_again_gives_the_same_means_bit_for_bit(seed: int) -> None:
    values, whole = noted(seed, 31), ledger()
    for i, one in enumerate(values):
        step(whole, i, one)
    parts = ledger()
    for i, one in enumerate(values):
        step(parts, i, one)
        if i in (0, 7, 20):
            state = {key: value.clone() for key, value in parts.state().items()}
            assert all(value.dim() == 1 and len(value) > 1 for value in state.values())
            parts = ledger()
            parts.load_state(state)
    assert parts.read(Ranks()) == whole.read(Ranks())


def test_sums_of_older_checkpoints_are_taken_over() -> None:
    held = ledger()
    held.load_state({"loss": torch.tensor([6.0, 3.0]), "penalty/covreg": torch.tensor([1.0, 2.0, 2.0])})
    step(held, 3, [("loss", torch.tensor(2.0))])
    assert held.read(Ranks()) == {"loss": 2.0, "penalty/covreg/1": 0.5, "penalty/covreg/2": 1.0}


def operations(method: str, logging: bool) -> list[str]:
    preset = "demo" if "demo" in registry().find("method", method).load().presets else None
    trainer = build(resolve(method, preset=preset, options={"train": {"device": "cpu"}}), CPU, Ranks())
    trainer.initialise()
    if not logging:
        trainer.ledger.note = trainer.ledger.watch = lambda name, value: None  # type: ignore[method-assign]
    trainer.step()
    with Counted() as counted:
        trainer.step()
    return counted.names


@pytest.mark.parametrize("method", ["betavae", "factorvae", "aae", "covreg-xor", "arae"])
def test_logging_takes_a_handful_of_operations_however_much_is_logged(method: str) -> None:
    """Two for the sums and four for the losses, where arae took 176; and a copy of each value that is a view."""
    more = len(operations(method, True)) - len(operations(method, False))
    assert 6 <= more <= 12, more
