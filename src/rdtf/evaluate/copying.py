"""Memorisation: are generated clips nearer to training clips than held-out clips are?"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from PIL import Image

from rdtf.evaluate.estimates import Estimate, mean_estimate
from rdtf.pixels import premultiply

SIDE, FRAMES = 16, 4
CHUNK = 512  # references that are compared at once: memory is n x 512 floats, not n x m
CLOSE = 0.05
"""Fraction of the held-out clips that counts as unusually close to a training clip."""


def clip_vectors(clips: Iterable[np.ndarray]) -> np.ndarray:
    """Vectors ``(n, 4096)`` float32 of clips: four frames, evenly spaced in time, box-filtered to 16 px.

    Values are premultiplied RGBA in [0, 1]. The RMS difference of two vectors is their Euclidean distance / 64.
    """
    vectors = []
    for clip in clips:
        chosen = premultiply(clip[np.arange(FRAMES) * len(clip) // FRAMES])
        size = chosen.shape[2], chosen.shape[1]
        for frame in chosen:
            picture = Image.frombuffer("RGBa", size, np.ascontiguousarray(frame), "raw", "RGBa", 0, 1)
            small = picture.resize((SIDE, SIDE), Image.Resampling.BOX)
            vectors.append(np.frombuffer(small.tobytes(), np.uint8).astype(np.float32) / 255)
    return np.stack(vectors).reshape(-1, FRAMES * 4 * SIDE**2)


def nearest_distances(queries: np.ndarray, references: np.ndarray) -> np.ndarray:
    """RMS differences ``(n,)`` of ``(n, d)`` queries to the nearest of ``(m, d)`` references."""
    best = np.full(len(queries), np.inf)
    for start in range(0, len(references), CHUNK):
        # |q - r|^2 = |q|^2 - 2 q.r + |r|^2. Float64, because the terms cancel for near copies.
        q, r = (x.astype(np.float64) for x in (queries, references[start : start + CHUNK]))
        squares = np.square(q).sum(1)[:, None] - 2 * q @ r.T + np.square(r).sum(1)
        best = np.minimum(best, squares.min(1))
    return np.sqrt(best.clip(0) / queries.shape[1])


def memorisation(
    made: np.ndarray, held_out: np.ndarray, training: np.ndarray, seed: int = 0
) -> tuple[Estimate, Estimate, Estimate]:
    """Compare the distances of generated and of held-out clips to their nearest training clip.

    A small distance alone proves nothing: a plain shape is close to many clips. Held-out clips cannot be copies, so
    their distances are the scale. Vectors of pixels do not find a copy that is mirrored, moved or recoloured. All
    arguments are vectors ``(n, d)``, from :func:`clip_vectors` or of any features.

    Returns:
        mean distance of generated clips, mean distance of held-out clips, and the fraction of generated clips that are
        nearer to a training clip than 95 % of the held-out clips are. A model that does not copy gets about 0.05. A
        model that only copies gets 1.

    Raises:
        ValueError: fewer than 20 held-out clips. 5 % of them are less than one clip.
    """
    needed = round(1 / CLOSE)
    if len(held_out) < needed:
        raise ValueError(f"{len(held_out)} held-out clips are too few to say how near is near; {needed} are needed")
    distances, usual = (nearest_distances(vectors, training) for vectors in (made, held_out))
    close = distances < np.quantile(usual, CLOSE)
    return mean_estimate(distances, seed), mean_estimate(usual, seed), mean_estimate(close, seed)
