"""idfaces: drawn faces of invented people, several pictures of each; stand-in for face photographs by identity.

An identity is a shape of the head, skin, hair, eyes, brows, nose, mouth and moles; a picture adds pose, light,
expression, glasses, colour and background. All of it is drawn from independent uniform numbers, on the device, from the
row's number alone. Coordinates run over [-1, 1], x to the right and y down; edges are 1.5 pixels soft.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from distk import Dataset, DataSpec, Files, option
from distk.console import counted
from distk.nn import shapes
from distk.plugins.datasets.identity_folder import split_by_identity
from distk.remembered import Remembered

SOFT = 1.5
"""Pixels over which an edge fades."""
NOISE, FIELDS = 0.02, 256
"""Standard deviation of the noise in [0, 1], and how many noise pictures there are to draw from."""
SKIN = ((255, 219, 172), (198, 134, 66), (92, 56, 36))
HAIR = ((24, 20, 18), (80, 52, 32), (140, 90, 50), (214, 176, 104), (150, 60, 30), (170, 168, 165))
IRIS = ((70, 110, 160), (80, 120, 70), (110, 75, 45), (60, 45, 35), (110, 115, 120))
LIP, WHITE, DARK = (0.70, 0.30, 0.30), (0.96, 0.96, 0.95), (0.08, 0.07, 0.07)
DEPTH = {"nose": 0.30, "face": 0.15, "hair": 0.0}
"""How far a feature stands out of the head; turning the head by a shifts it by depth * sin(a)."""

IDENTITY: dict[str, tuple[float, float]] = {
    "head_width": (0.46, 0.64),
    "head_height": (0.60, 0.78),
    "squareness": (2.0, 3.2),
    "jaw": (0.0, 0.25),
    "skin_a": (0.0, 1.0),
    "skin_b": (0.0, 1.0),
    "hair_colour": (0.0, 6.0),
    "hair_red": (-15.0, 15.0),
    "hair_green": (-15.0, 15.0),
    "hair_blue": (-15.0, 15.0),
    "hair_line": (-0.55, -0.30),
    "hair_volume": (0.04, 0.18),
    "hair_length": (0.0, 0.6),
    "eye_spacing": (0.18, 0.30),
    "eye_size": (0.06, 0.11),
    "eye_aspect": (0.45, 0.8),
    "iris": (0.0, 5.0),
    "brow_thickness": (0.02, 0.05),
    "brow_tilt": (-12.0, 12.0),
    "nose_length": (0.14, 0.28),
    "nose_width": (0.05, 0.12),
    "mouth_width": (0.14, 0.28),
    "lip_thickness": (0.02, 0.06),
    "mouth_y": (0.36, 0.46),
    "moles": (0.0, 4.0),
    **{f"mole{i}_{axis}": (-0.6, 0.6) for i in (1, 2, 3) for axis in "xy"},
}
"""What a person is: name -> range. Colours are levels of 0 to 255, angles degrees; `hair_colour`, `iris` and `moles`
are rounded down to a whole number. Moles stand at a share of the head's half sides."""

OBSERVATION: dict[str, tuple[float, float]] = {
    "yaw": (-35.0, 35.0),
    "pitch": (-20.0, 20.0),
    "roll": (-15.0, 15.0),
    "scale": (0.85, 1.1),
    "shift_x": (-0.08, 0.08),
    "shift_y": (-0.08, 0.08),
    "light_angle": (0.0, 180.0),
    "light_reach": (0.0, 1.0),
    "light_strength": (0.0, 0.6),
    "smile": (-0.08, 0.08),
    "mouth_open": (0.0, 0.06),
    "lids": (0.4, 1.0),
    "glasses": (-0.8, 0.2),
    "grey": (-0.85, 0.15),
    "saturation": (0.7, 1.2),
    "contrast": (0.8, 1.2),
    **{f"ground{i}_{c}": (0.1, 0.9) for i in (1, 2) for c in ("red", "green", "blue")},
    "ground_angle": (0.0, 360.0),
    "noise": (0.0, float(FIELDS)),
}
"""What a picture adds: name -> range. `glasses` and `grey` are there where the number is positive."""


@dataclass(frozen=True)
class Config:
    """How many people and pictures."""

    size: int = option(64, "height and width in pixels", min=12, max=256)
    identities: int = option(12_500, "people; eight tenths train, one validates, one tests", paper="12,500", min=10)
    observations: int = option(8, "pictures of each", paper="8", min=2, max=10_000)
    draw: int = option(0, "seed of the people and their pictures", min=0)


class IdFaces(Dataset[Config]):
    """Faces `[3, size, size]` in whole 255ths of [0, 1]; label = identity. No identity is in two splits.

    identity_names, observation_names: of the columns that `traits` gives.
    """

    identity_names = tuple(name for name in IDENTITY if "mole" not in name and name != "hair_colour" and name != "iris")
    observation_names = (
        "yaw", "pitch", "roll", "scale", "shift_x", "shift_y", "light_x", "light_y", "smile", "mouth_open", "lids",
        "glasses", "grey", "contrast", *(f"ground_{c}" for c in ("red", "green", "blue")),
    )  # fmt: skip

    def __init__(self, config: Config, device: torch.device, files: Files) -> None:
        super().__init__(config, device, files)
        draw = torch.Generator().manual_seed(config.draw)
        total = config.identities * config.observations
        # The person's numbers first, so that more pictures of each do not make other people.
        self.people = torch.rand(config.identities, len(IDENTITY), generator=draw).to(device)
        self.pictures = torch.rand(total, len(OBSERVATION), generator=draw).to(device)
        self.noise = NOISE * torch.randn(FIELDS, 3, config.size, config.size, generator=draw).to(device)
        self.label = torch.arange(config.identities, device=device).repeat_interleave(config.observations)
        self.parts = split_by_identity(self.label, config.identities, 0.1, 0.1, config.draw)
        self.spec = DataSpec("image", (3, config.size, config.size))
        self.origin = (
            f"{config.identities:,} invented people, {counted(config.observations, 'picture')} each, drawn on the"
            " device"
        )
        self._drawn = Remembered(self._draw, total, self.spec.shape, device)

    def __len__(self) -> int:
        return len(self.pictures)

    def batch(self, rows: Tensor) -> dict[str, Tensor]:
        """`x` float32 `[n, 3, size, size]` in [0, 1], `label` int64 `[n]`."""
        return {"x": self._drawn(rows), "label": self.label[rows]}

    def _draw(self, rows: Tensor) -> Tensor:
        return draw_faces(self.values(rows), self.config.size, self.noise)

    def values(self, rows: Tensor) -> dict[str, Tensor]:
        """Every number behind the pictures of these rows, float32 `[n]` each, by its name."""
        parts = ((IDENTITY, self.people[self.label[rows]]), (OBSERVATION, self.pictures[rows]))
        return {
            name: low + (high - low) * column
            for ranges, table in parts
            for (name, (low, high)), column in zip(ranges.items(), table.unbind(1), strict=True)
        }

    def traits(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """What can be seen of identity and observation: float32 `[n, identity_names]`, `[n, observation_names]`.

        Skin stands as the shares of the first two tones, hair as its colour's three levels (in place of the jitter
        around it), light as its direction times its strength, the background as the mean of its two colours.
        """
        values = self.values(rows)
        first, second = skin_shares(values)
        hair = 255 * hair_colour(values)
        light_x, light_y = light(values)
        seen = {
            **values,
            "skin_a": first,
            "skin_b": second,
            **{f"hair_{c}": hair[:, i] for i, c in enumerate(("red", "green", "blue"))},
            "light_x": light_x * values["light_strength"],
            "light_y": light_y * values["light_strength"],
            "glasses": (values["glasses"] > 0).float(),
            "grey": (values["grey"] > 0).float(),
            **{f"ground_{c}": (values[f"ground1_{c}"] + values[f"ground2_{c}"]) / 2 for c in ("red", "green", "blue")},
        }
        return tuple(
            torch.stack([seen[n] for n in names], 1) for names in (self.identity_names, self.observation_names)
        )  # type: ignore[return-value]


def skin_shares(values: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Shares of the first two skin tones, uniform over the triangle of all mixtures; the third has the rest."""
    a, b = values["skin_a"], values["skin_b"]
    over = a + b > 1
    return torch.where(over, 1 - a, a), torch.where(over, 1 - b, b)


def hair_colour(values: Mapping[str, Tensor]) -> Tensor:
    """Colour of the hair, float `[n, 3]` in [0, 1]."""
    anchor = _table(HAIR, values["hair_colour"])
    around = torch.stack([values[f"hair_{c}"] for c in ("red", "green", "blue")], 1) / 255
    return (anchor + around).clamp(0, 1)


def light(values: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Where the light comes from, in the plane of the picture: a point of the upper half disc, uniform in it."""
    reach, angle = values["light_reach"].sqrt(), torch.deg2rad(values["light_angle"])
    return reach * angle.cos(), -reach * angle.sin()


def _table(colours: tuple[tuple[int, int, int], ...], at: Tensor) -> Tensor:
    """The colour at each whole number below `at`, `[n, 3]` in [0, 1]. Chosen by weights: nothing is copied to the
    device in a captured step."""
    index = at.floor().clamp(0, len(colours) - 1)
    return torch.stack([sum((index == i) * (c[k] / 255) for i, c in enumerate(colours)) for k in range(3)], 1)  # type: ignore[misc]


class Canvas:
    """Paints shapes one over the other on `[n, 3, size, size]`; distances are in units of [-1, 1]."""

    def __init__(self, ground: Tensor, size: int) -> None:
        self.image, self.pixels = ground, size / 2

    def paint(self, distance: Tensor, colour: Tensor, where: Tensor | None = None) -> None:
        """Cover the inside with `colour` `[n, 3]` or `[n, 3, size, size]`, on the pictures where `where` is 1."""
        cover = shapes.coverage(distance * (self.pixels / SOFT))
        if where is not None:
            cover = cover * where
        shade = colour if colour.dim() == 4 else colour[:, :, None, None]
        self.image = torch.lerp(self.image, shade, cover[:, None])


def draw_faces(values: Mapping[str, Tensor], size: int, noise: Tensor) -> Tensor:
    """The pictures that these numbers describe, float32 `[n, 3, size, size]` in whole 255ths of [0, 1].

    values: float `[n]` by the names of IDENTITY and OBSERVATION. noise: `[fields, 3, size, size]`.
    """
    v = {name: value[:, None, None] for name, value in values.items()}
    device = noise.device
    axis = (torch.arange(size, device=device) + 0.5) * (2 / size) - 1
    x, y = axis[None, None, :], axis[None, :, None]
    turn = torch.deg2rad(v["ground_angle"])
    share = (0.5 + 0.35 * (x * turn.cos() + y * turn.sin())).clamp(0, 1)[:, None]
    first, second = (torch.stack([values[f"ground{i}_{c}"] for c in ("red", "green", "blue")], 1) for i in (1, 2))
    canvas = Canvas(torch.lerp(first[:, :, None, None], second[:, :, None, None], share), size)
    # Into the upright frame of the head.
    roll = torch.deg2rad(v["roll"])
    right, down = (x - v["shift_x"]) / v["scale"], (y - v["shift_y"]) / v["scale"]
    x, y = right * roll.cos() + down * roll.sin(), down * roll.cos() - right * roll.sin()
    face = Face(canvas, v, x, y)
    face.hair_behind(hair_colour(values))
    face.head(_skin(values), hair_colour(values))
    face.features(_table(IRIS, values["iris"]), hair_colour(values))
    image = canvas.image
    grey = 0.299 * image[:, :1] + 0.587 * image[:, 1:2] + 0.114 * image[:, 2:]
    colourful = torch.where(v["grey"][:, None] > 0, 0.0, v["saturation"][:, None])
    image = grey + colourful * (image - grey)
    image = 0.5 + v["contrast"][:, None] * (image - 0.5) + noise[values["noise"].long().clamp(0, len(noise) - 1)]
    return (image.clamp(0, 1) * 255).round() / 255


def _skin(values: Mapping[str, Tensor]) -> Tensor:
    first, second = skin_shares(values)
    shares = (first, second, 1 - first - second)
    mixed = [sum(s * (tone[k] / 255) for s, tone in zip(shares, SKIN, strict=True)) for k in range(3)]
    return torch.stack(mixed, 1)  # type: ignore[arg-type]


class Face:
    """The parts of a face, back to front, in the upright frame x, y `[n, size, size]`; its numbers are `[n, 1, 1]`."""

    def __init__(self, canvas: Canvas, v: Mapping[str, Tensor], x: Tensor, y: Tensor) -> None:
        self.canvas, self.v, self.x, self.y = canvas, v, x, y
        yaw, pitch = torch.deg2rad(v["yaw"]), torch.deg2rad(v["pitch"])
        self.sin, self.narrow, self.short = (yaw.sin(), pitch.sin()), yaw.cos(), pitch.cos()
        low = (y / v["head_height"]).clamp(0, 1)
        self.half = v["head_width"] * (1 - v["jaw"] * low), v["head_height"]

    def at(self, x: Tensor | float, y: Tensor | float, depth: str) -> tuple[Tensor, Tensor]:
        """Where a feature stands that stands at x, y of the face seen from the front."""
        d = DEPTH[depth]
        return x * self.narrow + d * self.sin[0], y * self.short + d * self.sin[1]

    def outline(self, grow: Tensor | float) -> Tensor:
        """Signed distance of the head, a superellipse with a narrower jaw, right to first order; `grow` widens it."""
        p, (a, b) = self.v["squareness"], self.half
        a, b = a + grow, b + grow
        radius = ((self.x / a).abs().clamp_min(1e-4) ** p + (self.y / b).abs().clamp_min(1e-4) ** p) ** (1 / p)
        return (radius - 1) * torch.minimum(a, b)

    def hair_behind(self, hair: Tensor) -> None:
        v = self.v
        self.canvas.paint(torch.maximum(self.outline(v["hair_volume"]), self.y - 0.1), hair)
        half = v["head_width"] + 0.6 * v["hair_volume"]
        long = torch.maximum(self.x.abs() - half, (self.y - v["hair_length"] / 2).abs() - v["hair_length"] / 2)
        self.canvas.paint(long, hair, (v["hair_length"] > 0.05).float())

    def head(self, skin: Tensor, hair: Tensor) -> None:
        """The head in the light: 1 + strength * normal . light, the normal that of an ellipsoid; and hair on top."""
        v, (a, b) = self.v, self.half
        reach, angle = v["light_reach"].sqrt(), torch.deg2rad(v["light_angle"])
        facing = (self.x / a).clamp(-1, 1) * reach * angle.cos() - (self.y / b).clamp(-1, 1) * reach * angle.sin()
        shade = 1 + v["light_strength"] * facing
        outline = self.outline(0.0)
        self.canvas.paint(outline, (skin[:, :, None, None] * shade[:, None]).clamp(0, 1))
        self.shade = shade
        line = v["hair_line"] * self.short + DEPTH["face"] * self.sin[1]
        cap = torch.maximum(self.outline(0.3 * v["hair_volume"]), self.y - line - 0.25 * self.x.square())
        self.canvas.paint(cap, (hair[:, :, None, None] * shade[:, None]).clamp(0, 1))
        for i in (1, 2, 3):
            spot = self.at(v[f"mole{i}_x"] * v["head_width"], 0.2 + 0.6 * v[f"mole{i}_y"] * b, "face")
            self.canvas.paint(shapes.ball((self.x, self.y), spot, 0.022), 0.4 * skin, (v["moles"] >= i).float())

    def features(self, iris: Tensor, hair: Tensor) -> None:
        v, p, n = self.v, (self.x, self.y), len(iris)
        white, dark, lip = (
            torch.stack([torch.full((n,), level, device=iris.device) for level in colour], 1)
            for colour in (WHITE, DARK, LIP)
        )
        tilt = torch.deg2rad(v["brow_tilt"])
        for side in (-1.0, 1.0):
            x, y = self.at(side * v["eye_spacing"], -0.08, "face")
            wide, high = v["eye_size"] * self.narrow, v["eye_size"] * v["eye_aspect"] * v["lids"]
            eye = shapes.ellipsoid(p, (x, y), (wide, high))
            self.canvas.paint(eye, white)
            self.canvas.paint(torch.maximum(eye, shapes.ball(p, (x, y), 0.62 * v["eye_size"])), iris)
            self.canvas.paint(torch.maximum(eye, shapes.ball(p, (x, y), 0.28 * v["eye_size"])), dark)
            top = y - 1.5 * v["eye_size"] - 0.02
            reach, rise = 1.3 * v["eye_size"] * self.narrow, 1.3 * v["eye_size"] * tilt.sin() * side
            self.canvas.paint(
                shapes.capsule(p, (x - reach, top - rise), (x + reach, top + rise), v["brow_thickness"] / 2 + 0.006),
                0.7 * hair,
            )
        self.nose()
        self.mouth(lip, dark)
        self.glasses(dark)

    def nose(self) -> None:
        """A bridge of light and the shadow of the nostrils."""
        v, p = self.v, (self.x, self.y)
        top, tip = self.at(0.0, -0.02, "face"), self.at(0.0, v["nose_length"], "nose")
        distance = shapes.capsule(p, top, tip, 0.02, v["nose_width"] * self.narrow)
        self.canvas.paint(distance, (self.canvas.image * 0.86).clamp(0, 1))
        under = shapes.ellipsoid(p, (tip[0], tip[1] + 0.03), (0.8 * v["nose_width"] * self.narrow, 0.02))
        self.canvas.paint(under, self.canvas.image * 0.6)

    def mouth(self, lip: Tensor, dark: Tensor) -> None:
        """Two lips along a parabola, and what is between them where the mouth is open."""
        v = self.v
        x0, y0 = self.at(0.0, v["mouth_y"], "face")
        half = v["mouth_width"] * self.narrow
        along = (self.x - x0) / half
        middle = y0 - v["smile"] * along.square() + 0.5 * v["smile"]
        thin = (1 - along.square()).clamp_min(0)
        inside = (along.abs() - 1) * half
        lips = torch.maximum((self.y - middle).abs() - (v["lip_thickness"] + v["mouth_open"]) * thin, inside)
        self.canvas.paint(lips, lip)
        self.canvas.paint(torch.maximum((self.y - middle).abs() - v["mouth_open"] * thin - 0.004, inside), dark)

    def glasses(self, dark: Tensor) -> None:
        """Two rings and a bar."""
        v, p = self.v, (self.x, self.y)
        on = (v["glasses"] > 0).float()
        places = [self.at(side * v["eye_spacing"], -0.08, "face") for side in (-1.0, 1.0)]
        radius = 0.13 * self.narrow, torch.full_like(self.narrow, 0.12)
        rings = [shapes.ellipsoid(p, place, radius).abs() - 0.012 for place in places]
        left, right = places
        bar = shapes.capsule(p, (left[0] + radius[0], left[1]), (right[0] - radius[0], right[1]), 0.012)
        self.canvas.paint(torch.minimum(torch.minimum(*rings), bar), dark, on)
