"""Result pages and their charts. A page is one HTML file that requests nothing and runs no script but its own.

:func:`render_page` writes a page. Charts are :func:`line_chart` (lines over an axis), :func:`histogram` (how often
which value) and :func:`bar_list` (counts by name). Each returns a ``<figure>`` with inline SVG, or an empty text if
there is nothing to draw. All texts are escaped.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from rdtf.files import write_text

LINES = 7
"""A line chart has colours for this many lines."""

Points = Sequence[tuple[float, float]]

# ---------------------------------------------------------------------------------------------------------- pages


def render_page(path: Path, template: str, /, **values: Any) -> Path:
    """Write the page of the template ``TEMPLATE.html``, which extends ``base.html``; returns its path.

    The page's style sheet is ``base.css`` and ``TEMPLATE.css``, its script is ``TEMPLATE.js``; the last two may be
    absent. The page's policy names both by their hashes, so the browser takes no others.
    """
    environment = _environment()
    names = environment.list_templates()
    for kind, files in (("style", ("base.css", f"{template}.css")), ("script", (f"{template}.js",))):
        text = "".join(environment.get_template(file).render() for file in files if file in names)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        values |= {kind: Markup(text), f"{kind}_digest": digest if text else ""}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, environment.get_template(f"{template}.html").render(**values))
    return path


def data_address(data: bytes, kind: str = "webp") -> str:
    """A picture as an address that holds the picture itself, for the ``src`` of an ``img``."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def macros(template: str) -> Any:
    """The macros of a template, as functions that return HTML."""
    return _environment().get_template(template).module


@functools.cache
def _environment() -> Environment:
    loader, undefined = PackageLoader("rdtf"), StrictUndefined
    return Environment(loader=loader, undefined=undefined, autoescape=True, trim_blocks=True, lstrip_blocks=True)


# --------------------------------------------------------------------------------------------------------- charts

_WIDTH, _HEIGHT = 400, 220
_LEFT, _RIGHT, _TOP = 52, 12, 10
_TICKS = 5  # on an axis, about
_BARS, _LABELS = 32, 6  # of a histogram, about
_USUAL = 0.995  # of the values lie before a long tail


@dataclass(frozen=True)
class _Axis:
    """The values from ``low`` to ``high`` on a scale, with labelled ticks."""

    low: float
    high: float
    ticks: Sequence[float]
    scale: Callable[[float], float] = float

    def at(self, value: float) -> float:
        """Where a value lies: 0 at the low end, 1 at the high end."""
        low, high, value = map(self.scale, (self.low, self.high, value))
        return (value - low) / (high - low) if high > low else 0.0

    def x(self, value: float) -> float:
        return round(_LEFT + self.at(value) * (_WIDTH - _LEFT - _RIGHT), 1)

    def y(self, value: float, bottom: float) -> float:
        return round(bottom - self.at(value) * (bottom - _TOP), 1)


def line_chart(
    series: Mapping[str, Points],
    *,
    title: str,
    y_label: str,
    x_label: str = "step",
    log_y: bool = False,
    raw: Mapping[str, Points] | None = None,
    note: str = "",
) -> Markup:
    """Lines with a legend. A note counts the points that cannot be drawn: not finite, or not above 0 if ``log_y``.

    Args:
        series: points (x, y) of each line by its name, in the order of x.
        raw: further points by the same names, drawn thin behind their lines: the values before smoothing.
        log_y: logarithmic y axis. A linear y axis includes 0.

    Raises:
        ValueError: more than :data:`LINES` lines.
    """
    if len(series) > LINES:
        raise ValueError(f"chart {title!r}: {len(series)} lines, and there are colours for {LINES}")

    def drawable(points: Points) -> Points:
        return [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y) and (y > 0 or not log_y)]

    given = {name: (points, (raw or {}).get(name, ())) for name, points in series.items()}
    lines = {name: (drawable(line), drawable(behind)) for name, (line, behind) in given.items()}
    points = [point for pair in lines.values() for line in pair for point in line]
    left_out = sum(len(line) for pair in given.values() for line in pair) - len(points)
    if left_out:
        what = "not finite or not above 0" if log_y else "not finite"
        note = f"{note} {left_out:,} points are left out: {what}.".strip()
    if not points:
        return Markup("")
    xs, ys = [x for x, _ in points], [y for _, y in points]
    x_axis = _Axis(min(xs), max(xs), _linear_ticks(min(xs), max(xs)))
    y_axis = _log_axis(min(ys), max(ys)) if log_y else _linear_axis(min(0.0, *ys), max(ys))
    bottom = _HEIGHT - 40

    def path(line: Points) -> str:
        return " ".join(f"{x_axis.x(x)},{y_axis.y(y, bottom)}" for x, y in line)

    return _figure(
        title,
        y_axis,
        bottom,
        x_label=x_label,
        y_label=y_label,
        x_ticks=[(x_axis.x(x), _number(x)) for x in x_axis.ticks],
        lines=[{"name": name, "path": path(line), "raw": path(behind)} for name, (line, behind) in lines.items()],
        note=note,
    )


def histogram(
    values: np.ndarray,
    *,
    title: str,
    unit: str = "",
    whole: bool = False,
    note: str = "",
    marked: Sequence[tuple[float, str]] = (),
) -> Markup:
    """Bars of equal width that count every finite value once. The last bar may hold a long tail, and says so.

    The axis is logarithmic where most bars would be too small to see beside the largest bar.

    Args:
        values: none below 0.
        unit: text after the numbers, with its space.
        whole: the values are whole numbers, and each bar begins at one.
        marked: (value, class) in rising order: the class of the bars that begin there or beyond. ``base.css`` has
            colours for ``between`` and ``beyond``.
    """
    values = values[np.isfinite(values)]
    if not len(values):
        return Markup("")
    low, step, counts, tail = _bins(values, whole)
    highest, seen = max(counts), sorted(count for count in counts if count)
    logarithmic = highest > 20 * seen[len(seen) // 2]
    if logarithmic:
        powers = [10.0**power for power in range(math.floor(math.log10(highest)) + 1)]
        axis = _Axis(0, highest, powers, math.log1p)
    else:
        axis = _Axis(0, highest, [tick for tick in _linear_ticks(0, highest) if tick == int(tick)])
    room, bottom = (_WIDTH - _LEFT - _RIGHT) / len(counts), _HEIGHT - 24
    every = math.ceil(len(counts) / _LABELS)
    bars, x_ticks = [], []
    for number, count in enumerate(counts):
        start, x, last = low + number * step, _LEFT + number * room, tail and number == len(counts) - 1
        text = f"{_number(start)} to {_number(start + step - whole)}{unit}"
        if last:
            text = f"{_number(start)}{unit} and more, up to {_number(float(values.max()))}{unit}"
        elif whole and step == 1:
            text = f"{_number(start)}{unit}"
        kind = next((kind for value, kind in reversed(marked) if start >= value - 1e-9), "")
        y = axis.y(count, bottom)
        bars.append(
            {
                "x": round(x + min(1.0, 0.1 * room), 1),
                "y": y,
                "width": round(room - min(2.0, 0.2 * room), 1),
                "height": round(bottom - y, 1),
                "kind": "tail" if last else kind,
                "title": f"{text}: {count:,}",
            }
        )
        if last or (number % every == 0 and not (tail and number + every > len(counts))):
            x_ticks.append((round(x + room / 2, 1), f"{_number(start)}{'+' if last else ''}"))
    if tail:
        note = f"Last bar: {bars[-1]['title']}. {note}".strip()
    remark = f"median {np.median(values):,.3g}{unit}{'; logarithmic axis' if logarithmic else ''}"
    return _figure(title, axis, bottom, x_ticks=x_ticks, bars=bars, note=note, remark=remark)


def bar_list(counts: Sequence[tuple[str, int]], *, title: str, remark: str = "", more: int = 0) -> Markup:
    """Names with their counts, each with a bar in proportion to the largest count.

    Args:
        counts: in the order of the page. remark: what is counted. more: how many names are not shown.
    """
    if not counts:
        return Markup("")
    largest = max(count for _, count in counts) or 1
    rows = [(name, count, round(100 * count / largest, 1)) for name, count in counts]
    template = _environment().get_template("bar_list.html")
    return Markup(template.render(title=title, remark=remark, rows=rows, more=more))


def smooth(points: Points, keep: int) -> list[tuple[float, float]]:
    """Running means over a twentieth of the line, at about ``keep`` of its points."""
    if not points:
        return []
    x, y = np.array(points, dtype=float).T
    half = len(x) // 40
    sums = np.concatenate([[0.0], np.cumsum(y)])
    at = np.unique(np.linspace(0, len(x) - 1, min(keep, len(x))).round().astype(int))
    low, high = np.maximum(at - half, 0), np.minimum(at + half + 1, len(x))
    return list(zip(x[at].tolist(), ((sums[high] - sums[low]) / (high - low)).tolist(), strict=True))


def thin(points: Points, keep: int) -> list[tuple[float, float]]:
    """The lowest and the highest point of each stretch, at most ``keep`` points; so no outlier is lost."""
    if len(points) <= keep:
        return list(points)
    kept: set[int] = set()
    for part in np.array_split(np.arange(len(points)), keep // 2):
        heights = [points[i][1] for i in part]
        kept |= {int(part[np.argmin(heights)]), int(part[np.argmax(heights)])}
    return [points[i] for i in sorted(kept)]


def _figure(title: str, y_axis: _Axis, bottom: int, **values: Any) -> Markup:
    """The figure of ``chart.html``; what it does not get is not drawn."""
    values = {"x_label": "", "y_label": "", "lines": (), "bars": (), "remark": "", "note": ""} | values
    sides = {"width": _WIDTH, "height": _HEIGHT, "left": _LEFT, "right": _WIDTH - _RIGHT, "top": _TOP, "bottom": bottom}
    y_ticks = [(y_axis.y(tick, bottom), _number(tick)) for tick in y_axis.ticks]
    return Markup(_environment().get_template("chart.html").render(title=title, y_ticks=y_ticks, **sides, **values))


def _linear_ticks(low: float, high: float) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten inside the range, about five of them; at least one."""
    if high <= low:
        return [low]
    step = _nice((high - low) / _TICKS, (1, 2, 5, 10))
    first = math.ceil(low / step - 1e-9)
    return [step * i for i in range(first, math.floor(high / step + 1e-9) + 1)] or [low]


def _linear_axis(low: float, high: float) -> _Axis:
    ticks = _linear_ticks(low, high)
    return _Axis(min(low, ticks[0]), max(high, ticks[-1]), ticks)


def _log_axis(low: float, high: float) -> _Axis:
    """Ticks at 1, 2 and 5 times powers of ten, from the last one below the range to the first one above it."""
    powers = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
    ticks = [factor * 10.0**power for power in powers for factor in (1, 2, 5)]
    first = max(i for i, tick in enumerate(ticks) if tick <= low * 1.0001)
    last = next((i for i, tick in enumerate(ticks) if tick >= high * 0.9999), len(ticks) - 1)
    ticks = ticks[first : max(last, first + 1) + 1]
    shown = ticks[:: math.ceil(len(ticks) / 8)]
    return _Axis(min(low, ticks[0]), max(high, ticks[-1]), shown, math.log)


def _bins(values: np.ndarray, whole: bool) -> tuple[float, float, list[int], bool]:
    """Where the first bar begins, how wide each is, their counts, and whether the last one holds all beyond."""
    low, high = (float(np.floor(values.min())) if whole else 0.0), float(values.max())
    usual = float(np.quantile(values, _USUAL))
    few = whole and high - low < _BARS  # a bar for each value
    end = usual if high - low > 1.5 * (usual - low) and not few else high
    width = _nice((end - low) / _BARS or 1.0, (1, 2, 2.5, 5, 10))
    if whole:
        width = max(1.0, math.ceil(width))
    count = max(1, math.floor((end - low) / width + 1e-9) + 1)
    at = np.minimum(np.floor((values - low) / width + 1e-9).astype(int), count)
    counts = np.bincount(at, minlength=count + 1).tolist()
    tail = counts[count] > 0
    return low, width, counts if tail else counts[:count], tail


def _nice(width: float, factors: Sequence[float]) -> float:
    """The least of some factors times a power of ten that is no less."""
    power = 10.0 ** math.floor(math.log10(width))
    return next(factor * power for factor in factors if factor * power >= width * 0.9999)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
