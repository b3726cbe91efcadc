"""The commands on mocogan and vgan, and on data of strangers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import distk
from distk import seeded
from distk.traversal import strips_of, traverse
from distk.video import read_clips

TINY = {"dim_content": 3, "dim_motion": 2, "ngf": 4, "ndf": 4, "halvings": 2, "categories": 2}
DATA = {"data_size": 16, "data_clips": 20, "data_test_clips": 8}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    made = distk.train("mocogan", **TINY, **DATA, steps=2, batch=4, device="cpu", quiet=True, out=folder / "moco")
    return made.path


@pytest.fixture(scope="module")
def vgan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    small = {"z": 4, "ngf": 4, "ndf": 4, "halvings": 2}
    folder = tmp_path_factory.mktemp("runs")
    return distk.train("vgan", **small, **DATA, steps=2, batch=4, device="cpu", quiet=True, out=folder / "v").path


def frames_of(path: Path) -> int:
    with Image.open(path) as film:
        return film.n_frames


def test_the_grid_has_motions_down_and_contents_across(run: Path, distk_command: Any, tmp_path: Path) -> None:
    out = tmp_path / "g.npz"
    code, told, _ = distk_command("mocogan", "grid", run, "--rows", 2, "--columns", 3, "--out", out, "--json")
    assert code == 0
    assert json.loads(told) == {"files": [str(out)], "rows": 2, "columns": 3, "frames": 16, "fix": "none"}
    model = distk.load(run / "checkpoint.safetensors")
    draw = seeded(0, torch.device("cpu"))
    motion, content = model.prior(2, draw), model.prior(3, draw)
    clips = read_clips(out)
    for row in range(2):
        for column in range(3):
            with torch.no_grad():
                cell = model.decode(
                    {
                        "content": content["content"][column, None],
                        "category": motion["category"][row, None],
                        "motion": motion["motion"][row, None],
                    }
                )
            shown = clips[3 * row + column].astype(int)
            assert np.abs(shown - (cell[0] * 255).round().numpy()).max() <= 1


@pytest.mark.parametrize(("fix", "held", "free"), [("content", "content", "motion"), ("motion", "motion", "content")])
def test_one_half_of_the_code_can_be_held(
    fix: str, held: str, free: str, run: Path, distk_command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, torch.Tensor]] = []
    cls = type(distk.load(run / "checkpoint.safetensors"))
    decode = cls.decode
    monkeypatch.setattr(cls, "decode", lambda self, code: seen.append(code) or decode(self, code))
    code, _, _ = distk_command(
        "mocogan", "grid", run, "--rows", 2, "--columns", 2, "--fix", fix, "--frames", 20, "--out", "g.png"
    )
    assert code == 0
    assert frames_of(Path("g.gif")) == 20
    for name, alike in ((held, True), (free, False)):
        value = seen[0][name]
        assert len(value) == 4
        assert bool((value == value[:1]).all()) == alike
    if fix == "motion":  # the category is part of what a clip does
        assert bool((seen[0]["category"] == seen[0]["category"][:1]).all())


def test_samples_of_any_length_of_a_class_and_as_files(run: Path, distk_command: Any) -> None:
    assert distk_command("sample", run, "--n", 2, "--frames", 40, "--out", "s.png")[0] == 0
    assert frames_of(Path("s.gif")) == 40
    assert distk_command("sample", run, "--n", 3, "--class", 1, "--out", "s.npz")[0] == 0
    assert read_clips(Path("s.npz")).lengths == [16, 16, 16]
    assert distk_command("sample", run, "--frames", 0)[0] == 2


def test_vgan_is_one_point_and_refuses_another_length(vgan: Path, distk_command: Any) -> None:
    assert distk_command("sample", vgan, "--n", 2, "--out", "s.png")[0] == 0
    code, _, told = distk_command("sample", vgan, "--frames", 32)
    assert code == 2
    assert "'vgan' does not make clips of any length" in " ".join(told.split())
    code, _, told = distk_command("mocogan", "grid", vgan)
    assert code == 2
    assert "a content code per clip and a motion code per frame" in " ".join(told.split())
    code, out, _ = distk_command("eval", vgan, "--metric", "acd", "--set", "clips=6", "--json")
    assert code == 0
    assert json.loads(out)["metrics"]["acd"]["acd_real"] > 1


def test_two_drawn_clips_exchange_a_half_and_items_are_refused(run: Path, distk_command: Any) -> None:
    for group in ("content", "motion", "category"):
        assert distk_command("swap", run, "--group", group, "--pairs", 2, "--out", f"{group}.png")[0] == 0
    code, _, told = distk_command("swap", run, "--a", 1, "--b", 2)
    assert code == 2
    assert "method 'mocogan' has no encoder that gives its code: codes are drawn by --seed" in " ".join(told.split())
    code, _, told = distk_command("traverse", run, "--row", 1)
    assert code == 2
    assert "--row names an item of the data, and method 'mocogan' has no encoder" in " ".join(told.split())
    assert distk_command("reconstruct", run)[0] == 2


def test_a_traversal_puts_contents_in_place_and_shifts_motions_at_every_frame(run: Path) -> None:
    model = distk.load(run / "checkpoint.safetensors")
    base = model.prior(1, torch.Generator().manual_seed(5))
    seen: list[dict[str, torch.Tensor]] = []
    decode = model.decode
    model.decode = lambda code: seen.append(code) or decode(code)  # type: ignore[method-assign, func-returns-value]
    made = traverse(model, None, 5, span=(-2.0, 2.0), seed=5)
    assert [row.label for row in made.rows[:5]] == ["content1", "content2", "content3", "motion1", "motion2"]
    values = torch.linspace(-2, 2, 5)
    second, shifted = seen[2], seen[4]  # after the start: content2, motion1
    assert torch.equal(second["content"][:, 1], values)
    assert torch.equal(second["motion"], base["motion"].expand(5, -1, -1))
    assert torch.allclose(shifted["motion"][:, :, 0], base["motion"][:, :, 0] + values[:, None])
    assert torch.equal(shifted["motion"][:, :, 1], base["motion"][:, :, 1].expand(5, -1))
    seen.clear()
    strips_of(model, base, "motion2", 3)
    assert torch.allclose(seen[0]["motion"][0, :, 1], base["motion"][0, :, 1] - 1)


def test_unequal_clips_of_strangers_train_with_labels_or_say_what_does_not_fit(
    real: Any, distk_command: Any, tmp_path: Path
) -> None:
    clips = real("weizmann_sample/actions.npz")
    small = ["--size", 16, "--ngf", 4, "--ndf", 4, "--halvings", 2, "--steps", 2, "--batch", 4, "--device", "cpu"]
    line = ["train", "mocogan", "--data", "clips", "--data-dir", clips, "--use-labels", *small]
    assert distk_command(*line, "--categories", 4, "--out", "run")[0] == 0
    code, _, told = distk_command(*line, "--categories", 6)
    assert code == 2
    assert "6 categories, but the data have 4 classes: action0, action1, action3, action4" in " ".join(told.split())
    code, _, told = distk_command(*line, "--categories", 4, "--frames", 80)
    assert code == 2
    assert "have fewer frames than the 159 that 80 frames, every 2. of a clip, needs" in " ".join(told.split())
    code, _, told = distk_command("eval", "run", "--metric", "acd")
    assert "single shapes of one colour on black" in " ".join(told.split())


def test_strips_and_folders_are_read_and_bad_ones_are_named(distk_command: Any) -> None:
    rng = np.random.default_rng(0)
    for label in ("b", "a"):
        Path("strips", label).mkdir(parents=True)
        for i in range(2):
            strip = rng.integers(0, 256, (16, 16 * 33, 3), dtype=np.uint8)
            Image.fromarray(strip).save(Path("strips", label, f"{i}.jpg"))
    code, told, _ = distk_command("data", "video-strips", "--data-dir", "strips", "--every", 2, "--json")
    assert code == 0
    assert json.loads(told)["classes"] == ["a", "b"]
    Image.fromarray(strip[:, :16]).save("strips/a/one.png")
    code, _, told = distk_command("data", "video-strips", "--data-dir", "strips")
    assert code != 0
    assert "single picture, not a strip" in " ".join(told.split())
    for subject, take in (("s1", 40), ("s2", 70)):
        folder = Path("faces", subject, "joy", "t0")
        folder.mkdir(parents=True)
        for k in range(take):
            Image.fromarray(strip[:12, 16 * (k % 33) : 16 * (k % 33) + 16]).save(folder / f"{k}.jpg")
    line = ["data", "video-folder", "--data-dir", "faces", "--labels", "parent", "--min-len", 64, "--size", 8, "--json"]
    code, told, error = distk_command(*line)
    assert code == 0
    assert json.loads(told)["shape"] == [16, 3, 8, 8]
    assert "1 of 2 clips have fewer frames than the 64 of --min-len" in " ".join(error.split())
    code, _, told = distk_command("data", "video-folder")
    assert code == 2
    assert "data set 'video-folder' needs the clips: add --data-dir" in " ".join(told.split())
