"""One safetensors file holds a model: its tensors, a JSON header, and (until stripped) the training state.

Names: `model/<parameter or buffer>`, `train/<...>` for optimizers, generators and counters. The header stands in the
safetensors metadata under the key `distk`. Files from strangers are untrusted: nothing is unpickled, sizes are checked
before anything is allocated, and every setting goes through the same validation as a command-line option.
"""

from __future__ import annotations

import contextlib
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from distk import headers
from distk.config import from_dict, in_utf8, to_dict
from distk.console import counted
from distk.data import DataSpec
from distk.device import initialised
from distk.errors import DistkError, UsageError
from distk.files import write_atomic
from distk.method import Method
from distk.registered import Registration
from distk.registry import registry

FORMAT = 1
HEADER_LIMIT = 16 << 20
"""Bytes of safetensors header that we agree to read; a vocabulary of 30,000 words takes half a megabyte."""

LONGEST = 4096
"""Members that a setting may have; more would only serve to build a model of endless layers."""


@dataclass
class Header:
    """What a checkpoint says about itself."""

    method: str
    config: dict[str, Any]
    data: dict[str, Any]
    """`spec`, and how the training data was opened: `name`, `options`, `folder`, `origin`, `identity`."""
    step: int
    seed: int
    plugin: str = ""
    distribution: str = ""
    version: str = ""
    latents: list[dict[str, Any]] = field(default_factory=list)
    train: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    format: int = FORMAT


def save(path: Path, model: Method, header: Header, train: dict[str, Tensor] | None = None) -> None:
    """Write a checkpoint atomically. `train`: training state, names without the prefix."""
    tensors = {f"model/{name}": value for name, value in model.state_dict().items()}
    tensors |= {f"train/{name}": value for name, value in (train or {}).items()}
    # Clones: safetensors refuses views that share memory, and CUDA tensors go through the host here anyway.
    host = {name: value.detach().to("cpu").contiguous().clone() for name, value in tensors.items()}
    text = json.dumps(vars(header), ensure_ascii=True, allow_nan=False)
    write_atomic(path, to_bytes(host, metadata={"distk": text}))


def read_header(path: Path) -> Header:
    """The header alone, without reading tensors.

    Raises DistkError for a file that is missing, truncated, foreign, or of a newer format.
    """
    with _opened(path) as file:
        return _parse(path, file)


@contextlib.contextmanager
def _opened(path: Path) -> Any:
    in_utf8(str(path), "the name of a checkpoint")
    if not path.is_file():
        raise DistkError(f"checkpoint '{path}' does not exist.")
    try:
        size = path.stat().st_size
        with path.open("rb") as raw:
            length = int.from_bytes(raw.read(8), "little")
        if size < 8 or length > size - 8:
            raise DistkError(f"'{path}' is truncated or not a safetensors file.")
        if length > HEADER_LIMIT:
            raise DistkError(
                f"'{path}' has a header of {counted(length, 'byte')}; more than {HEADER_LIMIT} is refused."
            )
        with safe_open(path, framework="pt") as file:
            yield file
    except SafetensorError as error:
        raise DistkError(f"'{path}' is truncated or not a safetensors file ({_short(error)}).") from error
    except OSError as error:
        raise DistkError(f"cannot read '{path}': {error.strerror or error}.") from error


def _parse(path: Path, file: Any) -> Header:
    text = (file.metadata() or {}).get("distk")
    if text is None:
        raise DistkError(f"'{path}' is a safetensors file that distk did not write.")
    try:
        values = headers.parsed(text)
        version = values["format"]
        if isinstance(version, int) and version > FORMAT:
            raise DistkError(
                f"'{path}' has checkpoint format {version}, this distk reads up to {FORMAT}: update distk."
            )
        header = Header(**values)
        headers.check(vars(header))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DistkError(f"the header of '{path}' is damaged ({_short(error) or type(error).__name__}).") from error
    return header


def _registration(path: Path, header: Header) -> Registration:
    try:
        return registry().find("method", header.method)
    except DistkError as error:
        needs = f"'{path}' needs method '{header.method}' from plugin '{header.plugin}' of "
        needs += f"{header.distribution} {header.version}"
        absence = registry().absence(header.plugin, header.distribution)
        raise DistkError(f"{needs}, {absence}." if absence else f"{needs}: {error}") from error


def load(path: Path, device: torch.device | str = "cpu") -> tuple[Method, Header]:
    """Rebuild a model in eval mode.

    Raises DistkError for a damaged, foreign or newer file, a missing plugin, or tensors that do not fit the method.
    """
    with _opened(path) as file:
        header = _parse(path, file)
        cls = _registration(path, header).load()
        config, spec = _settings(path, cls, header)
        kinds = {name: file.get_slice(name) for name in file.keys() if name.startswith("model/")}
        shapes = {name[6:]: part.get_shape() for name, part in kinds.items()}
        model = _fitting(path, cls, config, spec, shapes, torch.device(device))
        for name, expected in model.state_dict().items():
            _check_dtype(path, name, kinds[f"model/{name}"].get_dtype(), expected.dtype)
        state = {name: file.get_tensor(f"model/{name}") for name in shapes}
    try:
        model.load_state_dict(state)
    except (RuntimeError, TypeError, ValueError) as error:
        raise DistkError(
            f"the tensors of '{path}' do not fit method '{header.method}': {_first_line(error)}"
        ) from error
    for name, value in model.named_parameters():
        if value.is_floating_point() and not bool(value.detach().isfinite().all()):
            raise DistkError(f"the weights of '{path}' are not finite (parameter '{name}'): nothing is made of them.")
    return model.to(device).eval(), header


def _settings(path: Path, cls: type[Method], header: Header) -> tuple[Any, DataSpec]:
    long = [name for name, value in header.config.items() if isinstance(value, list) and len(value) > LONGEST]
    if long:
        raise DistkError(f"the header of '{path}' has more than {LONGEST} values for '{long[0]}'.")
    try:
        return (
            from_dict(cls.Config, header.config, f"the header of '{path}', [model]"),
            DataSpec.from_dict(header.data.get("spec", {})),
        )
    except UsageError as error:  # the message may quote a value of any length
        text = str(error)
        raise DistkError(text if len(text) < 1000 else f"{text[:1000]}...") from error
    except (ArithmeticError, RecursionError) as error:  # infinity where a whole number belongs
        raise DistkError(f"the header of '{path}' has an impossible value ({_short(error)}).") from error


def _check_dtype(path: Path, name: str, found: str, expected: torch.dtype) -> None:
    """Floating tensors of any width are converted; anything else must be what the model holds."""
    floating = found in ("F16", "BF16", "F32", "F64")
    same = found == _DTYPES.get(expected)
    if not same and not (floating and expected.is_floating_point):
        raise DistkError(f"'{path}' does not fit its method: tensor '{name}' holds {found}, the model {expected}.")


_DTYPES = {
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.int16: "I16",
    torch.int32: "I32",
    torch.int64: "I64",
    torch.complex64: "C64",
}


def _fitting(path: Path, cls: type[Method], config: Any, spec: DataSpec, shapes: dict, device: torch.device) -> Method:
    """Build the model, after its shapes on the meta device were held against the file's, so that nothing is allocated
    for a header that does not belong to its tensors."""
    try:
        with torch.device("meta"):
            sketch = {name: list(value.shape) for name, value in cls(config, spec).state_dict().items()}
    except (NotImplementedError, RuntimeError):  # a constructor that computes with values cannot be sketched
        sketch = None
    except Exception as error:  # settings of a stranger may fail anywhere in a constructor
        raise DistkError(f"the settings in '{path}' do not build the method: {_first_line(error)}") from error
    if sketch is not None:
        _compare(path, sketch, shapes)
    # What a model allocates beside its tensors, such as tables, is of their order; a file's own size bounds both.
    room = 8 * path.stat().st_size + (256 << 20)
    try:
        with initialised(0, device), _Bounded(room):
            model = cls(config, spec)
    except Exception as error:
        raise DistkError(f"the settings in '{path}' do not build the method: {_first_line(error)}") from error
    _compare(path, {name: list(value.shape) for name, value in model.state_dict().items()}, shapes)
    return model


def _compare(path: Path, model: dict[str, list[int]], file: dict[str, list[int]]) -> None:
    for name in sorted(set(model) | set(file)):
        if model.get(name) != file.get(name):
            raise DistkError(
                f"'{path}' does not fit its method: tensor '{name}' is {file.get(name, 'missing')} in the file "
                f"and {model.get(name, 'unknown')} in the model."
            )


class _Bounded(TorchDispatchMode):
    """Refuses to allocate a tensor larger than `room` bytes from a factory such as torch.empty."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Nothing is compiled here; torch would import its compiler, a second's work, to keep it away."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        size = args[0] if args and isinstance(args[0], (list, tuple)) else ()
        if all(isinstance(n, int) for n in size) and 4 * math.prod(size) > self.room:
            raise ValueError(f"a tensor of shape {list(size)} is too large for this file")
        return func(*args, **(kwargs or {}))


def sizes(path: Path) -> dict[str, list[int]]:
    """Shape of every tensor in a checkpoint, without reading the tensors."""
    with _opened(path) as file:
        return {name: file.get_slice(name).get_shape() for name in file.keys()}


def tensors(path: Path) -> dict[str, Tensor]:
    """The model's tensors, names without the prefix `model/`, without building the model."""
    with _opened(path) as file:
        _parse(path, file)
        return _under(file, "model/")


def load_training(path: Path) -> dict[str, Tensor]:
    """The training state, names without the prefix `train/`; empty for a stripped checkpoint."""
    with _opened(path) as file:
        return _under(file, "train/")


def _under(file: Any, prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): file.get_tensor(name) for name in file.keys() if name.startswith(prefix)}


def header_for(model: Method, entry: Registration, data: dict[str, Any], step: int, seed: int, train: dict) -> Header:
    """The header of a model in training. data: as in `Header.data`, without `spec`."""
    return Header(
        method=entry.name,
        config=to_dict(model.config),
        data={**data, "spec": model.spec.to_dict()},
        step=step,
        seed=seed,
        plugin=entry.plugin,
        distribution=entry.distribution,
        version=entry.version,
        latents=model.latents.to_list(),
        train=train,
    )


def _short(error: Exception) -> str:
    """An error's text in one line of bounded length: it may quote a stranger's file."""
    return " ".join(str(error).split())[:200]


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1][:300] if lines else type(error).__name__).rstrip(".") + "."
