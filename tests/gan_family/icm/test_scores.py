"""The score `icm` of experts whose work is known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from distk.data import open_dataset
from distk.plugins.gan_family.icm.method import ICM, Config
from distk.plugins.gan_family.icm.metrics import Config as ScoreConfig
from distk.plugins.gan_family.icm.metrics import ICMScore

IMAGES = 60


class Known(ICM):
    """Expert 1 takes inverted images, whose border is bright, `share` of the way back; expert 0 leaves the rest."""

    share = 1.0

    def restore(self, x: Tensor) -> tuple[Tensor, Tensor]:
        inverted = x[:, 0, 0].mean(1) > 0.5
        back = torch.where(inverted.view(-1, 1, 1, 1), x + self.share * (1 - 2 * x), x)
        return back.unsqueeze(1), inverted.long().unsqueeze(1)


@pytest.mark.parametrize(("share", "inverted", "left"), [(1.0, 1.0, 0.0), (0.3, 1.0, 0.49), (0.29, 0.0, 0.5041)])
def test_mechanisms_count_as_inverted_below_half_their_error(share: float, inverted: float, left: float) -> None:
    """share of the way: the error that is left is (1 - share)^2 of that before, which crosses a half at 0.2929."""
    data = open_dataset("digits28", {"size": 16})
    model = Known(Config(mechanisms=("right:2", "invert"), width=2, hidden=8), data.spec).eval()
    model.share = share
    with torch.no_grad():
        score = ICMScore(ScoreConfig(images=IMAGES, classifier_steps=0, generalise=""))
        found = score._all(model, data, 0)
    assert found["mechanisms_inverted"] == inverted
    assert found["mse_per_mechanism"][0, 1] == pytest.approx(left * found["mse_before_per_mechanism"][1], rel=1e-4)
    assert found["mse_per_mechanism"][0, 0] == pytest.approx(found["mse_before_per_mechanism"][0])
    assert found["specialised"] == 2
    assert found["one_to_one"] == 1
