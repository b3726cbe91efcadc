"""Reading text files of others: bytes, decoded strictly, split at line feeds only; and the corpora's formats."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from distk import DistkError, UsageError

LARGEST_FILE = 8 << 30
"""Bytes of one text file that we agree to read."""
LONGEST_LINE = 1 << 20


@dataclass
class Part:
    """Sentences of one split. lines: text. labels: class of each line, -1 for none. tags: of each word, or None."""

    lines: list[str] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    tags: list[list[str]] | None = None

    def add(self, lines: list[str], label: int) -> None:
        """Append lines of one class."""
        self.lines += lines
        self.labels += [label] * len(lines)


def read_text(path: Path, encoding: str = "utf-8") -> str:
    """A whole file as text, without a byte order mark.

    Raises DistkError naming the file, and for undecodable bytes the line and the offset.
    """
    try:
        size = path.stat().st_size
        if size > LARGEST_FILE:
            raise DistkError(f"'{path}' has {size:,} bytes; more than {LARGEST_FILE:,} is refused.")
        raw = path.read_bytes()
    except OSError as error:
        raise DistkError(f"cannot read '{path}': {error.strerror or error}.") from error
    try:
        return raw.decode(encoding).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DistkError(
            f"'{path}' is not {encoding}: line {line}, byte offset {error.start}; "
            "if the file is Latin-1, add --encoding latin-1."
        ) from error
    except LookupError as error:
        raise UsageError(f"--encoding '{encoding}' is not a known encoding.") from error


def read_lines(path: Path, encoding: str = "utf-8") -> list[str]:
    """Lines of a file. Only the line feed ends a line: `str.splitlines` would also split at U+0085 and others."""
    lines = read_text(path, encoding).split("\n")
    if lines and lines[-1] == "":
        lines.pop()
    for i, line in enumerate(lines):
        if len(line) > LONGEST_LINE:
            raise DistkError(f"line {i + 1} of '{path}' has {len(line):,} characters; that is not a sentence.")
    return [line.removesuffix("\r") for line in lines]


def label_index(label: str, names: tuple[str, ...], where: str = "--to") -> int:
    """A label by name, unique prefix or number. Raises UsageError that lists the labels."""
    if label in names:
        return names.index(label)
    found = [i for i, name in enumerate(names) if label and name.startswith(label)]
    if len(found) == 1:
        return found[0]
    if label.isdecimal() and label.isascii() and int(label) < len(names):
        return int(label)
    problem = "fits several labels" if found else "is not a label"
    listed = ", ".join(f"{name} ({i})" for i, name in enumerate(names))
    raise UsageError(f"{where}: '{label}' {problem}; there are {listed}.")


def read_labels(path: Path, names: tuple[str, ...], encoding: str = "utf-8") -> list[int]:
    """One label per line, a name of `names` or its number. Raises UsageError for anything else."""
    lines = read_lines(path, encoding)
    return [label_index(line.strip(), names, f"line {i + 1} of '{path}'") for i, line in enumerate(lines)]


# The corpora


def yelp_table(layout: str) -> dict[str, tuple[tuple[str, int], ...]]:
    """Split -> (file, label) with 0 negative, 1 positive, for the two layouts in circulation.

    Shen et al.: suffix 0 is negative. ARAE: in train and valid 1 is POSITIVE and 2 negative, in test 0 is negative.
    """
    if layout == "shen":
        return {s: ((f"sentiment.{s}.0", 0), (f"sentiment.{s}.1", 1)) for s in ("train", "dev", "test")}
    return {
        "train": (("train2", 0), ("train1", 1)),
        "dev": (("valid2", 0), ("valid1", 1)),
        "test": (("test0", 0), ("test1", 1)),
    }


def read_finegrained(path: Path, encoding: str, keep: tuple[str, ...]) -> Part:
    """Reviews apart by blank lines: a name, `domain TAB stars`, then `label TAB sentence` lines; labels in `keep`."""
    part, place = Part(), 0
    for number, line in enumerate(read_lines(path, encoding), 1):
        place = 0 if not line.strip() else place + 1
        if place < 3:  # the review's name, its domain and stars
            continue
        label, tab, sentence = line.partition("\t")
        if not tab or label not in ("pos", "neg", "neu", "mix", "nr"):
            raise DistkError(f"line {number} of '{path}' is not 'label TAB sentence' with pos, neg, neu, mix or nr.")
        if label in keep:
            part.add([sentence], keep.index(label))
    return part


def read_uci(path: Path, encoding: str) -> Part:
    """Lines `sentence TAB 0|1`, split at the last tab."""
    part = Part()
    for number, line in enumerate(read_lines(path, encoding), 1):
        sentence, tab, label = line.rpartition("\t")
        if not tab or label.strip() not in ("0", "1"):
            raise DistkError(f"line {number} of '{path}' does not end in a tab and 0 or 1.")
        part.add([sentence.strip()], int(label))
    return part


def read_csv(path: Path, encoding: str, classes: dict[int, int], column: int) -> Part:
    """Rows `"class","title","question","answer"`; classes: their 1-based numbers -> ours; column: 1, 2 or 3."""
    part = Part()
    reader = csv.reader(io.StringIO(read_text(path, encoding), newline=""), strict=True)
    try:
        for row in reader:
            if len(row) <= column or not row[0].strip().isdecimal():
                raise DistkError(f'line {reader.line_num} of \'{path}\' is not "class","title","question","answer".')
            label = classes.get(int(row[0]))
            text = row[column].replace("\\n", " ").replace("<br />", " ").strip()
            if label is not None and text:
                part.add([" ".join(text.split())], label)
    except csv.Error as error:
        raise DistkError(f"'{path}' is not a valid CSV file: line {reader.line_num}, {error}.") from error
    return part


_END = re.compile(r"(?<=[.!?])[\"')\]]*\s+(?=[\"'(\[]*[A-Z0-9])")
_ABBREVIATED = re.compile(r"(?:\b(?:Mr|Mrs|Ms|Dr|St|vs|etc|Jr|Sr|Prof|No|e\.g|i\.e)|\b[A-Za-z])\.[\"')\]]*$")


def split_sentences(review: str) -> list[str]:
    """Sentences of a review: cut after . ! ? before a capital or digit, and at `<br />`, not after abbreviations."""
    sentences: list[str] = []
    for paragraph in re.split(r"(?:<br\s*/?>|\n)+", review):
        start = 0
        for match in _END.finditer(paragraph):
            piece = paragraph[start : match.end()].strip()
            if not _ABBREVIATED.search(piece):
                sentences.append(piece)
                start = match.end()
        sentences.append(paragraph[start:].strip())
    return [s for s in sentences if s]


def read_reviews(folder: Path, encoding: str) -> Iterator[str]:
    """The sentences of every `ID_RATING.txt` of a folder, in the order of the numbers."""
    found = sorted(folder.glob("*_*.txt"), key=lambda p: (len(p.stem.split("_")[0]), p.name))
    if not found:
        raise DistkError(f"'{folder}' holds no reviews named ID_RATING.txt.")
    for path in found:
        yield from split_sentences(read_text(path, encoding))


def read_tagged(line: str, where: str) -> tuple[list[str], list[str]]:
    """`word_TAG word_TAG` -> words, tags; cut at the last underscore. Raises DistkError for a word without a tag."""
    words, tags = [], []
    for token in line.split():
        word, mark, tag = token.rpartition("_")
        if not mark or not word or not tag:
            raise DistkError(f"{where}: '{token[:50]}' is not word_TAG.")
        words.append(word)
        tags.append(tag)
    return words, tags


def read_conllu(path: Path, encoding: str = "utf-8") -> list[tuple[list[str], list[str]]]:
    """Sentences of a CoNLL-U file as (words, Penn tags); universal tags where the file has no Penn tags.

    Raises DistkError naming the line that is no CoNLL-U.
    """
    sentences: list[tuple[list[str], list[str]]] = []
    words: list[str] = []
    tags: list[str] = []
    for number, line in enumerate([*read_lines(path, encoding), ""], 1):
        if not line.strip():
            if words:
                sentences.append((words, tags))
                words, tags = [], []
        elif not line.startswith("#"):
            columns = line.split("\t")
            if len(columns) != 10:
                raise DistkError(f"line {number} of '{path}' has {len(columns)} columns; CoNLL-U has 10.")
            if columns[0].isdecimal():  # 3-4 is a contraction, 3.1 an empty node
                words.append(columns[1])
                tags.append(columns[4] if columns[4] != "_" else columns[3])
    return sentences
