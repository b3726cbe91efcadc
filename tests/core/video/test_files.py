"""Files of clips: written and read back, and refused in a sentence."""

from __future__ import annotations

import io
import struct
import sys
import zipfile
import zlib
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from distk import open_dataset
from distk.errors import DistkError, UsageError
from distk.video import Clips, Fit, decode, read_clips, write_clips
from distk.video.readers import read_picture
from distk.video.writers import gif, palette_of


def noise(seed: int, t: int = 5, side: int = 12, colours: int = 256, channels: int = 3) -> np.ndarray:
    """A clip uint8 `[t, c, side, side]` of random pixels with `colours` values a channel."""
    drawn = np.random.default_rng(seed).integers(0, colours, (t, channels, side, side + 4), dtype=np.uint8)
    return drawn * (255 // max(1, colours - 1))


def smooth(seed: int, t: int = 12, side: int = 48) -> np.ndarray:
    """A coloured wave that moves, uint8 `[t, 3, side, side]`: thousands of colours."""
    phase = np.random.default_rng(seed).uniform(0, 6, 3)[:, None, None]
    y, x = np.mgrid[:side, :side] / side
    frames = [np.sin(3 * x + 2 * y * np.arange(1, 4)[:, None, None] + phase + 0.2 * k) for k in range(t)]
    return np.round(127.5 + 127.5 * np.stack(frames)).astype(np.uint8)


# What is written comes back


def test_npz_keeps_every_bit_and_what_belongs_to_clips(tmp_path, seed) -> None:
    parts = [noise(seed + k, t) for k, t in enumerate((3, 1, 7))]
    clips = Clips(np.concatenate(parts), [3, 1, 7], labels=[1, 0, 1], classes=("run", "walk"), fps=12.5)
    assert write_clips(tmp_path / "c.npz", clips) == [tmp_path / "c.npz"]
    again = read_clips(tmp_path / "c.npz")
    assert np.array_equal(again.frames, clips.frames)
    assert (again.lengths, again.labels, again.classes, again.fps) == ([3, 1, 7], [1, 0, 1], ("run", "walk"), 12.5)
    write_clips(tmp_path / "t.npz", torch.from_numpy(np.stack([parts[0], parts[0]])).float() / 255, 4)
    again = read_clips(tmp_path / "t.npz")
    assert (again.lengths, again.fps, again.labels) == ([3, 3], 4.0, [])
    assert np.array_equal(again[1], parts[0])


def test_other_layouts_of_npz(tmp_path, seed) -> None:
    video = noise(seed).transpose(0, 2, 3, 1)
    np.savez(tmp_path / "stack.npz", videos=np.stack([video, video[::-1]]), motion=np.array([4, 7], np.uint8))
    found = read_clips(tmp_path / "stack.npz")
    assert (found.lengths, found.labels, found.classes) == ([5, 5], [0, 1], ("4", "7"))
    assert np.array_equal(found[1], video[::-1].transpose(0, 3, 1, 2))
    np.savez_compressed(tmp_path / "each.npz", walk_10=video[:2], walk_9=video, run_1=video[:3])
    found = read_clips(tmp_path / "each.npz")
    assert (found.names, found.lengths) == (["run_1", "walk_9", "walk_10"], [3, 5, 2])
    assert (found.labels, found.classes) == ([0, 1, 1], ("run", "walk"))
    np.savez(tmp_path / "cut.npz", frames=video[..., 0], offsets=np.array([0, 1, 5]))
    found = read_clips(tmp_path / "cut.npz", Fit(channels=1))
    assert found.lengths == [1, 4]
    assert np.array_equal(found.frames[:, 0], video[..., 0])


@pytest.mark.parametrize("channels", [1, 3])
def test_a_strip_keeps_every_bit(tmp_path, seed, channels) -> None:
    square = noise(seed, channels=channels)[:, :, :, :12]
    write_clips(tmp_path / "s.png", [torch.from_numpy(square)])
    with Image.open(tmp_path / "s.png") as image:
        assert image.size == (60, 12)
        Image.fromarray(np.asarray(image).swapaxes(0, 1)).save(tmp_path / "below.png")
    assert np.array_equal(read_clips(tmp_path / "s.png", Fit(channels=channels)).frames, square)
    below = read_clips(tmp_path / "below.png", Fit(channels=channels), "strips").frames
    assert np.array_equal(below, square.swapaxes(2, 3))
    wide = noise(seed, channels=channels)
    write_clips(tmp_path / "w.png", [wide])
    assert np.array_equal(read_clips(tmp_path / "w.png", Fit(None, channels), "strips", frame=16).frames, wide)


def test_a_gif_of_few_colours_keeps_every_bit_and_every_frame(tmp_path, seed) -> None:
    clip = noise(seed, colours=6)
    clip = np.concatenate([clip, clip[-1:], clip[-1:]])  # frames that do not change are frames
    write_clips(tmp_path / "g.gif", [clip], fps=20)
    found = read_clips(tmp_path / "g.gif")
    assert np.array_equal(found.frames, clip)
    assert found.fps == 20
    grey = noise(seed, channels=1)
    write_clips(tmp_path / "grey.gif", [grey], fps=7)
    found = read_clips(tmp_path / "grey.gif", Fit(channels=1))
    assert np.array_equal(found.frames, grey)
    assert found.fps == pytest.approx(100 / round(100 / 7))


def test_a_gif_of_many_colours_takes_the_nearest_of_one_palette(tmp_path, seed) -> None:
    clip = smooth(seed)
    pixels = clip.transpose(0, 2, 3, 1)
    palette, numbers = palette_of(pixels)
    far = ((pixels.reshape(-1, 1, 3).astype(int) - palette.astype(int)) ** 2).sum(-1)
    assert np.array_equal(far.min(1), np.take_along_axis(far, numbers.reshape(-1, 1).astype(int), 1)[:, 0])
    write_clips(tmp_path / "g.gif", [clip])
    found = read_clips(tmp_path / "g.gif").frames
    assert np.array_equal(found, palette[numbers].transpose(0, 3, 1, 2))
    error = np.abs(found.astype(int) - clip).mean()
    assert 0 < error < 7, error  # at most 5.4 in 15 seeds
    content = (tmp_path / "g.gif").read_bytes()
    with Image.open(tmp_path / "g.gif") as image:
        tables = set()
        for k in range(image.n_frames):
            image.seek(k)
            tables.add(bytes(image.global_palette.palette) + bytes([len(image.tile)]))
    assert len(tables) == 1
    assert content.count(palette.tobytes()) == 1


def test_mp4_within_its_error(tmp_path, seed) -> None:
    pytest.importorskip("av", reason="PyAV is not installed: pip install 'distk[video]'")
    clip = smooth(seed)
    write_clips(tmp_path / "m.mp4", [torch.from_numpy(clip)], fps=12.5)
    found = read_clips(tmp_path / "m.mp4")
    assert (found.lengths, found.fps) == ([12], 12.5)
    assert np.abs(found.frames.astype(int) - clip).mean() < 6  # at most 4.2 in 60 seeds; frames in reverse: 86
    assert np.abs(found.frames.astype(int) - clip[::-1]).mean() > 20
    write_clips(tmp_path / "odd.mp4", [clip[:, :, :-1, :-1]])
    found = read_clips(tmp_path / "odd.mp4").frames
    assert found.shape == clip.shape
    assert np.abs(found[:, :, :-1, :-1].astype(int) - clip[:, :, :-1, :-1]).mean() < 6


def test_several_clips_become_several_files(tmp_path, seed) -> None:
    clips = torch.from_numpy(np.stack([noise(seed + k, colours=4) for k in range(11)])).float() / 255
    for suffix in (".gif", ".png"):
        files = write_clips(tmp_path / f"a{suffix}", clips)
        assert [f.name for f in files] == [f"a-{k:02}{suffix}" for k in range(11)]
    found = read_clips(tmp_path, layout="files")
    assert np.array_equal(found.frames.reshape(clips.shape), (clips * 255).round().byte().numpy())
    for path, given, word in (
        ("a.webp", clips, r"\.npz, \.png, \.gif or \.mp4"),
        ("a.gif", clips[:0], "no frames"),
        ("a.gif", clips[:, :0], "no frames"),
        ("a.gif", clips[:, :, :2], "channels"),
    ):
        with pytest.raises(UsageError, match=word):
            write_clips(tmp_path / path, given)
    with pytest.raises(UsageError, match="1000"):
        write_clips(tmp_path / "a.gif", clips, fps=5000)


# Folders


@pytest.mark.parametrize(("orientation", "turn"), [(1, 0), (3, 2), (6, 3), (8, 1)])
def test_one_picture_is_upright(tmp_path, seed, orientation, turn) -> None:
    """EXIF's orientations that turn: by how many quarters to the left the picture is to be seen."""
    pixels = np.random.default_rng(seed).integers(0, 256, (9, 14, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(tmp_path / "p.png", exif=exif)
    array, mode = read_picture(tmp_path / "p.png", Fit())
    assert np.array_equal(array, np.rot90(pixels, turn).transpose(2, 0, 1))
    assert mode == "RGB"
    Image.fromarray(pixels[..., 0]).save(tmp_path / "grey.png")
    assert read_picture(tmp_path / "grey.png", Fit(8))[0].shape == (3, 8, 8)
    assert read_picture(tmp_path / "grey.png", Fit(None, 1))[1] == "L"
    (tmp_path / "p.png").write_bytes(b"no picture")
    with pytest.raises(DistkError, match="cannot be read as an image"):
        read_picture(tmp_path / "p.png", Fit())


def test_folders_of_frames_in_natural_order_with_classes(tmp_path, seed) -> None:
    clip = noise(seed, 11)
    for name, length in (("run/b", 11), ("run/a10", 2), ("run/a9", 3), ("walk/a", 1)):
        (tmp_path / name).mkdir(parents=True)
        for k in range(length):
            Image.fromarray(clip[k].transpose(1, 2, 0)).save(tmp_path / name / f"f{k}.png")
        (tmp_path / name / ".hidden.png").write_bytes(b"no picture")
        (tmp_path / name / "notes.txt").write_text("none either")
    found = read_clips(tmp_path)
    assert found.names == ["run/a9", "run/a10", "run/b", "walk/a"]
    assert found.lengths == [3, 2, 11, 1]
    assert np.array_equal(found[2], clip)
    assert (found.labels, found.classes) == ([0, 0, 0, 1], ("run", "walk"))
    data = open_dataset("clips", {"frames": 2}, folder=tmp_path)
    assert data.spec.shape == (2, 3, 12, 16)
    one = read_clips(tmp_path / "run" / "b")
    assert (one.names, one.lengths, one.labels) == (["b"], [11], [])
    Image.new("RGB", (5, 5)).save(tmp_path / "run" / "b" / "f3.png")
    with pytest.raises(DistkError, match=r"f3\.png' has 5x5 pixels, the first frame of its clip 16x12"):
        read_clips(tmp_path, Fit(8))


def test_crop_and_average(tmp_path) -> None:
    frame = np.zeros((4, 8, 3), np.uint8)
    frame[:, 2:6] = np.arange(16).reshape(4, 4)[..., None] * 10  # the centred square
    frame[:, [0, 1, 6, 7]] = 255
    for k in range(2):
        Image.fromarray(frame).save(tmp_path / f"{k}.png")
    found = read_clips(tmp_path, Fit(2, 1), "frames").frames
    assert found.shape == (2, 1, 2, 2)
    expected = frame[:, 2:6, 0].reshape(2, 2, 2, 2).mean((1, 3))
    assert np.array_equal(found[0, 0], expected)
    assert np.array_equal(Fit(2, 1).frames(frame[None], "x")[0], found[0])
    assert read_clips(tmp_path, Fit(8, 1), "frames").frames[0, 0, :2, :2].tolist() == [[0, 0], [0, 0]]


def test_classes_are_the_outermost_or_the_innermost_folder(tmp_path, seed) -> None:
    clip = noise(seed, 2)
    for name in ("anna/joy/1", "anna/fear/1", "ben/joy/2"):  # SUBJECT/EXPRESSION/TAKE
        (tmp_path / name).mkdir(parents=True)
        for k in range(2):
            Image.fromarray(clip[k].transpose(1, 2, 0)).save(tmp_path / name / f"f{k}.png")
    found = read_clips(tmp_path, labels="parent")
    assert (found.names, found.classes) == (["anna/fear/1", "anna/joy/1", "ben/joy/2"], ("fear", "joy"))
    assert found.labels == [0, 1, 1]
    assert read_clips(tmp_path, labels="folder").labels == [0, 0, 1]
    with pytest.raises(UsageError, match="lies in no folder of its class"):
        read_clips(tmp_path / "anna" / "joy", labels="parent")


@pytest.mark.parametrize(("labels", "classes"), [("before", ("ira_b", "lyova")), ("after", ("b_jump", "walk"))])
def test_classes_from_names(tmp_path, seed, labels, classes) -> None:
    for name in ("lyova_walk1", "ira_b_jump2"):
        write_clips(tmp_path / f"{name}.gif", [noise(seed, colours=4)])
    assert read_clips(tmp_path, labels=labels).classes == classes
    write_clips(tmp_path / "nothing.gif", [noise(seed, colours=4)])
    with pytest.raises(UsageError, match=f"--labels {labels}: clip 'nothing'"):
        read_clips(tmp_path, labels=labels)
    assert read_clips(tmp_path).classes == ()


# What is refused


def test_what_is_no_clip(tmp_path, seed) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "one.png")
    with pytest.raises(DistkError, match=r"one\.png' has 8x8 pixels, which is a single picture"):
        read_clips(tmp_path, layout="strips")
    with pytest.raises(UsageError, match="holds no clips"):
        read_clips(tmp_path, layout="files")
    write_clips(tmp_path / "two.gif", [noise(seed, 1)])
    with pytest.raises(UsageError, match=r"several forms.*--layout files\|frames"):
        read_clips(tmp_path)
    with pytest.raises(UsageError, match=r"1 of 1 clip .*'two.gif' has 1"):
        open_dataset("clips", {"frames": 2}, folder=tmp_path / "two.gif")
    with pytest.raises(UsageError, match="--data-dir"):
        open_dataset("clips")
    with pytest.raises(UsageError, match="does not exist"):
        read_clips(tmp_path / "nowhere")
    Image.fromarray(np.full((8, 16), 3.0, np.float32)).save(tmp_path / "far.tiff")
    with pytest.raises(DistkError, match=r"far\.tiff' holds floats from 3 to 3, whose range nobody states"):
        read_clips(tmp_path / "far.tiff")
    np.savez(tmp_path / "deep.npz", clips=np.zeros((2, 3, 8, 8, 1), np.float32))
    with pytest.raises(DistkError, match=r"holds no clips.*float32.*--data arrays"):
        read_clips(tmp_path / "deep.npz")


def deep_frames(form: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A strip of three frames 8x8 in 16 bits or as floats, and the frames `[3, 8, 8]` in 8 bits."""
    draw = np.random.default_rng(seed)
    if form == "float.tiff":
        strip = draw.random((8, 24), dtype=np.float32)
        plain = np.rint(strip * 255)
    else:
        strip = draw.integers(0, 65536, (8, 24), dtype=np.uint16)
        plain = np.rint(strip / 257)
    return strip, plain.reshape(8, 3, 8).transpose(1, 0, 2).astype(np.uint8)


@pytest.mark.parametrize("form", ["16.png", "16.tiff", "16.pgm", "float.tiff"])
def test_frames_of_more_than_8_bits_are_scaled_by_their_range(
    tmp_path: Path, seed: int, form: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a strip, of a folder of frames and of a single picture, in grey; Pillow would cut at 255."""
    from distk import console

    monkeypatch.setattr(console, "_warned", set())
    strip, plain = deep_frames(form, seed)
    Image.fromarray(strip).save(tmp_path / f"strip.{form}")
    (tmp_path / "frames" / "one").mkdir(parents=True)
    for t in range(3):
        Image.fromarray(strip[:, 8 * t : 8 * t + 8]).save(tmp_path / "frames" / "one" / f"{t}.{form}")
    for found in (read_clips(tmp_path / f"strip.{form}"), read_clips(tmp_path / "frames", layout="frames")):
        assert found.lengths == [3]
        assert np.array_equal(found.frames, np.repeat(plain[:, None], 3, 1))
    assert capsys.readouterr().err.count("more than 8 bits a channel are scaled") == 1


def test_colours_of_16_bits_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    """A PNG whose colours have 16 bits, which Pillow reads in 8 without a word."""
    from distk import console

    monkeypatch.setattr(console, "_warned", set())
    rows = b"".join(b"\0" + bytes(range(96)) for _ in range(8))  # 16 pixels of 6 bytes in each row

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", 16, 8, 16, 2, 0, 0, 0)
    parts = (chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b""))
    (tmp_path / "deep.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    found = read_clips(tmp_path / "deep.png")
    assert found.frames[0, :, 0, 0].tolist() == [0, 2, 4]
    assert "more than 8 bits a channel are scaled" in capsys.readouterr().err


def test_clips_of_several_sizes_ask_for_one(tmp_path, seed) -> None:
    write_clips(tmp_path / "a.gif", [noise(seed)])
    write_clips(tmp_path / "b.gif", [noise(seed, side=20)])
    with pytest.raises(UsageError, match=r"'b.gif' has frames of 24x20 pixels, 'a.gif' of 16x12.*--size"):
        read_clips(tmp_path)
    assert read_clips(tmp_path, Fit(8)).frames.shape == (10, 3, 8, 8)


def test_a_remainder_of_a_strip_is_told(tmp_path, capsys) -> None:
    Image.new("RGB", (27, 8)).save(tmp_path / "s.png")
    assert read_clips(tmp_path / "s.png").lengths == [3]
    assert "the last 3 of 27 pixels" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("members", "word"),
    [
        ({"frames": np.zeros((4, 6, 6, 3), np.uint8)}, "neither 'lengths'"),
        ({"frames": np.zeros((4, 6, 6, 3), np.uint8), "lengths": np.array([2, 3])}, "do not cut the 4 frames"),
        ({"frames": np.zeros((4, 6, 6, 3), np.uint8), "lengths": np.array([4, 0])}, "do not cut the 4 frames"),
        ({"frames": np.zeros((4, 6, 6, 3), np.uint8), "offsets": np.array([1, 4])}, "do not cut the 4 frames"),
        ({"frames": np.zeros((4, 6, 6, 3), np.uint8), "lengths": np.array([4.0])}, "whole numbers"),
        ({"frames": np.zeros((0, 6, 6, 3), np.uint8), "lengths": np.array([0])}, "do not cut the 0 frames"),
        ({"x": np.zeros((4, 6, 6, 5), np.uint8)}, "expected frames"),
        ({"x": np.zeros((4, 6, 6, 3), np.float32)}, "holds no clips"),
        ({"x": np.array([{"a": 1}], dtype=object)}, "cannot be in this file or is not read"),
    ],
)
def test_an_npz_that_holds_something_else(tmp_path, members, word) -> None:
    np.savez(tmp_path / "c.npz", **members)
    with pytest.raises(DistkError, match=word):
        read_clips(tmp_path / "c.npz")


def test_a_header_that_promises_more_than_the_file_holds(tmp_path) -> None:
    buffer = io.BytesIO()
    header = "{'descr': '|u1', 'fortran_order': False, 'shape': (1000000, 64, 64, 3), }".ljust(117) + "\n"
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode())
    (tmp_path / "c.npz").write_bytes(buffer.getvalue())
    with pytest.raises(DistkError, match="cannot be in this file"):
        read_clips(tmp_path / "c.npz")


def test_a_gif_that_unpacks_without_end_is_refused(tmp_path, monkeypatch) -> None:
    import distk.video.clips as module

    (tmp_path / "g.gif").write_bytes(gif(np.zeros((40, 200, 200, 3), np.uint8), 10))
    assert read_clips(tmp_path / "g.gif").lengths == [40]
    monkeypatch.setattr(module, "FLOOR", 0)
    monkeypatch.setattr(module, "RATIO", 50)
    with pytest.raises(DistkError, match="unpacks to more than 50 values a byte"):
        list(decode.gif(b"", str(tmp_path / "g.gif"), asdict(Fit())))


def test_a_gif_that_claims_a_large_canvas_is_refused_before_it_takes_the_memory(tmp_path) -> None:
    """Six frames of 16x12 pixels on a canvas of 61 million took 1.3 GB; so would a later frame that lies far out."""
    content = bytearray(gif(np.zeros((6, 12, 16, 3), np.uint8), 10))
    content[6:10] = (1817).to_bytes(2, "little") + (33747).to_bytes(2, "little")
    (tmp_path / "wide.gif").write_bytes(content)
    content[6:10] = (16).to_bytes(2, "little") + (12).to_bytes(2, "little")
    second = content.index(b"\x2c", content.index(b"\x2c") + 1)  # the descriptor of the second frame
    content[second + 1 : second + 5] = (8000).to_bytes(2, "little") * 2
    (tmp_path / "far.gif").write_bytes(content)
    for name in ("wide", "far"):
        with pytest.raises(
            DistkError, match=rf"{name}\.gif' claims to be an enormous image.* at most 8,388,608 pixels"
        ):
            list(decode.gif(b"", str(tmp_path / f"{name}.gif"), asdict(Fit())))


def test_a_gif_whose_canvas_grows_is_refused(tmp_path) -> None:
    content = bytearray(gif(np.zeros((3, 8, 8, 3), np.uint8), 10))
    second = content.index(b"\x2c", content.index(b"\x2c") + 1)  # the descriptor of the second frame
    content[second + 5 : second + 7] = (20).to_bytes(2, "little")
    (tmp_path / "g.gif").write_bytes(content)
    with pytest.raises(DistkError, match=r"g\.gif' (has a frame that is larger|cannot be read)"):
        read_clips(tmp_path / "g.gif")


def test_a_video_that_is_cut_short(tmp_path, seed) -> None:
    package = pytest.importorskip("av", reason="PyAV is not installed: pip install 'distk[video]'")
    clip = smooth(seed)
    write_clips(tmp_path / "m.mp4", [clip])
    content = (tmp_path / "m.mp4").read_bytes()
    (tmp_path / "m.mp4").write_bytes(content[: len(content) // 2])
    with pytest.raises(DistkError, match=r"m\.mp4' is cut short"):
        read_clips(tmp_path / "m.mp4")
    (tmp_path / "m.mp4").write_bytes(b"no video at all")
    with pytest.raises(DistkError, match=r"m\.mp4' cannot be read as a video"):
        read_clips(tmp_path / "m.mp4")
    with package.open(str(tmp_path / "a.avi"), "w") as container:
        stream = container.add_stream("mpeg4", rate=5)
        stream.width = stream.height = 48
        for frame in clip.transpose(0, 2, 3, 1):
            container.mux(stream.encode(package.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode())
    found = read_clips(tmp_path / "a.avi")
    assert (found.lengths, found.fps) == ([12], 5.0)
    content = (tmp_path / "a.avi").read_bytes()
    (tmp_path / "a.avi").write_bytes(content[: len(content) // 2])
    with pytest.raises(DistkError, match=r"a\.avi' is cut short"):
        read_clips(tmp_path / "a.avi")
    # An unknown codec, by the name that the container gives it.
    (tmp_path / "a.avi").write_bytes(content.replace(b"FMP4", b"ZZZZ"))
    with pytest.raises(DistkError, match="codec"):
        read_clips(tmp_path / "a.avi")


@pytest.mark.parametrize("suffix", ["mkv", "webm", "mp4", "avi"])
@pytest.mark.parametrize("share", [0.95, 0.4])
def test_every_container_says_that_it_is_cut_short(tmp_path, seed, suffix, share) -> None:
    package = pytest.importorskip("av", reason="PyAV is not installed: pip install 'distk[video]'")
    path = tmp_path / f"m.{suffix}"
    with package.open(str(path), "w") as container:
        stream = container.add_stream("libvpx-vp9" if suffix == "webm" else "mpeg4", rate=5)
        stream.width = stream.height = 48
        for frame in smooth(seed).transpose(0, 2, 3, 1):
            container.mux(stream.encode(package.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode())
    content = path.read_bytes()
    assert read_clips(path).lengths == [12]
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(DistkError, match=rf"m\.{suffix}' is cut short"):
        read_clips(path)


def test_without_pyav_it_is_said_what_to_install(tmp_path, monkeypatch, seed) -> None:
    (tmp_path / "m.mp4").write_bytes(b"x")
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(UsageError, match=r"pip install 'distk\[video\]'"):
        read_clips(tmp_path)
    with pytest.raises(UsageError, match=r"pip install 'distk\[video\]'.*\.gif"):
        write_clips(tmp_path / "n.mp4", [noise(seed)])


def test_without_the_encoder_another_form_is_offered(tmp_path, monkeypatch, seed) -> None:
    package = pytest.importorskip("av", reason="PyAV is not installed: pip install 'distk[video]'")

    def refuse(*arguments: object, **options: object) -> None:
        raise package.codec.codec.UnknownCodecError("libx264")

    monkeypatch.setattr(package.container.OutputContainer, "add_stream", refuse, raising=False)
    with pytest.raises(UsageError, match=r"no H\.264 encoder: write a \.gif"):
        write_clips(tmp_path / "n.mp4", [noise(seed)])


# Real files


def test_real_clips_of_unequal_length(real) -> None:
    path = real("weizmann_sample/actions.npz")
    found = read_clips(path)
    raw = np.load(path)
    assert sorted(found.lengths) == sorted(len(raw[name]) for name in raw.files)
    assert found.classes == ("action0", "action1", "action3", "action4")
    assert found.labels == [0, 0, 1, 1, 2, 2, 3, 3]
    for name, clip in zip(found.names, range(8), strict=True):
        assert np.array_equal(found[clip], raw[name].transpose(0, 3, 1, 2))


def test_real_strips_are_the_frames_of_the_real_arrays(real, tmp_path) -> None:
    import tarfile

    with tarfile.open(real("mocogan_shapes/original_strips_sample.tar")) as archive:
        archive.extractall(tmp_path, filter="data")
    strips = read_clips(tmp_path / "data" / "shapes")
    assert (len(strips), set(strips.lengths), strips.classes) == (40, {32}, ("0", "1"))
    arrays = read_clips(real("mocogan_shapes/shapes.npz"))
    assert (len(arrays), arrays.classes) == (600, ("0", "1"))
    known = {arrays[i].tobytes(): arrays.labels[i] for i in range(600)}
    assert [known.get(strips[i].tobytes()) for i in range(40)] == strips.labels


def test_real_characters_as_strips(real, tmp_path) -> None:
    videos = np.load(real("lpc_sprites/composed_check_2characters.npz"))["videos"][0]
    write_clips(tmp_path / "lpc.png", torch.from_numpy(videos).permute(0, 1, 4, 2, 3))
    found = read_clips(tmp_path)
    assert found.lengths == [8] * 9
    assert np.array_equal(found.frames.reshape(9, 8, 3, 64, 64), videos.transpose(0, 1, 4, 2, 3))
