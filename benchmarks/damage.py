"""Damage to files, at random: to any bytes, to the values of a checkpoint's header, to the arrays of an npz."""

from __future__ import annotations

import copy
import io
import json
import random
import struct
import zipfile
from collections.abc import Iterator
from typing import Any


def mutate(content: bytes, rng: random.Random) -> bytes:
    """A few random changes, more often near the beginning, where the headers are."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 8))):
        near = min(len(data), 512) if rng.random() < 0.6 else len(data)
        if not near:
            break
        at, size = rng.randrange(near), rng.choice((1, 1, 2, 4, 8, 64))
        kind = rng.randrange(7)
        if kind <= 2:
            data[at : at + size] = bytes(rng.randrange(256) for _ in range(min(size, len(data) - at)))
        elif kind == 3:
            data[at : at + size] = rng.choice((b"\0", b"\xff", b"\x7f", b"9")) * min(size, len(data) - at)
        elif kind == 4:
            del data[at : at + size]
        elif kind == 5:
            data[at:at] = data[at : at + size]
        else:
            del data[rng.randrange(len(data)) :]
    return bytes(data)


_HOSTILE = (
    *(0, -1, 1, 2, 3, 7, 10**6, 10**9, 2**31, 2**63, 2**64, 10**30, 0.5, -0.0, 1e308, float("inf"), float("nan")),
    *("", "x", "../../etc/passwd", "/etc/passwd", "__import__('os').system('true')", "\x1b[2J", "9" * 5000, "dsprites"),
    *(None, True, [], {}, [[]], {"a": {}}, [10**9] * 3, [1] * 100_000, [-1], "F64", "I8", "BOOL", "F8_E4M3", "F4"),
)


def hostile_header(content: bytes, rng: random.Random) -> bytes:
    """A checkpoint with values of its headers replaced, keys removed, added or exchanged."""
    length = struct.unpack("<Q", content[:8])[0]
    outer = json.loads(content[8 : 8 + length])
    inner = json.loads(outer["__metadata__"]["distk"])
    for _ in range(rng.choice((1, 1, 2, 4))):
        root = inner if rng.random() < 0.6 else {k: v for k, v in outer.items() if k != "__metadata__"}
        holder, key = rng.choice(list(_places(root)))
        if root is not inner and holder is root:
            holder, key = outer, key
        kind = rng.random()
        if kind < 0.15:
            holder.pop(key)
        elif kind < 0.25 and isinstance(holder, dict):
            holder[str(key) + rng.choice(("x", "/", "\0"))] = copy.deepcopy(holder[key])
        else:
            holder[key] = copy.deepcopy(rng.choice(_HOSTILE))
    outer["__metadata__"]["distk"] = json.dumps(inner)
    text = json.dumps(outer).encode()
    if rng.random() < 0.1:
        length = rng.choice((0, 1, len(text) - 1, len(text) + 1, 2**20, 2**32, 2**63, 2**64 - 1))
        return struct.pack("<Q", length) + text + content[8 + length :]
    return struct.pack("<Q", len(text)) + text + content[8 + struct.unpack("<Q", content[:8])[0] :]


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """(container, key) of everything in nested lists and dicts."""
    items = list(value.items()) if isinstance(value, dict) else list(enumerate(value))
    for key, member in items:
        yield value, key
        if isinstance(member, (dict, list)) and member:
            yield from _places(member)


def hostile_array(content: bytes, rng: random.Random) -> bytes:
    """An npz whose members say something else of their shape and type than they hold, or are of another kind."""
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as made:
        for name in source.namelist():
            if rng.random() < 0.1:
                continue
            body = source.read(name)
            if rng.random() < 0.7:
                dtype = rng.choice(
                    ("<f8", "<i8", "|O", "<U3", "<f2", "|b1", "<c16", "<M8[s]", "|V9", ">f8", "|S0", "x")
                )
                big = (10**12,), (10**6, 10**6), (2**62, 4), (-1, 3), (), (0, 3), (3,), (3, 2), (40, 0), (40, 3, 1)
                header = f"{{'descr': '{dtype}', 'fortran_order': {rng.choice((True, False, 5))}, "
                header += f"'shape': {rng.choice(big)!r}, }}"
                text = header.encode().ljust(118) + b"\n"
                body = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + body[128:]
            made.writestr(rng.choice((name, name, name, "../" + name, "/tmp/" + name)), body)
    return target.getvalue()
