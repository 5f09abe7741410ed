"""What commands and studio do with a caption: ask the pipeline for what it knows, and apply the other words.

A pipeline's network draws names. Words for a motion or a main colour that it does not know are applied to the whole
figure afterwards, see :mod:`rdtf.whole_figure`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from rdtf.data.keyframes import frame_steps
from rdtf.data.keyframes import motion as mean_step
from rdtf.pipeline import StickerPipeline
from rdtf.pixels import fit
from rdtf.sticker import Sticker
from rdtf.text import Fit
from rdtf.whole_figure import ANY_MOTION, LIVELY, NO_MOTION, check_names, move_picture, paint, part_words

MOVED = "moved"
"""Attribute of a sticker that moves as a whole: the motion."""
UNPAINTED = "unpainted"
"""Attribute of a sticker that has no main colour, so that a wanted colour changed nothing."""
_LITTLE = 0.01  # mean step between frames, in 0..1, of a sticker that hardly moves; that of real ones is 0.07


def understand(
    pipeline: StickerPipeline, caption: str, strict: bool = False, *, given: Collection[int] = ()
) -> tuple[Fit, dict[str, Any]]:
    """What to ask a pipeline for, and the settings ``motion`` and ``colour`` that other words of the caption stand for.

    A caption that the model knows as a whole, such as "woman dancing", is asked for as it is. A thing that it has seen
    only as a still picture moves as a whole, also where the caption names no motion. Settings are only those that
    :func:`make` takes with given frames at these positions.

    Raises:
        ValueError: with ``strict``, the model does not know the rest of the caption.
    """
    words: dict[str, Any] = {}
    beside = bool(given)
    if pipeline.known is not None and {*given} <= {0} and pipeline.fit(caption, given=beside).note:
        rest, words = part_words(caption)
        if beside:
            words.pop("colour", None)
        caption = rest if words else caption
    fit = pipeline.fit(caption, strict, given=beside)
    if fit.still and not beside:
        words.setdefault("motion", ANY_MOTION)
    return fit, words


def moved_remark(fit: Fit, settings: Mapping[str, Any], stickers: Iterable[Sticker]) -> str:
    """A sentence for the user about stickers that move as a whole although nobody has asked for it; else empty.

    Args:
        fit, settings: what :func:`understand` found, and the user's settings. stickers: from :func:`make`.
    """
    moved = sorted({sticker.attributes[MOVED] for sticker in stickers if MOVED in sticker.attributes})
    if not moved or settings.get("motion", ANY_MOTION) != ANY_MOTION:
        return ""
    why = "has seen only still pictures of it" if fit.still else "hardly moves it"
    return f"The model {why}, so it moves as a whole ({', '.join(moved)}); the motion 'none' leaves it to the model"


def make(
    pipeline: StickerPipeline,
    caption: str | Sequence[str],
    frames: Mapping[int, np.ndarray] | None = None,
    *,
    motion: str | None = None,
    colour: str | None = None,
    num_frames: int = 8,
    fps: float = 8.0,
    durations: Sequence[float] | None = None,
    **settings: Any,
) -> list[Sticker]:
    """Call a pipeline, and move or paint the whole figure afterwards.

    Args:
        frames: given frames by position.
        motion: the first frame, given or made as a still, moves as a whole. The network makes no other frames.
            ``any``: in a motion by the seed. None: the network makes all frames, and a sticker of words or of one
            picture that hardly moves then moves in any motion. ``none``: it stays as the network made it.
        colour: of the stickers' main colour; not with given frames. A sticker without a main colour stays as it is,
            and its attribute :data:`UNPAINTED` says so.
        num_frames, fps, durations, settings: arguments of the pipeline.

    Raises:
        ValueError: what the pipeline does not take, an unknown motion or colour, or one that does not fit the frames.
    """
    check_names(None if motion in (NO_MOTION, ANY_MOTION) else motion, colour)
    if colour and frames:
        raise ValueError("a colour is for stickers from words; given frames keep theirs")
    as_a_whole = motion not in (None, NO_MOTION) and num_frames > 1
    of_one_picture = not set(frames or ()) - {0}
    if as_a_whole and not of_one_picture:
        raise ValueError("a motion moves one picture; give it as the first frame, and no others")
    if as_a_whole:
        stickers = _first_frames(pipeline, caption, frames, **settings)
    else:
        timing: dict[str, Any] = {"num_frames": num_frames, "fps": fps, "durations": durations}
        stickers = pipeline(caption, frames=frames, **timing, **settings).stickers
    if colour:
        stickers = [_painted(sticker, colour) for sticker in stickers]
    times = np.full(num_frames, 1000 / fps) if durations is None else np.asarray(durations, np.float64)
    if as_a_whole:
        return [_moved(sticker, motion or ANY_MOTION, times) for sticker in stickers]
    if motion is None and of_one_picture and num_frames > 1:
        return [_moved(s, ANY_MOTION, times) if _hardly_moves(s.frames) else s for s in stickers]
    return stickers


def _first_frames(
    pipeline: StickerPipeline, caption: str | Sequence[str], frames: Mapping[int, np.ndarray] | None, **settings: Any
) -> list[Sticker]:
    """The first frame of each sticker of a call: the given one, or one that is made as a still."""
    if not frames:
        return pipeline(caption, num_frames=1, **settings).stickers
    picture = fit(frames[0][None], settings.get("output_size") or pipeline.config.sample_size)
    seeds = range(seed := settings.get("seed", 0), seed + settings.get("num_stickers_per_prompt", 1))
    return [Sticker(picture, np.ones(1), str(caption), {"given": [0], "seed": seed}) for seed in seeds]


def _hardly_moves(frames: np.ndarray) -> bool:
    return bool(frames[0, ..., 3].any()) and mean_step(frame_steps(frames)) < _LITTLE


def _painted(sticker: Sticker, colour: str) -> Sticker:
    frames = paint(sticker.frames, colour)
    if frames is None:
        return replace(sticker, attributes={**sticker.attributes, UNPAINTED: True})
    return replace(sticker, frames=frames)


def _moved(sticker: Sticker, motion: str, times: np.ndarray) -> Sticker:
    if motion == ANY_MOTION:
        motion = LIVELY[sticker.attributes["seed"] % len(LIVELY)]
    frames = move_picture(sticker.frames[0], motion, len(times))
    attributes = {**sticker.attributes, "loops": True, MOVED: motion}
    return replace(sticker, frames=frames, durations=times, attributes=attributes)
