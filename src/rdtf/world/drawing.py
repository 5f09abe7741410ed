"""Draws the world's figures: parts, matrices and a palette become frames (with ThorVG)."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import thorvg_python as tvg

from rdtf.pixels import unpremultiply
from rdtf.world import artwork as art
from rdtf.world.motion import Channel, Pose

Palette = dict[str, np.ndarray]

# ------------------------------------------------------------------------------------------------- outlines

_KAPPA = 0.5522847498  # a quarter circle as a cubic: distance of the handles
# Plain integers: converting the enumeration for every shape would take a tenth of the drawing time.
_CMD = {
    "M": int(tvg.PathCommand.MOVE_TO),
    "L": int(tvg.PathCommand.LINE_TO),
    "C": int(tvg.PathCommand.CUBIC_TO),
    "Z": int(tvg.PathCommand.CLOSE),
}


Steps = list[tuple[str, tuple[float, ...]]]


class _Outline(NamedTuple):
    commands: tuple[int, ...]
    points: tuple[tvg.PointStruct, ...]
    hull: np.ndarray  # (m, 3) homogeneous; the drawn shape lies in the convex hull of its control points


def _ellipse(cx: float, cy: float, rx: float, ry: float) -> Steps:
    x, y = rx * _KAPPA, ry * _KAPPA
    return [
        ("M", (cx, cy - ry)),
        ("C", (cx + x, cy - ry, cx + rx, cy - y, cx + rx, cy)),
        ("C", (cx + rx, cy + y, cx + x, cy + ry, cx, cy + ry)),
        ("C", (cx - x, cy + ry, cx - rx, cy + y, cx - rx, cy)),
        ("C", (cx - rx, cy - y, cx - x, cy - ry, cx, cy - ry)),
        ("Z", ()),
    ]


def _rectangle(x: float, y: float, w: float, h: float, r: float) -> Steps:
    r = min(r, w / 2, h / 2)
    k, right, bottom = r * (1 - _KAPPA), x + w, y + h
    return [
        ("M", (x + r, y)),
        ("L", (right - r, y)),
        ("C", (right - k, y, right, y + k, right, y + r)),
        ("L", (right, bottom - r)),
        ("C", (right, bottom - k, right - k, bottom, right - r, bottom)),
        ("L", (x + r, bottom)),
        ("C", (x + k, bottom, x, bottom - k, x, bottom - r)),
        ("L", (x, y + r)),
        ("C", (x, y + k, x + k, y, x + r, y)),
        ("Z", ()),
    ]


@functools.lru_cache(maxsize=4096)
def _outline(path: str) -> _Outline:
    """Parse a path. Closed parts all wind the same way, so that overlapping parts form a union."""
    parts: list[tuple[list[int], list[tuple[float, float]]]] = []
    for name, v in art.commands(path):
        steps = _ellipse(*v) if name == "E" else _rectangle(*v) if name == "R" else [(name, v)]
        for step, numbers in steps:
            if step == "M":
                parts.append(([], []))
            commands, points = parts[-1]
            pairs = list(zip(numbers[::2], numbers[1::2], strict=True))
            if step == "Q":  # a quadratic curve as a cubic one
                (x0, y0), (cx, cy), (x, y) = points[-1], *pairs
                pairs = [
                    (x0 + (cx - x0) * 2 / 3, y0 + (cy - y0) * 2 / 3),
                    (x + (cx - x) * 2 / 3, y + (cy - y) * 2 / 3),
                    (x, y),
                ]
                step = "C"
            commands.append(_CMD[step])
            points.extend(pairs)
    all_commands: list[int] = []
    all_points: list[tuple[float, float]] = []
    for commands, points in parts:
        xy = np.array(points)
        following = np.roll(xy, -1, axis=0)
        area = float(np.sum(xy[:, 0] * following[:, 1] - following[:, 0] * xy[:, 1]))
        if commands[-1] == _CMD["Z"] and area < 0:
            points = points[::-1]
            commands = [_CMD["M"], *commands[-2:0:-1], _CMD["Z"]]
        all_commands += commands
        all_points += points
    hull = np.column_stack([np.array(all_points), np.ones(len(all_points))])
    return _Outline(tuple(all_commands), tuple(tvg.PointStruct(x, y) for x, y in all_points), hull)


_DIRECTIONS = np.stack([np.cos(np.arange(16) * np.pi / 8), np.sin(np.arange(16) * np.pi / 8)])


@functools.lru_cache(maxsize=4096)
def _hull(drawing: art.Drawing) -> tuple[np.ndarray, float]:
    """``(3, 16)`` outermost points of a drawing (homogeneous), and how far its lines reach beyond them."""
    points = np.concatenate([_outline(layer.path).hull for layer in drawing])
    outermost = points[np.argmax(points[:, :2] @ _DIRECTIONS, axis=0)]
    return outermost.T, max(layer.line / 2 + layer.edge for layer in drawing)


def _colour(fill: str, palette: Palette) -> tuple[int, int, int, int]:
    r, g, b = (round(float(value)) for value in (palette[fill] if fill in palette else art.rgb(fill)))
    return r, g, b, int(fill[7:9], 16) if len(fill) == 9 else 255


def _shape(engine: tvg.Engine, outline: _Outline, width: float, colour: tuple[int, int, int, int]) -> tvg.Shape:
    """An outline whose line has a width (none at 0) and a colour."""
    out = tvg.Shape(engine)
    out.append_path(outline.commands, outline.points)  # type: ignore[arg-type]
    if width:
        out.set_stroke_width(width)
        out.set_stroke_color(*colour)
        out.set_stroke_cap(tvg.StrokeCap.ROUND)
        out.set_stroke_join(tvg.StrokeJoin.ROUND)
    return out


def _shapes(engine: tvg.Engine, layer: art.Layer, palette: Palette, edges: bool) -> list[tvg.Shape]:
    layer = layer if edges else layer._replace(edge=0.0)
    outline, fill, ink = _outline(layer.path), _colour(layer.fill, palette), _colour("ink", palette)
    if layer.line:
        lines = [_shape(engine, outline, layer.line + 2 * layer.edge, ink)] if layer.edge else []
        return [*lines, _shape(engine, outline, layer.line, fill)]
    out = _shape(engine, outline, 2 * layer.edge, ink)
    # The fill covers the inner half of the stroke: the parts of one path share an outer edge and have no inner edge.
    out.set_paint_order(True)
    out.set_fill_color(*fill)
    return [out]


# ------------------------------------------------------------------------------------------------- matrices


def matrix(
    x: Channel = 0.0,
    y: Channel = 0.0,
    angle: Channel = 0.0,
    sx: Channel = 1.0,
    sy: Channel = 1.0,
    about: tuple[float, float] = (0.0, 0.0),
) -> np.ndarray:
    """``(n or 1, 3, 3)`` float64: scale and turn (degrees, clockwise) about a point, then shift."""
    out = np.zeros((max(map(np.size, (x, y, angle, sx, sy))), 3, 3))
    turn = np.deg2rad(angle)
    cos, sin = np.cos(turn), np.sin(turn)
    out[:, 0, 0], out[:, 0, 1], out[:, 1, 0], out[:, 1, 1] = cos * sx, -sin * sy, sin * sx, cos * sy
    px, py = about
    out[:, 0, 2] = x + px - out[:, 0, 0] * px - out[:, 0, 1] * py
    out[:, 1, 2] = y + py - out[:, 1, 0] * px - out[:, 1, 1] * py
    out[:, 2, 2] = 1
    return out


# --------------------------------------------------------------------------------------------------- figure


class Part(NamedTuple):
    """A drawing, and ``matrices`` ``(n or 1, 3, 3)`` from its own space to the figure's."""

    drawing: art.Drawing
    matrices: np.ndarray


@dataclass(frozen=True)
class Look:
    """Small variation of a figure: factors about 1, angles in degrees, ``place`` as a proportion of the free room."""

    width: float
    height: float
    head: float
    features: float
    arm: float
    hat_angle: float
    fill: float
    place: tuple[float, float]
    mirror: bool
    blush: bool
    edges: bool = True  # dark outlines


@functools.lru_cache(maxsize=512)
def _sided(drawing: art.Drawing) -> art.Drawing:
    return tuple(layer._replace(path=art.mirrored(layer.path)) for layer in drawing)


def figure(
    body: art.Body,
    expression: art.Expression,
    accessory: art.Extra | None,
    prop: art.Extra | None,
    pose: Pose,
    look: Look,
) -> list[Part]:
    """The parts of one sticker from back to front."""
    root = matrix(pose.x, pose.y, pose.angle, pose.sx, pose.sy, about=(0, pose.pivot))
    root = root @ matrix(sx=look.width, sy=look.height, about=(0, 44))
    head = root @ matrix(pose.head_x, pose.head_y, pose.head_angle, look.head, look.head, about=(0, body.pivot))
    face = head @ matrix(pose.face_x, pose.face_y)
    cx, cy = body.centre
    ex, ey = body.eyes
    size = body.features * look.features
    carriers = {"body": root, "air": matrix()}
    effects: dict[bool, list[Part]] = {True: [], False: []}
    for e in pose.effects:
        width = -np.asarray(e.sx) if e.text and look.mirror else e.sx  # letters stay readable
        effects[e.behind].append(Part(e.drawing, carriers[e.on] @ matrix(e.x, e.y, e.angle, width, e.sy)))
    parts = [
        *effects[True],
        Part(body.tail, root),
        Part(body.foot, root @ matrix(pose.foot_lx, pose.foot_ly)),
        Part(_sided(body.foot), root @ matrix(pose.foot_rx, pose.foot_ry)),
        Part(body.torso, root),
    ]
    scarf = []
    if accessory and accessory.place == "neck":
        scarf = [Part(accessory.on(body), root @ matrix(0, body.neck[0]))]
    parts += [*(scarf if body.torso else []), Part(body.head, head), *scarf, Part(body.face, face)]
    if look.blush and body.blush:
        cheeks = (art.flat(art.pair(f"E {ex + 8} {8 - ey} 4.5 3"), "#ff6b8b88"),)
        parts.append(Part(cheeks, face @ matrix(cx, cy)))
    right_eye = expression.right or _sided(expression.left)
    for side, eye in ((-1, expression.left), (1, right_eye)):
        parts.append(Part(eye, face @ matrix(cx + side * ex, cy - ey, 0, size, size * np.asarray(pose.eyes))))
    parts.append(Part(expression.mouth, face @ matrix(cx, cy + body.mouth, 0, size, size * np.asarray(pose.mouth))))
    if accessory and accessory.place != "neck":
        where = {
            "top": head @ matrix(*body.top, look.hat_angle, body.hat, body.hat),
            "sides": head @ matrix(0, body.sides[1]),
            "face": face @ matrix(cx, cy - ey),
        }[accessory.place]
        parts.append(Part(accessory.on(body), where))
    sx, sy = body.shoulder
    raised = -body.swing * np.asarray(pose.arm_r)
    parts.append(Part(body.arm, root @ matrix(sx, sy, body.swing * np.asarray(pose.arm_l), look.arm, look.arm)))
    parts.append(Part(_sided(body.arm), root @ matrix(-sx, sy, raised, look.arm, look.arm)))
    if prop:
        reach, angle = body.hand * look.arm, np.deg2rad(raised)
        hand = matrix(-sx + reach * np.cos(angle), sy + reach * np.sin(angle), 0, 1.15, 1.15)
        parts.append(Part(prop.on(body), root @ hand))
    return [part for part in (*parts, *effects[False]) if part.drawing]


def render(parts: Sequence[Part], pose: Pose, look: Look, palette: Palette, frames: int, size: int) -> np.ndarray:
    """Fit the whole motion into the canvas and draw it: ``(frames, size, size, 4)`` uint8, straight alpha."""
    matrices = np.stack([np.broadcast_to(part.matrices, (frames, 3, 3)) for part in parts])
    hulls, reaches = zip(*(_hull(part.drawing) for part in parts), strict=True)
    corners = matrices[:, :, :2] @ np.stack(hulls)[:, None]  # part frame xy corner
    # A stroke is scaled with what it edges; the sum of a row bounds how far it reaches along that axis.
    reach = np.abs(matrices[:, :, :2, :2]).sum(axis=-1) * np.array(reaches)[:, None, None]
    low, high = (corners.min(axis=-1) - reach).min(axis=(0, 1)), (corners.max(axis=-1) + reach).max(axis=(0, 1))
    scale = look.fill * size / float((high - low).max())
    room = size - (high - low) * scale
    offset = room * np.array(look.place) - low * scale
    fit = matrix(offset[0], offset[1], 0, scale, scale)
    if look.mirror:
        fit = matrix(sx=-1, about=(size / 2, 0)) @ fit
    top = offset[1] + low[1] * scale
    to_canvas = matrix(y=np.asarray(pose.drop) * (size - top)) @ fit

    transforms = (to_canvas @ matrices).astype(np.float32)
    rows = (tvg.Matrix * (len(parts) * frames)).from_buffer(transforms)

    engine = _engine()
    canvas = tvg.SwCanvas(engine)
    try:
        canvas.set_target(size, size)
        root = tvg.Scene(engine)
        scenes = []
        for part in parts:
            scene = tvg.Scene(engine)
            for layer in part.drawing:
                for shape in _shapes(engine, layer, palette, look.edges):
                    scene.add(shape)
            root.add(scene)
            scenes.append(scene)
        canvas.add(root)
        opacity = np.broadcast_to(np.rint(np.asarray(pose.opacity) * 255).astype(int), frames)
        fades = opacity.min() < 255  # a group that is not opaque costs a drawing of its own
        out = np.empty((frames, size, size, 4), np.uint8)
        assert canvas.buffer_arr is not None
        pixels = np.frombuffer(memoryview(canvas.buffer_arr), np.uint8).reshape(size, size, 4)
        for f in range(frames):
            for k, scene in enumerate(scenes):
                scene.set_transform(rows[k * frames + f])
            if fades:
                root.set_opacity(int(opacity[f]))
            canvas.update()
            canvas.draw(True)
            canvas.sync()
            out[f] = pixels
    finally:
        canvas.destroy()
    flat = out.reshape(-1, 4)
    soft = np.flatnonzero(flat[:, 3] + np.uint8(1) > 1)  # not 0, not 255; there both kinds of alpha agree
    flat[soft] = unpremultiply(flat[soft])
    return out


@functools.lru_cache(maxsize=1)
def _engine() -> tvg.Engine:
    return tvg.Engine(threads=0)
