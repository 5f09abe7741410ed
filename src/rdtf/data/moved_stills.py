"""Training clips from stills: a still picture in the whole-figure motions of the built-in world.

Few collections have thousands of moving stickers, but many have thousands of stills. A still that jumps or turns shows
a model how a whole thing moves. The caption of such a clip names the motion alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from rdtf.data.derived import Derived
from rdtf.data.items import Item
from rdtf.data.style import FIELD
from rdtf.pixels import fit
from rdtf.rng import numpy_rng
from rdtf.sticker import Sticker
from rdtf.whole_figure import MOTIONS, apply_moves, moves_of
from rdtf.world import animate
from rdtf.world.artwork import ACTIONS
from rdtf.world.motion import Pose

MOTION = "motion"
"""Attribute of a moved still: the action. Stickers that move by themselves do not have it."""
SMALL_MOTIONS = ("bounce", "dance", "fly", "jump", "shiver")
"""Motions in which the picture stays upright and in sight. They are easier to learn than the others."""
FRAMES = 8


def is_moved(attributes: Mapping[str, Any]) -> bool:
    """Whether a sticker is a moved still."""
    return isinstance(attributes.get(MOTION), str)


def move_still(picture: np.ndarray, motion: str, rng: np.random.Generator, *, frames: int = FRAMES) -> Sticker:
    """A still in a motion: ``frames`` frames of its size, caption and durations.

    The picture keeps 75 to 100 % of its size, so that some have room to move. A frame that would leave the canvas is
    moved back into it, and scaled down if it is too large. ``peek`` alone hides the picture below the lower edge.

    Args:
        picture: ``(s, s, 4)`` uint8 with straight alpha; not wholly transparent.
        motion: one of :data:`MOTIONS`.
        rng: draws size, strength, pace and phase.
    """
    scale = rng.uniform(0.75, 1)
    pose = Pose()
    durations = animate(rng, pose, motion, frames, "ghost")
    moved = apply_moves(picture, *moves_of(pose, picture, frames, scale))
    return Sticker(moved, durations, ACTIONS[motion].doing[0], {MOTION: motion})


@dataclass(frozen=True)
class MoveStill:
    """Makes a moved still of each still, for :func:`~rdtf.data.derived.write_derived`.

    The motion depends on the seed and the still's name. Other metadata than the style are kept as attributes.

    Attributes:
        size: height and width in pixels.
        motions: what is drawn from, of :data:`MOTIONS`.

    Raises:
        ValueError: an unknown motion.
    """

    size: int
    seed: int = 0
    motions: tuple[str, ...] = SMALL_MOTIONS

    def __post_init__(self) -> None:
        if unknown := sorted({*self.motions} - {*MOTIONS}):
            raise ValueError(f"there is no motion {unknown[0]!r}; there are {', '.join(MOTIONS)}")

    def __call__(self, item: Item) -> list[Derived]:
        """The moved still; nothing for a sticker that moves.

        Raises:
            StickerError: the file cannot be read.
        """
        sticker = item.read(size=2 * self.size, max_frames=2)  # twice the size, so that turned edges stay sharp
        picture = fit(sticker.frames, 2 * self.size)[0]
        if len(sticker) > 1 or not picture[..., 3].any():
            return []
        rng = numpy_rng(self.seed, 0, f"moved still/{item.name}")
        motion = self.motions[int(rng.integers(len(self.motions)))]
        moved = move_still(picture, motion, rng)
        kept = {key: value for key, value in item.caption.attributes.items() if key != FIELD}
        frames = Sticker(fit(moved.frames, self.size), moved.durations)
        return [Derived(frames, ACTIONS[motion].doing, {**kept, MOTION: motion})]
