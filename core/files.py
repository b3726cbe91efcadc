"""How files are opened and written: regular files only, atomically, and never through a stranger's link.

A run folder may be downloaded. A link in it must not lead our writes elsewhere, and a named pipe in place of a file
would keep whoever opens it waiting for ever: what reads or writes a file of a run opens it here.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import stat
import time
from pathlib import Path

from distk.console import counted
from distk.errors import DistkError

LARGEST = 1 << 30
"""Bytes of a log, of results or of a recipe that are read; more is no such file."""
BEGUN = re.compile(r"\.(.+)\.[0-9a-z_]{8,16}\.tmp")
"""Names of files that `write_atomic` has begun."""
SWEPT_AFTER = 60
"""Seconds after which a file that another command began counts as left by a killed one."""


def expanded(place: str | Path) -> Path:
    """A place with `~` replaced where there is such a home folder; `Path.expanduser` raises where there is none.

    Whether it is there says `os.path.exists`: of a name that no system takes `Path.exists` raises, too.
    """
    return Path(os.path.expanduser(place))


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file so that a reader, or a crash at any moment, sees the old content or the new, never a part.

    Who may read it is as the user's umask says.
    Raises DistkError naming the path when the disk is full or the folder cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    made = False
    try:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        made = True
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        made = False
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise DistkError(
            f"cannot write '{path}': {error.strerror or error}. What was there before is untouched."
        ) from error
    finally:
        if made:
            with contextlib.suppress(OSError):
                os.unlink(temporary)


def own_file(path: str | Path, flags: int = os.O_RDONLY) -> int:
    """A descriptor of a regular file, opened without following a link and without waiting; an opener for `open`.

    Raises OSError, also for a link, a folder, a named pipe or a device.
    """
    try:
        held = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):  # a link; a pipe that nobody reads
            raise OSError(error.errno, _no_regular(path)) from None
        raise
    if not stat.S_ISREG(os.fstat(held).st_mode):
        os.close(held)
        raise OSError(errno.EINVAL, _no_regular(path))
    return held


def _no_regular(path: str | Path) -> str:
    return f"'{Path(path).name}' is a link, a pipe or another thing that is no regular file: remove it"


def read_bytes(path: Path, most: int = LARGEST, link: bool = False) -> bytes:
    """The content of a regular file. Raises OSError, also for a link, a pipe, and for more than `most` bytes.

    link: the user named this very file, which may be a link then.
    """
    with open(path.resolve() if link else path, "rb", opener=own_file) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"'{path.name}' has more than {counted(most, 'byte')}")
    return content


def read_text(path: Path, most: int = LARGEST) -> str:
    """`read_bytes` as text; what is no UTF-8 becomes the replacement character."""
    return read_bytes(path, most).decode("utf-8", "replace")


def own_folder(path: Path) -> None:
    """Make a folder, or see that it is one and no link. Raises OSError otherwise."""
    path.mkdir(parents=True, exist_ok=True)
    if path.is_symlink():
        raise OSError(errno.ELOOP, f"'{path.name}' is a link, which is not followed: remove it")


def sweep(folder: Path, own: tuple[str, ...] = ()) -> None:
    """Remove what killed processes had begun to write in a folder: the unfinished files of these names, or of any
    name, "*"; those of others only when they are old, since a command may be writing them now."""
    with contextlib.suppress(OSError):
        for part in list(folder.iterdir()):
            begun = BEGUN.fullmatch(part.name)
            if begun is None:
                continue
            with contextlib.suppress(OSError):
                ours = "*" in own or begun[1] in own
                if ours or time.time() - part.lstat().st_mtime > SWEPT_AFTER:
                    part.unlink()
