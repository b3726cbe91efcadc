"""Numeric arrays of a MATLAB v5 file, by its published format: scipy's reader ends the process on some damaged ones.

A file is a header of 128 bytes and elements: a tag (type, size) and that many bytes, padded to 8 unless compressed.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from distk.console import counted

COMPRESSED, MATRIX = 15, 14
CLASSES = {
    6: "double",
    7: "single",
    8: "int8",
    9: "uint8",
    10: "int16",
    11: "uint16",
    12: "int32",
    13: "uint32",
    14: "int64",
    15: "uint64",
    1: "cell",
    2: "struct",
    3: "object",
    4: "char",
    5: "sparse",
}
STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
"""How the numbers of an array are written, which need not be their class: small numbers are written as bytes."""
HEAD = 4096
"""Bytes of an array that hold its class, shape and name."""


@dataclass(frozen=True)
class Stored:
    """An array of the file: MATLAB's class and shape, and where its bytes lie."""

    kind: str
    shape: tuple[int, ...]
    content: memoryview
    packed: bool
    order: str

    def read(self) -> np.ndarray:
        """The numbers, of the shape, in MATLAB's order. Raises ValueError where they do not fit what the file says."""
        count = math.prod(self.shape)
        raw = _unpacked(self.content, HEAD + 8 * count, whole=True) if self.packed else self.content
        _, body, _ = _element(raw, 0, self.order) if self.packed else (MATRIX, self.content, 0)
        parts = list(_elements(body, self.order))
        code, values = parts[3] if len(parts) > 3 else (0, memoryview(b""))
        if code not in STORED:
            raise ValueError("its numbers are in no known form")
        numbers = np.frombuffer(values, self.order + STORED[code])
        if len(numbers) != count:
            raise ValueError(f"it holds {len(numbers):,} of {counted(count, 'number')}")
        return numbers.reshape(self.shape, order="F")


def arrays(content: bytes) -> dict[str, Stored]:
    """What a file holds, by name, without its numbers. Raises ValueError for damage, zlib.error for bad compression."""
    if len(content) < 128 or content[126:128] not in (b"IM", b"MI"):
        raise ValueError("its header is damaged")
    order = "<" if content[126:128] == b"IM" else ">"
    found: dict[str, Stored] = {}
    for code, body in _elements(memoryview(content)[128:], order):
        packed = code == COMPRESSED
        head = body
        if packed:
            start = _unpacked(body, HEAD)
            code, head, _ = _element(start, 0, order, whole=False)
        if code == MATRIX:
            name, kind, shape = _described(head, order)
            found[name] = Stored(kind, shape, body, packed, order)
    return found


def _described(body: memoryview, order: str) -> tuple[str, str, tuple[int, ...]]:
    """Name, class and shape from the first three elements of an array."""
    parts = _elements(body, order)
    try:
        (_, flags), (_, sizes), (_, name) = next(parts), next(parts), next(parts)
    except StopIteration:
        raise ValueError("an array has no class, shape and name") from None
    if len(flags) < 4 or len(sizes) % 4 or not 8 <= len(sizes) <= 128:
        raise ValueError("the shape of an array is damaged")
    kind = CLASSES.get(struct.unpack_from(order + "I", flags)[0] & 0xFF, "unknown")
    shape = struct.unpack_from(f"{order}{len(sizes) // 4}i", sizes)
    if min(shape) < 0:
        raise ValueError("the shape of an array is damaged")
    return bytes(name).decode("latin-1"), kind, shape


def _elements(data: memoryview, order: str) -> Iterator[tuple[int, memoryview]]:
    at = 0
    while len(data) - at >= 8:
        code, body, at = _element(data, at, order)
        yield code, body


def _element(data: memoryview, at: int, order: str, whole: bool = True) -> tuple[int, memoryview, int]:
    """Type, content, and where the next one begins. Raises ValueError where it reaches beyond the data, if `whole`."""
    if len(data) - at < 8:
        raise ValueError("it ends within a tag")
    code, size = struct.unpack_from(order + "II", data, at)
    if code >> 16:  # a small element: size and type share the tag's first half, the content is the second
        code, size, start, end = code & 0xFFFF, code >> 16, at + 4, at + 8
        if size > 4:
            raise ValueError("a small element is larger than four bytes")
    else:
        start = at + 8
        end = start + size + (0 if code == COMPRESSED else -size % 8)
    if whole and start + size > len(data):
        raise ValueError("it is cut off")
    return code, data[start : start + size], end


def _unpacked(body: memoryview, most: int, whole: bool = False) -> memoryview:
    """The first `most` bytes of a compressed element. Raises ValueError where it should be `whole` and is not."""
    inflater = zlib.decompressobj()
    content = inflater.decompress(body, most)
    if whole and not inflater.eof:
        raise ValueError("its compressed content is cut off, or longer than its shape says")
    return memoryview(content)
