"""What `import distk` offers to a program: the same words as the command line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from torch import Tensor

from distk import evaluation
from distk.codefile import table_from_arrays
from distk.codetable import table_of
from distk.data import Dataset, Split, open_dataset
from distk.device import choose_device
from distk.errors import DistkError, UsageError, WrongType, named, path_of, shown_type, unknown
from distk.fitting import differences, fitting_data
from distk.handed import as_it_is, hold_to_spec
from distk.method import Method, can
from distk.metric import CodeTable
from distk.models import ItsData, open_model
from distk.registry import PLURALS, registry
from distk.run import Run, find_checkpoint
from distk.settings import resolve, sorted_out, split_options
from distk.training import loop
from distk.traversal import Known, Traversal, known_of
from distk.traversal import traverse as walk

if TYPE_CHECKING:
    from distk.asked import Asked
    from distk.fitting import differences, fitting_data
from distk.handed import Trained

CODES = (".npz", ".npy", ".csv", ".tsv", ".parquet")
"""Suffixes by which `evaluate` takes a path for a file of codes rather than for a checkpoint."""


def train(
    method: str,
    *,
    preset: str | None = None,
    config: str | Path | None = None,
    out: str | Path | None = None,
    quiet: bool = False,
    **options: Any,
) -> Run:
    """Train a method and return its run (`run.path`, `run.checkpoint`, `run.log`).

    method: a name of `distk list methods`. preset: for example "demo" or "paper". config: a TOML file.
    out: the run folder. options: any option of `distk train METHOD --help`, with underscores (`steps=1000, seed=1,
    data="dsprites", beta_h=4.0, penalty="covreg:0.08"`). Raises UsageError for unknown names and values out of range.
    """
    cls = registry().find("method", named(method, "train: a method")).load()
    name = named(options.get("data", cls.data), "train: a data set")
    data = registry().find("dataset", name.partition(":")[0]).load()
    sections = split_options(cls, data, options)
    if {"steps", "epochs"} <= sections["train"].keys():
        raise UsageError("train: steps and epochs exclude each other.")
    file = path_of(config, "train: a config file") if config is not None else None
    settings = resolve(method, preset=preset, file=file, options=sections, typed="train: '{}'".format)
    return loop.train(settings, path_of(out, "train: the run folder") if out is not None else None, quiet)


def resume(
    run: str | Path | Run | None = None,
    *,
    steps: int | None = None,
    data_dir: str | Path | None = None,
    quiet: bool = False,
    **changes: Any,
) -> Run:
    """Continue a run that was stopped or killed, as if it had never been, and return it.

    run: a run, its folder or its checkpoint; without it the newest run under ./runs. steps: the last step, instead of
    the one first asked for. data_dir: where the data are now. changes: what may change in a run, with underscores
    (`log_every=50, lr=1e-4`). Raises UsageError for what may not change, DistkError for a damaged file.
    """
    file = find_checkpoint(path_of(run, "resume: a run") if run is not None else None)
    folder = str(path_of(data_dir, "resume: a folder of data")) if data_dir is not None else None
    return loop.resume(file, steps, quiet, folder, sorted_out(changes))


def load(path: str | Path | Run | None = None, device: str | torch.device = "auto") -> Trained:
    """A trained model in eval mode: `model.encode(x)`, `model.decode(code)`, `model.sample(n, seed=0)`.

    path: a run, its folder or a checkpoint; without it the newest run under ./runs. `model.dataset()` opens its data.
    What the model gives carries no gradients, so that `.numpy()` works; `model.encode(x, grad=True)` has them.
    The model may be copied and pickled; no pickle is ever read here.
    Raises DistkError for a missing or damaged file, WrongType (a TypeError) for what names no file. `encode` and
    `decode` raise UsageError for what is not of the model's shape, range or device, or not finite.
    """
    file = find_checkpoint(path_of(path, "load: a checkpoint or a run") if path is not None else None)
    model = open_model(file, str(device))[0]
    hold_to_spec(model)
    return cast("Trained", model)


def dataset(
    name: str, *, device: str | torch.device = "auto", data_dir: str | Path | None = None, **options: Any
) -> Dataset:
    """A data set on a device, a `torch.utils.data.Dataset`: `data[0]`, `data.loader(64)`, `data.sample(n, generator)`,
    and for factor data `data.observe(factors)`.

    data_dir: the user's files; without it DISTK_DATA is looked at, then the built-in form is used.
    options: settings of the data set. Raises UsageError for unknown names and values out of range.
    """
    folder = path_of(data_dir, "dataset: a folder") if data_dir is not None else None
    return open_dataset(named(name, "a data set"), options, device=choose_device(str(device)), folder=folder)


def names(what: str = "methods", tag: str | None = None) -> dict[str, str]:
    """What there is by name, with a line about each: methods, datasets, metrics, penalties, studies or engines.

    tag: only what has it, as in `distk list methods --tag vae`. Raises UsageError for another word.
    """
    kinds = {plural: kind for kind, plural in PLURALS.items()}
    kind = kinds.get(named(what, "names: what is listed"), what)
    if kind not in PLURALS:
        raise unknown("list", what, kinds)
    return {entry.name: entry.summary for entry in registry().entries(kind) if tag is None or tag in entry.tags}


def codes(codes: Any, factors: Any = None, **members: Any) -> CodeTable:
    """Codes of any program as a table that `evaluate` scores.

    codes: a file that `distk eval --codes` reads, or an array `[n, D]`. factors: `[n, K]`, numbers or words.
    members: as in such a file (`code_names`, `factor_names`, `factor_kinds`, `codes_test`, `factors_test`, ...); of a
    CSV or Parquet file `columns` and `factors` are lists of column names.
    Raises DistkError for what does not fit.
    """
    if isinstance(codes, (str, Path)):
        if strange := set(members) - {"columns", "device"}:
            raise UsageError(f"codes: of a file only columns and factors are chosen, not '{min(strange)}'.")
        return table_from_arrays(Path(codes), factors=factors, **members)
    return table_of({"codes": codes, "factors": factors, **members})


def evaluate(
    model: Method | CodeTable | Run | str | Path | Mapping[str, Any],
    metrics: str | Asked | Iterable[str | Asked],
    *,
    data: Dataset | str | None = None,
    split: Split = "all",
    fit: Split | None = None,
    rows: int | None = None,
    seed: int = 0,
    repeats: int | None = None,
    baseline: int = 0,
    ci: int = 0,
    on_error: Literal["raise", "row"] = "raise",
    **options: Any,
) -> dict[str, Any]:
    """Score a model, or a table of codes: {"metrics": {name: {key: value}}, "provenance": {...}}.

    model: a model, a run or a path of one; a table of codes, a file of codes (npz, npy, csv, tsv, parquet), or a dict
    of arrays `codes` `[n, D]` and `factors` `[n, K]`. metrics: names, texts with settings, a split and a label of their
    own (see `distk.asked`), or these read. data: what to encode, a data set or its name; by default the model's own.
    rows: at most so many items. fit: split on whose rows scores that predict fit their predictors. repeats: seeds per
    metric; None takes each metric's own number. baseline: score shuffled rows so many times, too. ci: intervals from
    so many halves of the rows. options: settings of the metrics; `{"recall.ks": "1,5"}` is for one metric alone.
    on_error: a metric that cannot be computed raises DistkError, or with "row" becomes a row {"error": reason}, and the
    others are kept. Raises UsageError for an unknown metric or setting, WrongType (a TypeError) for no model.
    """
    if on_error not in ("raise", "row"):
        raise UsageError(f"evaluate: on_error is 'raise' or 'row', not {on_error!r}.")
    scored = _scored(model)
    names = [metrics] if isinstance(metrics, str) or not isinstance(metrics, Iterable) else list(metrics)
    if data is not None:
        data = _readable(scored, data)
    with as_it_is():
        found = evaluation.evaluate(
            scored,
            names,
            data=data,
            split=split,
            fit=fit,
            rows=rows,
            seed=seed,
            repeats=repeats,
            baseline=baseline,
            ci=ci,
            **options,
        )
    failed = {name: values["error"] for name, values in found["metrics"].items() if "error" in values}
    if failed and on_error == "raise":
        others = f" (and {', '.join(list(failed)[1:])})" if len(failed) > 1 else ""
        name, reason = next(iter(failed.items()))
        told = f"metric '{name}'{others} could not be computed: {reason.rstrip('.')}"
        raise DistkError(f"{told}; with on_error='row' the reason becomes a row, and the others are kept.")
    return found


def _scored(model: Any) -> Method | CodeTable:
    """What `evaluate` was given, as a model or a table."""
    if isinstance(model, (Method, CodeTable)):
        return model
    if isinstance(model, Mapping):
        return table_of(model)
    what = "evaluate: a model, a table of codes, or a run that"
    path = path_of(model, what)
    return table_from_arrays(path) if path.suffix.lower() in CODES else load(path)


def _readable(model: Method | CodeTable, data: Any) -> Dataset:
    """A data set, or the one of a name, that the model can read. Raises UsageError that says what differs."""
    if isinstance(model, CodeTable):
        raise UsageError("evaluate: a table of codes is encoded already: leave data out.")
    if isinstance(data, str):
        own = model.opens
        if isinstance(own, ItsData):
            return fitting_data(model, own.header, data, None)
        data = open_dataset(data, device=model.device, model=model.spec)
    if not isinstance(data, Dataset):
        raise WrongType(f"evaluate: data are a data set or its name, not {shown_type(data)}.")
    if fatal := [str(d) for d in differences(model.spec, data.spec) if d.fatal] if hasattr(model, "spec") else []:
        raise UsageError(f"evaluate: data set '{data.name}' does not fit the model: {'; '.join(fatal)}.")
    return data


def traverse(
    model: Method | Run | str | Path,
    x: Tensor | None = None,
    *,
    row: int | None = None,
    columns: int = 10,
    span: tuple[float, float] | None = None,
    top: int | None = None,
    start: Literal["data", "prior"] | None = None,
    seed: int = 0,
) -> Traversal:
    """One latent after the other moves, the rest of the code stays: `.rows`, each with `.label`, `.values` and `.items`
    `[columns, *item]`, the most informative latent first.

    x: an item `[1, *item]` to start from; or row: a row of the model's data. Without either a row is drawn by `seed`,
    or, of a model without an encoder or with start="prior", a code. columns: values per latent. span: lowest and
    highest value of continuous latents; None takes each latent's own. top: only so many continuous latents.
    Raises UsageError for a model that cannot decode, and for an item that it cannot take.
    """
    held = model if isinstance(model, Method) else load(path_of(model, "traverse: a model, or a run that"))
    if not can(held, "decode"):
        raise UsageError(f"traverse: method {type(held).__name__} cannot decode.")
    if (x is not None or row is not None) and start == "prior":
        raise UsageError("traverse: start='prior' draws a code, so leave x and row out.")
    if x is not None and row is not None:
        raise UsageError("traverse: give x or row, not both.")
    if columns < 2 or (top is not None and top < 1) or (span is not None and not span[0] < span[1]):
        raise UsageError("traverse: columns are 2 or more, top is 1 or more, and span goes from low to high.")
    batch: Mapping[str, Tensor] | None = None
    known = Known()
    if x is not None:
        held.encode(x)  # says what does not fit
        batch = {"x": x[:1]}
    if start != "prior" and can(held, "encode") and (x is None or held.opens is not None):
        own = held.dataset()
        known = known_of(held, own)
        if batch is None:
            drawn = int(torch.randint(len(own), (), generator=torch.Generator().manual_seed(seed)))
            chosen = drawn if row is None else row
            if not 0 <= chosen < len(own):
                raise UsageError(f"traverse: row {chosen} is outside the data set's rows 0 to {len(own) - 1}.")
            batch = own.items(torch.tensor([chosen], device=own.device))
    with as_it_is():
        return walk(held, batch, columns, known=known, span=span, top=top, seed=seed)
