"""What is done to a whole sticker without a network: a motion of the whole figure, and another main colour.

A small network that animates one picture may break it. A jump or a turn of the whole picture is exact in any size.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from rdtf.pixels import hue_saturation_value, premultiply, transform, turn_hue, unpremultiply
from rdtf.world.artwork import ACTIONS, BODIES
from rdtf.world.drawing import matrix
from rdtf.world.motion import MOTIONS as WORLD_MOTIONS
from rdtf.world.motion import Pose

MOTIONS = ("bounce", "dance", "fly", "grow", "jump", "peek", "shiver", "spin", "turn")
"""Actions of the built-in world that move the whole figure. The others move limbs or faces."""
LOOPING = tuple(motion for motion in MOTIONS if ACTIONS[motion].loops)
NO_MOTION = "none"
"""The figure shall not move as a whole."""
ANY_MOTION = "any"
"""It shall move as a whole, in one of :data:`LIVELY`."""
LIVELY = ("dance", "bounce", "jump")
HUES = {"red": 0, "orange": 26, "yellow": 50, "green": 118, "blue": 215, "purple": 275, "pink": 325}
"""Colours by their hue in degrees, about as the built-in world draws them."""
_UNITS = 90  # height of a figure in the units of its poses
_GROUND = 44.0  # the pivot of a pose that stands on the ground
_PHASES = 32
_DIRECTIONS = 64
_COLOURFUL = 0.3  # a pixel with a smaller saturation or value has no hue that counts
_NEAR = 30.0  # degrees from the middle of the main colour
_MAIN = 0.6  # the main colour has at least this part of what is drawn
_FAINT = 16  # alpha below which a pixel may leave the canvas, if others are above: faint dots do not limit a jump


def check_names(motion: str | None = None, colour: str | None = None) -> None:
    """Refuse a motion that is not in :data:`LOOPING`, or a colour that is not in :data:`HUES`.

    Raises:
        ValueError: the message lists them.
    """
    for kind, name, names in (("motion", motion, LOOPING), ("colour", colour, tuple(HUES))):
        if name is not None and name not in names:
            raise ValueError(f"there is no {kind} {name!r}; there are {', '.join(names)}")


# ---------------------------------------------------------------------------------------------------- motion


def moves_of(pose: Pose, picture: np.ndarray, frames: int, scale: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """The maps ``(frames, 3, 3)`` of a pose for a picture, and how far each frame has sunk below the lower edge, 0..1.

    Args:
        pose: with channels over the frames.
        picture: ``(s, s, 4)`` with straight alpha; what is drawn in it is the figure.
        scale: of the figure, about its centre.
    """
    left, top, right, bottom = _box(picture)
    x, y = (left + right) / 2, (top + bottom) / 2
    unit = scale * max(right - left, bottom - top) / _UNITS
    about = (x, y + pose.pivot / _GROUND * scale * (bottom - top) / 2)
    moves = matrix(np.multiply(pose.x, unit), np.multiply(pose.y, unit), pose.angle, pose.sx, pose.sy, about)
    moves = moves @ matrix(sx=scale, sy=scale, about=(x, y))
    return np.broadcast_to(moves, (frames, 3, 3)), np.broadcast_to(pose.drop, frames)


def apply_moves(picture: np.ndarray, moves: np.ndarray, hidden: Sequence[float] | np.ndarray) -> np.ndarray:
    """The picture ``(s, s, 4)`` after each move: ``(n, s, s, 4)`` uint8 with straight alpha.

    A frame that would leave the canvas is moved back into it, and scaled down if it is too large.
    """
    outline, flat, size = _outline(picture), premultiply(picture), len(picture)
    inside = [_inside(move, outline, size, drop) for move, drop in zip(moves, hidden, strict=True)]
    return unpremultiply(np.stack([transform(flat, np.linalg.inv(move)[:2].ravel().tolist()) for move in inside]))


def move_picture(picture: np.ndarray, motion: str, frames: int) -> np.ndarray:
    """A picture in a motion of the whole figure: ``(frames, s, s, 4)`` uint8. The first frame is the picture itself.

    The last frame leads back to the first. The motion begins where the world's pose is most like the picture's, and
    all poses are seen from there.

    Args:
        picture: ``(s, s, 4)`` uint8 with straight alpha.
        motion: one of :data:`LOOPING`.

    Raises:
        ValueError: another motion, or a picture that is wholly transparent.
    """
    check_names(motion=motion)
    if not picture[..., 3].any():
        raise ValueError("the picture is wholly transparent; there is nothing to move")
    cycles = max(1, frames // 2) if motion == "shiver" else 1
    every = Pose()
    WORLD_MOTIONS[motion](every, np.arange(_PHASES) / _PHASES, 1.0, BODIES["ghost"])
    turned, sunk = moves_of(every, picture, _PHASES)
    shift = np.abs(turned[:, :2, 2] + (turned[:, :2, :2] - np.eye(2)) @ np.full(2, len(picture) / 2)).sum(1)
    away = np.abs(turned[:, :2, :2] - np.eye(2)).sum((1, 2)) + shift / len(picture) / 4 + sunk
    # Two frames a cycle show the largest motion from a whole phase on.
    first = 0.0 if motion == "shiver" or frames < 4 else float(away.argmin()) / _PHASES
    pose = Pose()
    WORLD_MOTIONS[motion](pose, first + np.arange(frames) * cycles / frames, 1.0, BODIES["ghost"])
    moves, hidden = moves_of(pose, picture, frames)
    out = apply_moves(picture, moves @ np.linalg.inv(moves[0]), np.maximum(hidden - hidden[0], 0))
    out[0] = picture
    return out


def _drawn(picture: np.ndarray) -> np.ndarray:
    """Which pixels are part of the figure."""
    alpha = picture[..., 3]
    return alpha >= min(_FAINT, int(alpha.max()))


def _box(picture: np.ndarray) -> tuple[int, int, int, int]:
    """Left, top, right and bottom edge of what is drawn."""
    rows, columns = (np.flatnonzero(_drawn(picture).any(axis)) for axis in (1, 0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _outline(picture: np.ndarray) -> np.ndarray:
    """The outermost points ``(3, n)`` of what is drawn, as columns ``(x, y, 1)``, in :data:`_DIRECTIONS` directions."""
    y, x = np.nonzero(_drawn(picture))
    angles = 2 * np.pi * np.arange(_DIRECTIONS) / _DIRECTIONS
    away = np.stack([np.cos(angles), np.sin(angles)])
    furthest = (away.T @ np.stack([x, y])).argmax(1)
    return np.stack([*(np.stack([x[furthest], y[furthest]]) + 0.5 + 0.5 * away), np.ones(_DIRECTIONS)])


def _inside(move: np.ndarray, outline: np.ndarray, size: int, drop: float) -> np.ndarray:
    """A move ``(3, 3)`` after which the outline lies in the canvas; then ``drop`` of the way to its lower edge."""
    ends = move[:2] @ outline
    scale = min(1.0, float(size / (ends.max(1) - ends.min(1)).max()))
    low, high = scale * ends.min(1), scale * ends.max(1)
    x, y = np.clip((1 - scale) * ends.mean(1), -low, size - high)
    return matrix(x, y + drop * (size - low[1] - y), 0, scale, scale)[0] @ move


# ---------------------------------------------------------------------------------------------------- colour


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


def paint(frames: np.ndarray, colour: str) -> np.ndarray | None:
    """Frames ``(n, h, w, 4)`` uint8 with all hues turned, so that the first frame's main colour is ``colour``.

    Greys and alpha stay. The result is None if the first frame has no main colour.

    Raises:
        ValueError: an unknown colour.
    """
    check_names(colour=colour)
    own = main_hue(frames[0])
    if own is None:
        return None
    return np.stack([turn_hue(frame, round((HUES[colour] - own) / 360 * 256)) for frame in frames])


# ----------------------------------------------------------------------------------------------------- words


_MOTION_OF = {words: motion for motion in LOOPING for words in (motion, ACTIONS[motion].does, *ACTIONS[motion].doing)}


def part_words(caption: str) -> tuple[str, dict[str, str]]:
    """A caption without the words for a motion and a colour, and these as ``motion`` and ``colour``.

    "a purple cat jumping" is ("a cat", colour purple, motion jump).
    """
    found = {}
    for name, meaning in (("motion", _MOTION_OF), ("colour", {colour: colour for colour in HUES})):
        for phrase in sorted(meaning, key=len, reverse=True):
            if match := re.search(rf"(?:^|[\s,]+)(?:is )?{re.escape(phrase)}(?=$|[\s,.!])", caption, re.IGNORECASE):
                caption = (caption[: match.start()] + caption[match.end() :]).strip(" ,.!")
                found[name] = meaning[phrase]
                break
    return caption, found
