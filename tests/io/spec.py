"""PNG and GIF files written byte by byte from their specifications, with the pixels that they show."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

import numpy as np

PNG = b"\x89PNG\r\n\x1a\n"
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
"""Bits of a sample by the type of colour: grey, RGB, palette, grey and alpha, RGBA."""
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def chunk(name: bytes, data: bytes, *, right: bool = True) -> bytes:
    check = zlib.crc32(name + data) ^ (0 if right else 1)
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", check)


def _filtered(kind: int, row: bytes, above: bytes, step: int) -> bytes:
    out = bytearray([kind])
    for at, value in enumerate(row):
        left, up = row[at - step] if at >= step else 0, above[at]
        corner = above[at - step] if at >= step else 0
        guess = left + up - corner
        paeth = min((left, up, corner), key=lambda near: abs(guess - near))
        out.append((value - (0, left, up, (left + up) // 2, paeth)[kind]) & 255)
    return bytes(out)


def scanlines(samples: np.ndarray, depth: int, interlaced: bool = False) -> bytes:
    """The deflated rows of samples ``(h, w, channels)``, with each filter in turn."""
    out, count = b"", 0
    step = max(1, samples.shape[2] * depth // 8)
    for x, y, across, down in _ADAM7 if interlaced else ((0, 0, 1, 1),):
        part = samples[y::down, x::across]
        above = bytes(8 * part.size)
        for row in part if part.size else ():
            bits = "".join(f"{value:0{depth}b}" for value in row.ravel().tolist())
            data = int(bits + "0" * (-len(bits) % 8), 2).to_bytes(-(-len(bits) // 8), "big")
            out, above, count = out + _filtered(count % 5, data, above, step), data, count + 1
    return zlib.compress(out)


def png_head(width: int, height: int, depth: int, colour: int, interlaced: bool = False) -> bytes:
    return PNG + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced))


def shown(
    samples: np.ndarray, depth: int, colour: int, palette: np.ndarray | None = None, transparent: bytes = b""
) -> np.ndarray:
    """RGBA of samples; the upper 8 of 16 bits. ``transparent`` is the content of the chunk tRNS."""
    samples = samples.astype(int)
    bits = samples >> 8 if depth == 16 else samples * 255 // (2**depth - 1)
    pixels = np.full((*samples.shape[:2], 4), 255)
    if palette is not None:
        alphas = np.full(256, 255)
        alphas[: len(transparent)] = list(transparent)
        pixels[..., :3], pixels[..., 3] = palette[samples[..., 0]], alphas[samples[..., 0]]
        return pixels
    pixels[..., :3] = bits[..., :3] if colour & 2 else bits[..., :1]
    if colour & 4:
        pixels[..., 3] = bits[..., -1]
    elif transparent:
        key = struct.unpack(f">{len(transparent) // 2}H", transparent)
        pixels[..., 3] = np.where((samples == np.array(key)).all(-1), 0, 255)
    return pixels


def _lzw(indices: Sequence[int], bits: int) -> bytes:
    """GIF's packed codes; the table is never cleared after its start, also when it is full."""
    out, held, used = bytearray(), 0, 0
    clear, size = 1 << bits, bits + 1
    table = {(index,): index for index in range(clear)}
    following = clear + 2
    before: tuple[int, ...] = ()

    def put(code: int) -> None:
        nonlocal held, used
        held, used = held | code << used, used + size
        while used >= 8:
            out.append(held & 255)
            held, used = held >> 8, used - 8

    put(clear)
    for index in indices:
        if (*before, index) in table:
            before = (*before, index)
            continue
        put(table[before])
        if following < 4096:
            table[(*before, index)] = following
            size += following == 1 << size and size < 12
            following += 1
        before = (index,)
    put(table[before])
    size += following == 1 << size and size < 12
    put(clear + 1)
    return bytes(out) + bytes([held & 255])


def blocks(data: bytes) -> bytes:
    return b"".join(bytes([len(data[at : at + 255])]) + data[at : at + 255] for at in range(0, len(data), 255)) + b"\0"


def table_flags(palette: np.ndarray) -> int:
    return 0x80 | (len(palette).bit_length() - 2)


def gif_frame(
    indices: np.ndarray,
    box: tuple[int, int, int, int],
    palette: np.ndarray | None = None,
    interlaced: bool = False,
    bits: int = 8,
) -> bytes:
    """An image of a GIF; its box may say otherwise than its indices."""
    height = len(indices)
    order = [*range(0, height, 8), *range(4, height, 8), *range(2, height, 4), *range(1, height, 2)]
    rows = indices[order] if interlaced else indices
    flags = (0x40 if interlaced else 0) | (0 if palette is None else table_flags(palette))
    table = b"" if palette is None else palette.tobytes()
    return b"," + struct.pack("<HHHHB", *box, flags) + table + bytes([bits]) + blocks(_lzw(rows.ravel().tolist(), bits))


def gif_control(disposal: int, delay: int, transparent: int | None) -> bytes:
    """The graphic control of the next image; the delay is in hundredths of a second."""
    flags = disposal << 2 | (transparent is not None)
    return b"!\xf9\4" + struct.pack("<BHB", flags, delay, transparent or 0) + b"\0"
