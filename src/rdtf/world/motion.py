"""How the stickers of the built-in world move: each action fills the channels of a ``Pose`` over the frames.

``t`` is the phase of the action. For looping actions it counts cycles: all whole numbers look alike, so the last frame
leads back to the first. For other actions it runs from 0 to 1. Cosines start at an extreme, so that two frames a cycle
(t = 0 and 0.5) show the largest motion.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from rdtf.world.artwork import SHAPES, Body, Drawing, Layer, flat, stroke

Channel = np.ndarray | float


@dataclass
class Effect:
    """A drawing beside the body; ``x``, ``y`` (figure units), ``angle`` (degrees), ``sx``, ``sy`` over frames.

    ``on``: ``body`` (it moves with the body) or ``air``. ``behind`` draws it under the body. ``text`` is not mirrored.
    """

    drawing: Drawing
    x: Channel = 0.0
    y: Channel = 0.0
    angle: Channel = 0.0
    sx: Channel = 1.0
    sy: Channel = 1.0
    on: str = "air"
    behind: bool = False
    text: bool = False


@dataclass
class Pose:
    """Everything that moves. Channels are numbers or ``(n,)`` over frames, in figure units and degrees.

    Attributes:
        x, y, angle, sx, sy: the whole figure, about (0, ``pivot``); by default it stands on the ground.
        head_x, head_y, head_angle: the head. ``face_x``, ``face_y``: the face on it (a turn of the head).
        eyes, mouth: height of the eyes and of the mouth, 1 = as drawn.
        arm_l, arm_r: how far an arm is raised: 0 points sideways, 90 up.
        foot_lx, foot_ly, foot_rx, foot_ry: the feet.
        opacity: of everything, 0 to 1. ``drop``: how far it has sunk below the canvas: at 1, nothing is left.
    """

    x: Channel = 0.0
    y: Channel = 0.0
    angle: Channel = 0.0
    sx: Channel = 1.0
    sy: Channel = 1.0
    pivot: float = 44.0
    head_x: Channel = 0.0
    head_y: Channel = 0.0
    head_angle: Channel = 0.0
    face_x: Channel = 0.0
    face_y: Channel = 0.0
    eyes: Channel = 1.0
    mouth: Channel = 1.0
    arm_l: Channel = -50.0
    arm_r: Channel = -50.0
    foot_lx: Channel = 0.0
    foot_ly: Channel = 0.0
    foot_rx: Channel = 0.0
    foot_ry: Channel = 0.0
    opacity: Channel = 1.0
    drop: Channel = 0.0
    effects: list[Effect] = field(default_factory=list)


Motion = Callable[[Pose, np.ndarray, float, Body], None]


def _cos(t: np.ndarray) -> np.ndarray:
    return np.cos(2 * math.pi * t)


def _sin(t: np.ndarray) -> np.ndarray:
    return np.sin(2 * math.pi * t)


def _up(t: np.ndarray) -> np.ndarray:
    """0 at whole t, 1 half way between."""
    return 0.5 - 0.5 * _cos(t)


def _life(u: np.ndarray) -> np.ndarray:
    """Size of a particle of age u in [0, 1): it pops up and vanishes."""
    return np.clip(u * 6, 0, 1) * np.clip((1 - u) * 5, 0, 1)


def _wave(p: Pose, t: np.ndarray, a: float, body: Body) -> None:
    p.arm_l = 32 + 44 * a * _cos(t)
    p.angle = -4 * a * _cos(t)
    p.head_angle = 3 * _cos(t)


def _jump(p: Pose, t: np.ndarray, a: float, body: Body) -> None:
    up = _up(t)
    p.y = -24 * a * up
    p.sy = 1 - 0.17 * (1 - up) ** 3 + 0.06 * up
    p.sx = 1 + 0.14 * (1 - up) ** 3 - 0.04 * up
    p.arm_l = p.arm_r = -45 + 85 * up
    p.foot_ly = p.foot_ry = 3 * up


def _spin(p: Pose, t: np.ndarray, a: float, body: Body) -> None:
    p.pivot = 0.0
    p.angle = 360 * t
    p.arm_l = p.arm_r = 5.0


def _cry(p: Pose, t: np.ndarray, a: float, body: Body) -> None:
    p.head_angle = 4 * a * _cos(t)
    p.y = -1.5 * _up(2 * t)
    p.mouth = 1 + 0.2 * _cos(t)
    eye_x, eye_y = body.eyes[0] + 3, body.centre[1] - body.eyes[1] + 6
    for side in (-1, 1):
        for k in range(3):
            u = (t + k / 3 + (0.17 if side > 0 else 0.0)) % 1.0
            size = _life(u)
            x = body.centre[0] + side * (eye_x + 10 * u)
            p.effects.append(Effect(SHAPES["tear"], x, eye_y + (40 - eye_y) * u**1.4, 0, size, size, on="body"))
    puddle = (flat(f"E {-eye_x - 10} 44 10 3 E {eye_x + 10} 44 10 3", "tear"),)
    p.effects.append(Effect(puddle, on="air", behind=True))


def _laugh(p: Pose, t: np.ndarray, a: float, body: Body) -> None:
    up = _up(t)
    p.y = -5 * a * up
    p.sy = 1 + 0.07 * up
    p.head_angle = -5 + 3 * _cos(t)
    p.mouth = 0.75 + 0.75 * up
    p.face_y = -3 * up
    p.arm_l = p.arm_r = -55 + 30 * up
    # Marks of laughter on both sides of the head.
    x, y = body.sides[0] + 6, body.sides[1]
    marks = stroke(
        f"M {x} {y - 12} L {x + 7} {y - 17} M {x + 2} {y - 2} L {x + 10} {y - 2} "
        f"M {-x} {y - 12} L {-x - 7} {y - 17} M {-x - 2} {y - 2} L {-x - 10} {y - 2}",
        3,
        "gold",
        1.4,
    )
    p.effects.append(Effect((marks,), sx=0.8 + 0.25 * up, sy=0.8 + 0.25 * up, on="body"))


def _nod(p: Pose, t: np.ndarray, a: float, body: Body) -> None:
    down = _up(t)
    p.head_y = -3 + 7 * a * down
    p.face_y = -5 + 12 * a * down
    p.sy = 1 - 0.05 * down


def _shake(p: Pose, t: np.ndarray, a: float, body: Body) -> None:
    p.face_x = 10 * a * _cos(t)
    p.head_x = 5 * a * _cos(t)
    p.head_angle = 3 * _cos(t)


def _blink(p: Pose, t: np.ndarray, a: float, body: Body) -> None:
    p.eyes = 1 - 0.88 * np.clip(2.5 * _up(t) * 2 - 3.5, 0, 1)
    p.sy = 1 + 0.02 * _cos(t)


def _bounce(p: Pose, t: np.ndarray, a: float, body: Body) -> None:
    p.sy = 1 + 0.2 * a * _cos(t)
    p.sx = 1 - 0.15 * a * _cos(t)
    p.arm_l = p.arm_r = -20 + 40 * _cos(t)


def _grow(p: Pose, t: np.ndarray, a: float, body: Body) -> None:
    size = 0.3 + 0.7 * (t + 0.22 * np.sin(math.pi * t) * t)  # a little too large before it settles
    p.sx = p.sy = size
    p.arm_l = p.arm_r = -50 + 60 * t


def _love(p: Pose, t: np.ndarray, a: float, body: Body) -> None:
    p.angle = 4 * a * _cos(t)
    p.arm_l = p.arm_r = -20 + 15 * _cos(t)
    for k, x in enumerate((-38, 30, -22, 40)):
        u = (t + k / 4) % 1.0
        size = (0.5 + 0.6 * u) * _life(u)
        p.effects.append(Effect(SHAPES["heart"], x + 4 * _sin(u), 2 - 62 * u, 10 * _sin(u), size, size))


def _peek(p: Pose, t: np.ndarray, a: float, body: Body) -> None:
    hidden = 0.5 + 0.5 * np.clip(1.25 * _cos(t), -1, 1)
    p.drop = 0.1 + 0.62 * hidden
    p.angle = 7 * a * (1 - hidden)
    p.arm_l = p.arm_r = 25.0


def _dance(p: Pose, t: np.ndarray, a: float, body: Body) -> None:
    side = _cos(t)
    p.x = 7 * a * side
    p.angle = 10 * a * side
    p.y = -5 * side**2
    p.head_angle = -8 * side
    p.arm_l = 10 + 50 * side
    p.arm_r = 10 - 50 * side
    p.foot_ly = -6 * np.maximum(side, 0)
    p.foot_ry = -6 * np.maximum(-side, 0)


def _sleep(p: Pose, t: np.ndarray, a: float, body: Body) -> None:
    p.sy = 1 + 0.05 * a * _cos(t)
    p.sx = 1 - 0.03 * a * _cos(t)
    p.head_angle = 9 + 2 * _cos(t)
    p.head_y = 2.0
    p.mouth = 1 + 0.5 * _cos(t)
    for k in range(2):
        u = (t + k / 2) % 1.0
        size = (0.6 + 0.8 * u) * _life(u)
        p.effects.append(Effect(SHAPES["letter z"], 18 + 30 * u, -22 - 46 * u, 12 * _sin(u), size, size, text=True))


def _run(p: Pose, t: np.ndarray, a: float, body: Body) -> None:
    p.angle = 11.0
    p.y = -6 * a * _up(2 * t) if body.foot else -9 * a * _up(t)
    p.sy = 1 + 0.06 * _cos(t)
    p.foot_lx, p.foot_ly = 12 * _cos(t), -9 * np.maximum(_sin(t), 0)
    p.foot_rx, p.foot_ry = -12 * _cos(t), -9 * np.maximum(-_sin(t), 0)
    p.arm_l = p.arm_r = -20 + 45 * _cos(t)
    for k, (y, length) in enumerate(((-16, 14), (6, 20), (28, 14))):
        u = (t + k / 3) % 1.0
        line = (stroke(f"M 0 {y} L {-length} {y}", 4.2, "#6f86ab"),)
        p.effects.append(Effect(line, -40 - 10 * u, 0, 0, 0.3 + 0.7 * _life(u)))


def _appear(p: Pose, t: np.ndarray, a: float, body: Body) -> None:
    p.opacity = 0.1 + 0.9 * t**1.3
    p.y = 6 * (1 - t)


def _fly(p: Pose, t: np.ndarray, a: float, body: Body) -> None:
    p.y = -9 * a * _cos(t)
    p.angle = 4 * _sin(t)
    p.foot_ly = p.foot_ry = 2.0
    wing = SHAPES["wing"]
    x, y = 0.55 * body.sides[0], body.shoulder[1] - 6
    flap = 38 * _cos(t)
    p.effects.append(Effect(wing, -x, y, flap, on="body", behind=True))
    p.effects.append(Effect(wing, x, y, -flap, -1.0, on="body", behind=True))


def _shiver(p: Pose, t: np.ndarray, a: float, body: Body) -> None:
    p.x = 3.2 * a * _cos(t)
    p.angle = 1.5 * _cos(t)
    p.mouth = 0.8 + 0.3 * _cos(t)
    p.arm_l = p.arm_r = -65.0
    x, y = body.sides[0] + 10, body.centre[1]
    left = -x - 5
    marks = stroke(
        f"M {x} {y - 14} L {x + 5} {y - 7} L {x} {y} L {x + 5} {y + 7} L {x} {y + 14} "
        f"M {left} {y - 14} L {left + 5} {y - 7} L {left} {y} L {left + 5} {y + 7} L {left} {y + 14}",
        3,
        "tear",
        1.2,
    )
    p.effects.append(Effect((marks,), y=-2.5 * _cos(t)))


def _celebrate(p: Pose, t: np.ndarray, a: float, body: Body) -> None:
    up = _up(t)
    p.y = -8 * a * up
    p.sy = 1 - 0.06 * (1 - up)
    p.arm_l = p.arm_r = 45 + 25 * _cos(t)
    for k in range(9):
        u = (t + (k * 0.37) % 1.0) % 1.0
        colour = ("#ff4d6d", "#ffd23f", "#3ec6a8", "#4d8bff", "#b565f0")[k % 5]
        size = _life(u)
        x = -46 + 92 * ((k * 0.618) % 1.0)
        piece = (Layer("R -5 -3.2 10 6.4 1.2", colour, 1.2),)
        p.effects.append(Effect(piece, x + 3 * _sin(u), -58 + 84 * u, 360 * u + 40 * k, size, size))


def _turn(p: Pose, t: np.ndarray, a: float, body: Body) -> None:
    side = _cos(t)
    p.sx = np.where(side < 0, -1, 1) * np.maximum(np.abs(side), 0.14)
    p.y = -4 * _up(2 * t)
    p.arm_l = p.arm_r = -10.0


MOTIONS: dict[str, Motion] = {
    motion.__name__[1:]: motion
    for motion in (
        _wave, _jump, _spin, _cry, _laugh, _nod, _shake, _blink, _bounce, _grow, _love, _peek, _dance, _sleep, _run,
        _appear, _fly, _shiver, _celebrate, _turn,
    )
}  # fmt: skip
"""``MOTIONS[action](pose, t, strength, body)`` fills the pose; the strength is about 1."""
