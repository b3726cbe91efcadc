"""The sentence prototypes of Brunner et al. 2018, section 4.1, and sentences that differ in one word, filled at random.

`+N`, `+V`, `+A` and `+D` stand for a noun, verb, adjective and adverb; `+Ns` is a plural, `+Vs` a third person, `+Ving`
a participle. The paper fills them with "common English words" that it does not list: ours are those of the stand-in.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from distk.plugins.text.nlmultitask.grammar import GRAMMAR, Frame, every_word, fill
from distk.plugins.text.nlmultitask.lexicon import WORDS

PROTOTYPES = (
    "The +N is +A.",
    "The +N +Vs.",
    "The +N has a +N.",
    "The +N +Vs a +N.",
    "The +N +Vs +D.",
    "No +N ever +Vs.",
    "Are +Ns +A?",
    "The +Ns of +N +D +V the +A +N, but some +Ns still +V their +N.",
    "In the +N of a +A +N, the +N will +V the +N of +Ving the +N.",
    "+Ns +V the +A +N of +Ns +Ving on the +N.",
    "In the +N of +N, +Ns would rather +V without +N than +V any +A +Ns.",
    "+N +Vs in order to +V on a +N.",
    "+A +Ns often +V like +Ns.",
    "",
)
"""The fourteenth is the empty sentence."""
SHORT = 7
"""So many prototypes, the first ones, have three to five words; the others differ by their lengths alone."""

_MARK = re.compile(r"\+(?P<letter>[NVAD])(?P<ending>s|ing)?")
_FORMS = {"N": ("en", "ens", ""), "V": ("en", "en3", "eng"), "A": ("en", "", ""), "D": ("en", "", "")}


def populate(prototype: str, rng: random.Random) -> str:
    """A prototype with random words, none twice; a capital first, `a` or `an` by the letter that follows."""
    marks = [m["letter"] for m in _MARK.finditer(prototype)]
    drawn = {letter: rng.sample(getattr(WORDS, letter), marks.count(letter)) for letter in sorted(set(marks))}

    def word(mark: re.Match[str]) -> str:
        row = drawn[mark["letter"]].pop()
        form = getattr(row, _FORMS[mark["letter"]][("", "s", "ing").index(mark["ending"] or "")])
        return form if isinstance(form, str) else " ".join(form)

    line = re.sub(r"\ba (?=[aeiou])", "an ", _MARK.sub(word, prototype))
    return line[:1].upper() + line[1:]


def populated(each: int, seed: int) -> tuple[list[str], list[int]]:
    """Every prototype `each` times: (sentences, the prototype of each)."""
    rng = random.Random(f"prototypes/{seed}")
    kinds = [kind for kind in range(len(PROTOTYPES)) for _ in range(each)]
    return [populate(PROTOTYPES[kind], rng) for kind in kinds], kinds


def words_of(line: str) -> list[str]:
    """Words of a sentence in lower case, without numbers and marks."""
    return re.findall(r"[^\W\d_]+", line.lower())


@dataclass(frozen=True)
class Triple:
    """first and second differ in one word; third has the second's word elsewhere, and gold the first's in its place."""

    first: str
    second: str
    third: str
    gold: str


def triples(n: int, seed: int, frames: Sequence[int] = range(len(GRAMMAR))) -> list[Triple]:
    """`n` triples of sentences of the grammar. frames: by number, of which two at least have words of one class."""
    rng = random.Random(f"triples/{seed}")
    chosen = [GRAMMAR[i] for i in frames]
    return [_triple(rng, chosen) for _ in range(n)]


def _triple(rng: random.Random, frames: Sequence[Frame]) -> Triple:
    frame = rng.choice(frames)
    elsewhere = {letter for other in frames if other is not frame for letter in other.slots.values()}
    slot = rng.choice([name for name in frame.slots if name[0] in "NVA" and name[0] in elsewhere])
    other = rng.choice([f for f in frames if f is not frame and slot[0] in f.slots.values()])
    place = rng.choice([name for name in other.slots if name[0] == slot[0]])
    one, two = rng.sample(every_word(slot[0]), 2)

    def allowed(letter: str) -> Sequence[Any]:
        return [word for word in every_word(letter) if word not in (one, two)]

    here, there = fill(frame, rng, allowed), fill(other, rng, allowed)
    first, second = (replace(here, words={**here.words, slot: word}) for word in (one, two))
    third, gold = (replace(there, words={**there.words, place: word}) for word in (two, one))
    return Triple(*(made.english()[0] for made in (first, second, third, gold)))
