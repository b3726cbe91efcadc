"""Scores of clip models: against an oracle whose code is the truth, and closed forms; the judge and its file."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from distk import (
    DistkError,
    Latent,
    LatentSpace,
    Method,
    NoConfig,
    UsageError,
    encode_table,
    evaluate,
    open_dataset,
)
from distk.metric import CodeTable
from distk.plugins.sequence import judge as judges
from distk.plugins.sequence import metrics
from distk.plugins.sequence.judge import Judge, JudgeInfo


class Oracle(Method):
    """Knows the factors: f = the attributes one-hot, z = the motion one-hot at each frame. `spoil` breaks it."""

    def __init__(self, data: object, spoil: str = "", known: dict[bytes, int] | None = None) -> None:
        super().__init__(NoConfig(), data.spec)  # type: ignore[attr-defined]
        self.data_, self.spoil = data, spoil
        self.latents = LatentSpace.of(Latent("f", "continuous", 24), Latent("z", "continuous", 9, steps=8))
        every = torch.arange(len(data))  # type: ignore[arg-type]
        self.known: dict[bytes, int] = known or {clip.numpy().tobytes(): int(row) for part in every.split(500)
                      for row, clip in zip(part, data.batch(part)["x"], strict=True)}  # fmt: skip

    def encode(self, x: Tensor) -> dict[str, Tensor]:
        rows = torch.tensor([self.known[clip.numpy().tobytes()] for clip in x])
        factors = self.data_.factors(rows)  # type: ignore[attr-defined]
        f = torch.cat([torch.eye(6)[factors[:, k]] for k in range(4)], 1)
        z = torch.eye(9)[factors[:, 4]][:, None].repeat(1, 8, 1)
        return {"f": f, "z": z}

    def decode(self, code: dict[str, Tensor]) -> Tensor:
        attributes = code["f"].view(-1, 4, 6).argmax(-1)
        motion = code["z"].mean(1).argmax(-1, keepdim=True)
        factors = torch.cat([attributes, motion], 1)
        if self.spoil == "ignores motion":
            factors[:, 4] = 0
        return self.data_.observe(factors)  # type: ignore[attr-defined]

    def prior(self, n: int, generator: torch.Generator) -> dict[str, Tensor]:
        rows = torch.randint(len(self.data_), (n,), generator=generator)  # type: ignore[arg-type]
        return self.encode(self.data_.batch(rows)["x"])  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def data() -> object:
    return open_dataset("sprites-sim", {"size": 16})


@pytest.fixture(scope="module")
def oracle(data: object) -> Oracle:
    return Oracle(data)


def score(model: Method, data: object, name: str, **options: object) -> dict:
    result = evaluate(model, [name], data=data, rows=1500, repeats=1, **options)["metrics"][name]  # type: ignore
    assert "error" not in result, result
    return result


def test_perfect_transfer_has_gain_one_and_a_copy_none(oracle: Oracle, data: object) -> None:
    found = score(oracle, data, "swap-error", pairs=200)
    assert found["swap_error"] == 0
    assert found["swap_gain"] == 1
    spoiled = Oracle(data, "ignores motion", oracle.known)
    assert score(spoiled, data, "swap-error", pairs=200)["swap_gain"] < 0.6


def test_similarity_cells_of_the_oracle(oracle: Oracle, data: object) -> None:
    found = score(oracle, data, "similarity", pairs=200)
    same = {"same_appearance_other_motion": (1, 0), "other_appearance_same_motion": (None, 1),
            "same_appearance_same_motion": (1, 1)}  # fmt: skip
    for cell, (f, z) in same.items():
        assert found[f"cos_z/{cell}"] == pytest.approx(z, abs=1e-6)
        if f is not None:
            assert found[f"cos_f/{cell}"] == pytest.approx(f, abs=1e-6)
    # Two characters that differ share (4 * 1/6 * 1296 - 4) / (4 * 1295) of their attributes on average: 0.166.
    assert found["cos_f/other_appearance_same_motion"] == pytest.approx(0.166, abs=0.05)
    assert abs(found["centred_f/other_appearance_same_motion"]) < 0.06
    assert found["separation"] > 0.9


def test_codes_of_a_table_are_those_of_its_groups_without_what_nobody_encodes() -> None:
    """The columns of a table are those of the scored groups: noise before, between and after them has none."""
    noise = [Latent(name, "continuous", 2, encoded=False, scored=False) for name in ("first", "between", "last")]
    f, z = Latent("f", "continuous", 3), Latent("z", "continuous", 2, steps=4)
    model = Oracle.__new__(Oracle)
    model.__dict__["latents"] = LatentSpace.of(noise[0], f, noise[1], z, noise[2])
    codes = torch.randn(5, 3 + 8)
    table = CodeTable(
        codes, [str(i) for i in range(11)], ["continuous"] * 11, model=model, dataset=object(), rows=torch.arange(5)
    )  # type: ignore[arg-type]
    places = torch.tensor([4, 1])
    found = metrics.group_codes(table, places)
    assert set(found) == {"f", "z"}
    assert torch.equal(found["f"], codes[places, :3])
    assert torch.equal(found["z"], codes[places, 3:].view(2, 4, 2))


def test_cells_hold_what_they_are_called() -> None:
    appearance, motion = torch.randint(5, (60,)), torch.randint(4, (60,))
    draw = torch.Generator().manual_seed(int(torch.randint(10_000, ())))
    for same in metrics.CELLS.values():
        a, b = metrics.cell_pairs(appearance, motion, same, 700, draw)
        assert len(a) == 700
        assert bool(((appearance[a] == appearance[b]) == same[0]).all())
        assert bool(((motion[a] == motion[b]) == same[1]).all())
    alone = metrics.cell_pairs(torch.zeros(3), torch.arange(3), (False, True), 10, draw)
    assert len(alone[0]) == 0


def test_inception_score_is_the_difference_of_entropies() -> None:
    p = torch.randn(50, 9, dtype=torch.float64).mul(3).softmax(1)
    found = metrics.inception(p)
    assert math.exp(found["h_y"] - found["h_y_given_x"]) == pytest.approx(found["inception_score"])
    sure = metrics.inception(torch.eye(9, dtype=torch.float64).repeat(4, 1))
    assert sure["inception_score"] == pytest.approx(9)
    assert sure["h_y"] == pytest.approx(math.log(9))
    assert sure["h_y_given_x"] == pytest.approx(0, abs=1e-12)
    q = torch.randn(50, 9, dtype=torch.float64).softmax(1)
    expected = torch.nn.functional.kl_div(q.log(), p, reduction="batchmean")
    assert metrics.mean_kl(p, q) == pytest.approx(float(expected))


def test_balanced_takes_equally_many_of_each_class() -> None:
    label = torch.cat([torch.zeros(50), torch.ones(7), torch.full((30,), 2.0)]).long()
    chosen = metrics.balanced(label, 60, torch.Generator().manual_seed(1))
    assert label[chosen].bincount().tolist() == [7, 7, 7]
    assert len(set(chosen.tolist())) == 21
    assert label[metrics.balanced(label, 9, torch.Generator())].bincount().tolist() == [3, 3, 3]


def perfect_judge(data: object, oracle: Oracle, path: Path, accuracy: float = 1.0) -> Path:
    """The file of a judge whose accuracy is claimed to be `accuracy`."""
    info = JudgeInfo(dict(zip(data.factor_names, data.factor_sizes, strict=True)), data.spec.shape, 4)  # type: ignore
    info.accuracy.update(dict.fromkeys(info.heads, accuracy))
    judges.FILE.save(Judge(info), path)
    return path


def test_disagreement_of_the_oracle_under_a_judge_that_knows(
    oracle: Oracle, data: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = perfect_judge(data, oracle, tmp_path / "judge.safetensors")

    def truth(self: Judge, x: Tensor, batch: int = 256) -> dict[str, Tensor]:
        rows = torch.tensor([oracle.known[clip.numpy().tobytes()] for clip in x])
        factors = data.factors(rows)  # type: ignore[attr-defined]
        return {n: torch.eye(s).double()[factors[:, k]] for k, (n, s) in enumerate(self.info.heads.items())}

    monkeypatch.setattr(Judge, "probabilities", truth)
    found = score(oracle, data, "disagreement", judge=str(path), clips=180)
    assert found["clips"] == 180
    for name in ("action", "body", "hair", "content"):
        assert found[f"accuracy_{name}"] == 1
    assert found["disagreement_action"] == 0
    assert found["inception_score"] == pytest.approx(9)
    assert found["kl_action_reconstruction"] == pytest.approx(0, abs=1e-12)
    assert found["kl_action_random"] > 10
    spoiled = score(Oracle(data, "ignores motion", oracle.known), data, "disagreement", judge=str(path), clips=180)
    assert spoiled["accuracy_action"] == pytest.approx(1 / 9, abs=0.01)
    assert spoiled["inception_score"] == pytest.approx(1)
    assert spoiled["accuracy_content"] == 1


def test_judges_that_are_refused(oracle: Oracle, data: object, tmp_path: Path) -> None:
    good = perfect_judge(data, oracle, tmp_path / "good.safetensors")
    table = encode_table(oracle, data, rows=50)  # type: ignore[arg-type]

    def refused(path: Path | str, match: str, error: type[Exception] = UsageError) -> None:
        metric = metrics.Disagreement(metrics.JudgeConfig(judge=str(path)))
        with pytest.raises(error, match=match):
            metric.compute(table, 0)

    refused("", "distk dsvae judge --data sprites-sim")
    refused(tmp_path / "absent", "does not exist")
    refused(perfect_judge(data, oracle, tmp_path / "weak", 0.98), "0.98.*required 0.99.*distk dsvae judge")
    other = open_dataset("sprites-sim:das-dandi", {"size": 16})
    refused(perfect_judge(other, oracle, tmp_path / "other"), "names .*'body': 7.*has .*'body': 6")
    (tmp_path / "cut").write_bytes(good.read_bytes()[:-100])
    refused(tmp_path / "cut", "truncated|no safetensors", DistkError)
    save_file({"a": torch.zeros(1)}, tmp_path / "foreign")
    refused(tmp_path / "foreign", "holds no judge", DistkError)
    info = {
        "heads": {"body": 6},
        "shape": [8, 3, 16, 16],
        "width": 1 << 30,
        "accuracy": {"body": 1},
        "data": "",
        "steps": 1,
    }
    save_file(load_file(good), tmp_path / "huge", metadata={"distk-judge": json.dumps(info)})
    refused(tmp_path / "huge", "does not describe a judge", DistkError)
    save_file(load_file(good), tmp_path / "misfit", metadata={"distk-judge": json.dumps({**info, "width": 8})})
    refused(tmp_path / "misfit", "do not fit", DistkError)


def test_judge_learns_and_its_file_gives_it_back(data: object, tmp_path: Path) -> None:
    judge = judges.train_judge(data, steps=150, batch=32, lr=5e-3, width=8)  # type: ignore[arg-type]
    # Measured (seed 0): action 0.71, hair 0.997; chance is 0.11 and 0.17.
    assert judge.info.accuracy["action"] > 0.4
    assert judge.info.accuracy["hair"] > 0.9
    judges.FILE.save(judge, tmp_path / "judge")
    again = judges.FILE.load(tmp_path / "judge", torch.device("cpu"))
    assert again.info == judge.info
    x = data.batch(torch.arange(0, 400, 7))["x"]  # type: ignore[attr-defined]
    for name, p in judge.probabilities(x).items():
        assert torch.equal(p, again.probabilities(x)[name])
        torch.testing.assert_close(p.sum(1), torch.ones(len(x), dtype=torch.float64))
    with pytest.raises(UsageError, match="labelled factors"):
        judges.train_judge(open_dataset("vector-clips", {"clips": 100}))


def test_layers_of_the_full_judge() -> None:
    with torch.device("meta"):
        judge = Judge(JudgeInfo({"action": 9}, (8, 3, 64, 64)))
    widths = [m.out_channels for m in judge.frames if isinstance(m, torch.nn.Conv2d)]
    assert widths == [64, 128, 256, 512, 128]
    assert judge.lstm.hidden_size == 256
    assert judge.heads["action"][0].weight.shape == (256, 512)
    with pytest.raises(ValueError, match="40x40"):
        Judge(JudgeInfo({"action": 9}, (8, 3, 40, 40)))


def test_scores_say_why_they_are_undefined(oracle: Oracle, data: object) -> None:
    class Flat(Oracle):
        def __init__(self, data: object) -> None:
            super().__init__(data, known=oracle.known)
            self.latents = LatentSpace.of(Latent("f", "continuous", 24))

        def encode(self, x: Tensor) -> dict[str, Tensor]:
            return {"f": super().encode(x)["f"]}

    flat = Flat(data)
    for name in ("swap-error", "similarity"):
        result = evaluate(flat, [name], data=data, rows=40, on_error="row")["metrics"][name]  # type: ignore[arg-type]
        assert "a static group and a group per frame" in result["error"]
    result = evaluate(oracle, ["elbo"], data=data, rows=40, on_error="row")["metrics"]["elbo"]  # type: ignore[arg-type]
    assert "bound log p(x)" in result["error"]


@pytest.mark.parametrize("name", ["swap-error", "similarity", "elbo"])
def test_metrics_pass_the_conformance_checks_on_a_model_that_they_can_score(name: str) -> None:
    from distk.plugins.sequence.dsvae.method import DSVAE, Config
    from distk.testing import metric_checks

    data = open_dataset("vector-clips", {"clips": 200})
    model = DSVAE(Config(f_dim=3, z_dim=2, hidden=4, frame_dim=4, prior="learned"), data.spec).eval()
    problems = [f"{c.name}: {c.problem}" for c in metric_checks(name, encode_table(model, data)) if c.problem]
    assert not problems
