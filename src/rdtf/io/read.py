"""Reading of sticker files of every common kind: straight-alpha RGBA frames with their timing.

Files come from anywhere. So each file is checked against :class:`~rdtf.io.job.ReadLimits` before it is decoded, the
first bytes choose the decoder, and every error is a :class:`~rdtf.sticker.StickerError` with a reason. A hostile file
may still crash native decoders or keep them busy. So this module runs in processes that may end (:mod:`rdtf.io.wall`,
:mod:`rdtf.data.workers`), or reads files that RDTF wrote.
"""

from __future__ import annotations

import functools
import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np

from rdtf.io.job import Frames, Job
from rdtf.io.lottie import inflated, is_deflated, read_dotlottie, read_lottie
from rdtf.io.pictures import AVIF_BRANDS, AVIF_READABLE, HEIF_BRANDS, OTHER_BRANDS, brands, read_picture
from rdtf.io.svg import read_svg
from rdtf.io.video import read_video
from rdtf.sticker import Sticker, StickerError

__all__ = ["SUFFIXES", "read_sticker", "read_sticker_bytes"]

LEFT_OUT = "left_out"
"""Attribute of a sticker: sentences about parts of its file that were not drawn. Missing if there are none."""
_AVIF = frozenset({".avif", ".avifs"}) if AVIF_READABLE else frozenset()
SUFFIXES = _AVIF | {
    ".gif", ".webp", ".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".json", ".lottie", ".tgs", ".svg", ".svgz",
    ".webm", ".mkv", ".mp4", ".m4v", ".mov",
}  # fmt: skip
"""Endings of the files that can be read, in lower case."""


def read_sticker(
    path: Path | str,
    *,
    size: int | None = None,
    max_frames: int | None = None,
) -> Sticker:
    """Read GIF, WebP, (A)PNG, JPEG, AVIF, Lottie JSON, dotLottie, TGS, WebM, MP4 or MOV, still or animated.

    The file's first bytes name its kind, not its ending. The colour under alpha 0 becomes 0. A still picture lasts
    1 s. GIF frames of 10 ms or less last 100 ms, as in browsers.

    Args:
        path: the file.
        size: scale into a ``size`` x ``size`` transparent canvas, aspect kept; vector files are drawn at that
            size. Without it frames keep the file's size, and a vector file's longer side is at most 512 px.
        max_frames: if the file has more frames, keep at most this many, on an even grid over its time. A kept
            frame lasts until the next one, so the total duration stays. Vector files are drawn at exactly the
            grid's times.

    Raises:
        StickerError: the file cannot be read, is damaged or cut short, is beyond the limits, or of no kind
            that is supported.
        ValueError: ``size`` or ``max_frames`` below 1.
    """
    path = Path(path)
    return read_sticker_bytes(load_file(path), path, size=size, max_frames=max_frames)


def read_sticker_bytes(
    data: bytes,
    name: Path | str,
    *,
    size: int | None = None,
    max_frames: int | None = None,
) -> Sticker:
    """:func:`read_sticker` for the bytes of a file, which errors call ``name``: the member of an archive, a cell."""
    for option, value in (("size", size), ("max_frames", max_frames)):
        if value is not None and value < 1:
            raise ValueError(f"{option} must be 1 or more, got {value}")
    path = Path(name)
    if not data:
        raise StickerError(path, "is empty")
    try:
        job = Job(path, data, size, max_frames)
        frames, durations = _reader(path, data)(job)
    except StickerError:
        raise
    except Exception as error:  # decoders raise many types for damaged files
        raise StickerError(path, f"cannot be decoded ({type(error).__name__}: {error})") from error
    return Sticker(np.stack(frames), durations, attributes={LEFT_OUT: job.left_out} if job.left_out else {})


def load_file(path: Path) -> bytes:
    """The bytes of a file.

    Raises:
        StickerError: it cannot be read, or is larger than any sticker may be.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise StickerError(path, "is not a file")
        most = Job.limits.file_bytes
        if status.st_size > most:
            raise StickerError(path, f"{status.st_size / 2**20:.0f} MiB is too large (at most {most / 2**20:.0f})")
        return path.read_bytes()
    except OSError as error:
        raise StickerError(path, error.strerror or str(error)) from error


def _reader(path: Path, data: bytes) -> Callable[[Job], Frames]:
    """The reader for a file's first bytes."""
    for magic, kind in _PICTURES.items():
        if data.startswith(magic):
            return functools.partial(read_picture, kind=kind)
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return functools.partial(read_picture, kind="WEBP")
    if data.startswith(b"\x1a\x45\xdf\xa3"):
        return functools.partial(read_video, kind="matroska")
    if data[4:8] == b"ftyp":
        return _media_reader(path, brands(data))
    if data[4:8] in (b"moov", b"mdat", b"wide", b"free", b"skip"):
        return functools.partial(read_video, kind="mov")
    if is_deflated(data):
        return _read_deflated
    if data.startswith(b"PK\3\4"):
        return read_dotlottie
    text = data[:512].lstrip(_BLANK)
    if data.startswith(_UTF16) and data[:512].decode("utf-16", "ignore").lstrip().startswith("<"):
        raise StickerError(path, "is XML in UTF-16; save it as UTF-8")
    if text.startswith(b"{") or data.startswith(_UTF16):
        return read_lottie
    if text.startswith(_XML):
        return read_svg
    for beginning, what in _NOT_STICKERS.items():
        if text.lower().startswith(beginning):
            raise StickerError(path, what)
    for beginning, name in _OTHER_KINDS.items():
        if data.startswith(beginning) or (beginning == b"AVI " and data[8:12] == beginning):
            raise StickerError(path, f"is {name}, which is not read; convert it to PNG, WebP, GIF or WebM")
    readable = ", ".join(sorted(SUFFIXES))
    raise StickerError(path, f"its first bytes are of no kind that can be read ({readable})")


def _read_deflated(job: Job) -> Frames:
    """A TGS file, or a compressed SVG picture (.svgz)."""
    inner = inflated(job)
    text = inner.data[:512].lstrip(_BLANK)
    if text.startswith(_XML):
        return read_svg(inner)
    if text.startswith(b"{") or inner.data.startswith(_UTF16):
        return read_lottie(inner)
    raise job.refuse("is compressed (gzip or zlib), and holds neither Lottie nor SVG")


def _media_reader(path: Path, known: list[bytes]) -> Callable[[Job], Frames]:
    """The reader for AVIF or video, which share a container. Other files in it are refused by name."""
    if AVIF_BRANDS & {*known}:
        if AVIF_READABLE:
            return functools.partial(read_picture, kind="AVIF")
        raise StickerError(path, "is an AVIF picture, which this Pillow was built without; install Pillow's wheel")
    name = "HEIC" if HEIF_BRANDS & {*known} else next((OTHER_BRANDS[b] for b in known if b in OTHER_BRANDS), None)
    if name is not None:
        raise StickerError(path, f"is {name}, which is not read; convert it to PNG, WebP or AVIF")
    return functools.partial(read_video, kind="mov")


_BLANK = b"\xef\xbb\xbf \t\r\n"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_XML = (b"<svg", b"<?xml", b"<!--", b"<!DOCTYPE svg")
_PICTURES = {
    b"GIF8": "GIF",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG",
}
_NOT_STICKERS = {
    b"<!doctype html": "is a web page and no sticker; the download has failed, fetch the file again",
    b"<html": "is a web page and no sticker; the download has failed, fetch the file again",
    b"version https://git-lfs": "is a Git LFS pointer and not the file itself; run `git lfs pull`",
}
_OTHER_KINDS = {
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"\0\0\0\x0cjP  ": "JPEG 2000",
    b"BM": "a BMP picture",
    b"II*\0": "a TIFF picture",
    b"MM\0*": "a TIFF picture",
    b"%PDF": "a PDF document",
    b"AVI ": "an AVI video",
}
