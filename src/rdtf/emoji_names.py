"""Emoji and their names, from the package ``emoji``.

Its tables take a moment to load, so the functions import it.
"""

from __future__ import annotations

import re
from functools import cache


def _plain(name: str) -> str:
    """``:cat_face:`` to ``cat face``."""
    return name.strip(":").replace("_", " ")


def _letters(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "", name.lower())


def emoji_name(text: str) -> str | None:
    """The English name of an emoji ("smiling face with sunglasses"); None if the text is no emoji.

    Names of several emoji are joined by commas.
    """
    import emoji

    text = text.strip()
    if not text or text.isascii() or not emoji.purely_emoji("".join(text.split())):
        return None
    names = [emoji.EMOJI_DATA[found["emoji"]]["en"] for found in emoji.emoji_list(text)]
    return ", ".join(map(_plain, dict.fromkeys(names)))


def spell_emoji(text: str) -> str:
    """The text with the English names of its emoji in their places."""
    import emoji

    return emoji.demojize(text, delimiters=(" ", " ")).replace("_", " ").strip()


def english_name(text: str) -> str:
    """The English name of the emoji that is called so in any language of the package; otherwise the text."""
    return _english_names().get(" ".join(text.lower().split()), text)


@cache
def _english_names() -> dict[str, str]:
    """English names of emoji by their lower-case names in all languages."""
    import emoji

    emoji.config.load_language()
    return {
        _plain(name).lower(): _plain(names["en"])
        for names in emoji.EMOJI_DATA.values()
        for language, name in names.items()
        if language in emoji.LANGUAGES
    }


def emoji_in(text: str) -> list[str]:
    """The emoji in a text, in their order."""
    import emoji

    return [found["emoji"] for found in emoji.emoji_list(text)]


def emoji_called(name: str) -> str | None:
    """The emoji of an English name, whatever stands between its letters; None if there is none."""
    return _emoji_by_letters().get(_letters(name))


@cache
def _emoji_by_letters() -> dict[str, str]:
    """Emoji by the letters of their names, which go before those of their other names."""
    from emoji import EMOJI_DATA, STATUS

    whole = [(c, about) for c, about in EMOJI_DATA.items() if about["status"] == STATUS["fully_qualified"]]
    names = {_letters(str(about["en"])): character for character, about in whole}
    others = {_letters(name): character for character, about in whole for name in about.get("alias", ())}
    return {**others, **names}
