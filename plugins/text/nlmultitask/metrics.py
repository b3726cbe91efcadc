"""Scores of multi-task autoencoders: perplexity of every decoder, clustering by syntax, interpolation, arithmetic."""

from __future__ import annotations

import math
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from distk import CodeTable, Metric, UsageError, option
from distk.console import progress
from distk.meaning import count, higher, lower, neither
from distk.plugins.text.common.base import CorpusDataset
from distk.plugins.text.common.vocab import UNK
from distk.plugins.text.nlmultitask.clustering import Clustering, cluster
from distk.plugins.text.nlmultitask.data import VARIANTS, StandinTrilingual
from distk.plugins.text.nlmultitask.grammar import GRAMMAR
from distk.plugins.text.nlmultitask.method import NlMultitask
from distk.plugins.text.nlmultitask.prototypes import SHORT, populated, triples, words_of
from distk.plugins.text.nlmultitask.reading import parse

OTHER_SYMBOLS = 0.5
"""Share of a column's symbols that a model may not know before the column is called another one."""
_learnt: weakref.WeakKeyDictionary[CorpusDataset, frozenset[str]] = weakref.WeakKeyDictionary()


def behind(table: CodeTable, metric: str) -> tuple[NlMultitask, CorpusDataset]:
    """Model and data of a table. Raises UsageError for a model of another method."""
    if not isinstance(table.model, NlMultitask) or not isinstance(table.dataset, CorpusDataset):
        raise UsageError(f"the metric '{metric}' scores models of nlmultitask, on data of sentences.")
    return table.model, table.dataset


def scored_rows(table: CodeTable, data: CorpusDataset, limit: int) -> Tensor:
    """The table's rows of the test split, or all of them where none is; at most `limit`, by a fixed draw."""
    own = data.rows_of("test" if "test" in data.splits else "all")
    rows = own if table.rows is None else own[torch.isin(own, table.rows)]
    rows = table.rows if not len(rows) and table.rows is not None else rows
    if limit and limit < len(rows):
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))[:limit].sort().values
        rows = rows[order.to(rows.device)]
    return rows


def training_words(data: CorpusDataset) -> frozenset[str]:
    """Every word of the training sentences, in lower case."""
    if data not in _learnt:
        rows = data.rows_of("train" if "train" in data.splits else "all")
        found: set[str] = set()
        for part in rows.split(4096):
            for symbols in data.written(part):
                found.update(words_of(data.vocab.join(symbols)))
        _learnt[data] = frozenset(found)
    return _learnt[data]


# Perplexity


@dataclass(frozen=True)
class PerplexityConfig:
    """How many sentences."""

    max_sentences: int = option(0, "test sentences; 0: all", min=0)
    batch: int = option(256, "sentences at a time", min=1)


class Perplexity(Metric[PerplexityConfig]):
    """exp of the cross-entropy per symbol of each decoder, the true symbols before it as input (section 3.4).

    `<eos>` is a symbol. REP, DE and FR count characters, POS counts tags, so their figures do not compare.
    `NAME_unknown` is the share of a decoder's targets that the model has no symbol for.
    """

    headline = "rep"
    numbers = {
        "rep": lower(1, source="Brunner et al. 2018, section 3.4", what="per character"),
        "de": lower(1, what="per character"),
        "fr": lower(1, what="per character"),
        "pos": lower(1, what="per tag"),
        "*_unknown": lower(0, 1, what="targets without a symbol"),
        "sentences": count("sentences"),
    }
    needs_model = True
    needs_codes = False

    @torch.no_grad()
    def compute(self, table: CodeTable, seed: int) -> Mapping[str, Any]:
        model, data = behind(table, "perplexity")
        rows = scored_rows(table, data, self.config.max_sentences)
        there = [name for name in model.config.decoders if name == "rep" or name in data.columns]
        sums = {name: torch.zeros(3, dtype=torch.float64, device=model.device) for name in there}
        with progress("measuring perplexity", len(rows)) as advance:
            for part in rows.split(self.config.batch):
                batch = data.batch(part)
                code = model.represent(batch["x"])
                for name in there:
                    target = model.target(batch, name)
                    loss, count = model.nll(name, target, code)
                    sums[name] += torch.stack([loss.double(), count.double(), (target == UNK).sum().double()])
                advance(len(part))
        result: dict[str, Any] = {"sentences": len(rows), "reasons": {}}
        for name, found in sums.items():
            loss, count, unknown = found.tolist()
            result[name] = math.exp(loss / count) if count else math.nan
            result[f"{name}_unknown"] = unknown / max(1, count)
            if unknown > OTHER_SYMBOLS * max(1, count):
                result[name] = math.nan
                result["reasons"][name] = _other_symbols(model, data, rows, name)
        for name in set(model.config.decoders) - set(there):
            result["reasons"][name] = f"these data have no column '{name}'"
        return result


def _other_symbols(model: NlMultitask, data: CorpusDataset, rows: Tensor, name: str) -> str:
    """Why a decoder cannot be scored on a column that is written in other symbols."""
    column = "x" if name == "rep" else name
    seen = sorted({symbol for words in data.written(rows[:200], column) for symbol in words})[:5]
    known = sorted(model.alphabets[name].tokens[4:])[:5]
    hint = "; --set tags=xpos reads the other tags of a treebank" if name == "pos" else ""
    return (
        f"column '{column}' is written in other symbols ({', '.join(seen)} ...) than the model's ({', '.join(known)} "
        f"...){hint}"
    )


# Clustering


@dataclass(frozen=True)
class ClusteringConfig:
    """The experiment of section 4.1."""

    per_prototype: int = option(100, "sentences of each prototype", paper="100", min=2)
    restarts: int = option(100, "runs of K-means", paper="100", min=1)
    standardize: bool = option(False, "every dimension of the code to variance 1 before clustering")


class SyntaxClustering(Metric[ClusteringConfig]):
    """Clustering error of sentences of 14 prototypes, in sentences: 0 is best, a constant code errs in 13 of them.

    best: the smallest error of the runs, which knows the prototypes; it stands in the paper's tables. lowest_inertia:
    of the run that K-means itself prefers. hungarian: that run with a prototype of its own for every cluster. median:
    of all runs. best_short, lowest_inertia_short: of prototypes 1 to 7 alone, which are about as long as each other.
    unseen_words: share of the words that the training sentences do not have. cut: sentences that are longer than the
    model reads.
    """

    headline = "lowest_inertia"
    numbers = {
        "lowest_inertia": lower(0, unit="sentences", what="of the run that K-means prefers"),
        "best": lower(0, unit="sentences", source="Brunner et al. 2018", form="authors", what="of the luckiest run"),
        "median": lower(0, unit="sentences"),
        "hungarian": lower(0, unit="sentences", what="with a kind of its own for every cluster"),
        "*_short": lower(0, unit="sentences", what="of kinds of about one length"),
        "unseen_words": neither(0, 1),
        "cut": count("sentences", "longer than the model reads"),
        "sentences": count("sentences"),
    }
    needs_model = True
    needs_codes = False

    def compute(self, table: CodeTable, seed: int) -> Mapping[str, Any]:
        model, data = behind(table, "syntax-clustering")
        config = self.config
        found = prototypes_clustered(model, config.per_prototype, config.restarts, seed, config.standardize)
        return {**found.summary(), "unseen_words": unseen_words(found.lines, data), "sentences": len(found.lines)}


@dataclass(frozen=True)
class Prototypes:
    """Sentences of the 14 prototypes and their clusters. lines: the sentences. kinds: int64 `[n]`. codes: `[n, d]`.
    whole, short: of all of them, and of prototypes 1 to 7 alone. cut: how many are longer than the model reads."""

    lines: list[str]
    kinds: Tensor
    codes: Tensor
    whole: Clustering
    short: Clustering
    cut: int

    def summary(self) -> dict[str, float]:
        """The errors, in sentences, and `cut`."""
        short = self.short.summary()
        found = {"best_short": short["best"], "lowest_inertia_short": short["lowest_inertia"]}
        return {**self.whole.summary(), **found, "cut": float(self.cut)}


def prototypes_clustered(
    model: NlMultitask, each: int, restarts: int, seed: int, standardize: bool = False
) -> Prototypes:
    """The experiment of section 4.1: `each` sentences of every prototype, and `restarts` runs of K-means."""
    lines, kinds = populated(each, seed)
    codes, kind = model.codes(lines), torch.tensor(kinds)
    whole = cluster(codes, kind, restarts, seed, standardize)
    few = kind < SHORT
    short = cluster(codes[few.to(codes.device)], kind[few], restarts, seed, standardize)
    cut = sum(len(model.vocab.words(line)) > model.vocab.max_len for line in lines)
    return Prototypes(lines, kind, codes, whole, short, cut)


def unseen_words(lines: Sequence[str], data: CorpusDataset) -> float:
    """Share of the words that the training sentences do not have."""
    known, words = training_words(data), [word for line in lines for word in words_of(line)]
    return sum(word not in known for word in words) / max(1, len(words))


# Interpolation and arithmetic


@dataclass(frozen=True)
class InterpolationConfig:
    """How many pairs and points."""

    pairs: int = option(1000, "random pairs of test sentences", min=1)
    points: int = option(5, "points between the ends", paper="5", min=1, max=100)


class SentenceInterpolation(Metric[InterpolationConfig]):
    """What the REP decoder writes between two sentences (section 4.2), the ends left out.

    known_words: share of its words that the training sentences have. parsed: share of the outputs that the stand-in's
    grammar can read, for models of the stand-in.
    """

    headline = "known_words"
    numbers = {
        "known_words": higher(0, 1),
        "parsed": higher(0, 1, what="outputs that the grammar reads"),
        "empty": lower(0, 1),
        "outputs": count("outputs"),
    }
    needs_model = True
    needs_codes = False

    def compute(self, table: CodeTable, seed: int) -> Mapping[str, Any]:
        model, data = behind(table, "sentence-interpolation")
        rows = scored_rows(table, data, 0)
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))[: 2 * self.config.pairs]
        rows = rows[order.to(rows.device)]
        half = len(rows) // 2
        if not half:
            raise UsageError("interpolation needs two test sentences.")
        codes = model.codes(data.lines(rows[: 2 * half]))
        share = torch.linspace(0, 1, self.config.points + 2, device=codes.device)[1:-1]
        between = model.latents.between({"code": codes[:half]}, {"code": codes[half:]}, share)
        lines = model.lines(between["code"])
        known, words = training_words(data), [word for line in lines for word in words_of(line)]
        result: dict[str, Any] = {
            "known_words": sum(word in known for word in words) / len(words) if words else math.nan,
            "empty": sum(not line for line in lines) / len(lines),
            "outputs": len(lines),
        }
        if isinstance(data, StandinTrilingual) and data.main == "en":
            result["parsed"] = sum(parse(line) is not None for line in lines) / len(lines)
        return result


@dataclass(frozen=True)
class ArithmeticConfig:
    """How many triples."""

    triples: int = option(1000, "triples of sentences", min=1)


class SentenceArithmetic(Metric[ArithmeticConfig]):
    """Is s1 - s2 + s3 the sentence s3 with the word in which s1 differs from s2 (section 4.3)?

    Sentences of the stand-in's grammar and words: s1 and s2 differ in one word, s3 has the word of s2 in another kind
    of sentence. exact: share of outputs that are s3 with the word of s1. words: share of the words that are at their
    place. unchanged: share of outputs that are s3 itself. reconstructed: share of the sentences s3 that the model
    writes again as they are, without which nothing can be exact.
    """

    headline = "words"
    numbers = {
        "words": higher(0, 1, what="at their place"),
        "exact": higher(0, 1, source="Brunner et al. 2018, section 4.3"),
        "unchanged": lower(0, 1),
        "reconstructed": higher(0, 1, what="without which nothing can be exact"),
        "triples": count("triples"),
    }
    needs_model = True
    needs_codes = False

    def compute(self, table: CodeTable, seed: int) -> Mapping[str, Any]:
        model, data = behind(table, "sentence-arithmetic")
        frames: Sequence[int] = range(len(GRAMMAR))
        if isinstance(data, StandinTrilingual):
            frames = VARIANTS[data.config.variant][1]
        asked = triples(self.config.triples, seed, frames)
        first, second, third = (
            model.codes(lines)
            for lines in ([t.first for t in asked], [t.second for t in asked], [t.third for t in asked])
        )
        written, again = model.lines(first - second + third), model.lines(third)
        n = len(asked)
        return {
            "exact": sum(line == t.gold for line, t in zip(written, asked, strict=True)) / n,
            "words": sum(placed(line, t.gold) for line, t in zip(written, asked, strict=True)) / n,
            "unchanged": sum(line == t.third for line, t in zip(written, asked, strict=True)) / n,
            "reconstructed": sum(line == t.third for line, t in zip(again, asked, strict=True)) / n,
            "triples": n,
        }


def placed(line: str, gold: str) -> float:
    """Share of words that two sentences have at one place, of those of the longer one."""
    one, other = words_of(line), words_of(gold)
    return sum(a == b for a, b in zip(one, other, strict=False)) / max(1, len(one), len(other))
