"""Gymnasium environments with discrete or continuous actions: `--data gym:CartPole-v1` (needs `distk[gym]`).

They run on the host, one copy per step, and cannot be stepped twice from one state, so that only `reinforce` learns
from them. Environments are looked up among those that are registered. Gymnasium itself would import MODULE for an id
`MODULE:ID`, and an id may come from a checkpoint: modules that register environments are named in `$DISTK_GYM`.
"""

from __future__ import annotations

import contextlib
import importlib
import math
import os
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from distk import Dataset, DataSpec, Files, option
from distk.errors import DistkError, UsageError
from distk.transitions import Actions

LARGEST_ACTIONS = 1024


@dataclass(frozen=True)
class Config:
    """Which environment, and what its pictures become."""

    variant: str = option("", "the environment's id, as in --data gym:CartPole-v1")
    size: int = option(64, "height and width in pixels after resizing", min=8, max=512)
    frames: int = option(
        256, "frames of a random walk that stand for the data in tables and pictures", min=8, max=100_000
    )
    vectorization: Literal["async", "sync"] = option("async", "one process per environment, or one for all")
    walk_seed: int = option(0, "seed of that random walk", min=0)


def gymnasium() -> Any:
    """The package. Raises UsageError with the command that installs it."""
    try:
        import gymnasium as package
    except ImportError:
        raise UsageError("gym environments need Gymnasium: install distk[gym] (pip install 'distk[gym]').") from None
    return package


@contextlib.contextmanager
def _explained(name: str) -> Iterator[None]:
    """Gymnasium's own errors as one sentence."""
    package = gymnasium()
    try:
        yield
    except package.error.DependencyNotInstalled as error:
        raise UsageError(f"'{name}' needs more packages: {_line(error)}") from error
    except (package.error.Error, ModuleNotFoundError) as error:
        raise UsageError(f"Gymnasium cannot make '{name}': {_line(error)}") from error


def _look_up(name: str) -> None:
    """Import the modules of `$DISTK_GYM`. Raises UsageError for one that fails, and for an id that names a module."""
    for module in filter(None, os.environ.get("DISTK_GYM", "").replace(",", " ").split()):
        try:
            importlib.import_module(module)
        except Exception as error:  # a stranger's program
            raise UsageError(f"DISTK_GYM names '{module}', which cannot be imported: {_line(error)}") from error
    module, colon, inner = name.rpartition(":")
    if colon:
        raise UsageError(
            f"'{name}' names a module to be imported, which no data set's name may do: if you trust '{module}', set "
            f"DISTK_GYM={shlex.quote(module)} and name the environment alone, --data gym:{shlex.quote(inner)}"
        )


def _line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


class Gym(Dataset[Config]):
    """A Gymnasium environment. A state is its picture, float32 `[n, 3, size, size]`: what it is inside stays there.

    valid: float `[n]`, 0 where the last `step` was none. In Gymnasium's default mode the step after an episode's end
    ignores the action and returns the first frame of the next episode.
    """

    valid: Tensor

    def __init__(self, config: Config, device: torch.device, files: Files) -> None:
        super().__init__(config, device, files)
        if not config.variant:
            raise UsageError("name the environment: --data gym:ID, for example gym:CartPole-v1.")
        self.id = config.variant
        self._envs: Any = None
        self._walk: Tensor | None = None
        _look_up(self.id)
        with _explained(self.id):
            probe = gymnasium().make(self.id, render_mode="rgb_array")
        try:
            self.actions = self._read_actions(probe.action_space)
            self.from_observation = _is_picture(probe.observation_space)
        finally:
            probe.close()
        extra = {**self.actions.to_extra(), "branching": False}
        self.spec = DataSpec("environment", (3, config.size, config.size), extra=extra)
        seen = "its image observations" if self.from_observation else "its rendered pictures"
        self.origin = f"Gymnasium {gymnasium().__version__}, {self.id}, {seen}; runs on the host"

    def _read_actions(self, space: Any) -> Actions:
        """The actions of a Discrete, MultiDiscrete or Box space. Raises UsageError for any other."""
        kind = type(space).__name__
        self._space = space
        self._sizes: tuple[int, ...] = ()
        if kind == "Box":
            low, high = (
                tuple(np.asarray(bound, dtype=np.float64).reshape(-1).tolist()) for bound in (space.low, space.high)
            )
            try:
                return Actions(tuple(f"u{k + 1}" for k in range(len(low))), low, high)
            except ValueError as error:
                raise UsageError(f"the actions of '{self.id}' are {space}: {error}.") from error
        if kind == "Discrete":
            sizes: tuple[int, ...] = (int(space.n),)
            self._first = np.array([int(space.start)])
        elif kind == "MultiDiscrete" and np.asarray(space.nvec).ndim == 1:
            sizes = tuple(int(n) for n in space.nvec)
            self._first = np.asarray(space.start)
        else:
            raise UsageError(f"actions are Discrete, MultiDiscrete or Box; '{self.id}' has {kind}.")
        self._flat = kind == "Discrete"
        if math.prod(sizes) > LARGEST_ACTIONS:
            raise UsageError(
                f"'{self.id}' has {math.prod(sizes):,} joint actions; at most {LARGEST_ACTIONS} are taken."
            )
        self._sizes = sizes
        joint = range(math.prod(sizes))
        return Actions(tuple(",".join(str(int(i)) for i in np.unravel_index(a, sizes)) for a in joint))

    def _native(self, action: np.ndarray) -> np.ndarray:
        """Joint action numbers `[n]`, or numbers `[n, k]` -> what the environment takes."""
        if self.actions.continuous:
            shaped = action.reshape(-1, *self._space.shape).astype(self._space.dtype)
            return np.clip(shaped, self._space.low, self._space.high)
        split = np.stack(np.unravel_index(action, self._sizes), 1) + self._first
        return split[:, 0] if self._flat else split

    # Stepping

    def reset(self, n: int, generator: torch.Generator) -> Tensor:
        """`n` environments at the start of an episode, seeded from `generator`."""
        seed = int(torch.randint(2**31 - 1, (1,), generator=generator, device=generator.device))
        if self._envs is None or self._envs.num_envs != n:
            self.close()
            with _explained(self.id):
                self._envs = gymnasium().make_vec(
                    self.id, num_envs=n, vectorization_mode=self.config.vectorization, render_mode="rgb_array"
                )
            self._mode = str(getattr(self._envs.metadata.get("autoreset_mode"), "name", "NEXT_STEP"))
        self._ended = np.zeros(n, bool)
        self.valid = torch.ones(n, device=self.device)
        return self._pictures(self._envs.reset(seed=seed)[0])

    def step(self, state: Tensor, action: Tensor) -> Tensor:
        """One step of the environments that `reset` started; `state` is not read. Sets `valid`.

        Raises DistkError when an environment fails.
        """
        try:
            observation, _, terminated, truncated, _ = self._envs.step(self._native(action.cpu().numpy()))
        except Exception as error:  # an environment is a stranger's program
            raise DistkError(f"'{self.id}' failed while stepping: {_line(error)}.") from error
        ended = np.asarray(terminated) | np.asarray(truncated)
        # NEXT_STEP resets one step after an episode's end, SAME_STEP in that very step, DISABLED leaves it to us.
        missing = self._ended if self._mode == "NEXT_STEP" else ended
        self.valid = torch.from_numpy(~missing).float().to(self.device)
        self._ended = ended
        if self._mode == "DISABLED" and ended.any():
            observation = self._envs.reset(options={"reset_mask": ended})[0]
        return self._pictures(observation)

    def render(self, state: Tensor) -> Tensor:
        """A state is its picture."""
        return state

    def _pictures(self, observation: Any) -> Tensor:
        frames = observation if self.from_observation else self._envs.render()
        if frames is None or len(frames) == 0 or frames[0] is None:
            raise DistkError(f"'{self.id}' renders no rgb_array pictures and its observations are no images.")
        return to_pictures(np.stack([np.asarray(frame) for frame in frames]), self.config.size, self.device)

    def close(self) -> None:
        """End the environments' processes."""
        if self._envs is not None:
            self._envs.close()
            self._envs = None

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self.close()

    # As a data set

    def __len__(self) -> int:
        return self.config.frames

    def batch(self, rows: Tensor) -> dict[str, Tensor]:
        """`x` float32 `[n, 3, size, size]`: frames of a random walk in an environment of its own, made on first use."""
        if self._walk is None:
            walker = Gym(self.config, self.device, Files("gym", None, ""))
            walker.config = type(self.config)(**{**vars(self.config), "vectorization": "sync"})
            generator = torch.Generator().manual_seed(self.config.walk_seed)
            state, found = walker.reset(1, generator), []
            for _ in range(self.config.frames):
                found.append(state)
                state = walker.step(state, self.actions.sample(1, generator))
            walker.close()
            self._walk = torch.cat(found)
        return {"x": self._walk[rows]}


def _is_picture(space: Any) -> bool:
    shape = getattr(space, "shape", None)
    return shape is not None and len(shape) == 3 and shape[2] in (1, 3) and str(space.dtype) == "uint8"


def to_pictures(frames: np.ndarray, size: int, device: torch.device) -> Tensor:
    """uint8 `[n, h, w, 1 or 3]` -> float32 `[n, 3, size, size]` in [0, 1], resized on the device."""
    if frames.ndim != 4 or frames.shape[3] not in (1, 3):
        raise DistkError(f"the environment's pictures have shape {frames.shape[1:]}; [height, width, 3] is needed.")
    x = torch.from_numpy(np.ascontiguousarray(frames)).to(device).permute(0, 3, 1, 2).float() / 255
    if x.shape[2:] != (size, size):
        x = F.interpolate(x, size=(size, size), mode="bilinear", antialias=True, align_corners=False)
    return x.expand(-1, 3, -1, -1).clamp(0, 1)
