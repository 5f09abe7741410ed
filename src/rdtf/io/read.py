"""Reading of sticker files of every common kind: straight-alpha RGBA frames with their timing.

Files come from anywhere. So each file is checked against :class:`~rdtf.io.job.ReadLimits` before it is decoded, the
first bytes choose the decoder, and every error is a :class:`~rdtf.sticker.StickerError` with a reason. A hostile file
may still crash native decoders or keep them busy. So this module runs in processes that may end (:mod:`rdtf.io.wall`,
:mod:`rdtf.data.workers`), or reads files that RDTF wrote.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from rdtf.io.job import Frames, Job
from rdtf.io.lottie import inflated, read_dotlottie, read_lottie
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


def read_sticker(path: Path | str, *, size: int | None = None, max_frames: int | None = None) -> Sticker:
    """:func:`rdtf.io.wall.read_sticker` in this process.

    The colour under alpha 0 becomes 0. A still picture lasts 1 s. GIF frames of 10 ms or less last 100 ms, as in
    browsers. Vector files are drawn at exactly the times of the grid.
    """
    path = Path(path)
    return read_sticker_bytes(load_file(path), path, size=size, max_frames=max_frames)


def read_sticker_bytes(
    data: bytes, name: Path | str, *, size: int | None = None, max_frames: int | None = None
) -> Sticker:
    """:func:`read_sticker` for the bytes of a file, which errors call ``name``: the member of an archive, a cell."""
    check_wishes(size, max_frames)
    path = Path(name)
    try:
        job = Job(path, data, size, max_frames)
        frames, durations = _read(job)
    except StickerError:
        raise
    except Exception as error:  # decoders raise many types for damaged files
        raise StickerError(path, f"cannot be decoded ({type(error).__name__}: {error})") from error
    return Sticker(np.stack(frames), durations, attributes={LEFT_OUT: job.left_out} if job.left_out else {})


def check_wishes(size: int | None, max_frames: int | None) -> None:
    """Check the arguments of :func:`read_sticker`.

    Raises:
        ValueError: one is below 1.
    """
    for option, value in (("size", size), ("max_frames", max_frames)):
        if value is not None and value < 1:
            raise ValueError(f"{option} must be 1 or more, got {value}")


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


def _read(job: Job) -> Frames:
    kind = _kind(job.data)
    if isinstance(kind, str):
        raise job.refuse(kind)
    return kind(job)


def _kind(data: bytes) -> Reader | str:
    """What reads a file that begins like this, or why it is not read."""
    readable = ", ".join(sorted(SUFFIXES))
    unknown = f"its first bytes are of no kind that can be read ({readable})" if data else "is empty"
    return next((kind for first, kind in _KINDS.items() if re.match(first, data[:512], re.DOTALL)), unknown)


def _read_deflated(job: Job) -> Frames:
    """A TGS file, or a compressed SVG picture (.svgz)."""
    inner = inflated(job)
    kind = _kind(inner.data)
    if kind is read_lottie or kind is read_svg:
        return kind(inner)
    raise job.refuse("is compressed (gzip or zlib), and holds neither Lottie nor SVG")


def _read_media(job: Job) -> Frames:
    """AVIF or video, which share a container. Other files in it are refused by name."""
    known = brands(job.data)
    if AVIF_BRANDS & {*known}:
        if AVIF_READABLE:
            return read_picture(job, "AVIF")
        raise job.refuse("is an AVIF picture, which this Pillow was built without; install Pillow's wheel")
    name = "HEIC" if HEIF_BRANDS & {*known} else next((OTHER_BRANDS[b] for b in known if b in OTHER_BRANDS), None)
    if name is not None:
        raise job.refuse(f"is {name}, which is not read; convert it to PNG, WebP or AVIF")
    return read_video(job, "mov")


Reader = Callable[[Job], Frames]
_OTHER = "is {}, which is not read; convert it to PNG, WebP, GIF or WebM".format
_BLANK = rb"[\xef\xbb\xbf \t\r\n]*"
_KINDS: dict[bytes, Reader | str] = {
    rb"GIF8": partial(read_picture, kind="GIF"),
    rb"\x89PNG\r\n\x1a\n": partial(read_picture, kind="PNG"),
    rb"\xff\xd8\xff": partial(read_picture, kind="JPEG"),
    rb"RIFF....WEBP": partial(read_picture, kind="WEBP"),
    rb"\x1a\x45\xdf\xa3": partial(read_video, kind="matroska"),
    rb"....ftyp": _read_media,
    rb"....(moov|mdat|wide|free|skip)": partial(read_video, kind="mov"),
    rb"\x1f\x8b|\x78[\x01\x5e\x9c\xda]": _read_deflated,
    rb"PK\x03\x04": read_dotlottie,
    rb"\xff\xfe(\s\0)*<\0|\xfe\xff(\0\s)*\0<": "is XML in UTF-16; save it as UTF-8",
    _BLANK + rb"{|\xff\xfe|\xfe\xff": read_lottie,
    _BLANK + rb"<(svg|\?xml|!--|!DOCTYPE svg)": read_svg,
    _BLANK
    + rb"<(?i:!doctype html|html)": "is a web page and no sticker; the download has failed, fetch the file again",
    _BLANK + rb"version https://git-lfs": "is a Git LFS pointer and not the file itself; run `git lfs pull`",
    rb"\xff\x0a|\0\0\0\x0cJXL ": _OTHER("JPEG XL"),
    rb"\0\0\0\x0cjP  ": _OTHER("JPEG 2000"),
    rb"BM": _OTHER("a BMP picture"),
    rb"II\*\0|MM\0\*": _OTHER("a TIFF picture"),
    rb"%PDF": _OTHER("a PDF document"),
    rb"RIFF....AVI ": _OTHER("an AVI video"),
}
"""The beginnings of files, as patterns, and what reads such a file or why none does. The first that fits counts."""
