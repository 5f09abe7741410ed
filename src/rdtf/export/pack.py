"""Sticker packs: as many files as a messenger takes, their emoji and texts, and the pictures of the pack.

Nothing is sent anywhere. A pack is a folder. Some messengers get a ZIP file beside it that their app or website takes.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from rdtf.export.search import Export, export_sticker
from rdtf.export.target import PackRules, Picture, Target
from rdtf.files import atomic_file, write_text
from rdtf.sticker import Sticker

FALLBACK_EMOJI = "\N{SPARKLES}"
_WHATSAPP_BLANK = ("publisher_email", "publisher_website", "privacy_policy_website", "license_agreement_website")


@dataclass(frozen=True)
class PackSticker:
    """One sticker of a pack.

    Attributes:
        name: of its source, for messages. sticker: as it was read. export: its file for the target.
        caption: in words. emoji: that it stands for.
    """

    name: str
    sticker: Sticker
    export: Export
    caption: str = ""
    emoji: tuple[str, ...] = ()


@dataclass
class PackReport:
    """What was written: the folders of packs, and what was left out and why."""

    packs: list[Path] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)


def emoji_of(attributes: dict[str, Any], caption: str, most: int) -> tuple[str, ...]:
    """The emoji of a sticker: from its metadata, in its caption, or the one whose name the caption is."""
    import emoji  # its table takes a moment to load

    found: list[str] = []
    for value in (attributes.get("emoji"), attributes.get("emojis"), caption):
        texts = value if isinstance(value, list) else [value]
        found += [match["emoji"] for text in texts if isinstance(text, str) for match in emoji.emoji_list(text)]
    if not found:
        named = emoji.emojize(f":{re.sub(r'[^a-z0-9]+', '_', caption.lower()).strip('_')}:")
        found = [match["emoji"] for match in emoji.emoji_list(named)]
    return tuple(dict.fromkeys(found or [FALLBACK_EMOJI]))[:most]


def check_texts(target: Target, name: str, author: str) -> PackRules:
    """The rules of a target's packs.

    Raises:
        ValueError: the target knows no packs, or a text is empty or too long.
    """
    if target.pack is None:
        raise ValueError(f"{target.title}: there are no packs of it; use rdtf export")
    most = target.pack.name_characters
    for label, text in (("name", name), ("author", author)):
        if not text.strip() or len(text) > most:
            raise ValueError(f"--{label} has to have 1 to {most} characters, not {len(text)}")
    return target.pack


def write_packs(
    stickers: Sequence[PackSticker], target: Target, target_name: str, out: Path, *, name: str, author: str
) -> PackReport:
    """Write as many packs as the stickers fill.

    Args:
        out: a new or empty folder; each pack is a folder in it.

    Raises:
        ValueError: the target knows no packs, or there are too few stickers for one.
    """
    rules = check_texts(target, name, author)
    report = PackReport()
    kinds = [list(stickers)]
    if rules.one_kind:
        kinds = [[s for s in stickers if (s.export.frames > 1) is moving] for moving in (True, False)]
    for kind in kinds:
        groups, rest = _grouped(kind, rules)
        for sticker in rest:
            allowed = ", ".join(map(str, rules.counts)) or f"{rules.min} to {rules.max}"
            report.left_out[sticker.name] = f"a pack of {target.title} holds {allowed}; this one does not fill another"
        for group in groups:
            number = len(report.packs) + 1
            folder = out / (f"{_slug(name)}-{number}" if len(stickers) > len(group) else _slug(name))
            _write_pack(group, target, target_name, rules, folder, name, author)
            report.packs.append(folder)
    if not report.packs:
        raise ValueError(f"{len(stickers)} stickers are too few; a pack of {target.title} holds {rules.min} or more")
    return report


def _grouped(stickers: list[PackSticker], rules: PackRules) -> tuple[list[list[PackSticker]], list[PackSticker]]:
    """Packs that are as full as they may be, none below the minimum, and what is left over."""
    groups: list[list[PackSticker]] = []
    rest = stickers
    while len(rest) >= rules.min:
        size = min(len(rest), rules.max)
        if rules.counts:
            size = max((count for count in rules.counts if count <= size), default=0)
        elif 0 < len(rest) - size < rules.min <= size - (rules.min - (len(rest) - size)):
            size -= rules.min - (len(rest) - size)  # so that the last pack reaches the minimum
        if not size:
            break
        groups.append(rest[:size])
        rest = rest[size:]
    return groups, rest


def _write_pack(
    group: Sequence[PackSticker],
    target: Target,
    target_name: str,
    rules: PackRules,
    folder: Path,
    name: str,
    author: str,
) -> None:
    folder.mkdir(parents=True)
    files: dict[str, bytes] = {}
    entries = []
    for number, sticker in enumerate(group, 1):
        file = f"{number:02d}{target.suffix}"
        files[file] = sticker.export.data
        most = rules.alt_characters if sticker.export.frames > 1 else rules.still_alt_characters
        entries.append({"file": file, "emoji": list(sticker.emoji), "text": sticker.caption[:most]})
    first = group[0].sticker
    pictures = {"tray.png": rules.tray, "tab.png": rules.tab}
    files |= {file: _still(first, picture) for file, picture in pictures.items() if picture is not None}
    if rules.main is not None:
        other = {"canvas": rules.main.canvas, "max_bytes": rules.main.max_bytes}
        files["main.png"] = export_sticker(first, target.model_copy(update=other)).data
    for file, data in files.items():
        with atomic_file(folder / file) as stream:
            stream.write(data)
    facts = {"target": target_name, "name": name, "author": author, "stickers": entries}
    write_text(folder / "pack.json", json.dumps(facts, ensure_ascii=False, indent=1) + "\n")
    if target_name == "whatsapp":
        contents = _whatsapp_contents(group, entries, folder.name, name, author)
        write_text(folder / "contents.json", json.dumps(contents, ensure_ascii=False, indent=1) + "\n")
        files |= {"title.txt": name.encode(), "author.txt": author.encode()}
        _write_zip(folder.with_suffix(".wastickers"), files)
    if rules.zip_bytes is not None:
        size = _write_zip(folder.with_suffix(".zip"), files)
        if size > rules.zip_bytes:
            raise ValueError(f"{folder}.zip has {size:,} bytes; {target.title} takes at most {rules.zip_bytes:,}")


def _whatsapp_contents(
    group: Sequence[PackSticker], entries: list[dict[str, Any]], identifier: str, name: str, author: str
) -> dict[str, Any]:
    """``contents.json`` of WhatsApp's sample app, https://github.com/WhatsApp/stickers."""
    stickers = [
        {"image_file": entry["file"], "emojis": entry["emoji"], "accessibility_text": entry["text"]}
        for entry in entries
    ]
    pack = {
        "identifier": identifier,
        "name": name,
        "publisher": author,
        "tray_image_file": "tray.png",
        "image_data_version": "1",
        "avoid_cache": False,
        **dict.fromkeys(_WHATSAPP_BLANK, ""),
        "animated_sticker_pack": group[0].export.frames > 1,
        "stickers": stickers,
    }
    return {"android_play_store_link": "", "ios_app_store_link": "", "sticker_packs": [pack]}


def _still(sticker: Sticker, picture: Picture) -> bytes:
    """The fullest frame as a small PNG."""
    fullest = int(sticker.frames[..., 3].mean((1, 2)).argmax())
    rules: dict[str, Any] = {"canvas": picture.canvas, "max_bytes": picture.max_bytes, "source": "", "checked_on": ""}
    target = Target(title="picture of a pack", format="apng", **rules)
    return export_sticker(Sticker(sticker.frames[fullest][None], np.array([1000.0])), target).data


def _write_zip(path: Path, files: dict[str, bytes]) -> int:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data)
    with atomic_file(path) as stream:
        stream.write(buffer.getvalue())
    return len(buffer.getvalue())


def _slug(name: str) -> str:
    return re.sub(r"\W+", "-", name.lower()).strip("-")[:60] or "pack"
