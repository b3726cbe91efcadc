"""A network that is asked the same again answers once, and whatever differs is computed."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import distk
from distk.device import Ranks
from distk.metric import encode_table
from distk.onepass import one_pass
from distk.settings import resolve
from distk.training.beginning import build


class Counting(nn.Module):
    """A layer that counts its calls, and may write to what it returns or draw."""

    def __init__(self, draws: bool = False) -> None:
        super().__init__()
        self.layer, self.draws, self.calls = nn.Linear(3, 4), draws, 0

    def forward(self, x: Tensor, scale: float = 1.0) -> tuple[Tensor, Tensor]:
        self.calls += 1
        out = scale * self.layer(x)
        return (out + torch.randn(out.shape) if self.draws else out).chunk(2, 1)


class Holder(nn.Module):
    def __init__(self, draws: bool = False) -> None:
        super().__init__()
        self.parts = nn.ModuleDict({"net": Counting(draws)})

    @property
    def net(self) -> Counting:
        return self.parts["net"]  # type: ignore[return-value]


@torch.no_grad()
def test_the_same_again_is_not_computed_and_is_the_same(seed: int) -> None:
    torch.manual_seed(seed)
    model, x = Holder().eval(), torch.randn(5, 3)
    plain = model.net(x)
    with one_pass(model):
        first, again, equal = model.net(x), model.net(x), model.net(x.clone() * 1.0)
        assert model.net.calls == 2  # the plain one, and one of these
    for a, b, c, d in zip(plain, first, again, equal, strict=True):
        assert torch.equal(a, b)
        assert c is b
        assert d is b
    model.net(x)
    assert model.net.calls == 3
    assert "forward" not in vars(model.net)


@torch.no_grad()
def test_what_differs_is_computed(seed: int) -> None:
    torch.manual_seed(seed)
    model, x = Holder().eval(), torch.randn(5, 3)
    with one_pass(model):
        made = model.net(x)
        model.net(x, scale=2.0)
        model.net(x[:4])
        model.net(x + 1e-3)
        assert model.net.calls == 4
        model.net(x)
        x.add_(1)  # the same memory, other numbers
        assert not torch.equal(model.net(x)[0], made[0])
        y = torch.randn(5, 3)
        held = model.net(y)[0]
        held.zero_()  # somebody writes to the result
        assert float(model.net(y)[0].abs().sum()) > 0


def test_with_gradients_in_train_mode_or_at_random_everything_is_computed(seed: int) -> None:
    model, x = Holder().eval(), torch.randn(5, 3)
    with one_pass(model):
        model.net(x), model.net(x)
    assert model.net.calls == 2
    with one_pass(model.train()), torch.no_grad():
        model.net(x), model.net(x)
    assert model.net.calls == 4
    drawing = Holder(draws=True).eval()
    with one_pass(drawing), torch.no_grad():
        assert not torch.equal(drawing.net(x)[0], drawing.net(x)[0])


@torch.no_grad()
def test_a_series_of_calls_is_answered_in_its_order(seed: int) -> None:
    model, series = Holder().eval(), torch.randn(6, 5, 3).unbind(0)
    with one_pass(model):
        first = [model.net(x)[0] for x in series]
        second = [model.net(x)[0] for x in series]
    assert model.net.calls == 6
    assert all(a is b for a, b in zip(first, second, strict=True))


def test_several_scores_of_a_model_take_one_pass_of_the_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = build(
        resolve("betavae", preset="demo", options={"train": {"device": "cpu"}}), torch.device("cpu"), Ranks()
    )
    model, calls = trainer.model.eval(), []
    forward = model.encoder.forward
    monkeypatch.setitem(vars(model.encoder), "forward", lambda x: calls.append(len(x)) or forward(x))
    rows = len(encode_table(model, model.dataset()))
    assert sum(calls) == rows
    calls.clear()
    found = distk.evaluate(model, ["mig", "active-units", "modularity", "prior-mmd"])["metrics"]
    assert not any("error" in result for result in found.values())
    assert sum(calls) == rows
