"""The sentences whose codes are the clouds: drawn from the training split, in equal parts for each filter word."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from distk import Dataset, UsageError
from distk.console import counted
from distk.plugins.text.common.vocab import Vocab

FEWEST = 2
"""Sentences that a label needs for a cloud."""


def draw_examples(
    data: Dataset, vocab: Vocab, n: int, words: Sequence[str], generator: torch.Generator | None
) -> Tensor:
    """Training sentences of each label as token ids, int64 `[K, n, max_len + 1]`; rows of padding where
    there are fewer.

    words: as many sentences with each of them; without any, sentences as they come. generator: on the host; None: the
    global one. Labels are the data's own, right or wrong.
    Raises UsageError, naming label and words, where a label has fewer than two such sentences.
    """
    rows = data.rows_of("train")
    label = torch.cat([data.batch(part)["label"] for part in rows.split(4096)])
    holds = [_holding(data, vocab, rows, word) for word in words] or [torch.ones_like(label, dtype=torch.bool)]
    width = vocab.max_len + 1
    found = torch.zeros(len(data.spec.classes), n, width, dtype=torch.long, device=rows.device)
    for k, name in enumerate(data.spec.classes):
        chosen = _chosen([rows[(label == k) & held] for held in holds], n, generator)
        if len(chosen) < FEWEST:
            raise UsageError(
                f"label '{name}' has {counted(len(chosen), 'training sentence')} "
                + (f"with {' or '.join(map(repr, words))}, " if words else "")
                + f"and a cloud needs {FEWEST} or more"
                + (": choose other --filter-words, or none." if words else ".")
            )
        found[k, : len(chosen)] = data.batch(chosen)["x"]
    return found


def _holding(data: Dataset, vocab: Vocab, rows: Tensor, word: str) -> Tensor:
    """Which rows have a word, bool `[n]`. Raises UsageError for a word that the vocabulary lacks."""
    if word not in vocab.ids:
        raise UsageError(f"--filter-words: '{word}' is no word of the training text.")
    return torch.cat([(data.batch(part)["x"] == vocab.ids[word]).any(1) for part in rows.split(4096)])


def _chosen(groups: list[Tensor], n: int, generator: torch.Generator | None) -> Tensor:
    """`n` different rows, as many of each group as of the others, or all that there are."""
    taken: list[list[int]] = []
    for i, group in enumerate(groups):
        share = n // len(groups) + (i < n % len(groups))
        order = torch.randperm(len(group), generator=generator).to(group.device)
        before = {row for rows in taken for row in rows}
        taken.append([row for row in group[order].tolist() if row not in before][:share])
    # In turn, so that the first few rows, too, are of all groups.
    mixed = [row for turn in itertools.zip_longest(*taken) for row in turn if row is not None]
    return torch.tensor(mixed, dtype=torch.long, device=groups[0].device)


def topics(ids: Tensor, vocab: Vocab, words: Sequence[str]) -> Tensor:
    """Which of the words stands in each sentence, int64 `[n]`; -1 where none of them or several do. ids: `[n, T]`.

    Raises UsageError for a word that the vocabulary lacks.
    """
    for word in words:
        if word not in vocab.ids:
            raise UsageError(f"topic '{word}' is no word of the model's vocabulary.")
    held = torch.stack([(ids == vocab.ids[word]).any(1) for word in words], 1)
    return torch.where(held.sum(1) == 1, held.long().argmax(1), -1)
