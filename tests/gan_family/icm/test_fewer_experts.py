"""Fewer experts than mechanisms, in several replicas."""

from __future__ import annotations

import numpy as np
import torch

from distk.data import open_dataset
from distk.plugins.gan_family.icm.method import ICM, Config
from distk.plugins.gan_family.icm.metrics import transfer


def test_a_mechanism_that_one_replica_has_no_expert_for_is_left_out_of_that_replica_alone() -> None:
    data = open_dataset("digits", {"size": 16})
    torch.manual_seed(0)
    config = Config(mechanisms=("right:2", "up:2", "invert"), experts=2, replicas=2, width=2, hidden=8)
    model = ICM(config, data.spec).eval()
    expert_of = np.array([[0, 1, -1], [-1, 0, 1]])
    with torch.no_grad():
        found = transfer(model, data, expert_of, 6, 0)
    errors = found["transfer_mse_per_mechanism"]
    assert np.isnan(errors).tolist() == [[False, False, True], [True, False, False]]
    # the second replica's expert 1 is the fourth of all: its error by hand
    x = data.sample(6, torch.Generator().manual_seed(0), "test")["x"]
    with torch.no_grad():
        restored = model.experts.subset([3])(1 - x)[:, 0]
    assert np.isclose(errors[1, 2], float((restored - x).square().mean()), rtol=1e-5)
