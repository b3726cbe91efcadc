"""Finds plugins through their entry points and keeps what they registered, with where it came from."""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import os
import re
from dataclasses import dataclass, field
from typing import Any

import pluggy

from distk import hookspecs
from distk.errors import DistkError, unknown

KINDS = ("method", "dataset", "metric", "penalty")
_HOOK = {
    "method": "distk_register_methods",
    "dataset": "distk_register_datasets",
    "metric": "distk_register_metrics",
    "penalty": "distk_register_penalties",
}


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

    def load(self) -> Any:
        """Import the class that was registered.

        Raises DistkError naming the plugin when the import fails.
        """
        module, _, attribute = self.path.partition(":")
        try:
            return getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise DistkError(
                f"{self.kind} '{self.name}' of plugin '{self.plugin}' ({self.distribution} {self.version}) "
                f"cannot be imported: {error}."
            ) from error


@dataclass
class Plugin:
    """One plugin as `distk plugins` shows it; `error` says why it is not in use."""

    name: str
    distribution: str
    version: str
    module: str
    error: str = ""
    provides: dict[str, list[str]] = field(default_factory=dict)


class Registry:
    """All plugins and what they registered. Build it once with `registry()`."""

    def __init__(self) -> None:
        self.manager = pluggy.PluginManager("distk")
        self.manager.add_hookspecs(hookspecs)
        self.plugins: dict[str, Plugin] = {}
        self._entries: dict[str, dict[str, Registration]] = {kind: {} for kind in KINDS}
        self._names: dict[str, dict[str, list[Registration]]] = {kind: {} for kind in KINDS}

    def discover(self) -> None:
        """Load every entry point of the group `distk` that `DISTK_DISABLE_PLUGINS` does not name."""
        disabled = {name for name in re.split(r"[,\s]+", os.environ.get("DISTK_DISABLE_PLUGINS", "")) if name}
        self.add("commands", "distk.commands", "distk", _version("distk"))
        # Sorted, so that neither conflicts nor listings depend on the order of folders on sys.path.
        points = sorted(importlib.metadata.entry_points(group="distk"), key=lambda p: (p.name, p.value))
        for point in points:
            name = point.dist.metadata["Name"] if point.dist else "?"
            version = point.dist.version if point.dist else "?"
            if point.name in disabled or name in disabled:
                self.plugins[point.name] = Plugin(
                    point.name, name, version, point.value, "disabled by DISTK_DISABLE_PLUGINS"
                )
            else:
                self.add(point.name, point.value, name, version)

    def add(self, name: str, module: str, distribution: str, version: str) -> None:
        """Import one plugin module and run its registration hooks. A plugin that fails is kept with its error."""
        if name in self.plugins:
            first = self.plugins[name]
            if first.module == module:  # one distribution seen twice, as with an editable install on sys.path
                return
            name = f"{name} ({distribution})"
        plugin = self.plugins[name] = Plugin(name, distribution, version, module)
        try:
            loaded = importlib.import_module(module)
            contract = getattr(loaded, "DISTK_CONTRACT", hookspecs.CONTRACT)
            if contract > hookspecs.CONTRACT:
                raise RuntimeError(
                    f"written for plugin contract {contract}, this distk speaks {hookspecs.CONTRACT}: update distk"
                )
            _refuse_unknown_hooks(loaded)
            self.manager.register(loaded, name=name)
            for kind in KINDS:
                hook = self.manager.subset_hook_caller(
                    _HOOK[kind], [p for n, p in self.manager.list_name_plugin() if n != name]
                )
                hook(register=functools.partial(self._register, kind, plugin))
        except Exception as error:  # a stranger's module may raise anything; the others must go on
            plugin.error = f"{type(error).__name__}: {error}"
            self.manager.set_blocked(name) if not self.manager.has_plugin(name) else self.manager.unregister(name=name)
            for kind in KINDS:
                self._entries[kind] = {k: v for k, v in self._entries[kind].items() if v.plugin != name}
                for claims in self._names[kind].values():
                    claims[:] = [claim for claim in claims if claim.plugin != name]

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
    ) -> None:
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
        )
        self._entries[kind].setdefault(name, entry)
        plugin.provides.setdefault(kind, []).append(name)
        for claimed in (name, *aliases):
            self._names[kind].setdefault(claimed, []).append(entry)

    def entries(self, kind: str) -> list[Registration]:
        """Everything registered of one kind ("method", "dataset", "metric", "penalty"), sorted by name."""
        return sorted(self._entries[kind].values(), key=lambda entry: entry.name)

    def find(self, kind: str, name: str) -> Registration:
        """The registration of a name or alias.

        Raises UsageError for an unknown name (with the nearest one) and for a name that two plugins claim.
        """
        claims = self._names[kind].get(name, [])
        owners = {(claim.plugin, claim.path): claim for claim in claims}
        if len(owners) > 1:
            claimants = " and ".join(f"'{c.plugin}' ({c.distribution} {c.version})" for c in owners.values())
            raise DistkError(
                f"the {kind} name '{name}' is claimed by two plugins: {claimants}. "
                "Uninstall one of them or name it in DISTK_DISABLE_PLUGINS."
            )
        if not claims:
            raise self._unknown(kind, name)
        return claims[0]

    def _unknown(self, kind: str, name: str) -> DistkError:
        broken = [p for p in self.plugins.values() if p.error and not p.error.startswith("disabled")]
        error = unknown(kind, name, [n for n, claims in self._names[kind].items() if claims])
        if broken:
            error.args = (f"{error} Not loaded: {', '.join(f'{p.name} ({p.error})' for p in broken)}.",)
        return error

    @property
    def problems(self) -> list[str]:
        """One line for each plugin that is not in use through a fault of its own, and for each name clash."""
        lines = [
            f"plugin '{p.name}' ({p.distribution} {p.version}) is not in use: {p.error}"
            for p in self.plugins.values()
            if p.error and not p.error.startswith("disabled")
        ]
        for kind in KINDS:
            for name, claims in self._names[kind].items():
                if len({(claim.plugin, claim.path) for claim in claims}) > 1:
                    owners = " and ".join(sorted({f"{c.plugin} ({c.distribution} {c.version})" for c in claims}))
                    lines.append(f"the {kind} name '{name}' is claimed by {owners}")
        return lines

    def event(self, hook: str, **arguments: Any) -> None:
        """Call one of the run's events in every plugin; a plugin that raises is warned about once, the run goes on."""
        from distk.console import warn_once

        caller = getattr(self.manager.hook, hook)
        for implementation in reversed(caller.get_hookimpls()):
            try:
                implementation.function(*(arguments[name] for name in implementation.argnames))
            except Exception as error:  # a logger of somebody else must not end a training run
                warn_once(f"plugin '{implementation.plugin_name}' failed in {hook}: {type(error).__name__}: {error}")


def _refuse_unknown_hooks(module: Any) -> None:
    known = set(hookspecs.names())
    for name, value in vars(module).items():
        if name.startswith("distk_") and hasattr(value, "distk_impl") and name not in known:
            raise RuntimeError(f"'{name}' is no hook of distk; the hooks are {', '.join(sorted(known))}")


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
