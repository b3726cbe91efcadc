"""`distk study discrete` and its kin: several methods and seeds on one data set, scored, summed up, and resumable."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest

from distk import UsageError
from distk.plugins.vae_family import comparison
from distk.plugins.vae_family.comparison import Plan, Variant

NLL = "reconstruction.nll_image"
TINY = {"name": "dsprites", "size": 32, "scales": [5], "orientations": 1, "positions": 4}


def plan(folder, **changes) -> Plan:
    variants = [
        Variant("cascadevae", "cascadevae"),
        Variant("betavae-2", "betavae", {"beta": 2.0, "z": 3, "arch": "mlp"}),
    ]
    given = {"data": TINY, "train": {"steps": 2, "batch": 4, "device": "cpu"}, "options": {"protocol": "cascadevae"}}
    columns = ["clsacc.hungarian", NLL]
    return Plan(**{"variants": variants, "seeds": range(1), "columns": columns, "out": folder, **given, **changes})


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    made = plan(tmp_path_factory.mktemp("study"), preset="demo")
    return made, comparison.run(made, quiet=True)


def test_every_run_is_trained_on_the_same_data_and_scored(done) -> None:
    made, rows = done
    assert [(row["variant"], row["seed"]) for row in rows] == [(v.label, s) for v in made.variants for s in range(1)]
    settings = [made.settings(v, 0) for v in made.variants]
    assert settings[0].data_options == settings[1].data_options == {k: v for k, v in TINY.items() if k != "name"}
    assert all(row[NLL] > 0 for row in rows)
    assert 0 < rows[0]["clsacc.hungarian"] <= 1
    assert rows[1]["clsacc.hungarian"] != rows[1]["clsacc.hungarian"], "betavae has no classes"


def test_the_summary_is_that_of_the_rows(done, tmp_path) -> None:
    made, rows = done
    with (made.out / "results.csv").open() as file:
        assert len(list(csv.DictReader(file))) == len(rows)
    found = [3.0, 1.0, 5.0]
    rows = [
        {
            "variant": v.label,
            "seed": s,
            "clsacc.hungarian": x / 10 if v.method == "cascadevae" else math.nan,
            NLL: x,
        }
        for v in made.variants
        for s, x in enumerate(found)
    ]
    first, second = comparison.summary(made, rows)
    assert first["runs"] == 3
    assert first[NLL] == pytest.approx((3.0, 2.0, 1.0)), "less reconstruction error is better"
    assert first["clsacc.hungarian"] == pytest.approx((0.3, 0.2, 0.5))
    assert second["clsacc.hungarian"] is None


def test_what_is_finished_is_not_done_again(done) -> None:
    made, rows = done
    stamps = {path: path.stat().st_mtime_ns for path in made.out.glob("*/*/checkpoint.safetensors")}
    again = comparison.run(made, quiet=True)
    assert [repr(row) for row in again] == [repr(row) for row in rows]
    assert stamps == {path: path.stat().st_mtime_ns for path in made.out.glob("*/*/checkpoint.safetensors")}


def test_other_settings_in_the_same_folder_are_refused(done) -> None:
    made, _ = done
    other = plan(made.out, preset="demo", train={**made.train, "batch": 8})
    with pytest.raises(UsageError, match=r"trained with batch = 4, and 8 is asked for"):
        comparison.run(other, quiet=True)


def test_pictures_are_drawn(done, tmp_path) -> None:
    made, rows = done
    comparison.draw(made, rows, tmp_path / "a.png")
    comparison.scatter(made, rows, NLL, NLL, tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes()[:4] == (tmp_path / "b.png").read_bytes()[:4] == b"\x89PNG"


def test_wrong_values_are_refused_before_anything_is_trained(tmp_path) -> None:
    from distk.cli import build

    for arguments, said in (
        (["--methods", "betavae,betavae"], "each once"),
        (["--methods", "betavea"], "betavae"),
        (["--column", "clsacc"], "METRIC.KEY"),
    ):
        with pytest.raises(UsageError, match=said):
            build().main(["study", "discrete", "--out", str(tmp_path / "x"), *arguments], standalone_mode=False)
    assert not (tmp_path / "x").exists()


def test_the_recipe_fits_its_methods() -> None:
    from distk.plugins.vae_family.comparison_commands import _config

    given = _config(Path("discrete-small"))
    variants = [Variant(name, name, settings) for name, settings in given["model"].items()]
    made = plan(Path("nowhere"), preset="demo", variants=variants, data=given["data"], train=given["train"])
    assert {v.method for v in variants} == {"jointvae", "factorvae", "betavae"}
    assert all(made.settings(v, 0).train.steps == 1500 for v in variants)
    assert all(made.settings(v, 0).model.arch == "snu" for v in variants)
