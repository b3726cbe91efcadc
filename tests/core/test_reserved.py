"""Settings of plugins that are called as something that distk means itself: refused where they are used and checked."""

from __future__ import annotations

import re
import sys
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, make_dataclass
from pathlib import Path
from typing import Any

import pytest

import distk
from distk import DistkError, Method, Metric, option
from distk.config import PROGRAM_WORDS, hints, own_names
from distk.data import DATA_WORDS, Dataset
from distk.evaluation import own_words
from distk.hookspecs import hookimpl
from distk.penalty import Penalty
from distk.registry import registry
from distk.settings import TRAIN_WORDS, TrainConfig, method_words
from distk.testing import dataset_checks, method_checks, metric_checks, penalty_checks

Call = Callable[..., tuple[int, str, str]]
ROOT = Path(__file__).resolve().parents[2]
WORDS: dict[str, Callable[[], frozenset[str]]] = {
    "method": method_words,
    "dataset": lambda: DATA_WORDS,
    "metric": own_words,
    "penalty": lambda: frozenset[str](),
}
CHECKS: dict[str, Any] = {
    "method": method_checks,
    "dataset": dataset_checks,
    "metric": metric_checks,
    "penalty": penalty_checks,
}
BASES: dict[str, type] = {"method": Method, "dataset": Dataset, "metric": Metric, "penalty": Penalty}


def settings(*names: str) -> type:
    """A config with whole numbers of these names."""
    made = [(name, int, option(1, "a number")) for name in names]
    return make_dataclass("Settings", made, frozen=True)


@dataclass(frozen=True)
class Negated:
    """A setting that the negative form of another one is called as."""

    plots: bool = option(True, "pictures")
    no_plots: int = option(3, "a number")


@pytest.fixture
def clashing(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, type], str]]:
    """Registers something of a kind whose settings are given: its name."""
    made = types.ModuleType("plugged_clash")

    def put(kind: str, config: type) -> str:
        base = BASES[kind]
        made.Clashing = type(
            "Clashing", (base,), {"Config": config, "headline": "score", "kinds": ("image",), "data": "blobs"}
        )  # type: ignore[attr-defined]

        @hookimpl
        def hook(register: Any) -> None:
            register(f"clash-{kind}", "plugged_clash:Clashing", "a test's")

        name = {"penalty": "penalties"}.get(kind, f"{kind}s")
        setattr(made, f"distk_register_{name}", hook)
        registry().add("clash", "plugged_clash", "dist-clash", "1.0")
        assert not registry().plugins["clash"].error
        return f"clash-{kind}"

    monkeypatch.setitem(sys.modules, "plugged_clash", made)
    yield put
    if "clash" in registry().plugins:
        registry()._forget(registry().plugins.pop("clash"))


@pytest.mark.parametrize("kind", sorted(WORDS))
def test_nothing_registered_has_a_reserved_word(kind: str) -> None:
    wrong = {
        entry.name: told
        for entry in registry().entries(kind)
        if (told := own_names(entry.load().Config, WORDS[kind]()))
    }
    assert not wrong


@pytest.mark.parametrize("kind", sorted(WORDS))
def test_every_reserved_word_is_found_by_the_checks(kind: str, clashing: Callable[[str, type], str]) -> None:
    words = sorted(WORDS[kind]() | PROGRAM_WORDS)
    assert {"help", "debug"} <= set(words)
    name = clashing(kind, settings("harmless", words[0]))
    (made,) = CHECKS[kind](name)
    assert f"'{words[0]}'" in made.problem
    for word in words:
        assert f"'{word}'" in own_names(settings("harmless", word), WORDS[kind]())
    assert own_names(settings("harmless"), WORDS[kind]()) == ""


def test_a_setting_that_switches_another_one_off_is_refused() -> None:
    assert "--no-plots" in own_names(Negated, ())


def test_it_is_refused_where_it_is_used(clashing: Callable[[str, type], str], distk_command: Call) -> None:
    name = clashing("method", settings("steps"))
    for line in (["train", name], ["train", name, "--help"]):
        code, _, err = distk_command(*line)
        assert code == 1
        assert "its setting 'steps' has a name that distk uses itself: rename it." in " ".join(err.split())
    with pytest.raises(DistkError, match="'steps'"):
        distk.train(name, steps=1)


def test_a_data_set_with_such_a_setting_is_refused(clashing: Callable[[str, type], str], distk_command: Call) -> None:
    name = clashing("dataset", settings("dir"))
    code, _, err = distk_command("data", name)
    assert code == 1
    assert "its setting 'dir'" in " ".join(err.split())
    with pytest.raises(DistkError, match="'dir'"):
        distk.dataset(name)


def test_docs_list_the_reserved_words() -> None:
    text = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
    (part,) = re.findall(r"\*\*Reserved words\.\*\*.*?\n\n", text, re.DOTALL)
    listed = set(re.findall(r"`(\w+)`", part))
    words = {*TRAIN_WORDS, *(f.name for f in fields(TrainConfig)), *DATA_WORDS, *own_words(), *PROGRAM_WORDS}
    assert {word for word in listed if word.islower()} - {"distk"} == words


def test_a_setting_of_data_that_a_command_has_is_reached_with_its_prefix(distk_command: Call) -> None:
    """Every data set, in `distk data` and in `distk train`: the help builds, and names each of its settings once."""
    seen = 0
    for entry in registry().entries("dataset"):
        code, out, err = distk_command("data", entry.name, "--help")
        assert code == 0, err
        for name in hints(entry.load().Config):
            own, apart = (re.escape(f"--{p}{name.replace('_', '-')}") for p in ("", "data-"))
            found = re.findall(rf"{own}(?![\w-])|{apart}(?![\w-])", out)
            assert found, f"{entry.name}: {name}"
            seen += f"--data-{name.replace('_', '-')}" in found
    assert seen, "no data set has a setting that a command has, too"
