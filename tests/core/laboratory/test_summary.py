"""One picture of a run's scores, and the rank correlation of scores over runs, against scipy."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr

from distk.errors import UsageError
from distk.laboratory import summary
from distk.laboratory.records import Record


def records(rng: np.random.Generator, n: int = 9) -> list[Record]:
    return [
        Record(Path(str(i)), scores={"mig.mig": rng.random(), "sap.sap": rng.random(), "reconstruction.nats": float(i)})
        for i in range(n)
    ]


def test_rank_correlations_are_spearmans(rng: np.random.Generator) -> None:
    held = records(rng)
    names, found, counts, left = summary.rank_correlations(held, ["mig", "sap"])
    assert names == ["mig.mig", "sap.sap"]
    columns = np.array([[r.scores[name] for name in names] for r in held])
    assert found[0, 1] == pytest.approx(spearmanr(columns[:, 0], columns[:, 1]).statistic, abs=1e-12)
    assert found[0, 0] == pytest.approx(1)
    assert (counts == 9).all()
    assert not left


def test_of_a_score_where_less_is_better_agreement_is_still_1(rng: np.random.Generator) -> None:
    low = [
        Record(Path(str(i)), scores={"mig.mig": i / 9, "unsupervised.gaussian_total_correlation": -float(i)})
        for i in range(9)
    ]
    names, found, *_ = summary.rank_correlations(low)
    assert names[1].startswith("unsupervised")
    assert found[0, 1] == pytest.approx(1)


def test_runs_without_a_score_are_left_out_of_its_pairs(rng: np.random.Generator) -> None:
    held = records(rng)
    short = [
        Record(r.path, scores={k: v for k, v in r.scores.items() if k != "sap.sap" or i < 5})
        for i, r in enumerate(held)
    ]
    names, found, counts, _ = summary.rank_correlations(short, ["mig.mig", "sap.sap"])
    assert counts.tolist() == [[9, 5], [5, 5]]
    few = [[r.scores[name] for name in names] for r in held[:5]]
    assert found[0, 1] == pytest.approx(spearmanr(*np.array(few).T).statistic, abs=1e-12)
    with pytest.raises(UsageError, match=r"fewer than two scores.*3 of 3 runs have it, and it takes 4"):
        summary.rank_correlations(held[:3], ["mig", "sap"])
    with pytest.raises(UsageError, match="none of these runs has the score 'dci'"):
        summary.rank_correlations(held, ["dci"])


def test_an_interval_never_leaves_the_range() -> None:
    assert summary.held_within([-0.2, 1.3], 0, 1) == (0, 1)
    assert summary.held_within([0.2, 1.3], None, 1) == (0.2, 1)
    assert summary.held_within([0.2, 0.3], 0, math.inf) == (0.2, 0.3)
    for none in (None, [1.0], [None, 1.0], [math.nan, 1.0], "ab"):
        assert summary.held_within(none, 0, 1) is None


def test_a_run_in_one_picture(distk_command: Any, in_folder: Path) -> None:
    train = ("train", "cascadevae", "--preset", "demo", "--steps", 2, "--device", "cpu", "--out", "r")
    assert distk_command(*train)[0] == 0
    code, _, err = distk_command("figure", "r")
    assert (code, "holds no scores to draw: distk eval r -m mig" in err) == (2, True)
    scores = ("-m", "mig", "-m", "modularity", "--rows", 300, "--baseline", 2, "--ci", 3, "--no-plots")
    assert distk_command("eval", "r", *scores)[0] == 0
    code, out, err = distk_command("figure", "r", "--format", "svg", "--json")
    assert code == 0, err
    told = json.loads(out)
    assert told == {"files": ["r/checkpoint.summary.svg"], "scores": ["mig", "modularity"]}
    text = Path(told["files"][0]).read_text()
    for word in ("mutual information (mig)", "nats", "posX", "z1", "diamond: chance", "line: interval", "cascadevae"):
        assert word in text, word
