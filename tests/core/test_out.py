"""`--out` is honoured or refused: suffix, folder, a missing folder; `eval --codes` reads what `embed` writes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import distk
from distk import DistkError
from distk.codefile import table_from_arrays

Call = Callable[..., tuple[int, str, str]]
TINY = {"positions": 10, "size": 32, "z": 3, "steps": 1, "batch": 4, "device": "cpu", "quiet": True}
WRITERS: dict[str, tuple[list[str], tuple[str, ...]]] = {
    "traverse": (["--columns", "2", "--no-gif"], (".png",)),
    "reconstruct": (["--n", "2"], (".png",)),
    "sample": (["--n", "2"], (".png",)),
    "swap": (["--pairs", "1"], (".png",)),
    "transfer": (["--pairs", "1"], (".png",)),
    "interpolate": (["--pairs", "1", "--steps", "3"], (".png",)),
    "embed": ([], (".safetensors", ".npz")),
    "tuning": ([], (".png", ".svg", ".pdf")),
    "covmap": ([], (".png", ".svg", ".pdf")),
    "eval": (["--metric", "active-units", "--no-plots"], (".json",)),
}
"""Generic command -> options that make it short, and the suffixes that --out may have."""
BEGINS = {".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF", ".npz": b"PK", ".json": b"{"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return distk.train("betavae", data="blobs", out=tmp_path_factory.mktemp("runs") / "r", **TINY).path


@pytest.fixture
def run(trained: Path, in_folder: Path) -> Path:
    shutil.copytree(trained, "run")
    return Path("run")


@pytest.mark.parametrize("command", sorted(WRITERS))
def test_the_suffix_decides_or_is_refused(distk_command: Call, run: Path, command: str) -> None:
    words, suffixes = WRITERS[command]
    for suffix in suffixes:
        code, _, err = distk_command(command, run, *words, "--out", f"it{suffix}")
        assert code == 0, err
        written = Path(f"it{suffix}").read_bytes()
        assert written.startswith(BEGINS.get(suffix, b"")), suffix
        assert written
    before = sorted(path.name for path in Path().iterdir())
    for wrong in ("it.bmp", "it.txt", "it.npy"):
        code, out, err = distk_command(command, run, *words, "--out", wrong)
        assert (code, out) == (2, "")
        assert f"'{wrong}'" in " ".join(err.split())
        assert suffixes[0] in err
    code, _, err = distk_command(command, run, *words, "--out", f"none/it{suffixes[0]}")
    assert code == 2
    assert "the folder 'none' does not exist" in " ".join(err.split())
    assert sorted(path.name for path in Path().iterdir()) == before


def test_further_files_that_options_name(distk_command: Call, run: Path) -> None:
    """`data --preview`, `info --strip`, `tuning --csv`: another suffix and a missing folder are refused, each alike."""
    for words, suffix in (
        (["data", "blobs", "--positions", "4", "-n", "2", "--preview"], ".png"),
        (["info", run, "--strip"], ".safetensors"),
        (["tuning", run, "--csv"], ".csv"),
    ):
        for name, why in (("x.bmp", suffix), (f"none/x{suffix}", "the folder 'none' does not exist")):
            code, out, err = distk_command(*words, name)
            assert (code, out) == (2, ""), words
            assert f"{words[-1]} '{name}'" in " ".join(err.split())
            assert why in " ".join(err.split())
        assert distk_command(*words, f"x{suffix}")[0] == 0
        assert Path(f"x{suffix}").stat().st_size > 0


def test_a_folder_and_a_name_without_a_suffix(distk_command: Call, run: Path) -> None:
    Path("pictures").mkdir()
    assert distk_command("sample", run, "--n", 2, "--out", "pictures")[0] == 0
    assert distk_command("sample", run, "--n", 2, "--out", "drawn")[0] == 0
    assert [path.name for path in Path("pictures").iterdir()] == ["checkpoint.samples.png"]
    assert Path("drawn.png").exists()
    assert not Path("drawn").exists()


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
def test_a_file_of_embed_scores_as_the_model_does(distk_command: Call, run: Path, suffix: str) -> None:
    assert distk_command("embed", run, "--out", f"e{suffix}")[0] == 0
    metrics = ["--metric", "mig", "--metric", "active-units", "--metric", "linear-correlation"]
    code, out, err = distk_command("eval", "--codes", f"e{suffix}", *metrics, "--json")
    assert code == 0, err
    ours = json.loads(distk_command("eval", run, *metrics, "--json")[1])["metrics"]
    theirs = json.loads(out)["metrics"]
    assert theirs["active-units"]["active_units"] == ours["active-units"]["active_units"]
    assert theirs["mig"]["mig"] == pytest.approx(ours["mig"]["mig"], abs=1e-12)  # float64 sums of the same counts
    table = table_from_arrays(Path(f"e{suffix}"))
    data = distk.load(run / "checkpoint.safetensors").dataset()
    assert (table.names, table.kinds) == (["z1", "z2", "z3"], ["continuous"] * 3)
    assert (table.factor_names, table.factor_kinds) == (data.factor_names, data.factor_kinds)
    assert table.std is not None
    assert table.std.shape == table.codes.shape


def test_tensors_that_are_no_codes_are_refused(tmp_path: Path, generator: torch.Generator) -> None:
    cases: dict[str, Any] = {
        "none": {"weight": torch.rand(3, 2, generator=generator)},
        "shape": {"z": torch.rand(3, 2, 2, generator=generator)},
        "nan": {"z": torch.full((3, 2), torch.nan)},
    }
    for name, tensors in cases.items():
        path = tmp_path / f"{name}.safetensors"
        save_file(tensors, path)
        with pytest.raises(DistkError, match=name if name != "nan" else "not finite"):
            table_from_arrays(path)
    for text in ("[1, 2", "3", "[[[", '{"a": 1}'):
        path = tmp_path / "words.safetensors"
        save_file({"codes": torch.rand(4, 2, generator=generator)}, path, metadata={"code_names": text})
        with pytest.raises(DistkError, match="words"):
            table_from_arrays(path)
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "nan.safetensors").read_bytes()[:-3])
    with pytest.raises(DistkError, match="not a valid safetensors file"):
        table_from_arrays(tmp_path / "cut.safetensors")


def test_the_same_figure_is_the_same_file(distk_command: Call, run: Path) -> None:
    for suffix in (".svg", ".pdf", ".png"):
        for name in ("a", "b"):
            assert distk_command("tuning", run, "--out", f"{name}{suffix}")[0] == 0
        if suffix != ".svg":  # ids in SVG are drawn
            assert Path(f"a{suffix}").read_bytes() == Path(f"b{suffix}").read_bytes()
