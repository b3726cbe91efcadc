"""The commands for sentences as a user runs them: real processes, real files."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import distk


def distk_command(*arguments: str, cwd: Path, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """`distk ...` in a process of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    program = [sys.executable, "-c", "from distk.cli import main; main()"]
    return subprocess.run(
        [*program, *arguments], cwd=cwd, input=stdin, capture_output=True, env=environment, timeout=300
    )


def in_process(*arguments: str, cwd: Path, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """The same through main() in this process, which spares the imports."""
    from distk.cli import main

    streams = [io.TextIOWrapper(io.BytesIO(raw), encoding="utf-8", newline="") for raw in (stdin, b"", b"")]
    before, code = (sys.stdin, sys.argv, Path.cwd()), 0
    os.chdir(cwd)
    sys.stdin, sys.argv = streams[0], ["distk", *arguments]
    try:
        with contextlib.redirect_stdout(streams[1]), contextlib.redirect_stderr(streams[2]):
            main()
    except SystemExit as stop:
        code = int(stop.code or 0)
    finally:
        sys.stdin, sys.argv = before[0], before[1]
        os.chdir(before[2])
    for stream in streams[1:]:
        stream.flush()
    out, err = (stream.buffer.getvalue() for stream in streams[1:])  # type: ignore[attr-defined]
    return subprocess.CompletedProcess(arguments, code, out, err)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a trained run `runs/a`."""
    place = tmp_path_factory.mktemp("cli")
    distk.train(
        "arae", data="standin-reviews:tiny", out=place / "runs" / "a", quiet=True, steps=30, device="cpu", batch=16,
        embedding=12, hidden=10, z=6, data_sentences=300, data_held_out=60,
    )  # fmt: skip
    return place


def test_a_sentence_and_files(folder: Path) -> None:
    one = distk_command("transfer", "the phone was great .", "--to", "neg", cwd=folder)  # the newest run
    assert one.returncode == 0, one.stderr
    assert one.stdout.count(b"\n") == 1
    assert b"runs/a" in one.stderr
    (folder / "in.txt").write_bytes("the phone was great .\r\n\nnel\u0085here\nlast".encode())
    told = distk_command("transfer", "runs/a", "--input", "in.txt", "--output", "out.txt", "--to", "1", cwd=folder)
    assert told.returncode == 0, told.stderr
    lines = (folder / "out.txt").read_bytes().split(b"\n")
    assert len(lines) == 5  # four lines, each ended
    assert lines[1] == b""
    piped = distk_command(
        "transfer", "runs/a", "--to", "1", "--batch", "1", cwd=folder, stdin=(folder / "in.txt").read_bytes()
    )
    assert piped.stdout == (folder / "out.txt").read_bytes()


def test_flip_by_labels_by_pair_and_by_the_model(folder: Path) -> None:
    (folder / "p.0").write_text("the phone was bad .\nthey hate this movie .\n")
    (folder / "p.1").write_text("the phone was great .\n")
    pair = in_process("transfer", "runs/a", "--input", "p", "--output", "q", "--to", "flip", cwd=folder)
    assert pair.returncode == 0, pair.stderr
    assert [(folder / f"q.{k}").read_text().count("\n") for k in (0, 1)] == [2, 1]
    (folder / "all").write_text((folder / "p.0").read_text() + (folder / "p.1").read_text())
    (folder / "labels").write_text("negative\n0\npos\n")
    given = in_process(
        "transfer", "runs/a", "--input", "all", "--labels", "labels", "--to", "flip", "--json", cwd=folder
    )
    found = json.loads(given.stdout)
    assert [row["output"] for row in found] == [
        *(folder / "q.0").read_text().splitlines(),
        *(folder / "q.1").read_text().splitlines(),
    ]
    assert [(row["from"], row["to"]) for row in found] == [("negative", "positive")] * 2 + [("positive", "negative")]
    read = in_process("transfer", "runs/a", "they love this movie .", "--to", "flip", "--json", cwd=folder)
    assert b"read by the model" in read.stderr
    assert json.loads(read.stdout)[0]["from"] in ("negative", "positive")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["runs/a", "x", "--to", "blue"], 2, b"'blue' is not a label; there are negative (0), positive (1)"),
        (["runs/a", "x"], 2, b"--to negative or --to positive"),
        (["runs/a", "--input", "missing", "--to", "1"], 1, b"cannot read 'missing'"),
        (["runs/a", "--input", "latin", "--to", "1"], 1, b"line 2, byte offset 7; try --encoding latin-1"),
        (["runs/a", "--input", "latin", "--labels", "one", "--to", "flip", "--encoding", "latin-1"], 2, b"1 line"),
        (["nowhere.safetensors", "x", "--to", "1"], 1, b"does not exist"),
    ],
)
def test_wrong_requests(folder: Path, arguments: list[str], code: int, message: bytes) -> None:
    (folder / "latin").write_bytes(b"fine\nok\xe9\n")
    (folder / "one").write_text("0\n")
    told = in_process("transfer", *arguments, "--device", "cpu", cwd=folder)
    assert told.returncode == code
    assert message in told.stderr


def test_error_of_the_real_command(folder: Path) -> None:
    wrong = distk_command("transfer", "runs/a", "x", "--to", "blue", cwd=folder)
    assert wrong.returncode == 2
    assert wrong.stdout == b""
    assert b"'blue' is not a label" in wrong.stderr
    assert b"Traceback" not in wrong.stderr


def test_text_commands_end_to_end(tmp_path: Path) -> None:
    steps = [
        ["text", "make-standin", "reviews", "--set", "variant=tiny", "--set", "sentences=1000", "--set", "held-out=80",
         "--set", "label-noise=0"],
        ["text", "train-evaluator", "--data", "files", "--data-dir", "reviews", "--lm-epochs", "1", "--lm-hidden", "16",
         "--bits", "12", "-o", "eval.safetensors", "--json"],
        ["text", "score", "--source", "reviews/test.0", "--output", "reviews/gold/test.0", "--source-labels", "0",
         "--target-labels", "1", "--evaluator", "eval.safetensors", "--tagger", "builtin", "--json"],
    ]  # fmt: skip
    results = []
    for step in steps:
        done = in_process(*step, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        results.append(done.stdout)
    assert json.loads(results[1])["data"] == "files"
    scores = json.loads(results[2])
    assert scores["sentences"] == 40
    assert scores["transfer_accuracy"] > 0.8
    assert scores["copy_rate"] == 0.0
    assert scores["tagger"].startswith("builtin")
    (tmp_path / "short").write_text("one line\n")
    wrong = in_process(
        "text", "score", "--source", "reviews/test.0", "--output", "short", "--source-labels", "0",
        "--target-labels", "1", "--evaluator", "eval.safetensors", cwd=tmp_path,
    )  # fmt: skip
    assert wrong.returncode == 2
    assert b"--source has 40, --output has 1" in wrong.stderr


def test_train_tagger(tmp_path: Path) -> None:
    rows = ["1\tThe\t_\tDET\tDT", "2\tdog\t_\tNOUN\tNN", "3\tbarks\t_\tVERB\tVBZ"]
    sentence = "\n".join(row + "\t_\t0\t_\t_\t_" for row in rows) + "\n\n"
    (tmp_path / "t.conllu").write_text(sentence * 30)
    done = in_process("text", "train-tagger", "--conllu", "t.conllu", "-o", "t.safetensors", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["noun_f1_held_out"] == 1.0
    (tmp_path / "bad.conllu").write_text("1\tThe\n")
    wrong = in_process("text", "train-tagger", "--conllu", "bad.conllu", "-o", "x", cwd=tmp_path)
    assert wrong.returncode == 1
    assert b"line 1 of 'bad.conllu' has 2 columns" in wrong.stderr


def test_samples_and_interpolation(folder: Path) -> None:
    walk = in_process("text", "interpolate", "runs/a", "--steps", "4", "--json", cwd=folder)
    found = json.loads(walk.stdout)
    assert [len(found[name]) for name in ("share", "negative", "positive")] == [4, 4, 4]
    refused = in_process("traverse", "runs/a", cwd=folder)
    assert refused.returncode == 2
    assert b"distk text interpolate" in refused.stderr
    drawn = in_process("sample", "runs/a", "-n", "5", "--label", "positive", cwd=folder)
    assert drawn.returncode == 0, drawn.stderr
    assert drawn.stdout.count(b"\n") == 5
