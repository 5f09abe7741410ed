"""Near-duplicates: the same sticker in another format, size, quality or speed, mirrored, backwards or begun later.

The signature of a sticker is four small pictures of four parts of its time. They are taken from a square that follows
the drawing, so margins and sizes do not matter. Two stickers are near-duplicates if their signatures differ little in
the mean and in the worst cell. The worst cell matters: two clocks differ in their hands only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from scipy.spatial import cKDTree

from rdtf.data.keyframes import area_weights
from rdtf.pixels import premultiply

WINDOWS, GRID = 4, 16
SIGNATURE_BYTES = WINDOWS * GRID * GRID * 4

MAX_DIFFERENCE = 0.045
"""Largest root mean square difference of two signatures (0..1) of near-duplicates."""
MAX_CELL_DIFFERENCE = 0.16
"""The same for every cell of the grid, over time and channels."""
MAX_SCALE = 1.5
"""Largest ratio of the sizes of two near-duplicates on their canvases: a small square is not a large one."""
NEIGHBOURS = 32
"""Each sticker is compared with this many of the most similar stickers. Groups of more copies stay connected."""

_SAME = 1.0  # largest mean difference, of 255, of equal frames
_INSTANTS = 64  # at which a sticker is sampled over time
_DIMENSIONS, _SAMPLE = 24, 5000  # of the search
_CHUNK = 512  # rows at a time


class NearPairs(NamedTuple):
    """Pairs of near-duplicates.

    Attributes:
        rows: ``(m, 2)`` int64 positions.
        copies: ``(m,)`` bool: whether one shows the same as the other, perhaps from another point of its loop. The
            others are mirrored or backwards.
    """

    rows: np.ndarray
    copies: np.ndarray


def signature(frames: np.ndarray, durations: np.ndarray) -> tuple[bytes, float]:
    """The signature of a sticker, for :func:`near_pairs`.

    Args:
        frames: ``(n, h, w, 4)`` uint8, straight alpha. Colour under alpha 0 does not matter.
        durations: ``(n,)`` of the frames, in any unit.

    Returns:
        :data:`SIGNATURE_BYTES` bytes: premultiplied RGBA of ``(windows, rows, columns, channels)``. And the side of the
        square around the drawing, in canvas heights.
    """
    pixels = premultiply(frames).astype(np.float32)
    starts = [0]  # of different pictures: encoders merge equal frames, or leave them
    for i in range(1, len(pixels)):
        if np.abs(pixels[i] - pixels[starts[-1]]).mean() > _SAME:
            starts.append(i)
    ends = np.append(0, np.cumsum(durations)) / np.sum(durations)
    _, height, width, _ = pixels.shape
    weights = _window_weights(ends[[*starts, -1]]).astype(np.float32)
    means = (weights @ pixels[starts].reshape(len(starts), -1)).reshape(WINDOWS, height, width, 4)
    y, x, side = _square(means[..., 3].mean(0))
    rows = area_weights(height, GRID, y - side / 2, side)
    columns = area_weights(width, GRID, x - side / 2, side)
    cells = columns @ (rows @ means.reshape(WINDOWS, height, -1)).reshape(WINDOWS, GRID, width, 4)
    return np.rint(cells.clip(0, 255)).astype(np.uint8).tobytes(), side / height


def _window_weights(times: np.ndarray) -> np.ndarray:
    """``(WINDOWS, n)`` weights of ``n`` frames that begin at ``times[:-1]``, with the last end 1 in ``times[-1]``.

    Each frame fades into the next one, and the last into the first, so a copy at half the frame rate looks the same.
    The windows overlap, so little depends on where a loop begins.
    """
    count = len(times) - 1
    instants = (np.arange(_INSTANTS) + 0.5) / _INSTANTS
    frame = np.searchsorted(times, instants, side="right") - 1
    fade = (instants - times[frame]) / (times[frame + 1] - times[frame])
    seen = np.zeros((_INSTANTS, count))
    np.add.at(seen, (np.arange(_INSTANTS), frame), 1 - fade)
    np.add.at(seen, (np.arange(_INSTANTS), (frame + 1) % count), fade)
    distance = np.abs(instants * WINDOWS - (np.arange(WINDOWS)[:, None] + 0.5))
    hats = (1 - np.minimum(distance, WINDOWS - distance)).clip(min=0)
    return hats @ seen / hats.sum(1, keepdims=True)


def _square(alpha: np.ndarray) -> tuple[float, float, float]:
    """Centre (y, x) and side of a square around the drawing, from the mean and the variance of its alpha.

    A bounding box would jump where a faint edge comes or goes.
    """
    height, width = alpha.shape
    total = float(alpha.sum())
    if total <= 0:
        return height / 2, width / 2, float(max(height, width))
    rows, columns = alpha.sum(1) / total, alpha.sum(0) / total
    y, x = np.arange(height) + 0.5, np.arange(width) + 0.5
    centre_y, centre_x = float(rows @ y), float(columns @ x)
    variance = float(rows @ (y - centre_y) ** 2 + columns @ (x - centre_x) ** 2)
    # A filled square of side s has the variance s^2 / 6 (both axes together). The square here is a little larger.
    return centre_y, centre_x, 1.1 * max(4.0, (6 * variance) ** 0.5)


def compare(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compare signatures ``(n, SIGNATURE_BYTES)`` uint8 row by row.

    Returns:
        ``(n,)`` bool: whether the two are near-duplicates. ``(n,)`` bool: see :attr:`NearPairs.copies`.
    """
    one, other = (part.reshape(-1, WINDOWS, GRID, GRID, 4).astype(np.float32) / 255 for part in (first, second))
    alike, copies = np.zeros((2, len(one)), bool)
    # As it is, backwards, mirrored, and both; each begun at any window.
    for changed in (other, other[:, ::-1], other[:, :, :, ::-1], other[:, ::-1, :, ::-1]):
        for start in range(WINDOWS):
            rows = np.flatnonzero(~alike)
            cells = np.square(one[rows] - np.roll(changed[rows], start, axis=1)).mean((1, 4))
            near = cells.mean((1, 2)) <= MAX_DIFFERENCE**2
            near &= cells.max((1, 2)) <= MAX_CELL_DIFFERENCE**2
            alike[rows[near]] = True
            copies[rows[near]] = changed is other
    return alike, copies


def near_pairs(parts: Sequence[np.ndarray], extents: np.ndarray) -> NearPairs:
    """All pairs of near-duplicates, each once with the smaller position first, sorted.

    A k-d tree finds candidates by mean and standard deviation over time of coarse pictures. These do not change with
    the order of the windows, and differ at most as the signatures do. So no pair is missed, except among stickers
    with more than :data:`NEIGHBOURS` near-duplicates.

    Args:
        parts: ``(n, SIGNATURE_BYTES)`` uint8 signatures, in one array or several, which may be mapped files.
        extents: ``(n,)`` sizes of the drawings for all signatures.
    """
    signatures = _Joined(parts)
    if len(signatures) != len(extents):
        raise ValueError(f"{len(signatures)} signatures, but {len(extents)} extents")
    found = [NearPairs(np.zeros((0, 2), np.int64), np.zeros(0, bool))]
    if len(extents) > 1:
        candidates = _candidates(signatures)
        ratio = extents[candidates[:, 0]] / extents[candidates[:, 1]]
        candidates = candidates[np.maximum(ratio, 1 / ratio) <= MAX_SCALE]
        for chunk in _chunks(len(candidates)):
            rows = candidates[chunk]
            alike, copies = compare(signatures[rows[:, 0]], signatures[rows[:, 1]])
            found.append(NearPairs(rows[alike], copies[alike]))
    return NearPairs(*(np.concatenate(column) for column in zip(*found, strict=True)))


def _candidates(signatures: _Joined) -> np.ndarray:
    """``(m, 2)`` sorted pairs of positions that may be near-duplicates."""
    count = len(signatures)
    sample = _coarse(signatures[np.arange(0, count, -(-count // _SAMPLE))])
    middle = sample.mean(0)
    axes = np.linalg.eigh(np.cov(sample, rowvar=False))[1][:, -_DIMENSIONS:]  # a rotation: distances do not grow
    radius = MAX_DIFFERENCE * (1 + 1e-3)
    points = np.concatenate([(_coarse(signatures[chunk]) - middle) @ axes for chunk in _chunks(count)])
    tree = cKDTree(points)
    codes = [np.zeros(0, np.int64)]
    for chunk in _chunks(count):
        mirrored = (_coarse(signatures[chunk], mirrored=True) - middle) @ axes
        for asked in (points[chunk], mirrored):
            near = tree.query(asked, min(NEIGHBOURS + 1, count), distance_upper_bound=radius)
            places, ranks = np.nonzero(np.isfinite(near[0]))
            pairs = np.sort(np.stack([chunk[places], near[1][places, ranks]], axis=1), axis=1)
            pairs = pairs[pairs[:, 0] < pairs[:, 1]]
            codes.append(np.unique(pairs[:, 0] * count + pairs[:, 1]))
    return np.stack(np.divmod(np.unique(np.concatenate(codes)), count), axis=1)


def _coarse(signatures: np.ndarray, *, mirrored: bool = False) -> np.ndarray:
    """``(n, d)`` float32: mean and standard deviation over time of blocks of 4 x 4 cells, in 0..1.

    Euclidean distances are at most the root mean square differences of the signatures, in whatever order of windows.
    """
    side = GRID // 4
    blocks = signatures.reshape(-1, WINDOWS, side, 4, side, 4, 4).mean((3, 5), dtype=np.float32) / 255
    if mirrored:
        blocks = blocks[:, :, :, ::-1]
    both = np.stack([blocks.mean(1), blocks.std(1)], axis=1).reshape(len(signatures), -1)
    return both / np.float32(both.shape[1] / 2) ** 0.5


class _Joined:
    """Several arrays of signatures as one. Indexing copies the wanted rows only."""

    def __init__(self, parts: Sequence[np.ndarray]) -> None:
        self._parts = parts
        self._ends = np.cumsum([len(part) for part in parts], dtype=np.int64)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, positions: np.ndarray) -> np.ndarray:
        out = np.empty((len(positions), SIGNATURE_BYTES), np.uint8)
        owner = np.searchsorted(self._ends, positions, side="right")
        for number in np.unique(owner):
            part, here = self._parts[number], owner == number
            out[here] = part[positions[here] - (self._ends[number] - len(part))]
        return out


def _chunks(length: int) -> Iterator[np.ndarray]:
    return (np.arange(start, min(start + _CHUNK, length)) for start in range(0, length, _CHUNK))
