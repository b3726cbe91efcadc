"""The planar system against its rules written out once more, its two sets, and the reader of the user's own."""

import numpy as np
import pytest
import torch

import distk
from distk import UsageError
from distk.data import open_dataset
from distk.errors import DistkError
from distk.plugins.rl_control.dyncontent.data import (
    OBSTACLES,
    background,
    checked_place,
    drawn,
    integer_states,
    moved,
    valid,
)
from distk.testing import check_dataset


def test_conformance():
    check_dataset("planar", count=300, second=100, held_out=80)
    check_dataset("planar", count=300, second=100, held_out=80, sampling="free")
    check_dataset("planar", count=300, second=100, held_out=80, noise=1.0)


def allowed(row, column):
    """The rule in plain words, place by place."""
    if not (1.5 <= row <= 38.5 and 1.5 <= column <= 38.5):
        return False
    return not any(abs(row - r) <= 1.5 and abs(column - c) <= 1.5 for r, c in OBSTACLES)


def test_states_and_moves(generator):
    """1273 valid whole-numbered places: 37 squared without six blocks of 16."""
    places = integer_states(torch.device("cpu"))
    assert len(places) == 1273 == 37**2 - 6 * 16
    some = torch.rand(2000, 2, generator=generator) * 40
    assert valid(some).tolist() == [allowed(r, c) for r, c in some.tolist()]
    place = torch.tensor([[20.0, 2.0], [2.0, 2.0], [18.0, 5.0], [10.0, 30.0]])
    u = torch.tensor([[0.0, 2.0], [-3.0, 9.0], [2.0, 0.0], [1.0, -2.5]])
    # Into the first obstacle: stays. Over the rim: stands at it, and no move is longer than 3. Into an obstacle: stays.
    expected = [[20.0, 2.0], [1.5, 5.0], [18.0, 5.0], [11.0, 27.5]]
    assert moved(place, u).tolist() == expected


def test_pictures():
    """An obstacle has 21 pixels, the square 9, the diamond 13; at the rim the diamond is cut, the square is not."""
    assert int(background(torch.device("cpu")).sum()) == 6 * 21
    place = torch.tensor([[5.0, 30.0], [5.0, 30.0], [38.0, 20.0], [38.0, 20.0]])
    made = drawn(place, torch.tensor([False, True, False, True]))
    assert made.flatten(1).sum(1).tolist() == [9, 13, 9, 12]
    row, column = (axis.double().mean() for axis in made[1].nonzero().unbind(1))
    assert (float(row), float(column)) == (5.0, 30.0)


def test_grid_moves_are_near_whole_numbers_and_never_blocked():
    data = open_dataset("planar", {"count": 4000, "second": 500})
    rows = data.rows("train")
    state, u = data.state(rows), data.u[rows]
    assert float((u - u.round()).abs().max()) <= 0.1 + 1e-5
    assert float(u.abs().max()) <= 3
    assert torch.allclose(data.step(state, u)[:, :2], state[:, :2] + u, atol=1e-5)
    # Every state occurs 3 or 4 times among 4000.
    counts = state[:, :2].unique(dim=0, return_counts=True)[1]
    assert (len(counts), int(counts.min()), int(counts.max())) == (1273, 3, 4)
    # The seven intervals around whole numbers are alike but for the outer two, of half the width: 1 : 2 where all fit.
    inner = u[(state[:, :2] >= 5).all(1) & (state[:, :2] <= 8).all(1)].round()
    share = float((inner.abs() == 3).double().mean())
    n = inner.numel()
    assert abs(share - 2 / 12) < 5 * (2 / 12 * 10 / 12 / n) ** 0.5


def test_free_moves_include_blocked_ones():
    data = open_dataset("planar", {"sampling": "free"})
    rows = data.rows("train")
    state, u = data.state(rows), data.u[rows]
    stayed = (data.step(state, u)[:, :2] == state[:, :2]).all(1)
    assert 0.02 < float(stayed.double().mean()) < 0.2
    assert bool(valid(state[:, :2]).all())


def test_second_set_shows_states_of_the_first_and_no_action():
    data = open_dataset("planar", {"count": 500, "second": 200, "held_out": 50})
    y = data.rows("y")
    assert bool((data.u[y] == 0).all())
    partner = data.partner[y]
    assert bool(torch.isin(partner, data.rows("train")).all())
    assert torch.equal(data.state(partner)[:, :2], data.state(y)[:, :2])
    assert data.batch(y)["label"].tolist() == [1] * 200
    assert data.batch(data.rows("test"))["label"].tolist() == [0] * 50
    test, other = data.batch(data.rows("test")), data.batch(data.rows("y-test"))
    assert torch.equal(test["u"], other["u"])
    assert not torch.equal(test["x"], other["x"])


def test_noise_moves_what_comes_after():
    still, noisy = (open_dataset("planar", {"noise": n, "count": 3000}) for n in (0.0, 2.0))
    rows = noisy.rows("train")
    batch = noisy.batch(rows)
    away = batch["state_next"][:, :2] - noisy.step(batch["state"], batch["u"])[:, :2]
    inside = ((batch["state_next"][:, :2] > 8) & (batch["state_next"][:, :2] < 32)).all(1)
    assert abs(float(away[inside].std()) - 2.0) < 0.3
    assert torch.equal(still.batch(still.rows("y"))["x"], noisy.batch(noisy.rows("y"))["x_next"])


def test_places_are_checked_in_words():
    with pytest.raises(UsageError, match=r"--goal 20,5 is in an obstacle; the nearest place for the agent is"):
        checked_place(torch.tensor([20.0, 5.0]), "--goal")
    with pytest.raises(UsageError, match=r"lies outside 1\.5 to 38\.5; the nearest place for the agent is 38,38"):
        checked_place(torch.tensor([50.0, 50.0]), "--start")


# The user's own


def written(path, **changed):
    draw = np.random.default_rng(0)
    held = {
        "x": draw.integers(0, 256, (60, 8, 6)).astype(np.uint8),
        "x_next": draw.integers(0, 256, (60, 8, 6)).astype(np.uint8),
        "u": draw.normal(size=(60, 3)).astype(np.float32),
        "y": draw.integers(0, 256, (40, 8, 6)).astype(np.uint8),
        "y_pair": draw.integers(0, 60, 40),
    }
    held.update(changed)
    np.savez(path, **{name: value for name, value in held.items() if value is not None})
    return held


def test_observations(tmp_path):
    held = written(tmp_path / "mine.npz")
    check_dataset("observations", data_dir=tmp_path / "mine.npz")
    data = open_dataset("observations", folder=tmp_path / "mine.npz")
    assert data.spec.shape == (1, 8, 6)
    x = data.batch(torch.arange(60))["x"]
    assert np.array_equal((x[:, 0] * 255).round().numpy().astype(np.uint8), held["x"])
    train, test, y, y_test = (set(data.rows(s).tolist()) for s in ("train", "test", "y", "y-test"))
    assert train | test == set(range(60))
    assert y | y_test == set(range(60, 100))
    # A frame of Y is held out exactly where its partner is.
    for row in y | y_test:
        assert int(data.partner[row]) == held["y_pair"][row - 60]
        assert (row in y_test) == (int(data.partner[row]) in test)


def test_observations_do_not_train_on_what_is_held_out(tmp_path):
    """Poison: the held-out pictures are turned white, and the run does not change by a bit."""
    held = written(tmp_path / "a.npz")
    data = open_dataset("observations", folder=tmp_path / "a.npz")
    x, x_next, y = (held[name].copy() for name in ("x", "x_next", "y"))
    test, y_test = data.rows("test").numpy(), data.rows("y-test").numpy() - 60
    x[test], x_next[test], y[y_test] = 255, 255, 255
    written(tmp_path / "b.npz", x=x, x_next=x_next, y=y)
    states = []
    for name in ("a", "b"):
        run = distk.train(
            "dyncontent", data="observations", data_dir=str(tmp_path / f"{name}.npz"), steps=4, batch=16, hidden=8,
            transition_hidden=4, device="cpu", quiet=True, out=tmp_path / name,
        )  # fmt: skip
        states.append(distk.load(run.checkpoint, "cpu").state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"x_next": np.zeros((60, 8, 7), np.uint8)}, "expected x and x_next"),
        ({"x": np.zeros((60, 8, 6), np.float32)}, "expected x and x_next"),
        ({"y": np.zeros((40, 8, 7), np.uint8)}, "'y' must be uint8 frames of the form of 'x'"),
        ({"y": np.zeros((40, 8, 6), np.float32)}, "'y' must be uint8 frames of the form of 'x'"),
        ({"y": None}, "y"),
        ({"y_pair": np.full(40, 60)}, "must name rows of 'x', 0 to 59"),
        ({"y_pair": np.zeros(39, np.int64)}, "must be 40 whole numbers"),
        ({"u": np.full((60, 3), np.nan, np.float32)}, "not finite"),
        ({"u": np.zeros((60, 3), np.float32)}, "is the same in every transition"),
        ({"u": np.zeros(60, np.int64)}, "holds choices"),
        ({"y_pair": np.zeros(40, np.int64)}, "fall into one split"),
    ],
)
def test_bad_files_are_refused_in_a_sentence(tmp_path, changed, said):
    written(tmp_path / "bad.npz", **changed)
    with pytest.raises(DistkError, match=said):
        open_dataset("observations", folder=tmp_path / "bad.npz")


def test_without_pairs_the_method_says_what_to_do(tmp_path):
    written(tmp_path / "u.npz", y_pair=None)
    options = {"data": "observations", "data_dir": str(tmp_path / "u.npz"), "device": "cpu", "quiet": True, "hidden": 8}
    with pytest.raises(UsageError, match="set Y has no y_pair; use --pairing unpaired"):
        distk.train("dyncontent", steps=1, batch=8, out=tmp_path / "a", **options)
    distk.train("dyncontent", steps=2, batch=8, pairing="unpaired", out=tmp_path / "b", **options)
    with pytest.raises(UsageError, match="needs a second set"):
        distk.train("dyncontent", data="transitions", steps=1, device="cpu", quiet=True, out=tmp_path / "c")
