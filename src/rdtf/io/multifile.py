"""Stickers of several files: numbered frames."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rdtf.io.job import BROWSER_MS, Job
from rdtf.io.read import read_sticker_bytes
from rdtf.sticker import Sticker, StickerError

TIMINGS = ("durations.json", "frames.json")
"""Names of files with the durations of frames."""
PICTURES = frozenset({".png", ".webp", ".jpg", ".jpeg"})
"""Endings of the pictures of frames."""
MAX_JSON_BYTES = 16 * 2**20

_NUMBERED = re.compile(
    r"(?P<stem>.*?)[ _\-.(]*(?P<number>\d+)\)?(?:[ _-]delay-(?P<delay>\d+(?:\.\d+)?)s)?", re.IGNORECASE
)


def frame_order(folder: str, pictures: Sequence[str], timed: bool) -> list[str] | None:
    """The pictures of a folder in the order of their numbers if they are the frames of one sticker; otherwise None.

    Frames are two or more pictures with numbers after one stem (``cat_01.png``, ``cat_02.png``). In addition the folder
    has a file of :data:`TIMINGS`, or the stem is ``frame`` or ``frames``, or the folder's name ends in ``.frames``.
    Other numbered pictures are stickers of their own.

    Args:
        folder: name of the folder.
        pictures: names of all its pictures, without folders.
        timed: whether the folder has a file of :data:`TIMINGS`.
    """
    matches = [_NUMBERED.fullmatch(name.rpartition(".")[0]) for name in pictures]
    if len(pictures) < 2 or not all(matches):
        return None
    stems = {match["stem"].casefold() for match in matches if match}
    numbers = [int(match["number"]) for match in matches if match]
    if len(stems) > 1 or len(set(numbers)) < len(numbers):
        return None
    if not timed and not stems & {"frame", "frames"} and not folder.lower().endswith(".frames"):
        return None
    return [name for _, name in sorted(zip(numbers, pictures, strict=True))]


def read_frames(
    files: Mapping[str, Callable[[], bytes]], name: str, *, size: int | None, max_frames: int | None
) -> Sticker:
    """A sticker from pictures of one size.

    A file of :data:`TIMINGS` has an object of milliseconds by file name, a list of milliseconds, one of these as the
    field ``durations`` of an object, or an object with ``fps``. Without it a frame lasts as long as its name says
    (``frame_01_delay-0.1s.png``), otherwise 100 ms.

    Args:
        files: functions that read the files, by their names without folders; frames are in order.

    Raises:
        StickerError: a picture or the timing is damaged or beyond the limits, or a picture is animated.
    """
    job = Job(Path(name), b"", size, max_frames)
    frames = [file for file in files if file not in TIMINGS]
    job.check(len(frames), 1, 1)
    timing = next((read() for file, read in files.items() if file in TIMINGS), None)
    try:
        indices, durations = job.kept(_durations(frames, timing))
    except StickerError:
        raise
    except Exception as error:  # foreign JSON may be wrong in any way
        raise job.refuse(f"its timing cannot be used ({type(error).__name__}: {error})") from error
    pictures: list[np.ndarray] = []
    for index in indices:
        file = frames[int(index)]
        picture = read_sticker_bytes(files[file](), f"{name}/{file}")
        if len(picture) > 1:
            raise job.refuse(f"its frame {file} is an animation itself")
        height, width = picture.size
        job.check(len(frames), width, height)
        if pictures and size is None and pictures[0].shape != picture.frames[0].shape:
            raise job.refuse(f"its frame {file} is {width} x {height} px, unlike those before")
        pictures.append(job.fitted(picture.frames[0]))
    return Sticker(np.stack(pictures), durations)


def _durations(frames: Sequence[str], timing: bytes | None) -> np.ndarray:
    if timing is None:
        matches = [_NUMBERED.fullmatch(frame.rpartition(".")[0]) for frame in frames]
        return np.array([_milliseconds(1000 * float(match["delay"] or 0) if match else 0) for match in matches])
    known = json.loads(timing)
    if isinstance(known, dict) and "durations" in known:
        known = known["durations"]
    if isinstance(known, dict) and "fps" in known:
        return np.full(len(frames), _milliseconds(1000 / float(known["fps"])))
    if isinstance(known, dict):
        known = [known[frame] for frame in frames]
    if len(known) != len(frames):
        raise ValueError(f"{len(known)} times for {len(frames)} frames")
    return np.array([_milliseconds(time) for time in known])


def _milliseconds(value: Any) -> float:
    time = float(value)
    return time if math.isfinite(time) and time > 0 else BROWSER_MS


def is_sprite_sheet(content: Any) -> bool:
    """Whether a JSON has the frames of a sprite sheet, as TexturePacker, Aseprite, PixiJS and Phaser write it."""
    frames = content.get("frames") if isinstance(content, dict) else None
    listed = [*frames.values()] if isinstance(frames, dict) else frames
    return isinstance(listed, list) and any(isinstance(frame, dict) and "frame" in frame for frame in listed)
