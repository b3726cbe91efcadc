"""What data claim of themselves, held against what they hold: before a run, while it lasts, and when it goes on."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import distk
from distk import Dataset, DataSpec, DistkError, UsageError
from distk.data import open_dataset
from distk.device import Ranks
from distk.identity import changes, identity
from distk.models import open_model
from distk.settings import resolve
from distk.training import soundness
from distk.training.beginning import build
from distk.training.soundness import check_items, unsound_item
from distk.training.trainer import NonFinite


class Given(Dataset):
    """Items as they are handed over."""

    def __init__(self, x: Tensor, spec: DataSpec | None = None) -> None:
        super().__init__(distk.NoConfig(), torch.device("cpu"), None)  # type: ignore[arg-type]
        self.x, self.name, self.origin = x, "given", "handed over"
        self.spec = spec or DataSpec("image", tuple(x.shape[1:]))

    def __len__(self) -> int:
        return len(self.x)

    def batch(self, rows: Tensor) -> dict[str, Tensor]:
        return {"x": self.x[rows]}


def changed(x: Tensor, row: int, value: float) -> Tensor:
    x = x.clone()
    x[row, 0, 3, 3] = value
    return x


X = torch.rand(100, 1, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (Given(changed(X, 17, torch.nan)), "row 17 holds values that are not finite"),
        (Given(changed(X, 99, torch.inf)), "row 99 holds values that are not finite"),
        (Given(changed(X, 3, 1.5)), "row 3 holds values from .* to 1.5, outside the range 0 to 1"),
        (Given(X * 255), "row 0 holds values .* outside the range 0 to 1"),
        (Given(X, DataSpec("image", (1, 64, 64))), r"items have the shape \(1, 32, 32\), not \(1, 64, 64\)"),
        (Given((X * 255).byte()), "items are torch.uint8, not floats"),
    ],
)
def test_items_are_held_against_the_spec_before_a_run(data: Dataset, match: str) -> None:
    with pytest.raises(DistkError, match=f"'given' does not hold what it says: {match}"):
        build(resolve("betavae", options={"train": {"device": "cpu"}}), torch.device("cpu"), Ranks(), data)
    assert unsound_item(data)


def test_sound_items_pass_and_rounding_is_no_fault() -> None:
    for data in (Given(X), Given(changed(X, 0, 1 + 1e-6)), Given(X[:, 0, 0] * 9 - 4, DataSpec("vector", (32,)))):
        check_items(data)
        assert unsound_item(data) == ""
    with pytest.raises(DistkError, match="row 5"):
        check_items(
            Given(torch.full((9, 3), torch.nan).where(torch.arange(9)[:, None] == 5, 0), DataSpec("vector", (3,)))
        )


def test_a_late_row_is_named_before_the_learning_rate_is_blamed() -> None:
    """One that the look before the run passes over."""
    many = torch.zeros(2000, 1, 32, 32)
    many[1001] = torch.nan
    settings = resolve("betavae", options={"train": {"device": "cpu", "batch": 1500}})
    trainer = build(settings, torch.device("cpu"), Ranks(), Given(many))
    trainer.step()
    with pytest.raises(NonFinite, match=r"row 1001 holds values that are not finite .* in data set 'given'"):
        trainer.check_health()
    trainer.dataset = Given(many[:1000])
    with pytest.raises(NonFinite, match="lower the learning rate"):
        trainer.check_health()


# Identity


def written(path: Path, **members: Any) -> Path:
    np.savez(path, **members)
    return path


IMAGES = np.random.default_rng(0).integers(0, 256, (60, 28, 28), dtype=np.uint8)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda images, label: (images, label), []),
        (lambda images, label: (images[:50], label[:50]), ["60 items then, 50 now", "split train", "split test"]),
        (lambda images, label: (255 - images, label), ["as many items, but items, labels or splits are others"]),
        (lambda images, label: (images, label[::-1]), ["as many items, but items, labels or splits are others"]),
    ],
)
def test_identity_tells_data_apart(
    tmp_path: Path, change: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]], told: list[str]
) -> None:
    label = np.arange(60) % 3
    before = identity(open_dataset("arrays", folder=written(tmp_path / "a.npz", images=IMAGES, label=label)))
    again, labels = change(IMAGES, label)
    path = written(tmp_path / "b.npz", images=again, label=labels)
    now = [identity(open_dataset("arrays", folder=path, where=where)) for where in ("device", "host")]
    assert now[0] == now[1], "wherever they lie"
    found = changes(json.loads(json.dumps(before)), now[0])
    assert [any(text.startswith(start) for text in found) for start in told] == [True] * len(told)
    assert len(found) == len(told)


def test_headers_of_strangers_do_not_trip_it() -> None:
    now = {"items": 5, "splits": {"train": 5}, "digest": "x"}
    assert changes(None, now) == changes("no", now) == []
    assert changes({"items": "five", "splits": 3, "digest": []}, now)


def test_resume_on_other_data_says_what_changed(tmp_path: Path, in_folder: Path, capsys: Any) -> None:
    path = written(tmp_path / "a.npz", images=IMAGES)
    common: dict[str, Any] = {"data": "arrays", "data_dir": str(path), "batch": 4, "device": "cpu", "arch": "mlp"}
    run = distk.train("vae", out=tmp_path / "run", steps=1, quiet=True, **common)
    header = open_model(run.checkpoint, "cpu")[1]
    assert header.data["identity"]["items"] == 60
    assert header.data["identity"]["splits"] == {"train": 54, "test": 6}
    written(path, images=255 - IMAGES)
    capsys.readouterr()
    from distk.training.loop import resume

    resume(run.checkpoint, 2, quiet=True)
    assert "as many items, but items, labels or splits are others" in " ".join(capsys.readouterr().err.split())


# What a program hands over


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("handed")
    path = written(folder / "a.npz", images=IMAGES)
    common: dict[str, Any] = {"data": "arrays", "data_dir": str(path), "batch": 4, "device": "cpu", "arch": "mlp"}
    return distk.train("vae", out=folder / "run", steps=1, z=3, quiet=True, **common).checkpoint


@pytest.mark.parametrize(
    ("x", "match"),
    [
        (torch.zeros(2, 28, 28), r"shape \[2, 28, 28\], the model takes \[n, 1, 28, 28\]"),
        (torch.zeros(2, 1, 32, 32), r"the model takes \[n, 1, 28, 28\]"),
        (torch.zeros(2, 1, 28, 28, dtype=torch.uint8), "torch.uint8, the model takes floats from 0 to 1"),
        (torch.full((2, 1, 28, 28), 255.0), "values from 255 to 255, the model takes 0 to 1"),
        (torch.zeros(2, 1, 28, 28).index_fill(0, torch.tensor([1]), torch.nan), "item 1 holds values that are not fin"),
        (np.zeros((2, 1, 28, 28)), "not ndarray"),
    ],
)
def test_encode_refuses_in_a_sentence(trained: Path, x: Any, match: str) -> None:
    with pytest.raises(UsageError, match=f"encode: .*{match}"):
        distk.load(trained, device="cpu").encode(x)


@pytest.mark.parametrize(
    ("code", "match"),
    [
        (torch.zeros(2, 3), r"a code is a dict of z, not Tensor: {'z': code} makes one"),
        ({"zz": torch.zeros(2, 3)}, "no group 'zz' in the code"),
        ({"z": torch.zeros(2, 4)}, r"'z' is \[2, 4\], the model takes \[n, 3\]"),
        ({"z": torch.full((2, 3), torch.nan)}, "row of 'z', 0 holds values that are not finite"),
        ({"z": [[0.0] * 3]}, "'z' is list"),
    ],
)
def test_decode_refuses_in_a_sentence(trained: Path, code: Any, match: str) -> None:
    with pytest.raises(UsageError, match=f"decode: .*{match}"):
        distk.load(trained, device="cpu").decode(code)


def test_what_fits_passes_with_its_gradient(trained: Path) -> None:
    model = distk.load(trained, device="cpu")
    x = torch.rand(2, 1, 28, 28, requires_grad=True)
    model.decode(model.encode(x, grad=True), grad=True).sum().backward()
    assert x.grad is not None
    assert bool((x.grad != 0).any())


# A label is a factor


def test_a_label_with_named_classes_is_the_one_factor(tmp_path: Path, generator: torch.Generator) -> None:
    label = np.arange(600) % 3
    images = np.zeros((600, 28, 28), np.uint8)
    images[:, 0, 0] = label * 100
    data = open_dataset("arrays", folder=written(tmp_path / "a.npz", images=images, labels=label))

    class Corner(distk.Method):
        Config = distk.NoConfig
        latents = distk.LatentSpace.of(distk.Latent("z", "continuous", 2))

        def encode(self, x: Tensor) -> distk.Code:
            return {"z": torch.stack([x[:, 0, 0, 0], torch.rand(len(x), generator=generator)], 1)}

    table = distk.encode_table(Corner(distk.NoConfig(), data.spec), data)
    assert (table.factor_names, table.factor_sizes, table.factor_kinds) == (("label",), (3,), ("categorical",))
    assert table.needs_factors()[:, 0].tolist() == label.tolist()
    found = distk.evaluate(table, ["mig", "factorvae", "betavae"], on_error="row")["metrics"]
    assert found["mig"]["mig"] > 0.9, "of 600 rows in 20 bins noise tells .03 nats of 1.1, give or take .01"
    for name in ("factorvae", "betavae"):
        assert "'label' is the only factor" in found[name]["error"], "a vote among one is always right"
    plain = open_dataset("arrays", folder=written(tmp_path / "b.npz", images=images))
    assert distk.encode_table(Corner(distk.NoConfig(), plain.spec), plain).factors is None


# From the command line


def test_a_default_number_gives_way_and_one_that_was_asked_for_does_not(
    trained: Path, distk_command: Any, tmp_path: Path
) -> None:
    out = tmp_path / "r.png"
    done = distk_command("reconstruct", str(trained), "--device", "cpu", "--out", str(out), "--json")
    assert done[0] == 0, done[2]
    assert "the test split has 6 items, so 6 are taken instead of" in done[2]
    asked = distk_command("reconstruct", str(trained), "--device", "cpu", "--out", str(out), "--n", "20")
    assert asked[0] == 2
    assert "--n 20 is more than the 6 items of the test split" in asked[2]


def test_data_that_are_gone_are_needed_for_items_only(distk_command: Any, tmp_path: Path) -> None:
    path = written(tmp_path / "a.npz", images=IMAGES)
    common: dict[str, Any] = {"data": "arrays", "data_dir": str(path), "batch": 4, "device": "cpu", "arch": "mlp"}
    run = distk.train("vae", out=tmp_path / "run", steps=1, z=3, quiet=True, **common)
    path.rename(tmp_path / "b.npz")
    for line in (["sample"], ["traverse", "--start", "prior"]):
        done = distk_command(*line, str(run.checkpoint), "--device", "cpu")
        assert done[0] == 0, done[2]
    gone = distk_command("reconstruct", str(run.checkpoint), "--device", "cpu")
    assert gone[0] == 2
    assert "no longer at" in gone[2]
    moved = ["--data-dir", str(tmp_path / "b.npz"), "--device", "cpu"]
    assert distk_command("reconstruct", str(run.checkpoint), *moved)[0] == 0


def test_the_search_for_a_wrong_item_keeps_nobody_waiting(monkeypatch) -> None:
    """Of data that are drawn as they are asked for, all of dSprites would take minutes."""
    asked: list[int] = []

    class Slow(Given):
        def batch(self, rows: Tensor) -> dict[str, Tensor]:
            asked.append(len(rows))
            time.sleep(0.05)
            return super().batch(rows)

    monkeypatch.setattr(soundness, "BYTES", 4 * 32 * 32 * 10)
    monkeypatch.setattr(soundness, "SECONDS", 0.12)
    assert unsound_item(Slow(X)) == ""
    assert asked == [10, 10, 10], "three times 0.05 s are more than 0.12 s"
    assert "row 17" in unsound_item(Slow(changed(X, 17, torch.nan)))
