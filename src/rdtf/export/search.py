"""The best file below a byte limit: rate, scale, quality and dithering are searched, the speed is not."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from einops import reduce

from rdtf.export import encode
from rdtf.export.check import problems_of
from rdtf.export.fit import FASTEST, file_rate, on_canvas, on_clock, rates
from rdtf.export.target import AIM, Target
from rdtf.io.encode import Clip, Note, apng, binary_alpha, cleared, gif
from rdtf.io.metadata import NOTE, note_text
from rdtf.io.palette import Colours
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
_KNOBS = {"webm": "crf", "webp": "quality", "apng": "colours", "gif": "colours"}
_SMALLER = (1.0, 0.75, 0.5)  # scales tried where the canvas may be smaller
_NOTE_PART = 0.1  # of the limit that a note may take
_DITHER_DB = 0.5  # that dithering has to gain, seen from afar
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

    @property
    def quality(self) -> str:
        """In words."""
        return "nothing lost" if self.psnr == float("inf") else f"{self.psnr:.1f} dB"

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
    aim = None if limit is None else int(limit * AIM)
    note = sticker.attributes.get(NOTE) if target.metadata else None
    if note and limit is not None and (size := len(note_text(note))) > limit * _NOTE_PART:
        changes.append(f"the note of how it was made is left out: {size:,} bytes are too many")
        note = None
    prepare = binary_alpha if target.alpha == "binary" else cleared
    master = Clip(prepare(on_canvas(timed.frames, target.canvas)), timed.durations, timed.plays)
    scales = _SMALLER if target.canvas.rule == "square" or (target.canvas.rule == "free" and aim) else (1.0,)
    best: Export | None = None
    for clip in (clip for scale in scales for clip in rates(_scaled(master, scale, prepare), target)):
        if best is not None and psnr_over_time(clip, master) <= best.psnr:
            continue  # a file cannot be better than its frames are
        attempt = _Attempt(clip, target, note, master)
        found = attempt.best(aim)
        if found is not None and (best is None or found.psnr > best.psnr):
            best, source = found, attempt
        if best is not None and best.psnr >= GOOD_DB:
            break
    if best is None:
        raise ValueError(f"no quality of it stays below the {limit:,} bytes of a {target.title}; shorten the sticker")
    best = source.dithered(best, aim)
    if best.frames < len(timed.frames):
        changes.append(f"{best.frames} of {len(timed.frames)} frames")
    if wrong := problems_of(best.data, target):
        raise AssertionError(f"the file made for {target.title} is not accepted: {wrong[0]}")
    return replace(best, changes=changes)


def _scaled(clip: Clip, scale: float, prepare: Callable[[np.ndarray], np.ndarray]) -> Clip:
    if scale == 1.0:
        return clip
    height, width = (max(2, round(side * scale / 2) * 2) for side in clip.frames.shape[1:3])
    return Clip(prepare(resize(clip.frames, height, width)), clip.durations, clip.plays)


class _Attempt:
    """A clip at one rate and size, and its files for a target. ``master`` is the clip before its loss of frames."""

    def __init__(self, clip: Clip, target: Target, note: Note, master: Clip) -> None:
        self.clip, self.target, self.note, self.master = clip, target, note, master
        self.rate = file_rate(clip.durations, target.max_fps or FASTEST)
        self.colours = Colours(clip.frames) if target.format in ("apng", "gif") else None

    def best(self, aim: int | None) -> Export | None:
        """The first rung of the ladder whose file has at most ``aim`` bytes; None if even the last one has more."""
        ladder = _LADDERS[self.target.format]
        made: dict[int, bytes] = {}

        def fits(rung: int) -> bool:
            if rung not in made:
                made[rung] = self.file(ladder[rung])
            return aim is None or len(made[rung]) <= aim

        rung = 0 if fits(0) else bisect_left(range(len(ladder)), True, lo=1, key=fits)  # sizes fall from rung to rung
        if rung == len(ladder):
            return None
        height, width = self.clip.frames.shape[1:3]
        knob = {_KNOBS[self.target.format]: "all" if ladder[rung] is None else ladder[rung]}
        fps = round(1000 / float(np.median(self.clip.durations)), 2)
        settings = {"fps": fps, "width": width, "height": height, **knob}
        if self.target.format == "webm":
            settings["file_fps"] = round(self.rate, 3)
        return self.export(made[rung], settings)

    def dithered(self, best: Export, aim: int | None) -> Export:
        """The file with its palette dithered where that fits and looks better from afar, otherwise as it was."""
        knob = best.settings.get("colours")
        if not isinstance(knob, int):
            return best
        data = self.file(knob, dither=True)
        if aim is not None and len(data) > aim:
            return best
        gain = psnr_over_time(self.shown(data), self.master, 2) - psnr_over_time(self.shown(best.data), self.master, 2)
        # The gain is no number where both are exact.
        return self.export(data, {**best.settings, "dither": True}) if gain > _DITHER_DB else best

    def export(self, data: bytes, settings: dict[str, Any]) -> Export:
        """A file with its quality."""
        shown = self.shown(data)
        return Export(
            data, len(shown.frames), float(shown.durations.sum()), psnr_over_time(shown, self.master), settings
        )

    def shown(self, data: bytes) -> Clip:
        """What a viewer sees of a file."""
        seen = read_sticker_bytes(data, Path("sticker"))
        return Clip(seen.frames, seen.durations if len(seen) > 1 else self.clip.durations.sum(keepdims=True))

    def file(self, knob: int | None, dither: bool = False) -> bytes:
        """The clip as a file."""
        clip, note = self.clip, self.note
        if self.target.format == "webm":
            assert knob is not None
            return encode.webm(clip, knob, self.rate, note)
        if self.target.format == "webp":
            return encode.webp(clip, knob, note)
        if knob is None:
            return apng(clip, note=note)
        assert self.colours is not None
        indices, palette = self.colours.reduced(knob, dither)
        shown = Clip(palette[indices], clip.durations, clip.plays)
        if self.target.format == "gif":
            return gif(shown, palette, indices, note)
        return apng(shown, note=note) if self.target.truecolour else apng(shown, palette, indices, note)


def psnr_over_time(shown: Clip, master: Clip, afar: int = 1) -> float:
    """PSNR in dB over white and black at moments of the master, at its size.

    Args:
        afar: squares of so many pixels a side are averaged first, as an eye does from farther away.
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
    for colour in ((255, 255, 255), (0, 0, 0)):
        error = composite(frames, colour).astype(np.float32) - composite(master.frames[some], colour)
        if afar > 1 and min(height, width) >= afar:
            error = error[:, : height // afar * afar, : width // afar * afar]
            error = reduce(error, "n (h a) (w b) c -> n h w c", "mean", a=afar, b=afar)
        errors.append(np.square(error).mean())
    mean = float(np.mean(errors))
    return float("inf") if mean == 0 else 10 * float(np.log10(255.0**2 / mean))
