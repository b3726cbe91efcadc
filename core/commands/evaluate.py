"""`distk eval`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from distk import completing, console, options
from distk.asked import Asked, asked
from distk.codefile import table_from_arrays
from distk.commands.scorefiles import subject_of, target_of, written
from distk.commands.scoretable import show
from distk.commands.shared import UNFIT, Look, OnRows, require, titled, written_to
from distk.config import assignments
from distk.device import choose_device
from distk.errors import DistkError, UsageError
from distk.evaluation import check_options, codes_cache, expand, own_words
from distk.evaluation import evaluate as score
from distk.metric import CodeTable, Picture
from distk.options import Bundle
from distk.registry import registry
from distk.results import read

HOW = "How to score"
_SETTING = "distk.setting."


class EvalCommand(options.Command):
    """Offers every setting of the metrics that the command line names as an option: `--metric recall --ks 1,5`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        known = {flag for parameter in self.params for flag in (*parameter.opts, *parameter.secondary_opts)}
        given = {arg.partition("=")[0] for arg in args if arg.startswith("--")}
        # Metrics are imported only where one of their settings is given, or help is asked for.
        own = self.params
        if given - known or {"--help", "-h"} & set(args):
            self.params = [*own, *_own_options(args, {parameter.name for parameter in own})]
        try:
            return super().parse_args(ctx, args)
        finally:
            self.params = own


def _own_options(args: list[str], taken: set[str | None]) -> list[Any]:
    """Options for the settings of the metrics in `args`, except `taken` ones; their values go to `ctx.meta`."""
    named = [args[i + 1] for i, arg in enumerate(args[:-1]) if arg in ("--metric", "-m")]
    named += [arg.partition("=")[2] for arg in args if arg.startswith("--metric=")]
    extra: dict[str, Any] = {}
    for name in expand(named):
        try:
            config = registry().find("metric", name).load().Config
        except DistkError:  # it will be a row with its reason
            continue
        for parameter in options.parameters(config, f"Setting of {name}"):
            if parameter.name not in taken:
                extra.setdefault(parameter.name, parameter)
    made = [p for p in options.command(lambda: None, "eval", list(extra.values()), "").params if p.name in extra]

    def keep(ctx: Any, parameter: Any, value: Any) -> None:
        if value not in (None, [], ()):
            ctx.meta[f"{_SETTING}{parameter.name}"] = value

    for option in made:
        option.expose_value, option.callback = False, keep
    return made


@dataclass(kw_only=True)
class How(Bundle):
    """How the metrics score: the settings that many of them share, and `--set` for any other."""

    repeats: Annotated[
        int | None,
        typer.Option(help="Seeds per metric; default: 1, or 5 for sampled scores.", min=1, rich_help_panel=HOW),
    ] = None
    baseline: Annotated[
        int | None,
        typer.Option(help="Also score with the factors shuffled so many times: chance.", min=1, rich_help_panel=HOW),
    ] = None
    ci: Annotated[
        int | None,
        typer.Option(
            "--ci", help="Also an interval over rows, from so many halves of them.", min=2, rich_help_panel=HOW
        ),
    ] = None
    protocol: Annotated[
        str | None,
        typer.Option(help="Variant of the metric, for example dlib, cascadevae, paper.", rich_help_panel=HOW),
    ] = None
    code: Annotated[
        str | None,
        typer.Option(help="mean (default), or sample: draws from the posterior.", rich_help_panel=HOW),
    ] = None
    predictor: Annotated[
        str | None,
        typer.Option(
            help="Of dci: gbt, lasso, rf, mlp; of downstream: lr, gbt, svm; of r2: linear, mlp.", rich_help_panel=HOW
        ),
    ] = None
    bins: Annotated[
        int | None,
        typer.Option(help="Bins per code (default: 20), and of continuous factors.", min=2, rich_help_panel=HOW),
    ] = None
    exact: Annotated[
        bool, typer.Option("--exact", help="scikit-learn's boosting instead of the fast one.", rich_help_panel=HOW)
    ] = False
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="Another setting: NAME=VALUE for all metrics, METRIC.NAME=VALUE for one.", rich_help_panel=HOW
        ),
    ] = None

    def settings(self, metrics: list[str]) -> dict[str, Any]:
        """The settings that were given, by name, or by "metric.name" where they are for one of `metrics`."""
        named = {"protocol": self.protocol, "code": self.code, "predictor": self.predictor, "bins": self.bins}
        chosen: dict[str, Any] = {name: value for name, value in named.items() if value is not None}
        if self.exact:
            chosen["exact"] = True
        for metric, values in assignments(self.set_ or [], sections=metrics).items():
            chosen |= {f"{metric}.{name}" if metric else name: value for name, value in values.items()}
        return chosen


def evaluate(
    context: typer.Context,
    on: OnRows = OnRows(split="all"),
    how: How = How(),
    metric: Annotated[
        list[str] | None,
        typer.Option(
            "--metric",
            "-m",
            help="Metric, repeatable, or METRIC:KEY=VALUE,split=SPLIT,label=NAME; `all` for all.",
            autocompletion=completing.metrics,
        ),
    ] = None,
    codes: Annotated[
        Path | None,
        typer.Option(
            help="Score a file of codes: npz, npy, csv, tsv, parquet, or safetensors as `distk embed` writes."
        ),
    ] = None,
    factors: Annotated[
        str | None,
        typer.Option(help="With --codes: the factors, as names between commas, or a file of them (npy, csv, ...)."),
    ] = None,
    codes_columns: Annotated[
        str | None, typer.Option(help="With --codes: names of the codes, between commas; default: all.")
    ] = None,
    rows: Annotated[int | None, typer.Option(help="Encode at most so many items; default: all.", min=1)] = None,
    fit: Annotated[
        str | None, typer.Option(help="Split on which predictors (dci, sap, ...) are fitted; --split tests them.")
    ] = None,
    look: Look = Look(),
    plots: Annotated[
        bool | None,
        typer.Option(
            "--plots/--no-plots",
            help="Pictures beside the JSON. Default: PNG; --plots: SVG and the terminal, too.",
            show_default=False,
        ),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 1 if any metric fails, not only if all do.")
    ] = False,
) -> None:
    """Measure a trained model, or anybody's codes, with one pass of encoding.

    Writes <checkpoint>.eval.json, its arrays as <checkpoint>.eval.safetensors, and pictures of them; with --codes only
    where --out says. Scores of other metrics that stand there stay, as does an earlier score of a metric that fails.

    Every setting of a metric is an option, too: distk eval --metric recall --help shows those of recall.

    --split test,gap scores each of these splits, a table of codes each. Files are called after what is scored, where
    that is not all of the model's own data: <checkpoint>.gap.eval.json, <checkpoint>.OTHERDATA.eval.json.

    --codes scores codes of any program: an npz with `codes` [n, D] and `factors` [n, K], a pair of npy files, or a
    table (csv, tsv, parquet), of which --factors names the columns of the factors; columns of words are factors anyway.
    Rows that lie sorted by a factor are shuffled before any split: distk eval --codes my.csv --factors shape -m mig

    Example: distk eval runs/my-run --metric dci --metric factorvae
    Example: distk eval runs/my-run --metric recall --ks 1,5,10
    Example: distk eval runs/my-run --metric mig --metric modularity --baseline 5 --ci 20
    Example: distk eval runs/my-run --metric dci --metric active-units --fit train --split train,test
    """
    wanted = asked(metric or [])
    names = list(dict.fromkeys(one.metric for one in wanted))
    if not names:
        raise UsageError("name at least one --metric; `distk list metrics` shows them.")
    own = {**how.settings(names), **_typed(context)}
    if taken := sorted(own_words() & own.keys()):
        told = f"for a metric's setting of that name write --set METRIC.{taken[0]}=VALUE."
        raise UsageError(f"'{taken[0]}' is an option of `distk eval` itself, --{taken[0]}; {told}")
    check_options(names, own)
    settings = {"repeats": how.repeats, "baseline": how.baseline or 0, "ci": how.ci or 0, **own}
    if on.out is not None:
        on.out = written_to(on.out, f"{codes.stem if codes is not None else 'checkpoint'}.eval.json")
    if codes is not None:
        if fit is not None:
            raise UsageError("--fit names a split to encode; rows to test on stand in the file as codes_test.")
        table = _table(on, codes, rows, factors, codes_columns)
        results = {on.split: score(table, metric or [], seed=on.seed, **settings)}
    else:
        if factors is not None or codes_columns is not None:
            option = "--factors" if factors is not None else "--codes-columns"
            raise UsageError(f"{option} chooses from a file of codes: name it with --codes.")
        results = _of_model(on, rows, fit, wanted, metric or [], settings)
    path = codes if codes is not None else on.path
    subject = subject_of(on, codes)
    drawn: dict[str, dict[str, Picture]] = {}
    unwritten: DistkError | None = None
    for split, result in results.items():
        subject_words = _subject(on, codes, split, result)
        drawn[split] = {} if plots is False else _drawn(result["metrics"], subject_words)
        result["provenance"] = {**subject, **result["provenance"]}
        named = {"checkpoint": str(path), **result}
        try:
            target = target_of(on, codes, split, len(results) > 1)
            if target is not None:
                named = written(target, named, subject, drawn[split], both=bool(plots))
        except DistkError as error:  # the figures are shown all the same
            unwritten = error
        results[split] = named
    if on.json:
        console.emit_json(results[on.split] if len(results) == 1 else {"checkpoint": str(path), "splits": results})
    else:
        show(results, drawn if plots else {}, every="all" in (metric or []))
    if unwritten is not None:
        raise unwritten
    _exit_code([values for result in results.values() for values in result["metrics"].values()], strict)


def _typed(context: typer.Context) -> dict[str, Any]:
    """The metrics' own options that `EvalCommand` has read."""
    found = {k.removeprefix(_SETTING): v for k, v in context.meta.items() if k.startswith(_SETTING)}
    return {k: ",".join(map(str, v)) if isinstance(v, (list, tuple)) else v for k, v in found.items()}


def _table(on: OnRows, codes: Path, rows: int | None, factors: str | None, columns: str | None) -> CodeTable:
    """The table of a file of codes."""
    if on.checkpoint is not None:
        raise UsageError("give a checkpoint or --codes, not both.")
    if on.data or on.data_dir or rows or on.split != "all":
        raise UsageError("--data, --data-dir, --split and --rows choose what to encode; --codes is encoded already.")
    if on.out is not None:
        read(on.out)
    return table_from_arrays(
        codes, choose_device(on.device), columns=None if columns is None else [columns], factors=factors
    )


def _of_model(
    on: OnRows, rows: int | None, fit: str | None, wanted: list[Asked], texts: list[str], settings: dict[str, Any]
) -> dict[str, dict[str, Any]]:
    """Scores of a trained model by split, a split's table of codes cached. All splits are looked up first."""
    on.open()
    if all(_reads_codes(one.metric) for one in wanted):
        require(on.model, on.header, "eval", "encode")
    data = on.dataset()
    splits = list(dict.fromkeys(on.split.split(",")))
    for split in [*splits, *([fit] if fit is not None else []), *(one.split for one in wanted if one.split)]:
        data.rows(split)
    for split in splits:  # a file of something else is noticed before the work
        if (target := target_of(on, None, split, len(splits) > 1)) is not None:
            read(target)
    results = {}
    for split in splits:
        own = f"-{split}" if len(splits) > 1 else ""
        cache = codes_cache(on.path, own)
        results[split] = score(
            on.model, texts, data=data, split=split, fit=fit, rows=rows, seed=on.seed, cache=cache, **settings
        )
    return results


def _reads_codes(name: str) -> bool:
    try:
        return bool(registry().find("metric", name).load().needs_codes)
    except DistkError:  # it will be a row with its reason
        return True


def _subject(on: OnRows, codes: Path | None, split: str, result: dict[str, Any]) -> str:
    """What pictures of these scores say of what was scored."""
    if codes is not None:
        return f"codes of {codes.name}"
    told_of = result["provenance"]
    return titled(on.header, f"{told_of.get('data')}, {split} split" if split != "all" else str(told_of.get("data")))


def _drawn(results: dict[str, Any], subject: str) -> dict[str, Picture]:
    """The pictures of all metrics, by "metric.picture"."""
    drawn: dict[str, Picture] = {}
    for name, values in results.items():
        if "error" not in values:
            pictures = (
                registry().find("metric", values.get("metric", name)).load().pictures({**values, "subject": subject})
            )
            drawn |= {f"{UNFIT.sub('-', name)}.{key}": picture for key, picture in pictures.items()}
    return drawn


def _exit_code(results: list[dict[str, Any]], strict: bool) -> None:
    failed = ["error" in values for values in results]
    if any(failed) and (strict or all(failed)):
        raise typer.Exit(1)


command = options.command(evaluate, "eval", cls=EvalCommand)
