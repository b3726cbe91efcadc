"""Clips: frames read per second and memory against the size of the files, and windows sampled per second.

    python benchmarks/video.py [--clips 150] [--threads 1] [--json results/video-cpu.json]

Moving shapes (64x64, 16 to 48 frames a clip) are written in every form that distk reads, and each is read in a process
of its own. "memory" is what that process's resident peak grew by while reading, over the bytes of the frames that it
returns: 1 is the floor, since they are all kept; a decoder's own code and tables come on top. Sampling is held against
its floor in the same run: as many random frames gathered as bytes, and as many float32 written.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from resident import peak

from distk import Files
from distk.video import Clips, Fit, VideoDataset, WindowConfig, read_clips, write_clips

SIDE, SHORTEST, LONGEST = 64, 16, 48
BATCH, WINDOW = 32, 16
SECONDS = 3.0


def moving_shapes(count: int, seed: int = 0) -> Clips:
    """Clips of one coloured disc each, on a straight path over a grey gradient."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(SHORTEST, LONGEST + 1, count)
    y, x = np.mgrid[:SIDE, :SIDE]
    ground = np.repeat((x + y)[None] // 2, 3, 0).astype(np.uint8)
    frames = []
    for length in lengths:
        a, b, colour = rng.uniform(8, SIDE - 8, 2), rng.uniform(8, SIDE - 8, 2), rng.integers(60, 256, 3)
        for t in np.linspace(0, 1, length):
            centre = a + t * (b - a)
            inside = (x - centre[0]) ** 2 + (y - centre[1]) ** 2 < 49
            frames.append(np.where(inside, colour[:, None, None].astype(np.uint8), ground))
    return Clips(np.stack(frames), lengths.tolist())


def write_forms(folder: Path, clips: Clips) -> dict[str, Path]:
    """The clips in every form; form -> file or folder."""
    forms = {"npz": folder / "npz" / "clips.npz", "png": folder / "strips" / "c.png", "gif": folder / "gif" / "c.gif"}
    forms["mp4"] = folder / "mp4" / "c.mp4"
    for path in forms.values():
        path.parent.mkdir()
        write_clips(path, clips, 10)
    frames = folder / "frames"
    for i in range(len(clips)):
        (frames / f"{i}").mkdir(parents=True)
        for t, frame in enumerate(clips[i]):
            Image.fromarray(frame.transpose(1, 2, 0)).save(frames / f"{i}" / f"{t}.png")
    named = {"npz": forms["npz"], "strips": forms["png"].parent, "gif": forms["gif"].parent, "mp4": forms["mp4"].parent}
    return {**named, "frames": frames}


def measure(path: Path, size: int | None) -> dict[str, Any]:
    """Read clips in this process, which has done nothing before; seconds and bytes."""
    resident = peak(reset=True, trim=False)
    began = time.perf_counter()
    found = read_clips(path, Fit(size))
    seconds = time.perf_counter() - began
    grown = peak() - resident
    return {"seconds": seconds, "frames": len(found.frames), "kept": found.frames.nbytes, "peak": grown}


def reading(path: Path, size: int | None) -> dict[str, Any]:
    """Frames per second and memory of reading one form, in a process of its own."""
    command = [sys.executable, __file__, "--read", str(path), *(["--size", str(size)] if size else [])]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    found["file_bytes"] = sum(p.stat().st_size for p in files)
    found["frames_per_second"] = round(found["frames"] / found["seconds"])
    found["memory"] = round(found["peak"] / found["kept"], 2)
    found["unpacked"] = round(found["kept"] / found["file_bytes"], 1)
    return found


def rate(work: Callable[[], Any]) -> float:
    """Calls per second, over `SECONDS`, after one that is not counted."""
    work()
    began, calls = time.perf_counter(), 0
    while time.perf_counter() - began < SECONDS:
        work()
        calls += 1
    return calls / (time.perf_counter() - began)


def sampling(clips: Clips) -> dict[str, Any]:
    """Windows per second from a training split, beside the floor of the same run."""
    data = VideoDataset(replace(WindowConfig(), frames=WINDOW), torch.device("cpu"), Files("clips", None, ""))
    data.hold(clips)
    generator = torch.Generator().manual_seed(0)
    index = torch.randint(len(clips.frames), (BATCH, WINDOW), generator=generator)
    target = torch.empty(BATCH, WINDOW, *clips.frames.shape[1:])

    def floor() -> None:
        target.copy_(data.pixels[index])

    ours, least = (rate(work) for work in (lambda: data.sample(BATCH, generator), floor))
    values = target.numel()
    return {
        "batch": BATCH,
        "frames": WINDOW,
        "windows_per_second": round(ours * BATCH),
        "frames_per_second": round(ours * BATCH * WINDOW),
        "floor_frames_per_second": round(least * BATCH * WINDOW),
        "bytes_per_batch": {"read": values, "gathered": values, "written": 4 * values},
        "share_of_floor": round(ours / least, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=150)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--size", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.read:
        print(json.dumps(measure(arguments.read, arguments.size)))
        return
    torch.set_num_threads(arguments.threads)
    clips = moving_shapes(arguments.clips)
    result: dict[str, Any] = {
        "machine": platform.machine(),
        "threads": arguments.threads,
        "clips": len(clips),
        "frames": len(clips.frames),
        "reading": {},
    }
    with tempfile.TemporaryDirectory(prefix="video-") as name:
        for form, path in write_forms(Path(name), clips).items():
            for size in (None, 32):
                found = reading(path, size)
                result["reading"][form if size is None else f"{form} to {size}x{size}"] = found
                fitted = "as it is" if size is None else f"to {size}"
                print(
                    f"{form:7} {fitted:8} {found['frames_per_second']:>7,} frames/s, "
                    f"{found['file_bytes'] / 1e6:6.1f} MB in files, {found['kept'] / 1e6:6.1f} MB kept, "
                    f"peak {found['memory']:.2f} of it"
                )
    result["sampling"] = sampling(clips)
    print("sampling:", json.dumps(result["sampling"]))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
