"""Every example in the help of every command runs, as text and as JSON, with exit code 0.

A session trains one tiny run per method that an example needs, which is the example of `distk train METHOD` itself;
only numbers that would take long are made smaller.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import shlex
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from distk import cli
from distk.registry import registry

DISTK = "distk"
ORDINARY = "--batch 8 --device cpu"
TINY_EMBEDDING = (
    "--data puppets --size 30 --poses 2 --hidden 16 --k 4 --classes-per-batch 6 --samples-per-class 4 --batch 24"
)
TINY_CLIPS = "--size 16 --arch das-dandi --channels 4 --frame-dim 8 --hidden 8 --f-dim 4 --z-dim 2 --batch 4"
TINY_PAIRS = "--width 0.125 --hidden 16 --horizon 6 --secondary-size 200 --test 60 --val-per-class 10 --batch 16"
TINY_FACES = "--size 16 --identities 30 --width 4 --batch 4 --device cpu"
TINY_SHAPES = "--size 16 --clips 40 --test-clips 20 --ngf 4 --ndf 4 --halvings 2 --batch 4"
TINY_PLANE = "--hidden 16 --transition-hidden 8 --batch 8 --count 60 --second 40 --held-out 20"
TINY_TEAPOTS = "--data teapots --items 600 --poses 150 --size 16 --gap paper"
TINY_GRASPS = (
    "--objects 4 --categories cup,mug --scenes 2 --size 32 --voxels 8 --demos 2 --kept 8 --per-view 4 --units 16 "
    "--width 0.125 --local-size 8 --local-samples 6 --samples 12 --batch 2"
)
TINY: dict[str, str] = {
    **dict.fromkeys(("fstat", "triplet", "histloss", "bindev"), TINY_EMBEDDING),
    **dict.fromkeys(("jade", "jade-paired", "jade-single"), TINY_PAIRS),
    **dict.fromkeys(("mvae", "mvae-baseline"), "--size 16 --fixed 60 --test 80 --batch 4"),
    **dict.fromkeys(("sddcgan", "sdbegan", "dcgan", "began"), TINY_FACES),
    "betavae": f"--data blobs {ORDINARY}",
    "cascadevae": f"--data blobs --classes 3 {ORDINARY}",
    "dsvae": TINY_CLIPS,
    "indepvideo": "--data bouncing-squares --channels 2 --features 4 --latent-dim 2 --trans-hidden 8 --batch 4",
    "arae": "--data standin-reviews:tiny --embedding 12 --hidden 10 --z 6 --sentences 300 --held-out 60 --batch 16",
    "attrtransfer": "--data standin-reviews:tiny --embedding 8 --hidden 8 --filters 4 --sentences 300 --held-out 60 "
    "--batch 16",
    "crossaligned": "--data standin-reviews:tiny --embedding 8 --style 4 --content 8 --filters 4 --sentences 300 "
    "--held-out 60 --batch 16",
    "mmdtraverse": "--data standin-reviews:tiny --embedding 8 --filters 4 --phase1 1 --examples 10 --sentences 300 "
    "--held-out 60 --batch 16",
    "nlmultitask": "--data standin-trilingual:short --embedding 6 --hidden 8 --rep 6 --sentences 300 --batch 16",
    "icm": "--width 4 --hidden 16 --identity-iters 4 --experts 4 --batch 8",
    **dict.fromkeys(("ldf", "joint-gan"), "--clips 40 --held-out 20 --width 0.05 --top-hidden 8 --z 2 --batch 8"),
    "infogan": f"{TINY_TEAPOTS} --dim 2 --noise 2 --batch 8",
    "infogan-mnist": "--data digits28 --size 16 --margin 2 --dim 4 --hidden 16 --q-hidden 8 --batch 8",
    "pca": f"{TINY_TEAPOTS} --steps 0",
    **dict.fromkeys(("mocogan", "vgan"), TINY_SHAPES),
    **dict.fromkeys(("dyncontent", "rce"), TINY_PLANE),
    **dict.fromkeys(("grasping", "graspcnn"), TINY_GRASPS),
    "icf": "--data maze --encoder mlp --grid 5 --size 15 --batch 15 --factors 8",
    "icf-discrete": "--data maze --encoder mlp --grid 5 --size 15 --batch 15 --k 3",
}
"""Method -> settings of its smallest run, beside --steps; others take ORDINARY."""

CALLED = {
    "aae-s": "aae-s",
    "arae": "arae",
    "attrtransfer": "attrtransfer",
    "betavae": "betavae",
    "dsvae": "dsvae",
    "indepvideo": "indepvideo",
    "factorgen": "factorgen",
    "icf": "icf",
    "mmdtraverse": "mmdtraverse",
    "nlmultitask": "nlmultitask",
    "mocogan": "mocogan",
}
"""Folder below runs/ that an example names -> method of the run that lies there."""
MY_RUN = {
    "dyncontent": "dyncontent",
    "grasping": "grasping",
    "icm": "icm",
    "infogan": "infogan",
    "jade": "jade",
    "ldf": "ldf",
    "mvae": "mvae",
    "sdgan": "sddcgan",
    "embed": "fstat",
    "covmap": "covreg-linear",
    "udr": "betavae",
}
"""Command or its group -> method of runs/my-run in its examples; cascadevae for the others."""

NEEDS_FILES = {
    "arrays",
    "table",
    "cars3d",
    "celeba",
    "chairs3d",
    "cifar100",
    "dsprites-scream",
    "falcor3d",
    "hf",
    "text-table",
    "isaac3d",
    "mpi3d",
    "smallnorb",
    "aclimdb",
    "amazonft",
    "clips",
    "emnist",
    "europarl",
    "fashion-mnist",
    "files",
    "finegrained",
    "folder",
    "identity-folder",
    "imdb-sentences",
    "kmnist",
    "lpc-sprites",
    "multi30k",
    "notmnist",
    "observations",
    "parallel",
    "reid",
    "rtpolarity",
    "sentiment3",
    "svhn",
    "uci",
    "ud",
    "video-folder",
    "video-strips",
    "yahoo",
    "yelp",
}
"""Data sets that have no built-in form: their examples show the user's own files."""
NEEDS = {
    "data build-lpc": "needs the art of LPC",
    "grasping check-labels": "needs MuJoCo, which no test of every day installs",
}
"""Commands whose examples cannot run here, and why."""

SMALLER: dict[str, tuple[str, str]] = {
    "train": ("--preset demo", "--preset demo --steps 2"),
    "eval": ("runs/my-run", "runs/my-run --rows 700"),
    "check": ("cascadevae dsprites mig", "covreg-linear xor mig"),
    "dsvae judge": ("--data sprites-sim", "--data sprites-sim --steps 2 --size 16 --batch 4 --width 4"),
    "ldf judge": ("--steps 2000 --width 32", "--steps 2 --width 4"),
    "ldf race": (
        "--evals 1",
        "--evals 1 --set data.images=40 --set data.held_out=20 --option samples=20 "
        "--option judge_steps=2 --option judge_width=4 --option parts=1 --device cpu",
    ),
    "grasping make-data": (
        "--objects 14 --grasps 64 --demos 4",
        "--objects 4 --categories cup,mug --grasps 8 --demos 2",
    ),
    "icm drop": ("--unused", "--expert 1"),
    "sdgan verifier-train": ("--size 16", "--size 16 --steps 2 --width 4"),
    "study run": ("--seeds 5", "--seeds 1 --device cpu"),
    "text train-evaluator": ("-o eval", "--lm-epochs 1 --lm-hidden 8 --bits 8 -o eval"),
    "udr": ("runs/seed-0", "--n 50 runs/seed-0"),
    "data teapots": ("data teapots", "data teapots --items 64 --poses 64"),
    "data gym": ("data gym", "data gym:CartPole-v1"),
}
"""Place of a command -> a part of its examples, and what stands there instead since it would take long."""


@dataclass(frozen=True)
class Place:
    """Where a command stands, as words after `distk`."""

    words: tuple[str, ...]

    def __str__(self) -> str:
        return "-".join(self.words)


def places() -> list[Place]:
    """Every command that is registered, `data NAME` and `train METHOD`; nothing is imported for the list."""
    found = [Place((*group.split(), name)) for (group, name), command in registry().commands.items() if command.path]
    found += [Place(("data", entry.name)) for entry in registry().entries("dataset")]
    return found + [Place(("train", entry.name)) for entry in registry().entries("method")]


def examples(command: Any) -> list[str]:
    """The lines `distk ...` that the help of a command, and of commands below it, shows after "Example:"."""
    pattern = re.compile(r"Example: (distk .*?)(?=\n\s*\n|\s*Example:|\Z)", re.DOTALL)
    lines = [" ".join(line.split()) for line in pattern.findall(command.help or "")]
    for below in getattr(command, "commands", {}).values():
        lines += examples(below)
    return lines


# -------------------------------------------------------------------------------------- running a line


def called(program: Any, words: list[str]) -> tuple[int, str, str]:
    """`distk WORDS` in this process: exit code, stdout, stderr."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.setattr(sys, "argv", [DISTK, *words])
        patch.setattr(cli, "build", lambda: program)
        try:
            cli.main()
        except SystemExit as stopped:
            code = int(stopped.code or 0)
    return code, out.getvalue(), err.getvalue()


def tiny(method: str) -> str:
    """Settings of the smallest run of a method."""
    return TINY.get(method, ORDINARY)


class Runs:
    """The tiny runs of this session, each trained when the first example asks for it."""

    def __init__(self, program: Any, folder: Path) -> None:
        self.program, self.folder = program, folder
        self.told: dict[str, tuple[int, str, str]] = {}

    def of(self, method: str) -> Path:
        """The run folder of a method."""
        path = self.folder / method
        if method not in self.told:
            line = f"train {method} --steps 2 --log-every 1 {tiny(method)} --seed 1 --out {path}"
            self.told[method] = called(self.program, line.split())
        code, out, err = self.told[method]
        assert code == 0, out + err
        return path

    def after(self, place: str) -> Path:
        """The working folder of a command's first example after it ran; `told` holds what it printed."""
        folder = self.folder / f"after {place}"
        if place not in self.told:
            folder.mkdir()
            with contextlib.chdir(folder):
                line = lines_of(self.program, place.split())[0]
                self.told[place] = run(line, place, self)
        return folder


@pytest.fixture(scope="session")
def runs(program: Any, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(program, tmp_path_factory.mktemp("runs"))


def scans(path: Path) -> None:
    path.mkdir()
    for i in range(3):
        Image.fromarray(np.random.default_rng(i).integers(0, 255, (28, 28), dtype=np.uint8)).save(path / f"{i}.png")


def sentences(path: Path) -> None:
    path.write_text("the food was good .\nthe waiter was rude .\n", encoding="utf-8")


def tagged(path: Path) -> None:
    rows = ("the DET", "waiter NOUN", "was AUX", "rude ADJ", ". PUNCT")
    lines = [f"{i}\t{row.split()[0]}\t_\t{row.split()[1]}" + "\t_" * 6 for i, row in enumerate(rows, 1)]
    path.write_text(("\n".join(lines) + "\n\n") * 20, encoding="utf-8")


def reviews(path: Path) -> None:
    path.mkdir()
    for part in ("train", "dev", "test"):
        for label, word in enumerate(("rude", "great")):
            text = "".join(f"the {noun} was {word} .\n" for noun in ("food", "waiter", "place", "service") * 4)
            (path / f"sentiment.{part}.{label}").write_text(text, encoding="utf-8")


def recipe(path: Path) -> None:
    path.write_text(
        'title = "Two sizes"\ncolumns = ["linear-correlation.mapc"]\n[train]\nsteps = 2\nbatch = 8\n[[variants]]\n'
        'label = "small"\nmethod = "covreg-linear"\n',
        encoding="utf-8",
    )


FILES: dict[str, Callable[[Path], None]] = {
    "scans/": scans,
    "in.txt": sentences,
    "out.txt": sentences,
    "en_ewt-ud-train.conllu": tagged,
    "my-study.toml": recipe,
    "yelp/": reviews,
}
"""Files that examples name -> what writes them."""
FROM_BEFORE = {
    "denoiser.safetensors": "icm export",
    "eval.safetensors": "text train-evaluator",
    "runs/study-my-study": "study run",
}
"""What an example names -> the command whose example writes it."""


def prepared(line: str, place: str, runs: Runs) -> None:
    """Put the runs and files that an example names into the working folder."""
    words = shlex.split(line)
    for before, word in zip(["", *words], words, strict=False):
        written = before in ("--out", "-o") or Path(word).exists()
        if written:
            continue
        if word in FROM_BEFORE:
            shutil.copytree(runs.after(FROM_BEFORE[word]), ".", dirs_exist_ok=True)
        elif word.startswith("runs/"):
            own = next((method for key, method in MY_RUN.items() if key in place.split()), "cascadevae")
            method = "fstat" if "recall" in words else CALLED.get(word.removeprefix("runs/"), own)
            shutil.copytree(runs.of(method), word)
        elif word in FILES:
            FILES[word](Path(word))


def lines_of(program: Any, words: list[str]) -> list[str]:
    """The examples of the command at these words."""
    command = program
    for word in words:
        context = command.make_context(DISTK, [], resilient_parsing=True)
        command = command.resolve_command(context, [word])[1]
    return examples(command)


def smaller(line: str, place: str) -> str:
    """An example with what SMALLER says for its place; `train METHOD` with the settings of the tiny run."""
    if place.startswith("train "):
        settings = tiny(place.split()[1])
        return line.replace("--steps 1000", f"--steps 2 {settings}").replace("--steps 0", settings)
    old, new = SMALLER.get(place, ("", ""))
    assert old in line, f"SMALLER replaces {old!r}, which the example {line!r} does not hold"
    return line.replace(old, new)


def run(line: str, place: str, runs: Runs, extra: tuple[str, ...] = ()) -> tuple[int, str, str]:
    """Run an example in the working folder, which must succeed: exit code, stdout, stderr."""
    line = smaller(line, place)
    prepared(line, place, runs)
    words = [*shlex.split(line)[1:], *extra]
    code, out, err = called(runs.program, words)
    assert code == 0, f"distk {shlex.join(words)}: {out}{err}"
    assert "Traceback" not in out + err
    return code, out, err


def test_there_are_examples(program: Any) -> None:
    assert examples(program) == []
    assert lines_of(program, ["traverse"]) == ["distk traverse runs/my-run --columns 12 --span=-3:3"]
    assert len(lines_of(program, ["eval"])) == 4
    assert len(places()) > 100


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize("place", places(), ids=str)
def test_an_example_runs(place: Place, form: str, runs: Runs, in_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISTK_DATA", raising=False)  # the same on every machine: a user without files of their own
    where = " ".join(place.words)
    if where in NEEDS:
        pytest.skip(NEEDS[where])
    lines = lines_of(runs.program, list(place.words))
    assert lines, f"the help of `distk {where}` shows no example"
    if where.removeprefix("data ") in NEEDS_FILES:
        code, _, err = called(runs.program, shlex.split(lines[0])[1:])
        assert code == 2
        assert "--data-dir" in err
        pytest.skip("the data set needs the user's files")
    if where == "data gym":
        pytest.importorskip("gymnasium", reason="Gymnasium is not installed: pip install 'distk[gym]'")
    if form == "text" and (where in FROM_BEFORE.values() or where.startswith("train ")):  # others share what it writes
        name = where.removeprefix("train ")
        runs.of(name) if where.startswith("train ") else runs.after(name)
        assert "".join(runs.told[name][1:]).strip()
        return
    for line in lines:
        line = line.replace(" --json", "")
        if form == "text":
            assert "".join(run(line, where, runs)[1:]).strip(), f"{line} said nothing"
        else:
            out = run(line, where, runs, ("--json",))[1]
            json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
        for rest in in_folder.iterdir():
            shutil.rmtree(rest) if rest.is_dir() else rest.unlink()


LOOKS: dict[str, str] = {
    "info": "",
    "traverse": "--columns 3",
    "reconstruct": "",
    "sample": "",
    "swap": "--pairs 2",
    "transfer": "--pairs 2",
    "interpolate": "",
    "predict": "",
    "embed": "--score --rows 60",
    "covmap": "",
    "tuning": "",
    "eval": "--metric dci --metric elbo --metric clsacc --metric reconstruction --rows 60 --no-plots",
}
"""Commands that serve what many methods train -> options that make them short."""
FAULTS = re.compile(r"unexpected \w+|Traceback|\b(?!Distk|Usage)\w*(?:Error|Exception): ")
"""What stands in a message that is no sentence of ours."""


@pytest.mark.slow
@pytest.mark.parametrize("method", [entry.name for entry in registry().entries("method")])
def test_every_command_works_or_says_why_not_for_every_method(method: str, runs: Runs, in_folder: Path) -> None:
    """As text and as JSON; a command that does not serve a method says so in a sentence, with exit code 2."""
    shutil.copytree(runs.of(method), "run")
    wrong: list[str] = []
    for command, options in LOOKS.items():
        for form in ((), ("--json",)):
            words = [command, "run", *options.split(), *form]
            code, out, err = called(runs.program, words)
            told = " ".join((out + err).split())
            sound = code == 0 or (code == 2 and "error: " in err and not out)
            if not sound or FAULTS.search(told):
                wrong.append(f"distk {shlex.join(words)}: {code}: {told[-300:] if not sound else FAULTS.search(told)}")
            if form and code == 0:
                json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert not wrong, "\n".join(wrong)
