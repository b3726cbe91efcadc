"""Drawings of scores: Hinton diagrams, heat maps and bars, as PNG, SVG and lines for a terminal.

A drawing is a list of boxes and words. PNG boxes cover pixels by their exact share of them, so that areas are right
to a fraction of a pixel.
"""

from __future__ import annotations

import html
import io
import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from distk import look
from distk.console import clean, counted
from distk.study.tables import as_figure

Colour = tuple[int, int, int]
WHITE, BLACK, GREY, PALE, INK, BAR = (255,) * 3, (0,) * 3, (128,) * 3, (225,) * 3, (40,) * 3, (70, 110, 160)
SIZE, PAD, LONGEST = 12, 10, 28
"""Pixels of a word's height and around a drawing, letters of the longest name."""
SHARP = 2.0
"""Pixels of a PNG for each of the drawing's, so that words are sharp at the size of a column."""
NARROW = SIZE * 72 / look.POINTS * look.COLUMN
"""Width of a drawing whose words have 7 points at the size of a column."""
LARGEST = 400
"""A matrix with more rows or columns is not drawn: names and squares would be too small to see."""
SCALE = np.array([(68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37)], dtype=float)
"""Dark to light, in equal steps of lightness."""
UNITS = {"mutual_information": "nats", "mi": "nats", "factor_entropy": "nats"}
"""Units of what metrics draw, by the key of the result; scores are shares."""
BLOCKS = " ▁▂▃▄▅▆▇█"
"""Eighths of a character cell."""


@dataclass
class Word:
    """A line of text at x, y (pixels from the top left); it starts, centres or ends there, or rises from there."""

    x: float
    y: float
    text: str
    place: Literal["start", "middle", "end", "up"] = "start"
    colour: Colour = INK


@dataclass
class Drawing:
    """Boxes (x, y, width, height, colour; in pixels, any fraction) under words, on a white sheet."""

    width: float = 0
    height: float = 0
    boxes: list[tuple[float, float, float, float, Colour]] = field(default_factory=list)
    words: list[Word] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)

    def box(self, x: float, y: float, width: float, height: float, colour: Colour) -> None:
        """Add a box."""
        self.boxes.append((x, y, width, height, colour))

    def word(self, *arguments: Any) -> None:
        """Add a Word."""
        self.words.append(Word(*arguments))

    @property
    def scale(self) -> float:
        """Pixels of a PNG for each of the drawing's: enough for `--dpi` where the drawing is as wide as a column."""
        dpi = look.chosen().dpi
        return max(SHARP, look.COLUMN * dpi / self.width) if dpi is not None else SHARP

    def png(self) -> bytes:
        """The drawing as the contents of a PNG file."""
        scale = self.scale
        sheet = np.full((math.ceil(scale * self.height), math.ceil(scale * self.width), 3), 255.0)
        for box in self.boxes:
            x, y, width, height = (scale * side for side in box[:4])
            cover = _cover(y, height, sheet.shape[0])[:, None] * _cover(x, width, sheet.shape[1])
            sheet += cover[:, :, None] * (np.array(box[4]) - sheet)
        image = Image.fromarray(sheet.round().astype(np.uint8))
        draw, font = ImageDraw.Draw(image), ImageFont.load_default(size=round(scale * SIZE))
        anchors = {"start": "lm", "middle": "mm", "end": "rm"}
        for word in self.words:
            x, y = scale * word.x, scale * word.y
            if word.place == "up":
                high = round(scale * (SIZE + 6))
                label = Image.new("L", (math.ceil(font.getlength(word.text)) + 2, high), 0)
                ImageDraw.Draw(label).text((1, high / 2), word.text, fill=255, font=font, anchor="lm")
                label = label.rotate(90, expand=True)
                at = (round(x - label.width / 2), round(y - label.height))
                image.paste(word.colour, (*at, at[0] + label.width, at[1] + label.height), label)
            else:
                draw.text((x, y), word.text, fill=word.colour, font=font, anchor=anchors[word.place])
        buffer = io.BytesIO()
        image.save(buffer, format="PNG", dpi=(image.width / look.COLUMN,) * 2)
        return buffer.getvalue()

    def pdf(self) -> bytes:
        """The drawing as the contents of a PDF file, as wide as its words need to be of 7 points."""
        from matplotlib.collections import PatchCollection
        from matplotlib.figure import Figure
        from matplotlib.patches import Rectangle

        inch = SIZE * 72 / look.POINTS
        figure = Figure(figsize=(self.width / inch, self.height / inch))
        axis = figure.add_axes((0, 0, 1, 1))
        axis.set_axis_off()
        axis.set(xlim=(0, self.width), ylim=(self.height, 0))
        boxes = [Rectangle((x, y), width, height) for x, y, width, height, _ in self.boxes]
        colours = [tuple(part / 255 for part in box[4]) for box in self.boxes]
        axis.add_collection(PatchCollection(boxes, facecolors=colours, linewidths=0))
        places: dict[str, dict[str, Any]] = {
            "start": {"ha": "left", "va": "center"},
            "middle": {"ha": "center", "va": "center"},
            "end": {"ha": "right", "va": "center"},
            "up": {"ha": "center", "va": "bottom", "rotation": 90},
        }
        for word in self.words:
            style = {"fontsize": look.POINTS, "color": _hex(word.colour), **places[word.place]}
            axis.text(word.x, word.y, word.text, parse_math=False, **style)
        return as_figure(figure, ".pdf")

    def svg(self) -> str:
        """The drawing as an SVG document."""
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{self.width:g}" height="{self.height:g}" '
            f'viewBox="0 0 {self.width:g} {self.height:g}" font-family="sans-serif" font-size="{SIZE}">',
            '<rect width="100%" height="100%" fill="#ffffff"/>',
        ]
        for x, y, width, height, colour in self.boxes:
            at = f'x="{x:.4g}" y="{y:.4g}" width="{width:.6g}" height="{height:.6g}"'
            parts.append(f'<rect {at} fill="{_hex(colour)}"/>')
        for word in self.words:
            turn = f' transform="rotate(-90 {word.x:g} {word.y:g})"' if word.place == "up" else ""
            anchor = "start" if word.place == "up" else word.place
            at = f'x="{word.x:g}" y="{word.y:g}" dominant-baseline="central" text-anchor="{anchor}"{turn}'
            parts.append(f'<text {at} fill="{_hex(word.colour)}">{html.escape(word.text)}</text>')
        return "\n".join([*parts, "</svg>", ""])

    def text(self) -> str:
        """The drawing as lines for a terminal; empty where it has no such form."""
        return "\n".join(self.lines)


def hinton(
    matrix: np.ndarray, rows: Sequence[str], columns: Sequence[str], title: str = "", subject: str = ""
) -> Drawing:
    """Hinton diagram of a real matrix `[rows, columns]`, row 0 on top (Eastwood & Williams 2018, figure 2).

    The area of a square is proportional to the value's size and fills its cell at the next power of two above the
    largest; white is positive, black negative, the ground grey. Undefined values are pale cells.
    """
    matrix = np.asarray(matrix, dtype=float)
    full = power_of_two(matrix)
    drawn, cell, left, top = _frame(matrix, rows, columns, title, f"full cell = {full:g}; white +, black -", subject)
    drawn.box(left, top, cell * matrix.shape[1], cell * matrix.shape[0], GREY)
    for (i, j), value in np.ndenumerate(matrix):
        if not math.isfinite(value):
            drawn.box(left + j * cell, top + i * cell, cell, cell, PALE)
        elif value:
            side = cell * math.sqrt(abs(value) / full)
            x, y = left + (j + 0.5) * cell - side / 2, top + (i + 0.5) * cell - side / 2
            drawn.box(x, y, side, side, WHITE if value > 0 else BLACK)
    drawn.lines = _block_lines(matrix, rows, columns, full)
    return drawn


def power_of_two(matrix: np.ndarray) -> float:
    """The smallest power of two that no value exceeds in size; 1 for a matrix without anything but 0."""
    sizes = np.abs(matrix[np.isfinite(matrix)])
    largest = float(sizes.max()) if sizes.size else 0.0
    return 2.0 ** math.ceil(math.log2(largest)) if largest > 0 else 1.0


def _block_lines(matrix: np.ndarray, rows: Sequence[str], columns: Sequence[str], full: float) -> list[str]:
    """A row of block characters per row: the filled part of a block is the part of the cell that a square covers."""
    names, heads = [_short(r) for r in rows], [_short(c)[:6] for c in columns]
    margin = max(map(len, names), default=0)
    lines = [" " * margin + "".join(f" {head:>6}" for head in heads)]
    for name, line in zip(names, matrix, strict=True):
        cells = []
        for value in line:
            eighths = math.ceil(8 * abs(value) / full - 0.5) if math.isfinite(value) else 0
            mark = "?" if not math.isfinite(value) else "·" if not eighths else BLOCKS[eighths] * 3
            cells.append(f" {('-' if value < 0 and eighths else '') + mark:>6}")
        lines.append(f"{name:>{margin}}" + "".join(cells))
    return [*lines, f"full block = {full:g}, · below {full / 16:g}, - negative"]


def heat(
    matrix: np.ndarray, rows: Sequence[str], columns: Sequence[str], title: str = "", subject: str = "", unit: str = ""
) -> Drawing:
    """Heat map of a matrix `[rows, columns]`, row 0 on top, dark = smallest; values are written into large cells."""
    matrix = np.asarray(matrix, dtype=float)
    known = matrix[np.isfinite(matrix)]
    low, high = (min(0.0, float(known.min())), float(known.max())) if known.size else (0.0, 0.0)
    drawn, cell, left, top = _frame(
        matrix, rows, columns, title, f"dark {low:.3g} to light {high:.3g} {unit}".rstrip(), subject, 40
    )
    for (i, j), value in np.ndenumerate(matrix):
        share = (value - low) / (high - low) if high > low and math.isfinite(value) else 0.0
        colour = shade(share) if math.isfinite(value) else PALE
        drawn.box(left + j * cell, top + i * cell, cell, cell, colour)
        if cell >= 36:
            text = _brief(value) if math.isfinite(value) else "-"
            ink = INK if share > 0.6 or not math.isfinite(value) else WHITE
            drawn.word(left + (j + 0.5) * cell, top + (i + 0.5) * cell, text, "middle", ink)
    return drawn


def shade(share: float) -> Colour:
    """Colour of a value at this share of the way from the smallest to the largest."""
    at = min(max(share, 0.0), 1.0) * (len(SCALE) - 1)
    i = min(int(at), len(SCALE) - 2)
    mixed = SCALE[i] + (at - i) * (SCALE[i + 1] - SCALE[i])
    return int(mixed[0]), int(mixed[1]), int(mixed[2])


def bars(
    panels: Mapping[str, tuple[Sequence[str], Sequence[float]]], subject: str = "", units: Mapping[str, str] = {}
) -> Drawing:
    """One panel of horizontal bars per title, (names, values); the axis runs from 0 to 1, or to the largest value, and
    its ends stand below it. units: of the titles that have one."""
    drawn = Drawing()
    names = [_short(n) for labels, _ in panels.values() for n in labels]
    left = PAD + max((_length(n) for n in names), default=0) + 6
    width, y = 240, float(PAD)
    for line in _wrapped(subject) if subject else ():
        drawn.word(PAD, y + 8, line)
        y += 17
    for title, (labels, values) in panels.items():
        drawn.word(PAD, y + 8, title)
        y += 20
        finite = [v for v in values if math.isfinite(v)]
        end = max([1.0, *finite])
        for label, value in zip(labels, values, strict=True):
            drawn.word(left - 6, y + 8, _short(label), "end")
            drawn.box(left, y + 2, width, 12, PALE)
            if math.isfinite(value) and value > 0:
                drawn.box(left, y + 2, width * value / end, 12, BAR)
            drawn.word(left + width + 6, y + 8, _brief(value) if math.isfinite(value) else "-")
            y += 17
        unit = f" {units[title]}" if units.get(title) else ""
        drawn.word(left, y + 8, "0")
        drawn.word(left + width, y + 8, f"{end:.3g}{unit}", "end")
        y += 24
    drawn.width, drawn.height = left + width + 60, y + PAD - 8
    return drawn


def of_result(result: Mapping[str, Any], matrices: Mapping[str, str], vectors: Sequence[str]) -> dict[str, Drawing]:
    """The drawings of a metric's result, by name of the file.

    matrices: keys of matrices -> "hinton" or "heat"; a lasso's signed `weights` stand for its `importance`, where
        they have a sign: what is several columns, a class or an angle, has none.
    vectors: keys of vectors, one value per factor or per code, drawn together as `bars`.
    """
    codes, factors = result.get("code_names", ()), result.get("factor_names", ())
    subject, units = str(result.get("subject", "")), {**UNITS, **result.get("units", {})}
    found: dict[str, Drawing] = {}
    for key, kind in matrices.items():
        matrix = result.get(key)
        matrix = None if matrix is None else np.asarray(matrix, dtype=float)
        if key == "importance" and matrix is not None and "weights" in result:
            signed = np.asarray(result["weights"], dtype=float)
            matrix = np.where(np.isnan(signed), matrix, signed)
        if matrix is None or matrix.ndim != 2 or not 0 < min(matrix.shape) <= max(matrix.shape) <= LARGEST:
            continue
        rows, columns = _names(codes, matrix.shape[0], "code "), _names(factors, matrix.shape[1], "")
        title = key.replace("_", " ")
        if kind == "hinton":
            made = hinton(matrix, rows, columns, title, subject)
        else:
            made = heat(matrix, rows, columns, title, subject, units.get(key, ""))
        found[key.replace("_", "-")] = made
    panels = {}
    for key in vectors:
        values = np.asarray(result.get(key, ()), dtype=float)
        if values.ndim == 1 and 0 < len(values) <= LARGEST // 4:
            own = factors if "factor" in key else codes
            panels[key.replace("_", " ")] = (_names(own, len(values), ""), values.tolist())
    if panels:
        found["bars"] = bars(panels, subject, {key.replace("_", " "): unit for key, unit in units.items()})
    return found


def _names(names: Sequence[str], count: int, prefix: str) -> list[str]:
    return list(names) if len(names) == count else [f"{prefix}{i}" for i in range(count)]


def _frame(
    matrix: np.ndarray,
    rows: Sequence[str],
    columns: Sequence[str],
    title: str,
    legend: str,
    subject: str,
    largest: int = 32,
) -> tuple[Drawing, float, float, float]:
    """A drawing with title, subject, legend and names around a matrix; the side of a cell and the matrix's left and
    top. Rows are codes and columns factors, as the words at the corner say."""
    cell = max(4.0, min(float(largest), 1600 // max(matrix.shape)))
    shown = cell >= 10  # smaller cells have no room for a name each
    left = PAD + (max((_length(_short(r)) for r in rows), default=0) + 6 if shown else 0)
    lines = [title, *(_wrapped(subject) if subject else ())]
    top = PAD + 17 * len(lines) + 3 + (max((_length(_short(c)) for c in columns), default=0) + 6 if shown else 0)
    right, bottom = left + cell * matrix.shape[1], top + cell * matrix.shape[0]
    axes = f"{counted(matrix.shape[0], 'code')} down, {counted(matrix.shape[1], 'factor')} across"
    widest = max(_length(text) for text in (*lines, legend, axes))
    drawn = Drawing(max(right, PAD + widest) + PAD, bottom + 40 + PAD)
    for i, line in enumerate(lines):
        drawn.word(PAD, PAD + 6 + 17 * i, line)
    drawn.word(PAD, bottom + 16, legend)
    drawn.word(PAD, bottom + 32, axes)
    for i, name in enumerate(rows if shown else ()):
        drawn.word(left - 6, top + (i + 0.5) * cell, _short(name), "end")
    for j, name in enumerate(columns if shown else ()):
        drawn.word(left + (j + 0.5) * cell, top - 6, _short(name), "up")
    return drawn, cell, left, top


def _wrapped(text: str) -> list[str]:
    """A subject in lines that are no wider than a drawing of a column's width."""
    return textwrap.wrap(clean(text), int((NARROW - 2 * PAD) / (0.52 * SIZE)))


def _short(name: str) -> str:
    name = clean(str(name)).replace("\n", " ")
    return name if len(name) <= LONGEST else name[: LONGEST - 1] + "…"


def _brief(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 or (value == round(value) and abs(value) > 1) else f"{value:.2f}"


def _hex(colour: Colour) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)


def _font() -> Any:
    return ImageFont.load_default(size=SIZE)


def _length(text: str) -> float:
    return float(_font().getlength(text))


def _cover(start: float, length: float, count: int) -> np.ndarray:
    """Share of each of `count` pixels that lies within [start, start + length]."""
    pixel = np.arange(count)
    return np.clip(np.minimum(pixel + 1, start + length) - np.maximum(pixel, start), 0, 1)
