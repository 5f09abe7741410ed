"""Uploads are decoded in a process of their own, with limits on time and memory, and thinned out."""

from __future__ import annotations

from pathlib import Path

from rdtf.io.wall import read_sticker
from rdtf.pixels import fit
from rdtf.sticker import Sticker, StickerError

MOST_FRAMES = 16
MOST_SIDE = 512


def decode(file: Path) -> Sticker:
    """At most 16 frames of a file, at most 512 px a side.

    Raises:
        StickerError: it cannot be read, or takes too long or too much memory. It holds no folder's name.
    """
    try:
        sticker = read_sticker(file, max_frames=MOST_FRAMES)
    except StickerError as error:
        raise StickerError(file.name, error.reason) from None
    if max(sticker.size) > MOST_SIDE:
        return Sticker(fit(sticker.frames, MOST_SIDE), sticker.durations)
    return sticker
