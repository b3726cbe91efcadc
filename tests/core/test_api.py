"""The Python API as somebody types it who knows PyTorch."""

import copy
import doctest
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import distk
from distk.errors import DistkError, UsageError
from distk.handed import Handed, as_it_is
from distk.method import can
from distk.registry import registry
from distk.run import Run
from distk.settings import resolve
from distk.testing.data import same
from distk.testing.methods import _Probe

ROOT = Path(__file__).parents[2]
DEMO: dict[str, Any] = {"steps": 3, "seed": 0, "device": "cpu", "quiet": True}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return distk.train("cascadevae", preset="demo", out=tmp_path_factory.mktemp("api") / "run", **DEMO)


@pytest.fixture(scope="module")
def model(run: Run) -> Any:
    return distk.load(run, "cpu")


def test_a_run_its_folder_and_its_checkpoint_are_one_thing(run: Run) -> None:
    weights = [distk.load(one, "cpu").state_dict() for one in (run, run.path, str(run.path), run.checkpoint)]
    for other in weights[1:]:
        assert all(torch.equal(weights[0][name], value) for name, value in other.items())
    assert "cascadevae" in repr(run)
    assert Path(run) == run.path


def test_nothing_carries_a_gradient_unless_it_is_asked_for(model: Any) -> None:
    x = model.dataset()[:2]["x"]
    code = model.encode(x)
    assert code["z"].numpy().shape == (2, 3)
    assert model.decode(code).numpy().shape == (2, 1, 32, 32)
    assert model.posterior(x)["z"][0].numpy().shape == (2, 3)
    assert model.sample(2, seed=0).numpy().shape == (2, 1, 32, 32)
    with_gradient = model.encode(x, grad=True)
    assert with_gradient["z"].requires_grad
    model.decode(with_gradient, grad=True).sum().backward()
    assert any(p.grad is not None and bool(p.grad.any()) for p in model.parameters())
    model.zero_grad()
    with torch.no_grad():
        assert not model.encode(x, grad=True)["z"].requires_grad


def test_draws_take_a_generator_a_seed_or_torchs_own(model: Any, seed: int) -> None:
    by_seed = model.sample(3, seed=seed)
    assert torch.equal(by_seed, model.sample(3, torch.Generator().manual_seed(seed)))
    assert torch.equal(by_seed, model.sample(3, seed))
    torch.manual_seed(seed)
    one = model.prior(3)["z"]
    assert not torch.equal(one, model.prior(3)["z"])
    torch.manual_seed(seed)
    assert torch.equal(one, model.prior(3)["z"])
    assert torch.equal(model.sample(2, seed=1, d=1), model.sample(2, generator=torch.Generator().manual_seed(1), d=1))
    with pytest.raises(TypeError, match="a generator or a seed, not both"):
        model.sample(2, torch.Generator(), seed=1)
    with pytest.raises(TypeError, match=r"takes a torch\.Generator or a whole number"):
        model.sample(2, "0")


def test_copies_are_models_of_their_own(model: Any) -> None:
    x = model.dataset()[:2]["x"]
    before = model.encode(x)["z"]
    for made in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(made.encode(x)["z"], before)
        with torch.no_grad():
            for parameter in made.parameters():
                parameter.zero_()
        assert torch.equal(model.encode(x)["z"], before), "the copy's weights are not the model's"
        assert not torch.equal(made.encode(x)["z"], before), "the copy encodes by its own weights"
        assert made.dataset().name == "dsprites"
        assert isinstance(made.encode, Handed)
        assert made.encode.model is made


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda m: distk.load(5), "a checkpoint or a run is named by a path or a Run, not by int"),
        (lambda m: distk.load(Run), "not by Run"),
        (lambda m: distk.dataset(5), "a data set is named by text, not by int"),
        (lambda m: distk.train(m), "a method is named by text"),
        (lambda m: distk.train("cascadevae", data=5), "a data set is named by text"),
        (lambda m: distk.resume(5), "a run is named by a path"),
        (lambda m: distk.traverse(5), "named by a path"),
        (lambda m: distk.evaluate(None, ["mig"]), "not by NoneType"),
        (lambda m: distk.evaluate(m, ["mig"], data=5), "data are a data set or its name, not int"),
        (lambda m: distk.compare(5), "named by a path"),
        (lambda m: distk.codes(5), "is an array or a tensor"),
        (lambda m: m.encode(np.zeros((1, 1, 32, 32))), "not ndarray: torch.as_tensor"),
        (lambda m: m.encode([1]), "not list"),
        (lambda m: m.decode(torch.zeros(1, 3)), "a code is a dict of z, d, not Tensor"),
        (lambda m: m.decode({"z": [1.0]}), "'z' is list"),
        (lambda m: m.dataset()["x"], "rows are whole numbers, a slice, a list or a tensor, not str"),
        (lambda m: m.dataset()[[0.5]], "rows are whole numbers"),
    ],
)
def test_what_is_of_a_wrong_type_is_a_type_error(model: Any, call: Any, words: str) -> None:
    with pytest.raises(TypeError, match=re.escape(words)) as caught:
        call(model)
    assert isinstance(caught.value, UsageError), "and one of ours"


def test_one_item_is_told_how_to_be_a_batch(model: Any) -> None:
    with pytest.raises(UsageError, match=r"this is one item .* x\[None\] is a batch of one"):
        model.encode(model.dataset()[0]["x"])


def test_evaluate_takes_what_names_a_model_and_raises(run: Run, model: Any, seed: int) -> None:
    options: dict[str, Any] = {"rows": 300, "seed": 0}
    ours = distk.evaluate(model, "mig", **options)["metrics"]["mig"]["mig"]
    for one in (run, run.path, str(run.checkpoint)):
        assert distk.evaluate(one, ["mig"], **options)["metrics"]["mig"]["mig"] == ours
    assert distk.evaluate(model, ["mig"], data="dsprites", **options)["metrics"]["mig"]["mig"] == ours
    rng = np.random.default_rng(seed)
    held = {"codes": rng.normal(size=(200, 3)), "factors": rng.integers(0, 4, (200, 2))}
    scored = distk.evaluate(held, ["mig"])["metrics"]["mig"]["mig"]
    assert scored == distk.evaluate(distk.codes(held["codes"], held["factors"]), ["mig"])["metrics"]["mig"]["mig"]
    with pytest.raises(DistkError, match=r"metric 'perplexity' could not be computed: .*on_error='row'"):
        distk.evaluate(model, ["mig", "perplexity"], **options)
    kept = distk.evaluate(model, ["mig", "perplexity"], on_error="row", **options)["metrics"]
    assert kept["mig"]["mig"] == ours
    assert "error" in kept["perplexity"]
    with pytest.raises(UsageError, match="on_error is 'raise' or 'row'"):
        distk.evaluate(model, ["mig"], on_error="skip")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="does not fit the model: height"):
        distk.evaluate(model, ["mig"], data=distk.dataset("dsprites", size=64, device="cpu"))


def test_resume_goes_on(tmp_path: Path) -> None:
    whole = distk.train("betavae", data="digits", size=8, out=tmp_path / "whole", **{**DEMO, "steps": 6})
    begun = distk.train("betavae", data="digits", size=8, out=tmp_path / "begun", **{**DEMO, "steps": 3})
    gone_on = distk.resume(begun, steps=6, quiet=True, log_every=2)
    a, b = (distk.load(run, "cpu").state_dict() for run in (whole, gone_on))
    assert all(torch.equal(a[name], b[name]) for name in a)
    with pytest.raises(UsageError, match="cannot change in a run"):
        distk.resume(begun, batch=3)


def test_traverse_gives_items_and_values(model: Any, run: Run) -> None:
    walk = distk.traverse(model, columns=5, row=3)
    assert len(walk.rows) == 9, "three dimensions under each of three classes"
    assert walk.rows[0].items.shape == (5, 1, 32, 32)
    assert walk.rows[0].values == pytest.approx([-2, -1, 0, 1, 2])
    assert not walk.rows[0].items.requires_grad
    assert torch.equal(distk.traverse(run, model.dataset()[3]["x"][None], columns=5).rows[0].items, walk.rows[0].items)
    assert distk.traverse(model, start="prior", top=1, span=(-1, 1)).input is None
    with pytest.raises(UsageError, match="row 768 is outside"):
        distk.traverse(model, row=768)
    with pytest.raises(UsageError, match="leave x and row out"):
        distk.traverse(model, row=1, start="prior")


FEW_GRASPS = {"objects": 4, "categories": ("cup", "mug"), "scenes": 2, "size": 32, "voxels": 8, "demos": 2, "kept": 8}
SMALLER: dict[str, dict] = {
    **{name: {"poses": 2} for name in ("fstat", "triplet", "histloss", "bindev")},
    "factorgen": {"orientations": 2, "positions": 4},
    "nlmultitask": {"sentences": 600},
    **dict.fromkeys(("grasping", "graspcnn"), FEW_GRASPS),
    **{name: {"clips": 60, "held_out": 20} for name in ("ldf", "joint-gan")},
}
"""Data that are drawn quickly."""
METHODS = [entry.name for entry in registry().entries("method") if entry.distribution == "distk"]


@pytest.mark.parametrize("name", METHODS)
def test_every_loaded_model_can_be_copied_and_pickled(name: str, tmp_path: Path) -> None:
    cls = registry().find("method", name).load()
    options = {"data": SMALLER.get(name, {}), "train": {"device": "cpu", "batch": 8, "steps": 0}}
    settings = resolve(name, preset="demo" if "demo" in cls.presets else None, options=options)
    probe = _Probe(settings, 0)
    trainer = probe.bare()
    probe._save(trainer, tmp_path / "c.safetensors")
    model = distk.load(tmp_path / "c.safetensors", "cpu")
    x = trainer.dataset.sample(4, torch.Generator().manual_seed(0), bucket=trainer.dataset.bucket(0, 0))
    for made in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        same(model.state_dict(), made.state_dict(), "the model and its copy")
        if can(model, "encode"):
            with as_it_is(), torch.no_grad():
                same(model.encode_batch(x), made.encode_batch(x), "codes of the model and its copy")


# Data sets


def test_a_data_set_is_one_of_pytorchs(seed: int) -> None:
    data = distk.dataset("dsprites", size=32, scales=(5,), orientations=1, positions=8, device="cpu")
    assert isinstance(data, torch.utils.data.Dataset)
    assert "192 items, image [1, 32, 32]" in repr(data)
    whole = data.items(torch.arange(len(data)))
    assert sorted(data[5]) == sorted(whole)
    for name, value in whole.items():
        assert torch.equal(data[5][name], value[5])
        assert torch.equal(data[-1][name], value[-1])
        assert torch.equal(data[3:9:2][name], value[3:9:2])
        assert torch.equal(data[[7, 2]][name], value[[7, 2]])
        chosen = torch.arange(len(data)) % 5 == 0
        assert torch.equal(data[chosen][name], value[chosen])
    for wrong in (192, -193):
        with pytest.raises(IndexError, match="rows 0 to 191"):
            data[wrong]
    assert sum(1 for _ in data) == 192, "a loop ends"
    batches = list(DataLoader(data, batch_size=50))
    assert [len(b["x"]) for b in batches] == [50, 50, 50, 42]
    assert torch.equal(torch.cat([b["x"] for b in batches]), whole["x"])
    first, second = (torch.cat([b["factors"] for b in data.loader(50, shuffle=True, seed=seed)]) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, whole["factors"])
    assert torch.equal(first.unique(dim=0), whole["factors"].unique(dim=0)), "each row once"
    loader = data.loader(50, shuffle=True, seed=seed, drop_last=True)
    assert [len(b["x"]) for b in loader] == [50, 50, 50]
    assert not torch.equal(next(iter(loader))["x"], next(iter(loader))["x"]), "another order in every pass"
    other = distk.dataset("digits", device="cpu")
    assert sum(len(b["x"]) for b in other.loader(100, split="test")) == len(other.rows_of("test"))
    with pytest.raises(UsageError, match="batch is 1 or more"):
        data.loader(0)


def test_the_readme_gives_the_shapes_that_it_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its transcript is run as it stands; only the run is made shorter."""
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```pycon\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert blocks
    text = "\n".join(blocks).replace("steps=300", "steps=3")
    case = doctest.DocTestParser().get_doctest(text, {}, "README.md", "README.md", 0)
    failed = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE).run(case)
    assert failed.attempted > 8
    assert failed.failed == 0


def test_what_there_is_by_name() -> None:
    assert distk.names()["betavae"]
    assert set(distk.names("methods")) == {entry.name for entry in registry().entries("method")}
    assert distk.names("metric") == distk.names("metrics")
    assert set(distk.names("methods", "vae")) < set(distk.names("methods"))
    with pytest.raises(UsageError, match="methods"):
        distk.names("methosd")
    with pytest.raises(TypeError):
        distk.names(3)  # type: ignore[arg-type]


def test_a_model_that_is_called_says_what_it_can_do(model: Any) -> None:
    with pytest.raises(TypeError, match=r"CascadeVAE is not called itself: use model\.encode\(\.\.\.\), model\.decode"):
        model(torch.zeros(1, 1, 32, 32))
