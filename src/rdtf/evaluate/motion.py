"""How much a clip moves, and whether it closes; no true clip is needed.

Clips are ``(n, h, w, 4)`` uint8, straight alpha; differences are of premultiplied RGBA in 0..1.
"""

from __future__ import annotations

import numpy as np

from rdtf.pixels import premultiply

FROZEN = 0.001
"""A clip whose motion energy is below this (a quarter of a grey level a step) stands still."""


def _steps(clip: np.ndarray) -> np.ndarray:
    if len(clip) < 2:
        raise ValueError("a still has no motion to measure; at least 2 frames are needed")
    return np.diff(premultiply(clip).astype(np.float64) / 255, axis=0)


def motion_energy(clip: np.ndarray) -> float:
    """Mean absolute difference between neighbouring frames, 0 to 1. Nearer to that of real clips is better."""
    return float(np.abs(_steps(clip)).mean())


def is_frozen(clip: np.ndarray) -> bool:
    """Whether the clip stands still: motion energy below 0.001."""
    return motion_energy(clip) < FROZEN


def loop_seam(clip: np.ndarray) -> float:
    """The step from the last frame back to the first, in usual (mean) steps.

    About 1 where a clip loops, more where it jumps, 0 where the first frame is repeated at the end; NaN for a clip that
    does not change.
    """
    usual = np.abs(_steps(clip)).mean()
    return float(np.abs(_steps(clip[[-1, 0]])).mean() / usual) if usual > 0 else float("nan")
