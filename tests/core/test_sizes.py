"""Every image method takes images of every size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from distk.data import DataSpec
from distk.device import Ranks
from distk.method import Method, can, eval_mode
from distk.nn import Canvas, canvas
from distk.registry import registry
from distk.settings import resolve
from distk.training.beginning import begin, build

SIZES = [
    (16, 16),
    (28, 28),
    (30, 30),
    (32, 32),
    (60, 60),
    (64, 64),
    (96, 96),
    (100, 100),
    (128, 128),
    (48, 96),
    (256, 256),
]
PAIRED = ("jade", "jade-paired", "jade-single")
"""They learn from two data sets, which the data set `class-pairs` draws together."""
FACTORS = ("factorgen",)
"""They learn from factors, which MNIST has none of."""
READS = ("aae-s",)
"""Its decoder looks at the values of a code, which there are none of without memory."""
SMALL: dict[str, dict[str, Any]] = {
    "infogan": {"dim": 8},
    **{name: {"width": 8} for name in ("sdbegan", "began", "sddcgan", "dcgan")},
}
"""Fewer channels, the same layers."""


def methods() -> list[str]:
    every = registry().entries("method")
    return [entry.name for entry in every if "image" in entry.load().kinds and entry.name not in PAIRED]


def spec(size: tuple[int, int]) -> DataSpec:
    factors = {"a": 3, "b": 2}
    kinds = {"a": "categorical", "b": "ordinal"}
    return DataSpec("image", (1, *size), classes=tuple("abc"), extra={"factors": factors, "factor_kinds": kinds})


@pytest.mark.parametrize("size", SIZES, ids=lambda size: "x".join(map(str, size)))
def test_networks_follow_the_size(size: tuple[int, int]) -> None:
    """Shapes alone, on torch's device without values."""
    for name in methods():
        cls = registry().find("method", name).load()
        with torch.device("meta"):
            model: Method = cls(cls.Config(), spec(size))
        x = torch.rand(2, 1, *size, device="meta")
        label = torch.zeros(2, dtype=torch.long, device="meta")
        with torch.no_grad(), eval_mode(model):
            code = None
            if can(model, "encode"):
                batch = {"x": x, "label": label, "factors": torch.stack([label, label], 1)}
                own = type(model).encode is not Method.encode
                code = model.encode(x) if own else model.encode_batch(batch)
                for group in model.latents.scored:
                    assert code[group.name].shape == (2, *group.shape), name
            if (
                name not in READS
                and can(model, "decode")
                and code is not None
                and set(code) >= {group.name for group in model.latents}
            ):
                assert model.decode(code).shape == x.shape, name


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sizes")


def one_step(name: str, data: dict[str, Any]) -> None:
    cls = registry().find("method", name).load()
    steps = 0 if cls.closed_form else 1
    train = {"steps": steps, "batch": 4, "device": "cpu"}
    settings = resolve(name, options={"model": SMALL.get(name, {}), "data": data, "train": train})
    trainer = build(settings, torch.device("cpu"), Ranks())
    begin(trainer)
    for _ in range(steps):
        trainer.step()
    trainer.check_health()
    model, shape = trainer.model, trainer.dataset.spec.shape
    with torch.no_grad(), eval_mode(model):
        if can(model, "sample") and model.drawable and name != "icm":  # it shows what it changed, too
            assert model.sample(2, torch.Generator().manual_seed(0)).shape == (2, *shape)
        if can(model, "encode"):
            code = model.encode_batch(trainer.dataset.items(torch.arange(4)))
            assert all(len(value) == 4 and bool(value.isfinite().all()) for value in code.values())


@pytest.mark.slow
@pytest.mark.parametrize("size", [*SIZES, (17, 23)], ids=lambda size: "x".join(map(str, size)))
@pytest.mark.parametrize("name", methods())
def test_a_step_at_every_size(name: str, size: tuple[int, int], folder: Path) -> None:
    path = folder / f"{size[0]}x{size[1]}.npz"
    if not path.exists():
        draw = np.random.default_rng(0)
        table = np.stack([np.arange(40) % 3, np.arange(40) % 2], 1)
        np.savez(
            path,
            images=draw.integers(0, 256, (40, *size), dtype=np.uint8),
            labels=np.arange(40) % 2,
            factors=table,
            factor_names=np.array(["a", "b"]),
            factor_kinds=np.array(["categorical", "ordinal"]),
        )
    if size == (17, 23) and name in ("ldf", "joint-gan"):
        pytest.skip("its pieces are equal parts of an image")
    one_step(name, {"name": "arrays", "dir": str(path)})


@pytest.mark.parametrize("name", [name for name in methods() if name not in FACTORS])
def test_mnist_works_at_once(name: str) -> None:
    one_step(name, {"name": "mnist"})


NUMBERS = {
    "cascadevae 32x32": 632_784,
    "cascadevae 64x64": 761_934,
    "jointvae 32x32": 633_554,
    "aae 64x64": 1_026_376,
    "betavae 32x32": 471_223,
    "dipvae 64x64": 690_638,
    "factorvae 32x32": 5_751_465,
    "factorvae 64x64": 5_516_007,
    "dcgan 28x28": 1_047_364,
    "sdbegan 64x64": 16_944_933,
    "infogan 64x64": 16_182_359,
    "infogan-mnist 28x28": 13_361_940,
    "mvae 32x32": 272_219,
    "mvae-baseline 64x64": 461_649,
    "peychev-conv 28x28": 828_280,
    "peychev-conv 64x64": 12_653_088,
    "ldf 64x64": 13_918_162,
    "joint-gan 32x32": 6_979_566,
}
"""How many numbers the networks had at these sizes before they took others: three channels at 32x32, else one."""


@pytest.mark.parametrize("case", NUMBERS)
def test_networks_of_published_sizes_are_what_they_were(case: str) -> None:
    name, size = case.split()
    side = int(size.partition("x")[0])
    data = spec((side, side))
    data = DataSpec("image", (3 if side == 32 else 1, side, side), classes=tuple("0123456789"), extra=data.extra)
    cls = registry().find("method", name).load()
    with torch.device("meta"):
        model = cls(cls.Config(), data)
    assert sum(value.numel() for value in model.state_dict().values()) == NUMBERS[case]


def test_published_sizes_have_no_canvas_around_them() -> None:
    for side, halvings, rows in ((64, 4, 4), (32, 3, 4), (28, 2, 7), (16, 2, 4), (128, 5, 4), (256, 6, 4)):
        made = canvas(side, side)
        assert (made.halvings, made.map) == (halvings, (rows, rows))
        assert made.onto() == made.off() == []
    assert canvas(28, 28, 8).map == (14, 14)
    assert canvas(48, 96).map == (6, 12)
    with pytest.raises(ValueError, match="too small"):
        canvas(3, 64)


@pytest.mark.parametrize("size", [(30, 30), (17, 23), (100, 60), (5, 9)])
def test_what_stands_on_a_canvas_comes_off_it_again(size: tuple[int, int], generator: torch.Generator) -> None:
    made = canvas(*size)
    x = torch.rand(2, 3, *size, generator=generator)
    larger = torch.nn.Sequential(*made.onto())(x)
    assert larger.shape[2:] == (made.map[0] << made.halvings, made.map[1] << made.halvings)
    assert float(larger.sum()) == pytest.approx(float(x.sum()), rel=1e-5), "zeros around it"
    assert torch.equal(torch.nn.Sequential(*made.off())(larger), x)
    assert 4 <= min(made.map) < 8
    assert isinstance(made, Canvas)
