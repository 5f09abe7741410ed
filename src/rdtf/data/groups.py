"""Stickers of several files in a folder or an archive: numbered frames, Lottie with pictures."""

from __future__ import annotations

import json
import posixpath
import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from rdtf.data.captions import TEXT_ENDINGS, Caption
from rdtf.data.items import Item
from rdtf.data.metadata_files import is_metadata
from rdtf.files import raise_shortage
from rdtf.io.archives import Tree
from rdtf.io.multifile import MAX_JSON_BYTES, PICTURES, TIMINGS, frame_order, is_sprite_sheet
from rdtf.io.read import SUFFIXES
from rdtf.progress import printable
from rdtf.sticker import StickerError

_SIDECARS = frozenset(
    [f".{ending}" for ending in TEXT_ENDINGS]
    + [".md", ".rst", ".jsonl", ".csv", ".tsv", ".html", ".yaml", ".yml", ".cls"]
)
_ASSET = re.compile(r"(.*/)?images/img_\d+\.(?:png|jpe?g|webp)", re.IGNORECASE)
_SIDECAR_NAMES = frozenset({"readme", "license", "licence", "copying", "notice", "authors", "thumbs.db", "desktop.ini"})


class Groups:
    """Files of a tree that belong together, and the items of each sticker.

    Attributes:
        frames: the files of each folder of frames, by the folder's name.
        taken: these files, and sprite sheets, which are refused.
        sidecars: JSON files that describe the picture of the same name (as in WebDataset).
        sidecars_of: content of the sidecars, by picture.
        pictures: files like ``images/img_0.png`` beside a JSON: parts of a Lottie, as After Effects names them.
        problems: JSON files that cannot be read, and sprite sheets.
    """

    def __init__(self, tree: Tree, others: set[str]) -> None:
        self.tree = tree
        self.frames: dict[str, list[str]] = {}
        self.taken: set[str] = set()
        self.sidecars: set[str] = set()
        self.sidecars_of: dict[str, dict[str, Any]] = {}
        self.problems: list[StickerError] = []
        names = [name for name in tree.names if name not in others]
        with_json = {name.rpartition("/")[0] for name in names if ending_of(name) == ".json"}
        assets = (_ASSET.fullmatch(name) for name in names)
        self.pictures = {match[0] for match in assets if match and (match[1] or "").rstrip("/") in with_json}
        self._find_frames(names)
        self._find_sidecars([name for name in names if name not in self.taken])

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
                self.frames[folder] = files
                self.taken |= {*files}

    def _find_sidecars(self, names: Sequence[str]) -> None:
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
                content = json.loads(data)
            except (OSError, ValueError, RecursionError) as error:
                raise_shortage(error, name)
                self.problems.append(StickerError(name, f"is no JSON that can be read ({error})"))
                self.sidecars.add(name)
                continue
            if is_sprite_sheet(content):
                self.problems.append(StickerError(picture, "a sprite sheet; export its frames as APNG, WebP or GIF"))
                self.taken |= {picture, name}
            elif isinstance(content, dict) and not ("layers" in content and "fr" in content):
                self.sidecars.add(name)
                self.sidecars_of[picture] = content

    def item(self, sticker: str, name: str, caption: Caption) -> Item:
        """The item of a sticker: a file of the tree, or a folder of :attr:`frames`."""
        parts = tuple((posixpath.basename(file), *self.tree.place(file)) for file in self.frames.get(sticker, ()))
        file, member = parts[0][1:] if parts else self.tree.place(sticker)
        return Item(printable(name), file, caption, member, parts)


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
