"""Motion and loop seam of a clip. No true clip is needed.

Clips are ``(n, h, w, 4)`` uint8, straight alpha; differences are of premultiplied RGBA in 0..1.
"""

from __future__ import annotations

import numpy as np

from rdtf.pixels import premultiply

FROZEN = 0.001
"""Clips with less motion energy (a quarter of a grey level in each step) stand still."""


def _steps(clip: np.ndarray) -> np.ndarray:
    if len(clip) < 2:
        raise ValueError("a still has no motion to measure; at least 2 frames are needed")
    return np.diff(premultiply(clip).astype(np.float64) / 255, axis=0)


def motion_energy(clip: np.ndarray) -> float:
    """Mean absolute difference between neighbouring frames, 0 to 1. It should be near that of real clips."""
    return float(np.abs(_steps(clip)).mean())


def is_frozen(clip: np.ndarray) -> bool:
    """Whether the clip stands still: motion energy below 0.001."""
    return motion_energy(clip) < FROZEN


def loop_seam(clip: np.ndarray) -> float:
    """The difference of last and first frame, relative to the mean difference of neighbouring frames.

    It is about 1 for a loop, more for a jump, and 0 if the last frame equals the first. NaN if all frames are equal.
    """
    usual = np.abs(_steps(clip)).mean()
    return float(np.abs(_steps(clip[[-1, 0]])).mean() / usual) if usual > 0 else float("nan")
