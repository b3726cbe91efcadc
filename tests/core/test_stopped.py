"""Ctrl-C at any moment of a start: one sentence, exit code 130, and nothing goes on."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from distk.guard import watching

PRESSED = """
import signal, sys

class Presses:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            sys.meta_path.remove(self)
            signal.raise_signal(signal.SIGINT)

signal.signal(signal.SIGINT, signal.default_int_handler)
sys.meta_path.insert(0, Presses())
sys.argv = ["distk", *{words!r}]
from distk.cli import main
main()
"""
TRAIN = ["train", "betavae", "--data=blobs", "--steps=1", "--batch=4", "--device=cpu", "--out=run", "--seeds=0:2"]


@pytest.mark.parametrize(
    "module",
    [
        *("rich.console", "distk.registry", "distk.commandline", "distk.plugins.text", "distk.commands.train"),
        *("torch", "distk.plugins.vae_family.networks", "distk.training.loop", "distk.training.forks"),
    ],
)
def test_while_something_is_imported(module: str, tmp_path: Path) -> None:
    line = [sys.executable, "-c", PRESSED.format(module=module, words=TRAIN)]
    made = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert "Traceback" not in made.stderr
    assert made.stderr.strip().splitlines()[-1].startswith("error: stopped by Ctrl-C"), made.stderr
    assert made.returncode == 130
    assert not list(tmp_path.rglob("*.safetensors"))


def test_it_is_told_from_what_a_plugin_raises_within_what_is_loaded_within() -> None:
    """A method's module is imported while a command's is: what watches inside asks who watches outside."""
    held = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with watching() as outer, watching() as inner:
            assert not inner.yes
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
            assert inner.yes
            assert outer.yes
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        with watching() as later:
            assert not later.yes
    finally:
        signal.signal(signal.SIGINT, held)
