"""An engine of somebody else: what docs/plugins.md shows, installed by pip."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROJECT = """
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"
[project]
name = "acme-queue"
version = "1.0"
[project.entry-points.distk]
acme-queue = "acme_queue"
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> dict[str, str]:
    """The environment variables with which Python finds the plugin."""
    folder = tmp_path_factory.mktemp("acme")
    section = (
        (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8").partition("\n## Engines\n")[2].partition("\n## ")[0]
    )
    announced, module = re.findall(r"^```python\n(.*?)^```$", section, re.M | re.S)
    package = folder / "source" / "acme_queue"
    package.mkdir(parents=True)
    (package.parent / "pyproject.toml").write_text(PROJECT)
    (package / "__init__.py").write_text(announced)
    (package / "engine.py").write_text(module)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run([*pip, "--target", folder / "site", package.parent], capture_output=True, text=True)
    if "No module named pip" in done.stderr:
        pytest.skip("this environment has no pip")
    assert done.returncode == 0, done.stderr
    return {**os.environ, "PYTHONPATH": str(folder / "site"), "COLUMNS": "200"}


def distk(environment: dict[str, str], *words: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "distk", *map(str, words)]
    done = subprocess.run(line, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == code, done.stderr
    return done


def test_an_engine_by_pip_install_runs_a_study(installed, recipe, undisturbed, tmp_path) -> None:
    listed = json.loads(distk(installed, "list", "engines", "--json").stdout)
    assert "acme-queue" in json.dumps(listed)
    study = ["study", "run", recipe, "--scale", "small", "--device", "cpu", "--out", tmp_path / "out"]
    study += ["--engine", "acme-queue"]
    wrong = distk(installed, *study, "--set", "engine.command=no-such-command", code=2).stderr
    assert "engine 'acme-queue': there is no command 'no-such-command' here." in wrong
    assert not (tmp_path / "out").exists()
    wrong = distk(installed, *study, "--set", "engine.comand=x", code=2).stderr
    assert "engine 'acme-queue' has no setting 'comand'. Did you mean 'command'?" in wrong
    distk(installed, *study, "--set", "engine.command=env ACME=1")
    assert (tmp_path / "out" / "results.csv").read_bytes() == undisturbed("small")
    assert json.loads(distk(installed, "study", "status", tmp_path / "out", "--json").stdout)["counts"] == {"done": 4}
