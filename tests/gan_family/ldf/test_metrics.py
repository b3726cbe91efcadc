"""Scores of generated images and clips, the judge, the memory of a step, the race, against independent computations."""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor, nn

from distk import DataSpec, DistkError, Latent, LatentSpace, Method, NoConfig, UsageError
from distk.data import Dataset, open_dataset
from distk.metric import CodeTable
from distk.plugins.gan_family.ldf import judge as judges
from distk.plugins.gan_family.ldf import metrics as scores
from distk.plugins.gan_family.ldf import race as races
from distk.plugins.gan_family.ldf.figures import CURVES, curves_figure
from distk.plugins.gan_family.ldf.judge import (
    FILE,
    Judge,
    JudgeInfo,
    _temperature,
    judge_for,
    train_judge,
)
from distk.plugins.gan_family.ldf.maze import HEIGHT, SIDE, WIDTH, Painter, play
from distk.plugins.gan_family.ldf.memory import tallied, usage
from distk.plugins.gan_family.ldf.metrics import ClassifierScore, Frechet, frechet, score_of, scores_of
from distk.plugins.gan_family.ldf.race import Clock, Point, seconds_of
from distk.plugins.gan_family.ldf.shared import Shared
from distk.plugins.gan_family.ldf.study import ends, keep, time_of
from distk.plugins.gan_family.ldf.validity import VideoValidity, acting, background, nearest, pacman_at, walks
from distk.study import engine
from distk.study.plan import plan
from distk.study.tables import as_figure

CPU = torch.device("cpu")


# Formulas


def test_the_classifier_score(generator: torch.Generator) -> None:
    assert score_of(torch.eye(10, dtype=torch.float64).repeat(7, 1)) == pytest.approx(10, rel=1e-12)
    assert score_of(torch.full((50, 10), 0.1)) == pytest.approx(1, rel=1e-12)
    constant = torch.rand(10, generator=generator, dtype=torch.float64)
    assert score_of((constant / constant.sum()).expand(20, -1)) == pytest.approx(1, rel=1e-12)
    p = torch.rand(30, 4, generator=generator, dtype=torch.float64).softmax(1)
    marginal = [sum(float(p[i, c]) for i in range(30)) / 30 for c in range(4)]
    total = sum(float(p[i, c]) * math.log(float(p[i, c]) / marginal[c]) for i in range(30) for c in range(4))
    assert score_of(p) == pytest.approx(math.exp(total / 30), rel=1e-10)


def test_the_score_over_parts(generator: torch.Generator) -> None:
    p = torch.rand(50, 4, generator=generator, dtype=torch.float64).softmax(1)
    each = [score_of(p[i : i + 10]) for i in range(0, 50, 10)]
    mean, deviation = scores_of(p, 5)
    assert mean == pytest.approx(np.mean(each))
    assert deviation == pytest.approx(np.std(each))


def test_the_frechet_distance_against_scipy(seed: int) -> None:
    draw = np.random.default_rng(seed)
    a, b = draw.normal(size=(60, 5)) @ draw.normal(size=(5, 5)), draw.normal(size=(80, 5)) * 2 + 1
    cov_a, cov_b = np.cov(a.T), np.cov(b.T)
    root = scipy.linalg.sqrtm(cov_a @ cov_b).real
    expected = np.sum((a.mean(0) - b.mean(0)) ** 2) + np.trace(cov_a + cov_b - 2 * root)
    assert frechet(torch.tensor(a), torch.tensor(b)) == pytest.approx(expected, rel=1e-6)
    assert frechet(torch.tensor(a), torch.tensor(a)) == pytest.approx(0, abs=1e-7)
    # Fewer rows than features: the covariance has no full rank.
    flat = torch.tensor(draw.normal(size=(4, 6)))
    assert frechet(flat, flat + 3) == pytest.approx(54, rel=1e-6)


# The judge


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return open_dataset("digits", {"size": 8})


@pytest.fixture(scope="module")
def judge(digits: Dataset) -> Judge:
    return train_judge(digits, 150, 6)


def test_a_judge_is_tested_on_a_part_of_many_images(digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judges, "TESTED", 50)
    seen: list[Tensor] = []
    held = type(digits).batch
    monkeypatch.setattr(type(digits), "batch", lambda self, rows: seen.append(rows) or held(self, rows))
    tested = train_judge(digits, 1, 2)
    test = set(digits.rows_of("test").tolist())
    read = [row for rows in seen for row in rows.tolist() if row in test]
    assert len(test) > 50 == len(read) == len(set(read)), "other rows, or rows twice"
    assert tested.info.accuracy * 50 == pytest.approx(round(tested.info.accuracy * 50), abs=1e-4)


def test_a_judge_learns_and_is_kept(digits: Dataset, judge: Judge, tmp_path: Path) -> None:
    assert judge.info.accuracy > 0.5
    rows = digits.rows_of("test")
    item = digits.batch(rows)
    p, features = judge.seen(item["x"])
    assert p.shape == (len(rows), 10)
    assert features.shape == (len(rows), 24)
    right = float((p.argmax(1) == item["label"]).double().mean())
    assert right == pytest.approx(judge.info.accuracy, abs=1e-6)
    with torch.no_grad():
        expected = (judge.eval()(item["x"]) / judge.temperature).double().softmax(1)
    assert torch.allclose(p, expected, atol=1e-6)
    FILE.save(judge, tmp_path / "j.safetensors")
    again = FILE.load(tmp_path / "j.safetensors", CPU)
    assert again.info == judge.info
    assert again.fingerprint == judge.fingerprint
    assert torch.equal(again.seen(item["x"])[0], p)
    with torch.no_grad():
        again.head.bias[0] += 1e-6
    assert again.fingerprint != judge.fingerprint


def test_the_same_settings_give_the_same_judge(digits: Dataset, judge: Judge) -> None:
    assert train_judge(digits, 150, 6).fingerprint == judge.fingerprint
    assert train_judge(digits, 30, 4, seed=1).fingerprint != judge.fingerprint


def test_a_judge_that_is_trained_says_so_first(digits: Dataset, capsys: pytest.CaptureFixture[str]) -> None:
    made = judge_for(digits, "", 2, 4)
    told = " ".join(capsys.readouterr().err.split())
    assert "training a judge on 'digits': 2 steps; `--set judge_steps=N` trains less" in told
    assert "`distk ldf judge --data digits --out FILE` keeps one for judge=FILE" in told
    assert judge_for(digits, "", 2, 4) is made
    assert "training" not in capsys.readouterr().err


def test_the_temperature_calibrates(generator: torch.Generator) -> None:
    """Labels drawn from softmax(logits / 2): two is what the fit has to find."""
    logits = 4 * torch.randn(20_000, 5, generator=generator)
    label = torch.multinomial((logits / 2).softmax(1), 1, generator=generator)[:, 0]
    assert float(_temperature(logits, label)) == pytest.approx(2, rel=0.08)


def test_judges_that_do_not_fit(digits: Dataset, judge: Judge, tmp_path: Path) -> None:
    path = tmp_path / "j.safetensors"
    with pytest.raises(UsageError, match="does not exist"):
        judge_for(digits, str(path), 1, 4)
    path.write_bytes(b"nothing")
    with pytest.raises(DistkError, match="not a safetensors file"):
        FILE.load(path, CPU)
    FILE.save(Judge(JudgeInfo((1, 28, 28), 10, 4, 1, "mnist")), path)
    with pytest.raises(UsageError, match=r"names 10 classes of images \(1, 28, 28\)"):
        judge_for(digits, str(path), 1, 4)
    with pytest.raises(UsageError, match="labels of several classes"):
        train_judge(open_dataset("pacman", {"clips": 4, "held_out": 2}), 1, 4)
    with pytest.raises(UsageError, match="labels of several classes"):
        train_judge(open_dataset("deadleaves"), 1, 4)


class Replay(Method[NoConfig]):
    """Draws given items, over and over."""

    latents = LatentSpace.of(Latent("z", "continuous", 1))

    def __init__(self, spec: DataSpec, items: Tensor) -> None:
        super().__init__(NoConfig(), spec)
        self.items, self.weight = items, nn.Parameter(torch.zeros(1))

    def sample(self, n: int, generator: torch.Generator, **given: int) -> Tensor:
        return self.items[torch.randint(len(self.items), (n,), generator=generator)]


def scored(metric: type, model: Method, data: Dataset, **settings: Any) -> dict[str, Any]:
    table = CodeTable(torch.zeros(0, 1), ["z1"], ["continuous"], model=model, dataset=data)
    return dict(metric(metric.Config(**settings)).compute(table, 3))


def test_scores_tell_real_images_from_one_image_and_from_noise(digits: Dataset, judge: Judge, tmp_path: Path) -> None:
    path = tmp_path / "j.safetensors"
    FILE.save(judge, path)
    given: dict[str, Any] = {"judge": str(path), "samples": 300, "parts": 3}
    train = digits.batch(digits.rows_of("train"))["x"]
    real, one = (Replay(digits.spec, items) for items in (train, train[:1]))
    good, bad = (scored(ClassifierScore, model, digits, **given) for model in (real, one))
    assert bad["score"] == pytest.approx(1, abs=1e-6)
    assert bad["score_sd"] == pytest.approx(0, abs=1e-6)
    assert good["score"] == pytest.approx(good["real"], rel=0.25)
    assert good["real"] == bad["real"] > 1.2
    assert good["judge"] == judge.fingerprint
    assert good["classifier_accuracy"] == judge.info.accuracy
    near, far = (scored(Frechet, model, digits, **given) for model in (real, one))
    assert near["distance"] < 0.2 * far["distance"]
    assert near["halves"] < 0.2 * far["distance"]
    with pytest.raises(UsageError, match="too few for 24 features"):
        scored(Frechet, real, digits, **{**given, "samples": 24, "parts": 1})
    with pytest.raises(UsageError, match="too few for 200 parts"):
        scored(ClassifierScore, real, digits, **{**given, "parts": 200})


def test_real_images_beside_a_score_are_a_part_of_many(
    digits: Dataset, judge: Judge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FILE.save(judge, tmp_path / "j.safetensors")
    given = {"judge": str(tmp_path / "j.safetensors"), "samples": 300}
    monkeypatch.setattr(scores, "TESTED", 70)
    seen: list[int] = []
    read = scores.judged_items

    def watched(*asked: Any) -> tuple[Tensor, Tensor]:
        seen.append(len((found := read(*asked))[0]))
        return found

    monkeypatch.setattr(scores, "judged_items", watched)
    model = Replay(digits.spec, digits.batch(digits.rows_of("train"))["x"])
    for metric in (ClassifierScore, Frechet):
        scored(metric, model, digits, **given)
    assert seen == [70, 70]


# Clips


def clip_with(path: list[tuple[int, int]], ground: float = 0.2) -> Tensor:
    """A clip of plain grey in which pacman's disc has its centre at these corners (y, x) of pixels."""
    made = torch.full((1, len(path), 3, SIDE, SIDE), ground)
    at = torch.arange(SIDE) + 0.5
    for t, (y, x) in enumerate(path):
        disc = ((at[:, None] - y) ** 2 + (at - x) ** 2).sqrt() <= 3.5
        made[0, t, :, disc] = (torch.tensor([210, 164, 74]) / 255)[:, None]
    return made


def test_pacman_is_found_where_he_is(generator: torch.Generator) -> None:
    scenes = play(500, generator)
    corner = torch.stack([torch.randint(0, n - SIDE, (500,), generator=generator) for n in (HEIGHT, WIDTH)], 1)
    near = scenes.position[:, 2, 0].long() - SIDE // 2 + torch.randint(-10, 11, (500, 2), generator=generator)
    corner = near.clamp_min(0).minimum(torch.tensor([HEIGHT - SIDE, WIDTH - SIDE]))
    clips = Painter(CPU).paint(scenes, corner)
    centre, seen = pacman_at(clips)
    truth = scenes.position[:, :, 0] - corner[:, None]
    inside = ((truth >= 5) & (truth <= 26)).all(2)
    assert int(inside.sum()) > 500
    assert bool(seen[inside].all())
    assert torch.equal(centre[inside].float(), truth[inside])
    shown, right = walks(clips)
    assert int(shown.sum()) > 100
    assert torch.equal(shown, right)
    hidden = clips.clone()
    hidden[:, :, :, :, :] = clips[:, :1].mean((3, 4), keepdim=True)
    assert not bool(walks(hidden)[0].any())


@pytest.mark.parametrize(
    ("path", "right"),
    [
        ([(16, 12 + t) for t in range(5)], True),
        ([(16, 14)] * 5, True),
        ([(16, 14), (16, 15), (16, 16), (17, 16), (18, 16)], True),
        ([(16, 10 + 2 * t) for t in range(5)], False),
        ([(14 + t, 14 + t) for t in range(5)], False),
        ([(16, 12), (16, 13), (16, 14), (9, 20), (16, 16)], False),
    ],
)
def test_walking_is_a_pixel_along_an_axis(path: list[tuple[int, int]], right: bool) -> None:
    shown, found = walks(clip_with(path))
    assert bool(shown)
    assert bool(found) == right


def test_a_pacman_who_disappears_does_not_walk() -> None:
    clip = clip_with([(16, 14)] * 5)
    clip[0, 4] = 0.2
    shown, found = walks(clip)
    assert bool(shown)
    assert not bool(found)
    assert not bool(walks(clip_with([(16, 3)] * 5))[0]), "he is cut off, so nothing can be said"


def test_the_ground_stays(generator: torch.Generator) -> None:
    walking = clip_with([(16, 12 + t) for t in range(5)])
    assert bool(background(walking))
    assert bool(acting(walking)[0, 16, 12])
    assert not bool(acting(walking)[0, 2, 2])
    turns = torch.tensor([1, -1, 1, -1, 1.0]).view(1, 5, 1, 1, 1)
    flicker = walking + 0.05 * turns
    assert not bool(background(flicker))
    assert bool(background(walking + 0.01 * turns)), "a deviation of 0.01 is below 4/255"
    jumping = torch.rand(1, 5, 3, SIDE, SIDE, generator=generator)
    assert not bool(background(jumping)), "a ground that changes altogether is no crowd of actors"


def test_distances_to_the_nearest(generator: torch.Generator) -> None:
    a, b = torch.rand(7, 2, 3, generator=generator), torch.rand(5, 2, 3, generator=generator)
    brute = [min(float((x - y).square().mean().sqrt()) for y in b) for x in a]
    assert nearest(a, b).tolist() == pytest.approx(brute, rel=1e-6)


def test_validity_of_real_clips_still_ones_and_copies() -> None:
    data = open_dataset("pacman", {"clips": 120, "held_out": 120})
    train, test = (data.batch(data.rows_of(split))["x"] for split in ("train", "test"))
    given = {"clips": 120, "known": 60}
    real = scored(VideoValidity, Replay(data.spec, test), data, **given)
    assert real["background"] > 0.97
    assert real["motion"] == real["real_motion"] == 1.0
    assert real["real_background"] > 0.97
    assert 0.05 < real["pacman"] < 0.4
    assert real["memorised"] == pytest.approx(1, abs=0.1)
    copies = scored(VideoValidity, Replay(data.spec, train[:60]), data, **given)
    assert copies["memorised"] == pytest.approx(0, abs=1e-5)
    mixed = torch.cat([test[:, :2], test.roll(1, 0)[:, 2:]], 1)  # the ground changes in the middle
    bad = scored(VideoValidity, Replay(data.spec, mixed), data, **given)
    assert bad["background"] < 0.3
    grey = scored(VideoValidity, Replay(data.spec, torch.full_like(test[:2], 0.5)), data, **given)
    assert math.isnan(grey["motion"])
    assert grey["reasons"]["motion"]
    other = open_dataset("shapes32", {"images": 20, "held_out": 10})
    with pytest.raises(UsageError, match="not those of 'shapes32'"):
        scored(VideoValidity, Replay(data.spec, test), other, **given)


# Memory


def test_saved_bytes_of_a_known_network(generator: torch.Generator) -> None:
    """Linear, tanh, linear, squared mean: the input, tanh's output, which is the second layer's input, too, and what
    the square keeps; each once."""
    first, second = nn.Linear(6, 8, bias=False), nn.Linear(8, 3, bias=False)
    x = torch.randn(5, 6, generator=generator)
    with tallied([*first.parameters(), *second.parameters()]) as tally:
        loss = second(first(x).tanh()).square().mean()
    assert tally.bytes == 4 * (5 * 6 + 5 * 8 + 5 * 3)
    loss.backward()
    with tallied([]) as tally:
        second(first(x).tanh()).square().mean()
    assert tally.bytes == 4 * (5 * 6 + 5 * 8 + 5 * 3 + 8 * 3), "the first layer needs no gradient of x, so no weight"
    with tallied([]) as tally, torch.no_grad():
        first(x)
    assert tally.bytes == 0


def test_memory_over_frames() -> None:
    """The paper's point: below it does not grow with the frames, above a little, with all pixels at once it does."""
    found = {t: usage(t, 16, 2, 6, Shared(width=0.1, top_hidden=16, z=8, z0=8), False, CPU) for t in (4, 8, 16, 32)}
    saved = {level: [found[t][level].saved for t in found] for level in ("joint", "bottom", "top")}
    assert max(saved["bottom"]) / min(saved["bottom"]) < 1.01
    for level in ("joint", "top"):
        a, b, c, d = saved[level]
        slope = (b - a) / 4
        assert slope > 0
        assert (c - b) / 8 == pytest.approx(slope, rel=0.1), f"{level} is not linear"
        assert (d - c) / 16 == pytest.approx(slope, rel=0.1)
    per_frame = {level: (saved[level][3] - saved[level][0]) / 28 for level in ("joint", "top")}
    assert per_frame["top"] < per_frame["joint"] / 20
    assert found[4]["bottom"].peak is None
    assert found[4]["joint"].parameters > 0


# The race


def test_times_as_people_write_them() -> None:
    assert [seconds_of(text) for text in ("", "90", "90s", "20m", "1.5h")] == [0, 90, 90, 1200, 5400]
    for text in ("soon", "-5", "0", "3 days"):
        with pytest.raises(UsageError, match="is not understood"):
            seconds_of(text)


def test_the_clock_counts_training_alone(monkeypatch: pytest.MonkeyPatch, digits: Dataset) -> None:
    now = [100.0]
    monkeypatch.setattr(races.time, "perf_counter", lambda: now[0])
    clock = Clock(digits)
    now[0] += 5
    clock.halt(False)
    assert (clock.total, clock.whole) == (5, -1)
    now[0] += 2
    clock.halt(True)
    assert (clock.total, clock.whole) == (7, 2)
    now[0] += 50  # scoring
    clock.go()
    now[0] += 1
    clock.halt(True)
    assert (clock.total, clock.whole) == (8, 3)


def test_scores_at_equal_time() -> None:
    """With the budget 10 the last point counts without pretraining; counting it, the last one that ended in time."""
    points = [Point(k, s, s + 6.0, {"a": float(k)}) for k, s in ((1, 2.0), (2, 4.0), (3, 10.0))]
    row = ends(points, 10)
    assert row["a"] == 3
    assert row["a, pretraining counted"] == 2
    assert (row["seconds"], row["seconds with pretraining"]) == (10, 16)
    late = ends([Point(1, 10.0, 30.0, {"a": 1.0})], 10)
    assert math.isnan(late["a, pretraining counted"])


def test_the_limit_is_the_time_of_another_variant(tmp_path: Path) -> None:
    """An upper level is far cheaper than the lower one: held to its own time, its pretraining could never count."""
    points = [Point(k, s, s + 60.0, {"a": float(k)}) for k, s in ((1, 1.0), (2, 2.0))]
    assert math.isnan(time_of(tmp_path, "joint", 0))
    keep(tmp_path, "joint", 0, [Point(1, 30.0, 30.0, {"a": 1.0}), Point(2, 61.0, 61.0, {"a": 1.0})])
    keep(tmp_path, "joint", 1, [Point(1, 30.0, 30.0, {"a": 1.0})])
    assert (time_of(tmp_path, "joint", 0), time_of(tmp_path, "joint", 1)) == (61.0, 30.0)
    assert ends(points, time_of(tmp_path, "joint", 0))["a, pretraining counted"] == 2.0
    assert math.isnan(ends(points, time_of(tmp_path, "joint", 1))["a, pretraining counted"])
    assert math.isnan(ends(points, time_of(tmp_path, "ldf", 0))["a, pretraining counted"])


def test_scores_of_two_judges_are_not_drawn_together() -> None:
    rows = [
        dict(zip(CURVES, (variant, 0, 1, 2.0, 3.0, "classifier-score.score", 4.0, judge), strict=True))
        for variant, judge in (("joint", "aaa"), ("scratch", "bbb"))
    ]
    with pytest.raises(UsageError, match=r"different judges \(aaa, bbb\)"):
        curves_figure(rows)
    assert as_figure(curves_figure(rows[:1]), ".png")[:4] == b"\x89PNG"


def test_a_race_on_the_command_line(distk_command: Any) -> None:
    tiny = "arch=auto top_hidden=8 width=0.05 bottom_steps=3 train.batch=20 data.images=40 data.held_out=20"
    sets = [word for value in tiny.split() for word in ("--set", value)]
    score = [w for v in ("judge_steps=2", "judge_width=4", "samples=40", "parts=2") for w in ("--option", v)]
    words = [
        "ldf",
        "race",
        "--data",
        "shapes32",
        "--epochs",
        "2",
        "--evals",
        "2",
        "--device",
        "cpu",
        "--out",
        "here",
        "--json",
    ]
    code, _, err = distk_command(*words, *sets, *score)
    assert code == 0, err
    rows = [line.split(",") for line in Path("here/curves.csv").read_text().splitlines()]
    assert tuple(rows[0]) == CURVES
    # Two passes over 40 images in batches of 20 are four steps; the lower level has three before them.
    assert [(row[0], row[2]) for row in rows[1:]] == [
        *(("pretrain", str(3 + k)) for k in (2, 4)),
        *(("scratch", str(k)) for k in (2, 4)),
        *(("joint", str(k)) for k in (2, 4)),
    ]
    for row in rows[1:]:
        assert (float(row[4]) > float(row[3])) == (row[0] == "pretrain")
    assert len({row[7] for row in rows[1:]}) == 1
    assert Path("here/curves.png").exists()
    code, _, err = distk_command("ldf", "race", "--variants", "solo", "--device", "cpu")
    assert (code, "none of pretrain, scratch, joint" in err) == (2, True)


def test_a_study_that_goes_on_keeps_its_judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second start would train another judge, whose scores no figure takes beside those of the first."""
    sets = ["data.images=40", "data.held_out=20", "train.batch=20", "train.steps=5", "model.width=0.05"]
    sets += ["model.top_hidden=8", "ldf.bottom_steps=3", "settings.budget=0", "settings.evals=1"]
    sets += ["settings.samples=40", "settings.judge_steps=2", "settings.judge_width=4"]

    def run(seeds: str) -> list[dict[str, Any]]:
        return engine.run(plan("ldf-race", seeds=seeds, sets=sets, out=tmp_path / "r", device="cpu"), quiet=True)

    assert len(run("1")) == 3
    judges._trained.clear()
    monkeypatch.setattr(judges, "train_judge", functools.partial(judges.train_judge, seed=9))
    assert len(run("2")) == 6
    held = [line.split(",") for line in (tmp_path / "r" / "curves.csv").read_text().splitlines()[1:]]
    assert len({row[0] for row in held}) == 3
    assert {row[1] for row in held} == {"0", "1"}
    assert len({row[-1] for row in held}) == 1
    judges._trained.clear()
