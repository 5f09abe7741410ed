"""What commands and studio do with a caption: ask the pipeline for what it knows, and apply the other words.

A pipeline's network draws names. Words for a motion or a main colour that it does not know are applied to the whole
figure afterwards, see :mod:`rdtf.whole_figure`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from rdtf.pipeline import StickerPipeline
from rdtf.pixels import fit
from rdtf.sticker import Sticker
from rdtf.text import Fit
from rdtf.whole_figure import NO_MOTION, check_names, move_picture, paint, part_words

STILL_MOTION = "dance"
"""Motion of a thing that the model has seen only as a still picture. Its network would hardly move it."""
UNPAINTED = "unpainted"
"""Attribute of a sticker that has no main colour, so that a wanted colour changed nothing."""


def understand(
    pipeline: StickerPipeline, caption: str, strict: bool = False, *, given: Collection[int] = ()
) -> tuple[Fit, dict[str, Any]]:
    """What to ask a pipeline for, and the settings ``motion`` and ``colour`` that other words of the caption stand for.

    A caption that the model knows as a whole, such as "woman dancing", is asked for as it is. A thing that it has seen
    only as a still picture moves by :data:`STILL_MOTION`, unless the caption names another motion. Settings are only
    those that :func:`make` takes with given frames at these positions.

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
        words.setdefault("motion", STILL_MOTION)
    return fit, words


def remarks(fit: Fit, settings: Mapping[str, Any]) -> list[str]:
    """Sentences for the user: what is made instead of the caption, and how it moves.

    Args:
        fit: from :func:`understand`.
        settings: arguments of :func:`make`, with those that :func:`understand` found.
    """
    said = [fit.note] if fit.note else []
    motion = settings.get("motion") or NO_MOTION
    if fit.still and motion != NO_MOTION and settings.get("num_frames") != 1:
        said.append(f"The model has seen only still pictures of it, so it moves as a whole ({motion})")
    return said


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
        motion: the first frame, given or made as a still, moves as a whole. The network makes no other frames. With
            :data:`~rdtf.whole_figure.NO_MOTION` it makes all of them.
        colour: of the stickers' main colour; not with given frames. A sticker without a main colour stays as it is,
            and its attribute :data:`UNPAINTED` says so.
        num_frames, fps, durations, settings: arguments of the pipeline.

    Raises:
        ValueError: what the pipeline does not take, an unknown motion or colour, or one that does not fit the frames.
    """
    motion = None if motion == NO_MOTION or num_frames == 1 else motion
    check_names(motion, colour)
    if colour and frames:
        raise ValueError("a colour is for stickers from words; given frames keep theirs")
    if motion and set(frames or ()) - {0}:
        raise ValueError("a motion moves one picture; give it as the first frame, and no others")
    if not motion:
        timing: dict[str, Any] = {"num_frames": num_frames, "fps": fps, "durations": durations}
        stickers = pipeline(caption, frames=frames, **timing, **settings).stickers
    elif frames:
        side = settings.get("output_size") or pipeline.config.sample_size
        picture = Sticker(fit(frames[0][None], side), np.ones(1), str(caption), {"given": [0]})
        stickers = [picture] * settings.get("num_stickers_per_prompt", 1)
    else:
        stickers = pipeline(caption, num_frames=1, **settings).stickers
    if colour:
        stickers = [_painted(sticker, colour) for sticker in stickers]
    if motion:
        times = np.full(num_frames, 1000 / fps) if durations is None else np.asarray(durations, np.float64)
        stickers = [_moved(sticker, motion, times) for sticker in stickers]
    return stickers


def _painted(sticker: Sticker, colour: str) -> Sticker:
    frames = paint(sticker.frames, colour)
    if frames is None:
        return replace(sticker, attributes={**sticker.attributes, UNPAINTED: True})
    return replace(sticker, frames=frames)


def _moved(still: Sticker, motion: str, times: np.ndarray) -> Sticker:
    frames = move_picture(still.frames[0], motion, len(times))
    return replace(still, frames=frames, durations=times, attributes={**still.attributes, "loops": True})
