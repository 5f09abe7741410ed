"""Metadata in exports of messengers: Telegram chats, WhatsApp packs."""

from __future__ import annotations

import json
import posixpath
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from rdtf.files import raise_shortage
from rdtf.io.archives import Tree
from rdtf.sticker import StickerError

TELEGRAM = "result.json"
WHATSAPP = ("contents.json", "sticker_packs.wasticker")
PACK_TEXTS = {"title.txt": "pack", "author.txt": "author"}
"""Text files of a ``.wastickers`` pack (and of sticker-convert) with the names of their attributes."""
PACK_EMOJI = "emoji.txt"
_MAX_NAME = 1024


@dataclass
class Exported:
    """Metadata from exports.

    Attributes:
        entries: fields by sticker, as in metadata files.
        others: files of an export that are no stickers: thumbnails, photos, tray pictures.
        problems: files that are damaged or missing from the export.
    """

    entries: dict[str, dict[str, Any]] = field(default_factory=dict)
    others: set[str] = field(default_factory=set)
    problems: list[StickerError] = field(default_factory=list)


def read_exports(tree: Tree) -> Exported:
    """Metadata of all exports in a tree.

    - Telegram's machine-readable chat export: ``result.json`` with messages whose ``media_type`` is ``sticker``. Other
      files below its folder are no stickers. Only the emoji of a message is kept.
    - WhatsApp's sample projects: ``contents.json`` or ``sticker_packs.wasticker`` with emoji and texts.
    - A pack with ``title.txt`` and ``author.txt`` (``.wastickers``), whose one PNG is the tray picture; with
      ``emoji.txt`` beside (sticker-convert), an emoji for each file.
    """
    exported = Exported()
    names = set(tree.names)
    for name in tree.names:  # sorted, so the names below a folder are neighbours
        folder, last = posixpath.split(name)
        if last == TELEGRAM:
            _telegram(tree, name, exported)
        elif last in WHATSAPP:
            _whatsapp(tree, name, names, exported)
        elif last == "title.txt" and posixpath.join(folder, "author.txt") in names:
            _pack(tree, folder, exported)
    return exported


def _below(tree: Tree, folder: str) -> list[str]:
    """Names of all files in a folder and its folders."""
    if not folder:
        return tree.names
    start, end = (bisect_left(tree.names, folder + mark) for mark in ("/", "0"))  # "0" is the character after "/"
    return tree.names[start:end]


def _json(tree: Tree, name: str, exported: Exported) -> dict[str, Any]:
    """An object; empty for other JSON, and for a damaged file, which becomes a problem."""
    try:
        with tree.open(name) as stream:
            content = json.load(stream)
    except (OSError, ValueError, RecursionError) as error:
        raise_shortage(error, name)
        reason = error.reason if isinstance(error, StickerError) else str(error)
        exported.problems.append(StickerError(name, f"is no JSON that can be read ({reason})"))
        return {}
    return content if isinstance(content, dict) else {}


def _objects(node: Any, *path: str) -> list[dict[str, Any]]:
    """The objects in the list at a path of keys; empty if there is none."""
    for key in path:
        node = node.get(key) if isinstance(node, dict) else None
    return [entry for entry in node if isinstance(entry, dict)] if isinstance(node, list) else []


def _telegram(tree: Tree, name: str, exported: Exported) -> None:
    content = _json(tree, name, exported)
    if not ("messages" in content or "chats" in content):
        return
    folder = posixpath.dirname(name)
    names = set(_below(tree, folder))
    stickers: dict[str, dict[str, Any]] = {}
    missing = 0
    for message in _messages(content):
        file = message.get("file")
        if message.get("media_type") != "sticker" or not isinstance(file, str):
            continue
        place = posixpath.normpath(posixpath.join(folder, file[:_MAX_NAME]))
        if place in names:
            stickers.setdefault(place, {"emoji": str(message.get("sticker_emoji") or "")})
        else:
            missing += 1
    if missing:
        reason = f"{missing:,} stickers are not in the export; export the chat again with its stickers ticked"
        exported.problems.append(StickerError(name, reason))
    exported.entries |= stickers
    exported.others |= names - stickers.keys()


def _messages(content: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for chat in [content, *_objects(content, "chats", "list")]:
        yield from _objects(chat, "messages")


def _whatsapp(tree: Tree, name: str, names: set[str], exported: Exported) -> None:
    content = _json(tree, name, exported)
    if not isinstance(content.get("sticker_packs"), list):
        return
    exported.others.add(name)
    above = posixpath.dirname(name)
    for pack in _objects(content, "sticker_packs"):
        folders = (posixpath.join(above, str(pack.get("identifier"))), above)

        def place(file: Any, folders: tuple[str, str] = folders) -> str | None:
            paths = (posixpath.normpath(posixpath.join(folder, str(file)[:_MAX_NAME])) for folder in folders)
            return next((path for path in paths if path in names), None)

        if (tray := place(pack.get("tray_image_file"))) is not None:
            exported.others.add(tray)
        about = {"pack": str(pack.get("name") or ""), "author": str(pack.get("publisher") or "")}
        for sticker in _objects(pack, "stickers"):
            file = sticker.get("image_file")
            where = place(file)
            if where is None:
                exported.problems.append(StickerError(name, f"{str(file)[:80]!r} is not among the stickers here"))
                continue
            emojis, words = sticker.get("emojis"), sticker.get("accessibility_text")
            entry = {"emojis": [str(e) for e in emojis] if isinstance(emojis, list) else []}
            exported.entries[where] = {**about, **entry} | ({"caption": words} if isinstance(words, str) else {})


def _pack(tree: Tree, folder: str, exported: Exported) -> None:
    below = f"{folder}/" if folder else ""
    here = {name for name in _below(tree, folder) if "/" not in name[len(below) :]}
    pictures = {name for name in here if name.lower().endswith(".png")}
    if len(pictures) == 1 and any(name.lower().endswith(".webp") for name in here):
        exported.others |= pictures
    about = {}
    for file, key in PACK_TEXTS.items():
        with tree.open(below + file) as stream:
            about[key] = " ".join(stream.read(4096).decode("utf-8", "replace").split())
    emoji = _json(tree, below + PACK_EMOJI, exported) if below + PACK_EMOJI in here else {}
    exported.others |= {below + file for file in (*PACK_TEXTS, PACK_EMOJI)} & here
    for name in here:
        known = emoji.get(posixpath.basename(name).rpartition(".")[0])
        exported.entries.setdefault(name, {**about, **({"emoji": known} if isinstance(known, str) else {})})
