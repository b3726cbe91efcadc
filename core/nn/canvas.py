"""Images of any size for networks that halve them: the canvas on which an image stands in the middle."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class Canvas:
    """Where images `[n, c, height, width]` stand: `halvings` times both sides of the canvas can be halved, down to maps
    of `map` = (rows, columns). The images' own size where that can be halved so often."""

    height: int
    width: int
    halvings: int
    map: tuple[int, int]

    @property
    def _margins(self) -> tuple[int, int, int, int]:
        """Left, right, above, below."""
        across, down = (self.map[1] << self.halvings) - self.width, (self.map[0] << self.halvings) - self.height
        return across // 2, across - across // 2, down // 2, down - down // 2

    def onto(self) -> list[nn.Module]:
        """The layer that puts images onto the canvas, zeros around them; none where they fill it."""
        return [nn.ZeroPad2d(self._margins)] if any(self._margins) else []

    def off(self) -> list[nn.Module]:
        """The layer that takes them off again; none where they fill it."""
        left, right, above, below = self._margins
        return [nn.ZeroPad2d((-left, -right, -above, -below))] if any(self._margins) else []


def canvas(height: int, width: int, smallest: int = 4, halvings: int | None = None) -> Canvas:
    """The canvas of images of a size.

    smallest: the shorter side of the last maps is this or more, but less than twice this; of the numbers of halvings
    that allow it the one whose canvas has the fewest pixels is taken, and of those the largest. halvings: how often,
    where that is not free. Raises ValueError for images with a side below `smallest`, or below what the halvings need.
    """
    shorter = min(height, width)
    if halvings is not None:
        allowed = [halvings] if shorter > 0 else []
    else:
        allowed = [k for k in range(16) if smallest <= -(-shorter >> k) < 2 * smallest]
    if not allowed or shorter < smallest:
        raise ValueError(f"images of {height}x{width} pixels are too small for the networks: {smallest} are the least")
    every = [Canvas(height, width, k, (-(-height >> k), -(-width >> k))) for k in allowed]
    return min(every, key=lambda made: (made.map[0] * made.map[1] << 2 * made.halvings, -made.halvings))
