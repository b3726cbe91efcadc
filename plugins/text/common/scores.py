"""Scores of rewritten sentences that need no trained model: BLEU, content, copies. Sentences are lists of words."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Sequence

from distk import UsageError
from distk.console import warn_once

Words = Sequence[str]
UNKNOWN = "<unk>"
"""A system's word for none: it is no word of anybody's text, so it matches nothing, not even itself."""


def _ngrams(words: Words, n: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))


def bleu4(outputs: Sequence[Words], references: Sequence[Words]) -> float:
    """Corpus BLEU-4 (Papineni et al. 2002) in 0..100, one reference each, exponential smoothing of zero counts.

    The same number as sacrebleu with tokenize "none" and smooth_method "exp".
    """
    matched, total = [0] * 4, [0] * 4
    for output, reference in zip(outputs, references, strict=True):
        for n in range(1, 5):
            found, known = _ngrams(output, n), _ngrams(reference, n)
            matched[n - 1] += sum(min(count, known[gram]) for gram, count in found.items())
            total[n - 1] += max(0, len(output) - n + 1)
    written, given = sum(map(len, outputs)), sum(map(len, references))
    if not written or not all(total):
        return 0.0
    logs, halves = 0.0, 1.0
    for m, t in zip(matched, total, strict=True):
        if m == 0:
            halves *= 2
        logs += math.log(m / t if m else 1 / (halves * t)) / 4
    brevity = min(0.0, 1 - given / written)
    return 100 * math.exp(brevity + logs) if any(matched) else 0.0


def bleu(outputs: Sequence[Words], references: Sequence[Words]) -> tuple[float, str]:
    """Corpus BLEU-4 and the signature of what computed it: sacrebleu where it is installed, else `bleu4`.

    `<unk>` in an output counts as a word that is wrong.
    """
    outputs = [[f"{word}?" if word == UNKNOWN else word for word in output] for output in outputs]
    try:
        from sacrebleu.metrics import BLEU
    except ImportError:
        warn_once("BLEU is computed by distk itself; for sacrebleu and its signature: pip install 'distk[text]'")
        return bleu4(outputs, references), "distk.bleu4|nrefs:1|tok:none|smooth:exp"
    scorer = BLEU(tokenize="none", smooth_method="exp", force=True)
    result = scorer.corpus_score([" ".join(o) for o in outputs], [[" ".join(r) for r in references]])
    return float(result.score), str(scorer.get_signature())


def content(
    sources: Sequence[Words], outputs: Sequence[Words], nouns: Sequence[Sequence[bool]]
) -> dict[str, float | int]:
    """How much of the sources' nouns the outputs keep.

    content: share of sentences of which at least one noun is in the output (Melnyk et al. 2017). noun_recall: mean
    share of nouns kept, each counted as often as it occurs. Sentences without a noun (`no_noun`) count in neither;
    nor does a noun that the text itself has as `<unk>`.
    """
    any_kept, shares, without = 0, [], 0
    for source, output, flags in zip(sources, outputs, nouns, strict=True):
        wanted = Counter(word for word, flag in zip(source, flags, strict=True) if flag and word != UNKNOWN)
        if not wanted:
            without += 1
            continue
        have = Counter(output)
        kept = sum(min(n, have[word]) for word, n in wanted.items())
        any_kept += kept > 0
        shares.append(kept / sum(wanted.values()))
    n = len(shares)
    return {
        "content": any_kept / n if n else math.nan,
        "noun_recall": sum(shares) / n if n else math.nan,
        "no_noun": without,
    }


def surface(sources: Sequence[Words], outputs: Sequence[Words]) -> dict[str, float]:
    """What a collapsed decoder cannot hide: copies, mean length, distinct word pairs, empty outputs."""
    n = max(1, len(outputs))
    pairs = [pair for output in outputs for pair in itertools.pairwise(output)]
    return {
        "copy_rate": sum(list(s) == list(o) for s, o in zip(sources, outputs, strict=True)) / n,
        "mean_length": sum(map(len, outputs)) / n,
        "distinct2": len(set(pairs)) / len(pairs) if pairs else 0.0,
        "empty": sum(not o for o in outputs) / n,
    }


def token_f1(output: Words, gold: Words) -> float:
    """F1 of the bags of words; 1 for two empty ones."""
    if not output and not gold:
        return 1.0
    common = sum((Counter(output) & Counter(gold)).values())
    return 2 * common / (len(output) + len(gold))


def against_gold(outputs: Sequence[Words], gold: Sequence[Words], polar: set[str]) -> dict[str, float]:
    """exact_match with the gold rewrite, and content_f1 over the words that carry no label."""
    n = max(1, len(outputs))
    f1 = [
        token_f1([w for w in o if w not in polar], [w for w in g if w not in polar])
        for o, g in zip(outputs, gold, strict=True)
    ]
    exact = sum(list(o) == list(g) for o, g in zip(outputs, gold, strict=True)) / n
    return {"exact_match": exact, "content_f1": sum(f1) / n}


def same_length(named: dict[str, Sequence[object]]) -> None:
    """Raises UsageError with all counts when lists that go line by line differ in length."""
    if len({len(value) for value in named.values()}) > 1:
        counts = ", ".join(f"{name} has {len(value):,}" for name, value in named.items())
        raise UsageError(f"the files must have one line for one line, but {counts}.")
