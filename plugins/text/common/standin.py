"""The stand-in corpus: reviews from a template grammar, with tags, topic, and the gold rewrite of every sentence.

Two things make it a test of disentanglement rather than of memory. Reversers: with probability 0.35 a polar word is
written as a reverser ("not", "never", ...) before a word of the OPPOSITE polarity, so that polar words occur in both
classes. And label noise: 10 % of the training labels are flipped, as real review labels are noisy; with clean labels
each decoder never sees the other class's words and even an autoencoder without any adversary transfers perfectly.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

NOUNS = {
    "restaurant": "restaurant food pizza burger waiter menu soup salad steak pasta dessert sauce kitchen chef "
    "breakfast lunch dinner wine coffee table",
    "hotel": "hotel room bed lobby pool shower bathroom towel receptionist view elevator balcony pillow carpet "
    "parking spa",
    "phone": "phone screen battery charger camera speaker keyboard button headset cable case display app antenna",
    "movie": "movie plot actor scene ending script director soundtrack story dialogue cast sequel character film",
}


def _pairs(text: str) -> list[list[str]]:
    """`good/bad ...` -> [positive, negative] each."""
    return [pair.split("/") for pair in text.split()]


ADJECTIVES = _pairs(
    "great/terrible good/bad excellent/awful reliable/unreliable fresh/stale nice/nasty wonderful/horrible "
    "amazing/dreadful perfect/broken clean/dirty friendly/rude fast/slow pleasant/unpleasant superb/poor "
    "useful/useless solid/flimsy bright/dull charming/boring brilliant/lousy fantastic/pathetic"
)
PRESENT = _pairs("love/hate enjoy/dislike adore/despise recommend/avoid appreciate/regret")
PAST = _pairs("loved/hated enjoyed/disliked adored/despised recommended/avoided appreciated/regretted")
ADVERBS = _pairs("fortunately/unfortunately happily/sadly luckily/unluckily thankfully/regrettably")
REVERSERS = ("not", "never", "hardly", "supposedly")
SLOTS = {
    "D": "the/DT this/DT that/DT their/PRP$ my/PRP$ our/PRP$",
    "be": "was/VBD is/VBZ",
    "I": "very/RB really/RB so/RB quite/RB truly/RB rather/RB just/RB",
    "S": "i/PRP we/PRP you/PRP they/PRP",
    "P": "my/PRP$_wife/NN my/PRP$_boss/NN our/PRP$_friends/NNS his/PRP$_mother/NN",
    "X": "yesterday/RB again/RB last/JJ_night/NN on/IN_sunday/NNP this/DT_week/NN today/RB",
    "L": "downtown/RB in/IN_vegas/NNP by/IN_the/DT_lake/NN nearby/RB in/IN_town/NN",
}
CLOSED = {
    ",": ",", ".": ".", "!": ".", "and": "CC", "but": "CC", "too": "RB", "went": "VBD", "said": "VBD", "how": "WRB",
    "such": "PDT", "a": "DT", "most": "RBS", "though": "RB", "for": "IN", "we": "PRP", "this": "DT", "the": "DT",
    "think": "VBP", "with": "IN",
}  # fmt: skip
TEMPLATES = (
    "D N be A .",
    "D N be I A .",
    "D N be A X .",
    "S vb D N .",
    "S vb D N X .",
    "P vd D N .",
    "av , D N be A .",
    "D N and D N be A .",
    "such a N X !",
    "S went X and D N be A .",
    "P said D N be A .",
    "D N be A and D N be A X .",
    "S vb how A D N be .",
    "S vd D N but we vd D N too .",
    "this be the most A N L .",
    "A N , A N , A N .",
    "av , P vd D N L .",
    "S think D N L be I A .",
    "D N with D N be I A X .",
    "P vd how A D N be X .",
)
PARTNER = {a: b for pairs in (ADJECTIVES, PRESENT, PAST, ADVERBS) for p, n in pairs for a, b in ((p, n), (n, p))}
"""Each polar word -> its opposite."""
POLARITY = {w: s for pairs in (ADJECTIVES, PRESENT, PAST, ADVERBS) for p, n in pairs for w, s in ((p, 1), (n, -1))}


@dataclass(frozen=True)
class Grammar:
    """How much of the grammar is in use."""

    topics: tuple[str, ...]
    nouns: int = 99
    adjectives: int = 20
    templates: int = 20
    reverse: float = 0.35


VARIANTS = {
    "tiny": Grammar(("phone", "movie"), 5, 6, 4),
    "small": Grammar(("phone", "movie"), 8, 12, 12),
    "full": Grammar(("restaurant", "hotel", "phone", "movie")),
}
LENGTHS = {"tiny": 20_000, "small": 20_000, "full": 200_000}


@dataclass(frozen=True)
class Sentence:
    """words, tags (Penn), label (1 positive), topic and template by number."""

    words: tuple[str, ...]
    tags: tuple[str, ...]
    label: int
    topic: int
    template: int


def generate(grammar: Grammar, n: int, stream: str) -> list[Sentence]:
    """`n` sentences, labels and topics balanced. stream: names the random stream; the first k do not depend on n."""
    rng = random.Random(f"standin-reviews/{stream}")
    # "such a N X !" has a polar slot of its own: `such a` alone says nothing, so an adjective goes in.
    templates = [t.replace("such a N", "such a A N").split() for t in TEMPLATES[: grammar.templates]]
    nouns = [NOUNS[topic].split()[: grammar.nouns] for topic in grammar.topics]
    made = []
    for i in range(n):
        label, topic = i % 2, i // 2 % len(grammar.topics)
        template = rng.randrange(len(templates))
        tokens: list[tuple[str, str]] = []
        for slot in templates[template]:
            tokens += _fill(slot, rng, nouns[topic], grammar, label)
        words, tags = zip(*tokens, strict=True)
        made.append(Sentence(words, tags, label, topic, template))
    return made


def _fill(slot: str, rng: random.Random, nouns: list[str], grammar: Grammar, label: int) -> list[tuple[str, str]]:
    if slot == "N":
        return [(rng.choice(nouns), "NN")]
    if slot in SLOTS:
        phrase = rng.choice(SLOTS[slot].split(" "))
        return [tuple(part.rsplit("/", 1)) for part in phrase.split("_")]  # type: ignore[misc]
    pairs, tag = {
        "A": (ADJECTIVES[: grammar.adjectives], "JJ"),
        "vb": (PRESENT, "VBP"),
        "vd": (PAST, "VBD"),
        "av": (ADVERBS, "RB"),
    }.get(slot, (None, ""))
    if pairs is None:
        return [(slot, CLOSED[slot])]
    pair = rng.choice(pairs)
    positive = bool(label)
    if rng.random() < grammar.reverse:
        return [(rng.choice(REVERSERS), "RB"), (pair[positive], tag)]
    return [(pair[not positive], tag)]


def gold(words: Sequence[str]) -> list[str]:
    """The rewrite with the other label: every polar word swapped for its partner, all else kept."""
    return [PARTNER.get(word, word) for word in words]


def oracle(words: Sequence[str]) -> int | None:
    """The label that the words express: polar words, turned by a reverser before them, by majority; None for a tie."""
    total = 0
    for i, word in enumerate(words):
        if word in POLARITY:
            total += -POLARITY[word] if i and words[i - 1] in REVERSERS else POLARITY[word]
    return None if total == 0 else int(total > 0)


def flips(n: int, share: float, stream: str) -> list[bool]:
    """Which of `n` training labels are wrong."""
    rng = random.Random(f"standin-noise/{stream}")
    return [rng.random() < share for _ in range(n)]
