"""`distk check`, `distk new-plugin`, and the contract as the documentation gives it."""

from __future__ import annotations

import ast
import inspect
import itertools
import json
import re
import sys
import types
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from distk import Dataset, DataSpec, Method, Metric, UsageError, cli, hookspecs
from distk.commands import plugin_template
from distk.device import Ranks
from distk.hookspecs import hookimpl
from distk.registry import registry
from distk.settings import resolve
from distk.testing import check_dataset, check_metric, metric_checks, model_table
from distk.training.beginning import build

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def distk(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    """`distk("check", "mig", code=0)`: (stdout, stderr) of a command line in this process."""

    def call(*line: str, code: int = 0) -> tuple[str, str]:
        monkeypatch.setattr(sys, "argv", ["distk", *line])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            cli.main()
        out, err = capsys.readouterr()
        assert (stop.value.code or 0) == code, err
        return out, " ".join(err.split())

    return call


@dataclass(frozen=True)
class Undocumented:
    """A config without help texts."""

    k: int = 3


class Loose(Metric):
    """A score of the global generator."""

    Config = Undocumented
    headline = "score"

    def compute(self, table, seed):
        return {"score": float(torch.rand(()))}


class Drifting(Metric):
    """Another figure at every call, though it draws from no generator."""

    headline = "score"
    calls = itertools.count()

    def compute(self, table, seed):
        return {"score": float(next(self.calls))}


class Whole(Metric):
    """A headline that is a whole number."""

    headline = "score"

    def compute(self, table, seed):
        return {"score": 3}


class Nameless(Metric):
    """Its headline is not among its numbers."""

    headline = "score"

    def compute(self, table, seed):
        return {"value": 3.0}


class Choosy(Metric):
    headline = "score"

    def compute(self, table, seed):
        raise UsageError("this score needs something else.")


class Raises(Metric):
    headline = "score"

    def compute(self, table, seed):
        raise ZeroDivisionError("by design")


class Outside(Dataset):
    """Values outside its range, splits that overlap, an empty origin."""

    def __init__(self, config, device, files):
        super().__init__(config, device, files)
        self.spec = DataSpec("image", (1, 4, 4))
        self.origin = ""

    def __len__(self) -> int:
        return 20

    def rows(self, split):
        return None if split == "all" else torch.arange(10)

    def batch(self, rows):
        return {"x": torch.full((len(rows), 1, 4, 4), 7.0)}


class Asks(Outside):
    def __init__(self, config, device, files):
        raise UsageError("name a variant.")


@pytest.fixture
def faulty():
    """A third-party plugin in the running program whose objects break the rules."""
    module = types.ModuleType("plugged_faulty")

    @hookimpl
    def distk_register_metrics(register) -> None:
        for name in ("Loose", "Drifting", "Whole", "Nameless", "Choosy", "Raises", "Outside"):
            register(f"bad-{name.lower()}", f"{__name__}:{name}", "s")

    @hookimpl
    def distk_register_datasets(register) -> None:
        register("bad-data", f"{__name__}:Outside", "s")
        register("bad-asks", f"{__name__}:Asks", "s")
        register("bad-gone", "no_such_module_here:Data", "s")

    module.distk_register_metrics, module.distk_register_datasets = distk_register_metrics, distk_register_datasets
    sys.modules["plugged_faulty"], sys.modules[__name__] = module, sys.modules.get(__name__) or _self()
    registry().add("faulty", "plugged_faulty", "dist-faulty", "1.0")
    assert not registry().plugins["faulty"].error
    yield
    registry()._forget(registry().plugins.pop("faulty"))


def _self() -> types.ModuleType:
    """This module, which pytest's importlib mode may not have put where import looks."""
    made = types.ModuleType(__name__)
    vars(made).update(globals())
    return made


def test_check_prints_a_table_and_json(distk) -> None:
    out, err = distk("check", "digits", "active-units")
    assert out.count("passed") == 11
    assert "11 passed, 0 failed, 0 skipped" in err
    said = json.loads(distk("check", "active-units", "--json")[0])
    assert (said["passed"], said["failed"], said["skipped"]) == (5, 0, 0)
    assert {"kind": "metric", "name": "active-units", "plugin": "metrics", "distribution": "distk"}.items() <= said[
        "checks"
    ][0].items()


def test_check_of_a_method_takes_settings(distk) -> None:
    settings = ["--set", "z=2", "--set", "hidden=8", "--data", "digits", "--steps", "2", "--batch", "4"]
    said = json.loads(distk("check", "cascade", *settings, "--json")[0])
    assert said["failed"] == 0
    assert {row["name"] for row in said["checks"]} == {"cascadevae"}
    _, err = distk("check", "cascade", "--set", "nosuch=2", code=2)
    assert "nosuch" in err


def test_check_reports_third_party_faults_and_exits_with_1(distk, faulty) -> None:
    said = json.loads(distk("check", "--plugin", "dist_faulty", "--json", code=1)[0])
    reasons = {(row["name"], row["check"]): row["reason"] for row in said["checks"] if row["result"] == "failed"}
    assert "'k' has no help text" in reasons["bad-loose", "every option is documented"]
    assert "global generator" in reasons["bad-loose", "one seed gives one result"]
    assert "'score' differs for one seed" in reasons["bad-drifting", "one seed gives one result"]
    assert "the headline is not a float" in reasons["bad-whole", "the headline is there"]
    assert "'score' is missing among ['value']" in reasons["bad-nameless", "the headline is there"]
    assert "ZeroDivisionError: by design" in reasons["bad-raises", "it scores the table"]
    assert "not a subclass of Metric" in reasons["bad-outside", "it can be imported"]
    assert "no_such_module_here" in reasons["bad-gone", "it can be imported"]
    assert "origin is empty" in reasons["bad-data", "items fit the spec"]
    assert "overlap" in reasons["bad-data", "splits hold rows of the data, apart from each other"]
    skipped = {row["name"]: row["reason"] for row in said["checks"] if row["result"] == "skipped"}
    assert "needs something else" in skipped["bad-choosy"]
    assert "name a variant" in skipped["bad-asks"]
    assert said["failed"] == len(reasons)
    assert all(row["distribution"] == "dist-faulty" for row in said["checks"])


def test_where_nothing_could_be_checked_nothing_has_passed(distk, faulty) -> None:
    out, err = distk("check", "bad-choosy", code=1)
    assert "skipped" in out
    assert "0 passed, 0 failed, 1 skipped" in err
    with pytest.raises(AssertionError, match="nothing could be checked: this score needs something else"):
        check_metric("bad-choosy")
    with pytest.raises(AssertionError, match="nothing could be checked: name a variant"):
        check_dataset("bad-asks")


def test_a_name_of_two_kinds_is_checked_as_both(distk) -> None:
    entries = {"metric": ["icf"], "method": ["icf"]}
    assert all(registry().find(kind, "icf") for kind in entries)
    said = json.loads(distk("check", "icf", "--kind", "metric", "--json", code=1)[0])
    assert [row["kind"] for row in said["checks"]] == ["metric"]
    assert "--checkpoint" in said["checks"][0]["reason"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (["dspritez"], "Did you mean 'dsprites'"),
        ([], "--plugin"),
        (["mig", "--plugin", "metrics"], "--plugin"),
        (["--plugin", "metricz"], "Did you mean 'metrics'"),
        (["mig", "--kind", "metrics"], "Did you mean 'metric'"),
        (["mig", "--set", "protocol"], "NAME=VALUE"),
    ],
)
def test_wrong_requests_are_usage_errors(line, message, distk) -> None:
    assert message in distk("check", *line, code=2)[1]


# Built-in metrics that look at models of one method; the others stand in test_conformance.py.

MODELS = {
    "similarity": "dsvae",
    "swap-error": "dsvae",
    "cross-mi": "indepvideo",
    "source-alignment": "indepvideo",
    "specificity": "indepvideo",
    "elbo": "dsvae",
    "prediction": "dsvae",
    "disagreement": "dsvae",
    "icf": "icf",
    "planar-table": pytest.param("planar-table", "dyncontent", marks=pytest.mark.slow),
    "latent-map": "dyncontent",
    "mmd": "mmdtraverse",
    "grasp-accuracy": "grasping",
    "grasp-planning": pytest.param("grasp-planning", "graspcnn", marks=pytest.mark.slow),
    "grasp-shape": "grasping",
    "tc": "betavae",
    "vae-bound": "betavae",
    "capacity-order": "factorgen",
    "covstats": "covreg-linear",
    "prior-mmd": "aae-s",
    "content-style-variance": "jade",
    "error": "jade",
    "validation-error": "jade-single",
    "mvae-elbo": "mvae",
    "entity-exchange": "mvae",
    "object-count": "mvae",
    **dict.fromkeys(
        ("perplexity", "syntax-clustering", "sentence-interpolation", "sentence-arithmetic"), "nlmultitask"
    ),
    "slot-factors": pytest.param("slot-factors", "mvae", marks=pytest.mark.slow),
    "ksg": pytest.param("ksg", "dsvae", marks=pytest.mark.slow),
    "verification": pytest.param("verification", "sddcgan", marks=pytest.mark.slow),
    "leakage": pytest.param("leakage", "sddcgan", marks=pytest.mark.slow),
    "infogan": "infogan",
    "dci-gap": "infogan",
    "acd": pytest.param("acd", "mocogan", marks=pytest.mark.slow),
    "motion-class": pytest.param("motion-class", "mocogan", marks=pytest.mark.slow),
    "icm": pytest.param("icm", "icm", marks=pytest.mark.slow),
    "video-validity": "ldf",
    "classifier-score": "ldf",
    "frechet": "joint-gan",
    "transfer": pytest.param("transfer", "arae", marks=pytest.mark.slow),
}
NEEDS_MORE = {
    "disagreement": "judge",
    "specificity": "bouncing-squares",
    "validation-error": "--val-per-class",
    "capacity-order": "capacity grew to",
    "classifier-score": "labels",
    "frechet": "labels",
}
"""Metrics that ask for something beside the model, and the word by which they do."""


@pytest.mark.parametrize(
    ("metric", "method"), [(m, v) if isinstance(v, str) else v for m, v in MODELS.items()], ids=list(MODELS)
)
def test_metrics_of_one_method(metric: str, method: str) -> None:
    preset = "demo" if "demo" in registry().find("method", method).load().presets else None
    trainer = build(
        resolve(method, preset=preset, options={"train": {"device": "cpu", "batch": 8}}), torch.device("cpu"), Ranks()
    )
    checks = metric_checks(metric, model_table(trainer.model.eval(), trainer.dataset, 64))
    if metric in NEEDS_MORE:
        assert NEEDS_MORE[metric] in checks[0].skipped
        return
    assert [check for check in checks if check.problem or check.skipped] == []


def test_no_built_in_metric_is_forgotten() -> None:
    ours = {e.name for e in registry().entries("metric") if e.distribution == "distk" and e.plugin != "metrics"}
    assert ours - set(MODELS) == {"text"}, "`text` trains judges of its own for minutes; tests/text scores it"
    check_metric("reconstruction")


# New plugins


def tutorial_files() -> dict[str, str]:
    text = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
    found = re.finditer(r"^`acme/([\w./-]+)`:\n\n```\w+\n(.*?)^```$", text, re.M | re.S)
    return {m[1]: m[2] for m in found}


def test_new_plugin_writes_the_files_of_the_tutorial(distk, in_folder) -> None:
    out, _ = distk("new-plugin", "acme", "--json")
    said = json.loads(out)
    assert said["folder"] == "acme"
    written = {str(p.relative_to("acme")): p.read_text() for p in Path("acme").rglob("*") if p.is_file()}
    assert sorted(written) == sorted(said["files"])
    assert written == tutorial_files()


def test_new_plugin_with_a_name_of_two_words_is_sound_python(distk, in_folder) -> None:
    out, err = distk("new-plugin", "my-bars2", "--out", "here")
    assert len(out.splitlines()) == len(plugin_template.FILES)
    assert "pip install -e here" in err
    for path in Path("here").rglob("*.py"):
        tree = ast.parse(path.read_text())
        assert "@" not in re.sub(r"@(hookimpl|dataclass)\b", "", path.read_text())
        assert ast.get_docstring(tree)
    assert "class MyBars2VAE(Method[Config])" in Path("here/src/my_bars2/method.py").read_text()
    assert 'my-bars2 = "my_bars2"' in Path("here/pyproject.toml").read_text()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("My_Plugin", "lower-case"),
        ("../up", "lower-case"),
        ("class", "word of the Python language"),
        ("vae_family", "lower-case"),
        ("text", "already"),
        ("json", "package 'json' already"),
    ],
)
def test_new_plugin_refuses_names_that_cannot_work(name, message, distk, in_folder) -> None:
    assert message in distk("new-plugin", name, code=2)[1]
    assert not list(in_folder.iterdir())


def test_new_plugin_overwrites_nothing(distk, in_folder) -> None:
    (in_folder / "acme").mkdir()
    (in_folder / "acme" / "mine.txt").write_text("mine")
    assert "exists already" in distk("new-plugin", "acme", code=2)[1]
    assert [p.name for p in (in_folder / "acme").iterdir()] == ["mine.txt"]


# The contract on one page


def test_the_documented_contract_is_the_contract() -> None:
    text = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
    block = re.search(r"^```python\n(.*?)^```$", text, re.M | re.S)
    assert block is not None
    functions = [node for node in ast.parse(block[1]).body if isinstance(node, ast.FunctionDef)]
    documented = {node.name: [argument.arg for argument in node.args.args] for node in functions}
    real = {name: list(inspect.signature(getattr(hookspecs, name)).parameters) for name in hookspecs.names()}
    assert documented == real
    assert f"This is contract {hookspecs.CONTRACT}." in text
    assert '`register(name, path, summary, *, paper="", tags=(), aliases=())`' in text
    signature = inspect.signature(hookspecs.Register.__call__)
    assert list(signature.parameters)[1:] == ["name", "path", "summary", "paper", "tags", "aliases"]


def test_everything_that_the_page_names_exists() -> None:
    import distk as package

    text = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
    for name in set(re.findall(r"`(distk\.[a-z_]+(?:\.[a-z_]+)*)`", text)):
        __import__(name)
    for name in set(re.findall(r"\bdistk\.([A-Z]\w+|option|train|load|dataset|hookimpl)\b", text)):
        assert hasattr(package, name), name
    rows = re.findall(r"^\| (?:method|data set|metric) \|.*$", text, re.M)
    for row, classes in zip(rows, ((Method,), (Dataset, package.FactorDataset), (Metric,)), strict=True):
        for attribute in re.findall(
            r"`([a-z_]+)(?:\([^`]*\))?`", row.partition("|")[2].partition("|")[2].partition("|")[2]
        ):
            known = any(hasattr(c, attribute) or attribute in inspect.get_annotations(c) for c in classes)
            assert known, f"{classes[0].__name__} has no '{attribute}'"


def test_a_setting_of_a_metric_called_as_an_option_of_eval_is_found_and_refused(distk, monkeypatch) -> None:
    from dataclasses import make_dataclass

    from distk.config import option
    from distk.plugins.metrics.structure import Irs

    named = make_dataclass("Named", [("rows", int, option(3, "rows"))], bases=(Irs.Config,), frozen=True)
    monkeypatch.setattr(Irs, "Config", named)
    failed = [check for check in metric_checks("irs") if check.problem]
    assert [check.name for check in failed][:1] == ["its settings have names of their own"]
    assert "its setting 'rows' has a name that distk uses itself" in failed[0].problem
