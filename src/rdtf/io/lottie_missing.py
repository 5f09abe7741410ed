"""Lottie features that ThorVG does not draw, and changes of a file so that ThorVG draws the rest.

ThorVG 1.1 draws text with the file's glyphs (``chars``) or with an embedded font, and runs expressions. Text with a
font that is only named is removed. Expressions with random numbers are removed, because the pixels would differ each
time. ThorVG ignores some features silently (:data:`_SHAPES`, :func:`missing_features`).
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import Any

_TEXT = 5  # type of a layer
_UNSTEADY = re.compile(r"random|\bDate\b", re.IGNORECASE)
_count = itertools.count()
_CAMERA = 13  # type of a layer
_SHAPES = {"zz": "zig-zag paths", "tw": "twisted paths"}
# Modes of merged paths: subtract, intersect, exclude. The others look like paths that are not merged.
_CUTTING = (3, 4, 5)
_HARD_MIX = 17  # blend mode


def missing_features(root: dict[str, Any]) -> list[str]:
    """Features of visible layers that ThorVG ignores."""
    found: dict[str, None] = {}
    for layer in _visible_layers(root):
        place = layer["ks"] if isinstance(layer.get("ks"), dict) else {}
        if layer.get("ty") == _CAMERA or (layer.get("ddd") and any(_moves(place.get(n)) for n in ("rx", "ry", "or"))):
            found["rotation in depth and cameras"] = None
        if any(not style.get("hd") for style in _dicts(layer.get("sy"))):
            found["layer styles"] = None
        if any(_moves(mask.get("f")) for mask in _dicts(layer.get("masksProperties"))):
            found["feathered masks"] = None
        if layer.get("bm") == _HARD_MIX:
            found["hard mix"] = None
        waiting = _dicts(layer.get("shapes"))
        while waiting:
            shape = waiting.pop()
            if shape.get("hd"):
                continue
            waiting.extend(_dicts(shape.get("it")))
            if shape.get("ty") == "mm" and shape.get("mm") in _CUTTING:
                found["merged paths"] = None
            elif (name := _SHAPES.get(str(shape.get("ty")))) is not None:
                found[name] = None
    return list(found)


def plain_masks(root: dict[str, Any]) -> list[str]:
    """Rewrite the masks of each layer so that ThorVG draws them right. Returns a sentence if some cannot be rewritten.

    ThorVG ignores the inversion of masks, and draws chains of different modes wrongly.
    """
    lost = False
    for layer in _visible_layers(root):
        masks = [mask for mask in _dicts(layer.get("masksProperties")) if mask.get("mode") != "n"]
        modes = {mask.get("mode") for mask in masks}
        if not any(mask.get("inv") for mask in masks) and (len(masks) == 1 or modes <= {"a"}):
            continue
        if (plain := _plain(masks)) is None:
            lost = True
        else:
            layer["masksProperties"] = plain
    return ["masks that are added to or cut from inverted or several other masks"] if lost else []


def _plain(masks: list[dict[str, Any]]) -> list[dict[str, Any]] | None:
    """Equal masks that are not inverted, or None: ``A - B = A * not B``, ``not A + not B = not (A * B)``.

    A first mask that subtracts means "not" for the combination of all masks.
    """

    def chain(*parts: tuple[str, dict[str, Any]]) -> list[dict[str, Any]]:
        return [{**mask, "mode": mode, "inv": False} for mode, mask in parts]

    if any(
        mask.get("inv") and isinstance(mask.get("o"), dict) and mask["o"].get("k") not in (100, [100]) for mask in masks
    ):
        return None
    kept = [(mask, bool(mask.get("inv")) == (mask.get("mode") == "s")) for mask in masks]
    positive, negative = ([mask for mask, sign in kept if sign == wanted] for wanted in (True, False))
    if all(mask.get("mode") in ("s", "i") for mask in masks[1:]):
        first = [("a", positive[0])] if positive else []
        return chain(*first, *[("i", mask) for mask in positive[1:]], *[("s", mask) for mask in negative])
    if len(masks) != 2:
        return None
    if masks[1].get("mode") == "f":
        return chain(("s" if len(negative) == 1 else "a", masks[0]), ("f", masks[1]))
    return chain(("s", masks[0]), ("i", masks[1])) if len(negative) == 2 else None


def _moves(value: Any) -> bool:
    """Whether a property is anything but 0."""
    k = value.get("k") if isinstance(value, dict) else None
    return any(part != 0 for part in k) if isinstance(k, list) else k not in (None, 0)


def leave_out_text(root: dict[str, Any]) -> str | None:
    """Hide text layers with a font that is only named; returns a sentence about the hidden text.

    ThorVG would draw them with an arbitrary font of an earlier file.
    """
    fonts = {str(font.get("fName")): font for font in _list(root, "fonts", "list")}
    glyphs = {(str(c.get("ch")), str(c.get("fFamily")), str(c.get("style"))) for c in _dicts(root.get("chars"))}
    kinds = {glyph[1:] for glyph in glyphs}
    lost = ""
    for layer, document in _documents(root):
        font = fonts.get(str(document.get("f")))
        if font and str(font.get("fPath", "")).startswith("data:"):
            continue
        kind = (str(font.get("fFamily")), str(font.get("fStyle"))) if font else ("", "")
        wanted = [c for c in str(document.get("t", "")) if not c.isspace()]
        lost += "".join(c for c in wanted if not font or (c, *kind) not in glyphs)
        if not font or kind not in kinds:
            layer["hd"] = True
    if not lost:
        return None
    letters = "".join(dict.fromkeys(lost))[:20]
    return f"text in a font that the file does not hold ({letters!r}); convert it to shapes"


def give_fonts_own_names(root: dict[str, Any]) -> None:
    """Rename the fonts, so that no file uses a font of an earlier file.

    ThorVG keeps embedded fonts by name after their file is closed, and using such a font crashes the process.
    """
    number = next(_count)
    for font in _list(root, "fonts", "list"):
        font["fName"] = f"{font.get('fName')} {number}"
    for _, document in _documents(root):
        document["f"] = f"{document.get('f')} {number}"


def take_out_expressions(root: dict[str, Any], *, unsteady: bool) -> int:
    """Remove expressions with random numbers (``unsteady``), or all expressions; returns their number."""
    found = 0
    for owner in _owners(root):
        if not unsteady or _UNSTEADY.search(owner["x"]):
            del owner["x"]
            found += 1
    return found


def has_expressions(root: dict[str, Any]) -> bool:
    """Whether any property is computed by an expression."""
    return any(True for _ in _owners(root))


def _owners(root: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Properties with an expression: a text ``x`` beside the value ``k``."""
    waiting: list[Any] = [root]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            if isinstance(node.get("x"), str):
                yield node
            waiting.extend(node.values())
        elif isinstance(node, list):
            waiting.extend(node)


def _documents(root: dict[str, Any]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Visible text layers with each of their texts, which have a font ``f`` and words ``t``."""
    for layer in _visible_layers(root):
        if layer.get("ty") == _TEXT:
            for key in _list(layer, "t", "d", "k"):
                if isinstance(key.get("s"), dict):
                    yield layer, key["s"]


def _visible_layers(root: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for owner in (root, *_dicts(root.get("assets"))):
        yield from (layer for layer in _dicts(owner.get("layers")) if not layer.get("hd"))


def _list(node: Any, *path: str) -> list[dict[str, Any]]:
    for name in path:
        node = node.get(name) if isinstance(node, dict) else None
    return _dicts(node)


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []
