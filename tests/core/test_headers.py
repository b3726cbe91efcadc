"""What a header, a configuration or a log may say: one schema, and a sentence for everything else."""

from __future__ import annotations

import copy
import json
import struct
from pathlib import Path
from typing import Any

import pytest

import distk
from distk import checkpoint, headers
from distk.errors import DistkError, UsageError
from distk.settings import resolve

SMALL = {"z": 2, "hidden": 8, "warmup": 0, "size": 32, "scales": [5], "orientations": 1, "positions": 6, "batch": 4}


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> bytes:
    folder = tmp_path_factory.mktemp("sound") / "run"
    return distk.train("cascadevae", steps=1, device="cpu", quiet=True, out=folder, **SMALL).checkpoint.read_bytes()


def rewritten(sound: bytes, path: Path, text: str) -> Path:
    """A checkpoint whose header has this text."""
    length = struct.unpack("<Q", sound[:8])[0]
    outer = json.loads(sound[8 : 8 + length])
    outer["__metadata__"]["distk"] = text
    made = json.dumps(outer).encode()
    path.write_bytes(struct.pack("<Q", len(made)) + made + sound[8 + length :])
    return path


def header_of(sound: bytes) -> dict[str, Any]:
    length = struct.unpack("<Q", sound[:8])[0]
    return json.loads(json.loads(sound[8 : 8 + length])["__metadata__"]["distk"])


def replaced(header: dict[str, Any], where: str, value: Any) -> dict[str, Any]:
    made = copy.deepcopy(header)
    *path, last = where.split(".")
    holder = made
    for key in path:
        holder = holder[int(key)] if key.isdigit() else holder.setdefault(key, {})
    if value is KeyError:
        holder.pop(int(last) if last.isdigit() else last)
    else:
        holder[int(last) if last.isdigit() else last] = value
    return made


WRONG: list[tuple[str, Any]] = [
    *(("data.spec", value) for value in (KeyError, None, 3, [], {})),
    *(("data.spec.kind", value) for value in (KeyError, 3, None)),
    *(("data.spec.shape", value) for value in (KeyError, "abc", [0], [-1], [1.5], [True], [1] * 7, [2**30], None)),
    *(("data.spec.range", value) for value in (KeyError, [1, 0], [0, 0], [0], [0, "1"], None, [False, True])),
    *(("data.spec.classes", value) for value in (KeyError, 3, [3])),
    *(("data.spec.extra", value) for value in (KeyError, [], None)),
    *(("latents.0", value) for value in (None, 3, "x", [])),
    *((f"latents.0.{key}", value) for key in ("name", "kind", "size") for value in (KeyError, None, [], -1)),
    *(
        ("metrics.best", value)
        for value in (None, 3, "x", [], {}, {"metric": "m", "key": "k", "value": "1", "step": 1})
    ),
    ("metrics.best", {"metric": "m", "key": "k", "value": 1.0, "step": "x"}),
    ("metrics.best", {"metric": "m", "value": 1.0, "step": 1}),
    *(("step", value) for value in (-1, True, 1.0, "1", None)),
    *(("config", value) for value in (None, [], 3)),
    *(("data.name", value) for value in (None, 3, [])),
    ("data.origin", "\ud800"),
    ("train.x\udfff", 1),
    ("config.z", 2**64),
]


@pytest.mark.parametrize(("where", "value"), WRONG, ids=lambda v: str(v)[:24].encode("ascii", "replace").decode())
def test_a_header_of_wrong_kinds_is_refused_where_it_is_read(sound, tmp_path, where, value) -> None:
    text = json.dumps(replaced(header_of(sound), where, value))
    path = rewritten(sound, tmp_path / "c.safetensors", text)
    with pytest.raises(DistkError, match=r"the header of '.*' is damaged"):
        checkpoint.read_header(path)


@pytest.mark.parametrize(
    "value", ["NaN", "Infinity", "-Infinity", "1e999", "9" * 5000, "9" * 4000, "[" * 40 + "]" * 40, "[" * 10**5]
)
def test_json_that_we_never_write_is_refused(sound, tmp_path, value) -> None:
    text = json.dumps(header_of(sound))
    text = text.replace('"metrics": {', f'"metrics": {{"x": {value}, ')
    assert value in text
    with pytest.raises(DistkError, match=r"the header of '.*' is damaged"):
        checkpoint.read_header(rewritten(sound, tmp_path / "c.safetensors", text))


def test_a_sound_header_passes(sound, tmp_path) -> None:
    header = header_of(sound)
    headers.check(headers.parsed(json.dumps(header)))
    best = {"metric": "mig", "key": "mig", "value": 0.5, "step": 3}
    path = rewritten(sound, tmp_path / "c.safetensors", json.dumps(replaced(header, "metrics.best", best)))
    assert checkpoint.read_header(path).metrics["best"] == best


@pytest.mark.parametrize("name", ["\x1b[31m\x9b31m‮abc", "a\tb", "zero\u200bwidth", "\x07"])
def test_nothing_of_a_header_reaches_the_terminal_raw(sound, tmp_path, distk_command, name) -> None:
    path = rewritten(sound, tmp_path / "c.safetensors", json.dumps(replaced(header_of(sound), "data.origin", name)))
    for more in ((), ("--json",)):
        code, out, said = distk_command("info", path, *more)
        assert code == 0, said
        assert all(c.isprintable() or c == "\n" for c in out + said)
    assert json.loads(out)["data"]["origin"] == name, "as JSON it is told whole"


def test_words_of_a_strangers_vocabulary_are_cleaned(tmp_path, distk_command) -> None:
    """Window title, colours, clipboard: through every command that prints sentences."""
    run = distk.train("arae", steps=1, device="cpu", quiet=True, out=tmp_path / "run", preset="demo")
    content = run.checkpoint.read_bytes()
    header = header_of(content)
    vocab = header["data"]["spec"]["extra"]["vocab"]
    header["data"]["spec"]["extra"]["vocab"] = [
        *vocab[:4],
        *(f"\x1b]0;PWN{i}\x07\x1b[31m" for i in range(len(vocab) - 4)),
    ]
    rewritten(content, run.checkpoint, json.dumps(header))
    for command in (("sample", "--n", 3), ("reconstruct", "--n", 2), ("traverse",), ("interpolate",), ("info",)):
        code, out, said = distk_command(command[0], run.path, *command[1:])
        assert all(c.isprintable() or c == "\n" for c in out + said), command
        if command[0] == "sample":
            assert code == 0, said
            assert "PWN" in out


# Configurations

CONFIGS = {
    "arrays nested deep": "x = " + "[" * 100_000,
    "tables nested deep": "x = " + "{a=" * 5_000,
    "a number of 5,000 digits": "[train]\nsteps = " + "9" * 5_000,
    "a number of 4,000 digits": "[train]\nbatch = " + "9" * 4_000,
    "a name that is a number": "[data]\nname = 3",
    "a name that is a list": '[data]\nname = ["dsprites"]',
    "a folder that is a number": "[data]\ndir = 5",
    "beta is infinite": "[model]\nbeta = inf",
    "a rate that is infinite": "[train]\nlr = inf",
    "a rate that is nan": "[train]\nlr = nan",
    "a section that is a list": "model = [1]",
    "no UTF-8": "x = '\udcff'",
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_configuration_is_read_or_refused_in_a_sentence(in_folder, distk_command, kind) -> None:
    Path("c.toml").write_bytes(CONFIGS[kind].encode("utf-8", "surrogateescape"))
    code, _, said = distk_command("train", "betavae", "--config", "c.toml", "--steps", 1, "--out", "r")
    assert code == 2, said
    assert "unexpected" not in said
    assert len(said.splitlines()) < 30
    assert not Path("r").exists()


def test_a_configuration_of_notepad_is_read(tmp_path) -> None:
    (tmp_path / "c.toml").write_bytes("\ufeff[train]\r\nsteps = 7\r\n".encode())
    assert resolve("betavae", file=tmp_path / "c.toml").train.steps == 7


@pytest.mark.parametrize(
    ("option", "value"), [("--lr", "inf"), ("--lr", "-inf"), ("--beta", "1e999"), ("--beta", "nan")]
)
def test_a_setting_is_finite(in_folder, distk_command, option, value) -> None:
    code, _, said = distk_command("train", "betavae", f"{option}={value}", "--steps", 1, "--out", "r")
    assert code == 2
    assert "is not allowed" in said or "below" in said
    assert not Path("r").exists()


def test_every_float_of_every_config_refuses_what_json_cannot_hold() -> None:
    """Over everything registered: no setting accepts a number that the first checkpoint could not be written with."""
    from distk.config import from_dict, hints, split_optional
    from distk.registry import registry
    from distk.settings import TrainConfig

    configs = [e.load().Config for kind in ("method", "dataset", "metric", "penalty") for e in registry().entries(kind)]
    tried = 0
    for config in [*configs, TrainConfig]:
        for name, annotation in hints(config).items():
            if split_optional(annotation)[0] is float:
                tried += 1
                for value in (float("inf"), float("-inf"), float("nan")):
                    with pytest.raises(UsageError):
                        from_dict(config, {name: value}, "here")
    assert tried > 100


@pytest.mark.parametrize("row", ['{"step": 1}', '{"step": 1, "rate": "x"}', '{"step": 1, "seconds": null, "rate": 1}'])
def test_a_log_whose_rows_lack_what_a_run_says_at_its_end(sound, tmp_path, distk_command, row) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoint.safetensors").write_bytes(sound)
    (tmp_path / "run" / "log.jsonl").write_text(row + "\n")
    for more in ((), ("--json",)):
        code, _, said = distk_command("resume", tmp_path / "run", *more)
        assert code == 0, said
