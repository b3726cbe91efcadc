"""`distk udr`: rank models of one method without labels."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from torch import Tensor

from distk import CodeTable, console, encode_table
from distk.checkpoint import Header, read_header
from distk.codefile import table_from_arrays
from distk.commands.shared import OnRows, require, written_to
from distk.console import counted
from distk.device import choose_device
from distk.errors import DistkError, UsageError
from distk.files import write_atomic
from distk.options import Without
from distk.plugins.metrics import functional
from distk.run import find_checkpoint


@dataclass
class Entrant:
    """One model in the comparison: codes float `[n, D]` and mean KL `[D]` in nats; header None for a file of codes."""

    path: Path
    header: Header | None
    codes: Tensor
    kl: Tensor


def udr(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN...", help="Runs or checkpoints of one method, a folder of runs; or npz with codes, kl."
        ),
    ],
    on: Annotated[OnRows, Without("checkpoint", "out")] = OnRows(split="all"),
    matrix: Annotated[Literal["lasso", "spearman"], typer.Option(help="How codes are compared.")] = "lasso",
    n: Annotated[int, typer.Option("--n", "-n", help="Images that every model encodes.", min=10)] = 1000,
    threshold: Annotated[
        float, typer.Option(help="KL in nats above which a code counts as informative.", min=0)
    ] = 0.01,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Also write the JSON here.")] = None,
) -> None:
    """Rank models that differ in their seed by how well their codes agree (UDR, Duan et al. 2020); no labels needed.

    The paper compares every model with at least five others.

    Example: distk udr runs/seed-0 runs/seed-1 runs/seed-2 runs/seed-3
    """
    if out is not None:
        out = written_to(out, "udr.json")
    files = [path.suffix == ".npz" for path in runs]
    if any(files) and not all(files):
        raise UsageError("give checkpoints or npz files of codes, not both.")
    paths = runs if all(files) else _checkpoints(runs)
    if len(paths) < 2:
        raise UsageError(
            "UDR compares models with each other, so it needs at least two runs that differ in their seed."
        )
    if all(files):
        entrants = [_from_file(path, on.device) for path in paths]
    else:
        _comparable(paths, on.data)
        entrants = [_encoded(path, on, n) for path in paths]
    counts = {len(entrant.codes) for entrant in entrants}
    if len(counts) > 1:
        raise UsageError(f"the files hold codes of different numbers of items: {sorted(counts)}; UDR needs the same.")
    try:
        agreement = functional.udr(
            [e.codes for e in entrants], [e.kl for e in entrants], matrix, kl_threshold=threshold
        )
    except ValueError as error:
        raise UsageError(f"{error}.") from error
    result = _result(entrants, agreement) | {"matrix": matrix, "images": counts.pop(), "seed": on.seed}
    if len(entrants) < 6:
        result["reasons"]["models"] = (
            f"{counted(len(entrants), 'model')}: the paper compares each with at least 5 others"
        )
    if out is not None:
        text = json.dumps(console.jsonable(result), indent=2, allow_nan=False)
        write_atomic(out, f"{text}\n".encode())
    if on.json:
        console.emit_json(result)
        return
    for line in result["reasons"].values():
        console.note(line)
    rows = [(r["rank"], r["run"], r["score"], r["informative_codes"], r["seed"]) for r in result["ranking"]]
    console.table("", ("rank", "run", "udr", "informative codes", "seed"), rows)


def _checkpoints(runs: list[Path]) -> list[Path]:
    """The checkpoint of each run; a folder of runs, as `--seeds` makes, stands for all of them. Raises UsageError when
    one is named twice."""
    runs = [run for given in runs for run in _runs_of(given)]
    paths = [find_checkpoint(run) for run in runs]
    seen: dict[Path, Path] = {}
    for given, path in zip(runs, paths, strict=True):
        if (first := seen.setdefault(path.resolve(), given)) is not given:
            raise UsageError(f"'{given}' and '{first}' are one checkpoint; a model always agrees with itself.")
    return paths


def _runs_of(given: Path) -> list[Path]:
    below = sorted(path.parent for path in given.glob("*/checkpoint.safetensors")) if given.is_dir() else []
    return below if below and not (given / "checkpoint.safetensors").exists() else [given]


def _comparable(paths: list[Path], data: str | None) -> None:
    """Raise UsageError unless the checkpoints hold one method trained on one data set; warn about other differences."""
    headers = [read_header(path) for path in paths]
    first = headers[0]
    for path, header in zip(paths[1:], headers[1:], strict=True):
        if header.method != first.method:
            raise UsageError(
                f"'{paths[0]}' is of method '{first.method}', '{path}' of '{header.method}': "
                "UDR ranks models of one method."
            )
        if data is None and _data(header) != _data(first):
            raise UsageError(
                f"'{paths[0]}' was trained on '{_named(first)}', '{path}' on '{_named(header)}': "
                "UDR needs the same images for all, name them with --data."
            )
        other = sorted(k for k in header.config if header.config[k] != first.config.get(k))
        if other:
            console.warn(f"'{path}' differs from '{paths[0]}' in {', '.join(other)}, not only in the seed.")
    seeds = [header.seed for header in headers]
    if len(set(seeds)) < len(seeds):
        console.warn(
            f"the seeds of these runs are {', '.join(map(str, seeds))}; equal ones say nothing about agreement."
        )


def _data(header: Header) -> tuple[Any, ...]:
    """What makes two runs' data the same: name, settings, and the form that was in use."""
    return header.data["name"], header.data["options"], header.data["origin"]


def _named(header: Header) -> str:
    options = ", ".join(f"{k} {v}" for k, v in header.data["options"].items())
    return f"{header.data['name']}" + (f" ({options})" if options else "")


def _encoded(path: Path, on: OnRows, n: int) -> Entrant:
    one = replace(on, checkpoint=path).open()
    require(one.model, one.header, "eval", "encode")
    table = encode_table(one.model, one.dataset(), rows=n, split=on.split, seed=on.seed)
    codes, kl = _continuous(table, f"method '{one.header.method}'")
    return Entrant(path, one.header, codes, kl)


def _from_file(path: Path, device: str) -> Entrant:
    return Entrant(path, None, *_continuous(table_from_arrays(path, choose_device(device)), f"'{path}'"))


def _continuous(table: CodeTable, what: str) -> tuple[Tensor, Tensor]:
    """The codes that have a Gaussian posterior, and their KL. Raises DistkError where there are none."""
    if table.kl is None or bool((usable := ~table.kl.isnan()).logical_not().all()):
        raise DistkError(f"{what} has no KL to a prior, by which UDR tells informative codes from dead ones.")
    return table.codes[:, usable], table.kl[usable]


def _result(entrants: list[Entrant], agreement: dict[str, Any]) -> dict[str, Any]:
    scores, counts = agreement["model_scores"].tolist(), agreement["informative_codes"].tolist()
    order = sorted(range(len(entrants)), key=lambda i: (-scores[i], i))
    ranking = [
        {
            "rank": place + 1,
            "run": str(entrants[i].path),
            "score": scores[i],
            "informative_codes": int(counts[i]),
            "seed": header.seed if (header := entrants[i].header) is not None else None,
        }
        for place, i in enumerate(order)
    ]
    runs = [str(entrant.path) for entrant in entrants]
    reasons = {f"model {i}": f"'{runs[i]}' has no informative code" for i, count in enumerate(counts) if not count}
    return {"ranking": ranking, "runs": runs, "pairwise": agreement["pairwise"], "reasons": reasons}
