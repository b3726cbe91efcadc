"""Pictures of what the locally linear models know: plans on the plane, rollouts, and the map (Figure 3)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from distk import images, look
from distk.console import counted
from distk.plugins.rl_control.dyncontent.data import Planar
from distk.plugins.rl_control.dyncontent.planning import Drive
from distk.study.tables import windowless, write_figure


def paths(path: Path, world: Planar, drives: dict[str, Drive]) -> None:
    """The true way of every run between the obstacles, a panel per set; a cross is a goal, a ring the end of a run."""
    figure, axes = windowless(1, len(drives), look.COLUMN / len(drives), 2.2 if len(drives) > 1 else 3.4)
    for axis, (name, run) in zip(axes[0], drives.items(), strict=True):
        axis.imshow(1 - world.background.float().cpu().numpy(), cmap="gray", vmin=-0.6, vmax=1)
        for states, good in zip(run.states.cpu().numpy(), run.success.tolist(), strict=True):
            axis.plot(states[:, 1], states[:, 0], lw=1, color="tab:blue" if good else "tab:red", alpha=0.6)
            axis.plot(*states[-1, ::-1], "o", mfc="none", color="tab:blue" if good else "tab:red", ms=5)
        goals = run.goal.cpu().numpy()
        axis.plot(goals[:, 1], goals[:, 0], "kx", ms=6)
        share = float(run.success.float().mean())
        axis.set_title(f"set {name}: {share:.0%} of {len(run.states)} arrive,\ncost {float(run.cost.mean()):.1f}")
        axis.set_xlabel("column (pixels)")
        axis.set_ylabel("row (pixels)")
    write_figure(path, figure)


def film(path: Path, drives: dict[str, Drive]) -> None:
    """GIF of the first run of each set, side by side."""
    frames = [run.frames[0] for run in drives.values() if run.frames is not None]
    wide = torch.cat([torch.nn.functional.pad(f, (0, 2), value=0.5) for f in frames], -1)
    images.save_gif(path, images.enlarge(wide, 160), 0.15)


def latent_map(path: Path, place: Tensor, codes: dict[str, Tensor]) -> None:
    """The states of the plane, and their codes from each set, every state in one colour throughout (Figure 3a)."""
    where = place.cpu().numpy()
    span = (where - where.min(0)) / (where.max(0) - where.min(0))
    colour = np.column_stack([span[:, 0], 0.35 + 0 * span[:, 0], span[:, 1]])
    across = min(2, 1 + len(codes))
    figure, grid = windowless(-(-(1 + len(codes)) // across), across, look.COLUMN / across, 1.7)
    axes = grid.flatten().tolist()
    for axis in axes[1 + len(codes) :]:
        axis.set_axis_off()
    axes[0].scatter(where[:, 1], where[:, 0], s=2, c=colour)
    axes[0].invert_yaxis()
    axes[0].set_title(counted(len(where), "state"))
    axes[0].set(xlabel="column (pixels)", ylabel="row (pixels)")
    shown = {name: z.cpu().numpy() for name, z in codes.items()}
    both = np.concatenate(list(shown.values()))
    # More than two dimensions: the two main axes of all codes together.
    centre = both.mean(0)
    axes_of = np.linalg.svd(both - centre, full_matrices=False)[2][:2].T if both.shape[1] > 2 else np.eye(both.shape[1])
    flat = {name: (z - centre) @ axes_of + centre[: axes_of.shape[1]] for name, z in shown.items()}
    flat = {name: z if z.shape[1] == 2 else np.column_stack([z, np.zeros(len(z))]) for name, z in flat.items()}
    ends = np.concatenate(list(flat.values()))
    for axis, (name, z) in zip(axes[1:], flat.items(), strict=False):
        axis.scatter(z[:, 0], z[:, 1], s=2, c=colour)
        low, high = ends.min(0), ends.max(0)
        room = 0.05 * (high - low) + 1e-3
        axis.set_xlim(low[0] - room[0], high[0] + room[0])
        axis.set_ylim(low[1] - room[1], high[1] + room[1])
        axis.set_title(f"codes of set {name}" + (" (main axes)" if both.shape[1] > 2 else ""))
    write_figure(path, figure)
