"""`distk runs`: what is listed, filters, the index, and folders that are damaged or hostile."""

from __future__ import annotations

import csv
import fcntl
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import distk
from distk.kept import cache_folder
from distk.laboratory import index
from distk.laboratory.records import Record, last_rows
from distk.laboratory.select import chosen, ordered


def index_file() -> Path:
    """The one index of this test's cache."""
    (found,) = cache_folder().glob("runs-*.json")
    return found


def named(out: str) -> list[str]:
    """The runs in a table's first column, in its order."""
    return [words[0] for line in out.splitlines() if (words := line.split()) and words[0][:5] in ("fast-", "slow-")]


@pytest.fixture(autouse=True)
def fresh_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTK_CACHE", str(tmp_path / "cache"))


def test_every_run_with_its_method_data_seed_step_state_and_scores(folder: Path, score) -> None:
    found = {str(r.path): r for r in distk.runs("runs")}
    assert sorted(found) == sorted(f"runs/{name}-{seed}" for name in ("slow", "fast") for seed in range(4))
    one = found["runs/fast-2"]
    assert (one.method, one.data, one.seed, one.step, one.steps, one.state) == (
        *("covreg-linear", "dimred"),
        *(2, 30, 30),
        "finished",
    )
    assert one.settings["model.lr"] == 0.01
    assert one.settings["data.items"] == 64
    assert {k.removeprefix("covstats."): v for k, v in one.scores.items() if k.startswith("covstats.")} == score(
        folder, "fast-2"
    )
    assert found["runs/fast-3"].scores == {}
    last = [json.loads(line) for line in (folder / "fast-3" / "log.jsonl").read_text().splitlines()][-1]
    assert found["runs/fast-3"].logged["mse"] == last["mse"]
    assert one.problem == ""


def test_text_csv_and_json_tell_the_same(distk_command, folder: Path) -> None:
    code, out, errors = distk_command("runs", "runs", "--where", "lr=0.01", "--sort", "-seed")
    assert code == 0, errors
    assert named(out) == ["fast-3", "fast-2", "fast-1", "fast-0"]
    assert "4 of 8 runs" in errors
    code, out, _ = distk_command(
        "runs", "runs", "--where", "lr=0.01", "--sort", "-seed", "--csv", "--columns", "lr,cvr"
    )
    assert code == 2
    code, out, _ = distk_command("runs", "runs", "--where", "lr=0.01", "--sort", "seed", "--csv", "--columns", "lr")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [(r["path"], r["seed"], r["lr"]) for r in rows] == [(f"runs/fast-{i}", str(i), "0.01") for i in range(4)]
    code, out, _ = distk_command("runs", "runs", "--json", "--limit", "3", "--sort", "path")
    told = json.loads(out)
    assert [r["path"] for r in told["runs"]] == ["runs/fast-0", "runs/fast-1", "runs/fast-2"]
    assert told["found"] == 8
    code, _, errors = distk_command("runs", "runs", "--limit", "3")
    assert "3 of 8 runs shown; --limit 0 shows all" in errors


def test_headline_scores_are_the_columns(distk_command, folder: Path, score) -> None:
    from distk.registry import registry

    headline = registry().find("metric", "covstats").load().headline
    _, out, _ = distk_command(
        "runs", "runs", "--where", "lr=0.01", "--where", "seed=0", "--csv", "--columns", "covstats"
    )
    assert float(next(csv.DictReader(io.StringIO(out)))["covstats"]) == score(folder, "fast-0")[headline]
    _, out, _ = distk_command("runs", "runs")
    assert f".{headline}" in out


@pytest.mark.parametrize(
    ("where", "left"),
    [
        (["lr>=0.01"], "fast"),
        (["lr<0.01"], "slow"),
        (["model.lr!=0.01"], "slow"),
        (["path=*slow-*", "method=covreg-*"], "slow"),
        (["batch=16", "seed<2", "seed>0"], "1"),
        (["state=finished", "items=64", "seed<=1", "seed!=0"], "1"),
    ],
)
def test_filters(folder: Path, where: list[str], left: str) -> None:
    found = sorted(r.path.name for r in distk.runs("runs", where=where))
    names = [f"{name}-{seed}" for name in ("fast", "slow") for seed in range(4)]
    assert found == [name for name in names if left in name]


def test_a_run_without_the_value_is_left_out_and_comes_last() -> None:
    runs = [Record(Path(str(i)), scores={} if i == 1 else {"mig.mig": -i}) for i in range(3)]
    assert [str(r.path) for r in chosen(runs, ["mig<=0"], {"mig": "mig"})] == ["0", "2"]
    assert [str(r.path) for r in chosen(runs, ["mig!=0"], {"mig": "mig"})] == ["1", "2"]
    assert [str(r.path) for r in ordered(runs, "mig.mig", {})] == ["2", "0", "1"]
    assert [str(r.path) for r in ordered(runs, "-mig.mig", {})] == ["0", "2", "1"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--where", "bathc=16"], "Did you mean 'batch'?"),
        (["--where", "seed>two"], "'two' is no number"),
        (["--where", "seed"], "is not understood; write KEY=VALUE"),
        (["--sort", "sed"], "Did you mean 'seed'?"),
        (["--columns", "msse"], "Did you mean 'mse'?"),
        (["--csv", "--json"], "give --csv or --json"),
    ],
)
def test_a_mistake_is_one_sentence(distk_command, folder: Path, arguments: list[str], words: str) -> None:
    code, out, errors = distk_command("runs", "runs", *arguments)
    assert (code, out) == (2, "")
    assert words in " ".join(errors.split())


def test_a_folder_that_is_not_there_and_one_without_runs(distk_command, in_folder: Path) -> None:
    code, _, errors = distk_command("runs", "nowhere")
    assert code == 1
    assert "'nowhere' is not there" in errors
    (in_folder / "empty").mkdir()
    code, out, errors = distk_command("runs", "empty")
    assert (code, out) == (0, "")
    assert "no run lies below 'empty'" in errors


# ------------------------------------------------------------------------------------------------- the index


def test_only_what_changed_is_read_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = index.read
    seen: list[str] = []
    monkeypatch.setattr(index, "read", lambda path: (seen.append(path.name), read(path))[1])
    distk.runs("runs")
    assert len(seen) == 8
    first = {r.path: r for r in distk.runs("runs")}
    assert len(seen) == 8
    file = folder / "slow-1" / "log.jsonl"
    file.write_text(file.read_text() + '{"step": 31, "mse": 7.5}\n')
    again = {r.path: r for r in distk.runs("runs")}
    assert seen[8:] == ["slow-1"]
    assert again[Path("runs/slow-1")].logged["mse"] == 7.5
    assert {p: r for p, r in again.items() if p.name != "slow-1"} == {
        p: r for p, r in first.items() if p.name != "slow-1"
    }
    (folder / "slow-2" / "checkpoint.eval.json").unlink()
    assert {r.path.name: r.scores for r in distk.runs("runs")}["slow-2"] == {}


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b'{"format": 1}', b'{"runs": {"x": 1}}', "kept"])
def test_the_index_is_only_a_cache(folder: Path, content: bytes | str) -> None:
    before = distk.runs("runs", sort="path")
    held = json.loads(index_file().read_text())
    if content == "kept":  # of the right version, with runs that are nothing
        content = json.dumps({**held, "runs": {name: [mark, {"no": 1}] for name, (mark, _) in held["runs"].items()}})
        content = content.encode()
    index_file().write_bytes(content)
    assert distk.runs("runs", sort="path") == before
    assert json.loads(index_file().read_text())["runs"] == held["runs"]


def test_a_cache_that_cannot_be_written_costs_only_time(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTK_CACHE", str(folder / "slow-0" / "config.toml"))
    assert len(distk.runs("runs")) == 8


def test_listing_again_imports_no_torch(folder: Path) -> None:
    distk.runs("runs")
    code = "import sys, distk; n = len(distk.runs('runs')); print(n, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["8", "False"]


# ---------------------------------------------------------------------------------------- states and damage


def test_states(folder: Path) -> None:
    (folder / "slow-0" / "failure.txt").write_text("the disk was full")
    (folder / "slow-1" / "checkpoint.safetensors").unlink()
    shorter = folder / "slow-2" / "checkpoint.safetensors"
    raw = shorter.read_bytes()
    assert raw.count(b'\\"step\\": 30,') == 1
    shorter.write_bytes(raw.replace(b'\\"step\\": 30,', b'\\"step\\": 20,'))

    def states() -> dict[str, str]:
        return {r.path.name: r.state for r in distk.runs("runs") if r.path.name.startswith("slow")}

    assert states() == {"slow-0": "failed", "slow-1": "not begun", "slow-2": "stopped", "slow-3": "finished"}
    with open(folder / "slow-2" / ".lock", "a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert states()["slow-2"] == "running"
    assert states()["slow-2"] == "stopped"
    assert next(r.problem for r in distk.runs("runs") if r.path.name == "slow-0") == "the disk was full"


def test_damaged_and_hostile_folders_do_not_hide_the_others(distk_command, folder: Path, tmp_path: Path) -> None:
    (folder / "slow-0" / "checkpoint.safetensors").write_bytes(b"\xff" * 8 + b"{}")
    (folder / "slow-1" / "checkpoint.eval.json").write_text('{"metrics": [1]}')
    (folder / "slow-2" / "checkpoint.eval.json").write_text("[" * 100_000)
    (folder / "slow-3" / "log.jsonl").write_text('[1]\n{"step": 3, "loss": {}}\n{"step": \x1b[31m')
    pipe = folder / "piped"
    pipe.mkdir()
    os.mkfifo(pipe / "checkpoint.safetensors")
    (folder / "fast-0" / "config.toml").unlink()
    os.symlink(tmp_path, folder / "circle")
    (folder / "fast-1" / "failure.txt").write_text("\x1b[2Jgone")
    code, out, errors = distk_command("runs", "runs", "--limit", "0")
    assert code == 0, errors
    assert len(named(out)) == 8
    assert "\x1b" not in out + errors
    assert "slow-0: checkpoint.safetensors cannot be read" in " ".join(errors.split())
    assert {r.path.name: r.scores for r in distk.runs("runs")}["slow-1"] == {}


def test_scores_of_an_earlier_step_are_not_those_of_the_run(folder: Path, score) -> None:
    file = folder / "slow-0" / "checkpoint.eval.json"
    told = json.loads(file.read_text())
    told["metrics"]["covstats"]["measured"]["step"] = 20
    file.write_text(json.dumps(told))
    record = next(r for r in distk.runs("runs") if r.path.name == "slow-0")
    assert {key.partition(".")[0] for key in record.scores} == {"reconstruction"}
    assert record.problem == "covstats was scored at step 20: score it again"


def test_a_study_is_listed_by_its_runs(folder: Path) -> None:
    study = folder / "study-x" / "runs" / "a" / "s0"
    (folder / "slow-0").rename(study.parent.mkdir(parents=True) or study)
    numbers = {"step": 30, "last": {'mig {"a": 1}': {"mig": 0.25, "n": None}, 'mig {"a": 2}': {"mig": 0.5}}}
    (study / "scores.json").write_text(json.dumps(numbers))
    found = {r.path.as_posix(): r for r in distk.runs("runs")}
    assert found["runs/study-x/runs/a/s0"].scores["mig.mig"] == 0.25
    assert len(found) == 8


def test_the_end_of_a_long_log(tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    file.write_text("".join(json.dumps({"step": i}) + "\n" for i in range(1000)))
    assert [row["step"] for row in last_rows(file, 100)] == list(range(1000 - len(last_rows(file, 100)), 1000))
    assert 5 <= len(last_rows(file, 100)) <= 7
    assert len(last_rows(file)) == 1000
