"""Find the words for each sticker file of a folder, clean them, and say which captions forbid a mirror image."""

from __future__ import annotations

import json
import os
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from rdtf.sticker import StickerError

METADATA = "metadata.jsonl"
MAX_CHARACTERS = 4096
MAX_LINE_BYTES = 1 << 20
SPLITS = ("train", "val", "test")
_SPLIT_NAMES = {name: name for name in SPLITS} | {"training": "train", "valid": "val", "validation": "val"}

# Invisible characters that reorder or pad what a person reads; the joiners that emoji and scripts need are kept.
_INVISIBLE = re.compile("[\u00ad\u061c\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff]")

_ONE_SIDED = frozenset(
    """
    left leftward right rightward clockwise counterclockwise anticlockwise east west arrow text letter word alphabet
    abc abcd latin caption writing written says saying spelling calligraphy number numeral numeric digit hundred
    button keycap key keyboard sign signpost symbol logo label badge mark flag clock watch stopwatch timer thirty
    calendar date newspaper book map globe chart score note treble quarter crescent dollar euro pound yen currency
    banknote atm sos medal ticket circled copyright registered zodiac aries taurus gemini cancer leo virgo libra
    scorpio sagittarius capricorn aquarius pisces ophiuchus off wc dvd mail email closet parking information slot
    bars gibbous yin prohibited no eighteen om taxi mahjong lowercase uppercase
    """.split()  # noqa: SIM905 - a list literal of these would be eighty lines
)
_ONE_SIDED_CHINESE = re.compile(
    "[左右東东西字旗钟鐘号號]|箭头|箭頭|按钮|按鈕|按键|按鍵|键帽|鍵帽|标志|標誌|标识|標識|标记|標記|标牌|招牌|顺时针|順時針|逆时针|"
    "逆時針|手表|手錶|日历|日曆|地图|地圖|报纸|報紙|音符|星座"
)
_CAPITALS = re.compile(r"\b(?:[A-Z]{2,}|[B-HJ-Z])\b")


@dataclass(frozen=True)
class Caption:
    """What is known in words about one sticker file.

    Attributes:
        texts: cleaned captions, best first; never empty, but the only text is ``""`` if nothing is known.
        attributes: every other metadata field; the fields of a dict named ``attributes`` are taken in one by one.
        license: licence as the metadata names it, or None.
        split: ``train``, ``val`` or ``test`` where the metadata demands one, or None.
    """

    texts: tuple[str, ...]
    attributes: dict[str, Any] = field(default_factory=dict)
    license: str | None = None
    split: str | None = None


def clean_caption(text: str) -> str:
    """One line of NFC text of at most 4,096 characters, without control or direction-changing characters.

    Raises:
        ValueError: the text holds a NUL or a lone surrogate: it was cut or wrongly decoded, and is not trusted.
    """
    text = text[: 4 * MAX_CHARACTERS]
    if "\0" in text:
        raise ValueError("the caption holds a NUL character")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError("the caption holds half of a surrogate pair")
    text = unicodedata.normalize("NFC", " ".join(_INVISIBLE.sub("", text).split()))
    text = "".join(character for character in text if unicodedata.category(character) != "Cc")
    return " ".join(text.split())[:MAX_CHARACTERS].strip()


def is_flippable(caption: str) -> bool:
    """Whether a sticker of this caption may be mirrored left to right without its caption becoming wrong.

    False for sides and turns, for anything that carries writing or digits, for flags, clocks and the like, in
    English and Chinese. In doubt false: a flip that is left out costs little, mirrored writing is learned.
    """
    if _CAPITALS.search(caption) or _ONE_SIDED_CHINESE.search(caption):
        return False
    if any(unicodedata.category(character).startswith("N") for character in caption):
        return False
    words = re.findall(r"[^\W\d_]+", caption.casefold())
    return not any(word in _ONE_SIDED or word.removesuffix("s") in _ONE_SIDED for word in words)


def caption_from_name(path: Path) -> str:
    """The file name as words: underscores and dashes become spaces, trailing numbers go.

    Raises:
        ValueError: see :func:`clean_caption`.
    """
    words = re.sub(r"[_\-\s]+", " ", path.stem)
    return clean_caption(re.sub(r"(\s*\(?\d+\)?)+$", "", words))


def find_captions(root: Path, files: Sequence[Path]) -> tuple[dict[Path, Caption], list[StickerError]]:
    """Captions for ``files`` (below ``root``): from ``metadata.jsonl``, else a ``.txt`` beside, else the name.

    A ``metadata.jsonl`` speaks for the files of its folder and the folders below; the nearest one wins. Its lines
    are objects with ``file_name`` and ``caption`` (or ``text``); ``caption_*`` are further captions, ``license``
    and ``split`` are understood, every other field is kept as an attribute.

    Returns:
        The captions by file, and the problems: bad metadata lines (with their number), and the files whose caption
        cannot be used, which are then missing among the captions.
    """
    wanted = set(files)
    entries: dict[Path, tuple[dict[str, Any], Path, int]] = {}
    problems: list[StickerError] = []
    folders = {parent for file in files for parent in file.parents if parent.is_relative_to(root)} | {root}
    for folder in sorted(folders, key=lambda folder: (len(folder.parts), folder)):
        metadata = folder / METADATA
        if not _inside(metadata, root):
            continue
        here: set[Path] = set()
        for number, entry in _metadata_lines(metadata, problems):
            file = Path(os.path.normpath(folder / entry["file_name"]))
            if file not in wanted:
                problems.append(
                    StickerError(metadata, f"line {number}: {entry['file_name']!r} is not among the stickers here")
                )
            elif file in here:
                problems.append(StickerError(metadata, f"line {number}: {entry['file_name']!r} was named before"))
            else:
                here.add(file)
                entries[file] = entry, metadata, number
    captions: dict[Path, Caption] = {}
    for file in files:
        entry, where, number = entries.get(file, ({}, file, 0))
        try:
            captions[file] = _caption(file, entry, root)
        except ValueError as error:
            reason = f"{error} ({where.name}, line {number})" if number else str(error)
            problems.append(StickerError(file, reason))
    return captions, problems


def _caption(file: Path, entry: dict[str, Any], root: Path) -> Caption:
    rest = {key: value for key, value in entry.items() if key != "file_name"}
    texts = []
    first = "caption" if rest.get("caption") else "text"
    for key in [first, *sorted(key for key in rest if key.startswith("caption_"))]:
        text = rest.pop(key, None)
        if text is not None and not isinstance(text, str):
            raise ValueError(f"the field {key!r} is not text")
        texts.append(clean_caption(text or ""))
    rest.pop("caption", None)
    texts = list(dict.fromkeys(text for text in texts if text))
    beside = file.with_suffix(".txt")
    if not texts and _inside(beside, root):
        with beside.open("rb") as stream:
            head = stream.read(16 * MAX_CHARACTERS + 1)
        # Only a text cut off here may end within a character.
        errors = "ignore" if len(head) > 16 * MAX_CHARACTERS else "strict"
        try:
            texts = [clean_caption(head.decode("utf-8-sig", errors))]
        except UnicodeDecodeError as error:
            raise ValueError(f"{beside.name} is not UTF-8 text") from error
    if not any(texts):
        texts = [caption_from_name(file)]
    licence, split = rest.pop("license", None), rest.pop("split", None)
    if split is not None and str(split).casefold() not in _SPLIT_NAMES:
        raise ValueError(f"the split {split!r} is none of {', '.join(SPLITS)}")
    nested = rest.pop("attributes", None)
    if nested is not None and not isinstance(nested, dict):
        raise ValueError("the field 'attributes' is not an object")
    return Caption(
        tuple(texts),
        {**rest, **(nested or {})},
        None if licence is None else clean_caption(str(licence)),
        None if split is None else _SPLIT_NAMES[str(split).casefold()],
    )


def _inside(file: Path, root: Path) -> bool:
    """Whether this is a file, and not a link to somewhere outside of the folder that the user named."""
    return file.is_file() and (not file.is_symlink() or file.resolve().is_relative_to(root.resolve()))


def _metadata_lines(metadata: Path, problems: list[StickerError]) -> Iterator[tuple[int, dict[str, Any]]]:
    with metadata.open("rb") as stream:
        number = 0
        while line := stream.readline(MAX_LINE_BYTES + 1):
            number += 1
            rest = line
            while rest and not rest.endswith(b"\n"):  # pass over what is left of a line that is too long
                rest = stream.readline(MAX_LINE_BYTES)
            if not line.strip():
                continue
            try:
                if len(line) > MAX_LINE_BYTES:
                    raise ValueError(f"longer than {MAX_LINE_BYTES:,} bytes")
                entry = json.loads(line.decode("utf-8-sig"), parse_constant=_no_constant)
                if not isinstance(entry, dict) or not isinstance(entry.get("file_name"), str):
                    raise ValueError("not an object with a 'file_name'")
            except (ValueError, RecursionError) as error:
                problems.append(StickerError(metadata, f"line {number}: {error or type(error).__name__}"))
            else:
                yield number, entry


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON value")
