"""Results of `distk eval`: merged by metric, saying of what they are, never erased by a failure, stale or not."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import distk
from distk import DistkError, UsageError, checkpoint
from distk.registry import registry
from distk.results import arrays_path, digest, measured, merged, read, stale, write

Call = Callable[..., tuple[int, str, str]]
TINY = {"positions": 10, "steps": 2, "batch": 4, "checkpoint_every": 1, "device": "cpu", "quiet": True}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of betavae on 100 blobs."""
    return distk.train("betavae", data="blobs", out=tmp_path_factory.mktemp("runs") / "r", **TINY).path


@pytest.fixture
def run(trained: Path, in_folder: Path) -> Path:
    shutil.copytree(trained, "run")
    return Path("run")


def held(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def result(weights: str = "w", data: str = "blobs", **metrics: dict[str, Any]) -> dict[str, Any]:
    of = measured({"data": data, "split": "all"}, method="m", seed_of_run=0, step=3, weights=weights)
    named = {name: {**values, "measured": of} for name, values in metrics.items()}
    return {"metrics": named, "provenance": {"seed": 0}}


# ------------------------------------------------------------------------------------------------ the commands


def test_a_second_metric_stands_beside_the_first(distk_command: Call, run: Path) -> None:
    file, arrays = run / "checkpoint.eval.json", run / "checkpoint.eval.safetensors"
    assert distk_command("eval", run, "-m", "mig")[0] == 0
    first, stored = held(file)["metrics"]["mig"], load_file(arrays)
    picture = next(run.glob("checkpoint.eval.mig.*.png"))
    code, out, err = distk_command("eval", run, "-m", "active-units", "--json")
    assert code == 0
    assert list(json.loads(out)["metrics"]) == ["active-units"], "the answer is about what was asked"
    assert "the file also holds: mig" in " ".join(err.split())
    assert held(file)["metrics"]["mig"] == first
    assert set(held(file)["metrics"]) == {"mig", "active-units"}
    again = load_file(arrays)
    assert stored
    assert all(torch.equal(again[name], value) for name, value in stored.items())
    assert any(name.startswith("active-units/") for name in again)
    assert picture.exists()


def test_a_result_says_of_what_it_is(distk_command: Call, run: Path) -> None:
    distk_command("eval", run, "-m", "active-units", "--rows", 40, "--seed", 3)
    found = held(run / "checkpoint.eval.json")
    of, header = found["metrics"]["active-units"]["measured"], checkpoint.read_header(run / "checkpoint.safetensors")
    tensors = checkpoint.tensors(run / "checkpoint.safetensors")
    assert (of["method"], of["step"], of["model"]) == ("betavae", 2, header.config)
    assert (of["data"], of["split"], of["rows"]) == ("blobs", "all", 40)
    assert of["weights"] == found["provenance"]["weights"] == digest(tensors)
    assert found["metrics"]["active-units"]["settings"]
    assert found["metrics"]["active-units"]["seeds"] == [3]


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_a_failure_never_erases(distk_command: Call, run: Path, form: tuple[str, ...], monkeypatch: Any) -> None:
    from distk.plugins.metrics.structure import ActiveUnits

    distk_command("eval", run, "-m", "active-units", "-m", "linear-correlation")
    file = run / "checkpoint.eval.json"
    before, pictures = held(file)["metrics"], sorted(run.glob("*.png"))
    code, _, _ = distk_command("eval", run, "-m", "clsacc", *form)
    assert code == 1
    assert held(file)["metrics"].pop("clsacc")["error"]

    def broken(self: Any, table: Any, seed: int) -> Any:
        raise UsageError("not today.")

    monkeypatch.setattr(ActiveUnits, "compute", broken)
    code, _, err = distk_command("eval", run, "-m", "active-units", *form)
    assert code == 1
    assert "the earlier score of active-units stays in the file" in " ".join(err.split())
    now = held(file)
    assert {name: now["metrics"][name] for name in before} == before
    assert now["failed"]["active-units"]["error"] == "not today."
    assert sorted(run.glob("*.png")) == pictures
    monkeypatch.undo()


def test_after_resume_the_old_scores_are_stale(distk_command: Call, run: Path) -> None:
    distk_command("eval", run, "-m", "active-units", "-m", "linear-correlation")
    assert not any(score["stale"] for score in json.loads(distk_command("info", run, "--json")[1])["scores"])
    assert distk_command("resume", run, "--steps", 4)[0] == 0
    code, out, _ = distk_command("info", run)
    assert code == 0
    assert out.count("STALE") == 2
    _, _, err = distk_command("eval", run, "-m", "active-units")
    assert "linear-correlation of step 2, which is stale: the weights are others now" in " ".join(err.split())
    scores = json.loads(distk_command("info", run, "--json")[1])["scores"]
    assert {score["metric"]: (score["step"], score["stale"]) for score in scores} == {
        "active-units": (4, False),
        "linear-correlation": (2, True),
    }
    (earlier,) = held(run / "checkpoint.eval.json")["earlier"]
    assert (earlier["metric"], earlier["measured"]["step"]) == ("active-units", 2)
    assert isinstance(earlier["active_units"], float | int)


def test_other_data_and_splits_have_files_of_their_own(distk_command: Call, run: Path) -> None:
    distk_command("eval", run, "-m", "active-units")
    own = (run / "checkpoint.eval.json").read_bytes()
    for more, name in (
        (("--data", "dsprites", "--rows", 50), "checkpoint.dsprites.eval.json"),
        (("--split", "test"), "checkpoint.test.eval.json"),
        (("--data", "dsprites", "--rows", 50, "--split", "test"), "checkpoint.dsprites.test.eval.json"),
    ):
        code, _, err = distk_command("eval", run, "-m", "active-units", *more)
        assert code == 0, err
        assert held(run / name)["metrics"]["active-units"]["measured"]["data"] in [*name.split("."), "blobs"]
    assert (run / "checkpoint.eval.json").read_bytes() == own


def test_pictures_of_other_data_have_names_of_their_own(distk_command: Call, run: Path) -> None:
    """Every generic command that takes --data and writes: both pictures are there afterwards, under two names."""
    short = {"traverse": ["--columns", 2], "reconstruct": [], "interpolate": [], "embed": ["--rows", 20]}
    short |= {"swap": ["--pairs", 2], "transfer": ["--pairs", 2], "covmap": []}
    written: list[str] = []
    for command, words in short.items():
        for data in ([], ["--data", "digits"]):
            before = {path.name: path.stat().st_mtime_ns for path in run.rglob("*")}
            code, _, err = distk_command(command, run, *words, *data)
            assert code == 0, err
            after = {path.name: path.stat().st_mtime_ns for path in run.rglob("*")}
            written += [name for name in after if after[name] != before.get(name) and path_is_ours(name)]
    assert len(written) >= 2 * len(short)
    assert len(written) == len(set(written)), "two commands wrote one file"


def path_is_ours(name: str) -> bool:
    return not name.startswith(".") and name != "samples"


def test_pictures_that_are_no_longer_drawn_are_removed(distk_command: Call, run: Path) -> None:
    distk_command("eval", run, "-m", "linear-correlation", "-m", "active-units", "--plots")
    kept = sorted(run.glob("*.linear-correlation.*"))
    assert list(run.glob("checkpoint.eval.active-units.*.svg"))
    (run / "checkpoint.eval.active-units-of-mine.png").write_bytes(b"mine")
    distk_command("eval", run, "-m", "active-units", "--no-plots")
    assert not list(run.glob("checkpoint.eval.active-units.*.png"))
    assert not list(run.glob("checkpoint.eval.active-units.*.svg"))
    assert (run / "checkpoint.eval.active-units-of-mine.png").exists()
    assert sorted(run.glob("*.linear-correlation.*")) == kept


def test_a_file_that_holds_no_scores_is_refused_before_the_work(distk_command: Call, run: Path) -> None:
    Path("mine.json").write_text('{"mine": [1, 2]}')
    np.savez("c.npz", codes=np.random.default_rng(0).normal(size=(40, 3)))
    for words in ((run,), ("--codes", "c.npz")):
        code, out, err = distk_command("eval", *words, "-m", "linear-correlation", "--out", "mine.json")
        assert (code, out) == (2, "")
        assert "'mine.json' is there and holds no scores" in " ".join(err.split())
        assert Path("mine.json").read_text() == '{"mine": [1, 2]}'


def test_what_cannot_be_written_is_shown_and_fails(distk_command: Call, run: Path, monkeypatch: Any) -> None:
    def full(path: Path, content: bytes) -> None:
        raise DistkError(f"cannot write '{path}': No space left on device.")

    monkeypatch.setattr("distk.results.write_atomic", full)
    code, out, err = distk_command("eval", run, "-m", "active-units", "--json")
    assert code == 1
    assert "No space left" in err
    assert json.loads(out)["metrics"]["active-units"]["active_units"] >= 0


def test_the_file_of_an_earlier_version_is_kept_and_stale(distk_command: Call, run: Path) -> None:
    old = {"checkpoint": "x", "metrics": {"mig": {"mig": 0.25}}, "provenance": {"data": "blobs"}}
    (run / "checkpoint.eval.json").write_text(json.dumps(old))
    _, _, err = distk_command("eval", run, "-m", "active-units")
    assert "mig of an unknown step, which is stale" in " ".join(err.split())
    assert held(run / "checkpoint.eval.json")["metrics"]["mig"] == {"mig": 0.25}


# ------------------------------------------------------------------------------------------------ the merging


def test_merging_keeps_every_success_once() -> None:
    first = result(a={"x": 1.0, "settings": {"k": 1}}, b={"y": 2.0})
    again = merged(first, result(a={"x": 1.0, "settings": {"k": 1}}))
    assert "earlier" not in again, "the same measurement again is no other result"
    assert set(again["metrics"]) == {"a", "b"}
    other = merged(again, result(a={"x": 3.0, "settings": {"k": 2}, "table": [1, 2]}))
    assert [e["x"] for e in other["earlier"]] == [1.0]
    third = merged(other, result("v", a={"x": 4.0, "settings": {"k": 2}}))
    assert [e["x"] for e in third["earlier"]] == [1.0, 3.0]
    assert "table" not in third["earlier"][1]
    assert stale(third["metrics"]["b"], "v")
    assert not stale(third["metrics"]["a"], "v")
    failing = merged(first, result(a={"error": "e"}))
    assert (failing["metrics"]["a"]["x"], failing["failed"]["a"]["error"]) == (1.0, "e")
    healed = merged(merged(first, result(a={"error": "e"})), result(a={"x": 5.0}))
    assert "failed" not in healed


def test_results_of_another_subject_become_earlier_ones() -> None:
    """As where `--out` names one file for two data sets: no table mixes them."""
    both = merged(result(a={"x": 1.0}, b={"y": 2.0}), result(data="digits", a={"x": 3.0}))
    assert list(both["metrics"]) == ["a"]
    assert sorted(e["metric"] for e in both["earlier"]) == ["a", "b"]


def test_arrays_of_other_metrics_stay(tmp_path: Path, generator: torch.Generator) -> None:
    path = tmp_path / "r.eval.json"
    wide, small = torch.rand(40, 50, generator=generator), torch.rand(3, generator=generator)
    write(path, {"metrics": {"a": {"x": 1.0, "m": wide}, "b": {"y": 2.0, "m": small}}, "provenance": {}}, {"step": 1})
    told, whole = write(path, {"metrics": {"b": {"y": 3.0, "m": 2 * small}}, "provenance": {}}, {"step": 2})
    assert [whole["metrics"][name]["measured"]["step"] for name in "ab"] == [1, 2]
    assert set(told["metrics"]) == {"b"}
    assert set(whole["metrics"]) == {"a", "b"}
    stored = load_file(arrays_path(path))
    assert torch.equal(stored["a/m"], wide)
    assert torch.equal(stored["b/m"], 2 * small)
    assert held(path)["metrics"]["a"]["m"] == {"shape": [40, 50], "stored": "a/m"}


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"metrics": []}', '{"metrics": {"a": 1}}', "[" * 5000, '{"x": 1}'])
def test_what_is_no_file_of_results(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(UsageError, match="holds no scores"):
        read(path)


def test_a_pipe_and_a_link_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "held.json").write_text('{"metrics": {}}')
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "link.json").symlink_to(tmp_path / "held.json")
    assert read(tmp_path / "held.json") == {"metrics": {}}
    for name in ("pipe.json", "link.json"):
        with pytest.raises(DistkError, match="cannot read"):
            read(tmp_path / name)


def test_a_digest_tells_names_shapes_types_and_values_apart(generator: torch.Generator) -> None:
    w = torch.rand(2, 6, generator=generator)
    other = w.clone()
    other[1, 5] += 1e-6
    cases = [{"w": w}, {"v": w}, {"w": w.view(3, 4)}, {"w": w.double()}, {"w": other}, {"w": w, "v": w}]
    assert len({digest(case) for case in cases}) == len(cases)
    assert digest({"a": w, "b": other}) == digest({"b": other, "a": w.clone()})


# ------------------------------------------------------------------------------ refused before anything is opened


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["-m", "mig", "-m", "dci", "--protocol", "cascadevae"], "'cascadevae' is none of dlib"),
        (["-m", "mig", "--set", "dci.trees=3"], "'dci' is none of mig"),
        (["-m", "mig", "--set", "nonsense=3"], "has no setting 'nonsense'"),
        (["-m", "mig", "--set", "mig.bins=none"], "bins"),
    ],
)
def test_settings_are_checked_before_the_model_is_opened(
    distk_command: Call, run: Path, words: list[str], why: str, monkeypatch: Any
) -> None:
    def opened(*arguments: Any) -> Any:
        raise AssertionError("the model was opened")

    monkeypatch.setattr("distk.commands.opening.open_model", opened)
    code, out, err = distk_command("eval", run, *words)
    assert (code, out) == (2, ""), err
    assert why in " ".join(err.split())


def test_an_option_of_one_metric_is_for_that_one_alone(distk_command: Call, run: Path) -> None:
    code, out, err = distk_command("eval", run, "-m", "mig", "-m", "modularity", "--set", "mig.bins=7", "--json")
    assert code == 0, err
    found = json.loads(out)["metrics"]
    assert found["mig"]["settings"]["bins"] == 7
    assert found["modularity"]["settings"].get("bins") != 7


@pytest.mark.parametrize("study", [entry.name for entry in registry().entries("study")])
def test_no_study_begins_with_an_option_that_does_nothing(
    distk_command: Call, study: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distk.study.engine.run", lambda *_, **__: pytest.fail("the study began"))
    monkeypatch.setattr("distk.study.checks._built", lambda *_: pytest.fail("a model was built"))
    code, _, err = distk_command("study", "run", study, "--set", "options.icm.protocol=nothing")
    assert code == 2, err
