"""Readers against files written byte by byte here, and against compositors written from the specifications."""

from __future__ import annotations

import gzip
import io
import json
import struct
import zlib
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import GifImagePlugin, Image

from rdtf.io.read import read_sticker_bytes
from rdtf.sticker import Sticker, StickerError


def read(data: bytes, name: str = "a") -> Sticker:
    return read_sticker_bytes(data, Path(name))


# ------------------------------------------------------------------------------------------------ GIF and APNG


def boxes(rng: np.random.Generator, size: int, count: int, beyond: int = 0) -> list[tuple[int, int, int, int]]:
    """Random boxes (left, top, width, height) on a square canvas, some of them reaching ``beyond`` its edge."""
    found = []
    for _ in range(count):
        left, top = rng.integers(0, size - 1, 2).tolist()
        width, height = (int(rng.integers(1, size - at + 1 + beyond)) for at in (left, top))
        found.append((left, top, width, height))
    return found


def composed(canvas: int, layers: list[tuple[np.ndarray, tuple[int, int, int, int], int, bool]]) -> list[np.ndarray]:
    """The specification in floats, pixel by pixel. Layers are pixels, box, disposal (0 keep, 1 clear, 2 undo), over."""
    screen = np.zeros((canvas, canvas, 4), np.float64)  # straight alpha, 0..1
    shown = []
    for pixels, (left, top, width, height), disposal, over in layers:
        before = screen.copy()
        for y in range(top, min(top + height, canvas)):
            for x in range(left, min(left + width, canvas)):
                new, old = pixels[y - top, x - left] / 255, screen[y, x]
                if over:
                    alpha = new[3] + old[3] * (1 - new[3])
                    colour = (new[:3] * new[3] + old[:3] * old[3] * (1 - new[3])) / alpha if alpha else np.zeros(3)
                    new = np.array([*colour, alpha])
                screen[y, x] = new
        shown.append(screen.copy())
        if disposal == 1:
            screen[top : top + height, left : left + width] = 0
        elif disposal == 2:
            screen = before
    return shown


def equal_where_visible(frames: np.ndarray, expected: list[np.ndarray], tolerance: int) -> None:
    assert len(frames) == len(expected)
    for frame, wanted in zip(frames, expected, strict=True):
        wanted = np.rint(wanted * 255)
        assert np.abs(frame[..., 3] - wanted[..., 3]).max() <= tolerance
        seen = wanted[..., 3] > 20
        assert np.abs(frame[seen].astype(int) - wanted[seen]).max(initial=0) <= tolerance * 8


@pytest.mark.parametrize("seed", range(6))
def test_gif_frames_are_composed_as_the_specification_says(seed: int):
    rng, size = np.random.default_rng(seed), 12
    palette = rng.integers(0, 256, (8, 3), np.uint8)
    out = b"GIF89a" + struct.pack("<HHBBB", size, size, 0xF2, 3, 0) + palette.tobytes()  # background index 3
    layers = []
    for box in boxes(rng, size, 6, beyond=4):
        indices = rng.integers(0, 8, (box[3], box[2])).astype(np.uint8)
        disposal = int(rng.integers(0, 4))
        image = Image.fromarray(indices)
        image.putpalette(palette.tobytes())
        out += b"".join(
            GifImagePlugin.getdata(image, box[:2], duration=100, disposal=disposal, transparency=5, optimize=False)
        )
        pixels = np.dstack([palette[indices], np.where(indices == 5, 0, 255).astype(np.uint8)])
        layers.append((pixels, box, {2: 1, 3: 2}.get(disposal, 0), True))
    for ending in (b";", b"", b";a note", b";" + bytes(40), b"\r\n"):  # the trailer, or what people find instead
        sticker = read(out + ending, "a.gif")
        equal_where_visible(sticker.frames, composed(size, layers), 0)
        assert sticker.durations.tolist() == [100.0] * 6


def chunk(name: bytes, data: bytes, *, right: bool = True) -> bytes:
    check = zlib.crc32(name + data) ^ (0 if right else 1)
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", check)


SIGNATURE = b"\x89PNG\r\n\x1a\n"


def scanlines(pixels: np.ndarray) -> bytes:
    """RGBA rows without filter, deflated."""
    return zlib.compress(b"".join(b"\0" + row.tobytes() for row in pixels))


@pytest.mark.parametrize("seed", range(6))
def test_apng_frames_are_composed_as_the_specification_says(seed: int):
    rng, size, count = np.random.default_rng(seed), 10, 6
    out = SIGNATURE + chunk(b"IHDR", struct.pack(">IIBBBBB", size, size, 8, 6, 0, 0, 0))
    out += chunk(b"acTL", struct.pack(">II", count, 0))
    layers, sequence = [], 0
    for number, box in enumerate([(0, 0, size, size), *boxes(rng, size, count - 1)]):
        left, top, width, height = box
        pixels = rng.integers(0, 256, (height, width, 4), np.uint8)
        pixels[..., 3] = rng.choice([0, 60, 128, 255], (height, width))
        disposal, over = int(rng.integers(0, 3)), bool(rng.integers(0, 2))
        control = struct.pack(">IIIIIHHBB", sequence, width, height, left, top, 1, 10, disposal, over)
        out, sequence = out + chunk(b"fcTL", control), sequence + 1
        data = scanlines(pixels)
        if number:
            out, sequence = out + chunk(b"fdAT", struct.pack(">I", sequence) + data), sequence + 1
        else:
            out += chunk(b"IDAT", data)
        layers.append((pixels, box, disposal, over))
    expected = composed(size, layers)
    equal_where_visible(read(out + chunk(b"IEND", b"")).frames, expected, 1)
    # Chunks beside the picture may be damaged or large, and bytes may follow.
    side = chunk(b"pHYs", bytes(9), right=False) + chunk(b"tEXt", b"note\0" + bytes(2_000_000))
    equal_where_visible(read(out[:33] + side + out[33:] + chunk(b"IEND", b"") + b"more").frames, expected, 1)
    with pytest.raises(StickerError, match="cut short"):
        read(out)


# ---------------------------------------------------------------------------------------------------- still PNG


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize(
    ("depth", "colour", "key", "other"),
    [(1, 0, 1, 0), (2, 0, 2, 3), (4, 0, 9, 10), (8, 0, 77, 78), (16, 0, 0x1234, 0x1235),
     (8, 2, (1, 2, 3), (1, 2, 4)), (16, 2, (0x1201, 2, 3), (0x1202, 2, 3))],
)  # fmt: skip
def test_the_transparent_colour_of_a_png(depth: int, colour: int, key, other, interlaced: bool):
    """Left half in the transparent colour, right half in one that differs in its last bit."""
    if interlaced and depth < 8:
        pytest.skip("the bits of passes are not packed here")
    size, channels = 8, 3 if colour == 2 else 1
    samples = np.zeros((size, size, channels), np.int64)
    samples[:, : size // 2], samples[:, size // 2 :] = np.atleast_1d(key), np.atleast_1d(other)

    def rows(part: np.ndarray) -> bytes:
        out = b""
        for row in part.reshape(len(part), -1):
            bits = "".join(f"{value:0{depth}b}" for value in row)
            out += b"\0" + int(bits, 2).to_bytes(len(bits) // 8, "big")
        return out

    passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
    parts = [samples[y::down, x::across] for x, y, across, down in passes] if interlaced else [samples]
    data = zlib.compress(b"".join(rows(part) for part in parts))
    header = struct.pack(">IIBBBBB", size, size, depth, colour, 0, 0, interlaced)
    transparent = struct.pack(f">{channels}H", *np.atleast_1d(key).tolist())
    file = SIGNATURE + chunk(b"IHDR", header) + chunk(b"tRNS", transparent) + chunk(b"IDAT", data)
    alpha = read(file + chunk(b"IEND", b"")).frames[0, ..., 3]
    assert (alpha[:, : size // 2] == 0).all() and (alpha[:, size // 2 :] == 255).all()


# ------------------------------------------------------------------------------------------------ JPEG and AVIF


def picture(size: int = 48) -> Image.Image:
    y, x = np.mgrid[:size, :size]
    pixels = np.dstack([x * 5, y * 5, (x + y) * 2, np.where(x > size // 2, 255, 0)]).clip(0, 255).astype(np.uint8)
    return Image.fromarray(pixels)


def test_a_jpeg_of_several_pictures_is_its_first():
    first, second = picture().convert("RGB"), picture().convert("RGB").transpose(Image.Transpose.ROTATE_90)
    one, both = io.BytesIO(), io.BytesIO()
    first.save(one, "JPEG", quality=90)
    first.save(both, "MPO", save_all=True, append_images=[second], quality=90)
    sticker = read(both.getvalue(), "a.jpg")
    assert sticker.durations.tolist() == [1000.0]
    np.testing.assert_array_equal(sticker.frames, read(one.getvalue(), "a.jpg").frames)


@pytest.mark.parametrize("frames", [1, 3])
@pytest.mark.parametrize("brand", [b"mif1", b"msf1", b"miaf"])
def test_avif_by_any_of_its_brands(brand: bytes, frames: int):
    buffer = io.BytesIO()
    more = [picture().rotate(90 * i) for i in range(1, frames)]
    picture().save(buffer, "AVIF", save_all=True, append_images=more, duration=200)
    data = buffer.getvalue()
    wanted = read(data)
    assert len(wanted) == frames and wanted.frames[..., 3].min() == 0
    np.testing.assert_array_equal(read(data[:8] + brand + data[12:]).frames, wanted.frames)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (struct.pack(">I", 24) + b"ftypheic" + bytes(4) + b"mif1heic" + bytes(40), "is HEIC"),
        (b"<!DOCTYPE html><html></html>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "git lfs pull"),
        (b"\xff\x0a" + bytes(20), "is JPEG XL"),
        (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(20), "is JPEG XL"),
        (b"BM" + bytes(60), "is a BMP picture"),
        (b"RIFF\0\0\0\0AVI LIST", "is an AVI video"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\4CgBI" + bytes(30), "Apple's own form"),
        ('<svg xmlns="http://www.w3.org/2000/svg"/>'.encode("utf-16"), "XML in UTF-16; save it as UTF-8"),
    ],
)
def test_what_is_no_sticker_is_called_what_it_is(data: bytes, says: str):
    with pytest.raises(StickerError, match=says):
        read(data, "a.png")


def test_a_compressed_svg_is_an_svg():
    svg = b'<svg xmlns="http://www.w3.org/2000/svg" width="8" height="8"><rect width="5" height="8" fill="red"/></svg>'
    np.testing.assert_array_equal(read(gzip.compress(svg), "a.svgz").frames, read(svg, "a.svg").frames)


def test_an_apng_of_no_frames_is_a_still():
    """A count of 0 is not valid, and browsers show the picture."""
    buffer = io.BytesIO()
    picture().save(buffer, "PNG")
    still = buffer.getvalue()
    control = struct.pack(">I4sII", 8, b"acTL", 0, 0)
    animated = still[:33] + control + struct.pack(">I", zlib.crc32(control[4:])) + still[33:]
    np.testing.assert_array_equal(read(animated).frames, read(still).frames)


def test_a_webp_has_the_alpha_of_its_frames():
    """Whatever the flag in its header says."""
    buffer = io.BytesIO()
    frames = [picture(), picture().rotate(90)]
    frames[0].save(buffer, "WEBP", save_all=True, append_images=frames[1:], lossless=True, duration=100)
    data = buffer.getvalue()
    assert data[12:16] == b"VP8X" and data[20] & 0x10
    plain = read(data)
    assert plain.frames[..., 3].min() == 0
    np.testing.assert_array_equal(read(data[:20] + bytes([data[20] & ~0x10]) + data[21:]).frames, plain.frames)


# --------------------------------------------------------------------------------------------------------- video


def video(width: int, height: int, *, alpha: bool = False, aspect: Fraction | None = None) -> bytes:
    """Four frames that are red on the left, blue in the last four columns."""
    pixels = np.full((height, width, 4), (220, 30, 30, 255), np.uint8)
    pixels[:, -4:] = (30, 30, 220, 128 if alpha else 255)
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="webm" if alpha else "mp4") as container:
        stream = container.add_stream("libvpx-vp9" if alpha else "mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuva420p" if alpha else "yuv420p"
        stream.bit_rate = 4_000_000
        stream.codec_context.thread_count = 1
        if alpha:
            stream.options = {"auto-alt-ref": "0", "crf": "5", "b": "0"}
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        wide = np.zeros((height, -(-width // 32) * 32, 4), np.uint8)  # converted at a width that is exact everywhere
        wide[:, :width], wide[:, width:] = pixels, pixels[:, -1:]
        whole = av.VideoFrame.from_ndarray(wide, format="rgba").reformat(format=stream.pix_fmt)
        for number in range(4):
            frame = av.VideoFrame(width, height, stream.pix_fmt)
            for plane, source in zip(frame.planes, whole.planes, strict=True):
                rows = np.frombuffer(source, np.uint8).reshape(-1, source.line_size)[: plane.height]
                padded = np.zeros((plane.height, plane.line_size), np.uint8)
                padded[:, : plane.width] = rows[:, : plane.width]
                plane.update(padded.tobytes())
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return buffer.getvalue()


@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("width", [64, 66, 68, 70, 72, 76, 78, 100])
def test_every_column_of_a_video_is_read(width: int, alpha: bool):
    data = video(width, 48, alpha=alpha)
    frames = read(data).frames
    np.testing.assert_array_equal(frames, read(data).frames)  # no memory of other pictures
    assert frames.shape == (4, 48, width, 4)
    assert np.abs(frames[:, :, : width - 6, 0].astype(int) - 220).max() < 40
    assert np.abs(frames[:, :, -2:, 2].astype(int) - 220).max() < 60
    assert np.abs(frames[:, :, -3:, 3].astype(int) - (128 if alpha else 255)).max() < 12


@pytest.mark.parametrize(("quarter", "turned"), [(0, 0), (1, 3), (2, 2), (3, 1)])
def test_turned_videos_are_shown_as_players_show_them(quarter: int, turned: int):
    """The display matrix of an MP4 turns clockwise by ``quarter`` quarters."""
    data = video(64, 48)
    a, b = ((1, 0), (0, 1), (-1, 0), (0, -1))[quarter]
    matrix = struct.pack(">9i", a << 16, b << 16, 0, -b << 16, a << 16, 0, 0, 0, 1 << 30)
    at = data.index(b"tkhd") + 4 + 40
    upright = read(data).frames
    frames = read(data[:at] + matrix + data[at + 36 :]).frames
    np.testing.assert_array_equal(frames, np.rot90(upright, turned, axes=(1, 2)))


def test_oblong_pixels_are_shown_square():
    assert read(video(64, 48, aspect=Fraction(2, 1))).frames.shape[1:3] == (48, 128)
    assert read(video(64, 48, aspect=Fraction(1, 2))).frames.shape[1:3] == (48, 32)


def with_display_width(webm: bytes, width: int) -> bytes:
    """The element DisplayWidth put into the track, in the place of the track's language."""
    at = webm.index(b"\x22\xb5\x9c\x83und")  # Language
    before, after = webm[:at], webm[at + 7 :]
    video = after.index(b"\xe0")
    size, inside = after[video + 1], after[video + 2 :]
    display = b"\x54\xb0\x82" + width.to_bytes(2, "big")
    return before + b"\xec\x80" + after[:video] + bytes([0xE0, size + len(display)]) + display + inside


def test_a_webm_is_shown_at_its_display_size():
    plain = video(64, 48, alpha=True)
    assert read(with_display_width(plain, 64)).frames.shape[1:3] == (48, 64)
    wide, narrow = (read(with_display_width(plain, width)).frames for width in (128, 32))
    assert wide.shape[1:3] == (48, 128) and narrow.shape[1:3] == (48, 32)
    assert wide[0, 24, 60, 0] > 180 and 100 < wide[0, 24, 124, 3] < 156  # the blue columns, of half alpha, are wider


def test_bytes_behind_a_video_do_no_harm_and_missing_ones_are_told():
    data = video(64, 48)
    wanted = read(data).frames
    for tail in (b"\0", b"some text behind", b"\xff" * 100):
        np.testing.assert_array_equal(read(data + tail).frames, wanted)
    with pytest.raises(StickerError, match="cut short"):
        read(data[: len(data) // 2])


# -------------------------------------------------------------------------------------------------------- Lottie


def disc(**changes) -> dict:
    """A green disc on a canvas of 40 x 40, for a second."""
    shape = {
        "ty": "gr",
        "it": [
            {"ty": "el", "p": {"a": 0, "k": [0, 0]}, "s": {"a": 0, "k": [20, 20]}},
            {"ty": "fl", "c": {"a": 0, "k": [0, 1, 0, 1]}, "o": {"a": 0, "k": 100}},
            {"ty": "tr", "p": {"a": 0, "k": [20, 20]}, "a": {"a": 0, "k": [0, 0]}, "s": {"a": 0, "k": [100, 100]},
             "r": {"a": 0, "k": 0}, "o": {"a": 0, "k": 100}},
        ],
    }  # fmt: skip
    layer = {"ty": 4, "ip": 0, "op": 30, "st": 0, "ks": {}, "shapes": [shape], "ind": 1}
    return {"v": "5.5.0", "w": 40, "h": 40, "fr": 30, "ip": 0, "op": 30, "layers": [layer], "assets": [], **changes}


SOUND = {"ty": 6, "ip": 0, "op": 30, "st": 0, "refId": "a", "ks": {}}


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("sound", json.dumps(disc(layers=[SOUND, *disc()["layers"]], assets=[{"id": "a", "p": "aud.mp3"}]))),
        ("an unused picture", json.dumps(disc(assets=[{"id": "b", "p": "img_0.png", "w": 8, "h": 8}]))),
        ("no assets", json.dumps(disc(assets=None))),
        ("numbers as text", json.dumps(disc(w="40", fr="30"))),
        ("UTF-16", json.dumps(disc()).encode("utf-16")),
        ("a byte order mark", b"\xef\xbb\xbf" + json.dumps(disc()).encode()),
        ("gzip", gzip.compress(json.dumps(disc()).encode())),
        ("gzip twice", gzip.compress(gzip.compress(json.dumps(disc()).encode()))),
        ("gzip with a byte order mark", gzip.compress(b"\xef\xbb\xbf" + json.dumps(disc()).encode())),
        ("zlib", zlib.compress(json.dumps(disc()).encode())),
    ],
)
def test_lottie_as_people_have_it(name: str, data: bytes | str):
    wanted = read(json.dumps(disc()).encode())
    assert len(wanted) == 30 and wanted.frames[0, 20, 20].tolist() == [0, 255, 0, 255]
    np.testing.assert_array_equal(read(data if isinstance(data, bytes) else data.encode()).frames, wanted.frames)
