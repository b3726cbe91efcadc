"""Scores over training time, for the levels one after the other, both at once, and the joint GAN (Figures 3 and 7)."""

from __future__ import annotations

import dataclasses
import math
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from distk import Dataset, UsageError, choose_device, console, evaluate, open_dataset
from distk.commands.arguments import DataDir, Device, Json
from distk.commands.shared import Look
from distk.commands.shared import report as told
from distk.config import assignments
from distk.console import counted
from distk.device import Ranks
from distk.files import write_atomic
from distk.look import formed
from distk.plugins.gan_family.ldf.commands import folder_of
from distk.plugins.gan_family.ldf.data import Pacman
from distk.plugins.gan_family.ldf.figures import CURVES, curves_figure
from distk.plugins.gan_family.ldf.method import Config
from distk.registry import registry
from distk.settings import Settings, resolve
from distk.study.tables import rows_as_csv, write_figure
from distk.training.loop import build

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "pretrain": ("ldf", {"schedule": "pretrain"}),
    "scratch": ("ldf", {"schedule": "scratch"}),
    "joint": ("joint-gan", {}),
}
"""Words of `--variants` -> method and settings."""


@dataclass(frozen=True)
class Point:
    """A state on the way. step: of all that were taken. seconds: of training since whole items are learnt, -1 before.
    total: since the start. scores: by name."""

    step: int
    seconds: float
    total: float
    scores: dict[str, float]
    judge: str = ""


@dataclass(frozen=True)
class Scoring:
    """How often a run is scored, and by what. evals: times. budget: seconds after which a run ends, 0 for none; those
    before whole items are learnt do not count. options: settings of the scores."""

    evals: int
    budget: float
    options: Mapping[str, Any]


def judged(model: Any, dataset: Dataset, options: Mapping[str, Any]) -> tuple[dict[str, float], str]:
    """Scores of a model, and the judge's fingerprint, where there is one.

    Of drawn clips of pacman the share with a ground that stays and with a pacman who walks; of labelled images the
    classifier score. Raises UsageError for other data, and where the score cannot be computed.
    """
    metric = "video-validity" if isinstance(dataset, Pacman) else "classifier-score"
    devices = [dataset.device] if dataset.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        result = evaluate(model, [metric], data=dataset, repeats=1, **options)["metrics"][metric]
    if "error" in result:
        raise UsageError(str(result["error"]))
    keys = ("background", "motion") if metric == "video-validity" else ("score",)
    return {f"{metric}.{key}": float(result[key]) for key in keys}, str(result.get("judge", ""))


class Clock:
    """Seconds of training alone. total: since the second step. whole: since whole items are learnt, -1 before."""

    def __init__(self, dataset: Dataset) -> None:
        self.device, self.total, self.whole = dataset.device, 0.0, -1.0
        self.go()

    def go(self) -> None:
        """Start again after what does not count."""
        self._began = time.perf_counter()

    def running(self) -> float:
        """Seconds since `go`, without waiting for the device."""
        return time.perf_counter() - self._began

    def halt(self, whole: bool) -> None:
        """Wait for the device and add up. whole: whether these steps learnt from whole items."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        spent = self.running()
        self.total += spent
        if whole:
            self.whole = max(self.whole, 0.0) + spent
        self.go()


def curve(settings: Settings, dataset: Dataset, scoring: Scoring, stopped: Callable[[], bool]) -> Iterator[Point]:
    """Train by these settings and score on the way; scoring does not count, nor does the first step, which compiles.

    Points lie at equal shares of the budget, or of the steps where there is none, from the first step on that learns
    from whole items; the last one is at the end.
    """
    trainer = build(settings, dataset.device, Ranks(), dataset)
    steps, begins = trainer.config.steps, getattr(trainer.model, "split_at", 0)
    if steps <= begins:
        raise UsageError(
            f"after {counted(steps, 'step')} none is left for the upper level, which begins after {begins}: take more."
        )
    clock, marks = Clock(dataset), 0
    while trainer.index < steps and not stopped():
        whole = trainer.index >= begins
        trainer.step()
        if trainer.index == 1:
            clock.halt(whole)
            clock.total, clock.whole = 0.0, 0.0 if whole else -1.0
        if trainer.index == begins:
            clock.halt(False)
            clock.whole = 0.0
        if not whole:
            continue
        learnt = clock.whole + clock.running()
        share = learnt / scoring.budget if scoring.budget else (trainer.index - begins) / (steps - begins)
        if scoring.budget and share > 0:  # the clock ends the run, so what falls with the steps falls with the clock
            trainer.model.run_steps = begins + math.ceil((trainer.index - begins) / min(share, 1.0))
        ended = trainer.index == steps or (scoring.budget > 0 and share >= 1)
        if not ended and share * scoring.evals < marks + 1:
            continue
        clock.halt(True)
        marks = math.floor(share * scoring.evals)
        trainer.check_health()
        yield Point(trainer.index, clock.whole, clock.total, *judged(trainer.model, dataset, scoring.options))
        if ended:
            return
        clock.go()


def rows_of(label: str, seed: int, points: Iterable[Point]) -> list[dict[str, Any]]:
    """Rows of curves.csv."""
    return [
        {
            "variant": label,
            "seed": seed,
            "step": point.step,
            "seconds": round(point.seconds, 3),
            "with_pretraining": round(point.total, 3),
            "score": name,
            "value": value,
            "judge": point.judge,
        }
        for point in points
        for name, value in point.scores.items()
    ]


def settings_of(
    variant: str, preset: str | None, data: Mapping[str, Any], given: Mapping[str, Any], seed: int, device: str
) -> Settings:
    """Settings of a word of `--variants`. given: sections model, train and data as of `--set`. Raises UsageError."""
    if variant not in VARIANTS:
        raise UsageError(f"--variants '{variant}' is none of {', '.join(VARIANTS)}.")
    method, own = VARIANTS[variant]
    fields = {f.name for f in dataclasses.fields(registry().find("method", method).load().Config)}
    others = {f.name for f in dataclasses.fields(Config)}
    model = given.get("model", {})
    # What only one of the methods has is left to that one.
    mine = {key: value for key, value in model.items() if key in fields or key not in others}
    sections = {
        "model": {**mine, **own},
        "data": {**data, **given.get("data", {})},
        "train": {**given.get("train", {}), "seed": seed, "device": device},
    }
    return resolve(method, preset=preset, options=sections)


def with_epochs(settings: Settings, epochs: int, items: int) -> Settings:
    """The same for so many passes over `items` whole items; before them, with pretraining, the lower level's
    `bottom_steps`."""
    passes = epochs * -(-items // settings.train.batch)
    below = settings.model.bottom_steps if getattr(settings.model, "schedule", "") == "pretrain" else 0
    return dataclasses.replace(settings, train=dataclasses.replace(settings.train, steps=passes + below))


def race(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the table and the figure.")] = Path(
        "runs/ldf-race"
    ),
    variants: Annotated[str, typer.Option(help="Of pretrain, scratch and joint, separated by commas.")] = (
        "pretrain,scratch,joint"
    ),
    data: Annotated[str, typer.Option(help="Labelled images, or pacman.")] = "shapes32",
    data_dir: DataDir = None,
    preset: Annotated[str | None, typer.Option(help="Of both methods, as demo, cifar or pacman.")] = None,
    epochs: Annotated[int, typer.Option(help="Passes over the items that may be seen whole.", min=1)] = 8,
    budget: Annotated[str, typer.Option(help="Stop after so much training on whole items, as 90s or 20m.")] = "",
    evals: Annotated[int, typer.Option(help="How often each run is scored.", min=1, max=1000)] = 8,
    seeds: Annotated[int, typer.Option(help="Seeds of each variant, from 0.", min=1, max=1000)] = 1,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="model.KEY=VALUE, train.KEY=VALUE or data.KEY=VALUE; repeatable."),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", help="Setting of the score, as judge=FILE or samples=2000; repeatable."),
    ] = None,
    device: Device = "auto",
    json: Json = False,
    look: Look = Look(),
) -> None:
    """Hold the levels, trained one after the other or at once, against a GAN over all pixels: scores over seconds.

    Labelled images are scored by `classifier-score`, clips by `video-validity`. Both ways of counting are written:
    with the seconds in which the lower level was trained beforehand, and without.

    Example: distk ldf race --data shapes32 --preset demo --epochs 1 --evals 1 --set model.bottom_steps=4
    """
    given = assignments(set_ or [], "model", ("train", "data"))
    scores = assignments(option or [], "option", (), "--option").get("option", {})
    scoring = Scoring(evals, seconds_of(budget), {key: _plain(value) for key, value in scores.items()})
    where = {"name": data, **({"dir": str(data_dir)} if data_dir else {})}
    names = [name.strip() for name in variants.split(",") if name.strip()]
    plans = {
        (name, seed): settings_of(name, preset, where, given, seed, device) for name in names for seed in range(seeds)
    }
    first = next(iter(plans.values()), None)
    if first is None:
        raise UsageError(f"--variants '{variants}' names none of {', '.join(VARIANTS)}.")
    dataset = open_dataset(first.data, first.data_options, device=choose_device(device), folder=first.data_dir)
    console.note(f"data {dataset.name}: {dataset.origin}")
    folder_of(out)
    table, picture = out / "curves.csv", out / formed("curves.png")
    rows: list[dict[str, Any]] = []
    for (name, seed), settings in plans.items():
        items = settings.model.joint_samples or len(dataset.rows_of("train"))
        if not scoring.budget:
            settings = with_epochs(settings, epochs, items)
        else:  # the clock decides when it ends
            settings = dataclasses.replace(settings, train=dataclasses.replace(settings.train, steps=10**9))
        for point in curve(settings, dataset, scoring, lambda: False):
            told_scores = ", ".join(f"{key} {value:.3f}" for key, value in point.scores.items())
            console.note(f"{name}, seed {seed}, step {point.step:,}, {point.seconds:.1f} s: {told_scores}")
            rows += rows_of(name, seed, [point])
            write_atomic(table, rows_as_csv(rows, CURVES))  # what has been scored outlives an interruption
        write_figure(picture, curves_figure(rows))
    told([table, picture], json, rows=rows)


def _plain(value: Any) -> Any:
    """A setting as text -> a number, where it is one."""
    return int(value) if isinstance(value, str) and value.isdecimal() else value


def seconds_of(text: str) -> float:
    """`90`, `90s`, `20m`, `1h` -> seconds; an empty text is 0. Raises UsageError for another form."""
    if not text:
        return 0.0
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", text.strip())
    if not found or not float(found[1]):
        raise UsageError(f"--budget '{text}' is not understood; write a time such as 90s, 20m or 1h.")
    return float(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[found[2]]
