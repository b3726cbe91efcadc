"""Scores by text: settings, split and label, in `evaluate`, in `--eval` and `--keep`, and on the command line."""

from __future__ import annotations

import json

import pytest
import torch

from distk import UsageError
from distk.asked import Asked, asked
from distk.checkpoint import read_header
from distk.data import open_dataset
from distk.evaluation import evaluate
from distk.models import open_model
from distk.settings import resolve
from distk.training.loop import train

SMALL = {"name": "dsprites", "size": 32, "scales": [5], "orientations": 1, "positions": 4}


@pytest.mark.parametrize(
    ("texts", "wanted"),
    [
        (["dci"], [("dci", {}, None, "dci")]),
        (["dci,mig"], [("dci", {}, None, "dci"), ("mig", {}, None, "mig")]),
        (
            ["factorvae:protocol=cascadevae,ignore=shape"],
            [("factorvae", {"protocol": "cascadevae", "ignore_factors": "shape"}, None, "factorvae")],
        ),
        (  # as the options of the command line arrive, cut at every comma
            ["factorvae:protocol=cascadevae", "ignore=shape", "scale", "split=test", "dci"],
            [
                ("factorvae", {"protocol": "cascadevae", "ignore_factors": "shape,scale"}, "test", "factorvae"),
                ("dci", {}, None, "dci"),
            ],
        ),
        (
            ['factorvae:ignore_factors=["shape","scale"],label=without', "factorvae"],
            [
                ("factorvae", {"ignore_factors": ["shape", "scale"]}, None, "without"),
                ("factorvae", {}, None, "factorvae"),
            ],
        ),
        (
            ["factorvae:ignore=shape", "factorvae:ignore=scale"],
            [
                ("factorvae", {"ignore_factors": name}, None, f"factorvae:ignore_factors={name}")
                for name in ("shape", "scale")
            ],
        ),
        (["recall:ks=1,5"], [("recall", {"ks": "1,5"}, None, "recall")]),
        (["recall:ks=1"], [("recall", {"ks": "1"}, None, "recall")]),
        (["dci", "dci"], [("dci", {}, None, "dci")]),
    ],
)
def test_what_a_text_asks_for(texts, wanted) -> None:
    found = asked(texts)
    assert [(one.metric, dict(one.settings), one.split, one.label) for one in found] == wanted
    again = asked([one.text for one in found])
    listed = [{k: ",".join(v) if isinstance(v, list) else v for k, v in w[1].items()} for w in wanted]
    assert [(o.metric, dict(o.settings), o.split) for o in again] == [
        (w[0], values, w[2]) for w, values in zip(wanted, listed, strict=True)
    ]


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["factorva:ignore=shape"], "unknown metric 'factorva'. Did you mean 'factorvae'"),
        (["factorvae:protocl=dlib"], "has no setting 'protocl'. Did you mean 'protocol'"),
        (["factorvae:protocol=dlip"], "'dlip' is none of"),
        (["dci:"], None),
        (["mig:label=x", "dci:label=x"], "two scores are labelled 'x'"),
        (["mig:label=a/b"], "cannot be labelled 'a/b'"),
        (["mig:bins"], "not understood"),
    ],
)
def test_a_wrong_text_is_one_sentence(texts, said) -> None:
    if said is None:
        assert asked(texts) == [Asked("dci", label="dci")]
        return
    with pytest.raises(UsageError) as caught:
        asked(texts)
    assert said in str(caught.value)


def test_one_metric_twice_is_scored_under_both_settings() -> None:
    data = open_dataset("dsprites", {k: v for k, v in SMALL.items() if k != "name"})
    model = train_small(data)
    asked_for = ["betavae:label=with", "betavae:ignore=shape,label=without"]
    both = evaluate(model, asked_for, data=data, repeats=1)["metrics"]
    assert both["with"]["metric"] == both["without"]["metric"] == "betavae"
    for label, options in (("with", {}), ("without", {"ignore_factors": "shape"})):
        alone = evaluate(model, ["betavae"], data=data, repeats=1, **options)["metrics"]["betavae"]
        assert alone["eval"] == both[label]["eval"]
        assert both[label]["settings"]["ignore_factors"] == (["shape"] if options else [])
    assert both["with"]["eval"] != both["without"]["eval"]


def train_small(data, steps: int = 0):
    settings = resolve("betavae", options={"data": SMALL, "model": {"arch": "mlp"}, "train": {"steps": steps}})
    torch.manual_seed(0)
    return settings.method(settings.model, data.spec).eval()


def test_a_split_is_scored_on_its_own_rows() -> None:
    data = open_dataset("dsprites", {k: v for k, v in SMALL.items() if k != "name"})
    data.keep_back(0.25)
    model = train_small(data)
    texts = [f"reconstruction:split={split},label={split}" for split in ("train", "validation")]
    found = evaluate(model, texts, data=data)["metrics"]
    for split in ("train", "validation"):
        x = data.batch(data.rows_of(split))["x"]
        with torch.no_grad():
            error = (model.decode(model.encode(x)).view_as(x) - x).square().mean()
        # float32 means of some 10^5 squares in [0, 1], summed in another order
        assert found[split]["mse_pixel"] == pytest.approx(float(error), rel=1e-5)
        assert found[split]["rows_used"] == [len(x)]
        assert found[split]["split"] == split


def test_sampled_codes_reconstruct_as_the_posterior_says(seed) -> None:
    """E (D(m + s e) - x)^2 for a linear decoder is the error at the mean plus the decoded variance."""
    data = open_dataset("dsprites", {k: v for k, v in SMALL.items() if k != "name"})
    model = train_small(data)
    weight = torch.randn(10, 1024, generator=torch.Generator().manual_seed(seed)) / 10
    model.decode = lambda code: (code["z"] @ weight).view(-1, 1, 32, 32)  # type: ignore[method-assign]
    found = evaluate(
        model, ["reconstruction:label=mean", "reconstruction:code=sample,label=sample"], data=data, seed=seed
    )["metrics"]
    x = data.batch(torch.arange(len(data)))["x"]
    with torch.no_grad():
        std = model.posterior(x)["z"][1]
        extra = (std.square() @ weight.square()).mean(1)  # per item, mean over pixels
        mean = model.encode(x)["z"]
        r = mean @ weight - x.flatten(1)
        # variance of one item's error: of 2 r.W s e + (s e)' W W' (s e), over pixels
        gram = weight @ weight.T
        linear = 4 * ((std * (r @ weight.T)).square()).sum(1)
        square = 2 * ((std[:, :, None] * gram * std[:, None, :]).square()).sum((1, 2))
        sd = float((linear + square).sum().sqrt()) / 1024 / len(x)
    excess = found["sample"]["mse_pixel"] - found["mean"]["mse_pixel"]
    assert excess == pytest.approx(float(extra.mean()), abs=6 * sd)
    assert float(extra.mean()) > 12 * sd, "the test could not tell a mean from a sample"


def trained(tmp_path, name: str = "run", **given):
    options = {"steps": 4, "batch": 8, "device": "cpu", "eval_every": 2, **given}
    settings = resolve("betavae", options={"data": SMALL, "model": {"arch": "mlp"}, "train": options})
    return train(settings, tmp_path / name, quiet=True)


def test_training_scores_and_keeps_by_a_text(tmp_path) -> None:
    run = trained(
        tmp_path,
        eval=["factorvae:protocol=cascadevae,ignore=shape", "reconstruction"],
        keep="best:reconstruction:code=sample",
        validation=0.25,
    )
    row = run.log[-1]
    assert {"factorvae/eval", "reconstruction/mse_pixel"} <= row.keys()
    kept = "reconstruction:code=sample,split=validation"
    header = read_header(run.best)
    assert header.metrics["best"]["score"] == kept
    values = {r["step"]: r[f"{kept}/mse_pixel"] for r in run.log if f"{kept}/mse_pixel" in r}
    assert header.metrics["best"]["value"] == min(values.values()) == values[header.step]
    assert header.metrics["best"]["key"] == "mse_pixel"
    data = open_model(run.best)[0].dataset()
    assert {name: len(rows) for name, rows in data.parts.items()} == {"test": 48, "train": 36, "validation": 12}


def test_rows_that_are_kept_back_are_never_trained_on(tmp_path, monkeypatch) -> None:
    from distk.data import Dataset

    drawn = []
    original = Dataset.sample_rows

    def noted(self, n, generator, split="all"):
        rows = original(self, n, generator, split)
        if split == "train":
            drawn.append(rows)
        return rows

    monkeypatch.setattr(Dataset, "sample_rows", noted)
    run = trained(tmp_path, validation=0.5, steps=30)
    held = open_model(run.checkpoint)[0].dataset().rows_of("validation")
    assert len(torch.cat(drawn)) >= 30 * 8
    assert not torch.isin(torch.cat(drawn), held).any()


def test_the_choice_does_not_read_test_rows(tmp_path, monkeypatch) -> None:
    """With the items of the test rows replaced by noise the same state is kept, with the same value."""
    from distk.plugins.datasets.dsprites import DSprites

    def chosen(name: str):
        run = trained(tmp_path, name, keep="best:reconstruction", validation=0.25, steps=6, log_every=1, eval_every=1)
        return read_header(run.best).metrics["best"], dict(open_model(run.best)[0].state_dict())

    best, _ = chosen("clean")
    original = DSprites.batch

    def poisoned(self, rows):
        batch = original(self, rows)
        part = self.parts.get("test")
        if part is not None and len(self.parts) == 3 and "validation" in self.parts:
            known = torch.isin(rows, torch.cat([self.parts["train"], self.parts["validation"]]))
            batch = {**batch, "x": torch.where(known[:, None, None, None], batch["x"], torch.rand_like(batch["x"]))}
        return batch

    monkeypatch.setattr(DSprites, "batch", poisoned)
    monkeypatch.setitem(SMALL, "holdout", 0.25)
    before, kept = chosen("held out")
    monkeypatch.setattr(DSprites, "batch", original)
    after, same = chosen("clean again")
    assert before == after
    assert all(torch.equal(kept[name], same[name]) for name in kept)
    assert best["value"] != before["value"], "holding rows out changes what is trained on"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"keep": "best"}, "--keep best:METRIC"),
        ({"keep": "best:reconstruction,dci"}, "--keep best:METRIC"),
        ({"keep": "best:reconstruction:split=held"}, "unknown split 'held' of data set 'dsprites'"),
        ({"eval": ["reconstruction:split=validation"]}, "unknown split 'validation' of data set 'dsprites'"),
    ],
)
def test_what_training_cannot_score_is_said_before_the_first_step(tmp_path, given, said) -> None:
    with pytest.raises(UsageError) as caught:
        trained(tmp_path, **given)
    assert said in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_rows_cannot_be_kept_back_from_data_that_draw_their_own_batches() -> None:
    with pytest.raises(UsageError, match="draws its batches itself"):
        open_dataset("pairs").keep_back(0.1)
    data = open_dataset("shapes2d")
    with pytest.raises(UsageError, match="has the split 'validation'"):
        data.keep_back(0.1)
    assert torch.equal(data.rows_of("dev"), data.rows_of("validation"))


def test_the_same_words_on_the_command_line(distk_command, in_folder) -> None:
    data = ["--data", "dsprites", "--size", 32, "--scales", 5, "--orientations", 1, "--positions", 4]
    words = ["--eval", "factorvae:protocol=cascadevae,ignore=shape", "--keep", "best:reconstruction:code=sample"]
    code, out, err = distk_command(
        *("train", "betavae", "--arch", "mlp", "--steps", 2, "--batch", 8, "--device", "cpu", *data, *words),
        *("--validation", 0.25, "--out", "run", "--json"),
    )
    assert code == 0, err
    assert json.loads(out)["best"] == "run/best.safetensors"
    two = ["--metric", "factorvae", "--metric", "factorvae:protocol=cascadevae,ignore=shape,label=four factors"]
    code, out, err = distk_command("eval", "run", *two, "--json")
    assert code == 0, err
    scores = json.loads(out)["metrics"]
    assert list(scores) == ["factorvae", "four factors"]
    assert scores["four factors"]["settings"] == {
        **scores["factorvae"]["settings"],
        "protocol": "cascadevae",
        "ignore_factors": ["shape"],
    }
    assert sorted(p.name for p in in_folder.glob("run/*votes*png")) == [
        "checkpoint.eval.factorvae.votes.png",
        "checkpoint.eval.four-factors.votes.png",
    ]
    code, out, err = distk_command("eval", "run", *two, "--metric", "reconstruction:split=validation")
    assert code == 0
    assert "four factors" in out
    code, _, err = distk_command("eval", "run", "--metric", "reconstruction:split=held")
    assert code == 2
    assert "unknown split 'held' of data set 'dsprites'" in " ".join(err.split())
