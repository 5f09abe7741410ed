"""Languages of captions: a word alone does not tell its own, many together do."""

from __future__ import annotations

import random

import emoji
import numpy as np
import pytest

from rdtf.data import languages
from rdtf.data.languages import language_shares, languages_of


def names(language: str, count: int) -> list[str]:
    """Names of emoji, as captions of real stickers often are."""
    emoji.config.load_language(language)
    every = sorted({entry[language] for entry in emoji.EMOJI_DATA.values() if language in entry})
    return [name.strip(":").replace("_", " ") for name in random.Random(0).sample(every, count)]


def right(told: list[str], language: str) -> float:
    return told.count(language) / len(told)


@pytest.mark.parametrize("language", ["en", "de", "id", "ru"])
def test_together_captions_tell_a_language_that_they_do_not_tell_alone(language: str) -> None:
    texts = names(language, 200)
    alone = [languages_of([text])[0] for text in texts]
    assert right(alone, language) < 0.85
    assert right(languages_of(texts), language) > 0.97


def test_languages_beside_each_other() -> None:
    english, german, japanese = names("en", 300), names("de", 60), names("ja", 5)
    told = languages_of([*english, *german, *japanese])
    assert right(told[:300], "en") > 0.93 and right(told[300:360], "de") > 0.6 and right(told[360:], "ja") >= 0.8
    assert languages_of(
        ["a happy cat", "el gato está feliz y salta", "ein fröhlicher Hund springt über die Wiese"]
    ) == [*("en", "es", "de")]


def test_what_is_between_two_languages_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    evidence = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    monkeypatch.setattr(languages, "_evidence", lambda texts: (["en", "fr"], evidence[: len(texts)]))
    monkeypatch.setattr(languages, "LIKELY", 0.6)
    assert languages_of(["cat", "chat", "table"]) == ["en", "fr", ""]
    assert languages_of(["cat", "chat", "table"], np.array([9, 1, 1])) == ["en", "fr", "en"]


def test_shares_count_every_text_and_no_signs(monkeypatch: pytest.MonkeyPatch) -> None:
    assert languages_of([]) == [] and language_shares(["", "!", "123", "🙂"]) == {}
    texts = [*names("en", 90), *names("zh", 30)]
    shares = language_shares(texts + texts[-30:] + ["", "?"])
    assert [*shares][:2] == ["en", "zh"]
    assert shares["zh"] == pytest.approx(0.4, abs=0.05) and sum(shares.values()) == pytest.approx(1)
    seen: list[int] = []
    monkeypatch.setattr(languages, "SAMPLE", 50)
    judge = languages.languages_of
    monkeypatch.setattr(languages, "languages_of", lambda some, weights: seen.append(len(some)) or judge(some, weights))
    assert language_shares(texts)["zh"] == pytest.approx(0.25, abs=0.1)
    assert seen == [40]
