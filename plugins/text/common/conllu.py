"""Sentences of CoNLL-U files, the format of Universal Dependencies: words with their tags."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from distk import DistkError
from distk.console import counted
from distk.plugins.text.common.files import read_lines

COLUMNS = 10
"""Of a line."""


@dataclass
class Tagged:
    """A sentence. name: its `sent_id`. text: as it was written. words, upos, xpos: one of each for each word.

    upos: universal tags. xpos: the language's own, Penn tags for English. An underscore stands for no tag.
    """

    name: str = ""
    text: str = ""
    words: list[str] = field(default_factory=list)
    upos: list[str] = field(default_factory=list)
    xpos: list[str] = field(default_factory=list)


def read_sentences(path: Path, encoding: str = "utf-8") -> list[Tagged]:
    """Every sentence of a CoNLL-U file, which may be gzip.

    A contraction (3-4) and an empty node (3.1) are left out, their parts are there. Without a `# text` the text is put
    together from the words. Raises DistkError naming the line that is not CoNLL-U.
    """
    sentences: list[Tagged] = []
    now, built, until = Tagged(), "", 0
    for number, line in enumerate([*read_lines(path, encoding), ""], 1):
        if not line.strip():
            if now.words:
                now.text = now.text or built.strip()
                sentences.append(now)
            now, built, until = Tagged(), "", 0
        elif line.startswith("#"):
            key, equals, value = line[1:].partition("=")
            if equals and key.strip() in ("text", "sent_id"):
                setattr(now, {"text": "text", "sent_id": "name"}[key.strip()], value.strip())
        else:
            cells = line.split("\t")
            if len(cells) != COLUMNS:
                raise DistkError(
                    f"line {number} of '{path}' has {counted(len(cells), 'column')}; CoNLL-U has {COLUMNS}."
                )
            place = cells[0]
            if place.isdecimal():
                now.words.append(cells[1])
                now.upos.append(cells[3])
                now.xpos.append(cells[4])
            if place.isdecimal() and int(place[:9]) <= until:
                continue  # part of a contraction, whose own line was written
            first, dash, last = place.partition("-")
            if dash and first.isdecimal() and last.isdecimal():
                until = int(last[:9])
            if place.isdecimal() or dash:
                built += cells[1] + ("" if "SpaceAfter=No" in cells[9] else " ")
    return sentences


def read_conllu(path: Path, encoding: str = "utf-8") -> list[tuple[list[str], list[str]]]:
    """Sentences of a CoNLL-U file as (words, Penn tags); a word without a Penn tag has its universal one."""
    return [
        (s.words, [x if x != "_" else u for x, u in zip(s.xpos, s.upos, strict=True)])
        for s in read_sentences(path, encoding)
    ]
