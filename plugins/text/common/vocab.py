"""Symbols and ids: how text is split, the vocabulary, and its safe form inside a checkpoint's data description.

A symbol is a word or a character. Ids are fixed: 0 `<pad>`, 1 `<bos>`, 2 `<eos>`, 3 `<unk>`, then symbols by falling
count, equal counts in code point order, so that the ids follow from the text alone.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from distk import DataSpec, DistkError

PAD, BOS, EOS, UNK = range(4)
SPECIALS = ("<pad>", "<bos>", "<eos>", "<unk>")
NUMBER = "_num_"
LONGEST_TOKEN = 1000
LARGEST = 2_000_000
"""Words that a vocabulary from a file may have."""
Unit = Literal["word", "char"]

_CLITIC = re.compile(r"('(?:s|re|ve|ll|d|m))(?!\w)", re.IGNORECASE)
_NOT = re.compile(r"(?<=\w)(n't)(?!\w)", re.IGNORECASE)
_TOKEN = re.compile(
    r"_num_|n't(?!\w)|'(?:s|re|ve|ll|d|m)(?!\w)|\d+(?:[.,]\d+)*|[^\W\d_]+(?:-[^\W\d_]+)*|\.{2,}|[^\w\s]|_",
    re.IGNORECASE,
)


def split_tokens(line: str) -> list[str]:
    """Ordinary text as tokens in their case and with their digits, as taggers read them; as many as `split_words`."""
    line = line.replace("\u2019", "'").replace("\u2018", "'")
    return _TOKEN.findall(_CLITIC.sub(r" \1", _NOT.sub(r" \1", line)))


def split_words(line: str, *, raw: bool = False, lowercase: bool = True) -> list[str]:
    """A sentence as tokens.

    raw: False for text whose tokens already stand apart (split at spaces); True for ordinary text, which is
    lower-cased, its punctuation and English clitics split off, and every number written `_num_`.
    """
    if raw:
        return [NUMBER if token[0].isdigit() else token for token in split_tokens(line.lower())]
    return [token for token in (line.lower() if lowercase else line).strip().split(" ") if token]


def split_characters(line: str, *, lowercase: bool = False) -> list[str]:
    """A line as characters, in the composed form (NFC), without white space at its ends."""
    return list(unicodedata.normalize("NFC", line.lower() if lowercase else line).strip())


@dataclass(frozen=True)
class Vocab:
    """Tokens by id, with how text was split.

    tokens: all tokens, the four specials first. unit: what a token is. raw, lowercase: as in `split_words`; characters
    know only lowercase. max_len: most tokens of a sentence, `<eos>` not counted.
    """

    tokens: tuple[str, ...]
    raw: bool = False
    lowercase: bool = True
    max_len: int = 25
    unit: Unit = "word"

    def __post_init__(self) -> None:
        # Specials have no entry: literal "<eos>" in somebody's text is an unknown word, never an end.
        object.__setattr__(self, "ids", {t: i for i, t in enumerate(self.tokens) if i >= len(SPECIALS)})

    ids: Mapping[str, int] = None  # type: ignore[assignment]

    def __len__(self) -> int:
        return len(self.tokens)

    @classmethod
    def build(cls, counts: Mapping[str, int], size: int | None = None, min_count: int = 1, **settings: Any) -> Vocab:
        """From counts: the `size` most frequent symbols (specials not counted) that occur `min_count` times."""
        known = [word for word, n in counts.items() if n >= min_count and word not in SPECIALS]
        known.sort(key=lambda word: (-counts[word], word))
        return cls(SPECIALS + tuple(known[:size]), **settings)

    @classmethod
    def from_spec(cls, spec: DataSpec) -> Vocab:
        """The vocabulary in a data description, which may come from a stranger's checkpoint.

        Raises DistkError for anything that is not a valid vocabulary.
        """
        return cls.from_dict(spec.extra)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Vocab:
        """Inverse of `to_dict`, for untrusted values. Raises DistkError saying what is wrong with them."""
        tokens = values.get("vocab")
        if not isinstance(tokens, (list, tuple)) or not len(SPECIALS) <= len(tokens) <= LARGEST:
            raise DistkError("the file holds no vocabulary: 'vocab' is not a list of words with the four specials.")
        if not all(isinstance(token, str) and len(token) <= LONGEST_TOKEN for token in tokens):
            raise DistkError(
                f"the vocabulary in the file is damaged: words must be text of at most {LONGEST_TOKEN} characters."
            )
        unit = values.get("unit", "word")
        if unit not in ("word", "char"):
            raise DistkError("the vocabulary in the file is damaged: it is neither of words nor of characters.")
        if unit == "char" and any(len(token) != 1 or token == "\n" for token in tokens[len(SPECIALS) :]):
            raise DistkError("the vocabulary in the file is damaged: a member is not one character.")
        if unit == "word" and any(token == "" or " " in token or "\n" in token for token in tokens):
            raise DistkError(
                "the vocabulary in the file is damaged: a word is empty or has a space or line feed in it."
            )
        if tuple(tokens[: len(SPECIALS)]) != SPECIALS:
            raise DistkError(f"the vocabulary in the file is damaged: it must begin with {' '.join(SPECIALS)}.")
        if len(set(tokens)) != len(tokens):
            raise DistkError("the vocabulary in the file is damaged: a word stands in it twice.")
        length, mode, lower = values.get("max_len", 25), values.get("tokenize", "space"), values.get("lowercase", True)
        if (
            type(length) is not int
            or not 1 <= length <= 10_000
            or type(lower) is not bool
            or mode not in ("space", "raw")
        ):
            raise DistkError("the vocabulary in the file is damaged: max_len, tokenize or lowercase is out of range.")
        return cls(tuple(tokens), mode == "raw", lower, length, unit)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for `DataSpec.extra`."""
        mode = "raw" if self.raw else "space"
        common = {"unit": self.unit, "tokenize": mode, "lowercase": self.lowercase, "num_token": NUMBER}
        return {**common, "max_len": self.max_len, "vocab": list(self.tokens)}

    def words(self, line: str, raw: bool | None = None) -> list[str]:
        """A line as symbols, split as the training text was unless `raw` says otherwise."""
        if self.unit == "char":
            return split_characters(line, lowercase=self.lowercase)
        return split_words(line, raw=self.raw if raw is None else raw, lowercase=self.lowercase)

    def join(self, words: Sequence[str]) -> str:
        """Symbols as a line."""
        return ("" if self.unit == "char" else " ").join(words)

    def encode(self, words: Iterable[str]) -> list[int]:
        """Ids of words, unknown ones as `<unk>`, without `<eos>`."""
        return [self.ids.get(word, UNK) for word in words]

    def decode(self, ids: Sequence[int]) -> list[str]:
        """Words up to the first `<eos>`, without padding."""
        words = []
        for i in ids:
            if i == EOS:
                break
            if i not in (PAD, BOS):
                words.append(self.tokens[i])
        return words

    def pad(
        self, sentences: Sequence[Sequence[str]], device: torch.device | str = "cpu", width: int | None = None
    ) -> Tensor:
        """Sentences (lists of words) as ids with `<eos>`, padded with 0: int64 `[n, width]`; longer ones are cut."""
        width = width or 1 + max((len(s) for s in sentences), default=0)
        rows = [[*self.encode(s)[: width - 1], EOS] for s in sentences]
        return torch.tensor([row + [PAD] * (width - len(row)) for row in rows], dtype=torch.long, device=device).view(
            -1, width
        )

    def lines(self, ids: Tensor) -> list[str]:
        """Token ids `[n, T]` as lines."""
        return [self.join(self.decode(row)) for row in ids.tolist()]


def lengths(x: Tensor) -> Tensor:
    """Tokens of each row before the padding, `<eos>` included: int64 `[n]`."""
    return (x != PAD).sum(1)


def shifted(x: Tensor) -> Tensor:
    """Decoder inputs of targets `x` `[n, T]`: `<bos>` in front, the last token dropped."""
    return torch.cat([torch.full_like(x[:, :1], BOS), x[:, :-1]], 1)
