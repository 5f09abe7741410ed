"""Palettes of few colours for the frames of a clip."""

from __future__ import annotations

import numpy as np

from rdtf.pixels import premultiply, unpremultiply

_SAMPLE = 16384  # colours that a palette is made from
_POWER = 0.7
_ROUNDS = 12  # of k-means
_BAYER = np.array([[0, 8, 2, 10], [12, 4, 14, 6], [3, 11, 1, 9], [15, 7, 13, 5]]) / 16 - 15 / 32


class Colours:
    """The colours of a clip, ready to be reduced to palettes of several sizes. Palettes are deterministic.

    Args:
        frames: ``(n, h, w, 4)`` uint8, straight alpha.
    """

    def __init__(self, frames: np.ndarray) -> None:
        premultiplied = premultiply(frames)
        self._shown = premultiplied[..., 3] > 0
        self._pixels = premultiplied[self._shown]
        self._colours, self._inverse, self._counts = _different(self._pixels)
        self._palettes: dict[int, np.ndarray] = {}

    def reduced(self, colours: int, dither: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """One palette for all frames.

        Args:
            colours: entries of the palette. The first one is transparent where any pixel is.
            dither: ordered dithering, whose pattern stands still over time.

        Returns:
            indices ``(n, h, w)`` uint8 and the palette ``(k, 4)`` uint8 with straight alpha, k at most ``colours``.
        """
        empty = np.zeros((0 if self._shown.all() else 1, 4), np.uint8)
        if colours not in self._palettes:
            self._palettes[colours] = np.concatenate([empty, self._palette(colours - len(empty))])
        palette = self._palettes[colours]
        indices = np.zeros(self._shown.shape, np.uint8)
        if len(self._colours):
            from scipy.spatial import cKDTree  # takes half a second, and palettes alone need it

            tree, wanted, inverse = cKDTree(palette.astype(np.float64)), self._colours, self._inverse
            if dither and len(palette) > 1:
                apart = float(np.median(tree.query(tree.data, k=2)[0][:, 1]))
                height, width = self._shown.shape[1:]
                pattern = np.rint(np.tile(_BAYER * apart / 2, (height // 4 + 1, width // 4 + 1))[:height, :width])
                moved = self._pixels.astype(np.int16)
                moved[:, :3] += np.broadcast_to(pattern, self._shown.shape)[self._shown].astype(np.int16)[:, None]
                wanted, inverse, _ = _different(moved.clip(0, 255).astype(np.uint8))
            indices[self._shown] = tree.query(wanted.astype(np.float64))[1].astype(np.uint8)[inverse]
        return indices, unpremultiply(palette[None])[0]

    def _palette(self, size: int) -> np.ndarray:
        """``(k, 4)`` uint8 with k at most ``size``: all colours if there are few, otherwise k-means of a sample.

        A colour of n pixels has the weight n ** 0.7, so that small details count too.
        """
        if len(self._colours) <= size:
            return self._colours
        from scipy.spatial import cKDTree

        points, weights = self._sample()
        centres = _spread(points, weights, size)
        for _ in range(_ROUNDS):
            nearest = cKDTree(centres).query(points)[1]
            total = np.bincount(nearest, weights, len(centres))
            sums = np.stack([np.bincount(nearest, weights * channel, len(centres)) for channel in points.T], 1)
            centres = np.where(total[:, None] > 0, sums / np.maximum(total, 1e-9)[:, None], centres)
        return np.unique(np.rint(centres).clip(0, 255).astype(np.uint8), axis=0)

    def _sample(self) -> tuple[np.ndarray, np.ndarray]:
        """At most :data:`_SAMPLE` colours, drawn evenly along their weights, and the weights."""
        weights = self._counts**_POWER
        if len(weights) <= _SAMPLE:
            return self._colours.astype(np.float64), weights
        ends = np.cumsum(weights)
        drawn = np.searchsorted(ends, (np.arange(_SAMPLE) + 0.5) * ends[-1] / _SAMPLE)
        chosen, times = np.unique(drawn, return_counts=True)
        return self._colours[chosen].astype(np.float64), times.astype(np.float64)


def _different(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The different colours ``(k, 4)`` of ``(n, 4)`` uint8, the place of each pixel's among them, and their counts."""
    keys, inverse, counts = np.unique(pixels.view(np.uint32), return_inverse=True, return_counts=True)
    return keys.view(np.uint8).reshape(-1, 4), inverse.reshape(-1), counts


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
