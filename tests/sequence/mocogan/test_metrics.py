"""acd and motion-class against computations by hand, on clips whose answer is known."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import distk
from distk import (
    Code,
    CodeTable,
    Dataset,
    DataSpec,
    Latent,
    LatentSpace,
    Method,
    UsageError,
    evaluate,
    images,
    open_dataset,
)
from distk.config import NoConfig
from distk.latents import one_hot
from distk.plugins.sequence.mocogan import metrics, shapes
from distk.plugins.sequence.mocogan.metrics import (
    ContentDistance,
    DistanceConfig,
    MotionClass,
    MotionConfig,
    agreement,
    chance_agreement,
)


def squares(colours: Tensor, corners: Tensor, side: int = 64, size: int = 8) -> Tensor:
    """Clips of a square: colours `[n, t, 3]` in 0..255, corners int64 `[n, t, 2]` (x, y) -> `[n, t, 3, side, side]`."""
    grid = torch.arange(side)
    inside = [(grid >= corners[:, :, i, None]) & (grid < corners[:, :, i, None] + size) for i in (0, 1)]
    mask = inside[0].unsqueeze(2) & inside[1].unsqueeze(3)
    return mask.unsqueeze(2) * colours[..., None, None]


class Known(Method):
    """Draws squares: content is their colour, motion their way, by a rule that a test sets.

    mixes: the content also turns the axis. still: nothing moves. fades: the colour changes from frame to frame.
    """

    kinds = ("video",)
    any_length = True

    def __init__(self, categories: int = 0, mixes: bool = False, still: bool = False, fades: float = 0.0) -> None:
        super().__init__(NoConfig(), DataSpec("video", (16, 3, 64, 64)))
        self.mixes, self.still, self.fades = mixes, still, fades
        groups = [Latent("content", "continuous", 3, encoded=False)]
        groups += [Latent("category", "categorical", categories, encoded=False)] if categories else []
        self.latents = LatentSpace.of(*groups, Latent("motion", "continuous", 2, steps=16, encoded=False))
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def prior(self, n: int, generator: torch.Generator, frames: int | None = None) -> Code:
        k = frames or 16
        axis = torch.randint(2, (n,), generator=generator)
        code = {"content": torch.rand(n, 3, generator=generator) * 2 - 1}
        if "category" in [g.name for g in self.latents]:
            classes = self.latents["category"].size
            category = torch.randint(classes, (n,), generator=generator)
            code["category"], axis = one_hot(category, classes), 1 - category % 2
        way = torch.linspace(-1, 1, k).expand(n, k)
        rest = torch.zeros(n, k)
        code["motion"] = torch.where(axis[:, None, None] == 1, torch.stack([way, rest], 2), torch.stack([rest, way], 2))
        return code

    def decode(self, code: Code) -> Tensor:
        motion = torch.zeros_like(code["motion"]) if self.still else code["motion"]
        turned = (code["content"][:, 0] > 0)[:, None, None] & torch.tensor(self.mixes)
        motion = torch.where(turned, motion.flip(2), motion)
        corners = (28 + 20 * motion).round().long()
        colour = (160 + 90 * code["content"]).unsqueeze(1).expand(-1, motion.shape[1], -1).clone()
        colour[:, 1::2, 0] += self.fades
        return squares(colour, corners) / 255


def table_of(model: Method, data: Dataset) -> CodeTable:
    return CodeTable(torch.zeros(0, 0), [], [], model=model, dataset=data)


@pytest.fixture(scope="module")
def data() -> Dataset:
    return open_dataset("shape-motion", {"clips": 10, "test_clips": 24})


def acd(model: Method, data: Dataset, seed: int = 0, **values: Any) -> dict[str, Any]:
    return dict(ContentDistance(DistanceConfig(clips=24, **values)).compute(table_of(model, data), seed))


# Functions


def test_content_distance_of_two_colours_is_the_papers_mean_over_pairs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.uniform(0, 255, (2, 3))
    features = torch.tensor(np.stack([a] * 8 + [b] * 8))[None]
    seen = torch.ones(1, 16, dtype=torch.bool)
    assert float(shapes.content_distance(features, seen)) == pytest.approx(64 / 120 * np.linalg.norm(a - b))


def test_content_distance_leaves_empty_frames_out(seed: int) -> None:
    rng = np.random.default_rng(seed)
    features, seen = rng.normal(size=(9, 7, 4)), rng.random((9, 7)) < 0.6
    seen[0], seen[1] = False, [True, *[False] * 6]
    made = shapes.content_distance(torch.tensor(features), torch.tensor(seen))
    assert bool(made[:2].isnan().all())
    for i in range(2, 9):
        pairs = [
            np.linalg.norm(features[i, j] - features[i, k])
            for j, k in itertools.combinations(range(7), 2)
            if seen[i, j] and seen[i, k]
        ]
        expected = np.mean(pairs) if pairs else math.nan
        assert float(made[i]) == pytest.approx(expected, nan_ok=True)


def test_shapes_are_seen_where_they_are(seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    colours = torch.randint(0, 256, (6, 5, 3), generator=draw).float()
    colours[:, :, 0] = 120.0
    corners = torch.randint(0, 50, (6, 5, 2), generator=draw)
    clips = squares(colours, corners)
    clips[2, 3] = 0
    clips[4, 1] = clips[4, 1].clamp_max(15)
    found = shapes.look(clips)
    empty = torch.zeros(6, 5, dtype=torch.bool)
    empty[2, 3] = empty[4, 1] = True
    assert torch.equal(found.seen, ~empty)
    assert bool((found.area[~empty] == 64).all())
    assert torch.allclose(found.colour[~empty].float(), colours[~empty])
    assert torch.allclose(found.centre[~empty], corners[~empty].double() + 3.5)
    noisy = clips + torch.rand(clips.shape, generator=draw) * 0.4 * clips.amax((2, 3, 4), keepdim=True)
    assert torch.equal(shapes.look(noisy.clamp_max(255)).area[~empty].long() >= 64, torch.ones(28, dtype=torch.bool))


def test_ways_steps_and_axes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    corners = torch.from_numpy(rng.integers(0, 50, (40, 6, 2)))
    corners[0, -1] = corners[0, 0]
    found = shapes.look(squares(torch.full((40, 6, 3), 200.0), corners))
    way = (corners[:, -1] - corners[:, 0]).numpy()
    for i in range(40):
        x, y = abs(way[i])
        assert bool(shapes.moves(found, 64)[i]) == (max(x, y) >= 16)
        assert int(shapes.axes(found)[i]) == (-1 if x == y else int(x > y))
    steps = np.linalg.norm((corners[:, 1:] - corners[:, :-1]).numpy(), axis=2)
    assert np.allclose(shapes.steps_of(found).numpy(), steps.ravel())
    assert bool((shapes.axes(found)[:1] == -1).all())


def test_agreement_gap_and_accuracy_by_counting(seed: int) -> None:
    rng = np.random.default_rng(seed)
    axis = rng.integers(-1, 2, (5, 6))
    same = [a == b and a >= 0 for row in axis for a, b in itertools.combinations(row, 2)]
    assert metrics.agreement(torch.tensor(axis)) == pytest.approx(np.mean(same))
    colours = rng.uniform(0, 255, (4, 5, 3))
    colours[1, 2] = np.nan
    gaps = [np.linalg.norm(a - b) for row in colours for a, b in itertools.combinations(row, 2)]
    assert metrics.mean_gap(torch.tensor(colours)) == pytest.approx(np.nanmean(gaps))
    category, axis = rng.integers(0, 3, 50), rng.integers(-1, 2, 50)
    best = max(
        np.mean([pair.get(int(c), -9) == a for c, a in zip(category, axis, strict=True)])
        for pair in ({i: 0, j: 1} for i, j in itertools.permutations(range(3), 2))
    )
    assert metrics.best_accuracy(torch.tensor(category), torch.tensor(axis)) == pytest.approx(best)


# The scores


def test_real_shapes_are_perfectly_constant_and_move(data: Dataset) -> None:
    found = acd(Known(), data)
    assert found["acd_real"] == 0
    assert found["moving_real"] == 1
    assert 0.5 < found["medstep_real"] / 3.8 < 2
    assert found["colour_spread_real"] == pytest.approx(74, abs=20)


def test_a_faithful_model_and_what_each_figure_catches(data: Dataset) -> None:
    good = acd(Known(), data)
    assert good["acd"] == 0
    assert good["acd_unit"] == 0
    assert good["moving"] == 1
    assert good["empty_frames"] == good["lost_clips"] == 0
    assert good["area_distance"] > 0
    assert 20 < good["colour_spread"] < 90
    # A clip that stands still has the better distance; only `moving` and `medstep` see it.
    still = acd(Known(still=True, fades=0.0), data)
    assert (still["acd"], still["moving"], still["medstep"]) == (0, 0, 0)
    fading = acd(Known(fades=5.0), data)
    assert fading["acd"] == pytest.approx(5 * 64 / 120, abs=0.01)  # 8 frames of either colour
    assert fading["acd_unit"] == pytest.approx(fading["acd"] / 255)
    redrawn = acd(Known(), data, redraw=True)
    assert redrawn["acd"] > 60
    assert redrawn["moving"] == 1


def test_length_of_the_made_clips_can_be_chosen(data: Dataset) -> None:
    drawn = []
    model = Known(fades=5.0)
    decode = model.decode
    model.decode = lambda code: drawn.append(code["motion"].shape[1]) or decode(code)  # type: ignore[method-assign, func-returns-value]
    longer = acd(model, data, frames=64)
    assert set(drawn) == {64}
    assert longer["acd"] == pytest.approx(5 * 32 * 32 / (64 * 63 / 2), abs=0.01)
    model.any_length = False
    with pytest.raises(UsageError, match="as long as those of training"):
        acd(model, data, frames=64)


def test_black_clips_are_counted_and_not_scored(data: Dataset) -> None:
    model = Known()
    model.decode = lambda code: torch.zeros(len(code["motion"]), 16, 3, 64, 64)  # type: ignore[method-assign]
    found = acd(model, data)
    assert math.isnan(found["acd"])
    assert (found["empty_frames"], found["lost_clips"], found["moving"]) == (1, 1, 0)
    assert "no made clip" in found["reasons"]["acd"]


def test_motion_class_tells_a_model_that_separates_from_one_that_mixes(data: Dataset) -> None:
    config = MotionConfig(clips=24, motions=4, contents=6)
    good = MotionClass(config).compute(table_of(Known(2), data), 0)
    assert good["motion_consistency"] == good["moving"] == good["accuracy"] == good["label_real"] == 1
    assert good["content_distance"] == 0
    assert good["content_distance_random"] > 60
    mixing = MotionClass(config).compute(table_of(Known(2, mixes=True), data), 0)
    assert mixing["motion_consistency"] < 0.75
    assert mixing["motion_consistency"] == pytest.approx(mixing["motion_consistency_random"], abs=0.25)
    assert good["motion_consistency_random"] < 1
    assert mixing["accuracy"] < 0.75
    still = MotionClass(config).compute(table_of(Known(2, still=True), data), 0)
    assert (still["motion_consistency"], still["accuracy"], still["moving"]) == (0, 0, 0)
    plain = MotionClass(config).compute(table_of(Known(), data), 0)
    assert math.isnan(plain["accuracy"])
    assert plain["reasons"]["accuracy"] == "the model has no categories"
    assert plain["motion_consistency"] == 1


def test_chance_is_what_two_motions_with_two_contents_share(generator: torch.Generator) -> None:
    axis = torch.randint(-1, 2, (5, 7), generator=generator)
    same = [
        axis[i, a] == axis[j, b] >= 0
        for i, j in itertools.permutations(range(5), 2)
        for a, b in itertools.permutations(range(7), 2)
    ]
    assert chance_agreement(axis) == pytest.approx(sum(map(bool, same)) / len(same), abs=1e-12)
    # Where the contents decide, a motion "keeps" its axis exactly as often as chance has it.
    decided = torch.tensor([0, 1, 1, 1, 1, 0, 1]).expand(5, 7)
    assert agreement(decided) == pytest.approx(chance_agreement(decided)) == pytest.approx(11 / 21)


def test_data_without_shapes_and_models_without_clips_are_refused(data: Dataset) -> None:
    sprites = open_dataset("sprites-sim", {"size": 64})
    with pytest.raises(UsageError, match="embedder=CHECKPOINT"):
        acd(Known(), sprites)
    with pytest.raises(UsageError, match="rather than a file of codes"):
        ContentDistance(DistanceConfig()).compute(CodeTable(torch.zeros(3, 1), ["z1"], ["continuous"]), 0)
    model = Known()
    model.latents = LatentSpace.of(Latent("z", "continuous", 3))
    with pytest.raises(UsageError, match="content code per clip and a motion code per frame"):
        MotionClass(MotionConfig()).compute(table_of(model, data), 0)


def test_frames_can_be_compared_by_the_codes_of_a_trained_model(tmp_path, data: Dataset, seed: int) -> None:
    (tmp_path / "frames").mkdir()
    for i, frame in enumerate(data.batch(torch.arange(6))["x"][:, 0]):
        images.save_png(tmp_path / "frames" / f"{i}.png", frame)
    run = distk.train(
        "betavae", data="folder", data_dir=str(tmp_path / "frames"), data_size=64, data_channels=3, steps=0, batch=2,
        device="cpu", quiet=True, out=tmp_path / "run", likelihood="gaussian",
    )  # fmt: skip
    path = str(run.path / "checkpoint.safetensors")
    draw = torch.Generator().manual_seed(seed)
    clips = (torch.rand(3, 5, 3, 64, 64, generator=draw) * 255).round()
    model = distk.load(path)
    with torch.no_grad():
        z = torch.stack([model.encode(clip / 255)["z"] for clip in clips]).double()
    pairs = list(itertools.combinations(range(5), 2))
    expected = np.mean([[float((c[i] - c[j]).norm()) for i, j in pairs] for c in z])
    assert metrics.distance_of(metrics.embedder(path, data), clips.split(2)) == pytest.approx(expected, rel=1e-4)
    found = acd(Known(), data, embedder=path)
    assert set(found) == {"acd", "acd_real"}
    with pytest.raises(UsageError, match=r"does not encode the frames \[3, 16, 16\]"):
        metrics.embedder(path, open_dataset("shape-motion", {"size": 16, "clips": 2, "test_clips": 2}))


def test_both_scores_go_through_evaluate_and_repeat(tmp_path) -> None:
    small = {"dim_content": 4, "ngf": 4, "ndf": 4, "halvings": 2, "categories": 2}
    run = distk.train(
        "mocogan", data_size=16, data_clips=20, data_test_clips=12, steps=1, batch=4, device="cpu", quiet=True,
        out=tmp_path / "run", **small,
    )  # fmt: skip
    model = distk.load(run.path / "checkpoint.safetensors")
    options = {"clips": 12, "motions": 3, "contents": 3}
    one, two = (evaluate(model, ["acd", "motion-class"], **options)["metrics"] for _ in range(2))
    assert one["acd"]["acd"] == pytest.approx(two["acd"]["acd"], nan_ok=True)
    assert one["motion-class"]["label_real"] == 1
    assert one["acd"]["acd_real"] > 1  # averaging to 16x16 mixes edges with black
    refined = evaluate(model, ["acd"], clips=12, threshold=0.9)["metrics"]["acd"]
    assert refined["acd_real"] < one["acd"]["acd_real"]


def test_scores_during_training_are_those_of_the_saved_model_and_teach_it_nothing(data: Dataset, seed: int) -> None:
    torch.manual_seed(seed)
    entry = distk.registry.registry().find("method", "mocogan").load()
    model = entry(entry.Config(halvings=2, ngf=2, ndf=2, image_disc="image"), data.spec)
    saved = {name: value.clone() for name, value in model.state_dict().items()}
    found = {}
    for training in (True, False):
        model.train(training)
        found[training] = evaluate(model, ["acd"], data=data, seed=seed, repeats=1, clips=4)["metrics"]["acd"]["acd"]
        assert model.training == training
        assert all(torch.equal(value, saved[name]) for name, value in model.state_dict().items())
    assert found[True] == found[False] or math.isnan(found[True])


def test_real_clips_are_those_of_the_test(seed: int) -> None:
    from distk.plugins.sequence.mocogan.metrics import real_clips

    data = open_dataset("shape-motion", {"size": 16, "clips": 60})
    seen: list[torch.Tensor] = []
    read = data.batch
    data.batch = lambda rows: seen.append(rows) or read(rows)  # type: ignore[method-assign, func-returns-value]
    list(real_clips(data, 5, torch.Generator().manual_seed(seed)))
    assert bool(torch.isin(torch.cat(seen), data.rows_of("test")).all())
