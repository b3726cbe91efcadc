"""`distk betavae capacity` and the generic commands on models of this family, in the program itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

import distk
from distk.plugins.vae_family.betavae.commands import opened_at
from distk.sheet import bare

SPRITES = {"data": "dsprites", "size": 32, "scales": [1, 5], "orientations": 4, "positions": 5}
QUICK = {"device": "cpu", "quiet": True, "steps": 12, "batch": 16, "log_every": 2, "arch": "mlp"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run of a dozen steps of every method."""
    folder = tmp_path_factory.mktemp("runs")
    ramp = {"c_max": 6.0, "c_steps": 10}
    made = {
        "vae": distk.train("vae", out=folder / "vae", **QUICK, **SPRITES, z=3),
        "betavae": distk.train("betavae", out=folder / "betavae", **QUICK, data="blobs", size=32, positions=6, z=3),
        "annealedvae": distk.train("annealedvae", out=folder / "annealedvae", **QUICK, **SPRITES, **ramp, z=3),
        "one": distk.train("annealedvae", out=folder / "one", **QUICK, **SPRITES, **ramp, z=1),
        "factorgen": distk.train("factorgen", out=folder / "factorgen", **QUICK, **SPRITES, **ramp, marks=[2.0, 5.0]),
        "betatcvae": distk.train("betatcvae", out=folder / "tc", **QUICK, **{**SPRITES, "data": "dsprites-color"}, z=3),
    }
    return {name: run.path for name, run in made.items()}


def size(path: Path | str) -> tuple[int, int]:
    with Image.open(path) as image:
        image.load()
        return image.size


# capacity


def test_capacity_of_the_generator(runs, distk_command) -> None:
    code, out, _ = distk_command(
        "betavae", "capacity", runs["factorgen"], "--out", "fig3.png", "--csv", "kl.csv", "--json"
    )
    assert code == 0
    found = json.loads(out)
    assert [Path(f).name for f in found["files"]] == ["fig3.png", "fig3.reconstructions.png", "kl.csv"]
    assert sorted(found["order"]) == sorted(["shape", "scale", "orientation", "posX", "posY"])
    lines = Path("kl.csv").read_text().splitlines()
    assert lines[0] == "step,capacity,reconstruction,shape,scale,orientation,posX,posY"
    log = [json.loads(line) for line in (runs["factorgen"] / "log.jsonl").read_text().splitlines()]
    assert len(lines) - 1 == len(log) == 6
    for line, row in zip(lines[1:], log, strict=True):
        expected = [row["step"], row["capacity"], row["reconstruction"], *(row[f"kl/{i}"] for i in range(1, 6))]
        assert [float(v) for v in line.split(",")] == pytest.approx(expected, rel=1e-5)
    # Three rows of ten images: the images, and the reconstructions at both marks.
    assert size("fig3.png")[0] > 700
    assert bare(Path("fig3.reconstructions.png")).height == 3 * (64 + 2) + 2
    code, out, _ = distk_command("betavae", "capacity", runs["factorgen"])
    assert code == 0
    assert "posX" in out
    assert (runs["factorgen"] / "capacity.png").exists()


@pytest.mark.parametrize(("run", "latents"), [("annealedvae", ["z1", "z2", "z3"]), ("one", ["z1"])])
def test_capacity_of_a_vae(runs, distk_command, run, latents) -> None:
    code, out, _ = distk_command("betavae", "capacity", runs[run], "--json", "--out", "c.png")
    assert code == 0
    assert sorted(json.loads(out)["kl"]) == latents


def test_capacity_of_other_runs_is_refused(runs, distk_command, tmp_path) -> None:
    code, _, err = distk_command("betavae", "capacity", runs["betavae"])
    assert code == 2
    assert "no log of a growing capacity" in err
    alone = tmp_path / "alone.safetensors"
    alone.write_bytes((runs["factorgen"] / "checkpoint.safetensors").read_bytes())
    assert "no log of a growing capacity" in distk_command("betavae", "capacity", alone)[2]
    code, _, err = distk_command("betavae", "capacity", runs["factorgen"], "--csv", "nowhere/kl.csv")
    assert code == 2
    assert "nowhere" in err


def test_a_log_of_nonsense_is_passed_over(runs, distk_command, tmp_path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "checkpoint.safetensors").write_bytes((runs["one"] / "checkpoint.safetensors").read_bytes())
    lines = ['{"step": 2, "capacity": "x"}', '{"step": 4}', "[]", '{"step": 1e400}']
    (folder / "log.jsonl").write_text("\n".join(lines))
    assert distk_command("betavae", "capacity", folder)[0] == 2


def test_open_means_open_to_the_end() -> None:
    rows = [
        {"capacity": float(c), "a": a, "b": b, "c": 0.0} for c, a, b in ((1, 0.5, 0.3), (2, 0.6, 0.05), (3, 1, 0.4))
    ]
    assert opened_at(rows, ["a", "b", "c"], 0.1) == {"a": 1.0, "b": 3.0, "c": None}


# Generic commands


@pytest.mark.parametrize("run", ["vae", "betavae", "annealedvae", "betatcvae"])
def test_generic_commands(runs, distk_command, run) -> None:
    for line in (["sample", runs[run], "-n", 4], ["reconstruct", runs[run], "-n", 3]):
        code, out, err = distk_command(*line, "--out", "p.png", "--json")
        assert code == 0, err
        assert size(json.loads(out)["files"][0])[0] > 50
    code, out, err = distk_command("traverse", runs[run], "--no-gif", "--span=-3:3", "--out", "t.png", "--json")
    assert code == 0, err
    nats = [float(row.split()[-1]) for row in json.loads(out)["rows"]]
    assert nats == sorted(nats, reverse=True)
    code, out, err = distk_command("eval", runs[run], "-m", "vae-bound", "-m", "factorvae", "--rows", 300, "--json")
    assert code == 0, err
    found = json.loads(out)["metrics"]
    assert found["vae-bound"]["elbo"] < 0
    assert 0 <= found["factorvae"]["score"] <= 1 if "score" in found["factorvae"] else found["factorvae"]


def test_generic_commands_of_the_generator(runs, distk_command) -> None:
    code, _, _ = distk_command("sample", runs["factorgen"], "-n", 4, "--out", "s.png")
    assert code == 0
    assert size("s.png")[0] > 50
    for name in ("traverse", "reconstruct"):
        code, _, err = distk_command(name, runs["factorgen"])
        assert code == 2
        assert "use `distk betavae capacity`" in err


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (["betavae", "--beta", "-1"], "--beta: -1.0 is below the smallest allowed value 0"),
        (["annealedvae", "--c-min", "5", "--c-max", "4"], "c-max must be >= c-min 5 (got 4)"),
        (["factorgen", "--data", "digits"], "factorgen needs a data set with factors"),
        (["betatcvae", "--data", "blobs", "--batch", "1", "--steps", "1"], "use --batch 2"),
    ],
)
def test_wrong_training(distk_command, line, message) -> None:
    code, _, err = distk_command("train", *line, "--device", "cpu")
    assert code == 2
    assert message in " ".join(err.split())
