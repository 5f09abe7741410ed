"""Baselines that fill unknown frames without a model: crossfade, nearest frame, optical flow."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from rdtf.pixels import premultiply, unpremultiply


def simple_fills(clip: np.ndarray, known: np.ndarray, loop: bool = False) -> dict[str, np.ndarray]:
    """Filled clips by name: ``crossfade`` of the known frames by distance, and ``nearest`` known frame.

    Args:
        clip: ``(n, h, w, 4)`` uint8, straight alpha; unknown frames are not used.
        known: ``(n,)`` bool, at least one True.
        loop: whether time is circular.

    Raises:
        ValueError: no frame is known.
    """
    blend = _blend(known, loop)
    nearest = np.eye(len(known))[blend.argmax(1)]
    flat = premultiply(clip).reshape(len(clip), -1).astype(np.float64)
    return {
        name: unpremultiply(np.rint(weights @ flat).astype(np.uint8).reshape(clip.shape))
        for name, weights in (("crossfade", blend), ("nearest", nearest))
    }


def _blend(known: np.ndarray, loop: bool) -> np.ndarray:
    """``(n, n)``: the weights of the known frames in each frame's cross-fade."""
    n = len(known)
    places = np.flatnonzero(known)
    if not len(places):
        raise ValueError("nothing can be filled in where no frame is known")
    weights = np.zeros((n, n))
    for frame in range(n):
        ahead = places - frame
        after, before = (ahead % n, -ahead % n) if loop else (ahead, -ahead)
        sides = [min(zip(way[way >= 0], places[way >= 0], strict=True)) for way in (before, after) if (way >= 0).any()]
        if len(sides) == 1 or known[frame]:
            weights[frame, sides[0][1]] = 1.0
        else:
            (back, previous), (forth, following) = sides
            weights[frame, previous] += forth / (back + forth)
            weights[frame, following] += back / (back + forth)
    return weights


def distance_to_known(known: np.ndarray, loop: bool = False) -> np.ndarray:
    """``(n,)`` distances to the nearest known frame, in frames; 0 for known frames. Circular in a loop."""
    away = np.abs(np.arange(len(known))[:, None] - np.flatnonzero(known))
    return (np.minimum(away, len(known) - away) if loop else away).min(1)


def has_flow() -> bool:
    """Whether OpenCV is installed, which :func:`flow_fill` needs."""
    try:
        _opencv()
    except ModuleNotFoundError:
        return False
    return True


def flow_fill(clip: np.ndarray, known: np.ndarray, loop: bool = False) -> np.ndarray:
    """Interpolation by optical flow: both known neighbours are warped to the frame's time and blended.

    OpenCV's dense inverse search (DIS, arXiv 1603.03590) finds the flows ``F_ab`` and ``F_ba`` between the known
    neighbours ``a`` and ``b``. Its grey pictures are half premultiplied luminance and half alpha, so white shapes are
    seen too. At the time ``t`` in 0..1 between them, assuming uniform motion::

        (1 - t) a[x - t F_ab(x)] + t b[x - (1 - t) F_ba(x)]

    in premultiplied RGBA. With a known frame on one side only, the nearest is repeated. In a loop the last and
    the first known frame are neighbours too.

    Args:
        clip: ``(n, h, w, 4)`` uint8, straight alpha, at least 16 px.

    Raises:
        ModuleNotFoundError: OpenCV is not installed.
    """
    filled = simple_fills(clip, known, loop)["nearest"]
    n, positions = len(clip), np.flatnonzero(known).tolist()
    for first, last in pairwise([*positions, positions[0] + n] if loop else positions):
        if last - first < 2:
            continue
        pair = premultiply(clip[[first, last % n]])
        grey = [_grey(frame) for frame in pair]
        forth, back = _flow(grey[0], grey[1]), _flow(grey[1], grey[0])
        for frame in range(first + 1, last):
            t = (frame - first) / (last - first)
            mixed = (1 - t) * _moved(pair[0], forth * -t) + t * _moved(pair[1], back * -(1 - t))
            mixed = np.rint(mixed).astype(np.uint8)
            mixed[..., :3] = np.minimum(mixed[..., :3], mixed[..., 3:])
            filled[frame % n] = unpremultiply(mixed)
    return filled


def _opencv() -> Any:
    try:
        import cv2
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("optical flow needs OpenCV: pip install 'rdtf[metrics]'") from error
    return cv2


def _grey(premultiplied: np.ndarray) -> np.ndarray:
    luminance = premultiplied[..., :3] @ np.array([0.299, 0.587, 0.114])
    return np.rint(0.5 * luminance + 0.5 * premultiplied[..., 3]).astype(np.uint8)


def _flow(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The flow from ``a`` to ``b``: ``(h, w, 2)`` float32 pixels to the right and down."""
    cv2 = _opencv()
    return cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(a, b, None)


def _moved(frame: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """The frame sampled at each pixel's position plus ``flow``, bilinearly. Outside, it is transparent."""
    cv2 = _opencv()
    rows, columns = np.indices(flow.shape[:2], np.float32)
    at = np.ascontiguousarray(np.stack([columns, rows], -1) + flow, np.float32)
    return cv2.remap(frame.astype(np.float32), at, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
