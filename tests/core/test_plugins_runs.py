"""A run's events reach plugins, and the built-in plugin that lives from them: TensorBoard."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch

import distk
from distk.errors import UsageError
from distk.hookspecs import hookimpl
from distk.plugins import tensorboard
from distk.registry import registry

SMALL: dict[str, Any] = {
    "data": "dsprites",
    "z": 2,
    "hidden": 8,
    "size": 32,
    "scales": (5,),
    "orientations": 1,
    "positions": 6,
    "batch": 8,
    "log_every": 2,
    "device": "cpu",
    "quiet": True,
}


class Recorder:
    """A plugin that writes down every event."""

    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []

    def module(self) -> types.ModuleType:
        seen, made = self.events, types.ModuleType("plugged_recorder")

        @hookimpl
        def distk_run_requested(config) -> None:
            seen.append(("requested", config["method"]))

        @hookimpl
        def distk_run_started(run) -> None:
            seen.append(("started", run.path.is_dir(), run.config["train"]["steps"]))

        @hookimpl
        def distk_run_logged(values, step) -> None:  # fewer arguments, in another order
            seen.append(("logged", step, sorted(values)))

        @hookimpl
        def distk_checkpoint_saved(run, path, step) -> None:
            seen.append(("saved", path.name, path.stat().st_size > 0, step))

        @hookimpl
        def distk_run_ended(run, outcome) -> None:
            seen.append(("ended", outcome))

        for function in (
            distk_run_requested,
            distk_run_started,
            distk_run_logged,
            distk_checkpoint_saved,
            distk_run_ended,
        ):
            setattr(made, function.__name__, function)
        return made


@pytest.fixture
def plug():
    """`plug(name, module)`: a plugin in the running program, gone after the test."""
    names = []

    def add(name: str, module: types.ModuleType) -> None:
        sys.modules[module.__name__] = module
        registry().add(name, module.__name__, f"dist-{name}", "1.0")
        assert not registry().plugins[name].error, registry().plugins[name].error
        names.append(name)

    yield add
    for name in names:
        registry()._forget(registry().plugins.pop(name))


def test_every_event_arrives_in_order(plug, in_folder) -> None:
    recorder = Recorder()
    plug("recorder", recorder.module())
    run = distk.train("cascadevae-c", steps=4, out="a", **SMALL)
    terms = sorted(k for k in run.log[0] if k not in ("step", "seconds"))
    assert recorder.events[:3] == [
        ("requested", "cascadevae-c"),
        ("started", True, 4),
        ("saved", *recorder.events[2][1:]),
    ]
    assert [e[1:] for e in recorder.events if e[0] == "logged"] == [(2, terms), (4, terms)]
    saved = [e for e in recorder.events if e[0] == "saved"]
    assert saved[-1] == ("saved", "checkpoint.safetensors", True, 4)
    assert recorder.events[-1] == ("ended", "finished")


def test_a_failed_run_ends_for_plugins_too(plug, in_folder) -> None:
    recorder = Recorder()
    plug("recorder", recorder.module())
    with pytest.raises(distk.DistkError, match="non-finite"):
        distk.train("cascadevae-c", steps=4, lr=1e30, out="a", **SMALL)
    assert recorder.events[-1] == ("ended", "failed")


def test_a_plugin_that_raises_is_warned_about_once_and_the_run_goes_on(plug, in_folder, capsys) -> None:
    module = types.ModuleType("plugged_clumsy")

    def distk_run_logged(run, step, values) -> None:
        raise OSError("the disk of the logger is full")

    module.distk_run_logged = hookimpl(distk_run_logged)
    recorder = Recorder()
    plug("clumsy", module)
    plug("recorder", recorder.module())
    run = distk.train("cascadevae-c", steps=4, out="a", **SMALL)
    assert [row["step"] for row in run.log] == [2, 4]
    assert sum(event[0] == "logged" for event in recorder.events) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert said.count("plugin 'clumsy' (dist-clumsy 1.0) failed in distk_run_logged: OSError") == 1


def test_a_plugin_may_refuse_before_anything_is_written_but_not_a_resumed_run(plug, in_folder, capsys) -> None:
    run = distk.train("cascadevae-c", steps=2, out="a", **SMALL)
    module = types.ModuleType("plugged_strict")

    def distk_run_requested(config) -> None:
        raise UsageError("this machine is reserved.")

    module.distk_run_requested = hookimpl(distk_run_requested)
    plug("strict", module)
    with pytest.raises(UsageError, match="reserved"):
        distk.train("cascadevae-c", steps=2, out="b", **SMALL)
    assert not Path("b").exists()
    from distk.training.loop import resume

    assert resume(run.path, steps=4, quiet=True).log[-1]["step"] == 4
    assert "this machine is reserved. The run goes on without." in capsys.readouterr().err


def test_an_unknown_logger_is_refused_with_the_nearest(in_folder) -> None:
    with pytest.raises(
        UsageError, match=r"--log tensorbord: no plugin of that name is installed\. Did you mean 'tensorboard'"
    ):
        distk.train("cascadevae-c", steps=2, out="a", log=("tensorbord",), **SMALL)
    assert not Path("a").exists()


def test_the_logger_of_the_documentation_is_thirty_lines_and_gets_everything(plug, in_folder) -> None:
    """docs/plugins.md shows it: settings, metrics, pictures and checkpoints arrive, and nothing where nobody asked."""
    page = (Path(__file__).parents[2] / "docs" / "plugins.md").read_text(encoding="utf-8")
    (text,) = [block for block in re.findall(r"^```python\n(.*?)^```$", page, re.M | re.S) if "acme.jsonl" in block]
    assert len([line for line in text.splitlines() if line.strip()]) <= 30
    module = types.ModuleType("acme_log")
    exec(text, vars(module))
    plug("acme-log", module)
    distk.train("cascadevae-c", steps=2, out="runs/quiet", **SMALL)
    assert not Path("runs/acme.jsonl").exists()
    run = distk.train("cascadevae-c", steps=4, out="runs/a", log=("acme-log",), **SMALL)
    told = [json.loads(line) for line in Path("runs/acme.jsonl").read_text().splitlines()]
    assert {row["run"] for row in told} == {"a"}
    assert told[0]["settings"]["model"]["z"] == 2
    held = [{"step": row["step"], **row["metrics"]} for row in told if "metrics" in row]
    assert held == [{k: v for k, v in row.items() if k in held[0]} for row in run.log]
    saved = [row for row in told if "checkpoint" in row]
    assert saved[-1]["checkpoint"] == str(run.checkpoint)
    assert all(Path(each).is_file() for row in saved for each in row["pictures"])
    assert saved[-1]["pictures"]
    assert told[-1]["outcome"] == "finished"


# TensorBoard


def test_without_the_extra_it_is_silent_until_asked_for(in_folder, monkeypatch, capsys) -> None:
    monkeypatch.setattr(tensorboard, "_installed", lambda: False)
    distk.train("cascadevae-c", steps=2, out="a", **SMALL)
    assert "tensorboard" not in capsys.readouterr().err
    assert not list(Path("a").glob("events*"))
    with pytest.raises(UsageError, match=r"pip install 'distk\[tensorboard\]'"):
        distk.train("cascadevae-c", steps=2, out="b", log=("tensorboard",), **SMALL)
    assert not Path("b").exists()


class Events:
    """Stands in for torch's SummaryWriter, which needs the extra."""

    made: list[Events] = []

    def __init__(self, log_dir: str, purge_step: int | None) -> None:
        self.folder, self.purge, self.scalars, self.texts, self.closed = log_dir, purge_step, [], {}, False
        self.made.append(self)

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.scalars.append((name, step, value))

    def add_text(self, name: str, text: str, step: int) -> None:
        self.texts[name] = text

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True


def test_every_number_of_the_log_reaches_the_writer(in_folder, monkeypatch) -> None:
    stand_in = types.ModuleType("torch.utils.tensorboard")
    stand_in.SummaryWriter = Events
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", stand_in)
    monkeypatch.delitem(sys.modules, "distk.plugins.tensorboard.writer", raising=False)
    monkeypatch.setattr(tensorboard, "_installed", lambda: True)
    monkeypatch.setattr(Events, "made", [])
    run = distk.train("cascadevae-c", steps=4, out="a", log=("tensorboard",), **SMALL)
    from distk.training.loop import resume

    again = resume(run.path, steps=6, quiet=True)
    sys.modules.pop("distk.plugins.tensorboard.writer")
    first, second = Events.made
    rows = [{k: v for k, v in row.items() if k not in ("step", "seconds")} for row in again.log]
    expected = [(n, row["step"], v) for row, values in zip(again.log, rows, strict=True) for n, v in values.items()]
    assert sorted(first.scalars + second.scalars) == sorted(expected)
    assert (first.purge, second.purge) == (None, 5), "what a killed run wrote after its checkpoint must be dropped"
    assert Path(first.folder) == run.path
    assert 'log = ["tensorboard"]' in first.texts["settings"]
    assert first.texts["outcome"] == "finished"
    assert first.closed
    assert second.closed


@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason="the extra tensorboard is not installed")
def test_tensorboard_reads_what_was_written(in_folder) -> None:
    run = distk.train("cascadevae-c", steps=4, out="a", log=("tensorboard",), **SMALL)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run.path))
    events.Reload()
    rows = [json.loads(line) for line in (run.path / "log.jsonl").read_text().splitlines()]
    shown = [(e.step, e.value) for e in events.Scalars("loss")]
    assert shown == [(row["step"], pytest.approx(row["loss"], rel=1e-5)) for row in rows]


def _leaves() -> None:
    raise SystemExit(0)


def _presses() -> None:
    raise KeyboardInterrupt


class Strange(BaseException):
    """No Exception."""


def _is_strange() -> None:
    raise Strange


WRONGS: dict[str, tuple[Any, str]] = {
    "exits": (lambda run: _leaves(), "failed in distk_run_logged: SystemExit: 0"),
    "interrupts": (lambda run: _presses(), "failed in distk_run_logged: KeyboardInterrupt"),
    "is strange": (lambda run: _is_strange(), "failed in distk_run_logged: Strange"),
    "closes the run": (lambda run: run.close(), "closed the run in distk_run_logged: that was put back"),
    "gradients": (lambda run: torch.set_grad_enabled(False), "switched gradients off in distk_run_logged"),
    "folder": (lambda run: os.chdir("/"), "changed the working folder in distk_run_logged"),
}


@pytest.mark.parametrize("kind", WRONGS)
def test_no_hook_ends_or_spoils_a_run(plug, in_folder, capsys, monkeypatch, kind) -> None:
    """The run is that of a machine without the plugin, and the plugin is named once."""
    does, words = WRONGS[kind]
    monkeypatch.setattr("distk.console._warned", set())
    alone = distk.train("cascadevae-c", steps=4, out="alone", **SMALL)
    module = types.ModuleType("plugged_wrong")

    def distk_run_logged(run, step, values) -> None:
        does(run)

    module.distk_run_logged = hookimpl(distk_run_logged)
    plug("wrong", module)
    run = distk.train("cascadevae-c", steps=4, out="out", **SMALL)
    said = capsys.readouterr().err
    assert said.count("plugin 'wrong' (dist-wrong 1.0)") == 1
    assert words in " ".join(said.split())
    assert torch.is_grad_enabled()
    assert Path.cwd() == in_folder
    told = [[{k: v for k, v in row.items() if k not in ("seconds", "rate")} for row in r.log] for r in (alone, run)]
    assert told[0] == told[1]
    assert [row["step"] for row in run.log] == [2, 4]


def test_what_a_hook_prints_does_not_spoil_json(plug, distk_command) -> None:
    module = types.ModuleType("plugged_chatty")

    def distk_run_logged(run, step, values) -> None:
        print("hello from a hook")

    module.distk_run_logged = hookimpl(distk_run_logged)
    plug("chatty", module)
    small = [f"--{k.replace('_', '-')}={v}" for k, v in SMALL.items() if k not in ("quiet", "scales")]
    code, out, said = distk_command(
        "train", "cascadevae-c", *small, "--scales", "5", "--steps", 2, "--json", "--out", "o"
    )
    assert code == 0, said
    assert json.loads(out)["step"] == 2
    assert "hello from a hook" in said
