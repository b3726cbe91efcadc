"""Grasps so few that they are made in a second, and trained models of them."""

import numpy as np
import pytest
import torch

from distk.data import open_dataset

TINY = {
    "objects": 4,
    "categories": ("cup", "mug"),
    "scenes": 2,
    "azimuths": 1,
    "size": 32,
    "voxels": 8,
    "demos": 2,
    "kept": 8,
    "per_view": 4,
}
SMALL = {"units": 16, "width": 0.125, "local_size": 8, "local_samples": 6, "samples": 12}


@pytest.fixture(scope="session")
def tiny():
    """The settings of the data, as options of `open_dataset` or of `distk.train`."""
    return TINY


@pytest.fixture(scope="session")
def small():
    """The settings of the model."""
    return SMALL


@pytest.fixture(scope="session")
def grasps():
    """The data set."""
    return open_dataset("grasps", TINY)


@pytest.fixture
def model_of(grasps):
    """`model_of("grasping", views=1)`: an untrained model of `grasps` in eval mode."""
    from distk.settings import resolve

    def build(method="grasping", **settings):
        chosen = resolve(method, options={"model": {**SMALL, **settings}, "data": TINY})
        torch.manual_seed(0)
        return chosen.method(chosen.model, grasps.spec).eval()

    return build


@pytest.fixture
def corner(tmp_path):
    """A folder of two meshes: a box, and a closed surface that is not convex, an L."""
    trimesh = pytest.importorskip("trimesh", reason="trimesh is not installed: pip install 'distk[mesh]'")
    pytest.importorskip("coacd", reason="CoACD is not installed: pip install 'distk[physics]'")
    profile = np.array([[0, 0], [0.06, 0], [0.06, 0.02], [0.02, 0.02], [0.02, 0.06], [0, 0.06]])
    sides = [[i, (i + 1) % 6, 6 + (i + 1) % 6] for i in range(6)] + [[i, 6 + (i + 1) % 6, 6 + i] for i in range(6)]
    flat = [[0, 1, 2], [0, 2, 3], [0, 3, 4], [0, 4, 5]]
    faces = sides + [face[::-1] for face in flat] + [[6 + i for i in face] for face in flat]
    corners = np.concatenate([np.c_[profile, np.zeros(6)], np.c_[profile, np.full(6, 0.05)]])
    folder = tmp_path / "bodies"
    folder.mkdir()
    trimesh.Trimesh(corners, faces).export(folder / "corner.obj")
    trimesh.creation.box((0.04, 0.06, 0.1)).export(folder / "box.obj")
    return folder
