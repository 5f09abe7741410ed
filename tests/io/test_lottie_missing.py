"""What of a Lottie file is drawn, what is told to be missing, and that a file is drawn the same each time."""

from __future__ import annotations

import base64
import io
import itertools
import json
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFont

from rdtf.io.read import LEFT_OUT, read_sticker_bytes
from rdtf.sticker import Sticker, StickerError

SIZE = 100
PLACE = {"a": {"k": [0, 0]}, "s": {"k": [100, 100]}, "r": {"k": 0}, "o": {"k": 100}}


def layer(kind: int, at: tuple[int, int], **more: Any) -> dict[str, Any]:
    return {"ty": kind, "ks": {**PLACE, "p": {"k": [*at, 0]}}, "ip": 0, "op": 6, "st": 0, **more}


def box(colour: list[int], size: int) -> list[dict[str, Any]]:
    shape = {"ty": "rc", "p": {"k": [0, 0]}, "s": {"k": [size, size]}, "r": {"k": 0}}
    fill = {"ty": "fl", "c": {"k": [*colour, 1]}, "o": {"k": 100}}
    return [{"ty": "gr", "it": [shape, fill, {"ty": "tr", "p": {"k": [0, 0]}, **PLACE}]}]


def words(text: str) -> dict[str, Any]:
    document = {"s": 40, "f": "Sans", "t": text, "j": 0, "tr": 0, "lh": 40, "ls": 0, "fc": [0, 0, 1]}
    more = {"p": {}, "m": {"g": 1, "a": {"k": [0, 0]}}, "a": []}
    return layer(5, (10, 60), t={"d": {"k": [{"s": document, "t": 0}]}, **more})


def glyph(letter: str) -> dict[str, Any]:
    corners = [[5, 0], [40, 0], [40, -70], [5, -70]]
    nothing = [[0, 0]] * 4
    path = {"ty": "sh", "ks": {"k": {"i": nothing, "o": nothing, "v": corners, "c": True}}}
    data = {"shapes": [{"ty": "gr", "it": [path, {"ty": "tr", "p": {"k": [0, 0]}, **PLACE}]}]}
    return {"ch": letter, "size": 40, "style": "Regular", "w": 50, "fFamily": "Family", "data": data}


def lottie(*layers: dict[str, Any], **more: Any) -> dict[str, Any]:
    fonts = {"list": [{"fName": "Sans", "fFamily": "Family", "fStyle": "Regular", "ascent": 72}]}
    frame = {"v": "5.9.0", "w": SIZE, "h": SIZE, "fr": 10, "ip": 0, "op": 6}
    return {**frame, "assets": [], "layers": list(layers), "fonts": fonts, **more}


def drawn(root: dict[str, Any]) -> Sticker:
    return read_sticker_bytes(json.dumps(root).encode(), "words.json")


def colours(sticker: Sticker) -> set[str]:
    solid = sticker.frames[sticker.frames[..., 3] > 200][:, :3] > 128
    return {"".join(n for n, on in zip("rgb", pixel, strict=True) if on) for pixel in np.unique(solid, axis=0)}


def test_text_of_glyphs_is_drawn_and_what_is_missing_is_told():
    disc = layer(4, (80, 80), shapes=box([0, 1, 0], 20))
    whole = drawn(lottie(words("H I"), disc, chars=[glyph("H"), glyph("I")]))
    assert colours(whole) == {"b", "g"} and LEFT_OUT not in whole.attributes
    for root, letters in (
        (lottie(words("HX H"), disc, chars=[glyph("H")]), "X"),
        (lottie(words("HI"), disc), "HI"),
        (lottie(words("HI"), disc, chars=[glyph("H"), glyph("I")], fonts={"list": []}), "HI"),
    ):
        part = drawn(root)
        assert "g" in colours(part)
        assert part.attributes[LEFT_OUT] == [
            f"text in a font that the file does not hold ({letters!r}); convert it to shapes"
        ]
    hidden = drawn(lottie({**words("HI"), "hd": True}, disc))
    assert LEFT_OUT not in hidden.attributes
    inside = {"id": "c", "layers": [words("HI"), disc]}
    nested = drawn(lottie(layer(0, (0, 0), refId="c", w=SIZE, h=SIZE), assets=[inside]))
    assert "'HI'" in nested.attributes[LEFT_OUT][0]


def test_a_file_that_is_nothing_but_text_that_is_missing_is_refused():
    with pytest.raises(StickerError, match="draws nothing: it has text in a font that the file does not hold .'HI'"):
        drawn(lottie(words("HI")))


def test_a_font_of_one_file_is_no_font_of_the_next():
    """The renderer keeps embedded fonts by name when their file is closed, and reads freed memory for the next one."""
    font = base64.b64encode(ImageFont.load_default(20).font_bytes).decode()
    named = {"fName": "Sans", "fFamily": "Family", "fStyle": "Regular", "ascent": 72}
    embedded = lottie(words("HI"), fonts={"list": [{**named, "origin": 3, "fPath": f"data:font/ttf;base64,{font}"}]})
    first = drawn(embedded)
    assert colours(first) == {"b"} and LEFT_OUT not in first.attributes
    for _ in range(3):
        with pytest.raises(StickerError, match="draws nothing"):
            drawn(lottie(words("HI")))
        assert np.array_equal(drawn(embedded).frames, first.frames)


def moving(expression: str) -> dict[str, Any]:
    square = layer(4, (50, 50), shapes=box([1, 0, 0], 20))
    square["ks"]["p"]["x"] = f"var $bm_rt;\n$bm_rt = {expression};"
    return lottie(square)


def middles(sticker: Sticker) -> list[float]:
    return [float(np.flatnonzero(frame[..., 3].any(0)).mean()) for frame in sticker.frames]


def test_expressions_are_run():
    made = drawn(moving("[20 + time * 100, 50]"))
    assert middles(made) == pytest.approx([19.5 + 10 * n for n in range(6)], abs=0.6)
    assert LEFT_OUT not in made.attributes


@pytest.mark.parametrize(
    "expression", ["this is (no code", "thisComp.layer('none').transform.position", "[Math.random() * 90, 50]"]
)
def test_an_expression_without_effect_is_told_and_random_ones_are_taken_out(expression: str):
    first, again = drawn(moving(expression)), drawn(moving(expression))
    assert np.array_equal(first.frames, again.frames)
    assert middles(first) == [49.5] * 6
    assert first.attributes[LEFT_OUT] == ["expressions that cannot be drawn; bake them into key frames"]


RECTANGLE = {"ty": "rc", "p": {"k": [0, 0]}, "s": {"k": [60, 60]}, "r": {"k": 0}}
ELLIPSE = {"ty": "el", "p": {"k": [20, 20]}, "s": {"k": [50, 50]}}
FILL = {"ty": "fl", "c": {"k": [1, 0, 0, 1]}, "o": {"k": 100}}
NOTHING = [[0, 0]] * 3
MASK = {
    **{"mode": "a", "inv": False, "o": {"k": 100}, "x": {"k": 0}},
    "pt": {"k": {"i": NOTHING, "o": NOTHING, "v": [[-30, -30], [30, -30], [0, 30]], "c": True}},
}
SHADOW = {
    **{"ty": 1, "c": {"k": [0, 0, 0, 1]}, "o": {"k": 75}},
    **{"a": {"k": 120}, "d": {"k": 10}, "s": {"k": 5}},
}


def square(*shapes: dict[str, Any], **more: Any) -> dict[str, Any]:
    group = {"ty": "gr", "it": [RECTANGLE, *shapes, FILL, {"ty": "tr", "p": {"k": [0, 0]}, **PLACE}]}
    return {**layer(4, (50, 50)), "shapes": [group], **more}


def tilted(angle: float) -> dict[str, Any]:
    return square(ddd=1, ks={**PLACE, "p": {"k": [50, 50, 0]}, "rx": {"k": 0}, "ry": {"k": angle}, "rz": {"k": 0}})


@pytest.mark.parametrize(
    ("with_it", "without", "name"),
    [
        (square(ELLIPSE, {"ty": "mm", "mm": 3}), square(ELLIPSE, {"ty": "mm", "mm": 1}), "merged paths"),
        (square({"ty": "zz", "s": {"k": 10}, "r": {"k": 5}, "pt": {"k": 1}}), square(), "zig-zag paths"),
        (square({"ty": "tw", "a": {"k": 90}, "c": {"k": [0, 0]}}), square(), "twisted paths"),
        (square(sy=[SHADOW]), square(sy=[{**SHADOW, "hd": True}]), "layer styles"),
        (tilted(60), tilted(0), "rotation in depth and cameras"),
        (
            square(hasMask=True, masksProperties=[{**MASK, "f": {"k": [10, 10]}}]),
            square(hasMask=True, masksProperties=[{**MASK, "f": {"k": [0, 0]}}]),
            "feathered masks",
        ),
        (square(bm=17), square(bm=0), "hard mix"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_features_that_the_renderer_passes_over_are_told(with_it: dict, without: dict, name: str):
    """Where a renderer draws one of them, this test says so: the pictures are no longer equal."""
    missing, plain = drawn(lottie(with_it)), drawn(lottie(without))
    assert np.array_equal(missing.frames, plain.frames)
    assert missing.attributes[LEFT_OUT] == [name] and LEFT_OUT not in plain.attributes
    assert LEFT_OUT not in drawn(lottie({**with_it, "hd": True}, square())).attributes


def masked(*masks: tuple[str, int, int, bool]) -> dict[str, Any]:
    """Masks by mode, left and right edge, and whether they are inverted."""
    properties = []
    for mode, left, right, inverted in masks:
        corners = [[left, -50], [right, -50], [right, 50], [left, 50]]
        path = {"i": [[0, 0]] * 4, "o": [[0, 0]] * 4, "v": corners, "c": True}
        properties.append({**MASK, "mode": mode, "inv": inverted, "pt": {"k": path}})
    return lottie(square(hasMask=True, masksProperties=properties), op=1)


def test_masks_of_every_mode_inverted_or_not():
    """By Boolean algebra over a row of pixels; the first mask subtracts from the layer, others add to nothing."""
    x = np.arange(-30, 30)
    told = []
    ways = list(itertools.product("asif", (False, True)))
    chains = [(way,) for way in ways] + list(itertools.product(ways[:4], ways))
    chains += [(("a", False), ("i", True), ("s", True)), (("s", False),) * 3, (("a", True), ("s", False), ("i", False))]
    for chain in chains:
        edges = [(-20, 20), (-5, 25), (-30, 12)]
        masks = [(mode, *edges[at], inverted) for at, (mode, inverted) in enumerate(chain)]
        wanted = np.zeros(len(x), bool)
        for at, (mode, left, right, inverted) in enumerate(masks):
            inside = ((x >= left) & (x < right)) != inverted
            before = np.full(len(x), mode in "si") if at == 0 else wanted
            how = {"a": np.logical_or, "i": np.logical_and, "f": np.logical_xor, "s": lambda a, b: a & ~b}[mode]
            wanted = how(before, inside)
        try:
            sticker = drawn(masked(*masks))
        except StickerError:  # of a chain that leaves nothing
            assert not wanted.any(), masks
            continue
        if LEFT_OUT in sticker.attributes:
            told.append(chain)
        else:
            assert ((sticker.frames[0, 50, 20:80, 3] > 127) == wanted).all(), masks
    assert len(told) == 5 and all(len(chain) == 2 and chain[1][0] == "a" for chain in told)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", None])
def test_pictures_in_a_lottie(kind: str | None):
    buffer = io.BytesIO(b"damaged")
    if kind is not None:
        Image.new("RGB", (20, 20), (0, 0, 255)).save(buffer, kind)
    data = f"data:image/{str(kind).lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"
    root = lottie(layer(2, (40, 40), refId="i"), assets=[{"id": "i", "w": 20, "h": 20, "u": "", "p": data, "e": 1}])
    if kind in ("PNG", "JPEG", "WEBP"):
        assert np.abs(drawn(root).frames[0, 50, 50] - np.array([0, 0, 255, 255])).max() < 8
    else:
        with pytest.raises(StickerError, match="is damaged, or no PNG, JPEG or WebP"):
            drawn(root)


EFFECT = {"ty": 25, "en": 1, "ef": [{"ty": 0, "v": {"k": v}} for v in ([0, 0, 0, 1], 255, 135, 10, 5)]}


@pytest.mark.parametrize(
    ("with_it", "without"),
    [
        (square({"ty": "tm", "s": {"k": 0}, "e": {"k": 50}, "o": {"k": 0}, "m": 1}), square()),
        (square({"ty": "rd", "r": {"k": 20}}), square()),
        (square({"ty": "pb", "a": {"k": 50}}), square()),
        (square({"ty": "op", "a": {"k": 10}, "lj": 1, "ml": {"k": 4}}), square()),
        (square(ef=[EFFECT]), square()),
        (square(hasMask=True, masksProperties=[MASK]), square()),
        (square(ks={**PLACE, "p": {"k": [50, 50, 0]}, "sk": {"k": 30}, "sa": {"k": 0}}), square()),
    ],
    ids=["trim", "rounded corners", "pucker", "offset", "drop shadow", "mask", "skew"],
)
def test_features_that_are_drawn(with_it: dict, without: dict):
    with_it, without = drawn(lottie(with_it)), drawn(lottie(without))
    assert not np.array_equal(with_it.frames, without.frames)
    assert LEFT_OUT not in with_it.attributes
