"""Frame extraction by feature clustering (paper, "Frame extraction"; section 2 of its data utilisation).

The frames of a sticker are clustered into k groups, and one frame a group is taken in time order: for every k, and
for every choice within the groups, the same sticker gives another informative clip. The paper clusters VGG features;
these are small pictures with an edge map, which need no download and tell a sticker's poses apart as well.
"""

from __future__ import annotations

import warnings
from typing import Literal

import numpy as np
from einops import rearrange
from scipy.cluster.vq import kmeans2

from rdtf.pixels import premultiply

CLUSTER_COUNTS = range(3, 9)
"""Every k that a sticker is clustered with (paper: k from 3 to 8)."""

GRID = 16
EDGE_WEIGHT = 2.0
"""Edges are thin: averaged over a cell they would hardly count beside the colours."""

LOOP_SEAM = 1.5
"""Last to first may be that many usual steps of a clip that loops."""

STARTS, ITERATIONS = 3, 8
"""Of k-means: one start alone at times merges two poses and splits another; a few dozen frames settle quickly."""


def frame_features(frames: np.ndarray) -> np.ndarray:
    """Features that frames are clustered by: area-averaged premultiplied RGBA and edge strength on a 16 x 16 grid.

    Args:
        frames: ``(n, h, w, 4)`` uint8, straight alpha.

    Returns:
        ``(n, 5 * 16 * 16)`` float32, about 0..1; a pure function of what the frames look like (colour under
        transparent pixels does not count).
    """
    unit = rearrange(premultiply(frames).astype(np.float32) / 255.0, "n h w c -> n c h w")
    # Outlines show in alpha, what is inside them (eyes, mouth) in brightness.
    drawn = np.stack([unit[:, 3], unit[:, :3].mean(1)])
    steps_y = np.abs(np.diff(drawn, axis=2, prepend=drawn[:, :, :1]))
    steps_x = np.abs(np.diff(drawn, axis=3, prepend=drawn[:, :, :, :1]))
    edges = EDGE_WEIGHT * (steps_y + steps_x).max(0)
    channels = np.concatenate([unit, edges[:, None]], axis=1)
    cells = _area_weights(frames.shape[1]) @ channels @ _area_weights(frames.shape[2]).T
    return rearrange(cells, "n c y x -> n (c y x)")


def _area_weights(length: int) -> np.ndarray:
    """``(16, length)`` weights that average ``length`` pixels into 16 equal cells, parts of pixels included."""
    borders = np.linspace(0, length, GRID + 1)
    pixels = np.arange(length)
    overlap = np.minimum(borders[1:, None], pixels + 1) - np.maximum(borders[:-1, None], pixels)
    overlap = overlap.clip(min=0)
    return (overlap / overlap.sum(1, keepdims=True)).astype(np.float32)


def cluster_frames(features: np.ndarray, k: int, seed: int = 0) -> np.ndarray:
    """Cluster label of each frame, by k-means.

    Args:
        features: ``(n, d)`` floats, one row a frame.
        k: number of clusters asked for. There are fewer where there are fewer frames (then each is its own), or
            fewer different frames (then equal frames share a cluster).
        seed: of the k-means++ start.

    Returns:
        ``(n,)`` int8 in 0..k-1, numbered in the order of first appearance, without gaps.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    count = len(features)
    if count <= k:
        return np.arange(count, dtype=np.int8)
    codes: dict[bytes, int] = {}
    distinct = np.array([codes.setdefault(row.tobytes(), len(codes)) for row in features])
    if len(codes) <= k:
        return distinct.astype(np.int8)
    best, least = np.zeros(count, np.int64), np.inf
    for start in range(STARTS):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="One of the clusters is empty")  # mended below
            rng = np.random.default_rng([seed, start])
            means, labels = kmeans2(features, k, iter=ITERATIONS, minit="++", seed=rng)
        error = ((features - means[labels]) ** 2).sum()
        if error < least:
            best, least = labels, error
    _, first, labels = np.unique(_fill_empty(features, best, k), return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[labels].astype(np.int8)


def _fill_empty(features: np.ndarray, labels: np.ndarray, k: int) -> np.ndarray:
    """Give each empty cluster the frame that lies farthest from the mean of its own."""
    labels = labels.copy()
    for missing in sorted(set(range(k)) - set(labels.tolist())):
        sizes = np.bincount(labels, minlength=k)
        means = np.stack([features[labels == label].mean(0) if sizes[label] else features[0] for label in range(k)])
        distances = np.where(sizes[labels] > 1, ((features - means[labels]) ** 2).sum(1), -1.0)
        labels[distances.argmax()] = missing
    return labels


def pick_frames(labels: np.ndarray, rng: np.random.Generator, how: Literal["first", "random"] = "first") -> np.ndarray:
    """One frame of every cluster, in time order.

    Args:
        labels: ``(n,)`` integers from :func:`cluster_frames`.
        rng: drawn from only if ``how`` is ``"random"``.
        how: ``"first"`` takes the earliest frame of each cluster (as the paper's release does), ``"random"`` any.

    Returns:
        Increasing frame indices, as many as there are clusters.
    """
    labels = np.asarray(labels)
    if how == "first":
        return np.sort(np.unique(labels, return_index=True)[1])
    if how == "random":
        return np.sort([rng.choice(np.flatnonzero(labels == label)) for label in np.unique(labels)])
    raise ValueError(f"how must be 'first' or 'random', got {how!r}")


def frame_steps(frames: np.ndarray) -> np.ndarray:
    """``(n,)`` mean absolute premultiplied difference, in 0..1, of each frame to the next; the last to the first."""
    pixels = premultiply(frames).astype(np.int16)
    return np.array([np.abs(a - b).mean() / 255.0 for a, b in zip(pixels, np.roll(pixels, -1, 0), strict=True)])


def motion(steps: np.ndarray) -> float:
    """Mean step between neighbouring frames, in 0..1, from :func:`frame_steps`; 0 for a still."""
    return float(steps[:-1].mean()) if len(steps) > 1 else 0.0


def seam(steps: np.ndarray) -> float | None:
    """The step from the last frame to the first in usual (mean) steps, from :func:`frame_steps`; None for a still.

    A clip loops seamlessly up to :data:`LOOP_SEAM`.
    """
    usual = motion(steps)
    return float(steps[-1] / usual) if usual > 0 else None


def loops(steps: np.ndarray) -> bool:
    """Whether the clip loops seamlessly: it moves, and the last frame leads on to the first."""
    found = seam(steps)
    return found is not None and found <= LOOP_SEAM


def coverage(frames: np.ndarray) -> np.ndarray:
    """``(n,)`` float64: mean alpha of each frame, in 0..1."""
    return frames[..., 3].mean(axis=(1, 2)) / 255.0
