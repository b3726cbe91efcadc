"""What a declaration allows is run: both ends of each range, each choice, yes and no, of methods, data sets, scores,
penalties and commands. Each works, or says in a sentence why not; none takes all memory, a minute, or the process."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from distk import option
from distk.registry import registry
from distk.settings import TrainConfig

sys.path.insert(0, str(Path(__file__).parent))
import ranges
from ranges import End, command_at, edges, ends, fault, numbers
from test_examples import NEEDS, NEEDS_FILES, Examples, lines_of, prepared, smaller
from test_sweeps import SCORED
from tiny_runs import called, tiny
from user_files import made

COMMANDS = [
    (*group.split(), name)
    for (group, name), command in registry().commands.items()
    if command.path and (group, name) not in (("", "train"), ("", "resume"), ("", "check"))
]


@pytest.fixture(scope="session")
def runs(program: Any, tmp_path_factory: pytest.TempPathFactory) -> Examples:
    return Examples(program, tmp_path_factory.mktemp("runs"))


@pytest.fixture(autouse=True)
def without_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISTK_DATA", raising=False)


@contextlib.contextmanager
def emptied() -> Iterator[None]:
    """The working folder is empty afterwards."""
    yield
    for rest in Path().iterdir():
        shutil.rmtree(rest) if rest.is_dir() else rest.unlink()


def faults(program: Any, lines: Iterable[tuple[End, Sequence[str]]]) -> str:
    """What is wrong with these commands at an end, each in an empty folder."""
    wrong = []
    for end, words in lines:
        with emptied():
            wrong.append(fault(program, words, end.large))
    return "\n".join(filter(None, wrong))


def named(options: Sequence[str], end: End) -> list[str]:
    """The words for an end where an option has `data-` in front of it because a command has its name itself."""
    return end.words if end.option in options else [word.replace("--", "--data-", 1) for word in end.words]


def faults_of_data(program: Any, name: str, start: Sequence[str]) -> str:
    """What is wrong at the ends of a data set that these words show."""
    options = [flag for p in command_at(program, ["data", name]).params for flag in (*p.opts, *p.secondary_opts)]
    config = registry().find("dataset", name).load().Config
    return faults(program, [(end, [*start, *named(options, end)]) for end in ends(config)])


def settings(score: str, values: dict[str, str]) -> list[str]:
    """The words for settings of a score."""
    return [word for name, text in values.items() for word in ("--set", f"{score}.{name}={text}")]


# ------------------------------------------------------------------------------------------- each kind


@pytest.mark.slow
@pytest.mark.parametrize("name", [entry.name for entry in registry().entries("method")])
def test_every_end_of_every_setting_of_a_method(name: str, program: Any, in_folder: Path) -> None:
    start = ["train", name, "--steps", "1", *tiny(name).split(), "--out", "run"]
    config = registry().find("method", name).load().Config
    wrong = faults(program, [(end, [*start, *end.words]) for end in ends(config)])
    assert not wrong, wrong


@pytest.mark.slow
@pytest.mark.parametrize("name", ["betavae", "factorvae", "arae"])
def test_every_end_of_every_setting_of_the_trainer(name: str, program: Any, in_folder: Path) -> None:
    start = ["train", name, "--steps", "1", *tiny(name).split(), "--out", "run"]
    wrong = faults(program, [(end, [*start, *end.words]) for end in ends(TrainConfig) if end.text != str(ranges.MANY)])
    assert not wrong, wrong


@pytest.mark.slow
@pytest.mark.parametrize("name", [e.name for e in registry().entries("dataset") if e.name not in NEEDS_FILES])
def test_every_end_of_every_setting_of_a_data_set(name: str, program: Any, in_folder: Path) -> None:
    wrong = faults_of_data(program, name, ["data", name + (":CartPole-v1" if name == "gym" else "")])
    assert not wrong, wrong


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(NEEDS_FILES))
def test_every_end_of_every_setting_of_a_data_set_of_files(
    name: str, program: Any, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, in_folder: Path
) -> None:
    start = ["data", name, "--data-dir", str(made(name, tmp_path_factory.mktemp("files"), monkeypatch))]
    code, _, told = called(program, start)
    assert code == 0, told
    wrong = faults_of_data(program, name, start)
    assert not wrong, wrong


@pytest.mark.slow
@pytest.mark.parametrize("name", [entry.name for entry in registry().entries("metric")])
def test_every_end_of_every_setting_of_a_score(name: str, runs: Examples, in_folder: Path) -> None:
    config = registry().find("metric", name).load().Config
    every = list(ends(config))
    if not every:
        pytest.skip("it has no setting with an end")
    scored = ["-m", name, "--rows", "60", "--no-plots"]
    trains = "judge_steps" in config.__dataclass_fields__  # minutes for each end
    judge = {"judge_steps": "20", "judge_width": "4"} if trains else {}
    method = next(
        (m for m in SCORED if called(runs.program, ["eval", str(runs.of(m)), *scored, *settings(name, judge)])[0] == 0),
        "cascadevae",
    )
    start = ["eval", str(runs.of(method)), *scored]
    wrong = faults(runs.program, [(end, [*start, *settings(name, {**judge, end.name: end.text})]) for end in every])
    assert not wrong, wrong


@pytest.mark.slow
@pytest.mark.parametrize("name", [entry.name for entry in registry().entries("penalty")])
def test_every_end_of_every_setting_of_a_penalty(name: str, program: Any, in_folder: Path) -> None:
    start = ["train", "betavae", "--steps", "1", *tiny("betavae").split(), "--penalty", name, "--out", "run"]
    every = list(ends(registry().find("penalty", name).load().Config))
    wrong = faults(program, [(end, [*start, "--penalty-option", f"{end.name}={end.text}"]) for end in every])
    assert not wrong, wrong


@pytest.mark.slow
@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_end_of_every_option_of_a_command(words: tuple[str, ...], runs: Examples, in_folder: Path) -> None:
    """On its example, with what that needs."""
    place = " ".join(words)
    if place in NEEDS:
        pytest.skip(NEEDS[place])
    every = [
        f"{name}={value}"
        for name, declared in numbers(command_at(runs.program, words))
        for value in edges(declared, int)
        if value != str(ranges.MANY)
    ]
    wrong = []
    for option_ in every:
        with emptied():
            line = smaller(lines_of(runs.program, list(words))[0], place)
            prepared(line, place, runs)
            wrong.append(fault(runs.program, [*shlex.split(line)[1:], option_], large=True))
    assert not any(wrong), "\n".join(filter(None, wrong))


# -------------------------------------------------------------------------------- what runs every day


def test_the_ends_of_a_declaration() -> None:
    @dataclass(frozen=True)
    class Config:
        size: int = option(4, "", min=2, max=9)
        rate: float = option(0.1, "", above=0)
        open: int = option(1, "")
        many: tuple[int, ...] = option((3, 4), "", min=1, max=5)
        none: tuple[float, ...] = option((), "", min=0, max=1)
        yes: bool = option(True, "")
        word: str = option("", "")
        maybe: int | None = option(None, "", above=0, max=3)

    assert [" ".join(end.words) for end in ends(Config)] == [
        *("--size=9", "--size=2", "--rate=1000000000.0", "--rate=1e-06", "--open=1000000000"),
        *("--many=5,5", "--many=1,1", "--none=1.0", "--none=0.0", "--yes", "--no-yes", "--maybe=3", "--maybe=1"),
    ]
    assert [end.value for end in ends(Config) if end.large] == ["9", "1000000000.0", "1000000000", "5,5", "1.0", "3"]


class Program:
    """Stands in for the program: what it does follows from its first word."""

    def main(self, args: Sequence[str], **_: Any) -> None:
        if args[0] == "dies":
            os.kill(os.getpid(), 11)
        if args[0] == "waits":
            while True:
                pass
        if args[0] == "takes":
            bytearray(3 * ranges.MEMORY)
        if args[0] == "fails":
            raise RuntimeError("shape '[3]' is invalid")


def test_what_is_wrong_is_noticed(monkeypatch: pytest.MonkeyPatch, in_folder: Path) -> None:
    monkeypatch.setattr(ranges, "LIMIT", 1)
    monkeypatch.setattr(ranges, "LARGE", 1)
    assert fault(Program(), ["works"]) == ""
    assert "ended with -11" in fault(Program(), ["dies"])
    assert "took more than 1 s" in fault(Program(), ["waits"])
    assert fault(Program(), ["waits"], large=True) == ""
    assert "unexpected RuntimeError" in fault(Program(), ["fails"])
    assert fault(Program(), ["takes"]) == "", "that there is no memory is a sentence"


def test_the_ends_of_a_method_that_has_everything(program: Any, in_folder: Path) -> None:
    config = registry().find("method", "covreg-linear").load().Config
    start = ["train", "covreg-linear", "--steps", "1", *tiny("covreg-linear").split(), "--out", "run"]
    assert faults(program, [(end, [*start, *end.words]) for end in ends(config)]) == ""
