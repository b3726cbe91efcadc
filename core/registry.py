"""Finds plugins through their entry points and keeps what they registered, with where it came from."""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.metadata
import os
import re
from typing import Any, cast

import pluggy

from distk import hookspecs
from distk.errors import MANY, DistkError, UsageError, nearest, unknown
from distk.guard import loading, restored, watching
from distk.papers import KINDS, Paper
from distk.registered import DISABLED, PAPERS, Command, Plugin, Registration, canonical, hold_against_contract, told

PLURALS = {
    "method": "methods",
    "dataset": "datasets",
    "metric": "metrics",
    "penalty": "penalties",
    "study": "studies",
    "engine": "engines",
}
"""What each kind of what is registered is called where it is listed."""
_HOOK = {
    "method": "distk_register_methods",
    "dataset": "distk_register_datasets",
    "metric": "distk_register_metrics",
    "penalty": "distk_register_penalties",
    "study": "distk_register_studies",
    "engine": "distk_register_engines",
}
EXTRAS = ("tensorboard", "mlflow")
"""Loggers that are plugins of distk itself."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]*")
_PATH = re.compile(r"\w+(\.\w+)*:\w+")
_RECIPE = re.compile(r"\w+(\.\w+)*:(\w[\w.-]*/)*\w[\w.-]*\.toml")


class Registry:
    """All plugins and what they registered. Build it once with `registry()`."""

    def __init__(self) -> None:
        self.manager = pluggy.PluginManager("distk")
        self.manager.add_hookspecs(hookspecs)
        self.plugins: dict[str, Plugin] = {}
        self._entries: dict[str, dict[str, Registration]] = {kind: {} for kind in KINDS}
        self._names: dict[str, dict[str, list[Registration]]] = {kind: {} for kind in KINDS}
        self.papers: dict[str, Paper] = {}
        self.commands: dict[tuple[str, str], Command] = {}
        """What stands where on the command line, by (group, name); the top level is the group "". """
        self.moved: dict[str, list[str]] = {}
        """Words that called a command before -> the words that do now."""
        self.merged: set[str] = set()
        """Plugins whose typer app is merged already."""

    def discover(self) -> None:
        """Load every entry point of the group `distk` that `DISTK_DISABLE_PLUGINS` does not name."""
        listed = re.split(r"[,\s]+", os.environ.get("DISTK_DISABLE_PLUGINS", ""))
        disabled = {canonical(name) for name in listed if name}
        self.add("commands", "distk.commands", "distk", _version("distk"))
        # Sorted, so that neither conflicts nor listings depend on the order of folders on sys.path.
        points = sorted(importlib.metadata.entry_points(group="distk"), key=lambda p: (p.name, p.value))
        for point in points:
            name = point.dist.metadata["Name"] if point.dist else "?"
            version = point.dist.version if point.dist else "?"
            if disabled & {canonical(point.name), canonical(name)}:
                free = point.name if point.name not in self.plugins else f"{point.name} ({name})"
                self.plugins[free] = Plugin(free, name, version, point.value, DISABLED)
            else:
                self.add(point.name, point.value, name, version)

    def add(self, name: str, module: str, distribution: str, version: str) -> None:
        """Import one plugin module and run its registration hooks. A plugin that fails is kept with its error."""
        if name in self.plugins:
            first = self.plugins[name]
            if first.module == module and not first.disabled:  # an editable install may be on sys.path twice
                return
            name = f"{name} ({distribution})"
        plugin = self.plugins[name] = Plugin(name, distribution, version, module)
        # Our own are quick: a thread for each would be a tenth of a start.
        quietly = contextlib.nullcontext() if distribution == "distk" else loading(str(plugin))
        with watching() as pressed:
            try:
                with quietly:
                    self._load(plugin)
            except BaseException as error:  # a stranger's module may raise anything; the others must go on
                if isinstance(error, KeyboardInterrupt) and pressed.yes:
                    stopped = DistkError(f"stopped by Ctrl-C while {plugin} was being loaded.")
                    stopped.exit_code = 130
                    raise stopped from error
                plugin.error = told(error)
                self._forget(plugin)

    def _load(self, plugin: Plugin) -> None:
        name = plugin.name
        loaded = importlib.import_module(plugin.module)
        hold_against_contract(loaded)
        self.manager.register(loaded, name=name)
        for kind in KINDS:
            hook = self.manager.subset_hook_caller(
                _HOOK[kind], [p for n, p in self.manager.list_name_plugin() if n != name]
            )
            hook(register=functools.partial(self._register, kind, plugin))
        for implementation in self._implementations("distk_register_papers", name):
            implementation.function(register=functools.partial(self._register_paper, plugin))
        for implementation in self._implementations("distk_register_commands", name):
            if "app" not in implementation.argnames:
                implementation.function(register=functools.partial(self.register_command, plugin))
        if name in self._followers():
            # Of a plugin that brings other things, following runs is part of these unless it says otherwise.
            own = not plugin.provides or getattr(self.manager.get_plugin(name), "DISTK_LOGGER", False)
            plugin.brings("logger" if own else "hook", name if own else "follows runs")

    def _implementations(self, hook: str, plugin: str) -> list[Any]:
        """A plugin's implementations of one hook."""
        return [i for i in getattr(self.manager.hook, hook).get_hookimpls() if i.plugin_name == plugin]

    def _forget(self, plugin: Plugin) -> None:
        """Take back what a plugin registered before it failed."""
        if self.manager.has_plugin(plugin.name):
            self.manager.unregister(name=plugin.name)
        plugin.provides.clear()
        plugin.faults.clear()
        self.merged.discard(plugin.name)
        self.papers = {n: p for n, p in self.papers.items() if self.commands[("", n)].plugin is not plugin}
        self.commands = {place: c for place, c in self.commands.items() if c.plugin is not plugin}
        for kind in KINDS:
            for name, claims in self._names[kind].items():
                claims[:] = [claim for claim in claims if claim.plugin != plugin.name]
                if self._entries[kind].get(name) not in claims:
                    self._entries[kind].pop(name, None)
                    for claim in claims:
                        if claim.name == name:
                            self._entries[kind].setdefault(name, claim)
        standing = {f"{group} {name}".strip() for group, name in self.commands}
        standing |= {f"study run {name}" for name in self._entries["study"]}
        kept = {was: [word for word in words if word in standing] for was, words in self.moved.items()}
        self.moved = {was: words for was, words in kept.items() if words}

    def _register(
        self,
        kind: str,
        plugin: Plugin,
        name: str,
        path: str,
        summary: str,
        *,
        paper: str = "",
        tags: tuple[str, ...] = (),
        aliases: tuple[str, ...] = (),
        runner: str = "",
        judge: str = "",
    ) -> None:
        for given in (name, *aliases):
            if not isinstance(given, str) or not _NAME.fullmatch(given):
                raise ValueError(f"{kind} name {given!r} must be letters, digits and . _ @ + - after a letter or digit")
        form, shown = (
            (_RECIPE, "package.name:studies/file.toml") if kind == "study" else (_PATH, "package.module:Class")
        )
        if not isinstance(path, str) or not form.fullmatch(path):
            raise ValueError(f"{kind} '{name}' must be registered as '{shown}', not {path!r}")
        for function in (runner, judge):
            if function and not _PATH.fullmatch(function):
                raise ValueError(
                    f"study '{name}' must name its functions as 'package.module:function', not {function!r}"
                )
        entry = Registration(
            kind,
            name,
            path,
            summary,
            paper,
            tuple(tags),
            tuple(aliases),
            plugin.name,
            plugin.distribution,
            plugin.version,
            runner,
            judge,
        )
        self._entries[kind].setdefault(name, entry)
        plugin.brings(kind, name)
        for claimed in (name, *aliases):
            self._names[kind].setdefault(claimed, []).append(entry)
        if kind == "study":
            self.moved.setdefault(f"study {name}", []).append(f"study run {name}")

    def _register_paper(self, plugin: Plugin, paper: Paper | str) -> None:
        if isinstance(paper, str):
            paper = cast(Paper, importlib.import_module(paper).paper)
        for row in paper.rows:
            if row.kind != "command":
                self._register(
                    row.kind,
                    plugin,
                    row.name,
                    row.path,
                    row.summary,
                    paper=row.cite,
                    tags=row.tags,
                    aliases=row.aliases,
                    runner=row.runner,
                    judge=row.judge,
                )
        if self.register_command(plugin, paper.name, "", paper.title, panel=PAPERS):
            self.papers[paper.name] = paper
            plugin.brings("paper", paper.name)
            for row in paper.named("command"):
                self.register_command(plugin, row.name, row.path, row.summary, group=paper.name, was=row.was)

    def register_command(
        self,
        plugin: Plugin,
        name: str,
        path: str,
        summary: str,
        *,
        group: str = "",
        was: str = "",
        panel: str = "",
        built: Any = None,
    ) -> bool:
        """Put a command in its place; False, with a fault that names both plugins, where the place is taken.

        built: the click command itself, of a plugin that gave a typer app instead of a path.
        """
        if not _NAME.fullmatch(name) or (group and not _NAME.fullmatch(group)):
            raise ValueError(f"command name {name!r} must be letters, digits and . _ @ + - after a letter or digit")
        if path and not _PATH.fullmatch(path):
            raise ValueError(f"command '{name}' must be registered as 'package.module:function', not {path!r}")
        if group and ("", group) not in self.commands:
            raise ValueError(f"command '{name}' names the group '{group}', which must be announced first")
        words = f"{group} {name}".strip()
        first = self.commands.get((group, name))
        if first is not None:
            if first.plugin is plugin and first.path == path:
                return True
            plugin.faults.append(f"its command '{words}' is left out: {first.plugin} has that name")
            return False
        self.commands[(group, name)] = Command(group, name, path, summary, plugin, panel, built)
        if path:
            plugin.brings("command", words)
        for inner in _words_below(words, built) if built is not None else ():
            plugin.brings("command", inner)
        if was:
            self.moved.setdefault(was, []).append(words)
        return True

    def entries(self, kind: str) -> list[Registration]:
        """Everything registered of one kind, one of `KINDS`, sorted by name."""
        return sorted(self._entries[kind].values(), key=lambda entry: entry.name)

    def find(self, kind: str, name: str) -> Registration:
        """The registration of a name or alias.

        Raises UsageError for an unknown name (with the nearest one) and for a name that two plugins claim.
        """
        claims = self._names[kind].get(name, [])
        owners = {(claim.plugin, claim.path): claim for claim in claims}
        if len(owners) > 1:
            claimants = " and ".join(claim.owner for claim in owners.values())
            raise DistkError(
                f"the {kind} name '{name}' is claimed by {claimants}. "
                "Uninstall one of them or name it in DISTK_DISABLE_PLUGINS."
            )
        if not claims:
            raise self._unknown(kind, name)
        return claims[0]

    def loaded(self, kind: str, name: str) -> Any:
        """What `find` and `load` give; None where nothing of this name can be had, for those who go on without it."""
        try:
            return self.find(kind, name).load()
        except DistkError:
            return None

    def _unknown(self, kind: str, name: str) -> DistkError:
        broken = [p for p in self.plugins.values() if p.error and not p.disabled]
        known = [n for n, claims in self._names[kind].items() if claims]
        if kind == "dataset" and os.path.exists(name):
            return UsageError(
                f"'{name}' is a file or a folder: say which data set reads it by --data NAME (`distk list dataset` "
                f"shows all), and where it lies by --data-dir {name}."
            )
        if len(known) > MANY:
            error = UsageError(f"unknown {kind} '{name}'.{nearest(name, known)} `distk list {kind}` shows all.")
        else:
            error = unknown(kind, name, known)
        if broken:
            error.args = (f"{error} Not loaded: {', '.join(f'{p.name} ({p.error})' for p in broken)}.",)
        return error

    def absence(self, plugin: str, distribution: str) -> str:
        """Why what a file says came from this plugin is not here, as the end of a sentence; empty if it should be."""
        found = [p for p in self.plugins.values() if p.name == plugin and p.distribution == distribution]
        if not found:
            # The name stands in a file that a stranger may have written: no command to copy and paste.
            return f"which is not installed here: install the distribution '{distribution}' if you trust its origin"
        if found[0].disabled:
            return "which DISTK_DISABLE_PLUGINS switches off"
        return f"which is not in use: {found[0].error}" if found[0].error else ""

    @property
    def problems(self) -> list[str]:
        """One line for each plugin that is not in use through a fault of its own, and for each name clash."""
        lines = []
        for plugin in self.plugins.values():
            if plugin.error and not plugin.disabled:
                lines.append(f"{plugin} is not in use: {plugin.error}")
            lines += [f"{plugin}: {fault}" for fault in plugin.faults]
        for kind in KINDS:
            for name, claims in self._names[kind].items():
                if len({(claim.plugin, claim.path) for claim in claims}) > 1:
                    owners = " and ".join(sorted({claim.owner for claim in claims}))
                    lines.append(f"the {kind} name '{name}' is claimed by {owners}")
        return lines

    # Runs

    def _followers(self) -> set[str]:
        """Names of the plugins that follow a run, by its rows or by any later event: what `--log` may name."""
        events = ("started", "logged", "ended")
        hooks = [
            *(getattr(self.manager.hook, f"distk_run_{e}") for e in events),
            self.manager.hook.distk_checkpoint_saved,
        ]
        return {implementation.plugin_name for hook in hooks for implementation in hook.get_hookimpls()}

    @property
    def loggers(self) -> list[str]:
        """Names of the plugins that are there to record runs, which `--log` is for."""
        return sorted(name for plugin in self.plugins.values() for name in plugin.provides.get("logger", ()))

    def _no_logger(self, name: str) -> UsageError:
        """What to say of a `--log` that no plugin answers to: which package would provide it."""
        there = f"Installed: {', '.join(self.loggers) or 'none'}."
        if name in EXTRAS:
            return UsageError(f"--log {name} needs the extra of that name: pip install 'distk[{name}]'. {there}")
        near = nearest(name, self.loggers)
        return UsageError(
            f"--log {name}: no plugin of that name is installed.{near} A package with the entry point '{name}' in the "
            f"group distk would provide it; 'Following runs' in docs/plugins.md shows how one is written. {there}"
        )

    def prepare_run(self, config: dict[str, Any], resumed: bool = False) -> None:
        """Before a run writes anything: find the plugins of `--log`, and let every plugin refuse.

        config: sections as `run.config`. Raises UsageError for an unknown logger or a refusal; a resumed run, whose
        settings are those of another day or machine, is only warned.
        """
        from distk.console import warn

        try:
            for name in config["train"].get("log", ()):
                if name not in self._followers():
                    raise self._no_logger(name)
            self.event("distk_run_requested", config=config)
        except UsageError as error:
            if not resumed:
                raise
            warn(f"{error} The run goes on without.")

    def event(self, hook: str, **arguments: Any) -> None:
        """Call one of the run's events in every plugin; a plugin that raises is warned about once, the run goes on.

        Raises UsageError where a plugin refuses a run in `distk_run_requested`.
        """
        from distk.console import warn_once

        caller = getattr(self.manager.hook, hook)
        for implementation in caller.get_hookimpls():
            plugin = self.plugins[implementation.plugin_name]
            changed: list[str] = []
            with watching() as pressed:
                try:
                    with restored(arguments.get("run")) as changed:
                        implementation.function(*(arguments[name] for name in implementation.argnames))
                except BaseException as error:  # a logger of somebody else must not end a training run
                    if hook == "distk_run_requested" and isinstance(error, UsageError):
                        raise
                    if isinstance(error, KeyboardInterrupt) and pressed.yes:
                        raise
                    warn_once(f"{plugin} failed in {hook}: {told(error)}")
            for what in changed:
                warn_once(f"{plugin} {what} in {hook}: that was put back")


def _words_below(words: str, built: Any) -> list[str]:
    """What a click command is called by, or the commands within a group."""
    inner = getattr(built, "commands", {})
    return [word for name, command in inner.items() for word in _words_below(f"{words} {name}", command)] or [words]


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "0+unknown"


@functools.cache
def registry() -> Registry:
    """The registry of this process, with all plugins loaded."""
    made = Registry()
    made.discover()
    return made
