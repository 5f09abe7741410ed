"""Style words in captions: ``grinning face, twemoji style``.

They are off by default, because a set of one style gains nothing from them. With sets of several styles one model
learns all styles, and a prompt chooses one. The attribute :data:`FIELD` has the style too, so that
:func:`without_style` can restore the caption.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from rdtf.data.captions import clean_caption
from rdtf.words import with_phrase, without_phrase

FIELD = "style"
"""Metadata field, and attribute of a sticker, that names its style."""
_STYLE = "style"


def style_phrase(name: str) -> str:
    """A style as words: ``fluent-3d`` is ``fluent 3d style``, ``line art style`` stays as it is; empty for no words."""
    words = " ".join(re.sub(r"[_-]", " ", clean_caption(name)).split())
    words = re.sub(rf"(^|\s){_STYLE}$", "", words, flags=re.IGNORECASE)
    return f"{words} {_STYLE}" if words else ""


def with_style(caption: str, name: str) -> str:
    """A caption with its style at the end, once. An empty caption stays empty."""
    return with_phrase(without_style(caption, name), style_phrase(name))


def without_style(caption: str, name: Any) -> str:
    """The caption before :func:`with_style`."""
    return without_phrase(caption, style_phrase(name)) if isinstance(name, str) else caption


def style_of(attributes: Mapping[str, Any], default: str | None) -> str:
    """The style in the metadata, otherwise ``default``; empty if there is none.

    Raises:
        ValueError: the field is something other than text or a number.
    """
    value = attributes.get(FIELD)
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"the field {FIELD!r} is not text; the sticker is kept without style words")
    return clean_caption(value or "") or default or ""
