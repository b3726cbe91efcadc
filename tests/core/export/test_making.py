"""Exported files, run by what runs them alone, against the model; and what cannot be exported says why."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import distk
from distk.errors import DistkError, UsageError
from distk.export import making
from distk.export.formats import FORMATS
from distk.export.making import export
from distk.export.parts import part_of
from distk.method import Method
from distk.models import open_model

ONNX = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("onnxscript", "onnxruntime")),
    reason="the extra onnx is not installed: pip install 'distk[onnx]'",
)
FORMS = [pytest.param("onnx", marks=ONNX), "torchscript", "torch.export"]

ALONE = """
import sys
import numpy, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1])
given = numpy.load(sys.argv[2])
made = session.run(None, {each.name: given[each.name] for each in session.get_inputs()})
numpy.savez(sys.argv[3], **dict(zip([each.name for each in session.get_outputs()], made)))
assert "torch" not in sys.modules and "distk" not in sys.modules
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a method whose encoder looks for the best class by its decoder."""
    options: dict[str, Any] = {"data": "blobs", "z": 3, "classes": 3, "batch": 8, "steps": 2}
    out = tmp_path_factory.mktemp("exported") / "run"
    return distk.train("cascadevae", device="cpu", quiet=True, out=out, **options).path


@pytest.fixture
def model(run: Path) -> Method:
    return open_model(run / "checkpoint.safetensors", "cpu")[0]


def opened(run: Path) -> tuple[Any, Any]:
    return open_model(run / "checkpoint.safetensors", "cpu")


@pytest.mark.parametrize("form", FORMS)
def test_a_file_gives_what_the_model_gives(run: Path, form: str, seed: int) -> None:
    model, header = opened(run)
    generator = torch.Generator().manual_seed(seed)
    made = {what: export(model, header, what, form) for what in ("encoder", "decoder")}
    encode, decode = (FORMATS[form].open(made[what].content) for what in ("encoder", "decoder"))
    for n in (1, 3, 10):
        x = torch.rand(n, *model.spec.shape, generator=generator)
        z, d = encode((x,))
        with torch.no_grad():
            code = model.encode(x)
            expected = model.decode(code)
        # float32 sums of at most some thousand terms, in another order
        assert torch.allclose(z, code["z"], atol=1e-5, rtol=1e-4)
        assert torch.equal(d, code["d"])
        assert torch.allclose(decode((code["z"], code["d"]))[0], expected, atol=1e-5, rtol=1e-4)
    assert made["encoder"].inputs == {"x": list(model.spec.shape)}
    assert made["encoder"].outputs == {"z": [3], "d": [3]}
    assert made["decoder"].outputs == {"x": list(model.spec.shape)}
    assert made["encoder"].difference <= making.CLOSE


@ONNX
def test_onnxruntime_alone_runs_what_the_command_writes(run: Path, distk_command, tmp_path: Path, seed: int) -> None:
    code, out, err = distk_command("export", run, "--out", tmp_path, "--json")
    assert code == 0, err
    told = json.loads(out)
    assert [Path(file).name for file in told["files"]] == ["checkpoint.encoder.onnx", "checkpoint.decoder.onnx"]
    assert told["failed"] == []
    model, _ = opened(run)
    x = torch.rand(4, *model.spec.shape, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        latent = model.encode(x)
        expected = model.decode(latent).numpy()
    np.savez(tmp_path / "in.npz", x=x.numpy(), **{name: value.numpy() for name, value in latent.items()})
    for file, names in zip(told["files"], (("z", "d"), ("x",)), strict=True):
        words = [sys.executable, "-c", ALONE, file, str(tmp_path / "in.npz"), str(tmp_path / "out.npz")]
        subprocess.run(words, check=True, capture_output=True, cwd=tmp_path)
        with np.load(tmp_path / "out.npz") as got:
            assert set(got) == set(names)
            for name in names:
                right = expected if name == "x" else latent[name].numpy()
                np.testing.assert_allclose(got[name], right, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("form", ["torchscript", "torch.export"])
def test_a_file_says_what_it_holds(run: Path, form: str, tmp_path: Path) -> None:
    model, header = opened(run)
    (tmp_path / "file").write_bytes(export(model, header, "decoder", form).content)
    told: dict[str, Any] = {"distk.json": ""}
    if form == "torchscript":
        torch.jit.load(str(tmp_path / "file"), _extra_files=told)
    else:
        torch.export.load(str(tmp_path / "file"), extra_files=told)
    about = json.loads(told["distk.json"])
    assert (about["method"], about["what"], about["inputs"]) == ("cascadevae", "decoder", ["z", "d"])
    assert about["data"]["range"] == [0.0, 1.0]


def _wrong(run: Callable[[tuple[Tensor, ...]], tuple[Tensor, ...]], amount: float) -> Any:
    return lambda given: tuple(x + amount * x.abs().max().clamp_min(1) for x in run(given))


@pytest.mark.parametrize(("amount", "fails"), [(0.0, False), (1e-6, False), (3e-4, True), (float("nan"), True)])
def test_a_file_that_gives_other_results_is_not_written(
    run: Path, monkeypatch: pytest.MonkeyPatch, amount: float, fails: bool
) -> None:
    model, header = opened(run)
    form = FORMATS["torch.export"]
    monkeypatch.setitem(FORMATS, "torch.export", replace(form, open=lambda held: _wrong(form.open(held), amount)))
    if fails:
        with pytest.raises(DistkError, match="gives other results than the model"):
            export(model, header, "decoder", "torch.export")
    else:
        assert export(model, header, "decoder", "torch.export").difference <= 2e-6


def test_what_draws_at_random_is_refused(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, header = opened(run)
    plain = model.decode
    monkeypatch.setattr(model, "decode", lambda code: plain(code) + torch.rand(1))
    with pytest.raises(DistkError, match="another result each time"):
        export(model, header, "decoder", "torch.export")


@pytest.mark.parametrize("form", ["torch.export", "torchscript"])
def test_control_flow_that_depends_on_values_says_so(run: Path, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    model, header = opened(run)
    plain = model.decode
    monkeypatch.setattr(model, "decode", lambda code: plain(code) if float(code["z"].sum()) < 1e9 else code["z"])
    with pytest.raises(
        DistkError,
        match=r"the decoder of method 'cascadevae' cannot be exported as .*: its program branches",
    ):
        export(model, header, "decoder", form)


def test_one_batch_size(run: Path) -> None:
    model, header = opened(run)
    made = export(model, header, "decoder", "torch.export", batch=2)
    assert made.batches == (2,)
    held = FORMATS["torch.export"].open(made.content)
    assert held((torch.zeros(2, 3), torch.eye(3)[:2]))[0].shape == (2, *model.spec.shape)
    with pytest.raises(Exception, match=r"(?i)expected|guard|size|shape"):
        held((torch.zeros(5, 3), torch.eye(3)[[0] * 5]))


def test_inputs_are_of_the_data_and_the_prior(model: Method) -> None:
    held = part_of(model, "encoder", "x")
    (x,) = held.inputs(5, 0)
    assert x.shape == (5, *model.spec.shape)
    assert 0 <= float(x.min()) < float(x.max()) <= 1
    z, d = part_of(model, "decoder", "x").inputs(200, 0)
    assert abs(float(z.mean())) < 5 / (600**0.5)  # standard normal: five standard errors
    assert torch.equal(d.sum(1), torch.ones(200))
    assert not torch.equal(held.inputs(5, 1)[0], x)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--what", "third"], 2, "'third' is none of"),
        (["--format", "pickle"], 2, "'pickle' is none of"),
        (["--format", "torchscript", "--out", "model.onnx", "--what", "decoder"], 2, "cannot end in '.onnx'"),
        (["--format", "torchscript", "--out", "model.ts"], 2, "there are two to write"),
        (["--format", "torchscript", "--out", "no/model.ts", "--what", "decoder"], 2, "'no' does not exist"),
        (["--batch", "0"], 2, "--batch: '0' is below"),
    ],
)
def test_a_mistake_is_one_sentence(run: Path, distk_command, arguments: list[str], code: int, words: str) -> None:
    told = distk_command("export", run, *arguments)
    assert told[:2] == (code, "")
    assert words in " ".join(told[2].split())


def test_a_missing_half_and_a_missing_extra_are_said(distk_command, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = distk.train("covreg-xor", steps=2, batch=20, device="cpu", quiet=True, out="xor").path
    code, _, err = distk_command("export", out, "--what", "decoder", "--format", "torch.export")
    assert code == 2
    assert "method 'covreg-xor' has no decoder" in err
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    code, _, err = distk_command("export", run)
    assert code == 2
    assert "pip install 'distk[onnx]'" in err
    with pytest.raises(UsageError, match=r"distk\[onnx\]"):
        export(*opened(run), "decoder", "onnx")
