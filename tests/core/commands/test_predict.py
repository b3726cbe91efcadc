"""`distk predict`, the score of predictions, and clips of any length."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

import distk
from distk import Dataset, DataSpec, Files, Latent, LatentSpace, Method, NoConfig, Objective, UsageError
from distk.metric import CodeTable
from distk.plugins.metrics.prediction import Prediction
from distk.prediction import continued
from distk.sheet import bare

TINY = {"size": 16, "arch": "das-dandi", "channels": 4, "frame_dim": 8, "hidden": 8, "f_dim": 4, "z_dim": 2}


class Counting(Dataset):
    """Clips of six frames of two numbers; clip i counts up by i. Clips 4 to 9 are the test split."""

    def __init__(self) -> None:
        super().__init__(NoConfig(), torch.device("cpu"), Files("counting", None, ""))
        self.name, self.origin = "counting", "made here"
        self.spec = DataSpec("vector-clip", (6, 2))
        self.parts = {"train": torch.arange(4), "test": torch.arange(4, 10)}

    def __len__(self) -> int:
        return 10

    def batch(self, rows: Tensor) -> dict[str, Tensor]:
        return {"x": (rows[:, None] * torch.arange(6)).float()[:, :, None].expand(-1, -1, 2)}


def straight(x: Tensor, steps: int, generator: torch.Generator) -> Tensor:
    """Goes on as the last two frames went."""
    ahead = torch.arange(1, steps + 1)[:, None]
    return x[:, -1:] + ahead * (x[:, -1:] - x[:, -2:-1])


def test_a_straight_line_goes_on_and_the_error_of_standing_still_is_known(generator: torch.Generator) -> None:
    made = continued(straight, Counting(), 6, generator, "test", 3, None)
    assert (made.before.shape, made.made.shape) == ((6, 3, 2), (6, 3, 2))
    assert sorted(made.before[:, 1, 0].tolist()) == [4, 5, 6, 7, 8, 9], "the rows are not the test split's"
    assert torch.equal(made.errors, torch.zeros(3, dtype=torch.float64))
    squares = sum(i * i for i in range(4, 10)) / 6
    assert made.still.tolist() == pytest.approx([squares, 4 * squares, 9 * squares], rel=1e-12)


@pytest.mark.parametrize(
    ("n", "past", "steps", "message"),
    [
        (2, 6, None, "--past 6 and --steps 0 do not fit into the 6 frames"),
        (2, 2, 5, "--past 2 and --steps 5 do not fit into the 6 frames"),
        (7, None, None, "--n 7 is more than the 6 items of the test split"),
    ],
)
def test_what_does_not_fit_is_refused(n: int, past: int | None, steps: int | None, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        continued(straight, Counting(), n, torch.Generator(), "test", past, steps)


class Stays(Method):
    """Says that half of the last step is made."""

    kinds = ("vector-clip",)

    def __init__(self) -> None:
        super().__init__(NoConfig(), DataSpec("vector-clip", (6, 2)))
        self.latents = LatentSpace.of(Latent("z", "continuous", 1))
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def objectives(self) -> list[Objective]:
        return []

    def predict(self, x: Tensor, steps: int, generator: torch.Generator) -> Tensor:
        return x[:, -1:] + (straight(x, steps, generator) - x[:, -1:]) / 2


def test_the_score_of_going_half_the_way_is_three_quarters() -> None:
    """Error (d/2)^2 against d^2 for every frame, whatever the clips."""
    table = CodeTable(torch.zeros(0, 1), ["z1"], ["continuous"], model=Stays(), dataset=Counting())
    result = Prediction(Prediction.Config()).compute(table, 0)
    assert result["gain"] == pytest.approx(0.75, rel=1e-12)
    assert result["items"] == 6
    assert result["error_per_step"] == pytest.approx(result["still_per_step"] / 4)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("predict")
    made = distk.train(
        "dsvae",
        data="sprites-sim",
        prior="learned",
        steps=2,
        batch=4,
        device="cpu",
        quiet=True,
        out=folder / "run",
        **TINY,
    )
    return made.path


def test_the_command_draws_two_rows_per_clip(run: Path, distk_command: Any, tmp_path: Path) -> None:
    out = tmp_path / "p.png"
    found = json.loads(distk_command("predict", run, "--n", 3, "--past", 5, "--out", out, "--json")[1])
    assert found["files"] == [str(out), str(out.with_suffix(".gif"))]
    assert (found["shown"], len(found["errors"]), len(found["errors_of_no_change"])) == (5, 3, 3)
    with bare(Path(out)) as strip, Image.open(out.with_suffix(".gif")) as film:
        assert strip.width > strip.height, "eight frames beside each other, six rows below"
        assert film.n_frames == 8
    code, told, _ = distk_command("predict", run, "--n", 2, "--out", out)
    assert code == 0
    assert "nothing changes" in told
    assert "4 frames after 4" in told


def test_frames_are_continued_with_the_static_code_kept(run: Path) -> None:
    """Against the rollout written out: the LSTM reads z_1 .. z_k one by one, then its own samples."""
    model = distk.load(run)
    x = model.dataset().batch(torch.arange(3))["x"][:, :5]
    with torch.no_grad():
        made = model.predict(x, 3, torch.Generator().manual_seed(7))
        v = model.features(x)
        f = model.q_f(v)[0]
        z = model.q_z(v, f, None)[0]
        noise = torch.randn(3, 3, 2, generator=torch.Generator().manual_seed(7))
        known = [z[:, t] for t in range(5)]
        for t in range(3):
            read = torch.stack([torch.zeros_like(known[0]), *known], 1)  # the prior starts from zeros
            mean, _ = model.p_z.head(model.p_z.lstm(read)[0][:, -1]).chunk(2, -1)
            moments = model.p_z(torch.stack([*known, torch.zeros_like(known[0])], 1))
            assert torch.allclose(moments[0][:, -1], mean, atol=1e-5)
            known.append(moments[0][:, -1] + (0.5 * moments[1][:, -1]).exp() * noise[:, t])
        expected = model.decode({"f": f, "z": torch.stack(known[5:], 1)})
    assert torch.allclose(made, expected, atol=1e-5)


def test_clips_of_any_length_can_be_drawn(run: Path, distk_command: Any, tmp_path: Path) -> None:
    out = tmp_path / "s.png"
    distk_command("sample", run, "--n", 4, "--frames", 13, "--out", out)
    with Image.open(out.with_suffix(".gif")) as film:
        assert film.n_frames == 13


def test_methods_without_these_abilities_say_so(distk_command: Any, tmp_path: Path) -> None:
    made = distk.train(
        "betavae", data="blobs", size=16, arch="mlp", steps=0, device="cpu", quiet=True, out=tmp_path / "r"
    )
    code, _, told = distk_command("predict", made.path)
    assert code == 2
    assert "method 'betavae' has no `distk predict`" in " ".join(told.split())
    code, _, told = distk_command("sample", made.path, "--frames", 5)
    assert code == 2
    assert "'betavae' does not make clips of any length" in " ".join(told.split())
