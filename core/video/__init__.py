"""Video: clips of unequal length on the device, and files of clips read and written.

Names are imported on first use: the process that decodes files needs no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the same names for type checkers and editors
    from distk.video.clips import Clips as Clips
    from distk.video.clips import Fit as Fit
    from distk.video.dataset import VideoDataset as VideoDataset
    from distk.video.dataset import WindowConfig as WindowConfig
    from distk.video.readers import read_clips as read_clips
    from distk.video.writers import write_clips as write_clips

_WHERE = {
    "Clips": "clips",
    "Fit": "clips",
    "VideoDataset": "dataset",
    "WindowConfig": "dataset",
    "read_clips": "readers",
    "write_clips": "writers",
}

__all__ = ["Clips", "Fit", "VideoDataset", "WindowConfig", "read_clips", "write_clips"]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)
