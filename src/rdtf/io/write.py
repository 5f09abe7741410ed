"""Writing of sticker files, in the format that a name asks for."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from rdtf.io.encode import Clip, Note, apng, binary_alpha, cleared, gif, webp
from rdtf.io.job import LIMITS
from rdtf.io.metadata import NOTE
from rdtf.io.outputs import check_file, check_folder, write_file, write_folder
from rdtf.io.palette import Colours
from rdtf.sticker import Sticker, StickerError

SHEET_SUFFIX = ".sheet.png"
SHEET_COLUMNS = 8

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
        digits = max(3, len(str(len(sticker) - 1)))
        names = [f"{index:0{digits}d}.png" for index in range(len(sticker))]
        stills = (apng(Clip(clip.frames[index : index + 1], np.ones(1)), note=note) for index in range(len(sticker)))
        write_folder(path, dict(zip(names, stills, strict=True)), sticker.durations.tolist())
        return
    try:
        data = encode(clip, note)
    except ValueError as error:
        raise StickerError(path, str(error)) from error
    if len(data) > LIMITS.image_bytes:
        most = LIMITS.image_bytes / 2**20
        raise StickerError(path, f"{len(data) / 2**20:.0f} MiB are more than is read again ({most:g}); scale it down")
    write_file(path, data, durable=durable)


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
    check = check_folder if _encoder(path) is None else check_file
    check(Path(path), [Path(source) for source in inputs])


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
