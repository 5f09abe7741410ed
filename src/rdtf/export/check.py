"""Why a messenger would refuse a file: its rules against what the file's own container says."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from rdtf.export.encode import merged
from rdtf.export.target import Target
from rdtf.io.encode import Clip
from rdtf.io.read import read_sticker_bytes
from rdtf.sticker import StickerError

_KINDS = {"WEBP": "webp", "PNG": "apng", "GIF": "gif"}
_NAMES = {"webm": "WebM (VP9)", "webp": "WebP", "apng": "PNG or APNG", "gif": "GIF"}
_TRUECOLOUR = (2, 6)  # colour types of a PNG's header


class _Container(NamedTuple):
    """``plays`` is how often a file is played, 0 = for ever."""

    format: str
    plays: int = 0
    codec: str = "vp9"
    sound: bool = False
    truecolour: bool = True


def _container(data: bytes) -> _Container:
    if data[:4] == b"\x1aE\xdf\xa3":
        import av

        with av.open(io.BytesIO(data), format="matroska") as file:
            return _Container("webm", 0, file.streams.video[0].codec_context.name, bool(file.streams.audio))
    try:
        with Image.open(io.BytesIO(data), formats=list(_KINDS)) as image:
            kind = _KINDS[image.format or ""]
            plays = int(image.info.get("loop", 0))
            if kind == "gif" and image.n_frames > 1:  # type: ignore[attr-defined]
                # A GIF counts how often it starts again; without the block it plays once.
                plays = 1 if "loop" not in image.info else (plays + 1 if plays else 0)
    except (OSError, KeyError):
        return _Container("other")
    return _Container(kind, plays, truecolour=kind != "apng" or data[25] in _TRUECOLOUR)


def problems_of(data: bytes, target: Target, name: str = "file") -> list[str]:
    """Every rule of a target that a file breaks, as a sentence each; empty if it would be accepted."""
    try:
        sticker = read_sticker_bytes(data, Path(name))
    except StickerError as error:
        return [f"It cannot be read: {error.reason}"]
    file = _container(data)
    problems: list[str] = []

    def rule(broken: object, text: str) -> None:
        if broken:
            problems.append(text)

    if file.format != target.format:
        return [f"It has to be {_NAMES[target.format]}, and it is {_NAMES.get(file.format, 'something else')}."]
    rule(file.codec != "vp9", f"Its video has to be VP9, and it is {file.codec}.")
    rule(file.sound, "It has a sound track, which is not allowed.")
    _check_canvas(sticker.size, target, rule)
    durations = merged(Clip(sticker.frames, sticker.durations)).durations
    limit, count, alpha = target.limit(len(durations)), len(durations), sticker.frames[..., 3]
    rule(limit and len(data) > limit, f"It has {len(data):,} bytes; at most {limit or 0:,} are allowed.")
    soft = target.alpha == "binary" and ((alpha > 0) & (alpha < 255)).any()
    rule(soft, "It has half-transparent pixels, which GIF cannot hold.")
    rule(target.truecolour and not file.truecolour, "Its PNG has a palette; RGB or RGBA is wanted.")
    if count == 1:
        rule(target.min_frames > 1, f"It does not move; at least {target.min_frames} different frames are wanted.")
        return problems
    rule(count < target.min_frames, f"It has {count} different frames; at least {target.min_frames} are wanted.")
    rule(
        target.max_frames and count > target.max_frames,
        f"It has {count} different frames; at most {target.max_frames} are allowed.",
    )
    _check_times(float(durations.sum()), float(sticker.durations.min()), file.plays, target, rule)
    return problems


def _check_times(
    total: float, shortest: float, plays: int, target: Target, rule: Callable[[object, str], None]
) -> None:
    rule(target.max_ms and total > target.max_ms + 1, f"It lasts {total:.0f} ms; at most {target.max_ms} are allowed.")
    if target.whole_seconds:
        allowed = ", ".join(map(str, target.whole_seconds))
        off = min(abs(1000 * second - total) for second in target.whole_seconds)
        rule(off > 1, f"It lasts {total:.0f} ms; it has to last {allowed} whole seconds.")
    rule(
        target.max_fps and shortest < 1000 / target.max_fps - 1,
        f"A frame lasts {shortest:.0f} ms; more than {target.max_fps or 0:g} frames a second are not allowed.",
    )
    rule(
        shortest < target.min_frame_ms,
        f"A frame lasts {shortest:g} ms; at least {target.min_frame_ms:g} are wanted.",
    )
    if target.loops == "forever":
        rule(plays, f"It plays {plays} times; it has to loop for ever.")
    if target.loops == "counted":
        wanted = f"1 to {target.max_loops} are wanted."
        rule(not 1 <= plays <= target.max_loops, f"It plays {plays or 'endlessly'}; {wanted}")
        most = target.max_total_ms
        rule(
            most and plays and plays * total > most + 1,
            f"Its {plays} plays last {plays * total:.0f} ms together; at most {most or 0:.0f} are allowed.",
        )


def _check_canvas(size: tuple[int, int], target: Target, rule: Callable[[object, str], None]) -> None:
    canvas, (height, width) = target.canvas, size
    found = f"It is {width} x {height} px; "
    if canvas.rule == "exact":
        accepted = dict.fromkeys([(canvas.width, canvas.height), *((side, side) for side in target.sizes)])
        names = " or ".join(f"{w} x {h}" for w, h in accepted)
        rule((width, height) not in accepted, f"{found}{names} is wanted.")
    elif canvas.rule == "longest":
        rule(max(width, height) != canvas.width, f"{found}one side has to be {canvas.width}, the other at most that.")
    elif canvas.rule == "square":
        rule(width != height, f"{found}a square is wanted.")
        inside = canvas.smallest <= min(width, height) and max(width, height) <= canvas.width
        rule(not inside, f"{found}sides of {canvas.smallest} to {canvas.width} are allowed.")
    elif canvas.rule == "line":
        rule(
            width > canvas.width or height > canvas.height,
            f"{found}at most {canvas.width} x {canvas.height} is allowed.",
        )
        rule(max(width, height) < canvas.smallest, f"{found}one side has to be at least {canvas.smallest}.")
