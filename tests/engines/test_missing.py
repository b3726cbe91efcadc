"""The engines where their packages are not installed: they are listed, and say what to install."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from distk import UsageError
from distk.registry import registry
from distk.study import submitted
from distk.study.protocol import Engine, Site


@pytest.mark.parametrize(("name", "package"), [("slurm", "submitit"), ("ray", "ray")])
def test_a_missing_package_is_a_sentence_with_the_command(name, package, monkeypatch, tmp_path: Path) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda asked, *more: None if asked == package else found(asked, *more)
    )
    with pytest.raises(UsageError) as caught:
        submitted.engine(name, {}, Site(tmp_path))
    assert str(caught.value) == f"engine '{name}' needs the package {package}: pip install 'distk[{name}]'."
    assert caught.value.exit_code == 2


def test_engines_are_classes_with_a_config_and_import_no_package() -> None:
    before = set(sys.modules)
    entries = registry().entries("engine")
    assert {"local", "ray", "slurm"} <= {entry.name for entry in entries}
    for entry in entries:
        cls = entry.load()
        assert issubclass(cls, Engine)
        cls.Config()
        assert entry.summary
    assert not {"ray", "submitit"} & (set(sys.modules) - before)


def test_the_page_names_every_setting() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "clusters.md").read_text(encoding="utf-8")
    for name, title in (("slurm", "Slurm"), ("ray", "Ray")):
        section = page.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
        config = registry().find("engine", name).load().Config
        assert {key for key in vars(config()) if f"`{key}`" not in section} == set()
