"""The files of `distk new-plugin`; `docs/plugins.md` explains them one by one, and a test holds the two together.

`@NAME@` is the name, `@PACKAGE@` the same as a Python package, `@CLASS@` the same as the start of a class name.
"""

from __future__ import annotations

PROJECT = """\
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "@NAME@"
version = "0.1.0"
description = "A plugin for distk"
requires-python = ">=3.11"
dependencies = ["distk"]

[project.entry-points.distk]
@NAME@ = "@PACKAGE@"
"""

HOOKS = '''\
"""@NAME@: a small VAE on pictures of two bars."""

from distk import RegisterPaper, hookimpl
from distk.papers import Paper

DISTK_CONTRACT = 1

paper = Paper(__name__)
paper.method("@NAME@-vae", "method:@CLASS@VAE", "a small VAE with a weighted KL term", tags=("vae",))
paper.dataset("@NAME@-bars", "dataset:Bars", "a horizontal and a vertical bar", tags=("image", "factors"))
paper.metric("@NAME@-alignment", "metric:Alignment", "is there one code for each factor")
paper.command("spread", "commands:spread", "Show how far each code moves over the data.")


@hookimpl
def distk_register_papers(register: RegisterPaper) -> None:
    register(paper)
'''

DATASET = '''\
"""Pictures of two bars: every combination of two places and a brightness, once."""

from dataclasses import dataclass

import torch
from distk import DataSpec, FactorDataset, Files, option


@dataclass(frozen=True)
class Config:
    """Settings of the data set: `--places` of `distk train`."""

    places: int = option(8, "places of each bar", min=2, max=64)


class Bars(FactorDataset[Config]):
    """Images float32 [1, side, side] in [0, 1], side = 2 * places; a bar is two pixels wide."""

    def __init__(self, config: Config, device: torch.device, files: Files) -> None:
        super().__init__(config, device, files)
        side = 2 * config.places
        self.spec = DataSpec("image", (1, side, side))
        self.origin = "drawn on the device"
        self.factor_names = ("column", "row", "brightness")
        self.factor_sizes = (config.places, config.places, 3)
        self.factor_kinds = ("ordinal", "ordinal", "ordinal")

    def batch(self, rows: torch.Tensor) -> dict[str, torch.Tensor]:
        """Rows int64 [n] -> `x` [n, 1, side, side]. A row number stands for one combination of factors."""
        column, row, brightness = self.factors(rows).unbind(-1)
        place = torch.arange(2 * self.config.places, device=self.device) // 2
        upright = (place == column[:, None])[:, None, :]
        level = (place == row[:, None])[:, :, None]
        light = (brightness[:, None, None] + 1) / 3
        return {"x": ((upright | level) * light).unsqueeze(1)}
'''

METHOD = '''\
"""A VAE of two small networks: config, networks and loss on one page."""

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from distk import Code, DataSpec, Latent, LatentSpace, Method, Objective, Step, adam, option
from distk.nn import bernoulli_nll, gaussian_kl, mlp


@dataclass(frozen=True)
class Config:
    """Hyperparameters; each becomes an option of `distk train @NAME@-vae`."""

    z: int = option(4, "dimensions of the code", min=1)
    hidden: int = option(64, "width of the hidden layers", min=1)
    beta: float = option(1.0, "weight of the KL term", min=0)
    lr: float = option(1e-3, "learning rate of Adam", above=0)


class @CLASS@VAE(Method[Config]):
    """Code: `z`, continuous."""

    data = "@NAME@-bars"
    train_defaults = {"steps": 2000, "batch": 64}

    def __init__(self, config: Config, data: DataSpec) -> None:
        super().__init__(config, data)
        pixels = math.prod(data.shape)
        self.latents = LatentSpace.of(Latent("z", "continuous", config.z))
        self.encoder = mlp([pixels, config.hidden, 2 * config.z])
        self.decoder = mlp([config.z, config.hidden, pixels])

    def objectives(self) -> list[Objective]:
        return [Objective("loss", self.elbo, self.parameters(), adam(self.config.lr))]

    def elbo(self, step: Step) -> torch.Tensor:
        """Negative bound: sum over pixels, mean over batch, nats."""
        x = step.batch["x"]
        mean, std = self.posterior(x)["z"]
        z = mean + std * step.randn(*mean.shape)
        reconstruction = bernoulli_nll(self.decoder(z), x.flatten(1)).mean()
        kl = gaussian_kl(mean, std).mean(0)
        step.log("reconstruction", reconstruction)
        step.log("kl", kl)
        return reconstruction + self.config.beta * kl.sum()

    def posterior(self, x: torch.Tensor) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        mean, raw = self.encoder(x.flatten(1)).chunk(2, dim=1)
        return {"z": (mean, F.softplus(raw) + 1e-4)}

    def encode(self, x: torch.Tensor) -> Code:
        return {"z": self.posterior(x)["z"][0]}

    def decode(self, code: Code) -> Any:
        return self.decoder(code["z"]).sigmoid().view(-1, *self.spec.shape)
'''

METRIC = '''\
"""How well single codes follow single factors."""

from collections.abc import Mapping
from typing import Any

import torch
from distk import CodeTable, Metric


class Alignment(Metric):
    """For each factor the largest |correlation| with one code, and the mean over factors; 1 is best."""

    headline = "alignment"

    def compute(self, table: CodeTable, seed: int) -> Mapping[str, Any]:
        factors = table.needs_factors().double()
        both = torch.cat([table.codes.double(), factors], dim=1)
        width = table.codes.shape[1]
        # A code that never changes correlates with nothing.
        correlation = torch.corrcoef(both.T)[:width, width:].abs().nan_to_num().amax(0)
        each = {name: float(value) for name, value in zip(table.factor_names, correlation, strict=True)}
        return {"alignment": float(correlation.mean()), **each}
'''

COMMANDS = '''\
"""`distk @NAME@ spread`."""

from typing import Annotated

import typer
from distk import console, encode_table
from distk.commands.shared import OnRows


def spread(
    on: OnRows,
    n: Annotated[int, typer.Option("--n", help="Items to encode.", min=2)] = 256,
) -> None:
    """Show how far each code moves over the data.

    Example: distk @NAME@ spread runs/first --n 100
    """
    model = on.open("eval", "encode").model
    table = encode_table(model, on.dataset(), rows=n, split=on.split, seed=on.seed)
    deviations = dict(zip(table.names, table.codes.std(0).tolist(), strict=True))
    if on.json:
        console.emit_json(deviations)
    else:
        console.table("", ("code", "standard deviation"), list(deviations.items()))
'''

TESTS = '''\
"""The checks that every plugin of distk passes; `distk check --plugin @NAME@` runs the same."""

from distk.testing import check_dataset, check_method, check_metric


def test_method() -> None:
    check_method("@NAME@-vae")


def test_dataset() -> None:
    check_dataset("@NAME@-bars")


def test_metric() -> None:
    check_metric("@NAME@-alignment")
'''

FILES = {
    "pyproject.toml": PROJECT,
    "src/@PACKAGE@/__init__.py": HOOKS,
    "src/@PACKAGE@/dataset.py": DATASET,
    "src/@PACKAGE@/method.py": METHOD,
    "src/@PACKAGE@/metric.py": METRIC,
    "src/@PACKAGE@/commands.py": COMMANDS,
    "tests/test_@PACKAGE@.py": TESTS,
}
"""Path -> content."""


def files(name: str) -> dict[str, str]:
    """The files of a plugin called `name` (lower case, words joined by dashes)."""
    package = name.replace("-", "_")
    words = {"@NAME@": name, "@PACKAGE@": package, "@CLASS@": "".join(w.capitalize() for w in name.split("-"))}

    def filled(text: str) -> str:
        for mark, word in words.items():
            text = text.replace(mark, word)
        return text

    return {filled(path): filled(content) for path, content in FILES.items()}
