"""The walls of the house."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted([*(ROOT / "core").rglob("*.py"), *(ROOT / "plugins").rglob("*.py")])


def imports(path: Path) -> set[str]:
    """Every module that a file imports, wherever the import stands."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def test_the_list_of_packages_is_the_folders() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = {p.parent.relative_to(ROOT) for p in SOURCES}
    named = {"distk" + ("." if f.parts[1:] else "") + ".".join(f.parts[1:]) for f in folders if f.parts[0] == "core"}
    named |= {".".join(("distk", *f.parts)) for f in folders if f.parts[0] == "plugins"}
    assert sorted(listed) == sorted(named)


def test_core_imports_no_plugin_and_plugins_not_each_other() -> None:
    for path in SOURCES:
        parts = path.relative_to(ROOT).parts
        own = f"distk.plugins.{parts[1]}" if parts[0] == "plugins" and len(parts) > 2 else None
        for name in imports(path):
            if name.startswith("distk.plugins."):
                assert own is not None, f"{path} imports {name}"
                assert name == own or name.startswith(own + "."), f"{path} imports {name}"


def test_nothing_unpickles() -> None:
    for path in SOURCES:
        assert not imports(path) & {"pickle", "cloudpickle", "dill", "shelve"}, path
        text = path.read_text()
        for word in ("torch.load(", "torch.save(", "allow_pickle=True", " eval(", " exec("):
            assert word not in text, f"{path} has {word}"


@pytest.mark.parametrize("arguments", [["--help"], ["list"], ["plugins"], ["train", "--help"], ["data", "--help"]])
def test_help_and_listing_import_no_torch(arguments: list[str]) -> None:
    code = (
        "import sys; sys.argv = ['distk', *sys.argv[1:]]\n"
        "from distk.cli import main\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    assert not stop.code, stop.code\n"
        "assert 'torch' not in sys.modules, 'torch was imported'\n"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_every_documented_method_is_registered() -> None:
    from distk.registry import registry

    names = {name for entry in registry().entries("method") for name in (entry.name, *entry.aliases)}
    for card in (ROOT / "docs" / "methods").glob("*.md"):
        named = set(re.findall(r"distk train ([a-z][\w-]*)", card.read_text(encoding="utf-8")))
        assert named, f"docs/methods/{card.name} shows no `distk train METHOD`"
        assert named <= names, f"docs/methods/{card.name} names unknown methods: {named - names}"
