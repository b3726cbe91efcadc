"""`distk eval`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from distk import options
from distk.commands.arguments import Checkpoint, DataDir, DataName, Device, Json, Out, Seed
from distk.commands.shared import its_data, opened, require
from distk.errors import DistkError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from distk.metric import Picture

HOW = "How to score"


class EvalCommand(typer.core.TyperCommand):
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
    from distk.evaluation import expand
    from distk.registry import registry

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
            ctx.meta[f"distk.setting.{parameter.name}"] = value

    for option in made:
        option.expose_value, option.callback = False, keep
    return made


def evaluate(
    context: typer.Context,
    checkpoint: Checkpoint = None,
    metric: Annotated[
        list[str] | None, typer.Option("--metric", "-m", help="Metric, repeatable; `all` for every one.")
    ] = None,
    codes: Annotated[
        Path | None,
        typer.Option(help="Score an npz with `codes` [n, D] and `factors` [n, K] instead; `codes_test`, `std`, ..."),
    ] = None,
    data: DataName = None,
    data_dir: DataDir = None,
    split: Annotated[str, typer.Option(help="all, train or test.")] = "all",
    rows: Annotated[int | None, typer.Option(help="Encode at most so many items; default: all.", min=1)] = None,
    repeats: Annotated[
        int | None,
        typer.Option(help="Seeds per metric; default: 1, or 5 for sampled scores.", min=1, rich_help_panel=HOW),
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option(help="Variant of the metric, for example dlib, cascadevae, paper.", rich_help_panel=HOW),
    ] = None,
    code: Annotated[
        str | None,
        typer.Option(help="mean (default), or sample: draws from the posterior.", rich_help_panel=HOW),
    ] = None,
    predictor: Annotated[
        str | None, typer.Option(help="Of dci: gbt, lasso, rf; of downstream: lr, gbt, svm.", rich_help_panel=HOW)
    ] = None,
    bins: Annotated[
        int | None,
        typer.Option(help="Bins per code (default: 20), and of continuous factors.", min=2, rich_help_panel=HOW),
    ] = None,
    exact: Annotated[
        bool, typer.Option("--exact", help="scikit-learn's boosting instead of the fast one.", rich_help_panel=HOW)
    ] = False,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="Another setting of the metric: NAME=VALUE.", rich_help_panel=HOW),
    ] = None,
    seed: Seed = 0,
    device: Device = "auto",
    out: Out = None,
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
    json: Json = False,
) -> None:
    """Measure a trained model, or anybody's codes, with one pass of encoding.

    Writes <checkpoint>.eval.json, its arrays as <checkpoint>.eval.safetensors, and pictures of them; with --codes only
    where --out says.

    Every setting of a metric is an option, too: distk eval --metric recall --help shows those of recall.

    Example: distk eval runs/my-run --metric dci --metric factorvae
    Example: distk eval runs/my-run --metric recall --ks 1,5,10
    """
    from distk import console
    from distk.evaluation import evaluate as score
    from distk.evaluation import expand

    names = expand(metric or [])
    if not names:
        raise UsageError("name at least one --metric; `distk list metrics` shows them.")
    if split not in ("all", "train", "test"):
        raise UsageError(f"--split '{split}' is none of all, train, test.")
    shortcuts = {"protocol": protocol, "code": code, "predictor": predictor, "bins": bins, "exact": exact or None}
    settings = {**{k: v for k, v in shortcuts.items() if v is not None}, **_settings(set_ or [])}
    own = {k.removeprefix("distk.setting."): v for k, v in context.meta.items() if k.startswith("distk.setting.")}
    settings |= {k: ",".join(map(str, v)) if isinstance(v, (list, tuple)) else v for k, v in own.items()}
    if codes is not None:
        if checkpoint is not None:
            raise UsageError("give a checkpoint or --codes, not both.")
        if data or data_dir or rows or split != "all":
            raise UsageError(
                "--data, --data-dir, --split and --rows choose what to encode; --codes is encoded already."
            )
        path, result = codes, score(_table(codes, device), names, seed=seed, repeats=repeats, **settings)
    else:
        path, model, header = opened(checkpoint, device)
        if all(_reads_codes(name) for name in names):
            require(model, header, "eval", "encode")
        dataset = its_data(model, header, data, data_dir)
        cache = path.with_name(f".{path.stem}.codes.safetensors")
        result = score(
            model, names, data=dataset, split=split, rows=rows, seed=seed, repeats=repeats, cache=cache, **settings
        )
    target = out or (path.with_name(f"{path.stem}.eval.json") if codes is None else None)
    drawn = {} if plots is False else _drawn(result["metrics"])
    result = {"checkpoint": str(path), **result}
    if target is not None:
        result = _written(target, result, drawn, both=bool(plots))
    if json:
        console.emit_json(result)
    else:
        _print(result)
        for name, picture in drawn.items() if plots else ():
            if text := picture.text():
                console.out.print(f"\n{name}\n{console.clean(text)}", markup=False)
    _exit_code(result["metrics"], strict)


def _table(codes: Path, device: str) -> Any:
    from distk.codefile import table_from_arrays
    from distk.device import choose_device

    return table_from_arrays(codes, choose_device(device))


def _reads_codes(name: str) -> bool:
    from distk.registry import registry

    try:
        return bool(registry().find("metric", name).load().needs_codes)
    except DistkError:  # it will be a row with its reason
        return True


def _settings(pairs: list[str]) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for pair in pairs:
        name, found, value = pair.partition("=")
        if not found:
            raise UsageError(f"--set '{pair}' is not understood; write NAME=VALUE.")
        settings[name.replace("-", "_")] = {"true": True, "false": False}.get(value, value)
    return settings


def _drawn(results: dict[str, Any]) -> dict[str, Picture]:
    """The pictures of all metrics, by "metric.picture"."""
    from distk.registry import registry

    found = {}
    for name, values in results.items():
        if "error" not in values:
            pictures = registry().find("metric", name).load().pictures(values)
            found |= {f"{name}.{key}": picture for key, picture in pictures.items()}
    return found


def _written(target: Path, result: dict[str, Any], drawn: dict[str, Picture], both: bool) -> dict[str, Any]:
    """Write JSON, arrays and pictures; what cannot be written is a warning, for the figures are there all the same."""
    from distk import console
    from distk.evaluation import arrays_path, write_results
    from distk.files import write_atomic

    stem = arrays_path(target).name.removesuffix(".safetensors")
    files = dict(_contents(stem, drawn, both))
    if files:
        result = {**result, "provenance": {**result["provenance"], "pictures": list(files)}}
    try:
        result = write_results(target, result)
        for name, content in files.items():
            write_atomic(target.with_name(name), content)
    except DistkError as error:
        console.warn(str(error))
    else:
        console.note(f"written: {target}" + (f" and {len(files)} pictures beside it" if files else ""))
    return result


def _contents(stem: str, drawn: dict[str, Picture], both: bool) -> Iterator[tuple[str, bytes]]:
    for name, picture in drawn.items():
        yield f"{stem}.{name}.png", picture.png()
        if both:
            yield f"{stem}.{name}.svg", picture.svg().encode()


def _print(result: dict[str, Any]) -> None:
    from distk import console

    rows: list[tuple[Any, ...]] = []
    notes, failed = [], []
    for name, values in result["metrics"].items():
        if "error" in values:
            failed.append((name, values["error"]))
            continue
        numbers = {k: v for k, v in values.items() if isinstance(v, (int, float)) and not k.endswith("_std")}
        spread = {k: values.get(f"{k}_std") for k in numbers}
        rows += [(name, k, float(v), spread[k], values.get("repeats", 1)) for k, v in numbers.items() if k != "repeats"]
        notes += [f"{name}, {key}: {reason}" for key, reason in values.get("reasons", {}).items()]
    if rows:
        several = any(row[4] > 1 for row in rows)
        columns = ("metric", "key", "value", "std", "seeds") if several else ("metric", "key", "value")
        console.table("", columns, [row[: len(columns)] for row in rows])
    if failed and rows:
        console.out.print("")
        console.table("", ("not scored", "because"), failed)
    for line in dict.fromkeys(notes):
        console.note(line)
    if not rows:
        for name, reason in failed:
            console.error(f"{name}: {reason}")


def _exit_code(results: dict[str, Any], strict: bool) -> None:
    failed = [name for name, values in results.items() if "error" in values]
    if failed and (strict or len(failed) == len(results)):
        raise typer.Exit(1)


command = options.command(evaluate, "eval", cls=EvalCommand)
