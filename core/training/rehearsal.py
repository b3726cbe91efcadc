"""`distk train METHOD --dry-run`: all that a run does before it writes anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from distk.asked import asked
from distk.device import Ranks, choose_device, describe
from distk.registry import registry
from distk.run import new_folder
from distk.settings import Settings
from distk.training import stopping
from distk.training.beginning import build, check_kept, score_files
from distk.training.loop import check_evaluation, kept


def rehearse(settings: Settings, out: Path | None) -> dict[str, Any]:
    """What the run would be, by name: method, numbers, data, steps, where. Nothing is written or trained.

    Raises whatever the run itself would raise before its first step.
    """
    device = choose_device(settings.train.device)
    check_evaluation(settings.train)
    settings, dataset = stopping.in_steps(settings, device, None)
    registry().prepare_run({"method": settings.entry.name, **settings.to_dict()})
    score_files(settings.train)
    trainer = build(settings, device, Ranks(), dataset)
    check_evaluation(settings.train, trainer.dataset)
    check_kept(trainer, kept(settings.train, trainer.dataset))
    model, data, train = trainer.model, trainer.dataset, settings.train
    rows = len(data.rows_of("train"))
    scores = asked([*train.eval, *filter(None, [train.keep.partition(":")[2]])])
    return {
        "method": settings.entry.name,
        "parameters": sum(p.numel() for p in model.parameters()),
        "latents": ", ".join(f"{g.name} {g.kind} {g.size}" for g in model.latents),
        "data": f"{data.name}: {data.origin}",
        "items": f"{data.spec.kind} {tuple(data.spec.shape)}, {rows:,} to train on",
        "steps": train.steps,
        "epochs": train.steps * train.batch / max(1, rows),
        "batch": train.batch,
        "objectives": ", ".join(objective.name for objective in trainer.objectives) or "none",
        "scores": ", ".join(one.label for one in scores) or "none",
        "device": describe(device),
        "seed": train.seed,
        "run folder": str(new_folder(settings.entry.name, train.seed, out)),
    }
