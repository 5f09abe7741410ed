"""What is drawn on a canvas, and two cures that change it, which are given only on request.

This is part of reading a file: frames depend on it. What is found in frames, and changes nothing, is in
:mod:`rdtf.data.checks`. All functions are pure and see one sticker.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

CURES = ("background_cleared", "cropped")
"""Findings that say what was done."""

SOLID = 250  # alpha from which a pixel counts as opaque
FLAT_DIFFERENCE = 12  # of a channel, up to which two opaque pixels are of one colour
FLAT_SHARE = 0.97  # of the pixels at the border, on every frame
BAR, BARS = 0.04, 0.1  # least height of one bar, and of two together, in parts of the picture
EDGE = 2  # width of the seam between background and drawing in which colours are mixtures, in pixels

Box = tuple[int, int, int, int]  # top, left, bottom, right


def treat(frames: np.ndarray, *, crop: bool, clear: bool) -> tuple[np.ndarray, list[str]]:
    """The cures that are asked for, and a finding for each that was given.

    Args:
        frames: ``(n, h, w, 4)`` uint8, straight alpha, best of the file's own size.
        crop: see :func:`crop_to_content`. clear: see :func:`clear_background`.

    Returns:
        Frames, of another height and width if they were cropped.
    """
    given = []
    if clear and (cleared := clear_background(frames)) is not None:
        frames = cleared
        given.append("background_cleared")
    if crop and (cropped := crop_to_content(frames)).shape != frames.shape:
        frames = cropped
        given.append("cropped")
    return frames, given


def drawn_box(alpha: np.ndarray) -> Box:
    """The box around what is drawn on any frame of ``(n, h, w)`` uint8 alpha; traces of less than 8 do not count."""
    drawn = alpha.max(0) >= 8
    if not drawn.any():
        return 0, 0, alpha.shape[1], alpha.shape[2]
    rows, columns = np.flatnonzero(drawn.any(1)), np.flatnonzero(drawn.any(0))
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


def spans(box: Box, frames: np.ndarray) -> bool:
    """Whether a box reaches from side to side: a picture fitted into the canvas does, a drawn square need not."""
    top, left, bottom, right = box
    return bottom - top == frames.shape[1] or right - left == frames.shape[2]


def content_box(frames: np.ndarray) -> Box:
    """:func:`drawn_box` without letterbox bars: opaque stripes of one colour at two sides that face each other.

    A picture that has the colour of its bars at its other sides too stands on a flat background and has no bars.
    """
    top, left, bottom, right = drawn_box(frames[..., 3])
    inside = frames[:, top:bottom, left:right]
    over, under = _bars(inside)
    if over + under:
        return top + over, left, bottom - under, right
    before, after = _bars(inside.swapaxes(1, 2))
    return top, left + before, bottom, right - after


def _bars(frames: np.ndarray) -> tuple[int, int]:
    """Heights of the bars at the top and at the bottom; two zeros if there are none."""
    height = frames.shape[1]
    colour = frames[:, 0].reshape(-1, 4)[0]
    if not _like(frames[:, 0], colour).all():  # of most stickers; the rest is work
        return 0, 0
    flat = np.asarray(_like(frames, colour).all((0, 2)))  # of each row
    if flat.all():
        return 0, 0
    over, under = int((~flat).argmax()), int((~flat[::-1]).argmax())
    if min(over, under) < max(1, BAR * height) or over + under < BARS * height:
        return 0, 0
    middle = frames[:, over : height - under]
    sides = np.stack([_like(middle[:, :, side], colour).mean() for side in (0, -1)])
    return (0, 0) if (sides > 0.5).all() else (over, under)


def _like(frames: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """Which pixels ``(..., 4)`` are opaque and of a colour (4 values)."""
    near = (np.abs(frames[..., :3].astype(np.int16) - colour[:3].astype(np.int16)) <= FLAT_DIFFERENCE).all(-1)
    return near & (frames[..., 3] >= SOLID)


def flat_background(frames: np.ndarray) -> np.ndarray | None:
    """The one colour ``(4,)`` uint8 of the border of what is drawn, on all frames; None if it has none.

    None as well if nothing stands on it, for then it is no background, and if it does not reach from side to side.
    """
    top, left, bottom, right = box = drawn_box(frames[..., 3])
    if not spans(box, frames):
        return None
    inside = frames[:, top:bottom, left:right]
    border = np.concatenate([inside[:, 0], inside[:, -1], inside[:, :, 0], inside[:, :, -1]], axis=1)
    colour = np.median(border, axis=(0, 1)).astype(np.uint8)
    if (_like(border, colour).mean(1) < FLAT_SHARE).any() or _like(inside, colour).all():
        return None
    return colour


def clear_background(frames: np.ndarray) -> np.ndarray | None:
    """Make a flat background transparent.

    What has the background's colour and is connected to the border goes. At the seam colours are mixtures: there
    alpha is what part of the nearest pixel well inside is needed to mix the pixel from it and the background, and
    the colour is that pixel's.

    Args:
        frames: ``(n, h, w, 4)`` uint8.

    Returns:
        New frames, or None if the background is not flat or hardly anything would be left.
    """
    colour = flat_background(frames)
    if colour is None:
        return None
    out = np.stack([_cut_out(frame, colour) for frame in frames])
    return out if (out[..., 3] > 0).mean() >= 0.01 else None


def _cut_out(frame: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """One ``(h, w, 4)`` frame without a background of a colour."""
    # A frame of transparency around it connects all its sides, and what was transparent before.
    ground = np.pad(_like(frame, colour) | (frame[..., 3] == 0), 1, constant_values=True)
    labels = ndimage.label(ground)[0]
    gone = (labels == labels[0, 0])[1:-1, 1:-1]
    out = frame.copy()
    out[gone] = 0
    distance = ndimage.distance_transform_edt(~gone)
    seam, well_inside = ~gone & (distance < EDGE), ~gone & (distance >= EDGE)
    if not well_inside.any():  # thin lines all over: nothing says what they were mixed from
        return out
    nearest = ndimage.distance_transform_edt(~well_inside, return_distances=False, return_indices=True)
    source = frame[nearest[0], nearest[1]][seam][:, :3].astype(np.float32)
    back, pixels = colour[:3].astype(np.float32), frame[seam][:, :3].astype(np.float32)
    away = source - back
    share = ((pixels - back) * away).sum(1) / np.maximum((away**2).sum(1), 1)
    rest = np.abs(back + share[:, None] * away - pixels).max(1)
    # An outline of another colour is no mixture of the two, and stays as it is.
    mixed = (share < 0.97) & (rest <= 2 * FLAT_DIFFERENCE)
    values = np.concatenate([source, np.rint(255 * share.clip(0, 1))[:, None]], axis=1)
    out[seam] = np.where(mixed[:, None], values, out[seam]).astype(np.uint8)
    out[out[..., 3] == 0] = 0
    return out


def crop_to_content(frames: np.ndarray) -> np.ndarray:
    """The part of ``(n, h, w, 4)`` frames within :func:`content_box`; the same part of all frames."""
    top, left, bottom, right = content_box(frames)
    return frames[:, top:bottom, left:right]
