"""Scores of mvae's single slots, slot-factors and entity-exchange, and sequential decoding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from distk import CodeTable, Dataset, Metric, UsageError, option, seeded
from distk.evaluation import score
from distk.meaning import higher, lower, neither
from distk.nn import bernoulli_nll
from distk.plugins.vae_family.mvae.method import MVAE, entropy
from distk.plugins.vae_family.mvae.metrics import batches, behind, some_rows

REGRESSED = ("x", "y", "scale", "r", "g", "b")


def scene_of(dataset: Dataset, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The scene in a batch of a data set that knows its sprites (`masks`, `render`).

    Raises UsageError for other data.
    """
    if not hasattr(dataset, "masks") or not hasattr(dataset, "render") or "exists" not in batch:
        raise UsageError(f"data set '{dataset.name}' does not know the sprites of a scene, as sprites-scenes does.")
    return {key: value for key, value in batch.items() if key not in ("x", "label", "factors")}


def overlap(model: MVAE, z: Tensor, masks: Tensor) -> Tensor:
    """How much of each sprite disappears with each slot: `[n, N, M]`.

    z: objects `[n, N, 12]`. masks: `[n, M, h, w]`. Sum over a sprite's pixels of |image - image without the slot|.
    """
    features, slots = model.features(z), z.shape[1]
    if slots == 1:
        return masks.flatten(2).sum(2).unsqueeze(1)
    whole = model.render(model.pool(features)).sigmoid()
    kept = torch.arange(slots, device=z.device)
    without = [model.render(model.pool(features[:, kept[kept != k]])).sigmoid() for k in range(slots)]
    change = (torch.stack(without, 1) - whole.unsqueeze(1)).abs().sum(2)
    return torch.einsum("nkhw,nmhw->nkm", change, masks)


@dataclass(frozen=True)
class SlotConfig:
    """How many scenes, and whether dci is computed."""

    train: int = option(2000, "at most so many train scenes to fit predictors on", min=2)
    test: int = option(2000, "at most so many test scenes", min=2)
    dci: bool = option(True, "also dci of the matched slots, by the metric of that name")


class SlotFactors(Metric[SlotConfig]):
    """What a slot's 12 means tell of the sprite that is matched to it: the slot whose removal changes it most.

    r2: mean of the coefficients of determination of x, y, scale and the colours r, g, b (`r2_x` ...), ridge regression.
    shape_accuracy: logistic regression; shape_majority: its baseline. distinct: share of scenes with two sprites or
    more in which no two have the same slot. dci_*: the metric `dci` with continuous factors in six bins.
    """

    headline = "r2"
    numbers = {
        "r2*": higher(None, 1, chance=0.0, what="ridge regression"),
        "shape_accuracy": higher(0, 1, what="logistic regression"),
        "shape_majority": neither(0, 1, what="share of the commonest shape"),
        "distinct": higher(0, 1, what="scenes in which no two sprites have one slot"),
        "sprites": neither(0, unit="sprites", whole=True),
        "dci_informativeness_*": higher(None, 1, form="dlib"),
        "dci_*": higher(0, 1, source="Eastwood & Williams 2018", form="dlib"),
    }
    needs_model = True
    needs_codes = False

    @torch.no_grad()
    def compute(self, table: CodeTable, seed: int) -> Mapping[str, Any]:
        model, dataset = behind(table)
        codes, factors, _ = self._matched(model, dataset, "train", self.config.train)
        codes_test, factors_test, distinct = self._matched(model, dataset, "test", self.config.test)
        if min(len(codes), len(codes_test)) < 2:
            raise UsageError("fewer than two sprites exist in these scenes: score more of them.")
        mean, std = codes.mean(0), codes.std(0).clamp_min(1e-6)
        codes, codes_test = (codes - mean) / std, (codes_test - mean) / std
        r2 = ridge_r2(codes, factors[:, 1:], codes_test, factors_test[:, 1:])
        shape, shape_test = factors[:, 0].long(), factors_test[:, 0].long()
        result = {
            "r2": float(r2.mean()),
            **{f"r2_{name}": float(value) for name, value in zip(REGRESSED, r2, strict=True)},
            "shape_accuracy": _accuracy(codes, shape, codes_test, shape_test),
            "shape_majority": float(shape_test.bincount().max()) / len(shape_test),
            "distinct": distinct,
            "sprites": len(codes_test),
        }
        return {**result, **(_dci(codes, factors, codes_test, factors_test, seed) if self.config.dci else {})}

    def _matched(
        self, model: MVAE, dataset: Dataset, split: Literal["train", "test"], n: int
    ) -> tuple[Tensor, Tensor, float]:
        """Means of the matched slots `[s, 12]`, and shape, x, y, scale, r, g, b `[s, 7]`, over all existing sprites."""
        codes, factors, apart, several = [], [], 0, 0
        for batch in batches(f"matching {split} scenes", dataset, some_rows(dataset, split, n), 64):
            scene = scene_of(dataset, batch)
            z = model.objects(batch["x"]).mean
            slot = overlap(model, z, dataset.masks(scene)).argmax(1)  # type: ignore[attr-defined]
            there = scene["exists"] > 0
            truth = torch.stack([scene[key].float() for key in ("shape", "px", "py", "scale")], 2)
            codes.append(z.gather(1, slot[..., None].expand(-1, -1, z.shape[2]))[there])
            factors.append(torch.cat([truth, scene["rgb"]], 2)[there])
            used = torch.zeros(z.shape[:2], device=z.device).scatter_add_(1, slot, scene["exists"])
            many = scene["count"] > 1
            several += int(many.sum())
            apart += int((many & (used <= 1).all(1)).sum())
        return torch.cat(codes).double(), torch.cat(factors).double(), apart / several if several else float("nan")


def ridge_r2(x: Tensor, y: Tensor, x_test: Tensor, y_test: Tensor, penalty: float = 1.0) -> Tensor:
    """R^2 on the test rows of ridge regression from centred codes `[n, D]` to targets `[n, K]`: float64 `[K]`."""
    centre = y.mean(0)
    gram = x.T @ x + penalty * torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    said = x_test @ torch.linalg.solve(gram, x.T @ (y - centre)) + centre
    return 1 - (said - y_test).pow(2).sum(0) / (y_test - y_test.mean(0)).pow(2).sum(0)


def _accuracy(x: Tensor, y: Tensor, x_test: Tensor, y_test: Tensor) -> float:
    """Test accuracy of logistic regression; of the only class where there is but one."""
    from sklearn.linear_model import LogisticRegression

    if len(y.unique()) == 1:
        return float((y_test == y[0]).double().mean())
    fitted = LogisticRegression(max_iter=1000).fit(x.cpu().numpy(), y.cpu().numpy())
    return float(fitted.score(x_test.cpu().numpy(), y_test.cpu().numpy()))


def _dci(x: Tensor, y: Tensor, x_test: Tensor, y_test: Tensor, seed: int, bins: int = 6) -> dict[str, Any]:
    """dci of matched codes; continuous factors are cut into bins of equal width."""
    low, high = y.amin(0), y.amax(0)

    def cut(values: Tensor) -> Tensor:
        binned = ((values - low) / (high - low).clamp_min(1e-9) * bins).clamp(0, bins - 1)
        return torch.cat([values[:, :1], binned[:, 1:]], 1).long()

    table = CodeTable(
        x.float(),
        [f"z{i + 1}" for i in range(x.shape[1])],
        ["continuous"] * x.shape[1],
        cut(y),
        ("shape", *REGRESSED),
        (3, *[bins] * len(REGRESSED)),
        ("categorical", *["ordinal"] * len(REGRESSED)),
        source="the matched slots",
        codes_test=x_test.float(),
        factors_test=cut(y_test),
    )
    result = score(table, "dci", {}, seed, 1)
    if "error" in result:
        return {"reasons": {"dci": result["error"]}}
    keys = ("disentanglement", "completeness", "informativeness_test")
    return {f"dci_{key}": result[key] for key in keys} | {"dci_importance": result["importance"]}


@dataclass(frozen=True)
class ExchangeConfig:
    """How many pairs."""

    pairs: int = option(1000, "at most so many pairs of test scenes", min=1)


class EntityExchange(Metric[ExchangeConfig]):
    """One sprite of a scene is replaced by one of another scene, by exchanging the slots that are matched to them.

    relative_error: squared error against the true scene, rendered anew, over that of the plain reconstruction (1 is
    perfect). gain: 1 - error / error of leaving the code as it is (1 is perfect, 0 useless). Both over scenes with at
    least one sprite; exchange_error, reconstruction_error, unchanged_error: the means per pixel and channel.
    """

    headline = "relative_error"
    numbers = {
        "relative_error": lower(0, what="over that of the reconstruction"),
        "gain": higher(None, 1, chance=0.0, what="1 - error over that of an unchanged code"),
        "*_error": lower(0, what="per pixel and channel"),
        "pairs": neither(0, unit="pairs", whole=True),
    }
    needs_model = True
    needs_codes = False

    @torch.no_grad()
    def compute(self, table: CodeTable, seed: int) -> Mapping[str, Any]:
        model, dataset = behind(table)
        draw = seeded(seed, dataset.device)
        sums, n = torch.zeros(3, dtype=torch.float64, device=dataset.device), 0
        for batch in batches("exchanging", dataset, some_rows(dataset, "test", 2 * self.config.pairs), 128):
            scene = scene_of(dataset, batch)
            found = torch.arange(len(batch["x"]), device=dataset.device)[scene["count"] > 0]
            a, b = found[: len(found) // 2], found[len(found) // 2 : len(found) // 2 * 2]
            if len(a):
                sums += self._errors(model, dataset, batch["x"], scene, (a, b), draw)
                n += len(a)
        if not n:
            raise UsageError("no two scenes with a sprite are among these: draw more pairs.")
        error, plain, unchanged = (sums / n).tolist()
        errors = {"exchange_error": error, "reconstruction_error": plain, "unchanged_error": unchanged, "pairs": n}
        return {"relative_error": error / plain, "gain": 1 - error / unchanged, **errors}

    def _errors(
        self,
        model: MVAE,
        dataset: Any,
        x: Tensor,
        scene: Mapping[str, Tensor],
        pair: tuple[Tensor, Tensor],
        draw: torch.Generator,
    ) -> Tensor:
        """Summed errors of the exchanged, the plain and the unchanged reconstruction, `[3]`."""
        z = model.objects(x).mean
        slot = overlap(model, z, dataset.masks(scene)).argmax(1)
        exists = scene["exists"]
        chosen = (exists * (1 - torch.rand(exists.shape, generator=draw, device=draw.device))).argmax(1)
        a, b = pair
        moved = z[a].clone()
        moved[torch.arange(len(a)), slot[a, chosen[a]]] = z[b, slot[b, chosen[b]]]
        truth = exchanged({key: value[a] for key, value in scene.items()}, scene, chosen[a], b, chosen[b])
        target, plain = dataset.render(truth), model.logits(z[a]).sigmoid()
        made = model.logits(moved).sigmoid()
        pairs = ((made, target), (plain, x[a]), (plain, target))
        return torch.stack([(one - other).double().pow(2).flatten(1).mean(1).sum() for one, other in pairs])


def exchanged(
    scene: dict[str, Tensor], others: Mapping[str, Tensor], sprite: Tensor, rows: Tensor, theirs: Tensor
) -> dict[str, Tensor]:
    """Scenes with sprite `sprite` `[n]` replaced by the sprites `theirs` `[n]` of the rows `rows` `[n]` of `others`."""
    place = torch.arange(len(sprite), device=sprite.device)
    made = {}
    for key, value in scene.items():
        value = value.clone()
        if key != "count":
            value[place, sprite] = others[key][rows, theirs]
        made[key] = value
    return made


# Sequential decoding


@torch.no_grad()
def build_up(model: MVAE, dataset: Dataset, rows: Tensor) -> dict[str, Any]:
    """Reconstruction from the 1, 2, ... N slots with the largest KL (section 4.2), nats above the entropy floor.

    excess: mean over scenes `[N]`. by_count: `[M + 1, N]` mean over scenes of each count, NaN where there are none.
    change: largest relative change of a count's mean from k = count on, averaged over scenes with 1 to N objects.
    Without a `count` in the data only `excess` is there.
    """
    parts, counts = [], []
    for batch in batches("decoding step by step", dataset, rows, 128):
        features = model.features(model.objects(batch["x"]).mean)
        nll = [bernoulli_nll(model.render(model.pool(features[:, : k + 1])), batch["x"]) for k in range(model.slots)]
        parts.append(torch.stack(nll, 1) - entropy(batch["x"]).unsqueeze(1))
        counts.append(batch.get("count"))
    excess = torch.cat(parts).double()
    found: dict[str, Any] = {"excess": excess.mean(0).cpu().numpy()}
    if counts[0] is None:
        return found
    count = torch.cat(counts)  # type: ignore[arg-type]
    most = int(count.max())
    means = np.full((most + 1, model.slots), np.nan)
    change = weight = 0.0
    for c in range(most + 1):
        chosen = excess[count == c]
        if len(chosen):
            means[c] = chosen.mean(0).cpu().numpy()
        if len(chosen) and 1 <= c <= model.slots:
            change += len(chosen) * float(np.abs(means[c, c - 1 :] / means[c, c - 1] - 1).max())
            weight += len(chosen)
    return {**found, "by_count": means, "change": change / weight if weight else float("nan")}
