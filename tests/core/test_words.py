"""What docs, help and messages say: commands that exist, and no word of how the program came about."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from distk.registry import registry

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SOURCES = sorted([*(ROOT / "core").rglob("*.py"), *(ROOT / "plugins").rglob("*.py")])

INSIDERS = (
    r"\bpapers/\d",
    r"\bprotocols? P\d",
    r"\b(needs|of|the) P\d\b",
    r"\bmetrics\.md section",
    r"\bpaper \d\d?\b(?!,)",
    r"\bthe sheet (says|asks|names|wants|gives)\b",
    r"\bfirst plan\b",
    r"(?<!dlib )\bissue \d",
    r"\bDESIGN\.md",
)
"""Words for things that a reader cannot see."""

SHELL = re.compile(
    r"(?:^\$ |`|; |&& |Example: |Start with: |then |and )distk ((?:[a-z][\w-]*)(?: [a-z][\w-]*)?)", re.MULTILINE
)
"""The one or two words after `distk` where a line is meant to be typed."""


def missing(text: str) -> list[str]:
    """Commands that a text tells its reader to type and that are not registered."""
    commands = registry().commands
    wrong = []
    for words in SHELL.findall(text):
        first, _, second = words.partition(" ")
        known = ("", first) in commands
        if known and second and not commands[("", first)].path and not commands[("", first)].built:
            known = (first, second) in commands  # a group of a paper or of a family
        if not known:
            wrong.append(f"distk {words}")
    return wrong


def texts(path: Path) -> str:
    """Strings of a module, docstrings among them: what help and messages may show."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return "\n".join(n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str))


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_every_command_of_a_page_is_registered(path: Path) -> None:
    text = path.read_text(encoding="utf-8").replace("distk acme spread", "")  # the plugin that docs/plugins.md builds
    assert missing(text) == []


def test_every_command_of_a_docstring_or_message_is_registered() -> None:
    wrong = {str(path.relative_to(ROOT)): missing(texts(path)) for path in SOURCES}
    assert {path: words for path, words in wrong.items() if words} == {}


def test_old_words_are_noticed() -> None:
    for old in registry().moved:
        assert missing(f"$ distk {old}") == [f"distk {old}"]
    assert missing("$ distk icm list") == ["distk icm list"]
    assert missing("`distk mvae swap runs/x`; `distk train cascadevae`") == []
    assert missing("$ distk experts apply x") == ["distk experts apply"]


@pytest.mark.parametrize("path", [*PAGES, *SOURCES], ids=lambda path: str(path.relative_to(ROOT)))
def test_no_word_that_only_insiders_know(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert [found[0] for pattern in INSIDERS for found in re.finditer(pattern, text)] == []
