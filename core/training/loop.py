"""Training from settings to a run folder, and taking a run up again."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from distk import checkpoint, evaluation
from distk.asked import Asked, asked
from distk.config import to_toml
from distk.console import counted, note, progress, warn
from distk.data import Dataset
from distk.device import Ranks, choose_device, describe, join_ranks
from distk.errors import DistkError, UsageError
from distk.fitting import differences
from distk.identity import changes, identity
from distk.memory import keep_heap
from distk.registry import registry
from distk.run import RUNS, Run, new_folder
from distk.settings import Settings, TrainConfig
from distk.training import record
from distk.training import stopping as stopping_early
from distk.training.beginning import begin, build, check_kept, score_files
from distk.training.changes import other_threads, recorded, wanted
from distk.training.signals import Interrupted, Stop, stopping
from distk.training.snapshots import cut_off, draw_missed, snapshot
from distk.training.trainer import Trainer


@dataclass
class Session:
    """A run in this process: the trainer, the folder, and what decides on the best checkpoint."""

    settings: Settings
    run: Run
    trainer: Trainer
    best: dict[str, Any]
    stop: Stop = field(default_factory=Stop)
    resumed: bool = False
    changes: list[dict[str, Any]] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)
    met: str = ""
    ended: dict[str, Any] = field(default_factory=dict)
    """Which condition of `--stop-when` holds, and why the run ended early; see `training.stopping`."""

    @property
    def config(self) -> TrainConfig:
        return self.trainer.config


def train(settings: Settings, out: Path | None = None, quiet: bool = False) -> Run:
    """Train from scratch into a new run folder and return the run."""
    device = choose_device(settings.train.device)
    return _go(start(settings, out, device, join_ranks(device)), quiet)


def start(
    settings: Settings, out: Path | None, device: torch.device, ranks: Ranks, dataset: Dataset | None = None
) -> Session:
    """A new run in a new, locked folder, before its first step. dataset: opened already, or None."""
    check_evaluation(settings.train)
    if ranks.first and out is not None:
        new_folder(settings.entry.name, settings.train.seed, out)  # refuses before the data are read
    settings, dataset = stopping_early.in_steps(settings, device, dataset)
    config = {"method": settings.entry.name, **settings.to_dict()}
    registry().prepare_run(config)
    score_files(settings.train)
    trainer = build(settings, device, ranks, dataset)
    check_evaluation(settings.train, trainer.dataset)
    begin(trainer)
    check_kept(trainer, kept(settings.train, trainer.dataset))
    # Only the first rank looks at the folder, since by the time that another one does the first may have made it.
    path = new_folder(settings.entry.name, settings.train.seed, out) if ranks.first else out or RUNS
    run = Run(path, config)
    if ranks.first:
        run.open()
        checkpoint.write_atomic(path / "config.toml", _toml(run).encode())
    return Session(settings, run, trainer, {})


def resume(
    path: Path,
    steps: int | None = None,
    quiet: bool = False,
    folder: str | None = None,
    changes: Mapping[str, Mapping[str, Any]] | None = None,
) -> Run:
    """Continue the run whose folder or checkpoint is `path`, to `steps` (default: as it was set).

    folder: where the data are now, instead of where the checkpoint says that they were.
    changes: settings that may change in a run, by section; see `distk.training.changes`. They are kept in the
    checkpoint. A run that stands at its last step is left as it is, and a notice says so.
    Raises DistkError for a checkpoint without training state, or one whose method or data set is gone, and UsageError
    for another file of a run than its newest checkpoint, for what may not change and for fewer steps than are done.
    """
    file = path / "checkpoint.safetensors" if path.is_dir() else path
    header = checkpoint.read_header(file)
    newest = file.with_name("checkpoint.safetensors")
    if file.name != newest.name and newest.exists():
        raise UsageError(
            f"'{file}' is not the newest checkpoint of its run, which continuing from it would overwrite: "
            f"copy it as checkpoint.safetensors into a new folder, or continue with `distk resume {file.parent}`."
        )
    asked_for = {section: dict(values) for section, values in (changes or {}).items()}
    if steps is not None:
        asked_for.setdefault("train", {})["steps"] = steps
    if folder is not None:
        asked_for.setdefault("data", {})["dir"] = folder
    settings, _ = wanted(header, file, asked_for)
    run = Run(file.parent, {})
    finished = settings.train.steps == header.step
    if finished:
        more = f"`distk resume {file.parent} --steps N` trains on."
        note(f"the run in '{file.parent}' is finished: it stands at its last step, {header.step:,}; {more}")
    if finished and not cut_off(run.path / "samples", header.step):
        return run
    ranks = join_ranks(choose_device(settings.train.device))
    try:
        if ranks.first:
            run.lock()  # before the checkpoint is read: whoever holds it may be writing a newer one
        ranks.largest(0)
        session = _taken_up(run, file, asked_for, ranks)
        if finished:
            draw_missed(session.trainer, session.run.path / "samples")
            return run
        return _go(session, quiet)
    finally:
        run.close()


def _taken_up(run: Run, file: Path, asked_for: Mapping[str, Mapping[str, Any]], ranks: Ranks) -> Session:
    header = checkpoint.read_header(file)
    settings, changed = wanted(header, file, asked_for)
    device = choose_device(settings.train.device)
    check_evaluation(settings.train)
    score_files(settings.train, f"'{file}'")
    model, _ = checkpoint.load(file, device)  # holds the tensors against the settings before anything is built of them
    trainer = build(settings, device, ranks)
    check_evaluation(settings.train, trainer.dataset)
    if others := [str(d) for d in differences(model.spec, trainer.dataset.spec) if d.fatal]:
        raise DistkError(
            f"the data set '{settings.data}' is no longer what '{file}' was trained on: {'; '.join(others)}."
        )
    before, now = header.data.get("origin"), trainer.dataset.origin
    told = [f"they were {before[:300]}, and are {now}"] if isinstance(before, str) and before and before != now else []
    told += changes(header.data.get("identity"), identity(trainer.dataset))
    if ranks.first and told:
        warn(
            f"the data changed since this run began: {'; '.join(told)}. Rows and splits may be others now, so that "
            "items that were kept for the test are trained on."
        )
    if ranks.first and device.type == "cpu" and (threads := other_threads(header)):
        warn(threads)
    try:
        trainer.model.load_state_dict(model.state_dict())
    except RuntimeError as error:
        raise DistkError(f"the data set '{settings.data}' is no longer what '{file}' was trained on.") from error
    state = checkpoint.load_training(file)
    if "step" not in state:
        raise DistkError(f"'{file}' was stripped of its training state, so it cannot be continued.")
    trainer.load_state(state)
    run.config = {"method": settings.entry.name, **settings.to_dict()}
    if ranks.first:
        registry().prepare_run(run.config, resumed=True)
        run.open(resume_at=trainer.index)
        for change in changed:
            note(f"changed from step {trainer.index:,} on: {change}")
        if changed and file.with_name("config.toml").exists():
            checkpoint.write_atomic(run.path / "config.toml", _toml(run).encode())
    return Session(settings, run, trainer, _best_of(header), resumed=True, changes=recorded(header, changed))


def _best_of(header: checkpoint.Header) -> dict[str, Any]:
    """What the header says about best.safetensors, as far as it makes sense."""
    best = header.metrics.get("best")
    return dict(best) if isinstance(best, dict) and isinstance(best.get("value"), (int, float)) else {}


def _toml(run: Run) -> str:
    config = dict(run.config)
    return to_toml(config, {"method": config.pop("method")})


def check_evaluation(config: TrainConfig, dataset: Dataset | None = None) -> None:
    """Unknown metrics, their settings and splits, and a malformed --keep are found before the first step, not after the
    last; splits, once there is a data set."""
    wanted = [*asked(config.eval), *kept(config, dataset)]
    if config.patience and not (config.keep and config.eval_every):
        raise UsageError("--patience counts scorings of --keep: name that, too, and how often with --eval-every.")
    stopping_early.check(config)
    for one in wanted if dataset is not None else ():
        if one.split is not None and dataset is not None:
            dataset.rows(one.split)
    evaluation.named_options(config.eval_option, list(dict.fromkeys(one.metric for one in wanted)))


def kept(config: TrainConfig, dataset: Dataset | None = None) -> list[Asked]:
    """The score that `--keep` names, none without it. A split that it does not name is the data's validation split.

    Raises UsageError for another form.
    """
    if not config.keep:
        return []
    kind, _, text = config.keep.partition(":")
    found = asked([text], dataset.validation_split if dataset is not None else None) if text else []
    if kind != "best" or len(found) != 1:
        raise UsageError(f"--keep '{config.keep}' is not understood; write --keep best:METRIC.")
    return found


def _go(session: Session, quiet: bool) -> Run:
    """The loop with its surroundings: signals, progress, events, and the last words."""
    trainer, ranks = session.trainer, session.trainer.ranks
    with running(session, quiet), stopping(session.stop):
        bar = progress("training", session.config.steps, trainer.index, quiet or not ranks.first)
        with bar as advance:
            for _ in steps(session):
                advance(1)
    if session.stop.signal:
        if not ranks.first:
            raise SystemExit(128 + session.stop.signal)  # the first rank says it
        command = f"torchrun --nproc-per-node {ranks.world} -m distk" if ranks.world > 1 else "distk"
        message = f"stopped at step {trainer.index}; everything is saved. Continue with: {command} resume "
        raise Interrupted(f"{message}{session.run.path}", session.stop.signal)
    return session.run


@contextlib.contextmanager
def running(session: Session, quiet: bool) -> Iterator[None]:
    """The events around a session's steps; afterwards its folder is released."""
    run, first, outcome = session.run, session.trainer.ranks.first, "failed"
    if first:
        told = record.circumstances(describe(session.trainer.device))
        record.write(run.path, "resumed" if session.resumed else "started", session.trainer.index, **told)
        registry().event("distk_run_started", run=run, step=session.trainer.index)
        if not quiet:
            _announce(session)
    try:
        yield
        early = session.ended and not session.ended["done"]
        outcome = "interrupted" if session.stop.signal or early else "finished"
    finally:
        if first:
            took = round(time.monotonic() - session.began, 1)
            record.write(
                run.path,
                "ended",
                session.trainer.index,
                outcome=outcome,
                seconds=took,
                why=session.ended.get("why", ""),
            )
            registry().event("distk_run_ended", run=run, outcome=outcome)
            run.close()


def _announce(session: Session) -> None:
    trainer, settings = session.trainer, session.settings
    parameters = sum(p.numel() for p in trainer.model.parameters())
    note(
        f"{settings.entry.name}: {counted(parameters, 'parameter')} on {describe(trainer.device)}, seed"
        f" {settings.train.seed}"
    )
    note(f"data {trainer.dataset.name}: {trainer.dataset.origin}")
    for line in trainer.penalties.told() if trainer.penalties is not None else ():
        note(line)
    note(f"run folder {session.run.path}")
    if trainer.device.type == "cuda":
        note(
            f"steps run eagerly: {trainer.eager_because}"
            if trainer.eager_because
            else "steps are captured as CUDA graphs"
        )
    if trainer.config.compile:
        left = [o.name for o in trainer.objectives if not o.compiles]
        note("losses go through torch's compiler" + (f", but for {' and '.join(left)}" if left else ""))


def steps(session: Session) -> Iterator[None]:
    """Train to the last step, yielding after each; rows, scores and checkpoints are written in between.

    There is a checkpoint from the start, so that a folder that cannot be written is noticed before the first step and
    a run that is killed early can be resumed. After a signal the step is finished, saved, and iteration ends.
    """
    trainer, config = session.trainer, session.config
    if trainer.device.type == "cpu":
        keep_heap()
    save_every = config.checkpoint_every or max(1, -(-config.steps // 10))
    began, last = time.monotonic(), trainer.index
    saved = trainer.index
    if session.resumed:
        draw_missed(session.trainer, session.run.path / "samples")
    if trainer.index == 0 and not session.resumed:
        save(session)
        if not config.steps and (config.eval or config.keep):
            _write_row(session, _evaluate(session))
            save(session)
    while trainer.index < config.steps and not _asked_to_stop(session):
        if why := stopping_early.given_up(session):
            session.ended = stopping_early.ended(session, why)
            note(f"ended at step {trainer.index:,}: {why}")
            break
        trainer.step()
        done = trainer.index == config.steps
        evaluating = bool(config.eval or config.keep) and (
            done or (config.eval_every and trainer.index % config.eval_every == 0)
        )
        if trainer.index % config.log_every == 0 or done or evaluating:
            rate = (trainer.index - last) / max(time.monotonic() - began, 1e-9)
            began, last = time.monotonic(), trainer.index
            values = {**trainer.drain(), "rate": round(rate, 2)}
            if evaluating:
                values |= _evaluate(session)
                began = time.monotonic()
            _write_row(session, values)
        if done or trainer.index % save_every == 0:
            save(session)
            saved = trainer.index
        yield
    if saved != trainer.index or session.ended:
        save(session)


def _asked_to_stop(session: Session) -> bool:
    """Whether this process, or another one of the same run, was asked to stop: all stop after the same step."""
    agreed = session.trainer.ranks.largest(session.stop.signal)
    if agreed:  # else a signal that came in the meantime stays for the next step
        session.stop.signal = agreed
    return bool(agreed)


def _write_row(session: Session, values: dict[str, Any]) -> None:
    if session.trainer.ranks.first:
        session.run.write_row(session.trainer.index, values)
        stopping_early.look(session, values)
        registry().event("distk_run_logged", run=session.run, step=session.trainer.index, values=values)


def _evaluate(session: Session) -> dict[str, Any]:
    """Score the model in eval mode without touching the run's random state; keep the best."""
    trainer, config = session.trainer, session.config
    best = kept(config, trainer.dataset)
    wanted = asked([*config.eval, *(one.text for one in best)])
    if not trainer.ranks.first:
        return {}
    devices = [trainer.device] if trainer.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        options = evaluation.named_options(config.eval_option, list(dict.fromkeys(one.metric for one in wanted)))
        texts = [*config.eval, *(one.text for one in best)]
        found = evaluation.evaluate(trainer.model, texts, data=trainer.dataset, seed=0, repeats=1, **options)
    results = found["metrics"]
    values: dict[str, Any] = {}
    for name, result in results.items():
        if "error" in result:
            warn(f"step {trainer.index}: metric '{name}' could not be computed: {result['error']}")
        values |= {f"{name}/{key}": value for key, value in result.items() if isinstance(value, float)}
    for one in best:
        label = next(o.label for o in wanted if o.text == one.text)
        _keep_best(
            session, one, {k.removeprefix(f"{label}/"): v for k, v in values.items() if k.startswith(f"{label}/")}
        )
    return values


def _keep_best(session: Session, one: Asked, values: dict[str, Any]) -> None:
    """Keep the model if the headline of this score, among `values`, is better than before."""
    cls = registry().find("metric", one.metric).load()
    value = values.get(cls.headline)
    if not isinstance(value, float) or value != value:
        return
    best = session.best.get("value")
    if best is None or (value > best if cls.higher_is_better else value < best):
        fresh = {"stale": 0} if session.config.patience else {}
        told = {**fresh, "metric": one.metric, "key": cls.headline, "value": value, "step": session.trainer.index}
        session.best = {**told, **({"score": one.text} if one.text != one.metric else {})}
        save(session, session.run.best, checked=True)
    elif session.config.patience:
        session.best = {**session.best, "stale": session.best.get("stale", 0) + 1}


def save(session: Session, path: Path | None = None, checked: bool = False) -> None:
    """Write a checkpoint, unless a loss or a parameter became non-finite since the last one.

    checked: the losses up to this step are known to be finite. Otherwise all ranks must call this.
    """
    trainer, settings = session.trainer, session.settings
    if not checked:
        trainer.check_health()
    trainer.check_parameters()
    if not trainer.ranks.first:
        return
    data = {
        "name": settings.data,
        "options": settings.data_options,
        "folder": settings.data_dir,
        "origin": trainer.dataset.origin,
        "identity": identity(trainer.dataset),
    }
    train_config = session.run.config["train"]
    header = checkpoint.header_for(
        trainer.model, settings.entry, data, trainer.index, settings.train.seed, train_config
    )
    threads = torch.get_num_threads() if trainer.device.type == "cpu" else 0
    told = {"best": session.best, "changes": session.changes, "ended": session.ended, "threads": threads}
    header.metrics = {name: value for name, value in told.items() if value}
    path = path or session.run.checkpoint
    checkpoint.save(path, trainer.model, header, trainer.state())
    snapshot(trainer.model, trainer.dataset, session.run.path / "samples", trainer.index)
    registry().event("distk_checkpoint_saved", run=session.run, path=path, step=trainer.index)
