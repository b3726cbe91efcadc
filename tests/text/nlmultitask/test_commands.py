"""`distk nlmultitask ...` and the generic commands on a model of sentences, through the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import distk
from distk import UsageError
from distk.commands.shared import OnData
from distk.plugins.text.nlmultitask.prototypes import words_of

ONE, TWO, THREE = "The dog is red.", "The cat is red.", "No cat ever eats."


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    small = {"rep": 6, "hidden": 8, "embedding": 5, "data_sentences": 300, "batch": 16}
    made = distk.train(
        "nlmultitask", data="standin-trilingual:short", steps=4, device="cpu", quiet=True, decoders="rep,de,pos",
        out=tmp_path_factory.mktemp("nlm") / "r", **small,
    )  # fmt: skip
    return made.path


def test_one_sentence_and_a_file_say_the_same(run: Path, distk_command: Any, tmp_path: Path) -> None:
    model: Any = distk.load(run, device="cpu")
    for decoder in ("rep", "de", "pos"):
        expected = model.lines(model.codes([ONE]), decoder)[0]
        code, out, err = distk_command("nlmultitask", "translate", run, ONE, "--decoder", decoder)
        assert (code, out) == (0, expected + "\n"), err
    code, out, _ = distk_command("nlmultitask", "translate", run, ONE, "--decoder", "pos", "--json")
    assert json.loads(out) == [{"source": ONE, "decoder": "pos", "output": expected}]
    (tmp_path / "in.txt").write_text(f"{ONE}\n\n{THREE * 40}\n")
    line = ("nlmultitask", "translate", run, "--input", tmp_path / "in.txt", "--out", tmp_path / "out.txt")
    code, _, err = distk_command(*line, "--decoder", "rep")
    assert code == 0
    assert "characters: 1 longer sentence" in " ".join(err.split())
    assert (tmp_path / "out.txt").read_text().split("\n")[0] == model.lines(model.codes([ONE]))[0]
    assert (tmp_path / "out.txt").read_text().count("\n") == 3


def test_a_walk_begins_and_ends_with_the_sentences(run: Path, distk_command: Any) -> None:
    model: Any = distk.load(run, device="cpu")
    code, out, err = distk_command("nlmultitask", "interpolate", run, ONE, THREE, "--steps", "5", "--json")
    assert code == 0, err
    told = json.loads(out)
    assert told["share"] == [0.0, 0.25, 0.5, 0.75, 1.0]
    ends = model.lines(model.codes([ONE, THREE]))
    assert [told["lines"][0], told["lines"][-1]] == ends
    code, out, _ = distk_command("nlmultitask", "interpolate", run, ONE, THREE, "--decoder", "de")
    assert code == 0
    assert len(out.splitlines()) == 7


def test_a_sum_of_sentences_and_a_file_of_sums(run: Path, distk_command: Any, tmp_path: Path) -> None:
    model: Any = distk.load(run, device="cpu")
    code, out, err = distk_command("nlmultitask", "arithmetic", run, ONE, TWO, THREE)
    assert code == 0, err
    a, b, c = model.codes([ONE, TWO, THREE]).unbind(0)
    assert out == model.lines((a - b + c)[None])[0] + "\n"
    (tmp_path / "t.tsv").write_text(f"{ONE}\t{TWO}\t{THREE}\n{THREE}\t{TWO}\t{TWO}\n")
    code, out, _ = distk_command("nlmultitask", "arithmetic", run, "--file", tmp_path / "t.tsv", "--json")
    rows = json.loads(out)
    assert [row["s1"] for row in rows] == [ONE, THREE]
    assert rows[1]["output"] == model.lines(model.codes([THREE]))[0]


def test_clusters_are_shown_saved_and_drawn(run: Path, distk_command: Any, tmp_path: Path) -> None:
    line = ("nlmultitask", "syntax-clusters", run, "--per-prototype", 6, "--restarts", 9)
    files = ("--save", tmp_path / "c.npz", "--plot", tmp_path / "p.png")
    code, out, err = distk_command(*line, *files, "--json")
    assert code == 0, err
    told = json.loads(out)
    assert told["files"] == [str(tmp_path / "c.npz"), str(tmp_path / "p.png")]
    held = np.load(tmp_path / "c.npz", allow_pickle=False)
    assert held["codes"].shape == (84, 6)
    assert held["errors"].min() == told["best"]
    assert len(held["errors"]) == len(held["inertia"]) == 9
    contents = np.zeros((14, 14), int)
    np.add.at(contents, (held["cluster"], held["prototype"]), 1)
    assert contents.tolist() == told["contents"]
    assert int((contents.sum(1) - contents.max(1)).sum()) == told["best"]
    assert held["sentences"][-1] == ""
    words = [word for sentence in held["sentences"].tolist() for word in words_of(sentence)]
    model = distk.load(run, device="cpu")
    data = model.dataset()
    learnt = {word for sentence in data.lines(data.rows("train")) for word in words_of(sentence)}
    assert told["unseen_words"] == pytest.approx(sum(word not in learnt for word in words) / len(words))
    assert told["cut"] == sum(len(sentence) > model.vocab.max_len for sentence in held["sentences"].tolist())
    with Image.open(tmp_path / "p.png") as picture:
        assert picture.width > 600
    code, out, _ = distk_command(*line)
    assert "lowest_inertia" in out
    assert "unseen_words" in out
    assert "the best run" in out


def test_names_of_files_keep_what_stands_behind_their_last_dot(run: Path, distk_command: Any, tmp_path: Path) -> None:
    line = ("nlmultitask", "syntax-clusters", run, "--per-prototype", 2, "--restarts", 2)
    code, out, err = distk_command(*line, "--save", tmp_path / "codes.v1", "--plot", tmp_path / "pca.v1.PNG", "--json")
    assert code == 0, err
    assert json.loads(out)["files"] == [str(tmp_path / "codes.v1.npz"), str(tmp_path / "pca.v1.PNG")]
    assert {path.name for path in tmp_path.iterdir()} >= {"codes.v1.npz", "pca.v1.PNG"}


def test_clusters_without_the_data(run: Path, distk_command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model whose files are elsewhere is clustered all the same; data that the user names must be there."""
    line = ("nlmultitask", "syntax-clusters", run, "--per-prototype", 2, "--restarts", 2, "--json")

    def gone(on: Any) -> Any:
        raise UsageError("they are gone.")

    monkeypatch.setattr(OnData, "dataset", gone)
    code, out, err = distk_command(*line)
    assert code == 0, err
    assert json.loads(out)["unseen_words"] is None
    assert "unseen_words is not known: they are gone." in " ".join(err.split())
    code, _, err = distk_command(*line, "--data", "parallel")
    assert code == 2
    assert "they are gone." in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["translate", "{run}"], "give one sentence, each in quotes"),
        (["translate", "{run}", ONE, TWO], "give one sentence, each in quotes"),
        (["translate", "{run}", ONE, "--decoder", "fr"], "this model has no decoder 'fr'; it has rep, de and pos."),
        (["translate", "{run}", "d" * 300], "has 300 characters, and the model reads at most"),
        (["translate", "{run}", "--input", "none.txt"], "cannot read 'none.txt'"),
        (["translate", "{run}", "--input", "latin.txt"], "line 2, byte offset 6"),
        (["interpolate", "{run}", ONE], "give two sentences, each in quotes"),
        (["interpolate", "{run}", ONE, TWO, "--decoder", "it"], "no decoder 'it'"),
        (["arithmetic", "{run}", ONE, TWO], "give three sentences s1, s2 and s3"),
        (["arithmetic", "{run}", "--file", "two.tsv"], "line 1 of 'two.tsv' has 2 sentences apart by tabs, not three"),
        (["syntax-clusters", "{run}", "--save", "none/c.npz"], "the folder 'none' does not exist"),
    ],
)
def test_wrong_requests(run: Path, distk_command: Any, words: list[str], message: str) -> None:
    Path("latin.txt").write_bytes(b"The\ndo\xe9.\n")
    Path("two.tsv").write_text("a\tb\n")
    code, _, err = distk_command("nlmultitask", *(str(run) if w == "{run}" else w for w in words))
    assert code in (1, 2)
    assert message in " ".join(err.split())


def test_generic_commands_read_and_write_sentences(run: Path, distk_command: Any) -> None:
    code, out, err = distk_command("reconstruct", run, "-n", 2, "--json")
    assert code == 0, err
    assert len(json.loads(out)["sentences"]) == 2
    code, out, err = distk_command("interpolate", run, "--pairs", 1, "--steps", 3, "--json")
    assert code == 0, err
    assert len(json.loads(out)["sentences"][0]) == 3
    code, _, err = distk_command("sample", run)
    assert code == 2
    assert "use `distk nlmultitask interpolate`" in " ".join(err.split())
    chosen = ["--metric", "perplexity", "--metric", "syntax-clustering", "--per-prototype", 4, "--restarts", 3]
    code, out, err = distk_command("eval", run, *chosen, "--json")
    assert code == 0, err
    found = json.loads(out)["metrics"]
    assert found["perplexity"]["pos"] > 1
    assert found["syntax-clustering"]["sentences"] == 56


def test_other_models_and_missing_columns_are_refused(distk_command: Any, tmp_path: Path) -> None:
    small = ["--hidden", 4, "--rep", 3, "--steps", 1, "--device", "cpu", "--batch", 4]
    for split in ("train", "dev", "test"):
        (tmp_path / f"{split}.en").write_text("The dog is red.\nThe cat sleeps.\n" * 9)
        (tmp_path / f"{split}.de").write_text("Der Hund ist rot.\nDie Katze ruht.\n" * 9)
    line = ["train", "nlmultitask", "--data", "parallel", "--data-dir", tmp_path, *small]
    code, _, err = distk_command(*line)
    assert code == 2
    assert "decoder 'pos' needs tags, and the data has only de" in " ".join(err.split())
    code, _, err = distk_command(*line, "--decoders", "rep,de,fr")
    assert "decoder 'fr' needs a column 'fr'" in " ".join(err.split())
    code, _, err = distk_command(*line, "--tagger", "builtin", "--out", "tagged")
    assert code == 0, err
    code, _, err = distk_command("nlmultitask", "translate", "tagged", "The dog is red.", "--decoder", "pos")
    assert code == 0, err
    (tmp_path / "train.de").write_text("Der Hund ist rot.\n")
    code, _, err = distk_command(*line, "--decoders", "rep,de", "--out", "unequal")
    assert code == 2
    told = " ".join(err.split())
    assert "train.de' has 1 line and" in told
    assert "train.en' 18;" in told


def test_captions_and_treebanks(distk_command: Any, real: Any) -> None:
    """Real files: three languages of multi30k; tags of UD PUD, read by a model of the tagger's Penn tags."""
    folder = real("multi30k/train.en.gz").parent
    small = ["--hidden", 8, "--rep", 6, "--embedding", 4, "--steps", 2, "--device", "cpu", "--batch", 8]
    line = ["train", "nlmultitask", "--data", "multi30k", "--data-dir", folder, *small, "--train-fraction", "0.05"]
    code, _, err = distk_command(*line, "--tagger", "builtin", "--decoders", "rep,de,fr,pos", "--out", "a")
    assert code == 0, err
    pud = real("ud_pud/en_pud-ud-test.first800.conllu.gz").parent
    code, out, err = distk_command("eval", "a", "--data", "ud", "--data-dir", pud, "--metric", "perplexity", "--json")
    assert code == 0, err
    found = json.loads(out)["metrics"]["perplexity"]
    assert found["fr"] > 1
    assert found["pos"] is None
    assert "other symbols" in found["reasons"]["pos"]
