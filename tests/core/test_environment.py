"""Odd machines: full disks behind stdout and stderr, names that are no UTF-8, a working folder that is gone."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

import pytest
import torch

import distk
from distk import checkpoint, console

SMALL = ("--z", 2, "--hidden", 8, "--warmup", 0, "--size", 32, "--scales", 5, "--orientations", 1, "--positions", 6)
TRAIN = ("train", "cascadevae", *SMALL, "--batch", 4, "--device", "cpu", "--steps", 2)


@pytest.fixture
def full(monkeypatch):
    """`full("stdout")`: a disk without room behind it."""
    opened = []

    def put(name: str) -> None:
        opened.append(open("/dev/full", "w"))  # noqa: SIM115
        monkeypatch.setattr(sys, name, opened[-1])

    yield put
    for file in opened:
        with contextlib.suppress(OSError):
            file.close()


def test_words_that_cannot_be_written_end_no_run(full, distk_command) -> None:
    full("stderr")
    code, out, _ = distk_command(*TRAIN, "--out", "r")
    assert code == 0
    assert "step 2" in out
    assert checkpoint.read_header(Path("r/checkpoint.safetensors")).step == 2


@pytest.mark.parametrize("more", [(), ("--json",)])
def test_results_that_cannot_be_printed_are_a_sentence(full, distk_command, more) -> None:
    full("stdout")
    code, _, said = distk_command("list", "methods", *more)
    assert code == 1
    assert "the results cannot be printed: No space left on device." in said
    assert "unexpected" not in said


def test_text_goes_to_a_terminal_that_knows_ascii_only(monkeypatch, in_folder) -> None:
    import json

    with open("out", "w", encoding="ascii") as file:
        monkeypatch.setattr(sys, "stdout", file)
        console.say("é")
        console.emit_json({"é": "\U0001f600"})
    lines = Path("out").read_text("ascii").split("\n", 1)
    assert lines[0] == "?"
    assert json.loads(lines[1]) == {"é": "\U0001f600"}


def test_names_that_are_no_utf8_are_refused_before_anything_is_made(distk_command) -> None:
    name = os.fsdecode(b"o-\xff\xfe\x1b[31m")
    code, _, said = distk_command(*TRAIN, "--out", name)
    assert code == 2
    assert "is no UTF-8: rename it" in said
    assert "\x1b" not in said
    assert list(Path().iterdir()) == []
    os.mkdir(name)
    code, _, said = distk_command("train", "betavae", "--data", "folder", "--data-dir", name, "--out", "r")
    assert code == 2
    assert "is no UTF-8: rename it" in said
    assert not Path("r").exists()
    assert distk_command(*TRAIN, "--out", "r")[0] == 0
    os.rename("r/checkpoint.safetensors", os.path.join(name, "checkpoint.safetensors"))
    for command in ("info", "resume", "traverse"):
        code, _, said = distk_command(command, name)
        assert code == 2, said
        assert "is no UTF-8: rename it" in said


def test_a_working_folder_that_is_gone_is_said_so(distk_command) -> None:
    here = Path.cwd()
    (here / "gone").mkdir()
    os.chdir(here / "gone")
    (here / "gone").rmdir()
    try:
        code, _, said = distk_command("list", "methods")
    finally:
        os.chdir(here)
    assert code == 1
    assert "the working folder was removed" in said


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_refused_by_every_command(distk_command, value) -> None:
    assert distk_command(*TRAIN, "--out", "r")[0] == 0
    path = Path("r/checkpoint.safetensors")
    model, header = distk.load(path, device="cpu"), checkpoint.read_header(path)
    with torch.no_grad():
        next(model.parameters()).view(-1)[0] = value
    checkpoint.save(path, model, header, checkpoint.load_training(path))
    others = ("traverse", "reconstruct", "sample", "swap", "interpolate", "embed", "eval", "resume", "tuning", "covmap")
    for command in others:
        more = {"eval": ("--metric", "mig"), "resume": ("--steps", 99)}.get(command, ())
        code, out, said = distk_command(command, "r", *more)
        assert code == 1, command
        assert "the weights of 'r/checkpoint.safetensors' are not finite (parameter '" in said, command
        assert out == ""
    assert distk_command("info", "r")[0] == 0
