"""The metrics `text` (the whole suite) and `transfer` (its quick part, for model selection while training)."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from typing_extensions import TypeVar

from distk import CodeTable, Method, Metric, UsageError, can, option
from distk.meaning import count, higher, lower, neither
from distk.method import eval_mode
from distk.metric import chosen_rows
from distk.plugins.text.common import scores, suite
from distk.plugins.text.common.corpus import SentenceDataset
from distk.plugins.text.common.datasets import StandinReviews
from distk.plugins.text.common.evaluator import Evaluator, Sizes, train_evaluator
from distk.plugins.text.common.tagger import open_tagger

_learnt: weakref.WeakKeyDictionary[SentenceDataset, set[str]] = weakref.WeakKeyDictionary()
_trained: weakref.WeakKeyDictionary[SentenceDataset, dict[Any, Evaluator]] = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class Config:
    """How the rewrites are made and judged."""

    evaluator: str = option(
        "", "file of `distk text train-evaluator`; without it one is trained here, for each seed", place=True
    )
    max_sentences: int = option(0, "test sentences to rewrite; 0: all", min=0)
    unseen: bool = option(False, "leave out sentences that stand word for word in the training split")
    reverse_sentences: int = option(
        50_000, "training sentences, drawn at random, to rewrite for reverse perplexity; 0: leave it out", min=0
    )
    beam: int = option(1, "beams of the search; 1 is greedy", min=1, max=100)
    probes: bool = option(True, "train fresh probes for the label on the codes")
    tagger: str = option("auto", "nouns by: auto, perceptron, textblob, builtin (tags in the data come first)")
    tagger_file: str = option("", "file of `distk text train-tagger`", place=True)
    ppl_no_eos: bool = option(False, "leave the ends of sentences out of the perplexity, as Shen et al.'s program does")
    lm_hidden: int = option(0, "units of the language model; 0: 512, for under 1,000 words 128", min=0, max=8192)
    lm_epochs: int = option(10, "most epochs of the language model", min=1)
    bits: int = option(20, "log2 of the classifier's table", min=4, max=26)


T = TypeVar("T", bound=Config, default=Config)


class TextMetric(Metric[T]):
    """Sentences of the test split, rewritten to another label and judged; all directions pooled.

    Outputs are held against the sentences as they are written, words that the model does not know included. `seen`
    is the share of them that stand word for word in the training split.
    """

    headline = "j"
    numbers = {
        "j": higher(0, 1, what="the smaller of transfer_accuracy and noun_recall"),
        "transfer_accuracy": higher(0, 1, source="Zhao et al. 2017", what="rewrites with the wanted label"),
        "accuracy_to_*": higher(0, 1, what="the same of one direction"),
        "classifier_accuracy": neither(0, 1, what="of the judge on real sentences"),
        "bleu": higher(0, 100, what="with the source"),
        "perplexity": lower(1),
        "real_perplexity": neither(1, what="of real sentences"),
        "reverse_perplexity": lower(1, what="of real sentences under a model of rewrites"),
        "reverse_sentences": count("sentences"),
        "content": higher(0, 1),
        "noun_recall": higher(0, 1),
        "no_noun": neither(0, 1, what="sentences without a noun"),
        "copy_rate": lower(0, 1),
        "mean_length": neither(0, unit="words"),
        "distinct2": higher(0, 1, what="different pairs of words"),
        "empty": lower(0, 1),
        "unknown": lower(0, 1, what="words that the model does not know"),
        "seen": neither(0, 1, what="sentences that stand in the training split"),
        "sentences": count("sentences"),
        "reconstruction": higher(0, 1),
        "reconstruction_unseen": higher(0, 1),
        "oracle_accuracy": higher(0, 1),
        "exact_match": higher(0, 1),
        "content_f1": higher(0, 1),
        "probe_*": lower(0, 1, what="the label, read from codes"),
    }
    repeats = 3
    needs_model = True
    needs_codes = False
    split: ClassVar[str] = "test"
    quick: ClassVar[bool] = False

    def compute(self, table: CodeTable, seed: int) -> Mapping[str, Any]:
        """See `suite.judge`; with reverse perplexity, reconstruction and probes, and on the stand-in gold scores.

        A part that these data do not allow is left out, and `reasons` says why.
        """
        model, data = table.model, table.dataset
        if model is None or not isinstance(data, SentenceDataset) or not can(model, "rewrite"):
            raise UsageError("this metric scores models that rewrite sentences, on data of sentences.")
        if tuple(data.spec.classes) != tuple(model.spec.classes):
            raise UsageError(f"the data has the labels {data.spec.classes}, the model {model.spec.classes}.")
        evaluator = self._evaluator(data, seed)
        rows = self._rows(table, data)
        known = seen(data, rows)
        rewrites = self._rewrite(model, data, rows)
        result = suite.judge(rewrites, evaluator)
        result["seen"] = float(known.double().mean())
        result |= self._reconstructed(model, rewrites, known)
        result |= _gold(data, rewrites)
        parts: dict[str, Callable[[], dict[str, Any]]] = {}
        if not self.quick and self.config.reverse_sentences:
            parts["reverse_perplexity"] = lambda: self._reverse(model, data, evaluator, rewrites, seed)
        if not self.quick and self.config.probes and can(model, "encode") and "code" in [g.name for g in model.latents]:
            parts["probe_linear"] = lambda: probes(model, data, seed)
        for name, part in parts.items():
            try:
                result |= part()
            except (UsageError, ValueError) as error:
                result.setdefault("reasons", {})[name] = str(error)
        return result

    def _reconstructed(self, model: Method, rewrites: suite.Rewrites, known: Tensor) -> dict[str, float]:
        """Share of sentences that come back word for word under their own label: of all, and of those not seen.

        A method whose rewrites change a sentence even then has a `restore` beside `rewrite`.
        """
        if hasattr(model, "restore"):
            lines: list[str] = model.restore([" ".join(s) for s in rewrites.sources], self.config.beam)  # type: ignore[operator]
            again = [line.split(" ") if line else [] for line in lines]
        else:
            again = _by_label(model, rewrites.sources, rewrites.source, rewrites.source, self.config.beam)
        right = torch.tensor([o == s for o, s in zip(again, rewrites.sources, strict=True)], dtype=torch.float64)
        result = {"reconstruction": float(right.mean())}
        if bool(known.any()) and not bool(known.all()):
            result["reconstruction_unseen"] = float(right[~known].mean())
        return result

    def _evaluator(self, data: SentenceDataset, seed: int) -> Evaluator:
        config = self.config
        if config.evaluator:
            evaluator = Evaluator.load(Path(config.evaluator), data.device)
            if evaluator.classes != tuple(data.spec.classes):
                raise UsageError(f"the evaluator judges {evaluator.classes}, the data has {data.spec.classes}.")
            return evaluator
        sizes = Sizes(config.bits, 2, config.lm_hidden, config.lm_epochs, not config.ppl_no_eos)
        kept = _trained.setdefault(data, {})
        key = (sizes, seed, self.quick)
        if key not in kept:
            kept[key] = train_evaluator(data, sizes, seed, with_lm=not self.quick)
        return kept[key]

    def _rows(self, table: CodeTable, data: SentenceDataset) -> Tensor:
        """The rows of the table that are of this metric's split, or all of them where none is."""
        own = data.rows_of(self.split)
        rows = own if table.rows is None else own[torch.isin(own, table.rows)]
        if not len(rows) and table.rows is not None:
            rows = table.rows[data.label[table.rows] >= 0]
        if self.config.unseen:
            rows = rows[~seen(data, rows).to(rows.device)]
            if not len(rows):
                raise UsageError("every one of these sentences stands in the training split, so none is unseen.")
        limit = self.config.max_sentences
        if limit and limit < len(rows):
            order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))[:limit].sort().values
            rows = rows[order.to(rows.device)]
        return rows

    def _rewrite(self, model: Method, data: SentenceDataset, rows: Tensor) -> suite.Rewrites:
        sources, label = data.written(rows), data.label[rows].tolist()
        target = other_labels(label, len(data.spec.classes))
        nouns, tagger = data.nouns(rows), "data"
        if nouns is None:
            found = open_tagger(self.config.tagger, self.config.tagger_file)
            nouns, tagger = suite.tag_nouns(sources, found), found.name
        outputs = _by_label(model, sources, label, target, self.config.beam)
        return suite.Rewrites(sources, outputs, label, target, nouns, tagger)

    def _reverse(
        self, model: Method, data: SentenceDataset, evaluator: Evaluator, rewrites: suite.Rewrites, seed: int
    ) -> dict[str, Any]:
        train = chosen_rows(data, "train", self.config.reverse_sentences, seed)
        sources, label = data.written(train), data.label[train].tolist()
        target = other_labels(label, len(data.spec.classes))
        outputs = _by_label(model, sources, label, target, self.config.beam)
        dev = data.words(data.rows_of("dev"))
        return suite.reverse(evaluator, outputs, rewrites.sources, dev, seed)


@dataclass(frozen=True)
class QuickConfig(Config):
    """As `text`, with fewer sentences."""

    max_sentences: int = option(1000, "sentences to rewrite; 0: all", min=0)
    bits: int = option(18, "log2 of the classifier's table", min=4, max=26)


class TransferMetric(TextMetric[QuickConfig]):
    """Accuracy and content on the dev split alone: cheap enough for `--eval-every` and `--keep best:transfer`."""

    repeats = 1
    split = "dev"
    quick = True
    numbers = {
        key: number
        for key, number in TextMetric.numbers.items()
        if not key.endswith("perplexity") and not key.startswith("probe")
    }


def seen(data: SentenceDataset, rows: Tensor) -> Tensor:
    """Which sentences stand word for word in the training split, whatever their label there; bool `[n]` on the host."""
    if data not in _learnt:
        train = data.rows("train") if "train" in data.splits else None
        _learnt[data] = set() if train is None else {" ".join(words) for words in data.written(train)}
    known = _learnt[data]
    return torch.tensor([" ".join(words) in known for words in data.written(rows)], dtype=torch.bool)


def other_labels(label: list[int], classes: int) -> list[int]:
    """For each sentence a label that it does not have, all others in turn."""
    return [(y + 1 + i % (classes - 1)) % classes for i, y in enumerate(label)]


def _by_label(
    model: Method, sources: list[list[str]], source: list[int], target: list[int], beam: int
) -> list[list[str]]:
    """Rewrites of sentences whose targets differ, one for one."""
    outputs: list[list[str]] = [[] for _ in sources]
    for to in sorted(set(target)):
        rows = [i for i, t in enumerate(target) if t == to]
        known = [source[i] for i in rows]
        # A source label that equals the target is the reconstruction, not an oversight of the user: no need to say so.
        given = None if known == [to] * len(rows) else known
        lines = model.rewrite([" ".join(sources[i]) for i in rows], to, source=given, beam=beam, tokenize=False)
        for i, line in zip(rows, lines, strict=True):
            outputs[i] = line.split(" ") if line else []
    return outputs


def _gold(data: SentenceDataset, rewrites: suite.Rewrites) -> dict[str, float]:
    if not isinstance(data, StandinReviews):
        return {}
    n = max(1, len(rewrites.outputs))
    said = sum(data.oracle(o) == t for o, t in zip(rewrites.outputs, rewrites.target, strict=True))
    result = {"oracle_accuracy": said / n}
    if data.config.label_from == "sentiment":
        polar = {w for w in data.vocab.tokens if data.polar(w)}
        result |= scores.against_gold(rewrites.outputs, [data.gold(s) for s in rewrites.sources], polar)
    return result


@torch.no_grad()
def _codes(model: Method, data: SentenceDataset, rows: Tensor) -> tuple[np.ndarray, np.ndarray]:
    code = [model.encode(data.batch(part)["x"])["code"].flatten(1) for part in rows.split(512)]
    return torch.cat(code).cpu().numpy(), data.label[rows].cpu().numpy()


def probes(model: Method, data: SentenceDataset, seed: int, n: int = 4000) -> dict[str, float]:
    """How well fresh classifiers read the label from codes of sentences they have not seen: linear, and two layers.

    Of training and of test split `n` sentences are drawn: files are sorted by label, so the first ones are no sample.

    The adversary's own accuracy proves nothing: it may only be too slow.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier

    with eval_mode(model):
        x, y = _codes(model, data, chosen_rows(data, "train", n, seed))
        held, truth = _codes(model, data, chosen_rows(data, "test", n, seed))
    if len(np.unique(y)) < 2:
        raise UsageError("the training sentences have one label only, so no probe can be fitted.")
    x, held = (np.asarray((v - x.mean(0)) / (x.std(0) + 1e-6), dtype=np.float64) for v in (x, held))
    linear = LogisticRegression(max_iter=1000).fit(x, y)
    layers = MLPClassifier((128,), early_stopping=True, max_iter=50, random_state=seed).fit(x, y)
    return {"probe_linear": float(linear.score(held, truth)), "probe_mlp": float(layers.score(held, truth))}
