"""Every command over every method, every score over every kind of run, every data set through training and scoring: as
text and as JSON, each works or says in a sentence why not."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from distk.registry import registry

sys.path.insert(0, str(Path(__file__).parent))
from tiny_runs import FAULTS, Runs, called

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
    "covmap": "--rows 60",
    "tuning": "",
    "eval": "--metric dci --metric elbo --metric clsacc --metric reconstruction --rows 60 --no-plots",
}
"""Commands that serve what many methods train -> options that make them short."""
SCORED = {
    "cascadevae": "images, a discrete code and a posterior",
    "factorvae": "images and a critic",
    "fstat": "an embedding of labelled images",
    "pca": "a code in closed form",
    "infogan": "images made, no encoder of its own",
    "dsvae": "clips, codes of frames",
    "arae": "sentences",
    "icf": "states of an environment",
    "grasping": "grasps",
    "dyncontent": "transitions",
}
"""Methods whose runs every score is asked about, and what they have."""


@pytest.fixture(scope="session")
def runs(program: Any, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(program, tmp_path_factory.mktemp("runs"))


def fault(program: Any, words: Sequence[str]) -> str:
    """What is wrong with `distk WORDS`, as text and as JSON: nothing where it works, or says why not with code 2 or 1.

    Results of a failure are nowhere: stdout stays empty.
    """
    for form in ((), ("--json",)):
        code, out, err = called(program, [*words, *form])
        told = " ".join((out + err).split())
        said = "error: " in err or (bool(form) and '"error": "' in out)  # a document says it itself
        refused = code in (1, 2) and said and (not out or bool(form))
        if not (code == 0 or refused) or FAULTS.search(told):
            return f"distk {shlex.join([*words, *form])}: {code}: {FAULTS.search(told) or ''} {told[-400:]}"
        if form and out:
            try:
                json.loads(out, parse_constant=_no_number)
            except ValueError as error:
                return f"distk {shlex.join([*words, *form])}: {error}"
        if code == 1 and words[0] != "eval":
            return f"distk {shlex.join([*words, *form])}: failed: {told[-400:]}"
    return ""


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def faults(program: Any, lines: Sequence[Sequence[str]]) -> str:
    """What is wrong with several."""
    return "\n".join(filter(None, (fault(program, words) for words in lines)))


@pytest.mark.slow
@pytest.mark.parametrize("method", [entry.name for entry in registry().entries("method")])
def test_every_command_works_or_says_why_not_for_every_method(method: str, runs: Runs, in_folder: Path) -> None:
    shutil.copytree(runs.of(method), "run")
    wrong = faults(runs.program, [[command, "run", *options.split()] for command, options in LOOKS.items()])
    assert not wrong, wrong


@pytest.mark.cuda
@pytest.mark.parametrize("method", [entry.name for entry in registry().entries("method")])
def test_every_command_works_or_says_why_not_for_every_method_on_cuda(method: str, runs: Runs, in_folder: Path) -> None:
    """Trained there, and looked at there: `auto` takes the GPU."""
    shutil.copytree(runs.of(method), "run")
    wrong = faults(runs.program, [[command, "run", *options.split()] for command, options in LOOKS.items()])
    assert not wrong, wrong


@pytest.mark.slow
@pytest.mark.parametrize("method", SCORED)
def test_every_score_works_or_says_why_not_for_every_kind_of_run(method: str, runs: Runs, in_folder: Path) -> None:
    shutil.copytree(runs.of(method), "run")
    metrics = [entry.name for entry in registry().entries("metric")]
    wrong = faults(runs.program, [["eval", "run", "-m", name, "--rows", "60", "--no-plots"] for name in metrics])
    assert not wrong, wrong


@pytest.mark.slow
@pytest.mark.cuda
@pytest.mark.parametrize("method", SCORED)
def test_every_score_works_or_says_why_not_for_every_kind_of_run_on_cuda(
    method: str, runs: Runs, in_folder: Path
) -> None:
    shutil.copytree(runs.of(method), "run")
    metrics = [entry.name for entry in registry().entries("metric")]
    wrong = faults(runs.program, [["eval", "run", "-m", name, "--rows", "60", "--no-plots"] for name in metrics])
    assert not wrong, wrong


TAKES = (
    *("betavae", "dsvae", "arae", "icf", "dyncontent", "rce", "grasping", "covreg-linear", "indepvideo", "nlmultitask"),
    *("jade", "mvae", "fstat"),
)
"""Methods that together take every kind of data."""


@pytest.mark.slow
@pytest.mark.parametrize("name", [entry.name for entry in registry().entries("dataset")])
def test_every_data_set_is_shown_trained_on_and_scored_or_it_is_said_why_not(
    name: str, runs: Runs, in_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the first method that takes it, or what a refusal says to make of it; a data set of the user's own files asks
    for them."""
    monkeypatch.delenv("DISTK_DATA", raising=False)
    shown = name + (":CartPole-v1" if name == "gym" else "")
    wrong = fault(runs.program, ["data", shown])
    told: list[str] = []
    asked = [(method, shown) for method in TAKES]
    while asked:
        method, data = asked.pop(0)
        words = ["train", method, "--data", data, "--steps", "1", "--batch", "4", "--device", "cpu", "--out", method]
        code, _, err = called(runs.program, words)
        told.append(" ".join(err.split()))
        if code == 0:
            rest = [["eval", method, "-m", "reconstruction", "-m", "active-units", "--rows", "20", "--no-plots"]]
            wrong += faults(runs.program, [*rest, ["traverse", method, "--columns", "3"], ["info", method]])
            break
        assert code == 2, f"{method}: {code}: {told[-1]}"
        assert "error: " in err
        if "--data-dir" in err or "pip install" in err:
            break
        if instead := re.search(r"take --data (\S+)\.", told[-1]):
            asked.append((method, instead[1]))
    else:
        wrong += f"no method takes it: {told}"
    assert not wrong
    assert not any(FAULTS.search(text) for text in told), told
