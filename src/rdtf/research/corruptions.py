"""Damages to clips, by kind and level, which metrics of generated stickers must notice.

Level 0 is no damage, level 1 is the worst. All functions take and return straight RGBA ``(f, h, w, 4)`` uint8. They
work on premultiplied values, so empty pixels spread no colour.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import ndimage

from rdtf.pixels import premultiply, unpremultiply

BLUR = 0.06  # deviation in sides of the frame, at level 1
NOISE = 0.3  # deviation in ranges of a channel, at level 1
WARP = 0.08  # deviation of the displacement in sides of the frame, at level 1


def blur(clip: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    """Gaussian blur of every frame, up to a deviation of 6 % of its side."""
    sigma = level * BLUR * clip.shape[1]
    return _back(ndimage.gaussian_filter(_floats(clip), (0, sigma, sigma, 0), mode="constant"))


def noise(clip: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    """White noise on colour and alpha, independent in each frame, up to a deviation of 0.3 of the range."""
    floats = _floats(clip)
    return _back(floats + 255 * NOISE * level * rng.standard_normal(floats.shape, np.float32))


def shuffle(clip: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    """Permute a random fraction of the frames without fixed points. One frame alone does not move."""
    moved = rng.permutation(len(clip))[: round(level * len(clip))]
    out = clip.copy()
    out[moved] = clip[np.roll(moved, 1)]
    return out


def freeze(clip: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    """Replace a random fraction of the frames by the frame before. At level 1 nothing moves."""
    held = np.zeros(len(clip), bool)
    held[1 + rng.permutation(len(clip) - 1)[: round(level * (len(clip) - 1))]] = True
    return clip[np.maximum.accumulate(np.where(held, 0, np.arange(len(clip))))]


def warp(clip: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    """Wobbling shapes: each frame is bent by its own smooth field, up to a deviation of 8 % of the side."""
    if level == 0:
        return clip.copy()
    _, height, width, _ = clip.shape
    out = _floats(clip)
    grid = np.mgrid[:height, :width].astype(np.float32)
    for frame in out:
        coarse = rng.standard_normal((2, 5, 5)).astype(np.float32)
        shift = ndimage.zoom(coarse, (1, height / 5, width / 5), order=3, mode="nearest", grid_mode=True)
        places = grid + level * WARP * height * shift / 0.7  # interpolation lowers the deviation to 0.7
        for channel in range(4):
            frame[..., channel] = ndimage.map_coordinates(frame[..., channel], places, order=1, mode="constant")
    return _back(out)


def mosaic(clip: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    """Square blocks of one colour, up to an eighth of the side."""
    side = round(1 + level * (clip.shape[1] / 8 - 1))
    rows, columns = (np.minimum(np.arange(n) // side * side + side // 2, n - 1) for n in clip.shape[1:3])
    return clip[:, rows][:, :, columns]


def veil(clip: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    """Alpha errors: empty pixels become a grey veil, and solid pixels become transparent, both by up to a quarter."""
    floats = _floats(clip)
    grey = np.array([128, 128, 128, 255], np.float32)
    return _back(floats + 0.5 * level * (0.5 * grey - floats))


DAMAGES: dict[str, Callable[[np.ndarray, float, np.random.Generator], np.ndarray]] = {
    "blur": blur,
    "noise": noise,
    "shuffle": shuffle,
    "freeze": freeze,
    "warp": warp,
    "mosaic": mosaic,
    "veil": veil,
}
"""All damages by name."""


def _floats(clip: np.ndarray) -> np.ndarray:
    return premultiply(clip).astype(np.float32)


def _back(floats: np.ndarray) -> np.ndarray:
    floats = np.clip(np.rint(floats), 0, 255)
    floats[..., :3] = np.minimum(floats[..., :3], floats[..., 3:])
    return unpremultiply(floats.astype(np.uint8))
