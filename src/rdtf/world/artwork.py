"""What the built-in sticker world is drawn from, as data: colours, bodies, faces, accessories and props.

A drawing is a tuple of ``Layer``; a layer's outline is written in a small path language (absolute coordinates, y
points down): ``M x y``, ``L x y``, ``Q cx cy x y``, ``C ax ay bx by x y`` and ``Z`` as in SVG, and
``E cx cy rx ry`` (ellipse) and ``R x y w h r`` (rounded rectangle). The figure stands around the origin of a
space of about 100 units: x from -50 (left) to 50, the ground at y = 44.

Colours are names of a palette (``body``, ``shade``, ``light``, ``inner``, ``ink``, ``spot``, ``accent``,
``accent2``) or
``#rrggbb``.
"""

from __future__ import annotations

import colorsys
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

OUTLINE = 2.4  # units that an outline reaches beyond the shape's edge: 1.4 pixels in a 64-pixel sticker
WHITE, ORANGE, GOLD, MOUTH, TONGUE, TEAR, HEART = (
    "#ffffff", "#ff9f1c", "#ffc83d", "#8c1c2f", "#ff7b8a", "#6cc5ff", "#ff3d6e",
)  # fmt: skip


class Layer(NamedTuple):
    """One filled outline, or (``line`` > 0) a line of that width, with a dark edge of ``edge`` units."""

    path: str
    fill: str = "body"
    edge: float = OUTLINE
    line: float = 0.0


Drawing = tuple[Layer, ...]


def flat(path: str, fill: str) -> Layer:
    """A layer without an outline."""
    return Layer(path, fill, 0.0)


def stroke(path: str, width: float, fill: str = "ink", edge: float = 0.0) -> Layer:
    """A line with round ends."""
    return Layer(path, fill, edge, width)


_ARITY = {"M": 2, "L": 2, "Q": 4, "C": 6, "Z": 0, "E": 4, "R": 5}


def commands(path: str) -> list[tuple[str, tuple[float, ...]]]:
    """Split a path into (command, numbers)."""
    out = []
    for name, numbers in re.findall(r"([A-Z])([^A-Z]*)", path):
        values = tuple(float(v) for v in numbers.split())
        assert len(values) == _ARITY[name], f"{name} takes {_ARITY[name]} numbers: {path}"
        out.append((name, values))
    return out


def mirrored(path: str) -> str:
    """The path reflected about the vertical axis x = 0."""
    out = []
    for name, v in commands(path):
        if name == "E":
            v = (-v[0], *v[1:])
        elif name == "R":
            v = (-v[0] - v[2], *v[1:])
        else:
            v = tuple(-a if i % 2 == 0 else a for i, a in enumerate(v))
        out.append(" ".join([name, *(f"{a:g}" for a in v)]))
    return " ".join(out)


def pair(path: str) -> str:
    """The path and its reflection."""
    return f"{path} {mirrored(path)}"


def moved(path: str, dx: float, dy: float, scale: float = 1.0) -> str:
    """The path scaled about the origin, then shifted."""
    out = []
    for name, v in commands(path):
        shift = [dx, dy, 0, 0, 0] if name in "ER" else [dx, dy] * 3
        out.append(" ".join([name, *(f"{a * scale + s:g}" for a, s in zip(v, shift, strict=False))]))
    return " ".join(out)


def _star(outer: float, inner: float, roundness: float) -> str:
    """A five-pointed star about the origin with rounded tips."""
    corners = [
        np.array([math.sin(k * math.pi / 5), -math.cos(k * math.pi / 5)]) * (outer if k % 2 == 0 else inner)
        for k in range(10)
    ]
    out: list[str] = []
    for k in range(0, 10, 2):
        tip, before, after = corners[k], corners[k - 1], corners[(k + 1) % 10]
        a, b = tip + (before - tip) * roundness, tip + (after - tip) * roundness
        out.append(f"{'L' if out else 'M'} {a[0]:.2f} {a[1]:.2f} Q {tip[0]:.2f} {tip[1]:.2f} {b[0]:.2f} {b[1]:.2f}")
        out.append(f"L {after[0]:.2f} {after[1]:.2f}")
    return " ".join(out) + " Z"


HEART_PATH = (
    "M 0 11 C -5 7 -12 2 -12 -4 C -12 -9 -8 -11 -6 -11 C -3 -11 -1 -9 0 -7 "
    "C 1 -9 3 -11 6 -11 C 8 -11 12 -9 12 -4 C 12 2 5 7 0 11 Z"
)


# --------------------------------------------------------------------------------------------------- colours

COLOURS: dict[str, str] = {
    "red": "#e8383d",
    "orange": "#fb8b24",
    "yellow": "#ffd53d",
    "green": "#4fbf5b",
    "blue": "#3d8bfd",
    "purple": "#9656e0",
    "pink": "#ff8ec8",
    "brown": "#9c6138",
    "white": "#fafaf6",
    "gray": "#98a1ad",
}


def rgb(code: str) -> np.ndarray:
    """``#rrggbb`` as ``(3,)`` float64 in [0, 255]."""
    return np.array([int(code[i : i + 2], 16) for i in (1, 3, 5)], np.float64)


def palette(colour: str, hue: float, lightness: float, pastel: float = 0.0) -> dict[str, np.ndarray]:
    """The palette's roles as ``(3,)`` float64 in [0, 255] for a named body colour.

    ``hue`` (in turns) and ``lightness`` (of [0, 1]) shift the body's colour; within 0.012 and 0.03 it stays the
    colour that the caption names. ``pastel`` is the share of white that is mixed into all but the ink.
    """
    h, lum, s = colorsys.rgb_to_hls(*(rgb(COLOURS[colour]) / 255))
    body = np.array(colorsys.hls_to_rgb((h + hue) % 1.0, min(1.0, max(0.0, lum + lightness)), s)) * 255

    def mix(other: str, share: float) -> np.ndarray:
        return body * (1 - share) + rgb(other) * share

    warm = colour in ("red", "orange", "pink")
    roles = {
        "body": body,
        "shade": mix("#2b2140", 0.22),
        "light": mix("#ffffff", 0.68) if colour != "white" else rgb("#dbe4f3"),
        "inner": mix("#ff8fa3", 0.6),
        "ink": mix("#1c1630", 0.88),
        "spot": rgb("#fff1d6" if colour != "white" else "#ffb0a6"),
        # What is worn or held must stand out against the body.
        "accent": rgb("#2f6fed" if warm else "#f2385a"),
        "accent2": rgb("#9ee6ff" if warm else "#ffd1dc"),
    }
    return {role: mixed if role == "ink" else mixed * (1 - pastel) + 255 * pastel for role, mixed in roles.items()}


# ---------------------------------------------------------------------------------------------------- bodies


@dataclass(frozen=True)
class Body:
    """A character. All places are in figure units.

    Attributes:
        head: the main shape (with ears); nodding and shaking move it. The eyes and mouth are on it.
        face: what lies under eyes and mouth (muzzle, nose, beak); turns with them.
        centre: where the face is. ``eyes``: half the distance of the eyes, and their height above it.
        mouth: the mouth's height below ``centre``. ``features``: size of eyes and mouth.
        torso, tail, foot: the rest, drawn under the head. ``foot`` is the left one; the right one mirrors it.
        shoulder: where the left arm starts. ``arm``: the arm, pointing left from (0, 0).
        swing: how much of an action's raising of the arms this arm does.
        hand: how far from the shoulder it holds things.
        top: where a hat sits. ``hat``: how large it is. ``sides``: half width and height for headphones.
        neck: height and half width of a scarf. ``pivot``: the height about which the head turns.
        blush: has cheeks of another colour.
    """

    head: Drawing
    centre: tuple[float, float]
    top: tuple[float, float]
    face: Drawing = ()
    eyes: tuple[float, float] = (13.0, 1.0)
    mouth: float = 10.0
    features: float = 1.0
    torso: Drawing = ()
    tail: Drawing = ()
    foot: Drawing = ()
    shoulder: tuple[float, float] = (-18.5, 20.0)
    arm: Drawing = (stroke("M 0 0 L -15.5 0", 8.5, "body", OUTLINE),)
    swing: float = 1.0
    hand: float = 15.0
    hat: float = 1.0
    sides: tuple[float, float] = (35.0, -12.0)
    neck: tuple[float, float] = (16.0, 19.0)
    pivot: float = 16.0
    blush: bool = True


_FOOT = (Layer("E -11 41 9 5.5"),)
_ORANGE_FOOT = (Layer("E -11 42 9 4.5", ORANGE),)
_WING = (Layer("M 2 -6 C -10 -8 -20 -4 -21 2 C -20 8 -8 8 2 6 Z"),)
_CREAM = "#fff1d6"

BODIES: dict[str, Body] = {
    "cat": Body(
        head=(
            Layer("E 0 -12 35 27 " + pair("M -33 -12 L -33 -41 Q -32 -48 -26 -44 L -5 -33 Z")),
            flat(pair("M -28 -26 L -28 -38 L -17 -31 Z"), "inner"),
            stroke(pair("M -22 -5 L -37 -8 M -22 0 L -36 3"), 1.6),
        ),
        face=(flat("M -3.5 -7 L 3.5 -7 L 0 -3 Z", "inner"),),
        centre=(0, -12),
        top=(0, -36),
        torso=(Layer("E 0 27 20 17"), flat("E 0 30 11 11", "light")),
        tail=(stroke("M 12 37 C 30 44 38 32 33 18", 6.5, "body", OUTLINE),),
        foot=_FOOT,
    ),
    "dog": Body(
        head=(
            Layer("E 0 -13 31 27"),
            Layer(
                pair("M -20 -36 C -38 -42 -47 -18 -40 -1 C -37 8 -28 5 -26 -5 C -25 -15 -23 -25 -20 -36 Z"),
                "shade",
            ),
        ),
        face=(flat("E 0 2 15 11", "light"), flat("E 0 -4.5 6 4.2", "ink")),
        centre=(0, -13),
        top=(0, -37),
        eyes=(12, 2),
        mouth=16,
        torso=(Layer("E 0 27 20 17"), flat("E 0 30 11 11", "light")),
        tail=(stroke("M 15 34 Q 34 32 35 14", 7, "body", OUTLINE),),
        foot=_FOOT,
        sides=(32, -12),
    ),
    "bear": Body(
        head=(Layer("E 0 -12 34 27 " + pair("E -25 -33 12 12")), flat(pair("E -25 -33 6.5 6.5"), "inner")),
        face=(flat("E 0 0 13 10", "light"), flat("E 0 -5.5 5.5 3.8", "ink")),
        centre=(0, -13),
        top=(0, -37),
        mouth=15,
        torso=(Layer("E 0 27 24 18"), flat("E 0 30 14 12", "light")),
        foot=(Layer("E -13 41 10 5.5"),),
        shoulder=(-20, 18),
        neck=(16, 21),
    ),
    "rabbit": Body(
        head=(
            Layer("E 0 -5 31 25 " + pair("M -22 -18 C -30 -38 -26 -54 -18 -54 C -10 -54 -4 -40 -4 -22 Z")),
            flat(pair("M -17 -28 C -22 -40 -20 -48 -17 -48 C -13 -48 -9 -38 -10 -28 Z"), "inner"),
        ),
        face=(flat("M -3.5 -1 L 3.5 -1 L 0 3 Z", "inner"),),
        centre=(0, -5),
        top=(0, -28),
        hat=0.85,
        torso=(Layer("E 0 30 18 14"), flat("E 0 32 10 9", "light")),
        tail=(Layer("E 19 34 7 7", "light"),),
        foot=(Layer("E -11 42 10 4.5"),),
        shoulder=(-15, 24),
        sides=(32, -5),
        neck=(20, 17),
        pivot=20,
    ),
    "frog": Body(
        head=(Layer("E 0 -4 38 23 " + pair("E -21 -25 14 13")), flat(pair("E -21 -26 10 10"), WHITE)),
        face=(flat(pair("E -2.5 -2 1.2 1.2"), "ink"),),
        centre=(0, -8),
        top=(0, -37),
        hat=0.9,
        eyes=(21, 18),
        mouth=11,
        features=1.15,
        torso=(Layer("E 0 28 21 16"), flat("E 0 31 13 11", "light")),
        foot=(Layer("M -20 46 C -28 46 -26 36 -14 36 L -4 38 L -4 46 Z"),),
        shoulder=(-18, 22),
        sides=(38, -6),
        neck=(19, 19),
        pivot=18,
    ),
    "chick": Body(
        head=(
            Layer("E 0 6 37 35 M -8 -24 C -14 -40 -6 -46 -2 -36 C 0 -50 12 -46 8 -24 Z"),
            flat("E 0 24 19 14", "light"),
        ),
        face=(Layer("M -8 -1 Q 0 -6 8 -1 Q 4 8 0 8 Q -4 8 -8 -1 Z", ORANGE, 1.6),),
        centre=(0, -2),
        top=(0, -28),
        eyes=(16, 4),
        mouth=14,
        foot=_ORANGE_FOOT,
        shoulder=(-33, 10),
        arm=_WING,
        sides=(37, 2),
        neck=(22, 33),
        pivot=40,
    ),
    "penguin": Body(
        head=(
            Layer("M 0 -45 C 25 -45 33 -22 33 8 C 33 32 22 43 0 43 C -22 43 -33 32 -33 8 C -33 -22 -25 -45 0 -45 Z"),
            flat(
                "M 0 -22 C 5 -31 22 -29 21 -13 C 20 -4 13 -2 15 12 C 17 28 12 38 0 38 "
                "C -12 38 -17 28 -15 12 C -13 -2 -20 -4 -21 -13 C -22 -29 -5 -31 0 -22 Z",
                "light",
            ),
        ),
        face=(Layer("M -7 -8 Q 0 -13 7 -8 Q 3 1 0 1 Q -3 1 -7 -8 Z", ORANGE, 1.6),),
        centre=(0, -14),
        top=(0, -42),
        eyes=(12, 3),
        mouth=17,
        features=0.95,
        foot=_ORANGE_FOOT,
        shoulder=(-30, 0),
        arm=_WING,
        sides=(33, -14),
        neck=(9, 31),
        pivot=40,
        blush=False,
    ),
    "pig": Body(
        head=(
            Layer("E 0 -10 35 27 " + pair("M -32 -14 L -36 -40 Q -36 -46 -29 -43 L -9 -32 Z")),
            flat(pair("M -30 -28 L -31 -38 L -20 -32 Z"), "inner"),
        ),
        face=(Layer("E 0 -1 13 8.5", "inner", 1.6), flat(pair("E -4.5 -1 2 3.4"), "ink")),
        centre=(0, -12),
        top=(0, -35),
        eyes=(15, 4),
        mouth=17,
        torso=(Layer("E 0 28 22 16"), flat("E 0 31 12 10", "light")),
        tail=(stroke("M 18 32 C 28 36 34 26 29 22 C 24 19 22 28 30 31 C 34 32 37 30 39 27", 3, "shade", 1.4),),
        foot=(Layer("R -19 34 14 11 4", "shade"),),
        sides=(36, -10),
        neck=(17, 20),
    ),
    "ghost": Body(
        head=(
            Layer(
                "M -33 37 L -33 -10 C -33 -34 -18 -45 0 -45 C 18 -45 33 -34 33 -10 L 33 37 Q 28 50 20 41 "
                "Q 14 33 7 41 Q 0 50 -7 41 Q -14 33 -20 41 Q -28 50 -33 37 Z"
            ),
            flat("M -27 20 L -27 -10 C -27 -22 -22 -31 -14 -36 C -19 -28 -22 -20 -21 -8 L -21 18 Z", "light"),
        ),
        centre=(0, -14),
        top=(0, -42),
        features=1.15,
        eyes=(12, 2),
        shoulder=(-32, 6),
        sides=(33, -14),
        neck=(14, 32),
        pivot=40,
    ),
    "star": Body(
        head=(
            Layer(moved(_star(50, 28, 0.22), 0, 3)),
            flat("M -6 -30 Q -1 -42 2 -38 Q -1 -28 -5 -23 Z", "light"),
        ),
        centre=(0, 3),
        top=(0, -38),
        eyes=(11, 3),
        mouth=8,
        hat=0.65,
        features=0.95,
        shoulder=(-25, 13),
        arm=(stroke("M 0 0 L -15 0", 7.5, "body", OUTLINE),),
        sides=(24, -4),
        neck=(20, 24),
        pivot=35,
    ),
    "heart": Body(
        head=(
            Layer(
                "M 0 44 C -16 32 -45 14 -45 -13 C -45 -34 -31 -42 -21 -42 C -9 -42 -3 -35 0 -27 "
                "C 3 -35 9 -42 21 -42 C 31 -42 45 -34 45 -13 C 45 14 16 32 0 44 Z"
            ),
            flat("E -26 -26 8 5.5", "light"),
        ),
        centre=(0, -7),
        top=(0, -29),
        features=1.15,
        hat=0.9,
        eyes=(15, 2),
        shoulder=(-40, 2),
        arm=(stroke("M 0 0 L -13 0", 8.5, "body", OUTLINE),),
        hand=13,
        sides=(44, -12),
        neck=(18, 31),
        pivot=40,
    ),
    "cloud": Body(
        head=(
            Layer("E -27 13 20 17 E 27 13 20 17 E -13 -8 22 22 E 15 -3 20 20 E 0 16 34 15"),
            flat("E -20 -18 7 5", "light"),
        ),
        centre=(0, 7),
        top=(-6, -28),
        features=1.15,
        eyes=(13, 3),
        shoulder=(-44, 16),
        arm=(stroke("M 0 0 L -11 0", 8, "body", OUTLINE),),
        hand=12,
        sides=(37, 2),
        neck=(27, 31),
        pivot=30,
    ),
    "robot": Body(
        head=(
            stroke("M 0 -34 L 0 -45", 3.5, "shade", 1.6),
            Layer("E 0 -47 5 5", "accent"),
            Layer(pair("R -42 -24 10 18 3"), "shade"),
            Layer("R -35 -37 70 47 11"),
            flat("R -27 -30 54 33 8", "light"),
        ),
        centre=(0, -16),
        top=(0, -37),
        eyes=(13, 2),
        mouth=7,
        torso=(
            Layer("R -22 13 44 26 6"),
            flat("R -13 18 26 13 3", "light"),
            flat("E -6 24.5 3 3", "accent"),
            flat("E 4 24.5 3 3", GOLD),
        ),
        foot=(Layer("R -19 36 15 9 3", "shade"),),
        shoulder=(-22, 19),
        arm=(stroke("M 0 0 L -14 0", 7, "shade", OUTLINE), Layer("E -15 0 5.5 5.5")),
        sides=(37, -14),
        neck=(13, 20),
        pivot=12,
        blush=False,
    ),
    "slime": Body(
        head=(
            Layer(
                "M 3 -44 C 6 -26 43 -12 44 22 C 45 38 28 43 0 43 C -28 43 -45 38 -44 22 "
                "C -43 -6 -12 -14 -9 -33 C -8 -40 2 -48 3 -44 Z"
            ),
            flat("M -34 14 C -33 4 -26 -4 -18 -9 C -23 -1 -27 6 -27 15 C -28 20 -34 20 -34 14 Z", "light"),
            flat(pair("E -20 37 6 2.5"), "shade"),
        ),
        centre=(0, 13),
        top=(0, -24),
        hat=0.8,
        features=1.2,
        eyes=(15, 2),
        shoulder=(-38, 14),
        arm=(stroke("M 0 0 L -12 0", 9, "body", OUTLINE),),
        hand=12,
        sides=(40, 10),
        neck=(33, 40),
        pivot=42,
    ),
    "mushroom": Body(
        head=(
            Layer("M -21 0 C -20 16 -28 44 0 44 C 28 44 20 16 21 0 Z", _CREAM),
            Layer("M -46 -3 C -48 -32 -22 -47 0 -47 C 22 -47 48 -32 46 -3 C 45 9 24 11 0 11 C -24 11 -45 9 -46 -3 Z"),
            flat("E -25 -22 9 8 E 4 -35 10 6 E 29 -14 8 9 E -2 -10 8 7", "spot"),
        ),
        centre=(0, 23),
        top=(0, -44),
        eyes=(10, 2),
        mouth=7,
        features=0.85,
        foot=(Layer("E -11 43 8 4.5", _CREAM),),
        shoulder=(-21, 24),
        arm=(stroke("M 0 0 L -14 0", 8, _CREAM, OUTLINE),),
        sides=(47, -8),
        neck=(37, 22),
        pivot=42,
    ),
    "cactus": Body(
        head=(
            Layer("R -22 -45 44 84 22"),
            stroke(
                pair("M -17 -34 L -15 -30 M -18 14 L -16 18 M -9 -39 L -8 -35 M -10 8 L -9 12") + " M 0 12 L 0 16",
                2.2,
                "light",
            ),
            Layer("M -24 30 L 24 30 L 19 47 L -19 47 Z", "#c8693a"),
            Layer("R -28 23 56 10 3", "#dd7d4a"),
        ),
        centre=(0, -14),
        top=(0, -43),
        eyes=(10, 2),
        mouth=9,
        features=0.95,
        shoulder=(-20, -2),
        arm=(stroke("M 0 0 L -11 0 Q -17 0 -17 -7 L -17 -16", 10, "body", OUTLINE),),
        swing=0.45,
        hand=21,
        hat=0.85,
        sides=(24, -14),
        neck=(8, 23),
        pivot=28,
    ),
}


# ----------------------------------------------------------------------------------------------- expressions


@dataclass(frozen=True)
class Expression:
    """A face: ``eyes`` are drawn about the middle between the eyes, ``mouth`` about the middle of the mouth.

    ``left`` is the left eye about its own middle; the right one is its reflection, or ``right`` as it stands.
    ``adjective`` and ``predicate`` are its words: "a ... cat" and "a cat, ...".
    """

    adjective: str
    predicate: str
    left: Drawing
    mouth: Drawing
    right: Drawing | None = None


def _line(path: str, width: float = 2.6) -> Drawing:
    return (stroke(path, width),)


_EYE = (flat("E 0 0 4.6 5.8", "ink"), flat("E -1.6 -2.2 1.7 2", WHITE))
_EYE_R = (flat("E 0 0 4.6 5.8", "ink"), flat("E -1.6 -2.2 1.7 2", WHITE))  # both eyes are lit from the left
_OPEN_SMILE = (
    flat("M -8 -3 Q 0 -1 8 -3 Q 8 8 0 8 Q -8 8 -8 -3 Z", MOUTH),
    flat("M -4.5 5.6 Q 0 1 4.5 5.6 Q 2.5 8 0 8 Q -2.5 8 -4.5 5.6 Z", TONGUE),
)
_SMILE = _line("M -7 -2 Q 0 6 7 -2")
_FROWN = _line("M -7 4 Q 0 -4 7 4")
_ARC = _line("M -5.5 2.5 Q 0 -6 5.5 2.5", 2.8)

EXPRESSIONS: dict[str, Expression] = {
    "happy": Expression("happy", "happy", _EYE, _OPEN_SMILE, _EYE_R),
    "sad": Expression(
        "sad",
        "sad",
        (*_EYE, *_line("M -6 -8 L 5 -12", 2.4)),
        _FROWN,
        (*_EYE_R, *_line("M 6 -8 L -5 -12", 2.4)),
    ),
    "angry": Expression(
        "angry",
        "angry",
        (*_EYE, *_line("M -7 -11 L 6 -5", 3.2)),
        (stroke("M -8 4 Q -4 -2 0 1 Q 4 4 8 -1", 2.8),),
        (*_EYE_R, *_line("M 7 -11 L -6 -5", 3.2)),
    ),
    "surprised": Expression(
        "surprised",
        "surprised",
        (Layer("E 0 -1 6.8 7.6", WHITE, 1.6), flat("E 0 -1 2.4 2.8", "ink")),
        (flat("E 0 4 4.5 6", MOUTH),),
    ),
    "sleepy": Expression("sleepy", "sleepy", _line("M -6 -1 Q 0 5 6 -1", 2.8), (flat("E 0 2 3 2.6", MOUTH),)),
    "in love": Expression("lovestruck", "in love", (Layer(moved(HEART_PATH, 0, 0, 0.62), HEART, 1.2),), _OPEN_SMILE),
    "winking": Expression("winking", "winking", _EYE, _SMILE, _line("M 6 -4 L -4 0 L 6 4", 2.8)),
    "joyful": Expression("joyful", "full of joy", _ARC, _OPEN_SMILE),
    "silly": Expression(
        "silly",
        "being silly",
        (Layer("E 0 -1 7 7.6", WHITE, 1.6), flat("E 2 1 2.6 2.8", "ink")),
        (
            Layer("M -1 0 L 7 0 L 7 6 Q 7 10 3 10 Q -1 10 -1 6 Z", TONGUE, 1.4),
            stroke("M -8 -2 Q 0 2.5 8 -2", 2.6),
        ),
        _line("M 6 -4 L -4 0 L 6 4", 2.8),
    ),
    "dizzy": Expression(
        "dizzy",
        "dizzy",
        _line("M -5 -5 L 5 5 M 5 -5 L -5 5", 3),
        _line("M -9 1 Q -6 -4 -3 1 Q 0 6 3 1 Q 6 -4 9 1"),
    ),
    "calm": Expression("calm", "calm", _EYE, _line("M -5 1 L 5 1", 2.8), _EYE_R),
}
ROUND_EYED = ("happy", "sad", "angry", "surprised", "calm")  # a blink shows on these


# --------------------------------------------------------------------------- accessories and props


@dataclass(frozen=True)
class Extra:
    """Something worn or held. ``phrase`` is how a caption says it; ``place`` is where its origin lies.

    Places: ``top`` of the head, ``face`` (the middle between the eyes), ``neck``, ``sides`` of the head,
    ``hand``. ``drawing`` may depend on the body that wears it.
    """

    phrase: str
    place: str
    drawing: Drawing | Callable[[Body], Drawing]

    def on(self, body: Body) -> Drawing:
        """The drawing about its place on ``body``."""
        return self.drawing(body) if callable(self.drawing) else self.drawing


def _glasses(body: Body) -> Drawing:
    x, r = max(body.eyes[0], 11.5), 10.0 * body.features
    frames = pair(f"E {-x:g} 0 {r} {r}")
    return (
        Layer(frames, "#dff3ff70", 0.0),
        stroke(f"{frames} M {r - x} -2 Q 0 -5 {x - r} -2", 2.8, "#26324a"),
    )


def _scarf(body: Body) -> Drawing:
    w = body.neck[1]
    tail = 0.25 * w
    return (
        Layer(f"R {tail} 0 11 20 3", "accent"),
        flat(f"R {tail} 11 11 4.5 0", "accent2"),
        Layer(f"M {-w} -4 Q 0 4 {w} -4 L {w + 1} 4 Q 0 13 {-w - 1} 4 Z", "accent"),
    )


def _headphones(body: Body) -> Drawing:
    w = body.sides[0]
    k = (body.sides[1] - body.top[1] + 5) / 0.75
    return (
        stroke(f"M {-w} 0 C {-w} {-k} {w} {-k} {w} 0", 5, "#3a3550"),
        Layer(pair(f"R {-w - 5} -9 10 20 5"), "accent"),
    )


ACCESSORIES: dict[str, Extra] = {
    "hat": Extra(
        "with a hat",
        "top",
        (
            Layer("R -13 -25 26 26 4", "#3a3550"),
            flat("R -13 -9 26 6 0", "accent"),
            Layer("R -22 -3 44 7 3.5", "#3a3550"),
        ),
    ),
    "party hat": Extra(
        "with a party hat",
        "top",
        (
            Layer("M -14 1 L 0 -28 L 14 1 Q 0 7 -14 1 Z", "accent"),
            flat("M -11 -5 L -8.5 -11 Q 2 -7 8 -12 L 10.5 -6.5 Q 0 -1 -11 -5 Z", GOLD),
            Layer("E 0 -29 5.5 5.5", GOLD, 1.8),
        ),
    ),
    "crown": Extra(
        "wearing a crown",
        "top",
        (
            Layer("M -17 3 L -21 -17 L -9 -8 L 0 -22 L 9 -8 L 21 -17 L 17 3 Q 0 7 -17 3 Z", GOLD),
            flat("E 0 -4 3.6 3.6 E -10 -3 2.4 2.4 E 10 -3 2.4 2.4", "accent"),
        ),
    ),
    "bow": Extra(
        "with a bow",
        "top",
        (
            Layer(pair("M -1 -3 L -15 -13 Q -20 -14 -19 -9 L -19 4 Q -19 9 -14 7 Z"), "accent"),
            Layer("E 0 -3 5 5.5", "accent"),
        ),
    ),
    "glasses": Extra("wearing glasses", "face", _glasses),
    "scarf": Extra("wearing a scarf", "neck", _scarf),
    "headphones": Extra("wearing headphones", "sides", _headphones),
    "halo": Extra("with a halo", "top", (stroke("E 0 -11 17 5", 4, GOLD, 1.6),)),
}

_STEM = "#3d9a4b"
PROPS: dict[str, Extra] = {
    "balloon": Extra(
        "holding a balloon",
        "hand",
        (
            stroke("M 0 2 C 4 -6 2 -12 7 -20", 1.8),
            Layer("M 7 -19 C -12 -28 -11 -50 7 -50 C 25 -50 26 -28 7 -19 Z", "accent"),
            flat("E 1 -40 3 5", "accent2"),
        ),
    ),
    "flower": Extra(
        "holding a flower",
        "hand",
        (
            stroke("M 0 8 L 0 -14", 3.2, _STEM, 1.2),
            Layer("E 0 -30 6 6 E 9 -23 6 6 E 6 -13 6 6 E -6 -13 6 6 E -9 -23 6 6", "#ff86b6"),
            flat("E 0 -20.5 5.5 5.5", GOLD),
        ),
    ),
    "heart": Extra("holding a heart", "hand", (Layer(moved(HEART_PATH, 0, -9, 1.15), HEART),)),
    "coffee": Extra(
        "with a cup of coffee",
        "hand",
        (
            stroke("M 9 -7 C 18 -9 18 4 9 2", 3.4, WHITE, 1.6),
            Layer("M -10 -12 L 10 -12 L 8 6 Q 0 9 -8 6 Z", WHITE),
            flat("E 0 -11 8 2.6", "#7a4a2b"),
            stroke("M -3 -17 C -7 -21 1 -24 -3 -29 M 4 -17 C 0 -21 8 -24 4 -29", 2, "#b9c2cf"),
        ),
    ),
    "umbrella": Extra(
        "holding an umbrella",
        "hand",
        (
            stroke("M -1 8 L 6 -30", 3, "#5a4a42", 0.8),
            Layer(
                "M -15 -25 C -14 -50 26 -50 27 -25 Q 20 -31 13 -25 Q 6 -31 -1 -25 Q -8 -31 -15 -25 Z",
                "accent",
            ),
            flat("M -1 -28 C 0 -38 3 -43 6 -43.5 C 9 -43 12 -38 13 -28 Q 6 -31 -1 -28 Z", "accent2"),
        ),
    ),
    "ice cream": Extra(
        "eating ice cream",
        "hand",
        (
            Layer("M -8 -8 L 8 -8 L 0 12 Z", "#e0a458"),
            Layer("E -5 -14 7.5 7.5 E 5 -14 7.5 7.5 E 0 -22 8 7.5", "#ffc2d6"),
            flat("E 0 -29 3.4 3.4", "#d7263d"),
        ),
    ),
    "gift": Extra(
        "holding a gift",
        "hand",
        (
            Layer("R -12 -13 24 20 2.5", GOLD),
            flat("R -3 -13 6 20 0 R -12 -6 24 5 0", "accent"),
            Layer(pair("M 0 -14 L -9 -21 Q -12 -22 -11 -17 L -9 -13 Z"), "accent", 1.6),
        ),
    ),
    "flag": Extra(
        "waving a flag",
        "hand",
        (
            stroke("M 0 10 L 0 -34", 3, "#7a5a3a", 1.2),
            Layer("M 1 -34 Q 9 -39 15 -34 Q 20 -30 26 -34 L 26 -17 Q 20 -13 15 -17 Q 9 -22 1 -17 Z", "accent"),
            flat("E 13 -25.5 4 4", "accent2"),
        ),
    ),
}
