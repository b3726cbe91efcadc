"""Methods for sentences: the trainer's step against a bare loop, and symbols per second against the length.

    python benchmarks/text.py [--device cuda] [--methods arae,attrtransfer] [--lengths 5,10,20,40] [--json FILE]

Sentences of one length of words drawn evenly from a vocabulary of 1,000, as files; for nlmultitask five times as many
characters, with a second language and tags. Rounds alternate A B A B; the overhead is the median of the pairwise
ratios; on CUDA both are captured as graphs. The bare loop has the same batches, losses, clipping and optimizers,
without trainer, logging and checks. `growth` is the exponent with which the time of a step grows with the length.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch
from timing import bare_loop, graphed, seconds

from distk.device import Ranks, choose_device, describe
from distk.settings import resolve
from distk.training.beginning import build

SIZES: dict[str, dict[str, Any]] = {
    "arae": {"embedding": 64, "hidden": 128, "z": 16},
    "crossaligned": {"embedding": 64, "style": 16, "content": 112, "filters": 32, "dropout": 0.0},
    "attrtransfer": {"embedding": 64, "hidden": 128, "filters": 32, "warmup": 0, "ramp": 0},
    "mmdtraverse": {"embedding": 64, "filters": 32, "phase1": 0, "filter_words": []},
    "nlmultitask": {"embedding": 32, "hidden": 128, "rep": 64, "decoders": "rep,de,pos"},
}
CHARACTERS = {"nlmultitask": 5}
"""Methods that read characters -> characters for each word."""


def corpus(folder: Path, length: int, sentences: int = 2000) -> Path:
    """Files of two labels whose sentences have one length."""
    rng = random.Random(length)
    for split, n in (("train", sentences), ("dev", 64), ("test", 64)):
        for label in range(2):
            lines = (" ".join(f"w{rng.randrange(1000)}" for _ in range(length)) for _ in range(n))
            (folder / f"{split}.{label}").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def parallel_corpus(folder: Path, length: int, sentences: int = 4000) -> Path:
    """Files of two languages of sentences of one number of characters, and a tag for every five of them."""
    rng = random.Random(length)
    symbols = {"en": ("abcdefghijklmnopqrstuvwxyz", "", length), "de": ("abcdefghijklmnopqrstuvwxyzäöüß", "", length)}
    tags = {"pos": ([f"T{i}" for i in range(20)], " ", max(1, length // 5))}
    for split, n in (("train", sentences), ("dev", 64), ("test", 64)):
        for name, (alphabet, between, size) in {**symbols, **tags}.items():
            space = {i for i in range(4, size - 1, 5) if not between}
            lines = (between.join(" " if i in space else rng.choice(alphabet) for i in range(size)) for _ in range(n))
            (folder / f"{split}.{name}").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def settings_of(method: str, length: int, folder: str) -> dict[str, Any]:
    """The data section for sentences of `length` symbols."""
    if method in CHARACTERS:
        return {"name": "parallel", "dir": str(parallel_corpus(Path(folder), length)), "max_len": length}
    return {"name": "files", "dir": str(corpus(Path(folder), length)), "max_len": length, "tagger": "builtin"}


def measured(method: str, length: int, device: torch.device, rounds: int, steps: int, batch: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        data = settings_of(method, length, folder)
        train = {"device": str(device), "log_every": 10**9, "batch": batch}
        settings = resolve(method, options={"model": SIZES[method], "data": data, "train": train})
        ours, other = build(settings, device, Ranks()), build(settings, device, Ranks())
    bare = graphed(bare_loop(other), other)
    seconds(ours.step, 5, device), seconds(bare, 2, device)
    pairs = [(seconds(ours.step, steps, device), seconds(bare, steps, device)) for _ in range(rounds)]
    ms = 1000 * statistics.median(a for a, _ in pairs) / steps
    ratio = [a / b for a, b in pairs]
    return {
        "ms": ms,
        f"{unit_of(method)}_per_second": 1000 * batch * length / ms,
        "overhead": statistics.median(ratio) - 1,
        "least": min(ratio) - 1,
        "most": max(ratio) - 1,
    }


def unit_of(method: str) -> str:
    """What a symbol of its sentences is."""
    return "characters" if method in CHARACTERS else "words"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--methods", default=",".join(SIZES))
    parser.add_argument("--lengths", default="5,10,20,40")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    device = choose_device(given.device)
    lengths = [int(part) for part in given.lengths.split(",")]
    result: dict[str, Any] = {"device": describe(device), "torch": torch.__version__, "batch": given.batch}
    for method in given.methods.split(","):
        unit, own = unit_of(method), [CHARACTERS.get(method, 1) * n for n in lengths]
        rows = {n: measured(method, n, device, given.rounds, given.steps, given.batch) for n in own}
        growth = math.log(rows[own[-1]]["ms"] / rows[own[0]]["ms"]) / math.log(own[-1] / own[0])
        result[method] = {"growth": growth, "lengths": rows}
        for n, row in rows.items():
            speed = f"{row['ms']:8.1f} ms {row[f'{unit}_per_second']:9.0f} {unit}/s {row['overhead']:+.1%}"
            print(f"{method:13} {n:3} {unit} {speed}")
        print(f"{method:13} time grows with length to the power of {growth:.2f}")
    if given.json:
        given.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
