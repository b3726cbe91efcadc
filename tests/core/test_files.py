"""One door to files: regular ones only, no link followed, nothing that waits; what a killed process left."""

from __future__ import annotations

import json
import os
import stat
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes

import distk
from distk import cachedcodes, console, files
from distk.errors import DistkError
from distk.run import Run

SMALL = {"z": 2, "hidden": 8, "warmup": 0, "size": 32, "scales": [5], "orientations": 1, "positions": 6, "batch": 4}


@pytest.fixture
def run(tmp_path) -> Run:
    return distk.train(
        "cascadevae", steps=2, device="cpu", quiet=True, out=tmp_path / "run", checkpoint_every=1, **SMALL
    )


@pytest.fixture
def mask():
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


@pytest.mark.parametrize(("umask", "mode"), [(0o077, "0o600"), (0o022, "0o644"), (0o002, "0o664")])
def test_who_may_read_is_as_the_umask_says(tmp_path, mask, umask, mode) -> None:
    mask(umask)
    made = distk.train("cascadevae", steps=1, device="cpu", quiet=True, out=tmp_path / "run", **SMALL).path
    written = [path for path in made.rglob("*") if path.is_file()]
    assert {"config.toml", "checkpoint.safetensors", "log.jsonl"} <= {path.name for path in written}
    assert {oct(stat.S_IMODE(path.stat().st_mode)) for path in written} == {mode}


def test_only_regular_files_are_opened(tmp_path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    os.mkfifo(tmp_path / "pipe")
    assert files.read_bytes(tmp_path / "file") == b"abc"
    assert files.read_text(tmp_path / "file", 3) == "abc"
    with pytest.raises(OSError, match="more than 2 bytes"):
        files.read_bytes(tmp_path / "file", 2)
    for name in ("link", "pipe", "."):
        with pytest.raises(OSError, match="no regular file"):
            files.own_file(tmp_path / name)
    for name in ("link", "pipe"):
        with pytest.raises(OSError, match="no regular file"):
            files.own_file(tmp_path / name, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    with pytest.raises(OSError, match="no regular file"):
        files.own_file("/dev/zero")


def test_an_atomic_write_that_fails_leaves_nothing(tmp_path, monkeypatch) -> None:
    (tmp_path / "file").write_bytes(b"before")

    def fails(*a: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fails)
    with pytest.raises(DistkError, match=r"No space left on device. What was there before is untouched"):
        files.write_atomic(tmp_path / "file", b"after")
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"file": b"before"}


@pytest.mark.parametrize("kind", ["pipe", "link", "folder"])
@pytest.mark.parametrize("name", ["log.jsonl", ".lock"])
def test_no_member_of_a_run_folder_keeps_a_command_waiting(run, distk_command, name, kind) -> None:
    victim = run.path.parent / "victim"
    (run.path / name).unlink(missing_ok=True)
    {"pipe": os.mkfifo, "link": lambda p: p.symlink_to(victim), "folder": lambda p: p.mkdir()}[kind](run.path / name)
    code, _, said = distk_command("resume", run.path, "--steps", 3)
    assert code == 1
    assert "run folder" in said
    assert len(said.strip().splitlines()[-1]) > 10
    assert "unexpected" not in said
    assert not victim.exists()


def test_no_picture_leaves_the_run_folder(run, distk_command) -> None:
    outside = run.path.parent / "outside"
    outside.mkdir()
    for path in (run.path / "samples").iterdir():
        path.unlink()
    (run.path / "samples").rmdir()
    (run.path / "samples").symlink_to(outside)
    code, _, said = distk_command("resume", run.path, "--steps", 3)
    assert code == 1
    assert "'samples' is a link, which is not followed" in said
    assert list(outside.iterdir()) == []


def test_a_picture_that_a_kill_prevented_is_drawn_when_the_run_goes_on(run, distk_command) -> None:
    samples = run.path / "samples"
    expected = (samples / "step-0000002.png").read_bytes()
    (samples / "step-0000002.png").unlink()
    (samples / f".step-0000002.png.{'0' * 16}.tmp").write_bytes(b"half")
    (run.path / f".checkpoint.safetensors.{'0' * 16}.tmp").write_bytes(b"half")
    mine = run.path / ".mine.tmp"
    mine.write_bytes(b"of the user")
    assert distk_command("resume", run.path, "--steps", 3)[0] == 0
    assert (samples / "step-0000002.png").read_bytes() == expected
    assert [p for p in run.path.rglob("*.tmp") if p != mine] == []
    assert mine.exists()


def test_what_another_command_writes_now_stays_until_it_is_old(tmp_path) -> None:
    young, old = (tmp_path / f".checkpoint.eval.json.{digit * 16}.tmp" for digit in "01")
    for path in (young, old):
        path.write_bytes(b"")
    os.utime(old, (time.time() - 2 * files.SWEPT_AFTER,) * 2)
    files.sweep(tmp_path, ("checkpoint.safetensors",))
    assert [p.name for p in tmp_path.iterdir()] == [young.name]


def test_a_log_that_is_removed_while_training_is_noticed(tmp_path, monkeypatch) -> None:
    said: list[str] = []
    monkeypatch.setattr("distk.run.warn", said.append)
    run = Run(tmp_path / "run", {})
    run.open()
    run.write_row(1, {"a": 1.0})
    (run.path / "log.jsonl").unlink()
    run.write_row(2, {"a": 2.0})
    run.write_row(3, {"a": 3.0})
    assert [row["step"] for row in run.log] == [2, 3]
    assert len(said) == 1
    assert "was removed while this run writes it" in said[0]
    run.close()


def test_pictures_that_cannot_be_drawn_are_one_warning(run, monkeypatch, capsys) -> None:
    from distk.models import open_model
    from distk.training.snapshots import snapshot

    monkeypatch.setattr(console, "_warned", set())
    model, _ = open_model(run.checkpoint, "cpu")
    (run.path.parent / "file").write_bytes(b"")
    for step in range(5):
        assert snapshot(model, model.dataset(), run.path.parent / "file", step) is None
    assert capsys.readouterr().err.count("no picture for samples/") == 1
    monkeypatch.setattr(console, "_warned", set())

    def full(path: Path, image: object) -> None:
        raise DistkError(f"cannot write '{path}': No space left on device")

    monkeypatch.setattr("distk.images.save_png", full)
    for step in range(5):
        assert snapshot(model, model.dataset(), run.path / "samples", step) is None
    assert capsys.readouterr().err.count("no picture for samples/") == 1


def test_samples_that_were_removed_are_made_again(run, distk_command) -> None:
    for path in (run.path / "samples").iterdir():
        path.unlink()
    (run.path / "samples").rmdir()
    code, _, said = distk_command("resume", run.path, "--steps", 3)
    assert code == 0, said
    assert "no picture" not in said
    assert sorted(p.name for p in (run.path / "samples").iterdir()) == ["step-0000002.png", "step-0000003.png"]


# The cache of codes


def scores(distk_command, run: Run) -> tuple[dict, str]:
    code, out, said = distk_command("eval", run.path, "--metric", "mig", "--json", "--no-plots", "--out", "scores.json")
    assert code == 0, said
    found = json.loads(out)["metrics"]["mig"]
    found.pop("measured", None)  # when, and of what
    return found, said


def test_a_planted_cache_of_codes_is_not_believed(run, distk_command, monkeypatch, tmp_path) -> None:
    """Made-up codes with a right digest of themselves, where earlier versions kept theirs."""
    monkeypatch.setenv("DISTK_CACHE", str(tmp_path / "kept"))
    true, said = scores(distk_command, run)
    assert "from the cache" not in said
    assert [p.name for p in run.path.iterdir() if "codes" in p.name] == []
    again, said = scores(distk_command, run)
    assert "codes: from the cache" in said
    assert again == true
    cache = cachedcodes.codes_cache(run.checkpoint)
    assert cache.is_relative_to(tmp_path / "kept")
    held = load_file(cache)
    from safetensors import safe_open

    with safe_open(cache, framework="pt") as file:
        meta = file.metadata()
    held["codes"] = held["factors"][:, :1].double().expand(-1, held["codes"].shape[1]).to(held["codes"].dtype)
    held = {name: value.contiguous() for name, value in held.items()}
    meta["contents"] = cachedcodes.contents(held)
    (run.path / ".checkpoint.codes.safetensors").write_bytes(to_bytes(held, metadata=meta))
    cache.unlink()
    forged, said = scores(distk_command, run)
    assert forged == true
    assert "from the cache" not in said


@pytest.mark.parametrize("kind", ["pipe", "columns", "rows", "damaged"])
def test_an_impossible_cache_is_ignored(run, distk_command, monkeypatch, tmp_path, kind) -> None:
    monkeypatch.setenv("DISTK_CACHE", str(tmp_path / "kept"))
    true, _ = scores(distk_command, run)
    cache = cachedcodes.codes_cache(run.checkpoint)
    from safetensors import safe_open

    with safe_open(cache, framework="pt") as file:
        meta = file.metadata()
    held = load_file(cache)
    if kind == "pipe":
        cache.unlink()
        os.mkfifo(cache)
    elif kind == "damaged":
        cache.write_bytes(cache.read_bytes()[:-3])
    else:
        if kind == "columns":
            held["codes"] = torch.zeros(len(held["rows"]), 1)
        else:
            held["rows"] = held["rows"] + 10**12
        meta["contents"] = cachedcodes.contents(held)
        cache.write_bytes(to_bytes(held, metadata=meta))
    again, said = scores(distk_command, run)
    assert again == true
    assert "from the cache" not in said


def test_codes_that_are_old_are_removed(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("DISTK_CACHE", str(tmp_path))
    (tmp_path / "codes").mkdir()
    for name, age in (("young", 0), ("old", 2 * cachedcodes.CODES_KEPT)):
        (tmp_path / "codes" / f"{name}.safetensors").write_bytes(b"")
        os.utime(tmp_path / "codes" / f"{name}.safetensors", (time.time() - age,) * 2)
    cachedcodes.codes_cache(tmp_path / "checkpoint.safetensors")
    assert [p.name for p in (tmp_path / "codes").iterdir()] == ["young.safetensors"]
