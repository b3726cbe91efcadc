"""From a method's name, a preset, a config file and options to complete settings: each overrides the one before."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from distk.config import from_dict, hints, in_utf8, option, own_names, read_toml, to_dict
from distk.data import Dataset
from distk.errors import DistkError, UsageError, nearest, unknown
from distk.method import Method
from distk.registered import Registration
from distk.registry import registry

SECTIONS = ("model", "data", "train")


@dataclass(frozen=True)
class TrainConfig:
    """Settings of the trainer."""

    steps: int = option(10_000, "training steps", min=0)
    epochs: float | None = option(None, "passes over the training rows, instead of --steps", above=0, max=1e9)
    max_time: str = option("", "end and save after so long, as 90s, 30m, 2h, 1:30:00; `distk resume` goes on")
    batch: int = option(64, "items per batch", min=1, max=1 << 20)
    seed: int = option(0, "seed of initialisation, batches and noise", min=0, max=2**62)
    device: str = option("auto", "auto, cpu, cuda or cuda:N")
    data_on: Literal["auto", "device", "host"] = option(
        "auto", "where data that are held whole lie; auto: on the device, unless they take half of its free memory"
    )
    init_from: str = option(
        "", "checkpoint to begin with: tensors of the same name and shape are taken from it", place=True
    )
    precision: Literal["fp32", "tf32", "bf16"] = option("fp32", "arithmetic of the networks")
    channels_last: Literal["auto", "on", "off"] = option(
        "auto", "2-D convolutions channels last, which adds in another order; auto: with tf32 and bf16"
    )
    deterministic: bool = option(
        False, "on CUDA the same numbers in every run, too: kernels that add in a fixed order, some of them slower"
    )
    log_every: int = option(100, "steps between rows of log.jsonl", min=1)
    checkpoint_every: int = option(0, "steps between checkpoints; 0 means ten over the run", min=0)
    stand_in: bool = option(True, "data whose files are missing may be replaced by what stands in for them")
    validation: float = option(0.0, "share of the training rows kept back, as the split `validation`", min=0, max=0.9)
    eval: tuple[str, ...] = option(
        (), "metrics to score while training, repeatable: METRIC or METRIC:KEY=VALUE,split=SPLIT,label=NAME"
    )
    eval_every: int = option(0, "steps between scorings; 0 means at the end only", min=0)
    eval_option: tuple[str, ...] = option((), "settings of these scores, as METRIC.KEY=VALUE, repeatable")
    keep: str = option(
        "", "best:METRIC keeps best.safetensors by it; settings as in --eval. Read on the validation split, if any"
    )
    patience: int = option(
        0, "early stopping: end after so many scorings of --keep in a row without a better one; 0: never", min=0
    )
    stop_when: tuple[str, ...] = option(
        (), "end when a logged term or a score of --eval is good enough: factorvae>=0.95 or loss<20, repeatable"
    )
    penalty: tuple[str, ...] = option(
        (), "penalties on a coding layer, NAME or NAME:WEIGHT; see `distk list penalties`"
    )
    penalty_weight: float | None = option(None, "weight of penalties named without one", min=0)
    penalty_layer: tuple[str, ...] = option((), "layers that penalties act on, repeatable; default: code")
    penalty_option: tuple[str, ...] = option((), "settings of penalties, as diag=drop,norm=none")
    log: tuple[str, ...] = option((), "plugins that record the run beside log.jsonl, such as tensorboard")
    capture: Literal["auto", "on", "off"] = option("auto", "capture the step as a CUDA graph")
    compile: bool = option(
        False, "losses through torch's compiler: fewer kernels, other rounding; for long runs on CUDA"
    )
    on_nonfinite: Literal["stop", "skip"] = option("stop", "what a non-finite loss does; skip reads every loss back")


_SCORES = ("validation", "eval", "eval_every", "eval_option", "keep", "patience", "stop_when")
_MACHINE = ("device", "data_on", "precision", "channels_last", "deterministic", "capture", "compile", "on_nonfinite")
_WRITTEN = ("log_every", "checkpoint_every", "log")
_PENALTIES = ("penalty", "penalty_weight", "penalty_layer", "penalty_option")
TRAIN_PANELS = {
    **dict.fromkeys(_SCORES, "Scores while training"),
    **dict.fromkeys(_PENALTIES, "Penalties"),
    **dict.fromkeys(_MACHINE, "Machine"),
    **dict.fromkeys(_WRITTEN, "What is written"),
}
"""Headings of the trainer's options in `distk train METHOD --help`; the others stand below "Training"."""
TRAIN_WORDS = frozenset(
    {
        *("data", "data_dir", "env", "preset", "config", "out", "json", "seeds", "profile"),
        *("print_config", "dry_run"),
    }
)
"""What `distk train METHOD` calls its own options, beside those of the trainer."""


def method_words() -> frozenset[str]:
    """Names that no setting of a method can have."""
    return TRAIN_WORDS | {field.name for field in dataclasses.fields(TrainConfig)}


@dataclass
class Settings:
    """Complete, checked settings of a run.

    data: name of the data set. data_options: settings of it. data_dir: the user's folder, or None.
    """

    entry: Registration
    method: type[Method]
    model: Any
    data: str
    data_options: dict[str, Any]
    data_dir: str | None
    train: TrainConfig

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """The sections of config.toml."""
        data = {"name": self.data, **({"dir": self.data_dir} if self.data_dir else {}), **self.data_options}
        return {"model": to_dict(self.model), "data": data, "train": to_dict(self.train)}


def resolve(
    method: str,
    *,
    preset: str | None = None,
    file: Path | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    typed: Callable[[str], str] | None = None,
) -> Settings:
    """Settings of a run: defaults < preset < config file < options.

    options: {"model": {...}, "data": {...}, "train": {...}}; in "data", `name` and `dir` choose the data set.
    typed: what the user typed for a setting of `options`, as `config.flag`, which a message then names.
    Raises UsageError for unknown names and values out of range.
    """
    entry = registry().find("method", method)
    cls: type[Method] = entry.load()
    if wrong := own_names(cls.Config, method_words()):
        raise DistkError(f"method '{entry.name}' of {entry.owner} cannot be trained: {wrong}.")
    layers: list[tuple[str, Mapping[str, Mapping[str, Any]]]] = [
        ("the method's defaults", {"train": {**({"steps": 0} if cls.closed_form else {}), **cls.train_defaults}})
    ]
    if preset is not None:
        if preset not in cls.presets:
            raise unknown(f"preset of '{entry.name}'", preset, cls.presets)
        layers.append((f"preset '{preset}'", cls.presets[preset]))
        if preset == "paper":  # the paper's data, or none
            layers.append(("preset 'paper'", {"train": {"stand_in": False}}))
    if file is not None:
        layers.append((str(file), _from_file(file, entry)))
    layers.append(("the options", options or {}))
    merged = _merge(layers, default_data=cls.data)
    data = dict(merged["data"])
    name = data.pop("name", cls.data)
    folder = data.pop("dir", None)
    for key, value in (("name", name), ("dir", folder)):
        if value is not None and not isinstance(value, str):
            raise UsageError(f"[data] {key} must be text, found {str(value)[:100]!r}.")
        if value is not None:
            in_utf8(value, "--data-dir" if key == "dir" else "--data")
    if folder is not None:  # so that a run finds its data from wherever it is resumed
        folder = os.path.abspath(folder)
    if not name:
        raise UsageError(f"method '{entry.name}' has no default data set: name one with --data.")
    for key, value in _wished(cls, name).items():
        data.setdefault(key, value)
    said = {s: {key: typed(key) for key in values} for s, values in (options or {}).items()} if typed else {}
    model: Any = from_dict(cls.Config, merged["model"], f"method '{entry.name}'", said.get("model", {}))
    train = from_dict(TrainConfig, merged["train"], "training", said.get("train", {}))
    if said.get("data"):  # what was typed of them is checked here, where its name is known
        known = hints(registry().find("dataset", name.partition(":")[0]).load().Config)
        values = {key: value for key, value in data.items() if key in known and key in said["data"]}
        from_dict(registry().find("dataset", name.partition(":")[0]).load().Config, values, "data", said["data"])
    return Settings(entry, cls, model, name, data, folder, train)


def _wished(cls: type[Method], data: str) -> dict[str, Any]:
    """The method's own defaults of a data set's settings, as far as this data set has them."""
    if not cls.data_defaults:
        return {}
    known = hints(registry().find("dataset", data.partition(":")[0]).load().Config)
    return {key: value for key, value in cls.data_defaults.items() if key in known}


def _merge(layers: list[tuple[str, Mapping[str, Mapping[str, Any]]]], default_data: str) -> dict[str, dict[str, Any]]:
    merged: dict[str, dict[str, Any]] = {section: {} for section in SECTIONS}
    for where, layer in layers:
        for section, values in layer.items():
            if section not in SECTIONS:
                raise UsageError(f"{where} has a section [{section}].{nearest(section, SECTIONS)}")
            if section == "data" and "name" in values:
                # Another data set's settings mean nothing to this one.
                before = merged["data"].get("name", default_data)
                if before.partition(":")[0] != str(values["name"]).partition(":")[0]:
                    merged["data"] = {}
            if section == "train" and "steps" in values and "epochs" not in values:
                merged["train"].pop("epochs", None)  # whoever names steps means steps
            merged[section].update(values)
    return merged


def _from_file(file: Path, entry: Registration) -> dict[str, Any]:
    content = read_toml(file)
    named = content.pop("method", entry.name)
    if named not in (entry.name, *entry.aliases):
        raise UsageError(f"'{file}' configures method '{named}', not '{entry.name}'.")
    for section, values in content.items():
        if not isinstance(values, dict):
            raise UsageError(f"'{file}' has '{section}' outside a section; expected [model], [data] or [train].")
    return content


def sorted_out(changes: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Flat settings that may change in a run, by section: those of the trainer, and others as the model's."""
    train = {field.name for field in dataclasses.fields(TrainConfig)}
    sections: dict[str, dict[str, Any]] = {}
    for name, value in changes.items():
        sections.setdefault("train" if name in train else "model", {})[name] = value
    return sections


def split_options(
    cls: type[Method], dataset: type[Dataset] | None, given: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """Sort flat options (as from Python keywords) into sections: the method's, the trainer's, the data set's.

    `data` and `data_dir` choose the data set. Raises UsageError for a name that none of them has.
    """
    sections: dict[str, dict[str, Any]] = {section: {} for section in SECTIONS}
    train_names = {f.name for f in dataclasses.fields(TrainConfig)}
    data_names = set(hints(dataset.Config)) if dataset is not None else set()
    for name, value in given.items():
        if name in ("data", "data_dir"):
            sections["data"]["name" if name == "data" else "dir"] = str(value) if isinstance(value, Path) else value
        elif name in hints(cls.Config):
            sections["model"][name] = value
        elif name in train_names:
            sections["train"][name] = value
        elif name.removeprefix("data_") in data_names:
            sections["data"][name.removeprefix("data_")] = value
        else:
            known = {*hints(cls.Config), *train_names, *data_names}
            raise UsageError(f"there is no option '{name}'.{nearest(name, known)}")
    return sections
