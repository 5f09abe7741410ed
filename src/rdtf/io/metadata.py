"""A note inside a sticker file: XMP in WebP, a text chunk in PNG and APNG, a comment in GIF, a tag in WebM.

The note is written into a finished file, and read without decoding pictures. Sizes are checked, because files come from
anywhere. Files that are cut short or of another kind have no note.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterator
from typing import Any
from xml.sax.saxutils import escape, unescape

from rdtf.io.containers import PNG_SIGNATURE, png_chunk, png_chunks, riff_chunk, riff_chunks

NOTE = "provenance"
"""Attribute of a sticker that holds the note of its file."""
TAG = "RDTF"
_KEY = "rdtf"
MAX_BYTES = 1 << 16
_XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about="" xmlns:rdtf="urn:rdtf"><rdtf:made>{}</rdtf:made></rdf:Description>'
    "</rdf:RDF></x:xmpmeta>"
)
_EBML = b"\x1a\x45\xdf\xa3"
_IHDR_END = 33
_SEGMENT, _TAGS, _TAG, _SIMPLE, _NAME, _TEXT = (
    bytes.fromhex(name) for name in ("18538067", "1254c367", "7373", "67c8", "45a3", "4487")
)


def with_note(file: bytes, note: dict[str, Any]) -> bytes:
    """A PNG, APNG, GIF or WebP file with a note; any other file unchanged.

    The note of a WebM is written by its encoder, as the tag :data:`TAG`: FFmpeg looks for tags before the pictures.

    Args:
        note: JSON-able, at most 64 KiB.

    Raises:
        ValueError: the note is too long.
    """
    text = note_text(note)
    if file.startswith(PNG_SIGNATURE):
        body = _KEY.encode() + b"\0\0\0\0\0" + text.encode()  # not compressed, no language, no translated keyword
        return file[:_IHDR_END] + png_chunk(b"iTXt", body) + file[_IHDR_END:]
    if file.startswith(b"GIF89a"):
        data = f"{_KEY} {text}".encode()
        blocks = b"".join(bytes([len(part)]) + part for part in (data[i : i + 255] for i in range(0, len(data), 255)))
        return file[:-1] + b"\x21\xfe" + blocks + b"\0" + file[-1:]
    if file.startswith(b"RIFF") and file[8:12] == b"WEBP":
        return _webp_with(file, _XMP.format(escape(text)).encode())
    return file


def note_text(note: dict[str, Any]) -> str:
    """The note as JSON in ASCII.

    Raises:
        ValueError: the note is too long.
    """
    text = json.dumps(note, ensure_ascii=True, separators=(",", ":"), sort_keys=True)
    if len(text) > MAX_BYTES:
        raise ValueError(f"a note of {len(text):,} bytes is too long for a file's metadata (at most {MAX_BYTES:,})")
    return text


def note_of(file: bytes) -> dict[str, Any] | None:
    """The note of a file, or None."""
    try:
        text = _text_of(file)
        note = json.loads(text) if text else None
    except (struct.error, IndexError, ValueError, RecursionError):
        return None
    return note if isinstance(note, dict) else None


def _text_of(file: bytes) -> str | None:
    if file.startswith(PNG_SIGNATURE):
        for name, body in png_chunks(file):
            if name == b"iTXt" and body.startswith(_KEY.encode() + b"\0\0\0\0\0"):
                return _short(body[len(_KEY) + 5 :])
    elif file.startswith(b"GIF89a"):
        for comment in _gif_comments(file):
            if comment.startswith(_KEY.encode() + b" "):
                return _short(comment[len(_KEY) + 1 :])
    elif file.startswith(b"RIFF") and file[8:12] == b"WEBP":
        for name, body in riff_chunks(file):
            if name == b"XMP " and (found := re.search(r"<rdtf:made>(.*?)</rdtf:made>", _short(body) or "", re.DOTALL)):
                return unescape(found[1])
    elif file.startswith(_EBML):
        return _webm_text(file)
    return None


def _short(text: bytes) -> str | None:
    return text.decode("utf-8") if len(text) <= 2 * MAX_BYTES else None


# GIF


def _gif_comments(file: bytes) -> Iterator[bytes]:
    def table(flags: int) -> int:
        return 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0

    at = 13 + table(file[10])
    while file[at] != 0x3B:
        label = file[at : at + 2]
        at += 2 if label[0] == 0x21 else 10 + table(file[at + 9]) + 1
        parts = []
        while size := file[at]:
            if label == b"\x21\xfe":
                parts.append(file[at + 1 : at + 1 + size])
            at += 1 + size
        at += 1
        if parts:
            yield b"".join(parts)


# WebP


def _webp_with(file: bytes, xmp: bytes) -> bytes:
    chunks = [chunk for chunk in riff_chunks(file) if chunk[0] != b"XMP "]
    name, first = chunks[0]
    if name != b"VP8X":
        width, height, alpha = _webp_size(name, first)
        sides = struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
        chunks.insert(0, (b"VP8X", struct.pack("<I", 0x10 if alpha else 0) + sides))
    name, head = chunks[0]
    chunks[0] = name, bytes([head[0] | 0x04]) + head[1:]
    return riff_chunk(b"RIFF", b"WEBP" + b"".join(riff_chunk(n, d) for n, d in [*chunks, (b"XMP ", xmp)]))


def _webp_size(name: bytes, data: bytes) -> tuple[int, int, bool]:
    """Width, height and alpha of a file with one picture and no other chunks."""
    if name == b"VP8L":
        bits = struct.unpack_from("<I", data, 1)[0]
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1, bool(bits >> 28 & 1)
    width, height = struct.unpack_from("<HH", data, 6)
    return width & 0x3FFF, height & 0x3FFF, False


# WebM: EBML elements


def _number(file: bytes, at: int) -> tuple[int, int]:
    """A size of variable length, and the offset after it."""
    length = 9 - file[at].bit_length()
    return int.from_bytes(file[at : at + length], "big") & (1 << 7 * length) - 1, at + length


def _elements(file: bytes, at: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Names of elements with start and end of their bodies."""
    while at < end:
        name_end = at + 9 - file[at].bit_length()
        size, body = _number(file, name_end)
        yield file[at:name_end], body, min(body + size, end)
        at = body + size


def _webm_text(file: bytes) -> str | None:
    def inside(name: bytes, start: int, end: int) -> Iterator[tuple[int, int]]:
        return ((body, stop) for found, body, stop in _elements(file, start, end) if found == name)

    for segment in inside(_SEGMENT, 0, len(file)):
        for tags in inside(_TAGS, *segment):
            for tag in inside(_TAG, *tags):
                for simple in inside(_SIMPLE, *tag):
                    parts = {name: file[body:end] for name, body, end in _elements(file, *simple)}
                    if parts.get(_NAME) == TAG.encode():
                        return _short(parts.get(_TEXT, b""))
    return None
