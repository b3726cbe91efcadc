"""Files of word vectors, text and binary, against the numbers that were written."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch

from distk import DistkError, UsageError
from distk.plugins.text.common.vectors import Vectors, read_vectors
from distk.plugins.text.common.vocab import PAD, Vocab

WORDS = ["the", "cat", "été", "new york", "zebra", "the"]
VOCAB = Vocab.build({"the": 9, "cat": 5, "été": 3, "unheard": 1})


def content(form: str, values: np.ndarray) -> bytes:
    """The words with these vectors, in one of the forms that are about."""
    head = f"{len(WORDS)} {values.shape[1]}\n".encode()
    if form.startswith("text"):
        lines = "".join(f"{w} {' '.join(map(repr, row.tolist()))}\n" for w, row in zip(WORDS, values, strict=True))
        return (b"" if form == "text without head" else head) + lines.encode()
    end = b"\n" if form == "binary with line feeds" else b""
    rows = zip(WORDS, values.astype("<f4"), strict=True)
    return head + b"".join(w.replace(" ", "_").encode() + b" " + row.tobytes() + end for w, row in rows)


def read(path: Path, raw: bytes, width: int | None = None, vocab: Vocab = VOCAB) -> Vectors:
    path.write_bytes(raw)
    return read_vectors(path, vocab, width)


@pytest.mark.parametrize("form", ["text", "text without head", "binary", "binary with line feeds"])
@pytest.mark.parametrize("packed", [False, True])
def test_every_form_gives_the_same_vectors(tmp_path: Path, seed: int, form: str, packed: bool) -> None:
    values = np.random.default_rng(seed).normal(size=(len(WORDS), 30)).astype(np.float32)
    raw = content(form, values)
    found = read(tmp_path / "v", gzip.compress(raw) if packed else raw, 30)
    assert found.values.dtype == torch.float32
    assert found.values.shape == (len(VOCAB), 30)
    assert (found.words, found.found, found.missing, found.duplicates) == (6, 3, 1, 1)
    for word in ("the", "cat", "été"):
        assert torch.equal(found.values[VOCAB.ids[word]], torch.from_numpy(values[WORDS.index(word)]))
    assert not found.values[PAD].any()


def test_words_without_a_vector_are_drawn_with_the_given_spread(tmp_path: Path, seed: int) -> None:
    vocab = Vocab.build({"the": 2, **{f"w{i}": 1 for i in range(400)}})
    (tmp_path / "v").write_text("the " + " ".join(["1"] * 50) + "\n")
    found = read_vectors(tmp_path / "v", vocab, std=0.1, seed=seed).values[5:]
    n = found.numel()
    assert abs(float(found.std()) - 0.1) < 5 * 0.1 / (2 * n) ** 0.5
    assert torch.equal(found, read_vectors(tmp_path / "v", vocab, std=0.1, seed=seed).values[5:])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda b: b[:-7], "cut off"),
        (lambda b: gzip.compress(b)[:-9], "cut off"),
        (lambda b: b"9" + b[1:], "says that it has 9 vectors, and 6 are there"),
        (lambda b: b"6 20000" + b[b.index(b"\n") :], "1 to 10,000 are read"),
        (lambda b: b.replace(b"the ", b"the " + b"\xff" * 4, 1), "not finite|cut off"),
        (lambda b: b"", "holds no word vectors"),
    ],
)
def test_a_damaged_file_is_one_sentence(tmp_path: Path, change: object, words: str) -> None:
    raw = content("binary", np.ones((len(WORDS), 4), np.float32))
    with pytest.raises(DistkError, match=words):
        read(tmp_path / "v", change(raw))  # type: ignore[operator]


def test_text_that_breaks_off_or_has_another_width(tmp_path: Path) -> None:
    with pytest.raises(DistkError, match=r"vector 2 of .* is not a word and 3 numbers"):
        read(tmp_path / "v", b"a 1 2 3\nb 1 2\n", vocab=Vocab.build({"a": 1}))
    with pytest.raises(UsageError, match="has vectors of 3 numbers, the model takes 300"):
        read(tmp_path / "v", b"a 1 2 3\n", 300)
    with pytest.raises(UsageError, match="none of the vocabulary's words"):
        read(tmp_path / "v", b"a 1 2 3\n")
    with pytest.raises(DistkError, match="cannot read"):
        read_vectors(tmp_path / "gone", VOCAB)


def test_a_promise_of_a_giant_allocates_nothing(tmp_path: Path) -> None:
    import resource

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DistkError):
        read(tmp_path / "v", b"99999999999 10000\nthe " + b"\0" * 100)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10
