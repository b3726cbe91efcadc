"""`distk compare`: groups, settings that differ, figures with intervals, differences, curves."""

from __future__ import annotations

import json
import shutil
import statistics
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import distk
from distk.laboratory.compare import curves, joint
from distk.laboratory.records import read
from distk.laboratory.spread import RESAMPLES, band, difference, spread
from distk.study.claims import bootstrap


def test_runs_that_differ_in_their_seed_alone_are_one_group(folder: Path, score) -> None:
    made = distk.compare("runs")
    assert [[r.path.name for r in g.records] for g in made.groups] == [
        [f"{name}-{seed}" for seed in range(4)] for name in ("fast", "slow")
    ]
    assert made.settings == {"model.lr": [0.01, 0.001]}
    for i, name in enumerate(("fast", "slow")):
        values = [score(folder, f"{name}-{seed}")["cvr"] for seed in range(3)]
        told = made.scores["covstats.cvr"][i]
        assert told is not None
        assert (told.n, told.mean, told.sd) == (3, pytest.approx(statistics.fmean(values)), statistics.stdev(values))
        # Of three runs the interval reaches from the least mean of a resample to the largest.
        assert (told.low, told.high) == (pytest.approx(min(values)), pytest.approx(max(values)))


def test_of_two_groups_the_difference_is_paired_by_seed(folder: Path, score) -> None:
    made = distk.compare("runs/fast-0", "runs/fast-1", "runs/fast-2", "runs/slow-2", "runs/slow-1", "runs/slow-0")
    pairs = [score(folder, f"slow-{s}")["cvr"] - score(folder, f"fast-{s}")["cvr"] for s in range(3)]
    told = made.differences["covstats.cvr"]
    assert (told.how, told.n, told.mean) == ("paired", 3, pytest.approx(statistics.fmean(pairs)))
    assert (told.low, told.high) == (pytest.approx(min(pairs)), pytest.approx(max(pairs)))
    other = distk.compare("runs/fast-0", "runs/fast-1", "runs/fast-2", "runs/slow-1", "runs/slow-2").differences
    assert (other["covstats.cvr"].how, other["covstats.cvr"].low) == ("unpaired", None)


def test_settings_are_not_a_group_of_seeds(folder: Path) -> None:
    """A setting, the data's or the trainer's, parts runs as the method does; the seed and the device do not."""
    for name, old, new in (
        ("slow-1", b'\\"batch\\": 16', b'\\"batch\\": 17'),
        ("slow-2", b'\\"items\\": 64', b'\\"items\\": 65'),
        ("slow-3", b'\\"device\\": \\"cpu\\"', b'\\"device\\": \\"gpu\\"'),
    ):
        file = folder / name / "checkpoint.safetensors"
        assert old in file.read_bytes()
        file.write_bytes(file.read_bytes().replace(old, new))
    made = distk.compare(*(folder / f"slow-{i}" for i in range(4)))
    assert [[r.path.name for r in g.records] for g in made.groups] == [["slow-0", "slow-3"], ["slow-1"], ["slow-2"]]
    assert made.settings == {"data.items": [64, 64, 65], "train.batch": [16, 17, 16]}


def test_text_and_json(distk_command, folder: Path, score) -> None:
    code, out, errors = distk_command("compare", "runs", "--out", "curves.png")
    assert code == 0, errors
    for word in ("fast-0 and 3 more", "slow-0 and 3 more", "lr", "0.01", "covstats.cvr", "n = 3", "curves.png"):
        assert word in " ".join(out.split()), word
    assert "bootstrap interval" in " ".join(errors.split())
    assert "mapc" not in out
    with Image.open("curves.png") as picture:
        assert np.asarray(picture.convert("RGB")).std() > 5
    for words, start in ((("curves.pdf",), b"%PDF"), (("curves", "--format", "svg"), b"<?xml")):
        code, out, errors = distk_command("compare", "runs", "--json", "--out", *words)
        assert code == 0, errors
        assert Path(json.loads(out)["files"][0]).read_bytes().startswith(start)
    code, out, _ = distk_command("compare", "runs", "-m", "covstats")
    assert "covstats.mapc" in out
    assert "reconstruction" not in out
    code, out, _ = distk_command("compare", "runs", "--json")
    told = json.loads(out)
    assert told["scores"]["covstats.cvr"][0]["n"] == 3
    assert told["differences"]["covstats.cvr"]["how"] == "paired"
    assert [g["label"] for g in told["groups"]] == ["fast-0 and 3 more", "slow-0 and 3 more"]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["nowhere"], 1, "'nowhere' is not there"),
        (["runs/fast-0/log.jsonl"], 1, "holds no run"),
        (["runs", "-m", "covstat"], 2, "Did you mean 'covstats'?"),
        (["runs/fast-3", "-m", "mig"], 1, "Score them with `distk eval RUN --metric mig`"),
        (["runs", "--out", "curves.gif"], 2, "drawn as .png, .svg, .pdf"),
        (["runs", "--out", "curves.png", "--format", "pdf"], 2, "contradict each other"),
        (["runs", "--out", "no/curves.png"], 2, "'no' does not exist"),
    ],
)
def test_a_mistake_is_one_sentence(distk_command, folder: Path, arguments: list[str], code: int, words: str) -> None:
    told = distk_command("compare", *arguments)
    assert told[:2] == (code, "")
    assert words in " ".join(told[2].split())


def test_labels_of_a_study_are_its_variants(folder: Path) -> None:
    for name in ("fast", "slow"):
        for seed in range(2):
            place = folder / "study-x" / "runs" / f"a-{name}" / f"s{seed}"
            shutil.copytree(folder / f"{name}-{seed}", place)
    assert [g.label for g in distk.compare("runs/study-x").groups] == ["a-fast", "a-slow"]
    assert [g.label for g in distk.compare("runs/study-x/runs/a-fast/s0", "runs/slow-0").groups] == ["a-fast", "slow-0"]


def test_a_curve_is_the_log(folder: Path) -> None:
    rows = [json.loads(line) for line in (folder / "slow-0" / "log.jsonl").read_text().splitlines()]
    steps, values = curves(read(folder / "slow-0"))["mse"]
    assert steps.tolist() == [row["step"] for row in rows] == [5, 10, 15, 20, 25, 30]
    assert values.tolist() == [row["mse"] for row in rows]
    group = distk.compare("runs/slow-0", "runs/slow-1").groups[0]
    held = {r.path: curves(r) for r in group.records}
    held[Path("runs/slow-1")]["mse"] = (np.array([10.0, 20.0, 31.0]), np.array([1.0, 2.0, 3.0]))
    told = joint(group, "mse", held)
    assert told is not None
    assert told[0].tolist() == [10, 20]
    assert told[1].tolist() == [[rows[1]["mse"], rows[3]["mse"]], [1, 2]]


def test_a_band_is_the_interval_of_every_point(seed: int) -> None:
    """With fewer resamples than a figure has; the error of a bootstrap quantile is that of an order statistic."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(8, 3))
    mean, low, high = band(values)
    assert mean == pytest.approx(values.mean(0))
    for i in range(3):
        exact = bootstrap([values[:, i]], 200_000)
        from distk.study.claims import tail_of

        # 5 standard deviations of how many of the resamples lie below the quantile, turned into other quantiles.
        tail, width = tail_of(8), 5 * (tail_of(8) / RESAMPLES) ** 0.5
        draws = np.sort(values[rng.integers(8, size=(200_000, 8)), i].mean(1))
        assert draws[int(max(0, tail - width) * len(draws))] <= low[i] <= draws[int((tail + width) * len(draws))]
        assert exact[0] < mean[i] < exact[1]
        assert draws[int((1 - tail - width) * len(draws))] <= high[i] <= draws[-1]
    few = band(values[:2])
    assert few[0].tolist() == few[1].tolist() == few[2].tolist()


def test_figures_of_few_runs_have_no_interval() -> None:
    assert (spread([2.0]).sd, spread([2.0]).low, str(spread([2.0]))) == (None, None, "2")
    assert (spread([2.0, 4.0]).low, str(spread([2.0, 4.0]))) == (None, "3 (sd 1.4)")
    assert str(spread([1.0, 2.0, 3.0])) == "2 [1, 3]"
    told = difference({0: 1.0, 1: 2.0, 2: 3.0}, {0: 2.0, 1: 3.5, 2: 4.0})
    assert (told.mean, told.low, told.high, told.clear) == (pytest.approx(3.5 / 3), 1.0, 1.5, True)
    assert not difference({0: 1.0, 1: 2.0, 2: 3.0}, {0: 2.0, 1: 1.0, 2: 4.0}).clear
    assert not difference({0: 1.0}, {0: 2.0}).clear
