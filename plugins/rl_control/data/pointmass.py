"""A point mass on a spring in a box: the smallest world with continuous actions, solved in closed form."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from distk import Dataset, DataSpec, Files, option
from distk.transitions import Actions

EXAMPLES, EXAMPLES_SEED = 1024, 0
RADIUS = 0.12
"""Of the disc that shows the mass, in units of half the box."""
TRAIL = 0.25
"""The second disc shows where the mass would have been so many seconds ago, going straight."""


@dataclass(frozen=True)
class Config:
    """The mechanics; mass 1, box [-1, 1] x [-1, 1]."""

    size: int = option(32, "height and width of the picture in pixels", min=8, max=512)
    dt: float = option(0.1, "seconds between two observations", above=0, max=10)
    spring: float = option(0.0, "pull towards the middle, per unit of distance", min=0, max=1e4)
    damping: float = option(0.5, "friction, per unit of speed", min=0, max=1e4)
    force: float = option(2.0, "largest force along each axis", above=0, max=1e4)
    speed: float = option(1.0, "largest speed along each axis of a start state", min=0, max=1e3)


class PointMass(Dataset[Config]):
    """Environment: position and velocity in a plane, a force along each axis, x'' = -spring x - damping x' + u.

    A state is float32 `[n, 4]`: position right and down, then velocity. The force is constant during a step, so that a
    step is one matrix product with the exponential of the system's matrix: exact, whatever `dt` is. The walls act at
    the end of a step: who has left the box is put back onto its wall and loses the velocity across it.
    Pictures: red the mass, green where it came from (a place and a velocity are seen in one picture).
    """

    def __init__(self, config: Config, device: torch.device, files: Files) -> None:
        super().__init__(config, device, files)
        system = torch.zeros(3, 3, dtype=torch.float64)  # of one axis: position, velocity, force
        system[0, 1] = 1
        system[1] = torch.tensor((-config.spring, -config.damping, 1.0))
        flow = torch.linalg.matrix_exp(system * config.dt).float()
        self._flow = flow[:2].T.contiguous().to(device)  # [3, 2]
        actions = Actions(("right", "down"), (-config.force,) * 2, (config.force,) * 2)
        extra = {**actions.to_extra(), "branching": True}
        self.spec = DataSpec("environment", (3, config.size, config.size), extra=extra)
        self.origin = f"a point mass simulated on the device, {config.dt:g} s a step"
        self._place = (torch.arange(config.size, device=device) + 0.5) / config.size * 2 - 1
        self.examples = self.reset(EXAMPLES, torch.Generator(device).manual_seed(EXAMPLES_SEED))

    def __len__(self) -> int:
        return len(self.examples)

    def batch(self, rows: Tensor) -> dict[str, Tensor]:
        """`x` float32 `[n, 3, size, size]` and `state` float32 `[n, 4]` of example states."""
        return {"x": self.render(self.examples[rows]), "state": self.examples[rows]}

    def reset(self, n: int, generator: torch.Generator) -> Tensor:
        """Positions uniform in the box, velocities uniform up to `speed`."""
        drawn = torch.rand(n, 4, generator=generator, device=self.device) * 2 - 1
        return torch.cat([drawn[:, :2], drawn[:, 2:] * self.config.speed], 1)

    def step(self, state: Tensor, action: Tensor) -> Tensor:
        """States float32 `[n, 4]` after `dt` seconds under the forces float32 `[n, 2]`, clipped to what is allowed."""
        force = action.clamp(-self.config.force, self.config.force)
        axes = torch.stack([state[:, :2], state[:, 2:], force], -1)  # [n, axis, 3]
        # A sum instead of a product of matrices: no precision setting of a training run may change the physics.
        position, velocity = (axes[..., None] * self._flow).sum(-2).unbind(-1)
        inside = position.abs() <= 1
        return torch.cat([position.clamp(-1, 1), torch.where(inside, velocity, 0.0)], 1)

    def render(self, state: Tensor) -> Tensor:
        """float32 `[n, 3, size, size]` in [0, 1] on black: red at the place, green `TRAIL` seconds behind it."""
        place, velocity = state[:, :2], state[:, 2:]
        discs = torch.stack([self._disc(place), self._disc(place - TRAIL * velocity)], 1)
        return torch.cat([discs, torch.zeros_like(discs[:, :1])], 1)

    def _disc(self, centre: Tensor) -> Tensor:
        """Coverage of discs at `[n, 2]`, `[n, size, size]`: 1 inside, falling to 0 over one pixel at the rim."""
        x = self._place[None, None, :] - centre[:, 0, None, None]
        y = self._place[None, :, None] - centre[:, 1, None, None]
        pixels = (RADIUS - (x * x + y * y).sqrt()) * self.config.size / 2
        return (pixels + 0.5).clamp(0, 1)
