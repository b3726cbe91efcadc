"""`distk nlmultitask ...`: what decoders write from a sentence's code, between two codes, and from sums of codes."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, cast

import numpy as np
import torch
import typer

from distk import DistkError, UsageError, console
from distk.commands.arguments import Device, Json, Seed
from distk.commands.shared import Look, OnData, opened, titled
from distk.console import counted, emit_json, note, table
from distk.errors import NotServed
from distk.files import write_atomic
from distk.look import FORMS, formed, held_to
from distk.options import Bundle, Without
from distk.plugins.text.common.base import CorpusDataset
from distk.plugins.text.common.files import read_lines
from distk.plugins.text.nlmultitask.figures import scatter
from distk.plugins.text.nlmultitask.method import NlMultitask
from distk.plugins.text.nlmultitask.metrics import Prototypes, prototypes_clustered, unseen_words
from distk.plugins.text.nlmultitask.prototypes import PROTOTYPES

Sentences = Annotated[
    list[str] | None,
    typer.Argument(metavar="[CHECKPOINT] SENTENCE...", help="Checkpoint or run folder (default: the newest run)."),
]
Decoder = Annotated[str, typer.Option(help="rep, de, fr or pos, as far as the model has them.")]


@dataclass(kw_only=True)
class Batch(Bundle):
    """Sentences from a file instead of the command line."""

    file: Annotated[str | None, typer.Option("--input", "--file", "-i", help="File to read, - for stdin.")] = None
    output: Annotated[str, typer.Option("--out", "--output", "-o", help="File to write, - for stdout.")] = "-"
    encoding: Annotated[str, typer.Option(help="Of the file.")] = "utf-8"
    device: Device = "auto"
    json: Json = False

    def lines(self) -> list[str]:
        """The lines of the file. Raises DistkError naming it, and the line, where it cannot be read."""
        if self.file == "-":
            try:
                text = sys.stdin.buffer.read().decode(self.encoding).removeprefix("\ufeff")
            except UnicodeDecodeError as error:
                raise UsageError(f"stdin is not {self.encoding} (byte offset {error.start}): add --encoding.") from None
            except LookupError:
                raise UsageError(f"--encoding '{self.encoding}' is not a known encoding.") from None
            return [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]
        return read_lines(Path(str(self.file)), self.encoding)

    def say(self, lines: Sequence[str], rows: Sequence[dict[str, Any]]) -> None:
        """Results, one line each, to stdout or a file; `rows` as JSON."""
        lines = [line.replace("\n", " ").replace("\r", " ") for line in lines]  # an alphabet may be a stranger's
        if self.output != "-":
            write_atomic(Path(self.output), "".join(line + "\n" for line in lines).encode())
            note(f"wrote {counted(len(lines), 'line')} to '{self.output}'")
        if self.json:
            emit_json(list(rows))
        elif self.output == "-":
            for line in lines:
                console.say(line)


def split_arguments(given: list[str], wanted: int, what: str) -> tuple[Path | None, list[str]]:
    """Arguments as (checkpoint or None for the newest run, sentences).

    wanted: sentences that the command takes; 0 where they come from a file. Raises UsageError for another number.
    """
    sentences = given[-wanted:] if wanted else []
    before = given[: len(given) - len(sentences)]
    named = len(sentences) == wanted and len(before) <= 1
    if not named or (wanted and not before and _is_checkpoint(sentences[0])):
        raise UsageError(f"give {what}, each in quotes, after the checkpoint if there is one; or --input FILE.")
    return (Path(before[0]) if before else None), sentences


def _is_checkpoint(text: str) -> bool:
    return text.endswith(".safetensors") or (os.sep in text and os.path.exists(text))


def model_of(checkpoint: Path | None, device: str) -> NlMultitask:
    """The named or newest model. Raises NotServed for one of another method."""
    path, model, header = opened(checkpoint, device)
    if not isinstance(model, NlMultitask):
        raise NotServed(f"'{path}' holds a model of method '{header.method}'; this command serves nlmultitask.")
    return model


def refuse_long(model: NlMultitask, sentences: Sequence[str]) -> None:
    """Raise UsageError for a sentence that is longer than any that the model has seen."""
    for line in sentences:
        if (size := len(model.vocab.words(line))) > model.vocab.max_len:
            raise UsageError(
                f"the sentence '{line[:40]}...' has {size} {model.unit}, and the model reads at most "
                f"{model.vocab.max_len}; --input FILE cuts such lines."
            )


def translate(
    sentence: Sentences = None,
    decoder: Decoder = "de",
    on: Batch = Batch(),
) -> None:
    """Write what a decoder makes of a sentence: its translation, its tags, or the sentence again.

    With --input each line of a file, one for one.

    Example: distk nlmultitask translate runs/nlmultitask "The dog is red." --decoder pos
    """
    checkpoint, given = split_arguments(sentence or [], 0 if on.file else 1, "one sentence")
    model = model_of(checkpoint, on.device)
    lines = on.lines() if on.file else [line.replace("\n", " ") for line in given]
    if not on.file:
        refuse_long(model, lines)
    written = model.lines(model.codes(lines), decoder)
    on.say(written, [{"source": a, "decoder": decoder, "output": b} for a, b in zip(lines, written, strict=True)])


def interpolate(
    sentences: Sentences = None,
    steps: Annotated[int, typer.Option(min=2, max=1000, help="Sentences on the way, ends included.")] = 7,
    decoder: Decoder = "rep",
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Write what lies between two sentences: the codes of a straight line, each decoded.

    The paper's Table 4 has seven lines: both ends and five points between them.

    Example: distk nlmultitask interpolate runs/nlmultitask "The dog is red." "No cat ever eats." --steps 5
    """
    checkpoint, given = split_arguments(sentences or [], 2, "two sentences")
    model = model_of(checkpoint, device)
    refuse_long(model, given)
    codes = model.codes(given)
    share = torch.linspace(0, 1, steps, device=codes.device)
    lines = model.lines(model.interpolate({"code": codes[:1]}, {"code": codes[1:]}, share)["code"], decoder)
    if json:
        emit_json({"decoder": decoder, "share": share.tolist(), "lines": lines})
        return
    for a, line in zip(share.tolist(), lines, strict=True):
        console.say(f"{a:.2f}  {line}")


def arithmetic(
    sentences: Sentences = None,
    decoder: Decoder = "rep",
    on: Batch = Batch(),
) -> None:
    """Write the sentence at s1 - s2 + s3: what the difference of two sentences makes of a third.

    With --file each line has three sentences apart by tabs.

    Example: distk nlmultitask arithmetic runs/nlmultitask "The dog is red." "The cat is red." "No cat ever eats."
    """
    checkpoint, given = split_arguments(sentences or [], 0 if on.file else 3, "three sentences s1, s2 and s3")
    triples = [given]
    if on.file:
        triples = [line.split("\t") for line in on.lines()]
        for number, cells in enumerate(triples, 1):
            if len(cells) != 3:
                raise UsageError(
                    f"line {number} of '{on.file}' has {counted(len(cells), 'sentence')} apart by tabs, not three."
                )
    model = model_of(checkpoint, on.device)
    if not on.file:
        refuse_long(model, given)
    first, second, third = (model.codes([t[i] for t in triples]) for i in range(3))
    written = model.lines(first - second + third, decoder)
    rows = [
        {"s1": t[0], "s2": t[1], "s3": t[2], "decoder": decoder, "output": line}
        for t, line in zip(triples, written, strict=True)
    ]
    on.say(written, rows)


def syntax_clusters(
    on: Annotated[OnData, Without("out")],
    per_prototype: Annotated[int, typer.Option(help="Sentences of each prototype.", min=2, max=100_000)] = 100,
    restarts: Annotated[int, typer.Option(help="Runs of K-means.", min=1, max=100_000)] = 100,
    standardize: Annotated[bool, typer.Option(help="Every dimension to variance 1 first.")] = False,
    save: Annotated[Path | None, typer.Option(help="Write codes, sentences and clusters: FILE.npz")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the codes' two principal components into this file.")] = None,
    look: Look = Look(),
    seed: Seed = 0,
) -> None:
    """Cluster codes of sentences of 14 kinds, and show what lies in each cluster of the best run.

    unseen_words is the share of their words that the training sentences do not have, cut the number of sentences that
    are longer than the model reads.

    Example: distk nlmultitask syntax-clusters runs/nlmultitask --per-prototype 20 --restarts 10 --plot pca.png
    """
    model = on.open().of(NlMultitask, "nlmultitask")
    save, plot = _ending(save, ".npz"), _ending(plot, *FORMS, option="--plot")
    found = prototypes_clustered(model, per_prototype, restarts, seed, standardize)
    summary: dict[str, Any] = {**found.summary(), "unseen_words": _unseen(on, found.lines)}
    summary["sentences"] = len(found.lines)
    if save is not None:
        write_atomic(save, _arrays(found))
    if plot is not None:
        write_atomic(plot, scatter(found.codes.double().cpu(), found.kinds, plot.suffix, titled(on.header)))
    files = [path for path in (save, plot) if path is not None]
    contents = found.whole.counts[found.whole.best]
    if on.json:
        emit_json({"files": list(map(str, files)), **summary, "contents": contents.tolist()})
        return
    shown = [(name, "not known" if value is None else f"{value:g}") for name, value in summary.items()]
    table("", ("error", "sentences"), shown)
    heads = ("cluster", *(str(i + 1) for i in range(len(PROTOTYPES))))
    table("the best run", heads, [(str(i + 1), *map(str, row)) for i, row in enumerate(contents.tolist())])
    for file in files:
        console.say(str(file))


def _ending(path: Path | None, *endings: str, option: str = "--save") -> Path | None:
    """A file that ends as what is in it, `codes.v1` as `codes.v1.npz`, a picture as `--format` says. Raises UsageError
    where its folder is missing or its ending contradicts `--format`, before anything is computed."""
    if path is None:
        return None
    if not path.parent.is_dir():
        raise UsageError(f"{option} '{path}': the folder '{path.parent}' does not exist.")
    if path.suffix.lower() not in endings:
        return path.with_name(formed(path.name + endings[0]))
    if endings == FORMS:
        held_to(path, option)
    return path


def _unseen(on: OnData, lines: list[str]) -> float | None:
    """Share of the words that the training sentences do not have; None where the model's own data are not at hand."""
    try:
        data = on.dataset()
    except DistkError as error:
        if on.data is not None or on.data_dir is not None:
            raise
        note(f"unseen_words is not known: {error}")
        return None
    return unseen_words(lines, cast(CorpusDataset, data))


def _arrays(found: Prototypes) -> bytes:
    """The npz: codes, prototype, sentences, cluster of the best run; of every run errors and inertia."""
    held = io.BytesIO()
    np.savez(
        held,
        codes=found.codes.float().cpu().numpy(),
        prototype=found.kinds.numpy(),
        sentences=np.array(found.lines),
        cluster=found.whole.labels[found.whole.best].cpu().numpy(),
        errors=found.whole.errors.cpu().numpy(),
        inertia=found.whole.inertia.cpu().numpy(),
    )
    return held.getvalue()
