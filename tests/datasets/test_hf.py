"""hf: what Hugging Face's datasets saved to a folder: pictures, arrays, numbers; and what is refused."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from distk import DistkError, UsageError, places
from distk.data import open_dataset
from distk.testing import check_dataset

datasets = pytest.importorskip("datasets", reason="the package datasets (distk[hf]) is not installed")


@pytest.fixture
def pictures(tmp_path: Path, seed: int) -> tuple[Path, np.ndarray]:
    """Thirty pictures in two splits, with a class, a word, a whole and a real number each."""
    pixels = np.random.default_rng(seed).integers(0, 256, (30, 16, 16, 3), dtype=np.uint8)
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "label": datasets.ClassLabel(names=["cat", "dog"]),
            "colour": datasets.Value("string"),
            "size": datasets.Value("int64"),
            "turn": datasets.Value("float32"),
        }
    )
    held = {
        "image": [Image.fromarray(x) for x in pixels],
        "label": [i % 2 for i in range(30)],
        "colour": ["rgb"[i % 3] for i in range(30)],
        "size": [i % 5 for i in range(30)],
        "turn": [i / 7 for i in range(30)],
    }
    whole = datasets.Dataset.from_dict(held, features=features)
    both = datasets.DatasetDict({"train": whole.select(range(20)), "test": whole.select(range(20, 30))})
    both.save_to_disk(str(tmp_path / "saved"))
    return tmp_path / "saved", pixels


def test_pictures_with_classes_and_splits(pictures: tuple[Path, np.ndarray]) -> None:
    folder, pixels = pictures
    rows = torch.arange(30)
    for found in (
        open_dataset("hf", {"size": 16}, folder=folder),
        open_dataset(f"hf:{folder}", {"size": 16}),
    ):
        batch = found.batch(rows)
        assert np.array_equal((batch["x"] * 255).round().numpy(), pixels.transpose(0, 3, 1, 2))
        assert batch["label"].tolist() == [i % 2 for i in range(30)]
        assert found.spec.classes == ("cat", "dog")
        assert found.rows_of("test").tolist() == list(range(20, 30))
        assert any("not read: colour, size, turn" in told for told in found.told)
    check_dataset("hf", folder, size=16)


def test_factors(pictures: tuple[Path, np.ndarray]) -> None:
    folder, _ = pictures
    found = open_dataset("hf", {"size": 16, "factors": ("colour", "size", "turn", "label")}, folder=folder)
    assert found.factor_names == ("colour", "size", "turn", "label")
    assert found.factor_kinds == ("categorical", "ordinal", "continuous", "categorical")
    assert found.factor_sizes == (3, 5, 30, 2)
    truth = found.truth(torch.arange(30))
    assert torch.allclose(truth[:, 2], torch.arange(30).double() / 7, atol=1e-6)
    assert truth[:, 1].tolist() == [i % 5 for i in range(30)]


def test_numbers_and_arrays(tmp_path: Path, seed: int) -> None:
    draw = np.random.default_rng(seed)
    x, images = draw.normal(size=(25, 3)), draw.integers(0, 256, (25, 12, 14), dtype=np.uint8)
    whole = datasets.Dataset.from_dict({**dict(zip("abc", x.T.tolist(), strict=True)), "label": ["no"] * 25})
    whole.save_to_disk(str(tmp_path / "numbers"))
    found = open_dataset("hf", folder=tmp_path / "numbers")
    assert found.spec.kind == "vector"
    assert np.allclose(found.batch(torch.arange(25))["x"].numpy(), x, atol=1e-6)
    features = datasets.Features({"pixels": datasets.Array2D((12, 14), "uint8")})
    datasets.Dataset.from_dict({"pixels": images}, features=features).save_to_disk(str(tmp_path / "arrays"))
    found = open_dataset("hf", folder=tmp_path / "arrays")
    assert np.array_equal((found.batch(torch.arange(25))["x"] * 255).round().numpy()[:, 0], images)
    datasets.Dataset.from_dict({"v": x.tolist()}).save_to_disk(str(tmp_path / "rows"))
    assert open_dataset("hf", folder=tmp_path / "rows").spec.shape == (3,)


def test_refusals(pictures: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    folder, _ = pictures
    for options, said in (
        ({"column": "imag"}, "has no column 'imag'"),
        ({"column": "colour"}, "holds no pictures, arrays or numbers"),
        ({"label_column": "image"}, "holds neither numbers, words nor classes"),
        ({"factors": ("nothing",)}, "has no column 'nothing'"),
    ):
        with pytest.raises(UsageError, match=said):
            open_dataset("hf", options, folder=folder)
    with pytest.raises(UsageError, match="--data-dir FOLDER"):
        open_dataset("hf")
    with pytest.raises(UsageError, match="holds no saved data set"):
        open_dataset("hf", folder=tmp_path)
    arrow = next((folder / "test").glob("*.arrow"))
    arrow.write_bytes(arrow.read_bytes()[: arrow.stat().st_size // 2])
    with pytest.raises(DistkError, match="cannot be read as a saved data set"):
        open_dataset("hf", folder=folder)


def test_files_elsewhere_are_not_read(pictures: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    folder, pixels = pictures
    state = folder / "train" / "state.json"
    held = json.loads(state.read_text())
    held["_data_files"][0]["filename"] = "../../elsewhere.arrow"
    state.write_text(json.dumps(held))
    with pytest.raises(DistkError, match="names files elsewhere"):
        open_dataset("hf", folder=folder)
    (folder / "dataset_dict.json").write_text(json.dumps({"splits": ["../saved/test"]}))
    with pytest.raises(DistkError, match="names files elsewhere"):
        open_dataset("hf", folder=folder)
    outside = tmp_path / "outside.png"
    Image.fromarray(pixels[0]).save(outside)
    content = io.BytesIO()
    Image.fromarray(pixels[0]).save(content, "PNG")
    kind = datasets.Features({"image": datasets.Image()})
    raw = datasets.Dataset.from_dict({"image": [{"bytes": content.getvalue(), "path": None}] * 2}, features=kind)
    pa = pytest.importorskip("pyarrow")
    led_out = pa.StructArray.from_arrays(
        [pa.array([None, None], pa.binary()), pa.array([str(outside)] * 2)], names=["bytes", "path"]
    )
    raw = datasets.Dataset(pa.table({"image": led_out}, schema=raw.data.table.schema))
    folder = tmp_path / "led"
    folder.mkdir()
    with pa.OSFile(str(folder / "data.arrow"), "wb") as sink, pa.ipc.new_stream(sink, raw.data.table.schema) as stream:
        stream.write_table(raw.data.table)
    (folder / "state.json").write_text(
        json.dumps({**held, "_data_files": [{"filename": "data.arrow"}], "_fingerprint": "0" * 16})
    )
    (folder / "dataset_info.json").write_text(json.dumps({"features": {"image": {"_type": "Image"}}}))
    with pytest.raises(DistkError, match="lies in another file"):
        open_dataset("hf", {"size": 16}, folder=folder)


def test_a_checkpoint_may_not_name_the_folder(pictures: tuple[Path, np.ndarray], monkeypatch, tmp_path) -> None:
    """The folder behind `hf:` is a place like any other: what only a file names is not read."""
    from distk.checkpoint import Header
    from distk.models import check_places

    monkeypatch.setenv("DISTK_CACHE", str(tmp_path / "fresh"))
    monkeypatch.setattr(places, "_named", set())
    folder, _ = pictures
    header = Header.__new__(Header)
    object.__setattr__(header, "data", {"name": f"hf:{folder}", "options": {}, "folder": None})
    with pytest.raises(UsageError, match="nobody has named it"):
        check_places(header, "stranger.safetensors")
    open_dataset(f"hf:{folder}", {"size": 16})
    check_places(header, "stranger.safetensors")


def test_a_file_that_kills_its_reader_is_named(
    pictures: tuple[Path, np.ndarray], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Arrow that crashes over a file, as a flaw in it would make it, ends the other process alone."""
    from distk import apart

    (tmp_path / "sitecustomize.py").write_text(
        "import sys\nif 'distk.apart_process' in sys.orig_argv:\n"
        "    import os, pyarrow\n"
        "    def mapped(*words, **more):\n        os.kill(os.getpid(), 11)\n"
        "    pyarrow.memory_map = mapped\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(apart, "_idle", [])
    with pytest.raises(
        DistkError, match=r"train' is damaged: reading it was given up \(its reader ended with signal 11"
    ):
        open_dataset("hf", {"size": 16}, folder=pictures[0])


def test_a_large_picture_among_small_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks shrink where pictures are large, and every row comes once and in order."""
    from distk import apart, saved

    made = [Image.new("RGB", (8 + i, 8), (i, 0, 0)) for i in range(300)]
    kind = datasets.Features({"image": datasets.Image()})
    datasets.Dataset.from_dict({"image": made}, features=kind).save_to_disk(str(tmp_path / "s"))
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\nif 'distk.apart_process' in sys.orig_argv:\n"
        "    import distk.saved_here\n    distk.saved_here.PICTURES = 3000\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(apart, "_idle", [])
    (part,) = saved.open_saved(tmp_path / "s").values()
    chunks = [chunk["image"] for chunk in saved.rows(part, ["image"])]
    assert len(chunks) > 10
    widths = [Image.open(io.BytesIO(content)).width for chunk in chunks for content in chunk]
    assert widths == [8 + i for i in range(300)]
