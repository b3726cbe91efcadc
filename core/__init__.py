"""distk: disentangled representation learning through one small core.

    import distk

    run = distk.train("cascadevae", preset="demo", seed=0)
    model = distk.load(run.checkpoint)
    code = model.encode(distk.dataset("dsprites").observe([[0, 5, 0, 16, 16]]))
    print(distk.evaluate(model, ["dci"])["metrics"])

Names are imported on first use, so that `import distk` is instant and does not import torch.
"""

from __future__ import annotations

import importlib
from typing import Any

_WHERE = {
    "api": ("dataset", "load", "train"),
    "config": ("NoConfig", "option"),
    "data": ("DataSpec", "Dataset", "FactorDataset", "Files", "Source", "open_dataset", "permuted_split"),
    "device": ("choose_device", "seeded", "static_shapes_only"),
    "errors": ("DistkError", "UsageError"),
    "evaluation": ("evaluate",),
    "hookspecs": ("hookimpl",),
    "latents": ("Code", "Latent", "LatentSpace", "one_hot"),
    "method": ("Method", "Objective", "Step", "adam", "can", "rmsprop", "sgd"),
    "metric": ("CodeTable", "Metric", "encode_table"),
    "penalty": ("Penalty",),
    "run": ("Run",),
}
_HOME = {name: module for module, names in _WHERE.items() for name in names}
__all__ = sorted([*_HOME, "__version__"])


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version()
    if name not in _HOME:
        raise AttributeError(f"module 'distk' has no attribute '{name}'")
    value = getattr(importlib.import_module(f"distk.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def _version() -> str:
    import importlib.metadata

    try:
        version = importlib.metadata.version("distk")
    except importlib.metadata.PackageNotFoundError:
        version = "0+unknown"
    globals()["__version__"] = version
    return version


def __dir__() -> list[str]:
    return __all__
