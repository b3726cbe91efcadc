"""Fixtures that all tests share."""

from __future__ import annotations

import os
import secrets
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)  # the suite runs one worker per core


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept for the next start lies in a folder of the tests, never in the user's."""
    monkeypatch.setenv("DISTK_CACHE", str(tmp_path_factory.getbasetemp() / "kept"))


@pytest.fixture
def seed() -> int:
    """A fresh seed per test, printed when the test fails; DISTK_TEST_SEED repeats one."""
    chosen = int(os.environ.get("DISTK_TEST_SEED", secrets.randbelow(2**31)))
    print(f"DISTK_TEST_SEED={chosen}")
    return chosen


@pytest.fixture
def generator(seed: int) -> torch.Generator:
    """A fresh generator on the CPU."""
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def real():
    """`real("mnist/train-images-idx3-ubyte.gz")`: that file below DISTK_DATA, or the test is skipped."""

    def find(name: str) -> Path:
        root = os.environ.get("DISTK_DATA")
        if not root:
            pytest.skip("DISTK_DATA is not set: no real data on this machine")
        path = Path(root) / name
        if not path.exists():
            pytest.skip(f"{name} is not in DISTK_DATA")
        return path

    return find


@pytest.fixture
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, so that ./runs is the test's own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def program():
    """The command line, built once for all tests that go through `distk_command`."""
    from distk import cli

    return cli.build()


@pytest.fixture
def distk_command(program, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], in_folder: Path):
    """`distk_command("eval", ...)` in this process and an empty folder -> (exit code, stdout, stderr)."""
    from distk import cli

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["distk", *map(str, arguments)])
        monkeypatch.setattr(cli, "build", lambda: program)
        code = 0
        try:
            cli.main()
        except SystemExit as stopped:
            code = int(stopped.code or 0)
        told = capsys.readouterr()
        return code, told.out, told.err

    return call


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("cuda"):
            item.add_marker(pytest.mark.skip(reason="no CUDA device on this machine"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """List why tests were skipped, and how many for each reason."""
    reports = terminalreporter.stats.get("skipped", [])
    reasons = Counter(str(report.longrepr[2]).removeprefix("Skipped: ") for report in reports)
    if reasons:
        terminalreporter.section(f"{len(reports)} skipped", "-")
        for reason, count in reasons.most_common():
            terminalreporter.write_line(f"{count:5}  {reason}")
