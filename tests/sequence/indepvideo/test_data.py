"""The data of indepvideo: paths held against step-by-step simulations, pixels against the digits' files."""

from __future__ import annotations

import gzip
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from distk import DistkError, UsageError, open_dataset, seeded
from distk.plugins.sequence.indepvideo import street
from distk.plugins.sequence.indepvideo.data import BouncingSquares, TwoOscillators, covered
from distk.plugins.sequence.indepvideo.digits import MovingDigits
from distk.plugins.sequence.indepvideo.street import Street


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> MovingDigits:
    """moving-mnist-rg over files in MNIST's format: 50 training and 20 test digits whose values tell which they are."""
    folder = tmp_path_factory.mktemp("mnist")
    for stem, n, first in (("train", 50, 1), ("t10k", 20, 101)):
        images = np.repeat(np.arange(first, first + n, dtype=np.uint8), 28 * 28).reshape(n, 28, 28).copy()
        images[:, 0, 0] = 255  # marks the corner
        head = b"".join(int(v).to_bytes(4, "big") for v in (2051, n, 28, 28))
        (folder / f"{stem}-images-idx3-ubyte").write_bytes(head + images.tobytes())
        labels = b"".join(int(v).to_bytes(4, "big") for v in (2049, n)) + bytes(i % 10 for i in range(n))
        with gzip.open(folder / f"{stem}-labels-idx1-ubyte.gz", "wb") as file:
            file.write(labels)
    return open_dataset("moving-mnist-rg", {"frames": 40, "train": 12, "test": 8}, folder=str(folder))  # type: ignore[return-value]


def test_digits_walk_as_the_rules_say(digits: MovingDigits, seed: int) -> None:
    """Against one number at a time: move, then put on the wall and turn round."""
    uniform = torch.rand(30, 10, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    places = digits.places(uniform)
    for clip in range(30):
        for j in range(2):
            u = uniform[clip, 5 * j : 5 * j + 5].tolist()
            angle = 2 * math.pi * u[2]
            p, v = list(u[:2]), [0.1 * math.sin(angle), 0.1 * math.cos(angle)]
            for t in range(40):
                for axis in range(2):
                    p[axis] += v[axis]
                    if p[axis] <= 0:
                        p[axis], v[axis] = 0.0, -v[axis]
                    elif p[axis] >= 1:
                        p[axis], v[axis] = 1.0, -v[axis]
                assert places[clip, t, j].tolist() == pytest.approx(p, abs=1e-9)


def test_digits_go_three_and_a_half_pixels_a_frame_inside_the_frame(digits: MovingDigits, seed: int) -> None:
    corner = digits.sample(40, seeded(seed, digits.device))["corner"]
    assert (int(corner.min()), int(corner.max())) == (0, 36)
    uniform = torch.rand(200, 10, generator=torch.Generator().manual_seed(seed))
    step = 36 * (digits.places(uniform)[:, 1:] - digits.places(uniform)[:, :-1]).norm(dim=-1)
    inside = ((digits.places(uniform)[:, 1:] > 0) & (digits.places(uniform)[:, 1:] < 1)).all(-1)
    torch.testing.assert_close(step[inside], torch.full_like(step[inside], 3.6), atol=1e-4, rtol=0)
    assert float(step.max()) < 3.6 + 1e-4


def test_pixels_are_the_digit_at_its_corner_in_its_colour(digits: MovingDigits, seed: int) -> None:
    batch = digits.sample(20, seeded(seed, digits.device))
    x, corner = batch["x"], batch["corner"]
    assert x.shape == (20, 40, 3, 64, 64)
    assert float(x[:, :, 2].abs().max()) == 0
    for clip in range(20):
        for j in range(2):
            value = x[clip, 0, j].flatten().sort().values[-2]  # one pixel, the mark, is brighter
            for t in (0, 7, 39):
                expected = torch.zeros(64, 64)
                row, column = corner[clip, t, j].tolist()
                expected[row : row + 28, column : column + 28] = value
                expected[row, column] = 1
                torch.testing.assert_close(x[clip, t, j], expected)


def test_no_test_digit_is_seen_in_training_and_no_training_digit_in_the_test(digits: MovingDigits, seed: int) -> None:
    def shown(x: Tensor) -> set[int]:
        return set((255 * x[:, 0, :2].flatten(2).sort(2).values[..., -2]).round().int().flatten().tolist())

    assert len(digits) == 20
    assert shown(digits.batch(digits.rows_of("test"))["x"]) <= set(range(101, 121))
    assert shown(digits.batch(digits.rows_of("train"))["x"]) <= set(range(1, 51))
    uniform, new = torch.rand(400, 10, generator=seeded(seed, digits.device)), torch.zeros(400, dtype=torch.bool)
    drawn = (255 * digits._images(uniform, new)[:, 5, 5]).round().int().tolist()
    assert set(drawn) == set(range(1, 51))  # 800 draws miss one of 50 with probability 50 * .98**800 < 1e-5
    assert shown(digits.sample(20, seeded(seed, digits.device))["x"]) <= set(range(1, 51))
    assert shown(digits.sample(20, seeded(seed, digits.device), "test")["x"]) <= set(range(101, 121))


def test_the_two_digits_share_nothing(digits: MovingDigits, seed: int) -> None:
    one = torch.rand(10, 10, generator=torch.Generator().manual_seed(seed))
    other = one.clone()
    other[:, 5:] = torch.rand(10, 5, generator=torch.Generator().manual_seed(seed + 1))
    held = torch.zeros(10, dtype=torch.bool)
    a, b = digits.clips(one, held)["x"], digits.clips(other, held)["x"]
    torch.testing.assert_close(a[:, :, 0], b[:, :, 0])
    assert not torch.equal(a[:, :, 1], b[:, :, 1])


def test_speeds_and_small_frames(digits: MovingDigits, seed: int) -> None:
    folder = digits.origin.split("read from ")[1]
    fast = open_dataset("moving-mnist-rg", {"frames": 3, "speed": 0.05, "fastest": 0.2, "size": 32}, folder=folder)
    assert isinstance(fast, MovingDigits)
    uniform = torch.rand(500, 10, generator=torch.Generator().manual_seed(seed))
    places = fast.places(uniform)
    step = (places[:, 1] - places[:, 0]).norm(dim=-1)[((places[:, 1] > 0) & (places[:, 1] < 1)).all(-1)]
    assert float(step.min()) > 0.05 - 1e-6
    assert float(step.max()) < 0.2 + 1e-6
    assert float(step.max() - step.min()) > 0.1
    batch = fast.batch(torch.arange(4))
    assert batch["x"].shape == (4, 3, 3, 32, 32)
    assert int(batch["corner"].max()) <= 18


def test_real_mnist_and_its_stand_in(real, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = real("mnist/train-images-idx3-ubyte.gz").parent
    data = open_dataset("moving-mnist-rg", {"frames": 2, "train": 500}, folder=str(folder))
    assert isinstance(data, MovingDigits)
    x = data.batch(data.rows_of("train"))["x"]
    ink = float(x[:, 0].pow(2).sum((1, 2, 3)).mean())
    # Two digits' squared ink is 2 * 87.8 with deviation 45 over clips: of 500 clips six deviations are 12.
    assert ink == pytest.approx(175.6, abs=12)
    monkeypatch.delenv("DISTK_DATA")
    standin = open_dataset("moving-mnist-rg")
    assert "stand-in" in standin.origin
    assert standin.batch(torch.arange(2))["x"].shape == (2, 5, 3, 64, 64)
    with pytest.raises(UsageError, match="train-images"):
        open_dataset("moving-mnist-rg", folder=str(tmp_path))
    (tmp_path / "train-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03" + b"\0" * 40)
    with pytest.raises(DistkError, match=r"fit|labels"):
        open_dataset("moving-mnist-rg", folder=str(tmp_path))


# ---------------------------------------------------------------------------------- squares, vectors


def test_shares_of_pixels_against_a_fine_grid(seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    start, length = 12 * torch.rand(40, generator=draw) - 2, 4 * torch.rand(40, generator=draw)
    fine = (torch.arange(10 * 2000) + 0.5) / 2000
    inside = (fine >= start[:, None]) & (fine < (start + length)[:, None])
    expected = inside.view(40, 10, 2000).float().mean(2)
    torch.testing.assert_close(covered(start, length, 10), expected, atol=2 / 2000, rtol=0)
    torch.testing.assert_close(covered(start, 3.0, 10), covered(start, torch.full((40,), 3.0), 10))


def test_squares_bounce_as_a_walk_with_mirrors(seed: int) -> None:
    data = open_dataset("bouncing-squares", {"frames": 60})
    assert isinstance(data, BouncingSquares)
    uniform = torch.rand(20, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    places = data.places(uniform)
    for clip in range(20):
        for j in range(2):
            u = uniform[clip, 3 * j : 3 * j + 3].tolist()
            p, angle = [13 * u[0], 13 * u[1]], 2 * math.pi * u[2]
            v = [1.2 * math.sin(angle), 1.2 * math.cos(angle)]
            for t in range(60):
                assert places[clip, t, j].tolist() == pytest.approx(p, abs=1e-8)
                for axis in range(2):
                    p[axis] += v[axis]
                    if p[axis] < 0:
                        p[axis], v[axis] = -p[axis], -v[axis]
                    elif p[axis] > 13:
                        p[axis], v[axis] = 26 - p[axis], -v[axis]
    x = data.clips(uniform.float(), torch.zeros(20, dtype=torch.bool))["x"]
    torch.testing.assert_close(x[:, :, :2].sum((3, 4)), torch.full((20, 60, 2), 9.0), atol=1e-3, rtol=0)
    assert float(x[:, :, 2].max()) == 0
    # The centre of the ink is the centre of the square.
    rows = torch.arange(16) + 0.5
    centre = (x[:, :, :2].sum(4) * rows).sum(3) / 9
    torch.testing.assert_close(centre, places[..., 0].float() + 1.5, atol=1e-3, rtol=0)
    with pytest.raises(UsageError, match="do not move"):
        open_dataset("bouncing-squares", {"side": 16})


def test_oscillators_turn_at_their_speeds_and_are_mixed_without_loss() -> None:
    data = open_dataset("two-oscillators", {"noise": 0.0, "clips": 500})
    assert isinstance(data, TwoOscillators)
    rows = torch.arange(500)
    s, x = data.sources(rows), data.batch(rows)["x"]
    # Orthonormal columns: distances in 8 numbers are those of the four.
    torch.testing.assert_close(x.pow(2).sum(2), s.pow(2).sum((2, 3)), atol=1e-4, rtol=1e-4)
    for j, speed in enumerate((0.5, 1.3)):
        turn = torch.tensor([[math.cos(speed), -math.sin(speed)], [math.sin(speed), math.cos(speed)]])
        torch.testing.assert_close(s[:, 1:, j], s[:, :-1, j] @ turn.T, atol=1e-5, rtol=0)
        radius = s[:, :, j].norm(dim=2)
        assert 0.6 <= float(radius.min()) < 0.63
        assert 1.37 < float(radius.max()) <= 1.4001
    assert not torch.allclose(s[:, 0, 0].norm(dim=1), s[:, 0, 1].norm(dim=1))
    noisy = open_dataset("two-oscillators", {"clips": 500})
    assert float((noisy.batch(rows)["x"] - x).std()) == pytest.approx(0.05, rel=0.05)
    assert len(set(data.rows_of("train").tolist()) & set(data.rows_of("test").tolist())) == 0


# -------------------------------------------------------------------------------------------- street


def test_no_car_overtakes_and_none_is_faster_than_it_wants() -> None:
    data = open_dataset("street", {"frames": 30, "train": 300})
    assert isinstance(data, Street)
    lanes, cars = len(street.LANES), street.CARS
    numbers = data.fixed[:300, 3 : 3 + lanes * (1 + cars * street.CAR)].view(300, lanes, -1)
    boxes = data.cars(numbers)[0].unflatten(2, (lanes, cars))  # [n, t, lane, car], the newest car first
    assert boxes[..., 3].min() >= 4
    assert boxes[..., 3].max() <= 9
    assert boxes[..., 2].min() >= 3
    assert boxes[..., 2].max() <= 5
    slowed = 0
    for lane, (middle, way) in enumerate(street.LANES):
        left, width = boxes[:, :, lane, :, 1], boxes[:, :, lane, :, 3]
        centre = boxes[:, :, lane, :, 0] + boxes[:, :, lane, :, 2] / 2
        torch.testing.assert_close(centre, torch.full_like(centre, middle))
        ahead, behind = (slice(1, None), slice(None, -1))
        gap = (left[..., ahead] - left[..., behind] - width[..., behind]) if way > 0 else (
            left[..., behind] - left[..., ahead] - width[..., ahead]
        )  # fmt: skip
        assert float(gap.min()) > 1 - 1e-3
        step = way * (left[:, 1:] - left[:, :-1])
        assert float(step.min()) > 0.4
        assert float(step.max()) < 3 + 1e-3
        slowed += int(((step.amax(1) - step.amin(1)) > 1e-3).sum())
    assert slowed > 20  # some close up on their leader within a clip


def test_streets_are_clips_of_one_camera(seed: int) -> None:
    data = open_dataset("street", {"frames": 6})
    x = data.sample(64, seeded(seed, data.device))["x"]
    assert x.shape == (64, 6, 3, 64, 64)
    assert x.min() >= 0
    assert x.max() <= 1
    # Where nothing drives or walks a frame is the background times one number of the whole frame.
    assert isinstance(data, Street)
    gain = x[:, :, :, :9] / data.background[:, :9]
    torch.testing.assert_close(gain.amax((2, 3, 4)), gain.amin((2, 3, 4)), atol=1e-4, rtol=1e-4)
    light = gain.mean((2, 3, 4))
    assert float((light.amax(1) - light.amin(1)).max()) < 0.06  # at most 0.01 a frame
    assert float(light.std()) > 0.03
    crowd = torch.linspace(0, 0.999, 7)
    people = data.walkers(torch.rand(7, street.WALKERS, street.WALKER), crowd)[0]
    assert (people[:, 0, :, 1] > -10).sum(1).tolist() == list(range(7))


def test_a_street_of_ones_own_is_a_folder_of_frames(tmp_path: Path, seed: int) -> None:
    draw = np.random.default_rng(seed)
    frames = draw.integers(0, 256, (2, 20, 80, 64, 3), dtype=np.uint8)
    for clip in range(2):
        folder = tmp_path / "video" / f"hour {clip}"
        folder.mkdir(parents=True)
        for t in range(20):
            Image.fromarray(frames[clip, t]).save(folder / f"frame{t}.png")
    data = open_dataset("street", {"frames": 4, "every": 3, "clip_test": 0.5}, folder=str(tmp_path / "video"))
    assert data.spec.shape == (4, 3, 64, 64)
    assert len(data) == 2 * 11  # 20 frames hold 11 windows of 10
    batch = data.batch(torch.tensor([5]))
    clip, start = int(batch["clip"]), int(batch["start"])
    expected = frames[clip, start : start + 12 : 3, 8:72].transpose(0, 3, 1, 2) / 255
    torch.testing.assert_close(batch["x"][0], torch.from_numpy(expected).float())
    clips = [set(data.batch(data.rows_of(s))["clip"].tolist()) for s in ("train", "test")]
    assert clips[0].isdisjoint(clips[1])
    assert set(data.sample(50, seeded(0, data.device))["clip"].tolist()) == clips[0]
    with pytest.raises(UsageError, match="fewer frames"):
        open_dataset("street", {"frames": 40}, folder=str(tmp_path / "video"))
    with pytest.raises(UsageError, match="does not exist"):
        open_dataset("street", folder=str(tmp_path / "nothing"))
    (tmp_path / "video" / "hour 0" / "frame3.png").write_bytes(b"no picture")
    with pytest.raises(DistkError, match="frame3"):
        open_dataset("street", folder=str(tmp_path / "video"))


def test_a_lone_recording_is_tested_on_a_stretch_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """5th Avenue is one recording: what it is scored on must not be what it was trained on."""
    folder = tmp_path / "video" / "day"
    folder.mkdir(parents=True)
    for t in range(60):
        Image.new("RGB", (64, 64), (t, 0, 0)).save(folder / f"{t:03d}.png")
    data = open_dataset("street", {"frames": 3}, folder=str(tmp_path / "video"))
    seen = [
        set((data.batch(data.rows_of(split))["x"][:, :, 0, 0, 0] * 255).round().int().flatten().tolist())
        for split in ("train", "test")
    ]
    assert seen[0].isdisjoint(seen[1])
    assert (len(seen[0]), len(seen[1])) == (54, 6)
    drawn = data.sample(200, seeded(0, data.device))["x"][:, :, 0, 0, 0]
    assert set((drawn * 255).round().int().flatten().tolist()) <= seen[0]
    assert "train and test" not in capsys.readouterr().err
    open_dataset("street", {"frames": 40}, folder=str(tmp_path / "video"))
    assert "the same frames train and test" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("name", ["moving-mnist-rg", "street", "bouncing-squares"])
def test_training_clips_are_new_and_fixed_ones_stay(name: str, seed: int) -> None:
    data = open_dataset(name, {"train": 20, "test": 10})
    rows = torch.arange(30)
    torch.testing.assert_close(data.batch(rows)["x"], open_dataset(name, {"train": 20, "test": 10}).batch(rows)["x"])
    draw = seeded(seed, data.device)
    a, b = data.sample(4, draw)["x"], data.sample(4, draw)["x"]
    assert not torch.equal(a, b)
    torch.testing.assert_close(data.sample(4, seeded(seed, data.device))["x"], a)
    assert (len(data.rows_of("train")), len(data.rows_of("test"))) == (20, 10)
