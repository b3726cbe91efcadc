"""One picture of any kind -> bytes, with a word for everything that was changed on the way. It is decoded in a process
of its own (`apart.py`).

Depths beyond 8 bits are scaled by their range, transparency is laid over a background, EXIF's orientation is applied,
other colour spaces become RGB. `Seen` counts how many pictures each of these befell, `Seen.told` says it.
"""

from __future__ import annotations

import contextlib
import io
import os
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import IO, Any, Literal

import numpy as np
from PIL import Image, ImageColor, ImageOps, UnidentifiedImageError

from distk.apart import Answer, Request, apart, each, only
from distk.console import counted, warn_once
from distk.errors import DistkError, UsageError

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm"})
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
"""Decoders that a file may choose by its content. PIL has others, among them one that starts Ghostscript."""
SERIAL = frozenset({".gif", ".webp", ".tif", ".tiff", ".png"})
"""Kinds of files that may hold several frames."""
LARGEST = 1 << 26
"""Pixels of one picture; more would take hundreds of megabytes to decode."""
LARGEST_OF = {b"GIF8": 1 << 23, b"RIFF": 1 << 25}
"""The same for kinds whose decoders hold a canvas several times before they read a pixel, and a few damaged bytes make
that large: GIF, enough for 3840x2160, and WebP, by how their files begin."""
MOST_FRAMES = 1 << 16
MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
"""PIL's mode by the number of channels."""
GREY = ("1", "L", "LA", "La", "F")
ORIENTATION = 0x0112
DEEP = "pictures with more than 8 bits a channel are scaled to 8 by their range"
Fitting = Literal["crop", "pad", "stretch"]
Source = str | os.PathLike[str] | IO[bytes]


@dataclass(frozen=True)
class Form:
    """What pictures become. size: (height, width). channels: 1 grey, 2 grey and opacity, 3 colour, 4 colour and
    opacity. fit: cut to the shape from the middle, fill up with the background, or stretch. background: a colour.
    average: a pixel is the mean of the rectangle that it covers, instead of Lanczos' filter. crop: side of a square
    that is cut from the middle before anything else; 0 cuts nothing."""

    size: tuple[int, int]
    channels: int = 3
    fit: Fitting = "crop"
    background: tuple[int, int, int] = (255, 255, 255)
    average: bool = False
    crop: int = 0


class Seen(Counter[str]):
    """How many pictures each change befell."""

    def told(self, form: Form) -> list[str]:
        """A sentence for each kind of change."""
        height, width = form.size
        how = {"crop": "cut to the middle and resized", "pad": "filled up and resized", "stretch": "stretched"}
        words = {
            "sized": f"{how[form.fit]} to {height}x{width}",
            "deep": "with more than 8 bits a channel scaled to 8 by their range",
            "transparent": f"with transparency laid over the background #{bytes(form.background).hex()}",
            "turned": "turned upright as their EXIF data say",
            "space": "of another colour space turned into RGB",
            "greyed": "in colour turned grey (--channels 3 keeps it)",
            "coloured": "in grey turned into colour, three equal channels (--channels 1 keeps them grey)",
            "opaque": "without transparency made opaque",
            "several": "read as the first of several frames of a file",
        }
        return [f"{counted(self[key], 'picture')} {text}" for key, text in words.items() if self[key]]


def colour(text: str) -> tuple[int, int, int]:
    """A colour by name, as `white`, or `#rrggbb`. Raises UsageError for another word."""
    try:
        return ImageColor.getrgb(text)[:3]
    except ValueError:
        raise UsageError(f"--background '{text}' is no colour: write a name such as white, or #rrggbb.") from None


@contextlib.contextmanager
def open_picture(source: Source, where: str, formats: tuple[str, ...] = FORMATS) -> Iterator[Image.Image]:
    """A PIL image of which only the header was read, in this process. where: its name, for messages.

    Raises DistkError naming it for an enormous picture, and for whatever the decoders raise over a damaged file.
    """
    most = LARGEST
    try:
        most = LARGEST_OF.get(_beginning(source), LARGEST)
        with _canvas_at_most(most), Image.open(source, formats=formats) as image:
            if not image.width * image.height:
                raise DistkError(f"'{where}' has {image.width}x{image.height} pixels.")
            yield image
    except Image.DecompressionBombError as error:
        raise DistkError(
            f"'{where}' claims to be an enormous image, which is refused: at most {counted(most, 'pixel')} are read."
        ) from error
    except UnidentifiedImageError as error:
        kinds = ", ".join(formats)
        raise DistkError(f"'{where}' cannot be read as an image: it is none of {kinds}.") from error
    except DistkError:
        raise
    except Exception as error:  # the decoders of damaged files raise whatever they trip over
        reason = " ".join(str(error).split())[:200]
        raise DistkError(f"'{where}' cannot be read as an image: {reason or type(error).__name__}.") from error


def _beginning(source: Source) -> bytes:
    """The first four bytes."""
    if isinstance(source, (str, os.PathLike)):
        with open(source, "rb") as file:
            return file.read(4)
    begin = source.read(4)
    source.seek(0)
    return begin


@contextlib.contextmanager
def _canvas_at_most(pixels: int) -> Iterator[None]:
    """Let PIL refuse a picture, or a frame that makes it larger than this, before it takes the memory."""
    before = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = pixels // 2  # it warns above this, and raises above twice as many
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def frames_of(source: Source, where: str) -> int:
    """How many frames a file holds, at least one. Raises DistkError as `open_picture`, and for too many."""
    content, path = _given(source)
    return int(only("distk.pictures:count_here", where, content, path=path)[0]["frames"])


def read_frames(source: Source, where: str, form: Form, seen: Seen, most: int = 1) -> Iterator[np.ndarray]:
    """The first `most` frames of a file, each uint8 `[channels, height, width]`; counts in `seen` what was changed.

    Raises DistkError naming the file, for one that is damaged and for depths whose range nobody knows.
    """
    content, path = _given(source)
    asked = {"path": path, "form": asdict(form), "most": most}
    for told, (picture,) in apart("distk.pictures:frames_here", where, content, **asked):
        seen.update({str(key): int(n) for key, n in told["seen"].items()})
        yield picture


def read_many(files: Iterable[tuple[Source, str, int]], form: Form, seen: Seen) -> Iterator[tuple[int, np.ndarray]]:
    """`read_frames` of many files, (source, name, most frames) each, sent ahead: (number of the file, frame)."""

    def requests() -> Iterator[Request]:
        for source, where, most in files:
            content, path = _given(source)
            yield where, content, {"path": path, "form": asdict(form), "most": most}

    for k, told, (picture,) in each("distk.pictures:frames_here", requests()):
        seen.update({str(key): int(n) for key, n in told["seen"].items()})
        yield k, picture


def plain(
    files: Iterable[tuple[Source, str]], mode: str, formats: tuple[str, ...] = FORMATS, side: int = 1 << 13
) -> Iterator[np.ndarray]:
    """Pictures as they are, (source, name) each: uint8 `[height, width]` for mode L, `[height, width, 3 or 4]` for RGB
    and RGBA.

    formats: decoders that they may choose. side: pixels of a longer side that are read. Raises as `open_picture`.
    """

    def requests() -> Iterator[Request]:
        for source, where in files:
            content, path = _given(source)
            yield where, content, {"path": path, "mode": mode, "formats": formats, "side": side}

    for _, _, (picture,) in each("distk.pictures:plain_here", requests()):
        yield picture


def _given(source: Source) -> tuple[bytes, str]:
    """What the process that decodes gets: the bytes of an open file, or the path of one."""
    if isinstance(source, (str, os.PathLike)):
        return b"", os.fsdecode(source)
    source.seek(0)
    return source.read(), ""


# The same in this process: what `apart` calls in the other one


def count_here(content: bytes, where: str, path: str) -> Iterator[Answer]:
    """The number of frames, for `frames_of`."""
    with open_picture(path or io.BytesIO(content), where) as image:
        frames = int(getattr(image, "n_frames", 1))
        if frames > MOST_FRAMES:
            raise DistkError(f"'{where}' has {counted(frames, 'frame')}; at most {MOST_FRAMES:,} are read.")
        yield {"frames": frames}, []


def frames_here(content: bytes, where: str, path: str, form: dict[str, Any], most: int) -> Iterator[Answer]:
    """The frames one by one, for `read_frames`."""
    wanted = Form(**{**form, "size": tuple(form["size"]), "background": tuple(form["background"])})
    with open_picture(path or io.BytesIO(content), where) as image:
        several = int(getattr(image, "n_frames", 1)) > most
        for i in range(most):
            if i:
                image.seek(i)
            seen = Seen({"several": int(several and not i)})
            picture = pixels(image, where, wanted, seen)
            yield {"seen": seen}, [picture]


def plain_here(content: bytes, where: str, path: str, mode: str, formats: Sequence[str], side: int) -> Iterator[Answer]:
    """The picture, for `plain`."""
    with open_picture(path or io.BytesIO(content), where, tuple(formats)) as image:
        if max(image.size) > side:
            raise DistkError(f"'{where}' has {image.width}x{image.height} pixels; at most {side:,} a side are read.")
        if is_deep(image):
            warn_once(DEEP)
        yield {}, [np.asarray(in_bytes(image, where).convert(mode))]


def pixels(image: Image.Image, where: str, form: Form, seen: Seen) -> np.ndarray:
    """A PIL image -> uint8 `[channels, height, width]`."""
    seen["deep"] += is_deep(image)
    plain = in_bytes(image, where)
    if image.getexif().get(ORIENTATION, 1) in range(2, 9):
        seen["turned"] += 1
        plain = _upright(plain, image.getexif()[ORIENTATION])
    plain = _in_mode(_cut(plain, form.crop, where) if form.crop else plain, form, seen)
    ready = _sized(plain, form)
    seen["sized"] += ready is not plain
    array = np.asarray(ready)
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)


def _cut(image: Image.Image, side: int, where: str) -> Image.Image:
    """The square in the middle of a picture."""
    if min(image.size) < side:
        raise DistkError(f"'{where}' has {image.width}x{image.height} pixels, from which no {side} can be cut.")
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    """As EXIF's orientation 2 to 8 says."""
    turn = Image.Transpose
    ways = (
        *(turn.FLIP_LEFT_RIGHT, turn.ROTATE_180, turn.FLIP_TOP_BOTTOM),
        *(turn.TRANSPOSE, turn.ROTATE_270, turn.TRANSVERSE, turn.ROTATE_90),
    )
    return image.transpose(ways[orientation - 2])


def is_deep(image: Image.Image) -> bool:
    """Whether a picture, before its pixels are asked for, has more than 8 bits a channel."""
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        return True
    # Pillow itself takes the upper byte of colours with 16 bits, when the pixels are asked for.
    return any(";16" in str(tile[3]) for tile in getattr(image, "tile", ()))


def in_bytes(image: Image.Image, where: str) -> Image.Image:
    """The same picture with at most 8 bits a channel, scaled by its range. Raises DistkError, naming the picture, where
    nobody states a range."""
    mode = image.mode
    if mode not in ("I", "F") and not mode.startswith("I;"):
        return image
    values = np.asarray(image)
    if mode == "F":
        low, high = float(values.min()), float(values.max())
        if not (low >= 0 and high <= 1):
            raise DistkError(
                f"'{where}' holds floats from {low:g} to {high:g}, whose range nobody states: scale them to 0 to 1, or "
                "use --data arrays."
            )
        scaled = np.rint(values * 255)
    else:
        # Pillow gives PNG and PGM of 16 bits as 32-bit integers in some versions; TIFF has real ones.
        low, high = int(values.min()), int(values.max())
        if low < 0 or high > 65535:
            raise DistkError(
                f"'{where}' holds whole numbers from {low} to {high}; at most 16 bits are read: scale them, or "
                "use --data arrays."
            )
        scaled = (values.astype(np.int64) + 128) // 257  # 65535 = 257 * 255, rounded to nearest
    return Image.fromarray(scaled.astype(np.uint8))


def _in_mode(image: Image.Image, form: Form, seen: Seen) -> Image.Image:
    """The same picture with the channels of the form."""
    clear = image.has_transparency_data
    grey = image.mode in GREY or (image.mode in ("P", "PA") and _grey_palette(image))
    if image.mode in ("CMYK", "YCbCr", "LAB", "HSV"):
        seen["space"] += 1
    if image.mode not in ("L", "RGB", "LA", "RGBA") or clear:
        image = image.convert("RGBA" if clear else "L" if image.mode == "1" else "RGB")
    if clear and form.channels in (1, 3):
        if np.asarray(image.getchannel("A")).min() < 255:
            seen["transparent"] += 1
            grey = grey and len(set(form.background)) == 1
        image = Image.alpha_composite(Image.new("RGBA", image.size, (*form.background, 255)), image).convert("RGB")
    if not clear and form.channels in (2, 4):
        seen["opaque"] += 1
    if grey != (form.channels < 3):
        seen["coloured" if grey else "greyed"] += 1
    wanted = MODES[form.channels]
    return image if image.mode == wanted else image.convert(wanted)


def _grey_palette(image: Image.Image) -> bool:
    """Whether all colours of a palette are grey."""
    flat = np.asarray(image.getpalette("RGB") or [0, 0, 0], np.uint8).reshape(-1, 3)
    return bool((flat == flat[:, :1]).all())


def _sized(image: Image.Image, form: Form) -> Image.Image:
    height, width = form.size
    if image.size == (width, height):
        return image
    how = Image.Resampling.BOX if form.average else Image.Resampling.LANCZOS
    if form.fit == "crop":
        return ImageOps.fit(image, (width, height), how)
    if form.fit == "stretch":
        return image.resize((width, height), how)
    return ImageOps.pad(image, (width, height), how, color=_filling(image.mode, form))


def _filling(mode: str, form: Form) -> Any:
    """The background in a mode; where there is opacity, nothing."""
    red, green, blue = form.background
    grey = round(0.299 * red + 0.587 * green + 0.114 * blue)
    return {"L": grey, "LA": (grey, 0), "RGB": form.background, "RGBA": (*form.background, 0)}[mode]
