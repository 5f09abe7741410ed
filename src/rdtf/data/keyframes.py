"""Informative frames by feature clustering (paper, "Frame extraction"), and how a sticker moves.

The frames of a sticker are clustered into k groups, and a clip takes one frame of each group in time order. Another k,
or another choice within the groups, gives another clip of the same sticker. The paper clusters VGG features. The
features here are small pictures with an edge map: they need no download and separate poses as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Literal, get_args

import numpy as np
from einops import rearrange
from scipy.cluster.hierarchy import linkage
from scipy.cluster.vq import ClusterError, kmeans2

from rdtf.pixels import premultiply

CLUSTER_COUNTS = range(3, 9)
"""Every k that a sticker is clustered with (paper: k from 3 to 8)."""

GRID = 16
EDGE_WEIGHT = 2.0
"""Weight of the edge map. Edges are thin, so their mean over a cell is small compared with the mean colour."""

LOOP_SEAM = 1.5
"""A clip loops if the step from last to first frame is at most this many mean steps."""

_FULL_COVERAGE = 0.5  # a typical frame has at least this part of the coverage of the sticker's fullest frame
ITERATIONS = 4  # iterations of k-means, which starts close to its end


def frame_features(frames: np.ndarray) -> np.ndarray:
    """Features for clustering: area-averaged premultiplied RGBA and edge strength on a 16 x 16 grid.

    Args:
        frames: ``(n, h, w, 4)`` uint8, straight alpha. Colour under alpha 0 does not matter.

    Returns:
        ``(n, 5 * 16 * 16)`` float32, about 0..1.
    """
    n, height, width, _ = frames.shape
    channels = np.empty((n, 5, height, width), np.float32)
    np.divide(rearrange(premultiply(frames), "n h w c -> n c h w"), np.float32(255), out=channels[:, :4])
    # Outlines are edges of alpha; eyes and mouths are edges of brightness.
    seen = np.stack([channels[:, 3], channels[:, :3].mean(1)])
    steps = np.zeros_like(seen)
    steps[:, :, 1:] = np.abs(seen[:, :, 1:] - seen[:, :, :-1])
    steps[..., 1:] += np.abs(seen[..., 1:] - seen[..., :-1])
    channels[:, 4] = EDGE_WEIGHT * steps.max(0)
    # The columns first, in one large matrix product.
    narrow = (channels.reshape(-1, width) @ area_weights(width, GRID).T).reshape(n, 5, height, GRID)
    return rearrange(area_weights(height, GRID) @ narrow, "n c y x -> n (c y x)")


def area_weights(length: int, cells: int, start: float = 0.0, side: float | None = None) -> np.ndarray:
    """``(cells, length)`` weights that average pixels into equal cells, with fractions of pixels.

    Args:
        length: number of pixels.
        start, side: start and total length of the cells in pixels; by default all pixels. Pixels outside of the picture
            are zero.
    """
    side = length if side is None else side
    borders = start + np.linspace(0, side, cells + 1)
    pixels = np.arange(length)
    overlap = np.minimum(borders[1:, None], pixels + 1) - np.maximum(borders[:-1, None], pixels)
    return (overlap.clip(min=0) * (cells / side)).astype(np.float32)


def cluster_frames(features: np.ndarray) -> np.ndarray:
    """K-means labels of the frames for every number of clusters in :data:`CLUSTER_COUNTS`.

    K-means starts from the clusters of Ward's method, which merges the two clusters that raise the variance least. So
    the labels are a function of the features, and no seed is needed.

    Args:
        features: ``(n, d)`` floats, one row for each frame. Fewer different frames give fewer clusters.

    Returns:
        ``(6, n)`` int8 labels. They count from 0 in the order of first appearance, without gaps. Equal frames have
        equal labels.
    """
    codes: dict[bytes, int] = {}
    point_of = np.array([codes.setdefault(row.tobytes(), len(codes)) for row in features])
    first = np.unique(point_of, return_index=True)[1]
    points = _same_distances(features[first])[point_of]
    groups = _ward(points)
    return np.stack([_in_order(_refined(points, groups[min(k, len(first))], first, point_of)) for k in CLUSTER_COUNTS])


def _ward(points: np.ndarray) -> dict[int, np.ndarray]:
    """Labels ``(n,)`` of Ward's clusters for every number of clusters; their values have gaps."""
    labels = np.arange(len(points))
    found = {len(points): labels}
    tree = linkage(points, "ward") if len(points) > 1 else np.zeros((0, 4))
    for number, (one, other) in enumerate(tree[:, :2].astype(np.int64).tolist(), len(points)):
        labels = np.where((labels == one) | (labels == other), number, labels)
        found[2 * len(points) - number - 1] = labels
    return found


def _same_distances(points: np.ndarray) -> np.ndarray:
    """``(m, m)`` float64 points with the distances of the ``(m, d)`` points; fewer numbers where ``d > m``."""
    centred = points.astype(np.float64) - points.mean(0, dtype=np.float64)
    values, axes = np.linalg.eigh(centred @ centred.T)
    return axes * np.sqrt(values.clip(min=0))


def _refined(points: np.ndarray, labels: np.ndarray, first: np.ndarray, point_of: np.ndarray) -> np.ndarray:
    """Labels after k-means that starts from the means of some labels; the old labels if a cluster becomes empty."""
    groups = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    if len(groups) == len(first):
        return labels
    means = np.stack([points[group].mean(0) for group in groups])
    with suppress(ClusterError):
        refined = kmeans2(points, means, ITERATIONS, minit="matrix", missing="raise", check_finite=False)[1]
        refined = refined[first][point_of]  # equal frames stay together in spite of rounding
        return refined if len(np.unique(refined)) == len(groups) else labels
    return labels


def _in_order(labels: np.ndarray) -> np.ndarray:
    """Labels renumbered in the order of first appearance."""
    _, first, labels = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[labels].astype(np.int8)


Extraction = Literal["cluster-random", "cluster-first", "equal-interval"]
"""Ways to choose informative frames of a sticker, see :func:`extract_frames`."""
EXTRACTIONS: tuple[Extraction, ...] = get_args(Extraction)


def extract_frames(how: Extraction, k: int, labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """At most k informative frames of a sticker, in time order.

    - ``cluster-random``: a random frame of each of the k clusters (ours).
    - ``cluster-first``: the earliest frame of each cluster (the paper's release).
    - ``equal-interval``: equally spaced frames from the first one on.

    Args:
        how: one of :data:`EXTRACTIONS`.
        k: wanted number of frames.
        labels: ``(n,)`` integers, the clustering into k clusters from :func:`cluster_frames`.
        rng: used by ``cluster-random`` only.

    Returns:
        Increasing frame indices: fewer than k if there are fewer (different) frames.
    """
    if how == "equal-interval":
        taken = min(k, len(labels))
        return np.arange(taken) * len(labels) // taken
    if how == "cluster-first":
        return np.sort(np.unique(labels, return_index=True)[1])
    if how == "cluster-random":
        return np.sort([rng.choice(np.flatnonzero(labels == label)) for label in np.unique(labels)])
    raise ValueError(f"unknown extraction {how!r}; choose one of {', '.join(EXTRACTIONS)}")


def typical_frame(features: np.ndarray, coverage: Sequence[float] | np.ndarray) -> int:
    """The medoid of a sticker's frames: the frame with the smallest mean distance to the others.

    Frames that show less than half as much as the fullest one do not count: a car may be out of view for most of the
    time.

    Args:
        features: ``(n, d)``, in which frames are compared.
        coverage: ``(n,)``, see :func:`coverage`.
    """
    coverage = np.asarray(coverage)
    distances = np.linalg.norm(features[:, None] - features, axis=-1).mean(1)
    return int(np.where(coverage >= _FULL_COVERAGE * coverage.max(), distances, np.inf).argmin())


def frame_steps(frames: np.ndarray) -> np.ndarray:
    """``(n,)`` mean absolute premultiplied difference of each frame to the next, in 0..1; last to first at the end."""
    pixels = premultiply(frames).reshape(len(frames), -1)
    after = np.roll(pixels, -1, axis=0)
    differences = np.maximum(pixels, after) - np.minimum(pixels, after)
    return differences.sum(1, dtype=np.uint64) / pixels.shape[1] / 255.0


def motion(steps: np.ndarray) -> float:
    """Mean step between neighbouring frames, in 0..1, from :func:`frame_steps`; 0 for a still."""
    return float(steps[:-1].mean()) if len(steps) > 1 else 0.0


def seam(steps: np.ndarray) -> float | None:
    """The step from the last to the first frame, relative to the mean step (:func:`frame_steps`); None for a still."""
    usual = motion(steps)
    return float(steps[-1] / usual) if usual > 0 else None


def loops(steps: np.ndarray) -> bool:
    """Whether the clip loops: it moves, and its :func:`seam` is at most :data:`LOOP_SEAM`."""
    found = seam(steps)
    return found is not None and found <= LOOP_SEAM


def coverage(frames: np.ndarray) -> np.ndarray:
    """``(n,)`` float64: mean alpha of each frame, in 0..1."""
    return frames[..., 3].mean(axis=(1, 2)) / 255.0
