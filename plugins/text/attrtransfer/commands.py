"""`distk attrtransfer attention`: where each word of a rewritten sentence looked."""

from __future__ import annotations

import json as jsonlib
from typing import Annotated

import torch
import typer
from torch import Tensor

from distk import UsageError, console
from distk.commands.shared import Look, OnModel, titled
from distk.files import write_atomic
from distk.look import COLUMN
from distk.plugins.text.attrtransfer.method import AttrTransfer
from distk.plugins.text.common.files import label_index
from distk.plugins.text.common.tagger import noun_flags, open_tagger
from distk.study.tables import as_figure, windowless


def attention(
    on: OnModel,
    sentence: Annotated[str, typer.Option("--sentence", "-s", help="The sentence to rewrite.")],
    to: Annotated[str, typer.Option(help="Label to have: name, unique prefix or number.")],
    from_: Annotated[
        str | None, typer.Option("--from", help="Label that it has now; default: as the model reads it.")
    ] = None,
    tagger: Annotated[str, typer.Option(help="Nouns by: auto, perceptron, textblob or builtin.")] = "auto",
    look: Look = Look(),
) -> None:
    """Show where each word of a rewritten sentence looked: a row per word written, a column per word read.

    Nouns of the source are marked. With --out FILE.json the numbers are written instead of a picture.

    Example: distk attrtransfer attention runs/attrtransfer --sentence "the phone was great ." --to negative
    """
    model = on.open().of(AttrTransfer, "attrtransfer")
    names = tuple(model.spec.classes)
    label = label_index(to, names)
    known = None if from_ is None else torch.tensor([label_index(from_, names, "--from")], device=model.device)
    words = model.vocab.words(sentence)[: model.vocab.max_len]
    if not words:
        raise UsageError("--sentence holds no word.")
    ids, weights = model.looked(model.read([sentence]), known, label)
    written = model.vocab.decode(ids[0].tolist())
    table = weights[0, : len(written), : len(words)].cpu()
    nouns = noun_flags(open_tagger(tagger, "").tags(words))
    values = {"source": words, "output": written, "nouns": nouns, "attention": table.tolist()}
    target = on.target("attention.png", ".json")
    if target.suffix == ".json":
        write_atomic(target, (jsonlib.dumps(values, indent=1) + "\n").encode())
    else:
        title = titled(on.header, f"rewritten as {names[label]}")
        write_atomic(target, picture(words, written, nouns, table, target.suffix, title))
    if not on.json:
        console.say(model.vocab.join(written))
    on.report([target], **values)


def picture(
    source: list[str], output: list[str], nouns: list[bool], table: Tensor, form: str = ".png", title: str = ""
) -> bytes:
    """A heat map in the form of a suffix; nouns of the source stand in bold."""
    figure, panels = windowless(1, 1, max(COLUMN, 0.8 + 0.25 * len(source)), 0.8 + 0.2 * max(1, len(output)))
    axes = panels[0, 0]
    axes.imshow(table.numpy(), cmap="Greys", vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(range(len(source)), source, rotation=45, ha="left")
    axes.xaxis.tick_top()
    axes.set_yticks(range(len(output)), output)
    for mark, flag in zip(axes.get_xticklabels(), nouns, strict=True):
        mark.set_fontweight("bold" if flag else "normal")
    axes.set_ylabel("written")
    axes.set_xlabel("read (nouns in bold); dark: looked at")
    return as_figure(figure, form, title=title)
