"""Help that is shown as it is written: typer reads it as rich's markup, which takes `[data]` for a tag."""

from __future__ import annotations

import contextlib
import copy
import re
from collections.abc import Iterator
from typing import Any

import typer
from rich.markup import escape

from distk.errors import near


@contextlib.contextmanager
def _literal(command: Any) -> Iterator[None]:
    """Within it the texts of a command, and of those that it lists, are escaped; afterwards they are as they were."""
    texts: list[tuple[Any, str, Any]] = []
    holders = [(command, ("help", "epilog", "short_help")), *((p, ("help", "rich_help_panel")) for p in command.params)]
    for holder, names in holders:
        for name in names:
            if isinstance(text := getattr(holder, name, None), str):
                texts.append((holder, name, text))
                setattr(holder, name, escape(text))
    if hasattr(command, "get_command"):
        found = type(command).get_command

        def listed(ctx: Any, name: str) -> Any:
            made = copy.copy(found(command, ctx, name))
            for text in ("help", "short_help", "rich_help_panel"):
                if isinstance(getattr(made, text, None), str):
                    setattr(made, text, escape(getattr(made, text)))
            return made

        command.get_command = listed
    try:
        yield
    finally:
        for holder, name, text in texts:
            setattr(holder, name, text)
        vars(command).pop("get_command", None)


@contextlib.contextmanager
def _near_options(command: Any) -> Iterator[None]:
    """Within it the message over an unknown option names the nearest one, rather than whatever shares some letters."""
    try:
        yield
    except Exception as error:
        if type(error).__name__ == "NoSuchOption":  # of click, or of the copy of it that a newer typer brings
            told: Any = error
            flags = [flag for parameter in command.params for flag in (*parameter.opts, *parameter.secondary_opts)]
            close = near(told.option_name.lstrip("-"), [flag[2:] for flag in flags if flag.startswith("--")])
            told.possibilities = None
            told.message = f"No such option: {told.option_name}" + (f". Did you mean --{close}?" if close else "")
        raise


class PlainCommand(typer.core.TyperCommand):
    """A command whose help is shown letter by letter, and which names the nearest option for one that it has not."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        with _near_options(self):
            return super().parse_args(ctx, args)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        with _literal(self):
            super().format_help(ctx, formatter)


class PlainGroup(typer.core.TyperGroup):
    """A group whose help, and the summaries of its commands, are shown letter by letter."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        with _near_options(self):
            return super().parse_args(ctx, args)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        with _literal(self):
            super().format_help(ctx, formatter)


_SAID = (
    (r"^Input should be a valid integer.*", "is not a whole number"),
    (r"^Input should be a valid number.*", "is not a number"),
    (r"^Input should be a finite number.*", "is not allowed"),
    (r"^Input should be greater than or equal to (.*)", r"is below the smallest allowed value \1"),
    (r"^Input should be less than or equal to (.*)", r"is above the largest allowed value \1"),
    (r"^Input should be (greater|less) than (.*)", r"must be \1 than \2"),
    (r"^(?:Value error, )?'.*' is not one of (.*)\.?$", r"is none of \1"),
    (r"^.* is not a valid (?:int|integer).*", "is not a whole number"),
    (r"^.* is not a valid (?:float|number).*", "is not a number"),
    (r"^.* is not in the range x>=([^<>]*?)(?:\.| and.*)?$", r"is below the smallest allowed value \1"),
)
"""What parsers of the command line say of a value, and our words for it, which are those for a value in a file."""


def complaint(error: Any, args: list[str]) -> str:
    """A sentence over words of the command line that cannot be read: what is wrong, and where its options stand.

    error: an exception of the parser. args: the words, in which the value is looked for.
    """
    message: str = error.format_message().strip()
    where = error.ctx.command_path if getattr(error, "ctx", None) is not None else "distk"
    parameter = getattr(error, "param", None)
    if type(error).__name__ == "MissingParameter" and parameter is not None:
        name = parameter.opts[0] if parameter.opts[0].startswith("-") else parameter.name.upper()
        message = f"{name} is missing"
    elif type(error).__name__ == "BadOptionUsage" and "argument" in message:
        return f"{error.option_name} needs a value: write {error.option_name} VALUE."
    elif parameter is not None and error.message:
        name, value = _typed(parameter, args)
        said = next((re.sub(said, ours, error.message) for said, ours in _SAID if re.match(said, error.message)), "")
        message = f"{name}: {value!r} {said}" if said and value is not None else f"{name}: {error.message}"
    if "`" in message:  # it says itself where to look
        return message
    return f"{message if message.endswith('?') else message.rstrip('.') + '.'} `{where} --help` shows what there is."


def _typed(parameter: Any, args: list[str]) -> tuple[str, str | None]:
    """How the user called an option, and the last value that they gave for it, None where it cannot be told."""
    name, value = parameter.opts[0], None
    for i, arg in enumerate(args):
        called, equals, behind = arg.partition("=")
        if arg[:2] in parameter.opts and arg[2:]:  # -n5
            name, value = arg[:2], arg[2:]
        elif called in (*parameter.opts, *parameter.secondary_opts):
            name, value = called, behind if equals else args[i + 1] if i + 1 < len(args) else None
    return name, value
