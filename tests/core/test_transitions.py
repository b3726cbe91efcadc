"""Actions, transitions, and the checks that they are held to."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from distk import DataSpec, UsageError, open_dataset
from distk.errors import DistkError
from distk.testing import NoHostReads, check_dataset
from distk.testing.data import _environment, _follows, _transitions
from distk.transitions import Actions, TransitionDataset

FORCE = Actions(("x", "y"), (-1.0, 0.0), (1.0, 4.0))
MOVES = Actions(("left", "right", "stay"))


@pytest.mark.parametrize("actions", [FORCE, MOVES])
def test_actions_survive_the_header(actions) -> None:
    spec = DataSpec("environment", (1, 2, 2), extra=actions.to_extra())
    assert Actions.of(DataSpec.from_dict(json.loads(json.dumps(spec.to_dict())))) == actions


def test_actions_are_drawn_within_their_bounds(generator) -> None:
    u = FORCE.sample(4000, generator)
    assert FORCE.problem(u, 4000) == ""
    assert torch.allclose(u.mean(0), torch.tensor([0.0, 2.0]), atol=6 * 4 / 12**0.5 / 4000**0.5)
    scaled = FORCE.as_input(u)
    assert float(scaled.min()) < -0.99
    assert float(scaled.max()) > 0.99
    assert torch.allclose(FORCE.as_input(torch.tensor([[-1.0, 4.0], [0.0, 1.0]])), torch.tensor([[-1, 1], [0, -0.5]]))
    k = MOVES.sample(4000, generator)
    assert MOVES.problem(k, 4000) == ""
    assert (torch.bincount(k, minlength=3) / 4000 - 1 / 3).abs().max() < 6 * (2 / 9 / 4000) ** 0.5
    assert MOVES.as_input(torch.tensor([2, 0])).tolist() == [[0, 0, 1], [1, 0, 0]]


@pytest.mark.parametrize(
    ("actions", "u", "word"),
    [
        (FORCE, torch.zeros(3), "expected torch.float32"),
        (FORCE, torch.zeros(3, 2).double(), "expected torch.float32"),
        (FORCE, torch.tensor([[0.0, 0.0], [0.0, 5.0], [0.0, 0.0]]), "outside"),
        (FORCE, torch.full((3, 2), float("nan")), "not finite"),
        (MOVES, torch.tensor([0, 3, 1]), r"outside 0\.\.2"),
        (MOVES, torch.zeros(3), "expected torch.int64"),
    ],
)
def test_actions_that_do_not_fit_are_named(actions, u, word) -> None:
    import re

    assert re.search(word, actions.problem(u, 3))


@pytest.mark.parametrize(
    "extra",
    [
        {},
        {"actions": "4"},
        {"actions": 10**9},
        {"actions": 2, "action_names": ["a"]},
        {"action_low": [0.0], "action_high": [0.0]},
        {"action_low": [0.0], "action_high": [float("inf")]},
        {"action_low": [0.0]},
        {"action_low": [], "action_high": []},
    ],
)
def test_a_description_without_sound_actions_is_refused(extra) -> None:
    with pytest.raises(UsageError, match="does not name its actions"):
        Actions.of(DataSpec("environment", (1, 2, 2), extra=extra))


@pytest.mark.parametrize("name", ["transitions", "transitions:maze", "transitions:mnistgrid"])
def test_transitions_of_environments(name, generator) -> None:
    check_dataset(name, count=200)
    data = open_dataset(name, {"count": 200})
    with NoHostReads():
        batch = data.sample(16, generator)
    assert batch["x"].shape == batch["x_next"].shape == (16, *data.spec.shape)
    assert data.spec.kind == "transition"
    assert torch.equal(data.step(batch["state"], batch["u"]), batch["state_next"])
    if name == "transitions:maze":  # its fixed layout forbids actions that change nothing
        everything = data.batch(torch.arange(200))
        assert bool((everything["state"] != everything["state_next"]).all())
        assert set(everything["u"].tolist()) == set(range(6))


def test_what_no_transitions_are_drawn_from() -> None:
    with pytest.raises(UsageError, match="'digits' is not an environment"):
        open_dataset("transitions:digits")
    with pytest.raises(UsageError, match="add --data-dir FILE"):
        open_dataset("transitions:recorded")


def recorded(seed: int, **changes: object) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 256, (2, 30, 6, 8, 3), dtype=np.uint8)
    return {"x": x[0], "x_next": x[1], "u": rng.normal(size=(30, 2)), **changes}


def test_recorded_transitions(tmp_path, seed) -> None:
    made = recorded(seed)
    np.savez(tmp_path / "t.npz", **made)
    check_dataset("transitions:recorded", tmp_path)
    data = open_dataset("transitions:recorded", folder=tmp_path)
    batch = data.batch(torch.arange(30))
    for key in ("x", "x_next"):
        assert np.array_equal((batch[key] * 255).round().byte().numpy(), made[key].transpose(0, 3, 1, 2))
    assert np.array_equal(batch["u"].numpy(), made["u"].astype(np.float32))
    assert data.actions.low == pytest.approx(made["u"].min(0).tolist())
    np.savez(tmp_path / "t.npz", x=made["x"][..., 0], x_next=made["x_next"][..., 0], u=np.arange(30) % 4)
    data = open_dataset("transitions:recorded", folder=tmp_path / "t.npz")
    assert (data.spec.shape, data.actions.count) == ((1, 6, 8), 4)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"u": np.zeros((30, 2))}, "number 0 of 'u' is the same"),
        ({"u": np.full((30, 2), np.nan)}, "not finite"),
        ({"u": np.zeros((29, 2))}, "expected x and x_next"),
        ({"u": np.full(30, -1)}, "must be 0, 1, 2"),
        ({"u": np.zeros(30)}, "expected x and x_next"),
        ({"x": np.zeros((30, 6, 8, 3))}, "expected x and x_next"),
        ({"x_next": np.zeros((30, 6, 9, 3), np.uint8)}, "expected x and x_next"),
    ],
)
def test_recorded_transitions_that_do_not_fit(tmp_path, seed, changes, word) -> None:
    np.savez(tmp_path / "t.npz", **recorded(seed, **changes))
    with pytest.raises(DistkError, match=word):
        open_dataset("transitions:recorded", folder=tmp_path)
    made = recorded(seed)
    np.savez(tmp_path / "t.npz", x=made["x"], u=made["u"])
    with pytest.raises(DistkError, match=r"lacks .*x_next"):
        open_dataset("transitions:recorded", folder=tmp_path)


class Faulty(TransitionDataset):
    """The point mass's transitions with one fault; `fault` names it."""

    def __init__(self, fault: str) -> None:
        self.inner = open_dataset("transitions", {"count": 100})
        self.name, self.origin, self.device, self.u = "faulty", "made for this test", self.inner.device, self.inner.u
        self.spec, self.fault = self.inner.spec, fault
        if fault == "bounds":
            self.spec = replace(self.spec, extra={**self.spec.extra, "action_high": [0.5, 0.5]})

    def state(self, rows: Tensor) -> Tensor:
        return self.inner.state(rows)

    def step(self, state: Tensor, u: Tensor) -> Tensor:
        return self.inner.step(state, u * 0 if self.fault == "idle" else u)

    def render(self, state: Tensor) -> Tensor:
        return self.inner.render(state)

    def reset(self, n: int, generator: torch.Generator) -> Tensor:
        return self.inner.env.reset(n, generator)

    def batch(self, rows: Tensor) -> dict[str, Tensor]:
        made = super().batch(rows)
        if self.fault == "order":
            made["x_next"] = made["x_next"].roll(1, 0)
        if self.fault == "lacks":
            del made["x_next"]
        if self.fault == "type":
            made["u"] = made["u"].double()
        return made


@pytest.mark.parametrize(
    ("fault", "check", "word"),
    [
        ("order", _follows, "after stepping and x_next"),
        ("idle", _follows, "no effect"),
        ("idle", _environment, "no effect"),
        ("lacks", _transitions, "lacks x_next"),
        ("type", _transitions, "expected torch.float32"),
        ("bounds", _transitions, "outside"),
    ],
)
def test_the_checks_see_a_fault(fault, check, word) -> None:
    check(Faulty(""))
    with pytest.raises(AssertionError, match=word):
        check(Faulty(fault))
