"""Methods for sentences. A table of contents: nothing here imports torch."""

import typer

from distk.hookspecs import Register, hookimpl

_AT = "distk.plugins.text."
