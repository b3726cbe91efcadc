"""The version of this distribution. In a module of its own, so that what writes it down need not import `distk`."""

import importlib.metadata

try:
    __version__ = importlib.metadata.version("distk")
except importlib.metadata.PackageNotFoundError:
    __version__ = "0+unknown"
