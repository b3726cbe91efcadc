"""The errors of what stops early, samples, or lays a grid are those that are claimed; see `approximations.py`."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest


def _approximations() -> Any:
    spec = importlib.util.spec_from_file_location("approximations", Path(__file__).with_name("approximations.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


TABLE = _approximations()


@pytest.mark.parametrize("one", TABLE.APPROXIMATIONS, ids=lambda one: one.name)
def test_the_error_is_what_is_claimed(one: Any) -> None:
    """On the seeds for which the claim was made: another draw of hard codes is another error."""
    found = {kind: one.error(kind, 0) for kind in one.kinds}
    assert max(found.values()) <= one.allowed, found
