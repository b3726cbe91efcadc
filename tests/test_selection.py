"""What chooses a state, a threshold or a probe reads no test row: with noise in their place the choice is the same."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distk.data import Dataset, open_dataset
from distk.metric import CodeTable
from distk.settings import resolve

CPU = torch.device("cpu")


def poisoned(data: Dataset, rows: Tensor) -> Dataset:
    """The same data with noise in the items of these rows."""
    made, original = copy.copy(data), data.batch

    def batch(chosen: Tensor) -> dict[str, Tensor]:
        found = original(chosen)
        bad = torch.isin(chosen, rows).view(-1, *[1] * (found["x"].dim() - 1))
        noise = torch.rand(found["x"].shape, generator=torch.Generator().manual_seed(int(chosen.sum())))
        return {**found, "x": torch.where(bad, noise.to(found["x"].dtype), found["x"])}

    made.__dict__["batch"] = batch
    return made


def test_the_epoch_of_covregs_pictures() -> None:
    from distk.plugins.vae_family.covreg import study

    data = open_dataset("deadleaves", {"size": 16, "train": 30, "test": 8})
    members = [study.Member("covreg", 0.1, s) for s in range(2)]

    def rows(of: Dataset) -> list[dict[str, Any]]:
        # a rate at which the error jumps, so that the best epoch is not simply the last
        return study.Images(of, batch=9, code=6, lr=0.3).train(members, CPU, study.ImagesConfig(epochs=3, d=2))

    clean, bad = rows(data), rows(poisoned(data, data.rows_of("test")))
    assert [r["epoch"] for r in clean] == [r["epoch"] for r in bad]
    assert all(a["mse"] != b["mse"] for a, b in zip(clean, bad, strict=True)), "the noise was scored"
    assert any(r["epoch"] < 3 for r in clean)


def test_the_stopping_of_fstat() -> None:
    from distk.plugins.vae_family.fstat import study

    settings = resolve(
        "fstat",
        preset="demo",
        options={
            "model": {"hidden": 16, "classes_per_batch": 4, "samples_per_class": 2},
            "train": {"steps": 4, "batch": 8, "device": "cpu"},
            "data": {"size": 30, "poses": 2},
        },
    )
    data = open_dataset("puppets", settings.data_options)
    part = study.folds_of(data, 5, 0)[0]
    cells = [
        study.train_cell(settings, study.view(of, part), 1, 2, ks=(1,)) for of in (data, poisoned(data, part["test"]))
    ]
    clean, bad = cells
    assert clean is not None
    assert bad is not None
    assert (clean.step, clean.stopped, clean.valid) == (bad.step, bad.stopped, bad.valid)
    assert clean.recall != bad.recall, "the noise was scored"
    assert not torch.isin(part["val"], torch.cat([part["train"], part["test"]])).any()


def test_the_threshold_that_counts_objects(seed) -> None:
    from distk.plugins.vae_family.mvae.method import MVAE, Config
    from distk.plugins.vae_family.mvae.metrics import CountConfig, ObjectCount

    data = open_dataset("sprites-scenes", {"size": 16, "fixed": 60, "test": 40, "max_sprites": 2})
    torch.manual_seed(seed)
    model = MVAE(Config(slots=3), data.spec).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # an untrained network's KL is nearly the same everywhere
            parameter.mul_(3)

    def found(of: Dataset) -> dict[str, Any]:
        table = CodeTable(torch.zeros(0, 1), ["z1"], ["continuous"], model=model, dataset=of)
        return dict(ObjectCount(CountConfig()).compute(table, 0))

    clean, bad = found(data), found(poisoned(data, data.rows_of("test")))
    assert (clean["threshold"], clean["train_accuracy"]) == (bad["threshold"], bad["train_accuracy"])
    assert (clean["confusion"] != bad["confusion"]).any(), "the noise was scored"


def test_the_readout_of_icf_is_tested_on_other_states_than_it_learned_from(seed) -> None:
    """Least squares with as many codes as half of the states explains these perfectly, and knows nothing of others."""
    from distk.plugins.rl_control.icf.metrics import _readout

    draw = torch.Generator().manual_seed(seed)
    n = 80
    codes, factors = torch.randn(n, n // 2, generator=draw), torch.randint(0, 9, (n, 2), generator=draw)
    names = [f"h{i}" for i in range(n // 2)]
    table = CodeTable(codes, names, ["continuous"] * (n // 2), factors, ("x", "y"), (9, 9), ("ordinal", "ordinal"))
    values = [v for k, v in _readout(table, seed % 1000).items() if isinstance(v, float)]
    # Independent factors: a prediction's error is at least their own spread; on the fitted half it would be 1.
    assert values
    assert max(values) < 0.5


def test_the_probes_of_sentences_are_fitted_on_training_sentences(seed) -> None:
    """Labels that no code tells: probes that saw the tested sentences would know them by heart."""
    from distk.plugins.text.common.metric import probes

    class Nothing(torch.nn.Module):
        """Codes that are noise, a fixed draw for each sentence."""

        def encode(self, x: Tensor) -> dict[str, Tensor]:
            keys = (x.double() @ torch.arange(1.0, x.shape[1] + 1, dtype=torch.float64)).long()
            return {
                "code": torch.stack([torch.randn(64, generator=torch.Generator().manual_seed(int(k))) for k in keys])
            }

    data = open_dataset("standin-reviews", {"variant": "tiny"})
    data = copy.copy(data)
    data.label = torch.randint(0, 2, data.label.shape, generator=torch.Generator().manual_seed(seed))
    n = 80
    found = probes(Nothing(), data, seed % 1000, n=n)  # type: ignore[arg-type]
    # n fair coins; 64 dimensions of noise separate 80 training sentences almost perfectly
    bound = 0.5 + 6 * np.sqrt(0.25 / n)
    assert found["probe_linear"] < bound < 0.9
    assert found["probe_mlp"] < bound
