"""Columns of a corpus: sentences as ragged ids on a device, one gather to a padded batch."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from distk.plugins.text.common.vocab import EOS, PAD, UNK, Vocab


class _Numbers(dict[str, int]):
    """Symbols by their first occurrence: looking up a new one numbers it."""

    def __missing__(self, symbol: str) -> int:
        self[symbol] = number = len(self)
        return number


class Draft:
    """Sentences of a column while the files are read: one pass over the text, before the vocabulary is decided.

    A symbol is kept as the number of its first occurrence in 4 bytes, so that the text itself need not stay.

    split: a line -> its symbols.
    """

    def __init__(self, split: Callable[[str], list[str]]) -> None:
        self.split = split
        self.ids = _Numbers()
        self._flat, self._sizes, self._marks, self._absent = array("i"), array("i"), bytearray(), bytearray()

    def add(self, line: str | None) -> list[str]:
        """Append a sentence and return its symbols. None: the sentence is not there, which is no empty sentence."""
        symbols = [] if line is None else self.split(line)
        self._flat.extend(map(self.ids.__getitem__, symbols))
        self._sizes.append(len(symbols))
        self._absent.append(line is None)
        return symbols

    def mark(self, marks: Sequence[bool]) -> None:
        """Append a flag for each symbol of the sentence that was added last."""
        self._marks.extend(marks)

    @property
    def sizes(self) -> np.ndarray:
        """Symbols of each sentence, int64 `[n]`; -1 for one that is not there."""
        absent = np.frombuffer(self._absent, np.bool_)
        return np.where(absent, -1, np.frombuffer(self._sizes, np.int32)).astype(np.int64)

    def counts(self, rows: np.ndarray) -> dict[str, int]:
        """How often each symbol occurs in the sentences where `rows`, bool `[n]`, holds."""
        found = np.bincount(self._symbols(rows), minlength=len(self.ids))
        return {symbol: int(n) for symbol, n in zip(self.ids, found, strict=True) if n}

    def unknown(self, vocab: Vocab, rows: np.ndarray) -> tuple[int, int]:
        """(symbols outside the vocabulary, all symbols) of the sentences where `rows` holds."""
        ids = self._table(vocab)[self._symbols(rows)]
        return int((ids == UNK).sum()), len(ids)

    def column(self, vocab: Vocab, rows: np.ndarray, device: torch.device) -> Column:
        """The sentences where `rows` holds, as ids of a vocabulary on a device."""
        sizes = self.sizes[rows] + 1  # with <eos>; nothing for a sentence that is not there
        offset = np.concatenate([[0], sizes.cumsum()])
        ends = np.zeros(offset[-1], np.bool_)
        ends[offset[1:][sizes > 0] - 1] = True
        kind = np.uint8 if len(vocab) <= 256 else np.int16 if len(vocab) < 1 << 15 else np.int32
        flat = np.full(offset[-1], EOS, kind)
        symbols = self._symbols(rows)
        flat[~ends] = self._table(vocab)[symbols]
        marks = None
        if self._marks:
            marks = np.zeros(offset[-1], np.bool_)
            marks[~ends] = np.frombuffer(self._marks, np.bool_)[self._inside(rows)]
        return Column(
            torch.from_numpy(flat).to(device),
            torch.from_numpy(offset).to(device),
            vocab,
            int(sizes.max(initial=1)),
            None if marks is None else torch.from_numpy(marks).to(device),
            self._lost(flat, symbols[flat[~ends] == UNK]),
        )

    def _lost(self, flat: np.ndarray, symbols: np.ndarray) -> Lost:
        """The symbols that `flat` holds as `<unk>`, in their order."""
        names = list(self.ids)
        used, word = np.unique(symbols, return_inverse=True)
        return Lost(np.flatnonzero(flat == UNK), word.astype(np.int32), tuple(names[i] for i in used))

    def _table(self, vocab: Vocab) -> np.ndarray:
        return np.array([vocab.ids.get(symbol, UNK) for symbol in self.ids], np.int32)

    def _inside(self, rows: np.ndarray) -> np.ndarray:
        return np.repeat(rows, np.frombuffer(self._sizes, np.int32))

    def _symbols(self, rows: np.ndarray) -> np.ndarray:
        return np.frombuffer(self._flat, np.int32)[self._inside(rows)]


@dataclass(frozen=True)
class Lost:
    """What stands where a column says `<unk>`. place: where in `tokens`, sorted; word: which of `words` it is."""

    place: np.ndarray
    word: np.ndarray
    words: tuple[str, ...]


@dataclass
class Column:
    """Sentences as ids, one after the other, each with its `<eos>`.

    tokens: `[total]`, of the smallest integer type that holds the vocabulary. offset: int64 `[n + 1]`, where each
    begins. width: longest sentence, `<eos>` included. marks: bool `[total]`, a flag for each symbol, or None. lost: the
    words that the vocabulary lacks.
    """

    tokens: Tensor
    offset: Tensor
    vocab: Vocab
    width: int
    marks: Tensor | None = None
    lost: Lost | None = None

    @property
    def sizes(self) -> Tensor:
        """Symbols of each sentence with `<eos>`, int64 `[n]`; 0 for one that is not there."""
        return self.offset[1:] - self.offset[:-1]

    def gather(self, rows: Tensor, width: int) -> tuple[Tensor, Tensor]:
        """Rows int64 `[n]` -> (places in `tokens`, where they lie outside the sentence), each `[n, width]`."""
        place = torch.arange(width, device=self.offset.device)
        start = self.offset[rows][:, None]
        outside = place >= self.offset[rows + 1][:, None] - start
        return (start + place).clamp_(max=len(self.tokens) - 1), outside

    def batch(self, rows: Tensor, width: int) -> Tensor:
        """Rows int64 `[n]` -> ids int64 `[n, width]`, padded with 0."""
        index, outside = self.gather(rows, width)
        return self.tokens[index].long().masked_fill_(outside, PAD)

    def written(self, rows: Tensor) -> list[list[str]]:
        """Rows int64 `[n]` as the text has them: words that the vocabulary lacks, too."""
        read = [self.vocab.decode(row) for part in rows.split(4096) for row in self.batch(part, self.width).tolist()]
        if self.lost is None or not len(self.lost.place):
            return read
        first = self.offset.cpu().numpy()[rows.cpu().numpy()]
        for words, start in zip(read, first, strict=True):
            low = int(np.searchsorted(self.lost.place, start))
            while low < len(self.lost.place) and self.lost.place[low] < start + len(words):
                words[int(self.lost.place[low] - start)] = self.lost.words[self.lost.word[low]]
                low += 1
        return read

    def flags(self, rows: Tensor, width: int) -> Tensor:
        """Rows int64 `[n]` -> `marks` bool `[n, width]`, False in the padding."""
        assert self.marks is not None
        index, outside = self.gather(rows, width)
        return self.marks[index].masked_fill_(outside, False)


@dataclass(frozen=True)
class Classes:
    """A column with one of a few words for each sentence, such as its language.

    values: int64 `[n]`, -1 where there is none. names: the words, sorted.
    """

    values: Tensor
    names: tuple[str, ...]


def classes_of(
    values: Sequence[str | None], rows: np.ndarray, device: torch.device, names: Sequence[str] | None = None
) -> Classes:
    """The values where `rows` holds, numbered by `names`, by default the sorted values; others have -1."""
    names = tuple(sorted({value for value in values if value is not None})) if names is None else tuple(names)
    number: Mapping[str | None, int] = {name: i for i, name in enumerate(names)}
    found = [number.get(value, -1) for value, kept in zip(values, rows.tolist(), strict=True) if kept]
    return Classes(torch.tensor(found, dtype=torch.long, device=device), names)
