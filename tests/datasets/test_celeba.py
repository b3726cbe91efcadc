"""celeba from files of the published form, which the test writes: pictures in a folder or a zip, two lists."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from distk import DistkError, UsageError
from distk.data import open_dataset
from distk.plugins.datasets import celeba
from distk.testing import check_dataset

NAMES = ("Bald", "Eyeglasses", "Male", "Smiling", "Young")
COUNT = 12


def face(colour: tuple[int, int, int]) -> bytes:
    """178x218, the middle of one colour, 20 rows at the top and the bottom of another."""
    pixels = np.empty((218, 178, 3), np.uint8)
    pixels[:] = 255 - np.array(colour)
    pixels[20:-20] = colour
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "JPEG", quality=95)
    return content.getvalue()


@pytest.fixture
def made(tmp_path: Path, seed: int) -> tuple[Path, np.ndarray, np.ndarray, list[int]]:
    """The folder, colours, attributes and splits."""
    draw = np.random.default_rng(seed)
    colours = draw.integers(0, 256, (COUNT, 3))
    yes = draw.integers(0, 2, (COUNT, len(NAMES)))
    splits = [0] * 8 + [1] * 2 + [2] * 2
    for part in ("Anno", "Eval", "Img/img_align_celeba"):
        (tmp_path / part).mkdir(parents=True)
    lines = [f"{i + 1:06}.jpg {' '.join(f'{2 * v - 1:2}' for v in row)}" for i, row in enumerate(yes)]
    listed = "\n".join([str(COUNT), " ".join(NAMES) + " ", *lines]) + "\n"
    (tmp_path / "Anno" / "list_attr_celeba.txt").write_text(listed)
    splitted = "".join(f"{i + 1:06}.jpg {k}\n" for i, k in enumerate(splits))
    (tmp_path / "Eval" / "list_eval_partition.txt").write_text(splitted)
    for i, colour in enumerate(colours):
        (tmp_path / "Img" / "img_align_celeba" / f"{i + 1:06}.jpg").write_bytes(face(tuple(colour.tolist())))
    return tmp_path, colours, yes, splits


def test_pictures_attributes_and_splits(made) -> None:
    folder, colours, yes, splits = made
    found = open_dataset("celeba", {"size": 32, "label": "Smiling"}, folder=folder)
    rows = torch.arange(COUNT)
    batch = found.batch(rows)
    assert batch["x"].shape == (COUNT, 3, 32, 32)
    # JPEG keeps colours at half resolution; in the middle all is of one colour.
    middle = (batch["x"][:, :, 8:24, 8:24] * 255).mean((2, 3)).numpy()
    assert np.abs(middle - colours).max() < 4
    assert np.array_equal(batch["factors"].numpy(), yes)
    assert np.array_equal(batch["label"].numpy(), yes[:, NAMES.index("Smiling")])
    assert found.factor_names == NAMES
    assert set(found.factor_sizes) == {2}
    for k, split in enumerate(celeba.PARTS):
        assert found.rows_of(split).tolist() == [i for i in range(COUNT) if splits[i] == k]
    assert found.validation_split == "val"
    assert "a part of its 202,599" in found.origin
    check_dataset("celeba", folder, size=32)


def test_a_square_is_cut_from_the_middle(made) -> None:
    """The uppermost and lowermost 20 rows are of another colour, and gone; of a cut to 178 rows nothing is left."""
    folder, colours, *_ = made
    x = open_dataset("celeba", {"size": 64}, folder=folder).batch(torch.arange(COUNT))["x"] * 255
    assert np.abs(x.mean((2, 3)).numpy() - colours).max() < 6
    with Image.open(folder / "Img" / "img_align_celeba" / "000001.jpg") as image:
        left, top = (178 - 100) // 2, (218 - 100) // 2
        own = image.crop((left, top, left + 100, top + 100)).resize((64, 64), Image.Resampling.LANCZOS)
    cut = open_dataset("celeba", {"size": 64, "crop": 100}, folder=folder).batch(torch.arange(1))["x"][0]
    assert np.array_equal((cut * 255).round().numpy(), np.asarray(own).transpose(2, 0, 1))


def test_the_zip_is_read_where_it_lies(made, tmp_path_factory) -> None:
    folder, *_ = made
    other = tmp_path_factory.mktemp("zipped")
    for name in ("Anno/list_attr_celeba.txt", "Eval/list_eval_partition.txt"):
        (other / Path(name).name).write_bytes((folder / name).read_bytes())
    with zipfile.ZipFile(other / "img_align_celeba.zip", "w") as archive:
        for path in sorted((folder / "Img").rglob("*.jpg")):
            archive.write(path, f"img_align_celeba/{path.name}")
        archive.writestr("img_align_celeba/999999.jpg", face((1, 2, 3)))
    rows = torch.arange(COUNT)
    here = open_dataset("celeba", {"size": 16}, folder=folder)
    for place in (other, other / "img_align_celeba.zip"):
        there = open_dataset("celeba", {"size": 16}, folder=place)
        assert all(torch.equal(there.batch(rows)[key], here.batch(rows)[key]) for key in ("x", "factors"))
        assert any("1 picture left out that 'list_attr_celeba.txt' does not name" in told for told in there.told)


def test_lists_with_commas_are_read_as_well(made) -> None:
    folder, _, yes, _ = made
    lines = [f"{i + 1:06}.jpg,{','.join(str(2 * v - 1) for v in row)}" for i, row in enumerate(yes)]
    (folder / "Anno" / "list_attr_celeba.txt").unlink()
    (folder / "Anno" / "list_attr_celeba.csv").write_text("\n".join(["image_id," + ",".join(NAMES), *lines]))
    (folder / "Eval" / "list_eval_partition.txt").unlink()
    found = open_dataset("celeba", {"size": 16}, folder=folder)
    assert np.array_equal(found.batch(torch.arange(COUNT))["factors"].numpy(), yes)
    assert any("drawn at random" in told for told in found.told)
    assert len(found.rows_of("test")) == 1


def test_refusals(made) -> None:
    folder, *_ = made
    listed, parts = folder / "Anno" / "list_attr_celeba.txt", folder / "Eval" / "list_eval_partition.txt"
    right, good = listed.read_text(), parts.read_text()
    for text, said in (
        (right.replace(str(COUNT), "13", 1), "lists 13 pictures, and lists 12"),
        (right.replace(" 1", " 2", 1), "each 1 or -1"),
        (right.replace("000002", "000001"), "twice"),
        ("", "no list of attributes"),
    ):
        listed.write_text(text)
        with pytest.raises(DistkError, match=said):
            open_dataset("celeba", folder=folder)
    listed.write_text(right)
    for text, said in (
        (good.replace("jpg 2", "jpg 3"), "0, 1 or 2"),
        (good[: len(good) // 2], "does not say|followed"),
    ):
        parts.write_text(text)
        with pytest.raises(DistkError, match=said):
            open_dataset("celeba", folder=folder)
    parts.write_text(good)
    with pytest.raises(UsageError, match="'Smile' is no attribute"):
        open_dataset("celeba", {"label": "Smile"}, folder=folder)
    picture = folder / "Img" / "img_align_celeba" / "000003.jpg"
    picture.write_bytes(picture.read_bytes()[:300])
    with pytest.raises(DistkError, match=r"000003\.jpg' cannot be read"):
        open_dataset("celeba", folder=folder)
    listed.unlink()
    with pytest.raises(UsageError, match=r"put img_align_celeba\.zip"):
        open_dataset("celeba", folder=folder)
    with pytest.raises(UsageError, match="--data-dir FOLDER"):
        open_dataset("celeba")
