"""What a file says of itself decides neither what is imported nor what is read."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import struct
from pathlib import Path

import pytest
from PIL import Image

import distk
from distk import places
from distk.errors import DistkError, UsageError
from distk.registry import registry


@pytest.fixture
def nowhere(tmp_path, monkeypatch) -> Path:
    """A machine on which no place was named yet."""
    monkeypatch.setenv("DISTK_CACHE", str(tmp_path / "kept"))
    monkeypatch.delenv("DISTK_DATA", raising=False)
    monkeypatch.setattr(places, "_named", set())
    return tmp_path


def with_header(path: Path, section: str = "data", **values: object) -> None:
    """Rewrite what a checkpoint says of its data, or in another section."""
    content = path.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    outer = json.loads(content[8 : 8 + length])
    inner = json.loads(outer["__metadata__"]["distk"])
    inner[section] |= values
    outer["__metadata__"]["distk"] = json.dumps(inner)
    text = json.dumps(outer).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])


@pytest.fixture
def pictures(nowhere) -> Path:
    folder = nowhere / "pictures"
    folder.mkdir()
    for i in range(6):
        Image.new("L", (8, 8), i * 40).save(folder / f"{i}.png")
    return folder


def trained(folder: Path, pictures: Path) -> Path:
    options = {"data": "folder", "data_dir": str(pictures), "size": 32, "z": 2, "batch": 4, "hidden": 8, "warmup": 0}
    return distk.train("cascadevae", steps=1, device="cpu", quiet=True, out=folder / "run", **options).path


def forget(monkeypatch, where: Path) -> None:
    """As on another machine."""
    monkeypatch.setattr(places, "_named", set())
    monkeypatch.setenv("DISTK_CACHE", str(where))


def test_a_place_is_known_once_it_was_named(nowhere, monkeypatch) -> None:
    there = nowhere / "data"
    with pytest.raises(UsageError, match=rf"the file names '{there}', and nobody has named it .*: cure {there}"):
        places.check(str(there), "the file", "cure")
    places.name(there)
    places.check(str(there), "the file", "cure")
    monkeypatch.setattr(places, "_named", set())  # another process
    places.check(str(there), "the file", "cure")
    places.check(str(there / "inner"), "the file", "cure")
    for other in (str(nowhere), f"{there}2", "/", f"{there}/.."):
        with pytest.raises(UsageError):
            places.check(other, "the file", "cure")
    assert oct((nowhere / "kept" / "places").stat().st_mode & 0o777) == "0o600"
    monkeypatch.setenv("DISTK_DATA", str(nowhere))
    places.check(str(nowhere / "other"), "the file", "cure")


def test_an_empty_name_in_a_file_is_no_word_of_the_user(nowhere, pictures, monkeypatch) -> None:
    """It means the working folder, which would be known from then on, and everything below it."""
    run = trained(nowhere, pictures)
    with_header(run / "checkpoint.safetensors", folder="")
    forget(monkeypatch, nowhere / "elsewhere")
    monkeypatch.chdir(nowhere)
    with pytest.raises(UsageError, match="data set 'folder' needs the folder of images"):
        distk.load(run, "cpu").dataset()
    with pytest.raises(UsageError, match="nobody has named it"):
        places.check(str(nowhere), "the file", "cure")
    with pytest.raises(UsageError, match="the folder of data set 'folder' is empty: name one with --data-dir"):
        distk.open_dataset("folder", {"size": 8}, folder="")
    with pytest.raises(UsageError, match="nobody has named it"):
        places.check(str(nowhere), "the file", "cure")


def test_a_place_may_lie_below_the_home_folder(nowhere, pictures, monkeypatch) -> None:
    run = trained(nowhere, pictures)
    monkeypatch.setenv("HOME", str(nowhere))
    with_header(run / "checkpoint.safetensors", folder="~/pictures")
    assert len(distk.load(run, "cpu").dataset()) == 6


@pytest.mark.parametrize("share", [1e308, 1.0, -0.5])
def test_a_share_of_the_rows_that_is_none_is_refused(share, nowhere, pictures) -> None:
    run = trained(nowhere, pictures)
    with_header(run / "checkpoint.safetensors", "train", validation=share)
    with pytest.raises(DistkError, match=r"does not say which data it was trained on \(.* of its rows are kept back\)"):
        distk.load(run, "cpu").dataset()


@pytest.mark.parametrize("name", ["9" * 5000, "~nobody-of-that-name/x", "a/" * 3000])
def test_a_name_that_no_system_takes_is_a_folder_that_is_not_there(name, nowhere, pictures, monkeypatch) -> None:
    run = trained(nowhere, pictures)
    monkeypatch.chdir(nowhere)
    places.name(nowhere)
    with_header(run / "checkpoint.safetensors", folder=name)
    with pytest.raises(UsageError, match="no longer at"):
        distk.load(run, "cpu").dataset()
    with pytest.raises(UsageError, match="does not exist"):
        distk.open_dataset("folder", {"size": 8}, folder=name)


def test_a_damaged_list_of_places_names_none(nowhere) -> None:
    (nowhere / "kept").mkdir()
    (nowhere / "kept" / "places").write_bytes(b'\xff\n[\n3\n{"a": 1}\n"/tmp\n' + b"[" * 100_000 + b'\n"/right"\n')
    assert places._remembered() == {"/right"}
    (nowhere / "kept" / "places").unlink()
    os.mkfifo(nowhere / "kept" / "places")  # neither hangs
    assert places._remembered() == set()
    places.name("/x")
    places.check("/x", "the file", "cure")


def test_a_link_does_not_lead_out_of_a_named_place(nowhere) -> None:
    (nowhere / "named").mkdir()
    (nowhere / "named" / "out").symlink_to("/")
    places.name(nowhere / "named")
    with pytest.raises(UsageError, match="nobody has named it"):
        places.check(str(nowhere / "named" / "out"), "the file", "cure")


@pytest.mark.parametrize("arguments", [["traverse"], ["eval", "--metric", "unsupervised"], ["resume", "--steps", "2"]])
def test_the_folder_that_a_checkpoint_names_is_read_once_the_user_names_it(
    nowhere, pictures, monkeypatch, distk_command, arguments
) -> None:
    run = trained(nowhere, pictures)
    command, *rest = arguments
    forget(monkeypatch, nowhere / "elsewhere")
    code, _, said = distk_command(command, run, *rest)
    assert code == 2
    assert f"names '{pictures}', and nobody has named it on this machine" in said
    assert f"distk data folder --data-dir {pictures}" in said.replace("\n", "")
    code, _, said = distk_command(command, run, *rest, "--data-dir", pictures)
    assert code == 0, said
    code, _, said = distk_command(*(command, run, *rest) if command != "resume" else ("resume", run, "--steps", "3"))
    assert code == 0, said


def test_the_disk_is_not_walked_for_a_stranger(nowhere, pictures, distk_command) -> None:
    run = trained(nowhere, pictures)
    with_header(run / "checkpoint.safetensors", folder="/")
    for command in (("traverse", run), ("resume", run, "--steps", "2"), ("embed", run), ("reconstruct", run)):
        code, _, said = distk_command(*command)
        assert code == 2
        assert "names '/', and nobody has named it" in said


def test_files_named_by_settings_are_held_to_the_same(nowhere, distk_command) -> None:
    made = distk.train("arae", steps=1, device="cpu", quiet=True, out=nowhere / "run", preset="demo")
    options = {"tagger_file": "/etc/hostname"}
    with_header(made.checkpoint, options=options)
    code, _, said = distk_command("eval", made.path, "--metric", "unsupervised")
    assert code == 2
    assert "names '/etc/hostname', and nobody" in said


def test_every_setting_that_is_a_place_says_so() -> None:
    """By its help: a setting that names a file or a folder is declared `place`."""
    kinds, seen = ("method", "dataset", "metric", "penalty"), set()
    configs = [entry.load().Config for kind in kinds for entry in registry().entries(kind)]
    from distk.settings import TrainConfig

    for config in [*configs, TrainConfig]:
        for field in dataclasses.fields(config):
            told = field.metadata.get("help", "")
            place = re.match(r"(word2vec |another )?(file|checkpoint|folder|path)\b|tagger trained by", told)
            if place and "str" in str(field.type):
                assert field.metadata["place"], f"{config.__module__}.{config.__name__}.{field.name}: {told}"
                seen.add(field.name)
    assert seen >= {"init_from", "judge", "verifier", "embedder", "tagger_file", "evaluator", "vectors"}


def test_an_environment_imports_no_module(nowhere, monkeypatch, distk_command) -> None:
    pytest.importorskip("gymnasium")
    (nowhere / "evilmod.py").write_text("open('PWNED', 'w').close()\n")
    monkeypatch.syspath_prepend(nowhere)
    monkeypatch.chdir(nowhere)
    run = distk.train("betavae", steps=1, device="cpu", quiet=True, out=nowhere / "run", preset="demo", z=2)
    name = {"name": "gym:evilmod:Foo-v0", "options": {}}
    with_header(run.checkpoint, **name)
    (run.path / "config.toml").unlink()  # it names other data than the checkpoint now, which is refused first
    for command in (("traverse", run.path), ("resume", run.path, "--steps", 2), ("data", "gym:evilmod:Foo-v0")):
        code, _, said = distk_command(*command)
        assert code == 2, said
        assert "names a module to be imported" in said
    assert not list(nowhere.rglob("PWNED"))
    monkeypatch.setenv("DISTK_GYM", "evilmod")  # as the message says
    code, _, said = distk_command("data", "gym:Foo-v0")
    assert code == 2
    assert "Gymnasium cannot make 'Foo-v0'" in said
    assert list(nowhere.rglob("PWNED"))
    monkeypatch.setenv("DISTK_GYM", "nosuchmodule")
    assert "DISTK_GYM names 'nosuchmodule', which cannot be imported" in distk_command("data", "gym:CartPole-v1")[2]
