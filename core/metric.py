"""Metric, and the table of codes that every metric reads.

A data set is encoded once, on the device; each sampling protocol is then index arithmetic on the table, so that ten
metrics cost one encoding pass.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from distk.config import C, Configured
from distk.console import counted, note, progress
from distk.data import Dataset, FactorDataset, Split
from distk.errors import UsageError
from distk.latents import Code
from distk.meaning import Number, find
from distk.memory import available
from distk.method import Method, can, eval_mode
from distk.nn import gaussian_kl
from distk.onepass import one_pass

SLOW = 2.0
"""Seconds after which it is said how long encoding took."""


@dataclass
class CodeTable:
    """Codes of N items and, where known, the factors behind them.

    codes: float `[N, D]`, posterior means; a categorical group is one column with its most probable class.
    names, kinds: of the D columns; kind is "continuous" or "categorical".
    factors: `[N, K]` or None: int64 values of each factor, or float64 where some are real numbers. Data without factors
        whose label has named classes have the one factor `label`.
    factor_names, factor_sizes, factor_kinds: of the K factors.
    grid: whether the rows are every factor combination once, the last factor fastest.
    std: float `[N, D]` posterior standard deviations, NaN in columns without one, such as those of class indices,
        whatever is given there; None without a posterior.
    kl: float `[D]` mean KL to the standard normal prior in nats, NaN likewise.
    model, dataset, rows: what was encoded, for metrics that look at items; None for arrays from a file.
    codes_test, factors_test: further rows `[M, D]`, `[M, K]` to test predictors on; None: rows of this table serve.
    """

    codes: Tensor
    names: list[str]
    kinds: list[str]
    factors: Tensor | None = None
    factor_names: tuple[str, ...] = ()
    factor_sizes: tuple[int, ...] = ()
    factor_kinds: tuple[str, ...] = ()
    grid: bool = False
    std: Tensor | None = None
    kl: Tensor | None = None
    model: Method | None = None
    dataset: Dataset | None = None
    rows: Tensor | None = None
    source: str = ""
    codes_test: Tensor | None = None
    factors_test: Tensor | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        classes = [d for d, kind in enumerate(self.kinds) if kind == "categorical"]
        if self.std is not None and classes and not bool(self.std[:, classes].isnan().all()):
            self.std = self.std.index_fill(1, torch.tensor(classes, device=self.std.device), torch.nan)

    def __len__(self) -> int:
        return len(self.codes)

    def sample_rows(self, n: int, generator: torch.Generator) -> Tensor:
        """`n` rows of this table, uniformly and with replacement, int64 `[n]` on the codes' device."""
        drawn = torch.randint(len(self), (n,), generator=generator, device=generator.device)
        return drawn.to(self.codes.device)

    def needs_factors(self) -> Tensor:
        """`factors`, or a UsageError that says why there are none."""
        if self.factors is None:
            raise UsageError(f"{self.source or 'this data'} has no ground-truth factors.")
        return self.factors


class Picture(Protocol):
    """What `Metric.pictures` gives: one drawing in three forms."""

    def png(self) -> bytes:
        """The contents of a PNG file."""

    def svg(self) -> str:
        """The contents of an SVG file."""

    def text(self) -> str:
        """Lines for a terminal; empty where it has no such form."""


def contents(picture: Picture, suffix: str) -> bytes:
    """A drawing as the contents of a file of this suffix.

    Raises UsageError for a PDF of a drawing that has no method `pdf`.
    """
    if suffix == ".svg":
        return picture.svg().encode()
    if suffix == ".pdf":
        made = getattr(picture, "pdf", None)
        if made is None:
            raise UsageError("this metric's pictures have no PDF: use --format svg.")
        return bytes(made())
    return picture.png()


class Metric(Configured[C]):
    """A score of a representation. Subclasses define `compute`; settings as in `class Mine(Metric[Config])`.

    headline: the key of the result that stands for the metric in tables, in `--keep` and in progress lines.
    numbers: what each number that `compute` may give means, by key, `*` standing for any text (`distk.meaning`): its
    direction, range, unit, value at chance, source. keys: further numbers, of which nothing is said. Both empty: not
    declared, so that a study finds them by scoring an untrained model.
    higher_is_better: direction of the headline, taken from `numbers` where it stands there.
    repeats: default number of seeds (1 for a deterministic score).
    needs_model: whether it looks at items, so that arrays from a file do not suffice.
    needs: what the model must be able to do, such as ("decode", "posterior"); see `distk.can`.
    needs_codes: False for a metric that reads only model and data; where none needs codes, nothing is encoded.
    measures: what it is about, the heading under which `distk eval --metric all` shows it.
    labelled: whether it compares codes with factors or labels, so that shuffled rows give its value at chance
    (`distk eval --baseline`).
    predicts: whether it fits predictors on some rows and tests them on others, so that `distk eval --fit train` may
    name the former: they are then the table's, and the split's are `codes_test`.
    """

    headline: ClassVar[str]
    numbers: ClassVar[Mapping[str, Number]] = {}
    keys: ClassVar[tuple[str, ...]] = ()
    higher_is_better: ClassVar[bool] = True
    repeats: ClassVar[int] = 1
    needs_model: ClassVar[bool] = False
    needs: ClassVar[tuple[str, ...]] = ()
    needs_codes: ClassVar[bool] = True
    predicts: ClassVar[bool] = False
    labelled: ClassVar[bool] = False
    measures: ClassVar[str] = ""

    def __init_subclass__(cls, **rest: Any) -> None:
        super().__init_subclass__(**rest)
        told = find(cls.numbers, getattr(cls, "headline", ""))
        if told is not None and "higher_is_better" not in vars(cls):
            cls.higher_is_better = told.better != "lower"

    def __init__(self, config: C) -> None:
        self.config = config

    @classmethod
    def meaning(cls, key: str) -> Number | None:
        """What a number of the result means; of a headline that `numbers` lacks its direction is known. None: nothing
        is said about it."""
        told = find(cls.numbers, key)
        if told is None and key == getattr(cls, "headline", ""):
            return Number("higher" if cls.higher_is_better else "lower")
        return told

    @classmethod
    def declared(cls) -> tuple[str, ...]:
        """The numbers that `compute` may give beside the headline, as patterns; empty where nobody says it."""
        return tuple(dict.fromkeys((*cls.numbers, *cls.keys)))

    def compute(self, table: CodeTable, seed: int) -> Mapping[str, Any]:
        """Named numbers, and arrays where the metric has them; `reasons` maps an undefined key to why.

        Raises UsageError when the table lacks what the metric needs.
        """
        raise NotImplementedError

    @classmethod
    def pictures(cls, result: Mapping[str, Any]) -> Mapping[str, Picture]:
        """Drawings of what `compute` returned, by a short name for the file; `distk eval` writes them.

        result: beside that, `subject` may say in words what was scored, for a title.
        """
        return {}


def chosen_rows(dataset: Dataset, split: Split, rows: int | None, seed: int) -> Tensor:
    """Rows of a split, at most `rows` of them, drawn without replacement from `seed` and sorted; int64 `[n]`."""
    index = dataset.rows_of(split)
    if rows is None or rows >= len(index):
        return index
    order = torch.randperm(len(index), generator=torch.Generator().manual_seed(seed))[:rows].sort().values
    return index[order.to(dataset.device)]


@torch.no_grad()
def encode_table(
    model: Method,
    dataset: Dataset,
    *,
    rows: int | None = None,
    split: Split = "all",
    seed: int = 0,
    at_once: int | None = None,
) -> CodeTable:
    """Encode a data set in eval mode, without autocast; each network of the encoder runs once for a batch.

    rows: at most so many items (drawn without replacement from `seed`); None encodes all. at_once: items of a batch;
    None takes as many as the memory allows. What took longer than two seconds is said, with its rows a second.
    Raises UsageError for a method that cannot encode, and for codes in half precision, which fall into other bins.
    """
    if not can(model, "encode"):
        raise UsageError(f"method {type(model).__name__} has no encoder, so its codes cannot be scored.")
    chosen = dataset.rows(split)
    index = chosen_rows(dataset, split, rows, seed)
    whole = len(index) == (len(dataset) if chosen is None else len(chosen))
    codes, stds, kl = [], [], torch.zeros(len(model.latents.columns), dtype=torch.float64, device=dataset.device)
    off = torch.autocast(dataset.device.type, enabled=False)
    began = time.monotonic()
    with eval_mode(model), progress("encoding", len(index)) as advance, off:
        for part in index.split(at_once or items_at_once(dataset)):
            batch = dataset.items(part)
            with one_pass(model):  # the posterior's networks are those of the code
                code = model.encode_batch(batch)
                _refuse_half(model, code)
                codes.append(model.latents.flatten(code))
                if can(model, "posterior"):
                    std, nats = _posterior_columns(model, batch)
                    stds.append(std)
                    kl += nats.double().sum(0)
            advance(len(part))
    if (seconds := time.monotonic() - began) > SLOW:
        note(f"encoded {counted(len(index), 'row')} in {seconds:.1f} s, {len(index) / seconds:,.0f} a second")
    table = CodeTable(
        torch.cat(codes),
        model.latents.columns,
        model.latents.column_kinds,
        std=torch.cat(stds) if stds else None,
        kl=kl / len(index) if stds else None,
        model=model,
        dataset=dataset,
        rows=index,
        source=f"data set '{dataset.name}'",
    )
    if isinstance(dataset, FactorDataset):
        table.factors = dataset.truth(index)
        table.factor_names, table.factor_sizes = dataset.factor_names, dataset.factor_sizes
        table.factor_kinds = dataset.factor_kinds
        table.grid = whole and dataset.is_grid and chosen is None
    elif (label := labels_of(dataset)) is not None:
        table.factors, table.factor_names = label[index].unsqueeze(1), ("label",)
        table.factor_sizes, table.factor_kinds = (len(dataset.spec.classes),), ("categorical",)
    return table


def items_at_once(dataset: Dataset) -> int:
    """Items that are encoded together: 512, fewer where even their activations would fill the memory, and up to 4,096
    on a GPU with room for them. A network's activations are taken to be 64 times its items."""
    item = 64 * 4 * max(1, math.prod(dataset.spec.shape))
    if dataset.device.type == "cuda":
        room, most = torch.cuda.mem_get_info(dataset.device)[0] // 4, 4096
    else:
        room, most = available() // 4, 512
    while most > 1 and most * item > room:
        most //= 2
    return most


def has_truth(dataset: Dataset) -> bool:
    """Whether these data hold anything that codes can be compared with: factors, or a label."""
    return isinstance(dataset, FactorDataset) or isinstance(getattr(dataset, "label", None), Tensor)


def labels_of(dataset: Dataset) -> Tensor | None:
    """The label of each row, int64 `[N]`, of data without factors whose label has named classes; else None."""
    label = getattr(dataset, "label", None)
    held = isinstance(label, Tensor) and label.shape == (len(dataset),) and not label.is_floating_point()
    return label if held and len(dataset.spec.classes) > 1 else None


def _refuse_half(model: Method, code: Code) -> None:
    for name, value in code.items():
        if value.dtype in (torch.float16, torch.bfloat16):
            raise UsageError(
                f"method {type(model).__name__} encodes '{name}' as {value.dtype}, which shifts codes between bins: "
                "encode in float32 to score them."
            )


def _posterior_columns(model: Method, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Standard deviation and KL to N(0, 1), each `[batch, columns]`; NaN for columns without a Gaussian posterior."""
    posterior = model.posterior_batch(batch)
    std, kl = [], []
    for group in model.latents.scored:
        if group.name in posterior:
            mean, sd = (value.flatten(1).float() for value in posterior[group.name])
            std.append(sd)
            kl.append(gaussian_kl(mean, sd.clamp_min(1e-8)))
        else:
            nan = torch.full((len(batch["x"]), len(group.columns)), torch.nan, device=batch["x"].device)
            std.append(nan)
            kl.append(nan)
    return torch.cat(std, 1), torch.cat(kl, 1)
