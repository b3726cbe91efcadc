"""Checkpoints: what is written is read back; damaged, foreign and hostile files give one sentence."""

from __future__ import annotations

import json
import random
import struct

import pytest
import torch

from distk import checkpoint, files
from distk.device import Ranks
from distk.errors import DistkError
from distk.settings import resolve
from distk.training import beginning, loop

SMALL = {
    "model": {"z": 2, "hidden": 8, "warmup": 0, "relieve_every": 1},
    "data": {"name": "digits"},
    "train": {"batch": 4, "device": "cpu"},
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    settings = resolve("cascadevae", options=SMALL)
    trainer = beginning.build(settings, torch.device("cpu"), Ranks())
    trainer.step()
    path = tmp_path_factory.mktemp("c") / "c.safetensors"
    data = {"name": "digits", "options": {}, "folder": None, "origin": trainer.dataset.origin}
    header = checkpoint.header_for(trainer.model, settings.entry, data, 1, 0, {})
    checkpoint.save(path, trainer.model, header, trainer.state())
    return path, trainer


def rewritten(path, target, change) -> None:
    """Copy a checkpoint with its JSON header changed by `change(safetensors header, distk header)`."""
    raw = path.read_bytes()
    length = struct.unpack("<Q", raw[:8])[0]
    outer = json.loads(raw[8 : 8 + length])
    inner = json.loads(outer["__metadata__"]["distk"])
    change(outer, inner)
    if "distk" in outer.get("__metadata__", {}):
        outer["__metadata__"]["distk"] = json.dumps(inner)
    text = json.dumps(outer).encode()
    target.write_bytes(struct.pack("<Q", len(text)) + text + raw[8 + length :])


def test_round_trip_is_exact(saved) -> None:
    path, trainer = saved
    model, header = checkpoint.load(path)
    assert (header.method, header.step, header.distribution) == ("cascadevae", 1, "distk")
    for name, value in trainer.model.state_dict().items():
        assert torch.equal(model.state_dict()[name], value)
    assert torch.equal(checkpoint.load_training(path)["generator"], trainer.generator.get_state())
    x = trainer.dataset.batch(torch.arange(5))["x"]
    with torch.no_grad():
        assert torch.equal(model.encode(x)["z"], trainer.model.eval().encode(x)["z"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda o, i: o["__metadata__"].pop("distk"), "distk did not write"),
        (lambda o, i: i.update(format=99), r"format 99.*update distk"),
        (lambda o, i: i.update(method="nosuch"), "needs method 'nosuch' from plugin 'vae_family'"),
        (lambda o, i: i.update(surplus=1), "damaged"),
        (lambda o, i: i.update(step="1"), "damaged"),
        (lambda o, i: i.update(config=[]), "damaged"),
        (lambda o, i: i["config"].update(z=10**9), "above the largest allowed"),
        (lambda o, i: i["config"].update(hidden=60000), "does not fit its method"),
        (lambda o, i: i["config"].update(nosuch=1), "no setting 'nosuch'"),
        (lambda o, i: i["config"].update(solver="__import__('os')"), "none of auto"),
        (lambda o, i: i["data"]["spec"].update(shape=[1, 10**9, 10**9]), r"damaged \(data\.spec\.shape\)"),
        (lambda o, i: i["data"]["spec"].update(shape=[1, 4, 4]), "do not build the method"),
        (lambda o, i: i["data"].pop("spec"), r"damaged \(data\.spec\)"),
        (lambda o, i: o.pop("model/encoder.body.0.bias"), r"does not fit|truncated or no"),
    ],
)
def test_damaged_headers(saved, tmp_path, change, message) -> None:
    target = tmp_path / "x.safetensors"
    rewritten(saved[0], target, change)
    with pytest.raises(DistkError, match=message):
        checkpoint.load(target)


def test_truncated_foreign_and_missing_files(saved, tmp_path) -> None:
    raw = saved[0].read_bytes()
    target = tmp_path / "x.safetensors"
    for content in (
        b"",
        b"\x01",
        raw[: len(raw) // 2],
        raw[:100],
        b"PK\x03\x04" + raw,
        b"\xff" * 64,
        random.randbytes(500),
    ):
        target.write_bytes(content)
        with pytest.raises(DistkError, match=r"truncated or not a safetensors|header of"):
            checkpoint.load(target)
    with pytest.raises(DistkError, match="does not exist"):
        checkpoint.load(tmp_path / "gone.safetensors")


def test_random_mutations_never_crash(saved, tmp_path, seed) -> None:
    """Bytes of the header and of the data are changed at random: an error, or a load, never anything else."""
    import random

    rng = random.Random(seed)
    raw = bytearray(saved[0].read_bytes())
    length = struct.unpack("<Q", raw[:8])[0]
    target = tmp_path / "x.safetensors"
    refused = 0
    for _ in range(150):
        copy = bytearray(raw)
        for _ in range(rng.choice((1, 1, 4))):
            copy[rng.randrange(8 + length if rng.random() < 0.9 else len(copy))] = rng.randrange(256)
        target.write_bytes(copy)
        try:
            checkpoint.load(target)
        except DistkError:
            refused += 1
    assert refused > 50


def test_a_failed_write_keeps_the_old_file(saved, tmp_path, monkeypatch) -> None:
    target = tmp_path / "c.safetensors"
    target.write_bytes(b"old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(DistkError, match="No space left on device"):
        files.write_atomic(target, b"new")
    assert target.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["c.safetensors"]


def test_stripped_checkpoints_cannot_be_resumed(saved, tmp_path) -> None:
    model, header = checkpoint.load(saved[0])
    checkpoint.save(tmp_path / "s.safetensors", model, header)
    assert checkpoint.load(tmp_path / "s.safetensors")[1].step == 1
    with pytest.raises(DistkError, match="stripped"):
        loop.resume(tmp_path / "s.safetensors")
