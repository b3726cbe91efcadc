"""The sprites of Reed et al. from MATLAB files, and the puppets that stand in for them."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from distk import DistkError, UsageError, open_dataset
from distk.embedding import label_of
from distk.plugins.datasets import puppets, sprites

# Puppets


def test_puppets_are_672_identities_of_sixteen_nonredundant_values() -> None:
    data = open_dataset("puppets", {"size": 30, "poses": 2})
    assert len(data) == 1344
    rows = torch.arange(len(data))
    batch = data.batch(rows)
    combos = batch["factors"].unique(dim=0)
    assert len(combos) == 672
    sizes = [len(batch["factors"][:, k].unique()) for k in range(7)]
    assert tuple(sizes) == data.factor_sizes == (3, 4, 2, 2, 2, 2, 5)
    assert sum(1 if s == 2 else s for s in sizes) == 16
    pairs = {tuple(pair) for pair in batch["factors"][:, 5:].tolist()}
    assert pairs == {(0, 0), (0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (1, 4)}
    assert torch.equal(batch["label"], rows // 2)
    # One picture per row, whatever the batch, in steps of 1/255.
    assert torch.equal(data.batch(torch.tensor([700, 3]))["x"][0], batch["x"][700])
    assert torch.equal((batch["x"] * 255).round() / 255, batch["x"])


def test_pictures_are_drawn_once_and_kept_for_the_next_start(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DISTK_CACHE", str(tmp_path))
    settings, rows = {"size": 60, "poses": 3}, torch.tensor([5, 700, 5, 2015])
    data = open_dataset("puppets", settings)
    assert label_of(data, rows).tolist() == [1, 233, 1, 671]
    assert not list(tmp_path.iterdir())  # for which no picture was drawn
    drawn = data.batch(rows)["x"]
    assert [f.suffix for f in sorted(tmp_path.iterdir())] == [".json", ".npy"]
    monkeypatch.setattr(puppets, "render", None)  # nothing is drawn any more
    again = open_dataset("puppets", settings).batch(rows)["x"]
    assert torch.equal(again, drawn)
    monkeypatch.undo()
    monkeypatch.setattr(puppets, "STORED", 0)
    assert torch.equal(open_dataset("puppets", settings).batch(rows)["x"], drawn)


def test_every_fold_holds_out_other_identities(monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[int] = []
    monkeypatch.setattr(puppets.Puppets, "_draw_all", lambda self: torch.zeros(len(self), 3, 1, 1))
    for fold in range(5):
        data = open_dataset("puppets", {"size": 30, "poses": 2, "fold": fold})
        train, test = (set(data.batch(data.rows(s))["label"].tolist()) for s in ("train", "test"))
        assert not train & test
        assert len(train) + len(test) == 672
        held += test
    assert sorted(held) == list(range(672))


def test_poses_cover_views_actions_and_moments_once() -> None:
    data = open_dataset("puppets", {"size": 30, "poses": 172})
    first = torch.stack([data.view[:172], data.action[:172]], 1)
    kinds, count = first.unique(dim=0, return_counts=True)
    assert len(kinds) == 20
    assert count.view(4, 5).tolist() == [[7, 8, 9, 6, 13]] * 4
    whole = torch.stack([data.view[:172].float(), data.action[:172].float(), data.time[:172]], 1)
    assert len(whole.unique(dim=0)) == 172
    assert {tuple(s) for s in data.shift.long().tolist()} == {(x, y) for x in (-1, 0, 1) for y in (-1, 0, 1)}


def picture(
    view: int = 0, action: int = 2, time: float = 0.0, shift: tuple[int, int] = (0, 0), size: int = 60, **values: int
) -> torch.Tensor:
    factors = torch.tensor([[values.get(name, 0) for name in puppets.ATTRIBUTES]])
    moved = torch.tensor([shift], dtype=torch.float32)
    return puppets.render(factors, torch.tensor([view]), torch.tensor([action]), torch.tensor([time]), moved, size)[0]


def test_parts_lie_where_they_belong_in_their_colours() -> None:
    def at(image: torch.Tensor, x: int, y: int) -> list[float]:
        return [round(v, 2) for v in image[:, y, x].tolist()]

    plain = picture()
    assert at(plain, 2, 2) == [0.93] * 3
    assert at(plain, 30, 20) == [0.98, 0.82, 0.66]  # face
    assert at(plain, 30, 30) == [0.62, 0.65, 0.70]  # steel
    assert at(plain, 30, 38) == [0.31, 0.32, 0.35]  # belt, half as bright
    assert at(plain, 26, 50) == [0.25, 0.25, 0.35]  # trousers
    assert at(plain, 30, 9) == [0.90, 0.78, 0.35]  # hair
    assert at(picture(greaves=1), 26, 52) == [0.70, 0.72, 0.75]
    assert at(picture(body=2), 30, 20) == [0.42, 0.55, 0.30]
    assert at(picture(armor=2), 30, 30) == [0.35, 0.20, 0.55]
    assert at(picture(arms=1), 39, 36) == [0.75, 0.70, 0.35]  # gauntlet, beside the spear
    assert at(picture(hair=4, gender=1), 30, 11) == [0.98, 0.82, 0.66]  # bald
    assert at(picture(view=3, hair=2), 30, 17) == [0.12, 0.10, 0.10]  # the back of a head
    assert at(picture(gender=1), 23, 32) == [0.62, 0.65, 0.70]
    assert at(picture(gender=0), 23, 32) == [0.98, 0.82, 0.66]  # narrower: the arm behind shows


def test_views_mirror_poses_move_and_the_shift_shifts() -> None:
    left, right = picture(view=1, hair=3), picture(view=2, hair=3)
    assert float((left.flip(2) - right).abs().mean()) < 0.01  # near and far are not exchanged
    moved = picture(shift=(1, -1))
    assert torch.allclose(moved[:, :-1, 1:], picture()[:, 1:, :-1], atol=1e-5)
    for action in range(5):
        assert float((picture(action=action, time=0.2) - picture(action=action, time=0.6)).abs().mean()) > 2e-4
    small = picture(size=30)
    assert float((small - torch.nn.functional.avg_pool2d(picture(), 2)).abs().mean()) < 0.01


def test_sprites_without_files_are_puppets(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISTK_DATA", raising=False)
    data, drawn = (open_dataset(name, {"size": 30, "poses": 2}) for name in ("sprites", "puppets"))
    assert data.origin.startswith("no files of the sprites found: stand-in puppets")
    rows = torch.tensor([5, 900])
    for key, value in drawn.batch(rows).items():
        assert torch.equal(data.batch(rows)[key], value)
    assert torch.equal(data.rows("test"), drawn.rows("test"))
    with pytest.raises(UsageError, match="split 'published' needs the files"):
        open_dataset("sprites", {"split": "published"})


# Files


def write_character(path: Path, frames: list[np.ndarray], labels: list[float], **change: Any) -> None:
    """As MATLAB writes it: a cell of references, each `[T, 10800]` whose columns run through height, width, channel."""
    h5py = pytest.importorskip("h5py", reason="the package h5py (distk[hdf5]) is not installed")
    with h5py.File(path, "w") as file:
        hidden = file.create_group("#refs#")
        cell = file.create_dataset("sprites", (len(frames), 1), dtype=h5py.ref_dtype)
        for a, one in enumerate(frames):  # one: [T, height, width, 3] in [0, 1]
            flat = np.stack([picture.flatten(order="F") for picture in one])
            cell[a, 0] = hidden.create_dataset(str(a), data=change.get("flat", flat)).ref
        if labels:
            file["labels"] = np.array(labels).reshape(-1, 1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six characters of two animations with 2 and 1 frames, numbered 1 to 6, and the published split."""
    from scipy.io import savemat

    rng = np.random.default_rng(random.getrandbits(64))
    made = tmp_path / "data" / "sprites"
    made.mkdir(parents=True)
    truth = []
    for i in range(1, 7):
        frames = [rng.integers(0, 256, (t, 60, 60, 3)) / 255 for t in (2, 1)]
        truth.append(np.concatenate(frames))
        write_character(made / f"sprites_{i}.mat", frames, [i % 2, 7, 10 * (i % 3), 1, 1, 1, i])
    np.save(tmp_path / "truth.npy", np.stack(truth))
    savemat(made / "sprites_splits.mat", {"trainidx": [[1, 2, 3]], "validx": [[4]], "testidx": [[5, 6]]})
    return tmp_path


def test_the_files_are_read_as_matlab_means_them(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = open_dataset("sprites", {"split": "published"}, folder=folder)
    assert "holds 6 characters instead of 672" in " ".join(capsys.readouterr().err.split())
    assert len(data) == 18
    truth = np.load(folder / "truth.npy").reshape(18, 60, 60, 3).transpose(0, 3, 1, 2)
    batch = data.batch(torch.arange(18))
    assert np.abs(batch["x"].numpy() - truth).max() < 1e-6
    assert batch["label"].tolist() == [i for i in range(6) for _ in range(3)]
    assert data.factor_sizes == (2, 1, 3, 1, 1, 1, 6)
    assert data.values[2] == (0.0, 10.0, 20.0)
    assert batch["factors"][::3, 0].tolist() == [1, 0, 1, 0, 1, 0]
    assert batch["factors"][::3, 2].tolist() == [1, 2, 0, 1, 2, 0]
    assert data.animation.tolist() == [0, 0, 1] * 6
    assert data.frame.tolist() == [0, 1, 0] * 6
    assert data.rows("test").tolist() == list(range(12, 18))
    folds = [open_dataset("sprites", {"fold": f}, folder=folder).rows("test").tolist() for f in range(5)]
    assert sorted(row for rows in folds for row in rows) == list(range(18))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("text", "'.*sprites_3.mat' is not a MATLAB v7.3 file"),
        ("cut", "'.*sprites_3.mat' is (damaged|not a MATLAB v7.3 file)"),
        ("shape", r"an animation is \(2, 12\); expected \[frames, 10800\]"),
        ("range", "'.*sprites_3.mat' has values outside"),
        ("nan", "'.*sprites_3.mat' has values outside"),
        ("labels", "'.*sprites_3.mat' has no `labels` of 7 numbers"),
        ("cell", "'.*sprites_3.mat' has no cell array `sprites`; it holds"),
        ("outside", "lies in another file"),
    ],
)
def test_damaged_files_are_named(change: str, words: str, folder: Path) -> None:
    h5py = pytest.importorskip("h5py", reason="the package h5py (distk[hdf5]) is not installed")
    path = folder / "data" / "sprites" / "sprites_3.mat"
    frames = [np.zeros((2, 60, 60, 3))]
    if change == "text":
        path.write_bytes(b"MATLAB 5.0 MAT-file" + bytes(600))
    elif change == "cut":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif change == "labels":
        write_character(path, frames, [])
    elif change == "cell":
        with h5py.File(path, "w") as file:
            file["other"] = np.zeros(3)
    elif change == "outside":  # values in another file, which this one has no business with
        (folder / "secret").write_bytes(bytes(8 * 10800))
        with h5py.File(path, "w") as file:
            cell = file.create_dataset("sprites", (1, 1), dtype=h5py.ref_dtype)
            far = file.create_dataset("far", (1, 10800), dtype="f8", external=[(str(folder / "secret"), 0, 8 * 10800)])
            cell[0, 0] = far.ref
            file["labels"] = np.zeros(7)
    else:
        values = {"shape": np.zeros((2, 12)), "range": np.full((2, 10800), 3.0), "nan": np.full((2, 10800), np.nan)}
        write_character(path, frames, [0] * 7, flat=values[change])
    with pytest.raises(DistkError, match=words):
        open_dataset("sprites", {}, folder=folder)


def test_what_is_missing_is_said(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    (folder / "data" / "sprites" / "sprites_splits.mat").write_bytes(b"nothing")
    with pytest.raises(DistkError, match="is not a MATLAB v5 file with trainidx"):
        open_dataset("sprites", {"split": "published"}, folder=folder)
    (folder / "data" / "sprites" / "sprites_splits.mat").unlink()
    with pytest.raises(DistkError, match="does not exist; without it use --split folds"):
        open_dataset("sprites", {"split": "published"}, folder=folder)
    with pytest.raises(UsageError, match="leave out size"):
        open_dataset("sprites", {"size": 30}, folder=folder)
    empty = tmp_path_factory.mktemp("packed")
    (empty / "nips2015-analogy-data.tar.gz").write_bytes(b"")
    with pytest.raises(UsageError, match=r"Unpack nips2015-analogy-data.tar.gz first"):
        open_dataset("sprites", {}, folder=empty)


def test_without_h5py_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    for i in (1, 2):
        (tmp_path / f"sprites_{i}.mat").write_bytes(b"x")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(UsageError, match=r"needs the package h5py: pip install 'distk\[hdf5\]'"):
        sprites.read_characters(sprites.character_files(tmp_path))
