from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from rdtf.page import Card, Section, line_plot, write_page


class Tags(HTMLParser):
    """All tags with their attributes; fails on tags that do not nest."""

    VOID = ("meta", "img", "br", "line", "polyline")

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
        assert self.open.pop() == tag


def page(tmp_path: Path, *sections: Section) -> str:
    return write_page(tmp_path / "sub" / "index.html", "A title", ["Hello."], sections).read_text(encoding="utf-8")


def test_texts_are_escaped(tmp_path: Path):
    nasty = '<script>alert("x")</script>'
    card = Card(nasty, sticker='a".webp', strip="b.png", badge=nasty, note=nasty, command=nasty)
    html = page(tmp_path, Section(nasty, [nasty], commands=[nasty], cards=[card]))
    assert "<script" not in html
    assert html.count("&lt;script&gt;alert(&#34;x&#34;)&lt;/script&gt;") >= 7
    tags = Tags(html).found
    assert {tag for tag, _ in tags}.isdisjoint({"script", "iframe", "object", "link"})
    assert [attributes["src"] for tag, attributes in tags if tag == "img"] == ['a".webp'] * 3 + ["b.png"]


def test_policy_lets_in_this_style_sheet_and_pictures_only(tmp_path: Path):
    html = page(tmp_path, Section("x", cards=[Card("y", sticker="z.webp")]))
    (policy,) = (a["content"] for tag, a in Tags(html).found if a.get("http-equiv") == "Content-Security-Policy")
    style = re.search("<style>(.*?)</style>", html, re.DOTALL)
    assert policy is not None
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert not any("style" in attributes for _, attributes in Tags(html).found)  # it would not be applied


def test_each_sticker_stands_on_three_grounds(tmp_path: Path):
    html = page(tmp_path, Section("x", cards=[Card("y", sticker="z.webp"), Card("no picture")]))
    classes = [attributes.get("class") for _, attributes in Tags(html).found]
    assert [name for name in classes if name and name.startswith("ground ")] == [
        "ground light",
        "ground dark",
        "ground checker",
    ]


def polylines(svg: str) -> list[list[tuple[float, float]]]:
    lines = re.findall('<polyline points="([^"]*)"', svg)
    return [[(float(x), float(y)) for x, y in (pair.split(",") for pair in line.split())] for line in lines]


def test_plot_places_points_to_scale():
    series = {"a": [(0, 0), (50, 1), (100, 2)], "b": [(0, 2), (100, 0)]}
    svg = line_plot(series, title="t", x_label="x", y_label="y")
    Tags(svg)
    (left, bottom), (middle, half), (right, top) = polylines(svg)[0]
    assert left < middle < right
    assert bottom > half > top
    assert middle == pytest.approx((left + right) / 2, abs=0.1)
    assert half == pytest.approx((bottom + top) / 2, abs=0.1)
    assert polylines(svg)[1] == [(left, top), (right, bottom)]


def test_plot_on_a_logarithmic_axis():
    svg = line_plot({"a": [(0, 0.1), (1, 1), (2, 10)]}, title="t", x_label="x", y_label="y", log_y=True)
    (_, low), (_, middle), (_, high) = polylines(svg)[0]
    assert low - middle == pytest.approx(middle - high, abs=0.1)
    assert {">0.1<", ">1<", ">10<"} <= set(re.findall(">[0-9.]+<", svg))


@pytest.mark.parametrize("log_y", [False, True])
@pytest.mark.parametrize("line", [[(3, 5)], [(0, 2), (1, 2)], [(1, 1e-6), (2, 1e6)]])
def test_plot_of_degenerate_lines_stays_inside(line: list[tuple[float, float]], log_y: bool):
    svg = line_plot({"a": line}, title="t", x_label="x", y_label="y", log_y=log_y)
    assert all(0 <= x <= 640 and 0 <= y <= 300 for x, y in polylines(svg)[0])


@pytest.mark.parametrize(
    ("series", "log_y"),
    [
        ({}, False),
        ({"a": []}, False),
        ({str(i): [(0, 1)] for i in range(8)}, False),
        ({"a": [(0, float("nan"))]}, False),
        ({"a": [(0, 0.0)]}, True),
    ],
)
def test_plot_refuses_what_it_cannot_draw(series: dict[str, list[tuple[float, float]]], log_y: bool):
    with pytest.raises(ValueError, match="plot"):
        line_plot(series, title="t", x_label="x", y_label="y", log_y=log_y)


def test_plot_escapes_names():
    svg = line_plot({"<a>": [(0, 1)]}, title="<t>", x_label="<x>", y_label="<y>")
    assert not re.search("<[atxy]>", svg)
