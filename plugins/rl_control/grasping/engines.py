"""What says whether a grasp holds: the quasi-static rule, or physics."""

from __future__ import annotations

from distk.errors import UsageError
from distk.plugins.rl_control.grasping import gripper
from distk.plugins.rl_control.grasping.generator import Label
from distk.plugins.rl_control.grasping.physics import Physics


def engine(name: str) -> Label:
    """The engine of a name.

    Raises UsageError for labels that cannot be made anew, such as those of people, and where mujoco is not installed.
    """
    if name == "quasistatic":
        return gripper.holds
    if name == "mujoco":
        return Physics()
    raise UsageError(f"grasps labelled by '{name}' were tried in the world, so no others can be tried here.")
