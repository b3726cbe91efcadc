"""identity-folder on real pictures and ugly ones, and idfaces: splits by identity, layouts, what is refused."""

from __future__ import annotations

import io
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from distk import DistkError, UsageError, open_dataset
from distk.plugins.datasets.idfaces import HAIR, IDENTITY, OBSERVATION, SKIN, draw_faces
from distk.testing import check_dataset


def opened(folder: Path, **options: Any) -> Any:
    return open_dataset("identity-folder", {"size": 16, **options}, folder=folder)


def write(path: Path, shade: int, mode: str = "RGB", size: tuple[int, int] = (20, 20), **how: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, shade if mode in ("L", "P") else (shade, shade, shade) + (255,) * (mode == "RGBA")).save(
        path, **how
    )


def folder_of(root: Path, identities: int = 12, each: int = 3) -> Path:
    """Identity i has shade 10 i + j in its picture j."""
    for i in range(identities):
        for j in range(each):
            write(root / f"person {i:02d}" / f"{j}.png", 10 * i + j)
    return root


def test_pictures_and_identities_belong_together(tmp_path: Path) -> None:
    data = opened(folder_of(tmp_path))
    assert len(data) == 36
    batch = data.batch(torch.arange(36))
    shade = (batch["x"][:, 0, 0, 0] * 255).round().long()
    assert torch.equal(shade // 10, batch["label"])
    assert data.names[3] == "person 03"
    assert batch["x"].shape == (36, 3, 16, 16)


@pytest.mark.parametrize("shares", [(0.1, 0.1), (0.25, 0.4), (0.01, 0.01)])
def test_no_identity_is_in_two_splits(tmp_path: Path, shares: tuple[float, float], seed: int) -> None:
    root = folder_of(tmp_path, 20, 2)
    data = opened(root, valid=shares[0], test=shares[1], split_seed=seed % 1000)
    parts = {name: set(data.label[rows].tolist()) for name, rows in data.parts.items()}
    assert set.union(*parts.values()) == set(range(20))
    assert sum(map(len, parts.values())) == 20
    assert (len(parts["valid"]), len(parts["test"])) == (max(1, round(20 * shares[0])), max(1, round(20 * shares[1])))
    assert sum(len(rows) for rows in data.parts.values()) == 40
    again = opened(root, valid=shares[0], test=shares[1], split_seed=seed % 1000)
    assert all(torch.equal(data.parts[name], again.parts[name]) for name in parts)
    check_dataset("identity-folder", root)


def test_ugly_folders(tmp_path: Path, capsys) -> None:
    root = folder_of(tmp_path)
    write(root / "person 00" / "GREY.PNG", 77, "L")
    write(root / "person 00" / "through.png", 78, "RGBA")
    write(root / "person 00" / "palette.bmp", 0, "P")
    write(root / "person 00" / "photo.JPEG", 80, quality=100)
    write(root / "alone" / "one.png", 9)
    write(root / "alone too" / "one.png", 9)
    (root / "person 01" / "notes.txt").write_text("not a picture")
    (root / "empty").mkdir()
    sideways = Image.fromarray(np.concatenate([np.zeros((20, 20), np.uint8), np.full((20, 10), 255, np.uint8)], 1))
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    sideways.save(root / "person 02" / "turned.jpg", exif=exif, quality=100)
    data = opened(root)
    said = " ".join(capsys.readouterr().err.split())
    assert "2 identities of a single picture are left out: alone, alone too" in said
    assert "pictures in grey turned into colour" in said
    assert "1 picture turned upright" in said
    assert len(data) == 36 + 5
    turned = data.images[data.names.index("person 02") * 3 + 4 + 3]
    assert int(turned[0, 0].max()) < 40  # the bright end hangs down
    assert int(turned[0, -1].min()) > 60
    grey = opened(root, channels=1)
    assert grey.spec.shape == (1, 16, 16)
    assert "in colour turned grey" in " ".join(capsys.readouterr().err.split())


def test_deep_and_transparent_pictures_are_told(tmp_path: Path, capsys) -> None:
    root = folder_of(tmp_path)
    Image.fromarray(np.full((20, 20), 40_000, np.uint16)).save(root / "person 04" / "deep.png")
    Image.new("RGBA", (20, 20), (9, 9, 9, 0)).save(root / "person 04" / "clear.png")
    data = opened(root)
    said = " ".join(capsys.readouterr().err.split())
    assert "1 picture with more than 8 bits a channel scaled" in said
    assert "1 picture with transparency laid over the background #ffffff" in said
    of_04 = data.images[data.rows_of("all")][data.label == 4][:, 0, 3, 3].tolist()
    assert sorted(of_04) == [40, 41, 42, round(40_000 / 257), 255]


@pytest.mark.parametrize("kind", ["zip", "gztar"])
def test_an_archive_is_read_where_it_lies(tmp_path: Path, kind: str) -> None:
    root = folder_of(tmp_path / "people" / "all of them")
    packed = Path(shutil.make_archive(str(tmp_path / "packed"), kind, tmp_path / "people"))
    here, there = opened(root), opened(packed)
    rows = torch.arange(36)
    assert here.names == there.names
    assert all(torch.equal(here.batch(rows)[key], there.batch(rows)[key]) for key in ("x", "label"))
    assert {name: found.tolist() for name, found in here.parts.items()} == {
        name: found.tolist() for name, found in there.parts.items()
    }
    check_dataset("identity-folder", packed)


def test_a_picture_becomes_its_centred_square_averaged_over_areas(tmp_path: Path, seed: int) -> None:
    root = folder_of(tmp_path)
    noise = np.random.default_rng(seed).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    Image.fromarray(noise).save(root / "person 00" / "9.png")
    data = opened(root)
    expected = noise[:, 8:40].reshape(16, 2, 16, 2, 3).mean((1, 3)).transpose(2, 0, 1)
    assert np.abs(data.images[3].numpy() - expected).max() <= 1  # each of two passes rounds


def test_a_split_that_is_given_stays(tmp_path: Path) -> None:
    for part, people in (("train", range(5)), ("valid", range(5, 7)), ("test", range(7, 10))):
        for i in people:
            for j in range(2):
                write(tmp_path / part / f"a_person_{i}_{j}_0.png", 10 * i + j)
    data = opened(tmp_path)
    assert data.names == tuple(f"a_person_{i}" for i in range(10))  # all before the second last underscore
    assert {name: sorted(set(data.label[rows].tolist())) for name, rows in data.parts.items()} == {
        "train": [0, 1, 2, 3, 4],
        "valid": [5, 6],
        "test": [7, 8, 9],
    }
    write(tmp_path / "test" / "a_person_0_5_0.png", 1)
    write(tmp_path / "test" / "a_person_0_6_0.png", 1)
    with pytest.raises(UsageError, match="a_person_0' is in"):
        opened(tmp_path)


def test_folders_below_given_parts(tmp_path: Path) -> None:
    for part, people in (("train", range(3)), ("test", range(3, 5))):
        for i in people:
            for j in range(2):
                write(tmp_path / part / f"p{i}" / f"{j}.png", 10 * i + j)
    data = opened(tmp_path)
    assert set(data.parts) == {"train", "test"}
    assert data.names == ("p0", "p1", "p2", "p3", "p4")


def test_level_last_takes_the_folder_that_holds_the_picture(tmp_path: Path) -> None:
    for i in range(10):
        for j in range(2):
            write(tmp_path / f"shelf {i // 5}" / f"shoe {i % 5}" / f"{j}.png", i)
    assert len(opened(tmp_path, level="last").names) == 10
    with pytest.raises(UsageError, match="2 identities"):
        opened(tmp_path)


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda root: None, "holds no pictures"),
        (lambda root: folder_of(root, 9), "holds 9 identities"),
        (lambda root: folder_of(root, 12, 1), "every identity below"),
        (lambda root: write(folder_of(root) / "stray.png", 3), "stray.png"),
        (lambda root: write(root / "train" / "name.png", 3), "expected <identity>"),
        (lambda root: [write(root / "train" / f"a_{j}_0.png", 3) for j in (1, 2)], "none 'test'"),
    ],
)
def test_what_is_refused(tmp_path: Path, prepare: Any, message: str) -> None:
    prepare(tmp_path)
    with pytest.raises(UsageError, match=message):
        opened(tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n" + bytes(50), b"%!PS-Adobe-3.0 EPSF-3.0\n"]
)
def test_damaged_pictures_are_named(tmp_path: Path, content: bytes) -> None:
    (folder_of(tmp_path) / "person 03" / "bad.png").write_bytes(content)
    with pytest.raises(DistkError, match=r"bad\.png"):
        opened(tmp_path)


def test_it_needs_a_folder() -> None:
    with pytest.raises(UsageError, match="--data-dir"):
        open_dataset("identity-folder")


# Real pictures


def test_omniglot_as_identities(real, tmp_path: Path) -> None:
    """Characters as identities, twenty drawers each: a folder per character below one per alphabet."""
    with zipfile.ZipFile(real("omniglot/images_background_small1.zip")) as archive:
        names = [name for name in archive.namelist() if name.endswith(".png")]
        archive.extractall(tmp_path, names)
    root = tmp_path / "images_background_small1"
    if not root.is_dir():
        root = next(p for p in tmp_path.iterdir() if p.is_dir())
    data = opened(root, level="last", channels=1, size=21)
    assert (len(data), len(data.names)) == (2720, 136)
    assert set(torch.bincount(data.label).tolist()) == {20}
    one = names[777]
    with archive_member(real("omniglot/images_background_small1.zip"), one) as image:
        pixels = np.asarray(image.convert("L"), dtype=np.float64)
    expected = pixels.reshape(21, 5, 21, 5).mean((1, 3))
    number = data.names.index("/".join(Path(one).parts[-3:-1]))
    mine = data.images[data.label == number][:, 0].numpy()
    assert np.abs(mine - expected).max((1, 2)).min() <= 1
    check_dataset("identity-folder", root, level="last", size=16, channels=1)


def archive_member(path: Path, name: str) -> Image.Image:
    with zipfile.ZipFile(path) as archive:
        return Image.open(io.BytesIO(archive.read(name)))


def test_characters_of_lpc_as_identities(real, tmp_path: Path) -> None:
    """Game characters as identities, their frames as observations."""
    layers = np.load(real("lpc_sprites/lpc_layers.npz"))
    for n in range(12):
        parts = (
            layers["body"][n % 6],
            layers["bottomwear"][n // 2],
            layers["topwear"][(n + 1) % 6],
            layers["hair"][n // 3],
        )
        for frame in range(4):
            canvas = np.zeros((64, 64, 3))
            for layer in parts:
                picture = layer[3 * (frame % 3), 2 * frame].astype(np.float64)
                alpha = picture[..., 3:] / 255
                canvas = canvas * (1 - alpha) + picture[..., :3] * alpha
            target = tmp_path / f"character {n:02d}" / f"{frame}.png"
            target.parent.mkdir(exist_ok=True)
            Image.fromarray(canvas.round().astype(np.uint8)).save(target)
    data = opened(tmp_path, size=32)
    assert (len(data), len(data.names)) == (48, 12)
    assert float(data.batch(torch.arange(48))["x"].std()) > 0.05
    assert [len(data.parts[p]) for p in ("train", "valid", "test")] == [40, 4, 4]


# Drawn faces


def faces(**options: Any) -> Any:
    return open_dataset("idfaces", {"size": 32, "identities": 12, "observations": 4, **options})


def test_rows_are_what_they_are(seed: int) -> None:
    data, again = faces(draw=seed % 1000), faces(draw=seed % 1000)
    rows = torch.randperm(48, generator=torch.Generator().manual_seed(seed))
    x = data.batch(rows)["x"]
    assert torch.equal(x, again.batch(torch.arange(48))["x"][rows])  # whatever is drawn beside it
    assert torch.equal((x * 255).round() / 255, x)
    assert not torch.equal(x, faces(draw=seed % 1000 + 1).batch(rows)["x"])
    assert torch.equal(data.people, faces(draw=seed % 1000, observations=9).people)


def test_an_identity_keeps_its_numbers_and_a_picture_has_its_own() -> None:
    data = faces()
    values = data.values(torch.arange(48))
    assert set(values) == set(IDENTITY) | set(OBSERVATION)
    for name, (low, high) in (IDENTITY | OBSERVATION).items():
        assert float(values[name].min()) >= low
        assert float(values[name].max()) <= high
    per_person = {name: value.view(12, 4) for name, value in values.items()}
    assert all(bool((per_person[name] == per_person[name][:, :1]).all()) for name in IDENTITY)
    assert all(bool((per_person[name] != per_person[name].roll(1, 1)).any()) for name in OBSERVATION)
    identity, observation = data.traits(torch.arange(48))
    assert identity.shape == (48, len(data.identity_names))
    assert observation.shape == (48, len(data.observation_names))
    assert torch.equal(identity[0], identity[3])
    assert not torch.equal(observation[0], observation[3])


@pytest.mark.parametrize("name", [*IDENTITY, *OBSERVATION])
def test_every_number_is_seen(name: str) -> None:
    """From one end of its range to the other a number changes some picture of twelve people, and nothing else moves."""
    data = faces()
    values = {n: v.clone() for n, v in data.values(torch.arange(0, 48, 4)).items()}
    values["moles"].fill_(3.5), values["light_strength"].fill_(0.6), values["light_reach"].fill_(0.5)
    values["grey"].fill_(-0.5), values["hair_length"].fill_(0.5), values["smile"].fill_(0.05)
    low, high = (IDENTITY | OBSERVATION)[name]
    ends = []
    for value in (low, (low + high) / 2 if name == "ground_angle" else high - 1e-4 * (high - low)):
        ends.append(draw_faces({**values, name: torch.full((12,), value)}, 32, data.noise))
    assert float((ends[0] - ends[1]).abs().amax()) > 0.04


def test_skin_and_hair_show_their_colours() -> None:
    data = faces(identities=300, observations=2)
    values = {n: v.clone() for n, v in data.values(torch.arange(0, 600, 2)).items()}
    for name, value in {"yaw": 0, "pitch": 0, "roll": 0, "scale": 1, "shift_x": 0, "shift_y": 0, "light_strength": 0,
                        "grey": -1, "glasses": -1, "saturation": 1, "contrast": 1, "moles": 0}.items():  # fmt: skip
        values[name] = torch.full((300,), float(value))
    x = draw_faces(values, 64, torch.zeros(1, 3, 64, 64))
    cheek = x[:, :, 39, 24] * 255  # beside the nose, below the eye
    tones = torch.tensor(SKIN, dtype=torch.float32).T
    shares = torch.linalg.lstsq(
        torch.cat([tones, 100 * torch.ones(1, 3)]), torch.cat([cheek.T, 100 * torch.ones(1, 300)])
    )
    first, second = data.traits(torch.arange(0, 600, 2))[0][:, [data.identity_names.index(f"skin_{c}") for c in "ab"]].T
    assert float((shares.solution[0] - first).abs().median()) < 0.02
    assert float((shares.solution[1] - second).abs().median()) < 0.03
    fringe = x[:, :, 14, 32] * 255
    anchors = torch.tensor(HAIR, dtype=torch.float32)[values["hair_colour"].long()]
    assert float(((fringe - anchors).abs() <= 16).all(1).float().mean()) > 0.6  # the others' heads end below it


def test_faces_are_split_by_identity() -> None:
    data = faces(identities=50)
    parts = {name: set(data.label[rows].tolist()) for name, rows in data.parts.items()}
    assert {name: len(found) for name, found in parts.items()} == {"train": 40, "valid": 5, "test": 5}
    assert len(set.union(*parts.values())) == 50
    check_dataset("idfaces", size=16, identities=20)
