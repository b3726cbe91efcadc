"""The formats, each with how a part becomes bytes and how those bytes are run again."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distk.console import counted
from distk.errors import DistkError, UsageError
from distk.export.parts import SEED, Material, as_tuple
from distk.testing.reads import HostRead, NoHostReads

Runner = Callable[[tuple[Tensor, ...]], tuple[Tensor, ...]]
"""What runs a file: inputs -> outputs."""
Way = Callable[[Material, str, int | None], bytes]
"""Part, what is said of it, a fixed batch size or None -> the bytes of a file."""
LARGEST = 2_000_000_000
"""Bytes of weights that one ONNX file holds; protobuf ends at 2 GiB."""
BATCH = 5
"""Items that a part is traced with: neither one nor a number that a network's own sizes often are."""
ABOUT = "distk.json"
"""File within an archive that says what it holds."""


@dataclass(frozen=True)
class Format:
    """suffix: of its files. ways: the first whose file is right is taken. open: bytes -> what runs them."""

    suffix: str
    ways: tuple[Way, ...]
    open: Callable[[bytes], Runner]


def _traced(material: Material, batch: int | None) -> tuple[tuple[Tensor, ...], Any]:
    """Inputs to trace with, and the shapes that torch.export is told: the batch free, unless it is fixed."""
    given = material.inputs(batch or BATCH, SEED)
    free = {} if batch else {0: torch.export.Dim("batch", min=1, max=1 << 16)}
    return given, None if batch else ((free,) * len(given),)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without what exporters print about their own work: whole graphs, where they fail."""
    held = io.StringIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(held), contextlib.redirect_stderr(held):
        warnings.simplefilter("ignore")
        logging.disable(logging.ERROR)
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)


def _exported(material: Material, batch: int | None) -> Any:
    """The part as torch.export sees it: by running it, or where that takes a size for a number, as `len` does, by
    reading its bytecode."""
    given, shapes = _traced(material, batch)
    with torch.no_grad():
        try:
            return torch.export.export(material.part, given, dynamic_shapes=shapes, strict=False)
        except Exception as error:
            try:
                return torch.export.export(material.part, given, dynamic_shapes=shapes, strict=True)
            except Exception:
                raise error from None


def _write_torch_export(material: Material, about: str, batch: int | None) -> bytes:
    held, program = io.BytesIO(), _exported(material, batch)
    _readable(program, material.inputs(batch or BATCH, SEED))
    torch.export.save(program, held, extra_files={ABOUT: about})
    return held.getvalue()


def _readable(program: Any, given: tuple[Tensor, ...]) -> None:
    """torch 2.9.0 keeps that inputs are as many as each other as a condition on `L`, a name that the module which it
    makes of a file does not know: such a condition is left out, where the module trips over it."""
    try:
        program.module()(*given)
    except NameError:
        program._guards_code = [told for told in program._guards_code if "L[" not in told]


def _open_torch_export(content: bytes) -> Runner:
    module = torch.export.load(io.BytesIO(content)).module()
    return lambda given: as_tuple(module(*given))


def _script_of(module: Any, material: Material, about: str, batch: int | None) -> bytes:
    given, _ = _traced(material, batch)
    with torch.no_grad():
        made = torch.jit.trace(module, given, check_trace=False)
    held = io.BytesIO()
    torch.jit.save(made, held, _extra_files={ABOUT: about})
    return held.getvalue()


def _script_of_graph(material: Material, about: str, batch: int | None) -> bytes:
    """Of the graph that torch.export makes, in which no Python is left that a trace could take for one case of many."""
    return _script_of(_exported(material, batch).module(), material, about, batch)


def _script_of_python(material: Material, about: str, batch: int | None) -> bytes:
    """Of the program as it runs. Where it branches on a value the file would hold the one branch that was taken."""
    try:
        with torch.no_grad(), NoHostReads():
            material.part(*material.inputs(BATCH, SEED))
    except HostRead as error:
        raise RuntimeError("a branch is data-dependent") from error
    return _script_of(material.part, material, about, batch)


def _open_torchscript(content: bytes) -> Runner:
    module = torch.jit.load(io.BytesIO(content), map_location="cpu")
    return lambda given: as_tuple(module(*given))


def needs() -> tuple[Any, Any]:
    """onnxscript and onnxruntime. Raises UsageError with the command that installs them."""
    try:
        import onnxruntime
        import onnxscript
    except ImportError as error:
        raise UsageError(f"--format onnx needs the package {error.name}: pip install 'distk[onnx]'.") from None
    return onnxscript, onnxruntime


def _write_onnx(material: Material, about: str, batch: int | None) -> bytes:
    needs()
    size = sum(value.numel() * value.element_size() for value in material.part.state_dict().values())
    if size > LARGEST:
        raise DistkError(f"its weights are {counted(size, 'byte')}, more than the {LARGEST:,} that one ONNX file holds")
    part = material.part
    with torch.no_grad():
        program = torch.onnx.export(
            _exported(material, batch),
            dynamo=True,
            input_names=[f"in_{name}" if name in part.outputs else name for name in part.inputs],
            output_names=list(part.outputs),
            verbose=False,
        )
    assert program is not None
    proto = program.model_proto
    entry = proto.metadata_props.add()
    entry.key, entry.value = "distk", about
    return bytes(proto.SerializeToString())


def _open_onnx(content: bytes) -> Runner:
    _, runtime = needs()
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]

    def run(given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        made = session.run(None, {name: np.ascontiguousarray(x.numpy()) for name, x in zip(names, given, strict=True)})
        return tuple(torch.from_numpy(np.asarray(each)) for each in made)

    return run


FORMATS = {
    "onnx": Format(".onnx", (_write_onnx,), _open_onnx),
    "torchscript": Format(".ts", (_script_of_python, _script_of_graph), _open_torchscript),
    "torch.export": Format(".pt2", (_write_torch_export,), _open_torch_export),
}
