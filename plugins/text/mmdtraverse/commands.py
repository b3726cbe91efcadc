"""`distk mmdtraverse move` and `plot-codes`: sentences on their way to another label."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import typer
from safetensors.torch import save as as_safetensors
from torch import Tensor

from distk import UsageError, console
from distk.commands.shared import Look, OnData, OnRows, titled, written_to
from distk.console import counted, emit_json, note
from distk.files import write_atomic
from distk.options import Bundle, Without
from distk.plugins.text.common.files import label_index
from distk.plugins.text.mmdtraverse.examples import draw_examples, topics
from distk.plugins.text.mmdtraverse.figures import Drawn, principal
from distk.plugins.text.mmdtraverse.method import Examples, MMDTraverse
from distk.plugins.text.mmdtraverse.metrics import read
from distk.plugins.text.mmdtraverse.reference import move_by_scipy
from distk.plugins.text.mmdtraverse.solver import Moved, Witness, distances
from distk.plugins.text.rewrite import Lines, read_input

MOST_BY_SCIPY = 1000
"""Sentences that scipy, seconds each, is asked for at most."""


@dataclass(kw_only=True)
class Budget(Bundle):
    """What a move may cost, and which sentences make the clouds."""

    weight: Annotated[
        float | None, typer.Option("--lambda", help="What a squared move costs; default: as the model was set.", min=0)
    ] = None
    relative: Annotated[
        float | None, typer.Option("--lambda-rel", help="The same as a multiple of 1/(2 sigma).", min=0)
    ] = None
    path: Annotated[
        str | None,
        typer.Option("--lambda-path", help="Several lambdas, as 1e-2,1e-3,1e-4: each goes on from the one before."),
    ] = None
    sigma: Annotated[
        str | None, typer.Option(help="Variance of the kernel, or auto; default: as the model was set.")
    ] = None
    n_source: Annotated[int | None, typer.Option(help="Examples of the source's label.", min=2)] = None
    n_target: Annotated[int | None, typer.Option(help="Examples of the target's label.", min=2)] = None
    filter_words: Annotated[
        str | None, typer.Option(help="Draw new examples, as many with each of these words: movie,phone.")
    ] = None
    seed: Annotated[int | None, typer.Option(help="Draw new examples by this seed.", min=0)] = None
    solver: Annotated[
        Literal["batched", "scipy"], typer.Option(help="scipy: the printed problem, one sentence after the other.")
    ] = "batched"

    def variance(self) -> float | None:
        """The kernel's variance; 0 where it follows from the examples, None where it is as the model was set."""
        if self.sigma is None:
            return None
        try:
            found = 0.0 if self.sigma == "auto" else float(self.sigma)
        except ValueError:
            found = -1.0
        if self.sigma != "auto" and not 0 < found < float("inf"):
            raise UsageError(f"--sigma '{self.sigma}' is neither auto nor a positive number.")
        return found

    def costs(self, model: MMDTraverse, f: Witness) -> list[Tensor]:
        """lambda of every row `[n]`, once or for each stage of a path."""
        if sum(given is not None for given in (self.weight, self.relative, self.path)) > 1:
            raise UsageError("give one of --lambda, --lambda-rel and --lambda-path.")
        if self.path is None:
            return [model.cost(f, self.weight, self.relative)]
        try:
            weights = [float(part) for part in self.path.split(",")]
        except ValueError:
            weights = [-1.0]
        if not all(0 <= weight < float("inf") for weight in weights):
            raise UsageError(f"--lambda-path '{self.path}' is no list of numbers such as 1e-2,1e-3,1e-4.")
        return [model.cost(f, weight) for weight in weights]

    def clouds(self, on: OnData, model: MMDTraverse) -> Examples:
        """The model's own examples, or new ones of its training data where other ones are asked for."""
        held = model.config.examples
        most = max(self.n_source or held, self.n_target or held)
        if self.filter_words is None and self.seed is None and most <= held:
            return model.clouds()
        words = [word for word in (self.filter_words or "").split(",") if word]
        if self.filter_words is None:
            words = list(model.config.filter_words)
        generator = torch.Generator().manual_seed(self.seed or 0)
        made = draw_examples(on.dataset(), model.vocab, most, words, generator)
        return model.clouds(made.to(model.device))


@dataclass
class Journey:
    """Sentences of which the codes are moved. present, to: labels int64 `[n]`. stages: for each lambda its costs `[n]`,
    the codes z* `[n, h]`, and how they came about."""

    lines: list[str]
    code: Tensor
    present: Tensor
    to: Tensor
    f: Witness
    stages: list[tuple[Tensor, Tensor, Moved]]


def move(
    on: Annotated[OnData, Without("out")],
    to: Annotated[str, typer.Option(help="Label to have: name, unique prefix or number.")],
    sentence: Annotated[str | None, typer.Option("--sentence", "-s", help="The sentence, or --input.")] = None,
    from_: Annotated[
        str | None, typer.Option("--from", help="Label that the sentences have now; default: as the model reads them.")
    ] = None,
    budget: Budget = Budget(),
    lines: Lines = Lines(),
    save: Annotated[Path | None, typer.Option(help="File for the codes (safetensors).")] = None,
) -> None:
    """Move sentences to another label: what is read, what is written from its code z, and from the moved code z*.

    f* says how near a code is to where it comes from (above 0) or goes to (below 0). --out takes the moved sentences, a
    line for a line, of a path those of its last lambda; in JSON an empty line is null.

    Example: distk mmdtraverse move runs/mmdtraverse --sentence "the phone was great ." --to negative --lambda-rel 0.05
    """
    model = on.open().of(MMDTraverse, "mmdtraverse")
    names = tuple(model.spec.classes)
    wanted = label_index(to, names)
    if save is not None:
        save = written_to(save, "codes.safetensors", option="--save")
    given = None if from_ is None else label_index(from_, names, "--from")
    source = _source(sentence, lines)
    with torch.no_grad():
        clouds = budget.clouds(on, model)
        made = travelled(model, source, given, wanted, clouds, budget, lines.tokenize)
        rows = described(model, made, clouds, lines.beam)
    by_line = iter(rows)
    everything = [next(by_line) if line.strip() else None for line in source]
    if save is not None:
        write_atomic(save, _saved(made))
        note(f"wrote codes of {counted(len(rows), 'sentence')} to '{save}'")
    if lines.output != "-":
        # A vocabulary may come from a stranger's file: no word of it may break the line.
        texts = [row["path"][-1]["output"].replace("\r", " ") if row else "" for row in everything]
        write_atomic(Path(lines.output), "".join(text + "\n" for text in texts).encode())
        note(f"wrote {counted(len(texts), 'line')} to '{lines.output}'")
    if on.json:
        emit_json({"sigma": made.f.sigma[0].item(), "sentences": everything})
        return
    for row in rows:
        _show(row)


def _source(sentence: str | None, lines: Lines) -> list[str]:
    if (sentence is None) == (lines.input_ is None):
        raise UsageError("give one of --sentence and --input.")
    if lines.input_ is None:
        found = [(sentence or "").replace("\n", " ")]
    else:
        found = read_input(lines.input_, lines.encoding)
    if not any(line.strip() for line in found):
        raise UsageError(
            "--sentence holds no word." if lines.input_ is None else f"'{lines.input_}' holds no sentence."
        )
    return found


def travelled(
    model: MMDTraverse,
    lines: list[str],
    present: int | None,
    to: int,
    clouds: Examples,
    budget: Budget,
    tokenize: bool | None = None,
) -> Journey:
    """Sentences moved to label `to`; empty lines are left out. present: the label of all of them, None: as read."""
    lines = [line for line in lines if line.strip()]
    x = model.read(lines, tokenize)
    code = model.encode(x)
    label = code["label"].argmax(1) if present is None else torch.full((len(x),), present, device=x.device)
    if there := int((label == to).sum()):
        note(
            f"of the label '{model.spec.classes[to]}' already, moved from the others' cloud: "
            f"{counted(there, 'sentence')}"
        )
    wanted, held = torch.full_like(label, to), model.config.examples
    sizes = (budget.n_source or held, budget.n_target or held)
    f = model.witness(x, label, wanted, clouds, budget.variance(), sizes)
    stages: list[tuple[Tensor, Tensor, Moved]] = []
    if budget.solver == "scipy" and len(x) > MOST_BY_SCIPY:
        raise UsageError(f"--solver scipy takes seconds a sentence, and here are {len(x):,}: use the batched one.")
    for cost in budget.costs(model, f):
        if budget.solver == "scipy":
            found = move_by_scipy(f, code["code"].double(), cost)
            z = model.landed(code["code"], found)
        else:
            z, found = model.moved(code["code"], f, cost, stages[-1][2].u if stages else None)
        stages.append((cost, z, found))
    return Journey(lines, code["code"], label, wanted, f, stages)


def described(model: MMDTraverse, made: Journey, clouds: Examples, beam: int) -> list[dict[str, Any]]:
    """Of each sentence: what was read, what is written from z, and of each stage what is written from z* and how far
    it is: f*, |u|, iterations, the label that the model reads and that of the nearest example."""
    names = model.spec.classes
    again = model.text(model.write(made.code, beam))
    rows: list[dict[str, Any]] = [
        {"source": source, "from": names[k], "to": names[t], "reconstruction": line, "witness": f, "path": []}
        for source, line, k, t, f in zip(
            made.lines, again, made.present.tolist(), made.to.tolist(), made.f(made.code.double()).tolist(), strict=True
        )
    ]
    for cost, z, found in made.stages:
        label = model.classifier(z).argmax(1).tolist()
        nearest = clouds.label[distances(z.double(), clouds.code).argmin(1)].tolist()
        after, lengths = made.f(z.double()).tolist(), (z - made.code).norm(dim=1).tolist()
        for i, line in enumerate(model.text(model.write(z, beam))):
            stage = {"lambda": float(cost[i]), "output": line, "witness": after[i], "move": lengths[i]}
            told = {"iterations": int(found.iterations[i]), "label": names[label[i]], "nearest": names[nearest[i]]}
            rows[i]["path"].append({**stage, **told})
    return rows


def _show(row: dict[str, Any]) -> None:
    """The layout of the paper's Table 1, with the numbers behind."""
    console.say(f"original  {row['source']}")
    console.say(f"from z    {row['reconstruction']}    ({row['from']}, f* {row['witness']:.3f})")
    for stage in row["path"]:
        numbers = f"lambda {stage['lambda']:.2g}, f* {stage['witness']:.3f}, |u| {stage['move']:.2f}"
        console.say(f"from z*   {stage['output']}    (read as {stage['label']}, {numbers})")
    console.say()


def _saved(made: Journey) -> bytes:
    """z float32 `[n, h]`, z_star `[n, h]`, of a path `[lambdas, n, h]`, lambda `[lambdas, n]`, from, to int64 `[n]`."""
    ends = [z for _, z, _ in made.stages]
    tensors = {"z": made.code, "from": made.present, "to": made.to, "sigma": made.f.sigma}
    tensors["z_star"] = ends[0] if len(ends) == 1 else torch.stack(ends)
    tensors["lambda"] = torch.stack([cost for cost, _, _ in made.stages])
    return as_safetensors({name: value.detach().cpu().contiguous() for name, value in tensors.items()})


def plot_codes(
    on: OnRows,
    look: Look = Look(),
    words: Annotated[str, typer.Option("--topics", help="Words that name the topics.")] = "movie,phone",
    n: Annotated[int, typer.Option("--n", help="Most sentences of each label and topic.", min=3, max=100_000)] = 200,
    moves: Annotated[int, typer.Option(help="Sentences of each label and topic that are moved.", min=0, max=100)] = 1,
    weight: Annotated[float | None, typer.Option("--lambda", help="What a squared move costs.", min=0)] = None,
    relative: Annotated[
        float | None, typer.Option("--lambda-rel", help="The same as a multiple of 1/(2 sigma).", min=0)
    ] = None,
) -> None:
    """Draw codes by label and topic on their first two principal components, and moved ones, bold, among them.

    The components are those of the unmoved codes. Beside the picture the points stand as CSV.

    Example: distk mmdtraverse plot-codes runs/mmdtraverse --topics movie,phone --lambda-rel 0.05
    """
    if weight is not None and relative is not None:
        raise UsageError("give one of --lambda and --lambda-rel.")
    model = on.open().of(MMDTraverse, "mmdtraverse")
    named = tuple(dict.fromkeys(word for word in words.split(",") if word))
    if not named:
        raise UsageError("--topics names no word.")
    data: Any = on.dataset()
    with torch.no_grad():
        drawn = points(model, data, data.rows_of(on.split), named, n, moves, on.seed, weight, relative)
    target = on.target("codes.png")
    write_atomic(
        target, drawn.picture(model.spec.classes, named, target.suffix, titled(on.header, f"{on.split} split"))
    )
    table = target.with_suffix(".csv")
    write_atomic(table, drawn.rows(model.spec.classes, named))
    groups = {
        f"{name}, {word}": int(((drawn.label == k) & (drawn.topic == t)).sum())
        for k, name in enumerate(model.spec.classes)
        for t, word in enumerate(named)
    }
    on.report([target, table], points=groups)


def points(
    model: MMDTraverse,
    data: Any,
    rows: Tensor,
    words: tuple[str, ...],
    n: int,
    moves: int,
    seed: int,
    weight: float | None = None,
    relative: float | None = None,
) -> Drawn:
    """The picture's points: up to `n` sentences of each label and topic, and up to `moves` of each that are moved.

    Raises UsageError where fewer than three sentences have exactly one of the words.
    """
    here = read(model, data, rows)
    topic = topics(here.ids, model.vocab, words)
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed)).to(rows.device)
    kept, first = [], []
    for k in range(len(model.spec.classes)):
        for t in range(len(words)):
            group = order[(here.label[order] == k) & (topic[order] == t)]
            kept.append(group[:n])
            first.append(group[:moves])
    chosen, moved = torch.cat(kept), torch.cat(first)
    if len(chosen) < 3:
        raise UsageError(
            f"{len(chosen)} of these sentences have one of the topics; a picture needs 3: name other words."
        )
    mean, axes = principal(here.code[chosen])
    labels = len(model.spec.classes)
    wanted = (here.label[moved] + 1) % labels
    f = model.witness(here.ids[moved], here.label[moved], wanted, model.clouds())
    z, _ = model.moved(here.code[moved], f, model.cost(f, weight, relative))
    codes = torch.cat([here.code[chosen], here.code[moved], z]).double()
    label = torch.cat([here.label[chosen], here.label[moved], wanted])
    text = [*model.text(here.ids[torch.cat([chosen, moved])]), *model.text(model.write(z))]
    kinds = ["code"] * len(chosen) + ["from"] * len(moved) + ["to"] * len(moved)
    at = (codes - mean) @ axes.T
    return Drawn(at.cpu(), label.cpu(), topic[torch.cat([chosen, moved, moved])].cpu(), text, kinds)
