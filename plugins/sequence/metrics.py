"""Scores of models with a static code and a code per frame: swap-error, similarity, disagreement, elbo.

Any method serves whose latent space has groups without steps (static: the appearance) and with steps (the motion).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from distk import Code, CodeTable, Dataset, FactorDataset, Method, Metric, UsageError, option, seeded
from distk.meaning import count, higher, lower, neither
from distk.plugins.sequence.judge import Judge, fitting_judge

EPS = 1e-16


def halves(model: Method) -> tuple[list[str], list[str]]:
    """Names of the static and of the motion groups. Raises UsageError for a code that has not both."""
    static = [group.name for group in model.latents if not group.steps]
    moving = [group.name for group in model.latents if group.steps]
    if not static or not moving:
        raise UsageError("this score needs a code with a static group and a group per frame, as that of dsvae.")
    return static, moving


def opened(table: CodeTable) -> tuple[Method, Dataset]:
    """The model and data of a table. Raises UsageError for codes from a file."""
    if table.model is None or table.dataset is None or table.rows is None:
        raise UsageError("this score looks at clips, so it needs a checkpoint rather than a file of codes.")
    return table.model, table.dataset


def held_out(table: CodeTable) -> Tensor:
    """Places in the table, int64 `[n]`, of clips of the test split; all of them where the table has none."""
    _, dataset = opened(table)
    rows = dataset.rows("test")
    every = torch.arange(len(table), device=table.codes.device)
    if rows is None:
        return every
    held = every[torch.isin(cast(Tensor, table.rows), rows)]
    return held if len(held) else every


def group_codes(table: CodeTable, places: Tensor) -> Code:
    """The posterior means at these places of the table, group by group, as `encode` gives them."""
    model, _ = opened(table)
    if any(group.kind != "continuous" for group in model.latents.scored):
        raise UsageError("this score needs a continuous code.")
    return model.latents.unflatten(table.codes[places])


@dataclass(frozen=True)
class PairsConfig:
    """How many pairs are drawn."""

    pairs: int = option(1000, "pairs of test clips (per cell, for similarity)", min=2, max=1_000_000)


class SwapError(Metric[PairsConfig]):
    """Appearance of A with motion of B, against the true clip. swap_gain: 1 perfect, 0 no better than a copy."""

    headline = "swap_gain"
    numbers = {
        "swap_gain": higher(None, 1, chance=0.0, what="1 - error over that of a copy"),
        "swap_error": lower(0),
        "copy_error": neither(0),
        "pairs": count("pairs"),
    }
    needs_model = True

    @torch.no_grad()
    def compute(self, table: CodeTable, seed: int) -> Mapping[str, Any]:
        model, dataset = opened(table)
        _, moving = halves(model)
        if not hasattr(dataset, "transfer_target"):
            raise UsageError(f"data set '{dataset.name}' does not know the true result of a transfer.")
        places, rows = held_out(table), cast(Tensor, table.rows)
        draw = seeded(seed, places.device)
        a, b = places[torch.randint(len(places), (2, self.config.pairs), generator=draw, device=places.device)]
        parts = []
        for i, j in zip(a.split(256), b.split(256), strict=True):
            code = {**group_codes(table, i), **{n: group_codes(table, j)[n] for n in moving}}
            x_a, x_b = (dataset.batch(rows[k])["x"] for k in (i, j))
            true = dataset.transfer_target(rows[i], rows[j])
            made = model.decode(code)
            parts.append(torch.stack([(x - true).double().pow(2).flatten(1).mean(1) for x in (made, x_a, x_b)]))
        made, copy_a, copy_b = torch.cat(parts, 1).mean(1).tolist()
        base = min(copy_a, copy_b)
        gain = 1 - made / base if base else float("nan")
        return {"swap_gain": gain, "swap_error": made, "copy_error": base, "pairs": self.config.pairs}


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """Cosine between the flattened rows of `a` and `b`, `[n]`."""
    return F.cosine_similarity(a.flatten(1).double(), b.flatten(1).double())


def split_code(model: Method, code: Code) -> tuple[Tensor, Tensor]:
    """A code's static and motion groups, each flattened, `[n, ...]`."""
    static, moving = (torch.cat([code[n].flatten(1) for n in names], 1) for names in halves(model))
    return static, moving


@torch.no_grad()
def encode_halves(model: Method, dataset: Dataset, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Static and motion codes of these rows, flattened posterior means, `[n, ...]`."""
    parts = [split_code(model, model.encode(dataset.batch(part)["x"])) for part in rows.split(128)]
    static, moving = (torch.cat(half) for half in zip(*parts, strict=True))
    return static, moving


def training_mean(model: Method, dataset: Dataset, table: CodeTable | None = None) -> tuple[Tensor, Tensor]:
    """Mean static and motion codes of training clips: those of the table, or 500 encoded for the purpose."""
    rows = dataset.rows_of("train")
    held = torch.isin(cast(Tensor, table.rows), rows).nonzero()[:, 0] if table is not None else rows[:0]
    if table is not None and len(held):
        f, z = split_code(model, group_codes(table, held))
    else:
        f, z = encode_halves(model, dataset, rows[:: max(1, len(rows) // 500)])
    return f.mean(0), z.mean(0)


CELLS = {
    "same_appearance_same_motion": (True, True),
    "same_appearance_other_motion": (True, False),
    "other_appearance_same_motion": (False, True),
    "other_appearance_other_motion": (False, False),
}


def cell_pairs(
    appearance: Tensor, motion: Tensor, same: tuple[bool, bool], n: int, draw: torch.Generator
) -> tuple[Tensor, Tensor]:
    """`n` random pairs of places whose appearance and motion agree or differ as `same` says; fewer where none exist.

    For same appearance and same motion the clips are two different ones where the data have them, else one clip twice.
    """
    total = len(appearance)
    firsts, seconds = [], []
    for a in torch.randint(total, (n,), generator=draw, device=draw.device).split(500):
        fits = (appearance[a, None] == appearance) == same[0]
        fits &= (motion[a, None] == motion) == same[1]
        if all(same):
            others = fits.clone()
            others[torch.arange(len(a), device=a.device), a] = False
            fits = torch.where(others.any(1, keepdim=True), others, fits)
        rank = torch.rand(len(a), total, generator=draw, device=draw.device).masked_fill(~fits, -1)
        found = fits.any(1)
        firsts.append(a[found])
        seconds.append(rank.argmax(1)[found])
    return torch.cat(firsts), torch.cat(seconds)


class Similarity(Metric[PairsConfig]):
    """Cosines of static codes and of whole motion codes, plain and centred on the training mean, in four cells.

    Headline: how well the centred cosines tell the cells apart, the smaller of (cos f with the same appearance - with
    another) and (cos z with the same motion - with another).
    """

    headline = "separation"
    numbers = {
        "separation": higher(-2, 2, chance=0.0, what="same less different, the smaller of the two halves"),
        "cos_*": neither(-1, 1),
        "centred_*": neither(-1, 1, source="Das & Dandi", what="centred on the training mean"),
    }
    needs_model = True

    @torch.no_grad()
    def compute(self, table: CodeTable, seed: int) -> Mapping[str, Any]:
        model, dataset = opened(table)
        places = held_out(table)
        draw = seeded(seed, places.device)
        mean_f, mean_z = training_mean(model, dataset, table)
        labelled = hasattr(dataset, "appearance") and hasattr(dataset, "motion")
        result: dict[str, Any] = {}
        if labelled:
            rows = cast(Tensor, table.rows)[places]
            appearance, motion = dataset.appearance(rows), dataset.motion(rows)  # type: ignore[attr-defined]
            pairs = {c: cell_pairs(appearance, motion, same, self.config.pairs, draw) for c, same in CELLS.items()}
        else:
            a, b = torch.randint(len(places), (2, self.config.pairs), generator=draw, device=places.device)
            pairs = {"all": (a, b)}
        for cell, (a, b) in pairs.items():
            (f_a, z_a), (f_b, z_b) = (split_code(model, group_codes(table, places[k])) for k in (a, b))
            nan = float("nan")
            for name, u, v, mean in (("f", f_a, f_b, mean_f), ("z", z_a, z_b, mean_z)):
                result[f"cos_{name}/{cell}"] = float(cosine(u, v).mean()) if len(u) else nan
                result[f"centred_{name}/{cell}"] = float(cosine(u - mean, v - mean).mean()) if len(u) else nan
        if labelled:
            of_f = result["centred_f/same_appearance_other_motion"] - result["centred_f/other_appearance_same_motion"]
            of_z = result["centred_z/other_appearance_same_motion"] - result["centred_z/same_appearance_other_motion"]
            result["separation"] = min(of_f, of_z) if of_f == of_f and of_z == of_z else float("nan")
        else:
            result["separation"] = float("nan")
            result["reasons"] = {"separation": "the data have no labels of appearance and motion: all pairs only"}
        return result


def inception(p: Tensor) -> dict[str, float]:
    """p(y|x) float64 `[n, classes]` -> IS = exp(mean KL(p(y|x) || p(y))), H(y|x) mean entropy, H(y); natural logs."""
    marginal = p.mean(0)
    return {
        "inception_score": float((p * ((p + EPS).log() - (marginal + EPS).log())).sum(1).mean().exp()),
        "h_y_given_x": float(-(p * (p + EPS).log()).sum(1).mean()),
        "h_y": float(-(marginal * (marginal + EPS).log()).sum()),
    }


def mean_kl(p: Tensor, q: Tensor) -> float:
    """Mean over rows of KL(p || q), nats; `[n, classes]`."""
    return float((p * ((p + EPS).log() - (q + EPS).log())).sum(1).mean())


@dataclass(frozen=True)
class JudgeConfig:
    """Which judge, and how many clips it sees."""

    judge: str = option("", "file of the judge (`distk dsvae judge`)", place=True)
    clips: int = option(1008, "test clips, the same number of every motion", min=1, max=1_000_000)


class Disagreement(Metric[JudgeConfig]):
    """The motion must survive a redrawn static code, the appearance a redrawn motion.

    accuracy_<motion>, inception_score, h_y_given_x, h_y: static code from the prior, motion kept. accuracy_<attribute>
    and accuracy_content, their mean: motion from the prior, static code kept. disagreement_* (Li & Mandt): share of
    clips whose predicted label changes; kl_*: KL from the prediction on the clip to that on the generation, next to
    the reconstruction's and another random clip's.
    """

    headline = "accuracy_action"
    numbers = {
        "accuracy_*": higher(0, 1, chance="1 / values", source="Li & Mandt 2018", what="the judge's, of what was kept"),
        "disagreement_*": lower(0, 1, source="Li & Mandt 2018", what="clips whose label changes"),
        "kl_*_reconstruction": neither(0, unit="nats"),
        "kl_*_random": neither(0, unit="nats", what="to another clip"),
        "kl_*": lower(0, unit="nats", source="Li & Mandt 2018"),
        "inception_score": higher(1, source="Salimans et al. 2016", form="with the judge"),
        "h_y_given_x": lower(0, unit="nats"),
        "h_y": higher(0, unit="nats"),
        "clips": count("clips"),
    }
    repeats = 3
    needs_model = True

    @torch.no_grad()
    def compute(self, table: CodeTable, seed: int) -> Mapping[str, Any]:
        model, dataset = opened(table)
        static, moving = halves(model)
        judge = fitting_judge(self.config.judge, dataset)
        data = cast(FactorDataset, dataset)
        last = data.factor_names[-1]
        draw = seeded(seed, data.device)
        places = balanced(data.factors(cast(Tensor, table.rows)[held_out(table)])[:, -1], self.config.clips, draw)
        places = held_out(table)[places]
        rows = cast(Tensor, table.rows)[places]
        seen = self._seen(table, judge, places, static, moving, draw)
        result: dict[str, float] = {}
        content = []
        for k, name in enumerate(data.factor_names):
            kept = seen["static redrawn" if name == last else "motion redrawn"][name]
            real, true = seen["real"][name], data.factors(rows)[:, k]
            result[f"accuracy_{name}"] = float((kept.argmax(1) == true).double().mean())
            if name != last:
                content.append(result[f"accuracy_{name}"])
            result[f"disagreement_{name}"] = float((kept.argmax(1) != real.argmax(1)).double().mean())
            result[f"kl_{name}"] = mean_kl(real, kept)
            result[f"kl_{name}_reconstruction"] = mean_kl(real, seen["reconstruction"][name])
            result[f"kl_{name}_random"] = mean_kl(real, real.roll(len(real) // 2 + 1, 0))
        result["accuracy_content"] = sum(content) / len(content)
        return {**result, **inception(seen["static redrawn"][last]), "clips": len(places)}

    def _seen(
        self,
        table: CodeTable,
        judge: Judge,
        places: Tensor,
        static: list[str],
        moving: list[str],
        draw: torch.Generator,
    ) -> dict[str, dict[str, Tensor]]:
        """What the judge sees in the real clips, the reconstructions and both kinds of generation."""
        model, dataset = opened(table)
        seen: dict[str, list[dict[str, Tensor]]] = {}
        for part in places.split(128):
            code, drawn = group_codes(table, part), model.prior(len(part), draw)
            shown = {
                "real": dataset.batch(cast(Tensor, table.rows)[part])["x"],
                "reconstruction": model.decode(code),
                "static redrawn": model.decode({**code, **{n: drawn[n] for n in static}}),
                "motion redrawn": model.decode({**code, **{n: drawn[n] for n in moving}}),
            }
            for name, x in shown.items():
                seen.setdefault(name, []).append(judge.probabilities(x))
        return {
            name: {head: torch.cat([p[head] for p in parts]) for head in judge.info.heads}
            for name, parts in seen.items()
        }


def balanced(label: Tensor, total: int, draw: torch.Generator) -> Tensor:
    """At most `total` places with equally many of every class that occurs, shuffled; int64."""
    order = torch.rand(len(label), generator=draw, device=draw.device).argsort()
    classes, counts = label.unique(return_counts=True)
    each = min(int(counts.min()), max(1, total // len(classes)))
    chosen = torch.cat([order[label[order] == c][:each] for c in classes])
    return chosen[torch.rand(len(chosen), generator=draw, device=draw.device).argsort()]
