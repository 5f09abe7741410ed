"""Writing of sticker files. Every frame is written, also frames equal to their neighbours, with its time.

Pillow's animation writers merge equal neighbouring frames. So Pillow only compresses single pictures here, and this
module writes the containers.
"""

from __future__ import annotations

import io
import math
import os
import struct
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import GifImagePlugin, Image

from rdtf.io.containers import PNG_SIGNATURE, png_chunk, png_chunks, riff_chunk, riff_chunks
from rdtf.io.job import LIMITS
from rdtf.io.metadata import NOTE, with_note
from rdtf.io.palette import Colours
from rdtf.io.targets import check_file, check_folder, replace_file, replace_folder
from rdtf.sticker import Sticker, StickerError

SHEET_SUFFIX = ".sheet.png"
SHEET_COLUMNS = 8
GIF_ALPHA_THRESHOLD = 128
"""GIF pixels are opaque or transparent. From this alpha on they are opaque."""
GIF_COLOURS = 255  # the 256th palette entry is the transparent one

Box = tuple[int, int, int, int]


def save_sticker(sticker: Sticker, path: Path | str, *, loop: int = 0, durable: bool = True) -> None:
    """Write ``sticker`` to ``path``, in the format that its ending names; the folders above are created.

    ========================  ==========================================================================
    ``.webp``                 lossless, animated if there is more than one frame; durations to 1 ms
    ``.png``, ``.apng``       PNG, animated (APNG) if there is more than one frame; durations as fractions of a
                              second of two numbers up to 65,535: exact for whole ms and for 1/60 s
    ``.gif``                  at most 255 colours, one palette for all frames; alpha of 128 and above is
                              opaque, below is transparent; durations to 10 ms, at least 20 ms
    ``.sheet.png``            one PNG with the frames in rows of up to 8, on transparency, untimed
    no ending, or a last "/"  a folder of ``000.png``, ``001.png``, ... and ``durations.json``, which holds their
                              times in milliseconds and their SHA-256
    ========================  ==========================================================================

    Rounding errors do not add up: the total duration is right to one step. A still WebP, PNG or sheet has no duration.
    Reading a WebP or (A)PNG gives the same pixels, except that the colour under alpha 0 becomes 0. The file is written
    atomically. The sticker's attribute ``provenance`` is written into the file, see :mod:`rdtf.io.metadata`.

    Args:
        sticker: the sticker.
        path: an existing file is replaced. An existing folder is replaced only if it is empty or holds frames that RDTF
            wrote and nobody changed.
        loop: how many times a player shows the whole animation, 0 to 65535; 0 is for ever.
        durable: wait until the file is on the disk, which takes about 15 ms.

    Raises:
        ValueError: unknown ending, a loop count out of range, a folder with other files, a symbolic link.
        StickerError: the format cannot hold the sticker (its size or durations), the file would be too large to be read
            again, or it cannot be written.
    """
    if not 0 <= loop <= 65535:
        raise ValueError(f"loop must be between 0 (for ever) and 65535, got {loop}")
    encode = _encoder(path)
    check_target(path)
    path = Path(path)
    note = sticker.attributes.get(NOTE)
    if encode is not None:
        data = encode(_Clip.of(sticker, path, loop))
        if len(data) > LIMITS.image_bytes:
            most = LIMITS.image_bytes / 2**20
            raise StickerError(
                path, f"{len(data) / 2**20:.0f} MiB are more than is read again ({most:g}); scale it down"
            )
        replace_file(path, with_note(data, note) if note else data, durable=durable)
        return
    digits = max(3, len(str(len(sticker) - 1)))
    names = [f"{index:0{digits}d}.png" for index in range(len(sticker))]
    pictures = {name: _picture(frame, "PNG") for name, frame in zip(names, sticker.frames, strict=True)}
    if note:
        pictures = {name: with_note(picture, note) for name, picture in pictures.items()}
    replace_folder(path, pictures, dict(zip(names, sticker.durations.tolist(), strict=True)))


def webp_bytes(sticker: Sticker) -> bytes:
    """The file that :func:`save_sticker` writes for ``.webp``."""
    return _webp(_Clip.of(sticker, Path("sticker.webp"), 0))


def check_target(path: Path | str, inputs: Iterable[Path | str] = ()) -> None:
    """Check that :func:`save_sticker` can write to ``path``, before computing the sticker.

    Args:
        path: the output.
        inputs: files and folders that are never replaced.

    Raises:
        ValueError: unknown ending; ``path`` is an input or contains one; it is a folder with other files, or a link.
        StickerError: the folder above is not writable.
    """
    check = check_folder if _encoder(path) is None else check_file
    check(Path(path), [Path(source) for source in inputs])


class _Clip:
    """The input of the encoders: cleaned frames, times, and the name for messages."""

    def __init__(self, frames: np.ndarray, durations: np.ndarray, path: Path, loop: int) -> None:
        self.frames, self.durations, self.path, self.loop = frames, durations, path, loop

    @classmethod
    def of(cls, sticker: Sticker, path: Path, loop: int) -> _Clip:
        # Colour under alpha 0 is invisible. Zeros compress best and leak nothing.
        frames = np.where(sticker.frames[..., 3:] > 0, sticker.frames, np.uint8(0))
        return cls(frames, sticker.durations, path, loop)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.frames.shape[2], self.frames.shape[1]

    def ticks(self, tick_ms: int, lowest: int, highest: int) -> list[int]:
        """Durations in whole ticks. Rounding errors are carried to the next frame."""
        ticks: list[int] = []
        for end in np.cumsum(self.durations) / tick_ms:
            ticks.append(max(lowest, round(end - sum(ticks))))
        if max(ticks) > highest:
            limit = highest * tick_ms / 1000
            raise StickerError(self.path, f"this format shows a frame for at most {limit} s; repeat the frame")
        return ticks

    def fractions(self) -> list[tuple[int, int]]:
        """Durations in seconds as numerators and denominators, both from 1 to 65,535."""
        self.ticks(1, 1, 65535)  # raises if a duration is too long
        return [_fraction(float(ms)) for ms in self.durations]

    def check_side(self, limit: int) -> None:
        if max(self.size) > limit:
            raise StickerError(
                self.path,
                f"this format allows sides of at most {limit} px, not {max(self.size)}; scale it down",
            )

    def changes(self, align: int = 1) -> Iterator[tuple[Box, np.ndarray]]:
        """For each frame the box (left, top, right, bottom) of its changes, and the pixels of the box.

        The first box is the whole canvas. A frame without changes gets a small box.
        """
        width, height = self.size
        for index, frame in enumerate(self.frames):
            box = (0, 0, width, height)
            if index:
                box = _bounds((frame != self.frames[index - 1]).any(-1))
            left, top = box[0] // align * align, box[1] // align * align
            yield (left, top, box[2], box[3]), frame[top : box[3], left : box[2]]


def _bounds(mask: np.ndarray) -> Box:
    """The smallest box around the true pixels of ``(h, w)``; one pixel at the corner if none is true."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return 0, 0, 1, 1
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _picture(pixels: np.ndarray, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, kind, **options)
    return buffer.getvalue()


# WebP container: RIFF chunks, https://developers.google.com/speed/webp/docs/riff_container


def _webp(clip: _Clip) -> bytes:
    clip.check_side(16383)
    if len(clip.frames) == 1:
        return _webp_picture(clip.frames[0])
    width, height = clip.size
    alpha, animation = 0x10, 0x02
    body = riff_chunk(b"VP8X", struct.pack("<I", alpha | animation) + _u24(width - 1) + _u24(height - 1))
    body += riff_chunk(b"ANIM", struct.pack("<IH", 0, clip.loop))
    replace_pixels = 0x02  # no blending: all pixels of the box, also transparent ones, replace the canvas
    for (box, pixels), ms in zip(clip.changes(align=2), clip.ticks(1, 1, 2**24 - 1), strict=True):
        left, top, right, bottom = box
        place = _u24(left // 2) + _u24(top // 2) + _u24(right - left - 1) + _u24(bottom - top - 1)
        picture = b"".join(riff_chunk(n, d) for n, d in riff_chunks(_webp_picture(pixels)) if n in _WEBP_PICTURE)
        body += riff_chunk(b"ANMF", place + _u24(ms) + bytes([replace_pixels]) + picture)
    return riff_chunk(b"RIFF", b"WEBP" + body)


_WEBP_PICTURE = (b"ALPH", b"VP8 ", b"VP8L")


def _webp_picture(pixels: np.ndarray) -> bytes:
    return _picture(pixels, "WEBP", lossless=True, exact=True, quality=50, method=2)


def _u24(value: int) -> bytes:
    return struct.pack("<I", value)[:3]


# APNG: https://www.w3.org/TR/png-3/#apng-frame-based-animation


def _png(clip: _Clip) -> bytes:
    if len(clip.frames) == 1:
        return _picture(clip.frames[0], "PNG")
    out, sequence = PNG_SIGNATURE, 0
    for index, ((box, pixels), delay) in enumerate(zip(clip.changes(), clip.fractions(), strict=True)):
        left, top, right, bottom = box
        chunks = list(png_chunks(_picture(pixels, "PNG")))
        if not index:
            out += png_chunk(b"IHDR", dict(chunks)[b"IHDR"])
            out += png_chunk(b"acTL", struct.pack(">II", len(clip.frames), clip.loop))
        keep, overwrite = 0, 0  # dispose and blend: leave the frame, replace all four channels
        control = struct.pack(">IIIIIHHBB", sequence, right - left, bottom - top, left, top, *delay, keep, overwrite)
        out, sequence = out + png_chunk(b"fcTL", control), sequence + 1
        for data in (data for name, data in chunks if name == b"IDAT"):
            if index:
                out += png_chunk(b"fdAT", struct.pack(">I", sequence) + data)
                sequence += 1
            else:
                out += png_chunk(b"IDAT", data)
    return out + png_chunk(b"IEND", b"")


def _fraction(ms: float) -> tuple[int, int]:
    """The fraction nearest to a time. Whole milliseconds stay thousandths."""
    if ms.is_integer():
        return int(ms), 1000
    seconds = Fraction(ms) / 1000
    nearest = seconds.limit_denominator(min(65535, int(65534 / seconds)))
    return max(1, nearest.numerator), nearest.denominator


# GIF: https://www.w3.org/Graphics/GIF/spec-gif89a.txt


def _gif(clip: _Clip) -> bytes:
    clip.check_side(65535)
    indices, palette = _palettise(clip.frames)
    global_palette_of_256 = 0xF7
    out = b"GIF89a" + struct.pack("<HHBBB", *clip.size, global_palette_of_256, GIF_COLOURS, 0)
    out += palette.tobytes()
    if len(clip.frames) > 1 and clip.loop != 1:
        repeats = max(0, clip.loop - 1)  # GIF counts repetitions
        out += b"\x21\xff\x0bNETSCAPE2.0\x03\x01" + struct.pack("<H", repeats) + b"\0"
    # Browsers show frames of 10 ms and less for 100 ms, so 20 ms is the shortest that means what it says.
    for frame, hundredths in zip(indices, clip.ticks(10, 2, 65535), strict=True):
        left, top, right, bottom = _bounds(frame != GIF_COLOURS)
        picture = Image.fromarray(np.ascontiguousarray(frame[top:bottom, left:right]))
        picture.putpalette(palette.tobytes())
        out += b"".join(
            GifImagePlugin.getdata(
                picture,
                (left, top),
                duration=hundredths * 10,
                disposal=2,  # clear to transparent, so that each frame stands for itself
                transparency=GIF_COLOURS,
            )
        )
    return out + b"\x3b"


def _palettise(frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``(n, h, w, 4)`` to palette indices ``(n, h, w)`` and the palette ``(256, 3)``; 255 is transparent.

    The colour of a half-transparent edge pixel is the sticker's own (straight alpha), so an edge pixel that
    stays takes that colour, with nothing of any background mixed in.
    """
    solid = frames[..., 3] >= GIF_ALPHA_THRESHOLD
    palette = np.zeros((GIF_COLOURS + 1, 3), np.uint8)
    indices = np.full(solid.shape, GIF_COLOURS, np.uint8)
    if solid.any():
        colours = Colours(frames[solid][:, :3])
        chosen = colours.palette(GIF_COLOURS)
        palette[: len(chosen)] = chosen
        indices[solid] = colours.nearest(chosen)
    return indices, palette


def _sheet(clip: _Clip) -> bytes:
    count, (width, height) = len(clip.frames), clip.size
    columns = min(count, SHEET_COLUMNS)
    sheet = np.zeros((math.ceil(count / columns) * height, columns * width, 4), np.uint8)
    for index, frame in enumerate(clip.frames):
        row, column = divmod(index, columns)
        sheet[row * height : (row + 1) * height, column * width : (column + 1) * width] = frame
    return _picture(sheet, "PNG")


_ENCODERS: dict[str, Callable[[_Clip], bytes]] = {".webp": _webp, ".png": _png, ".apng": _png, ".gif": _gif}


def _encoder(path: Path | str) -> Callable[[_Clip], bytes] | None:
    """What makes the file's bytes; None for a folder."""
    name, suffix = Path(path).name.lower(), Path(path).suffix.lower()
    if str(path).endswith(("/", os.sep)) or not suffix:
        return None
    if name.endswith(SHEET_SUFFIX):
        return _sheet
    if suffix not in _ENCODERS:
        known = ", ".join([SHEET_SUFFIX, *_ENCODERS])
        raise ValueError(f"{path}: unknown ending {suffix!r}; use one of {known}, or end with / for a folder")
    return _ENCODERS[suffix]
