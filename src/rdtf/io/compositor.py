"""Composition of GIF and APNG frames, which are drawn on top of each other.

Pillow decodes each frame as a file of one picture. This module draws the frames and disposes of them as the
specifications and browsers do.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image

from rdtf.io.containers import PNG_SIGNATURE, png_chunk
from rdtf.io.job import Job
from rdtf.io.png import chunks, decode_png

KEEP, CLEAR, RESTORE = 1, 2, 3
"""Disposal of a frame before the next one is drawn: it stays, its box becomes transparent, or it is undone."""


class Layer(NamedTuple):
    """One frame of a file before it is composed.

    Attributes:
        file: a GIF or PNG file with only this frame.
        box: left, top, width and height on the canvas.
        delay: milliseconds in the file.
        disposal: KEEP, CLEAR or RESTORE.
        over: blend over the canvas, or replace its pixels and alpha.
        transparent: the palette index that is not drawn (GIF).
    """

    file: bytes
    box: tuple[int, int, int, int]
    delay: float
    disposal: int
    over: bool
    transparent: int | None = None


class Layers(NamedTuple):
    """The frames of a file, and the size of its canvas."""

    width: int
    height: int
    layers: list[Layer]


def compose(job: Job, file: Layers) -> Iterator[np.ndarray]:
    """The canvas ``(h, w, 4)`` after each frame. The next frame changes the same array, so copy it."""
    canvas = np.zeros((file.height, file.width, 4), np.uint8)
    for index, layer in enumerate(file.layers):
        left, top, width, height = layer.box
        try:
            pixels = _gif_pixels(layer) if layer.file.startswith(b"GIF") else decode_png(layer.file)
        except Exception as error:  # decoders raise many types for damaged files
            raise job.refuse(f"its frame {index} is damaged or cut short ({error})") from error
        visible = canvas[top : top + height, left : left + width]
        pixels = pixels[: visible.shape[0], : visible.shape[1]]
        before = visible.copy() if layer.disposal == RESTORE else None
        if layer.over:  # straight alpha over straight alpha: a = a1 + a2 (1 - a1), c = (c1 a1 + c2 a2 (1 - a1)) / a
            below, above = (Image.fromarray(np.ascontiguousarray(part)) for part in (visible, pixels))
            pixels = np.asarray(Image.alpha_composite(below, above))
        visible[:] = pixels
        yield canvas
        if before is not None:
            visible[:] = before
        elif layer.disposal == CLEAR:
            visible[:] = 0


# GIF: https://www.w3.org/Graphics/GIF/spec-gif89a.txt


def gif_layers(data: bytes) -> Layers:
    """Read the blocks of a GIF. The trailer may be missing, and data after it are ignored.

    Raises:
        IndexError, struct.error: the file is cut short.
    """
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    at = 13 + _table_bytes(flags)
    shared = (flags & 0x87, data[13:at])
    layers: list[Layer] = []
    delay, disposal, transparent = 0.0, KEEP, None
    while at < len(data):
        kind, at = data[at], at + 1
        if kind == 0x21:
            end = _gif_blocks_end(data, at + 1)
            if data[at] == 0xF9:  # graphic control
                packed, hundredths, index = struct.unpack_from("<BHB", data, at + 2)
                delay, transparent = hundredths * 10.0, index if packed & 1 else None
                disposal = {2: CLEAR, 3: RESTORE, 4: RESTORE}.get(packed >> 2 & 7, KEEP)  # 4: as browsers do
            elif data[at] == 0x01:  # plain text is not drawn, and ends the effect of the graphic control
                delay, disposal, transparent = 0.0, KEEP, None
            at = end
        elif kind == 0x2C:
            left, top, w, h, packed = struct.unpack_from("<HHHHB", data, at)
            start, at = at + 9, at + 9 + _table_bytes(packed)
            table = (packed & 0x87, data[start:at]) if packed & 0x80 else shared
            end = _gif_blocks_end(data, at + 1)
            if not (w and h):  # as browsers do
                w, h = width, height
            if not (width and height):
                width, height = left + w, top + h
            head = b"GIF89a" + struct.pack("<HHBBB", w, h, table[0], 0, 0) + table[1]
            picture = head + b"," + struct.pack("<HHHHB", 0, 0, w, h, packed & 0x40) + data[at:end] + b";"
            layers.append(Layer(picture, (left, top, w, h), delay, disposal, True, transparent))
            delay, disposal, transparent = 0.0, KEEP, None
            at = end
        else:  # the trailer, or unknown data, where browsers stop too
            break
    return Layers(width, height, layers)


def _table_bytes(flags: int) -> int:
    return 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0


def _gif_blocks_end(data: bytes, at: int) -> int:
    """The end of a row of sub-blocks, after its empty last block."""
    while data[at]:
        at += 1 + data[at]
    return at + 1


def _gif_pixels(layer: Layer) -> np.ndarray:
    flags = layer.file[10]
    if not flags & 0x80:
        raise ValueError("it has no table of colours")
    with Image.open(io.BytesIO(layer.file), formats=("GIF",)) as image:
        indices = np.asarray(image)
        palette = np.array(image.getpalette("RGB") or range(768), np.uint8).reshape(-1, 3)
    colours = np.zeros((256, 4), np.uint8)  # an index beyond the table is transparent, as in browsers
    colours[: len(palette), :3], colours[: len(palette), 3] = palette, 255
    colours[2 ** ((flags & 7) + 1) :] = 0
    if layer.transparent is not None:
        colours[layer.transparent] = 0
    return colours[indices]


# APNG: https://www.w3.org/TR/png-3/#apng-frame-based-animation


def apng_layers(job: Job) -> Layers | None:
    """Read the frames of an APNG; None if the PNG is a still."""
    every = list(chunks(job))
    names = [name for name, _ in every]
    if b"acTL" not in names[: names.index(b"IDAT")]:
        return None
    said = struct.unpack_from(">I", dict(every)[b"acTL"])[0]
    if not said:  # an invalid number; browsers show the still
        return None
    header = dict(every)[b"IHDR"]
    width, height = struct.unpack_from(">II", header)
    shared = b"".join(png_chunk(n, d) for n, d in every if n in (b"PLTE", b"tRNS"))
    controls: list[tuple[bytes, list[bytes]]] = []
    sequence = 0
    for name, data in every:
        if name in (b"fcTL", b"fdAT"):
            if struct.unpack_from(">I", data)[0] != sequence:
                raise job.refuse("is a damaged APNG: its frames are out of order")
            sequence += 1
        if name == b"fcTL":
            controls.append((data, []))
        elif name in (b"IDAT", b"fdAT") and controls:  # a picture before the first control is no frame
            controls[-1][1].append(data if name == b"IDAT" else data[4:])
    if said != len(controls):
        raise job.refuse(f"is a damaged APNG: it says {said} frames and has {len(controls)}")
    layers = []
    for control, parts in controls:
        w, h, left, top, over, under, disposal, blend = struct.unpack_from(">IIIIHHBB", control, 4)
        if not (w and h and left + w <= width and top + h <= height):
            raise job.refuse("is a damaged APNG: a frame lies outside of its canvas")
        head = png_chunk(b"IHDR", struct.pack(">II", w, h) + header[8:]) + shared
        file = PNG_SIGNATURE + head + png_chunk(b"IDAT", b"".join(parts)) + png_chunk(b"IEND", b"")
        how = {1: CLEAR, 2: RESTORE}.get(disposal, KEEP)
        layers.append(Layer(file, (left, top, w, h), 1000 * over / (under or 100), how, blend == 1))
    return Layers(width, height, layers)
