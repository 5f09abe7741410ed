"""Fixes that change frames: cropping to the drawing, and clearing a flat background. Both are off by default.

The checks that lead to them are in :mod:`rdtf.data.checks`. All functions are pure and see one sticker.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

SOLID = 250  # alpha from which a pixel is opaque
FLAT_DIFFERENCE = 12  # of a channel: up to this, two opaque pixels have the same colour
FLAT_FRACTION = 0.97  # of the border's pixels have the colour of a flat background, on every frame
EDGE = 2  # pixels at the edge of a drawing whose colour is a mixture with the background

Box = tuple[int, int, int, int]  # top, left, bottom, right


def drawn_box(alpha: np.ndarray) -> Box:
    """The box around the drawing over all frames of ``(n, h, w)`` uint8 alpha; alpha below 8 does not count."""
    drawn = alpha.max(0) >= 8
    if not drawn.any():
        return 0, 0, alpha.shape[1], alpha.shape[2]
    rows, columns = np.flatnonzero(drawn.any(1)), np.flatnonzero(drawn.any(0))
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


def spans(box: Box, frames: np.ndarray) -> bool:
    """Whether a box reaches from side to side of the canvas, as a fitted picture does."""
    top, left, bottom, right = box
    return bottom - top == frames.shape[1] or right - left == frames.shape[2]


def _has_colour(frames: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """Which pixels ``(..., 4)`` are opaque and have a colour (4 values)."""
    near = (np.abs(frames[..., :3].astype(np.int16) - colour[:3].astype(np.int16)) <= FLAT_DIFFERENCE).all(-1)
    return near & (frames[..., 3] >= SOLID)


def flat_background(frames: np.ndarray) -> np.ndarray | None:
    """The one colour ``(4,)`` uint8 of the drawing's border on all frames.

    None if the border has several colours, if nothing else is drawn, or if the drawing does not reach from side to
    side.
    """
    top, left, bottom, right = box = drawn_box(frames[..., 3])
    if not spans(box, frames):
        return None
    inside = frames[:, top:bottom, left:right]
    border = np.concatenate([inside[:, 0], inside[:, -1], inside[:, :, 0], inside[:, :, -1]], axis=1)
    colour = np.median(border, axis=(0, 1)).astype(np.uint8)
    if (_has_colour(border, colour).mean(1) < FLAT_FRACTION).any() or _has_colour(inside, colour).all():
        return None
    return colour


def clear_background(frames: np.ndarray) -> np.ndarray:
    """Make a flat background transparent: all pixels of its colour that are connected to the border.

    Pixels at the edge of the drawing are mixtures: ``pixel = a * drawing + (1 - a) * background``, where ``drawing`` is
    the nearest pixel inside. Each becomes ``drawing`` with the alpha ``a``.

    Args:
        frames: ``(n, h, w, 4)`` uint8, straight alpha, best at the file's own size.

    Returns:
        New frames; the same ones if the background is not flat or hardly anything would be left.
    """
    colour = flat_background(frames)
    if colour is None:
        return frames
    out = np.stack([_cut_out(frame, colour) for frame in frames])
    return out if (out[..., 3] > 0).mean() >= 0.01 else frames


def _cut_out(frame: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """One ``(h, w, 4)`` frame without a background of a colour."""
    # One transparent pixel around the frame connects all sides with each other and with transparent parts.
    ground = np.pad(_has_colour(frame, colour) | (frame[..., 3] == 0), 1, constant_values=True)
    labels = ndimage.label(ground)[0]
    gone = (labels == labels[0, 0])[1:-1, 1:-1]
    out = frame.copy()
    out[gone] = 0
    distance = ndimage.distance_transform_edt(~gone)
    edge, inside = ~gone & (distance < EDGE), ~gone & (distance >= EDGE)
    if not inside.any():  # a drawing of thin lines: the pure colour is not known
        return out
    nearest = ndimage.distance_transform_edt(~inside, return_distances=False, return_indices=True)
    drawing = frame[nearest[0], nearest[1]][edge][:, :3].astype(np.float32)
    background, pixels = colour[:3].astype(np.float32), frame[edge][:, :3].astype(np.float32)
    away = drawing - background
    alpha = ((pixels - background) * away).sum(1) / np.maximum((away**2).sum(1), 1)
    rest = np.abs(background + alpha[:, None] * away - pixels).max(1)
    # An outline of another colour is no mixture of the two, and stays as it is.
    mixed = (alpha < 0.97) & (rest <= 2 * FLAT_DIFFERENCE)
    values = np.concatenate([drawing, np.rint(255 * alpha.clip(0, 1))[:, None]], axis=1)
    out[edge] = np.where(mixed[:, None], values, out[edge]).astype(np.uint8)
    out[out[..., 3] == 0] = 0
    return out


def crop_to_content(frames: np.ndarray) -> np.ndarray:
    """``(n, h, w, 4)`` frames cropped to :func:`drawn_box`, all of them alike."""
    top, left, bottom, right = drawn_box(frames[..., 3])
    return frames[:, top:bottom, left:right]
