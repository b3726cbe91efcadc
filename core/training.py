"""Training from settings to a run folder, and taking a run up again."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from distk import checkpoint, evaluation
from distk.config import to_toml
from distk.console import note, progress, warn
from distk.data import Dataset, open_dataset
from distk.device import Ranks, choose_device, describe, initialised, join_ranks
from distk.errors import DistkError, UsageError
from distk.method import Method
from distk.registry import registry
from distk.run import Run, new_folder
from distk.settings import Settings, resolve
from distk.trainer import TrainConfig, Trainer


class Interrupted(DistkError):
    """The user or the system asked the run to stop; everything is saved."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number


@dataclass
class Session:
    """A run in this process: the trainer, the folder, and what decides on the best checkpoint."""

    settings: Settings
    run: Run
    trainer: Trainer
    best: dict[str, Any]
    stop_signal: int = 0

    @property
    def config(self) -> TrainConfig:
        return self.trainer.config


def build(settings: Settings, device: torch.device, ranks: Ranks) -> Trainer:
    """Data set, model and trainer of these settings.

    Raises UsageError when the method does not take this kind of data.
    """
    dataset = open_dataset(settings.data, settings.data_options, device=device, folder=settings.data_dir)
    kinds = settings.method.kinds
    if dataset.spec.kind not in kinds:
        raise UsageError(
            f"method '{settings.entry.name}' learns from {' or '.join(kinds)} data; "
            f"'{dataset.name}' holds {dataset.spec.kind} data."
        )
    with initialised(settings.train.seed, device):
        try:
            model = settings.method(settings.model, dataset.spec).to(device)
        except ValueError as error:
            raise UsageError(f"method '{settings.entry.name}' with data '{dataset.name}': {error}") from error
    model.__dict__["dataset"] = lambda: dataset  # as `open_model` does for a trained one
    torch.manual_seed(settings.train.seed)  # for layers that draw from the global generator, such as dropout
    return Trainer(model.train(), dataset, settings.train, ranks)


def train(settings: Settings, out: Path | None = None, quiet: bool = False) -> Run:
    """Train from scratch into a new run folder and return the run."""
    device = choose_device(settings.train.device)
    ranks = join_ranks(device)
    _check_evaluation(settings.train)
    trainer = build(settings, device, ranks)
    path = new_folder(settings.entry.name, settings.train.seed, out)
    run = Run(path, {"method": settings.entry.name, **settings.to_dict()})
    if ranks.first:
        run.open()
        checkpoint.write_atomic(path / "config.toml", _toml(run).encode())
    return _go(Session(settings, run, trainer, {}), quiet)


def resume(path: Path, steps: int | None = None, quiet: bool = False) -> Run:
    """Continue the run whose folder or checkpoint is `path`, to `steps` (default: as it was set).

    Raises DistkError for a checkpoint without training state, or one whose method or data set is gone.
    """
    file = path / "checkpoint.safetensors" if path.is_dir() else path
    header = checkpoint.read_header(file)
    data = header.data
    options = {"model": header.config, "train": {**header.train, **({} if steps is None else {"steps": steps})}}
    options["data"] = {
        "name": data["name"],
        **({"dir": data["folder"]} if data.get("folder") else {}),
        **data["options"],
    }
    settings = resolve(header.method, options=options)
    device = choose_device(settings.train.device)
    trainer = build(settings, device, join_ranks(device))
    model, _ = checkpoint.load(file, device)
    trainer.model.load_state_dict(model.state_dict())
    state = checkpoint.load_training(file)
    if "step" not in state:
        raise DistkError(f"'{file}' was stripped of its training state, so it cannot be continued.")
    trainer.load_state(state)
    run = Run(file.parent, {"method": settings.entry.name, **settings.to_dict()})
    if trainer.ranks.first:
        run.open(resume_at=trainer.index)
    return _go(Session(settings, run, trainer, dict(header.metrics.get("best", {}))), quiet)


def _toml(run: Run) -> str:
    config = dict(run.config)
    return to_toml(config, {"method": config.pop("method")})


def _check_evaluation(config: TrainConfig) -> None:
    """Unknown metrics and a malformed --keep are found before the first step, not after the last."""
    evaluation.expand(config.eval)
    if config.keep:
        kind, _, metric = config.keep.partition(":")
        if kind != "best" or not metric:
            raise UsageError(f"--keep '{config.keep}' is not understood; write --keep best:METRIC.")
        registry().find("metric", metric)


def _go(session: Session, quiet: bool) -> Run:
    """The loop with its surroundings: signals, progress, events, and the last words."""
    run, trainer, config = session.run, session.trainer, session.config
    first = trainer.ranks.first
    outcome = "failed"
    if first:
        registry().event("distk_run_started", run=run)
        if not quiet:
            _announce(session)
    try:
        with _signals(session), progress("training", config.steps, trainer.index, quiet or not first) as advance:
            _loop(session, advance)
        outcome = "interrupted" if session.stop_signal else "finished"
    finally:
        if first:
            registry().event("distk_run_ended", run=run, outcome=outcome)
            run.close()
    if session.stop_signal:
        message = f"stopped at step {trainer.index}; everything is saved. Continue with: distk resume {run.path}"
        raise Interrupted(message, session.stop_signal)
    return run


def _announce(session: Session) -> None:
    trainer, settings = session.trainer, session.settings
    parameters = sum(p.numel() for p in trainer.model.parameters())
    note(f"{settings.entry.name}: {parameters:,} parameters on {describe(trainer.device)}, seed {settings.train.seed}")
    note(f"data {trainer.dataset.name}: {trainer.dataset.origin}")
    note(f"run folder {session.run.path}")
    if trainer.device.type == "cuda":
        note(
            f"steps run eagerly: {trainer.eager_because}"
            if trainer.eager_because
            else "steps are captured as CUDA graphs"
        )


def _loop(session: Session, advance: Any) -> None:
    trainer, config = session.trainer, session.config
    save_every = config.checkpoint_every or max(1, -(-config.steps // 10))
    began, last = time.monotonic(), trainer.index
    if trainer.index == 0 and config.steps == 0:
        save(session)
    while trainer.index < config.steps and not session.stop_signal:
        trainer.step()
        advance(1)
        done = trainer.index == config.steps
        evaluating = bool(config.eval or config.keep) and (
            done or (config.eval_every and trainer.index % config.eval_every == 0)
        )
        if trainer.index % config.log_every == 0 or done or session.stop_signal or evaluating:
            rate = (trainer.index - last) / max(time.monotonic() - began, 1e-9)
            began, last = time.monotonic(), trainer.index
            values = {**trainer.drain(), "rate": round(rate, 2)}
            if evaluating:
                values |= _evaluate(session)
                began = time.monotonic()
            _write_row(session, values)
        if done or session.stop_signal or trainer.index % save_every == 0:
            save(session)


def _write_row(session: Session, values: dict[str, Any]) -> None:
    if session.trainer.ranks.first:
        session.run.write_row(session.trainer.index, values)
        registry().event("distk_run_logged", run=session.run, step=session.trainer.index, values=values)


def _evaluate(session: Session) -> dict[str, Any]:
    """Score the model in eval mode without touching the run's random state; keep the best."""
    trainer, config = session.trainer, session.config
    kept = config.keep.partition(":")[2]
    names = evaluation.expand([*config.eval, *([kept] if kept else [])])
    if not trainer.ranks.first:
        return {}
    devices = [trainer.device] if trainer.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        results = evaluation.evaluate(trainer.model, names, data=trainer.dataset, seed=0, repeats=1)["metrics"]
    values: dict[str, Any] = {}
    for name, result in results.items():
        if "error" in result:
            warn(f"step {trainer.index}: metric '{name}' could not be computed: {result['error']}")
        values |= {f"{name}/{key}": value for key, value in result.items() if isinstance(value, float)}
    if kept:
        _keep_best(session, registry().find("metric", kept).name, values)
    return values


def _keep_best(session: Session, name: str, values: dict[str, Any]) -> None:
    cls = registry().find("metric", name).load()
    value = values.get(f"{name}/{cls.headline}")
    if value is None or value != value:
        return
    best = session.best.get("value")
    if best is None or (value > best if cls.higher_is_better else value < best):
        session.best = {"metric": name, "key": cls.headline, "value": value, "step": session.trainer.index}
        save(session, session.run.best)


def save(session: Session, path: Path | None = None) -> None:
    """Write a checkpoint, unless a loss became non-finite since the last one."""
    trainer, settings = session.trainer, session.settings
    trainer.check_health()
    if not trainer.ranks.first:
        return
    data = {
        "name": settings.data,
        "options": settings.data_options,
        "folder": settings.data_dir,
        "origin": trainer.dataset.origin,
    }
    train_config = session.run.config["train"]
    header = checkpoint.header_for(
        trainer.model, settings.entry, data, trainer.index, settings.train.seed, train_config
    )
    header.metrics = {"best": session.best} if session.best else {}
    path = path or session.run.checkpoint
    checkpoint.save(path, trainer.model, header, trainer.state())
    registry().event("distk_checkpoint_saved", run=session.run, path=path, step=trainer.index)


@contextlib.contextmanager
def _signals(session: Session) -> Iterator[None]:
    """SIGINT and SIGTERM finish the step and save; a second one stops at once."""

    def handle(number: int, frame: Any) -> None:
        if session.stop_signal:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        session.stop_signal = number
        note("finishing the step and saving; a second Ctrl-C stops at once")

    try:
        before = {s: signal.signal(s, handle) for s in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not in the main thread: the embedding program handles its own signals
        yield
        return
    try:
        yield
    finally:
        for s, handler in before.items():
            signal.signal(s, handler)


def open_model(path: Path, device: str = "auto") -> tuple[Method, checkpoint.Header]:
    """A trained model in eval mode, with `model.dataset()` to open the data that it was trained on."""
    model, header = checkpoint.load(path, choose_device(device))
    target = next(model.parameters()).device
    model.__dict__["dataset"] = lambda: trained_data(header, target)
    return model, header


def trained_data(header: checkpoint.Header, device: torch.device, folder: str | None = None) -> Dataset:
    """The data set that a checkpoint was trained on, opened again.

    Raises UsageError when its settings or folder no longer fit.
    """
    data = header.data
    try:
        return open_dataset(data["name"], dict(data["options"]), device=device, folder=folder or data.get("folder"))
    except (KeyError, TypeError) as error:
        raise DistkError(f"the checkpoint does not say which data it was trained on ({error}).") from error
