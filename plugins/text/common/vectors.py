"""Word vectors of word2vec and its like, in text or binary form, for the words of a vocabulary."""

from __future__ import annotations

import io
import math
import stat
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import torch
from torch import Tensor

from distk import DistkError, UsageError
from distk.console import clean, counted
from distk.plugins.text.common.files import GZIP, LARGEST_FILE, LONGEST_TOKEN_BYTES
from distk.plugins.text.common.vocab import PAD, Vocab

WIDEST = 10_000
"""Numbers that a word's vector may have."""
CHUNK = 1 << 20


@dataclass(frozen=True)
class Vectors:
    """values: float32 `[V, d]`, row i for token i of the vocabulary; `<pad>` is 0, words without a vector are random.

    words: vectors in the file. found: of the vocabulary's words. missing: the others, specials not counted. duplicates:
    words of the vocabulary that stood in the file once more; the first vector counts.
    """

    values: Tensor
    words: int
    found: int
    missing: int
    duplicates: int


def read_vectors(path: Path, vocab: Vocab, width: int | None = None, std: float = 0.1, seed: int = 0) -> Vectors:
    """The vectors of a vocabulary's words from a word2vec file: text or binary, with gzip or without.

    Text has a word and its numbers on each line, with or without a first line `words numbers`; binary has that line,
    then each word, a space and little-endian float32 numbers. Only the vocabulary's rows are kept, so a file may be
    larger than the memory. width: numbers that the model takes. Words without a vector are drawn from N(0, std^2).

    Raises UsageError for a file of another width, DistkError for one that is missing, damaged or no such file.
    """
    rows = _Rows(vocab)
    try:
        with _opened(path) as stream:
            found = _header(stream.peek(LONGEST_TOKEN_BYTES))
            if found is not None:
                stream.readline(LONGEST_TOKEN_BYTES)
            entries = _entries(path, stream, found, width)
            for word, values in entries:
                rows.add(word, values)
    except zlib.error as error:
        raise DistkError(f"'{path}' is a damaged gzip file ({error}).") from error
    except OSError as error:
        raise DistkError(f"cannot read '{path}': {error.strerror or error}.") from error
    if not rows.words:
        raise DistkError(f"'{path}' holds no word vectors.")
    if found is not None and rows.words != found[0]:
        raise DistkError(
            f"'{path}' says that it has {counted(found[0], 'vector')}, and {rows.words:,} are there: it is cut off."
        )
    return rows.vectors(std, seed)


class _Rows:
    """Rows of the vocabulary's words, as they come."""

    def __init__(self, vocab: Vocab) -> None:
        self.vocab, self.words, self.duplicates = vocab, 0, 0
        self.held: dict[int, np.ndarray] = {}

    def add(self, word: str, values: np.ndarray) -> None:
        self.words += 1
        place = self.vocab.ids.get(word)
        if place is None:
            return
        if place in self.held:
            self.duplicates += 1
        else:
            self.held[place] = values.copy()

    def vectors(self, std: float, seed: int) -> Vectors:
        d = len(next(iter(self.held.values()))) if self.held else 0
        if not d:
            raise UsageError("none of the vocabulary's words has a vector in this file: is it of another language?")
        generator = torch.Generator().manual_seed(seed)
        values = std * torch.randn(len(self.vocab), d, generator=generator)
        values[PAD] = 0
        places = torch.tensor(list(self.held), dtype=torch.long)
        values[places] = torch.from_numpy(np.stack(list(self.held.values())))
        missing = len(self.vocab.ids) - len(self.held)
        return Vectors(values, self.words, len(self.held), missing, self.duplicates)


class _Unpacked(io.RawIOBase):
    """A gzip file's content as a stream; raises DistkError where it is cut off."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self.file, self.path, self.member = file, path, zlib.decompressobj(wbits=31)
        self.rest, self.total, self.began = b"", 0, False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        """Fill the buffer as far as the file goes, so that a look ahead sees a whole first entry."""
        filled = 0
        while filled < len(buffer):
            if self.member.eof:
                self.rest, self.member = self.member.unused_data.lstrip(b"\0"), zlib.decompressobj(wbits=31)
                self.began = False
            self.rest = self.rest or self.file.read(CHUNK)
            if not self.rest:
                if self.began:
                    raise DistkError(f"'{self.path}' is cut off: its gzip data have no end.")
                break
            made = self.member.decompress(self.rest, len(buffer) - filled)
            self.rest, self.began = self.member.unconsumed_tail, True
            buffer[filled : filled + len(made)] = made
            filled += len(made)
        self.total += filled
        if self.total > LARGEST_FILE:
            raise DistkError(f"'{self.path}' unpacks to more than {LARGEST_FILE:,} bytes.")
        return filled


def _opened(path: Path) -> io.BufferedReader[Any]:
    if not stat.S_ISREG(path.stat().st_mode):
        raise DistkError(f"'{path}' is not a regular file.")
    file = io.BufferedReader(io.FileIO(path), CHUNK)
    if file.peek(2)[:2] == GZIP:
        return io.BufferedReader(cast(Any, _Unpacked(file, path)), CHUNK)
    return file


def _header(start: bytes) -> tuple[int, int] | None:
    """(words, numbers of each) where the first line says so."""
    parts = start.split(b"\n", 1)[0].split()
    if len(parts) == 2 and all(part.isdigit() and len(part) < 12 for part in parts):
        return int(parts[0]), int(parts[1])
    return None


def _entries(
    path: Path, stream: io.BufferedReader, header: tuple[int, int] | None, width: int | None
) -> Iterator[tuple[str, np.ndarray]]:
    """Words with their vectors, in the form that the first of them has."""
    if header is not None:
        _check_width(path, header[1], width)
        if not _is_text(stream.peek(CHUNK), header[1]):
            yield from _binary(path, stream, *header)
            return
    yield from _text(path, stream, None if header is None else header[1], width)


def _check_width(path: Path, found: int, width: int | None) -> None:
    if not 1 <= found <= WIDEST:
        raise DistkError(f"'{path}' says that a vector has {counted(found, 'number')}; 1 to {WIDEST:,} are read.")
    if width is not None and found != width:
        raise UsageError(f"'{path}' has vectors of {counted(found, 'number')}, the model takes {width}.")


def _is_text(start: bytes, width: int) -> bool:
    """Whether the first entry is a line with as many numbers; a binary entry is that only by a miracle."""
    cells = start.split(b"\n", 1)[0].split()
    try:
        return len(cells) > width and all(math.isfinite(float(cell)) for cell in cells[-width:])
    except ValueError:
        return False


def _text(
    path: Path, stream: io.BufferedReader, width: int | None, wanted: int | None
) -> Iterator[tuple[str, np.ndarray]]:
    longest = LONGEST_TOKEN_BYTES + 40 * (width or wanted or WIDEST)
    number = 0
    while line := stream.readline(longest):
        if not line.strip():
            continue
        number += 1
        cells = line.rstrip(b"\r\n ").replace(b"\t", b" ").split(b" ")
        if width is None:
            width = len(cells) - 1
            _check_width(path, width, wanted)
        # Some words have spaces in them: the numbers are counted from the end.
        word, found = b" ".join(cells[:-width]), cells[-width:]
        try:
            with np.errstate(over="ignore"):
                values = np.array([float(cell) for cell in found], np.float32)
        except ValueError:
            values = np.zeros(0, np.float32)
        if len(values) != width or not word:
            raise DistkError(f"vector {number:,} of '{path}' is not a word and {counted(width, 'number')}.")
        yield _checked(path, number, word, values)


def _binary(path: Path, stream: io.BufferedReader, words: int, width: int) -> Iterator[tuple[str, np.ndarray]]:
    for number in range(1, words + 1):
        word = _word(stream)
        if word is None:
            return  # the end; whoever asks counts
        raw = stream.read(4 * width)
        if len(raw) != 4 * width:
            raise DistkError(f"vector {number:,} of '{path}' is cut off.")
        yield _checked(path, number, word, np.frombuffer(raw, "<f4").astype(np.float32))


def _word(stream: io.BufferedReader) -> bytes | None:
    """The bytes up to the next space, without the line feed that some writers put first; None at the end or too far."""
    made = bytearray()
    while len(made) <= LONGEST_TOKEN_BYTES:
        start = stream.peek(LONGEST_TOKEN_BYTES)
        if not start:
            return None
        end = start.find(b" ")
        made += stream.read(len(start) if end < 0 else end + 1)
        if end >= 0:
            return bytes(made[:-1]).lstrip(b"\n")
    return None


def _checked(path: Path, number: int, word: bytes, values: np.ndarray) -> tuple[str, np.ndarray]:
    text = word.decode("utf-8", "replace")  # cut words are about; they are no word of a vocabulary
    if not np.isfinite(values).all():
        raise DistkError(f"vector {number:,} of '{path}', of '{clean(text)[:60]}', has a number that is not finite.")
    return text, values
