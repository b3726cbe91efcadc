"""Windows of clips of unequal length."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from distk import Files, UsageError, seeded
from distk.errors import DistkError
from distk.testing import HostRead, NoHostReads
from distk.video import Clips, VideoDataset, WindowConfig


def counting(lengths: list[int], labels: list[int] | None = None) -> Clips:
    """Clips whose pixel (0, 0) is the clip's number and whose pixel (0, 1) is the frame's number in its clip."""
    frames = np.zeros((sum(lengths), 1, 1, 2), np.uint8)
    frames[:, 0, 0, 0] = np.repeat(np.arange(len(lengths)), lengths)
    frames[:, 0, 0, 1] = np.concatenate([np.arange(n) for n in lengths])
    return Clips(frames, lengths, labels=labels or [], classes=("a", "b") if labels else (), fps=12.0)


def held(clips: Clips, **values: object) -> VideoDataset:
    made = VideoDataset(replace(WindowConfig(), **values), torch.device("cpu"), Files("v", None, ""))
    made.hold(clips)
    return made


def read(batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Clip and frame numbers `[n, t]` that the pictures show."""
    shown = (batch["x"] * 255).round().long()[:, :, 0, 0]
    return shown[..., 0], shown[..., 1]


@pytest.mark.parametrize(("frames", "every", "stride"), [(1, 1, 1), (4, 1, 1), (3, 2, 1), (4, 3, 5), (5, 1, 7)])
def test_rows_are_all_windows_and_none_crosses_a_clips_end(frames, every, stride, seed) -> None:
    lengths = np.random.default_rng(seed).integers(1, 40, 30).tolist()
    lengths[3] = 39
    span = (frames - 1) * every + 1
    data = held(counting(lengths), frames=frames, every=every, stride=stride)
    expected = [(c, s) for c, n in enumerate(lengths) for s in range(0, n, stride) if s + span <= n]
    batch = data.batch(torch.arange(len(data)))
    clip, frame = read(batch)
    assert [(int(c[0]), int(f[0])) for c, f in zip(clip, frame, strict=True)] == expected
    assert bool((clip == clip[:, :1]).all())
    assert torch.equal(frame - frame[:, :1], (torch.arange(frames) * every).expand(len(data), -1))
    assert torch.equal(batch["start"], frame[:, 0])
    kept = [c for c, n in enumerate(lengths) if n >= span]
    assert [kept[c] for c in batch["clip"].tolist()] == clip[:, 0].tolist()


def test_splits_are_by_clip(seed) -> None:
    lengths = np.random.default_rng(seed).integers(5, 30, 40).tolist()
    data = held(counting(lengths), frames=4, test=0.25, split_seed=seed % 1000)
    train, test = (set(data.batch(data.rows(part))["clip"].tolist()) for part in ("train", "test"))
    assert not train & test
    assert train | test == set(range(40))
    assert len(test) == 10
    assert len(data.rows("train")) + len(data.rows("test")) == len(data)
    for part, clips in (("train", train), ("test", test)):
        assert set(data.sample(500, seeded(seed, torch.device("cpu")), part)["clip"].tolist()) <= clips
    alone = held(counting([9]), frames=4)
    assert alone.rows("train") is None
    assert alone.rows("test") is None


def test_a_clip_is_drawn_as_often_as_any_other_or_by_its_windows(generator) -> None:
    lengths, n = [4, 13, 103], 6000
    by_clip = held(counting(lengths), frames=4).sample(n, generator, "all")
    long = (by_clip["clip"] == 2).float().mean()
    assert abs(long - 1 / 3) < 5 * (2 / 9 / n) ** 0.5
    for clip, windows in ((1, 10), (2, 100)):
        starts = torch.bincount(by_clip["start"][by_clip["clip"] == clip], minlength=windows)
        assert len(starts) == windows
        expected = float(starts.sum()) / windows
        assert (starts - expected).abs().max() < 6 * expected**0.5
    by_window = held(counting(lengths), frames=4, draw="windows").sample(n, generator, "all")
    share = (by_window["clip"] == 2).float().mean()
    assert abs(share - 100 / 111) < 5 * (100 / 111 * 11 / 111 / n) ** 0.5


def test_sampling_reads_nothing_back_and_keeps_its_shapes(generator) -> None:
    for draw in ("clips", "windows"):
        data = held(counting([6, 9, 30], [0, 1, 0]), frames=4, draw=draw)
        with NoHostReads():
            batch = data.sample(8, generator)
        assert {k: tuple(v.shape) for k, v in batch.items()} == {
            "x": (8, 4, 1, 1, 2),
            "clip": (8,),
            "start": (8,),
            "label": (8,),
        }
        assert batch["label"].tolist() == [int(c == 1) for c in batch["clip"].tolist()]
        assert data.spec.classes == ("a", "b")
    with NoHostReads(), pytest.raises(HostRead):  # the check sees what it looks for
        batch["clip"].tolist()


def test_short_clips_are_left_out_with_a_count(capsys) -> None:
    data = held(counting([3, 8, 2, 9], [0, 1, 0, 1]), frames=4, every=2)
    assert data.lengths.tolist() == [8, 9]
    assert data.label.tolist() == [1, 1]
    assert "2 of 4 clips have fewer frames than the 7" in capsys.readouterr().err
    assert read(data.batch(torch.tensor([0])))[0].tolist() == [[1] * 4]
    assert data.spec.extra["fps"] == 6.0
    with pytest.raises(UsageError, match=r"4 of 4 clips .*'clip 0' has 3.*--frames"):
        held(counting([3, 8, 2, 9]), frames=16)
    assert torch.equal(data.whole(1)[:, 0, 0, 1] * 255, torch.arange(9.0))


def test_clips_that_are_none() -> None:
    with pytest.raises(DistkError, match="clip 'b' has no frames"):
        Clips(np.zeros((3, 1, 2, 2), np.uint8), [3, 0], ["a", "b"])
    with pytest.raises(DistkError, match="no clips"):
        Clips(np.zeros((0, 1, 2, 2), np.uint8), [])
    with pytest.raises(DistkError, match="5 frames together, but there are 3"):
        Clips(np.zeros((3, 1, 2, 2), np.uint8), [5])


@pytest.mark.parametrize("name", ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def test_host_and_device_give_the_same_batches(name, seed) -> None:
    device, batches = torch.device(name), []
    for where in ("device", "host"):
        data = VideoDataset(replace(WindowConfig(), frames=4), device, Files("v", None, "", where=where))
        data.hold(counting([6, 9, 30]))
        batches.append(data.sample(64, seeded(seed, device)))
        assert data.pixels.on_host == (where == "host")
    assert all(torch.equal(a, batches[1][key]) for key, a in batches[0].items())


def test_frames_are_drawn_uniformly_over_all_frames_of_the_splits_clips(seed) -> None:
    lengths = np.random.default_rng(seed).integers(5, 30, 12).tolist()
    data = held(
        counting(lengths), frames=4, every=2, test=0.3, split_seed=seed % 1000
    )  # those of 5 and 6 are too short
    draw = torch.Generator().manual_seed(seed)
    kept = [n for n in lengths if n >= 7]
    for part in ("train", "test", "all"):
        shown = (data.sample_frames(40_000, draw, part) * 255).round().long()[:, 0, 0]
        counts = torch.zeros(len(lengths), 30)
        counts.index_put_((shown[:, 0], shown[:, 1]), torch.ones(len(shown)), accumulate=True)
        clips = torch.arange(len(kept)) if part == "all" else data.clips(part)
        original = [c for c, n in enumerate(lengths) if n >= 7]
        expected = torch.zeros(len(lengths), 30, dtype=torch.bool)
        for c in clips.tolist():
            expected[original[c], : kept[c]] = True
        mean = 40_000 / int(expected.sum())
        assert bool((counts[~expected] == 0).all())
        assert bool(((counts[expected] - mean).abs() < 6 * mean**0.5).all())


def test_clips_below_min_len_are_left_out_and_it_is_said(capsys) -> None:
    data = held(counting([40, 20, 31, 32, 16]), frames=16, min_len=32)
    assert data.lengths.tolist() == [40, 32]
    assert "3 of 5 clips have fewer frames than the 32 of --min-len" in capsys.readouterr().err
    with pytest.raises(UsageError, match="Ask for fewer with --min-len"):
        held(counting([20, 31]), frames=16, min_len=32)
