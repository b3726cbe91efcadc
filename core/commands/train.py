"""`distk train METHOD` and `distk resume`."""

# No `from __future__ import annotations`: typer reads annotations that are made from local values.
import math
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from distk import completing, console, options
from distk.commands.arguments import DataDir, Json
from distk.config import assignments, flag, own_names, read_toml, to_toml
from distk.errors import DistkError, UsageError
from distk.helping import PlainGroup
from distk.registered import Registration
from distk.registry import registry

SIDE_BY_SIDE = 5
"""Seeds whose terms fit beside each other into a narrow terminal; of more, the spread is shown."""


class TrainGroup(PlainGroup):
    """Every registered method is a command; its options are made from its Config when it is called for."""

    def list_commands(self, ctx: Any) -> list[str]:
        return [entry.name for entry in registry().entries("method")]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """A command with the summary only: listing the methods must not import them."""
        for entry in registry().entries("method"):
            if cmd_name in (entry.name, *entry.aliases):
                made = typer.core.TyperCommand(entry.name, help=entry.summary)
                made.rich_help_panel = f"Methods of {entry.plugin}"
                return made
        return None

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """`distk train --config FILE ...`: the file names the method."""
        if args and args[0].startswith("-") and not {"--help", "-h"} & set(args):
            file = _named(args).get("--config")
            if not file:
                ctx.fail(f"name the method first: distk train METHOD {args[0]} ...; `distk list methods` shows them.")
            args = [method_in(Path(str(file))), *args]
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        entry = registry().find("method", args[0])
        return args[0], _method_command(entry, args[1:]), args[1:]


app = typer.Typer(
    cls=TrainGroup,
    no_args_is_help=True,
    help="Train a method into a run folder.\n\nExample: distk train cascadevae --preset demo --seed 1",
    epilog="distk train METHOD --help shows every option of a method.",
)
app.callback()(lambda: None)


def _method_command(entry: Registration, args: list[str]) -> Any:
    from distk.settings import TRAIN_PANELS, TRAIN_WORDS, TrainConfig, method_words

    cls = entry.load()
    name = _data_name(args, cls.data, cls)
    dataset = registry().find("dataset", name.partition(":")[0]) if name else None
    data_config = dataset.load().Config if dataset is not None else None
    if wrong := own_names(cls.Config, method_words()):
        raise DistkError(f"method '{entry.name}' of {entry.owner} cannot be trained: {wrong}.")
    method_parameters = options.parameters(cls.Config, f"Method: {entry.name}")
    train_parameters = options.parameters(
        TrainConfig, "Training", defaults=cls.train_defaults, panels=TRAIN_PANELS, completers=completing.OF_OPTION
    )
    taken = {*TRAIN_WORDS, *(p.name for p in method_parameters + train_parameters)}
    data_parameters = (
        options.parameters(data_config, f"Data: {name}", taken, "data_", cls.data_defaults) if data_config else []
    )

    def run(
        data: Annotated[
            str | None,
            typer.Option(
                "--data",
                *(["--env"] if "environment" in cls.kinds else []),
                show_default=False,
                autocompletion=completing.datasets,
                help=f"Data set, see `distk list datasets`; NAME:VARIANT for a variant. [default: {cls.data}]",
            ),
        ] = None,
        data_dir: Annotated[
            str | None, typer.Option(help="Folder with the data set's own files; default: $DISTK_DATA, else built-in.")
        ] = None,
        preset: Annotated[
            str | None, typer.Option(help=_presets(cls), autocompletion=completing.choices(cls.presets))
        ] = None,
        config: Annotated[
            Path | None, typer.Option(help="TOML file with sections model, data, train, such as a run's config.toml.")
        ] = None,
        out: Annotated[
            Path | None, typer.Option(help="Run folder; default: runs/<method>-<date>-<time>-s<seed>.")
        ] = None,
        seeds: Annotated[str | None, typer.Option(help="A:B trains seeds A to B-1, each in a run folder.")] = None,
        profile: Annotated[
            bool, typer.Option("--profile", help="Show where the time of a step goes and its floor; keep no run.")
        ] = False,
        print_config: Annotated[
            bool, typer.Option("--print-config", help="Print the settings as a config file, and train nothing.")
        ] = False,
        dry_run: Annotated[
            bool, typer.Option("--dry-run", help="Open the data, build the model, check all of it; take no step.")
        ] = False,
        json: Json = False,
        **values: Any,
    ) -> None:
        chosen: dict[str, Any] = options.given(data_config, values, taken, "data_") if data_config else {}
        chosen |= {k: v for k, v in (("name", data), ("dir", data_dir)) if v is not None}
        sections = {
            "model": options.given(cls.Config, values),
            "train": options.given(TrainConfig, values),
            "data": chosen,
        }
        if {"steps", "epochs"} <= sections["train"].keys():
            raise UsageError("--steps and --epochs exclude each other.")
        if print_config:
            _print_config(entry.name, preset, config, sections, json)
        elif dry_run:
            _dry_run(entry.name, preset, config, sections, out, seeds, json)
        elif profile:
            _profile(entry.name, preset, config, sections, json)
        else:
            _train(entry.name, preset, config, sections, out, seeds, json)

    paper = f" ({entry.paper})" if entry.paper else ""
    steps = 0 if cls.closed_form else 1000
    help_text = f"{entry.summary}{paper}.\n\nExample: distk train {entry.name} --steps {steps} --seed 1"
    return options.command(run, entry.name, [*method_parameters, *data_parameters, *train_parameters], help_text)


def _presets(cls: type) -> str:
    names = ", ".join(cls.presets) or "none"  # type: ignore[attr-defined]
    return f"A bundle of settings: {names}."


def _named(args: list[str]) -> dict[str, str]:
    """The values of the options of this command line that decide which other ones there are."""
    found: dict[str, str] = {}
    for i, arg in enumerate(args):
        for name in ("--data", "--env", "--preset", "--config"):
            if arg == name and i + 1 < len(args):
                found[name] = args[i + 1]
            elif arg.startswith(name + "="):
                found[name] = arg.partition("=")[2]
    return found


def method_in(file: Path) -> str:
    """The method that a config file names. Raises UsageError for one that names none."""
    found = read_toml(file).get("method")
    if not isinstance(found, str) or not found:
        raise UsageError(f"'{file}' does not say which method it is for: write distk train METHOD --config {file}.")
    return found


def _data_name(args: list[str], default: str, cls: type) -> str:
    """The data set that this command line names, so that its options can be offered: --data, --config, --preset."""
    found = _named(args)
    if named := found.get("--data") or found.get("--env"):
        return named
    if "--config" in found and Path(found["--config"]).is_file():
        section = read_toml(Path(found["--config"])).get("data", {})
        if isinstance(section, dict) and isinstance(section.get("name"), str):
            return section["name"]
    return cls.presets.get(found.get("--preset", ""), {}).get("data", {}).get("name", default)  # type: ignore[attr-defined]


def _seeds(text: str, sections: dict) -> range:
    """The seeds that `--seeds` names. Raises UsageError for no range, and beside `--seed`."""
    if "seed" in sections["train"]:
        raise UsageError("--seed and --seeds exclude each other.")
    first, _, last = text.partition(":")
    if not (first.isdigit() and last.isdigit() and int(first) < int(last)):
        raise UsageError(f"--seeds '{text}' is not understood; write A:B, for example 0:5 for the seeds 0 to 4.")
    return range(int(first), int(last))


def _train(
    method: str,
    preset: str | None,
    config: Path | None,
    sections: dict,
    out: Path | None,
    seeds: str | None,
    json: bool,
) -> None:
    from distk.settings import resolve
    from distk.training.loop import train

    if seeds is None:
        _finished(train(resolve(method, preset=preset, file=config, options=sections, typed=flag), out), json)
        return
    from distk.training.replicas import train_seeds

    settings = []
    for seed in _seeds(seeds, sections):
        sections["train"]["seed"] = seed
        settings.append(resolve(method, preset=preset, file=config, options=sections, typed=flag))
    _all_finished([s.train.seed for s in settings], train_seeds(settings, out), json)


def _print_config(method: str, preset: str | None, config: Path | None, sections: dict, json: bool) -> None:
    """The settings of a run, as the file that `--config` reads."""
    from distk.settings import resolve

    settings = resolve(method, preset=preset, file=config, options=sections, typed=flag)
    if json:
        console.emit_json({"method": settings.entry.name, **settings.to_dict()})
    else:
        console.say(to_toml(settings.to_dict(), {"method": settings.entry.name}).rstrip("\n"))


def _dry_run(
    method: str,
    preset: str | None,
    config: Path | None,
    sections: dict,
    out: Path | None,
    seeds: str | None,
    json: bool,
) -> None:
    """Everything that a run does before it writes anything."""
    from distk.settings import resolve
    from distk.training.rehearsal import rehearse

    if seeds is not None:
        sections["train"]["seed"] = _seeds(seeds, sections)[0]
    told = rehearse(resolve(method, preset=preset, file=config, options=sections, typed=flag), out)
    if json:
        console.emit_json(told)
        return
    rows = [(name, console.number(value) if isinstance(value, float) else value) for name, value in told.items()]
    console.table("", ("", ""), [(name, f"{v:,}" if isinstance(v, int) else v) for name, v in rows])
    console.note("nothing was trained or written: leave --dry-run out to train")


def _profile(method: str, preset: str | None, config: Path | None, sections: dict, json: bool) -> None:
    from distk.settings import resolve
    from distk.training.profile import profile, show

    found = profile(resolve(method, preset=preset, file=config, options=sections, typed=flag))
    if json:
        console.emit_json(found)
    else:
        show(found)


def resume(
    run: Annotated[
        Path | None,
        typer.Argument(help="Run folder or checkpoint; default: the newest run.", autocompletion=completing.runs),
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Train up to this step instead of the one first asked for.")] = None,
    max_time: Annotated[
        str | None, typer.Option(help="End and save after so long from here on, as 90s, 30m, 2h, 1:30:00.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="Another setting from here on: steps, eval, log-every, ... (train.KEY=VALUE) or model.lr=VALUE.",
        ),
    ] = None,
    data_dir: DataDir = None,
    device: Annotated[
        str | None,
        typer.Option(help="auto, cpu, cuda or cuda:N; default: as before.", autocompletion=completing.devices),
    ] = None,
    json: Json = False,
) -> None:
    """Continue a run that was stopped or killed, as if it had never been.

    What was trained cannot change, how long it goes on, what is logged and scored, and learning rates can: by --set, or
    by editing the folder's config.toml. The checkpoint keeps every change with its step, and `distk info` shows them.

    Example: distk resume runs/cascadevae-20260101-120000-s0
    """
    from distk.run import find_checkpoint
    from distk.training.loop import resume as take_up

    path = find_checkpoint(run)
    if steps is not None and steps < 0:
        raise UsageError(f"--steps {steps} is below 0.")
    changes = assignments(set_ or [], "train", ["model", "data"])
    if max_time is not None:
        changes.setdefault("train", {})["max_time"] = max_time
    if device is not None:
        changes.setdefault("train", {})["device"] = device
    folder = None if data_dir is None else str(data_dir)
    _finished(take_up(path, steps, folder=folder, changes=changes), json)


def _summary(run: Any) -> dict[str, Any]:
    log = run.log
    last = log[-1] if log else {}
    best = str(run.best) if run.best.exists() else None
    files = {"run": str(run.path), "checkpoint": str(run.checkpoint), "best": best}
    return {**files, "step": last.get("step", 0), "last": last}


def _all_finished(seeds: list[int], runs: list[Any], json: bool) -> None:
    """One document, or one table, for several seeds."""
    found = [_summary(run) for run in runs]
    if json:
        console.emit_json({"runs": [{"seed": seed, **made} for seed, made in zip(seeds, found, strict=True)]})
        return
    terms = [k for k, v in found[0]["last"].items() if isinstance(v, (int, float)) and k not in ("step", "seconds")]
    title = f"step {found[0]['step']:,}"
    if len(seeds) <= SIDE_BY_SIDE:
        values = [[term, *(made["last"].get(term) for made in found)] for term in terms]
        console.table(title, ("term", *(f"seed {seed}" for seed in seeds)), values)
    else:
        console.table(title, ("term", "mean", "sd", "least", "most"), [[term, *_over(found, term)] for term in terms])
    console.say("\n".join(f"run  {made['run']}" for made in found))


def _over(found: list[dict[str, Any]], term: str) -> tuple[float | None, ...]:
    """Mean, standard deviation, least and most of a term over runs; nothing where a run has no such number."""
    values = [made["last"].get(term) for made in found]
    if not all(isinstance(value, (int, float)) for value in values):
        return (None,) * 4
    mean = math.fsum(values) / len(values)
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))
    return mean, deviation, min(values), max(values)


def _finished(run: Any, json: bool) -> None:
    if os.environ.get("RANK", "0") != "0":  # under torchrun the first process speaks for all
        return
    log = run.log
    last = log[-1] if log else {}
    best = run.best if run.best.exists() else None
    if json:
        console.emit_json(_summary(run))
        return
    shown = {k: v for k, v in last.items() if isinstance(v, (int, float)) and k not in ("step", "seconds", "rate")}
    if last:
        title = f"step {last['step']:,}"  # of a log that may have been edited
        for key, words in (("seconds", " after {} s"), ("rate", ", {} steps/s")):
            if isinstance(value := last.get(key), (int, float)):
                title += words.format(console.number(float(value)))
        console.table(title, ("term", "mean since the last row"), [(k, float(v)) for k, v in shown.items()])
    console.say(f"checkpoint  {run.checkpoint}" + (f"\nbest        {best}" if best else ""))
