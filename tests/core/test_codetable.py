"""Any codes file: what stands in it in whichever form, words, names, row numbers, and the order of rows."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import distk
from distk.codefile import table_from_arrays
from distk.codetable import sorted_by
from distk.errors import DistkError, UsageError

WORDS = np.array(["circle", "heart", "square", "star"])


@pytest.fixture
def held(rng: np.random.Generator) -> dict[str, Any]:
    """Codes that know two factors, and the factors."""
    factors = np.stack([rng.integers(0, 4, 600), rng.integers(0, 5, 600)], 1)
    return {"codes": factors[:, [0, 1, 0]] + 0.5 * rng.normal(size=(600, 3)), "factors": factors}


def scores(table: distk.CodeTable) -> dict[str, float]:
    found = distk.evaluate(table, ["mig", "sap", "explicitness"])["metrics"]
    return {"mig": found["mig"]["mig"], "sap": found["sap"]["sap"], "test": found["explicitness"]["explicitness_test"]}


def write_csv(path: Path, held: dict[str, Any], mark: str = ",", words: bool = True) -> None:
    first = WORDS[held["factors"][:, 0]] if words else held["factors"][:, 0]
    rows = [["a", "b", "c", "shape", "size", "id"]]
    rows += [
        [*map(repr, map(float, code)), shape, size, i]
        for i, (code, shape, size) in enumerate(zip(held["codes"], first, held["factors"][:, 1], strict=True))
    ]
    path.write_text("\n".join(mark.join(map(str, row)) for row in rows))


def test_every_form_gives_the_same_figures(tmp_path: Path, held: dict[str, Any]) -> None:
    np.savez(tmp_path / "c.npz", **held)
    np.save(tmp_path / "c.npy", held["codes"])
    np.save(tmp_path / "f.npy", held["factors"])
    write_csv(tmp_path / "c.csv", held)
    write_csv(tmp_path / "c.tsv", held, "\t")
    columns = {"columns": ["a,b,c"], "factors": "shape,size"}
    expected = scores(table_from_arrays(tmp_path / "c.npz"))
    assert scores(distk.codes(held["codes"], held["factors"])) == expected
    assert scores(table_from_arrays(tmp_path / "c.npy", factors=tmp_path / "f.npy")) == expected
    assert scores(table_from_arrays(tmp_path / "c.npy", factors=str(tmp_path / "c.npz"))) == expected
    for name in ("c.csv", "c.tsv"):
        table = table_from_arrays(tmp_path / name, **columns)
        assert (table.names, table.factor_names) == (["a", "b", "c"], ("shape", "size"))
        assert table.factor_kinds == ("categorical", "ordinal")
        assert scores(table) == pytest.approx(expected)
    parquet = pytest.importorskip("pyarrow.parquet", reason="Parquet needs pyarrow")
    import pyarrow

    named = {"a": held["codes"][:, 0], "b": held["codes"][:, 1], "c": held["codes"][:, 2]}
    made = pyarrow.table({**named, "shape": WORDS[held["factors"][:, 0]], "size": held["factors"][:, 1]})
    parquet.write_table(made, tmp_path / "c.parquet")
    assert scores(table_from_arrays(tmp_path / "c.parquet", **columns)) == pytest.approx(expected)


def test_words_and_objects_are_classes(held: dict[str, Any]) -> None:
    words = WORDS[held["factors"][:, 0]]
    table = distk.codes(held["codes"], words)
    assert table.factors is not None
    assert table.factors[:, 0].tolist() == held["factors"][:, 0].tolist(), "in alphabetical order"
    assert table.factor_kinds == ("categorical",)
    mixed = distk.codes(held["codes"], {"shape": words, "size": held["factors"][:, 1]})
    assert mixed.factor_names == ("shape", "size")
    assert mixed.factor_kinds == ("categorical", "ordinal")
    objects = np.stack([words.astype(object), held["factors"][:, 1].astype(object)], 1)
    assert scores(distk.codes(held["codes"], objects)) == scores(mixed)
    assert scores(distk.codes(torch.tensor(held["codes"]), torch.tensor(held["factors"]))) == pytest.approx(
        scores(distk.codes(held["codes"], held["factors"]))
    )


@pytest.mark.parametrize("gap", [None, float("nan"), " "])
def test_a_gap_is_no_class(gap: Any, held: dict[str, Any], capfd: Any) -> None:
    words = WORDS[held["factors"][:, 0]].astype(object)
    words[7] = gap
    table = distk.codes(held["codes"], words)
    assert table.factors is not None
    assert table.factors[:, 0].isnan().nonzero().tolist() == [[7]]
    assert table.factor_sizes == (len(WORDS),)
    rest = np.delete(held["factors"][:, 0], 7)
    assert np.delete(table.factors[:, 0].numpy(), 7).tolist() == rest.tolist(), "the classes are those of the words"
    assert "factor 'f1' has no value in 1 of 600 rows" in table.extra["told"][0]
    with pytest.raises(UsageError, match="factor 'f2' of the codes has no value in any row"):
        distk.codes(held["codes"], np.stack([words, np.full(600, gap, object)], 1))


def test_numbers_with_a_gap(tmp_path: Path, held: dict[str, Any]) -> None:
    """In a table: a factor keeps its order, 2 before 10; a code must be there in every row."""
    pairs = zip(held["codes"], held["factors"][:, 0] > 0, strict=True)
    rows = ["a,size,b", *(f"{c[0]},{10 if f else 2},{c[1]}" for c, f in pairs)]
    rows[5] = rows[5].split(",")[0] + ",," + rows[5].split(",")[2]
    (tmp_path / "c.csv").write_text("\n".join(rows))
    table = table_from_arrays(tmp_path / "c.csv", factors=["size"])
    assert table.factors is not None
    assert table.factor_kinds == ("ordinal",)
    assert sorted(set(table.factors[~table.factors.isnan()].tolist())) == [2, 10]
    assert int(table.factors.isnan().sum()) == 1
    with pytest.raises(DistkError, match=r"column 'size' of .* has '' in row 5, which is no number; --factors"):
        table_from_arrays(tmp_path / "c.csv")


def test_codes_and_factors_are_chosen_by_name(tmp_path: Path, held: dict[str, Any]) -> None:
    np.savez(tmp_path / "c.npz", **held, code_names=["x", "y", "w"], factor_names=["shape", "size"])
    table = table_from_arrays(tmp_path / "c.npz", columns=["w", "x"], factors=["size"])
    assert table.names == ["w", "x"]
    assert table.factor_names == ("size",)
    assert table.factor_sizes == (5,)
    assert table.codes.tolist() == held["codes"][:, [2, 0]].tolist()
    with pytest.raises(UsageError, match="has no code 'z'"):
        table_from_arrays(tmp_path / "c.npz", columns=["z"])
    with pytest.raises(UsageError, match=r"has no factor 'shap'\. Did you mean 'shape'"):
        table_from_arrays(tmp_path / "c.npz", factors=["shap"])
    write_csv(tmp_path / "c.csv", held)
    with pytest.raises(UsageError, match=r"has no column 'shap'\. Did you mean 'shape'"):
        table_from_arrays(tmp_path / "c.csv", factors=["shap"])
    with pytest.raises(UsageError, match="both as a code and as a factor"):
        table_from_arrays(tmp_path / "c.csv", columns=["a"], factors=["a"])
    with pytest.raises(DistkError, match=r"column 'shape' of .* in row 1, which is no number"):
        table_from_arrays(tmp_path / "c.csv", columns=["shape"])


def test_a_factor_that_numbers_the_rows_is_left_out_by_name(held: dict[str, Any], capfd: Any) -> None:
    ids = np.random.default_rng(1).permutation(600)
    factors = {"shape": held["factors"][:, 0], "id": ids}
    table = distk.codes(held["codes"], factors)
    assert table.factor_names == ("shape",)
    told = table.extra["told"][0]
    assert told.startswith("factor 'id' has 600 values in 600 rows")
    assert told in distk.evaluate(table, ["mig"])["provenance"]["told"]
    named = distk.codes(held["codes"], factors).factor_names
    assert named == ("shape",)
    from distk.codetable import table_of

    kept = table_of({"codes": held["codes"], "factors": factors}, factors=["id", "shape"])
    assert kept.factor_names == ("id", "shape"), "whoever names it has it"
    alone = distk.codes(held["codes"], ids)
    assert alone.factor_names == ("f1",), "where nothing else is there, it stays"
    real = distk.codes(held["codes"], {"shape": factors["shape"], "angle": np.random.default_rng(2).random(600)})
    assert real.factor_names == ("shape", "angle"), "real numbers differ in every row"


def test_sorted_rows_are_shuffled_before_a_split_and_it_is_said(held: dict[str, Any]) -> None:
    random = scores(distk.codes(**held))
    order = np.lexsort((held["factors"][:, 1], held["factors"][:, 0]))
    table = distk.codes(held["codes"][order], held["factors"][order])
    assert "lie sorted by 'f1'" in table.extra["told"][0]
    found = scores(table)
    assert found["mig"] == pytest.approx(random["mig"])
    # Another split of the same rows: about 200 test rows, whose share of hits varies by sqrt(p (1 - p) / 200) < 0.036.
    assert found["test"] == pytest.approx(random["test"], abs=4 * 0.036)
    assert "told" not in distk.codes(**held).extra, "a random order stays as it is"
    again = distk.codes(held["codes"][order], held["factors"][order])
    assert torch.equal(again.codes, table.codes), "the same order every time"
    with_test = distk.codes(
        held["codes"][order], held["factors"][order], codes_test=held["codes"], factors_test=held["factors"]
    )
    assert with_test.codes.tolist() == held["codes"][order].tolist(), "test rows of their own need no shuffle"


def test_what_counts_as_sorted(generator: torch.Generator) -> None:
    n = 400
    random = torch.randint(0, 4, (n, 3), generator=generator).double()
    assert sorted_by(random) is None
    blocks = torch.arange(n).div(100, rounding_mode="floor").double()
    assert sorted_by(torch.cat([random, blocks[:, None]], 1)) == 3
    assert sorted_by(torch.cat([random, torch.linspace(0, 1, n).double()[:, None]], 1)) == 3
    grid = torch.cartesian_prod(torch.arange(20), torch.arange(20)).double()
    assert sorted_by(grid) == 0
    drifting = (torch.rand(n, generator=generator).double() - 0.5).cumsum(0)
    assert sorted_by(drifting[:, None]) == 0, "a walk, as time series are"
    falses = sum(sorted_by(torch.rand(200, 1, generator=generator).double()) is not None for _ in range(200))
    assert falses == 0, "six standard deviations"


def test_files_that_are_no_codes(tmp_path: Path, held: dict[str, Any]) -> None:
    (tmp_path / "c.txt").write_text("1 2 3")
    with pytest.raises(DistkError, match=r"is none of \.npz, \.npy"):
        table_from_arrays(tmp_path / "c.txt")
    (tmp_path / "words.csv").write_text("a,b\nx,y\nz,w\n")
    with pytest.raises(DistkError, match="no column of numbers"):
        table_from_arrays(tmp_path / "words.csv")
    (tmp_path / "twice.csv").write_text("a,a\n1,2\n3,4\n")
    with pytest.raises(DistkError, match="two columns 'a'"):
        table_from_arrays(tmp_path / "twice.csv")
    np.save(tmp_path / "o.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(DistkError, match="not a valid npy file"):
        table_from_arrays(tmp_path / "o.npy")
    np.save(tmp_path / "c.npy", held["codes"])
    np.save(tmp_path / "f.npy", held["factors"][:10])
    with pytest.raises(DistkError, match=r"expected numbers or words \[600, any number\]"):
        table_from_arrays(tmp_path / "c.npy", factors=tmp_path / "f.npy")
    with pytest.raises(DistkError, match=r"file of factors .* does not exist"):
        table_from_arrays(tmp_path / "c.npy", factors=tmp_path / "g.npy")
    with pytest.raises(UsageError, match=r"codes have no part 'factor'\. Did you mean 'factors'"):
        distk.codes(held["codes"], factor=held["factors"])
