"""Clustering errors by hand and against scikit-learn, perplexity one symbol at a time, triples and prototypes."""

from __future__ import annotations

import itertools
import math
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from torch import Tensor

import distk
from distk import CodeTable, UsageError
from distk.data import open_dataset
from distk.method import Method
from distk.plugins.text.common.vocab import PAD
from distk.plugins.text.nlmultitask.clustering import cluster, contents, errors, one_to_one
from distk.plugins.text.nlmultitask.figures import principal
from distk.plugins.text.nlmultitask.lexicon import WORDS
from distk.plugins.text.nlmultitask.method import NlMultitask
from distk.plugins.text.nlmultitask.metrics import (
    ArithmeticConfig,
    ClusteringConfig,
    InterpolationConfig,
    Perplexity,
    PerplexityConfig,
    SentenceArithmetic,
    SentenceInterpolation,
    SyntaxClustering,
    placed,
    training_words,
)
from distk.plugins.text.nlmultitask.prototypes import PROTOTYPES, populate, populated, triples, words_of
from distk.plugins.text.nlmultitask.reading import parse
from distk.settings import resolve
from distk.solvers import kmeans, random_points

DATA = {"sentences": 300, "variant": "short"}


@pytest.fixture(autouse=True)
def seeded(seed: int) -> None:
    random.seed(seed)
    torch.manual_seed(seed)


def untrained(data: distk.Dataset, **model: Any) -> NlMultitask:
    small = {"decoders": "rep,de,pos", "rep": 6, "hidden": 7, "embedding": 5, **model}
    settings = resolve("nlmultitask", options={"model": small})
    return NlMultitask(settings.model, data.spec).eval()


@pytest.fixture(scope="module")
def data() -> distk.Dataset:
    return open_dataset("standin-trilingual", dict(DATA))


def table(model: Method, data: distk.Dataset) -> CodeTable:
    return CodeTable(torch.empty(0, 1), [], [], model=model, dataset=data)


# Clustering


def test_the_error_of_a_table_by_hand() -> None:
    """The example of section 4.1: a cluster of 30, 3, 1, 7 and 88 sentences has 41 errors."""
    assert errors(torch.tensor([[[30, 3, 1, 7, 88]]])).tolist() == [41]
    counts = torch.tensor([[[5, 1, 0], [4, 0, 2], [0, 3, 3]], [[9, 0, 0], [0, 4, 0], [0, 0, 5]]])
    assert errors(counts).tolist() == [1 + 2 + 3, 0]
    assert one_to_one(counts[0]) == 18 - (5 + 3 + 2)  # the first two clusters cannot both be of the first prototype


def test_errors_and_the_best_assignment_against_brute_force() -> None:
    labels = torch.randint(4, (3, 50))
    kinds = torch.randint(4, (50,))
    counts = contents(labels, kinds, 4, 4)
    for run in range(3):
        expected = 0
        for c in range(4):
            held = [int(k) for label, k in zip(labels[run], kinds, strict=True) if int(label) == c]
            assert counts[run, c].tolist() == [held.count(p) for p in range(4)]
            expected += len(held) - max(held.count(p) for p in range(4))
        assert int(errors(counts)[run]) == expected
        best = max(
            sum(int(counts[run, c, p]) for c, p in enumerate(order)) for order in itertools.permutations(range(4))
        )
        assert one_to_one(counts[run]) == 50 - best


def test_a_perfect_code_has_no_error_and_a_constant_one_has_thirteen_prototypes() -> None:
    kinds = torch.arange(14).repeat_interleave(100)
    codes = torch.eye(14)[kinds] + 0.01 * torch.randn(1400, 14)
    found = cluster(codes, kinds, 100, 0)
    assert found.summary()["lowest_inertia"] == found.summary()["best"] == found.summary()["hungarian"] == 0
    constant = cluster(torch.full((1400, 3), 2.5), kinds, 10, 0).summary()
    assert set(constant.values()) == {1300.0}


def test_runs_are_those_of_scikit_learn() -> None:
    """Same starts, float64: labels and inertia of Lloyd's algorithm, on codes with a hundred equal points."""
    lines, kinds = populated(20, 0)
    model = untrained(open_dataset("standin-trilingual", {"sentences": 300}), rep=24, hidden=32).double()
    codes = model.codes(lines).numpy()
    for k in range(5):
        rng = torch.Generator().manual_seed(random.randrange(10**6))
        start = random_points(torch.tensor(codes), 14, 1, rng)
        if len({tuple(row) for row in start[0].tolist()}) < 14:
            continue  # two starts on one of the equal points: an empty cluster, which both fill in their own way
        ours = kmeans(torch.tensor(codes), start)
        theirs = KMeans(14, init=start[0].numpy(), n_init=1, algorithm="lloyd", tol=0, max_iter=300).fit(codes)
        assert (ours.labels[0].numpy() == theirs.labels_).all(), k
        assert float(ours.inertia[0]) == pytest.approx(theirs.inertia_, rel=1e-9)
        counts = contents(ours.labels, torch.tensor(kinds), 14, 14)
        expected = sum(
            np.bincount(np.array(kinds)[theirs.labels_ == c], minlength=14).sum()
            - np.bincount(np.array(kinds)[theirs.labels_ == c], minlength=14).max()
            for c in range(14)
        )
        assert int(errors(counts)[0]) == expected


def test_which_runs_are_reported() -> None:
    codes, kinds = torch.randn(80, 3), torch.arange(4).repeat(20)
    found = cluster(codes, kinds, 25, 1)
    by_hand = sorted(found.errors.tolist())
    summary = found.summary()
    assert summary["best"] == by_hand[0]
    assert summary["median"] == by_hand[12]
    assert summary["lowest_inertia"] == float(found.errors[int(found.inertia.argmin())])
    assert summary["hungarian"] >= summary["lowest_inertia"]
    again = cluster(codes, kinds, 25, 1)
    assert torch.equal(found.labels, again.labels)
    scaled = codes * torch.tensor([1.0, 100.0, 0.01])
    assert torch.allclose(
        cluster(scaled, kinds, 25, 1, standardize=True).inertia, cluster(codes, kinds, 25, 1, standardize=True).inertia
    )
    assert not torch.allclose(cluster(scaled, kinds, 25, 1).inertia, found.inertia)


def test_principal_components_keep_the_largest_variances() -> None:
    codes = torch.randn(60, 5).double() * torch.tensor([5.0, 3.0, 1.0, 0.1, 0.1])
    place, share = principal(codes)
    variance = torch.linalg.eigvalsh(torch.cov(codes.T)).flip(0)
    assert torch.allclose(place.var(0), variance[:2])
    assert torch.allclose(share, variance[:2] / variance.sum())
    assert principal(torch.ones(4, 1))[0].shape == (4, 2)


# Prototypes and triples


def test_prototypes_are_filled_as_the_paper_writes_them() -> None:
    lines, kinds = populated(30, random.randrange(100))
    assert kinds == [k for k in range(14) for _ in range(30)]
    for line, kind in zip(lines, kinds, strict=True):
        assert parse(line) == (kind if kind < 13 else None), line
        assert "+" not in line
        words = words_of(line)
        fixed = set(words_of(re.sub(r"\+\w+", "", PROTOTYPES[kind])))
        drawn = [w for w in words if w not in fixed and w != "an"]
        assert len(drawn) == len(set(drawn)) == PROTOTYPES[kind].count("+"), line
        assert not re.search(r"\ba [aeiou]", line)
    assert len(set(lines[: 30 * 13])) > 350
    assert populated(5, 3) == populated(5, 3) != populated(5, 4)
    assert populate("+Ns +V.", random.Random(0))[0].isupper()


def differences(one: str, other: str) -> list[tuple[str, str]]:
    pairs = zip(words_of(one), words_of(other), strict=True)
    return [(a, b) for a, b in pairs if a != b and {a, b} != {"a", "an"}]


def test_triples_differ_in_one_word() -> None:
    base: dict[str, set[str]] = {}
    for row, forms in [(n, n[:2]) for n in WORDS.N] + [(v, v[:3]) for v in WORDS.V] + [(a, a[:1]) for a in WORDS.A]:
        for form in forms:
            base.setdefault(form, set()).add(row.en)
    for t in triples(300, random.randrange(100)):
        (pair,) = differences(t.first, t.second)
        (other,) = differences(t.gold, t.third)
        assert parse(t.first) == parse(t.second) != parse(t.third) == parse(t.gold)
        assert base[pair[0]] & base[other[0]], t
        assert base[pair[1]] & base[other[1]], t
    assert all(parse(t.third) in (0, 1) for t in triples(20, 0, (0, 1)))


# Scores of models


def naive(model: NlMultitask, data: Any, name: str) -> float:
    total, count = 0.0, 0
    for row in data.rows("test").tolist():
        batch = data.batch(torch.tensor([row]))
        target = batch["x" if name == "rep" else name]
        size = int((target != PAD).sum())
        logits = model.decoders[name](target[:, :size], model.represent(batch["x"]))
        p = logits[0].double().softmax(1)
        total -= sum(math.log(float(p[t, target[0, t]])) for t in range(size))
        count += size
    return math.exp(total / count)


def test_perplexity_is_that_of_each_symbol(data: Any) -> None:
    model = untrained(data).double()
    with torch.no_grad():
        found = Perplexity(PerplexityConfig(batch=7)).compute(table(model, data), 0)
        for name in ("rep", "de", "pos"):
            assert found[name] == pytest.approx(naive(model, data, name), rel=1e-9)
        for decoder in model.decoders.values():
            decoder.output.weight.zero_()
            decoder.output.bias.zero_()
        uniform = Perplexity(PerplexityConfig()).compute(table(model, data), 0)
    assert all(uniform[n] == pytest.approx(len(model.alphabets[n]), rel=1e-6) for n in model.alphabets)
    assert found["sentences"] == len(data.rows("test"))


def test_columns_that_are_not_there_or_of_other_symbols_are_said(data: Any, tmp_path: Path) -> None:
    model = untrained(data)
    model.opens = lambda: data
    for split in ("train", "test"):
        (tmp_path / f"{split}.en").write_text("The dog is red.\nThe cat is red.\n" * 20)
        (tmp_path / f"{split}.pos").write_text("DET NOUN AUX ADJ PUNCT\n" * 40)
    other = open_dataset("parallel", {}, folder=tmp_path, model=data.spec)
    found = Perplexity(PerplexityConfig()).compute(table(model, other), 0)
    assert math.isfinite(found["rep"])
    assert "de" not in found
    assert found["reasons"]["de"] == "these data have no column 'de'"
    assert math.isnan(found["pos"])
    assert "other symbols (ADJ, AUX, DET, NOUN, PUNCT ...)" in found["reasons"]["pos"]
    with pytest.raises(UsageError, match="scores models of nlmultitask"):
        Perplexity(PerplexityConfig()).compute(table(distk.Method(None, data.spec), data), 0)


def test_syntax_clustering_of_a_perfect_and_a_constant_model(data: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = untrained(data)
    lines, kinds = populated(10, 4)
    known = dict(zip(lines, kinds, strict=True))
    metric = SyntaxClustering(ClusteringConfig(per_prototype=10, restarts=60))
    monkeypatch.setattr(model, "codes", lambda asked: torch.eye(14)[[known[line] for line in asked]])
    found = metric.compute(table(model, data), 4)
    assert found["best"] == found["best_short"] == 0
    assert found["sentences"] == 140
    assert found["cut"] == sum(len(line) > model.vocab.max_len for line in lines)
    words = [w for line in lines for w in words_of(line)]
    learnt = {w for line in data.lines(data.rows("train")) for w in words_of(line)}
    assert found["unseen_words"] == pytest.approx(sum(w not in learnt for w in words) / len(words))
    assert training_words(data) == learnt
    monkeypatch.setattr(model, "codes", lambda asked: torch.ones(len(asked), 3))
    found = metric.compute(table(model, data), 4)
    assert found["best"] == found["median"] == 130
    assert found["best_short"] == 60


def test_arithmetic_of_a_model_that_calculates(data: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model whose codes are sums over sentences: it says s1 - s2 + s3 right for the first half of the triples."""
    model = untrained(data)
    asked = triples(40, 7, (0, 1, 2, 3, 4, 5, 6, 12, 13, 17, 19, 23))
    lines = sorted({line for t in asked for line in (t.first, t.second, t.third)})

    def codes(sentences: list[str]) -> Tensor:
        return torch.stack([torch.eye(len(lines))[lines.index(line)] for line in sentences])

    def written(code: Tensor) -> list[str]:
        out = []
        for row in code:
            plus, minus = {lines[int(i)] for i in (row > 0).nonzero()}, {lines[int(i)] for i in (row < 0).nonzero()}
            if not minus:
                out.append(next(iter(plus)))
                continue
            t = next(t for t in asked if {t.first, t.third} == plus and {t.second} == minus)
            out.append(t.gold if asked.index(t) < 20 else t.third)
        return out

    monkeypatch.setattr(model, "codes", codes)
    monkeypatch.setattr(model, "lines", written)
    found = SentenceArithmetic(ArithmeticConfig(triples=40)).compute(table(model, data), 7)
    assert found["exact"] == found["unchanged"] == 0.5
    assert found["reconstructed"] == 1.0
    expected = [1.0] * 20 + [placed(t.third, t.gold) for t in asked[20:]]
    assert found["words"] == pytest.approx(sum(expected) / 40)
    assert placed("The dog is red.", "The dog is blue.") == 0.75
    assert placed("", "The dog.") == 0.0
    assert placed("The dog eats well.", "The dog") == 0.5


def test_between_two_sentences(data: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = untrained(data)
    asked: list[Tensor] = []

    def lines(code: Tensor) -> list[str]:
        asked.append(code)
        return [("The dog is red.", "The dgo is red.", "")[i % 3] for i in range(len(code))]

    monkeypatch.setattr(model, "lines", lines)
    found = SentenceInterpolation(InterpolationConfig(pairs=6, points=3)).compute(table(model, data), 1)
    assert found["outputs"] == 18
    assert found["known_words"] == pytest.approx(7 / 8)
    assert found["parsed"] == found["empty"] == pytest.approx(1 / 3)
    code = asked[0].view(3, 6, -1)
    middle = (code[0] + code[2]) / 2
    assert torch.allclose(code[1], middle, atol=1e-6), "a straight line"
    assert not torch.allclose(code[0], code[2])


def test_a_model_is_chosen_between_sentences_of_the_split_that_is_asked_for(
    data: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = untrained(data)
    asked: list[str] = []
    codes = model.codes
    monkeypatch.setattr(model, "codes", lambda lines: asked.extend(lines) or codes(lines))
    for split, rows in (("train", 2), ("test", None), ("all", None)):
        asked.clear()
        found = distk.evaluate(model, ["sentence-interpolation"], data=data, split=split, rows=rows, pairs=3)
        assert "error" not in found["metrics"]["sentence-interpolation"]
        assert set(asked) <= set(data.lines(data.rows_of("test" if split == "all" else split)))
        assert len(asked) == (rows or 6)


def test_ends_and_sums_are_the_sentences_themselves(data: Any) -> None:
    model = untrained(data).double()
    with torch.no_grad():
        model.decoders["rep"].output.weight.mul_(8)
    one, two, three = data.lines(data.rows("test")[:3])
    codes = model.codes([one, two, three])
    share = torch.linspace(0, 1, 5).double()
    line = model.lines(model.interpolate({"code": codes[:1]}, {"code": codes[1:2]}, share)["code"])
    again = model.text(model.decode(model.encode(model.read([one, two]))))
    assert [line[0], line[-1]] == again
    assert model.lines(codes[:1] - codes[2:] + codes[2:]) == again[:1]
