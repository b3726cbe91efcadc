"""Every module imports, every import names something that is there, and every registered path leads somewhere.

Run as a program it prints the table that `imports_inside_functions.txt` holds.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

from distk import commandline
from distk.hookspecs import hookimpl
from distk.papers import KINDS, Paper
from distk.registry import Registry, registry
from distk.study.plan import plan

ROOT = Path(__file__).resolve().parents[2]
TABLE = Path(__file__).with_name("imports_inside_functions.txt")

EXTRAS = {
    "av": "video",
    "coacd": "physics",
    "datasets": "hf",
    "gymnasium": "gym",
    "h5py": "hdf5",
    "mlflow": "mlflow",
    "mujoco": "physics",
    "onnxruntime": "onnx",
    "onnxscript": "onnx",
    "sacrebleu": "text",
    "starlette": "explore",
    "tensorboard": "tensorboard",
    "textblob": "text",
    "pyarrow": "tables",
    "ray": "ray",
    "submitit": "slurm",
    "trimesh": "mesh",
    "triton": "CUDA builds of torch",
    "uvicorn": "explore",
}
"""Packages that need not be installed -> the extra, or what else brings them. Functions may import them."""

HEAVY = {"joblib", "matplotlib", "scipy", "sklearn"}
"""Packages that take up to a second to import and that few commands need. Functions may import them."""

COMPILER = {"torch._dynamo", "torch._functorch.config"}
"""torch's compiler, a second and a half, which only `--compile` needs."""

LIGHT = {
    "core/cli.py",
    "core/commandline.py",
    "core/commands/arguments.py",
    "core/commands/bundles.py",
    "core/commands/check.py",
    "core/commands/data.py",
    "core/commands/evaluate.py",
    "core/commands/listing.py",
    "core/commands/new_plugin.py",
    "core/commands/train.py",
    "core/config.py",
    "core/console.py",
    "core/errors.py",
    "core/hookspecs.py",
    "core/options.py",
    "core/papers.py",
    "core/registry.py",
}
"""Modules that `distk --help`, listing and registration import: their functions import what is heavy, torch first."""


def named(path: Path) -> str:
    """Name of the module that a source file is."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = parts[1:] if parts[0] == "core" else parts
    return ".".join(("distk", *(parts[:-1] if parts[-1] == "__init__" else parts)))


SOURCES = {named(p): p for folder in ("core", "plugins") for p in sorted((ROOT / folder).rglob("*.py"))}


def import_statements(tree: ast.AST, inside: bool = False) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    """Every import of a syntax tree, and whether it stands in a function."""
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child, inside
        within = inside or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        yield from import_statements(child, within)


def missing_extra(error: ModuleNotFoundError) -> str:
    """What has to be installed for an import that failed; empty when it is no extra that is missing."""
    package = (error.name or "").partition(".")[0]
    return f"{package} ({EXTRAS[package]}) is not installed" if package in EXTRAS else ""


def unresolved(source: str, module: str, is_package: bool = False) -> list[str]:
    """Imports of a source text, wherever they stand, that name nothing; what needs a missing extra is left out."""
    package = module if is_package else module.rpartition(".")[0]
    wrong = []
    for node, _ in import_statements(ast.parse(source)):
        if isinstance(node, ast.Import):
            targets = [(alias.name, "") for alias in node.names]
        else:
            origin = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            targets = [(origin, alias.name) for alias in node.names]
        for origin, name in targets:
            try:
                found = importlib.import_module(origin)
                if name and not hasattr(found, name):
                    importlib.import_module(f"{origin}.{name}")
            except ModuleNotFoundError as error:
                if not missing_extra(error):
                    wrong.append(f"{module}:{node.lineno}: {ast.unparse(node)}: {error}")
    return wrong


@pytest.mark.parametrize("module", SOURCES)
def test_a_module_and_every_import_in_it_resolve(module: str) -> None:
    path = SOURCES[module]
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        if missing_extra(error):
            pytest.skip(missing_extra(error))
        raise
    assert not unresolved(path.read_text(encoding="utf-8"), module, path.name == "__init__.py")


@pytest.mark.parametrize(
    "line",
    [
        "from distk.console import histogram",
        "from distk.plugins.vae_family.cascadevae import no_such_module",
        "from . import mincostflow_triton",
        "import distk.no_such_module",
        "from scipy.stats import ttest_relative",
    ],
)
def test_a_wrong_import_in_a_function_is_found(line: str) -> None:
    module = "distk.plugins.vae_family.cascadevae.solver"
    assert not unresolved("def solve():\n    from . import method\n    import scipy.stats\n", module)
    assert len(unresolved(f"def solve():\n    if 1:\n        {line}\n", module)) == 1


# ------------------------------------------------------------------------------------------ registered paths


def broken_paths(found: Registry) -> list[str]:
    """What a registry's names lead to that cannot be loaded, and commands that cannot be built."""
    wrong = []
    for kind in KINDS:
        for entry in found.entries(kind):
            try:
                if kind == "study":
                    plan(entry.name)
                    for path in filter(None, (entry.runner, entry.judge)):
                        entry.load_from(path)
                elif not isinstance(entry.load(), type):
                    wrong.append(f"{kind} '{entry.name}': {entry.path} is no class")
            except Exception as error:
                wrong.append(f"{kind} '{entry.name}': {error}")
    for (group, name), command in found.commands.items():
        try:
            commandline.loaded(command)
        except Exception as error:
            wrong.append(f"command '{group} {name}': {error}")
    return wrong


def test_every_registered_path_leads_somewhere() -> None:
    found = registry()
    assert not found.problems
    assert len(found.commands) > 30  # a registry without commands would pass, too
    assert not broken_paths(found)


def test_a_wrong_path_in_a_papers_table_is_found() -> None:
    paper = Paper("distk.plugins.vae_family.betavae")
    paper.method("right", "method:BetaVAE", "there")
    paper.method("wrong", "method:NoSuchClass", "not there")
    paper.metric("lost", "no_such_module:Metric", "not there")
    paper.command("gone", "commands:no_such_function", "not there")
    plugin = types.ModuleType("distk_test_wrong_paths")
    found = Registry()
    found.add("wrong", _made_importable(plugin, paper), "a distribution", "1")
    assert not found.problems
    words = broken_paths(found)
    assert [line.partition(":")[0] for line in words] == ["method 'wrong'", "metric 'lost'", "command 'betavae gone'"]


def _made_importable(plugin: types.ModuleType, paper: Paper) -> str:
    """Give a module the hook that registers a paper, and put it where `import` finds it; its name."""

    def distk_register_papers(register) -> None:
        register(paper)

    plugin.distk_register_papers = hookimpl(distk_register_papers)
    sys.modules[plugin.__name__] = plugin
    return plugin.__name__


# --------------------------------------------------------------------------------- imports inside functions


def inside_functions() -> dict[str, int]:
    """Source file -> imports in its functions that have no reason to stand there; files without any are left out."""
    counts = {}
    for path in SOURCES.values():
        place = str(path.relative_to(ROOT))
        if place in LIGHT or path.name == "__init__.py":
            continue
        count = 0
        for node, inside in import_statements(ast.parse(path.read_text(encoding="utf-8"))):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            heavy = {name.partition(".")[0] for name in names} <= {*EXTRAS, *HEAVY} or set(names) <= COMPILER
            count += inside and not heavy
        if count:
            counts[place] = count
    return counts


def allowed() -> dict[str, int]:
    """The committed table: lines `count file`."""
    lines = [line.split() for line in TABLE.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    return {place: int(count) for count, place in lines}


def test_imports_inside_functions_only_become_fewer() -> None:
    """A wrong import at the top of a module fails at once; in a function it waits for a user."""
    counts, table = inside_functions(), allowed()
    more = {place: count for place, count in counts.items() if count > table.get(place, 0)}
    assert not more, f"these import inside functions where they could at the top of the module: {more}"
    fewer = {place: counts.get(place, 0) for place, count in table.items() if counts.get(place, 0) < count}
    assert not fewer, f"fewer than the table allows; lower it with `python {__file__} > {TABLE.name}`: {fewer}"


def test_the_list_of_light_modules_names_files() -> None:
    assert not [place for place in LIGHT if not (ROOT / place).is_file()]


if __name__ == "__main__":
    print("# Imports in functions that could stand at the top of the file; these numbers may only become smaller.")
    for place, count in sorted(inside_functions().items()):
        print(count, place)
