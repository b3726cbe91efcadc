"""Tags of a whole text: as the tagger gives them, found once, and anew when text or tagger change."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from distk.data import open_dataset
from distk.plugins.text.common import tagging
from distk.plugins.text.common.tagger import BuiltIn, Perceptron, open_tagger


class Counting:
    """The tag of a word is its first letter and its place, so that none fits another line."""

    name, longest = "counting", 8

    def __init__(self, version: str = "1") -> None:
        self.version, self.asked = version, 0

    def tags(self, words: Sequence[str]) -> list[str]:
        self.asked += 1
        return [f"{word[:1]}{place}" for place, word in enumerate(words)]


def text(seed: int) -> list[str]:
    """Lines of none to six words, some of them not ASCII."""
    rng = random.Random(seed)
    return [" ".join(rng.choices(["été", "dog", "straße", "b"], k=rng.randrange(7))) for _ in range(40)]


def found(mark: Any, lines: list[str], name: str = "here") -> list[list[str]]:
    return list(tagging.tags_of(mark, lines, str.split, name))


@pytest.fixture(autouse=True)
def few_are_many(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tagging, "MANY", 4)
    monkeypatch.setenv("DISTK_CACHE", str(tmp_path / "cache"))


def test_they_are_found_once(seed: int) -> None:
    lines, mark = text(seed), Counting()
    expected = [Counting().tags(line.split()) for line in lines]
    assert found(mark, lines) == expected
    assert mark.asked == len(lines)
    assert found(mark, lines) == expected
    assert mark.asked == len(lines)


@pytest.mark.parametrize("change", ["text", "boundary", "tagger"])
def test_they_are_found_anew_when_text_or_tagger_change(seed: int, change: str) -> None:
    lines, mark = [*text(seed), "b", "dogb"], Counting()
    found(mark, lines)
    if change == "text":
        lines[3] += " cat"
    elif change == "boundary":
        lines[-2:] = ["bdog", "b"]
    else:
        mark = Counting("2")
    before = mark.asked
    assert found(mark, lines) == [Counting().tags(line.split()) for line in lines]
    assert mark.asked == before + len(lines)


def test_what_is_short_or_of_an_unknown_tagger_is_not_kept(
    seed: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lines, mark = text(seed), Counting("")
    found(mark, lines)
    monkeypatch.setattr(tagging, "MANY", 10_000)
    found(Counting(), lines)
    assert not (tmp_path / "cache").exists()


def test_data_sets_tag_their_text_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "train.en").write_text("The dog is old.\nA cat eats a fish.\n" * 6)
    (tmp_path / "reviews").mkdir()
    for split in ("train", "dev", "test"):
        for label in "01":
            (tmp_path / "reviews" / f"{split}.{label}").write_text("the dog was old .\na cat eats a fish .\n" * 2)

    def opened() -> tuple[list[list[str]], list[list[bool]]]:
        one: Any = open_dataset("parallel", {"tagger": "builtin", "min_count": 1}, folder=tmp_path)
        other: Any = open_dataset("files", {"tagger": "builtin"}, folder=tmp_path / "reviews")
        return one.written(one.rows_of("train"), "pos"), other.nouns(other.rows_of("train"))

    first = opened()
    assert first[0][0] == ["DT", "NN", "VB", "JJ", "."]
    assert first[1][0] == [False, True, False, False, False]

    def never(self: BuiltIn, words: Sequence[str]) -> list[str]:
        raise AssertionError("tagged again")

    monkeypatch.setattr(BuiltIn, "tags", never)
    assert opened() == first


def test_a_perceptron_is_known_by_its_weights(tmp_path: Path) -> None:
    pairs = [(["the", "dog"], ["DT", "NN"]), (["dogs", "run"], ["NNS", "VERY-LONG-TAG-OF-A-TREEBANK"])]
    versions = []
    for epochs in (1, 3):
        Perceptron.train(pairs, epochs=epochs, seed=epochs).save(tmp_path / f"{epochs}.safetensors")
        loaded = open_tagger("perceptron", tmp_path / f"{epochs}.safetensors")
        assert loaded.longest == len("VERY-LONG-TAG-OF-A-TREEBANK")
        versions.append(loaded.version)
    again = open_tagger("perceptron", tmp_path / "1.safetensors")
    assert again.version == versions[0] != versions[1]
    lines = ["the dog", "dogs run", "run run dogs"]
    assert found(again, lines) == [again.tags(line.split()) for line in lines] == found(again, lines)
