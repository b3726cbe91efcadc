"""Part-of-speech tags without downloads: a perceptron trained on the user's CoNLL-U file, textblob's lexicon where it
is installed, and word lists with suffix rules as the last resort.

Only nouns matter to the metrics. Every result names the backend that found them.
"""

from __future__ import annotations

import hashlib
import json
import random
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

import torch
from safetensors.torch import save as to_bytes

from distk import DistkError, UsageError
from distk.console import warn_once
from distk.files import write_atomic
from distk.plugins.text.common.stored import opened

LARGEST_TAGSET = 1000
PENN = 16
"""Bytes that are enough for any tag of the Penn treebank and its kin."""


class Tagger(Protocol):
    """Words to Penn tags. name: the backend, as results quote it. version: what else decides its tags, empty where that
    is not known. longest: bytes of its longest tag."""

    name: str
    version: str
    longest: int

    def tags(self, words: Sequence[str]) -> list[str]:
        """One tag per word."""
        ...


def open_tagger(backend: str = "auto", file: str | Path = "") -> Tagger:
    """The tagger of a setting. auto: the file where one is given, else textblob, else the built-in rules.

    Raises UsageError for a backend that is not at hand.
    """
    if backend == "perceptron" and not file:
        raise UsageError("--tagger perceptron needs --tagger-file (make one with `distk text train-tagger`).")
    if backend == "perceptron" or (backend in ("auto", "none") and file):
        return Perceptron.load(Path(file))
    if backend in ("auto", "textblob"):
        try:
            return TextBlob()
        except ImportError as error:
            if backend == "textblob":
                raise UsageError('--tagger textblob needs the package: pip install "textblob>=0.19,<0.21".') from error
    warn_once("nouns are guessed from word lists and suffixes; for better ones give a tagger file or install textblob")
    return BuiltIn()


def noun_flags(tags: Sequence[str]) -> list[bool]:
    """Which tags are nouns, Penn or universal."""
    return [tag.startswith(("NN", "NOUN", "PROPN")) for tag in tags]


class TextBlob:
    """The lexicon and rules that come inside textblob's wheel; no other data is needed."""

    def __init__(self) -> None:
        from textblob.en import parser

        self.name, self._find = "textblob", parser.find_tags
        self.version, self.longest = version("textblob"), PENN

    def tags(self, words: Sequence[str]) -> list[str]:
        """One Penn tag per word."""
        return [str(pair[1]) for pair in self._find(list(words))]


_CLOSED = {
    "DT": "the a an this that these those each every either neither some any no all both another",
    "PRP": "i you he she it we they me him her us them myself yourself himself herself itself ourselves themselves "
    "someone something anyone anything everyone everything nobody nothing mine yours ours theirs",
    "PRP$": "my your his its our their",
    "IN": "of in for on with at by from about into over after under above below between through during before without "
    "against among within along across behind beyond near since until than as if because while although though "
    "whether",
    "CC": "and or but nor yet plus",
    "MD": "can could will would shall should may might must ca wo",
    "TO": "to",
    "VB": "be is was are were been being am do does did done have has had get gets got make makes made go goes went "
    "gone come comes came take took give gave say says said know knew think thought want wanted feel felt love "
    "loved hate hated enjoy like liked recommend order ordered eat ate try tried find found keep kept tell told "
    "ask asked use used work worked look looked wait waited pay paid call called buy bought serve served let put "
    "seem seems 's 're 've 'm 'll 'd",
    "RB": "not n't never always very really so too just also again here there then now even still only well back ever "
    "quite rather pretty almost already often soon maybe however instead once twice away together yesterday today "
    "hardly",
    "WP": "who what which whom whose",
    "WRB": "when where why how",
    "EX": "there",
    "UH": "yes no oh wow please hi hello thanks",
    "CD": "_num_ one two three four five six seven eight nine ten hundred thousand",
    "JJ": "good great best better bad worst worse nice new old big small large little long short high low first last "
    "next other same own few many much more most several such cold hot fresh clean dirty friendly rude happy sad "
    "easy hard fast slow cheap expensive free full awesome amazing excellent perfect wonderful fantastic "
    "delicious tasty terrible horrible awful bland dry disappointed disappointing poor fine different sure able "
    "busy quick loud quiet huge tiny real right wrong whole favorite super decent overpriced attentive tender "
    "sweet fair close open late early ready helpful cool reliable unreliable stale nasty broken dreadful pleasant "
    "unpleasant brilliant lousy solid flimsy bright dull",
}
_LEXICON = {word: tag for tag, words in _CLOSED.items() for word in words.split()}
_SUFFIX = (
    ("ly", "RB"), ("ing", "VBG"), ("ed", "VBD"), ("ous", "JJ"), ("ful", "JJ"), ("able", "JJ"), ("ible", "JJ"),
    ("ive", "JJ"), ("less", "JJ"), ("ish", "JJ"), ("est", "JJS"), ("al", "JJ"),
)  # fmt: skip
_NOUNS_ALL_THE_SAME = (
    "meal deal hospital animal capital metal material rental arrival approval professional thing anything "
    "something nothing everything evening morning building wedding dressing parking ceiling king ring wing "
    "pudding string spring bed seed family belly jelly fly july reply supply table vegetable cable fish dish "
    "finish rest test guest west chest "
)


_EXCEPTIONS = frozenset(_NOUNS_ALL_THE_SAME.split())


class BuiltIn:
    """Closed-class words, common adjectives and verbs, then suffixes; everything else is a noun. Approximate."""

    name = "builtin (approximate)"
    version = hashlib.sha256(repr((_LEXICON, _SUFFIX, sorted(_EXCEPTIONS))).encode()).hexdigest()
    longest = PENN

    def tags(self, words: Sequence[str]) -> list[str]:
        """One Penn tag per word."""
        return [self._tag(word.lower()) for word in words]

    def _tag(self, word: str) -> str:
        if word[:1].isdigit():
            return "CD"
        if not any(c.isalpha() for c in word):
            return "."
        if word in _LEXICON:
            return _LEXICON[word]
        if word not in _EXCEPTIONS and len(word) > 3:
            for suffix, tag in _SUFFIX:
                if word.endswith(suffix):
                    return tag
        return "NN"


def _shape(word: str) -> str:
    return "d" if any(c.isdigit() for c in word) else "p" if not any(c.isalpha() for c in word) else "w"


def _features(words: Sequence[str], i: int, one: str, two: str) -> Iterator[int]:
    """Numbers of the features of place i; one, two: the two tags before it. crc32 is stable between processes."""
    word = words[i].lower()
    before = words[i - 1].lower() if i else "<s>"
    earlier = words[i - 2].lower() if i > 1 else "<s>"
    after = words[i + 1].lower() if i + 1 < len(words) else "</s>"
    later = words[i + 2].lower() if i + 2 < len(words) else "</s>"
    parts = (
        "b", f"w={word}", f"s3={word[-3:]}", f"s2={word[-2:]}", f"p1={word[:1]}", f"sh={_shape(word)}", f"t1={one}",
        f"t12={one} {two}", f"t1w={one} {word}", f"w-1={before}", f"s-1={before[-3:]}", f"w-2={earlier}",
        f"w+1={after}", f"s+1={after[-3:]}", f"w+2={later}",
    )  # fmt: skip
    return (zlib.crc32(part.encode()) for part in parts)


class Perceptron:
    """Averaged perceptron (Collins 2002), greedy from left to right, on lower-cased words.

    weights: feature number -> {tag number: weight}.
    """

    name = "perceptron"

    def __init__(self, tagset: list[str], weights: dict[int, dict[int, float]], version: str = "") -> None:
        self.tagset, self.weights, self.version = tagset, weights, version
        self.longest = max(len(tag.encode()) for tag in tagset)

    def tags(self, words: Sequence[str]) -> list[str]:
        """One tag per word."""
        one = two = "<s>"
        found = []
        for i in range(len(words)):
            two, one = one, self.tagset[self._best(_features(words, i, one, two))]
            found.append(one)
        return found

    def _best(self, features: Iterator[int] | Sequence[int]) -> int:
        scores = [0.0] * len(self.tagset)
        for feature in features:
            for tag, weight in self.weights.get(feature, {}).items():
                scores[tag] += weight
        return max(range(len(scores)), key=scores.__getitem__)

    @classmethod
    def train(cls, sentences: list[tuple[list[str], list[str]]], epochs: int = 5, seed: int = 0) -> Perceptron:
        """From (words, tags). Raises UsageError when there is nothing to learn from."""
        if not sentences:
            raise UsageError("there is no tagged sentence to train a tagger on.")
        tagset = sorted({tag for _, tags in sentences for tag in tags})
        number = {tag: i for i, tag in enumerate(tagset)}
        made = cls(tagset, defaultdict(dict))
        totals: dict[tuple[int, int], float] = defaultdict(float)
        when: Counter[tuple[int, int]] = Counter()
        order, clock, rng = list(range(len(sentences))), 0, random.Random(seed)
        for _ in range(epochs):
            rng.shuffle(order)
            for which in order:
                words, tags = sentences[which]
                one = two = "<s>"
                for i, tag in enumerate(tags):
                    clock += 1
                    features = list(_features(words, i, one, two))
                    guess = made._best(features)
                    if tagset[guess] != tag:
                        for feature in features:
                            made._move(feature, number[tag], 1.0, clock, totals, when)
                            made._move(feature, guess, -1.0, clock, totals, when)
                    two, one = one, tagset[guess]
        for feature, row in made.weights.items():
            for mark, weight in row.items():
                key = (feature, mark)
                row[mark] = (totals[key] + (clock - when[key]) * weight) / max(1, clock)
        return made

    def _move(self, feature: int, tag: int, by: float, clock: int, totals: dict, when: Counter) -> None:
        """Change a weight, adding what it held since its last change to its running total."""
        row, key = self.weights[feature], (feature, tag)
        weight = row.get(tag, 0.0)
        totals[key] += (clock - when[key]) * weight
        when[key] = clock
        row[tag] = weight + by

    def save(self, path: Path) -> None:
        """Write as safetensors: the weights as triples, the tags as JSON."""
        triples = [(f, t, w) for f, row in sorted(self.weights.items()) for t, w in sorted(row.items()) if w]
        tensors = {
            "feature": torch.tensor([f for f, _, _ in triples], dtype=torch.long),
            "tag": torch.tensor([t for _, t, _ in triples], dtype=torch.long),
            "weight": torch.tensor([w for _, _, w in triples], dtype=torch.float32),
        }
        meta = json.dumps({"kind": "tagger", "format": 1, "tagset": self.tagset})
        write_atomic(path, to_bytes(tensors, metadata={"distk.text": meta}))

    @classmethod
    def load(cls, path: Path) -> Perceptron:
        """Inverse of `save`, for untrusted files. Raises DistkError saying what is wrong."""
        with opened(path, "tagger") as (meta, file):
            tagset = meta.get("tagset")
            if not isinstance(tagset, list) or not 0 < len(tagset) <= LARGEST_TAGSET:
                raise DistkError(f"'{path}' is not a valid tagger: its list of tags is damaged.")
            if not all(isinstance(tag, str) and len(tag) <= 100 for tag in tagset):
                raise DistkError(f"'{path}' is not a valid tagger: its list of tags is damaged.")
            held = {name: file.get_tensor(name) for name in ("feature", "tag", "weight")}
        sizes = {tensor.shape for tensor in held.values()}
        sound = (
            len(sizes) == 1 and held["feature"].dim() == 1 and held["feature"].dtype == held["tag"].dtype == torch.long
        )
        if not sound or (len(held["tag"]) and not 0 <= int(held["tag"].min()) <= int(held["tag"].max()) < len(tagset)):
            raise DistkError(f"'{path}' is not a valid tagger: its tensors do not fit together.")
        weights: dict[int, dict[int, float]] = defaultdict(dict)
        rows = (held[name].tolist() for name in ("feature", "tag", "weight"))
        for feature, tag, weight in zip(*rows, strict=True):
            weights[feature][tag] = weight
        digest = hashlib.sha256(json.dumps(tagset).encode())
        for name in sorted(held):
            digest.update(held[name].numpy().tobytes())
        return cls(tagset, dict(weights), digest.hexdigest())
