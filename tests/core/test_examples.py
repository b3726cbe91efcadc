"""Every example in the help of every command runs, as text and as JSON, with exit code 0; with JSON, pictures
are asked for as SVG.

A session trains one tiny run per method that an example needs, which is the example of `distk train METHOD` itself;
only numbers that would take long are made smaller.
"""

from __future__ import annotations

import contextlib
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
from matplotlib.figure import Figure
from PIL import Image

from distk import look
from distk.registry import registry

sys.path.insert(0, str(Path(__file__).parent))
from tiny_runs import DISTK, Runs, called, tiny

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

NO_FIGURE = {"runs/arae", "--images"}
"""Words of examples that make sentences, or images of images, where the command also draws."""

SMALLER: dict[str, tuple[str, str]] = {
    "train": ("--preset demo", "--preset demo --steps 2"),
    "eval": ("runs/my-run", "runs/my-run --rows 700"),
    "explore": ("--idle 60", "--idle 0.001 --n 2"),
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


class Examples(Runs):
    """The tiny runs, and what examples leave behind that others need."""

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
def runs(program: Any, tmp_path_factory: pytest.TempPathFactory) -> Examples:
    return Examples(program, tmp_path_factory.mktemp("runs"))


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


def scored(word: str, runs: Examples) -> None:
    """A run with scores, or a folder of four runs whose scores differ."""
    place = Path(word) if word == "runs/my-run" else Path(word) / "s0"
    shutil.copytree(runs.of("cascadevae"), place)
    words = ["eval", str(place), "-m", "mig", "-m", "modularity", "--rows", "400", "--no-plots"]
    done = called(runs.program, words)
    assert done[0] == 0, done
    for i in range(1, 4 if place != Path(word) else 0):
        other = Path(word) / f"s{i}"
        shutil.copytree(place, other)
        held = json.loads((other / "checkpoint.eval.json").read_text())
        for name, values in held["metrics"].items():
            values[name] += 0.1 * i
        (other / "checkpoint.eval.json").write_text(json.dumps(held))


def prepared(line: str, place: str, runs: Examples) -> None:
    """Put the runs and files that an example names into the working folder."""
    words = shlex.split(line)
    for before, word in zip(["", *words], words, strict=False):
        written = before in ("--out", "-o") or Path(word).exists()
        if written:
            continue
        if place == "figure" and word.startswith("runs/"):
            scored(word, runs)
        elif word in FROM_BEFORE:
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


def run(line: str, place: str, runs: Examples, extra: tuple[str, ...] = ()) -> tuple[int, str, str]:
    """Run an example in the working folder, which must succeed: exit code, stdout, stderr."""
    line = smaller(line, place)
    prepared(line, place, runs)
    words = [*shlex.split(line)[1:], *extra]
    code, out, err = called(runs.program, words)
    assert code == 0, f"distk {shlex.join(words)}: {out}{err}"
    assert "Traceback" not in out + err
    return code, out, err


def pictures_in(folder: Path) -> dict[Path, bytes]:
    """The pictures below a folder but those that a training keeps of itself."""
    found = (path for path in folder.rglob("*") if path.suffix.lower() in look.FORMS and "samples" not in path.parts)
    return {path: path.read_bytes() for path in found}


def takes_form(program: Any, line: str) -> bool:
    """Whether the command of an example says with `--format` how its pictures are written (tests/core/test_look.py)."""
    command = program
    for word in shlex.split(line)[1:]:
        if hasattr(command, "resolve_command"):
            context = command.make_context(DISTK, [], resilient_parsing=True)
            command = command.resolve_command(context, [word])[1]
    return any("--dpi" in parameter.opts for parameter in command.params)


def as_svg(line: str, place: str, runs: Examples) -> str:
    """What an example prints as JSON when its pictures are SVG, and that no other is written."""
    line = re.sub(r"\.(png|pdf)\b", ".svg", line.replace("--format pdf", ""))
    prepared(smaller(line, place), place, runs)
    before = pictures_in(Path())
    out = run(line, place, runs, ("--json", "--format", "svg"))[1]
    drawn = [path for path, held in pictures_in(Path()).items() if before.get(path) != held]
    assert {path.suffix for path in drawn} <= {".svg"}, f"{line} writes other pictures than --format says"
    return out


@pytest.fixture(autouse=True)
def whole_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every figure of an example, when it is written, has room for all its words, and is no wider than it says."""
    real = Figure.savefig

    def savefig(figure: Any, *words: Any, **options: Any) -> None:
        real(figure, *words, **options)
        box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
        room = 0.03  # inches; a stroke's own width
        assert min(box.x0, box.y0) > -room, f"cut at the left or below: {box}"
        assert max(box.x1 - width, box.y1 - height) < room, f"cut at the right or above: {box}"

    monkeypatch.setattr(Figure, "savefig", savefig)


def test_there_are_examples(program: Any) -> None:
    assert examples(program) == []
    assert lines_of(program, ["traverse"]) == ["distk traverse runs/my-run --columns 12 --span=-3:3"]
    assert len(lines_of(program, ["eval"])) == 4
    assert len(places()) > 100


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize("place", places(), ids=str)
def test_an_example_runs(
    place: Place, form: str, runs: Examples, in_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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
    if where == "explore":
        pytest.importorskip("uvicorn", reason="the extra explore is not installed: pip install 'distk[explore]'")
    if where == "data gym":
        pytest.importorskip("gymnasium", reason="Gymnasium is not installed: pip install 'distk[gym]'")
    if form == "text" and (where in FROM_BEFORE.values() or where.startswith("train ")):  # others share what it writes
        name = where.removeprefix("train ")
        runs.of(name) if where.startswith("train ") else runs.after(name)
        assert "".join(runs.told[name][1:]).strip()
        return
    for line in lines:
        line = line.replace(" --json", "")
        formed = takes_form(runs.program, line)
        if form == "text":
            prepared(smaller(line, where), where, runs)
            before = pictures_in(Path())
            assert "".join(run(line, where, runs)[1:]).strip(), f"{line} said nothing"
            drawn = [path for path, held in pictures_in(Path()).items() if before.get(path) != held]
            assert formed or not drawn, f"`{line}` draws {drawn[0].name} and takes no --format"
        else:
            svg = formed and not NO_FIGURE & set(shlex.split(line))
            out = as_svg(line, where, runs) if svg else run(line, where, runs, ("--json",))[1]
            json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
        for rest in in_folder.iterdir():
            shutil.rmtree(rest) if rest.is_dir() else rest.unlink()
