"""Conformance: what every method, data set and metric must satisfy, built-in or third-party.

    from distk.testing import check_method
    check_method("mymethod")          # raises AssertionError naming the check that failed

`distk check NAME` prints the same as a table.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from distk import checkpoint
from distk.config import from_dict, to_dict, to_toml
from distk.data import DataSpec, Dataset, FactorDataset, open_dataset
from distk.device import Ranks, no_host_reads, seeded
from distk.errors import DistkError
from distk.latents import LatentSpace
from distk.method import Objective, Step, can
from distk.metric import CodeTable
from distk.registry import registry
from distk.settings import Settings, resolve
from distk.trainer import Trainer
from distk.training import build

_READS = {
    "_local_scalar_dense",
    "is_nonzero",
    "item",
    "nonzero",
    "masked_select",
    "unique",
    "_unique2",
    "unique_dim",
    "equal",
    "repeat_interleave",
}


class HostRead(AssertionError):
    """A step read a value back to the host, or made a shape depend on values."""


class NoHostReads(TorchDispatchMode):
    """Raises HostRead for operations that would make CUDA wait or whose shapes depend on values. Works on the CPU."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        by_tensor = name == "repeat_interleave" and func._overloadname == "Tensor"
        masked = name in ("index", "index_put", "index_put_") and any(
            isinstance(i, Tensor) and i.dtype in (torch.bool, torch.uint8) for i in args[1] if i is not None
        )
        if (name in _READS and name != "repeat_interleave") or by_tensor or masked:
            raise HostRead(
                f"the step calls {name}, which reads values back to the host or has a shape that depends on them"
            )
        return func(*args, **(kwargs or {}))


@dataclasses.dataclass
class Check:
    """One check and its outcome: `problem` is empty where it passed."""

    name: str
    problem: str = ""


def _run(checks: Mapping[str, Callable[[], None]]) -> list[Check]:
    found = []
    for name, function in checks.items():
        try:
            function()
            found.append(Check(name))
        except Exception as error:  # a check reports whatever a stranger's code does
            text = str(error).strip() or type(error).__name__
            found.append(Check(name, text if isinstance(error, AssertionError) else f"{type(error).__name__}: {text}"))
    return found


def _demand(found: list[Check], what: str) -> None:
    failed = [check for check in found if check.problem]
    assert not failed, f"{what}: " + "; ".join(f"{check.name}: {check.problem}" for check in failed)


# Methods


def method_checks(name: str, steps: int = 3, batch: int = 8, **options: Mapping[str, Any]) -> list[Check]:
    """All checks of a method, on its preset `demo` if it has one. options: sections as for `settings.resolve`."""
    cls = registry().find("method", name).load()
    sections = {section: dict(options.get(section, {})) for section in ("model", "data", "train")}
    sections["train"] = {
        "batch": batch,
        "device": "cpu",
        "steps": 2 * steps,
        "eval": (),
        "keep": "",
        **sections["train"],
    }
    settings = resolve(name, preset="demo" if "demo" in cls.presets else None, options=sections)
    probe = _Probe(settings, steps)
    return _run(
        {
            "every option is documented": lambda: _documented(cls.Config),
            "settings survive TOML and the header": lambda: _round_trip(settings),
            "a step changes exactly its objective's parameters": probe.touches,
            "the step reads nothing back to the host": probe.host_reads,
            "the same seed gives the same result": probe.same_seed,
            "resuming equals never having stopped": probe.resume,
            "a checkpoint gives the same model": probe.round_trip,
            "encode and decode agree with the latent space": probe.shapes,
            "schedule keeps its keys and shapes": probe.schedule,
        }
    )


def check_method(name: str, steps: int = 3, batch: int = 8, **options: Mapping[str, Any]) -> None:
    """`method_checks`, raising AssertionError that names every check that failed."""
    _demand(method_checks(name, steps, batch, **options), f"method '{name}'")


def _documented(config: type) -> None:
    for field in dataclasses.fields(config):
        assert field.metadata.get("help"), f"setting '{field.name}' has no help text (declare it with distk.option)"
        if field.default is not dataclasses.MISSING and field.default is not None:
            from_dict(config, {field.name: field.default}, "the default")


def _round_trip(settings: Settings) -> None:
    import tomllib

    plain = to_dict(settings.model)
    read = tomllib.loads(to_toml({"model": plain}))["model"]
    assert from_dict(type(settings.model), read, "TOML") == settings.model, "the settings differ after TOML"


class _Watching(Trainer):
    """A trainer that reports which parameters each stage changes."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.touched: dict[str, set[str]] = {}

    def _update(self, stage: list[Objective], step: Step) -> None:
        before = {n: p.detach().clone() for n, p in self.model.named_parameters()}
        super()._update(stage, step)
        changed = {n for n, p in self.model.named_parameters() if not torch.equal(p.detach(), before[n])}
        self.touched.setdefault("+".join(o.name for o in stage), set()).update(changed)


class _Probe:
    def __init__(self, settings: Settings, steps: int) -> None:
        self.settings, self.steps = settings, steps

    def trainer(self, kind: type[Trainer] = Trainer) -> Trainer:
        made = build(self.settings, torch.device("cpu"), Ranks())
        return made if kind is Trainer else kind(made.model, made.dataset, made.config)

    def touches(self) -> None:
        trainer = self.trainer(_Watching)
        assert isinstance(trainer, _Watching)
        for _ in range(self.steps):
            trainer.step()
        named = {id(p): n for n, p in trainer.model.named_parameters()}
        assert trainer.touched, "no objective was active in the first steps"
        for stage in trainer.stages:
            for taken, changed in trainer.touched.items():
                if not set(taken.split("+")) <= {o.name for o in stage}:
                    continue
                own = {named.get(id(p)) for o in stage for p in o.parameters}
                assert None not in own, f"'{taken}' trains parameters that the model does not hold"
                surplus = sorted(changed - own)
                assert not surplus, f"'{taken}' changed {', '.join(surplus)}"
                assert changed, f"'{taken}' changed no parameter"

    def host_reads(self) -> None:
        trainer = self.trainer()
        for optimizer in trainer.optimizers.values():
            _unwatched(optimizer)
        trainer.step()  # allocates what is made once
        trainer.model.before_step(trainer.index, trainer.optimizers)
        trainer._set_schedule(trainer.model.schedule(trainer.index))
        active = tuple(o.name for o in trainer.objectives if o.active(trainer.index))
        key = (trainer.model.phase(trainer.index), active, trainer.dataset.bucket(trainer.index, 0))
        if trainer.model.capturable is True:
            with no_host_reads(), NoHostReads():
                trainer._step(key)

    def same_seed(self) -> None:
        first, second = self._after(self.steps), self._after(self.steps)
        _same(first, second, "two runs of one seed")

    def _after(self, steps: int) -> dict[str, Tensor]:
        trainer = self.trainer()
        for _ in range(steps):
            trainer.step()
        return _everything(trainer)

    def resume(self) -> None:
        straight = self._after(2 * self.steps)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "c.safetensors"
            trainer = self.trainer()
            for _ in range(self.steps):
                trainer.step()
            self._save(trainer, path)
            torch.manual_seed(999)  # what another process's global generator would be
            again = self.trainer()
            again.model.load_state_dict(checkpoint.load(path)[0].state_dict())
            again.load_state(checkpoint.load_training(path))
        for _ in range(self.steps):
            again.step()
        _same(straight, _everything(again), "the resumed and the uninterrupted run")

    def _save(self, trainer: Trainer, path: Path) -> None:
        data = {"name": self.settings.data, "options": {}, "folder": None, "origin": trainer.dataset.origin}
        header = checkpoint.header_for(trainer.model, self.settings.entry, data, trainer.index, 0, {})
        checkpoint.save(path, trainer.model, header, trainer.state())

    def round_trip(self) -> None:
        trainer = self.trainer()
        trainer.step()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "c.safetensors"
            self._save(trainer, path)
            loaded, header = checkpoint.load(path)
        assert LatentSpace.from_list(header.latents) == trainer.model.latents, "the latent space changed"
        assert loaded.config == trainer.model.config, "the settings changed"
        model = trainer.model.eval()
        _same(model.state_dict(), loaded.state_dict(), "the model before and after")
        if can(model, "encode"):
            x = trainer.dataset.sample(4, seeded(0, trainer.device))["x"]
            with torch.no_grad():
                _same(model.encode(x), loaded.encode(x), "codes before and after")

    def shapes(self) -> None:
        trainer = self.trainer()
        model, dataset = trainer.model.eval(), trainer.dataset
        n = 4
        with torch.no_grad():
            if can(model, "encode"):
                x = dataset.sample(n, seeded(0, trainer.device))["x"]
                code = model.encode(x)
                model.latents.check(code, n)
                assert model.latents.flatten(code).shape == (n, len(model.latents.columns)), (
                    "flatten and columns differ"
                )
                if can(model, "decode"):
                    assert model.decode(code).shape[0] == n, "decode changes the number of items"
                if can(model, "posterior"):
                    for name, (mean, std) in model.posterior(x).items():
                        assert mean.shape == std.shape == (n, *model.latents[name].shape), f"posterior of '{name}'"
                        assert bool((std >= 0).all()), f"posterior of '{name}' has a negative standard deviation"
            if can(model, "sample"):
                first = model.sample(n, seeded(1, trainer.device))
                assert len(first) == n, "sample(n) returns another number of items"
                assert torch.equal(first, model.sample(n, seeded(1, trainer.device))), "sample ignores its generator"

    def schedule(self) -> None:
        model = self.trainer().model
        first = model.schedule(0)
        for step in (1, 10, 1000, self.settings.train.steps):
            later = model.schedule(step)
            assert set(later) == set(first), f"schedule({step}) has other keys than schedule(0)"
            for key, value in later.items():
                same = torch.as_tensor(value).shape == torch.as_tensor(first[key]).shape
                assert same, f"schedule({step})['{key}'] has another shape than at step 0"
            hash(model.phase(step))


def _unwatched(optimizer: torch.optim.Optimizer) -> None:
    """Let an optimizer's step pass a NoHostReads mode: torch's own CPU kernels read their step counters, the
    capturable ones that CUDA uses do not."""
    inner = optimizer.step

    def step(*arguments: Any, **named: Any) -> Any:
        with _lifted():
            return inner(*arguments, **named)

    optimizer.step = step  # type: ignore[method-assign]


@contextmanager
def _lifted() -> Iterator[None]:
    from torch.utils._python_dispatch import _disable_current_modes

    with _disable_current_modes():
        yield


def _everything(trainer: Trainer) -> dict[str, Tensor]:
    return {**{f"model/{k}": v for k, v in trainer.model.state_dict().items()}, **trainer.state()}


def _same(a: Mapping[str, Tensor], b: Mapping[str, Tensor], what: str) -> None:
    assert set(a) == set(b), f"{what} hold different tensors: {sorted(set(a) ^ set(b))[:5]}"
    for name, value in a.items():
        assert torch.equal(value, b[name]) or bool(
            ((value == b[name]) | (value.isnan() & b[name].isnan())).all() if value.is_floating_point() else False
        ), f"{what} differ in '{name}'"


# Data sets


def dataset_checks(name: str, **options: Any) -> list[Check]:
    """All checks of a data set in the form that needs no file."""
    entry = registry().find("dataset", name.partition(":")[0])
    cls = entry.load()
    try:
        dataset: Dataset | None = open_dataset(name, options)
    except DistkError as error:
        return [Check("opens without files", str(error))]
    assert dataset is not None
    checks = {
        "every option is documented": lambda: _documented(cls.Config),
        "items fit the spec": lambda: _items(dataset),
        "sampling follows its generator": lambda: _sampling(dataset),
        "splits hold rows of the data, apart from each other": lambda: _splits(dataset),
        "the spec survives the header": lambda: _spec(dataset.spec),
    }
    if isinstance(dataset, FactorDataset):
        checks["rows and factors agree"] = lambda: _factors(dataset)
    return _run(checks)


def check_dataset(name: str, **options: Any) -> None:
    """`dataset_checks`, raising AssertionError that names every check that failed."""
    _demand(dataset_checks(name, **options), f"data set '{name}'")


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


def _spec(spec: DataSpec) -> None:
    import json

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
        _same({"x": dataset.observe(factors)}, {"x": dataset.batch(rows)["x"]}, "observe and batch")
    for factor in range(k):
        fixed = dataset.factors(dataset.sample_fixed(torch.full((4,), factor), 8, seeded(1, dataset.device)))
        assert bool((fixed[:, :, factor] == fixed[:, :1, factor]).all()), (
            f"P2 does not fix '{dataset.factor_names[factor]}'"
        )


# Metrics


def metric_checks(name: str, table: CodeTable | None = None) -> list[Check]:
    """All checks of a metric, on `table` or on a small synthetic one."""
    cls = registry().find("metric", name).load()
    table = table if table is not None else synthetic_table()

    def compute(seed: int) -> Mapping[str, Any]:
        return cls(cls.Config()).compute(table, seed)

    def keys() -> None:
        result = compute(0)
        assert cls.headline in result, f"the headline '{cls.headline}' is missing among {sorted(result)}"
        assert isinstance(result[cls.headline], float), "the headline is no float"

    def repeatable() -> None:
        before = torch.get_rng_state()
        first, second = compute(1), compute(1)
        assert torch.equal(torch.get_rng_state(), before), "it draws from the global generator"
        for key, value in first.items():
            if isinstance(value, float):
                assert value == second[key] or value != value, f"'{key}' differs for one seed"

    return _run(
        {
            "every option is documented": lambda: _documented(cls.Config),
            "the headline is there": keys,
            "one seed gives one result": repeatable,
        }
    )


def check_metric(name: str, table: CodeTable | None = None) -> None:
    """`metric_checks`, raising AssertionError that names every check that failed."""
    _demand(metric_checks(name, table), f"metric '{name}'")


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
