"""The loaders of disent (Michlo 2021) beside ours, on the same files: factors, order, pixels, and batches a second.

    pip install --no-deps --target FOLDER disent
    python benchmarks/loaders.py --disent FOLDER [--only NAME ...] [--rows 2000] [--json results/loaders-cpu.json]
    python benchmarks/loaders.py --table FILE ...

The files are those of `field.py`, in the official form, of random or drawn pictures. Where disent reads the official
file itself, or has a function that does, it is given it; `3dshapes.h5` and dSprites it reads from a copy of its own,
into which the rows that are compared are put as it would put them. Rows are drawn at random; their factors are compared
by position in the grid, and every pixel. Batches of 64 as floats in [0, 1], processor time of one thread; torchvision,
which disent needs for its pictures of ImageNet alone, may be absent.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib
import json
import os
import sys
import tempfile
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from field import BATCH, SETS, small

from distk import seeded
from distk.data import FactorDataset, open_dataset
from distk.files import write_atomic

Peer = tuple[Any, tuple[str, ...], tuple[int, ...]]
"""Pictures by row, height x width x channels in bytes; names and sizes of the factors."""
OPTIONS: dict[str, dict[str, Any]] = {"smallnorb": {"size": 96}, "cars3d": {"size": 128}}
"""Sizes as published: made smaller, disent's pictures go through another filter."""
SHARES = {"mpi3d": 0.0225}
"""Of sets that would not fit: `field.py` says how."""


def module(name: str) -> Any:
    """A module of disent's data sets."""
    with contextlib.suppress(ImportError):
        return importlib.import_module(f"disent.dataset.data.{name}")
    absent = types.ModuleType("torchvision.datasets")
    absent.ImageFolder = object  # type: ignore[attr-defined]
    sys.modules |= {"torchvision": types.ModuleType("torchvision"), "torchvision.datasets": absent}
    for known in [known for known in sys.modules if known.startswith("disent")]:
        del sys.modules[known]
    return importlib.import_module(f"disent.dataset.data.{name}")


def smallnorb(files: Path, ours: FactorDataset[Any], rows: torch.Tensor) -> Peer:
    """Training and test files by its reader, put together in the order of all ten instances: it opens them apart."""
    from distk.plugins.datasets.smallnorb import STEMS

    theirs = module("_groundtruth__norb")
    images, factors = [], []
    for stem in STEMS.values():
        paths = [str(files / f"{stem}-{part}.mat") for part in ("dat", "cat", "info")]
        x, f = theirs.read_norb_dataset(*paths, gzipped=False)
        images.append(x)
        factors.append(f)
    order = np.lexsort(np.concatenate(factors)[:, ::-1].T)
    kind = theirs.SmallNorbData
    sizes = tuple(
        2 * size if name == "instance" else size
        for name, size in zip(kind.factor_names, kind.factor_sizes, strict=True)
    )
    return np.concatenate(images)[order], kind.factor_names, sizes


def cars3d(files: Path, ours: FactorDataset[Any], rows: torch.Tensor) -> Peer:
    theirs = module("_groundtruth__cars3d")
    names = sorted(path.stem for path in (files / "cars").glob("*.mat"))
    (files / "cars" / "list.txt").write_text("\n".join(names))
    return theirs.load_cars3d_folder(str(files)), theirs.Cars3dData.factor_names, theirs.Cars3dData.factor_sizes


def mpi3d(files: Path, ours: FactorDataset[Any], rows: torch.Tensor) -> Peer:
    theirs = module("_groundtruth__mpi3d").Mpi3dNumpyData
    (files / "mpi3d").mkdir()
    os.link(files / "mpi3d_toy.npz", files / "mpi3d" / "mpi3d_toy.npz")
    return theirs(str(files), subset="toy"), theirs.factor_names, ours.factor_sizes  # of which there is a part


def shapes3d(files: Path, ours: FactorDataset[Any], rows: torch.Tensor) -> Peer:
    import h5py

    theirs = module("_groundtruth__shapes3d").Shapes3dData
    with h5py.File(files / "3dshapes.h5") as file:
        return copied(theirs, files, rows, lambda at: file["images"][at], len(ours))


def dsprites(files: Path, ours: FactorDataset[Any], rows: torch.Tensor) -> Peer:
    from distk.plugins.datasets.dsprites import NPZ

    theirs = module("_groundtruth__dsprites").DSpritesData
    pictures = np.load(files / NPZ)["imgs"]
    return copied(theirs, files, rows, lambda at: (pictures[at] * 255)[..., None], len(ours))


def copied(kind: Any, files: Path, rows: torch.Tensor, picture: Callable[[int], np.ndarray], count: int) -> Peer:
    """disent's own file, a chunk for each picture, with these rows in it."""
    import h5py

    path = files / kind.name / kind.datafile.out_name
    path.parent.mkdir()
    with h5py.File(path, "w") as file:
        shape = (count, *kind.img_shape)
        made = file.create_dataset(kind.datafile.dataset_name, shape, "u1", chunks=(1, *kind.img_shape), compression=4)
        for at in rows.unique().tolist():
            made[at] = picture(at)
    return kind(str(files)), kind.factor_names, kind.factor_sizes


PEERS: dict[str, tuple[str, Callable[[Path, FactorDataset[Any], torch.Tensor], Peer]]] = {
    "smallnorb": ("smallnorb", smallnorb),
    "cars3d": ("cars3d", cars3d),
    "mpi3d": ("mpi3d", mpi3d),
    "shapes3d": ("shapes3d from its file", shapes3d),
    "dsprites": ("dsprites from its file", dsprites),
}


def batch_of(data: Any, rows: torch.Tensor) -> torch.Tensor:
    """Pictures of disent's data as distk gives them, float32 `[n, channels, height, width]` in [0, 1]."""
    return torch.from_numpy(np.stack([data[at] for at in rows.tolist()])).movedim(-1, 1).contiguous().float() / 255


def rate(batch: Callable[[torch.Tensor], torch.Tensor], rows: torch.Tensor) -> float:
    """Pictures a second, the best of three rounds over these rows."""
    best = 0.0
    for _ in range(3):
        began = time.process_time()
        for part in rows.split(BATCH):
            batch(part)
        best = max(best, len(rows) / (time.process_time() - began))
    return best


def compared(name: str, count: int) -> dict[str, Any]:
    """One row of the table."""
    kind, peer = PEERS[name]
    with tempfile.TemporaryDirectory() as place:
        files = Path(place) / "files"
        files.mkdir()
        os.environ["DISTK_CACHE"] = str(Path(place) / "cache")
        _, grid = SETS[kind][1](files, SHARES.get(name, 1.0))
        if grid:
            small(name, grid)
        began = time.process_time()
        ours = open_dataset(name, OPTIONS.get(name), folder=str(files), device="cpu")
        opened = time.process_time() - began
        assert isinstance(ours, FactorDataset)
        rows = ours.sample_rows(count, seeded(0, ours.device))
        began = time.process_time()
        data, names, sizes = peer(files, ours, rows)
        theirs_opened = time.process_time() - began

        theirs = functools.partial(batch_of, data)
        places = np.stack(np.unravel_index(rows.numpy(), sizes), 1)
        off = [int((ours.batch(part)["x"] != theirs(part)).sum()) for part in rows.split(BATCH)]
        return {
            "data": name,
            "images": len(ours),
            "rows": count,
            "numpy": np.__version__,
            "factors": {"ours": ours.factor_names, "theirs": names},
            "same sizes": tuple(sizes) == tuple(ours.factor_sizes),
            "same factors": bool((places == ours.factors(rows).numpy()).all()),
            "pixels that differ": sum(off),
            "opened s": {"ours": round(opened, 1), "theirs": round(theirs_opened, 1)},
            "images/s": {"ours": round(rate(lambda p: ours.batch(p)["x"], rows)), "theirs": round(rate(theirs, rows))},
        }


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Rows as a table in Markdown."""
    lines = [("data", "rows of", "factors", "pixels that differ", "images a second, ours", "disent's"), ("---",) * 6]
    for row in rows:
        pairs = zip(row["factors"]["ours"], row["factors"]["theirs"], strict=True)
        renamed = ", ".join(f"{ours} is its {theirs}" for ours, theirs in pairs if ours != theirs)
        alike = "the same" if row["same sizes"] and row["same factors"] else "not the same"
        lines.append(
            (
                f"`{row['data']}`",
                f"{row['rows']:,} of {row['images']:,}",
                f"{alike}{f' ({renamed})' if renamed else ''}",
                str(row["pixels that differ"]),
                *(f"{row['images/s'][who]:,}" for who in ("ours", "theirs")),
            )
        )
    return [f"| {' | '.join(line)} |" for line in lines]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--disent", type=Path, help="folder into which pip put it")
    parser.add_argument("--only", nargs="*", choices=PEERS, default=list(PEERS))
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--table", nargs="*", type=Path)
    asked = parser.parse_args()
    if asked.table:
        print(*table([row for path in asked.table for row in json.loads(path.read_text())["rows"]]), sep="\n")
        return
    if asked.disent is None:
        parser.error("--disent FOLDER is where pip put disent")
    sys.path.insert(0, str(asked.disent))
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    for name in asked.only:
        rows.append(compared(name, asked.rows))
        print(json.dumps(rows[-1]), flush=True)
        if asked.json:
            write_atomic(asked.json, (json.dumps({"rows": rows}, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
