"""Scores of made clips: how constant their content is, always beside whether anything moves, and what the motion code
says."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distk import Code, CodeTable, Dataset, Method, Metric, UsageError, can, option, seeded
from distk.meaning import higher, lower, neither
from distk.models import open_model
from distk.plugins.sequence.mocogan.shapes import (
    DARK,
    Shapes,
    axes,
    clip_colours,
    content_distance,
    look,
    moves,
    steps_of,
)

BATCH = 32
"""Clips that are made at once."""
TOLERANCE = 16.0
"""How far, of 255, a pixel of a shape may be from a shade of its colour, as compression leaves it."""


def opened(table: CodeTable) -> tuple[Method, Dataset]:
    """The model and data of a table. Raises UsageError where there is no model, or none that makes clips."""
    if table.model is None or table.dataset is None:
        raise UsageError("this score looks at made clips, so it needs a checkpoint rather than a file of codes.")
    if table.dataset.spec.kind != "video" or not can(table.model, "sample"):
        raise UsageError("this score looks at made clips: it needs a method that draws clips, as mocogan.")
    return table.model, table.dataset


def as_bytes(model: Method, clips: Tensor) -> Tensor:
    """Clips in the data's range -> whole numbers 0..255, as a file would hold them; float32."""
    low, high = model.spec.range
    return ((clips - low) / (high - low) * 255).round().clamp(0, 255)


def content_and_motion(model: Method) -> tuple[list[str], list[str]]:
    """Names of the groups that say what is seen, and of those that say what it does: paths through time, classes.

    Raises UsageError for a code that has not both, or a model that cannot draw codes.
    """
    content = [group.name for group in model.latents if not group.steps and group.kind == "continuous"]
    motion = [group.name for group in model.latents if group.name not in content]
    if not content or not any(model.latents[name].steps for name in motion):
        raise UsageError("this needs a model with a content code per clip and a motion code per frame, as mocogan.")
    return content, motion


def draw_clips(model: Method, n: int, frames: int | None, redraw: bool, draw: torch.Generator) -> Iterator[Tensor]:
    """`n` made clips in batches `[b, t, c, h, w]` in 0..255. redraw: with another content code in every frame."""
    if frames is not None and not model.any_length:
        raise UsageError("this method's clips are as long as those of training: leave out frames.")
    given = {} if frames is None else {"frames": frames}
    for at in range(0, n, BATCH):
        size = min(BATCH, n - at)
        clips = _redrawn(model, size, given, draw) if redraw else model.sample(size, draw, **given)
        yield as_bytes(model, clips)


def _redrawn(model: Method, n: int, given: dict[str, int], draw: torch.Generator) -> Tensor:
    """Clips whose frames are decoded one by one, each with a content code of its own."""
    content, _ = content_and_motion(model)
    prior: Callable[..., Code] = model.prior
    code = prior(n, draw, **given)
    length = next(code[g.name].shape[1] for g in model.latents if g.steps)
    fresh = prior(n * length, draw)
    single: Code = {}
    for group in model.latents:
        value = code[group.name]
        if group.name in content:
            single[group.name] = fresh[group.name]
        else:
            single[group.name] = value.flatten(0, 1).unsqueeze(1) if group.steps else value.repeat_interleave(length, 0)
    return model.decode(single).flatten(0, 1).unflatten(0, (n, length))


def real_clips(dataset: Dataset, n: int, draw: torch.Generator) -> Iterator[tuple[Tensor, Tensor | None]]:
    """At most `n` test clips in batches `[b, t, c, h, w]` in 0..255, and their labels int64 `[b]` or None."""
    rows = dataset.rows_of("test")
    low, high = dataset.spec.range
    for part in rows[torch.randperm(len(rows), generator=draw, device=draw.device)[:n]].split(BATCH):
        item = dataset.batch(part)
        yield ((item["x"] - low) / (high - low) * 255).round(), item.get("label")


def demand_shapes(dataset: Dataset) -> None:
    """Raise UsageError unless the first clips of the test split show single shapes of one colour on black, as nine of
    ten frames do in which every pixel is black, of the brightest pixel's colour, or in between."""
    if dataset.spec.kind == "video":
        low, high = dataset.spec.range
        x = dataset.batch(dataset.rows_of("test")[:BATCH])["x"]
        pixels = ((x - low) / (high - low) * 255).flatten(3).transpose(2, 3).flatten(0, 1)  # [frames, pixels, channels]
        bright = pixels.amax(2)
        colour = pixels.take_along_dim(bright.argmax(1)[:, None, None], 1)
        share = (pixels * colour).sum(2, keepdim=True) / colour.square().sum(2, keepdim=True).clamp_min(1)
        plain = (pixels - share * colour).abs().amax((1, 2)) < TOLERANCE
        dark = (bright < DARK).double().mean(1) > 0.5
        if float((plain & dark).double().mean()) > 0.9:
            return
    raise UsageError(
        f"data set '{dataset.name}' does not show single shapes of one colour on black, which this score looks at. For "
        "other clips `acd` compares the codes that a trained model gives their frames: --set embedder=CHECKPOINT."
    )


def look_at(parts: Iterable[Tensor], threshold: float = 0.5) -> Shapes:
    """The shapes of all clips, which are looked at a batch at a time."""
    return Shapes(*map(torch.cat, zip(*(look(part, threshold) for part in parts), strict=True)))


def crossed(model: Method, motion: Code, content: Code) -> Code:
    """Motions of m codes, contents of c codes -> a code of m * c items, all contents of one motion after the other."""
    names, _ = content_and_motion(model)
    m, c = (len(next(iter(code.values()))) for code in (motion, content))
    return {
        group.name: content[group.name].repeat(m, *[1] * len(group.shape))
        if group.name in names
        else motion[group.name].repeat_interleave(c, 0)
        for group in model.latents
    }


def decoded(model: Method, code: Code) -> Iterator[Tensor]:
    """Codes -> clips in batches `[b, t, c, h, w]` in 0..255."""
    for at in range(0, len(next(iter(code.values()))), BATCH):
        yield as_bytes(model, model.decode({name: v[at : at + BATCH] for name, v in code.items()}))


# The scores


@dataclass(frozen=True)
class DistanceConfig:
    """How many clips are made, how long, and what is compared."""

    clips: int = option(1000, "clips that are made, and real ones beside them", min=2, max=1_000_000)
    frames: int | None = option(None, "frames of a made clip; default: as trained", min=2, max=10_000)
    threshold: float = option(0.5, "a shape's pixels are brighter than this share of the brightest", min=0, max=0.99)
    redraw: bool = option(False, "draw the content code anew in every frame: what one code per clip is for")
    embedder: str = option(
        "", "checkpoint whose codes of frames are compared instead of a shape's mean colour", place=True
    )


SIDES = ("acd", "moving", "medstep", "colour_spread", "axis_balance")
"""What is said of made and of real clips alike."""


class ContentDistance(Metric[DistanceConfig]):
    """ACD, average content distance: the mean distance between the mean colours of a clip's shape in two of its frames.

    acd: colours in 0..255, the scale of the paper's figures; acd_unit: in 0..1. A clip that stands still has an ACD of
    0, and a black one as well, so read beside it: moving, the share of clips whose shape travels a quarter of the
    frame; medstep, the median step between frames in pixels; colour_spread, the spread of colours over clips;
    area_distance, the Wasserstein distance between areas of made and real shapes in pixels; axis_balance, the share of
    clips that travel sideways; empty_frames, the share of frames without a shape, which do not count; lost_clips, the
    share of clips with fewer than two others. `*_real`: the same of real clips, which is what a perfect model has.
    """

    headline = "acd"
    numbers = {
        "acd": lower(0, unit="of 255", source="Tulyakov et al. 2017, section 4", form="authors"),
        "acd_unit": lower(0, what="colours in 0..1"),
        "moving": higher(0, 1, what="clips whose shape travels a quarter of the frame"),
        "medstep": neither(0, unit="pixels", what="median step between frames"),
        "colour_spread": higher(0, unit="of 255", what="over clips"),
        "area_distance": lower(0, unit="pixels", what="between areas of made and real shapes"),
        "axis_balance": neither(0, 1, what="clips that travel sideways"),
        "empty_frames": lower(0, 1, what="frames without a shape"),
        "lost_clips": lower(0, 1, what="clips with fewer than two frames with a shape"),
        "*_real": neither(0, what="of real clips, what a perfect model has"),
    }
    needs_model = True
    needs_codes = False

    @torch.no_grad()
    def compute(self, table: CodeTable, seed: int) -> Mapping[str, Any]:
        model, dataset = opened(table)
        c, draw = self.config, seeded(seed, dataset.device)
        if not c.embedder:
            demand_shapes(dataset)
        real = (x for x, _ in real_clips(dataset, c.clips, draw))
        clips = draw_clips(model, c.clips, c.frames, c.redraw, draw)
        if c.embedder:
            codes = embedder(c.embedder, dataset)
            return {"acd": distance_of(codes, clips), "acd_real": distance_of(codes, real)}
        true, made = (look_at(parts, c.threshold) for parts in (real, clips))
        side = dataset.spec.shape[-1]
        result: dict[str, Any] = summary(made, side)
        result |= {f"{name}_real": value for name, value in summary(true, side).items()}
        result["acd_unit"] = result["acd"] / 255
        result["area_distance"] = area_distance(made, true)
        result["empty_frames"] = float((~made.seen).double().mean())
        result["lost_clips"] = float((made.seen.sum(1) < 2).double().mean())
        why = {"axis_balance": "no made clip goes anywhere"}
        nothing = "no made clip has two frames with a shape"
        return result | {"reasons": {name: why.get(name, nothing) for name, value in result.items() if value != value}}


def summary(shapes: Shapes, side: int) -> dict[str, float]:
    """What `SIDES` names, of clips of frames of that side; NaN where no clip says anything."""
    distance = content_distance(shapes.colour, shapes.seen)
    colours = clip_colours(shapes)
    coloured = colours[colours.isfinite().all(1)]
    axis = axes(shapes)
    return {
        "acd": float(distance[distance.isfinite()].mean()),
        "moving": float(moves(shapes, side).double().mean()),
        "medstep": float(steps_of(shapes).quantile(0.5)) if bool((shapes.seen.sum(1) > 1).any()) else float("nan"),
        "colour_spread": float(coloured.std(0).mean()) if len(coloured) > 1 else float("nan"),
        "axis_balance": float((axis[axis >= 0] == 1).double().mean()),
    }


def area_distance(made: Shapes, real: Shapes) -> float:
    """Wasserstein distance between the areas of the shapes in made and in real frames, pixels; NaN without shapes."""
    from scipy.stats import wasserstein_distance

    areas = [shapes.area[shapes.seen].cpu().numpy() for shapes in (made, real)]
    return float(wasserstein_distance(*areas)) if all(map(len, areas)) else float("nan")


def embedder(path: str, dataset: Dataset) -> Callable[[Tensor], Tensor]:
    """Frames `[n, c, h, w]` in 0..255 -> the continuous codes of a trained model, float `[n, d]`.

    Raises UsageError for a model that does not encode such frames.
    """
    model, header = open_model(Path(path), str(dataset.device))
    names = [group.name for group in model.latents.encoded if group.kind == "continuous"]
    if not can(model, "encode") or not names or tuple(model.spec.shape) != tuple(dataset.spec.shape[1:]):
        raise UsageError(
            f"embedder '{path}' ({header.method}, items {list(model.spec.shape)}) does not encode the frames "
            f"{list(dataset.spec.shape[1:])} of '{dataset.name}' into numbers."
        )
    low, high = model.spec.range

    def codes(frames: Tensor) -> Tensor:
        code = model.encode(frames / 255 * (high - low) + low)
        return torch.cat([code[name].flatten(1) for name in names], 1).double()

    return codes


def distance_of(codes: Callable[[Tensor], Tensor], parts: Iterable[Tensor]) -> float:
    """Mean content distance of clips, in batches `[b, t, c, h, w]` in 0..255, by the codes of their frames."""
    found = []
    for part in parts:
        features = codes(part.flatten(0, 1)).unflatten(0, part.shape[:2])
        found.append(content_distance(features, torch.ones_like(features[..., 0], dtype=torch.bool)))
    return float(torch.cat(found).mean())


@dataclass(frozen=True)
class MotionConfig:
    """How many codes are drawn."""

    clips: int = option(1000, "clips whose category is held against their motion", min=2, max=1_000_000)
    motions: int = option(32, "motions, each shown with every content", min=2, max=10_000)
    contents: int = option(16, "contents, each shown in every motion", min=2, max=10_000)


class MotionClass(Metric[MotionConfig]):
    """What the codes say of shapes that go along one of two axes, read off the centroid's way from first to last frame.

    motion_consistency: of one motion (path and category) with two contents, how often both go along the same axis;
    motion_consistency_random: of two motions with two contents, which is chance: 0.5 where clips go either way alike,
    another where the contents decide and are few. moving: the share of these clips that travel a quarter of the frame;
    without it a consistency means little. content_distance: between the mean colours (0..255) of one content in two
    motions; content_distance_random: of two contents in one motion. accuracy: share of clips that go along the axis of
    their category, after the best assignment of categories to axes. label_real: share of real clips that go along the
    axis that their label says (0 vertical, 1 sideways), where there are labels.
    """

    headline = "motion_consistency"
    numbers = {
        "motion_consistency": higher(0, 1, what="one motion, two contents: the same axis"),
        "motion_consistency_random": neither(0, 1, what="two motions, two contents: the same axis by chance"),
        "moving": higher(0, 1, what="clips whose shape travels a quarter of the frame"),
        "content_distance": lower(0, unit="of 255", what="colours of one content in two motions"),
        "content_distance_random": neither(0, unit="of 255", what="of two contents in one motion"),
        "accuracy": higher(0, 1, chance=0.5, what="axis of a category"),
        "label_real": neither(0, 1, what="real clips that go along the axis of their label"),
    }
    needs_model = True
    needs_codes = False

    @torch.no_grad()
    def compute(self, table: CodeTable, seed: int) -> Mapping[str, Any]:
        model, dataset = opened(table)
        c, draw = self.config, seeded(seed, dataset.device)
        content_and_motion(model)
        demand_shapes(dataset)
        result: dict[str, Any] = {}
        if len(dataset.spec.classes) == 2:
            right = [axes(look(x)) == y for x, y in real_clips(dataset, c.clips, draw) if y is not None]
            result["label_real"] = float(torch.cat(right).double().mean())
        code = crossed(model, model.prior(c.motions, draw), model.prior(c.contents, draw))
        shapes = look_at(decoded(model, code))
        way = axes(shapes).view(c.motions, c.contents)
        result["motion_consistency"], result["motion_consistency_random"] = agreement(way), chance_agreement(way)
        result["chance"] = {"motion_consistency": result["motion_consistency_random"]}
        result["moving"] = float(moves(shapes, dataset.spec.shape[-1]).double().mean())
        colours = clip_colours(shapes).view(c.motions, c.contents, 3)
        result["content_distance"] = mean_gap(colours.transpose(0, 1))
        result["content_distance_random"] = mean_gap(colours)
        reasons = {name: "no made clip shows a shape" for name, value in result.items() if value != value}
        category = next((group for group in model.latents if group.kind == "categorical"), None)
        if category is None:
            return {
                **result,
                "accuracy": float("nan"),
                "reasons": {"accuracy": "the model has no categories", **reasons},
            }
        code = model.prior(c.clips, draw)
        axis = axes(look_at(decoded(model, code)))
        return {**result, "accuracy": best_accuracy(code[category.name].argmax(1), axis), "reasons": reasons}


def agreement(axis: Tensor) -> float:
    """Axes int64 `[motions, contents]`, -1 for none -> share of pairs of contents of one motion with the same axis."""
    contents = axis.shape[1]
    same = (axis.unsqueeze(2) == axis.unsqueeze(1)) & (axis >= 0).unsqueeze(2)
    pairs = same.triu(1).double().sum((1, 2)) / (contents * (contents - 1) / 2)
    return float(pairs.mean())


def chance_agreement(axis: Tensor) -> float:
    """The same of pairs of two contents in two motions: how often they share an axis where motions say nothing."""
    motions, contents = axis.shape
    same = 0.0
    for k in (0, 1):
        on = (axis == k).double()
        # All pairs, less those of one motion and those of one content, each of which holds every clip with itself.
        same += float(on.sum() ** 2 - (on.sum(1) ** 2).sum() - (on.sum(0) ** 2).sum() + on.sum())
    return same / (motions * (motions - 1) * contents * (contents - 1))


def mean_gap(colours: Tensor) -> float:
    """Mean distance between two members of one row, `[rows, members, 3]`; members without a colour are left out."""
    gaps = (colours.unsqueeze(2) - colours.unsqueeze(1)).norm(dim=3)
    upper = torch.ones_like(gaps, dtype=torch.bool).triu(1) & gaps.isfinite()
    return float(gaps[upper].mean())


def best_accuracy(category: Tensor, axis: Tensor) -> float:
    """Share of `[n]` clips whose axis (-1: none) is that of their category, each axis given to one category."""
    from scipy.optimize import linear_sum_assignment

    table = torch.zeros(int(category.max()) + 1, 2, dtype=torch.double)
    for k in range(2):
        table[:, k] = category[axis == k].bincount(minlength=len(table)).cpu()
    rows, columns = linear_sum_assignment(-table.numpy())
    return float(table[rows, columns].sum()) / len(category)
