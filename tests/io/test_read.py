from __future__ import annotations

import gzip
import json
import os
import pickle
import struct
import wave
import zlib
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image, features

from rdtf.io.job import LIMITS, Job
from rdtf.io.read import SUFFIXES, read_sticker
from rdtf.io.write import save_sticker
from rdtf.sticker import Sticker, StickerError

REAL = Path(os.environ.get("RDTF_STICKERS", Path(__file__).parents[3] / "shared" / "stickers"))


def moving_square(n: int = 6, side: int = 32) -> np.ndarray:
    """An opaque square that moves right, over a half-transparent bar."""
    frames = np.zeros((n, side, side, 4), np.uint8)
    frames[:, 20:26, 4:28] = 20, 60, 200, 120
    for index in range(n):
        frames[index, 4:16, 2 * index : 2 * index + 10] = 220, 40, 90, 255
    return frames


def lottie(**changes: Any) -> dict[str, Any]:
    """A red square with 50 % opacity at the left, a grey one with 98 % at the right that moves down."""

    def still(value: Any) -> dict[str, Any]:
        return {"a": 0, "k": value}

    def layer(index: int, colour: list[float], opacity: float, position: dict[str, Any]) -> dict[str, Any]:
        shapes = [
            {"ty": "rc", "p": still([0, 0]), "s": still([20, 20]), "r": still(0)},
            {"ty": "fl", "c": still(colour), "o": still(opacity)},
            {
                "ty": "tr",
                "p": still([0, 0]),
                "a": still([0, 0]),
                "s": still([100, 100]),
                "r": still(0),
                "o": still(100),
            },
        ]
        place = {"p": position, "a": still([0, 0]), "s": still([100, 100]), "r": still(0), "o": still(100)}
        group = {"ty": "gr", "it": shapes}
        return {"ty": 4, "ind": index, "ip": 0, "op": 100, "st": 0, "ks": place, "shapes": [group]}

    moving = {
        "a": 1,
        "k": [
            {"t": 0, "s": [48, 12], "i": {"x": [1], "y": [1]}, "o": {"x": [0], "y": [0]}},
            {"t": 20, "s": [48, 52]},
        ],
    }
    grey = 200 / 255
    layers = [layer(1, [1, 0, 0, 1], 50, still([16, 32])), layer(2, [grey, grey, grey, 1], 98, moving)]
    return {"v": "5.5.0", "w": 64, "h": 64, "fr": 20, "ip": 0, "op": 20, "layers": layers} | changes


def write_lottie(path: Path, **changes: Any) -> Path:
    path.write_text(json.dumps(lottie(**changes)))
    return path


def write_video(
    path: Path,
    frames: np.ndarray,
    *,
    codec: str = "libvpx-vp9",
    pix_fmt: str = "yuva420p",
    pts: list[int] | None = None,
    **options: str,
) -> Path:
    """A video whose clock ticks in milliseconds; frames every 50 ms unless ``pts`` says otherwise."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=20, options={"crf": "10", "b": "0", **options})
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], pix_fmt
        stream.codec_context.time_base = Fraction(1, 1000)
        for index, array in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(array, format="rgba").reformat(format=pix_fmt)
            frame.pts, frame.time_base = (pts or range(0, 10**6, 50))[index], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def reason(path: Path, **options: Any) -> str:
    with pytest.raises(StickerError) as caught:
        read_sticker(path, **options)
    assert str(path) in str(caught.value)
    return caught.value.reason


# Pictures


def test_a_gif_delay_of_10_ms_or_less_becomes_100_ms_as_in_browsers(tmp_path: Path) -> None:
    images = [Image.fromarray(frame) for frame in moving_square(4)]
    path = tmp_path / "a.gif"
    images[0].save(path, save_all=True, append_images=images[1:], duration=[0, 10, 20, 30], disposal=2)
    assert read_sticker(path).durations.tolist() == [100, 100, 20, 30]


@pytest.mark.parametrize("ending", ["webp", "apng"])
def test_webp_and_apng_give_back_pixels_and_times(tmp_path: Path, ending: str) -> None:
    sticker = Sticker(moving_square(), np.array([33, 47, 125, 16, 100, 2.0]))
    save_sticker(sticker, tmp_path / f"a.{ending}")
    back = read_sticker(tmp_path / f"a.{ending}")
    assert back.durations.tolist() == sticker.durations.tolist()
    assert np.array_equal(back.frames, sticker.frames)


def test_a_webp_by_pillow_has_its_durations(tmp_path: Path) -> None:
    images = [Image.fromarray(frame) for frame in moving_square(3)]
    path = tmp_path / "a.webp"
    images[0].save(path, save_all=True, append_images=images[1:], duration=[30, 60, 90], lossless=True)
    assert read_sticker(path).durations.tolist() == [30, 60, 90]


def test_the_default_image_of_an_apng_is_no_frame(tmp_path: Path) -> None:
    images = [Image.fromarray(frame) for frame in moving_square(4)]
    path = tmp_path / "a.png"
    images[0].save(path, save_all=True, append_images=images[1:], duration=[50, 60, 70], default_image=True)
    sticker = read_sticker(path)
    assert sticker.durations.tolist() == [50, 60, 70]
    assert np.array_equal(sticker.frames, moving_square(4)[1:])


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow was built without AVIF")
def test_avif(tmp_path: Path) -> None:
    images = [Image.fromarray(frame) for frame in moving_square(3)]
    path = tmp_path / "a.avif"
    images[0].save(path, save_all=True, append_images=images[1:], duration=[50, 100, 150], quality=95)
    sticker = read_sticker(path)
    assert sticker.durations.tolist() == [50, 100, 150]
    assert np.abs(sticker.frames[..., 3].astype(int) - moving_square(3)[..., 3]).mean() < 3
    assert ".avif" in SUFFIXES


@pytest.mark.parametrize("ending", ["jpg", "png", "webp"])
def test_exif_orientation_is_applied(tmp_path: Path, ending: str) -> None:
    picture = np.zeros((16, 32, 3), np.uint8)
    picture[:, :16] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    Image.fromarray(picture).save(tmp_path / f"a.{ending}", exif=exif)
    sticker = read_sticker(tmp_path / f"a.{ending}")
    assert sticker.size == (32, 16)
    assert sticker.frames[0, :14, :, 0].min() > 240
    assert sticker.frames[0, 18:, :, 0].max() < 15


def test_the_bytes_decide_and_not_the_name(tmp_path: Path) -> None:
    save_sticker(Sticker.at_fps(moving_square(3)), tmp_path / "a.webp")
    (tmp_path / "a.webp").rename(tmp_path / "a.gif")
    assert len(read_sticker(tmp_path / "a.gif")) == 3


def test_colour_under_alpha_0_comes_back_as_0(tmp_path: Path) -> None:
    pixels = np.full((4, 4, 4), 90, np.uint8)
    pixels[:2, :, 3] = 0
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert not read_sticker(tmp_path / "a.png").frames[0, :2].any()


# Sizes and numbers of frames


def test_size_fits_the_picture_into_a_square(tmp_path: Path) -> None:
    save_sticker(Sticker.at_fps(np.full((2, 20, 40, 4), 255, np.uint8)), tmp_path / "a.webp")
    sticker = read_sticker(tmp_path / "a.webp", size=16)
    assert sticker.frames.shape == (2, 16, 16, 4)
    assert sticker.frames[:, 4:12, :, 3].min() == 255
    assert sticker.frames[:, :4].max() == 0


def test_max_frames_samples_an_even_grid_and_keeps_the_total(tmp_path: Path) -> None:
    durations = np.array([10, 10, 10, 10, 200, 40, 40, 40, 20, 20.0])
    save_sticker(Sticker(moving_square(10), durations), tmp_path / "a.webp")
    sticker = read_sticker(tmp_path / "a.webp", max_frames=4)  # at 0, 100, 200 and 300 ms
    assert np.array_equal(sticker.frames, moving_square(10)[[0, 4, 6]])
    assert sticker.durations.tolist() == [40, 240, 120]


def test_video_and_lottie_keep_their_total_too(tmp_path: Path) -> None:
    write_video(tmp_path / "a.webm", moving_square(10), **{"auto-alt-ref": "0"})
    write_lottie(tmp_path / "a.json")
    for path in tmp_path.iterdir():
        whole, part = read_sticker(path), read_sticker(path, max_frames=5)
        assert len(part) == 5
        assert part.durations.sum() == pytest.approx(whole.durations.sum())
        assert np.array_equal(part.frames, whole.frames[:: len(whole) // 5])


@pytest.mark.parametrize("option", ["size", "max_frames"])
def test_options_below_1_are_refused(tmp_path: Path, option: str) -> None:
    (tmp_path / "a.gif").touch()
    with pytest.raises(ValueError, match=option):
        read_sticker(tmp_path / "a.gif", **{option: 0})  # type: ignore[arg-type]


# Lottie and TGS


def test_lottie_is_straight_alpha_solid_inside_and_has_no_doubled_last_frame(tmp_path: Path) -> None:
    sticker = read_sticker(write_lottie(tmp_path / "a.json"))
    assert sticker.frames.shape == (20, 64, 64, 4)
    assert sticker.durations.tolist() == [50] * 20
    red, grey = sticker.frames[0, 32, 16].astype(int), sticker.frames[0, 12, 48]
    assert np.abs(red - [255, 0, 0, 127]).max() <= 1  # premultiplied it would be 127, 0, 0, 127
    assert grey.tolist() == [200, 200, 200, 255]  # drawn with alpha 250
    assert not np.array_equal(sticker.frames[-1], sticker.frames[-2])
    top = [int(np.flatnonzero(frame[:, 48, 3])[0]) for frame in sticker.frames]
    assert top == [2 + 2 * index for index in range(20)]


def test_lottie_begins_at_its_first_frame(tmp_path: Path) -> None:
    late = read_sticker(write_lottie(tmp_path / "a.json", ip=10))
    whole = read_sticker(write_lottie(tmp_path / "b.json"))
    assert len(late) == 10
    assert np.array_equal(late.frames, whole.frames[10:])


def test_lottie_is_drawn_at_the_wanted_size(tmp_path: Path) -> None:
    path = write_lottie(tmp_path / "a.json", w=64, h=48)
    assert read_sticker(path).size == (48, 64)
    assert read_sticker(path, size=96).size == (96, 96)
    big = write_lottie(tmp_path / "b.json", w=2048, h=1024)
    assert read_sticker(big, max_frames=1).size == (256, 512)


def test_tgs_is_gzipped_lottie(tmp_path: Path) -> None:
    plain = write_lottie(tmp_path / "a.json")
    packed = tmp_path / "a.tgs"
    data = plain.read_bytes()
    packed.write_bytes(gzip.compress(data[:100]) + gzip.compress(data[100:]))
    assert np.array_equal(read_sticker(packed).frames, read_sticker(plain).frames)
    packed.write_bytes(gzip.compress(data)[:-20])
    assert "cut short" in reason(packed)


def test_a_gzip_bomb_is_not_inflated(tmp_path: Path) -> None:
    path = tmp_path / "a.tgs"
    path.write_bytes(gzip.compress(b" " * 2**20) * 20)
    assert "unpacks to more than 16 MiB" in reason(path)


def deep() -> str:
    group: dict[str, Any] = {"ty": "gr", "it": []}
    for _ in range(80):
        group = {"ty": "gr", "it": [group]}
    return json.dumps(lottie(layers=[{"ty": 4, "shapes": [group]}]))


def bomb() -> str:
    assets = [{"id": str(i), "layers": [{"ty": 0, "refId": str(i + 1)}] * 10} for i in range(6)]
    return json.dumps(lottie(assets=assets, layers=[{"ty": 0, "refId": "0"}]))


LOOP = {"id": "x", "layers": [{"ty": 0, "refId": "x"}]}
ODD_LOTTIES: list[tuple[str, str]] = [
    ("{}", "no Lottie animation"),
    ('{"file_name": "a.gif", "text": "a cat"}', "no Lottie animation"),
    ('{"w": ', "no valid JSON"),
    (deep(), "nested more than 64 deep"),
    (bomb(), "unfolds to more than 100000 layers"),
    (json.dumps(lottie(w=0)), "canvas"),
    (json.dumps(lottie(fr=0)), "frames a second"),
    (json.dumps(lottie(fr=1000)), "frames a second"),
    (json.dumps(lottie(op=0)), "last frame"),
    (json.dumps(lottie(op=float("nan"))), "no Lottie animation"),
    (json.dumps(lottie(op=5000)), "too long"),
    (json.dumps(lottie(assets=[LOOP])), "contains itself"),
    (json.dumps(lottie(layers=[{"ind": 1, "parent": 2}, {"ind": 2, "parent": 1}])), "parent of itself"),
    (
        json.dumps(
            {
                **lottie(assets=[{"id": "i", "w": 8, "h": 8, "u": "/etc/", "p": "passwd"}]),
                "layers": [{"ty": 2, "ip": 0, "op": 20, "st": 0, "refId": "i", "ks": {}}],
            }
        ),
        "outside the file",
    ),
    (json.dumps(lottie(layers=[{}] * 6000)), "more than 5000 layers"),
    (json.dumps(lottie(layers=[])), "draws nothing"),
    (json.dumps(lottie(layers=[7])), "cannot be decoded"),
]


@pytest.mark.parametrize(("text", "why"), ODD_LOTTIES, ids=[why for _, why in ODD_LOTTIES])
def test_odd_lotties_are_refused_before_they_are_drawn(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    assert why in reason(path)


# Video


def test_uneven_video_times_are_kept(tmp_path: Path) -> None:
    pts = [100, 140, 240, 250]
    sticker = read_sticker(write_video(tmp_path / "a.webm", moving_square(4), pts=pts, **{"auto-alt-ref": "0"}))
    assert sticker.durations[:3].tolist() == [40, 100, 10]
    assert sticker.durations[3] > 0


def test_a_playlist_named_mp4_opens_no_other_file(tmp_path: Path) -> None:
    write_video(tmp_path / "private.mp4", moving_square(), codec="mpeg4", pix_fmt="yuv420p")
    (tmp_path / "a.mp4").write_text("ffconcat version 1.0\nfile private.mp4\n")
    assert "first bytes" in reason(tmp_path / "a.mp4")
    # With a forged beginning it is still read as what it says that it is.
    (tmp_path / "b.mp4").write_bytes(b"\0\0\0\0ftyp\nffconcat version 1.0\nfile private.mp4\n")
    assert "cannot be decoded" in reason(tmp_path / "b.mp4")


def test_sound_alone_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        stream.layout = "mono"
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        sound.rate, sound.pts = 44100, 0
        container.mux(stream.encode(sound))
        container.mux(stream.encode(None))
    assert reason(path) == "has no picture, only sound"
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(bytes(100))
    assert "first bytes" in reason(tmp_path / "a.wav")


# Damaged, odd and oversized files


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("a.gif", b"", "is empty"),
        ("a.webp", b"<!DOCTYPE html><html></html>", "is a web page"),
        ("a.txt", b"a cat that waves", ".webp"),
        ("a.json", b"[1, 2]", "first bytes"),
        ("a.png", b"\x89PNG\r\n\x1a\n" + bytes(50), "cut short"),
        ("a.gif", b"GIF89a" + bytes(20) + b";", "has no picture in it"),
        ("a.webm", b"\x1a\x45\xdf\xa3" + bytes(40), "damaged or cut short"),
    ],
)
def test_odd_files_are_refused(tmp_path: Path, name: str, content: bytes, why: str) -> None:
    (tmp_path / name).write_bytes(content)
    assert why in reason(tmp_path / name)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    assert "No such file" in reason(tmp_path / "missing.gif")
    assert reason(tmp_path) == "is not a file"


@pytest.mark.parametrize("ending", ["gif", "webp", "png", "jpg", "json", "tgs", "webm", "mp4"])
@pytest.mark.parametrize("part", [0.35, 0.7, 0.97])
def test_truncated_files_are_refused(tmp_path: Path, ending: str, part: float) -> None:
    rng = np.random.default_rng(0)
    frames = moving_square(10)
    frames[..., :3] = rng.integers(0, 256, frames[..., :3].shape)
    path = tmp_path / f"a.{ending}"
    if ending == "json":
        write_lottie(path)
    elif ending == "tgs":
        path.write_bytes(gzip.compress(json.dumps(lottie()).encode()))
    elif ending == "jpg":
        Image.fromarray(frames[0, ..., :3]).save(path)
    elif ending == "webm":
        write_video(path, frames, **{"auto-alt-ref": "0"})
    elif ending == "mp4":
        write_video(path, frames, codec="mpeg4", pix_fmt="yuv420p", movflags="faststart")
    else:
        save_sticker(Sticker.at_fps(frames), path)
    read_sticker(path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * part)])
    reason(path)


def test_an_apng_that_promises_other_frames_is_damaged_and_one_of_none_is_a_still(tmp_path: Path) -> None:
    save_sticker(Sticker.at_fps(moving_square()), tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    at = data.index(b"acTL") - 4
    for count in (9, 0):
        head = struct.pack(">I4sII", 8, b"acTL", count, 0)
        crc = struct.pack(">I", zlib.crc32(head[4:]))
        (tmp_path / f"{count}.png").write_bytes(data[:at] + head + crc + data[at + 20 :])
    assert "it says 9 frames and has 6" in reason(tmp_path / "9.png")
    assert len(read_sticker(tmp_path / "0.png")) == 1


def big_png(width: int, height: int) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    rows = zlib.compress((b"\0" + bytes((width + 7) // 8)) * 8)
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [5000, 13_000, 40_000])
def test_pixel_bombs_are_refused_from_their_header(tmp_path: Path, side: int) -> None:
    (tmp_path / "a.png").write_bytes(big_png(side, side))
    assert "large" in reason(tmp_path / "a.png") or "Bomb" in reason(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("limits", "why"),
    [
        ({"frames": 5}, "6 frames are too many"),
        ({"total_pixels": 6000}, "too much to decode"),
        ({"side": 31}, "too large"),
        ({"seconds": 0.29}, "too long"),
        ({"image_bytes": 50, "video_bytes": 50}, "too large"),
    ],
)
@pytest.mark.parametrize("ending", ["gif", "webp", "apng", "webm"])
def test_limits_hold_for_every_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str, limits: dict[str, Any], why: str
) -> None:
    path = tmp_path / f"a.{ending}"
    if ending == "webm":
        write_video(path, moving_square(), **{"auto-alt-ref": "0"})
    else:
        save_sticker(Sticker.at_fps(moving_square(), fps=20), path)
    monkeypatch.setattr(Job, "limits", replace(LIMITS, **limits))
    assert why in reason(path)
    assert why in reason(path, max_frames=2)


def test_it_can_be_sent_to_a_worker_process_and_its_error_back(tmp_path: Path) -> None:
    assert pickle.loads(pickle.dumps(read_sticker)) is read_sticker
    with pytest.raises(StickerError) as caught:
        read_sticker(tmp_path / "a.gif")
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_reading_prints_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    writers: dict[str, Callable[[Path], object]] = {
        "a.json": write_lottie,
        "a.webm": lambda path: write_video(path, moving_square(), **{"auto-alt-ref": "0"}),
        "a.gif": lambda path: save_sticker(Sticker.at_fps(moving_square()), path),
    }
    for name, writer in writers.items():
        writer(tmp_path / name)
    cut = tmp_path / "cut.webm"
    cut.write_bytes((tmp_path / "a.webm").read_bytes()[:-200])
    capfd.readouterr()
    for name in writers:
        read_sticker(tmp_path / name)
    reason(cut)
    assert capfd.readouterr() == ("", "")


# Real stickers


@pytest.mark.stickers
@pytest.mark.skipif(not REAL.is_dir(), reason=f"no real stickers in {REAL}; set RDTF_STICKERS to their folder")
@pytest.mark.parametrize("kind", ["animated/*.json", "gif/*.gif", "static/*.png"])
def test_real_stickers(kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    files = sorted(REAL.glob(kind))
    for path in files[:: max(1, len(files) // 4)]:
        sticker = read_sticker(path, size=64, max_frames=16)
        assert sticker.size == (64, 64)
        assert len(sticker) <= 16
        assert (len(sticker) > 1) == ("static" not in kind)
        assert 300 <= sticker.durations.sum() <= 10_000
        alpha = sticker.frames[..., 3]
        assert (alpha == 0).mean() > 0.02
        assert (alpha == 255).mean() > 0.02
        assert not sticker.frames[alpha == 0].any()
        edge = sticker.frames[(alpha > 20) & (alpha < 200)].astype(int)
        # Straight alpha: the colours of edges reach beyond their alpha, which premultiplied ones never do.
        assert (edge[:, :3].max(1) > edge[:, 3] + 2).mean() > 0.3
    assert capfd.readouterr().out == ""
