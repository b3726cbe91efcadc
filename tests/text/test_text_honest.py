"""What the scores of rewritten text are measured on: files sorted by label, words that the model does not know,
sentences that it has learnt by heart, parts that fail."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import distk
from distk import Code, DataSpec, Latent, LatentSpace, NoConfig, Objective, UsageError
from distk.metric import CodeTable
from distk.plugins.text.common import metric, scores, suite
from distk.plugins.text.common.corpus import SentenceDataset
from distk.plugins.text.common.model import SentenceMethod

TRAIN = {
    0: ["the food was bad .", "the waiter was rude .", "my room was dirty .", "the pizza was stale ."] * 60,
    1: ["the food was good .", "the waiter was friendly .", "my room was clean .", "the pizza was fresh ."] * 60,
}
TEST = {
    0: ["the food was bad .", "the waiter was bad .", "the zeppelin was bad .", "the quiche was rude ."],
    1: ["the food was good .", "the waiter was good .", "the zeppelin was good .", "the quiche was friendly ."],
}


class Copier(SentenceMethod[NoConfig]):
    """Says what it has read, as far as its vocabulary goes. The code is the number of "bad" words."""

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(NoConfig(), spec)
        self.latents = LatentSpace.of(Latent("code", "continuous", 1), Latent("label", "categorical", 2))
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.encoded = 0
        bad = [self.vocab.ids[word] for word in ("bad", "rude", "dirty", "stale")]
        self.bad = torch.tensor(bad)

    def objectives(self) -> list[Objective]:
        return []

    def encode(self, x: Tensor) -> Code:
        self.encoded += len(x)
        found = torch.isin(x, self.bad).sum(1, keepdim=True).float()
        return {"code": found, "label": torch.cat([found, 1 - found], 1)}

    def rewrite_ids(self, x: Tensor, source: Tensor | None, to: int, beam: int) -> Tensor:
        return x


def write(folder: Path) -> Path:
    for split, text in (("train", TRAIN), ("dev", TEST), ("test", TEST)):
        for label, lines in text.items():
            (folder / f"{split}.{label}").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def data(tmp_path: Path) -> SentenceDataset:
    """480 training sentences, all of label 0 before those of label 1; two of six test nouns are unknown."""
    return distk.dataset("files", device="cpu", data_dir=write(tmp_path), tagger="builtin")  # type: ignore[return-value]


def scored(data: SentenceDataset, **settings: Any) -> dict[str, Any]:
    small = {"bits": 10, "lm_hidden": 8, "lm_epochs": 1, "tagger": "builtin", **settings}
    found = metric.TextMetric(metric.Config(**small))
    table = CodeTable(torch.zeros(0, 1), ["c"], ["continuous"], model=Copier(data.spec), dataset=data)
    return dict(found.compute(table, 0))


def test_text_as_it_is_written_comes_back(data: SentenceDataset, seed: int) -> None:
    rows = data.rows("test")[torch.randperm(8, generator=torch.Generator().manual_seed(seed))]
    lines = [*TEST[0], *TEST[1]]
    expected = [lines[int(row) - int(data.rows("test").min())].split() for row in rows]
    assert data.written(rows) == expected
    cut = [[w if w not in ("zeppelin", "quiche") else "<unk>" for w in words] for words in expected]
    assert data.words(rows) == cut
    assert data.written(data.rows("train"))[:4] == [line.split() for line in TRAIN[0][:4]]


def test_files_sorted_by_label_are_sampled_for_probes_and_reverse_perplexity(
    data: SentenceDataset, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """The first 120 of 480 sentences have one label; a draw of 120 lacks one with a chance of 2^-119."""
    assert set(data.label[data.rows("train")[:120]].tolist()) == {0}
    found = metric.probes(Copier(data.spec), data, seed, 120)
    assert found["probe_linear"] == 1.0
    kept: list[Any] = []

    def reverse(evaluator: Any, outputs: list[list[str]], real: Any, dev: Any, seed: int) -> dict[str, float]:
        kept.extend(outputs)
        return {"reverse_perplexity": 1.0}

    monkeypatch.setattr(suite, "reverse", reverse)
    scored(data, reverse_sentences=120)
    bad = sum(bool({"bad", "rude", "dirty", "stale"} & set(words)) for words in kept)
    assert len(kept) == 120
    assert 30 < bad < 90, "both directions, about half each: 11 standard deviations lie between 60 and these ends"


def test_a_word_for_no_word_keeps_no_noun_and_matches_nothing(data: SentenceDataset) -> None:
    """Six of the eight test sentences' nouns are food and waiter; zeppelin and quiche come out as <unk>."""
    result = scored(data, reverse_sentences=0, probes=False)
    assert result["noun_recall"] == pytest.approx(4 / 8)
    assert result["content"] == pytest.approx(4 / 8)
    assert result["copy_rate"] == pytest.approx(4 / 8)
    assert result["reconstruction"] == pytest.approx(4 / 8)
    assert result["unknown"] == pytest.approx(4 / 40)
    assert scores.bleu([["a", "<unk>", "b", "c", "d"]], [["a", "<unk>", "b", "c", "d"]])[0] < 50
    nothing = scores.content([["the", "<unk>", "was"]], [["the", "<unk>", "was"]], [[False, True, False]])
    assert nothing["no_noun"] == 1


def test_sentences_learnt_by_heart_are_counted_and_can_be_left_out(data: SentenceDataset) -> None:
    result = scored(data, reverse_sentences=0, probes=False)
    assert result["seen"] == pytest.approx(2 / 8), "the food was bad / good ."
    assert result["reconstruction_unseen"] == pytest.approx(2 / 6)
    fresh = scored(data, reverse_sentences=0, probes=False, unseen=True)
    assert (fresh["sentences"], fresh["seen"]) == (6, 0.0)
    assert fresh["reconstruction"] == pytest.approx(2 / 6)
    few = scored(data, reverse_sentences=0, probes=False, unseen=True, max_sentences=3)
    assert (few["sentences"], few["seen"]) == (3, 0.0)


def test_a_part_that_cannot_be_measured_takes_no_other_with_it(
    data: SentenceDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(*arguments: object) -> dict[str, float]:
        raise UsageError("this part needs what these data lack.")

    whole = scored(data, reverse_sentences=0)
    monkeypatch.setattr(metric, "probes", refuses)
    result = scored(data, reverse_sentences=0)
    assert result.pop("reasons") == {"probe_linear": "this part needs what these data lack."}
    assert result == {key: value for key, value in whole.items() if not key.startswith("probe")}


def test_nothing_is_encoded_for_scores_that_read_no_codes(data: SentenceDataset) -> None:
    model = Copier(data.spec)
    options = {"bits": 10, "max_sentences": 4}
    found = distk.evaluate(model, ["transfer"], data=data, **options)["metrics"]["transfer"]
    assert "error" not in found
    assert model.encoded == 0
    dev, test = (
        distk.evaluate(model, ["transfer"], data=data, split=split, bits=10)["metrics"]["transfer"]["sentences"]
        for split in ("dev", "test")
    )
    assert (dev, test) == (8, 8), "another split than the metric's own is scored where it is asked for"
