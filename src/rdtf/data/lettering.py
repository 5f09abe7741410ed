"""Whether a sticker is lettering and nothing else, told from its pixels.

Letters are several separate pieces of ink of like height and like, thin strokes, side by side in rows; and around them
there is nothing but, at most, their outlines or a flat ground. That is a rule of thumb that prefers to miss: it
takes at least three letters apart from each other in a row, so that two letters, joined handwriting and rows far from
level are not seen.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy import ndimage

from rdtf.data.fixes import flat_background

LOOKS = 3  # frames of an animation that are looked at; all of them must be lettering
ON_GROUND, ON_OUTLINE = 60, 70  # differences of a channel from which a pixel is ink
REACH = 1 / 16  # of the canvas: as far as an outline goes from its letter
SPECK = 1 / 1024  # of the canvas: pieces of ink that are smaller do not count
LETTERS = (3, 60)
HEIGHTS = (0.45, 2.2)  # of a letter, in usual ones; small letters, points and commas are below, and may be few
HIGHEST = 0.62  # of the canvas
IN_LETTERS, IN_ROWS = 0.85, 0.8  # least share of the ink, and of the letters
THICKEST, THICKNESSES = 0.45, 2.2  # of strokes: in heights of letters, and of the thickest in usual ones
SOLID_BOX = 0.85  # share of its box that a letter fills at most, at the median
GAPS = (-0.5, 1.2)  # between neighbours in a row, in heights of letters


def is_lettering(frames: np.ndarray) -> bool:
    """Whether nothing but writing seems to be drawn.

    Args:
        frames: ``(n, h, w, 4)`` uint8, straight alpha.
    """
    ground = flat_background(frames)
    looks = np.unique(np.linspace(0, len(frames) - 1, LOOKS).round().astype(int))
    return all(any(_in_rows(ink) for ink in _inks(frames[look], ground)) for look in looks)


def _inks(frame: np.ndarray, ground: np.ndarray | None) -> Iterator[np.ndarray]:
    """``(h, w)`` masks of what may be letters: all that is drawn, and what is inside of thin outlines."""
    drawn = frame[..., 3] >= 128
    if ground is not None:
        drawn &= _unlike(frame, ground) > ON_GROUND
    yield drawn
    rim = drawn & ~ndimage.binary_erosion(drawn)
    if not rim.any():
        return
    inside = drawn & (_unlike(frame, np.median(frame[rim], axis=0)) > ON_OUTLINE)
    if inside.any() and ndimage.distance_transform_edt(~inside)[drawn].max() <= REACH * max(drawn.shape):
        yield inside


def _unlike(frame: np.ndarray, colour: np.ndarray) -> np.ndarray:
    return np.asarray(np.abs(frame[..., :3].astype(np.int16) - colour[:3].astype(np.int16)).max(-1))


def _in_rows(ink: np.ndarray) -> bool:
    """Whether a mask looks like letters in rows."""
    labels, count = ndimage.label(ink, np.ones((3, 3)))
    if count < LETTERS[0]:
        return False
    areas = ndimage.sum_labels(ink, labels, np.arange(1, count + 1))
    kept = np.flatnonzero(areas >= SPECK * ink.size)
    if not LETTERS[0] <= len(kept) <= LETTERS[1]:
        return False
    boxes = ndimage.find_objects(labels)
    top, bottom, left, right = np.array(
        [(y.start, y.stop, x.start, x.stop) for y, x in (boxes[piece] for piece in kept)], np.float64
    ).T
    height, area = bottom - top, areas[kept]
    usual = float(np.median(height[height >= height.max() / 2]))
    letters = height >= HEIGHTS[0] * usual
    if letters.sum() < LETTERS[0] or area[letters].sum() < IN_LETTERS * area.sum():
        return False
    if height.max() > min(HEIGHTS[1] * usual, HIGHEST * len(ink)):
        return False
    depth = ndimage.distance_transform_edt(np.pad(ink, 1))[1:-1, 1:-1]
    strokes = 2 * ndimage.maximum(depth, labels, kept[letters] + 1) - 1
    if np.median(strokes) > THICKEST * usual or strokes.max() > THICKNESSES * np.median(strokes) + 1:
        return False
    top, bottom, left, right, area = (values[letters] for values in (top, bottom, left, right, area))
    if np.median(area / ((bottom - top) * (right - left))) > SOLID_BOX:
        return False
    return _stand_in_rows((top + bottom) / 2, left, right, usual)


def _stand_in_rows(middle: np.ndarray, left: np.ndarray, right: np.ndarray, usual: float) -> bool:
    """Whether boxes stand side by side, in rows of which one has three at least."""
    order = np.argsort(middle, kind="stable")
    rows = np.split(order, np.flatnonzero(np.diff(middle[order]) > usual / 2) + 1)
    several = [row[np.argsort(left[row], kind="stable")] for row in rows if len(row) > 1]
    if sum(map(len, several)) < IN_ROWS * len(middle) or max(map(len, several), default=0) < LETTERS[0]:
        return False
    gaps = np.concatenate([left[row][1:] - right[row][:-1] for row in several])
    return bool(gaps.min() >= GAPS[0] * usual and gaps.max() <= GAPS[1] * usual)
