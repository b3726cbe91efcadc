"""Text without labels and with further columns, in words and characters, against naive padding of the same lines."""

from __future__ import annotations

import gzip
import random
import string
from pathlib import Path

import numpy as np
import pytest
import torch

import distk
from distk import DistkError, UsageError
from distk.plugins.text.common import conllu, files
from distk.plugins.text.common.columns import Classes, Column, Draft
from distk.plugins.text.common.files import Part
from distk.plugins.text.common.splits import completed, divided, held_out, joined, unlabelled
from distk.plugins.text.common.vocab import EOS, PAD, SPECIALS, UNK, Vocab
from distk.testing import check_dataset


@pytest.fixture(autouse=True)
def seeded(seed: int) -> None:
    random.seed(seed)


def sentence(most: int = 12, alphabet: str = "abcdé ß") -> str:
    """A random line that neither begins nor ends with a space."""
    return "x" + "".join(random.choice(alphabet) for _ in range(random.randint(0, most - 2))) + "y"


def write(folder: Path, **columns: list[str]) -> Path:
    """Columns as files: `train_en=[...]` is train.en."""
    for name, lines in columns.items():
        (folder / name.replace("_", ".")).write_text("".join(line + "\n" for line in lines))
    return folder


# Characters


def test_characters_are_sorted_by_count_and_come_back(seed: int) -> None:
    text = [sentence(30, string.ascii_letters + "äß€ 😀") for _ in range(50)]
    counts: dict[str, int] = {}
    for line in text:
        for c in line:
            counts[c] = counts.get(c, 0) + 1
    vocab = Vocab.build(counts, lowercase=False, max_len=30, unit="char")
    assert vocab.tokens[4:] == tuple(sorted(counts, key=lambda c: (-counts[c], c)))
    again = Vocab.from_dict(vocab.to_dict())
    assert again == vocab
    assert again.lines(again.pad([again.words(line) for line in text])) == text
    assert again.encode("x☃y") == [again.ids["x"], UNK, again.ids["y"]]


def test_composed_and_decomposed_letters_are_one_character() -> None:
    vocab = Vocab.build({"é": 1}, unit="char", lowercase=False)
    assert vocab.encode(vocab.words("e\u0301")) == vocab.encode(vocab.words("é")) == [4]


@pytest.mark.parametrize(
    "change", [{"unit": "syllable"}, {"unit": []}, {"vocab": [*SPECIALS, "ab"]}, {"vocab": [*SPECIALS, "\n"]}]
)
def test_a_damaged_vocabulary_of_characters_is_refused(change: dict) -> None:
    good = Vocab.build({"a": 1, " ": 2}, unit="char").to_dict()
    assert Vocab.from_dict(good).unit == "char"
    with pytest.raises(DistkError, match="vocabulary"):
        Vocab.from_dict({**good, **change})


# Columns


def test_a_column_holds_what_was_put_in(seed: int) -> None:
    lines = [None if random.random() < 0.2 else sentence(9) for _ in range(200)]
    draft = Draft(list)
    for line in lines:
        draft.add(line)
    rows = np.array([random.random() < 0.7 for _ in lines])
    kept = [line for line, k in zip(lines, rows, strict=True) if k]
    vocab = Vocab.build(draft.counts(rows), unit="char", lowercase=False)
    assert draft.counts(rows) == {c: "".join(filter(None, kept)).count(c) for c in set("".join(filter(None, kept)))}
    column = draft.column(vocab, rows, torch.device("cpu"))
    found = column.batch(torch.arange(len(kept)), 12).tolist()
    for line, ids in zip(kept, found, strict=True):
        expected = [] if line is None else [*vocab.encode(line), EOS]
        assert ids == expected + [PAD] * (12 - len(expected))
    assert column.sizes.tolist() == [0 if line is None else len(line) + 1 for line in kept]


@pytest.mark.parametrize(("symbols", "kind"), [(100, torch.uint8), (300, torch.int16), (40_000, torch.int32)])
def test_ids_take_the_smallest_type_that_holds_them(symbols: int, kind: torch.dtype) -> None:
    draft = Draft(str.split)
    draft.add(" ".join(f"w{i}" for i in range(symbols)))
    vocab = Vocab.build(draft.counts(np.array([True])))
    column = draft.column(vocab, np.array([True]), torch.device("cpu"))
    assert column.tokens.dtype == kind
    assert vocab.decode(column.batch(torch.tensor([0]), symbols + 1)[0].tolist()) == [f"w{i}" for i in range(symbols)]


def parallel(folder: Path, n: int = 600, **settings: object) -> tuple[distk.Dataset, dict[str, list[str]]]:
    """Random lines in two languages with tags, as files and as read."""
    lines = {
        "en": [f"{sentence(random.choice((9, 40)))}{i}" for i in range(n)],
        "de": [sentence(30, "äöüß xyz") for _ in range(n)],
        "pos": [" ".join(random.choices(("NN", "VB", "DT"), k=random.randint(1, 9))) for _ in range(n)],
    }
    write(folder, **{f"train_{name}": held for name, held in lines.items()})
    return distk.dataset("parallel", device="cpu", data_dir=folder, **settings), lines


def test_every_column_has_its_own_vocabulary_and_length(tmp_path: Path) -> None:
    data, lines = parallel(tmp_path)
    assert data.spec.classes == ()
    assert set(data.batch(torch.arange(3))) == {"x", "de", "pos"}
    order = [lines["en"].index(line) for line in data.lines(torch.arange(len(data)))]
    assert sorted(order) == list(range(600)), "every line is there once"
    for name in ("de", "pos"):
        assert data.lines(torch.arange(len(data)), name) == [lines[name][i] for i in order]
    assert set(data.column("pos").vocab.tokens[4:]) == {"NN", "VB", "DT"}
    assert "ä" in data.column("de").vocab.ids
    assert "ä" not in data.vocab.ids
    described = data.spec.extra["columns"]
    assert Vocab.from_dict(described["de"]) == data.column("de").vocab
    assert data.batch(torch.arange(5))["pos"].shape == (5, described["pos"]["max_len"] + 1)


def test_shapes_are_known_from_the_bucket(tmp_path: Path, generator: torch.Generator) -> None:
    data, _ = parallel(tmp_path, 3000)
    assert len(data.buckets.edges) > 1
    for bucket, widths in enumerate(data.buckets.widths):
        batch = data.sample(64, generator, bucket=bucket)
        assert {name: x.shape for name, x in batch.items()} == {name: (64, w) for name, w in widths.items()}
        assert bool((batch["de"] == EOS).any(1).all()), "a bucket cuts no target"
        assert bool((batch["pos"] == EOS).any(1).all())


def test_conformance_of_columns(tmp_path: Path) -> None:
    parallel(tmp_path)
    check_dataset("parallel", tmp_path)
    check_dataset("parallel", tmp_path, unit="word", languages="de,en")


def test_sampling_reads_nothing_back(tmp_path: Path, generator: torch.Generator) -> None:
    from distk.testing import NoHostReads

    data, _ = parallel(tmp_path)
    bucket = data.bucket(0, 0)
    with NoHostReads():
        data.sample(16, generator, bucket=bucket)


def test_one_language_alone_is_text_without_labels(tmp_path: Path, generator: torch.Generator) -> None:
    # Of one length: what is longer than all lines of training would be left out of a test.
    write(tmp_path, train_txt=[f"{sentence():12}y" for _ in range(40)])
    data = distk.dataset("parallel", device="cpu", data_dir=tmp_path)
    assert set(data.sample(4, generator)) == {"x"}
    assert (len(data.rows("train")), len(data.rows("dev")), len(data.rows("test"))) == (32, 4, 4)
    with pytest.raises(UsageError, match="unknown split 'unsup' of data set 'parallel'"):
        data.rows("unsup")


# Files


def test_ugly_files_say_the_same_as_plain_ones(tmp_path: Path) -> None:
    lines = [sentence(9, "abé") for _ in range(30)]
    made = {
        "plain": "".join(line + "\n" for line in lines).encode(),
        "crlf": "".join(line + "\r\n" for line in lines).encode(),
        "bom": ("\ufeff" + "\n".join(lines)).encode(),
        "packed": gzip.compress("\n".join(lines).encode()),
        "members": gzip.compress("\n".join(lines[:7]).encode() + b"\n") + gzip.compress("\n".join(lines[7:]).encode()),
    }
    for name, content in made.items():
        (tmp_path / name).write_bytes(content)
        assert files.read_lines(tmp_path / name) == lines, name
    (tmp_path / "latin").write_bytes("\n".join(lines).encode("latin-1") + b"\xe9\n")
    with pytest.raises(DistkError, match=r"is not utf-8: line \d+, byte offset \d+.*latin-1"):
        files.read_lines(tmp_path / "latin")
    (tmp_path / "wide").write_bytes("\n".join(lines).encode("utf-16"))
    with pytest.raises(DistkError, match="begins like utf-16"):
        files.read_lines(tmp_path / "wide")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (gzip.compress(b"word\n" * 500, mtime=0)[:-9], "cut off"),
        (gzip.compress(b"word\n" * 500, mtime=0)[:40] + b"\xff" * 40, "damaged|cut off"),
        (gzip.compress(bytes(200 << 20), mtime=0), "unpacks to more than"),
    ],
)
def test_a_bad_gzip_file_is_one_sentence(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "a.gz").write_bytes(content)
    with pytest.raises(DistkError, match=words):
        files.read_text(tmp_path / "a.gz")


def test_western_text_is_told_apart(tmp_path: Path) -> None:
    for content, encoding in (("naïve".encode(), "utf-8"), (b"so \x97 so \x85", "cp1252"), (b"\xe9\x81", "latin-1")):
        (tmp_path / "t").write_bytes(content)
        assert files.western(tmp_path / "t") == encoding
    for name in ("neg", "pos"):
        (tmp_path / f"rt-polarity.{name}").write_bytes(b"caf\xe9 is \x85 fine\n" * 20)
    data = distk.dataset("rtpolarity", device="cpu", data_dir=tmp_path)
    assert data.lines(data.rows("test")[:1]) == ["café is … fine"]


def test_lines_that_do_not_match_are_refused(tmp_path: Path) -> None:
    write(tmp_path, train_en=["a b"] * 5, train_de=["c"] * 4)
    with pytest.raises(UsageError, match=r"train\.\w+' has \d lines and '.*train\.\w+' \d; line by line"):
        distk.dataset("parallel", device="cpu", data_dir=tmp_path)
    with pytest.raises(UsageError, match=r"found no file '.*train\.fr'"):
        distk.dataset("parallel", device="cpu", data_dir=tmp_path, languages="en,fr")
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "train.tsv").write_text("a\tb\nc\td\te\n")
    with pytest.raises(DistkError, match=r"line 2 of .* has 3 columns apart by tabs, line 1 has 2"):
        distk.dataset("parallel", device="cpu", data_dir=tmp_path / "t")


def test_empty_sides_are_left_out_and_long_ones_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, train_en=["aa", "", "bb", "cc" * 9, "dd"] * 8, train_de=["x", "y", "  ", "z", "w" * 30] * 8)
    data = distk.dataset("parallel", device="cpu", data_dir=tmp_path, max_len=10, max_target=12)
    assert len(data) == 8
    assert set(data.lines(torch.arange(8), "de")) == {"x"}
    told = capsys.readouterr().err
    assert "8 sentences of more than 10 characters left out" in told
    assert "8 sentences of more than 12 characters in 'de' left out" in told


def test_tags_must_be_as_many_as_words(tmp_path: Path) -> None:
    for split in ("train", "dev", "test"):
        (tmp_path / f"{split}.0").write_text("the_DT dog_NN\n")
        (tmp_path / f"{split}.1").write_text("a_NN\tc_VB\n")
    data = distk.dataset("files", device="cpu", data_dir=tmp_path, tagged=True)
    assert data.nouns(data.rows("test")) == [[False, True], [True, False]]
    part = Part(["a b", "c d"], [0, 1], [["NN", "VB"], ["NN"]])

    class Odd(type(data)):
        def read(self, files: object) -> tuple:
            return divided(joined([{"all": part}] * 10)["all"]), ("no", "yes"), "made up"

    with pytest.raises(DistkError, match="has 2 words and 1 tag: 'c d'"):
        Odd(Odd.Config(), torch.device("cpu"), distk.Files("odd", None, ""))


# Trees


def tree(name: str, *words: str, tag: str = "NOUN") -> str:
    rows = [f"{i}\t{w}\t{w}\t{tag}\tNN\t_\t0\troot\t_\t_" for i, w in enumerate(words, 1)]
    return f"# sent_id = {name}\n# text = {' '.join(words)}\n" + "\n".join(rows) + "\n\n"


def test_contractions_and_missing_text(tmp_path: Path) -> None:
    rows = [
        "1-2\tdu\t_\t_\t_\t_\t_\t_\t_\t_",
        "1\tde\t_\tADP\tIN\t_\t0\tr\t_\t_",
        "2\tle\t_\tDET\t_\t_\t0\tr\t_\t_",
        "3\tvin\t_\tNOUN\tNN\t_\t0\tr\t_\tSpaceAfter=No",
        "3.1\tghost\t_\tX\tX\t_\t_\t_\t_\t_",
        "4\t.\t_\tPUNCT\t.\t_\t0\tr\t_\t_",
    ]
    (tmp_path / "a").write_text("\n".join(rows) + "\n")  # no blank line at the end
    (found,) = conllu.read_sentences(tmp_path / "a")
    assert found.text == "du vin."
    assert found.words == ["de", "le", "vin", "."]
    assert found.upos == ["ADP", "DET", "NOUN", "PUNCT"]
    assert conllu.read_conllu(tmp_path / "a")[0][1] == ["IN", "DET", "NN", "."]
    (tmp_path / "b").write_text(rows[1].replace("\t", " ", 1) + "\n")
    with pytest.raises(DistkError, match=r"line 1 of .* has 9 columns; CoNLL-U has 10"):
        conllu.read_sentences(tmp_path / "b")


def test_languages_stand_side_by_side_or_in_one_pool(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    english = "".join(tree(f"s{i}", "a", "dog", f"w{i}") for i in range(30))
    german = "".join(tree(f"s{i}", "ein", f"w{i}", tag="VERB") for i in reversed(range(2, 32)))
    (tmp_path / "en_x-ud-test.conllu").write_text(english)
    (tmp_path / "de_x-ud-test.conllu.gz").write_bytes(gzip.compress(german.encode()))
    data = distk.dataset("ud", device="cpu", data_dir=tmp_path, min_count=1)
    every = torch.arange(len(data))
    assert len(data) == 28
    assert "2 sentences left out that not every language has" in capsys.readouterr().err
    for en, de in zip(data.lines(every), data.lines(every, "de"), strict=True):
        assert en.split()[-1] == de.split()[-1], "the same sentence"
    assert set(data.lines(every, "pos")) == {"NOUN NOUN NOUN"}
    pool = distk.dataset("ud", device="cpu", data_dir=tmp_path, min_count=1, arrange="pool", unit="word")
    language = pool.columns["language"]
    assert isinstance(language, Classes)
    assert language.names == ("de", "en")
    assert torch.bincount(language.values).tolist() == [30, 30]
    for row, line in enumerate(pool.lines(torch.arange(60))):
        assert language.names[language.values[row]] == ("en" if "dog" in line.split() else "de")
        assert len(line.split()) == len(pool.lines(torch.tensor([row]), "pos")[0].split())
    with pytest.raises(UsageError, match=r"no language 'fr'.*de"):
        distk.dataset("ud", device="cpu", data_dir=tmp_path, languages="fr")


# Splits


def test_splits_are_filled_in_and_never_mixed(seed: int) -> None:
    part = Part(
        [f"s{i}" for i in range(100)], [i // 50 for i in range(100)], columns={"c": [f"c{i}" for i in range(100)]}
    )
    made = divided(part)
    assert sorted(line for p in made.values() for line in p.lines) == sorted(part.lines)
    assert all(c == f"c{line[1:]}" for p in made.values() for line, c in zip(p.lines, p.columns["c"], strict=True))
    assert [len(p.lines) for p in made.values()] == [80, 10, 10]
    assert completed({"test": part})[0].keys() == {"train", "dev", "test"}
    assert completed({"train": part, "test": Part(["t"], [0])})[0]["dev"].lines == ["t"]
    both = joined([made, {name: Part(["n"], [1]) for name in made}, {"unsup": unlabelled(part)}])
    assert both["test"].lines == [*made["test"].lines, "n"]
    assert both["test"].columns["c"][-1] is None
    assert both["unsup"].labels == [-1] * 100
    taken, rest = held_out(part, 30)
    assert len(taken.lines) == 30
    assert sorted(taken.lines + rest.lines) == sorted(part.lines)
    assert set(taken.labels) == {0, 1}


def test_joined_corpora_share_a_vocabulary_and_keep_text_without_labels(
    tmp_path: Path, generator: torch.Generator
) -> None:
    for name in ("neg", "pos"):
        (tmp_path / f"rt-polarity.{name}").write_text(f"film {name} one .\n" * 50)
    for name in ("amazon_cells", "imdb", "yelp"):
        (tmp_path / f"{name}_labelled.txt").write_text("Phone bad!\t0\nPhone good!\t1\n" * 20)
    (tmp_path / "finegrained.txt").write_text("d\nbooks\t3\n" + "pos\tFine book\nneg\tPoor book\nneu\tA book\n" * 20)
    scored = '{"review": "only here unk", "score": 1}\n' * 30
    (tmp_path / "filter_imdb_valid.jsonl").write_text(scored)
    data = distk.dataset("sentiment3", device="cpu", data_dir=tmp_path, uci_per_domain=10)
    assert data.spec.classes == ("negative", "positive")
    assert data.lines(data.rows("unsup")[:1]) == ["only here unk"]
    assert "here" in data.vocab.ids, "the vocabulary is of both kinds of text"
    assert set(data.label[data.rows("unsup")].tolist()) == {-1}
    corpus = data.columns["corpus"]
    counts = torch.bincount(corpus.values[corpus.values >= 0]).tolist()
    assert dict(zip(corpus.names, counts, strict=True)) == {"finegrained": 40, "rtpolarity": 100, "uci": 30}
    bucket = data.bucket(0, 0, "unsup")
    batch = data.sample(50, generator, "unsup", bucket)
    assert set(batch["label"].tolist()) == {-1}
    assert set(data.sample(50, generator, "train")["label"].tolist()) == {0, 1}
    (tmp_path / "filter_imdb_valid.jsonl").write_text(scored + "{}\n")
    with pytest.raises(DistkError, match=r"line 31 of .* is not a JSON object"):
        distk.dataset("sentiment3", device="cpu", data_dir=tmp_path)


# Real files


def test_real_multi30k(real) -> None:
    folder = real("multi30k/train.en.gz").parent
    data = distk.dataset("multi30k", device="cpu", data_dir=folder)
    every = torch.arange(len(data))
    lines = {name: files.read_lines(folder / f"train.{name}.gz") for name in ("en", "de", "fr")}
    number = {line: i for i, line in enumerate(lines["en"]) if lines["en"].count(line) == 1 or len(line) > 80}
    rows = data.rows("train")[:400]
    for en, de in zip(data.lines(rows), data.lines(rows, "de"), strict=True):
        if en in number and "<unk>" not in en + de:
            assert lines["de"][number[en]].strip() == de
    assert data.text.tokens.dtype == torch.uint8
    assert len(data.rows("test")) > 900
    train = set(data.lines(data.rows("train")))
    assert len(data) == len(every)
    assert len(train) > 26_000


def test_real_trees(real) -> None:
    data = distk.dataset("ud", device="cpu", data_dir=real("ud_pud"), max_len=500, max_target=500, min_count=1)
    assert 790 <= len(data) <= 800, "of dev and test a sentence that is longer than all of train is left out"
    assert set(data.columns) == {"pos", "de", "fr"}
    assert all(isinstance(held, Column) for held in data.columns.values())
    sentences = conllu.read_sentences(real("ud_pud/en_pud-ud-test.first800.conllu.gz"))
    tags = {s.text: " ".join(s.upos) for s in sentences}
    every = torch.arange(len(data))
    unknown = [line for line in data.lines(every) if "<unk>" in line]
    assert len(unknown) < 20
    for line, found in zip(data.lines(every), data.lines(every, "pos"), strict=True):
        assert line in unknown or tags[line] == found
    assert len(conllu.read_sentences(real("ud_ewt/en_ewt-ud-dev.conllu.gz"))) == 2001


def test_real_text_is_put_together_from_words(real) -> None:
    """Where a file says its text, the words give the same one."""
    sentences = conllu.read_sentences(real("ud_pud/fr_pud-ud-test.first800.conllu.gz"))
    raw = files.read_text(real("ud_pud/fr_pud-ud-test.first800.conllu.gz")).replace("# text = ", "# other = ")
    path = real("ud_pud")
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "f").write_text(raw)
        again = conllu.read_sentences(Path(folder) / "f")
    same = sum(a.text == b.text for a, b in zip(sentences, again, strict=True))
    assert path.is_dir()
    assert same > 790


def test_real_corpora_with_text_without_labels(real) -> None:
    real("imdb_sentences/filter_imdb_valid.jsonl.gz")
    folder = real("rt_polarity").parent
    data = distk.dataset("sentiment3", device="cpu", data_dir=folder, min_count=2)
    assert len(data.rows("unsup")) == 27_529
    assert data.counts[0] > 4000
    assert not set(data.rows("unsup").tolist()) & set(data.rows("train").tolist())


def test_real_latin_captions(real) -> None:
    folder = real("imagecaption_li")
    with pytest.raises(DistkError, match=r"sentiment\.train\.1' is not utf-8: line \d+.*--encoding latin-1"):
        distk.dataset("yelp", device="cpu", data_dir=folder)
    data = distk.dataset("yelp", device="cpu", data_dir=folder, encoding="latin-1")
    assert sum(data.counts) > 11_900
