"""Vectors out of tables."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from distk import DistkError, FactorDataset, UsageError, open_dataset

X = np.random.default_rng(3).normal(size=(9000, 3))
KIND = np.array(["emu", "cat", "dog"])[np.arange(9000) % 3]
ANGLE = np.linspace(0, 1, 9000)


def lines(mark: str, n: int = 9000) -> str:
    head = mark.join(("a", "b", "c", "kind", "angle", "note"))
    rows = (
        mark.join((*map(repr, map(float, X[i])), str(KIND[i]), repr(float(ANGLE[i])), f'"say ""{i}""{mark} ok"'))
        for i in range(n)
    )
    return "\n".join((head, *rows)) + "\n"


def written(folder: Path, form: str) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / f"t.{form.partition(' ')[0]}"
    if form == "parquet":
        pa = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        columns = dict(zip("abc", X.T, strict=True)) | {"kind": KIND, "angle": ANGLE, "note": KIND}
        parquet.write_table(pa.table(columns), path)
    else:
        path.write_text(lines({"csv": ",", "tsv": "\t", "csv semicolons": ";"}[form]))
    return path


FORMS = ["csv", "tsv", "csv semicolons", "parquet"]
ROLES = {"factors": ("kind", "angle")}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_vectors_and_factors(tmp_path: Path, form: str) -> None:
    data = open_dataset("table", ROLES, folder=written(tmp_path, form))
    rows = torch.tensor([0, 4095, 4096, 8999])
    assert isinstance(data, FactorDataset)
    assert (data.spec.kind, data.spec.shape) == ("vector", (3,))
    assert torch.equal(data.batch(rows)["x"], torch.from_numpy(X[rows].astype(np.float32)))
    assert (data.factor_names, data.factor_kinds) == (("kind", "angle"), ("categorical", "continuous"))
    assert data.factors(rows)[:, 0].tolist() == [{"cat": 0, "dog": 1, "emu": 2}[str(KIND[i])] for i in rows]
    assert torch.equal(data.truth(rows)[:, 1], torch.from_numpy(ANGLE)[rows])
    assert any(sentence.endswith("not read: note") for sentence in data.told)
    assert (data.spec.range[0], data.spec.range[1]) == pytest.approx((X.min(), X.max()), rel=1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_labels_by_name_and_a_choice_of_columns(tmp_path: Path, form: str) -> None:
    options = {"columns": ("c", "a"), "label_column": "kind"}
    data = open_dataset("table", options, folder=written(tmp_path, form))
    assert data.spec.classes == ("cat", "dog", "emu")
    batch = data.batch(torch.arange(3))
    assert batch["label"].tolist() == [2, 0, 1]
    assert torch.equal(batch["x"], torch.from_numpy(X[:3, [2, 0]].astype(np.float32)))


def test_columns_that_say_what_they_are(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("\ufeffx,Class,split\n1,3,train\n2,0,validation\n\n3,1,test\n", encoding="utf-8")
    data = open_dataset("table", folder=tmp_path / "t.csv")
    assert data.spec.classes == ("0", "1", "2", "3")
    assert data.label.tolist() == [3, 0, 1]
    assert {name: rows.tolist() for name, rows in data.parts.items()} == {"train": [0], "val": [1], "test": [2]}


def test_a_table_without_names(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("1,2\n3,4\n")
    data = open_dataset("table", folder=tmp_path)
    assert data.batch(torch.arange(2))["x"].tolist() == [[1, 2], [3, 4]]
    assert data.told == (f"'{tmp_path / 't.csv'}' names no columns: they are c1 to c2",)


@pytest.mark.parametrize("packed", [False, True])
def test_tables_of_splits(tmp_path: Path, packed: bool) -> None:
    root = tmp_path / "parts"
    root.mkdir()
    (root / "train.csv").write_text("a,b\n1,2\n3,4\n5,6\n")
    (root / "test.csv").write_text("a,b\n7,8\n")
    place = shutil.make_archive(str(tmp_path / "packed"), "zip", root) if packed else root
    data = open_dataset("table", folder=place)
    assert {name: rows.tolist() for name, rows in data.parts.items()} == {"train": [0, 1, 2], "test": [3]}
    assert data.batch(data.rows("test"))["x"].tolist() == [[7, 8]]
    (root / "test.csv").write_text("a,c\n7,8\n")
    with pytest.raises(DistkError, match="different columns"):
        open_dataset("table", folder=root)


def test_rows_with_gaps_stop_or_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a,b,label\n1,2,x\n3,,y\n5,six,x\n7,8,\n9,inf,x\n11,12,y\n13,14,y\n")
    with pytest.raises(DistkError, match=r"row 2 has nothing in column 'b' of .*--on-bad skip"):
        open_dataset("table", folder=path)
    data = open_dataset("table", {"on_bad": "skip"}, folder=path)
    assert data.batch(torch.arange(3))["x"].tolist() == [[1, 2], [11, 12], [13, 14]]
    assert data.label.tolist() == [0, 1, 1]
    (said,) = data.told
    assert said.startswith("4 rows of ")
    assert "row 3 has 'six' in column 'b'; row 4 has nothing in column 'label'" in said


@pytest.mark.parametrize(
    ("content", "options", "match"),
    [
        ("", {}, "has no columns|no rows"),
        ("a,b\n", {}, "has no rows"),
        ("a,b\nx,y\n", {}, "no column of numbers"),
        ("a,a\n1,2\n", {}, "two columns 'a'"),
        ("a,b\n1,2,3\n", {}, "row 1 of .* has 3 cells, its first line 2"),
        ("a,b\n1,2\n", {"factors": ("bb",)}, "no column 'bb'"),
        ("a,b\n1,2\n", {"label_column": "kind"}, "no column 'kind'"),
        ('a,b\n1,"2\n', {}, "cannot be read as a table"),
        ("a,b\n1,1e300\n2,3\n", {}, "32 bits cannot hold"),
    ],
)
def test_tables_that_do_not_fit(tmp_path: Path, content: str, options: dict[str, Any], match: str) -> None:
    (tmp_path / "t.csv").write_text(content)
    with pytest.raises((UsageError, DistkError), match=match):
        open_dataset("table", options, folder=tmp_path / "t.csv")


def test_places_that_do_not_fit(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="needs a file"):
        open_dataset("table")
    with pytest.raises(UsageError, match="found none"):
        open_dataset("table", folder=tmp_path)
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text("a\n1\n")
    with pytest.raises(UsageError, match=r"found a\.csv, b\.csv"):
        open_dataset("table", folder=tmp_path)
    (tmp_path / "c.csv").write_bytes(b"a,b\n1,\xff\xfe\n")
    with pytest.raises(DistkError, match="cannot be read as a table"):
        open_dataset("table", folder=tmp_path / "c.csv")


def test_a_damaged_parquet_file(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    path = written(tmp_path, "parquet")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DistkError, match="cannot be read as Parquet"):
        open_dataset("table", folder=path)


def test_a_model_trains_on_a_table_and_is_scored_by_its_factors(tmp_path: Path, in_folder: Path) -> None:
    import distk

    path = written(tmp_path / "in", "csv")
    common: dict[str, Any] = {"data_factors": ("kind", "angle"), "likelihood": "gaussian", "arch": "mlp", "z": 2}
    run = distk.train(
        "vae",
        out=tmp_path / "run",
        data="table",
        data_dir=str(path),
        steps=2,
        batch=8,
        device="cpu",
        quiet=True,
        **common,
    )
    model = distk.load(run.checkpoint)
    assert model.spec.extra["factors"] == {"kind": 3, "angle": 9000}
    assert distk.evaluate(model, ["mig"], rows=500)["metrics"]["mig"]["mig"] >= 0


def test_a_table_without_rows_is_refused_in_a_sentence(tmp_path: Path) -> None:
    for name, text in (("blank", "a,b\n\n\n"), ("head", "a,b\n"), ("nothing", "")):
        path = tmp_path / f"{name}.csv"
        path.write_text(text)
        with pytest.raises(DistkError, match=r"has no (rows|columns)\.$"):
            open_dataset("table", folder=path)
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pa.table({"a": pa.array([], pa.float64())}), tmp_path / "none.parquet")
    with pytest.raises(DistkError, match=r"has no rows\.$"):
        open_dataset("table", folder=tmp_path / "none.parquet")
