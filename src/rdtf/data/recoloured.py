"""Stickers of one colour in other colours, captioned by them: ``purple dragon face``.

Names come with one colour each in most collections: every dragon is green. Recoloured stills show a model that the
colour is a word of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from rdtf.data.derived import Derived
from rdtf.data.items import Item
from rdtf.data.keyframes import coverage, frame_features, typical_frame
from rdtf.pixels import fit, hue_saturation_value, turn_hue
from rdtf.rng import numpy_rng
from rdtf.sticker import Sticker
from rdtf.words import caption_words

COLOUR = "colour"
"""Attribute of a recoloured sticker: the colour that its captions begin with."""
HUES = {"red": 0, "orange": 26, "yellow": 50, "green": 118, "blue": 215, "purple": 275, "pink": 325}
"""Colours by their hue in degrees, about as the built-in world draws them."""
_OTHERS = ("black", "white", "grey", "gray", "brown", "gold", "silver", "golden")
_COLOURFUL = 0.3  # a pixel with a smaller saturation or value has no hue that counts
_NEAR = 30.0  # degrees from the middle of the main colour
_MAIN = 0.6  # the main colour has at least this part of what is drawn
_MAX_FRAMES = 20


def is_recoloured(attributes: Mapping[str, Any]) -> bool:
    """Whether a sticker is a recoloured one."""
    return isinstance(attributes.get(COLOUR), str)


def main_hue(picture: np.ndarray) -> float | None:
    """The hue in degrees of the colour that covers most of a picture; None if no colour covers enough of it.

    Args:
        picture: ``(h, w, 4)`` uint8 with straight alpha.
    """
    hue, saturation, value = np.moveaxis(hue_saturation_value(picture), -1, 0) / 255.0
    weight = picture[..., 3] / 255.0
    counts = (saturation > _COLOURFUL) & (value > _COLOURFUL)
    angles = 2 * np.pi * np.arange(360) / 360
    votes = np.bincount((hue[counts] * 360).astype(int) % 360, weight[counts], 360)
    near = np.cos(angles[:, None] - angles) >= np.cos(np.deg2rad(_NEAR))
    best = int((near @ votes).argmax())
    drawn = weight.sum()
    if drawn == 0 or (near[best] @ votes) < _MAIN * drawn:
        return None
    within = votes * near[best]
    return float(np.rad2deg(np.arctan2(within @ np.sin(angles), within @ np.cos(angles))) % 360)


@dataclass(frozen=True)
class Recolour:
    """Makes recoloured stills of each sticker of one main colour, for :func:`~rdtf.data.derived.write_derived`.

    The still is the typical frame. Stickers whose captions name a colour are passed over.

    Attributes:
        size: height and width in pixels.
        count: colours for each sticker, of those of :data:`HUES` that are not its own.
    """

    size: int
    count: int = 2
    seed: int = 0

    def __call__(self, item: Item) -> list[Derived]:
        """The recoloured stills; nothing if the sticker has no main colour, or a caption that names a colour.

        Raises:
            StickerError: the file cannot be read.
        """
        captions = [text for text in item.caption.texts if text]
        if not captions or not {*HUES, *_OTHERS}.isdisjoint(word for text in captions for word in caption_words(text)):
            return []
        frames = fit(item.read(size=self.size, max_frames=_MAX_FRAMES).frames, self.size)
        if not frames[..., 3].any():
            return []
        still = frames[typical_frame(frame_features(frames), coverage(frames))]
        own = main_hue(still)
        if own is None:
            return []
        others = [name for name, hue in HUES.items() if np.cos(np.deg2rad(hue - own)) < np.cos(np.deg2rad(_NEAR))]
        rng = numpy_rng(self.seed, 0, f"recoloured/{item.name}")
        return [
            Derived(
                Sticker(turn_hue(still, round((HUES[name] - own) / 360 * 256))[None], np.array([1000.0])),
                [f"{name} {text}" for text in captions],
                {**item.caption.attributes, COLOUR: name},
            )
            for name in rng.permutation(others)[: self.count].tolist()
        ]
