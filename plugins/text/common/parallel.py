"""Text in several columns: translations line by line, tags, trees of Universal Dependencies."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from typing_extensions import TypeVar

from distk import Files, UsageError, option
from distk.console import counted, note, warn
from distk.data import names_of
from distk.plugins.text.common import files as formats
from distk.plugins.text.common.base import CorpusConfig, CorpusDataset
from distk.plugins.text.common.conllu import Tagged, read_sentences
from distk.plugins.text.common.files import Part, there
from distk.plugins.text.common.splits import completed, described, held_out, joined
from distk.plugins.text.common.tagger import open_tagger
from distk.plugins.text.common.tagging import tags_of
from distk.plugins.text.common.vocab import split_tokens, split_words

TAGS = ("pos", "upos", "xpos", "tags")
"""Names of columns whose symbols are tags, apart by spaces."""
SAMPLED, APART = 1000, 0.2
"""Sentences whose tags are counted, and the share by which tags and words may differ: tokenizers do a little."""
SPLITS = {"train": ("train",), "dev": ("dev", "val", "valid"), "test": ("test",)}
"""Split -> what files call it."""


@dataclass(frozen=True)
class ParallelConfig(CorpusConfig):
    """Which columns, in which symbols."""

    languages: tuple[str, ...] = option(
        (), "columns, the first is x: endings of the files; default: all, English first if it is there"
    )
    unit: Literal["word", "char"] = option("char", "what a symbol is; tags are symbols in either case")
    vocab_size: int = option(200, "most frequent symbols kept, in each column", min=1, max=2_000_000)
    min_count: int = option(
        0, "occurrences that a symbol needs in training; 0: 100, in a small corpus one in 10,000", min=0
    )
    max_len: int = option(100, "longest sentence of x in symbols; longer ones are dropped", min=1, max=1000)
    max_target: int = option(150, "the same for the other columns", min=1, max=1000)
    lowercase: bool = option(False, "fold to lower case")
    train_fraction: float = option(1.0, "share of the training sentences to learn from, drawn once", above=0, max=1)
    tagger: Literal["none", "auto", "perceptron", "textblob", "builtin"] = option(
        "none", "add a column pos: tags of the words of x, where the files have none"
    )
    tagger_file: str = option("", "tagger trained by `distk text train-tagger`", place=True)


P = TypeVar("P", bound=ParallelConfig, default=ParallelConfig)


class Parallel(CorpusDataset[P]):
    """The user's own sentences without labels, alone or with translations and tags: train.en train.de train.pos ...

    Line i of every file says the same. A pair of which a side is empty or too long is left out.
    """

    reads = (
        "train.en train.de train.pos ... (one line is one sentence, the ending names the column), dev.* (or val.*), "
        "test.*; or train.tsv; each may end in .gz"
    )
    units: ClassVar = dict.fromkeys(TAGS, "word")

    def read(self, files: Files) -> tuple[dict[str, Part], tuple[str, ...], str]:
        if not files.required and self.reads is Parallel.reads:
            raise UsageError(f"data set '{files.name}' needs the folder of your files: add --data-dir DIR.")
        found = self._found(files)
        parts, remark = completed(found, self.model is not None)
        remark += self._thin(parts)
        self._check_tags(parts)
        columns = ", ".join((self.main, *next(iter(parts.values())).columns))
        origin = f"{described(parts)} ({columns}) from '{self.folder}'{remark}"
        return parts, (), origin + self._tagged(parts)

    def _thin(self, parts: dict[str, Part]) -> str:
        """Leave the training sentences of `train_fraction`; what was done, in words."""
        share = self.config.train_fraction
        if share == 1 or "train" not in parts:
            return ""
        every = len(parts["train"].lines)
        parts["train"], _ = held_out(parts["train"], max(1, round(share * every)))
        return f"; {share:g} of {every:,} training sentences"

    def _found(self, files: Files) -> dict[str, Part]:
        """The splits as the files have them; sets `main`, what x is, and `folder`."""
        formats.folder_of(files, "train.en")
        for folder in files.folders:
            parts = {name: part for name in SPLITS if (part := self._split_of(folder, name)) is not None}
            if "train" in parts or (parts and self.model is not None):
                self.folder = folder
                return parts
        listed = names_of([f"'{folder}'" for folder in files.folders])
        raise UsageError(f"data set '{files.name}' found no train.* in {listed}; it reads {self.reads}.")

    def _split_of(self, folder: Path, split: str) -> Part | None:
        for stem in SPLITS[split]:
            table = there(folder / f"{stem}.tsv")
            if table is not None:
                return self._part(formats.read_table(table, self.encoding, self.config.languages or None))
            paths = self._columns(folder, stem)
            if paths:
                lines = {name: formats.read_lines(path, self.encoding) for name, path in paths.items()}
                formats.aligned({paths[name]: held for name, held in lines.items()})
                return self._part(lines)
        return None

    def _columns(self, folder: Path, stem: str) -> dict[str, Path]:
        """Column -> file of a split. Raises UsageError for one that `--languages` names and that is missing."""
        if not self.config.languages:
            paths, told = formats.texts(folder.glob(f"{stem}.*"))
            self.told = tuple(dict.fromkeys((*self.told, *told)))
            named = {p.name.removesuffix(".gz").removeprefix(f"{stem}."): p for p in paths}
            return {name: path for name, path in named.items() if "." not in name}
        found = {name: there(folder / f"{stem}.{name}") for name in self.config.languages}
        missing = [name for name, path in found.items() if path is None]
        if missing and len(missing) < len(found):
            expected = names_of([f"'{folder / f'{stem}.{name}'}'" for name in missing])
            raise UsageError(f"data set '{self.name or 'parallel'}' found no file {expected}; it reads {self.reads}.")
        return {} if missing else {name: path for name, path in found.items() if path is not None}

    def _part(self, lines: dict[str, list[str]]) -> Part:
        """Columns as a part: the first language is x."""
        order = [*self.config.languages, *(("en",) if "en" in lines else ()), *lines]
        self.main = next((name for name in order if name in lines and self.units.get(name) is None), order[0])
        others = {name: list[str | None](held) for name, held in lines.items() if name != self.main}
        return Part(lines[self.main], columns=others)

    def _check_tags(self, parts: dict[str, Part]) -> None:
        """Warn where most sentences have many more or fewer tags than words, as where the lines are shifted."""
        for split, part in parts.items():
            for name in set(TAGS) & set(part.columns):
                every = max(1, len(part.lines) // SAMPLED)
                pairs = list(zip(part.lines, part.columns[name], strict=True))[::every]
                sizes = [(len(split_words(line, raw=True)), len((tags or "").split())) for line, tags in pairs if tags]
                apart = sum(abs(words - tags) > APART * max(words, tags) for words, tags in sizes)
                if 2 * apart > len(sizes):
                    warn(
                        f"in {apart:,} of {counted(len(sizes), 'sentence')} of split '{split}' the number of tags in"
                        f" '{name}' is far from that of the words, first '{pairs[0][0][:40]}': do these files belong"
                        " together?"
                    )

    def _tagged(self, parts: dict[str, Part]) -> str:
        """Add tags by a tagger where they are asked for and the files have none; what was done, in words."""
        config = self.config
        if (config.tagger == "none" and not config.tagger_file) or set(TAGS) & set(next(iter(parts.values())).columns):
            return ""
        mark = open_tagger(config.tagger, config.tagger_file)
        for split, part in parts.items():
            name = f"{self.main} of split {split} of '{self.folder}'"
            part.columns["pos"] = [" ".join(tags) for tags in tags_of(mark, part.lines, split_tokens, name)]
        return f"; tags by {mark.name}"

    def least(self, counts: dict[str, int]) -> int:  # type: ignore[override]
        return int(self.config.min_count) or min(100, max(1, sum(counts.values()) // 10_000))


class Multi30k(Parallel):
    """Captions of pictures in English, German and French (Elliott et al. 2016, 2017).

    `val` is the test split, as many of the training captions are dev: the published test files have no French.
    """

    reads = "train.{en,de,fr} and val.{en,de,fr}, also .gz"

    def _found(self, files: Files) -> dict[str, Part]:
        parts = super()._found(files)
        if "test" in parts or "dev" not in parts or "train" not in parts:
            return parts
        test = parts["dev"]
        dev, train = held_out(parts["train"], min(len(test.lines), len(parts["train"].lines) // 10))
        return {"train": train, "dev": dev, "test": test}

    def _columns(self, folder: Path, stem: str) -> dict[str, Path]:
        found = super()._columns(folder, stem)
        return {name: path for name, path in found.items() if name in (self.config.languages or ("en", "de", "fr"))}


@dataclass(frozen=True)
class TreesConfig(ParallelConfig):
    """Which tags, and how languages stand beside each other."""

    tags: Literal["upos", "xpos"] = option("upos", "universal tags, or the language's own (Penn for English)")
    arrange: Literal["auto", "parallel", "pool"] = option(
        "auto",
        "parallel: the same sentence of other languages as further columns; pool: sentences of all languages, with "
        "a column `language`; auto: parallel where the languages have sentences of the same names",
    )


_TREES = re.compile(r"(?P<language>[a-z]{2,3})_(?P<bank>[a-z0-9]+)-ud-(?P<split>train|dev|test)\b.*\.conllu(\.gz)?")


class Trees(Parallel[TreesConfig]):
    """Universal Dependencies: sentences with a tag for each word, in one language or several.

    Columns: `pos`, the tags of x; with several languages each other one, or `language`.
    """

    reads = "en_ewt-ud-train.conllu and the like: LANGUAGE_TREEBANK-ud-SPLIT.conllu, also .gz"
    units: ClassVar = {"pos": "word", "language": "class"}

    def _found(self, files: Files) -> dict[str, Part]:
        formats.folder_of(files, "en_ewt-ud-train.conllu")
        for folder in files.folders:
            matches = [(m, p) for p in sorted(folder.glob("*.conllu*")) if (m := _TREES.fullmatch(p.name))]
            if matches:
                self.folder = folder
                return self._arranged(matches)
        listed = names_of([f"'{folder}'" for folder in files.folders])
        raise UsageError(f"data set '{files.name}' found nothing in {listed}; it reads {self.reads}.")

    def _arranged(self, matches: list[tuple[re.Match[str], Path]]) -> dict[str, Part]:
        banks: dict[str, dict[str, list[Tagged]]] = {}
        for match, path in matches:
            held = banks.setdefault(match["split"], {}).setdefault(match["language"], [])
            held += read_sentences(path, self.encoding)
        every = sorted(
            {language for held in banks.values() for language in held}, key=lambda name: (name != "en", name)
        )
        wanted = self.config.languages or tuple(every)
        for name in wanted:
            if name not in every:
                raise UsageError(f"there is no language '{name}' in '{self.folder}'; there are {names_of(every)}.")
        self.main = wanted[0]
        parallel = self.config.arrange == "parallel" or (
            self.config.arrange == "auto" and all(_shared(held, wanted) for held in banks.values())
        )
        make = self._side_by_side if parallel and len(wanted) > 1 else self._pooled
        return {split: made for split, held in banks.items() if (made := make(held, wanted)).lines}

    def _side_by_side(self, held: dict[str, list[Tagged]], wanted: tuple[str, ...]) -> Part:
        """Sentences that every language has, by name."""
        named = {language: {s.name: s for s in held.get(language, [])} for language in wanted}
        first, *others = wanted
        rows = [s for s in held.get(first, []) if s.name and all(s.name in named[other] for other in others)]
        if len(rows) < len(held.get(first, [])):
            note(f"{counted(len(held[first]) - len(rows), 'sentence')} left out that not every language has")
        part = self._of(rows)
        for other in others:
            part.columns[other] = [self._line(named[other][s.name]) for s in rows]
        return part

    def _pooled(self, held: dict[str, list[Tagged]], wanted: tuple[str, ...]) -> Part:
        parts = []
        for language in wanted:
            part = self._of(held.get(language, []))
            if len(wanted) > 1:
                part.columns["language"] = [language] * len(part.lines)
            parts.append({"all": part})
        return joined(parts)["all"]

    def _of(self, rows: list[Tagged]) -> Part:
        tags = [s.upos if self.config.tags == "upos" else s.xpos for s in rows]
        return Part([self._line(s) for s in rows], columns={"pos": [" ".join(t) for t in tags]})

    def _line(self, sentence: Tagged) -> str:
        """The sentence as it was written, or for words its words, so that there is a tag for each."""
        if self.config.unit == "char":
            return sentence.text
        return " ".join(word.replace(" ", "_") for word in sentence.words)


def _shared(held: dict[str, list[Tagged]], wanted: tuple[str, ...]) -> bool:
    """Whether all languages have at least half of the first one's sentences, by name."""
    names = [{s.name for s in held.get(language, []) if s.name} for language in wanted]
    return len(names) > 1 and all(2 * len(names[0] & other) >= len(names[0]) > 0 for other in names[1:])
