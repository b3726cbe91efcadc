"""Conformance of data sets and metrics, and what all checks share. Use it through `distk.testing`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distk.config import from_dict, own_names
from distk.console import counted
from distk.data import DATA_WORDS, Dataset, DataSpec, FactorDataset, open_dataset
from distk.device import seeded
from distk.errors import DistkError, UsageError
from distk.registry import registry
from distk.source import Source
from distk.stored import Clock
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


def named_apart(config: type, taken: Collection[str] = ()) -> Check:
    """That no setting has a name that means something else where settings are given; without it nothing can be set."""
    return Check("its settings have names of their own", own_names(config, taken))


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
    if (apart := named_apart(cls.Config, DATA_WORDS)).problem:
        return [apart]
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
    if dataset.spec.kind == "grasp":
        checks["grasps fit their views"] = lambda: _grasps(dataset)
    if dataset.stored:
        checks["the host gives what the device gives"] = lambda: _both_places(
            open_dataset(name, options, folder=data_dir, where="device"),
            open_dataset(name, options, folder=data_dir, where="host"),
        )
    if isinstance(dataset, FactorDataset):
        checks["rows and factors agree"] = lambda: _factors(dataset)
    if dataset.spec.kind == "sentence":
        checks |= sentence_checks(dataset, lambda spec: open_dataset(name, options, folder=data_dir, model=spec))
    return [apart, *run(checks)]


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
            assert len(value) == n, f"'{key}' has {counted(len(value), 'row')}, not {n}"
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


def _both_places(device: Dataset, host: Dataset) -> None:
    rows = torch.linspace(0, len(device) - 1, min(8, len(device)), dtype=torch.float64).long()
    same(device.items(rows), host.items(rows), "items on the device and on the host")
    for step in range(3):
        clocks = (Clock(1, torch.tensor(step), step) for _ in range(2))
        drawn = [
            Source(data, 4, seeded(step, data.device), bucket=data.bucket(step, 1), clock=clock).sample()
            for data, clock in zip((device, host), clocks, strict=True)
        ]
        same(drawn[0], drawn[1], f"batches of step {step} on the device and on the host")


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


def _grasps(dataset: Any) -> None:
    """Views of objects from cameras, with grasps of them: poses are rigid, outcomes known, objects in one split."""
    shape, rows = dataset.spec.shape, dataset.rows_of("all")[:64]
    assert (len(shape), shape[0]) == (3, 4), f"an item is colour and depth, [4, height, width], not {shape}"
    batch, n = dataset.batch(rows), len(rows)
    for name, form in (("depth", shape[1:]), ("mask", shape[1:]), ("K", (3, 3)), ("T_wc", (4, 4)), ("elevation", ())):
        assert name in batch, f"the batch lacks '{name}'"
        assert batch[name].shape == (n, *form), f"'{name}' is {tuple(batch[name].shape)}, not {(n, *form)}"
    low, high = dataset.spec.range
    assert bool(((batch["x"] >= low) & (batch["x"] <= high)).all()), f"x lies outside the range {dataset.spec.range}"
    g = batch["outcome"].shape[1]
    assert batch["pose"].shape == (n, g, 4, 4), f"poses are {tuple(batch['pose'].shape)}, outcomes {(n, g)}"
    assert bool(((batch["outcome"] == 0) | (batch["outcome"] == 1)).all()), "an outcome is neither 0 nor 1"
    for name in ("T_wc", "pose"):
        rotation = batch[name][..., :3, :3].double()
        off = (rotation.transpose(-1, -2) @ rotation - torch.eye(3, dtype=torch.float64)).abs().max()
        right_handed = bool((torch.linalg.det(rotation) > 0).all())
        assert right_handed, f"'{name}' holds a left-handed frame"
        assert float(off) < 1e-3, f"'{name}' holds what is no rotation"
    objects = [set(dataset.batch(dataset.rows_of(split))["object"].tolist()) for split in ("train", "test")]
    assert not objects[0] & objects[1], f"object {min(objects[0] & objects[1], default=0)} is in train and in test"
    for split in ("train", "test"):
        drawn = dataset.sample(32, seeded(6, dataset.device), split)
        assert set(drawn["object"].tolist()) <= objects[split == "test"], f"sampling leaves the split '{split}'"
        assert len(drawn["outcome"].unique()) == 2, f"grasps drawn from the split '{split}' all end alike"


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
