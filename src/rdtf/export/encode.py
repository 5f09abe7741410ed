"""Frames to WebM and WebP, with a knob of quality; :mod:`rdtf.io.encode` has the other formats.

Frames are ``(n, h, w, 4)`` uint8 with straight alpha; durations are milliseconds.
"""

from __future__ import annotations

import io
from fractions import Fraction

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter
from PIL import Image
from scipy.ndimage import distance_transform_edt

from rdtf.io.encode import Clip, Note, cleared, whole_ticks
from rdtf.io.metadata import TAG, note_text, xmp_note

_BLEED_PIXELS = 8
_EXACT = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.BITEXACT | Interpolation.FULL_CHR_H_INP


def merged(clip: Clip) -> Clip:
    """The clip with equal neighbours shown as one frame of their common duration."""
    return clip.picked(*merge(clip, np.arange(len(clip.frames)), clip.durations))


def merge(clip: Clip, index: np.ndarray, durations: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places of frames and their times, with equal neighbours taken together."""
    new = np.ones(len(index), bool)
    for n in range(1, len(index)):
        a, b = index[n - 1], index[n]
        new[n] = a != b and not np.array_equal(clip.frames[a], clip.frames[b])
    starts = np.flatnonzero(new)
    return index[starts], np.add.reduceat(durations, starts)


def webm(clip: Clip, crf: int, fps: float, note: Note = None) -> bytes:
    """VP9 with alpha at a constant frame rate, the form that Telegram asks for.

    Args:
        crf: constant rate factor, 0 (best) to 63. fps: frames a second; a frame of the clip is repeated while it lasts.
        note: for the file's tags, see :mod:`rdtf.io.metadata`.
    """
    height, width = clip.frames.shape[1:3]
    starts = clip.starts()
    ticks = max(1, round(starts[-1] * fps / 1000))
    shown = np.searchsorted(starts[1:-1], (np.arange(ticks) + 0.5) * starts[-1] / ticks, side="right")
    bled = {index: _bled(clip.frames[index]) for index in np.unique(shown).tolist()}
    convert = VideoReformatter()
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="webm") as container:
        if note is not None:
            container.metadata[TAG] = note_text(note)
        stream = container.add_stream("libvpx-vp9", rate=Fraction(fps).limit_denominator(1000))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuva420p"
        # Without auto-alt-ref=0 libvpx refuses alpha. One thread, so that the bytes are the same on every machine.
        stream.options = {"crf": str(crf), "b": "0", "auto-alt-ref": "0", "deadline": "good", "cpu-used": "3"}
        stream.codec_context.thread_count = 1
        for tick, index in enumerate(shown):
            pixels = av.VideoFrame.from_ndarray(bled[int(index)], format="rgba")
            frame = convert.reformat(pixels, format="yuva420p", interpolation=_EXACT, threads=1)
            frame.pts = tick
            for packet in stream.encode(frame):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return buffer.getvalue()


def _bled(frame: np.ndarray) -> np.ndarray:
    """Transparent pixels near the sticker take the colour of its edge, so that halved chroma leaves no dark fringe."""
    empty = frame[..., 3] == 0
    if not empty.any() or empty.all():
        return frame
    distance, (rows, columns) = distance_transform_edt(empty, return_indices=True)
    near = empty & (distance <= _BLEED_PIXELS)
    out = cleared(frame)
    out[near, :3] = frame[rows[near], columns[near], :3]
    return out


def webp(clip: Clip, quality: int | None, note: Note = None) -> bytes:
    """WebP by libwebp, which merges equal neighbouring frames.

    Args:
        quality: 0 to 100 of lossy compression; None is lossless.
    """
    images = [Image.fromarray(frame) for frame in cleared(clip.frames)]
    how = {"lossless": True, "quality": 60} if quality is None else {"quality": quality, "alpha_quality": 95}
    buffer = io.BytesIO()
    times = whole_ticks(clip.durations, 1, 1, 2**24 - 1)
    options = {"save_all": True, "append_images": images[1:], "duration": times, "loop": clip.plays}
    xmp = xmp_note(note) if note else b""
    images[0].save(buffer, "WEBP", method=4, xmp=xmp, **how, **(options if len(images) > 1 else {}))
    return buffer.getvalue()
