"""The user's own sentences with labels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from distk import Files, UsageError, option
from distk.console import counted
from distk.data import names_of
from distk.plugins.text.common import files as formats
from distk.plugins.text.common.conllu import read_conllu
from distk.plugins.text.common.corpus import SentenceDataset, TextConfig
from distk.plugins.text.common.files import Part, there
from distk.plugins.text.common.splits import completed, described

SPLITS = ("train", "dev", "test")


@dataclass(frozen=True)
class FilesConfig(TextConfig):
    """Names and tags of the user's own files."""

    labels: tuple[str, ...] = option((), "names of the labels; default: the files' suffixes")
    tagged: bool = option(False, "the files hold word_TAG instead of words")


class UserFiles(SentenceDataset[FilesConfig]):
    """The user's own sentences: train.0 train.1 ... dev.0 ... test.0 ..., or train.txt with train.labels.

    Every file may be gzip and end in .gz; `unsup.txt` holds sentences without labels. A trained model also reads a
    folder without training files.
    """

    reads = (
        "train.0 train.1 [...] dev.0 dev.1 test.0 test.1 (also train.0.conllu), or train.txt with train.labels; "
        "unsup.txt without labels"
    )

    def read(self, files: Files) -> tuple[dict[str, Part], tuple[str, ...], str]:
        folder = formats.folder_of(files, "train.0")
        if not files.required:
            raise UsageError("data set 'files' needs the folder of your files: add --data-dir DIR.")
        first = next((s for s in SPLITS if self._suffixes(folder, s)), "train") if self.model is not None else "train"
        suffixes = self._suffixes(folder, first)
        if not suffixes:
            raise UsageError(
                f"'{folder}' holds neither '{folder / 'train.0'}' and '{folder / 'train.1'}' "
                f"nor '{folder / 'train.txt'}' with '{folder / 'train.labels'}'."
            )
        names = self.config.labels or tuple(suffixes)
        if len(names) != len(suffixes):
            raise UsageError(
                f"--labels has {counted(len(names), 'name')}, but '{folder}' has the labels {names_of(suffixes)}."
            )
        paired = there(folder / f"{first}.txt") is not None
        parts = {}
        for split in SPLITS:
            part = self._paired(folder, split, suffixes) if paired else self._suffixed(folder, split, suffixes, first)
            if part is not None:
                parts[split] = part
        parts, remark = completed(parts, self.model is not None)
        if (path := there(folder / "unsup.txt")) is not None:
            parts["unsup"] = Part(tags=None if next(iter(parts.values())).tags is None else [])
            self._add(parts["unsup"], formats.read_lines(path, self.encoding), -1, path)
        return parts, tuple(names), f"{described(parts)} from '{folder}'{remark}"

    def _suffixes(self, folder: Path, split: str) -> list[str]:
        """The labels of a split, as its files say them; empty where there are none of it."""
        if there(folder / f"{split}.txt") is not None:
            labels = set(formats.read_lines(self._existing(folder / f"{split}.labels"), self.encoding))
            return sorted(label.strip() for label in labels)
        paths, told = formats.texts(folder.glob(f"{split}.*"))
        self.told = tuple(dict.fromkeys((*self.told, *told)))
        names = {p.name.removesuffix(".gz").removesuffix(".conllu") for p in paths}
        return sorted(name.removeprefix(f"{split}.") for name in names)

    def _existing(self, path: Path) -> Path:
        found = there(path)
        if found is None:
            raise UsageError(f"data set 'files' found no file '{path}'; it reads {self.reads}.")
        return found

    def _paired(self, folder: Path, split: str, suffixes: list[str]) -> Part | None:
        path = there(folder / f"{split}.txt")
        if path is None:
            return None
        named = self._existing(folder / f"{split}.labels")
        lines, labels = (formats.read_lines(p, self.encoding) for p in (path, named))
        formats.aligned({path: lines, named: labels})
        part = Part(tags=[] if self.config.tagged else None)
        for number, (line, label) in enumerate(zip(lines, labels, strict=True), 1):
            if label.strip() not in suffixes:
                raise UsageError(f"line {number} of '{named}': '{label[:50]}' is not a label of the training data.")
            self._add(part, [line], suffixes.index(label.strip()), path)
        return part

    def _suffixed(self, folder: Path, split: str, suffixes: list[str], first: str) -> Part | None:
        paths = [folder / f"{split}.{suffix}" for suffix in suffixes]
        if split != first and not any(there(p) or there(_conllu(p)) for p in paths):
            return None
        tagged = self.config.tagged or there(_conllu(folder / f"{first}.{suffixes[0]}")) is not None
        part = Part(tags=[] if tagged else None)
        for label, path in enumerate(paths):
            found = there(_conllu(path))
            if found is None:
                self._add(part, formats.read_lines(self._existing(path), self.encoding), label, path)
                continue
            for words, tags in read_conllu(found, self.encoding):
                part.add([" ".join(w.replace(" ", "_") for w in words)], label)
                part.tags.append(tags)  # type: ignore[union-attr]
        return part

    def _add(self, part: Part, lines: list[str], label: int, path: Path) -> None:
        if part.tags is None:
            part.add(lines, label)
            return
        for number, line in enumerate(lines, 1):
            words, tags = formats.read_tagged(line, f"line {number} of '{path}'")
            part.add([" ".join(words)], label)
            part.tags.append(tags)


def _conllu(path: Path) -> Path:
    return path.with_name(f"{path.name}.conllu")
