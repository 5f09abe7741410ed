"""Names in ZIP archives that do not say their encoding.

A ZIP says by a flag that a name is UTF-8. Without the flag the standard means CP437, but programs write the code page
of their system: UTF-8 on Linux and macOS, CP932 (Shift-JIS) on Japanese Windows, GBK on Chinese Windows. All names of
an archive come from one program, so the code page is chosen once, by all names together.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable, Sequence

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


def name_decoder(infos: Sequence[zipfile.ZipInfo]) -> Callable[[zipfile.ZipInfo], str]:
    """A function that gives the name of an archive's member, with the separators that stand in it.

    Args:
        infos: all members of the archive.
    """
    raw = [_bytes_of(info) for info in infos if not _says_utf8(info)]
    page = _code_page([name for name in raw if not name.isascii()][:_MOST_NAMES])

    def name_of(info: zipfile.ZipInfo) -> str:
        if _says_utf8(info):
            return info.orig_filename
        try:
            return _bytes_of(info).decode(page)
        except UnicodeDecodeError:
            return info.orig_filename

    return name_of


def _says_utf8(info: zipfile.ZipInfo) -> bool:
    return bool(info.flag_bits & _UTF8_FLAG)


def _bytes_of(info: zipfile.ZipInfo) -> bytes:
    return info.orig_filename.encode("cp437")  # zipfile decoded the bytes by CP437, which has all 256


def _code_page(names: Sequence[bytes]) -> str:
    if not names:
        return "cp437"
    if all(_decodes(name, "utf-8") for name in names):
        return "utf-8"
    scores = {page: _score(names, page) for page in _COMMON if all(_decodes(name, page) for name in names)}
    best = max(scores, key=scores.__getitem__, default="cp437")
    return best if scores.get(best, 0.0) >= _ENOUGH else "cp437"


def _score(names: Sequence[bytes], page: str) -> float:
    """The proportion of characters outside of ASCII that are everyday text."""
    texts = [name.decode(page) for name in names]
    common = [
        _COMMON[page].fullmatch(character.encode(page)) is not None
        for text in texts
        for run in _RUN.findall(text)
        for character in run
    ]
    return sum(common) / sum(not character.isascii() for text in texts for character in text)


def _decodes(name: bytes, page: str) -> bool:
    try:
        name.decode(page)
    except UnicodeDecodeError:
        return False
    return True
