"""Measures of generated frames against true frames: colour, structure, alpha, motion and cleanliness.

Clips are ``(n, h, w, 4)`` uint8, straight alpha. Errors of white parts are invisible over white, and errors of black
parts over black.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree

from rdtf.pixels import composite, premultiply

WHITE, BLACK = (255, 255, 255), (0, 0, 0)
BEST = 99.0  # PSNR in dB of equal frames
SIGMA, RADIUS = 1.5, 5  # of SSIM's Gaussian window, which is 11 px wide
OPAQUE = 250  # alpha from which a pixel counts as opaque
HALF = (26, 229)  # alpha of half-transparent pixels, 10 to 90 %
FROZEN = 0.001  # clips with less motion energy (a quarter of a grey level in each step) stand still
STILL = 2  # largest change of premultiplied RGBA of a pixel that stands still


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB of uint8 pictures, pooled over all pictures; 99 for equal ones."""
    error = np.square(a.astype(np.float64) - b).mean()
    return float(10 * np.log10(255**2 / error)) if error else BEST


def ssim(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Structural similarity (Wang et al. 2004) of uint8 pictures ``(n, h, w, c)``: ``(n,)``, 1 for equal pictures.

    ``(2 m_a m_b + C1)(2 s_ab + C2) / ((m_a^2 + m_b^2 + C1)(s_a^2 + s_b^2 + C2))`` with means and population
    (co)variances under the window, C1 = (0.01 x 255)^2, C2 = (0.03 x 255)^2; the mean over channels and over the pixels
    whose window lies inside the picture.

    Raises:
        ValueError: pictures below 11 px or of unlike shapes.
    """
    if a.shape != b.shape or a.ndim != 4 or min(a.shape[1:3]) < 2 * RADIUS + 1:
        raise ValueError(f"SSIM needs pictures (n, h, w, c) of one shape, 11 px or more; got {a.shape} and {b.shape}")

    def smooth(x: np.ndarray) -> np.ndarray:
        return gaussian_filter(x, SIGMA, axes=(1, 2), radius=RADIUS)[:, RADIUS:-RADIUS, RADIUS:-RADIUS]

    x, y = a.astype(np.float64), b.astype(np.float64)
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mean_x, mean_y = smooth(x), smooth(y)
    var_x, var_y = smooth(x * x) - mean_x**2, smooth(y * y) - mean_y**2
    shared = smooth(x * y) - mean_x * mean_y
    above = (2 * mean_x * mean_y + c1) * (2 * shared + c2)
    return (above / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))).mean((1, 2, 3))


def alpha_error(made: np.ndarray, truth: np.ndarray) -> float:
    """Mean absolute difference of alpha, 0 to 1; lower is better."""
    return float(np.abs(made[..., 3].astype(np.float64) - truth[..., 3]).mean() / 255)


def colour_distance(frames: np.ndarray, given: np.ndarray) -> float:
    """Mean distance of opaque pixels to the nearest opaque colour of the given frames, in RGB; 0 to 442.

    Patches, smears and ghosts have colours that the given frames lack. NaN if either has no opaque pixel.
    """
    colours, known = (clip[clip[..., 3] >= OPAQUE][:, :3] for clip in (frames, given))
    if not len(colours) or not len(known):
        return float("nan")
    unique, counts = np.unique(colours, axis=0, return_counts=True)
    away = cKDTree(np.unique(known, axis=0).astype(np.float64)).query(unique.astype(np.float64))[0]
    return float((away * counts).sum() / counts.sum())


def cleanliness(made: np.ndarray, truth: np.ndarray, given: np.ndarray) -> float:
    """:func:`colour_distance` of the generated frames minus that of the true frames, -442 to 442; 0 is clean."""
    return colour_distance(made, given) - colour_distance(truth, given)


def half_transparent(frames: np.ndarray) -> float:
    """Fraction of pixels with an alpha from 10 to 90 %, as soft edges and ghosts have; 0 to 1."""
    return float(((frames[..., 3] >= HALF[0]) & (frames[..., 3] <= HALF[1])).mean())


def flicker(made: np.ndarray, truth: np.ndarray, steps: np.ndarray | None = None) -> float:
    """Mean change between neighbouring generated frames at visible pixels where the true clip stands still.

    In premultiplied RGBA, 0 to 255; lower is better. NaN if no pixel stands still. ``steps`` ``(n - 1,)`` bool are the
    differences that count; by default all.
    """
    ours, theirs = (premultiply(clip).astype(np.float64) for clip in (made, truth))
    still = (np.ptp(theirs, axis=0) <= STILL).all(-1) & (truth[..., 3] > 0).any(0)
    if not still.any():
        return float("nan")
    change = np.abs(np.diff(ours, axis=0))[:, still]
    return float((change if steps is None else change[steps]).mean())


def check_given(made: np.ndarray, truth: np.ndarray, known: np.ndarray) -> None:
    """Check that given frames are unchanged, ignoring the colour under full transparency.

    Raises:
        ValueError: a given frame is changed; the text names the frames.
    """
    if made.shape != truth.shape:
        raise ValueError(f"the made clip has the shape {made.shape}, the true one {truth.shape}")
    same = (premultiply(made) == premultiply(truth)).all((1, 2, 3))
    if changed := np.flatnonzero(known & ~same).tolist():
        raise ValueError(f"given frames {changed} came back changed; they must be returned pixel for pixel")


def frame_scores(made: np.ndarray, truth: np.ndarray, known: np.ndarray) -> dict[str, float]:
    """All measures above over the unknown frames of a clip of 2 or more frames, by name.

    Temporal differences count where at least one of the two frames is unknown. ``known`` ``(n,)`` has a False.
    """
    unknown = ~known
    ours, theirs = made[unknown], truth[unknown]
    scores = {}
    for name, ground in (("white", WHITE), ("black", BLACK)):
        a, b = composite(ours, ground), composite(theirs, ground)
        scores[f"psnr_{name}"] = psnr(a, b)
        scores[f"ssim_{name}"] = float(ssim(a, b).mean())
    scores["alpha_error"] = alpha_error(ours, theirs)
    scores["cleanliness"] = cleanliness(ours, theirs, truth[known])
    scores["flicker"] = flicker(made, truth, unknown[1:] | unknown[:-1])
    return scores


# Motion and loop seam of a clip. No true clip is needed.


def motion_energy(clip: np.ndarray) -> float:
    """Mean absolute difference between neighbouring frames, 0 to 1. It should be near that of real clips."""
    if len(clip) < 2:
        raise ValueError("a still has no motion to measure; at least 2 frames are needed")
    return float(np.abs(np.diff(premultiply(clip).astype(np.float64) / 255, axis=0)).mean())


def is_frozen(clip: np.ndarray) -> bool:
    """Whether the clip stands still: motion energy below 0.001."""
    return motion_energy(clip) < FROZEN


def loop_seam(clip: np.ndarray) -> float:
    """The difference of last and first frame, relative to the mean difference of neighbouring frames.

    It is about 1 for a loop, more for a jump, and 0 if the last frame equals the first. NaN if all frames are equal.
    """
    usual = motion_energy(clip)
    return motion_energy(clip[[-1, 0]]) / usual if usual > 0 else float("nan")
