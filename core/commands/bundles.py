"""The options that travel together in commands that look into a trained model.

Nothing here imports torch before a command runs, so that its help does not wait for it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from distk import look
from distk.commands.arguments import Checkpoint, DataDir, DataName, Device, Json, Out, Seed, Split
from distk.errors import NotServed, UsageError
from distk.options import Bundle

if TYPE_CHECKING:
    from torch import Tensor

    from distk.checkpoint import Header
    from distk.data import Dataset
    from distk.latents import Code
    from distk.method import Method

M = TypeVar("M", bound="Method")
UNFIT = re.compile(r"[^\w.=+-]+")
"""What of the name of a data set or a score has no place in the name of a file."""


@dataclass(kw_only=True)
class OnModel(Bundle):
    """The options of a command that looks into a trained model; `open` fills path, model and header."""

    checkpoint: Checkpoint = None
    out: Out = None
    device: Device = "auto"
    json: Json = False
    if TYPE_CHECKING:  # what `open` fills; at run time their types would import torch
        path: Path = field(init=False)
        model: Method = field(init=False)
        header: Header = field(init=False)

    def open(self, command: str = "", *abilities: str) -> Self:
        """Load the named or newest checkpoint, and say on stderr which one it is.

        Raises NotServed where the model lacks one of the abilities that `command` needs.
        """
        from distk.commands import opening

        if self.out is not None:
            opening.check_folder(self.out)
        self.path, self.model, self.header = opening.opened(self.checkpoint, self.device)
        if command:
            opening.require(self.model, self.header, command, *abilities)
        return self

    def of(self, cls: type[M], methods: str) -> M:
        """The opened model, which must be a `cls`. Raises NotServed, naming `methods`, when it is not."""
        if not isinstance(self.model, cls):
            raise NotServed(
                f"'{self.path}' holds a model of method '{self.header.method}'; this command serves {methods}."
            )
        return self.model

    def target(self, name: str, *also: str) -> Path:
        """`--out`, or the file `<checkpoint's stem>.name` beside the checkpoint; see `beside`."""
        return self.beside(f"{self.path.stem}.{name}", *also)

    def shown(self, name: str) -> Path:
        """As `target`, for what `present` writes: the suffix is one of the forms of the opened model's items."""
        from distk.commands import opening

        first, *also = opening.forms(self.model)
        return self.target(f"{name}{first}", *also)

    def beside(self, name: str, *also: str) -> Path:
        """`--out`, or the file `name` beside the checkpoint. also: suffixes that `--out` may have beside its own."""
        from distk.commands import opening

        return opening.beside(self.path, self.out, name, *also)

    def report(self, files: list[Path], **values: Any) -> None:
        """Say which files were written: JSON on stdout with `values`, or a line each."""
        from distk.commands import opening

        opening.report(files, self.json, **values)


@dataclass(kw_only=True)
class Look(Bundle):
    """`--format` and `--dpi` of a command that draws pictures: taking it as a parameter is all that a command does.

    The names that `target`, `beside` and `shown` give then have the chosen suffix, and what writes pictures, `Sheet`
    and `as_figure`, has the chosen dots per inch.
    """

    form: look.Form = None
    dpi: look.Dpi = None

    def __post_init__(self) -> None:
        if self.form or self.dpi:  # not where a module is imported that has this as a default
            look.choose(self.form, self.dpi)


@dataclass(kw_only=True)
class OnData(OnModel):
    """The options of a command that holds a model against a data set."""

    data: DataName = None
    data_dir: DataDir = None

    def dataset(self) -> Dataset:
        """The data set that the opened model was trained on, or the one that `--data` names."""
        from distk.commands import opening

        return opening.its_data(self.model, self.header, self.data, self.data_dir)

    def other_data(self) -> str:
        """What files are called after when the data are not those of the training; empty where they are."""
        own, folder = self.header.data.get("name", ""), self.header.data.get("folder")
        moved = self.data_dir is not None and (not folder or self.data_dir.resolve() != Path(folder).resolve())
        if (self.data or own) == own and not moved:
            return ""
        words = [self.data or own, *([self.data_dir.resolve().name] if moved and self.data_dir is not None else [])]
        return "-".join(UNFIT.sub("-", word) for word in words)

    def beside(self, name: str, *also: str) -> Path:
        """`--out`, or the file `name` beside the checkpoint, called after other data than those of the training."""
        words = Path(name)
        of = self.other_data()
        return super().beside(f"{words.stem}.{of}{words.suffix}" if of else name, *also)


@dataclass(kw_only=True)
class OnRows(OnData):
    """The options of a command that draws some rows of a data set by a seed."""

    split: Split = "test"
    seed: Seed = 0

    def starts_at_data(self, start: str | None, command: str, **named: int | None) -> bool:
        """Whether the opened model's walk starts at items: `start` if it is given, else where it can encode.

        named: option -> the row that it names, or None. Raises NotServed where items are asked for and the model has
        no encoder, UsageError for a named row where codes are drawn.
        """
        from distk.method import can

        coded = can(self.model, "encode")
        given = [f"--{option}" for option, row in named.items() if row is not None]
        if given and start != "data" and not (coded and start is None):
            words = f"{' and '.join(given)} {'names an item' if len(given) == 1 else 'name items'} of the data"
            if start == "prior":
                raise UsageError(f"{words}, and --start prior draws codes by --seed: leave one of the two out.")
            raise NotServed(
                f"{words}, and method '{self.header.method}' has no encoder that gives its code: codes are drawn by "
                "--seed."
            )
        if start is None:
            return coded
        if start == "data" and not coded:
            raise NotServed(
                f"method '{self.header.method}' has no encoder, so `distk {command}` cannot start at items of the "
                "data: use --start prior, which draws codes by --seed."
            )
        return start == "data"

    def draws(self, n: int) -> Code:
        """`n` codes from the opened model's prior, drawn by the seed."""
        import torch

        device = self.model.device
        with torch.no_grad():
            return self.model.prior(n, torch.Generator(device=device).manual_seed(self.seed))

    def one_of(self, dataset: Dataset, row: int, option: str) -> int:
        """A row that the user named. Raises UsageError when the data set has it not."""
        if not 0 <= row < len(dataset):
            raise UsageError(f"{option} {row} is outside the data set's rows 0 to {len(dataset) - 1}.")
        return row

    def pairs(self, dataset: Dataset, a: int | None, b: int | None, pairs: int) -> Tensor:
        """Rows int64 `[n, 2]`: the pair that `--a` and `--b` name, or random ones of the split."""
        import torch

        if a is None or b is None:
            if (a is None) != (b is None):
                raise UsageError("give both --a and --b, or neither for random pairs.")
            drawn = self.rows(dataset, 2 * pairs)
            if len(drawn) < 2:
                raise UsageError(f"the {self.split} split has one item: a pair needs two.")
            return drawn[: len(drawn) // 2 * 2].view(-1, 2)
        self.one_of(dataset, a, "--a"), self.one_of(dataset, b, "--b")
        if a == b:
            raise UsageError(f"--a and --b are both {a}: name two different rows.")
        return torch.tensor([[a, b]], device=dataset.device)

    def rows(self, dataset: Dataset, n: int) -> Tensor:
        """`n` different rows of the split, int64 `[n]`, drawn by the seed."""
        from distk.commands import opening

        return opening.choose_rows(dataset, n, self.seed, self.split)
