"""Reading text files of others: bytes, decoded strictly, split at line feeds only; and the corpora's formats."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import re
import stat
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from distk import DistkError, Files, UsageError
from distk.console import counted
from distk.data import names_of
from distk.unpacked import on_disk

LARGEST_FILE = 8 << 30
"""Bytes of one text file that we agree to read."""
LONGEST_LINE = 1 << 20
LONGEST_TOKEN_BYTES = 4000
"""Bytes of a word in a file of word vectors."""
GZIP = b"\x1f\x8b"
SWOLLEN, SMALL = 100, 64 << 20
"""A gzip file may unpack to so many times its size, and to so many bytes in any case; text shrinks to a fifth."""
_MARKS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}


@dataclass
class Part:
    """Sentences of one split.

    lines: text. labels: class of each line, -1 for none; an empty list for text without labels. tags: of each word, or
    None. columns: further text for each line by name (a translation, tags apart by spaces, a language); None for a line
    that has none.
    """

    lines: list[str] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    tags: list[list[str]] | None = None
    columns: dict[str, list[str | None]] = field(default_factory=dict)

    def add(self, lines: Sequence[str], label: int) -> None:
        """Append lines of one class."""
        self.lines += lines
        self.labels += [label] * len(lines)

    def take(self, source: Part, rows: Sequence[int]) -> None:
        """Append rows of another part; a column that either side lacks has None there."""
        before = len(self.lines)
        self.lines += [source.lines[i] for i in rows]
        if source.labels or self.labels:
            self.labels = self.labels or [-1] * before
            self.labels += [source.labels[i] for i in rows] if source.labels else [-1] * len(rows)
        if self.tags is not None and source.tags is not None:
            self.tags += [source.tags[i] for i in rows]
        for name in {**self.columns, **source.columns}:
            held = self.columns.setdefault(name, [None] * before)
            held += [source.columns[name][i] for i in rows] if name in source.columns else [None] * len(rows)


TABLES = frozenset({".csv", ".tsv", ".parquet"})
NO_TEXT = frozenset(
    {*TABLES, ".json", ".jsonl", ".xml", ".html", ".md", ".log", ".toml", ".yaml", ".yml", ".ini", ".py", ".ipynb"}
    | {".npy", ".npz", ".h5", ".hdf5", ".mat", ".pkl", ".pickle", ".pt", ".pth", ".ckpt", ".safetensors", ".arrow"}
    | {".png", ".jpg", ".jpeg", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".svg", ".mp4", ".avi", ".wav", ".mp3"}
    | {".zip", ".tar", ".tgz", ".bz2", ".xz", ".7z", ".pdf", ".doc", ".docx", ".xls", ".xlsx", ".odt", ".ods"}
    | {".bak", ".tmp", ".swp", ".part", ".orig", ".vocab", ".bpe", ".idx", ".bin"}
)
"""Endings of what lies beside texts and is none, in small letters: no label and no column is called so."""


def texts(paths: Iterable[Path]) -> tuple[list[Path], tuple[str, ...]]:
    """Those of the files that may hold a sentence a line, and what is to be said of the others."""
    kept: list[Path] = []
    spare: list[Path] = []
    for path in sorted(paths):
        plain = Path(path.name.removesuffix(".gz"))
        no_text = plain.suffix.lower() in NO_TEXT or plain.name.endswith("~") or not path.is_file()
        (spare if no_text else kept).append(path)
    if not spare:
        return kept, ()
    shown = ", ".join(f"'{path.name}'" for path in spare[:3]) + (", ..." if len(spare) > 3 else "")
    hint = "; tables are read with --data text-table" if any(p.suffix.lower() in TABLES for p in spare) else ""
    return kept, (f"{shown} left out, no text with a sentence a line{hint}",)


@contextlib.contextmanager
def unpacked(files: Files) -> Iterator[Files]:
    """The user's files, with an archive that they named as a folder."""
    root = files.folders[0] if files.required else None
    if root is None:
        yield files
        return
    with on_disk(root) as folder:
        yield files if folder == root else Files(files.name, folder, files.reads, files.model, files.where)


def folder_of(files: Files, what: str, instead: str = "standin-reviews") -> Path:
    """The folder that holds `what`, or the reason why the corpus cannot be opened. instead: data without files."""
    if not files.folders:
        raise UsageError(
            f"data set '{files.name}' needs its files, {files.reads}: add --data-dir DIR (or set DISTK_DATA). "
            f"Without any files, --data {instead} works."
        )
    return files.folders[0]


def named(files: Files, names: tuple[str, ...]) -> Path:
    """The first existing of `names` in the folders. Raises UsageError that names every expected path."""
    for folder in files.folders:
        for name in names:
            if (found := there(folder / name)) is not None:
                return found
    folder_of(files, names[0])
    tried = names_of([f"'{folder / name}'" for folder in files.folders for name in names])
    raise UsageError(f"data set '{files.name}' found no file {tried}; it reads {files.reads}.")


def there(path: Path) -> Path | None:
    """A file or its gzip form, whichever is there."""
    return next((p for p in (path, path.with_name(f"{path.name}.gz")) if p.is_file()), None)


def read_bytes(path: Path) -> bytes:
    """A whole file, unpacked where it is gzip, whatever its name says.

    Raises DistkError naming a file that is missing, no regular file, too large, damaged, or unpacks beyond measure.
    """
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise DistkError(f"'{path}' is not a regular file.")
        if found.st_size > LARGEST_FILE:
            raise DistkError(f"'{path}' has {counted(found.st_size, 'byte')}; more than {LARGEST_FILE:,} is refused.")
        raw = path.read_bytes()
    except OSError as error:
        raise DistkError(f"cannot read '{path}': {error.strerror or error}.") from error
    return _unpacked(raw, path) if raw.startswith(GZIP) else raw


def _unpacked(raw: bytes, path: Path) -> bytes:
    """The content of a gzip file, which may be of several members."""
    room = min(LARGEST_FILE, max(SMALL, SWOLLEN * len(raw)))
    parts: list[bytes] = []
    rest, size = raw, 0
    try:
        while rest.strip(b"\0"):
            member = zlib.decompressobj(wbits=31)
            parts.append(member.decompress(rest, room - size + 1))
            size += len(parts[-1])
            if size > room:
                raise DistkError(
                    f"'{path}' has {counted(len(raw), 'byte')} and unpacks to more than {room:,}; unpack it with gunzip"
                    " if it is what you expect."
                )
            if not member.eof:
                raise DistkError(f"'{path}' is cut off: its gzip data have no end.")
            rest = member.unused_data
    except zlib.error as error:
        raise DistkError(f"'{path}' is a damaged gzip file ({error}).") from error
    return b"".join(parts)


def read_text(path: Path, encoding: str = "utf-8") -> str:
    """A whole file as text, without a byte order mark; `.gz` is unpacked.

    Raises DistkError naming the file, and for undecodable bytes the line and the offset.
    """
    raw = read_bytes(path)
    if b"\0" in raw[: 1 << 16] and not raw.startswith(tuple(_MARKS)) and "16" not in encoding and "32" not in encoding:
        raise DistkError(f"'{path}' is no text: it holds zero bytes, as pictures, archives and programs do.")
    try:
        return raw.decode(encoding).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        mark = _MARKS.get(raw[:2])
        hint = (
            f"the file begins like {mark}: add --encoding {mark}"
            if mark
            else "if the file is Latin-1, add --encoding latin-1"
        )
        raise DistkError(
            f"'{path}' is not {encoding}: line {line}, byte offset {error.start}; {hint}, or convert it with iconv."
        ) from error
    except (LookupError, UnicodeError) as error:
        if isinstance(error, LookupError):
            raise UsageError(f"--encoding '{encoding}' is not a known encoding.") from error
        raise DistkError(f"'{path}' is not {encoding} ({error}).") from error


def western(path: Path) -> str:
    """The encoding of a file of a Western language: utf-8 where it is valid, else cp1252, else latin-1.

    What calls itself Latin-1 is mostly Windows' cp1252, which differs in bytes 0x80 to 0x9f alone: dashes, quotation
    marks and the ellipsis there, controls in Latin-1, which no text has.
    """
    raw = read_bytes(path)
    for encoding in ("utf-8", "cp1252"):
        with contextlib.suppress(UnicodeDecodeError):
            raw.decode(encoding)
            return encoding
    return "latin-1"


def read_lines(path: Path, encoding: str = "utf-8") -> list[str]:
    """Lines of a file. Only the line feed ends a line: `str.splitlines` would also split at U+0085 and others."""
    lines = read_text(path, encoding).split("\n")
    if lines and lines[-1] == "":
        lines.pop()
    for i, line in enumerate(lines):
        if len(line) > LONGEST_LINE:
            raise DistkError(f"line {i + 1} of '{path}' has {counted(len(line), 'character')}; that is not a sentence.")
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


def aligned(lines: Mapping[Path, Sequence[object]]) -> int:
    """The number of lines that all files share. Raises UsageError that names two files with different numbers."""
    (first, held), *others = lines.items()
    for path, found in others:
        if len(found) != len(held):
            raise UsageError(
                f"'{first}' has {counted(len(held), 'line')} and '{path}' {len(found):,}; line by line they must say"
                " the same."
            )
    return len(held)


def read_table(path: Path, encoding: str, names: Sequence[str] | None) -> dict[str, list[str]]:
    """Lines `en TAB de TAB fr [TAB tags]` as columns by name.

    names: of the columns; default: en, de, fr, pos, as many as there are. Raises DistkError naming the line that has
    another number of columns.
    """
    lines = read_lines(path, encoding)
    if not lines:
        raise DistkError(f"'{path}' is empty.")
    width = lines[0].count("\t") + 1
    chosen = names or ("en", "de", "fr", "pos")[:width]
    if len(chosen) != width:
        raise UsageError(
            f"'{path}' has {counted(width, 'column')}, and the names are of {counted(len(chosen), 'language')}:"
            f" {', '.join(chosen)}."
        )
    columns: dict[str, list[str]] = {name: [] for name in chosen}
    for number, line in enumerate(lines, 1):
        cells = line.split("\t")
        if len(cells) != width:
            raise DistkError(
                f"line {number} of '{path}' has {counted(len(cells), 'column')} apart by tabs, line 1 has {width}."
            )
        for name, cell in zip(chosen, cells, strict=True):
            columns[name].append(cell)
    return columns


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
        raise DistkError(f"'{path}' is no sound CSV file: line {reader.line_num}, {error}.") from error
    return part


def read_scored(path: Path, encoding: str) -> Part:
    """One JSON object a line with `review`, the text, and `score`, 0 or 1."""
    part = Part()
    for number, line in enumerate(read_lines(path, encoding), 1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict) or not isinstance(row.get("review"), str) or row.get("score") not in (0, 1):
            raise DistkError(
                f"line {number} of '{path}' is not a JSON object with a text 'review' and a 'score' of 0 or 1."
            )
        part.add([row["review"].replace("\n", " ")], int(row["score"]))
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
