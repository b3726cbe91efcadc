"""An archive as a folder, for readers that need files: unpacked once into the cache folder, where it stays.

What may be in an archive, and how, is `distk.tree`'s to say. A kept folder counts only where a note beside its files
agrees with the archive as it is now and with sizes and times of the files; else it is made anew.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Collection, Iterator
from pathlib import Path

from distk.console import counted, progress
from distk.errors import DistkError
from distk.files import read_bytes
from distk.kept import cache_folder
from distk.tree import ARCHIVES, Entry, Tree, opened

SWOLLEN, SMALL = 100, 1 << 30
"""An archive may unpack to so many times its size, and to so many bytes in any case."""
NOTE = "unpacked.json"
OLD = 3600
"""Seconds after which what another process began to unpack, and holds no lock on, is swept away."""


@contextlib.contextmanager
def on_disk(root: Path, suffixes: Collection[str] | None = None) -> Iterator[Path]:
    """`root` itself, or, where it is an archive, a folder with what it holds, without a lone folder around everything.

    suffixes: of the files that are wanted; None for all. In errors that are raised meanwhile the archive has its own
    name. Raises DistkError for an archive that is damaged, or unpacks beyond measure or to more than the disk has.
    """
    if not (root.is_file() and root.name.lower().endswith(ARCHIVES)):
        yield root
        return
    folder = _folder(root, suffixes)
    try:
        yield inner(folder)
    except DistkError as error:
        raise type(error)(named(str(error), folder, root)) from error


def named(text: str, folder: Path, root: Path) -> str:
    """A text with the archive's own name in place of its folder's."""
    return text.replace(str(inner(folder)), str(root)).replace(str(folder), str(root))


def inner(folder: Path) -> Path:
    """The folder that holds more than one other folder."""
    while True:
        held = [path for path in folder.iterdir() if path.name != NOTE]
        if len(held) != 1 or not held[0].is_dir():
            return folder
        folder = held[0]


def _folder(root: Path, suffixes: Collection[str] | None) -> Path:
    held = root.stat()
    wanted = sorted(suffixes) if suffixes is not None else None
    about = {"archive": str(root.resolve()), "size": held.st_size, "time": held.st_mtime_ns, "suffixes": wanted}
    stem = hashlib.sha256(json.dumps([about["archive"], wanted]).encode()).hexdigest()[:24]
    place = cache_folder() / f"{stem}.unpacked"
    if _sound(place, about):
        return place
    with opened(root, Every() if suffixes is None else suffixes) as tree:
        entries = tree.entries
        total = sum(_size(entry) for entry in entries)
        room = max(SMALL, SWOLLEN * held.st_size)
        if total > room:
            raise DistkError(
                f"'{root}' has {counted(held.st_size, 'byte')} and unpacks to {total:,}; unpack it yourself if that is"
                " what you expect."
            )
        return _unpack(tree, place, about, total)


class Every(frozenset[str]):
    """Every suffix."""

    def __contains__(self, item: object) -> bool:
        return True


def _size(entry: Entry) -> int:
    return int(entry.stamp.partition(" ")[0])


def _sound(place: Path, about: dict[str, object]) -> bool:
    """Whether a kept folder is of the archive as it is now, with every file as it was written."""
    try:
        note = json.loads(read_bytes(place / NOTE, SMALL))
        if {key: note.get(key) for key in about} != about:
            return False
        return all(_mark(place / name) == mark for name, mark in note["files"].items())
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError):
        return False


def _mark(path: Path) -> list[int]:
    """Size and time of change."""
    held = path.lstat()
    return [held.st_size, held.st_mtime_ns]


def _unpack(tree: Tree, place: Path, about: dict[str, object], total: int) -> Path:
    """Write the members of an archive below another name, then give the folder its own."""
    made = place.with_name(f"{place.stem}.{secrets.token_hex(8)}.unpacking")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        _sweep(place.parent)
        free = shutil.disk_usage(place.parent).free
        if total > free:
            raise DistkError(
                f"'{tree.root}' unpacks to {total / 1e9:.1f} GB, of {free / 1e9:.1f} GB that are free in "
                f"'{place.parent}'; set DISTK_CACHE to a folder with room."
            )
        made.mkdir()
        with _locked(made):
            files = _written(tree, made)
            (made / NOTE).write_text(json.dumps({**about, "files": files}))
            if place.exists():
                old = made.with_name(f"{place.stem}.{secrets.token_hex(8)}.unpacking")
                os.replace(place, old)
                shutil.rmtree(old, ignore_errors=True)
            os.replace(made, place)
    except OSError as error:
        if _sound(place, about):  # another process was quicker
            return place
        reason = error.strerror or error
        raise DistkError(
            f"'{tree.root}' cannot be unpacked into '{place.parent}' ({reason}); set DISTK_CACHE to another folder."
        ) from error
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return place


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder, so that nobody sweeps it."""
    lock = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a file system without locks: then nobody sweeps, either
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(lock)


def _written(tree: Tree, made: Path) -> dict[str, list[int]]:
    """Write every member; `_mark` of each by its name."""
    files = {}
    with progress(f"unpacking {tree.root.name}", len(tree.entries)) as advance:
        for entry in sorted(tree.entries, key=lambda entry: entry.place):
            path = made.joinpath(*entry.parts)
            path.parent.mkdir(parents=True, exist_ok=True)
            with entry.open() as content, path.open("xb") as file:
                shutil.copyfileobj(content, file)
            files[entry.name] = _mark(path)
            advance(1)
    return files


def _sweep(folder: Path) -> None:
    """Remove what killed processes had begun to unpack: old folders whose lock nobody holds."""
    for part in folder.glob(f"{'[0-9a-f]' * 24}.*.unpacking"):
        with contextlib.suppress(OSError):
            held = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                if time.time() - os.fstat(held).st_mtime > OLD:
                    fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(part, ignore_errors=True)
            finally:
                os.close(held)
