"""Reading text: sentences per second and memory against the size of the files; and what a batch costs.

    python benchmarks/corpora.py --data-dir DIR [--json results/corpora-cpu.json]

DIR holds multi30k/, yelp/, ud_pud/ and rt_polarity/, those that it has are read. Every corpus is opened in a process of
its own. The floor is the same text split and counted by `collections.Counter` alone; memory is what the process grew
by at its highest, beside the bytes that the corpus keeps on the device and the bytes of the (unpacked) files.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from distk.data import open_dataset
from distk.device import seeded
from distk.plugins.text.common.columns import Column
from distk.plugins.text.common.files import read_bytes
from distk.registry import registry

CORPORA: dict[str, tuple[str, dict[str, Any]]] = {
    "multi30k": ("multi30k", {}),
    "yelp": ("yelp", {}),
    "ud_pud": ("ud", {"max_len": 500, "max_target": 500}),
    "rt_polarity": ("rtpolarity", {"max_len": 60}),
}
BATCHES, ROWS = 200, 128


def peak() -> int:
    """Largest resident memory of this process so far, bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure(name: str, folder: Path) -> dict[str, Any]:
    """Open a corpus and draw from it; times in seconds of one processor, memory in bytes."""
    torch.set_num_threads(1)
    kind, options = CORPORA[name]
    paths = [path for path in sorted(folder.iterdir()) if path.is_file()]
    size = sum(len(read_bytes(path)) for path in paths)
    registry().find("dataset", kind).load()  # what importing costs is not asked here
    before, began = peak(), time.process_time()
    data = open_dataset(kind, options, folder=folder)
    opened, grown = time.process_time() - began, peak() - before
    columns = [data.text, *(held for held in data.columns.values() if isinstance(held, Column))]
    kept = sum(t.numel() * t.element_size() for c in columns for t in (c.tokens, c.offset))
    symbols = sum(len(c.tokens) for c in columns)
    generator = seeded(0, torch.device("cpu"))
    began = time.process_time()
    for step in range(BATCHES):
        data.sample(ROWS, generator, bucket=data.bucket(step, 0))
    drawn = time.process_time() - began
    lines = [line for column in ("x", *data.columns) for line in data.lines(torch.arange(len(data)), column)]
    began = time.process_time()
    count: Counter[str] = Counter()
    for line in lines:
        count.update(data.vocab.words(line))
    floor = time.process_time() - began
    return {
        "sentences": len(data),
        "symbols": symbols,
        "seconds": round(opened, 2),
        "sentences_per_second": round(len(data) / opened),
        "symbols_per_second": round(symbols / opened),
        "floor_seconds": round(floor, 2),
        "file_bytes": size,
        "grown_bytes": grown,
        "kept_bytes": kept,
        "grown_per_file_byte": round(grown / size, 2),
        "kept_per_file_byte": round(kept / size, 2),
        "sampled_sentences_per_second": round(BATCHES * ROWS / drawn),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    result: dict[str, Any] = {"batch": ROWS, "torch": str(torch.__version__), "corpora": {}}
    for name in CORPORA:
        if not (arguments.data_dir / name).is_dir():
            print(f"{name}: not in {arguments.data_dir}", flush=True)
            continue
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            found = result["corpora"][name] = pool.apply(measure, (name, arguments.data_dir / name))
        print(f"{name}: " + ", ".join(f"{key} {value:,}" for key, value in found.items()), flush=True)
        if arguments.json:
            arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
