"""Splits by their names. Those of the registered data sets are held by `distk.testing.check_dataset`."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from distk import Dataset, DataSpec, Files, NoConfig, UsageError


class Numbers(Dataset):
    """Ten vectors, three of them in a split `gap`."""

    def __init__(self, config: Any, device: torch.device, files: Files) -> None:
        super().__init__(config, device, files)
        self.name, self.origin = "numbers", "ten vectors"
        self.spec = DataSpec("vector", (1,))
        every = torch.arange(10, device=device)
        self.parts = {"train": every[:5], "test": every[5:7], "gap": every[7:]}

    def __len__(self) -> int:
        return 10

    def batch(self, rows: Tensor) -> dict[str, Tensor]:
        return {"x": rows[:, None].float()}


@pytest.fixture
def numbers() -> Numbers:
    return Numbers(NoConfig(), torch.device("cpu"), Files("numbers", None, ""))


def test_a_split_has_its_rows(numbers: Numbers, generator: torch.Generator) -> None:
    assert numbers.splits == ("train", "test", "gap")
    assert numbers.rows("all") is None
    for name, rows in numbers.parts.items():
        assert torch.equal(numbers.rows(name), rows)
        drawn = numbers.sample_rows(200, generator, name)
        assert set(drawn.tolist()) == set(rows.tolist())


def test_an_unknown_split_is_refused_with_the_names_that_there_are(numbers: Numbers) -> None:
    with pytest.raises(UsageError, match=r"split of data set 'numbers'.*'gaps'.*gap"):
        numbers.rows("gaps")
