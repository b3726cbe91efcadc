"""`distk report`: what stands on the page, that it needs nothing else, and tables for papers."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

import distk
from distk.laboratory.charts import HEIGHT, WIDTH, charts, nice
from distk.laboratory.compare import curves
from distk.laboratory.report import as_html, gathered
from distk.laboratory.tables import Table, escaped, latex, markdown
from distk.study import engine, job, store
from distk.study.plan import plan

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
RECIPE = """
title = "Rates <b>&</b> codes"
source = "Nobody 2026"
columns = ["covstats.cvr"]
seeds = 3
[data]
name = "dimred"
items = 64
[train]
steps = 20
batch = 20
log_every = 5
[[variants]]
method = "covreg-linear"
grid = { lr = [0.001, 0.01] }
[published."covreg-linear lr=0.01"]
"covstats.cvr" = "0.5 (0.1)"
[[claims]]
text = "a larger rate <i>correlates</i> less"
better = "covreg-linear lr=0.01"
than = "covreg-linear lr=0.001"
column = "covstats.cvr"
direction = "lower"
"""


class Seen(HTMLParser):
    """Tags of a page with their attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words += data


@pytest.fixture(scope="module")
def pictured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a method with pictures."""
    out = tmp_path_factory.mktemp("pictured") / "blobs"
    distk.train("betavae", data="blobs", steps=2, batch=4, z=3, device="cpu", out=out, quiet=True)
    return out


@pytest.fixture
def study(in_folder: Path) -> Path:
    """The folder of a study, whose jobs were done in this process."""
    (in_folder / "rates.toml").write_text(RECIPE)
    made = plan("rates.toml", device="cpu")
    with store.claimed(made) as held:
        for variant in made.variants:
            for seed in made.seeds:
                place = held.run_folder(variant.label, seed)
                engine.job_of(made, variant, seed).write(place)
                job.carry_out([place])
        store.write_rows(held.results, engine.collect(made, held), ["covstats.cvr"])
    return made.out


def test_a_page_of_runs_holds_scores_curves_and_settings_and_asks_for_nothing(distk_command, folder: Path) -> None:
    code, out, errors = distk_command("report", "runs")
    assert code == 0, errors
    assert out.split() == ["runs/report.html"]
    text = Path("runs/report.html").read_text()
    seen = Seen(text)
    links = [v for tag, attrs in seen.tags for k, v in attrs.items() if k in ("src", "href")]
    assert all(str(link).startswith("data:") for link in links)
    assert not re.search(r"https?://|url\((?!data:)", text)
    for word in ("fast-0 and 3 more", "covstats.cvr", "model.lr", "n = 3", "covreg-linear", '"data": "dimred"'):
        assert word in seen.words, word
    assert len([tag for tag, _ in seen.tags if tag == "svg"]) == 2  # mse and the penalty
    assert len([tag for tag, attrs in seen.tags if attrs.get("class", "").startswith("band")]) == 4


def test_the_points_of_a_curve_are_those_of_the_log(folder: Path) -> None:
    group = distk.compare("runs/slow-0").groups[0]
    chart = next(c for c in charts([group]) if c.term == "mse")
    points = np.array([pair.split(",") for pair in chart.lines[0].points.split()], dtype=float)
    _, values = curves(group.records[0])["mse"]
    assert len(points) == len(values) == 6
    assert (points >= 0).all()
    assert (points <= [WIDTH, HEIGHT]).all()
    # Heights are linear in the values and read downwards; a coordinate is rounded to 0.1.
    marks = [(float(m["text"]), m["y"]) for m in chart.marks]
    slope = (marks[-1][1] - marks[0][1]) / (marks[-1][0] - marks[0][0])
    assert slope < 0
    assert points[:, 1] == pytest.approx(marks[0][1] + slope * (values - marks[0][0]), abs=0.15)


def test_ticks_are_round_and_hold_the_values(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(200):
        low, high = sorted(rng.normal(size=2) * 10.0 ** rng.integers(-6, 7))
        ticks = nice(low, high)
        step = ticks[1] - ticks[0]
        assert ticks[0] <= low + 1e-6 * step
        assert ticks[-1] >= high - 1e-6 * step
        assert 2 <= len(ticks) <= 8
        assert ticks[1] - low > -1e-6 * step
        assert ticks[-2] < high + 1e-6 * step
        scaled = step / 10.0 ** np.floor(np.log10(step * (1 + 1e-9)))
        assert min(abs(scaled - each) for each in (1, 2, 2.5, 5)) < 1e-6
    assert nice(3.0, 3.0)[0] < 3.0 < nice(3.0, 3.0)[-1]


def test_a_study_as_page_markdown_and_latex(distk_command, study: Path) -> None:
    code, out, errors = distk_command("report", study, "--json")
    assert code == 0, errors
    told = json.loads(out)
    text = Path(told["files"][0]).read_text()
    assert told["files"] == ["runs/study-rates/report.html"]
    assert "<b>&</b>" not in text
    assert "<i>correlates</i>" not in text
    words = Seen(text).words
    line = next(n for n in told["studies"][0]["table"] if n["variant"].endswith("lr=0.01"))
    assert (line["n"], line["published"]) == (3, "0.5 (0.1)")
    assert line["low"] < line["mean"] < line["high"]
    shown = f"{line['mean']:.4g} [{line['low']:.4g}, {line['high']:.4g}] ({line['sd']:.2g})"
    verdict = told["studies"][0]["claims"][0]["verdict"]
    for word in ("Rates <b>&</b> codes", shown, "0.5 (0.1)", "a larger rate <i>correlates</i> less", verdict, "scale"):
        assert word in words, word
    code, out, _ = distk_command("report", study, "--format", "md")
    assert f"| covreg-linear lr=0.01 | {shown} | 0.5 (0.1) |" in out.replace("\\", "")
    code, out, _ = distk_command("report", study, "--out", "table.tex")
    assert out.split() == ["table.tex"]
    assert f"covreg-linear lr=0.01 & {shown} & 0.5 (0.1) \\\\" in Path("table.tex").read_text()


def test_text_of_others_is_escaped() -> None:
    made = [Table("50 % of a_b", ["x|y", "n"], [["a & b", "{1}"], ["<*_>\x1b[2J\n", "2"]], frozenset({1}))]
    assert escaped("a_b & 50 % {x} \\ ^~#$") == (
        r"a\_b \& 50 \% \{x\} \textbackslash{} \textasciicircum{}\textasciitilde{}\#\$"
    )
    assert r"\caption{50 \% of a\_b}" in latex(made)
    assert "{lr}" in latex(made)
    told = markdown(made)
    assert r"| x\|y | n |" in told
    assert "|---|---:|" in told
    assert "\x1b" not in told + latex(made)
    assert [line.count(" | ") for line in told.splitlines() if line.startswith("| ")] == [1, 1, 1]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["nowhere"], 1, "'nowhere' is not there"),
        (["runs", "--out", "no/page.html"], 2, "'no' does not exist"),
        (["runs", "--out", "page.pdf"], 2, "ends neither in .html nor in .md nor in .tex"),
        (["runs", "--out", "page.md", "--format", "html"], 2, "is no name for --format html"),
    ],
)
def test_a_mistake_is_one_sentence(distk_command, folder: Path, arguments: list[str], code: int, words: str) -> None:
    told = distk_command("report", *arguments)
    assert told[:2] == (code, "")
    assert words in " ".join(told[2].split())


def test_a_run_that_cannot_be_opened_is_on_the_page_all_the_same(folder: Path) -> None:
    (folder / "slow-0" / "checkpoint.safetensors").write_bytes(b"\x08" + b"\0" * 7 + b"damaged!")
    words = Seen(as_html(gathered([folder / "slow-0", folder / "fast-0"]), device="cpu")).words
    assert "no traversal:" in words
    assert "truncated or not a safetensors file" in words


def test_pictures_are_left_out_where_the_page_would_be_too_large(
    pictured: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = as_html(gathered([pictured]), device="cpu")
    assert whole.count('class="row"') == 3
    assert "data:image/webp" in whole
    monkeypatch.setattr("distk.laboratory.report.BUDGET", 1000)
    small = as_html(gathered([pictured]), device="cpu")
    assert 'class="row"' not in small
    assert "left out, since the page would pass 5 MB" in small
    assert len(small) < len(whole) - 1000
    assert "data:image/webp" not in as_html(gathered([pictured]), pictures=False)


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_the_page_in_a_browser(pictured: Path, tmp_path: Path) -> None:
    """No message on the console, no request, nothing wider than a telephone; the slider moves every latent."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
    page_file = tmp_path / "report.html"
    page_file.write_text(as_html(gathered([pictured]), device="cpu"))
    with sync_api.sync_playwright() as player:
        browser = player.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for width, scheme in ((360, "dark"), (1600, "light")):
            page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
            told: list[str] = []
            page.on("console", lambda message, told=told: told.append(message.text))
            page.on("pageerror", lambda error, told=told: told.append(str(error)))
            page.on("request", lambda request, told=told: told.append(request.url))
            page.goto(page_file.as_uri())
            assert [each for each in told if not each.startswith("data:")] == [page_file.as_uri()]
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 26)"
            assert dark == (scheme == "dark")
            place = "[...document.querySelectorAll('.row i')].map(i => getComputedStyle(i).backgroundPositionX)"
            before = page.evaluate(place)
            slider = page.locator("input[type=range]")
            slider.focus()
            page.keyboard.press("End")
            after = page.evaluate(place)
            assert page.locator("output").inner_text() == "9"
            assert len(before) == 3
            assert all(was != now for was, now in zip(before, after, strict=True)), (before, after)
            page.keyboard.press("Home")
            assert page.locator("output").inner_text() == "1"
            assert not [each for each in told[1:] if not each.startswith("data:")]
            page.close()
        browser.close()
