"""Damaged and hostile files: loaded or refused in one sentence. A few hundred here; `benchmarks/fuzz.py` makes up to
100,000 of each kind and its counts are kept in results/fuzz-cpu.json."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from distk import checkpoint
from distk.errors import DistkError

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import fuzz
import fuzzkinds

NAMES = [
    *("checkpoint", "codes npz", "dsprites npz", "idx", "idx gz", "omniglot zip"),
    *(f"image {suffix}" for suffix in ("png", "jpg", "gif", "bmp", "webp", "tiff", "ppm")),
    *(f"images {form}" for form in ("zip", "tar", "tar.gz")),
    *(f"decoder {kind}" for kind in ("png", "jpg", "progressive jpg", "gif", "bmp", "webp", "lossless webp")),
    *(f"decoder {kind}" for kind in ("lzw tiff", "deflate tiff", "jpeg tiff", "plain tiff", "ppm")),
    *(f"items {form}" for form in ("npz", "npy", *(("h5",) if importlib.util.find_spec("h5py") else ()))),
    *("table csv", *(("table parquet", "decoder parquet") if importlib.util.find_spec("pyarrow") else ())),
    *(("saved arrow", "decoder arrow") if importlib.util.find_spec("datasets") else ()),
    *("text tsv", "text gz", "conllu", "json lines", "vectors text", "vectors binary", "vectors gz"),
    *(f"clips {form}" for form in ("npz", "strip", "gif", *(("mp4", "avi") if importlib.util.find_spec("av") else ()))),
    *(("decoder mp4", "decoder avi") if importlib.util.find_spec("av") else ()),
    *("transitions npz", "mat", "mat packed", "mat splits"),
    *(("h5", "h5 cells") if importlib.util.find_spec("h5py") else ()),
    *("arrays npy", "arrays npz", "cifar tar"),
]


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> dict:
    return {target.name: target for target in fuzzkinds.targets(tmp_path_factory.mktemp("sound"))}


def test_every_kind_of_file_is_tried(sound) -> None:
    assert list(sound) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_damaged_files_load_or_are_refused_in_a_sentence(sound, tmp_path, seed, name) -> None:
    count = 200 if name == "checkpoint" else 50
    found = fuzz.fuzz(sound[name], count, seed, tmp_path)
    assert not found["failures"]
    assert found["loaded"] + found["refused"] == count
    assert found["refused"] > count // 20, "the damage is real"


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_damaged_files_by_the_thousand(sound, tmp_path, seed, name) -> None:
    assert not fuzz.fuzz(sound[name], 2000, seed, tmp_path)["failures"]


@pytest.mark.parametrize(("name", "seed"), [("clips gif", 1703785633), ("decoder webp", 1008664)])
def test_pictures_that_once_took_gigabytes_are_refused_before(sound, tmp_path, name: str, seed: int) -> None:
    """Damage makes the canvas of a GIF 1817x33747, for which its six frames of 16x16 took 1.3 GB, and that of a WebP
    9287x8482, for which its decoder took 600 MB before anybody could ask for its size."""
    found = fuzz.fuzz(sound[name], 3, seed, tmp_path)
    assert not found["failures"]
    assert found["mebibytes"] < 64


def test_the_fuzzer_notices_what_it_looks_for(tmp_path) -> None:
    """Crashes, foreign exceptions, memory, and files written beside: each is reported."""
    import mmap
    import os

    def dies(path: Path) -> None:
        if path.read_bytes() != b"sound":
            os.kill(os.getpid(), 9)

    def raises(path: Path) -> None:
        if path.read_bytes() != b"sound":
            raise KeyError("x")

    def grows(path: Path) -> None:
        if path.read_bytes() != b"sound":
            # Mapped, since a heap that a training left behind would be used again and not grow.
            fresh = mmap.mmap(-1, fuzz.ROOM + (64 << 20))
            for page in range(0, len(fresh), mmap.PAGESIZE):
                fresh[page] = 1

    def writes(path: Path) -> None:
        if path.read_bytes() != b"sound":
            (path.parent.parent / "elsewhere").write_bytes(b"")

    for read, word in ((dies, "died with status"), (raises, "KeyError"), (grows, "MiB"), (writes, "was written")):
        folder = tmp_path / word.replace(" ", "-")
        folder.mkdir()
        found = fuzz.fuzz(fuzzkinds.Target("t", b"sound", read, "f"), 5, 0, folder)
        assert any(word in failure for failure in found["failures"]), found


def test_a_header_that_promises_a_giant_allocates_nothing(sound, tmp_path) -> None:
    """Sizes are held against the file before anything is built, also where the shapes agree among themselves."""
    import struct

    content = sound["checkpoint"].content
    length = struct.unpack("<Q", content[:8])[0]
    for key, value in (("hidden", 60_000), ("z", 1000), ("classes", 1000)):
        outer = json.loads(content[8 : 8 + length])
        inner = json.loads(outer["__metadata__"]["distk"])
        inner["config"][key] = value
        outer["__metadata__"]["distk"] = json.dumps(inner)
        text = json.dumps(outer).encode()
        path = tmp_path / "c.safetensors"
        path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])
        before = fuzz.peak()
        with pytest.raises(DistkError, match="does not fit its method"):
            checkpoint.load(path)
        assert fuzz.peak() - before < 64 << 20


def test_a_constructor_that_computes_is_bounded_too(tmp_path) -> None:
    """A model that cannot be sketched on the meta device is built under a limit taken from the size of its file."""
    import torch

    path = tmp_path / "f"
    path.write_bytes(b"x" * 1000)

    class Computes(torch.nn.Module):
        def __init__(self, config, spec) -> None:
            super().__init__()
            self.size = int(torch.tensor(config).item())  # not on the meta device
            self.register_buffer("x", torch.zeros(self.size))

    with pytest.raises(DistkError, match="too large for this file"):
        checkpoint._fitting(path, Computes, 1 << 34, None, {"x": [1 << 34]}, torch.device("cpu"))
    assert checkpoint._fitting(path, Computes, 5, None, {"x": [5]}, torch.device("cpu")).size == 5


def test_what_several_processes_tried_is_added_up(tmp_path, monkeypatch) -> None:
    def kept(name: str, first: int, files: int) -> Path:
        found = {"files": files, "loaded": 1, "refused": files - 1, "died": 0, "seconds": 2, "mebibytes": files}
        path = tmp_path / name
        path.write_text(json.dumps({"kinds": {"idx": {**found, "failures": [name], "seeds": [[first, files]]}}}))
        return path

    parts = [kept("a", 0, 10), kept("b", 10, 5)]
    added = fuzz.merged(parts)["idx"]
    assert {key: added[key] for key in fuzz.ADDED} == {"files": 15, "loaded": 2, "refused": 13, "died": 0, "seconds": 4}
    assert added["mebibytes"] == 10
    assert added["failures"] == ["a", "b"]
    with pytest.raises(SystemExit, match="idx was tried with seeds from 9 already"):
        fuzz.merged([*parts, kept("c", 9, 2)])
    words = ["fuzz.py", "--merge", *map(str, parts), "--json", str(tmp_path / "all.json")]
    monkeypatch.setattr(sys, "argv", words)
    fuzz.main()
    written = json.loads((tmp_path / "all.json").read_text())
    assert written["kinds"] == {"idx": added}
    assert written["total"] == {"files": 15, "loaded": 2, "refused": 13, "died": 0, "kinds": 1, "least": 15}
