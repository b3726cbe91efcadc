"""Every preset of every method, held to values that are written down beside the place where the paper has them."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from distk import UsageError
from distk.config import to_dict
from distk.registry import registry
from distk.settings import resolve

WRITTEN: dict[str, dict[str, Any]] = tomllib.loads(Path(__file__).with_name("presets.toml").read_text(encoding="utf-8"))
PRESETS = [
    (entry.name, preset)
    for entry in registry().entries("method")
    if entry.distribution == "distk"
    for preset in entry.load().presets
]


@pytest.mark.parametrize(("method", "preset"), PRESETS)
def test_a_preset_is_what_is_written_beside_its_source(method: str, preset: str) -> None:
    written = WRITTEN.get(method, {}).get(preset)
    assert written is not None, f"write preset '{preset}' of '{method}' into tests/presets.toml, with its source"
    assert len(written["source"]) > 10, "where do these values stand?"
    made = resolve(method, preset=preset)
    found = json.loads(json.dumps({"model": to_dict(made.model), "train": to_dict(made.train)}))
    for section, values in found.items():
        assert {k: values.get(k) for k in written[section]} == written[section]
    assert {"name": made.data, **json.loads(json.dumps(made.data_options))} == written["data"]
    undefined = {k for k, v in found["model"].items() if v is None}
    assert set(written["model"]) | undefined == set(found["model"]), "a setting that is not written down, or not there"
    for key in ("keep", "eval_every", "validation", "patience", "penalty", "penalty_weight"):
        assert key in written["train"] or found["train"][key] in ("", 0, [], None)


def test_nothing_is_written_down_that_is_not_there() -> None:
    assert {(m, p) for m, presets in WRITTEN.items() for p in presets} == set(PRESETS)


@pytest.mark.parametrize("method", [m for m, p in PRESETS if p == "paper"])
def test_under_the_name_of_the_paper_no_stand_in_is_taken(method: str) -> None:
    assert resolve(method, preset="paper").train.stand_in is False
    assert resolve(method, preset="paper", options={"train": {"stand_in": True}}).train.stand_in is True
    assert resolve(method).train.stand_in is True


@pytest.mark.parametrize(
    ("method", "data"),
    [("fstat", "sprites"), ("covreg-conv", "cifar10"), ("icf-discrete", "mnistgrid")],
)
def test_without_its_files_the_paper_preset_says_what_is_missing(method, data, tmp_path, monkeypatch) -> None:
    from distk.training.loop import train

    monkeypatch.delenv("DISTK_DATA", raising=False)
    quick = {"train": {"steps": 0, "device": "cpu"}}
    with pytest.raises(UsageError) as caught:
        train(resolve(method, preset="paper", options=quick), tmp_path / "run", quiet=True)
    assert f"the real '{data}'" in str(caught.value)
    assert "--stand-in" in str(caught.value)
    assert registry().find("dataset", data).load().reads in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_stand_in_is_taken_where_it_is_allowed(distk_command, monkeypatch, in_folder) -> None:
    monkeypatch.delenv("DISTK_DATA", raising=False)
    small = ("--steps", 0, "--device", "cpu", "--out", "run")
    code, _, err = distk_command("train", "icf-discrete", "--preset", "paper", *small)
    assert code == 2, err
    code, _, err = distk_command("train", "icf-discrete", "--preset", "paper", "--stand-in", *small)
    assert code == 0, err


def test_patience_ends_a_run_that_gets_no_better(tmp_path) -> None:
    """A learning rate of 1e-12 changes no score by more than rounding: two scorings without a better one end it."""
    from distk.checkpoint import read_header
    from distk.training.loop import resume, train

    data = {"name": "dimred", "items": 64, "test": 64}
    given = {"steps": 50, "batch": 16, "device": "cpu", "keep": "best:reconstruction", "eval_every": 5, "patience": 2}
    made = resolve("covreg-linear", options={"data": data, "train": given, "model": {"lr": 1e-30}})
    run = train(made, tmp_path / "still", quiet=True)
    assert read_header(run.checkpoint).step == 15, "kept at 5, no better at 10 and 15"
    assert read_header(run.best).step == 5
    assert resume(run.path, quiet=True).log[-1]["step"] == 15, "taken up again it has waited long enough already"
    going = resolve("covreg-linear", options={"data": data, "train": given, "model": {"lr": 1e-3}})
    assert read_header(train(going, tmp_path / "going", quiet=True).checkpoint).step == 50
    with pytest.raises(UsageError, match="--patience counts scorings of --keep"):
        train(resolve("covreg-linear", options={"train": {"patience": 3}}), tmp_path / "wrong", quiet=True)


def test_patience_counts_scorings_in_a_row(tmp_path, monkeypatch) -> None:
    """Scores that are given: one worse one between better ones ends nothing, two in a row do."""
    from distk import evaluation
    from distk.checkpoint import read_header
    from distk.training.loop import train

    errors = iter([5.0, 6.0, 4.0, 6.0, 3.0, 9.0, 9.0, 1.0, 1.0, 1.0])

    def given(model: Any, texts: list[str], **options: Any) -> dict[str, Any]:
        error = next(errors)
        return {"metrics": {text: {"mse_pixel": error, "mse": error} for text in texts}}

    monkeypatch.setattr(evaluation, "evaluate", given)
    data = {"name": "dimred", "items": 64, "test": 64}
    wanted = {"steps": 50, "batch": 16, "device": "cpu", "keep": "best:reconstruction", "eval_every": 5, "patience": 2}
    run = train(resolve("covreg-linear", options={"data": data, "train": wanted}), tmp_path / "run", quiet=True)
    assert read_header(run.checkpoint).step == 35
    assert read_header(run.best).step == 25
