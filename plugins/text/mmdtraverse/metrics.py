"""The metric `mmd`: what becomes of codes that are moved to another label's cloud."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from distk import CodeTable, Metric, UsageError, option
from distk.console import counted
from distk.meaning import count, higher, neither
from distk.method import eval_mode
from distk.metric import chosen_rows
from distk.plugins.text.common.corpus import SentenceDataset
from distk.plugins.text.common.vocab import UNK, lengths
from distk.plugins.text.mmdtraverse.examples import topics
from distk.plugins.text.mmdtraverse.method import MMDTraverse
from distk.plugins.text.mmdtraverse.solver import distances


@dataclass(frozen=True)
class Config:
    """What is moved, and what a topic is."""

    topics: tuple[str, ...] = option(("movie", "phone"), "words that name the topics", paper="movie,phone")
    max_sentences: int = option(2000, "sentences of the test split that are moved; 0: all", min=0)
    neighbours: int = option(5, "unmoved codes that say by majority which topic a moved one has", min=1, max=999)


class Read(NamedTuple):
    """Sentences as the model reads them. ids: `[n, T]`. code: `[n, h]`. read, label: int64 `[n]`, the model's label and
    the data's."""

    ids: Tensor
    code: Tensor
    read: Tensor
    label: Tensor


class Moves(Metric[Config]):
    """Sentences of the test split, each moved from the label that the model reads to another one.

    accuracy, accuracy_train: of the classifier on codes. flip: share of moved codes that it gives the wanted label.
    topic_kept: share of moved codes whose nearest unmoved ones, their own source aside, have the source's topic; only
    sentences with exactly one of the topics' words count. witness_before, witness_after: mean f* of z and of z*. move:
    mean |z* - z|. nearest: share of moved codes whose nearest example has the wanted label. exact, exact_short,
    exact_long: share of unmoved codes that are written as they were read, of all and up to and beyond the median
    length.
    """

    headline = "flip"
    numbers = {
        "flip": higher(0, 1, source="Larsson et al. 2017", what="moved codes with the wanted label"),
        "nearest": higher(0, 1, what="whose nearest example has the wanted label"),
        "accuracy": higher(0, 1, what="of the classifier on codes"),
        "accuracy_train": neither(0, 1, what="the same in training"),
        "topic_kept": higher(0, 1),
        "topic_sentences": count("sentences"),
        "sentences": count("sentences"),
        "witness_*": neither(),
        "move": neither(0, what="mean |z* - z|"),
        "exact*": higher(0, 1, what="unmoved codes written as they were read"),
    }
    needs_model = True
    needs_codes = False

    def compute(self, table: CodeTable, seed: int) -> Mapping[str, Any]:
        """See the class; a part that these data do not allow is left out, and `reasons` says why."""
        model, data = table.model, table.dataset
        if not isinstance(model, MMDTraverse) or not isinstance(data, SentenceDataset):
            raise UsageError("this metric scores models of mmdtraverse, on data of sentences.")
        if tuple(data.spec.classes) != tuple(model.spec.classes):
            raise UsageError(f"the data has the labels {data.spec.classes}, the model {model.spec.classes}.")
        with eval_mode(model), torch.no_grad():
            here = read(model, data, self._rows(table, data, seed))
            result: dict[str, Any] = {"sentences": len(here.ids), "reasons": {}}
            result["accuracy"] = float((here.read == here.label).double().mean())
            if "train" in data.splits:
                learnt = read(model, data, chosen_rows(data, "train", len(here.ids), seed))
                result["accuracy_train"] = float((learnt.read == learnt.label).double().mean())
            result |= self._moved(model, here, result["reasons"])
            result |= self._written(model, here, result["reasons"])
        if not result["reasons"]:
            del result["reasons"]
        return result

    def _rows(self, table: CodeTable, data: SentenceDataset, seed: int) -> Tensor:
        """Rows of the table that are of the split, or all of the table where none is; at most `max_sentences`."""
        own = data.rows_of("test")
        rows = own if table.rows is None else own[torch.isin(own, table.rows)]
        if not len(rows) and table.rows is not None:
            rows = table.rows
        rows = rows[data.label[rows] >= 0]
        if not len(rows):
            raise UsageError("none of these sentences has a label.")
        limit = self.config.max_sentences
        if limit and limit < len(rows):
            order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))[:limit].sort().values
            rows = rows[order.to(rows.device)]
        return rows

    def _moved(self, model: MMDTraverse, here: Read, reasons: dict[str, str]) -> dict[str, float]:
        labels, clouds = len(model.spec.classes), model.clouds()
        turn = torch.arange(len(here.ids), device=here.ids.device) % (labels - 1)
        wanted = (here.read + 1 + turn) % labels  # of several other labels each in turn
        f = model.witness(here.ids, here.read, wanted, clouds)
        z, found = model.moved(here.code, f, model.cost(f))
        nearest = clouds.label[distances(z.double(), clouds.code).argmin(1)]
        result = {
            "flip": float((model.classifier(z).argmax(1) == wanted).double().mean()),
            "nearest": float((nearest == wanted).double().mean()),
            "witness_before": float(found.before.mean()),
            "witness_after": float(f(z.double()).mean()),  # with `clamp_z` z* is not z + u
            "move": float((z - here.code).norm(dim=1).mean()),
        }
        try:
            result |= self._topics(model, here, z)
        except UsageError as error:
            reasons["topic_kept"] = str(error)
        return result

    def _topics(self, model: MMDTraverse, here: Read, moved: Tensor) -> dict[str, float]:
        """Of sentences with one topic: how often the nearest unmoved codes have it, too."""
        if len(set(self.config.topics)) < 2:
            raise UsageError("a topic can be kept or lost only where there are two: --topics movie,phone.")
        topic = topics(here.ids, model.vocab, self.config.topics)
        rows = (topic >= 0).nonzero()[:, 0]
        k, topic = self.config.neighbours, topic[rows]
        if len(rows) <= k:
            raise UsageError(
                f"{len(rows)} of the sentences have one of the topics, too few for {counted(k, 'neighbour')}."
            )
        apart = distances(moved[rows].double(), here.code[rows].double())
        apart.fill_diagonal_(torch.inf)
        votes = topic[apart.topk(k, largest=False).indices]
        kept = torch.stack([(votes == t).sum(1) for t in range(len(self.config.topics))], 1)
        return {"topic_kept": float((kept.argmax(1) == topic).double().mean()), "topic_sentences": len(rows)}

    def _written(self, model: MMDTraverse, here: Read, reasons: dict[str, str]) -> dict[str, float]:
        """Sentences written from their own codes; one with a word that the model does not know is never exact."""
        again = torch.cat([model.write(part) for part in here.code.split(512)])
        exact = ((again == here.ids) & (here.ids != UNK)).all(1).double()
        size = lengths(here.ids)
        long = size > size.median()
        if not bool(long.any()):
            reasons["exact_long"] = "no sentence is longer than the median."
            return {"exact": float(exact.mean()), "exact_short": float(exact.mean())}
        short, beyond = float(exact[~long].mean()), float(exact[long].mean())
        return {"exact": float(exact.mean()), "exact_short": short, "exact_long": beyond}


def read(model: MMDTraverse, data: SentenceDataset, rows: Tensor) -> Read:
    """Rows of a data set with their codes."""
    parts = []
    for some in rows.split(512):
        batch = data.batch(some)
        code = model.encode(batch["x"])
        parts.append(Read(batch["x"], code["code"], code["label"].argmax(1), batch["label"]))
    return Read(*(torch.cat(held) for held in zip(*parts, strict=True)))
