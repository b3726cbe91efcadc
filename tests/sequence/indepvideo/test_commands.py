"""The commands of indepvideo, generic ones and its own, on real runs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from distk import cli, console, load, open_dataset
from distk.plugins.sequence.indepvideo import information, metrics
from distk.sheet import bare

TINY = ["--data", "bouncing-squares", "--channels", "2", "--features", "4", "--latent-dim", "2", "--trans-hidden", "8"]
TINY += ["--batch", "4", "--steps", "3", "--device", "cpu"]
Call = Callable[..., tuple[str, str]]


def called(capsys: pytest.CaptureFixture[str], *args: object, code: int = 0) -> tuple[str, str]:
    """`distk ARGS` in this process: (stdout, stderr)."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["distk", *map(str, args)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
    out, err = capsys.readouterr()
    assert (ended.value.code or 0) == code, (args, out[-1500:], err[-1500:])
    return out, " ".join(err.split())


@pytest.fixture
def distk(capsys: pytest.CaptureFixture[str]) -> Call:
    return lambda *args, code=0: called(capsys, *args, code=code)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


def run_of(distk: Call, folder: Path, name: str, *settings: object) -> Path:
    if not (folder / name).exists():
        distk("train", "independent-prediction", *TINY, *settings, "--out", folder / name)
    return folder / name


def test_independent_draws_a_row_per_factor(distk: Call, folder: Path, tmp_path: Path) -> None:
    run = run_of(distk, folder, "factored", "--latents", 3)
    for source in ("posterior", "prior", "prior-mean", "interpolate"):
        out = tmp_path / f"{source}.png"
        told = distk("indepvideo", "independent", run, "-n", 2, "--source", source, "--out", out, "--json")[0]
        found = json.loads(told)
        assert found["files"] == [str(out), str(out.with_suffix(".gif"))]
        assert list(found["variance_over_time"]) == ["all", "factor 0", "factor 1", "factor 2"]
        with bare(Path(out)) as sheet:
            assert sheet.height == 2 * 4 * (48 + 2) + 2  # two clips of four rows, 16 pixels enlarged three times
            assert sheet.width == 7 * (48 + 2) + 2  # frames 2 to 8, and the labels
        with Image.open(out.with_suffix(".gif")) as movie:
            assert movie.n_frames == 7  # type: ignore[attr-defined]
    assert "factored/checkpoint.independent-posterior.png" in distk("indepvideo", "independent", run, "-n", 1)[0]


def test_an_entangled_model_has_no_factors_but_can_be_cut(distk: Call, folder: Path, tmp_path: Path) -> None:
    run = run_of(distk, folder, "entangled", "--transition", "entangled")
    _, err = distk("indepvideo", "independent", run, code=2)
    assert "has no factors" in err
    assert "--partition SEED" in err
    out = tmp_path / "cut.png"
    found = json.loads(distk("indepvideo", "independent", run, "--partition", 3, "--out", out, "--json")[0])
    assert list(found["variance_over_time"]) == ["all", "factor 0", "factor 1"]
    found = json.loads(distk("indepvideo", "correlation", run, "--out", out, "--json")[0])
    assert found["block_ratio"] is None
    found = json.loads(distk("indepvideo", "correlation", run, "--partition", 3, "--out", out, "--json")[0])
    assert found["block_ratio"] > 0
    assert sorted(found["units"]) == [0, 1, 2, 3]


def test_correlation_writes_the_map_and_its_numbers(distk: Call, folder: Path, tmp_path: Path) -> None:
    run = run_of(distk, folder, "factored", "--latents", 3)
    out = tmp_path / "map.png"
    found = json.loads(distk("indepvideo", "correlation", run, "--pairs", 400, "--seed", 5, "--out", out, "--json")[0])
    assert found["files"] == [str(out), str(tmp_path / "map.csv")]
    assert found["pairs"] == 400
    with Image.open(out) as picture:
        assert min(picture.size) > 300
    model, data = load(run), open_dataset("bouncing-squares")
    with torch.no_grad():
        now, then = metrics.consecutive(model, data, 400, 5)
    matrix = information.correlation(now, then).numpy()
    np.testing.assert_allclose(np.loadtxt(tmp_path / "map.csv", delimiter=","), matrix, atol=1e-5)
    assert found["mean_abs_correlation"] == pytest.approx(float(np.abs(matrix).mean()))


def test_generic_commands_serve_it(distk: Call, folder: Path, tmp_path: Path) -> None:
    run = run_of(distk, folder, "factored", "--latents", 3)
    for words in (
        ("predict", run, "--past", 2, "--steps", 6, "-n", 2),
        ("reconstruct", run, "-n", 2),
        ("sample", run, "-n", 2, "--frames", 12),
        ("swap", run, "--group", "factor1", "--pairs", 1),
        ("traverse", run, "--columns", 3, "--top", 4),
        ("interpolate", run, "--pairs", 1),
    ):
        out = tmp_path / f"{words[0]}.png"
        found = json.loads(distk(*words, "--out", out, "--json")[0])
        assert Path(found["files"][0]).stat().st_size > 200, words
    scores = json.loads(distk("eval", run, "--metric", "cross-mi", "--metric", "specificity", "--json")[0])["metrics"]
    assert set(metrics.CrossMi.keys) <= set(scores["cross-mi"])
    assert 0 <= scores["specificity"]["object_specificity"] <= 1
    assert (run / "checkpoint.cross-mi.correlation.png").exists() or list(run.glob("*correlation*.png"))


def test_vectors_have_no_picture_but_a_file(distk: Call, folder: Path, tmp_path: Path) -> None:
    settings = ["--preset", "demo", "--steps", 2, "--clips", 100, "--frames", 5]
    distk("train", "indepvideo", *settings, "--out", folder / "vectors")
    out = tmp_path / "v.safetensors"
    found = json.loads(distk("indepvideo", "independent", folder / "vectors", "-n", 3, "--out", out, "--json")[0])
    held = load_file(found["files"][0])
    assert held["clips"].shape == (3, 3, 4, 8)
    assert held["rows"].tolist() == found["rows"]


def test_what_is_refused(distk: Call, folder: Path, tmp_path: Path) -> None:
    short = run_of(distk, folder, "short", "--frames", 2)
    assert "clips of 2 frames are too short" in distk("indepvideo", "independent", short, code=2)[1]
    assert (
        "--frames: 1 is below" in distk("train", "indepvideo", *TINY, "--frames", 1, "--out", tmp_path / "a", code=2)[1]
    )
    assert "sigma2" in distk("train", "indepvideo", *TINY, "--sigma2", 0, "--out", tmp_path / "b", code=2)[1]
    told = distk("train", "indepvideo", *TINY, "--size", 24, "--out", tmp_path / "c", code=2)[1]
    assert "not 24x24" in told
    other = tmp_path / "dsvae"
    tiny = ["--size", 16, "--channels", 4, "--frame-dim", 8, "--hidden", 8, "--f-dim", 4, "--z-dim", 2, "--batch", 4]
    distk("train", "dsvae", *tiny, "--steps", 1, "--device", "cpu", "--out", other)
    assert "models of indepvideo" in distk("indepvideo", "correlation", other, code=2)[1]
    assert "dsvae" in distk("indepvideo", "independent", other, code=2)[1]


def test_a_code_that_is_ignored_is_told_once(distk: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "_warned", set())
    settings = [*TINY, "--kl-weight", 1000, "--lr", 0.01, "--steps", 40, "--log-every", 5]
    told = distk("train", "indepvideo", *settings, "--out", tmp_path / "run")[1]
    assert told.count("ignores its code") == 1
