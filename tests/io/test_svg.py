"""SVG: what is drawn, and what is refused before anything is drawn."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rdtf.io.read import LEFT_OUT, read_sticker, read_sticker_bytes
from rdtf.sticker import StickerError

HEAD = '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="0 0 32 32">'
SQUARE = '<rect x="8" y="8" width="16" height="16" fill="#ff8000"/>'


def read(body: str, size: int | None = 32, head: str = HEAD) -> np.ndarray:
    return read_sticker_bytes(f"{head}{body}</svg>".encode(), "drawn.svg", size=size).frames


def dot(colour: tuple[int, int, int]) -> str:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), colour).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def test_shapes_are_drawn_at_the_wanted_size_on_nothing(tmp_path: Path):
    frames = read(SQUARE)
    assert frames.shape == (1, 32, 32, 4)
    assert frames[0, 16, 16].tolist() == [255, 128, 0, 255] and not frames[0, 2, 2].any()
    assert (frames[0, ..., 3] == 255).sum() == 256
    assert read(SQUARE, size=None).shape == (1, 512, 512, 4)
    (tmp_path / "square.svg").write_text(f'<?xml version="1.0"?>\n<!-- made -->\n{HEAD}{SQUARE}</svg>')
    assert np.array_equal(read_sticker(tmp_path / "square.svg", size=32).frames, frames)


def test_a_half_transparent_colour_is_straight():
    frames = read('<rect x="8" y="8" width="16" height="16" fill="#ff8000" fill-opacity="0.5"/>')
    assert np.abs(frames[0, 16, 16].astype(int) - [255, 128, 0, 128]).max() <= 2


def test_an_oblong_picture_is_centred():
    wide = HEAD.replace("0 0 32 32", "0 0 32 16")
    frames = read('<rect width="32" height="16" fill="#00f"/>', head=wide)
    assert np.flatnonzero(frames[0, :, 16, 3]).tolist() == list(range(8, 24))


@pytest.mark.parametrize("link", ["href", "xlink:href"])
def test_references_inside_the_file_are_followed(link: str):
    shape = '<defs><rect id="a" x="8" y="8" width="16" height="16" fill="#ff8000"/></defs>'
    assert np.array_equal(read(f'{shape}<use {link}="#a"/>'), read(SQUARE))
    image = read(f'<image {link}="{dot((0, 200, 0))}" x="8" y="8" width="16" height="16"/>')
    assert image[0, 16, 16].tolist() == [0, 200, 0, 255]


def test_a_document_type_is_no_harm():
    frames = read_sticker_bytes(
        f'<!DOCTYPE svg PUBLIC "-//W3C//DTD SVG 1.1//EN" "http://x/svg11.dtd">{HEAD}{SQUARE}</svg>'.encode(),
        "old.svg",
        size=32,
    ).frames
    assert np.array_equal(frames, read(SQUARE))


def style(rules: str, what: str = 'class="a b" id="c"') -> str:
    return f'<style>{rules}</style><g><rect {what} x="8" y="8" width="16" height="16"/></g>'


WHOLE = '<rect width="32" height="32" fill="#ff8000"/>'
DRAWN = {
    **{f"rule {rule}": style(f"{rule}{{fill:#ff8000}}") for rule in (".a", ".x,.b", "#c", "rect", "g rect", "g>.a")},
    "stops by class": style(".s{stop-color:#ff8000}", 'fill="url(#l)"')
    + '<linearGradient id="l"><stop class="s"/><stop class="s" offset="1"/></linearGradient>',
    "rgba()": SQUARE.replace("#ff8000", "rgba(255,128,0,1)"),
    "eight digits": SQUARE.replace("#ff8000", "#ff8000ff"),
    "inherit": f'<g fill="#ff8000">{SQUARE.replace("#ff8000", "inherit")}</g>',
    "transparent": SQUARE + WHOLE.replace("#ff8000", "transparent"),
    "hidden": SQUARE + WHOLE.replace("fill", 'visibility="hidden" fill'),
    "pattern": f'<pattern id="p" width="4" height="4" patternUnits="userSpaceOnUse">{WHOLE}</pattern>'
    + SQUARE.replace("#ff8000", "url(#p)"),
    "marker": f'<marker id="m" markerWidth="16" markerHeight="16" markerUnits="userSpaceOnUse">{WHOLE}</marker>'
    '<path d="M8 8h.001" marker-start="url(#m)"/>',
    "clip rule": '<clipPath id="k"><path clip-rule="evenodd" d="M0 0H32V32H0z M8 8H24V24H8z"/></clipPath>'
    f'{SQUARE}<g clip-path="url(#k)"><rect x="8" y="8" width="16" height="16"/></g>',
    "mask by alpha": f'<mask id="k" mask-type="alpha">{SQUARE}</mask>' + WHOLE.replace("fill", 'mask="url(#k)" fill'),
    "flood": '<filter id="f" x="0" y="0" width="1" height="1"><feFlood flood-color="#ff8000"/></filter>'
    + SQUARE.replace("fill", 'filter="url(#f)" fill'),
    "nested": f'<svg x="8" y="8" width="16" height="16" viewBox="0 0 32 32">{WHOLE}</svg>',
    "origin": SQUARE.replace("fill", 'transform="rotate(180)" transform-origin="16 16" fill'),
    "units": '<rect x="6pt" y="6pt" width="12pt" height="1pc" fill="#ff8000"/>',
}


@pytest.mark.parametrize("name", DRAWN)
def test_features_that_browsers_draw(name: str):
    """Each is the same square."""
    assert np.abs(read(DRAWN[name]).astype(int) - read(SQUARE)).max() <= 2


def test_features_that_are_told():
    for body in (
        style(":root{--c:red} .a{fill:var(--c)}"),
        style("@media all{.a{fill:red}}"),
        style(".a{transform:scale(2)}"),
        SQUARE.replace("fill", 'vector-effect="non-scaling-stroke" fill'),
        f"{SQUARE}<text>words</text>",
    ):
        assert read_sticker_bytes(f"{HEAD}{body}</svg>".encode(), "a.svg").attributes[LEFT_OUT]
    assert LEFT_OUT not in read_sticker_bytes(f"{HEAD}{SQUARE}</svg>".encode(), "a.svg").attributes


def test_the_size_of_a_picture():
    """Width and height, else those of the view box, else a browser's 300 x 150; percent of nothing are nothing."""
    for size, aspect in (
        ('width="20" height="10"', 2), ('width="1in" height="96"', 1), ('viewBox="5,5 40 10"', 4), ("", 2),
        ('width="30" viewBox="0 0 10 20"', 0.5), ('width="100%" height="100%" viewBox="0 0 30 10"', 3),
    ):  # fmt: skip
        frames = read(WHOLE, size=None, head=HEAD.replace('viewBox="0 0 32 32"', size))
        assert frames.shape[2] / frames.shape[1] == pytest.approx(aspect, rel=0.01), size
    with pytest.raises(StickerError, match="cannot be drawn"):
        read(WHOLE, head=HEAD.replace("viewBox", 'width="-4" height="1" viewBox'))


def nested(depth: int) -> str:
    return "<g>" * depth + SQUARE + "</g>" * depth


def unfolding(levels: int) -> str:
    groups = [f'<g id="g{i}">' + f'<use href="#g{i - 1}"/>' * 10 + "</g>" for i in range(1, levels)]
    return f'<g id="g0">{SQUARE}</g>' + "".join(groups)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ('<image href="http://example.org/a.png" width="9" height="9"/>', "lies outside the file"),
        ('<image xlink:href="file:///etc/passwd" width="9" height="9"/>', "lies outside the file"),
        ('<use href="other.svg#a"/>', "lies outside the file"),
        ('<rect width="9" height="9" fill="url(http://example.org/a.svg#g)"/>', "lies outside the file"),
        (f'<style>@import "http://example.org/a.css";</style>{SQUARE}', "outside the file"),
        (f'<style>rect {{ fill: url("http://example.org/a.svg") }}</style>{SQUARE}', "outside the file"),
        (f"<script>alert(1)</script>{SQUARE}", "has a script"),
        ('<rect width="9" height="9"><animate attributeName="x" to="9" dur="1s"/></rect>', "moves by <animate>"),
        (nested(70), "nested more than 64 deep"),
        (unfolding(8), "unfolds to more than"),
        ('<g id="a"><use href="#b"/></g><g id="b"><use href="#a"/></g>', "contains itself"),
        ("<text>words</text>", "draws nothing (text is not drawn)"),
        ("", "draws nothing"),
        ("<rect", "is no valid XML"),
    ],
)
def test_what_is_refused(body: str, told: str):
    with pytest.raises(StickerError) as error:
        read(body)
    assert told in str(error.value)


def test_entities_and_other_xml_are_refused():
    bomb = b'<?xml version="1.0"?><!DOCTYPE svg [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><svg>&b;</svg>'
    with pytest.raises(StickerError, match="declares entities"):
        read_sticker_bytes(bomb, "bomb.svg")
    with pytest.raises(StickerError, match="no SVG picture .it begins with <plist>"):
        read_sticker_bytes(b'<?xml version="1.0"?><plist/>', "list.svg")
    with pytest.raises(StickerError, match="MiB is too large"):
        read_sticker_bytes(b"<svg>" + b" " * (17 << 20) + b"</svg>", "long.svg")


def test_real_pictures_are_read(real_stickers: Path):
    import zipfile

    with zipfile.ZipFile(real_stickers / "stills" / "twemoji.zip") as archive:
        names = [name for name in archive.namelist() if name.endswith(".svg")][::300]
        for name in names:
            alpha = read_sticker_bytes(archive.read(name), name, size=64).frames[0, ..., 3]
            assert 0.1 < (alpha == 255).mean() < 1
