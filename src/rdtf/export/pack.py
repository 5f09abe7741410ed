"""Sticker packs: as many files as a messenger takes, their emoji and texts, and the pictures of the pack.

Nothing is sent anywhere. A pack is a folder. Some messengers get a ZIP file beside it that their app or website takes.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from rdtf.emoji_names import emoji_called, emoji_in
from rdtf.export.batch import Source
from rdtf.export.search import Export, export_sticker
from rdtf.export.target import PackRules, Picture, Target
from rdtf.files import atomic_file, write_bytes, write_text
from rdtf.sticker import Sticker

FALLBACK_EMOJI = "\N{SPARKLES}"
_WHATSAPP_BLANK = ("publisher_email", "publisher_website", "privacy_policy_website", "license_agreement_website")


Made = Sequence[tuple[Source, Export]]
"""Stickers with their files for a target."""


@dataclass
class PackReport:
    """What was written: the folders of packs, and what was left out and why."""

    packs: list[Path] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)


def emoji_of(attributes: dict[str, Any], caption: str, most: int) -> tuple[str, ...]:
    """The emoji of a sticker: from its metadata, from its caption, or the one that the caption names before a style."""
    found: list[str] = []
    for value in (attributes.get("emoji"), attributes.get("emojis"), caption):
        texts = value if isinstance(value, list) else [value]
        found += [character for text in texts if isinstance(text, str) for character in emoji_in(text)]
    named = emoji_called(caption) or emoji_called(caption.rpartition(", ")[0])
    return tuple(dict.fromkeys(found or [named or FALLBACK_EMOJI]))[:most]


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
    results: Iterable[tuple[Source, Export | str]],
    target: Target,
    target_name: str,
    out: Path,
    *,
    name: str,
    author: str,
) -> PackReport:
    """Write as many packs as the stickers fill.

    Args:
        results: stickers with their files for the target, or with the reasons why they have none.
        out: a new or empty folder; each pack is a folder in it.

    Raises:
        ValueError: the target knows no packs, or there are too few stickers for one.
    """
    rules = check_texts(target, name, author)
    report = PackReport()
    stickers: list[tuple[Source, Export]] = []
    for source, result in results:
        if isinstance(result, str):
            report.left_out[source.name] = result
        else:
            stickers.append((source, result))
    kinds: list[Made] = [stickers]
    if rules.one_kind:
        kinds = [[s for s in stickers if (s[1].frames > 1) is moving] for moving in (True, False)]
    for kind in kinds:
        groups, rest = _grouped(kind, rules)
        allowed = ", ".join(map(str, rules.counts)) or f"{rules.min} to {rules.max}"
        reason = f"a pack of {target.title} holds {allowed}; this one does not fill another"
        report.left_out |= {source.name: reason for source, _ in rest}
        for group in groups:
            number = f"-{len(report.packs) + 1}" if len(stickers) > len(group) else ""
            folder = out / f"{_slug(name)}{number}"
            _write_pack(group, target, rules, folder, {"target": target_name, "name": name, "author": author})
            report.packs.append(folder)
    if not report.packs:
        raise ValueError(f"{len(stickers)} stickers are too few; a pack of {target.title} holds {rules.min} or more")
    return report


def _grouped(stickers: Made, rules: PackRules) -> tuple[list[Made], Made]:
    """Packs that are as full as they may be, none below the minimum, and what is left over."""
    groups: list[Made] = []
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


def _write_pack(group: Made, target: Target, rules: PackRules, folder: Path, about: dict[str, Any]) -> None:
    """Write a pack's folder; ``about`` has the names of target, pack and author."""
    folder.mkdir(parents=True)
    files: dict[str, bytes] = {}
    entries = []
    for number, (source, export) in enumerate(group, 1):
        file = f"{number:02d}{target.suffix}"
        files[file] = export.data
        most = rules.alt_characters if export.frames > 1 else rules.still_alt_characters
        emoji = emoji_of(dict(source.attributes), source.caption, max(1, rules.emoji[1]))
        entries.append({"file": file, "emoji": list(emoji), "text": source.caption[:most]})
    first = group[0][0].read()
    pictures = {"tray.png": rules.tray, "tab.png": rules.tab}
    files |= {file: _still(first, picture) for file, picture in pictures.items() if picture is not None}
    if rules.main is not None:
        other = {"canvas": rules.main.canvas, "max_bytes": rules.main.max_bytes}
        files["main.png"] = export_sticker(first, target.model_copy(update=other)).data
    for file, data in files.items():
        write_bytes(folder / file, data)
    write_text(folder / "pack.json", _json({**about, "stickers": entries}))
    if about["target"] == "whatsapp":
        moves = group[0][1].frames > 1
        write_text(folder / "contents.json", _json(_whatsapp_contents(entries, folder.name, about, moves)))
        files |= {"title.txt": about["name"].encode(), "author.txt": about["author"].encode()}
        _write_zip(folder.with_suffix(".wastickers"), files)
    if rules.zip_bytes is not None:
        size = _write_zip(folder.with_suffix(".zip"), files)
        if size > rules.zip_bytes:
            raise ValueError(f"{folder}.zip has {size:,} bytes; {target.title} takes at most {rules.zip_bytes:,}")


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=1) + "\n"


def _whatsapp_contents(
    entries: list[dict[str, Any]], identifier: str, about: dict[str, Any], moves: bool
) -> dict[str, Any]:
    """``contents.json`` of WhatsApp's sample app, https://github.com/WhatsApp/stickers."""
    names = {"file": "image_file", "emoji": "emojis", "text": "accessibility_text"}
    pack = {
        "identifier": identifier,
        "name": about["name"],
        "publisher": about["author"],
        "tray_image_file": "tray.png",
        "image_data_version": "1",
        "avoid_cache": False,
        **dict.fromkeys(_WHATSAPP_BLANK, ""),
        "animated_sticker_pack": moves,
        "stickers": [{names[key]: value for key, value in entry.items()} for entry in entries],
    }
    return {"android_play_store_link": "", "ios_app_store_link": "", "sticker_packs": [pack]}


def _still(sticker: Sticker, picture: Picture) -> bytes:
    """The fullest frame as a small PNG."""
    fullest = int(sticker.frames[..., 3].mean((1, 2)).argmax())
    rules: dict[str, Any] = {"canvas": picture.canvas, "max_bytes": picture.max_bytes, "source": "", "checked_on": ""}
    target = Target(title="picture of a pack", format="apng", **rules)
    return export_sticker(Sticker(sticker.frames[fullest][None], np.array([1000.0])), target).data


def _write_zip(path: Path, files: dict[str, bytes]) -> int:
    """Write an archive; returns its bytes."""
    with atomic_file(path) as stream, zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data)
    return path.stat().st_size


def _slug(name: str) -> str:
    return re.sub(r"\W+", "-", name.lower()).strip("-")[:60] or "pack"
