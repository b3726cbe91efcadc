"""Conformance of data sets and metrics, and what all checks share. Use it through `distk.testing`."""

from __future__ import annotations

import dataclasses
import fnmatch
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from distk.config import NoConfig, from_dict
from distk.data import Dataset, DataSpec, FactorDataset, Files, open_dataset
from distk.device import seeded
from distk.errors import DistkError, UsageError
from distk.latents import Code, Latent, LatentSpace, one_hot
from distk.method import Method, can
from distk.metric import CodeTable, Metric, encode_table
from distk.registry import registry
from distk.testing.sentences import sentence_checks
from distk.transitions import Actions


@dataclasses.dataclass
class Check:
    """One check and its outcome: `problem` says why it failed, `skipped` why it could not be made here."""

    name: str
    problem: str = ""
    skipped: str = ""


def run(checks: Mapping[str, Callable[[], None]]) -> list[Check]:
    """Every check's outcome; one that fails does not end the others."""
    found = []
    for name, function in checks.items():
        try:
            function()
            found.append(Check(name))
        except Exception as error:  # a check reports whatever a stranger's code does
            text = str(error).strip() or type(error).__name__
            found.append(Check(name, text if isinstance(error, AssertionError) else f"{type(error).__name__}: {text}"))
    return found


def demand(found: list[Check], what: str) -> None:
    """Raise AssertionError naming `what` and every check that failed."""
    failed = [check for check in found if check.problem]
    assert any(not check.skipped for check in found), f"{what}: nothing could be checked: {found[0].skipped}"
    assert not failed, f"{what}: " + "; ".join(f"{check.name}: {check.problem}" for check in failed)


def documented(config: type) -> None:
    """Every setting has a help text, and a default that its own declaration allows."""
    for field in dataclasses.fields(config):
        assert field.metadata.get("help"), f"setting '{field.name}' has no help text (declare it with distk.option)"
        if field.default is not dataclasses.MISSING and field.default is not None:
            from_dict(config, {field.name: field.default}, "the default")


def same(a: Mapping[str, Tensor], b: Mapping[str, Tensor], what: str) -> None:
    """Both hold the same tensors, bit for bit."""
    assert set(a) == set(b), f"{what} hold different tensors: {sorted(set(a) ^ set(b))[:5]}"
    for name, value in a.items():
        assert torch.equal(value, b[name]) or bool(
            ((value == b[name]) | (value.isnan() & b[name].isnan())).all() if value.is_floating_point() else False
        ), f"{what} differ in '{name}'"


def loaded(kind: str, name: str, base: type) -> Any:
    """The registered class of a name.

    Raises DistkError when it cannot be imported or is not a subclass of `base`.
    """
    entry = registry().find(kind, name)
    found = entry.load()
    if not isinstance(found, type) or not issubclass(found, base):
        raise DistkError(
            f"{kind} '{entry.name}' of {entry.owner} is '{entry.path}', not a subclass of {base.__name__}."
        )
    return found


# Data sets


def dataset_checks(name: str, data_dir: str | Path | None = None, **options: Any) -> list[Check]:
    """All checks of a data set, in the form that needs no file unless `data_dir` names the user's folder."""
    opens = "opens without files" if data_dir is None else "opens its files"
    try:
        cls = loaded("dataset", name.partition(":")[0], Dataset)
    except DistkError as error:
        return [Check("it can be imported", str(error))]
    try:
        dataset: Dataset | None = open_dataset(name, options, folder=data_dir)
    except UsageError as error:  # it asks for more: a folder, a variant
        return [Check(opens, skipped=str(error))]
    except Exception as error:  # a stranger's constructor
        return [Check(opens, f"{type(error).__name__}: {error}")]
    assert dataset is not None
    checks = {
        "every option is documented": lambda: documented(cls.Config),
        "items fit the spec": lambda: _items(dataset),
        "sampling follows its generator": lambda: _sampling(dataset),
        "splits hold rows of the data, apart from each other": lambda: _splits(dataset),
        "the spec survives the header": lambda: _spec(dataset.spec),
    }
    if dataset.spec.kind == "video":
        checks["clips are in one split and in range"] = lambda: _video(dataset)
    if dataset.spec.kind == "environment":
        checks["stepping follows the actions"] = lambda: _environment(dataset)
    if dataset.spec.kind == "transition":
        checks["transitions fit the spec"] = lambda: _transitions(dataset)
        if getattr(dataset, "can_step", True):
            checks["x_next follows x under u"] = lambda: _follows(dataset)
    if isinstance(dataset, FactorDataset):
        checks["rows and factors agree"] = lambda: _factors(dataset)
    if dataset.spec.kind == "sentence":
        checks |= sentence_checks(dataset, lambda spec: open_dataset(name, options, folder=data_dir, model=spec))
    return run(checks)


def check_dataset(name: str, data_dir: str | Path | None = None, **options: Any) -> None:
    """`dataset_checks`, raising AssertionError that names every check that failed."""
    demand(dataset_checks(name, data_dir, **options), f"data set '{name}'")


def _items(dataset: Dataset) -> None:
    assert dataset.name, "name is not set"
    assert dataset.origin, "origin is empty: say which form of the data is in use"
    n = min(16, len(dataset))
    batch = dataset.batch(torch.arange(n))
    assert batch["x"].shape == (n, *dataset.spec.shape), (
        f"x is {tuple(batch['x'].shape)}, spec says {dataset.spec.shape}"
    )
    low, high = dataset.spec.range
    if batch["x"].is_floating_point() and dataset.spec.kind in ("image", "video"):
        inside = bool((batch["x"] >= low).all() and (batch["x"] <= high).all())
        assert inside, f"values lie outside the range {dataset.spec.range}"
    for key, value in batch.items():
        if isinstance(value, Tensor):
            assert len(value) == n, f"'{key}' has {len(value)} rows, not {n}"
            assert value.device.type == dataset.device.type, f"'{key}' is not on the device"


def _sampling(dataset: Dataset) -> None:
    bucket = dataset.bucket(0, 0)
    first, second = (dataset.sample(8, seeded(3, dataset.device), bucket=bucket)["x"] for _ in range(2))
    assert torch.equal(first, second), "one seed gives two different batches"


def _splits(dataset: Dataset) -> None:
    train, test = dataset.rows("train"), dataset.rows("test")
    for rows in (train, test):
        if rows is not None:
            assert len(rows), "a split is empty"
            assert 0 <= int(rows.min()) <= int(rows.max()) < len(dataset), "a split names rows that are not there"
    if train is not None and test is not None:
        assert not set(train.tolist()) & set(test.tolist()), "train and test overlap"


def _video(dataset: Dataset) -> None:
    frames = dataset.spec.shape
    assert len(frames) == 4, f"the shape of a video is [time, channels, height, width], not {frames}"
    assert frames[1] in (1, 3), f"a video has 1 or 3 channels, not {frames[1]}"
    train, test = dataset.rows("train"), dataset.rows("test")
    if train is None or test is None:
        return
    batches = [dataset.batch(rows[:: max(1, len(rows) // 256)][:256]) for rows in (train, test)]
    if all("clip" in batch for batch in batches):
        both = set(batches[0]["clip"].tolist()) & set(batches[1]["clip"].tolist())
        assert not both, f"clip {min(both)} is in the training and in the test split"
        drawn = dataset.sample(64, seeded(5, dataset.device), "train", dataset.bucket(0, 0))
        assert not set(drawn["clip"].tolist()) & set(batches[1]["clip"].tolist()), "sampling leaves its split"


def _environment(dataset: Any) -> None:
    actions, n = Actions.of(dataset.spec), 8
    state = dataset.reset(n, seeded(2, dataset.device))
    u = actions.sample(n, seeded(3, dataset.device))
    after = dataset.step(state, u)
    assert after.shape == state.shape, f"a step turns states {tuple(state.shape)} into {tuple(after.shape)}"
    assert after.dtype == state.dtype, f"a step turns {state.dtype} into {after.dtype}"
    x = dataset.render(after)
    assert x.shape == (n, *dataset.spec.shape), f"pictures are {tuple(x.shape)}, spec says {dataset.spec.shape}"
    if dataset.spec.extra.get("branching", True):
        same({"state": dataset.step(state, u)}, {"state": after}, "two steps from one state")
        _acts(dataset, actions, state)


def _acts(dataset: Any, actions: Actions, state: Tensor) -> None:
    """Raise AssertionError unless some action has another outcome than the others."""
    outcomes = [dataset.step(state, actions.sample(len(state), seeded(seed, dataset.device))) for seed in range(10, 18)]
    assert any(not torch.equal(outcome, outcomes[0]) for outcome in outcomes[1:]), "what is done has no effect"


def _transitions(dataset: Dataset) -> None:
    n = min(64, len(dataset))
    batch, actions = dataset.batch(torch.arange(n, device=dataset.device)), Actions.of(dataset.spec)
    missing = {"x", "u", "x_next"} - set(batch)
    assert not missing, f"the batch lacks {', '.join(sorted(missing))}"
    assert batch["x_next"].shape == batch["x"].shape, (
        f"x_next is {tuple(batch['x_next'].shape)}, x {tuple(batch['x'].shape)}"
    )
    assert batch["x_next"].dtype == batch["x"].dtype, f"x_next is {batch['x_next'].dtype}, x {batch['x'].dtype}"
    low, high = dataset.spec.range
    inside = bool((batch["x_next"] >= low).all() and (batch["x_next"] <= high).all())
    assert inside, f"values of x_next lie outside the range {dataset.spec.range}"
    problem = actions.problem(batch["u"], n)
    assert not problem, problem


def _follows(dataset: Any) -> None:
    rows = dataset.sample_rows(min(64, len(dataset)), seeded(4, dataset.device))
    batch, state = dataset.batch(rows), dataset.state(rows)
    after = dataset.step(state, batch["u"])
    same({"x": dataset.render(state)}, {"x": batch["x"]}, "the picture of a row's state and its x")
    same({"x": dataset.render(after)}, {"x": batch["x_next"]}, "the picture after stepping and x_next")
    assert not torch.equal(batch["x"], batch["x_next"]), "x_next is x in every row"
    _acts(dataset, dataset.actions, state)


def _spec(spec: DataSpec) -> None:
    again = DataSpec.from_dict(json.loads(json.dumps(spec.to_dict())))
    assert again.to_dict() == DataSpec.from_dict(spec.to_dict()).to_dict(), "the spec changed"


def _factors(dataset: FactorDataset) -> None:
    k = len(dataset.factor_sizes)
    assert len(dataset.factor_names) == len(dataset.factor_kinds) == k, "names, sizes and kinds differ in number"
    rows = dataset.sample_rows(64, seeded(0, dataset.device))
    factors = dataset.factors(rows)
    assert factors.shape == (64, k), f"factors are {tuple(factors.shape)}"
    assert bool((factors < torch.tensor(dataset.factor_sizes)).all()), "a factor exceeds its size"
    if dataset.is_grid:
        assert torch.equal(dataset.index(factors), rows), "index does not invert factors"
        same({"x": dataset.observe(factors)}, {"x": dataset.batch(rows)["x"]}, "observe and batch")


# Metrics


def metric_checks(name: str, table: CodeTable | None = None) -> list[Check]:
    """All checks of a metric, on `table` or on a small synthetic one."""
    try:
        cls = loaded("metric", name, Metric)
    except DistkError as error:
        return [Check("it can be imported", str(error))]
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

    def headline() -> None:
        assert cls.headline in result, f"the headline '{cls.headline}' is missing among {sorted(result)}"
        assert isinstance(result[cls.headline], float), "the headline is not a float"

    def keys() -> None:
        assert "error" not in result, "a result's key 'error' means that the metric failed: call it something else"
        known = [*cls.keys, cls.headline, "reasons"]
        if cls.keys:
            numbers = [key for key, value in result.items() if isinstance(value, (int, float))]
            strange = [key for key in numbers if not any(fnmatch.fnmatchcase(key, form) for form in known)]
            assert not strange, f"`keys` does not name {', '.join(strange)}"

    def repeatable() -> None:
        torch.manual_seed(1)  # a score that draws from the global generator now draws something else
        before = torch.get_rng_state()
        second = compute()
        assert torch.equal(torch.get_rng_state(), before), "it draws from the global generator"
        for key, value in result.items():
            if isinstance(value, float):
                assert value == second[key] or value != value, f"'{key}' differs for one seed"

    def kept() -> None:
        with torch.random.fork_rng(devices=[]):
            repeatable()

    return run(
        {
            "every option is documented": lambda: documented(cls.Config),
            "the headline is there": headline,
            "its numbers are those that it declares": keys,
            "one seed gives one result": kept,
        }
    )


def check_metric(name: str, table: CodeTable | None = None) -> None:
    """`metric_checks`, raising AssertionError that names every check that failed."""
    demand(metric_checks(name, table), f"metric '{name}'")


def synthetic_table(seed: int = 0) -> CodeTable:
    """A full grid of shape 3, size 4, x 8, y 8 under a noisy code with one discrete column and a dead one."""
    sizes = (3, 4, 8, 8)
    grid = torch.cartesian_prod(*(torch.arange(s) for s in sizes))
    noise = torch.randn(len(grid), 3, generator=torch.Generator().manual_seed(seed))
    scaled = (grid[:, 1:].float() - 3) / 2 + 0.1 * noise
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
