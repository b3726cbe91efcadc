"""The command line: a typer app that every plugin, the core's own commands included, adds to."""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any

import typer

from distk import __version__
from distk.errors import DistkError, nearest
from distk.registry import registry

FIRST = ("train", "resume", "eval", "traverse", "reconstruct", "sample", "swap", "transfer", "info", "list", "data")
"""Commands that `distk --help` lists first, in the order in which one needs them; the others follow by name."""


class Group(typer.core.TyperGroup):
    """A command group that suggests the nearest name for an unknown command."""

    def list_commands(self, ctx: Any) -> list[str]:
        names = super().list_commands(ctx)
        return [n for n in FIRST if n in names] + sorted(n for n in names if n not in FIRST)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            hint = nearest(args[0], self.list_commands(ctx))
            ctx.fail(f"No such command '{args[0]}'.{hint} `distk --help` lists all.")
        return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=Group,
    name="distk",
    help="Train, look into, measure and compare disentangled representations.",
    epilog="Start with: distk train cascadevae --preset demo, then distk traverse and distk eval --metric dci.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"distk {__version__}")
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


def build() -> Any:
    """The click command of the whole program, with every plugin's commands."""
    found = registry()
    owners: dict[str, str] = {}
    app.registered_commands.clear()  # a program may build the command line twice
    app.registered_groups.clear()
    # The core's own commands come first, so that no plugin can take one of their names.
    for implementation in found.manager.hook.distk_register_commands.get_hookimpls():
        plugin = found.plugins[implementation.plugin_name]
        before = len(app.registered_commands), len(app.registered_groups)
        plugin.faults.clear()
        try:
            implementation.function(app)
            _try(app.registered_commands[before[0] :], app.registered_groups[before[1] :])
        except (Exception, SystemExit) as error:  # a plugin's broken command must not take the others away
            plugin.faults.append(f"its commands are left out: {type(error).__name__}: {error}")
            del app.registered_commands[before[0] :], app.registered_groups[before[1] :]
        for added in (app.registered_commands, app.registered_groups):
            for info in added[before[added is app.registered_groups] :]:
                name = _name(info)
                owner = owners.setdefault(name, plugin.name)
                if owner != plugin.name:
                    plugin.faults.append(f"its command '{name}' is left out: {found.plugins[owner]} has that name")
                    added.remove(info)
    return typer.main.get_command(app)


def _try(commands: list[Any], groups: list[Any]) -> None:
    """Build these commands alone: typer reads their signatures only then, and raises what is wrong with them."""
    alone = typer.Typer()
    alone.registered_commands, alone.registered_groups = commands, groups
    if commands or groups:
        typer.main.get_command(alone)


def _name(info: Any) -> str:
    """The name that a command or group of a typer app is called by."""
    if isinstance(info.name, str):
        return info.name
    if hasattr(info, "typer_instance"):
        return str(info.typer_instance.info.name)
    return typer.main.get_command_name(info.callback.__name__)


def main() -> None:
    """Entry point of `distk`. Exit code 0, 1 for a failure, 2 for wrong usage, 128 + n for signal n."""
    from distk import console

    args = sys.argv[1:]
    # --debug is understood wherever it stands, since it is added after the fact, at the end of a failed line.
    if "--debug" in args:
        args = ["--debug", *(a for a in args if a != "--debug")]
    try:
        command = build()
        for problem in registry().problems if args[:1] != ["plugins"] else []:
            console.warn(problem)
        command.main(args=args, prog_name="distk")
    except DistkError as error:
        _fail(error, str(error), error.exit_code)
    except KeyboardInterrupt:
        console.error("stopped by Ctrl-C.")
        raise SystemExit(130) from None
    except BrokenPipeError:  # the reader of our output went away, as with `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None
    except MemoryError as error:
        _fail(error, "not enough memory: use a smaller --batch or fewer --rows.", 1)
    except Exception as error:
        text = str(error).strip().splitlines()
        if "out of memory" in str(error):
            _fail(error, "the device is out of memory: use a smaller --batch or --device cpu.", 1)
        _fail(error, f"unexpected {type(error).__name__}: {text[0] if text else ''} (add --debug for the traceback)", 1)


def _fail(error: BaseException, message: str, code: int) -> None:
    from distk import console

    if os.environ.get("DISTK_DEBUG"):
        raise error
    console.error(message)
    raise SystemExit(code) from None


if __name__ == "__main__":
    main()
