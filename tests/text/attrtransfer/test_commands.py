"""`distk attrtransfer attention`, rewriting and what is asked of sentences, through the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import distk

SMALL = {"embedding": 8, "hidden": 8, "filters": 4, "data_sentences": 400, "data_held_out": 60, "batch": 16}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("attr")
    made = distk.train(
        "attrtransfer",
        data="standin-reviews:tiny",
        steps=4,
        warmup=2,
        device="cpu",
        quiet=True,
        out=folder / "r",
        **SMALL,
    )
    return made.path


def test_attention_is_a_table_of_what_was_written_over_what_was_read(
    run: Path, distk_command: Any, tmp_path: Path
) -> None:
    line = ["attrtransfer", "attention", run, "--sentence", "the phone was great .", "--to", "neg"]
    code, out, err = distk_command(*line, "--out", tmp_path / "a.json", "--json")
    assert code == 0, err
    told = json.loads(out)
    assert told == {**json.loads((tmp_path / "a.json").read_text()), "files": [str(tmp_path / "a.json")]}
    assert told["source"] == ["the", "phone", "was", "great", "."]
    assert told["nouns"][1]
    assert len(told["attention"]) == len(told["output"])
    # What is not shown is the attention on <eos>.
    assert all(len(row) == 5 and 0 < sum(row) <= 1 + 1e-6 for row in told["attention"])
    rewritten = distk.load(run, device="cpu").rewrite(["the phone was great ."], 0)
    assert " ".join(told["output"]) == rewritten[0]
    code, out, err = distk_command(*line, "--out", tmp_path / "a.png")
    assert code == 0, err
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.width > 200
    assert str(tmp_path / "a.png") in out.replace("\n", "")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--sentence", " ", "--to", "negative"], "--sentence holds no word"),
        (["--sentence", "the phone", "--to", "blue"], "--to: 'blue' is not a label"),
        (["--sentence", "the phone", "--to", "0", "--from", "2"], "--from: '2' is not a label"),
    ],
)
def test_wrong_requests(run: Path, distk_command: Any, words: list[str], message: str) -> None:
    code, _, err = distk_command("attrtransfer", "attention", run, *words)
    assert code == 2
    assert message in " ".join(err.split())


def test_lines_keep_their_places(run: Path, distk_command: Any, tmp_path: Path) -> None:
    """Empty lines, a sentence of 10,000 words, unknown words: one line for one line."""
    lines = ["the phone was great .", "", "word " * 10_000, "zzz qqq", "i hate my battery ."]
    (tmp_path / "in.txt").write_text("\n".join(lines) + "\n")
    code, _, err = distk_command(
        "transfer", run, "--input", tmp_path / "in.txt", "--out", tmp_path / "o.txt", "--to", "1"
    )
    assert code == 0, err
    made = (tmp_path / "o.txt").read_text().split("\n")
    assert len(made) == 6
    assert made[1] == ""
    assert "cut after" in " ".join(err.split())
    assert "without any word that the model knows" in " ".join(err.split())
