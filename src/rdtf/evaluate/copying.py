"""Memorisation: are generated clips nearer to training clips than held-out clips are?"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from rdtf.evaluate.estimates import Estimate, mean_estimate
from rdtf.pixels import premultiply

SIDE, FRAMES = 16, 4
CHUNK = 512
CLOSE = 0.05
"""Fraction of the held-out clips that counts as unusually close to a training clip."""


@dataclass(frozen=True)
class Memorisation:
    """Distances to the nearest training clip.

    Attributes:
        made, held_out: mean distance of generated and of held-out clips.
        close: fraction of generated clips that are nearer to a training clip than 95 % of the held-out clips are. A
            model that does not copy gets about 0.05. A model that only copies gets 1.
        nearest: index of the nearest training clip, for each generated clip.
        distances: distance to it.
    """

    made: Estimate
    held_out: Estimate
    close: Estimate
    nearest: np.ndarray
    distances: np.ndarray


def clip_vectors(clips: Iterable[np.ndarray]) -> np.ndarray:
    """Vectors ``(n, 4096)`` float32 of clips: four frames, evenly spaced in time, box-filtered to 16 px.

    Values are premultiplied RGBA in [0, 1]. The RMS difference of two vectors is their Euclidean distance / 64.
    """
    return np.stack([_small(clip) for clip in clips])


def _small(clip: np.ndarray) -> np.ndarray:
    chosen = premultiply(clip[np.arange(FRAMES) * len(clip) // FRAMES])
    height, width = chosen.shape[1:3]
    pictures = [
        Image.frombuffer("RGBa", (width, height), np.ascontiguousarray(frame), "raw", "RGBa", 0, 1).resize(
            (SIDE, SIDE), Image.Resampling.BOX
        )
        for frame in chosen
    ]
    return np.concatenate([np.frombuffer(p.tobytes(), np.uint8) for p in pictures]).astype(np.float32) / 255


def nearest_neighbours(queries: np.ndarray, references: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The nearest of ``(m, d)`` references for each of ``(n, d)`` queries: RMS differences and indices.

    References are compared in chunks. Memory is ``n x 512`` floats, not ``n x m``.
    """
    if not len(references) or queries.shape[1:] != references.shape[1:]:
        raise ValueError(f"no neighbours for {queries.shape} among {references.shape}")
    best = np.full(len(queries), np.inf)
    index = np.zeros(len(queries), int)
    for start in range(0, len(references), CHUNK):
        part = references[start : start + CHUNK]
        # |q - r|^2 = |q|^2 - 2 q.r + |r|^2. Float64, because the terms cancel for near copies.
        q, r = queries.astype(np.float64), part.astype(np.float64)
        squares = np.square(q).sum(1)[:, None] - 2 * q @ r.T + np.square(r).sum(1)
        nearest = squares.argmin(1)
        found = squares[np.arange(len(q)), nearest]
        closer = found < best
        best[closer], index[closer] = found[closer], start + nearest[closer]
    return np.sqrt(best.clip(0) / queries.shape[1]), index


def memorisation(made: np.ndarray, held_out: np.ndarray, training: np.ndarray, seed: int = 0) -> Memorisation:
    """Compare the distances of generated and of held-out clips to their nearest training clip.

    A small distance alone proves nothing: a plain shape is close to many clips. Held-out clips cannot be copies, so
    their distances are the scale. Vectors of pixels do not find a copy that is mirrored, moved or recoloured.

    Args:
        made, held_out, training: vectors ``(n, d)``, from :func:`clip_vectors` or of any features.

    Raises:
        ValueError: fewer than 20 held-out clips. 5 % of them are less than one clip.
    """
    needed = round(1 / CLOSE)
    if len(held_out) < needed:
        raise ValueError(f"{len(held_out)} held-out clips are too few to say how near is near; {needed} are needed")
    distances, nearest = nearest_neighbours(made, training)
    usual, _ = nearest_neighbours(held_out, training)
    close = distances < np.quantile(usual, CLOSE)
    return Memorisation(
        mean_estimate(distances, seed), mean_estimate(usual, seed), mean_estimate(close, seed), nearest, distances
    )
