"""Data augmentation for small datasets: variants of a sticker that are moved, turned, scaled, and some recoloured."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from rdtf.data.dataset import StickerRecord
from rdtf.pixels import premultiply, transform, turn_hue, unpremultiply
from rdtf.rng import numpy_rng

PLAIN, MIRRORED, FIRST_AUGMENTED = 0, 1, 2
"""Numbers of a sticker's variants. Augmented variants have the numbers from :data:`FIRST_AUGMENTED` on."""


@dataclass(frozen=True)
class Augmentation:
    """A change of all frames of a sticker.

    Attributes:
        angle: rotation in degrees.
        scale: factor of the size, about the centre.
        shift: to the right and down, as fractions of the canvas.
        hue: rotation of the colour circle in 0..1. If it is not 0, captions with names of colours no longer fit.
        mirror: exchange left and right, before all other changes.
    """

    angle: float
    scale: float
    shift: tuple[float, float]
    hue: float
    mirror: bool

    @classmethod
    def draw(cls, sticker: str, variant: int, mirror: bool) -> Augmentation:
        """Draw the augmentation of a variant. It is a function of the arguments alone.

        Args:
            sticker: its id.
            variant: its number.
            mirror: whether the variant may be mirrored.
        """
        rng = numpy_rng(0, variant, f"change/{sticker}")
        angle, scale = rng.normal(0, 6), math.exp(rng.uniform(math.log(0.75), math.log(1.1)))
        shift = rng.uniform(-0.06, 0.06, 2)
        hue = float(rng.uniform(0.1, 0.9)) if rng.random() < 0.5 else 0.0
        return cls(float(angle), scale, (float(shift[0]), float(shift[1])), hue, mirror and bool(rng.random() < 0.5))

    def apply(self, frames: np.ndarray) -> np.ndarray:
        """Change frames ``(n, s, s, 4)`` uint8 with straight alpha. Parts that leave the canvas are lost."""
        if self.mirror:
            frames = frames[:, :, ::-1]
        if self.hue:
            frames = np.stack([turn_hue(frame, int(self.hue * 256)) for frame in frames])
        return unpremultiply(np.stack([self._move(frame) for frame in premultiply(frames)]))

    def _move(self, frame: np.ndarray) -> np.ndarray:
        size = len(frame)
        centre = (size - 1) / 2
        cos, sin = (f(math.radians(self.angle)) / self.scale for f in (math.cos, math.sin))
        x, y = (centre + s * size for s in self.shift)
        return transform(frame, (cos, sin, centre - cos * x - sin * y, -sin, cos, centre + sin * x - cos * y))


def variant_frames(record: StickerRecord, frames: np.ndarray, variant: int) -> np.ndarray:
    """The frames ``(n, s, s, 4)`` uint8 of a variant of a sticker."""
    if variant == PLAIN:
        return frames
    if variant == MIRRORED:
        return frames[:, :, ::-1]
    return Augmentation.draw(record.id, variant, record.flippable).apply(frames)
