"""`distk mvae ...` and the generic commands on an mvae, through the entry point."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from distk import checkpoint
from distk.sheet import bare

SETTINGS: dict[str, Any] = {"size": 16, "fixed": 60, "test": 80, "batch": 4, "steps": 2, "device": "cpu"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Short runs of mvae, with 3 objects, and of the baseline."""
    import distk

    path = tmp_path_factory.mktemp("mvae")
    for name in ("mvae", "mvae-baseline"):
        distk.train(name, preset="demo", out=path / name, quiet=True, **SETTINGS)
    return path


def pixels(path: Path) -> np.ndarray:
    return np.asarray(bare(Path(path)))


def test_objects_swap_shows_what_the_model_makes(runs: Path, distk_command, in_folder: Path) -> None:
    code, out, err = distk_command(
        "mvae", "swap", runs / "mvae", "--a", 3, "--b", 64, "--a-slot", 2, "--b-slot", 0, "--out", "s.png", "--json"
    )
    assert code == 0, err
    told = json.loads(out)
    assert (told["rows"], told["a_slot"], told["b_slot"]) == ([[3, 64]], 2, 0)
    model, header = checkpoint.load(runs / "mvae" / "checkpoint.safetensors")
    from distk.models import trained_data

    x = trained_data(header, torch.device("cpu")).batch(torch.tensor([3, 64]))["x"]
    with torch.no_grad():
        a, b = (model.encode(part) for part in x.split(1))
        expected = model.decode({**a, "object3": b["object1"]})
    sheet = pixels(in_folder / "s.png")
    # Pixels are shown three times as large, rows of 48 with 2 between them; the labels are to the left.
    shown = sheet[4 * 50 + 2 : 5 * 50 : 3, -50:-2:3]
    assert shown.shape == (16, 16, 3)
    assert np.abs(shown / 255 - expected[0].permute(1, 2, 0).numpy()).max() < 1 / 255
    code, out, _ = distk_command("mvae", "swap", runs / "mvae", "--pairs", 3, "--rank", 1, "--json", "-o", "s.png")
    assert (json.loads(out)["a_slot"], len(json.loads(out)["rows"])) == (1, 3)


def test_swapping_pictures_of_ones_own(runs: Path, distk_command, in_folder: Path) -> None:
    seen = np.random.default_rng(random.getrandbits(64)).integers(0, 256, (16, 16, 4), dtype=np.uint8)
    Image.fromarray(seen).save("a.png")
    Image.fromarray(seen[:, :, :3]).save("b.png")
    code, _, err = distk_command("mvae", "swap", runs / "mvae", "--a-image", "a.png", "--b-image", "b.png")
    assert code == 0, err
    from distk.plugins.vae_family.mvae.figures import read_image

    model: Any = checkpoint.load(runs / "mvae" / "checkpoint.safetensors")[0]
    over_black = seen[:, :, :3] * (seen[:, :, 3:] / 255)
    found = read_image(Path("a.png"), model)[0].permute(1, 2, 0).numpy() * 255
    assert np.abs(found - over_black).max() < 1.01
    Image.fromarray(seen[:10]).save("small.png")
    code, _, err = distk_command("mvae", "swap", runs / "mvae", "--a-image", "small.png", "--b-image", "b.png")
    assert code == 2
    assert "has 16x10 pixels; the model takes 16x16" in err
    Path("c.png").write_bytes(b"no picture")
    assert distk_command("mvae", "klmap", runs / "mvae", "--image", "c.png")[0] == 1
    assert distk_command("mvae", "klmap", runs / "mvae", "--image", "d.png")[0] == 2
    assert distk_command("mvae", "swap", runs / "mvae", "--a-image", "a.png")[0] == 2


def test_build_draws_and_measures(runs: Path, distk_command, in_folder: Path) -> None:
    code, out, err = distk_command("mvae", "build", runs / "mvae", "--n", 4, "--over", 50, "--out", "b.png", "--json")
    assert code == 0, err
    told = json.loads(out)
    assert len(told["excess"]) == 3
    assert told["change"] >= 0
    assert pixels(in_folder / "b.png").shape[0] == 4 * 50 + 2
    code, out, err = distk_command("mvae", "build", runs / "mvae", "--steps", 2, "--over", 30)
    assert code == 0, err
    assert "nats above the floor" in out
    assert (runs / "mvae" / "checkpoint.build.png").exists()


def test_traverse_one_object(runs: Path, distk_command, in_folder: Path) -> None:
    code, out, err = distk_command(
        "mvae", "traverse", runs / "mvae", "--slot", 1, "--dims", "0,5", "--range=-1:2", "--steps", 4, "--row", 7,
        "--out", "t.png", "--json",
    )  # fmt: skip
    assert code == 0, err
    told = json.loads(out)
    assert told["dims"] == [0, 5]
    assert told["values"] == pytest.approx([-1, 0, 1, 2], abs=1e-6)
    assert len(told["kl"]) == 2
    assert pixels(in_folder / "t.png").shape[0] == 3 * 50 + 2
    assert distk_command("mvae", "traverse", runs / "mvae", "--out", "t.png")[0] == 0
    assert pixels(in_folder / "t.png").shape[0] == 13 * 50 + 2


def test_count_keeps_its_threshold_and_klmap_uses_it(runs: Path, distk_command, in_folder: Path) -> None:
    code, out, err = distk_command("mvae", "klmap", runs / "mvae", "--n", 5, "--out", "k.png", "--json")
    assert code == 0, err
    told = json.loads(out)
    assert np.array(told["kl"]).shape == (5, 8, 8)
    assert np.array(told["cells"]).shape == (5, 3, 2)
    assert told["counts"] is None
    row, column = told["cells"][0][0]
    assert np.array(told["kl"])[0].max() == told["kl"][0][row][column]
    code, out, err = distk_command("mvae", "count", runs / "mvae", "--train", 50, "--json")
    assert code == 0, err
    found = json.loads(out)
    stored = json.loads((runs / "mvae" / "checkpoint.count.json").read_text())
    assert stored["threshold"] == found["threshold"]
    assert stored["step"] == 2
    assert found["scenes"] == 80
    code, out, _ = distk_command("mvae", "klmap", runs / "mvae", "--n", 5, "--out", "k.png", "--json")
    kl = np.array(json.loads(out)["kl"]).reshape(5, 64)
    assert json.loads(out)["counts"] == (kl > found["threshold"]).sum(1).tolist()
    assert "objects counted: " in distk_command("mvae", "klmap", runs / "mvae", "--n", 3)[1]
    code, out, _ = distk_command("mvae", "count", runs / "mvae", "--scope", "slots", "--out", "c.json")
    assert code == 0
    assert "said 2" in out


def test_the_generic_commands_work_through_the_latent_space(runs: Path, distk_command, in_folder: Path) -> None:
    for arguments in (
        ("swap", runs / "mvae", "--group", "object2", "--pairs", 2),
        ("traverse", runs / "mvae", "--columns", 3, "--top", 2, "--no-gif"),
        ("sample", runs / "mvae"),
        ("reconstruct", runs / "mvae-baseline"),
        ("traverse", runs / "mvae-baseline", "--columns", 3, "--top", 2, "--no-gif"),
    ):
        code, _, err = distk_command(*arguments)
        assert code == 0, err


@pytest.mark.parametrize("command", ["build", "klmap", "count", "swap", "traverse"])
def test_the_baseline_has_no_objects(command: str, runs: Path, distk_command) -> None:
    code, _, err = distk_command("mvae", command, runs / "mvae-baseline")
    assert code == 2
    assert "holds a model of method 'mvae-baseline'; this command serves mvae." in " ".join(err.split())
    if command == "swap":
        assert distk_command("swap", runs / "mvae-baseline")[0] == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("swap RUN --rank 3", "--rank 3: the model's objects are 0 to 2"),
        ("swap RUN --a-slot 9", "--a-slot 9: the model's objects are 0 to 2"),
        ("swap RUN --a 1", "give both --a and --b"),
        ("swap RUN --a 1 --b 140", "--b 140 is outside the data set's rows 0 to 139"),
        ("traverse RUN --slot 7", "--slot 7: the model's objects are 0 to 2"),
        ("traverse RUN --range=1:1", "the first value must be below the second"),
        ("traverse RUN --range=-inf:1", "the first value must be below the second"),
        ("traverse RUN --range=high", "write LOW:HIGH"),
        ("traverse RUN --dims 12", "numbers from 0 to 11"),
        ("traverse RUN --row 140", "--row 140 is outside"),
        ("build RUN --steps 4", "--steps 4: the model has 3 objects"),
        ("build RUN --out nowhere/b.png", "the folder 'nowhere' does not exist"),
        ("count RUN --scope slots --nms", "needs scope map"),
        ("count RUN --data digits", "does not fit the model: channels: 3 in the model, 1 in the data"),
    ],
)
def test_bad_input_is_one_sentence(arguments: str, words: str, runs: Path, distk_command) -> None:
    code, out, err = distk_command("mvae", *arguments.replace("RUN", str(runs / "mvae")).split())
    assert (code, out) == (2, "")
    assert words in " ".join(err.split())
    assert "Traceback" not in err
