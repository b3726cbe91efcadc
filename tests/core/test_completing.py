"""What the shell offers, asked as the shell asks."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from distk import completing


def offered(line: str, folder: Path) -> list[str]:
    """What bash is told to offer for the last word of a line."""
    words = line.split(" ")
    told = {"COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1), "_DISTK_COMPLETE": "complete_bash"}
    code = "import sys; sys.argv = ['distk']; from distk.cli import main; main()"
    found = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **told},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    return found.stdout.split()


@pytest.mark.parametrize(
    ("line", "wanted", "unwanted"),
    [
        ("distk tra", {"train", "traverse", "transfer"}, {"eval"}),
        ("distk train casc", {"cascadevae", "cascadevae-c"}, {"betavae"}),
        ("distk train cascadevae --preset ", {"demo", "paper"}, set()),
        ("distk train cascadevae --data dspr", {"dsprites"}, {"digits"}),
        ("distk train cascadevae --adam-reset ", {"relieve", "never"}, set()),
        ("distk train cascadevae --keep best:mi", {"best:mig"}, {"mig"}),
        ("distk eval --metric mi", {"mig"}, {"dci"}),
        ("distk eval runs/", {"runs/one"}, {"runs/none"}),
    ],
)
def test_values(line: str, wanted: set[str], unwanted: set[str], tmp_path: Path) -> None:
    (tmp_path / "runs" / "one").mkdir(parents=True)
    (tmp_path / "runs" / "none").mkdir()
    (tmp_path / "runs" / "one" / "checkpoint.safetensors").touch()
    found = set(offered(line, tmp_path))
    assert wanted <= found
    assert not unwanted & found


def test_runs_come_newest_first(in_folder: Path) -> None:
    for i, name in enumerate(("b", "a", "c")):
        place = in_folder / "runs" / name
        place.mkdir(parents=True)
        (place / "checkpoint.safetensors").touch()
        os.utime(place / "checkpoint.safetensors", (i, i))
    assert completing.runs("") == ["runs/c", "runs/a", "runs/b"]
    assert completing.runs("runs/a") == ["runs/a"]
    assert completing.runs("nowhere/") == []
