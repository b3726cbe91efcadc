"""Whether a grasp holds, by physics: MuJoCo closes the fingers, lifts by 15 cm and looks what is still between them.

Needs distk[physics]. Runs on the host, grasp after grasp. Objects are convex pieces: of shells, 16 sectors of each
piece of wall; of solids, a frustum of each piece of the profile; of handles and spouts, capsules; of meshes what CoACD
(Wei et al. 2022) cuts them into. The joint that lifts, the fingers and the object have nine degrees of freedom.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distk.errors import UsageError
from distk.plugins.rl_control.grasping.bodies import Bodies, Grids, Shapes
from distk.plugins.rl_control.grasping.gripper import FINGER, OPENING, PALM, TOUCH

SECTORS = 16
DENSITY, LIGHTEST, HEAVIEST = 600.0, 0.1, 0.5
"""kg/m^3 of all objects, within these masses, kg."""
FORCE = 20.0
CLOSING, LIFTING, HOLDING, RAMP = 150, 250, 75, 25
HEIGHT, HELD = 0.15, 0.075
"""How far the gripper is lifted, and how far the object must have risen, metres."""

Ring = list[tuple[float, float]]

FRAME = """<mujoco>
<option timestep="0.002" cone="elliptic" impratio="10" integrator="implicitfast"/>
<default><geom condim="4" friction="0.6 0.01 0.0001" solref="0.004 1" density="{density}"/></default>
<asset>{meshes}</asset>
<worldbody>
<geom name="table" type="plane" size="2 2 0.1" contype="1" conaffinity="0"/>
<body name="object"><freejoint/>{pieces}</body>
<body name="lift" gravcomp="1"><joint name="lift" type="slide" axis="0 0 1" damping="50"/>
<body name="hand" gravcomp="1">
<geom name="palm" type="box" size="{palm}" pos="0 0 {below}" mass="0.7" contype="2" conaffinity="1"/>
<body name="right" gravcomp="1"><joint name="right" type="slide" axis="-1 0 0" range="0 {reach}" limited="true"/>
<geom name="right" type="box" size="{finger}" pos="{side} 0 {middle}" mass="0.1" contype="2" conaffinity="1"/></body>
<body name="left" gravcomp="1"><joint name="left" type="slide" axis="1 0 0" range="0 {reach}" limited="true"/>
<geom name="left" type="box" size="{finger}" pos="-{side} 0 {middle}" mass="0.1" contype="2" conaffinity="1"/></body>
</body></body>
</worldbody>
<equality><joint joint1="left" joint2="right" polycoef="0 1 0 0 0"/></equality>
<actuator>
<position joint="lift" kp="2000" kv="200"/>
<motor joint="right" ctrlrange="-{force} {force}"/><motor joint="left" ctrlrange="-{force} {force}"/>
</actuator>
</mujoco>"""


def mujoco() -> Any:
    """The package. Raises UsageError, saying how to install it, where it is missing."""
    try:
        import mujoco as package
    except ImportError as error:
        raise UsageError(
            "--labels mujoco needs MuJoCo: pip install 'distk[physics]'; --labels quasistatic needs nothing."
        ) from error
    return package


def pieces(polygon: np.ndarray) -> list[np.ndarray]:
    """Convex pieces whose union is a solid of revolution: (r, z) `[k, 2]`, without padding -> corners `[m, 3]` each.

    A profile that ends on the axis below its top is a shell, whose wall lies between its first and its second half.
    """
    ring = [(float(r), float(z)) for r, z in polygon]
    turn = 2 * math.pi / SECTORS
    # Half of a chord lies inside of the circle, half outside.
    fit = 2 / (1 + math.cos(math.pi / SECTORS))

    def at(r: float, z: float, sector: int) -> tuple[float, float, float]:
        return r * fit * math.cos(turn * sector), r * fit * math.sin(turn * sector), z

    def frustum(low: tuple[float, float], high: tuple[float, float]) -> np.ndarray:
        return np.array([at(r, z, s) for r, z in (low, high) for s in range(SECTORS if r > 0 else 1)])

    if ring[-1][1] >= max(z for _, z in ring) - 1e-9:
        return [frustum(a, b) for a, b in pairwise(ring) if b[1] - a[1] > 1e-6 and max(a[0], b[0]) > 0]
    half = (len(ring) - 2) // 2
    outer, inner = ring[1 : 1 + half], ring[1 + half : 1 + 2 * half][::-1]
    found = [frustum((outer[0][0], 0.0), (outer[0][0], ring[-1][1]))]
    for (a, b), (c, d) in zip(pairwise(outer), pairwise(inner), strict=True):
        corners = list(dict.fromkeys((a, b, c, d)))
        for s in range(SECTORS):
            found.append(np.array([at(r, z, t) for t in (s, s + 1) for r, z in corners]))
    return found


def model_of(parts: Sequence[np.ndarray], cones: np.ndarray) -> Any:
    """The compiled scene of one object: corners of its convex pieces `[m, 3]` each, and round cones `[c, 8]`."""

    def words(values: Any) -> str:
        return " ".join(f"{v:.6g}" for v in np.asarray(values, float).ravel())

    bits = 'contype="4" conaffinity="3"'
    meshes = "".join(f'<mesh name="p{i}" vertex="{words(part)}"/>' for i, part in enumerate(parts))
    geoms = "".join(f'<geom type="mesh" mesh="p{i}" {bits}/>' for i in range(len(parts)))
    geoms += "".join(
        f'<geom type="capsule" fromto="{words(c[:6])}" size="{(c[6] + c[7]) / 2:.6g}" {bits}/>' for c in cones
    )
    package = mujoco()
    model = package.MjModel.from_xml_string(
        FRAME.format(
            meshes=meshes, pieces=geoms, density=DENSITY, force=FORCE, reach=OPENING / 2,
            palm=words([v / 2 for v in PALM]), below=-PALM[2] / 2,
            finger=words([v / 2 for v in FINGER]), side=OPENING / 2 + FINGER[0] / 2, middle=FINGER[2] / 2,
        )
    )  # fmt: skip
    body = package.mj_name2id(model, package.mjtObj.mjOBJ_BODY, "object")
    mass = float(model.body_mass[body])
    scale = min(max(mass, LIGHTEST), HEAVIEST) / mass
    model.body_mass[body] *= scale
    model.body_inertia[body] *= scale
    package.mj_setConst(model, package.MjData(model))
    return model


def _made_of(one: Shapes) -> tuple[list[np.ndarray], np.ndarray]:
    """Convex pieces of a single object, and round cones. Raises UsageError where they are not known."""
    if isinstance(one, Bodies):
        return pieces(one.polygon[0].cpu().numpy()), one.cones[0].cpu().numpy()
    if not isinstance(one, Grids) or one.pieces is None:
        raise UsageError(
            "MuJoCo needs objects in convex pieces, which these have not: make them anew by `distk grasping make-data "
            "--meshes DIR --labels mujoco`, or take --labels quasistatic."
        )
    parts = [piece for piece in one.pieces[0].cpu().numpy() if (piece != piece[:1]).any()]
    return parts, np.zeros((0, 8), np.float32)


class Physics:
    """An engine: objects and poses -> whether each grasp holds. Models are compiled once for each object."""

    def __init__(self) -> None:
        self.package = mujoco()
        self.models: dict[bytes, Any] = {}

    def __call__(self, shapes: Shapes, which: Tensor, pose: Tensor) -> Tensor:
        """Objects int64 `[n]`, gripper poses in their frames `[n, 4, 4]` -> bool `[n]`.

        Raises UsageError for meshes whose convex pieces are not known.
        """
        found = []
        for index, own in zip(which.tolist(), pose.double().cpu().numpy(), strict=True):
            one = shapes.only(index)
            parts, cones = _made_of(one)
            key = b"".join(array.tobytes() for array in (*parts, cones))
            if key not in self.models:
                self.models[key] = model_of(parts, cones)
            found.append(self.holds(self.models[key], own))
        return torch.tensor(found, dtype=torch.bool, device=pose.device)

    def holds(self, model: Any, pose: np.ndarray) -> bool:
        """One grasp `[4, 4]`: no contact while open, the object lifted and between both fingers in the end."""
        package, data = self.package, self.package.MjData(model)
        hand = package.mj_name2id(model, package.mjtObj.mjOBJ_BODY, "hand")
        quaternion = np.zeros(4)
        package.mju_mat2Quat(quaternion, np.ascontiguousarray(pose[:3, :3]).ravel())
        model.body_pos[hand], model.body_quat[hand] = pose[:3, 3], quaternion
        package.mj_resetData(model, data)
        package.mj_forward(model, data)
        if self._touching(model, data, -TOUCH):
            return False
        data.ctrl[1:] = FORCE
        package.mj_step(model, data, CLOSING)
        for done in range(RAMP, LIFTING + 1, RAMP):
            data.ctrl[0] = HEIGHT * done / LIFTING
            package.mj_step(model, data, RAMP)
        package.mj_step(model, data, HOLDING)
        if not np.isfinite(data.qpos).all():
            return False
        return bool(data.qpos[2] > HELD) and {"left", "right"} <= self._touching(model, data, 0.0)

    def _touching(self, model: Any, data: Any, depth: float) -> set[str]:
        """Parts of the gripper in a contact deeper than `depth` (negative: inside)."""
        package, found = self.package, set()
        for contact in data.contact[: data.ncon]:
            if contact.dist >= depth:
                continue
            for geom in (contact.geom1, contact.geom2):
                name = package.mj_id2name(model, package.mjtObj.mjOBJ_GEOM, geom)
                if name in ("palm", "left", "right"):
                    found.add(name)
        return found
