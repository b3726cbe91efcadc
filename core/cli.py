"""The command line: core's own commands and every plugin's, each imported when it runs."""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any

import typer

from distk import __version__
from distk.commandline import HELP_OPTIONS, LazyGroup, collect_apps
from distk.errors import DistkError
from distk.registry import PAPERS, registry

FIRST = ("train", "resume", "eval", "traverse", "reconstruct", "sample", "swap", "transfer", "info", "list", "data")
"""Commands that `distk --help` lists first, in the order in which one needs them; the others follow by name."""


class Root(LazyGroup):
    """The top level: commands that serve many methods, then a line per paper."""

    def list_commands(self, ctx: Any) -> list[str]:
        collect_apps()
        papers = [name for (_, name), command in registry().commands.items() if command.panel == PAPERS]
        names = [name for name in super().list_commands(ctx) if name not in papers]
        return [n for n in FIRST if n in names] + sorted(n for n in names if n not in FIRST) + sorted(papers)

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
    """The click command of the whole program; plugins are looked for when it lists or runs one of their commands."""
    return typer.main.get_command(app)


def main() -> None:
    """Entry point of `distk`. Exit code 0, 1 for a failure, 2 for wrong usage, 128 + n for signal n."""
    from distk import console

    args = sys.argv[1:]
    # --debug is understood wherever it stands, since it is added after the fact, at the end of a failed line.
    if "--debug" in args:
        args = ["--debug", *(a for a in args if a != "--debug")]
    try:
        command = build()
        if [a for a in args if a != "--debug"][:1] not in (["plugins"], ["--version"]):
            for problem in registry().problems:
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
