"""Video: clips of unequal length on the device, and files of clips read and written."""

from distk.video.clips import Clips, Fit
from distk.video.dataset import VideoDataset, WindowConfig
from distk.video.readers import read_clips
from distk.video.writers import write_clips

__all__ = ["Clips", "Fit", "VideoDataset", "WindowConfig", "read_clips", "write_clips"]
