"""The site, by Sphinx with MyST: `make docs` writes it to build/site, without a network."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from distk.version import __version__

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

project = "distk"
author = "the authors of distk"
copyright = "the authors of distk, Apache-2.0"
version = release = __version__
extensions = ["myst_parser"]
exclude_patterns = ["build"]
html_theme = "furo"
html_title = f"distk {__version__}"
html_copy_source = False
html_show_sphinx = False
myst_heading_anchors = 4
nitpicky = True
smartquotes = False  # it makes one dash of the two of an option

OUTSIDE = re.compile(r"\[([^\]]+)\]\((?:\.\./)+(?:(?:plugins|core|benchmarks|results|tests)/|README\.md)[^)]*\)")
"""A link to the source tree: in a checkout it leads there, on the site its words remain."""


def _inside(app: Any, name: str, source: list[str]) -> None:
    source[0] = OUTSIDE.sub(r"\1", source[0])


def _write_reference(app: Any) -> None:
    import reference  # beside this file; it needs the whole program, which reading these settings does not

    reference.write(HERE / "generated")


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("builder-inited", _write_reference)
    app.connect("source-read", _inside)
