"""The clip data sets: procedural sprites, the Sprites of Li & Mandt from sheets, layers and npy files, vector clips."""

from __future__ import annotations

import os
import random
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from distk import DistkError, UsageError, open_dataset
from distk.plugins.sequence.data import lpc
from distk.plugins.sequence.data.clips import ClipDataset
from distk.plugins.sequence.data.sprites_sim import PARTS, SpritesSim

REAL = Path(os.environ.get("DISTK_DATA", "/nonexistent")) / "lpc_sprites"
needs_art = pytest.mark.skipif(not REAL.is_dir(), reason="needs DISTK_DATA with lpc_sprites")
CHECK_SUMS = {  # of the original sheets, sum of uint8 over each frame
    (0, 0, 0, 0, 0): [317144, 327762, 319139, 296864, 317248, 328727, 319497, 298841],
    (0, 0, 0, 0, 4): [239490, 241897, 242600, 255852, 257968, 261696, 257968, 253488],
    (5, 4, 3, 2, 8): [231498, 237451, 244083, 252374, 255475, 252913, 255475, 231498],
}


@pytest.fixture(scope="module")
def sim() -> SpritesSim:
    return open_dataset("sprites-sim")  # type: ignore[return-value]


def at(data: ClipDataset, *factors: int) -> Tensor:
    return data.observe(torch.tensor([factors]))[0]


def test_sim_is_the_grid_of_the_paper_split_by_character(sim: SpritesSim) -> None:
    assert (len(sim), sim.factor_sizes, sim.spec.shape) == (11_664, (6, 6, 6, 6, 9), (8, 3, 64, 64))
    train, test = sim.rows("train"), sim.rows("test")
    assert (len(train), len(test)) == (9000, 2664)
    of_train, of_test = set(sim.appearance(train).tolist()), set(sim.appearance(test).tolist())
    assert (len(of_train), len(of_test), of_train & of_test) == (1000, 296, set())
    # The first characters of RandomState(423).permutation(1296), as the authors' script has them.
    assert {1116, 1135, 17, 469, 1293, 491, 869, 961} <= of_train
    other = open_dataset("sprites-sim:das-dandi", {"size": 16})
    assert (len(other), other.spec.extra["attributes"]["body"]) == (840 * 9, 7)
    assert (len(other.rows("train")), len(other.rows("test"))) == (756 * 9, 84 * 9)


def test_sim_clips_are_distinct_and_repeatable(sim: SpritesSim) -> None:
    data = open_dataset("sprites-sim", {"size": 16})
    seen = set()
    for part in torch.arange(len(data)).split(1000):
        clips = (data.batch(part)["x"] * 255).round().to(torch.uint8)
        seen |= {clip.tobytes() for clip in clips.numpy()}
    assert len(seen) == 11_664
    again = open_dataset("sprites-sim")
    rows = torch.randint(len(sim), (5,))
    assert torch.equal(sim.batch(rows)["x"], again.batch(rows)["x"])
    assert torch.equal(sim.batch(rows)["x"][2], sim.batch(rows[2:3])["x"][0])


@pytest.mark.parametrize(("factor", "part"), [(0, "body"), (1, "bottom"), (2, "top"), (3, "hair")])
def test_an_attribute_changes_its_own_part_alone(sim: SpritesSim, factor: int, part: str) -> None:
    values = [int(torch.randint(size, ())) for size in sim.factor_sizes]
    other = list(values)
    other[factor] = (values[factor] + 3) % 6  # the same hair style: style = hair % 3
    changed = (at(sim, *values) != at(sim, *other)).any(1)
    covered = sim.weights[values[4] * 3 + values[3] % 3, :, PARTS.index(part)].view(8, 64, 64) > 0
    assert changed.any()
    assert not (changed & ~covered).any()


def test_sim_moves_as_its_labels_say(sim: SpritesSim) -> None:
    for action in range(9):
        clip = at(sim, 0, 1, 2, 3, action)
        assert (clip[0] != clip[3]).any()
    # Walking to the left shows the mirrored head of walking to the right (one level of rounding apart at most).
    left, right = (at(sim, 0, 1, 2, 1, action)[:, :, :26] for action in (1, 2))
    assert (left - right.flip(3)).abs().max() < 1.5 / 255
    assert (left - right).abs().max() > 0.5
    # The walk returns: frame t + 8 is frame t, and the middle of the cycle looks like its beginning.
    assert torch.equal(at(sim, 0, 0, 0, 0, 0)[0], at(sim, 0, 0, 0, 0, 0)[4])


def test_sim_sizes_show_the_same_picture() -> None:
    large, small = open_dataset("sprites-sim", {"size": 128}), open_dataset("sprites-sim", {"size": 64})
    row = torch.randint(len(small), (3,))
    shrunk = torch.nn.functional.avg_pool2d(large.batch(row)["x"].flatten(0, 1), 2)
    assert (shrunk - small.batch(row)["x"].flatten(0, 1)).abs().mean() < 0.02


def test_transfer_target_is_appearance_of_a_with_motion_of_b(sim: SpritesSim) -> None:
    a, b = torch.randint(len(sim), (2, 4))
    factors = torch.cat([sim.factors(a)[:, :4], sim.factors(b)[:, 4:]], 1)
    assert torch.equal(sim.transfer_target(a, b), sim.observe(factors))


def test_vector_clips_hold_what_they_say() -> None:
    data = open_dataset("vector-clips", {"clips": 2000, "noise": 0.0})
    rows = torch.arange(2000)
    x = data.batch(rows)["x"]
    assert torch.equal(x, data.transfer_target(rows, rows))
    flat = x.double().reshape(-1, 12)
    values = torch.linalg.svdvals(flat - flat.mean(0))
    assert values[5] > 1  # a space of six dimensions
    assert values[6] < 1e-3
    # The static part and the rotation lie in orthogonal subspaces, so squared lengths add; the rotation's are constant.
    assert (data.static[:, None] * data.moving).sum(-1).abs().max() < 1e-4
    lengths = data.moving.pow(2).sum(-1)
    torch.testing.assert_close(lengths, lengths[:, :1].expand(-1, 8), rtol=1e-4, atol=1e-4)
    turn = (data.moving[:, 0] * data.moving[:, 1]).sum(-1) / lengths[:, 0]
    torch.testing.assert_close(turn, torch.tensor(data.speeds)[data.label].cos(), rtol=1e-3, atol=1e-3)
    noisy = open_dataset("vector-clips", {"clips": 2000}).x - x
    assert abs(float(noisy.std()) - 0.1) < 0.005
    assert len(set(data.rows("train").tolist()) & set(data.rows("test").tolist())) == 0


def fake_layers() -> list[np.ndarray]:
    draw = np.random.default_rng(random.getrandbits(64))
    return [
        draw.integers(0, 256, (1 if layer == "shoes" else 6, 9, 8, 64, 64, 4), dtype=np.uint8) for layer in lpc.LAYERS
    ]


def write_sheets(folder: Path) -> None:
    """Random sheets in the layout of the originals."""
    from PIL import Image

    draw = np.random.default_rng(random.getrandbits(64))
    for layer in lpc.LAYERS:
        (folder / layer).mkdir(parents=True)
        for k in range(6) if layer != "shoes" else (1,):
            tile = draw.integers(0, 256, (21, 13, 4), dtype=np.uint8)  # a colour per tile keeps the files small
            sheet = tile.repeat(64, 0).repeat(64, 1)
            Image.fromarray(sheet, "RGBA").save(folder / layer / f"{k}.png")


def test_composition_is_source_over(tmp_path: Path) -> None:
    layers = fake_layers()
    compose = lpc.Composer(layers, torch.device("cpu"))
    factors = torch.stack([torch.randint(s, (2,)) for s in lpc.SIZES], 1)
    ours = compose(factors)
    for i, (*variants, action) in enumerate(factors.tolist()):
        image = np.zeros((8, 64, 64, 3))
        for layer, variant in zip(layers, [*variants, 0], strict=True):
            tile = layer[variant, action].astype(np.float64)
            image = image + (tile[..., :3] - image) * tile[..., 3:] / 255
        assert np.abs(ours[i].permute(0, 2, 3, 1).numpy() - image).max() <= 0.502  # nearest integer


def test_npy_files_built_from_sheets_hold_the_same_clips(tmp_path: Path) -> None:
    sheets, out = tmp_path / "sheets", tmp_path / "npy"
    write_sheets(sheets)
    files = lpc.build_lpc(sheets, out, characters=3)
    assert len(files) == 54
    frames = np.load(out / "spellcard_left_frames_train.npy")
    assert (frames.shape, frames.dtype) == ((3, 8, 64, 64, 3), np.float32)
    assert np.array_equal(frames * 256, np.rint(frames * 256))
    facing = np.load(out / "slash_right_directions_test.npy")
    assert facing.shape == (3, 8, 3)
    assert (facing.argmax(-1) == 2).all()
    attributes = np.load(out / "walk_front_attributes_train.npy")[:, 0].argmax(-1)
    assert attributes.tolist() == [[c // 216, c // 36 % 6, c // 6 % 6, c % 6] for c in (1116, 1135, 17)]
    built = open_dataset("lpc-sprites", folder=tmp_path / "npy")
    composed = open_dataset("lpc-sprites", folder=sheets)
    assert (len(built), len(built.rows("train")), len(built.rows("test"))) == (54, 27, 27)
    every = torch.arange(len(built))
    assert torch.equal(built.batch(every)["x"], composed.observe(built.factors(every)))
    test, train = built.rows("test"), built.rows("train")
    assert torch.equal(built.transfer_target(test[:4], train[-4:]), composed.observe(
        torch.cat([built.factors(test[:4])[:, :4], built.factors(train[-4:])[:, 4:]], 1)))  # fmt: skip
    deep = tmp_path / "deep" / "npy"
    deep.mkdir(parents=True)
    out.rename(deep / "npy")
    assert len(open_dataset("lpc-sprites", folder=tmp_path / "deep")) == 54


def test_npy_folder_that_does_not_fit(tmp_path: Path) -> None:
    write_sheets(tmp_path / "sheets")
    out = tmp_path / "npy"
    lpc.build_lpc(tmp_path / "sheets", out, characters=1)
    frames = out / "walk_left_frames_test.npy"
    good = np.load(frames)

    def refused(array: np.ndarray, match: str, error: type[Exception] = DistkError) -> None:
        np.save(frames, array)
        with pytest.raises(error, match=match):
            open_dataset("lpc-sprites", folder=out)

    refused(good * 256, r"values from \d+ to \d+, expected 0 to 1")
    refused(good[:, :7], r"\(1, 7, 64, 64, 3\), expected float32 \(N, 8, 64, 64, 3\)")
    refused(good.astype(np.uint8), "uint8")
    refused(np.full_like(good, np.nan), "values from nan")
    np.save(frames, np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(DistkError, match="not a valid npy"):
        open_dataset("lpc-sprites", folder=out)
    frames.unlink()
    (out / "slash_right_attributes_train.npy").unlink()
    with pytest.raises(UsageError, match=r"lacks slash_right_attributes_train.npy"):
        open_dataset("lpc-sprites", folder=out)


def test_sheets_that_do_not_fit(tmp_path: Path) -> None:
    from PIL import Image

    with pytest.raises(UsageError, match=r"lpc-sprites' found no files.*sprites-sim"):
        open_dataset("lpc-sprites", folder=tmp_path)
    write_sheets(tmp_path)
    (tmp_path / "hair" / "3.png").unlink()
    with pytest.raises(UsageError, match=r"lack hair/3.png"):
        open_dataset("lpc-sprites", folder=tmp_path)
    Image.new("RGBA", (832, 1280)).save(tmp_path / "hair" / "3.png")
    with pytest.raises(DistkError, match="832x1280; a sheet has 832x1344"):
        open_dataset("lpc-sprites", folder=tmp_path)
    (tmp_path / "hair" / "3.png").write_bytes(b"not an image")
    with pytest.raises(DistkError, match="cannot be read as an image"):
        open_dataset("lpc-sprites", folder=tmp_path)


def test_layers_that_do_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "lpc_layers.npz"
    path.write_bytes(b"PK nonsense")
    with pytest.raises(DistkError, match="not a valid npz file"):
        lpc.read_layers(path)
    np.savez(path, body=np.zeros((6, 9, 8, 64, 64, 3), np.uint8))
    with pytest.raises(DistkError, match=r"body is uint8 \(6, 9, 8, 64, 64, 3\), expected"):
        lpc.read_layers(path)
    np.savez_compressed(path, body=np.zeros((6, 9, 8, 64, 64, 4), np.uint8))
    with pytest.raises(DistkError, match="bottomwear"):
        lpc.read_layers(path)
    # A header that promises more than the member holds.
    with zipfile.ZipFile(path, "w") as archive, archive.open("body.npy", "w") as member:
        header = {"descr": "|u1", "fortran_order": False, "shape": (6, 9, 8, 64, 64, 4)}
        np.lib.format.write_array_header_1_0(member, header)
        member.write(b"\0" * 100)
    with pytest.raises(DistkError, match="cannot be in this file"):
        lpc.read_layers(path)


@needs_art
def test_real_sheets_and_layers_give_the_published_check_sums() -> None:
    cut, stored = lpc.cut_sheets(REAL / "sheets"), lpc.read_layers(REAL / "lpc_layers.npz")
    for a, b in zip(cut, stored, strict=True):
        assert np.array_equal(a, b)
    data = open_dataset("lpc-sprites", folder=REAL)
    for factors, sums in CHECK_SUMS.items():
        clip = (at(data, *factors) * 255).round()
        assert clip.sum((1, 2, 3)).long().tolist() == sums
    some = data.batch(data.rows("train")[::91])["x"]
    assert abs(float(some.mean()) * 255 / 256 - 0.089) < 0.003


@needs_art
def test_real_characters_are_composed_exactly() -> None:
    data = open_dataset("lpc-sprites", folder=REAL)
    with np.load(REAL / "composed_check_2characters.npz", allow_pickle=False) as file:
        characters, videos = file["characters"], file["videos"]
    for character, expected in zip(characters.tolist(), videos, strict=True):
        rows = torch.tensor([[*character, action] for action in range(9)])
        ours = (data.observe(rows) * 255).round().to(torch.uint8).permute(0, 1, 3, 4, 2)
        assert np.array_equal(ours.numpy(), expected)
