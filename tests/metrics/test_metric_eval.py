"""`distk eval` in this process: files of codes, checkpoints, the cache of codes, what is written, how it ends."""

from __future__ import annotations

import functools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import distk as library
from distk import Method, evaluate
from distk.codefile import table_from_arrays
from distk.errors import DistkError
from distk.plugins.metrics import functional as fn

TINY = {"z": 2, "hidden": 8, "size": 32, "scales": (5,), "orientations": 2, "positions": 6, "batch": 8, "steps": 2}


@functools.cache
def command():
    from distk.cli import build

    return build()


@pytest.fixture
def distk(capsys):
    """Runs a command line here: (exit code, stdout, stderr with the error's sentence)."""

    def run(*arguments) -> tuple[int, str, str]:
        code, sentence, before = 0, "", capsys.readouterr().out
        try:
            command().main(args=[str(a) for a in arguments], prog_name="distk")
        except SystemExit as stop:
            code = int(stop.code or 0)
        except DistkError as error:
            code, sentence = error.exit_code, str(error)
        said = capsys.readouterr()
        print(before, end="")  # the seed of this test, should it fail
        return code, said.out, said.err + sentence

    return run


@pytest.fixture
def codes(in_folder, generator) -> Path:
    """c.npz: 900 rows, factors of 3, 4 and 5 values, of which two are coded, and a code of noise."""
    factors = torch.stack([torch.randint(s, (900,), generator=generator) for s in (3, 4, 5)], 1).numpy()
    clean = np.concatenate([factors[:, :2], np.zeros((900, 1))], 1)
    noise = 0.05 * torch.randn(900, 3, generator=generator).numpy()
    np.savez("c.npz", codes=clean + noise, factors=factors, factor_names=["shape", "x", "y"])
    return Path("c.npz")


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A cascadevae after two steps, on 216 images."""
    return library.train(
        "cascadevae", out=tmp_path_factory.mktemp("runs") / "r", quiet=True, device="cpu", **TINY
    ).checkpoint


@pytest.fixture
def checkpoint(trained, tmp_path) -> Path:
    return Path(shutil.copy(trained, tmp_path / "checkpoint.safetensors"))


def test_a_file_of_codes_is_scored_as_by_the_array_functions(distk, codes) -> None:
    arrays = np.load(codes)
    c, f = arrays["codes"], arrays["factors"]
    code, out, _ = distk(
        "eval", "--codes", codes, "-m", "mig", "-m", "sap", "-m", "dci", "--predictor", "lasso", "--json"
    )
    said = json.loads(out)["metrics"]
    assert code == 0
    assert said["mig"]["mig"] == fn.mig(c, f)["mig"]
    assert said["sap"]["sap"] == fn.sap(c, f)["sap"]
    assert said["dci"]["disentanglement"] == pytest.approx(fn.dci(c, f, predictor="lasso")["disentanglement"])
    assert said["dci"]["settings"]["predictor"] == "lasso"
    np.testing.assert_allclose(said["mig"]["mutual_information"], fn.mig(c, f)["mutual_information"])
    assert said["mig"]["factor_names"] == ["shape", "x", "y"]
    assert sorted(Path().iterdir()) == [codes], "nothing is written unless --out says where"
    _, out, _ = distk("eval", "--codes", codes, "-m", "mig", "--bins", 5, "--json")
    assert json.loads(out)["metrics"]["mig"]["mig"] == fn.mig(c, f, 5)["mig"]


def test_test_rows_posterior_and_kinds_of_a_file(distk, codes) -> None:
    arrays = dict(np.load(codes))
    c, f = arrays["codes"], arrays["factors"]
    np.savez("t.npz", codes=c[:500], factors=f[:500], codes_test=c[500:], factors_test=f[500:])
    _, out, _ = distk("eval", "--codes", "t.npz", "-m", "explicitness", "--json")
    expected = fn.explicitness(c[:500], f[:500], c[500:], f[500:])["explicitness_test"]
    assert json.loads(out)["metrics"]["explicitness"]["explicitness_test"] == expected
    code, _, err = distk("eval", "--codes", codes, "-m", "mig", "--code", "sample")
    assert code == 1
    assert "no posterior" in err
    kinds = ["categorical", "continuous", "continuous"]
    np.savez(
        *("p.npz",), codes=np.concatenate([f[:, :1], c[:, 1:]], 1), factors=f, std=0.3 * np.ones_like(c),
        kl=[2.0, 2.0, 0.0], code_kinds=kinds, factor_kinds=["categorical", "ordinal", "ordinal"],
    )  # fmt: skip
    _, out, _ = distk(
        "eval",
        "--codes",
        "p.npz",
        "-m",
        "clsacc",
        "-m",
        "factorvae",
        "--protocol",
        "cascadevae",
        "--repeats",
        1,
        "--json",
    )
    said = json.loads(out)["metrics"]
    assert said["clsacc"]["hungarian"] == 1
    assert said["factorvae"]["codes_used"] == 2, "the discrete code, and the one whose KL is above 0.1"
    first, again, other = (
        distk("eval", "--codes", "p.npz", "-m", "mig", "--code", "sample", "--seed", s, "--json")[1] for s in (1, 1, 2)
    )
    assert first == again != other


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"factors": np.zeros((4, 1))}, "must hold an array 'codes'"),
        ({"code": np.zeros((4, 1))}, "holds no 'codes' but 'code'"),
        ({"codes": np.zeros((4, 2)), "factors": np.zeros((5, 1))}, r"'factors' in .* is float64 \(5, 1\); expected"),
        ({"codes": np.array([[0.0, np.nan], [1, 2]])}, "column 1 of 'codes'"),
        ({"codes": np.array([["a"], ["b"]])}, "expected numbers"),
        ({"codes": np.zeros((0, 3))}, "expected numbers"),
        ({"codes": np.zeros((4, 2)), "factors": np.zeros((4, 1)), "codes_test": np.zeros((4, 2))}, "go together"),
        ({"codes": np.zeros((4, 2)), "code_names": ["a"]}, "must hold 2 words"),
        ({"codes": np.zeros((4, 2)), "code_kinds": ["a", "b"]}, "out of continuous, ordinal, categorical"),
        ({"codes": np.array([{}], dtype=object)}, "cannot be in this file or is not read"),
    ],
)
def test_files_of_codes_that_do_not_fit(tmp_path, members, words) -> None:
    np.savez(tmp_path / "c.npz", **members)
    with pytest.raises(DistkError, match=words):
        table_from_arrays(tmp_path / "c.npz")


def test_files_that_are_no_codes(tmp_path, codes) -> None:
    with pytest.raises(DistkError, match="does not exist"):
        table_from_arrays(tmp_path / "none.npz")
    (tmp_path / "c.npz").write_text("no archive")
    with pytest.raises(DistkError, match="is not an npz file"):
        table_from_arrays(tmp_path / "c.npz")
    whole = codes.read_bytes()
    codes.write_bytes(whole[:800] + b"\0" * 200 + whole[1000:])
    with pytest.raises(DistkError):
        table_from_arrays(codes)


def test_every_metric_becomes_a_row_and_undefined_numbers_are_null(distk, codes) -> None:
    arrays = dict(np.load(codes))
    arrays["factors"][:, 1:] = 1
    np.savez("one.npz", codes=arrays["codes"], factors=arrays["factors"])
    few = ("--predictor", "lasso", "--repeats", 1, "--set", "sizes=10")
    code, out, _ = distk("eval", "--codes", "one.npz", "-m", "all", *few, "--json")
    said = json.loads(out, parse_constant=lambda word: pytest.fail(f"{word} in the JSON"))["metrics"]
    assert code == 0
    assert set(said) == {entry.name for entry in library.registry.registry().entries("metric")}
    assert "needs a checkpoint" in said["reconstruction"]["error"]
    assert said["modularity"]["modularity"] is None
    assert said["modularity"]["reasons"]["modularity"] == "undefined for a single factor"
    assert said["downstream"]["settings"]["predictor"] == "lr"
    assert "is unknown here" in said["downstream"]["reasons"]["settings"]
    for name, values in said.items():
        for key, value in values.items():
            assert value is not None or values["reasons"][key], (name, key)
    assert distk("eval", "--codes", "one.npz", "-m", "all", *few, "--strict")[0] == 1


def test_failures_are_rows_and_only_all_of_them_a_failure(distk, codes) -> None:
    code, out, err = distk("eval", "--codes", codes, "-m", "mig", "-m", "reconstruction")
    assert code == 0
    assert "not scored" in out
    assert "needs a checkpoint" in out
    assert distk("eval", "--codes", codes, "-m", "mig", "-m", "reconstruction", "--strict")[0] == 1
    code, _, err = distk("eval", "--codes", codes, "-m", "reconstruction")
    assert code == 1
    assert "reconstruction: metric 'reconstruction' looks at items" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-m", "dcl"], "unknown metric 'dcl'. Did you mean 'dci'? `distk list metric` shows all."),
        (["-m", "factorvae", "--protocol", "dlb"], "'dlb' is none of dlib"),
        (["-m", "mig", "--protocol", "cascadevae"], "'cascadevae' is none of dlib, rmig, aggregate"),
        (["-m", "mig", "--exact"], "metric 'mig' has no setting 'exact'"),
        (["-m", "mig", "--code", "modes"], "'modes' is none of mean, sample"),
        (["-m", "mig", "--set", "binnin=width"], "Did you mean 'binning'?"),
        (["-m", "mig", "--set", "binning"], "write NAME=VALUE"),
        (["-m", "mig", "--rows", "10"], "--codes is encoded already"),
        (["run", "-m", "mig"], "not both"),
        ([], "name at least one --metric"),
    ],
)
def test_wrong_requests_name_what_is_right(distk, codes, arguments, words) -> None:
    code, _, err = distk("eval", "--codes", codes, *arguments)
    assert code == 2
    assert words in err


def test_what_is_written(distk, codes) -> None:
    code, _, err = distk("eval", "--codes", codes, "-m", "dci", "-m", "mig", "--predictor", "lasso", "--out", "r.json")
    assert code == 0
    assert "written: r.json and 4 pictures beside it" in err
    said = json.loads(Path("r.json").read_text())
    made = {p.name for p in Path().iterdir()} - {"c.npz", "r.json", "r.eval.safetensors"}
    assert made == set(said["provenance"]["pictures"])
    assert made == {f"r.eval.{n}.png" for n in ("dci.importance", "dci.bars", "mig.mutual-information", "mig.bars")}
    arrays = load_file("r.eval.safetensors")
    assert said["provenance"]["arrays"] == "r.eval.safetensors"
    np.testing.assert_array_equal(arrays["dci/importance"], np.array(said["metrics"]["dci"]["importance"]))
    with safe_open("r.eval.safetensors", framework="pt") as file:
        names = json.loads(file.metadata()["names"])
    assert names["dci"]["factor_names"] == ["shape", "x", "y"]
    provenance = said["provenance"]
    assert {"torch", "numpy", "scikit-learn", "distk"} <= set(provenance["versions"])
    assert (provenance["rows"], provenance["seed"], provenance["options"]) == (900, 0, {"predictor": "lasso"})
    assert said["metrics"]["dci"]["rows_used"] == [600, 300]
    assert said["metrics"]["dci"]["estimator"] == "lasso, alpha 0.02"
    assert said["metrics"]["mig"]["seeds"] == [0]


def test_pictures_on_request(distk, codes) -> None:
    _, out, _ = distk("eval", "--codes", codes, "-m", "dci", "--predictor", "lasso", "--out", "n.json", "--no-plots")
    assert not list(Path().glob("*.png"))
    assert "█" not in out
    _, out, _ = distk("eval", "--codes", codes, "-m", "dci", "--predictor", "lasso", "--out", "p.json", "--plots")
    assert {p.name for p in Path().glob("*.svg")} == {"p.eval.dci.importance.svg", "p.eval.dci.bars.svg"}
    assert "dci.importance" in out
    assert "███" in out
    assert "█" not in distk("eval", "--codes", codes, "-m", "dci", "--predictor", "lasso", "--plots", "--json")[1]


def test_large_arrays_stay_out_of_the_json(distk, codes, generator) -> None:
    wide = torch.randn(900, 500, generator=generator).numpy()
    np.savez("wide.npz", codes=wide, factors=np.load(codes)["factors"])
    distk("eval", "--codes", "wide.npz", "-m", "mig", "--out", "wide.eval.json")
    said = json.loads(Path("wide.eval.json").read_text())["metrics"]["mig"]
    assert said["mutual_information"] == {"shape": [500, 3], "stored": "mig/mutual_information"}
    stored = load_file("wide.eval.safetensors")["mig/mutual_information"]
    np.testing.assert_allclose(stored, fn.mig(wide, np.load(codes)["factors"])["mutual_information"])


def test_a_checkpoint_is_encoded_once_for_all_metrics(distk, checkpoint, monkeypatch) -> None:
    seen: list[int] = []
    inner = table_encoder()

    def counted(model, x):
        seen.append(len(x))
        return inner(model, x)

    monkeypatch.setattr("distk.plugins.vae_family.cascadevae.method.CascadeVAE.encode", counted)
    metrics = [word for name in ("mig", "sap", "factorvae", "unsupervised", "clsacc") for word in ("-m", name)]
    first = json.loads(distk("eval", checkpoint, *metrics, "--repeats", 1, "--json")[1])
    assert sum(seen) == first["provenance"]["rows"] == 216
    assert first["provenance"]["data"] == "dsprites"
    assert first["provenance"]["grid"]
    again = json.loads(distk("eval", checkpoint, *metrics, "--repeats", 1, "--json")[1])
    assert sum(seen) == 216, "the second time the codes come from the cache"
    assert again["metrics"] == first["metrics"]
    names = {p.name for p in checkpoint.parent.iterdir()}
    assert {
        "checkpoint.eval.json",
        "checkpoint.eval.safetensors",
        "checkpoint.eval.mig.mutual-information.png",
    } <= names


def table_encoder():
    from distk.plugins.vae_family.cascadevae.method import CascadeVAE

    return CascadeVAE.encode


def test_the_cache_serves_only_the_model_and_rows_it_was_made_of(checkpoint, tmp_path) -> None:
    model = library.load(checkpoint, device="cpu")
    cache = tmp_path / "cache.safetensors"

    def figures(**more):
        return evaluate(model, ["mig", "unsupervised"], cache=cache, **more)["metrics"]

    plain = evaluate(model, ["mig", "unsupervised"])["metrics"]
    assert flat(figures()) == flat(plain), "made"
    assert cache.exists()
    assert flat(figures()) == flat(plain), "read"
    # A cache that answers wrongly would show: the codes in it are replaced, and so is their checksum's subject.
    held = load_file(cache)
    with safe_open(cache, framework="pt") as file:
        meta = file.metadata()
    save_file({**held, "codes": held["codes"] + torch.arange(len(held["codes"]))[:, None]}, cache, metadata=meta)
    assert flat(figures()) == flat(plain), "damaged inside"
    for damage in (b"", b"nonsense" * 100, cache.read_bytes()[:-50]):
        cache.write_bytes(damage)
        assert flat(figures()) == flat(plain), "damaged"
    assert flat(figures(rows=100)) == flat(evaluate(model, ["mig", "unsupervised"], rows=100)["metrics"])
    with torch.no_grad():
        next(p for p in model.parameters() if p.dim() > 1).mul_(3)
    changed = evaluate(model, ["mig", "unsupervised"])["metrics"]
    assert flat(figures()) == flat(changed) != flat(plain), "another model"


def flat(results) -> list[float]:
    return [v for values in results.values() for v in values.values() if isinstance(v, float) and v == v]


def test_half_precision_and_missing_encoders_are_refused(checkpoint, monkeypatch) -> None:
    model = library.load(checkpoint, device="cpu")
    inner = table_encoder()
    kind = type(model)
    monkeypatch.setattr(kind, "encode", lambda m, x: {k: v.bfloat16() for k, v in inner(m, x).items()})
    with pytest.raises(DistkError, match="bfloat16"):
        evaluate(model, ["mig"])
    monkeypatch.setattr(kind, "encode", inner)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        within = evaluate(model, ["mig"])["metrics"]
    assert flat(within) == flat(evaluate(model, ["mig"])["metrics"]), "autocast is off while encoding"
    monkeypatch.setattr(kind, "encode", Method.encode)
    said = evaluate(model, ["mig", "reconstruction"], on_error="row")["metrics"]
    assert "has no encoder" in said["mig"]["error"]


def test_the_settings_of_a_metric_are_options_where_it_is_named(distk, codes) -> None:
    def found(*arguments: str) -> dict:
        code, out, _ = distk("eval", "--codes", codes, "--json", *arguments)
        assert code == 0
        return json.loads(out)["metrics"]

    asked = found("--metric", "downstream", "--sizes", "20,90")["downstream"]
    assert {"mean_20", "mean_90"} <= set(asked)
    assert asked == found("--metric", "downstream", "--set", "sizes=20,90")["downstream"]
    assert (
        found("--metric=linear-correlation", "--dimensions=2", "--metric", "mig")["linear-correlation"]["settings"][
            "dimensions"
        ]
        == 2
    )
    code, _, said = distk("eval", "--codes", codes, "--metric", "mig", "--sizes", "20")
    assert code == 2
    assert "--sizes" in said
    assert "--sizes" in distk("eval", "--metric", "downstream", "--help")[1]
    assert "--sizes" not in distk("eval", "--help")[1]


# Several splits


class Held(library.FactorDataset):
    """Codes that say their factor in `train` and `test`, and nothing in `gap`: 60 rows of each."""

    def __init__(self) -> None:
        super().__init__(library.NoConfig(), torch.device("cpu"), library.Files("held", None, ""))
        self.name, self.origin = "held", "made here"
        self.spec = library.DataSpec("vector", (2,))
        self.factor_names, self.factor_sizes, self.factor_kinds = ("level", "other"), (3, 2), ("ordinal", "ordinal")
        rows = torch.arange(180)
        self.parts = {name: rows[60 * i : 60 * (i + 1)] for i, name in enumerate(("train", "test", "gap"))}

    def __len__(self) -> int:
        return 180

    def factors(self, rows: torch.Tensor) -> torch.Tensor:
        return torch.stack([rows % 3, rows // 3 % 2], 1)

    def batch(self, rows: torch.Tensor) -> dict[str, torch.Tensor]:
        level, other = self.factors(rows).float().unbind(1)
        level = torch.where(rows < 120, level, 2 - level)  # in the gap the order is turned round
        return {"x": torch.stack([level, other], 1), "factors": self.factors(rows)}


class Reader(Method):
    """The code is the item."""

    kinds = ("vector",)

    def __init__(self) -> None:
        super().__init__(library.NoConfig(), library.DataSpec("vector", (2,)))
        self.latents = library.LatentSpace.of(library.Latent("z", "continuous", 2))

    def encode(self, x: torch.Tensor) -> library.Code:
        return {"z": x}


def test_predictors_fitted_on_one_split_are_tested_on_another() -> None:
    """Fitted on train, the levels 0 and 2 of the gap are read the wrong way round and 1 is right: a third."""
    data, model = Held(), Reader()
    found = {
        split: evaluate(
            model, ["downstream", "mig"], data=data, split=split, fit="train", **{"downstream.sizes": (60,)}
        )
        for split in ("test", "gap")
    }
    accuracy = {split: result["metrics"]["downstream"]["accuracy"] for split, result in found.items()}
    assert accuracy["test"].flatten().tolist() == pytest.approx([1, 1])
    assert accuracy["gap"].flatten().tolist() == pytest.approx([1 / 3, 1])
    alone = evaluate(model, ["downstream"], data=data, split="gap", **{"downstream.sizes": (40,)})["metrics"][
        "downstream"
    ]
    assert alone["accuracy"].flatten().tolist() == pytest.approx([1, 1]), "without --fit both come from the gap"
    for split, result in found.items():
        assert result["provenance"]["split"] == split
        assert result["provenance"]["fit"] == "train"
        expected = fn.mig(data.batch(data.parts[split])["x"], data.factors(data.parts[split]))["mig"]
        assert result["metrics"]["mig"]["mig"] == pytest.approx(expected), "a score without predictors reads the split"


def test_each_score_gets_the_rows_that_it_is_about(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {}

    def noted(table, name, *rest):
        given[name] = table
        return {"value": 0.0}

    monkeypatch.setattr("distk.evaluation.score", noted)
    data = Held()
    evaluate(Reader(), ["downstream", "mig"], data=data, split="gap", fit="train")
    assert torch.equal(given["mig"].rows, data.parts["gap"])
    assert given["mig"].codes_test is None
    assert torch.equal(given["downstream"].rows, data.parts["train"])
    assert torch.equal(given["downstream"].codes_test, data.batch(data.parts["gap"])["x"])
    assert torch.equal(given["downstream"].factors_test, data.factors(data.parts["gap"]))


def test_several_splits_at_once(distk, tmp_path: Path) -> None:
    tiny = {**TINY, "holdout": 0.3}
    run = library.train("cascadevae-c", **tiny, device="cpu", quiet=True, out=tmp_path / "run")
    line = ["eval", run.path, "-m", "mig", "-m", "clsacc", "--split", "train,test", "--rows", 200]
    code, out, _ = distk(*line, "--json")
    found = json.loads(out)
    assert code == 0
    assert list(found["splits"]) == ["train", "test"]
    data = library.load(run.path).dataset()
    for split, result in found["splits"].items():
        alone = evaluate(library.load(run.path), ["mig"], data=data, split=split, rows=200)
        assert result["metrics"]["mig"]["mig"] == alone["metrics"]["mig"]["mig"]
        stored = json.loads((run.path / f"checkpoint.{split}.eval.json").read_text())
        assert stored["metrics"]["mig"]["mig"] == result["metrics"]["mig"]["mig"]
        assert stored["provenance"]["split"] == split
    assert found["splits"]["train"]["metrics"]["mig"]["mig"] != found["splits"]["test"]["metrics"]["mig"]["mig"]
    code, out, err = distk(*line)
    assert code == 0
    assert out.split()[:4] == ["metric", "key", "train", "test"]
    assert "clsacc (train)" in out + err
    assert not (run.path / "checkpoint.eval.json").exists()


def test_an_unknown_split_is_refused_before_anything_is_encoded(distk, tmp_path: Path) -> None:
    run = library.train("cascadevae-c", **TINY, device="cpu", quiet=True, out=tmp_path / "run")
    for more in (["--split", "train,gap"], ["--fit", "gap"]):
        code, _, err = distk("eval", run.path, "-m", "dci", *more)
        assert code == 2
        assert "'gap'" in err
    assert not list(run.path.glob("*.eval*"))
    assert not list(run.path.glob(".*codes*"))
