"""`distk mmdtraverse move` and `plot-codes`, the metric, and what is asked of sentences, through the command line."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

import distk
from distk import CodeTable, UsageError
from distk.plugins.text.common.vocab import UNK
from distk.plugins.text.mmdtraverse.figures import principal
from distk.plugins.text.mmdtraverse.method import MMDTraverse
from distk.plugins.text.mmdtraverse.metrics import Config, Moves
from distk.testing import metric_checks

SMALL = {"embedding": 8, "filters": 4, "phase1": 10, "examples": 12, "data_sentences": 1200, "data_held_out": 200}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = distk.train(
        "mmdtraverse", data="standin-reviews:tiny", steps=40, device="cpu", quiet=True, batch=32,
        out=tmp_path_factory.mktemp("mmd") / "r", filter_words=("movie", "phone"), lambda_rel=0.05, **SMALL,
    )  # fmt: skip
    return made.path


def told(distk_command: Any, *words: object) -> Any:
    code, out, err = distk_command(*words, "--json")
    assert code == 0, err
    return json.loads(out)


# move


def test_a_move_tells_every_stage(run: Path, distk_command: Any, tmp_path: Path) -> None:
    line = ["mmdtraverse", "move", run, "--sentence", "the phone was great .", "--to", "neg", "--from", "pos"]
    made = told(distk_command, *line, "--save", tmp_path / "c.safetensors", "--out", tmp_path / "o.txt")
    (row,) = made["sentences"]
    (stage,) = row["path"]
    assert (row["source"], row["from"], row["to"]) == ("the phone was great .", "positive", "negative")
    assert stage["lambda"] == pytest.approx(0.05 / (2 * made["sigma"]))
    assert stage["witness"] < row["witness"]
    model = distk.load(run, device="cpu")
    assert isinstance(model, MMDTraverse)
    assert [row["reconstruction"]] == model.restore([row["source"]])
    assert [stage["output"]] == model.rewrite([row["source"]], 0, source=[1])
    assert (tmp_path / "o.txt").read_text() == stage["output"] + "\n"
    held = load_file(tmp_path / "c.safetensors")
    x = model.read([row["source"]])
    torch.testing.assert_close(held["z"], model.read_code(x).detach())
    assert float((held["z_star"] - held["z"]).norm()) == pytest.approx(stage["move"], rel=1e-5)
    assert model.text(model.write(held["z_star"])) == [stage["output"]]
    assert (held["from"].tolist(), held["to"].tolist()) == ([1], [0])
    code, out, err = distk_command(*line)
    assert code == 0, err
    shown = out.splitlines()
    assert shown[0] == "original  the phone was great ."
    assert shown[1].startswith(f"from z    {row['reconstruction']}")
    assert shown[2].startswith(f"from z*   {stage['output']}")


def test_a_path_goes_further_as_moves_become_cheaper(run: Path, distk_command: Any) -> None:
    line = ["mmdtraverse", "move", run, "--sentence", "the phone was great .", "--to", "0", "--from", "1"]
    made = told(distk_command, *line, "--lambda-path", "1e5,1e-1,1e-2,1e-4,0")
    path = made["sentences"][0]["path"]
    assert [stage["lambda"] for stage in path] == [1e5, 0.1, 0.01, 1e-4, 0.0]
    moves = [stage["move"] for stage in path]
    assert moves[0] < 1e-4
    assert moves == sorted(moves)
    assert path[-1]["witness"] < path[1]["witness"] < made["sentences"][0]["witness"]
    assert path[0]["output"] == made["sentences"][0]["reconstruction"]  # no move: what z says
    alone = told(distk_command, *line, "--lambda", "1e-4")["sentences"][0]["path"][0]
    assert alone["witness"] == pytest.approx(path[3]["witness"], abs=1e-6)


def test_scipy_and_the_batched_solver_agree(run: Path, distk_command: Any, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("the phone was great .\n\ni hate my movie .\n")
    line = ["mmdtraverse", "move", run, "--input", tmp_path / "in.txt", "--to", "positive", "--lambda", "0.02"]
    ours, theirs = (told(distk_command, *line, "--solver", solver)["sentences"] for solver in ("batched", "scipy"))
    assert ours[1] is theirs[1] is None
    for a, b in ((ours[0], theirs[0]), (ours[2], theirs[2])):
        assert a["path"][0]["witness"] == pytest.approx(b["path"][0]["witness"], abs=1e-6)
        assert a["path"][0]["move"] == pytest.approx(b["path"][0]["move"], rel=1e-3)


def test_lines_keep_their_places(run: Path, distk_command: Any, tmp_path: Path) -> None:
    """Empty lines, a sentence of 10,000 words, unknown words, other bytes: one line for one line, or a sentence."""
    lines = ["the phone was great .", "", "word " * 10_000, "zzz qqq", "i hate my battery ."]
    (tmp_path / "in.txt").write_text("\n".join(lines) + "\n")
    words = ["mmdtraverse", "move", run, "--input", tmp_path / "in.txt", "--out", tmp_path / "o.txt", "--to", "1"]
    code, _, err = distk_command(*words)
    assert code == 0, err
    made = (tmp_path / "o.txt").read_text().split("\n")
    assert len(made) == 6
    assert made[1] == ""
    assert "cut after" in " ".join(err.split())
    assert "without any word that the model knows" in " ".join(err.split())
    (tmp_path / "in.txt").write_bytes(b"the phone was great .\ncaf\xe9\n")
    code, _, err = distk_command(*words)
    assert code == 1
    assert "is not utf-8: line 2, byte offset 25; try --encoding latin-1" in " ".join(err.split())
    assert distk_command(*words, "--encoding", "latin-1")[0] == 0
    (tmp_path / "in.txt").write_text("\n\n")
    code, _, err = distk_command(*words)
    assert code == 2
    assert "holds no sentence" in err


def test_other_examples_are_drawn_where_they_are_asked_for(run: Path, distk_command: Any) -> None:
    line = ["mmdtraverse", "move", run, "--sentence", "the phone was great .", "--to", "0", "--from", "1"]
    usual = told(distk_command, *line)
    assert told(distk_command, *line)["sigma"] == usual["sigma"]
    first = told(distk_command, *line, "--seed", "1")
    assert first["sigma"] != usual["sigma"]
    assert told(distk_command, *line, "--seed", "1") == first
    assert told(distk_command, *line, "--n-source", "5")["sigma"] != usual["sigma"]
    assert told(distk_command, *line, "--n-source", "60", "--filter-words", "movie")["sigma"] != first["sigma"]
    assert told(distk_command, *line, "--sigma", "3.5")["sigma"] == 3.5
    assert told(distk_command, *line, "--sigma", "auto")["sigma"] == usual["sigma"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--to blue -s phone", "--to: 'blue' is not a label"),
        ("--to 1 -s phone --from 2", "--from: '2' is not a label"),
        ("--to 1", "give one of --sentence and --input"),
        ("--to 1 -s phone --input x", "give one of --sentence and --input"),
        ("--to 1 -s phone --sigma 0", "--sigma '0' is neither auto nor a positive number"),
        ("--to 1 -s phone --sigma much", "--sigma 'much' is neither auto nor a positive number"),
        ("--to 1 -s phone --sigma nan", "--sigma 'nan' is neither auto nor a positive number"),
        ("--to 1 -s phone --lambda 1 --lambda-rel 1", "give one of --lambda, --lambda-rel and --lambda-path"),
        ("--to 1 -s phone --lambda-path 1,x", "--lambda-path '1,x' is no list of numbers"),
        ("--to 1 -s phone --lambda-path=-1", "--lambda-path '-1' is no list of numbers"),
        ("--to 1 -s phone --lambda=-1", "--lambda: '-1' is below"),
        ("--to 1 -s phone --n-source 1", "--n-source: '1' is below"),
        ("--to 1 -s phone --filter-words zebra", "--filter-words: 'zebra' is no word of the training text"),
    ],
)
def test_wrong_requests(run: Path, distk_command: Any, words: str, message: str) -> None:
    code, _, err = distk_command("mmdtraverse", "move", run, *words.split())
    assert code == 2
    assert message in " ".join(err.replace("│", " ").split())


def test_generic_commands_name_what_to_use(run: Path, distk_command: Any) -> None:
    for command, other in (("traverse", "distk mmdtraverse move"), ("swap", "distk transfer")):
        code, _, err = distk_command(command, run)
        assert code == 2
        assert other in " ".join(err.split())
    code, out, err = distk_command("transfer", run, "the phone was great .", "--to", "negative")
    assert code == 0, err
    assert out.strip() == distk.load(run, device="cpu").rewrite(["the phone was great ."], 0)[0]
    assert distk_command("reconstruct", run, "--n", "2")[0] == 0
    assert distk_command("interpolate", run, "--pairs", "1")[0] == 0


# The picture


def test_the_components_are_those_of_the_unmoved_codes(generator: torch.Generator) -> None:
    codes = torch.randn(50, 6, generator=generator) @ torch.randn(6, 6, generator=generator)
    mean, axes = principal(codes)
    values, vectors = np.linalg.eigh(np.cov(codes.double().numpy().T))
    for k in range(2):
        theirs = vectors[:, np.argsort(values)[-1 - k]]
        assert abs(float(axes[k] @ torch.from_numpy(theirs))) == pytest.approx(1, abs=1e-9)
        assert float(axes[k][axes[k].abs().argmax()]) > 0
    np.testing.assert_allclose(mean.numpy(), codes.double().numpy().mean(0), atol=1e-12)


def test_the_picture_and_its_points(run: Path, distk_command: Any, tmp_path: Path) -> None:
    line = ["mmdtraverse", "plot-codes", run, "--out", tmp_path / "p.png", "--n", "20", "--moves", "2"]
    made = told(distk_command, *line)
    assert made["files"] == [str(tmp_path / "p.png"), str(tmp_path / "p.csv")]
    with Image.open(tmp_path / "p.png") as picture:
        assert picture.width == 1020, "a column at 300 dots an inch"
    with (tmp_path / "p.csv").open() as file:
        rows = list(csv.DictReader(file))
    kinds = [row["kind"] for row in rows]
    assert kinds.count("from") == kinds.count("to") == 8  # two of each label and topic, in both directions
    assert len(rows) == sum(made["points"].values())
    for row in rows:
        if row["kind"] != "to":
            assert row["topic"] in row["sentence"].split()
            assert {"movie", "phone"} - {row["topic"]} - set(row["sentence"].split())
    starts, ends = ([row for row in rows if row["kind"] == kind] for kind in ("from", "to"))
    assert all(a["label"] != b["label"] and a["topic"] == b["topic"] for a, b in zip(starts, ends, strict=True))
    model = distk.load(run, device="cpu")
    codes = model.encode(model.read([row["sentence"] for row in rows if row["kind"] == "code"]))["code"]
    mean, axes = principal(codes.detach())
    at = torch.tensor([[float(row["x"]), float(row["y"])] for row in rows if row["kind"] == "code"]).double()
    assert float(((codes.detach().double() - mean) @ axes.T - at).abs().max()) < 1e-5
    code, _, err = distk_command(*line[:3], "--topics", "zebra")
    assert code == 2
    assert "'zebra' is no word of the model's vocabulary" in " ".join(err.split())
    assert distk_command(*line[:3], "--topics", ",")[0] == 2
    assert distk_command(*line[:3], "--lambda", "1", "--lambda-rel", "1")[0] == 2


# The metric


def test_the_numbers_of_the_metric(run: Path) -> None:
    """Against loops over the test split."""
    model = distk.load(run, device="cpu")
    assert isinstance(model, MMDTraverse)
    data: Any = model.dataset()
    table = CodeTable(torch.zeros(0, 0), [], [], model=model, dataset=data, rows=data.rows_of("test")[:60])
    found = Moves(Config(max_sentences=0, neighbours=3)).compute(table, 0)
    batch = data.batch(table.rows)
    x, label = batch["x"], batch["label"]
    with torch.no_grad():
        code, clouds = model.encode(x), model.clouds()
        present = code["label"].argmax(1)
        ends, after, before, moves = [], [], [], []
        for i in range(len(x)):
            f = model.witness(x[i : i + 1], present[i : i + 1], 1 - present[i : i + 1], clouds)
            z, one = model.moved(code["code"][i : i + 1], f, model.cost(f))
            ends.append(z[0])
            before.append(float(f(code["code"][i : i + 1].double())))
            after.append(float(one.after))
            moves.append(float(one.u.norm()))
        z = torch.stack(ends)
        flipped = model.classifier(z).argmax(1) == 1 - present
        again = model.write(code["code"])
    n = len(x)
    assert found["sentences"] == n == 60
    assert found["accuracy"] == pytest.approx(float((present == label).double().mean()))
    assert found["flip"] == pytest.approx(float(flipped.double().mean()), abs=1.5 / n)
    for key, values in (("witness_before", before), ("witness_after", after), ("move", moves)):
        assert found[key] == pytest.approx(sum(values) / n, rel=1e-5)
    nearest = [int(clouds.label[(clouds.code - end.double()).norm(dim=1).argmin()]) for end in z]
    right = sum(a == 1 - int(b) for a, b in zip(nearest, present, strict=True))
    assert found["nearest"] == pytest.approx(right / n, abs=1.5 / n)
    exact = ((again == x) & (x != UNK)).all(1)
    size = (x != 0).sum(1)
    half = sorted(size.tolist())[(n - 1) // 2]
    assert found["exact"] == pytest.approx(float(exact.double().mean()))
    assert found["exact_short"] == pytest.approx(float(exact[size <= half].double().mean()))
    assert found["exact_long"] == pytest.approx(float(exact[size > half].double().mean()))
    kept, of = by_neighbours(model.text(x), code["code"], z, 3)
    assert found["topic_sentences"] == of
    assert found["topic_kept"] == pytest.approx(kept / of, abs=1.5 / of)


def by_neighbours(lines: list[str], codes: Tensor, moved: Tensor, k: int) -> tuple[int, int]:
    """Sentences whose moved code has its topic among the k nearest others by majority, and all with one topic."""
    held = [{"movie", "phone"} & set(line.split()) for line in lines]
    rows = [i for i, topic in enumerate(held) if len(topic) == 1]
    kept = 0
    for i in rows:
        others = [j for j in rows if j != i]
        others.sort(key=lambda j: float((moved[i].double() - codes[j].double()).norm()))
        kept += sum(held[j] == held[i] for j in others[:k]) > k / 2
    return kept, len(rows)


def test_what_the_metric_cannot_say_has_a_reason(run: Path) -> None:
    model = distk.load(run, device="cpu")
    for topics, words in ((("movie",), "two"), (("movie", "zebra"), "'zebra' is no word")):
        found = distk.evaluate(model, ["mmd"], topics=topics, max_sentences=50)["metrics"]["mmd"]
        assert words in found["reasons"]["topic_kept"]
        assert "topic_kept" not in found or found["topic_kept"] is None
        assert found["sentences"] == 50
    with pytest.raises(UsageError, match="scores models of mmdtraverse"):
        Moves(Config()).compute(CodeTable(torch.zeros(0, 0), [], []), 0)


def test_reconstruction_is_judged_on_codes_that_were_not_moved(run: Path) -> None:
    """The suite of text asks `restore`, not `rewrite`, which moves a code even to the label that it has."""
    model: Any = distk.load(run, device="cpu")
    asked: list[str] = []
    model.restore = lambda lines, beam: (asked.extend(lines), lines)[1]
    found = distk.evaluate(model, ["transfer"], max_sentences=40, bits=8)["metrics"]["transfer"]
    assert found["reconstruction"] == 1.0
    assert len(asked) == 40


def test_conformance_of_the_metric(run: Path) -> None:
    model = distk.load(run, device="cpu")
    data = model.dataset()
    table = CodeTable(torch.zeros(64, 1), ["a"], ["continuous"], model=model, dataset=data, rows=torch.arange(64))
    assert [check for check in metric_checks("mmd", table) if check.problem] == []
