"""Anybody's clips: npz, folders of frames, strips, GIF, MP4 and AVI, read once and kept as bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from distk import Files, UsageError, option
from distk.video import Fit, VideoDataset, WindowConfig, read_clips


@dataclass(frozen=True)
class Config(WindowConfig):
    """Where the clips are in the folder, what their frames become, and which of them make an item."""

    layout: Literal["auto", "npz", "frames", "strips", "files"] = option(
        "auto", "npz; folders of frames; strips (a picture per clip); files (GIF, MP4, AVI); auto looks"
    )
    size: int | None = option(
        None, "height and width after a centred square crop, by area averaging; without it frames stay", min=4, max=1024
    )
    channels: Literal[1, 3] = option(3, "1 for grey, 3 for colour")
    labels: Literal["auto", "folder", "parent", "before", "after", "none"] = option(
        "auto",
        "a clip's class: its outermost folder, the one that it lies in (parent), or its name before its last or after "
        "its first underscore",
    )
    strip_frame: int | None = option(None, "pixels of a frame along a strip; without it frames are square", min=1)


class ClipFiles(VideoDataset[Config]):
    """Windows of the clips below `--data-dir`; see `distk.video.read_clips` for what that may hold."""

    reads = "an npz of clips, or folders of frames, PNG strips, GIF, MP4 or AVI files"

    def __init__(self, config: Config, device: torch.device, files: Files) -> None:
        super().__init__(config, device, files)
        if not files.required:
            raise UsageError(f"data set '{files.name}' needs the clips: add --data-dir, with a folder or a file.")
        fit = Fit(config.size, config.channels)
        self.hold(read_clips(files.folders[0], fit, config.layout, config.labels, config.strip_frame))


@dataclass(frozen=True)
class StripsConfig(Config):
    """As of `clips`, for strips of frames."""

    layout: Literal["auto", "npz", "frames", "strips", "files"] = option("strips", "strips: a picture per clip")
    min_len: int = option(32, "leave out clips with fewer frames than this", min=1, max=100_000)


class VideoStrips(ClipFiles):
    """CLASS/NAME.png or .jpg, the frames of a clip side by side or below each other, as mocogan's authors keep theirs;
    clips of fewer than 32 frames are left out."""

    Config = StripsConfig
    reads = "CLASS/NAME.png or .jpg, each a strip of square frames"


@dataclass(frozen=True)
class FolderConfig(Config):
    """As of `clips`, for classes in folders."""

    size: int | None = option(64, "height and width after a centred square crop, by area averaging", min=4, max=1024)


class VideoFolder(ClipFiles):
    """CLASS/CLIP/frame.png ... or CLASS/CLIP.gif, .mp4, .avi, cropped to a centred square of one size."""

    Config = FolderConfig
    reads = "CLASS/CLIP/frames, or CLASS/CLIP.gif, .mp4 or .avi"
