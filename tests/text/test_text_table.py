"""text-table: sentences in CSV, TSV, Parquet, and in what Hugging Face's datasets saved."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from distk import DistkError, UsageError
from distk.commands.data import _class_counts
from distk.data import open_dataset
from distk.testing import check_dataset


def rows(n: int = 40) -> list[tuple[str, str]]:
    return [
        (f"the {'soup' if i % 3 else 'bread'} number {i} was {'good' if i % 2 else 'cold'}", "pn"[i % 2])
        for i in range(n)
    ]


def write(
    path: Path, held: list[tuple[str, ...]], head: tuple[str, ...] = ("review", "label"), mark: str = ","
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(mark.join(cells) for cells in [head, *held]) + "\n")
    return path


@pytest.mark.parametrize(("name", "mark"), [("a.csv", ","), ("a.csv", ";"), ("a.tsv", "\t")])
def test_a_file_of_rows(tmp_path: Path, name: str, mark: str) -> None:
    data = open_dataset("text-table", folder=write(tmp_path / name, rows(), mark=mark))
    assert data.spec.classes == ("n", "p")
    assert sum(len(part) for part in data.parts.values()) == 40
    assert torch.bincount(data.label).tolist() == [20, 20]
    assert len(data.rows_of("train")) == 32
    check_dataset("text-table", tmp_path / name)


def test_columns_by_name_and_what_is_left_out(tmp_path: Path) -> None:
    held = [(str(i), text, "x", label, "dev" if i < 5 else "Training") for i, (text, label) in enumerate(rows())]
    held += [("40", "", "y", "p", "train"), ("41", "no label here", "z", "", "train")]
    path = write(tmp_path / "a.csv", held, ("id", "what was said", "note", "mood", "part"))
    options = {"text_column": "what was said", "label_column": "mood", "split_column": "part"}
    data = open_dataset("text-table", options, folder=path)
    # Without a test split of its own, dev serves as both.
    assert [len(data.rows_of(name)) for name in ("train", "dev", "unsup")] == [35, 5, 1]
    assert data.label[data.rows_of("unsup")].tolist() == [-1]
    told = " ".join(data.told)
    assert "1 row of" in told
    assert "not read: id, note" in told


def test_files_are_splits_also_in_an_archive(tmp_path: Path) -> None:
    held = rows(60)
    for name, part in (("train", held[:40]), ("valid", held[40:50]), ("test", held[50:])):
        write(tmp_path / "in" / "reviews" / f"{name}.csv", part)
    packed = shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path / "in")
    for place in (tmp_path / "in" / "reviews", Path(packed)):
        data = open_dataset("text-table", folder=place)
        assert [len(data.rows_of(name)) for name in ("train", "dev", "test")] == [40, 10, 10]


def test_parquet(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="the package pyarrow (distk[tables]) is not installed")
    parquet = pytest.importorskip("pyarrow.parquet")
    said, labels = zip(*rows(), strict=True)
    parquet.write_table(
        pyarrow.table({"text": said, "stars": [1 + (x == "p") for x in labels]}), tmp_path / "a.parquet"
    )
    data = open_dataset("text-table", folder=tmp_path / "a.parquet")
    assert data.spec.classes == ("1", "2"), "whole numbers in their order"
    assert len(data) == 40


def test_what_hugging_face_saved(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="the package datasets (distk[hf]) is not installed")
    said, labels = zip(*rows(), strict=True)
    features = datasets.Features(
        {
            "text": datasets.Value("string"),
            "label": datasets.ClassLabel(names=["bad", "good"]),
            "n": datasets.Value("int32"),
        }
    )
    whole = datasets.Dataset.from_dict(
        {"text": said, "label": [int(x == "p") for x in labels[:-1]] + [-1], "n": list(range(40))}, features=features
    )
    parts = {
        "train": whole.select(range(30)),
        "validation": whole.select(range(30, 35)),
        "test": whole.select(range(35, 40)),
    }
    datasets.DatasetDict(parts).save_to_disk(str(tmp_path / "saved"))
    data = open_dataset("text-table", folder=tmp_path / "saved")
    assert data.spec.classes == ("bad", "good")
    assert [len(data.rows_of(name)) for name in ("train", "dev", "test", "unsup")] == [30, 5, 4, 1]
    assert any("not read: n" in told for told in data.told)


def test_refusals(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", rows())
    for options, said in (
        ({"text_column": "revew"}, "has no column 'revew'. Did you mean 'review'"),
        ({"text_column": "label"}, "cannot be both text and label"),
    ):
        with pytest.raises(UsageError, match=said):
            open_dataset("text-table", options, folder=path)
    with pytest.raises(UsageError, match="--data-dir"):
        open_dataset("text-table")
    write(path, [(a, a, b) for a, b in rows()], ("one", "two", "label"))
    with pytest.raises(UsageError, match="name that of the sentences with --text-column"):
        open_dataset("text-table", folder=path)
    write(path, [(a, "middle") for a, _ in rows()], ("text", "split"))
    with pytest.raises(DistkError, match="names the split 'middle'"):
        open_dataset("text-table", folder=path)
    write(path, [("", "p")] * 4)
    with pytest.raises((DistkError, UsageError)):
        open_dataset("text-table", {"text_column": "review"}, folder=path)
    write(path, [*rows(), ("one cell too", "many", "here")])
    with pytest.raises(DistkError, match="row 41 of"):
        open_dataset("text-table", folder=path)


# Text out of archives, and files that are no texts


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = tmp_path / "inside" / "corpus"
    folder.mkdir(parents=True)
    for split in ("train", "dev", "test"):
        for label in "01":
            lines = [text for text, own in rows(60) if "pn".index(own) == int(label)]
            (folder / f"{split}.{label}").write_text("\n".join(lines) + "\n")
    return folder


@pytest.mark.parametrize("kind", ["zip", "gztar"])
def test_a_corpus_in_an_archive(corpus: Path, tmp_path: Path, kind: str) -> None:
    packed = Path(shutil.make_archive(str(tmp_path / "packed"), kind, corpus.parent))
    here, there = open_dataset("files", folder=corpus), open_dataset("files", folder=packed)
    rows_ = torch.arange(len(here))
    assert all(torch.equal(here.batch(rows_)[key], there.batch(rows_)[key]) for key in ("x", "label"))
    assert str(packed) in there.origin
    assert "unpacked" not in there.origin


def test_an_error_in_an_archive_names_the_archive(corpus: Path, tmp_path: Path) -> None:
    (corpus / "train.1").write_bytes(b"caf\xe9\n")
    packed = Path(shutil.make_archive(str(tmp_path / "packed"), "zip", corpus.parent))
    with pytest.raises(DistkError, match=r"packed\.zip/train\.1' is not utf-8"):
        open_dataset("files", folder=packed)


@pytest.mark.parametrize(
    "name", ["train.csv", "train.json", "train.log", "train.png", "train.py", "train.npz", "train.1~"]
)
def test_files_that_are_no_texts_are_no_labels(corpus: Path, name: str) -> None:
    (corpus / name).write_bytes(b"a,b\n1,2\n")
    data = open_dataset("files", folder=corpus)
    assert data.spec.classes == ("0", "1")
    (told,) = data.told
    assert f"'{name}' left out" in told
    assert ("--data text-table" in told) == (name == "train.csv")
    parallel = open_dataset("parallel", {"unit": "word"}, folder=corpus)
    assert set(parallel.spec.extra.get("columns", {})) == {"1"}


def test_classes_are_counted_where_a_split_has_no_labels(corpus: Path) -> None:
    (corpus / "unsup.txt").write_text("the soup was good\nthe bread was cold\n")
    data = open_dataset("files", folder=corpus)
    counts = _class_counts(data)["class counts"]
    assert sum(counts["all"].values()) == len(data) - 2
    assert set(counts["unsup"].values()) == {0}


def test_bytes_are_no_text(corpus: Path) -> None:
    (corpus / "train.0").write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR")
    with pytest.raises(DistkError, match="is no text: it holds zero bytes"):
        open_dataset("files", folder=corpus)
