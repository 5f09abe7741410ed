"""How well a few words tell their language: ``python benchmarks/languages.py``.

The captions are names of emoji in eleven languages, of which mixtures are drawn: one to a few words each. Side by
side: each caption alone by py3langid, and all of a mixture judged together as ``rdtf inspect`` does. Prints a table and
ends in one JSON line.
"""

from __future__ import annotations

import argparse
import json
import random
import time

import emoji
from rich.table import Table

from rdtf.data.languages import languages_of
from rdtf.progress import console

MIXTURES: list[dict[str, int]] = [
    {"en": 30},
    {"en": 1600},
    {"de": 600},
    {"ru": 600},
    {"en": 550, "fr": 30},
    {"en": 500, "de": 100},
    {"id": 400, "en": 100},
    {"en": 300, "es": 300},
    {"es": 200, "pt": 200},
    {"en": 200, "de": 200, "fr": 200, "es": 200, "it": 200, "pt": 200},
    {"en": 400, "ru": 200, "zh": 200, "ja": 100, "ko": 100},
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    names = {}
    for language in sorted({language for mixture in MIXTURES for language in mixture}):
        emoji.config.load_language(language)
        known = {entry[language] for entry in emoji.EMOJI_DATA.values() if language in entry}
        names[language] = sorted(name.strip(":").replace("_", " ") for name in known)
    languages_of(["a word"])  # loads the model
    results = []
    for mixture in MIXTURES:
        rng = random.Random(options.seed)
        pairs = [(text, language) for language, count in mixture.items() for text in rng.sample(names[language], count)]
        texts, languages = map(list, zip(*pairs, strict=True))
        alone = [languages_of([text])[0] for text in texts]
        began = time.perf_counter()
        together = languages_of(texts)
        took = time.perf_counter() - began
        told = [(found, language) for found, language in zip(together, languages, strict=True) if found]
        results.append(
            {
                "mixture": mixture,
                "alone": sum(map(str.__eq__, alone, languages)) / len(texts),
                "together": sum(map(str.__eq__, together, languages)) / len(texts),
                "told": len(told) / len(texts),
                "of_told": sum(found == language for found, language in told) / len(told),
                "ms": 1000 * took / len(texts),
            }
        )
    table = Table("captions", "right alone", "right together", "told", "of them right", "ms a caption")
    for r in results:
        shares = [f"{r[name]:.1%}" for name in ("alone", "together", "told", "of_told")]
        table.add_row(", ".join(f"{n} {language}" for language, n in r["mixture"].items()), *shares, f"{r['ms']:.2f}")
    console.print(table)
    print(json.dumps({"seed": options.seed, "results": results}))


if __name__ == "__main__":
    main()
