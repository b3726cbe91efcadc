"""How beta affects disentanglement and classification: the sweep of Peychev et al. (2017).

A study is a folder: `study.json` (what was asked for), `results.csv` (a row per model), `models/` (a checkpoint per
model), and the figures. Models are trained in groups, side by side; a group's rows are written together, so that an
interrupted study goes on with the first group that is not there and ends with the same figures.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distk import UsageError
from distk.checkpoint import header_for, save
from distk.console import note, progress
from distk.device import initialised
from distk.files import write_atomic
from distk.plugins.vae_family.peychev.ensemble import Ensemble, Member, Outcome, Plan
from distk.plugins.vae_family.peychev.method import NO_KL, VARIANTS, variant
from distk.plugins.vae_family.peychev.study_data import Data, code_table, posterior, subset, svm_accuracy
from distk.registry import registry
from distk.study.tables import rows_as_csv
from distk.training.loop import Interrupted, Stop, stopping

_SCORED = ("recon", "kl", "epochs", "seconds")
COLUMNS = {
    "shapes": ("variant", "beta", "seed", "disentanglement", *_SCORED, "collisions", "status", "data"),
    "mnist": (
        *("variant", "beta", "fraction", "seed", "accuracy_sample", "accuracy_mean"),
        *(*_SCORED, "svm_rows", "status", "data"),
    ),
}


@dataclass(frozen=True)
class Grid:
    """Which models: every combination. models: seeds 0 to models - 1."""

    variants: tuple[str, ...]
    betas: tuple[float, ...]
    models: int
    fractions: tuple[float, ...] = (1.0,)
    parallel: int = 1


@dataclass(frozen=True)
class Setting:
    """What all models of a study share. Two parts of one study must agree in all of it.

    kind: shapes or mnist. data, data_options, folder: the data set. lr_beta0: the learning rate where beta is 0.
    hidden: width of the full layers, None by image size. pairs: of the change-one-factor score. codes: which codes the
    SVM gets: sample, mean or both. svm_max: it learns from at most so many (0: all).
    """

    kind: str
    data: str
    data_options: dict[str, Any] = field(default_factory=dict)
    folder: str | None = None
    z: int = 10
    hidden: int | None = None
    noise_amount: float = 0.2
    noise_portion: float = 0.9
    bn_momentum: float = 0.001
    batch: int = 1000
    lr: float = 1e-3
    lr_beta0: float = 1e-3
    epochs: int = 500
    patience: int = 5
    pairs: int = 50_000
    codes: str = "sample"
    svm_max: int = 0


@dataclass(frozen=True, order=True)
class Job:
    """One model of a study."""

    variant: str
    fraction: float
    beta: float
    seed: int

    @property
    def name(self) -> str:
        """Of its checkpoint."""
        part = f"_f{self.fraction:g}" if self.fraction < 1 else ""
        return f"{self.variant}_beta{self.beta:g}{part}_s{self.seed}"


# What is asked for


def parse_range(text: str, what: str = "betas") -> tuple[float, ...]:
    """`0:5:0.2` (first, last, step) or `0,1,4` -> increasing values >= 0.

    Raises UsageError for anything else. Values are first + i * step, rounded, so that 0.1 is the same in every list.
    """
    wrong = UsageError(f"--{what} '{text}': {what} must be an increasing range of values >= 0, as 0:5:0.2 or 0,1,4.")
    try:
        if ":" in text:
            first, last, step = (float(part) for part in text.split(":"))
            if not (step > 0 and math.isfinite(last) and last >= first and (last - first) / step < 1e6):
                raise wrong
            values = [round(first + i * step, 10) for i in range(int((last - first) / step + 1e-6) + 1)]
        else:
            values = [float(part) for part in text.split(",")]
    except ValueError:
        raise wrong from None
    rising = all(a < b for a, b in itertools.pairwise(values))
    if not values or not rising or not all(math.isfinite(v) and v >= 0 for v in values):
        raise wrong
    return tuple(values)


def parse_fractions(text: str) -> tuple[float, ...]:
    """`0.1,0.5,1` -> fractions of the training data. Raises UsageError for values outside (0, 1]."""
    values = parse_range(text, "fractions")
    if values[0] <= 0 or values[-1] > 1:
        raise UsageError(f"--fractions '{text}': a fraction must be in (0, 1].")
    return values


def parse_variants(text: str) -> tuple[str, ...]:
    """`fc,conv-dn` -> variants. Raises UsageError for unknown or repeated ones."""
    names = tuple(part.strip() for part in text.split(","))
    wrong = [name for name in names if name not in VARIANTS]
    if wrong or len(set(names)) < len(names):
        raise UsageError(f"--variants '{text}': name some of {', '.join(VARIANTS)}, each once.")
    return names


def groups(grid: Grid, setting: Setting) -> list[list[Job]]:
    """The models in groups that train side by side: of one variant, fraction and learning rate."""
    found = []
    for name, part in itertools.product(grid.variants, grid.fractions):
        jobs = [Job(name, part, beta, seed) for beta in grid.betas for seed in range(grid.models)]
        for _, same in itertools.groupby(jobs, key=lambda job: rate(setting, job)):
            each = list(same)
            found += [each[i : i + grid.parallel] for i in range(0, len(each), grid.parallel)]
    return found


def rate(setting: Setting, job: Job) -> float:
    """The job's learning rate."""
    return setting.lr_beta0 if job.beta < NO_KL else setting.lr


# The folder


class Folder:
    """A study on disk. rows: results so far, by job."""

    def __init__(self, path: Path, setting: Setting, grid: Grid, data: str) -> None:
        self.path, self.setting, self.grid, self.data = path, setting, grid, data
        self.rows: dict[Job, dict[str, str]] = {}

    def open(self, resume: bool, force: bool) -> None:
        """Make the folder, or take it up again.

        Raises UsageError where it holds a study and `resume` was not asked for, or one of other settings.
        """
        held = self.path / "study.json"
        if held.exists():
            if not resume:
                raise UsageError(f"'{self.path}' holds a study: go on with --resume, or name another --out.")
            before = read_study(self.path)["setting"]
            now = {**_plain(self.setting), "data_hash": self.data}
            keys = (set(before) | set(now)) - {"folder"}  # the hash tells whether another folder holds other data
            other = sorted(key for key in keys if before.get(key) != now.get(key))
            if other and not force:
                told = ", ".join(f"{key} ({before.get(key)} there, {now.get(key)} here)" for key in other)
                raise UsageError(f"'{self.path}' was made with other settings: {told}. --force goes on all the same.")
            for row in read_rows(self.path):
                job = Job(row["variant"], float(row.get("fraction", 1)), float(row["beta"]), int(row["seed"]))
                if row["data"] == self.data or force:
                    self.rows[job] = row
        try:
            (self.path / "models").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"--out '{self.path}' cannot be made: {error.strerror}.") from error
        told = {"setting": {**_plain(self.setting), "data_hash": self.data}, "grid": _plain(self.grid)}
        write_atomic(held, (json.dumps(told, indent=2) + "\n").encode())

    def add(self, found: dict[Job, dict[str, Any]]) -> None:
        """Keep rows, and write all in the order of the grid, so that a file does not tell how often it was resumed."""
        self.rows |= {job: {key: _text(value) for key, value in row.items()} for job, row in found.items()}
        place = {name: i for i, name in enumerate(VARIANTS)}
        order = sorted(self.rows, key=lambda job: (place[job.variant], job.fraction, job.beta, job.seed))
        table = rows_as_csv([self.rows[job] for job in order], COLUMNS[self.setting.kind])
        write_atomic(self.path / "results.csv", table)


def read_study(path: Path) -> dict[str, Any]:
    """`study.json` of a folder. Raises UsageError where there is none, or no sound one."""
    try:
        told = json.loads((path / "study.json").read_text())
        if not isinstance(told["setting"], dict) or told["setting"]["kind"] not in COLUMNS:
            raise KeyError("setting")
    except FileNotFoundError:
        raise UsageError(f"'{path}' holds no study; `distk study beta shapes --out DIR` makes one.") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"'{path / 'study.json'}' is damaged ({type(error).__name__}).") from error
    return told


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of `results.csv`. Raises UsageError for a file without its columns."""
    kind = read_study(path)["setting"]["kind"]
    file = path / "results.csv"
    try:
        rows = list(csv.DictReader(io.StringIO(file.read_text()))) if file.exists() else []
        for row in rows:
            float(row["beta"]), int(row["seed"]), row["data"].strip(), row["status"].strip()
    except (OSError, ValueError, KeyError, TypeError, AttributeError, csv.Error) as error:
        raise UsageError(f"'{file}' is damaged; its columns are {', '.join(COLUMNS[kind])}.") from error
    return rows


def _plain(config: Any) -> dict[str, Any]:
    return json.loads(json.dumps(asdict(config)))


def _text(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


# The run


def run(folder: Folder, data: Data, workers: int = 1, keep_models: bool = True) -> int:
    """Train and score what is not there yet; returns how many models that were.

    Raises Interrupted after a signal, between two epochs, with everything written that was finished.
    """
    every = groups(folder.grid, folder.setting)
    todo = [group for group in every if any(job not in folder.rows for job in group)]
    total, there, stop = sum(map(len, every)), sum(map(len, every)) - sum(map(len, todo)), Stop()
    if there:
        note(f"{there} of {total} models are there already")

    def watch(epoch: int, left: int) -> None:
        advance(0, f"epoch {epoch}, {left} side by side")
        if stop.signal:
            done = sum(job in folder.rows for group in every for job in group)
            told = f"stopped; {done} of {total} models are in '{folder.path}'. The same command with --resume goes on."
            raise Interrupted(told, stop.signal)

    with stopping(stop), progress("models", total, there) as advance, ThreadPoolExecutor(workers) as pool:
        for group in todo:
            found = dict(_group(folder.setting, group, data, watch, pool))
            for job, (outcome, row) in found.items():
                if keep_models:
                    _save(folder, job, outcome, data)
                row["seconds"] = outcome.seconds / len(group)
            folder.add({job: row for job, (_, row) in found.items()})
            advance(len(group), "")
    return sum(map(len, todo))


def _group(
    setting: Setting, group: Sequence[Job], data: Data, watch: Any, pool: ThreadPoolExecutor
) -> Iterator[tuple[Job, tuple[Outcome, dict[str, Any]]]]:
    """Train a group and score each of its models."""
    members = [Member(_model(setting, job, data), subset(data, job.fraction, job.seed), job.seed) for job in group]
    plan = Plan(setting.batch, rate(setting, group[0]), setting.epochs, setting.patience)
    outcomes = dict(Ensemble(members, data.dataset, data.validation, plan).train(watch))
    score = _disentanglement if setting.kind == "shapes" else _classification
    jobs = [(job, member.rows, outcomes[m]) for m, (job, member) in enumerate(zip(group, members, strict=True))]
    scored = pool.map(lambda one: score(setting, one[2], one[1], data, one[0].seed), jobs)
    for (job, _, outcome), values in zip(jobs, scored, strict=True):
        row = {"variant": job.variant, "beta": job.beta, "fraction": job.fraction, "seed": job.seed, **values}
        terms = {"recon": outcome.reconstruction, "kl": outcome.kl, "epochs": outcome.epochs}
        yield job, (outcome, {**row, **terms, "status": "ok" if outcome.sound else "nan", "data": data.hash})


def _model(setting: Setting, job: Job, data: Data) -> Any:
    name, denoise = variant(job.variant)
    cls = registry().find("method", name).load()
    config = cls.Config(
        z=setting.z,
        beta=job.beta,
        denoise=denoise,
        noise_amount=setting.noise_amount,
        noise_portion=setting.noise_portion,
        hidden=setting.hidden,
        bn_momentum=setting.bn_momentum,
        lr=rate(setting, job),
    )
    device = data.dataset.device
    try:
        with initialised(job.seed, device):
            return cls(config, data.dataset.spec).to(device)
    except ValueError as error:
        raise UsageError(f"variant '{job.variant}' with data '{data.dataset.name}': {error}.") from error


def _save(folder: Folder, job: Job, outcome: Outcome, data: Data) -> None:
    """A checkpoint like that of `distk train`, for traverse, eval and the others."""
    setting, dataset = folder.setting, data.dataset
    entry = registry().find("method", variant(job.variant)[0])
    source = {"name": setting.data, "options": setting.data_options, "folder": setting.folder}
    source["origin"] = dataset.origin
    header = header_for(outcome.model, entry, source, outcome.epochs, job.seed, {})
    save(folder.path / "models" / f"{job.name}.safetensors", outcome.model, header)


def _disentanglement(setting: Setting, outcome: Outcome, rows: Tensor, data: Data, seed: int) -> dict[str, Any]:
    """Change-one-factor accuracy on clean images; the pairs are the same for every model."""
    if not outcome.sound:
        return {"disentanglement": None, "collisions": None}
    metric = registry().find("metric", "change-one-factor").load()
    found = metric(metric.Config(pairs=setting.pairs)).compute(code_table(outcome.model, data.dataset), 0)
    return {"disentanglement": found["eval"], "collisions": int(found["collisions"])}


def _classification(setting: Setting, outcome: Outcome, rows: Tensor, data: Data, seed: int) -> dict[str, Any]:
    """Accuracy of an SVM on all test codes, taught with the codes of the images that the model learned from."""
    found: dict[str, Any] = {"accuracy_sample": None, "accuracy_mean": None, "svm_rows": None}
    if not outcome.sound or data.test is None:
        return found
    generator = torch.Generator().manual_seed(seed)
    if setting.svm_max and len(rows) > setting.svm_max:
        rows = rows[torch.randperm(len(rows), generator=generator)[: setting.svm_max].to(rows.device)]
    taught, tested = posterior(outcome.model, rows, data), posterior(outcome.model, data.test, data)
    for kind in ("sample", "mean"):
        if setting.codes in (kind, "both"):
            noise = 1.0 if kind == "sample" else 0.0
            x, y = (c[0] + noise * c[1] * torch.randn(c[0].shape, generator=generator) for c in (taught, tested))
            found[f"accuracy_{kind}"] = svm_accuracy(x, taught[2], y, tested[2])
    return {**found, "svm_rows": len(rows)}
