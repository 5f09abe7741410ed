"""Stickers of several files: numbered frames, and sprite sheets with a JSON of their frames."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rdtf.io.job import BROWSER_MS, Job, ReadLimits
from rdtf.io.read import read_sticker_bytes
from rdtf.sticker import Sticker, StickerError

TIMINGS = ("durations.json", "frames.json")
"""Names of files with the durations of frames."""
PICTURES = frozenset({".png", ".webp", ".jpg", ".jpeg"})
"""Endings of the pictures of frames and sheets."""
MAX_JSON_BYTES = 16 * 2**20

_NUMBERED = re.compile(
    r"(?P<stem>.*?)[ _\-.(]*(?P<number>\d+)\)?(?:[ _-]delay-(?P<delay>\d+(?:\.\d+)?)s)?", re.IGNORECASE
)


@dataclass(frozen=True)
class Piece:
    """A file of a sticker: its name without folders, and a function that reads its bytes."""

    name: str
    read: Callable[[], bytes]


# Numbered frames


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
    frames: Sequence[Piece], timing: bytes | None, name: str, *, size: int | None, max_frames: int | None
) -> Sticker:
    """A sticker from pictures of one size.

    ``timing`` is JSON: an object of milliseconds by file name, a list of milliseconds, one of these as the field
    ``durations`` of an object, or an object with ``fps``. Without timing a frame lasts as long as its name says
    (``frame_01_delay-0.1s.png``), otherwise 100 ms.

    Raises:
        StickerError: a picture or the timing is damaged or beyond the limits, or a picture is animated.
    """
    job = Job(Path(name), b"", size, max_frames, ReadLimits())
    job.check(len(frames), 1, 1)
    try:
        indices, durations = job.kept(_durations(frames, timing))
    except StickerError:
        raise
    except Exception as error:  # foreign JSON may be wrong in any way
        raise job.refuse(f"its timing cannot be used ({type(error).__name__}: {error})") from error
    pictures: list[np.ndarray] = []
    for index in indices:
        piece = frames[int(index)]
        picture = read_sticker_bytes(piece.read(), f"{name}/{piece.name}")
        if len(picture) > 1:
            raise job.refuse(f"its frame {piece.name} is an animation itself")
        height, width = picture.size
        job.check(len(frames), width, height)
        if pictures and size is None and pictures[0].shape != picture.frames[0].shape:
            raise job.refuse(f"its frame {piece.name} is {width} x {height} px, unlike those before")
        pictures.append(job.fitted(picture.frames[0]))
    return Sticker(np.stack(pictures), durations)


def _durations(frames: Sequence[Piece], timing: bytes | None) -> np.ndarray:
    if timing is None:
        matches = [_NUMBERED.fullmatch(frame.name.rpartition(".")[0]) for frame in frames]
        return np.array([_milliseconds(1000 * float(match["delay"] or 0) if match else 0) for match in matches])
    known = json.loads(timing)
    if isinstance(known, dict) and "durations" in known:
        known = known["durations"]
    if isinstance(known, dict) and "fps" in known:
        return np.full(len(frames), _milliseconds(1000 / float(known["fps"])))
    if isinstance(known, dict):
        known = [known[frame.name] for frame in frames]
    if len(known) != len(frames):
        raise ValueError(f"{len(known)} times for {len(frames)} frames")
    return np.array([_milliseconds(time) for time in known])


def _milliseconds(value: Any) -> float:
    time = float(value)
    return time if math.isfinite(time) and time > 0 else BROWSER_MS


# Sprite sheets: the "hash" and "array" forms of TexturePacker, Aseprite, PixiJS and Phaser


def read_sheet_json(data: bytes) -> dict[str, Any] | None:
    """The JSON of a sprite sheet; None if it is JSON of another kind.

    Raises:
        ValueError: it is no JSON, or nested too deeply.
    """
    try:
        sheet = json.loads(data)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    is_sheet = isinstance(sheet, dict) and isinstance(sheet.get("frames"), dict | list) and sheet["frames"]
    if is_sheet:
        frames = sheet["frames"].values() if isinstance(sheet["frames"], dict) else sheet["frames"]
        if not all(isinstance(frame, dict) for frame in frames):
            raise ValueError("a frame of a sprite sheet that is no object")
    return sheet if is_sheet else None


def sheet_animations(sheet: dict[str, Any]) -> list[str]:
    """Names of the animations in a sheet (Aseprite's tags, PixiJS's ``animations``); empty for a single animation."""
    return list(dict.fromkeys(_sequences(sheet)))


def read_sheet(
    picture: bytes, data: bytes, name: str, *, animation: str | None, size: int | None, max_frames: int | None
) -> Sticker:
    """A sticker from a sheet. Trimmed frames are put back to their position, and rotated frames are turned back.

    A frame lasts for its ``duration`` in milliseconds, otherwise 100 ms.

    Raises:
        StickerError: the picture or the JSON is damaged, a frame lies outside of the picture, or beyond the limits.
    """
    job = Job(Path(name), picture, size, max_frames, ReadLimits())
    drawn = read_sticker_bytes(picture, name)
    if len(drawn) > 1:
        raise job.refuse("a sprite sheet must be a still picture")
    try:
        sheet = read_sheet_json(data) or {}
        frames = _frames_of(sheet)
        keys = list(frames) if animation is None else _sequences(sheet)[animation]
        return _cut(job, drawn.frames[0], [frames[key] for key in keys])
    except StickerError:
        raise
    except Exception as error:  # foreign JSON may be wrong in any way
        raise job.refuse(f"its JSON cannot be used ({type(error).__name__}: {error})") from error


def _frames_of(sheet: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Frames by name, in the order of the sheet."""
    frames = sheet["frames"]
    if isinstance(frames, dict):
        return frames
    return {str(frame.get("filename", index)): frame for index, frame in enumerate(frames)}


def _sequences(sheet: dict[str, Any]) -> dict[str, list[str]]:
    """Names of the frames of each animation. Animations in other forms are ignored."""
    sequences: dict[str, list[str]] = {}
    meta, animations = sheet.get("meta"), sheet.get("animations")
    tags = meta.get("frameTags") if isinstance(meta, dict) else None
    names = list(_frames_of(sheet))
    for tag in tags if isinstance(tags, list) else []:
        if isinstance(tag, dict) and isinstance(tag.get("from"), int) and isinstance(tag.get("to"), int):
            chosen = names[tag["from"] : tag["to"] + 1]
            there, back = (
                (chosen, chosen[::-1]) if "reverse" not in str(tag.get("direction")) else (chosen[::-1], chosen)
            )
            if str(tag.get("direction")).startswith("pingpong"):
                there = there + back[1:-1]
            sequences[str(tag.get("name"))] = there
    for name, chosen in animations.items() if isinstance(animations, dict) else []:
        if isinstance(chosen, list) and all(isinstance(frame, str) for frame in chosen):
            sequences[str(name)] = chosen
    return {name: chosen for name, chosen in sequences.items() if chosen}


def _cut(job: Job, picture: np.ndarray, frames: list[dict[str, Any]]) -> Sticker:
    """The frames of a sheet ``(h, w, 4)`` on a canvas that is large enough for all."""
    sizes = [frame.get("sourceSize") or {key: frame["frame"][key] for key in "wh"} for frame in frames]
    width, height = max(int(s["w"]) for s in sizes), max(int(s["h"]) for s in sizes)
    job.check(len(frames), width, height)
    indices, durations = job.kept(np.array([_milliseconds(frame.get("duration") or 0) for frame in frames]))
    cut: list[np.ndarray] = []
    for frame in (frames[int(index)] for index in indices):
        left, top, w, h = (int(frame["frame"][key]) for key in "xywh")
        turned = bool(frame.get("rotated"))  # clockwise; w and h belong to the upright frame
        across, down = (h, w) if turned else (w, h)
        part = picture[max(0, top) : top + down, max(0, left) : left + across]
        if part.shape[:2] != (down, across):
            raise job.refuse(f"a frame at {left}, {top} of {across} x {down} px lies outside of its picture")
        if turned:
            part = np.rot90(part)
        place = frame.get("spriteSourceSize") or {}
        x, y = int(place.get("x", 0)), int(place.get("y", 0))
        canvas = np.zeros((height, width, 4), np.uint8)
        if not (0 <= x <= width - w and 0 <= y <= height - h):
            raise job.refuse(f"a frame of {w} x {h} px does not fit at {x}, {y} into {width} x {height}")
        canvas[y : y + h, x : x + w] = part
        cut.append(job.fitted(canvas))
    return Sticker(np.stack(cut), durations)
