"""The metric `icm`: which expert wins which mechanism, what the winners restore, and whether experts work elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from distk import CodeTable, Dataset, DistkError, Metric, UsageError, open_dataset, option, seeded
from distk.console import progress
from distk.device import initialised
from distk.meaning import higher, lower, neither
from distk.method import eval_mode
from distk.nn import fit_classifier
from distk.plugins.gan_family.icm.mechanisms import shift
from distk.plugins.gan_family.icm.method import ICM

SPECIALISED = 0.9
"""Share of a mechanism's images that its matched expert must win to count as specialised on it."""


@dataclass(frozen=True)
class Config:
    """How much is looked at."""

    images: int = option(2000, "test images, the mechanisms taking turns", min=2)
    classifier_steps: int = option(600, "steps of 64 images that the classifier is trained for; 0 = none", min=0)
    generalise: str = option("strokes28", "another data set for the experts to prove themselves on; empty = none")
    transfer_images: int = option(200, "images of it per mechanism", min=1)


class ICMScore(Metric[Config]):
    """Scores of a model of method `icm`, in eval mode, averaged over its replicas. Arrays have a leading replica axis.

    purity: mean over mechanisms of the largest share that one expert wins. specialised: mechanisms with a share of at
    least 0.9 under the best one-to-one assignment. one_to_one: share of the replicas in which all are. winners: number
    of experts that win most of some mechanism. nmi: normalised mutual information of mechanism and winner.
    mse, mse_before: mean squared error to the image before its mechanism, of the winner's output and without experts.
    mechanisms_inverted: mechanisms whose error falls below half of that before.
    accuracy, accuracy_before, accuracy_originals: a classifier's, on winners' outputs, transformed images, originals.
    transfer_mse: of each matched expert on another data set under its mechanism; shifts_undone: share of the shift
    mechanisms whose expert moves that data's clean images by exactly the opposite shift.
    """

    headline = "purity"
    numbers = {
        "purity": higher(0, 1, chance="1 / experts", source="Parascandolo et al. 2018", what="of the main winner"),
        "specialised": higher(0, unit="mechanisms", what="with an expert of their own"),
        "one_to_one": higher(0, 1, what="share of replicas"),
        "winners": higher(1, unit="experts", what="that win most of some mechanism"),
        "nmi": higher(0, 1, chance=0.0, what="mutual information of mechanism and winner, normalised"),
        "mse": lower(0),
        "mse_before": neither(0, what="without experts"),
        "mechanisms_inverted": higher(0, unit="mechanisms", what="with less than half the error of no experts"),
        "accuracy": higher(0, 1, what="of a classifier on winners' outputs"),
        "accuracy_before": neither(0, 1, what="on transformed images"),
        "accuracy_originals": neither(0, 1, what="on originals"),
        "transfer_mse": lower(0, what="on another data set"),
        "transfer_mse_before": neither(0, what="the same without experts"),
        "shifts_undone": higher(0, 1, what="share of shifts that an expert reverses"),
    }
    needs_model = True
    needs_codes = False

    def compute(self, table: CodeTable, seed: int) -> Mapping[str, Any]:
        """Raises UsageError for a model of another method."""
        model, dataset = table.model, table.dataset
        if not isinstance(model, ICM) or dataset is None:
            raise UsageError("metric 'icm' scores models of method 'icm'.")
        with torch.no_grad(), eval_mode(model):
            return self._all(model, dataset, seed)

    def _all(self, model: ICM, dataset: Dataset, seed: int) -> dict[str, Any]:
        reasons: dict[str, str] = {}
        classify = None
        if not self.config.classifier_steps:
            reasons["accuracy"] = "classifier-steps is 0"
        elif not dataset.spec.classes:
            reasons["accuracy"] = f"data set '{dataset.name}' has no labels"
        else:
            classify = classifier(dataset, self.config.classifier_steps)
        seen = observe(model, dataset, self.config.images, seed, classify)
        result = {**specialisation(seen["winner"], seen["mechanism"], len(model.mixture), model.number)}
        result |= {
            "mse": float(seen["error"].mean()),
            "mse_before": float(seen["error_before"].mean()),
            "mse_per_mechanism": _per(seen["error"], seen["mechanism"], len(model.mixture)),
            "mse_before_per_mechanism": _per(seen["error_before"], seen["mechanism"], len(model.mixture))[0],
        }
        halved = result["mse_per_mechanism"] < 0.5 * result["mse_before_per_mechanism"]
        result["mechanisms_inverted"] = float(halved.sum(1).mean())
        for name in ("accuracy", "accuracy_before", "accuracy_originals"):
            if name in seen:
                result[name] = float(seen[name])
        if "accuracy" in seen:
            result["accuracies"] = seen["accuracies"]
        result |= self._elsewhere(model, result["expert_of"], seed, reasons)
        return {**result, **({"reasons": reasons} if reasons else {})}

    def _elsewhere(self, model: ICM, expert_of: np.ndarray, seed: int, reasons: dict[str, str]) -> dict[str, Any]:
        if not self.config.generalise:
            return {}
        device = model.device
        try:
            other = open_dataset(self.config.generalise, device=device)
        except DistkError as error:
            reasons["transfer_mse"] = str(error)
            return {}
        if other.spec.shape[0] != model.spec.shape[0] or tuple(other.spec.range) != (0.0, 1.0):
            reasons["transfer_mse"] = f"'{other.name}' has images of shape {other.spec.shape}"
            return {}
        return transfer(model, other, expert_of, self.config.transfer_images, seed)


def observe(model: ICM, dataset: Dataset, images: int, seed: int, classify: nn.Module | None) -> dict[str, Any]:
    """Put test images through the mixture and the winners.

    Returns mechanism `[n]`, winner `[n, S]`, error `[n, S]` and error_before `[n, 1]` (mean over pixels), and with a
    classifier the accuracies, of which `accuracies` `[S]`. The mechanisms are mixed within every batch.
    """
    rows = dataset.rows_of("test")
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))[:images].to(dataset.device)
    generator = seeded(seed, dataset.device)
    kept: dict[str, list[Tensor]] = {name: [] for name in ("mechanism", "winner", "error", "error_before", "right")}
    batch = max(1, 256 // model.replicas)
    done = 0
    with progress("scoring experts", len(order)) as advance:
        for part in rows[order].split(batch):
            item = dataset.batch(part)
            x = item["x"]
            which = torch.arange(done, done + len(part), device=x.device) % len(model.mixture)
            moved = model.mixture(x, which, torch.randn(x.shape, generator=generator, device=x.device))
            restored, winner = model.restore(moved)
            kept["mechanism"].append(which)
            kept["winner"].append(winner)
            kept["error"].append((restored - x.unsqueeze(1)).pow(2).mean((2, 3, 4)))
            kept["error_before"].append((moved - x).pow(2).mean((1, 2, 3)).unsqueeze(1))
            if classify is not None:
                label = item["label"].unsqueeze(1)
                looks = [classify(moved)[:, None], classify(x)[:, None]]
                looks.append(classify(restored.flatten(0, 1)).unflatten(0, (len(part), -1)))
                kept["right"].append(torch.cat(looks, 1).argmax(2) == label)
            done += len(part)
            advance(len(part))
    made: dict[str, Any] = {name: torch.cat(parts).cpu() for name, parts in kept.items() if parts}
    if classify is not None:
        right = made.pop("right").float().mean(0)
        made |= {"accuracy_before": right[0], "accuracy_originals": right[1], "accuracy": right[2:].mean()}
        made["accuracies"] = right[2:].numpy()
    return made


def specialisation(winner: Tensor, mechanism: Tensor, mechanisms: int, experts: int) -> dict[str, Any]:
    """winner int64 `[n, S]`, mechanism int64 `[n]` -> the win matrices `[S, K, N]` and what follows from them.

    expert_of `[S, K]`: the expert matched to each mechanism, -1 where there are fewer experts than mechanisms.
    """
    from scipy.optimize import linear_sum_assignment
    from sklearn.metrics import normalized_mutual_info_score

    replicas = winner.shape[1]
    shares = np.zeros((replicas, mechanisms, experts))
    matched = np.full((replicas, mechanisms), -1)
    specialised, nmi = np.zeros(replicas), np.zeros(replicas)
    for s in range(replicas):
        np.add.at(shares[s], (mechanism.numpy(), winner[:, s].numpy()), 1)
        shares[s] /= np.maximum(shares[s].sum(1, keepdims=True), 1)
        rows, columns = linear_sum_assignment(-shares[s])
        matched[s, rows] = columns
        specialised[s] = (shares[s][rows, columns] >= SPECIALISED).sum()
        nmi[s] = normalized_mutual_info_score(mechanism.numpy(), winner[:, s].numpy())
    winners = np.array([len(set(share.argmax(1))) for share in shares])
    return {
        "purity": float(shares.max(2).mean()),
        "specialised": float(specialised.mean()),
        "one_to_one": float((specialised == mechanisms).mean()),
        "winners": float(winners.mean()),
        "nmi": float(nmi.mean()),
        "win_matrix": shares,
        "expert_of": matched,
        "purities": shares.max(2).mean(1),
    }


def transfer(model: ICM, other: Dataset, expert_of: np.ndarray, images: int, seed: int) -> dict[str, Any]:
    """Each expert on images of another data set, transformed by its mechanism, and on clean ones.

    shift_found `[S, K, 2]`: the whole shift (right, down) in pixels that best explains what the expert does to clean
    images; mechanisms without an expert are left out of the means.
    """
    generator = seeded(seed, other.device)
    x = other.sample(images, generator, "test")["x"]
    replicas, mechanisms = expert_of.shape
    errors, before = np.full((replicas, mechanisms), np.nan), np.zeros(mechanisms)
    found = np.zeros((replicas, mechanisms, 2), dtype=int)
    undone = []
    for k, mechanism in enumerate(model.mixture.mechanisms):
        which = torch.full((len(x),), k, device=x.device)
        moved = model.mixture(x, which, torch.randn(x.shape, generator=generator, device=x.device))
        before[k] = float((moved - x).pow(2).mean())
        having = [s for s in range(replicas) if expert_of[s, k] >= 0]
        if not having:
            continue
        experts = model.experts.subset([s * model.number + int(expert_of[s, k]) for s in having])
        restored, clean = experts(moved), experts(x)
        for place, s in enumerate(having):
            errors[s, k] = float((restored[:, place] - x).pow(2).mean())
            found[s, k] = best_shift(x, clean[:, place], model.config.depth + 1)
            if mechanism.reach:
                undone.append(tuple(found[s, k]) == (-mechanism.dx, -mechanism.dy))
    result = {
        "transfer_mse": float(np.nanmean(errors)),
        "transfer_mse_before": float(before.mean()),
        "transfer_mse_per_mechanism": errors,
        "shift_found": found,
    }
    return {**result, **({"shifts_undone": float(np.mean(undone))} if undone else {})}


def best_shift(x: Tensor, y: Tensor, reach: int) -> tuple[int, int]:
    """(right, down) of the whole shift by at most `reach` pixels of x that correlates most with y, in either sign."""
    steps = range(-reach, reach + 1)
    level = y - y.mean((2, 3), keepdim=True)
    scores = {}
    for dx in steps:
        for dy in steps:
            offset = [torch.full((len(x),), d, device=x.device) for d in (dx, dy)]
            scores[dx, dy] = (shift(x, *offset) * level).sum().abs()
    order = torch.stack(list(scores.values())).argmax()
    return list(scores)[int(order)]


_classifiers: dict[tuple, nn.Module] = {}


def classifier(dataset: Dataset, steps: int) -> nn.Module:
    """A convolutional classifier of the untransformed training images, trained once per process and data set.

    Two convolutions (32, 64), max pooling and dropout, 128 hidden units; images `[n, c, h, w]` -> logits.
    """
    key = (dataset.name, dataset.origin, str(dataset.config), dataset.device, steps)
    if key in _classifiers:
        return _classifiers[key]
    channels, height, width = dataset.spec.shape
    flat = 64 * (height // 4) * (width // 4)
    generator = seeded(0, dataset.device)

    def draw() -> tuple[Tensor, Tensor]:
        item = dataset.sample(64, generator, "train")
        return item["x"], item["label"]

    with initialised(0, dataset.device):
        net = nn.Sequential(
            *(nn.Conv2d(channels, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.25)),
            *(nn.Flatten(), nn.Linear(flat, 128), nn.ReLU(), nn.Dropout(0.5)),
            nn.Linear(128, len(dataset.spec.classes)),
        ).to(dataset.device)
        fit_classifier(net, draw, steps, 4e-3, "training the classifier")
    _classifiers[key] = net
    return net


def _per(error: Tensor, mechanism: Tensor, mechanisms: int) -> np.ndarray:
    """Mean error `[n, S]` over the images of each mechanism: `[S, K]`."""
    return np.stack([error[mechanism == k].mean(0).numpy() for k in range(mechanisms)], 1)
