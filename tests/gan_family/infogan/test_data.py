"""`teapots`: the renderer against slow independent computations, the gap, the splits, and files of the user's."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from distk import DistkError, UsageError, encode_table, open_dataset
from distk.config import from_dict
from distk.data import DataSpec
from distk.plugins.gan_family.infogan import teapot
from distk.plugins.gan_family.infogan.data import Teapots, in_gap
from distk.plugins.gan_family.infogan.method import InfoGAN


def small(**settings: object) -> Teapots:
    made = open_dataset("teapots", {"items": 400, "poses": 50, "size": 8, **settings})
    assert isinstance(made, Teapots)
    return made


def poses(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    draw = torch.rand(2, n, generator=generator, dtype=torch.float64)
    return draw[0] * 2 * math.pi, draw[1] * math.pi / 2


# The renderer


def test_distances_change_as_fast_as_places(generator: torch.Generator) -> None:
    p = (3 * torch.rand(50_000, 3, generator=generator, dtype=torch.float64) - 1.5).requires_grad_()
    d = teapot.distance((p[:, 0], p[:, 1], p[:, 2]))
    (gradient,) = torch.autograd.grad(d.sum(), p)
    # Where two parts are equally near, the gradient jumps, but is that of one of them.
    norms = gradient.norm(dim=1)[d.detach() > 0]
    assert float(norms.min()) > 0.97
    assert float(norms.max()) < 1.02


def test_the_parts_stand_where_they_should() -> None:
    on = {"body": (0.0, -0.5, 0.0), "side": (0.0, 0.0, 0.62), "knob": (0.0, 0.67, 0.0), "handle": (-0.955, 0.03, 0.0)}
    on |= {"rim of the handle": (-0.62 - 0.27, 0.03, 0.065)}
    tip = np.array([1.0, 0.36]) + 0.07 * np.array([0.58, 0.5]) / math.hypot(0.58, 0.5)
    on |= {"spout": (tip[0], tip[1], 0.0)}
    for name, place in on.items():
        point = tuple(torch.tensor([v], dtype=torch.float64) for v in place)
        assert float(teapot.distance(point)) == pytest.approx(0, abs=2e-3), name  # type: ignore[arg-type]


def slow_render(azimuth: float, elevation: float, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Depth by the first of 4,000 places along each ray that is inside, refined by halving; shade from autograd."""
    f = np.array(
        [math.cos(elevation) * math.sin(azimuth), math.sin(elevation), math.cos(elevation) * math.cos(azimuth)]
    )
    right = np.array([math.cos(azimuth), 0, -math.sin(azimuth)])
    up = np.cross(f, right)
    lamp = -0.4 * right + 0.8 * np.array([0, 1, 0]) + 0.45 * np.array([math.sin(azimuth), 0, math.cos(azimuth)])
    lamp /= np.linalg.norm(lamp)
    shade, hit = np.zeros((size, size)), np.zeros((size, size), bool)
    t = torch.linspace(0, 4, 4001, dtype=torch.float64)
    for i in range(size):
        for j in range(size):
            u, v = (2 * (j + 0.5) / size - 1) * 1.15, (1 - 2 * (i + 0.5) / size) * 1.15
            origin, ahead = torch.from_numpy(2 * f + u * right + v * up), torch.from_numpy(-f)

            def along(s: Tensor, origin: Tensor = origin, ahead: Tensor = ahead) -> Tensor:
                x, y, z = (origin[:, None] + ahead[:, None] * s).unbind(0)
                return teapot.distance((x, y, z))

            inside = (along(t) < 0).nonzero()
            if not len(inside):
                continue
            low, high = t[inside[0] - 1], t[inside[0]]
            for _ in range(40):
                middle = (low + high) / 2
                low, high = (low, middle) if float(along(middle)) < 0 else (middle, high)
            point = (origin + ahead * high).requires_grad_()
            (normal,) = torch.autograd.grad(teapot.distance(tuple(point[:, None])).sum(), point)  # type: ignore[arg-type]
            facing = float((normal / normal.norm()) @ torch.from_numpy(lamp))
            shade[i, j], hit[i, j] = 0.3 + 0.7 * max(0.0, facing), True
    return shade, hit


def test_pictures_are_those_of_a_slow_renderer(generator: torch.Generator) -> None:
    azimuth, elevation = poses(2, generator)
    shade, cover = teapot.render(azimuth, elevation, 14)
    for i in range(2):
        expected, hit = slow_render(float(azimuth[i]), float(elevation[i]), 14)
        # Rays that graze the outline within the tolerance of a hit may differ: some pixels of 196.
        assert (np.asarray(cover[i] > 0) != hit).sum() <= 6
        both = np.asarray(cover[i] > 0) & hit
        off = np.abs(np.asarray(shade[i])[both] - expected[both])
        assert np.quantile(off, 0.95) < 0.02
        assert both.sum() > 20
    assert float(cover.mean()) == pytest.approx(0.22, abs=0.06)


def test_a_turn_around_is_the_same_picture(generator: torch.Generator) -> None:
    azimuth, elevation = poses(4, generator)
    first, again = teapot.render(azimuth, elevation, 16)[0], teapot.render(azimuth + 2 * math.pi, elevation, 16)[0]
    assert float((first - again).abs().mean()) < 1e-4
    assert float((first - again).abs().gt(0.05).double().mean()) < 1e-3


def test_azimuth_shows_from_every_side() -> None:
    azimuth = torch.arange(64, dtype=torch.float64) * 2 * math.pi / 64
    views = teapot.render(azimuth, torch.full_like(azimuth, 0.4), 32, 2)[0].flatten(1)
    apart = torch.cdist(views, views) / math.sqrt(views.shape[1])
    steps = (torch.arange(64)[:, None] - torch.arange(64)).abs()
    steps = torch.minimum(steps, 64 - steps)
    # Closest where the spout points at the camera; 0.13 in the mean from 22.5 degrees on.
    assert float(apart[steps >= 4].min()) > 0.05
    assert float(apart[steps >= 4].mean()) > 0.12
    assert float(apart[steps == 1].min()) > 0.02
    assert float(apart[steps == 1].mean()) < 0.07


def test_more_rays_per_pixel_are_their_mean(generator: torch.Generator) -> None:
    azimuth, elevation = poses(2, generator)
    fine, cover = teapot.render(azimuth, elevation, 24)
    coarse, share = teapot.render(azimuth, elevation, 8, supersample=3)
    torch.testing.assert_close(coarse, torch.nn.functional.avg_pool2d(fine, 3))
    torch.testing.assert_close(share, torch.nn.functional.avg_pool2d(cover, 3))


# The data set


def test_colour_only_multiplies() -> None:
    data = small()
    rows = torch.tensor([0, 1, 7, 399])
    x, truth = data.batch(rows)["x"], data.truth(rows)
    white = teapot.render(data.real_values[rows, 0], data.real_values[rows, 1], 8)[0]
    expected = white[:, None] * truth[:, 2:, None, None]
    assert float((x - expected).abs().max()) < 0.5 / 255 + 6e-4  # rounding, of the light in half precision, too
    assert torch.equal((x * 255).round() / 255, x)
    grey = small(background=0.5, supersample=2)
    cover = teapot.render(grey.real_values[rows, 0], grey.real_values[rows, 1], 8, 2)[1]
    corner = grey.batch(rows)["x"][:, :, 0, 0]
    assert torch.equal(corner, torch.full((4, 3), 128 / 255))
    assert float(cover[:, 0, 0].max()) == 0


def test_rows_of_one_pose_stay_in_one_split() -> None:
    data = small(items=393)
    assert set(data.splits) == {"train", "validation", "test"}
    seen: dict[tuple[float, float], set[str]] = {}
    for split in data.splits:
        for azimuth, elevation in data.truth(data.rows_of(split))[:, :2].tolist():
            seen.setdefault((azimuth, elevation), set()).add(split)
    assert all(len(splits) == 1 for splits in seen.values())
    assert len(seen) == 50
    sizes = [len(data.rows_of(split)) for split in ("train", "validation", "test")]
    assert sum(sizes) == 393
    assert sizes[0] == pytest.approx(0.8 * 393, abs=8)
    assert sizes[1] == pytest.approx(39.3, abs=8)
    # By the order of the rows, as the authors' program: the first 80 %, the next 10, the last 10.
    ends = [(int(rows.min()), int(rows.max())) for rows in map(data.rows_of, ("train", "validation", "test"))]
    assert ends[0][0] == 0
    assert ends[0][1] < ends[1][0] <= ends[1][1] < ends[2][0] <= ends[2][1] == 392


def test_the_gap_is_in_no_other_split() -> None:
    data = small(gap="paper", items=2000, poses=500)
    everything = torch.cat([data.rows_of(split) for split in data.splits])
    assert torch.equal(everything.sort().values, torch.arange(2000))
    for split in data.splits:
        for _, z1, z2, z3, z4 in data.truth(data.rows_of(split)).tolist():
            inside = z2 > z3 + 0.15 and z2 > z4 + 0.15 and z1 > math.pi / 4
            assert inside == (split == "gap")
    plain = small(items=2000, poses=500)
    away = set(data.rows_of("gap").tolist())
    for split in plain.splits:  # the split is that of the row, whether or not the gap is taken out
        assert set(plain.rows_of(split).tolist()) - away == set(data.rows_of(split).tolist())
    drawn = data.sample(512, torch.Generator().manual_seed(0))["factors"]
    assert drawn.shape == (512, 5)


def test_the_gap_has_its_share(generator: torch.Generator) -> None:
    n = 10**6
    truth = torch.rand(n, 5, generator=generator, dtype=torch.float64) * torch.tensor([6.28, math.pi / 2, 1, 1, 1])
    p = 0.5 * 0.85**3 / 3
    assert float(in_gap(truth).double().mean()) == pytest.approx(p, abs=4 * math.sqrt(p * (1 - p) / n))
    edge = torch.tensor([[0, 1.0, 0.5, 0.35, 0.0], [0, math.pi / 4, 1, 0, 0]], dtype=torch.float64)
    edge[0, 3] = edge[0, 2] - 0.15
    assert not in_gap(edge).any() or float(edge[0, 2] - edge[0, 3]) > 0.15


def test_scores_read_numbers_and_batches_read_bins() -> None:
    data = small()
    model = InfoGAN(from_dict(InfoGAN.Config, {"dim": 1, "noise": 1}, "test"), DataSpec("image", (3, 16, 16)))
    sixteen = small(size=16)
    table = encode_table(model, sixteen, rows=30)
    assert table.factors is not None
    assert table.factors.dtype == torch.float64
    assert torch.equal(table.factors, sixteen.truth(table.rows))  # type: ignore[arg-type]
    bins = data.batch(torch.arange(400))["factors"]
    expected = (data.real_values / torch.tensor([2 * math.pi, math.pi / 2, 1, 1, 1]) * 10).floor().long()
    assert torch.equal(bins, expected)


def test_a_gap_needs_enough_teapots() -> None:
    with pytest.raises(UsageError, match="none falls into the split"):
        small(items=20, poses=1, gap="paper")


# Files


def fake(n: int = 40, side: int = 8) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    truth = rng.random((n, 5)) * [2 * math.pi, math.pi / 2, 1, 1, 1]
    truth[:5] = [1.0, 1.2, 0.9, 0.1, 0.1]  # red ones from above, so that there is a gap
    return rng.integers(0, 256, (n, side, side, 3), dtype=np.uint8), truth


def save(folder: Path, **arrays: np.ndarray) -> Path:
    np.savez(folder / "teapots.npz", **arrays)
    return folder


def test_what_is_exported_is_read(tmp_path: Path) -> None:
    drawn = small(gap="paper")
    drawn.export(tmp_path / "teapots.npz")
    assert [p.name for p in tmp_path.iterdir()] == ["teapots.npz"]
    read = open_dataset("teapots", {"size": 8, "gap": "paper"}, folder=tmp_path)
    assert isinstance(read, Teapots)
    rows = torch.arange(400)
    assert torch.equal(read.batch(rows)["x"], drawn.batch(rows)["x"])
    assert torch.equal(read.batch(rows)["factors"], drawn.batch(rows)["factors"])
    assert torch.equal(read.rows_of("gap"), drawn.rows_of("gap"))
    assert str(tmp_path) in read.origin
    with np.load(tmp_path / "teapots.npz") as file:
        assert file["images"].shape == (400, 8, 8, 3)
        np.testing.assert_array_equal(file["gts"], drawn.real_values.numpy())


def test_files_are_taken_in_the_users_order_and_size(tmp_path: Path) -> None:
    images, truth = fake(side=16)
    save(tmp_path, images=images, gts=truth.astype(np.float32))
    data = open_dataset("teapots", {"size": 8, "gap": "paper"}, folder=tmp_path)
    x = data.batch(torch.arange(40))["x"]
    expected = images.reshape(40, 8, 2, 8, 2, 3).mean((2, 4)).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(x.numpy() * 255, expected, atol=0.51)
    assert data.rows_of("gap")[:5].tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(UsageError, match="set --size 16"):
        open_dataset("teapots", {"size": 9}, folder=tmp_path)


def as_folder(folder: Path, n: int = 40) -> Path:
    images, truth = fake(n)
    (folder / "images").mkdir()
    for i, image in enumerate(images):
        Image.fromarray(image).save(folder / "images" / f"im{i}.jpeg", quality=100, subsampling=0)
    np.save(folder / "gts.npy", truth)
    return folder


def test_a_folder_of_jpegs_is_read_by_number(tmp_path: Path) -> None:
    data = open_dataset("teapots", {"size": 8}, folder=as_folder(tmp_path))
    x = data.batch(torch.arange(40))["x"]
    for i in (0, 2, 10, 39):
        with Image.open(tmp_path / "images" / f"im{i}.jpeg") as image:
            np.testing.assert_array_equal((x[i] * 255).round().numpy(), np.asarray(image).transpose(2, 0, 1))


def broken(key: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        arrays = dict(zip(("images", "gts"), fake(), strict=True))
        arrays[key] = change(arrays[key])
        save(folder, **arrays)

    return write


def degrees(truth: np.ndarray) -> np.ndarray:
    truth[7, 1] = 45.0
    return truth


def undefined(truth: np.ndarray) -> np.ndarray:
    truth[3, 2] = math.nan
    return truth


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (broken("gts", lambda a: a[:-1]), r"\(40, 8, 8, 3\) and gts \(39, 5\)"),
        (broken("gts", lambda a: a[:, :4]), r"\(40, 4\); expected"),
        (broken("gts", degrees), "elevation of picture 7 is 45"),
        (broken("gts", undefined), "red of picture 3 is nan"),
        (broken("gts", lambda a: a.astype(object)), "teapots.npz"),
        (broken("images", lambda a: a.astype(np.float32)), "images float32"),
        (broken("images", lambda a: a[:, :, :4]), r"images uint8 \(40, 8, 4, 3\)"),
        (broken("images", lambda a: a[..., 0]), "expected uint8"),
        (lambda folder: save(folder, images=fake()[0]), "lacks 'gts'"),
        (lambda folder: save(folder, gts=fake()[1]), "lacks 'images'"),
        (lambda folder: (folder / "teapots.npz").write_bytes(b"PK\x03\x04nonsense"), "not a valid npz"),
        (lambda folder: (as_folder(folder) / "images" / "im39.jpeg").unlink(), "there is no"),
        (lambda folder: (as_folder(folder) / "images" / "im3.jpeg").write_bytes(b"no picture"), "im3.jpeg"),
        (lambda folder: (as_folder(folder) / "images" / "im40.jpeg").touch(), "there is a"),
        (lambda folder: (as_folder(folder) / "gts.npy").write_bytes(b"no numbers"), "not a valid npy"),
        (lambda folder: np.save(as_folder(folder) / "gts.npy", np.zeros((0, 5))), "expected numbers"),
        (lambda folder: other_size(as_folder(folder)), "has shape"),
    ],
)
def test_damaged_files_are_refused_in_a_sentence(tmp_path: Path, write: Callable[[Path], object], words: str) -> None:
    write(tmp_path)
    with pytest.raises((DistkError, UsageError), match=words) as told:
        open_dataset("teapots", {"size": 8}, folder=tmp_path)
    assert "\n" not in str(told.value)


def other_size(folder: Path) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, "JPEG")
    (folder / "images" / "im5.jpeg").write_bytes(buffer.getvalue())


def test_an_empty_folder_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"found none of teapots\.npz and gts\.npy"):
        open_dataset("teapots", folder=tmp_path)
    with pytest.raises(DistkError, match="cannot write"):
        small().export(tmp_path / "nowhere" / "teapots.npz")
