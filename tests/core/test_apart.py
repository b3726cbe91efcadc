"""Files are read in a process of its own, which may die of them."""

from __future__ import annotations

import io
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from distk import apart as module
from distk.apart import Answer, apart, each, only
from distk.errors import DistkError, UsageError
from distk.pictures import Form, Seen, frames_here, frames_of, read_frames, read_many

HERE = "distk_apart_work"
WORK = """
import json, os, time
import numpy as np
from distk.apart import LENGTH
from distk.console import warn_once
from distk.errors import DistkError, UsageError


def echo(content, where, **asked):
    warn_once(f'{where} is odd')
    yield {'asked': asked}, [np.frombuffer(content, np.uint8), np.arange(6, dtype='<f8').reshape(2, 3)]

def pid(content, where):
    yield {'pid': os.getpid()}, []

def dies(content, where):
    yield {}, []
    os.kill(os.getpid(), 11)

def ends(content, where):
    os._exit(3)
    yield

def hangs(content, where):
    time.sleep(60)
    yield

def refuses(content, where):
    raise DistkError(f'{where} is bad.')
    yield

def wrong(content, where):
    raise UsageError(f'{where} is asked for wrongly.')
    yield

def odd(content, where):
    raise KeyError('x')
    yield

def talks(content, where):
    os.write(1, b'hello')
    print('hello')
    yield {}, []

def greedy(content, where):
    np.ones(1 << 34, np.uint8)
    yield

def words(content, where):
    yield {}, [np.array(['a'], dtype=object)]

def lies(content, where):
    text = json.dumps({'told': {}, 'arrays': [['|u1', [1 << 40]]]}).encode()
    for handle in range(3, 30):
        try:
            os.write(handle, LENGTH.pack(len(text)) + text)
        except OSError:
            pass
    yield {}, []
"""


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a module with what a reader may do, which only fresh reading processes know."""
    (tmp_path / f"{HERE}.py").write_text(WORK)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(module, "_idle", [])
    yield HERE
    for process in module._idle:
        process.end()


def test_what_a_function_yields_comes_back(work: str, capfd: pytest.CaptureFixture[str], seed: int) -> None:
    content = np.random.default_rng(seed).bytes(200_000)
    told, (first, second) = only(f"{work}:echo", f"it{seed}", content, a=[1, "ü"])
    assert told == {"asked": {"a": [1, "ü"]}}
    assert first.tobytes() == content
    assert np.array_equal(second, np.arange(6.0).reshape(2, 3))
    first[0] = 1  # the array is ours
    assert f"warning: it{seed} is odd" in capfd.readouterr().err


def test_one_process_serves_many_files_and_two_where_one_waits(work: str) -> None:
    pids = {only(f"{work}:pid", "it")[0]["pid"] for _ in range(5)}
    assert len(pids) == 1
    assert pids != {os.getpid()}
    outer = apart(f"{work}:echo", "it", b"x")
    next(outer)
    assert only(f"{work}:pid", "it")[0]["pid"] not in pids
    assert list(outer) == []
    assert len(module._idle) == 2


def test_answers_come_in_order_while_files_are_sent_ahead(work: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    contents = [
        rng.bytes(int(n)) for n in rng.choice([0, 1, 5000, 70_000, 3_000_000], 60, p=[0.2, 0.3, 0.3, 0.15, 0.05])
    ]
    found = [(k, told["asked"], arrays[0].tobytes()) for k, told, arrays in each(
        f"{work}:echo", ((str(i), content, {"i": i}) for i, content in enumerate(contents))
    )]  # fmt: skip
    assert found == [(i, {"i": i}, content) for i, content in enumerate(contents)]


@pytest.mark.parametrize(
    ("does", "said"),
    [
        ("dies", "'it' is damaged: reading it was given up (its reader ended with signal 11)."),
        ("ends", "'it' is damaged: reading it was given up (its reader ended with 3)."),
        ("hangs", "'it' is damaged: reading it was given up (no answer for 0.5 seconds)."),
        ("lies", "'it' is damaged: reading it was given up (an array |u1 [1099511627776])."),
        ("words", "'it' is damaged: reading it was given up (an array |O [1])."),
        ("refuses", "it is bad."),
        ("odd", "'it' cannot be read: 'x'"),
        ("greedy", "'it' needs more than 6 GB of memory to be read."),
    ],
)
def test_whatever_a_file_does_to_its_reader_is_an_error_about_it(
    work: str, monkeypatch: pytest.MonkeyPatch, does: str, said: str
) -> None:
    only(f"{work}:pid", "it")
    with monkeypatch.context() as patch:
        patch.setattr(module, "PATIENCE", 0.5 if does == "hangs" else 60)
        with pytest.raises(DistkError) as error:
            list(apart(f"{work}:{does}", "it"))
    assert str(error.value) == said
    assert only(f"{work}:pid", "it"), "the next file is read"


def test_the_file_that_is_to_blame_is_named(work: str) -> None:
    with pytest.raises(DistkError, match=r"^'b' is damaged"):
        list(each(f"{work}:dies", [("b", b"", {}), ("c", b"", {})]))
    with pytest.raises(UsageError, match=r"^x is asked for wrongly\.$"):
        only(f"{work}:wrong", "x")


def test_what_a_library_prints_is_no_answer(work: str) -> None:
    assert only(f"{work}:talks", "it") == ({}, [])


def test_a_process_that_does_not_start_is_no_fault_of_the_file(work: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for command in (("/bin/false",), ("/nothing/here",)):
        monkeypatch.setattr(module, "COMMAND", command)
        with pytest.raises(DistkError, match=r"^the second process, which reads files, does not start"):
            only(f"{work}:pid", "it")


def test_an_answer_that_nobody_waits_for_is_not_the_next_one(work: str) -> None:
    answers = apart(f"{work}:echo", "it", b"x", a=1)
    next(answers)
    answers.close()
    assert only(f"{work}:echo", "it", b"y", a=2)[0] == {"asked": {"a": 2}}


def test_a_fork_reads_by_a_process_of_its_own_and_it_ends_with_who_asked(work: str, tmp_path: Path) -> None:
    ours = only(f"{work}:pid", "it")[0]["pid"]
    pid = os.fork()
    if pid == 0:
        try:
            (tmp_path / "theirs").write_text(str(only(f"{work}:pid", "it")[0]["pid"]))
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    theirs = int((tmp_path / "theirs").read_text())
    assert theirs != ours
    assert only(f"{work}:pid", "it")[0]["pid"] == ours
    deadline = time.monotonic() + 20
    while _runs(theirs) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _runs(theirs)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_paths_begin_where_those_of_who_asks_begin(work: str, in_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    only(f"{work}:pid", "it")  # it runs from now on
    (in_folder / "other").mkdir()
    (in_folder / "other" / "p.png").write_bytes(picture(0))
    monkeypatch.chdir(in_folder / "other")
    assert frames_of("p.png", "p.png") == 1


# Pictures


def picture(seed: int, **options: Any) -> bytes:
    made = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (9, 7, 3), dtype=np.uint8)).save(
        made, "PNG", **options
    )
    return made.getvalue()


def test_pictures_are_the_same_from_the_other_process(seed: int, tmp_path: Path) -> None:
    form, seen, here = Form((5, 6)), Seen(), Seen()
    contents = [picture(seed + i) for i in range(20)]
    expected: list[Answer] = [*(next(frames_here(c, "it", "", vars(form), 1)) for c in contents)]
    for told, _ in expected:
        here.update(told["seen"])
    found = list(read_many(((io.BytesIO(c), "it", 1) for c in contents), form, seen))
    assert [k for k, _ in found] == list(range(20))
    for (_, one), (_, (other,)) in zip(found, expected, strict=True):
        assert np.array_equal(one, other)
    assert +seen == +here == {"sized": 20}
    (tmp_path / "p.png").write_bytes(contents[0])
    assert np.array_equal(next(read_frames(tmp_path / "p.png", "it", form, Seen())), expected[0][1][0])
    assert frames_of(tmp_path / "p.png", "it") == 1


def test_a_picture_that_kills_its_decoder_is_named(monkeypatch: pytest.MonkeyPatch, in_folder: Path, seed: int) -> None:
    """A decoder that crashes over one picture, as a flaw in it would make it: the file is named."""
    from distk import open_dataset

    (in_folder / "sitecustomize.py").write_text(
        "import sys\nif 'distk.apart_process' in sys.orig_argv:\n"
        "    from PIL import Image\n    import os\n    real = Image.open\n"
        "    def opened(file, *a, **k):\n"
        "        content = file.read(); file.seek(0)\n"
        "        if content.endswith(b'bad'): os.kill(os.getpid(), 11)\n"
        "        return real(file, *a, **k)\n"
        "    Image.open = opened\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(in_folder))
    monkeypatch.setattr(module, "_idle", [])
    (in_folder / "scans").mkdir()
    for i in range(5):
        (in_folder / "scans" / f"{i}.png").write_bytes(picture(seed + i) + (b"bad" if i == 3 else b""))
    with pytest.raises(
        DistkError, match=rf"'.*3\.png' is damaged: .*signal {signal.SIGSEGV:d}\)\. Leave damaged files"
    ):
        open_dataset("folder", {"size": 8}, folder=in_folder / "scans")
    data = open_dataset("folder", {"size": 8, "on_bad": "skip"}, folder=in_folder / "scans")
    assert len(data) == 4
    assert any("1 damaged file left out: 3.png" in line for line in data.told)
