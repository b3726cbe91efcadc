"""Why a run ends before its last step, epochs as steps, what is shown without training, and the record of a run."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

import distk
from distk.errors import UsageError
from distk.laboratory.records import read
from distk.settings import TrainConfig
from distk.training import record, stopping

TRAIN = ("train", "betavae", "--data", "digits", "--size", "8", "--device", "cpu", "--seed", "0")


@pytest.mark.parametrize(
    ("text", "found"),
    [("90s", 90), ("30m", 1800), ("2h", 7200), ("1d", 86400), ("1h30m", 5400), ("1:02:03", 3723), ("0.5m", 30)],
)
def test_times(text: str, found: float) -> None:
    assert stopping.seconds(text) == found


@pytest.mark.parametrize("text", ["5", "", "0s", "h", "-3m", "3 m", "1:2", "1h30", "1e3s", "nans"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"--max-time .* is not understood; write 90s"):
        stopping.seconds(text)


def test_conditions() -> None:
    config = TrainConfig(stop_when=("loss<20", "mig >= 0.3", "factorvae.train>0.9"), eval=("mig", "factorvae"))
    one, two, three = stopping.conditions(config)
    assert [c.key(stopping.scored(config)) for c in (one, two, three)] == ["loss", "mig/mig", "factorvae/train"]
    assert stopping.conditions(config)[1].key(set()) == "mig", "of a score that is not taken the name is a term's"
    assert one.holds(19.9)
    assert not one.holds(20.0)
    assert two.holds(0.3)
    assert not three.holds(0.9)
    assert not two.holds(float("nan"))
    assert not one.holds(float("-inf"))
    for text in ("mig", "mig=0.3", "mig>x", "0.3<", "a b>1"):
        with pytest.raises(UsageError, match=r"--stop-when .* is not understood"):
            stopping.conditions(TrainConfig(stop_when=(text,)))


def test_a_run_whose_time_is_over_is_saved_and_goes_on(distk_command: Any, in_folder: Path) -> None:
    code, _, err = distk_command(*TRAIN, "--steps", 100_000, "--max-time", "1s", "--out", "r", "--log-every", 10)
    assert code == 0, err
    assert "--max-time 1s is over" in err
    told = read(Path("r"))
    assert told.step is not None
    assert 0 < told.step < 100_000
    assert told.state != "finished"
    code, out, err = distk_command("resume", "r", "--steps", told.step + 3, "--set", "max_time=", "--json")
    assert code == 0, err
    assert json.loads(out)["step"] == told.step + 3
    assert read(Path("r")).state == "finished"


def test_a_run_ends_when_a_term_or_a_score_is_good_enough(distk_command: Any, in_folder: Path) -> None:
    words = (*TRAIN, "--steps", 60, "--log-every", 5, "--stop-when")
    code, _, err = distk_command(*words, "loss<1e9", "--out", "term")
    assert code == 0, err
    assert "ended at step 5: --stop-when: loss<1e9 holds" in err
    assert read(Path("term")).state == "finished"
    scored = (*words, "mig>=0", "--eval", "mig", "--eval-every", 20, "--out", "score")
    assert distk_command(*scored)[0] == 0
    assert read(Path("score")).step == 20
    code, _, err = distk_command(*words, "mig>=0", "--out", "never")
    assert "the log has no 'mig'. A score must be taken" in err
    assert read(Path("never")).step == 60
    assert "ended" in distk_command("info", "term")[1]


def test_epochs_are_steps(distk_command: Any, in_folder: Path) -> None:
    rows = len(distk.dataset("digits", size=8, device="cpu").rows_of("train"))
    code, out, err = distk_command(*TRAIN, "--epochs", 0.5, "--batch", 32, "--dry-run", "--json")
    assert code == 0, err
    told = json.loads(out)
    assert told["steps"] == -(-rows // 64)
    assert told["epochs"] == pytest.approx(told["steps"] * 32 / rows)
    assert not list(in_folder.iterdir()), "a dry run writes nothing"
    for dry in ((), ("--dry-run",)):
        code, _, err = distk_command(*TRAIN, "--seed", 1, "--seeds", "0:2", *dry)
        assert code == 2
        assert "--seed and --seeds exclude each other" in err
    run = distk.train("betavae", data="digits", size=8, epochs=0.1, batch=32, out="r", quiet=True, device="cpu")
    assert run.log[-1]["step"] == -(-rows // 320) == run.config["train"]["steps"]
    code, _, err = distk_command(*TRAIN, "--epochs", 1, "--steps", 5)
    assert (code, "exclude each other" in err) == (2, True)
    with pytest.raises(UsageError, match="exclude each other"):
        distk.train("betavae", epochs=1, steps=5)


def test_settings_are_shown_and_the_file_names_its_method(distk_command: Any, in_folder: Path) -> None:
    code, out, err = distk_command(*TRAIN, "--steps", 3, "--beta", 2, "--print-config")
    assert code == 0, err
    Path("c.toml").write_text(out)
    assert distk_command("train", "--config", "c.toml", "--steps", 2, "--out", "r")[0] == 0
    told = read(Path("r"))
    assert (told.method, told.step, told.settings["model.beta"]) == ("betavae", 2, 2.0)
    shown = json.loads(distk_command(*TRAIN, "--beta", 2, "--print-config", "--json")[1])
    assert (shown["method"], shown["model"]["beta"]) == ("betavae", 2.0)
    Path("none.toml").write_text("[model]\nbeta = 2\n")
    code, _, err = distk_command("train", "--config", "none.toml")
    assert (code, "does not say which method" in err) == (2, True)
    code, _, err = distk_command("train", "--steps", 3)
    assert (code, "name the method first" in err) == (2, True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--steps", -5), "--steps: -5 is below"),
        (("--beta", -1), "--beta: -1.0 is below"),
        (("--size", 3), "--size: '3' is none of"),
        (("--stepz", 3), "No such option: --stepz. Did you mean --steps?"),
        (("--qqqq", 3), "No such option: --qqqq"),
        (("--log", "wandb"), "--log wandb: no plugin of that name is installed"),
    ],
)
def test_messages_name_what_was_typed(distk_command: Any, words: tuple[Any, ...], said: str) -> None:
    code, _, err = distk_command(*TRAIN, *words)
    assert code == 2
    assert said in " ".join(err.replace("│", " ").split())
    assert ("Did you mean" in err) == ("Did you mean" in said)


def test_a_run_keeps_a_record_of_its_starts_and_ends(distk_command: Any, in_folder: Path) -> None:
    assert distk_command(*TRAIN, "--steps", 4, "--out", "r")[0] == 0
    assert distk_command("resume", "r", "--steps", 6)[0] == 0
    rows = record.read(Path("r"))
    assert [(row["event"], row["step"]) for row in rows] == [("started", 0), ("ended", 4), ("resumed", 4), ("ended", 6)]
    assert rows[0]["command"] == "distk train betavae --data digits --size 8 --device cpu --seed 0 --steps 4 --out r"
    assert rows[0]["working_folder"] == str(in_folder)
    assert rows[0]["host"]
    assert rows[0]["versions"]["distk"] == distk.__version__
    assert rows[1]["outcome"] == "finished"
    with (in_folder / "r" / "record.jsonl").open("a") as file:
        file.write('{"event": "start')
    assert len(record.read(Path("r"))) == 4, "a row that a killed process left half written does not count"
    told = json.loads(distk_command("info", "r", "--json")[1])["record"]
    assert [row["event"] for row in told] == ["started", "ended", "resumed", "ended"]


def test_the_commit_is_what_git_says(in_folder: Path) -> None:
    assert record.commit(in_folder) in ("", record.commit(in_folder.parent))

    def git(*words: str) -> str:
        named = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
        return subprocess.run(["git", *named, *words], check=True, capture_output=True, text=True).stdout.strip()

    git("init", "-q", "-b", "first")
    git("commit", "-q", "--allow-empty", "-m", "one")
    (in_folder / "below").mkdir()
    assert record.commit(in_folder / "below") == git("rev-parse", "HEAD")
    git("pack-refs", "--all")
    assert record.commit(in_folder) == git("rev-parse", "HEAD")
    git("worktree", "add", "-q", "-b", "second", "tree")
    assert record.commit(in_folder / "tree") == git("rev-parse", "HEAD")
    git("checkout", "-q", "--detach")
    git("commit", "-q", "--allow-empty", "-m", "two")
    assert record.commit(in_folder) == git("rev-parse", "HEAD")
    (in_folder / ".git" / "HEAD").write_text("ref: refs/../../secret")
    assert record.commit(in_folder) == ""
