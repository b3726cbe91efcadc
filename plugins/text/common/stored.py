"""Opening the family's own safetensors files (evaluators, taggers), which may come from strangers."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from distk import DistkError
from distk.checkpoint import HEADER_LIMIT

FORMAT = 1


@contextlib.contextmanager
def opened(path: Path, kind: str) -> Iterator[tuple[dict[str, Any], Any]]:
    """(the JSON under the key `distk.text`, the safetensors file).

    Raises DistkError for a file that is missing, truncated, foreign, newer, of another kind, or has too large a header.
    """
    if not path.is_file():
        raise DistkError(f"{kind} file '{path}' does not exist.")
    try:
        size = path.stat().st_size
        with path.open("rb") as raw:
            length = int.from_bytes(raw.read(8), "little")
        if size < 8 or length > min(size - 8, HEADER_LIMIT):
            raise DistkError(
                f"'{path}' is truncated, not a safetensors file, or has a header of more than {HEADER_LIMIT} bytes."
            )
        with safe_open(path, framework="pt") as file:
            meta = json.loads((file.metadata() or {}).get("distk.text", "null"))
            if not isinstance(meta, dict) or meta.get("kind") != kind:
                raise DistkError(f"'{path}' is not a {kind} file of distk.")
            if meta.get("format") != FORMAT:
                raise DistkError(f"'{path}' has format {meta.get('format')!r:.20}; this distk reads {FORMAT}.")
            yield meta, file
    except SafetensorError as error:
        raise DistkError(f"'{path}' is truncated or damaged ({error}).") from error
    except (ValueError, RecursionError) as error:
        raise DistkError(f"the header of '{path}' is damaged ({type(error).__name__}).") from error
    except OSError as error:
        raise DistkError(f"cannot read '{path}': {error.strerror or error}.") from error
