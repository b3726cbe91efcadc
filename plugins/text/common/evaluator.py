"""The evaluator: a label classifier and a language model, trained once on real text and kept in one file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as to_bytes
from torch import Tensor

from distk import DistkError, UsageError, seeded
from distk.device import initialised
from distk.files import write_atomic
from distk.plugins.text.common import classifier as classify
from distk.plugins.text.common import lm as language
from distk.plugins.text.common.corpus import SentenceDataset
from distk.plugins.text.common.stored import FORMAT, opened
from distk.plugins.text.common.vocab import UNK, Vocab

SMALL_VOCABULARY = 1000


@dataclass(frozen=True)
class Sizes:
    """Sizes of the evaluator's models. lm_hidden 0: 512 (embeddings 256), for under 1,000 words 128 (64)."""

    bits: int = 20
    ngrams: int = 2
    lm_hidden: int = 0
    lm_epochs: int = 10
    count_eos: bool = True

    def lm(self, vocab: int) -> tuple[int, int]:
        """(embedding, hidden) of the language model."""
        hidden = self.lm_hidden or (128 if vocab < SMALL_VOCABULARY else 512)
        return max(1, hidden // 2), hidden


@dataclass
class Evaluator:
    """vocab and classes of the text it was trained on; info: its accuracy and perplexity on real test text."""

    vocab: Vocab
    classes: tuple[str, ...]
    classifier: classify.BagClassifier
    lm: language.LanguageModel
    sizes: Sizes
    info: dict[str, Any]

    @property
    def device(self) -> torch.device:
        """Where the models live."""
        return self.lm.output.weight.device

    def ids(self, sentences: Sequence[Sequence[str]]) -> Tensor:
        """Lists of words as ids, never cut: int64 `[n, longest + 1]`."""
        return self.vocab.pad(sentences, self.device)

    def labels(self, sentences: Sequence[Sequence[str]]) -> Tensor:
        """The label that the classifier reads from each sentence, int64 `[n]` on the host."""
        return classify.predict(self.classifier, self.ids(sentences)).cpu()

    def perplexity(self, sentences: Sequence[Sequence[str]]) -> float:
        """Perplexity of sentences under the language model of real text."""
        return language.perplexity(self.lm, self.ids(sentences), count_eos=self.sizes.count_eos)

    def reverse_perplexity(
        self, outputs: Sequence[Sequence[str]], real: Sequence[Sequence[str]], dev: Sequence[Sequence[str]], seed: int
    ) -> float:
        """Perplexity of real sentences under a language model trained on a system's outputs (stopped by `dev`)."""
        model = _new_lm(len(self.vocab), self.sizes, seed, self.device)
        language.fit(
            model, self.ids(outputs), self.ids(dev), seeded(seed, self.device), epochs=self.sizes.lm_epochs,
            count_eos=self.sizes.count_eos,
        )  # fmt: skip
        return language.perplexity(model, self.ids(real), count_eos=self.sizes.count_eos)

    def unknown(self, sentences: Sequence[Sequence[str]]) -> float:
        """Share of words outside the vocabulary."""
        words = [self.vocab.ids.get(w, UNK) for s in sentences for w in s]
        return words.count(UNK) / max(1, len(words))

    def save(self, path: Path) -> None:
        """Write as one safetensors file."""
        parts = {"classifier": self.classifier, "lm": self.lm}
        tensors = {
            f"{p}.{n}": t.detach().cpu().contiguous() for p, m in parts.items() for n, t in m.state_dict().items()
        }
        meta = {**self.vocab.to_dict(), "classes": list(self.classes), "sizes": vars(self.sizes), "info": self.info}
        text = json.dumps({**meta, "kind": "evaluator", "format": FORMAT}, ensure_ascii=True)
        write_atomic(path, to_bytes(tensors, metadata={"distk.text": text}))

    @classmethod
    def load(cls, path: Path, device: torch.device | str = "cpu") -> Evaluator:
        """Inverse of `save`, for untrusted files. Raises DistkError saying what is wrong."""
        with opened(path, "evaluator") as (meta, file):
            vocab = Vocab.from_dict(meta)
            classes, raw, info = meta.get("classes"), meta.get("sizes"), meta.get("info")
            if not isinstance(classes, list) or not all(isinstance(c, str) for c in classes) or len(classes) < 2:
                raise DistkError(f"'{path}' is not a valid evaluator: its list of labels is damaged.")
            if not isinstance(raw, dict) or not isinstance(info, dict) or set(raw) != set(vars(Sizes())):
                raise DistkError(f"'{path}' is not a valid evaluator: its settings are damaged.")
            if any(type(raw[k]) is not type(v) for k, v in vars(Sizes()).items()) or not 1 <= raw["bits"] <= 26:
                raise DistkError(f"'{path}' is not a valid evaluator: its settings are damaged.")
            sizes = Sizes(**raw)
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}
            with torch.device("meta"):
                parts = _models(len(vocab), len(classes), sizes)
                wanted = {f"{p}.{n}": tuple(t.shape) for p, m in parts.items() for n, t in m.state_dict().items()}
            if shapes != wanted:
                raise DistkError(
                    f"'{path}' is not a valid evaluator: its tensors do not fit its vocabulary and settings."
                )
            parts = _models(len(vocab), len(classes), sizes)
            for p, m in parts.items():
                m.load_state_dict({n: file.get_tensor(f"{p}.{n}") for n in m.state_dict()})
        made = {p: m.to(device).eval() for p, m in parts.items()}
        return cls(vocab, tuple(classes), made["classifier"], made["lm"], sizes, info)  # type: ignore[arg-type]


def _models(vocab: int, classes: int, sizes: Sizes) -> dict[str, torch.nn.Module]:
    embedding, hidden = sizes.lm(vocab)
    return {
        "classifier": classify.BagClassifier(classes, sizes.bits, sizes.ngrams),
        "lm": language.LanguageModel(vocab, embedding, hidden),
    }


def _new_lm(vocab: int, sizes: Sizes, seed: int, device: torch.device) -> language.LanguageModel:
    with initialised(seed, device):
        return language.LanguageModel(vocab, *sizes.lm(vocab)).to(device)


def train_evaluator(data: SentenceDataset, sizes: Sizes, seed: int, with_lm: bool = True) -> Evaluator:
    """Train both models on the training split; measure them on the test split.

    with_lm: False leaves the language model untrained, for scores that do not need it.
    Raises UsageError for data without labels.
    """
    if len(data.spec.classes) < 2:
        raise UsageError(f"data set '{data.name}' has fewer than two labels, so there is nothing to evaluate.")
    train, dev, test = (data.rows_of(name) for name in ("train", "dev", "test"))
    x = {name: data.batch(rows)["x"] for name, rows in (("train", train), ("dev", dev), ("test", test))}
    vocab, classes = data.vocab, data.spec.classes
    judge = classify.BagClassifier(len(classes), sizes.bits, sizes.ngrams).to(data.device)
    lm = _new_lm(len(vocab), sizes, seed, data.device)
    classify.fit(judge, x["train"], data.label[train], seeded(seed, data.device))
    guessed = classify.predict(judge, x["test"])
    info = {
        "data": data.name,
        "origin": data.origin,
        "seed": seed,
        "classifier_accuracy": float((guessed == data.label[test]).double().mean()),
        "with_lm": with_lm,
    }
    if with_lm:
        generator = seeded(seed, data.device)
        language.fit(lm, x["train"], x["dev"], generator, epochs=sizes.lm_epochs, count_eos=sizes.count_eos)
        info["real_perplexity"] = language.perplexity(lm, x["test"], count_eos=sizes.count_eos)
    return Evaluator(vocab, classes, judge.eval(), lm.eval(), sizes, info)
