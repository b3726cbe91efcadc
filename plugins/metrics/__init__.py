"""Scores of any representation. A table of contents: nothing here imports torch."""

from distk.hookspecs import Register, hookimpl

_AT = "distk.plugins.metrics."


@hookimpl
def distk_register_metrics(register: Register) -> None:
    pass
