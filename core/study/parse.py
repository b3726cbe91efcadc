"""A study as TOML: read, held against what a recipe may say, and made into frozen values. Nothing here imports torch.

A key that no recipe has, a value of a wrong type, two variants of one name, and a claim or a published figure about a
variant or column that is not there are each one sentence (UsageError). Names of methods, metrics and runners are looked
up later, among what is registered; nothing in a recipe is ever imported.
"""

from __future__ import annotations

import dataclasses
import itertools
import tomllib
from collections.abc import Sequence
from typing import Any

from distk.errors import UsageError, nearest
from distk.study.claims import Claim, check_claim
from distk.study.layers import force, scaled
from distk.study.recipe import SECTIONS, Column, Figure, Published, Recipe, Table, Variant

SCALABLE = ("train", "data", "model", "options", "settings", "seeds", "preset", "select", "equal")
"""What `[scale.NAME]` may change."""
SEEDS = 1_000_000
"""More seeds than this are a slip of the hand."""
SHARES = {("percent", "share"): 100.0, ("share", "percent"): 0.01}


class _Section:
    """A table of a recipe from which keys are taken one by one; what is left at the end is unknown."""

    def __init__(self, values: Any, where: str) -> None:
        if not isinstance(values, dict):
            raise UsageError(f"{where} must be a table, found {values!r}.")
        self.left, self.where, self.known = dict(values), where, list[str]()

    def take(self, key: str, kind: type | tuple[type, ...], default: Any = None, what: str = "") -> Any:
        """The value of a key, or the default. Raises UsageError for a value of another type."""
        self.known.append(key)
        if key not in self.left:
            return default
        value = self.left.pop(key)
        kinds = kind if isinstance(kind, tuple) else (kind,)
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise UsageError(f"{self.where}: '{key}' must be {what or _named(kinds)}, found {value!r}.")
        return value

    def end(self) -> None:
        """Raise UsageError for a key that nobody took."""
        for key in self.left:
            raise UsageError(f"{self.where} has an unknown key '{key}'.{nearest(key, self.known)}")


def _named(kinds: tuple[type, ...]) -> str:
    names = {str: "text", dict: "a table", list: "a list", int: "a whole number", float: "a number", bool: "true"}
    return " or ".join(dict.fromkeys(names[k] for k in kinds))


def parse(text: str, name: str, *, scale: str | None = None, sets: Sequence[str] = (), runner: str = "") -> Recipe:
    """A recipe from TOML.

    scale: "small", "paper" or another `[scale.NAME]` of it; None takes small where the recipe has it. "paper" without
    a section of its own is the recipe as it stands. sets: "SECTION.KEY=VALUE" that win over everything in the recipe.
    runner: the registered study whose runner serves this recipe unless it names another.
    Raises UsageError, naming the recipe, for everything that a recipe may not say.
    """
    where = f"study '{name}'"
    try:
        raw = tomllib.loads(text)
    except RecursionError:
        raise UsageError(f"{where} is nested too deep.") from None
    except ValueError as error:  # also a number of thousands of digits
        raise UsageError(f"{where} is no TOML: {error}.") from error
    if runner:
        raw.setdefault("runner", runner)
    scales = raw.pop("scale", {})
    if not isinstance(scales, dict) or not all(isinstance(v, dict) for v in scales.values()):
        raise UsageError(f"{where}: 'scale' must be sections, such as [scale.small].")
    for each, changes in scales.items():
        for key in changes:
            if key not in SCALABLE:
                raise UsageError(f"{where}, [scale.{each}] has an unknown key '{key}'.{nearest(key, SCALABLE)}")
    chosen = scale or ("small" if "small" in scales else "paper")
    if chosen not in scales and chosen != "paper":
        known = sorted({*scales, "paper"})
        raise UsageError(f"{where} has no scale '{chosen}': it has {' and '.join(known)}.{nearest(chosen, known)}")
    for other in scales:  # a mistake in a scale that is not asked for shows, too
        if other != chosen:
            _build(scaled(raw, scales[other]), name, where, text, scale=other, scales=tuple(scales))
    forced: dict[str, dict[str, Any]] = {}
    merged = scaled(raw, scales.get(chosen, {}))
    for given in sets:
        force(given, merged, forced)
    return _build(merged, name, where, text, scale=chosen, scales=tuple(scales), sets=tuple(sets), forced=forced)


def _build(raw: Table, name: str, where: str, text: str, **more: Any) -> Recipe:
    top = _Section(raw, where)
    title = top.take("title", str, name)
    runner = top.take("runner", str, "")
    columns = _columns(top.take("columns", (list, dict), []), where, runner)
    model = top.take("model", dict, {})
    options = top.take("options", dict, {})
    for metric, values in options.items():
        _Section(values, f"{where}, [options.{metric}]")
    variants = _variants(top.take("variants", list, [], "[[variants]]"), where, bool(runner))
    recipe = Recipe(
        name,
        title,
        text,
        columns,
        seeds_of(top.take("seeds", (int, list), 1), f"{where}: 'seeds'"),
        variants,
        preset=top.take("preset", str),
        model={k: v for k, v in model.items() if not isinstance(v, dict)},
        models={k: v for k, v in model.items() if isinstance(v, dict)},
        data=top.take("data", dict, {}),
        train=top.take("train", dict, {}),
        settings=top.take("settings", dict, {}),
        options=options,
        equal=_equal(top.take("equal", list, []), where),
        select=_select(top.take("select", dict, {}), where),
        best_by=top.take("best_by", str, ""),
        published=_published(top.take("published", dict, {}), where),
        claims=tuple(_claim(c, where, i) for i, c in enumerate(top.take("claims", list, [], "[[claims]]"))),
        figures=_figures(top.take("figures", list, [], "[[figures]]"), where),
        runner=runner,
        source=top.take("source", str, ""),
        **more,
    )
    top.take("notes", (str, list))
    top.end()
    if "seed" in recipe.train:
        raise UsageError(f"{where}: 'seed' in [train] has no meaning, since 'seeds' names them.")
    _agree(recipe, where)
    return _at_scale(recipe, where)


def _at_scale(recipe: Recipe, where: str) -> Recipe:
    """The recipe without the variants of other scales; of claims that need one of those, the reason why.

    Raises UsageError for a scale that the recipe does not have.
    """
    known = {*recipe.scales, "paper"}
    for scale in [s for v in recipe.variants for s in v.scale] + [s for c in recipe.claims for s in c.scale]:
        if scale not in known:
            raise UsageError(f"{where} has no scale '{scale}': it has {' and '.join(sorted(known))}.")
    kept = tuple(v for v in recipe.variants if not v.scale or recipe.scale in v.scale)
    present = [v.label for v in kept]
    away: dict[str, tuple[str, ...]] = {}
    for variant in recipe.variants:
        if variant.label not in present:
            away[variant.label] = (*away.get(variant.label, ()), *variant.scale)
    claims = []
    for claim in recipe.claims:
        others = () if recipe.scale in claim.scale else claim.scale
        others = others or away.get(claim.better) or away.get(claim.than) or ()
        if others and not claim.untested:
            claim = dataclasses.replace(claim, untested=f"it is asked at --scale {' or '.join(others)} only")
        claims.append(claim)
    return dataclasses.replace(recipe, variants=kept, claims=tuple(claims))


def _scales(section: _Section) -> tuple[str, ...]:
    """The scales that a variant or a claim is part of: a name, or a list of names; none: all of them."""
    given = section.take("scale", (str, list), "")
    names = [given] if isinstance(given, str) and given else list(given)
    if not all(isinstance(name, str) and name for name in names):
        raise UsageError(f"{section.where}: 'scale' must be the name of a scale, or a list of names, found {given!r}.")
    return tuple(names)


def seeds_of(given: int | list[Any], what: str) -> tuple[int, ...]:
    """N -> 0 to N-1; a list as it stands. Raises UsageError for none, a negative or a repeated one."""
    seeds = list(range(min(given, SEEDS + 1))) if isinstance(given, int) else given
    sound = all(type(s) is int and s >= 0 for s in seeds) and len(set(seeds)) == len(seeds)
    if not sound or not 0 < len(seeds) <= SEEDS:
        raise UsageError(f"{what} must be a number of seeds or a list of different whole numbers, found {given!r}.")
    return tuple(seeds)


def _columns(given: list[Any] | dict[str, Any], where: str, runner: str) -> tuple[Column, ...]:
    """`["METRIC.KEY"]`, or `[columns] NAME = { ours = "METRIC.KEY", unit, ours_unit, higher_is_better, options }`."""
    found = []
    if isinstance(given, list):
        given = {n if isinstance(n, str) else "": {"ours": n} for n in given} if _distinct(given, where) else {}
    for name, values in given.items():
        section = _Section({"ours": values} if isinstance(values, str) else values, f"{where}, column '{name}'")
        ours = section.take("ours", str, name)
        unit, ours_unit = section.take("unit", str, ""), section.take("ours_unit", str, "")
        higher, options = section.take("higher_is_better", bool), section.take("options", dict, {})
        if split := section.take("split", str, ""):
            options = {**options, "split": split}
        section.end()
        if name in ("", "variant", "seed", "method"):
            raise UsageError(f"{where}: a column cannot be called '{name}'.")
        found.append(Column(name, ours, higher, unit, options, SHARES.get((unit, ours_unit), 1.0)))
    if not found:
        raise UsageError(f'{where} names no columns; write columns = ["METRIC.KEY"], as `distk eval` names them.')
    return tuple(found)


def _distinct(names: list[Any], where: str) -> bool:
    for name in names:
        if not isinstance(name, str):
            raise UsageError(f"{where}: a column must be text, found {name!r}.")
        if names.count(name) > 1:
            raise UsageError(f"{where} names the column '{name}' twice.")
    return True


def _variants(given: list[Any], where: str, runner: bool) -> tuple[Variant, ...]:
    found: list[Variant] = []
    for i, values in enumerate(given):
        told = values.get("label", values.get("method", "")) if isinstance(values, dict) else ""
        section = _Section(values, f"{where}, variant '{told}'" if told else f"{where}, variant {i + 1}")
        method, quoted = section.take("method", str, ""), section.take("quoted", str, "")
        label = section.take("label", str, method)
        grid = section.take("grid", dict, {})
        made = Variant(
            label,
            method,
            section.take("preset", str),
            quoted=quoted,
            scale=_scales(section),
            **{s: section.take(s, dict, {}) for s in SECTIONS},
        )
        section.end()
        if not label and not grid:
            raise UsageError(f"{section.where} needs a method{' or a label' if runner else ''}.")
        found += _grid(made, grid, section.where, "settings" if runner and not method else "model")
    for one, other in itertools.combinations(found, 2):
        shared = not one.scale or not other.scale or set(one.scale) & set(other.scale)
        if one.label == other.label and shared:
            raise UsageError(f"{where} has two variants '{one.label}': give each a label of its own.")
    return tuple(found)


def _grid(variant: Variant, grid: dict[str, Any], where: str, section: str) -> list[Variant]:
    """Every combination of a grid; a key is one of the method, or SECTION.KEY."""
    for key, values in grid.items():
        if not isinstance(values, list) or not values:
            raise UsageError(f"{where}: the grid's '{key}' must be a list of values, found {values!r}.")
    if not grid:
        return [variant]
    found = []
    for values in itertools.product(*grid.values()):
        point = dict(zip(grid, values, strict=True))
        parts: dict[str, Any] = {s: dict(getattr(variant, s)) for s in SECTIONS}
        for key, value in point.items():
            first, dot, rest = key.partition(".")
            parts[first if dot and first in SECTIONS else section][rest if dot and first in SECTIONS else key] = value
        told = " ".join(f"{key.rpartition('.')[2]}={_short(value)}" for key, value in point.items())
        label = f"{variant.label} {told}".strip()
        found.append(dataclasses.replace(variant, label=label, **parts, point=point, group=variant.label))
    return found


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return "-".join(map(_short, value)) if isinstance(value, list) else str(value)


def _select(given: dict[str, Any], where: str) -> Table:
    section = _Section(given, f"{where}, [select]")
    by, every, on = section.take("by", str), section.take("every", int, 0), section.take("on", str, "")
    section.end()
    if not given:
        return {}
    if by is None or every < 1:
        raise UsageError(
            f"{where}, [select] needs 'by' (a column, or METRIC.KEY) and 'every' (steps between scorings, from 1)."
        )
    return {"by": by, "every": every, **({"on": on} if on else {})}


def _equal(given: list[Any], where: str) -> tuple[str, ...]:
    for name in given:
        if not isinstance(name, str):
            raise UsageError(f'{where}: \'equal\' must name settings, such as "lr" or "train.steps", found {name!r}.')
    return tuple(given)


def _published(given: dict[str, Any], where: str) -> dict[str, dict[str, Published]]:
    found: dict[str, dict[str, Published]] = {}
    for label, figures in given.items():
        section = _Section(figures, f'{where}, [published."{label}"]')
        place = section.take("where", str, "")
        found[label] = {}
        for column, value in section.left.items():
            if isinstance(value, dict):
                one = _Section(value, f"{section.where}, '{column}'")
                printed = one.take("value", (str, int, float), "")
                found[label][column] = Published(str(printed), one.take("where", str, place))
                one.end()
            elif isinstance(value, (str, int, float)) and not isinstance(value, bool):
                found[label][column] = Published(str(value), place)
            else:
                raise UsageError(f"{section.where}: '{column}' must be the figure as printed, found {value!r}.")
    return found


def _claim(given: Any, where: str, index: int) -> Claim:
    section = _Section(given, f"{where}, claim {index + 1}")
    bound, relation = section.take("bound", (int, float, dict)), section.take("relation", str, "")
    if isinstance(bound, dict):
        inner = _Section(bound, f"{section.where}, 'bound'")
        bound, relation = inner.take("number", (int, float)), inner.take("relation", str, "")
        inner.end()
    margin = section.take("margin", (int, float))
    words = {k: section.take(k, str, "") for k in ("text", "better", "than", "column", "than_column")}
    more = ("direction", "kind", "where", "evidence", "note", "untested")
    words |= {k: section.take(k, str, "") for k in more}
    scale = _scales(section)
    section.end()
    return Claim(
        **words,
        scale=scale,
        margin=None if margin is None else float(margin),
        bound=None if bound is None else float(bound),
        relation=relation,
    )


def _figures(given: list[Any], where: str) -> tuple[Figure, ...]:
    found: list[Figure] = []
    for i, values in enumerate(given):
        section = _Section(values, f"{where}, figure {i + 1}")
        kind, name = section.take("kind", str, "points"), section.take("name", str, "")
        made = Figure(
            kind,
            name or ("results" if kind == "points" else kind),
            tuple(map(str, section.take("columns", list, []))),
            section.take("x", str, ""),
            section.take("y", str, ""),
            section.take("panels", bool, False),
        )
        section.end()
        if kind not in ("points", "scatter", "curve"):
            raise UsageError(f"{section.where}: 'kind' must be points, scatter or curve, found '{kind}'.")
        if kind != "points" and not (made.x and (made.y or made.columns)):
            raise UsageError(f"{section.where}: a {kind} needs 'x' and 'y'.")
        if not made.name.replace("-", "").replace("_", "").isalnum():
            raise UsageError(f"{section.where}: 'name' must be letters, digits, - and _, found '{made.name}'.")
        if made.name in [other.name for other in found]:
            raise UsageError(f"{section.where}: another figure is called '{made.name}', too: give it a 'name'.")
        found.append(made)
    return tuple(found)


def _agree(recipe: Recipe, where: str) -> None:
    """Raise UsageError where claims, published figures or drawings speak of what the study does not have."""
    columns = [c.name for c in recipe.columns]
    labels = [v.label for v in recipe.variants]
    free = recipe.runner and not labels  # a runner may name its variants itself

    def known(name: str, names: list[str], what: str, place: str) -> None:
        if name not in names:
            raise UsageError(f"{place} speaks of {what} '{name}', which is not there.{nearest(name, names)}")

    if recipe.best_by:
        known(recipe.best_by, columns, "a column", f"{where}, 'best_by'")
    for label, figures in recipe.published.items():
        if not free:
            known(label, labels, "a variant", f"{where}, [published]")
        for column in figures:
            known(column.removesuffix("/best"), columns, "a column", f'{where}, [published."{label}"]')
    for i, claim in enumerate(recipe.claims):
        place = f"{where}, claim {i + 1}"
        for label in (claim.better, claim.than):
            if label and not free:
                known(label, labels, "a variant", place)
        for column in (claim.column, claim.than_column):
            if column:
                known(column, columns, "a column", place)
        check_claim(claim, place)
    for i, figure in enumerate(recipe.figures):
        named = [*figure.columns, *([figure.y] if figure.y else []), *([figure.x] if figure.kind == "scatter" else [])]
        for column in named:
            known(column, columns, "a column", f"{where}, figure {i + 1}")
        if figure.kind == "curve":
            known(
                figure.x,
                [k for v in recipe.variants for k in v.point],
                "a setting of a grid",
                f"{where}, figure {i + 1}",
            )
