"""The page in Chromium: what is moved changes what is seen, without a word on the console or a request elsewhere."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from distk.explore.looking import Explorer
from distk.explore.server import Server
from distk.method import can
from distk.models import open_model
from distk.traversal import known_of

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
pytest.importorskip("starlette", reason="the extra explore is not installed: pip install 'distk[explore]'")
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")

MADE = "document.querySelector('#made .view').innerHTML"
SIZES = [(360, "light"), (360, "dark"), (1600, "light"), (1600, "dark")]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as player:
        started = player.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@contextmanager
def served(path: Any) -> Iterator[Server]:
    """A run's page at an address."""
    model, header = open_model(path / "checkpoint.safetensors", "cpu")
    if model.spec.kind == "image":  # what two steps made hardly follows its code
        for parameter in model.get_submodule("decoder").parameters():
            parameter.detach().mul_(3.0)
    rows = torch.arange(4)
    dataset = model.dataset()
    items = dataset.items(rows) if can(model, "encode") else None
    server = Server(Explorer(model, header, items, rows.tolist(), known_of(model, dataset, 50)))
    thread = threading.Thread(target=server.serve, daemon=True)
    thread.start()
    yield server
    server.stop()
    thread.join(10)
    server.close()


@contextmanager
def opened(browser: Any, server: Server, width: int, scheme: str) -> Iterator[Any]:
    """The page in a window, ready; afterwards nothing was said on the console and nothing asked elsewhere."""
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    told: list[str] = []
    page.on("console", lambda message: told.append(message.text))
    page.on("pageerror", lambda error: told.append(str(error)))
    page.on(
        "request", lambda request: None if request.url.startswith((server.url, "data:")) else told.append(request.url)
    )
    page.goto(server.url)
    page.wait_for_selector("body[data-ready]", timeout=60_000)
    yield page
    assert told == []
    assert page.locator("#state").inner_text() == ""
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 26)"
    assert dark == (scheme == "dark")
    page.close()


def changes(page: Any, act: Any) -> str:
    """What is seen after something was done that must change it."""
    before = page.evaluate(MADE)
    act()
    page.wait_for_function(f"before => {MADE} !== before", arg=before, timeout=30_000)
    return str(page.evaluate(MADE))


@pytest.mark.parametrize(("width", "scheme"), SIZES)
def test_a_slider_a_class_and_a_swap_change_the_picture(browser: Any, folder_of, width: int, scheme: str) -> None:
    with served(folder_of("image")) as server, opened(browser, server, width, scheme) as page:
        first = page.evaluate(MADE)
        slider = page.locator("#rows input").first
        shown = slider.input_value()
        changes(page, lambda: (slider.focus(), page.keyboard.press("Home")))
        assert slider.input_value() != shown
        assert page.locator("#rows .slider.moved").count() == 1
        back = page.locator("#rows .slider button").first
        assert changes(page, back.click) == first
        assert float(slider.input_value()) == pytest.approx(float(shown), abs=1e-6)

        held = page.locator("#classes button[aria-pressed=true]").inner_text()
        other = page.locator("#classes button[data-k][aria-pressed=false]").first
        changes(page, other.click)
        page.wait_for_selector("#classes button[aria-pressed=true]")
        assert page.locator("#classes button[aria-pressed=true]").inner_text() != held
        assert changes(page, page.locator("#back").click) == first

        page.locator("#other-start .thumbs button").nth(2).click()
        page.wait_for_selector("#other:not([hidden]) img")
        swapped = changes(page, page.locator("#swaps button[data-group=z]").click)
        assert changes(page, page.locator("#swaps button[data-group=z]").click) == first
        page.locator("#share").focus()
        assert changes(page, lambda: page.keyboard.press("End")) not in ("", first)
        assert swapped != first
        assert changes(page, lambda: page.keyboard.press("Home")) == first
        changes(page, page.locator("#start .thumbs button").nth(1).click)
        changes(page, page.locator("#start").get_by_text("Draw").click)


@pytest.mark.parametrize(("width", "scheme"), [SIZES[0], SIZES[3]])
def test_a_clip_plays_and_a_draw_changes_it(browser: Any, folder_of, width: int, scheme: str) -> None:
    with served(folder_of("clip")) as server, opened(browser, server, width, scheme) as page:
        assert page.locator("#made img").count() == 2
        assert page.locator("#made img").first.get_attribute("src").startswith("data:image/gif;base64,")
        assert page.locator("#made img").first.evaluate("i => i.complete && i.naturalWidth") > 0
        slider = page.locator("#rows input").first
        changes(page, lambda: (slider.focus(), page.keyboard.press("Home")))
        changes(page, page.locator("#start").get_by_text("Draw").click)  # seed 0, without what was moved
        changes(page, page.locator("#start").get_by_text("Draw").click)


@pytest.mark.parametrize(("width", "scheme"), [SIZES[1], SIZES[2]])
def test_a_sentence_is_read_and_rewritten(browser: Any, folder_of, width: int, scheme: str) -> None:
    with served(folder_of("text")) as server, opened(browser, server, width, scheme) as page:
        typed = server.explorer.plan()["items"][2]["text"]
        page.locator("#start textarea").fill(typed)
        page.locator("#start textarea").press("Enter")
        page.wait_for_function("typed => document.querySelector('#source .view').textContent === typed", arg=typed)
        assert page.locator("#source .view").inner_text() == typed
        page.locator("#label-buttons button").nth(1).click()
        page.wait_for_function("() => document.querySelector('#rewritten').textContent !== ''")
        expected = server.explorer.rewrite(typed, 1)["text"]
        assert page.locator("#rewritten").inner_text() == (expected or "(an empty sentence)")
        assert page.locator("#sliders").is_hidden()


def test_a_server_that_is_gone_is_said(browser: Any, folder_of) -> None:
    with served(folder_of("image")) as server:
        page = browser.new_page()
        page.goto(server.url)
        page.wait_for_selector("body[data-ready]")
    page.locator("#classes button[data-k][aria-pressed=false]").first.click()
    page.wait_for_function("() => document.querySelector('#state').textContent.includes('was it stopped')")
    page.close()
