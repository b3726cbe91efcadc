"""The field's data sets: time to the first batch, memory, and images a second from the device and from the host.

    python benchmarks/field.py [--only NAME ...] [--share 0.1] [--devices cpu cuda] [--json FILE]
    python benchmarks/field.py --table FILE ...

Files of the official form are written into a temporary folder, of random or drawn pictures, since the official ones may
not be passed on. `--share` says how much of each set: a set that must be whole gets fewer values of a factor, and the
table says how many pictures were measured. Each set is opened in a process of its own: first with an empty cache, then
again; peak memory is that of the later start, starts are by the clock on the wall, beside which stands the load of the
machine. Images a second are of batches of 64 from `sample`, the median of rounds, on a CPU by processor time with one
thread, once with the pictures on the device (`--data-on device`) and once memory-mapped on the host (`host`); with cuda
among the devices both on the GPU, too, by the clock. `--table` prints what files hold as the table of the docs.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import resource
import statistics
import struct
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from distk import seeded
from distk.data import open_dataset
from distk.device import describe
from distk.files import write_atomic

BATCH, ROUNDS, EACH = 64, 5, 10
Written = tuple[dict[str, Any], tuple[int, ...] | None]
"""Options of the data set, and a smaller grid of its factors than the official one, or None."""


def pixels(n: int, *shape: int, seed: int = 0) -> np.ndarray:
    """Random, but as compressible as pictures: blocks of four by four pixels."""
    small = (n, -(-shape[0] // 4), -(-shape[1] // 4), *shape[2:])
    blocks = np.random.default_rng(seed).integers(0, 256, small, dtype=np.uint8)
    return blocks.repeat(4, 1).repeat(4, 2)[:, : shape[0], : shape[1]]


def coded(picture: np.ndarray, kind: str) -> bytes:
    content = io.BytesIO()
    Image.fromarray(picture).save(content, kind)
    return content.getvalue()


def shapes3d(folder: Path, share: float) -> Written:
    """The drawn pictures, as many as there are, in the official file."""
    import h5py

    from distk.plugins.datasets.shapes3d import factor_values

    drawn = open_dataset("shapes3d")
    values = torch.cartesian_prod(*factor_values())
    with h5py.File(folder / "3dshapes.h5", "w") as file:
        images = file.create_dataset("images", (len(drawn), 64, 64, 3), "u1", chunks=(64, 64, 64, 3), compression="lzf")
        file["labels"] = values.double().numpy()
        for part in torch.arange(len(drawn)).split(4096):
            images[int(part[0]) : int(part[-1]) + 1] = (drawn.batch(part)["x"] * 255).byte().movedim(1, -1).numpy()
    return {}, None


def dsprites(folder: Path, share: float) -> Written:
    """The drawn pictures, which are nearly those of the official file, in its form."""
    from distk.plugins.datasets.dsprites import NPZ

    drawn = open_dataset("dsprites")
    with (
        zipfile.ZipFile(folder / NPZ, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("imgs.npy", "w", force_zip64=True) as file,
    ):
        head = {"descr": "|u1", "fortran_order": False, "shape": (len(drawn), 64, 64)}
        np.lib.format.write_array_header_1_0(file, head)
        for part in torch.arange(len(drawn)).split(4096):
            file.write(drawn.batch(part)["x"].byte().numpy().tobytes())
    return {}, None


def mpi3d(folder: Path, share: float) -> Written:
    grid = (6, 6, 2, 3, 3, max(2, round(40 * math.sqrt(share))), max(2, round(40 * math.sqrt(share))))
    with (
        zipfile.ZipFile(folder / "mpi3d_toy.npz", "w") as archive,
        archive.open("images.npy", "w", force_zip64=True) as file,
    ):
        shape = (math.prod(grid), 64, 64, 3)
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        for start in range(0, shape[0], 4096):
            file.write(pixels(min(4096, shape[0] - start), 64, 64, 3, seed=start).tobytes())
    return {}, grid


def smallnorb(folder: Path, share: float) -> Written:
    from distk.plugins.datasets.smallnorb import GRID, STEMS

    every = np.array(list(np.ndindex(*GRID)))
    for split, instances in (("train", (4, 6, 7, 8, 9)), ("test", (0, 1, 2, 3, 5))):
        mine = every[np.isin(every[:, 1], instances)]
        info = np.column_stack([mine[:, 1], mine[:, 2], 2 * mine[:, 3], mine[:, 4]]).astype("<i4")
        parts = {"cat": mine[:, 0].astype("<i4"), "info": info}
        for name, array in parts.items():
            sizes = [*array.shape, *[1] * (3 - array.ndim)]
            head = struct.pack(f"<Ii{len(sizes)}i", 0x1E3D4C54, array.ndim, *sizes)
            (folder / f"{STEMS[split]}-{name}.mat").write_bytes(head + array.tobytes())
        with (folder / f"{STEMS[split]}-dat.mat").open("wb") as file:
            file.write(struct.pack("<Ii4i", 0x1E3D4C55, 4, len(mine), 2, 96, 96))
            for start in range(0, len(mine), 1000):
                file.write(pixels(min(1000, len(mine) - start), 96, 96, 2, seed=start).transpose(0, 3, 1, 2).tobytes())
    return {}, None


def cars3d(folder: Path, share: float) -> Written:
    from scipy.io import savemat

    cars = max(2, round(183 * share))
    (folder / "cars").mkdir()
    for k in range(cars):
        views = pixels(96, 128, 128, 3, seed=k).reshape(4, 24, 128, 128, 3).transpose(2, 3, 4, 1, 0)
        savemat(folder / "cars" / f"car_{k:03}.mat", {"im": views}, do_compression=True)
    return {}, (4, 24, cars)


def celeba(folder: Path, share: float) -> Written:
    from distk.plugins.datasets.celeba import WHOLE

    n, draw = max(50, round(WHOLE * share)), np.random.default_rng(0)
    yes = 2 * draw.integers(0, 2, (n, 40)) - 1
    lines = [f"{i + 1:06}.jpg {' '.join(map(str, row))}" for i, row in enumerate(yes)]
    names = " ".join(f"Attribute_{k}" for k in range(40))
    (folder / "list_attr_celeba.txt").write_text("\n".join([str(n), names, *lines]))
    parts = "".join(f"{i + 1:06}.jpg {(i >= 0.8 * n) + (i >= 0.9 * n)}\n" for i in range(n))
    (folder / "list_eval_partition.txt").write_text(parts)
    with zipfile.ZipFile(folder / "img_align_celeba.zip", "w") as archive:
        for i in range(n):
            archive.writestr(f"img_align_celeba/{i + 1:06}.jpg", coded(pixels(1, 218, 178, 3, seed=i)[0], "JPEG"))
    return {}, None


def chairs3d(folder: Path, share: float) -> Written:
    from distk.plugins.datasets.chairs3d import AZIMUTHS, ELEVATIONS, WHOLE

    content = coded(np.pad(pixels(1, 300, 300, 3)[0], ((150, 150), (150, 150), (0, 0)), constant_values=255), "PNG")
    with tarfile.open(folder / "rendered_chairs.tar", "w") as archive:
        for k in range(max(2, round(WHOLE * share))):
            for e, p in enumerate(ELEVATIONS):
                for a, t in enumerate(AZIMUTHS):
                    name = f"rendered_chairs/{k:032x}/renders/image_{32 * e + a:03}_p{p:03}_t{t:03}_r096.png"
                    member = tarfile.TarInfo(name)
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))
    return {}, None


def falcor3d(folder: Path, share: float) -> Written:
    grid = (5, 6, 6, 6, 6, max(2, round(6 * math.sqrt(share))), max(2, round(6 * math.sqrt(share))))
    return {}, _numbered(folder / "Falcor3D_down128.zip", grid)


def isaac3d(folder: Path, share: float) -> Written:
    grid = (3, 8, 5, 4, 4, max(2, round(4 * share)), max(2, round(6 * share)), 4, 4)
    return {}, _numbered(folder / "Isaac3D_down128.zip", grid)


def _numbered(path: Path, grid: tuple[int, ...]) -> tuple[int, ...]:
    contents = [coded(picture, "PNG") for picture in pixels(64, 128, 128, 3)]
    with zipfile.ZipFile(path, "w") as archive:
        for i in range(math.prod(grid)):
            archive.writestr(f"{path.stem}/images/{i:06}.png", contents[i % 64])
    return grid


def cifar100(folder: Path, share: float) -> Written:
    for name, n in (("train.bin", 50_000), ("test.bin", 10_000)):
        records = np.random.default_rng(0).integers(0, 20, (n, 3074), dtype=np.uint8)
        (folder / name).write_bytes(records.tobytes())
    return {}, None


def scream(folder: Path, share: float) -> Written:
    (folder / "scream.jpg").write_bytes(coded(pixels(1, 600, 700, 3)[0], "JPEG"))
    return {}, None


def nothing(folder: Path, share: float) -> Written:
    """No file: drawn."""
    return {}, None


SETS: dict[str, tuple[str, Callable[[Path, float], Written]]] = {
    "dsprites": ("drawn", nothing),
    "dsprites-rgb": ("drawn", nothing),
    "dsprites-noisy": ("drawn", nothing),
    "dsprites-scream": ("drawn, scream.jpg", scream),
    "shapes3d": ("drawn", nothing),
    "mpi3d": ("mpi3d_toy.npz", mpi3d),
    "smallnorb": ("smallnorb-...-dat.mat", smallnorb),
    "cars3d": ("cars/*.mat", cars3d),
    "celeba": ("img_align_celeba.zip", celeba),
    "chairs3d": ("rendered_chairs.tar", chairs3d),
    "falcor3d": ("Falcor3D_down128.zip", falcor3d),
    "isaac3d": ("Isaac3D_down128.zip", isaac3d),
    "cifar100": ("train.bin, test.bin", cifar100),
    "shapes3d from its file": ("3dshapes.h5", shapes3d),
    "dsprites from its file": ("dsprites_...npz", dsprites),
}


def small(name: str, grid: Sequence[int]) -> None:
    """Let a set that must be whole have a smaller grid."""
    from distk.plugins.datasets import cars3d, mpi3d, nvidia3d

    if name == "mpi3d":
        mpi3d.GRIDS["toy"] = tuple(grid)
    elif name == "cars3d":
        cars3d.GRID = cars3d.Cars3D.factor_sizes = tuple(grid)  # type: ignore[assignment]
    else:
        {"falcor3d": nvidia3d.Falcor3D, "isaac3d": nvidia3d.Isaac3D}[name].factor_sizes = tuple(grid)


def measured(name: str, folder: str, where: str, device: str, grid: Sequence[int]) -> dict[str, Any]:
    """In a process of its own: seconds to the first batch, peak memory, images a second."""
    name = name.partition(" ")[0]
    if grid:
        small(name, grid)
    torch.set_num_threads(1)
    clock = time.process_time if device == "cpu" else time.perf_counter
    began = time.perf_counter()
    found = open_dataset(name, folder=folder or None, where=where, device=device)  # type: ignore[arg-type]
    draw = seeded(0, found.device)

    def batch() -> float:
        return float(found.sample(BATCH, draw)["x"].flatten()[0])  # a read, so that the device has done it

    batch()
    first = time.perf_counter() - began
    rounds = []
    for _ in range(ROUNDS):
        start = clock()
        for _ in range(EACH):
            batch()
        rounds.append(BATCH * EACH / (clock() - start))
    factors = dict(zip(getattr(found, "factor_names", ()), getattr(found, "factor_sizes", ()), strict=False))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    rate = statistics.median(rounds)
    return {
        "first": first,
        "peak": peak,
        "rate": rate,
        "images": len(found),
        "shape": found.spec.shape,
        "factors": factors,
    }


def run(name: str, share: float, devices: Sequence[str]) -> dict[str, Any]:
    """One row of the table."""
    print(f"{name} ...", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory() as place:
        files, cache = Path(place) / "files", Path(place) / "cache"
        files.mkdir()
        _, grid = SETS[name][1](files, share)
        folder = str(files) if any(files.iterdir()) else ""

        def ask(where: str, device: str) -> dict[str, Any] | None:
            asked = json.dumps([name, folder, where, device, grid or ()])
            environment = {**os.environ, "DISTK_CACHE": str(cache)}
            environment.pop("DISTK_DATA", None)
            command = [sys.executable, __file__, "--measure", asked]
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
            if done.returncode and where == "device":
                raise SystemExit(f"{name}: {done.stderr[-2000:]}")
            return None if done.returncode else json.loads(done.stdout.splitlines()[-1])

        started = ask("device", devices[0])
        found = {(device, where): ask(where, device) for device in devices for where in ("device", "host")}
        again = found[devices[0], "device"]
        assert started is not None
        assert again is not None
        size = sum(path.stat().st_size for path in files.rglob("*") if path.is_file())
    return {
        "data": name,
        "file": SETS[name][0],
        "file bytes": size,
        "images": again["images"],
        "shape": again["shape"],
        "factors": again["factors"],
        "first start s": round(started["first"], 2),
        "later start s": round(again["first"], 2),
        "peak MB": round(again["peak"] / 1e6),
        "images/s": {f"{where}, {device}": got and round(got["rate"]) for (device, where), got in found.items()},
    }


RATES = {
    "device, cpu": "CPU",
    "host, cpu": "CPU, from the host",
    "device, cuda": "GPU",
    "host, cuda": "GPU, from the host",
}
HEAD = ("data", "file", "measured on", "first start", "later start", "peak memory")


def table(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Rows as a table in Markdown, with a column for each place where images came from."""
    kinds = [kind for kind in RATES if any(row["images/s"].get(kind) is not None for row in rows)]
    lines = [(*HEAD, *(RATES[kind] for kind in kinds)), ("---",) * (len(HEAD) + len(kinds))]
    for row in rows:
        rates = [row["images/s"].get(kind) for kind in kinds]
        size = f", {row['file bytes'] / 1e9:.1f} GB" if row["file bytes"] > 1e8 else ""
        lines.append(
            (
                f"`{row['data']}`",
                f"{row['file']}{size}",
                f"{row['images']:,} of {'x'.join(map(str, row['shape']))}",
                f"{row['first start s']:.1f} s",
                f"{row['later start s']:.1f} s",
                f"{row['peak MB']:,} MB",
                *("-" if rate is None else f"{rate:,}" for rate in rates),
            )
        )
    return [f"| {' | '.join(line)} |" for line in lines]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=SETS, default=list(SETS))
    parser.add_argument("--share", type=float, default=0.05, help="of each set that may be smaller")
    parser.add_argument("--devices", nargs="*", default=["cpu"])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--table", nargs="*", type=Path)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.measure:
        print(json.dumps(measured(*json.loads(asked.measure))))
        return
    if asked.table:
        print(*table([row for path in asked.table for row in json.loads(path.read_text())["rows"]]), sep="\n")
        return
    rows: list[dict[str, Any]] = []
    for name in asked.only:
        rows.append({**run(name, asked.share, asked.devices), "load": round(os.getloadavg()[0], 1)})
        print(*table(rows[-1:]), sep="\n", flush=True)
        if asked.json:  # row by row: what was measured stays, whatever ends the rest
            machine = [describe(torch.device(device)) for device in asked.devices]
            held = {"machine": machine, "batch": BATCH, "share": asked.share, "rows": rows}
            write_atomic(asked.json, (json.dumps(held, indent=2) + "\n").encode())


if __name__ == "__main__":
    main()
