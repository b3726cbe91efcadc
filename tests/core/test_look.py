"""`--format` and `--dpi`: every command that can come to where figures are written has both."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterator
from types import CodeType, FunctionType, ModuleType
from typing import Any

import pytest

from distk import images, sheet
from distk.commandline import loaded
from distk.registry import registry
from distk.study import tables

WRITERS: set[Any] = {tables.as_figure, sheet.Sheet.write, images.save_png}
"""Where every figure of distk is written."""
DRAWS = {"png", "svg", "pdf"}
"""Methods of what `Metric.pictures` gives."""
NO_FIGURE = {
    "train": "its samples are a record of the training, which pages and loggers read as PNG",
    "resume": "as train",
    "report": "figures of a study are PNG inside the page",
}


def codes_of(code: CodeType) -> Iterator[CodeType]:
    yield code
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from codes_of(inner)


def named_in(function: FunctionType) -> Iterator[Any]:
    """What a function names: of its module, of modules that it names or imports, and what it closes over."""
    names = {name for code in codes_of(function.__code__) for name in code.co_names}
    for name in names:
        value = function.__globals__.get(name)
        if name.startswith("distk."):
            value = importlib.import_module(name)
        if isinstance(value, ModuleType) and value.__name__.startswith("distk"):
            yield from (vars(value)[other] for other in names if other in vars(value))
        yield value
    yield from (cell.cell_contents for cell in function.__closure__ or () if cell.cell_contents is not None)


def way_to_a_writer(start: Callable[..., Any]) -> list[str]:
    """The names on a way from a function to one that writes figures; empty where there is none."""
    seen, waiting = set(), [(start, [])]
    while waiting:
        value, way = waiting.pop()
        if value in WRITERS:
            return [*way, value.__qualname__]
        if inspect.isclass(value) and value.__module__.startswith("distk") and value not in seen:
            seen.add(value)
            members = (getattr(m, "__func__", getattr(m, "fget", m)) for m in vars(value).values())
            waiting += [(member, [*way, value.__name__]) for member in members if isinstance(member, FunctionType)]
        value = inspect.unwrap(value) if isinstance(value, FunctionType) else value
        if isinstance(value, FunctionType) and value not in seen:
            seen.add(value)
            if DRAWS & set(value.__code__.co_names) and "pictures" in value.__code__.co_names:
                return [*way, value.__qualname__]
            waiting += [(one, [*way, value.__qualname__]) for one in named_in(value) if callable(one)]
    return []


def choices(option: Any) -> list[str]:
    """The words that an option takes; empty where it takes any, or where there is none."""
    return list(getattr(getattr(option, "type_descriptor", None), "choices", None) or ())


def commands() -> dict[str, Any]:
    """Every command that is registered, those below it, and one of `data NAME`, by its words."""
    found = {
        f"{group} {name}".strip(): loaded(command)
        for (group, name), command in registry().commands.items()
        if command.path
    }
    data = found.pop("data")
    context = data.make_context("data", [], resilient_parsing=True)
    return found | {"data dsprites": data.resolve_command(context, ["dsprites"])[1]}


def test_every_command_that_writes_a_figure_takes_its_form_and_resolution() -> None:
    wrong, drawing = [], 0
    for words, command in commands().items():
        options = {flag: parameter for parameter in command.params for flag in parameter.opts}
        forms = choices(options.get("--format"))
        has = "--dpi" in options and forms == ["png", "svg", "pdf"]
        way = way_to_a_writer(command.callback) if command.callback is not None else []
        drawing += bool(way)
        if way and not has and words not in NO_FIGURE:
            wrong.append(f"distk {words}: {' > '.join(way)}")
        elif "--dpi" in options and not has:
            wrong.append(f"distk {words}: --dpi without --format png|svg|pdf")
    assert not wrong, "\n".join(wrong)
    assert drawing > 40, "the search finds what it looks for"


def test_the_search_finds_a_writer_and_nothing_else() -> None:
    def deep() -> Any:
        return tables.windowless(1, 1, 1, 1), tables.write_figure

    def none() -> Any:
        return tables.windowless(1, 1, 1, 1)

    assert way_to_a_writer(deep)[-1] == "as_figure"
    assert not way_to_a_writer(none)
    assert way_to_a_writer(lambda metric: metric.pictures({})["a"].png())


@pytest.mark.parametrize("words", sorted(NO_FIGURE))
def test_exceptions_are_commands(words: str) -> None:
    assert ("", words) in registry().commands
