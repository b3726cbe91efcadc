"""Runners of the paper's studies: a race against the clock, and the memory of a training step."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distk import Dataset, UsageError, choose_device, open_dataset, option
from distk.config import to_dict
from distk.console import note
from distk.errors import DistkError
from distk.files import write_atomic
from distk.plugins.gan_family.ldf.figures import CURVES, curves_figure
from distk.plugins.gan_family.ldf.judge import FILE, judge_for
from distk.plugins.gan_family.ldf.memory import usage
from distk.plugins.gan_family.ldf.race import Point, Scoring, curve, rows_of
from distk.plugins.gan_family.ldf.shared import Shared
from distk.study.protocol import Row, StudyRun, runner
from distk.study.tables import rows_as_csv, write_figure


@dataclass(frozen=True)
class RaceConfig:
    """How long a run takes, how often it is scored, and the judge of images."""

    budget: float = option(0.0, "seconds of training on whole items; 0: the steps of the recipe", paper="1260", min=0)
    against: str = option(
        "", "variant whose time, of the same seed, limits the scores with pretraining counted where there is no budget"
    )
    evals: int = option(8, "scores on the way", min=1, max=1000)
    judge: str = option("", "file of a judge (`distk ldf judge`); without it one is trained", place=True)
    judge_steps: int = option(4000, "steps of 128 images that a judge is trained for", min=1)
    judge_width: int = option(64, "channels of a judge's first convolution", min=1, max=1024)
    samples: int = option(5000, "generated images of a score", min=20, max=10_000_000)
    clips: int = option(500, "generated clips of a score", min=2, max=1_000_000)


@runner(RaceConfig)
def race(study: StudyRun) -> Iterator[Row]:
    """A row per variant and seed: every score at the end of the budget, pretraining not counted (`NAME`) and counted
    (`NAME, pretraining counted`), and the seconds of both. Keeps curves.csv, curves.png and a judge of images beside
    the results."""
    opened: dict[str, Dataset] = {}
    for variant, seed in study.todo():
        settings, config = study.resolve(variant, seed), study.settings[variant.label]
        mark = repr((settings.data, settings.data_dir, sorted(settings.data_options.items())))
        if mark not in opened:
            opened.clear()  # one at a time: they may be large
            opened[mark] = open_dataset(
                settings.data, settings.data_options, device=choose_device(study.device), folder=settings.data_dir
            )
        options = {k: v for k, v in to_dict(config).items() if k not in ("budget", "against", "evals")}
        points: list[Point] = []
        known = _known(options, opened[mark])
        if "judge" in known:
            known = {"samples": config.samples, "judge": str(kept_judge(study.out, opened[mark], config))}
        for point in curve(
            settings, opened[mark], Scoring(config.evals, config.budget, known), lambda: bool(study.stop.signal)
        ):
            points.append(point)
        if study.stop.signal:  # half a run is worth nothing
            return
        keep(study.out, variant.label, seed, points)
        limit = config.budget or (time_of(study.out, config.against, seed) if config.against else points[-1].seconds)
        row = {"variant": variant.label, "seed": seed, **ends(points, limit)}
        shown = ", ".join(f"{key} {value:.3f}" for key, value in points[-1].scores.items())
        note(f"{variant.label}, seed {seed}, {points[-1].seconds:.1f} s: {shown}")
        yield row


def kept_judge(out: Path, dataset: Dataset, config: RaceConfig) -> Path:
    """The judge of these data, kept in the study's folder when it is first asked: a study that goes on, on another
    machine or with another file in the judge's place, goes on with the same scores."""
    told = [dataset.name, dataset.origin, to_dict(dataset.config), config.judge, config.judge_steps, config.judge_width]
    path = out / f"judge-{hashlib.sha256(repr(told).encode()).hexdigest()[:8]}.safetensors"
    if not path.exists():
        FILE.save(judge_for(dataset, config.judge, config.judge_steps, config.judge_width), path)
    return path


def _known(options: dict[str, Any], dataset: Dataset) -> dict[str, Any]:
    """Of the runner's settings those that the score of these data has."""
    wanted = ("clips",) if dataset.spec.kind == "video" else ("judge", "judge_steps", "judge_width", "samples")
    return {key: options[key] for key in wanted}


def ends(points: list[Point], limit: float) -> dict[str, float]:
    """Scores of the last point, and of the last one whose seconds from the very start are within the limit; NaN where
    there is none, or the limit is NaN."""
    last = points[-1]
    # A little is lost or won by steps that end after the mark.
    early = [point for point in points if point.total <= limit * 1.02]
    row = {"seconds": last.seconds, "seconds with pretraining": last.total, **last.scores}
    for name in last.scores:
        row[f"{name}, pretraining counted"] = early[-1].scores[name] if early else float("nan")
    return row


def time_of(out: Path, label: str, seed: int) -> float:
    """Seconds that a run of curves.csv took from the very start; NaN where it is not there."""
    path = out / "curves.csv"
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    mine = [row for row in csv.DictReader(io.StringIO(text)) if (row["variant"], row["seed"]) == (label, str(seed))]
    return max((float(row["with_pretraining"]) for row in mine), default=float("nan"))


def keep(out: Path, label: str, seed: int, points: list[Point]) -> None:
    """Put a run into curves.csv, in place of an earlier one of this variant and seed, and draw all curves."""
    path = out / "curves.csv"
    try:
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        held: list[dict[str, Any]] = [
            row for row in csv.DictReader(io.StringIO(text)) if (row["variant"], row["seed"]) != (label, str(seed))
        ]
        rows = held + rows_of(label, seed, points)
        write_atomic(path, rows_as_csv(rows, CURVES))
        write_figure(out / "curves.png", curves_figure(rows))
    except (OSError, ValueError, KeyError) as error:
        raise DistkError(f"'{path}' is no table of curves ({type(error).__name__}): remove it.") from error


@dataclass(frozen=True)
class MemoryConfig:
    """Of what a step is measured."""

    level: str = option("joint", "joint, or levels: whichever of both keeps more")
    frames: int = option(5, "frames of a clip", min=1, max=10_000)
    side: int = option(32, "height and width of a frame: 16, 32 or 64", min=16, max=64)
    clips: int = option(16, "clips in a batch of the joint GAN and of the upper level", min=2)
    pieces: int = option(16, "frames in a batch of the lower level", min=2)
    width: float = option(1.0, "factor on the networks' channels", above=0, max=16)
    match: bool = option(False, "make the joint GAN as large as both levels")


@runner(MemoryConfig)
def memory(study: StudyRun) -> Iterator[Row]:
    """A row per variant: bytes that a step keeps, of both levels the larger, and of the lower one alone."""
    for variant, seed in study.todo():
        c: MemoryConfig = study.settings[variant.label]
        if c.level not in ("joint", "levels"):
            raise UsageError(f"level '{c.level}' of variant '{variant.label}' is none of joint and levels.")
        device = choose_device(study.device)
        found = usage(c.frames, c.side, c.clips, c.pieces, Shared(width=c.width), c.match, device)
        row: Row = {"variant": variant.label, "seed": seed}
        if c.level == "joint":
            row["bytes_saved"] = float(found["joint"].saved)
        else:
            row["bytes_saved"] = float(max(found["bottom"].saved, found["top"].saved))
            row["bytes_saved_bottom"] = float(found["bottom"].saved)
        yield row
        if study.stop.signal:
            return
