"""From a recipe to complete settings of every run; what can be wrong is found here, before anything trains."""

from __future__ import annotations

import dataclasses
import importlib.resources
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from distk.asked import OWN, Asked, asked
from distk.config import NoConfig, from_dict, to_dict
from distk.errors import DistkError, UsageError, nearest, unknown
from distk.registered import Registration
from distk.registry import registry
from distk.run import RUNS
from distk.settings import Settings, resolve
from distk.study.layers import layered
from distk.study.parse import parse
from distk.study.recipe import Column, Recipe, Variant

SHOWN = ("train.steps", "data.name", "train.log_every", "train.checkpoint_every")
"""Settings that have a column of their own in the table of differences, or that change no result."""
LARGEST = 4 << 20
"""Bytes of a recipe that we agree to read."""


@dataclass
class Plan:
    """A recipe with where it runs.

    entry: the study's registration, or that of the runner which a user's file names; None for a plain file.
    seeds: those asked for. out: the study's folder. sizes: parameters by variant, once models were built; starts: how
    large their weights begin (`checks.initial_gain`).
    """

    recipe: Recipe
    entry: Registration | None
    seeds: tuple[int, ...]
    out: Path
    device: str = "auto"
    sizes: dict[str, int] = field(default_factory=dict)
    starts: dict[str, float | None] = field(default_factory=dict)
    _settings: dict[str, Settings] = field(default_factory=dict)

    @property
    def variants(self) -> list[Variant]:
        """Those that are run, and not only quoted."""
        return [v for v in self.recipe.variants if not v.quoted]

    def settings(self, variant: Variant, seed: int) -> Settings:
        """Complete settings of one run. Raises UsageError for what its method, trainer or data does not know."""
        if variant.label not in self._settings:
            try:
                self._settings[variant.label] = self._resolved(variant)
            except UsageError as error:
                raise UsageError(f"variant '{variant.label}': {error}") from error
        found = self._settings[variant.label]
        return dataclasses.replace(found, train=dataclasses.replace(found.train, seed=seed))

    def sections(self, variant: Variant) -> dict[str, dict[str, Any]]:
        """What a variant is, without its seed and where it runs: what must not change between two runs of a study."""
        found: dict[str, dict[str, Any]] = {}
        if variant.method:
            settings = self.settings(variant, 0)
            found = {"method": {"name": settings.entry.name}, **settings.to_dict()}
            found["train"] = {k: v for k, v in found["train"].items() if k not in ("seed", "device")}
        if self.runner is not None:
            found["settings"] = to_dict(self.runner_settings(variant))
        return found

    def _resolved(self, variant: Variant) -> Settings:
        recipe, forced = self.recipe, self.recipe.forced
        own = registry().find("method", variant.method)
        names = (own.name, *own.aliases)
        model = [recipe.model, *(recipe.models.get(n, {}) for n in names), variant.model, forced.get("model", {})]
        model += [forced.get(n, {}) for n in names]
        train = {**recipe.train, **self._selection(), **variant.train, **forced.get("train", {}), "device": self.device}
        data = layered([self._common_data, recipe.data, variant.data, forced.get("data", {})])
        sections = {"model": {k: v for part in model for k, v in part.items()}, "data": data, "train": train}
        return resolve(variant.method, preset=self.preset(variant), options=sections)

    def preset(self, variant: Variant) -> str | None:
        """The variant's own preset, or the study's where the method has one of that name."""
        presets = registry().find("method", variant.method).load().presets
        return variant.preset if variant.preset is not None or self.recipe.preset not in presets else self.recipe.preset

    @cached_property
    def _common_data(self) -> dict[str, Any]:
        """The data of the first method as it comes, for all variants: without a word in the recipe they must agree."""
        if self.recipe.data.get("name") or not self.variants or not self.variants[0].method:
            return {}
        first = resolve(self.variants[0].method, preset=self.preset(self.variants[0]))
        return {"name": first.data, **({"dir": first.data_dir} if first.data_dir else {}), **first.data_options}

    def _selection(self) -> dict[str, Any]:
        """What [select] asks of training: a column's score, on its `on` or else the data's validation split."""
        if not self.recipe.select:
            return {}
        column, select = selecting(self.recipe), self.recipe.select
        name = registry().find("metric", column.metric).name
        settings = {k: v for k, v in self.options(column).items() if k not in OWN}
        return {"keep": f"best:{Asked(name, settings, select.get('on')).text}", "eval_every": select["every"]}

    def options(self, column: Column) -> dict[str, Any]:
        """Settings of the metric behind a column: those of the study, and over them the column's own; and its `split`,
        if it names one."""
        names = _all_names(column.metric, "metric")
        shared = {k: v for name in names for k, v in self.recipe.options.get(name, {}).items()}
        own: dict[str, Any] = {}
        for one in asked([column.text]) if column.text else ():
            own = {**one.settings, **({"split": one.split} if one.split else {})}
        return {**shared, **own, **column.options}

    # Runners

    @cached_property
    def runner(self) -> Any:
        """The function that yields the rows, or None for a grid of trainings."""
        if self.entry is None or not self.recipe.runner:
            return None
        return self.entry.load_from(self.entry.runner)

    def runner_settings(self, variant: Variant) -> Any:
        """A variant's settings as an instance of the runner's Config. Raises UsageError for what it does not know."""

        config = getattr(self.runner, "Config", NoConfig)
        values = {**self.recipe.settings, **variant.settings, **self.recipe.forced.get("settings", {})}
        return from_dict(config, values, f"runner '{self.recipe.runner}'")


def plan(
    what: str,
    *,
    scale: str | None = None,
    seeds: str | None = None,
    sets: Sequence[str] = (),
    out: Path | None = None,
    device: str = "auto",
) -> Plan:
    """The plan of a registered study or of a recipe file, its words looked up and its settings checked.

    seeds: "N" or "A:B". Raises UsageError for whatever is wrong in the recipe or in what was asked for.
    """
    text, name, entry = read(what)
    recipe = parse(text, name, scale=scale, sets=sets, runner=name if entry is not None and entry.runner else "")
    return planned(recipe, entry, out, parse_seeds(seeds) if seeds else recipe.seeds, device)


def planned(
    recipe: Recipe, entry: Registration | None, out: Path | None, seeds: tuple[int, ...], device: str = "auto"
) -> Plan:
    """The plan of a parsed recipe; entry: its registration, None for a file of the user's."""
    if recipe.runner:
        entry = registry().find("study", recipe.runner)
        if not entry.runner:
            raise UsageError(f"study '{recipe.name}' names the runner '{recipe.runner}', a study that has no runner.")
    made = Plan(recipe, entry, seeds, out or RUNS / f"study-{recipe.name}", device)
    if not recipe.variants and made.runner is None:
        raise UsageError(f"study '{recipe.name}' has no [[variants]].")
    if recipe.settings and made.runner is None:
        raise UsageError(f"study '{recipe.name}' has [settings], which only runners take.")
    _known_methods(made)
    if recipe.select:
        selecting(recipe)
    for variant in made.variants:
        if variant.method:
            made.settings(variant, 0)
        if made.runner is not None:
            made.runner_settings(variant)
        elif not variant.method:
            raise UsageError(f"study '{recipe.name}': variant '{variant.label}' names no method.")
        elif variant.settings:
            raise UsageError(
                f"study '{recipe.name}': variant '{variant.label}' has [settings], which only runners take."
            )
    _held_equal(made)
    return made


def _held_equal(made: Plan) -> None:
    """Raise UsageError where variants differ in what the recipe says to be equal. A variant whose method has no such
    setting is left out; one that nobody has is a mistake."""
    flat = {v.label: _flat(made, v) for v in made.variants}
    for name in made.recipe.equal:
        held = {
            label: {k: v for k, v in settings.items() if k == name or k.startswith(f"{name}.")}
            for label, settings in flat.items()
        }
        held = {label: values for label, values in held.items() if values}
        if not held:
            keys = {k for settings in flat.values() for k in settings}
            raise UsageError(
                f"study '{made.recipe.name}': 'equal' names '{name}', which no variant has.{nearest(name, keys)}"
            )
        first = next(iter(held))
        for label, values in held.items():
            for key in sorted({*values, *held[first]}):
                if (one := held[first].get(key)) != (other := values.get(key)):
                    raise UsageError(
                        f"study '{made.recipe.name}' says that its variants are equal in '{name}', but {key} is {one} "
                        f"of '{first}' and {other} of '{label}'."
                    )


def read(what: str) -> tuple[str, str, Registration | None]:
    """(recipe, name, registration) of a registered study, or of a file; its name is that of the file.

    Raises UsageError where there is neither, DistkError for a recipe that cannot be read.
    """
    known = [e.name for e in registry().entries("study")]
    path = Path(what)
    if what in known or not (path.suffix == ".toml" or path.exists()):
        if what not in known:
            error = unknown("study", what, known)
            raise UsageError(f"{error} A recipe of your own is named by its file, such as ./{what}.toml.")
        entry = registry().find("study", what)
        package, _, file = entry.path.partition(":")
        try:
            return (importlib.resources.files(package) / file).read_text(encoding="utf-8"), entry.name, entry
        except (OSError, ImportError, UnicodeDecodeError) as error:
            raise DistkError(f"study '{what}' of {entry.owner} cannot be read: {error}.") from error
    if not path.is_file():
        raise UsageError(f"recipe '{what}' {'is no file' if path.exists() else 'does not exist'}.")
    try:
        if path.stat().st_size > LARGEST:
            raise UsageError(f"recipe '{what}' is larger than {LARGEST >> 20} MiB, which no recipe is.")
        return path.read_text(encoding="utf-8-sig"), path.stem, None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"recipe '{what}' cannot be read: {error}.") from error


def parse_seeds(text: str) -> tuple[int, ...]:
    """ "5" -> 0 to 4, "2:6" -> 2 to 5. Raises UsageError for anything else."""
    if re.fullmatch(r"\d{1,7}", text) and int(text):
        return tuple(range(int(text)))
    first, _, last = text.partition(":")
    if re.fullmatch(r"\d{1,18}:\d{1,18}", text) and int(first) < int(last) <= int(first) + 1_000_000:
        return tuple(range(int(first), int(last)))
    raise UsageError(f"--seeds '{text}' is not understood; write N for the seeds 0 to N-1, or A:B for A to B-1.")


def _known_methods(made: Plan) -> None:
    """Raise UsageError where [model.NAME], a preset or --set names no method of this study."""
    recipe = made.recipe
    names = {n for v in made.variants if v.method for n in _all_names(v.method)}
    for given in recipe.models:
        if given not in names:
            raise UsageError(
                f"study '{recipe.name}': [model.{given}] names no method of this study.{nearest(given, names)}"
            )
    sections = ("model", "data", "train", "settings")
    for given in recipe.forced:
        if given not in names and given not in sections:
            hint = nearest(given, [*names, *sections, "options"])
            raise UsageError(
                f"--set {given}.{next(iter(recipe.forced[given]))}: '{given}' is no method of this study.{hint}"
            )
    if "seed" in recipe.forced.get("train", {}) or "device" in recipe.forced.get("train", {}):
        raise UsageError("--set train.seed and train.device have options of their own: --seeds and --device.")
    methods = [v.method for v in made.variants if v.method]
    if recipe.preset is not None and methods:
        known = {p for name in methods for p in registry().find("method", name).load().presets}
        if recipe.preset not in known:
            raise unknown(f"preset of the methods of study '{recipe.name}'", recipe.preset, known)


def selecting(recipe: Recipe) -> Column:
    """The column that [select] goes by: the one of this name, or the first that this METRIC.KEY fills.

    Raises UsageError where there is none, or where it does not show its metric's headline.
    """
    by = recipe.select["by"]
    filled = [c for c in recipe.columns if c.ours]
    column = next((c for c in filled if c.name == by), None) or next((c for c in filled if c.ours == by), None)
    if column is None:
        known = [word for c in filled for word in (c.name, c.ours)]
        raise UsageError(f"study '{recipe.name}': [select] is by '{by}', which no column shows.{nearest(by, known)}")
    headline = registry().find("metric", column.metric).load().headline
    if column.key != headline:
        raise UsageError(
            f"study '{recipe.name}': [select] can only be by a metric's headline, here {column.metric}.{headline}."
        )
    return column


def _all_names(name: str, kind: str = "method") -> tuple[str, ...]:
    entry = registry().find(kind, name)
    return (entry.name, *entry.aliases)


def folder_name(label: str) -> str:
    """A label as the name of a folder: letters, digits and `. _ = + -` stay, anything else becomes a dash."""
    return re.sub(r"[^\w.=+-]+", "-", label).strip(".-") or "variant"


def folders(labels: Sequence[str]) -> dict[str, str]:
    """Label -> folder, each another one."""
    found: dict[str, str] = {}
    for label in labels:
        base = name = folder_name(label)
        n = 1
        while name.lower() in [other.lower() for other in found.values()]:
            n += 1
            name = f"{base}-{n}"
        found[label] = name
    return found


def differences(made: Plan) -> list[dict[str, Any]]:
    """A line per variant: label, method, parameters, initial gain, steps, data, and the settings that are not the same.

    A setting that only one method has is left out unless it was changed.
    """
    flat = {v.label: _flat(made, v) for v in made.variants}
    told = []
    for variant in made.variants:
        mine = flat[variant.label]
        others = [f for label, f in flat.items() if label != variant.label]
        own = {}
        for key, value in mine.items():
            elsewhere = [f[key] for f in others if key in f]
            if any(v != value for v in elsewhere) or (not elsewhere and others and _changed(made, variant, key, value)):
                own[key] = value
        line: dict[str, Any] = {"variant": variant.label, "method": variant.method}
        if variant.method:
            settings = made.settings(variant, 0)
            line |= {"parameters": made.sizes.get(variant.label), "start": made.starts.get(variant.label)}
            line |= {"steps": settings.train.steps, "data": settings.data}
            line["preset"] = made.preset(variant)
        told.append({**line, "settings": {k: v for k, v in own.items() if k not in SHOWN}})
    return told


def _flat(made: Plan, variant: Variant) -> dict[str, Any]:
    """Settings of a variant as SECTION.KEY; those of the model as KEY."""
    sections = {k: v for k, v in made.sections(variant).items() if k != "method"}
    return {k if s == "model" else f"{s}.{k}": v for s, values in sections.items() for k, v in values.items()}


def _changed(made: Plan, variant: Variant, key: str, value: Any) -> bool:
    """Whether a setting of a method is not what the method comes with."""
    if not variant.method or "." in key:
        return False
    return to_dict(made.settings(variant, 0).method.Config()).get(key) != value
