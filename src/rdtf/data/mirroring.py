"""Captions that forbid mirroring: sides, turns, writing, numbers, flags and clocks in the main languages."""

from __future__ import annotations

import functools
import re
import unicodedata
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

_WORDS = Path(__file__).with_name("one_sided.txt")
_SPACED = frozenset({"LATIN", "GREEK", "CYRILLIC", "ARMENIAN", "GEORGIAN"})
"""Scripts with spaces between words and endings on words."""
_WORD = re.compile(r"[^\W\d_]+")
_LETTER = re.compile(r"\b[B-HJ-Z]\b")  # A and I are words
_ACCENTS = re.compile("[\u0300-\u036f\u0591-\u05c7\u064b-\u065f\u0670]")
_PLAIN_LETTERS = str.maketrans({"ł": "l", "ø": "o", "đ": "d", "ı": "i", "ħ": "h", "æ": "ae", "œ": "oe"})


def is_flippable(caption: str) -> bool:
    """Whether the mirror image of a sticker still fits its caption.

    False for sides, turns, writing, digits, flags, clocks and the like, in the languages of ``one_sided.txt``. False
    also for other scripts: a missing mirror image costs little, and mirrored writing would be learned.
    """
    table = _table()
    scripts: set[str] = set()
    signs: list[str] = []
    for character in caption:
        category = unicodedata.category(character)
        if category[0] == "N":
            return False
        if category[0] == "L":
            scripts.add(_script(unicodedata.normalize("NFKC", character)[0]))
        elif category[0] == "S" and not character.isascii():
            signs.append(unicodedata.name(character, "symbol").casefold())
    if not scripts <= table.scripts:
        return False
    words = _WORD.findall(caption)
    if _LETTER.search(caption) or any(len(word) > 1 and word.isupper() for word in words):
        return False  # writing in the picture
    text = unicodedata.normalize("NFKC", caption).casefold()
    folded = _folded(text)
    spoken = {*_WORD.findall(text), *_WORD.findall(folded), *_WORD.findall(" ".join(signs))}
    if any(map(table.names, spoken)):
        return False
    return not any(part in text or part in folded for script in scripts for part in table.parts[script])


@dataclass
class _Table:
    """The content of ``one_sided.txt``."""

    scripts: set[str] = field(default_factory=set)
    words: set[str] = field(default_factory=set)
    beginnings: set[str] = field(default_factory=set)
    parts: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))

    def names(self, word: str) -> bool:
        """Whether the list has a lower-case word, its singular or its beginning."""
        if word in self.words or word.removesuffix("s") in self.words:
            return True
        return any(word[:length] in self.beginnings for length in range(2, len(word) + 1))


@functools.cache
def _table() -> _Table:
    table = _Table()
    for line in _WORDS.read_text("utf-8").splitlines():
        if line.startswith("#"):
            continue
        head, words = line.split(":")
        _, *scripts = head.split()
        table.scripts |= {*scripts}
        for word in unicodedata.normalize("NFC", words).casefold().split():
            if not _SPACED & {*scripts}:
                for script in scripts:
                    table.parts[script].add(word)
            elif word.endswith("*"):
                table.beginnings.add(word[:-1])
            else:
                table.words.add(word)
    return table


@functools.lru_cache(4096)
def _script(letter: str) -> str:
    name = unicodedata.name(letter, "").partition(" ")[0].partition("-")[0]
    return "CJK" if name == "IDEOGRAPHIC" else name


def _folded(text: str) -> str:
    """A text without accents and vowel points."""
    plain = _ACCENTS.sub("", unicodedata.normalize("NFD", text))
    return unicodedata.normalize("NFC", plain).translate(_PLAIN_LETTERS)
