"""`--log mlflow`: what a run sends arrives in a store of a file or of SQLite, and is there once after a resume."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import distk
from distk.errors import UsageError
from distk.plugins import mlflow as plugin

SMALL = {"z": 2, "hidden": 8, "size": 32, "scales": (5,), "orientations": 1, "positions": 6, "batch": 8}
COMMON: dict[str, Any] = {**SMALL, "device": "cpu", "quiet": True, "log_every": 1, "log": ("mlflow",)}


@pytest.fixture
def client(in_folder: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Any:
    """A client of the store that runs of this test go to."""
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    tracking = pytest.importorskip(
        "mlflow.tracking", reason="the extra mlflow is not installed: pip install 'distk[mlflow]'"
    )
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    uri = f"sqlite:///{in_folder / 'mlflow.db'}"
    if getattr(request, "param", "sqlite") == "file":
        uri = (in_folder / "store").as_uri()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    return tracking.MlflowClient(tracking_uri=uri)


def runs_of(client: Any, name: str = "distk") -> list[Any]:
    return list(client.search_runs([client.get_experiment_by_name(name).experiment_id]))


def files_of(client: Any, run: str, folder: str) -> list[str]:
    return sorted(each.path for each in client.list_artifacts(run, folder))


@pytest.mark.parametrize("client", ["sqlite", "file"], indirect=True)
def test_everything_arrives(client: Any, tmp_path: Path) -> None:
    run = distk.train("cascadevae-c", steps=4, checkpoint_every=2, out="runs/a", **COMMON)
    (held,) = runs_of(client)
    assert held.info.status == "FINISHED"
    assert held.info.run_name == "runs/a"
    params = held.data.params
    assert (params["method"], params["model.z"], params["train.steps"]) == ("cascadevae-c", "2", "4")
    assert params["data.positions"] == "6"
    rows = run.log
    assert len(rows) == 4
    for name in set(rows[0]) - {"step", "seconds"}:
        shown = [(m.step, m.value) for m in client.get_metric_history(held.info.run_id, name)]
        assert sorted(shown) == [(row["step"], pytest.approx(row[name])) for row in rows], name
    assert files_of(client, held.info.run_id, "checkpoints") == ["checkpoints/checkpoint.safetensors"]
    pictures = sorted(path.name for path in (run.path / "samples").iterdir())
    assert pictures
    assert files_of(client, held.info.run_id, "samples") == [f"samples/{name}" for name in pictures]
    there = client.download_artifacts(held.info.run_id, "checkpoints/checkpoint.safetensors", str(tmp_path))
    assert Path(there).read_bytes() == run.checkpoint.read_bytes()
    assert held.data.tags["distk.outcome"] == "finished"


def test_a_resumed_run_goes_on_where_it_was_and_sends_nothing_twice(client: Any) -> None:
    from distk.training.loop import resume

    run = distk.train("cascadevae-c", steps=4, checkpoint_every=2, out="runs/a", **COMMON)
    again = resume(run.path, steps=6, quiet=True)
    distk.train("cascadevae-c", steps=1, out="runs/b", **COMMON)
    held = {each.info.run_name: each for each in runs_of(client)}
    assert sorted(held) == ["runs/a", "runs/b"]
    history = client.get_metric_history(held["runs/a"].info.run_id, "loss")
    assert sorted(m.step for m in history) == [row["step"] for row in again.log] == [1, 2, 3, 4, 5, 6]


def test_steps_that_a_killed_run_takes_again_stand_there_once(client: Any) -> None:
    from distk.plugins.mlflow.writer import Writer
    from distk.run import Run

    config = {"method": "m", "model": {}, "data": {}, "train": {"log": ["mlflow"]}}
    run = Run(Path("runs/k"), config)
    (run.path / "samples").mkdir(parents=True)
    first = Writer(run, 0)
    for step in (10, 20, 30):
        first.row(step, {"loss": 1 / step, "odd [name]": 2.0, "word": "no number"})  # type: ignore[dict-item]
    second = Writer(run, 20)  # killed after 30, its last checkpoint is of 20
    for step in (30, 40):
        second.row(step, {"loss": 1 / step})
    second.close("failed")
    (held,) = runs_of(client)
    assert [m.step for m in client.get_metric_history(held.info.run_id, "loss")] == [10, 20, 30, 40]
    assert "odd _name_" in held.data.metrics
    assert held.info.status == "FAILED"


def test_no_link_leaves_the_run_folder(client: Any) -> None:
    from distk.plugins.mlflow.writer import Writer
    from distk.run import Run

    run = Run(Path("runs/l"), {"method": "m", "train": {"log": ["mlflow"]}})
    (run.path / "samples").mkdir(parents=True)
    Path("secret.png").write_text("secret")
    (run.path / "samples" / "step-1.png").symlink_to(Path("secret.png").resolve())
    made = Writer(run, 0)
    made.close("finished")
    assert files_of(client, made.id, "samples") == []


def test_seeds_side_by_side_share_a_new_store(client: Any, in_folder: Path) -> None:
    words = "train covreg-linear --data dimred --batch 20 --steps 3 --log-every 1 --device cpu --seeds 0:2 --log mlflow"
    line = [sys.executable, "-m", "distk", *words.split(), "--out", "runs/s"]
    done = subprocess.run(line, capture_output=True, text=True, cwd=in_folder, env=dict(os.environ))
    assert done.returncode == 0, done.stderr
    assert "goes on without" not in done.stderr
    assert sorted(each.info.run_name for each in runs_of(client)) == ["runs/s/s0", "runs/s/s1"]


def test_without_the_extra_it_is_silent_until_asked_for(
    in_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setattr(plugin, "_missing", lambda: "sqlalchemy")
    distk.train("cascadevae-c", steps=1, out="a", **{**COMMON, "log": ()})
    assert "mlflow" not in capsys.readouterr().err
    with pytest.raises(UsageError, match=r"needs the package sqlalchemy: pip install 'distk\[mlflow\]'"):
        distk.train("cascadevae-c", steps=1, out="b", **COMMON)
    assert not Path("b").exists()
    assert not Path("mlflow.db").exists()
