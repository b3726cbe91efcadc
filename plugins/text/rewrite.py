"""`distk text rewrite`, which `distk transfer` runs for models of sentences: each line with another label."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from distk import console
from distk.commands.arguments import Device, Json
from distk.commands.shared import opened
from distk.console import counted, emit_json, note
from distk.errors import DistkError, UsageError
from distk.files import write_atomic
from distk.method import Method, can
from distk.options import Bundle
from distk.plugins.text.common.files import label_index


@dataclass(kw_only=True)
class Lines(Bundle):
    """Where sentences come from and go to, and how they are read and decoded."""

    input_: Annotated[str | None, typer.Option("--input", "-i", help="File of sentences, - for stdin.")] = None
    output: Annotated[str, typer.Option("--out", "--output", "-o", help="File to write, - for stdout.")] = "-"
    encoding: Annotated[str, typer.Option(help="Of the input file.")] = "utf-8"
    beam: Annotated[int, typer.Option(help="Beams of the search; 1 is greedy.", min=1, max=100)] = 1
    batch: Annotated[int, typer.Option(help="Sentences at a time.", min=1, max=1 << 20)] = 512
    tokenize: Annotated[
        bool | None,
        typer.Option("--tokenize/--no-tokenize", help="Split ordinary text; default: as the training text was."),
    ] = None


@dataclass
class Rewriting:
    """Sentences on their way. files: (suffix, lines) of each input; source: present labels, where they are known."""

    model: Method
    files: list[tuple[str, list[str]]]
    source: list[int] | None
    targets: list[int]

    @property
    def lines(self) -> list[str]:
        """The lines of all inputs, in order."""
        return [line for _, content in self.files for line in content]


def rewrite(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[CHECKPOINT] [SENTENCE]", help="Checkpoint or run folder (default: the newest run), sentence."
        ),
    ] = None,
    to: Annotated[str | None, typer.Option(help="Label to have: name, unique prefix, number, or flip.")] = None,
    from_: Annotated[str | None, typer.Option("--from", help="Label that the sentences have now.")] = None,
    labels: Annotated[Path | None, typer.Option(help="File with the present label of each input line.")] = None,
    on: Lines = Lines(),
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Rewrite sentences with another label, one output line per input line.

    Example: distk text rewrite runs/arae "the food was awful ." --to positive
    """
    checkpoint, sentence = _arguments(arguments or [], on.input_)
    path, model, header = opened(checkpoint, device)
    if model.spec.kind != "sentence" or not can(model, "rewrite"):
        raise UsageError(f"checkpoint '{path}' was made by {header.method}, which has no text transfer.")
    if to is None:
        raise UsageError(f"say which label the sentences shall have: --to {' or --to '.join(model.spec.classes)}.")
    files = _inputs(sentence, on, to == "flip", len(model.spec.classes))
    source = _source(model, files, from_, labels, to, on)
    work = Rewriting(model, files, source, _targets(model, source, to, sum(len(lines) for _, lines in files)))
    _write(work, _rewritten(work, on), on.output, json)


def _rewritten(work: Rewriting, on: Lines) -> list[str]:
    """Each line with its own target label, one for one."""
    lines = work.lines
    made = [""] * len(lines)
    for to in sorted(set(work.targets)):
        rows = [i for i, target in enumerate(work.targets) if target == to]
        known = None if work.source is None else [work.source[i] for i in rows]
        outputs = work.model.rewrite(
            [lines[i] for i in rows], to, source=known, beam=on.beam, batch=on.batch, tokenize=on.tokenize
        )
        for i, line in zip(rows, outputs, strict=True):
            # A vocabulary may come from a stranger's file: no word of it may break the line.
            made[i] = line.replace("\n", " ").replace("\r", " ")
    return made


def _arguments(given: list[str], input_: str | None) -> tuple[Path | None, str | None]:
    """(checkpoint, sentence): two arguments are both; one is a checkpoint if it is a file or looks like one."""
    if len(given) > 2:
        raise UsageError(
            "write the sentence in quotes: distk transfer CHECKPOINT 'the food was awful .' --to positive."
        )
    if len(given) == 2:
        if input_ is not None:
            raise UsageError("give a sentence or --input, not both.")
        return Path(given[0]), given[1]
    if len(given) == 1 and (input_ is not None or given[0].endswith(".safetensors") or os.path.exists(given[0])):
        return Path(given[0]), None
    return None, given[0] if given else None


def read_input(path: str, encoding: str) -> list[str]:
    """Lines of a file or of stdin; only the line feed ends a line."""
    try:
        raw = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    except OSError as error:
        raise DistkError(f"cannot read '{path}': {error.strerror or error}.") from error
    try:
        text = raw.decode(encoding).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DistkError(
            f"'{path}' is not {encoding}: line {line}, byte offset {error.start}; try --encoding latin-1."
        ) from error
    except LookupError:
        raise UsageError(f"--encoding '{encoding}' is not a known encoding.") from None
    lines = text.split("\n")
    return [line.removesuffix("\r") for line in (lines[:-1] if lines[-1] == "" else lines)]


def _inputs(sentence: str | None, on: Lines, flip: bool, classes: int) -> list[tuple[str, list[str]]]:
    """(suffix, lines) of each input: one, or with `--to flip` one per label where `in.0` and `in.1` lie there."""
    if sentence is not None:
        return [("", [sentence.replace("\n", " ")])]
    if on.input_ is None and sys.stdin.isatty():
        raise UsageError("give a sentence, --input FILE, or text on stdin.")
    name = on.input_ or "-"
    parts = [f".{k}" for k in range(classes)]
    if flip and name != "-" and not Path(name).exists() and all(Path(name + part).is_file() for part in parts):
        return [(part, read_input(name + part, on.encoding)) for part in parts]
    return [("", read_input(name, on.encoding))]


def _source(
    model: Method, files: list[tuple[str, list[str]]], from_: str | None, labels: Path | None, to: str, on: Lines
) -> list[int] | None:
    """The present labels: as given, by file name, or as the model itself reads them where they are needed."""
    names = tuple(model.spec.classes)
    lines = [line for _, content in files for line in content]
    if from_ is not None and labels is not None:
        raise UsageError("give --from or --labels, not both.")
    if from_ is not None:
        return [label_index(from_, names, "--from")] * len(lines)
    if labels is not None:
        given = read_input(str(labels), "utf-8")
        if len(given) != len(lines):
            raise UsageError(
                f"'{labels}' has {counted(len(given), 'line')}, the input {len(lines):,}; they must be as many."
            )
        return [label_index(line.strip(), names, f"line {i + 1} of '{labels}'") for i, line in enumerate(given)]
    if len(files) > 1:
        return [k for k, (_, content) in enumerate(files) for _ in content]
    if to != "flip" and not getattr(model, "needs_source", False):
        return None
    if not hasattr(model, "label_of"):
        raise UsageError("this model cannot tell the present label: give --from or --labels.")
    note("the present labels are read by the model; --from or --labels override it")
    return model.label_of(lines, on.tokenize, on.batch)  # type: ignore[operator]


def _targets(model: Method, source: list[int] | None, to: str, n: int) -> list[int]:
    names = tuple(model.spec.classes)
    if to != "flip":
        return [label_index(to, names)] * n
    if len(names) != 2 or source is None:
        raise UsageError(f"--to flip needs two labels, and there are {', '.join(names)}: name one of them.")
    return [1 - label for label in source]


def _write(work: Rewriting, made: list[str], output: str, json: bool) -> None:
    if json:
        names = work.model.spec.classes
        now = [None] * len(made) if work.source is None else [names[k] for k in work.source]
        rows = zip(work.lines, made, now, work.targets, strict=True)
        emit_json([{"source": a, "output": b, "from": f, "to": names[t]} for a, b, f, t in rows])
        return
    if output == "-":
        for line in made:
            console.say(line)  # nor may a word rewrite the terminal
        return
    place = 0
    for suffix, content in work.files:
        part = made[place : place + len(content)]
        place += len(content)
        write_atomic(Path(output + suffix), "".join(line + "\n" for line in part).encode())
        note(f"wrote {counted(len(part), 'line')} to '{output + suffix}'")
