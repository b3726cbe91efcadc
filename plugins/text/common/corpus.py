"""Sentences on the device: ragged storage, one-gather batches, length buckets, equal shares of labels."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from typing_extensions import TypeVar

from distk import Dataset, DataSpec, Files, Split, UsageError, option
from distk.console import note, warn
from distk.plugins.text.common.files import Part
from distk.plugins.text.common.tagger import open_tagger
from distk.plugins.text.common.vocab import EOS, PAD, UNK, Vocab

EDGES = (8, 12, 16, 20, 26, 36, 51, 76, 101)
"""Bucket widths in tokens, `<eos>` included."""
SMALLEST = 32
"""Sentences of each label that a bucket must have; smaller ones join the next."""


@dataclass(frozen=True)
class TextConfig:
    """How text becomes ids; every corpus has these settings."""

    vocab_size: int = option(30_000, "most frequent words kept", paper="30,000 (code)", min=1, max=2_000_000)
    min_count: int = option(1, "occurrences in the training split that a word needs", min=1)
    max_len: int = option(25, "longest sentence in words; longer ones are dropped", paper="25 (code)", min=1, max=1000)
    tokenize: Literal["auto", "space", "raw"] = option(
        "auto", "space: tokens stand apart already; raw: ordinary text; auto: what the corpus needs"
    )
    lowercase: bool = option(True, "fold to lower case")
    encoding: str = option("auto", "of the files, for example latin-1; auto: the corpus's own, else utf-8")
    balance: bool = option(True, "equal shares of the labels in training batches: row i has label i mod K")
    buckets: bool = option(True, "draw each training batch from sentences of about one length")
    tagger: Literal["none", "auto", "perceptron", "textblob", "builtin"] = option(
        "none", "mark nouns in batches; none: only where the data has tags"
    )
    tagger_file: str = option("", "tagger trained by `distk text train-tagger`")


S = TypeVar("S", bound=TextConfig, default=TextConfig)


class SentenceDataset(Dataset[S]):
    """Labelled sentences. Subclasses define `read`.

    A row `x` is words, `<eos>`, `<pad>`...; `spec.extra` holds the vocabulary, so that a checkpoint holds it as well.
    """

    raw = False
    """Whether the corpus comes as ordinary text, for `tokenize auto`."""
    charset = "utf-8"

    def __init__(self, config: S, device: torch.device, files: Files) -> None:
        super().__init__(config, device, files)
        self.encoding = self.charset if config.encoding == "auto" else config.encoding
        parts, classes, self.origin = self.read(files)
        self._build(parts, classes)

    def read(self, files: Files) -> tuple[dict[str, Part], tuple[str, ...], str]:
        """Splits (train, dev, test, unsup), label names, and the sentence about the origin."""
        raise NotImplementedError

    def _build(self, parts: dict[str, Part], classes: tuple[str, ...]) -> None:
        config = self.config
        raw = self.raw if config.tokenize == "auto" else config.tokenize == "raw"
        raw = raw and not any(part.tags for part in parts.values())  # tags belong to words as they stand
        split = Vocab((), raw, config.lowercase).words
        words = {name: [split(line) for line in part.lines] for name, part in parts.items()}
        kept = {name: [i for i, s in enumerate(rows) if 0 < len(s) <= config.max_len] for name, rows in words.items()}
        long = sum(len(s) > config.max_len for rows in words.values() for s in rows)
        if long:
            note(f"{long:,} sentences of more than {config.max_len} words left out")
        if not kept.get("train"):
            raise UsageError(f"no sentence of the training data has between 1 and {config.max_len} words.")
        counts = Counter(word for i in kept["train"] for word in words["train"][i])
        longest = max(len(words["train"][i]) for i in kept["train"])
        self.vocab = Vocab.build(
            counts, config.vocab_size, config.min_count, raw=raw, lowercase=config.lowercase, max_len=longest
        )
        self._tensors(parts, words, {n: [i for i in rows if len(words[n][i]) <= longest] for n, rows in kept.items()})
        self.spec = DataSpec(
            "sentence", (longest + 1,), (0.0, float(len(self.vocab) - 1)), classes, self.vocab.to_dict()
        )
        self._check_classes(classes)
        self._sort()

    def _tensors(self, parts: dict[str, Part], words: dict[str, list[list[str]]], kept: dict[str, list[int]]) -> None:
        flat: list[int] = []
        offset, labels, nouns = [0], list[int](), list[bool]()
        self._split: dict[str, Tensor] = {}
        self.unknown: dict[str, float] = {}
        mark = self._noun_marker()
        for name, rows in kept.items():
            first, began = len(labels), len(flat)
            for i in rows:
                flat += [*self.vocab.encode(words[name][i]), EOS]
                offset.append(len(flat))
                labels.append(parts[name].labels[i])
                if mark is not None or parts[name].tags is not None:
                    nouns += [*self._nouns(parts[name], i, words[name][i], mark), False]
            self._split[name] = torch.arange(first, len(labels), device=self.device)
            self.unknown[name] = flat[began:].count(UNK) / max(1, len(flat) - began - len(rows))
            if self.unknown[name] > 0.05:
                warn(
                    f"{self.unknown[name]:.1%} of the words in split '{name}' do not occur in training: "
                    "a small corpus, or text split into words in another way"
                )
        self.tokens = torch.tensor(flat, dtype=torch.int32, device=self.device)
        self.offset = torch.tensor(offset, device=self.device)
        self.label = torch.tensor(labels, dtype=torch.long, device=self.device)
        self.noun = torch.tensor(nouns, device=self.device) if len(nouns) == len(flat) else None

    def _noun_marker(self) -> Any:
        if self.config.tagger == "none" and not self.config.tagger_file:
            return None
        return open_tagger(self.config.tagger, self.config.tagger_file)

    def _nouns(self, part: Part, i: int, words: list[str], mark: Any) -> list[bool]:
        tags = part.tags[i] if part.tags is not None else mark.tags(words)
        return [tag.startswith(("NN", "NOUN", "PROPN")) for tag in tags]

    def _check_classes(self, classes: tuple[str, ...]) -> None:
        count = torch.bincount(self.label[self._split["train"]].clamp(min=0), minlength=len(classes)).tolist()
        for name, n in zip(classes, count, strict=False):
            if n == 0:
                raise UsageError(f"label '{name}' has no training sentence.")
        self.counts = tuple(count)

    def _sort(self) -> None:
        """Training rows sorted by (label, bucket), with where each (label, bucket) begins: all known to the host."""
        rows = self._split["train"]
        classes = max(1, len(self.spec.classes)) if self.config.balance else 1
        label = (self.label[rows] if classes > 1 else torch.zeros_like(rows)).cpu()
        size = (self.offset[1:] - self.offset[:-1])[rows].cpu()
        top = self.spec.shape[0]
        edges = [e for e in EDGES if e < top] if self.config.buckets else []
        for edge in list(edges):  # a bucket that is too small for some label joins the next longer one
            low = max((e for e in edges if e < edge), default=0)
            inside = torch.bincount(label[(size > low) & (size <= edge)], minlength=classes)
            if int(inside.min()) < SMALLEST:
                edges.remove(edge)
        low = max(edges, default=0)
        if edges and int(torch.bincount(label[size > low], minlength=classes).min()) < SMALLEST:
            edges.pop()
        self.edges = (*edges, top)
        bucket = torch.bucketize(size, torch.tensor(self.edges))
        key = label * len(self.edges) + bucket
        self._sorted = rows[key.argsort(stable=True).to(self.device)]
        table = torch.bincount(key, minlength=classes * len(self.edges)).view(classes, -1)
        self._start = (table.flatten().cumsum(0) - table.flatten()).view_as(table).tolist()
        self._count = table.tolist()
        share = table.double() / table.sum(1, keepdim=True)
        self._cumulated = share.mean(0).cumsum(0).tolist()

    # The data set's interface

    def __len__(self) -> int:
        return len(self.label)

    def rows(self, split: str) -> Tensor | None:
        """Rows of train, dev, test (and unsup, where there is unlabelled text); None for all."""
        return self._split.get(split)

    def split(self, name: str) -> Tensor:
        """The rows of a split, int64. Raises UsageError for one that this data set does not have."""
        if name not in self._split:
            raise UsageError(f"data set '{self.name}' has no split '{name}'.")
        return self._split[name]

    def batch(self, rows: Tensor, width: int | None = None) -> dict[str, Tensor]:
        """`x` int64 `[n, max_len + 1]` (or `width` columns), `label` int64 `[n]`, `noun` bool like x where known."""
        place = torch.arange(width or self.spec.shape[0], device=self.device)
        start = self.offset[rows][:, None]
        outside = place >= self.offset[rows + 1][:, None] - start
        index = (start + place).clamp_(max=len(self.tokens) - 1)
        batch = {"x": self.tokens[index].long().masked_fill_(outside, PAD), "label": self.label[rows]}
        if self.noun is not None:
            batch["noun"] = self.noun[index].masked_fill_(outside, False)
        return batch

    def bucket(self, step: int, seed: int) -> Hashable:
        """The length bucket of a step, drawn by its share of the text; a function of (seed, step), so resumable."""
        if len(self.edges) == 1:
            return None
        u = random.Random(f"bucket/{seed}/{step}").random()
        return next((b for b, total in enumerate(self._cumulated) if u < total), len(self.edges) - 1)

    def sample(
        self, n: int, generator: torch.Generator, split: Split = "train", bucket: Hashable = None
    ) -> dict[str, Tensor]:
        """`n` sentences with replacement; of the training split in equal shares of labels, row i of label i mod K.

        bucket: a value of `bucket()`, or None for all lengths. Other splits are drawn uniformly.
        """
        if split != "train":
            return super().sample(n, generator, split)
        classes = len(self._count)
        each = -(-n // classes)
        drawn = []
        for k in range(classes):
            first, count = self._start[k][0], sum(self._count[k])
            if isinstance(bucket, int):
                first, count = self._start[k][bucket], self._count[k][bucket]
            drawn.append(first + torch.randint(count, (each,), generator=generator, device=self.device))
        rows = self._sorted[torch.stack(drawn, 1).flatten()[:n]]
        return self.batch(rows, self.edges[bucket] if isinstance(bucket, int) else None)

    def lines(self, rows: Tensor) -> list[str]:
        """Rows as lines of text."""
        return [line for part in rows.split(4096) for line in self.vocab.lines(self.batch(part)["x"])]

    def words(self, rows: Tensor) -> list[list[str]]:
        """Rows as lists of words."""
        return [line.split(" ") if line else [] for line in self.lines(rows)]

    def nouns(self, rows: Tensor) -> list[list[bool]] | None:
        """Which words are nouns, as the data says; None where it has no tags."""
        if self.noun is None:
            return None
        return [row for part in rows.split(4096) for row in self._noun_rows(part)]

    def _noun_rows(self, rows: Tensor) -> list[list[bool]]:
        batch = self.batch(rows)
        size = ((batch["x"] != PAD).sum(1) - 1).tolist()
        return [row[:n] for row, n in zip(batch["noun"].tolist(), size, strict=True)]


def divided(part: Part, seed: int = 0, dev: float = 0.1, test: float = 0.1) -> dict[str, Part]:
    """A corpus without an official split: 80/10/10 by a fixed permutation, in each label alike."""
    parts = {name: Part(tags=None if part.tags is None else []) for name in ("train", "dev", "test")}
    for label in sorted(set(part.labels)):
        rows = [i for i, other in enumerate(part.labels) if other == label]
        random.Random(f"split/{seed}/{label}").shuffle(rows)
        cut = [round(len(rows) * test), round(len(rows) * (test + dev))]
        for name, chosen in (("test", rows[: cut[0]]), ("dev", rows[cut[0] : cut[1]]), ("train", rows[cut[1] :])):
            _take(parts[name], part, sorted(chosen))
    return parts


def _take(target: Part, source: Part, rows: Sequence[int]) -> None:
    target.lines += [source.lines[i] for i in rows]
    target.labels += [source.labels[i] for i in rows]
    if target.tags is not None and source.tags is not None:
        target.tags += [source.tags[i] for i in rows]


def completed(parts: dict[str, Part]) -> tuple[dict[str, Part], str]:
    """Splits with dev and test filled in where the files lack them, and what was done about it in words."""
    missing = [name for name in ("dev", "test") if name not in parts]
    if len(missing) == 2:
        return divided(parts["train"]), "; no dev and test files, so a tenth of it each"
    if missing:
        other = "test" if missing[0] == "dev" else "dev"
        return {**parts, missing[0]: parts[other]}, f"; no {missing[0]} files, so {other} serves as both"
    return parts, ""
