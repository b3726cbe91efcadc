"""Which checkpoint a folder means: a run's, the only one, or that of a snapshot as a hub keeps them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

import distk
from distk.errors import DistkError
from distk.run import find_checkpoint


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a small model."""
    out = tmp_path_factory.mktemp("found") / "run"
    return distk.train("covreg-linear", steps=2, batch=20, device="cpu", quiet=True, out=out, data="dimred").checkpoint


def hub(folder: Path, file: Path, main: str | None, *names: str) -> Path:
    """Snapshots with links into `blobs/`, as `huggingface_hub` keeps what it fetched."""
    (folder / "blobs").mkdir(parents=True)
    shutil.copy(file, folder / "blobs" / "b10b")
    for name in names:
        (folder / "snapshots" / name).mkdir(parents=True)
        (folder / "snapshots" / name / "model.safetensors").symlink_to("../../blobs/b10b")
    if main is not None:
        (folder / "refs").mkdir()
        (folder / "refs" / "main").write_text(main)
    return folder


def test_a_run_a_folder_and_a_snapshot_load_alike(file: Path, tmp_path: Path, seed: int) -> None:
    (tmp_path / "one").mkdir()
    shutil.copy(file, tmp_path / "one" / "anything.safetensors")
    kept = hub(tmp_path / "models--a--b", file, "5a5a", "5a5a", "0b0b")
    x = torch.randn(3, *distk.load(file).spec.shape, generator=torch.Generator().manual_seed(seed))
    places = (file, file.parent, tmp_path / "one", kept, kept / "snapshots" / "0b0b")
    codes = [distk.load(place, "cpu").encode(x)["code"] for place in places]
    assert all(torch.equal(codes[0], code) for code in codes)
    assert find_checkpoint(kept) == kept / "snapshots" / "5a5a" / "model.safetensors"


def test_one_snapshot_needs_no_name(file: Path, tmp_path: Path) -> None:
    kept = hub(tmp_path / "kept", file, None, "5a5a")
    assert find_checkpoint(kept).parent.name == "5a5a"


@pytest.mark.parametrize("main", [None, "gone", "../..", "/etc", "", "..", "\0"])
def test_what_names_no_snapshot_is_a_sentence(file: Path, tmp_path: Path, main: str | None) -> None:
    with pytest.raises(DistkError, match="names one"):
        find_checkpoint(hub(tmp_path / "kept", file, main, "5a5a", "0b0b"))


def test_of_several_one_is_to_be_named_and_none_is_said(file: Path, tmp_path: Path) -> None:
    with pytest.raises(DistkError, match=r"holds no checkpoint\.safetensors"):
        find_checkpoint(tmp_path)
    for name in ("a", "b"):
        shutil.copy(file, tmp_path / f"{name}.safetensors")
    with pytest.raises(DistkError, match=r"holds 2 checkpoints, a\.safetensors the first"):
        find_checkpoint(tmp_path)
    shutil.copy(file, tmp_path / "checkpoint.safetensors")
    assert find_checkpoint(tmp_path).name == "checkpoint.safetensors"


def test_snapshots_that_hold_themselves_end(file: Path, tmp_path: Path) -> None:
    (tmp_path / "snapshots").mkdir()
    (tmp_path / "snapshots" / "a").symlink_to(tmp_path)
    with pytest.raises(DistkError, match=r"no checkpoint\.safetensors"):
        find_checkpoint(tmp_path)
