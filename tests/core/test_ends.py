"""The ends of ranges: a batch of one, one row of codes, scores that take long."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch

from distk import evaluation
from distk.metric import CodeTable


def test_a_batch_of_one_is_refused_where_a_method_normalises_over_the_batch(distk_command) -> None:
    code, _, said = distk_command("train", "arae", "--preset", "demo", "--batch", 1, "--steps", 2, "--out", "r")
    assert code == 2
    assert "learns from batches of 2 items or more: use --batch 2" in said


@pytest.mark.parametrize("metric", ["tc", "mig", "dci"])
def test_one_row_of_codes_is_no_table(distk_command, recwarn, metric) -> None:
    np.savez("one.npz", codes=np.ones((1, 3)), factors=np.ones((1, 2)))
    code, _, said = distk_command("eval", "--codes", "one.npz", "--metric", metric)
    assert code == 1
    assert "holds the codes of one item" in said
    assert "Warning" not in said
    assert not list(recwarn)


def test_a_score_that_takes_long_is_named_while_it_does(monkeypatch, capfd) -> None:
    monkeypatch.setattr(evaluation, "SLOW", 0.1)
    monkeypatch.setattr(evaluation, "score", lambda *a: time.sleep(0.4) or {"x": 1.0})
    evaluation.evaluate(CodeTable(torch.rand(20, 3), ["a", "b", "c"], ["continuous"] * 3), ["tc"])
    assert "scoring tc: codes 20 x 3" in capfd.readouterr().err
