"""Latent spaces, and the sampling protocols of factor data."""

from __future__ import annotations

import itertools

import pytest
import torch

from distk import DataSpec, FactorDataset, Latent, LatentSpace, UsageError, open_dataset
from distk.data import Files
from distk.latents import one_hot
from distk.method import eval_mode
from distk.source import Source


def space() -> LatentSpace:
    return LatentSpace.of(
        Latent("z", "continuous", 2), Latent("m", "continuous", 1, steps=3), Latent("d", "categorical", 4)
    )


def test_flatten_columns_and_round_trip() -> None:
    s = space()
    code = {
        "z": torch.tensor([[1.0, 2.0]]),
        "m": torch.tensor([[[3.0], [4.0], [5.0]]]),
        "d": torch.tensor([[0.1, 0.2, 0.6, 0.1]]),
    }
    assert s.columns == ["z1", "z2", "m[0]1", "m[1]1", "m[2]1", "d"]
    assert s.flatten(code).tolist() == [[1, 2, 3, 4, 5, 2]]
    s.check(code, 1)
    assert LatentSpace.from_list(s.to_list()) == s
    with pytest.raises(ValueError, match="group 'z'"):
        s.check({**code, "z": torch.zeros(1, 3)}, 1)
    a, b = s.swap(code, {**code, "z": torch.zeros(1, 2)}, "z")
    assert a["z"].tolist() == [[0, 0]]
    assert b["z"].tolist() == [[1, 2]]
    with pytest.raises(UsageError, match="latent group"):
        s.swap(code, code, "y")


def test_one_hot_matches_torch(generator) -> None:
    index = torch.randint(5, (7, 3), generator=generator)
    assert torch.equal(one_hot(index, 5), torch.nn.functional.one_hot(index, 5).float())


class Table(FactorDataset):
    """Rows 0..N-1 with given factors; an item is its row number."""

    def __init__(self, table: torch.Tensor, sizes: tuple[int, ...], grid: bool) -> None:
        super().__init__(None, torch.device("cpu"), Files("t", None, ""))
        self.name, self.origin = "t", "made by the test"
        self.factor_sizes = sizes
        self.factor_names = tuple("abcdef"[: len(sizes)])
        self.factor_kinds = ("ordinal",) * len(sizes)
        self.table = None if grid else table
        self.spec = DataSpec("vector", (1,))

    def batch(self, rows):
        return {"x": rows[:, None].float()}


def test_grid_indexing_is_row_major() -> None:
    sizes = (3, 2, 4)
    data = Table(torch.empty(0), sizes, True)
    expected = torch.tensor(list(itertools.product(*map(range, sizes))))
    assert torch.equal(data.grid(), expected)
    assert torch.equal(data.index(expected), torch.arange(24))
    with pytest.raises(UsageError, match="whole numbers"):
        data.observe(torch.tensor([[0, 2, 0]]))


def test_ranks_split_one_global_batch() -> None:
    data = open_dataset("digits")
    whole = Source(data, 8, torch.Generator().manual_seed(1)).sample()["x"]
    parts = [Source(data, 4, torch.Generator().manual_seed(1), rank=r, world=2).sample()["x"] for r in (0, 1)]
    assert torch.equal(whole, torch.cat(parts))


def test_files_are_looked_for_in_order(tmp_path, monkeypatch) -> None:
    (tmp_path / "name").mkdir()
    (tmp_path / "name" / "a.txt").write_text("x")
    monkeypatch.setenv("DISTK_DATA", str(tmp_path))
    assert Files("name", None, "a.txt").find("a.txt") == tmp_path / "name" / "a.txt"
    assert Files("other", None, "b.txt").find("b.txt") is None
    with pytest.raises(UsageError, match=r"found none of b\.txt"):
        Files("name", tmp_path / "name", "b.txt").find("b.txt")
    with pytest.raises(UsageError, match="does not exist"):
        Files("name", tmp_path / "gone", "b.txt")


def test_eval_mode_gives_every_module_its_own_mode_back() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Dropout(), torch.nn.Dropout())
    model[1].eval()  # frozen by somebody
    before = [module.training for module in model.modules()]

    def fail() -> None:
        with eval_mode(model):
            assert not any(module.training for module in model.modules())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert [module.training for module in model.modules()] == before == [True, True, False, True]
