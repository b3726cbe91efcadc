"""The corpora: the stand-in, and the real ones in the form in which their users download them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from distk import DistkError, Files, UsageError, option
from distk.data import names_of
from distk.files import write_atomic
from distk.plugins.text.common import files as formats
from distk.plugins.text.common import standin
from distk.plugins.text.common.corpus import SentenceDataset, TextConfig, completed, divided
from distk.plugins.text.common.files import Part

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


def _folder(files: Files, what: str) -> Path:
    """The folder that holds `what`, or the reason why the corpus cannot be opened."""
    if not files.folders:
        raise UsageError(
            f"data set '{files.name}' needs its files, {files.reads}: add --data-dir DIR (or set DISTK_DATA). "
            "Without any files, --data standin-reviews works."
        )
    return files.folders[0]


def _named(files: Files, names: tuple[str, ...]) -> Path:
    """The first existing of `names` in the folders. Raises UsageError that names every expected path."""
    for folder in files.folders:
        for name in names:
            if (folder / name).is_file():
                return folder / name
    _folder(files, names[0])
    tried = names_of([f"'{folder / name}'" for folder in files.folders for name in names])
    raise UsageError(f"data set '{files.name}' found no file {tried}; it reads {files.reads}.")


@dataclass(frozen=True)
class YelpConfig(TextConfig):
    """Which of the two layouts the files have."""

    layout: Literal["auto", "shen", "arae"] = option("auto", "file names: sentiment.train.0 or train1.txt")


class Yelp(SentenceDataset[YelpConfig]):
    """Sentences of Yelp reviews by sentiment, and other corpora with the same file names."""

    reads = "sentiment.{train,dev,test}.{0,1}, or train1.txt train2.txt valid1.txt valid2.txt test0.txt test1.txt"

    def read(self, files: Files) -> tuple[dict[str, Part], tuple[str, ...], str]:
        _folder(files, "")
        layout = self.config.layout
        if layout == "auto":
            old = any((f / f"train1{s}").is_file() for f in files.folders for s in ("", ".txt"))
            new = any((f / "sentiment.train.0").is_file() for f in files.folders)
            layout = "arae" if old and not new else "shen"
        parts: dict[str, Part] = {}
        for split, table in formats.yelp_table(layout).items():
            names = [tuple(n + s for s in ("", ".txt")) if layout == "arae" else (n,) for n, _ in table]
            there = [any((f / n).is_file() for f in files.folders for n in options) for options in names]
            if split != "train" and not any(there):
                continue
            part = parts[split] = Part()
            for options, (_, label) in zip(names, table, strict=True):
                path = _named(files, options)
                part.add(formats.read_lines(path, self.encoding), label)
                where = path.parent
        parts, remark = completed(parts)
        return parts, SENTIMENT, f"{len(parts['train'].lines):,} training sentences from '{where}'{remark}"


class RtPolarity(SentenceDataset):
    """Sentences of film reviews by sentiment (Pang & Lee 2005)."""

    reads = "rt-polarity.pos and rt-polarity.neg (also in rt-polaritydata/)"
    charset = "latin-1"

    def read(self, files: Files) -> tuple[dict[str, Part], tuple[str, ...], str]:
        part = Part()
        for label, ending in enumerate(("neg", "pos")):
            path = _named(files, tuple(f"{d}rt-polarity.{ending}" for d in ("", "rt-polaritydata/", "rt_polarity/")))
            part.add(formats.read_lines(path, self._charset(path)), label)
        return divided(part), SENTIMENT, f"{len(part.lines):,} sentences from '{path.parent}', split 80/10/10"

    def _charset(self, path: Path) -> str:
        """Cornell's original is Latin-1; copies in UTF-8 are in circulation and recognised by being valid UTF-8."""
        if self.config.encoding == "auto":
            try:
                formats.read_text(path, "utf-8")
            except DistkError:
                return "latin-1"
            return "utf-8"
        return self.encoding


class Uci(SentenceDataset):
    """3,000 review sentences of Amazon, IMDb and Yelp by sentiment (Kotzias et al. 2015)."""

    reads = "amazon_cells_labelled.txt, imdb_labelled.txt and yelp_labelled.txt"
    raw = True

    def read(self, files: Files) -> tuple[dict[str, Part], tuple[str, ...], str]:
        part = Part()
        for source in ("amazon_cells", "imdb", "yelp"):
            names = tuple(f"{d}{source}_labelled.txt" for d in ("", "sentiment labelled sentences/", "uci_sentiment/"))
            path = _named(files, names)
            found = formats.read_uci(path, self.encoding)
            part.lines += found.lines
            part.labels += found.labels
        return divided(part), SENTIMENT, f"{len(part.lines):,} sentences from '{path.parent}', split 80/10/10"


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
        path = _named(files, ("finegrained.txt", "data/finegrained.txt", "sentence_sentiment/finegrained.txt"))
        part = formats.read_finegrained(path, self.encoding, self.config.labels)
        long = {"neg": "negative", "pos": "positive", "neu": "neutral", "mix": "mixed", "nr": "not-relevant"}
        names = tuple(long[label] for label in self.config.labels)
        return divided(part), names, f"{len(part.lines):,} sentences from '{path}', split 80/10/10"


@dataclass(frozen=True)
class FilesConfig(TextConfig):
    """Names and tags of the user's own files."""

    labels: tuple[str, ...] = option((), "names of the labels; default: the files' suffixes")
    tagged: bool = option(False, "the files hold word_TAG instead of words")


class UserFiles(SentenceDataset[FilesConfig]):
    """The user's own sentences: train.0 train.1 ... dev.0 ... test.0 ..., or train.txt with train.labels."""

    reads = "train.0 train.1 [...] dev.0 dev.1 test.0 test.1 (also train.0.conllu), or train.txt with train.labels"

    def read(self, files: Files) -> tuple[dict[str, Part], tuple[str, ...], str]:
        folder = _folder(files, "train.0")
        if not files.required:
            raise UsageError("data set 'files' needs the folder of your files: add --data-dir DIR.")
        paired = (folder / "train.txt").is_file()
        suffixes = self._suffixes(folder, paired)
        names = self.config.labels or tuple(suffixes)
        if len(names) != len(suffixes):
            raise UsageError(f"--labels has {len(names)} names, but '{folder}' has the labels {names_of(suffixes)}.")
        parts = {}
        for split in ("train", "dev", "test"):
            part = self._paired(folder, split, suffixes) if paired else self._suffixed(folder, split, suffixes)
            if part is not None:
                parts[split] = part
        parts, remark = completed(parts)
        return parts, tuple(names), f"{len(parts['train'].lines):,} training sentences from '{folder}'{remark}"

    def _suffixes(self, folder: Path, paired: bool) -> list[str]:
        if paired:
            labels = set(formats.read_lines(self._existing(folder / "train.labels"), self.encoding))
            return sorted(label.strip() for label in labels)
        found = sorted(p.name.removeprefix("train.").removesuffix(".conllu") for p in folder.glob("train.*"))
        if not found:
            raise UsageError(
                f"'{folder}' holds neither '{folder / 'train.0'}' and '{folder / 'train.1'}' "
                f"nor '{folder / 'train.txt'}' with '{folder / 'train.labels'}'."
            )
        return found

    def _existing(self, path: Path) -> Path:
        if not path.is_file():
            raise UsageError(f"data set 'files' found no file '{path}'; it reads {self.reads}.")
        return path

    def _paired(self, folder: Path, split: str, suffixes: list[str]) -> Part | None:
        if not (folder / f"{split}.txt").is_file():
            return None
        lines = formats.read_lines(folder / f"{split}.txt", self.encoding)
        labels = formats.read_lines(self._existing(folder / f"{split}.labels"), self.encoding)
        if len(lines) != len(labels):
            raise UsageError(
                f"'{folder / split}.txt' has {len(lines):,} lines and '{folder / split}.labels' {len(labels):,}; "
                "they must have one label per sentence."
            )
        part = Part(tags=[] if self.config.tagged else None)
        for number, (line, label) in enumerate(zip(lines, labels, strict=True), 1):
            if label.strip() not in suffixes:
                raise UsageError(
                    f"line {number} of '{folder / split}.labels': '{label[:50]}' is not a label of the training data."
                )
            self._add(part, [line], suffixes.index(label.strip()), folder / f"{split}.txt")
        return part

    def _suffixed(self, folder: Path, split: str, suffixes: list[str]) -> Part | None:
        there = [s for s in suffixes for e in ("", ".conllu") if (folder / f"{split}.{s}{e}").is_file()]
        if split != "train" and not there:
            return None
        tagged = self.config.tagged or (folder / f"train.{suffixes[0]}.conllu").is_file()
        part = Part(tags=[] if tagged else None)
        for label, suffix in enumerate(suffixes):
            path = folder / f"{split}.{suffix}"
            if path.with_name(path.name + ".conllu").is_file():
                for words, tags in formats.read_conllu(path.with_name(path.name + ".conllu"), self.encoding):
                    part.add([" ".join(w.replace(" ", "_") for w in words)], label)
                    part.tags.append(tags)  # type: ignore[union-attr]
            else:
                self._add(part, formats.read_lines(self._existing(path), self.encoding), label, path)
        return part

    def _add(self, part: Part, lines: list[str], label: int, path: Path) -> None:
        if part.tags is None:
            part.add(lines, label)
            return
        for number, line in enumerate(lines, 1):
            words, tags = formats.read_tagged(line, f"line {number} of '{path}'")
            part.add([" ".join(words)], label)
            part.tags.append(tags)


@dataclass(frozen=True)
class ImdbConfig(TextConfig):
    """What is read."""

    unsup: bool = option(False, "read the unlabelled reviews as well (split unsup)")


class AclImdb(SentenceDataset[ImdbConfig]):
    """Sentences of film reviews, each with its review's sentiment (Maas et al. 2011)."""

    reads = "aclImdb/{train,test}/{pos,neg}/ID_RATING.txt"
    raw = True

    def read(self, files: Files) -> tuple[dict[str, Part], tuple[str, ...], str]:
        base = _folder(files, "aclImdb")
        roots = [r for f in files.folders for r in (f, f / "aclImdb") if (r / "train" / "pos").is_dir()]
        if not roots:
            raise UsageError(f"'{base}' holds no folder 'aclImdb/train/pos'; aclimdb reads {self.reads}.")
        parts = {}
        for split in ("train", "test"):
            part = parts[split] = Part()
            for label, name in enumerate(("neg", "pos")):
                part.add(list(formats.read_reviews(roots[0] / split / name, self.encoding)), label)
        train = divided(parts["train"], dev=0.05, test=0.0)
        parts = {"train": train["train"], "dev": train["dev"], "test": parts["test"]}
        if self.config.unsup:
            parts["unsup"] = Part()
            parts["unsup"].add(list(formats.read_reviews(roots[0] / "train" / "unsup", self.encoding)), -1)
        return parts, SENTIMENT, f"{len(parts['train'].lines):,} training sentences from '{roots[0]}'"


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
        path = _named(files, ("classes.txt", "yahoo_answers_csv/classes.txt"))
        known = [line.strip() for line in formats.read_lines(path, self.encoding)]
        for topic in self.config.topics:
            if topic not in known:
                raise UsageError(f"--topics: '{topic}' is none of the classes in '{path}': {', '.join(known)}.")
        numbers = {known.index(topic) + 1: i for i, topic in enumerate(self.config.topics)}
        column = ("class", "title", "question", "answer").index(self.config.text)
        parts = {}
        for split in ("train", "test"):
            file = _named(files, (f"{split}.csv", f"yahoo_answers_csv/{split}.csv"))
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
