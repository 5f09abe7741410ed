"""Whether made clips are copies of training clips: nearest neighbours, held against those of held-out clips."""

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
"""Share of the held-out clips that count as uncommonly close to a training clip."""


@dataclass(frozen=True)
class Memorisation:
    """Distances to the nearest training clip.

    Attributes:
        made, held_out: mean distance of made and of held-out clips.
        close: share of made clips nearer to a training clip than 95 % of the held-out ones are: about 0.05 for a
            model that copies no more than life does, 1 for one that only copies.
        nearest: for each made clip the index of its nearest training clip.
        distances: and how far away it is.
    """

    made: Estimate
    held_out: Estimate
    close: Estimate
    nearest: np.ndarray
    distances: np.ndarray


def clip_vectors(clips: Iterable[np.ndarray]) -> np.ndarray:
    """Clips of any sizes and lengths to ``(n, 4096)`` float32: four frames evenly over time, box-filtered to 16 px.

    Premultiplied RGBA in 0..1. The Euclidean distance of two vectors divided by 64 is their RMS difference.
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
    """For each of ``(n, d)`` queries the RMS difference to the nearest of ``(m, d)`` references, and which it is.

    A chunk of references at a time: memory is ``n x 512`` floats, not ``n x m``.
    """
    if not len(references) or queries.shape[1:] != references.shape[1:]:
        raise ValueError(f"no neighbours for {queries.shape} among {references.shape}")
    best = np.full(len(queries), np.inf)
    index = np.zeros(len(queries), int)
    for start in range(0, len(references), CHUNK):
        part = references[start : start + CHUNK]
        # |q|^2 - 2 q.r + |r|^2 in double precision: near copies are the point, and they cancel.
        q, r = queries.astype(np.float64), part.astype(np.float64)
        squares = np.square(q).sum(1)[:, None] - 2 * q @ r.T + np.square(r).sum(1)
        nearest = squares.argmin(1)
        found = squares[np.arange(len(q)), nearest]
        closer = found < best
        best[closer], index[closer] = found[closer], start + nearest[closer]
    return np.sqrt(best.clip(0) / queries.shape[1]), index


def memorisation(made: np.ndarray, held_out: np.ndarray, training: np.ndarray, seed: int = 0) -> Memorisation:
    """Compare made with held-out clips in their distance to the nearest training clip.

    A small distance says little by itself (a plain shape on nothing is near to many); that held-out clips, which cannot
    be copies, are farther away does. In pixels a copy that is mirrored, moved or recoloured is not found.

    Args:
        made, held_out, training: vectors ``(n, d)``, from :func:`clip_vectors` or of any features.

    Raises:
        ValueError: fewer than 20 held-out clips, of which 5 % could not be told.
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
