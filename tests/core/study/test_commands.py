"""`distk study ...` as a stranger types it, as text and as JSON."""

from __future__ import annotations

import json

import pytest


@pytest.fixture
def ran(distk_command, tiny, instant):
    """The tiny study run through the command line; what it printed as JSON."""
    code, out, errors = distk_command(
        "study", "run", tiny, "--engine", "instant", "--seeds", "1", "--device", "cpu", "--json"
    )
    assert code == 0, errors
    return json.loads(out)


def test_run_status_and_report_tell_the_same(distk_command, ran, in_folder) -> None:
    assert ran["study"] == "tiny"
    assert ran["out"] == "runs/study-tiny"
    line = next(n for n in ran["table"] if n["variant"] == "free" and n["column"] == "covstats.cvr")
    assert (line["n"], line["sd"], line["published"], line["where"]) == (1, None, "0.5 (0.1)", "Table 9")
    assert line["mean"] == line["best"] == ran["runs"][0]["covstats.cvr"]
    assert [c["verdict"] for c in ran["claims"]] == ["too few runs to say", "no run can test it"]
    files = {"results.csv", "summary.csv", "results.png"}
    assert {f.rpartition("/")[2] for f in ran["files"]} == files
    assert all((in_folder / f).stat().st_size > 50 for f in ran["files"])

    code, out, _ = distk_command("study", "report", "runs/study-tiny", "--json")
    assert code == 0
    again = json.loads(out)
    assert {k: again[k] for k in ("table", "claims", "runs")} == {k: ran[k] for k in ("table", "claims", "runs")}
    code, out, errors = distk_command("study", "report", "runs/study-tiny")
    assert code == 0
    for word in ("covstats.cvr", "0.5 (0.1)", "Table 9", "too few runs to say", "the paper shows a picture"):
        assert word in " ".join(out.split()), word
    assert "results.png are in runs/study-tiny" in errors
    code, out, _ = distk_command("study", "report", "runs/study-tiny", "--format", "svg", "--json")
    (drawn,) = [f for f in json.loads(out)["files"] if f.endswith(".svg")]
    assert (in_folder / drawn).read_bytes().startswith(b"<?xml")

    code, out, errors = distk_command("study", "status", "runs/study-tiny")
    assert code == 0
    assert out.count("done") == 2
    assert "2 runs: 2 done" in errors
    code, out, _ = distk_command("study", "status", "runs/study-tiny", "--json")
    assert json.loads(out)["counts"] == {"done": 2}


def test_the_same_command_again_as_text(distk_command, ran, tiny) -> None:
    code, out, errors = distk_command("study", "run", tiny, "--engine", "instant", "--seeds", "1", "--device", "cpu")
    assert code == 0, errors
    assert "2 runs, 2 of them done already" in errors
    assert "2 variants x 1 seed; columns: covstats.cvr, covstats.mapc" in errors
    assert "published" in out


def test_show_says_what_would_run_and_trains_nothing(distk_command, tiny, in_folder) -> None:
    code, out, errors = distk_command("study", "show", tiny, "--device", "cpu")
    assert code == 0, errors
    assert "Covariance of a linear code (Nobody 2026)" in out
    assert "lr=0.01" in out
    assert "2 variants x 2 seeds" in out
    code, out, _ = distk_command("study", "show", tiny, "--seeds", "3:5", "--set", "train.steps=7", "--json")
    told = json.loads(out)
    assert code == 0
    assert told["seeds"] == [3, 4]
    assert [v["steps"] for v in told["variants"]] == [7, 7]
    assert told["variants"][1]["settings"] == {"lr": 0.01}
    assert not (in_folder / "runs").exists()


def test_a_mistake_is_one_sentence_with_exit_code_2(distk_command, tiny, in_folder) -> None:
    tiny.write_text(tiny.read_text().replace("covstats.mapc", "covstats.mapp"))
    code, out, errors = distk_command("study", "run", tiny, "--json")
    assert (code, out) == (2, "")
    assert errors.count("error:") == 1
    assert "unknown number 'mapp' of the metric 'covstats' in column 'covstats.mapp'. Did you mean 'mapc'?" in " ".join(
        errors.split()
    )
    assert not (in_folder / "runs").exists()


def test_a_folder_without_a_study(distk_command, in_folder) -> None:
    for verb in ("status", "report"):
        code, _, errors = distk_command("study", verb, in_folder)
        assert code == 1
        assert "holds no study" in errors
    (in_folder / "study.json").write_text(
        '{"format": 1, "study": "x", "folders": {"a": "../../b"}, "variants": {"a": {}}}'
    )
    code, _, errors = distk_command("study", "status", in_folder)
    assert code == 1
    assert "is damaged" in errors


def test_the_small_scale_is_the_default_and_is_said(distk_command, tiny) -> None:
    tiny.write_text(tiny.read_text() + "[scale.small]\ntrain = { steps = 3 }\n")
    code, out, errors = distk_command("study", "show", tiny, "--json")
    assert code == 0
    assert json.loads(out)["variants"][0]["steps"] == 3
    assert "scale small; --scale paper runs the study as it was published" in errors
    _, out, errors = distk_command("study", "show", tiny, "--scale", "paper", "--json")
    assert json.loads(out)["variants"][0]["steps"] == 40
    assert "scale" not in errors


def test_list_and_the_old_word(distk_command, plugged) -> None:
    code, out, errors = distk_command("study", "list", "--json")
    assert code == 0, errors
    before = [s["name"] for s in json.loads(out)["studies"]]
    register = lambda register: register("mine", "distk.study:mine.toml", "mine of all")  # noqa: E731
    plugged("mine", {}, distk_register_studies=register)
    _, out, _ = distk_command("study", "list", "--json")
    assert [s["name"] for s in json.loads(out)["studies"]] == sorted([*before, "mine"])
    _, out, _ = distk_command("study", "list")
    assert "mine of all" in out
    _, out, _ = distk_command("list", "studies")
    assert "mine of all" in out
    code, _, errors = distk_command("study", "mine", "--seeds", "3")
    assert code == 2
    assert "`distk study mine` is called `distk study run mine` now." in " ".join(errors.split())
