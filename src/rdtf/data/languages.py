"""In which languages captions are, as far as a few words tell.

A word or two alone are too few for a language: "rocket" may be several. But captions come together, and in a folder of
English ones it is English. So the share of each language is estimated from all of them first, by expectation
maximisation (Saerens, Latinne and Decaestecker, 2002), and then says what each of them is likely to be.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

import numpy as np

SAMPLE = 10_000
"""Of more different texts, evenly spaced ones are looked at."""
LIKELY = 0.5
"""Below this probability a language is not told."""

_DEPENDENCE = 3.0  # letters that follow each other say the same thing about so many times
_ROUNDS = 50


def language_shares(texts: Iterable[str]) -> dict[str, float]:
    """The shares of languages in texts, by ISO 639-1 code, the largest first; ``""`` for what is not told.

    Texts without a letter do not count. Takes a quarter of a millisecond for each different text.
    """
    counts = Counter(text for text in texts if any(character.isalpha() for character in text))
    every = sorted(counts)
    different = every[:: max(1, -(-len(every) // SAMPLE))]
    weights = np.array([counts[text] for text in different])
    shares = Counter[str]()
    for language, weight in zip(languages_of(different, weights), weights.tolist(), strict=True):
        shares[language] += weight
    return {language: weight / shares.total() for language, weight in shares.most_common()}


def languages_of(texts: Sequence[str], weights: np.ndarray | None = None) -> list[str]:
    """The language of each text by ISO 639-1 code, judged together; ``""`` where none is :data:`LIKELY`.

    Args:
        texts: with a letter each.
        weights: ``(n,)``, how often each occurs; once if None.
    """
    if not texts:
        return []
    weights = np.ones(len(texts)) if weights is None else weights
    names, evidence = _evidence(texts)
    shares = np.full(len(names), 1 / len(names))
    for _ in range(_ROUNDS):
        likely = evidence * shares
        likely /= likely.sum(1, keepdims=True)
        shares = weights @ likely / weights.sum()
    best = likely.argmax(1)
    return [
        names[place] if probability >= LIKELY else ""
        for place, probability in zip(best.tolist(), likely.max(1).tolist(), strict=True)
    ]


def _evidence(texts: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """Languages, and how probable each text is in them, ``(n, languages)`` in 0..1 with 1 for the best one."""
    identifier = _identifier()
    names = sorted(identifier.labels)
    place = {name: number for number, name in enumerate(names)}
    scores = np.empty((len(texts), len(names)))
    for row, text in zip(scores, texts, strict=True):
        for name, score in identifier.rank(text):
            row[place[name]] = score
    return names, np.exp((scores - scores.max(1, keepdims=True)) / _DEPENDENCE)


@cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier  # half a second, for its model

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE)
    identifier.set_languages([name for name in identifier.labels if len(name) == 2])
    return identifier
