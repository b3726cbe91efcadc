"""What it costs that pictures are decoded in a process of its own: processor time of both processes for each picture.

python benchmarks/apart.py [--count 5000] [--json results/apart-cpu.json]
"""

from __future__ import annotations

import argparse
import io
import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
from PIL import Image

from distk import apart
from distk.pictures import Form, Seen, frames_here, read_frames, read_many


def processor() -> float:
    """Seconds that this process and the one that decodes have computed, in user and system mode."""
    spent = sum(os.times()[:2])
    for process in apart._idle:
        fields = Path(f"/proc/{process.held.pid}/stat").read_text().rpartition(")")[2].split()
        spent += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return spent


def measured(count: int, read: Callable[[], None]) -> dict[str, float]:
    """Microseconds for each picture: of the processors, and on the clock."""
    began, spent = time.monotonic(), processor()
    read()
    micro = 1e6 / count
    return {"processor": round((processor() - spent) * micro, 1), "clock": round((time.monotonic() - began) * micro, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    form, seen, count = Form((64, 64)), Seen(), arguments.count
    result: dict[str, object] = {"count": count, "unit": "microseconds a picture"}
    for side in (64, 256):
        made = io.BytesIO()
        values = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
        Image.fromarray(values).save(made, "PNG")
        content = made.getvalue()
        began = time.monotonic()
        list(read_frames(io.BytesIO(content), "it", form, seen))  # starts the process
        result.setdefault("seconds_to_start", round(time.monotonic() - began, 3))

        def here(content: bytes = content) -> None:
            for _ in range(count):
                list(frames_here(content, "it", "", asdict(form), 1))

        def many(content: bytes = content) -> None:
            for _ in read_many(((io.BytesIO(content), "it", 1) for _ in range(count)), form, seen):
                pass

        def single(content: bytes = content) -> None:
            for _ in range(count):
                list(read_frames(io.BytesIO(content), "it", form, seen))

        ways = {"in this process": here, "in the other, sent ahead": many, "in the other, one by one": single}
        result[f"png {side}x{side}"] = {name: measured(count, way) for name, way in ways.items()}
    print(json.dumps(result, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
