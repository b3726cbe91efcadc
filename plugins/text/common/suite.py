"""The evaluation of rewritten sentences: label, fluency, content and surface, from parallel lists of words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from distk.console import counted, warn
from distk.plugins.text.common import scores
from distk.plugins.text.common.evaluator import Evaluator
from distk.plugins.text.common.tagger import Tagger, noun_flags


@dataclass
class Rewrites:
    """What a system made of n sentences.

    sources, outputs: lists of words. source, target: labels. nouns: which source words are nouns. references: human or
    gold rewrites, where there are any.
    """

    sources: list[list[str]]
    outputs: list[list[str]]
    source: list[int]
    target: list[int]
    nouns: list[list[bool]]
    tagger: str = "data"
    references: list[list[str]] | None = None


def tag_nouns(sentences: Sequence[Sequence[str]], tagger: Tagger) -> list[list[bool]]:
    """Which words of each sentence are nouns."""
    return [noun_flags(tagger.tags(words)) for words in sentences]


def judge(rewrites: Rewrites, evaluator: Evaluator) -> dict[str, Any]:
    """Accuracies and shares in 0..1, BLEU in 0..100, perplexity as such.

    `j` is the smaller of transfer accuracy and noun recall: either alone is easily had, by a decoder that always says
    "it is great ." or by one that copies.
    """
    r = rewrites
    found = evaluator.labels(r.outputs)
    target = torch.tensor(r.target)
    result: dict[str, Any] = {"sentences": len(r.outputs)}
    right = (found == target).double()
    result["transfer_accuracy"] = float(right.mean()) if len(right) else math.nan
    for k, name in enumerate(evaluator.classes):
        if (target == k).any():
            result[f"accuracy_to_{name}"] = float(right[target == k].mean())
    result["classifier_accuracy"] = float(evaluator.info.get("classifier_accuracy", math.nan))
    result["bleu"], signature = scores.bleu(r.outputs, r.sources)
    if r.references is not None:
        result["bleu_reference"], _ = scores.bleu(r.outputs, r.references)
    if evaluator.info.get("with_lm", True):
        result["perplexity"] = evaluator.perplexity(r.outputs)
        result["real_perplexity"] = float(evaluator.info.get("real_perplexity", math.nan))
    result |= scores.content(r.sources, r.outputs, r.nouns)
    result["j"] = min(result["transfer_accuracy"], result["noun_recall"])
    result |= scores.surface(r.sources, r.outputs)
    result["unknown"] = evaluator.unknown(r.outputs)
    return {**result, "tagger": r.tagger, "bleu_signature": signature}


def reverse(
    evaluator: Evaluator,
    outputs: list[list[str]],
    real: list[list[str]],
    dev: list[list[str]],
    seed: int,
) -> dict[str, float | int]:
    """Reverse perplexity, and on how many outputs its language model was trained.

    real: held-out text of the target labels. dev: other real text, which stops the training.
    """
    if len(outputs) < 50_000:
        warn(
            f"reverse perplexity rests on {counted(len(outputs), 'output')}; compare only figures from as many (usual:"
            " 50,000)"
        )
    value = evaluator.reverse_perplexity(outputs, real, dev, seed)
    return {"reverse_perplexity": value, "reverse_sentences": len(outputs)}
