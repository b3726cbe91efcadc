"""Omniglot's archive and folder, written here, and the real archive where it is."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from distk import DistkError, UsageError, open_dataset


def drawing(seed: int, side: int = 105) -> tuple[bytes, np.ndarray]:
    """A 1-bit PNG with dark ink, and its ink as 0 and 1."""
    ink = np.random.default_rng(seed).random((side, side)) < 0.2
    buffer = io.BytesIO()
    Image.fromarray(np.where(ink, 0, 255).astype(np.uint8)).convert("1", dither=Image.Dither.NONE).save(buffer, "PNG")
    return buffer.getvalue(), ink.astype(float)


def members(seed: int) -> dict[str, tuple[bytes, np.ndarray]]:
    names = [
        f"images_background/{a}/character{c:02}/{i:04}_{k:02}.png"
        for i, a in enumerate(("Greek", "Latin"))
        for c in (1, 2)
        for k in (1, 2, 3)
    ]
    return {name: drawing(seed + i) for i, name in enumerate(names)}


def archive(path: Path, content: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        for name, data in content.items():
            made.writestr(name, data)
    return path


def area(ink: np.ndarray) -> np.ndarray:
    """105x105 -> 28x28 by area: every pixel repeated 4 times, then means of 15x15."""
    return np.kron(ink, np.ones((4, 4))).reshape(28, 15, 28, 15).mean((1, 3))


@pytest.mark.parametrize("form", ["zip", "folder", "inner folder"])
def test_reads_what_was_written(form: str, tmp_path: Path, seed: int) -> None:
    made = members(seed)
    if form == "zip":
        archive(tmp_path / "images_background.zip", {n: d for n, (d, _) in made.items()})
        data = open_dataset("omniglot", folder=tmp_path)
        assert len(open_dataset("omniglot", folder=tmp_path / "images_background.zip")) == 12
    else:
        for name, (content, _) in made.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(content)
        data = open_dataset("omniglot", folder=tmp_path / "images_background" if "inner" in form else tmp_path)
    assert data.spec.classes == tuple(f"{a}/character{c:02}" for a in ("Greek", "Latin") for c in (1, 2))
    batch = data.batch(torch.arange(12))
    assert batch["label"].tolist() == [i // 3 for i in range(12)]
    for i, (_, ink) in enumerate(made.values()):
        assert np.abs(batch["x"][i, 0].numpy() - area(ink)).max() < 0.51 / 255
    assert sorted([*data.rows("train").tolist(), *data.rows("test").tolist()]) == list(range(12))


def test_hostile_and_damaged_archives(tmp_path: Path, seed: int) -> None:
    good, _ = drawing(seed)
    large = io.BytesIO()
    Image.new("1", (1500, 1500)).save(large, "PNG")
    name = "images_background/Greek/character01/0001_01.png"
    for content, said in [
        ({f"../{name}": good}, "outside the archive"),
        ({f"/{name}": good}, "outside the archive"),
        ({name: b"not a picture"}, "cannot be read"),
        ({name: good[:200]}, "cannot be read"),
        ({name: b"\0" * (1 << 17)}, "too large"),
        ({name: large.getvalue()}, "1500x1500"),
        ({"readme.txt": b"hello"}, "holds no"),
    ]:
        path = archive(tmp_path / "images_background.zip", content)
        with pytest.raises(DistkError, match=said) as raised:
            open_dataset("omniglot", folder=tmp_path)
        assert str(path) in str(raised.value)
    for broken in (b"", b"PK rubbish", path.read_bytes()[:-40]):
        path.write_bytes(broken)
        with pytest.raises(DistkError, match="cannot read the archive"):
            open_dataset("omniglot", folder=tmp_path)


def test_links_out_of_the_folder_are_refused(tmp_path: Path, seed: int) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(drawing(seed)[0])
    inside = tmp_path / "images_background" / "Greek" / "character01"
    inside.mkdir(parents=True)
    (inside / "0001_01.png").symlink_to(secret)
    with pytest.raises(DistkError, match="points outside"):
        open_dataset("omniglot", folder=tmp_path / "images_background")


def test_without_files_it_is_a_stand_in_and_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("DISTK_DATA", raising=False)
    data = open_dataset("omniglot")
    assert "stand-in strokes28" in data.origin
    with pytest.raises(UsageError, match="images_background"):
        open_dataset("omniglot", folder=tmp_path)


def test_the_real_archive(real) -> None:
    path = real("omniglot/images_background_small1.zip")
    data = open_dataset("omniglot", folder=path.parent)
    assert len(data) == 2720
    assert len(data.spec.classes) == 136
    assert data.spec.classes[0] == "Balinese/character01"
    with np.load(real("omniglot/omniglot_small1.npz"), allow_pickle=False) as file:
        ink = np.unpackbits(file["ink_packed"], axis=1)[:, :11025].reshape(-1, 105, 105)
        chosen = (file["alphabet"] == 0) & (file["character"] == 1)
    assert [int(v) for v in data.label[::20]] == list(range(136))
    # The same drawings, each side in its own order within a character.
    ours = data.batch(torch.arange(20))["x"][:, 0].numpy()
    nearest = [np.abs(ours - area(image)).max((1, 2)) for image in ink[chosen].astype(float)]
    assert max(n.min() for n in nearest) < 0.51 / 255
    assert len({int(n.argmin()) for n in nearest}) == 20
