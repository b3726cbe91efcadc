"""What every method for sentences offers: text in, text out, one line for one line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from distk import DataSpec, Method, Source, UsageError
from distk.config import C
from distk.console import counted, note, warn
from distk.plugins.text.common.vocab import EOS, UNK, Vocab


class SentenceMethod(Method[C]):
    """A method whose items are rows of token ids. Subclasses define `rewrite_ids`; `encode` gives `label`."""

    kinds: ClassVar[tuple[str, ...]] = ("sentence",)
    own_commands: ClassVar[Mapping[str, str]] = {"transfer": "text rewrite"}

    def __init__(self, config: C, data: DataSpec) -> None:
        super().__init__(config, data)
        self.vocab = Vocab.from_spec(data)
        if data.shape != (self.vocab.max_len + 1,):
            raise ValueError(
                f"rows of {data.shape} tokens do not fit sentences of {counted(self.vocab.max_len, 'word')}"
            )
        if len(data.classes) < 2:
            raise ValueError("sentences need two labels or more")

    def rewrite_ids(self, x: Tensor, source: Tensor | None, to: int, beam: int) -> Tensor:
        """Token ids `[n, T]` with label `to`: ids `[n, max_len + 1]`. source: present labels `[n]`, where known."""
        raise NotImplementedError

    def balanced(self, source: Source) -> None:
        """Raise UsageError unless batches hold the labels in equal shares, row i label i mod K, as losses may read."""
        if not getattr(source.dataset.config, "balance", True):
            name = type(self).__name__.lower()
            raise UsageError(f"{name} needs batches with equal shares of the labels: leave out --no-balance.")

    def text(self, items: Tensor) -> list[str]:
        """Token ids `[n, T]` as lines."""
        return self.vocab.lines(items)

    def tokens(self, sentences: list[str]) -> Tensor:
        """As `read`, of text that is split as the training text was."""
        return self.read(sentences)

    def read(self, sentences: list[str], tokenize: bool | None = None) -> Tensor:
        """Lines as token ids `[n, max_len + 1]`. tokenize: split ordinary text; None does as the training text was.

        Warns about sentences that are cut or of which no word is known.
        """
        words = [self.vocab.words(line, tokenize) for line in sentences]
        long = sum(len(s) > self.vocab.max_len for s in words)
        if long:
            warn(f"cut after {counted(self.vocab.max_len, 'word')}: {counted(long, 'longer sentence')}")
        x = self.vocab.pad(words, self.device, self.vocab.max_len + 1)
        known = ((x > UNK) & (x != EOS)).any(1)
        lost = [line for line, w, k in zip(sentences, words, known.tolist(), strict=True) if w and not k]
        if lost:
            warn(f"without any word that the model knows: {counted(len(lost), 'sentence')}, first '{lost[0][:60]}'")
        return x

    @torch.no_grad()
    def label_of(self, sentences: list[str], tokenize: bool | None = None, batch: int = 512) -> list[int]:
        """The label that the model itself reads from each sentence, as an index of `spec.classes`."""
        found: list[int] = []
        for start in range(0, len(sentences), batch):
            x = self.read(sentences[start : start + batch], tokenize)
            found += self.encode(x)["label"].argmax(1).tolist()
        return found

    @torch.no_grad()
    def rewrite(
        self,
        sentences: list[str],
        to: int,
        *,
        source: list[int] | None = None,
        beam: int = 1,
        batch: int = 512,
        tokenize: bool | None = None,
        **unused: Any,
    ) -> list[str]:
        """Sentences with label `to`, one for one; an empty line stays empty.

        source: their present labels. beam: 1 is greedy. tokenize: as `read`. Raises UsageError for an unknown label.
        """
        if not 0 <= to < len(self.spec.classes):
            raise UsageError(f"there is no label {to}; labels are 0 to {len(self.spec.classes) - 1}.")
        if source is not None and any(label == to for label in source):
            alike = counted(sum(label == to for label in source), "sentence")
            note(f"of the label '{self.spec.classes[to]}' already: {alike}")
        out = [""] * len(sentences)
        full = [i for i, line in enumerate(sentences) if line.strip()]
        for start in range(0, len(full), batch):
            rows = full[start : start + batch]
            x = self.read([sentences[i] for i in rows], tokenize)
            label = None if source is None else torch.tensor([source[i] for i in rows], device=x.device)
            for i, line in zip(rows, self.text(self.rewrite_ids(x, label, to, beam)), strict=True):
                out[i] = line
        return out
