"""`distk transfer`: sentences with another label; items under another class; a group of the code exchanged."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from distk.commands.arguments import DataDir, DataName, Device, Json, Out, Seed
from distk.errors import DistkError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from distk.method import Method


def transfer(
    context: typer.Context,
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[CHECKPOINT] [SENTENCE]", help="Checkpoint or run folder (default: the newest run), sentence."
        ),
    ] = None,
    to: Annotated[str | None, typer.Option(help="Label to have: name, unique prefix, number, or flip.")] = None,
    from_: Annotated[str | None, typer.Option("--from", help="Label that the sentences have now.")] = None,
    labels: Annotated[Path | None, typer.Option(help="File with the present label of each input line.")] = None,
    input_: Annotated[str | None, typer.Option("--input", "-i", help="File of sentences, - for stdin.")] = None,
    output: Annotated[str, typer.Option("--output", help="File to write, - for stdout.")] = "-",
    beam: Annotated[int, typer.Option(help="Beams of the search; 1 is greedy.", min=1, max=100)] = 1,
    batch: Annotated[int, typer.Option(help="Sentences at a time.", min=1, max=1 << 20)] = 512,
    tokenize: Annotated[
        bool | None,
        typer.Option("--tokenize/--no-tokenize", help="Split ordinary text; default: as the training text was."),
    ] = None,
    encoding: Annotated[str, typer.Option(help="Of the input file.")] = "utf-8",
    image: Annotated[
        list[int] | None,
        typer.Option("--image", help="Row of an item to show under every class of a discrete code; repeatable."),
    ] = None,
    class_: Annotated[int | None, typer.Option("--class", help="Show the items under this class only.")] = None,
    a: Annotated[int | None, typer.Option("--a", help="Not for sentences: row of the first item.")] = None,
    b: Annotated[int | None, typer.Option("--b", help="Not for sentences: row of the second item.")] = None,
    group: Annotated[str | None, typer.Option(help="Not for sentences: group of the code to exchange.")] = None,
    pairs: Annotated[int, typer.Option(help="Not for sentences: random pairs.", min=1, max=1000)] = 7,
    data: DataName = None,
    data_dir: DataDir = None,
    split: Annotated[str, typer.Option(help="Not for sentences: where pairs come from.")] = "test",
    out: Out = None,
    seed: Seed = 0,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Rewrite sentences with another label, one output line per input line; show items under another class.

    For other data: --image A draws item A and then what it would be under each class of a discrete code; --a I --b J
    exchange a group of the code, or run the method's own command for that.

    Example: distk transfer runs/arae "the food was awful ." --to positive
    Example: distk transfer runs/aae-s --image 12 --class 2
    """
    from distk.commands.shared import opened
    from distk.commands.swap import swap_pairs
    from distk.method import can
    from distk.run import find_checkpoint

    checkpoint, sentence = _arguments(arguments or [], input_)
    path = find_checkpoint(checkpoint)
    wants_text = any(value is not None for value in (sentence, to, input_, labels, from_))
    if not wants_text and not _holds_sentences(path):
        if _own_command(context, path):
            return
        if image or class_ is not None:
            _under_classes(path, image or [], class_, group, pairs, seed, out, device, json, data, data_dir, split)
            return
        swap_pairs(path, a, b, group, pairs, seed, out, device, json, data, data_dir, split)
        return
    path, model, header = opened(path, device)
    if model.spec.kind != "sentence" or not can(model, "rewrite"):
        raise UsageError(f"checkpoint '{path}' was made by {header.method}, which has no text transfer.")
    if to is None:
        raise UsageError(f"say which label the sentences shall have: --to {' or --to '.join(model.spec.classes)}.")
    files = _inputs(sentence, input_, encoding, to == "flip", len(model.spec.classes))
    lines = [line for _, content in files for line in content]
    source = _source(model, files, lines, from_, labels, to, tokenize, batch)
    targets = _targets(model, source, to, len(lines))
    made = rewrite(model, lines, targets, source, beam=beam, batch=batch, tokenize=tokenize)
    _write(model, files, lines, made, source, targets, output, json)


def _own_command(context: typer.Context, path: Path) -> bool:
    """Run the command that the checkpoint's method names in `instead`, with the options given to this one.

    False where it names none. Raises UsageError for an option that the other command does not have.
    """
    from distk.checkpoint import read_header
    from distk.registry import registry

    instead = registry().find("method", read_header(path).method).load().instead.get("transfer", "")
    command: Any = context.find_root().command
    for word in instead.removeprefix("distk ").split():
        command = command.get_command(context, word) if hasattr(command, "get_command") else None
    if not instead or command is None:
        return False
    known = {flag for parameter in command.params for flag in parameter.opts}
    arguments = [str(path)]
    for parameter in context.command.params:
        # The name of the enumeration, so that click need not be imported: typer brings its own.
        if context.get_parameter_source(parameter.name).name != "COMMANDLINE" or parameter.name == "arguments":
            continue
        flag = parameter.opts[0]
        if flag not in known:
            raise UsageError(f"for this checkpoint `distk transfer` is `{instead}`, which has no {flag}.")
        value = context.params[parameter.name]
        switch = getattr(parameter, "is_flag", False)
        for one in value if isinstance(value, (list, tuple)) else [value]:
            arguments += [flag] if switch else [flag, str(one)]
    with command.make_context(command.name, arguments, parent=context.parent) as inner:
        command.invoke(inner)
    return True


def under_classes(model: Method, x: Tensor, group: str, classes: list[int]) -> Tensor:
    """Items `[n, ...]` -> `[n, 1 + len(classes), ...]`: the item, then its code decoded under each of the classes."""
    import torch

    from distk.latents import one_hot

    with torch.no_grad():
        code = model.encode(x)
        like = code[group]
        made = [x]
        for k in classes:
            chosen = one_hot(torch.full(like.shape[:-1], k, device=like.device), model.latents[group].size)
            made.append(model.decode({**code, group: chosen}).view_as(x))
    return torch.stack(made, 1)


def _under_classes(
    path: Path,
    image: list[int],
    class_: int | None,
    group: str | None,
    pairs: int,
    seed: int,
    out: Path | None,
    device: str,
    json: bool,
    data: str | None,
    data_dir: Path | None,
    split: str,
) -> None:
    """Draw a row per item: the item, and what it would be under each class of a categorical group."""
    import torch

    from distk.commands import shared

    path, model, header = shared.opened(path, device)
    shared.require(model, header, "swap", "encode", "decode")
    groups = [g.name for g in model.latents if g.kind == "categorical"]
    if group is None and len(groups) != 1:
        raise UsageError(f"--class needs --group, one of: {', '.join(groups) or 'none (no categorical code)'}.")
    group = group or groups[0]
    if group not in groups:
        raise UsageError(f"--group '{group}' has no classes; these have: {', '.join(groups) or 'none'}.")
    size = model.latents[group].size
    if class_ is not None and not 0 <= class_ < size:
        names = getattr(model, "class_names", tuple)() or tuple(map(str, range(size)))
        listed = ", ".join(str(k) if name == str(k) else f"{k} ({name})" for k, name in enumerate(names))
        raise UsageError(f"there is no class {class_}; the classes of '{group}' are {listed}.")
    dataset = shared.its_data(model, header, data, data_dir)
    for row in image:
        if not 0 <= row < len(dataset):
            raise UsageError(f"--image {row} is outside the data set's rows 0 to {len(dataset) - 1}.")
    rows = torch.tensor(image, device=dataset.device) if image else shared.choose_rows(dataset, pairs, seed, split)
    classes = list(range(size)) if class_ is None else [class_]
    made = under_classes(model, dataset.batch(rows)["x"], group, classes)
    target = shared.beside(path, out, f"{path.stem}.transfer-{group}.png")
    files = shared.present(model, made.flatten(0, 1), target, made.shape[1])
    shared.report(files, json, group=group, rows=rows.tolist(), classes=classes)


def rewrite(
    model: Method, lines: list[str], targets: list[int], source: list[int] | None, **settings: Any
) -> list[str]:
    """Each line with its own target label, one for one."""
    made = [""] * len(lines)
    for to in sorted(set(targets)):
        rows = [i for i, target in enumerate(targets) if target == to]
        known = None if source is None else [source[i] for i in rows]
        for i, line in zip(rows, model.rewrite([lines[i] for i in rows], to, source=known, **settings), strict=True):
            made[i] = line
    return made


def label_index(label: str, names: tuple[str, ...], where: str = "--to") -> int:
    """A label by name, unique prefix or number. Raises UsageError that lists the labels."""
    if label in names:
        return names.index(label)
    found = [i for i, name in enumerate(names) if label and name.startswith(label)]
    if len(found) == 1:
        return found[0]
    if label.isdecimal() and label.isascii() and int(label) < len(names):
        return int(label)
    problem = "fits several labels" if found else "is no label"
    listed = ", ".join(f"{name} ({i})" for i, name in enumerate(names))
    raise UsageError(f"{where}: '{label}' {problem}; there are {listed}.")


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
    if len(given) == 1 and (input_ is not None or given[0].endswith(".safetensors") or Path(given[0]).exists()):
        return Path(given[0]), None
    return None, given[0] if given else None


def _holds_sentences(path: Path) -> bool:
    from distk.checkpoint import read_header

    spec = read_header(path).data.get("spec")
    return isinstance(spec, dict) and spec.get("kind") == "sentence"


def _read(path: str, encoding: str) -> list[str]:
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
        raise UsageError(f"--encoding '{encoding}' is no known encoding.") from None
    lines = text.split("\n")
    return [line.removesuffix("\r") for line in (lines[:-1] if lines[-1] == "" else lines)]


def _inputs(
    sentence: str | None, input_: str | None, encoding: str, flip: bool, classes: int
) -> list[tuple[str, list[str]]]:
    """(suffix, lines) of each input: one, or with `--to flip` one per label where `in.0` and `in.1` lie there."""
    if sentence is not None:
        return [("", [sentence.replace("\n", " ")])]
    if input_ is None:
        if sys.stdin.isatty():
            raise UsageError("give a sentence, --input FILE, or text on stdin.")
        input_ = "-"
    parts = [f".{k}" for k in range(classes)]
    if flip and input_ != "-" and not Path(input_).exists() and all(Path(input_ + part).is_file() for part in parts):
        return [(part, _read(input_ + part, encoding)) for part in parts]
    return [("", _read(input_, encoding))]


def _source(
    model: Method,
    files: list[tuple[str, list[str]]],
    lines: list[str],
    from_: str | None,
    labels: Path | None,
    to: str,
    tokenize: bool | None,
    batch: int,
) -> list[int] | None:
    """The present labels: as given, by file name, or as the model itself reads them where they are needed."""
    from distk.console import note

    names = tuple(model.spec.classes)
    if from_ is not None and labels is not None:
        raise UsageError("give --from or --labels, not both.")
    if from_ is not None:
        return [label_index(from_, names, "--from")] * len(lines)
    if labels is not None:
        given = _read(str(labels), "utf-8")
        if len(given) != len(lines):
            raise UsageError(f"'{labels}' has {len(given):,} lines, the input {len(lines):,}; they must be as many.")
        return [label_index(line.strip(), names, f"line {i + 1} of '{labels}'") for i, line in enumerate(given)]
    if len(files) > 1:
        return [k for k, (_, content) in enumerate(files) for _ in content]
    if to != "flip" and not getattr(model, "needs_source", False):
        return None
    if not hasattr(model, "label_of"):
        raise UsageError("this model cannot tell the present label: give --from or --labels.")
    note("the present labels are read by the model; --from or --labels override it")
    return model.label_of(lines, tokenize, batch)  # type: ignore[operator]


def _targets(model: Method, source: list[int] | None, to: str, n: int) -> list[int]:
    names = tuple(model.spec.classes)
    if to != "flip":
        return [label_index(to, names)] * n
    if len(names) != 2 or source is None:
        raise UsageError(f"--to flip needs two labels, and there are {', '.join(names)}: name one of them.")
    return [1 - label for label in source]


def _write(
    model: Method,
    files: list[tuple[str, list[str]]],
    lines: list[str],
    made: list[str],
    source: list[int] | None,
    targets: list[int],
    output: str,
    json: bool,
) -> None:
    from distk.console import clean, emit_json, note
    from distk.files import write_atomic

    # A vocabulary may come from a stranger's file: no word of it may break the line or rewrite the terminal.
    made = [line.replace("\n", " ").replace("\r", " ") for line in made]
    if json:
        names = model.spec.classes
        now = [None] * len(lines) if source is None else [names[k] for k in source]
        rows = zip(lines, made, now, targets, strict=True)
        emit_json([{"source": a, "output": b, "from": f, "to": names[t]} for a, b, f, t in rows])
        return
    if output == "-":
        for line in made:
            typer.echo(clean(line))
        return
    place = 0
    for suffix, content in files:
        part = made[place : place + len(content)]
        place += len(content)
        write_atomic(Path(output + suffix), "".join(line + "\n" for line in part).encode())
        note(f"wrote {len(part):,} lines to '{output + suffix}'")
