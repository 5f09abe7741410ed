"""Frames to the bytes of an APNG, GIF or lossless WebP. Every frame is written, also one equal to its neighbour.

Pillow's animation writers merge equal neighbouring frames. So Pillow only compresses single pictures here, and this
module writes the containers. Rounding errors of times do not add up: each is carried to the next frame.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from PIL import GifImagePlugin, Image

from rdtf.io.containers import PNG_SIGNATURE, png_chunk, png_chunks, riff_chunk, riff_chunks
from rdtf.io.metadata import gif_note, png_note, xmp_note

Box = tuple[int, int, int, int]
Note = Mapping[str, Any] | None

GIF_FRAME_MS = 20.0
"""Shortest frame of a GIF. Browsers show frames of 10 ms and less for 100 ms."""
_OPAQUE_FROM = 128
_WEBP_PICTURE = (b"ALPH", b"VP8 ", b"VP8L")


@dataclass(frozen=True)
class Clip:
    """What an encoder writes.

    Attributes:
        frames: ``(n, h, w, 4)`` uint8, straight alpha. durations: ``(n,)`` milliseconds.
        plays: how often the animation is played; 0 is for ever.
    """

    frames: np.ndarray
    durations: np.ndarray
    plays: int = 0

    def picked(self, index: np.ndarray, durations: np.ndarray) -> Clip:
        """Some of its frames, each shown for another time."""
        return Clip(self.frames[index], durations, self.plays)

    def starts(self) -> np.ndarray:
        """``(n + 1,)``: when each frame begins, and the end, in ms."""
        return np.concatenate([[0.0], np.cumsum(self.durations)])


def cleared(frames: np.ndarray) -> np.ndarray:
    """Colour under alpha 0 set to 0: it is invisible, zeros compress best and leak nothing."""
    return np.where(frames[..., 3:] > 0, frames, np.uint8(0))


def binary_alpha(frames: np.ndarray) -> np.ndarray:
    """Every pixel opaque or transparent; an edge pixel that stays keeps its own colour, so no fringe is left."""
    solid = frames[..., 3:] >= _OPAQUE_FROM
    return np.concatenate([np.where(solid, frames[..., :3], 0), np.where(solid, 255, 0)], -1).astype(np.uint8)


def whole_ticks(durations: np.ndarray, tick_ms: int, lowest: int, highest: int) -> list[int]:
    """Durations in whole ticks; what one frame loses by rounding, the next one gets.

    Raises:
        ValueError: a frame lasts longer than ``highest`` ticks.
    """
    ticks: list[int] = []
    for end in np.cumsum(durations) / tick_ms:
        ticks.append(max(lowest, round(float(end) - sum(ticks))))
    if max(ticks) > highest:
        raise ValueError(f"this format shows a frame for at most {highest * tick_ms / 1000} s; repeat the frame")
    return ticks


def _check_side(clip: Clip, limit: int) -> None:
    side = max(clip.frames.shape[1:3])
    if side > limit:
        raise ValueError(f"this format allows sides of at most {limit} px, not {side}; scale it down")


def _bounds(mask: np.ndarray) -> Box:
    """Left, top, right and bottom around the true pixels of ``(h, w)``; one pixel at the corner if none is true."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return 0, 0, 1, 1
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _changed(frames: np.ndarray, number: int) -> Box:
    """The box in which a frame differs from the one before; the whole canvas for the first one."""
    if not number:
        return 0, 0, frames.shape[2], frames.shape[1]
    return _bounds((frames[number] != frames[number - 1]).any(-1))


def picture(pixels: np.ndarray, kind: str, palette: np.ndarray | None = None, **options: Any) -> bytes:
    """A file of one picture, by Pillow. With a ``(k, 4)`` palette, ``pixels`` are places in it."""
    buffer = io.BytesIO()
    image = Image.fromarray(np.ascontiguousarray(pixels))
    if palette is not None:
        image.putpalette(palette[:, :3].tobytes())
        options |= {"bits": 8, "transparency": palette[:, 3].tobytes()}  # all frames share one header
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def webp(clip: Clip, note: Note = None) -> bytes:
    """Lossless WebP; times to 1 ms. https://developers.google.com/speed/webp/docs/riff_container.

    Raises:
        ValueError: a side or a duration that the format cannot hold.
    """
    _check_side(clip, 16383)
    xmp = xmp_note(note) if note else b""
    lossless: dict[str, Any] = {"lossless": True, "exact": True, "quality": 50, "method": 2}
    if len(clip.frames) == 1:
        return picture(clip.frames[0], "WEBP", xmp=xmp, **lossless)
    height, width = clip.frames.shape[1:3]
    alpha, animation, has_xmp = 0x10, 0x02, 0x04 if xmp else 0
    body = riff_chunk(b"VP8X", struct.pack("<I", alpha | animation | has_xmp) + _u24(width - 1) + _u24(height - 1))
    body += riff_chunk(b"ANIM", struct.pack("<IH", 0, clip.plays))
    replace_pixels = 0x02  # no blending: all pixels of the box, also transparent ones, replace the canvas
    for number, ms in enumerate(whole_ticks(clip.durations, 1, 1, 2**24 - 1)):
        left, top, right, bottom = _changed(clip.frames, number)
        left, top = left // 2 * 2, top // 2 * 2  # the format stores halves
        place = _u24(left // 2) + _u24(top // 2) + _u24(right - left - 1) + _u24(bottom - top - 1)
        file = picture(clip.frames[number, top:bottom, left:right], "WEBP", **lossless)
        chunks = b"".join(riff_chunk(name, data) for name, data in riff_chunks(file) if name in _WEBP_PICTURE)
        body += riff_chunk(b"ANMF", place + _u24(ms) + bytes([replace_pixels]) + chunks)
    return riff_chunk(b"RIFF", b"WEBP" + body + (riff_chunk(b"XMP ", xmp) if xmp else b""))


def _u24(value: int) -> bytes:
    return struct.pack("<I", value)[:3]


def apng(clip: Clip, palette: np.ndarray | None = None, indices: np.ndarray | None = None, note: Note = None) -> bytes:
    """PNG, animated if there is more than one frame. https://www.w3.org/TR/png-3/.

    Times are fractions of a second of two numbers up to 65,535: exact for whole milliseconds and for 1/60 s.

    Args:
        palette, indices: ``(k, 4)`` colours and ``(n, h, w)`` places in them, for a file with a palette; None = RGBA.

    Raises:
        ValueError: a duration that the format cannot hold.
    """
    moves = len(clip.frames) > 1
    out, sequence = [PNG_SIGNATURE], 0
    for number, delay in enumerate(_fraction(float(ms)) if moves else (0, 0) for ms in clip.durations):
        left, top, right, bottom = _changed(clip.frames, number)
        pixels = (clip.frames if indices is None else indices)[number, top:bottom, left:right]
        chunks = list(png_chunks(picture(pixels, "PNG", palette)))
        if not number:
            for name, data in chunks:
                if name in (b"IHDR", b"PLTE", b"tRNS"):
                    out.append(png_chunk(name, data))
                if name == b"IHDR":
                    out.append(png_note(note) if note else b"")
                    out.append(png_chunk(b"acTL", struct.pack(">II", len(clip.frames), clip.plays)) if moves else b"")
        if moves:
            box = (right - left, bottom - top, left, top)
            keep, replace = 0, 0  # the frame stays until the next one; all four channels are replaced
            out.append(png_chunk(b"fcTL", struct.pack(">IIIIIHHBB", sequence, *box, *delay, keep, replace)))
            sequence += 1
        for data in (data for name, data in chunks if name == b"IDAT"):
            out.append(png_chunk(b"fdAT", struct.pack(">I", sequence) + data) if number else png_chunk(b"IDAT", data))
            sequence += bool(number)
    return b"".join([*out, png_chunk(b"IEND", b"")])


def _fraction(ms: float) -> tuple[int, int]:
    """The fraction of a second nearest to a time. Whole milliseconds stay thousandths.

    Raises:
        ValueError: the time is too long.
    """
    if ms > 65535:
        raise ValueError("this format shows a frame for at most 65.535 s; repeat the frame")
    if ms.is_integer():
        return int(ms), 1000
    seconds = Fraction(ms) / 1000
    nearest = seconds.limit_denominator(min(65535, int(65534 / seconds)))
    return max(1, nearest.numerator), nearest.denominator


def gif(clip: Clip, palette: np.ndarray, indices: np.ndarray, note: Note = None) -> bytes:
    """GIF with times to 10 ms, at least 20 ms; each frame is cleared before the next one.

    https://www.w3.org/Graphics/GIF/spec-gif89a.txt

    Args:
        palette, indices: ``(k, 4)`` colours, k up to 256, of alpha 0 and 255 only, and ``(n, h, w)`` places in them.

    Raises:
        ValueError: a side or a duration that the format cannot hold.
    """
    _check_side(clip, 65535)
    height, width = clip.frames.shape[1:3]
    empty = np.flatnonzero(palette[:, 3] == 0)
    clear = int(empty[0]) if len(empty) else None
    table = np.zeros((256, 3), np.uint8)
    table[: len(palette)] = palette[:, :3]
    out = [b"GIF89a" + struct.pack("<HHBBB", width, height, 0xF7, clear or 0, 0) + table.tobytes()]
    if len(clip.frames) > 1 and clip.plays != 1:
        repeats = max(0, clip.plays - 1)  # GIF counts repetitions
        out.append(b"\x21\xff\x0bNETSCAPE2.0\x03\x01" + struct.pack("<H", repeats) + b"\0")
    times = whole_ticks(clip.durations, 10, round(GIF_FRAME_MS / 10), 65535)
    for frame, hundredths in zip(indices, times, strict=True):
        left, top, right, bottom = (0, 0, width, height) if clear is None else _bounds(frame != clear)
        image = Image.fromarray(np.ascontiguousarray(frame[top:bottom, left:right]))
        image.putpalette(table.tobytes())
        options = {"duration": hundredths * 10, "disposal": 2} | ({} if clear is None else {"transparency": clear})
        out += GifImagePlugin.getdata(image, (left, top), **options)
    return b"".join([*out, gif_note(note) if note else b"", b"\x3b"])
