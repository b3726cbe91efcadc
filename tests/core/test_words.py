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


# Numbers and nouns


def counted_nouns(trees: list[ast.AST]) -> set[str]:
    """The plurals of all nouns that `console.counted` puts behind a number somewhere."""
    found = set()
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "counted":
            words = [word.value for word in node.args[1:] if isinstance(word, ast.Constant)]
            if words and isinstance(words[0], str):
                found.add((words[1] if len(words) > 1 else f"{words[0]}s").split()[-1])
    return found


NO_NUMBERS = {"split", "group", "name", "key", "where", "source", "missing", "told", "more", "unit"}
"""Names of words that stand before a plural as numbers do."""


def is_number(value: ast.expr) -> bool:
    """Whether what stands before a plural may be 1: no constant of the program, no word, no call that makes words."""
    name = value.id if isinstance(value, ast.Name) else value.attr if isinstance(value, ast.Attribute) else ""
    if name.isupper() or name in NO_NUMBERS:
        return False
    if isinstance(value, ast.Call):
        called = value.func.id if isinstance(value.func, ast.Name) else ""
        return called in ("len", "int", "sum", "round") and all(map(is_number, value.args))
    if isinstance(value, ast.IfExp):
        return is_number(value.body) and is_number(value.orelse)
    return name not in ("__name__", "sampling")


def plurals(tree: ast.AST, nouns: set[str]) -> list[str]:
    """The places of `{number} nouns` in the f-strings of a module, as `LINE: {number} nouns`."""
    found = []
    for node in (node for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)):
        for before, value, after in zip([None, *node.values], node.values, node.values[1:], strict=False):
            if not isinstance(value, ast.FormattedValue) or not isinstance(after, ast.Constant):
                continue
            noun = re.match(r" (?:(?:more|other|different|test|paired|free) )?([a-z]+s)\b(?!-)", str(after.value))
            form = ast.unparse(value.format_spec)[2:-1] if value.format_spec else ""
            sided = isinstance(before, ast.Constant) and str(before.value).endswith("x")  # 3x4 pixels
            if noun and noun[1] in nouns and form in ("", ",") and not sided and is_number(value.value):
                found.append(f"{node.lineno}: {{{ast.unparse(value.value)}}} {noun[1]}")
    return found


def test_no_message_says_1_files() -> None:
    """A noun that is counted somewhere by `counted` is counted by it everywhere."""
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in SOURCES if path.parts[-1] != "console.py"}
    nouns = counted_nouns(list(trees.values()))
    assert {"files", "images", "classes", "identities"} <= nouns
    wrong = [f"{path.relative_to(ROOT)}:{place}" for path, tree in trees.items() for place in plurals(tree, nouns)]
    assert not wrong, "write {counted(n, 'file')}:\n" + "\n".join(wrong)
    both = [f"{p.relative_to(ROOT)}" for p in SOURCES if re.search(r"\} [a-z]+\(s\)", p.read_text(encoding="utf-8"))]
    assert not both, "neither one nor many: 'file(s) are'"


def test_a_plural_behind_a_number_is_noticed() -> None:
    nouns = {"files"}
    assert plurals(ast.parse("f'{len(x):,} files in {y}'"), nouns) == ["1: {len(x)} files"]
    assert plurals(ast.parse("f'{n} more files'"), nouns)
    for fine in ("f'{MOST:,} files'", "f'{split} files'", "f'{n:g} files'", "f'{2}x{n} files'", "f'{n} filesystems'"):
        assert not plurals(ast.parse(fine), nouns), fine
