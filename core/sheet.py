"""Grids of pictures with words: a title, names of columns and rows, a caption below each picture; PNG, SVG or PDF.

Words are as large as they must be to be read when the sheet is as wide as a column of a paper.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont
from PIL.Image import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from distk import look
from distk.console import clean
from distk.files import write_atomic
from distk.images import PAD, grid, to_pil
from distk.study.tables import as_figure

SMALLEST, LARGEST = 10, 64
"""Pixels of the words."""
NARROWEST = 360
"""Pixels of the pictures of a row, at least, where there are words beside them."""
SHARE = look.POINTS / 72 / look.COLUMN
"""Height of a word as a share of the sheet's width."""
PLACE = "distk grid"
"""Text of a PNG that says where its pictures begin, from left and top, and how often each pixel is repeated."""
INK = (0, 0, 0)
LONGEST = 40
"""Letters of a name."""


@dataclass(frozen=True)
class _Word:
    """x, y: pixels. anchor: as Pillow has it. turned: read from below."""

    x: float
    y: float
    text: str
    anchor: str
    turned: bool = False


class Sheet:
    """A grid of images `[n, c, h, w]` in [0, 1], row by row, with `columns` in each row.

    rows, heads: names of rows and of columns. captions: one for each image, "" for none. title: above all.
    """

    def __init__(
        self,
        images: Tensor,
        columns: int,
        *,
        rows: Sequence[str] = (),
        heads: Sequence[str] = (),
        captions: Sequence[str] = (),
        title: str = "",
        factor: int = 0,
    ) -> None:
        self.images, self.columns = images, max(1, columns)
        worded = bool(title) or any([*rows, *heads, *captions])  # words need pixels; a bare grid stays as it is
        self.factor = factor or (-(-NARROWEST // (self.columns * images.shape[-1])) if worded else 1)
        self.pad = PAD * self.factor
        self.rows, self.heads, self.captions = ([_short(t) for t in texts] for texts in (rows, heads, captions))
        self.title = clean(title)
        self.height, self.width = (self.factor * side for side in images.shape[-2:])
        self._lay_out()

    def _lay_out(self) -> None:
        """Sizes of the margins in pixels, and of the words, which depend on each other."""
        across = self.columns * (self.width + self.pad) + self.pad
        size = float(SMALLEST)
        for _ in range(4):
            self.size = int(min(max(size, SMALLEST), LARGEST, max(SMALLEST, 0.5 * self.height)))
            font = self._font()
            self.left = max((font.getlength(t) for t in self.rows), default=-10.0) + 10
            size = SHARE * (self.left + across)
        line = round(1.35 * self.size)
        wide = max((font.getlength(t) for t in self.heads), default=0.0)
        self.turned = wide > self.width + self.pad - 2
        self.lines = textwrap.wrap(self.title, max(12, int((self.left + across) / (0.52 * self.size))))
        self.head = len(self.lines) * line + ((wide + 8 if self.turned else line) if self.heads else 0)
        self.under = line if any(self.captions) else 0
        count = -(-len(self.images) // self.columns)
        self.whole = (
            round(self.left + across),
            round(self.head + count * (self.height + self.pad + self.under) + self.pad),
        )
        self.line = line

    def _font(self) -> Any:
        return ImageFont.load_default(size=self.size)

    def _words(self) -> list[_Word]:
        found = [_Word(4, (i + 0.5) * self.line, text, "lm") for i, text in enumerate(self.lines)]
        step, right = self.height + self.pad + self.under, self.left + self.pad
        for j, text in enumerate(self.heads[: self.columns]):
            middle = right + j * (self.width + self.pad) + self.width / 2
            if self.turned:
                found.append(_Word(middle, self.head - 4, text, "lm", True))
            else:
                found.append(_Word(middle, self.head - 0.5 * self.line, text, "mm"))
        for i, text in enumerate(self.rows):
            found.append(_Word(self.left - 5, self.head + self.pad + i * step + self.height / 2, text, "rm"))
        for k, text in enumerate(self.captions if self.under else ()):
            i, j = divmod(k, self.columns)
            middle = right + j * (self.width + self.pad) + self.width / 2
            found.append(_Word(middle, self.head + self.pad + i * step + self.height + 0.5 * self.under, text, "mm"))
        return found

    def _pictures(self) -> Image:
        """The sheet without its words."""
        sheet = Pillow.new("RGB", self.whole, (255, 255, 255))
        step, place = self.height + self.pad + self.under, round(self.left)
        for i, row in enumerate(self.images.split(self.columns)):
            filled = torch.cat([row, row.new_zeros(self.columns - len(row), *row.shape[1:])])
            strip = to_pil(grid(filled, self.columns))
            strip = strip.resize((strip.width * self.factor, strip.height * self.factor), Pillow.Resampling.NEAREST)
            if len(row) < self.columns:  # what is not there is white
                strip.paste(
                    (255, 255, 255), (self.pad + len(row) * (self.width + self.pad), 0, strip.width, strip.height)
                )
            sheet.paste(strip, (place, round(self.head) + i * step))
        return sheet

    def picture(self) -> Image:
        """The sheet as an image in RGB."""
        sheet, font = self._pictures(), self._font()
        draw = ImageDraw.Draw(sheet)
        for word in self._words():
            if word.turned:
                label = Pillow.new("L", (round(font.getlength(word.text)) + 4, self.line), 0)
                ImageDraw.Draw(label).text((1, self.line / 2), word.text, fill=255, font=font, anchor="lm")
                label = label.rotate(90, expand=True)
                at = (round(word.x - label.width / 2), round(word.y - label.height))
                sheet.paste(INK, (*at, at[0] + label.width, at[1] + label.height), label)
            else:
                draw.text((word.x, word.y), word.text, fill=INK, font=font, anchor=word.anchor)
        return sheet

    def figure(self) -> Any:
        """The sheet as a figure of matplotlib, whose words stay words; as wide as its words need to be of 7 points."""
        from matplotlib.figure import Figure

        inch = self.size * 72 / look.POINTS  # pixels in an inch
        width, height = self.whole
        figure = Figure(figsize=(width / inch, height / inch), dpi=inch)
        axis = figure.add_axes((0, 0, 1, 1))
        axis.set_axis_off()
        axis.imshow(self._pictures(), extent=(0, width, height, 0), interpolation="none", aspect="auto")
        axis.set(xlim=(0, width), ylim=(height, 0))
        for word in self._words():
            across = {"l": "left", "m": "center", "r": "right"}[word.anchor[0]]
            turn = {"rotation": 90, "ha": "center", "va": "bottom"} if word.turned else {"ha": across, "va": "center"}
            axis.text(word.x, word.y, word.text, fontsize=look.POINTS, parse_math=False, **turn)
        _fit(figure, axis.texts)
        return figure

    def write(self, path: Path) -> Path:
        """Write the sheet in the form of the suffix, atomically; `--dpi` makes a PNG so large that it has them when it
        is as wide as a column. The path. Raises DistkError when it cannot be written."""
        if path.suffix.lower() in (".svg", ".pdf"):
            write_atomic(path, as_figure(self.figure(), path.suffix))
            return path
        held, dpi = io.BytesIO(), look.chosen().dpi
        sheet = self if dpi is None else self._wide(round(look.COLUMN * dpi))
        made, told = sheet.picture(), PngInfo()
        told.add_text(PLACE, " ".join(map(str, (round(sheet.left), round(sheet.head), sheet.factor))))
        made.save(held, format="PNG", pnginfo=told, **({} if dpi is None else {"dpi": (made.width / look.COLUMN,) * 2}))
        write_atomic(path, held.getvalue())
        return path

    def _wide(self, pixels: int) -> Sheet:
        """The same sheet, drawn anew so that words are sharp, at least so wide."""
        if self.whole[0] >= pixels:
            return self
        return Sheet(
            self.images,
            self.columns,
            rows=self.rows,
            heads=self.heads,
            captions=self.captions,
            title=self.title,
            factor=self.factor * -(-pixels // self.whole[0]),
        )


def _fit(figure: Any, words: Sequence[Any]) -> None:
    """Make all words of a figure smaller by one factor where one of them would be cut: its letters are wider than those
    that the margins were laid out for."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    renderer, (width, height) = FigureCanvasAgg(figure).get_renderer(), figure.bbox.size
    shares = [1.0]
    for word in words:
        box = word.get_window_extent(renderer)
        sides = 2 if word.get_ha() == "center" and not word.get_rotation() else 1
        across = sides * max(-box.x0, box.x1 - width, 0.0) / max(box.width, 1.0)
        along = max(box.y1 - height, -box.y0, 0.0) / max(box.height, 1.0)
        shares.append(1 - max(across, along) - (0.01 if across or along else 0.0))
    for word in words:
        word.set_fontsize(look.POINTS * max(min(shares), 0.5))


def bare(path: Path) -> Image:
    """The pictures of a sheet's PNG without words and margins, pixel for pixel as `images.grid` lays them out; of one
    with captions, these stay between the rows. A PNG that is no sheet is given as it is."""
    with Pillow.open(path, formats=("PNG",)) as held:
        picture = held.convert("RGB")
        place = str(held.info.get(PLACE, "")).split()
    if len(place) != 3 or not all(word.isdigit() for word in place) or place[2] == "0":
        return picture
    left, top, factor = map(int, place)
    cut = picture.crop((left, top, picture.width, picture.height))
    return cut.resize((cut.width // factor, cut.height // factor), Pillow.Resampling.NEAREST)


def _short(text: str) -> str:
    text = clean(str(text)).replace("\n", " ")
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
