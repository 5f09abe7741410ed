"""Training clips from stills: a still picture in the whole-figure motions of the built-in world.

Few collections have thousands of moving stickers, but many have thousands of stills. A still that jumps or turns shows
a model how a whole thing moves. The caption of such a clip names the motion alone, so a prompt can ask for the motion
of a picture whose name the model does not know.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from rdtf.data.derived import Derived
from rdtf.data.items import Item
from rdtf.data.style import FIELD
from rdtf.pixels import fit, premultiply, transform, unpremultiply
from rdtf.rng import numpy_rng
from rdtf.sticker import Sticker
from rdtf.world import animate
from rdtf.world.artwork import ACTIONS
from rdtf.world.drawing import matrix
from rdtf.world.motion import Pose

MOTION = "motion"
"""Attribute of a moved still: the action. Stickers that move by themselves do not have it."""
MOTIONS = ("bounce", "dance", "fly", "grow", "jump", "peek", "shiver", "spin", "turn")
"""Actions that move the whole figure. The others move limbs or faces, which a still does not have."""
SMALL_MOTIONS = ("bounce", "dance", "fly", "jump", "shiver")
"""Motions that a small model learns within an hour: the picture stays upright and in sight."""
FRAMES = 8
_UNITS = 90  # height of a figure in the units of its poses
_GROUND = 44.0  # the pivot of a pose that stands on the ground


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
    size, scale = len(picture), rng.uniform(0.75, 1)
    pose = Pose()
    durations = animate(rng, pose, motion, frames, "ghost")
    rows, columns = (np.flatnonzero(picture[..., 3].any(axis)) for axis in (1, 0))
    left, top, right, bottom = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    x, y = (left + right) / 2, (top + bottom) / 2
    unit = scale * max(right - left, bottom - top) / _UNITS
    about = (x, y + pose.pivot / _GROUND * scale * (bottom - top) / 2)
    moves = matrix(np.multiply(pose.x, unit), np.multiply(pose.y, unit), pose.angle, pose.sx, pose.sy, about)
    moves = np.broadcast_to(moves @ matrix(sx=scale, sy=scale, about=(x, y)), (frames, 3, 3))
    corners = np.array([[left, right, left, right], [top, top, bottom, bottom], [1, 1, 1, 1]])
    hidden = np.broadcast_to(pose.drop, frames)
    moves = np.stack([_inside(move, corners, size, float(drop)) for move, drop in zip(moves, hidden, strict=True)])
    moved = [transform(premultiply(picture), move) for move in moves]
    return Sticker(unpremultiply(np.stack(moved)), durations, ACTIONS[motion].doing[0], {MOTION: motion})


def _inside(move: np.ndarray, corners: np.ndarray, size: int, drop: float) -> np.ndarray:
    """A move ``(3, 3)`` after which all corners lie in the canvas; then ``drop`` of the way to its lower edge."""
    ends = move[:2] @ corners
    scale = min(1.0, float(size / (ends.max(1) - ends.min(1)).max()))
    low, high = scale * ends.min(1), scale * ends.max(1)
    x, y = np.clip((1 - scale) * ends.mean(1), -low, size - high)
    return matrix(x, y + drop * (size - low[1] - y), 0, scale, scale)[0] @ move


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
