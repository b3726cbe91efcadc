"""What the registry keeps: plugins, what they announced, and whether a plugin's module keeps the contract."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import re
import sys
from dataclasses import dataclass, field
from typing import Any

from distk import hookspecs
from distk.errors import DistkError
from distk.guard import loading, watching

_BASES = {
    "method": "distk.method:Method",
    "dataset": "distk.data:Dataset",
    "metric": "distk.metric:Metric",
    "penalty": "distk.penalty:Penalty",
    "engine": "distk.study.protocol:Engine",
}
DISABLED = "disabled by DISTK_DISABLE_PLUGINS"


@dataclass(frozen=True)
class Registration:
    """One named object of a plugin; `load()` imports it."""

    kind: str
    name: str
    path: str
    summary: str
    paper: str
    tags: tuple[str, ...]
    aliases: tuple[str, ...]
    plugin: str
    distribution: str
    version: str
    runner: str = ""
    judge: str = ""
    """Paths of a study's functions; its own `path` leads to its recipe."""

    def load(self) -> Any:
        """Import the class that was registered.

        Raises DistkError naming the plugin when the import fails, whatever a stranger's module raises.
        """
        found = self.load_from(self.path)
        module, _, base = _BASES.get(self.kind, "").partition(":")
        # What is derived from the base has imported it: else it is something else, and must not be called.
        kind = getattr(sys.modules.get(module), base, None) if module else object
        if module and not (isinstance(found, type) and kind is not None and issubclass(found, kind)):
            raise DistkError(f"{self.kind} '{self.name}' of {self.owner} is not a subclass of {base}: '{self.path}'.")
        return found

    def load_from(self, path: str) -> Any:
        """Import what stands at one of the paths of this registration, as `load`."""
        return _imported(path, f"{self.kind} '{self.name}' of {self.owner}", self.distribution)

    @property
    def owner(self) -> str:
        """`plugin 'name' (distribution version)` for messages."""
        return f"plugin '{self.plugin}' ({self.distribution} {self.version})"


@dataclass
class Plugin:
    """One plugin as `distk plugins` shows it.

    error: why it is not in use. faults: what is wrong with one that is in use, such as a command that another has.
    """

    name: str
    distribution: str
    version: str
    module: str
    error: str = ""
    provides: dict[str, list[str]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def brings(self, kind: str, name: str) -> None:
        """Note one thing that this plugin provides."""
        self.provides.setdefault(kind, []).append(name)

    @property
    def disabled(self) -> bool:
        """Whether the user switched it off."""
        return self.error == DISABLED

    def __str__(self) -> str:
        return f"plugin '{self.name}' ({self.distribution} {self.version})"


PAPERS = "Papers"
"""Heading above the papers in `distk --help`."""


@dataclass(frozen=True)
class Command:
    """One place on the command line. path: what runs, "" for a group. built: a click command made by the plugin."""

    group: str
    name: str
    path: str
    summary: str
    plugin: Plugin
    panel: str = ""
    built: Any = None

    def load(self) -> Any:
        """What stands at `path`, imported. Raises DistkError naming the plugin when that fails."""
        what = f"command '{f'{self.group} {self.name}'.strip()}' of {self.plugin}"
        found = _imported(self.path, what, self.plugin.distribution)
        if inspect.isbuiltin(found) or isinstance(found, type):
            raise DistkError(f"{what} is no function of Python's but {type(found).__name__} '{self.path}'.")
        return found


def _imported(path: str, what: str, distribution: str) -> Any:
    """What stands at `module:attribute`. Raises DistkError naming `what` for whatever a stranger's module raises."""
    module, _, attribute = path.partition(":")
    quietly = contextlib.nullcontext() if distribution == "distk" or module in sys.modules else loading(what)
    with watching() as pressed:
        try:
            with quietly:
                return getattr(importlib.import_module(module), attribute)
        except DistkError:  # the plugin's own sentence, as about a missing extra
            raise
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt) and pressed.yes:
                raise
            raise DistkError(f"{what} cannot be imported: {told(error)}.") from error


def canonical(name: str) -> str:
    """A distribution's or plugin's name as pip compares it: `My_Plugin` and `my-plugin` are one."""
    return re.sub(r"[-_.]+", "-", name).lower()


def told(error: BaseException) -> str:
    """An exception in one line."""
    text = " ".join(str(error).split()).rstrip(".")
    return f"{type(error).__name__}: {text[:400]}" if text else type(error).__name__


def hold_against_contract(module: Any) -> None:
    """Raises RuntimeError for a newer contract, and for a hook that is unknown, unmarked or of another signature."""
    contract = getattr(module, "DISTK_CONTRACT", hookspecs.CONTRACT)
    if contract > hookspecs.CONTRACT:
        raise RuntimeError(
            f"written for plugin contract {contract}, this distk speaks {hookspecs.CONTRACT}: update distk"
        )
    known = set(hookspecs.names())
    for name, value in vars(module).items():
        if not name.startswith("distk_"):
            continue
        marked = hasattr(value, "distk_impl")
        if marked and name not in known:
            raise RuntimeError(f"'{name}' is not a hook of distk; the hooks are {', '.join(sorted(known))}")
        if name in known and not marked and getattr(value, "__module__", None) == module.__name__:
            raise RuntimeError(f"'{name}' is not marked: put @distk.hookimpl above it")
        if marked and callable(value):
            takes = list(inspect.signature(getattr(hookspecs, name)).parameters)
            wanted = [p.name for p in inspect.signature(value).parameters.values() if p.default is p.empty]
            if not set(wanted) <= set(takes):
                raise RuntimeError(f"hook '{name}' takes ({', '.join(takes)}), not ({', '.join(wanted)})")
