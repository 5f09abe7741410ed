"""Readers against files written byte by byte here, and against compositors written from the specifications."""

from __future__ import annotations

import gzip
import io
import itertools
import json
import struct
import zlib
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from rdtf.io.containers import riff_chunk
from rdtf.io.read import read_sticker_bytes
from rdtf.sticker import Sticker, StickerError
from tests.io.spec import (
    CHANNELS,
    DEPTHS,
    PNG,
    blocks,
    chunk,
    gif_control,
    gif_frame,
    png_head,
    scanlines,
    shown,
    table_flags,
)


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
    """Local palettes, interlaced images, every disposal, boxes beyond the screen, one box of size 0."""
    rng, size = np.random.default_rng(seed), 12
    shared, own = rng.integers(0, 256, (2, 8, 3), np.uint8)
    out = b"GIF89a" + struct.pack("<HHBBB", size, size, table_flags(shared), 3, 0) + shared.tobytes()
    layers = []
    for number, box in enumerate(boxes(rng, size, 6, beyond=4)):
        if number == seed:
            box = (0, 0, size, size)
        indices = rng.integers(0, 8, (box[3], box[2]))
        disposal, local = int(rng.integers(0, 8)), own if rng.random() < 0.5 else None
        transparent = 5 if rng.random() < 0.8 else None
        written = (0, 0, 0, size if seed % 2 else 0) if number == seed else box
        out += gif_control(disposal, 10 * number, transparent) + blocks_of_others(rng)
        out += gif_frame(indices, written, local, rng.random() < 0.5, bits=3)
        pixels = np.dstack([(shared if local is None else local)[indices], np.where(indices == transparent, 0, 255)])
        layers.append((pixels, box, {2: 1, 3: 2, 4: 2}.get(disposal, 0), True))
    for ending in (b";", b"", b";a note", b";" + bytes(40), b"\r\n"):  # the trailer, or what people find instead
        sticker = read(out + ending, "a.gif")
        equal_where_visible(sticker.frames, composed(size, layers), 0)
        assert sticker.durations.tolist() == [100.0, 100.0, 200.0, 300.0, 400.0, 500.0]


def blocks_of_others(rng: np.random.Generator) -> bytes:
    """An extension that says nothing about the picture."""
    kind = (b"!\xfe", b"!\xff\x0bXMP DataXMP", b"!\x77")[int(rng.integers(3))]
    return kind + blocks(bytes(rng.integers(0, 256, 300, np.uint8)))


def test_gif_images_of_every_code_size():
    """A full table of codes too, and an index that the palette lacks."""
    rng = np.random.default_rng(0)
    for bits in range(2, 9):
        palette, indices = rng.integers(0, 256, (1 << bits, 3), np.uint8), rng.integers(0, 1 << bits, (90, 80))
        for version, known in ((b"GIF87a", palette), (b"GIF89a", palette[: 1 << (bits - 1)])):
            head = version + struct.pack("<HHBBB", 80, 90, table_flags(known), 0, 0) + known.tobytes()
            frame = read(head + gif_frame(indices, (0, 0, 80, 90), bits=bits) + b";").frames[0]
            wanted = np.dstack([palette[indices], np.full(indices.shape, 255)])
            np.testing.assert_array_equal(frame, np.where((indices < len(known))[..., None], wanted, 0))


@pytest.mark.parametrize(
    ("seed", "colour", "depth"), [(0, 6, 8), (1, 6, 16), (2, 3, 8), (3, 3, 2), (4, 0, 4), (5, 2, 16), (6, 4, 8)]
)
def test_apng_frames_are_composed_as_the_specification_says(seed: int, colour: int, depth: int):
    rng, size, count, interlaced = np.random.default_rng(seed), 10, 6, bool(seed % 2)
    out = png_head(size, size, depth, colour, interlaced) + chunk(b"acTL", struct.pack(">II", count, 0))
    palette = rng.integers(0, 256, (1 << depth, 3), np.uint8) if colour == 3 else None
    transparent = b""
    if palette is not None:
        transparent = bytes(rng.choice([0, 60, 128, 255], len(palette)).tolist())
        out += chunk(b"PLTE", palette.tobytes())
    elif not colour & 4:
        transparent = struct.pack(f">{CHANNELS[colour]}H", *[257 if depth == 16 else 1] * CHANNELS[colour])
    out += chunk(b"tRNS", transparent) if transparent else b""
    layers, sequence = [], 0
    for number, box in enumerate([(0, 0, size, size), *boxes(rng, size, count - 1)]):
        left, top, width, height = box
        samples = rng.integers(0, 1 << min(depth, 3), (height, width, CHANNELS[colour])) * (257 if depth == 16 else 1)
        if colour & 4:
            samples[..., -1] = rng.choice([0, 60, 128, 255], (height, width)) * (257 if depth == 16 else 1)
        disposal, over = int(rng.integers(0, 3)), bool(rng.integers(0, 2))
        control = struct.pack(">IIIIIHHBB", sequence, width, height, left, top, 1, 10, disposal, over)
        out, sequence = out + chunk(b"fcTL", control), sequence + 1
        data = scanlines(samples, depth, interlaced)
        for part in (data[:20], data[20:]) if number else ():
            out, sequence = out + chunk(b"fdAT", struct.pack(">I", sequence) + part), sequence + 1
        if not number:
            out += chunk(b"IDAT", data)
        layers.append((shown(samples, depth, colour, palette, transparent), box, disposal, over))
    expected = composed(size, layers)
    equal_where_visible(read(out + chunk(b"IEND", b"")).frames, expected, 1)
    # Chunks beside the picture may be damaged or large, and bytes may follow.
    side = chunk(b"pHYs", bytes(9), right=False) + chunk(b"tEXt", b"note\0" + bytes(2_000_000))
    equal_where_visible(read(out[:33] + side + out[33:] + chunk(b"IEND", b"") + b"more").frames, expected, 1)
    with pytest.raises(StickerError, match="cut short"):
        read(out)


# ---------------------------------------------------------------------------------------------------- still PNG


@pytest.mark.parametrize("colour", DEPTHS)
def test_a_png_of_every_type_and_depth(colour: int):
    """Interlaced or not, with a transparent colour or not, and one that differs in one bit from another colour."""
    rng = np.random.default_rng(colour)
    for depth, interlaced, keyed, (h, w) in itertools.product(DEPTHS[colour], (False, True), (False, True), SIZES):
        samples = rng.integers(0, 1 << depth, (h, w, CHANNELS[colour]))
        palette = rng.integers(0, 256, (1 << depth, 3), np.uint8) if colour == 3 else None
        transparent = b""
        if palette is not None and keyed:
            transparent = bytes(rng.integers(0, 256, len(palette) // 2).tolist())
        elif keyed and not colour & 4:
            transparent = struct.pack(f">{CHANNELS[colour]}H", *samples[0, 0].tolist())
            samples[-1, -1] = samples[0, 0] ^ (256 if (colour, depth) == (2, 16) else 1)
        file = png_head(w, h, depth, colour, interlaced) + chunk(b"gAMA", bytes(4))
        file += b"" if palette is None else chunk(b"PLTE", palette.tobytes())
        file += chunk(b"tRNS", transparent) if transparent else b""
        data = scanlines(samples, depth, interlaced)
        parts = b"".join(chunk(b"IDAT", data[at : at + 9]) for at in range(0, len(data), 9))
        wanted = shown(samples, depth, colour, palette, transparent)
        frame = read(file + parts + chunk(b"IEND", b"")).frames[0]
        np.testing.assert_array_equal(frame, np.where(wanted[..., 3:] > 0, wanted, 0), err_msg=f"{depth} {interlaced}")


SIZES = ((1, 1), (3, 2), (9, 11))


def test_a_png_that_lacks_something_is_refused():
    """A palette, rows, or a known way of interlacing; browsers show none of it or a part."""
    samples = np.zeros((4, 4, 1), int)
    data, end = chunk(b"IDAT", scanlines(samples, 4)), chunk(b"IEND", b"")
    for file, says in (
        (png_head(4, 4, 4, 3) + data + end, "has no palette"),
        (png_head(4, 9, 4, 0) + data + end, "cut short"),
        (png_head(4, 9, 4, 0) + chunk(b"IDAT", scanlines(samples + 15, 4)) + end, "cut short"),
        (png_head(4, 9, 4, 0, True) + data + end, "cut short"),
        (png_head(4, 4, 4, 0)[:28] + b"\2" + bytes(4) + data + end, "checksum"),
        (PNG + chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 4, 0, 0, 0, 2)) + data + end, "unknown kind"),
    ):
        with pytest.raises(StickerError, match=says):
            read(file)


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


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_jpegs_of_every_kind_of_colour(mode: str):
    """CMYK as Photoshop writes it, inverted and with a mark of Adobe's; RGB that is stored as RGB."""
    image = picture().convert("RGB").convert(mode)
    wanted = np.array(image.convert("RGB")).astype(int)
    for options in ({"progressive": True}, {"restart_marker_blocks": 2}, {"keep_rgb": True} if mode == "RGB" else {}):
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=98, **options)
        assert np.abs(read(buffer.getvalue()).frames[0, ..., :3] - wanted).max() < 24
    with pytest.raises(StickerError, match="truncated"):
        read(buffer.getvalue()[:-2])


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
        (gzip.compress(b"\x89PNG\r\n\x1a\n", mtime=0), "holds neither Lottie nor SVG"),
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


@pytest.mark.parametrize("seed", range(6))
def test_webp_frames_are_composed_as_the_specification_says(seed: int):
    """Blending and disposal of frames at even places; the colour of the background is a hint that is not followed."""
    rng, size = np.random.default_rng(seed), 12
    body, layers = b"WEBP" + riff_chunk(b"VP8X", bytes([0x12, 0, 0, 0, size - 1, 0, 0, size - 1, 0, 0])), []
    body += riff_chunk(b"ANIM", b"\x10\x20\x30\xff\0\0")
    for number, (left, top, width, height) in enumerate(boxes(rng, size, 5)):
        left, top = left // 2 * 2, top // 2 * 2
        pixels = rng.integers(0, 256, (height, width, 4), np.uint8)
        pixels[..., 3] = rng.choice([0, 60, 128, 255], (height, width))
        disposal, over = int(rng.integers(0, 2)), bool(rng.integers(0, 2))
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "WEBP", lossless=True, exact=True)
        numbers = (left // 2, top // 2, width - 1, height - 1, 10 * number)
        head = b"".join(value.to_bytes(3, "little") for value in numbers) + bytes([disposal | (0 if over else 2)])
        body += riff_chunk(b"ANMF", head + buffer.getvalue()[12:])
        layers.append((pixels, (left, top, width, height), disposal, over))
    file = riff_chunk(b"RIFF", body + riff_chunk(b"XMP ", b"<x/>") + riff_chunk(b"ABCD", b"unknown"))
    sticker = read(file + b"more")
    equal_where_visible(sticker.frames, composed(size, layers), 2)
    assert sticker.durations.tolist() == [100.0, 10.0, 20.0, 30.0, 40.0]


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


@pytest.mark.parametrize("matrix", [(5, 0.299, 0.114), (1, 0.2126, 0.0722), (9, 0.2627, 0.0593)])
@pytest.mark.parametrize("full", [False, True])
def test_colours_of_a_video_follow_its_matrix_and_range(matrix: tuple[int, float, float], full: bool):
    """One colour in BT.601, BT.709 and BT.2020, by the formulas of these standards."""
    number, red, blue = matrix
    colour = np.array([200, 40, 30]) / 255
    luma = colour @ np.array([red, 1 - red - blue, blue])
    chroma = np.array([(colour[2] - luma) / (2 - 2 * blue), (colour[0] - luma) / (2 - 2 * red)])
    y, (u, v) = (255 * luma, 128 + 255 * chroma) if full else (16 + 219 * luma, 128 + 224 * chroma)
    planes = np.repeat(np.rint([y, u, v]), [32 * 32, 16 * 16, 16 * 16]).astype(np.uint8).reshape(48, 32)
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="webm") as container:
        stream = container.add_stream("libvpx-vp9", rate=10, width=32, height=32, pix_fmt="yuv420p")
        stream.codec_context.colorspace, stream.codec_context.color_range = number, 2 if full else 1
        frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
        frame.colorspace, frame.color_range = number, 2 if full else 1
        container.mux([*stream.encode(frame), *stream.encode()])
    assert np.abs(read(buffer.getvalue()).frames[0, ..., :3].astype(int) - [200, 40, 30]).max() < 6


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
