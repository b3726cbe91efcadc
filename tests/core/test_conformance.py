"""Everything that is registered passes the checks that third-party plugins are held to."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from distk.registry import registry
from distk.testing import HostRead, NoHostReads, check_dataset, check_metric, dataset_checks, method_checks

METHODS = [entry.name for entry in registry().entries("method") if entry.distribution == "distk"]
DATASETS = [entry.name for entry in registry().entries("dataset") if entry.distribution == "distk"]
METRICS = [entry.name for entry in registry().entries("metric") if entry.plugin == "metrics"]
FEW_GRASPS = {"objects": 4, "categories": ("cup", "mug"), "scenes": 2, "size": 32, "voxels": 8, "demos": 2, "kept": 8}
SMALLER: dict[str, dict] = {
    **{key: {"poses": 2} for key in ("fstat", "triplet", "histloss", "bindev")},
    "factorgen": {"orientations": 2, "positions": 4},
    "nlmultitask": {"sentences": 600},
    **dict.fromkeys(("grasping", "graspcnn"), FEW_GRASPS),
    **{key: {"clips": 60, "held_out": 20} for key in ("ldf", "joint-gan", "pacman")},
    "shapes32": {"images": 200, "held_out": 50},
}
"""Settings of the data where most of the time of the checks would go into drawing them."""
NEED_FILES = {
    "ud",
    "folder",
    "arrays",
    "table",
    "cars3d",
    "celeba",
    "chairs3d",
    "cifar100",
    "dsprites-scream",
    "falcor3d",
    "hf",
    "text-table",
    "isaac3d",
    "mpi3d",
    "smallnorb",
    "identity-folder",
    "clips",
    "aclimdb",
    "amazonft",
    "video-folder",
    "video-strips",
}
NEED_FILES |= {"europarl", "yahoo"}
NEED_ITEMS = {"elbo", "ksg", "prediction", "reconstruction"}
"""Metrics that need more than a table of codes; they have tests of their own."""


def test_there_is_something_to_check() -> None:
    assert "cascadevae" in METHODS
    assert {"dsprites", "digits"} <= set(DATASETS)
    assert {"dci", "factorvae", "mig"} <= set(METRICS)


@pytest.mark.parametrize("name", METHODS)
def test_method(name: str) -> None:
    failed = [
        f"{check.name}: {check.problem}" for check in method_checks(name, data=SMALLER.get(name, {})) if check.problem
    ]
    assert not failed, "\n".join(failed)


def test_cascadevae_with_its_discrete_code() -> None:
    failed = [c for c in method_checks("cascadevae", model={"warmup": 0, "relieve_every": 2}) if c.problem]
    assert not failed


@pytest.mark.parametrize("name", DATASETS)
def test_dataset(name: str) -> None:
    smaller = SMALLER.get(name, {})
    checks = dataset_checks(name, **smaller)
    if checks[0].skipped:
        assert name in NEED_FILES or "--data" in checks[0].skipped, checks[0].skipped
        return
    check_dataset(name, **smaller)


@pytest.mark.parametrize("name", [n for n in METRICS if n not in NEED_ITEMS])
def test_metric(name: str) -> None:
    check_metric(name)


@pytest.mark.parametrize(
    "read",
    [
        lambda x: x.sum().item(),
        lambda x: bool((x > 0).any()),
        lambda x: x.nonzero(),
        lambda x: x[x > 0],
        lambda x: x.masked_select(x > 0),
        lambda x: x.unique(),
        lambda x: float(x[0]),
        lambda x: x.sum().tolist(),
        lambda x: x.repeat_interleave(torch.ones(len(x), dtype=torch.long)),
    ],
)
def test_host_reads_are_caught(read) -> None:
    x = torch.randn(8)
    with NoHostReads(), pytest.raises(HostRead):
        read(x)


def test_plain_work_is_let_through() -> None:
    layer, x = nn.Linear(8, 2), torch.randn(4, 8)
    with NoHostReads():
        loss = torch.where(layer(x) > 0, layer(x), 0.0).sum()
        loss.backward()
        x[torch.tensor([0, 1])].repeat_interleave(2, 0)
    assert layer.weight.grad is not None


class Careless:
    """Variations of cascadevae, each breaking one rule."""

    @staticmethod
    def reading(self, step):
        loss = self.original(step)
        return loss if float(loss) < 1e30 else loss * 0

    @staticmethod
    def hiding(self, step):
        ends = self.encoder(step.batch["x"])[0].relu()  # some are zero: the gradient of cumprod asks the host which
        return self.original(step) + 1e-6 * ends.cumprod(1).sum()

    @staticmethod
    def counting(self, step):
        self.calls = getattr(self, "calls", 0) + 1
        return self.original(step) * (1 + self.calls / 10)


@pytest.mark.parametrize(
    ("fault", "check"),
    [
        ("reading", "the step reads nothing back to the host"),
        ("hiding", "the step reads nothing back to the host"),
        ("counting", "resuming equals never having stopped"),
    ],
)
def test_the_checks_catch_a_careless_method(fault, check, monkeypatch) -> None:
    from distk.plugins.vae_family.cascadevae.method import CascadeVAEContinuous

    monkeypatch.setattr(CascadeVAEContinuous, "original", CascadeVAEContinuous.elbo, raising=False)
    monkeypatch.setattr(CascadeVAEContinuous, "elbo", getattr(Careless, fault))
    failed = {c.name for c in method_checks("cascadevae-c") if c.problem}
    assert failed == {check}


def test_touching_another_objectives_parameters_is_caught(monkeypatch) -> None:
    from distk.plugins.vae_family.cascadevae.method import CascadeVAEContinuous

    def after(self):
        def push() -> None:
            self.decoder.first.bias.add_(1.0)

        objectives = original(self)
        objectives[0].parameters = list(self.encoder.parameters())
        objectives[0].after = push
        return objectives

    original = CascadeVAEContinuous.objectives
    monkeypatch.setattr(CascadeVAEContinuous, "objectives", after)
    failed = {c.name: c.problem for c in method_checks("cascadevae-c") if c.problem}
    assert "decoder.first.bias" in failed["a step changes exactly its objective's parameters"]
