"""Clips into files: npz, PNG strips, GIF, and MP4 with the extra `video`."""

from __future__ import annotations

import io
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import GifImagePlugin, Image
from torch import Tensor

from distk.errors import DistkError, UsageError
from distk.files import write_atomic
from distk.video.clips import Clips
from distk.video.movies import av

FPS = 10.0
PALETTE_PIXELS = 1 << 21
"""From so many pixels, evenly spread over all frames, a palette is made."""
QUALITY = 15
"""x264's constant rate factor: 0 loses nothing, 23 is its default."""


def write_clips(path: Path, clips: Tensor | Clips | Sequence[Tensor], fps: float = 0.0) -> list[Path]:
    """Write clips in the form that the file's suffix names; returns the files, in the order of the clips.

    path: `.npz` holds all clips (frames, lengths, and fps, labels and classes where there are any); `.png` (a strip of
    frames side by side), `.gif` and `.mp4` hold one, and several go to `name-0.gif`, `name-1.gif`, ...
    clips: float in [0, 1] or uint8, `[n, t, c, h, w]` or a sequence of `[t, c, h, w]` with 1, 3 or 4 channels (a
    fourth is dropped). fps: frames per second; without it that of `clips`, or 10 in movies.

    What is lost: nothing in npz and PNG but what float to 8 bits rounds away. A GIF has one palette for all its
    frames; up to 256 colours are kept exactly, of more each pixel takes the nearest of 256; its delays are hundredths
    of a second. MP4 is H.264 (4:2:0, so that colours are halved in resolution), and a side of odd length is extended
    by a row of the same pixels. Raises UsageError for another suffix or no frames, DistkError when nothing can be
    written.
    """
    rate = fps or (clips.fps if isinstance(clips, Clips) else 0.0)
    if not 0 <= rate <= 1000:
        raise UsageError(f"{rate:g} frames per second cannot be written; at most 1000 are.")
    suffix = path.suffix.lower()
    if suffix not in (".npz", ".png", ".gif", ".mp4"):
        raise UsageError(f"'{path}': clips are written as .npz, .png, .gif or .mp4.")
    each = [clips[i] for i in range(len(clips))]
    arrays = [as_bytes(clip) for clip in each]
    if not arrays or any(0 in array.shape for array in arrays):
        raise UsageError(f"there are no frames to write to '{path}'.")
    if suffix == ".npz":
        write_atomic(path, _npz(arrays, clips if isinstance(clips, Clips) else None, rate))
        return [path]
    width = len(str(len(arrays) - 1))
    paths = [path.with_name(f"{path.stem}-{i:0{width}}{path.suffix}") for i in range(len(arrays))]
    paths = [path] if len(arrays) == 1 else paths
    for file, array in zip(paths, arrays, strict=True):
        made = (
            strip(array)
            if suffix == ".png"
            else gif(array, rate or FPS)
            if suffix == ".gif"
            else mp4(array, rate or FPS)
        )
        write_atomic(file, made)
    return paths


def as_bytes(clip: Tensor | np.ndarray) -> np.ndarray:
    """A clip `[t, c, h, w]`, float in [0, 1] or uint8 -> uint8 `[t, h, w, 1 or 3]` on the host, rounded to nearest."""
    clip = torch.as_tensor(clip).detach().cpu()
    if clip.dim() != 4 or clip.shape[1] not in (1, 3, 4):
        raise UsageError(f"a clip is [time, 1, 3 or 4 channels, height, width], not {list(clip.shape)}.")
    if clip.dtype != torch.uint8:
        clip = (clip.float().clamp(0, 1) * 255).round().to(torch.uint8)
    return clip[:, :3].permute(0, 2, 3, 1).contiguous().numpy()


def _npz(arrays: list[np.ndarray], clips: Clips | None, fps: float) -> bytes:
    if len({array.shape[1:] for array in arrays}) > 1:
        raise UsageError("clips of several frame sizes cannot go into one npz.")
    members: dict[str, Any] = {"frames": np.concatenate(arrays), "lengths": np.array([len(array) for array in arrays])}
    if fps:
        members["fps"] = np.array(fps)
    if clips is not None and clips.labels:
        members |= {"labels": np.array(clips.labels), "classes": np.array(clips.classes)}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **members)
    return buffer.getvalue()


def strip(clip: np.ndarray) -> bytes:
    """A clip uint8 `[t, h, w, 1 or 3]` -> a PNG with its frames side by side, nothing lost."""
    t, height, width, channels = clip.shape
    sheet = np.ascontiguousarray(clip.transpose(1, 0, 2, 3)).reshape(height, t * width, channels)
    buffer = io.BytesIO()
    Image.fromarray(sheet[..., 0] if channels == 1 else sheet).save(buffer, format="PNG")
    return buffer.getvalue()


# GIF


def palette_of(clip: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A clip uint8 `[t, h, w, 3]` -> its palette uint8 `[256, 3]` and, for each pixel, the nearest entry's number
    uint8 `[t, h, w]`.

    Up to 256 colours are the palette themselves; else it is a median cut of all frames together.
    """
    packed = (clip.astype(np.int32) << np.array((16, 8, 0))).sum(-1)
    colours, place = np.unique(packed, return_inverse=True)
    colours = (colours[:, None] >> np.array((16, 8, 0)) & 255).astype(np.uint8)
    palette = np.zeros((256, 3), np.uint8)
    if len(colours) <= 256:
        palette[: len(colours)] = colours
        return palette, place.reshape(packed.shape).astype(np.uint8)
    cut = _median_cut(clip.reshape(-1, 3))
    palette[: len(cut)] = cut
    wanted, have = torch.from_numpy(colours).float(), torch.from_numpy(cut).float()
    # Whole numbers below 2^24, so float32 is exact.
    near = torch.cat([_distances(part, have).argmin(1) for part in wanted.split(1 << 16)])
    return palette, near.to(torch.uint8).numpy()[place.reshape(packed.shape)]


def _distances(a: Tensor, b: Tensor) -> Tensor:
    return (a * a).sum(1)[:, None] - 2 * a @ b.T + (b * b).sum(1)


def _median_cut(pixels: np.ndarray) -> np.ndarray:
    """256 or fewer colours uint8 `[k, 3]` for pixels `[n, 3]`."""
    some = np.ascontiguousarray(pixels[:: -(-len(pixels) // PALETTE_PIXELS)])
    made = Image.fromarray(some[None]).quantize(256, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    return np.unique(np.frombuffer(bytes(made.getpalette() or ()), np.uint8).reshape(-1, 3), axis=0)


def gif(clip: np.ndarray, fps: float) -> bytes:
    """A clip uint8 `[t, h, w, 1 or 3]` -> an endless GIF with one palette.

    Every frame is kept, also one that equals the frame before (Pillow's own writer merges those).
    """
    clip = np.broadcast_to(clip, (*clip.shape[:3], 3))
    height, width = clip.shape[1:3]
    if max(height, width) > 0xFFFF:
        raise UsageError(f"a GIF has sides of at most 65,535 pixels, not {width}x{height}.")
    palette, numbers = palette_of(clip)
    delay = max(2, round(100 / fps)) * 10  # milliseconds; below 20 viewers fall back to 100
    size = width.to_bytes(2, "little") + height.to_bytes(2, "little")
    parts = [b"GIF89a", size, b"\xf7\0\0", palette.tobytes(), b"\x21\xff\x0bNETSCAPE2.0\x03\x01\0\0\0"]
    for frame in numbers:
        image = Image.fromarray(np.ascontiguousarray(frame), "P")
        parts += GifImagePlugin.getdata(image, duration=delay)
    return b"".join([*parts, b";"])


# MP4


def mp4(clip: np.ndarray, fps: float) -> bytes:
    """A clip uint8 `[t, h, w, 1 or 3]` -> an MP4 in H.264. Raises UsageError without PyAV or without the encoder."""
    package = av("writing MP4", ", or write a .gif")
    clip = np.broadcast_to(clip, (*clip.shape[:3], 3))
    odd = [(0, 0), *((0, side % 2) for side in clip.shape[1:3]), (0, 0)]
    clip = np.pad(clip, odd, mode="edge")
    buffer = io.BytesIO()
    try:
        with package.open(buffer, "w", format="mp4") as container:
            stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1000))
            stream.height, stream.width, stream.pix_fmt = clip.shape[1], clip.shape[2], "yuv420p"
            stream.options = {"crf": str(QUALITY), "preset": "medium"}
            stream.codec_context.thread_count = 1  # the same bytes on every machine
            for frame in clip:
                container.mux(
                    stream.encode(package.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24"))
                )
            container.mux(stream.encode())
    except package.codec.codec.UnknownCodecError:
        raise UsageError("this PyAV has no H.264 encoder: write a .gif instead.") from None
    except package.error.FFmpegError as error:
        raise DistkError(f"the MP4 could not be encoded ({error}): write a .gif instead.") from error
    return buffer.getvalue()
