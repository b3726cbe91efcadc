"""The site: links lead somewhere, pages made from the program are whole, versions that stand twice are the same."""

from __future__ import annotations

import importlib.util
import inspect
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import distk
from distk.commandline import loaded, program
from distk.registry import registry

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"


def module(name: str) -> ModuleType:
    """A module of docs/, which is no package."""
    spec = importlib.util.spec_from_file_location(f"docs_{name}", DOCS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


LINKS = module("links")


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    return module("reference")


@pytest.fixture(scope="module")
def made(reference: ModuleType) -> dict[str, str]:
    return reference.pages()


@pytest.mark.parametrize("page", LINKS.pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    assert LINKS.broken(page) == []


def test_a_link_that_leads_nowhere_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LINKS, "ROOT", tmp_path)
    (tmp_path / "there.md").write_text("# A title: here\n")
    page = tmp_path / "page.md"
    page.write_text(
        "# Page\n[a](there.md) [b](gone.md) [c](there.md#a-title-here) [d](there.md#not) [e](#page) [f](https://x.y)\n"
        "```{toctree}\nthere\nlost\n```\n```\n[in code](nowhere.md)\n```\n"
    )
    assert [line.split("'")[1] for line in LINKS.broken(page)] == ["lost", "gone.md", "there.md#not"]


def test_every_page_of_the_guide_is_in_the_contents() -> None:
    contents = LINKS.TOCTREE.findall((DOCS / "index.md").read_text(encoding="utf-8"))
    listed = {line for tree in contents for line in tree.splitlines() if line and not line.startswith(":")}
    pages = {str(p.relative_to(DOCS).with_suffix("")) for p in LINKS.pages() if DOCS in p.parents} - {"index"}
    assert {page for page in pages if page not in listed and not page.startswith("methods/")} == set()
    assert {name for name in listed if name.startswith("generated/")} == {
        "generated/commands",
        "generated/data",
        "generated/scores",
        "generated/contract",
        "generated/modules",
    }


def test_every_command_and_option_is_in_the_reference(made: dict[str, str]) -> None:
    """Held against the command line itself: a heading for each command, a row for each option that help shows."""
    page = made["commands.md"]
    sections = {part.partition("\n")[0].lstrip("# "): part for part in re.split(r"\n(?=##)", page)}
    program()
    commands = registry().commands
    assert len(commands) > 60
    for (group, name), entry in commands.items():
        words = f"distk {group} {name}".replace("  ", " ")
        assert words in sections, words
        for parameter in loaded(entry).params:
            shown = parameter.param_type_name == "option" and not parameter.hidden and parameter.name != "help"
            for flag in parameter.opts if shown else ():
                assert re.search(rf"\| `[^`]*(?<![\w-]){re.escape(flag)}(?![\w-])", sections[words]), f"{words} {flag}"
        if "Example" in (loaded(entry).help or ""):
            assert f"$ distk {f'{group} {name}'.strip()}" in sections[words], words


def test_every_data_set_and_metric_is_in_the_reference(made: dict[str, str]) -> None:
    for kind, page in (("dataset", "data.md"), ("metric", "scores.md")):
        for entry in registry().entries(kind):
            assert f"\n## {entry.name}\n" in made[page]
            for name in vars(entry.load().Config).get("__dataclass_fields__", {}):
                assert f"| `{name}` |" in made[page]


def test_the_contract_page_holds_every_public_name(made: dict[str, str], reference: ModuleType) -> None:
    """All of `distk`, every public member of its classes, every hook; and each says what it is."""
    page = made["contract.md"]
    silent = []
    for name in {*distk.__all__} - {"hookimpl", "__version__"}:
        assert f"\n### {name}\n" in page, name
        value = getattr(distk, name)
        if inspect.isclass(value):
            for member, function in reference.members(value):
                assert f"\n#### {name}.{member}\n" in page or name.startswith("Register"), f"{name}.{member}"
                silent += [] if (function.__doc__ or inspect.getdoc(function)) else [f"{name}.{member}"]
        elif inspect.isfunction(value) and not value.__doc__:
            silent.append(name)
    assert silent == []
    for hook in distk.hookspecs.names():
        assert f"\n### {hook}\n" in page


def test_the_page_of_formats_says_what_a_run_folder_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its example runs, and every file, every row's key and every key of the header is one that it names."""
    page = (DOCS / "formats.md").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    tiny = {"data": "blobs", "size": 16, "positions": 16, "arch": "mlp", "device": "cpu", "batch": 8}
    run = distk.train("betavae", **tiny, steps=2, eval=("mig",), keep="best:mig", out="runs/first", quiet=True)
    files = {path.name for path in run.path.iterdir()}
    assert {"config.toml", "log.jsonl", "checkpoint.safetensors", "best.safetensors", "samples"} <= files
    assert {name for name in files if f"`{name}" not in page} == set()
    (example,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names: dict[str, Any] = {}
    exec(example, names)
    assert names["weights"]
    assert {key for key in names["header"] if f"`{key}`" not in page} == set()
    assert {"step", "seconds", "rate"} <= run.log[-1].keys()


def test_versions_that_stand_twice_are_the_same() -> None:
    pins = dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    hooks = re.findall(r'"(\w+)==([^"]+)"', (ROOT / ".pre-commit-config.yaml").read_text())
    assert hooks
    assert {name: pins[name] for name, _ in hooks} == dict(hooks)
    cited = re.search(r"^version: (\S+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert cited is not None
    assert cited[1] == distk.__version__


def test_every_step_of_the_workflow_is_a_target_of_the_makefile() -> None:
    steps = re.findall(r"- run: make (\w[\w-]*)", (ROOT / ".github" / "workflows" / "test.yml").read_text())
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert len(steps) >= 5
    assert set(steps) <= set(targets)


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("sphinx", reason="needs the extra docs")
    pytest.importorskip("furo", reason="needs the extra docs")
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", DOCS, tmp_path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "generated" / "contract.html").stat().st_size > 100_000
    for page in tmp_path.rglob("*.html"):
        dashed = re.findall(r"[–—][a-z]+", re.sub(r"<[^>]*>", "", page.read_text(encoding="utf-8")))
        assert not dashed, f"{page.name}: {dashed[0]} is no option that can be typed"
