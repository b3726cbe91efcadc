"""A trained model held against other data: what differs is named, and what the model cannot read is refused."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path
from typing import Any

import pytest
import torch

import distk
from distk import DataSpec, Method, UsageError, fitting
from distk.checkpoint import Header, header_for
from distk.data import Dataset, open_dataset
from distk.registry import registry
from distk.settings import resolve

SMALL: dict[str, dict[str, Any]] = {
    "betavae": {"model": {"likelihood": "gaussian"}, "data": {"name": "digits"}},
    "arae": {"data": {"name": "standin-reviews", "variant": "tiny", "sentences": 300, "held_out": 60}},
    "dsvae": {"data": {"name": "sprites-sim", "size": 16}},
    "dsvae of clips": {},
    "covreg-xor": {},
    "icf": {},
    "graspcnn": {"data": {"objects": 2, "categories": ("cup",), "scenes": 1, "size": 32, "demos": 1, "kept": 4}},
    "rce": {"data": {"name": "planar", "count": 200, "second": 50}},
}
"""A method of each kind of data, with settings that make it small."""


def kinds() -> dict[str, list[str]]:
    """Kind of data -> built-in methods that take it."""
    found: dict[str, list[str]] = {}
    for entry in registry().entries("method"):
        if entry.distribution == "distk":
            for kind in entry.load().kinds:
                found.setdefault(kind, []).append(entry.name)
    return found


def built(name: str, **data: Any) -> tuple[Method, Header, Dataset]:
    """An untrained model as a checkpoint would give it back, and its data."""
    sections = {**SMALL[name], "data": {**SMALL[name].get("data", {}), **data}}
    method = name.split()[0]
    presets = registry().find("method", method).load().presets
    settings = resolve(method, preset="demo" if "demo" in presets else None, options=sections)
    dataset = open_dataset(settings.data, settings.data_options, folder=settings.data_dir)
    model = settings.method(settings.model, dataset.spec).eval()
    told = {"name": settings.data, "options": settings.data_options, "folder": settings.data_dir, "origin": ""}
    return model, header_for(model, settings.entry, told, 0, 0, {}), dataset


@pytest.fixture(scope="module")
def models() -> dict[str, tuple[Method, Header, Dataset]]:
    return {name: built(name) for name in SMALL}


def test_every_kind_of_data_is_tried(models) -> None:
    tried = {model.spec.kind for model, _, _ in models.values()}
    assert set(kinds()) == tried


@pytest.mark.parametrize("name", SMALL)
def test_its_own_data_fit_without_a_word(models, name, capsys) -> None:
    model, header, dataset = models[name]
    again = fitting.fitting_data(model, header, None, None)
    assert fitting.differences(model.spec, again.spec) == []
    assert "warning" not in capsys.readouterr().err
    rows = torch.arange(min(8, len(dataset)))
    if model.spec.kind != "environment":
        assert torch.equal(again.batch(rows)["x"], dataset.batch(rows)["x"])


@pytest.mark.parametrize("name", SMALL)
def test_whatever_differs_is_named(models, name) -> None:
    model = models[name][0]
    spec = DataSpec.from_dict(model.spec.to_dict())
    for axis in range(len(spec.shape)):
        shape = list(spec.shape)
        shape[axis] += 1
        (found,) = fitting.differences(spec, dataclasses.replace(spec, shape=tuple(shape)))
        assert found.fatal
        assert str(spec.shape[axis]) in found.model
        assert str(shape[axis]) in found.data
    changes: dict[str, DataSpec] = {
        "range of values": dataclasses.replace(spec, range=(spec.range[0] - 1, spec.range[1])),
        "kind": dataclasses.replace(spec, kind="sound", classes=("else",)),
        "class names": dataclasses.replace(spec, classes=("other", *spec.classes[1:])),
        "frame rate": dataclasses.replace(spec, extra={**spec.extra, "fps": 25}),
    }
    for key, value in spec.extra.items():
        other = value + 1 if isinstance(value, int) else [*value, "x"] if isinstance(value, list) else {"x": 3}
        changed = dataclasses.replace(spec, extra={**spec.extra, key: other})
        changes[fitting._NAMES.get(key, key.replace("_", " "))] = changed
    for what, changed in changes.items():
        found = fitting.differences(spec, changed)
        assert [difference.what for difference in found] == [what]
        assert f"{what}: " in str(found[0])
        assert " in the model, " in str(found[0])


def test_channels_are_taken_over_where_the_data_can(models) -> None:
    model, header, _ = models["betavae"]
    assert fitting.fitting_data(model, header, "shapes2d", None).spec.shape == model.spec.shape
    with pytest.raises(UsageError, match=r"'cifar10' does not fit the model: channels: 1 in the model, 3 in the data"):
        fitting.fitting_data(model, header, "cifar10", None)
    with pytest.raises(UsageError, match="kind: image in the model, vector in the data"):
        fitting.fitting_data(model, header, "xor", None)


def test_other_class_names_are_a_warning(models, capsys) -> None:
    model, header, _ = models["betavae"]
    fitting.fitting_data(model, header, "shapes2d", None)
    told = capsys.readouterr().err
    assert "warning: data set 'shapes2d' is not as the model's own: class names: 10 with 0, 1, 2" in told
    assert "factors: none in the model" in told


def test_the_range_counts(models) -> None:
    model, header, _ = models["betavae"]
    model = type(model)(model.config, dataclasses.replace(model.spec, range=(-1.0, 1.0)))
    with pytest.raises(UsageError, match="range of values: -1 to 1 in the model, 0 to 1 in the data"):
        fitting.fitting_data(model, header, None, None)


def test_another_number_of_actions_is_refused(models) -> None:
    model = models["icf"][0]
    spec = dataclasses.replace(model.spec, extra={**model.spec.extra, "actions": model.spec.extra["actions"] + 1})
    (found,) = fitting.differences(spec, model.spec)
    assert found.fatal
    assert str(found).startswith("number of actions: ")


def test_a_label_that_the_network_lacks_is_refused(models, tmp_path) -> None:
    """Classes only have names, unless the network has a part for each of them."""
    model, header, _ = models["arae"]
    for k in range(3):
        for split in ("train", "dev", "test"):
            (tmp_path / f"{split}.{k}").write_text("the phone was good .\n" * 3)
    with pytest.raises(UsageError, match=r"class names: negative, positive in the model, 0, 1, 2 in the data \(its"):
        fitting.fitting_data(model, header, "files", tmp_path)


# Text


def text_folder(folder: Path, splits: dict[str, list[str]]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, lines in splits.items():
        (folder / name).write_text("".join(line + "\n" for line in lines))
    return folder


def test_other_text_is_read_with_the_models_vocabulary_and_length(models, tmp_path, seed, capsys) -> None:
    random.seed(seed)
    model, header, dataset = models["arae"]
    known = list(dataset.vocab.tokens[4:])
    lines = [" ".join(random.choices([*known, "zebra", "quark"], k=random.randint(1, 6))) for _ in range(40)]
    folder = text_folder(tmp_path / "o", {"test.0": lines[:20], "test.1": [*lines[20:], " ".join(known[:1] * 200)]})
    other = fitting.fitting_data(model, header, "files", folder)
    assert other.spec.to_dict() == model.spec.to_dict()
    every = [row.tolist() for row in other.batch(torch.arange(len(other)))["x"]]
    wanted = [dataset.vocab.pad([line.split()], width=model.spec.shape[0])[0].tolist() for line in lines]
    assert sorted(every) == sorted(wanted)
    labels = {tuple(x): y for x, y in zip(every, other.label.tolist(), strict=True)}
    assert all(labels[tuple(x)] == i // 20 or every.count(x) > 1 for i, x in enumerate(wanted))
    told = capsys.readouterr().err
    words = [word for line in lines for word in line.split()]
    unknown = sum(word in ("zebra", "quark") for word in words)
    counted = told.split("words that the model does not know: ")[1].splitlines()[0]
    pairs = [part.split(" (")[0].split(" of ") for part in counted.split("), ")]
    assert sum(int(first.split()[-1]) for first, _ in pairs) == unknown
    assert sum(int(second) for _, second in pairs) == len(words)
    assert "1 sentence of more than" in told


def test_text_that_fits_nothing_is_one_sentence(models, tmp_path) -> None:
    model, header, _ = models["arae"]
    folder = text_folder(tmp_path / "o", {"train.0": ["w " * 300], "train.1": ["w " * 300]})
    with pytest.raises(UsageError, match="no sentence of these files has between 1 and"):
        fitting.fitting_data(model, header, "files", folder)


def test_named_labels_are_numbered_as_the_model_does(models, tmp_path) -> None:
    model, header, _ = models["arae"]
    text = {"train.txt": ["a good phone", "a bad phone"] * 20, "train.labels": ["positive", "negative"] * 20}
    other = fitting.fitting_data(model, header, "files", text_folder(tmp_path / "o", text))
    assert other.spec.classes == ("negative", "positive")
    for line, label in zip(other.lines(torch.arange(40)), other.label.tolist(), strict=True):
        assert label == (0 if "bad" in line else 1)


def test_a_changed_file_does_not_change_the_vocabulary(tmp_path) -> None:
    """The ids of a model's own data come from the model, not from what its folder holds by now."""
    text = {
        f"{split}.{k}": [f"word{i % 5} here" for i in range(40)] for split in ("train", "dev", "test") for k in (0, 1)
    }
    folder = text_folder(tmp_path / "o", text)
    model, header, dataset = _files(folder)
    (folder / "train.0").write_text("aaa aaa\n" * 100)
    again = fitting.fitting_data(model, header, None, None)
    assert again.vocab == dataset.vocab
    assert again.lines(again.rows("train")).count("<unk> <unk>") == 100


def _files(folder: Path) -> tuple[Method, Header, Dataset]:
    cls = registry().find("method", "arae").load()
    dataset = distk.dataset("files", device="cpu", data_dir=folder)
    model = cls(cls.Config(), dataset.spec).eval()
    told = {"name": "files", "options": {}, "folder": str(folder), "origin": ""}
    return model, header_for(model, registry().find("method", "arae"), told, 0, 0, {}), dataset


def test_resuming_on_other_text_is_refused(tmp_path) -> None:
    text = {
        f"{split}.{k}": [f"word{i % 5} here" for i in range(40)] for split in ("train", "dev", "test") for k in (0, 1)
    }
    folder = text_folder(tmp_path / "o", text)
    run = distk.train(
        "arae", data="files", data_dir=str(folder), out=tmp_path / "run", quiet=True, steps=2, device="cpu", batch=8,
        embedding=6, hidden=5, z=3,
    )  # fmt: skip
    for name in text:
        (folder / name).write_text("".join(f"other{i % 5} here\n" for i in range(40)))
    from distk.training import loop

    with pytest.raises(distk.DistkError, match=r"no longer what .* was trained on: vocabulary: "):
        loop.resume(run.path, steps=4, quiet=True)
