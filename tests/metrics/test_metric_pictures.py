"""Drawings of scores, down to their pixels."""

from __future__ import annotations

import io
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from PIL import Image

from distk.evaluation import build_metric
from distk.plugins.metrics import pictures
from distk.testing import synthetic_table

GREY = (128, 128, 128)


def pixels(drawing: pictures.Drawing) -> np.ndarray:
    """[height, width, 3] in 0..255, in the drawing's own pixels: a PNG has several for each of them."""
    sheet = np.asarray(Image.open(io.BytesIO(drawing.png())).convert("RGB")).astype(float)
    n = int(drawing.scale)
    assert n == drawing.scale >= 2
    return sheet.reshape(len(sheet) // n, n, -1, n, 3).mean((1, 3))


def cells(drawing: pictures.Drawing) -> tuple[float, float, float, float]:
    """The grey ground: left, top, width, height."""
    return next(box[:4] for box in drawing.boxes if box[4] == GREY)


def test_a_hinton_diagram_has_squares_of_the_right_area_place_and_colour(seed) -> None:
    rng = np.random.default_rng(seed)
    matrix = rng.uniform(-1, 1, (4, 3))
    matrix[0, 0], matrix[2, 1], matrix[3, 2] = 1.7, 0.0, -0.02
    drawing = pictures.hinton(matrix, list("wxyz"), list("abc"))
    left, top, width, height = (round(v) for v in cells(drawing))
    sheet = pixels(drawing)[top : top + height, left : left + width]
    assert (height // 4, width // 3) == (32, 32)
    for (i, j), value in np.ndenumerate(matrix):
        cell = sheet[32 * i : 32 * (i + 1), 32 * j : 32 * (j + 1)].mean(2)
        # Next power of two above 1.7 is 2: a cell's mean departs from the ground by the covered share.
        covered = abs(value) / 2
        expected = 128 + covered * ((255 - 128) if value > 0 else -128)
        assert cell.mean() == pytest.approx(expected, abs=0.3), (i, j)
        if covered > 0.02:
            assert cell[16, 16] == (255 if value > 0 else 0)
        # The square stands in the middle.
        away = np.abs(cell - 128)
        if covered:
            middle = (away * np.arange(0.5, 32)[:, None]).sum() / away.sum()
            assert middle == pytest.approx(16, abs=0.3)


@pytest.mark.parametrize(("largest", "full"), [(1.0, 1.0), (1.01, 2.0), (0.3, 0.5), (0.25, 0.25), (5.0, 8.0), (0, 1.0)])
def test_the_scale_is_the_next_power_of_two(largest: float, full: float) -> None:
    assert pictures.power_of_two(np.array([[largest, -largest / 2], [0, np.nan]])) == full


def test_the_svg_says_the_same_as_the_png() -> None:
    matrix = np.array([[1.0, -0.25], [np.nan, 0.0]])
    drawing = pictures.hinton(matrix, ["z<1>", "z&2"], ["a", "b"])
    space = "{http://www.w3.org/2000/svg}"
    root = ET.fromstring(drawing.svg())
    words = [w.text for w in root.iter(f"{space}text")]
    assert {"z<1>", "z&2", "a", "b"} <= set(words)
    squares = {r.get("fill"): r for r in root.iter(f"{space}rect")}
    black, white = squares["#000000"], [r for r in root.iter(f"{space}rect") if r.get("fill") == "#ffffff"][-1]
    assert float(white.get("width")) == pytest.approx(2 * float(black.get("width")), abs=1e-3)
    assert float(white.get("y")) == pytest.approx(float(black.get("y")) - float(black.get("width")) / 2, abs=1e-3)
    assert squares["#e1e1e1"].get("width") == "32", "an undefined value is a pale cell"


def test_the_terminal_shows_blocks_signs_and_gaps() -> None:
    text = pictures.hinton(np.array([[1.0, -0.5, 0.01], [0.12, 0.0, np.nan]]), ["z1", "z2"], ["a", "b", "c"]).text()
    lines = text.splitlines()
    assert lines[0].split() == ["a", "b", "c"]
    assert lines[1].split() == ["z1", "███", "-▄▄▄", "·"]
    assert lines[2].split() == ["z2", "▁▁▁", "·", "?"]
    assert lines[3].startswith("full block = 1,")


def test_a_heat_map_runs_from_dark_to_light_with_row_0_on_top() -> None:
    drawing = pictures.heat(np.array([[0.0, 0.5], [1.0, np.nan]]), ["z1", "z2"], ["a", "b"])
    sheet = pixels(drawing)
    boxes = [tuple(round(v) for v in box[:2]) for box in drawing.boxes]
    corner = [tuple(sheet[y + 2, x + 2]) for x, y in boxes]
    assert corner == [pictures.shade(0), pictures.shade(0.5), pictures.shade(1), pictures.PALE]
    assert boxes[0][1] == boxes[1][1] < boxes[2][1]
    assert [sum(pictures.shade(s)) for s in (0, 0.25, 0.5, 0.75, 1)] == sorted(
        sum(pictures.shade(s)) for s in (0, 0.25, 0.5, 0.75, 1)
    )


def test_bars_are_as_long_as_their_values() -> None:
    drawing = pictures.bars({"scores": (["a", "b", "c"], [0.25, 1.0, float("nan")])})
    sheet = pixels(drawing)
    lengths = [(np.abs(row - pictures.BAR).sum(1) < 1).sum() for row in sheet]
    assert sorted(set(lengths)) == [0, 60, 240]
    assert "-" in [word.text for word in drawing.words]
    wide = pictures.bars({"variance": (["a", "b"], [4.0, 1.0])})
    assert sorted({(np.abs(row - pictures.BAR).sum(1) < 1).sum() for row in pixels(wide)}) == [0, 60, 240]


def test_names_of_strangers_stay_on_the_sheet() -> None:
    drawing = pictures.hinton(np.ones((1, 1)), ["n" * 500], ["\x1b[31mred\nline"])
    assert drawing.width < 400
    assert "\x1b" not in drawing.svg() + drawing.text()
    ET.fromstring(drawing.svg())


def test_metrics_draw_their_matrices_and_a_lasso_its_signs() -> None:
    table = synthetic_table()
    table.codes[:, 0] *= -1
    cls = type(build_metric("dci")[1])
    result = build_metric("dci", {"predictor": "lasso"})[1].compute(table, 0)
    drawn = cls.pictures(result)
    assert set(drawn) == {"importance", "bars"}
    assert any(box[4] == pictures.BLACK for box in drawn["importance"].boxes), "a negative weight is black"
    assert [w.text for w in drawn["importance"].words if w.place == "up"] == ["shape", "size", "x", "y"]
    assert [w.text for w in drawn["importance"].words if w.place == "end"] == table.names
    for name in ("mig", "modularity", "sap", "irs", "infomec"):
        metric = build_metric(name)[1]
        made = type(metric).pictures(metric.compute(table, 0))
        assert len(made) == 2, name
        assert all(picture.png()[:4] == b"\x89PNG" for picture in made.values())
    assert cls.pictures({"importance": np.ones((900, 2))}) == {}, "too large to draw"


def test_what_has_no_sign_is_drawn_by_its_importance() -> None:
    """A lasso has no weight of a sign for a discrete code: its row shows the importance, the others the weights."""
    importance, weights = np.array([[0.5, 0.2], [0.4, 0.1]]), np.array([[np.nan, np.nan], [-0.4, 0.1]])
    result = {"importance": importance, "weights": weights, "code_names": ["d", "z"], "factor_names": ["f", "g"]}
    kinds = {"importance": "hinton"}
    own, expected, unsigned = (
        pictures.of_result({**result, "weights": signed}, kinds, ())["importance"].boxes
        for signed in (weights, np.array([[0.5, 0.2], [-0.4, 0.1]]), importance)
    )
    assert own == expected
    assert own != unsigned
