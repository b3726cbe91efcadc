"""Data sets that live on the training device and are sampled there by index, without worker processes or copies."""

from __future__ import annotations

import functools
import os
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor

from distk import places
from distk.config import C, Configured, from_dict, own_names
from distk.console import counted, note_once
from distk.errors import DistkError, UsageError, unknown
from distk.files import expanded
from distk.indexed import Indexed
from distk.registry import registry
from distk.stored import Stored, Where

Split = str
"""Name of a part of a data set: `all`, or one of `Dataset.splits` such as `train` and `test`."""


@dataclass(frozen=True)
class DataSpec:
    """What one item is, as a method needs to know it to build its networks. Stored in the checkpoint.

    kind: image, video, sentence, transition, grasp, vector. shape: of one item, `(channels, height, width)` for images.
    range: smallest and largest value. classes: names of the label's classes, if there is one label.
    extra: further plain values (a vocabulary, numbers of classes of several labels). `open_dataset` adds `factors`,
        name -> number of values, and `factor_kinds`, name -> kind, for data with known factors.
    """

    kind: str
    shape: tuple[int, ...]
    range: tuple[float, float] = (0.0, 1.0)
    classes: tuple[str, ...] = ()
    extra: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for the checkpoint header."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> DataSpec:
        """Inverse of `to_dict`. Raises UsageError for values that are no data spec."""
        try:
            shape = tuple(int(n) for n in values["shape"])
            low, high = (float(v) for v in values["range"])
            spec = cls(str(values["kind"]), shape, (low, high), tuple(values["classes"]), dict(values["extra"]))
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError(f"the data description in the file is damaged: {error}.") from error
        if any(not 0 < n <= 1 << 20 for n in shape) or len(shape) > 6:
            raise UsageError(f"the data description in the file has the impossible shape {shape}.")
        return spec


VALIDATION = ("validation", "valid", "val", "dev")
"""What data sets call the rows that a model may be chosen by; each of these words means whichever one there is."""
VALIDATION_SEED = 20_171
"""Of the rows that `--validation` keeps back: a number that no run's seed is likely to be."""


class Dataset(Indexed, Configured[C]):
    """Items on a device. Subclasses set `spec` and `origin` in `__init__` and define `__len__` and `batch`.

    A subclass names its settings as `class Mine(Dataset[Config])`. To PyTorch it is a `torch.utils.data.Dataset`:
    `data[5]` is one item, `data[5:9]` and `data[[5, 7]]` are batches, `data.loader(64)` is a `DataLoader`.

    origin: one sentence that says which form of the data is in use, shown on the console and kept in the checkpoint.
    """

    reads: ClassVar[str] = ""
    """What `--data-dir` holds, for help texts and messages; empty where the data set reads no files."""
    gives: ClassVar[tuple[str, ...]] = ()
    """What a training batch holds beside `x`, `label` and `factors`, such as `x2`: named to who lacks it."""
    makes: ClassVar[Mapping[str, str]] = MappingProxyType({})
    """Kind of another data set -> kind of the data that this one makes of it, as `--data NAME:OTHER`: told to who has
    the other and needs these."""
    spec: DataSpec
    origin: str
    parts: Mapping[str, Tensor] = MappingProxyType({})
    """The rows of each split by its name, int64 on the device; empty where the data have no splits."""

    told: tuple[str, ...] = ()
    """Sentences on what was left out of the files and what was changed; said when the data are opened."""
    name: str = ""
    identity: Tensor | None = None
    """Whose picture each row is, int64 `[N]`, for data of which an identity is in one split alone."""
    stand_in: Any = None
    """What takes the place of files that were not found; None where these are the data of that name."""
    stored: tuple[Stored, ...] = ()
    """Where the items lie, for data that are held whole; see `counted`."""
    counted: ClassVar[bool] = False
    """Whether the rows of a training batch follow from seed and step alone (`stored.rows_at`), so that the next ones
    can be gathered ahead: for data sets whose `sample` is this one, drawn from `stored`."""
    eager_because: str = ""
    """Why steps over these data cannot be captured as a CUDA graph; empty where they can."""

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        if {"sample", "sample_rows"} & cls.__dict__.keys() and "counted" not in cls.__dict__:
            cls.counted = False  # a subclass of a counted data set that draws its batches itself

    def __init__(self, config: C, device: torch.device, files: Files) -> None:
        """files: finds the user's files; `files.find(...)` is None where the built-in form is to be used. `files.where`
        says where items that are held whole shall lie, for `Stored`."""
        self.config = config
        self.device = device
        self.where: Where = files.where if files is not None else "auto"
        self._rows_on_host: dict[Split, Tensor | None] = {}

    def __len__(self) -> int:
        raise NotImplementedError

    def batch(self, rows: Tensor) -> dict[str, Tensor]:
        """Rows int64 `[n]` on the device -> at least `x` `[n, *spec.shape]`; `label` int64 `[n]` where there is one."""
        raise NotImplementedError

    def items(self, rows: Tensor) -> dict[str, Tensor]:
        """As `batch`, with the factors of data that have them: what codes of these rows may depend on."""
        return self.batch(rows)

    def __repr__(self) -> str:
        spec = getattr(self, "spec", None)
        if spec is None:
            return f"<{type(self).__name__}>"
        held = (
            f"{counted(len(self), 'item')}, {spec.kind} {list(spec.shape)} from {spec.range[0]:g} to {spec.range[1]:g}"
        )
        return f"<{type(self).__name__} '{self.name}': {held}, on {self.device}>"

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits beside `all`. Data without splits answer to `train` and `test` with all their rows."""
        return tuple(self.parts) or ("train", "test")

    def rows(self, split: Split) -> Tensor | None:
        """The rows of a split, int64 on the device; None means all of them.

        Raises UsageError, naming the splits that there are, for another name.
        """
        if split in VALIDATION and split not in self.splits:
            split = self.validation_split or split
        if split != "all" and split not in self.splits:
            raise unknown(f"split of data set '{self.name}'", split, ("all", *self.splits))
        return self.parts.get(split)

    @property
    def validation_split(self) -> Split | None:
        """The split that a model may be chosen by; None where there is none."""
        return next((name for name in VALIDATION if name in self.splits), None)

    def keep_back(self, share: float) -> None:
        """Take a share of the training rows out of training, as the split `validation`: the same rows for every seed,
        and whole identities where the data have them.

        Raises UsageError where there is such a split already, or where the data set draws its batches itself.
        """
        if self.validation_split is not None:
            raise UsageError(f"data set '{self.name}' has the split '{self.validation_split}': leave --validation out.")
        cls = type(self)
        if (cls.sample, cls.sample_rows) not in ((Dataset.sample, Dataset.sample_rows),):
            raise UsageError(f"data set '{self.name}' draws its batches itself, so no rows can be kept back from them.")
        rows = self.rows_of("train")
        if self.identity is None:
            order = permuted_split(len(rows), share, VALIDATION_SEED, rows.device)
            kept = torch.zeros_like(rows, dtype=torch.bool).index_fill(0, order["test"], True)
        else:
            whose = self.identity[rows].unique()
            order = permuted_split(len(whose), share, VALIDATION_SEED, rows.device)
            kept = torch.isin(self.identity[rows], whose[order["test"]])
        others = self.parts or {"test": self.rows_of("test")}
        self.parts = {**others, "train": rows[~kept], "validation": rows[kept]}
        self._rows_on_host.clear()

    def rows_of(self, split: Split) -> Tensor:
        """The rows of a split, int64 `[n]` on the device: as `rows`, with every row where that says all of them."""
        rows = self.rows(split)
        return torch.arange(len(self), device=self.device) if rows is None else rows

    def rows_on_host(self, split: Split) -> Tensor | None:
        """As `rows`, on the CPU; copied once."""
        if split not in self._rows_on_host:
            rows = self.rows(split)
            self._rows_on_host[split] = None if rows is None else rows.cpu()
        return self._rows_on_host[split]

    def bucket(self, step: int, seed: int) -> Hashable:
        """A host value for data whose batches change shape from step to step (sentence lengths); see `sample`."""
        return None

    def sample(
        self, n: int, generator: torch.Generator, split: Split = "train", bucket: Hashable = None
    ) -> dict[str, Tensor]:
        """`n` items of a split, uniformly and with replacement."""
        return self.items(self.sample_rows(n, generator, split))

    def sample_rows(self, n: int, generator: torch.Generator, split: Split = "all") -> Tensor:
        """`n` rows of a split, uniformly and with replacement, int64 `[n]`."""
        rows = self.rows(split)
        size = len(self) if rows is None else len(rows)
        drawn = torch.randint(size, (n,), generator=generator, device=self.device)
        return drawn if rows is None else rows[drawn]


class FactorDataset(Dataset[C]):
    """A data set whose items are generated by known factors; rows are found by their factors and back.

    A grid holds every combination once, in row-major order with the last factor fastest. Anything else sets `table`.

    factor_names, factor_sizes: K factors and their numbers of values. factor_kinds: categorical, ordinal, circular or
    continuous. table: int64 `[N, K]` value of each factor for each row, or None for a grid.
    real_values: float `[N, K]` of each row's factors, where they are known; `levels` makes `table` of them.
    Scores then see the real values of continuous factors. Batches that are drawn for training hold `factors` int64
    `[n, K]`.
    """

    factor_names: tuple[str, ...]
    factor_sizes: tuple[int, ...]
    factor_kinds: tuple[str, ...]
    table: Tensor | None = None
    real_values: Tensor | None = None

    @property
    def is_grid(self) -> bool:
        """Whether every combination of factors occurs exactly once, in order."""
        return self.table is None

    @functools.cached_property
    def strides(self) -> Tensor:
        """int64 `[K]`: row of a grid = factors . strides. Kept, since a captured step cannot copy from the host."""
        sizes = torch.tensor((*self.factor_sizes[1:], 1), device=self.device)
        return sizes.flip(0).cumprod(0).flip(0)

    @functools.cached_property
    def _sizes(self) -> Tensor:
        return torch.tensor(self.factor_sizes, device=self.device)

    def __len__(self) -> int:
        if self.table is not None:
            return len(self.table)
        total = 1
        for size in self.factor_sizes:
            total *= size
        return total

    def items(self, rows: Tensor) -> dict[str, Tensor]:
        batch = self.batch(rows)
        return batch if "factors" in batch else {**batch, "factors": self.factors(rows)}

    def factors(self, rows: Tensor) -> Tensor:
        """Rows int64 `[...]` -> factor values int64 `[..., K]`."""
        if self.table is not None:
            return self.table[rows]
        return (rows.unsqueeze(-1) // self.strides) % self._sizes

    def truth(self, rows: Tensor) -> Tensor:
        """What scores take for the factors of these rows, `[n, K]`: float64 with the real values of continuous factors
        where `real_values` has them, else int64 as `factors`."""
        levels = self.factors(rows)
        if self.real_values is None or "continuous" not in self.factor_kinds:
            return levels
        real = torch.tensor([kind == "continuous" for kind in self.factor_kinds], device=self.device)
        return torch.where(real, self.real_values[rows].double(), levels.double())

    def index(self, factors: Tensor) -> Tensor:
        """Factor values int64 `[..., K]` -> rows int64 `[...]`, for a grid."""
        if not self.is_grid:
            raise UsageError(f"data set '{self.name}' is not a full grid, so factors do not determine a row.")
        return (factors.to(self.device) * self.strides).sum(-1)

    def observe(self, factors: Tensor) -> Tensor:
        """Factor values int64 `[n, K]` -> items float `[n, *spec.shape]`.

        Raises UsageError for values outside `factor_sizes`.
        """
        factors = torch.as_tensor(factors, device=self.device).long()
        sizes = torch.tensor(self.factor_sizes, device=self.device)
        if factors.dim() != 2 or factors.shape[1] != len(sizes) or bool(((factors < 0) | (factors >= sizes)).any()):
            named = ", ".join(f"{n} 0..{s - 1}" for n, s in zip(self.factor_names, self.factor_sizes, strict=True))
            raise UsageError(f"factors must be whole numbers [n, {len(sizes)}] with {named}.")
        return self.batch(self.index(factors))["x"]

    def sample_factors(self, n: int, generator: torch.Generator) -> Tensor:
        """Factors of `n` rows drawn uniformly, int64 `[n, K]`."""
        return self.factors(self.sample_rows(n, generator))

    def grid(self) -> Tensor:
        """Every row's factors, int64 `[N, K]`, in row order."""
        return self.factors(torch.arange(len(self), device=self.device))


class Files:
    """Finds a data set's files: in `--data-dir`, else in `$DISTK_DATA/<name>` or `$DISTK_DATA`.

    folder: where to look, or None. required: the user named the folder, so that a missing file is an error.
    where: where items that are held whole shall lie.
    model: what a trained model knows of its data, where it is that model which will read these items. A data set that
    can read its files in more than one way then does as the model's did: text keeps the model's vocabulary.
    """

    def __init__(
        self,
        name: str,
        folder: str | Path | None,
        reads: str,
        model: DataSpec | None = None,
        where: Where = "auto",
    ) -> None:
        self.where: Where = where
        self.name, self.reads, self.required, self.model = name, reads, folder is not None, model
        self.folders: list[Path] = []
        if folder is not None:
            if not os.path.exists(expanded(folder)):
                raise UsageError(f"--data-dir '{folder}' does not exist; '{name}' reads {reads or 'no files'} there.")
            self.folders = [expanded(folder)]
        elif os.environ.get("DISTK_DATA"):
            root = expanded(os.environ["DISTK_DATA"])
            self.folders = [root / name, root / name.replace("-", "_"), root]

    def find(self, *names: str) -> Path | None:
        """The first existing of `names` (glob patterns allowed), or None where no folder was named.

        Raises UsageError when the user named a folder that holds none of them.
        """
        for folder in self.folders:
            for name in names:
                found = sorted(folder.glob(name)) if folder.is_dir() else []
                if found:
                    return found[0]
                if folder.is_file() and folder.match(name):
                    return folder
        if self.required:
            raise UsageError(
                f"'{self.name}' found none of {names_of(names)} in '{self.folders[0]}'; it reads {self.reads}."
            )
        return None

    def folder_of(self, name: str) -> Path | None:
        """Where another data set, of which this one is made, finds its files: `--data-dir`, or the folder of its name
        in it; None where the user named no folder, or the other one reads no files."""
        base = name.partition(":")[0]
        if not self.required or not registry().find("dataset", base).load().reads:
            return None
        root = self.folders[0]
        return next((root / n for n in (base, base.replace("-", "_")) if (root / n).is_dir()), root)

    def open(self, name: str, options: dict[str, Any] | None = None, *, device: str | torch.device = "cpu") -> Dataset:
        """Another registered data set, of which this one is made, with the user's files handed on; see `open_dataset`.

        Raises UsageError for the data set itself, since that would never end.
        """
        if registry().find("dataset", name.partition(":")[0]).name == self.name:
            raise UsageError(f"data set '{self.name}' cannot be made of itself.")
        return open_dataset(
            name, options, device=device, folder=self.folder_of(name), model=self.model, where=self.where
        )


DATA_WORDS = frozenset({"name", "dir"})
"""What chooses the data set in the section [data], so that no setting of a data set can be called so. One that a
command has as well is reached as `--data-NAME`."""


def open_dataset(
    name: str,
    options: dict[str, Any] | None = None,
    *,
    device: str | torch.device = "cpu",
    folder: str | Path | None = None,
    model: DataSpec | None = None,
    where: Where = "auto",
) -> Dataset:
    """Build a registered data set.

    name: as in `distk list`; `name:variant` sets its setting `variant`. options: values of its Config.
    folder: the user's files, which are remembered as named (`distk.places`); without it `DISTK_DATA` is looked at, then
    the built-in form is used where there is one.
    model: the data description of a trained model that is to read the items; see `Files`. where: the device, the host,
    or whichever has room, for data that are held whole.
    Raises UsageError for an unknown name or a setting out of range, DistkError for unreadable files.
    """
    base, _, variant = name.partition(":")
    entry = registry().find("dataset", base)
    cls = entry.load()
    if wrong := own_names(cls.Config, DATA_WORDS):
        raise DistkError(f"data set '{entry.name}' of {entry.owner} cannot be opened: {wrong}.")
    values = {**(options or {}), **({"variant": variant} if variant else {})}
    config = from_dict(cls.Config, values, f"data set '{entry.name}'")
    if folder is not None and not str(folder):  # which would be the working folder
        raise UsageError(f"the folder of data set '{entry.name}' is empty: name one with --data-dir.")
    if folder is not None and not cls.reads:
        raise UsageError(f"data set '{entry.name}' reads no files, so it takes no --data-dir.")
    for place in ([folder] if folder is not None else []) + [p for _, p in places.settings(cls.Config, values)]:
        places.name(place)
    made = cls(config, torch.device(device), Files(entry.name, folder, cls.reads, model, where))
    made.name = entry.name
    for sentence in made.told:
        note_once(sentence)
    if where == "host" and not made.stored:
        raise UsageError(f"data set '{entry.name}' makes its items where they are used: leave --data-on host out.")
    if made.device.type == "cuda" and any(stored.on_host for stored in made.stored):
        made.eager_because = "the data lie on the host"
    if isinstance(made, FactorDataset) and "factors" not in made.spec.extra:
        factors = dict(zip(made.factor_names, made.factor_sizes, strict=False))
        kinds = dict(zip(made.factor_names, made.factor_kinds, strict=False))
        made.spec = replace(made.spec, extra={**made.spec.extra, "factors": factors, "factor_kinds": kinds})
    return made


def levels(values: Tensor) -> tuple[Tensor, tuple[int, ...]]:
    """Real values `[N, K]` -> (int64 `[N, K]`, the rank of each among the different values of its column; how many
    there are): `table` and `factor_sizes` of a `FactorDataset`."""
    columns = [column.unique(return_inverse=True) for column in values.T]
    return torch.stack([index for _, index in columns], 1), tuple(len(different) for different, _ in columns)


def permuted_split(n: int, test: float, seed: int, device: torch.device) -> dict[str, Tensor]:
    """Deterministic random split: {"train": rows, "test": rows}, int64, both sorted; `test` is a share in (0, 1)."""
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    cut = max(1, round(n * test))
    return {"train": order[cut:].sort().values.to(device), "test": order[:cut].sort().values.to(device)}


def names_of(sequence: Sequence[Any]) -> str:
    """`a, b and c` for messages."""
    items = [str(item) for item in sequence]
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"
