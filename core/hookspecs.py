"""The whole plugin contract. A plugin is a module with some of these functions, marked `@distk.hookimpl`.

It is found through its entry point in the group `distk`:

    [project.entry-points.distk]
    my_plugin = "my_package.plugin"

Registrations name their objects by import path, so that `distk list` imports no method. Keep `import torch`
out of the module that the entry point names.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pluggy

if TYPE_CHECKING:
    import typer

    from distk.papers import Paper
    from distk.run import Run

CONTRACT = 1
"""Version of this contract. A plugin may say which one it was written for: `DISTK_CONTRACT = 1`."""

hookspec = pluggy.HookspecMarker("distk")
hookimpl = pluggy.HookimplMarker("distk")


class Register(Protocol):
    """The callback that the `distk_register_...` hooks receive."""

    def __call__(
        self,
        name: str,
        path: str,
        summary: str,
        *,
        paper: str = "",
        tags: tuple[str, ...] = (),
        aliases: tuple[str, ...] = (),
    ) -> None:
        """Announce one object.

        name: what the user types, lower case with dashes. path: `"package.module:Class"`, imported on first use.
        summary: one line for `distk list`. paper: short citation. tags: free words. aliases: other names for it.
        """


class RegisterCommand(Protocol):
    """The callback that `distk_register_commands` receives."""

    def __call__(self, name: str, path: str, summary: str, *, group: str = "", was: str = "") -> None:
        """Announce one command.

        name: what the user types. path: `"package.module:function"` with typer's annotations, or a `typer.Typer` app;
        imported when the command runs. An empty path announces a group. summary: one line for `distk --help`.
        group: the group that it stands in; "" is the top level. was: words that called it before.
        """


class RegisterStudy(Protocol):
    """The callback that `distk_register_studies` receives."""

    def __call__(
        self, name: str, path: str, summary: str, *, paper: str = "", runner: str = "", judge: str = ""
    ) -> None:
        """Announce one study.

        name: what `distk study run` takes. path: its recipe in a package, as `"package.name:studies/file.toml"`.
        runner: `"package.module:function"` that yields its rows where it is no grid of trainings (see
        `distk.study.protocol.Runner`). judge: `"package.module:function"` that takes a claim and the rows and returns a
        `distk.study.claims.Verdict`, or None where it knows none, for claims of kinds that the engine does not judge.
        """


class RegisterPaper(Protocol):
    """The callback that `distk_register_papers` receives."""

    def __call__(self, paper: Paper | str) -> None:
        """Announce a paper: its table, or the name of the package that holds the table as `paper`."""


@hookspec
def distk_register_papers(register: RegisterPaper) -> None:
    """Called once at start-up. Register papers, each in a package of its own with its table of contents."""


@hookspec
def distk_register_methods(register: Register) -> None:
    """Called once at start-up. Register subclasses of `distk.Method`."""


@hookspec
def distk_register_datasets(register: Register) -> None:
    """Called once at start-up. Register subclasses of `distk.Dataset`."""


@hookspec
def distk_register_metrics(register: Register) -> None:
    """Called once at start-up. Register subclasses of `distk.Metric`."""


@hookspec
def distk_register_penalties(register: Register) -> None:
    """Called once at start-up. Register subclasses of `distk.Penalty`: a term on the code of ANY method."""


@hookspec
def distk_register_studies(register: RegisterStudy) -> None:
    """Called once at start-up. Register recipes: many runs, what is scored, what was published and what is claimed."""


@hookspec
def distk_register_engines(register: Register) -> None:
    """Called once at start-up. Register subclasses of `distk.study.protocol.Engine`: where a study's jobs run."""


@hookspec
def distk_register_commands(register: RegisterCommand, app: typer.Typer) -> None:
    """Register commands by path with `register`, at start-up; or add them to `app`, the plugin's own typer app.

    An implementation takes the one that it uses. `app` is built, and merged, when the commands of all are listed.
    """


@hookspec
def distk_run_requested(config: dict[str, Any]) -> None:
    """`distk train` or `resume` has its settings, and nothing is written yet; `config` is what `run.config` will be.

    Raise `distk.UsageError` to refuse with one sentence, for example because a package is missing.
    """


@hookspec
def distk_run_started(run: Run, step: int) -> None:
    """A run is about to take its first step, or its first after a resume: the steps from `step` on are still to come.

    `run.path` exists, `run.config` is set. Who writes rows elsewhere drops those of later steps than `step` here, since
    a run that was killed takes them again.
    """


@hookspec
def distk_run_logged(run: Run, step: int, values: dict[str, float]) -> None:
    """A row was written to `log.jsonl`: `values` maps each logged name to its mean since the last row."""


@hookspec
def distk_checkpoint_saved(run: Run, path: Path, step: int) -> None:
    """`path` was written completely (already renamed into place)."""


@hookspec
def distk_run_ended(run: Run, outcome: str) -> None:
    """The run ended: `outcome` is "finished", "interrupted" or "failed"."""


def names() -> list[str]:
    """The names of all hooks."""
    return [name for name, value in globals().items() if name.startswith("distk_") and callable(value)]
