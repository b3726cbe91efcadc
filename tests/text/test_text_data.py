"""The shared pieces of the text family against independent computations: vocabulary, files, batches, the stand-in."""

from __future__ import annotations

import itertools
import random
import unicodedata
from pathlib import Path

import pytest
import torch
from torch import nn

import distk
from distk import DataSpec, DistkError, UsageError
from distk.plugins.text.common import files, standin
from distk.plugins.text.common.corpus import SentenceDataset
from distk.plugins.text.common.files import Part
from distk.plugins.text.common.networks import CodeEncoder
from distk.plugins.text.common.splits import divided
from distk.plugins.text.common.vocab import EOS, PAD, SPECIALS, UNK, Vocab, lengths, split_words


def w(text: str) -> list[str]:
    """Words of a line."""
    return text.split()


def spec_of(vocab: Vocab) -> DataSpec:
    return DataSpec("sentence", (vocab.max_len + 1,), (0.0, 1.0), ("negative", "positive"), vocab.to_dict())


# Vocabulary


def test_vocabulary_survives_a_safetensors_header(tmp_path: Path) -> None:
    import json

    from safetensors import safe_open
    from safetensors.torch import save_file

    odd = ["über", '"quoted"', "back\\slash", "nel\u0085nel", "emoji\U0001f600", "tab\there", "\u2028", "ümlaut'"]
    counts = {f"word{i}": random.randrange(1, 100) for i in range(50_000)} | dict.fromkeys(odd, 5)
    vocab = Vocab.build(counts, max_len=17)
    save_file({"x": torch.zeros(1)}, tmp_path / "v.safetensors", {"distk": json.dumps(spec_of(vocab).to_dict())})
    with safe_open(tmp_path / "v.safetensors", framework="pt") as file:
        spec = DataSpec.from_dict(json.loads(file.metadata()["distk"]))
    back = Vocab.from_spec(spec)
    assert back.tokens == vocab.tokens
    assert back.max_len == 17
    assert back.encode(odd) == vocab.encode(odd)
    assert UNK not in back.encode(odd)


def test_ids_follow_from_the_counts_alone() -> None:
    words = [f"w{i}" for i in range(500)]
    counts = {word: random.randrange(1, 20) for word in words}
    shuffled = dict(random.sample(list(counts.items()), len(counts)))
    vocab, again = Vocab.build(counts), Vocab.build(shuffled)
    assert vocab.tokens == again.tokens
    assert vocab.tokens[:4] == SPECIALS
    found = [counts[w] for w in vocab.tokens[4:]]
    assert found == sorted(found, reverse=True)
    assert len(Vocab.build(counts, 30)) == 34
    assert all(counts[w] >= 5 for w in Vocab.build(counts, min_count=5).tokens[4:])


def test_literal_specials_are_unknown_words() -> None:
    vocab = Vocab.build({"good": 3, "<eos>": 9, "<pad>": 9})
    assert vocab.encode(["good", "<eos>", "<pad>", "<bos>", "never-seen"]) == [4, UNK, UNK, UNK, UNK]


@pytest.mark.parametrize(
    "change",
    [
        {"vocab": None},
        {"vocab": "text"},
        {"vocab": ["<pad>", "<bos>", "<eos>"]},
        {"vocab": ["a", "b", "c", "d", "e"]},
        {"vocab": [*SPECIALS, "a", "a"]},
        {"vocab": [*SPECIALS, 3]},
        {"vocab": [*SPECIALS, "x" * 1001]},
        {"vocab": [*SPECIALS, "two words"]},
        {"vocab": [*SPECIALS, "a\nb"]},
        {"max_len": 0},
        {"max_len": "25"},
        {"lowercase": 1},
        {"tokenize": "exec"},
    ],
)
def test_a_damaged_vocabulary_is_refused(change: dict) -> None:
    good = Vocab.build({"a": 1, "b": 2}).to_dict()
    Vocab.from_dict(good)
    with pytest.raises(DistkError, match="vocabulary"):
        Vocab.from_dict({**good, **change})


def test_tokenizer_on_ordinary_text() -> None:
    raw = "I don't like the $5.99 pizza, it's GREAT?! We\u2019ll see... they'd well-made"
    expected = "i do n't like the $ _num_ pizza , it 's great ? ! we 'll see ... they 'd well-made"
    assert split_words(raw, raw=True) == expected.split()
    assert split_words("can't _num_ 12:30 dm'ing") != []
    assert split_words("  Two   Spaces ", lowercase=False) == ["Two", "Spaces"]
    once = split_words(raw, raw=True)
    assert split_words(" ".join(once), raw=True) == once  # splitting what is split changes nothing


# Files


def test_only_the_line_feed_ends_a_line(tmp_path: Path) -> None:
    path = tmp_path / "t"
    path.write_bytes(b"one \x85 line\nsecond \xe9\r\nthird")
    assert files.read_lines(path, "latin-1") == ["one \x85 line", "second é", "third"]
    with pytest.raises(DistkError, match=r"line 1, byte offset 4.*--encoding latin-1"):
        files.read_lines(path)


def test_both_yelp_layouts_say_the_same(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    for split in ("train", "dev", "test"):
        for label, word in enumerate(("bad", "good")):
            (tmp_path / "a" / f"sentiment.{split}.{label}").write_text(f"{word} food .\n")
    names = {"train": ("train2", "train1"), "dev": ("valid2", "valid1"), "test": ("test0", "test1")}
    for pair in names.values():
        for word, name in zip(("bad", "good"), pair, strict=True):
            (tmp_path / "b" / f"{name}.txt").write_text(f"{word} food .\n")
    for folder in ("a", "b"):
        data = distk.dataset("yelp", device="cpu", data_dir=tmp_path / folder)
        for split in ("train", "dev", "test"):
            rows = data.rows(split)
            assert data.lines(rows) == ["bad food .", "good food ."]
            assert [data.spec.classes[i] for i in data.label[rows]] == ["negative", "positive"]


def test_missing_files_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISTK_DATA", raising=False)
    with pytest.raises(UsageError, match="needs its files"):
        distk.dataset("yelp", device="cpu")
    with pytest.raises(UsageError, match=r"sentiment\.train\.0"):
        distk.dataset("yelp", device="cpu", data_dir=tmp_path)
    (tmp_path / "train.txt").write_text("a b\nc d\n")
    (tmp_path / "train.labels").write_text("x\n")
    with pytest.raises(UsageError, match=r"2 lines.*1"):
        distk.dataset("files", device="cpu", data_dir=tmp_path)


def test_own_files_with_labels_tags_and_conllu(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "train.txt").write_text("good day\nbad day\nso bad\nvery good\n")
    (tmp_path / "p" / "train.labels").write_text("pos\nneg\nneg\npos\n")
    (tmp_path / "p" / "dev.txt").write_text("a good day\n")
    (tmp_path / "p" / "dev.labels").write_text("pos\n")
    data = distk.dataset("files", device="cpu", data_dir=tmp_path / "p")
    assert data.spec.classes == ("neg", "pos")
    assert data.label[data.rows("train")].tolist() == [1, 0, 0, 1]
    (tmp_path / "t").mkdir()
    for split, k in itertools.product(("train", "dev", "test"), (0, 1)):
        (tmp_path / "t" / f"{split}.{k}").write_text("the_DT dog_NN barks_VBZ\n_num__CD cats_NNS\n")
    data = distk.dataset("files", device="cpu", data_dir=tmp_path / "t", tagged=True)
    assert data.nouns(data.rows("test")[:2]) == [[False, True, False], [False, True]]
    assert data.words(data.rows("test")[1:2]) == [["_num_", "cats"]]
    (tmp_path / "c").mkdir()
    columns = ("1 The the DET DT _ 2 det _ _", "2-3 dogs' _ _ _ _ _ _ _ _", "2 dogs dog NOUN NNS _ 0 root _ _")
    row = "".join(line.replace(" ", "\t") + "\n" for line in columns) + "\n"
    for k in (0, 1):
        (tmp_path / "c" / f"train.{k}.conllu").write_text("# text = The dogs\n" + row * 20)
    data = distk.dataset("files", device="cpu", data_dir=tmp_path / "c")
    assert data.spec.classes == ("0", "1")
    assert data.nouns(data.rows("train")[:1]) == [[False, True]]


def test_reviews_finegrained_csv(tmp_path: Path) -> None:
    text = 'It was bad. Mr. Smith left!<br /><br />"Really?" I cried (twice). See p. 5... The end'
    sentences = ["It was bad.", "Mr. Smith left!", '"Really?"', "I cried (twice).", "See p. 5...", "The end"]
    assert files.split_sentences(text) == sentences
    for split, label in itertools.product(("train", "test"), ("pos", "neg")):
        folder = tmp_path / "aclImdb" / split / label
        folder.mkdir(parents=True)
        for i in range(30):
            (folder / f"{i}_{'9' if label == 'pos' else '2'}.txt").write_text(f"A {label} film. It is no. {i}!")
    data = distk.dataset("aclimdb", device="cpu", data_dir=tmp_path)
    assert data.spec.classes == ("negative", "positive")
    assert data.lines(data.rows("test")[:1]) == ["a neg film ."]
    (tmp_path / "finegrained.txt").write_text(
        "doc1\nbooks\t3\npos\tGood one\nnr\tHi\n\ndoc2\nmusic\t1\nneg\tBad one\nmix\tx\n"
    )
    part = files.read_finegrained(tmp_path / "finegrained.txt", "utf-8", ("neg", "pos"))
    assert (part.lines, part.labels) == (["Good one", "Bad one"], [1, 0])
    (tmp_path / "classes.txt").write_text("Society & Culture\nScience & Mathematics\nEntertainment & Music\n")
    rows = ['"2","why, ""really""?","","because\\nso"', '"1","skip","",""', '"3","which song?","","that one"']
    for split in ("train", "test"):
        (tmp_path / f"{split}.csv").write_text("\n".join(rows * 30) + "\n")
    topics = "Science & Mathematics,Entertainment & Music"
    data = distk.dataset("yahoo", device="cpu", data_dir=tmp_path, topics=topics)
    assert data.lines(data.rows("test")[:2]) == ['why , " really " ?', "which song ?"]
    with pytest.raises(UsageError, match="none of the classes"):
        distk.dataset("yahoo", device="cpu", data_dir=tmp_path, topics="Cooking")


# Batches


class Ragged(SentenceDataset):
    """A corpus given directly."""

    given: dict[str, Part]

    def read(self, files: object) -> tuple[dict[str, Part], tuple[str, ...], str]:
        return self.given, ("negative", "positive"), "made up"


def ragged(n: int, longest: int = 30, **settings: object) -> Ragged:
    lines = [" ".join(f"w{random.randrange(60)}" for _ in range(random.randint(1, longest))) for _ in range(n)]
    labels = [int(random.random() < 0.3) for _ in range(n)]
    Ragged.given = divided(Part(lines, labels))
    config = Ragged.Config(max_len=longest, **settings)
    return Ragged(config, torch.device("cpu"), distk.Files("ragged", None, ""))


def test_gathered_batches_equal_naive_padding() -> None:
    data = ragged(1000)
    lines = [line for part in Ragged.given.values() for line in part.lines]
    rows = torch.randperm(len(data))[:400]
    batch = data.batch(rows)
    for row, x in zip(rows.tolist(), batch["x"].tolist(), strict=True):
        ids = [*data.vocab.encode(lines[row].split(" ")), EOS]
        assert x == ids + [PAD] * (len(x) - len(ids))
    assert batch["x"].shape[1:] == data.spec.shape


def test_training_batches_have_equal_shares_of_labels_and_one_length() -> None:
    data = ragged(4000)
    assert len(data.buckets.edges) > 2
    generator = torch.Generator().manual_seed(random.randrange(1 << 30))
    train = set(map(tuple, data.batch(data.rows("train"))["x"].tolist()))
    seen = set()
    for step in range(60):
        bucket = data.bucket(step, 7)
        seen.add(bucket)
        batch = data.sample(32, generator, bucket=bucket)
        assert batch["label"].tolist() == [0, 1] * 16
        low = data.buckets.edges[bucket - 1] if bucket else 0
        assert batch["x"].shape[1] == data.buckets.edges[bucket]
        assert bool(((lengths(batch["x"]) > low) & (lengths(batch["x"]) <= data.buckets.edges[bucket])).all())
        padded = torch.nn.functional.pad(batch["x"], (0, data.spec.shape[0] - batch["x"].shape[1]))
        assert set(map(tuple, padded.tolist())) <= train
    assert seen == set(range(len(data.buckets.edges)))
    assert [data.bucket(s, 3) for s in range(50)] == [data.bucket(s, 3) for s in range(50)]
    assert data.sample(9, generator)["label"].tolist() == [0, 1, 0, 1, 0, 1, 0, 1, 0]


def test_buckets_are_drawn_by_their_share() -> None:
    data = ragged(4000)
    drawn = (
        torch.bincount(torch.tensor([data.bucket(s, 1) for s in range(6000)]), minlength=len(data.buckets.edges)) / 6000
    )
    size = data.text.sizes
    rows = data.rows("train")
    want = torch.zeros(len(data.buckets.edges))
    for k in (0, 1):
        mine = torch.bucketize(size[rows[data.label[rows] == k]], torch.tensor(data.buckets.edges))
        want += torch.bincount(mine, minlength=len(data.buckets.edges)) / len(mine) / 2
    assert torch.allclose(drawn, want, atol=0.03)


def test_last_state_equals_packed_sequences() -> None:
    encoder = CodeEncoder(50, 7, 11).double()
    sizes = torch.randint(1, 14, (40,))
    x = torch.randint(4, 50, (40, 14)) * (torch.arange(14) < sizes[:, None])
    packed = nn.utils.rnn.pack_padded_sequence(encoder.embedding(x), sizes, batch_first=True, enforce_sorted=False)
    _, (h, _) = encoder.lstm(packed)
    assert torch.allclose(encoder(x), nn.functional.normalize(h[0], dim=1), atol=1e-12)


def test_overlong_and_unknown(capsys: pytest.CaptureFixture[str]) -> None:
    Ragged.given = {name: Part(["a b", "c d", "a b c d e f"] * 3, [0, 1, 1] * 3) for name in ("train", "dev", "test")}
    Ragged.given["test"].lines[0] = "z z"
    data = Ragged(Ragged.Config(max_len=4), torch.device("cpu"), distk.Files("ragged", None, ""))
    assert len(data.rows("train")) == 6
    assert data.spec.shape == (3,)
    assert data.unknown["test"] == pytest.approx(2 / 12)
    text = capsys.readouterr().err
    assert "9 sentences of more than 4 words left out" in text
    assert "are outside the vocabulary" in text


# The stand-in


def test_grammar_labels_partners_and_streams() -> None:
    for grammar in standin.VARIANTS.values():
        made = standin.generate(grammar, 1500, f"s{random.random()}")
        assert all(standin.oracle(s.words) == s.label for s in made)
        assert all(standin.oracle(standin.gold(s.words)) == 1 - s.label for s in made)
        assert all(standin.gold(standin.gold(s.words)) == list(s.words) for s in made)
        assert all(len(s.words) == len(s.tags) and len(s.words) <= 15 for s in made)
        assert all(any(tag == "NN" for tag in s.tags) for s in made)
        assert {s.template for s in made} == set(range(grammar.templates))
        assert abs(sum(s.label for s in made) - 750) <= 1
    polar = [
        w for pairs in (standin.ADJECTIVES, standin.PRESENT, standin.PAST, standin.ADVERBS) for p in pairs for w in p
    ]
    assert len(set(polar)) == len(polar)
    full = standin.VARIANTS["full"]
    assert standin.generate(full, 50, "0/train") == standin.generate(full, 80, "0/train")[:50]
    assert standin.generate(full, 50, "0/train") != standin.generate(full, 50, "0/dev")


def test_label_noise_is_in_training_only() -> None:
    data = distk.dataset("standin-reviews", device="cpu", variant="small", sentences=4000, held_out=300)
    truth = {s: [data.oracle(w) for w in data.words(data.rows(s))] for s in ("train", "test")}
    wrong = sum(a != b for a, b in zip(truth["train"], data.label[data.rows("train")].tolist(), strict=True))
    assert 0.07 < wrong / 4000 < 0.13
    assert truth["test"] == data.label[data.rows("test")].tolist()
    topics = distk.dataset(
        "standin-reviews", device="cpu", variant="full", label_from="topic", sentences=900, held_out=90
    )
    assert topics.spec.classes == ("restaurant", "hotel", "phone")
    rows = topics.rows("test")
    assert [topics.oracle(w) for w in topics.words(rows)] == topics.label[rows].tolist()


def test_written_standin_reads_back(tmp_path: Path) -> None:
    from distk.plugins.text.common.datasets import StandinConfig, write_standin

    write_standin(tmp_path, StandinConfig(variant="tiny", sentences=300, held_out=40, label_noise=0.0))
    direct = distk.dataset("standin-reviews:tiny", device="cpu", sentences=300, held_out=40, label_noise=0.0)
    read = distk.dataset("files", device="cpu", data_dir=tmp_path)
    assert sorted(read.lines(read.rows("test"))) == sorted(direct.lines(direct.rows("test")))
    assert read.vocab.tokens == direct.vocab.tokens
    tagged = distk.dataset("files", device="cpu", data_dir=tmp_path / "tagged", tagged=True)
    assert tagged.lines(tagged.rows("test")) == read.lines(read.rows("test"))
    gold = (tmp_path / "gold" / "test.0").read_text().splitlines()
    assert all(standin.oracle(line.split(" ")) == 1 for line in gold)


def test_no_character_category_breaks_a_line() -> None:
    """The tokenizer never yields a token with white space in it, whatever stands in the text."""
    odd = "".join(chr(c) for c in random.sample(range(32, 0x3000), 800) if unicodedata.category(chr(c)) != "Cs")
    assert all(not any(ch in " \n" for ch in token) for token in split_words(odd, raw=True))
