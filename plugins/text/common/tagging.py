"""Tags of a whole text, found once and kept for the next start: a tagger in Python takes minutes for a large one."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from distk.console import progress
from distk.kept import kept
from distk.plugins.text.common.tagger import Tagger

MANY = 100_000
"""Words from which on their tags are kept; fewer take a second or so."""


def tags_of(
    mark: Tagger, lines: Sequence[str], split: Callable[[str], Sequence[str]], name: str
) -> Iterator[list[str]]:
    """The tags of each line's words, in order.

    split: a line into words. name: whose tags they are: those of one name are replaced when text or tagger change.
    """
    digest, sizes = hashlib.sha256(), np.zeros(len(lines), np.int64)
    for i, line in enumerate(lines):
        words = split(line)
        sizes[i] = len(words)
        digest.update("\0".join((*words, "\n")).encode("utf-8", "surrogateescape"))
    every = int(sizes.sum())
    if every < MANY or not mark.version:
        yield from (mark.tags(split(line)) for line in lines)
        return

    def fill(array: np.ndarray) -> None:
        at = 0
        with progress(f"tagging by {mark.name}", len(lines)) as advance:
            for line, size in zip(lines, sizes.tolist(), strict=True):
                array[at : at + size] = [tag.encode() for tag in mark.tags(split(line))]
                at += size
                advance(1)

    made_of = {"text": digest.hexdigest(), "tagger": [mark.name, mark.version]}
    held = kept(f"tags of {name}", made_of, (every,), f"S{mark.longest}", fill)
    known: dict[bytes, str] = {}
    at = 0
    for size in sizes.tolist():
        found = held[at : at + size].tolist()
        at += size
        yield [known.setdefault(tag, tag.decode()) for tag in found]
