"""The three labelled corpora as one, real files against a reading by hand, and a step of each phase on them."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

import distk
from distk import DistkError
from distk.device import Ranks
from distk.plugins.text.common.vocab import split_words
from distk.plugins.text.mmdtraverse.examples import topics
from distk.plugins.text.mmdtraverse.method import MMDTraverse
from distk.settings import resolve
from distk.training.loop import build


def by_hand(folder: Path) -> dict[str, list[tuple[int, str]]]:
    """(label, sentence) of every labelled sentence of the three corpora."""
    found: dict[str, list[tuple[int, str]]] = {"rtpolarity": [], "uci": [], "finegrained": []}
    for label, name in enumerate(("neg", "pos")):
        raw = (folder / "rt_polarity" / f"rt-polarity.{name}").read_bytes()
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError:
            text = raw.decode("iso-8859-1")
        found["rtpolarity"] += [(label, line) for line in text.split("\n")[:-1]]
    for name in ("amazon_cells", "imdb", "yelp"):
        for line in (folder / "uci_sentiment" / f"{name}_labelled.txt").read_bytes().decode().split("\n"):
            if line:
                sentence, _, label = line.rpartition("\t")
                found["uci"].append((int(label), sentence))
    for line in (folder / "sentence_sentiment" / "finegrained.txt").read_bytes().decode().split("\n"):
        label, _, sentence = line.partition("\t")
        if label in ("neg", "pos"):
            found["finegrained"].append((int(label == "pos"), sentence))
    return found


def test_no_sentence_is_lost_moved_or_given_another_label(real: Any) -> None:
    real("imdb_sentences/filter_imdb_valid.jsonl.gz")
    folder = real("rt_polarity").parent
    real("uci_sentiment"), real("sentence_sentiment")
    data: Any = distk.dataset("sentiment3", device="cpu", data_dir=folder, max_len=1000)
    held = by_hand(folder)
    assert {name: len(rows) for name, rows in held.items()}["uci"] == 3000
    assert Counter(label for label, _ in held["finegrained"]) == {1: 923, 0: 1320}
    corpora = data.spec.extra["columns"]["corpus"]["classes"]
    for name, rows in held.items():
        of = {split: data.rows(split) for split in ("train", "dev", "test")}
        own = {s: r[data.batch(r)["corpus"] == corpora.index(name)] for s, r in of.items()}
        found = Counter(
            (label, " ".join(words))
            for r in own.values()
            for label, words in zip(data.label[r].tolist(), data.written(r), strict=True)
        )
        split = [(label, split_words(line, raw=True)) for label, line in rows]
        assert found == Counter((label, " ".join(words)) for label, words in split if words)
        # Each corpus is divided 80/10/10 by itself, its labels alike.
        for split_name, share in (("train", 0.8), ("dev", 0.1), ("test", 0.1)):
            for label in (0, 1):
                there = int((data.label[own[split_name]] == label).sum())
                assert there == pytest.approx(share * sum(k == label for k, _ in rows), abs=3)
    every = torch.cat([data.rows(split) for split in ("train", "dev", "test", "unsup")])
    assert len(every.unique()) == len(every) == len(data)
    with gzip.open(folder / "imdb_sentences" / "filter_imdb_valid.jsonl.gz", "rt") as file:
        reviews = Counter(" ".join(split_words(json.loads(line)["review"], raw=True)) for line in file)
    assert Counter(" ".join(words) for words in data.written(data.rows("unsup"))) == reviews
    assert set(data.label[data.rows("unsup")].tolist()) == {-1}
    assert "27,529 sentences without labels" in data.origin


def test_both_phases_and_a_move_on_the_real_text(real: Any) -> None:
    real("imdb_sentences/filter_imdb_valid.jsonl.gz")
    folder = real("rt_polarity").parent
    model = {"embedding": 6, "filters": 3, "phase1": 1, "examples": 20, "filter_words": ("movie", "phone")}
    data = {"name": "sentiment3", "dir": str(folder), "vocab_size": 2000, "uci_per_domain": 500}
    sections = {"model": model, "data": data, "train": {"batch": 16, "device": "cpu"}}
    made = build(resolve("mmdtraverse", options=sections), torch.device("cpu"), Ranks())
    made.step()
    assert "classification" not in made.drain()
    made.step()
    assert made.drain()["classification"] > 0
    assert isinstance(made.model, MMDTraverse)
    for k in range(2):
        held = topics(made.model.examples[k], made.model.vocab, ("movie", "phone"))
        assert int((held == 0).sum()) + int((held == 1).sum()) + int((held == -1).sum()) == 20
        assert 8 <= int((held == 0).sum()) <= 10
    made.model.eval()
    lines = made.model.rewrite(["It's a GREAT movie, isn't it?", "", "7 phones"], 0)
    assert len(lines) == 3
    assert lines[1] == ""


def test_a_wrong_encoding_is_named_with_its_line(real: Any, tmp_path: Path) -> None:
    source = real("uci_sentiment").parent
    for name in ("rt_polarity", "uci_sentiment", "sentence_sentiment"):
        (tmp_path / name).mkdir()
        for file in (source / name).iterdir():
            (tmp_path / name / file.name).write_bytes(file.read_bytes())
    path = tmp_path / "uci_sentiment" / "imdb_labelled.txt"
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([*lines[:7], b"caf\xe9 noir\t1", *lines[7:]]))
    with pytest.raises(DistkError, match=r"imdb_labelled\.txt' is not utf-8: line 8.*--encoding latin-1"):
        distk.dataset("sentiment3", device="cpu", data_dir=tmp_path)
    path.write_bytes(b"\n".join([*lines[:7], b"no label here", *lines[7:]]))
    with pytest.raises(DistkError, match="line 8"):
        distk.dataset("sentiment3", device="cpu", data_dir=tmp_path)
    path.unlink()
    with pytest.raises(DistkError, match=r"imdb_labelled\.txt"):
        distk.dataset("sentiment3", device="cpu", data_dir=tmp_path)
