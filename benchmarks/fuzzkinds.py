"""Sound files of every kind that distk reads, as `fuzz.py` damages them, and what reads each."""

from __future__ import annotations

import functools
import gzip
import io
import random
import struct
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import arrayfiles
import numpy as np
import torch
from damage import hostile_array, hostile_header, mutate

from distk import checkpoint, pictures
from distk.codefile import table_from_arrays
from distk.data import Files
from distk.device import Ranks
from distk.errors import DistkError
from distk.models import trained_data
from distk.settings import resolve
from distk.training import loop
from distk.training.changes import settings_of

SMALL = {
    "model": {"z": 2, "hidden": 8, "warmup": 0, "relieve_every": 1},
    "data": {"size": 32, "scales": [5], "orientations": 1, "positions": 6},
    "train": {"batch": 4, "device": "cpu", "steps": 2},
}


@dataclass
class Target:
    """A kind of file. content: a sound one. read: reads a file of this name. change: its own kind of damage. apart: a
    process of its own reads it for distk, so that its death is an error about the file."""

    name: str
    content: bytes
    read: Callable[[Path], Any]
    file: str
    change: Callable[[bytes, random.Random], bytes] | None = None
    apart: bool = False


def targets(folder: Path) -> list[Target]:
    """A sound file of every kind, made in `folder`, and what reads it."""
    found = [
        _checkpoint(folder),
        _codes(),
        *_dsprites(),
        *_idx(),
        _omniglot(),
        *_images(),
        *_decoders(),
        *_arrays(),
        *_tables(),
        *_saved(folder / "saved"),
    ]
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
    return Target("omniglot zip", made.getvalue(), lambda path: _read(path, 28), "images_background.zip", None, True)


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
        yield Target(f"image {suffix}", _picture(kind), read, f"a.{suffix}", None, True)
    yield Target("image tiff", _picture("TIFF", **compressed), read, "a.tif", None, True)
    yield Target("image ppm", _picture("PPM"), read, "a.ppm", None, True)
    for name, content in _packed({"a/1.png": _picture("PNG"), "a/2.jpg": _picture("JPEG"), "b/3.gif": _picture("GIF")}):
        yield Target(f"images {name}", content, read, f"a.{name}", None, True)


def _decoded(decode: Callable[..., Iterator[Any]], file: Path, **asked: Any) -> None:
    """A file through a function that `distk.apart` calls in its process."""
    list(decode(file.read_bytes(), str(file), **asked))


def _decoders() -> Iterator[Target]:
    """The decoders of pictures alone, without the data set around them."""
    read = functools.partial(_decoded, pictures.frames_here, path="", form=asdict(pictures.Form((16, 16))), most=1)
    for kind, suffix, options in (
        ("PNG", "png", {}),
        ("JPEG", "jpg", {}),
        ("JPEG", "progressive jpg", {"progressive": True}),
        ("GIF", "gif", {}),
        ("BMP", "bmp", {}),
        ("WEBP", "webp", {}),
        ("WEBP", "lossless webp", {"lossless": True}),
        ("TIFF", "lzw tiff", {"compression": "tiff_lzw"}),
        ("TIFF", "deflate tiff", {"compression": "tiff_adobe_deflate"}),
        ("TIFF", "jpeg tiff", {"compression": "jpeg"}),
        ("TIFF", "plain tiff", {}),
        ("PPM", "ppm", {}),
    ):
        yield Target(f"decoder {suffix}", _picture(kind, **options), read, "a.bin", None, True)


def _movies(*contents: bytes) -> Iterator[Target]:
    """The decoders of movies alone, two frames each."""
    from distk.video import decode

    for name, content in zip(("mp4", "avi"), contents, strict=True):
        read = functools.partial(_decoded, decode.movie, fit={"size": None, "channels": 3})
        yield Target(f"decoder {name}", content, read, f"a.{name}", None, True)


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
    yield Target("table parquet", made.getvalue(), read, "a.parquet", None, True)
    from distk.parquet import rows

    read_rows = functools.partial(_decoded, rows, most=4096)
    yield Target("decoder parquet", made.getvalue(), read_rows, "a.parquet", None, True)


def _saved(folder: Path) -> Iterator[Target]:
    """The file of Arrow of a data set that Hugging Face's `datasets` saved."""
    try:
        import datasets
    except ImportError:
        return
    from PIL import Image

    from distk import open_dataset
    from distk.saved_here import cells

    names = ["picture", "label", "word", "number", "row"]
    pixels = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels[0]).save(content, "PNG")
    features = datasets.Features(
        {
            "picture": datasets.Image(),
            "label": datasets.ClassLabel(names=["a", "b"]),
            "word": datasets.Value("string"),
            "number": datasets.Value("float64"),
            "row": datasets.Array2D((2, 3), "int16"),
        }
    )
    held = {
        "picture": [{"bytes": content.getvalue(), "path": None}] * 40,
        "label": [0, 1] * 20,
        "word": [f"word {i}" for i in range(40)],
        "number": [i / 7 for i in range(40)],
        "row": [[[i, 1, 2], [3, 4, 5]] for i in range(40)],
    }
    datasets.disable_progress_bars()
    datasets.Dataset.from_dict(held, features=features).save_to_disk(str(folder))
    (arrow,) = folder.glob("*.arrow")
    sound = arrow.read_bytes()

    def change(content: bytes, rng: random.Random) -> bytes:
        if rng.random() < 0.5:
            return mutate(content, rng)
        changed = bytearray(content)  # a few bytes of what the columns hold, where the messages stay sound
        for _ in range(rng.randint(1, 8)):
            changed[rng.randrange(len(content) // 8, len(content))] = rng.randrange(256)
        return bytes(changed)

    def read(path: Path) -> None:
        arrow.write_bytes(path.read_bytes())
        options = {"column": "picture", "size": 8, "factors": ("word", "number")}
        open_dataset("hf", options, folder=folder)

    def read_cells(path: Path) -> None:
        arrow.write_bytes(path.read_bytes())
        list(cells(b"", str(folder), names))

    yield Target("saved arrow", sound, read, "a.arrow", change, True)
    yield Target("decoder arrow", sound, read_cells, "a.arrow", change, True)


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
    from distk.plugins.text.common.conllu import read_sentences
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
    yield Target("conllu", content, read_sentences, "en_x-ud-train.conllu")
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
    yield Target("clips strip", strip(frames), read, "clips.png", None, True)
    yield Target("clips gif", gif(frames, 10), read, "clips.gif", None, True)
    try:
        yield Target("clips mp4", mp4(frames, 10), read, "clips.mp4", None, True)
        yield Target("clips avi", _avi(frames), read, "clips.avi", None, True)
        yield from _movies(mp4(frames[:2], 10), _avi(frames[:2]))
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
