"""Optimizers that do not import torch's compiler: the same numbers, hooks and states as torch's own."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from distk import optimizers
from distk.optimizers import adam, adamw, light, rmsprop, sgd

KINDS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "adam": (torch.optim.Adam, {"lr": 0.01, "fused": True}),
    "adamw": (torch.optim.AdamW, {"lr": 0.01, "weight_decay": 0.1}),
    "sgd": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9}),
    "rmsprop": (torch.optim.RMSprop, {"lr": 0.01, "foreach": True}),
    "adagrad": (torch.optim.Adagrad, {"lr": 0.1}),
}


@pytest.fixture(autouse=True)
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if nothing had imported the compiler: other tests of this process may have."""
    monkeypatch.setattr(optimizers, "_COMPILER", "a module that nobody imports")


def network(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 2))


def taken(net: nn.Module, optimizer: torch.optim.Optimizer, seed: int, steps: int = 5) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        optimizer.zero_grad()
        net(torch.randn(16, 5, generator=generator)).square().mean().backward()
        optimizer.step()
    return [p.detach().clone() for p in net.parameters()]


@pytest.mark.parametrize("kind", KINDS)
def test_steps_are_those_of_torch_bit_for_bit(kind: str, seed: int) -> None:
    build, settings = KINDS[kind]
    ours, theirs = network(seed), network(seed)
    mine, own = light(build, ours.parameters(), **settings), build(theirs.parameters(), **settings)
    assert "step" in vars(mine)
    assert "step" not in vars(own)
    for a, b in zip(taken(ours, mine, seed), taken(theirs, own, seed), strict=True):
        assert torch.equal(a, b)
    before, after = mine.state_dict(), own.state_dict()
    assert before["param_groups"] == after["param_groups"]
    again = light(build, ours.parameters(), **settings)
    again.load_state_dict(copy.deepcopy(before))
    theirs_again = build(theirs.parameters(), **settings)
    theirs_again.load_state_dict(copy.deepcopy(after))
    for a, b in zip(taken(ours, again, seed + 1), taken(theirs, theirs_again, seed + 1), strict=True):
        assert torch.equal(a, b)


def test_hooks_are_called_and_a_closure_gives_its_loss(seed: int) -> None:
    net, called = network(seed), []
    optimizer = light(torch.optim.SGD, net.parameters(), lr=0.1)
    optimizer.register_step_pre_hook(lambda *_: called.append("before"))
    optimizer.register_step_post_hook(lambda *_: called.append("after"))

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = net(torch.ones(3, 5)).square().mean()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() > 0
    assert called == ["before", "after"]
    rates = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    optimizer.step()
    rates.step()
    assert optimizer.param_groups[0]["lr"] == 0.05


def test_under_a_torch_with_other_names_an_optimizer_is_made_as_ever(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(sys.modules["torch.optim.adam"], "_use_grad_for_differentiable")
    net, twin = network(seed), network(seed)
    optimizer = light(torch.optim.Adam, net.parameters(), lr=0.1)
    assert "step" not in vars(optimizer)
    own = torch.optim.Adam(twin.parameters(), lr=0.1)
    for a, b in zip(taken(net, optimizer, seed), taken(twin, own, seed), strict=True):
        assert torch.equal(a, b)


CODE = """
import sys, torch
from distk.optimizers import {factory}
net = torch.nn.Linear(3, 2)
made = {factory}(0.1)(list(net.parameters()))
for _ in range(2):
    made.zero_grad(); net(torch.ones(1, 3)).sum().backward(); made.step()
made.load_state_dict(made.state_dict())
assert "torch._dynamo" not in sys.modules
import torch._dynamo
made.zero_grad(); net(torch.ones(1, 3)).sum().backward(); made.step()
made.add_param_group({{"params": [torch.nn.Parameter(torch.ones(1))]}})
function = torch.optim.Optimizer.add_param_group.__wrapped__
assert getattr(function, "__dynamo_disable").__module__ != "distk.optimizers", function
print("well")
"""


@pytest.mark.parametrize("factory", [adam, adamw, sgd, rmsprop])
def test_the_compiler_is_not_imported_and_keeps_its_own_way_once_it_is(factory: Callable[..., Any]) -> None:
    code = CODE.format(factory=factory.__name__)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "well", done.stderr
