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
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the same names for type checkers and editors; a test holds both to each other
    from distk.api import codes as codes
    from distk.api import dataset as dataset
    from distk.api import evaluate as evaluate
    from distk.api import load as load
    from distk.api import names as names
    from distk.api import resume as resume
    from distk.api import train as train
    from distk.api import traverse as traverse
    from distk.config import NoConfig as NoConfig
    from distk.config import option as option
    from distk.data import Dataset as Dataset
    from distk.data import DataSpec as DataSpec
    from distk.data import FactorDataset as FactorDataset
    from distk.data import Files as Files
    from distk.data import Split as Split
    from distk.data import open_dataset as open_dataset
    from distk.data import permuted_split as permuted_split
    from distk.device import choose_device as choose_device
    from distk.device import seeded as seeded
    from distk.device import static_shapes_only as static_shapes_only
    from distk.errors import DistkError as DistkError
    from distk.errors import UsageError as UsageError
    from distk.errors import WrongType as WrongType
    from distk.hookspecs import Register as Register
    from distk.hookspecs import RegisterCommand as RegisterCommand
    from distk.hookspecs import RegisterPaper as RegisterPaper
    from distk.hookspecs import hookimpl as hookimpl
    from distk.laboratory.api import compare as compare
    from distk.laboratory.api import runs as runs
    from distk.latents import Code as Code
    from distk.latents import Latent as Latent
    from distk.latents import LatentSpace as LatentSpace
    from distk.latents import one_hot as one_hot
    from distk.method import Method as Method
    from distk.method import Objective as Objective
    from distk.method import Step as Step
    from distk.method import can as can
    from distk.metric import CodeTable as CodeTable
    from distk.metric import Metric as Metric
    from distk.metric import encode_table as encode_table
    from distk.optimizers import OptimizerFactory as OptimizerFactory
    from distk.optimizers import adam as adam
    from distk.optimizers import adamw as adamw
    from distk.optimizers import rmsprop as rmsprop
    from distk.optimizers import sgd as sgd
    from distk.penalty import Penalty as Penalty
    from distk.run import Run as Run
    from distk.source import Source as Source
    from distk.version import __version__ as __version__

_WHERE = {
    "api": ("codes", "dataset", "evaluate", "load", "names", "resume", "train", "traverse"),
    "config": ("NoConfig", "option"),
    "data": ("DataSpec", "Dataset", "FactorDataset", "Files", "Split", "open_dataset", "permuted_split"),
    "device": ("choose_device", "seeded", "static_shapes_only"),
    "errors": ("DistkError", "UsageError", "WrongType"),
    "hookspecs": ("Register", "RegisterCommand", "RegisterPaper", "hookimpl"),
    "laboratory.api": ("compare", "runs"),
    "latents": ("Code", "Latent", "LatentSpace", "one_hot"),
    "method": ("Method", "Objective", "Step", "can"),
    "metric": ("CodeTable", "Metric", "encode_table"),
    "optimizers": ("OptimizerFactory", "adam", "adamw", "rmsprop", "sgd"),
    "penalty": ("Penalty",),
    "run": ("Run",),
    "source": ("Source",),
    "version": ("__version__",),
}
_HOME = {name: module for module, names in _WHERE.items() for name in names}
__all__ = sorted(_HOME)


if not TYPE_CHECKING:  # a checker shall find a name that is not there

    def __getattr__(name: str) -> Any:
        if name not in _HOME:
            raise AttributeError(f"module 'distk' has no attribute '{name}'")
        value = getattr(importlib.import_module(f"distk.{_HOME[name]}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return __all__
