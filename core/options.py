"""Config dataclasses -> typer options, and back to the values that the user gave."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from typing import Annotated, Any, Literal, Self

import typer
import typer.core

from distk import completing, look
from distk.config import flag, hints, split_optional
from distk.errors import DistkError
from distk.helping import PlainCommand


def parameters(
    config: type,
    panel: str,
    taken: Iterable[str] = (),
    prefix: str = "",
    defaults: Mapping[str, Any] | None = None,
    panels: Mapping[str, str] | None = None,
    completers: Mapping[str, completing.Completer] | None = None,
) -> list[inspect.Parameter]:
    """One keyword parameter per field of a config dataclass; absent on the command line means None.

    panel: heading in the help; panels: field -> another one. taken: names that already mean something else; such a
    field gets `prefix`. defaults: values that replace the fields' own in the help text. completers: field -> what the
    shell offers for its value.
    """
    made = []
    for field in dataclasses.fields(config):
        name = f"{prefix}{field.name}" if field.name in taken else field.name
        default = (defaults or {}).get(field.name, field.default)
        heading = (panels or {}).get(field.name, panel)
        offered = (completers or {}).get(field.name)
        made.append(_parameter(name, hints(config)[field.name], field.metadata, default, heading, offered))
    return made


def _parameter(
    name: str,
    annotation: Any,
    metadata: Mapping[str, Any],
    default: Any,
    panel: str,
    offered: completing.Completer | None,
) -> inspect.Parameter:
    inner, _ = split_optional(annotation)
    metavar, declaration = None, flag(name)
    if inner is bool:
        declaration = f"{flag(name)}/{flag('no_' + name)}"
        kind: Any = bool
    elif typing.get_origin(inner) is Literal:
        kind, metavar = str, "|".join(map(str, typing.get_args(inner)))
        offered = offered or completing.choices(typing.get_args(inner))
    elif typing.get_origin(inner) is tuple:
        member = typing.get_args(inner)[0]
        kind, metavar = list[str], f"{member.__name__.upper()},..."
    else:
        kind = inner
    help_text = metadata.get("help", "")
    if metadata.get("paper"):
        help_text += f" (paper: {metadata['paper']})"
    if shown := _shown(default):
        help_text += f" [default: {shown}]"
    option = typer.Option(
        declaration,
        help=help_text,
        metavar=metavar,
        rich_help_panel=panel,
        show_default=False,
        autocompletion=offered,
    )
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


asked: ContextVar[frozenset[str] | None] = ContextVar("asked", default=None)
"""Names of the options that the user gave to the command that runs; None outside of commands."""


class Command(PlainCommand):
    """Remembers while it runs which options the user gave, so that a default can give way to what there is."""

    def invoke(self, ctx: Any) -> Any:
        sources = {name: ctx.get_parameter_source(name) for name in ctx.params}
        given = {name for name, source in sources.items() if source is not None and source.name != "DEFAULT"}
        token = asked.set(frozenset(given))
        try:
            with look.unchosen():
                return super().invoke(ctx)
        finally:
            asked.reset(token)


class Bundle:
    """Base of dataclasses whose fields are options that travel together through many commands.

    A command takes one as a parameter, `on: OnModel` or `on: OnModel = OnModel(out=...)` for other defaults, and gets
    its fields as options; a field without a default is an option that must be given, one with `init=False` is none.
    `Annotated[OnModel, Without("out")]` leaves some away.
    """


class Without(tuple[str, ...]):
    """Names of a bundle's fields that a command does not offer."""

    def __new__(cls, *names: str) -> Self:
        return super().__new__(cls, names)


@dataclasses.dataclass
class _Bundled:
    """A parameter of a command that stands for several options.

    defaults: an instance whose values are the defaults, or the empty mark for the fields' own. names: what is offered.
    """

    name: str
    cls: type[Bundle]
    defaults: Any
    names: list[str]

    def parameters(self) -> list[inspect.Parameter]:
        types = typing.get_type_hints(self.cls, include_extras=True)
        own = {f.name: f.default for f in dataclasses.fields(self.cls) if f.default is not dataclasses.MISSING}  # type: ignore[arg-type]
        defaults = own if self.defaults is inspect.Parameter.empty else vars(self.defaults)
        return [
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=defaults.get(name, inspect.Parameter.empty),
                annotation=types[name],
            )
            for name in self.names
        ]

    def gather(self, values: dict[str, Any]) -> None:
        """Replace the fields' values by one object."""
        values[self.name] = self.cls(**{name: values.pop(name) for name in self.names})


def _bundled(parameter: inspect.Parameter) -> _Bundled | None:
    annotation, left_out = parameter.annotation, Without()
    if typing.get_origin(annotation) is Annotated:
        annotation, *notes = typing.get_args(annotation)
        left_out = next((note for note in notes if isinstance(note, Without)), left_out)
    if not (isinstance(annotation, type) and issubclass(annotation, Bundle)):
        return None
    names = [f.name for f in dataclasses.fields(annotation) if f.init and f.name not in left_out]  # type: ignore[arg-type]
    return _Bundled(parameter.name, annotation, parameter.default, names)


def command(
    function: Callable[..., Any],
    name: str,
    extra: Iterable[inspect.Parameter] = (),
    help_text: str | None = None,
    cls: type[typer.core.TyperCommand] | None = None,
) -> Any:
    """A click command of `function`: its own parameters, those of its bundles, and `extra` as keyword arguments.

    help_text: default: the function's docstring. cls: another class of command.
    Raises DistkError naming an option that the command would have twice.
    """
    own = [p for p in inspect.signature(function, eval_str=True).parameters.values() if p.kind is not p.VAR_KEYWORD]
    bundles = [bundle for bundle in map(_bundled, own) if bundle is not None]
    held = {bundle.name for bundle in bundles}
    fields = [parameter for bundle in bundles for parameter in bundle.parameters()]
    first = [
        p for p in fields if any(isinstance(note, typer.models.ArgumentInfo) for note in typing.get_args(p.annotation))
    ]
    taken = [*first, *(p for p in own if p.name not in held), *(p for p in fields if p not in first), *extra]
    if twice := [name for name, count in Counter(p.name for p in taken).items() if count > 1]:
        raise DistkError(f"the command '{name}' has two options {flag(twice[0])}: rename the setting '{twice[0]}'.")

    def run(**values: Any) -> Any:
        for bundle in bundles:
            bundle.gather(values)
        return function(**values)

    run.__signature__ = inspect.Signature([p.replace(kind=p.KEYWORD_ONLY) for p in taken])  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in taken}
    run.__name__, run.__doc__ = name, help_text or function.__doc__
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command(name, help=help_text, cls=cls or Command, context_settings={"help_option_names": ["-h", "--help"]})(run)
    made = typer.main.get_command(app)
    made.name = name
    return made
