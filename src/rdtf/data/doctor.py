"""What may be wrong with a sticker or its captions, in words; and two cures, which are given only on request.

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
from scipy import ndimage

from rdtf.data.duplicates import signature
from rdtf.data.keyframes import coverage, frame_steps, loops, motion, seam
from rdtf.pixels import premultiply

FRAME_FINDINGS = {
    "still_animation": "A still image that poses as an animation: its frames are all alike.",
    "empty_frames": "Some of its frames are completely transparent.",
    "jump": "It jumps when it starts again: from the last frame to the first is more than three usual steps.",
    "margins": "What is drawn takes less than half of the canvas, each way.",
    "letterbox": "It has bars of one colour at two sides.",
    "flat_background": "It stands on an opaque background of one colour.",
    "opaque": "It is a picture without any transparency.",
    "background_cleared": "Its flat background was made transparent, as the settings asked for.",
    "cropped": "It was cropped to what is drawn, as the settings asked for.",
}
"""What can be found in frames, a sentence each."""

CURES = ("background_cleared", "cropped")
"""Those of them that say what was done."""

CAPTION_FINDINGS = {
    "no_caption": "It has no caption.",
    "file_name": "A caption looks like a file name that says nothing.",
    "markup": "Markup was taken out of a caption.",
    "link": "A link or an address was taken out of a caption.",
    "mention": "A mention of an account was taken out of a caption.",
    "hashtag": "Hashtags of a caption were turned into words.",
    "long_caption": "A caption has more than 60 words, of which text encoders see the first ones only.",
}
"""What can be found in captions, a sentence each."""

STILL_DIFFERENCE = 2
"""Frames are alike if no pixel's premultiplied channel differs more than that: what recompression does."""
JUMP = 3.0
SOLID = 250  # alpha from which a pixel counts as opaque
FLAT_DIFFERENCE = 12  # of a channel, up to which two opaque pixels are of one colour
FLAT_SHARE = 0.97  # of the pixels at the border, on every frame
BAR, BARS = 0.04, 0.1  # least height of one bar, and of two together, in parts of the picture
EDGE = 2  # width of the seam between background and drawing in which colours are mixtures, in pixels
LONG_CAPTION = 60

Box = tuple[int, int, int, int]  # top, left, bottom, right


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
    """Findings about a sticker's frames, in the order of :data:`FRAME_FINDINGS`.

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
    elif _spans(box, frames) and (alpha[:, top:bottom, left:right] >= SOLID).all():
        found.append("opaque")
    return found


def treat(frames: np.ndarray, *, crop: bool, clear: bool) -> tuple[np.ndarray, list[str]]:
    """The cures that are asked for, and a finding for each that was given.

    Args:
        frames: ``(n, h, w, 4)`` uint8, straight alpha, best of the file's own size.
        crop: see :func:`crop_to_content`. clear: see :func:`clear_background`.

    Returns:
        Frames, of another height and width if they were cropped.
    """
    given = []
    if clear and (cleared := clear_background(frames)) is not None:
        frames = cleared
        given.append("background_cleared")
    if crop and (cropped := crop_to_content(frames)).shape != frames.shape:
        frames = cropped
        given.append("cropped")
    return frames, given


def is_still(frames: np.ndarray) -> bool:
    """Whether all frames look the same, but for what recompression does."""
    pixels = premultiply(frames)
    return bool((pixels.max(0) - pixels.min(0)).max() <= STILL_DIFFERENCE)


def drawn_box(alpha: np.ndarray) -> Box:
    """The box around what is drawn on any frame of ``(n, h, w)`` uint8 alpha; traces of less than 8 do not count."""
    drawn = alpha.max(0) >= 8
    if not drawn.any():
        return 0, 0, alpha.shape[1], alpha.shape[2]
    rows, columns = np.flatnonzero(drawn.any(1)), np.flatnonzero(drawn.any(0))
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


def _spans(box: Box, frames: np.ndarray) -> bool:
    """Whether a box reaches from side to side: a picture fitted into the canvas does, a drawn square need not."""
    top, left, bottom, right = box
    return bottom - top == frames.shape[1] or right - left == frames.shape[2]


def content_box(frames: np.ndarray) -> Box:
    """:func:`drawn_box` without letterbox bars: opaque stripes of one colour at two sides that face each other.

    A picture that has the colour of its bars at its other sides too stands on a flat background and has no bars.
    """
    top, left, bottom, right = drawn_box(frames[..., 3])
    inside = frames[:, top:bottom, left:right]
    over, under = _bars(inside)
    if over + under:
        return top + over, left, bottom - under, right
    before, after = _bars(inside.swapaxes(1, 2))
    return top, left + before, bottom, right - after


def _bars(frames: np.ndarray) -> tuple[int, int]:
    """Heights of the bars at the top and at the bottom; two zeros if there are none."""
    height = frames.shape[1]
    colour = frames[:, 0].reshape(-1, 4)[0]
    flat = np.asarray(_like(frames, colour).all((0, 2)))  # of each row
    if flat.all():
        return 0, 0
    over, under = int((~flat).argmax()), int((~flat[::-1]).argmax())
    if min(over, under) < max(1, BAR * height) or over + under < BARS * height:
        return 0, 0
    middle = frames[:, over : height - under]
    sides = np.stack([_like(middle[:, :, side], colour).mean() for side in (0, -1)])
    return (0, 0) if (sides > 0.5).all() else (over, under)


def _like(frames: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """Which pixels ``(..., 4)`` are opaque and of a colour (4 values)."""
    near = (np.abs(frames[..., :3].astype(np.int16) - colour[:3].astype(np.int16)) <= FLAT_DIFFERENCE).all(-1)
    return near & (frames[..., 3] >= SOLID)


def flat_background(frames: np.ndarray) -> np.ndarray | None:
    """The one colour ``(4,)`` uint8 of the border of what is drawn, on all frames; None if it has none.

    None as well if nothing stands on it, for then it is no background, and if it does not reach from side to side.
    """
    top, left, bottom, right = box = drawn_box(frames[..., 3])
    if not _spans(box, frames):
        return None
    inside = frames[:, top:bottom, left:right]
    border = np.concatenate([inside[:, 0], inside[:, -1], inside[:, :, 0], inside[:, :, -1]], axis=1)
    colour = np.median(border, axis=(0, 1)).astype(np.uint8)
    if (_like(border, colour).mean(1) < FLAT_SHARE).any() or _like(inside, colour).all():
        return None
    return colour


def clear_background(frames: np.ndarray) -> np.ndarray | None:
    """Make a flat background transparent.

    What has the background's colour and is connected to the border goes. At the seam colours are mixtures: there
    alpha is what part of the nearest pixel well inside is needed to mix the pixel from it and the background, and
    the colour is that pixel's.

    Args:
        frames: ``(n, h, w, 4)`` uint8.

    Returns:
        New frames, or None if the background is not flat or hardly anything would be left.
    """
    colour = flat_background(frames)
    if colour is None:
        return None
    out = np.stack([_cut_out(frame, colour) for frame in frames])
    return out if (out[..., 3] > 0).mean() >= 0.01 else None


def _cut_out(frame: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """One ``(h, w, 4)`` frame without a background of a colour."""
    # A frame of transparency around it connects all its sides, and what was transparent before.
    ground = np.pad(_like(frame, colour) | (frame[..., 3] == 0), 1, constant_values=True)
    labels = ndimage.label(ground)[0]
    gone = (labels == labels[0, 0])[1:-1, 1:-1]
    out = frame.copy()
    out[gone] = 0
    distance = ndimage.distance_transform_edt(~gone)
    seam, well_inside = ~gone & (distance < EDGE), ~gone & (distance >= EDGE)
    if not well_inside.any():  # thin lines all over: nothing says what they were mixed from
        return out
    nearest = ndimage.distance_transform_edt(~well_inside, return_distances=False, return_indices=True)
    source = frame[nearest[0], nearest[1]][seam][:, :3].astype(np.float32)
    back, pixels = colour[:3].astype(np.float32), frame[seam][:, :3].astype(np.float32)
    away = source - back
    share = ((pixels - back) * away).sum(1) / np.maximum((away**2).sum(1), 1)
    rest = np.abs(back + share[:, None] * away - pixels).max(1)
    # An outline of another colour is no mixture of the two, and stays as it is.
    mixed = (share < 0.97) & (rest <= 2 * FLAT_DIFFERENCE)
    values = np.concatenate([source, np.rint(255 * share.clip(0, 1))[:, None]], axis=1)
    out[seam] = np.where(mixed[:, None], values, out[seam]).astype(np.uint8)
    out[out[..., 3] == 0] = 0
    return out


def crop_to_content(frames: np.ndarray) -> np.ndarray:
    """The part of ``(n, h, w, 4)`` frames within :func:`content_box`; the same part of all frames."""
    top, left, bottom, right = content_box(frames)
    return frames[:, top:bottom, left:right]


@dataclass(frozen=True)
class CleanCaptions:
    """Captions as they can be learnt from.

    Attributes:
        texts: different and not empty, but the only text is ``""`` if nothing is left.
        findings: in the order of :data:`CAPTION_FINDINGS`.
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
