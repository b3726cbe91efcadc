"""The program `distk`: runs the command line, and turns what fails into one sentence and an exit code.

`distk --version` needs nothing else, so this module imports the command line when it is used.
"""

from __future__ import annotations

import os
import sys
from typing import Any, NoReturn

from distk.errors import DistkError, no_memory


def build() -> Any:
    """The click command of the whole program; plugins are looked for when it lists or runs one of their commands."""
    from distk.commandline import program

    return program()


def main() -> None:
    """Entry point of `distk`. Exit code 0, 1 for a failure, 2 for wrong usage, 128 + n for signal n."""
    try:
        _main(sys.argv[1:])
    except KeyboardInterrupt:  # while what is needed is imported, the console itself, too
        sys.stderr.write("error: stopped by Ctrl-C.\n")
        raise SystemExit(130) from None


def _main(args: list[str]) -> None:
    if args == ["--version"]:
        from distk.version import __version__

        print(f"distk {__version__}")
        return
    _wait_passively()
    from distk import console
    from distk.registry import registry

    # --debug is understood wherever it stands, since it is added after the fact, at the end of a failed line.
    if "--debug" in args:
        args = ["--debug", *(a for a in args if a != "--debug")]
    try:
        os.getcwd()
    except OSError as error:  # libraries fail over it one after the other, some of them by ending the process
        _fail(error, "the working folder was removed: change to another one.", 1)
    try:
        command = build()
        if [a for a in args if a != "--debug"][:1] != ["plugins"]:
            for problem in registry().problems:
                console.warn(problem)
        ended = command.main(args=args, prog_name="distk", standalone_mode=False)
    except DistkError as error:
        _fail(error, str(error), error.exit_code)
    except BrokenPipeError:  # the reader of our output went away, as with `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None
    except Exception as error:
        if hasattr(error, "format_message"):  # of click, or of the copy of it that a newer typer brings
            _misused(error, args)
        text = str(error).strip().splitlines()
        if "out of memory" in str(error):
            _fail(error, "the device is out of memory: use a smaller --batch or --device cpu.", 1)
        if no_memory(error):
            _fail(error, "not enough memory: use a smaller --batch or fewer --rows.", 1)
        _fail(error, f"unexpected {type(error).__name__}: {text[0] if text else ''} (add --debug for the traceback)", 1)
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # what code in Rust raises, such as safetensors without memory
            raise
        _fail(error, f"a library gave up ({error}), most likely for want of memory: take less of what is large.", 1)
    if ended == 130:  # how click says that Ctrl-C came
        raise KeyboardInterrupt
    raise SystemExit(ended if isinstance(ended, int) else 0)  # the code of an `Exit`; commands return nothing


def _misused(error: Any, args: list[str]) -> NoReturn:
    """End with the one sentence over words that cannot be read; a group without a command shows its help instead."""
    from distk.helping import complaint

    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
        raise SystemExit(error.exit_code) from None
    _fail(error, complaint(error, args), error.exit_code)


def _wait_passively() -> None:
    """Let threads that have nothing to do sleep instead of spinning, unless the user says how they wait.

    OpenMP lets them spin for milliseconds. Beside any other busy process they spin while the thread that they wait for
    has no core: a step of two threads takes ten times as long as of one. Asleep they are about as fast as one thread in
    both states. It has to be said before torch is imported.
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"} & os.environ.keys():
        os.environ["OMP_WAIT_POLICY"] = "passive"


def _fail(error: BaseException, message: str, code: int) -> NoReturn:
    from distk import console

    if os.environ.get("DISTK_DEBUG"):
        raise error
    console.error(message)
    raise SystemExit(code) from None


if __name__ == "__main__":
    main()
