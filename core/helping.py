"""Help that is shown as it is written: typer reads it as rich's markup, which takes `[data]` for a tag."""

from __future__ import annotations

import contextlib
import copy
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
