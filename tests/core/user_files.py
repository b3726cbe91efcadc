"""Small files of the forms that data sets without a built-in form read: `made(name, folder, patch)` is their place."""

from __future__ import annotations

import io
import json
import math
import os
import random
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

REAL = {
    "clips": "weizmann_sample",
    "finegrained": "sentence_sentiment",
    "imdb-sentences": "imdb_sentences",
    "lpc-sprites": "lpc_sprites",
    "multi30k": "multi30k",
    "notmnist": "notmnist",
    "rtpolarity": "rt_polarity",
    "sentiment3": "",
    "svhn": "svhn",
    "uci": "uci_sentiment",
    "ud": "ud_ewt",
    "yelp": "yelp",
}
"""Data sets of which real files lie in DISTK_DATA, and in which folder."""

ROOT = os.environ.get("DISTK_DATA")
"""As it was before a test took it away."""
Patch = pytest.MonkeyPatch
WORDS = ["good", "bad", "food", "the", "a", "was", "very", "place", "service", "nothing", "café", "don't"]


def pixels(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def picture(path: Path, *shape: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels(*shape)).save(path)


def lines(n: int) -> list[str]:
    draw = random.Random(n)
    return [" ".join(draw.choices(WORDS, k=draw.randint(1, 12))) + f" {i} ." for i in range(n)]


def write(path: Path, rows: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")


# ---------------------------------------------------------------------------------------- pictures


def arrays(folder: Path, _: Patch) -> Path:
    labels = np.arange(40) % 3
    np.savez(folder / "a.npz", images=pixels(40, 8, 6, 3), label=labels)
    return folder / "a.npz"


def table(folder: Path, _: Patch) -> Path:
    write(folder / "a.csv", ["x,y,kind", *(f"{i * 0.5},{i % 7},{'abc'[i % 3]}" for i in range(40))])
    return folder / "a.csv"


def of_folders(folder: Path, _: Patch) -> Path:
    for i in range(40):
        picture(folder / f"person{i % 12}" / f"{i}.png", 20, 16, 3)
    return folder


def saved(folder: Path, _: Patch) -> Path:
    datasets = pytest.importorskip("datasets", reason="the extra hf is not installed: pip install 'distk[hf]'")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
    held = {"image": [Image.fromarray(x) for x in pixels(30, 16, 16, 3)], "label": [i % 2 for i in range(30)]}
    datasets.disable_progress_bars()
    datasets.Dataset.from_dict(held, features=features).save_to_disk(str(folder / "saved"))
    return folder / "saved"


def idx(path: Path, array: np.ndarray) -> None:
    path.write_bytes(bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes())


def mnist(folder: Path, _: Patch, stems: tuple[str, ...] = ("",), shift: int = 0) -> Path:
    for stem in stems:
        for split, n in (("train", 60), ("t10k" if not stem else "test", 20)):
            idx(folder / f"{stem}{split}-images-idx3-ubyte", pixels(n, 28, 28))
            idx(folder / f"{stem}{split}-labels-idx1-ubyte", (np.arange(n) % 10 + shift).astype(np.uint8))
    return folder


def emnist(folder: Path, patch: Patch) -> Path:
    variants = ("balanced", "letters", "digits", "mnist", "byclass", "bymerge")
    return mnist(folder, patch, tuple(f"emnist-{name}-" for name in variants), 1)


def cifar100(folder: Path, _: Patch) -> Path:
    made = folder / "cifar-100-binary"
    made.mkdir()
    for name, n in (("train", 30), ("test", 10)):
        records = pixels(n, 3074)
        records[:, 0], records[:, 1] = np.arange(n) % 20, np.arange(n)
        (made / f"{name}.bin").write_bytes(records.tobytes())
    return folder


def celeba(folder: Path, _: Patch) -> Path:
    names, count = ("Bald", "Eyeglasses", "Male", "Smiling", "Young"), 12
    rows = [f"{i + 1:06}.jpg {' '.join('1' if (i + k) % 2 else '-1' for k in range(len(names)))}" for i in range(count)]
    write(folder / "list_attr_celeba.txt", [str(count), " ".join(names), *rows])
    write(folder / "list_eval_partition.txt", [f"{i + 1:06}.jpg {max(0, i - 9)}" for i in range(count)])
    for i in range(count):
        picture(folder / "img_align_celeba" / f"{i + 1:06}.jpg", 218, 178, 3)
    return folder


def chairs3d(folder: Path, _: Patch) -> Path:
    from distk.plugins.datasets import chairs3d as data

    content = io.BytesIO()
    Image.fromarray(pixels(30, 30, 3)).save(content, "PNG")
    with tarfile.open(folder / "rendered_chairs.tar", "w") as archive:
        for chair in ("a1", "b2", "c3"):
            for e, p in enumerate(data.ELEVATIONS):
                for a, t in enumerate(data.AZIMUTHS):
                    name = f"rendered_chairs/{chair}/renders/image_{e * 32 + a:03}_p{p:03}_t{t:03}_r096.png"
                    member = tarfile.TarInfo(name)
                    member.size = len(content.getvalue())
                    archive.addfile(member, io.BytesIO(content.getvalue()))
    return folder


def cars3d(folder: Path, patch: Patch) -> Path:
    from distk.plugins.datasets import cars3d as data

    patch.setattr(data, "GRID", (4, 24, 3))
    patch.setattr(data.Cars3D, "factor_sizes", (4, 24, 3))
    (folder / "cars").mkdir()
    for k in range(3):
        savemat(folder / "cars" / f"car_{k}_mesh.mat", {"im": pixels(128, 128, 3, 24, 4)})
    return folder


def scream(folder: Path, _: Patch) -> Path:
    picture(folder / "scream.jpg", 120, 90, 3)
    return folder


def rendered(folder: Path, patch: Patch) -> Path:
    from distk.plugins.datasets.nvidia3d import Falcor3D, Isaac3D

    for kind, title, labels in (
        (Falcor3D, "Falcor3D_down128", "train-rec.labels"),
        (Isaac3D, "Isaac3D_down128", "labels.npy"),
    ):
        grid = (2, 2, *[1] * (len(kind.factor_sizes) - 3), 3)
        patch.setattr(kind, "factor_sizes", grid)
        for i in range(math.prod(grid)):
            picture(folder / title / "images" / f"{i:06}.png", 64, 64, 3)
        every = np.array(list(np.ndindex(*grid))) / np.maximum(np.array(grid) - 1, 1)
        with (folder / title / labels).open("wb") as file:
            np.save(file, every)
    return folder


def arm(folder: Path, patch: Patch) -> Path:
    from distk.plugins.datasets import mpi3d

    for variant, whole in mpi3d.GRIDS.items():
        grid = (2, 3, 2, *[1] * (len(whole) - 5), 2, 2)
        patch.setitem(mpi3d.GRIDS, variant, grid)
        np.savez(folder / f"mpi3d_{variant}.npz", images=pixels(math.prod(grid), 64, 64, 3))
    return folder


def toys(folder: Path, patch: Patch) -> Path:
    from distk.plugins.datasets import smallnorb as data

    grid = (5, 4, 2, 3, 2)
    patch.setattr(data, "GRID", grid)
    patch.setattr(data.SmallNorb, "factor_sizes", grid)
    patch.setattr(data, "EACH", math.prod(grid) // 2)
    every = np.array(list(np.ndindex(*grid)))
    for split, instances in (("train", (0, 3)), ("test", (1, 2))):
        mine = every[np.isin(every[:, 1], instances)]
        info = np.column_stack([mine[:, 1], mine[:, 2], 2 * mine[:, 3], mine[:, 4]]).astype("<i4")
        for part, array, magic in (
            ("dat", pixels(len(mine), 2, 96, 96), 0x1E3D4C55),
            ("cat", mine[:, 0].astype("<i4"), 0x1E3D4C54),
            ("info", info, 0x1E3D4C54),
        ):
            sizes = [*array.shape, *[1] * (3 - array.ndim)]
            raw = struct.pack(f"<Ii{len(sizes)}i", magic, array.ndim, *sizes) + array.tobytes()
            (folder / f"{data.STEMS[split]}-{part}.mat").write_bytes(raw)
    return folder


def reid(folder: Path, _: Patch) -> Path:
    identity = np.repeat(np.arange(10), 4)
    np.savez(folder / "reid.npz", imagedata=pixels(40, 12, 6, 3), identity=identity)
    return folder


def observations(folder: Path, _: Patch) -> Path:
    action, pair = pixels(60, 3).astype(np.float32), np.arange(40)
    x, after, y = pixels(60, 8, 6), pixels(60, 8, 6), pixels(40, 8, 6)
    np.savez(folder / "mine.npz", x=x, x_next=after, u=action, y=y, y_pair=pair)
    return folder / "mine.npz"


def frames(folder: Path, _: Patch) -> Path:
    for clip in range(6):
        for frame in range(40):
            picture(folder / f"walk{clip % 2}" / f"clip{clip}" / f"{frame:03}.png", 12, 10, 3)
    return folder


def strips(folder: Path, _: Patch) -> Path:
    for clip in range(6):
        picture(folder / f"walk{clip % 2}" / f"{clip}.png", 12, 40 * 12, 3)
    return folder


# ---------------------------------------------------------------------------------------- sentences


def files(folder: Path, _: Patch) -> Path:
    for split, n in (("train", 60), ("dev", 20), ("test", 20)):
        for label in ("neg", "pos"):
            write(folder / f"{split}.{label}", lines(n))
    return folder


def parallel(folder: Path, _: Patch) -> Path:
    for side in ("en", "de"):
        write(folder / f"train.{side}", lines(60))
    return folder


def text_table(folder: Path, _: Patch) -> Path:
    write(folder / "a.tsv", ["text\tlabel", *(f"{line}\t{'np'[i % 2]}" for i, line in enumerate(lines(60)))])
    return folder / "a.tsv"


def aclimdb(folder: Path, _: Patch) -> Path:
    for split in ("train", "test"):
        for label, stars in (("pos", 9), ("neg", 2), ("unsup", 0)):
            for i, line in enumerate(lines(20)):
                if split == "train" or label != "unsup":
                    write(folder / "aclImdb" / split / label / f"{i}_{stars}.txt", [f"A {label} film. {line}"])
    return folder


def amazonft(folder: Path, _: Patch) -> Path:
    write(folder / "train.ft.txt", [f"__label__{1 + i % 2} {WORDS[i % 7]}: {line}" for i, line in enumerate(lines(80))])
    return folder


def yahoo(folder: Path, _: Patch) -> Path:
    write(folder / "classes.txt", ["Entertainment & Music", "Politics & Government", "Science & Mathematics"])
    rows = [f'"{1 + i % 3}",{json.dumps(line)},"why {i} ?","so {i} ."' for i, line in enumerate(lines(60))]
    for split in ("train", "test"):
        write(folder / f"{split}.csv", rows)
    return folder


def europarl(folder: Path, _: Patch) -> Path:
    for pair in ("de", "fr"):
        for side in ("en", pair):
            write(folder / f"europarl-v7.{pair}-en.{side}", [f"{side if side != 'en' else ''} {s}" for s in lines(400)])
    return folder


MAKERS: dict[str, Callable[[Path, Patch], Path]] = {
    "aclimdb": aclimdb,
    "amazonft": amazonft,
    "arrays": arrays,
    "cars3d": cars3d,
    "celeba": celeba,
    "chairs3d": chairs3d,
    "cifar100": cifar100,
    "dsprites-scream": scream,
    "emnist": emnist,
    "europarl": europarl,
    "falcor3d": rendered,
    "fashion-mnist": mnist,
    "files": files,
    "folder": of_folders,
    "hf": saved,
    "identity-folder": of_folders,
    "isaac3d": rendered,
    "kmnist": mnist,
    "mpi3d": arm,
    "observations": observations,
    "parallel": parallel,
    "reid": reid,
    "smallnorb": toys,
    "table": table,
    "text-table": text_table,
    "video-folder": frames,
    "video-strips": strips,
    "yahoo": yahoo,
}


def made(name: str, folder: Path, patch: Patch) -> Path:
    """What `--data-dir` takes for this data set: real files where there are some, else small ones in `folder`."""
    if name in MAKERS:
        return MAKERS[name](folder, patch)
    if not ROOT or not (Path(ROOT) / REAL[name]).is_dir():
        pytest.skip(f"DISTK_DATA is not set, or has no {REAL[name]}: no real data on this machine")
    return Path(ROOT) / REAL[name]
