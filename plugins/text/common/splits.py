"""Splits of a corpus: dividing one that has none, filling in what is missing, joining several."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping

from distk.plugins.text.common.files import Part


def divided(part: Part, seed: int = 0, dev: float = 0.1, test: float = 0.1) -> dict[str, Part]:
    """A corpus without an official split: 80/10/10 by a fixed permutation, in each label alike."""
    parts = {name: Part(tags=None if part.tags is None else []) for name in ("train", "dev", "test")}
    labels = part.labels or [-1] * len(part.lines)
    for label in sorted(set(labels)):
        rows = [i for i, other in enumerate(labels) if other == label]
        random.Random(f"split/{seed}/{label}").shuffle(rows)
        cut = [round(len(rows) * test), round(len(rows) * (test + dev))]
        for name, chosen in (("test", rows[: cut[0]]), ("dev", rows[cut[0] : cut[1]]), ("train", rows[cut[1] :])):
            parts[name].take(part, sorted(chosen))
    return parts


def completed(parts: Mapping[str, Part], as_they_are: bool = False) -> tuple[dict[str, Part], str]:
    """Splits with train, dev and test filled in where the files lack them, and what was done about it in words.

    `unsup` stays as it is. Without train, or with train alone, everything is divided 80/10/10. as_they_are: files
    without train are not divided, for whoever only reads them.
    """
    if as_they_are and "train" not in parts:
        return dict(parts), ""
    named = {name: part for name, part in parts.items() if name in ("train", "dev", "test")}
    others = {name: part for name, part in parts.items() if name not in named}
    if "train" not in named or len(named) == 1:
        whole = joined([{"all": part} for part in named.values()])["all"]
        return {**divided(whole), **others}, f"; only {' and '.join(named)} files, split 80/10/10"
    if len(named) == 2:
        there = "test" if "test" in named else "dev"
        missing = "dev" if there == "test" else "test"
        return {**named, missing: named[there], **others}, f"; no {missing} files, so {there} serves as both"
    return {**named, **others}, ""


def described(parts: Mapping[str, Part]) -> str:
    """How many sentences there are to learn from, or in each split where there are none."""
    if "train" in parts:
        return f"{len(parts['train'].lines):,} training sentences"
    return ", ".join(f"{len(part.lines):,} {name} sentences" for name, part in parts.items())


def held_out(part: Part, n: int, seed: int = 0) -> tuple[Part, Part]:
    """(`n` rows by a fixed permutation, the rest), both in their old order: files may be sorted by something."""
    rows = list(range(len(part.lines)))
    random.Random(f"held out/{seed}").shuffle(rows)
    taken, rest = (Part(tags=None if part.tags is None else []) for _ in range(2))
    taken.take(part, sorted(rows[:n]))
    rest.take(part, sorted(rows[n:]))
    return taken, rest


def joined(corpora: Iterable[Mapping[str, Part]]) -> dict[str, Part]:
    """Corpora as one: splits of one name follow each other, so that a split never takes rows of another.

    Tags are kept where all corpora have them; a column that one corpus lacks has None there.
    """
    corpora = list(corpora)
    names = list(dict.fromkeys(name for parts in corpora for name in parts))
    tagged = all(part.tags is not None for parts in corpora for part in parts.values())
    made = {name: Part(tags=[] if tagged else None) for name in names}
    for parts in corpora:
        for name, part in parts.items():
            made[name].take(part, range(len(part.lines)))
    return made


def unlabelled(part: Part) -> Part:
    """The lines of a part without what is known about them, as the split `unsup`."""
    return Part(list(part.lines), [-1] * len(part.lines))
