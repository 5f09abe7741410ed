"""What a model was trained to draw: the names of its stickers, and the nearest of them to a caption.

A small model draws what it has seen. Asked for something else, it draws a mixture. So a saved pipeline lists its
captions, and for any other caption the commands ask for the nearest known one.
"""

from __future__ import annotations

import importlib.util
import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
from pydantic import BaseModel, StrictInt

from rdtf import hub
from rdtf.emoji_names import english_name, spell_emoji
from rdtf.files import write_text
from rdtf.words import caption_words, with_phrase

KNOWN_CAPTIONS = "known_captions.json"  # file of a saved pipeline
MOST_NAMES = 10_000  # a model of more names has no list: it was trained on free text
_INSTALL = "pip install 'rdtf[words]'"
_MOST_BYTES = 1 << 20
_MOST_SYNONYMS = 16
_SYNONYM = 0.7  # factor of a synonym's cosine: synonyms are looser than names ("puppy eyes" for a pleading face)
_ENOUGH = 5  # a word in this many names is learned by itself, so new combinations of such words are known
_MOST_SHOWN = 100  # characters of a caption in a message
_FILLERS = frozenset("a an and at in is it its my of on some the this to very with".split())  # noqa: SIM905


class _File(BaseModel):
    """The file :data:`KNOWN_CAPTIONS`: names with the indices of their styles and with synonyms; names of stills."""

    styles: list[str] = []
    names: dict[str, tuple[list[StrictInt], list[str]]]
    stills: list[str] = []


@dataclass(frozen=True)
class Fit:
    """What to ask a model for instead of a caption.

    Attributes:
        caption: the caption that was asked for, or the nearest one that the model knows.
        note: a sentence for the user if the model does not know what was asked for; otherwise empty.
        still: whether the model has seen only still pictures of it.
    """

    caption: str
    note: str = ""
    still: bool = False


class KnownCaptions:
    """The names of what a model was trained on, with their synonyms and styles.

    Args:
        names: for each name its styles (phrases at the end of captions, such as ``noto style``; most frequent first)
            and its synonyms.
        stills: the names that no moving sticker had.
    """

    def __init__(self, names: Mapping[str, tuple[Iterable[str], Iterable[str]]], stills: Iterable[str] = ()) -> None:
        self._styles_of = {name: tuple(styles) for name, (styles, _) in names.items()}
        self._synonyms = {name: tuple(words) for name, (_, words) in names.items()}
        self.stills = frozenset(stills)
        self.styles = tuple(sorted({style for styles in self._styles_of.values() for style in styles}))

    @property
    def names(self) -> tuple[str, ...]:
        """All names, without styles."""
        return tuple(self._styles_of)

    @classmethod
    def of_stickers(
        cls, stickers: Iterable[tuple[str, str, Iterable[str]]], moving: Container[str] | None = None
    ) -> KnownCaptions | None:
        """The names of a training set; None for more than :data:`MOST_NAMES`, or for none.

        Args:
            stickers: name, style phrase (or ``""``) and synonyms of each.
            moving: names of the stickers that move; None: all.
        """
        found: dict[str, tuple[Counter[str], dict[str, None]]] = defaultdict(lambda: (Counter(), {}))
        for name, style, synonyms in stickers:
            if name:
                styles, others = found[name]
                styles[style] += 1
                others.update(dict.fromkeys(word for word in synonyms if word and word != name))
            if len(found) > MOST_NAMES:
                return None
        names = {}
        for name, (styles, others) in sorted(found.items()):
            by_count = sorted(filter(None, styles), key=lambda style: (-styles[style], style))
            names[name] = by_count, list(others)[:_MOST_SYNONYMS]
        return cls(names, () if moving is None else (n for n in names if n not in moving)) if names else None

    def joined(self, other: KnownCaptions) -> KnownCaptions:
        """The names of both; where both have a name, the styles and synonyms of ``other`` come first."""
        merged: dict[str, tuple[dict[str, None], dict[str, None]]] = defaultdict(lambda: ({}, {}))
        for known in (other, self):
            for name in known.names:
                merged[name][0].update(dict.fromkeys(known._styles_of[name]))
                merged[name][1].update(dict.fromkeys(known._synonyms[name]))
        stills = (self.stills | other.stills) - ({*self.names} - self.stills) - ({*other.names} - other.stills)
        return KnownCaptions(dict(sorted(merged.items())), stills)

    def save(self, folder: Path) -> None:
        """Write :data:`KNOWN_CAPTIONS`, unless it would be larger than a model's configuration may be."""
        index = {style: number for number, style in enumerate(self.styles)}
        names = {name: [[index[style] for style in self._styles_of[name]], self._synonyms[name]] for name in self.names}
        content = {"styles": self.styles, "names": names, "stills": sorted(self.stills)}
        text = json.dumps(content, ensure_ascii=False) + "\n"
        if len(text.encode()) <= _MOST_BYTES:
            write_text(folder / KNOWN_CAPTIONS, text)

    @classmethod
    def load(cls, folder: Path) -> KnownCaptions | None:
        """The list of a saved pipeline; None if it has none.

        Raises:
            ValueError: the file is damaged.
        """
        path = folder / KNOWN_CAPTIONS
        if not path.exists():
            return None
        config = hub.read_config(path)
        try:
            found = _File.model_validate(config)
            styles = dict(enumerate(found.styles))
            names = {name: ([styles[i] for i in indices], words) for name, (indices, words) in found.names.items()}
            return cls(names, found.stills)
        except (ValueError, KeyError):
            raise ValueError(f"{path} is no list of captions; the model is damaged, copy it again") from None

    @cached_property
    def _learned(self) -> dict[str, frozenset[str]]:
        """Words that are learned by themselves, by style; of styles most of whose names consist of such words."""
        names_of: dict[str, list[set[str]]] = defaultdict(list)
        for name, styles in self._styles_of.items():
            for style in styles or ("",):
                names_of[style].append({*caption_words(name)})
        learned = {}
        for style, names in names_of.items():
            counts = Counter(word for words in names for word in words)
            words = frozenset(word for word, count in counts.items() if count >= _ENOUGH) | _FILLERS
            if 2 * sum(map(words.issuperset, names)) > len(names):
                learned[style] = words
        return learned

    @cached_property
    def _by_text(self) -> dict[tuple[str, ...], str]:
        without_fillers = {_content(caption_words(name)): name for name in reversed(self.names)}
        return without_fillers | {tuple(caption_words(name)): name for name in self.names}

    @cached_property
    def _vocabulary(self) -> frozenset[str]:
        texts = (text for name in self.names for text in (name, *self._synonyms[name]))
        return frozenset(word for text in texts for word in caption_words(text))

    @cached_property
    def _vectors(self) -> tuple[np.ndarray, np.ndarray]:
        """Sentence vectors of all names, each with its synonyms behind it, and the places of the names."""
        texts = [(name, *self._synonyms[name]) for name in self.names]
        places = np.cumsum([0, *map(len, texts[:-1])])
        return sentence_encoder()([text for group in texts for text in group]), places

    def fit(self, caption: str, *, given: bool = False) -> Fit:
        """The caption itself if the model knows it, otherwise the nearest known one.

        The model knows the names that it was trained on, also as emoji or in another language of the package emoji. It
        knows combinations of words that many names share, if most names are such combinations. A known name without a
        style gets the style that it was most often trained in.

        Args:
            given: the caption stands beside given frames. An unknown caption is then left out, because a near one would
                turn the thing in the picture into another one.
        """
        name, style = self._parted(caption)
        english = spell_emoji(name)
        if self._vocabulary.isdisjoint(caption_words(english)):
            english = english_name(english)
        for words in map(caption_words, (name, english)):
            if (known := self._known(words, caption, style)) is not None:
                return Fit(known, still=self._parted(known)[0] in self.stills)
        shown = name if len(name) <= _MOST_SHOWN else f"{name[:_MOST_SHOWN]}…"
        unknown = f"The model was not trained on {shown!r}"
        if given:
            return Fit("", f"{unknown}, so it goes by the picture alone" if name.strip() else "")
        if _FILLERS.issuperset(caption_words(english)):
            return Fit(caption, "The caption names nothing, so the model draws a mixture of what it knows")
        try:
            nearest = self._styled(self._nearest(english), style)
        except ModuleNotFoundError:
            return Fit(caption, f"{unknown} and may draw anything; with {_INSTALL} it makes the nearest")
        note = f"{unknown}; the nearest thing that it knows is {nearest!r}"
        return Fit(nearest, note, self._parted(nearest)[0] in self.stills)

    def _known(self, words: list[str], caption: str, style: str) -> str | None:
        """The caption to ask for if its words are a known name or a combination of learned words; otherwise None."""
        if (same := self._by_text.get(tuple(words)) or self._by_text.get(_content(words))) is not None:
            return self._styled(same, style)
        for trained, learned in self._learned.items():
            if style in ("", trained) and not _FILLERS.issuperset(words) and learned.issuperset(words):
                return caption if style else with_phrase(caption, trained)
        return None

    def _nearest(self, text: str) -> str:
        """The name of the largest similarity to a text.

        The similarity of a name is its cosine to the text, or that of a synonym times :data:`_SYNONYM` if this is
        larger. Of equally similar names, the one with the larger cosine of its own is nearest.

        Raises:
            ModuleNotFoundError: see :func:`sentence_encoder`.
        """
        vectors, places = self._vectors
        [asked] = sentence_encoder()([text])
        cosines = (vectors @ asked).astype(np.float64)
        own = cosines[places]
        cosines *= _SYNONYM
        cosines[places] = own
        best = np.maximum.reduceat(cosines, places).round(6)
        equal = np.flatnonzero(best == best.max())
        return self.names[equal[own[equal].argmax()]]

    def _parted(self, caption: str) -> tuple[str, str]:
        """A user's caption without its style, and the style if the model knows it."""
        for style in self.styles:
            if found := re.fullmatch(rf"(.+?)(?:,| in)?\s+{re.escape(style)}", caption.strip(), re.IGNORECASE):
                return found[1], style
        return caption, ""

    def style_of(self, name: str) -> str:
        """The style that a name was most often trained in; empty for none."""
        return next(iter(self._styles_of[name]), "")

    def _styled(self, name: str, style: str) -> str:
        return with_phrase(name, style if style in self._styles_of[name] else self.style_of(name))


def _content(words: Sequence[str]) -> tuple[str, ...]:
    """Words without fillers, if there are others."""
    return tuple(word for word in words if word not in _FILLERS) or tuple(words)


@lru_cache(maxsize=1)
def sentence_encoder() -> Callable[[Sequence[str]], np.ndarray]:
    """A function from n texts to vectors ``(n, 256)`` float32 of length 1 (of zeros for a text without words).

    A vector is the mean of static vectors of word pieces, from the files of the package wordllama. The package's own
    loader asks the Hugging Face Hub for files that it already has. Loading takes half a second.

    Raises:
        ModuleNotFoundError: the package is not installed.
        ValueError: the installed version has no such files.
    """
    found = importlib.util.find_spec("wordllama")
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError(f"nearest captions need the package wordllama: {_INSTALL}")
    from safetensors.numpy import load_file
    from tokenizers import Tokenizer

    folder = Path(found.submodule_search_locations[0])
    tokenizers = sorted((folder / "tokenizers").glob("*_tokenizer_config.json"))
    weights = sorted((folder / "weights").glob("*_256.safetensors"))
    if not tokenizers or not weights:
        raise ValueError(f"the installed wordllama holds no word vectors; {_INSTALL} --force-reinstall")
    tokenizer = Tokenizer.from_file(str(tokenizers[0]))
    [vectors] = load_file(weights[0]).values()

    def encode(texts: Sequence[str]) -> np.ndarray:
        ids = [tokenizer.encode(text.lower(), add_special_tokens=False).ids for text in texts]
        sums = np.stack([vectors[row].astype(np.float32).sum(0) for row in ids])
        return sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-9)

    return encode
