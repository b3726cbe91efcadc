"""What is learnt in a small run, and what the ablations do not learn."""

import pytest

import distk

# `--preset demo`, 1,200 steps of batch 64, seed 0, CPU, scores on held-out transitions:
MEASURED = "see docs/methods/dyncontent.md"


def scores(folder, method="dyncontent", **options):
    run = distk.train(method, preset="demo", steps=1200, seed=0, device="cpu", quiet=True, out=folder, **options)
    model = distk.load(run.checkpoint, "cpu")
    found = distk.evaluate(model, ["planar-table", "latent-map"], runs=1, horizon=1)["metrics"]
    return {**found["planar-table"], **found["latent-map"]}


@pytest.fixture(scope="module")
def learnt(tmp_path_factory):
    return scores(tmp_path_factory.mktemp("runs") / "run")


@pytest.mark.slow
def test_prediction_and_one_map_for_both_sets(learnt):
    assert learnt["prediction_x"] <= 33
    assert learnt["prediction_y"] <= 45
    assert learnt["alignment"] <= 0.15
    assert learnt["leak_z"] <= 0.6
    assert learnt["content_w"] >= 0.9
