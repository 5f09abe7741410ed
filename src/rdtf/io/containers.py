"""The chunks of PNG (https://www.w3.org/TR/png-3/) and of RIFF (WebP), as they stand in files."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def png_chunk(name: bytes, data: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png_chunks(file: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Names and contents of the complete chunks of a PNG. Checksums are not compared."""
    at = len(PNG_SIGNATURE)
    while at + 12 <= len(file):
        length, name = struct.unpack_from(">I4s", file, at)
        yield name, file[at + 8 : at + 8 + length]
        at += 12 + length


def riff_chunk(name: bytes, data: bytes) -> bytes:
    """A chunk of a RIFF file, or with the name ``RIFF`` the whole file."""
    return name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)


def riff_chunks(file: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Names and contents of the chunks of a RIFF file."""
    at = 12
    while at + 8 <= len(file):
        name, length = struct.unpack_from("<4sI", file, at)
        yield name, file[at + 8 : at + 8 + length]
        at += 8 + length + length % 2
