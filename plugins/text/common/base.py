"""A corpus on the device: sentences without labels, with further columns, batches of one length by one gather."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, cast

import numpy as np
import torch
from torch import Tensor
from typing_extensions import TypeVar

from distk import Dataset, DataSpec, DistkError, Files, Split, UsageError, option
from distk.console import counted, note, warn
from distk.data import names_of
from distk.plugins.text.common.buckets import EDGES, Buckets
from distk.plugins.text.common.columns import Classes, Column, Draft, classes_of
from distk.plugins.text.common.files import Part, unpacked
from distk.plugins.text.common.tagging import tags_of
from distk.plugins.text.common.vocab import Vocab, split_characters, split_words

LEARNT = ("train", "unsup")
"""Splits whose text the vocabulary is made of."""
MANY_UNKNOWN = {"word": 0.05, "char": 0.02}
"""Share of unknown symbols from which on the user is warned."""
_PLURAL = {"word": "words", "char": "characters"}


@dataclass(frozen=True)
class CorpusConfig:
    """How text becomes ids; every corpus has these settings."""

    vocab_size: int = option(30_000, "most frequent words kept", paper="30,000 (code)", min=1, max=2_000_000)
    min_count: int = option(1, "occurrences in the training split that a word needs", min=1)
    max_len: int = option(25, "longest sentence in words; longer ones are dropped", paper="25 (code)", min=1, max=1000)
    unit: Literal["word", "char"] = option("word", "what a symbol is; all sizes and lengths count symbols")
    tokenize: Literal["auto", "space", "raw"] = option(
        "auto", "space: tokens stand apart already; raw: ordinary text; auto: what the corpus needs"
    )
    lowercase: bool = option(True, "fold to lower case")
    encoding: str = option("auto", "of the files, for example latin-1; auto: the corpus's own, else utf-8")
    buckets: bool = option(True, "draw each training batch from sentences of about one length")
    exact_lengths: bool = option(False, "with buckets: of exactly one length, as far as there are enough of it")


S = TypeVar("S", bound=CorpusConfig, default=CorpusConfig)


class CorpusDataset(Dataset[S]):
    """Sentences without labels, with any number of further columns. Subclasses define `read`.

    A row `x` is symbols, `<eos>`, `<pad>`...; a batch has each further column under its name, ids of its own
    vocabulary `[n, its own width]`, or int64 `[n]` for a column of classes. A sentence that a column lacks is padding
    alone, or -1. Within a bucket of lengths every shape is fixed. `spec.extra` holds the vocabulary, and those of the
    columns under `columns`, so that a checkpoint holds them as well. Text that a trained model is to read
    (`files.model`) is read with the model's vocabulary and length.
    """

    raw: ClassVar[bool] = False
    """Whether the corpus comes as ordinary text, for `tokenize auto`."""
    charset: ClassVar[str] = "utf-8"
    units: ClassVar[Mapping[str, str]] = {}
    """What a symbol of a column is: word, char or class; default: as in `x`."""

    def __init__(self, config: S, device: torch.device, files: Files) -> None:
        super().__init__(config, device, files)
        self.encoding = self.charset if config.encoding == "auto" else config.encoding
        known = files.model
        self.model = known if known is not None and known.kind == "sentence" and "vocab" in known.extra else None
        with unpacked(files) as there:
            parts, classes, origin = self.read(there)
            if there is not files:  # an archive: messages name it, not the folder that it was unpacked into
                origin = origin.replace(str(there.folders[0]), str(files.folders[0]))
        self.origin = origin
        self._build(parts, classes)

    def read(self, files: Files) -> tuple[dict[str, Part], tuple[str, ...], str]:
        """Splits (train, dev, test, unsup), label names, and the sentence about the origin."""
        raise NotImplementedError

    # Building

    def _build(self, parts: dict[str, Part], classes: tuple[str, ...]) -> None:
        reader = None if self.model is None else Vocab.from_spec(self.model)
        self._unit = self.config.unit if reader is None else reader.unit
        text = self._drafted(parts, reader)
        columns = self._further(parts)
        split = np.concatenate([np.full(len(part.lines), i) for i, part in enumerate(parts.values())])
        learnt = np.isin(split, [i for i, name in enumerate(parts) if name in LEARNT])
        limit = self.config.max_len if reader is None else reader.max_len
        kept = self._kept(text, columns, limit, learnt)
        if reader is None:
            limit = int(text.sizes[kept & learnt].max())
            short = kept & (text.sizes <= limit)
            self._say_left_out(int((kept & ~short).sum()), limit, "x")
            kept = short
            counts = text.counts(kept & learnt)
            reader = self._vocabulary(counts, unit=self.config.unit, raw=self._raw(parts), max_len=limit)
        self.vocab = reader
        held, first = dict[str, Tensor](), 0
        for i, name in enumerate(parts):
            n = int((kept & (split == i)).sum())
            held[name] = torch.arange(first, first + n, device=self.device)
            first += n
        self.parts = held
        self.text = text.column(self.vocab, kept, self.device)
        self.unknown = self._unknown_shares(text, kept, split)
        self._fill(columns, kept, learnt)
        extra = self.vocab.to_dict() | ({"columns": self._described()} if columns else {})
        width = self.vocab.max_len + 1
        self.spec = DataSpec("sentence", (width,), (0.0, float(len(self.vocab) - 1)), classes, extra)
        self._finish(parts, kept, split)
        self._sort()

    def _raw(self, parts: Mapping[str, Part]) -> bool:
        raw = self.raw if self.config.tokenize == "auto" else self.config.tokenize == "raw"
        return raw and not any(part.tags for part in parts.values())  # tags belong to words as they stand

    def _splitter(self, unit: str, raw: bool, lowercase: bool) -> Any:
        if unit == "class":
            return lambda line: [line]
        if unit == "char":
            return lambda line: split_characters(line, lowercase=lowercase)
        return lambda line: split_words(line, raw=raw, lowercase=lowercase)

    def _drafted(self, parts: Mapping[str, Part], reader: Vocab | None) -> Draft:
        """All text of all splits in order, with a mark on nouns where the data or a tagger knows them."""
        raw, lowercase, unit = self._raw(parts), self.config.lowercase, self.config.unit
        if reader is not None:  # splitting what is split changes nothing
            raw = raw or (reader.raw and self.config.tokenize == "auto" and not any(p.tags for p in parts.values()))
            lowercase, unit = reader.lowercase, reader.unit
        splitter = self._splitter(unit, raw, lowercase)
        draft, mark = Draft(splitter), self._noun_marker() if unit == "word" else None
        for name, part in parts.items():
            known: Iterator[list[str]] | None = None if part.tags is None or unit != "word" else iter(part.tags)
            if part.tags is None and mark is not None:
                known = tags_of(mark, part.lines, splitter, f"split {name} of {self.origin}")
            for i, line in enumerate(part.lines):
                words = draft.add(line)
                if known is None:
                    continue
                tags = next(known)
                if len(tags) != len(words):
                    raise DistkError(
                        f"sentence {i + 1:,} of split '{name}' has {counted(len(words), 'word')} and"
                        f" {counted(len(tags), 'tag')}: '{line[:60]}'."
                    )
                draft.mark([tag.startswith(("NN", "NOUN", "PROPN")) for tag in tags])
        return draft

    def _noun_marker(self) -> Any:
        return None

    def _further(self, parts: Mapping[str, Part]) -> dict[str, Draft | list[str | None]]:
        """Every further column: a draft of its sentences, or the values of a column of classes."""
        names = dict.fromkeys(name for part in parts.values() for name in part.columns)
        made: dict[str, Draft | list[str | None]] = {}
        for name in names:
            held = [line for p in parts.values() for line in p.columns.get(name, [None] * len(p.lines))]
            unit = self.unit_of(name)
            if unit == "class":
                made[name] = held
                continue
            draft = made[name] = Draft(self._splitter(unit, False, self.config.lowercase and unit == self.config.unit))
            for line in held:
                draft.add(line)
        return made

    def unit_of(self, column: str) -> str:
        """What a symbol of a further column is: word, char or class."""
        return self.units.get(column, self.config.unit)

    def _kept(self, text: Draft, columns: Mapping[str, Any], limit: int, learnt: np.ndarray) -> np.ndarray:
        """Which sentences are kept, bool `[n]`: none that is empty or too long, in `x` or in a further column."""
        sizes, plural = text.sizes, _PLURAL[self._unit]
        kept = (sizes > 0) & (sizes <= limit)
        self._say_left_out(int((sizes > limit).sum()), limit, "x")
        for name, draft in columns.items():
            if isinstance(draft, Draft):
                most = self._limit_of(name)
                self._say_left_out(int((kept & (draft.sizes > most)).sum()), most, name)
                kept &= (draft.sizes != 0) & (draft.sizes <= most)
        if not kept.any() or (self.model is None and not (kept & learnt).any()):
            what = "the training data" if self.model is None else "these files"
            raise UsageError(f"no sentence of {what} has between 1 and {limit} {plural}.")
        return kept

    def _limit_of(self, column: str) -> int:
        """Most symbols of a sentence in a further column."""
        if self.model is not None and column in self.model.extra.get("columns", {}):
            return int(self.model.extra["columns"][column]["max_len"])
        return int(getattr(self.config, "max_target", self.config.max_len))

    def _say_left_out(self, n: int, limit: int, column: str) -> None:
        if n:
            unit = self._unit if column == "x" else self.unit_of(column)
            where = "" if column == "x" else f" in '{column}'"
            note(f"{counted(n, 'sentence')} of more than {limit} {_PLURAL[unit]}{where} left out")

    def _vocabulary(self, counts: Mapping[str, int], **settings: Any) -> Vocab:
        config = self.config
        lowercase = settings.pop("lowercase", config.lowercase)
        made = Vocab.build(counts, config.vocab_size, self.least(counts), lowercase=lowercase, **settings)
        if len(made) == len(Vocab.build({})):
            raise UsageError(f"no {settings['unit']} occurs {counted(self.least(counts), 'time')}: lower --min-count.")
        return made

    def least(self, counts: Mapping[str, int]) -> int:
        """Occurrences that a symbol needs, given how often each occurs."""
        return int(self.config.min_count)

    def _unknown_shares(self, draft: Draft, kept: np.ndarray, split: np.ndarray) -> dict[str, float]:
        """Share of each split's symbols that the vocabulary lacks; counted aloud where it is a model's vocabulary."""
        shares, told, plural = {}, [], _PLURAL[self.vocab.unit]
        for i, name in enumerate(self.parts):
            unknown, every = draft.unknown(self.vocab, kept & (split == i))
            share = shares[name] = unknown / max(1, every)
            told.append(f"{name} {unknown:,} of {every:,} ({share:.1%})")
            if share > MANY_UNKNOWN[self.vocab.unit]:
                who = "are outside the vocabulary" if self.model is None else "are unknown to the model"
                warn(
                    f"{share:.1%} of the {plural} in split '{name}' {who}: "
                    f"a small corpus, or text split into {plural} in another way"
                )
        if self.model is not None:
            note(f"{plural} that the model does not know: {', '.join(told)}")
        return shares

    def _fill(self, columns: Mapping[str, Any], kept: np.ndarray, learnt: np.ndarray) -> None:
        """The further columns on the device, with the model's vocabularies where it has them."""
        known = {} if self.model is None else self.model.extra.get("columns", {})
        self.columns: dict[str, Column | Classes] = {}
        for name, draft in columns.items():
            if not isinstance(draft, Draft):
                self.columns[name] = classes_of(draft, kept, self.device, known.get(name, {}).get("classes"))
                continue
            if name in known:
                vocab = Vocab.from_dict(known[name])
            else:
                unit = self.unit_of(name)
                longest = max(1, int(draft.sizes[kept].max()))
                lowercase = self.config.lowercase and unit == self.config.unit
                vocab = self._vocabulary(draft.counts(kept & learnt), unit=unit, lowercase=lowercase, max_len=longest)
            self.columns[name] = draft.column(vocab, kept, self.device)
            self._say_unknown(draft, vocab, kept, name)

    def _say_unknown(self, draft: Draft, vocab: Vocab, kept: np.ndarray, name: str) -> None:
        """The same for a further column, over all splits."""
        unknown, every = draft.unknown(vocab, kept)
        plural = _PLURAL[vocab.unit]
        if self.model is not None:
            note(f"{plural} in '{name}' that the model does not know: {unknown:,} of {every:,}")
        elif unknown > MANY_UNKNOWN[vocab.unit] * every:
            warn(f"{unknown:,} of {every:,} {plural} in '{name}' are outside its vocabulary")

    def _described(self) -> dict[str, Any]:
        """The further columns for `spec.extra`."""
        return {
            name: {"classes": list(held.names)} if isinstance(held, Classes) else held.vocab.to_dict()
            for name, held in self.columns.items()
        }

    def _finish(self, parts: Mapping[str, Part], kept: np.ndarray, split: np.ndarray) -> None:
        """What a subclass adds once the sentences are chosen."""

    # Buckets

    def _groups(self) -> tuple[Tensor, int]:
        """A group for each row, of which training batches hold equal shares, and how many groups there are."""
        return torch.zeros(len(self), dtype=torch.long, device=self.device), 1

    def _sort(self) -> None:
        groups, many = self._groups()
        size, top = self.text.sizes.cpu(), self.spec.shape[0]
        further = {name: held.sizes.cpu() for name, held in self.columns.items() if isinstance(held, Column)}
        self.buckets = Buckets(size, top, groups.cpu(), many, self.parts, further, self._edges(top))

    def _edges(self, top: int) -> tuple[int, ...]:
        """Upper ends that buckets may have: none, all, or the usual ones."""
        if not self.config.buckets:
            return ()
        return tuple(range(2, top)) if self.config.exact_lengths else EDGES

    # The data set's interface

    def __len__(self) -> int:
        return len(self.text.offset) - 1

    def column(self, name: str) -> Column:
        """The sentences of `x` or of a further column."""
        held = self.text if name == "x" else self.columns.get(name)
        if not isinstance(held, Column):
            there = ["x", *(n for n, c in self.columns.items() if isinstance(c, Column))]
            raise UsageError(f"data set '{self.name}' has no sentences '{name}', it has {names_of(there)}.")
        return held

    def batch(self, rows: Tensor, widths: Mapping[str, int] | None = None) -> dict[str, Tensor]:
        """`x` int64 `[n, max_len + 1]` and the further columns. widths: columns of some of them, by name."""
        widths = widths or {}
        batch = {"x": self.text.batch(rows, widths.get("x", self.spec.shape[0]))}
        for name, held in self.columns.items():
            if isinstance(held, Classes):
                batch[name] = held.values[rows]
            else:
                batch[name] = held.batch(rows, widths.get(name, held.vocab.max_len + 1))
        return batch

    def bucket(self, step: int, seed: int, split: str = "train") -> Hashable:
        """The length bucket of a step, drawn by its share of the text; a function of (seed, step), so resumable."""
        return self.buckets.draw(step, seed, split)

    def sample(
        self, n: int, generator: torch.Generator, split: Split = "train", bucket: Hashable = None
    ) -> dict[str, Tensor]:
        """`n` sentences with replacement; of the training split in equal shares of groups, row i of group i mod K.

        bucket: a value of `bucket()`, or None for all lengths. Other splits are drawn uniformly.
        """
        rows = self.buckets.rows(n, generator, split, bucket)
        if rows is None:
            return super().sample(n, generator, split)
        return self.batch(rows, None if bucket is None else self.buckets.widths[cast(int, bucket)])

    def lines(self, rows: Tensor, column: str = "x") -> list[str]:
        """Rows as lines of text."""
        return [self.column(column).vocab.join(words) for words in self.words(rows, column)]

    def words(self, rows: Tensor, column: str = "x") -> list[list[str]]:
        """Rows as lists of symbols."""
        held = self.column(column)
        width = held.vocab.max_len + 1
        return [held.vocab.decode(row) for part in rows.split(4096) for row in held.batch(part, width).tolist()]

    def written(self, rows: Tensor, column: str = "x") -> list[list[str]]:
        """Rows as lists of symbols as the text has them, where `words` has `<unk>` for what the vocabulary lacks."""
        return self.column(column).written(rows)

    def preview(self, rows: Tensor) -> str:
        """Rows as text, each sentence with its further columns below it."""
        columns = {"x": "", **{name: f"  {name}: " for name in self.columns}}
        shown = {
            name: [held.names[i] if i >= 0 else "" for i in held.values[rows].tolist()]
            if isinstance(held := self.columns.get(name), Classes)
            else self.lines(rows, name)
            for name in columns
        }
        return "".join(f"{start}{shown[name][i]}\n" for i in range(len(rows)) for name, start in columns.items())

    def stats(self) -> list[dict[str, Any]]:
        """For each column and split: sentences, symbols, size of the vocabulary, longest sentence."""
        found = []
        for name in ("x", *(n for n, held in self.columns.items() if isinstance(held, Column))):
            held = self.column(name)
            for split, rows in self.parts.items():
                sizes = held.sizes[rows]
                there = int((sizes > 0).sum())
                counts = {"sentences": there, "symbols": int(sizes.sum()) - there, "vocabulary": len(held.vocab)}
                found.append({"column": name, "split": split, **counts, "longest": max(0, int(sizes.max()) - 1)})
        return found
