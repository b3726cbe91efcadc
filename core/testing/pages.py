"""Conformance of what `distk explore` shows of a method: everything on its page is moved once, without a browser."""

from __future__ import annotations

import json
from typing import Any

from distk.checkpoint import Header
from distk.explore.looking import Explorer, unfit
from distk.explore.wish import Start, Wish
from distk.method import Method, can
from distk.training.trainer import Trainer

ITEMS = 2
"""Items of the data that the page gets."""
FEW = 3
"""Sliders, and classes of a group, that are moved."""


def check_page(trainer: Trainer) -> None:
    """Raise AssertionError, or what the method raises, where a page of this method would fail."""
    model, dataset = trainer.model.eval(), trainer.dataset
    items, rows = None, list[int]()
    if can(model, "encode") and can(model, "decode"):
        chosen = dataset.rows_of("test")[:ITEMS].to(dataset.device)
        items, rows = dataset.items(chosen), chosen.tolist()
    header = Header(type(model).__name__.lower(), {}, {"name": dataset.name}, trainer.index, 0)
    if unfit(model, header):  # a sentence says why
        return
    explorer = Explorer(model, header, items, rows)
    plan = explorer.plan()
    assert plan["items"] or plan["draws"] or plan["reads"], "the page has nothing to start from"
    json.dumps(plan, allow_nan=False)
    starts = [Start(item=i) for i in range(len(rows))]
    starts += [Start(draw=seed) for seed in range(2) if plan["draws"]]
    starts += [Start(sentence=model.text(items["x"])[0])] if plan["reads"] and items is not None else []
    for start in starts:
        other = Start(item=1) if start.item is not None and len(rows) > 1 else start
        for wish in _wishes(model, plan, start, other):
            told = explorer.show(wish)
            json.dumps(told, allow_nan=False)
            assert told["made"]["kind"] == told["start"]["decoded"]["kind"], "what was moved is of another kind"


def _wishes(model: Method, plan: dict[str, Any], start: Start, other: Start) -> list[Wish]:
    """The start itself, and everything that can be moved from it, one at a time."""
    wishes = [Wish(start), Wish(start, other, share=0.5)]
    wishes += [Wish(start, moves={s["group"]: {s["place"]: s["high"]}}) for s in plan["sliders"][:FEW]]
    wishes += [Wish(start, classes={c["group"]: k}) for c in plan["classes"] for k in range(len(c["names"]))[:FEW]]
    given = plan["swaps"] if start.draw is not None else [name for name in plan["swaps"] if name in plan["encoded"]]
    return [*wishes, *(Wish(start, other, swapped=(name,)) for name in given)]
