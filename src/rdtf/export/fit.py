"""A sticker on a messenger's canvas and on its clock. The speed is never changed."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from rdtf.export.encode import merge, merged
from rdtf.export.target import Canvas, Target
from rdtf.io.encode import GIF_FRAME_MS, Clip
from rdtf.pixels import fit, premultiply, resize
from rdtf.sticker import Sticker

_LOWEST_FPS = 4.0
_EMPTY_SHARE = 0.6  # a first frame with less than this share of the fullest frame's coverage says too little
_RATES_TRIED = 4

FASTEST = 30.0
"""Frames a second of a video where the target does not say how many it may have."""
_TICK_ERROR = 0.1  # of a tick that a frame may last longer or shorter: files round times to 1 or 10 ms


def on_canvas(frames: np.ndarray, canvas: Canvas) -> np.ndarray:
    """Frames ``(n, h, w, 4)`` scaled by the canvas' rule, with even sides; nothing is cropped or stretched."""
    height, width = frames.shape[1:3]
    if canvas.rule == "free":
        return frames
    if canvas.rule in ("exact", "square"):
        side = fit(frames, min(canvas.width, canvas.height))
        out = np.zeros((len(frames), canvas.height, canvas.width, 4), np.uint8)
        top, left = (canvas.height - side.shape[1]) // 2, (canvas.width - side.shape[2]) // 2
        out[:, top : top + side.shape[1], left : left + side.shape[2]] = side
        return out
    if canvas.rule == "longest":
        scale = canvas.width / max(height, width)
    else:  # line: within the canvas
        scale = min(canvas.width / width, canvas.height / height)
    return resize(frames, *(max(2, round(side * scale / 2) * 2) for side in (height, width)))


def loops(sticker: Sticker) -> bool:
    """Whether the last frame leads on to the first: as the sticker says, or as its frames show."""
    said = sticker.attributes.get("loops")
    if said is not None:
        return bool(said)
    if len(sticker) < 3:
        return False
    frames = premultiply(sticker.frames).astype(np.int16)
    steps = np.abs(np.diff(frames, axis=0)).mean((1, 2, 3))
    return bool(np.abs(frames[0] - frames[-1]).mean() <= 2 * max(float(np.median(steps)), 0.25))


def telling_first(sticker: Sticker) -> int:
    """The frame to begin a looping sticker with, where the first one is nearly empty; otherwise 0."""
    coverage = sticker.frames[..., 3].mean((1, 2))
    if coverage[0] >= _EMPTY_SHARE * coverage.max():
        return 0
    return int(coverage.argmax())


def on_clock(sticker: Sticker, target: Target) -> tuple[Clip, list[str]]:
    """The clip of one play that keeps the target's rules of time, and what was done for them.

    Raises:
        ValueError: the sticker has too few different frames.
    """
    done: list[str] = []
    frames, durations = sticker.frames, sticker.durations
    if target.first_frame_is_still and loops(sticker) and (first := telling_first(sticker)):
        frames, durations = np.roll(frames, -first, 0), np.roll(durations, -first)
        done.append(f"begins at frame {first + 1} of the loop, for the first one is nearly empty")
    clip = merged(Clip(frames, durations))
    total, longest = float(clip.durations.sum()), target.max_ms
    if target.whole_seconds:
        longest = 1000.0 * max(target.whole_seconds)
    if longest is not None and total > longest:
        clip = cut(clip, longest)
        done.append(f"cut from {total / 1000:g} s to {longest / 1000:g} s")
        total = longest
    if len(clip.frames) == 1:
        if target.min_frames > 1:
            raise ValueError(f"a {target.title} has to move: at least {target.min_frames} different frames")
        return clip, done
    if target.whole_seconds:
        repeats, seconds = _whole_seconds(clip, target)
        frames = np.concatenate([clip.frames] * repeats)
        durations = np.tile(clip.durations, repeats)
        durations[-1] += 1000.0 * seconds - repeats * total
        clip = merged(Clip(frames, durations))
        if repeats > 1:
            done.append(f"played {repeats} times in one file")
        if held := round(1000.0 * seconds - repeats * total):
            done.append(f"last frame shown {abs(held)} ms {'longer' if held > 0 else 'less'}, to end on a whole second")
    plays = 0
    if target.loops == "counted":
        total = round(float(clip.durations.sum()), 3)  # 4 s in frames of 1/60 s may be a little more as a float
        plays = min(target.max_loops, int((target.max_total_ms or np.inf) // total))
    if len(clip.frames) < target.min_frames:
        raise ValueError(
            f"{len(clip.frames)} different frames; a {target.title} needs at least {target.min_frames} "
            "(generate it with more frames)"
        )
    return Clip(clip.frames, clip.durations, plays), done


def _whole_seconds(clip: Clip, target: Target) -> tuple[int, int]:
    """Number of plays in the file, and its whole seconds: with the least change of the end and the fewest lost frames.

    The last frame of the file may be shown longer, or less by up to a half.
    """
    total, frames = float(clip.durations.sum()), len(clip.frames)
    choices = []
    for repeats in range(1, 5):
        for seconds in target.whole_seconds:
            hold = 1000.0 * seconds - repeats * total
            if hold < -0.5 * float(clip.durations[-1]):
                continue
            kept = min(1.0, (target.max_frames or np.inf) / (repeats * frames))
            choices.append((abs(hold) / (1000.0 * seconds) + (1 - kept), repeats, seconds))
    _, repeats, seconds = min(choices)
    return repeats, seconds


def file_rate(durations: np.ndarray, fastest: float) -> float:
    """The lowest frame rate at which every frame lasts about a whole number of ticks, else ``fastest``.

    Repeated ticks take most of the encoder's time: a sticker of 8 frames a second has 30 ticks a second at 30.
    """
    shortest = float(durations.min())
    for part in range(1, int(fastest * shortest / 1000 + 1e-6) + 1):
        ticks = durations / (shortest / part)
        if np.abs(ticks - ticks.round()).max() < _TICK_ERROR:
            return min(fastest, float(1000 * ticks.round().sum() / durations.sum()))
    return fastest


def cut(clip: Clip, longest: float) -> Clip:
    """The first ``longest`` ms of a clip."""
    starts = clip.starts()
    count = int(np.searchsorted(starts[:-1], longest, side="left"))
    durations = clip.durations[:count].copy()
    durations[-1] = longest - starts[count - 1]
    return Clip(clip.frames[:count], durations, clip.plays)


def at_rate(clip: Clip, fps: float) -> Clip:
    """The clip shown at a constant rate: for each tick the frame in its middle. The duration stays."""
    starts = clip.starts()
    ticks = max(1, round(starts[-1] * fps / 1000))
    index = np.searchsorted(starts[1:-1], (np.arange(ticks) + 0.5) * starts[-1] / ticks, side="right")
    return clip.picked(*merge(clip, index, np.full(ticks, starts[-1] / ticks)))


def rates(clip: Clip, target: Target) -> Iterator[Clip]:
    """The clip as it is, where the target allows it, and then at halves, thirds and quarters of its rate.

    A clip of more frames than the target allows is shown at the rate that gives so many.
    """
    if len(clip.frames) == 1:
        yield clip
        return
    total = float(clip.durations.sum())
    own = 1000.0 / float(np.median(clip.durations))
    shortest = max(target.min_frame_ms, 1000.0 / target.max_fps if target.max_fps else 0.0)
    if target.format == "gif":
        shortest = max(shortest, GIF_FRAME_MS)
    most = target.max_frames or len(clip.frames)
    as_it_is = bool(clip.durations.min() >= shortest - 0.5)
    if as_it_is:
        yield clip if len(clip.frames) <= most else at_rate(clip, most * 1000.0 / total)
    fastest = min(own, most * 1000.0 / total, 1000.0 / shortest if shortest else own)
    divided = [own / part for part in range(1 + as_it_is, 40) if own / part <= fastest + 1e-6]
    slower = [at_rate(clip, rate) for rate in divided if rate >= _LOWEST_FPS]
    allowed = [c for c in slower if target.min_frames <= len(c.frames) <= most][: _RATES_TRIED - as_it_is]
    yield from allowed or ([] if as_it_is else [at_rate(clip, fastest)])
