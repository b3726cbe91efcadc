"""The corpora of the paper: Europarl, joined on its English, and a stand-in from a grammar that needs no files."""

from __future__ import annotations

import functools
import hashlib
import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from distk import Files, UsageError, option
from distk.console import counted, note
from distk.data import names_of
from distk.plugins.text.common import files as formats
from distk.plugins.text.common.files import Part, there
from distk.plugins.text.common.parallel import Parallel, ParallelConfig
from distk.plugins.text.common.splits import described
from distk.plugins.text.nlmultitask.grammar import GRAMMAR, Filled, Frame, every_word, fill

TEST, DEV = 2 / 17, 0.01
"""Share of the test split, 0.2 million of 1.7 (Brunner et al. 2018, section 3.3), and of dev in what remains."""
PAPER_TRAIN = 1_500_000


def share_of(text: str, salt: str = "") -> float:
    """A number in [0, 1) that follows from the text alone, so that equal sentences lie in one split."""
    return int.from_bytes(hashlib.blake2b((salt + text).encode(), digest_size=7).digest(), "big") / 2**56


def split_of(english: str) -> str:
    """train, dev or test, by the English sentence."""
    if share_of(english) < TEST:
        return "test"
    return "dev" if share_of(english, "dev/") < DEV else "train"


# The stand-in

VARIANTS: dict[str, tuple[int, Sequence[int]]] = {
    "short": (20_000, (0, 1, 2, 3, 4, 5, 6, 12, 13, 17, 19, 23)),
    "quick": (30_000, range(len(GRAMMAR))),
    "full": (200_000, range(len(GRAMMAR))),
}
"""Variant -> sentences, and the frames that they are of."""
HELD_OUT = 0.25
"""Share of the words that `hold_out_words` keeps out of a frame's training sentences."""


@dataclass(frozen=True)
class StandinConfig(ParallelConfig):
    """How much of the stand-in there is."""

    variant: Literal["short", "quick", "full"] = option(
        "quick", "short: twelve frames of one clause, 20,000 sentences; quick: all 24, 30,000; full: all, 200,000"
    )
    sentences: int | None = option(None, "sentences of all splits together; default: the variant's", min=200)
    corpus_seed: int = option(0, "seed of the sentences", min=0)
    expand: float = option(0.3, "share of the sentences in which a noun has an adjective or a place more", min=0, max=1)
    hold_out_words: bool = option(
        False, "keep a quarter of the nouns, verbs and adjectives out of each frame's training sentences"
    )
    max_len: int = option(120, "longest English sentence in symbols; longer ones are dropped", min=1, max=1000)


class StandinTrilingual(Parallel[StandinConfig]):
    """Sentences of a grammar in English, German and French, with a Penn tag for each English word.

    The same settings give the same sentences; they lie in train, dev or test by their English.
    """

    reads = ""

    def read(self, files: Files) -> tuple[dict[str, Part], tuple[str, ...], str]:
        config, languages = self.config, self._languages()
        self.main = languages[0]
        n = config.sentences or VARIANTS[config.variant][0]
        parts = {name: Part(columns={c: [] for c in (*languages[1:], "pos")}) for name in ("train", "dev", "test")}
        for name, said in drawn(config.variant, n, config.corpus_seed, config.expand, config.hold_out_words):
            parts[name].lines.append(said[self.main])
            for column, lines in parts[name].columns.items():
                lines.append(said[column])
        self._thin(parts)
        return parts, (), f"{described(parts)} in {names_of(languages)} from a grammar, variant '{config.variant}'"

    def _languages(self) -> tuple[str, ...]:
        known = ("en", "de", "fr")
        chosen = self.config.languages or known
        if set(chosen) - set(known) or len(set(chosen)) < len(chosen):
            raise UsageError(f"data set '{self.name or 'standin-trilingual'}' has the languages {names_of(known)}.")
        return chosen


@functools.lru_cache(maxsize=4)
def drawn(variant: str, n: int, seed: int, expand: float, hold_out: bool) -> tuple[tuple[str, Mapping[str, str]], ...]:
    """`n` sentences: (split, column -> text). Kept, since commands and studies open one corpus again and again."""
    rng = random.Random(f"standin-trilingual/{seed}")
    frames = [GRAMMAR[i] for i in VARIANTS[variant][1]]
    found = []
    for _ in range(n):
        name, made = _drawn(rng.choice(frames), rng, expand, hold_out)
        english, tags = made.english()
        said = {"en": english, "de": made.german(), "fr": made.french(), "pos": " ".join(tags)}
        found.append((name, said))
    return tuple(found)


def _drawn(frame: Frame, rng: random.Random, expand: float, hold_out: bool) -> tuple[str, Filled]:
    """A sentence and its split. With words held out the split is drawn first, and what the hash puts elsewhere is drawn
    again, so that long frames are as many as short ones."""
    if not hold_out:
        made = fill(frame, rng, expand=expand)
        return split_of(made.english()[0]), made
    u, v = rng.random(), rng.random()
    wanted = "test" if u < TEST else "dev" if v < DEV else "train"
    allowed = functools.partial(kept_words, frame.number) if wanted == "train" else every_word
    while True:
        made = fill(frame, rng, allowed, expand)
        if split_of(made.english()[0]) == wanted:
            return wanted, made


@functools.cache
def kept_words(frame: int, letter: str) -> Sequence[Any]:
    """The words of a class that the training sentences of a frame, by its number, have where words are held out."""
    words = every_word(letter)
    if letter not in "NVA":
        return words
    order = sorted(words, key=lambda word: share_of(word.en, f"hold out/{frame}/"))
    return order[round(HELD_OUT * len(order)) :]


# Europarl


@dataclass(frozen=True)
class EuroparlConfig(ParallelConfig):
    """How the sentences are divided."""

    paper_split: bool = option(
        False, "the first 1.5 million sentences train, all others test, instead of a split by the English sentence"
    )


class Europarl(Parallel[EuroparlConfig]):
    """Proceedings of the European Parliament, version 7 (Koehn 2005), sentences of several languages joined on English.

    Every pair of files has German or French beside English, so a sentence of three languages is one whose English
    stands in both pairs; one that occurs k times in both is matched in its order, one that occurs unequally often is
    left out. Equal English sentences lie in one split.
    """

    reads = (
        "europarl-v7.de-en.de, europarl-v7.de-en.en, europarl-v7.fr-en.fr and europarl-v7.fr-en.en, one sentence a "
        "line; also .gz (statmt.org/europarl, archives de-en.tgz and fr-en.tgz)"
    )

    def _found(self, files: Files) -> dict[str, Part]:
        wanted = self.config.languages or ("en", "de", "fr")
        if "en" not in wanted or len(wanted) < 2:
            raise UsageError(f"data set 'europarl' joins languages on English: name en and another, not {wanted}.")
        formats.folder_of(files, "europarl-v7.de-en.en", "standin-trilingual")
        others = [name for name in wanted if name != "en"]
        self.folder, paths = self._pairs(files, others)
        pairs = {name: self._pair(*paths[name]) for name in others}
        lines = join(pairs)
        least = min(len(held) for held, _ in pairs.values())
        note(f"{counted(len(lines['en']), 'sentence')} in {names_of(wanted)}; the smallest pair of files has {least:,}")
        if not lines["en"]:
            raise UsageError(f"no English sentence of '{self.folder}' stands in every pair of files.")
        return self._divided(self._part(lines))

    def _pairs(self, files: Files, others: Sequence[str]) -> tuple[Path, dict[str, tuple[Path, Path]]]:
        """(folder, language -> its English and its own file). Raises UsageError naming the files that are missing."""
        missing: list[Path] = []
        for folder in files.folders:
            paths = {o: tuple(folder / f"europarl-v7.{o}-en.{side}" for side in ("en", o)) for o in others}
            missing = [path for both in paths.values() for path in both if there(path) is None]
            if not missing:
                found = {o: (there(en) or en, there(own) or own) for o, (en, own) in paths.items()}
                return folder, found
        listed = names_of([f"'{path}'" for path in missing])
        raise UsageError(f"data set 'europarl' found no {listed}; it reads {self.reads}.")

    def _pair(self, english: Path, other: Path) -> tuple[list[str], list[str]]:
        """Both sides of a pair of files, without lines of which a side is empty."""
        held = {path: formats.read_lines(path, self.encoding) for path in (english, other)}
        formats.aligned(held)
        both = [(a.strip(), b.strip()) for a, b in zip(held[english], held[other], strict=True)]
        both = [(a, b) for a, b in both if a and b]
        return [a for a, _ in both], [b for _, b in both]

    def _divided(self, part: Part) -> dict[str, Part]:
        """train, dev and test."""
        n = len(part.lines)
        first = min(PAPER_TRAIN, round((1 - TEST) * n)) if self.config.paper_split else 0
        english = part.lines if self.main == "en" else part.columns["en"]
        rows: dict[str, list[int]] = {"train": [], "dev": [], "test": []}
        for i, line in enumerate(english):
            name = split_of(line or "")
            if self.config.paper_split:
                name = "test" if i >= first else "dev" if share_of(line or "", "dev/") < DEV else "train"
            rows[name].append(i)
        parts = {name: Part() for name in rows}
        for name, chosen in rows.items():
            parts[name].take(part, chosen)
        return {name: held for name, held in parts.items() if held.lines}


def join(pairs: dict[str, tuple[list[str], list[str]]]) -> dict[str, list[str]]:
    """Pairs of files as one text: language -> (English lines, its lines) to columns of equal length.

    The k-th occurrence of an English sentence in one pair goes with the k-th in the others, for sentences that occur
    equally often in all of them. In the order of the first pair.
    """
    counts = [Counter(english) for english, _ in pairs.values()]
    shared = {line for line, n in counts[0].items() if all(other[line] == n for other in counts[1:])}
    columns: dict[str, list[str]] = {"en": [line for line in next(iter(pairs.values()))[0] if line in shared]}
    for name, (english, lines) in pairs.items():
        said = defaultdict(list)
        for key, line in zip(english, lines, strict=True):
            if key in shared:
                said[key].append(line)
        turn: Counter[str] = Counter()
        columns[name] = []
        for key in columns["en"]:
            columns[name].append(said[key][turn[key]])
            turn[key] += 1
    return columns
