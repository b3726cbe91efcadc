"""The command line of the clip family: real processes, real files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from distk import cli
from distk.sheet import bare

TINY = ["--size", "16", "--arch", "das-dandi", "--channels", "4", "--frame-dim", "8", "--hidden", "8"]
TINY += ["--f-dim", "4", "--z-dim", "2", "--prior", "learned", "--device", "cpu", "--batch", "4"]


def process(*args: object) -> str:
    """A real process; its stdout."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "distk", *map(str, args)]
    found = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)
    assert found.returncode == 0, (args, found.stdout[-1500:], found.stderr[-1500:])
    return found.stdout


Call = Callable[..., tuple[str, str]]


@pytest.fixture
def distk(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """The same program within this process, which saves the seconds of starting it: (stdout, stderr)."""

    def call(*args: object, code: int = 0) -> tuple[str, str]:
        monkeypatch.setattr(sys, "argv", ["distk", *map(str, args)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        assert (ended.value.code or 0) == code, (args, out[-1500:], err[-1500:])
        return out, err

    return call


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    process("train", "dsa", "--data", "sprites-sim", *TINY, "--steps", 3, "--out", folder / "run")
    return folder / "run"


def test_transfer_writes_four_rows_per_pair(distk: Call, run: Path, tmp_path: Path) -> None:
    out = tmp_path / "transfer.png"
    found = json.loads(distk("dsvae", "transfer-clips", run, "--pairs", 2, "--seed", 1, "--out", out, "--json")[0])
    assert found["files"] == [str(out), str(out.with_suffix(".gif"))]
    for pair in found["pairs"]:
        assert pair["a"] != pair["b"]
        assert pair["gain"] < 1
    with bare(Path(out)) as picture:
        assert picture.size == (8 * 50 + 2, 8 * 50 + 2)  # 8 frames of 16 pixels, enlarged to 48; 2 pairs of 4 rows
    with Image.open(out.with_suffix(".gif")) as film:
        assert film.n_frames == 8
    assert "two.png" in distk("dsvae", "transfer-clips", run, "--a", 5, "--b", 17, "--out", tmp_path / "two.png")[0]


def test_transfer_refuses_pairs_that_make_no_sense(distk: Call, run: Path) -> None:
    for args, words in (
        (("--a", 3, "--b", 3), "both clip 3"),
        (("--a", 3), "both --a and --b"),
        (("--a", 3, "--b", 11_664), "the clips 0 to 11663"),
    ):
        assert words in distk("dsvae", "transfer-clips", run, *args, code=2)[1]


def test_similarity_names_the_pairs(distk: Call, run: Path) -> None:
    found = json.loads(distk("dsvae", "similarity", run, "--pairs", 8, "--json")[0])["pairs"]
    kinds = [(pair["same appearance"], pair["same motion"]) for pair in found]
    assert sorted(set(kinds)) == [("no", "no"), ("no", "yes"), ("yes", "no"), ("yes", "yes")]
    assert len(found) == 8
    for pair in found:
        if kinds[found.index(pair)] == ("yes", "yes"):
            assert pair["cos f"] == pytest.approx(1)
            assert pair["cos z"] == pytest.approx(1)


def test_generate_keeps_what_it_is_told_to(distk: Call, run: Path, tmp_path: Path) -> None:
    for fix, more in (("f", ["--row", 9]), ("z", []), ("none", ["--frames", 12])):
        out = tmp_path / f"{fix}.png"
        found = json.loads(distk("dsvae", "generate", run, "--fix", fix, "--n", 3, *more, "--out", out, "--json")[0])
        assert found["frames"] == (12 if fix == "none" else 8)
        with Image.open(out.with_suffix(".gif")) as film:
            assert film.n_frames == found["frames"]
    assert "add --fix f or --fix z" in distk("dsvae", "generate", run, "--row", 1, code=2)[1]
    assert "--fix z keeps" in distk("dsvae", "generate", run, "--fix", "z", "--frames", 9, code=2)[1]


def test_generic_commands_serve_clips(distk: Call, run: Path, tmp_path: Path) -> None:
    for command, args in (
        ("swap", ["--group", "z", "--pairs", 2]),
        ("reconstruct", ["--n", 2]),
        ("sample", ["--n", 2]),
    ):
        out = tmp_path / f"{command}.png"
        distk(command, run, *args, "--out", out)
        with Image.open(out.with_suffix(".gif")) as film:
            assert film.n_frames == 8


def test_scores_from_the_command_line(distk: Call, run: Path) -> None:
    wanted = ["--metric", "swap-error", "--metric", "similarity", "--metric", "elbo", "--metric", "disagreement"]
    found = json.loads(distk("eval", run, *wanted, "--rows", 300, "--json")[0])["metrics"]
    assert found["swap-error"]["swap_gain"] < 1
    parts = found["elbo"]
    assert parts["elbo"] == pytest.approx(parts["log_likelihood"] - parts["kl_f"] - parts["kl_z"])
    assert sum(parts["kl_f_by_dimension"]) == pytest.approx(parts["kl_f"])
    assert "distk dsvae judge" in found["disagreement"]["error"]


def test_judge_from_the_command_line(distk: Call, tmp_path: Path) -> None:
    out = tmp_path / "judge.safetensors"
    args = ["--data", "sprites-sim:das-dandi", "--size", 16, "--steps", 2, "--batch", 4, "--width", 4, "--out", out]
    found = distk("dsvae", "judge", *args, "--device", "cpu", "--json")
    assert set(json.loads(found[0])["accuracy"]) == {"body", "bottom", "top", "hair", "action"}
    assert "below 0.99" in found[1]
    assert out.exists()
    wrong = distk("dsvae", "judge", "--out", tmp_path / "no" / "judge", code=2)
    assert "does not exist" in wrong[1]


def test_building_npy_files_from_nothing_says_what_is_missing(distk: Call, tmp_path: Path) -> None:
    found = distk("data", "build-lpc", "--sheets", tmp_path, "--out", tmp_path / "npy", code=2)
    assert "body/0.png" in found[1]
    found = distk("train", "dsvae", "--data", "lpc-sprites", "--data-dir", tmp_path, "--steps", 1, code=2)
    assert "sprites-sim" in found[1]


def test_real_sheets_to_npy_to_training(distk: Call, tmp_path: Path, real) -> None:  # type: ignore[no-untyped-def]
    sheets = real("lpc_sprites/sheets")
    found = json.loads(
        distk("data", "build-lpc", "--sheets", sheets, "--out", tmp_path / "npy", "--characters", 2, "--json")[0]
    )
    assert len(found["files"]) == 54
    small = [a for a in TINY if a not in ("--size", "16")]
    trained = distk(
        "train", "dsvae", "--data", "lpc-sprites", "--data-dir", tmp_path / "npy", *small, "--steps", 2,
        "--out", tmp_path / "run",
    )  # fmt: skip
    assert "read from the npy files" in trained[1]
    moved = distk(
        "dsvae",
        "transfer-clips",
        tmp_path / "run",
        "--pairs",
        1,
        "--differ",
        "any",
        "--out",
        tmp_path / "t.png",
        "--json",
    )
    assert json.loads(moved[0])["pairs"][0]["error"] > 0
