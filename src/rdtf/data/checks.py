"""Checks of a sticker and its captions: what may be wrong with it, why that matters, and what mends it.

A check leaves nothing out of a dataset. Its code is stored with the sticker, the manifest counts it, and
``rdtf inspect`` shows examples and names every file. All functions are pure and see one sticker. Near-duplicates need
the whole dataset and are in :mod:`rdtf.data.duplicates`.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Sequence
from importlib import resources
from typing import Any, NamedTuple

import numpy as np

from rdtf.data.duplicates import signature
from rdtf.data.fixes import SOLID, drawn_box, flat_background, spans
from rdtf.data.keyframes import coverage, frame_steps, loops, motion, seam
from rdtf.pixels import premultiply
from rdtf.words import LONGEST_WORD, whole_words

STILL_DIFFERENCE = 2
"""Frames are equal if no premultiplied channel differs more than that, as after recompression."""
LONG_CAPTION = 32
"""Words that the built-in text encoder reads by default."""


class Check(NamedTuple):
    """What may be wrong with a sticker, in words for people.

    Attributes:
        title: a few words.
        meaning: what was seen, and why it matters.
        fix: what to do about it: a command with its options, if there is one.
    """

    title: str
    meaning: str
    fix: str


def _texts(kind: str) -> dict[str, Check]:
    texts = json.loads((resources.files("rdtf.data") / "checks.json").read_text("utf-8"))
    return {code: Check(**text) for code, text in texts[kind].items()}


FRAME_CHECKS, CAPTION_CHECKS = _texts("frames"), _texts("captions")
"""Checks of frames and of captions by the codes that a dataset holds."""


def describe(frames: np.ndarray, durations: np.ndarray) -> dict[str, Any]:
    """The columns of a dataset that are computed from the frames, except frames and clusters.

    Args:
        frames: ``(n, h, w, 4)`` uint8, straight alpha, not all of them empty.
        durations: ``(n,)``, in any unit.
    """
    steps = frame_steps(frames)
    seen, extent = signature(frames, durations)
    return {
        "coverage": coverage(frames).astype(np.float32).tolist(),
        "motion": motion(steps),
        "loops": loops(steps),
        "seam": seam(steps),
        "signature": seen,
        "extent": extent,
        "checks": check_frames(frames),
    }


def check_frames(frames: np.ndarray) -> list[str]:
    """Codes of :data:`FRAME_CHECKS` that apply to frames as :func:`describe` takes them, in their order."""
    found = []
    alpha = frames[..., 3]
    if len(frames) > 1 and is_still(frames):
        found.append("still_animation")
    if not alpha.any((1, 2)).all():
        found.append("empty_frames")
    top, left, bottom, right = box = drawn_box(alpha)
    if max(bottom - top, right - left) < 0.5 * max(frames.shape[1:3]):
        found.append("margins")
    if flat_background(frames) is not None:
        found.append("flat_background")
    elif spans(box, frames) and (alpha[:, top:bottom, left:right] >= SOLID).all():
        found.append("opaque")
    return found


def is_still(frames: np.ndarray) -> bool:
    """Whether all frames are equal up to :data:`STILL_DIFFERENCE`."""
    pixels = premultiply(frames)
    return bool((pixels.max(0) - pixels.min(0)).max() <= STILL_DIFFERENCE)


_NAMED_CHARACTER = re.compile(r"&(?:[a-zA-Z]{2,8}|#\d{1,7}|#x[0-9a-fA-F]{1,6});")
_REPLACED = (
    (r"(?s)<!--.*?-->|</?[a-zA-Z][a-zA-Z0-9-]*(?:\s[^<>]*)?/?>", " "),  # HTML
    (r"!?\[([^\[\]]*)\]\([^()\s]*\)", r"\1"),  # a link of Markdown
    (r"(\*\*|__|~~|`)(?=\S)(.+?)(?<=\S)\1", r"\2"),  # emphasis of Markdown
    (r"(?i)(?:https?://|www\.|(?<!\w)t\.me/)\S+", " "),  # links
    (r"(?<!\S)[\w.+-]+@[\w-]+\.[\w.-]+", " "),  # addresses
    (r"(?<!\w)@\w{2,}", " "),  # accounts
)
_HASHTAG = re.compile(r"(?<!\w)#(?=\w*[^\W\d])(\w+)")
_FILE_NAME = re.compile(
    r"(?:img|image|dsc|file|photo|pic|picture|vid|video|sticker|stickers|animated ?sticker|animation|untitled|unnamed|"
    r"screenshot|giphy|tenor|tumblr|whatsapp|telegram|download|new|copy|tmp|out|output|frame)?[\W\d_]*"
    r"|(?=\w*\d)[0-9a-f]{6,}|[0-9a-f]{8}-[0-9a-f-]{20,}|.*\.(?:gif|webp|a?png|jpe?g|tgs|json|webm|mp4|mov|avif)",
    re.IGNORECASE,
)


def check_captions(texts: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Clean the captions of a sticker, and check them.

    Args:
        texts: as :class:`~rdtf.data.captions.Caption` holds them.

    Returns:
        Different texts without markup, links, accounts and hashtags; ``("",)`` if nothing is left. And the codes of
        :data:`CAPTION_CHECKS` that apply, in their order.
    """
    cleaned = tuple(dict.fromkeys(filter(None, map(_clean, texts))))
    words = [whole_words(text) for text in cleaned]
    found = {
        "no_caption": not cleaned,
        "file_name": any(any(map(str.isalnum, text)) and _FILE_NAME.fullmatch(text) for text in cleaned),
        "cleaned": any(_clean(text) != " ".join(text.split()) for text in texts),
        "long_caption": any(
            len(said) > LONG_CAPTION or max(map(len, said), default=0) > LONGEST_WORD for said in words
        ),
    }
    return cleaned or ("",), tuple(code for code in CAPTION_CHECKS if found[code])


def _clean(text: str) -> str:
    text = _NAMED_CHARACTER.sub(lambda match: html.unescape(match[0]), text)
    for pattern, replacement in _REPLACED:
        text = re.sub(pattern, replacement, text)
    text = _HASHTAG.sub(lambda match: re.sub(r"(?<=[a-z])(?=[A-Z])", " ", match[1].replace("_", " ")), text)
    return " ".join(text.split())
