"""Stickers of several files in a folder or an archive: frames, sprite sheets, Lottie with pictures."""

from __future__ import annotations

import json
import posixpath
import re
import zipfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal

from rdtf.data.captions import TEXT_ENDINGS, Caption
from rdtf.data.items import Item
from rdtf.data.metadata_files import is_metadata
from rdtf.files import raise_shortage
from rdtf.io.archives import Tree
from rdtf.io.multifile import MAX_JSON_BYTES, PICTURES, TIMINGS, frame_order, read_sheet_json, sheet_animations
from rdtf.io.read import SUFFIXES, lottie_animations
from rdtf.progress import printable
from rdtf.sticker import StickerError

_SIDECARS = frozenset(
    {
        *(f".{ending}" for ending in TEXT_ENDINGS),
        ".md",
        ".rst",
        ".jsonl",
        ".csv",
        ".tsv",
        ".html",
        ".yaml",
        ".yml",
        ".cls",
    }
)
_ASSET = re.compile(r"(.*/)?images/[^/]+\.(?:png|jpe?g|webp)", re.IGNORECASE)
_SIDECAR_NAMES = frozenset({"readme", "license", "licence", "copying", "notice", "authors", "thumbs.db", "desktop.ini"})


class Groups:
    """Files of a tree that belong together, and the items of each sticker.

    Attributes:
        stickers: names of stickers of several files. A folder of frames has the folder's name.
        taken: files of these stickers.
        sidecars: JSON files that describe the picture of the same name (as in WebDataset).
        sidecars_of: content of the sidecars, by picture.
        pictures: files of a folder ``images`` that a Lottie beside the folder draws.
        problems: JSON files that cannot be read.
    """

    def __init__(self, tree: Tree, others: set[str]) -> None:
        self.tree = tree
        self.stickers: dict[str, tuple[Literal["frames", "sheet"], list[str]]] = {}
        self.taken: set[str] = set()
        self.sidecars: set[str] = set()
        self.sidecars_of: dict[str, dict[str, Any]] = {}
        self.problems: list[StickerError] = []
        self._animations: dict[str, list[str]] = {}
        names = [name for name in tree.names if name not in others]
        self.pictures = self._lottie_pictures(names)
        self._find_frames(names)
        self._find_sheets([name for name in names if name not in self.taken])

    def _lottie_pictures(self, names: Sequence[str]) -> set[str]:
        assets = {name for name in names if _ASSET.fullmatch(name)}
        folders = {name.rpartition("/")[0].rpartition("/")[0] for name in assets}
        drawn: set[str] = set()
        for name in names:
            folder = name.rpartition("/")[0]
            if folder not in folders or ending_of(name) != ".json":
                continue
            try:
                with self.tree.open(name) as stream:
                    known = json.loads(stream.read(MAX_JSON_BYTES))
                listed = known["assets"]
                paths = [f"{asset.get('u') or 'images/'}/{asset['p']}" for asset in listed if "p" in asset]
            except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
                raise_shortage(error, name)
                continue  # no Lottie with pictures; reading the file will report errors
            drawn |= {posixpath.normpath(posixpath.join(folder, path)) for path in paths} & assets
        return drawn

    def _find_frames(self, names: Sequence[str]) -> None:
        folders: dict[str, list[str]] = defaultdict(list)
        every_folder = {name.rpartition("/")[0] for name in names}
        others_than_frames = {"", *(folder.rpartition("/")[0] for folder in every_folder)}
        for name in names:
            folder, _, last = name.rpartition("/")
            if folder not in others_than_frames:
                folders[folder].append(last)
        for folder, here in folders.items():
            pictures = [name for name in here if ending_of(name) in PICTURES]
            timing = next((name for name in TIMINGS if name in here), None)
            if any(ending_of(name) not in PICTURES and name != timing and not is_sidecar(name) for name in here):
                continue
            order = frame_order(folder, pictures, timing is not None)
            if order is not None:
                files = [f"{folder}/{name}" for name in [*order, *([timing] if timing else [])]]
                self.stickers[folder] = "frames", files
                self.taken |= {*files}

    def _find_sheets(self, names: Sequence[str]) -> None:
        described = {name.rpartition(".")[0] for name in names if name.lower().endswith(".json")}
        pictures = {
            stem: name for name in names if (stem := name.rpartition(".")[0]) in described and _is_described(name)
        }
        for name in names:
            stem, _, ending = name.rpartition(".")
            if ending.lower() != "json" or stem not in pictures:
                continue
            picture = pictures[stem]
            try:
                with self.tree.open(name) as stream:
                    data = stream.read(MAX_JSON_BYTES + 1)
                if len(data) > MAX_JSON_BYTES:
                    raise ValueError("too large")
                sheet = read_sheet_json(data)
                content = json.loads(data) if sheet is None else None
            except (OSError, ValueError) as error:
                raise_shortage(error, name)
                self.problems.append(StickerError(name, f"is no JSON that can be read ({error})"))
                self.sidecars.add(name)
                continue
            if sheet is not None:
                self.stickers[picture] = "sheet", [picture, name]
                self.taken.add(name)
                self._animations[picture] = sheet_animations(sheet)
            elif isinstance(content, dict) and not ("layers" in content and "fr" in content):
                self.sidecars.add(name)
                self.sidecars_of[picture] = content

    def items(self, sticker: str, name: str, caption: Caption) -> Iterator[Item]:
        """The items of a sticker's file: one, or one for each of its animations."""
        shown = printable(name)
        if sticker in self.stickers:
            kind, files = self.stickers[sticker]
            parts = [(posixpath.basename(file), *self.tree.place(file)) for file in files]
            _, file, member = parts[0]
            item = Item(shown, file, caption, member, kind, tuple(parts))
            animations = self._animations.get(sticker, [])
        else:
            file, member = self.tree.place(sticker)
            item = Item(shown, file, caption, member)
            animations = self._lottie_animations(sticker) if sticker.lower().endswith(".lottie") else []
        if len(animations) == 1:
            item = replace(item, animation=animations[0])
        if len(animations) < 2:
            yield item
            return
        for animation in animations:
            yield replace(item, name=printable(f"{name}/{animation}"), animation=animation)

    def _lottie_animations(self, sticker: str) -> list[str]:
        try:
            with self.tree.open(sticker) as stream:
                return lottie_animations(stream)
        except (OSError, ValueError, KeyError, TypeError, RecursionError, zipfile.BadZipFile) as error:
            raise_shortage(error, sticker)
            return []  # reading the file will report the error


def ending_of(name: str) -> str:
    """The ending of a name with its dot, in lower case. A leading dot begins no ending."""
    last = name.rpartition("/")[2].lower()
    stem, dot, ending = last.rpartition(".")
    return dot + ending if stem.strip(".") and ending else ""


def is_sidecar(name: str) -> bool:
    """Whether the name is that of a file beside stickers: captions, metadata, read-mes."""
    return ending_of(name) in _SIDECARS or posixpath.basename(name).lower() in _SIDECAR_NAMES or is_metadata(name)


def _is_described(name: str) -> bool:
    """Whether a JSON of the same name may describe this file."""
    ending = ending_of(name)
    return ending in SUFFIXES and ending != ".json"
