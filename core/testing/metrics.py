"""Conformance of metrics, and the tables of codes that they are tried on."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from distk.config import NoConfig
from distk.data import Dataset, DataSpec, FactorDataset, Files
from distk.errors import DistkError, UsageError
from distk.evaluation import own_words
from distk.latents import Code, Latent, LatentSpace, one_hot
from distk.meaning import find
from distk.method import Method, can
from distk.metric import CodeTable, Metric, encode_table
from distk.testing.data import Check, demand, documented, loaded, named_apart, run


def _headline(cls: type[Metric[Any]], result: Mapping[str, Any]) -> None:
    assert cls.headline in result, f"the headline '{cls.headline}' is missing among {sorted(result)}"
    assert isinstance(result[cls.headline], float), "the headline is not a float"


def _declared(cls: type[Metric[Any]], result: Mapping[str, Any]) -> None:
    """The numbers of a result have names and values that the metric declares."""
    assert "error" not in result, "a result's key 'error' means that the metric failed: call it something else"
    given = {key: value for key, value in result.items() if isinstance(value, (int, float))}
    if cls.declared():
        known = [*cls.declared(), cls.headline]
        strange = [key for key in given if not any(fnmatch.fnmatchcase(key, form) for form in known)]
        assert not strange, f"`numbers` does not name {', '.join(strange)}"
    for key, value in given.items():
        number = find(cls.numbers, key)
        if number is not None and value == value:
            low = -math.inf if number.low is None else number.low
            high = math.inf if number.high is None else number.high
            slack = 1e-9 * max(1.0, abs(value))
            assert low - slack <= value <= high + slack, f"'{key}' is {value:g}, outside {number.range}"
            assert not number.whole or value == round(value), f"'{key}' counts, but is {value:g}"


def _repeatable(compute: Callable[[], Mapping[str, Any]], result: Mapping[str, Any]) -> None:
    """A second go with the same seed gives the same numbers and leaves the global generator where it stood."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)  # a score that draws from the global generator now draws something else
        before = torch.get_rng_state()
        second = compute()
        assert torch.equal(torch.get_rng_state(), before), "it draws from the global generator"
    for key, value in result.items():
        if isinstance(value, float):
            assert value == second[key] or value != value, f"'{key}' differs for one seed"


def metric_checks(name: str, table: CodeTable | None = None) -> list[Check]:
    """All checks of a metric, on `table` or on a small synthetic one."""
    try:
        cls = loaded("metric", name, Metric)
    except DistkError as error:
        return [Check("it can be imported", str(error))]
    if (apart := named_apart(cls.Config, own_words())).problem:
        return [apart]
    given = table is not None
    table = table if table is not None else probe_table() if cls.needs_model or cls.needs else synthetic_table()

    def compute() -> Mapping[str, Any]:
        return cls(cls.Config()).compute(table, 0)

    try:
        result = compute()
    except UsageError as error:  # it asks for something else: another model, a file
        hint = "" if given else " Add --checkpoint RUN."
        return [Check("it scores the table", skipped=f"{error}{hint}")]
    except Exception as error:
        return [Check("it scores the table", f"{type(error).__name__}: {error}")]

    checks = run(
        {
            "every option is documented": lambda: documented(cls.Config),
            "the headline is there": lambda: _headline(cls, result),
            "its numbers are those that it declares": lambda: _declared(cls, result),
            "one seed gives one result": lambda: _repeatable(compute, result),
        }
    )
    return [apart, *checks]


def check_metric(name: str, table: CodeTable | None = None) -> None:
    """`metric_checks`, raising AssertionError that names every check that failed."""
    demand(metric_checks(name, table), f"metric '{name}'")


def synthetic_table(seed: int = 0) -> CodeTable:
    """A full grid of shape 3, size 2, x 8, y 16 under a noisy code with one discrete column and a dead one;
    pictures of 3 x 3 pixels in four slots, of which two take one object."""
    sizes = (3, 2, 8, 16)
    grid = torch.cartesian_prod(*(torch.arange(s) for s in sizes))
    noise = torch.randn(len(grid), 3, generator=torch.Generator().manual_seed(seed))
    scaled = (grid[:, 1:].float() - 3) / 2 + 0.1 * noise
    slots = torch.randint(4, (len(grid), 3, 3), generator=torch.Generator().manual_seed(seed))
    codes = torch.cat([scaled, torch.zeros(len(grid), 1), grid[:, :1].float()], 1)
    return CodeTable(
        codes,
        ["z1", "z2", "z3", "z4", "d"],
        [*["continuous"] * 4, "categorical"],
        grid,
        ("shape", "size", "x", "y"),
        sizes,
        ("categorical", "ordinal", "ordinal", "ordinal"),
        grid=True,
        std=torch.cat([torch.full((len(grid), 4), 0.1), torch.full((len(grid), 1), torch.nan)], 1),
        kl=torch.tensor([2.0, 2.0, 2.0, 0.0, torch.nan], dtype=torch.float64),
        source="the synthetic table",
        extra={"slots": slots, "objects": slots % 3},
    )


class _Dots(FactorDataset):
    """A dot or a ring at one of 6 x 6 places, images `[1, 8, 8]`."""

    def __init__(self) -> None:
        super().__init__(NoConfig(), torch.device("cpu"), Files("dots", None, ""))
        self.name, self.origin = "dots", "drawn for the conformance checks"
        self.spec = DataSpec("image", (1, 8, 8))
        self.factor_names, self.factor_sizes = ("shape", "x", "y"), (2, 6, 6)
        self.factor_kinds = ("categorical", "ordinal", "ordinal")

    def batch(self, rows: Tensor) -> dict[str, Tensor]:
        shape, x, y = self.factors(rows).unbind(-1)
        place = torch.arange(8)
        far = (place - x[:, None, None] - 1).abs().maximum((place[:, None] - y[:, None, None] - 1).abs())
        return {"x": ((far <= 1) & ((far == 1) | (shape == 0)[:, None, None])).float().unsqueeze(1), "label": shape}


class _Linear(Method):
    """An untrained linear autoencoder with a continuous and a categorical group."""

    latents = LatentSpace.of(Latent("z", "continuous", 3), Latent("d", "categorical", 2))

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(NoConfig(), spec)
        self.encoder, self.decoder = nn.Linear(64, 5), nn.Linear(5, 64)

    def encode(self, x: Tensor) -> Code:
        z, d = self.encoder(x.flatten(1)).split([3, 2], 1)
        return {"z": z, "d": one_hot(d.argmax(1), 2)}

    def posterior(self, x: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        z = self.encode(x)["z"]
        return {"z": (z, torch.full_like(z, 0.5))}

    def decode(self, code: Code) -> Tensor:
        return self.decoder(torch.cat([code["z"], code["d"]], 1)).sigmoid().view(-1, *self.spec.shape)


def model_table(model: Method, dataset: Dataset, rows: int = 256) -> CodeTable:
    """Codes of at most `rows` items; no rows for a model without an encoder, whose metrics look at model and data."""
    if can(model, "encode"):
        return encode_table(model, dataset, rows=rows)
    none = torch.zeros(0, len(model.latents.columns))
    return CodeTable(none, model.latents.columns, model.latents.column_kinds, model=model, dataset=dataset)


def probe_table(seed: int = 0) -> CodeTable:
    """A table with a model, a data set and rows behind it, for metrics that look at items."""
    data = _Dots()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _Linear(data.spec).eval()
    return encode_table(model, data)
