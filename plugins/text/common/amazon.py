"""Sentences of Amazon reviews in the format of fastText: `__label__2 TITLE: TEXT`, a review a line, by the million."""

from __future__ import annotations

import bz2
import gzip
import random
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from distk import DistkError, Files, UsageError, option
from distk.console import counted, progress
from distk.plugins.text.common import files as formats
from distk.plugins.text.common.corpus import SentenceDataset, TextConfig
from distk.plugins.text.common.datasets import SENTIMENT
from distk.plugins.text.common.files import LONGEST_LINE, SMALL, SWOLLEN, Part, split_sentences
from distk.plugins.text.common.splits import divided
from distk.plugins.text.common.vocab import split_words

NAMES = tuple(f"{name}.ft.txt{ending}" for name in ("train", "test") for ending in ("", ".bz2", ".gz"))
_LINE = re.compile(r"__label__([12]) (.*)")


@dataclass(frozen=True)
class AmazonConfig(TextConfig):
    """Which sentences of the reviews are taken."""

    max_len: int = option(7, "longest sentence in words; longer ones are dropped", paper="7", min=1, max=1000)
    per_label: int = option(331_000, "sentences of each label, drawn by a fixed seed", paper="331,000", min=10)


class AmazonReviews(SentenceDataset[AmazonConfig]):
    """Short sentences of Amazon reviews; each has its whole review's label, 1 and 2 stars or 4 and 5.

    Drawn in equal numbers from both labels, each distinct sentence once, and divided 80/10/10, so that none stands in
    two splits. The files are read line by line, packed or not.
    """

    reads = "train.ft.txt and, where it is there, test.ft.txt; also .bz2 or .gz"
    raw = True

    def read(self, files: Files) -> tuple[dict[str, Part], tuple[str, ...], str]:
        paths = [path for name in ("train", "test") if (path := _found(files, name)) is not None]
        if not paths or not paths[0].name.startswith("train"):
            formats.named(files, NAMES[:3])  # says which names are looked for
        drawn = [_Reservoir(self.config.per_label, label) for label in range(2)]
        encoding = "utf-8" if self.config.encoding == "auto" else self.config.encoding
        for path in paths:
            for label, text in reviews(path, encoding):
                for sentence in split_sentences(text):
                    if 0 < len(split_words(sentence, raw=True)) <= self.config.max_len:
                        drawn[label].offer(sentence)
        part, seen = Part(), set[str]()
        fewest = min(len(held.kept) for held in drawn)
        if not fewest:
            most = self.config.max_len
            raise UsageError(f"'{paths[0]}' has no sentence of at most {counted(most, 'word')} for one of its labels.")
        for label, held in enumerate(drawn):
            for sentence in held.kept[:fewest]:
                key = " ".join(split_words(sentence, raw=True))
                if key not in seen:
                    seen.add(key)
                    part.add([sentence], label)
        told = f"{len(part.lines):,} distinct sentences of {fewest:,} drawn for each label from '{paths[0].parent}'"
        return divided(part), SENTIMENT, f"{told}, split 80/10/10"


class _Reservoir:
    """An even draw of `size` sentences from a stream of unknown length (Vitter 1985, algorithm R), by a fixed seed."""

    def __init__(self, size: int, label: int) -> None:
        self.size, self.kept, self.offered = size, list[str](), 0
        self.rng = random.Random(f"amazon/{label}")

    def offer(self, sentence: str) -> None:
        self.offered += 1
        if len(self.kept) < self.size:
            self.kept.append(sentence)
        elif (at := self.rng.randrange(self.offered)) < self.size:
            self.kept[at] = sentence


def _found(files: Files, name: str) -> Path | None:
    places = (folder / f"{name}.ft.txt{ending}" for folder in files.folders for ending in ("", ".bz2", ".gz"))
    return next((path for path in places if path.is_file()), None)


def reviews(path: Path, encoding: str) -> Iterator[tuple[int, str]]:
    """(label 0 or 1, title and text on two lines) of each review.

    Raises DistkError with file and line for another form, another encoding, and packed data that are damaged, cut off
    or unpack to more than text does.
    """
    size = path.stat().st_size
    room = max(SMALL, SWOLLEN * size) if path.suffix != ".txt" else size
    opened: Any = {".bz2": bz2.open, ".gz": gzip.open}.get(path.suffix, open)
    number = read = 0
    with cast(BinaryIO, opened(path, "rb")) as file, progress(f"reading {path.name}", size) as advance:
        while line := _next_line(file, path, number):
            number, read = number + 1, read + len(line)
            if len(line) > LONGEST_LINE or read > room:
                raise DistkError(f"line {number:,} of '{path}' is longer, or the file larger, than text can be.")
            if path.suffix == ".txt":
                advance(len(line))
            yield _parsed(line, number, path, encoding)


def _next_line(file: BinaryIO, path: Path, number: int) -> bytes:
    try:
        return file.readline(LONGEST_LINE + 1)
    except (EOFError, OSError, zlib.error) as error:
        raise DistkError(f"'{path}' is damaged or cut off after line {number:,} ({error}).") from error


def _parsed(line: bytes, number: int, path: Path, encoding: str) -> tuple[int, str]:
    try:
        text = line.decode(encoding).removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as error:
        raise DistkError(
            f"'{path}' is not {encoding}: line {number:,}, byte {error.start}; for Latin-1 add --encoding latin-1."
        ) from error
    except LookupError as error:
        raise UsageError(f"--encoding '{encoding}' is not a known encoding.") from error
    match = _LINE.fullmatch(text)
    if match is None:
        form = "'__label__1 TITLE: TEXT' or '__label__2 TITLE: TEXT'"
        raise DistkError(f"line {number:,} of '{path}' is not {form}: '{text[:50]}'.")
    title, mark, body = match[2].partition(": ")
    return int(match[1]) - 1, f"{title}\n{body}" if mark else title
