"""`distk udr`: the ranking of models without labels, and what it refuses."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import numpy as np
import pytest
import torch

import distk as library
from distk import encode_table
from distk.errors import DistkError
from distk.plugins.metrics import functional as fn

TINY = {"z": 2, "hidden": 8, "size": 32, "scales": (5,), "orientations": 2, "positions": 6, "batch": 8, "steps": 2}


@functools.cache
def command():
    from distk.cli import build

    return build()


@pytest.fixture
def udr(capsys):
    """Runs `distk udr` here: (exit code, stdout, stderr with the error's sentence)."""

    def run(*arguments) -> tuple[int, str, str]:
        code, sentence, before = 0, "", capsys.readouterr().out
        try:
            command().main(args=["udr", *map(str, arguments)], prog_name="distk")
        except SystemExit as stop:
            code = int(stop.code or 0)
        except DistkError as error:
            code, sentence = error.exit_code, str(error)
        said = capsys.readouterr()
        print(before, end="")  # the seed of this test, should it fail
        return code, said.out, said.err + sentence

    return run


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> list[Path]:
    """Three seeds of cascadevae after two steps, and one of cascadevae-c."""
    root = tmp_path_factory.mktemp("runs")
    made = [
        library.train("cascadevae", out=root / f"s{seed}", quiet=True, device="cpu", seed=seed, **TINY).path
        for seed in range(3)
    ]
    return [*made, library.train("cascadevae-c", out=root / "c", quiet=True, device="cpu", **TINY).path]


@pytest.mark.parametrize("matrix", ["lasso", "spearman"])
def test_it_is_the_array_function_on_the_same_images(udr, runs, tmp_path, matrix) -> None:
    code, out, err = udr(
        *runs[:3], "--matrix", matrix, "-n", 100, "--seed", 3, "--threshold", 0, "--json", "--out", tmp_path / "u.json"
    )
    assert code == 0, err
    said = json.loads(out)
    tables = []
    for path in runs[:3]:
        model = library.load(path, device="cpu")
        tables.append(encode_table(model, model.dataset(), rows=100, seed=3))
    assert all(torch.equal(t.rows, tables[0].rows) for t in tables)
    expected = fn.udr([t.codes[:, :2] for t in tables], [t.kl[:2] for t in tables], matrix, kl_threshold=0)
    by_run = {row["run"]: row for row in said["ranking"]}
    for i, path in enumerate(runs[:3]):
        row = by_run[str(path / "checkpoint.safetensors")]
        assert row["score"] == pytest.approx(expected["model_scores"][i], abs=1e-9)
        assert (row["seed"], row["informative_codes"]) == (i, 2)
    scores = [row["score"] for row in said["ranking"]]
    assert scores == sorted(scores, reverse=True)
    assert [row["rank"] for row in said["ranking"]] == [1, 2, 3]
    assert said["pairwise"][1][1] is None
    assert said["images"] == 100
    assert "at least 5 others" in said["reasons"]["models"]
    assert json.loads((tmp_path / "u.json").read_text()) == said


def test_files_of_codes_rank_models_that_agree_first(udr, in_folder, generator) -> None:
    truth = torch.randn(500, 3, generator=generator)
    turn = torch.linalg.qr(torch.randn(3, 3, generator=generator))[0]
    tables = {"a": truth, "b": -truth[:, [2, 0, 1]], "c": 0.1 * truth[:, [1, 2, 0]], "turned": truth @ turn}
    for name, codes in tables.items():
        dead = np.concatenate([codes.numpy(), 1e-3 * np.ones((500, 1))], 1)
        np.savez(f"{name}.npz", codes=dead, kl=[1.0, 1.0, 1.0, 0.0])
    files = [f"{name}.npz" for name in tables]
    code, out, _ = udr(*files, "--json")
    assert code == 0
    said = json.loads(out)
    assert said["ranking"][-1]["run"] == "turned.npz"
    assert all(row["score"] > 0.85 for row in said["ranking"][:3])
    assert said["ranking"][-1]["score"] < 0.8
    assert all(row["informative_codes"] == 3 for row in said["ranking"])
    code, out, err = udr(*files, "--matrix", "spearman")
    assert out.split()[:4] == ["rank", "run", "udr", "informative"]
    assert "the paper compares each" in err


def test_what_it_refuses(udr, runs, in_folder, generator) -> None:
    one = runs[0]
    code, _, err = udr(one)
    assert code == 2
    assert "at least two runs" in err
    code, _, err = udr(one, one / "checkpoint.safetensors")
    assert code == 2
    assert "are one checkpoint" in err
    code, _, err = udr(one, runs[3])
    assert code == 2
    assert "of method 'cascadevae'" in err
    code, _, err = udr(one, runs[1], "--matrix", "pearson")
    assert (code, "'pearson' is not one of 'lasso', 'spearman'" in " ".join(err.replace("│", " ").split())) == (2, True)
    np.savez("a.npz", codes=torch.randn(40, 2, generator=generator).numpy())
    np.savez("b.npz", codes=torch.randn(41, 2, generator=generator).numpy(), kl=[1, 1])
    np.savez("c.npz", codes=torch.randn(40, 2, generator=generator).numpy(), kl=[1, 1])
    assert "not both" in udr(one, "a.npz")[2]
    assert "has no KL to a prior" in udr("a.npz", "c.npz")[2]
    assert "different numbers of items: [40, 41]" in udr("b.npz", "c.npz")[2]


def test_other_data_is_refused_and_other_settings_are_warned_of(udr, runs, tmp_path) -> None:
    wide = library.train(
        "cascadevae", out=tmp_path / "w", quiet=True, device="cpu", seed=0, **{**TINY, "positions": 5}
    ).path
    code, _, err = udr(runs[0], wide)
    assert code == 2
    assert "positions 5" in err
    assert "name them with --data" in err
    beta = library.train("cascadevae", out=tmp_path / "b", quiet=True, device="cpu", seed=0, beta_h=3.0, **TINY).path
    code, _, err = udr(runs[0], beta, "-n", 50, "--json")
    assert code == 0
    assert "differs from" in err
    assert "beta_h" in err
    assert "seeds of these runs are 0, 0" in err
