"""Small networks that scores ask, a judge or a verifier: each in a safetensors file, which may be anybody's."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import nn

from distk.device import initialised
from distk.errors import DistkError, UsageError
from distk.files import write_atomic

N = TypeVar("N", bound=nn.Module)
I = TypeVar("I")  # noqa: E741


@dataclass(frozen=True)
class NetworkFile(Generic[N, I]):
    """How networks of one kind are kept.

    what: the kind, for messages. key: of the JSON in the file's metadata. cure: the command that trains one.
    parse: JSON -> a dataclass of plain values that says how the network is built; it raises ValueError, KeyError,
    TypeError or AttributeError for damage, and returns None for sizes that cannot be. build: that -> the network.
    """

    what: str
    key: str
    cure: str
    parse: Callable[[Any], I | None]
    build: Callable[[I], N]

    def save(self, network: N, path: Path) -> None:
        """Write a network and its `info`, which `build` got, atomically."""
        tensors = {name: value.detach().cpu().contiguous().clone() for name, value in network.state_dict().items()}
        text = json.dumps(asdict(network.info), allow_nan=False)  # type: ignore[call-overload]
        write_atomic(path, to_bytes(tensors, metadata={self.key: text}))

    def load(self, path: Path, device: torch.device) -> N:
        """Read a network in eval mode.

        Raises UsageError for a missing file, DistkError for one that is damaged or holds no such network.
        """
        if not path.is_file():
            raise UsageError(f"{self.what} '{path}' does not exist; train one with `{self.cure}`.")
        try:
            with safe_open(path, framework="pt") as file:
                info = self._info(path, (file.metadata() or {}).get(self.key))
                with torch.device("meta"):
                    sketch = {name: list(value.shape) for name, value in self.build(info).state_dict().items()}
                if {name: file.get_slice(name).get_shape() for name in file.keys()} != sketch:
                    raise DistkError(f"the tensors of '{path}' do not fit the {self.what} that its header describes.")
                state = {name: file.get_tensor(name) for name in sketch}
        except (SafetensorError, OSError) as error:
            raise DistkError(f"'{path}' is truncated or not a safetensors file ({error}).") from error
        with initialised(0, device):
            network = self.build(info)
        network.load_state_dict(state)
        return network.to(device).eval()

    def _info(self, path: Path, text: str | None) -> I:
        if text is None:
            raise DistkError(f"'{path}' holds no {self.what}; train one with `{self.cure}`.")
        try:
            info = self.parse(json.loads(text))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise DistkError(f"the header of {self.what} '{path}' is damaged ({type(error).__name__}).") from error
        if info is None:
            raise DistkError(f"the header of {self.what} '{path}' does not describe a {self.what}.")
        return info
