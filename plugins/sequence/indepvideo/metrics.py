"""Scores of states that fall into parts: cross-mi, specificity, source-alignment.

Any method serves whose code has a continuous group per frame: several groups are the parts, as the factors of
indepvideo; a lone one is cut at random, and the score says of which cut it is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, cast, runtime_checkable

import torch
from torch import Tensor

from distk import Code, CodeTable, Dataset, Method, Metric, UsageError, can, option, seeded
from distk.console import counted, progress
from distk.meaning import count, higher, lower, neither
from distk.metric import Picture
from distk.onepass import one_pass
from distk.plugins.sequence.indepvideo import information
from distk.plugins.sequence.indepvideo.figures import CorrelationMap

BATCH = 128
FEWEST_CLIPS = 250
"""Pairs come from so many different clips at least, where there are so many: steps of one clip resemble each other."""


@runtime_checkable
class Paths(Protocol):
    """A model that can draw whole paths from its posterior, each state given the drawn one before."""

    def paths(self, x: Tensor, generator: torch.Generator) -> Code:
        """Clips -> code."""


def opened(table: CodeTable) -> tuple[Method, Dataset]:
    """Model and data of a table. Raises UsageError for codes from a file, and a code without groups per frame."""
    model, dataset = table.model, table.dataset
    if model is None or dataset is None:
        raise UsageError("this score looks at clips, so it needs a checkpoint rather than a file of codes.")
    if not any(group.steps > 1 and group.kind == "continuous" for group in model.latents):
        raise UsageError("this score needs a code with a continuous group per frame, as that of indepvideo.")
    return model, dataset


def moving(model: Method, code: Code) -> Tensor:
    """The continuous groups per frame of a code, side by side, `[n, t, units]`."""
    return torch.cat([code[g.name] for g in model.latents if g.steps > 1 and g.kind == "continuous"], -1)


def given_parts(model: Method) -> list[Tensor]:
    """The units of each continuous group per frame, int64 on the host."""
    sizes = [g.size for g in model.latents if g.steps > 1 and g.kind == "continuous"]
    return list(torch.arange(sum(sizes)).split(sizes))


def cuts(model: Method, wanted: int, count: int, seed: int) -> tuple[list[list[Tensor]], bool]:
    """The parts that are scored: the model's own alone; or, of a lone group, `count` random cuts into `wanted` parts
    (0: as many as the model was told to have). And whether they are the model's own."""
    own = given_parts(model)
    if len(own) > 1:
        return [own], True
    number = wanted or getattr(model, "parts", 2)
    if number < 2:
        raise UsageError("one part has no other to be held against: name 2 or more by --set parts=N.")
    return random_cuts(sum(map(len, own)), number, count, seed), False


def random_cuts(size: int, parts: int, count: int, seed: int) -> list[list[Tensor]]:
    """`information.partitions` from a seed, with a UsageError."""
    try:
        return list(information.partitions(size, parts, count, torch.Generator().manual_seed(seed)))
    except ValueError as error:
        raise UsageError(f"{error}; name another number by --set parts=N.") from error


def test_clips(dataset: Dataset, n: int, seed: int) -> Tensor:
    """At most `n` different rows of the test split, drawn by `seed`, int64."""
    rows = dataset.rows_of("test")
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))[:n]
    return rows[order.to(rows.device)]


def drawn_paths(model: Method, x: Tensor, generator: torch.Generator) -> Tensor:
    """One draw from the posterior of each clip, `[n, t, units]`; the means of a method without a posterior."""
    if isinstance(model, Paths):
        return moving(model, model.paths(x, generator))
    with one_pass(model):
        mean = model.encode(x)
        if not can(model, "posterior"):
            return moving(model, mean)
        spread = {name: std for name, (_, std) in model.posterior(x).items()}
    noise = {name: torch.randn(value.shape, generator=generator, device=value.device) for name, value in mean.items()}
    return moving(model, {name: value + spread[name] * noise[name] for name, value in mean.items() if name in spread})


def consecutive(model: Method, dataset: Dataset, pairs: int, seed: int) -> tuple[Tensor, Tensor]:
    """At most `pairs` states at t and at t + 1, `[n, units]` each: draws from the posterior of test clips, all t
    pooled, no two of them alike."""
    steps = dataset.spec.shape[0] - 1
    rows = test_clips(dataset, max(FEWEST_CLIPS, math.ceil(pairs / steps)), seed)
    generator = seeded(seed, dataset.device)
    with progress("drawing states", len(rows)) as advance:
        parts = []
        for part in rows.split(BATCH):
            parts.append(drawn_paths(model, dataset.batch(part)["x"], generator))
            advance(len(part))
    z = torch.cat(parts)
    order = torch.randperm(len(z) * steps, generator=torch.Generator().manual_seed(seed))[:pairs].to(z.device)
    return z[:, :-1].flatten(0, 1)[order], z[:, 1:].flatten(0, 1)[order]


@dataclass(frozen=True)
class CrossConfig:
    """The defaults are those of Whitney & Fergus, whose figures depend on them."""

    samples: int = option(1000, "pairs of states; figures of another number are not comparable", min=5, max=1_000_000)
    k: int = option(3, "neighbours", min=1, max=1000)
    unit: Literal["bits", "nats"] = option("bits", "of the information")
    parts: int = option(0, "parts that a lone group is cut into; 0: as many as the model was told", min=0, max=1024)
    partitions: int = option(20, "random cuts of a lone group, and for comparison of all factors together", min=1)
    pairs: Literal["all", "upper"] = option(
        "all", "which pairs of parts count for cross: all, or later part after earlier one (the authors' program)"
    )


UNIT = "bits, or as the setting `unit` says"


class CrossMi(Metric[CrossConfig]):
    """Information between a factor's next state and its own or another's state (Whitney & Fergus 2017, Table 2).

    same: mean over factors of I(z_{t+1}^i; z_t^i). cross: mean over pairs of I(z_{t+1}^i; z_t^j). gap: same - cross.
    From posterior draws of test clips, with Kraskov's estimator on the raw coordinates. ceiling: the estimate for a
    state that is known exactly; nothing scores higher, and in 25 dimensions nothing comes near the truth. A lone group
    is cut at random, and the cut with the largest gap is reported. random_same, random_cross, random_gap: the same of
    all factors together, their true parts not counted; what chance can do. block_ratio: mean |r| between units of the
    same part at t and t + 1 over that of different parts. mean_abs_correlation: of all units (Figure 2).
    """

    headline = "gap"
    numbers = {
        "gap": higher(
            chance=0.0, source="Whitney & Fergus 2017, Table 2", form="authors", unit=UNIT, what="same - cross"
        ),
        "same": neither(unit=UNIT, source="Whitney & Fergus 2017, Table 2", what="with its own last state"),
        "cross": neither(unit=UNIT, source="Whitney & Fergus 2017, Table 2", what="with another's last state"),
        "ceiling": neither(unit=UNIT, what="the most that the estimator can say"),
        "block_ratio": higher(0, chance=1.0, what="mean |r| within parts over between parts"),
        "mean_abs_correlation": neither(0, 1),
        "random_*": neither(unit=UNIT, what="of random parts"),
        "pairs": count("pairs"),
        "neighbours": count("neighbours"),
    }
    needs_model = True
    needs_codes = False

    @torch.no_grad()
    def compute(self, table: CodeTable, seed: int) -> Mapping[str, Any]:
        """Raises UsageError for codes without steps, too few clips, and states that do not vary."""
        config = self.config
        model, dataset = opened(table)
        own, factored = cuts(model, config.parts, config.partitions, seed)
        now, then = consecutive(model, dataset, config.samples, seed)
        scale = math.log(2) if config.unit == "bits" else 1.0
        best, table_of = self._best(now, then, own)
        same, cross = (value / scale for value in information.same_and_cross(table_of, config.pairs))
        matrix = information.correlation(now, then)
        ratio, mean = information.blocks(matrix, best)
        result: dict[str, Any] = {
            "gap": same - cross,
            "same": same,
            "cross": cross,
            "ceiling": information.ceiling(len(now), config.k) / scale,
            "block_ratio": ratio,
            "mean_abs_correlation": mean,
            **{f"random_{name}": math.nan for name in ("same", "cross", "gap")},
            "pairs": len(now),
            "neighbours": config.k,
            "estimator": f"variant 1 of Kraskov et al., raw coordinates, {config.unit}",
        }
        reasons: dict[str, str] = {}
        if factored:
            units = now.shape[1]
            others = [c for c in random_cuts(units, len(best), config.partitions, seed) if not _alike(c, best)]
            _, control = self._best(now, then, others)
            by_chance = [value / scale for value in information.same_and_cross(control, config.pairs)]
            result |= {
                "random_same": by_chance[0],
                "random_cross": by_chance[1],
                "random_gap": by_chance[0] - by_chance[1],
            }
        else:
            reasons |= {f"random_{n}": "the parts are random themselves" for n in ("same", "cross", "gap")}
        if len(now) < config.samples:
            reasons["pairs"] = f"the test split has {counted(len(now), 'pair')} of consecutive frames"
        return {
            **result,
            "information": (table_of / scale).cpu().numpy(),
            "correlation": matrix.cpu().numpy(),
            "parts": torch.cat(best).numpy(),
            "sizes": torch.tensor([len(part) for part in best]).numpy(),
            **({"reasons": reasons} if reasons else {}),
        }

    def _best(self, now: Tensor, then: Tensor, candidates: list[list[Tensor]]) -> tuple[list[Tensor], Tensor]:
        """The cut with the largest difference of same and cross, and its table of information."""
        found = []
        with progress("estimating information", len(candidates)) as advance:
            for parts in candidates:
                at, after = ([value[:, units.to(value.device)] for units in parts] for value in (now, then))
                try:
                    found.append((parts, information.mutual_information(at, after, self.config.k)))
                except ValueError as error:
                    raise UsageError(f"{error}.") from error
                advance(1)

        def gap(one: tuple[list[Tensor], Tensor]) -> float:
            same, cross = information.same_and_cross(one[1], self.config.pairs)
            return same - cross

        return max(found, key=gap)

    @classmethod
    def pictures(cls, result: Mapping[str, Any]) -> Mapping[str, Picture]:
        """The correlation of all units at t and t + 1, with lines between the parts."""
        return {"correlation": CorrelationMap(result["correlation"], result["parts"], result["sizes"].tolist())}


def _alike(a: list[Tensor], b: list[Tensor]) -> bool:
    """Whether two cuts are the same, whatever the order of their parts."""
    return {frozenset(part.tolist()) for part in a} == {frozenset(part.tolist()) for part in b}


class ByChannel(Protocol):
    """Data whose objects lie in colour channels of their own."""

    object_channels: tuple[int, int]


class Independent(Protocol):
    """A model that moves parts of its state one by one; see `IndepVideo.independent`."""

    def independent(self, x: Tensor, parts: list[Tensor], generator: torch.Generator) -> Tensor:
        """Clips -> `[n, 1 + parts, t - 1, ...]`."""


@dataclass(frozen=True)
class SpecificityConfig:
    """On how many clips, and how often each is drawn."""

    clips: int = option(64, "test clips", min=1, max=100_000)
    draws: int = option(8, "draws from the posterior whose pictures are averaged", min=1, max=10_000)
    parts: int = option(0, "parts that a lone group is cut into; 0: as many as the model was told", min=0, max=1024)
    partitions: int = option(20, "random cuts of a lone group", min=1)


class Specificity(Metric[SpecificityConfig]):
    """Does each factor move one object and leave the other alone? Figure 3 as a number; ours.

    All but one factor are frozen at frame 2, that one follows its posterior (`distk indepvideo independent`). Of the
    variance over time of the pictures, summed over pixels, a share lies in the first object's channel; shares: per
    factor, NaN of one that moves nothing. object_specificity: the largest share less the smallest of those that move
    something, in [0, 1]; with two objects and two factors 1 is perfect. Of a lone group, cut at random, the cut that
    scores best is reported.
    """

    headline = "object_specificity"
    numbers = {
        "object_specificity": higher(0, 1, what="largest share of an object less the smallest"),
        "moved_by_least": higher(0, 1, what="variance moved by the least factor over that by the most"),
        "clips": count("clips"),
    }
    needs_model = True
    needs_codes = False

    @torch.no_grad()
    def compute(self, table: CodeTable, seed: int) -> Mapping[str, Any]:
        """Raises UsageError for other data and other methods."""
        config = self.config
        model, dataset = opened(table)
        channels = getattr(dataset, "object_channels", None)
        if channels is None:
            raise UsageError(
                f"data set '{dataset.name}' does not keep its objects in colours of their own; moving-mnist-rg and "
                "bouncing-squares do."
            )
        if not hasattr(model, "independent"):
            raise UsageError("this score moves parts of a state one by one, as indepvideo does.")
        if dataset.spec.shape[0] < 3:
            raise UsageError("this score needs clips of at least 3 frames: parts are frozen at the second.")
        rows = test_clips(dataset, config.clips, seed)
        candidates, _ = cuts(model, config.parts, config.partitions, seed)
        found = []
        with progress("moving parts", len(candidates)) as advance:
            for parts in candidates:
                found.append(self._variances(cast(Independent, model), dataset, rows, parts, channels, seed))
                advance(1)
        variances = max(found, key=lambda v: _spread(_shares(v)))
        shares = _shares(variances)
        total = variances.sum(1)
        value = _spread(shares)
        result: dict[str, Any] = {
            "object_specificity": value,
            "moved_by_least": float(total.min() / total.max()) if float(total.max()) else math.nan,
            "clips": len(rows),
            "shares": shares.cpu().numpy(),
            "variance": variances.cpu().numpy(),
        }
        why = "nothing moves"
        reasons = {key: why for key in ("object_specificity", "moved_by_least") if math.isnan(result[key])}
        return {**result, "reasons": reasons} if reasons else result

    def _variances(
        self,
        model: Independent,
        dataset: Dataset,
        rows: Tensor,
        parts: list[Tensor],
        channels: tuple[int, int],
        seed: int,
    ) -> Tensor:
        """Variance over time in the two channels while each part moves, mean over clips, float64 `[parts, 2]`."""
        generator = seeded(seed, dataset.device)
        units = [part.to(dataset.device) for part in parts]
        total = torch.zeros(len(parts), 2, dtype=torch.float64, device=dataset.device)
        for some in rows.split(16):
            x = dataset.batch(some)["x"]
            mean = torch.zeros(())
            for _ in range(self.config.draws):
                mean = mean + model.independent(x, units, generator)[:, 1:].double() / self.config.draws
            variance = mean.var(2, correction=0).flatten(3).sum(3)  # [n, parts, channels]
            total += variance[..., list(channels)].sum(0)
        return total / len(rows)


def _shares(variances: Tensor) -> Tensor:
    """Share of the first channel, `[parts]`; NaN of a part that moves nothing."""
    return variances[:, 0] / variances.sum(1)


def _spread(shares: Tensor) -> float:
    known = shares[~shares.isnan()]
    return float(known.max() - known.min()) if len(known) else math.nan


class Sources(Protocol):
    """Data that know the states of what moves in them."""

    def sources(self, rows: Tensor) -> Tensor:
        """Rows int64 `[n]` -> `[n, t, sources, s]`."""


@dataclass(frozen=True)
class AlignConfig:
    """On how many clips."""

    clips: int = option(2000, "test clips", min=10, max=1_000_000)
    parts: int = option(0, "parts that a lone group is cut into; 0: as many as the model was told", min=0, max=1024)
    partitions: int = option(20, "random cuts of a lone group, of which the best counts", min=1)


class SourceAlignment(Metric[AlignConfig]):
    """Is each true source in one factor, and in no other? For data that know their sources.

    R^2 of the best linear read-out of each source's state from each factor (posterior means, frames 2 and later).
    align: mean R^2 of the best one-to-one matching less the mean of all other pairs; 1 is perfect, 0 says that every
    factor knows of every source alike. matched, other: the two means. Of a lone group the random cut that aligns best.
    """

    headline = "align"
    numbers = {
        "align": higher(None, 1, chance=0.0, what="matched - other"),
        "matched": higher(None, 1, what="R2 of the best one-to-one match"),
        "other": lower(None, 1, what="R2 of all other pairs"),
        "clips": count("clips"),
    }
    needs_model = True
    needs_codes = False

    @torch.no_grad()
    def compute(self, table: CodeTable, seed: int) -> Mapping[str, Any]:
        """Raises UsageError for data that do not know their sources."""
        model, dataset = opened(table)
        if not hasattr(dataset, "sources"):
            raise UsageError(f"data set '{dataset.name}' does not know the sources of its clips; two-oscillators does.")
        rows = test_clips(dataset, self.config.clips, seed)
        code = torch.cat([moving(model, model.encode(dataset.batch(part)["x"])) for part in rows.split(BATCH)])
        z = code[:, 1:].flatten(0, 1).cpu()
        truth = cast(Sources, dataset).sources(rows)[:, 1:].flatten(0, 1).cpu()
        found = []
        for parts in _distinct(cuts(model, self.config.parts, self.config.partitions, seed)[0]):
            of = [[information.explained(z[:, units], s) for s in truth.unbind(1)] for units in parts]
            r2 = torch.tensor(of, dtype=torch.float64)
            found.append((*information.alignment(r2), r2))
        align, matched, other, r2 = max(found, key=lambda one: one[0])
        return {"align": align, "matched": matched, "other": other, "clips": len(rows), "r2": r2.numpy()}


def _distinct(candidates: list[list[Tensor]]) -> Iterator[list[Tensor]]:
    """Each cut once, whatever the order of its parts."""
    seen = set()
    for parts in candidates:
        mark = frozenset(frozenset(part.tolist()) for part in parts)
        if mark not in seen:
            seen.add(mark)
            yield parts
