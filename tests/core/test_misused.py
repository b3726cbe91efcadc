"""Words of the command line that cannot be read: one sentence for each, on every command, in the usual words."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest

from distk.registry import registry

sys.path.insert(0, str(Path(__file__).parent))
from ranges import command_at, numbers
from tiny_runs import called

PLACES = [(*group.split(), name) for (group, name), command in registry().commands.items() if command.path]
PLACES += [("train", "betavae"), ("train", "arae"), ("data", "dsprites"), ("data", "teapots")]
OWN = {("reconstruct",), ("transfer",), ("predict",)}
"""Commands whose options are those of the run's method, so that the run is looked for first."""


def said(program: Any, words: list[str]) -> str:
    """What `distk WORDS` says, which must be one sentence of an error."""
    code, out, err = called(program, words)
    assert (code, out) == (2, ""), (words, err)
    told = " ".join(err.split())
    assert told.startswith("error: "), (words, told)
    assert not re.search(r"[╭│╰]|Usage:|Input should|Invalid value|Traceback", told), (words, told)
    return told


@pytest.mark.parametrize("words", [words for words in PLACES if words not in OWN], ids=" ".join)
def test_a_value_that_is_no_number_is_refused_in_a_sentence(program, in_folder, words) -> None:
    for option, ends in numbers(command_at(program, words)):
        told = said(program, [*words, f"{option}=x"])
        assert re.search(rf"^error: {re.escape(option)}: 'x' is not a (whole )?number\. ", told), told
        for side, step, word in (("min", -1, "below the smallest"), ("max", 1, "above the largest")):
            bound = ends[side]
            if bound is not None:
                told = said(program, [*words, f"{option}={bound + step}"])
                known = re.search(rf"{re.escape(option)}: '{bound + step}' is {word} allowed value (\S+)\. ", told)
                assert known is not None, told
                assert float(known[1]) == bound


@pytest.mark.parametrize("words", [words for words in PLACES if words not in {*OWN, ("train",)}], ids=" ".join)
def test_an_option_that_there_is_not_is_refused_in_a_sentence(program, in_folder, words) -> None:
    told = said(program, [*words, "--xyzzyx"])
    assert told == f"error: No such option: --xyzzyx. `distk {' '.join(words)} --help` shows what there is."


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["report"], "PATHS is missing. `distk report --help` shows what there is."),
        (["eval", "-m"], "-m needs a value: write -m VALUE."),
        (["sample", "-nx"], "-n: 'x' is not a whole number. `distk sample --help` shows what there is."),
        (["sample", "-n", "x"], "-n: 'x' is not a whole number. `distk sample --help` shows what there is."),
        (["eval", "a", "b"], "Got unexpected extra argument(s) (b). `distk eval --help` shows what there is."),
        (["study", "rn"], "No such command 'rn'. `distk study --help` lists all."),
        (["study", "shw"], "No such command 'shw'. Did you mean 'show'? `distk study --help` lists all."),
        (["data", "qqqq"], "unknown dataset 'qqqq'. `distk list dataset` shows all."),
        (["--nothing"], "No such option: --nothing. `distk --help` shows what there is."),
    ],
    ids=" ".join,
)
def test_the_sentence(program, in_folder, words, sentence) -> None:
    assert said(program, words) == f"error: {sentence}"


def test_a_group_without_a_command_shows_its_help(program, in_folder) -> None:
    for words in ([], ["study"], ["train"], ["icf"]):
        code, out, err = called(program, words)
        assert code == 2
        assert "Usage: distk" in out + err
