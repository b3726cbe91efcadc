"""How files are opened and written: atomically, and never through a stranger's link."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from distk.errors import DistkError


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file so that a reader, or a crash at any moment, sees the old content or the new, never a part.

    Raises DistkError naming the path when the disk is full or the folder cannot be written.
    """
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        raise DistkError(
            f"cannot write '{path}': {error.strerror or error}. What was there before is untouched."
        ) from error


def own_file(path: str, flags: int) -> int:
    """Opener that follows no link: a stranger's run folder must not lead our writes elsewhere."""
    return os.open(path, flags | os.O_NOFOLLOW, 0o644)
