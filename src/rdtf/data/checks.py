"""What may be wrong with a sticker or its captions, by the codes of :mod:`rdtf.data.findings`.

Nothing is left out because of a finding: findings are stored with the sticker, counted in the manifest and shown by
``rdtf inspect`` with examples and files. All functions are pure and see one sticker. Near-duplicates, which take the
whole dataset, are found in :mod:`rdtf.data.duplicates`.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rdtf.data.findings import CAPTION_FINDINGS
from rdtf.data.fixes import SOLID, content_box, drawn_box, flat_background, spans
from rdtf.data.keyframes import coverage, frame_steps, loops, motion, seam
from rdtf.data.lettering import is_lettering
from rdtf.data.signatures import signature
from rdtf.pixels import premultiply

STILL_DIFFERENCE = 2
"""Frames are alike if no pixel's premultiplied channel differs more than that: what recompression does."""
JUMP = 3.0
LONG_CAPTION = 60


def describe(frames: np.ndarray, durations: np.ndarray) -> dict[str, Any]:
    """What a dataset holds about a sticker beside its frames and key frames, by the columns' names.

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
        "findings": examine_frames(frames, seam(steps)),
    }


def examine_frames(frames: np.ndarray, seam: float | None) -> list[str]:
    """Findings about a sticker's frames, in the order of :data:`~rdtf.data.findings.FRAME_FINDINGS`.

    Args:
        frames: as for :func:`describe`.
        seam: from :func:`rdtf.data.keyframes.seam`.
    """
    found = []
    alpha = frames[..., 3]
    if len(frames) > 1 and is_still(frames):
        found.append("still_animation")
    if not alpha.any((1, 2)).all():
        found.append("empty_frames")
    if seam is not None and seam > JUMP:
        found.append("jump")
    top, left, bottom, right = box = drawn_box(alpha)
    if max(bottom - top, right - left) < 0.5 * max(frames.shape[1:3]):
        found.append("margins")
    if content_box(frames) != box:
        found.append("letterbox")
    elif flat_background(frames) is not None:
        found.append("flat_background")
    elif spans(box, frames) and (alpha[:, top:bottom, left:right] >= SOLID).all():
        found.append("opaque")
    if is_lettering(frames):
        found.append("text_only")
    return found


def is_still(frames: np.ndarray) -> bool:
    """Whether all frames look the same, but for what recompression does."""
    pixels = premultiply(frames)
    return bool((pixels.max(0) - pixels.min(0)).max() <= STILL_DIFFERENCE)


@dataclass(frozen=True)
class CleanCaptions:
    """Captions as they can be learnt from.

    Attributes:
        texts: different and not empty, but the only text is ``""`` if nothing is left.
        findings: in the order of :data:`~rdtf.data.findings.CAPTION_FINDINGS`.
        scripts: in which scripts they are written, the most frequent first.
    """

    texts: tuple[str, ...]
    findings: tuple[str, ...]
    scripts: tuple[str, ...]


_NAMED_CHARACTER = re.compile(r"&(?:[a-zA-Z]{2,8}|#\d{1,7}|#x[0-9a-fA-F]{1,6});")
_TAKEN_OUT: tuple[tuple[str, re.Pattern[str], str], ...] = (
    ("markup", re.compile(r"<!--.*?-->|</?[a-zA-Z][a-zA-Z0-9-]*(?:\s[^<>]*)?/?>", re.DOTALL), " "),
    ("markup", re.compile(r"!?\[([^\[\]]*)\]\([^()\s]*\)"), r"\1"),  # a link of Markdown
    ("markup", re.compile(r"(\*\*|__|~~|`)(?=\S)(.+?)(?<=\S)\1"), r"\2"),  # what Markdown stresses
    ("link", re.compile(r"(?:https?://|www\.|(?<!\w)t\.me/)\S+", re.IGNORECASE), " "),
    ("link", re.compile(r"(?<!\S)[\w.+-]+@[\w-]+\.[\w.-]+"), " "),
    ("mention", re.compile(r"(?<!\w)@\w{2,}"), " "),
)
_HASHTAG = re.compile(r"(?<!\w)#(?=\w*[^\W\d])(\w+)")
_FILE_NAME = re.compile(
    r"(?:img|image|dsc|file|photo|pic|picture|vid|video|sticker|stickers|animated ?sticker|animation|untitled|unnamed|"
    r"screenshot|giphy|tenor|tumblr|whatsapp|telegram|download|new|copy|tmp|out|output|frame)?[\W\d_]*"
    r"|(?=\w*\d)[0-9a-f]{6,}|[0-9a-f]{8}-[0-9a-f-]{20,}|.*\.(?:gif|webp|a?png|jpe?g|tgs|json|webm|mp4|mov|avif)",
    re.IGNORECASE,
)


def examine_captions(texts: Sequence[str]) -> CleanCaptions:
    """Take out of captions what nobody would say, and say what is odd about them.

    Args:
        texts: as :class:`~rdtf.data.captions.Caption` holds them.
    """
    found: set[str] = set()
    cleaned = []
    for text in texts:
        clean, findings = _clean(text)
        found |= findings
        if clean:
            cleaned.append(clean)
    cleaned = list(dict.fromkeys(cleaned))
    if not cleaned:
        found.add("no_caption")
    counts = Counter(script for text in cleaned for script in [script_of(text)] if script)
    order = tuple(code for code in CAPTION_FINDINGS if code in found)
    return CleanCaptions(tuple(cleaned or [""]), order, tuple(script for script, _ in counts.most_common()))


def _clean(text: str) -> tuple[str, set[str]]:
    found = set()
    if _NAMED_CHARACTER.search(text):
        text = html.unescape(text)
        found.add("markup")
    for code, pattern, replacement in _TAKEN_OUT:
        text, count = pattern.subn(replacement, text)
        if count:
            found.add(code)
    text, count = _HASHTAG.subn(lambda match: re.sub(r"(?<=[a-z])(?=[A-Z])", " ", match[1].replace("_", " ")), text)
    if count:
        found.add("hashtag")
    text = " ".join(text.split())
    if text and any(character.isalnum() for character in text) and _FILE_NAME.fullmatch(text):
        found.add("file_name")
    if len(text.split()) > LONG_CAPTION:
        found.add("long_caption")
    return text, found


def script_of(text: str) -> str:
    """The script of most of a text's letters, such as ``Latin``, ``Cyrillic``, ``Han`` or ``Kana``; empty without.

    A Japanese text mixes Han and Kana, so that any Kana decides.
    """
    counts = Counter(_script(character) for character in text if character.isalpha())
    if counts["Kana"]:
        return "Kana"
    return counts.most_common(1)[0][0] if counts else ""


_SCRIPTS = {"cjk": "Han", "hiragana": "Kana", "katakana": "Kana", "halfwidth": "Kana", "fullwidth": "Latin"}


def _script(letter: str) -> str:
    first = unicodedata.name(letter, "unknown").split()[0].split("-")[0].lower()
    return _SCRIPTS.get(first, first.capitalize())
