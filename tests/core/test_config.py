"""Settings: checking, TOML, precedence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pytest

from distk.config import assignments, from_dict, option, to_dict, to_toml
from distk.errors import UsageError
from distk.settings import resolve


@dataclass(frozen=True)
class Config:
    number: int = option(3, "a number", min=1, max=9)
    rate: float = option(0.5, "a rate", above=0)
    kind: Literal["a", "b"] = option("a", "a kind")
    sizes: tuple[int, ...] = option((1, 2), "sizes", min=0)
    maybe: float | None = option(None, "perhaps")
    flag: bool = option(False, "a flag")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"numbr": 1}, "has no setting 'numbr'. Did you mean 'number'?"),
        ({"number": 0}, "below the smallest allowed value 1"),
        ({"number": 10}, "above the largest allowed value 9"),
        ({"number": 2.5}, "expected a whole number"),
        ({"number": True}, "expected a whole number"),
        ({"number": "two"}, "expected a whole number"),
        ({"rate": 0}, "must be above 0"),
        ({"rate": float("nan")}, "nan is not allowed"),
        ({"kind": "c"}, "'c' is none of a, b"),
        ({"sizes": [1, -1]}, "below the smallest"),
        ({"sizes": 7}, "expected a list"),
        ({"flag": "yes"}, "expected true or false"),
        ({"rate": [1]}, "expected a number"),
    ],
)
def test_wrong_values_are_named(values: dict, message: str) -> None:
    with pytest.raises(UsageError, match="the test") as caught:
        from_dict(Config, values, "the test")
    assert message in str(caught.value)
    assert "the test" in str(caught.value)


def test_values_are_coerced() -> None:
    made = from_dict(Config, {"number": 4.0, "rate": 1, "sizes": "3,4", "maybe": None}, "t")
    assert made == Config(number=4, rate=1.0, sizes=(3, 4))
    assert isinstance(made.number, int)
    assert isinstance(made.rate, float)


def test_toml_round_trip() -> None:
    import tomllib

    made = Config(number=9, rate=1e-7, kind="b", sizes=(), flag=True)
    text = to_toml({"model": to_dict(made)}, {"method": 'with "quotes"\n'})
    read = tomllib.loads(text)
    assert from_dict(Config, read["model"], "t") == made
    assert read["method"] == 'with "quotes"\n'


def test_precedence(tmp_path) -> None:
    file = tmp_path / "c.toml"
    file.write_text('method = "cascadevae"\n[model]\nz = 5\nclasses = 7\n[train]\nbatch = 32\n')
    made = resolve("cascadevae", preset="demo", file=file, options={"model": {"classes": 4}})
    assert (made.model.z, made.model.classes, made.model.hidden) == (5, 4, 128)
    assert (made.train.batch, made.train.steps) == (32, 1500)
    assert resolve("cascadevae").train.steps == 300_000


def test_another_data_set_drops_the_presets_settings() -> None:
    made = resolve("cascadevae", preset="demo", options={"data": {"name": "digits"}})
    assert made.data == "digits"
    assert made.data_options == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("z = 4", "outside a section"),
        ("[modle]\nz = 4", "Did you mean 'model'?"),
        ('method = "other"\n', "configures method 'other'"),
        ("[model\n", "cannot be read"),
        ("[model]\nz = -1\n", "below the smallest"),
    ],
)
def test_wrong_files(tmp_path, text: str, message: str) -> None:
    file = tmp_path / "c.toml"
    file.write_text(text)
    with pytest.raises(UsageError) as caught:
        resolve("cascadevae", file=file)
    assert message in str(caught.value)


def test_assignments_are_read_by_section_and_key() -> None:
    given = ["max-len=15", "data.size=16", "flag=True", "text=a=b.c", "max-len=20", "model.x="]
    assert assignments(given, "model", ["data"]) == {
        "model": {"max_len": "20", "flag": True, "text": "a=b.c", "x": ""},
        "data": {"size": "16"},
    }
    assert assignments([], "model") == {}
    assert assignments(["a=1"]) == {"": {"a": "1"}}


@pytest.mark.parametrize("text", ["size", "=3", "data.=3", ".=3"])
def test_an_assignment_without_name_or_value_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"--set '.*' is not understood; write NAME=VALUE"):
        assignments([text], "model", ["data"])


def test_an_assignment_to_an_unknown_section_names_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"--option 'dta.size=3': 'dta' is none of data, model. Did you mean 'data'?"):
        assignments(["dta.size=3"], "model", ["data"], "--option")


def test_numbers_to_choose_from_may_be_spelt() -> None:
    @dataclass(frozen=True)
    class Sized:
        size: Literal[8, 16] = 8

    assert from_dict(Sized, {"size": "16"}, "here").size == 16
    with pytest.raises(UsageError, match="'17' is none of 8, 16"):
        from_dict(Sized, {"size": "17"}, "here")
