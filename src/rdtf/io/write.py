"""Writing of sticker files, in the format that a name asks for, and rules about what they may replace.

A named file is replaced. A folder has to be new or empty. Inputs are never replaced.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from rdtf.faults import reach
from rdtf.files import atomic_file, check_space, publish
from rdtf.io.encode import Clip, Note, apng, binary_alpha, cleared, gif, webp
from rdtf.io.job import LIMITS
from rdtf.io.metadata import NOTE
from rdtf.io.palette import Colours
from rdtf.sticker import Sticker, StickerError

SHEET_SUFFIX = ".sheet.png"
SHEET_COLUMNS = 8
TIMES = "durations.json"
"""File in a folder of frames with their durations in milliseconds, by name."""
_MAX_NAME = 255  # bytes of a file name, on every common file system

Encoder = Callable[[Clip, Note], bytes]


def save_sticker(sticker: Sticker, path: Path | str, *, durable: bool = True) -> None:
    """Write ``sticker`` to ``path``, in the format that its ending names, as a loop; the folders above are created.

    ========================  ==========================================================================
    ``.webp``                 lossless, animated if there is more than one frame; durations to 1 ms
    ``.png``, ``.apng``       PNG, animated (APNG) if there is more than one frame; durations as fractions of a
                              second of two numbers up to 65,535: exact for whole ms and for 1/60 s
    ``.gif``                  at most 256 colours, one palette for all frames; alpha of 128 and above is
                              opaque, below is transparent; durations to 10 ms, at least 20 ms
    ``.sheet.png``            one PNG with the frames in rows of up to 8, on transparency, untimed
    no ending, or a last "/"  a folder of ``000.png``, ``001.png``, ... and ``durations.json``, which holds their
                              times in milliseconds
    ========================  ==========================================================================

    Rounding errors do not add up: the total duration is right to one step. A still WebP, PNG or sheet has no duration.
    Reading a WebP or (A)PNG gives the same pixels, except that the colour under alpha 0 becomes 0. The file is written
    atomically. The sticker's attribute ``provenance`` is written into the file, see :mod:`rdtf.io.metadata`.

    Args:
        sticker: the sticker.
        path: an existing file is replaced. A folder has to be new or empty.
        durable: wait until the file is on the disk, which takes about 15 ms.

    Raises:
        ValueError: unknown ending, a folder with files in it, a symbolic link.
        StickerError: the format cannot hold the sticker (its size or durations), the file would be too large to be read
            again, or it cannot be written.
    """
    encode = _encoder(path)
    check_target(path)
    path, note = Path(path), sticker.attributes.get(NOTE)
    clip = Clip(cleared(sticker.frames), sticker.durations)
    if encode is None:
        _write_folder(path, clip, note)
        return
    try:
        data = encode(clip, note)
    except ValueError as error:
        raise StickerError(path, str(error)) from error
    if len(data) > LIMITS.image_bytes:
        most = LIMITS.image_bytes / 2**20
        raise StickerError(path, f"{len(data) / 2**20:.0f} MiB are more than is read again ({most:g}); scale it down")
    with _disk_refuses(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path, durable=durable) as file:
            file.write(data)
            reach("export.mid_write")


def _write_folder(path: Path, clip: Clip, note: Note) -> None:
    """Write a folder of PNG files and their times, complete or not at all."""
    digits = max(3, len(str(len(clip.frames) - 1)))
    names = [f"{index:0{digits}d}.png" for index in range(len(clip.frames))]
    times = {"durations": dict(zip(names, clip.durations.tolist(), strict=True))}
    with _disk_refuses(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".rdtf-{secrets.token_hex(8)}.tmp")  # as long as for every other name
        try:
            temporary.mkdir()
            for name, frame in zip(names, clip.frames, strict=True):
                (temporary / name).write_bytes(apng(Clip(frame[None], np.ones(1)), note=note))
            (temporary / TIMES).write_text(json.dumps(times, indent=1) + "\n", "utf-8")
            reach("export.mid_write")
            if path.exists():
                path.rmdir()  # the system refuses if anybody has put files into it
            publish(temporary, path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def webp_bytes(sticker: Sticker) -> bytes:
    """The file that :func:`save_sticker` writes for ``.webp``, without a note."""
    return webp(Clip(cleared(sticker.frames), sticker.durations))


def check_target(path: Path | str, inputs: Iterable[Path | str] = ()) -> None:
    """Check that :func:`save_sticker` can write to ``path``, before computing the sticker.

    Args:
        path: the output.
        inputs: files and folders that are never replaced.

    Raises:
        ValueError: unknown ending; ``path`` is an input or contains one; it is a folder with files in it, or a link.
        StickerError: the folder above is not writable.
    """
    path, is_folder = Path(path), _encoder(path) is None
    with _disk_refuses(path):
        _check_place(path, map(Path, inputs))
        if not os.path.lexists(path):
            return
        if is_folder and (not path.is_dir() or any(path.iterdir())):
            raise ValueError(f"{path}: is there already and is no empty folder; choose another name")
        if not is_folder and not path.is_file():
            raise ValueError(f"{path}: is a folder or a device; choose another name")


def _check_place(path: Path, inputs: Iterable[Path]) -> None:
    if path.parts and path.parts[0].startswith("~"):
        raise ValueError(f"{path}: '~' was not replaced by the shell; write the home folder in full")
    if any(len(os.fsencode(part)) > _MAX_NAME for part in path.parts):
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
    if path.is_symlink():
        raise ValueError(f"{path}: is a symbolic link; name the file or folder itself")
    for source in inputs:
        if source.exists() and source.resolve().is_relative_to(path.resolve()):
            raise ValueError(f"{path}: would replace the input {source}; choose another name")
        if source.is_file() and path.is_file() and source.samefile(path):
            raise ValueError(f"{path}: is the input {source} by another name; choose another name")
    above = next(folder for folder in path.absolute().parents if os.path.lexists(folder))
    if not above.is_dir():
        raise ValueError(f"{path}: {above} is no folder; choose another name")
    with tempfile.TemporaryFile(dir=above):  # permissions alone do not prove that a folder is writable
        check_space(above, 0)


@contextlib.contextmanager
def _disk_refuses(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StickerError(path, f"cannot be written: {error.strerror or error}") from error


def _png(clip: Clip, note: Note) -> bytes:
    return apng(clip, note=note)


def _gif(clip: Clip, note: Note) -> bytes:
    frames = binary_alpha(clip.frames)
    indices, palette = Colours(frames).reduced(256)
    return gif(clip, palette, indices, note)


def _sheet(clip: Clip, note: Note) -> bytes:
    count, height, width = clip.frames.shape[:3]
    columns = min(count, SHEET_COLUMNS)
    sheet = np.zeros((math.ceil(count / columns) * height, columns * width, 4), np.uint8)
    for index, frame in enumerate(clip.frames):
        row, column = divmod(index, columns)
        sheet[row * height : (row + 1) * height, column * width : (column + 1) * width] = frame
    return apng(Clip(sheet[None], np.ones(1)), note=note)


_ENCODERS: dict[str, Encoder] = {".webp": webp, ".png": _png, ".apng": _png, ".gif": _gif}


def _encoder(path: Path | str) -> Encoder | None:
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
