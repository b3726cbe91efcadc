"""The data set of docs/plugins.md that reads files, as it stands there."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import distk
from distk.data import Files

ROOT = Path(__file__).parents[2]


def own() -> Any:
    text = (ROOT / "docs/plugins.md").read_text().split("## A data set that reads files", 1)[1]
    found = re.search(r"```python\n(.*?)```", text, re.S)
    assert found is not None
    names: dict[str, Any] = {"__name__": "acme_own"}
    exec(compile(found[1], "docs/plugins.md", "exec"), names)
    return names["Own"]


def opened(folder: Path | None) -> Any:
    cls = own()
    return cls(distk.NoConfig(), torch.device("cpu"), Files("acme-own", folder, cls.reads))


def test_it_reads_pictures_and_their_factors(tmp_path: Path, rng: np.random.Generator) -> None:
    pictures = rng.integers(0, 256, (6, 8, 8), dtype=np.uint8)
    np.save(tmp_path / "pictures.npy", pictures)
    (tmp_path / "factors.csv").write_text("shape,angle\n0,0.5\n1,0.5\n2,0.5\n0,1.5\n1,1.5\n2,9\n")
    data = opened(tmp_path)
    assert data.factor_names == ("shape", "angle")
    assert data.factor_sizes == (3, 3)
    assert data.factors(torch.tensor([5, 0])).tolist() == [[2, 2], [0, 0]]
    assert torch.equal(data[4]["x"], torch.tensor(pictures[4]).float().div(255)[None])
    assert data[4]["factors"].tolist() == [1, 1]
    assert data.spec.shape == (1, 8, 8)
    (tmp_path / "factors.csv").write_text("shape\n0\n")
    with pytest.raises(distk.DistkError, match="has 1 row"):
        opened(tmp_path)
    (tmp_path / "factors.csv").unlink()
    with pytest.raises(distk.UsageError, match=r"found none of factors\.csv .*; it reads pictures\.npy"):
        opened(tmp_path)


def test_without_a_folder_it_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISTK_DATA", raising=False)
    with pytest.raises(distk.UsageError, match=r"needs files: add --data-dir FOLDER, with pictures\.npy"):
        opened(None)
