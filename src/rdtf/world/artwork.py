"""The artwork of the built-in sticker world, which stands in ``artwork.json``.

A drawing is a tuple of ``Layer``. In the file, a layer is an object:

- ``path`` is the outline in a small path language (absolute coordinates, y points down): ``M x y``, ``L x y``,
  ``Q cx cy x y``, ``C ax ay bx by x y`` and ``Z`` as in SVG; ``E cx cy rx ry`` is an ellipse, and ``R x y w h r`` is
  a rounded rectangle. ``"mirrored": true`` adds the reflection about x = 0.
- ``fill`` is a colour: a role of the palette (``body``, ``shade``, ``light``, ``inner``, ``ink``, ``spot``,
  ``accent``, ``accent2``), a name under ``paints``, ``#rrggbb`` or ``#rrggbbaa``. The default is ``body``.
- ``edge`` is the width of the dark outline (default: 2.4), and ``line`` the width of a line.
- ``{"shape": name}`` stands for the layers of that name under ``shapes``.

A figure stands around the origin of a space of about 100 units: x from -50 (left) to 50, the ground at y = 44.
"""

from __future__ import annotations

import colorsys
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

OUTLINE = 2.4  # units that an outline reaches beyond the shape's edge: 1.4 pixels in a 64-pixel sticker


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


# ------------------------------------------------------------------------------------------------------ paths


def commands(path: str) -> list[tuple[str, tuple[float, ...]]]:
    """Split a path into (command, numbers)."""
    return [(n, tuple(map(float, numbers.split()))) for n, numbers in re.findall(r"([A-Z])([^A-Z]*)", path)]


def mirrored(path: str) -> str:
    """The path reflected about the vertical axis x = 0."""
    out = []
    for name, v in commands(path):
        if name in "ER":  # the middle of an ellipse, the left side of a rectangle
            v = (-v[0] - (v[2] if name == "R" else 0), *v[1:])
        else:
            v = tuple(-a if i % 2 == 0 else a for i, a in enumerate(v))
        out.append(" ".join([name, *(f"{a:g}" for a in v)]))
    return " ".join(out)


def pair(path: str) -> str:
    """The path and its reflection."""
    return f"{path} {mirrored(path)}"


# ---------------------------------------------------------------------------------------------- what is drawn


@dataclass(frozen=True)
class Body:
    """A character. All coordinates are in figure units.

    Attributes:
        head: the main shape (with ears), which carries the face; nodding and shaking move it.
        face: the layers below eyes and mouth (muzzle, nose, beak); they turn with them.
        centre: where the face is. ``eyes``: half the distance of the eyes, and their height above it.
        mouth: the mouth's height below ``centre``. ``features``: size of eyes and mouth.
        torso, tail, foot: drawn under the head. ``foot`` is the left one; the right one mirrors it.
        shoulder: where the left arm starts. ``arm``: the arm, pointing left from (0, 0).
        swing: an action's angles of the arms are multiplied by this.
        hand: the distance from the shoulder to what the hand holds.
        top: where a hat sits. ``hat``: how large it is. ``sides``: half width and height for headphones.
        neck: height and half width of a scarf. ``pivot``: the height about which the head turns.
        blush: has cheeks of another colour.
    """

    head: Drawing
    centre: tuple[float, float]
    top: tuple[float, float]
    arm: Drawing
    face: Drawing = ()
    eyes: tuple[float, float] = (13.0, 1.0)
    mouth: float = 10.0
    features: float = 1.0
    torso: Drawing = ()
    tail: Drawing = ()
    foot: Drawing = ()
    shoulder: tuple[float, float] = (-18.5, 20.0)
    swing: float = 1.0
    hand: float = 15.0
    hat: float = 1.0
    sides: tuple[float, float] = (35.0, -12.0)
    neck: tuple[float, float] = (16.0, 19.0)
    pivot: float = 16.0
    blush: bool = True


@dataclass(frozen=True)
class Expression:
    """A face: each eye is drawn about its own middle, and ``mouth`` about the middle of the mouth.

    The right eye is the reflection of ``left``, or ``right`` as it stands. ``adjective`` and ``predicate`` are the
    words for captions: "a ... cat" and "a cat, ...".
    """

    adjective: str
    predicate: str
    left: Drawing
    mouth: Drawing
    right: Drawing | None = None


@dataclass(frozen=True)
class Extra:
    """Something worn or held. ``phrase`` is how a caption says it; ``place`` is where its origin lies.

    Places: ``top`` of the head, ``face`` (the middle between the eyes), ``neck``, ``sides`` of the head, ``hand``.
    ``fitted`` names a function of this module that makes the drawing for a body; otherwise ``drawing`` is used.
    """

    phrase: str
    place: str
    drawing: Drawing = ()
    fitted: str = ""

    def on(self, body: Body) -> Drawing:
        """The drawing about its place on ``body``."""
        return _FITTED[self.fitted](body) if self.fitted else self.drawing


@dataclass(frozen=True)
class Action:
    """The words and the pace of an action; ``rdtf.world.motion`` moves it.

    Attributes:
        seconds: about how long one cycle takes, or the whole action if it does not loop.
        doing, does: words for captions: "a cat ..." and "a cat that ...".
        loops: the last frame leads back to the first.
        expressions: the expressions that suit it; None for all.
    """

    seconds: float
    doing: tuple[str, ...]
    does: str
    loops: bool = True
    expressions: tuple[str, ...] | None = None


def _glasses(body: Body) -> Drawing:
    x, r = max(body.eyes[0], 11.5), 10.0 * body.features
    frames = pair(f"E {-x:g} 0 {r} {r}")
    return flat(frames, "#dff3ff70"), stroke(f"{frames} M {r - x} -2 Q 0 -5 {x - r} -2", 2.8, "#26324a")


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
        stroke(f"M {-w} 0 C {-w} {-k} {w} {-k} {w} 0", 5, "cloth"),
        Layer(pair(f"R {-w - 5} -9 10 20 5"), "accent"),
    )


_FITTED: dict[str, Callable[[Body], Drawing]] = {
    "glasses": _glasses, "scarf": _scarf, "headphones": _headphones,
}  # fmt: skip


# --------------------------------------------------------------------------------------------------- the file


def rgb(code: str) -> np.ndarray:
    """``#rrggbb`` (or ``#rrggbbaa``, alpha left out) as ``(3,)`` float64 in [0, 255]."""
    return np.array([int(code[i : i + 2], 16) for i in (1, 3, 5)], np.float64)


_DATA = json.loads(Path(__file__).with_name("artwork.json").read_text(encoding="utf-8"))
COLOURS: dict[str, str] = _DATA["colours"]
"""Colours of bodies by name, ``#rrggbb``."""
PAINTS: dict[str, str] = _DATA["paints"]
"""Colours of layers by name, ``#rrggbb``."""
SHAPES: dict[str, Drawing] = {}


def _value(given: Any) -> Any:
    """A list of layers as a drawing, another list as a tuple."""
    if not isinstance(given, list):
        return given
    values: list[Any] = []
    for entry in given:
        if not isinstance(entry, dict):
            values.append(entry)
        elif "shape" in entry:
            values += SHAPES[entry["shape"]]
        else:
            layer = Layer(**{key: value for key, value in entry.items() if key != "mirrored"})
            values.append(layer._replace(path=pair(layer.path)) if entry.get("mirrored") else layer)
    return tuple(values)


def _read(kind: str, make: Callable[..., Any]) -> dict[str, Any]:
    return {name: make(**{key: _value(given) for key, given in entry.items()}) for name, entry in _DATA[kind].items()}


for _name, _entry in _DATA["shapes"].items():
    SHAPES[_name] = _value(_entry)
BODIES: dict[str, Body] = _read("bodies", Body)
EXPRESSIONS: dict[str, Expression] = _read("expressions", Expression)
ACCESSORIES: dict[str, Extra] = _read("accessories", Extra)
PROPS: dict[str, Extra] = _read("props", Extra)
ACTIONS: dict[str, Action] = _read("actions", Action)


def _mix(body: np.ndarray, other: str, proportion: float) -> np.ndarray:
    return body * (1 - proportion) + rgb(other) * proportion


def palette(colour: str, hue: float, lightness: float, pastel: float = 0.0) -> dict[str, np.ndarray]:
    """The palette's roles and the paints, as ``(3,)`` float64 in [0, 255], for a named body colour.

    ``hue`` (in turns) and ``lightness`` (in [0, 1]) shift the body's colour. Within 0.012 and 0.03 it stays the
    colour that the caption names. The roles but ``ink`` become ``(1 - pastel) * colour + pastel * white``.
    """
    h, lum, s = colorsys.rgb_to_hls(*(rgb(COLOURS[colour]) / 255))
    body = np.array(colorsys.hls_to_rgb((h + hue) % 1.0, min(1.0, max(0.0, lum + lightness)), s)) * 255

    warm = colour in ("red", "orange", "pink")
    roles = {
        "body": body,
        "shade": _mix(body, "#2b2140", 0.22),
        "light": _mix(body, "#ffffff", 0.68) if colour != "white" else rgb("#dbe4f3"),
        "inner": _mix(body, "#ff8fa3", 0.6),
        "ink": _mix(body, "#1c1630", 0.88),
        "spot": rgb("#fff1d6" if colour != "white" else "#ffb0a6"),
        # What is worn or held must stand out against the body.
        "accent": rgb("#2f6fed" if warm else "#f2385a"),
        "accent2": rgb("#9ee6ff" if warm else "#ffd1dc"),
    }
    roles = {role: mixed if role == "ink" else mixed * (1 - pastel) + 255 * pastel for role, mixed in roles.items()}
    return roles | {name: rgb(code) for name, code in PAINTS.items()}
