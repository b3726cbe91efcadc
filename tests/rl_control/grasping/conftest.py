"""Grasps so few that they are made in a second, and trained models of them."""

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
