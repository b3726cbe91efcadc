"""skewed: what is drawn against the weights by hand, combinations that never come, scores on the full grid."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from distk import Files, UsageError
from distk.data import open_dataset
from distk.plugins.datasets.skewed import Skewed


def opened(**options: str) -> Skewed:
    made = open_dataset("skewed", {"of": "blobs", **options})
    assert isinstance(made, Skewed)
    return made


def test_frequencies_follow_the_weights(generator: torch.Generator) -> None:
    """Blobs lie on a grid of 32 x 32 positions: every row's weight by hand, chi-square over the rows."""
    data = opened(correlate="posX,posY:0.2", weights="posX:" + ",".join(["1"] * 16 + ["3"] * 16))
    n = 200_000
    counts = torch.bincount(data.sample_rows(n, generator, "train"), minlength=len(data)).double().numpy()
    x, y = np.divmod(np.arange(1024), 32)
    expected = np.exp(-((x / 31 - y / 31) ** 2) / (2 * 0.2**2)) * np.where(x < 16, 1, 3)
    expected *= n / expected.sum()
    often = expected > 5
    chi = ((counts - expected)[often] ** 2 / expected[often]).sum()
    degrees = often.sum() - 1
    assert abs(chi - degrees) < 6 * (2 * degrees) ** 0.5
    assert "posX in the proportion 1,1," in data.origin
    assert data.parts == {}
    seen = np.corrcoef(np.repeat(x, counts.astype(int)), np.repeat(y, counts.astype(int)))[0, 1]
    assert float(data.origin.split("training by ")[1][:4]) == pytest.approx(seen, abs=0.01)


def test_held_out_combinations_never_come(generator: torch.Generator) -> None:
    data = open_dataset("skewed", {"of": "dsprites", "without": "shape=heart,posX=16-31; scale=5"})
    drawn = data.sample(4000, generator)["factors"]
    assert not bool(((drawn[:, 0] == 2) & (drawn[:, 3] >= 16)).any())
    assert not bool((drawn[:, 1] == 5).any())
    assert {tuple(row) for row in drawn[:, [0, 1]].tolist()} == {(a, b) for a in range(3) for b in range(5)}
    unseen = data.factors(data.rows_of("test"))
    assert bool((((unseen[:, 0] == 2) & (unseen[:, 3] >= 16)) | (unseen[:, 1] == 5)).all())
    share = 1 - (5 / 6) * (1 - 1 / 6)
    assert len(unseen) == pytest.approx(share * len(data), abs=0.5)
    assert f"{share:.1%} of the combinations are never seen" in data.origin
    assert len(data.rows_of("train")) + len(unseen) == len(data)


def test_a_weight_of_zero_is_never_drawn(generator: torch.Generator) -> None:
    data = opened(weights="posX:" + ",".join(["0"] * 31 + ["1"]))
    rows = data.sample_rows(5000, generator, "train")
    assert set(data.factors(rows)[:, 0].tolist()) == {31}
    assert len(data.rows_of("test")) == 31 * 32


def test_splits_of_the_data_stay_as_they_are(generator: torch.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a set with splits of its own only training rows are kept back, and they are a split of their own."""
    inner = open_dataset("blobs")
    rows = torch.arange(1024)
    inner.parts = {"train": rows[rows % 4 > 1], "test": rows[rows % 4 == 0], "validation": rows[rows % 4 == 1]}
    monkeypatch.setattr(Files, "open", lambda files, name, **how: inner)
    data = opened(without="posX=0-7")
    assert data.splits == ("train", "test", "validation", "unseen")
    assert torch.equal(data.rows_of("test"), inner.parts["test"])
    assert torch.equal(data.rows_of("validation"), inner.parts["validation"])
    kept = data.rows_of("unseen")
    assert torch.equal(kept, inner.parts["train"][inner.parts["train"] < 8 * 32])
    assert torch.equal(torch.cat([kept, data.rows_of("train")]).sort().values, inner.parts["train"])
    drawn = data.sample_rows(12_000, generator, "train")  # of 384 rows: none is left out but once in 10^11
    assert set(drawn.tolist()) == set(data.rows_of("train").tolist())
    assert "25.0% of the combinations are never seen in training: 'unseen'" in data.origin
    assert opened(correlate="posX,posY:0.5").splits == ("train", "test", "validation")


def test_scores_see_the_full_grid() -> None:
    data = opened(correlate="posX,posY:0.1")
    assert data.is_grid
    assert data.rows("all") is None
    plain = open_dataset("blobs")
    rows = torch.tensor([0, 77, 1023])
    assert torch.equal(data.batch(rows)["x"], plain.batch(rows)["x"])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"correlate": "posX,posZ:0.2"}, "unknown factor 'posZ' of 'blobs' in --correlate"),
        ({"correlate": "posX,posY"}, "no number"),
        ({"correlate": "posX:0.2"}, "two factors"),
        ({"correlate": "posX,posX:0.2"}, "two factors"),
        ({"correlate": "posX,posY:-1"}, "two factors"),
        ({"weights": "posX:1,2"}, "needs 32 numbers"),
        ({"weights": "posX:a,b"}, "no number"),
        ({"without": "posX=32"}, "write 0 to 31"),
        ({"without": "posX=5-2"}, "write 0 to 31"),
        ({"without": "posX=0-31"}, "nothing of 'blobs' is left"),
        ({"of": "digits"}, "every combination"),
    ],
)
def test_refusals(options: dict[str, str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        open_dataset("skewed", {"of": "blobs", **options})
