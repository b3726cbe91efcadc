"""`distk study list | show | run | status | cancel | logs | report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from distk import console
from distk.commands.arguments import Device, Json
from distk.commands.shared import Look
from distk.console import counted
from distk.device import choose_device
from distk.errors import DistkError
from distk.files import read_text
from distk.registry import registry
from distk.study import engine, store
from distk.study import engine as engines
from distk.study import report as reports
from distk.study import status as states
from distk.study.checks import Preview, preview
from distk.study.plan import Plan, differences, plan
from distk.study.protocol import StudyFailed
from distk.study.report import check_directions
from distk.study.scales import instead, told
from distk.study.submitted import settings_of as engine_settings
from distk.study.timing import in_words, processes

What = Annotated[str, typer.Argument(metavar="NAME_OR_FILE", help="A name of `distk study list`, or a recipe.toml.")]
Folder = Annotated[Path, typer.Argument(metavar="OUT", help="The folder of a study.")]
Seeds = Annotated[
    str | None, typer.Option(help="N for the seeds 0 to N-1, or A:B for A to B-1; default: the recipe's.")
]
Scale = Annotated[
    str | None,
    typer.Option(help="small or paper; default: small where the recipe has it, else the recipe as it stands."),
]
Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="METHOD.KEY=VALUE, or model., data., train., settings. or options.METRIC. before KEY=VALUE; repeatable.",
    ),
]
RunSets = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="METHOD.KEY=VALUE, or model., data., train., settings., options.METRIC. or engine. before KEY=VALUE; "
        "repeatable.",
    ),
]
Out = Annotated[Path | None, typer.Option("--out", "-o", help="Folder of the study; default: runs/study-NAME.")]


def show(
    what: What,
    scale: Scale = None,
    seeds: Seeds = None,
    set_: Sets = None,
    out: Out = None,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Show what a study would run, and in what its variants differ; nothing is trained.

    Whatever `distk study run` would refuse is refused here, too.

    Example: distk study show my-study.toml
    """
    made, found = _planned(what, scale, seeds, set_, out, device)
    if json:
        console.emit_json({**_plain(made, found), "seconds": _seconds(made, found, None)})
    else:
        _print_plan(made, found, console.out)
        _print_time(made, found, None, console.out)


def run(
    what: What,
    scale: Scale = None,
    seeds: Seeds = None,
    set_: RunSets = None,
    out: Out = None,
    jobs: Annotated[
        int | None,
        typer.Option(help="Runs at a time; default: one for each core, or each GPU, or what a cluster gives.", min=1),
    ] = None,
    engine: Annotated[str, typer.Option(help="Where it runs: local, slurm, ray; see `distk list engines`.")] = "local",
    device: Device = "auto",
    json: Json = False,
    look: Look = Look(),
) -> None:
    """Run a study, or go on with one: train, score, compare with what was published.

    What is done is not done again, so the same command goes on with a study that was stopped or killed. Exit code 1 if
    a run failed; the others are done and reported all the same.

    Example: distk study run my-study.toml --seeds 5
    """
    own, settings = engine_settings(set_ or ())
    here = registry().find("engine", engine).load().here
    made, found = _planned(what, scale, seeds, own, out, device, here)
    _print_plan(made, found, console.err)
    _print_time(made, found, jobs, console.err)
    failure: StudyFailed | None = None
    try:
        engines.run(made, engine=engine, settings=settings, jobs=jobs)
    except StudyFailed as error:
        failure = error
    told = reports.report(made.out)
    empty = _empty(made)
    if json:
        console.emit_json({**told.plain(), "empty": empty, "failed": str(failure) if failure else ""})
    else:
        reports.show(told)
    for line in () if json else empty:
        console.note(line)
    console.note(f"runs and {', '.join(f.name for f in told.files)} are in {made.out}")
    if failure is not None:
        raise failure


def status(out: Folder, json: Json = False) -> None:
    """Show how far the runs of a study are: queued, running and where, done, failed and why.

    Any machine that sees the folder can tell; why a run waits, only one that reaches the queue.

    Example: distk study status runs/study-my-study
    """
    told = states.status(out)
    if json:
        console.emit_json(told)
        return
    columns = ("variant", "seed", "state", "step", "steps", "where", "job")
    used = [c for c in columns if c not in ("where", "job") or any(r[c] for r in told["runs"])]
    rows = [tuple(r[c] for c in used) for r in told["runs"]]
    console.table(
        f"study {told['study']}, scale {told['scale']}", tuple("of" if c == "steps" else c for c in used), rows
    )
    reasons: dict[str, list[str]] = {}
    for one in told["runs"]:
        if one["reason"]:
            reasons.setdefault(f"{one['state']}: {one['reason']}", []).append(f"{one['variant']}, seed {one['seed']}")
    for why, whose in reasons.items():
        console.note(f"{whose[0]}{f' and {len(whose) - 1} more' if len(whose) > 1 else ''} {why}")
    counts = ", ".join(f"{n} {state}" for state, n in told["counts"].items())
    console.note(f"{counted(len(told['runs']), 'run')}: {counts}")
    if told["engine"] and not told["watched"]:
        console.note(
            f"no process watches over the jobs of engine {told['engine']}: `distk study run` takes them up again"
        )


def cancel(out: Folder, json: Json = False) -> None:
    """Stop the runs of a study, from any machine: those that run save and end, those that wait never begin.

    `distk study run` goes on with them later. Where a process is running the study, it is asked to stop; where it was
    killed, its jobs in a queue are cancelled there.

    Example: distk study cancel runs/study-my-study
    """
    told = states.cancel(out)
    if json:
        console.emit_json(told)
    elif not told["asked"]:
        console.note(f"no run of '{out}' waits or runs")
    else:
        still = f"; {told['left']} are still saving" if told["left"] else ""
        console.note(f"{told['ended']} of {counted(told['asked'], 'job')} ended{still}")


def logs(
    out: Folder,
    run: Annotated[str, typer.Argument(metavar="RUN", help="VARIANT/sSEED, as the folders below runs/.")],
    lines: Annotated[int, typer.Option(help="Lines from the end.", min=1)] = 100,
    json: Json = False,
) -> None:
    """Show what the jobs of one run said: where and when they began and ended, warnings, errors, the queue's words.

    Example: distk study logs runs/study-my-study small/s0
    """
    path = states.log_of(out, run)
    try:
        said = read_text(path).splitlines()[-lines:]
    except OSError as error:
        raise DistkError(f"cannot read '{path}': {error.strerror or error}.") from error
    if json:
        console.emit_json({"log": str(path), "lines": said})
        return
    for line in said:
        console.say(line)


def report(out: Folder, json: Json = False, look: Look = Look()) -> None:
    """Show a study's results again, and draw its figures anew from results.csv.

    Example: distk study report runs/study-my-study --format pdf
    """
    told = reports.report(out)
    if json:
        console.emit_json(told.plain())
    else:
        reports.show(told)
        console.note(f"{', '.join(f.name for f in told.files)} are in {out}")


def _planned(
    what: str,
    scale: str | None,
    seeds: str | None,
    sets: list[str] | None,
    out: Path | None,
    device: str,
    here: bool = True,
) -> tuple[Plan, Preview]:
    """The plan and what is known of it. here: jobs run on this machine, which has their device."""
    made = plan(what, scale=scale, seeds=seeds, sets=sets or (), out=out, device=device)
    check_directions(made.recipe)
    if scale is None and made.recipe.scale in made.recipe.scales:
        console.note(f"scale {made.recipe.scale}; --scale paper runs the study as it was published")
    if less := instead(made.recipe, made.seeds):
        console.note(f"here {told(less)}")
    found = preview(made, timed=here and choose_device(device).type == "cpu")
    for column, why in found.empty.items():
        console.warn(f"column {column} may stay empty: {why}")
    return made, found


def _seconds(made: Plan, found: Preview, jobs: int | None) -> float | None:
    """How long the steps of a study take on this CPU; None where they were not timed."""
    steps = {v.label: made.settings(v, 0).train.steps for v in made.variants if v.method}
    return found.expected.total(steps, len(made.seeds), processes(jobs))


def _print_time(made: Plan, found: Preview, jobs: int | None, where: Any) -> None:
    seconds = _seconds(made, found, jobs)
    if seconds is None:
        return
    at_once = min(processes(jobs), len(made.variants) * len(made.seeds))
    told = f"about {in_words(seconds)} of training, {at_once} at a time, by a few steps timed just now"
    console.say(f"{told}; opening data and scoring come on top", to=where)


def _empty(made: Plan) -> list[str]:

    return engine.reasons(made, store.load(made.out))


def _plain(made: Plan, found: Preview) -> dict[str, Any]:

    recipe = made.recipe
    return {
        "study": recipe.name,
        "title": recipe.title,
        "source": recipe.source,
        "scale": recipe.scale,
        "instead": {name: list(values) for name, values in instead(recipe, made.seeds).items()},
        "seeds": list(made.seeds),
        "out": str(made.out),
        "columns": [c.name for c in recipe.columns],
        "runner": recipe.runner,
        "variants": differences(made),
        "claims": [c.text for c in recipe.claims],
    }


def _print_plan(made: Plan, found: Preview, where: Any) -> None:

    told = _plain(made, found)
    lines = differences(made)
    console.say(told["title"] + (f" ({told['source']})" if told["source"] else ""), to=where)
    reports.show_conditions(lines, where)
    count = (
        f"{counted(len(lines), 'variant')} x {counted(len(made.seeds), 'seed')}"
        if lines
        else f"{counted(len(made.seeds), 'seed')}"
    )
    console.say(f"{count}; columns: {', '.join(told['columns'])}", to=where)
