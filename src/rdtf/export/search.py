"""The best file below a byte limit: rate, scale, quality, palette and dithering are searched, the speed is not."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from rdtf.export import encode
from rdtf.export.check import problems_of
from rdtf.export.encode import Clip
from rdtf.export.fit import FASTEST, Pick, file_rate, on_canvas, on_clock, rates
from rdtf.export.target import AIM, Target
from rdtf.io.metadata import NOTE, note_text, with_note
from rdtf.io.read import read_sticker_bytes
from rdtf.pixels import composite, resize
from rdtf.sticker import Sticker

GOOD_DB = 38.0
"""PSNR from which on a file is not searched for further."""
_LADDERS: dict[str, tuple[int | None, ...]] = {
    "webm": (6, 10, 14, 18, 22, 26, 30, 34, 38, 42, 46, 50, 54, 58, 62),
    "webp": (None, 95, 90, 85, 80, 75, 70, 60, 50, 40, 30, 20, 10),
    "apng": (None, 256, 192, 128, 96, 64, 48, 32, 24, 16, 8),
    "gif": (256, 192, 128, 96, 64, 48, 32, 24, 16, 8),
}
"""Knobs from the best quality to the smallest file: constant rate factor, WebP quality, colours (None = lossless)."""
_SMALLER = (1.0, 0.75, 0.5)  # scales tried where the canvas may be smaller
_NOTE_FRAME = 400  # bytes around a note
_NOTE_SHARE = 0.1  # of the limit that a note may take
_FALL = 0.3  # of the logarithm of a file's size from one rung to the next, before more is known
_MOMENTS = 12  # at which quality is measured


@dataclass(frozen=True)
class Export:
    """A file for a messenger.

    Attributes:
        data: its bytes. frames: their number. duration_ms: of one play.
        psnr: dB against the sticker on the canvas, over white and black, over time; infinite if equal.
        settings: of the encoder. changes: what was done to the sticker, in sentences.
    """

    data: bytes
    frames: int
    duration_ms: float
    psnr: float
    settings: dict[str, Any]
    changes: list[str] = field(default_factory=list)

    def facts(self) -> dict[str, Any]:
        """All but the bytes, JSON-able; ``psnr`` is None where nothing was lost."""
        return {
            "bytes": len(self.data),
            "frames": self.frames,
            "duration_ms": round(self.duration_ms, 1),
            "psnr": None if self.psnr == float("inf") else round(self.psnr, 2),
            "settings": self.settings,
            "changes": self.changes,
        }


def export_sticker(sticker: Sticker, target: Target, *, max_bytes: int | None = None) -> Export:
    """The best file of a sticker that a target accepts, with the sticker's note where the target allows one.

    Args:
        max_bytes: a lower limit than the target's.

    Raises:
        ValueError: no file of it can keep the target's rules; the text says which.
    """
    timed, changes = on_clock(sticker, target)
    limit = min((n for n in (max_bytes, target.limit(len(timed.frames))) if n is not None), default=None)
    note = sticker.attributes.get(NOTE) if target.metadata else None
    room = len(note_text(note)) + _NOTE_FRAME if note else 0
    if note and limit is not None and room > limit * _NOTE_SHARE:
        changes.append(f"the note of how it was made is left out: {room:,} bytes are too many")
        note, room = None, 0
    aim = (
        None if limit is None else int(limit * AIM) - room
    )  # the note of a WebM is written by its encoder and counts there too
    prepare = encode.binary_alpha if target.alpha == "binary" else encode.cleared
    master = Clip(prepare(on_canvas(timed.frames, target.canvas)), timed.durations, timed.plays)
    scales = _SMALLER if target.canvas.rule == "square" or (target.canvas.rule == "free" and aim) else (1.0,)
    best: Export | None = None
    for scale in scales:
        scaled = _scaled(master, scale, prepare)
        colours = encode.Colours(scaled.frames) if target.format in ("apng", "gif") else None
        for pick in rates(master, target):
            # A file cannot be better than its frames are.
            if best is not None and _score(scaled.picked(pick.index, pick.durations), master) <= best.psnr:
                continue
            found = _best_quality(scaled, pick, target, aim, colours, master, note)
            if found is not None and (best is None or found.psnr > best.psnr):
                best = found
            if best is not None and best.psnr >= GOOD_DB:
                break
        if best is not None and best.psnr >= GOOD_DB:
            break
    if best is None:
        raise ValueError(f"no quality of it stays below the {limit:,} bytes of a {target.title}; shorten the sticker")
    if best.frames < len(timed.frames):
        changes.append(f"{best.frames} of {len(timed.frames)} frames")
    data = best.data
    if note and target.format != "webm":
        data = with_note(data, note)
    if wrong := problems_of(data, target):
        raise AssertionError(f"the file made for {target.title} is not accepted: {wrong[0]}")
    return Export(data, best.frames, best.duration_ms, best.psnr, best.settings, changes)


def _scaled(clip: Clip, scale: float, prepare: Callable[[np.ndarray], np.ndarray]) -> Clip:
    if scale == 1.0:
        return clip
    height, width = (max(2, round(side * scale / 2) * 2) for side in clip.frames.shape[1:3])
    return Clip(prepare(resize(clip.frames, height, width)), clip.durations, clip.plays)


def _best_quality(
    clip: Clip,
    pick: Pick,
    target: Target,
    aim: int | None,
    colours: encode.Colours | None,
    master: Clip,
    note: dict[str, Any] | None,
) -> Export | None:
    """The first rung of the ladder below the limit; None if even the last one is above it."""
    ladder: Sequence[int | None] = _LADDERS[target.format]
    made: dict[int, _Encoded] = {}

    def size(rung: int) -> int:
        made[rung] = _encoded(clip, pick, target, ladder[rung], colours, note)
        return len(made[rung].data)

    rung = first_below(size, len(ladder), aim)
    if rung is None:
        return None
    best, knob = made[rung], ladder[rung]
    shown = best.shown()
    if target.format in ("apng", "gif") and knob is not None:
        other = _encoded(clip, pick, target, knob, colours, note, dither=True)
        dithered = other.shown()
        if (aim is None or len(other.data) <= aim) and _score(dithered, master, 2) > _score(shown, master, 2) + 0.5:
            best, shown = other, dithered
    return Export(best.data, len(shown.frames), float(shown.durations.sum()), _score(shown, master), best.settings)


def first_below(size: Callable[[int], int], rungs: int, aim: int | None) -> int | None:
    """The first of some rungs whose size is at most ``aim``; sizes fall from rung to rung. None: not even the last one.

    Encoders are slow, so few sizes are asked for: they fall by about the same factor a rung, which tells where to look.
    """
    low, high = 0, rungs  # the size at low is too large, that at high is not (or there is no such rung)
    first = size(0)
    if aim is None or first <= aim:
        return 0
    above, below, fall = math.log(first / max(aim, 1)), 0.0, _FALL
    while high - low > 1:
        if high < rungs:
            fall = (above - below) / (high - low)
        rung = min(max(math.ceil(low + above / fall), low + 1), high - 1)
        found = math.log(size(rung) / max(aim, 1))
        if found <= 0:
            high, below = rung, found
        else:
            fall = max((above - found) / (rung - low), _FALL / 4)
            low, above = rung, found
    return high if high < rungs else None


@dataclass(frozen=True)
class _Encoded:
    """A trial file.

    Attributes:
        data: its bytes. shown: gives the clip that a viewer sees; to decode takes time. settings: the encoder's.
    """

    data: bytes
    shown: Callable[[], Clip]
    settings: dict[str, Any]


def _encoded(
    whole: Clip,
    pick: Pick,
    target: Target,
    knob: int | None,
    colours: encode.Colours | None,
    note: dict[str, Any] | None,
    dither: bool = False,
) -> _Encoded:
    """A clip as a file of a target."""
    clip = whole.picked(pick.index, pick.durations)
    height, width = clip.frames.shape[1:3]
    settings: dict[str, Any] = {"fps": round(pick.fps, 2), "width": width, "height": height}
    if target.format == "webm":
        assert knob is not None
        rate = file_rate(clip.durations, target.max_fps or FASTEST)
        data = encode.webm(clip, knob, rate, note)
        return _Encoded(data, lambda: _decoded_webm(data), {**settings, "crf": knob, "file_fps": round(rate, 3)})
    if target.format == "webp":
        data = encode.webp(clip, knob)
        settings["quality"] = "lossless" if knob is None else knob
        return _Encoded(data, lambda: _decoded_webp(data, clip), settings)
    if knob is None:
        return _Encoded(encode.apng(clip), lambda: clip, {**settings, "colours": "all"})
    assert colours is not None
    indices, palette = colours.reduced(knob, dither)
    indices = indices[pick.index]
    shown = Clip(palette[indices], clip.durations, clip.plays)
    settings |= {"colours": len(palette), "dither": dither}
    if target.format == "gif":
        data = encode.gif(shown, palette, indices)
    else:
        data = encode.apng(shown) if target.truecolour else encode.apng(shown, palette, indices)
    return _Encoded(data, lambda: shown, settings)


def _decoded_webm(data: bytes) -> Clip:
    seen = read_sticker_bytes(data, Path("sticker.webm"))
    return Clip(seen.frames, seen.durations)


def _decoded_webp(data: bytes, clip: Clip) -> Clip:
    """Pillow merges equal frames, so each frame of the clip is looked up at its time."""
    with Image.open(io.BytesIO(data)) as image:
        count = getattr(image, "n_frames", 1)
        frames, durations = [], []
        for number in range(count):
            image.seek(number)
            frames.append(np.array(image.convert("RGBA")))
            durations.append(float(image.info.get("duration") or clip.durations.sum()))
    return Clip(np.stack(frames), np.array(durations), clip.plays)


def _score(shown: Clip, master: Clip, shrink: int = 1) -> float:
    """PSNR in dB over white and black at moments of the master, at its size.

    Args:
        shrink: pictures are averaged over so many pixels each way first, as an eye that is farther away does.
    """
    ends = master.starts()[1:]
    middles = master.starts()[:-1] + master.durations / 2
    some = np.unique(np.linspace(0, len(middles) - 1, min(_MOMENTS, len(middles))).round().astype(int))
    at = middles[some] * (shown.starts()[-1] / ends[-1])
    frames = shown.frames[np.searchsorted(shown.starts()[1:-1], at, side="right")]
    height, width = master.frames.shape[1:3]
    if frames.shape[1:3] != (height, width):
        frames = resize(frames, height, width)
    errors = []
    for background in ((255, 255, 255), (0, 0, 0)):
        pair = [composite(f, background).astype(np.float32) for f in (frames, master.frames[some])]
        if shrink > 1:
            size = (height // shrink * shrink, width // shrink * shrink)
            pair = [
                p[:, : size[0], : size[1]]
                .reshape(len(p), size[0] // shrink, shrink, size[1] // shrink, shrink, 3)
                .mean((2, 4))
                for p in pair
            ]
        errors.append(float(np.square(pair[0] - pair[1]).mean()))
    mean = float(np.mean(errors))
    return float("inf") if mean == 0 else 10 * float(np.log10(255.0**2 / mean))
