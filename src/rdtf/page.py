"""Self-contained result pages: one HTML file, which runs and loads nothing that it was not written with."""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

# Seven colours that stay apart for colour-blind eyes (Okabe and Ito), without yellow, which drowns on white.
_LINE_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#333333")
_WIDTH, _HEIGHT = 640, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 12, 12, 46
_TICKS = 5


@dataclass(frozen=True)
class Card:
    """One result.

    Attributes:
        title: what was asked for; badge: a word or two beside it; note: a sentence below.
        sticker: path of an animated picture, shown on light, dark and checkered ground; empty = none.
        strip: path of a picture shown over the card's width (its frames side by side); empty = none.
        command: the command line that makes the same.

    Paths are relative to the page.
    """

    title: str
    sticker: str = ""
    strip: str = ""
    badge: str = ""
    note: str = ""
    command: str = ""


@dataclass(frozen=True)
class Section:
    """A part of the page: heading, paragraphs, plots of :func:`line_plot`, commands, cards."""

    title: str
    text: Sequence[str] = ()
    plots: Sequence[Markup] = ()
    commands: Sequence[str] = ()
    cards: Sequence[Card] = ()
    wide: bool = False  # one card a row, for those with long strips


def write_page(path: Path, title: str, introduction: Sequence[str], sections: Sequence[Section]) -> Path:
    """Write the page; every text is escaped, and the browser is told to run and load nothing but the pictures."""
    return render_page(path, "page", title=title, introduction=introduction, sections=sections)


def render_page(path: Path, template: str, /, **values: Any) -> Path:
    """Write a page from the templates ``TEMPLATE.html``, ``.css`` and, if there is one, ``.js``; every text is escaped.

    The page's policy (in ``head.html``) names style sheet and script by their hashes, so that no others are taken.
    """
    environment = Environment(
        loader=PackageLoader("rdtf"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    there = environment.list_templates()
    for name, file in (("style", f"{template}.css"), ("script", f"{template}.js")):
        text = environment.get_template(file).render() if file in there else ""
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        values |= {name: Markup(text), f"{name}_digest": digest if text else ""}
    html = environment.get_template(f"{template}.html").render(**values)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(html, encoding="utf-8")
    return path


def webp_address(data: bytes) -> str:
    """A WebP picture as an address that holds it, for the ``src`` of a page that stands alone."""
    return f"data:image/webp;base64,{base64.b64encode(data).decode()}"


def line_plot(
    series: Mapping[str, Sequence[tuple[float, float]]],
    *,
    title: str,
    x_label: str,
    y_label: str,
    log_y: bool = False,
    raw: Mapping[str, Sequence[tuple[float, float]]] | None = None,
) -> Markup:
    """A line plot as inline SVG with its legend, at most seven lines.

    Args:
        series: points (x, y) of each line, in the order of x, by the line's name.
        raw: points behind a line of the same name, drawn thin in its colour; a line drawn smoothed shows by them what
            it was made of.
        log_y: logarithmic y axis; the values must be above 0. Otherwise the axis starts at 0 or below.

    Raises:
        ValueError: no points at all, more lines than colours, a value that is not finite, or one that the logarithm
            does not take.
    """
    raw = {name: raw[name] for name in series if name in raw} if raw else {}
    points = [point for line in (*series.values(), *raw.values()) for point in line]
    if not points or len(series) > len(_LINE_COLOURS):
        raise ValueError(f"a plot needs points, in 1 to {len(_LINE_COLOURS)} lines; got {len(series)} lines")
    if not all(math.isfinite(value) for point in points for value in point) or (log_y and min(points, key=_y)[1] <= 0):
        raise ValueError(f"plot {title!r}: every value must be finite, and above 0 on a logarithmic axis")
    x_low, x_high = min(x for x, _ in points), max(x for x, _ in points)
    y_low, y_high = min(y for _, y in points), max(y for _, y in points)
    y_ticks = _log_ticks(y_low, y_high) if log_y else _ticks(min(0.0, y_low), y_high)
    y_low, y_high = min(y_low, y_ticks[0]), max(y_high, y_ticks[-1])
    if not log_y:
        y_low = min(0.0, y_low)

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - x_low) / ((x_high - x_low) or 1)
        low, high, at = (math.log(v) for v in (y_low, y_high, y)) if log_y else (y_low, y_high, y)
        up = (at - low) / ((high - low) or 1)
        return _LEFT + across * (_WIDTH - _LEFT - _RIGHT), _HEIGHT - _BOTTOM - up * (_HEIGHT - _TOP - _BOTTOM)

    lines = []
    for (name, line), colour in zip(series.items(), _LINE_COLOURS, strict=False):
        path, behind = (
            " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in part))
            for part in (line, raw.get(name, ()))
        )
        lines.append({"name": name, "colour": colour, "path": path, "raw": behind})
    environment = Environment(loader=PackageLoader("rdtf"), autoescape=True, undefined=StrictUndefined)
    return Markup(
        environment.get_template("plot.svg.html").render(
            title=title,
            x_label=x_label,
            y_label=y_label,
            lines=lines,
            x_ticks=[(place(x, y_low)[0], _number(x)) for x in _ticks(x_low, x_high)],
            y_ticks=[(place(x_low, y)[1], _number(y)) for y in y_ticks],
            width=_WIDTH,
            height=_HEIGHT,
            left=_LEFT,
            right=_WIDTH - _RIGHT,
            top=_TOP,
            bottom=_HEIGHT - _BOTTOM,
        )
    )


def smooth(points: Sequence[tuple[float, float]], keep: int) -> list[tuple[float, float]]:
    """Running means over a twentieth of the line, thinned out to about ``keep`` points."""
    x, y = np.array(points, dtype=float).T
    half = len(x) // 40
    sums = np.concatenate([[0.0], np.cumsum(y)])
    at = np.unique(np.linspace(0, len(x) - 1, min(keep, len(x))).round().astype(int))
    low, high = np.maximum(at - half, 0), np.minimum(at + half + 1, len(x))
    means = (sums[high] - sums[low]) / (high - low)
    return [(float(a), float(b)) for a, b in zip(x[at], means, strict=True)]


def _y(point: tuple[float, float]) -> float:
    return point[1]


def _ticks(low: float, high: float) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten inside the range, about five of them; at least one."""
    if high <= low:
        return [low]
    rough = (high - low) / _TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [step * i for i in range(first, math.floor(high / step + 1e-9) + 1)] or [low]


def _log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten, from the last one below the range to the first one above it."""
    powers = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
    ticks = [factor * 10.0**power for power in powers for factor in (1, 2, 5)]
    first = max(i for i, tick in enumerate(ticks) if tick <= low * 1.0001)
    last = next((i for i, tick in enumerate(ticks) if tick >= high * 0.9999), len(ticks) - 1)
    return ticks[first : max(last, first + 1) + 1]


def _number(value: float) -> str:
    return f"{round(value):,}".replace(",", "\u202f") if abs(value) >= 1000 else f"{value:.4g}"
