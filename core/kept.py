"""Arrays that took long to make, kept on disk for the next start: decoded pictures, unpacked archives.

A kept array is two files in the cache folder: `NAME.npy`, which is memory-mapped, and `NAME.json`, which says what it
was made of. It counts only where that agrees with the user's files as they are now, their sizes and times, and where
its own size and checksums agree; else it is made anew. The folder is `$DISTK_CACHE`, or `distk` in `$XDG_CACHE_HOME`
or in `~/.cache`; all that is in it may be deleted at any time.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import math
import os
import secrets
import time
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from distk.arrays import open_npy
from distk.console import warn
from distk.errors import DistkError
from distk.files import expanded, write_atomic

SMALL = 1 << 24
"""Bytes below which what was made of files is not kept."""
PROBES, PROBE = 64, 1 << 20
"""Checksums are kept of so many windows of so many bytes, spread evenly: all of a file up to 64 MiB."""
SWEPT_AFTER = 60
"""Seconds: a file that was begun later may be about to be locked."""

Fill = Callable[[np.ndarray], None]
"""Fills an array of the promised shape, piece by piece."""


def cache_folder() -> Path:
    """Where kept arrays lie; it need not exist."""
    named = os.environ.get("DISTK_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return expanded(named) if named else expanded(base) / "distk"


def stamps(paths: Iterable[Path], root: Path) -> str:
    """A fingerprint of files: names below `root`, sizes and times of change, in order."""
    digest = hashlib.sha256()
    for path in paths:
        held = path.stat()
        digest.update(
            f"{path.relative_to(root)}\0{held.st_size}\0{held.st_mtime_ns}\n".encode("utf-8", "surrogateescape")
        )
    return digest.hexdigest()


def of_files(name: str, paths: Sequence[Path], root: Path, shape: Sequence[int], dtype: Any, fill: Fill) -> np.ndarray:
    """What `fill` makes of files below `root`, `[*shape]`: as `kept`, anew when their names, sizes or times change, and
    not kept where reading them again takes a second or two."""
    return of_stamp(name, stamps(paths, root), shape, dtype, fill)


def of_stamp(name: str, stamp: str, shape: Sequence[int], dtype: Any, fill: Fill) -> np.ndarray:
    """As `of_files`, of files with this fingerprint, see `distk.tree.Tree.stamp`."""
    if math.prod(shape) * np.dtype(dtype).itemsize < SMALL:
        return _in_memory(shape, dtype, fill)
    return kept(name, {"files": stamp, "version": 1}, shape, dtype, fill)


def kept(name: str, made_of: dict[str, Any], shape: Sequence[int], dtype: Any, fill: Fill) -> np.ndarray:
    """A memory-mapped array `[*shape]` that `fill` made, now or at an earlier start.

    name: of whose array this is: one of the same name is replaced when `made_of` differs. made_of: what it depends on,
    plain values. Where the folder cannot be written, the array is made in memory, and it is said so.
    """
    folder = cache_folder()
    stem = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:24]
    array, about = folder / f"{stem}.npy", folder / f"{stem}.json"
    wanted = json.loads(
        json.dumps({"name": name, "made_of": made_of, "shape": list(shape), "dtype": np.dtype(dtype).str})
    )
    found = _sound(array, about, wanted)
    if found is not None:
        return found
    try:
        folder.mkdir(parents=True, exist_ok=True)
        made, partial, held = _begun(array, wanted)
    except OSError as error:
        _say(folder, error)
        return _in_memory(shape, dtype, fill)
    try:
        fill(made)  # what it raises is about the user's files, not about this folder
        try:
            made.flush()
            checks = _checks(partial)  # of our own bytes: another process may put its array in place at any moment
            os.replace(partial, array)
            write_atomic(about, json.dumps({**wanted, "checks": checks}).encode())
        except (OSError, DistkError) as error:
            _say(folder, error)
            return made  # the file has no name, but is there while it is mapped
    finally:
        os.close(held)
        with contextlib.suppress(OSError):
            partial.unlink()
    made_now = _sound(array, about, wanted)
    return made if made_now is None else made_now  # None: another process has put an array of other files there


def _say(folder: Path, error: Exception) -> None:
    reason = getattr(error, "strerror", None) or error
    warn(f"nothing can be kept in '{folder}' ({reason}); set DISTK_CACHE to a folder with room")


def _in_memory(shape: Sequence[int], dtype: Any, fill: Fill) -> np.ndarray:
    try:
        made = np.empty(shape, dtype)
    except (MemoryError, ValueError) as error:
        size = math.prod(shape) * np.dtype(dtype).itemsize
        raise DistkError(f"an array of {size / 1e9:,.1f} GB fits neither on the disk nor in memory.") from error
    fill(made)
    return made


def _begun(array: Path, wanted: dict[str, Any]) -> tuple[np.memmap, Path, int]:
    """An array to fill, mapped to a file of another name, so that an interrupted start leaves nothing that counts; that
    file, and a descriptor that holds its lock.

    All its blocks are taken now: a disk that fills up while a mapping is written ends the process with SIGBUS.
    """
    _sweep(array.parent)
    size = math.prod(wanted["shape"]) * np.dtype(wanted["dtype"]).itemsize
    free = os.statvfs(array.parent) if hasattr(os, "statvfs") else None
    if free is not None and free.f_bavail * free.f_frsize < size:
        raise OSError(28, f"{size / 1e9:.1f} GB are needed, {free.f_bavail * free.f_frsize / 1e9:.1f} GB are free")
    # Who may read it is as the umask says: a cache may be shared, and be read-only for others.
    name = str(array.with_name(f"{array.stem}.{secrets.token_hex(8)}.part"))
    held = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        with contextlib.suppress(OSError):  # a file system without locks: then nobody sweeps, either
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        made = np.lib.format.open_memmap(name, "w+", np.dtype(wanted["dtype"]), tuple(wanted["shape"]))
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(held, 0, os.fstat(held).st_size)
    except BaseException:
        os.close(held)
        os.unlink(name)
        raise
    return made, Path(name), held


def _sweep(folder: Path) -> None:
    """Remove what killed processes had begun: old `.part` files whose lock nobody holds."""
    for part in folder.glob(f"{'[0-9a-f]' * 24}.*.part"):  # no other program's
        with contextlib.suppress(OSError):
            held = os.open(part, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                if time.time() - os.fstat(held).st_mtime > SWEPT_AFTER:
                    fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    part.unlink()
            finally:
                os.close(held)


def _checks(array: Path) -> list[int]:
    """The file's size, then checksums of windows spread evenly over it."""
    size = array.stat().st_size
    starts = range(0, size, PROBE) if size <= PROBES * PROBE else np.linspace(0, size - PROBE, PROBES, dtype=np.int64)
    with array.open("rb") as file:
        sums = []
        for start in starts:
            file.seek(int(start))
            sums.append(zlib.crc32(file.read(PROBE)))
    return [size, *sums]


def _sound(array: Path, about: Path, wanted: dict[str, Any]) -> np.ndarray | None:
    """The kept array, or None where it is absent, of other files, or damaged."""
    try:
        held = json.loads(about.read_bytes())
        if not isinstance(held, dict) or {k: held.get(k) for k in wanted} != wanted or held["checks"] != _checks(array):
            return None
        found = open_npy(array)  # "c": torch warns of arrays it may not write
    except (OSError, ValueError, KeyError, EOFError, DistkError, RecursionError):
        return None
    return found if list(found.shape) == wanted["shape"] and found.dtype.str == wanted["dtype"] else None
