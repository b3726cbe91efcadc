"""`distk eval`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from distk import completing, options
from distk.asked import asked
from distk.commands.bundles import Look, OnRows
from distk.config import assignments
from distk.errors import DistkError, UsageError
from distk.options import Bundle
from distk.registry import registry

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
    if not named:
        return []
    from distk.evaluation import expand

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
    from distk.commands.scoring import File, run

    file = File(codes, factors, codes_columns) if codes is not None else None
    if file is None and (factors is not None or codes_columns is not None):
        option = "--factors" if factors is not None else "--codes-columns"
        raise UsageError(f"{option} chooses from a file of codes: name it with --codes.")
    own = {**how.settings(names), **_typed(context)}
    settings = {"repeats": how.repeats, "baseline": how.baseline or 0, "ci": how.ci or 0}
    run(on, metric or [], own, settings, file=file, rows=rows, fit=fit, plots=plots, strict=strict)


def _typed(context: typer.Context) -> dict[str, Any]:
    """The metrics' own options that `EvalCommand` has read."""
    found = {k.removeprefix(_SETTING): v for k, v in context.meta.items() if k.startswith(_SETTING)}
    return {k: ",".join(map(str, v)) if isinstance(v, (list, tuple)) else v for k, v in found.items()}


command = options.command(evaluate, "eval", cls=EvalCommand)
