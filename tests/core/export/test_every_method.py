"""Every registered method: its halves become files that give what it gives, or a sentence says why not."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from distk.checkpoint import Header
from distk.device import Ranks
from distk.errors import DistkError
from distk.export.making import CLOSE, export
from distk.export.parts import What
from distk.method import Method, can
from distk.registry import registry
from distk.settings import resolve
from distk.training.beginning import build

METHODS = [entry.name for entry in registry().entries("method") if entry.distribution == "distk"]
_path = Path(__file__).parents[1] / "test_conformance.py"
_spec = importlib.util.spec_from_file_location("conformance", _path)
assert _spec is not None
conformance: Any = importlib.util.module_from_spec(_spec)
assert _spec.loader is not None
_spec.loader.exec_module(conformance)


def small(name: str) -> Method:
    """An untrained model on its smallest data, in eval mode, that knows its data."""
    cls = registry().find("method", name).load()
    train = {"batch": 8, "device": "cpu", "steps": 0 if cls.closed_form else 2, "eval": (), "keep": "", "log": ()}
    options = {"data": conformance.SMALLER.get(name, {}), "train": train}
    trainer = build(
        resolve(name, preset="demo" if "demo" in cls.presets else None, options=options), torch.device("cpu"), Ranks()
    )
    trainer.initialise()
    model = trainer.model.eval()
    model.opens = lambda: trainer.dataset
    return model


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("form", ["torch.export", "onnx"])
def test_each_half_is_a_file_or_the_reason_is_a_sentence(name: str, form: str) -> None:
    if form == "onnx":
        pytest.importorskip("onnxscript", reason="the extra onnx is not installed: pip install 'distk[onnx]'")
        pytest.importorskip("onnxruntime", reason="the extra onnx is not installed: pip install 'distk[onnx]'")
    model = small(name)
    halves: list[What] = [w for w, ability in (("encoder", "encode"), ("decoder", "decode")) if can(model, ability)]  # type: ignore[misc]
    assert halves or name == "icm"
    page = (Path(__file__).parents[3] / "docs" / "export.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([\w-]+)` \| (encoder|decoder|both) \| (\S+) \|", page, re.MULTILINE)
    cannot = {method: half for method, half, formats in rows if formats in ("all", form)}
    assert len(rows) > 5
    for what in halves:
        expected = cannot.get(name) not in (what, "both")
        if not expected:
            with pytest.raises(DistkError, match=f"the {what} of method '{name}' cannot be exported as {form}: "):
                export(model, Header(name, {}, {}, 0, 0), what, form)
            continue
        assert export(model, Header(name, {}, {}, 0, 0), what, form).difference <= CLOSE
