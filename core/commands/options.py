"""Config dataclasses -> typer options, and back to the values that the user gave."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

import typer

from distk.config import flag, hints, split_optional


def parameters(
    config: type, panel: str, taken: Iterable[str] = (), prefix: str = "", defaults: Mapping[str, Any] | None = None
) -> list[inspect.Parameter]:
    """One keyword parameter per field of a config dataclass; absent on the command line means None.

    panel: heading in the help. taken: names that already mean something else; such a field gets `prefix`.
    defaults: values that replace the fields' own in the help text.
    """
    made = []
    for field in dataclasses.fields(config):
        name = f"{prefix}{field.name}" if field.name in taken else field.name
        default = (defaults or {}).get(field.name, field.default)
        made.append(_parameter(name, hints(config)[field.name], field.metadata, default, panel))
    return made


def _parameter(name: str, annotation: Any, metadata: Mapping[str, Any], default: Any, panel: str) -> inspect.Parameter:
    inner, _ = split_optional(annotation)
    metavar, declaration = None, flag(name)
    if inner is bool:
        declaration = f"{flag(name)}/{flag('no_' + name)}"
        kind: Any = bool
    elif typing.get_origin(inner) is Literal:
        kind, metavar = str, "|".join(map(str, typing.get_args(inner)))
    elif typing.get_origin(inner) is tuple:
        member = typing.get_args(inner)[0]
        kind, metavar = list[str], f"{member.__name__.upper()},..."
    else:
        kind = inner
    help_text = metadata.get("help", "")
    if metadata.get("paper"):
        help_text += f" (paper: {metadata['paper']})"
    if shown := _shown(default):
        help_text += f" \\[default: {shown}]"
    option = typer.Option(declaration, help=help_text, metavar=metavar, rich_help_panel=panel, show_default=False)
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind | None, option]
    )


def _shown(default: Any) -> str:
    if default is None or default in ("", ()):
        return ""
    if isinstance(default, bool):
        return "yes" if default else "no"
    if isinstance(default, (tuple, list)):
        return ",".join(map(str, default))
    return str(default)


def given(config: type, values: Mapping[str, Any], taken: Iterable[str] = (), prefix: str = "") -> dict[str, Any]:
    """Of parsed values, those that the user gave for this config, under its field names."""
    found = {}
    for field in dataclasses.fields(config):
        value = values.get(f"{prefix}{field.name}" if field.name in taken else field.name)
        if value is None or value == []:
            continue
        inner, _ = split_optional(hints(config)[field.name])
        if isinstance(value, list):
            value = tuple(part for item in value for part in str(item).split(",") if part)
        elif typing.get_origin(inner) is Literal and typing.get_args(inner) and not isinstance(value, bool):
            value = next((choice for choice in typing.get_args(inner) if str(choice) == str(value)), value)
        found[field.name] = value
    return found


def command(function: Any, name: str, extra: list[inspect.Parameter], help_text: str) -> Any:
    """A click command of `function`, its own parameters followed by `extra`, which arrive as keyword arguments."""
    own = [p for p in inspect.signature(function, eval_str=True).parameters.values() if p.kind is not p.VAR_KEYWORD]

    def run(**values: Any) -> Any:
        return function(**values)

    run.__signature__ = inspect.Signature([*own, *extra])  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in [*own, *extra]}
    run.__name__ = name
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command(name, help=help_text, context_settings={"help_option_names": ["-h", "--help"]})(run)
    made = typer.main.get_command(app)
    made.name = name
    return made
