"""PNG: the chunks of a file, and its picture with the transparent colour applied at every depth.

Reference: https://www.w3.org/TR/png-3/. Pillow decodes the pixels. This module applies the transparent colour,
because Pillow compares it wrongly for 2, 4 and 16 bits.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageOps

from rdtf.io.containers import PNG_SIGNATURE, png_chunk, png_chunks
from rdtf.io.job import Job

_DRAWN = frozenset({b"IHDR", b"PLTE", b"IDAT", b"tRNS", b"eXIf", b"acTL", b"fcTL", b"fdAT", b"IEND"})
"""Chunks that change the picture. Damage to other chunks is ignored."""
_OPTIONAL = frozenset({b"tRNS", b"eXIf"})  # ignored if their checksum is wrong, as in libpng
_BY_PALETTE = 3
_CHANNELS = {0: 1, 2: 3, _BY_PALETTE: 1, 4: 2, 6: 4}
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""Left, top and the steps across and down of the passes of an interlaced file (Adam7)."""


def chunks(job: Job) -> Iterator[tuple[bytes, bytes]]:
    """Names and contents of the chunks that change the picture, up to the last one.

    Raises:
        StickerError: the file is cut short, or one of these chunks is damaged.
    """
    data, at, seen = job.data, len(PNG_SIGNATURE), set[bytes]()
    while at + 12 <= len(data):
        length, name = struct.unpack_from(">I4s", data, at)
        content, at = data[at + 8 : at + 8 + length], at + 12 + length
        if at > len(data):
            break
        if name in _DRAWN:
            if zlib.crc32(name + content) == int.from_bytes(data[at - 4 : at], "big"):
                if name == b"IHDR" and (any(content[10:12]) or content[12:13] not in (b"\0", b"\1")):
                    raise job.refuse("is a PNG of an unknown kind (of compressing, filtering or interlacing)")
                seen.add(name)
                yield name, content
            elif name not in _OPTIONAL:
                raise job.refuse(f"its chunk {name.decode()} is damaged (the checksum is wrong)")
        if name == b"IEND":
            if not seen >= {b"IHDR", b"IDAT"}:
                raise job.refuse("is a PNG without a picture")
            if data[25] == _BY_PALETTE and b"PLTE" not in seen:
                raise job.refuse("is a PNG that has no palette")
            return
    raise job.refuse("is cut short; fetch the file again")


def still_png(job: Job) -> bytes:
    """The file with only the chunks that change its picture."""
    kept = (b"IHDR", b"PLTE", b"IDAT", b"tRNS", b"eXIf", b"IEND")
    return PNG_SIGNATURE + b"".join(png_chunk(name, data) for name, data in chunks(job) if name in kept)


def decode_png(file: bytes) -> np.ndarray:
    """``(h, w, 4)`` pixels of a PNG without animation chunks, with the rotation of its EXIF data. 16 bits become 8.

    Raises:
        ValueError: rows are missing, which Pillow ignores.
        OSError: the file cannot be decoded.
    """
    depth, colour = file[24], file[25]
    with Image.open(io.BytesIO(file), formats=("PNG",)) as opened:
        image: Image.Image = opened
        image.load()
        width, height = image.size
        last_row = image.crop((0, height - 1, width, height)).tobytes()
        if file[28] or not any(last_row):  # a last row that is not empty was in the file, unless that is interlaced
            _check_rows(file)
        transparent = dict(png_chunks(file)).get(b"tRNS") if colour in (0, 2) else None
        mask = None
        if transparent is not None:
            key = struct.unpack(f">{len(transparent) // 2}H", transparent)  # samples, of the file's depth
            image.info.pop("transparency", None)
            samples = np.asarray(image).astype(np.uint16)
            if colour == 2:  # of 16 bits Pillow gives the upper 8
                mask = (samples == np.asarray(key) // (256 if depth == 16 else 1)).all(-1)
            else:
                mask = (samples * (2**depth - 1) // 255 if 1 < depth < 8 else samples) == key[0]
        if image.mode.startswith("I"):  # 16-bit grey, which convert() would clip at 255
            image = Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8))
        pixels = image.convert("RGBA")
        if mask is not None:
            pixels.putalpha(Image.fromarray(np.where(mask, 0, 255).astype(np.uint8)))
    return np.array(ImageOps.exif_transpose(pixels))


def _check_rows(file: bytes) -> None:
    width, height, depth, colour, _, _, interlaced = struct.unpack_from(">IIBBBBB", file, 16)
    passes = _PASSES if interlaced else ((0, 0, 1, 1),)
    sizes = [(-(-(height - y) // down), -(-(width - x) // across)) for x, y, across, down in passes]
    # A row has a byte for its filter.
    missing = sum(h * (1 - (-w * _CHANNELS[colour] * depth // 8)) for h, w in sizes if h > 0 and w > 0)
    inflate = zlib.decompressobj()
    data = b"".join(content for name, content in png_chunks(file) if name == b"IDAT")
    while missing > 0 and (part := inflate.decompress(data, 1 << 20)):
        missing, data = missing - len(part), inflate.unconsumed_tail
    if missing > 0:
        raise ValueError("its picture is cut short")
