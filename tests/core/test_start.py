"""What a start of the program imports: the version needs no command line, a listing no torch, a run no compiler."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import distk

CODE = """
import sys
before = set(sys.modules)
sys.argv = ["distk", *sys.argv[1:]]
from distk.cli import main
try:
    main()
except SystemExit as stop:
    assert not stop.code, stop.code
print("MODULES", *sorted(set(sys.modules) - before))
"""
"""Runs the program and prints, last, what it imported."""


def started(*arguments: str) -> tuple[str, set[str]]:
    """(stdout, modules imported) of `distk ARGUMENTS` in a process of its own."""
    done = subprocess.run([sys.executable, "-c", CODE, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    out, _, modules = done.stdout.rpartition("MODULES ")
    return out, set(modules.split())


def test_the_version_needs_no_command_line_and_no_plugin() -> None:
    out, modules = started("--version")
    assert out == f"distk {distk.__version__}\n"
    assert sorted(name for name in modules if name.startswith("distk")) == [
        "distk",
        "distk.cli",
        "distk.errors",
        "distk.version",
    ]
    assert not modules & {"torch", "numpy", "typer", "rich", "pluggy"}
    # What importlib.metadata brings, and little else: 97 on Python 3.11.
    assert len(modules) <= 130, sorted(modules)


@pytest.mark.parametrize(
    "arguments", [("list",), ("--help",), ("plugins",), ("study", "--help"), ("mvae", "--help"), ("eval", "--help")]
)
def test_listings_import_neither_torch_nor_numpy(arguments: tuple[str, ...]) -> None:
    out, modules = started(*arguments)
    assert out.strip()
    assert not modules & {"torch", "numpy", "scipy", "sklearn", "matplotlib"}


def test_the_version_among_other_words_is_the_same() -> None:
    assert started("--debug", "--version")[0] == started("--version")[0]


WAITS = """
import os, sys
sys.argv = ["distk", "list", "methods"]
from distk.cli import main
try:
    main()
except SystemExit:
    pass
print("WAITS", os.environ.get("OMP_WAIT_POLICY"))
"""


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({}, "passive"),
        ({"OMP_WAIT_POLICY": "active"}, "active"),
        ({"GOMP_SPINCOUNT": "1000"}, "None"),
        ({"KMP_BLOCKTIME": "1"}, "None"),
    ],
)
def test_threads_wait_asleep_unless_the_user_says_how(given: dict[str, str], found: str) -> None:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_WAIT", "GOMP_", "KMP_"))}
    done = subprocess.run(
        [sys.executable, "-c", WAITS], env={**clean, **given}, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == f"WAITS {found}"


COMPILER = {"torch._dynamo", "torch._inductor", "sympy"}
"""What torch's optimizers and dispatch modes import unless they are kept from it: 820 modules, 1.4 s."""


def test_training_and_scoring_import_no_compiler_and_no_statistics(tmp_path: Path) -> None:
    """With torch 2.13 they are about 1,400, and were 2,800 with the compiler. Others may import some of it."""
    compiler = COMPILER if torch.__version__ >= (2, 13) else set()
    run = str(tmp_path / "run")
    _, trained = started("train", "betavae", "--data", "blobs", "--steps", "2", "--batch", "8", "--out", run)
    _, scored = started("eval", run, "--metric", "mig", "--no-plots")
    _, resumed = started("resume", run, "--steps", "3")
    for modules, most in ((trained, 1600), (scored, 1600), (resumed, 1600)):
        assert "torch" in modules
        assert not modules & (compiler | {"sklearn", "scipy", "joblib", "matplotlib"})
        assert len(modules) <= most or not compiler, len(modules)
