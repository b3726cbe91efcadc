"""A small grammar that says the same in English, German and French, with a tag for each English word.

A frame has a pattern for each language. Its tokens, of which `1` numbers the words of a class:

    the.N1  a.A1+N2  -.N3s      a noun with its article (none: -) and adjective, `s` for plural; in German with case,
                                der.N1.n, ein.A1+N2.a, -.N3s.d (nominative, accusative, dative)
    V1 V1s V1p V1g V1z          base or infinitive, third person singular and plural, participle, imperative (French)
    A1  A1@N2s                  adjective after a verb; in French it agrees with a noun
    D1  T1                      adverb, time
    rel~N1  sont~N1s  V1s~N2    relative pronoun of a noun; French inversion with its pronoun
    is/VBZ  ist                 a word, in English with its tag

One noun of a sentence may have an adjective or a place beside what the pattern says. German rules: verb second, weak,
mixed and strong adjectives, infinitive last, contractions. French rules: adjective behind the noun, agreement, elision,
contractions, inversion. The sentences are grammatical and mean nothing.
"""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from distk.plugins.text.nlmultitask.lexicon import SILENT, WORDS, Adjective, Noun, Phrase

FRAMES = (
    # The thirteen prototypes of Brunner et al. 2018, section 4.1, in their order
    ("the.N1 is/VBZ A1 ./.", "der.N1.n ist A1 .", "le.N1 est A1@N1 ."),
    ("the.N1 V1s ./.", "der.N1.n V1s .", "le.N1 V1s ."),
    ("the.N1 has/VBZ a.N2 ./.", "der.N1.n hat ein.N2.a .", "le.N1 a un.N2 ."),
    ("the.N1 V1s a.N2 ./.", "der.N1.n V1s ein.N2.a .", "le.N1 V1s un.N2 ."),
    ("the.N1 V1s D1 ./.", "der.N1.n V1s D1 .", "le.N1 V1s D1 ."),
    ("no.N1 ever/RB V1s ./.", "kein.N1.n V1s jemals .", "aucun.N1 ne V1s jamais ."),
    ("are/VBP -.N1s A1 ?/.", "sind -.N1s.n A1 ?", "le.N1s sont~N1s A1@N1s ?"),
    (
        "the.N1s of/IN -.N2 D1 V1p the.A1+N3 ,/, but/CC some.N4s still/RB V2p their.N5 ./.",
        "der.N1s.n von -.N2.d V1p D1 der.A1+N3.a , aber einige.N4s.n V2p noch ihr.N5.a .",
        "le.N1s de -.N2 V1p D1 le.A1+N3 , mais quelques.N4s V2p encore leur.N5 .",
    ),
    (
        "in/IN the.N1 of/IN a.A1+N2 ,/, the.N3 will/MD V1 the.N4 of/IN V2g the.N5 ./.",
        "in der.N1.d von ein.A1+N2.d wird der.N3.n der.N4.a V1 , der.N5.a zu V2 .",
        "dans le.N1 de un.A1+N2 , le.N3 va V1 le.N4 de V2 le.N5 .",
    ),
    (
        "-.N1s V1p the.A1+N2 of/IN -.N3s V2g on/IN the.N4 ./.",
        "-.N1s.n V1p der.A1+N2.a von -.N3s.d , die auf der.N4.d V2p .",
        "un.N1s V1p le.A1+N2 de -.N3s V2g sur le.N4 .",
    ),
    (
        "in/IN the.N1 of/IN -.N2 ,/, -.N3s would/MD rather/RB V1 without/IN -.N4 than/IN V2 any.A1+N5s ./.",
        "in der.N1.d von -.N2.d würden -.N3s.n lieber ohne -.N4.a V1 als -.A1+N5s.a V2 .",
        "dans le.N1 de -.N2 , un.N3s préféreraient V1 sans -.N4 plutôt que de V2 un.A1+N5s .",
    ),
    (
        "-.N1 V1s in/IN order/NN to/TO V2 on/IN a.N2 ./.",
        "-.N1.n V1s , um auf ein.N2.d zu V2 .",
        "-.N1 V1s pour V2 sur un.N2 .",
    ),
    (
        "-.A1+N1s often/RB V1p like/IN -.N2s ./.",
        "-.A1+N1s.n V1p oft wie -.N2s.n .",
        "un.A1+N1s V1p souvent comme un.N2s .",
    ),
    # Eleven others
    ("V1 the.A1+N1 !/.", "V1 Sie der.A1+N1.a !", "V1z le.A1+N1 !"),
    (
        "there/EX is/VBZ a.A1+N1 in/IN the.N2 ./.",
        "es gibt ein.A1+N1.a in der.N2.d .",
        "il y a un.A1+N1 dans le.N2 .",
    ),
    (
        "the.N1 V1s the.N2 because/IN the.N3 is/VBZ A1 ./.",
        "der.N1.n V1s der.N2.a , weil der.N3.n A1 ist .",
        "le.N1 V1s le.N2 parce que le.N3 est A1@N3 .",
    ),
    (
        "the.N1 that/WDT V1s the.N2 is/VBZ A1 ./.",
        "der.N1.n , rel~N1 der.N2.a V1s , ist A1 .",
        "le.N1 qui V1s le.N2 est A1@N1 .",
    ),
    (
        "the.N1 is/VBZ as/RB A1 as/IN the.N2 ./.",
        "der.N1.n ist so A1 wie der.N2.n .",
        "le.N1 est aussi A1@N1 que le.N2 .",
    ),
    (
        "the.N1 V1s the.N2 and/CC the.N3 V2s the.N4 ./.",
        "der.N1.n V1s der.N2.a und der.N3.n V2s der.N4.a .",
        "le.N1 V1s le.N2 et le.N3 V2s le.N4 .",
    ),
    ("does/VBZ the.N1 V1 the.N2 ?/.", "V1s der.N1.n der.N2.a ?", "le.N1 V1s~N1 le.N2 ?"),
    ("T1 the.N1 V1s a.A1+N2 ./.", "T1 V1s der.N1.n ein.A1+N2.a .", "T1 , le.N1 V1s un.A1+N2 ."),
    (
        "the.N1 and/CC the.N2 V1p the.N3 ./.",
        "der.N1.n und der.N2.n V1p der.N3.a .",
        "le.N1 et le.N2 V1p le.N3 .",
    ),
    ("the.N1s are/VBP D1 A1 ./.", "der.N1s.n sind D1 A1 .", "le.N1s sont D1 A1@N1s ."),
    ("my.N1 V1s your.N2 ./.", "mein.N1.n V1s dein.N2.a .", "mon.N1 V1s ton.N2 ."),
)
PROTOTYPES = 13
"""So many frames, the first ones, are the paper's."""

_NOUN = re.compile(r"(?P<det>[a-z-]+)\.(?:(?P<adjective>A\d)\+)?(?P<noun>N\d)(?P<plural>s?)(?:\.(?P<case>[nad]))?")
_OTHER = re.compile(r"(?P<word>[VADT]\d)(?P<form>[spgz]?)(?:(?P<link>[@~])(?P<noun>N\d)(?P<plural>s?))?")
_LINKED = re.compile(r"(?P<word>rel|sont)~(?P<noun>N\d)(?P<plural>s?)")


class Token(NamedTuple):
    """A token of a pattern. kind: noun, slot, linked or word. Fields that a kind has not are empty."""

    kind: str
    word: str = ""
    form: str = ""
    det: str = ""
    noun: str = ""
    plural: bool = False
    case: str = ""
    tag: str = ""


def _token(text: str) -> Token:
    if m := _NOUN.fullmatch(text):
        return Token("noun", m["adjective"] or "", "", m["det"], m["noun"], bool(m["plural"]), m["case"] or "")
    if m := _OTHER.fullmatch(text):
        return Token("slot", m["word"], m["form"], m["link"] or "", m["noun"] or "", bool(m["plural"]))
    if m := _LINKED.fullmatch(text):
        return Token("linked", m["word"], noun=m["noun"], plural=bool(m["plural"]))
    word, _, tag = text.partition("/") if text[0] != "/" else (text, "", "")
    return Token("word", word, tag=tag)


@dataclass(frozen=True)
class Frame:
    """A kind of sentence. slots: name of each word -> letter of its class. open: nouns that may be expanded."""

    number: int
    en: tuple[Token, ...]
    de: tuple[Token, ...]
    fr: tuple[Token, ...]
    slots: Mapping[str, str]
    open: tuple[str, ...]

    @classmethod
    def of(cls, number: int, patterns: Sequence[str]) -> Frame:
        """From the three patterns."""
        en, de, fr = (tuple(map(_token, pattern.split())) for pattern in patterns)
        names = [name for t in en for name in (t.word if t.kind != "word" else "", t.noun) if name]
        free = tuple(t.noun for t in en if t.kind == "noun" and t.det in ("the", "a") and not t.word)
        return cls(number, en, de, fr, {name: name[0] for name in names}, free)


GRAMMAR = tuple(Frame.of(i, patterns) for i, patterns in enumerate(FRAMES))


@dataclass
class Filled:
    """A frame with its words. words: name of a slot -> row of the lexicon. expanded: the noun that has `adjective`, or
    `place` and `where` (a preposition and a noun), beside the pattern; empty for none."""

    frame: Frame
    words: dict[str, Any]
    expanded: str = ""
    adjective: Adjective | None = None
    place: Phrase | None = None
    where: Noun | None = None

    def english(self) -> tuple[str, list[str]]:
        """The sentence, and a tag for each of its words and marks."""
        pairs = [pair for token in self.frame.en for pair in _english(token, self)]
        words = [word for word, _ in pairs]
        for i in range(len(words) - 1):
            if words[i] == "a" and words[i + 1][0] in "aeiou":
                words[i] = "an"
        return joined(words), [tag for _, tag in pairs]

    def german(self) -> str:
        """The same in German."""
        words = [word for token in self.frame.de for word in _german(token, self)]
        return joined(_contracted(words, _GERMAN))

    def french(self) -> str:
        """The same in French."""
        words = [word for token in self.frame.fr for word in _french(token, self)]
        return joined(_elided(_contracted(words, _FRENCH)), " ")


Allowed = Callable[[str], Sequence[Any]]
"""Letter of a class -> the rows of the lexicon that may be drawn."""


def every_word(letter: str) -> Sequence[Any]:
    """All words of a class."""
    return getattr(WORDS, letter)


def fill(frame: Frame, rng: random.Random, allowed: Allowed = every_word, expand: float = 0.0) -> Filled:
    """Random words for a frame, no word twice. expand: probability that one noun gets an adjective or a place."""
    made = Filled(frame, {})
    for letter in sorted(set(frame.slots.values()), key="NVADT".index):
        names = [name for name, own in frame.slots.items() if own == letter]
        made.words |= zip(names, rng.sample(allowed(letter), len(names)), strict=True)
    if frame.open and rng.random() < expand:
        made.expanded = rng.choice(frame.open)
        used = list(made.words.values())
        if rng.random() < 0.5:
            made.adjective = rng.choice([word for word in allowed("A") if word not in used])
        else:
            made.place = rng.choice(WORDS.P)
            made.where = rng.choice([word for word in allowed("N") if word not in used])
    return made


# English

_DETERMINER = {"their": "PRP$", "my": "PRP$", "your": "PRP$"}
_VERB_TAG = {"": "VB", "s": "VBZ", "p": "VBP", "g": "VBG"}


def _english(token: Token, made: Filled) -> list[tuple[str, str]]:
    if token.kind == "word":
        return [(token.word, token.tag)]
    if token.kind == "slot":
        word = made.words[token.word]
        if token.word[0] == "V":
            form = {"": word.en, "p": word.en, "s": word.en3, "g": word.eng}[token.form]
            return [(form, _VERB_TAG[token.form])]
        if token.word[0] == "A":
            return [(word.en, "JJ")]
        return list(zip(word.en, word.tags, strict=True))
    noun, mine = made.words[token.noun], made.expanded == token.noun
    words = [] if token.det == "-" else [(token.det, _DETERMINER.get(token.det, "DT"))]
    if token.word:
        words.append((made.words[token.word].en, "JJ"))
    if mine and made.adjective:
        words.append((made.adjective.en, "JJ"))
    words.append((noun.ens, "NNS") if token.plural else (noun.en, "NN"))
    if mine and made.place and made.where:
        words += [(made.place.en[0], "IN"), ("the", "DT"), (made.where.en, "NN")]
    return words


# German

_GENDERS = "mfnp"
_THE = {"n": ("der", "die", "das", "die"), "a": ("den", "die", "das", "die"), "d": ("dem", "der", "dem", "den")}
_A = {"n": ("", "e", "", "e"), "a": ("en", "e", "", "e"), "d": ("em", "er", "em", "en")}
_WEAK = {"n": ("e", "e", "e", "en"), "a": ("en", "e", "e", "en"), "d": ("en", "en", "en", "en")}
_MIXED = {"n": ("er", "e", "es", "en"), "a": ("en", "e", "es", "en"), "d": ("en", "en", "en", "en")}
_STRONG = {"n": ("er", "e", "es", "e"), "a": ("en", "e", "es", "e"), "d": ("em", "er", "em", "en")}
_GERMAN = {
    ("in", "dem"): "im",
    ("von", "dem"): "vom",
    ("bei", "dem"): "beim",
    ("an", "dem"): "am",
    ("zu", "dem"): "zum",
    ("zu", "der"): "zur",
}


def _german(token: Token, made: Filled) -> list[str]:
    if token.kind == "word":
        return [token.word]
    if token.kind == "slot":
        word = made.words[token.word]
        if token.word[0] == "V":
            return [word.de3 if token.form == "s" else word.de]
        return [word.de] if token.word[0] == "A" else list(word.de)
    noun = made.words[token.noun]
    if token.kind == "linked":
        return [_THE["n"][_GENDERS.index("p" if token.plural else noun.gender_de)]]
    gender = _GENDERS.index("p" if token.plural else noun.gender_de)
    mine = made.expanded == token.noun
    adjectives = [made.words[token.word]] if token.word else []
    adjectives += [made.adjective] if mine and made.adjective else []
    words, endings = [], _STRONG
    if token.det == "der":
        words, endings = [_THE[token.case][gender]], _WEAK
    elif token.det == "einige":
        words = ["einigen" if token.case == "d" else "einige"]
    elif token.det != "-":
        words, endings = [token.det + _A[token.case][gender]], _MIXED
    words += [adjective.de + endings[token.case][gender] for adjective in adjectives]
    plural = noun.des + ("n" if token.case == "d" and not noun.des.endswith(("n", "s")) else "")
    words.append(plural if token.plural else noun.de)
    if mine and made.place and made.where:
        words += [*made.place.de, _THE["d"][_GENDERS.index(made.where.gender_de)], made.where.de]
    return words


# French

_FRENCH = {("de", "le"): "du", ("de", "les"): "des"}
_VOWELS = tuple("aàâeéèêiîoôuûyœ")
_ELIDED = frozenset(("le", "la", "de", "ne", "que"))


def _before_vowel(word: str) -> bool:
    return word.startswith(_VOWELS) or word in SILENT


def _agreeing(adjective: Adjective, noun: Noun, plural: bool) -> str:
    if plural:
        return adjective.fr_ms if noun.gender_fr == "m" else adjective.fr_fs
    return adjective.fr_m if noun.gender_fr == "m" else adjective.fr_f


def _article(det: str, noun: Noun, plural: bool) -> list[str]:
    """The determiner's form; `mon` and `ton` stand for `ma` and `ta` before a vowel."""
    if det == "-":
        return []
    if det in ("quelques", "leur"):
        return [det if not plural or det == "quelques" else "leurs"]
    if plural:
        return [{"le": "les", "un": "des", "mon": "mes", "ton": "tes"}[det]]
    if noun.gender_fr == "m":
        return [det]
    if det in ("mon", "ton"):
        return [det if _before_vowel(noun.fr) else det[0] + "a"]
    return ["la" if det == "le" else det + "e"]


def _french(token: Token, made: Filled) -> list[str]:
    if token.kind == "word":
        return [token.word]
    noun: Any = made.words.get(token.noun)  # none where a token has no noun
    if token.kind == "linked":
        return [f"{token.word}-{'il' if noun.gender_fr == 'm' else 'elle'}s"]
    if token.kind == "slot":
        word = made.words[token.word]
        if token.word[0] == "V":
            form = {"": word.fr, "s": word.fr3, "p": word.frp, "g": word.frg, "z": word.frz}[token.form]
            return [f"{form}-t-{'il' if noun.gender_fr == 'm' else 'elle'}" if noun else form]
        return [_agreeing(word, noun, token.plural)] if token.word[0] == "A" else list(word.fr)
    mine = made.expanded == token.noun
    words = [*_article(token.det, noun, token.plural), noun.frs if token.plural else noun.fr]
    adjectives = [made.words[token.word]] if token.word else []
    adjectives += [made.adjective] if mine and made.adjective else []
    words += [_agreeing(adjective, noun, token.plural) for adjective in adjectives]
    if mine and made.place and made.where:
        words += [*made.place.fr, *_article("le", made.where, False), made.where.fr]
    return words


# Writing


def _contracted(words: Sequence[str], table: Mapping[tuple[str, str], str]) -> list[str]:
    """Words with pairs of the table as one; before a vowel French `le` is elided instead."""
    out: list[str] = []
    for i, word in enumerate(words):
        elided = word == "le" and table is _FRENCH and i + 1 < len(words) and _before_vowel(words[i + 1])
        if out and not elided and (out[-1], word) in table:
            out[-1] = table[out[-1], word]
        else:
            out.append(word)
    return out


def _elided(words: Sequence[str]) -> list[str]:
    """`le` and the like before a vowel as `l'`, written without a space behind it."""
    out: list[str] = []
    for i, word in enumerate(words):
        short = word in _ELIDED and i + 1 < len(words) and _before_vowel(words[i + 1])
        out.append(word[:-1] + "'" if short else word)
    return out


def joined(words: Sequence[str], before_marks: str = "") -> str:
    """Words as a sentence with a capital. before_marks: what stands before ! and ?."""
    line = words[0]
    for before, word in itertools.pairwise(words):
        tight = word in (".", ",") or (before.endswith("'") and len(before) <= 3)
        line += word if tight else before_marks + word if word in ("?", "!") else " " + word
    return line[0].upper() + line[1:]
