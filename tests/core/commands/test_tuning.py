"""`distk tuning` on models with Gaussian codes and on others, in the program itself."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import distk
from distk.commands.tuning import correlations, factor_grid

SPRITES = {"size": 32, "scales": [1, 5], "orientations": 4, "positions": 5}
QUICK = {"device": "cpu", "quiet": True, "steps": 12, "batch": 16, "arch": "mlp"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run of a dozen steps on a plane of positions, on sprites, on sprites in colour, and of a generator."""
    folder = tmp_path_factory.mktemp("runs")
    made = {
        "linear": distk.train("betavae", out=folder / "linear", **QUICK, data="blobs", size=32, positions=6, z=3),
        "vae": distk.train("vae", out=folder / "vae", **QUICK, data="dsprites", **SPRITES, z=3),
        "colour": distk.train("vae", out=folder / "colour", **QUICK, data="dsprites-color", **SPRITES, z=3),
        "factorgen": distk.train("factorgen", out=folder / "factorgen", **QUICK, data="dsprites", **SPRITES),
    }
    return {name: run.path for name, run in made.items()}


def width(path: Path | str) -> int:
    with Image.open(path) as image:
        image.load()
        return image.width


def test_tuning_of_a_linear_code(runs, distk_command) -> None:
    code, out, _ = distk_command("tuning", runs["linear"], "--csv", "means.csv", "--out", "t.png", "--json")
    assert code == 0
    found = json.loads(out)
    assert found["factors"] == ["posX", "posY"]
    assert [Path(f).name for f in found["files"]] == ["t.png", "means.csv"]
    nats = [latent["kl"] for latent in found["latents"]]
    assert nats == sorted(nats, reverse=True)
    table = np.loadtxt("means.csv", delimiter=",", skiprows=1)
    assert table.shape == (36, 5)
    assert Path("means.csv").read_text().splitlines()[0] == "posX,posY,z1,z2,z3"
    model = distk.load(runs["linear"] / "checkpoint.safetensors")
    data = model.dataset()
    with torch.no_grad():
        means = model.encode(data.observe(torch.tensor(table[:, :2]).long()))["z"]
    assert np.allclose(table[:, 2:], means.numpy(), rtol=1e-4, atol=1e-4)
    for latent in found["latents"]:
        column = table[:, 1 + int(latent["latent"][1:])]
        for factor, k in (("posX", 0), ("posY", 1)):
            expected = np.corrcoef(table[:, k], column)[0, 1]
            assert latent[f"corr_{factor}"] == pytest.approx(expected, abs=1e-4)
    assert width("t.png") > 500


def test_best_direction_is_that_of_a_regression(seed) -> None:
    g = torch.Generator().manual_seed(seed)
    pair = torch.cartesian_prod(torch.arange(5), torch.arange(7)).double()
    z = pair @ torch.randn(2, 3, generator=g, dtype=torch.float64) + torch.randn(35, 3, generator=g).double()
    z = torch.cat([z, torch.ones(35, 1).double()], 1)
    design = torch.cat([pair, torch.ones(35, 1)], 1)
    fitted = design @ torch.linalg.lstsq(design, z).solution
    r2 = (fitted - z.mean(0)).square().sum(0) / (z - z.mean(0)).square().sum(0).clamp_min(1e-12)
    found = correlations(z, pair)
    assert [f[2] ** 2 for f in found[:3]] == pytest.approx(r2[:3].tolist(), abs=1e-9)
    assert found[3] == (0.0, 0.0, 0.0)


def test_tuning_with_fixed_factors(runs, distk_command) -> None:
    data = distk.dataset("dsprites", size=32, scales=[1, 5], orientations=4, positions=5)
    values = factor_grid(data, 3, 1, [1, 0, 2, 0, 3])
    assert values.shape == (10, 5)
    assert values[:, [0, 2, 4]].unique(dim=0).tolist() == [[1, 2, 3]]
    assert values[:6, 3].tolist() == [0, 1, 2, 3, 4, 0]
    line = ["tuning", runs["vae"], "--factors", "posX,scale", "--fix", "shape=2,orientation=1", "--top", 2]
    code, out, _ = distk_command(*line, "--out", "t.png")
    assert code == 0
    assert "corr_scale" in out


def test_tuning_of_data_that_are_no_grid(runs, distk_command) -> None:
    code, out, _ = distk_command("tuning", runs["colour"], "--factors", "hue,value", "--json")
    assert code == 0
    assert len(json.loads(out)["latents"]) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--factors", "posX"), "name two different factors"),
        (("--factors", "posX,posX"), "name two different factors"),
        (("--factors", "posX,colour"), "unknown factor 'colour'"),
        (("--fix", "shape"), "write FACTOR=NUMBER"),
        (("--fix", "shape=3"), "the values of 'shape' are 0 to 2"),
        (("--fix", "posX=1"), "one of the two that vary"),
        (("--data", "digits"), "data set 'digits' has no known factors"),
        (("--out", "nowhere/t.png"), "the folder 'nowhere' does not exist"),
    ],
)
def test_wrong_use_of_tuning(runs, distk_command, options, message) -> None:
    code, _, err = distk_command("tuning", runs["vae"], *options)
    assert code == 2
    assert message in " ".join(err.split())


def test_tuning_needs_codes(runs, distk_command) -> None:
    code, _, err = distk_command("tuning", runs["factorgen"])
    assert code == 2
    assert "has no `distk tuning`" in err
