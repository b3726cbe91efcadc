"""`distk train jade` and what follows it, on real files, through the program's own entry point."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import io

import distk
from distk.sheet import bare
from distk.testing import check_metric, model_table

SMALL = {"width": 0.125, "hidden": 16, "horizon": 6}
DATA = {"secondary_size": 200, "test": 60}
TRAIN = {"steps": 6, "batch": 16, "device": "cpu", "quiet": True}


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run of the demo."""
    path = tmp_path_factory.mktemp("jade") / "run"
    distk.train("jade", preset="demo", out=path, val_per_class=10, **SMALL, **DATA, **TRAIN)
    return path


def test_transfer_between_the_data_sets(run_folder: Path, distk_command, in_folder: Path) -> None:
    target = in_folder / "grid.png"
    arguments = ("--content", "primary:3,1007", "--style", "secondary:5,6,7", "--out", target, "--json")
    code, out, err = distk_command("jade", "transfer", run_folder, *arguments)
    assert code == 0, err
    told = json.loads(out)
    assert told["content"] == {"of": "primary", "rows": [3, 1007]}
    assert told["style"] == {"of": "secondary", "rows": [5, 6, 7]}
    assert 0 <= told["class_kept"] <= 1
    sheet = np.asarray(bare(Path(target)))
    assert sheet.shape == (2 + 3 * 66, 2 + 4 * 66, 3)
    # What stands in the second row and column is the first content in the first style, of the secondary's decoder.
    model = distk.load(run_folder / "checkpoint.safetensors")
    data = model.dataset()
    with torch.no_grad():
        content = model.encode(data.batch(torch.tensor([3]))["x"])["content"]
        style = model.encode(data.secondary_batch(torch.tensor([5]))["x"])["style"]
        expected = model.decode_secondary({"content": content, "style": style})[0, 0]
    cell = sheet[2 + 66 : 2 + 66 + 64 : 2, 2 + 66 : 2 + 66 + 64 : 2, 0][2:30, 2:30]
    assert np.abs(cell / 255 - expected.numpy()).max() < 0.01


def test_names_of_the_data_sets_serve_too(run_folder: Path, distk_command, in_folder: Path) -> None:
    folder = ("--out", in_folder / "a.png", "--json", "-n", 2)
    code, out, _ = distk_command(
        "jade", "transfer", run_folder, "--content", "digits28", "--style", "styled-digits", *folder
    )
    assert code == 0
    assert json.loads(out)["content"]["of"] == "secondary"


@pytest.mark.parametrize("part", ["content", "style"])
@pytest.mark.parametrize("of", ["primary", "secondary"])
def test_traverse_one_half(run_folder: Path, distk_command, in_folder: Path, part: str, of: str) -> None:
    target = in_folder / "t.png"
    arguments = ("--part", part, "--of", of, "--row", 4, "--columns", 5, "--out", target, "--json")
    code, out, err = distk_command("jade", "traverse", run_folder, *arguments)
    assert code == 0, err
    assert json.loads(out)["row"] == 4
    assert bare(Path(target)).height == 2 + 11 * 66


def test_sample_a_class(run_folder: Path, distk_command, in_folder: Path) -> None:
    target = in_folder / "s.png"
    code, out, err = distk_command("jade", "sample", run_folder, "--class", 3, "-n", 4, "--out", target, "--json")
    assert code == 0, err
    assert json.loads(out)["classes"] == ["3"]
    assert bare(Path(target)).size == (2 + 4 * 66, 2 + 66)
    done = distk_command("sample", run_folder, "--label", 3, "--n", 4, "--out", target)
    assert done[0] == 0, done


def test_figure_two(run_folder: Path, distk_command, in_folder: Path) -> None:
    code, out, err = distk_command("jade", "variance", run_folder, "--out", in_folder, "--json")
    assert code == 0, err
    scored = json.loads(out)
    fixed, total = (list(csv.reader((in_folder / name).open())) for name in ("fixed_content.csv", "all.csv"))
    assert [row[0] for row in fixed] == ["class", *"0123456789"]
    assert fixed[0][1:] == total[0][1:] == [f"{part}{i + 1}" for part in ("content", "style") for i in range(10)]
    values = np.array([row[1:] for row in fixed[1:]], dtype=float)
    # Against numpy, from the codes that anybody can compute.
    model = distk.load(run_folder / "checkpoint.safetensors")
    batch = model.dataset().batch(model.dataset().rows("test"))
    with torch.no_grad():
        code_ = model.encode(batch["x"])
    codes = torch.cat([code_["content"], code_["style"]], 1).double().numpy()
    expected = np.stack([codes[batch["label"].numpy() == c].var(0, ddof=1) for c in range(10)]) / codes.var(0, ddof=1)
    np.testing.assert_allclose(values, expected, rtol=2e-3)
    np.testing.assert_allclose(np.array(total[1][1:], dtype=float), codes.var(0, ddof=1), rtol=1e-3)
    assert scored["ratio"] == pytest.approx(expected[:, :10].mean() / expected[:, 10:].mean(), rel=1e-2)
    assert Image.open(in_folder / "variance.png").width > 200


def test_scores(run_folder: Path, distk_command, in_folder: Path) -> None:
    names = ("error", "validation-error", "content-style-variance")
    asked = [part for name in names for part in ("--metric", name)]
    code, out, err = distk_command("eval", run_folder, *asked, "--out", in_folder / "e.json", "--json")
    assert code == 0, err
    scored = json.loads(out)["metrics"]
    model = distk.load(run_folder / "checkpoint.safetensors")
    data = model.dataset()
    with torch.no_grad():
        for key, batch in (
            ("error_primary", data.batch(data.rows("test"))),
            ("error_secondary", data.secondary_batch(data.secondary_rows("test"))),
        ):
            wrong = float((model.classify(batch["x"]).argmax(1) != batch["label"]).float().mean())
            assert scored["error"][key] == pytest.approx(wrong)
    assert scored["error"]["images"] == scored["error"]["images_secondary"] == 60
    assert scored["validation-error"]["images"] == 100
    assert (in_folder / "e.eval.content-style-variance.variance.png").exists()


@pytest.mark.parametrize("name", ["error", "validation-error", "content-style-variance"])
def test_scores_conform(run_folder: Path, name: str) -> None:
    model = distk.load(run_folder / "checkpoint.safetensors")
    check_metric(name, model_table(model, model.dataset(), 64))


def test_house_numbers_and_mnist(distk_command, in_folder: Path, real) -> None:
    folder = real("svhn/train_32x32.mat").parents[1]
    real("mnist")
    small = ("--steps", 2, "--batch", 8, "--width", 0.125, "--hidden", 16, "--device", "cpu", "--horizon", 2)
    named = ("--preset", "paper", "--data-dir", folder, "--labels-per-class", 20, "--out", in_folder / "run")
    code, out, err = distk_command("train", "jade", *named, *small)
    assert code == 0, err
    assert "secondary mnist, 45,000 training items" in " ".join(err.split())
    assert "matching" in out


def test_baselines_refuse_what_they_cannot_do(distk_command, in_folder: Path) -> None:
    for method in ("jade-single", "jade-paired"):
        distk.train(method, preset="demo", out=in_folder / method, **SMALL, **DATA, **TRAIN)
        code, _, err = distk_command("jade", "transfer", in_folder / method)
        assert code == 2
        assert f"holds a model of method '{method}'; this command serves jade, which" in " ".join(err.split())
        code, _, err = distk_command("reconstruct", in_folder / method)
        assert code == 2
        assert "eval" in err
    code, out, _ = distk_command("eval", in_folder / "jade-single", "--metric", "error", "--json")
    assert code == 0
    assert json.loads(out)["metrics"]["error"]["error_secondary"] is None


def test_words_that_do_not_fit(run_folder: Path, distk_command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISTK_DATA", raising=False)
    small = ("--test", 10, "--secondary-size", 50, "--steps", 1)
    for arguments, said in (
        (("jade", "transfer", run_folder, "--content", "cifar"), "neither primary nor secondary, nor styled-digits"),
        (("jade", "transfer", run_folder, "--content", "primary:1,x"), "row numbers from 0"),
        (("jade", "transfer", run_folder, "--content", "primary:99999"), "row numbers from 0"),
        (("jade", "transfer", run_folder, "-n", 61), "more than the 60 test images"),
        (("jade", "traverse", run_folder, "--part", "both"), "'both' is none of"),
        (("jade", "sample", run_folder, "--class", "11"), "none of 0, 1, 2"),
        (("jade", "variance", run_folder, "--out", "nowhere"), "does not exist"),
        (("train", "jade", "--labels-per-class", 0), "labels-per-class"),
        (("train", "jade", "--labels-per-class", 101, *small), "has only 100 training items"),
        (("train", "jade", "--primary", "svhn", *small), "--primary styled-digits --secondary digits28"),
        (("train", "jade", "--primary", "digits", *small), "--resize"),
        (("train", "jade", "--data", "styled-digits", "--test", 10, "--steps", 1), "class-pairs"),
    ):
        code, out, err = distk_command(*arguments)
        assert code == 2, (arguments, err)
        assert said in " ".join(err.split()), (arguments, err)
        assert not out


def test_a_class_without_counterpart(distk_command, in_folder: Path) -> None:
    labels = np.repeat(np.arange(1, 10, dtype=np.uint8), 12)
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3, len(labels)), dtype=np.uint8)
    for name in ("train_32x32.mat", "test_32x32.mat"):
        io.savemat(in_folder / name, {"X": pixels, "y": labels[:, None]})
    small = (
        "--primary",
        "svhn",
        "--data-dir",
        in_folder,
        "--labels-per-class",
        10,
        "--secondary-size",
        100,
        "--test",
        20,
    )
    small = (*small, "--steps", 1, "--batch", 4, "--width", 0.125, "--hidden", 8, "--device", "cpu")
    code, _, err = distk_command("train", "jade", *small)
    assert code == 2
    assert "class 0 has no counterpart" in " ".join(err.split())
    code, _, err = distk_command("train", "jade-paired", *small, "--out", in_folder / "paired")
    assert code == 0, err
    assert "without pairing" in " ".join(err.split())
