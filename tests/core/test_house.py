"""The walls of the house."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from setuptools import find_packages

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


def test_every_folder_is_a_package_that_is_shipped() -> None:
    where = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]["where"]
    folders = {module_of(path.with_name("__init__.py")) for path in SOURCES}
    assert sorted(find_packages(str(ROOT / where[0]))) == sorted(folders)


def module_of(path: Path) -> str:
    """The dotted name under which a source file is imported."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = parts[:-1] if parts[-1] == "__init__" else parts
    return ".".join(("distk", *(parts[1:] if parts[0] == "core" else parts)))


MODULES = {module_of(path): path for path in SOURCES}


def modules_imported(path: Path) -> set[str]:
    """The modules of ours that a file imports: at its top, inside functions and for types, by relative names too."""
    own = module_of(path)
    package = own if path.name == "__init__.py" else own.rpartition(".")[0]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            names = {f"{base}.{alias.name}" for alias in node.names}
            found |= {name for name in names if name in MODULES} or {base}
    return {name for name in found if name in MODULES}


def walls_broken(module: str, imported: set[str], papers: dict[str, tuple[str, ...]]) -> list[str]:
    """Imports that a module may not have. papers: the papers of every family.

    Core imports no plugin. A plugin imports its own root; a paper within it not another one; and of others only the
    functions of scores and what the data sets' package exports.
    """
    parts = module.split(".")
    plugin = parts[2] if parts[1:2] == ["plugins"] and len(parts) > 2 else ""
    own = parts[3] if len(parts) > 3 and parts[3] in papers.get(plugin, ()) else ""
    broken = []
    for name in sorted(imported):
        to = name.split(".")
        if to[:2] != ["distk", "plugins"] or len(to) < 3:
            continue
        if to[2] != plugin:
            shared = name == "distk.plugins.datasets" or to[2:4] == ["metrics", "functional"]
            if not (plugin and shared):
                broken.append(name)
        elif len(to) > 3 and to[3] in papers.get(plugin, ()) and to[3] != own:
            broken.append(name)
    return broken


def papers_of_families() -> dict[str, tuple[str, ...]]:
    """Family -> the folders of its papers."""
    found = {}
    for path in (ROOT / "plugins").glob("*/__init__.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "PAPERS":
                found[path.parent.name] = ast.literal_eval(node.value)
    return found


def test_walls() -> None:
    papers = papers_of_families()
    assert "mvae" in papers["vae_family"]
    broken = {module: walls_broken(module, modules_imported(path), papers) for module, path in MODULES.items()}
    assert {module: names for module, names in broken.items() if names} == {}


def test_the_walls_would_stop_a_breach() -> None:
    papers = {"vae_family": ("mvae", "jade")}
    at = "distk.plugins.vae_family"
    others = {f"{at}.jade.method", f"{at}.gaussian", "distk.plugins.metrics.functional.change", "distk.plugins.text"}
    assert walls_broken(f"{at}.mvae.method", others, papers) == ["distk.plugins.text", f"{at}.jade.method"]
    assert walls_broken(f"{at}.networks", {f"{at}.jade.method"}, papers) == [f"{at}.jade.method"]
    assert walls_broken("distk.metric", {"distk.plugins.datasets"}, papers) == ["distk.plugins.datasets"]
    assert walls_broken(f"{at}.mvae.data", {"distk.plugins.datasets"}, papers) == []


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules that import each other, directly or by way of others."""
    reach: dict[str, set[str]] = {}
    for start in graph:
        seen, todo = set(), [start]
        while todo:
            fresh = graph.get(todo.pop(), set()) - seen
            seen |= fresh
            todo += fresh
        reach[start] = seen
    found = {frozenset(b for b in reach[a] if a in reach[b]) for a in graph if a in reach[a]}
    return sorted(map(sorted, found))


def test_no_circle_of_imports() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]
    graph = {module: modules_imported(path) - {module} for module, path in MODULES.items()}
    assert "distk.errors" in graph["distk.registry"]
    assert circles(graph) == []


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
    for card in set((ROOT / "docs" / "methods").glob("*.md")) - {ROOT / "docs" / "methods" / "README.md"}:
        named = set(re.findall(r"distk train ([a-z][\w-]*)", card.read_text(encoding="utf-8")))
        assert named, f"docs/methods/{card.name} shows no `distk train METHOD`"
        assert named <= names, f"docs/methods/{card.name} names unknown methods: {named - names}"


def test_the_index_of_papers_is_the_registry() -> None:
    """Every paper has a row with its title, methods, folder, cards and commands, and every card stands in one."""
    from distk.registry import registry

    here = ROOT / "docs" / "methods"
    rows = [row.strip("| \n").split(" | ") for row in (here / "README.md").read_text(encoding="utf-8").splitlines()]
    rows = [row for row in rows if len(row) == 5][1:]
    papers = {paper.title: paper for paper in registry().papers.values() if paper.package.startswith("distk.plugins.")}
    assert sorted(row[0] for row in rows) == sorted(papers)
    cards = set()
    for title, methods, folder, linked, commands in rows:
        paper = papers[title]
        assert re.findall(r"`([^`]+)`", methods) == [row.name for row in paper.named("method")], title
        place = "plugins/" + paper.package.removeprefix("distk.plugins.").replace(".", "/")
        assert folder == f"[`{place}`](../../{place})"
        assert (ROOT / place).is_dir()
        words = [f"distk {paper.name} {row.name}" for row in paper.named("command")]
        assert re.findall(r"`([^`]+)`", commands) == words, title
        cards |= set(re.findall(r"\]\(([\w-]+\.md)\)", linked))
    assert cards == {card.name for card in here.glob("*.md")} - {"README.md"}


PRINTING = {"print", "typer.echo", "typer.secho", "click.echo", "sys.stdout.write", "sys.stderr.write"}
SILENT = {"core/console.py", "core/cli.py", "core/study/job.py"}
"""The one place that prints; `--version`, which is fast because it imports nothing; a job's words to its engine."""


def prints(tree: ast.AST) -> list[str]:
    """Calls that print by another way than `distk.console`."""
    calls = [ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)]
    direct = (".print", "out.file.write", "err.file.write")
    return [call for call in calls if call in PRINTING or call.endswith(direct)]


def test_strangers_files_are_decoded_in_the_other_process() -> None:
    """Programs in C that read pictures, movies, tables and HDF5 are called by what `apart` and `hdf5` start, only."""
    called = re.compile(
        r"\bImage\.open\(|\bPillow\.open\(|ParquetFile\(|\bopen_picture\(|package\.open\(file|h5py\.File\("
    )
    found = {module for module, path in MODULES.items() if called.search(path.read_text())}
    reads = {"distk.pictures", "distk.video.decode", "distk.video.movies", "distk.parquet", "distk.hdf5"}
    ours = {"distk.sheet"}  # `bare` reads a sheet that distk drew back, which no command does
    assert found == reads | ours | {"distk.plugins.datasets.hdf5_process"}
    for module in ("distk.video.decode", "distk.video.movies", "distk.parquet", "distk.hdf5"):
        users = {other for other, path in MODULES.items() if module in modules_imported(path)}
        assert users <= {"distk.video.decode", "distk.video.readers", "distk.video.writers"}, module


def test_there_is_one_way_to_print() -> None:
    """What a stranger's file says reaches the terminal through `console`, which takes control characters out."""
    assert prints(ast.parse("print(1); typer.echo(x); console.out.print(y); console.say(z)")) != []
    assert prints(ast.parse("console.say(z); console.table('', (), [])")) == []
    found = {str(path.relative_to(ROOT)): prints(ast.parse(path.read_text(encoding="utf-8"))) for path in SOURCES}
    assert {path: calls for path, calls in found.items() if calls and path not in SILENT} == {}
