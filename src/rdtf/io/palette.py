"""Palettes of few colours for many pixels, and the nearest palette colour of each pixel."""

from __future__ import annotations

import numpy as np

_SAMPLE = 16384  # colours that a palette is made from
_POWER = 0.7
_ROUNDS = 12  # of k-means
_EXACT = 200_000  # up to this many different colours are looked up exactly, more in cells
_CELL_BITS = 2  # a cell is 4 levels wide


class Colours:
    """The different colours of many pixels. Palettes are deterministic.

    Args:
        pixels: ``(n, c)`` uint8, c at most 4.
    """

    def __init__(self, pixels: np.ndarray) -> None:
        keys, self.inverse, self.counts = np.unique(_packed(pixels), return_inverse=True, return_counts=True)
        self.unique = _unpacked(keys, pixels.shape[1])

    def palette(self, size: int) -> np.ndarray:
        """``(k, c)`` uint8 with k at most ``size``: all colours if there are few, otherwise k-means of a sample.

        A colour of n pixels has the weight n ** 0.7, so that small details count too.
        """
        if len(self.unique) <= size:
            return self.unique
        from scipy.spatial import cKDTree  # takes half a second, and GIFs alone need it

        points, weights = self._sample()
        centres = _spread(points, weights, size)
        for _ in range(_ROUNDS):
            nearest = cKDTree(centres).query(points)[1]
            total = np.bincount(nearest, weights, len(centres))
            used = total > 0
            sums = [np.bincount(nearest, weights * channel, len(centres)) for channel in points.T]
            centres = np.where(used[:, None], np.stack(sums, 1) / np.maximum(total, 1e-9)[:, None], centres)
        return np.unique(np.rint(centres).clip(0, 255).astype(np.uint8), axis=0)

    def nearest(self, palette: np.ndarray) -> np.ndarray:
        """``(n,)`` uint8: the palette index of each pixel."""
        return nearest_of(self.unique, palette)[self.inverse.reshape(-1)]

    def _sample(self) -> tuple[np.ndarray, np.ndarray]:
        """At most :data:`_SAMPLE` colours, drawn evenly along their weights, and the weights."""
        weights = self.counts**_POWER
        if len(weights) > _SAMPLE:
            ends = np.cumsum(weights)
            drawn = np.searchsorted(ends, (np.arange(_SAMPLE) + 0.5) * ends[-1] / _SAMPLE)
            chosen, times = np.unique(drawn, return_counts=True)
            return self.unique[chosen].astype(np.float64), times.astype(np.float64)
        return self.unique.astype(np.float64), weights


def nearest_of(colours: np.ndarray, palette: np.ndarray) -> np.ndarray:
    """``(n,)`` uint8: the index of the nearest palette colour for each of ``(n, c)`` different colours."""
    from scipy.spatial import cKDTree

    tree = cKDTree(palette.astype(np.float64))
    if len(colours) <= _EXACT:
        return tree.query(colours.astype(np.float64))[1].astype(np.uint8)
    cells, inverse = np.unique(_packed(colours >> _CELL_BITS), return_inverse=True)
    middles = (_unpacked(cells, colours.shape[1]).astype(np.float64) + 0.5) * 2**_CELL_BITS - 0.5
    return tree.query(middles)[1].astype(np.uint8)[inverse.reshape(-1)]


def _spread(points: np.ndarray, weights: np.ndarray, count: int) -> np.ndarray:
    """Initial centres by k-means++: each is drawn by the squared distance to the earlier centres."""
    rng = np.random.default_rng(0)
    centres = [points[int(weights.argmax())]]
    distance = np.square(points - centres[0]).sum(1)
    for draw in rng.random(count - 1):
        chance = np.cumsum(distance * weights)
        if chance[-1] <= 0:
            break
        centres.append(points[min(int(np.searchsorted(chance, draw * chance[-1], side="right")), len(points) - 1)])
        distance = np.minimum(distance, np.square(points - centres[-1]).sum(1))
    return np.stack(centres)


def _packed(pixels: np.ndarray) -> np.ndarray:
    """``(n, c)`` uint8 to ``(n,)`` uint32."""
    wide = np.zeros((len(pixels), 4), np.uint8)
    wide[:, : pixels.shape[1]] = pixels
    return wide.reshape(-1).view(np.uint32)


def _unpacked(keys: np.ndarray, channels: int) -> np.ndarray:
    return np.ascontiguousarray(keys).view(np.uint8).reshape(-1, 4)[:, :channels]
