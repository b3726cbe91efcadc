"""Text is shown as it is written: help, summaries, paths and names with brackets, which rich would take for markup."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer

from distk import console
from distk.commandline import loaded
from distk.options import command as built_from
from distk.registry import registry

Call = Callable[..., tuple[int, str, str]]
WIDE = 500
"""Columns in which no option's name and no type is wrapped, so that a text stands in one piece."""


@pytest.fixture
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("typer.rich_utils.MAX_WIDTH", WIDE)


def squeezed(text: str) -> str:
    """Text without white space and the lines of boxes."""
    return re.sub(r"[\s│╭╮╰╯─]", "", text)


def shown(command: Any, words: str, capsys: pytest.CaptureFixture[str]) -> str:
    """The help of a command as a terminal gets it."""
    capsys.readouterr()
    command.format_help(command.context_class(command, info_name=words), None)
    return squeezed(capsys.readouterr().out)


def lost(command: Any, words: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The texts of a command that its help does not show letter by letter."""
    out = shown(command, words, capsys)
    paragraphs = [part for part in (command.help or "", command.epilog or "") for part in part.split("\n\n")]
    helps = [p.help for p in command.params if getattr(p, "help", None) and not getattr(p, "hidden", False)]
    texts = [text for text in (*paragraphs, *helps) if squeezed(text)]
    assert texts, words
    return [text for text in texts if squeezed(text) not in out]


def commands() -> list[str]:
    return [f"{group} {name}".strip() for group, name in registry().commands]


@pytest.mark.parametrize("words", commands())
def test_the_help_of_every_command_is_shown_as_it_is_written(
    words: str, wide: None, capsys: pytest.CaptureFixture[str]
) -> None:
    group, _, name = words.rpartition(" ")
    assert not lost(loaded(registry().commands[(group, name)]), words, capsys)


@pytest.mark.parametrize("kind", ["data", "train"])
def test_the_help_of_every_data_set_and_method(kind: str, wide: None, capsys: pytest.CaptureFixture[str]) -> None:
    app = typer.main.get_command(loaded_app(kind))
    assert not lost(app, kind, capsys)
    wrong: dict[str, list[str]] = {}
    for entry in registry().entries({"data": "dataset", "train": "method"}[kind]):
        context = app.make_context(kind, [], resilient_parsing=True)
        command = app.resolve_command(context, [entry.name])[1]  # type: ignore[attr-defined]
        if missing := lost(command, f"{kind} {entry.name}", capsys):
            wrong[entry.name] = missing
    assert not wrong


def loaded_app(kind: str) -> Any:
    return registry().commands[("", kind)].load()


def test_every_summary_stands_in_the_list_of_its_group(wide: None, distk_command: Call) -> None:
    groups = dict.fromkeys(group for group, _ in registry().commands)
    for group in groups:
        code, out, _ = distk_command(*group.split(), "--help")
        assert code == 0
        for (place, name), command in registry().commands.items():
            if place == group:
                assert squeezed(command.summary) in squeezed(out), f"{group} {name}"


def test_the_settings_of_every_metric(wide: None, distk_command: Call) -> None:
    """Those that `distk eval --help` shows where the metric is named."""
    _, out, _ = distk_command("eval", "--metric", "all", "--help")
    assert "[default:" in out
    assert squeezed("`codes` [n, D]") in squeezed(out)


def test_brackets_survive_wherever_they_stand(capsys: pytest.CaptureFixture[str], wide: None) -> None:
    text = "reads [data], distk[gym], codes [n, D], [/x], [bold]this[/bold] and [default: 3]"

    def run(a: int = 3) -> None:
        pass

    run.__doc__ = text
    made = built_from(run, "brackets")
    made.params[0].help = text
    out = shown(made, "brackets", capsys)
    assert out.count(squeezed(text)) == 2
    assert (made.help, made.params[0].help) == (text, text), "showing help changes nothing"


@pytest.mark.parametrize("name", ["[bold]x[/bold]", "[/x]", "a[data].png", ":warning:", "[red]"])
def test_what_is_printed_is_text(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Paths and names that are a user's or a file's: markup would swallow them, or raise."""
    for stream in (console.out, console.err):
        stream.print(f"checkpoint  {name}")
    console.table(f"title {name}", (f"head {name}",), [(f"cell {name}",)])
    console.listing([(name, name)])
    console.note(name)
    console.warn(name)
    console.error(name)
    told = capsys.readouterr()
    assert told.out.count(name) == 6
    assert told.err.count(name) == 4


def test_a_run_in_a_folder_with_brackets(distk_command: Call) -> None:
    folder = Path("runs [x]") / "[bold]r"
    line = ["train", "betavae", "--data", "blobs", "--positions", 4, "--size", 32, "--steps", 1, "--batch", 4]
    code, out, err = distk_command(*line, "--device", "cpu", "--out", folder)
    assert code == 0, err
    assert str(folder) in out
    assert str(folder) in err
    code, out, err = distk_command("sample", folder, "--n", 2)
    assert code == 0, err
    assert str(folder) in out
    code, _, err = distk_command("sample", "runs [x]/[/none]")
    assert code == 1
    assert "runs [x]/[/none]" in " ".join(err.split())
