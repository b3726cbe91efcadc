"""What a first hour with the program met: each message says what to do, and nothing is done before it is clear."""

from __future__ import annotations

import json
import re
import statistics
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from distk import console

TINY = ("train", "betavae", "--data", "blobs", "--steps", 1, "--batch", 4, "--device", "cpu")


@pytest.fixture
def two(distk_command):
    code, out, err = distk_command(*TINY, "--seeds", "0:2", "--out", "runs/two")
    assert code == 0, err
    return out


def test_the_terms_of_a_few_seeds_stand_beside_each_other(two, distk_command) -> None:
    lines = [line.split() for line in two.splitlines()]
    assert ["term", "seed", "0", "seed", "1"] in lines
    loss = next(line for line in lines if line[:1] == ["loss"])
    assert len(loss) == 3
    assert max(len(line) for line in two.splitlines()) <= 80
    assert [line[1:] for line in lines if line[:1] == ["run"]] == [["runs/two/s0"], ["runs/two/s1"]]


def test_of_many_seeds_the_spread_is_shown(distk_command) -> None:
    code, out, _ = distk_command(*TINY, "--seeds", "0:6", "--out", "more")
    assert code == 0
    assert out.count("run  more/s") == 6
    row = next(line.split() for line in out.splitlines() if line.startswith("loss"))
    losses = [json.loads(Path(f"more/s{i}/log.jsonl").read_text().splitlines()[-1])["loss"] for i in range(6)]
    told = [float(value.replace(",", "")) for value in row[1:]]
    wanted = [statistics.fmean(losses), statistics.stdev(losses), min(losses), max(losses)]
    assert told == pytest.approx(wanted, rel=5e-3), "four digits are printed"


def test_a_folder_of_runs_stands_for_its_runs_in_udr(two, distk_command) -> None:
    code, out, err = distk_command("udr", "runs/two", "--n", 50, "--json")
    assert code == 0, err
    named = distk_command("udr", "runs/two/s0", "runs/two/s1", "--n", 50, "--json")[1]
    assert json.loads(out) == json.loads(named)


def test_a_folder_of_runs_where_one_is_asked_for(two, distk_command) -> None:
    code, _, err = distk_command("traverse", "runs/two")
    assert code == 1
    told = " ".join(err.split())
    assert "folder 'runs/two' holds no checkpoint.safetensors, but 2 of its folders do: name one, such as" in told


def test_a_misspelt_run_is_told_the_near_one(two, distk_command) -> None:
    code, _, err = distk_command("info", "runs/tow")
    assert code == 1
    assert "checkpoint 'runs/tow' does not exist. Did you mean 'runs/two'?" in " ".join(err.split())


def test_a_taken_folder_is_refused_before_the_data_are_read(distk_command, in_folder) -> None:
    (in_folder / "mine").mkdir()
    for i in range(4):
        Image.fromarray(np.full((9, 7), 20 * i, np.uint8)).save(in_folder / "mine" / f"{i}.png")
    words = ("train", "betavae", "--data", "folder", "--data-dir", "mine", "--steps", 1, "--batch", 2, "--out", "run")
    code, _, err = distk_command(*words)
    assert code == 0
    assert "4 pictures cut" in err
    code, _, err = distk_command(*words)
    assert code == 2
    assert err.startswith("error: 'run' already holds a run")


def test_a_missing_folder_of_out_is_refused_before_the_model_is_read(two, distk_command) -> None:
    for command in ("traverse", "reconstruct", "sample", "embed", "covmap", "interpolate"):
        code, _, err = distk_command(command, "runs/two/s0", "--out", "nowhere/x.png")
        assert code == 2
        assert err.startswith("error: --out 'nowhere/x.png': the folder 'nowhere' does not exist."), command


def test_names_among_many_are_not_all_listed(distk_command) -> None:
    for words in (("check", "nothing"), ("study", "show", "discret"), ("eval", "--metric", "qqq"), ("data", "qqq")):
        code, _, err = distk_command(*words)
        assert code == 2
        assert len(err) < 300, err


def test_one_choice_of_several_is_refused_in_our_words(distk_command) -> None:
    code, _, err = distk_command("export", "run", "--format", "onx")
    assert code == 2
    assert "--format: 'onx' is none of 'onnx', 'torchscript', 'torch.export'." in " ".join(err.split())


def test_scores_that_do_not_fit_are_named_instead_of_folded(two, distk_command, monkeypatch) -> None:
    monkeypatch.setattr(console.out, "width", 80)
    metrics = ("active-units", "reconstruction", "elbo", "unsupervised")
    words = [word for name in metrics for word in ("-m", name)]
    for seed in (0, 1):
        assert distk_command("eval", f"runs/two/s{seed}", *words, "--rows", 40, "--no-plots")[0] == 0
    code, out, err = distk_command("runs")
    assert code == 0
    head, *rows = out.strip().splitlines()
    assert len(rows) == 2, "a line each"
    assert max(map(len, (head, *rows))) <= 80
    assert "active-units.active_units" in head
    left = re.search(r"^(.*): too wide for this terminal; --columns names what to show", err, re.MULTILINE)
    assert left is not None
    assert not set(left[1].split(", ")) & set(head.split())
    monkeypatch.setattr(console.out, "width", 300)
    code, out, err = distk_command("runs")
    assert set(left[1].split(", ")) <= set(out.split())
    assert "too wide" not in err


def test_csv_is_printed(distk_command) -> None:
    code, _, err = distk_command("runs", "r.csv", "--csv")
    assert code == 2
    assert "--csv prints: write distk runs --csv > r.csv to have it in a file." in " ".join(err.split())


def test_a_run_is_taken_up_for_some_time(distk_command) -> None:
    """What `train` calls --max-time, `resume` does, too."""
    long = ("train", "betavae", "--data", "blobs", "--batch", 4, "--device", "cpu", "--steps", 10**6, "--out", "run")
    code, _, err = distk_command(*long, "--max-time", "1s")
    assert code == 0, err
    steps = [json.loads(distk_command("info", "run", "--json")[1])["step"]]
    code, _, err = distk_command("resume", "run", "--max-time", "1s")
    assert code == 0, err
    steps.append(json.loads(distk_command("info", "run", "--json")[1])["step"])
    assert 0 < steps[0] < steps[1] < 10**6
    code, _, err = distk_command("resume", "run", "--max-time", "tomorrow")
    assert code == 2
    assert "'tomorrow' is not understood" in " ".join(err.split())


def test_an_eval_of_which_nothing_came_writes_no_file(distk_command) -> None:
    small = ("--data", "deadleaves", "--train", 64, "--test", 8)
    assert distk_command("train", "betavae", *small, *TINY[4:], "--out", "r")[0] == 0
    code, _, err = distk_command("eval", "r", "-m", "mig")
    assert code == 1
    assert "mig: data set 'deadleaves' has no ground-truth factors." in err
    assert not list(Path("r").glob("*.eval.*"))
    assert distk_command("eval", "r", "-m", "mig", "-m", "vae-bound")[0] == 0
    assert Path("r/checkpoint.eval.json").exists()
