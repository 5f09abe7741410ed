"""Names in ZIP archives that do not say their encoding.

A ZIP says by a flag that a name is UTF-8. Without the flag the standard means CP437, but programs write the code page
of their system: UTF-8 on Linux and macOS, CP932 (Shift-JIS) on Japanese Windows, GBK on Chinese Windows. All names of
an archive come from one program, so the code page is chosen once, by all names together.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Sequence

_UTF8_FLAG = 0x800
_MOST_NAMES = 2000  # are looked at; more tell nothing new
_ENOUGH = 0.5

# Two-byte characters of everyday text by their bytes: kana, punctuation and the 3,000 kanji of JIS level 1; punctuation
# and the 3,755 characters of GB 2312 level 1. Text of another code page rarely consists of these.
_COMMON = {
    "cp932": re.compile(
        rb"\x81[\x41-\x49\x58\x5b\x60\x69\x6a\x75-\x78]|\x82[\x4f-\x9a\x9f-\xf1]|\x83[\x40-\x96]"
        rb"|\x88[\x9f-\xfc]|[\x89-\x97][\x40-\xfc]"
    ),
    "gbk": re.compile(rb"[\xa1\xa3][\xa1-\xfe]|[\xb0-\xd7][\xa1-\xfe]"),
}
# A character between Latin letters is more likely an accented letter of CP437, read together with the letter behind it.
_RUN = re.compile(r"(?<![A-Za-z])[^\x00-\x7f]+(?![A-Za-z])")


def zip_names(infos: Sequence[zipfile.ZipInfo]) -> list[str]:
    """The names of an archive's members, with the separators that stand in them."""
    raw = [None if info.flag_bits & _UTF8_FLAG else info.orig_filename.encode("cp437") for info in infos]
    unsure = [name for name in raw if name is not None and not name.isascii()][:_MOST_NAMES]
    scores = {page: _score(unsure, page) for page in ("utf-8", *_COMMON)} if unsure else {}
    page = max(scores, key=scores.__getitem__, default="cp437")  # CP437 has all 256 bytes
    if scores.get(page, 0.0) < _ENOUGH:
        page = "cp437"
    names = []
    for name, info in zip(raw, infos, strict=True):
        try:
            names.append(info.orig_filename if name is None else name.decode(page))
        except UnicodeDecodeError:
            names.append(info.orig_filename)
    return names


def _score(names: Sequence[bytes], page: str) -> float:
    """The proportion of characters outside of ASCII that are everyday text; 2 for valid UTF-8, 0 for an error."""
    try:
        texts = [name.decode(page) for name in names]
    except UnicodeDecodeError:
        return 0.0
    if page == "utf-8":
        return 2.0
    runs = [character for text in texts for run in _RUN.findall(text) for character in run]
    common = sum(_COMMON[page].fullmatch(character.encode(page)) is not None for character in runs)
    return common / sum(not character.isascii() for text in texts for character in text)
