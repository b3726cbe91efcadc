"""Damaged and hostile files, thousands of them: what reads a file must load it or refuse it in one sentence.

    python benchmarks/fuzz.py [--count 10000] [--seed 0] [--only NAME] [--json results/fuzz-cpu.json]

Sound files of every kind that distk reads are changed at random (bytes, cuts, insertions, repetitions, and for
checkpoints values of the header), and read again in a child process with a clock and a limit on its memory. A crash, a
hang, an exception that is no DistkError, or memory far beyond the file's size is a failure.
"""

from __future__ import annotations

import argparse
import copy
import gzip
import io
import json
import os
import random
import resource
import shutil
import struct
import sys
import tarfile
import tempfile
import time
import traceback
import warnings
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import arrayfiles
import numpy as np
import torch

from distk import checkpoint
from distk.codefile import table_from_arrays
from distk.data import Files
from distk.device import Ranks
from distk.errors import DistkError
from distk.models import trained_data
from distk.settings import resolve
from distk.training import loop
from distk.training.changes import settings_of

CHUNK, SECONDS = 100, 300
"""Files that one child reads, and the time that it has for them."""
ROOM = 512 << 20
"""Bytes that reading damaged files may add to the memory that reading sound ones took."""

SMALL = {
    "model": {"z": 2, "hidden": 8, "warmup": 0, "relieve_every": 1},
    "data": {"size": 32, "scales": [5], "orientations": 1, "positions": 6},
    "train": {"batch": 4, "device": "cpu", "steps": 2},
}


@dataclass
class Target:
    """A kind of file. content: a sound one. read: reads a file of this name. change: its own kind of damage."""

    name: str
    content: bytes
    read: Callable[[Path], Any]
    file: str
    change: Callable[[bytes, random.Random], bytes] | None = None


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


# The kinds of files


def targets(folder: Path) -> list[Target]:
    """A sound file of every kind, made in `folder`, and what reads it."""
    found = [_checkpoint(folder), _codes(), *_dsprites(), *_idx(), _omniglot(), *_images(), *_arrays(), *_tables()]
    found += [*_text(), *_clips(), _transitions()]
    found += [Target(*kind) for kind in arrayfiles.kinds(mutate, hostile_array)]
    return [target for target in found if target is not None]


def _checkpoint(folder: Path) -> Target:
    settings = resolve("cascadevae", options=SMALL)
    run = loop.train(settings, folder / "run", quiet=True)
    trainer = loop.build(settings, torch.device("cpu"), Ranks())

    def read(path: Path) -> None:
        model, header = checkpoint.load(path)
        trained_data(header, torch.device("cpu"))
        settings_of(header, path)
        trainer.model.load_state_dict(model.state_dict())
        trainer.load_state(checkpoint.load_training(path))
        trainer.step()

    def change(content: bytes, rng: random.Random) -> bytes:
        return hostile_header(content, rng) if rng.random() < 0.5 else mutate(content, rng)

    return Target("checkpoint", run.checkpoint.read_bytes(), read, "checkpoint.safetensors", change)


def _codes() -> Target:
    rng = np.random.default_rng(0)
    made = io.BytesIO()
    names = np.array(["a", "b", "c"])
    np.savez(made, codes=rng.random((40, 3)), factors=rng.integers(0, 4, (40, 2)), code_names=names)

    def change(content: bytes, rng: random.Random) -> bytes:
        return hostile_array(content, rng) if rng.random() < 0.5 else mutate(content, rng)

    return Target("codes npz", made.getvalue(), table_from_arrays, "codes.npz", change)


def _dsprites() -> Iterator[Target]:
    from distk.plugins.datasets.dsprites import read_packed

    made = io.BytesIO()
    head = b"{'descr': '|u1', 'fortran_order': False, 'shape': (737280, 64, 64), }".ljust(117) + b"\n"
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("imgs.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + bytes(1 << 15))
    # Cut off: the whole of it is three gigabytes; what lies behind the header is read in the same way to the end.
    yield Target("dsprites npz", made.getvalue(), read_packed, "dsprites.npz")


def _idx() -> Iterator[Target]:
    try:
        from distk.plugins.datasets.mnist_like import read_idx
    except ImportError:
        return
    content = b"\0\0\x08\x03" + struct.pack(">III", 20, 8, 8) + bytes(range(256)) * 5
    yield Target("idx", content, lambda path: read_idx(path, 3), "train-images-idx3-ubyte")
    yield Target("idx gz", gzip.compress(content), lambda path: read_idx(path, 3), "train-images-idx3-ubyte.gz")


def _omniglot() -> Target | None:
    try:
        from distk.plugins.datasets.omniglot import _read
    except ImportError:
        return None
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for i in range(3):
            archive.writestr(f"images_background/Greek/character0{i + 1}/0001_01.png", _picture("PNG"))
    return Target("omniglot zip", made.getvalue(), lambda path: _read(path, 28), "images_background.zip")


def _picture(kind: str, **options: Any) -> bytes:
    from PIL import Image

    made = io.BytesIO()
    values = np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    Image.fromarray(values).convert("L" if kind == "PNG" else "RGB").save(made, kind, **options)
    return made.getvalue()


def _images() -> Iterator[Target]:
    from distk import open_dataset

    def read(path: Path) -> None:
        open_dataset("folder", {"size": 16}, folder=path)

    compressed = {"compression": "tiff_lzw"}
    for kind, suffix in (("PNG", "png"), ("JPEG", "jpg"), ("GIF", "gif"), ("BMP", "bmp"), ("WEBP", "webp")):
        yield Target(f"image {suffix}", _picture(kind), read, f"a.{suffix}")
    yield Target("image tiff", _picture("TIFF", **compressed), read, "a.tif")
    yield Target("image ppm", _picture("PPM"), read, "a.ppm")
    for name, content in _packed({"a/1.png": _picture("PNG"), "a/2.jpg": _picture("JPEG"), "b/3.gif": _picture("GIF")}):
        yield Target(f"images {name}", content, read, f"a.{name}")


def _arrays() -> Iterator[Target]:
    from distk import open_dataset

    def read(path: Path) -> None:
        data = open_dataset("arrays", folder=path)
        data.batch(torch.arange(min(8, len(data))))

    def change(content: bytes, rng: random.Random) -> bytes:
        return hostile_array(content, rng) if rng.random() < 0.5 else mutate(content, rng)

    draw = np.random.default_rng(0)
    members = {
        "images": draw.integers(0, 65536, (40, 6, 5, 3), dtype=np.uint16),
        "labels": np.array(["a", "b"])[np.arange(40) % 2],
        "factors": draw.random((40, 2)),
        "split": np.array(["train", "test"])[np.arange(40) % 2],
    }
    made, alone = io.BytesIO(), io.BytesIO()
    np.savez_compressed(made, **members)
    yield Target("items npz", made.getvalue(), read, "a.npz", change)
    np.save(alone, draw.random((40, 6, 5), dtype=np.float32))
    yield Target("items npy", alone.getvalue(), read, "a.npy")
    try:
        import h5py
    except ImportError:
        return
    made = io.BytesIO()
    with h5py.File(made, "w") as file:
        for name, value in members.items():
            file[name] = value.tolist() if value.dtype.kind == "U" else value
    yield Target("items h5", made.getvalue(), read, "a.h5")


def _tables() -> Iterator[Target]:
    from distk import open_dataset

    def read(path: Path) -> None:
        open_dataset("table", {"on_bad": "skip"}, folder=path)

    rows = [f"{i},{i / 7},{'ab'[i % 2]}" for i in range(60)]
    content = "\n".join(["x,y,label", *rows]).encode()
    yield Target("table csv", content, read, "a.csv")
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        return
    made = io.BytesIO()
    parquet.write_table(pa.table({"x": [1.0] * 60, "y": list(range(60)), "label": ["a", "b"] * 30}), made)
    yield Target("table parquet", made.getvalue(), read, "a.parquet")


def _packed(members: dict[str, bytes]) -> Iterator[tuple[str, bytes]]:
    """A zip and a tar of files: (suffix, content)."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, body in members.items():
            archive.writestr(name, body)
    yield "zip", made.getvalue()
    for kind in ("", ":gz"):
        made = io.BytesIO()
        with tarfile.open(fileobj=made, mode=f"w{kind}") as archive:
            for name, body in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(body)
                archive.addfile(info, io.BytesIO(body))
        yield "tar" + kind.replace(":", "."), made.getvalue()


def _text() -> Iterator[Target]:
    from distk.plugins.text.common import files
    from distk.plugins.text.common.base import CorpusDataset
    from distk.plugins.text.common.parallel import Parallel
    from distk.plugins.text.common.vectors import read_vectors
    from distk.plugins.text.common.vocab import Vocab

    def corpus(path: Path) -> CorpusDataset:
        return Parallel(Parallel.Config(), torch.device("cpu"), Files("parallel", path.parent, Parallel.reads))

    words = ["the", "a", "cat", "dog", "sees", "Zoé", "'tis", "naïve", "."]
    rows = [f"{' '.join(words[i % 5 :])}\t{' '.join(words[: 3 + i % 6])}\tDET NOUN VERB".encode() for i in range(60)]
    yield Target("text tsv", b"\xef\xbb\xbf" + b"\r\n".join(rows), corpus, "train.tsv")
    yield Target("text gz", gzip.compress(b"\n".join(rows)), corpus, "train.en.gz")
    tree = "".join(f"{i}\t{w}\t_\tNOUN\tNN\t_\t0\troot\t_\tSpaceAfter=No\n" for i, w in enumerate(words, 1))
    content = f"# sent_id = 1\n# text = {' '.join(words)}\n3-4\tx\t_\t_\t_\t_\t_\t_\t_\t_\n{tree}\n".encode() * 9
    yield Target("conllu", content, files.read_sentences, "en_x-ud-train.conllu")
    scored = b'{"review": "so good", "score": 1}\n{"review": "so bad .", "score": 0}\n' * 20
    yield Target("json lines", scored, lambda path: files.read_scored(path, "utf-8"), "valid.txt")
    vocab = Vocab.build(dict.fromkeys(words, 1))
    values = np.random.default_rng(0).normal(size=(len(words), 40)).astype("<f4")
    start = f"{len(words)} 40\n".encode()
    text = b"".join(
        w.encode() + b" " + " ".join(map(str, row)).encode() + b"\n" for w, row in zip(words, values, strict=True)
    )
    binary = b"".join(w.encode() + b" " + row.tobytes() for w, row in zip(words, values, strict=True))
    for name, body in (("text", text), ("binary", binary)):
        yield Target(f"vectors {name}", start + body, lambda path: read_vectors(path, vocab), f"vectors-{name}")
    yield Target("vectors gz", gzip.compress(start + binary), lambda path: read_vectors(path, vocab), "vectors.bin.gz")


def _clips() -> Iterator[Target]:
    from distk.video import Fit, read_clips
    from distk.video.writers import as_bytes, gif, mp4, strip

    clip = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (6, 3, 16, 16), dtype=np.uint8))
    arrays = io.BytesIO()
    frames = as_bytes(clip)
    np.savez_compressed(arrays, frames=frames, lengths=np.array([2, 4]), labels=np.array([1, 0]), fps=np.array(10.0))

    def change(content: bytes, rng: random.Random) -> bytes:
        return hostile_array(content, rng) if rng.random() < 0.5 else mutate(content, rng)

    def read(path: Path) -> None:
        for fit in (Fit(), Fit(8, 1)):
            read_clips(path, fit)

    yield Target("clips npz", arrays.getvalue(), read, "clips.npz", change)
    yield Target("clips strip", strip(frames), read, "clips.png")
    yield Target("clips gif", gif(frames, 10), read, "clips.gif")
    try:
        yield Target("clips mp4", mp4(frames, 10), read, "clips.mp4")
        yield Target("clips avi", _avi(frames), read, "clips.avi")
    except DistkError:  # PyAV is not installed
        return


def _avi(frames: np.ndarray) -> bytes:
    import av

    made = io.BytesIO()
    with av.open(made, "w", format="avi") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.height, stream.width = frames.shape[1:3]
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return made.getvalue()


def _transitions() -> Target:
    from distk.plugins.rl_control.data.transitions import read

    rng, made = np.random.default_rng(0), io.BytesIO()
    x = rng.integers(0, 256, (2, 9, 6, 6), dtype=np.uint8)
    np.savez_compressed(made, x=x[0], x_next=x[1], u=rng.random((9, 2)))

    def change(content: bytes, rng: random.Random) -> bytes:
        return hostile_array(content, rng) if rng.random() < 0.5 else mutate(content, rng)

    return Target("transitions npz", made.getvalue(), read, "transitions.npz", change)


# Reading them in a child process


def peak() -> int:
    """Largest resident memory of this process so far, bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def chunk(target: Target, seeds: range, folder: Path) -> dict[str, Any]:
    """Read the changed files of these seeds in a child process; counts, and what went wrong."""
    report = folder / "report.json"
    report.unlink(missing_ok=True)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            _child(target, seeds, folder, report)
            code = 0
        finally:
            os._exit(code)
    deadline = time.monotonic() + SECONDS
    while not (ended := os.waitpid(pid, os.WNOHANG))[0]:
        if time.monotonic() > deadline:
            os.kill(pid, 9)
            os.waitpid(pid, 0)
            return {"loaded": 0, "refused": 0, "failures": [f"seeds {seeds}: hangs"]}
        time.sleep(0.01)
    if ended[1]:
        return {"loaded": 0, "refused": 0, "failures": [f"seeds {seeds}: died with status {ended[1]}"]}
    return json.loads(report.read_text())


def _child(target: Target, seeds: range, folder: Path, report: Path) -> None:
    warnings.simplefilter("ignore")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libraries of images talk
    inside = folder / "in"
    shutil.rmtree(inside, ignore_errors=True)
    inside.mkdir()
    path = inside / target.file
    path.write_bytes(target.content)
    try:
        target.read(path)
    except DistkError:
        assert target.name == "dsprites npz"  # cut off on purpose
    before, found = peak(), {"loaded": 0, "refused": 0, "failures": []}
    beside = sorted(p.name for p in folder.iterdir())
    for seed in seeds:
        rng = random.Random(seed)
        path.write_bytes((target.change or mutate)(target.content, rng))
        began = time.monotonic()
        try:
            target.read(path)
            found["loaded"] += 1
        except DistkError as error:
            found["refused"] += 1
            if "\n" in str(error) or len(str(error)) > 2000:
                found["failures"].append(f"seed {seed}: no sentence: {str(error)[:200]!r}")
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{Path(where.filename).name}:{where.lineno}"
            found["failures"].append(f"seed {seed}: {type(error).__name__} at {place}: {str(error)[:120]}")
        if time.monotonic() - began > 60:
            found["failures"].append(f"seed {seed}: took {time.monotonic() - began:.0f} s")
        if peak() > before + ROOM:
            found["failures"].append(f"seed {seed}: took {(peak() - before) >> 20} MiB")
            before = peak()
    if sorted(p.name for p in folder.iterdir() if p != report) != beside or len(list(inside.iterdir())) != 1:
        found["failures"].append(f"seeds {seeds}: a file was written")
    found["mebibytes"] = (peak() - before) >> 20
    report.write_text(json.dumps(found))


def fuzz(target: Target, count: int, seed: int, folder: Path) -> dict[str, Any]:
    """Read `count` changed files of a kind; counts and failures."""
    total: dict[str, Any] = {"loaded": 0, "refused": 0, "failures": [], "mebibytes": 0}
    for start in range(0, count, CHUNK):
        found = chunk(target, range(seed + start, seed + min(start + CHUNK, count)), folder)
        total["loaded"] += found["loaded"]
        total["refused"] += found["refused"]
        total["failures"] += found["failures"]
        total["mebibytes"] = max(total["mebibytes"], found.get("mebibytes", 0))
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000, help="changed files of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="kinds whose name begins so; the others stay in --json")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    result: dict[str, Any] = {"count": arguments.count, "seed": arguments.seed, "kinds": {}}
    if arguments.only and arguments.json and arguments.json.exists():
        before = json.loads(arguments.json.read_text())
        if (before["count"], before["seed"]) == (arguments.count, arguments.seed):
            result = before
    with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
        folder = Path(name)
        for target in targets(folder):
            if target.name.startswith(arguments.only):
                began = time.monotonic()
                found = fuzz(target, arguments.count, arguments.seed, folder)
                found["seconds"] = round(time.monotonic() - began)
                result["kinds"][target.name] = found
                print(
                    f"{target.name}: {found['loaded']} loaded, {found['refused']} refused, "
                    f"{len(found['failures'])} failures, {found['seconds']} s",
                    flush=True,
                )
                for failure in found["failures"][:20]:
                    print(f"  {failure}", flush=True)
                if arguments.json:
                    arguments.json.write_text(json.dumps(result, indent=2) + "\n")
    sys.exit(1 if any(found["failures"] for found in result["kinds"].values()) else 0)


if __name__ == "__main__":
    main()
