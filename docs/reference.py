"""Pages of the site that are made from the program itself: `pages()` maps a file's name to its markdown.

    python docs/reference.py FOLDER

Commands come from the command line as it is built, data sets and metrics from the registry with their docstrings, the
contract from the docstrings of every public class: so the pages cannot say anything else than the program does.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from typer.core import TyperGroup

import distk
from distk import hookspecs
from distk.commandline import loaded, program
from distk.hookspecs import Register, RegisterCommand, RegisterPaper, RegisterStudy
from distk.papers import Paper
from distk.registry import Registration, registry
from distk.settings import TrainConfig

HEADINGS = {
    "Methods": ("Method", "Objective", "Step", "Latent", "LatentSpace", "Code", "one_hot", "can"),
    "Optimizers": ("OptimizerFactory", "adam", "adamw", "sgd", "rmsprop"),
    "Data sets": ("DataSpec", "Dataset", "FactorDataset", "Files", "Source", "Split", "permuted_split", "open_dataset"),
    "Metrics": ("Metric", "CodeTable", "encode_table"),
    "Penalties": ("Penalty",),
    "Settings and errors": ("option", "NoConfig", "UsageError", "DistkError"),
    "Devices": ("choose_device", "seeded", "static_shapes_only"),
    "Runs, from Python": ("train", "load", "dataset", "evaluate", "Run", "runs", "compare"),
}
"""Heading of the contract's page -> public names below it; what stands under none comes last."""


MODULES = (
    "nn.gaussian",
    "nn.likelihood",
    "nn.adversarial",
    "nn.stacks",
    "nn.relaxed",
    "nn.classify",
    "nn.shapes",
    "solvers",
    "covariance",
    "embedding",
    "images",
    "console",
    "files",
    "commands.shared",
    "testing",
    "study.protocol",
    "study.claims",
    "transitions",
    "video",
    "plugins.metrics.functional",
)
"""What a plugin may import beside the names of `distk` itself."""

OWN = ("self", "cls")
FIELD = re.compile(r"^([a-z_]\w*(?:, [a-z_]\w*)*): ", re.MULTILINE)
"""How a docstring begins to speak of an argument or a field."""


def pages() -> dict[str, str]:
    """File name -> markdown of every page that is made."""
    return {
        "commands.md": commands_page(),
        "data.md": data_page(),
        "scores.md": scores_page(),
        "contract.md": contract_page(),
        "modules.md": modules_page(),
    }


# Commands


def commands_page() -> str:
    """Every command of the program with its options, as `--help` shows them."""
    root = program()
    names = root.list_commands(root.context_class(root))
    parts = [
        "# Commands",
        "Made from the program. `distk COMMAND --help` says the same in a terminal; `-h` and `--debug` are understood "
        "everywhere. An option that takes several values is repeated.",
    ]
    known = registry().commands
    for name in names:
        entry = known[("", name)]
        parts += _command(f"distk {name}", loaded(entry), 2)
        below = [other for (group, _), other in known.items() if group == name]
        for other in sorted(below, key=lambda command: command.name):
            parts += _command(f"distk {name} {other.name}", loaded(other), 3)
    parts += ["## distk train METHOD: settings of training", *_settings(TrainConfig)]
    return "\n\n".join(parts) + "\n"


def _command(words: str, command: Any, level: int) -> Iterator[str]:
    """A command's heading, help and options; of a typer group of its own, its commands, too."""
    yield f"{'#' * level} {words}"
    yield from _prose(command.help or "")
    context = command.context_class(command, info_name=words)
    rows = [record for p in command.params if (record := _option(p, context)) is not None]
    if rows:
        yield _table(("option", "meaning"), rows)
    if type(command) is TyperGroup:  # an app of its own; other groups make their commands from the registry
        for name, below in command.commands.items():
            yield from _command(f"{words} {name}", below, level + 1)


def _option(parameter: Any, context: Any) -> tuple[str, str] | None:
    if parameter.name == "help" or getattr(parameter, "hidden", False):
        return None
    if parameter.param_type_name == "argument":
        return f"`{parameter.metavar or (parameter.name or '').upper()}`", parameter.help or ""
    names, text = parameter.get_help_record(context)
    return f"`{names}`", text


# Data sets and scores


def data_page() -> str:
    """Every data set: what it holds, what it reads of the user's, its settings."""
    return _catalogue(
        "dataset",
        "Data sets",
        "Made from the program. `--data NAME` names one, `--data-dir` or `DISTK_DATA` the folder with your files; "
        "`distk data NAME --preview picture.png` shows what it holds.",
    )


def scores_page() -> str:
    """Every metric: its docstring, headline, direction, settings."""
    return _catalogue(
        "metric",
        "Scores, one by one",
        "Made from the program: `distk eval --metric NAME`; a setting is an option as soon as its metric is named. "
        "[Metrics](../metrics.md) says what they are good for.",
    )


def _catalogue(kind: str, title: str, about: str) -> str:
    """A page with an entry for everything registered of a kind."""
    parts = [f"# {title}", about]
    for entry in registry().entries(kind):
        parts += _entry(entry)
    return "\n\n".join(parts) + "\n"


def _entry(entry: Registration) -> Iterator[str]:
    cls = entry.load()
    yield f"## {entry.name}"
    yield entry.summary[:1].upper() + entry.summary[1:] + (f" ({entry.paper})." if entry.paper else ".")
    yield from _prose(inspect.getdoc(cls) or "")
    if entry.kind == "metric":
        yield from _numbers(cls)
    if entry.kind == "dataset" and cls.reads:
        yield f"Your files: {cls.reads}."
    yield from _settings(cls.Config)


def _numbers(cls: Any) -> Iterator[str]:
    """The headline in a sentence, and what each number means as a table."""
    first = cls.meaning(cls.headline)
    best = f", {first.better} is better" if first.better else ""
    yield f"Headline `{cls.headline}`{best}."
    rows = [
        (
            f"`{key}`{number.arrow}",
            number.range,
            number.unit,
            "" if number.chance is None else str(number.chance),
            "; ".join(part for part in (number.what, number.source, number.form) if part),
        )
        for key, number in {cls.headline: first, **cls.numbers}.items()
    ]
    yield _table(("number", "range", "unit", "chance", "meaning, source, form"), rows)


def _settings(config: type) -> Iterator[str]:
    rows = []
    for field in dataclasses.fields(config):
        default = "" if field.default in ("", None, ()) else f" Default: `{field.default}`."
        rows.append((f"`{field.name}`", f"{field.metadata.get('help', '')}.{default}"))
    if rows:
        yield _table(("setting", "meaning"), rows)


# The contract


def contract_page() -> str:
    """Every name that a plugin may rely on, with its signature and docstring."""
    parts = [
        "# The contract, name by name",
        "Made from the docstrings of `distk`. [Plugins](../plugins.md) shows how the names are used, "
        "[pieces](../pieces.md) lists formulas and layers, [modules](modules.md) whatever else plugins may import.",
        "## Hooks",
        f"This is contract {hookspecs.CONTRACT}.",
    ]
    for name in hookspecs.names():
        parts += _callable(name, getattr(hookspecs, name), 3)
    for protocol in (Register, RegisterCommand, RegisterStudy, RegisterPaper):
        parts += _callable(protocol.__name__, protocol.__call__, 3)
    parts += _class("Paper", Paper, 3)
    left = {*distk.__all__} - {"hookimpl", "__version__", "Register", "RegisterCommand", "RegisterPaper"}
    for heading, names in HEADINGS.items():
        parts.append(f"## {heading}")
        for name in (n for n in names if n in left):
            parts += _named(name)
        left -= {*names}
    if left:
        parts += ["## Further names", *(part for name in sorted(left) for part in _named(name))]
    return "\n\n".join(parts) + "\n"


def modules_page() -> str:
    """Public functions and classes of the modules that plugins build on, with those of their submodules."""
    parts = ["# Modules", "Made from the docstrings of what plugins may import beside `distk` itself."]
    for path in MODULES:
        module = importlib.import_module(f"distk.{path}")
        parts += [f"## distk.{path}", *_prose(module.__doc__ or "")]
        for name, value in sorted(public(module).items()):
            parts += _class(name, value, 3) if inspect.isclass(value) else _callable(name, value, 3)
    return "\n\n".join(parts) + "\n"


def public(module: ModuleType) -> dict[str, Any]:
    """Functions and classes that a module defines, or brings from a module below it."""
    found = {}
    for name, value in vars(module).items():
        home = getattr(value, "__module__", None) or ""
        ours = home == module.__name__ or home.startswith(f"{module.__name__}.")
        if ours and not name.startswith("_") and (inspect.isfunction(value) or inspect.isclass(value)):
            found[name] = value
    return found


def _named(name: str) -> Iterator[str]:
    value = getattr(distk, name)
    if inspect.isclass(value):
        return _class(name, value, 3)
    if inspect.isfunction(value):
        return _callable(name, value, 3)
    return iter((f"### {name}", f"`{name} = {value}`"))


def _class(name: str, cls: type, level: int) -> Iterator[str]:
    yield f"{'#' * level} {name}"
    yield from _prose(inspect.getdoc(cls) or "")
    if dataclasses.is_dataclass(cls):
        yield "Fields: " + ", ".join(f"`{field.name}: {field.type}`" for field in dataclasses.fields(cls)) + "."
    for member, value in members(cls):
        if isinstance(value, property):
            yield f"{'#' * (level + 1)} {name}.{member}"
            yield from _prose(inspect.getdoc(value) or "")
        else:
            yield from _callable(f"{name}.{member}", value, level + 1)


def members(cls: type) -> list[tuple[str, Any]]:
    """Public functions and properties that a class or a base of ours defines, in the order of their definition."""
    own = [base for base in reversed(cls.__mro__) if base.__module__.split(".")[0] == "distk"]
    found: dict[str, Any] = {}
    for base in own:
        for name, value in vars(base).items():
            function = value.__func__ if isinstance(value, (classmethod, staticmethod)) else value
            if not name.startswith("_") and (inspect.isfunction(function) or isinstance(value, property)):
                found[name] = function
    return list(found.items())


def _callable(name: str, function: Any, level: int) -> Iterator[str]:
    yield f"{'#' * level} {name}"
    signature = inspect.signature(function)
    given = [
        p.replace(
            annotation=_Bare(p.annotation),
            default=_Bare(p.default.__name__) if inspect.isfunction(p.default) else p.default,
        )
        for p in signature.parameters.values()
        if p.name not in OWN
    ]
    bare = signature.replace(parameters=given, return_annotation=_Bare(signature.return_annotation))
    yield f"```text\n{name.rpartition('.')[2]}{bare}\n```"
    yield from _prose(inspect.getdoc(function) or "")


class _Bare:
    """An annotation, or the name of a function, that is shown without quotes."""

    def __init__(self, annotation: Any) -> None:
        self.annotation = annotation

    def __repr__(self) -> str:
        return self.annotation if isinstance(self.annotation, str) else inspect.formatannotation(self.annotation)


# Markdown


def _prose(text: str) -> Iterator[str]:
    """A docstring as paragraphs; indented ones, and what an example shows, as they stand."""
    for paragraph in re.split(r"\n\s*\n", inspect.cleandoc(text).replace("\nRaises ", "\n\nRaises ")):
        if paragraph.startswith("Example"):
            yield from (f"```console\n$ {line}\n```" for line in _examples(paragraph))
        elif paragraph.startswith("    "):
            yield f"```text\n{inspect.cleandoc(paragraph)}\n```"
        elif FIELD.match(paragraph):
            yield "\n".join(_fields(paragraph))
        elif paragraph:
            yield _plain(paragraph)


def _fields(paragraph: str) -> Iterator[str]:
    """Lines `name: what it is` as items of a list."""
    starts = [found.start() for found in FIELD.finditer(paragraph)]
    for start, end in zip(starts, [*starts[1:], len(paragraph)], strict=True):
        names, _, text = paragraph[start:end].partition(": ")
        yield f"- `{names}`: {_plain(' '.join(text.split()))}"


def _examples(paragraph: str) -> Iterable[str]:
    text = paragraph.replace("\\\n", " ")
    return [" ".join(line.split()) for line in re.split(r"Examples?:|\n", text) if line.strip()]


def _plain(text: str) -> str:
    """Text in which only backticks mean anything; typer's escaped brackets lose their backslash."""
    pieces = re.split(r"(`[^`]*`)", text.replace("\\[", "["))
    plain = [p if p.startswith("`") else re.sub(r"([\\*_<>|$#\[\]])", r"\\\1", p) for p in pieces]
    return "".join(plain)


def _table(head: tuple[str, str], rows: list[tuple[str, str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for name, text in rows:
        cell = _plain(" ".join(text.split()))
        lines.append(f"| {name.replace('|', chr(92) + '|')} | {cell} |")
    return "\n".join(lines)


def write(folder: Path) -> None:
    """Write every page into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
