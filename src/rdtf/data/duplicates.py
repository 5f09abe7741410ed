"""Near-duplicates: the same sticker in another format, size, quality or speed, begun elsewhere, backwards or mirrored.

What makes two stickers near-duplicates is said in :mod:`rdtf.data.signatures`; here they are found among many.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from scipy.spatial import cKDTree

from rdtf.data.signatures import GRID, MAX_DIFFERENCE, SIGNATURE_BYTES, WINDOWS, compare, spectra

MAX_SCALE = 1.5
"""Of a pair, how many times larger one may be drawn on its canvas: a small square is not a large one."""

NEIGHBOURS = 32
"""Each sticker is compared with so many of the most alike. Of crowds of copies this leaves a net without holes."""

_BLOCK = 4  # cells of the grid that are averaged for the search, each way
_DIMENSIONS = 24
_SAMPLE = 5000
_CHUNK = 1 << 9  # rows at a time, a few MB each of which several are held


class NearPairs(NamedTuple):
    """Pairs of near-duplicates.

    Attributes:
        rows: ``(m, 2)`` int64 positions.
        how: ``(m,)`` int8, a :class:`~rdtf.data.signatures.Likeness` each.
        differences: ``(m,)`` float32, root mean square, in 0..1.
    """

    rows: np.ndarray
    how: np.ndarray
    differences: np.ndarray


def near_pairs(parts: Sequence[np.ndarray], extents: np.ndarray) -> NearPairs:
    """All pairs of near-duplicates, each once with the smaller position first, sorted.

    The search looks among what stays of averages of blocks when a sticker begins elsewhere, is played backwards or
    mirrored, on the axes on which they differ most. These differ no more than what they are of, so that nothing near
    is missed, but for stickers with more than :data:`NEIGHBOURS` copies, which are not paired with all of them.

    Args:
        parts: ``(n, SIGNATURE_BYTES)`` uint8 signatures, in one array or several, which may be mapped files.
        extents: ``(n,)`` for all of them, one after the other.
    """
    signatures = _Joined(parts)
    if len(signatures) != len(extents):
        raise ValueError(f"{len(signatures)} signatures, but {len(extents)} extents")
    found = [NearPairs(np.zeros((0, 2), np.int64), np.zeros(0, np.int8), np.zeros(0, np.float32))]
    if len(extents) > 1:
        points, radius = _search_space(signatures)
        tree = cKDTree(points)
        for some in _chunks(len(points)):
            near = tree.query(points[some], min(NEIGHBOURS + 1, len(points)), distance_upper_bound=radius)
            ranks, places = np.nonzero(np.isfinite(near[0]))
            rows = np.stack([some[ranks], near[1][ranks, places]], axis=1)
            rows = np.unique(np.sort(rows[rows[:, 0] != rows[:, 1]], axis=1), axis=0)
            ratio = extents[rows[:, 0]] / extents[rows[:, 1]]
            rows = rows[np.maximum(ratio, 1 / ratio) <= MAX_SCALE]
            for chosen in _chunks(len(rows)):
                pairs = rows[chosen]
                alike, how, difference = compare(signatures[pairs[:, 0]], signatures[pairs[:, 1]])
                found.append(NearPairs(pairs[alike], how[alike], difference[alike]))
    every = NearPairs(*(np.concatenate(column) for column in zip(*found, strict=True)))
    unique, first = np.unique(every.rows, axis=0, return_index=True)
    return NearPairs(unique, every.how[first], every.differences[first])


class _Joined:
    """Several arrays of signatures as one, of which only what is asked for is copied."""

    def __init__(self, parts: Sequence[np.ndarray]) -> None:
        self._parts = parts
        self._ends = np.cumsum([len(part) for part in parts])

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, positions: np.ndarray) -> np.ndarray:
        out = np.empty((len(positions), SIGNATURE_BYTES), np.uint8)
        owner = np.searchsorted(self._ends, positions, side="right")
        for number in np.unique(owner):
            here = owner == number
            part = self._parts[number]
            out[here] = part[positions[here] - (self._ends[number] - len(part))]
        return out


def _chunks(length: int) -> Iterator[np.ndarray]:
    return (np.arange(start, min(start + _CHUNK, length)) for start in range(0, length, _CHUNK))


def _search_space(signatures: _Joined) -> tuple[np.ndarray, float]:
    """Points ``(n, d)`` for a tree, and the distance beyond which two of them cannot be near-duplicates."""
    spread = np.arange(0, len(signatures), -(-len(signatures) // _SAMPLE))
    sample = np.concatenate([_lasting(signatures[spread[some]]) for some in _chunks(len(spread))])
    middle = sample.mean(0)
    axes = np.linalg.eigh((sample - middle).T @ (sample - middle))[1][:, ::-1][:, :_DIMENSIONS]
    points = np.concatenate([(_lasting(signatures[some]) - middle) @ axes for some in _chunks(len(signatures))])
    # The mean over blocks of squares is at most that over cells, and rotations keep distances.
    return points, MAX_DIFFERENCE * (SIGNATURE_BYTES // _BLOCK**2) ** 0.5 * (1 + 1e-3)


def _lasting(signatures: np.ndarray) -> np.ndarray:
    """``(n, d)`` float32 of which distances are at most those of blocks, in whatever way one of two is changed.

    A mirror changes the sign of the difference between left and right, a later beginning and playing backwards the
    phases of what changes over time. So of the one and the others only the amount stays; the highest frequency, which
    loses in amount between two windows, is left out.
    """
    blocks = _blocks(signatures)
    left, right = blocks[..., : blocks.shape[3] // 2, :], blocks[..., : blocks.shape[3] // 2 - 1 : -1, :]
    both, between = (spectra(part * np.float32(0.5**0.5)) for part in (left + right, left - right))
    still = [both[:, 0].real, np.abs(between[:, 0])]
    moving = [np.abs(part[:, 1 : WINDOWS // 2]) * np.float32(2**0.5) for part in (both, between)]
    return np.concatenate([part.reshape(len(signatures), -1) for part in (*still, *moving)], axis=1)


def _blocks(signatures: np.ndarray) -> np.ndarray:
    """``(n, windows, rows, columns, channels)`` float32 in 0..1: averages of blocks of cells."""
    side = GRID // _BLOCK
    cells = signatures.reshape(-1, WINDOWS, side, _BLOCK, side, _BLOCK * 4)
    rows = cells.sum(3, dtype=np.uint16)  # sums of 16-bit numbers are several times faster than a mean of floats
    blocks = rows.reshape(-1, WINDOWS, side, side, _BLOCK, 4).sum(4, dtype=np.uint16)
    return blocks / np.float32(255 * _BLOCK**2)
