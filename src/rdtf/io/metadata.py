"""A note inside a sticker file: XMP in WebP, a text chunk in PNG and APNG, a comment in GIF, a tag in WebM.

The note is read without decoding pictures. Its size is checked, because files come from anywhere. Files that are cut
short or of another kind have no note.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Mapping
from typing import Any
from xml.sax.saxutils import escape, unescape

from rdtf.io.containers import PNG_SIGNATURE, png_chunk, png_chunks, riff_chunks

NOTE = "provenance"
"""Attribute of a sticker that holds the note of its file."""
TAG = "RDTF"
"""Name of the note among a WebM's tags."""
MAX_BYTES = 1 << 16
_XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about="" xmlns:rdtf="urn:rdtf"><rdtf:made>{}</rdtf:made></rdf:Description>'
    "</rdf:RDF></x:xmpmeta>"
)
_PNG_TEXT = b"rdtf\0\0\0\0\0"  # keyword; not compressed, no language, no translated keyword
_GIF_COMMENT = re.compile(rb"\x21\xfe(?=.rdtf \{)", re.DOTALL)
_WEBM_TAG = b"\x45\xa3\x84" + TAG.encode() + b"\x44\x87"  # the element of the name, and the beginning of its text


def note_text(note: Mapping[str, Any]) -> str:
    """The note as JSON in ASCII.

    Raises:
        ValueError: the note is longer than 64 KiB.
    """
    text = json.dumps(note, ensure_ascii=True, separators=(",", ":"), sort_keys=True)
    if len(text) > MAX_BYTES:
        raise ValueError(f"a note of {len(text):,} bytes is too long for a file's metadata (at most {MAX_BYTES:,})")
    return text


def xmp_note(note: Mapping[str, Any]) -> bytes:
    """The note as the XMP of a WebP."""
    return _XMP.format(escape(note_text(note))).encode()


def png_note(note: Mapping[str, Any]) -> bytes:
    """The note as a chunk, which stands behind a PNG's header."""
    return png_chunk(b"iTXt", _PNG_TEXT + note_text(note).encode())


def gif_note(note: Mapping[str, Any]) -> bytes:
    """The note as a comment, which stands before a GIF's trailer."""
    data = f"rdtf {note_text(note)}".encode()
    return (
        b"\x21\xfe"
        + b"".join(bytes([len(p)]) + p for p in (data[i : i + 255] for i in range(0, len(data), 255)))
        + b"\0"
    )


def note_of(file: bytes) -> dict[str, Any] | None:
    """The note of a file, or None."""
    try:
        text = _text_of(file)
        note = json.loads(text) if text and len(text) <= 2 * MAX_BYTES else None
    except (struct.error, IndexError, ValueError, RecursionError):
        return None
    return note if isinstance(note, dict) else None


def _text_of(file: bytes) -> str | bytes | None:
    if file.startswith(PNG_SIGNATURE):
        texts = (body for name, body in png_chunks(file) if name == b"iTXt" and body.startswith(_PNG_TEXT))
        return next(texts, b"")[len(_PNG_TEXT) :]
    if file.startswith(b"RIFF") and file[8:12] == b"WEBP":
        xmp = next((body for name, body in riff_chunks(file) if name == b"XMP "), b"")[: 4 * MAX_BYTES].decode("utf-8")
        found = re.search(r"<rdtf:made>(.*?)</rdtf:made>", xmp, re.DOTALL)
        return unescape(found[1]) if found else None
    if file.startswith(b"GIF89a") and (comments := [*_GIF_COMMENT.finditer(file)]):
        at, parts = comments[-1].end(), []
        while size := file[at]:
            parts.append(file[at + 1 : at + 1 + size])
            at += 1 + size
        return b"".join(parts)[len(b"rdtf ") :]
    if file.startswith(b"\x1a\x45\xdf\xa3") and (at := file.find(_WEBM_TAG)) >= 0:
        at += len(_WEBM_TAG)
        width = 9 - file[at].bit_length()  # of the size, whose first bits say how many bytes it has
        size = int.from_bytes(file[at : at + width], "big") & (1 << 7 * width) - 1
        return file[at + width : at + width + size]
    return None
