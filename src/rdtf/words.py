"""The words of a caption: how they are found, how some are left out in training, and where the style stands."""

from __future__ import annotations

import re
import unicodedata

import numpy as np

_CJK = re.compile("[\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
_SKIN_TONES = range(0x1F3FB, 0x1F400)
_REGIONAL = range(0x1F1E6, 0x1F200)
# A unit of a caption, as a pattern over the kinds of its characters (see _kind). A unit is a CJK character, a word
# (apostrophes and hyphens inside belong to it), or an emoji with its modifiers, joined parts or second flag letter.
_UNIT = re.compile("cm*|w[wmz]*(?:jw[wmz]*)*|(?:rr|r|s)m*(?:zsm*)*")
_BRACKETS = ("()", "[]", "{}", "（）", "【】", "「」", "『』", "“”", "‘’", "«»", "《》")
LONGEST_WORD = 32
"""Characters of a word that are kept."""


def _kind(char: str) -> str:
    """``w``: letter or digit, ``c``: CJK, ``s``: symbol, ``r``: flag letter, ``m``: mark, ``z``: joiner, ``j``: hyphen,
    a space: anything else."""
    code, category = ord(char), unicodedata.category(char)
    if char in "'’-":
        return "j"
    if code == 0x200D:
        return "z"
    if code in _SKIN_TONES or category[0] == "M" or category == "Cf":
        return "m"
    if code in _REGIONAL:
        return "r"
    if _CJK.match(char):
        return "c"
    if category[0] in "LN":
        return "w"
    # Arrows and squares beyond ASCII are emoji too, although their Unicode category is mathematics.
    return "s" if category == "So" or (category == "Sm" and code >= 0x2000) else " "


def _spans(text: str) -> list[tuple[int, int]]:
    """Start and end of every unit of ``text``. Between two units are space and punctuation."""
    return [match.span() for match in _UNIT.finditer("".join(map(_kind, text)))]


def caption_words(caption: str) -> list[str]:
    """Tokens of a caption: lower-case words and numbers, single CJK characters, single emoji code points.

    The text is NFKC-normalised. Hyphens split words. Apostrophes, punctuation and emoji style marks are left out. Of a
    word the first 32 characters are kept.
    """
    return [word[:LONGEST_WORD] for word in whole_words(caption)]


def whole_words(caption: str) -> list[str]:
    """:func:`caption_words` before long words are cut."""
    text = unicodedata.normalize("NFKC", caption).lower()
    words: list[str] = []
    for start, end in _spans(text):
        unit = text[start:end]
        if _kind(unit[0]) in "sr":
            # The parts of a joined emoji are separate tokens, so that emoji with a common part share a token.
            words.extend(char for char in unit if _kind(char) in "sr" or ord(char) in _SKIN_TONES)
        else:
            parts = re.sub("['’\u200d\u20e3\ufe00-\ufe0f]", "", unit).split("-")
            words.extend(part for part in parts if part)
    return words


def with_phrase(name: str, phrase: str) -> str:
    """A caption with a style phrase at its end: ``a cat, noto style``. Without a name or a phrase it is the name."""
    return f"{name}, {phrase}" if name and phrase else name


def without_phrase(caption: str, phrase: str) -> str:
    """The caption before :func:`with_phrase`."""
    return caption.removesuffix(f", {phrase}")


def drop_words(caption: str, rng: np.random.Generator, probability: float = 0.2) -> str:
    """Leave out each word with ``probability`` (paper: 0.2), and the punctuation beside it.

    Words are whole words, single CJK characters and whole emoji. The text between two neighbouring kept words stays
    as it is. A bracket without its partner is left out too. The result is "" if every word is dropped.

    Raises:
        ValueError: ``probability`` is not in [0, 1].
    """
    if not 0 <= probability <= 1:
        raise ValueError(f"word drop probability must lie in [0, 1], not {probability}")
    spans = _spans(caption)
    kept = np.flatnonzero(rng.random(len(spans)) >= probability).tolist()
    if len(kept) == len(spans):
        return caption
    if not kept:
        return ""
    pieces = [caption[: spans[0][0]] if kept[0] == 0 else ""]
    for previous, index in zip([-1, *kept[:-1]], kept, strict=True):
        start, end = spans[index]
        if previous >= 0:
            between = caption[spans[previous][1] : start]
            if previous + 1 != index:
                between = " " if any(char.isspace() for char in between) else ""
            pieces.append(between)
        pieces.append(caption[start:end])
    pieces.append(caption[spans[-1][1] :] if kept[-1] == len(spans) - 1 else "")
    text = "".join(pieces)
    for opening, closing in map(tuple, _BRACKETS):
        if text.count(opening) != text.count(closing):
            # ’ is kept: it is more often an apostrophe than a closing quotation mark.
            text = text.replace(opening, "").replace("" if closing == "’" else closing, "")
    if text.count('"') % 2:
        text = text.replace('"', "")
    return text.strip()
