"""Frame extraction by feature clustering (paper, "Frame extraction"; section 2 of its data utilisation).

The frames of a sticker are clustered into k groups, and one frame a group is taken in time order: for every k, and
for every choice within the groups, the same sticker gives another informative clip. The paper clusters VGG features;
these are small pictures with an edge map, which need no download and tell a sticker's poses apart as well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import numpy as np
from einops import rearrange

from rdtf.pixels import premultiply

CLUSTER_COUNTS = range(3, 9)
"""Every k that a sticker is clustered with (paper: k from 3 to 8)."""

GRID = 16
EDGE_WEIGHT = 2.0
"""Edges are thin: averaged over a cell they would hardly count beside the colours."""

LOOP_SEAM = 1.5
"""Last to first may be that many usual steps of a clip that loops."""

STARTS, ITERATIONS = 8, 12
"""Of k-means: one start alone at times merges two poses and splits another; a few dozen frames settle quickly."""


def frame_features(frames: np.ndarray) -> np.ndarray:
    """Features that frames are clustered by: area-averaged premultiplied RGBA and edge strength on a 16 x 16 grid.

    Args:
        frames: ``(n, h, w, 4)`` uint8, straight alpha.

    Returns:
        ``(n, 5 * 16 * 16)`` float32, about 0..1; a pure function of what the frames look like (colour under
        transparent pixels does not count).
    """
    n, height, width, _ = frames.shape
    channels = np.empty((n, 5, height, width), np.float32)
    np.divide(rearrange(premultiply(frames), "n h w c -> n c h w"), np.float32(255), out=channels[:, :4])
    # Outlines show in alpha, what is inside them (eyes, mouth) in brightness.
    drawn = np.stack([channels[:, 3], channels[:, :3].mean(1)])
    steps = np.zeros_like(drawn)
    steps[:, :, 1:] = np.abs(drawn[:, :, 1:] - drawn[:, :, :-1])
    steps[..., 1:] += np.abs(drawn[..., 1:] - drawn[..., :-1])
    channels[:, 4] = EDGE_WEIGHT * steps.max(0)
    # Rows first: that is one large product, and little is left for the columns.
    narrow = (channels.reshape(-1, width) @ _area_weights(width).T).reshape(n, 5, height, GRID)
    cells = _area_weights(height) @ narrow
    return rearrange(cells, "n c y x -> n (c y x)")


def _area_weights(length: int) -> np.ndarray:
    """``(16, length)`` weights that average ``length`` pixels into 16 equal cells, parts of pixels included."""
    borders = np.linspace(0, length, GRID + 1)
    pixels = np.arange(length)
    overlap = np.minimum(borders[1:, None], pixels + 1) - np.maximum(borders[:-1, None], pixels)
    overlap = overlap.clip(min=0)
    return (overlap / overlap.sum(1, keepdims=True)).astype(np.float32)


def cluster_frames(features: np.ndarray, counts: Sequence[int] = CLUSTER_COUNTS, seed: int = 0) -> np.ndarray:
    """Cluster labels of the frames, by k-means, for several numbers of clusters at once.

    The distances between all frames are worked out first; means and their distances follow from them, so that no step
    of any clustering reads the features again. Equal frames are one point that weighs as much as all of them.

    Args:
        features: ``(n, d)`` floats, one row a frame.
        counts: numbers of clusters asked for. There are fewer where there are fewer different frames.
        seed: of the k-means++ starts. What is found for one number does not depend on the others.

    Returns:
        ``(len(counts), n)`` int8: for each number labels in 0..k-1, numbered in the order of first appearance, without
        gaps. Equal frames share a label.
    """
    if min(counts) < 1:
        raise ValueError(f"numbers of clusters must be at least 1, got {list(counts)}")
    codes: dict[bytes, int] = {}
    point_of = np.array([codes.setdefault(row.tobytes(), len(codes)) for row in features])
    first = np.unique(point_of, return_index=True)[1]
    labels = np.empty((len(counts), len(first)), np.int64)
    larger = [k for k in counts if k < len(first)]
    labels[[k >= len(first) for k in counts]] = np.arange(len(first))
    if larger:
        weights = np.bincount(point_of).astype(np.float64)
        found = _k_means(_squared_distances(features[first]), weights, larger, seed)
        labels[[k < len(first) for k in counts]] = found
    return np.stack([_in_order(row) for row in labels])[:, point_of].astype(np.int8)


def _squared_distances(points: np.ndarray) -> np.ndarray:
    """``(m, m)`` float64 squared distances between the rows of ``(m, d)``."""
    centred = points.astype(np.float64) - points.mean(0, dtype=np.float64)  # less is lost to cancellation
    products = centred @ centred.T
    lengths = products.diagonal()
    distances = np.maximum(lengths[:, None] + lengths - 2 * products, 0)
    np.fill_diagonal(distances, 0)
    return distances


def _k_means(distances: np.ndarray, weights: np.ndarray, counts: Sequence[int], seed: int) -> np.ndarray:
    """``(len(counts), m)`` labels, the best of all starts, from squared distances between more than k points each."""
    seeds = _k_means_starts(distances, weights, max(counts), seed)
    # Axes: number of clusters and start together, cluster, point. Clusters beyond its k are of no use to a clustering.
    near = distances[seeds]
    unused = np.arange(max(counts)) >= np.repeat(counts, STARTS)[:, None]
    near = np.where(unused[..., None], np.inf, np.tile(near, (len(counts), 1, 1)))
    labels = near.argmin(1)
    for _ in range(ITERATIONS):
        near = _to_means(distances, weights, labels, max(counts))
        settled, labels = labels, near.argmin(1)
        if (settled == labels).all():
            break
    errors = (near.min(1) @ weights).reshape(len(counts), STARTS)
    best = labels.reshape(len(counts), STARTS, -1)[np.arange(len(counts)), errors.argmin(1)]
    return np.stack([_fill_empty(distances, weights, row, k) for row, k in zip(best, counts, strict=True)])


def _k_means_starts(distances: np.ndarray, weights: np.ndarray, count: int, seed: int) -> np.ndarray:
    """``(STARTS, count)`` points to start from, by k-means++: the first k of a row are a start for k clusters."""
    drawn = np.random.default_rng(seed).random((count, STARTS))
    chances = np.tile(weights, (STARTS, 1))
    nearest = np.full_like(chances, np.inf)
    seeds = np.empty((STARTS, count), np.int64)
    for position in range(count):
        upto = chances.cumsum(1)
        seeds[:, position] = (upto <= drawn[position][:, None] * upto[:, -1:]).sum(1).clip(max=len(weights) - 1)
        nearest = np.minimum(nearest, distances[seeds[:, position]])
        chances = nearest * weights
    return seeds


def _to_means(distances: np.ndarray, weights: np.ndarray, labels: np.ndarray, count: int) -> np.ndarray:
    """``(q, count, m)`` squared distances of the points to the means of the clusters of ``(q, m)`` labels.

    To the mean of a cluster it is the mean of those to its points, less half of the mean of those between its points.
    Empty clusters are infinitely far away.
    """
    inside = np.where(labels[:, None] == np.arange(count)[:, None], weights, 0.0)
    sizes = inside.sum(2, keepdims=True)
    shares = inside / np.maximum(sizes, 1)
    to_points = (shares.reshape(-1, len(weights)) @ distances).reshape(shares.shape)
    spread = (to_points * shares).sum(2, keepdims=True) / 2
    return np.where(sizes > 0, to_points - spread, np.inf)


def _fill_empty(distances: np.ndarray, weights: np.ndarray, labels: np.ndarray, k: int) -> np.ndarray:
    """Give each empty cluster the point that lies farthest from the mean of its own."""
    labels = labels.copy()
    for missing in sorted(set(range(k)) - set(labels.tolist())):
        own = _to_means(distances, weights, labels[None], k)[0][labels, np.arange(len(labels))]
        alone = np.bincount(labels, minlength=k)[labels] == 1
        labels[np.where(alone, -np.inf, own).argmax()] = missing
    return labels


def _in_order(labels: np.ndarray) -> np.ndarray:
    """The same groups, numbered in the order of first appearance."""
    _, first, labels = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[labels]


Extraction = Literal["cluster-random", "cluster-first", "cluster-medoid", "difference", "equal-interval"]
"""Ways to choose informative frames of a sticker, see :func:`extract_frames`."""
EXTRACTIONS: tuple[Extraction, ...] = get_args(Extraction)


def extract_frames(
    how: Extraction,
    k: int,
    labels: np.ndarray,
    rng: np.random.Generator,
    looks: Callable[[], np.ndarray] | None = None,
) -> np.ndarray:
    """At most k informative frames of a sticker, in time order.

    - ``cluster-random``: any frame of each of k clusters, so that a sticker gives another clip each time (ours).
    - ``cluster-first``: the earliest frame of each cluster, as the paper's release takes.
    - ``cluster-medoid``: the frame of each cluster that is nearest to its mean.
    - ``difference``: the k frames that differ most from the one before. Before the first comes the last, as stickers
      play, so that the first can be among them (in the release it cannot). A frame that repeats the one before
      never is, but for the first frame of a sticker in which nothing moves.
    - ``equal-interval``: equally spaced from the first one on, whatever they show.

    Args:
        how: one of :data:`EXTRACTIONS`.
        k: how many are wanted.
        labels: ``(n,)`` integers, the clustering into k clusters from :func:`cluster_frames`.
        rng: only ``cluster-random`` draws from it.
        looks: gives ``(n, d)`` floats in which frames are compared; called by ``cluster-medoid`` and ``difference``
            only, which cannot do without it.

    Returns:
        Increasing frame indices: fewer than k where there are fewer (different) frames.
    """
    count = len(labels)
    if how == "equal-interval":
        taken = min(k, count)
        return np.arange(taken) * count // taken
    if how == "cluster-first":
        return np.sort(np.unique(labels, return_index=True)[1])
    if how == "cluster-random":
        return np.sort([rng.choice(np.flatnonzero(labels == label)) for label in np.unique(labels)])
    if how not in EXTRACTIONS:
        raise ValueError(f"unknown extraction {how!r}; choose one of {', '.join(EXTRACTIONS)}")
    assert looks is not None, "frames cannot be compared without what they look like"
    points = looks()
    if how == "difference":
        changes = ((points - np.roll(points, 1, axis=0)) ** 2).sum(1)
        most = np.argsort(-changes, kind="stable")[:k]
        return np.sort(most[changes[most] > 0]) if changes.any() else np.zeros(1, np.int64)
    groups = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    return np.sort([group[((points[group] - points[group].mean(0)) ** 2).sum(1).argmin()] for group in groups])


def frame_steps(frames: np.ndarray) -> np.ndarray:
    """``(n,)`` mean absolute premultiplied difference, in 0..1, of each frame to the next; the last to the first."""
    pixels = premultiply(frames).reshape(len(frames), -1)
    after = np.roll(pixels, -1, axis=0)
    differences = np.maximum(pixels, after) - np.minimum(pixels, after)
    return differences.sum(1, dtype=np.uint64) / pixels.shape[1] / 255.0


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
