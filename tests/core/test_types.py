"""What type checkers see of distk: the public names, the fields of a method's settings, an installed wheel.

mypy reads torch's own types first, which takes most of a minute, so all files are given to it at once, and what it
learned of torch is kept in pytest's cache folder.
"""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

import distk
from distk.commands import plugin_template
from distk.config import NoConfig, option
from distk.errors import UsageError

ROOT = Path(__file__).resolve().parents[2]

USER = """\
import torch

import distk
from distk import OptimizerFactory, Register, Split

run: distk.Run = distk.train("betavae", steps=10, beta=4.0)
model: distk.Method = distk.load(run.checkpoint, device="cpu")
data: distk.Dataset = model.dataset()
where: Split = "test"
items: torch.Tensor = data.sample(4, torch.Generator(), where)["x"]
code: dict[str, torch.Tensor] = model.encode(items)
table = distk.encode_table(model, data, rows=100, split=where)
scores: dict[str, object] = distk.evaluate(model, ["dci"])
factory: OptimizerFactory = distk.adam(1e-3)
training: bool = model.training
version: str = distk.__version__


@distk.hookimpl
def distk_register_methods(register: Register) -> None:
    register("mine", "mine:Mine", "as little as there can be")


class Old(distk.Method):
    Config = distk.NoConfig


class OldScore(distk.Metric):
    headline = "score"
"""
WRONG = """\
from dataclasses import dataclass

import distk


@dataclass(frozen=True)
class Config:
    beta: float = distk.option(1.0, "weight")


class Mine(distk.Method[Config]):
    def weight(self) -> float:
        return self.config.betta

    def name(self) -> str:
        return self.config.beta


class Theirs(distk.Dataset[Config]):
    def weight(self) -> str:
        return self.config.beta


class Score(distk.Metric[Config]):
    def weight(self) -> str:
        return self.config.beta


class Term(distk.Penalty[Config]):
    def weight_(self) -> str:
        return self.config.beta


split: distk.Split = 3
distk.laod("runs/first")
"""
WRONG_LINES = {13, 16, 21, 26, 31, 34, 35}
"""Lines of WRONG with a mistake, each of which only a checker finds that sees what stands behind the name."""


def mypy(cache: Path, *files: Path, python: Path = Path(sys.executable)) -> dict[str, list[tuple[int, str]]]:
    """`mypy --strict` over files -> the name of each file in which it found something: (line, message)."""
    line = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--no-error-summary", "--hide-error-context"]
    line += ["--cache-dir", cache, "--python-executable", python, *files]
    done = subprocess.run(
        [str(part) for part in line], cwd=files[0].parent, capture_output=True, text=True, timeout=900
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    told: dict[str, list[tuple[int, str]]] = {}
    for path, number, message in re.findall(r"^(.+?):(\d+): error: (.*)$", done.stdout, re.M):
        told.setdefault(Path(path).name, []).append((int(number), message))
    assert told or not done.returncode, done.stdout
    return told


@pytest.fixture(scope="module")
def cache(pytestconfig: pytest.Config) -> Path:
    return Path(pytestconfig.cache.mkdir("mypy"))


def plugin(folder: Path) -> list[Path]:
    """The plugin that `distk new-plugin` writes; its modules."""
    for path, text in plugin_template.files("mine").items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    return sorted((folder / "src").rglob("*.py"))


def test_a_user_sees_types_and_a_wrong_one_is_found(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "user.py").write_text(USER)
    (tmp_path / "wrong.py").write_text(WRONG)
    method = (ROOT / "plugins/vae_family/dipvae/method.py").read_text()
    lines = method.splitlines()
    spoilt = [i for i, text in enumerate(lines, 1) if "self.config.lr" in text]
    assert spoilt
    (tmp_path / "method_sound.py").write_text(method)
    (tmp_path / "method_spoilt.py").write_text(method.replace("self.config.lr", "self.config.rate"))
    signed = [i for i, text in enumerate(lines, 1) if "def objectives(self) -> list[Objective]:" in text]
    (tmp_path / "method_signed.py").write_text(method.replace("-> list[Objective]:", "-> list[str]:"))

    told = mypy(cache, *sorted(tmp_path.glob("*.py")), *plugin(tmp_path / "plugin"))

    assert {line for line, _ in told.pop("wrong.py")} == WRONG_LINES
    sound = set(told.pop("method_sound.py", []))  # what --strict asks for beyond the repository's own settings
    assert {line for line, _ in set(told.pop("method_spoilt.py")) - sound} == set(spoilt)
    assert set(signed) <= {line for line, _ in set(told.pop("method_signed.py")) - sound}
    assert told == {}, "neither the user's script nor the template may hold anything that mypy --strict objects to"


def test_an_installed_wheel_brings_its_types(tmp_path: Path, cache: Path) -> None:
    """An environment of distk's wheel alone, which borrows torch and the rest from the running one."""
    copy = tmp_path / "source"
    for part in ("core", "plugins"):
        # core/plugins is a link: copied as one, it leads to the copy of plugins
        shutil.copytree(ROOT / part, copy / part, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "src", copy / "src", symlinks=True, ignore=shutil.ignore_patterns("*.egg-info"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, copy)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*build, "-w", tmp_path, copy], check=True, capture_output=True, timeout=600)
    venv.create(tmp_path / "env", with_pip=False, symlinks=True)
    site = next((tmp_path / "env").glob("lib/python*/site-packages"))
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        wheel.extractall(site)
    assert (site / "distk" / "py.typed").exists()
    # Site folders only, so that the .pth files in them, and with them the editable distk, are not read.
    borrowed = {sysconfig.get_path("purelib"), *(p for p in sys.path if p.endswith("site-packages"))}
    (site / "borrowed.pth").write_text("".join(f"{path}\n" for path in sorted(borrowed)))
    scripts = tmp_path / "scripts"
    scripts.mkdir()
    (scripts / "user.py").write_text(USER)
    (scripts / "wrong.py").write_text(WRONG)
    python = tmp_path / "env" / "bin" / "python"
    found = subprocess.run([python, "-c", "import distk; print(distk.__file__)"], capture_output=True, text=True)
    assert Path(found.stdout.strip()) == site / "distk" / "__init__.py", found.stderr

    told = mypy(cache, scripts / "user.py", scripts / "wrong.py", python=python)

    assert {line for line, _ in told.pop("wrong.py")} == WRONG_LINES
    assert told == {}


def test_type_checkers_see_the_names_that_there_are() -> None:
    tree = ast.parse((ROOT / "core" / "__init__.py").read_text())
    block = next(n for n in tree.body if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING")
    imports = [statement for statement in block.body if isinstance(statement, ast.ImportFrom)]
    others = [ast.unparse(statement) for statement in block.body if statement not in imports]
    assert others == []
    seen = {(name.asname, f"{found.module}.{name.name}") for found in imports for name in found.names}
    assert seen == {(name, f"distk.{module}.{name}") for name, module in distk._HOME.items()}
    assert {"OptimizerFactory", "Register", "Split"} <= set(distk.__all__)
    for name in distk.__all__:
        assert getattr(distk, name) is not None


# What the parameter does at run time


def test_the_parameter_is_the_config() -> None:
    from dataclasses import dataclass

    from typing_extensions import TypeVar

    @dataclass(frozen=True)
    class Base:
        z: int = option(1, "size")

    @dataclass(frozen=True)
    class More(Base):
        beta: float = option(1.0, "weight")

    some = TypeVar("some", bound=Base, default=Base)

    class Tower(distk.Method[some]):
        pass

    class Leaf(Tower[More]):
        pass

    class Same(Leaf):
        pass

    class ByHand(distk.Method):
        Config = More

    class Both(distk.Metric[More]):
        Config = Base

    class Bare(distk.Dataset):
        pass

    kinds = (Tower, Leaf, Same, ByHand, Both, Bare, distk.Method, distk.Penalty)
    assert [cls.Config for cls in kinds] == [Base, More, More, More, Base, NoConfig, NoConfig, NoConfig]


def test_training_keeps_its_meaning() -> None:
    with pytest.raises(UsageError, match=r"Mine sets 'training'.*call it 'train_defaults'"):
        type("Mine", (distk.Method,), {"training": {"steps": 10}})
    assert distk.Method.train_defaults == {}
    assert "training" not in vars(distk.Method)


def test_a_model_without_a_run_says_that_it_knows_no_data() -> None:
    model = distk.Method(NoConfig(), distk.DataSpec("image", (1, 8, 8)))
    with pytest.raises(UsageError, match="comes from no run"):
        model.dataset()
    model.opens = lambda: "the data"  # type: ignore[assignment, return-value]
    assert model.dataset() == "the data"
