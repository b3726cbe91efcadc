"""The files that a user named: one file, all below a folder, or the members of a zip or tar archive, read in place.

Hidden files are left out and counted. A link is followed as long as it stays below the root; what leads elsewhere is
left out and counted, too, so that a stranger's folder or archive reads nothing that the user did not name.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import os
import tarfile
import zipfile
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO

from distk.console import counted
from distk.errors import DistkError, UsageError

LARGEST = 1 << 28
"""Bytes of one member of an archive that are read."""
MOST = 1 << 24
"""Members of an archive that are believed."""
HIDDEN = ("__MACOSX", "Thumbs.db", "desktop.ini")
"""What systems put beside the files of people; names that begin with a dot are hidden as well."""
TAR = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
ARCHIVES = (".zip", *TAR)


@dataclass(frozen=True)
class Entry:
    """A file below a root. name: its path there, with slashes. place: where it begins in its archive, so that an
    archive which must be unpacked from its beginning is read in one pass. stamp: changes when the file does."""

    name: str
    place: int
    stamp: str
    _open: Callable[[], IO[bytes]]

    @property
    def parts(self) -> tuple[str, ...]:
        """The folders, then the file's own name."""
        return tuple(self.name.split("/"))

    @property
    def suffix(self) -> str:
        """In small letters, with the dot."""
        return os.path.splitext(self.name)[1].lower()

    def open(self) -> IO[bytes]:
        """The content, seekable. Raises DistkError for an archive's member that is damaged or too large."""
        return self._open()


@dataclass
class Tree:
    """root: what the user named. entries: its files with one of the wanted suffixes, sorted by name. hidden: how many
    files with such a suffix are hidden, others: how many have another one, outside: how many links lead out of it."""

    root: Path
    entries: list[Entry]
    hidden: int = 0
    others: int = 0
    outside: int = 0
    packed: bool = False
    _held: list[IO[bytes] | zipfile.ZipFile | tarfile.TarFile] = field(default_factory=list)

    @property
    def stamp(self) -> str:
        """A fingerprint of the entries: their names, sizes and times of change."""
        digest = hashlib.sha256()
        for entry in self.entries:
            digest.update(f"{entry.name}\0{entry.stamp}\n".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()

    def left_out(self) -> list[str]:
        """A sentence for every kind of file that is not among the entries."""
        words = ((self.hidden, "hidden file", ""), (self.others, "file", " of another kind"))
        told = [f"{counted(n, what)}{kind} left out" for n, what, kind in words if n]
        return told + ([f"{counted(self.outside, 'link')} out of '{self.root}' left out"] if self.outside else [])

    def close(self) -> None:
        """Close the archive."""
        for file in self._held:
            file.close()


@contextlib.contextmanager
def opened(root: Path, suffixes: Collection[str]) -> Iterator[Tree]:
    """What `root` is or holds, with one of these suffixes.

    Raises UsageError where there is nothing at `root`, or neither a file nor a folder; DistkError for an archive that
    cannot be read.
    """
    if root.is_dir():
        yield _below(root, suffixes)
        return
    if not root.is_file():
        raise UsageError(f"'{root}' is neither a file nor a folder.")
    low = root.name.lower()
    if not low.endswith(ARCHIVES):
        yield Tree(root, [_plain(root, root.name, root.stat())] if root.suffix.lower() in suffixes else [])
        return
    tree = _archive(root, suffixes, low.endswith(".zip"))
    try:
        yield tree
    finally:
        tree.close()


def is_hidden(parts: Collection[str]) -> bool:
    """Whether a file of this path below its root is hidden, or lies in a hidden folder."""
    return any(part.startswith(".") or part in HIDDEN for part in parts)


def _below(root: Path, suffixes: Collection[str]) -> Tree:
    """All files below a folder; a folder that links lead to more than once is gone through once for each name."""
    tree, base = Tree(root, []), Path(os.path.realpath(root))
    stack: list[tuple[Path, tuple[str, ...], tuple[str, ...]]] = [(root, (), (str(base),))]
    while stack:
        folder, parts, above = stack.pop()
        try:
            found = sorted(os.scandir(folder), key=lambda item: item.name)
        except OSError as error:
            raise DistkError(f"folder '{folder}' cannot be read: {error.strerror or error}.") from error
        for item in found:
            inside = (*parts, item.name)
            wanted = os.path.splitext(item.name)[1].lower() in suffixes
            # Asking the system for the real path of every one of 50,000 files would take longer than all else here.
            real = os.path.realpath(item.path) if item.is_symlink() else os.path.join(above[-1], item.name)
            if item.is_symlink() and not Path(real).is_relative_to(base):
                tree.outside += 1
            elif item.is_dir():
                if is_hidden(inside):
                    tree.hidden += _count(Path(item.path), suffixes)
                elif real not in above:  # a link to a folder above would never end
                    stack.append((Path(item.path), inside, (*above, real)))
            elif not item.is_file():
                continue  # a pipe would keep us waiting
            elif is_hidden(inside):
                tree.hidden += wanted
            elif wanted:
                tree.entries.append(_plain(item.path, "/".join(inside), item.stat()))
            else:
                tree.others += 1
    tree.entries.sort(key=lambda entry: entry.parts)
    return tree


def _count(folder: Path, suffixes: Collection[str]) -> int:
    return sum(Path(name).suffix.lower() in suffixes for _, _, names in os.walk(folder) for name in names)


def _plain(path: str | Path, name: str, held: os.stat_result) -> Entry:
    return Entry(name, 0, f"{held.st_size} {held.st_mtime_ns}", lambda: Path(path).open("rb"))


def _archive(root: Path, suffixes: Collection[str], zipped: bool) -> Tree:
    tree, held = Tree(root, [], packed=True), root.stat()
    stamp = f"{held.st_size} {held.st_mtime_ns}"
    try:
        members = _zip_members(root, tree) if zipped else _tar_members(root, tree)
        for name, size, place, read in members:
            parts = PurePosixPath(name).parts
            if not parts or parts[0] == "/" or ".." in parts:
                tree.outside += 1
                continue
            wanted = PurePosixPath(name).suffix.lower() in suffixes
            if is_hidden(parts):
                tree.hidden += wanted
            elif wanted:
                tree.entries.append(Entry(name, place, f"{size} {stamp}", read))
            else:
                tree.others += 1
            if len(tree.entries) > MOST:
                raise DistkError(f"'{root}' has more than {MOST:,} members.")
    except DistkError:
        tree.close()
        raise
    except Exception as error:  # damaged archives raise a family of their own
        tree.close()
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DistkError(f"'{root}' is not a valid {'zip' if zipped else 'tar'} archive ({reason}).") from error
    tree.entries.sort(key=lambda entry: entry.parts)
    return tree


Member = tuple[str, int, int, Callable[[], IO[bytes]]]


def _zip_members(root: Path, tree: Tree) -> Iterator[Member]:
    archive = zipfile.ZipFile(root)
    tree._held.append(archive)
    for info in archive.infolist():
        if not info.is_dir():
            yield (
                info.filename,
                info.file_size,
                info.header_offset,
                functools.partial(_content, root, info.filename, info.file_size, functools.partial(archive.open, info)),
            )


def _tar_members(root: Path, tree: Tree) -> Iterator[Member]:
    archive = tarfile.open(root)  # noqa: SIM115 (the tree closes it)
    tree._held.append(archive)
    for info in archive:
        if info.isfile():
            yield (
                info.name.removeprefix("./"),
                info.size,
                info.offset,
                functools.partial(_content, root, info.name, info.size, functools.partial(archive.extractfile, info)),
            )
        elif not info.isdir():
            tree.outside += 1


def _content(root: Path, name: str, size: int, start: Callable[[], IO[bytes] | None]) -> IO[bytes]:
    """A member's content, which must be of the size that the archive states. Raises DistkError for another one."""
    if size > LARGEST:
        raise DistkError(f"'{name}' in '{root}' has {counted(size, 'byte')}; at most {LARGEST:,} are read.")
    try:
        file = start()
        content = b"" if file is None else file.read(size + 1)
    except Exception as error:  # as above
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DistkError(f"'{name}' in '{root}' cannot be unpacked ({reason}).") from error
    if len(content) != size:
        raise DistkError(f"'{name}' in '{root}' does not have the {counted(size, 'byte')} that the archive states.")
    return io.BytesIO(content)
