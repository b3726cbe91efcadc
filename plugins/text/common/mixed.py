"""Corpora with text that has no label: sentences of films, and the three labelled corpora with it as one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from distk import Files, option
from distk.console import counted
from distk.plugins.text.common import files as formats
from distk.plugins.text.common.corpus import SentenceDataset, TextConfig
from distk.plugins.text.common.datasets import (
    SENTIMENT,
    imdb_folder,
    read_finegrained,
    read_rt_polarity,
    read_uci,
)
from distk.plugins.text.common.files import Part
from distk.plugins.text.common.splits import divided, joined, unlabelled

SCORED = tuple(
    f"{folder}{name}" for folder in ("", "imdb_sentences/") for name in ("filter_imdb_valid.jsonl", "valid.txt")
)


class ImdbSentences(SentenceDataset):
    """Short sentences of film reviews, tokens apart by spaces, with a sentiment of their own."""

    reads = "filter_imdb_valid.jsonl (also .gz, or valid.txt): a JSON object a line with review and score"

    def read(self, files: Files) -> tuple[dict[str, Part], tuple[str, ...], str]:
        path = formats.named(files, SCORED)
        part = formats.read_scored(path, self.encoding)
        return divided(part), SENTIMENT, f"{counted(len(part.lines), 'sentence')} from '{path}', split 80/10/10"


@dataclass(frozen=True)
class Sentiment3Config(TextConfig):
    """What is joined."""

    vocab_size: int = option(20_000, "most frequent words kept", min=1, max=2_000_000)
    max_len: int = option(30, "longest sentence in words; longer ones are dropped", min=1, max=1000)
    uci_per_domain: int = option(1000, "sentences of each UCI file", paper="500", min=2, max=1000)
    unlabelled: bool = option(True, "read text without labels as split unsup")


class Sentiment3(SentenceDataset[Sentiment3Config]):
    """Film and product sentences of three corpora by sentiment under one vocabulary, with unlabelled text.

    Each corpus is split by itself; the column `corpus` says which one a sentence is of. The split `unsup` is the Large
    Movie Review data set where its folder is there, else the short IMDb sentences, else the labelled text without its
    labels; `origin` says which.
    """

    reads = (
        "rt-polarity.{pos,neg}, the three *_labelled.txt and finegrained.txt, together or in folders rt_polarity, "
        "uci_sentiment and sentence_sentiment; aclImdb/ or filter_imdb_valid.jsonl without labels"
    )
    raw = True
    units: ClassVar = {"corpus": "class"}

    def read(self, files: Files) -> tuple[dict[str, Part], tuple[str, ...], str]:
        films, _ = read_rt_polarity(files, self.config.encoding)
        products, _ = read_uci(files, self.encoding)
        mixed, _ = read_finegrained(files, self.encoding, ("neg", "pos"))
        corpora = {"rtpolarity": films, "uci": self._fewer(products), "finegrained": mixed}
        for name, part in corpora.items():
            part.columns["corpus"] = [name] * len(part.lines)
        parts = joined(divided(part) for part in corpora.values())
        sizes = ", ".join(f"{len(part.lines):,} of {name}" for name, part in corpora.items())
        origin = f"{sizes}, each split 80/10/10"
        if self.config.unlabelled:
            parts["unsup"], source = self._unlabelled(files, parts["train"])
            origin += f"; {counted(len(parts['unsup'].lines), 'sentence')} without labels from {source}"
        return parts, SENTIMENT, origin

    def _fewer(self, part: Part) -> Part:
        """The first sentences of each of the three files, in equal numbers of both labels."""
        each, third, made = self.config.uci_per_domain // 2, len(part.lines) // 3, Part()
        for k in range(3):
            for label in (0, 1):
                rows = [i for i in range(k * third, (k + 1) * third) if part.labels[i] == label]
                made.take(part, rows[:each])
        return made

    def _unlabelled(self, files: Files, train: Part) -> tuple[Part, str]:
        if (root := imdb_folder(files)) is not None:
            part = Part()
            for place in ("train/pos", "train/neg", "train/unsup", "test/pos", "test/neg"):
                if (root / place).is_dir():
                    part.add(list(formats.read_reviews(root / place, self.encoding)), -1)
            return part, f"'{root}'"
        path = next((p for f in files.folders for n in SCORED if (p := formats.there(f / n)) is not None), None)
        if path is not None:
            return unlabelled(formats.read_scored(path, self.encoding)), f"'{path}'"
        return unlabelled(train), "the training sentences themselves"
