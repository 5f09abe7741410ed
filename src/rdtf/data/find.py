"""What a user names as sources (folders, archives, tables, files), turned into a list of stickers not read yet.

Finding looks at names and metadata alone, so it is quick and may run in the parent process. Decoding is what
:meth:`Item.read` does, and belongs into a worker.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import posixpath
import re
import zipfile
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from rdtf.data.captions import (
    SPLIT_NAMES,
    TEXT_ENDINGS,
    Caption,
    clean_caption,
    find_captions,
    is_metadata,
    make_caption,
)
from rdtf.data.dataset import Rejection
from rdtf.data.spool import Spool, without
from rdtf.files import raise_shortage
from rdtf.io.archives import ARCHIVES, ArchiveTree, FolderTree, Member, Tree, is_archive, read_member
from rdtf.io.imports import read_exports
from rdtf.io.multifile import (
    MAX_JSON_BYTES,
    PICTURES,
    TIMINGS,
    Piece,
    frame_order,
    read_frames,
    read_sheet,
    read_sheet_json,
    sheet_animations,
)
from rdtf.io.read import SUFFIXES, ReadLimits, lottie_animations, read_sticker, read_sticker_bytes
from rdtf.io.tables import Cell, read_cell, table_rows
from rdtf.progress import printable
from rdtf.sticker import Sticker, StickerError

TABLE = ".parquet"
KNOWN = (*sorted(SUFFIXES), *ARCHIVES, TABLE)
"""Endings of what can be a sticker or hold some."""

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
_OUR_TABLES = ("export.jsonl", "left_out.jsonl")  # ``rdtf data export`` writes them beside the metadata
_TABLES = (".jsonl", ".csv", ".tsv")
_UNFINISHED = (".crdownload", ".part", ".partial", ".download", ".opdownload")
_ASSET = re.compile(r"(.*/)?images/[^/]+\.(?:png|jpe?g|webp)", re.IGNORECASE)
_SIDECAR_NAMES = frozenset({"readme", "license", "licence", "copying", "notice", "authors", "thumbs.db", "desktop.ini"})
_SHARD_SPLIT = re.compile(rf"({'|'.join(SPLIT_NAMES)})-\d.*", re.IGNORECASE)

Part = tuple[str, str, Member | None]
"""One file of a sticker: its name without folders, the file on disk, and where in that."""


@dataclass(frozen=True, slots=True)
class Item:
    """One sticker of a source, found but not read. It is small and pickles.

    Attributes:
        name: the source's label and the path inside of it, as shown to people and stored in datasets.
        file: where it is on disk: the sticker itself, or the archive or table that holds it.
        caption: what is known in words.
        member: where in ``file``; None for the whole file.
        kind: a file of its own; numbered pictures; or a sprite sheet.
        parts: the pictures in order (and a JSON with their times), or the sheet and its JSON; ``file`` and ``member``
            are those of the first.
        animation: which of a file that holds several.
    """

    name: str
    file: str
    caption: Caption
    member: Member | Cell | None = None
    kind: Literal["file", "frames", "sheet"] = "file"
    parts: tuple[Part, ...] = ()
    animation: str | None = None

    @property
    def path(self) -> Path:
        """The file on disk that holds it."""
        return Path(self.file)

    def read(self, *, size: int | None = None, max_frames: int | None = None) -> Sticker:
        """Decode it; see :func:`~rdtf.io.read.read_sticker` for arguments and errors."""
        if self.kind == "frames":
            pieces = [Piece(name, partial(_bytes, file, member)) for name, file, member in self.parts]
            timing = pieces.pop().read() if pieces[-1].name in TIMINGS else None
            return read_frames(pieces, timing, self.name, size=size, max_frames=max_frames)
        if self.kind == "sheet":
            picture, sheet = (_bytes(file, member) for _, file, member in self.parts)
            return read_sheet(
                picture,
                sheet,
                self.name,
                animation=self.animation,
                size=size,
                max_frames=max_frames,
            )
        if self.member is None and self.animation is None:
            return read_sticker(self.path, size=size, max_frames=max_frames)
        data = _bytes(self.file, self.member)
        return read_sticker_bytes(data, self.name, size=size, max_frames=max_frames, animation=self.animation)

    def load(self) -> None:
        """Have the table in memory that it is in a cell of, before a limit for decoding holds."""
        if isinstance(self.member, Cell):
            read_cell(self.path, self.member)

    def stamp(self) -> str:
        """16 hex digits that change when the bytes of the sticker may have changed; nothing but ``stat`` is called.

        The caption, which asks for no decoding, is not part of it.

        Raises:
            StickerError: the file is gone.
        """
        known: list[Any] = [self.kind, self.animation]
        for _, file, member in self.parts or (("", self.file, self.member),):
            try:
                status = Path(file).stat()
            except OSError as error:
                raise StickerError(file, error.strerror or str(error)) from error
            known += [status.st_size, status.st_mtime_ns, repr(member)]
        return hashlib.sha256(repr(known).encode()).hexdigest()[:16]


class Items(Spool[Item]):
    """Stickers that were found, held on disk.

    Attributes:
        hashes: 64 bits of a hash of each name.
    """

    def __init__(self) -> None:
        super().__init__()
        self.hashes = array("Q")

    def append(self, value: Item) -> None:
        """Add one."""
        super().append(value)
        digest = hashlib.blake2b(value.name.encode(), digest_size=8).digest()
        self.hashes.append(int.from_bytes(digest, "little"))

    def remove(self, positions: Iterable[int]) -> None:
        """Take out those at these positions."""
        positions = list(positions)
        super().remove(positions)
        self.hashes = without(self.hashes, positions)


@dataclass(frozen=True)
class Found:
    """What is in a source.

    Attributes:
        items: the stickers, in the order of their names (in a compressed TAR, of their places).
        problems: what looked like a sticker or a caption, and cannot be one.
        passed_over: number of captions, read-mes and hidden files seen, which are no stickers.
    """

    items: Items
    problems: list[Rejection]
    passed_over: int


def source_labels(sources: Sequence[Path]) -> list[str]:
    """The sources' names, made different by a number where they are equal."""
    labels: dict[str, None] = {}
    last: Counter[str] = Counter()
    for source in sources:
        name = label = printable(source.resolve().name) or "root"
        while label in labels:
            last[name] += 1
            label = f"{name}-{last[name] + 1}"
        labels[label] = None
    return list(labels)


def find_items(source: Path, label: str, captions: Sequence[str] = (), before: Items | None = None) -> Found:
    """The stickers of a source with their captions. Nothing is decoded.

    A folder is searched with its subfolders and the archives and tables in it; an archive (ZIP, TAR) or a table
    (Parquet) may also be named itself, and so may one sticker. ``docs/formats.md`` lists what is understood.

    Args:
        source: a folder or a file.
        label: what names begin with, see :func:`source_labels`.
        captions: metadata fields or columns that are captions; usual names if empty.
        before: stickers of other sources, which these are appended to.

    Raises:
        ValueError: there is no such folder or file.
    """
    items = Items() if before is None else before
    search, start = _Search(captions, items), len(items)
    if source.is_dir():
        search.tree(FolderTree(source), f"{label}/")
    elif not source.is_file():
        raise ValueError(f"{source}: no such folder or file")
    elif is_archive(source.name) or source.name.lower().endswith(TABLE):
        search.container(source, label)
    else:
        search.file(source, label)
    search.drop_second_names(start)
    return Found(items, search.problems, search.passed_over)


class _Search:
    """Collects items and problems while it goes through trees."""

    def __init__(self, captions: Sequence[str], items: Items) -> None:
        self.captions = captions
        self.items = items
        self.split: str | None = None
        self.problems: list[Rejection] = []
        self.passed_over = 0

    def refuse(self, name: str, reason: str) -> None:
        self.problems.append(Rejection(file=printable(name), reason=printable(reason)))

    def take(self, item: Item) -> None:
        self.items.append(item if self.split is None else _with_split(item, self.split))

    def drop_second_names(self, start: int) -> None:
        """Of items of one name (an animation called like a file) the first one stays."""
        hashes = np.frombuffer(self.items.hashes, np.uint64)[start:]
        _, first = np.unique(hashes, return_index=True)
        second = (start + np.setdiff1d(np.arange(len(hashes)), first)).tolist()
        del hashes  # which would keep the array from shrinking
        for position in second:
            self.refuse(self.items[position].name, "another sticker has this name; rename one of them")
        self.items.remove(second)

    def file(self, source: Path, label: str) -> None:
        """One sticker that was named itself, with a text beside it."""
        beside = source.with_suffix(".txt")
        try:
            text = (lambda: clean_caption(beside.read_text("utf-8-sig"))) if beside.is_file() else None
            self.take(Item(label, str(source), make_caption({}, source.name, (), text)))
        except ValueError as error:
            self.refuse(label, str(error))

    def container(self, file: Path, name: str) -> None:
        """An archive or a table; where it begins with the name of a split (``train-00000-of-00004``), that holds."""
        split = _SHARD_SPLIT.fullmatch(file.name)
        self.split = SPLIT_NAMES[split[1].casefold()] if split else None
        try:
            if is_archive(file.name):
                self.tree(ArchiveTree(file), f"{name}/")
            else:
                self.table(file, name)
        except StickerError as error:
            raise_shortage(error, file)
            self.refuse(name, error.reason)
        finally:
            self.split = None

    def table(self, file: Path, name: str) -> None:
        for number, (cell, entry) in enumerate(table_rows(file)):
            named = f"{name}/{number:07d}"
            try:
                complaints: list[str] = []
                caption = make_caption(entry, str(entry.get("path") or ""), self.captions, None, complaints)
                for said in complaints:
                    self.refuse(named, said)
            except ValueError as error:
                self.refuse(named, str(error))
            else:
                self.take(Item(printable(named), str(file), caption, cell))

    def tree(self, tree: Tree, prefix: str) -> None:
        """Everything in a folder or an archive; names begin with ``prefix``."""
        for problem in tree.problems:
            self.refuse(f"{prefix}{problem.path}", problem.reason)
        exported = read_exports(tree)
        groups = _Groups(tree, exported.others)
        stickers: list[str] = []
        containers: list[str] = []
        self.passed_over += tree.hidden
        for name in tree.names:
            ending = _ending(name)
            if name in groups.stickers:
                stickers.append(name)
            elif name in groups.taken:
                continue
            elif name in exported.others or _is_sidecar(name) or name in groups.sidecars or name in groups.pictures:
                self.passed_over += 1
                if (
                    ending in _TABLES
                    and name not in exported.others
                    and not is_metadata(name)
                    and name.rpartition("/")[2] not in _OUR_TABLES
                ):
                    self.refuse(f"{prefix}{name}", f"is not read; if it has captions, call it metadata{ending}")
            elif ending in _UNFINISHED:
                self.refuse(f"{prefix}{name}", "a download that is not finished; fetch the file again")
            elif is_archive(name) or ending == TABLE:
                containers.append(name)
            elif ending not in SUFFIXES:
                self.refuse(f"{prefix}{name}", f"the ending {ending!r} is not a known sticker format")
            else:
                stickers.append(name)
        # Folders of frames are no names of files.
        stickers = sorted([*stickers, *(name for name, (kind, _) in groups.stickers.items() if kind == "frames")])
        for problem in [*exported.problems, *groups.problems]:
            self.refuse(f"{prefix}{problem.path}", problem.reason)
        problems: list[StickerError] = []
        known = find_captions(tree, stickers, problems, self.captions, {**groups.sidecars_of, **exported.entries})
        splits = _split_folders(tree.names)
        items = (
            (_order(name, item), _with_split(item, split) if (split := splits.get(name.partition("/")[0])) else item)
            for name, caption in known
            for item in sorted(groups.items(name, f"{prefix}{name}", caption), key=lambda item: item.name)
        )
        # The names are sorted, and so are the items, but those of a compressed TAR: of such there are not many.
        found: Iterable[tuple[tuple[str, int, str], Item | str]] = items
        if isinstance(tree, ArchiveTree) and any(member.kind == "tar.gz" for member in tree.members.values()):
            found = sorted(items, key=lambda pair: pair[0])
        held = (((name, 0, name), name) for name in containers)
        for _, what in heapq.merge(found, held, key=lambda pair: pair[0]):
            if isinstance(what, Item):
                self.take(what)
            elif isinstance(tree, FolderTree):
                self.container(tree.root / what, printable(f"{prefix}{what}"))
            else:
                self.refuse(f"{prefix}{what}", "an archive inside of an archive is not opened; unpack the outer one")
        for problem in problems:
            if str(problem.path) not in exported.others:
                self.refuse(f"{prefix}{problem.path}", problem.reason)


class _Groups:
    """Which files of a tree belong together, and how a sticker's name becomes items.

    Attributes:
        stickers: names of stickers that are made up of several files (or of what a folder is called).
        taken: files that belong to them.
        sidecars: JSON files that describe the picture of the same name (as in WebDataset).
        sidecars_of: what they say, by picture.
        pictures: files of a folder ``images`` that a Lottie beside the folder draws.
        problems: JSON that cannot be read.
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
            if folder not in folders or _ending(name) != ".json":
                continue
            try:
                with self.tree.open(name) as stream:
                    known = json.loads(stream.read(MAX_JSON_BYTES))
                listed = known["assets"]
                paths = [f"{asset.get('u') or 'images/'}/{asset['p']}" for asset in listed if "p" in asset]
            except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
                raise_shortage(error, name)
                continue  # no Lottie that draws pictures; whoever reads it tells what is wrong
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
            pictures = [name for name in here if _ending(name) in PICTURES]
            timing = next((name for name in TIMINGS if name in here), None)
            if any(_ending(name) not in PICTURES and name != timing and not _is_sidecar(name) for name in here):
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
        """The items that a sticker's file is: one, or one for each of its animations."""
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
            return []  # whoever reads it finds the same, and says so


def _bytes(file: str, member: Member | Cell | None) -> bytes:
    """The bytes of a file, a member of an archive or a cell of a table, under the limits of reading."""
    most = max(ReadLimits.image_bytes, ReadLimits.lottie_bytes, ReadLimits.video_bytes)
    path = Path(file)
    if isinstance(member, Member):
        return read_member(path, member, most)
    if isinstance(member, Cell):
        return read_cell(path, member)
    try:
        size = path.stat().st_size
        if size > most:
            raise StickerError(path, f"{size / 2**20:.0f} MiB is too large (at most {most / 2**20:.0f})")
        return path.read_bytes()
    except OSError as error:
        raise StickerError(path, error.strerror or str(error)) from error


def _ending(name: str) -> str:
    """The ending of a name with its dot, in small letters; a leading dot begins no ending."""
    last = name.rpartition("/")[2].lower()
    stem, dot, ending = last.rpartition(".")
    return dot + ending if stem.strip(".") and ending else ""


def _is_sidecar(name: str) -> bool:
    return _ending(name) in _SIDECARS or posixpath.basename(name).lower() in _SIDECAR_NAMES or is_metadata(name)


def _is_described(name: str) -> bool:
    """Whether a JSON of the same name may be about this file."""
    ending = _ending(name)
    return ending in SUFFIXES and ending != ".json"


def _order(name: str, item: Item) -> tuple[str, int, str]:
    """By name; of a compressed TAR by place, for going back in it means to inflate it all again."""
    if isinstance(item.member, Member) and item.member.kind == "tar.gz":
        return "", item.member.offset, item.name
    return name, 0, item.name


def _split_folders(names: Sequence[str]) -> dict[str, str]:
    """Splits by top folder, where all top folders are called after splits and one is ``train``; else nothing."""
    folders = {name.partition("/")[0] for name in names if "/" in name}
    known = {folder: SPLIT_NAMES.get(folder.casefold()) for folder in folders}
    if len(folders) < 2 or "train" not in known.values():
        return {}
    return {folder: split for folder, split in known.items() if split} if all(known.values()) else {}


def _with_split(item: Item, split: str) -> Item:
    return item if item.caption.split else replace(item, caption=replace(item.caption, split=split))
