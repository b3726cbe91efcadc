"""What `distk eval` prints beside its numbers: each reason once, the headline first."""

from __future__ import annotations

import pytest

from distk.commands.scoretable import show

CONSTANT = "factor 'scale' is constant: dropped"
LEFT = "discrete code left out: its indices are not quantities"


def test_a_reason_is_said_once_and_the_headline_comes_first(capsys: pytest.CaptureFixture[str]) -> None:
    metrics = {
        "factorvae": {"codes_used": 4.0, "train": 0.75, "eval": 0.5, "reasons": {"factor 'scale'": CONSTANT}},
        "mig": {"mig": 0.25, "reasons": {"mig": CONSTANT, "mig_per_factor": CONSTANT}},
        "irs": {"irs": 0.125, "reasons": {"d": LEFT, "irs": "irs of three codes"}},
    }
    show({"all": {"metrics": metrics, "provenance": {}}}, {}, every=False)
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert [line for line in lines if CONSTANT in line] == [f"factorvae, mig: {CONSTANT}"]
    assert f"irs, d: {LEFT}" in lines  # the code's name is no part of the sentence that begins with its letter
    assert "irs: irs of three codes" in lines
    assert out.index("0.5") < out.index("0.75")
