"""The corpora: the stand-in, and the real ones in the form in which their users download them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from distk import DistkError, Files, UsageError, option
from distk.console import counted
from distk.files import write_atomic
from distk.plugins.text.common import files as formats
from distk.plugins.text.common import standin
from distk.plugins.text.common.corpus import SentenceDataset, TextConfig
from distk.plugins.text.common.files import Part
from distk.plugins.text.common.splits import completed, described, divided, joined

SENTIMENT = ("negative", "positive")


@dataclass(frozen=True)
class StandinConfig(TextConfig):
    """The stand-in's size and noise."""

    variant: Literal["tiny", "small", "full"] = option("small", "how much of the grammar: tiny, small or full")
    label_from: Literal["sentiment", "topic"] = option("sentiment", "what the label is")
    label_noise: float = option(0.1, "share of training labels that are wrong", min=0, max=0.5)
    reverse: float = option(0.35, "probability of a reverser before a polar word", min=0, max=1)
    sentences: int = option(0, "training sentences; 0: 20,000, with full 200,000", min=0, max=10_000_000)
    held_out: int = option(2000, "sentences of dev and of test", min=1, max=1_000_000)
    data_seed: int = option(0, "which corpus is generated", min=0)


class StandinReviews(SentenceDataset[StandinConfig]):
    """Reviews from a grammar: tags, topics and gold rewrites are known."""

    def read(self, files: Files) -> tuple[dict[str, Part], tuple[str, ...], str]:
        config = self.config
        base = standin.VARIANTS[config.variant]
        topics = base.topics[:3] if config.label_from == "topic" else base.topics
        grammar = standin.Grammar(topics, base.nouns, base.adjectives, base.templates, config.reverse)
        n = config.sentences or standin.LENGTHS[config.variant]
        parts = {}
        for split, size in (("train", n), ("dev", config.held_out), ("test", config.held_out)):
            made = standin.generate(grammar, size, f"{config.data_seed}/{split}")
            labels = [s.topic if config.label_from == "topic" else s.label for s in made]
            if split == "train":
                wrong = standin.flips(n, config.label_noise, str(config.data_seed))
                labels = [(y + w) % self._classes(topics) for y, w in zip(labels, wrong, strict=True)]
            parts[split] = Part([" ".join(s.words) for s in made], labels, [list(s.tags) for s in made])
        names = topics if config.label_from == "topic" else SENTIMENT
        return parts, names, f"stand-in corpus from a grammar ({config.variant}), {n:,} training sentences"

    def _classes(self, topics: tuple[str, ...]) -> int:
        return len(topics) if self.config.label_from == "topic" else 2

    def gold(self, words: list[str]) -> list[str]:
        """The words with the other sentiment."""
        return standin.gold(words)

    def oracle(self, words: list[str]) -> int | None:
        """The label that the words express, None where they do not say."""
        if self.config.label_from == "sentiment":
            return standin.oracle(words)
        votes = [k for w in words for k, t in enumerate(self.spec.classes) if w in standin.NOUNS[t].split()]
        return max(set(votes), key=votes.count) if votes else None

    def polar(self, word: str) -> bool:
        """Whether a word carries the sentiment."""
        return word in standin.POLARITY


@dataclass(frozen=True)
class YelpConfig(TextConfig):
    """Which of the two layouts the files have."""

    layout: Literal["auto", "shen", "arae"] = option("auto", "file names: sentiment.train.0 or train1.txt")


class Yelp(SentenceDataset[YelpConfig]):
    """Sentences of Yelp reviews by sentiment, and other corpora with the same file names."""

    reads = "sentiment.{train,dev,test}.{0,1}, or train1.txt train2.txt valid1.txt valid2.txt test0.txt test1.txt"

    def read(self, files: Files) -> tuple[dict[str, Part], tuple[str, ...], str]:
        formats.folder_of(files, "")
        layout = self.config.layout
        if layout == "auto":
            layout = "arae" if self._has(files, "arae") and not self._has(files, "shen") else "shen"
        parts: dict[str, Part] = {}
        for split, table in formats.yelp_table(layout).items():
            names = [self._names(name, layout) for name, _ in table]
            # A trained model also reads a folder that has no training files, such as the published dev files alone.
            needed = split == "train" and (self.model is None or not self._has(files, layout, any_split=True))
            if not needed and not any(formats.there(f / n) for f in files.folders for ns in names for n in ns):
                continue
            part = parts[split] = Part()
            for options, (_, label) in zip(names, table, strict=True):
                path = formats.named(files, options)
                part.add(formats.read_lines(path, self.encoding), label)
                where = path.parent
        parts, remark = completed(parts, self.model is not None)
        return parts, SENTIMENT, f"{described(parts)} from '{where}'{remark}"

    @staticmethod
    def _names(name: str, layout: str) -> tuple[str, ...]:
        return tuple(name + ending for ending in ("", ".txt")) if layout == "arae" else (name,)

    def _has(self, files: Files, layout: str, any_split: bool = False) -> bool:
        """Whether a training file, or any file, of a layout is there."""
        table = formats.yelp_table(layout)
        names = [name for split in (table if any_split else ("train",)) for name, _ in table[split]]
        return any(formats.there(f / n) for f in files.folders for name in names for n in self._names(name, layout))


class RtPolarity(SentenceDataset):
    """Sentences of film reviews by sentiment (Pang & Lee 2005)."""

    reads = "rt-polarity.pos and rt-polarity.neg (also in rt-polaritydata/)"

    def read(self, files: Files) -> tuple[dict[str, Part], tuple[str, ...], str]:
        part, where = read_rt_polarity(files, self.config.encoding)
        return divided(part), SENTIMENT, f"{counted(len(part.lines), 'sentence')} from '{where}', split 80/10/10"


def read_rt_polarity(files: Files, encoding: str) -> tuple[Part, Path]:
    """Both files, and the folder. encoding: auto finds out, since the original and copies in UTF-8 are about."""
    part = Part()
    for label, ending in enumerate(("neg", "pos")):
        path = formats.named(files, tuple(f"{d}rt-polarity.{ending}" for d in ("", "rt-polaritydata/", "rt_polarity/")))
        part.add(formats.read_lines(path, formats.western(path) if encoding == "auto" else encoding), label)
    return part, path.parent


class Uci(SentenceDataset):
    """3,000 review sentences of Amazon, IMDb and Yelp by sentiment (Kotzias et al. 2015)."""

    reads = "amazon_cells_labelled.txt, imdb_labelled.txt and yelp_labelled.txt"
    raw = True

    def read(self, files: Files) -> tuple[dict[str, Part], tuple[str, ...], str]:
        part, where = read_uci(files, self.encoding)
        return divided(part), SENTIMENT, f"{counted(len(part.lines), 'sentence')} from '{where}', split 80/10/10"


def read_uci(files: Files, encoding: str) -> tuple[Part, Path]:
    """The three files, one after the other, and their folder."""
    parts = []
    for source in ("amazon_cells", "imdb", "yelp"):
        names = tuple(f"{d}{source}_labelled.txt" for d in ("", "sentiment labelled sentences/", "uci_sentiment/"))
        path = formats.named(files, names)
        parts.append({"all": formats.read_uci(path, encoding)})
    return joined(parts)["all"], path.parent


@dataclass(frozen=True)
class FinegrainedConfig(TextConfig):
    """Which labels are used."""

    labels: tuple[str, ...] = option(("neg", "pos"), "of pos, neg, neu, mix, nr, in the order of their numbers")

    def __post_init__(self) -> None:
        if len(set(self.labels)) != len(self.labels) or not set(self.labels) <= {"pos", "neg", "neu", "mix", "nr"}:
            raise ValueError("labels must be different ones of pos, neg, neu, mix, nr")


class Finegrained(SentenceDataset[FinegrainedConfig]):
    """Sentences of product reviews by sentiment (Täckström & McDonald 2011)."""

    reads = "finegrained.txt (also in data/)"
    raw = True

    def read(self, files: Files) -> tuple[dict[str, Part], tuple[str, ...], str]:
        part, path = read_finegrained(files, self.encoding, self.config.labels)
        long = {"neg": "negative", "pos": "positive", "neu": "neutral", "mix": "mixed", "nr": "not-relevant"}
        names = tuple(long[label] for label in self.config.labels)
        return divided(part), names, f"{counted(len(part.lines), 'sentence')} from '{path}', split 80/10/10"


def read_finegrained(files: Files, encoding: str, labels: tuple[str, ...]) -> tuple[Part, Path]:
    """The sentences that have one of the labels, and the file."""
    path = formats.named(files, ("finegrained.txt", "data/finegrained.txt", "sentence_sentiment/finegrained.txt"))
    return formats.read_finegrained(path, encoding, labels), path


@dataclass(frozen=True)
class ImdbConfig(TextConfig):
    """What is read."""

    unsup: bool = option(False, "read the unlabelled reviews as well (split unsup)")


class AclImdb(SentenceDataset[ImdbConfig]):
    """Sentences of film reviews, each with its review's sentiment (Maas et al. 2011)."""

    reads = "aclImdb/{train,test}/{pos,neg}/ID_RATING.txt"
    raw = True

    def read(self, files: Files) -> tuple[dict[str, Part], tuple[str, ...], str]:
        root = imdb_folder(files)
        if root is None:
            where = formats.folder_of(files, "aclImdb")
            raise UsageError(f"'{where}' holds no folder 'aclImdb/train/pos'; aclimdb reads {self.reads}.")
        parts = {}
        for split in ("train", "test"):
            part = parts[split] = Part()
            for label, name in enumerate(("neg", "pos")):
                part.add(list(formats.read_reviews(root / split / name, self.encoding)), label)
        train = divided(parts["train"], dev=0.05, test=0.0)
        parts = {"train": train["train"], "dev": train["dev"], "test": parts["test"]}
        if self.config.unsup:
            parts["unsup"] = Part()
            parts["unsup"].add(list(formats.read_reviews(root / "train" / "unsup", self.encoding)), -1)
        return parts, SENTIMENT, f"{len(parts['train'].lines):,} training sentences from '{root}'"


def imdb_folder(files: Files) -> Path | None:
    """The folder of the Large Movie Review data set, where there is one."""
    roots = (root for folder in files.folders for root in (folder, folder / "aclImdb"))
    return next((root for root in roots if (root / "train" / "pos").is_dir()), None)


@dataclass(frozen=True)
class YahooConfig(TextConfig):
    """Which topics and which text."""

    topics: tuple[str, ...] = option(
        ("Science & Mathematics", "Entertainment & Music", "Politics & Government"),
        "classes by name, as in classes.txt",
    )
    text: Literal["title", "question", "answer"] = option("title", "which column")


class Yahoo(SentenceDataset[YahooConfig]):
    """Questions or answers of Yahoo Answers by topic."""

    reads = "train.csv, test.csv and classes.txt"
    raw = True

    def read(self, files: Files) -> tuple[dict[str, Part], tuple[str, ...], str]:
        path = formats.named(files, ("classes.txt", "yahoo_answers_csv/classes.txt"))
        known = [line.strip() for line in formats.read_lines(path, self.encoding)]
        for topic in self.config.topics:
            if topic not in known:
                raise UsageError(f"--topics: '{topic}' is none of the classes in '{path}': {', '.join(known)}.")
        numbers = {known.index(topic) + 1: i for i, topic in enumerate(self.config.topics)}
        column = ("class", "title", "question", "answer").index(self.config.text)
        parts = {}
        for split in ("train", "test"):
            file = formats.named(files, (f"{split}.csv", f"yahoo_answers_csv/{split}.csv"))
            parts[split] = formats.read_csv(file, self.encoding, numbers, column)
        train = divided(parts["train"], dev=0.05, test=0.0)
        parts = {"train": train["train"], "dev": train["dev"], "test": parts["test"]}
        return (
            parts,
            self.config.topics,
            f"{len(parts['train'].lines):,} training {self.config.text}s from '{path.parent}'",
        )


def write_standin(folder: Path, config: Any) -> dict[str, int]:
    """Write the stand-in as files that `--data files` reads: {train,dev,test}.{0,1}; gold/ and tagged/ beside them.

    gold/test.0 holds the rewrites of test.0 line by line, tagged/test.0 the same sentences as word_TAG.
    Returns file name -> lines. Raises DistkError when the folder cannot be written.
    """
    data = StandinReviews(config, torch.device("cpu"), Files("standin-reviews", None, ""))
    parts, names, _ = data.read(Files("standin-reviews", None, ""))
    written = {}
    try:
        for sub in ("gold", "tagged"):
            (folder / sub).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DistkError(f"cannot create '{folder}': {error.strerror or error}.") from error
    for split, part in parts.items():
        for k in range(len(names)):
            rows = [i for i, label in enumerate(part.labels) if label == k]
            words = [part.lines[i].split(" ") for i in rows]
            tags = [part.tags[i] for i in rows]  # type: ignore[index]
            forms = {
                f"{split}.{k}": [" ".join(w) for w in words],
                f"gold/{split}.{k}": [" ".join(standin.gold(w)) for w in words],
                f"tagged/{split}.{k}": [
                    " ".join(map("_".join, zip(w, t, strict=True))) for w, t in zip(words, tags, strict=True)
                ],
            }
            for name, lines in forms.items():
                write_atomic(folder / name, "".join(line + "\n" for line in lines).encode())
                written[name] = len(lines)
    return written
