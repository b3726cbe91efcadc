"""Fixtures that all tests share."""

from __future__ import annotations

import importlib.util
import inspect
import os
import random
import re
import secrets
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

torch.set_num_threads(1)  # the suite runs one worker per core

SEEDED = pytest.StashKey[int]()
DRAWS = re.compile(r"\brand(n|int|perm|_like|n_like)?\(|\brandom\b|\brng\b|\bgenerator\b|manual_seed|\bseed\b")
"""What the source of a test that draws numbers looks like."""


def is_random(function: object, fixtures: Sequence[str]) -> bool:
    """Whether a test draws numbers, by itself or through a fixture of the suite."""
    if {"seed", "generator", "rng"} & set(fixtures):
        return True
    try:
        return bool(DRAWS.search(inspect.getsource(function)))  # type: ignore[arg-type]
    except (OSError, TypeError):
        return False


def pytest_addoption(parser: pytest.Parser) -> None:
    told = "A:B: run each test that draws numbers once for each of the seeds A to B-1; with -m random these alone"
    parser.addoption("--seeds", metavar="A:B", help=told)
    brisk = "with --seeds: a test that takes longer is run with its first seed alone (in each worker)"
    parser.addoption("--brisk", type=float, default=float("inf"), metavar="SECONDS", help=brisk)
    kept = (
        "append what became of each test to FILE as it comes, failures with their text: a killed run has told so much"
    )
    parser.addoption("--told", type=Path, metavar="FILE", help=kept)
    rest = "go on where FILE of --told ends: a test that it says has passed is left out"
    parser.addoption("--rest", action="store_true", help=rest)


PASSED = re.compile(r"(?:passed call|undrawn setup) [\d.]+s (.+?)(?: \d*)?$")
"""A line of `Told`; the name of a test may have spaces."""
UNDRAWN = "draws nothing from its seed, so that another changes nothing"


class Told:
    """Writes what becomes of each test as it comes."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or not report.passed:
            seeds = [str(value) for name, value in report.user_properties if name == "DISTK_TEST_SEED"]
            came = "undrawn" if report.skipped and UNDRAWN in report.longreprtext else report.outcome
            line = f"{came} {report.when} {report.duration:.2f}s {report.nodeid} {' '.join(seeds)}\n"
            with self.path.open("a", encoding="utf-8") as file:
                file.write(line + (f"{report.longreprtext[-4000:]}\n" if report.failed else ""))


def pytest_configure(config: pytest.Config) -> None:
    """Tests that are not marked cuda see the machine without its GPU: what they compare is made on the CPU, and a
    process that has used CUDA can no longer be forked. `pytest -m cuda` runs the others; with DISTK_TEST_GPU=1 all see
    it, and what fails then for more than its last digits, or for where a tensor lies, is a fault of ours."""
    if (path := config.getoption("--told")) and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Told(path))
    if config.getoption("markexpr") != "cuda" and not os.environ.get("DISTK_TEST_GPU"):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    wanted = metafunc.config.getoption("--seeds")
    if wanted and is_random(metafunc.function, metafunc.fixturenames):
        first, last = map(int, wanted.split(":"))
        metafunc.fixturenames.append("repeated")
        metafunc.parametrize("repeated", range(first, last), ids=[f"seed{n}" for n in range(first, last)])


@pytest.fixture(scope="session")
def program_file() -> Callable[[Path, str], ModuleType]:
    """`program_file(path, name)`: a program that is no part of a package, as a module of that name."""

    def opened(path: Path, name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # a dataclass looks its module up
        spec.loader.exec_module(module)
        return module

    return opened


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept for the next start lies in a folder of the tests, never in the user's."""
    monkeypatch.setenv("DISTK_CACHE", str(tmp_path_factory.getbasetemp() / "kept"))


@pytest.fixture(autouse=True)
def told_anew() -> None:
    """What a process says once, it says in each test once."""
    if (console := sys.modules.get("distk.console")) is not None:
        console._warned.clear()


def _seed_of(item: pytest.Item) -> int:
    """The seed of a test: its own, made of its name and so the same in every run, unless DISTK_TEST_SEED says a number
    or `any` (a fresh one), or `--seeds` says several. What a change broke is then what fails, and a run may be
    repeated; other seeds are for `--seeds` and for the run that the workflow makes once a week."""
    if SEEDED not in item.stash:
        wanted = getattr(item, "callspec", None)
        chosen = wanted.params.get("repeated") if wanted is not None else None
        if chosen is None:
            told = os.environ.get("DISTK_TEST_SEED", "")
            own = zlib.crc32(item.nodeid.encode()) >> 1
            chosen = secrets.randbelow(2**31) if told == "any" else int(told or own)
        item.stash[SEEDED] = chosen
        item.user_properties.append(("DISTK_TEST_SEED", item.stash[SEEDED]))
    return item.stash[SEEDED]


def _seed_globals(item: pytest.Item) -> None:
    """The generators that belong to nobody begin from the test's seed, so that no draw of a test is without one."""
    chosen = _seed_of(item)
    random.seed(chosen)
    np.random.seed(chosen)
    torch.manual_seed(chosen)


ALONE: dict[str, str] = {}
"""Tests that run with one of several seeds, by `_without_seed`, and why."""


def _without_seed(item: pytest.Item) -> str:
    """What a test has in common with itself under other seeds, whose name may stand anywhere among its parameters."""
    wanted = getattr(item, "callspec", None)
    repeated = wanted.params.get("repeated") if wanted is not None else None
    return re.sub(rf"(?<=[\[-])seed{repeated}(?=[\]-])", "", item.nodeid, count=1)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    _seed_globals(item)  # for fixtures of a module or the session
    if item.config.getoption("--seeds") and (why := ALONE.get(_without_seed(item))):
        pytest.skip(why)


def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    if call.when == "call" and call.duration > item.config.getoption("--brisk"):
        ALONE[_without_seed(item)] = "longer than --brisk"


def _states() -> list[object]:
    """Of the generators that belong to nobody."""
    _, key, *of_numpy = np.random.get_state()
    return [random.getstate(), key.tobytes(), of_numpy, torch.get_rng_state().tolist()]


@pytest.fixture(autouse=True)
def seeded_globals(request: pytest.FixtureRequest) -> Iterator[None]:
    """For the test itself, whatever those fixtures have drawn. With --seeds a test that has asked for no seed and left
    these generators where they stood is not run with another: its numbers come of seeds that it says itself."""
    _seed_globals(request.node)
    if not request.config.getoption("--seeds") or {"seed", "generator", "rng"} & set(request.fixturenames):
        yield
        return
    before = _states()
    yield
    if _states() == before:
        ALONE.setdefault(_without_seed(request.node), UNDRAWN)


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """A seed per test, told where the test fails; DISTK_TEST_SEED chooses one, `--seeds 0:20` tries several."""
    return _seed_of(request.node)


@pytest.fixture
def generator(seed: int) -> torch.Generator:
    """A fresh generator on the CPU."""
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def rng(seed: int) -> np.random.Generator:
    """The same of numpy."""
    return np.random.default_rng(seed)


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


def _left_out(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With --rest: leave out what has passed by the file of --told."""
    path = config.getoption("--told")
    if not config.getoption("--rest") or path is None or not path.exists():
        return
    lines = path.read_text(encoding="utf-8").splitlines()
    passed = {found[1] for line in lines if (found := PASSED.match(line))}
    done = [item for item in items if item.nodeid in passed]
    items[:] = [item for item in items if item.nodeid not in passed]
    config.hook.pytest_deselected(items=done)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    _left_out(config, items)
    for item in items:
        if isinstance(item, pytest.Function) and is_random(item.function, item.fixturenames):
            item.add_marker("random")
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("cuda"):
            item.add_marker(pytest.mark.skip(reason="no CUDA device on this machine, or not run as `pytest -m cuda`"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """List the seeds of tests that failed, why tests were skipped, and how many for each reason."""
    failed = [r for key in ("failed", "error") for r in terminalreporter.stats.get(key, [])]
    kept = [
        (r.nodeid, *pair) for r in failed for pair in getattr(r, "user_properties", ())
    ]  # of a module there are none
    told = [(nodeid, value) for nodeid, name, value in kept if name == "DISTK_TEST_SEED"]
    if told:
        terminalreporter.section("the seeds of what failed", "-")
        for nodeid, value in told:
            terminalreporter.write_line(f"DISTK_TEST_SEED={value}  {nodeid}")
    reports = terminalreporter.stats.get("skipped", [])
    reasons = Counter(str(report.longrepr[2]).removeprefix("Skipped: ") for report in reports)
    if reasons:
        terminalreporter.section(f"{len(reports)} skipped", "-")
        for reason, count in reasons.most_common():
            terminalreporter.write_line(f"{count:5}  {reason}")
