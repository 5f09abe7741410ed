"""Find the words for each sticker of a folder or archive, and clean them."""

from __future__ import annotations

import functools
import json
import math
import posixpath
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath, PurePosixPath
from typing import Any
from urllib.parse import unquote

from rdtf.data.metadata_files import file_field, file_of, is_metadata, no_value, read_entries
from rdtf.emoji_names import emoji_name
from rdtf.io.archives import ArchiveTree, Tree
from rdtf.sticker import StickerError

MAX_CHARACTERS = 4096
MAX_TAGS = 8
"""The name of an emoji among the tags is a caption if there are at most this many tags."""
SPLITS = ("train", "val", "test")
SPLIT_NAMES = {name: name for name in SPLITS} | {
    "training": "train", "valid": "val", "validation": "val", "dev": "val", "testing": "test"
}  # fmt: skip
"""Common names of splits, with our names."""

CAPTION_FIELDS = ("caption", "text", "captions", "texts", "prompt", "description", "alt_text", "title")
"""Default fields of captions. The first field with a text counts."""
_TAG_FIELDS = ("emoji", "emojis", "sticker_emoji", "tags", "keywords")
_NO_TEXT = frozenset({"nan", "NaN", "null", "None", "<NA>"})
"""Texts that programs write for a missing value."""
TEXT_ENDINGS = frozenset({"txt", "caption", "cap"})
"""Endings of text files beside stickers, as other trainers use them too."""
_NO_CAPTION_FILE = re.compile(
    "(read.?me|licen[cs]e|copying|notice|authors?|title|emoji|requirements)([-_.].*)?", re.IGNORECASE
)
# Invisible characters that reorder or pad what a person reads; the joiners that emoji and scripts need are kept.
_INVISIBLE = re.compile("[\u00ad\u061c\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff]")


@dataclass(frozen=True, slots=True)
class Caption:
    """Captions and metadata of a sticker.

    Attributes:
        texts: cleaned captions, best first. There is at least one; it is ``""`` if no caption is known.
        attributes: all other metadata fields. The fields of a dictionary ``attributes`` (or of its JSON) are merged
            into them.
        license: the licence in the metadata, or None.
        split: ``train``, ``val`` or ``test`` if the metadata demand it, or None.
        guessed: whether ``texts`` comes from the file name.
    """

    texts: tuple[str, ...]
    attributes: dict[str, Any] = field(default_factory=dict)
    license: str | None = None
    split: str | None = None
    guessed: bool = False


def clean_caption(text: str) -> str:
    """One line of NFC text of at most 4,096 characters, without control or direction-changing characters.

    Raises:
        ValueError: the text has a NUL or a lone surrogate, so it was cut or decoded wrongly.
    """
    text = text[: 4 * MAX_CHARACTERS]
    if "\0" in text:
        raise ValueError("the caption holds a NUL character")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError("the caption holds half of a surrogate pair")
    text = unicodedata.normalize("NFC", " ".join(_INVISIBLE.sub("", text).split()))
    text = "".join(character for character in text if unicodedata.category(character) != "Cc")
    return " ".join(text.split())[:MAX_CHARACTERS].strip()


def caption_from_name(path: PurePath) -> str:
    """The file name as words: underscores and dashes become spaces, trailing numbers are removed.

    Raises:
        ValueError: see :func:`clean_caption`.
    """
    words = re.sub(r"[_\-\s]+", " ", path.stem)
    return clean_caption(re.sub(r"(\s*\(?\d+\)?)+$", "", words))


def find_captions(
    tree: Tree,
    stickers: Sequence[str],
    problems: list[StickerError],
    columns: Sequence[str] = (),
    further: Mapping[str, dict[str, Any]] | None = None,
) -> Iterator[tuple[str, Caption]]:
    """Captions of ``stickers``, from the first of: metadata files, a text file beside, the emoji, the file name.

    Metadata files are called ``metadata`` or ``captions`` with the ending ``.jsonl``, ``.json``, ``.csv``, ``.tsv`` or
    ``.parquet``. They are for the files of their folder and the folders below; the nearest one wins. A sticker has an
    object or a row with the field ``file_name``; :func:`make_caption` explains the other fields.

    Args:
        tree: the files.
        stickers: sorted names in the tree.
        problems: this function appends bad metadata lines (with their number), texts that are not read or belong to no
            sticker, and stickers with unusable captions, which the result does not have. Paths are names in the tree.
        columns: fields of captions, instead of :data:`CAPTION_FIELDS`.
        further: metadata from other sources, by sticker. Metadata files have priority.

    Returns:
        an iterator of stickers and their captions.
    """
    entries: dict[int, tuple[dict[str, Any], str]] = {}
    named_by: dict[int, str] = {}
    metadata = [name for name in tree.names if is_metadata(name)]
    names, texts = _Names(stickers), _Texts(tree, stickers)
    for name in sorted(metadata, key=lambda name: (name.count("/"), name)):
        for where, entry in read_entries(tree, name, problems):
            position = names.find(posixpath.dirname(name), file_of(entry))
            if position is None:
                problems.append(StickerError(name, f"{where}: {file_of(entry)!r} is not among the stickers here"))
            elif named_by.get(position) == name:
                problems.append(StickerError(name, f"{where}: {file_of(entry)!r} was named before"))
            else:
                named_by[position] = name
                entries[position] = entry, f" ({posixpath.basename(name)}, {where})"
    for position, sticker in enumerate(stickers):
        entry, where = entries.get(position) or ((further or {}).get(sticker, {}), "")
        complaints: list[str] = []
        try:
            caption = make_caption(entry, sticker, columns, functools.partial(texts.of, sticker, problems), complaints)
        except ValueError as error:
            problems.append(StickerError(sticker, f"{error}{where}"))
        else:
            problems += [StickerError(sticker, f"{said}{where}") for said in complaints]
            yield sticker, caption
    problems += [StickerError(name, "belongs to no sticker, and is not read") for name in texts.left()]


class _Names:
    """Positions of names of files, which are also found in the spelling of other systems and programs."""

    def __init__(self, names: Sequence[str]) -> None:
        self.positions = {name: position for position, name in enumerate(names)}
        self.alike: dict[str, int | None] = {}
        for name, position in self.positions.items():
            key = _alike(name)
            self.alike[key] = None if key in self.alike else position

    def find(self, folder: str, name: str) -> int | None:
        """The position of a name relative to a folder, or None.

        The name may have backslashes, another Unicode form, other case, or URL quotes. An ambiguous name gives None.
        """
        ways = dict.fromkeys((name, name.replace("\\", "/"), unquote(name)))
        paths = [posixpath.normpath(posixpath.join(folder, way)) for way in ways]
        found = [self.positions[path] for path in paths if path in self.positions]
        return next(iter([*found, *(self.alike[key] for key in map(_alike, paths) if key in self.alike)]), None)


class _Texts:
    """The text files of a tree, and their stickers."""

    def __init__(self, tree: Tree, stickers: Sequence[str]) -> None:
        self.tree, self.stickers = tree, stickers
        self.stems = set(map(_stem, stickers))
        self.files: dict[str, list[str]] = {}
        self.used: set[str] = set()
        for name in tree.names:
            stem, _, ending = name.rpartition(".")
            if ending.lower() in TEXT_ENDINGS and not _NO_CAPTION_FILE.fullmatch(posixpath.basename(stem)):
                self.files.setdefault(_alike(stem), []).append(name)

    def of(self, sticker: str, problems: list[StickerError]) -> str:
        """The cleaned text beside a sticker; empty if there is none."""
        stems = [_stem(sticker), sticker]
        if isinstance(self.tree, ArchiveTree):  # WebDataset: the name up to the first dot
            stems.append(self._key(sticker))
        for stem in dict.fromkeys(stems):
            for name in self.files.get(_alike(stem), []):
                own = name.rpartition(".")[0]
                if own == stem or own not in self.stems:  # another sticker has exactly this name
                    self.used.add(name)
                    try:
                        return clean_caption(_text_file(self.tree, name))
                    except ValueError as error:
                        problems.append(StickerError(name, f"{error}; the sticker is kept without it"))
                        return ""
        return ""

    @staticmethod
    def _key(sticker: str) -> str:
        folder, last = posixpath.split(sticker)
        return posixpath.join(folder, last.lstrip(".").partition(".")[0])

    def left(self) -> list[str]:
        """Sorted texts that belong to no sticker. A text beside a sticker belongs to it even if it is not used."""
        stems = {_alike(stem) for sticker in self.stickers for stem in (sticker, _stem(sticker))}
        if isinstance(self.tree, ArchiveTree):
            stems |= {_alike(self._key(sticker)) for sticker in self.stickers}
        return sorted(name for key, names in self.files.items() if key not in stems for name in {*names} - self.used)


def _stem(name: str) -> str:
    """A name without its ending. Dots in folder names do not count."""
    folder, last = posixpath.split(name)
    return posixpath.join(folder, last.rpartition(".")[0] or last)


def _alike(name: str) -> str:
    """A key that is equal for names that differ only in Unicode form and case."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def make_caption(
    entry: Mapping[str, Any],
    sticker: str,
    columns: Sequence[str] = (),
    beside: Callable[[], str] | None = None,
    complaints: list[str] | None = None,
) -> Caption:
    """The caption of a sticker from a metadata entry.

    The first caption is the first field of ``columns`` (or of :data:`CAPTION_FIELDS`) with a text, a list of texts, or
    an object of texts by language. Other captions come from the other ``columns`` and from fields such as
    ``caption_zh``. An emoji in a caption or in tags (fields ``emoji``, ``tags`` and the like) adds its English name.
    ``license`` and ``split`` have their meaning; every other field is an attribute.

    Args:
        entry: the fields.
        sticker: name of the sticker, which is the caption if there is no other.
        columns: fields of captions.
        beside: returns the text of a file beside the sticker; called if the entry has no caption.
        complaints: this function appends sentences about values that are no text.

    Raises:
        ValueError: a caption was cut, or ``license`` or ``split`` has an impossible value.
    """
    rest = {key: value for key, value in entry.items() if key != file_field(entry)}
    first = next((key for key in (columns or CAPTION_FIELDS) if rest.get(key)), None)
    further = [key for key in rest if re.match("(caption|text)_", key)]
    texts: list[str] = []
    for key in [first, *(columns or ()), *sorted(further)]:
        if key is not None and key in rest:
            texts += _texts(key, rest.pop(key), complaints)
    for key in ("caption", "text"):
        if not rest.get(key, True):
            del rest[key]  # an empty field
    if not texts and beside is not None:
        texts = [beside()]
    tags = [tag for key in _TAG_FIELDS for tag in _tags(rest.get(key))]
    texts += [name for name in map(emoji_name, texts + tags[:MAX_TAGS]) if name]
    said: dict[str, str] = {}
    for text in filter(None, texts):
        said.setdefault(text.casefold(), text)
    licence, split = rest.pop("license", None), rest.pop("split", None)
    if split is not None and str(split).casefold() not in SPLIT_NAMES:
        raise ValueError(f"the split {split!r} is none of {', '.join(SPLITS)}")
    nested = rest.pop("attributes", None)
    if isinstance(nested, str) and nested:
        nested = _json_text(nested)
    if nested and not isinstance(nested, dict):
        raise ValueError("the field 'attributes' is not an object")
    rest.pop("durations", None)  # in our own exports; the file has its times
    return Caption(
        tuple(said.values()) or (caption_from_name(PurePosixPath(sticker)),),
        {**rest, **(nested or {})},
        None if licence is None else clean_caption(str(licence)) or None,
        None if split is None else SPLIT_NAMES[str(split).casefold()],
        not said,
    )


def _json_text(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=no_value)
    except (ValueError, RecursionError):
        raise ValueError("the field 'attributes' is text, but no JSON that can be read") from None


def _texts(key: str, value: Any, complaints: list[str] | None) -> list[str]:
    """The texts of a field. Numbers become text. Null, and what pandas writes for it, are no text."""
    if isinstance(value, dict) and not any(isinstance(text, dict) for text in value.values()):
        return [text for inner in value.values() for text in _texts(key, inner, complaints)]
    texts: list[str] = []
    for text in value if isinstance(value, list) else [value]:
        if isinstance(text, int | float) and not isinstance(text, bool) and math.isfinite(text):
            text = str(text)
        if isinstance(text, str):
            if text.strip() and text.strip() not in _NO_TEXT:
                texts.append(clean_caption(text))
        elif text is not None and not isinstance(text, float) and complaints is not None:
            complaints.append(f"the field {key!r} is not text; the sticker is kept without it")
    return texts


def _tags(value: Any) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [tag for tag in values if isinstance(tag, str) and len(tag) <= MAX_CHARACTERS]


def _text_file(tree: Tree, name: str) -> str:
    with tree.open(name) as stream:
        head = stream.read(16 * MAX_CHARACTERS + 1)
    # Only a text cut off here may end within a character.
    errors = "ignore" if len(head) > 16 * MAX_CHARACTERS else "strict"
    try:
        return head.decode("utf-8-sig", errors)
    except UnicodeDecodeError as error:
        raise ValueError("is not UTF-8 text; save it as UTF-8") from error
