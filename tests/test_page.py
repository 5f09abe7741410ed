from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from rdtf.page import LINES, bar_list, data_address, histogram, line_chart, render_page, smooth, thin

STICKER, STRIP = data_address(b"webp"), data_address(b"png", "png")


class Tags(HTMLParser):
    """All tags with their attributes; fails on tags that do not nest."""

    VOID = ("meta", "img", "br", "line", "polyline", "rect")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def values(self, tag: str, *names: str) -> list[list[float]]:
        return [[float(a[name] or "nan") for name in names] for found, a in self.found if found == tag]


def page(tmp_path: Path, title: str, **card: str) -> str:
    """The demo's page with one card."""
    cards = [{"title": title, "sticker": STICKER, "badge": title, "command": title, "strip": "", **card}]
    values = {"settings": {"stickers": title, "size": title}, "steps": title, "minutes": 1.0, "commands": [title]}
    path = tmp_path / "sub" / "index.html"
    render_page(path, "demo", shipped=[], from_text=[], from_frames=cards, **values)
    return path.read_text(encoding="utf-8")


def test_texts_are_escaped(tmp_path: Path):
    nasty = '<script>alert("x")</script>'
    labels = {"title": nasty, "note": nasty}
    charts = [
        line_chart({nasty: [(0, 1)]}, x_label=nasty, y_label=nasty, **labels),
        histogram(np.ones(3), unit=nasty, **labels),
        bar_list([(nasty, 1)], title=nasty, remark=nasty),
    ]
    html = page(tmp_path, nasty, strip=STRIP) + "".join(charts)
    assert "<script" not in html
    assert html.count("&lt;script&gt;alert(&#34;x&#34;)&lt;/script&gt;") >= 18
    tags = Tags(html).found
    assert {tag for tag, _ in tags}.isdisjoint({"script", "iframe", "object", "link"})
    assert [attributes["src"] for tag, attributes in tags if tag == "img"] == [STICKER] * 3 + [STRIP]


def test_policy_lets_in_this_style_sheet_and_embedded_pictures_only(tmp_path: Path):
    html = page(tmp_path, "x")
    (policy,) = (a["content"] for tag, a in Tags(html).found if a.get("http-equiv") == "Content-Security-Policy")
    style = re.search("<style>(.*?)</style>", html, re.DOTALL)
    assert policy is not None and style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in policy
    assert "default-src 'none'; img-src data:;" in policy and "unsafe" not in policy and "script-src" not in policy
    assert not any("style" in attributes for _, attributes in Tags(html).found)  # it would not be applied
    grounds = [a["class"] for _, a in Tags(html).found if (a.get("class") or "").startswith("ground ")]
    assert grounds == ["ground light", "ground dark", "ground checkered"]


def polylines(svg: str) -> list[list[tuple[float, float]]]:
    lines = re.findall('<polyline[^>]* points="([^"]*)"', svg)
    return [[(float(x), float(y)) for x, y in (pair.split(",") for pair in line.split())] for line in lines]


def chart(points: list[tuple[float, float]], **options: bool) -> str:
    return line_chart({"a": points}, title="t", y_label="y", **options)  # type: ignore[arg-type]


def test_lines_are_drawn_to_scale():
    svg = line_chart({"a": [(0, 0), (50, 1), (100, 2)], "b": [(0, 2), (100, 0)]}, title="t", y_label="y")
    Tags(svg)
    a, b = polylines(svg)[2:]  # behind them the raw values, of which there are none
    assert a[1] == pytest.approx(((a[0][0] + a[2][0]) / 2, (a[0][1] + a[2][1]) / 2), abs=0.1)
    assert a[0][0] < a[2][0] and a[0][1] > a[2][1]
    assert b == [(a[0][0], a[2][1]), (a[2][0], a[0][1])]
    (_, (_, low), (_, middle), (_, high)) = [(0, 0), *polylines(chart([(0, 0.1), (1, 1), (2, 10)], log_y=True))[1]]
    assert low - middle == pytest.approx(middle - high, abs=0.1)


@pytest.mark.parametrize("log_y", [False, True])
@pytest.mark.parametrize("line", [[(3, 5)], [(0, 2), (1, 2)], [(1, 1e-6), (2, 1e6)]])
def test_degenerate_lines_stay_inside(line: list[tuple[float, float]], log_y: bool):
    svg = chart(line, log_y=log_y)
    assert all(0 <= x <= 400 and 0 <= y <= 220 for x, y in polylines(svg)[1])
    assert 1 <= svg.count('class="grid-line"') <= 9


def test_what_cannot_be_drawn_is_counted():
    svg = chart([(0, 1.0), (1, float("nan")), (2, 0.0), (3, 2.0)], log_y=True)
    assert len(polylines(svg)[1]) == 2
    assert "2 points are left out: not finite or not above 0." in svg
    assert chart([]) == chart([(0, float("inf"))]) == histogram(np.array([np.nan]), title="t") == ""
    assert bar_list([], title="t") == ""
    with pytest.raises(ValueError, match="8 lines"):
        line_chart({str(i): [(0, 1)] for i in range(LINES + 1)}, title="t", y_label="y")


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("shape", ["one", "few", "many", "tail"])
def test_a_histogram_counts_everything_once(whole: bool, shape: str):
    rng = np.random.default_rng(0)
    values = {
        "one": np.array([7.0]),
        "few": rng.integers(1, 6, 500).astype(float),
        "many": rng.integers(0, 3000, 500) / (1 if whole else 7),
        "tail": np.append(rng.integers(1, 40, 5000), [900.0, 1000.0]),
    }[shape]
    svg = histogram(np.append(values, [np.nan, np.inf]), title="t", unit=" s", whole=whole)
    titles = [title.replace(",", "") for title in re.findall("<title>(.*?)</title>", svg)]
    counts = [int(title.rpartition(": ")[2]) for title in titles]
    starts = [float(title.split()[0].rstrip(":")) for title in titles]
    np.testing.assert_array_equal(np.histogram(values, [*starts, np.inf])[0], counts)
    assert sum(counts) == len(values) and 1 <= len(counts) <= 35
    assert ("and more, up to 1,000 s" in svg) == (shape == "tail")
    assert f"median {np.median(values):,.3g} s" in svg
    for x, y, width, height in Tags(svg).values("rect", "x", "y", "width", "height"):
        assert 52 <= x < x + width <= 388 and 10 <= y <= y + height <= 196.1


def test_heights_follow_the_counts_or_their_logarithms():
    plain = histogram(np.array([1, 1, 2, 2, 3]), title="t", whole=True)
    assert [height for (height,) in Tags(plain).values("rect", "height")] == [186, 186, 93]
    steep = histogram(np.array([1] * 5000 + [3] * 4 + [5]), title="t", whole=True)
    heights = [height for (height,) in Tags(steep).values("rect", "height")]
    assert "logarithmic axis" in steep and "logarithmic axis" not in plain
    assert heights[4] == pytest.approx(186 * np.log(2) / np.log(5001), abs=0.1) and heights[1] == 0


def test_marked_bars_have_their_class():
    svg = histogram(np.arange(6.0), title="t", whole=True, marked=((2, "between"), (4, "beyond")))
    kinds = [(a["class"] or "").split()[1:] for tag, a in Tags(svg).found if tag == "rect"]
    assert kinds == [[], [], ["between"], ["between"], ["beyond"], ["beyond"]]


def test_bars_by_name_are_in_proportion():
    tags = Tags(bar_list([("a", 200), ("b", 50)], title="t", more=3))
    assert tags.values("rect", "width") == [[100], [25]]
    assert "and 3 more" in bar_list([("a", 1)], title="t", more=3)


def test_smooth_is_the_mean_around_a_point_and_keeps_the_ends():
    flat = smooth([(i, 3.0) for i in range(1000)], 50)
    assert len(flat) == 50 and (flat[0][0], flat[-1][0]) == (0, 999)
    assert {y for _, y in flat} == {3.0}
    zigzag = smooth([(i, float(i % 2)) for i in range(400)], 400)
    assert all(abs(y - 0.5) < 0.1 for _, y in zigzag[20:-20])
    assert smooth([(7, 2.0)], 50) == [(7.0, 2.0)] and smooth([], 50) == []


def test_thinned_lines_keep_their_extremes():
    points = [(float(i), 1.0) for i in range(10_000)]
    points[777], points[5003] = (777.0, 9.0), (5003.0, -4.0)
    kept = thin(points, 300)
    assert len(kept) <= 300 and kept == sorted(kept)
    assert (777.0, 9.0) in kept and (5003.0, -4.0) in kept
