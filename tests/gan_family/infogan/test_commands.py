"""`distk infogan ...`, and the metric `dci-gap`, on codes whose importances are known."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from distk import Code, CodeTable, DataSpec, FactorDataset, Files, Latent, LatentSpace, Method, UsageError, train
from distk.config import NoConfig
from distk.plugins.gan_family.infogan.metrics import GapConfig, GapDci
from distk.sheet import bare

CPU = torch.device("cpu")


class Numbers(FactorDataset):
    """Rows whose items hold their own factors: three independent ones, and the splits of `teapots`."""

    factor_names = ("height", "width", "light")
    factor_sizes = (10, 10, 10)
    factor_kinds = ("continuous",) * 3

    def __init__(self, n: int, generator: torch.Generator, gap: bool = True) -> None:
        super().__init__(None, CPU, Files("numbers", None, ""))
        self.values_of = torch.rand(n, 3, generator=generator, dtype=torch.float64) * torch.tensor([1.0, 5.0, 0.1])
        self.table = (self.values_of / torch.tensor([1.0, 5.0, 0.1]) * 10).long()
        self.spec, self.name, self.origin = DataSpec("vector", (3,)), "numbers", "drawn for a test"
        away = self.values_of[:, 0] > (0.7 if gap else 2.0)
        rows = torch.arange(n)
        parts = {
            "train": rows[: 8 * n // 10],
            "validation": rows[8 * n // 10 : 9 * n // 10],
            "test": rows[9 * n // 10 :],
        }
        self.parts = {name: part[~away[part]] for name, part in parts.items()}
        if gap:
            self.parts["gap"] = rows[away]

    def truth(self, rows: Tensor) -> Tensor:
        return self.values_of[rows]

    def batch(self, rows: Tensor) -> dict[str, Tensor]:
        return {"x": self.values_of[rows].float()}


class Linear(Method):
    """Codes that are a given linear map of the item."""

    def __init__(self, matrix: Tensor, spec: DataSpec) -> None:
        super().__init__(NoConfig(), spec)
        self.register_buffer("matrix", matrix)
        self.latents = LatentSpace.of(Latent("c", "continuous", len(matrix)))

    def encode(self, x: Tensor) -> Code:
        return {"c": x @ self.matrix.T}


def scores(data: Numbers, matrix: Tensor, seed: int = 0, **settings: Any) -> dict[str, Any]:
    model = Linear(matrix, data.spec)
    table = CodeTable(torch.zeros(0, len(matrix)), [], [], model=model, dataset=data)
    return dict(GapDci(GapConfig(**settings)).compute(table, seed))


@pytest.mark.parametrize("predictor", ["lasso", "rf"])
def test_a_permuted_and_scaled_code_is_perfect(generator: torch.Generator, predictor: str) -> None:
    data = Numbers(3000, generator)
    matrix = torch.tensor([[0, 0, -7.0], [3.0, 0, 0], [0, 0.5, 0]])
    told = scores(data, matrix, predictor=predictor)
    assert told["disentanglement"] == pytest.approx(1, abs=0.02)
    assert told["completeness"] == pytest.approx(1, abs=0.02)
    assert told["nrmse_test"] < 0.06
    assert told["nrmse_test.width"] < 0.06
    assert told["codes_for.height"] == 1
    assert told["redundant_codes"] == 0
    order = np.asarray(told["importance"]).argmax(0)
    assert order.tolist() == [1, 2, 0]
    if predictor == "lasso":  # which shrinks each weight by alpha = 0.02, in standardised units
        assert told["nrmse_test.width"] == pytest.approx(0.02, abs=0.005)
        # The gap is one of height: a line goes on, but is scored over the smaller deviation there.
        assert told["nrmse_gap.height"] > told["rmse_gap.height"]
        assert told["nrmse_gap.width"] == pytest.approx(0.02, abs=0.005)
    else:  # a forest cannot foretell what it never saw
        assert told["nrmse_gap.height"] > 1
        assert told["nrmse_gap.width"] < 0.1


def test_a_rotated_code_is_informative_and_not_disentangled(generator: torch.Generator) -> None:
    data = Numbers(3000, generator, gap=False)
    scale = torch.tensor([1.0, 1 / 5, 10.0])
    told = scores(data, torch.tensor([[2.0, 2, -1], [-1, 2, 2], [2, -1, 2]]) / 3 * scale)
    assert told["disentanglement"] < 0.3
    assert told["completeness"] < 0.3
    assert told["nrmse_test"] < 0.1
    assert math.isnan(told["nrmse_gap"])
    assert "no split 'gap'" in told["reasons"]["nrmse_gap"]


def test_a_code_without_use_is_counted(generator: torch.Generator) -> None:
    told = scores(Numbers(2000, generator), torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 10], [0, 0, 0]]))
    assert told["redundant_codes"] == 1
    assert math.isnan(told["disentanglement.c4"])
    assert told["disentanglement"] == pytest.approx(1, abs=0.02)


def test_data_must_have_splits(generator: torch.Generator) -> None:
    data = Numbers(200, generator)
    data.parts = {}
    with pytest.raises(UsageError, match="no splits"):
        scores(data, torch.eye(3))


# The command line


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of two steps, with a categorical code beside the continuous ones."""
    folder = tmp_path_factory.mktemp("infogan") / "run"
    train(
        "infogan",
        steps=2,
        batch=4,
        out=folder,
        quiet=True,
        codes=2,
        categories=(3,),
        noise=2,
        dim=2,
        critic_updates=1,
        items=600,
        poses=150,
        size=16,
        gap="paper",
    )
    return folder


def test_grid_draws_a_picture_for_each_code(distk_command: Any, run: Path) -> None:
    code, out, _ = distk_command("infogan", "grid", run, "--rows", 4, "--columns", 3, "--out", "all.png", "--json")
    assert code == 0
    told = json.loads(out)
    assert told["files"] == ["all-c1.png", "all-c2.png", "all-d.png"]
    assert (told["codes"], told["rows"], told["columns"]) == (["c1", "c2", "d"], {"c1": 4, "c2": 4, "d": 3}, 3)
    with bare(Path("all-d.png")) as classes, bare(Path("all-c1.png")) as walk:
        assert classes.height < walk.height  # three classes, four values
    code, out, _ = distk_command("infogan", "grid", run, "--code", "c2", "--out", "one.png")
    assert (code, out.strip()) == (0, "one.png")
    code, _, err = distk_command("infogan", "grid", run, "--code", "c3")
    assert code == 2
    assert "none of this model's codes c1, c2, d" in err


def test_items_cannot_exchange_what_they_are_not_encoded_to(distk_command: Any, run: Path) -> None:
    for command in ("swap", "interpolate"):
        code, _, err = distk_command(command, run, "--group", "noise", "--out", "s.png")
        said = " ".join(err.split())
        assert code == 2, said
        assert "items are not encoded to 'noise'" in said
        assert "--start prior" in said
        assert distk_command(command, run, "--group", "noise", "--start", "prior", "--out", "s.png")[0] == 0


def test_the_data_tell_every_split(distk_command: Any) -> None:
    line = ("data", "teapots", "--items", 600, "--poses", 150, "--size", 16, "--gap", "paper")
    code, out, _ = distk_command(*line, "--json")
    told = json.loads(out)
    assert code == 0
    assert told["train"] + told["validation"] + told["test"] + told["gap"] == told["items"] == 600
    assert min(told["validation"], told["test"], told["gap"]) > 10
    code, out, _ = distk_command(*line)
    assert f"validation  {told['validation']}" in out


def test_a_score_that_draws_by_itself_claims_no_rows(distk_command: Any, run: Path) -> None:
    code, out, _ = distk_command("eval", run, "--metric", "infogan", "--set", "images=32", "--json")
    assert code == 0
    assert json.loads(out)["provenance"]["rows"] is None


def test_hinton_draws_what_dci_measures(distk_command: Any, run: Path) -> None:
    code, out, _ = distk_command("infogan", "hinton", run, "--out", "h.png", "--json")
    assert code == 0
    told = json.loads(out)
    assert told["files"] == ["h.png", "h.svg"]
    assert np.asarray(told["weights"]).shape == (3, 5)
    assert all(Path(name).stat().st_size for name in told["files"])
    svg = Path("h.svg").read_text()
    assert "azimuth  C 0." in svg
    code, out, _ = distk_command("infogan", "hinton", run, "--predictor", "rf", "--out", "f.png")
    assert code == 0
    assert "blue  C 0." in out
    assert "c1  D 0." in out


def test_eval_scores_test_and_gap(distk_command: Any, run: Path) -> None:
    metrics = ("-m", "dci-gap", "-m", "infogan", "--set", "infogan.images=64", "--items", 300)
    code, out, _ = distk_command("eval", run, *metrics, "--out", "e.json", "--json")
    assert code == 0
    told = json.loads(out)["metrics"]
    assert {"nrmse_gap.red", "completeness.blue", "disentanglement.c1", "disentanglement.d"} <= set(told["dci-gap"])
    assert {"code_r2", "class_accuracy", "mi_bound", "smallest_deviation"} <= set(told["infogan"])
    code, out, _ = distk_command(
        "eval", run, "-m", "dci", "--predictor", "lasso", "--fit", "train", "--split", "test,gap", "--json"
    )
    assert code == 0
    assert set(json.loads(out)["splits"]) == {"test", "gap"}


def test_every_generic_command_serves_it(distk_command: Any, run: Path) -> None:
    for command in (("traverse", "--columns", 3), ("sample", "-n", 4), ("reconstruct", "-n", 2)):
        code, _, err = distk_command(command[0], run, *command[1:], "--out", f"{command[0]}.png")
        assert code == 0, err
    code, _, err = distk_command("train", "infogan", "--data", "digits", "--gap", "paper")
    assert code == 2
