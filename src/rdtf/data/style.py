"""Style words in captions: ``grinning face, twemoji style``.

They are off by default. A set of one style gains nothing from two more words in each caption, and a caption should say
what its metadata says unless the user asks for more. Sets of several styles need them: one model then learns all
styles, and a prompt chooses one. The style also stands in the attribute :data:`FIELD`, so that
:func:`without_style` finds the caption that was there before.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from rdtf.data.captions import clean_caption

FIELD = "style"
"""Metadata field, and attribute of a sticker, that names its style."""
_STYLE = "style"


def style_phrase(name: str) -> str:
    """A style as words: ``fluent-3d`` is ``fluent 3d style``, ``line art style`` stays as it is; empty for no words."""
    words = " ".join(re.sub(r"[_-]", " ", clean_caption(name)).split())
    words = re.sub(rf"(^|\s){_STYLE}$", "", words, flags=re.IGNORECASE)
    return f"{words} {_STYLE}" if words else ""


def with_style(caption: str, name: str) -> str:
    """A caption that ends in its style. A caption that ends so already stays as it is.

    An empty caption stays empty, as nothing but a style says nothing of what a sticker shows.
    """
    phrase = style_phrase(name)
    return f"{without_style(caption, name)}, {phrase}" if caption and phrase else caption


def without_style(caption: str, name: Any) -> str:
    """The caption before :func:`with_style`."""
    return caption.removesuffix(f", {style_phrase(name)}") if isinstance(name, str) else caption


def style_of(attributes: Mapping[str, Any], default: str | None) -> str:
    """The style that metadata names, else ``default``; empty if there is none.

    Raises:
        ValueError: the field is something other than text or a number.
    """
    value = attributes.get(FIELD)
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"the field {FIELD!r} is not text; the sticker is kept without style words")
    return clean_caption(value or "") or default or ""
