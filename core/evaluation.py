"""Runs metrics over one table of codes; a metric that fails becomes a row with its reason, the others are kept."""

from __future__ import annotations

import contextlib
import inspect
import json
import math
import platform
import statistics
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from distk import chance, places
from distk.asked import OWN, Asked, asked
from distk.cachedcodes import cached_table, uncoded_table
from distk.config import assignments, from_dict, hints, to_dict
from distk.console import counted
from distk.data import Dataset, Split
from distk.dependence import dependences
from distk.errors import DistkError, UsageError, nearest, no_memory
from distk.guard import told_if_slow
from distk.method import Method, can, eval_mode
from distk.metric import CodeTable, Metric, encode_table, has_truth
from distk.registry import registry
from distk.version import __version__

NO_MEMORY = "there is not enough memory for it: score fewer --rows"
SLOW = 2.0
"""Seconds after which it is said which score is being computed."""


def build_metric(name: str, options: Mapping[str, Any] | None = None) -> tuple[str, Metric]:
    """A registered metric by name or alias, with those of `options` that its Config has: (name, metric)."""
    entry = registry().find("metric", name)
    cls = entry.load()
    known = {key: value for key, value in (options or {}).items() if key in hints(cls.Config)}
    return entry.name, cls(from_dict(cls.Config, known, f"metric '{entry.name}'"))


def metric_settings(name: str, values: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """A registered metric and settings of it, checked: (its name, the settings, `split` among them).

    Raises UsageError for a setting or a value that the metric does not have.
    """
    entry = registry().find("metric", name)
    cls = entry.load()
    from_dict(cls.Config, {k: v for k, v in values.items() if k not in OWN}, f"metric '{entry.name}'")
    return entry.name, dict(values)


def named_options(pairs: Iterable[str], names: Iterable[str]) -> dict[str, Any]:
    """`METRIC.KEY=VALUE` of --eval-option -> options of `evaluate`, checked; a value is JSON, or a word.

    names: the metrics that are scored. Raises UsageError for another form, a metric that is not among them, and what
    the metric does not have.
    """
    known = {name: entry.name for entry in registry().entries("metric") for name in (entry.name, *entry.aliases)}
    given: dict[str, Any] = {}
    for name, values in assignments(pairs, sections=known, option="--eval-option").items():
        if not name:
            raise UsageError(f"--eval-option '{next(iter(values))}=...' is not understood; write METRIC.KEY=VALUE.")
        given |= {f"{known[name]}.{key}": _from_json(value) for key, value in values.items()}
    _share_out(list(names), given)
    return given


def _from_json(value: Any) -> Any:
    """A list or a number as JSON writes it; any other text is the word itself."""
    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return value


def expand(names: Iterable[str]) -> list[str]:
    """The metrics of these texts (see `distk.asked`), `all` being every registered one; each once, in order."""
    return list(dict.fromkeys(one.metric for one in asked(names)))


def score(
    table: CodeTable,
    name: str,
    options: Mapping[str, Any],
    seed: int,
    repeats: int | None,
    worth: tuple[int, int] = (0, 0),
) -> dict[str, Any]:
    """One metric's result: its keys, averaged over repeats, with `<key>_std` and `repeats` where there are several.

    Arrays are those of the first repeat. Beside them stand `meaning` (direction, range, unit, chance, source of each
    number), `baseline` and `interval` (see `distk.chance`; worth: how many shuffles and halves), `settings`, `seeds`,
    and `reasons`, which says of every number that is not finite why it is not. A failure gives {"error": reason}.
    """
    try:
        name, metric = build_metric(name, options)
        runs = _computed(table, name, metric, [seed + i for i in range(repeats or metric.repeats)])
    except (DistkError, ValueError, ArithmeticError, np.linalg.LinAlgError, MemoryError, ImportError) as error:
        return {"error": NO_MEMORY if no_memory(error) else str(error) or type(error).__name__}
    except RuntimeError as error:  # out of memory, a shape that a metric did not expect
        if no_memory(error):
            return {"error": NO_MEMORY}
        return {"error": f"{type(error).__name__}: {str(error).splitlines()[0]}"}
    result = dict(runs[0])
    reasons = {key: text for run in reversed(runs) for key, text in run.get("reasons", {}).items()}
    if len(runs) > 1:
        for key in [k for k, v in result.items() if isinstance(v, float)]:
            values = [run[key] for run in runs]
            finite = all(map(math.isfinite, values))
            result[key] = statistics.fmean(values)
            result[f"{key}_std"] = statistics.stdev(values) if finite else math.nan
            if not finite:
                reasons.setdefault(f"{key}_std", f"'{key}' is not finite for every seed")
        result["repeats"] = len(runs)
    for key, value in result.items():
        if isinstance(value, float) and not math.isfinite(value):
            reasons.setdefault(key, "undefined for these codes" if math.isnan(value) else "infinite for these codes")
    if any(worth):
        with eval_mode(table.model) if table.model is not None else contextlib.nullcontext():
            added, why = chance.measured(metric, metric.compute, table, result, worth, seed)
        result |= added
        reasons |= why
    if reasons:
        result["reasons"] = reasons
    result["meaning"] = _meanings(metric, result)
    result["settings"] = to_dict(metric.config)
    result["seeds"] = [seed + i for i in range(len(runs))]
    return result


def _absent(table: CodeTable, name: str, metric: Metric) -> str:
    """What a metric asks for and neither more rows nor more training will give; empty where there is all of it."""
    model = table.model
    if model is not None and name in model.unscored:
        return f"{model.unscored[name]}."
    if (metric.needs_model or metric.needs) and model is None:
        return f"metric '{name}' looks at items, so it needs a checkpoint rather than a file of codes."
    if metric.needs_codes and model is not None and not can(model, "encode"):
        return f"method {type(model).__name__} has no encoder, so there are no codes to score."
    lacking = [name for name in metric.needs if not can(model, name)] if model is not None else []
    if lacking:
        needed = f"metric '{name}' needs a method that can {' and '.join(lacking)}"
        return f"{needed}, which {type(model).__name__} cannot."
    given = table.factors is not None or table.dataset is None or has_truth(table.dataset)
    if metric.labelled and metric.needs_codes and not given:
        return f"{table.source or 'this data'} has no ground-truth factors."
    return ""


def _computed(table: CodeTable, name: str, metric: Metric, seeds: Iterable[int]) -> list[dict[str, Any]]:
    """What a metric computes for each of the seeds. Raises UsageError where it has nothing to score."""
    if why := _absent(table, name, metric):
        raise UsageError(why)
    # During training, too: batch norm would score the batch, and learn from what is only looked at.
    with eval_mode(table.model) if table.model is not None else contextlib.nullcontext():
        return [dict(metric.compute(table, seed)) for seed in seeds]


FEW = 64
"""Items on which a metric is tried first before a run."""


def never(model: Method, name: str, data: Dataset, options: Mapping[str, Any], split: Split = "all") -> str:
    """Why a metric cannot score this method on these data, however long it trains; empty where it may.

    Tried on a few items and, where that fails, on all of them. What depends on values of the codes, such as a dimension
    that does not vary yet, is no reason: a metric raises it from the error of the arithmetic.
    """
    name, metric = build_metric(name, options)
    if why := _absent(uncoded_table(model, data, split, None, 0), name, metric):
        return why
    for rows in dict.fromkeys((min(FEW, len(data)), None)):
        try:
            table = (
                encode_table(model, data, rows=rows, split=split)
                if metric.needs_codes
                else uncoded_table(model, data, split, rows, 0)
            )
            _computed(table, name, metric, [0])
        except UsageError as error:
            why = "" if error.__cause__ is not None else str(error)
        except Exception:  # whatever else an untrained model does to a metric may not last
            return ""
        else:
            return ""
    return why


def _meanings(metric: Metric, result: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What is known of each number of a result; `chance` of the result, which knows the factors, goes before that of
    the metric."""
    own = result.get("chance", {})
    told = {key: metric.meaning(key) for key, value in result.items() if isinstance(value, (int, float))}
    plain = {key: number.plain() for key, number in told.items() if number is not None}
    return {key: {**held, **({"chance": own[key]} if key in own else {})} for key, held in plain.items()}


def evaluate(
    model: Method | CodeTable,
    metrics: Iterable[str | Asked],
    *,
    data: Dataset | None = None,
    split: Split = "all",
    fit: Split | None = None,
    rows: int | None = None,
    seed: int = 0,
    repeats: int | None = None,
    baseline: int = 0,
    ci: int = 0,
    cache: Path | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Score a model, or a table of codes: {"metrics": {name: {key: value}}, "provenance": {...}}.

    metrics: names, texts with settings, a split and a label of their own (see `distk.asked`), or these read; a result
    stands under its label, and says under `metric` which one it is where that is another word.
    data: what to encode; by default the data set that the model was trained on. rows: at most so many items.
    fit: split on whose rows scores that predict fit their predictors, to be tested on `split`; None: both come from
    `split`. Other scores read `split` alone.
    repeats: seeds per metric; None takes each metric's own number. cache: file for the table of codes.
    baseline: score shuffled rows so many times, too, for the value at chance. ci: intervals from so many halves of the
    rows (at least 2); see `distk.chance`.
    options: settings of the metrics (`protocol="cascadevae"`), each given to those metrics that have it and know the
    value; the others keep their default and say so under `reasons`. `{"recall.ks": "1,5"}` is for one metric alone.
    Raises UsageError for an unknown metric, and for an option or a value that none of the metrics has.
    """
    if baseline < 0 or ci < 0 or ci == 1:
        raise UsageError("baseline counts shuffles, and ci halves of the rows, of which it takes at least 2.")
    wanted = asked([metrics] if isinstance(metrics, str) else metrics)
    names = list(dict.fromkeys(one.metric for one in wanted))
    given, passed_over = _share_out(names, options)
    if isinstance(model, CodeTable) and any(one.split for one in wanted):
        raise UsageError("codes that are given have no splits: leave split= out.")
    if not isinstance(model, CodeTable):
        data = data if data is not None else model.dataset()
    results: dict[str, dict[str, Any]] = {}
    told: dict[str, Any] = {}
    for part in dict.fromkeys([*([split] if not wanted else []), *(one.split or split for one in wanted)]):
        mine = [one for one in wanted if (one.split or split) == part]
        own = cache.with_stem(f"{cache.stem}-{part}") if cache is not None and part != split else cache
        table, fitted = _tables(model, [one.metric for one in mine], data, part, fit, rows, seed, own)
        told = provenance(table, seed) if not told or part == split else told
        for one in mine:
            cls = registry().loaded("metric", one.metric)
            source = fitted if cls is not None and cls.predicts else table
            settings = {**given[one.metric], **one.settings}
            for _, place in places.settings(cls.Config, settings) if settings else ():
                places.name(place)
            size = " x ".join(f"{n:,}" for n in source.codes.shape)
            with told_if_slow(f"scoring {one.label}: codes {size}{_repeats(repeats)}", SLOW):
                results[one.label] = score(source, one.metric, settings, seed, repeats, (baseline, ci))
            if one.split:
                results[one.label]["split"] = part
    for one in wanted:
        result = results[one.label]
        if one.metric in passed_over and "error" not in result:
            result["reasons"] = {"settings": passed_over[one.metric], **result.get("reasons", {})}
        if one.label != one.metric:
            result["metric"] = one.metric
    where = {"split": split, **({"fit": fit} if fit is not None else {}), "options": dict(options)}
    ordered = {one.label: results[one.label] for one in wanted}
    return {"metrics": ordered, "provenance": {**told, **where}}


def _repeats(repeats: int | None) -> str:
    return "" if repeats is None else f", {counted(repeats, 'repeat')}"


def _tables(
    model: Method | CodeTable,
    names: list[str],
    data: Dataset | None,
    split: Split,
    fit: Split | None,
    rows: int | None,
    seed: int,
    cache: Path | None,
) -> tuple[CodeTable, CodeTable]:
    """The table that these metrics read, and that of those which fit predictors: the same one, unless `fit` names a
    split of its own."""
    if isinstance(model, CodeTable):
        table = model
    else:
        assert data is not None
        loaded = [metric for name in names if (metric := registry().loaded("metric", name)) is not None]
        reading = [metric for metric in loaded if metric.needs_codes and (has_truth(data) or not metric.labelled)]
        coded = bool(reading) and can(model, "encode")
        table = (
            cached_table(model, data, split, rows, seed, cache)
            if coded
            else uncoded_table(model, data, split, rows, seed)
        )
    fitted = table
    if fit is not None:
        if data is None or isinstance(model, CodeTable) or table.factors is None:
            raise UsageError("predictors can be fitted on another split only where a model encodes data with factors.")
        own = None if cache is None else cache.with_stem(f"{cache.stem}-fit")
        fitted = cached_table(model, data, fit, rows, seed, own)  # asked for again by the next split
        fitted.codes_test, fitted.factors_test = table.codes, table.factors
        fitted.extra["fit"] = fit
    return table, fitted


def check_options(names: list[str], options: Mapping[str, Any]) -> None:
    """Raise UsageError for an option, or a value of one, that none of these metrics has: before anything is opened."""
    _share_out(names, options)


def own_words() -> frozenset[str]:
    """What `evaluate` calls its own arguments, which no setting of a metric can be called. One that is an option of
    `distk eval` as well is reached by `--set METRIC.NAME=VALUE`."""
    return (frozenset(inspect.signature(evaluate).parameters) | {"on_error"}) - {"options"}


def _share_out(names: list[str], options: Mapping[str, Any]) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Each metric's own options, and for those that know an option but not its value, what is said about it."""
    given: dict[str, dict[str, Any]] = {name: {} for name in names}
    passed_over: dict[str, str] = {}
    known = {name: set(hints(cls.Config)) for name in names if (cls := registry().loaded("metric", name)) is not None}
    for option, value in options.items():
        metric, _, key = option.rpartition(".")
        metrics = [registry().find("metric", metric).name] if metric else names
        if not set(metrics) <= set(names):
            raise UsageError(f"'{option}' is a setting of '{metric}', which is none of the metrics {', '.join(names)}.")
        takers = [name for name in metrics if key in known.get(name, ())]
        if not takers:
            close = nearest(key, {k for name in metrics for k in known.get(name, ())})
            who = (
                f"metric '{metrics[0]}' has no"
                if len(metrics) == 1
                else f"none of the metrics {', '.join(metrics)} has the"
            )
            raise UsageError(f"{who} setting '{key}'.{close}")
        refusals: dict[str, UsageError] = {}
        for name in takers:
            try:
                build_metric(name, {key: value})
                given[name][key] = value
            except UsageError as error:
                refusals[name] = error
        if len(refusals) == len(takers):
            raise refusals[takers[0]]
        for name in refusals:
            passed_over[name] = f"{key} '{value}' is unknown here: the default is used"
    return given, passed_over


def provenance(table: CodeTable, seed: int) -> dict[str, Any]:
    """What a figure depends on besides the model: data, rows, seed, versions, device. rows: how many the table of codes
    has; None without one, where a metric draws what it looks at by itself (its `settings` say how much).
    dependent_factors: pairs of factors that tell of each other (`distk.dependence`), only where there are some."""
    told = {"told": table.extra["told"]} if table.extra.get("told") else {}
    dependent = [one.plain() for one in dependences(table)]
    return {
        **told,
        "data": getattr(table.dataset, "name", "") or table.source,
        "origin": getattr(table.dataset, "origin", ""),
        "data_settings": to_dict(table.dataset.config) if table.dataset is not None else {},
        "rows": len(table) or None,
        "grid": table.grid,
        **({"dependent_factors": dependent} if dependent else {}),
        "seed": seed,
        "device": str(table.codes.device),
        "versions": {
            "distk": __version__,
            "torch": torch.__version__,
            "numpy": np.__version__,
            "scipy": version("scipy"),
            "scikit-learn": version("scikit-learn"),
            "python": platform.python_version(),
        },
    }
