"""Why a messenger would refuse a file: its rules against what the file's own container says."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from rdtf.export.encode import Clip, merged
from rdtf.export.target import Target
from rdtf.io.read import read_sticker_bytes
from rdtf.sticker import StickerError

_KINDS = {"WEBP": "webp", "PNG": "apng", "GIF": "gif"}
_NAMES = {"webm": "WebM (VP9)", "webp": "WebP", "apng": "PNG or APNG", "gif": "GIF"}
_PALETTE, _TRUECOLOUR = 3, (2, 6)  # colour types of a PNG's header


@dataclass(frozen=True)
class FileFacts:
    """What a sticker file says of itself.

    Attributes:
        format: ``webm``, ``webp``, ``apng``, ``gif``, or what else it is. size: in bytes.
        width, height: pixels. durations: of its frames in ms, equal neighbours merged; one for a still.
        shortest_ms: the shortest frame as it is stored. plays: how often it is played, 0 = for ever.
        codec: of a video. sound: a video has a sound track. half_transparent: alpha between 1 and 254 occurs.
        colour_type: of a PNG.
    """

    format: str
    size: int
    width: int
    height: int
    durations: tuple[float, ...]
    shortest_ms: float
    plays: int = 0
    codec: str = ""
    sound: bool = False
    half_transparent: bool = False
    colour_type: int | None = None


def file_facts(data: bytes, name: str = "file") -> FileFacts:
    """The facts of a sticker file.

    Raises:
        StickerError: it cannot be read.
    """
    sticker = read_sticker_bytes(data, Path(name))
    clip = merged(Clip(sticker.frames, sticker.durations))
    alpha = sticker.frames[..., 3]
    height, width = sticker.size
    facts: dict[str, Any] = {
        "size": len(data),
        "width": width,
        "height": height,
        "durations": tuple(float(ms) for ms in clip.durations),
        "shortest_ms": float(sticker.durations.min()),
        "half_transparent": bool(((alpha > 0) & (alpha < 255)).any()),
    }
    if data[:4] == b"\x1aE\xdf\xa3":
        import av

        with av.open(io.BytesIO(data), format="matroska") as container:
            codec = container.streams.video[0].codec_context.name
            return FileFacts("webm", codec=codec, sound=bool(container.streams.audio), **facts)
    try:
        with Image.open(io.BytesIO(data), formats=list(_KINDS)) as image:
            kind = _KINDS[image.format or ""]
            moving = getattr(image, "n_frames", 1) > 1
            plays = int(image.info.get("loop", 0))
            if kind == "gif" and moving:  # a GIF counts how often it starts again; without the block it plays once
                plays = 1 if "loop" not in image.info else (plays + 1 if plays else 0)
    except (OSError, KeyError):
        return FileFacts("other", **facts)
    colour_type = data[25] if kind == "apng" else None
    return FileFacts(kind, plays=plays, colour_type=colour_type, **facts)


def problems_of(data: bytes, target: Target, name: str = "file") -> list[str]:
    """Every rule of a target that a file breaks, as a sentence each; empty if it would be accepted."""
    try:
        facts = file_facts(data, name)
    except StickerError as error:
        return [f"It cannot be read: {error.reason}"]
    problems: list[str] = []

    def rule(broken: object, text: str) -> None:
        if broken:
            problems.append(text)

    if facts.format != target.format:
        return [f"It has to be {_NAMES[target.format]}, and it is {_NAMES.get(facts.format, 'something else')}."]
    rule(facts.codec not in ("", "vp9"), f"Its video has to be VP9, and it is {facts.codec}.")
    rule(facts.sound, "It has a sound track, which is not allowed.")
    _check_canvas(facts, target, rule)
    limit = target.limit(len(facts.durations))
    rule(limit and facts.size > limit, f"It has {facts.size:,} bytes; at most {limit or 0:,} are allowed.")
    rule(target.alpha == "binary" and facts.half_transparent, "It has half-transparent pixels, which GIF cannot hold.")
    rule(target.truecolour and facts.colour_type not in _TRUECOLOUR, "Its PNG has a palette; RGB or RGBA is wanted.")
    count = len(facts.durations)
    if count == 1:
        rule(target.min_frames > 1, f"It does not move; at least {target.min_frames} different frames are wanted.")
        return problems
    total = sum(facts.durations)
    rule(count < target.min_frames, f"It has {count} different frames; at least {target.min_frames} are wanted.")
    rule(
        target.max_frames and count > target.max_frames,
        f"It has {count} different frames; at most {target.max_frames} are allowed.",
    )
    rule(target.max_ms and total > target.max_ms + 1, f"It lasts {total:.0f} ms; at most {target.max_ms} are allowed.")
    if target.whole_seconds:
        near = min(target.whole_seconds, key=lambda second: abs(1000 * second - total))
        allowed = ", ".join(map(str, target.whole_seconds))
        rule(abs(1000 * near - total) > 1, f"It lasts {total:.0f} ms; it has to last {allowed} whole seconds.")
    rule(
        target.max_fps and facts.shortest_ms < 1000 / target.max_fps - 1,
        f"A frame lasts {facts.shortest_ms:.0f} ms; more than {target.max_fps or 0:g} frames a second are not allowed.",
    )
    rule(
        facts.shortest_ms < target.min_frame_ms,
        f"A frame lasts {facts.shortest_ms:g} ms; at least {target.min_frame_ms:g} are wanted.",
    )
    if target.loops == "forever":
        rule(facts.plays, f"It plays {facts.plays} times; it has to loop for ever.")
    if target.loops == "counted":
        plays = facts.plays
        rule(
            not 1 <= plays <= target.max_loops,
            f"It plays {plays or 'endlessly'}; 1 to {target.max_loops} are wanted.",
        )
        most = target.max_total_ms
        rule(
            most and plays and plays * total > most + 1,
            f"Its {plays} plays last {plays * total:.0f} ms together; at most {most or 0:.0f} are allowed.",
        )
    return problems


def _check_canvas(facts: FileFacts, target: Target, rule: Callable[[object, str], None]) -> None:
    canvas, width, height = target.canvas, facts.width, facts.height
    size = f"It is {width} x {height} px; "
    if canvas.rule == "exact":
        squares = [(side, side) for side in target.sizes]
        accepted = [(canvas.width, canvas.height), *squares]
        names = " or ".join(f"{w} x {h}" for w, h in dict.fromkeys(accepted))
        rule((width, height) not in accepted, f"{size}{names} is wanted.")
    elif canvas.rule == "longest":
        rule(max(width, height) != canvas.width, f"{size}one side has to be {canvas.width}, the other at most that.")
    elif canvas.rule == "square":
        rule(width != height, f"{size}a square is wanted.")
        inside = canvas.smallest <= min(width, height) and max(width, height) <= canvas.width
        rule(not inside, f"{size}sides of {canvas.smallest} to {canvas.width} are allowed.")
    elif canvas.rule == "line":
        rule(
            width > canvas.width or height > canvas.height,
            f"{size}at most {canvas.width} x {canvas.height} is allowed.",
        )
        rule(max(width, height) < canvas.smallest, f"{size}one side has to be at least {canvas.smallest}.")
