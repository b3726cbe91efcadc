"""Puppets: game characters of seven attributes in many poses, drawn on the device; stand-in for Reed et al.'s sprites.

672 identities are what seven attributes of 2 to 5 values allow (hair styles depend on the gender: 7 of 10 pairs), and
every identity is seen in poses: 4 views of 5 actions at 6 to 13 moments each, moved by up to one pixel. The identity is
the label, the attributes are the factors, the pose is nuisance. Lengths are pixels of a 60x60 canvas with y downwards.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from distk import DataSpec, FactorDataset, Files, option
from distk.config import C
from distk.console import progress
from distk.kept import SMALL, kept
from distk.nn import shapes

ATTRIBUTES = ("body", "armor", "arms", "greaves", "weapon", "gender", "hair")
SIZES = (3, 4, 2, 2, 2, 2, 5)
STYLES = ((0, 0), (0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (1, 4))
"""(gender, hair) that occur: female long, ponytail, bob, spiky; male bob, spiky, bald."""
LONG, PONYTAIL, BOB, SPIKY, BALD = range(5)
FRONT, LEFT, RIGHT, BACK = range(4)
ACTIONS = ("spellcast", "thrust", "walk", "slash", "shoot")
FRAMES = (7, 8, 9, 6, 13)
POSES = 4 * sum(FRAMES)
CANVAS = 60
FOLDS = 5

SKIN = ((0.98, 0.82, 0.66), (0.72, 0.50, 0.34), (0.42, 0.55, 0.30))
ARMOR = ((0.62, 0.65, 0.70), (0.47, 0.30, 0.16), (0.35, 0.20, 0.55), (0.95, 0.95, 0.90))
HAIR = ((0.90, 0.78, 0.35), (0.55, 0.20, 0.10), (0.12, 0.10, 0.10), (0.75, 0.15, 0.15), (0.0, 0.0, 0.0))
WEAPON = ((0.50, 0.35, 0.20), (0.80, 0.82, 0.85))
GAUNTLET, TROUSERS, METAL, EYE = (0.75, 0.70, 0.35), (0.25, 0.25, 0.35), (0.70, 0.72, 0.75), (0.10, 0.10, 0.12)
BACKGROUND = 0.93


class Canvas:
    """Paints shapes one over the other on `n` pictures of `[size, size]` pixels, antialiased by their signed distance.

    Numbers of a picture are float tensors `[n, 1, 1]`.
    """

    def __init__(self, n: int, size: int, shift: Tensor) -> None:
        """shift: float `[n, 2]`, right and down, moves everything that is painted."""
        self.scale = CANVAS / size
        centre = (torch.arange(size, device=shift.device) + 0.5) * self.scale
        self.x, self.y = centre - shift[:, :1, None], centre[:, None] - shift[:, 1:, None]
        self.image = torch.full((n, 3, size, size), BACKGROUND, device=shift.device)

    def paint(self, distance: Tensor, colour: Tensor, where: Tensor | None = None) -> None:
        """Cover the inside (distance < 0) with `colour` `[n or 1, 3]`, on the pictures of `where` bool `[n]`."""
        cover = shapes.coverage(distance / self.scale)
        if where is not None:
            cover = cover * where.view(-1, 1, 1)
        self.image = torch.lerp(self.image, colour[..., None, None], cover[:, None])

    def circle(self, cx: Tensor | float, cy: Tensor | float, radius: float) -> Tensor:
        return shapes.ball((self.x, self.y), (cx, cy), radius)

    def capsule(self, ax: Tensor, ay: Tensor, bx: Tensor, by: Tensor, radius: Tensor | float) -> Tensor:
        return shapes.capsule((self.x, self.y), (ax, ay), (bx, by), radius)

    def box(self, cx: Tensor, cy: float, half_x: Tensor | float, half_y: float, corner: float = 0.0) -> Tensor:
        return shapes.box((self.x, self.y), (cx, cy), (half_x, half_y), corner)

    def spikes(self, cx: Tensor, cy: float) -> Tensor:
        """Five triangles of height 5 and base 5 around the top of the head."""
        found = torch.full_like(self.x + self.y, 1e3)
        for degrees in (-60, -30, 0, 30, 60):
            sin, cos = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
            dx, dy = self.x - cx, cy - self.y
            out, along = dx * sin + dy * cos - 7, (dx * cos - dy * sin).abs()
            side = (along - (5 - out) / 2) / math.hypot(1, 0.5)
            found = torch.minimum(found, torch.maximum(-out, side))
        return found


def render(factors: Tensor, view: Tensor, action: Tensor, time: Tensor, shift: Tensor, size: int) -> Tensor:
    """Factors int64 `[n, 7]`, view, action int64 `[n]`, time `[n]` in [0, 1), shift `[n, 2]` px -> `[n, 3, s, s]`."""
    device = factors.device
    c = Canvas(len(factors), size, shift)
    skin, armor, hair, weapon = (
        torch.tensor(table, device=device)[factors[:, k]]
        for table, k in ((SKIN, 0), (ARMOR, 1), (HAIR, 6), (WEAPON, 4))
    )
    female, style = factors[:, 5] == 0, factors[:, 6]
    profile = (view == LEFT) | (view == RIGHT)
    facing = torch.where(view == LEFT, -1.0, 1.0).view(-1, 1, 1)
    narrow = torch.where(profile, 0.7, 1.0).view(-1, 1, 1)
    head = 30 + torch.where(profile, 1.5, 0.0).view(-1, 1, 1) * facing
    behind = torch.where(profile.view(-1, 1, 1), -facing, 1.0)

    def tail() -> tuple[Tensor, Tensor]:
        """The hair that hangs down: a rectangle behind the neck, and a capsule of length 12."""
        middle = head + torch.where(profile.view(-1, 1, 1), 4.0 * behind, 0.0)
        at = head + torch.where((view == BACK).view(-1, 1, 1), 0.0, 7.0 * behind)
        top = torch.full_like(at, 12.0)
        return c.box(middle, 21, 7.0 * narrow, 7), c.capsule(at, top, at, top + 12, 2.2)

    rectangle, ponytail = tail()
    c.paint(rectangle, hair, (style == LONG) & (view != BACK))
    c.paint(ponytail, hair, (style == PONYTAIL) & (view != BACK))
    limbs = _angles(action, time)
    _arm(c, "far", limbs, facing, narrow, profile, skin, factors[:, 2] == 1)
    for which, sign in (("far", -1.0), ("near", 1.0)):
        _leg(c, sign, limbs[f"{which} leg"], facing, narrow, factors[:, 3] == 1)
    half = torch.where(female, 5.5, 7.0).view(-1, 1, 1) * narrow
    torso = c.box(torch.full_like(half, 30.0), 32, half, 9, 2)
    c.paint(torso, armor)
    c.paint(torch.maximum(torso, (c.y - 38).abs() - 1), armor * 0.5)
    c.paint(c.circle(head, 16, 7), skin)
    for sign in (-1.0, 1.0):
        place = head + torch.where(profile.view(-1, 1, 1), 3.5 * facing, 2.5 * sign)
        c.paint(c.circle(place, 16.5, 1.2), torch.tensor([EYE], device=device), view != BACK)
    low = torch.where(view == BACK, 20.0, torch.where(style == BOB, 17.0, 13.0)).view(-1, 1, 1)
    radius = torch.where(style == BOB, 8.0, 7.6).view(-1, 1, 1)
    c.paint(torch.maximum(c.circle(head, 16, 0) - radius, c.y - low), hair, style != BALD)
    c.paint(c.spikes(head, 16), hair, style == SPIKY)
    c.paint(rectangle, hair, (style == LONG) & (view == BACK))
    c.paint(ponytail, hair, (style == PONYTAIL) & (view == BACK))
    hand = _arm(c, "near", limbs, facing, narrow, profile, skin, factors[:, 2] == 1)
    _weapon(
        c,
        hand,
        limbs["near arm"],
        facing,
        factors[:, 4] == 0,
        (action == ACTIONS.index("thrust")) | (action == ACTIONS.index("shoot")),
        weapon,
    )
    return c.image


def _angles(action: Tensor, time: Tensor) -> dict[str, Tensor]:
    """Angles of the limbs from the vertical, radians, and by how much the near arm is longer, px: `[n, 1, 1]` each."""
    wave = (2 * math.pi * time).sin()
    zero = torch.zeros_like(time)

    def of(**degrees: Tensor) -> Tensor:
        found = zero
        for name, value in degrees.items():
            found = torch.where(action == ACTIONS.index(name), value, found)
        return (found * (math.pi / 180)).view(-1, 1, 1)

    spell, level = 100 + 40 * wave, zero + 90
    return {
        "near leg": of(walk=28 * wave),
        "far leg": of(walk=-28 * wave),
        "near arm": of(walk=-22 * wave, spellcast=spell, thrust=level, slash=150 - 130 * time, shoot=level),
        "far arm": of(walk=22 * wave, spellcast=spell, shoot=90 - 45 * time),
        "reach": torch.where(action == ACTIONS.index("thrust"), 5 * (math.pi * time).sin(), 0.0).view(-1, 1, 1),
    }


def _arm(
    c: Canvas,
    which: str,
    limbs: dict[str, Tensor],
    facing: Tensor,
    narrow: Tensor,
    profile: Tensor,
    skin: Tensor,
    gauntlet: Tensor,
) -> tuple[Tensor, Tensor]:
    """Paint an arm; where its hand is. In profile both arms point ahead, else each to its own side."""
    sign = 1.0 if which == "near" else -1.0
    angle = limbs[f"{which} arm"]
    ahead = torch.where(profile.view(-1, 1, 1), facing, torch.full_like(facing, sign))
    length = 13 + (limbs["reach"] if which == "near" else 0.0)
    x, y = 30 + 8 * sign * narrow * torch.where(profile.view(-1, 1, 1), 0.5, 1.0), torch.full_like(angle, 26.0)
    hand_x, hand_y = x + length * angle.sin() * ahead, y + length * angle.cos()
    c.paint(c.capsule(x, y, hand_x, hand_y, 2.2), skin)
    metal = torch.tensor([GAUNTLET], device=skin.device)
    c.paint(c.capsule((x + hand_x) / 2, (y + hand_y) / 2, hand_x, hand_y, 2.2), metal, gauntlet)
    return hand_x, hand_y


def _leg(c: Canvas, sign: float, angle: Tensor, facing: Tensor, narrow: Tensor, greaves: Tensor) -> None:
    x, y = 30 + 3.5 * sign * narrow, torch.full_like(angle, 41.0)
    foot_x, foot_y = x + 14 * angle.sin() * facing, torch.full_like(angle, 55.0)
    trousers, metal = (torch.tensor([colour], device=angle.device) for colour in (TROUSERS, METAL))
    c.paint(c.capsule(x, y, foot_x, foot_y, 2.6), trousers)
    c.paint(c.capsule((x + foot_x) / 2, (y + foot_y) / 2, foot_x, foot_y, 2.6), metal, greaves)


def _weapon(
    c: Canvas, hand: tuple[Tensor, Tensor], angle: Tensor, facing: Tensor, spear: Tensor, level: Tensor, colour: Tensor
) -> None:
    """A spear is held in its middle, upright or (thrust, shoot) along the arm; a sword points ahead of the arm."""
    x, y = hand
    held = spear.view(-1, 1, 1)
    turn = torch.where(held, torch.where(level.view(-1, 1, 1), angle, math.pi), angle + math.pi / 3)
    dx, dy = turn.sin() * facing, turn.cos()
    back, ahead = torch.where(held, 13.0, 0.0), torch.where(held, 13.0, 14.0)
    radius = torch.where(held, 0.75, 1.25)
    c.paint(c.capsule(x - back * dx, y - back * dy, x + ahead * dx, y + ahead * dy, radius), colour)


@dataclass(frozen=True)
class Config:
    """How many pictures there are, how large, and which identities are kept for the test."""

    size: Literal[30, 60] = option(60, "height and width in pixels")
    poses: int = option(16, "pictures of each identity, different poses drawn once and for all", min=2, max=POSES)
    fold: int = option(0, "which fifth of the identities is the test split", min=0, max=FOLDS - 1)


class Characters(FactorDataset[C]):
    """Pictures of characters: label = identity, factors = attributes. The test split holds every fifth identity.

    pictures: rows -> uint8 `[n, 3, size, size]`. identity: int64 `[N]`, 0 ... C - 1.
    """

    pictures: Callable[[Tensor], Tensor]
    identity: Tensor
    table: Tensor

    def split_by_identity(self, fold: int) -> None:
        """A fixed permutation deals the identities out to five folds."""
        count = int(self.identity.max()) + 1
        place = torch.empty(count, dtype=torch.long)
        place[torch.randperm(count, generator=torch.Generator().manual_seed(672))] = torch.arange(count)
        self.hold_out(place.to(self.device) % FOLDS == fold)

    @property
    def label(self) -> Tensor:
        """The identity of each row, int64 `[N]`: who wants labels need not draw pictures."""
        return self.identity

    def hold_out(self, test: Tensor) -> None:
        """test: bool `[C]`, the identities of the test split."""
        held = test[self.identity]
        self.parts = {"train": (~held).nonzero()[:, 0], "test": held.nonzero()[:, 0]}

    def batch(self, rows: Tensor) -> dict[str, Tensor]:
        """`x` float32 `[n, 3, size, size]` in [0, 1], `label` int64 `[n]` the identity, `factors` int64 `[n, 7]`."""
        return {"x": self.pictures(rows).float() / 255, "label": self.identity[rows], "factors": self.table[rows]}


STORED = 256 << 20
"""Bytes up to which all pictures are drawn once, at the first that is asked for; more are drawn batch by batch."""
DRAWN = 1
"""Version of the drawing: raise it with every change of a pixel, so that nothing kept outlives it."""


class Puppets(Characters[Config]):
    """672 drawn characters; factors body 3, armor 4, arms 2, greaves 2, weapon 2, gender 2, hair 5."""

    factor_names, factor_sizes = ATTRIBUTES, SIZES
    factor_kinds = ("categorical",) * len(SIZES)

    def __init__(self, config: Config, device: torch.device, files: Files) -> None:
        super().__init__(config, device, files)
        self.spec = DataSpec("image", (3, config.size, config.size))
        self.origin = "drawn on the device (no file)"
        combined = torch.cartesian_prod(*(torch.arange(s) for s in (*SIZES[:5], len(STYLES))))
        identities = torch.cat([combined[:, :5], torch.tensor(STYLES)[combined[:, 5]]], 1)
        count, generator = len(identities), torch.Generator().manual_seed(60)
        pose = torch.rand(count, POSES, generator=generator).argsort(1)[:, : config.poses].flatten()
        self.shift = torch.randint(-1, 2, (len(pose), 2), generator=generator).float().to(device)
        starts = torch.tensor([sum(FRAMES[:a]) for a in range(len(FRAMES))])
        within = pose % sum(FRAMES)
        self.view = (pose // sum(FRAMES)).to(device)
        action = torch.bucketize(within, starts, right=True) - 1
        self.action = action.to(device)
        self.time = ((within - starts[action]) / torch.tensor(FRAMES)[action]).to(device)
        self.identity = torch.arange(count, device=device).repeat_interleave(config.poses)
        self.table = identities.to(device)[self.identity]
        self.split_by_identity(config.fold)
        self.pictures = self._draw
        if device.type == "cuda":
            on_gpu = self._draw_all()
            self.pictures = lambda rows: on_gpu[rows]
        elif len(pose) * 3 * config.size**2 <= STORED:
            # Drawn when the first picture is asked for: who reads labels only waits for none.
            self.pictures = lambda rows: self._stored[rows]

    def _draw(self, rows: Tensor) -> Tensor:
        size = self.config.size
        parts = [
            render(self.table[r], self.view[r], self.action[r], self.time[r], self.shift[r], size)
            for r in rows.split(512)
        ]
        return (torch.cat(parts) * 255).round().to(torch.uint8)

    @functools.cached_property
    def _stored(self) -> Tensor:
        """All pictures, uint8 `[N, 3, size, size]`, of an earlier start where there was one."""
        config = self.config

        def fill(into: np.ndarray) -> None:
            into[:] = self._draw_all().cpu().numpy()

        made_of = {"poses": config.poses, "version": DRAWN}
        shape = (len(self), 3, config.size, config.size)
        if math.prod(shape) < SMALL:
            return self._draw_all()
        kept_ones = kept(f"puppets {config.size} {config.poses}", made_of, shape, np.uint8, fill)
        return torch.from_numpy(kept_ones).to(self.device)

    def _draw_all(self) -> Tensor:
        drawn = []
        with progress("drawing puppets", len(self)) as advance:
            for part in torch.arange(len(self), device=self.device).split(512):
                drawn.append(self._draw(part))
                advance(len(part))
        return torch.cat(drawn)
