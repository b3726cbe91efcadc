"""Amazon reviews in the format of fastText: labels, sentences, splits, packed and damaged files."""

from __future__ import annotations

import bz2
import gzip
from pathlib import Path

import pytest

import distk
from distk import DistkError, UsageError

BAD = (
    "__label__1 Not worth it: It broke at once. I want my money back! The box was of the size that nobody needs at all."
)
GOOD = "__label__2 Great value: It works. My wife loves it!"


def lines(n: int = 60) -> list[str]:
    made = []
    for i in range(n):
        made.append(
            f"__label__1 Bad number {chr(97 + i % 26)}{i}: Item {chr(97 + i % 26)} {'x' * (i + 1)} broke. Never again."
        )
        made.append(f"__label__2 Good {'y' * (i + 1)}: It works {'z' * (i + 1)} well. Love it!")
    return [BAD, GOOD, *made]


def write(folder: Path, ending: str, text: str | None = None) -> Path:
    content = ("\n".join(lines()) + "\n" if text is None else text).encode()
    packed = {"": content, ".bz2": bz2.compress(content), ".gz": gzip.compress(content)}[ending]
    (folder / f"train.ft.txt{ending}").write_bytes(packed)
    return folder


@pytest.mark.parametrize("ending", ["", ".bz2", ".gz"])
def test_reviews_become_short_sentences_with_their_labels(tmp_path: Path, ending: str) -> None:
    data = distk.dataset("amazonft", device="cpu", data_dir=write(tmp_path, ending))
    assert data.spec.classes == ("negative", "positive")
    every = {name: {" ".join(words) for words in data.written(data.rows(name))} for name in ("train", "dev", "test")}
    together = every["train"] | every["dev"] | every["test"]
    assert {"it broke at once .", "i want my money back !", "it works .", "my wife loves it !"} <= together
    assert not any("nobody needs" in sentence for sentence in together), "more than seven words"
    assert not every["train"] & every["dev"]
    assert not every["train"] & every["test"]
    assert "never again ." in together, "said in sixty reviews, and kept once"
    for row, words in enumerate(data.written(data.rows_of("all"))):
        said = " ".join(words)
        expected = (
            0 if ("broke" in said or "bad" in said or "never" in said or "worth" in said or "money" in said) else 1
        )
        assert int(data.label[row]) == expected, said


def test_a_draw_is_even_and_the_same_every_time(tmp_path: Path) -> None:
    folder = write(tmp_path, "")
    first, again = (distk.dataset("amazonft", device="cpu", data_dir=folder, per_label=40) for _ in range(2))
    texts = [data.written(data.rows_of("all")) for data in (first, again)]
    assert texts[0] == texts[1]
    assert 40 <= len(texts[0]) <= 80
    late = [words for words in texts[0] if any(len(w) > 40 and set(w) <= set("xyz") for w in words)]
    assert late, "the end of the file takes part, too"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("__label__3 A: b.\n", r"line 1 of '.*' is not '__label__1 TITLE: TEXT'"),
        (GOOD + "\nplain words\n", r"line 2 of"),
        ("__label__1 " + "word " * 10_000 + "\n", "no sentence of at most 7 words"),
        (GOOD + "\n", "no sentence of at most 7 words for one of its labels"),
        ("", "no sentence of at most 7 words"),
    ],
)
def test_other_files_are_one_sentence(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DistkError, match=message):
        distk.dataset("amazonft", device="cpu", data_dir=write(tmp_path, "", text))


def test_damaged_and_foreign_bytes(tmp_path: Path) -> None:
    write(tmp_path, ".bz2")
    path = tmp_path / "train.ft.txt.bz2"
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DistkError, match="damaged or cut off"):
        distk.dataset("amazonft", device="cpu", data_dir=tmp_path)
    path.unlink()
    (tmp_path / "train.ft.txt").write_bytes(b"__label__1 caf\xe9: bad.\n")
    with pytest.raises(DistkError, match="line 1, byte 14; for Latin-1 add --encoding latin-1"):
        distk.dataset("amazonft", device="cpu", data_dir=tmp_path)
    (tmp_path / "train.ft.txt").unlink()
    with pytest.raises(UsageError, match=r"train\.ft\.txt"):
        distk.dataset("amazonft", device="cpu", data_dir=tmp_path)
