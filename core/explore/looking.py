"""A trained model as a page shows it: what can be moved, and what the model makes of what was moved.

Everything is asked of `Method`'s own protocol (latents, `encode`, `decode`, `changed`, `interpolate`, `tokens`,
`rewrite`), so that it serves every method. What there is to read is read when an `Explorer` is made; answering reads
nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from distk.checkpoint import Header
from distk.console import clean, counted
from distk.errors import NotServed, UsageError
from distk.explore.shown import shown
from distk.explore.wish import Start, Wish
from distk.latents import Code, Latent
from distk.method import Method, can
from distk.traversal import Known, class_of, move, start_of, values_of

MOST = 512
"""Sliders and classes of one group that a page gets."""
KEPT = 32
"""Starts whose code and pictures are kept."""


@dataclass(frozen=True)
class Started:
    """A code `[1, ...]` of all groups, and what it looks like. source: the item itself, or None."""

    code: Code
    source: dict[str, Any] | None
    decoded: dict[str, Any]


class Explorer:
    """Answers what a page asks about one model.

    model: in eval mode. header: of its checkpoint. items: a batch of some items of data, as `Dataset.items` gives it,
    or None; rows: their numbers in the data. known: what is known of the codes of the data. notes: sentences for the
    page, such as why there are no items.
    Raises NotServed, saying why, for a model of which nothing can be shown.
    """

    def __init__(
        self,
        model: Method,
        header: Header,
        items: Mapping[str, Tensor] | None = None,
        rows: list[int] | None = None,
        known: Known = Known(),
        notes: tuple[str, ...] = (),
    ) -> None:
        if reason := unfit(model, header):
            raise NotServed(reason)
        self.model, self.header, self.known = model, header, known
        self.items = None if items is None or not can(model, "encode") else items
        self.rows = list(rows or ()) if self.items is not None else []
        self.notes = list(notes)
        self._started = lru_cache(KEPT)(self._start)
        self.draws = self._can_draw()
        self.reads = can(model, "tokens") and can(model, "encode")
        if not (self.rows or self.draws or self.reads):
            raise NotServed(f"there is nothing to start from: {' '.join(self.notes) or 'no item and no prior.'}")

    def _can_draw(self) -> bool:
        if not self.model.drawable:
            lacking = ", ".join(group.name for group in self.model.latents if group.prior == "none")
            self.notes.append(f"Nothing can be drawn: the code '{lacking}' has no prior.")
            return False
        try:
            self._started(Start(draw=0))
        except UsageError as error:
            self.notes.append(f"Nothing can be drawn: {error}")
            return False
        return True

    # What there is

    def plan(self) -> dict[str, Any]:
        """Everything that the page shows before anything was moved, as plain values."""
        model = self.model
        sliders, left_out = self._sliders()
        swaps = [] if "swap" in model.instead else [group.name for group in model.latents]
        notes = [*self.notes, *left_out]
        if "swap" in model.instead and "traverse" not in model.instead:
            notes.append(f"Groups of the code are not exchanged here: see `{model.instead['swap']}`.")
        return {
            "method": self.header.method,
            "step": self.header.step,
            "data": clean(str(self.header.data.get("name", ""))),
            "kind": model.spec.kind,
            "first": self._first(),
            "items": [{"row": row, **shown(model, self._item(i)["x"], still=True)} for i, row in enumerate(self.rows)],
            "draws": self.draws,
            "reads": self.reads,
            "sliders": sliders,
            "classes": [self._classes(group) for group in self._walked() if group.kind == "categorical"],
            "swaps": swaps if len(swaps) > 1 else [],
            "encoded": [group.name for group in model.latents.encoded],
            "labels": list(map(clean, model.spec.classes)) if can(model, "rewrite") else [],
            "notes": notes,
        }

    def _first(self) -> dict[str, Any]:
        """Where the page begins."""
        return {"item": 0} if self.rows else {"draw": 0} if self.draws else {"sentence": ""}

    def _walked(self) -> list[Latent]:
        return [group for group in self.model.latents if group.walked]

    def _sliders(self) -> tuple[list[dict[str, Any]], list[str]]:
        """A slider for each dimension that is walked, the most informative first, and what is left out."""
        if words := self.model.instead.get("traverse"):
            return [], [f"One number of this code alone says little, so there are no sliders: see `{words}`."]
        numeric = [(group, i) for group in self._walked() if group.kind != "categorical" for i in range(group.size)]
        numeric.sort(key=lambda pair: -self.known.rank(*pair))
        rest = len(numeric) - MOST
        note = [f"{counted(rest, 'more dimension')}, which say the least, have no slider."] if rest > 0 else []
        return [self._slider(group, i) for group, i in numeric[:MOST]], note

    def _slider(self, group: Latent, i: int) -> dict[str, Any]:
        values = sorted(values_of(self.model, group, i, 10, None, self.known).tolist())
        informs = self.known.rank(group, i) if self.known.kl else None
        return {
            "name": f"{group.name}{i + 1}",
            "group": group.name,
            "place": i,
            "low": values[0],
            "high": values[-1],
            "values": values if group.kind == "ordinal" else [],
            "shifted": group.shifted,
            "kl": informs,
        }

    def _classes(self, group: Latent) -> dict[str, Any]:
        model = self.model
        names: tuple[str, ...] = getattr(model, "class_names", tuple)()
        if len(names) != group.size:
            names = model.spec.classes if len(model.spec.classes) == group.size and group.name == "label" else ()
        told = [clean(str(name)) for name in names] or [str(k) for k in range(group.size)]
        return {"group": group.name, "names": told[:MOST]}

    # What the model makes of a wish

    @torch.no_grad()
    def show(self, wish: Wish) -> dict[str, Any]:
        """What the page shows for a wish: `start`, `other`, `made` as `shown` gives them, and the code's values.

        Raises UsageError for a wish of what the model does not have.
        """
        started = self._started(wish.start)
        other = None if wish.other is None else self._started(wish.other)
        code = self._together(started.code, wish, other)
        for name, row in wish.moves.items():
            code = self._moved(code, name, row)
        for name, k in wish.classes.items():
            code = self._classed(code, name, k)
        answer = {"start": vars_of(started), "made": shown(self.model, self.model.decode(code)), **self._values(code)}
        return answer if other is None else {**answer, "other": vars_of(other)}

    @torch.no_grad()
    def rewrite(self, sentence: str, to: int) -> dict[str, Any]:
        """A sentence with another label, as the method's own transfer makes it. Raises UsageError where it has none."""
        model = self.model
        if not can(model, "rewrite"):
            raise UsageError(f"method '{self.header.method}' rewrites no sentences.")
        if to >= len(model.spec.classes):
            raise UsageError(f"there is no label {to}; labels are 0 to {len(model.spec.classes) - 1}.")
        settings = {}
        if getattr(model, "needs_source", False) and hasattr(model, "label_of"):
            settings["source"] = model.label_of([sentence])  # type: ignore[operator]
        return {"kind": "text", "text": clean(model.rewrite([sentence], to, **settings)[0])}

    def _item(self, i: int) -> dict[str, Tensor]:
        """The batch of one item; what is not one row per item is left out. Raises UsageError for another number."""
        if self.items is None or not 0 <= i < len(self.rows):
            raise UsageError(f"there is no item {i}; {len(self.rows)} were read when the page was started.")
        held = {name: value for name, value in self.items.items() if isinstance(value, Tensor) and value.dim()}
        return {name: value[i : i + 1] for name, value in held.items() if len(value) == len(self.rows)}

    @torch.no_grad()
    def _start(self, start: Start) -> Started:
        model, source = self.model, None
        if start.item is not None:
            batch = self._item(start.item)
            code, source = start_of(model, batch), shown(model, batch["x"])
        elif start.sentence is not None:
            if not self.reads:
                raise UsageError(f"method '{self.header.method}' reads no sentences.")
            x = model.tokens([start.sentence])
            code, source = start_of(model, {"x": x}), shown(model, x)
        else:
            if not model.drawable:
                raise UsageError("nothing can be drawn: the code has no prior.")
            code = start_of(model, None, start.draw or 0)
        return Started(code, source, shown(model, model.decode(code)))

    def _together(self, code: Code, wish: Wish, other: Started | None) -> Code:
        """The code on its way to the other one, with the groups that are taken from that."""
        if other is None:
            if wish.share or wish.swapped:
                raise UsageError("there is no second code to take from.")
            return code
        if wish.share:
            share = torch.tensor([wish.share], device=self.model.device)
            code = self.model.interpolate(code, other.code, share)
        for name in wish.swapped:
            self.model.latents[name]  # an unknown one ends here
            only_drawn = name not in {group.name for group in self.model.latents.encoded}
            if only_drawn and (wish.start.draw is None or wish.other is None or wish.other.draw is None):
                raise UsageError(f"items are not encoded to '{name}', so they cannot exchange it: take two draws.")
            code = self.model.changed({**code, name: other.code[name]}, name)
        return code

    def _moved(self, code: Code, name: str, row: Mapping[int, float]) -> Code:
        """The code with some dimensions of one group at other values."""
        group = self._own(code, name)
        if group.kind == "categorical":
            raise UsageError(f"'{name}' has classes and no numbers: name it in 'classes'.")
        value = code[name].clone()
        for place, number in row.items():
            if place >= group.size:
                raise UsageError(f"'{name}' has the dimensions 0 to {group.size - 1}, not {place}.")
            move(value[..., place], torch.tensor(number, dtype=value.dtype, device=value.device), group)
        return self.model.changed({**code, name: value}, name)

    def _classed(self, code: Code, name: str, k: int) -> Code:
        group = self._own(code, name)
        if group.kind != "categorical":
            raise UsageError(f"'{name}' has no classes.")
        if k >= group.size:
            raise UsageError(f"'{name}' has the classes 0 to {group.size - 1}, not {k}.")
        return self.model.changed({**code, name: class_of(group, k, code)}, name)

    def _own(self, code: Code, name: str) -> Latent:
        """A group by name. Raises UsageError for one that is not there, or follows from what was changed before."""
        group = self.model.latents[name]
        if name not in code:
            raise UsageError(f"'{name}' is made of a group that was changed, so it cannot be moved beside that.")
        return group

    def _values(self, code: Code) -> dict[str, Any]:
        """Where sliders and classes stand: of a code with a value per time step their mean; a shift begins at 0."""
        values, classes = {}, {}
        walks = "traverse" not in self.model.instead
        for group in self._walked():
            if group.name not in code or (group.kind != "categorical" and not walks):
                continue
            held = code[group.name][0].float()
            held = held.mean(0) if group.steps else held
            if group.kind == "categorical":
                classes[group.name] = int(held.argmax())
            elif group.shifted:
                values[group.name] = [0.0] * group.size
            else:
                values[group.name] = [float(v) for v in held.tolist()]
        return {"values": values, "classes": classes}


def vars_of(started: Started) -> dict[str, Any]:
    """What is shown of a start."""
    return {"source": started.source, "decoded": started.decoded}


def unfit(model: Method, header: Header) -> str:
    """Why nothing of a model can be looked at, in a sentence; empty where something can."""
    if can(model, "decode"):
        return ""
    words = next((model.instead[key] for key in ("explore", "traverse", "swap", "sample") if key in model.instead), "")
    told = f"method '{header.method}' has no decoder that makes an item of a code, so there is nothing to move"
    return f"{told}: use `{words}`." if words else f"{told}: use `distk embed` and `distk eval`."
