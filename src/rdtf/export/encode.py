"""Frames to the bytes of a file, with one knob of quality for each format.

Frames are ``(n, h, w, 4)`` uint8 with straight alpha; durations are milliseconds.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np
from PIL import GifImagePlugin, Image
from scipy.ndimage import distance_transform_edt
from scipy.spatial import cKDTree

from rdtf.io import palette as palettes
from rdtf.io.containers import PNG_SIGNATURE, png_chunk, png_chunks
from rdtf.io.metadata import TAG, note_text
from rdtf.pixels import premultiply, unpremultiply

_BLEED_PIXELS = 8
GIF_FRAME_MS = 20.0
"""Shortest frame of a GIF. Browsers show frames of 10 ms and less for 100 ms."""
_OPAQUE_FROM = 128


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


def merged(clip: Clip) -> Clip:
    """The clip with equal neighbours shown as one frame of their common duration."""
    return clip.picked(*merge(clip, np.arange(len(clip.frames)), clip.durations))


def merge(clip: Clip, index: np.ndarray, durations: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places of frames and their times, with equal neighbours taken together."""
    new = np.ones(len(index), bool)
    for n in range(1, len(index)):
        a, b = index[n - 1], index[n]
        new[n] = a != b and not np.array_equal(clip.frames[a], clip.frames[b])
    starts = np.flatnonzero(new)
    return index[starts], np.add.reduceat(durations, starts)


def cleared(frames: np.ndarray) -> np.ndarray:
    """Colour under alpha 0 set to 0: it is invisible and then costs nothing."""
    return np.where(frames[..., 3:] > 0, frames, np.uint8(0))


# ------------------------------------------------------------------------------------------------------------ WebM


def webm(clip: Clip, crf: int, fps: float, note: dict[str, Any] | None = None) -> bytes:
    """VP9 with alpha at a constant frame rate, the form that Telegram asks for.

    Args:
        crf: constant rate factor, 0 (best) to 63. fps: frames a second; a frame of the clip is repeated while it lasts.
        note: for the file's tags, see :mod:`rdtf.io.metadata`.
    """
    import av

    height, width = clip.frames.shape[1:3]
    starts = clip.starts()
    ticks = max(1, round(starts[-1] * fps / 1000))
    shown = np.searchsorted(starts[1:-1], (np.arange(ticks) + 0.5) * starts[-1] / ticks, side="right")
    planes = {int(i): _yuva420(clip.frames[i]) for i in np.unique(shown)}
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="webm") as container:
        if note is not None:
            container.metadata[TAG] = note_text(note)
        stream = container.add_stream("libvpx-vp9", rate=Fraction(fps).limit_denominator(1000))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuva420p"
        # Without auto-alt-ref=0 libvpx refuses alpha. One thread, so that the bytes are the same on every machine.
        stream.options = {"crf": str(crf), "b": "0", "auto-alt-ref": "0", "deadline": "good", "cpu-used": "3"}
        stream.codec_context.thread_count = 1
        for tick, index in enumerate(shown):
            frame = av.VideoFrame(width, height, "yuva420p")
            for plane, pixels in zip(frame.planes, planes[int(index)], strict=True):
                padded = np.zeros((plane.height, plane.line_size), np.uint8)
                padded[:, : pixels.shape[1]] = pixels
                plane.update(padded.tobytes())
            frame.pts = tick
            for packet in stream.encode(frame):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return buffer.getvalue()


def _yuva420(frame: np.ndarray) -> list[np.ndarray]:
    """Planes Y, U, V, A of BT.601 in the limited range; U and V at half the size (sides have to be even)."""
    colour = _bled(frame)[..., :3].astype(np.float32)
    red, green, blue = (colour[..., i] for i in range(3))
    luma = 16 + (65.481 * red + 128.553 * green + 24.966 * blue) / 255
    u = 128 + (-37.797 * red - 74.203 * green + 112.0 * blue) / 255
    v = 128 + (112.0 * red - 93.786 * green - 18.214 * blue) / 255
    height, width = luma.shape
    halves = [c.reshape(height // 2, 2, width // 2, 2).mean((1, 3)) for c in (u, v)]
    return [np.rint(plane).clip(0, 255).astype(np.uint8) for plane in (luma, *halves)] + [frame[..., 3]]


def _bled(frame: np.ndarray) -> np.ndarray:
    """Transparent pixels near the sticker take the colour of its edge, so that halved chroma leaves no dark fringe."""
    empty = frame[..., 3] == 0
    if not empty.any() or empty.all():
        return frame
    distance, (rows, columns) = distance_transform_edt(empty, return_indices=True)
    near = empty & (distance <= _BLEED_PIXELS)
    out = cleared(frame)
    out[near, :3] = frame[rows[near], columns[near], :3]
    return out


# ------------------------------------------------------------------------------------------------------------ WebP


def webp(clip: Clip, quality: int | None) -> bytes:
    """WebP by libwebp.

    Args:
        quality: 0 to 100 of lossy compression; None is lossless.
    """
    images = [Image.fromarray(frame) for frame in cleared(clip.frames)]
    how = {"lossless": True, "quality": 60} if quality is None else {"quality": quality, "alpha_quality": 95}
    buffer = io.BytesIO()
    times = whole_ticks(clip.durations, 1.0, 1)
    options = {"save_all": True, "append_images": images[1:], "duration": times, "loop": clip.plays}
    images[0].save(buffer, "WEBP", method=4, **how, **(options if len(images) > 1 else {}))
    return buffer.getvalue()


# -------------------------------------------------------------------------------------------------- palette, PNG, GIF


class Colours:
    """The colours of a clip, ready to be reduced to palettes of several sizes.

    Args:
        frames: ``(n, h, w, 4)`` uint8, straight alpha.
    """

    def __init__(self, frames: np.ndarray) -> None:
        self._frames = premultiply(frames)
        self._shown = self._frames[..., 3] > 0
        self._made: dict[tuple[int, bool], tuple[np.ndarray, np.ndarray]] = {}

    @cached_property
    def _colours(self) -> palettes.Colours | None:
        return palettes.Colours(self._frames[self._shown]) if self._shown.any() else None

    def _palette(self, colours: int) -> np.ndarray:
        """``(k, 4)`` premultiplied colours, k at most ``colours``; the first one is transparent, where any pixel is."""
        empty = np.zeros((0 if self._shown.all() else 1, 4), np.uint8)
        if self._colours is None:
            return empty
        return np.concatenate([empty, self._colours.palette(colours - len(empty))])

    def reduced(self, colours: int, dither: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """One palette for all frames.

        Args:
            colours: entries of the palette, the transparent one included.
            dither: ordered dithering, whose pattern stands still over time.

        Returns:
            indices ``(n, h, w)`` uint8 and the palette ``(k, 4)`` uint8 with straight alpha.
        """
        if (colours, dither) not in self._made:
            self._made[colours, dither] = self._reduced(colours, dither)
        return self._made[colours, dither]

    def _reduced(self, colours: int, dither: bool) -> tuple[np.ndarray, np.ndarray]:
        centres = self._palette(colours)
        indices = np.zeros(self._shown.shape, np.uint8)
        if self._colours is not None:
            shown = self._shown
            if dither:
                moved = self._frames + _bayer(shown.shape[1:], centres)
                of_moved = palettes.Colours(moved.clip(0, 255).astype(np.uint8)[shown])
                indices[shown] = of_moved.nearest(centres)
            else:
                indices[shown] = self._colours.nearest(centres)
        return indices, unpremultiply(centres[None])[0]


def _bayer(shape: tuple[int, ...], centres: np.ndarray) -> np.ndarray:
    """``(h, w, 4)`` offsets of the 4 x 4 Bayer matrix, half as large as colours of the palette lie apart."""
    matrix = np.array([[0, 8, 2, 10], [12, 4, 14, 6], [3, 11, 1, 9], [15, 7, 13, 5]]) / 16 - 0.47
    apart = float(np.median(cKDTree(centres).query(centres, k=2)[0][:, 1])) if len(centres) > 1 else 0.0
    tiled = np.tile(matrix, (shape[0] // 4 + 1, shape[1] // 4 + 1))[: shape[0], : shape[1]]
    return (np.rint(tiled * apart / 2)[..., None] * np.array([1, 1, 1, 0])).astype(np.int16)


def apng(clip: Clip, palette: np.ndarray | None = None, indices: np.ndarray | None = None) -> bytes:
    """PNG, animated if there is more than one frame; every frame is written, also one equal to its neighbour.

    Pillow merges equal frames, and messengers count frames. Chunks: https://www.w3.org/TR/png-3/.

    Args:
        palette, indices: ``(k, 4)`` colours and ``(n, h, w)`` places in them, for a file with a palette; None = RGBA.
    """
    if len(clip.frames) == 1:
        return _png(clip.frames[0] if indices is None else indices[0], palette)
    out = [PNG_SIGNATURE]
    sequence = 0
    times = whole_ticks(clip.durations, 1.0, 1)
    for number, frame in enumerate(clip.frames):
        left, top, right, bottom = _changed(clip.frames, number)
        pixels = (frame if indices is None else indices[number])[top:bottom, left:right]
        chunks = list(png_chunks(_png(pixels, palette)))
        if not number:
            for name, data in chunks:
                if name in (b"IHDR", b"PLTE", b"tRNS"):
                    out.append(png_chunk(name, data))
                if name == b"IHDR":
                    out.append(png_chunk(b"acTL", struct.pack(">II", len(clip.frames), clip.plays)))
        box = (right - left, bottom - top, left, top)
        keep, replace = 0, 0  # the frame stays until the next one; all four channels are replaced
        out.append(png_chunk(b"fcTL", struct.pack(">IIIIIHHBB", sequence, *box, times[number], 1000, keep, replace)))
        sequence += 1
        for data in (data for name, data in chunks if name == b"IDAT"):
            out.append(png_chunk(b"fdAT", struct.pack(">I", sequence) + data) if number else png_chunk(b"IDAT", data))
            sequence += bool(number)
    return b"".join([*out, png_chunk(b"IEND", b"")])


def _png(pixels: np.ndarray, palette: np.ndarray | None) -> bytes:
    image = Image.fromarray(np.ascontiguousarray(pixels))
    buffer = io.BytesIO()
    if palette is None:
        image.save(buffer, "PNG", compress_level=6)
    else:
        image.putpalette(palette[:, :3].tobytes())
        # Always eight bits: all frames of a file share one header.
        image.save(buffer, "PNG", compress_level=6, bits=8, transparency=palette[:, 3].tobytes())
    return buffer.getvalue()


def _changed(frames: np.ndarray, number: int) -> tuple[int, int, int, int]:
    """The box (left, top, right, bottom) in which a frame differs from the one before; one pixel if it does not."""
    height, width = frames.shape[1:3]
    if not number:
        return 0, 0, width, height
    differs = (frames[number] != frames[number - 1]).any(-1)
    rows, columns = np.flatnonzero(differs.any(1)), np.flatnonzero(differs.any(0))
    if not len(rows):
        return 0, 0, 1, 1
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def gif(clip: Clip, palette: np.ndarray, indices: np.ndarray) -> bytes:
    """GIF; each frame is written whole and cleared before the next one.

    Args:
        palette, indices: ``(k, 4)`` colours, k up to 256, of alpha 0 and 255 only, and ``(n, h, w)`` places in them.
    """
    empty = np.flatnonzero(palette[:, 3] == 0)
    clear = int(empty[0]) if len(empty) else None
    height, width = clip.frames.shape[1:3]
    table = np.zeros((256, 3), np.uint8)
    table[: len(palette)] = palette[:, :3]
    out = [b"GIF89a" + struct.pack("<HHBBB", width, height, 0xF7, clear or 0, 0) + table.tobytes()]
    if len(clip.frames) > 1 and clip.plays != 1:
        out.append(b"\x21\xff\x0bNETSCAPE2.0\x03\x01" + struct.pack("<H", max(0, clip.plays - 1)) + b"\0")
    lowest = round(GIF_FRAME_MS / 10)
    for frame, hundredths in zip(indices, whole_ticks(clip.durations, 10.0, lowest), strict=True):
        picture = Image.fromarray(frame)
        picture.putpalette(table.tobytes())
        options: dict[str, int] = {"duration": hundredths * 10, "disposal": 2}
        if clear is not None:
            options["transparency"] = clear
        out += GifImagePlugin.getdata(picture, (0, 0), **options)
    return b"".join([*out, b"\x3b"])


def binary_alpha(frames: np.ndarray) -> np.ndarray:
    """Every pixel opaque or transparent; an edge pixel that stays keeps its own colour, so no fringe is left."""
    solid = frames[..., 3:] >= _OPAQUE_FROM
    return np.concatenate([np.where(solid, frames[..., :3], 0), np.where(solid, 255, 0)], -1).astype(np.uint8)


def whole_ticks(durations: Sequence[float] | np.ndarray, tick_ms: float, lowest: int) -> list[int]:
    """Durations in whole ticks; what one frame loses by rounding, the next one gets."""
    ticks: list[int] = []
    for end in np.cumsum(durations) / tick_ms:
        ticks.append(max(lowest, round(float(end) - sum(ticks))))
    return ticks
