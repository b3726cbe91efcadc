"""Transitions drawn from any environment, or recorded ones from the user's npz: `--data transitions`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distk import DataSpec, Files, UsageError, open_dataset, option, permuted_split
from distk.arrays import open_npz
from distk.console import counted
from distk.errors import DistkError
from distk.plugins.rl_control.data.environments import permitted
from distk.transitions import Actions, TransitionDataset

HOLDS = "x and x_next uint8 [n, height, width] or [n, height, width, 1 or 3], and u, numbers [n, k] or choices [n]"
RECORDED = "recorded"


@dataclass(frozen=True)
class Config:
    """Which world, and how many transitions."""

    variant: str = option(
        "pointmass", "the environment, as in --data transitions:maze; `recorded` reads those of --data-dir"
    )
    count: int = option(10_000, "transitions drawn from the environment", min=2, max=100_000_000)
    data_seed: int = option(0, "seed of the states and actions", min=0, max=2**31)
    test: float = option(0.1, "share of the transitions kept for the test split", above=0, max=0.9)


class Transitions(TransitionDataset[Config]):
    """Start states of an environment, each with one permitted action drawn uniformly; or recorded transitions.

    Of an environment states and actions are kept, and pictures drawn for each batch. Recorded ones are kept as bytes.
    """

    reads = f"an npz with {HOLDS} (for transitions:recorded)"
    makes = MappingProxyType({"environment": "transition"})

    def __init__(self, config: Config, device: torch.device, files: Files) -> None:
        super().__init__(config, device, files)
        self.env: Any = None
        if config.variant == RECORDED:
            path = files.find("transitions.npz", "*.npz")
            if path is None:
                raise UsageError(f"'transitions:{RECORDED}' reads {HOLDS} from an npz: add --data-dir FILE.")
            self._record(path)
        else:
            if files.required:
                raise UsageError(
                    f"files are read by --data transitions:{RECORDED}, not by transitions:{config.variant}."
                )
            self._draw()
        self.parts = permuted_split(len(self), config.test, config.data_seed, device)

    def _draw(self) -> None:
        env: Any = open_dataset(self.config.variant, device=self.device)
        self.env = env
        if env.spec.kind != "environment":
            raise UsageError(f"'{self.config.variant}' is not an environment: it holds {env.spec.kind} data.")
        if not env.spec.extra.get("branching", True):
            raise UsageError(
                f"'{self.config.variant}' cannot be set to a state, so no transitions can be drawn from it."
            )
        actions = Actions.of(env.spec)
        generator = torch.Generator(self.device).manual_seed(self.config.data_seed)
        self.states = env.reset(self.config.count, generator)
        if actions.continuous:
            self.u = actions.sample(self.config.count, generator)
        else:
            noise = torch.rand(self.config.count, actions.count, generator=generator, device=self.device)
            self.u = torch.where(permitted(env, self.states), noise, -1.0).argmax(1)
        self.spec = DataSpec("transition", env.spec.shape, env.spec.range, extra=actions.to_extra())
        self.origin = f"{counted(self.config.count, 'transition')} drawn from {self.config.variant}: {env.origin}"

    def _record(self, path: Path) -> None:
        x, x_next, u = read(path)
        self.pictures = torch.from_numpy(np.stack([x, x_next], 1)).to(self.device)
        self.u = torch.from_numpy(u).to(self.device)
        if u.ndim == 1:
            actions = Actions(tuple(map(str, range(int(u.max()) + 1))))
        else:
            low, high = u.min(0), u.max(0)
            if not (low < high).all():
                raise DistkError(
                    f"'{path}': number {int((low >= high).argmax())} of 'u' is the same in every transition."
                )
            names = tuple(f"u{k + 1}" for k in range(u.shape[1]))
            actions = Actions(names, tuple(map(float, low)), tuple(map(float, high)))
        self.spec = DataSpec("transition", tuple(x.shape[1:]), extra=actions.to_extra())
        self.origin, self.can_step = f"{len(u):,} recorded transitions from {path}", False

    def batch(self, rows: Tensor) -> dict[str, Tensor]:
        """As `TransitionDataset.batch`; recorded transitions have no states."""
        if self.env is not None:
            return super().batch(rows)
        x, x_next = (self.pictures[rows].float() / 255).unbind(1)
        return {"x": x, "u": self.u[rows], "x_next": x_next}

    def state(self, rows: Tensor) -> Tensor:
        return self.states[rows]

    def step(self, state: Tensor, u: Tensor) -> Tensor:
        return self.env.step(state, u)

    def render(self, state: Tensor) -> Tensor:
        return self.env.render(state)


def read(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`x` and `x_next` uint8 `[n, c, h, w]`, `u` float32 `[n, k]` or int64 `[n]`, of an npz.

    Raises DistkError for members that are missing, do not fit each other, or hold numbers that are not finite.
    """
    with open_npz(path, HOLDS) as file:
        heads = {name: file.header(name) for name in ("x", "x_next", "u")}
        (shape, kind), (after, kind_after), (actions, kind_u) = (heads[name] for name in ("x", "x_next", "u"))
        told = ", ".join(f"{n} {d} {s}" for n, (s, d) in heads.items())
        picture = len(shape) == 3 or (len(shape) == 4 and shape[3] in (1, 3))
        if (
            shape != after
            or kind != np.uint8
            or kind_after != np.uint8
            or not picture
            or 0 in shape
            or len(actions) not in (1, 2)
        ):
            raise DistkError(f"'{path}': expected {HOLDS}; found {told}.")
        if actions[0] != shape[0] or (kind_u.kind not in ("iu" if len(actions) == 1 else "iuf")) or 0 in actions:
            raise DistkError(f"'{path}': expected {HOLDS}; found {told}.")
        if shape[0] < 2:
            raise DistkError(f"'{path}' holds one transition; two or more are needed.")
        x, x_next = (_channels_first(file.read(name)) for name in ("x", "x_next"))
        u = file.read("u").astype(np.int64 if len(actions) == 1 else np.float32)
    if u.ndim == 1 and not 0 <= int(u.min()) <= int(u.max()) < 1 << 16:
        raise DistkError(f"'{path}': choices in 'u' must be 0, 1, 2, ...; found {int(u.min())} to {int(u.max())}.")
    if not np.isfinite(u).all():
        raise DistkError(f"'{path}': 'u' holds numbers that are not finite.")
    return x, x_next, u


def _channels_first(pictures: np.ndarray) -> np.ndarray:
    return pictures[:, None] if pictures.ndim == 3 else pictures.transpose(0, 3, 1, 2)
