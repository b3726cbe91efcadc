"""Class-balanced batches: which classes and rows they hold, what happens to short classes, and what is refused."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from distk import DataSpec, UsageError
from distk.config import NoConfig
from distk.data import Dataset, FactorDataset, Files
from distk.device import Ranks, seeded
from distk.plugins.vae_family.fstat.batches import labellings
from distk.settings import resolve
from distk.training.beginning import build


class Labelled(FactorDataset):
    """Vectors whose single number is the row; label and two factors given."""

    def __init__(self, label: Tensor, factors: Tensor) -> None:
        super().__init__(NoConfig(), torch.device("cpu"), Files("labelled", None, ""))
        self.name, self.origin, self.label, self.table = "labelled", "made up", label, factors
        self.spec = DataSpec("vector", (1,))
        self.factor_names, self.factor_kinds = ("a", "b"), ("categorical",) * 2
        self.factor_sizes = tuple(int(f.max()) + 1 for f in factors.T)

    def batch(self, rows: Tensor) -> dict[str, Tensor]:
        return {"x": rows[:, None].float(), "label": self.label[rows]}


@pytest.mark.parametrize("size", [40, 3000])
def test_batches_hold_different_rows_of_different_classes(size: int) -> None:
    label = torch.arange(6).repeat_interleave(size)
    label = label[torch.randperm(len(label))]
    data = Labelled(label, torch.stack([label % 2, label % 3], 1))
    (one,) = labellings(data, "train", "identity", strict=False)
    seen = torch.zeros(len(label))
    generator = seeded(0, torch.device("cpu"))
    for _ in range(300):
        rows, mask = one.draw(4, 10, generator)
        assert rows.shape == mask.shape == (4, 10)
        assert bool((mask == 1).all())
        kinds = label[rows]
        assert bool((kinds == kinds[:, :1]).all())
        assert len(set(kinds[:, 0].tolist())) == 4
        assert len(set(rows.flatten().tolist())) == 40
        seen[rows.flatten()] += 1
    share = torch.bincount(label, seen) / seen.sum()  # 200 of 300 batches hold a class, sd 8
    assert float((share - 1 / 6).abs().max()) < 5 * 8.2 / 300 / 4
    if size == 40:  # each row is drawn 50 times on average, sd 6.5; 240 rows
        assert float((seen - 50).abs().max()) < 6 * 6.5


def test_short_classes_are_masked_and_single_images_dropped(capsys: pytest.CaptureFixture[str]) -> None:
    label = torch.tensor([0] * 5 + [1] * 2 + [2] * 9 + [3])
    data = Labelled(label, torch.stack([label % 2, torch.zeros_like(label)], 1))
    (one,) = labellings(data, "train", "identity", strict=False)
    assert "class 3 has 1 image" in capsys.readouterr().err
    generator = seeded(1, torch.device("cpu"))
    for _ in range(20):
        rows, mask = one.draw(12, 5, generator)
        assert rows.shape == (3, 5)
        for row, held in zip(rows, mask, strict=True):
            kind = int(label[row[0]])
            valid = row[held > 0].tolist()
            assert len(set(valid)) == len(valid) == {0: 5, 1: 2, 2: 5}[kind]
            assert bool((label[row] == kind).all())
    with pytest.raises(UsageError, match="'labelled': class 3 has 1 image; at least 2"):
        labellings(data, "train", "identity", strict=True)
    names = [one.name for one in labellings(data, "train", "factors", strict=False)]
    assert names == ["a"]  # the other has a single value


def test_data_that_cannot_be_used_are_refused() -> None:
    class Bare(Dataset):
        spec, name, origin = DataSpec("vector", (1,)), "bare", "made up"

        def __len__(self) -> int:
            return 4

        def batch(self, rows: Tensor) -> dict[str, Tensor]:
            return {"x": rows[:, None].float()}

    bare = Bare(NoConfig(), torch.device("cpu"), Files("bare", None, ""))
    with pytest.raises(UsageError, match=r"'bare' has no labels; .*puppets.* have them"):
        labellings(bare, "train", "identity", strict=False)
    with pytest.raises(UsageError, match=r"'bare' has no factors; .*sprites.* have them"):
        labellings(bare, "train", "factors", strict=False)
    lonely = Labelled(torch.arange(4), torch.zeros(4, 2, dtype=torch.long))
    with pytest.raises(UsageError, match="no two classes of at least 2 images each"):
        labellings(lonely, "train", "identity", strict=False)


def test_attributes_take_turns() -> None:
    a, b = torch.randint(0, 3, (400,)), torch.randint(0, 4, (400,))
    data = Labelled(torch.arange(400) // 4, torch.stack([a, b], 1))
    settings = resolve(
        "fstat",
        options={
            "model": {"label": "factors", "k": 3, "samples_per_class": 6},
            "train": {"device": "cpu", "steps": 4},
            "data": {"name": "xor"},
        },
    )
    trainer = build(settings, torch.device("cpu"), Ranks(), data)
    seen = []
    inner = trainer.model.collect

    def collect(source: object) -> dict[str, Tensor]:
        batch = inner(source)
        seen.append(batch)
        return batch

    trainer.model.collect = collect  # type: ignore[method-assign]
    for _ in range(4):
        trainer.step()
    assert [tuple(batch["mask"].shape) for batch in seen] == [(3, 6), (4, 6), (3, 6), (4, 6)]
    for batch, column in zip(seen, (a, b, a, b), strict=True):
        kinds = column[batch["x"][:, 0].long()].view(-1, 6)
        assert bool((kinds == kinds[:, :1]).all())
    assert [trainer.model.phase(step) for step in range(4)] == [0, 1, 0, 1]
