"""`distk sdgan ...` and the generic commands on models of identities, through the program's own entry point."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from distk import checkpoint, images
from distk.commands.interpolate import strips
from distk.plugins.gan_family.sdgan.commands import crossed, read_corners, read_subjects
from distk.sheet import bare

FACES = {"size": 16, "identities": 30, "observations": 4}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Very short runs of the four methods."""
    import distk

    found = {}
    for name in ("sddcgan", "sdbegan", "dcgan", "began"):
        found[name] = tmp_path_factory.mktemp("sdgan") / name
        code = {"identity": 3, "observation": 2} if name.startswith("sd") else {"z": 4}
        distk.train(
            name, preset="demo", out=found[name], quiet=True, steps=3, batch=4, device="cpu",
            **{**code, "width": 4}, **{k: v for k, v in FACES.items() if k != "size"},
        )  # fmt: skip
    return found


def pixels(path: Path | str) -> np.ndarray:
    return np.asarray(bare(Path(path)))


def drawn(x: torch.Tensor, columns: int) -> np.ndarray:
    return np.asarray(images.to_pil(images.grid(images.enlarge(x), columns)))


@pytest.mark.parametrize("name", ["sddcgan", "sdbegan"])
def test_a_grid_has_identities_in_rows(name: str, runs, distk_command, in_folder: Path) -> None:
    code, out, err = distk_command(
        "sdgan", "grid", runs[name], "--rows", 3, "--columns", 5, "--seed", 4, "-o", "g.png", "--json"
    )
    assert code == 0, err
    assert json.loads(out)["files"] == ["g.png"]
    model, _ = checkpoint.load(runs[name] / "checkpoint.safetensors")
    draw = torch.Generator().manual_seed(4)
    identity, observation = model.prior(3, draw)["identity"], model.prior(5, draw)["observation"]
    with torch.no_grad():
        cells = [
            model.decode({"identity": identity[i : i + 1], "observation": observation[j : j + 1]})[0]
            for i in range(3)
            for j in range(5)
        ]
    assert np.abs(pixels("g.png").astype(int) - drawn(torch.stack(cells), 5)).max() <= 1


def test_interpolation_moves_identity_down_and_observation_to_the_right(runs, distk_command, in_folder: Path) -> None:
    code, out, err = distk_command("sdgan", "interpolate", runs["sdbegan"], "--size", 4, "-o", "w.png", "--json")
    assert code == 0, err
    assert json.loads(out)["files"] == ["w.png", "w-diagonal.png"]
    model, _ = checkpoint.load(runs["sdbegan"] / "checkpoint.safetensors")
    ends = model.prior(2, torch.Generator().manual_seed(0))
    cells = []
    with torch.no_grad():
        for i in range(4):
            for j in range(4):
                a, b = (
                    ends[g][:1] + s / 3 * (ends[g][1:] - ends[g][:1]) for g, s in (("identity", i), ("observation", j))
                )
                cells.append(model.decode({"identity": a, "observation": b})[0])
    assert np.abs(pixels("w.png").astype(int) - drawn(torch.stack(cells), 4)).max() <= 1
    diagonal = torch.stack([cells[5 * i] for i in range(4)])
    assert np.abs(pixels("w-diagonal.png").astype(int) - drawn(diagonal, 4)).max() <= 1
    assert crossed(torch.eye(2), torch.eye(3))["observation"].tolist() == [*torch.eye(3).tolist()] * 2


def test_inverted_pictures_can_be_walked_between(runs, distk_command, in_folder: Path) -> None:
    for who, shade in (("ann", 40), ("bob", 200)):
        (in_folder / who).mkdir()
        for i in range(2 + (who == "bob")):
            noise = np.random.default_rng(random.getrandbits(64)).integers(0, 40, (30, 24, 3)) + shade
            Image.fromarray(noise.astype(np.uint8)).save(in_folder / who / f"{i}.png")
    arguments = ("--images", "ann", "--images", "bob", "--steps", 5, "--restarts", 2, "-o", "i.png", "--json")
    code, out, err = distk_command("sdgan", "invert", runs["sddcgan"], *arguments)
    assert code == 0, err
    told = json.loads(out)
    assert told["files"] == ["i.png", "i.safetensors"]
    assert [(s["subject"], s["images"]) for s in told["subjects"]] == [("ann", 2), ("bob", 3)]
    assert told["error"] < told["error_at_start"]
    codes = load_file("i.safetensors")
    assert codes["identity"].shape == (2, 3)
    assert codes["observation"].shape == (5, 2)
    assert codes["owner"].tolist() == [0, 0, 1, 1, 1]
    assert pixels("i.png").shape[0] > 4 * 48  # two rows for each subject
    code, out, err = distk_command(
        "sdgan", "interpolate", runs["sddcgan"], "--corners", "i.safetensors", "--size", 3, "-o", "w.png"
    )
    assert code == 0, err
    model, _ = checkpoint.load(runs["sddcgan"] / "checkpoint.safetensors")
    with torch.no_grad():
        first = model.decode({"identity": codes["identity"][:1], "observation": codes["observation"][:1]})
    made, expected = pixels("w.png").astype(int), drawn(first, 1)
    assert np.abs(made[: len(expected) - 2, : len(expected) - 2] - expected[:-2, :-2]).max() <= 1
    ends = read_corners(Path("i.safetensors"), model)  # the other end is bob's first picture, not ann's second
    assert torch.equal(ends["identity"], codes["identity"])
    assert torch.equal(ends["observation"], codes["observation"][[0, 2]])


def test_one_subject_from_single_pictures_and_a_verifier(runs, distk_command, in_folder: Path) -> None:
    for i in range(2):
        Image.new("L", (20, 20), 90 * i).save(in_folder / f"{i}.png")
    code, out, err = distk_command(
        "sdgan", "verifier-train", "--size", 16, "--steps", 3, "--width", 4, "-o", "v.safetensors", "--json"
    )
    assert code == 0, err
    told = json.loads(out)
    assert told["identities"] == 10_000
    assert 0 <= told["auc"] <= 1
    code, out, err = distk_command(
        "sdgan", "invert", runs["sdbegan"], "--images", "0.png", "--images", "1.png", "--verifier", "v.safetensors",
        "--steps", 2, "-o", "i.png",
    )  # fmt: skip
    assert code == 0, err
    assert "pictures" in out
    code, out, err = distk_command(
        "eval", runs["sdbegan"], "--metric", "verification", "--set", "verifier=v.safetensors", "--set", "pairs=40",
        "--json",
    )  # fmt: skip
    assert code == 0, err
    assert 0 <= json.loads(out)["metrics"]["verification"]["auc_real"] <= 1


def test_the_data_serve_without_pictures(runs, distk_command, in_folder: Path) -> None:
    code, out, err = distk_command(
        "sdgan", "invert", runs["sddcgan"], "--subjects", 2, "--each", 3, "--steps", 2, "-o", "i.png", "--json"
    )
    assert code == 0, err
    assert [s["images"] for s in json.loads(out)["subjects"]] == [3, 3]
    code, _, err = distk_command("sdgan", "invert", runs["sddcgan"], "--each", 5, "-o", "i.png")
    assert code == 2
    assert "fewer than 5 images" in err


@pytest.mark.parametrize("name", ["sddcgan", "began"])
def test_generic_commands_start_from_draws(name: str, runs, distk_command, in_folder: Path) -> None:
    group = "identity" if name == "sddcgan" else "z"
    for line in (
        ("sample", "--n", 4),
        ("traverse", "--span=-1:1", "--columns", 3, "--no-gif"),
        ("interpolate", "--pairs", 2, "--steps", 3),
        ("swap", "--group", group, "--pairs", 2),
    ):
        code, _, err = distk_command(line[0], runs[name], *line[1:], "-o", "p.png")
        assert code == 0, err
    for line in (("swap", "--a", 1, "--b", 2), ("interpolate", "--a", 1, "--b", 2), ("traverse", "--row", 3)):
        code, _, err = distk_command(line[0], runs[name], *line[1:], "-o", "p.png")
        said = " ".join(err.split())
        assert code == 2
        assert f"of the data, and method '{name}' has no encoder that gives its code: codes are drawn by --seed" in said
        code, _, err = distk_command(line[0], runs[name], *line[1:], "--start", "prior", "-o", "p.png")
        assert code == 2
        assert "--start prior draws codes by --seed: leave one of the two out" in " ".join(err.split())
        assert distk_command(line[0], runs[name], *line[1:], "--start", "data")[0] == 2
    code, _, err = distk_command("reconstruct", runs[name])
    assert code == 2
    assert ("distk sdgan invert" in err) == (name == "sddcgan")


def test_only_the_group_that_is_named_moves_between_two_draws(runs, distk_command, in_folder: Path) -> None:
    model, _ = checkpoint.load(runs["sddcgan"] / "checkpoint.safetensors")
    ends = model.prior(2, torch.Generator().manual_seed(0))
    share = torch.linspace(0, 1, 3)[:, None]
    for group in ("identity", "observation"):
        line = ("interpolate", runs["sddcgan"], "--group", group, "--pairs", 1, "--steps", 3, "-o", "p.png", "--json")
        code, out, err = distk_command(*line)
        assert code == 0, err
        assert json.loads(out)["start"] == "prior"
        way = {
            name: (torch.lerp(v[:1], v[1:], share) if name == group else v[:1].expand(3, -1))
            for name, v in ends.items()
        }
        with torch.no_grad():
            expected, made = model.decode(way), strips(model, ends, 3, group)[0]
        # Three steps have hardly taught it to draw anything: what moves is far below a shade of grey.
        assert torch.allclose(made, expected, atol=1e-7)
        assert float((made[0] - made[-1]).abs().amax()) > 1e-5
        assert np.abs(pixels("p.png").astype(int) - drawn(expected, 3)).max() <= 1
    code, _, err = distk_command("interpolate", runs["sddcgan"], "--group", "identiti", "-o", "p.png")
    assert code == 2
    assert "Did you mean 'identity'" in err


@pytest.mark.parametrize("command", ["grid", "interpolate", "invert"])
def test_a_model_without_identities_is_refused(command: str, runs, distk_command) -> None:
    code, _, err = distk_command("sdgan", command, runs["dcgan"])
    assert code == 2
    assert "train sddcgan" in " ".join(err.split())


def test_files_that_are_no_codes_are_refused(runs, distk_command, in_folder: Path) -> None:
    good = {"identity": torch.zeros(2, 3), "observation": torch.zeros(2, 2)}
    Path("text.safetensors").write_text("no codes")
    for name, tensors in {
        "wide": {**good, "identity": torch.zeros(2, 4)},
        "less": {"identity": torch.zeros(2, 3)},
        "nan": {**good, "observation": torch.full((2, 2), float("nan"))},
        "whole": {**good, "observation": torch.zeros(2, 2, dtype=torch.long)},
        "one": {"identity": torch.zeros(1, 3), "observation": torch.zeros(1, 2)},
    }.items():
        save_file(tensors, f"{name}.safetensors")
    for name in ("text", "wide", "less", "nan", "whole", "one", "missing"):
        code, _, err = distk_command("sdgan", "interpolate", runs["sddcgan"], "--corners", f"{name}.safetensors")
        assert code == (1 if name == "text" else 2), err
        assert f"{name}.safetensors" in err
        assert "Traceback" not in err


def test_a_verifier_is_not_trained_for_a_folder(distk_command, in_folder: Path) -> None:
    Path("there").mkdir()
    code, _, err = distk_command("sdgan", "verifier-train", "--size", 16, "--out", "there")
    assert code == 2
    assert "is a folder" in err


def test_pictures_that_are_none_are_refused(runs, distk_command, in_folder: Path) -> None:
    Path("empty").mkdir()
    Path("broken.png").write_bytes(b"\x89PNG broken")
    for name, exit_code in (("empty", 2), ("missing.png", 2), ("broken.png", 1)):
        code, _, err = distk_command("sdgan", "invert", runs["sddcgan"], "--images", name)
        assert code == exit_code
        assert name in err
    code, _, err = distk_command("sdgan", "invert", runs["sddcgan"], "--images", "broken.png", "--data", "idfaces")
    assert code == 2
    assert "not both" in err


def test_training_refuses_what_cannot_be_paired(distk_command, in_folder: Path) -> None:
    for arguments, message in (
        (("--data", "blobs"), "no labels"),
        (("--data", "idfaces", "--size", 16, "--observations", 2, "--tuple-k", 3), "fewer than 3 images"),
        (("--identity", 0), "identity"),
    ):
        code, _, err = distk_command("train", "sddcgan", *arguments, "--steps", 1, "--out", "run")
        assert code == 2, err
        assert message in " ".join(err.split())
        assert not Path("run").exists()


@pytest.mark.parametrize("name", ["verification", "leakage"])
def test_scores_of_a_run(name: str, runs, distk_command) -> None:
    settings = {
        "verification": ("pairs=40", "verifier-steps=2", "verifier-width=4"),
        "leakage": ("identities=3", "observations=3", "regressor-steps=2", "regressor-width=4"),
    }[name]
    given = [word for setting in settings for word in ("--set", setting)]
    code, out, err = distk_command("eval", runs["sdbegan"], "--metric", name, *given, "--json")
    assert code == 0, err
    assert "error" not in json.loads(out)["metrics"][name]
    code, out, err = distk_command("eval", runs["began"], "--metric", name, *given, "--json")
    assert ("error" in json.loads(out)["metrics"][name]) == (name == "leakage")
    assert code == (1 if name == "leakage" else 0)


def test_folders_of_one_name_are_subjects_of_their_own(runs, in_folder: Path) -> None:
    for folder in ("left/ann", "right/ann", "pictures"):
        Path(folder).mkdir(parents=True)
        Image.new("RGB", (16, 16), (90, 90, 90)).save(Path(folder) / "0.png")
    Image.new("RGB", (16, 16), (90, 90, 90)).save("single.png")
    model, _ = checkpoint.load(runs["sddcgan"] / "checkpoint.safetensors")
    paths = [Path(p) for p in ("left/ann", "right/ann", "single.png", "pictures")]
    _, owner, names = read_subjects(paths, model)  # type: ignore[arg-type]
    assert owner.tolist() == [0, 1, 2, 3]
    assert names[:3] == ["left/ann", "right/ann", "pictures"]
