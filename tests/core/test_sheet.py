"""Grids of pictures with words: bare ones are pixels alone, words have room and are large enough for a column."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from distk import images, look
from distk.errors import UsageError
from distk.sheet import Sheet


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


def test_a_bare_grid_is_the_grid(tmp_path: Path, generator: torch.Generator) -> None:
    x = torch.rand(6, 3, 10, 8, generator=generator)
    path = Sheet(x, 3).write(tmp_path / "x.png")
    assert np.array_equal(pixels(path), np.asarray(images.to_pil(images.grid(x, 3))))


@pytest.mark.parametrize("columns", [2, 10, 30])
def test_words_are_as_large_as_a_column_needs(columns: int) -> None:
    sheet = Sheet(torch.zeros(2 * columns, 1, 48, 48), columns, rows=["first", "second"], title="what it is")
    points = sheet.size / sheet.whole[0] * look.COLUMN * 72
    assert points > 0.85 * look.POINTS or sheet.size >= 0.5 * sheet.height, "or as large as a row has room for"


def test_words_never_cover_pictures_or_each_other() -> None:
    heads = ["a long name of a column", "b", "c"]
    colour = torch.tensor([0.2, 0.6, 1.0]).view(1, 3, 1, 1).expand(6, 3, 120, 120)
    sheet = Sheet(colour, 3, rows=["one", "two"], heads=heads, captions=list("uvwxyz"), title="t " * 80)
    assert sheet.turned
    assert len(sheet.lines) > 1
    picture = np.asarray(sheet.picture())
    assert (picture == (51, 153, 255)).all(2).sum() == 6 * 120 * 120, "no pixel is written over"
    for word in sheet._words():
        assert 0 <= word.x <= sheet.whole[0]
        assert 0 <= word.y <= sheet.whole[1]


def test_forms_and_dots_per_inch(tmp_path: Path) -> None:
    sheet = Sheet(torch.zeros(4, 1, 48, 48), 2, rows=["row one", "row $2$"], heads=["x_1", "<b>"])
    svg = sheet.write(tmp_path / "x.svg").read_text()
    assert "row one" in svg
    assert "row $2$" in svg, "words stay words, and are no formulas"
    assert "&lt;b&gt;" in svg
    assert sheet.write(tmp_path / "x.pdf").read_bytes().startswith(b"%PDF")
    again = Sheet(torch.zeros(4, 1, 48, 48), 2, rows=["row one", "row $2$"], heads=["x_1", "<b>"])
    for suffix in (".svg", ".pdf", ".png"):
        again.write(tmp_path / f"y{suffix}")
        sheet.write(tmp_path / f"x{suffix}")
        assert (tmp_path / f"x{suffix}").read_bytes() == (tmp_path / f"y{suffix}").read_bytes()
    with look.unchosen():
        look.choose(None, 600)
        sheet.write(tmp_path / "large.png")
    with Image.open(tmp_path / "large.png") as large:
        assert large.width >= look.COLUMN * 600
        assert large.info["dpi"][0] == pytest.approx(large.width / look.COLUMN, rel=1e-3)


def test_format_and_suffix_must_agree() -> None:
    with look.unchosen():
        assert look.formed("x.png") == "x.png"
        look.choose("svg", None)
        assert look.formed("x.png") == "x.svg"
        assert look.formed("x.json") == "x.json", "what is no picture keeps its form"
        look.held_to(Path("x.svg"))
        with pytest.raises(UsageError, match="contradict each other"):
            look.held_to(Path("x.pdf"))
    assert look.chosen() == look.Chosen()


@pytest.mark.parametrize("form", ["svg", "pdf"])
def test_commands_write_the_form_that_is_asked_for(distk_command: Any, in_folder: Path, form: str) -> None:
    train = ("train", "cascadevae", "--preset", "demo", "--steps", 2, "--device", "cpu", "--out", "r")
    assert distk_command(*train)[0] == 0
    for words in (("traverse", "--no-gif"), ("reconstruct",), ("swap",), ("interpolate",), ("sample",), ("tuning",)):
        code, _, err = distk_command(words[0], "r", *words[1:], "--format", form)
        assert code == 0, err
        code, _, err = distk_command(words[0], "r", *words[1:], "--out", f"{words[0]}.{form}")
        assert code == 0, err
        assert Path(f"{words[0]}.{form}").stat().st_size > 500
    assert len(list(Path("r").glob(f"*.{form}"))) == 6
    code, _, err = distk_command("eval", "r", "-m", "mig", "--rows", 300, "--format", form)
    assert code == 0, err
    assert Path(f"r/checkpoint.eval.mig.mutual-information.{form}").exists()
    code, _, err = distk_command("traverse", "r", "--out", "x.jpg")
    assert (code, "cannot end in '.jpg'" in err) == (2, True)
    text = Path("traverse.svg").read_text() if form == "svg" else "cascadevae -0.67"
    assert "cascadevae" in text
    assert "-0.67" in text.replace("\N{MINUS SIGN}", "-"), "the values stand above the columns"
