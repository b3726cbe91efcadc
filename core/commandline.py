"""The command line: commands that are known by their path and imported when they run.

`distk --help` shows names and summaries from the registry; only the command that is called gets built. A plugin that
gave a typer app instead of paths has that app built alone, so that it can neither take away nor replace a command.
"""

from __future__ import annotations

import os
from typing import Annotated, Any

import typer

from distk import console
from distk.errors import nearest
from distk.guard import loading, watching
from distk.helping import PlainGroup
from distk.options import command as built_from
from distk.registered import PAPERS, Command, Plugin
from distk.registry import registry
from distk.version import __version__

HELP_OPTIONS = {"help_option_names": ["-h", "--help"]}


class LazyGroup(PlainGroup):
    """A group whose commands stand in the registry, beside those that it was made with. place: its own name there."""

    place = ""

    def list_commands(self, ctx: Any) -> list[str]:
        return [*super().list_commands(ctx), *(command.name for command in self._entries())]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """A command with its name and summary only, unless it is at hand: listing must not import them."""
        own = super().get_command(ctx, cmd_name)
        entry = registry().commands.get((self.place, cmd_name))
        return own if own is not None or entry is None else shown(entry)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        own = super().get_command(ctx, args[0])
        if own is not None:
            return args[0], own, args[1:]
        entry = registry().commands.get((self.place, args[0]))
        if entry is None:
            ctx.fail(self._told(ctx, args))
        assert entry is not None  # else `fail` has raised
        return args[0], loaded(entry), args[1:]

    def _entries(self) -> list[Command]:
        return [command for (group, _), command in registry().commands.items() if group == self.place]

    def _told(self, ctx: Any, args: list[str]) -> str:
        """What to say of a word that is no command here: where it went, or the nearest one."""
        words = [*self.place.split(), *args]
        moved = registry().moved
        for n in range(min(len(words), 3), len(self.place.split()), -1):
            old = " ".join(words[:n])
            new = moved.get(old) or [w for was, to in moved.items() if was.startswith(old + " ") for w in to]
            if new:
                return f"`distk {old}` is called " + ", ".join(f"`distk {word}`" for word in new) + " now."
        where = f"distk {self.place}".strip()
        return f"No such command '{args[0]}'.{nearest(args[0], self.list_commands(ctx))} `{where} --help` lists all."


def shown(entry: Command) -> Any:
    """A command that can be listed; running it needs `loaded`."""
    if entry.built is not None:
        return entry.built
    made = typer.core.TyperCommand(entry.name, help=entry.summary)
    made.rich_help_panel = entry.panel or None
    return made


def loaded(entry: Command) -> Any:
    """The command itself, its module imported. Raises DistkError naming the plugin whose module fails."""
    if entry.built is not None:
        return entry.built
    if not entry.path:
        return group_of(entry)
    found = entry.load()
    made: typer.core.TyperCommand | typer.core.TyperGroup
    if isinstance(found, typer.Typer):
        made = typer.main.get_group(found)
    elif isinstance(found, (typer.core.TyperCommand, typer.core.TyperGroup)):
        made = found
    else:
        made = built_from(found, entry.name)
    made.name = entry.name
    return made


def group_of(entry: Command) -> Any:
    """The group of a name that has no module of its own: a paper's verbs, or a family's."""
    app = typer.Typer(cls=type("Group", (LazyGroup,), {"place": entry.name}), no_args_is_help=True)
    app.info.context_settings = HELP_OPTIONS
    app.callback(help=_about(entry))(lambda: None)
    return typer.main.get_group(app)


def _about(entry: Command) -> str:
    """The help of a group; for a paper also what else it brings."""
    paper = registry().papers.get(entry.name)
    if paper is None:
        return entry.summary
    parts = [f"{entry.summary}."]
    ways = {"method": "train", "dataset": "data", "metric": "eval --metric", "penalty": "train METHOD --penalty"}
    for kind, words in ways.items():
        parts.append("\n".join(f"distk {words} {row.name}: {row.summary}" for row in paper.named(kind)))
    parts.append("What serves every method, such as traverse and eval, stands in `distk --help`.")
    return "\n\n".join(filter(None, parts))


def collect_apps(warn: bool = True) -> None:
    """Give the commands of typer apps their places, each plugin's built alone.

    What fails, or asks for a place that is taken, is a fault of its plugin. warn: say so on stderr.
    """
    found = registry()
    known = set(found.problems)
    for implementation in found.manager.hook.distk_register_commands.get_hookimpls():
        plugin = found.plugins[implementation.plugin_name]
        if "app" in implementation.argnames and plugin.name not in found.merged:
            found.merged.add(plugin.name)
            try:
                with watching() as pressed, loading(f"the commands of {plugin}"):
                    _merge(plugin, implementation)
            except BaseException as error:  # a plugin's broken command must not take the others away
                if isinstance(error, KeyboardInterrupt) and pressed.yes:
                    raise
                plugin.faults.append(f"its commands are left out: {type(error).__name__}: {error}")
    for problem in found.problems:
        if warn and problem not in known:
            console.warn(problem)


def _merge(plugin: Plugin, implementation: Any) -> None:
    """Build one plugin's typer app, and register each command and group that it holds."""
    found = registry()
    app = typer.Typer(add_completion=False)
    app.callback()(lambda: None)
    given: dict[str, Any] = {"app": app}
    if "register" in implementation.argnames:
        given["register"] = lambda *args, **named: found.register_command(plugin, *args, **named)
    implementation.function(**given)
    group = typer.main.get_group(app)  # typer reads the signatures only now, and raises what is wrong with them
    for name, command in group.commands.items():
        found.register_command(plugin, name, "", command.get_short_help_str(200), built=command)


PANELS = {
    "Train": ("train", "resume"),
    "Look into a model": (
        *("traverse", "reconstruct", "sample", "swap", "transfer", "interpolate", "predict", "explore", "info"),
    ),
    "Measure": ("eval", "embed", "tuning", "covmap", "udr", "figure"),
    "Many runs": ("runs", "compare", "report", "study"),
    "What there is": ("list", "data", "plugins", "check", "new-plugin", "export"),
}
"""Headings of `distk --help`, and the commands below each in the order in which one needs them."""
OTHERS = "Further commands"
"""Heading of what stands nowhere in `PANELS`, as a plugin's own."""
PANEL_OF = {name: panel for panel, names in PANELS.items() for name in names}


class Root(LazyGroup):
    """The top level: commands that serve many methods, then a line per paper."""

    def list_commands(self, ctx: Any) -> list[str]:
        collect_apps()
        papers = [name for (_, name), command in registry().commands.items() if command.panel == PAPERS]
        names = [name for name in super().list_commands(ctx) if name not in papers]
        return [n for n in PANEL_OF if n in names] + sorted(n for n in names if n not in PANEL_OF) + sorted(papers)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        found = super().get_command(ctx, cmd_name)
        if found is not None and not getattr(found, "rich_help_panel", None):
            found.rich_help_panel = PANEL_OF.get(cmd_name, OTHERS)
        return found

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if ("", args[0]) not in registry().commands:
            collect_apps()
        return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=Root,
    name="distk",
    help="Train, look into, measure and compare disentangled representations.",
    epilog="Start with: distk train cascadevae --preset demo, then distk traverse and distk eval --metric dci.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings=HELP_OPTIONS,
)


def _version(value: bool) -> None:
    if value:
        console.say(f"distk {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show a traceback when something fails.")] = False,
) -> None:
    if debug:
        os.environ["DISTK_DEBUG"] = "1"


def program() -> Any:
    """The click command of the whole program."""
    return typer.main.get_command(app)
